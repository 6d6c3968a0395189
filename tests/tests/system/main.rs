//! The system tests: real hosts, virtual machines, firmware, clients and peers with a running
//! daemon. Each file is a topic; all are one program, which is linked once.
#![cfg(test)]

mod access;
mod bad_input;
mod checksums;
mod crashes;
mod dhcp;
mod docs;
mod edits;
mod firmware;
mod gateway;
mod guest;
mod guests;
mod help;
mod host;
mod hostile_port;
mod idle;
mod ipxe;
mod large_host;
mod loops;
mod memory;
mod modes;
mod nat;
mod nat_bad_link;
mod nat_changes;
mod nat_conformance;
mod nat_discovery;
mod nat_fairness;
mod nat_hostile;
mod nat_scale;
mod nat_services;
mod nat_traffic;
mod netboot;
mod privileges;
mod prometheus;
mod queues;
mod resilience;
mod restart;
mod sandbox;
mod standalone;
mod stations;
mod testpmd;
mod upgrade;
mod vlan;
mod workers;
