//! Carries out requests: in the helper, and in tests in the process that asks.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
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
use crate::request::{AccessIds, Answer, ConfigFile, Place, Reply, Request, Setup, TapRequest};
use crate::rules::Rules;
use crate::sockets::SocketFiles;
use crate::successor::Successor;
use crate::tunnels;

/// The files in which the host's resolvers are stated, and the most that is read of each in bytes.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const STUB_UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";
const LONGEST_RESOLV_CONF: u64 = 64 << 10;

/// What a switch says first, each once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Awaits {
    /// Where things are.
    Setup,
    /// That it serves.
    Serve,
    /// Nothing more.
    Nothing,
}

/// The state of the one that carries out requests.
pub(crate) struct Acts {
    pub(crate) setup: Setup,
    /// What the switch must say next.
    pub(crate) awaits: Awaits,
    /// Whether a switch has said that it serves.
    pub(crate) has_served: bool,
    /// Whether the switch has finished its start.
    pub(crate) has_started: bool,
    /// Whether another switch, which this one follows, still runs.
    pub(crate) is_beside: bool,
    pub(crate) rules: Rules,
    sockets: SocketFiles,
    gateways: Gateways,
    pub(crate) successor: Successor,
    pub(crate) approvals: Option<Approvals>,
    /// The files of the control socket and the keeper's, which are removed with this.
    control: Vec<(PathBuf, Arc<dyn SocketFile>)>,
    /// The user and group of switches and keepers that are started here; `None`: this process's.
    pub(crate) user: Option<(u32, u32)>,
    /// The last keeper that was started here.
    keeper: Option<Child>,
}

impl Acts {
    /// Everything is approved if `rules` says so.
    pub(crate) fn new(setup: Setup, rules: Rules, gateways: Gateways) -> Acts {
        let sockets = SocketFiles::new(setup.run.clone());
        Acts {
            setup,
            awaits: Awaits::Serve,
            has_served: false,
            has_started: false,
            is_beside: false,
            rules,
            sockets,
            gateways,
            successor: Successor::default(),
            approvals: None,
            control: Vec::new(),
            user: None,
            keeper: None,
        }
    }

    /// Prepares for the first switch, or for the next one after one has ended without a word.
    pub(crate) fn begin(&mut self, setup: Setup) {
        // A stand-in runs from a file that may have been replaced, and so does not know its path.
        let program = std::mem::take(&mut self.setup.program);
        self.setup = Setup { program, ..setup };
        self.awaits = Awaits::Serve;
        self.sockets.leave_all();
        // The next switch goes on with the sockets, or makes new files.
        std::mem::forget(std::mem::take(&mut self.control));
    }

    /// The switch serves: takes over the sockets by which a user steers it. Returns what is not in
    /// force.
    fn serve(&mut self, place: Place) -> Vec<String> {
        let Place { follows, is_beside } = place;
        self.awaits = Awaits::Nothing;
        self.has_served = true;
        self.has_started |= follows;
        self.is_beside = is_beside;
        let mut missing = Vec::new();
        for path in [self.setup.control.clone(), self.setup.keeper.clone()].into_iter().flatten() {
            if self.control.iter().any(|(made, _)| *made == path) {
                continue;
            }
            match take_over(&path) {
                Ok(file) => self.control.push((path, file)),
                Err(error) => missing.push(format!("removal of {}: {error}", path.display())),
            }
        }
        // The helper of a switch that still runs listens there.
        if !is_beside {
            missing.extend(self.listen_for_approvals().err());
        }
        missing
    }

