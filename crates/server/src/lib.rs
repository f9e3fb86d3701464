//! Everything of a member that touches the world: sockets, threads, the clock, configuration.
//!
//! What a member *decides* is decided below, in `replica` and what it stands on; here are the threads that drive
//! it ([`run`]), what they know of each other ([`handle`]), and how clients are served ([`serve`], [`grpc`],
//! [`http`]).

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "here are the clock, the threads, the sockets and the files; nothing here is simulated"
)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod compactor;
pub mod config;
pub mod grpc;
pub mod handle;
pub mod http;
pub mod identity;
pub mod log;
pub mod metrics;
pub mod peer;
pub mod run;
pub mod serve;
pub mod slow;
pub mod stages;
pub mod steward;

pub use run::{limit, main};
