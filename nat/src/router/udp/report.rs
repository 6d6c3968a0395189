//! What became of datagrams, told to the machines that sent them.

use std::net::SocketAddr;

use nix::errno::Errno;
use smoltcp::wire::IpProtocol;

use super::train::Wagon;
use super::{ERRORS, Flows, forward, socket_of, wire};
use crate::drop_reason::DropReason;
use crate::io::PortId;
use crate::router::context::Context;
use crate::router::host_socket::ErrorReport;

impl Flows {
    /// The host did not send a datagram; its machine is told why.
    pub(super) fn failed(
        &mut self,
        wagon: &Wagon,
        payload: &[u8],
        error: Errno,
        context: &mut Context<'_>,
    ) {
        let report = match error {
            Errno::EAGAIN | Errno::ENOBUFS => {
                return context.counters.drop(DropReason::HostBusy);
            }
            // The queue knows what would pass.
            Errno::EMSGSIZE => {
                return self.serve_errors(wagon.number, Some((wagon, payload)), context);
            }
            // The address that the client has sent to is the host's no more.
            Errno::EINVAL | Errno::ENETUNREACH if wagon.local.is_some() => {
                context.counters.drop(DropReason::Unreachable);
                ErrorReport::Local(Errno::ENETUNREACH)
            }
            error => ErrorReport::Local(error),
        };
        self.tell(wagon.number, wagon.shown, report, payload, context);
    }

    /// Passes on what the network said about datagrams; `narrow` is one that was too long just now,
    /// which the kernel does not quote.
    pub(super) fn serve_errors(
        &mut self,
        number: u32,
        mut narrow: Option<(&Wagon, &[u8])>,
        context: &mut Context<'_>,
    ) {
        for _ in 0..ERRORS {
            let Some(socket) = socket_of(&mut self.table, &mut self.forwards, number) else {
                return;
            };
            let Some(error) = self.receiver.next_error(socket) else { return };
            let (report, destination, local) = (error.report, error.destination, error.local);
            if let ErrorReport::TooBig { .. } = report {
                // It was tried twice, so it is there twice.
                if let Some((wagon, payload)) = narrow.take() {
                    self.tell(number, wagon.shown, report, payload, context);
                }
                continue;
            }
            let quoted = error.quoted.to_vec();
            let shown = match number {
                forward::FIRST.. => self.forwards.shown(number, destination, local),
                number => self.table.entry_mut(number).and_then(|(key, ..)| key.mapped),
            };
            self.tell(number, shown.unwrap_or(destination), report, &quoted, context);
        }
        self.turns.ask(number);
    }

    /// Tells a machine what became of a datagram that it sent to `shown`.
    fn tell(
        &mut self,
        number: u32,
        shown: SocketAddr,
        report: ErrorReport,
        payload: &[u8],
        context: &mut Context<'_>,
    ) {
        let (to, from) = match number {
            forward::FIRST.. => {
                let Some(listener) = self.forwards.listener(number) else { return };
                let Some((mac, _)) = listener.station else { return };
                ((PortId(number.into()), mac, listener.guest.ip()), listener.guest.port())
            }
            number => {
                let Some((key, port, flow)) = self.table.entry_mut(number) else { return };
                ((port, flow.mac, key.source.ip()), key.source.port())
            }
        };
        let packet = wire::quoted(from, shown.port(), payload);
        let quote = (shown.ip(), IpProtocol::Udp, &packet[..]);
        if let Err(reason) = self.errors.pass_on(context, to, report, quote) {
            context.counters.drop(reason);
        }
    }
}
