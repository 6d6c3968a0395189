//! Chooses the worker of each network that is added.
//!
//! There is no traffic to measure yet, so each network counts as one, and each of its ports as one
//! more. The counts are made once for all networks that a change adds: choosing a worker takes as
//! many steps as there are workers, however many networks run.

use std::collections::HashMap;

use crate::config::model::Config;

/// How much each worker has, and how much each network is.
pub(crate) struct Spread {
    /// By worker.
    load: Vec<usize>,
    /// Number of ports by network, in the configuration that is wanted.
    ports: HashMap<String, usize>,
}

impl Spread {
    /// Counts the ports of `wanted`, and what is on the workers: `running` has the name and the
    /// worker of each network.
    pub(crate) fn new<'a>(
        workers: usize,
        wanted: &Config,
        running: impl Iterator<Item = (&'a str, usize)>,
    ) -> Spread {
        let mut ports: HashMap<String, usize> = HashMap::new();
        for port in wanted.all_ports() {
            if let Some(network) = &port.network {
                match ports.get_mut(network) {
                    Some(count) => *count += 1,
                    None => drop(ports.insert(network.clone(), 1)),
                }
            }
        }
        let mut spread = Spread { load: vec![0; workers], ports };
        for (name, worker) in running {
            spread.add(name, worker);
        }
        spread
    }

    /// Returns the worker that has the least; the first of several.
    pub(crate) fn least_loaded(&self) -> usize {
        let workers = 0..self.load.len();
        workers.min_by_key(|worker| self.load[*worker]).unwrap_or(0)
    }

    /// Counts a network that runs on `worker`.
    pub(crate) fn add(&mut self, network: &str, worker: usize) {
        self.load[worker] += 1 + self.ports.get(network).copied().unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn networks_go_where_the_fewest_ports_are() {
        let port = |name: &str, network: &str| {
            format!("[[port]]\nname = {name:?}\nnetwork = {network:?}\ntype = \"vhost-user\"\n")
        };
        let mut text = String::new();
        for network in ["big", "small", "next", "last"] {
            text.push_str(&format!("[[network]]\nname = {network:?}\n"));
        }
        text.extend(["a", "b", "c"].map(|name| port(name, "big")));
        text.push_str(&port("d", "next"));
        let config = parse(&text, "").unwrap();
        let mut spread = Spread::new(2, &config, [("big", 1)].into_iter());
        let mut chosen = Vec::new();
        for network in ["small", "next", "last"] {
            let worker = spread.least_loaded();
            spread.add(network, worker);
            chosen.push(worker);
        }
        assert_eq!(chosen, [0, 0, 0], "big alone counts four");
        assert_eq!(spread.load, [4, 4]);
    }
}
