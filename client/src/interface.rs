//! An interface in a network namespace: made with the caller's rights, and handed to the daemon,
//! which needs none.
//!
//! What is known beforehand is set up first, and the device is handed over then: if this process is
//! killed before, the device goes with the process. Only addresses that the daemon chooses come
//! after that.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use trama_api::attach::{Attached, Device, Request};
use trama_api::transaction::{Output, VERSION};
use trama_api::value::{Atom, Value};
use trama_frame::MacAddr;
use trama_tap::{
    NamespaceError, Route, TapOptions, add_apart, in_namespace, open_apart, open_down,
};

use crate::exchange::{NoAnswer, connect, late, patiently, wait};
use crate::{Daemon, Failed};

/// An interface to be made and attached.
#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    /// The network.
    pub network: String,
    /// The name of the new port.
    pub port: String,
    /// Columns of the port: `COLUMN[:KEY]=VALUE`.
    pub columns: Vec<String>,
    /// The namespace, as [`TapOptions::netns`] has it.
    pub netns: Option<String>,
    /// The interface's name in it.
    pub ifname: String,
    /// Its hardware address; `None`: the kernel draws one.
    pub mac: Option<MacAddr>,
    /// Its addresses, with prefix lengths. Those in a subnet of the network also become the port's
    /// column `addresses`.
    pub addresses: Vec<IpNet>,
    /// Whether the daemon chooses an address of each subnet whose IP version `addresses` lacks.
    pub lease: bool,
    /// Its routes; `None`: by the gateways of the network.
    pub routes: Option<Vec<Route>>,
    /// What it is: a TAP of the namespace, or a vhost-user socket of the daemon, of which the guest
    /// sets `ifname`, `mac`, addresses and routes itself.
    pub device: Device,
}

/// An interface that was attached.
#[derive(Clone, Debug, PartialEq)]
pub struct Joined {
    /// Its hardware address.
    pub mac: Option<MacAddr>,
    /// Its addresses, with prefix lengths.
    pub addresses: Vec<IpNet>,
    /// Its routes.
    pub routes: Vec<Route>,
    /// What the daemon says.
    pub attached: Attached,
}

impl Joined {
    /// The network's DNS servers that the interface reaches with its addresses; all of them if it
    /// has none.
    pub fn dns(&self) -> Vec<IpAddr> {
        let is_reached = |server: &&IpAddr| {
            let is_like = |address: &IpNet| address.addr().is_ipv4() == server.is_ipv4();
            self.addresses.is_empty() || self.addresses.iter().any(is_like)
        };
        self.attached.dns.iter().filter(is_reached).copied().collect()
    }
}

impl Daemon {
    /// Makes an interface and attaches it, or asks for a socket.
    ///
    /// # Errors
    /// It cannot be made, or the daemon refuses it. Nothing is left.
    pub fn join(&self, wanted: &Interface) -> Result<Joined, Failed> {
        let settings = self.settings(&wanted.network)?;
        let request = settings.request(wanted);
        let (made, mac) = match wanted.device {
            Device::Descriptor => {
                let options = wanted.options(settings.mtu);
                let made = open_apart(&options, wanted.early_routes());
                let (parts, link) = made.map_err(|error| error.to_string())?;
                (Some(parts.fd), link.mac)
            }
            Device::VhostUser => (None, None),
        };
        let has_device = made.is_some();
        let attached = self.attach(&request, made)?;
        let has_ipv6 = !has_device || !wanted.lease || wanted.has_ipv6();
        let joined = wanted.joined(mac, attached, has_ipv6);
        if let Err(failed) = self.finish(wanted, &joined, has_device) {
            // It has ended with its namespace, or ends now.
            let _ = self.run(["--if-exists", "detach", &wanted.port]);
            return Err(failed);
        }
        Ok(joined)
    }

    /// Makes an interface that another program moves and sets up, with the addresses that are
    /// stated, and attaches it; returns its hardware address.
    ///
    /// # Errors
    /// It cannot be made, or the daemon refuses it. Nothing is left.
    pub fn join_down(&self, wanted: &Interface) -> Result<Option<MacAddr>, Failed> {
        let settings = self.settings(&wanted.network)?;
        let made = open_down(&wanted.options(settings.mtu)).map_err(|error| error.to_string())?;
        let (parts, link) = made;
        self.attach(&settings.request(wanted), Some(parts.fd))?;
        Ok(link.mac)
    }

    /// Sets what was not known before, and gives back what the namespace cannot have.
    fn finish(&self, wanted: &Interface, joined: &Joined, has_device: bool) -> Result<(), Failed> {
        for address in joined.attached.addresses.iter().map(IpNet::addr) {
            if !joined.addresses.iter().any(|it| it.addr() == address) {
                let address = format!("\"{address}\"");
                self.run(["remove", "Port", &wanted.port, "addresses", &address])?;
            }
        }
        if !has_device {
            return Ok(());
        }
        let addresses = pairs(&joined.addresses[wanted.addresses.len()..]);
        let routes = &joined.routes[wanted.early_routes().len()..];
        add_apart(&wanted.ifname, wanted.netns.as_deref(), &addresses, routes)
            .map_err(|error| error.to_string().into())
    }

