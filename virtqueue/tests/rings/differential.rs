//! Random rings, valid and malformed, through the device side and through the crate `virtio-queue`,
//! the oracle.
//!
//! The two differ by intent in these points:
//! - the oracle ends a malformed chain silently, the device side marks it: a chain is malformed
//!   exactly if the oracle ends on a descriptor that has a successor, or returns a buffer that
//!   cannot be transmitted from;
//! - the oracle follows an indirect descriptor that has a successor, which virtio 1.2, section
//!   2.7.5.3.1 forbids;
//! - the oracle takes an indirect table of any length, the device side of 256 descriptors;
//! - the oracle ignores the driver's NO_INTERRUPT flag, which counts when EVENT_IDX is not
//!   negotiated: the test applies the rule itself;
//! - the device side makes one extra call after a start under EVENT_IDX, as it cannot know what was
//!   decided before.

use proptest::prelude::*;
use trama_virtqueue::{
    HEADER_LEN, NewStart, PushError, RingError, RingFeatures, RxQueue, Segment, TxBurst, TxQueue,
};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{DescriptorChain, QueueOwnedT, QueueT};
use vm_memory::{Address, Bytes, GuestMemoryMmap};

use super::image::{A, B, BUFFERS, C, C_END, Desc, INDIRECT, Image, NEXT, TABLES, WRITE};

/// Generates addresses: mostly in memory, often near an edge, sometimes outside.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => BUFFERS..B,
        3 => (B - 70)..(B + 10),
        3 => C..C_END,
        1 => (B + 0x8000 - 40)..(B + 0x8000 + 8),
        1 => (C_END - 40)..(C_END + 8),
        1 => any::<u64>(),
        1 => (u64::MAX - 40)..=u64::MAX,
    ]
}

fn length() -> impl Strategy<Value = u32> {
    prop_oneof![
        3 => Just(HEADER_LEN as u32),
        2 => Just(10),
        4 => 0..30u32,
        6 => 40..200u32,
        3 => 200..4000u32,
        1 => any::<u32>(),
    ]
}

/// Generates a descriptor of a table of `size`; `own` is the flag that its buffers should have.
fn descriptor(index: u16, size: u16, own: u16) -> impl Strategy<Value = Desc> {
    let link = prop_oneof![
        8 => Just((own, 0)),
        6 => Just((own | NEXT, (index + 1) % size)),
        2 => (Just(own | NEXT), 0..size + 1),
        1 => (Just(WRITE ^ own), 0..size),
    ];
    (address(), length(), link).prop_map(|(addr, len, (flags, next))| Desc {
        addr,
        len,
        flags,
        next,
    })
}

/// Generates a descriptor of the ring's own table, which may refer to one of four tables of eight.
fn outer(index: u16, size: u16, own: u16) -> impl Strategy<Value = Desc> {
    let indirect = (0..4u64, prop_oneof![8 => 1..9u32, 1 => Just(0u32), 1 => 9..300u32], 0..20u32)
        .prop_map(move |(table, count, odd)| Desc {
            // Tables need no alignment.
            addr: TABLES + table * 0x200 + if odd == 1 { 3 } else { 0 },
            len: 16 * count + u32::from(odd == 2),
            flags: INDIRECT | if odd == 3 { NEXT } else { 0 } | if odd == 4 { WRITE } else { 0 },
            next: 0,
        });
    prop_oneof![5 => descriptor(index, size, own).boxed(), 1 => indirect.boxed()]
}

/// Generates a descriptor of an indirect table, which may wrongly refer to another.
fn inner(index: u16, own: u16) -> impl Strategy<Value = Desc> {
    (descriptor(index, 8, own), 0..40u8).prop_map(|(mut desc, nested)| {
        desc.flags |= if nested == 0 { INDIRECT } else { 0 };
        desc
    })
}

#[derive(Debug, Clone)]
struct Ring {
    size: u16,
    next: u16,
    table: Vec<Desc>,
    tables: Vec<Desc>,
    heads: Vec<u16>,
    /// Added to the available index; mostly zero.
    jump: u16,
}

