//! A TFTP server (RFC 1350) for boot files: read-only, below one folder, with the options blksize
//! (RFC 2348), timeout and tsize (RFC 2349) and windowsize (RFC 7440).
//!
//! A transfer is a *session* between the client's port and a port of the gateway that is chosen
//! freely, since no socket stands behind it. Retransmitted blocks are read from the file again. The
//! kernel resolves names below the folder without following links (openat2(2)).

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use trama_nat::{Client, Random};

use crate::drop_reason::ServiceDrop;

/// The port of requests.
pub(crate) const PORT: u16 = 69;

/// Most sessions in total, and of one switch port.
const MAX_SESSIONS: usize = 64;
const MAX_SESSIONS_PER_PORT: usize = 8;
/// Default block size, and lower bound of the option (RFC 2348).
const BLOCK: usize = 512;
const MIN_BLOCK: usize = 8;
/// Opcode and block number.
const HEADER: usize = 4;
/// Largest window: a quarter of the ring.
const MAX_WINDOW: u64 = 64;
/// Default timeout of a retransmission, and their number.
const TIMEOUT: Duration = Duration::from_secs(1);
const TRIES: u32 = 5;
/// First port of sessions.
const FIRST_PORT: u16 = 49_152;

const READ: u16 = 1;
const WRITE: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

/// Error codes (RFC 1350, appendix) and messages.
const NOT_FOUND: (u16, &str) = (1, "no such file");
const READ_ONLY: (u16, &str) = (2, "read-only");
const ILLEGAL: (u16, &str) = (4, "illegal operation");
const UNKNOWN: (u16, &str) = (5, "unknown transfer");

/// The TFTP server.
#[derive(Default)]
pub(crate) struct Server {
    root: Option<OwnedFd>,
    sessions: HashMap<u16, Session>,
}

struct Session {
    client: Client,
    file: File,
    size: u64,
    block: usize,
    window: u64,
    timeout: Duration,
    /// The OACK, until the client has acknowledged it with block 0 (RFC 2347).
    oack: Option<Vec<u8>>,
    /// Blocks that the client has acknowledged, counted from 1.
    acknowledged: u64,
    /// Blocks that were sent.
    sent: u64,
    tries: u32,
    until: Duration,
}

/// Packets to clients, each with both ends.
pub(crate) type Packets = Vec<(Client, Vec<u8>)>;

impl Server {
    /// Serves the files below `folder` from now on; sessions continue.
    ///
    /// # Errors
    ///
    /// The folder cannot be opened.
    pub(crate) fn set_root(&mut self, folder: Option<&Path>) -> std::io::Result<()> {
        self.root = None;
        if let Some(folder) = folder {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            self.root = Some(open(folder, flags, Mode::empty())?);
        }
        Ok(())
    }

    /// Whether the server handles datagrams to this port.
    pub(crate) fn listens(&self, port: u16) -> bool {
        port >= FIRST_PORT || (port == PORT && self.root.is_some())
    }

    /// Handles a client's datagram.
    pub(crate) fn handle(
        &mut self,
        now: Duration,
        random: &mut Random,
        (client, bytes): (Client, &[u8]),
        out: &mut Packets,
    ) -> Result<(), ServiceDrop> {
        let (opcode, rest) = word(bytes).ok_or(ServiceDrop::BadTftp)?;
        if client.local.1 == PORT {
            return match opcode {
                READ => self.start(now, random, (client, rest), out),
                WRITE => {
                    out.push((client, error(READ_ONLY)));
                    Ok(())
                }
                _ => Err(ServiceDrop::BadTftp),
            };
        }
        let port = client.local.1;
        let known = self.sessions.get_mut(&port).filter(|s| s.client.remote == client.remote);
        let Some(session) = known else {
            // No error answers an error.
            if opcode == ACK {
                out.push((client, error(UNKNOWN)));
            }
            return if opcode == ACK { Ok(()) } else { Err(ServiceDrop::BadTftp) };
        };
        match (opcode, word(rest)) {
            (ACK, Some((number, []))) => {
                if session.acknowledge(now, number, out) {
                    self.sessions.remove(&port);
                }
                Ok(())
            }
            (ERROR, Some(_)) => {
                self.sessions.remove(&port);
                Ok(())
            }
            _ => Err(ServiceDrop::BadTftp),
        }
    }

