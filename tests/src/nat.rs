//! Parts of NAT tests: a namespace as the host, a server on its link, and guests on TAPs behind a
//! gateway.

use std::net::{SocketAddr, TcpListener};

use crate::host::Host;
use crate::netns::Netns;
pub use crate::process::SOON;
use crate::process::wait_until;

/// The host's addresses on its link to the world.
pub const HOST: [&str; 2] = ["203.0.113.1", "fd00:13::1"];
/// The addresses at the other end of that link.
pub const NEIGHBOUR: [&str; 2] = ["203.0.113.2", "fd00:13::2"];
/// The network of the guests.
pub const NETWORK: &str = "[[network]]\nname = \"home\"\nmode = \"nat-network\"\n\
                           subnet = [\"10.7.0.0/24\", \"fd00:7::/64\"]\n";
/// Its gateway.
pub const GATEWAY: [&str; 2] = ["10.7.0.1", "fd00:7::1"];
/// Addresses of a guest.
pub const VM1: [&str; 2] = ["10.7.0.11", "fd00:7::11"];
/// Addresses of another.
pub const VM2: [&str; 2] = ["10.7.0.12", "fd00:7::12"];

/// Creates a namespace with IPv4 and IPv6, in which any user may ping and listeners may have a
/// backlog of thousands.
pub fn namespace(label: &str) -> Netns {
    let netns = Netns::with_ipv6(label);
    netns.run(
        "echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range; \
         echo 16384 >/proc/sys/net/core/somaxconn",
    );
    netns
}

/// Returns the host, and a server on its link.
#[track_caller]
pub fn host_and_server() -> [Netns; 2] {
    let [host, server] = ["host", "server"].map(namespace);
    join(&host, "eth0", &server, "eth0");
    NEIGHBOUR.iter().for_each(|address| host.wait_for_ping(address, SOON));
    [host, server]
}

/// Links the host to its neighbour, and configures the addresses of both.
#[track_caller]
pub fn join(host: &Netns, device: &str, next: &Netns, its_device: &str) {
    host.run(&format!("ip link add {device} type veth peer {its_device} netns {}", next.name()));
    set_up(host, device, HOST);
    set_up(next, its_device, NEIGHBOUR);
}

/// Configures an interface with an IPv4 and an IPv6 address and sets it up.
#[track_caller]
pub fn set_up(netns: &Netns, device: &str, [v4, v6]: [&str; 2]) {
    netns.run(&format!(
        "ip addr add {v4}/24 dev {device} && ip addr add {v6}/64 dev {device} && \
         ip link set {device} up"
    ));
}

/// Returns the `[[port]]` of a guest on a network: a TAP in its namespace. `keys` are added.
pub fn tap_port(network: &str, name: &str, netns: &Netns, keys: &str) -> String {
    format!(
        "\n[[port]]\nname = \"{name}\"\nnetwork = \"{network}\"\ntype = \"tap\"\n\
         netns = \"{}\"\n{keys}\n",
        netns.name()
    )
}

/// Returns the `[[port]]` of a guest of [`NETWORK`], with these addresses on its `eth0`.
pub fn guest_port(netns: &Netns, name: &str, addresses: &[&str]) -> String {
    let with_length = |address: &&str| {
        let length = if address.contains(':') { 64 } else { 24 };
        format!("{address}/{length}")
    };
    let addresses: Vec<String> = addresses.iter().map(with_length).collect();
    tap_port("home", name, netns, &format!("ifname = \"eth0\"\naddress = {addresses:?}"))
}

/// Adds default routes to a guest.
#[track_caller]
pub fn route(vm: &Netns, gateway: &[&str]) {
    for address in gateway {
        let command = format!("ip route replace default via {address} dev eth0");
        wait_until("the interface takes a route", SOON, || {
            (vm.try_run(&command).status == 0).then_some(())
        });
        vm.wait_for_ping(address, SOON);
    }
}

/// Listens in a namespace, with the largest backlog.
#[track_caller]
pub fn listen(netns: &Netns, address: &str) -> TcpListener {
    let address: SocketAddr = address.parse().expect("address");
    let listener = netns.inside(move || {
        let listener = TcpListener::bind(address).expect("listen");
        rustix::net::listen(&listener, 16_384).expect("listen");
        listener
    });
    listener.join().expect("listener")
}

/// Returns a socket address of an IPv4 or IPv6 address and an L4 port.
#[track_caller]
pub fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("address"), port)
}
