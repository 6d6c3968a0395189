//! A frontend shares memory without pages: this process adds them, up to the limit of the
//! frontend's account.
#![cfg(test)]

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use trama_virtqueue::{
    GuestMemory, MemoryAccount, MemoryLimits, PushError, RegionSpec, RingError, RingFeatures,
    RingSetup, RxQueue, Segment, TxBurst, TxQueue, prepare_accounts,
};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;
const USER: u64 = 0x7000_0000_0000;
/// Where the pages begin that nothing has touched.
const HOLES: u64 = 0x10_0000;

/// A frontend with a ring of 256 chains, each with a page of its own that does not exist yet.
struct Frontend {
    file: Arc<File>,
    account: Arc<MemoryAccount>,
    memory: Arc<GuestMemory>,
}

/// Whether this system reports missing pages.
fn is_in_force() -> bool {
    prepare_accounts().inspect_err(|error| eprintln!("left out: no userfaultfd: {error}")).is_ok()
}

impl Frontend {
    fn new(populate: Option<u64>) -> Frontend {
        let file = Arc::new(tempfile::tempfile_in("/dev/shm").unwrap());
        file.set_len(64 * MIB).unwrap();
        is_in_force();
        let account = MemoryAccount::new(MemoryLimits { max: None, populate }, None);
        let memory = GuestMemory::map_for(&account, None, vec![], vec![spec(&file)]).unwrap();
        Frontend { file, account, memory }
    }

    /// Makes the rings with the pages of the process that writes the file, which pays for them.
    fn fill(&self, flags: u16) -> RingSetup {
        use std::os::unix::fs::FileExt;
        let write = |bytes: &[u8], at: u64| self.file.write_all_at(bytes, at).unwrap();
        for i in 0..256u64 {
            write(&(HOLES + i * PAGE).to_le_bytes(), i * 16);
            write(&(PAGE as u32).to_le_bytes(), i * 16 + 8);
            write(&flags.to_le_bytes(), i * 16 + 12);
            write(&(i as u16).to_le_bytes(), 0x2000 + 4 + 2 * i);
        }
        write(&256u16.to_le_bytes(), 0x2002);
        write(&[0; PAGE as usize], 0x3000);
        RingSetup {
            size: 256,
            desc: USER,
            avail: USER + 0x2000,
            used: USER + 0x3000,
            next: 0,
            features: RingFeatures::default(),
            memory: self.memory.clone(),
            log: None,
        }
    }

    /// Pages of the file.
    fn pages(&self) -> u64 {
        self.file.metadata().unwrap().blocks() * 512 / PAGE
    }
}

fn spec(file: &Arc<File>) -> RegionSpec {
    let file = file.clone();
    RegionSpec { guest_phys: 0, user_addr: USER, size: 64 * MIB, file_offset: 0, file }
}

/// Reads a burst at a time until there is none; returns the chains read.
fn read_all(queue: &mut TxQueue) -> Result<usize, RingError> {
    let (mut burst, mut total) = (TxBurst::new(), 0);
    loop {
        match queue.fetch(&mut burst, 64)? {
            0 => return Ok(total),
            taken => total += taken,
        }
        queue.complete(&burst);
        queue.publish();
    }
}

#[test]
fn buffers_that_were_never_touched_can_be_received_into() {
    let frontend = Frontend::new(None);
    let mut queue = RxQueue::new(frontend.fill(2)).unwrap();
    let before = frontend.pages();
    for _ in 0..256 {
        queue.push(&[0; 12], &[7; 60][..], &[]).unwrap();
    }
    queue.publish();
    assert!(!queue.memory_lost());
    assert_eq!(frontend.pages() - before, 256);
    if is_in_force() {
        assert_eq!(frontend.account.populated(), 256 * PAGE);
    }
}

