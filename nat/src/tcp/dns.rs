//! Flows to the gateway's DNS. They open at once, because there is nothing to connect. Queries and
//! answers pass between their [far ends](super::dns_end) and the gateway.

use super::connection::Connection;
use super::dns_end::DnsEnd;
use super::far::Far;
use super::flow::Flow;
use super::segment::{Endpoints, Segment, Seq};
use super::{Flows, local_mss};
use crate::context::Context;
use crate::drop_reason::DropReason;
use crate::io::Client;
use crate::packet::inbound::Inbound;

impl Flows {
    /// Answers a guest's SYN for the gateway's DNS.
    pub(super) fn begin_dns(
        &mut self,
        packet: &Inbound<'_>,
        segment: &Segment<'_>,
        ends: Endpoints,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        self.admit(packet.port, context)?;
        self.dns_generation = self.dns_generation.wrapping_add(1);
        let far = Far::Dns(DnsEnd::new(context.now, self.dns_generation));
        let mut flow = Flow::new(context.now, packet.port, ends, far);
        let initial = Seq((context.random)() as u32);
        let mss = local_mss(context, &ends);
        flow.connection = Some(Connection::accept(context.now, segment, initial, mss));
        let number = self.insert(flow);
        self.quotas.flow_opened(packet.port);
        self.queue(number);
        Ok(())
    }

    /// Takes the DNS queries received.
    pub(crate) fn take_queries(&mut self) -> Vec<(Client, Vec<u8>)> {
        std::mem::take(&mut self.dns_queries)
    }

    /// Answers a DNS query on its flow; without an answer, closes the flow.
    pub(crate) fn answer(&mut self, stream: u64, message: Option<&[u8]>) {
        let (generation, number) = ((stream >> 32) as u32, stream as u32);
        let Some(Far::Dns(dns)) = self.flow(number).map(|flow| &mut flow.far) else { return };
        if dns.generation == generation {
            dns.answer(message);
            self.queue(number);
        }
    }
}

#[cfg(test)]
mod tests;