    fn start(
        &mut self,
        now: Duration,
        random: &mut Random,
        (client, bytes): (Client, &[u8]),
        out: &mut Packets,
    ) -> Result<(), ServiceDrop> {
        let request = Request::parse(bytes).ok_or(ServiceDrop::BadTftp)?;
        if !request.mode.eq_ignore_ascii_case("octet") {
            out.push((client, error(ILLEGAL)));
            return Ok(());
        }
        // A repeated request starts the transfer again.
        self.sessions.retain(|_, session| session.client.remote != client.remote);
        let of_port = self.sessions.values().filter(|s| s.client.port == client.port).count();
        if self.sessions.len() >= MAX_SESSIONS || of_port >= MAX_SESSIONS_PER_PORT {
            return Err(ServiceDrop::TftpLimit);
        }
        let Some((file, size)) = self.open(request.file) else {
            out.push((client, error(NOT_FOUND)));
            return Ok(());
        };
        let mut port = FIRST_PORT | random() as u16;
        // There are more ports than sessions, so one is free.
        while self.sessions.contains_key(&port) {
            port = FIRST_PORT | port.wrapping_add(1);
        }
        let client = Client { local: (client.local.0, port), ..client };
        let mut session = Session::new(client, file, size, &request);
        session.send_window(now, out);
        self.sessions.insert(port, session);
        Ok(())
    }

    /// Opens a regular file below the folder.
    fn open(&self, name: &str) -> Option<(File, u64)> {
        let root = self.root.as_ref()?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let within =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        // An absolute name is relative to the folder.
        let name = name.trim_start_matches('/');
        let file = File::from(openat2(root, name, flags, Mode::empty(), within).ok()?);
        let metadata = file.metadata().ok().filter(|metadata| metadata.is_file())?;
        Some((file, metadata.len()))
    }

    /// Retransmits unacknowledged windows, and ends sessions of clients that do not answer.
    pub(crate) fn poll(&mut self, now: Duration, out: &mut Packets) {
        self.sessions.retain(|_, session| {
            if session.until > now {
                return true;
            }
            session.tries += 1;
            if session.tries > TRIES {
                return false;
            }
            session.send_window(now, out);
            true
        });
    }

    /// When [`Server::poll`] has to be called next.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.sessions.values().map(|session| session.until).min()
    }
}

impl Session {
    fn new(client: Client, file: File, size: u64, request: &Request<'_>) -> Session {
        let mut session = Session {
            client,
            file,
            size,
            block: BLOCK.min(client.room.saturating_sub(HEADER).max(1)),
            window: 1,
            timeout: TIMEOUT,
            oack: None,
            acknowledged: 0,
            sent: 0,
            tries: 0,
            until: Duration::ZERO,
        };
        let mut accepted = Vec::new();
        for (name, value) in &request.options {
            if let Some(value) = session.negotiate(&name.to_ascii_lowercase(), *value) {
                accepted.extend(name.as_bytes());
                accepted.push(0);
                accepted.extend(value.to_string().as_bytes());
                accepted.push(0);
            }
        }
        if !accepted.is_empty() {
            session.oack = Some([&OACK.to_be_bytes()[..], &accepted].concat());
        }
        session
    }

    /// The value that an option is granted with; unknown and invalid options are ignored (RFC
    /// 2347).
    fn negotiate(&mut self, name: &str, value: u64) -> Option<u64> {
        match name {
            "blksize" if value >= MIN_BLOCK as u64 => {
                let most = self.client.room.saturating_sub(HEADER).max(MIN_BLOCK);
                self.block = usize::try_from(value).unwrap_or(most).min(most);
                Some(self.block as u64)
            }
            "timeout" if (1..=255).contains(&value) => {
                self.timeout = Duration::from_secs(value);
                Some(value)
            }
            "tsize" => Some(self.size),
            "windowsize" if (1..=65_535).contains(&value) => {
                self.window = value.min(MAX_WINDOW);
                Some(self.window)
            }
            _ => None,
        }
    }

