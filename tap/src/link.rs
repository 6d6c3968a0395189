//! What an interface is.

use std::io;
use std::os::raw::c_int;

use rustix::net::AddressFamily;
use trama_frame::MacAddr;

use crate::request::{ioctl, open_socket, request};

/// An interface of the current network namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its number.
    pub index: c_int,
    /// Its hardware address; `None` if it does not carry Ethernet frames.
    pub mac: Option<MacAddr>,
    /// Whether it is set up (`ip link set … up`).
    pub is_up: bool,
    /// Its MTU in bytes.
    pub mtu: c_int,
}

impl Link {
    /// Looks at the interface of this name.
    ///
    /// # Errors
    /// There is none (`ENODEV`), or it went away meanwhile.
    pub fn query(ifname: &str) -> io::Result<Link> {
        let socket = open_socket(AddressFamily::UNIX)?;
        let mut asked = request(ifname);
        ioctl(&socket, libc::SIOCGIFINDEX, &mut asked)?;
        // SAFETY: the request that succeeded wrote this field.
        let index = unsafe { asked.ifr_ifru.ifru_ifindex };
        ioctl(&socket, libc::SIOCGIFHWADDR, &mut asked)?;
        // SAFETY: as above.
        let address = unsafe { asked.ifr_ifru.ifru_hwaddr };
        ioctl(&socket, libc::SIOCGIFFLAGS, &mut asked)?;
        // SAFETY: as above.
        let flags = c_int::from(unsafe { asked.ifr_ifru.ifru_flags });
        ioctl(&socket, libc::SIOCGIFMTU, &mut asked)?;
        // SAFETY: as above.
        let mtu = unsafe { asked.ifr_ifru.ifru_mtu };
        Ok(Link { index, mac: ethernet(address), is_up: flags & libc::IFF_UP != 0, mtu })
    }
}

fn ethernet(address: libc::sockaddr) -> Option<MacAddr> {
    let [a, b, c, d, e, f, ..] = address.sa_data.map(|byte| byte as u8);
    (address.sa_family == libc::ARPHRD_ETHER).then_some(MacAddr([a, b, c, d, e, f]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_no_ethernet_and_a_name_that_is_not_there_is_an_error() {
        let lo = Link::query("lo").unwrap();
        assert_eq!((lo.mac.map(|mac| mac.is_zero()), lo.mtu > 1500), (None, true));
        let error = Link::query("nosuch0").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
