//! What `tramad` may have done for it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use trama_frame::{MacAddr, Offloads};
use trama_switch::{NamespaceId, Tap, TapOptions, TapParts, Uplink, UplinkParts};

use crate::acts::Acts;
use crate::client::Client;
use crate::config_file;
use crate::gateway::{Gateways, Parent};
use crate::pidfd::status_at_end;
use crate::request::{Answer, ConfigFile, Reply, Request, Setup, TapRequest, unexpected};
use crate::rules::Rules;

/// Opens what needs privileges. Clones are handles of the same.
#[derive(Clone)]
pub struct Rights(Arc<Kind>);

enum Kind {
    /// A helper process does it.
    Helper(Client),
    /// This process does it itself, with the privileges that it has.
    Own(Box<Mutex<Acts>>),
}

impl std::fmt::Debug for Rights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match *self.0 {
            Kind::Helper(_) => "Rights(helper)",
            Kind::Own(_) => "Rights(own)",
        })
    }
}

/// A gateway process that was started. It is a child of this process, or of an earlier `tramad`.
#[derive(Debug)]
pub struct Gateway {
    /// Its process.
    pub process: u32,
    /// Why it has no lease folder, although it should.
    pub folder_fault: Option<String>,
    /// What of its sandbox is not in force, each with its reason.
    pub missing: Vec<String>,
    pidfd: OwnedFd,
    rights: Rights,
}

