//! What all threads share: the index and what goes with it, under the index lock.
//!
//! The lock is a sharded one: a slot per reader, so that readers do not disturb each other, and the writer takes
//! all slots. It guards the whole of [`State`], so that index, values, published revision, mark and the store's
//! segments always fit together. Readers hold it for at most 64 entries, the apply thread for at most 256 changes;
//! nobody holds it across a disk read. A thread that panics in it ends the process, so poison is passed over.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, PoisonError, TryLockError};

use bytes::Bytes;
use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};
use mutant::Mutant;
use store::{Location, ReadError as StoreError, View};

use crate::hash::Remembered;
use crate::index::{Entry, Tree, Version};
use crate::key_value::{self, Fields};
use crate::past::Pasts;
use crate::pin::Pins;
use crate::values::Values;
use crate::{Batch, Effort, Item, KeyRange, ReadError};

/// Entries that are looked at under one lock hold of a reader.
pub(crate) const KEYS_PER_LOCK: usize = 64;
/// Batches of recent events that are handed out under one lock hold.
pub(crate) const BATCHES_PER_LOCK: usize = 64;
/// What an event costs besides its bytes.
const EVENT_BYTES: usize = 200;

/// The lock, and what may be read without it.
pub(crate) struct Shared {
    state: ShardedLock<State>,
    /// `State::published`, for those who want nothing else.
    pub revision: AtomicI64,
    /// `State::mark`.
    pub mark: AtomicI64,
    pub pins: Arc<Pins>,
    pub pasts: Pasts,
    /// Of compactions of this process; they stay when a snapshot takes the place of the state.
    pub hashes: Remembered,
}

impl Shared {
    pub fn new(state: State) -> Shared {
        Shared {
            revision: AtomicI64::new(state.published),
            mark: AtomicI64::new(state.mark),
            state: ShardedLock::new(state),
            pins: Arc::new(Pins::default()),
            pasts: Pasts::default(),
            hashes: Remembered::default(),
        }
    }

    pub fn read(&self) -> ShardedLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn read_with(&self, effort: Effort) -> Result<ShardedLockReadGuard<'_, State>, ReadError> {
        if effort != Effort::Try {
            return Ok(self.read());
        }
        match self.state.try_read() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(ReadError::Busy),
        }
    }

    pub fn write(&self) -> ShardedLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("revision", &self.revision.load(SeqCst))
            .field("mark", &self.mark.load(SeqCst))
            .finish_non_exhaustive()
    }
}

/// What the lock guards.
pub(crate) struct State {
    pub tree: Tree,
    pub values: Values,
    /// The revision that readers see; the index may already be ahead of it.
    pub published: i64,
    /// The mark that readers see; never above `published`. -1 before any compaction.
    pub mark: i64,
    /// By how much the life of a key differs between the index and `published`: 1 born since, -1 died since. What
    /// the tree counts, less these, is the count at `published`.
    pub unpublished: BTreeMap<Bytes, i8>,
    pub recent: Recent,
    pub store: store::Reader,
}

impl State {
    /// Up to where pruning may go now.
    pub fn floor(&self, pins: &Pins) -> i64 {
        let lowest = pins.lowest().filter(|_| !mutant::is(Mutant::PinIgnored));
        lowest.map_or(self.mark, |lowest| lowest.min(self.mark))
    }

    /// Keys of `range` that live at `published`.
    pub fn count_published(&self, range: &KeyRange) -> u64 {
        let differences: i64 = if self.unpublished.is_empty() || range.is_empty() {
            0
        } else {
            self.unpublished
                .range(range.start().clone()..)
                .take_while(|(key, _)| !range.is_past(key))
                .map(|(_, difference)| i64::from(*difference))
                .sum()
        };
        self.tree.count(range).checked_add_signed(-differences).expect("a count is not negative")
    }

