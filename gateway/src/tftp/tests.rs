//! Transfers block by block, and requests that must not be served.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::testing;

const T0: Duration = Duration::ZERO;

struct Lab {
    dir: tempfile::TempDir,
    server: Server,
    random: Random,
}

impl Lab {
    fn new() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/sub")).unwrap();
        fs::write(dir.path().join("secret"), "outside").unwrap();
        let mut server = Server::default();
        server.set_root(Some(&dir.path().join("root"))).unwrap();
        Lab { dir, server, random: testing::random() }
    }

    fn file(&self, name: &str, content: &[u8]) {
        fs::write(self.dir.path().join("root").join(name), content).unwrap();
    }

    /// The packets that the server sends when the client at `from` sends `bytes` to port `to`.
    fn send(&mut self, now: Duration, to: u16, bytes: &[u8]) -> Result<Packets, ServiceDrop> {
        self.send_as(client(1, 4000), now, to, bytes)
    }

    fn send_as(
        &mut self,
        client: Client,
        now: Duration,
        to: u16,
        bytes: &[u8],
    ) -> Result<Packets, ServiceDrop> {
        let client = Client { local: (client.local.0, to), ..client };
        let mut out = Packets::new();
        self.server.handle(now, &mut self.random, (client, bytes), &mut out).map(|()| out)
    }

    /// Fetches a file, and loses `lose` of a hundred packets of the server.
    fn fetch(&mut self, name: &str, options: &[(&str, &str)], lose: u64) -> Vec<u8> {
        let mut now = T0;
        let mut packets = self.send(now, PORT, &request(name, "octet", options)).unwrap();
        let (mut content, mut next, mut count, mut block) = (Vec::new(), 1u16, 0u64, BLOCK);
        for _ in 0..200_000 {
            if packets.is_empty() {
                now += TIMEOUT;
                self.server.poll(now, &mut packets);
                assert!(!packets.is_empty(), "the server gave up");
            }
            let (mut reply, mut answered) = (None, Packets::new());
            for (end, packet) in packets.drain(..) {
                count += 1;
                // Spread, so that losses do not keep step with the window.
                if ((count * 2_654_435_761) >> 8) % 100 < lose {
                    continue;
                }
                let port = end.local.1;
                assert!(packet.len() <= end.room);
                let (opcode, rest) = word(&packet).unwrap();
                let (number, data) = word(rest).unwrap();
                if opcode == OACK {
                    let text = String::from_utf8_lossy(rest).to_ascii_lowercase();
                    let mut words = text.split('\0');
                    while let (Some(name), Some(value)) = (words.next(), words.next()) {
                        if name == "blksize" {
                            block = value.parse().unwrap();
                        }
                    }
                    reply = Some((port, 0));
                } else if number == next {
                    assert_eq!(opcode, DATA);
                    content.extend(data);
                    reply = Some((port, number));
                    if data.len() < block {
                        let ack = ack(number);
                        assert!(self.send(now, port, &ack).unwrap().is_empty());
                        assert_eq!(self.server.deadline(), None, "the session is over");
                        return content;
                    }
                    next = next.wrapping_add(1);
                }
            }
            if let Some((port, number)) = reply {
                answered = self.send(now, port, &ack(number)).unwrap();
            }
            packets = answered;
        }
        panic!("no end");
    }
}

fn client(port: u64, udp: u16) -> Client {
    let client = testing::client(port);
    Client { remote: (client.remote.0, udp), room: 1472, ..client }
}

fn request(file: &str, mode: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = READ.to_be_bytes().to_vec();
    let words = [file, mode].into_iter().chain(options.iter().flat_map(|(name, v)| [*name, *v]));
    words.for_each(|word| bytes.extend([word.as_bytes(), &[0]].concat()));
    bytes
}

