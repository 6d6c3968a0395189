//! Connections of frontends, through a keeper and its client.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::*;
use crate::framing::{HEADER, REPLY, VERSION};
use crate::wire::send_bytes;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

const GET_FEATURES: u32 = 1;
const SET_FEATURES: u32 = 2;
const SET_OWNER: u32 = 3;
const UNKNOWN: u32 = 60;

fn message(request: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let words = [request, flags, body.len() as u32];
    words.iter().flat_map(|word| word.to_ne_bytes()).chain(body.iter().copied()).collect()
}

fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    (ours, theirs)
}

/// Reads a message whole; `None` at the end.
fn read(mut stream: &UnixStream) -> Option<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = vec![0; HEADER];
    match stream.read_exact(&mut bytes) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
        result => result.unwrap(),
    }
    let size = u32::from_ne_bytes(bytes[8..12].try_into().unwrap());
    bytes.resize(HEADER + size as usize, 0);
    stream.read_exact(&mut bytes[HEADER..]).unwrap();
    Some(bytes)
}

/// Serves a message: reads it, replies and says that it is done.
#[track_caller]
fn serve(keeper: &Keeper, key: &str, mut stream: &UnixStream, wanted: &[u8], reply: &[u8]) {
    assert_eq!(read(stream).as_deref(), Some(wanted));
    stream.write_all(reply).unwrap();
    keeper.done(key).unwrap();
}

fn features() -> (Vec<u8>, Vec<u8>) {
    (message(GET_FEATURES, VERSION, b""), message(GET_FEATURES, VERSION | REPLY, &[7; 8]))
}

#[test]
fn a_connection_outlives_its_switch() {
    let world = World::new(LONG);
    let first = world.attach(Claim::Main);
    let (mut frontend, theirs) = pair();
    let stream = first.relay("vm1", b"peer", theirs).unwrap();
    let (ask, reply) = features();
    let (set, owner) = (message(SET_FEATURES, VERSION, &[1; 8]), message(SET_OWNER, VERSION, b""));
    frontend.write_all(&[ask.clone(), set.clone(), owner.clone()].concat()).unwrap();
    serve(&first, "vm1", &stream, &ask, &reply);
    assert_eq!(read(&frontend), Some(reply.clone()));
    serve(&first, "vm1", &stream, &set, b"");
    // It dies while it serves the third.
    assert_eq!(read(&stream).as_ref(), Some(&owner));
    (&stream).write_all(b"a reply that goes nowhere").unwrap();
    drop((first, stream));

    let (second, _) = attach_eventually(&world, Claim::StandIn);
    assert!(second.resume("vm2").unwrap().is_none());
    let resumed = second.resume("vm1").unwrap().unwrap();
    assert_eq!((resumed.value.as_slice(), resumed.messages), (b"peer".as_slice(), 2));
    let stream = resumed.stream;
    serve(&second, "vm1", &stream, &ask, &reply);
    serve(&second, "vm1", &stream, &set, b"");
    serve(&second, "vm1", &stream, &owner, b"");
    frontend.write_all(&ask).unwrap();
    serve(&second, "vm1", &stream, &ask, &reply);
    assert_eq!(read(&frontend), Some(reply), "the next thing that the frontend hears");
    world.end(&second);
    assert_eq!(read(&frontend), None);
}

