//! Which question goes to which server, and whose an answer is. No socket, no clock.
//!
//! A question waits in a *slot*. It is sent under an id that nobody can guess, through a socket
//! of its own (and so from a port that nobody can guess); only a message from the server asked,
//! with that id and the same question, is its answer. A server that fails or is silent is followed
//! by the next one.

use std::net::SocketAddr;
use std::time::Duration;

use super::message::{Message, NOT_IMPLEMENTED, REFUSED, SERVER_FAILURE};
use super::names::Names;
use crate::config::Config;
use crate::dhcp::Leases;
use crate::drop_reason::DropReason;
use crate::gateway::{Client, PortId, Random};

/// Questions that may wait at once: all, and those of one sender.
const SLOTS: usize = 256;
const SLOTS_OF_ONE: usize = 64;
/// How long a server may take (clients give up after 5 s and more).
const PATIENCE: Duration = Duration::from_millis(1500);
/// Questions for whole zones (RFC 1995, RFC 5936), which have many messages for an answer.
const TRANSFERS: [u16; 2] = [251, 252];
/// Most servers asked for one question.
const TRIES: usize = 3;

/// What a forwarder wants from its sockets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Upstream {
    /// Send a message to a server, from a new socket in place of the slot's old one.
    Ask {
        /// The question's slot.
        slot: usize,
        /// The server.
        server: SocketAddr,
        /// The message.
        message: Vec<u8>,
        /// Whether to ask over TCP, so that the answer is whole.
        by_stream: bool,
    },
    /// Close the slot's socket.
    Close {
        /// The slot.
        slot: usize,
    },
}

/// A question on its way.
struct Waiting {
    client: Client,
    /// As it goes to the servers, under our id.
    message: Vec<u8>,
    id: u16,
    /// The client's id.
    client_id: u16,
    /// How many servers were asked, the present one included.
    tries: usize,
    until: Duration,
}

/// Forwards questions to servers.
pub(crate) struct Forwarder {
    names: Names,
    servers: Vec<SocketAddr>,
    slots: Vec<Option<Waiting>>,
}

/// What goes back to clients.
pub(crate) type Replies = Vec<(Client, Vec<u8>)>;

impl Forwarder {
    pub fn new(config: &Config) -> Forwarder {
        let slots = (0..SLOTS).map(|_| None).collect();
        Forwarder { names: Names::new(config), servers: Vec::new(), slots }
    }

    pub fn reconfigure(&mut self, config: &Config) {
        self.names = Names::new(config);
    }

    /// The servers to ask from now on. Questions under way go on to these.
    pub fn set_servers(&mut self, servers: Vec<SocketAddr>) {
        self.servers = servers;
    }

    /// Takes a client's question.
    pub fn query(
        &mut self,
        now: Duration,
        known: (&Config, Option<&Leases>),
        random: &mut Random,
        (client, bytes): (Client, &[u8]),
        upstream: &mut Vec<Upstream>,
    ) -> Result<Option<Vec<u8>>, DropReason> {
        let question = Message::parse(bytes).ok_or(DropReason::BadDns)?;
        if !question.is_query() {
            // Never an answer to what may be an answer: two servers could go on for ever.
            return Err(DropReason::BadDns);
        }
        if !question.is_standard() || TRANSFERS.contains(&question.kind) {
            return Ok(Some(question.reply(NOT_IMPLEMENTED)));
        }
        if let Some(answer) = self.names.answer(known, &question) {
            return Ok(Some(answer));
        }
        if self.servers.is_empty() {
            return Ok(Some(question.reply(SERVER_FAILURE)));
        }
        let slot = self.free_slot(client.port)?;
        let waiting = Waiting {
            client,
            message: bytes.to_vec(),
            id: 0,
            client_id: question.id,
            tries: 0,
            until: now,
        };
        self.slots[slot] = Some(waiting);
        self.ask_next(now, slot, random, upstream);
        Ok(None)
    }

    fn free_slot(&self, port: PortId) -> Result<usize, DropReason> {
        let of_port = |slot: &&Option<Waiting>| {
            slot.as_ref().is_some_and(|waiting| waiting.client.port == port)
        };
        if self.slots.iter().filter(of_port).count() >= SLOTS_OF_ONE {
            return Err(DropReason::DnsLimit);
        }
        self.slots.iter().position(Option::is_none).ok_or(DropReason::DnsLimit)
    }