fn ack(number: u16) -> Vec<u8> {
    [ACK.to_be_bytes(), number.to_be_bytes()].concat()
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn files_of_every_length_arrive_whole() {
    let mut lab = Lab::new();
    for length in [0, 1, 511, 512, 513, 1024, 5000] {
        lab.file("sub/f", &pattern(length));
        assert_eq!(lab.fetch("/sub/f", &[], 0), pattern(length), "{length} bytes");
        let options = [("BLKSIZE", "1400"), ("tsize", "0"), ("windowsize", "4"), ("x", "1")];
        assert_eq!(lab.fetch("sub/f", &options, 0), pattern(length), "{length} bytes");
    }
}

#[test]
fn lost_packets_are_sent_again() {
    let mut lab = Lab::new();
    lab.file("f", &pattern(30_000));
    for lose in [1, 10, 30] {
        assert_eq!(lab.fetch("f", &[], lose), pattern(30_000));
        let window = [("windowsize", "8"), ("blksize", "1000")];
        assert_eq!(lab.fetch("f", &window, lose), pattern(30_000));
    }
}

#[test]
fn block_numbers_wrap_in_long_files() {
    let mut lab = Lab::new();
    let content = pattern(8 * 70_000);
    lab.file("f", &content);
    let fetched = lab.fetch("f", &[("blksize", "8"), ("windowsize", "64")], 0);
    assert!(fetched == content);
}

#[test]
fn options_are_granted_within_bounds() {
    let mut lab = Lab::new();
    lab.file("f", b"12345");
    let options = [("blksize", "65464"), ("tsize", "0"), ("timeout", "0"), ("windowsize", "999")];
    let packets = lab.send(T0, PORT, &request("f", "OCTET", &options)).unwrap();
    let wanted = b"\0\x06blksize\x001468\0tsize\x005\0windowsize\x0064\0";
    assert_eq!(packets[0].1, wanted);
    let packets = lab.send(T0, PORT, &request("f", "octet", &[("blksize", "7")])).unwrap();
    assert_eq!(packets[0].1, b"\0\x03\0\x0112345", "no option is granted: the first block");
}

#[test]
fn nothing_outside_the_folder_is_served() {
    let mut lab = Lab::new();
    let root = lab.dir.path().join("root");
    std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
    std::os::unix::fs::symlink("..", root.join("up")).unwrap();
    lab.file("here", b"x");
    std::os::unix::fs::symlink("here", root.join("inside")).unwrap();
    let absolute = lab.dir.path().join("secret").display().to_string();
    for name in [
        "../secret",
        "/../secret",
        "sub/../../secret",
        "link",
        "up/secret",
        "inside",
        "sub",
        ".",
        "/",
        &absolute,
        "none",
        "sub/../here/..",
    ] {
        let packets = lab.send(T0, PORT, &request(name, "octet", &[])).unwrap();
        assert_eq!(packets[0].1, error(NOT_FOUND), "{name}");
    }
    let write = [&WRITE.to_be_bytes()[..], b"here\0octet\0"].concat();
    assert_eq!(lab.send(T0, PORT, &write).unwrap()[0].1, error(READ_ONLY));
    let packets = lab.send(T0, PORT, &request("here", "mail", &[])).unwrap();
    assert_eq!(packets[0].1, error(ILLEGAL));
    assert_eq!(lab.server.deadline(), None);
}

#[test]
fn sessions_are_limited_and_end_by_silence() {
    let mut lab = Lab::new();
    lab.file("f", &pattern(5000));
    let request = request("f", "octet", &[]);
    for udp in 0..MAX_SESSIONS_PER_PORT as u16 {
        assert!(lab.send_as(client(1, 4000 + udp), T0, PORT, &request).is_ok());
    }
    let refused = lab.send_as(client(1, 5000), T0, PORT, &request);
    assert_eq!(refused.err(), Some(ServiceDrop::TftpLimit));
    assert!(lab.send_as(client(1, 4000), T0, PORT, &request).is_ok(), "the same one again");
    assert!(lab.send_as(client(2, 5000), T0, PORT, &request).is_ok(), "another client");
    let (mut now, mut packets) = (T0, Packets::new());
    while lab.server.deadline().is_some() {
        now += TIMEOUT;
        assert!(now <= TIMEOUT * (TRIES + 1), "sessions stay");
        lab.server.poll(now, &mut packets);
    }
    assert_eq!(packets.len(), (MAX_SESSIONS_PER_PORT + 1) * TRIES as usize);
}

#[test]
fn another_client_cannot_interfere_with_a_session() {
    let mut lab = Lab::new();
    lab.file("f", &pattern(5000));
    let packets = lab.send(T0, PORT, &request("f", "octet", &[])).unwrap();
    let port = packets[0].0.local.1;
    let packets = lab.send_as(client(2, 9), T0, port, &ack(1)).unwrap();
    assert_eq!(packets[0].1, error(UNKNOWN));
    let stranger = lab.send_as(client(2, 9), T0, port, &error(UNKNOWN));
    assert_eq!(stranger.err(), Some(ServiceDrop::BadTftp), "an error about an error");
    assert!(lab.send(T0, port, &ack(9)).unwrap().is_empty(), "beyond what was sent");
    assert_eq!(lab.send(T0, port, &ack(1)).unwrap().len(), 1);
    assert!(lab.send(T0, port, &ack(1)).unwrap().is_empty(), "twice");
}

proptest! {
    #[test]
    fn no_datagram_makes_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..60),
        opcode in 0..8u8,
        port in prop_oneof![Just(PORT), FIRST_PORT..],
    ) {
        let mut lab = Lab::new();
        lab.file("f", b"x");
        let bytes = [&[0, opcode], &bytes[..]].concat();
        if let Ok(packets) = lab.send(T0, port, &bytes) {
            prop_assert!(packets.len() <= MAX_WINDOW as usize);
        }
    }
}
