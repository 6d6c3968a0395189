//! Executes steps: starts, changes and stops networks and ports on the workers.
//!
//! A [`DataPlane`] owns the workers, the vhost-user sessions and the state of each network and
//! port. A step that fails for one port (its socket exists, its TAP cannot be made) leaves that
//! port out with a reason, and the other steps go on; [`DataPlane::retry`] tries again. Every
//! change reaches a worker as a job between two bursts, so no other port notices.

mod datagrams;
mod handed;
mod links;
mod mirrors;
mod networks;
mod sessions;
mod settle;
mod sockets;
mod start;
mod troubles;
mod tunnels;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use trama_frame::MacAddr;
use trama_helper::{Entry, Rights};
use trama_switch::counters::{Lasting, NetworkCounters, PortCounters};
use trama_switch::news::drop_notices;
use trama_switch::{
    Engine, Epoch, NamespaceId, NetworkId, PortFault, PortId, PortSettings, Time, WorkerGroup,
    WorkerHandle,
};
use trama_vhost_net::PortPlace;
use trama_vhost_net_backend::Session;

use crate::attached::AttachedDevices;
use crate::balance::Balancer;
use crate::config::model::{Config, DaemonConfig, Interface, LoopMode, Network, Port};
use crate::convert;
use crate::crashes::Crashes;
use crate::events::{Events, Known};
use crate::gateway::{Gateway, Starts};
use crate::kept::KeptState;
use crate::last_drops::LastDrops;
use crate::links::Links;
use crate::loops::{self, Loops};
use crate::namespaces::NamespaceWatch;
use crate::plan::Step;
use crate::spread::Spread;
use crate::storms::Storms;
use crate::streams::Streams;

use datagrams::Datagrams;
use mirrors::Mirrors;
pub(crate) use settle::wait_until_resumed;
use start::{NotStarted, Placement};
pub(crate) use troubles::{Part, Trouble};
use tunnels::{RunningVtep, TunnelEnd};

/// How many gateways start at once.
const STARTING_GATEWAYS: usize = 32;

/// The data plane: everything that runs.
pub struct DataPlane {
    pub(crate) workers: Vec<Worker>,
    pub(crate) networks: HashMap<String, RunningNetwork>,
    pub(crate) ports: HashMap<String, RunningPort>,
    /// Ports that do not run, or not as stored, and why.
    pub(crate) failed: BTreeMap<String, Trouble>,
    /// The marks of the ports that run.
    marks: HashSet<u16>,
    starts: Arc<Starts>,
    rights: Rights,
    pub(crate) crashes: Arc<Crashes>,
    pub(crate) kept: KeptState,
    /// Whether another switch still moves the frames.
    is_beside: bool,
    group: WorkerGroup,
    /// The folder for state that survives a restart.
    state: PathBuf,
    pub(crate) balancer: Balancer,
    /// Written to when a device vanishes, a port cannot start, a worker is loaded, a namespace
    /// comes or goes, or a link changes that ports depend on.
    event: UnixStream,
    /// The storms that last.
    pub(crate) storms: Storms,
    /// Loops: what is suspected, and which ports are blocked.
    pub(crate) loops: Loops,
    /// The same, for the workers: written to when a device vanishes.
    device_gone: Arc<OwnedFd>,
    /// Connections of stream ports.
    pub(crate) streams: Streams,
    /// The receiving ends of tunnels, by their addresses.
    vteps: HashMap<SocketAddr, RunningVtep>,
    /// Started with the first port in a stated namespace.
    namespaces: Option<NamespaceWatch>,
    /// Interfaces that ports have joined or wait for.
    links: Links,
    /// Devices that clients have handed over.
    pub(crate) attached: AttachedDevices,
    /// The mirrors that run.
    mirrors: Mirrors,
    /// The last frames that were dropped.
    pub(crate) last_drops: LastDrops,
    pub(crate) events: Arc<Events>,
}

