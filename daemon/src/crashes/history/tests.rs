use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn names(ports: &[&str]) -> Vec<String> {
    ports.iter().map(|port| (*port).to_owned()).collect()
}

/// Counts a crash; returns the port that is left out and for how many seconds.
fn crash(history: &mut History, ports: &[&str], seconds: u64) -> Option<(String, u64)> {
    match history.crashed(names(ports), at(seconds), MINUTE) {
        Verdict::LeaveOut { port, time } => Some((port, time.as_secs())),
        Verdict::GoOn => None,
        Verdict::StartCold => panic!("there is a suspect"),
    }
}

#[test]
fn the_second_crash_within_a_minute_leaves_a_port_out_and_the_time_doubles() {
    let mut history = History::default();
    assert_eq!(crash(&mut history, &["a"], 0), None);
    assert_eq!(crash(&mut history, &["b"], 10), None, "another port");
    assert_eq!(crash(&mut history, &["a"], 60), None, "a minute later");
    let mut now = 200;
    for time in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
        assert_eq!(crash(&mut history, &["a"], now), None);
        assert_eq!(crash(&mut history, &["a"], now + 1), Some(("a".into(), time)));
        history.explain("a", "why".into());
        assert_eq!(history.reason("a", at(now + 1)), Some("why"));
        now += 1 + time;
        assert_eq!(history.reason("a", at(now)), None, "it is tried again");
    }
    now += 3600;
    crash(&mut history, &["a"], now);
    assert_eq!(crash(&mut history, &["a"], now), Some(("a".into(), 60)), "it was well for an hour");
}

#[test]
fn of_a_sender_and_a_receiver_the_one_is_left_out_that_was_there_more_often() {
    let mut history = History::default();
    crash(&mut history, &["a", "bad"], 0);
    assert_eq!(crash(&mut history, &["b", "bad"], 1), Some(("bad".into(), 60)));
    let mut history = History::default();
    crash(&mut history, &["bad", "a"], 0);
    assert_eq!(crash(&mut history, &["bad", "b"], 1), Some(("bad".into(), 60)));
    let mut history = History::default();
    crash(&mut history, &["a", "b"], 0);
    assert_eq!(crash(&mut history, &["a", "b"], 1), Some(("a".into(), 60)), "the sender first");
    assert_eq!(crash(&mut history, &["c", "b"], 2), Some(("b".into(), 60)), "then the receiver");
}

#[test]
fn three_crashes_without_a_suspect_start_cold_once() {
    let mut history = History::default();
    let mut verdicts = Vec::new();
    for second in [0, 59, 61, 62, 63, 64, 65] {
        verdicts.push(history.crashed(Vec::new(), at(second), MINUTE) == Verdict::StartCold);
    }
    assert_eq!(verdicts, [false, false, false, true, false, false, true]);
}

#[test]
fn what_a_user_makes_anew_is_not_held_against_it() {
    let mut history = History::default();
    assert!(!history.forget("a"));
    crash(&mut history, &["a"], 0);
    assert!(history.forget("a"));
    assert_eq!(crash(&mut history, &["a"], 1), None);
    assert!(crash(&mut history, &["a"], 2).is_some() && history.forget("a"));
    assert_eq!(history.reason("a", at(3)), None);
    crash(&mut history, &["a"], 3);
    assert_eq!(crash(&mut history, &["a"], 4), Some(("a".into(), 60)), "from the beginning");
}

#[test]
fn what_is_remembered_has_a_limit() {
    let mut history = History::default();
    for number in 0..3 * MOST as u64 {
        let port = format!("{number:064}");
        crash(&mut history, &[&port], number);
        crash(&mut history, &[&port], number);
        history.explain(&port, "x".repeat(250));
    }
    assert_eq!(history.left_out.len(), MOST);
    for number in 0..3 * MOST {
        let (one, other) = (format!("{number:064}"), format!("{number:063}x"));
        crash(&mut history, &[&one, &other], 1000);
    }
    assert_eq!(history.crashes.len(), MOST);
    let size = serde_json::to_vec(&history).unwrap().len();
    assert!(size < trama_keeper::LONGEST_VALUE, "{size} bytes");
}

