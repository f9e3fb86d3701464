//! Writing: the apply thread's end of the keyspace.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use crossbeam_utils::sync::ShardedLockWriteGuard;
use mutant::Mutant;
use store::{Builder, Frame, PutRecord, Revision};

use crate::compaction::{Pruning, rest_after};
use crate::event::{Event, EventKind, Previous};
use crate::index::{Entry, Fate, Version};
use crate::key_value::{self, Fields};
use crate::state::{Shared, State};
use crate::values::{NO_SLOT, Values};
use crate::{Batch, Effort, Item, KeyRange, RangeQuery, RangeResult, ReadError, Reader};

/// Changes that the apply thread makes under one hold of the index lock.
pub(crate) const CHANGES_PER_LOCK: usize = 256;

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
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: Writer,
}

/// What only the writing thread needs.
pub(crate) struct Writer {
    pub builder: Builder,
    /// The current revision, published or not. At least 1.
    pub current: i64,
    /// The mark, published or not. Never above `current`.
    pub mark: i64,
    /// Every put at or below this main revision has been written to disk.
    pub written: i64,
    /// The mark as of the last frame that has been written. What lies below it may go.
    pub written_mark: i64,
    /// Frames on their way to disk: the last entry of each, and the current revision and the mark then.
    pub frames: VecDeque<(u64, i64, i64)>,
    /// Changes not yet published.
    pub events: Vec<Event>,
    pub pruning: Pruning,
}

impl Keyspace {
    pub(crate) fn new(state: State, builder: Builder, pruning: Pruning) -> Keyspace {
        let writer = Writer {
            builder,
            current: state.published,
            mark: state.mark,
            written: state.published,
            written_mark: state.mark,
            frames: VecDeque::new(),
            events: Vec::new(),
            pruning,
        };
        Keyspace { shared: Arc::new(Shared::new(state)), writer }
    }

    /// A window for another thread.
    pub fn reader(&self) -> Reader {
        Reader { shared: self.shared.clone() }
    }

    /// The current main revision, also if not published yet. 1 in an empty keyspace.
    pub fn revision(&self) -> i64 {
        self.writer.current
    }

    /// The compaction mark, also if not published yet; -1 before any compaction.
    pub fn compact_revision(&self) -> i64 {
        self.writer.mark
    }

