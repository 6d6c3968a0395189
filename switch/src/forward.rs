//! The second pass of a burst: decides the fate of each frame.
//!
//! Only private bytes decide: the frame's header and its first bytes, which are also what is
//! delivered. A sender that rewrites its buffers meanwhile changes only its own payload. The order:
//! chain intact, Ethernet header whole, size, virtio-net header consistent, VLAN allowed, address
//! not reserved, source not forged. Then the source is learned, if it is a unicast address and
//! belongs to no other port, and the destination looked up. The result is a [`Plan`]: sets of
//! frames (one bit each) by egress port.

use trama_frame::ethernet::{self, Ethernet};
use trama_frame::vnet::{self, LEN as HEADER, VnetHeader};
use trama_frame::{MacAddr, Offloads, VlanId, VlanTag};
use trama_virtqueue::{HEADER_LEN, MAX_BURST, RingError, Segment, TxBurst};

use crate::addresses::Addresses;
use crate::counters::PortCounters;
use crate::drop_reason::DropReason;
use crate::mac_table::{Address, Learned, PortIndex};
use crate::news::News;
use crate::sources::Sources;
use crate::storm::{FloodKind, StormControl, StormLimits};
use crate::time::Time;
use crate::vlan::VlanMode;

mod tunnels;

/// Longest frame carried: the largest IP packet behind a header with all its tags.
pub(crate) const MAX_FRAME: usize =
    65_535 + ethernet::MIN_HEADER + ethernet::MAX_TAGS * ethernet::TAG_LEN;

/// How many runs ahead the second lines of a large MAC table are prefetched.
const PREFETCH_DISTANCE: usize = 8;

/// A burst of frames to be switched, from any kind of device.
pub(crate) trait Source {
    /// Returns the number of frames.
    fn len(&self) -> usize;
    /// Returns the virtio-net header of frame `i`.
    fn header(&self, i: usize) -> [u8; HEADER];
    /// Returns its first bytes, private: at least 64, at least [`vnet::PRIVATE_HEAD`] if its header
    /// is not plain, the whole frame if it is shorter; never more than [`vnet::PRIVATE_HEAD`].
    fn head(&self, i: usize) -> &[u8];
    /// Returns its length without the header.
    fn frame_len(&self, i: usize) -> usize;
    /// Calls `f` with its head and the segments after it.
    fn with_frame<R>(&self, i: usize, f: impl FnOnce(&[u8], &[Segment<'_>]) -> R) -> R;
    /// Returns the error of an entry that is not a frame.
    fn error(&self, i: usize) -> Option<RingError>;
}

// The ring copies what `frame` needs for its checks, and both mean the same header.
const _: () = assert!(TxBurst::MAX_HEAD == vnet::PRIVATE_HEAD && HEADER_LEN == vnet::LEN);

impl Source for TxBurst {
    #[inline]
    fn len(&self) -> usize {
        self.len()
    }

    #[inline]
    fn header(&self, i: usize) -> [u8; HEADER] {
        *self.header(i)
    }

    #[inline]
    fn head(&self, i: usize) -> &[u8] {
        self.head(i)
    }

    #[inline]
    fn frame_len(&self, i: usize) -> usize {
        self.frame_len(i)
    }

    #[inline]
    fn with_frame<R>(&self, i: usize, f: impl FnOnce(&[u8], &[Segment<'_>]) -> R) -> R {
        f(self.head(i), self.body(i))
    }

    #[inline]
    fn error(&self, i: usize) -> Option<RingError> {
        self.error(i)
    }
}

/// A set of frames of one burst: bit i is frame i.
pub(crate) type FrameSet = u64;
const _: () = assert!(MAX_BURST <= FrameSet::BITS as usize);

/// Returns the set of all frames of a burst.
pub(crate) fn all_frames<S: Source>(source: &S) -> FrameSet {
    FrameSet::MAX.checked_shr((MAX_BURST - source.len()) as u32).unwrap_or(0)
}

/// Iterates over a set in ascending order, which is the order of arrival.
#[inline]
pub(crate) fn members(mut set: FrameSet) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if set == 0 {
            return None;
        }
        let i = set.trailing_zeros() as usize;
        set &= set - 1;
        Some(i)
    })
}

/// What delivery must know of a frame besides its bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct FrameMeta {
    /// Its virtio-net header, validated.
    pub header: VnetHeader,
    /// Offloads that its receiver must take to get it unchanged.
    pub needs: Offloads,
    pub vlan: VlanId,
    /// Its outermost tag.
    pub tag: Option<VlanTag>,
}

/// Adjacent frames of a burst with the same VLAN, source and destination: learned once and looked
/// up once.
#[derive(Clone, Copy, Default)]
struct Run {
    frames: FrameSet,
    source: Address,
    destination: Address,
}

/// The fate of the frames of a burst.
pub(crate) struct Plan {
    pub meta: [FrameMeta; MAX_BURST],
    runs: [Run; MAX_BURST],
    /// Number of used entries in `runs`.
    run_count: usize,
    unicast: [(PortIndex, FrameSet); MAX_BURST],
    ports: usize,
    /// Frames for every member of their VLAN.
    pub flood: FrameSet,
    /// The subset of `flood` for unknown unicast destinations.
    pub unknown: FrameSet,
    /// Frames with a tag.
    pub tagged: FrameSet,
    /// The port that the burst came from.
    pub ingress: PortIndex,
    tally: Tally,
    /// What was dropped of the burst at its ingress port, until it is settled.
    pub reasons: Reasons,
    /// What control is told of it.
    pub news: News,
    /// When the visit of its network began.
    pub now: Time,
}

/// Why frames of a burst were dropped.
#[derive(Clone, Copy)]
pub(crate) struct Reasons {
    dropped: FrameSet,
    /// Meaningful for the dropped ones alone.
    of: [DropReason; MAX_BURST],
}

impl Reasons {
    /// None was dropped.
    pub(crate) const NONE: Reasons =
        Reasons { dropped: 0, of: [DropReason::NotAttached; MAX_BURST] };

