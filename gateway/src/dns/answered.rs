//! Names by which guests know addresses: those that they have asked the gateway's DNS for.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;
use trama_nat::PortMark;

use super::message::{TYPE_A, TYPE_AAAA};
use super::wire::{skip_name, word};

/// Most names that are remembered; the oldest go first.
const MOST: usize = 4096;
/// Addresses of one answer that are remembered.
const OF_ANSWER: usize = 16;
/// Bytes of a DNS header, and of a record between its name and its data.
const HEADER: usize = 12;
const RECORD: usize = 10;

/// The names of addresses, by the port of the guest that has asked.
#[derive(Default)]
pub(crate) struct AnsweredNames {
    names: HashMap<(PortMark, IpAddr), Arc<str>, RandomState>,
    order: VecDeque<(PortMark, IpAddr)>,
}

impl AnsweredNames {
    /// Remembers what a guest was answered.
    pub(crate) fn insert(&mut self, port: PortMark, name: &str, addresses: &[IpAddr]) {
        let name: Arc<str> = name.into();
        for address in addresses {
            let key = (port, *address);
            if self.names.insert(key, name.clone()).is_some() {
                continue;
            }
            self.order.push_back(key);
            if self.order.len() > MOST
                && let Some(oldest) = self.order.pop_front()
            {
                self.names.remove(&oldest);
            }
        }
    }

    /// Returns the name that a guest was last given an address for.
    pub(crate) fn get(&self, port: PortMark, address: IpAddr) -> Option<&str> {
        self.names.get(&(port, address)).map(|name| &**name)
    }
}

/// The addresses in the answer of a message with one question, as far as it is well-formed.
pub(crate) fn addresses(message: &[u8]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    // The function ends where the message does.
    let _ = collect_addresses(message, &mut found);
    found
}

fn collect_addresses(message: &[u8], found: &mut Vec<IpAddr>) -> Option<()> {
    let mut at = skip_name(message, HEADER)? + 4;
    for _ in 0..word(message, 6)? {
        at = skip_name(message, at)?;
        let (kind, length) = (word(message, at)?, word(message, at + 8)?);
        let data = message.get(at + RECORD..at + RECORD + usize::from(length))?;
        match kind {
            TYPE_A => found.extend(<[u8; 4]>::try_from(data).map(IpAddr::from)),
            TYPE_AAAA => found.extend(<[u8; 16]>::try_from(data).map(IpAddr::from)),
            _ => {}
        }
        if found.len() >= OF_ANSWER {
            return None;
        }
        at += RECORD + data.len();
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// An answer to a question for `a.`, with these records of type and data.
    fn answer(records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0, 7, 0x81, 0x80, 0, 1, 0, records.len() as u8, 0, 0, 0, 0];
        bytes.extend([1, b'a', 0, 0, 1, 0, 1]);
        for (kind, data) in records {
            bytes.extend([0xc0, 12]);
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 0, 60]);
            bytes.extend((data.len() as u16).to_be_bytes());
            bytes.extend(*data);
        }
        bytes
    }

    #[test]
    fn addresses_are_found_behind_other_records() {
        let name = [1, b'b', 0];
        let whole = answer(&[(5, &name), (TYPE_A, &[192, 0, 2, 7]), (TYPE_AAAA, &[1; 16])]);
        let wanted: Vec<IpAddr> =
            vec!["192.0.2.7".parse().unwrap(), "101:101:101:101:101:101:101:101".parse().unwrap()];
        assert_eq!(addresses(&whole), wanted);
        for length in 0..whole.len() {
            let found = addresses(&whole[..length]);
            assert!(wanted.starts_with(&found), "{length}: {found:?}");
        }
        assert_eq!(addresses(&answer(&[(TYPE_A, &[1, 2, 3])])), [] as [IpAddr; 0], "too short");
        let many = vec![(TYPE_A, &[192, 0, 2, 7][..]); 100];
        assert_eq!(addresses(&answer(&many)).len(), OF_ANSWER);
    }

    #[test]
    fn the_oldest_names_are_forgotten() {
        let mut names = AnsweredNames::default();
        let address = |number: usize| IpAddr::from(Ipv4Addr::from_bits(number as u32));
        for number in 0..=MOST {
            names.insert(PortMark(1), &format!("n{number}"), &[address(number)]);
        }
        names.insert(PortMark(1), "again", &[address(MOST)]);
        assert_eq!(names.get(PortMark(1), address(0)), None);
        assert_eq!(names.get(PortMark(1), address(1)), Some("n1"));
        assert_eq!(names.get(PortMark(1), address(MOST)), Some("again"));
        assert_eq!(names.get(PortMark(2), address(1)), None, "another guest has not asked");
        assert_eq!((names.names.len(), names.order.len()), (MOST, MOST));
    }
}