    /// Begins a transaction. Its changes, if any, share the main revision after the current one. There is no way
    /// back: check everything that can fail before the first change.
    pub fn begin(&mut self) -> Txn<'_> {
        let begin = self.writer.current;
        Txn {
            shared: &self.shared,
            writer: &mut self.writer,
            begin,
            changes: 0,
            guard: None,
            held_changes: 0,
        }
    }

    /// Calls `visit` with every living key that has a lease, and the lease. For the lease table at start.
    pub fn leased(&self, visit: &mut dyn FnMut(&[u8], i64)) {
        let state = self.shared.read();
        state.tree.visit(&KeyRange::all(), &mut |entry| {
            if entry.newest.lease != 0 {
                visit(&entry.key, entry.newest.lease);
            }
            true
        });
    }

    /// The store's builder, for the rows of the small tables.
    pub fn builder(&mut self) -> &mut Builder {
        &mut self.writer.builder
    }

    /// The entry is applied: see [`store::Builder::end_entry`]. For every entry.
    pub fn end_entry(&mut self, index: u64, term: u64) {
        self.writer.builder.end_entry(index, term);
    }

    /// Makes what was done since the last time visible to all readers, then hands out its events. `None` if
    /// neither revision nor compaction mark moved.
    pub fn publish(&mut self) -> Option<Arc<Batch>> {
        let Writer { current, mark, events, .. } = &mut self.writer;
        let mut state = self.shared.write();
        if state.published == *current && state.mark == *mark {
            return None;
        }
        if mutant::is(Mutant::DropEvent) {
            events.pop();
        }
        if mutant::is(Mutant::ReorderEvents) {
            events.reverse();
        }
        let batch = Arc::new(Batch {
            first: state.published + 1,
            last: *current,
            compact_revision: *mark,
            events: std::mem::take(events),
            is_gap: false,
        });
        assert!(state.mark <= *mark && *mark <= *current, "mark {mark}, revision {current}");
        state.published = *current;
        state.mark = *mark;
        state.unpublished.clear();
        if batch.first <= batch.last {
            state.recent.push(batch.clone());
        }
        self.shared.revision.store(*current, SeqCst);
        self.shared.mark.store(*mark, SeqCst);
        Some(batch)
    }

    /// Cuts the frame under construction: see [`store::Builder::take_frame`]. Frames must be taken here, not from
    /// the builder.
    pub fn take_frame(&mut self) -> Option<Frame> {
        let frame = self.writer.builder.take_frame()?;
        if let Some((index, _)) = frame.applied() {
            self.writer.frames.push_back((index, self.writer.current, self.writer.mark));
        }
        Some(frame)
    }

    /// Every frame up to the one whose last entry is `index` has been written: its values can be read from disk,
    /// and may leave the memory; and what its compactions left behind may be pruned.
    pub fn frame_written(&mut self, index: u64) {
        let writer = &mut self.writer;
        while let Some((_, revision, mark)) =
            writer.frames.pop_front_if(|(last, ..)| *last <= index)
        {
            (writer.written, writer.written_mark) = (revision, mark);
        }
        self.shared.write().values.shrink(writer.written, CHANGES_PER_LOCK);
    }

    /// Takes the contents of `other` (rebuilt after a snapshot was imported) in place of its own, for all readers
    /// at once. Pins are revoked. The batch is a gap mark for the watchers. Nothing may be unpublished in `other`.
    pub fn exchange(&mut self, other: Keyspace) -> Arc<Batch> {
        let mut state = self.shared.write();
        let first = state.published + 1;
        // Both locks are taken, this one first; nobody else ever takes two.
        std::mem::swap(&mut *state, &mut *other.shared.write());
        self.writer = other.writer;
        self.shared.pins.revoke_all();
        self.shared.pasts.clear();
        self.shared.revision.store(state.published, SeqCst);
        self.shared.mark.store(state.mark, SeqCst);
        Arc::new(Batch {
            first,
            last: state.published,
            compact_revision: state.mark,
            events: Vec::new(),
            is_gap: true,
        })
    }
}

impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyspace")
            .field("current", &self.writer.current)
            .field("mark", &self.writer.mark)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

/// A write transaction: sees its own changes. The lock is held for at most 256 changes, and never while the disk is
/// read.
pub struct Txn<'a> {
    shared: &'a Arc<Shared>,
    writer: &'a mut Writer,
    /// The current revision when it began.
    begin: i64,
    /// Changes made; the next one's sub revision.
    changes: u32,
    guard: Option<ShardedLockWriteGuard<'a, State>>,
    held_changes: usize,
}