impl Rights {
    /// Starts a helper. Also returns what of the sandbox is not in force.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start_helper(setup: &Setup) -> io::Result<(Rights, Vec<String>)> {
        let client = Client::start(Path::new("/proc/self/exe"))?;
        match client.ask(&Request::Setup(setup.clone()), &[]) {
            Ok((Reply::Ready { missing }, _)) => {
                Ok((Rights(Arc::new(Kind::Helper(client))), missing))
            }
            Ok((reply, _)) => Err(io::Error::other(unexpected(&reply))),
            Err(text) => Err(io::Error::other(text)),
        }
    }

    /// Has everything done in this process, with its privileges and without rules; `gateway` is the
    /// program of gateways. For tests.
    pub fn own(setup: Setup, gateway: impl Into<PathBuf>) -> Rights {
        let sandbox = setup.sandbox.parse().unwrap_or_default();
        let gateways = Gateways::new(gateway.into(), Parent::Itself, sandbox);
        Rights(Arc::new(Kind::Own(Box::new(Mutex::new(Acts::new(setup, Rules::All, gateways))))))
    }

    pub(crate) fn ask(&self, request: Request, fds: &[BorrowedFd<'_>]) -> Answer {
        match &*self.0 {
            Kind::Helper(client) => client.ask(&request, fds),
            Kind::Own(acts) => {
                let fds = fds.iter().map(|fd| fd.try_clone_to_owned());
                let fds = fds.collect::<io::Result<_>>().map_err(|error| error.to_string())?;
                let mut acts = acts.lock().unwrap_or_else(PoisonError::into_inner);
                acts.carry_out(request, fds)
            }
        }
    }

    /// Asks for something that comes with one descriptor.
    pub(crate) fn ask_for_one(&self, request: Request) -> Result<(Reply, OwnedFd), String> {
        let (reply, fds) = self.ask(request, &[])?;
        let fd = fds.into_iter().next();
        fd.map(|fd| (reply.clone(), fd)).ok_or_else(|| unexpected(&reply))
    }

    /// Returns the numbers of a user and a group, which are names or numbers.
    ///
    /// # Errors
    /// The host has no such user or group.
    pub fn ids(
        &self,
        user: Option<&str>,
        group: Option<&str>,
    ) -> Result<(Option<u32>, Option<u32>), String> {
        if user.is_none() && group.is_none() {
            return Ok((None, None));
        }
        let owned = |name: Option<&str>| name.map(str::to_owned);
        match self.ask(Request::Ids { user: owned(user), group: owned(group) }, &[])? {
            (Reply::Ids { user, group }, _) => Ok((user, group)),
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    /// Opens a TAP device; also returns its hardware address, as far as it is known.
    ///
    /// # Errors
    /// The helper refuses or the kernel does; the text has the remedy.
    pub fn tap(&self, options: &TapOptions) -> Result<(Tap, Option<MacAddr>), String> {
        let TapOptions { ifname, netns, address, mtu, mac, vnet_header } = options.clone();
        let mac = mac.map(|mac| mac.0);
        let request = TapRequest { ifname, netns, address, mtu, mac, vnet_header };
        match self.ask_for_one(Request::Tap(request))? {
            (Reply::Tap { offloads, vnet_header, namespace, mac }, fd) => {
                let namespace = namespace.map(|(device, inode)| NamespaceId { device, inode });
                let offloads = Offloads::from_bits(offloads);
                let tap = Tap::from_parts(TapParts { fd, offloads, vnet_header, namespace });
                Ok((tap, mac.map(MacAddr)))
            }
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    /// Joins an interface of the host.
    ///
    /// # Errors
    /// The helper refuses or the kernel does; the text has the remedy.
    pub fn uplink(&self, ifname: &str, mtu: u16) -> Result<Uplink, String> {
        let (reply, fds) = self.ask(Request::Uplink { ifname: ifname.to_owned(), mtu }, &[])?;
        let mut fds = fds.into_iter();
        let Reply::Uplink { header, offloads, mac, to_host_fault } = &reply else {
            return Err(unexpected(&reply));
        };
        let socket = fds.next().ok_or_else(|| unexpected(&reply))?;
        let no_link = || to_host_fault.clone().unwrap_or_default();
        let parts = UplinkParts {
            socket,
            to_host: fds.next().ok_or_else(no_link),
            header: *header,
            offloads: Offloads::from_bits(*offloads),
            mac: MacAddr(*mac),
        };
        Uplink::from_parts(parts).map_err(|error| format!("uplink {ifname}: {error}"))
    }

    /// Makes sure that a network's lease folder can be had.
    ///
    /// # Errors
    /// It cannot be made or opened; the text says why.
    pub fn lease_folder(&self, network: &str) -> Result<(), String> {
        self.ask(Request::LeaseFolder { network: network.to_owned() }, &[]).map(drop)
    }

    /// Starts the gateway process of a network at the other end of `channel`.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start_gateway(
        &self,
        network: &str,
        leases: bool,
        channel: &OwnedFd,
    ) -> Result<Gateway, String> {
        let request = Request::Gateway { network: network.to_owned(), leases };
        let (reply, fds) = self.ask(request, &[channel.as_fd()])?;
        match (reply, fds.into_iter().next()) {
            (Reply::Gateway { process, folder_fault, missing }, Some(pidfd)) => {
                Ok(Gateway { process, folder_fault, missing, pidfd, rights: self.clone() })
            }
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    /// Reads the files in which the host's resolvers are stated: `resolv.conf`, and the list of
    /// systemd-resolved. Empty where there is none.
    ///
    /// # Errors
    /// The helper does not answer.
    pub fn resolvers(&self) -> Result<[Vec<u8>; 2], String> {
        let (reply, fds) = self.ask(Request::Resolvers, &[])?;
        let read = |fd: OwnedFd| {
            let mut bytes = Vec::new();
            File::from(fd).read_to_end(&mut bytes).map(|_| bytes).map_err(|it| it.to_string())
        };
        let files = fds.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        files.try_into().map_err(|_| unexpected(&reply))
    }

    /// Reads the configuration file.
    ///
    /// # Errors
    /// It does not exist or cannot be read.
    pub fn read_config(&self) -> io::Result<String> {
        let (reply, fds) = self.ask(Request::ReadConfig, &[]).map_err(io::Error::other)?;
        match (reply, fds.into_iter().next()) {
            (Reply::Missing, _) => Err(rustix::io::Errno::NOENT.into()),
            (_, Some(text)) => config_file::text_of(File::from(text), u64::MAX),
            (reply, None) => Err(io::Error::other(unexpected(&reply))),
        }
    }

    /// Writes the configuration file, complete at every moment.
    ///
    /// # Errors
    /// It cannot be written, and is unchanged.
    pub fn write_config(&self, text: &str, how: ConfigFile) -> Result<(), String> {
        let text = config_file::in_memory(text.as_bytes()).map_err(|error| error.to_string())?;
        self.ask(Request::WriteConfig(how), &[text.as_fd()]).map(drop)
    }
}

impl Gateway {
    /// Ends the process at once.
    pub fn kill(&self) {
        // Without a helper the process ends by itself, as its channel closes.
        let _ = self.rights.ask(Request::Kill { process: self.process }, &[]);
    }

    /// Waits until the process has ended; returns its status in words, if it is a child of this
    /// process.
    pub fn wait(self) -> Option<String> {
        status_at_end(self.pidfd)
    }
}
