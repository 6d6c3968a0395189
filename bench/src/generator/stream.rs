//! A TCP connection whose near end is the driver side of a vhost-user port: generates what a
//! virtual machine with segmentation offload puts on its rings, without the machine.
//!
//! The far end is a host's kernel. The near end implements RFC 9293 as far as one bulk transfer
//! needs: handshake, window scaling (RFC 7323), cumulative acknowledgements, and go-back-N
//! retransmission after three duplicates or a timeout. It has no congestion control: the far end's
//! window limits the data in flight, and the path is one switch. The payload is zeroes, so none is
//! copied or kept.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use etherparse::{PacketBuilder, TcpOptionElement, TcpSlice};
use trama_frame::checksum;
use trama_frame::vnet::{GSO_TCPV4, NEEDS_CSUM, VnetHeader};
use trama_vhost_net_backend::Role;
use trama_virtqueue::{DriverError, Received};

use super::port::{Endpoint, Options, Port};
use super::waiter::Waiter;
use super::{Error, Result};

/// Payload of a packet at an MTU of 1500, and the number of them in a frame of 64 KiB.
const SEGMENT: u16 = 1460;
const SEGMENTS: u16 = 44;
const PAYLOAD: u32 = SEGMENT as u32 * SEGMENTS as u32;
/// Ethernet, IPv4 and TCP headers, without options.
const HEADERS: usize = 14 + 20 + 20;
const TCP_AT: usize = 14 + 20;
const SEQUENCE_AT: usize = TCP_AT + 4;
const CHECKSUM_AT: usize = TCP_AT + 16;
/// Frames of 64 KiB on the sender's ring: 4 MiB, about what a socket has in flight.
const SEND_RING: u16 = 64;
/// Buffers of the receiver's ring: 2 MiB, twice its window.
const RECEIVE_RING: u16 = 1024;
const WINDOW_SCALE: u8 = 7;
const WINDOW: u16 = (1 << 20 >> WINDOW_SCALE) as u16;
/// Frames received before the next are sent.
const BURST: usize = 64;
/// Retransmission timeout, for data and SYN.
const TIMEOUT: Duration = Duration::from_millis(200);
const DUPLICATES: u32 = 3;
/// The longest sleep, in nanoseconds, so that timeouts are checked without arrivals.
const MAX_SLEEP: u64 = 1_000_000;
/// Time limit for the far end to answer.
const PATIENCE: Duration = Duration::from_secs(20);

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const FIN: u8 = 0x01;
const ACK: u8 = 0x10;

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct TcpEnd {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its IPv4 address.
    pub address: Ipv4Addr,
    /// Its TCP port.
    pub port: u16,
}

/// What the near end of a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// Sends.
    Send,
    /// Receives.
    Receive,
}

/// A connection for one bulk transfer in either direction.
pub struct TcpStream {
    port: Port,
    waiter: Waiter,
    near: TcpEnd,
    far: TcpEnd,
    /// The next sequence number to send, and the first that is not acknowledged.
    next: u32,
    acknowledged: u32,
    duplicates: u32,
    /// The far end's window from `acknowledged` on, and the shift of its window field.
    window: u32,
    scale: u8,
    /// The next sequence number to receive.
    expected: u32,
    /// The far end has closed the connection.
    closed: bool,
}

/// The fields of a segment that are used.
struct Segment {
    sequence: u32,
    acknowledges: u32,
    flags: u8,
    window: u16,
    payload: u32,
}

impl Segment {
    /// Parses a frame; returns `None` unless it is a segment from `far` to `near`.
    fn read(frame: &Received<'_>, near: &TcpEnd, far: &TcpEnd) -> Option<Segment> {
        let is_tcp = frame.get(12)? == [8, 0, 0x45] && frame.get(23)? == [6];
        let ports = [far.port.to_be_bytes(), near.port.to_be_bytes()];
        if !is_tcp || [frame.get(TCP_AT)?, frame.get(TCP_AT + 2)?] != ports {
            return None;
        }
        let number = |at| frame.get(at).map(u32::from_be_bytes);
        let [offset, flags] = frame.get(TCP_AT + 12)?;
        let headers = 20 + u32::from(offset >> 4) * 4;
        Some(Segment {
            sequence: number(SEQUENCE_AT)?,
            acknowledges: number(SEQUENCE_AT + 4)?,
            flags,
            window: u16::from_be_bytes(frame.get(TCP_AT + 14)?),
            payload: u32::from(u16::from_be_bytes(frame.get(16)?)).checked_sub(headers)?,
        })
    }
}

fn broken(error: DriverError) -> Error {
    Error::Ring { port: 0, error }
}

