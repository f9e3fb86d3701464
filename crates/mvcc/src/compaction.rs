//! Compaction: moving the mark, and clearing away later what it left behind.
//!
//! At a mark C, of each key's revisions at or below C one is kept: the newest, if it is a put, or a tombstone at C
//! itself (a watcher that starts at C is told of it). Everything above C stays.
//!
//! ```text
//!   key a   put 2   put 5            put 9        compact 7 →  put 5, put 9
//!   key b   put 3         delete 6                compact 7 →  nothing
//!   key c   put 4              delete 7           compact 7 →  delete 7; nothing once the mark has moved on
//! ```
//!
//! The mark moves at once; records are pruned later, slice by slice, up to the *floor*: the mark or the lowest pin,
//! whichever is lower. A pruned put may lie on disk for long. Were its key's tombstone dropped before it, the put
//! would be the newest record of the key at the next start. So each entry counts its pruned puts that are still on
//! disk, and while there are any, the newest tombstone at or below the floor stays, although nobody can see it.

use std::fmt;

use bytes::Bytes;
use mutant::Mutant;
use store::{Builder, Gone, Relocation};

use crate::index::{Aside, Entry, Fate};
use crate::range::successor;
use crate::values::Values;
use crate::write::{CHANGES_PER_LOCK, Keyspace};
use crate::{DueHash, KeyRange};

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

/// How far pruning is.
#[derive(Debug, Default)]
pub(crate) struct Pruning {
    /// Every entry has been pruned to this floor. Below zero: never.
    done: i64,
    /// The pass under way: its floor, and the key it goes on from.
    pass: Option<(i64, Bytes)>,
}

impl Pruning {
    /// Everything is pruned to `floor`.
    pub fn done_to(floor: i64) -> Pruning {
        Pruning { done: floor, pass: None }
    }
}

impl Keyspace {
    /// Moves the compaction mark to `revision`, which stays readable. Visible to readers with the next
    /// [`Keyspace::publish`]. Zero is accepted once, before any other. The hash that is due may be computed once the
    /// compaction is published; until then, or until it is dropped, nothing above the old mark is pruned.
    ///
    /// # Errors
    /// The revision lies not between mark and current revision.
    pub fn compact(&mut self, revision: i64) -> Result<DueHash, CompactError> {
        let writer = &mut self.writer;
        if revision <= writer.mark {
            return Err(CompactError::Compacted);
        }
        if revision > writer.current {
            return Err(CompactError::Future);
        }
        let pin = self.shared.pins.pin(writer.mark);
        writer.mark = revision;
        writer.builder.compact(revision);
        Ok(DueHash { pin, revision })
    }

    /// At start: the mark had been moved to zero, which removes nothing, and which the store's own mark cannot
    /// tell from none. Nothing is recorded, and nothing changes where there is a mark. Visible with the next
    /// [`Keyspace::publish`].
    pub fn restore_zero_mark(&mut self) {
        self.writer.mark = self.writer.mark.max(0);
    }

    /// Clears away a slice of what lies below the mark and below all pins: at most `keys_max` keys are looked at,
    /// at most 256 under one lock hold. Returns whether there is more to do now. Call it between entries.
    ///
    /// A mark counts here only once its frame is written. Reclaim drops from the disk what is not in the index, and must
    /// not do so on account of a compaction that a crash could still take back.
    pub fn prune(&mut self, keys_max: usize) -> bool {
        let mut left = keys_max;
        while left > 0 {
            let slice = left.min(CHANGES_PER_LOCK);
            left -= slice;
            if !self.prune_slice(slice) {
                return false;
            }
        }
        true
    }

    fn prune_slice(&mut self, keys_max: usize) -> bool {
        let mut state = self.shared.write();
        let floor = state.floor(&self.shared.pins).min(self.writer.written_mark);
        let floor = floor + i64::from(mutant::is(Mutant::CompactionOffByOne));
        let pruning = &mut self.writer.pruning;
        if pruning.pass.is_none() && floor > pruning.done {
            pruning.pass = Some((floor, Bytes::new()));
        }
        let Some((floor, from)) = pruning.pass.take() else { return false };

        let mut seen = 0;
        let mut due: Vec<Box<[u8]>> = Vec::new();
        let mut next: Option<Bytes> = None;
        state.tree.visit(&KeyRange::From(from), &mut |entry| {
            if seen == keys_max {
                next = Some(Bytes::copy_from_slice(&entry.key));
                return false;
            }
            seen += 1;
            if is_prunable(entry, floor) {
                due.push(entry.key.clone());
            }
            true
        });
        let state = &mut *state;
        for key in due {
            let (builder, values) = (&mut self.writer.builder, &mut state.values);
            state.tree.change(&key, |entry| (prune_entry(entry, floor, values, builder), ()));
        }
        match next {
            Some(next) => {
                pruning.pass = Some((floor, next));
                true
            }
            None => {
                pruning.done = floor;
                state.floor(&self.shared.pins).min(self.writer.written_mark) > floor
            }
        }
    }