fn ring(own: u16) -> impl Strategy<Value = Ring> {
    (1..5u32, any::<u16>()).prop_flat_map(move |(log, next)| {
        let size = 1u16 << log;
        let table: Vec<_> = (0..size).map(|i| outer(i, size, own)).collect();
        let tables: Vec<_> = (0..32).map(|i| inner(i % 8, own)).collect();
        let head = prop_oneof![80 => 0..size, 1 => any::<u16>(), 1 => Just(size)];
        let heads = prop::collection::vec(head, 0..=usize::from(size));
        let jump = prop_oneof![30 => Just(0u16), 1 => any::<u16>(), 1 => 1..3u16];
        (table, tables, heads, jump).prop_map(move |(table, tables, heads, jump)| Ring {
            size,
            next,
            table,
            tables,
            heads,
            jump,
        })
    })
}

impl Ring {
    fn image(&self) -> Image {
        let image = Image::new(self.size);
        for (i, desc) in self.table.iter().enumerate() {
            image.set_desc(i as u16, *desc);
        }
        for (i, desc) in self.tables.iter().enumerate() {
            image.write(TABLES + 0x200 * (i as u64 / 8) + 16 * (i as u64 % 8), &desc.bytes());
        }
        image.set_avail(self.next, &self.heads);
        let end = self.next.wrapping_add(self.heads.len() as u16);
        image.set_avail_idx(end.wrapping_add(self.jump));
        image
    }
}

/// The oracle's view of one chain.
struct Seen {
    descs: Vec<Descriptor>,
    /// Whether the chain's end was reached.
    whole: bool,
}

fn walk(chain: DescriptorChain<&GuestMemoryMmap>) -> Seen {
    let descs: Vec<_> = chain.collect();
    let whole = descs.last().is_some_and(|last| !last.has_next());
    Seen { descs, whole }
}

impl Seen {
    /// Returns the chain's bytes if it can be transmitted with a header of `header_len` bytes.
    fn bytes(&self, memory: &GuestMemoryMmap, header_len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![];
        for desc in &self.descs {
            if desc.is_write_only() || !Image::mapped(desc.addr().raw_value(), desc.len()) {
                return None;
            }
            let start = bytes.len();
            bytes.resize(start + desc.len() as usize, 0);
            if desc.len() > 0 {
                memory.read_slice(&mut bytes[start..], desc.addr()).unwrap();
            }
        }
        (self.whole && bytes.len() >= header_len).then_some(bytes)
    }
}

/// Returns all bytes of a fetched chain whose header has `header_len` bytes; those missing from a
/// short one are zeros.
pub(crate) fn bytes_of(burst: &TxBurst, i: usize, header_len: usize) -> Vec<u8> {
    let (header, lacking) = burst.header(i).split_at(header_len);
    assert!(lacking.iter().all(|byte| *byte == 0), "{lacking:?}");
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(burst.head(i));
    for segment in burst.body(i) {
        let start = bytes.len();
        bytes.resize(start + segment.len(), 0);
        assert_eq!(segment.copy_to(&mut bytes[start..]), segment.len());
    }
    assert_eq!(bytes.len(), header_len + burst.frame_len(i));
    bytes
}

fn check_transmit(ring: &Ring, max: usize, short_header: bool) {
    let image = ring.image();
    let features = RingFeatures { indirect: true, short_header, ..RingFeatures::default() };
    let header_len = features.header_len();
    let mut device = TxQueue::new(image.setup(ring.next, features)).unwrap();
    let memory = image.oracle_memory();
    let mut oracle = image.oracle_queue(ring.next, false);
    let mut burst = TxBurst::new();
    loop {
        let fetched = match device.fetch(&mut burst, max) {
            Ok(0) => break,
            Ok(fetched) => fetched,
            Err(error) => return check_broken(error, ring, max, &mut oracle, &memory),
        };
        for i in 0..fetched {
            let chain = oracle.iter(&memory).unwrap().next().unwrap();
            let head = chain.head_index();
            let seen = walk(chain);
            match burst.error(i) {
                None => {
                    let device = bytes_of(&burst, i, header_len);
                    assert_eq!(Some(device), seen.bytes(&memory, header_len));
                }
                Some(RingError::NestedIndirect) if seen.whole => {
                    let forbidden = |desc: &Desc| desc.flags & (INDIRECT | NEXT) == INDIRECT | NEXT;
                    assert!(ring.table.iter().any(forbidden));
                }
                Some(RingError::IndirectLength) if seen.whole => {
                    let long = |desc: &Desc| desc.flags & INDIRECT != 0 && desc.len > 16 * 256;
                    assert!(ring.table.iter().any(long));
                }
                Some(error) => assert_eq!(seen.bytes(&memory, header_len), None, "{error}"),
            }
            oracle.add_used(&memory, head, 0).unwrap();
        }
        device.complete(&burst);
        device.publish();
    }
    assert_eq!(oracle.next_avail(), device.next());
    assert!(oracle.iter(&memory).unwrap().next().is_none());
    assert_eq!(image.dump(), Image::oracle_dump(&memory));
}

