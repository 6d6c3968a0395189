//! Content and destination of answers (RFC 2131, 4.1 and 4.3.1, table 3).
//!
//! The mandatory options come first, then the parameters in the order in which the client lists
//! them (RFC 2132, 9.8), so that those left out for want of space are the ones that matter least to
//! it. Two orders are fixed: the subnet mask and static routes go before the router (RFC 2132, 3.3;
//! RFC 3442).

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::identity::Client;
use super::{Destination, Reply, Server};
use crate::config::{Boot, HTTP_CLIENT, Settings, Subnet};
use crate::name;
use crate::prefix::{Route, emit_routes};
use crate::wire::options::code;
use crate::wire::{Header, MessageType, Request, Writer};

/// Parameters for a client that lists none.
const UNASKED: &[u8] = &[
    code::ROUTER,
    code::DNS,
    code::DOMAIN,
    code::BROADCAST,
    code::MTU,
    code::NTP,
    code::TFTP_SERVER,
    code::BOOT_FILE,
];

impl Server {
    /// An OFFER or ACK of an address.
    // spec: rfc2131 ack-as-offered offer-address offer-time
    pub(super) fn give(&self, client: &Client<'_>, kind: MessageType, address: Ipv4Addr) -> Reply {
        let request = client.request;
        let lease = self.lease_time(client);
        let mut writer = self.begin(client, kind, request.ciaddr, address);
        writer.put(code::LEASE_TIME, &lease.to_be_bytes());
        // spec: rfc2131 times-sent times-order
        writer.put(code::RENEWAL_TIME, &(lease / 2).to_be_bytes());
        // 7/8 of a 32-bit number fits in 32 bits.
        let rebinding = (u64::from(lease) * 7 / 8) as u32;
        writer.put(code::REBINDING_TIME, &rebinding.to_be_bytes());
        if kind == MessageType::Ack && request.kind == MessageType::Discover {
            writer.put(code::RAPID_COMMIT, &[]);
        }
        self.put_fqdn(client, &mut writer);
        self.put_parameters(client, &mut writer);
        // A client that extends its lease answers for its address (RFC 2131, 4.1).
        let extends = kind == MessageType::Ack && !request.ciaddr.is_unspecified();
        // spec: rfc2131 reply-relay reply-ciaddr reply-broadcast reply-unicast
        let to = match () {
            () if !request.giaddr.is_unspecified() => Destination::Relay(request.giaddr),
            () if extends && client.claim.subnet != 0 => Destination::Routed(request.ciaddr),
            () if extends => Destination::Client(request.ciaddr, request.mac),
            () if request.broadcast => Destination::Broadcast,
            () => Destination::Client(address, request.mac),
        };
        self.reply(client, kind, to, writer)
    }

    /// The answer to an INFORM: no address and no lease (RFC 2131, 4.3.5).
    // spec: rfc2131 inform-unicast inform-no-time inform-no-address
    pub(super) fn inform_ack(&self, client: &Client<'_>, address: Ipv4Addr) -> Reply {
        let request = client.request;
        let nothing = Ipv4Addr::UNSPECIFIED;
        let mut writer = self.begin(client, MessageType::Ack, request.ciaddr, nothing);
        self.put_parameters(client, &mut writer);
        let to = match () {
            () if !request.giaddr.is_unspecified() => Destination::Relay(request.giaddr),
            () if client.claim.subnet != 0 => Destination::Routed(address),
            () => Destination::Client(address, request.mac),
        };
        self.reply(client, MessageType::Ack, to, writer)
    }

    /// A refusal. Through a relay it is broadcast on the client's link (RFC 2131, 4.3.2).
    // spec: rfc2131 nak-broadcast-bit nak-no-time nak-message
    pub(super) fn nak(&self, client: &Client<'_>, why: &str) -> Reply {
        let request = client.request;
        let header = Header { broadcast: true, ..header(request) };
        let mut writer = Writer::new(&header, request.max_len, request.relay_info.as_deref());
        self.put_kind(client, MessageType::Nak, &mut writer);
        writer.put(code::MESSAGE, why.as_bytes());
        // spec: rfc2131 nak-broadcast nak-relay
        let relayed = !request.giaddr.is_unspecified();
        let to = if relayed { Destination::Relay(request.giaddr) } else { Destination::Broadcast };
        self.reply(client, MessageType::Nak, to, writer)
    }

    fn reply(
        &self,
        client: &Client<'_>,
        kind: MessageType,
        to: Destination,
        writer: Writer,
    ) -> Reply {
        // spec: rfc2131 identifier-reachable identifier-local
        let from = self.subnet(client).server;
        Reply { from, to, port: client.claim.port, kind, payload: writer.finish() }
    }

    fn subnet(&self, client: &Client<'_>) -> &Subnet {
        &self.config.subnets[client.claim.subnet]
    }

    fn begin(
        &self,
        client: &Client<'_>,
        kind: MessageType,
        ciaddr: Ipv4Addr,
        yiaddr: Ipv4Addr,
    ) -> Writer {
        let request = client.request;
        let boot = &self.subnet(client).settings.boot;
        let file = request.boot.choose(&boot.files);
        let boot = Some(boot).filter(|_| file.is_some());
        let header = Header {
            ciaddr,
            yiaddr,
            siaddr: boot.and_then(|boot| boot.server).unwrap_or(Ipv4Addr::UNSPECIFIED),
            sname: boot.map_or("", |boot| &boot.server_name),
            file: file.unwrap_or(""),
            ..header(request)
        };
        let mut writer = Writer::new(&header, request.max_len, request.relay_info.as_deref());
        self.put_kind(client, kind, &mut writer);
        if request.boot.http && file.is_some() {
            writer.put(code::VENDOR_CLASS, HTTP_CLIENT);
        }
        writer
    }

