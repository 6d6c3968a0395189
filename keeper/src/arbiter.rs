//! Which switch is *the* switch.
//!
//! At most two are attached: one that serves, and its successor while that one prepares.
//!
//! ```text
//!          attach                   attach by a successor              go
//!  none ──────────────▶ A serves ──────────────────────▶ A serves, ──────────▶ A is told to freeze
//!    ▲                   │    ▲                          B prepares              │
//!    └──── A detaches ───┘    └──────── B detaches ──────────┘                   │
//!                        B serves ◀──────────────── A detaches ──────────────────┘
//! ```
//!
//! A stand-in is followed by any switch that a user starts, a main switch only by one that is told
//! to take over. If the serving one detaches before its successor has asked to go, the successor
//! serves at once.

use crate::request::Claim;
use crate::store::Switch;

/// Why a switch cannot attach: another is there, with this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Busy(pub(crate) i32);

/// What follows from a request to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Go {
    /// The caller serves alone.
    IsGone,
    /// The previous switch must be told to freeze.
    Freeze(Switch),
}

#[derive(Clone, Copy, Debug)]
struct Attached {
    switch: Switch,
    claim: Claim,
    pid: i32,
}

#[derive(Debug, Default)]
pub(crate) struct Arbiter {
    serving: Option<Attached>,
    successor: Option<Attached>,
    /// How many have attached so far.
    count: u64,
}

impl Arbiter {
    /// Attaches a switch; returns its number.
    pub(crate) fn attach(&mut self, claim: Claim, pid: i32) -> Result<Switch, Busy> {
        let place = match (self.serving, self.successor) {
            (_, Some(other)) => return Err(Busy(other.pid)),
            (None, None) => &mut self.serving,
            (Some(serving), None) if follows(serving.claim, claim) => &mut self.successor,
            (Some(serving), None) => return Err(Busy(serving.pid)),
        };
        self.count += 1;
        *place = Some(Attached { switch: self.count, claim, pid });
        Ok(self.count)
    }

    /// The process of the switch that serves while `switch` prepares.
    pub(crate) fn previous(&self, switch: Switch) -> Option<i32> {
        self.serving.filter(|serving| serving.switch != switch).map(|serving| serving.pid)
    }

    /// Whether this switch serves.
    pub(crate) fn serves(&self, switch: Switch) -> bool {
        self.serving.is_some_and(|serving| serving.switch == switch)
    }

    /// Whether a switch is attached besides this one.
    pub(crate) fn has_other(&self, switch: Switch) -> bool {
        [self.serving, self.successor].iter().flatten().any(|other| other.switch != switch)
    }

    /// Whether no switch is attached.
    pub(crate) fn is_empty(&self) -> bool {
        self.serving.is_none() && self.successor.is_none()
    }

    /// The switch wants to serve alone.
    pub(crate) fn go(&self, switch: Switch) -> Go {
        match self.serving {
            Some(serving) if serving.switch != switch => Go::Freeze(serving.switch),
            _ => Go::IsGone,
        }
    }

    /// A switch is gone. Returns the one that serves from now on, if it is another one.
    pub(crate) fn detach(&mut self, switch: Switch) -> Option<Switch> {
        if self.successor.is_some_and(|successor| successor.switch == switch) {
            self.successor = None;
        }
        if !self.serves(switch) {
            return None;
        }
        self.serving = self.successor.take();
        self.serving.map(|serving| serving.switch)
    }
}

/// Whether a switch with the second claim may take over from one with the first.
fn follows(serving: Claim, claim: Claim) -> bool {
    match (serving, claim) {
        (_, Claim::TakeOver | Claim::Bridge) => true,
        (Claim::StandIn | Claim::Bridge, Claim::Main) => true,
        (_, Claim::StandIn) | (Claim::Main | Claim::TakeOver, Claim::Main) => false,
    }
}

#[cfg(test)]
mod tests {
    use Claim::{Bridge, Main, StandIn, TakeOver};

    use super::*;

    #[test]
    fn only_some_may_follow_others() {
        let all = [Main, StandIn, TakeOver, Bridge];
        let takes_over = all.iter().flat_map(|old| [(*old, TakeOver), (*old, Bridge)]);
        let allowed: Vec<_> = takes_over.chain([(StandIn, Main), (Bridge, Main)]).collect();
        for serving in all {
            for claim in all {
                let mut arbiter = Arbiter::default();
                assert_eq!(arbiter.attach(serving, 10), Ok(1));
                let attached = arbiter.attach(claim, 20);
                match allowed.contains(&(serving, claim)) {
                    true => assert_eq!(attached, Ok(2), "{claim:?} after {serving:?}"),
                    false => assert_eq!(attached, Err(Busy(10)), "{claim:?} after {serving:?}"),
                }
            }
        }
    }

    #[test]
    fn a_successor_serves_once_the_previous_one_is_gone() {
        let mut arbiter = Arbiter::default();
        let old = arbiter.attach(Main, 10).unwrap();
        assert_eq!((arbiter.go(old), arbiter.previous(old)), (Go::IsGone, None));
        let new = arbiter.attach(TakeOver, 20).unwrap();
        assert_eq!(arbiter.attach(TakeOver, 30), Err(Busy(20)), "one successor at a time");
        assert_eq!((arbiter.previous(new), arbiter.has_other(old)), (Some(10), true));
        assert_eq!(arbiter.go(new), Go::Freeze(old));
        assert!(arbiter.serves(old) && !arbiter.serves(new));
        assert_eq!(arbiter.detach(old), Some(new));
        assert!(arbiter.serves(new) && !arbiter.has_other(new));
        assert_eq!(arbiter.go(new), Go::IsGone);
        assert_eq!(arbiter.detach(new), None);
        assert!(arbiter.is_empty());
    }

    #[test]
    fn a_successor_that_dies_changes_nothing() {
        let mut arbiter = Arbiter::default();
        let old = arbiter.attach(StandIn, 10).unwrap();
        let new = arbiter.attach(Main, 20).unwrap();
        assert_eq!(arbiter.go(new), Go::Freeze(old));
        assert_eq!(arbiter.detach(new), None);
        assert!(arbiter.serves(old));
        assert_eq!(arbiter.attach(Main, 30), Ok(3), "the next one may try");
        assert_eq!(arbiter.detach(old), Some(3));
    }
}