    /// Adds frames that were dropped.
    pub(crate) fn add(&mut self, frames: FrameSet, reason: DropReason) {
        self.dropped |= frames;
        members(frames).for_each(|i| self.of[i] = reason);
    }

    /// Returns why frame `i` was dropped, if it was.
    #[inline(always)]
    pub(crate) fn get(&self, i: usize) -> Option<DropReason> {
        (self.dropped & 1 << i != 0).then(|| self.of[i])
    }

    /// Returns the frames that were dropped.
    pub(crate) fn dropped(&self) -> FrameSet {
        self.dropped
    }
}

impl Plan {
    pub(crate) fn new() -> Plan {
        Plan {
            meta: [FrameMeta::default(); MAX_BURST],
            runs: [Run::default(); MAX_BURST],
            run_count: 0,
            unicast: [(PortIndex(0), 0); MAX_BURST],
            ports: 0,
            flood: 0,
            unknown: 0,
            tagged: 0,
            ingress: PortIndex(0),
            tally: Tally::default(),
            reasons: Reasons::NONE,
            news: News::new(),
            now: Time::ZERO,
        }
    }

    /// Returns the runs with their VLANs: all frames of the burst, and some that were dropped.
    #[inline]
    pub(crate) fn runs(&self) -> impl Iterator<Item = (FrameSet, VlanId)> {
        let vlan = |run: &Run| self.meta[run.frames.trailing_zeros() as usize].vlan;
        self.runs[..self.run_count].iter().map(move |run| (run.frames, vlan(run)))
    }

    /// Returns the ports with unicast frames, and these frames.
    pub(crate) fn unicast(&self) -> &[(PortIndex, FrameSet)] {
        &self.unicast[..self.ports]
    }

    /// Returns the unicast frames for `port`.
    pub(crate) fn unicast_of(&self, port: PortIndex) -> FrameSet {
        self.unicast().iter().find(|(other, _)| *other == port).map_or(0, |(_, frames)| *frames)
    }

    /// Returns all frames for one port each.
    pub(crate) fn known(&self) -> FrameSet {
        self.unicast().iter().fold(0, |all, (_, frames)| all | frames)
    }

    /// Adds frames for `port`. Bursts mostly go to one port, or alternate between few.
    #[inline]
    fn add(&mut self, port: PortIndex, more: FrameSet) {
        for (other, frames) in &mut self.unicast[..self.ports] {
            if *other == port {
                *frames |= more;
                return;
            }
        }
        self.unicast[self.ports] = (port, more);
        self.ports += 1;
    }

