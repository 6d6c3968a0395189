//! DHCP server as a pure state machine: packet and time in, packet out. It does no I/O.
//!
//! Nothing is here yet: networks have no services in this version.
#![forbid(unsafe_code)]
