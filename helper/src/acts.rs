//! Carries out requests: in the helper, and in tests in the process that asks.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use trama_frame::MacAddr;
use trama_switch::{Tap, TapOptions, TapParts, UplinkOptions, UplinkParts};
use trama_vhost_net_backend::{SocketFile, access, take_over};

use crate::approvals::Approvals;
use crate::config_file;
use crate::gateway::Gateways;
use crate::internet;
use crate::request::{Answer, ConfigFile, Reply, Request, Setup, TapRequest};
use crate::rules::Rules;
use crate::sockets::SocketFiles;
use crate::successor::Successor;

/// The files in which the host's resolvers are stated, and the most that is read of each in bytes.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const STUB_UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";
const LONGEST_RESOLV_CONF: u64 = 64 << 10;

/// The state of the one that carries out requests.
pub(crate) struct Acts {
    pub(crate) setup: Setup,
    /// Whether the switch has finished its start.
    pub(crate) has_started: bool,
    pub(crate) rules: Rules,
    sockets: SocketFiles,
    gateways: Gateways,
    pub(crate) successor: Successor,
    pub(crate) approvals: Option<Approvals>,
    /// The files of the control socket and the keeper's, which are removed with this.
    pub(crate) control: Vec<Arc<dyn SocketFile>>,
    /// The last keeper that was started here.
    keeper: Option<Child>,
}

impl Acts {
    /// Everything is approved if `rules` says so.
    pub(crate) fn new(setup: Setup, rules: Rules, gateways: Gateways) -> Acts {
        let sockets = SocketFiles::new(setup.run.clone());
        let (has_started, approvals, control) = (setup.follows, None, Vec::new());
        let successor = Successor::default();
        Acts {
            setup,
            has_started,
            rules,
            sockets,
            gateways,
            successor,
            approvals,
            control,
            keeper: None,
        }
    }

    /// Prepares for the next switch, after one has ended without a word.
    pub(crate) fn begin_again(&mut self, setup: Setup) {
        // A stand-in runs from a file that may have been replaced, and so does not know its path.
        let program = std::mem::take(&mut self.setup.program);
        self.setup = Setup { program, ..setup };
        self.sockets.leave_all();
        // The next switch goes on with the sockets, or makes new files.
        std::mem::forget(std::mem::take(&mut self.control));
    }

    /// The switch has finished its start, and serves alone. Returns what is not in force.
    fn started(&mut self) -> Vec<String> {
        self.sockets.remove_left();
        self.has_started = true;
        // The helper of the switch before has ended, or is about to.
        let is_beside = std::mem::take(&mut self.setup.is_beside);
        if is_beside { self.listen_for_approvals().err().into_iter().collect() } else { Vec::new() }
    }

    /// Makes the socket for root's approvals.
    ///
    /// # Errors
    /// It cannot be made; the text is for the log.
    pub(crate) fn listen_for_approvals(&mut self) -> Result<(), String> {
        let Some(path) = &self.setup.approvals else { return Ok(()) };
        let made = Approvals::listen(path).map_err(|error| format!("approvals by root: {error}"));
        made.map(|approvals| self.approvals = Some(approvals))
    }

    /// Leaves the files of all sockets to another helper.
    pub(crate) fn hand_over(mut self) {
        std::mem::forget(std::mem::replace(&mut self.sockets, SocketFiles::new(PathBuf::new())));
        std::mem::forget(std::mem::take(&mut self.control));
    }

