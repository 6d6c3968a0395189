//! Datagrams, many with one system call: recvmmsg(2) and sendmmsg(2), which libc has with raw
//! pointers only. The memory of a call is made once.
//!
//! Where a socket merges datagrams of a flow (`UDP_GRO`), one message is many datagrams of equal
//! length, of which the last may be shorter. A message of that kind can also be sent
//! (`UDP_SEGMENT`); the kernel cuts it, or the network card does. See udp(7).
#![expect(unsafe_code, reason = "system calls that take arrays of pointers")]

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::raw::c_uint;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes of the longest address.
const LONGEST: usize = size_of::<libc::sockaddr_storage>();
/// Where a Unix socket's path begins in its address.
const PATH: usize = size_of::<libc::sa_family_t>();

/// Bytes of a control message with a number of `c_int`.
const CONTROL: usize = 64;

/// Room for control messages, aligned as they have to be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// The address of a Unix, UDP over IPv4 or UDP over IPv6 socket, as the kernel has it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct Address {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Address {
    /// That of the peer to which the socket is connected.
    pub(super) const NONE: Address = Address { bytes: [0; LONGEST], len: 0 };

    fn of_parts(parts: &[&[u8]]) -> Address {
        let mut address = Address::NONE;
        for part in parts {
            address.bytes[address.len..address.len + part.len()].copy_from_slice(part);
            address.len += part.len();
        }
        address
    }

    /// Returns the address of a Unix socket; `None` if the path is empty or too long for one.
    pub fn of_path(path: &Path) -> Option<Address> {
        let path = path.as_os_str().as_bytes();
        let is_path = (1..108).contains(&path.len()) && !path.contains(&0);
        is_path.then(|| Address::of_parts(&[&family(libc::AF_UNIX), path]))
    }

    /// Returns whether the sender has an address, to which it can be answered.
    pub fn is_named(&self) -> bool {
        self.len > PATH
    }

    /// Returns the address of IP without its port; `None` of a Unix socket.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        match &self.bytes[..PATH] {
            it if *it == family(libc::AF_INET) => {
                let octets: [u8; 4] = std::array::from_fn(|i| self.bytes[4 + i]);
                Some(Ipv4Addr::from(octets).into())
            }
            it if *it == family(libc::AF_INET6) => {
                let octets: [u8; 16] = std::array::from_fn(|i| self.bytes[8 + i]);
                Some(Ipv6Addr::from(octets).into())
            }
            _ => None,
        }
    }

    /// The same without the final zero that the kernel adds to a path.
    fn trimmed(mut self, len: usize) -> Address {
        self.len = len.min(LONGEST);
        if self.bytes[..PATH] == family(libc::AF_UNIX) && self.len > PATH && self.bytes[PATH] != 0 {
            let path = &self.bytes[PATH..self.len];
            self.len = PATH + path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
        }
        self
    }
}

fn family(family: i32) -> [u8; PATH] {
    (family as libc::sa_family_t).to_ne_bytes()
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        let port = address.port().to_be_bytes();
        match address {
            SocketAddr::V4(v4) => {
                Address::of_parts(&[&family(libc::AF_INET), &port, &v4.ip().octets(), &[0; 8]])
            }
            SocketAddr::V6(v6) => Address::of_parts(&[
                &family(libc::AF_INET6),
                &port,
                // Flow labels are not part of an address.
                &[0; 4],
                &v6.ip().octets(),
                &v6.scope_id().to_ne_bytes(),
            ]),
        }
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Address) -> bool {
        self.bytes[..self.len] == other.bytes[..other.len]
    }
}

impl Eq for Address {}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = u16::from_be_bytes([self.bytes[2], self.bytes[3]]);
        let end = self.len.max(PATH);
        match &self.bytes[..PATH] {
            it if *it == family(libc::AF_INET) => {
                let [a, b, c, d] = [4, 5, 6, 7].map(|at| self.bytes[at]);
                SocketAddr::from((Ipv4Addr::new(a, b, c, d), port)).fmt(f)
            }
            it if *it == family(libc::AF_INET6) => {
                let ip: [u8; 16] = std::array::from_fn(|i| self.bytes[8 + i]);
                let scope: [u8; 4] = std::array::from_fn(|i| self.bytes[24 + i]);
                let scope = u32::from_ne_bytes(scope);
                SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope).fmt(f)
            }
            _ => String::from_utf8_lossy(&self.bytes[PATH..end]).fmt(f),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// A datagram that was received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub len: usize,
    /// Whether it was longer than its room.
    pub is_cut: bool,
    pub from: Address,
}

/// The memory of a call.
pub(super) struct Messages {
    headers: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
    from: Box<[Address]>,
    /// One for each message, or none.
    controls: Box<[Control]>,
    /// Bytes of each; 0 if there is none.
    control_len: usize,
}

// SAFETY: its pointers are followed only within a call, and lead to what it holds on the heap or
// to what is borrowed for the call.
unsafe impl Send for Messages {}

