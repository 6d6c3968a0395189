//! A disk that forgets: what was not synced is there after a crash or not, in part or garbled, in
//! any order.
//!
//! A file is an inode with durable contents and writes since its last sync; a folder maps names to
//! inodes, durably or not yet. [`SimulatedDisk::crash`] keeps of what is not durable what a
//! [`Fate`] says. Every operation counts; the disk stops at the operation that the test picks, as
//! if the machine died there.

use std::collections::BTreeMap;
use std::io;

use super::Disk;

/// What a crash leaves of the operations that were not durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// Nothing.
    Lost,
    /// Everything.
    Kept,
    /// Names as renamed, but contents not written.
    NamesOnly,
    /// The first octets of what was written.
    Prefix(usize),
    /// The file has its full length, with zeroes in place of what was not written: the first
    /// octets, or all but the first.
    HoleBefore(usize),
    HoleAfter(usize),
    /// One octet is wrong.
    Garbled(usize),
}

#[derive(Clone, Default, Debug)]
struct Inode {
    durable: Vec<u8>,
    pending: Vec<u8>,
}

#[derive(Clone, Default, Debug)]
pub(super) struct SimulatedDisk {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Operations until the machine dies.
    pub lives: Option<usize>,
    /// Operations that fail instead, by number from now.
    pub fails: Option<usize>,
    pub operations: usize,
}

impl SimulatedDisk {
    fn operate(&mut self) -> io::Result<()> {
        if self.lives == Some(self.operations) {
            return Err(io::Error::other("the machine died"));
        }
        self.operations += 1;
        if self.fails == Some(self.operations - 1) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn inode(&mut self, file: &str) -> io::Result<&mut Inode> {
        let index = *self.names.get(file).ok_or(io::ErrorKind::NotFound)?;
        Ok(&mut self.inodes[index])
    }

    /// Octets that a crash may touch.
    pub(super) fn pending(&self) -> usize {
        self.inodes.iter().map(|inode| inode.pending.len()).max().unwrap_or(0)
    }

    pub(super) fn contents(&self, file: &str) -> Option<Vec<u8>> {
        let inode = &self.inodes[*self.names.get(file)?];
        Some([&inode.durable[..], &inode.pending].concat())
    }

    pub(super) fn set(&mut self, file: &str, contents: &[u8]) {
        self.inodes.push(Inode { durable: contents.to_vec(), pending: Vec::new() });
        self.names.insert(file.into(), self.inodes.len() - 1);
        self.durable_names = self.names.clone();
    }

    /// The disk as the next start finds it.
    pub(super) fn crash(&self, fate: Fate) -> SimulatedDisk {
        let mut after = self.clone();
        (after.lives, after.fails, after.operations) = (None, None, 0);
        match fate {
            Fate::Lost => after.names = after.durable_names.clone(),
            _ => after.durable_names = after.names.clone(),
        }
        for inode in &mut after.inodes {
            let mut kept = std::mem::take(&mut inode.pending);
            let length = kept.len();
            match fate {
                Fate::Lost | Fate::NamesOnly => kept.clear(),
                Fate::Kept => {}
                Fate::Prefix(octets) => kept.truncate(octets),
                Fate::HoleBefore(octets) => kept[..octets.min(length)].fill(0),
                Fate::HoleAfter(octets) => kept[octets.min(length)..].fill(0),
                Fate::Garbled(octet) => {
                    kept.iter_mut().skip(octet).take(1).for_each(|b| *b ^= 0x41)
                }
            }
            inode.durable.extend_from_slice(&kept);
        }
        after
    }
}

impl Disk for SimulatedDisk {
    fn read(&mut self, file: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.contents(file))
    }

    fn create(&mut self, file: &str) -> io::Result<()> {
        self.operate()?;
        self.inodes.push(Inode::default());
        self.names.insert(file.into(), self.inodes.len() - 1);
        Ok(())
    }

    fn append(&mut self, file: &str, bytes: &[u8]) -> io::Result<()> {
        let result = self.operate();
        // Dying or failing in a write: half of it is there.
        let written = if result.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        self.inode(file)?.pending.extend_from_slice(written);
        result
    }

    fn sync(&mut self, file: &str) -> io::Result<()> {
        self.operate()?;
        let inode = self.inode(file)?;
        let pending = std::mem::take(&mut inode.pending);
        inode.durable.extend_from_slice(&pending);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.operate()?;
        let inode = self.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.names.insert(to.into(), inode);
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.operate()?;
        self.durable_names = self.names.clone();
        Ok(())
    }
}
