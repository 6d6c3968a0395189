//! A line of text for each event.

use super::{Event, Facts, Kind};

/// Milliseconds of a day.
const DAY: u64 = 86_400_000;

/// The line of an event, in the parts that may be coloured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The time of the day in UTC, and the place: network, port, or both.
    pub head: String,
    /// The type.
    pub kind: &'static str,
    /// What happened.
    pub what: String,
}

/// Returns the line of an event.
pub fn line(event: &Event) -> Line {
    let millis = event.time.0 % DAY;
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let (seconds, millis) = (millis / 1000 % 60, millis % 1000);
    let facts = &event.facts;
    let place = match (&facts.network, &facts.port) {
        (Some(network), Some(port)) => format!("{network}/{port}"),
        (Some(one), None) | (None, Some(one)) => one.to_string(),
        (None, None) => "-".to_owned(),
    };
    Line {
        head: format!("{hours:02}:{minutes:02}:{seconds:02}.{millis:03} {place:<8}"),
        kind: event.kind.name(),
        what: what(event.kind, facts),
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:<6} {}", self.head, self.kind, self.what)
    }
}

fn what(kind: Kind, facts: &Facts) -> String {
    let text = |field: &Option<_>| field.clone().unwrap_or_default();
    let (verdict, reason, detail) =
        (text(&facts.verdict), text(&facts.reason), text(&facts.detail));
    match kind {
        Kind::Flow => format!("{}{} {verdict}{}", ends(facts), named(facts), outcome(facts)),
        Kind::Drop => format!("{reason}{}{}", times(facts), after(": ", &detail)),
        Kind::Policy => format!("{verdict} {} ({reason}){}", ends(facts), times(facts)),
        Kind::Dns => {
            let answer = match &facts.dst {
                Some(address) => format!(" → {address}"),
                None => format!(": {verdict}"),
            };
            format!("{} {}{answer}", text(&facts.proto), text(&facts.name))
        }
        Kind::Dhcp => {
            let address = facts.dst.as_ref().map(|it| format!(" {it}")).unwrap_or_default();
            let mac = after(", ", &text(&facts.mac));
            format!("{verdict}{address}{mac}{}{}", named(facts), after(": ", &reason))
        }
        Kind::Link => format!("{verdict}{}", after(": ", &detail)),
        Kind::Config => {
            format!("{verdict}{}{}", after(" by ", &text(&facts.src)), after(": ", &detail))
        }
        Kind::Lost => match facts.count {
            Some(count) => format!("{count} events, which were overwritten before they were read"),
            None => "tramad is another one now; what was not read of the last one is gone".into(),
        },
    }
}

/// A text with what stands before it; nothing if there is none.
fn after(before: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{before}{text}") }
}

/// Protocol, source and destination.
fn ends(facts: &Facts) -> String {
    let text = |field: &Option<_>| field.clone().unwrap_or_default();
    format!("{} {} → {}", text(&facts.proto), text(&facts.src), text(&facts.dst))
}

fn named(facts: &Facts) -> String {
    facts.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default()
}

fn times(facts: &Facts) -> String {
    let count = facts.count.filter(|count| *count > 1);
    count.map(|count| format!(" ×{count}")).unwrap_or_default()
}

/// Bytes each way, how long it lasted, and why it failed.
fn outcome(facts: &Facts) -> String {
    let bytes = |count: Option<u64>, way| {
        count.map(|count| format!(", {} {way}", amount(count))).unwrap_or_default()
    };
    let lasted = facts.duration.map(|it| format!(", {it:.2} s")).unwrap_or_default();
    let reason = facts.reason.clone().unwrap_or_default();
    let (up, down) = (bytes(facts.bytes_up, "up"), bytes(facts.bytes_down, "down"));
    format!("{up}{down}{lasted}{}", after(": ", &reason))
}

/// An amount of bytes with two digits at least.
fn amount(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut left = bytes as f64;
    let mut unit = "B";
    for larger in ["kB", "MB", "GB", "TB", "PB", "EB"] {
        // Rounded, it would have a digit more.
        if left < 999.5 {
            break;
        }
        (left, unit) = (left / 1000.0, larger);
    }
    if left < 9.95 { format!("{left:.1} {unit}") } else { format!("{left:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Moment;

    fn shown(kind: Kind, facts: Facts) -> String {
        let facts = Facts { network: Some("lab".into()), port: Some("vm1".into()), ..facts };
        line(&Event { id: 1, time: Moment(43_263_120), kind, facts }).to_string()
    }

    #[test]
    fn lines_are_those_of_the_documentation() {
        let flow = Facts {
            proto: Some("tcp".into()),
            src: Some("10.0.2.15:53210".into()),
            dst: Some("93.184.216.34:443".into()),
            name: Some("example.com".into()),
            verdict: Some("opened".into()),
            ..Facts::default()
        };
        let ends =
            "12:01:03.120 lab/vm1  flow   tcp 10.0.2.15:53210 → 93.184.216.34:443 (example.com)";
        assert_eq!(shown(Kind::Flow, flow.clone()), format!("{ends} opened"));
        let closed = Facts {
            verdict: Some("closed".into()),
            bytes_up: Some(4_100),
            bytes_down: Some(88_123),
            duration: Some(0.36),
            ..flow
        };
        let closed = shown(Kind::Flow, closed);
        assert_eq!(closed, format!("{ends} closed, 4.1 kB up, 88 kB down, 0.36 s"));
        let drop = Facts {
            reason: Some("vlan_not_allowed".into()),
            count: Some(12),
            detail: Some("VLAN 20, 52:54:00:00:00:03 → broadcast".into()),
            ..Facts::default()
        };
        assert_eq!(
            shown(Kind::Drop, drop),
            "12:01:03.120 lab/vm1  drop   vlan_not_allowed ×12: VLAN 20, 52:54:00:00:00:03 → broadcast"
        );
        let lost = Facts { count: Some(3), ..Facts::default() };
        assert!(shown(Kind::Lost, lost).contains(" lost   3 events, "));
    }

    #[test]
    fn amounts_have_two_digits() {
        let shown = [0, 999, 1000, 9_949, 9_950, 999_499, 999_500, u64::MAX].map(amount);
        let wanted = ["0 B", "999 B", "1.0 kB", "9.9 kB", "10 kB", "999 kB", "1.0 MB", "18 EB"];
        assert_eq!(shown, wanted);
    }
}
