//! The promise: a lease that a client was told of is there after a crash at any point, and no
//! address is two clients'.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::simulated_disk::{Fate, SimulatedDisk};
use super::*;
use crate::name::HostName;
use crate::testing::{Ask, Bench, discover, lab, mac};
use crate::wire::MessageType::{Ack, Decline, Release};
use crate::{ClientKey, PortId, Time};

fn lease(client: u8, last: u8, until: u64) -> Record {
    Record::Lease(LeaseRecord {
        address: Ipv4Addr::new(10, 0, 2, last),
        until: Time(until),
        port: PortId(1),
        mac: mac(client),
        key: ClientKey::from_mac(mac(client)),
        name: HostName::from_client(b"vm"),
    })
}

fn encoded(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    records.iter().for_each(|record| record.emit(&mut bytes));
    bytes
}

fn journal(body: &[u8]) -> Vec<u8> {
    [&MAGIC[..], body].concat()
}

fn open_with(contents: &[u8]) -> (Journal<SimulatedDisk>, Vec<Record>, Found) {
    let mut disk = SimulatedDisk::default();
    disk.set(JOURNAL, contents);
    Journal::open(disk).unwrap()
}

#[test]
fn records_come_back_in_order() {
    let (mut journal, records, found) = Journal::open(SimulatedDisk::default()).unwrap();
    assert_eq!((records.as_slice(), found), (&[][..], Found::Nothing));
    let first = [lease(1, 10, 5), Record::Freed([10, 0, 2, 11].into())];
    let second = [lease(2, 12, u64::MAX)];
    journal.append(&encoded(&first)).unwrap();
    journal.append(&encoded(&second)).unwrap();
    journal.append(&[]).unwrap();
    let disk = journal.into_disk().crash(Fate::Lost);
    let (_, records, found) = Journal::open(disk).unwrap();
    assert_eq!((records, found), ([&first[..], &second].concat(), Found::Whole));
}

#[test]
fn a_journal_cut_anywhere_keeps_its_whole_records_and_goes_on() {
    let all = [lease(1, 10, 5), lease(2, 11, 6), Record::Freed([10, 0, 2, 10].into())];
    let whole = journal(&encoded(&all));
    let ends: Vec<usize> = (0..=3).map(|n| journal(&encoded(&all[..n])).len()).collect();
    for cut in MAGIC.len()..=whole.len() {
        let (mut journal, records, found) = open_with(&whole[..cut]);
        let count = ends.iter().filter(|end| **end <= cut).count() - 1;
        assert_eq!(records, all[..count], "cut at {cut}");
        let expected = match cut - ends[count] {
            0 => Found::Whole,
            lost => Found::Torn { kept: ends[count], lost },
        };
        assert_eq!(found, expected);
        if found != Found::Whole {
            let mut disk = journal.into_disk();
            assert_eq!(disk.contents(DAMAGED).unwrap(), whole[..cut]);
            journal = Journal::open(std::mem::take(&mut disk)).unwrap().0;
        }
        // What is appended now is found, though the file ended in rubbish.
        journal.append(&encoded(&[lease(3, 13, 7)])).unwrap();
        let (_, records, found) = Journal::open(journal.into_disk().crash(Fate::Lost)).unwrap();
        assert_eq!((records.len(), found), (count + 1, Found::Whole));
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let all = [lease(1, 10, 5), lease(2, 11, 6)];
    let whole = journal(&encoded(&all));
    let first = journal(&encoded(&all[..1])).len();
    for octet in MAGIC.len()..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[octet] ^= 1 << bit;
            let (_, records, found) = open_with(&bytes);
            let count = usize::from(octet >= first);
            assert_eq!(records, all[..count], "octet {octet}, bit {bit}");
            assert!(matches!(found, Found::Torn { .. }));
        }
    }
}

/// A journal as the first version wrote it: a lease by identifier, and a freed address.
const FIRST_VERSION: &str = "7472616d614448010024010a00020a0000018bcfe568000000000000000007020000000001000401ff6964766d317b4c72c50005020a00020b7d3846c3";

