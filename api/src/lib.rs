//! The control API of `tramad`: the types that the daemon and its clients share.
//!
//! ```text
//! tramactl ── Request ──▶ POST /v1/transaction on the control socket ──▶ tramad
//!          ◀─ Response, or Refusal ──────────────────────────────────
//! ```
//!
//! - [`transaction`]: the bodies of requests and answers
//! - [`capture`]: those of captures
//! - [`value`]: the values in tables, as Open vSwitch prints them
//! - [`values`]: the words that columns take
//! - [`event`]: what happens on the networks, as it happens
//! - [`explain`]: what would happen to a frame
//! - [`top`]: numbers of what runs
//! - [`state`]: all that is configured and runs, for a picture of it
//! - [`tables`]: the names of the tables of records
//! - [`commands`]: the table of commands, from which `tramactl` makes its help
//! - [`folders`]: where the daemon's files are, above all its control socket
//! - [`nearest`]: what a misspelt word was meant to be
//!
//! The crate depends on neither the switch nor the NAT, so a client that uses it stays small.
//!
//! ```
//! use trama_api::transaction::{Output, Request, Response, VERSION};
//!
//! // The body of `tramactl list-br`, and the answer of a daemon with one network.
//! let request = Request {
//!     version: VERSION,
//!     commands: vec![vec!["list-br".to_owned()]],
//!     dry_run: false,
//!     no_save: false,
//! };
//! let body = serde_json::to_string(&request)?;
//! assert!(body.contains(r#""commands":[["list-br"]]"#));
//!
//! let answer = r#"{ "results": [{ "kind": "text", "lines": ["lab"] }],
//!                   "exit": 0, "not_running": [], "steps": [] }"#;
//! let response: Response = serde_json::from_str(answer)?;
//! assert_eq!(response.results, [Output::line("lab")]);
//! # Ok::<(), serde_json::Error>(())
//! ```
#![forbid(unsafe_code)]

pub mod attach;
pub mod capture;
pub mod commands;
pub mod event;
pub mod explain;
pub mod folders;
pub mod nearest;
pub mod state;
pub mod tables;
pub mod top;
pub mod transaction;
pub mod value;
pub mod values;
