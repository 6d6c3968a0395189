//! Frames for the tests, built by etherparse, which is independent of this crate.

use etherparse::{
    Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpHeader, TcpOptions, UdpHeader, ip_number,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::ethernet::MAX_TAGS;
use crate::vnet::{GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VnetHeader};

/// The headers of a frame that may be large.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    /// VLAN tags (TPID and TCI), outermost first.
    pub tags: Vec<(u16, u16)>,
    pub is_v6: bool,
    pub addresses: [u8; 32],
    pub ports: (u16, u16),
    pub identification: u16,
    /// Words of options, of any content; IPv4 alone carries them.
    pub ip_options: Vec<[u8; 4]>,
    pub transport: FlowTransport,
}

#[derive(Clone, Debug)]
pub(crate) enum FlowTransport {
    Udp,
    Tcp(FlowTcp),
}

#[derive(Clone, Debug)]
pub(crate) struct FlowTcp {
    pub sequence: u32,
    pub acknowledgement: u32,
    pub window: u16,
    pub fin: bool,
    pub psh: bool,
    pub ece: bool,
    pub cwr: bool,
    pub ns: bool,
    pub options: Vec<[u8; 4]>,
}

impl Flow {
    /// A plain TCP flow to start from in hand-written cases.
    pub(crate) fn tcp(is_v6: bool) -> Flow {
        let tcp = FlowTcp {
            sequence: 1000,
            acknowledgement: 7,
            window: 500,
            fin: false,
            psh: false,
            ece: false,
            cwr: false,
            ns: false,
            options: vec![],
        };
        Flow { transport: FlowTransport::Tcp(tcp), ..Flow::udp(is_v6) }
    }

    pub(crate) fn udp(is_v6: bool) -> Flow {
        Flow {
            tags: vec![],
            is_v6,
            addresses: std::array::from_fn(|index| index as u8 + 1),
            ports: (1234, 80),
            identification: 1,
            ip_options: vec![],
            transport: FlowTransport::Udp,
        }
    }

    pub(crate) fn any() -> impl Strategy<Value = Flow> {
        let transport = prop_oneof![
            1 => Just(FlowTransport::Udp),
            3 => any_tcp().prop_map(FlowTransport::Tcp),
        ];
        let tag = (prop_oneof![Just(0x8100u16), Just(0x88a8u16)], any::<u16>());
        let tags = prop_oneof![3 => vec(tag.clone(), 0..=1), 2 => vec(tag, 2..=MAX_TAGS)];
        let words = vec(any::<[u8; 4]>(), 0..=10);
        let network = (any::<bool>(), any::<[u8; 32]>(), any::<(u16, u16)>(), any::<u16>(), words);
        (tags, network, transport).prop_map(|(tags, network, transport)| {
            let (is_v6, addresses, ports, identification, ip_options) = network;
            Flow { tags, is_v6, addresses, ports, identification, ip_options, transport }
        })
    }

    /// Offset of the TCP or UDP header.
    pub(crate) fn transport_at(&self) -> usize {
        14 + 4 * self.tags.len() + if self.is_v6 { 40 } else { 20 + 4 * self.ip_options.len() }
    }

    pub(crate) fn payload_at(&self) -> usize {
        self.transport_at()
            + match &self.transport {
                FlowTransport::Udp => 8,
                FlowTransport::Tcp(tcp) => 20 + 4 * tcp.options.len(),
            }
    }

    fn checksum_offset(&self) -> usize {
        if matches!(self.transport, FlowTransport::Udp) { 6 } else { 16 }
    }

    /// A frame with all lengths and checksums in place.
    pub(crate) fn frame(&self, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for (tpid, tci) in &self.tags {
            frame.extend_from_slice(&tpid.to_be_bytes());
            frame.extend_from_slice(&tci.to_be_bytes());
        }
        let transport_len = self.payload_at() - self.transport_at() + payload.len();
        if self.is_v6 {
            let ip = self.ipv6(transport_len);
            frame.extend_from_slice(&[0x86, 0xdd]);
            frame.extend_from_slice(&ip.to_bytes());
            frame.extend_from_slice(&self.transport_bytes(
                |tcp| tcp.calc_checksum_ipv6(&ip, payload).unwrap(),
                |udp| udp.calc_checksum_ipv6(&ip, payload).unwrap(),
                transport_len,
            ));
        } else {
            let ip = self.ipv4(transport_len);
            frame.extend_from_slice(&[0x08, 0x00]);
            frame.extend_from_slice(&ip.to_bytes());
            frame.extend_from_slice(&self.transport_bytes(
                |tcp| tcp.calc_checksum_ipv4(&ip, payload).unwrap(),
                |udp| udp.calc_checksum_ipv4(&ip, payload).unwrap(),
                transport_len,
            ));
        }
        assert_eq!(frame.len(), self.payload_at());
        frame.extend_from_slice(payload);
        frame
    }

