//! Images that are read back: whole, of other versions, and made of any bytes.

use std::time::Duration;

use proptest::prelude::*;
use rustix::fs::MemfdFlags;

use super::*;
use crate::mac_table::Learned;

const AGING: Duration = Duration::from_secs(300);
const EPOCH: Epoch = Epoch::from_nanos(5_000_000_000_000);
const SECOND: u64 = 1_000_000_000;

fn vid(vlan: u16) -> VlanId {
    VlanId::new(vlan).unwrap()
}

fn mac(n: u32) -> MacAddr {
    MacAddr::from_u64(0x0200_0000_0000 | u64::from(n))
}

/// A kept table with two ports.
fn kept(capacity: usize) -> (MacTable, OwnedFd) {
    let mut table = MacTable::new(capacity, AGING, 1);
    let fd = table.keep(EPOCH).unwrap();
    for (index, name) in ["one", "two"].into_iter().enumerate() {
        table.set_identity(PortIndex(index as u16), Some(identity(name)));
    }
    (table, fd)
}

fn read(fd: &OwnedFd) -> Result<MacImage, KeptError> {
    MacImage::read(fd.try_clone().unwrap())
}

/// A file in memory with these words at the start, and these buckets.
fn file(head: &[u64], buckets: &[u64]) -> OwnedFd {
    let file = File::from(rustix::fs::memfd_create("image", MemfdFlags::CLOEXEC).unwrap());
    let bytes =
        |words: &[u64]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
    file.set_len((TABLE_AT + buckets.len() * 8) as u64).unwrap();
    file.write_all_at(&bytes(head), 0).unwrap();
    file.write_all_at(&bytes(buckets), TABLE_AT as u64).unwrap();
    file.into()
}

#[test]
fn the_next_process_learns_what_was_learned() {
    let (mut table, fd) = kept(1000);
    let now = Time(7 * SECOND);
    for n in 0..1000 {
        let port = PortIndex(n as u16 % 2);
        assert_eq!(table.learn(vid(n as u16 % 3), mac(n), port, now), Learned::New);
    }
    table.learn(vid(0), mac(0), PortIndex(1), now);
    let image = read(&fd).unwrap();
    assert_eq!((image.len(), image.parts().map(<[_]>::len).sum::<usize>()), (1000, 1000));
    // Another hash, another clock, and the ports in another order.
    let mut next = MacTable::new(2000, AGING, 99);
    let later = Epoch::from_nanos(EPOCH.as_nanos() + 107 * SECOND as i64);
    for kept in &image.0 {
        let port = PortIndex(if kept.port == identity("one") { 8 } else { 5 });
        assert!(next.import(kept, port, later, Time::ZERO));
        assert!(!next.import(kept, port, later, Time::ZERO), "it is known");
    }
    for entry in next.entries(Time::ZERO) {
        let n = entry.mac.to_u64() as u32;
        let wanted = if n % 2 == 1 || n == 0 { 5 } else { 8 };
        assert_eq!((entry.port, entry.vlan), (PortIndex(wanted), vid(n as u16 % 3)), "{n}");
        let age = entry.age.unwrap();
        assert!((99..=101).contains(&age.as_secs()), "seen 100 s ago: {age:?}");
    }
    assert!(next.lookup(vid(1), mac(1), Time(190 * SECOND)).is_some());
    assert!(next.lookup(vid(1), mac(1), Time(210 * SECOND)).is_none(), "it ages on");
}

#[test]
fn what_was_forgotten_is_not_read() {
    let (mut table, fd) = kept(100);
    table.learn(vid(1), mac(1), PortIndex(0), Time::ZERO);
    table.learn(vid(1), mac(2), PortIndex(1), Time::ZERO);
    table.learn(vid(1), mac(3), PortIndex(1), Time::ZERO);
    let own = super::super::StaticEntry { port: PortIndex(1), vlan: vid(1), mac: mac(4) };
    table.set_static([own]);
    assert_eq!(read(&fd).unwrap().len(), 3, "without the static one");
    table.forget(vid(1), mac(3));
    table.flush_port(PortIndex(0));
    let image = read(&fd).unwrap();
    let KeptMac { port, mac: read_mac, .. } = image.0[0];
    assert_eq!((image.len(), port, read_mac), (1, identity("two"), mac(2)));
    table.set_identity(PortIndex(1), None);
    assert!(read(&fd).unwrap().is_empty(), "the port is gone");
}

#[test]
fn what_is_too_old_or_from_the_future_is_not_imported() {
    let (mut table, fd) = kept(100);
    table.learn(vid(1), mac(1), PortIndex(0), Time(1000 * SECOND));
    let kept = read(&fd).unwrap().0[0];
    let imports = |seconds: u64| {
        let mut next = MacTable::new(100, AGING, 1);
        next.import(&kept, PortIndex(0), EPOCH, Time(seconds * SECOND))
    };
    assert!(imports(1000) && imports(1299));
    assert!(!imports(1302) && !imports(998));
    let mut full = MacTable::new(1, AGING, 1);
    full.learn(vid(9), mac(9), PortIndex(3), Time(1000 * SECOND));
    assert!(!full.import(&kept, PortIndex(0), EPOCH, Time(1000 * SECOND)), "nothing is evicted");
}

