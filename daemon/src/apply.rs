//! Executes steps on the workers.