pub(crate) struct Worker {
    pub(crate) handle: WorkerHandle,
    thread: Option<JoinHandle<()>>,
}

pub(crate) struct RunningNetwork {
    pub(crate) worker: usize,
    pub(crate) id: NetworkId,
    pub(crate) counters: Lasting<NetworkCounters>,
    config: Network,
    /// Its gateway, if it has one.
    pub(crate) gateway: Option<Gateway>,
}

pub(crate) struct RunningPort {
    pub(crate) worker: usize,
    pub(crate) id: PortId,
    pub(crate) counters: Lasting<PortCounters>,
    pub(crate) settings: PortSettings,
    /// What is done about loops at the port.
    pub(crate) loop_mode: LoopMode,
    /// Whether it leads to the host's LAN.
    pub(crate) is_uplink: bool,
    /// The hardware address of a TAP device.
    pub(crate) mac: Option<MacAddr>,
    /// The session of a vhost-user port.
    pub(crate) session: Option<Session>,
    /// The place by which its session reaches it.
    pub(crate) place: Option<PortPlace>,
    /// The namespace of a device that is in a stated one.
    pub(crate) namespace: Option<NamespaceId>,
    /// The socket of a datagram port.
    pub(crate) datagrams: Option<Datagrams>,
    /// What a tunnel receives.
    pub(crate) tunnel: Option<TunnelEnd>,
    /// The MTU for which an interface was joined.
    joined_for: Option<u16>,
    /// The keeper's entry of its device, which lives until both are dropped.
    _entry: Option<Entry>,
}