    /// Asks the next server, if there is one left: true.
    fn ask_next(
        &mut self,
        now: Duration,
        slot: usize,
        random: &mut Random,
        upstream: &mut Vec<Upstream>,
    ) -> bool {
        let Some(waiting) = &mut self.slots[slot] else { return false };
        if waiting.tries >= TRIES || self.servers.is_empty() {
            return false;
        }
        let server = self.servers[waiting.tries % self.servers.len()];
        waiting.tries += 1;
        waiting.until = now + PATIENCE;
        waiting.id = random() as u16;
        waiting.message[..2].copy_from_slice(&waiting.id.to_be_bytes());
        let (message, by_stream) = (waiting.message.clone(), waiting.client.stream.is_some());
        upstream.push(Upstream::Ask { slot, server, message, by_stream });
        true
    }

    /// Takes a datagram that a server sent to a slot's socket.
    pub fn answer(
        &mut self,
        now: Duration,
        slot: usize,
        bytes: &[u8],
        random: &mut Random,
        upstream: &mut Vec<Upstream>,
    ) -> Result<Option<(Client, Vec<u8>)>, DropReason> {
        let waiting = self.slots[slot].as_ref().ok_or(DropReason::DnsUnasked)?;
        let asked = Message::parse(&waiting.message).ok_or(DropReason::BadDns)?;
        let answer = Message::parse(bytes).ok_or(DropReason::DnsUnasked)?;
        if !answer.answers(waiting.id, &asked) {
            return Err(DropReason::DnsUnasked);
        }
        let failed = [SERVER_FAILURE, REFUSED].contains(&answer.code());
        if failed
            && waiting.tries < self.servers.len()
            && self.ask_next(now, slot, random, upstream)
        {
            return Ok(None);
        }
        Ok(self.finish(slot, Some(bytes), upstream))
    }

    /// A server cannot be reached.
    pub fn failed(
        &mut self,
        now: Duration,
        slot: usize,
        random: &mut Random,
        upstream: &mut Vec<Upstream>,
    ) -> Option<(Client, Vec<u8>)> {
        if self.ask_next(now, slot, random, upstream) {
            return None;
        }
        self.finish(slot, None, upstream)
    }

    /// Goes on with questions whose server was silent for too long.
    pub fn poll(
        &mut self,
        now: Duration,
        random: &mut Random,
        upstream: &mut Vec<Upstream>,
    ) -> Replies {
        let mut replies = Vec::new();
        for slot in 0..self.slots.len() {
            if self.slots[slot].as_ref().is_some_and(|waiting| waiting.until <= now) {
                replies.extend(self.failed(now, slot, random, upstream));
            }
        }
        replies
    }

    /// When [`Forwarder::poll`] has something to do next.
    pub fn deadline(&self) -> Option<Duration> {
        self.slots.iter().flatten().map(|waiting| waiting.until).min()
    }

