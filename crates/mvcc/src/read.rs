//! Reading at a revision, from any thread.
//!
//! A read takes its revision with its first slice and keeps it to the end. A slice looks at no more than 64 entries
//! under the index lock; what it finds on disk is read after the lock is let go, through a view of the segments
//! that was taken under it, so that no reclaim comes between. A read that needs a second slice holds a pin.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use mutant::Mutant;
use store::Revision;

use crate::state::{Shared, Slice, State, Value, read_value};
use crate::{Event, KeyRange, Pin, key_value};

/// Bytes of results that a shard gathers before it leaves the rest to a read thread.
const NOW_BYTES_MAX: usize = 64 << 10;
/// Entries that a shard looks at before it leaves the rest to a read thread.
const NOW_KEYS_MAX: usize = 4096;
/// What an item costs besides its bytes.
const ITEM_BYTES: usize = 64;

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
        key_value::decode(&self.bytes).map(|key_value| key_value.value).unwrap_or_default()
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
    pub(crate) shared: Arc<Shared>,
}

impl Reader {
    /// The current, that is last published, main revision.
    pub fn revision(&self) -> i64 {
        self.shared.revision.load(SeqCst)
    }

    /// The compaction mark; -1 before any compaction.
    pub fn compact_revision(&self) -> i64 {
        self.shared.mark.load(SeqCst)
    }

    /// Reads a range, consistently at one revision, in slices of at most 64 keys per lock hold.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn range(&self, query: &RangeQuery, effort: Effort) -> Result<RangeResult, ReadError> {
        let (mut cursor, first) = self.start(query, effort, false)?;
        let mut items = Vec::with_capacity(first.found.len());
        let mut budget = Budget::new(effort);
        cursor.take(first, effort, &mut budget, &mut items)?;
        while !cursor.is_finished() {
            budget.check()?;
            let slice = cursor.slice(usize::MAX, effort)?;
            cursor.take(slice, effort, &mut budget, &mut items)?;
        }
        if cursor.count.is_none() {
            cursor.count_rest(effort, &mut budget)?;
        }
        let count = cursor.count();
        Ok(RangeResult {
            more: cursor.more(),
            count,
            items,
            current_revision: cursor.current,
            revision: cursor.revision,
        })
    }

    /// Begins a range read that is taken chunk by chunk, all at one revision, which is pinned.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn cursor(&self, query: &RangeQuery, effort: Effort) -> Result<Cursor, ReadError> {
        let query = RangeQuery { count_only: false, ..query.clone() };
        let mut cursor = self.start(&query, effort, true)?.0;
        if cursor.count.is_none() {
            cursor.count_rest(effort, &mut Budget::new(effort))?;
        }
        Ok(cursor)
    }

    /// How many keys `range` holds at `revision` (zero or less: the current one). O(log n) at the current
    /// revision; a walk at others.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn count(&self, range: &KeyRange, revision: i64, effort: Effort) -> Result<u64, ReadError> {
        let query = RangeQuery { revision, count_only: true, ..RangeQuery::new(range.clone()) };
        Ok(self.range(&query, effort)?.count)
    }

    /// The encoded `KeyValue` that `event` replaced or deleted (`prev_kv`): the state of its key before its main
    /// revision. `None` if there was none, or it has been compacted.
    ///
    /// # Errors
    /// Cold, busy, or the store's.
    pub fn previous(&self, event: &Event, effort: Effort) -> Result<Option<Bytes>, ReadError> {
        let Some(previous) = &event.previous else { return Ok(None) };
        if event.revision.main - 1 < self.compact_revision() {
            return Ok(None);
        }
        if let Some(bytes) = &previous.bytes {
            return Ok(Some(bytes.clone()));
        }
        // The record may have moved since the event was made: look it up again.
        let (location, view) = {
            let state = self.shared.read_with(effort)?;
            let Some(version) =
                state.tree.get(&event.key).and_then(|entry| entry.exactly(previous.revision))
            else {
                return Ok(None);
            };
            match state.value(version) {
                Value::Ready(bytes) => return Ok(Some(bytes)),
                Value::OnDisk(location) => (location, state.store.view()),
            }
        };
        read_value(&view, &location, effort).map(Some)
    }

    /// Pins a main revision, zero or less meaning the current one.
    ///
    /// # Errors
    /// It lies below the mark, or above the current revision.
    pub fn pin(&self, revision: i64) -> Result<Pin, ReadError> {
        let state = self.shared.read();
        let revision = check_revision(&state, revision)?;
        Ok(self.shared.pins.pin(revision))
    }

    /// One tick of the clock: revokes every pin that was not used for `idle_ticks_max` ticks, and says how many;
    /// what was gathered of the past and not used for so long is dropped.
    pub fn tick_pins(&self, idle_ticks_max: u64) -> usize {
        self.shared.pasts.tick(idle_ticks_max);
        self.shared.pins.tick(idle_ticks_max)
    }

    /// For reclaim: whether anybody can still ask for this record.
    pub fn is_live(&self, key: &[u8], revision: Revision) -> bool {
        let state = self.shared.read();
        state.tree.get(key).is_some_and(|entry| entry.exactly(revision).is_some())
    }

    /// Makes a cursor, and reads its first slice unless `is_lazy`. Both under one lock hold, so that a read that
    /// is done with one slice needs no pin.
    fn start(
        &self,
        query: &RangeQuery,
        effort: Effort,
        is_lazy: bool,
    ) -> Result<(Cursor, Slice), ReadError> {
        let state = self.shared.read_with(effort)?;
        let current = state.published;
        let revision = check_revision(&state, query.revision)?;
        let wanted = if query.count_only { 0 } else { query.limit_or_all() };
        let is_current = revision == current;
        let mut cursor = Cursor {
            reader: self.clone(),
            rest: (!query.range.is_empty() && !query.count_only).then(|| query.range.clone()),
            counted: 0,
            uncounted: (!is_current && !query.range.is_empty()).then(|| query.range.clone()),
            count: None,
            current,
            revision,
            wanted,
            taken: 0,
            keys_only: query.keys_only,
            pin: None,
        };
        let mut slice = Slice { found: Vec::new(), seen: 0, rest: None, view: None };
        if is_lazy {
            slice.rest = cursor.rest.clone();
        } else if let Some(range) = &cursor.rest {
            slice = state.slice(range, revision, wanted, query.keys_only);
        }
        if matches!(query.range, KeyRange::One(_)) && !is_lazy && !query.count_only {
            // The most frequent read of all: what was found is all there is to count.
            (cursor.count, cursor.uncounted) = (Some(slice.found.len() as u64), None);
        }
        if cursor.count.is_none() && is_current {
            cursor.count = Some(state.count_published(&query.range));
        }
        if slice.rest.is_some() || cursor.uncounted.is_some() {
            cursor.pin = Some(self.shared.pins.pin(revision));
        }
        Ok((cursor, slice))
    }
}

