//! Rules for `[network.dhcp]`. The DHCP servers check their own settings; this file maps their
//! errors to keys.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use trama_dhcp::config::{ClientMatch, ConfigError, Reservation, Service};
use trama_dhcp::dhcp6::ConfigError6;
use trama_gateway::Station;

use super::check::Check;
use super::problem::Place;
use super::subnet;
use crate::Fault;
use crate::config::derived::gateway::gateway;
use crate::config::model::dhcp::DhcpSetting;
use crate::config::model::{Mode, Network};

impl Check {
    /// The table `dhcp` of the network with this number.
    pub(super) fn dhcp(&mut self, index: usize, network: &Network) {
        let DhcpSetting::On(dhcp) = &network.dhcp else { return };
        if network.mode == Mode::Bridged {
            let message = "guests of a bridged network use the DHCP server of its LAN";
            return self.problem("dhcp", message, "remove it");
        }
        if network.subnets().is_empty() {
            let remedy = r#"add subnet = "10.1.0.0/24", or remove dhcp"#;
            return self.problem("dhcp", "there is no subnet to take addresses from", remedy);
        }
        if network.subnets().iter().any(|subnet| subnet::check(*subnet).is_err()) {
            return;
        }
        let Some(config) = gateway(network, [2, 0, 0, 0, 0, 1], Path::new("/"), 0) else {
            return;
        };
        self.dhcp_subnets(index, network, dhcp, &config.station);
        if let Some(Err(error)) = config.dhcp_server().map(|server| server.check()) {
            self.dhcp_error(index, network, &dhcp.clients.reservations, &error);
        }
        if let Some(Err(error)) = config.dhcp6_server().map(|server| server.check()) {
            self.dhcp6_error(index, network, &dhcp.clients.reservations, &error);
        }
    }

    /// Checks that there is a subnet of each IP version of which addresses are given.
    fn dhcp_subnets(&mut self, index: usize, network: &Network, dhcp: &Service, station: &Station) {
        let (has_ipv4, has_ipv6) = (station.ipv4.is_some(), station.ipv6.is_some());
        for (version, has_subnet, has_range) in [
            ("IPv4", has_ipv4, !dhcp.settings.ranges.is_empty()),
            ("IPv6", has_ipv6, !dhcp.ranges6.is_empty()),
        ] {
            if has_range && !has_subnet {
                let message = format!("the network has no {version} subnet");
                let fault = Fault::new(message, "add one to its subnet, or remove range");
                self.dhcp_fault(Place::Dhcp(index), network, "range", fault);
            }
        }
        for (number, it) in dhcp.clients.reservations.iter().enumerate() {
            let version = match (it.address, it.address6) {
                (Some(_), _) if !has_ipv4 => "IPv4",
                (_, Some(_)) if !has_ipv6 => "IPv6",
                _ => continue,
            };
            let message = format!("the network has no {version} subnet");
            let fault = Fault::new(message, "add one to its subnet, or remove the address");
            self.dhcp_fault(Place::Reservation(index, number), network, "address", fault);
        }
    }

    /// Notes an error of the DHCPv4 server's own check at its key.
    fn dhcp_error(
        &mut self,
        index: usize,
        network: &Network,
        list: &[Reservation],
        error: &ConfigError,
    ) {
        let of_address =
            |address: &Ipv4Addr| list.iter().rposition(|it| it.address == Some(*address));
        let (reservation, key) = match error {
            ConfigError::RangeOutside(..)
            | ConfigError::RangesOverlap(..)
            | ConfigError::PoolTooLarge => (None, "range"),
            ConfigError::LeaseTimes(_) => (None, "lease"),
            ConfigError::ReservationOutside(address)
            | ConfigError::ReservationOfServer(address)
            | ConfigError::AddressTwice(address) => (of_address(address), "address"),
            ConfigError::ClientTwice(address) => {
                let number = of_address(address);
                (number, client_key(number.map(|number| &list[number])))
            }
            ConfigError::ClientId(address) => (of_address(address), "id"),
            ConfigError::ClientMac(address) => (of_address(address), "mac"),
            ConfigError::NameTwice(name) => {
                (list.iter().rposition(|it| it.name.as_ref() == Some(name)), "name")
            }
            ConfigError::BootName(_) => (None, "boot-file"),
            ConfigError::Limits => (None, "leases-per-port"),
            // These keys of the network have rules of their own.
            ConfigError::Mtu(..)
            | ConfigError::NoSubnet
            | ConfigError::SubnetsOverlap(..)
            | ConfigError::ServerOutside(..) => return,
        };
        let fault = Fault::new(error.to_string(), error.remedy());
        self.dhcp_fault(place_of(index, reservation), network, key, fault);
    }

    /// Notes an error of the DHCPv6 server's own check at its key.
    fn dhcp6_error(
        &mut self,
        index: usize,
        network: &Network,
        list: &[Reservation],
        error: &ConfigError6,
    ) {
        let of_address =
            |address: &Ipv6Addr| list.iter().rposition(|it| it.address6 == Some(*address));
        let (reservation, key) = match error {
            ConfigError6::RangeOutside(..)
            | ConfigError6::RangesOverlap(..)
            | ConfigError6::PoolTooLarge => (None, "range"),
            ConfigError6::ReservationOutside(address)
            | ConfigError6::ReservationOfServer(address)
            | ConfigError6::AddressTwice(address) => (of_address(address), "address"),
            ConfigError6::ClientMac(address) => (of_address(address), "mac"),
            ConfigError6::ClientTwice(address) => {
                let number = of_address(address);
                (number, client_key(number.map(|number| &list[number])))
            }
        };
        let fault = Fault::new(error.to_string(), error.remedy());
        self.dhcp_fault(place_of(index, reservation), network, key, fault);
    }

    /// Notes a fault of a key of the table or of a reservation.
    fn dhcp_fault(&mut self, place: Place, network: &Network, key: &'static str, fault: Fault) {
        let table = self.enter(place, &network.name);
        self.fault(key, fault);
        self.enter(table, &network.name);
    }
}

/// The table of a DHCP setting: that of a reservation, or `[network.dhcp]` itself.
fn place_of(network: usize, reservation: Option<usize>) -> Place {
    match reservation {
        Some(number) => Place::Reservation(network, number),
        None => Place::Dhcp(network),
    }
}

/// The key that names the client of a reservation.
fn client_key(reservation: Option<&Reservation>) -> &'static str {
    match reservation.map(|it| &it.client) {
        Some(ClientMatch::Id(_)) => "id",
        _ => "mac",
    }
}
