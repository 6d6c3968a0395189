//! Errors about datagrams of guests, reported to these.

use std::net::SocketAddr;

use nix::errno::Errno;
use smoltcp::wire::IpProtocol;

use super::gso_batch::BatchKey;
use super::{ERRORS, Flows, forward, socket_of, wire};
use crate::context::Context;
use crate::drop_reason::DropReason;
use crate::host_socket::ErrorReport;
use crate::io::PortMark;

impl Flows {
    /// Reports to the guest that the host did not send a datagram.
    pub(super) fn send_failed(
        &mut self,
        key: &BatchKey,
        payload: &[u8],
        error: Errno,
        context: &mut Context<'_>,
    ) {
        let report = match error {
            Errno::EAGAIN | Errno::ENOBUFS => {
                return context.counters.drop(DropReason::HostBusy);
            }
            // The error queue has the path MTU.
            Errno::EMSGSIZE => {
                return self.serve_errors(key.number, Some((key, payload)), context);
            }
            // The host no longer has the address that the client sent to.
            Errno::EINVAL | Errno::ENETUNREACH if key.local.is_some() => {
                context.counters.drop(DropReason::Unreachable);
                ErrorReport::Local(Errno::ENETUNREACH)
            }
            error => ErrorReport::Local(error),
        };
        self.report_error(key.number, key.visible, report, payload, context);
    }

    /// Reports errors of the network to the guest. `too_long` is a datagram that exceeded the path
    /// MTU just now, which the kernel does not quote.
    pub(super) fn serve_errors(
        &mut self,
        number: u32,
        mut too_long: Option<(&BatchKey, &[u8])>,
        context: &mut Context<'_>,
    ) {
        for _ in 0..ERRORS {
            let Some(socket) = socket_of(&mut self.table, &mut self.forwards, number) else {
                return;
            };
            let Some(error) = self.buffers.next_error(socket) else { return };
            let (report, destination, local) = (error.report, error.destination, error.local);
            if let ErrorReport::TooBig { .. } = report {
                // It was sent twice, so it is there twice.
                if let Some((key, payload)) = too_long.take() {
                    self.report_error(number, key.visible, report, payload, context);
                }
                continue;
            }
            let quoted = error.quoted.to_vec();
            let visible = match number {
                forward::FIRST_LISTENER.. => {
                    self.forwards.known_visible(number, destination, local)
                }
                number => self.table.entry_mut(number).and_then(|(key, ..)| key.mapped),
            };
            self.report_error(number, visible.unwrap_or(destination), report, &quoted, context);
        }
        self.ready.push(number);
    }

    /// Reports an error to the guest about a datagram to `visible`.
    fn report_error(
        &mut self,
        number: u32,
        visible: SocketAddr,
        report: ErrorReport,
        payload: &[u8],
        context: &mut Context<'_>,
    ) {
        let (to, from) = match number {
            forward::FIRST_LISTENER.. => {
                let Some(listener) = self.forwards.listener(number) else { return };
                let Some((mac, _)) = listener.station else { return };
                ((PortMark(number.into()), mac, listener.guest.ip()), listener.guest.port())
            }
            number => {
                let Some((key, port, flow)) = self.table.entry_mut(number) else { return };
                ((port, flow.mac, key.source.ip()), key.source.port())
            }
        };
        let packet = wire::quoted(from, visible.port(), payload);
        let quote = (visible.ip(), IpProtocol::Udp, &packet[..]);
        if let Err(reason) = self.errors.forward_error(context, to, report, quote) {
            context.counters.drop(reason);
        }
    }
}
