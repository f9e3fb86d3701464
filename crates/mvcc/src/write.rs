//! Writing: the apply thread's end of the keyspace.

use std::sync::Arc;

use bytes::Bytes;
use store::{Builder, Frame, Revision};

use crate::{Batch, Item, KeyRange, RangeQuery, RangeResult, ReadError, Reader};

/// Limits on memory.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of values to keep in memory besides those of frames not yet written.
    pub value_bytes_max: usize,
    /// Bytes of recent events to keep, so that a lagging watcher catches up without the index.
    pub history_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { value_bytes_max: 512 << 20, history_bytes_max: 32 << 20 }
    }
}

/// What the index knows of a key, without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The revision of its last change.
    pub revision: Revision,
    /// The main revision at which its life began.
    pub create: i64,
    /// Changes in this life, from 1.
    pub version: i64,
    /// The lease, 0 for none.
    pub lease: i64,
}

/// The keyspace, for the one thread that changes it.
///
/// ```text
///   for each entry:    begin → Txn: get, range, put, delete_range …      (or compact, or rows through builder)
///                      end_entry(index, term)
///   then, once:        publish → Batch
///   between entries:   take_frame, frame_written, prune, relocate, gone, exchange
/// ```
pub struct Keyspace {
    _private: (),
}

impl Keyspace {
    /// A window for another thread.
    pub fn reader(&self) -> Reader {
        unimplemented!("mvcc is being built")
    }

    /// The current main revision, also if not published yet. 1 in an empty keyspace.
    pub fn revision(&self) -> i64 {
        unimplemented!("mvcc is being built")
    }

    /// The compaction mark, also if not published yet; -1 before any compaction.
    pub fn compact_revision(&self) -> i64 {
        unimplemented!("mvcc is being built")
    }

    /// Begins a transaction. Its changes, if any, share the main revision after the current one. There is no way
    /// back: check everything that can fail before the first change.
    pub fn begin(&mut self) -> Txn<'_> {
        unimplemented!("mvcc is being built")
    }

    /// Calls `visit` with every living key that has a lease, and the lease. For the lease table at start.
    pub fn leased(&self, _visit: &mut dyn FnMut(&[u8], i64)) {
        unimplemented!("mvcc is being built")
    }

    /// The store's builder, for the rows of the small tables.
    pub fn builder(&mut self) -> &mut Builder {
        unimplemented!("mvcc is being built")
    }

    /// The entry is applied: see [`store::Builder::end_entry`]. For every entry.
    pub fn end_entry(&mut self, _index: u64, _term: u64) {
        unimplemented!("mvcc is being built")
    }

    /// Makes what was done since the last time visible to all readers, then hands out its events. `None` if
    /// neither revision nor compaction mark moved.
    pub fn publish(&mut self) -> Option<Arc<Batch>> {
        unimplemented!("mvcc is being built")
    }

    /// Cuts the frame under construction: see [`store::Builder::take_frame`]. Frames must be taken here, not from
    /// the builder.
    pub fn take_frame(&mut self) -> Option<Frame> {
        unimplemented!("mvcc is being built")
    }

    /// Every frame up to the one whose last entry is `index` has been written: its values can be read from disk,
    /// and may leave the memory.
    pub fn frame_written(&mut self, _index: u64) {
        unimplemented!("mvcc is being built")
    }

    /// Takes the contents of `other` (rebuilt after a snapshot was imported) in place of its own, for all readers
    /// at once. Pins are revoked. The batch is a gap mark for the watchers. Nothing may be unpublished in either.
    pub fn exchange(&mut self, _other: Keyspace) -> Arc<Batch> {
        unimplemented!("mvcc is being built")
    }
}

/// A write transaction: sees its own changes. The lock is held for at most 256 changes, and never while the disk is
/// read.
pub struct Txn<'a> {
    _keyspace: &'a mut Keyspace,
}

impl Txn<'_> {
    /// The main revision that reads of this transaction see: the current one, or the next once it has changed
    /// anything.
    pub fn revision(&self) -> i64 {
        unimplemented!("mvcc is being built")
    }

    /// A key without its value.
    pub fn look(&mut self, _key: &[u8]) -> Option<Meta> {
        unimplemented!("mvcc is being built")
    }

    /// A key with its value; read from disk if need be.
    pub fn get(&mut self, _key: &[u8]) -> Result<Option<Item>, ReadError> {
        unimplemented!("mvcc is being built")
    }

    /// A range, from disk where need be; revisions are checked against [`Txn::revision`].
    pub fn range(&mut self, _query: &RangeQuery) -> Result<RangeResult, ReadError> {
        unimplemented!("mvcc is being built")
    }

    /// Calls `visit` for the keys of `range`, ascending, without values, until it returns false.
    pub fn scan(&mut self, _range: &KeyRange, _visit: &mut dyn FnMut(&[u8], &Meta) -> bool) {
        unimplemented!("mvcc is being built")
    }

    /// Puts a key. Returns what it was before, if it lived.
    pub fn put(&mut self, _key: &[u8], _value: &[u8], _lease: i64) -> Option<Meta> {
        unimplemented!("mvcc is being built")
    }

    /// Deletes the keys of `range`, ascending, and says how many. `visit` is told of each, and what it was.
    pub fn delete_range(&mut self, _range: &KeyRange, _visit: &mut dyn FnMut(Bytes, &Meta)) -> u64 {
        unimplemented!("mvcc is being built")
    }

    /// The transaction is over. Returns the current revision: its own if it changed anything.
    pub fn finish(self) -> i64 {
        unimplemented!("mvcc is being built")
    }
}
