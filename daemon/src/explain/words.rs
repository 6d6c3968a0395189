//! Says step by step what would happen to a frame.

use std::time::Duration;

use trama_api::explain::{Answer, Dropped, Exit, Step};
use trama_frame::{MacAddr, VlanTag, ethernet};
use trama_gateway::NatDrop;
use trama_gateway::explain::Fate;
use trama_switch::explain::Route;
use trama_switch::{DropReason, PortId};

use super::running::{Explained, GATEWAY};
use crate::config::model::{Mode, Network, Port, Vlan};
use crate::last_drops::LastDrop;

/// What the answer is about.
pub(super) struct Subject<'a> {
    pub port: &'a Port,
    pub network: Option<&'a Network>,
    /// Whether the port's link is up.
    pub link: bool,
    pub frame: &'a [u8],
    pub explained: &'a Explained,
}

impl Subject<'_> {
    /// Returns the answer.
    pub(super) fn answer(&self) -> Answer {
        let told = &self.explained.explanation;
        let dropped = told.dropped.map(|reason| dropped(&self.port.name, reason));
        let exits: Vec<Exit> = told.exits.iter().map(|exit| self.exit(exit)).collect();
        let mut steps = vec![step("frame", self.of_frame()), step("port", self.of_port())];
        steps.extend(self.of_vlan().map(|text| step("vlan", text)));
        steps.extend(self.of_source().map(|text| step("source", text)));
        steps.extend(self.of_look_up().map(|text| step("look-up", text)));
        for exit in &exits {
            steps.push(step(&exit.port, self.of_exit(exit)));
        }
        if !told.withheld.is_empty() {
            let names: Vec<&str> = told.withheld.iter().map(|port| self.name(*port)).collect();
            let text = format!("{}: the station is not known behind them", names.join(", "));
            steps.push(step("withheld", text));
        }
        for mirror in &self.explained.mirrors {
            steps.push(step("mirror", format!("{} copies it to {}", mirror.name, mirror.output())));
        }
        let mut answer = Answer { vlan: told.vlan.map(|vlan| vlan.get()), dropped, exits, steps };
        let verdict = verdict(&answer);
        answer.steps.push(step("verdict", verdict));
        answer
    }

    fn name(&self, port: PortId) -> &str {
        self.explained.names.get(&port).map_or("a port that has gone", String::as_str)
    }

    fn exit(&self, exit: &trama_switch::explain::Exit) -> Exit {
        let name = self.name(exit.port);
        let refused = exit.dropped.map(|reason| dropped(name, reason));
        let by_gateway = || match (&self.explained.fate, name) {
            (Some(Err(reason)), GATEWAY) => Some(by_gateway(*reason)),
            _ => None,
        };
        Exit {
            port: name.to_owned(),
            tag: exit.tag.map(|tag| tag.vid().get()),
            dropped: refused.or_else(by_gateway),
        }
    }

    fn of_frame(&self) -> String {
        format!("{} → {}", self.port.name, described(self.frame, self.frame.len()))
    }

    fn of_port(&self) -> String {
        let link = if self.link { "up" } else { "down" };
        match self.network {
            Some(network) => format!("runs, link {link}, network {}", network.name),
            None => format!("runs, link {link}, on no network"),
        }
    }

    fn of_vlan(&self) -> Option<String> {
        let told = &self.explained.explanation;
        // A port of a network of mode `nat` is alone, and its VLAN settings have no effect.
        let is_alone = self.network.is_some_and(|network| network.mode == Mode::Nat);
        let vlan = if is_alone { Vlan::default() } else { self.port.vlan.clone() };
        let tag = vlan.tag.map(|tag| format!(", tag {tag}")).unwrap_or_default();
        let mode = format!("{}{tag}", vlan.mode_or_default());
        match (told.vlan, told.dropped) {
            (Some(vlan), _) => Some(format!("{mode}: VLAN {}", vlan.get())),
            (None, Some(DropReason::VlanNotAllowed)) => {
                let tag = ethernet::parse(self.frame).and_then(|header| header.tag);
                Some(format!("{mode}: not {}", tagged(tag)))
            }
            (None, _) => None,
        }
    }

    fn of_source(&self) -> Option<String> {
        let told = &self.explained.explanation;
        match told.dropped {
            Some(
                reason @ (DropReason::SourceForged
                | DropReason::SourceInvalid
                | DropReason::OwnAddress),
            ) => Some(format!("refused: {}", reason.name())),
            _ => told.vlan.map(|_| format!("allowed (spoof \"{}\")", self.port.spoof)),
        }
    }

    fn of_look_up(&self) -> Option<String> {
        let told = &self.explained.explanation;
        let vlan = told.vlan?.get();
        Some(match told.route? {
            Route::Group => format!("VLAN {vlan}: a group, for all ports that carry it"),
            Route::Unknown => format!("VLAN {vlan}: not known, so it is flooded"),
            Route::Port { port, age } => {
                let seen = age.map_or_else(|| "static".to_owned(), seen);
                format!("VLAN {vlan}: on {}, {seen}", self.name(port))
            }
        })
    }

    fn of_exit(&self, exit: &Exit) -> String {
        let vlan = self.explained.explanation.vlan.map_or(0, |vlan| vlan.get());
        let how = match exit.tag {
            Some(tag) => format!("carries VLAN {vlan}, leaves tagged {tag}"),
            None => format!("carries VLAN {vlan}, leaves untagged"),
        };
        match (&exit.dropped, &self.explained.fate) {
            (Some(dropped), _) => format!("{how}; dropped: {}", dropped.reason),
            (None, Some(Ok(fate))) if exit.port == GATEWAY => format!("{how}; {}", of_fate(*fate)),
            (None, _) => how,
        }
    }
}

