//! The gateway of a network: user-mode NAT, DNS and port forwards over host sockets.
//!
//! Nothing is here yet: the modes `nat` and `nat-network` are refused by the configuration.
#![forbid(unsafe_code)]
