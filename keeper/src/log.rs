//! The messages that make the state of a connection: those that a new switch must be sent to be
//! where the old one was.
//!
//! A message replaces what it makes meaningless, and moves to the end, so that the log has as many
//! entries as there are things to set, however often they were set:
//!
//! | message | effect on the log |
//! |---|---|
//! | features, MTU, dirty log, backend channel | replaces that with the same request; features without LOG_ALL forget the log |
//! | GET_FEATURES, GET_PROTOCOL_FEATURES, SET_OWNER | only the first is kept, in its place: a session's answers depend on their order |
//! | SET_MEM_TABLE | replaces the table and all changes to it |
//! | ADD_MEM_REG, REM_MEM_REG | replaces a change of the same region; a removal is kept only if the table has the region |
//! | of a ring: address, kick, call, enable | replaces that of the same ring |
//! | of a ring: size, base | the same, and forgets the kick: the ring stops |
//! | GET_VRING_BASE | forgets the kick, and its reply becomes the ring's base; with the last kick goes the log |
//! | RESET_OWNER, RESET_DEVICE | forgets kicks and enables of all rings |
//! | all others | none: they only ask, or the switch ignores them |

use std::rc::Rc;

use crate::framing::{HEADER, Message, word};
use crate::wire::MOST_DESCRIPTORS;

/// Most rings: messages have 8 bits for the number of one.
pub(crate) const MOST_RINGS: usize = 256;
/// Most changes of a memory table.
pub(crate) const MOST_CHANGES: usize = 128;
/// Requests that are kept once.
const SINGLES: usize = 9;
/// Requests that are kept for each ring.
const OF_A_RING: usize = 6;
/// Most messages that are remembered of a connection.
pub const MOST_MESSAGES: usize = SINGLES + OF_A_RING * MOST_RINGS + MOST_CHANGES;

const GET_FEATURES: u32 = 1;
const SET_FEATURES: u32 = 2;
const SET_OWNER: u32 = 3;
const RESET_OWNER: u32 = 4;
const SET_MEM_TABLE: u32 = 5;
const SET_LOG_BASE: u32 = 6;
const SET_VRING_NUM: u32 = 8;
const SET_VRING_ADDR: u32 = 9;
const SET_VRING_BASE: u32 = 10;
const GET_VRING_BASE: u32 = 11;
const SET_VRING_KICK: u32 = 12;
const SET_VRING_CALL: u32 = 13;
const GET_PROTOCOL_FEATURES: u32 = 15;
const SET_PROTOCOL_FEATURES: u32 = 16;
const SET_VRING_ENABLE: u32 = 18;
const NET_SET_MTU: u32 = 20;
const SET_BACKEND_REQ_FD: u32 = 21;
const RESET_DEVICE: u32 = 34;
const ADD_MEM_REG: u32 = 37;
const REM_MEM_REG: u32 = 38;

/// The feature bit of a frontend that migrates its guest.
const LOG_ALL: u64 = 1 << 26;

/// A region's place in the guest, its size in bytes and its place in the frontend.
type Region = [u64; 3];

/// What an entry sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    Request(u32),
    Ring(u32, u32),
    Added(Region),
    Removed(Region),
}

/// The memory table has changed more often than is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("more than {MOST_CHANGES} changes of the memory table")]
pub(crate) struct Full;

#[derive(Default, Debug)]
pub(crate) struct Log {
    entries: Vec<(Key, Message)>,
}

impl Log {
    /// The messages in the order in which they must be sent. They ask for no acknowledgement.
    pub(crate) fn messages(&self) -> impl ExactSizeIterator<Item = &Message> {
        self.entries.iter().map(|(_, message)| message)
    }

    /// Enters a message that was served, with the bytes of its reply.
    pub(crate) fn enter(&mut self, message: &Message, reply: &[u8]) -> Result<(), Full> {
        let Some(request) = message.request() else { return Ok(()) };
        match request {
            GET_FEATURES | GET_PROTOCOL_FEATURES | SET_OWNER => {
                let key = Key::Request(request);
                if self.entries.iter().all(|(other, _)| *other != key) {
                    self.set(key, message);
                }
            }
            SET_FEATURES => {
                if number(message.body()).is_some_and(|features| features & LOG_ALL == 0) {
                    self.forget(Key::Request(SET_LOG_BASE));
                }
                self.set(Key::Request(request), message);
            }
            SET_LOG_BASE | SET_PROTOCOL_FEATURES | NET_SET_MTU | SET_BACKEND_REQ_FD => {
                self.set(Key::Request(request), message);
            }
            SET_MEM_TABLE => {
                self.entries.retain(|(key, _)| !is_change(key));
                self.set(Key::Request(request), message);
            }
            ADD_MEM_REG | REM_MEM_REG => return self.change_memory(request, message),
            RESET_OWNER | RESET_DEVICE => self
                .entries
                .retain(|(key, _)| !matches!(key, Key::Ring(SET_VRING_KICK | SET_VRING_ENABLE, _))),
            _ => self.enter_of_ring(request, message, reply),
        }
        Ok(())
    }

