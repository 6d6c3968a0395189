//! Loops: what is suspected, when probes are sent, and which port is blocked.
//!
//! A loop outside the switch joins two of its ports, or ends where it begins: each flooded frame
//! then comes back and is flooded again. [`Loops`] decides by the time and the reports it is given;
//! the caller sends the probes and blocks the ports.
//!
//! ```text
//! moves of addresses, a storm ──▶ a round: 10 probes from each port of the network
//!                                   │ none comes back         │ one comes back
//!                                   ▼                         ▼
//!                   a pause that doubles, at most a warning   one port is blocked
//!                                                             │ 30 s
//!                                          ┌─────────────────▶▼
//!                       twice as long, to 1 h ◀── comes back ── a round
//!                                                               │ none comes back
//!                                                               ▼ open
//! ```
//!
//! A suspicion alone never blocks: bonds and failover make addresses move, and a busy network has
//! storms. Nothing is sent, and no time is waited for, while nothing is suspected and no port is
//! blocked. All ports of the network send probes, as a storm shows where frames come in and not
//! where they leave: a guest may forward in one direction only.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use trama_frame::VlanId;
use trama_switch::{NetworkId, PortId};

use crate::config::model::LoopMode;

/// Probes of a round.
const PROBES: u32 = 10;
/// Time between two of them.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long after the last one a round ends. A full TAP queue of 1000 frames is emptied in 40 ms at
/// the slowest rate at which a loop was seen.
const GRACE: Duration = Duration::from_millis(300);
/// How long a port is blocked at first.
const HOLD: Duration = Duration::from_secs(30);
/// For how long a proof may stand for a loop that was cut elsewhere since its probe was sent: a
/// probe comes back within this time.
const STALE: Duration = GRACE;
/// The longest time for which a port is blocked before probes are sent again.
const MAX_HOLD: Duration = Duration::from_secs(3600);
/// After this time without a loop or a suspicion, nothing is remembered of it.
const QUIET: Duration = Duration::from_secs(600);
/// How long a suspicion is ignored after a first round for it: short, as a busy receiver may have
/// lost all ten probes.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest time for which a suspicion is ignored.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Where a frame is flooded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Segment {
    pub(crate) network: NetworkId,
    pub(crate) vlan: VlanId,
}

/// Why probes are sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Cause {
    /// Addresses move between these ports many times a second.
    Moves([PortId; 2]),
    /// This port floods more than it may.
    Storm(PortId),
    /// This port has been blocked for its time.
    Blocked(PortId),
}

/// A probe that came back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Proof {
    /// The port at which it left.
    pub(crate) sent: PortId,
    /// The port at which it came in.
    pub(crate) received: PortId,
}

/// What must be known of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PortFacts {
    pub(crate) mode: LoopMode,
    /// Whether it leads to the host's LAN, which others share.
    pub(crate) is_uplink: bool,
}

/// What the caller must do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Send a probe from each port of the segment.
    Probe(Segment),
    /// Block a port.
    Block {
        /// The port.
        port: PortId,
        /// The reason.
        proof: Proof,
        /// For how long, before probes are sent again.
        hold: Duration,
    },
    /// Open a port, as no probe comes back any more.
    Open(PortId),
    /// Warn of moves of addresses without a loop.
    WarnOfMoves([PortId; 2]),
    /// Warn of a loop that must not be cut here.
    WarnOfLoop(Proof),
}

/// A port that is blocked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Block {
    /// The network in which it is blocked.
    pub(crate) segment: Segment,
    /// The reason.
    pub(crate) proof: Proof,
    /// How long it is blocked before probes are sent again, or up to half longer.
    pub(crate) hold: Duration,
    /// When that time is over; `None` while probes are out.
    until: Option<Duration>,
}

/// Probes that are being sent.
struct Round {
    causes: Vec<Cause>,
    /// When the next probe is due, or the end.
    next: Duration,
    left: u32,
    is_proved: bool,
    /// Pairs of blocked ports that are joined: only one of them may be opened.
    joined: Vec<Proof>,
}

/// A suspicion for which there was a round.
#[derive(Clone, Copy)]
struct Suspicion {
    /// Until when it is ignored.
    until: Duration,
    /// For how long it was ignored last.
    pause: Duration,
    /// When it was last raised.
    raised: Duration,
    is_warned: bool,
}

