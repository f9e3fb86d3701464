//! The versioned keyspace: every key at every revision that is still alive.
//!
//! ```text
//!   apply thread        Keyspace   begin → Txn: put, delete_range, range … end_entry … publish → Batch
//!                          │  the index lock: a slot per reader, the writer takes all
//!   any other thread    Reader     range, count, history, hash_kv, remember, pin, is_live
//!   one per shard       WatcherSet a pure structure: batches in, events per watcher out
//! ```
//!
//! One thread changes the keyspace, through [`Keyspace`]; what it did becomes visible to all [`Reader`]s at once,
//! with [`Keyspace::publish`], which also hands out the events. Until then the new revisions stand in the index
//! but no reader sees them, and counts leave them out.
//!
//! What lies where: the key index holds, for each key, its live revisions and where each record lies on disk; the
//! values of frames not yet written are always in memory, others within a budget; the rest is read by the store's
//! reader. A [`KeyValue`](key_value) is encoded once, when it is put; those bytes serve disk, reads and watchers.
//!
//! Revisions, versions, transactions, compaction and hashes behave as etcd's do, to the letter. This crate knows
//! no clock and no thread: work is cut into slices of keys.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod compaction;
mod event;
mod hash;
mod heads;
mod index;
pub mod key_value;
mod past;
mod pin;
mod range;
mod read;
mod recovery;
mod state;
mod values;
mod watch;
mod write;

#[cfg(test)]
mod model;

pub use compaction::CompactError;
pub use event::{Batch, Event, EventKind, History, Portion, Previous};
pub use hash::{DueHash, HASHES_MAX, HashKv};
pub use pin::Pin;
pub use range::{KeyRange, successor};
pub use read::{Cursor, Effort, Item, RangeQuery, RangeResult, ReadError, Reader};
pub use recovery::{Recovery, RecoveryError};
pub use store::Revision;
pub use watch::{Filter, Lagging, WatcherSet, WatcherState};
pub use write::{Keyspace, Meta, Options, Txn};
