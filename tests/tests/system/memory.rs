//! Guests whose memory has no pages yet: the daemon makes them, and pays for them.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use trama_test_kit::requests::{SET_VRING_ENABLE, vring_state};
use trama_test_kit::{RawFrontend, SharedMemory, eventfd};
use trama_tests::{
    Guest, GuestOptions, Host, Netns, Nic, Pinging, SOON, Tramad, process::unique, wait_until,
};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;
/// Entries of a ring.
const SIZE: u64 = 256;
/// Where pages begin that nothing has touched.
const HOLES: u64 = 8 * MIB;
const VERSION: u32 = 1;

fn configuration(left: &Netns, right: &Netns, limits: &str) -> String {
    let mut text = format!(
        "[[network]]\nname = \"lab\"\n\n[[port]]\nname = \"guest\"\nnetwork = \"lab\"\n\
         type = \"vhost-user\"\npath = \"{{dir}}/guest.sock\"\n{limits}\n"
    );
    for (name, netns, number) in [("left", left, 1), ("right", right, 2)] {
        text += &format!(
            "\n[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"tap\"\nifname = \"{name}\"\n\
             netns = \"{}\"\naddress = \"10.1.0.{number}/24\"\n",
            netns.name()
        );
    }
    text
}

/// A frontend that names pages which its file lacks.
struct Sparse {
    frontend: RawFrontend,
    memory: SharedMemory,
    kick: OwnedFd,
    /// Chains made available so far.
    sent: u64,
}

impl Sparse {
    fn connect(path: &Path, size: u64) -> Sparse {
        let memory = SharedMemory::new(0, 0x7f00_0000_0000, size);
        let frontend = RawFrontend::connect(path);
        frontend.share_memory(&memory);
        // The receive ring is never filled.
        for (ring, kick) in [(0, eventfd()), (1, eventfd())] {
            frontend.describe_ring(ring, &memory, &kick);
            if ring == 1 {
                frontend.send(SET_VRING_ENABLE, VERSION, &vring_state(1, 1), &[]);
                let heads = (0..SIZE as u16).flat_map(u16::to_le_bytes).collect::<Vec<_>>();
                memory.file.write_all_at(&heads, 0x4000 + 0x1000 + 4).expect("heads");
                return Sparse { frontend, memory, kick, sent: 0 };
            }
        }
        unreachable!("there are two rings")
    }

    /// Makes chains available, each of descriptors of an address and a length, and waits until
    /// they were used. Returns `false` if the connection was closed meanwhile.
    fn send(&mut self, chains: &[&[(u64, u32)]]) -> bool {
        let mut at = 0u64;
        for (head, chain) in chains.iter().enumerate() {
            let first = at;
            for (i, (address, len)) in chain.iter().enumerate() {
                let is_last = i + 1 == chain.len();
                let (flags, next) = if is_last { (0, 0) } else { (1u16, at as u16 + 1) };
                let mut bytes = address.to_le_bytes().to_vec();
                bytes.extend(len.to_le_bytes());
                bytes.extend(flags.to_le_bytes());
                bytes.extend(next.to_le_bytes());
                self.memory.file.write_all_at(&bytes, 0x4000 + at * 16).expect("a descriptor");
                at += 1;
            }
            let place = (self.sent + head as u64) % SIZE;
            let head = (first as u16).to_le_bytes();
            self.memory.file.write_all_at(&head, 0x4000 + 0x1000 + 4 + 2 * place).expect("a head");
        }
        self.sent += chains.len() as u64;
        let index = (self.sent as u16).to_le_bytes();
        self.memory.file.write_all_at(&index, 0x4000 + 0x1002).expect("an index");
        rustix::io::write(&self.kick, &1u64.to_ne_bytes()).expect("a kick");
        wait_until("the chains are used", SOON, || {
            let mut used = [0; 2];
            self.memory.file.read_exact_at(&mut used, 0x4000 + 0x2002).expect("used index");
            if used == index {
                return Some(true);
            }
            self.is_closed().then_some(false)
        })
    }

