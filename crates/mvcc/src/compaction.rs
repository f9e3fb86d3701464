//! Compaction: moving the mark, and clearing away later what it left behind.

use std::fmt;

use store::{Gone, Relocation};

use crate::write::Keyspace;

/// Why a compaction was refused. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactError {
    /// The revision is at or below the mark.
    Compacted,
    /// The revision is above the current one.
    Future,
}

impl fmt::Display for CompactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CompactError::Compacted => write!(f, "the revision has been compacted"),
            CompactError::Future => write!(f, "the revision is a future one"),
        }
    }
}

impl std::error::Error for CompactError {}

impl Keyspace {
    /// Moves the compaction mark to `revision`, which stays readable. Visible to readers with the next
    /// [`Keyspace::publish`]. Zero is accepted once, before any other.
    pub fn compact(&mut self, _revision: i64) -> Result<(), CompactError> {
        unimplemented!("mvcc is being built")
    }

    /// Clears away a slice of what lies below the mark and below all pins: at most `keys_max` keys are looked at,
    /// at most 256 under one lock hold. Returns whether there is more to do now. Call it between entries.
    pub fn prune(&mut self, _keys_max: usize) -> bool {
        unimplemented!("mvcc is being built")
    }

    /// Takes over new places from reclaim ([`store::Reclaimed::Relocate`]); reports those dead that live no more,
    /// and with the `last` batch tells the store that `job` is taken over. Call it between entries.
    pub fn relocate(&mut self, _job: u64, _batch: &[Relocation], _last: bool) {
        unimplemented!("mvcc is being built")
    }

    /// Dead puts that are no longer on disk ([`store::Reclaimed::Gone`]): tombstones that guarded them may go.
    pub fn gone(&mut self, _gone: &[Gone]) {
        unimplemented!("mvcc is being built")
    }
}
