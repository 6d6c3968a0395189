//! Router advertisements for the gateway's IPv6 subnet (RFC 4861).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use smoltcp::wire::IpProtocol;
use trama_dhcp::ra::{ALL_NODES, Advertisement, PrefixInformation, Router, check_solicitation};
use trama_dhcp::{DropReason as Refusal, Time};
use trama_frame::MacAddr;
use trama_nat::packet::inbound::Inbound;
use trama_nat::packet::ip_frame;

use crate::arp_ndp::{ALL_NODES_MAC, ONE_LINK};
use crate::config::Config;
use crate::drop_reason::{DropReason, NatDrop, ServiceDrop};

/// Longest time between advertisements, and the lifetime of the default router (RFC 4861, 6.2.1).
const INTERVAL: Duration = Duration::from_secs(600);
const ROUTER_LIFETIME: u16 = 1800;
/// Valid and preferred lifetime of the prefix (RFC 4861, 6.2.1).
const VALID: u32 = 30 * 86_400;
const PREFERRED: u32 = 7 * 86_400;

/// Advertises the IPv6 subnet to guests.
pub(crate) struct Advertiser {
    router: Router,
    advertisement: Advertisement,
    /// The MAC addresses of solicitations that wait for their answer.
    stations: HashMap<Ipv6Addr, MacAddr>,
}

impl Advertiser {
    /// Returns `None` if there is nothing to advertise.
    pub(crate) fn new(now: Duration, config: &Config, seed: u64) -> Option<Advertiser> {
        let advertisement = settings(config)?;
        let router = Router::new(time(now), INTERVAL, seed);
        Some(Advertiser { router, advertisement, stations: HashMap::new() })
    }

    /// Changes the settings. Returns false if there is nothing left to advertise.
    pub(crate) fn reconfigure(&mut self, now: Duration, config: &Config) -> bool {
        let Some(advertisement) = settings(config) else { return false };
        if advertisement != self.advertisement {
            self.router.changed(time(now));
        }
        self.advertisement = advertisement;
        true
    }

    /// Handles a router solicitation.
    pub(crate) fn solicited(
        &mut self,
        now: Duration,
        packet: &Inbound<'_>,
    ) -> Result<(), DropReason> {
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (packet.source, packet.destination)
        else {
            return Err(NatDrop::BadIcmp.into());
        };
        check_solicitation(source, destination, packet.hop_limit, packet.payload)
            .map_err(|_| NatDrop::BadIcmp)?;
        match self.router.solicited(time(now), source) {
            Ok(()) if source.is_unspecified() => {}
            // The router limits how many wait.
            Ok(()) => drop(self.stations.insert(source, packet.mac)),
            Err(Refusal::Throttled) => return Err(ServiceDrop::Throttled.into()),
            Err(_) => return Err(NatDrop::BadIcmp.into()),
        }
        Ok(())
    }

    /// The advertisements that are due.
    pub(crate) fn poll(&mut self, now: Duration, config: &Config) -> Vec<Vec<u8>> {
        let due = self.router.poll(time(now));
        let source = config.station.link_local();
        let emit = |to: Ipv6Addr| {
            let mac = match to {
                ALL_NODES => {
                    self.stations.clear();
                    ALL_NODES_MAC
                }
                // After more solicitations than are kept, the advertisement goes to all nodes.
                to => self.stations.remove(&to)?,
            };
            let message = self.advertisement.emit(source, to);
            let (macs, ips) = ((config.station.mac(), mac), (source.into(), to.into()));
            let fill = |bytes: &mut [u8]| bytes.copy_from_slice(&message);
            ip_frame(macs, ips, (IpProtocol::Icmpv6, ONE_LINK), message.len(), fill)
        };
        due.into_iter().filter_map(emit).collect()
    }

    /// When [`Advertiser::poll`] has to be called next.
    pub(crate) fn deadline(&self) -> Duration {
        self.router.next_deadline().saturating_sub(Time(0))
    }
}

/// The state does not outlive the process, so the engine's time suffices.
fn time(now: Duration) -> Time {
    Time(0) + now
}

fn settings(config: &Config) -> Option<Advertisement> {
    let (dhcp, subnet) =
        (config.dhcp.as_ref().filter(|dhcp| dhcp.service.ipv6)?, config.station.ipv6?);
    let prefix = PrefixInformation {
        prefix: subnet,
        on_link: true,
        // Interface identifiers always have 64 bits (RFC 4862, 5.5.3).
        autonomous: subnet.prefix_len() == 64,
        valid: VALID,
        preferred: PREFERRED,
    };
    Some(Advertisement {
        hop_limit: 64,
        // Guests also form addresses from the prefix themselves.
        managed: dhcp.leases_ipv6(),
        other: true,
        lifetime: if config.nat.is_some() { ROUTER_LIFETIME } else { 0 },
        prefixes: vec![prefix],
        mtu: (config.station.mtu >= 1280).then_some(config.station.mtu.into()),
        dns: vec![config.station.dns6().unwrap_or(subnet.addr())],
        search: dhcp.short_search(),
        dns_lifetime: ROUTER_LIFETIME.into(),
        mac: config.station.mac(),
    })
}