impl DataPlane {
    /// Starts the workers, without networks; `rights` opens devices and sockets, but not for ports
    /// that `crashes` leaves out. The stream becomes readable when [`DataPlane::take_faults`],
    /// [`DataPlane::retry`] or [`DataPlane::balance`] has something to do.
    ///
    /// # Errors
    /// A thread or a pair of sockets could not be created.
    pub fn start(
        daemon: &DaemonConfig,
        rights: Rights,
        crashes: Arc<Crashes>,
    ) -> io::Result<(DataPlane, UnixStream)> {
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), "trama");
        let group = WorkerGroup::new(seed);
        // Not an eventfd: registering a raw descriptor with the runtime takes `unsafe`.
        let (event, readable) = UnixStream::pair()?;
        event.set_nonblocking(true)?;
        readable.set_nonblocking(true)?;
        let (teller, notices) = drop_notices();
        let events = Events::start(daemon.events)?;
        let last_drops = LastDrops::start(notices, events.clone())?;
        let mut workers = Vec::with_capacity(daemon.workers);
        for index in 0..daemon.workers {
            // A single worker has no other to give load to.
            let load = (daemon.workers > 1).then(|| event.try_clone()).transpose()?;
            let spin = daemon.spin;
            let (handle, thread) =
                group.spawn(spin, format!("worker{index}"), load.map(Into::into))?;
            if let Ok(Err(error)) = handle.call(|engine, _| engine.set_up_calls()) {
                tracing::warn!(
                    "asynchronous I/O is not to be had ({error}): a hostile VMM could make a call \
                     to its guest block, and all ports with it; allow io_setup(2) and \
                     io_submit(2), or raise fs.aio-max-nr"
                );
            }
            let (alarm, note) = (event.try_clone()?, crashes.worker());
            let teller = teller.clone();
            // A worker that has just ended sends no alarm.
            let _ = handle.call(move |engine, _| {
                engine.set_alarm(alarm.into());
                engine.set_note(note);
                engine.set_drop_teller(teller);
            });
            workers.push(Worker { handle, thread: Some(thread) });
        }
        let epoch = workers.first().map(|worker| worker.handle.call(|_, now| Epoch::of(now)));
        let epoch = epoch.and_then(Result::ok).unwrap_or_else(|| Epoch::of(Time::ZERO));
        let data_plane = DataPlane {
            kept: KeptState::open(&rights, epoch),
            workers,
            networks: HashMap::new(),
            ports: HashMap::new(),
            failed: BTreeMap::new(),
            marks: HashSet::new(),
            starts: Starts::new(STARTING_GATEWAYS),
            rights,
            crashes,
            is_beside: false,
            group,
            state: daemon.state.clone(),
            balancer: Balancer::default(),
            device_gone: Arc::new(event.try_clone()?.into()),
            streams: Streams::new(event.try_clone()?),
            vteps: HashMap::new(),
            event,
            storms: Storms::default(),
            loops: Loops::new(loops::up_to_half),
            namespaces: None,
            links: Links::default(),
            attached: AttachedDevices::default(),
            mirrors: Mirrors::default(),
            last_drops,
            events,
        };
        Ok((data_plane, readable))
    }

    /// Executes steps in order; `wanted` is the configuration they lead to.
    pub fn apply(&mut self, steps: &[Step], wanted: &Config) {
        let mut spread = self.spread(wanted);
        self.take(steps, wanted, &mut spread);
    }

    /// Counts what the workers have, before networks of `wanted` are added.
    pub(crate) fn spread(&self, wanted: &Config) -> Spread {
        let running = self.networks.iter().map(|(name, running)| (name.as_str(), running.worker));
        Spread::new(self.workers.len(), wanted, running)
    }

    /// Executes some of the steps that lead to `wanted`.
    pub(crate) fn take(&mut self, steps: &[Step], wanted: &Config, spread: &mut Spread) {
        for step in steps {
            tracing::info!("{step}");
            match step {
                Step::RemovePort { name } => {
                    self.remove_port(name);
                    self.crashes.clear(name);
                }
                Step::AddNetwork { network } => self.add_network(network, spread),
                Step::SetNetwork { network, .. } => self.set_network(network, wanted),
                Step::SetPort { port, .. } => self.set_port(port),
                Step::RemoveNetwork { name } => self.remove_network(name),
                Step::AddPort { port } => self.add_port(port),
                Step::SetMirrors { network, mirrors } => self.set_mirrors(network, mirrors),
                Step::NeedsRestart { .. } => {}
            }
        }
    }

    /// Lets the gateways start: those that there are, and from then on each new one.
    pub fn start_gateways(&self) {
        self.starts.open();
    }

    /// Tries again to start the ports that do not run, but for those that wait for a change of
    /// their link or for a command. Returns whether one started.
    pub fn retry(&mut self, config: &Config) -> bool {
        let by_time = self.failed.keys().filter(|name| !self.links.is_waiting(name));
        let mut waiting: HashSet<String> = by_time.cloned().collect();
        if waiting.is_empty() {
            return false;
        }
        let before = self.failed.len();
        for port in config.all_ports() {
            if waiting.remove(&port.name) {
                self.set_port(&port);
            }
        }
        self.failed.retain(|name, _| !waiting.contains(name));
        self.failed.len() < before
    }

    /// Removes ports whose device has vanished from the running ones. Returns those whose device
    /// was deleted.
    pub fn take_faults(&mut self) -> Vec<String> {
        let mut deleted = Vec::new();
        for index in 0..self.workers.len() {
            let Ok(broken) = self.on_worker(index, |engine, _| engine.broken_ports()) else {
                continue;
            };
            // The session handles broken rings: it disconnects its frontend and goes on.
            let gone: HashMap<PortId, PortFault> = broken
                .into_iter()
                .filter(|(_, fault)| matches!(fault, PortFault::DeviceGone | PortFault::UplinkGone))
                .collect();
            if gone.is_empty() {
                continue;
            }
            let named = |(name, port): (&String, &RunningPort)| {
                gone.get(&port.id).map(|fault| (name.clone(), *fault))
            };
            let gone: Vec<(String, PortFault)> = self.ports.iter().filter_map(named).collect();
            for (name, fault) in gone {
                self.remove_port(&name);
                self.fail(&name, fault);
                match fault {
                    // It may be there again already, and then no event follows.
                    PortFault::UplinkGone => self.links.try_soon(&name),
                    _ => deleted.push(name),
                }
            }
        }
        deleted
    }

    /// Makes devices again after the name of their namespace was deleted or given to another
    /// namespace. The old device reports nothing, as it keeps its namespace alive. A port whose
    /// namespace is missing does not run, and starts when the name appears.
    pub fn follow_namespaces(&mut self, config: &Config) {
        // A port that cannot be made raises the event too; that alone must not cause a retry.
        if !self.namespaces.as_ref().is_some_and(NamespaceWatch::take_change) {
            return;
        }
        for port in config.all_ports() {
            let Some(netns) = port.interface.netns() else { continue };
            let made_in = self.ports.get(&port.name).and_then(|running| running.namespace);
            let now = match NamespaceId::of(netns) {
                // Another user's process: its end is heard of.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
                found => found.ok(),
            };
            if made_in == now {
                continue;
            }
            if made_in.is_some() {
                let name = &port.name;
                tracing::warn!("port {name}: network namespace {netns} is gone or another one now");
                self.remove_port(name);
            }
            self.add_port(&port);
        }
    }

    /// Ends the sessions, removes every device, and stops the workers.
    pub fn stop(&mut self) {
        let names: Vec<String> = self.ports.keys().cloned().collect();
        names.iter().for_each(|name| self.remove_port(name));
        let gateways = self.networks.values_mut().filter_map(|network| network.gateway.take());
        gateways.for_each(Gateway::stop);
        for worker in &mut self.workers {
            worker.handle.stop();
            if let Some(thread) = worker.thread.take()
                && thread.join().is_err()
            {
                tracing::error!("a worker ended by a panic");
            }
        }
    }

    /// Returns the workers in their order.
    pub fn workers(&self) -> Vec<WorkerHandle> {
        self.workers.iter().map(|worker| worker.handle.clone()).collect()
    }

    /// Runs a job on a worker between two bursts.
    pub(crate) fn on_worker<R: Send + 'static>(
        &self,
        worker: usize,
        job: impl FnOnce(&mut Engine, Time) -> R + Send + 'static,
    ) -> Result<R, String> {
        self.workers[worker].handle.call(job).map_err(|e| e.to_string())
    }

    /// Runs a job on each worker between two bursts.
    pub(crate) fn on_each_worker(&self, job: fn(&mut Engine, Time)) {
        for index in 0..self.workers.len() {
            // One that has ended has no ports.
            let _ = self.on_worker(index, job);
        }
    }

    fn add_port(&mut self, port: &Port) {
        if let Some(reason) = self.crashes.left_out(&port.name) {
            // The log has it.
            return self.set_failed(&port.name, Trouble { part: Part::Whole, reason });
        }
        if port.interface.netns().is_some() {
            self.watch_namespaces();
        }
        // First, so that no change is missed.
        self.watch_links(port);
        match self.start_port(port) {
            Ok(running) => {
                self.links.stop_waiting(&port.name);
                if self.failed.remove(&port.name).is_some() {
                    tracing::info!("port {} runs now", port.name);
                    self.events.link_of(running.id, "up", "it runs now");
                }
                self.marks.insert(running.settings.mark);
                self.ports.insert(port.name.clone(), running);
                if matches!(port.interface, Interface::Vxlan(_)) {
                    self.renew_tunnels();
                }
                self.renew_mirrors(port.network.as_deref());
            }
            Err(NotStarted { reason, is_of_link }) => {
                self.links.stop_waiting(&port.name);
                if is_of_link {
                    self.wait_for_link(port);
                }
                if matches!(port.interface, Interface::Vxlan(_)) {
                    self.renew_tunnels();
                }
                self.fail(&port.name, reason);
            }
        }
    }

    fn watch_namespaces(&mut self) {
        if self.namespaces.is_some() {
            return;
        }
        match self.event.try_clone().and_then(NamespaceWatch::start) {
            Ok(watch) => self.namespaces = Some(watch),
            Err(error) => tracing::warn!(
                "that a network namespace was deleted or made again will not be noticed: {error}"
            ),
        }
    }

    fn set_port(&mut self, port: &Port) {
        if !self.ports.contains_key(&port.name) {
            return self.add_port(port);
        }
        match self.set_session(port).and_then(|()| self.set_socket(port)) {
            Ok(()) => drop(self.failed.remove(&port.name)),
            // A connected VMM stays connected; the socket stays as it is.
            Err(reason) => self.fall_short(&port.name, Part::Socket, reason),
        }
        if let Some(running) = self.ports.get_mut(&port.name) {
            running.loop_mode = port.loop_mode;
        }
        let Some(running) = self.ports.get(&port.name) else { return };
        let Placement { worker, settings, mtu } = match self.place(port) {
            Ok(placement) => placement,
            Err(reason) => {
                self.remove_port(&port.name);
                return self.fail(&port.name, reason);
            }
        };
        if running.joined_for.is_some_and(|joined_for| joined_for < mtu) {
            // Its interface may be too small.
            self.remove_port(&port.name);
            return self.add_port(port);
        }
        if settings == running.settings && worker == running.worker {
            return;
        }
        let (from, id, wanted) = (running.worker, running.id, settings.clone());
        let done = match worker == from {
            true => self.on_worker(worker, move |engine, _| engine.set_port(id, wanted)),
            false => {
                let moved = self.move_port(&port.name, worker, wanted);
                moved.map_err(|error| error.to_string())
            }
        };
        match done {
            Ok(Ok(())) => {
                if let Some(running) = self.ports.get_mut(&port.name) {
                    let old = std::mem::replace(&mut running.settings, settings);
                    self.events.set_port(id, known(port, running));
                    if old.cable != port.cable {
                        let (verdict, detail) = cable(port.cable);
                        self.events.link_of(id, verdict, detail);
                    }
                    if let Some(session) = &running.session {
                        session.set_device(convert::device(port, mtu));
                        if old.cable != port.cable {
                            session.set_cable(port.cable);
                        }
                    }
                }
            }
            Ok(Err(error)) => self.fall_short(&port.name, Part::Settings, error),
            Err(error) => self.fall_short(&port.name, Part::Settings, error),
        }
    }

    fn remove_port(&mut self, name: &str) {
        self.failed.remove(name);
        self.links.forget(name);
        if let Some(port) = self.ports.remove(name) {
            self.marks.remove(&port.settings.mark);
            let is_tunnel = port.tunnel.is_some();
            self.drop_port(port);
            if is_tunnel {
                self.renew_tunnels();
            }
            self.kept.forget_port(name);
        }
    }

    fn drop_port(&self, port: RunningPort) {
        if let Some(session) = port.session {
            session.stop();
        }
        self.streams.remove(&port.settings.name);
        let removed = self.on_worker(port.worker, move |engine, _| engine.remove_port(port.id));
        if let Ok(Err(error)) = removed {
            tracing::error!("port {}: {error}", port.settings.name);
        }
        self.crashes.removed(port.id);
        self.events.forget_port(port.id);
    }
}

/// What events say of a port.
fn known(port: &Port, running: &RunningPort) -> Known {
    let RunningPort { settings, counters, .. } = running;
    Known::new((&port.name, port.network.as_deref()), settings.mark, counters.clone())
}

/// What an event says of a cable.
fn cable(is_in: bool) -> (&'static str, &'static str) {
    if is_in { ("up", "the cable is in") } else { ("down", "the cable is out") }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.stop();
    }
}