    /// Hands a device over, or asks for one that the daemon makes.
    ///
    /// # Errors
    /// There is no daemon, it does not answer in time, or it refuses.
    pub fn attach(&self, request: &Request, device: Option<OwnedFd>) -> Result<Attached, Failed> {
        let attempt = async || {
            let device = device.as_ref().map(OwnedFd::try_clone).transpose();
            let device = device.map_err(|error| format!("cannot pass the device: {error}"))?;
            connect(self).await?.post("attach", request, device).await
        };
        let work = async { patiently(attempt).await.map_err(NoAnswer::reported) };
        wait(self, work, || late(self))
    }

    fn settings(&self, network: &str) -> Result<Settings, Failed> {
        let columns = "--columns=mtu,subnet";
        match self.run([columns, "list", "Bridge", network])? {
            Output::Table { rows, .. } => rows.into_iter().next().and_then(Settings::read),
            Output::Text { .. } => None,
        }
        .ok_or_else(|| format!("the daemon does not say the MTU of {network}").into())
    }
}

impl Interface {
    /// The routes that are set with the interface: those whose gateways need no chosen address.
    fn early_routes(&self) -> &[Route] {
        match &self.routes {
            Some(routes) if !self.lease => routes,
            _ => &[],
        }
    }

    /// What is known of the device beforehand.
    fn options(&self, mtu: u16) -> TapOptions {
        TapOptions {
            ifname: self.ifname.clone(),
            netns: self.netns.clone(),
            address: pairs(&self.addresses),
            mtu,
            mac: self.mac,
            vnet_header: true,
            must_be_new: false,
        }
    }

    /// Whether the interface can have IPv6 addresses.
    fn has_ipv6(&self) -> bool {
        let file = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", self.ifname);
        let netns = self.netns.as_deref().unwrap_or("/proc/thread-self/ns/net");
        // The file is that of the namespace of the thread that opens it.
        let read = in_namespace(netns, || {
            Ok::<_, NamespaceError>(std::fs::read_to_string(&file).unwrap_or_default())
        });
        read.is_ok_and(|(text, _)| text.trim() == "0")
    }

    /// What it is after the daemon's answer.
    fn joined(&self, mac: Option<MacAddr>, attached: Attached, has_ipv6: bool) -> Joined {
        let is_new = |address: &&IpNet| {
            let is_usable = has_ipv6 || address.addr().is_ipv4();
            is_usable && !self.addresses.iter().any(|it| it.addr() == address.addr())
        };
        let chosen = attached.addresses.iter().filter(is_new);
        let addresses: Vec<IpNet> = self.addresses.iter().chain(chosen).copied().collect();
        let is_reached =
            |gateway: &IpAddr| addresses.iter().any(|it| it.addr().is_ipv4() == gateway.is_ipv4());
        let gateways = attached.gateways.iter().copied().filter(is_reached);
        let routes = match &self.routes {
            Some(routes) => routes.clone(),
            None => gateways.map(Route::default_by).collect(),
        };
        Joined { mac, addresses, routes, attached }
    }
}

/// What an interface has to know of its network.
struct Settings {
    /// In bytes.
    mtu: u16,
    subnets: Vec<IpNet>,
}

impl Settings {
    fn read(row: Vec<Value>) -> Option<Settings> {
        let [Value::One(Atom::Integer(mtu)), subnets] = <[Value; 2]>::try_from(row).ok()? else {
            return None;
        };
        let atoms = match subnets {
            Value::One(atom) => vec![atom],
            Value::Set(atoms) => atoms.into_iter().collect(),
            Value::Map(_) => return None,
        };
        let subnet = |atom| match atom {
            Atom::String(text) => text.parse().ok(),
            _ => None,
        };
        let subnets = atoms.into_iter().map(subnet).collect::<Option<_>>()?;
        Some(Settings { mtu: mtu.try_into().ok()?, subnets })
    }

    fn request(&self, wanted: &Interface) -> Request {
        Request {
            version: VERSION,
            network: wanted.network.clone(),
            port: wanted.port.clone(),
            columns: [wanted.columns.clone(), self.addresses_column(wanted)].concat(),
            lease: wanted.lease,
            device: wanted.device,
        }
    }

    /// The column `addresses`, unless it is empty.
    fn addresses_column(&self, wanted: &Interface) -> Vec<String> {
        let is_inside = |address: &IpAddr| self.subnets.iter().any(|it| it.contains(address));
        let addresses = wanted.addresses.iter().map(IpNet::addr).filter(is_inside);
        let words: Vec<String> = addresses.map(|address| format!("\"{address}\"")).collect();
        match words.is_empty() {
            true => Vec::new(),
            false => vec![format!("addresses=[{}]", words.join(","))],
        }
    }
}

fn pairs(addresses: &[IpNet]) -> Vec<(IpAddr, u8)> {
    addresses.iter().map(|address| (address.addr(), address.prefix_len())).collect()
}
