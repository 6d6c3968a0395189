//! What `tramad` may ask of the helper, and the answers.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Longest message in bytes: the longest requests have two paths.
pub(crate) const LONGEST: usize = 16 << 10;

/// Where things are, and how others are started: what the helper is told first, while `tramad` has
/// read nothing but its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// The configuration file.
    pub config: PathBuf,
    /// The folder for state, with the lease folders.
    pub state: PathBuf,
    /// The folder for sockets; it is created when the first socket in it is made.
    pub run: PathBuf,
    /// The control socket, which `tramad` has made and the helper removes at the end; `None`: none.
    pub control: Option<PathBuf>,
    /// The keeper's socket, which `tramad` has made and the helper removes at the end.
    pub keeper: Option<PathBuf>,
    /// The socket on which root approves what `tramad` may ask for; `None`: none.
    pub approvals: Option<PathBuf>,
    /// How strictly system calls are restricted: the name of a [`trama_sandbox::Mode`].
    pub sandbox: String,
    /// The program's file, from which a successor is started.
    pub program: PathBuf,
    /// The arguments of `tramad` with which a stand-in and a successor start; empty: no stand-in
    /// starts.
    pub arguments: Vec<OsString>,
    /// For how many seconds `tramad` goes on until the next one is started, and so a stand-in for
    /// it; `None`: for good.
    pub bridges: Option<u64>,
}

/// How the configuration file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfigFile {
    /// It exists, and keeps its owner and mode.
    Replace,
    /// It does not exist; its folder is created as well.
    Create {
        /// Whether the folder is for its owner alone.
        is_private: bool,
    },
}

/// A request. Descriptors that belong to it are passed with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// The first one of each switch; a service's helper has the configuration read before. Answer:
    /// [`Reply::Ready`].
    Setup(Setup),
    /// The start is over: from now on a stand-in follows if `tramad` ends without a word. Files of
    /// sockets that an earlier switch has left and this one has not adopted are removed. Answer:
    /// [`Reply::Ready`].
    Started,
    /// Starts another `tramad`, which takes over from this one: for good, or for some seconds until
    /// the next one is started. Answer: [`Reply::Successor`] and the process's pidfd.
    StartSuccessor { bridges: Option<u64> },
    /// Ends that one, if it still runs. Answer: [`Reply::Status`].
    EndSuccessor,
    /// `tramad` ends, and the helper with it.
    End {
        /// Whether another switch goes on with the sockets, so that their files stay.
        hands_over: bool,
    },
    /// The numbers of a user and a group, which are names or numbers.
    Ids { user: Option<String>, group: Option<String> },
    /// A TAP device. Answer: [`Reply::Tap`] and the device.
    Tap(TapRequest),
    /// Joins an interface. Answer: [`Reply::Uplink`], the packet socket, and, if frames reach the
    /// interface's own host, the attachment of the program that passes them; or
    /// [`Reply::LinkNotReady`].
    Uplink { ifname: String, netns: Option<String>, mtu: u16 },
    /// A socket that becomes readable when an interface of a namespace changes, and, if that is the
    /// namespace of a process by its number, a pidfd. Answer: [`Reply::Done`] and the descriptors.
    LinkEvents { netns: Option<String> },
    /// A listening Unix socket. Answer: [`Reply::Listening`] and the socket.
    Listen { path: PathBuf, access: AccessIds },
    /// Takes over the file of a listening Unix socket that an earlier switch has left; with the
    /// socket. Answer: [`Reply::Adopted`].
    Adopt { path: PathBuf, access: AccessIds },
    /// Changes owner, group and mode of a socket that the helper has made or adopted.
    SetAccess { socket: u64, access: AccessIds },
    /// Removes the file of a socket that the helper has made.
    Close { socket: u64 },
    /// A connection to a Unix socket. Answer: [`Reply::Done`] and the connection.
    Connect { path: PathBuf },
    /// A Unix socket for datagrams. Answer: [`Reply::Listening`] and the socket.
    BindUnix { path: PathBuf, access: AccessIds },
    /// A socket with an address of IP; a connection may not be complete yet. Answer:
    /// [`Reply::Done`] and the socket.
    Internet { kind: Internet, address: SocketAddr },
    /// Sockets of UDP for tunnels between these addresses. Answer: [`Reply::Done`] and the sockets:
    /// one to receive with, or several to send with.
    Tunnel { end: TunnelSockets, local: SocketAddr, remote: IpAddr },
    /// An address of an interface of the host, of IPv4 if it has one. Answer: [`Reply::Address`].
    AddressOf { ifname: String },
    /// Whether a network's lease folder can be had; makes it.
    LeaseFolder { network: String },
    /// Starts the gateway process of a network; with its end of the lifeline. Answer:
    /// [`Reply::Gateway`] and the process's pidfd.
    Gateway { network: String, leases: bool },
    /// Starts the process that serves browsers; with its end of the link and the listening socket.
    /// Answer: [`Reply::Gateway`] and the process's pidfd.
    Web,
    /// Kills a gateway process, whichever helper has started it; with its pidfd.
    Kill,
    /// Starts a keeper in the place of one that has ended; with its end of a channel.
    Keeper,
    /// Reads the files in which the host's resolvers are stated, for a gateway that may not.
    /// Answer: [`Reply::Done`] and copies of `resolv.conf` and of systemd-resolved's list.
    Resolvers,
    /// Opens the configuration file. Answer: [`Reply::Done`] and the file, or [`Reply::Missing`].
    ReadConfig,
    /// Writes the configuration file; with a file that has the text.
    WriteConfig(ConfigFile),
    /// `tramad` has its keeper and its sockets, and is a switch from now on; once after each
    /// setup. Answer: [`Reply::Ready`].
    Serve(Place),
    /// A connection to the keeper that listens. Answer: [`Reply::Done`] and the connection, or
    /// [`Reply::Missing`].
    ReachKeeper,
    /// Makes the control socket. Answer: [`Reply::Done`] and the socket.
    Control { access: AccessIds },
}