/// The state of loop detection. Times are since the daemon's start.
pub(crate) struct Loops {
    /// What is added to a time for which a port is blocked.
    jitter: fn(Duration) -> Duration,
    rounds: BTreeMap<Segment, Round>,
    suspicions: BTreeMap<(Segment, Cause), Suspicion>,
    blocks: BTreeMap<PortId, Block>,
    /// For how long ports were blocked that are open now, and when they were opened.
    past: BTreeMap<PortId, (Duration, Duration)>,
    /// Loops warned of, and when they were last seen.
    warned: BTreeMap<Proof, Duration>,
    /// Where and when a port was blocked last.
    last_cut: Option<(Segment, Duration)>,
}

/// Returns a random time, up to half of this one.
pub(crate) fn up_to_half(hold: Duration) -> Duration {
    let random = RandomState::new().hash_one(hold) % 1024;
    hold * random as u32 / 2048
}

impl Loops {
    /// Nothing is known yet. `jitter` gives what is added to a time for which a port is blocked.
    pub(crate) fn new(jitter: fn(Duration) -> Duration) -> Loops {
        Loops {
            jitter,
            rounds: BTreeMap::new(),
            suspicions: BTreeMap::new(),
            blocks: BTreeMap::new(),
            past: BTreeMap::new(),
            warned: BTreeMap::new(),
            last_cut: None,
        }
    }

    /// Takes a suspicion: starts a round unless there was one for it a short time ago.
    pub(crate) fn suspect(&mut self, segment: Segment, cause: Cause, now: Duration) {
        if let Some(suspicion) = self.suspicions.get_mut(&(segment, cause)) {
            let is_old = now.saturating_sub(suspicion.raised) >= QUIET;
            suspicion.raised = now;
            if is_old {
                self.suspicions.remove(&(segment, cause));
            } else if now < suspicion.until {
                return;
            }
        }
        self.start_round(segment, cause, now);
    }

    fn start_round(&mut self, segment: Segment, cause: Cause, now: Duration) {
        let new = || Round {
            causes: Vec::new(),
            next: now,
            left: PROBES,
            is_proved: false,
            joined: Vec::new(),
        };
        let round = self.rounds.entry(segment).or_insert_with(new);
        if !round.causes.contains(&cause) {
            round.causes.push(cause);
            round.left = PROBES;
        }
    }

    /// Takes a probe that came back. `facts` says what is known of a port, and `None` of one at
    /// which loops are not looked for.
    ///
    /// Of two ports the one at which the probe came in is blocked, but an uplink only if it is
    /// both. So a station that copies probes blocks the port behind which it is.
    pub(crate) fn prove(
        &mut self,
        segment: Segment,
        proof: Proof,
        facts: impl Fn(PortId) -> Option<PortFacts>,
        now: Duration,
    ) -> Option<Action> {
        let Proof { sent, received } = proof;
        if let Some(round) = self.rounds.get_mut(&segment) {
            round.is_proved = true;
        }
        if self.concerns_blocked(segment, proof, now) || self.may_be_cut(segment, now) {
            return None;
        }
        let (at_sent, at_received) = (facts(sent)?, facts(received)?);
        let is_behind_uplink = sent == received && at_received.is_uplink;
        let (port, mode) = match at_received.is_uplink {
            true => (sent, at_sent.mode),
            false => (received, at_received.mode),
        };
        match mode {
            LoopMode::Off => None,
            LoopMode::Block if !is_behind_uplink => {
                let hold = self.next_hold(port, now);
                let until = Some(now + hold + (self.jitter)(hold));
                self.last_cut = Some((segment, now));
                self.blocks.insert(port, Block { segment, proof, hold, until });
                Some(Action::Block { port, proof, hold })
            }
            LoopMode::Detect | LoopMode::Block => {
                let last = self.warned.insert(proof, now);
                let is_new = last.is_none_or(|last| now.saturating_sub(last) >= QUIET);
                is_new.then_some(Action::WarnOfLoop(proof))
            }
        }
    }

    /// Returns whether a loop is cut already as one of its ports is blocked. A port that was about
    /// to be opened stays blocked.
    fn concerns_blocked(&mut self, segment: Segment, proof: Proof, now: Duration) -> bool {
        let Proof { sent, received } = proof;
        let is_blocked = |port| self.blocks.contains_key(&port);
        let (at_sent, at_received) = (is_blocked(sent), is_blocked(received));
        let port = match (at_sent, at_received) {
            (false, false) => return false,
            (true, true) if sent != received => {
                if let Some(round) = self.rounds.get_mut(&segment)
                    && !round.joined.contains(&proof)
                {
                    round.joined.push(proof);
                }
                return true;
            }
            (true, _) => sent,
            (false, true) => received,
        };
        self.keep_blocked(port, now);
        true
    }