impl RangeQuery {
    fn limit_or_all(&self) -> usize {
        if self.limit == 0 { usize::MAX } else { self.limit }
    }
}

/// The revision that a request means, if it can be read.
pub(crate) fn check_revision(state: &State, revision: i64) -> Result<i64, ReadError> {
    if revision > state.published {
        return Err(ReadError::Future);
    }
    if revision <= 0 || mutant::is(Mutant::IgnoreRevision) {
        return Ok(state.published);
    }
    if revision < state.mark { Err(ReadError::Compacted) } else { Ok(revision) }
}

/// What a shard may spend on a read.
struct Budget {
    bytes: usize,
    keys: usize,
}

impl Budget {
    fn new(effort: Effort) -> Budget {
        match effort {
            Effort::Disk => Budget { bytes: usize::MAX, keys: usize::MAX },
            Effort::Try | Effort::Now => Budget { bytes: NOW_BYTES_MAX, keys: NOW_KEYS_MAX },
        }
    }

    fn check(&self) -> Result<(), ReadError> {
        if self.bytes == 0 || self.keys == 0 { Err(ReadError::Cold) } else { Ok(()) }
    }
}

/// A range read in progress. Holds a pin until it is dropped.
#[derive(Debug)]
pub struct Cursor {
    reader: Reader,
    /// What has not been read; `None` at the end.
    rest: Option<KeyRange>,
    /// Keys counted by walking, and what has not been walked. Unused at the current revision.
    counted: u64,
    uncounted: Option<KeyRange>,
    count: Option<u64>,
    current: i64,
    revision: i64,
    /// The query's limit.
    wanted: usize,
    taken: usize,
    keys_only: bool,
    /// Held by every cursor that needs another slice.
    pin: Option<Pin>,
}