    /// Carries out a request.
    pub(crate) fn carry_out(&mut self, request: Request, fds: Vec<OwnedFd>) -> Answer {
        let done = Ok((Reply::Done, Vec::new()));
        match request {
            Request::Setup(_) => Err("the helper is set up already".into()),
            Request::Started => Ok((Reply::Ready { missing: self.started() }, Vec::new())),
            Request::StartSuccessor { bridges } => self.successor.start(&self.setup, bridges),
            Request::EndSuccessor => self.successor.end(),
            Request::End { .. } => done,
            Request::Ids { user, group } => ids(user.as_deref(), group.as_deref()),
            Request::Tap(request) => self.tap(request),
            Request::Uplink { ifname, netns, mtu } => {
                self.uplink(&UplinkOptions { ifname, netns, mtu })
            }
            Request::LinkEvents { netns } => self.link_events(netns.as_deref()),
            Request::Listen { path, access } => self.sockets.listen(&path, access),
            Request::Adopt { path, access } => {
                let listener = fds.into_iter().next().ok_or("no socket was passed")?;
                self.sockets.adopt(&path, access, &listener)
            }
            Request::SetAccess { socket, access } => {
                self.sockets.set_access(socket, access).map(|()| (Reply::Done, Vec::new()))
            }
            Request::Close { socket } => {
                self.sockets.close(socket);
                done
            }
            Request::Connect { path } => {
                self.rules.connect(&path).map_err(|error| error.to_string())?;
                self.sockets.connect(&path)
            }
            Request::BindUnix { path, access } => self.sockets.bind(&path, access),
            Request::Internet { kind, address } => {
                self.rules.internet(&address).map_err(|error| error.to_string())?;
                internet::open(kind, address)
            }
            Request::AddressOf { ifname } => internet::address_of(&ifname),
            Request::LeaseFolder { network } => {
                self.gateways.lease_folder(&self.setup.state, &network)?;
                done
            }
            Request::Gateway { network, leases } => {
                let lifeline = fds.into_iter().next().ok_or("no lifeline was passed")?;
                let leases = leases.then_some(self.setup.state.as_path());
                self.gateways.start(&network, leases, lifeline)
            }
            Request::Keeper => {
                let channel = fds.into_iter().next().ok_or("no channel was passed")?;
                self.start_keeper(channel).map_err(|error| error.to_string())?;
                done
            }
            Request::Kill => {
                self.gateways.kill(fds.first().ok_or("no pidfd was passed")?)?;
                done
            }
            Request::ReadConfig => self.read_config(),
            Request::Resolvers => resolvers(),
            Request::WriteConfig(how) => {
                let text = fds.into_iter().next().ok_or("no text was passed")?;
                self.write_config(how, text.into())
            }
        }
    }

    fn start_keeper(&mut self, channel: OwnedFd) -> io::Result<()> {
        let path = self.setup.keeper.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let mode = self.setup.sandbox.parse().unwrap_or_default();
        let child = trama_keeper::spawn(path, mode, channel)?;
        // Its file replaces that of the one before, which is not removed any more.
        self.control.push(take_over(path)?);
        if let Some(mut last) = self.keeper.replace(child) {
            last.wait()?;
        }
        Ok(())
    }

    fn tap(&mut self, request: TapRequest) -> Answer {
        let TapRequest { ifname, netns, address, mtu, mac, vnet_header } = request;
        self.rules.tap(&ifname, netns.as_deref(), &address).map_err(|error| error.to_string())?;
        let mac = mac.map(MacAddr);
        let options = TapOptions { ifname, netns, address, mtu, mac, vnet_header };
        let tap = Tap::open(&options).map_err(|error| error.to_string())?;
        let TapParts { fd, offloads, vnet_header, namespace } = tap.into_parts();
        let reply = Reply::Tap {
            offloads: offloads.bits(),
            vnet_header,
            namespace: namespace.map(|it| (it.device, it.inode)),
            mac: hardware_address(&options).map(|mac| mac.0),
        };
        Ok((reply, vec![fd]))
    }