#[test]
fn misbehaving_frontends_delay_no_other_and_the_session_sees_why() {
    let world = World::new(LONG);
    let switch = world.attach(Claim::Main);
    let connect = |key: &str| {
        let (frontend, theirs) = pair();
        (frontend, switch.relay(key, b"", theirs).unwrap())
    };
    let (ask, reply) = features();
    let (mut half, half_stream) = connect("half");
    half.write_all(&ask[..7]).unwrap();
    let (mut lies, lies_stream) = connect("lies");
    let header = [GET_FEATURES, VERSION, 1 << 30].map(u32::to_ne_bytes).concat();
    lies.write_all(&[header.clone(), vec![1; 5000]].concat()).unwrap();
    let (many, many_stream) = connect("many");
    let event = descriptor();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(200))];
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
    let rights = vec![event.as_fd(); 200];
    assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&rights)));
    let iov = [io::IoSlice::new(&ask)];
    rustix::net::sendmsg(&many, &iov, &mut control, rustix::net::SendFlags::empty()).unwrap();
    // Reads no replies.
    let (mut deaf, deaf_stream) = connect("deaf");
    deaf.set_nonblocking(true).unwrap();
    let flood = message(UNKNOWN, VERSION, b"");
    let mut sent = 0;
    while deaf.write_all(&flood).is_ok() {
        sent += 1;
    }
    let large = message(UNKNOWN, VERSION | REPLY, &[0; 4096]);
    let mut count = 0;
    deaf_stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Until the frontend's socket is full: then no more of its messages are read. A wait that is
    // too short for this host shows less, and fails nothing.
    while (&deaf_stream).read_exact(&mut [0; HEADER]).is_ok() {
        (&deaf_stream).write_all(&large).unwrap();
        switch.done("deaf").unwrap();
        count += 1;
        deaf_stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    }
    assert!(count > 0);
    assert!(count < sent, "{count} of {sent} although it reads nothing");

    let (mut honest, stream) = connect("honest");
    honest.write_all(&ask).unwrap();
    serve(&switch, "honest", &stream, &ask, &reply);
    assert_eq!(read(&honest), Some(reply));

    assert!(!is_readable(&half_stream), "nothing of a half message");
    let rest = |mut stream: &UnixStream| {
        let mut bytes = Vec::new();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    };
    assert_eq!(rest(&lies_stream), header, "the header that lies, and the end");
    assert_eq!(rest(&many_stream), ask);
    drop(half);
    assert_eq!(rest(&half_stream), ask[..7]);
    for key in ["lies", "many", "half"] {
        switch.close(key).unwrap();
    }
    assert!(matches!(lies.read(&mut [0]), Ok(0) | Err(_)), "closed");
    world.end(&switch);
}

#[test]
fn a_frontend_that_leaves_is_forgotten() {
    let world = World::new(LONG);
    let first = world.attach(Claim::Main);
    let ((here, theirs), (gone, gone_theirs)) = (pair(), pair());
    let streams = [first.relay("here", b"", theirs), first.relay("gone", b"", gone_theirs)];
    drop((first, streams));
    drop(gone);
    let (second, _) = attach_eventually(&world, Claim::Main);
    while second.resume("gone").unwrap().is_some() {
        thread::yield_now();
    }
    let resumed = second.resume("here").unwrap().unwrap();
    drop(here);
    assert_eq!(read(&resumed.stream), None, "the session learns of it");
    second.close("here").unwrap();
    // Connections that a switch does not want are closed.
    let (mut old, theirs) = pair();
    let stream = second.relay("old", b"", theirs).unwrap();
    drop((second, stream));
    let (third, _) = attach_eventually(&world, Claim::Main);
    assert_eq!(third.settle().unwrap(), ["old"]);
    assert_eq!(old.read(&mut [0]).unwrap(), 0);
    world.end(&third);
}

#[test]
fn the_reply_before_the_end_arrives() {
    let world = World::new(LONG);
    let switch = world.attach(Claim::Main);
    let (mut frontend, theirs) = pair();
    let stream = switch.relay("vm1", b"", theirs).unwrap();
    let (ask, reply) = features();
    frontend.write_all(&ask).unwrap();
    assert_eq!(read(&stream), Some(ask));
    (&stream).write_all(&reply).unwrap();
    drop(stream);
    switch.close("vm1").unwrap();
    assert_eq!(read(&frontend), Some(reply));
    assert_eq!(read(&frontend), None);
    world.end(&switch);
}