    /// Counts frames that are dropped at the ingress port, which has these counters.
    #[cold]
    #[inline(never)]
    pub(crate) fn count_dropped(
        &mut self,
        frames: FrameSet,
        reason: DropReason,
        counters: &PortCounters,
    ) {
        counters.drop(reason, u64::from(frames.count_ones()));
        self.reasons.add(frames, reason);
    }

    /// Notes for control what was dropped of the burst, and forgets it.
    #[cold]
    #[inline(never)]
    pub(crate) fn settle_drops<S: Source>(&mut self, source: &S, counters: &PortCounters) {
        let reasons = std::mem::replace(&mut self.reasons, Reasons::NONE);
        for i in members(reasons.dropped()) {
            self.note_dropped(source, 1 << i, reasons.of[i], counters);
        }
    }

    /// Notes for control that frames were dropped.
    pub(crate) fn note_dropped<S: Source>(
        &self,
        source: &S,
        frames: FrameSet,
        reason: DropReason,
        counters: &PortCounters,
    ) {
        // The newest of them.
        let Some(i) = frames.checked_ilog2().map(|i| i as usize) else { return };
        self.news.note(reason, counters, self.now, || match source.error(i) {
            Some(_) => (&[], 0),
            None => (source.head(i), source.frame_len(i)),
        });
    }

    /// Drops frames that were counted as good.
    #[cold]
    fn drop_counted<S: Source>(
        &mut self,
        source: &S,
        frames: FrameSet,
        reason: DropReason,
        counters: &PortCounters,
    ) {
        self.tally.remove(source, &self.meta, frames);
        self.count_dropped(frames, reason, counters);
    }

    /// Drops frames whose source could not be learned. Out of line, so that this costs others no
    /// registers.
    #[cold]
    #[inline(never)]
    fn drop_refused<S: Source>(
        &mut self,
        source: &S,
        frames: FrameSet,
        learned: Learned,
        counters: &PortCounters,
    ) {
        let reason = match learned {
            Learned::Foreign => DropReason::OwnAddress,
            _ => DropReason::SourceInvalid,
        };
        self.drop_counted(source, frames, reason, counters);
    }

    /// Drops the flooded frames for a group address that `takes` accepts by their heads. Returns
    /// the VLAN of one of them.
    pub(crate) fn take_flooded<S: Source>(
        &mut self,
        source: &S,
        group: MacAddr,
        counters: &PortCounters,
        mut takes: impl FnMut(&[u8]) -> bool,
    ) -> Option<VlanId> {
        let runs = self.runs[..self.run_count].iter();
        let is_for = |run: &&Run| run.destination.mac() == group;
        let all = runs.filter(is_for).fold(0, |all, run| all | run.frames) & self.flood;
        let accepted = members(all).filter(|i| takes(source.head(*i)));
        let taken = accepted.fold(0, |taken, i| taken | 1 << i);
        if taken == 0 {
            return None;
        }
        self.flood &= !taken;
        self.drop_counted(source, taken, DropReason::Loop, counters);
        Some(self.meta[taken.trailing_zeros() as usize].vlan)
    }

    /// Makes it the plan of a burst of one untagged frame of this VLAN.
    pub(crate) fn set_single(&mut self, vlan: VlanId) {
        self.meta[0] = FrameMeta { vlan, ..FrameMeta::default() };
        self.runs[0] = Run { frames: 1, ..Run::default() };
        (self.run_count, self.ports, self.tagged) = (1, 0, 0);
    }

    /// Drops flooded frames beyond the port's limits. Returns whether a storm begins with them.
    pub(crate) fn limit_flood<S: Source>(
        &mut self,
        source: &S,
        limits: &StormLimits,
        storm: &mut StormControl,
        counters: &PortCounters,
        now: Time,
    ) -> bool {
        let (mut lost, mut begins) = (0, false);
        for i in members(self.flood) {
            let kind = match () {
                () if self.unknown & 1 << i != 0 => FloodKind::Unknown,
                () if source.head(i).starts_with(&MacAddr::BROADCAST.0) => FloodKind::Broadcast,
                () => FloodKind::Multicast,
            };
            if !storm.admits(kind, limits, now) {
                begins |= storm.record(kind, self.meta[i].vlan, now);
                lost |= 1 << i;
            }
        }
        if lost != 0 {
            self.flood &= !lost;
            self.unknown &= !lost;
            self.drop_counted(source, lost, DropReason::Storm, counters);
        }
        begins
    }

