//! The targets, by what they test.

mod capture;
mod config;
mod control;
mod dhcp;
mod export;
mod frames;
mod gateway;
mod keeper;
mod nat;
mod packets;
mod rings;
mod switch;
mod tunnel;
mod vhost_user;

pub use nat::isolated;

/// A fuzz target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, which is that of its function.
    pub name: &'static str,
    /// What it tests.
    pub about: &'static str,
    /// Takes any bytes, and panics if trama breaks a promise.
    pub body: fn(&[u8]),
    /// Returns valid inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Most bytes of an input.
    pub longest: usize,
    /// Inputs of a run in `make test`.
    pub inputs: u64,
}

macro_rules! targets {
    ($($module:ident::$name:ident $longest:literal $inputs:literal $about:literal;)*) => {
        /// All targets.
        pub const TARGETS: &[Target] = &[$(Target {
            name: stringify!($name),
            about: $about,
            body: $module::$name,
            seeds: $module::seeds::$name,
            longest: $longest,
            inputs: $inputs,
        }),*];
    };
}

targets! {
    frames::frames 4096 1_000_000 "headers, tags, offloads and segmentation of one frame";
    frames::joined 8192 100_000 "segments that are joined to one large frame, and cut again";
    switch::switch 4096 20_000 "frames into a network with ports of each VLAN mode";
    switch::streams 4096 4000 "the byte stream of a stream port";
    switch::mac_image 65536 4000 "the kept memory of a MAC table, read by the next switch";
    tunnel::tunnel 8192 5000 "datagrams of VXLAN from the network, and frames to it";
    rings::device 4096 25_000 "any ring, descriptors and memory, under the device side";
    rings::driver 4096 25_000 "any memory under the driver side, as a hostile switch writes it";
    rings::memory_table 2048 50_000 "memory tables, and which addresses they translate";
    vhost_user::vhost_user 4096 1000 "messages with descriptors to a vhost-user session";
    keeper::keeper 4096 1500 "datagrams with descriptors to the keeper, and what it relays";
    dhcp::dhcp4 4096 200_000 "DHCPv4 clients over time";
    dhcp::dhcp6 4096 200_000 "DHCPv6 clients over time, and router solicitations";
    dhcp::lease_journal 4096 200_000 "the lease store's file, as a crash or a disk leaves it";
    gateway::gateway 8192 60_000 "frames, DNS answers and time to a gateway with all services";
    nat::nat 8192 8000 "packets to the flows of NAT, in a network namespace of its own";
    control::gateway_channel 4096 25_000 "messages between the daemon and a gateway";
    control::api 2048 150_000 "bodies of requests to the control API, and values of columns";
    config::config 4096 30_000 "the text of a configuration: read, written back, planned";
    config::commands 1024 20_000 "transactions of tramactl on a configuration";
    capture::filter 1024 200_000 "the language of filters, and text lines of frames";
    capture::pcapng 4096 100_000 "captures as tramactl reads them";
    export::export 8192 30_000 "sampled frames to collectors, by sFlow and IPFIX";
}

/// Returns the target with this name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
