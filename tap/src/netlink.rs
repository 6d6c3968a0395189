//! Requests to the kernel by rtnetlink(7) that are acknowledged.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

/// The flags `NLM_F_REQUEST` and `NLM_F_ACK` of every request.
const REQUEST: u16 = 0x1 | 0x4;
const NLMSG_ERROR: u16 = 2;
/// `struct nlmsghdr`.
const HEADER: usize = 16;

/// Opens a socket of the current namespace, which hears of these groups.
pub(crate) fn open(flags: SocketFlags, groups: u32) -> io::Result<OwnedFd> {
    // NETLINK_ROUTE is protocol 0.
    let flags = flags | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// Sends a request in the current namespace and reads its acknowledgement. `body` is what follows
/// the header: a structure that depends on `kind`, and [`attribute`]s.
pub(crate) fn request(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let socket = open(SocketFlags::empty(), 0)?;
    let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((REQUEST | flags).to_ne_bytes());
    message.resize(HEADER, 0);
    message.extend(body);
    send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0; 4096];
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    error_in(&answer[..length])
}

/// Returns an attribute (`struct rtattr`), whose value is padded to four bytes.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Reads an acknowledgement: a message of type `NLMSG_ERROR`, whose error is 0 if all is well.
fn error_in(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|it| it.try_into().ok()).map(u16::from_ne_bytes);
    let error = answer.get(HEADER..HEADER + 4).and_then(|it| it.try_into().ok());
    match (kind, error.map(i32::from_ne_bytes)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(error)) => Err(io::Error::from_raw_os_error(-error)),
        _ => Err(io::Error::other("the kernel's answer is not understood")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_the_kernels() {
        // RTM_DELLINK of an interface that is not there.
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&i32::MAX.to_ne_bytes());
        let error = request(17, 0, &body).unwrap_err().raw_os_error();
        assert!([Some(libc::ENODEV), Some(libc::EPERM)].contains(&error), "{error:?}");
        let mut answer = [0; 36];
        answer[4] = 2;
        assert!(error_in(&answer).is_ok());
        for length in 0..20 {
            assert!(error_in(&answer[..length]).is_err(), "{length} bytes");
        }
    }
}
