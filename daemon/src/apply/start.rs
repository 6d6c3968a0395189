//! The start of a port: where it belongs, its device, its place on a worker.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use trama_frame::MacAddr;
use trama_helper::{Entry, NotJoined, OpenedTap, OpenedUplink};
use trama_switch::{Device, EngineError, NamespaceId, PortSettings, Stream, VhostDevice};
use trama_vhost_net::SwitchPort;
use trama_vhost_net_backend::descriptors;

use super::datagrams::Datagrams;
use super::tunnels::TunnelEnd;
use super::{DataPlane, RunningPort};
use crate::config::model::{Attached, AttachedKind, Interface, Port, Role, System, VhostUser};
use crate::devices::{join_system, join_uplink, open_tap};
use crate::handed::{HandedListener, QUEUES};
use crate::{convert, host};

/// Device MTU of a port that is not attached.
const UNATTACHED_MTU: u16 = 1500;

/// Why a port does not run.
pub(super) struct NotStarted {
    pub(super) reason: String,
    /// Whether a change of its interface may mend that.
    pub(super) is_of_link: bool,
}

impl From<String> for NotStarted {
    fn from(reason: String) -> NotStarted {
        NotStarted { reason, is_of_link: false }
    }
}

impl From<NotJoined> for NotStarted {
    fn from(refused: NotJoined) -> NotStarted {
        let is_of_link = matches!(refused, NotJoined::LinkNotReady(_));
        NotStarted { reason: refused.to_string(), is_of_link }
    }
}

/// Where a port belongs.
pub(super) struct Placement {
    pub(super) worker: usize,
    pub(super) settings: PortSettings,
    /// The MTU of its device in bytes.
    pub(super) mtu: u16,
}

/// The device of a port.
pub(super) struct Opened {
    pub(super) device: Device,
    /// The stated namespace that it is in.
    pub(super) namespace: Option<NamespaceId>,
    /// Its hardware address, if it is known.
    pub(super) mac: Option<MacAddr>,
    /// Whether no other port may send from that.
    pub(super) owns_mac: bool,
    /// The keeper's entry of it.
    pub(super) entry: Option<Entry>,
    /// The socket of a datagram port.
    pub(super) datagrams: Option<Datagrams>,
    /// What a tunnel receives.
    pub(super) tunnel: Option<TunnelEnd>,
    /// A connection or a listening socket that was handed over.
    pub(super) socket: Option<OwnedFd>,
}

impl Opened {
    pub(super) fn new(device: Device) -> Opened {
        Opened {
            device,
            namespace: None,
            mac: None,
            owns_mac: false,
            entry: None,
            datagrams: None,
            tunnel: None,
            socket: None,
        }
    }

    fn joined(OpenedUplink { uplink, entry, .. }: OpenedUplink) -> Opened {
        let (namespace, mac) = (uplink.namespace(), Some(uplink.mac()));
        let device = Device::Uplink(Box::new(uplink));
        Opened { namespace, mac, owns_mac: true, entry, ..Opened::new(device) }
    }
}

impl DataPlane {
    /// Returns where a port belongs according to its network.
    pub(super) fn place(&self, port: &Port) -> Result<Placement, String> {
        let network = match &port.network {
            None => None,
            Some(name) => {
                let running = self.networks.get(name);
                Some(running.ok_or_else(|| format!("network {name} does not run"))?)
            }
        };
        // The address of a device that is yet to be made is not known here.
        let running = self.ports.get(&port.name);
        let own_address = running.and_then(|running| running.settings.filter.own_address);
        let id = network.map(|network| network.id);
        let settings = convert::port(port, id, self.mark(&port.name), own_address);
        let worker = network.map_or(0, |network| network.worker);
        let mtu = network.map_or(UNATTACHED_MTU, |network| network.config.mtu);
        Ok(Placement { worker, settings, mtu })
    }

    /// Returns the mark of a port, which stays the same while it runs.
    fn mark(&self, name: &str) -> u16 {
        match self.ports.get(name) {
            Some(running) => running.settings.mark,
            None => convert::mark(name, |mark| self.marks.contains(&mark)),
        }
    }

    /// Refuses subnets of a host-only network that the host already has routes to.
    fn check_routes(&self, port: &Port) -> Result<(), String> {
        let network = port.network.as_ref().filter(|_| port.of_network);
        match network.and_then(|name| self.networks.get(name)) {
            Some(network) => host::check(&network.config).map_err(|fault| fault.to_string()),
            None => Ok(()),
        }
    }

