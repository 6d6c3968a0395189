//! Joins an interface: a packet socket, its ring and its filter. Another process may then use the
//! socket.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::raw::c_int;
use std::ptr::NonNull;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use trama_frame::vnet::LEN as HEADER;
use trama_frame::{MacAddr, Offloads};
use trama_tap::{Link, NamespaceError, in_namespace};

use super::burst::{Mapping, Ring};
use super::option::set_option;
use super::slot::{BLOCK, BLOCKS, PER_BLOCK, SLOT};
use super::{UplinkOptions, UplinkParts, to_host};

/// Header size of kernels before 6.5: without `num_buffers`.
const SHORT_HEADER: usize = 10;
/// The header sizes that there are.
pub(super) const HEADERS: [usize; 2] = [HEADER, SHORT_HEADER];
/// Not in libc yet (`linux/if_packet.h`).
const PACKET_VNET_HDR_SZ: c_int = 24;
/// Most bytes waiting in the interface's queue: some 60 large segments.
const SEND_BUFFER: c_int = 4 << 20;

/// Why an interface could not be joined: names it, the failed step and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("interface {ifname}: {step}: {error}{remedy}")]
pub struct UplinkError {
    ifname: String,
    step: String,
    error: io::Error,
    remedy: String,
    is_of_link: bool,
}

impl UplinkError {
    /// Returns whether the interface is missing, down or too small: an event of its link may mend
    /// that.
    pub fn is_of_link(&self) -> bool {
        self.is_of_link
    }
}

const NEEDS_RAW: &str = "; run with CAP_NET_RAW and CAP_NET_ADMIN";

/// A failed step, before the interface's name is added.
struct Failure {
    step: String,
    error: io::Error,
    remedy: String,
    is_of_link: bool,
}

impl Failure {
    /// A failure that the state of the interface explains.
    fn of_link(step: &str, error: io::Error, remedy: String) -> Failure {
        Failure { step: step.to_owned(), error, remedy, is_of_link: true }
    }
}

impl From<NamespaceError> for Failure {
    fn from(NamespaceError { step, error, remedy }: NamespaceError) -> Failure {
        Failure { step, error, remedy: format!("; {remedy}"), is_of_link: false }
    }
}

/// Names a step that failed.
fn at(step: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| {
        let denied = matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES));
        let remedy = if denied { NEEDS_RAW.to_owned() } else { String::new() };
        Failure { step: step.to_owned(), error, remedy, is_of_link: false }
    }
}

pub(super) fn open(options: &UplinkOptions) -> Result<UplinkParts, UplinkError> {
    let UplinkOptions { ifname, netns, mtu } = options;
    let joined = match netns {
        None => join(ifname, *mtu),
        Some(netns) => in_namespace(netns, || join(ifname, *mtu))
            .map(|(parts, namespace)| UplinkParts { namespace: Some(namespace), ..parts }),
    };
    joined.map_err(|Failure { step, error, remedy, is_of_link }| UplinkError {
        ifname: ifname.clone(),
        step,
        error,
        remedy,
        is_of_link,
    })
}

fn join(ifname: &str, mtu: u16) -> Result<UplinkParts, Failure> {
    // Without a protocol it receives nothing before it is ready.
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)
        .map_err(|error| at("open a packet socket")(error.into()))?;
    let Interface { index, mac } = Interface::query(ifname, mtu)?;
    let version = libc::tpacket_versions::TPACKET_V2 as c_int;
    set(&fd, libc::PACKET_VERSION, &version).map_err(at("choose the ring's version"))?;
    let (header, offloads) = enable_header(&fd)?;
    // Unlikely as a mark of the host's own packets, and not negative.
    let token = token();
    filter(&fd, token).map_err(at("attach the receive filter"))?;
    make_ring(&fd).map_err(at("make the receive ring"))?;
    // Above the system-wide limit if permitted, else up to that limit.
    if set_option(&fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_BUFFER).is_err() {
        set_option(&fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &SEND_BUFFER)
            .map_err(at("size the send buffer"))?;
    }
    set_promiscuous(&fd, index).map_err(at("make the interface promiscuous"))?;
    let to_host = to_host::attach(&fd, index, mac, token).map_err(|error| error.to_string());
    bind(&fd, index).map_err(at("bind to the interface"))?;
    Ok(UplinkParts { socket: fd, to_host, header, offloads, mac, namespace: None })
}

/// Properties of an interface.
struct Interface {
    index: c_int,
    mac: MacAddr,
}

