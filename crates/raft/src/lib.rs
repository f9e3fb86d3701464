//! Consensus as a pure state machine.

pub mod message;

pub use message::*;
