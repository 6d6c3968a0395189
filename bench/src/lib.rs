//! Measuring equipment of the benchmark; the program `trama-bench` defines what is measured.

pub mod generator;