impl Cursor {
    /// The main revision it reads at.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The current main revision when it began.
    pub fn current_revision(&self) -> i64 {
        self.current
    }

    /// How many keys the whole range holds at that revision.
    pub fn count(&self) -> u64 {
        self.count.unwrap_or(self.counted)
    }

    /// The next items: at most `keys_max` of them and about `bytes_max` bytes, at least one; none at the end. The
    /// query's limit holds over all chunks. After an error the same chunk may be asked for again.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn next(
        &mut self,
        keys_max: usize,
        bytes_max: usize,
        effort: Effort,
    ) -> Result<Vec<Item>, ReadError> {
        let mut items = Vec::new();
        let mut budget = Budget { bytes: bytes_max, ..Budget::new(effort) };
        while !self.is_finished() && items.len() < keys_max.max(1) {
            if budget.bytes == 0 {
                break;
            }
            let before = (self.rest.clone(), self.taken);
            // A first item tells how large they are; then as many as are likely to fit.
            let likely = match items.len() {
                0 => 1,
                n => (budget.bytes / (bytes_max - budget.bytes).div_ceil(n).max(1)).max(1),
            };
            let wanted = likely.min(keys_max.max(1) - items.len());
            let taken = self
                .slice(wanted, effort)
                .and_then(|slice| self.take(slice, effort, &mut budget, &mut items));
            match taken {
                Ok(()) => {}
                // What has been read is handed out; the error comes with the next call, if it comes again.
                Err(error) => {
                    items.truncate(items.len() - (self.taken - before.1));
                    (self.rest, self.taken) = before;
                    return if items.is_empty() { Err(error) } else { Ok(items) };
                }
            }
        }
        Ok(items)
    }

    /// Whether everything was taken.
    pub fn is_finished(&self) -> bool {
        self.rest.is_none() || self.taken == self.wanted
    }

    /// Whether the limit leaves keys of the range untaken.
    pub fn more(&self) -> bool {
        self.taken == self.wanted && self.taken > 0 && self.count() > self.taken as u64
    }

    /// Reads the next slice from the index.
    fn slice(&self, keys_max: usize, effort: Effort) -> Result<Slice, ReadError> {
        let range = self.rest.as_ref().expect("asked only while something is left");
        let state = self.reader.shared.read_with(effort)?;
        self.check_pin()?;
        Ok(state.slice(
            range,
            self.revision,
            keys_max.min(self.wanted - self.taken),
            self.keys_only,
        ))
    }

    /// Turns what a slice found into items.
    fn take(
        &mut self,
        slice: Slice,
        effort: Effort,
        budget: &mut Budget,
        items: &mut Vec<Item>,
    ) -> Result<(), ReadError> {
        budget.keys = budget.keys.saturating_sub(slice.seen);
        for found in slice.found {
            let item = found.into_item(slice.view.as_ref(), effort)?;
            budget.bytes = budget.bytes.saturating_sub(item.bytes.len() + ITEM_BYTES);
            self.taken += 1;
            items.push(item);
        }
        self.rest = slice.rest;
        if let Some(pin) = &self.pin {
            pin.touch();
        }
        Ok(())
    }

    /// Counts by walking: the only way at an old revision, for subtrees only know the newest.
    fn count_rest(&mut self, effort: Effort, budget: &mut Budget) -> Result<(), ReadError> {
        while let Some(range) = self.uncounted.take() {
            budget.check()?;
            let state = self.reader.shared.read_with(effort)?;
            self.check_pin()?;
            let (count, seen, rest) = state.count_slice(&range, self.revision);
            drop(state);
            self.counted += count;
            self.uncounted = rest;
            budget.keys = budget.keys.saturating_sub(seen);
            if let Some(pin) = &self.pin {
                pin.touch();
            }
        }
        self.count = Some(self.counted);
        Ok(())
    }

    /// To be asked under the lock: then all that the pin protects is there.
    fn check_pin(&self) -> Result<(), ReadError> {
        match &self.pin {
            Some(pin) if pin.is_revoked() => Err(ReadError::Revoked),
            _ => Ok(()),
        }
    }
}