    /// Takes over new places from reclaim ([`store::Reclaimed::Relocate`]); reports those dead that live no more. Call it
    /// between entries.
    pub fn relocate(&mut self, batch: &[Relocation]) {
        let builder = &mut self.writer.builder;
        for slice in batch.chunks(CHANGES_PER_LOCK) {
            let mut state = self.shared.write();
            for moved in slice {
                let found = state.tree.change(&moved.key, |entry| {
                    let version = entry.exactly_mut(moved.revision);
                    let found = version.map(|version| version.location = moved.to).is_some();
                    (Fate::Keep, found)
                });
                if found != Some(true) {
                    builder.dead(&moved.to);
                }
            }
        }
    }

    /// Dead puts that are no longer on disk ([`store::Reclaimed::Gone`]): tombstones that guarded them may go.
    /// Call it between entries.
    pub fn gone(&mut self, gone: &[Gone]) {
        let builder = &mut self.writer.builder;
        for slice in gone.chunks(CHANGES_PER_LOCK) {
            let mut state = self.shared.write();
            let floor = state.floor(&self.shared.pins).min(self.writer.written_mark);
            let state = &mut *state;
            for gone in slice {
                let values = &mut state.values;
                state.tree.change(&gone.key, |entry| {
                    if let Some(aside) = &mut entry.aside {
                        aside.dead_puts = aside.dead_puts.saturating_sub(1);
                    }
                    (prune_entry(entry, floor, values, builder), ())
                });
            }
        }
    }
}

/// How many of an entry's revisions lie at or below `floor`, and whether the last of them goes as well.
fn split_at_floor(entry: &Entry, floor: i64) -> Option<(usize, bool)> {
    let older = entry.older();
    let below = if entry.newest.main <= floor {
        older.len() + 1
    } else {
        older.partition_point(|version| version.main <= floor)
    };
    let last =
        if below > older.len() { &entry.newest } else { older.get(below.checked_sub(1)?)? };
    Some((below, last.is_tombstone() && last.main < floor))
}

fn is_prunable(entry: &Entry, floor: i64) -> bool {
    split_at_floor(entry, floor)
        .is_some_and(|(below, is_past)| below > 1 || (is_past && entry.dead_puts() == 0))
}

/// Prunes an entry to `floor` and reports what died.
pub(crate) fn prune_entry(
    entry: &mut Entry,
    floor: i64,
    values: &mut Values,
    builder: &mut Builder,
) -> Fate {
    let Some((below, is_past)) = split_at_floor(entry, floor) else { return Fate::Keep };
    let mut die = |version: &crate::index::Version| {
        builder.dead(&version.location);
        values.remove(version.slot, version.revision());
    };
    if let Some(Aside { older, dead_puts }) = entry.aside.as_deref_mut() {
        for version in older.drain(..below - 1) {
            *dead_puts += u32::from(!version.is_tombstone());
            die(&version);
        }
        older.shrink_to(older.len() * 2);
        let guards = *dead_puts > 0 && !mutant::is(Mutant::TombstoneTooEarly);
        if is_past && !guards && !older.is_empty() {
            die(&older.remove(0));
        } else if is_past && !guards {
            die(&entry.newest);
            return Fate::Remove;
        }
        if older.is_empty() && *dead_puts == 0 {
            entry.aside = None;
        }
    } else if is_past {
        die(&entry.newest);
        return Fate::Remove;
    }
    Fate::Keep
}

/// What of `range` lies behind `key`.
pub(crate) fn rest_after(range: &KeyRange, key: &[u8]) -> Option<KeyRange> {
    let next = Bytes::from(successor(key));
    let rest = match range {
        KeyRange::One(_) => return None,
        KeyRange::From(_) => KeyRange::From(next),
        KeyRange::Between(_, end) => KeyRange::Between(next, end.clone()),
    };
    (!rest.is_empty()).then_some(rest)
}
