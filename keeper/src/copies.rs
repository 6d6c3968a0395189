//! Copies of the entries of a switch.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::channel::Channel;

/// Descriptors of which there are copies; ports need most of those that a process may have. What is
/// not copied is opened anew at the restart that follows the end of a keeper.
const MOST_COPIED: usize = 1024;

/// Values and descriptors by key.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    entries: BTreeMap<String, (Vec<u8>, Vec<OwnedFd>)>,
    /// Descriptors of all entries.
    count: usize,
}

impl Copies {
    pub(crate) fn insert(&mut self, key: &str, value: &[u8], fds: &[BorrowedFd<'_>]) {
        self.remove(key);
        if self.count + fds.len() > MOST_COPIED {
            return;
        }
        let fds = fds.iter().map(|fd| fd.try_clone_to_owned()).collect::<io::Result<Vec<_>>>();
        // Without descriptors left there is none for the next keeper either.
        if let Ok(fds) = fds {
            self.count += fds.len();
            self.entries.insert(key.to_owned(), (value.to_vec(), fds));
        }
    }

    pub(crate) fn remove(&mut self, key: &str) {
        if let Some((_, fds)) = self.entries.remove(key) {
            self.count -= fds.len();
        }
    }

    /// Gives all to a keeper.
    pub(crate) fn put_all(&self, channel: &Channel) -> io::Result<()> {
        for (key, (value, fds)) in &self.entries {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            channel.put(key, value, &fds)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[test]
    fn copies_have_a_limited_number_of_descriptors() {
        let mut copies = Copies::default();
        let one = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        for number in 0..MOST_COPIED + 10 {
            copies.insert(&number.to_string(), b"", &[one.as_fd()]);
        }
        assert_eq!((copies.count, copies.entries.len()), (MOST_COPIED, MOST_COPIED));
        copies.insert("0", b"new", &[one.as_fd()]);
        copies.remove("1");
        copies.insert("more", b"", &[one.as_fd()]);
        assert_eq!(copies.entries["0"].0, b"new");
        assert!(copies.entries.contains_key("more") && copies.count == MOST_COPIED);
    }
}