/// Checks that the oracle confirms why the ring broke, within the burst that was refused.
fn check_broken(
    error: RingError,
    ring: &Ring,
    max: usize,
    oracle: &mut virtio_queue::Queue,
    memory: &GuestMemoryMmap,
) {
    if error == RingError::AvailJump {
        assert!(oracle.iter(memory).is_err());
        return;
    }
    let chains: Vec<_> = oracle.iter(memory).unwrap().take(max.min(64)).collect();
    let cause = chains.into_iter().any(|chain| match error {
        RingError::HeadOutOfRange => chain.head_index() >= ring.size,
        RingError::ChainTooLong => {
            let seen = walk(chain);
            !seen.whole && !seen.descs.is_empty()
        }
        other => panic!("{other} must not break a transmit ring"),
    });
    assert!(cause, "{error}");
}

/// Checks that frames go to a ring of valid chains exactly where the oracle would write them.
fn check_receive(
    sizes: &[Vec<u32>],
    frames: &[Vec<u8>],
    buffers: RingFeatures,
    event: Option<u16>,
) {
    let image = Image::new(64);
    let next = 0xfff0;
    let (mut heads, mut index, mut at) = (vec![], 0u16, B - 0x1000);
    for chain in sizes {
        heads.push(index);
        for (i, len) in chain.iter().enumerate() {
            let more = if i + 1 < chain.len() { NEXT } else { 0 };
            let (flags, after) = (WRITE | more, index + 1);
            image.set_desc(index, Desc { addr: at, len: *len, flags, next: after });
            (index, at) = (after, at + u64::from(*len) + 5);
        }
    }
    image.set_avail(next, &heads);
    image.set_used_event(event.unwrap_or(0));
    let event_idx = event.is_some();
    let features = RingFeatures { event_idx, ..buffers };
    let mut device = RxQueue::new(image.setup(next, features)).unwrap();
    let memory = image.oracle_memory();
    let mut oracle = image.oracle_queue(next, event_idx);
    let mut first = true;
    for (i, frame) in frames.iter().enumerate() {
        let (head, body) = frame.split_at(frame.len() / 3);
        let (b1, b2) = body.split_at(body.len() / 2);
        let header = [i as u8; HEADER_LEN];
        let body = match i % 3 {
            0 => &[][..],
            1 => &[Segment::from(body)][..],
            _ => &[Segment::from(b1), Segment::from(b2)][..],
        };
        let head = if body.is_empty() { &frame[..] } else { head };
        device.expect(i % 5);
        let pushed = match (i % 4, head.len()) {
            (0, 12..) => device.push(&header, new_start::<false>(head), body),
            (1, 16..) => device.push(&header, new_start::<true>(head), body),
            _ => device.push(&header, head, body),
        };
        let expected = push_oracle(&mut oracle, &memory, header, frame, features);
        assert_eq!(pushed, expected);
        let call = device.publish();
        let wanted = pushed.is_ok() && oracle.needs_notification(&memory).unwrap();
        assert_eq!(call, wanted || (event_idx && first && pushed.is_ok()));
        first &= pushed.is_err();
        assert_eq!(device.next(), oracle.next_avail());
    }
    // The oracle does not touch the used ring's flags and event index here. Elements beyond the
    // used index are undefined, as the device side may write them before it finds the ring full.
    let (mut a, mut b) = (image.dump(), Image::oracle_dump(&memory));
    let mut ignore = |at: u64, len: usize| {
        let at = Image::dump_index(at);
        a[at..at + len].fill(0);
        b[at..at + len].fill(0);
    };
    ignore(A + 0x2000, 2);
    ignore(A + 0x2000 + 4 + 8 * 64, 2);
    for unused in oracle.next_used().wrapping_sub(next)..64 {
        ignore(A + 0x2004 + 8 * u64::from(next.wrapping_add(unused) % 64), 8);
    }
    assert!(a == b, "memory differs");
}