    fn open_device(&mut self, port: &Port, mtu: u16, worker: usize) -> Result<Opened, NotStarted> {
        Ok(match &port.interface {
            Interface::VhostUser(device) => {
                Opened::new(Device::Vhost(VhostDevice::new(device.queues)))
            }
            Interface::Tap(device) => {
                self.check_routes(port)?;
                let OpenedTap { tap, mac, entry, .. } =
                    open_tap(&self.rights, device, port.mac, mtu)?;
                let (namespace, owns_mac) = (tap.namespace(), port.of_network);
                Opened { namespace, mac, owns_mac, entry, ..Opened::new(Device::Tap(tap)) }
            }
            Interface::System(device) => {
                Opened::joined(join_system(&self.rights, device, &port.name, mtu)?)
            }
            Interface::Stream(_) => Opened::new(Device::Stream(Stream::new())),
            Interface::Dgram(device) => {
                let (device, kept) = self.open_datagrams(port, device)?;
                let device = Device::Dgram(Box::new(device));
                Opened { datagrams: Some(kept), ..Opened::new(device) }
            }
            Interface::Vxlan(device) => {
                let (device, end) = self.open_tunnel(device, worker)?;
                Opened { tunnel: Some(end), ..Opened::new(device) }
            }
            Interface::Attached(device) => self.open_handed(port, device)?,
            Interface::Uplink(device) => {
                let opened = join_uplink(&self.rights, &device.ifname, &port.name, mtu)?;
                Opened::joined(opened)
            }
        })
    }

    pub(super) fn start_port(&mut self, port: &Port) -> Result<RunningPort, NotStarted> {
        // The number of a new descriptor tells how many there are.
        let new = self.event.try_clone().map_err(|error| error.to_string())?;
        descriptors::check(&new).map_err(|refused| refused.to_string())?;
        drop(new);
        let Placement { worker, mut settings, mtu } = self.place(port)?;
        let opened = self.open_device(port, mtu, worker)?;
        let Opened { device, namespace, mac, owns_mac, entry, datagrams, tunnel, socket } = opened;
        settings.filter.own_address = mac.filter(|_| owns_mac);
        let joined_for = matches!(device, Device::Uplink(_)).then_some(mtu);
        let fault = match &device {
            // Its session handles its faults.
            Device::Vhost(_) => SwitchPort::fault_event().map_err(|error| error.to_string())?,
            // So does the thread of the connections.
            Device::Stream(_) => self.streams.end_event()?,
            _ => self.device_gone.clone(),
        };
        let (wanted, event) = (settings.clone(), fault.clone());
        let counters = self.kept.port(&port.name);
        let counted = counters.clone();
        let added = self.on_worker(worker, move |engine, _| {
            let id = engine.add_port_with(wanted, device, counted)?;
            engine.set_fault_event(id, Some(event))?;
            Ok::<_, EngineError>(id)
        })?;
        let id = added.map_err(|error| error.to_string())?;
        let note = self.crashes.port(id, &port.name);
        let mut running = RunningPort {
            worker,
            id,
            counters,
            settings,
            loop_mode: port.loop_mode,
            is_uplink: matches!(
                port.interface,
                Interface::Uplink(_) | Interface::System(System { confirm_uplink: true, .. })
            ),
            mac,
            session: None,
            place: None,
            namespace,
            joined_for,
            datagrams,
            tunnel,
            _entry: entry,
        };
        // Before anything can connect.
        self.events.set_port(id, super::known(port, &running));
        let connected = match (&port.interface, socket) {
            (Interface::VhostUser(device), _) => {
                let sockets = Arc::new(self.rights.clone());
                self.start_session(&mut running, (device, sockets), mtu, port, (fault, note))
            }
            (Interface::Stream(_), _) => self.start_stream(&mut running, port),
            (Interface::Attached(Attached { kind: AttachedKind::Stream, place, .. }), Some(it)) => {
                self.start_handed_stream(&mut running, port, place, it)
            }
            (Interface::Attached(Attached { place, .. }), Some(listener)) => {
                let path = place.into();
                let device = &VhostUser { path, role: Role::Server, queues: QUEUES };
                let sockets = Arc::new(HandedListener(listener));
                self.start_session(&mut running, (device, sockets), mtu, port, (fault, note))
            }
            _ => Ok(()),
        };
        match connected {
            Ok(()) => Ok(running),
            Err(reason) => {
                self.drop_port(running);
                Err(reason.into())
            }
        }
    }
}