impl TcpStream {
    /// Connects `near`, on the vhost-user `socket`, to `far`, for one transfer.
    ///
    /// # Errors
    /// The backend does not connect, offers no segmentation offload, or `far` does not listen.
    pub fn connect(
        socket: &Path,
        backend_role: Role,
        [near, far]: [TcpEnd; 2],
        transfer: Transfer,
    ) -> Result<TcpStream> {
        let mut options =
            Options { offloads: true, sleeping: true, backend_role, ..Options::default() };
        if transfer == Transfer::Send {
            options.queue_size = SEND_RING;
            options.largest_frame = HEADERS + PAYLOAD as usize;
        } else {
            options.queue_size = RECEIVE_RING;
        }
        let port = Endpoint::bind(socket, backend_role)?.start(&options)?;
        let waiter = Waiter::new(std::slice::from_ref(&port))?;
        let mut stream = TcpStream {
            port,
            waiter,
            near,
            far,
            next: 1,
            acknowledged: 1,
            duplicates: 0,
            window: 0,
            scale: 0,
            expected: 0,
            closed: false,
        };
        stream.connect_handshake()?;
        if transfer == Transfer::Send {
            stream.prepare()?;
        }
        Ok(stream)
    }

    /// Sends SYNs until one is answered, and acknowledges the answer.
    fn connect_handshake(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        let mut frame = Vec::new();
        while Instant::now() < end {
            self.send_control(SYN)?;
            self.wait(TIMEOUT.as_nanos() as u64)?;
            while self.port.rx.recv(&mut frame).map_err(broken)?.is_some() {
                if self.take_answer(&frame) {
                    self.port.refill();
                    return self.send_control(ACK);
                }
            }
            self.port.refill();
        }
        let TcpEnd { address, port, .. } = self.far;
        Err(Error::NotForwarded(format!("no answer from {address}, TCP port {port}")))
    }

    /// Returns whether this frame answers the SYN.
    fn take_answer(&mut self, frame: &[u8]) -> bool {
        let Some(Ok(tcp)) = frame.get(TCP_AT..).map(TcpSlice::from_slice) else { return false };
        let is_answer = frame.starts_with(&self.near.mac)
            && frame.get(23) == Some(&6)
            && (tcp.syn() && tcp.ack())
            && (tcp.source_port(), tcp.acknowledgment_number()) == (self.far.port, self.next);
        if is_answer {
            let options = tcp.options_iterator();
            self.scale = options
                .filter_map(|option| match option {
                    Ok(TcpOptionElement::WindowScale(scale)) => Some(scale.min(14)),
                    _ => None,
                })
                .next()
                .unwrap_or(0);
            self.window = tcp.window_size().into();
            self.expected = tcp.sequence_number().wrapping_add(1);
        }
        is_answer
    }

    /// Sends a segment without payload: SYN or acknowledgement.
    fn send_control(&mut self, flags: u8) -> Result<()> {
        let (near, far) = (self.near, self.far);
        let packet = PacketBuilder::ethernet2(near.mac, far.mac).ipv4(
            near.address.octets(),
            far.address.octets(),
            64,
        );
        // A SYN's number precedes that of the first byte.
        let (sequence, window) =
            if flags == SYN { (self.next - 1, u16::MAX) } else { (self.next, WINDOW) };
        let packet = packet.tcp(near.port, far.port, sequence, window);
        let mut bytes = Vec::with_capacity(128);
        let built = if flags == SYN {
            let options = [
                TcpOptionElement::MaximumSegmentSize(SEGMENT),
                TcpOptionElement::Noop,
                TcpOptionElement::WindowScale(WINDOW_SCALE),
            ];
            packet.syn().options(&options).map(|packet| packet.write(&mut bytes, &[]))
        } else {
            Ok(packet.ack(self.expected).write(&mut bytes, &[]))
        };
        if !matches!(built, Ok(Ok(()))) {
            return Err(Error::Load("a TCP header could not be built".into()));
        }
        self.port.tx.reclaim().map_err(broken)?;
        self.port.tx.send(&VnetHeader::default().to_bytes(), &[&bytes]).map_err(broken)?;
        self.port.publish();
        Ok(())
    }

