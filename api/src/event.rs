//! Events: what happens on the networks, as `GET /v1/events` streams it.
//!
//! The answer is a stream of server-sent events (HTML Living Standard, 9.2): `id` has the number of
//! an event, `data` its JSON. A client that sends the last number as `Last-Event-ID` goes on behind
//! it, and is told by an event of type `lost` how many it has missed.

mod text;

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;

pub use text::{Line, line};

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A flow through a network's NAT.
    Flow,
    /// Frames that were dropped.
    Drop,
    /// An answer of a gateway's DNS.
    Dns,
    /// A lease.
    Dhcp,
    /// A port: what is connected to it, and whether it runs.
    Link,
    /// What a guest may not reach.
    Policy,
    /// The configuration, and the daemon itself.
    Config,
    /// Events that the reader has missed. No number is its own: it has that of the last one missed.
    Lost,
}

impl Kind {
    /// All that a reader can ask for.
    pub const ALL: [Kind; 7] =
        [Kind::Flow, Kind::Drop, Kind::Dns, Kind::Dhcp, Kind::Link, Kind::Policy, Kind::Config];

    /// Returns its word.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Flow => "flow",
            Kind::Drop => "drop",
            Kind::Dns => "dns",
            Kind::Dhcp => "dhcp",
            Kind::Link => "link",
            Kind::Policy => "policy",
            Kind::Config => "config",
            Kind::Lost => "lost",
        }
    }
}

/// A moment, in milliseconds since 1970; in JSON as RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// Returns this moment.
    pub fn now() -> Moment {
        // A clock before 1970 is wrong either way.
        Moment(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis() as u64)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The text has no moment after the year 9999.
        let millis = Duration::from_millis(self.0.min(253_402_300_799_999));
        serializer.collect_str(&humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + millis))
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Moment, D::Error> {
        let text = SmolStr::deserialize(deserializer)?;
        let time = humantime::parse_rfc3339(&text).map_err(serde::de::Error::custom)?;
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(Moment(since.as_millis() as u64))
    }
}

/// Something that happened. A field that means nothing for it is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its number. Numbers rise by one; another daemon begins with a higher one.
    pub id: u64,
    /// When it happened.
    pub time: Moment,
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What is known of it.
    #[serde(flatten)]
    pub facts: Facts,
}

/// What is known of an event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// The network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<SmolStr>,
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<SmolStr>,
    /// The guest's MAC address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<SmolStr>,
    /// `tcp`, `udp` or `icmp`; of `dns` the type of the records, such as `AAAA`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<SmolStr>,
    /// Where it came from: an address, with its port if there is one. Of `config`, who did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<SmolStr>,
    /// Where it went. Of `dhcp`, the address; of `dns`, the first address in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst: Option<SmolStr>,
    /// The name of the destination, as far as the guest has asked the gateway's DNS for it; the
    /// name that was asked for; the name of a DHCP client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<SmolStr>,
    /// What became of it, such as `opened` or `closed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<SmolStr>,
    /// Why, in a word of the metrics where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<SmolStr>,
    /// How often, if one event stands for several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Bytes of payload from the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_up: Option<u64>,
    /// Bytes of payload to the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_down: Option<u64>,
    /// Seconds that it lasted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<f64>,
    /// What the other fields do not say, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<SmolStr>,
}

/// Which events are wanted: the query of `GET /v1/events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// Types, with commas between them; all without it.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub types: Option<String>,
    /// Those of this port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Those of this network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Those to this address or prefix, or to this name and the names below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Those of this time until now, such as `5m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// At most this many of those that there are already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// Whether the answer goes on, which is so without it. Then it begins now, unless `since`,
    /// `last` or `Last-Event-ID` says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
}

/// Most bytes of a text in an event.
const LONGEST: usize = 256;

/// Returns a text as an event may have it: at most 256 bytes, and no control characters.
pub fn bounded(text: &str) -> SmolStr {
    let is_plain = text.len() <= LONGEST && !text.chars().any(char::is_control);
    if is_plain {
        return text.into();
    }
    let mut cut = String::with_capacity(LONGEST);
    for char in text.chars() {
        let char = if char.is_control() { char::REPLACEMENT_CHARACTER } else { char };
        if cut.len() + char.len_utf8() + '…'.len_utf8() > LONGEST {
            cut.push('…');
            break;
        }
        cut.push(char);
    }
    cut.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_what_is_known_and_reads_back() {
        let event = Event {
            id: 7,
            time: Moment(1_764_000_000_120),
            kind: Kind::Flow,
            facts: Facts { port: Some("vm1".into()), bytes_up: Some(41), ..Facts::default() },
        };
        let json = serde_json::to_string(&event).unwrap();
        let wanted = r#"{"id":7,"time":"2025-11-24T16:00:00.120Z","type":"flow","port":"vm1","bytes_up":41}"#;
        assert_eq!(json, wanted);
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
        let newer = json.replace("\"port\"", "\"weather\":\"fair\",\"port\"");
        assert_eq!(serde_json::from_str::<Event>(&newer).unwrap(), event);
    }

    #[test]
    fn texts_are_cut_between_characters_and_control_nothing() {
        assert_eq!(bounded("web"), "web");
        assert_eq!(bounded("a\u{1b}[31mb"), "a\u{fffd}[31mb");
        for length in 250..260 {
            let cut = bounded(&"ä".repeat(length));
            assert!(cut.len() <= LONGEST && cut.ends_with('…'), "{length}: {}", cut.len());
        }
    }
}
