//! What the benchmark measures with; the program `trama-bench` decides what is measured.

pub mod generator;
