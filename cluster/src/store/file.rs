//! The store of a cluster without one: what this host's file says of the others.
//!
//! It is a [`Memory`] of this host's own. Every peer is a member of every network from the start.
//! What this host writes is read by this host alone, and the data plane learns where the stations
//! of others are. Blocks of addresses are dealt out beforehand: the hosts sorted by name take
//! turns, so that files which name the same hosts never give one block to two of them. Nothing
//! guards the names of ports.

use std::net::IpAddr;

use trama_frame::vxlan::PORT;

use super::memory::Memory;
use crate::Name;
use crate::key::Key;
use crate::row::{self, Block, Member, Net};

/// Returns a store for `host`, with its `peers` and their underlay addresses in all `networks`.
pub fn store(host: &Name, peers: &[(Name, Vec<IpAddr>)], networks: &[(Name, Net)]) -> Memory {
    let mut store = Memory::default();
    let mut hosts: Vec<&Name> = peers.iter().map(|(peer, _)| peer).chain([host]).collect();
    hosts.sort();
    hosts.dedup();
    for (name, net) in networks {
        store.put(&Key::Net(name.clone()).to_string(), &row::encode(net));
        for (peer, vtep) in peers.iter().filter(|(peer, _)| peer != host) {
            let member = Member { vtep: vtep.clone(), port: PORT, epoch: 0, unknown: true };
            store.put(&Key::Member(net.vni, peer.clone()).to_string(), &row::encode(&member));
        }
        let dealt = net.blocks().zip(hosts.iter().cycle());
        for (first, owner) in dealt.take(MAX_DEALT) {
            let block = Block { host: (*owner).clone() };
            store.put(&Key::Block(net.vni, first).to_string(), &row::encode(&block));
        }
    }
    store
}

/// Most blocks of a network that are dealt out: the addresses of a /15.
const MAX_DEALT: usize = 1 << 14;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::name;

    #[test]
    fn hosts_with_the_same_peers_agree_on_blocks() {
        let vtep = |last| vec![IpAddr::from([10, 0, 0, last])];
        let hosts = [(name("h1"), vtep(1)), (name("h2"), vtep(2)), (name("h3"), vtep(3))];
        let vni = trama_frame::vxlan::Vni::new(77).unwrap();
        let net = Net { vni, subnet: Some("10.1.0.0/24".parse().unwrap()) };
        let networks = [(name("blue"), net)];
        let blocks = |own: usize| {
            let mut peers = hosts.to_vec();
            let (host, _) = peers.remove(own);
            let store = store(&host, &peers, &networks);
            let members = peers.iter().map(|(peer, _)| Key::Member(vni, peer.clone()));
            for member in members {
                assert!(store.get(&member.to_string()).value.is_some());
            }
            assert!(store.get(&Key::Member(vni, host).to_string()).value.is_none());
            let scope = crate::key::Scope::Network(vni);
            let page = store.range(&scope, None, None, 1000).unwrap();
            let blocks = page.rows.into_iter().filter(|row| row.key.contains("/b/"));
            blocks.map(|row| (row.key, row.value)).collect::<Vec<_>>()
        };
        assert_eq!(blocks(0), blocks(1));
        assert_eq!(blocks(0), blocks(2));
        assert_eq!(blocks(0).len(), 32);
    }
}