    /// Notes that a key's life differs from what is published.
    pub fn differ(&mut self, key: Bytes, difference: i8) {
        let entry = self.unpublished.entry(key);
        match entry {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(difference);
            }
            std::collections::btree_map::Entry::Occupied(mut occupied) => {
                *occupied.get_mut() += difference;
                if *occupied.get() == 0 {
                    occupied.remove();
                }
            }
        }
    }

    /// Reads one slice of `range` at `revision`: at most `keys_max` living keys, at most 64 entries looked at.
    pub fn slice(
        &self,
        range: &KeyRange,
        revision: i64,
        keys_max: usize,
        keys_only: bool,
    ) -> Slice {
        let mut slice = Slice { found: Vec::new(), seen: 0, rest: None, view: None };
        let mut last: Option<&Entry> = None;
        let mut is_cut = false;
        self.tree.visit(range, &mut |entry| {
            if slice.seen == KEYS_PER_LOCK || slice.found.len() >= keys_max {
                is_cut = true;
                return false;
            }
            slice.seen += 1;
            last = Some(entry);
            if let Some(version) = entry.living_at(revision) {
                slice.found.push(self.found(entry, version, keys_only));
            }
            true
        });
        if is_cut {
            slice.rest = match last {
                Some(entry) => crate::compaction::rest_after(range, &entry.key),
                None => Some(range.clone()),
            };
        }
        if slice.found.iter().any(Found::is_on_disk) {
            slice.view = Some(self.store.view());
        }
        slice
    }

    /// How many keys of `range` live at `revision`, in one slice; and what of the range is left.
    pub fn count_slice(&self, range: &KeyRange, revision: i64) -> (u64, usize, Option<KeyRange>) {
        let (mut count, mut seen, mut is_cut) = (0, 0, false);
        let mut last: Option<&Entry> = None;
        self.tree.visit(range, &mut |entry| {
            if seen == KEYS_PER_LOCK {
                is_cut = true;
                return false;
            }
            seen += 1;
            last = Some(entry);
            count += u64::from(entry.living_at(revision).is_some());
            true
        });
        let rest = match last {
            Some(entry) if is_cut => crate::compaction::rest_after(range, &entry.key),
            _ => None,
        };
        (count, seen, rest)
    }

    /// A version as it is found in the index, its value where it is.
    pub fn found(&self, entry: &Entry, version: &Version, keys_only: bool) -> Found {
        let value = if keys_only {
            Value::Ready(key_value::encode(Fields {
                key: &entry.key,
                create_revision: version.create,
                mod_revision: version.main,
                version: version.version,
                ..Fields::default()
            }))
        } else {
            self.value(version)
        };
        Found { version: *version, key_len: entry.key.len(), value }
    }

    /// The `KeyValue` bytes of a put, if they are in memory.
    pub fn value(&self, version: &Version) -> Value {
        match self.values.get(version.slot, version.revision()) {
            Some(bytes) => Value::Ready(bytes.clone()),
            None => Value::OnDisk(version.location),
        }
    }
}

/// A value, or where it is.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Ready(Bytes),
    OnDisk(Location),
}

/// A key found by a slice.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    version: Version,
    key_len: usize,
    value: Value,
}

impl Found {
    pub fn is_on_disk(&self) -> bool {
        matches!(self.value, Value::OnDisk(_))
    }

    /// Reads the value, if it is not there yet. Not under the lock.
    pub fn into_item(self, view: Option<&View>, effort: Effort) -> Result<Item, ReadError> {
        let bytes = match self.value {
            Value::Ready(bytes) => bytes,
            Value::OnDisk(location) => {
                let view = view.expect("a slice that found values on disk took a view");
                read_value(view, &location, effort)?
            }
        };
        let Version { create, version, lease, .. } = self.version;
        let revision = self.version.revision();
        let start = key_value::key_offset(self.key_len);
        let end = start + self.key_len;
        if bytes.len() < end {
            // The CRC was right, so this is what was written; but it is none of ours.
            return Err(ReadError::Store(StoreError::Io(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                format!("the record of revision {}.{} is too short", revision.main, revision.sub),
            ))));
        }
        Ok(Item { key: bytes.slice(start..end), revision, create, version, lease, bytes })
    }
}

/// Reads a value with as much effort as is allowed.
pub(crate) fn read_value(
    view: &View,
    location: &Location,
    effort: Effort,
) -> Result<Bytes, ReadError> {
    match effort {
        Effort::Disk => view.read(location).map_err(ReadError::Store),
        Effort::Try | Effort::Now => {
            view.read_now(location).map_err(ReadError::Store)?.ok_or(ReadError::Cold)
        }
    }
}

/// What a slice found.
pub(crate) struct Slice {
    pub found: Vec<Found>,
    /// Entries looked at.
    pub seen: usize,
    /// What of the range is left; `None` at its end.
    pub rest: Option<KeyRange>,
    /// Where to read what is on disk.
    pub view: Option<View>,
}

/// The newest events, within a budget, so that a watcher that lags a little need not search the index.
#[derive(Debug)]
pub(crate) struct Recent {
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    bytes_max: usize,
    /// Every event at or above this main revision is here.
    first: i64,
}

impl Recent {
    /// Nothing is kept; events are complete from `first` on.
    pub fn new(bytes_max: usize, first: i64) -> Recent {
        Recent { batches: VecDeque::new(), bytes: 0, bytes_max, first }
    }

    pub fn push(&mut self, batch: Arc<Batch>) {
        self.bytes += batch_bytes(&batch);
        self.batches.push_back(batch);
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.batches.pop_front()
        {
            self.bytes -= batch_bytes(&oldest);
            self.first = oldest.last + 1;
        }
    }

    /// The batches from main revision `from` on, some of them; `None` if not all of those are here.
    pub fn from(&self, from: i64) -> Option<Vec<Arc<Batch>>> {
        if from < self.first {
            return None;
        }
        let start = self.batches.partition_point(|batch| batch.last < from);
        Some(self.batches.iter().skip(start).take(BATCHES_PER_LOCK).cloned().collect())
    }
}

fn batch_bytes(batch: &Batch) -> usize {
    let previous = |event: &crate::Event| {
        event.previous.as_ref().and_then(|previous| previous.bytes.as_ref()).map_or(0, Bytes::len)
    };
    batch.events.iter().map(|event| EVENT_BYTES + event.kv.len() + previous(event)).sum::<usize>()
        + EVENT_BYTES
}
