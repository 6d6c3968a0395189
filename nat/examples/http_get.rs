//! A guest without a switch: a TCP of its own, in this process, fetches a page through the NAT from
//! a server on the host's loopback. It takes no privileges.
//!
//! ```text
//! cargo run -p trama-nat --example http_get
//! ```

use std::collections::VecDeque;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use mio::{Events, Poll};
use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant as GuestTime;
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetProtocol, IpCidr};
use trama_frame::{MacAddr, VnetHeader, checksum, gso};
use trama_nat::packet::received::{Arp, Frame};
use trama_nat::packet::{ethernet_address, frame};
use trama_nat::{
    Cable, Config, Context, Counters, DropReason, FlowEvents, Handled, LoopbackMap, Nat, PortMark,
    Random, Rules, Station, Transport,
};

const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const GUEST: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const GATEWAY4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
const GUEST4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The guest's only port. A switch would tell its ports apart here.
const PORT: PortMark = PortMark(1);
const PATIENCE: Duration = Duration::from_secs(20);

/// The frames on their way to the guest.
#[derive(Default)]
struct ToGuest(VecDeque<Vec<u8>>);

impl Cable for ToGuest {
    fn room(&mut self) -> usize {
        256usize.saturating_sub(self.0.len())
    }

    /// Does what a guest without offloads expects: whole checksums, and no large frames.
    fn send(&mut self, header: &VnetHeader, parts: &[&[u8]]) -> Result<(), DropReason> {
        let (mut header, mut whole) = (*header, parts.concat());
        if header.gso_type == trama_frame::vnet::GSO_NONE {
            checksum::complete(&mut whole, &mut header);
            self.0.push_back(whole);
            return Ok(());
        }
        let mut room = vec![0; whole.len()];
        let segments = &mut self.0;
        let keep = |segment: &[u8]| segments.push_back(segment.to_vec());
        let cut = gso::segment(&whole, &header, &mut room, keep);
        cut.map(drop).map_err(|_| DropReason::TooLong)
    }
}

/// The guest's network card.
#[derive(Default)]
struct Card {
    to_guest: ToGuest,
    from_guest: VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, job: F) -> R {
        job(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, job: F) -> R {
        let mut bytes = vec![0; len];
        let result = job(&mut bytes);
        self.0.push_back(bytes);
        result
    }
}

impl Device for Card {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: GuestTime) -> Option<(Received, Sending<'_>)> {
        let bytes = self.to_guest.0.pop_front()?;
        Some((Received(bytes), Sending(&mut self.from_guest)))
    }

    fn transmit(&mut self, _: GuestTime) -> Option<Sending<'_>> {
        Some(Sending(&mut self.from_guest))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        (capabilities.medium, capabilities.max_transmission_unit) = (Medium::Ethernet, 1514);
        capabilities
    }
}

/// The gateway: a NAT, and an answer to ARP, which the NAT leaves to its caller.
struct Gateway {
    nat: Nat,
    station: Station,
    rules: Rules,
    counters: Counters,
    flow_events: FlowEvents,
    random: Random,
    poll: Poll,
    start: Instant,
}

impl Gateway {
    /// A gateway whose port 80 is the host's `server`.
    fn new(server: SocketAddr) -> std::io::Result<Gateway> {
        let ipv4 = Ipv4Net::new(GATEWAY4, 24).ok();
        let (ipv6, service_addresses) = (None, Vec::new());
        let guest = SocketAddr::from((GATEWAY4, 80));
        let map = LoopbackMap { transport: Transport::Tcp, guest, host: server };
        let mut state = std::process::id().into();
        Ok(Gateway {
            nat: Nat::default(),
            station: Station { mac: GATEWAY.0, mtu: 1500, ipv4, ipv6, service_addresses },
            rules: Rules { loopback: vec![map], ..Rules::default() },
            counters: Counters::default(),
            // Nothing is noted unless it is wanted.
            flow_events: FlowEvents::default(),
            // A real gateway asks the kernel (getrandom(2)).
            random: Box::new(move || {
                state = u64::wrapping_mul(state, 6_364_136_223_846_793_005).wrapping_add(1);
                state >> 16
            }),
            poll: Poll::new()?,
            start: Instant::now(),
        })
    }

