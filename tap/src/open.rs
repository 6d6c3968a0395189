//! Creates a TAP device: `/dev/net/tun`, then the interface's settings by ioctl.
//!
//! All of it happens in the device's namespace, on a thread that enters it and ends; the descriptor
//! works from any namespace.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::raw::{c_int, c_short, c_ulong};

use rustix::fs::{Mode, OFlags};
use rustix::net::AddressFamily;
use rustix::process::geteuid;
use trama_frame::vnet::LEN as HEADER;
use trama_frame::{MacAddr, Offloads};

use crate::namespace::{NamespaceError, in_namespace};
use crate::request::{MAX_NAME, ioctl, ipv4_sockaddr, open_socket, request};
use crate::{TapOptions, TapParts};

/// The kernel's TAP driver.
const DRIVER: &str = "/dev/net/tun";

/// Why a TAP device could not be made: names the device, the failed step and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("TAP device {ifname}: {step}: {error}{}", suffix(.remedy, .ifname))]
pub struct TapError {
    ifname: String,
    step: String,
    error: io::Error,
    remedy: &'static str,
}

/// The remedy, with the names that it leaves open.
fn suffix(remedy: &str, ifname: &str) -> String {
    if remedy.is_empty() {
        return String::new();
    }
    let user = geteuid().as_raw().to_string();
    format!("; {}", remedy.replace("NAME", ifname).replace("USER", &user))
}

impl TapError {
    /// Returns the system's error.
    pub fn io_error(&self) -> &io::Error {
        &self.error
    }
}

/// A failed step, before the device's name is added.
pub(crate) struct Failure {
    step: String,
    error: io::Error,
    remedy: &'static str,
}

impl Failure {
    pub(crate) fn new(
        step: impl Into<String>,
        error: impl Into<io::Error>,
        remedy: &'static str,
    ) -> Failure {
        Failure { step: step.into(), error: error.into(), remedy }
    }
}

const NEEDS_ADMIN: &str = "run with CAP_NET_ADMIN, or let root make the device beforehand: ip \
                           tuntap add NAME mode tap user USER && ip link set NAME up";

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.error)
    }
}

impl From<NamespaceError> for Failure {
    fn from(NamespaceError { step, error, remedy }: NamespaceError) -> Failure {
        Failure { step, error, remedy }
    }
}

/// Creates the device, or attaches to a persistent one of that name, and sets it up.
///
/// # Errors
/// The device cannot be created or set up; the error names the step and the remedy.
pub fn open(options: &TapOptions) -> Result<TapParts, TapError> {
    let made = match &options.netns {
        None => make(options),
        Some(netns) => in_namespace(netns, || make(options))
            .map(|(tap, namespace)| TapParts { namespace: Some(namespace), ..tap }),
    };
    named(&options.ifname, made)
}

/// Adds the device's name to a failure.
pub(crate) fn named<T>(ifname: &str, made: Result<T, Failure>) -> Result<T, TapError> {
    made.map_err(|Failure { step, error, remedy }| TapError {
        ifname: ifname.to_owned(),
        step,
        error,
        remedy,
    })
}

pub(crate) fn make(options: &TapOptions) -> Result<TapParts, Failure> {
    check_name(&options.ifname)?;
    let fd =
        rustix::fs::open(DRIVER, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| {
                Failure::new(
                    format!("open {DRIVER}"),
                    error,
                    "load the kernel module tun and allow access to it",
                )
            })?;
    attach(&fd, options)?;
    let offloads = if options.vnet_header { enable_offloads(&fd)? } else { disable_offloads(&fd)? };
    configure(options, is_persistent(&fd)?)?;
    let vnet_header = options.vnet_header;
    Ok(TapParts { fd, offloads, vnet_header, namespace: None })
}

fn check_name(name: &str) -> Result<(), Failure> {
    let bad_byte = |b: u8| b == b'/' || b == b':' || b == b'%' || !b.is_ascii_graphic();
    if name.is_empty()
        || name.len() > MAX_NAME
        || name.starts_with('.')
        || name.bytes().any(bad_byte)
    {
        let error = io::Error::from(io::ErrorKind::InvalidInput);
        let remedy = "a name has 1 to 15 printable ASCII bytes without '/', ':' and '%'";
        return Err(Failure::new("name", error, remedy));
    }
    Ok(())
}