#[test]
fn a_successor_follows_the_conversation() {
    let world = World::new(LONG);
    let old = world.attach(Claim::Main);
    let (mut frontend, theirs) = pair();
    let stream = old.relay("vm1", b"", theirs).unwrap();
    let (ask, reply) = features();
    let (set, owner) = (message(SET_FEATURES, VERSION, &[1; 8]), message(SET_OWNER, VERSION, b""));
    frontend.write_all(&ask).unwrap();
    serve(&old, "vm1", &stream, &ask, &reply);
    assert_eq!(read(&frontend), Some(reply.clone()));

    let new = world.attach(Claim::TakeOver);
    let resumed = new.resume("vm1").unwrap().unwrap();
    assert_eq!(resumed.messages, 1);
    serve(&new, "vm1", &resumed.stream, &ask, &reply);
    frontend.write_all(&[set.clone(), owner.clone()].concat()).unwrap();
    serve(&old, "vm1", &stream, &set, b"");
    serve(&new, "vm1", &resumed.stream, &set, b"");
    // The old one ends without having served the next.
    assert_eq!(read(&stream).as_ref(), Some(&owner));
    drop((old, stream));
    new.go().unwrap();
    serve(&new, "vm1", &resumed.stream, &owner, b"");
    frontend.write_all(&ask).unwrap();
    serve(&new, "vm1", &resumed.stream, &ask, &reply);
    assert_eq!(read(&frontend), Some(reply));
    world.end(&new);
}

/// Prints how long it takes; asserts nothing about it.
#[test]
fn many_connections_are_resumed() {
    const CONNECTIONS: usize = 100;
    const MESSAGES: u32 = 18;
    let world = World::new(LONG);
    let first = world.attach(Claim::Main);
    let event = descriptor();
    let keys: Vec<String> = (0..CONNECTIONS).map(|number| number.to_string()).collect();
    let frontends: Vec<_> = keys
        .iter()
        .map(|key| {
            let (frontend, theirs) = pair();
            let stream = first.relay(key, b"", theirs).unwrap();
            for ring in 0..MESSAGES {
                let kick = message(12, VERSION, &u64::from(ring).to_ne_bytes());
                send_bytes(&frontend, &kick, &[event.as_fd()]).unwrap();
                serve(&first, key, &stream, &kick, b"");
            }
            frontend
        })
        .collect();
    drop(first);
    let (second, _) = attach_eventually(&world, Claim::Main);
    let start = Instant::now();
    for key in &keys {
        let resumed = second.resume(key).unwrap().unwrap();
        for _ in 0..resumed.messages {
            read(&resumed.stream).unwrap();
            second.done(key).unwrap();
        }
        assert_eq!(resumed.messages, MESSAGES as usize);
    }
    second.get("a round trip").unwrap();
    println!("{CONNECTIONS} connections with {MESSAGES} messages: {:?}", start.elapsed());
    drop(frontends);
    world.end(&second);
}

#[test]
fn a_successor_that_fails_leaves_everything_to_the_switch_that_serves() {
    let world = World::new(LONG);
    let first = world.attach(Claim::Main);
    first.put("tap/a", b"1", &[]).unwrap();
    let (mut frontend, theirs) = pair();
    let stream = first.relay("vm1", b"", theirs).unwrap();
    let (second, _) = attach_eventually(&world, Claim::TakeOver);
    let resumed = second.resume("vm1").unwrap().unwrap();
    let (newcomer, theirs) = pair();
    let _other = second.relay("vm2", b"", theirs).unwrap();
    second.close("vm1").unwrap();
    second.get("tap/a").unwrap().unwrap();
    second.remove("tap/a").unwrap();
    assert_eq!(read(&resumed.stream), None);
    drop(second);
    // Nobody serves what the successor alone had; the rest is as before.
    assert_eq!(read(&newcomer), None);
    assert_eq!(first.get("tap/a").unwrap().unwrap().value, b"1");
    let (ask, reply) = features();
    frontend.write_all(&ask).unwrap();
    serve(&first, "vm1", &stream, &ask, &reply);
    assert_eq!(read(&frontend), Some(reply));
}

#[test]
fn what_a_successor_has_given_up_ends_with_the_switch_before_it() {
    let world = World::new(LONG);
    let first = world.attach(Claim::Main);
    first.put("tap/a", b"1", &[]).unwrap();
    let (frontend, theirs) = pair();
    let _stream = first.relay("vm1", b"", theirs).unwrap();
    let (second, _) = attach_eventually(&world, Claim::TakeOver);
    let _resumed = second.resume("vm1").unwrap().unwrap();
    second.close("vm1").unwrap();
    second.get("tap/a").unwrap().unwrap();
    second.remove("tap/a").unwrap();
    // It says so before its process ends.
    first.leave();
    second.go().unwrap();
    assert_eq!(read(&frontend), None);
    assert_eq!(second.settle().unwrap(), ["tap/a"]);
    assert!(!second.forget_freeze());
}