#[test]
fn pages_that_exist_cost_nothing() {
    let frontend = Frontend::new(Some(0));
    let setup = frontend.fill(0);
    std::os::unix::fs::FileExt::write_all_at(&*frontend.file, &[1; 256 * PAGE as usize], HOLES)
        .unwrap();
    assert_eq!(read_all(&mut TxQueue::new(setup).unwrap()), Ok(256));
    assert_eq!((frontend.account.populated(), frontend.account.is_spent()), (0, false));
}

#[test]
fn an_account_that_is_spent_loses_its_memory_and_no_other() {
    if !is_in_force() {
        return;
    }
    let (sparse, other) = (Frontend::new(Some(100 * PAGE)), Frontend::new(Some(256 * PAGE)));
    let mut queue = TxQueue::new(sparse.fill(0)).unwrap();
    let before = sparse.pages();
    assert_eq!(read_all(&mut queue), Err(RingError::MemoryLost));
    assert!(sparse.memory.is_lost() && sparse.account.is_spent());
    assert_eq!(sparse.pages() - before, 100);
    assert_eq!(read_all(&mut TxQueue::new(other.fill(0)).unwrap()), Ok(256));
    assert!(!other.memory.is_lost() && !other.account.is_spent());
    // A receive ring ends in the same way.
    let sparse = Frontend::new(Some(10 * PAGE));
    let mut queue = RxQueue::new(sparse.fill(2)).unwrap();
    let pushed = (0..256).map(|_| queue.push(&[0; 12], &[7; 60][..], &[]));
    let results: Vec<_> = pushed.collect();
    assert!(queue.memory_lost());
    assert!(results.contains(&Ok(())) || results.contains(&Err(PushError::Full)));
}

#[test]
fn removed_memory_and_regions_that_stay() {
    let frontend = Frontend::new(Some(0));
    let account = &frontend.account;
    let old = frontend.memory.clone();
    let kept = old.regions().to_vec();
    // Kept without a file, and shared by a table that names the same bytes again.
    let memory = GuestMemory::map_for(account, Some(&old), kept, vec![]).unwrap();
    let again = GuestMemory::map_for(account, Some(&old), vec![], vec![spec(&frontend.file)]);
    assert_eq!(account.mapped(), 64 * MIB);
    drop((old, memory, again));
    // Truncation is still what it was: no account can pay for bytes that do not exist.
    frontend.file.set_len(0).unwrap();
    assert!(frontend.memory.write(USER, &[1]));
    assert!(frontend.memory.is_lost());
    account.clear();
    assert_eq!(account.mapped(), 0);
}

/// A system call that reads a missing page fails until the page was touched.
#[test]
fn system_calls_read_pages_once_they_were_touched() {
    let frontend = Frontend::new(Some(256 * PAGE));
    let mut queue = TxQueue::new(frontend.fill(0)).unwrap();
    let mut burst = TxBurst::new();
    assert_eq!(queue.fetch(&mut burst, 1), Ok(1));
    // The head was copied, which has touched the first page; the rest is on the same page. So look
    // at a segment of our own, over memory that is present.
    let bytes = [1u8; 3 * PAGE as usize];
    Segment::from(&bytes[..]).touch();
    Segment::from(&bytes[..0]).touch();
}

#[test]
fn too_many_regions_are_refused_by_their_share() {
    let account = MemoryAccount::new(MemoryLimits::default(), None);
    let file = Arc::new(tempfile::tempfile_in("/dev/shm").unwrap());
    file.set_len(PAGE).unwrap();
    let region = |i: u64| RegionSpec {
        guest_phys: i * PAGE,
        user_addr: USER + i * PAGE,
        size: PAGE,
        file_offset: 0,
        file: file.clone(),
    };
    let map =
        |count| GuestMemory::map_for(&account, None, vec![], (0..count).map(region).collect());
    let mapped = map(4000).unwrap();
    assert!(map(16).is_ok());
    let refused = map(4090).unwrap_err().to_string();
    assert!(refused.contains("up to an eighth of the"), "{refused}");
    drop(mapped);
    assert!(map(4090).is_ok());
}
