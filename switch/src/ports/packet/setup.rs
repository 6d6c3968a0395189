//! Joins an interface: a packet socket, its ring and its filter. Another process may then use the
//! socket.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::raw::c_int;
use std::ptr::NonNull;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use trama_frame::vnet::LEN as HEADER;
use trama_frame::{MacAddr, Offloads};

use super::UplinkParts;
use super::burst::{Mapping, Ring};
use super::option::set_option;
use super::slot::{BLOCK, BLOCKS, PER_BLOCK, SLOT};
use super::to_host;
use crate::ports::tap::setup::{ioctl, request};

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
#[error("uplink {ifname}: {step}: {error}{remedy}")]
pub struct UplinkError {
    ifname: String,
    step: &'static str,
    error: io::Error,
    remedy: String,
}

const NEEDS_RAW: &str = "; run with CAP_NET_RAW and CAP_NET_ADMIN";

type Step<T> = Result<T, (&'static str, io::Error, String)>;

/// Names a step that failed.
fn at(step: &'static str) -> impl Fn(io::Error) -> (&'static str, io::Error, String) {
    move |error| {
        let denied = matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES));
        (step, error, if denied { NEEDS_RAW.to_owned() } else { String::new() })
    }
}

pub(super) fn open(ifname: &str, mtu: u16) -> Result<UplinkParts, UplinkError> {
    join(ifname, mtu).map_err(|(step, error, remedy)| UplinkError {
        ifname: ifname.to_owned(),
        step,
        error,
        remedy,
    })
}

fn join(ifname: &str, mtu: u16) -> Step<UplinkParts> {
    // Without a protocol it receives nothing before it is ready.
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)
        .map_err(|error| at("open a packet socket")(error.into()))?;
    let interface = Interface::query(&fd, ifname, mtu)?;
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
    set_promiscuous(&fd, interface.index).map_err(at("make the interface promiscuous"))?;
    let Interface { index, mac } = interface;
    let to_host = to_host::attach(&fd, index, mac, token).map_err(|error| error.to_string());
    bind(&fd, index).map_err(at("bind to the interface"))?;
    Ok(UplinkParts { socket: fd, to_host, header, offloads, mac })
}

/// Properties of an interface.
struct Interface {
    index: c_int,
    mac: MacAddr,
}

impl Interface {
    fn query(fd: &OwnedFd, ifname: &str, mtu: u16) -> Step<Interface> {
        let other = |message: &str, remedy: String| {
            ("check the interface", io::Error::other(message.to_owned()), remedy)
        };
        let mut asked = request(ifname);
        ioctl(fd, libc::SIOCGIFINDEX, &mut asked).map_err(|error| {
            let remedy = "; `ip link` lists the interfaces; trama joins it when it appears";
            ("find it", error, remedy.to_owned())
        })?;
        // SAFETY: the request that succeeded wrote this field.
        let index = unsafe { asked.ifr_ifru.ifru_ifindex };
        ioctl(fd, libc::SIOCGIFHWADDR, &mut asked).map_err(at("read its hardware address"))?;
        // SAFETY: as above.
        let address = unsafe { asked.ifr_ifru.ifru_hwaddr };
        if address.sa_family != libc::ARPHRD_ETHER {
            let remedy = "; use an Ethernet interface".to_owned();
            return Err(other("it does not carry Ethernet frames", remedy));
        }
        let [a, b, c, d, e, f, ..] = address.sa_data.map(|byte| byte as u8);
        ioctl(fd, libc::SIOCGIFFLAGS, &mut asked).map_err(at("read its flags"))?;
        // SAFETY: as above.
        if c_int::from(unsafe { asked.ifr_ifru.ifru_flags }) & libc::IFF_UP == 0 {
            return Err(other("it is down", format!("; `ip link set {ifname} up`")));
        }
        ioctl(fd, libc::SIOCGIFMTU, &mut asked).map_err(at("read its MTU"))?;
        // SAFETY: as above.
        let carries = unsafe { asked.ifr_ifru.ifru_mtu };
        if carries < c_int::from(mtu) {
            let remedy = format!("; set the network's mtu to {carries}");
            return Err(other(
                &format!("its MTU is {carries}, but the network's is {mtu}"),
                remedy,
            ));
        }
        Ok(Interface { index, mac: MacAddr([a, b, c, d, e, f]) })
    }
}

/// Enables the virtio-net header, with the switch's length if the kernel supports it.
fn enable_header(fd: &OwnedFd) -> Step<(usize, Offloads)> {
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