    /// Fills the ring's buffers with large segments; only the sequence number changes later.
    fn prepare(&mut self) -> Result<()> {
        let (near, far) = (self.near, self.far);
        let mut frame = Vec::with_capacity(HEADERS + PAYLOAD as usize);
        PacketBuilder::ethernet2(near.mac, far.mac)
            .ipv4(near.address.octets(), far.address.octets(), 64)
            .tcp(near.port, far.port, self.next, WINDOW)
            .ack(self.expected)
            .write(&mut frame, &[0; PAYLOAD as usize])
            .map_err(|error| Error::Load(error.to_string()))?;
        // The pseudo-header's sum (virtio 1.2, section 5.1.6.2); the receiver completes it.
        let length = (PAYLOAD as u16 + 20).to_be_bytes();
        let pseudo = [&near.address.octets()[..], &far.address.octets(), &[0, 6], &length].concat();
        let sum = checksum::fold(checksum::sum(&pseudo)).to_be_bytes();
        frame[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum);
        let header = VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            hdr_len: HEADERS as u16,
            gso_size: SEGMENT,
            csum_start: TCP_AT as u16,
            csum_offset: (CHECKSUM_AT - TCP_AT) as u16,
            num_buffers: 0,
        };
        if !self.port.settle(SEND_RING, Instant::now() + PATIENCE).map_err(broken)? {
            return Err(Error::NotForwarded("buffers that were sent did not come back".into()));
        }
        self.port.tx.prepare(&header.to_bytes(), &frame).map_err(broken)
    }

    /// Sends for `time` or until the far end closes the connection, which must have been opened to
    /// send. Returns the bytes acknowledged meanwhile.
    ///
    /// # Errors
    /// The device violates the ring protocol.
    pub fn send(&mut self, time: Duration) -> Result<u64> {
        let mut total = 0;
        let end = Instant::now() + time;
        let mut progress = Instant::now();
        while !self.closed {
            let now = Instant::now();
            let before = self.acknowledged;
            let received = self.receive_each(|stream, segment| stream.take_ack(&segment))?;
            let gain = self.acknowledged.wrapping_sub(before);
            total += u64::from(gain);
            if gain > 0 || self.next == self.acknowledged {
                progress = now;
            }
            if self.duplicates == DUPLICATES || now > progress + TIMEOUT {
                (self.next, progress) = (self.acknowledged, now);
                // Duplicates caused by earlier data are ignored.
                self.duplicates = DUPLICATES + 1;
            }
            if now > end {
                break;
            }
            if self.fill_window()? + received == 0 {
                self.wait(MAX_SLEEP)?;
            }
        }
        Ok(total)
    }

    /// Sends what the window and the ring allow; returns the number of frames.
    fn fill_window(&mut self) -> Result<usize> {
        let mut sent = 0;
        self.port.tx.reclaim().map_err(broken)?;
        while self.port.tx.free() > 0
            && self.next.wrapping_sub(self.acknowledged) + PAYLOAD <= self.window
        {
            let sequence = self.next.to_be_bytes();
            self.port.tx.send_again(|frame| frame.put(SEQUENCE_AT, sequence)).map_err(broken)?;
            self.next = self.next.wrapping_add(PAYLOAD);
            sent += 1;
        }
        if sent > 0 {
            self.port.publish();
        }
        Ok(sent)
    }

    fn take_ack(&mut self, segment: &Segment) {
        self.closed |= segment.flags & (RST | FIN) != 0;
        let gain = segment.acknowledges.wrapping_sub(self.acknowledged);
        let window = u32::from(segment.window) << self.scale;
        if gain == 0 && window == self.window && segment.payload == 0 {
            self.duplicates += 1;
        } else if gain < 1 << 31 {
            self.acknowledged = segment.acknowledges;
            self.duplicates = 0;
            // After going back, an acknowledgement may exceed what was sent again.
            if self.next.wrapping_sub(self.acknowledged) >= 1 << 31 {
                self.next = self.acknowledged;
            }
            self.window = window;
        }
    }

    /// Receives for `time` or until the far end closes the connection. Returns the bytes received
    /// in order.
    ///
    /// # Errors
    /// The device violates the ring protocol.
    pub fn receive(&mut self, time: Duration) -> Result<u64> {
        let mut total = 0;
        let end = Instant::now() + time;
        while !self.closed && Instant::now() < end {
            let before = self.expected;
            let mut data = false;
            let received = self.receive_each(|stream, segment| {
                stream.closed |= segment.flags & (RST | FIN) != 0;
                data |= segment.payload > 0;
                if segment.sequence == stream.expected {
                    stream.expected = stream.expected.wrapping_add(segment.payload);
                }
            })?;
            total += u64::from(self.expected.wrapping_sub(before));
            if data {
                // Also out of order: a duplicate acknowledgement reports the gap.
                self.send_control(ACK)?;
            }
            if received == 0 {
                self.wait(MAX_SLEEP)?;
            }
        }
        Ok(total)
    }

    /// Polls the ring once and calls `take` for each segment of this connection. Returns the number
    /// of frames.
    fn receive_each(&mut self, mut take: impl FnMut(&mut Self, Segment)) -> Result<usize> {
        let (near, far) = (self.near, self.far);
        let mut segments = Vec::with_capacity(BURST);
        let rx = &mut self.port.rx;
        let count = rx
            .recv_each(BURST, |frame| segments.extend(Segment::read(frame, &near, &far)))
            .map_err(broken)?;
        self.port.refill();
        segments.into_iter().for_each(|segment| take(self, segment));
        Ok(count)
    }

    /// Sleeps until a frame comes, or about `nanos`.
    fn wait(&mut self, nanos: u64) -> Result<()> {
        if !self.port.rx.arm() {
            let _ = self.waiter.wait(nanos)?.count();
        }
        self.port.rx.disarm();
        Ok(())
    }
}