#[test]
fn a_table_of_another_size_is_no_longer_kept() {
    let (mut table, fd) = kept(100);
    table.learn(vid(1), mac(1), PortIndex(0), Time::ZERO);
    table.set_limits(5000, AGING);
    assert!(!table.is_kept());
    table.learn(vid(1), mac(2), PortIndex(0), Time::ZERO);
    assert_eq!(read(&fd).unwrap().len(), 1);
    let fd = table.keep(EPOCH).unwrap();
    table.set_identity(PortIndex(0), Some(identity("one")));
    assert_eq!(read(&fd).unwrap().len(), 2);
}

#[test]
fn only_the_process_that_made_it_can_write_it() {
    let (_table, fd) = kept(100);
    let file = File::from(fd);
    assert!(file.write_all_at(&[1], TABLE_AT as u64).is_err());
    assert!(file.set_len(0).is_err());
}

#[test]
fn other_files_are_refused_with_the_reason() {
    let refusal = |head: &[u64]| read(&file(head, &[0; 8])).err().unwrap().to_string();
    assert!(refusal(&[]).contains("not a MAC table"));
    assert!(refusal(&[MAGIC, LAYOUT + 1, 1]).contains("another version"));
    assert!(refusal(&[MAGIC, LAYOUT, 2]).contains("too short"));
    assert!(refusal(&[MAGIC, LAYOUT, u64::MAX]).contains("too short"));
    let short = File::from(rustix::fs::memfd_create("image", MemfdFlags::CLOEXEC).unwrap());
    assert!(MacImage::read(short.into()).err().unwrap().to_string().contains("not a MAC table"));
    assert!(read(&file(&[MAGIC, LAYOUT, 1], &[0; 8])).unwrap().is_empty());
}

/// Any word, often one of a real image.
fn word() -> impl Strategy<Value = u64> {
    let key =
        (0..4096u16, any::<u32>()).prop_map(|(v, m)| super::super::bucket::key(vid(v), mac(m)));
    let fresh = (0..5u64, 0..2u64)
        .prop_map(|(port, generation)| port << 48 | generation << 32 | FIRST_TICK);
    prop_oneof![Just(0), any::<u64>(), key, fresh]
}

proptest! {
    /// Whatever is in the memory, only addresses of stations come of it, on ports that exist.
    #[test]
    fn any_bytes_give_plausible_entries(
        mut head in proptest::collection::vec(word(), PORTS_AT + 12),
        buckets in proptest::collection::vec(word(), 8 * 40),
        zero in any::<i64>(),
    ) {
        head[..ZERO_AT + 1].copy_from_slice(&[MAGIC, LAYOUT, 40, zero as u64]);
        head[PORTS_AT] = identity("one");
        let image = read(&file(&head, &buckets)).unwrap();
        let mut table = MacTable::new(16, AGING, 3);
        let mut imported = 0;
        for kept in &image.0 {
            prop_assert!(kept.port != 0);
            // The network gives ports to those that it knows.
            if kept.port == identity("one") {
                let epoch = Epoch::from_nanos(zero.saturating_add((FIRST_TICK << TICK_SHIFT) as i64));
                imported += usize::from(table.import(kept, PortIndex(0), epoch, Time::ZERO));
            }
        }
        let entries = table.entries(Time::ZERO);
        prop_assert_eq!((entries.len(), entries.len() <= 16), (imported, true));
        for entry in entries {
            prop_assert!(entry.port == PortIndex(0) && entry.age.unwrap() <= AGING + MacTable::TICK);
            prop_assert!(entry.mac.to_u64() & 1 << 40 == 0 && entry.mac.to_u64() != 0);
        }
    }

    /// A table that is torn anywhere gives no address another port than it had before or after.
    #[test]
    fn a_torn_table_gives_no_other_port(
        learned in proptest::collection::vec((0..40u32, 0..2u16), 1..200),
        cut in 0..(8 * 16usize),
    ) {
        let (mut table, fd) = kept(20);
        let words = |fd: &OwnedFd| {
            let file = File::from(fd.try_clone().unwrap());
            let buckets = (file.metadata().unwrap().len() - TABLE_AT as u64) as usize / 64;
            read_words(&file, TABLE_AT as u64, buckets.min(16) * 8).unwrap()
        };
        let mut had = vec![Vec::new(); 40];
        let mut before = words(&fd);
        for (n, port) in learned {
            before = words(&fd);
            table.learn(vid(1), mac(n), PortIndex(port), Time::ZERO);
            had[n as usize].push(identity(["one", "two"][usize::from(port)]));
        }
        // Slots change one by one; within a bucket a value is written before its key.
        let after = words(&fd);
        let torn: Vec<u64> = (0..after.len())
            .map(|at| {
                let slot = at / 8 * 4 + at % 4;
                let is_key = at % 8 < 4;
                let is_new = slot < cut / 2 || slot == cut / 2 && cut % 2 == 0;
                match (is_new, is_key, slot == cut / 2) {
                    // Between the value and the key.
                    (true, true, true) if before[at] != after[at] => 0,
                    (true, ..) => after[at],
                    _ => before[at],
                }
            })
            .collect();
        let head = read_words(&File::from(fd), 0, HEAD_WORDS).unwrap();
        let head = [&head[..BUCKETS_AT], &[torn.len() as u64 / 8], &head[BUCKETS_AT + 1..]].concat();
        for KeptMac { port, mac, .. } in read(&file(&head, &torn)).unwrap().0 {
            let n = (mac.to_u64() & 0xff) as usize;
            prop_assert!(had[n].contains(&port), "{n} was never on this port");
        }
    }
}
