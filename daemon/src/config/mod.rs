//! The configuration: its values, how it is read, checked and written back.

pub mod model;
