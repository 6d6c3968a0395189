//! When to ask a gateway whether it is alive, and when to give it up.
//!
//! A gateway that is in use is asked every second, one that is idle every half minute, so that idle
//! networks hardly wake up. It is given up after three seconds without an answer. On a busy host a
//! healthy process may get no processor time for that long: one that wants to run and has got none
//! is given ten seconds.

use std::time::{Duration, Instant};

/// Time between an answer and the next question while the gateway is in use.
const BUSY: Duration = Duration::from_secs(1);
/// The same while it is idle.
const IDLE: Duration = Duration::from_secs(30);
/// How long the gateway counts as in use after the last sign of it.
const IN_USE: Duration = Duration::from_secs(60);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long it may take a process that gets no processor time.
const STARVED: Duration = Duration::from_secs(10);
/// How long a process may take to become ready.
const STARTUP: Duration = Duration::from_secs(30);
/// Time between two looks at a process that does not answer.
const LOOK: Duration = Duration::from_millis(500);

/// What a process does, as the kernel reports it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ProcessState {
    /// The state's letter (proc_pid_stat(5)), such as `R` or `T`.
    pub letter: char,
    /// Processor time that it has used, in clock ticks.
    pub ticks: u64,
}

impl ProcessState {
    /// Reads the state of a process's main thread; `None` if it has ended.
    pub(super) fn read(process: u32) -> Option<ProcessState> {
        let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        ProcessState::parse(&text)
    }

    fn parse(text: &str) -> Option<ProcessState> {
        // The name before it may have spaces and parentheses.
        let mut fields = text.rsplit_once(')')?.1.split_whitespace();
        let letter = fields.next()?.chars().next()?;
        let user: u64 = fields.nth(10)?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        Some(ProcessState { letter, ticks: user + system })
    }
}

/// What to do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Beat {
    /// Nothing until [`Heartbeat::deadline`].
    Rest,
    /// Send a question.
    Ask,
    /// The process hangs: it has not answered for this long.
    GiveUp(Duration),
}

/// The questions to one process.
#[derive(Debug)]
pub(super) struct Heartbeat {
    state: State,
    in_use_until: Instant,
}

#[derive(Debug)]
enum State {
    Starting { since: Instant },
    Resting { until: Instant },
    Waiting { since: Instant, ticks: Option<u64>, next_look: Instant },
}

impl State {
    fn waiting(now: Instant, state: Option<ProcessState>) -> State {
        let ticks = state.map(|state| state.ticks);
        State::Waiting { since: now, ticks, next_look: now + PATIENCE }
    }
}

impl Heartbeat {
    /// A process was started.
    pub(super) fn new(now: Instant) -> Heartbeat {
        Heartbeat { state: State::Starting { since: now }, in_use_until: now + IN_USE }
    }

    /// A process that ran before was asked whether it is there; `state` is what it does.
    pub(super) fn asked(now: Instant, state: Option<ProcessState>) -> Heartbeat {
        Heartbeat { state: State::waiting(now, state), in_use_until: now + IN_USE }
    }

    /// The process is ready, or has answered.
    pub(super) fn answered(&mut self, now: Instant) {
        let pause = if now < self.in_use_until { BUSY } else { IDLE };
        self.state = State::Resting { until: now + pause };
    }

    /// The process has moved frames, or was sent an order.
    pub(super) fn used(&mut self, now: Instant) {
        self.in_use_until = now + IN_USE;
        if let State::Resting { until } = &mut self.state {
            *until = (*until).min(now + BUSY);
        }
    }

    /// Decides what to do; `state` looks at the process.
    pub(super) fn beat(
        &mut self,
        now: Instant,
        state: impl FnOnce() -> Option<ProcessState>,
    ) -> Beat {
        match &mut self.state {
            State::Starting { since } if now - *since >= STARTUP => Beat::GiveUp(now - *since),
            State::Resting { until } if now >= *until => {
                self.state = State::waiting(now, state());
                Beat::Ask
            }
            State::Waiting { since, ticks, next_look } if now >= *next_look => {
                let late = now - *since;
                // The end of a process shows in its channel.
                let Some(state) = state() else { return Beat::Rest };
                let is_starved = state.letter == 'R' && *ticks == Some(state.ticks);
                if is_starved && late < STARVED {
                    *next_look = now + LOOK;
                    return Beat::Rest;
                }
                Beat::GiveUp(late)
            }
            _ => Beat::Rest,
        }
    }

