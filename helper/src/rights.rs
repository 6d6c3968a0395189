//! What `tramad` may have done for it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use trama_frame::{MacAddr, Offloads};
use trama_keeper::Keeper;
use trama_switch::{NamespaceId, Tap, TapOptions, TapParts, Uplink, UplinkOptions, UplinkParts};
use trama_vhost_net_backend::ConnectionKeeper;

use crate::acts::Acts;
use crate::client::Client;
use crate::config_file;
use crate::connections::Connections;
use crate::gateway::{Gateways, Parent};
use crate::kept::{Asked, Entry};
use crate::pidfd::{ends_within, status_at_end};
use crate::request::{Answer, ConfigFile, Reply, Request, Setup, TapRequest, unexpected};
use crate::rules::Rules;

/// The keeper's key of the configuration's text.
const CONFIG: &str = "configuration";

/// The same of the ephemeral ports.
const EPHEMERAL: &str = "ephemeral";

/// The same of the secret of browsers' sessions.
const SECRET: &str = "web-secret";

/// How long a process that was killed may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens what needs privileges. Clones are handles of the same.
#[derive(Clone)]
pub struct Rights {
    kind: Arc<Kind>,
    /// Keeps what was opened beyond the end of this process.
    keeper: Option<Keeper>,
    /// Whether an earlier switch may have kept something.
    inherits: bool,
}

enum Kind {
    /// A helper process does it.
    Helper(Client),
    /// This process does it itself, with the privileges that it has.
    Own(Box<Mutex<Acts>>),
}

impl std::fmt::Debug for Rights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match *self.kind {
            Kind::Helper(_) => "Rights(helper)",
            Kind::Own(_) => "Rights(own)",
        })
    }
}

/// A TAP device that was opened.
pub struct OpenedTap {
    /// The device.
    pub tap: Tap,
    /// Its hardware address, as far as it is known.
    pub mac: Option<MacAddr>,
    /// Its entry with the keeper; the device lives until this is dropped as well.
    pub entry: Option<Entry>,
    /// Why it is not the one that an earlier switch had.
    pub refused: Option<String>,
}

/// An interface that was joined.
pub struct OpenedUplink {
    /// The interface.
    pub uplink: Uplink,
    /// Its entry with the keeper; the interface stays joined until this is dropped as well.
    pub entry: Option<Entry>,
    /// Why it is not the one that an earlier switch had.
    pub refused: Option<String>,
}

/// Why an interface was not joined; the text has the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotJoined {
    /// It is missing, down or too small: an event of its link may mend that.
    #[error("{0}")]
    LinkNotReady(String),
    /// The helper refuses, or the kernel does.
    #[error("{0}")]
    Refused(String),
}

/// What the end of a start has led to.
#[derive(Debug, Default)]
pub struct Started {
    /// The keeper's keys of what went away.
    pub dropped: Vec<String>,
    /// What is not in force, each with its reason.
    pub missing: Vec<String>,
}

/// Another `tramad` that was started, to take over.
#[derive(Debug)]
pub struct Successor {
    /// Its process.
    pub process: u32,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
}

/// A gateway process, or the one that serves browsers. It is a child of this process, or of an
/// earlier `tramad`.
#[derive(Debug)]
pub struct Gateway {
    /// Its process.
    pub process: u32,
    /// Why it has no lease folder, although it should.
    pub folder_fault: Option<String>,
    /// What of its sandbox is not in force, each with its reason.
    pub missing: Vec<String>,
    pub(crate) pidfd: OwnedFd,
    pub(crate) rights: Rights,
}

impl Rights {
    /// Asks a helper, which must be set up next.
    pub(crate) fn of(client: Client) -> Rights {
        Rights { kind: Arc::new(Kind::Helper(client)), keeper: None, inherits: false }
    }

    /// Has everything done in this process, with its privileges and without rules; `gateway` is the
    /// program of gateways. For tests.
    pub fn own(setup: Setup, gateway: impl Into<PathBuf>) -> Rights {
        let sandbox = setup.sandbox.parse().unwrap_or_default();
        let gateways = Gateways::new(gateway.into(), Parent::Itself, sandbox);
        let acts = Acts::new(setup, Rules::All, gateways);
        let kind = Arc::new(Kind::Own(Box::new(Mutex::new(acts))));
        Rights { kind, keeper: None, inherits: false }
    }

