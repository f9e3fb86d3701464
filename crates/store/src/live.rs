//! What lives: counts per segment, and which record of each row of the small tables is the one that counts.
//!
//! Liveness of the keyspace is decided by those who know the compaction mark and the pins; they report deaths.
//! Rows have one living record each, the latest, and are kept here.

use std::collections::BTreeMap;

use bytes::Bytes;
use mutant::Mutant;

use crate::record::{Kind, Location, Meta, Stamp};

/// How much of a segment lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Records with a payload that were written into it, and the payloads' bytes.
    pub records: u64,
    pub bytes: u64,
    /// Those of them that live.
    pub live_records: u64,
    pub live_bytes: u64,
}

impl Usage {
    pub fn add(&mut self, len: u32) {
        self.records += 1;
        self.bytes += u64::from(len);
        self.live_records += 1;
        self.live_bytes += u64::from(len);
    }

    /// Deaths are counted by those who decide them; a count too many must not wrap.
    pub fn die(&mut self, records: u64, bytes: u64) {
        debug_assert!(records <= self.live_records, "{records} deaths of {}", self.live_records);
        self.live_records = self.live_records.saturating_sub(records);
        self.live_bytes = self.live_bytes.saturating_sub(bytes);
    }

    /// Bytes that live of a file of `file_bytes`: payloads, and their share of all that is not payload.
    pub fn live(&self, file_bytes: u64) -> u64 {
        if self.records == 0 {
            return 0;
        }
        let around = file_bytes.saturating_sub(self.bytes);
        let share = u128::from(around) * u128::from(self.live_records) / u128::from(self.records);
        self.live_bytes + share as u64
    }
}

/// Which record of each row counts, and how many older ones are still on disk.
#[derive(Debug, Default)]
pub(crate) struct Rows(BTreeMap<(u8, Bytes), RowState>);

#[derive(Debug)]
struct RowState {
    stamp: Stamp,
    deleted: bool,
    location: Location,
    /// Older Row records on disk. While there are any, a deletion must stay: it guards them.
    older: u32,
}

impl Rows {
    /// Takes a record of a row, in any order. Returns the record that thereby died.
    pub fn observe(&mut self, meta: &Meta, key: &[u8], location: Location) -> Option<Location> {
        let (table, stamp, deleted) = row_of(meta)?;
        let state = RowState { stamp, deleted, location, older: 0 };
        match self.0.get_mut(&(table, Bytes::copy_from_slice(key))) {
            None => {
                self.0.insert((table, Bytes::copy_from_slice(key)), state);
                None
            }
            Some(present) if present.stamp < stamp => {
                let older = present.older + u32::from(!present.deleted);
                let died = std::mem::replace(present, RowState { older, ..state });
                Some(died.location)
            }
            Some(present) => {
                present.older += u32::from(!deleted);
                Some(location)
            }
        }
    }

    /// Whether this record is the one that counts.
    pub fn is_live(&self, meta: &Meta, key: &Bytes) -> bool {
        row_of(meta).is_some_and(|(table, stamp, _)| {
            self.0.get(&(table, key.clone())).is_some_and(|state| state.stamp == stamp)
        })
    }

    /// The record was copied. False: it does not count any more.
    pub fn relocate(&mut self, meta: &Meta, key: &Bytes, to: Location) -> bool {
        row_of(meta).is_some_and(|(table, stamp, _)| match self.0.get_mut(&(table, key.clone())) {
            Some(state) if state.stamp == stamp => {
                state.location = to;
                true
            }
            Some(_) | None => false,
        })
    }

    /// An older record is on disk no more. Returns the deletion that thereby has nothing left to guard.
    pub fn gone(&mut self, meta: &Meta, key: &Bytes) -> Option<Location> {
        let (table, stamp, deleted) = row_of(meta)?;
        let id = (table, key.clone());
        let state = self.0.get_mut(&id)?;
        if !deleted && stamp < state.stamp {
            state.older = state.older.saturating_sub(1);
        }
        self.settle(&id)
    }

    /// Forgets the row if it is deleted and guards nothing.
    pub fn settle(&mut self, id: &(u8, Bytes)) -> Option<Location> {
        let state = self.0.get(id)?;
        let guards = state.older > 0 && !mutant::is(Mutant::RowRises);
        if !state.deleted || guards {
            return None;
        }
        self.0.remove(id).map(|state| state.location)
    }

    /// Forgets all such rows, when all records have been seen.
    pub fn settle_all(&mut self) -> Vec<Location> {
        let careless = mutant::is(Mutant::RowRises);
        let done = |state: &RowState| state.deleted && (state.older == 0 || careless);
        let locations = self.0.values().filter(|s| done(s)).map(|s| s.location).collect();
        self.0.retain(|_, state| !done(state));
        locations
    }

    /// The rows that are not deleted, by table and key.
    pub fn living(&self) -> impl Iterator<Item = (u8, &Bytes, Location)> {
        self.0
            .iter()
            .filter(|(_, state)| !state.deleted)
            .map(|((table, key), state)| (*table, key, state.location))
    }
}

/// Table, stamp, and whether it is a deletion; `None` if the record is not a row's.
fn row_of(meta: &Meta) -> Option<(u8, Stamp, bool)> {
    match meta.kind {
        Kind::Row { table, stamp, .. } => Some((table, stamp, false)),
        Kind::RowDelete { table, stamp } => Some((table, stamp, true)),
        Kind::Put { .. } | Kind::Tombstone { .. } | Kind::Compact { .. } => None,
    }
}
