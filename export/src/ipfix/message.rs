//! Messages: sets of templates and of records after a header (RFC 7011, section 3).

use super::flow::{EndReason, Flow};
use super::template::{self, TEMPLATES};
use crate::{MAX_DATAGRAM, Put};

const VERSION: u16 = 10;
const HEADER: usize = 16;
const SET_HEADER: usize = 4;
const TEMPLATE_SET: u16 = 2;

/// The exporting process of one network: messages to its collectors.
pub struct Exporter {
    domain: u32,
    /// Records before the next message.
    sequence: u32,
    /// Flows of one template that make up the next message, as records.
    records: Vec<u8>,
    template: u16,
    count: u32,
}

impl Exporter {
    /// Returns the exporter of an observation domain.
    pub fn new(domain: u32) -> Exporter {
        Exporter { domain, sequence: 0, records: Vec::new(), template: 0, count: 0 }
    }

    /// Returns a message with the templates, which a collector needs before records, and again
    /// from time to time (RFC 7011, section 8.1). `now`: in seconds since the Unix epoch.
    pub fn templates(&self, now: u32) -> Vec<u8> {
        let mut set = Vec::new();
        for template in &TEMPLATES {
            set.put_u16(template.id);
            set.put_u16(template.elements.len() as u16);
            for (element, length) in template.elements {
                set.put_u16(*element);
                set.put_u16(*length);
            }
        }
        self.message(TEMPLATE_SET, &set, now)
    }

    /// Adds a record. Returns a message if one is full, or has records of another template.
    pub fn flow(&mut self, flow: &Flow, reason: EndReason, now: u32) -> Option<Vec<u8>> {
        let template = template::of(flow);
        let mut record = Vec::new();
        template::put_record(&mut record, flow, reason);
        let length = HEADER + SET_HEADER + self.records.len() + record.len();
        let is_other = template != self.template || length > MAX_DATAGRAM;
        let message = if is_other { self.flush(now) } else { None };
        self.template = template;
        self.records.extend_from_slice(&record);
        self.count += 1;
        message
    }

    /// Returns the message with the records since the last one, if there are any.
    pub fn flush(&mut self, now: u32) -> Option<Vec<u8>> {
        if self.count == 0 {
            return None;
        }
        let records = std::mem::take(&mut self.records);
        let message = self.message(self.template, &records, now);
        self.sequence = self.sequence.wrapping_add(std::mem::take(&mut self.count));
        Some(message)
    }

    fn message(&self, set: u16, content: &[u8], now: u32) -> Vec<u8> {
        let length = HEADER + SET_HEADER + content.len();
        let mut message = Vec::with_capacity(length);
        message.put_u16(VERSION);
        message.put_u16(length as u16);
        message.put_u32(now);
        message.put_u32(self.sequence);
        message.put_u32(self.domain);
        message.put_u16(set);
        message.put_u16((SET_HEADER + content.len()) as u16);
        message.extend_from_slice(content);
        message
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::ipfix::{Addresses, Key};

    fn flow(addresses: Addresses) -> Flow {
        let key = Key {
            input: 1,
            output: 2,
            source_mac: [1; 6],
            destination_mac: [2; 6],
            vlan: 10,
            ethertype: 0x0800,
            addresses,
            protocol: 6,
            class: 0,
            source_port: 1,
            destination_port: 2,
        };
        let (start, end, packets) = (1, 2, 3);
        Flow { key, start, end, packets, frame_octets: 4, ip_octets: 5, tcp_flags: 2 }
    }

    fn u16_at(message: &[u8], at: usize) -> u16 {
        u16::from_be_bytes(*message[at..].first_chunk().unwrap())
    }

    fn u32_at(message: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(*message[at..].first_chunk().unwrap())
    }

    /// Bytes of the records of a template.
    fn record_len(template: u16) -> usize {
        let template = TEMPLATES.iter().find(|it| it.id == template).unwrap();
        template.elements.iter().map(|(_, length)| usize::from(*length)).sum()
    }

    #[test]
    fn records_are_as_long_as_their_templates_say() {
        let v4 = Ipv4Addr::LOCALHOST;
        let v6 = v4.to_ipv6_mapped();
        for addresses in [Addresses::None, Addresses::V4(v4, v4), Addresses::V6(v6, v6)] {
            let flow = flow(addresses);
            let mut record = Vec::new();
            template::put_record(&mut record, &flow, EndReason::Idle);
            assert_eq!(record.len(), record_len(template::of(&flow)), "{addresses:?}");
        }
    }

    #[test]
    fn the_templates_fit_into_a_datagram() {
        let message = Exporter::new(7).templates(9);
        assert!(message.len() <= MAX_DATAGRAM);
        assert_eq!((u16_at(&message, 0), u16_at(&message, 2)), (10, message.len() as u16));
        assert_eq!((u32_at(&message, 4), u32_at(&message, 12)), (9, 7));
    }

    proptest! {
        #[test]
        fn each_record_is_sent_once_in_a_message_of_its_template(
            kinds in prop::collection::vec(any::<bool>(), 0..100),
        ) {
            let v4 = Ipv4Addr::LOCALHOST;
            let mut exporter = Exporter::new(1);
            let mut messages = Vec::new();
            for is_ip in &kinds {
                let addresses = if *is_ip { Addresses::V4(v4, v4) } else { Addresses::None };
                messages.extend(exporter.flow(&flow(addresses), EndReason::Active, 5));
            }
            messages.extend(exporter.flush(5));
            let mut sent = 0;
            for message in &messages {
                prop_assert!(message.len() <= MAX_DATAGRAM);
                prop_assert_eq!(usize::from(u16_at(message, 2)), message.len());
                prop_assert_eq!(usize::from(u16_at(message, 18)), message.len() - HEADER);
                prop_assert_eq!(u32_at(message, 8), sent, "records before it");
                let length = record_len(u16_at(message, 16));
                prop_assert_eq!((message.len() - HEADER - SET_HEADER) % length, 0);
                sent += ((message.len() - HEADER - SET_HEADER) / length) as u32;
            }
            prop_assert_eq!(sent as usize, kinds.len());
        }
    }
}
