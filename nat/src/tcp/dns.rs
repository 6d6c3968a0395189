//! Flows to the gateway's DNS. Their far end is in this process, not a socket of the host.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use mio::Interest;
use mio::net::TcpStream;

use super::connection::Connection;
use super::flow::Flow;
use super::segment::{Endpoints, Segment, Seq};
use super::{Flows, local_mss};
use crate::context::{Context, TokenKind};
use crate::drop_reason::DropReason;
use crate::io::Client;
use crate::packet::inbound::Inbound;

impl Flows {
    /// Answers a guest's SYN for the gateway's DNS, and creates the far end of the flow.
    pub(super) fn begin_dns(
        &mut self,
        packet: &Inbound<'_>,
        segment: &Segment<'_>,
        ends: Endpoints,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        self.admit(packet.port)?;
        let (far, near) = UnixStream::pair().map_err(|_| DropReason::FileLimit)?;
        let pair = [&far, &near];
        if pair.iter().any(|end| end.set_nonblocking(true).is_err()) {
            return Err(DropReason::HostError);
        }
        // Flows use no operation that a Unix stream socket lacks.
        let stream = TcpStream::from_std(OwnedFd::from(near).into());
        let mut flow = Flow::new(context.now, packet.port, ends);
        flow.stream = Some(stream);
        let initial = Seq((context.random)() as u32);
        let mss = local_mss(context, &ends);
        flow.connection = Some(Connection::accept(context.now, segment, initial, mss));
        let number = self.insert(flow);
        self.quotas.flow_opened(packet.port);
        let Some(flow) = &mut self.flows[number as usize] else { return Ok(()) };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = TokenKind::Tcp.token(number);
        let stream = flow.stream.as_mut().map(|it| context.registry.register(it, token, interest));
        if stream.is_some_and(|result| result.is_err()) {
            self.remove(number);
            return Err(DropReason::FileLimit);
        }
        let client = Client {
            port: packet.port,
            mac: packet.mac,
            remote: (ends.guest.ip(), ends.guest.port()),
            local: (ends.remote.ip(), ends.remote.port()),
            room: u16::MAX.into(),
            stream: None,
        };
        self.dns_connections.push((client, mio::net::UnixStream::from_std(far)));
        self.queue(number);
        Ok(())
    }
}
