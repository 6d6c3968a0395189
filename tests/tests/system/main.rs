//! The system tests: real hosts, virtual machines, firmware, clients and peers with a running
//! daemon. Each file is a topic; all are one program, which is linked once.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot continue panics, and tests have no callers to warn"
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
mod stations;
mod testpmd;
mod vlan;
mod workers;