    /// Drops the runs with sources other than `only`; returns how many are left. A pass of its own,
    /// so that it costs nothing where any source is allowed.
    #[cold]
    fn drop_forged<S: Source>(
        &mut self,
        source: &S,
        only: MacAddr,
        runs: usize,
        counters: &PortCounters,
    ) -> usize {
        let mut kept = 0;
        for place in 0..runs {
            let run = self.runs[place];
            let vlan = self.meta[run.frames.trailing_zeros() as usize].vlan;
            if run.source.is(vlan, only) {
                self.runs[kept] = run;
                kept += 1;
            } else {
                self.drop_counted(source, run.frames, DropReason::SourceForged, counters);
            }
        }
        kept
    }

    /// Counts the burst at its ingress port. Frames of the flood that are not in `reached` went
    /// nowhere; `withheld` are those whose VLAN another port carries.
    pub(crate) fn count<S: Source>(
        &mut self,
        source: &S,
        reached: FrameSet,
        withheld: FrameSet,
        counters: &PortCounters,
    ) {
        let lost = self.flood & !reached;
        let mut tally = self.tally;
        if lost != 0 {
            tally.remove(source, &self.meta, lost);
            self.count_dropped(lost & !withheld, DropReason::NoMember, counters);
            self.count_dropped(lost & withheld, DropReason::UnknownUnicast, counters);
        }
        counters.rx_frames.add(tally.frames);
        counters.rx_bytes.add(tally.bytes);
        if tally.large != 0 {
            counters.rx_gso_frames.add(tally.large);
        }
        let flooded = self.flood & !lost;
        if flooded != 0 {
            counters.flooded_frames.add(u64::from(flooded.count_ones()));
        }
    }
}

/// The ingress of a burst.
pub(crate) struct Ingress<'a> {
    pub port: PortIndex,
    pub vlan: &'a VlanMode,
    pub mtu: u16,
    /// The only source address allowed, if any.
    pub only_source: Option<MacAddr>,
    /// The source addresses seen, where they matter.
    pub sources: Option<&'a mut Sources>,
    pub counters: &'a PortCounters,
}

/// Totals of a burst for its port's counters.
#[derive(Clone, Copy, Default)]
struct Tally {
    frames: u64,
    bytes: u64,
    large: u64,
}

impl Tally {
    /// Removes frames that went nowhere.
    #[cold]
    fn remove<S: Source>(&mut self, source: &S, meta: &[FrameMeta; MAX_BURST], lost: FrameSet) {
        for i in members(lost) {
            self.frames -= 1;
            self.bytes -= source.frame_len(i) as u64;
            self.large -= u64::from(meta[i].header.is_gso());
        }
    }
}

/// Judges a burst, learns its sources, looks up its destinations. Counts drops; [`Plan::count`]
/// counts the rest.
pub(crate) fn classify<S: Source, A: Addresses>(
    source: &S,
    ingress: &mut Ingress<'_>,
    table: &mut A,
    plan: &mut Plan,
    now: Time,
) {
    plan.ports = 0;
    plan.flood = 0;
    plan.unknown = 0;
    let mut runs = check_frames(source, ingress, table, plan);
    if let Some(mac) = ingress.only_source {
        runs = plan.drop_forged(source, mac, runs, ingress.counters);
    }
    plan.run_count = runs;
    let is_large = table.is_large();
    for place in 0..runs {
        if is_large && place + PREFETCH_DISTANCE < runs {
            let Run { source, destination, .. } = plan.runs[place + PREFETCH_DISTANCE];
            table.prefetch_second(source);
            table.prefetch_second(destination);
        }
        let Run { frames, source: from, destination } = plan.runs[place];
        match table.learn_at(from, ingress.port, now) {
            Learned::Known => {}
            refused @ (Learned::Ignored | Learned::Foreign) => {
                plan.drop_refused(source, frames, refused, ingress.counters);
                continue;
            }
            _ => {
                if let Some(sources) = &mut ingress.sources {
                    table.record(sources, from.mac(), now);
                }
            }
        }
        match route(table, destination, now) {
            Route::Group => plan.flood |= frames,
            Route::Unknown => {
                plan.flood |= frames;
                plan.unknown |= frames;
            }
            Route::Port(port) if port == ingress.port => {
                plan.drop_counted(source, frames, DropReason::Hairpin, ingress.counters);
            }
            Route::Port(port) => plan.add(port, frames),
        }
    }
}