    /// Returns whether a loop may have been cut in another segment since its probe was sent.
    fn may_be_cut(&self, segment: Segment, now: Duration) -> bool {
        self.last_cut.is_some_and(|(cut, at)| cut != segment && now.saturating_sub(at) < STALE)
    }

    /// Blocks a port that was about to be opened for another time.
    fn keep_blocked(&mut self, port: PortId, now: Duration) {
        if let Some(block) = self.blocks.get_mut(&port)
            && block.until.is_none()
        {
            block.hold = (block.hold * 2).min(MAX_HOLD);
            block.until = Some(now + block.hold + (self.jitter)(block.hold));
        }
    }

    fn next_hold(&mut self, port: PortId, now: Duration) -> Duration {
        match self.past.remove(&port) {
            Some((hold, opened)) if now.saturating_sub(opened) < QUIET => (hold * 2).min(MAX_HOLD),
            _ => HOLD,
        }
    }

    /// Returns what is due by now.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<Action> {
        let mut held = Vec::new();
        for (port, block) in &mut self.blocks {
            if block.until.is_some_and(|until| until <= now) {
                block.until = None;
                held.push((block.segment, *port));
            }
        }
        for (segment, port) in held {
            self.start_round(segment, Cause::Blocked(port), now);
        }
        let mut actions = Vec::new();
        let due = |(segment, round): (&Segment, &Round)| (round.next <= now).then_some(*segment);
        for segment in self.rounds.iter().filter_map(due).collect::<Vec<_>>() {
            match self.rounds.get_mut(&segment) {
                Some(round) if round.left > 0 => {
                    round.left -= 1;
                    round.next = now + if round.left > 0 { INTERVAL } else { GRACE };
                    actions.push(Action::Probe(segment));
                }
                _ => self.end_round(segment, now, &mut actions),
            }
        }
        self.forget_old(now);
        actions
    }

    fn end_round(&mut self, segment: Segment, now: Duration, actions: &mut Vec<Action>) {
        let Some(round) = self.rounds.remove(&segment) else { return };
        let Round { causes, is_proved, joined, .. } = round;
        for cause in causes {
            if let Cause::Blocked(port) = cause {
                // A probe that came back has given it another time.
                if let Some(Block { hold, until: None, .. }) = self.blocks.get(&port) {
                    self.past.insert(port, (*hold, now));
                    self.blocks.remove(&port);
                    actions.push(Action::Open(port));
                    for Proof { sent, received } in &joined {
                        match port {
                            port if port == *sent => self.keep_blocked(*received, now),
                            port if port == *received => self.keep_blocked(*sent, now),
                            _ => {}
                        }
                    }
                }
                continue;
            }
            let known = self.suspicions.get(&(segment, cause)).copied();
            let pause = match known {
                Some(known) if !is_proved => (known.pause * 2).min(MAX_PAUSE),
                _ => PAUSE,
            };
            let was_warned = known.is_some_and(|known| known.is_warned);
            if let (Cause::Moves(ports), false, false) = (cause, is_proved, was_warned) {
                actions.push(Action::WarnOfMoves(ports));
            }
            let is_warned = was_warned || !is_proved;
            let after = Suspicion { until: now + pause, pause, raised: now, is_warned };
            self.suspicions.insert((segment, cause), after);
        }
    }

    fn forget_old(&mut self, now: Duration) {
        let is_recent = |at: Duration| now.saturating_sub(at) < QUIET;
        self.suspicions.retain(|_, suspicion| is_recent(suspicion.raised));
        self.past.retain(|_, (_, opened)| is_recent(*opened));
        self.warned.retain(|_, last| is_recent(*last));
    }

    /// Returns when [`Loops::due`] must be called again, if at all.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let rounds = self.rounds.values().map(|round| round.next);
        rounds.chain(self.blocks.values().filter_map(|block| block.until)).min()
    }

    /// Returns whether a port is blocked.
    pub(crate) fn has_blocks(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// Returns why a port is blocked, if it is.
    pub(crate) fn block(&self, port: PortId) -> Option<&Block> {
        self.blocks.get(&port)
    }

    /// Forgets the blocked ports that `stays` does not name; returns them.
    pub(crate) fn release(&mut self, stays: impl Fn(PortId, &Block) -> bool) -> Vec<PortId> {
        let leaves = |(port, block): (&PortId, &Block)| (!stays(*port, block)).then_some(*port);
        let released: Vec<PortId> = self.blocks.iter().filter_map(leaves).collect();
        for port in &released {
            self.blocks.remove(port);
        }
        released
    }
}

#[cfg(test)]
mod tests;
