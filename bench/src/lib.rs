//! Packet-throughput benchmarks.
