//! A fault outside guest memory goes to the previous SIGBUS handler. Has a program of its own,
//! since it must be the first to install a handler.
#![expect(unsafe_code, reason = "installs a signal handler and faults on purpose")]
#![cfg(test)]

use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use trama_virtqueue::{GuestMemory, RegionSpec, RingError, RingFeatures, RingSetup, TxQueue};

/// Address and number of the foreign handler's calls.
static FOREIGN: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// The foreign handler: replaces the page that faulted.
extern "C" fn foreign(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives a valid siginfo with an address; only the page of the foreign
    // mapping is replaced.
    unsafe {
        let page = (*info).si_addr() as usize & !0xfff;
        assert_eq!(page, FOREIGN.load(Ordering::Relaxed));
        let (prot, flags) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED);
        libc::mmap(page as *mut libc::c_void, 4096, prot, flags, -1, 0);
    }
    CALLS.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn faults_elsewhere_go_to_the_previous_handler() {
    // SAFETY: a handler of the form required by SA_SIGINFO, and a mapping of a file made here.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = foreign;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()), 0);
        let guest = Arc::new(tempfile::tempfile_in("/dev/shm").unwrap());
        guest.set_len(4096).unwrap();
        let spec = RegionSpec {
            guest_phys: 0,
            user_addr: 0,
            size: 4096,
            file_offset: 0,
            file: guest.clone(),
        };
        let memory = GuestMemory::map(vec![spec]).unwrap();

        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let (prot, flags) = (libc::PROT_READ, libc::MAP_SHARED);
        let page = libc::mmap(ptr::null_mut(), 4096, prot, flags, file.as_raw_fd(), 0);
        assert_ne!(page, libc::MAP_FAILED);
        FOREIGN.store(page as usize, Ordering::Relaxed);
        file.set_len(0).unwrap();
        assert_eq!(page.cast::<u8>().read_volatile(), 0);
        assert_eq!(CALLS.load(Ordering::Relaxed), 1);
        assert!(!memory.is_lost());

        // The guard still works.
        guest.set_len(0).unwrap();
        let setup = RingSetup {
            size: 2,
            desc: 0,
            avail: 0x100,
            used: 0x200,
            next: 0,
            features: RingFeatures::default(),
            memory: memory.clone(),
            log: None,
        };
        assert_eq!(TxQueue::new(setup).unwrap().pending(), Err(RingError::MemoryLost));
        assert!(memory.is_lost());
        assert_eq!(CALLS.load(Ordering::Relaxed), 1);
        libc::munmap(page, 4096);
    }
}