#[test]
fn a_journal_of_the_first_version_is_read() {
    let octet = |at| u8::from_str_radix(&FIRST_VERSION[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..FIRST_VERSION.len()).step_by(2).map(octet).collect();
    let (_, records, found) = open_with(&bytes);
    let lease = LeaseRecord {
        address: [10, 0, 2, 10].into(),
        until: Time(1_700_000_000_000),
        port: PortId(7),
        mac: mac(1),
        key: ClientKey::from_id(b"\xffid"),
        name: HostName::from_client(b"vm1"),
    };
    assert_eq!(records, [Record::Lease(lease), Record::Freed([10, 0, 2, 11].into())]);
    assert_eq!(found, Found::Whole);
}

#[test]
fn foreign_files_are_set_aside_and_never_overwritten() {
    let mut disk = SimulatedDisk::default();
    let foreign = [&b"dnsmasq leases"[..], b"x", &MAGIC[..7], b"tramaDH\x02 a later version"];
    for (number, contents) in foreign.iter().enumerate() {
        disk.set(JOURNAL, contents);
        let (journal, records, found) = Journal::open(disk).unwrap();
        let name = format!("leases.foreign.{}", number + 1);
        assert_eq!((records.as_slice(), &found), (&[][..], &Found::Foreign(name.clone())));
        assert!(found.to_string().contains(&name));
        disk = journal.into_disk();
    }
    for (number, contents) in foreign.iter().enumerate() {
        let kept = disk.contents(&format!("leases.foreign.{}", number + 1));
        assert_eq!(kept.as_deref(), Some(*contents));
    }
    for number in foreign.len()..MAX_FOREIGN {
        disk.set(JOURNAL, format!("foreign {number}").as_bytes());
        disk = Journal::open(disk).unwrap().0.into_disk();
    }
    disk.set(JOURNAL, b"one too many");
    assert!(matches!(Journal::open(disk), Err(StoreError::Foreign)));
}

#[test]
fn after_a_failed_append_nothing_is_appended_behind_rubbish() {
    for failing in 0..2 {
        let (mut journal, _, _) = Journal::open(SimulatedDisk::default()).unwrap();
        journal.append(&encoded(&[lease(1, 10, 5)])).unwrap();
        journal.disk.fails = Some(journal.disk.operations + failing);
        let error = journal.append(&encoded(&[lease(2, 11, 6)])).unwrap_err();
        assert!(error.to_string().contains("leases"), "{error}");
        assert!(matches!(journal.append(&encoded(&[lease(3, 12, 7)])), Err(StoreError::Stale)));
        assert!(journal.wants_compaction());
        let records = [lease(1, 10, 5), lease(3, 12, 7)];
        journal.compact(&encoded(&records)).unwrap();
        journal.append(&encoded(&[lease(4, 13, 8)])).unwrap();
        let (_, found, _) = Journal::open(journal.into_disk().crash(Fate::Lost)).unwrap();
        assert_eq!(found, [&records[..], &[lease(4, 13, 8)]].concat());
    }
}

#[test]
fn a_failed_compaction_loses_nothing() {
    let records = [lease(1, 10, 5), lease(2, 11, 6)];
    for failing in 0..5 {
        let (mut journal, _, _) = Journal::open(SimulatedDisk::default()).unwrap();
        journal.append(&encoded(&records)).unwrap();
        journal.disk.fails = Some(journal.disk.operations + failing);
        assert!(journal.compact(&encoded(&records)).is_err(), "operation {failing}");
        for fate in [Fate::Lost, Fate::Kept] {
            let (_, found, _) = Journal::open(journal.disk.crash(fate)).unwrap();
            assert_eq!(found, records, "operation {failing}, {fate:?}");
        }
        if !journal.wants_compaction() {
            journal.append(&encoded(&[lease(3, 12, 7)])).unwrap();
            let (_, found, _) = Journal::open(journal.disk.crash(Fate::Lost)).unwrap();
            assert_eq!(found.len(), 3);
        }
    }
}

#[test]
fn the_journal_stays_within_a_few_times_its_leases() {
    let (mut journal, _, _) = Journal::open(SimulatedDisk::default()).unwrap();
    let live: Vec<Record> = (0..100).map(|n| lease(n, n, 5)).collect();
    let batch = encoded(&live);
    let mut compactions = 0;
    for _ in 0..1000 {
        journal.append(&batch).unwrap();
        if journal.wants_compaction() {
            journal.compact(&batch).unwrap();
            compactions += 1;
        }
        assert!(journal.length <= 2 * MIN_COMPACTED);
    }
    assert!((2..60).contains(&compactions), "{compactions}");
}

/// What clients were told, and what the server therefore must not forget.
#[derive(Default)]
struct Promises {
    /// Leases whose ACK was sent, by address. A later step may end them.
    acknowledged: BTreeMap<Ipv4Addr, u8>,
}

/// A server and its journal, driven as a host would.
struct Host {
    bench: Bench,
    journal: Journal<SimulatedDisk>,
    promises: Promises,
}

impl Host {
    fn start(disk: SimulatedDisk, promises: Promises) -> Result<Host, StoreError> {
        let mut bench = Bench::new(lab());
        let (journal, records, _) = Journal::open(disk)?;
        records.into_iter().for_each(|record| bench.server.restore(bench.now, record));
        Ok(Host { bench, journal, promises })
    }

    /// One step of a client; `Err` when the machine died in it.
    fn step(&mut self, client: u8, action: u8) -> Result<(), StoreError> {
        let held = |(address, holder): (&Ipv4Addr, &u8)| (*holder == client).then_some(*address);
        let address = self.promises.acknowledged.iter().find_map(held);
        let asks = match (action, address) {
            (0, Some(address)) => vec![Ask::new(Release, client).ciaddr(address)],
            (1, Some(address)) => vec![Ask::new(Decline, client).requested(address)],
            (2, _) => return self.journal.compact(&self.bench.server.snapshot()),
            // Two clients in one batch: one write for both.
            (3, _) => vec![rapid(client), rapid(client ^ 1)],
            _ => vec![rapid(client)],
        };
        if action < 2
            && let Some(address) = address
        {
            // The client's word ends the promise, heard or not.
            self.promises.acknowledged.remove(&address);
        }
        let mut outcome = crate::server::Outcome::default();
        for ask in &asks {
            let _ = self.bench.send(ask);
            outcome.records.extend_from_slice(&self.bench.out.records);
            outcome.confirmed.append(&mut self.bench.out.confirmed);
        }
        self.journal.append(&outcome.records)?;
        for reply in &outcome.confirmed {
            assert_eq!(reply.kind, Ack);
            let packet = crate::wire::Packet::parse(&reply.payload).unwrap();
            let client = packet.hardware().octets[5];
            self.promises.acknowledged.retain(|_, holder| *holder != client);
            let before = self.promises.acknowledged.insert(packet.yiaddr(), client);
            assert_eq!(before, None, "{} given twice", packet.yiaddr());
        }
        Ok(())
    }

    /// Every promise is known to the server that a new start makes of the disk.
    fn check_restart(&self, disk: SimulatedDisk) -> Host {
        let told = Promises { acknowledged: self.promises.acknowledged.clone() };
        let next = Host::start(disk, told).unwrap();
        for (address, client) in &next.promises.acknowledged {
            let found = next.bench.server.bindings().find(|binding| {
                binding.address == *address && binding.state == crate::State::Bound
            });
            let holder = found.unwrap_or_else(|| panic!("lease of {address} lost")).mac;
            assert_eq!(holder, mac(*client), "{address}");
        }
        next
    }
}

fn rapid(client: u8) -> Ask {
    discover(client).option(80, &[])
}

/// Steps until the machine dies, then every fate of what was not durable.
fn die_at(steps: &[(u8, u8)], lives: usize) -> bool {
    let mut host = Host::start(SimulatedDisk::default(), Promises::default()).unwrap();
    host.journal.disk.lives = Some(host.journal.disk.operations + lives);
    let died = steps.iter().any(|(client, action)| host.step(*client, *action).is_err());
    let disk = host.journal.disk.clone();
    let mut fates = vec![Fate::Lost, Fate::Kept, Fate::NamesOnly];
    for octet in 0..=disk.pending() {
        fates.extend([
            Fate::Prefix(octet),
            Fate::HoleBefore(octet),
            Fate::HoleAfter(octet),
            Fate::Garbled(octet),
        ]);
    }
    for fate in fates {
        let mut next = host.check_restart(disk.crash(fate));
        // Newcomers get none of the promised addresses: `step` asserts it.
        for client in 100..103 {
            next.step(client, 9).unwrap();
        }
        // Nor does the next start lose anything, whatever this one found.
        next.check_restart(next.journal.disk.crash(Fate::Lost));
    }
    died
}

#[test]
fn a_crash_at_every_operation_and_every_octet_loses_no_lease() {
    let steps = [(1, 9), (2, 9), (3, 3), (1, 0), (5, 9), (2, 2), (1, 9), (5, 1), (3, 9), (0, 2)];
    let mut lives = 0;
    while die_at(&steps, lives) {
        lives += 1;
    }
    assert!(lives > 20, "{lives} operations");
}

#[test]
fn a_crash_while_opening_loses_no_lease() {
    let records = [lease(1, 10, u64::MAX), lease(2, 11, u64::MAX)];
    let torn = [journal(&encoded(&records)), vec![0, 9, 1]].concat();
    for lives in 0..20 {
        let mut disk = SimulatedDisk::default();
        disk.set(JOURNAL, &torn);
        disk.lives = Some(lives);
        // The journal keeps the disk to itself when it fails, so look at a shared one.
        let disk = shared::open_and_crash(disk);
        for fate in [Fate::Lost, Fate::Kept, Fate::NamesOnly, Fate::Prefix(9)] {
            let (_, found, _) = Journal::open(disk.crash(fate)).unwrap();
            assert_eq!(found, records, "{lives} operations, {fate:?}");
        }
    }
}

/// A disk that outlives the journal that failed on it.
mod shared {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    struct Shared(Rc<RefCell<SimulatedDisk>>);

    impl Disk for Shared {
        fn read(&mut self, file: &str) -> io::Result<Option<Vec<u8>>> {
            self.0.borrow_mut().read(file)
        }
        fn create(&mut self, file: &str) -> io::Result<()> {
            self.0.borrow_mut().create(file)
        }
        fn append(&mut self, file: &str, bytes: &[u8]) -> io::Result<()> {
            self.0.borrow_mut().append(file, bytes)
        }
        fn sync(&mut self, file: &str) -> io::Result<()> {
            self.0.borrow_mut().sync(file)
        }
        fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
            self.0.borrow_mut().rename(from, to)
        }
        fn sync_folder(&mut self) -> io::Result<()> {
            self.0.borrow_mut().sync_folder()
        }
    }

    pub(super) fn open_and_crash(disk: SimulatedDisk) -> SimulatedDisk {
        let disk = Rc::new(RefCell::new(disk));
        drop(Journal::open(Shared(Rc::clone(&disk))));
        let disk = disk.borrow();
        disk.clone()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_crash_loses_a_lease_or_gives_an_address_twice(
        steps in prop::collection::vec((0..8u8, 0..12u8), 1..14),
        lives in 0..40usize,
    ) {
        die_at(&steps, lives);
    }

    #[test]
    fn any_octets_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (_, whole) = Record::parse_all(&bytes);
        prop_assert!(whole <= bytes.len());
    }

    #[test]
    fn records_round_trip(
        address: u32, address6: u128, until: u64, port: u64, octets: [u8; 6],
        key in prop::collection::vec(any::<u8>(), 0..ClientKey::MAX_LEN),
        name in prop::option::of("[a-z0-9]{1,63}"),
    ) {
        let lease = LeaseRecord {
            address: Ipv4Addr::from_bits(address),
            until: Time(until),
            port: PortId(port),
            mac: trama_frame::MacAddr(octets),
            key: ClientKey(key.into()),
            name: name.map(|name| name.parse().unwrap()),
        };
        let address6 = Ipv6Addr::from_bits(address6);
        let LeaseRecord { until, port, mac, key, name, .. } = lease.clone();
        let lease6 = LeaseRecord { address: address6, until, port, mac, key, name };
        let all = vec![
            Record::Lease(lease),
            Record::Lease6(lease6),
            Record::Freed6(address6),
            Record::Freed(Ipv4Addr::from_bits(address)),
        ];
        let bytes = encoded(&all);
        prop_assert_eq!(Record::parse_all(&bytes), (all, bytes.len()));
    }
}
