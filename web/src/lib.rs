#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod answers;
mod app;
mod assets;
mod attention;
mod captures;
mod change;
mod compose;
mod confinement;
mod follow;
mod guard;
mod history;
mod hub;
pub mod link;
mod listener;
mod minute;
pub mod process;
mod rates;
mod refusal;
mod routes;
mod session;
mod slots;
mod sse;
mod streams;
mod upstream;
mod view;

pub use routes::{ROUTES, Route};