fn of_fate(fate: Fate) -> String {
    match fate {
        Fate::Local => "for the gateway itself, or its network".to_owned(),
        Fate::Flow(transport, to) => format!("NAT: a {} flow to {to}", transport.name()),
        Fate::Icmp(to) => format!("NAT: ICMP to {to}"),
        Fate::Reflected => "reflected to the host's networks".to_owned(),
        Fate::Fragment => "NAT: a fragment, which waits for the others".to_owned(),
    }
}

fn verdict(answer: &Answer) -> String {
    if let Some(Dropped { at, reason, remedy }) = &answer.dropped {
        return format!("dropped at {at}: {reason}. {remedy}");
    }
    let to: Vec<String> =
        answer.exits.iter().filter(|exit| exit.dropped.is_none()).map(to).collect();
    match answer.exits.first().and_then(|exit| exit.dropped.as_ref()) {
        Some(Dropped { at, reason, remedy }) if to.is_empty() => {
            format!("dropped at {at}: {reason}. {remedy}")
        }
        _ if to.is_empty() => "to no port".to_owned(),
        _ => format!("to {}", to.join("; ")),
    }
}

fn to(exit: &Exit) -> String {
    match exit.tag {
        Some(tag) => format!("{}, tagged {tag}", exit.port),
        None => format!("{}, untagged", exit.port),
    }
}

/// Says what was dropped last at a port, and when.
pub(super) fn of_last(port: &str, last: &LastDrop) -> Answer {
    let LastDrop { at, notice } = last;
    let ago = at.elapsed().as_secs();
    let frame = format!("{ago} s ago, to {}", described(&notice.head, notice.len));
    let mut answer = Answer { dropped: Some(dropped(port, notice.reason)), ..Answer::default() };
    let packet = trama_capture::text::packet(&notice.head, notice.len as u32);
    answer.steps.push(step("frame", frame));
    answer.steps.extend(packet.map(|text| step("packet", text)));
    answer.steps.push(step("verdict", verdict(&answer)));
    answer
}

/// The destination of a frame, its source, tag and length.
fn described(head: &[u8], len: usize) -> String {
    match ethernet::parse(head) {
        None => format!("?, {len} bytes: it ends within its header"),
        Some(header) => {
            let (dst, src) = (header.dst, header.src);
            format!("{dst}, source {src}, {}, {len} bytes", tagged(header.tag))
        }
    }
}

fn tagged(tag: Option<VlanTag>) -> String {
    tag.map_or_else(|| "untagged".to_owned(), |tag| format!("VLAN {}", tag.vid().get()))
}

fn seen(age: Duration) -> String {
    format!("seen {} s ago", age.as_secs())
}

fn step(about: &str, text: String) -> Step {
    Step { about: about.to_owned(), text }
}

fn dropped(at: &str, reason: DropReason) -> Dropped {
    let (reason, remedy) = (reason.name().to_owned(), reason.describe().to_owned());
    Dropped { at: at.to_owned(), reason, remedy }
}

fn by_gateway(reason: NatDrop) -> Dropped {
    let (reason, remedy) = (reason.name().to_owned(), reason.describe().to_owned());
    Dropped { at: GATEWAY.to_owned(), reason, remedy }
}

/// The source of a frame of which none is known: locally administered, and of no station.
pub(super) const NO_STATION: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
