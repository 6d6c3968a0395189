//! Events of gateways.
//!
//! A gateway handles what guests send, and may be in a guest's hands. Its messages are typed, its
//! texts are cut, a port that is not on its network has no name, and it tells of no more events
//! than [`Limit`] allows: the others are counted as lost.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use smol_str::{SmolStr, ToSmolStr, format_smolstr};
use trama_api::event::{Facts, Kind, bounded};
use trama_frame::MacAddr;
use trama_gateway::event::{
    DnsEvent, Event, FlowChange, FlowEvent, LeaseChange, LeaseEvent, Protocol,
};

use super::Events;
use crate::config::derived::running::written_name;

/// Events of one gateway a second, and at once.
const RATE: f64 = 20_000.0;

/// How many events a gateway may tell of.
#[derive(Debug)]
pub(crate) struct Limit {
    left: f64,
    at: Instant,
}

impl Limit {
    pub(crate) fn new(now: Instant) -> Limit {
        Limit { left: RATE, at: now }
    }

    /// Takes as many of these events as are allowed; returns how many.
    fn take(&mut self, now: Instant, events: usize) -> usize {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * RATE;
        (self.left, self.at) = ((self.left + earned).min(RATE), now);
        let taken = (self.left as usize).min(events);
        self.left -= taken as f64;
        taken
    }
}

impl Events {
    /// Adds what the gateway of a network tells, which itself had no room for `lost` events.
    pub(crate) fn of_gateway(
        &self,
        network: &str,
        mut told: Vec<Event>,
        lost: u64,
        limit: &mut Limit,
    ) {
        let taken = limit.take(Instant::now(), told.len());
        self.count_lost(lost.saturating_add((told.len() - taken) as u64));
        told.truncate(taken);
        let network = written_name(network);
        for event in told {
            let (kind, port, facts) = read(event);
            let (port, network) = (self.ports.name(network, port), Some(network.into()));
            self.add(kind, Facts { network, port, ..facts });
        }
    }
}

/// Returns what an event is about, the mark of its port, and what it says.
fn read(event: Event) -> (Kind, u64, Facts) {
    match event {
        Event::Flow { flow, name } => {
            let is_refused = matches!(flow.change, FlowChange::Refused { .. });
            let kind = if is_refused { Kind::Policy } else { Kind::Flow };
            (kind, flow.port, of_flow(flow, name.as_deref()))
        }
        Event::Lease(lease) => (Kind::Dhcp, lease.port, of_lease(lease)),
        Event::Answer(answer) => (Kind::Dns, answer.port, of_answer(answer)),
    }
}

fn of_flow(flow: FlowEvent, name: Option<&str>) -> Facts {
    let FlowEvent { mac, protocol, from, to, change, .. } = flow;
    let end = |end: SocketAddr| match (protocol, end.port()) {
        (Protocol::Icmp, _) | (_, 0) => end.ip().to_smolstr(),
        _ => end.to_smolstr(),
    };
    let facts = Facts {
        mac: Some(shown(mac)),
        proto: Some(protocol.name().into()),
        src: Some(end(from)),
        dst: Some(end(to)),
        name: name.map(bounded),
        ..Facts::default()
    };
    match change {
        FlowChange::Opened => Facts { verdict: Some("opened".into()), ..facts },
        FlowChange::Closed { up, down, millis } => Facts {
            verdict: Some("closed".into()),
            bytes_up: Some(up),
            bytes_down: Some(down),
            duration: Some(millis as f64 / 1000.0),
            ..facts
        },
        FlowChange::Failed(reason) => {
            Facts { verdict: Some("failed".into()), reason: Some(bounded(&reason)), ..facts }
        }
        FlowChange::Refused { reason, count } => Facts {
            verdict: Some("refused".into()),
            reason: Some(bounded(&reason)),
            count: Some(count),
            ..facts
        },
    }
}

fn of_lease(LeaseEvent { mac, address, name, change, .. }: LeaseEvent) -> Facts {
    let (verdict, reason) = match change {
        LeaseChange::Leased => ("leased", None),
        LeaseChange::Released => ("released", None),
        LeaseChange::Expired => ("expired", None),
        LeaseChange::Declined => ("declined", None),
        LeaseChange::Conflict => ("conflict", None),
        LeaseChange::Refused(why) => ("refused", Some(bounded(&why))),
    };
    Facts {
        mac: Some(shown(mac)),
        dst: address.map(|address| address.to_smolstr()),
        name: name.as_deref().map(bounded),
        verdict: Some(verdict.into()),
        reason,
        ..Facts::default()
    }
}

fn of_answer(DnsEvent { mac, client, kind, name, code, address, .. }: DnsEvent) -> Facts {
    Facts {
        mac: Some(shown(mac)),
        proto: Some(record_type(kind)),
        src: Some(client.to_smolstr()),
        dst: address.map(|address: IpAddr| address.to_smolstr()),
        name: Some(bounded(&name)),
        verdict: Some(response_code(code)),
        ..Facts::default()
    }
}

fn shown(mac: [u8; 6]) -> SmolStr {
    MacAddr(mac).to_smolstr()
}

/// The name of a type of records (RFC 1035, 3.2.2; RFC 3597, 5).
fn record_type(number: u16) -> SmolStr {
    let name = match number {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        12 => "PTR",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        33 => "SRV",
        64 => "SVCB",
        65 => "HTTPS",
        255 => "ANY",
        _ => return format_smolstr!("TYPE{number}"),
    };
    name.into()
}

/// The name of a response code (RFC 6895, 2.3).
fn response_code(number: u16) -> SmolStr {
    let name = match number {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        _ => return format_smolstr!("RCODE{number}"),
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn answer(name: &str) -> Event {
        Event::Answer(DnsEvent {
            port: 9,
            mac: [2; 6],
            client: "10.0.2.15".parse().unwrap(),
            kind: 28,
            name: name.to_owned(),
            code: 3,
            address: None,
        })
    }

    #[test]
    fn what_a_gateway_tells_is_cut_and_a_port_of_others_has_no_name() {
        let events = Events::start(8).unwrap();
        let known = super::super::Known::new(("vm1", Some("other")), 9, Default::default());
        events.set_port(super::super::tests::some_port(), known);
        let mut limit = Limit::new(Instant::now());
        events.of_gateway("lab/vm1", vec![answer(&"a\n".repeat(500))], 0, &mut limit);
        let told = events.ring().read(0, 1).events[0].facts.clone();
        assert_eq!((told.network.as_deref(), &told.port), (Some("lab"), &None));
        let name = told.name.unwrap();
        assert!(name.len() <= 256 && !name.contains('\n'), "{name}");
        assert_eq!(
            (told.proto.as_deref(), told.verdict.as_deref()),
            (Some("AAAA"), Some("NXDOMAIN"))
        );
    }

    #[test]
    fn a_gateway_that_floods_is_told_apart_from_one_that_works() {
        let events = Events::start(8).unwrap();
        let now = Instant::now();
        let mut limit = Limit::new(now);
        let most = RATE as usize;
        assert_eq!(limit.take(now, most + 5), most);
        assert_eq!(limit.take(now, 5), 0);
        let second = now + Duration::from_secs(1);
        assert_eq!(limit.take(second, 1000), 1000, "a thousand a second are no flood");
        let mut limit = Limit { left: 1.0, at: Instant::now() + Duration::from_secs(9) };
        events.of_gateway("lab", vec![answer("a"), answer("b")], 3, &mut limit);
        assert_eq!((events.totals().counts[2], events.totals().lost), (("dns", 1), 4));
    }
}
