//! One test per rule, RFC 2131 unless said otherwise.

mod clients;
mod exchange;
mod fairness;
mod identity;
mod model;
mod options;
mod probe;
mod relay;
mod scale;
