//! The system tests: real hosts, virtual machines, firmware, clients and peers on a running daemon.
//! Each file is a topic. They are one program, which is linked once.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests are called by no one, and one that cannot go on panics"
)]

#[path = "../../../vhost-net-backend/tests/support/card.rs"]
mod card;

mod access;
mod bad_input;
mod checksums;
mod dhcp;
mod edits;
mod firmware;
mod gateway;
mod guest;
mod guests;
mod host;
mod idle;
mod ipxe;
mod modes;
mod nat;
mod nat_bad_link;
mod nat_changes;
mod nat_conformance;
mod nat_discovery;
mod nat_hostile;
mod nat_scale;
mod nat_services;
mod nat_traffic;
mod netboot;
mod prometheus;
mod queues;
mod resilience;
mod standalone;
mod testpmd;
mod vlan;
mod workers;