    fn uplink(&mut self, options: &UplinkOptions) -> Answer {
        let UplinkOptions { ifname, netns, .. } = options;
        self.rules.uplink(ifname, netns.as_deref()).map_err(|error| error.to_string())?;
        let parts = match UplinkParts::open(options) {
            Err(error) if error.is_of_link() => {
                return Ok((Reply::LinkNotReady(error.to_string()), Vec::new()));
            }
            opened => opened.map_err(|error| error.to_string())?,
        };
        let UplinkParts { socket, to_host, header, offloads, mac, namespace } = parts;
        let mut fds = vec![socket];
        let to_host_fault = to_host.map(|link| fds.push(link)).err();
        let (offloads, mac) = (offloads.bits(), mac.0);
        let namespace = namespace.map(|it| (it.device, it.inode));
        Ok((Reply::Uplink { header, offloads, mac, to_host_fault, namespace }, fds))
    }

    fn link_events(&mut self, netns: Option<&str>) -> Answer {
        self.rules.netns(netns).map_err(|error| error.to_string())?;
        let mut fds = vec![trama_tap::link_events(netns).map_err(|error| error.to_string())?];
        if let Some(process) = netns.and_then(process_of) {
            let pidfd = pidfd_open(process, PidfdFlags::empty());
            fds.push(pidfd.map_err(|error| format!("process {process:?}: {error}"))?);
        }
        Ok((Reply::Done, fds))
    }

    fn read_config(&mut self) -> Answer {
        let text = match read(&self.setup.config) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Reply::Missing, Vec::new()));
            }
            text => text.map_err(|error| error.to_string())?,
        };
        self.rules.read(&text);
        let copy = config_file::in_memory(text.as_bytes()).map_err(|error| error.to_string())?;
        Ok((Reply::Done, vec![copy]))
    }

    fn write_config(&mut self, how: ConfigFile, text: File) -> Answer {
        let text = config_file::text_of(text, config_file::LONGEST_CONFIG)
            .map_err(|error| error.to_string())?;
        let file = &self.setup.config;
        let written = match how {
            ConfigFile::Replace => config_file::replace(file, &text),
            ConfigFile::Create { is_private } => config_file::create(file, &text, is_private),
        };
        written.map_err(|error| error.to_string())?;
        self.rules.saved(&text);
        Ok((Reply::Done, Vec::new()))
    }
}

/// Returns the process whose namespace a path names, as `/proc/4711/ns/net` does.
fn process_of(netns: &str) -> Option<Pid> {
    let number = netns.strip_prefix("/proc/")?.split('/').next()?;
    Pid::from_raw(number.parse().ok()?)
}

/// Reads the configuration.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(config_file::LONGEST_CONFIG).read_to_string(&mut text)?;
    Ok(text)
}

/// Reads the files in which the host's resolvers are stated.
fn resolvers() -> Answer {
    let copy = |path: &str| {
        // Does not block on a FIFO.
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let opened = File::options().read(true).custom_flags(flags).open(path);
        let mut bytes = Vec::new();
        // A file that is not there, or is no text file, counts as empty.
        let _ = opened.and_then(|file| file.take(LONGEST_RESOLV_CONF).read_to_end(&mut bytes));
        config_file::in_memory(&bytes).map_err(|error| error.to_string())
    };
    let files = [RESOLV_CONF, STUB_UPSTREAM].map(copy);
    Ok((Reply::Done, files.into_iter().collect::<Result<_, _>>()?))
}

fn ids(user: Option<&str>, group: Option<&str>) -> Answer {
    let user = user.map(access::user_id).transpose().map_err(|error| error.to_string())?;
    let group = group.map(access::group_id).transpose().map_err(|error| error.to_string())?;
    Ok((Reply::Ids { user, group }, Vec::new()))
}

/// Returns the hardware address of a TAP device as the system shows it, since the device may have
/// existed before; in a namespace that the process cannot see, as it was set.
fn hardware_address(tap: &TapOptions) -> Option<MacAddr> {
    let shown = || {
        let path = format!("/sys/class/net/{}/address", tap.ifname);
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    let shown = if tap.netns.is_none() { shown() } else { None };
    shown.or(tap.mac)
}
