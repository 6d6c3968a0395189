//! What the daemon is told of flows and of DNS.

use trama_nat::{Client, FlowEvent, PortMark};

use super::Gateway;
use crate::dns::answered::{self, AnsweredNames};
use crate::dns::message::Message;
use crate::event::{DnsEvent, Event};
use crate::io::{Output, Replies};

impl Gateway {
    /// Whether there are events for the daemon.
    pub(crate) fn has_events(&self) -> bool {
        !self.shared.events.is_empty() || !self.shared.flow_events.is_empty()
    }

    /// Takes the events for the daemon, and the number of those that found no room.
    pub(crate) fn take_events(&mut self) -> (Vec<Event>, u64) {
        let (flows, lost) = self.shared.flow_events.take();
        self.shared.events.count_lost(lost);
        for flow in flows {
            let name = self.name_of(&flow).map(str::to_owned);
            self.shared.events.push(Event::Flow { flow, name });
        }
        self.shared.events.take()
    }

    fn name_of(&self, flow: &FlowEvent) -> Option<&str> {
        self.answered.get(PortMark(flow.port), flow.to.ip())
    }

    /// Follows the settings.
    pub(super) fn follow_events(&mut self) {
        let are_wanted = self.shared.config.tells_events;
        self.shared.flow_events.want(are_wanted);
        if !are_wanted {
            drop(self.shared.events.take());
            self.answered = AnsweredNames::default();
        }
    }

    /// Sends answers of DNS.
    pub(super) fn answer(&mut self, replies: Replies, out: &mut Output) {
        for (client, reply) in &replies {
            self.answered(client, reply);
        }
        self.reply(replies, out);
    }

    /// Notes what a guest was answered.
    pub(super) fn answered(&mut self, client: &Client, reply: &[u8]) {
        if !self.shared.config.tells_events {
            return;
        }
        let Some(message) = Message::parse(reply) else { return };
        // Any other name would be one of guests' making, and of no host.
        let Some(name) = message.name() else { return };
        let addresses = answered::addresses(reply);
        self.answered.insert(client.port, &name, &addresses);
        if self.shared.config.tells_answers {
            self.shared.events.push(Event::Answer(DnsEvent {
                port: client.port.0,
                mac: client.mac.0,
                client: client.remote.0,
                kind: message.kind,
                name,
                code: message.code(),
                address: addresses.first().copied(),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use trama_nat::{FlowChange, Protocol};

    use super::*;
    use crate::config::Config;
    use crate::testing::{GUEST, GUEST4, client, lab, random};

    /// A query for `a.` and its answer, 192.0.2.7.
    const QUERY: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01A\0\0\x01\0\x01";
    const ANSWER: &[u8] = b"\0\x07\x81\x80\0\x01\0\x01\0\0\0\0\x01A\0\0\x01\0\x01\
                            \xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x07";

    fn gateway(tells_events: bool, tells_answers: bool) -> Gateway {
        Gateway::new(Config { tells_events, tells_answers, ..lab() }, random())
    }

    #[test]
    fn an_answer_is_told_if_that_is_wanted() {
        let mut telling = gateway(true, true);
        telling.answered(&client(9), ANSWER);
        let answer = DnsEvent {
            port: 9,
            mac: GUEST.0,
            client: GUEST4.into(),
            kind: 1,
            name: "a".to_owned(),
            code: 0,
            address: "192.0.2.7".parse().ok(),
        };
        assert_eq!(telling.take_events(), (vec![Event::Answer(answer)], 0));
        let mut quiet = gateway(true, false);
        quiet.answered(&client(9), ANSWER);
        assert!(!quiet.has_events());
        let flow = FlowEvent {
            port: 9,
            mac: GUEST.0,
            protocol: Protocol::Tcp,
            from: SocketAddr::from((GUEST4, 4000)),
            to: "192.0.2.7:443".parse().unwrap(),
            change: FlowChange::Opened,
        };
        assert_eq!(quiet.name_of(&flow), Some("a"));
        let stranger = FlowEvent { port: 8, ..flow };
        assert_eq!(quiet.name_of(&stranger), None, "another guest has not asked");
    }

    #[test]
    fn without_events_nothing_is_remembered() {
        let mut gateway = gateway(false, true);
        gateway.answered(&client(9), ANSWER);
        let mut out = Output::default();
        gateway.handle_tcp_query(Duration::ZERO, client(9), QUERY, &mut out);
        assert!(!gateway.has_events());
        assert_eq!(gateway.answered.get(PortMark(9), [192, 0, 2, 7].into()), None);
        gateway.reconfigure(Config { tells_events: true, tells_answers: true, ..lab() });
        gateway.answered(&client(9), ANSWER);
        assert!(gateway.has_events());
        gateway.reconfigure(lab());
        assert!(!gateway.has_events(), "what waited is gone");
    }
}