    /// The same, with a keeper for what is opened from now on. `inherits`: whether an earlier
    /// switch has kept something there; else it is not asked.
    pub fn with_keeper(self, keeper: Option<Keeper>, inherits: bool) -> Rights {
        Rights { keeper, inherits, ..self }
    }

    /// Returns whether there is a keeper.
    pub fn has_keeper(&self) -> bool {
        self.keeper.is_some()
    }

    pub(crate) fn keeper(&self) -> Option<&Keeper> {
        self.keeper.as_ref()
    }

    /// Returns the keeper if an earlier switch has kept something there.
    pub(crate) fn inheritance(&self) -> Option<&Keeper> {
        self.keeper().filter(|_| self.inherits)
    }

    /// Returns what keeps the connections of frontends, if there is a keeper.
    pub fn connection_keeper(&self) -> Option<Arc<dyn ConnectionKeeper>> {
        let (keeper, inherits) = (self.keeper.clone()?, self.inherits);
        Some(Arc::new(Connections { keeper, inherits }))
    }

    pub(crate) fn ask(&self, request: Request, fds: &[BorrowedFd<'_>]) -> Answer {
        match &*self.kind {
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

    /// Says that the start is over: what an earlier switch had and this one has not asked for goes
    /// away, and if this process ends without a word from now on, its helper starts a stand-in.
    pub fn started(&self) -> Started {
        let dropped = self.keeper.as_ref().and_then(|keeper| keeper.settle().ok());
        let dropped = dropped.unwrap_or_default();
        // Without a helper, no stand-in follows.
        match self.ask(Request::Started, &[]) {
            Ok((Reply::Ready { missing }, _)) => Started { dropped, missing },
            _ => Started { dropped, missing: Vec::new() },
        }
    }

    /// Starts another `tramad`, from the program's file as it is now, which takes over: for good,
    /// or for this many seconds until the next one is started.
    ///
    /// # Errors
    /// It cannot be started; the text has the remedy.
    pub fn start_successor(&self, bridges: Option<u64>) -> Result<Successor, String> {
        match self.ask_for_one(Request::StartSuccessor { bridges })? {
            (Reply::Successor { process }, pidfd) => Ok(Successor { process, pidfd }),
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    /// Ends the successor that was started, if it still runs; returns how it has ended, in words.
    ///
    /// # Errors
    /// The helper does not answer.
    pub fn end_successor(&self) -> Result<String, String> {
        match self.ask(Request::EndSuccessor, &[])? {
            (Reply::Status(status), _) => Ok(status),
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    /// Returns a descriptor that reports a hang-up (`POLLRDHUP`) when the helper has ended; `None`
    /// if there is none.
    pub fn helper_end_event(&self) -> Option<OwnedFd> {
        match &*self.kind {
            Kind::Helper(client) => client.end_event(),
            Kind::Own(_) => None,
        }
    }

    /// Says that this process ends, and the helper with it. If it hands over to another switch, the
    /// files of its sockets stay.
    pub fn end(&self, hands_over: bool) {
        if let Kind::Helper(client) = &*self.kind {
            client.hurry();
        }
        // A helper that has ended needs no word.
        let _ = self.ask(Request::End { hands_over }, &[]);
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

    /// Opens a TAP device, or goes on with that of an earlier switch.
    ///
    /// # Errors
    /// The helper refuses or the kernel does; the text has the remedy.
    pub fn tap(&self, options: &TapOptions) -> Result<OpenedTap, String> {
        let TapOptions { ifname, netns, address, mtu, mac, vnet_header, must_be_new: _ } =
            options.clone();
        let mac = mac.map(|mac| mac.0);
        let request = TapRequest { ifname, netns, address, mtu, mac, vnet_header };
        let place = request.netns.clone().unwrap_or_default();
        let key = format!("tap/{}/{place}", request.ifname);
        let asked = self.ask_kept(&key, Request::Tap(request), |reply, fds| {
            match (reply, fds.into_iter().next()) {
                (Reply::Tap { offloads, vnet_header, namespace, mac }, Some(fd)) => {
                    let namespace = namespace.map(|(device, inode)| NamespaceId { device, inode });
                    let offloads = Offloads::from_bits(offloads);
                    let parts = TapParts { fd, offloads, vnet_header, namespace };
                    parts.check().map_err(|error| error.to_string())?;
                    Ok((Tap::from_parts(parts), mac.map(MacAddr)))
                }
                (reply, _) => Err(unexpected(&reply)),
            }
        })?;
        let Asked { opened: (tap, mac), entry, refused } = asked;
        Ok(OpenedTap { tap, mac, entry, refused })
    }

    /// Joins an interface, or goes on with the socket of an earlier switch.
    ///
    /// # Errors
    /// The helper refuses or the kernel does.
    pub fn uplink(&self, options: &UplinkOptions) -> Result<OpenedUplink, NotJoined> {
        let UplinkOptions { ifname, netns, mtu } = options.clone();
        let request = Request::Uplink { ifname, netns, mtu };
        let asked = self.ask_kept(&uplink_key(options), request, |reply, fds| match reply {
            Reply::LinkNotReady(reason) => Ok(Err(reason)),
            reply => uplink_of(reply, fds).map(Ok),
        });
        let Asked { opened, entry, refused } = asked.map_err(NotJoined::Refused)?;
        Ok(OpenedUplink { uplink: opened.map_err(NotJoined::LinkNotReady)?, entry, refused })
    }

    /// Returns whether an earlier switch had joined this interface in the same way.
    pub fn inherits_uplink(&self, options: &UplinkOptions) -> bool {
        let kept = self.inheritance().map(|keeper| keeper.get(&uplink_key(options)));
        matches!(kept, Some(Ok(Some(_))))
    }

    /// Returns a socket that becomes readable when an interface of a namespace changes, and, if
    /// that is the namespace of a process by its number, a pidfd of it.
    ///
    /// # Errors
    /// The helper refuses or the kernel does; the text has the remedy.
    pub fn link_events(&self, netns: Option<&str>) -> Result<Vec<OwnedFd>, String> {
        let request = Request::LinkEvents { netns: netns.map(str::to_owned) };
        self.ask(request, &[]).map(|(_, fds)| fds)
    }

    /// Makes sure that a network's lease folder can be had.
    ///
    /// # Errors
    /// It cannot be made or opened; the text says why.
    pub fn lease_folder(&self, network: &str) -> Result<(), String> {
        self.ask(Request::LeaseFolder { network: network.to_owned() }, &[]).map(drop)
    }

    /// Starts the gateway process of a network, which ends with `lifeline`.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start_gateway(
        &self,
        network: &str,
        leases: bool,
        lifeline: &OwnedFd,
    ) -> Result<Gateway, String> {
        let request = Request::Gateway { network: network.to_owned(), leases };
        self.started_process(request, &[lifeline.as_fd()])
    }

    fn started_process(&self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<Gateway, String> {
        let (reply, fds) = self.ask(request, fds)?;
        match (reply, fds.into_iter().next()) {
            (Reply::Gateway { process, folder_fault, missing }, Some(pidfd)) => {
                Ok(Gateway { process, folder_fault, missing, pidfd, rights: self.clone() })
            }
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    /// Starts the process that serves browsers on `listener`, which ends with `link`.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start_web(&self, link: &OwnedFd, listener: &OwnedFd) -> Result<Gateway, String> {
        self.started_process(Request::Web, &[link.as_fd(), listener.as_fd()])
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
        let file = config_file::in_memory(text.as_bytes()).map_err(|error| error.to_string())?;
        self.ask(Request::WriteConfig(how), &[file.as_fd()])?;
        self.keep_config(text);
        Ok(())
    }

    /// Keeps the text of the configuration in force, as it was last read or written, for a
    /// stand-in that finds a file with faults.
    pub fn keep_config(&self, text: &str) {
        if let Some(keeper) = &self.keeper
            && let Ok(file) = config_file::in_memory(text.as_bytes())
        {
            // Without it a stand-in reads the file, as ever.
            let _ = keeper.put(CONFIG, &[], &[file.as_fd()]);
        }
    }

    /// Keeps the text of the ephemeral ports, which no file has, for the next switch.
    pub fn keep_ephemeral(&self, text: &str) {
        if let Some(keeper) = &self.keeper
            && let Ok(file) = config_file::in_memory(text.as_bytes())
        {
            // Without it they end with this switch.
            let _ = keeper.put(EPHEMERAL, &[], &[file.as_fd()]);
        }
    }

    /// Returns what an earlier switch has kept by [`Rights::keep_ephemeral`].
    pub fn kept_ephemeral(&self) -> Option<String> {
        let kept = self.inheritance()?.get(EPHEMERAL).ok()??;
        config_file::text_of(kept.fds.into_iter().next()?.into(), config_file::LONGEST_CONFIG).ok()
    }

    /// Returns the secret that an earlier switch has kept by [`Rights::keep_secret`].
    pub fn kept_secret(&self) -> Option<[u8; 32]> {
        let kept = self.inheritance()?.get(SECRET).ok()??;
        kept.value.try_into().ok()
    }

    /// Keeps the secret with which browsers' sessions are signed, for the next switch.
    pub fn keep_secret(&self, secret: &[u8; 32]) {
        if let Some(keeper) = &self.keeper {
            // Without it the sessions end with this switch.
            let _ = keeper.put(SECRET, secret, &[]);
        }
    }

    /// Keeps a device that was handed over, for the next switch.
    pub fn keep_attached(&self, port: &str, parts: &TapParts) -> Option<Entry> {
        let value = (parts.offloads.bits(), parts.vnet_header);
        self.put(&attached_key(port), &value, &parts.fd)
    }

    /// Returns what an earlier switch has kept by [`Rights::keep_attached`].
    pub fn kept_attached(&self, port: &str) -> Option<(TapParts, Entry)> {
        let ((offloads, vnet_header), fd, entry) = self.get::<(u8, bool)>(&attached_key(port))?;
        let offloads = Offloads::from_bits(offloads);
        Some((TapParts { fd, offloads, vnet_header, namespace: None }, entry))
    }

    /// Keeps a socket that was handed over, for the next switch.
    pub fn keep_attached_socket(&self, port: &str, socket: &OwnedFd) -> Option<Entry> {
        self.put(&attached_socket_key(port), &(), socket)
    }

    /// Returns what an earlier switch has kept by [`Rights::keep_attached_socket`].
    pub fn kept_attached_socket(&self, port: &str) -> Option<(OwnedFd, Entry)> {
        let ((), socket, entry) = self.get(&attached_socket_key(port))?;
        Some((socket, entry))
    }

    /// Returns what an earlier switch has kept by [`Rights::keep_config`].
    pub fn kept_config(keeper: &Keeper) -> Option<String> {
        let kept = keeper.get(CONFIG).ok()??;
        config_file::text_of(kept.fds.into_iter().next()?.into(), config_file::LONGEST_CONFIG).ok()
    }
}

/// The keeper's key of a device that was handed over.
fn attached_key(port: &str) -> String {
    format!("attached/{port}")
}

/// The same of a socket.
fn attached_socket_key(port: &str) -> String {
    format!("attached-socket/{port}")
}

/// The keeper's key of a joined interface.
fn uplink_key(UplinkOptions { ifname, netns, .. }: &UplinkOptions) -> String {
    format!("uplink/{ifname}/{}", netns.as_deref().unwrap_or_default())
}

fn uplink_of(reply: Reply, fds: Vec<OwnedFd>) -> Result<Uplink, String> {
    let mut fds = fds.into_iter();
    let Reply::Uplink { header, offloads, mac, to_host_fault, namespace } = &reply else {
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
        namespace: namespace.map(|(device, inode)| NamespaceId { device, inode }),
    };
    Uplink::from_parts(parts).map_err(|error| error.to_string())
}

impl Gateway {
    /// Ends the process at once, and waits for that.
    ///
    /// # Errors
    /// The helper refuses or has ended, or the process does not end.
    pub fn kill(&self) -> Result<(), String> {
        self.rights.ask(Request::Kill, &[self.pidfd.as_fd()])?;
        match self.ends_within(PATIENCE) {
            true => Ok(()),
            false => Err(format!("process {} was killed and does not end", self.process)),
        }
    }

    /// Waits until the process has ended, at most this long; returns whether it has.
    pub fn ends_within(&self, limit: Duration) -> bool {
        ends_within(&self.pidfd, limit)
    }

    /// Returns the status of a process that has ended, in words, if it is a child of this process.
    pub fn status(self) -> Option<String> {
        status_at_end(self.pidfd)
    }
}
