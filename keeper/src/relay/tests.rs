//! Random conversations, with a switch that is killed between any two steps, sometimes while a
//! successor prepares, against a switch that lives.

mod device;

use std::os::fd::BorrowedFd;

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, memfd_create};

use self::device::{Device, Sent, conversation};
use super::*;
use crate::framing::{NEED_REPLY, word};
use crate::wire::send_bytes;

fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
}

fn files() -> Vec<OwnedFd> {
    (0..4).map(|_| memfd_create("file", MemfdFlags::CLOEXEC).unwrap()).collect()
}

/// A switch that serves one connection.
struct Session {
    number: Switch,
    stream: OwnedFd,
    device: Device,
    reader: Reader,
    /// Messages of the past that it has not served.
    past: usize,
    /// Whether it has served a message and not said so.
    is_owing: bool,
    /// Whether that message was of the past.
    owes_past: bool,
}

struct World {
    relay: Relay,
    frontend: OwnedFd,
    /// What the frontend has not sent, with the descriptors that begin at offsets.
    unsent: Vec<(u8, Vec<usize>)>,
    files: Vec<OwnedFd>,
    received: Vec<u8>,
    switch: Session,
    /// The one that prepares to take over.
    successor: Option<Session>,
    /// The messages that switches have served, without those of the past.
    served: Vec<Vec<u8>>,
}

impl World {
    fn new(messages: &[Sent]) -> World {
        let (frontend, theirs) = pair();
        let mut relay = Relay::new(b"value", theirs, 1);
        let (stream, past) = relay.open(Caller { switch: 1, serves: true }).unwrap();
        let mut unsent = Vec::new();
        for message in messages {
            let first = unsent.len();
            unsent.extend(message.bytes().into_iter().map(|byte| (byte, Vec::new())));
            unsent[first].1 = message.files.clone();
        }
        let switch = Session::new(1, stream, past);
        let (received, served) = (Vec::new(), Vec::new());
        World { relay, frontend, unsent, files: files(), received, switch, successor: None, served }
    }

    /// The frontend sends some bytes; a message's descriptors come with its first byte.
    fn send(&mut self, most: usize) {
        let Some((_, files)) = self.unsent.first() else { return };
        let rest = self.unsent.iter().skip(1).take(most.saturating_sub(1));
        let length = 1 + rest.take_while(|(_, files)| files.is_empty()).count();
        let fds: Vec<BorrowedFd<'_>> = files.iter().map(|file| self.files[*file].as_fd()).collect();
        let bytes: Vec<u8> = self.unsent[..length].iter().map(|(byte, _)| *byte).collect();
        let sent = send_bytes(&self.frontend, &bytes, &fds).unwrap();
        self.unsent.drain(..sent);
    }

    fn receive(&mut self) {
        let mut buffer = [0; 300];
        if let Ok(received) = receive_bytes(&self.frontend, &mut buffer, RecvFlags::DONTWAIT) {
            self.received.extend(&buffer[..received.bytes]);
        }
    }

    /// The switch serves a message.
    fn serve(&mut self) {
        self.served.extend(self.switch.serve());
    }

    fn done(&mut self) -> bool {
        let is_done = std::mem::take(&mut self.switch.is_owing);
        if is_done {
            self.relay.done(self.switch.number).unwrap();
            if let Some(successor) = self.successor.as_mut().filter(|_| !self.switch.owes_past) {
                successor.past += 1;
            }
        }
        is_done
    }

    /// A successor attaches, or serves a message that the switch has served before.
    fn prepare(&mut self) {
        let number = self.switch.number + 1;
        let successor = self.successor.get_or_insert_with(|| {
            let (stream, past) = self.relay.open(Caller { switch: number, serves: false }).unwrap();
            Session::new(number, stream, past)
        });
        if successor.is_owing {
            successor.is_owing = false;
            self.relay.done(number).unwrap();
        }
        assert_eq!(successor.serve(), None, "it is asked for nothing new");
    }