    /// The number of blocks. The last one is shorter than the others, and may be empty.
    fn blocks(&self) -> u64 {
        self.size / self.block as u64 + 1
    }

    /// Handles an acknowledgement. Returns whether the transfer is complete.
    fn acknowledge(&mut self, now: Duration, number: u16, out: &mut Packets) -> bool {
        // Block numbers wrap at 65535; the one meant is within the window.
        let ahead = u64::from(number.wrapping_sub(self.acknowledged as u16));
        let acks_oack = self.oack.is_some() && number == 0;
        if !acks_oack && (ahead == 0 || self.acknowledged + ahead > self.sent) {
            // Old or duplicate: answering it would duplicate every block from now on (RFC 1123,
            // 4.2.3.1).
            return false;
        }
        if acks_oack {
            self.oack = None;
        }
        self.acknowledged += ahead;
        self.tries = 0;
        if self.acknowledged >= self.blocks() {
            return true;
        }
        self.send_window(now, out);
        false
    }

    /// Sends the window of unacknowledged blocks, or the OACK.
    fn send_window(&mut self, now: Duration, out: &mut Packets) {
        self.until = now + self.timeout;
        if let Some(oack) = &self.oack {
            out.push((self.client, oack.clone()));
            return;
        }
        let last = (self.acknowledged + self.window).min(self.blocks());
        for number in self.acknowledged + 1..=last {
            match self.data(number) {
                Some(packet) => out.push((self.client, packet)),
                // The file became shorter; the error ends the transfer.
                None => return out.push((self.client, error(NOT_FOUND))),
            }
        }
        self.sent = self.sent.max(last);
    }

    fn data(&self, number: u64) -> Option<Vec<u8>> {
        let offset = (number - 1) * self.block as u64;
        let length = self.block.min(usize::try_from(self.size - offset).unwrap_or(self.block));
        let mut packet = vec![0; HEADER + length];
        packet[..2].copy_from_slice(&DATA.to_be_bytes());
        packet[2..HEADER].copy_from_slice(&(number as u16).to_be_bytes());
        self.file.read_exact_at(&mut packet[HEADER..], offset).ok()?;
        Some(packet)
    }
}

/// A read request.
struct Request<'a> {
    file: &'a str,
    mode: &'a str,
    /// Options with a numeric value.
    options: Vec<(&'a str, u64)>,
}

impl<'a> Request<'a> {
    /// Parses what follows the opcode: strings, each terminated by a zero.
    fn parse(bytes: &'a [u8]) -> Option<Request<'a>> {
        let text = std::str::from_utf8(bytes.strip_suffix(&[0])?).ok()?;
        let mut words = text.split('\0');
        let (file, mode) = (words.next().filter(|file| !file.is_empty())?, words.next()?);
        let mut options: Vec<(&str, u64)> = Vec::new();
        while let Some(name) = words.next() {
            let value = words.next()?;
            let known = ["blksize", "timeout", "tsize", "windowsize"];
            let is_known = known.iter().any(|known| known.eq_ignore_ascii_case(name));
            // Each option once (RFC 2347).
            let first = !options.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
            if let (true, Ok(value)) = (is_known && first, value.parse()) {
                options.push((name, value));
            }
        }
        Some(Request { file, mode, options })
    }
}

/// The first word, and the rest.
fn word(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (first, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*first), rest))
}

fn error((code, text): (u16, &str)) -> Vec<u8> {
    [&ERROR.to_be_bytes()[..], &code.to_be_bytes(), text.as_bytes(), &[0]].concat()
}

#[cfg(test)]
mod tests;