impl Messages {
    /// Makes memory for calls with up to `count` datagrams.
    pub(super) fn new(count: usize) -> Messages {
        // SAFETY: all zeroes is a valid empty message.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Messages {
            headers: vec![header; count].into(),
            iovecs: vec![iovec; count].into(),
            from: vec![Address::NONE; count].into(),
            controls: Box::default(),
            control_len: 0,
        }
    }

    /// Does the same for a socket that merges datagrams, and to send such.
    pub(super) fn of_segments(count: usize) -> Messages {
        let mut controls: Box<[Control]> = vec![Control([0; CONTROL]); count].into();
        let mut messages = Messages { control_len: CONTROL, ..Messages::new(count) };
        for (header, control) in messages.headers.iter_mut().zip(&mut controls) {
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
        }
        messages.controls = controls;
        messages
    }

    /// Receives one datagram into each of `rooms`, as far as there are any; returns how many.
    ///
    /// # Errors
    /// The kernel's; `EAGAIN` if there is none.
    pub(super) fn receive<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        rooms: impl Iterator<Item = &'a mut [u8]>,
    ) -> io::Result<usize> {
        let mut count = 0;
        for (room, i) in rooms.zip(0..self.headers.len()) {
            self.iovecs[i] = iovec(room.as_mut_ptr(), room.len());
            let header = &mut self.headers[i].msg_hdr;
            header.msg_name = self.from[i].bytes.as_mut_ptr().cast();
            header.msg_namelen = LONGEST as libc::socklen_t;
            header.msg_iov = &raw mut self.iovecs[i];
            header.msg_iovlen = 1;
            header.msg_flags = 0;
            header.msg_controllen = self.control_len as _;
            count = i + 1;
        }
        // SAFETY: each of the first `count` headers names an iovec, an address and perhaps room for
        // control messages held here, and the iovec a room that is borrowed until after the call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if received < 0 { Err(io::Error::last_os_error()) } else { Ok(received as usize) }
    }

    /// Returns the `i`th datagram of the last [`Messages::receive`].
    pub(super) fn received(&self, i: usize) -> Received {
        let header = &self.headers[i];
        Received {
            len: header.msg_len as usize,
            is_cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            from: self.from[i].trimmed(header.msg_hdr.msg_namelen as usize),
        }
    }

    /// Returns the length of the datagrams that the `i`th message of the last [`Messages::receive`]
    /// was merged of, but the last.
    pub(super) fn segment(&self, i: usize) -> Option<usize> {
        let length = self.control(i, libc::SOL_UDP, libc::UDP_GRO)?;
        usize::try_from(length).ok()
    }

    /// Returns how many datagrams the socket had dropped before that message came, modulo 2^32;
    /// `None` if none, or if the socket does not tell (`SO_RXQ_OVFL`).
    pub(super) fn drops(&self, i: usize) -> Option<u32> {
        Some(self.control(i, libc::SOL_SOCKET, libc::SO_RXQ_OVFL)? as u32)
    }

    /// Returns the number in a control message of that message.
    fn control(&self, i: usize, level: i32, kind: i32) -> Option<libc::c_int> {
        let header = &self.headers[i].msg_hdr;
        self.controls.get(i)?;
        // SAFETY: the kernel has filled `msg_controllen` bytes of the room, which is held here and
        // has not moved since: it is on the heap.
        let mut message = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() }?;
        while (message.cmsg_level, message.cmsg_type) != (level, kind) {
            // SAFETY: as above; `message` lies in the room.
            message = unsafe { libc::CMSG_NXTHDR(header, message).as_ref() }?;
        }
        // SAFETY: both kinds that are asked for have four bytes of data.
        Some(unsafe { libc::CMSG_DATA(message).cast::<libc::c_int>().read_unaligned() })
    }

    /// Sends `bytes` as datagrams of `segment` bytes each, of which the last may be shorter.
    ///
    /// # Errors
    /// The kernel's; nothing was sent.
    pub(super) fn send_segments(
        &mut self,
        socket: BorrowedFd<'_>,
        to: &Address,
        bytes: &[u8],
        segment: u16,
    ) -> io::Result<()> {
        let mut iovec = iovec(bytes.as_ptr().cast_mut(), bytes.len());
        let control = self.controls.first_mut().ok_or(io::ErrorKind::Unsupported)?;
        // SAFETY: all zeroes is a valid empty message.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_name = to.bytes.as_ptr().cast_mut().cast();
        header.msg_namelen = to.len as libc::socklen_t;
        header.msg_iov = &raw mut iovec;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: computes a length.
        header.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<u16>() as u32) } as _;
        // SAFETY: the room is longer than the one message, and aligned for it.
        unsafe {
            let message = libc::CMSG_FIRSTHDR(&raw const header);
            (*message).cmsg_level = libc::SOL_UDP;
            (*message).cmsg_type = libc::UDP_SEGMENT;
            (*message).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as _;
            libc::CMSG_DATA(message).cast::<u16>().write_unaligned(segment);
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the header names `to`, `bytes` and a control message, which are borrowed until
        // after the call. The kernel writes to none.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, flags) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Sends each of `datagrams`, and returns how many were sent before the first that was not.
    ///
    /// # Errors
    /// The kernel's for the first datagram.
    pub(super) fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        to: &Address,
        datagrams: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<usize> {
        let mut count = 0;
        for (datagram, i) in datagrams.zip(0..self.headers.len()) {
            self.iovecs[i] = iovec(datagram.as_ptr().cast_mut(), datagram.len());
            let header = &mut self.headers[i].msg_hdr;
            header.msg_name = to.bytes.as_ptr().cast_mut().cast();
            header.msg_namelen = to.len as libc::socklen_t;
            header.msg_iov = &raw mut self.iovecs[i];
            header.msg_iovlen = 1;
            header.msg_controllen = 0;
            count = i + 1;
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: each of the first `count` headers names `to` and an iovec held here, and the
        // iovec a datagram that is borrowed until after the call. The kernel writes to none.
        let sent = unsafe {
            let headers = self.headers.as_mut_ptr();
            libc::sendmmsg(socket.as_raw_fd(), headers, count as c_uint, flags)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }
}

fn iovec(at: *mut u8, len: usize) -> libc::iovec {
    libc::iovec { iov_base: at.cast(), iov_len: len }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn addresses_are_those_of_the_kernel() {
        let mut messages = Messages::new(2);
        let mut room = [0; 64];
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let [a, b] = [0; 2].map(|_| UdpSocket::bind(at).unwrap());
            let [from, to] = [&a, &b].map(|it| it.local_addr().unwrap());
            let sent = messages.send(a.as_fd(), &to.into(), [&b"abc"[..]].into_iter());
            assert_eq!(sent.unwrap(), 1);
            messages.receive(b.as_fd(), [&mut room[..]].into_iter()).unwrap();
            let received = messages.received(0);
            assert_eq!((received.len, received.from), (3, Address::from(from)));
            assert_eq!(received.from.to_string(), from.to_string());
        }
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "longer", "b"].map(|name| folder.path().join(name));
        let sockets = paths.each_ref().map(|path| UnixDatagram::bind(path).unwrap());
        let to = Address::of_path(&paths[2]).unwrap();
        // The room of an address that was short is whole again.
        for (socket, path) in sockets.iter().zip(&paths).take(2) {
            assert_eq!(messages.send(socket.as_fd(), &to, [&b"x"[..]].into_iter()).unwrap(), 1);
            messages.receive(sockets[2].as_fd(), [&mut room[..]].into_iter()).unwrap();
            let from = messages.received(0).from;
            assert_eq!(from, Address::of_path(path).unwrap());
            assert_eq!(from.to_string(), path.to_str().unwrap());
        }
        UnixDatagram::unbound().unwrap().send_to(b"y", &paths[2]).unwrap();
        messages.receive(sockets[2].as_fd(), [&mut room[..]].into_iter()).unwrap();
        assert!(!messages.received(0).from.is_named());
    }

    #[test]
    fn what_is_sent_as_one_arrives_as_one_or_as_many() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let [a, b] = [0; 2].map(|_| UdpSocket::bind(at).unwrap());
            let to = b.local_addr().unwrap();
            let mut messages = Messages::of_segments(4);
            let bytes: Vec<u8> = (0..250).collect();
            messages.send_segments(a.as_fd(), &to.into(), &bytes, 100).unwrap();
            let mut rooms = [[0; 300]; 4];
            let received = messages.receive(b.as_fd(), rooms.iter_mut().map(|room| &mut room[..]));
            assert_eq!(received.unwrap(), 3);
            let lens = [0, 1, 2].map(|i| (messages.received(i).len, messages.segment(i)));
            assert_eq!(lens, [(100, None), (100, None), (50, None)]);
            let (on, size) = (1, size_of::<libc::c_int>() as u32);
            // SAFETY: the option is a `c_int`.
            let set = unsafe {
                let on = (&raw const on).cast();
                libc::setsockopt(b.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, on, size)
            };
            assert_eq!(set, 0);
            messages.send_segments(a.as_fd(), &to.into(), &bytes, 100).unwrap();
            let received = messages.receive(b.as_fd(), rooms.iter_mut().map(|room| &mut room[..]));
            assert_eq!(received.unwrap(), 1);
            let received = messages.received(0);
            assert_eq!((received.len, messages.segment(0)), (250, Some(100)));
            assert_eq!(received.from.ip(), Some(to.ip()));
            assert_eq!(rooms[0][..250], bytes);
        }
    }

    #[test]
    fn what_is_too_long_is_cut_and_said_so() {
        let (a, b) = UnixDatagram::pair().unwrap();
        a.send(&[1; 10]).unwrap();
        a.send(&[2; 8]).unwrap();
        let (mut one, mut two, mut three) = ([0; 8], [0; 8], [0; 8]);
        let rooms = [&mut one[..], &mut two[..], &mut three[..]];
        let mut messages = Messages::new(3);
        assert_eq!(messages.receive(b.as_fd(), rooms.into_iter()).unwrap(), 2);
        assert!(messages.received(0).is_cut && !messages.received(1).is_cut);
        assert_eq!((one, two), ([1; 8], [2; 8]));
        let error = messages.receive(b.as_fd(), [&mut three[..]].into_iter()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
