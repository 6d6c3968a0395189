//! Flows to the gateway's DNS: their other end is not a socket of the host, but in this process.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use mio::Interest;
use mio::net::TcpStream;

use super::connection::Connection;
use super::flow::Flow;
use super::segment::{Route, Segment, Seq};
use super::{Flows, own_mss};
use crate::drop_reason::DropReason;
use crate::io::Client;
use crate::packet::inbound::Inbound;
use crate::router::context::{Context, Kind};

impl Flows {
    /// Answers a machine's SYN for the gateway's DNS: the other end of what it says.
    pub(super) fn begin_dns(
        &mut self,
        packet: &Inbound<'_>,
        segment: &Segment<'_>,
        route: Route,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        self.admit(packet.port)?;
        let (far, near) = UnixStream::pair().map_err(|_| DropReason::FileLimit)?;
        let pair = [&far, &near];
        if pair.iter().any(|end| end.set_nonblocking(true).is_err()) {
            return Err(DropReason::HostError);
        }
        // What flows do with a stream, they do with any kind of stream socket.
        let stream = TcpStream::from_std(OwnedFd::from(near).into());
        let mut flow = Flow::new(context.now, packet.port, route);
        flow.stream = Some(stream);
        let initial = Seq((context.random)() as u32);
        let mss = own_mss(context, &route);
        flow.engine = Some(Connection::answer(context.now, segment, initial, mss));
        let number = self.insert(flow);
        self.ports.opened(packet.port);
        let Some(flow) = &mut self.flows[number as usize] else { return Ok(()) };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = Kind::Tcp.token(number);
        let stream = flow.stream.as_mut().map(|it| context.registry.register(it, token, interest));
        if stream.is_some_and(|result| result.is_err()) {
            self.remove(number);
            return Err(DropReason::FileLimit);
        }
        let client = Client {
            port: packet.port,
            mac: packet.mac,
            remote: (route.guest.ip(), route.guest.port()),
            local: (route.remote.ip(), route.remote.port()),
            room: u16::MAX.into(),
            stream: None,
        };
        self.callers.push((client, mio::net::UnixStream::from_std(far)));
        self.queue(number);
        Ok(())
    }
}