/// Splits the head into two pieces. An untagged start ignores the bytes in the tag's place.
fn new_start<const TAGGED: bool>(head: &[u8]) -> NewStart<'_, TAGGED> {
    let (start, rest) = head.split_at(NewStart::<TAGGED>::LEN);
    let mut bytes = [0xee; 16];
    bytes[..start.len()].copy_from_slice(start);
    NewStart::new(bytes, rest)
}

/// Applies the expected result to a receive ring by means of the oracle.
fn push_oracle(
    queue: &mut virtio_queue::Queue,
    memory: &GuestMemoryMmap,
    mut header: [u8; HEADER_LEN],
    frame: &[u8],
    features: RingFeatures,
) -> Result<(), PushError> {
    let total = features.header_len() + frame.len();
    let all: Vec<_> = queue.iter(memory).unwrap().collect();
    queue.set_next_avail(queue.next_avail().wrapping_sub(all.len() as u16));
    if all.is_empty() {
        return Err(PushError::Full);
    }
    let room = |chain: &DescriptorChain<_>| -> usize {
        chain.clone().writable().map(|desc| desc.len() as usize).sum()
    };
    let mut taken = 0;
    let mut left = total;
    while left > 0 {
        if taken == 1 && !features.mergeable {
            return Err(PushError::TooLarge);
        }
        let Some(chain) = all.get(taken) else {
            return Err(if taken == 64 { PushError::TooLarge } else { PushError::Full });
        };
        left = left.saturating_sub(room(chain));
        taken += 1;
    }
    header[10..].copy_from_slice(&(taken as u16).to_le_bytes());
    let mut bytes = [&header[..features.header_len()], frame].concat();
    for chain in &all[..taken] {
        let mut written = 0;
        for desc in chain.clone().writable() {
            let n = bytes.len().min(desc.len() as usize);
            if n > 0 {
                memory.write_slice(&bytes[..n], desc.addr()).unwrap();
            }
            bytes.drain(..n);
            written += n as u32;
        }
        queue.add_used(memory, chain.head_index(), written).unwrap();
    }
    queue.set_next_avail(queue.next_avail().wrapping_add(taken as u16));
    Ok(())
}

/// Checks that only device-writable buffers and the used ring of a receive ring are written.
fn check_receive_bounds(ring: &Ring, frames: &[usize], buffers: RingFeatures) {
    let image = ring.image();
    let before = image.dump();
    let mut allowed = vec![false; before.len()];
    let mut allow = |addr: u64, len: u64| {
        (addr..addr.saturating_add(len.min(0x1_4000)))
            .filter(|at| Image::mapped(*at, 1))
            .for_each(|at| allowed[Image::dump_index(at)] = true);
    };
    allow(A + 0x2000, 6 + 8 * u64::from(ring.size));
    for desc in ring.table.iter().chain(&ring.tables) {
        if desc.flags & WRITE != 0 && desc.flags & INDIRECT == 0 {
            allow(desc.addr, u64::from(desc.len));
        }
    }
    // An odd table address shifts its descriptors, whose meaning is then arbitrary.
    if ring.table.iter().any(|desc| desc.flags & INDIRECT != 0 && desc.addr % 2 == 1) {
        return;
    }
    let features = RingFeatures { indirect: true, ..buffers };
    let mut device = RxQueue::new(image.setup(ring.next, features)).unwrap();
    for len in frames {
        let frame = vec![0xee; *len];
        device.expect(len % 4);
        let pushed =
            device.push(&[0xee; HEADER_LEN], &frame[..*len / 2], &[frame[*len / 2..].into()]);
        if let Err(PushError::Broken(error)) = pushed {
            assert_eq!(device.push(&[0; HEADER_LEN], &[][..], &[]), Err(PushError::Broken(error)));
        }
        device.publish();
    }
    for (i, (old, new)) in before.iter().zip(image.dump()).enumerate() {
        assert!(*old == new || allowed[i], "byte {i:#x} was written");
    }
}