    /// The switch has finished its start, and serves alone. Returns what is not in force.
    fn started(&mut self) -> Vec<String> {
        self.sockets.remove_left();
        self.has_started = true;
        // The helper of the switch before has ended, or is about to.
        let is_beside = std::mem::take(&mut self.is_beside);
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
            Request::Serve(place) if self.awaits == Awaits::Serve => {
                Ok((Reply::Ready { missing: self.serve(place) }, Vec::new()))
            }
            Request::Serve(_) => Err("this switch serves already".into()),
            Request::ReachKeeper => self.reach_keeper(),
            Request::Control { access } => self.make_control(access),
            Request::Started => Ok((Reply::Ready { missing: self.started() }, Vec::new())),
            Request::StartSuccessor { bridges } => {
                self.successor.start(&self.setup, bridges, self.user)
            }
            Request::EndSuccessor => self.successor.end(),
            Request::End { .. } => done,
            Request::Ids { user, group } => ids(user.as_deref(), group.as_deref()),
            Request::Tap(request) => self.tap(request),
            Request::Uplink { ifname, netns, mtu } => {
                self.uplink(&UplinkOptions { ifname, netns, mtu })
            }
            Request::LinkEvents { netns } => self.link_events(netns.as_deref()),
            Request::Listen { path, access } => {
                self.rules.listen(&path).map_err(|error| error.to_string())?;
                self.sockets.listen(&path, access)
            }
            Request::Adopt { path, access } => {
                self.rules.listen(&path).map_err(|error| error.to_string())?;
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
            Request::BindUnix { path, access } => {
                self.rules.listen(&path).map_err(|error| error.to_string())?;
                self.sockets.bind(&path, access)
            }
            Request::Internet { kind, address } => {
                self.rules.internet(&address).map_err(|error| error.to_string())?;
                internet::open(kind, address)
            }
            Request::Tunnel { end, local, remote } => {
                self.rules.tunnel(&remote).map_err(|error| error.to_string())?;
                tunnels::open(end, local)
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
            Request::Web => match fds.as_slice() {
                [link, listener] => self.gateways.start_web(link, listener),
                _ => Err("the link and the listening socket were not passed".into()),
            },
            Request::Keeper => {
                let channel = fds.into_iter().next().ok_or("no channel was passed")?;
                self.start_keeper(channel).map_err(|error| error.to_string())?;
                done
            }
            Request::Kill => {
                self.gateways.kill(fds.first().ok_or("no pidfd was passed")?)?;
                done
            }
            Request::ReadConfig => read_config(&self.setup.config, &mut self.rules),
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
        let child = trama_keeper::spawn(path, mode, channel, self.user)?;
        // Its file replaces that of the one before, which is not removed any more.
        self.control.push((path.clone(), take_over(path)?));
        if let Some(mut last) = self.keeper.replace(child) {
            last.wait()?;
        }
        Ok(())
    }

    /// Connects to the keeper, on behalf of a switch that may not: that of a service which had no
    /// user of its own is root's, and goes on beyond the upgrade to one that has.
    fn reach_keeper(&self) -> Answer {
        let path = self.setup.keeper.as_ref().ok_or("there is no keeper")?;
        match trama_keeper::connect_to(path).map_err(|error| error.to_string())? {
            Some(connection) => Ok((Reply::Done, vec![connection])),
            None => Ok((Reply::Missing, Vec::new())),
        }
    }

    fn make_control(&mut self, access: AccessIds) -> Answer {
        let path = self.setup.control.clone().ok_or("there is no control socket")?;
        let (listener, file) = self.sockets.make(&path, access)?;
        self.control.push((path, file));
        Ok((Reply::Done, vec![listener]))
    }

    fn tap(&mut self, request: TapRequest) -> Answer {
        let TapRequest { ifname, netns, address, mtu, mac, vnet_header } = request;
        let must_be_new = self
            .rules
            .tap(&ifname, netns.as_deref(), &address)
            .map_err(|error| error.to_string())?;
        let mac = mac.map(MacAddr);
        let options = TapOptions { ifname, netns, address, mtu, mac, vnet_header, must_be_new };
        let tap = Tap::open(&options).map_err(|error| {
            match must_be_new && error.io_error().raw_os_error() == Some(libc::EBUSY) {
                true => format!("{error}, or run as root: tramactl approve {}", options.ifname),
                false => error.to_string(),
            }
        })?;
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

    fn write_config(&mut self, how: ConfigFile, text: File) -> Answer {
        let text = config_file::text_of(text, config_file::LONGEST_CONFIG)
            .map_err(|error| error.to_string())?;
        self.save(how, &text).map_err(|error| error.to_string())?;
        self.rules.saved(&text);
        Ok((Reply::Done, Vec::new()))
    }

    fn save(&mut self, how: ConfigFile, text: &str) -> io::Result<()> {
        let file = &self.setup.config;
        if let ConfigFile::Create { is_private } = how {
            config_file::make_folder(file, is_private)?;
        }
        self.rules.will_save(text)?;
        match how {
            ConfigFile::Replace => config_file::replace(file, text),
            ConfigFile::Create { .. } => config_file::create(file, text),
        }
    }
}

/// Returns the process whose namespace a path names, as `/proc/4711/ns/net` does.
fn process_of(netns: &str) -> Option<Pid> {
    let number = netns.strip_prefix("/proc/")?.split('/').next()?;
    Pid::from_raw(number.parse().ok()?)
}

/// Reads the configuration, whose words are approved.
pub(crate) fn read_config(path: &Path, rules: &mut Rules) -> Answer {
    let text = match config_file::read_config_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok((Reply::Missing, Vec::new()));
        }
        text => text.map_err(|error| error.to_string())?,
    };
    rules.read(&text);
    let copy = config_file::in_memory(text.as_bytes()).map_err(|error| error.to_string())?;
    Ok((Reply::Done, vec![copy]))
}

/// Reads the files in which the host's resolvers are stated.
fn resolvers() -> Answer {
    let copy = |path: &str| {
        let mut bytes = Vec::new();
        // A file that is not there, or is no text file, counts as empty.
        let _ = config_file::open_at_once(path)
            .and_then(|file| file.take(LONGEST_RESOLV_CONF).read_to_end(&mut bytes));
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
