//! Events: what watchers are told, batched by what became visible together.

use bytes::Bytes;

use store::{Location, Revision};

/// What a change did to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was put.
    Put,
    /// It was deleted.
    Delete,
}

/// The state of a key before a main revision, for `prev_kv`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Previous {
    /// The revision of that state.
    pub revision: Revision,
    pub(crate) location: Location,
    /// The encoded `KeyValue`, if it was in memory.
    pub(crate) bytes: Option<Bytes>,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it did.
    pub kind: EventKind,
    /// When.
    pub revision: Revision,
    /// The key; a slice of `kv`.
    pub key: Bytes,
    /// The encoded `mvccpb.KeyValue` as etcd's events carry it: whole for a put; key and mod_revision for a delete.
    pub kv: Bytes,
    /// Whether this put began a life of the key.
    pub is_create: bool,
    /// Where the state before this main revision is found, if there was one; ask [`crate::Reader::previous`].
    pub previous: Option<Previous>,
}

/// What became visible with one [`crate::Keyspace::publish`]. Whole revisions.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// The first main revision that is new. Above `last` if only the compaction mark moved.
    pub first: i64,
    /// The current revision from now on.
    pub last: i64,
    /// The compaction mark from now on; -1 before any compaction.
    pub compact_revision: i64,
    /// The changes, by ascending revision. Empty if `is_gap`.
    pub events: Vec<Event>,
    /// The keyspace was replaced as a whole (a snapshot was installed): there are no events for what lies between;
    /// watchers find out from history what they can.
    pub is_gap: bool,
}

/// A stretch of a range's past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The changes, by ascending revision; whole main revisions.
    pub events: Vec<Event>,
    /// The main revision to go on from: everything below has been told.
    pub next: i64,
}