    /// The switch dies, and its successor or another one resumes the connection.
    fn kill(&mut self) {
        self.relay.lose(self.switch.number);
        let number = self.switch.number + 1;
        self.switch = self.successor.take().unwrap_or_else(|| {
            let (stream, past) = self.relay.open(Caller { switch: number, serves: true }).unwrap();
            Session::new(number, stream, past)
        });
    }

    /// Goes on until nothing moves.
    fn settle(&mut self) {
        loop {
            self.send(usize::MAX);
            let next = self.relay.step(u64::MAX);
            assert_ne!(next, Next::Over);
            self.serve();
            let is_done = self.done();
            let before = self.received.len();
            self.receive();
            let moves = is_done || self.received.len() > before || next == Next::Again;
            if !moves && self.unsent.is_empty() {
                return;
            }
        }
    }
}

impl Session {
    fn new(number: Switch, stream: OwnedFd, past: usize) -> Session {
        let (device, reader) = (Device::default(), Reader::default());
        Session { number, stream, device, reader, past, is_owing: false, owes_past: false }
    }

    /// Serves a message, if one is there and the one before is done; returns a new one.
    fn serve(&mut self) -> Option<Vec<u8>> {
        if self.is_owing {
            return None;
        }
        let Read::Message(message) = self.reader.read(&self.stream, u64::MAX) else { return None };
        let wants_reply = word(&message.bytes, 4).unwrap() & NEED_REPLY != 0;
        assert!(self.past == 0 || !wants_reply, "replies to the past go nowhere");
        let reply = self.device.serve(&message);
        if !reply.is_empty() {
            send_bytes(&self.stream, &reply, &[]).unwrap();
        }
        self.is_owing = true;
        self.owes_past = self.past > 0;
        self.past = self.past.saturating_sub(1);
        (!self.owes_past).then(|| message.bytes.to_vec())
    }
}

/// What one switch that lives would reply and be, after all messages.
fn expected(messages: &[Sent], files: &[OwnedFd]) -> (Vec<u8>, Device) {
    let (mut device, mut replies) = (Device::default(), Vec::new());
    for sent in messages {
        let fds = sent.files.iter().map(|file| files[*file].try_clone().unwrap());
        let message = Message { bytes: sent.bytes().into(), fds: fds.collect(), ..empty() };
        replies.extend(device.serve(&message));
    }
    (replies, device)
}

fn empty() -> Message {
    Message::new(0, b"", Vec::new())
}

#[derive(Clone, Debug)]
enum Event {
    Send(usize),
    Receive,
    Step,
    Serve,
    Done,
    Prepare,
    Kill,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => prop_oneof![Just(1), 1..60_usize].prop_map(Event::Send),
        1 => Just(Event::Receive),
        8 => Just(Event::Step),
        8 => Just(Event::Serve),
        8 => Just(Event::Done),
        2 => Just(Event::Prepare),
        1 => Just(Event::Kill),
    ];
    prop::collection::vec(event, 0..400)
}

proptest! {
    #[test]
    fn a_killed_switch_is_not_noticed(messages in conversation(), events in events()) {
        let mut world = World::new(&messages);
        for event in events {
            match event {
                Event::Send(most) => world.send(most),
                Event::Receive => world.receive(),
                Event::Step => prop_assert_ne!(world.relay.step(u64::MAX), Next::Over),
                Event::Serve => world.serve(),
                Event::Done => drop(world.done()),
                Event::Prepare => world.prepare(),
                Event::Kill => world.kill(),
            }
        }
        world.settle();
        let (replies, device) = expected(&messages, &world.files);
        prop_assert_eq!(&world.received, &replies, "each reply once and in order");
        prop_assert_eq!(&world.switch.device, &device, "the state of a switch that lives");
        // Each message was served, and none after a later one.
        let mut served = world.served.clone();
        served.dedup();
        let sent: Vec<_> = messages.iter().map(Sent::bytes).collect();
        prop_assert_eq!(served, sent);
        world.kill();
        world.settle();
        prop_assert_eq!(&world.switch.device, &device, "after nothing but the past");
        prop_assert_eq!(&world.received, &replies, "and nothing is replied to it");
        prop_assert!(world.relay.log.messages().len() <= MOST_MESSAGES);
    }
}