#[derive(Clone, Debug)]
enum Event {
    Crash(Vec<String>),
    Forget(String),
    /// Seconds that pass.
    Pass(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let port = || "[abc]";
    let event = prop_oneof![
        6 => prop::collection::btree_set(port(), 0..3)
            .prop_map(|ports| Event::Crash(ports.into_iter().collect())),
        1 => port().prop_map(Event::Forget),
        3 => (0..100_u64).prop_map(Event::Pass),
        1 => (0..10_000_u64).prop_map(Event::Pass),
    ];
    prop::collection::vec(event, 1..60)
}

/// The slow model: all that has ever happened, from which each answer is found anew.
#[derive(Default)]
struct Model {
    /// All crashes: when, and the suspects.
    crashes: Vec<(u64, Vec<String>)>,
    /// Where in that list each port begins again, and crashes without a suspect.
    begins: BTreeMap<String, usize>,
    unexplained_begin: usize,
    /// Each time that a port was left out: from when to when.
    left_out: Vec<(String, u64, u64)>,
}

impl Model {
    fn count(&self, port: &str, now: u64) -> usize {
        let begin = self.begins.get(port).copied().unwrap_or(0);
        let recent = self.crashes[begin..].iter().filter(|(at, _)| now < at + 60);
        recent.filter(|(_, ports)| ports.iter().any(|other| other == port)).count()
    }

    fn crashed(&mut self, suspects: &[String], now: u64) -> Verdict {
        self.crashes.push((now, suspects.to_vec()));
        if suspects.is_empty() {
            let recent = self.crashes[self.unexplained_begin..].iter();
            let recent = recent.filter(|(at, ports)| now < at + 60 && ports.is_empty());
            if recent.count() < 3 {
                return Verdict::GoOn;
            }
            self.unexplained_begin = self.crashes.len();
            // A cold start is a new beginning for all.
            for port in ["a", "b", "c"] {
                self.begins.insert(port.to_owned(), self.crashes.len());
            }
            return Verdict::StartCold;
        }
        // Those left out before are well again an hour after they were tried again.
        self.left_out.retain({
            let latest: BTreeMap<String, u64> =
                self.left_out.iter().map(|(port, _, until)| (port.clone(), *until)).collect();
            move |(port, ..)| now < latest[port] + 3600
        });
        let mut worst: Option<&String> = None;
        for port in suspects {
            if worst.is_none_or(|other| self.count(port, now) > self.count(other, now)) {
                worst = Some(port);
            }
        }
        let Some(port) = worst.filter(|port| self.count(port, now) >= 2) else {
            return Verdict::GoOn;
        };
        let before = self.left_out.iter().filter(|(other, ..)| other == port).count();
        let mut time = 60;
        (0..before).for_each(|_| time = (2 * time).min(3600));
        self.left_out.push((port.clone(), now, now + time));
        self.begins.insert(port.clone(), self.crashes.len());
        Verdict::LeaveOut { port: port.clone(), time: at(time) }
    }

    fn is_left_out(&self, port: &str, now: u64) -> bool {
        let last = self.left_out.iter().rfind(|(other, ..)| other == port);
        last.is_some_and(|(_, _, until)| now < *until)
    }
}

proptest! {
    #[test]
    fn it_counts_as_a_list_of_all_crashes_would(events in events()) {
        let (mut history, mut model, mut now) = (History::default(), Model::default(), 1000);
        for event in events {
            match event {
                Event::Pass(seconds) => now += seconds,
                Event::Crash(ports) => {
                    let verdict = history.crashed(ports.clone(), at(now), MINUTE);
                    prop_assert_eq!(verdict, model.crashed(&ports, now));
                }
                Event::Forget(port) => {
                    history.forget(&port);
                    model.begins.insert(port.clone(), model.crashes.len());
                    model.left_out.retain(|(other, ..)| *other != port);
                }
            }
            for port in ["a", "b", "c"] {
                let is_left_out = history.reason(port, at(now)).is_some();
                prop_assert_eq!(is_left_out, model.is_left_out(port, now), "{} at {}", port, now);
            }
            let value = serde_json::to_vec(&history).unwrap();
            prop_assert_eq!(&serde_json::from_slice::<History>(&value).unwrap(), &history);
        }
    }
}