/// Judges each frame by itself and counts the good ones; returns the number of runs. Prefetches the
/// lines of the table here, so that no look-up waits for its own.
fn check_frames<S: Source, A: Addresses>(
    source: &S,
    ingress: &Ingress<'_>,
    table: &A,
    plan: &mut Plan,
) -> usize {
    let mut tally = Tally::default();
    let mut runs = 0;
    let mut tagged = 0;
    let (mut from, mut to) = (Address::default(), Address::default());
    for i in 0..source.len().min(MAX_BURST) {
        let meta = &mut plan.meta[i];
        let ethernet = match check_frame(source, i, ingress, meta) {
            Ok(ethernet) => ethernet,
            Err(reason) => {
                plan.count_dropped(1 << i, reason, ingress.counters);
                continue;
            }
        };
        tally.frames += 1;
        tally.bytes += source.frame_len(i) as u64;
        tally.large += u64::from(meta.header.is_gso());
        if ethernet.tag.is_some() {
            tagged |= 1 << i;
        }
        let same_source = from.is(meta.vlan, ethernet.src);
        let same_destination = to.is(meta.vlan, ethernet.dst);
        if !same_source || !same_destination {
            if !same_source {
                from = table.address(meta.vlan, ethernet.src);
            }
            if !same_destination {
                to = table.address(meta.vlan, ethernet.dst);
            }
            plan.runs[runs] = Run { frames: 0, source: from, destination: to };
            runs += 1;
        }
        plan.runs[runs - 1].frames |= 1 << i;
    }
    plan.tally = tally;
    plan.tagged = tagged;
    runs
}

/// Checks everything about a frame that does not depend on learned addresses.
#[inline]
fn check_frame<S: Source>(
    source: &S,
    i: usize,
    ingress: &Ingress<'_>,
    meta: &mut FrameMeta,
) -> Result<Ethernet, DropReason> {
    if source.error(i).is_some() {
        return Err(DropReason::ChainMalformed);
    }
    let head = source.head(i);
    let len = source.frame_len(i);
    let ethernet = ethernet::parse(head).ok_or(DropReason::Runt)?;
    if len > MAX_FRAME {
        return Err(DropReason::Giant);
    }
    meta.header = VnetHeader::from_bytes(&source.header(i));
    meta.needs =
        vnet::validate(&mut meta.header, head, len).map_err(|_| DropReason::HeaderMalformed)?;
    let largest = if meta.header.is_gso() {
        usize::from(meta.header.hdr_len) + usize::from(meta.header.gso_size)
    } else {
        len
    };
    let mtu = usize::from(ingress.mtu);
    if largest > ethernet.header_len() + mtu && is_too_large(head, largest, mtu) {
        return Err(DropReason::MtuExceeded);
    }
    meta.vlan = ingress.vlan.ingress(ethernet.tag)?;
    meta.tag = ethernet.tag;
    if ethernet.dst.is_reserved_group() {
        return Err(DropReason::ReservedMulticast);
    }
    Ok(ethernet)
}

/// Returns whether a frame of `len` bytes carries a packet larger than the MTU. Tags do not count:
/// stacked VLAN devices each keep the MTU of the one below.
#[cold]
fn is_too_large(head: &[u8], len: usize, mtu: usize) -> bool {
    ethernet::behind_tags(head).is_none_or(|(start, _)| len > start + mtu)
}

/// Destination of a frame.
#[derive(Clone, Copy)]
enum Route {
    Port(PortIndex),
    Group,
    /// Unknown unicast.
    Unknown,
}

fn route<A: Addresses>(table: &A, destination: Address, now: Time) -> Route {
    if destination.is_group() {
        return Route::Group;
    }
    table.lookup_at(destination, now).map_or(Route::Unknown, Route::Port)
}