    fn is_closed(&self) -> bool {
        self.frontend.stream.set_nonblocking(true).expect("not blocking");
        match (&self.frontend.stream).read(&mut [0; 1]) {
            Ok(n) => n == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    /// Sends broadcasts of a private EtherType, whose heads are written and whose rests are not.
    fn send_unwritten(&mut self, frames: u64) {
        let mut head = vec![0; 12];
        head.extend([0xff; 6]);
        head.extend([0x52, 0x54, 0, 0, 0, 7, 0x88, 0xb5]);
        head.extend([1; 200]);
        self.memory.file.write_all_at(&head, MIB).expect("a head");
        for i in 0..frames {
            let rest = (HOLES + i * 2 * PAGE, 1000);
            assert!(self.send(&[&[(MIB, head.len() as u32), rest]]), "the connection was closed");
        }
    }

    /// Names one fresh page after the other, up to `bytes` of them; returns the bytes named before
    /// the connection was closed, if it was.
    fn spread(&mut self, bytes: u64) -> Option<u64> {
        for first in (0..bytes / PAGE).step_by(SIZE as usize) {
            let chains: Vec<[(u64, u32); 1]> =
                (first..first + SIZE).map(|page| [(HOLES + page * PAGE, 76)]).collect();
            let chains: Vec<&[(u64, u32)]> = chains.iter().map(|chain| &chain[..]).collect();
            if !self.send(&chains) {
                return Some(first * PAGE);
            }
        }
        None
    }
}

/// A memory control group of its own, removed when this is dropped.
struct Group {
    folder: PathBuf,
    peak: &'static str,
}

impl Group {
    /// Makes a group with a limit; `None`, with the reason printed, if this system does not let it.
    fn new(limit: u64) -> Option<Group> {
        let name = format!("trama-test-{}-{}", std::process::id(), unique());
        let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let (root, file, peak) = match v2 {
            true => ("/sys/fs/cgroup", "memory.max", "memory.peak"),
            false => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes")
            }
        };
        let group = Group { folder: Path::new(root).join(name), peak };
        let made = fs::create_dir(&group.folder)
            .and_then(|()| fs::write(group.folder.join(file), limit.to_string()))
            .and_then(|()| File::open(group.folder.join(peak)).map(drop));
        match made {
            Ok(()) => Some(group),
            Err(error) => {
                println!("left out: no memory control group ({}): {error}", group.folder.display());
                None
            }
        }
    }

    fn add(&self, process: u32) {
        fs::write(self.folder.join("cgroup.procs"), process.to_string()).expect("move a process");
    }

    /// The most bytes that it ever used.
    fn peak(&self) -> u64 {
        let text = fs::read_to_string(self.folder.join(self.peak)).expect("a figure");
        text.trim().parse().expect("bytes")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its processes may not be gone yet.
        for _ in 0..1000 {
            match fs::remove_dir(&self.folder) {
                Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                _ => return,
            }
        }
    }
}

fn is_in_force(tramad: &Tramad) -> bool {
    let is_missing = tramad.log().contains("memory-populate is not in force");
    if is_missing {
        println!("left out: {}", tramad.log());
    }
    !is_missing
}

#[test]
fn a_sparse_guest_is_closed_before_the_daemon_has_no_memory_left() {
    let Some(group) = Group::new(200 * MIB) else { return };
    let (left, right) = (Netns::new("left"), Netns::new("right"));
    // A port without this limit may have 64 MiB populated by what it sends.
    let limit = "memory-populate = \"1GiB\"";
    let mut tramad = Tramad::start(&configuration(&left, &right, limit));
    group.add(tramad.id());
    let bystanders = Pinging::start(&left, "10.1.0.2", 0.01);

    let mut sparse = Sparse::connect(&tramad.path("guest.sock"), 512 * MIB);
    let named = sparse.spread(480 * MIB);
    bystanders.stop_without_loss(20);
    if !is_in_force(&tramad) {
        return;
    }
    let named = named.expect("the connection is closed") / MIB;
    let peak = group.peak() / MIB;
    println!("closed after {named} MiB; the daemon used at most {peak} MiB");
    assert!((64..=180).contains(&named), "closed after {named} MiB");
    assert!(peak <= 180, "the daemon used {peak} MiB");
    let error = tramad.ctl("get Interface guest status:last_error");
    let words = "of its memory; use prealloc=on or raise memory-populate";
    assert!(error.contains("made trama populate") && error.contains(words), "{error}");
    drop(sparse);
    assert!(tramad.is_running());
    tramad.stop();
}

#[test]
fn a_port_has_its_own_limit_which_can_be_changed() {
    let (left, right) = (Netns::new("left"), Netns::new("right"));
    let limit = "memory-max = \"64MiB\"\nmemory-populate = \"4MiB\"";
    let tramad = Tramad::start(&configuration(&left, &right, limit));
    let path = tramad.path("guest.sock");
    let mut sparse = Sparse::connect(&path, 64 * MIB);
    let named = sparse.spread(16 * MIB);
    if !is_in_force(&tramad) {
        return;
    }
    assert!(named.expect("the connection is closed") <= 4 * MIB);
    let error = tramad.ctl("get Interface guest status:last_error");
    assert!(error.contains("made trama populate 4 MiB"), "{error}");
    drop(sparse);

    tramad.ctl("set Interface guest options:memory-populate=32MiB");
    let mut sparse = Sparse::connect(&path, 64 * MIB);
    assert_eq!(sparse.spread(16 * MIB), None);
    let populated = tramad.ctl("get Interface guest status:memory_populated");
    let populated: u64 = populated.trim().trim_matches('"').parse().expect("bytes");
    assert!((16 * MIB..17 * MIB).contains(&populated), "{populated}");
    assert_eq!(tramad.metric("trama_port_memory_bytes", &["guest", "mapped"]), 64 * MIB);
    assert_eq!(tramad.metric("trama_port_memory_bytes", &["guest", "populated"]), populated);
    drop(sparse);

    tramad.ctl("set Interface guest options:memory-max=32MiB");
    let larger = SharedMemory::new(0, 0x7f00_0000_0000, 64 * MIB);
    let frontend = RawFrontend::connect(&path);
    frontend.negotiate();
    use std::os::fd::AsFd;
    use trama_test_kit::requests::SET_MEM_TABLE;
    assert!(!frontend.accepts(SET_MEM_TABLE, &larger.table(), &[larger.file.as_fd()]));
    let error = wait_until("the reason is shown", SOON, || {
        let status = tramad.ctl("get Interface guest status");
        status.contains("memory-max").then_some(status)
    });
    assert!(error.contains("64 MiB") && error.contains("32 MiB"), "{error}");
    tramad.stop();
}

/// The kernel does not read a page that the file lacks: the frame must arrive all the same.
#[test]
fn frames_in_memory_without_pages_reach_a_tap() {
    let (left, right) = (Netns::new("left"), Netns::new("right"));
    let tramad = Tramad::start(&configuration(&left, &right, ""));
    let mut sparse = Sparse::connect(&tramad.path("guest.sock"), 64 * MIB);
    let before = ["left", "right"].map(|port| tramad.statistic(port, "tx_packets"));
    sparse.send_unwritten(100);
    for (port, before) in ["left", "right"].iter().zip(before) {
        wait_until("the frames arrive", SOON, || {
            (tramad.statistic(port, "tx_packets") >= before + 100).then_some(())
        });
        let counters = tramad.ctl(&format!("counters {port}"));
        assert!(!counters.contains("device_error"), "{counters}");
    }
    assert!(!tramad.ctl("counters guest").contains("memory_hole"));
    tramad.stop();
}

#[test]
fn frames_in_memory_without_pages_reach_an_uplink() {
    let host = Netns::with_ipv6("host");
    host.run("ip link add eth0 type veth peer lan0; ip link set eth0 up; ip link set lan0 up");
    let tramad = Tramad::start_in(
        &host,
        "[[network]]\nname = \"lan\"\nmode = \"bridged\"\nuplink = \"eth0\"\n\
         [[port]]\nname = \"guest\"\nnetwork = \"lan\"\ntype = \"vhost-user\"\n\
         path = \"{dir}/guest.sock\"\n",
    );
    let mut sparse = Sparse::connect(&tramad.path("guest.sock"), 64 * MIB);
    let arrived = || {
        let text = host.run("cat /sys/class/net/lan0/statistics/rx_packets");
        text.trim().parse::<u64>().expect("a count")
    };
    let before = arrived();
    sparse.send_unwritten(100);
    wait_until("the frames arrive", SOON, || (arrived() >= before + 100).then_some(()));
    let counters = tramad.ctl("counters");
    assert!(!counters.contains("device_error") && !counters.contains("memory_hole"), "{counters}");
    tramad.stop();
}

/// A guest whose VMM populates nothing works, also after its memory was used up to its end.
#[test]
fn a_guest_without_prealloc_does_not_notice() {
    let (left, right) = (Netns::new("left"), Netns::new("right"));
    let tramad = Tramad::start(&configuration(&left, &right, ""));
    let nic = Nic::connecting(tramad.path("guest.sock"), "52:54:00:00:00:01");
    let guest = Guest::start(&GuestOptions::new("guest", [nic]));
    guest.run("ip link set eth0 up");
    guest.address("10.1.0.3/24");
    guest.wait_for_ping("10.1.0.1", SOON);
    let pinging = Pinging::start(&left, "10.1.0.3", 0.01);
    // The guest receives into pages that neither it nor the VMM has touched.
    guest.run("ping -c 200 -i 0.01 -s 1400 10.1.0.2 >/dev/null");
    pinging.stop_without_loss(20);
    let status = tramad.ctl("get Interface guest status");
    assert!(!status.contains("last_error"), "{status}");
    println!("{status}");
    tramad.stop();
}