    /// Takes the guest's frames, waits for the host's sockets, and passes on what they received.
    fn turn(&mut self, card: &mut Card) -> std::io::Result<()> {
        let Gateway { nat, station, rules, counters, flow_events, random, poll, start } = self;
        let now = start.elapsed();
        let config = Config { station, rules: Some(rules) };
        for bytes in card.from_guest.drain(..) {
            let (registry, cable) = (poll.registry(), &mut card.to_guest);
            let events = &mut *flow_events;
            let context = &mut Context { now, config, registry, cable, counters, events, random };
            let handled = nat.receive(PORT, VnetHeader::default(), &bytes, context);
            if let Handled::Local(local) = handled
                && let Frame::Arp(arp) = local.frame
                && arp.operation == ArpOperation::Request
            {
                card.to_guest.0.push_back(arp_reply(&arp));
            }
        }
        let mut events = Events::with_capacity(64);
        poll.poll(&mut events, Some(Duration::from_millis(1)))?;
        let (registry, cable) = (poll.registry(), &mut card.to_guest);
        let context =
            &mut Context { now, config, registry, cable, counters, events: flow_events, random };
        for event in &events {
            nat.ready(event, context);
        }
        nat.poll(context);
        Ok(())
    }
}

fn arp_reply(asked: &Arp) -> Vec<u8> {
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: ethernet_address(GATEWAY),
        source_protocol_addr: asked.target,
        target_hardware_addr: ethernet_address(asked.mac),
        target_protocol_addr: asked.sender,
    };
    frame(GATEWAY, asked.mac, EthernetProtocol::Arp, reply.buffer_len(), |bytes| {
        reply.emit(&mut ArpPacket::new_unchecked(bytes));
    })
}

/// Answers one request on the host's loopback. Returns its address.
fn serve() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || -> std::io::Result<()> {
        let (mut client, _) = listener.accept()?;
        let mut request = [0; 1024];
        let _ = client.read(&mut request)?;
        client.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello, guest\n")
    });
    Ok(address)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut gateway = Gateway::new(serve()?)?;
    let mut card = Card::default();
    let config = InterfaceConfig::new(ethernet_address(GUEST).into());
    let mut interface = Interface::new(config, &mut card, GuestTime::ZERO);
    interface.update_ip_addrs(|addresses| {
        // There is room for one.
        let _ = addresses.push(IpCidr::new(GUEST4.into(), 24));
    });
    let buffer = || SocketBuffer::new(vec![0; 65_536]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.connect(interface.context(), (GATEWAY4, 80), 4000)?;
    let mut sockets = SocketSet::new(Vec::new());
    let handle = sockets.add(socket);

    let (start, mut has_asked, mut page) = (Instant::now(), false, Vec::new());
    while start.elapsed() < PATIENCE {
        let now = GuestTime::from_micros(start.elapsed().as_micros() as i64);
        interface.poll(now, &mut card, &mut sockets);
        let socket = sockets.get_mut::<Socket<'_>>(handle);
        if socket.can_send() && !has_asked {
            has_asked = socket.send_slice(b"GET / HTTP/1.0\r\n\r\n")? > 0;
        }
        while socket.can_recv() {
            socket.recv(|bytes| {
                page.extend_from_slice(bytes);
                (bytes.len(), ())
            })?;
        }
        if has_asked && !socket.may_recv() {
            println!("{}", String::from_utf8_lossy(&page));
            return Ok(());
        }
        gateway.turn(&mut card)?;
    }
    Err("no answer".into())
}
