//! Support code for the system tests under `tests/tests`.
