//! Events: what watchers are told, batched by what became visible together, and read again out of the past.
//!
//! The newest batches are kept, so a watcher that lags a little is served from them. For older revisions the index
//! is walked, key by key, and the changes are put in order; the walk gathers about twice what is wanted and drops
//! the latest again, so that its memory is bounded, however long the past.

use std::cell::OnceCell;
use std::sync::Arc;

use bytes::Bytes;
use store::Revision;

use crate::compaction::rest_after;
use crate::index::Version;
use crate::key_value::{self, Fields};
use crate::state::{KEYS_PER_LOCK, Value, read_value};
use crate::{Effort, KeyRange, Pin, ReadError, Reader};

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

/// Events that a walk through the index may gather before it throws the latest of them away again.
const GATHERED_MIN: usize = 1024;

impl Reader {
    /// The changes of `range` from main revision `from` on, up to and including the current one; about
    /// `events_max` of them, whole revisions. Go on from [`History::next`] until that lies above the current
    /// revision. If `from` does already, there is nothing to tell, and `next` is `from`.
    ///
    /// # Errors
    /// [`ReadError::Compacted`] if `from` lies below the mark; [`ReadError::Cold`] on a shard if the recent events do
    /// not reach back so far; the store's.
    pub fn history(
        &self,
        range: &KeyRange,
        from: i64,
        events_max: usize,
        effort: Effort,
    ) -> Result<History, ReadError> {
        let events_max = events_max.max(1);
        let (pin, from, to) = {
            let state = self.shared.read_with(effort)?;
            if from < state.mark {
                return Err(ReadError::Compacted);
            }
            // No change has a revision below 2.
            let from = from.max(2);
            if from > state.published {
                return Ok(History { events: Vec::new(), next: from });
            }
            if let Some(batches) = state.recent.from(from) {
                drop(state);
                return Ok(filter_batches(&batches, range, from, events_max));
            }
            if effort != Effort::Disk {
                return Err(ReadError::Cold);
            }
            // All above a pin stays; of what lies at it, only the newest of each key does.
            (self.shared.pins.pin(state.mark.max(from - 1)), from, state.published)
        };
        let (changes, next) = self.gather(range, from, to, events_max, &pin)?;
        let mut events = Vec::with_capacity(changes.len());
        for change in changes {
            pin.touch();
            events.push(self.event(change, &pin)?);
        }
        Ok(History { events, next })
    }

    /// Walks through the index for the lowest changes between `from` and `to`, and says from where to go on.
    fn gather(
        &self,
        range: &KeyRange,
        from: i64,
        to: i64,
        events_max: usize,
        pin: &Pin,
    ) -> Result<(Vec<Change>, i64), ReadError> {
        let mut changes: Vec<Change> = Vec::new();
        // The last main revision that is still wanted: lowered when enough was found below it.
        let mut last = to;
        let mut rest = (!range.is_empty()).then(|| range.clone());
        while let Some(range) = rest {
            let state = self.shared.read();
            if pin.is_revoked() {
                return Err(ReadError::Revoked);
            }
            pin.touch();
            let mut seen = 0;
            let mut end: Option<Bytes> = None;
            state.tree.visit(&range, &mut |entry| {
                seen += 1;
                let key = OnceCell::new();
                for version in entry.versions().filter(|v| v.main >= from && v.main <= last) {
                    changes.push(Change {
                        key: key.get_or_init(|| Bytes::copy_from_slice(&entry.key)).clone(),
                        revision: version.revision(),
                        is_tombstone: version.is_tombstone(),
                        is_create: version.version == 1,
                        previous: entry.living_at(version.main - 1).map(Version::revision),
                    });
                }
                if seen == KEYS_PER_LOCK {
                    end = Some(Bytes::copy_from_slice(&entry.key));
                }
                seen < KEYS_PER_LOCK
            });
            drop(state);
            rest = end.and_then(|end| rest_after(&range, &end));
            if changes.len() > (2 * events_max).max(GATHERED_MIN) {
                last = keep_lowest(&mut changes, events_max, last);
            }
        }
        last = keep_lowest(&mut changes, events_max, last);
        Ok((changes, last + 1))
    }

    /// Makes the event of a change, with its value from wherever it is.
    fn event(&self, change: Change, pin: &Pin) -> Result<Event, ReadError> {
        let Change { key, revision, is_tombstone, is_create, previous } = change;
        let previous = previous.map(|revision| Previous { revision, bytes: None });
        if is_tombstone {
            let kv = key_value::encode(Fields {
                key: &key,
                mod_revision: revision.main,
                ..Fields::default()
            });
            let key = key_value::key(&kv);
            return Ok(Event { kind: EventKind::Delete, revision, key, kv, is_create, previous });
        }
        let (value, view) = {
            let state = self.shared.read();
            if pin.is_revoked() {
                return Err(ReadError::Revoked);
            }
            let version = state.tree.get(&key).and_then(|entry| entry.exactly(revision));
            let value = state.value(version.expect("the pin protects what was gathered"));
            (value, state.store.view())
        };
        let kv = match value {
            Value::Ready(bytes) => bytes,
            Value::OnDisk(location) => read_value(&view, &location, Effort::Disk)?,
        };
        let key = key_value::key(&kv);
        Ok(Event { kind: EventKind::Put, revision, key, kv, is_create, previous })
    }
}

/// An event whose value has not been read yet.
struct Change {
    key: Bytes,
    revision: Revision,
    is_tombstone: bool,
    is_create: bool,
    previous: Option<Revision>,
}

/// Sorts, and drops what lies behind the revision with which `events_max` is reached. Returns the last main
/// revision that is complete.
fn keep_lowest(changes: &mut Vec<Change>, events_max: usize, last: i64) -> i64 {
    changes.sort_unstable_by_key(|change| change.revision);
    let Some(decisive) = changes.get(events_max - 1) else { return last };
    let last = last.min(decisive.revision.main);
    changes.truncate(changes.partition_point(|change| change.revision.main <= last));
    last
}

/// What recent batches say of a range. They follow each other without gap, and there is at least one.
fn filter_batches(
    batches: &[Arc<Batch>],
    range: &KeyRange,
    from: i64,
    events_max: usize,
) -> History {
    let mut history = History { events: Vec::new(), next: from };
    for batch in batches {
        let start = batch.events.partition_point(|event| event.revision.main < from);
        for event in &batch.events[start..] {
            if history.events.len() >= events_max && event.revision.main >= history.next {
                return history;
            }
            history.next = event.revision.main + 1;
            if range.contains(&event.key) {
                history.events.push(event.clone());
            }
        }
        history.next = batch.last + 1;
        if history.events.len() >= events_max {
            break;
        }
    }
    history
}
