//! The durable state of a member: append-only segments of frames.
//!
//! Keys' revisions only grow, so the state is a log: every change is appended, nothing is rewritten in place,
//! and space comes back segment by segment. `docs/format/store.md` draws every byte.
//!
//! The store is three handles, one per kind of thread:
//!
//! ```text
//!   apply thread    Builder   put, tombstone, row, compact, end_entry → places; take_frame → Frame
//!                      │ Frame (plain data)                    ▲ Relocation, Gone
//!                      ▼                                       │
//!   flush thread    Flusher   write(frame), sync(), reclaim, scrub, snapshot, import
//!                      │ segments
//!                      ▼
//!   any thread      Reader    read(location)
//! ```
//!
//! Which call is durable when:
//!
//! | call | after it returned |
//! |---|---|
//! | [`Builder`], all of it | nothing is on disk |
//! | [`Flusher::write`] | readable, survives the process, not the power; durable as well is all before it if it sealed a segment |
//! | [`Flusher::sync`] | every written frame survives the power |
//! | [`Flusher::reclaim`] → [`Reclaimed::Swapped`] | the copies stand in the manifest, the old segments are gone |
//! | [`Flusher::finish_import`] | the imported state is the store; the old one is gone |
//!
//! After a crash [`open`] finds the state at the end of some frame: at least the last synced one, at most the
//! last written one, whole or not at all. The caller makes sure that a frame is written only when the log holds
//! its entries durably.
//!
//! The caller holds the lock of the directory in which the store's stands; the store takes none.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod builder;
mod copy;
mod error;
mod footer;
mod frame;
pub mod inspect;
mod live;
mod manifest;
mod reclaim;
mod record;
mod recovery;
mod scrub;
mod segment;
mod snapshot;
mod store;

pub use builder::{Builder, Frame};
pub use error::{Damage, ImportError, OpenError, ReadError, ReclaimError, WriteError};
pub use frame::Identity;
pub use manifest::{Manifest, Named};
pub use reclaim::{Goal, Gone, Reclaimed, Relocation};
pub use record::{Location, Place, PutRecord, Recovered, Revision, Row};
pub use recovery::open;
pub use scrub::Scrubbed;
pub use segment::{Reader, View};
pub use snapshot::{Part, Snapshot, SnapshotHeader, SnapshotReader};
pub use store::{Flusher, Opened, Options, Sizes, Synced, TornTail, Written};
