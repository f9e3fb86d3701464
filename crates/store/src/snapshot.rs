//! Snapshots: the store at a frame boundary as a stream of chunks, and such a stream turned into a store.

use bytes::Bytes;

use crate::error::{ImportError, ReadError};
use crate::record::Revision;
use crate::store::Flusher;

/// What a snapshot is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The cluster.
    pub cluster_id: u64,
    /// Index of the last entry applied in it.
    pub applied_index: u64,
    /// That entry's term.
    pub applied_term: u64,
    /// The highest main revision.
    pub revision: i64,
    /// The compaction mark, 0 if there is none.
    pub compact_revision: i64,
}

/// A snapshot being streamed. It holds the files it reads; dropping it lets them go.
pub struct Snapshot {}

impl Snapshot {
    /// What it is of: the last frame written before [`Flusher::snapshot`].
    pub fn header(&self) -> SnapshotHeader {
        unimplemented!("the store is being built")
    }

    /// The next chunk, of about `bytes_max` bytes; `None` after the last.
    ///
    /// `needed(key, revision)` is asked for each put and tombstone. It must answer from a state that does not
    /// change while the snapshot is streamed (a pin at the header's compaction mark): true for all above the
    /// mark, and for a key's newest put at or below it. `|_, _| true` is right as well, and streams more.
    pub fn next_chunk(
        &mut self,
        _bytes_max: usize,
        _needed: &mut dyn FnMut(&[u8], Revision) -> bool,
    ) -> Result<Option<Bytes>, ReadError> {
        unimplemented!("the store is being built")
    }
}

impl Flusher {
    /// Pins the state as of the last written frame.
    pub fn snapshot(&self) -> Snapshot {
        unimplemented!("the store is being built")
    }

    /// Begins to import a snapshot; one begun before is forgotten.
    pub fn begin_import(&mut self) {
        unimplemented!("the store is being built")
    }

    /// Takes the next bytes of the stream, in pieces of any size. After an error the import is over.
    pub fn import(&mut self, _bytes: &[u8]) -> Result<(), ImportError> {
        unimplemented!("the store is being built")
    }

    /// The stream has ended. If it was whole, one manifest replacement makes it the store, and the old
    /// segments are unlinked; builder, flusher and readers of the old state are then of no use: [`crate::open`]
    /// the directory again. On error the store is as it was; the caller opens it again.
    pub fn finish_import(self) -> Result<SnapshotHeader, ImportError> {
        unimplemented!("the store is being built")
    }
}