    /// The same as one large frame, as a driver hands it over: the checksum field holds the
    /// sum of the pseudo-header. The payload must not be empty.
    pub(crate) fn large(&self, payload: &[u8], gso_size: u16) -> (Vec<u8>, VnetHeader) {
        let mut frame = self.frame(payload);
        let at = self.transport_at() + self.checksum_offset();
        frame[at..at + 2].copy_from_slice(&self.pseudo_sum(payload.len()).to_be_bytes());
        let gso_type = match (&self.transport, self.is_v6) {
            (FlowTransport::Udp, _) => GSO_UDP_L4,
            (FlowTransport::Tcp(_), false) => GSO_TCPV4,
            (FlowTransport::Tcp(_), true) => GSO_TCPV6,
        };
        let header = VnetHeader {
            flags: NEEDS_CSUM,
            gso_type,
            hdr_len: self.payload_at() as u16,
            gso_size,
            csum_start: self.transport_at() as u16,
            csum_offset: self.checksum_offset() as u16,
            num_buffers: 0,
        };
        (frame, header)
    }

    fn pseudo_sum(&self, payload_len: usize) -> u16 {
        let addresses = if self.is_v6 { &self.addresses[..] } else { &self.addresses[..8] };
        let transport_len = self.payload_at() - self.transport_at() + payload_len;
        let protocol = if matches!(self.transport, FlowTransport::Udp) { 17 } else { 6 };
        let words = addresses.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let total: u32 = words.sum::<u32>() + transport_len as u32 + protocol;
        (0..2).fold(total, |sum, _| (sum & 0xffff) + (sum >> 16)) as u16
    }

    fn ip_number(&self) -> etherparse::IpNumber {
        if matches!(self.transport, FlowTransport::Udp) { ip_number::UDP } else { ip_number::TCP }
    }

    fn ipv4(&self, transport_len: usize) -> Ipv4Header {
        let [source, destination] = [&self.addresses[..4], &self.addresses[4..8]]
            .map(|octets| <[u8; 4]>::try_from(octets).unwrap());
        let mut ip = Ipv4Header::new(0, 64, self.ip_number(), source, destination).unwrap();
        ip.identification = self.identification;
        ip.options = self.ip_options.as_flattened().try_into().unwrap();
        ip.set_payload_len(transport_len).unwrap();
        ip.header_checksum = ip.calc_header_checksum();
        ip
    }

    fn ipv6(&self, transport_len: usize) -> Ipv6Header {
        Ipv6Header {
            traffic_class: 3,
            flow_label: Ipv6FlowLabel::try_new(0xabcde).unwrap(),
            payload_length: transport_len.try_into().unwrap(),
            next_header: self.ip_number(),
            hop_limit: 64,
            source: self.addresses[..16].try_into().unwrap(),
            destination: self.addresses[16..].try_into().unwrap(),
        }
    }

    fn transport_bytes(
        &self,
        tcp_checksum: impl Fn(&TcpHeader) -> u16,
        udp_checksum: impl Fn(&UdpHeader) -> u16,
        transport_len: usize,
    ) -> Vec<u8> {
        let (source_port, destination_port) = self.ports;
        match &self.transport {
            FlowTransport::Udp => {
                let length = transport_len.try_into().unwrap();
                let mut udp = UdpHeader { source_port, destination_port, length, checksum: 0 };
                udp.checksum = udp_checksum(&udp);
                udp.to_bytes().to_vec()
            }
            FlowTransport::Tcp(flow) => {
                let mut tcp =
                    TcpHeader::new(source_port, destination_port, flow.sequence, flow.window);
                tcp.acknowledgment_number = flow.acknowledgement;
                tcp.options = TcpOptions::try_from_slice(flow.options.as_flattened()).unwrap();
                (tcp.ack, tcp.fin, tcp.psh) = (true, flow.fin, flow.psh);
                (tcp.ece, tcp.cwr, tcp.ns) = (flow.ece, flow.cwr, flow.ns);
                tcp.checksum = tcp_checksum(&tcp);
                tcp.to_bytes().to_vec()
            }
        }
    }
}

fn any_tcp() -> impl Strategy<Value = FlowTcp> {
    // Sequence numbers that wrap within the frame are as likely as others.
    let sequence = prop_oneof![any::<u32>(), (u32::MAX - 4000)..=u32::MAX];
    let flags = any::<(bool, bool, bool, bool, bool)>();
    let words = vec(any::<[u8; 4]>(), 0..=10);
    (sequence, any::<u32>(), any::<u16>(), flags, words).prop_map(
        |(sequence, acknowledgement, window, (fin, psh, ece, cwr, ns), options)| FlowTcp {
            sequence,
            acknowledgement,
            window,
            fin,
            psh,
            ece,
            cwr,
            ns,
            options,
        },
    )
}

/// An IPv4 frame, by its EtherType, without a tag.
pub(crate) fn untagged(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    frame.extend_from_slice(payload);
    frame
}