    /// Adds the options of every answer: its type, the server, and the client's identifiers echoed
    /// (RFC 6842; RFC 4578, 2.3).
    fn put_kind(&self, client: &Client<'_>, kind: MessageType, writer: &mut Writer) {
        writer.put(code::MESSAGE_TYPE, &[kind as u8]);
        // spec: rfc2131 identifier-sent
        writer.put(code::SERVER_ID, &self.subnet(client).server.octets());
        if let Some(id) = &client.request.client_id {
            writer.put(code::CLIENT_ID, id);
        }
        if let Some(id) = &client.request.machine_id {
            writer.put(code::MACHINE_ID, id);
        }
    }

    /// Adds the client's name (RFC 4702, 3.2 and 4).
    fn put_fqdn(&self, client: &Client<'_>, writer: &mut Writer) {
        let (Some(flags), Some(name)) = (client.request.fqdn_flags, self.name_for(client)) else {
            return;
        };
        let domain = self.subnet(client).settings.domain.as_ref();
        let full = domain.map_or(name.to_string(), |domain| format!("{name}.{domain}"));
        let mut value = vec![flags, 255, 255];
        match full.parse::<name::DomainName>() {
            Ok(full) if flags & crate::wire::request::FQDN_E != 0 => full.emit(&mut value),
            _ => value.extend_from_slice(full.as_bytes()),
        }
        writer.put(code::CLIENT_FQDN, &value);
    }

    fn put_parameters(&self, client: &Client<'_>, writer: &mut Writer) {
        let request = client.request;
        let subnet = self.subnet(client);
        // spec: rfc2131 parameter-once
        let mut done = [false; 256];
        let mut put = |code: u8| {
            if !std::mem::replace(&mut done[usize::from(code)], true) {
                self.put_parameter(client, subnet, code, writer);
            }
        };
        if request.wants(code::SUBNET_MASK) {
            put(code::SUBNET_MASK);
        }
        for code in request.parameters.as_deref().unwrap_or(UNASKED) {
            if *code == code::ROUTER
                && request.parameters.is_some()
                && request.wants(code::STATIC_ROUTES)
            {
                put(code::STATIC_ROUTES);
            }
            put(*code);
        }
    }

    fn put_parameter(&self, client: &Client<'_>, subnet: &Subnet, code: u8, writer: &mut Writer) {
        let settings = &subnet.settings;
        // spec: rfc2131 parameter-configured parameter-unknown no-requested no-list no-max-size
        match code {
            code::SUBNET_MASK => {
                writer.put(code, &subnet.prefix.netmask().octets());
            }
            code::BROADCAST => {
                writer.put(code, &subnet.prefix.broadcast().octets());
            }
            code::ROUTER => {
                writer.put_addresses(code, &settings.routers);
            }
            code::DNS => {
                writer.put_addresses(code, settings.dns.as_deref().unwrap_or_default());
            }
            code::NTP => {
                writer.put_addresses(code, &settings.ntp);
            }
            code::STATIC_ROUTES => put_present(writer, code, &static_routes(settings)),
            code::DOMAIN_SEARCH => {
                // As many as there is room for.
                let counts = (1..=settings.search.len()).rev();
                let mut lists =
                    counts.map(|count| name::emit_compressed(&settings.search[..count]));
                lists.any(|list| writer.put(code, &list));
            }
            code::HOST_NAME => {
                let name = self.reservation(client).and_then(|reserved| reserved.name.as_ref());
                put_present(writer, code, name.map_or("", |name| name.as_str()).as_bytes());
            }
            code::DOMAIN => {
                // Clients that do not read option 119 search the first of its domains.
                let domain = settings.domain.as_ref().or(settings.search.first());
                let domain = domain.map_or("", |domain| domain.as_str());
                put_present(writer, code, domain.as_bytes());
            }
            code::MTU => {
                if let Some(mtu) = subnet.mtu {
                    writer.put(code, &mtu.to_be_bytes());
                }
            }
            code::TFTP_SERVER | code::BOOT_FILE => {
                put_boot(writer, code, &settings.boot, client.request);
            }
            _ => {}
        }
    }
}

// spec: rfc2131 fields-echoed
fn header(request: &Request) -> Header<'static> {
    Header {
        xid: request.xid,
        broadcast: request.broadcast,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        yiaddr: Ipv4Addr::UNSPECIFIED,
        siaddr: Ipv4Addr::UNSPECIFIED,
        giaddr: request.giaddr,
        hardware: request.hardware,
        sname: "",
        file: "",
    }
}

fn put_present(writer: &mut Writer, code: u8, value: &[u8]) {
    if !value.is_empty() {
        writer.put(code, value);
    }
}

/// The static routes, and the default route that clients then look for among them.
fn static_routes(settings: &Settings) -> Vec<u8> {
    if settings.routes.is_empty() {
        return Vec::new();
    }
    let has_default = settings.routes.iter().any(|route| route.to.prefix_len() == 0);
    let mut routes = settings.routes.clone();
    if let (Some(via), false) = (settings.routers.first(), has_default) {
        routes.push(Route { to: Ipv4Net::default(), via: *via });
    }
    emit_routes(&routes)
}

fn put_boot(writer: &mut Writer, code: u8, boot: &Boot, request: &Request) {
    let Some(file) = request.boot.choose(&boot.files) else { return };
    if code == code::BOOT_FILE {
        put_present(writer, code, file.as_bytes());
    } else if !boot.server_name.is_empty() {
        writer.put(code, boot.server_name.as_bytes());
    } else if let Some(server) = boot.server {
        writer.put(code, server.to_string().as_bytes());
    }
}
