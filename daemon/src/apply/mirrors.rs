//! The mirrors that run: what each copies is told to its network's worker by the ports' IDs, and
//! again when a port of its network was made again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use trama_capture::filter::Filter;
use trama_frame::VlanId;
use trama_switch::PortId;
use trama_switch::counters::{MirrorCounters, MirrorSnapshot};
use trama_switch::mirror::{self, MirrorOutput};

use super::{DataPlane, RunningNetwork};
use crate::config::model::Mirror;
use crate::convert;

/// The mirrors that run, by network.
#[derive(Default)]
pub(crate) struct Mirrors(HashMap<String, Vec<RunningMirror>>);

struct RunningMirror {
    config: Mirror,
    counters: Arc<MirrorCounters>,
}

impl DataPlane {
    /// Sets the mirrors of a network. Those that it had under the same names count on.
    pub(super) fn set_mirrors(&mut self, network: &str, mirrors: &[Mirror]) {
        let mut before = self.mirrors.0.remove(network).unwrap_or_default();
        let running = mirrors.iter().map(|config| {
            let known = before.iter().position(|it| it.config.name == config.name);
            let counters = known.map(|at| before.swap_remove(at).counters).unwrap_or_default();
            RunningMirror { config: config.clone(), counters }
        });
        let running: Vec<_> = running.collect();
        if !running.is_empty() {
            self.mirrors.0.insert(network.to_owned(), running);
        }
        self.send_mirrors(network);
    }

    /// Tells a network's mirrors of a port that was made, if it has mirrors.
    pub(super) fn renew_mirrors(&mut self, network: Option<&str>) {
        if let Some(network) = network
            && self.mirrors.0.contains_key(network)
        {
            self.send_mirrors(network);
        }
    }

    /// Forgets the mirrors of a network that is gone.
    pub(super) fn forget_mirrors(&mut self, network: &str) {
        self.mirrors.0.remove(network);
    }

    fn send_mirrors(&self, network: &str) {
        let Some(&RunningNetwork { worker, id, .. }) = self.networks.get(network) else { return };
        let running = self.mirrors.0.get(network).into_iter().flatten();
        let mirrors = running.filter_map(|mirror| self.resolve(mirror)).collect();
        let set = self.on_worker(worker, move |engine, _| engine.set_mirrors(id, mirrors));
        if let Err(error) = set.and_then(|done| done.map_err(|error| error.to_string())) {
            tracing::error!("network {network}: its mirrors: {error}");
        }
    }

    /// Returns the mirrors of a network whose output runs, as its worker has them.
    pub(crate) fn active_mirrors(&self, network: &str) -> impl Iterator<Item = &Mirror> {
        let running = self.mirrors.0.get(network).into_iter().flatten();
        running.filter(|it| self.resolve(it).is_some()).map(|it| &it.config)
    }

    /// A mirror as the worker knows it; `None` while its output does not run.
    fn resolve(
        &self,
        RunningMirror { config, counters }: &RunningMirror,
    ) -> Option<mirror::Mirror> {
        let id = |name: &String| self.ports.get(name).map(|port| port.id);
        let ids =
            |names: &BTreeSet<String>| -> Vec<PortId> { names.iter().filter_map(id).collect() };
        let output = match (&config.output_port, config.output_vlan) {
            (Some(port), _) => MirrorOutput::Port(id(port)?),
            (None, vlan) => MirrorOutput::Vlan(VlanId::new(vlan?)?),
        };
        // It was checked.
        let filter = Filter::parse(&config.filter, &[]).ok();
        Some(mirror::Mirror {
            sources: (!config.takes_from_all()).then(|| ids(&config.select_src_port)),
            destinations: ids(&config.select_dst_port),
            vlans: config.select_vlan.iter().filter_map(|vlan| VlanId::new(*vlan)).collect(),
            filter: filter.filter(|_| !config.filter.is_empty()).map(convert::frame_filter),
            output,
            snaplen: (config.snaplen != 0).then_some(config.snaplen.into()),
            counters: Arc::clone(counters),
        })
    }

    /// Returns what the mirrors have done, each after its network.
    pub(crate) fn mirrored(&self) -> impl Iterator<Item = (&str, &Mirror, MirrorSnapshot)> {
        self.mirrors.0.iter().flat_map(|(network, mirrors)| {
            let mirrors = mirrors.iter();
            mirrors.map(move |it| (network.as_str(), &it.config, it.counters.snapshot()))
        })
    }
}