    fn enter_of_ring(&mut self, request: u32, message: &Message, reply: &[u8]) {
        let Some(number) = word(message.body(), 0) else { return };
        let ring = match request {
            SET_VRING_KICK | SET_VRING_CALL => number & 0xff,
            _ => number,
        };
        if ring as usize >= MOST_RINGS {
            return;
        }
        match request {
            SET_VRING_ADDR | SET_VRING_KICK | SET_VRING_CALL | SET_VRING_ENABLE => {
                self.set(Key::Ring(request, ring), message);
            }
            SET_VRING_NUM | SET_VRING_BASE => {
                self.forget(Key::Ring(SET_VRING_KICK, ring));
                self.set(Key::Ring(request, ring), message);
            }
            GET_VRING_BASE => {
                self.forget(Key::Ring(SET_VRING_KICK, ring));
                if let Some(state @ [_, _, _, _, _, _, _, _]) = reply.get(HEADER..) {
                    let base = Message::new(SET_VRING_BASE, state, Vec::new());
                    self.set(Key::Ring(SET_VRING_BASE, ring), &base);
                }
                let is_kick = |key: &Key| matches!(key, Key::Ring(SET_VRING_KICK, _));
                if !self.entries.iter().any(|(key, _)| is_kick(key)) {
                    self.forget(Key::Request(SET_LOG_BASE));
                }
            }
            _ => {}
        }
    }

    fn change_memory(&mut self, request: u32, message: &Message) -> Result<(), Full> {
        let Some(region) = message.body().get(8..).and_then(region) else { return Ok(()) };
        self.forget(Key::Added(region));
        self.forget(Key::Removed(region));
        let key = match request {
            ADD_MEM_REG => Key::Added(region),
            _ if self.table_has(region) => Key::Removed(region),
            _ => return Ok(()),
        };
        if self.entries.iter().filter(|(key, _)| is_change(key)).count() >= MOST_CHANGES {
            return Err(Full);
        }
        self.set(key, message);
        Ok(())
    }

    fn table_has(&self, wanted: Region) -> bool {
        let table = self.entries.iter().find(|(key, _)| *key == Key::Request(SET_MEM_TABLE));
        let regions = table.and_then(|(_, message)| message.body().get(8..)).unwrap_or_default();
        regions.chunks_exact(32).any(|bytes| region(bytes) == Some(wanted))
    }

    fn forget(&mut self, key: Key) {
        self.entries.retain(|(other, _)| *other != key);
    }

    fn set(&mut self, key: Key, message: &Message) {
        self.forget(key);
        self.entries.push((key, kept(message)));
    }
}

/// The message as it is remembered: it wants no reply, and has no more descriptors than its request
/// is for, as a frontend could have the keeper hold many by messages that need none.
fn kept(message: &Message) -> Message {
    let most = match message.request() {
        Some(SET_MEM_TABLE) => MOST_DESCRIPTORS,
        Some(SET_LOG_BASE | SET_VRING_KICK | SET_VRING_CALL | SET_BACKEND_REQ_FD | ADD_MEM_REG) => {
            1
        }
        _ => 0,
    };
    let mut kept = message.quiet();
    kept.misplaced = Rc::default();
    if kept.fds.len() > most {
        kept.fds = Rc::default();
    }
    kept
}

fn is_change(key: &Key) -> bool {
    matches!(key, Key::Added(_) | Key::Removed(_))
}

