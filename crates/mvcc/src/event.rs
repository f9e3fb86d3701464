//! Events: what watchers are told, batched by what became visible together, and read again out of the past.
//!
//! The newest batches are kept, so a watcher that lags a little is served from them. For older revisions the index
//! is walked, key by key, and the changes are put in order (see [`crate::past`]): one walk serves many portions.

use std::sync::Arc;

use bytes::Bytes;
use mutant::Mutant;
use store::Revision;

use crate::index::Version;
use crate::key_value::{self, Fields};
use crate::past::Change;
use crate::state::{Value, read_value};
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

impl Previous {
    /// A state that must be looked up.
    pub fn cold(revision: Revision) -> Previous {
        Previous { revision, bytes: None }
    }

    /// Whether [`crate::Reader::previous`] has it at hand.
    pub fn is_in_memory(&self) -> bool {
        self.bytes.is_some()
    }
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

/// How much of the past is read at once: whole main revisions, at least one, until there are so many events or bytes.
#[derive(Clone, Copy, Debug)]
pub struct Portion {
    /// Events; at least one counts.
    pub events_max: usize,
    /// Bytes of their `KeyValue`s.
    pub bytes_max: usize,
}

/// A portion that is being filled.
struct Filling {
    events: Vec<Event>,
    bytes: usize,
    portion: Portion,
}

impl Filling {
    fn new(portion: Portion) -> Filling {
        Filling { events: Vec::new(), bytes: 0, portion }
    }

    fn push(&mut self, event: Event) {
        self.bytes += event.kv.len();
        self.events.push(event);
    }

    /// Whether no event of another main revision is wanted.
    fn is_full(&self) -> bool {
        let Portion { events_max, bytes_max } = self.portion;
        !self.events.is_empty() && (self.events.len() >= events_max || self.bytes >= bytes_max)
    }
}

impl Reader {
    /// The changes of `range` from main revision `from` on, up to and including the current one, or as many as are a
    /// `portion`. Go on from [`History::next`] until that lies above the current revision. If `from` does already,
    /// there is nothing to tell, and `next` is `from`.
    ///
    /// # Errors
    /// [`ReadError::Compacted`] if `from` lies below the mark; [`ReadError::Cold`] on a shard if the recent events do
    /// not reach back so far; the store's.
    pub fn history(
        &self,
        range: &KeyRange,
        from: i64,
        portion: Portion,
        effort: Effort,
    ) -> Result<History, ReadError> {
        let (pin, from, to) = {
            let state = self.shared.read_with(effort)?;
            if from < state.mark && !mutant::is(Mutant::CompactionHidden) {
                return Err(ReadError::Compacted);
            }
            // No change has a revision below 2.
            let from = from.max(2);
            if from > state.published {
                return Ok(History { events: Vec::new(), next: from });
            }
            if let Some(batches) = state.recent.from(from) {
                drop(state);
                return Ok(filter_batches(&batches, range, from, portion));
            }
            if effort != Effort::Disk {
                return Err(ReadError::Cold);
            }
            // All above a pin stays; of what lies at it, only the newest of each key does.
            (self.shared.pins.pin(state.mark.max(from - 1)), from, state.published)
        };
        let past = self.past(range, from, to, &pin)?;
        let mut filling = Filling::new(portion);
        let mut last = from - 1;
        for change in past.from(from) {
            if change.revision.main > last && filling.is_full() {
                return Ok(History { events: filling.events, next: change.revision.main });
            }
            last = change.revision.main;
            pin.touch();
            match self.event(change, &pin)? {
                Some(event) => filling.push(event),
                // Another walk found it before its revision was compacted.
                None if change.revision.main == pin.revision() => {}
                // The keyspace was exchanged since the walk.
                None => {
                    self.shared.pasts.clear();
                    return Err(ReadError::Revoked);
                }
            }
        }
        Ok(History { events: filling.events, next: past.last() + 1 })
    }

    /// Makes the event of a change, with its value from wherever it is. `None` if the index knows it no more.
    fn event(&self, change: &Change, pin: &Pin) -> Result<Option<Event>, ReadError> {
        let (version, previous, value, view) = {
            let state = self.shared.read();
            if pin.is_revoked() {
                return Err(ReadError::Revoked);
            }
            let Some(entry) = state.tree.get(&change.key) else { return Ok(None) };
            let Some(version) = entry.exactly(change.revision) else { return Ok(None) };
            let previous = entry.living_at(version.main - 1).map(Version::revision);
            (*version, previous, state.value(version), state.store.view())
        };
        let previous = previous.map(Previous::cold);
        let (kind, kv) = match value {
            _ if version.is_tombstone() => {
                let fields =
                    Fields { key: &change.key, mod_revision: version.main, ..Fields::default() };
                (EventKind::Delete, key_value::encode(fields))
            }
            Value::Ready(bytes) => (EventKind::Put, bytes),
            Value::OnDisk(location) => {
                (EventKind::Put, read_value(&view, &location, Effort::Disk)?)
            }
        };
        Ok(Some(Event {
            kind,
            revision: version.revision(),
            key: key_value::key(&kv),
            kv,
            is_create: version.version == 1,
            previous,
        }))
    }
}

/// What recent batches say of a range. They follow each other without gap, and there is at least one.
fn filter_batches(
    batches: &[Arc<Batch>],
    range: &KeyRange,
    from: i64,
    portion: Portion,
) -> History {
    let mut filling = Filling::new(portion);
    let mut next = from;
    for batch in batches {
        let start = batch.events.partition_point(|event| event.revision.main < from);
        for event in &batch.events[start..] {
            if event.revision.main >= next && filling.is_full() {
                return History { events: filling.events, next };
            }
            next = event.revision.main + 1;
            if range.contains(&event.key) {
                filling.push(event.clone());
            }
        }
        next = batch.last + 1;
        if filling.is_full() {
            break;
        }
    }
    History { events: filling.events, next }
}