fn attach(fd: &OwnedFd, options: &TapOptions) -> Result<(), Failure> {
    let header = if options.vnet_header { libc::IFF_VNET_HDR } else { 0 };
    let exclusive = if options.must_be_new { libc::IFF_TUN_EXCL } else { 0 };
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | header | exclusive;
    let mut request = request(&options.ifname);
    request.ifr_ifru.ifru_flags = flags as c_short;
    ioctl(fd, libc::TUNSETIFF, &mut request).map_err(|error| {
        let remedy = match error.raw_os_error() {
            Some(libc::EPERM) => NEEDS_ADMIN,
            Some(libc::EBUSY) if options.must_be_new => "a device has the name; choose another",
            Some(libc::EBUSY) => "the name is taken by a device in use; choose another",
            Some(libc::EINVAL) => "the name is taken by another kind of interface; choose another",
            _ => "",
        };
        Failure::new("create (TUNSETIFF)", error, remedy)
    })
}

/// Enables virtio-net headers and large frames; returns the offloads that the kernel takes.
pub(crate) fn enable_offloads(fd: &OwnedFd) -> Result<Offloads, Failure> {
    let mut size = HEADER as c_int;
    ioctl(fd, libc::TUNSETVNETHDRSZ, &mut size)
        .map_err(|error| Failure::new("set the header size (TUNSETVNETHDRSZ)", error, ""))?;
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    // Kernels before 6.2 refuse the UDP bits.
    if set_offload(fd, tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6).is_ok() {
        return Ok(Offloads::ALL);
    }
    set_offload(fd, tcp)
        .map_err(|error| Failure::new("enable offloads (TUNSETOFFLOAD)", error, ""))?;
    Ok(Offloads::ALL - Offloads::USO)
}

/// Disables offloads. Without a header no receiver can recognise incomplete frames, yet the kernel
/// would send them if an earlier user of a persistent device had enabled offloads.
pub(crate) fn disable_offloads(fd: &OwnedFd) -> Result<Offloads, Failure> {
    set_offload(fd, 0)
        .map_err(|error| Failure::new("disable offloads (TUNSETOFFLOAD)", error, ""))?;
    Ok(Offloads::NONE)
}

fn set_offload(fd: &OwnedFd, flags: u32) -> io::Result<()> {
    // SAFETY: the argument of this request is a number, not an address.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, c_ulong::from(flags)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Returns whether the device existed before and persists.
fn is_persistent(fd: &OwnedFd) -> Result<bool, Failure> {
    let mut request = request("");
    ioctl(fd, libc::TUNGETIFF, &mut request)
        .map_err(|error| Failure::new("query the device (TUNGETIFF)", error, ""))?;
    // SAFETY: the request that succeeded wrote this field.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(c_int::from(flags) & libc::IFF_PERSIST != 0)
}

/// Sets MAC address, MTU, IP addresses, and the link up. A persistent device keeps its MAC address.
pub(crate) fn configure(options: &TapOptions, persistent: bool) -> Result<(), Failure> {
    let name = &options.ifname;
    let fail = |step: &str, error: io::Error| {
        let denied = error.raw_os_error() == Some(libc::EPERM);
        Failure::new(step, error, if denied { NEEDS_ADMIN } else { "" })
    };
    let inet = open_socket(AddressFamily::INET).map_err(|e| fail("open a socket", e))?;
    if let Some(mac) = options.mac.filter(|_| !persistent) {
        set_mac(&inet, name, mac).map_err(|e| fail(&format!("set hardware address {mac}"), e))?;
    }
    set_mtu(&inet, name, options.mtu).map_err(|e| fail(&format!("set MTU {}", options.mtu), e))?;
    let mut aliases = 0;
    for (address, prefix) in &options.address {
        let step = format!("add address {address}/{prefix}");
        match address {
            IpAddr::V4(address) => {
                add_ipv4(&inet, name, aliases, *address, *prefix).map_err(|e| fail(&step, e))?;
                aliases += 1;
            }
            IpAddr::V6(address) => {
                add_ipv6(&inet, name, *address, *prefix).map_err(|e| fail(&step, e))?;
            }
        }
    }
    set_up(&inet, name).map_err(|e| fail("set up", e))
}

fn set_mac(inet: &OwnedFd, name: &str, mac: MacAddr) -> io::Result<()> {
    let mut request = request(name);
    let mut address = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: [0; 14] };
    for (to, from) in address.sa_data.iter_mut().zip(mac.0) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_hwaddr = address;
    ioctl(inet, libc::SIOCSIFHWADDR, &mut request)
}

