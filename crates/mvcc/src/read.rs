//! Reading at a revision, from any thread.

use std::fmt;

use bytes::Bytes;
use store::Revision;

use crate::{Event, HashKv, History, KeyRange, Pin};

/// How far a read may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// As `Now`, and without waiting for the index lock: [`ReadError::Busy`] if it is taken.
    Try,
    /// Memory and what the page cache gives at once, 64 KiB of results, some thousands of keys: on a shard.
    /// [`ReadError::Cold`] if it takes more.
    Now,
    /// The disk too, and as long as it takes: on a read thread, or in apply.
    Disk,
}

/// Why a read gave nothing.
#[derive(Debug)]
pub enum ReadError {
    /// The revision is below the compaction mark.
    Compacted,
    /// The revision is above the current one.
    Future,
    /// The read's pin was revoked: it took too long, or the keyspace was replaced.
    Revoked,
    /// It needs the disk, or is long: ask again with [`Effort::Disk`] on a read thread.
    Cold,
    /// The index is being changed just now: ask again, with [`Effort::Now`] the second time.
    Busy,
    /// The store could not read a value.
    Store(store::ReadError),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Compacted => write!(f, "the revision has been compacted"),
            ReadError::Future => write!(f, "the revision is a future one"),
            ReadError::Revoked => write!(f, "the read took too long and lost its revision"),
            ReadError::Cold => write!(f, "the read needs the disk"),
            ReadError::Busy => write!(f, "the index is being changed"),
            ReadError::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeQuery {
    /// Which keys.
    pub range: KeyRange,
    /// At which main revision; zero or less: the current one.
    pub revision: i64,
    /// The most keys to return, 0 for all.
    pub limit: usize,
    /// Only how many there are.
    pub count_only: bool,
    /// Without values.
    pub keys_only: bool,
}

impl RangeQuery {
    /// All of `range`, at the current revision.
    pub fn new(range: KeyRange) -> RangeQuery {
        RangeQuery { range, revision: 0, limit: 0, count_only: false, keys_only: false }
    }
}

/// A key at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The key.
    pub key: Bytes,
    /// The revision of its last change.
    pub revision: Revision,
    /// The main revision at which its life began.
    pub create: i64,
    /// Changes in this life, from 1.
    pub version: i64,
    /// The lease, 0 for none.
    pub lease: i64,
    /// The encoded `mvccpb.KeyValue`. Of a keys-only read: without value and lease, as etcd 3.7 answers.
    pub bytes: Bytes,
}

impl Item {
    /// The value, a slice of `bytes`.
    pub fn value(&self) -> Bytes {
        unimplemented!("mvcc is being built")
    }
}

/// What a range read found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// The keys, ascending; at most `limit`.
    pub items: Vec<Item>,
    /// How many keys the range holds at that revision, whatever the limit.
    pub count: u64,
    /// Whether the limit cut the list.
    pub more: bool,
    /// The current main revision when the read began.
    pub current_revision: i64,
    /// The main revision that was read.
    pub revision: i64,
}

/// A window on the keyspace. Cheap to clone; one per thread.
#[derive(Clone, Debug)]
pub struct Reader {
    _private: (),
}

impl Reader {
    /// The current, that is last published, main revision.
    pub fn revision(&self) -> i64 {
        unimplemented!("mvcc is being built")
    }

    /// The compaction mark; -1 before any compaction.
    pub fn compact_revision(&self) -> i64 {
        unimplemented!("mvcc is being built")
    }

    /// Reads a range, consistently at one revision, in slices of at most 64 keys per lock hold.
    pub fn range(&self, _query: &RangeQuery, _effort: Effort) -> Result<RangeResult, ReadError> {
        unimplemented!("mvcc is being built")
    }

    /// Begins a range read that is taken chunk by chunk, all at one revision, which is pinned.
    pub fn cursor(&self, _query: &RangeQuery, _effort: Effort) -> Result<Cursor, ReadError> {
        unimplemented!("mvcc is being built")
    }

    /// How many keys `range` holds at `revision` (zero or less: the current one). O(log n) at the current
    /// revision; a walk at others.
    pub fn count(
        &self,
        _range: &KeyRange,
        _revision: i64,
        _effort: Effort,
    ) -> Result<u64, ReadError> {
        unimplemented!("mvcc is being built")
    }

    /// etcd's hash of the keyspace at `revision` (0: the current one). A long walk: only on a read thread.
    pub fn hash_kv(&self, _revision: i64) -> Result<HashKv, ReadError> {
        unimplemented!("mvcc is being built")
    }

    /// The changes of `range` from main revision `from` on, up to and including the current one; about
    /// `events_max` of them, whole revisions. [`ReadError::Compacted`] if `from` lies below the mark.
    pub fn history(
        &self,
        _range: &KeyRange,
        _from: i64,
        _events_max: usize,
        _effort: Effort,
    ) -> Result<History, ReadError> {
        unimplemented!("mvcc is being built")
    }

    /// The encoded `KeyValue` that `event` replaced or deleted (`prev_kv`): the state of its key before its main
    /// revision. `None` if there was none, or it has been compacted.
    pub fn previous(&self, _event: &Event, _effort: Effort) -> Result<Option<Bytes>, ReadError> {
        unimplemented!("mvcc is being built")
    }

    /// Pins a main revision, zero or less meaning the current one. It must not be below the mark.
    pub fn pin(&self, _revision: i64) -> Result<Pin, ReadError> {
        unimplemented!("mvcc is being built")
    }

    /// One tick of the clock: revokes every pin that was not used for `idle_ticks_max` ticks, and says how many.
    pub fn tick_pins(&self, _idle_ticks_max: u64) -> usize {
        unimplemented!("mvcc is being built")
    }

    /// For reclaim: whether anybody can still ask for this record.
    pub fn is_live(&self, _key: &[u8], _revision: Revision) -> bool {
        unimplemented!("mvcc is being built")
    }
}

/// A range read in progress. Holds a pin until it is dropped.
#[derive(Debug)]
pub struct Cursor {
    _private: (),
}

impl Cursor {
    /// The main revision it reads at.
    pub fn revision(&self) -> i64 {
        unimplemented!("mvcc is being built")
    }

    /// The current main revision when it began.
    pub fn current_revision(&self) -> i64 {
        unimplemented!("mvcc is being built")
    }

    /// How many keys the whole range holds at that revision.
    pub fn count(&self) -> u64 {
        unimplemented!("mvcc is being built")
    }

    /// The next items: at most `keys_max` of them and about `bytes_max` bytes, at least one; none at the end. The
    /// query's limit holds over all chunks.
    pub fn next(
        &mut self,
        _keys_max: usize,
        _bytes_max: usize,
        _effort: Effort,
    ) -> Result<Vec<Item>, ReadError> {
        unimplemented!("mvcc is being built")
    }

    /// Whether everything was taken.
    pub fn is_finished(&self) -> bool {
        unimplemented!("mvcc is being built")
    }

    /// Whether the limit leaves keys of the range untaken.
    pub fn more(&self) -> bool {
        unimplemented!("mvcc is being built")
    }
}