impl Txn<'_> {
    /// The main revision that reads of this transaction see: the current one, or the next once it has changed
    /// anything.
    pub fn revision(&self) -> i64 {
        self.writer.current
    }

    /// A key without its value.
    pub fn look(&mut self, key: &[u8]) -> Option<Meta> {
        self.with(|state| {
            state.tree.get(key).filter(|entry| entry.is_living()).map(|entry| entry.newest.meta())
        })
    }

    /// A key with its value; read from disk if need be.
    ///
    /// # Errors
    /// The store's.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Item>, ReadError> {
        let found = self.with(|state| {
            let entry = state.tree.get(key).filter(|entry| entry.is_living())?;
            let found = state.found(entry, &entry.newest, false);
            let view = found.is_on_disk().then(|| state.store.view());
            Some((found, view))
        });
        let Some((found, view)) = found else { return Ok(None) };
        if view.is_some() {
            self.guard = None;
        }
        found.into_item(view.as_ref(), Effort::Disk).map(Some)
    }

    /// A range, from disk where need be; revisions are checked against [`Txn::revision`] and the newest mark.
    ///
    /// # Errors
    /// Future, compacted, or the store's.
    pub fn range(&mut self, query: &RangeQuery) -> Result<RangeResult, ReadError> {
        let current = self.writer.current;
        if query.revision > current {
            return Err(ReadError::Future);
        }
        let revision = if query.revision <= 0 { current } else { query.revision };
        if revision < self.writer.mark {
            return Err(ReadError::Compacted);
        }
        let mut result =
            RangeResult { current_revision: current, revision, ..RangeResult::default() };
        let wanted = if query.limit == 0 { usize::MAX } else { query.limit };
        let mut rest = (!query.count_only && !query.range.is_empty()).then(|| query.range.clone());
        while let Some(range) = rest
            && result.items.len() < wanted
        {
            let left = wanted - result.items.len();
            let slice = self.with(|state| state.slice(&range, revision, left, query.keys_only));
            if slice.view.is_some() {
                self.guard = None;
            }
            for found in slice.found {
                result.items.push(found.into_item(slice.view.as_ref(), Effort::Disk)?);
            }
            rest = slice.rest;
        }
        result.count = self.count(&query.range, revision);
        result.more = !query.count_only && result.count > result.items.len() as u64;
        Ok(result)
    }

    /// Puts a key. Returns what it was before, if it lived.
    ///
    /// # Panics
    /// If the transaction makes 2^32 changes, or the key and value together take 4 GiB.
    pub fn put(&mut self, key: &[u8], value: &[u8], lease: i64) -> Option<Meta> {
        let (revision, sub) = self.next_change();
        let main = revision.main;
        self.lock();
        let Writer { builder, events, written, .. } = &mut *self.writer;
        let state = &mut **self.guard.as_mut().expect("just locked");
        let values = &mut state.values;
        let (prior, event_key) = state.tree.upsert(key, |entry| {
            let before = entry.as_deref();
            let prior = before.filter(|entry| entry.is_living()).map(|entry| entry.newest.meta());
            let (create, version) =
                prior.map_or((main, 1), |meta| (meta.create, meta.version.saturating_add(1)));
            let kv = key_value::encode(Fields {
                key,
                create_revision: create,
                mod_revision: main,
                version,
                value,
                lease,
            });
            let key_offset = key_value::key_offset(key.len());
            let event_key = kv.slice(key_offset..key_offset + key.len());
            let location = builder.put(PutRecord {
                revision,
                create,
                version,
                lease,
                key_offset: u32::try_from(key_offset).expect("at most 11"),
                key_len: u32::try_from(key.len()).expect("a key is smaller than 4 GiB"),
                key_value: kv.clone(),
            });
            events.push(Event {
                kind: EventKind::Put,
                revision,
                key: event_key.clone(),
                is_create: version == 1,
                previous: before.and_then(|entry| previous(entry, main, values)),
                kv: kv.clone(),
            });
            let slot = values.insert(revision, kv, *written);
            let new = Version { main, create, version, lease, location, sub, slot };
            match entry {
                Some(entry) => {
                    entry.push(new);
                    (None, (prior, event_key))
                }
                None => (Some(new), (prior, event_key)),
            }
        });
        if prior.is_none() {
            state.differ(event_key, 1);
        }
        prior
    }

    /// Deletes the keys of `range`, ascending, and says how many. `visit` is told of each, and what it was.
    ///
    /// # Panics
    /// If the transaction makes 2^32 changes.
    pub fn delete_range(&mut self, range: &KeyRange, visit: &mut dyn FnMut(Bytes, &Meta)) -> u64 {
        let mut deleted = 0;
        let mut rest = (!range.is_empty()).then(|| range.clone());
        while let Some(range) = rest {
            let mut keys: Vec<Box<[u8]>> = Vec::new();
            // Every entry counts, also the dead ones that nobody has pruned yet: a long run of them may not hold up
            // the readers either.
            let mut seen = 0;
            rest = None;
            self.with(|state| {
                state.tree.visit(&range, &mut |entry| {
                    if entry.is_living() {
                        keys.push(entry.key.clone());
                    }
                    seen += 1;
                    if seen == CHANGES_PER_LOCK {
                        rest = rest_after(&range, &entry.key);
                    }
                    seen < CHANGES_PER_LOCK
                });
            });
            for key in keys {
                let (key, meta) = self.delete(&key);
                visit(key, &meta);
                deleted += 1;
            }
        }
        deleted
    }

    /// The transaction is over. Returns the current revision: its own if it changed anything.
    pub fn finish(self) -> i64 {
        self.writer.current
    }

    /// Deletes a living key.
    fn delete(&mut self, key: &[u8]) -> (Bytes, Meta) {
        let (revision, sub) = self.next_change();
        let main = revision.main;
        self.lock();
        let Writer { builder, events, .. } = &mut *self.writer;
        let state = &mut **self.guard.as_mut().expect("just locked");
        let values = &state.values;
        let kv = key_value::encode(Fields { key, mod_revision: main, ..Fields::default() });
        let key_offset = key_value::key_offset(key.len());
        let event_key = kv.slice(key_offset..key_offset + key.len());
        let location = builder.tombstone(revision, event_key.clone());
        let meta = state.tree.change(key, |entry| {
            let meta = entry.newest.meta();
            events.push(Event {
                kind: EventKind::Delete,
                revision,
                key: event_key.clone(),
                kv,
                is_create: false,
                previous: previous(entry, main, values),
            });
            let tombstone =
                Version { main, create: 0, version: 0, lease: 0, location, sub, slot: NO_SLOT };
            entry.push(tombstone);
            (Fate::Keep, meta)
        });
        state.differ(event_key.clone(), -1);
        (event_key, meta.expect("only living keys are deleted, and only this thread changes them"))
    }

    /// The revision of the next change.
    fn next_change(&mut self) -> (Revision, u32) {
        let sub = self.changes;
        self.changes = sub.checked_add(1).expect("a transaction makes fewer than 2^32 changes");
        self.writer.current = self.begin + 1;
        (Revision { main: self.begin + 1, sub: i64::from(sub) }, sub)
    }

    /// Counts the living keys: by the tree for what this transaction sees, by walking at old revisions.
    fn count(&mut self, range: &KeyRange, revision: i64) -> u64 {
        if revision == self.writer.current {
            return self.with(|state| state.tree.count(range));
        }
        let mut count = 0;
        let mut rest = (!range.is_empty()).then(|| range.clone());
        while let Some(range) = rest {
            let (counted, _, left) = self.with(|state| state.count_slice(&range, revision));
            count += counted;
            rest = left;
        }
        count
    }

    /// Takes the lock for a change, and lets others have it once in a while.
    fn lock(&mut self) {
        if self.held_changes == CHANGES_PER_LOCK {
            self.guard = None;
        }
        if self.guard.is_none() {
            self.guard = Some(self.shared.write());
            self.held_changes = 0;
        }
        self.held_changes += 1;
    }

    /// Reads under the lock that is held, or for a moment.
    fn with<R>(&self, read: impl FnOnce(&State) -> R) -> R {
        match &self.guard {
            Some(state) => read(state),
            None => read(&self.shared.read()),
        }
    }
}

/// The state of a key before `main`, if it lived.
fn previous(entry: &Entry, main: i64, values: &Values) -> Option<Previous> {
    let version = entry.living_at(main - 1 - i64::from(mutant::is(Mutant::WrongPrevious)))?;
    let revision = version.revision();
    let bytes = values.get(version.slot, revision).cloned();
    Some(Previous { revision, bytes })
}