impl Interface {
    fn query(ifname: &str, mtu: u16) -> Result<Interface, Failure> {
        let other = |message: &str, remedy: String| {
            Failure::of_link("check it", io::Error::other(message.to_owned()), remedy)
        };
        let Link { index, mac, is_up, mtu: carries } = Link::query(ifname).map_err(|error| {
            let remedy = "; `ip link` lists the interfaces; trama joins it when it appears";
            Failure::of_link("find it", error, remedy.to_owned())
        })?;
        let Some(mac) = mac else {
            let remedy = "; use an Ethernet interface".to_owned();
            return Err(other("it does not carry Ethernet frames", remedy));
        };
        if !is_up {
            return Err(other("it is down", format!("; `ip link set {ifname} up`")));
        }
        if carries < c_int::from(mtu) {
            let remedy = format!(
                "; `ip link set {ifname} mtu {mtu}`, or set the network's mtu to {carries}"
            );
            return Err(other(
                &format!("its MTU is {carries}, but the network's is {mtu}"),
                remedy,
            ));
        }
        Ok(Interface { index, mac })
    }
}

/// Enables the virtio-net header, with the switch's length if the kernel supports it.
fn enable_header(fd: &OwnedFd) -> Result<(usize, Offloads), Failure> {
    if set(fd, PACKET_VNET_HDR_SZ, &(HEADER as c_int)).is_ok() {
        return Ok((HEADER, Offloads::ALL));
    }
    // Large UDP needs Linux 6.2, the header size 6.5; there is no way to detect 6.2.
    set(fd, libc::PACKET_VNET_HDR, &1).map_err(at("enable the virtio-net header"))?;
    Ok((SHORT_HEADER, Offloads::ALL - Offloads::USO))
}

fn token() -> u32 {
    let hash = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), "uplink");
    hash as u32 & 0x7fff_ffff | 1
}

/// Filters out frames for the interface's own host alone, and frames that the switch passed to that
/// host (see `to_host`), which would otherwise come back.
fn filter(fd: &OwnedFd, token: u32) -> io::Result<()> {
    const HASH: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_RXHASH) as u32;
    const KIND: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let end = (libc::BPF_RET | libc::BPF_K) as u16;
    let mut code = [
        libc::sock_filter { code: load, jt: 0, jf: 0, k: HASH },
        libc::sock_filter { code: equal, jt: 3, jf: 0, k: token },
        libc::sock_filter { code: load, jt: 0, jf: 0, k: KIND },
        libc::sock_filter { code: equal, jt: 1, jf: 0, k: u32::from(libc::PACKET_HOST) },
        libc::sock_filter { code: end, jt: 0, jf: 0, k: u32::MAX },
        libc::sock_filter { code: end, jt: 0, jf: 0, k: 0 },
    ];
    let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

fn make_ring(fd: &OwnedFd) -> io::Result<()> {
    let shape = libc::tpacket_req {
        tp_block_size: BLOCK as u32,
        tp_block_nr: BLOCKS as u32,
        tp_frame_size: SLOT as u32,
        tp_frame_nr: (BLOCKS * PER_BLOCK) as u32,
    };
    set(fd, libc::PACKET_RX_RING, &shape)
}

/// Maps the ring of a socket that [`make_ring`] has made it for.
pub(super) fn map_ring(fd: &OwnedFd) -> io::Result<Ring> {
    let (access, len) = (libc::PROT_READ | libc::PROT_WRITE, BLOCK * BLOCKS);
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let mapped = unsafe {
        let nowhere = std::ptr::null_mut();
        libc::mmap(nowhere, len, access, libc::MAP_SHARED, fd.as_raw_fd(), 0)
    };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let place = NonNull::new(mapped.cast())
        .ok_or_else(|| io::Error::other("the receive ring was mapped at zero"))?;
    // SAFETY: the ring was just mapped there, in this length.
    Ok(Ring::take_over(unsafe { Mapping::new(place) }))
}

/// Makes the interface promiscuous as long as the socket lives.
fn set_promiscuous(fd: &OwnedFd, index: c_int) -> io::Result<()> {
    let membership = libc::packet_mreq {
        mr_ifindex: index,
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(fd, libc::PACKET_ADD_MEMBERSHIP, &membership)
}

fn bind(fd: &OwnedFd, index: c_int) -> io::Result<()> {
    // SAFETY: all zeroes is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index;
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of the address, which lives until the call returns.
    let done = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets an option of packet sockets, whose value type is `T`.
fn set<T>(fd: &OwnedFd, option: c_int, value: &T) -> io::Result<()> {
    set_option(fd, libc::SOL_PACKET, option, value)
}