fn region(bytes: &[u8]) -> Option<Region> {
    Some([number(bytes)?, number(bytes.get(8..)?)?, number(bytes.get(16..)?)?])
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn message(request: u32, numbers: &[u64]) -> Message {
        let body: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
        Message::new(request, &body, Vec::new())
    }

    fn requests(log: &Log) -> Vec<u32> {
        log.messages().filter_map(Message::request).collect()
    }

    #[test]
    fn a_reset_keeps_what_sessions_keep() {
        let mut log = Log::default();
        for request in [GET_FEATURES, SET_OWNER, SET_FEATURES, SET_VRING_NUM, SET_VRING_KICK] {
            log.enter(&message(request, &[0]), b"").unwrap();
        }
        log.enter(&message(SET_VRING_ENABLE, &[1 << 32]), b"").unwrap();
        log.enter(&message(RESET_OWNER, &[]), b"").unwrap();
        assert_eq!(requests(&log), [GET_FEATURES, SET_OWNER, SET_FEATURES, SET_VRING_NUM]);
    }

    #[test]
    fn what_a_request_does_not_need_is_not_kept() {
        let fds = |count| -> Rc<[OwnedFd]> {
            (0..count).map(|_| eventfd(0, EventfdFlags::CLOEXEC).unwrap()).collect()
        };
        let mut log = Log::default();
        for (request, count) in [(SET_VRING_KICK, 1), (SET_VRING_CALL, 2), (SET_VRING_ENABLE, 1)] {
            let message = Message { fds: fds(count), misplaced: fds(1), ..message(request, &[0]) };
            log.enter(&message, b"").unwrap();
        }
        let kept: Vec<_> = log.messages().map(|it| (it.fds.len(), it.misplaced.len())).collect();
        assert_eq!(kept, [(1, 0), (0, 0), (0, 0)]);
    }

    #[test]
    fn what_a_stopped_ring_replies_becomes_its_base() {
        let mut log = Log::default();
        for request in [SET_VRING_BASE, SET_VRING_KICK] {
            log.enter(&message(request, &[1]), b"").unwrap();
        }
        let state = 1 | 77 << 32;
        let reply = message(GET_VRING_BASE, &[state]).bytes;
        log.enter(&message(GET_VRING_BASE, &[1]), &reply).unwrap();
        assert_eq!(requests(&log), [SET_VRING_BASE]);
        assert_eq!(log.messages().next().unwrap().body(), state.to_ne_bytes());
    }

    #[test]
    fn a_dirty_log_is_kept_while_it_serves() {
        let mut log = Log::default();
        let mut enter = |request, numbers: &[u64]| {
            log.enter(&message(request, numbers), b"").unwrap();
            requests(&log).contains(&SET_LOG_BASE)
        };
        enter(SET_VRING_KICK, &[0]);
        enter(SET_VRING_KICK, &[1]);
        assert!(enter(SET_LOG_BASE, &[8, 0]));
        assert!(enter(SET_FEATURES, &[LOG_ALL]));
        assert!(enter(GET_VRING_BASE, &[0]), "a ring is left");
        assert!(!enter(GET_VRING_BASE, &[1]));
        assert!(enter(SET_LOG_BASE, &[8, 0]));
        assert!(!enter(SET_FEATURES, &[0]), "the migration has ended");
    }

    #[test]
    fn it_has_as_many_entries_as_there_are_things_to_set() {
        let mut log = Log::default();
        for _ in 0..3 {
            for request in 0..64 {
                if matches!(request, ADD_MEM_REG | REM_MEM_REG | RESET_OWNER | RESET_DEVICE) {
                    continue;
                }
                for ring in 0..300 {
                    log.enter(&message(request, &[ring]), b"").unwrap();
                }
            }
            for request in [SET_VRING_NUM, SET_VRING_BASE, SET_VRING_KICK] {
                (0..300).for_each(|ring| log.enter(&message(request, &[ring]), b"").unwrap());
            }
            log.enter(&message(SET_LOG_BASE, &[1, 0]), b"").unwrap();
        }
        assert_eq!(log.messages().len(), SINGLES + OF_A_RING * MOST_RINGS);
        let add = |number| message(ADD_MEM_REG, &[0, number, 1, number, 0]);
        for number in 0..MOST_CHANGES as u64 {
            log.enter(&add(number), b"").unwrap();
        }
        assert_eq!(log.messages().len(), MOST_MESSAGES);
        let refused = log.enter(&add(1 << 40), b"").unwrap_err();
        assert_eq!(refused.to_string(), "more than 128 changes of the memory table");
        log.enter(&add(7), b"").expect("one of them again");
        log.enter(&message(SET_MEM_TABLE, &[1, 5, 1, 5, 0]), b"").unwrap();
        assert_eq!(log.messages().len(), MOST_MESSAGES - MOST_CHANGES);
        for number in [4, 5] {
            log.enter(&message(REM_MEM_REG, &[0, number, 1, number, 0]), b"").unwrap();
        }
        assert_eq!(log.messages().len(), MOST_MESSAGES - MOST_CHANGES + 1, "of the table's region");
    }
}