/// Sets the MTU unless it is right already: an unprivileged user may attach to a device, but not
/// change it.
fn set_mtu(inet: &OwnedFd, name: &str, mtu: u16) -> io::Result<()> {
    let mut request = request(name);
    ioctl(inet, libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: the request that succeeded wrote this field.
    if unsafe { request.ifr_ifru.ifru_mtu } == c_int::from(mtu) {
        return Ok(());
    }
    request.ifr_ifru.ifru_mtu = c_int::from(mtu);
    ioctl(inet, libc::SIOCSIFMTU, &mut request)
}

/// Adds an IPv4 address. The first is the interface's, each further one needs an alias (`name:1`).
fn add_ipv4(
    inet: &OwnedFd,
    name: &str,
    alias: usize,
    address: Ipv4Addr,
    prefix: u8,
) -> io::Result<()> {
    let label = if alias == 0 { name.to_owned() } else { format!("{name}:{alias}") };
    if prefix > 32 || label.len() > MAX_NAME {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut request = request(&label);
    request.ifr_ifru.ifru_addr = ipv4_sockaddr(address);
    ioctl(inet, libc::SIOCSIFADDR, &mut request)?;
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    request.ifr_ifru.ifru_netmask = ipv4_sockaddr(Ipv4Addr::from_bits(mask));
    ioctl(inet, libc::SIOCSIFNETMASK, &mut request)
}

fn add_ipv6(inet: &OwnedFd, name: &str, address: Ipv6Addr, prefix: u8) -> io::Result<()> {
    if prefix > 128 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let index = rustix::net::netdevice::name_to_index(inet, name)?;
    let inet6 = open_socket(AddressFamily::INET6)?;
    let mut request = libc::in6_ifreq {
        ifr6_addr: libc::in6_addr { s6_addr: address.octets() },
        ifr6_prefixlen: u32::from(prefix),
        ifr6_ifindex: index as c_int,
    };
    match ioctl(&inet6, libc::SIOCSIFADDR, &mut request) {
        // A persistent device may have it already.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result,
    }
}

fn set_up(inet: &OwnedFd, name: &str) -> io::Result<()> {
    let mut request = request(name);
    ioctl(inet, libc::SIOCGIFFLAGS, &mut request)?;
    let up = libc::IFF_UP as c_short;
    // SAFETY: the request that succeeded wrote this field.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    if flags & up != 0 {
        return Ok(());
    }
    request.ifr_ifru.ifru_flags = flags | up;
    ioctl(inet, libc::SIOCSIFFLAGS, &mut request)
}

/// Checks what a descriptor is.
pub(crate) fn check(fd: &OwnedFd, vnet_header: bool) -> io::Result<()> {
    let mut found = request("");
    ioctl(fd, libc::TUNGETIFF, &mut found)
        .map_err(|error| io::Error::other(format!("it is not a TAP device: {error}")))?;
    // SAFETY: the request that succeeded wrote this field.
    let flags = c_int::from(unsafe { found.ifr_ifru.ifru_flags });
    let has = |flag: c_int| flags & flag != 0;
    match has(libc::IFF_TAP) && has(libc::IFF_VNET_HDR) == vnet_header {
        true => Ok(()),
        false => Err(io::Error::other("it is another kind of device")),
    }
}