    /// Ends a question with an answer or, without one, with a failure.
    fn finish(
        &mut self,
        slot: usize,
        answer: Option<&[u8]>,
        upstream: &mut Vec<Upstream>,
    ) -> Option<(Client, Vec<u8>)> {
        let waiting = self.slots[slot].take()?;
        upstream.push(Upstream::Close { slot });
        let asked = Message::parse(&waiting.message)?;
        let mut reply = match answer {
            Some(bytes) if bytes.len() <= waiting.client.room => bytes.to_vec(),
            Some(bytes) => asked.truncated(Message::parse(bytes)?.code()),
            None => asked.reply(SERVER_FAILURE),
        };
        reply[..2].copy_from_slice(&waiting.client_id.to_be_bytes());
        Some((waiting.client, reply))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::message::{TYPE_A, TYPE_PTR, query};
    use crate::testing::{client, lab};

    const T0: Duration = Duration::ZERO;

    struct Lab {
        forwarder: Forwarder,
        random: Random,
        upstream: Vec<Upstream>,
        by_stream: bool,
    }

    impl Lab {
        fn new(servers: &[&str]) -> Lab {
            let mut config = lab();
            config.hosts = vec![("vm1".into(), [10, 0, 2, 15].into())];
            let mut forwarder = Forwarder::new(&config);
            forwarder.set_servers(servers.iter().map(|text| text.parse().unwrap()).collect());
            let mut next = 0x1234;
            let random = Box::new(move || {
                next += 1;
                next
            });
            Lab { forwarder, random, upstream: Vec::new(), by_stream: false }
        }

        fn ask(&mut self, port: u64, bytes: &[u8]) -> Result<Option<Vec<u8>>, DropReason> {
            self.ask_as(client(port), bytes)
        }

        fn ask_as(&mut self, who: Client, bytes: &[u8]) -> Result<Option<Vec<u8>>, DropReason> {
            let Lab { forwarder, random, upstream, .. } = self;
            forwarder.query(T0, (&lab(), None), random, (who, bytes), upstream)
        }

        /// The last question that went out.
        fn asked(&mut self) -> (usize, SocketAddr, Vec<u8>) {
            match self.upstream.pop().unwrap() {
                Upstream::Ask { slot, server, message, by_stream } => {
                    self.by_stream = by_stream;
                    (slot, server, message)
                }
                other => panic!("{other:?}"),
            }
        }

        fn hear(&mut self, slot: usize, bytes: &[u8]) -> Result<Option<Vec<u8>>, DropReason> {
            let Lab { forwarder, random, upstream, .. } = self;
            let reply = forwarder.answer(T0, slot, bytes, random, upstream)?;
            Ok(reply.map(|(_, bytes)| bytes))
        }
    }

    fn answer(question: &[u8]) -> Vec<u8> {
        Message::parse(question).unwrap().answer(&[vec![192, 0, 2, 1]])
    }

    #[test]
    fn an_answer_goes_back_under_the_clients_id() {
        let mut lab = Lab::new(&["192.0.2.53:53"]);
        assert_eq!(lab.ask(1, &query(7, "example.org", TYPE_A)), Ok(None));
        let (slot, server, message) = lab.asked();
        assert_eq!(server.to_string(), "192.0.2.53:53");
        assert_ne!(message[..2], [0, 7], "the client chose the id");
        let reply = lab.hear(slot, &answer(&message)).unwrap().unwrap();
        assert_eq!(reply, answer(&query(7, "example.org", TYPE_A)));
        assert_eq!(lab.upstream, [Upstream::Close { slot }]);
        assert_eq!(lab.hear(slot, &answer(&message)), Err(DropReason::DnsUnasked), "twice");
        assert_eq!(lab.forwarder.deadline(), None);
    }

    #[test]
    fn forged_answers_are_not_passed_on() {
        let mut lab = Lab::new(&["192.0.2.53:53"]);
        lab.ask(1, &query(7, "example.org", TYPE_A)).unwrap();
        let (slot, _, message) = lab.asked();
        let id = u16::from_be_bytes([message[0], message[1]]);
        let forged = [
            answer(&query(id.wrapping_add(1), "example.org", TYPE_A)),
            answer(&query(id, "example.com", TYPE_A)),
            answer(&query(id, "example.org", TYPE_PTR)),
            message.clone(),
            answer(&message)[..11].to_vec(),
        ];
        for bytes in forged {
            assert_eq!(lab.hear(slot, &bytes), Err(DropReason::DnsUnasked), "{bytes:?}");
        }
        assert!(lab.hear(slot, &answer(&message)).unwrap().is_some(), "the real one still comes");
    }

    #[test]
    fn the_next_server_is_asked_and_in_the_end_it_fails() {
        let mut lab = Lab::new(&["192.0.2.1:53", "192.0.2.2:53"]);
        lab.ask(1, &query(7, "example.org", TYPE_A)).unwrap();
        let (slot, _, first) = lab.asked();
        let refusal = Message::parse(&first).unwrap().reply(REFUSED);
        assert_eq!(lab.hear(slot, &refusal), Ok(None));
        let (_, second, message) = lab.asked();
        assert_eq!(second.to_string(), "192.0.2.2:53");
        assert_ne!(message[..2], first[..2], "the id was used twice");
        let mut now = T0;
        let mut replies = Vec::new();
        for _ in 0..TRIES {
            now += PATIENCE;
            assert!(lab.forwarder.deadline().is_none_or(|until| until <= now));
            replies = lab.forwarder.poll(now, &mut lab.random, &mut lab.upstream);
            if !replies.is_empty() {
                break;
            }
        }
        let wanted = query(7, "example.org", TYPE_A);
        let wanted = Message::parse(&wanted).unwrap().reply(SERVER_FAILURE);
        assert_eq!(replies.iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(), [&wanted]);
        assert_eq!(lab.forwarder.deadline(), None);
    }

    #[test]
    fn one_sender_cannot_take_all_slots() {
        let mut lab = Lab::new(&["192.0.2.1:53"]);
        let question = query(7, "example.org", TYPE_A);
        let taken = (0..SLOTS).filter(|_| lab.ask(1, &question).is_ok()).count();
        assert_eq!(taken, SLOTS_OF_ONE);
        assert_eq!(lab.ask(1, &question), Err(DropReason::DnsLimit));
        assert_eq!(lab.ask(2, &question), Ok(None));
    }

    #[test]
    fn names_of_the_network_are_answered_here() {
        let mut lab = Lab::new(&["192.0.2.1:53"]);
        let reply = lab.ask(1, &query(7, "VM1", TYPE_A)).unwrap().unwrap();
        assert_eq!(reply[reply.len() - 4..], [10, 0, 2, 15]);
        let reply = lab.ask(1, &query(7, "vm1", 28)).unwrap().unwrap();
        assert_eq!(Message::parse(&reply).unwrap().code(), 0, "has no IPv6 address, but is there");
        let reply = lab.ask(1, &query(7, "15.2.0.10.in-addr.arpa", TYPE_PTR)).unwrap().unwrap();
        assert_eq!(reply[reply.len() - 5..], *b"\x03vm1\0");
        let reply = lab.ask(1, &query(7, "16.2.0.10.in-addr.arpa", TYPE_PTR)).unwrap().unwrap();
        assert_eq!(Message::parse(&reply).unwrap().code(), 3, "ours, and unknown");
        assert!(lab.upstream.is_empty(), "asked outside");
    }

    #[test]
    fn an_answer_too_long_for_the_network_is_cut() {
        let mut lab = Lab::new(&["192.0.2.1:53"]);
        lab.ask(1, &query(7, "example.org", TYPE_A)).unwrap();
        let (slot, _, message) = lab.asked();
        let long = Message::parse(&message).unwrap().answer(&vec![vec![0; 4]; 100]);
        let reply = lab.hear(slot, &long).unwrap().unwrap();
        assert_eq!((reply.len(), reply[2] & 2), (message.len(), 2), "TC is not set");
    }

    #[test]
    fn who_asks_by_a_stream_gets_the_whole_answer_by_one() {
        let mut lab = Lab::new(&["192.0.2.1:53", "192.0.2.2:53"]);
        let who = Client { stream: Some(3), room: 65_535, ..client(1) };
        assert_eq!(lab.ask_as(who, &query(7, "example.org", TYPE_A)), Ok(None));
        let (slot, _, message) = lab.asked();
        assert!(lab.by_stream);
        let refusal = Message::parse(&message).unwrap().reply(SERVER_FAILURE);
        assert_eq!(lab.hear(slot, &refusal), Ok(None));
        let (_, server, message) = lab.asked();
        assert_eq!((server.to_string().as_str(), lab.by_stream), ("192.0.2.2:53", true));
        let long = Message::parse(&message).unwrap().answer(&vec![vec![0; 4]; 1000]);
        let reply = lab.hear(slot, &long).unwrap().unwrap();
        assert_eq!((reply.len(), &reply[2..]), (long.len(), &long[2..]));
        lab.ask(1, &query(7, "example.org", TYPE_A)).unwrap();
        lab.asked();
        assert!(!lab.by_stream);
        let zone = lab.ask_as(who, &query(7, "example.org", 252)).unwrap().unwrap();
        assert_eq!(Message::parse(&zone).unwrap().code(), NOT_IMPLEMENTED);
    }

    #[test]
    fn what_is_no_question_is_refused() {
        let mut lab = Lab::new(&["192.0.2.1:53"]);
        let question = query(7, "example.org", TYPE_A);
        assert_eq!(lab.ask(1, &answer(&question)), Err(DropReason::BadDns));
        assert_eq!(lab.ask(1, &question[..20]), Err(DropReason::BadDns));
        let mut notify = question.clone();
        notify[2] |= 0x20;
        let reply = lab.ask(1, &notify).unwrap().unwrap();
        assert_eq!(Message::parse(&reply).unwrap().code(), NOT_IMPLEMENTED);
        lab.forwarder.set_servers(Vec::new());
        let reply = lab.ask(1, &question).unwrap().unwrap();
        assert_eq!(Message::parse(&reply).unwrap().code(), SERVER_FAILURE);
    }
}