    /// When [`Heartbeat::beat`] has to be called next.
    pub(super) fn deadline(&self) -> Instant {
        match self.state {
            State::Starting { since } => since + STARTUP,
            State::Resting { until } => until,
            State::Waiting { next_look, .. } => next_look,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn process(letter: char, ticks: u64) -> impl FnOnce() -> Option<ProcessState> {
        move || Some(ProcessState { letter, ticks })
    }

    /// A process that was ready at once and is asked a second later.
    fn asked() -> (Heartbeat, Instant) {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(start);
        heartbeat.answered(start);
        let now = start + BUSY;
        assert_eq!(heartbeat.deadline(), now);
        assert_eq!(heartbeat.beat(now, process('S', 5)), Beat::Ask);
        (heartbeat, now)
    }

    #[test]
    fn a_process_that_answers_is_asked_again_sooner_if_it_is_in_use() {
        let (mut heartbeat, mut now) = asked();
        heartbeat.answered(now);
        assert_eq!(heartbeat.deadline(), now + BUSY);
        now += IN_USE;
        assert_eq!(heartbeat.beat(now, process('S', 5)), Beat::Ask);
        heartbeat.answered(now);
        assert_eq!(heartbeat.deadline(), now + IDLE);
        assert_eq!(heartbeat.beat(now + BUSY, process('S', 5)), Beat::Rest);
        heartbeat.used(now + BUSY);
        assert_eq!(heartbeat.deadline(), now + 2 * BUSY, "an order brings the next question");
    }

    #[test]
    fn a_process_that_is_stopped_waits_or_spins_is_given_up_after_three_seconds() {
        for (letter, ticks) in [('T', 5), ('D', 5), ('S', 5), ('R', 300)] {
            let (mut heartbeat, now) = asked();
            assert_eq!(heartbeat.deadline(), now + PATIENCE);
            let before = now + PATIENCE - seconds(1);
            assert_eq!(heartbeat.beat(before, process(letter, ticks)), Beat::Rest);
            let end = heartbeat.beat(now + PATIENCE, process(letter, ticks));
            assert_eq!(end, Beat::GiveUp(PATIENCE), "{letter}");
        }
    }

    #[test]
    fn a_process_that_gets_no_processor_time_has_longer() {
        let (mut heartbeat, now) = asked();
        assert_eq!(heartbeat.beat(now + PATIENCE, process('R', 5)), Beat::Rest);
        assert_eq!(heartbeat.deadline(), now + PATIENCE + LOOK);
        assert_eq!(heartbeat.beat(now + seconds(9), process('R', 5)), Beat::Rest);
        let end = heartbeat.beat(now + STARVED, process('R', 5));
        assert_eq!(end, Beat::GiveUp(STARVED));
    }

    #[test]
    fn a_process_that_never_becomes_ready_is_given_up_and_one_that_ended_is_not() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(start);
        assert_eq!(heartbeat.deadline(), start + STARTUP);
        assert_eq!(heartbeat.beat(start + STARTUP, || None), Beat::GiveUp(STARTUP));
        let (mut heartbeat, now) = asked();
        assert_eq!(heartbeat.beat(now + PATIENCE, || None), Beat::Rest);
    }

    #[test]
    fn the_state_is_read_behind_any_name() {
        let text = "9 (trama:a) b) S 1 9 9 0 -1 4194560 9 0 0 0 31 11 0 0 20 0 2 0 100";
        assert_eq!(ProcessState::parse(text), Some(ProcessState { letter: 'S', ticks: 42 }));
        assert_eq!(ProcessState::parse("9 (x"), None);
        let own = ProcessState::read(std::process::id()).expect("this process runs");
        assert!(own.letter.is_ascii_uppercase());
    }
}