/// Generates feature sets to receive with: mergeable buffers, or one per frame with either header.
fn buffers() -> impl Strategy<Value = RingFeatures> {
    (0..3u8).prop_map(|way| RingFeatures {
        mergeable: way == 1,
        short_header: way == 2,
        ..RingFeatures::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn transmit_sees_what_the_oracle_sees(
        ring in ring(0),
        max in 1..70usize,
        short_header: bool,
    ) {
        check_transmit(&ring, max, short_header);
    }

    // spec-test: virtio readable-not-written table-not-written
    #[test]
    fn receive_writes_only_where_it_may(
        ring in ring(WRITE),
        frames in prop::collection::vec(0..3000usize, 1..8),
        buffers in buffers(),
    ) {
        check_receive_bounds(&ring, &frames, buffers);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    // spec-test: virtio len-before-idx data-before-idx
    #[test]
    fn receive_writes_what_the_oracle_writes(
        sizes in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(1..400u32, 1..5).prop_map(|mut chain| {
                    chain[0] += 11;
                    chain
                }),
                (300..1600u32).prop_map(|len| vec![len]),
            ],
            0..12,
        ),
        frames in prop::collection::vec(
            prop::collection::vec(any::<u8>(), 0..1200), 1..8,
        ),
        buffers in buffers(),
        event in prop::option::of(0xffe0..=0xffffu16),
    ) {
        check_receive(&sizes, &frames, buffers, event);
    }

    /// Without EVENT_IDX the driver's flag decides, with it the index; both compared with the rule.
    // spec-test: virtio flag-event-ignored flag-no-call flag-call
    // spec-test: virtio event-flag-ignored event-call event-no-call in-order-batch
    #[test]
    fn calls_follow_the_flag_or_the_event_index(
        steps in prop::collection::vec((1..5u16, any::<bool>(), 0..12u16), 1..20),
        event_idx: bool,
        in_order: bool,
    ) {
        let image = Image::new(8);
        let memory = image.oracle_memory();
        let mut next = 0xfffau16;
        let mut oracle = image.oracle_queue(next, event_idx);
        let features = RingFeatures { event_idx, in_order, ..RingFeatures::default() };
        let mut device = TxQueue::new(image.setup(next, features)).unwrap();
        let mut burst = TxBurst::new();
        for i in 0..8 {
            image.set_desc(i, Desc { addr: C, len: 80, flags: 0, next: 0 });
        }
        for (step, (count, quiet, event)) in steps.into_iter().enumerate() {
            let event = next.wrapping_add(event).wrapping_sub(4);
            image.set_avail_flags(u16::from(quiet));
            image.set_used_event(event);
            memory.write_slice(&event.to_le_bytes(), vm_memory::GuestAddress(A + 0x1000 + 4 + 16))
                .unwrap();
            let heads: Vec<u16> = (0..count).map(|i| next.wrapping_add(i) % 8).collect();
            image.set_avail(next, &heads);
            prop_assert_eq!(device.fetch(&mut burst, 64), Ok(usize::from(count)));
            device.complete(&burst);
            let call = device.publish();
            heads.iter().for_each(|head| oracle.add_used(&memory, *head, 0).unwrap());
            let wanted = oracle.needs_notification(&memory).unwrap();
            let rule = if event_idx { step == 0 || wanted } else { !quiet };
            prop_assert_eq!(call, rule);
            prop_assert!(!device.publish(), "nothing new was published");
            if in_order {
                prop_assert_eq!(image.used(next), (u32::from(heads[heads.len() - 1]), 0));
            } else {
                for (i, head) in heads.iter().enumerate() {
                    prop_assert_eq!(image.used(next.wrapping_add(i as u16)), (u32::from(*head), 0));
                }
            }
            next = next.wrapping_add(count);
            prop_assert_eq!(image.used_idx(), next);
        }
    }
}

// spec-test: virtio kick-flag-values kick-flag-zero
#[test]
fn arming_is_what_the_oracle_arms() {
    for event_idx in [false, true] {
        let image = Image::new(8);
        let memory = image.oracle_memory();
        let mut oracle = image.oracle_queue(7, event_idx);
        let features = RingFeatures { event_idx, ..RingFeatures::default() };
        let mut device = TxQueue::new(image.setup(7, features)).unwrap();
        image.set_avail_idx(7);
        memory.write_obj(7u16, vm_memory::GuestAddress(A + 0x1002)).unwrap();

        device.disarm();
        oracle.disable_notification(&memory).unwrap();
        assert_eq!(image.used_flags(), u16::from(!event_idx));
        if event_idx {
            // Kicks are requested at an index that was passed already.
            assert_eq!(image.avail_event(), 6);
        }
        assert!(!device.arm());
        assert!(!oracle.enable_notification(&memory).unwrap());
        assert_eq!(image.dump(), Image::oracle_dump(&memory));

        device.disarm();
        image.set_avail(7, &[0]);
        assert!(device.arm(), "a chain came while disarmed");
    }
}