/// The place of a switch among others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Whether it follows another one that has ended: then a stand-in follows it even if it ends
    /// before its start is over.
    pub follows: bool,
    /// Whether another one still runs that it follows: until the start is over, this helper removes
    /// no file, and no stand-in follows.
    pub is_beside: bool,
}

/// What a socket with an address of IP is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Internet {
    /// It listens for TCP connections at the address.
    Listen,
    /// It connects to the address by TCP.
    Connect,
    /// It receives UDP datagrams at the address.
    Datagrams,
    /// It sends UDP datagrams to the address.
    Send,
}

/// What sockets of tunnels are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TunnelSockets {
    /// It receives the datagrams of all tunnels at the local address.
    Receive,
    /// They send to the remote address, from L4 ports that the kernel chooses.
    Send,
}

/// Owner, group and mode of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccessIds {
    pub(crate) owner: Option<u32>,
    pub(crate) group: Option<u32>,
    pub(crate) mode: Option<u32>,
}

/// The options of a TAP device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TapRequest {
    pub(crate) ifname: String,
    pub(crate) netns: Option<String>,
    pub(crate) address: Vec<(IpAddr, u8)>,
    pub(crate) mtu: u16,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) vnet_header: bool,
}

/// The answer to a request, with descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    /// It will not be done, or cannot be; the text has the remedy.
    Refused(String),
    /// The file does not exist.
    Missing,
    /// To [`Request::Setup`], [`Request::Serve`] and [`Request::Started`]: what is not in force,
    /// each with its reason.
    Ready {
        missing: Vec<String>,
    },
    Ids {
        user: Option<u32>,
        group: Option<u32>,
    },
    Tap {
        offloads: u8,
        vnet_header: bool,
        /// Device and inode of the stated namespace.
        namespace: Option<(u64, u64)>,
        mac: Option<[u8; 6]>,
    },
    Uplink {
        header: usize,
        offloads: u8,
        mac: [u8; 6],
        /// Why frames do not reach the interface's own host.
        to_host_fault: Option<String>,
        /// Device and inode of the stated namespace.
        namespace: Option<(u64, u64)>,
    },
    /// The interface is missing, down or too small; the text has the remedy.
    LinkNotReady(String),
    Listening {
        socket: u64,
        note: Option<String>,
    },
    Adopted {
        socket: u64,
    },
    Address(IpAddr),
    Successor {
        process: u32,
    },
    /// How a process has ended.
    Status(String),
    Gateway {
        process: u32,
        /// Why it has no lease folder, although it should.
        folder_fault: Option<String>,
        missing: Vec<String>,
    },
}

/// The answer as it is passed on: the reply and its descriptors, or the text of a refusal.
pub(crate) type Answer = Result<(Reply, Vec<OwnedFd>), String>;

/// The text of a reply that does not fit its request.
pub(crate) fn unexpected(reply: &Reply) -> String {
    format!("unexpected answer of the helper: {reply:?}")
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use proptest::prelude::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use trama_keeper::wire::{receive, send};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    #[test]
    fn what_is_too_long_is_refused_by_its_sender() {
        let (ours, _theirs) = pair();
        let long = Reply::Refused("x".repeat(LONGEST));
        let error = send(&ours, &long, &[], LONGEST).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_an_error(bytes in prop::collection::vec(any::<u8>(), 1..300)) {
            let (ours, theirs) = pair();
            rustix::io::write(&ours, &bytes).unwrap();
            if let Ok(Some(message)) = receive::<Request>(&theirs, LONGEST) {
                // What was understood means the same when it is sent on.
                send(&ours, &message.body, &[], LONGEST).unwrap();
                let again = receive::<Request>(&theirs, LONGEST).unwrap().unwrap();
                prop_assert_eq!(again.body, message.body);
            }
        }
    }
}
