//! Watchers of one shard: who is told what.

use std::hash::Hash;

use crate::{Batch, Event, History, KeyRange};

/// Which events a watcher does not want.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// No puts.
    pub no_put: bool,
    /// No deletes.
    pub no_delete: bool,
}

/// How far a watcher is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatcherState {
    /// It has been told everything that the shard has seen; batches go to it at once.
    Synced,
    /// It must be told from main revision `next` on, out of history.
    Lagging {
        /// The first main revision it was not told of.
        next: i64,
    },
}

/// A watcher that has to catch up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lagging<Id> {
    /// Who.
    pub id: Id,
    /// What it watches.
    pub range: KeyRange,
    /// The first main revision it was not told of.
    pub next: i64,
}

/// The watchers of one shard.
///
/// ```text
///   begin(revision)            the shard's flag was raised, and then this revision read
///   insert, remove             watchers come (lagging) and go
///   on_batch(&Batch)           → events for the synced ones
///   on_gap()                   batches were lost: all lag
///   lagging() → history → caught_up(id, &History)   → events; synced when it has all the shard has seen
///   compacted(mark)            → those that cannot catch up any more
/// ```
#[derive(Debug)]
pub struct WatcherSet<Id> {
    _private: std::marker::PhantomData<Id>,
}

impl<Id: Clone + Eq + Hash> WatcherSet<Id> {
    /// No watchers; `revision` is the current one.
    pub fn new(_revision: i64) -> WatcherSet<Id> {
        unimplemented!("mvcc is being built")
    }

    /// Batches may have been missed up to `revision`, the current one, but will come from there on: the shard has
    /// raised its flag, then read the revision.
    pub fn begin(&mut self, _revision: i64) {
        unimplemented!("mvcc is being built")
    }

    /// Adds a watcher that wants the changes of `range` from main revision `from` on (0: after what the shard has
    /// seen; above the current one: it waits). It starts lagging. False if there is one with that id.
    pub fn insert(&mut self, _id: Id, _range: KeyRange, _from: i64, _filter: Filter) -> bool {
        unimplemented!("mvcc is being built")
    }

    /// Removes a watcher; false if there is none.
    pub fn remove(&mut self, _id: &Id) -> bool {
        unimplemented!("mvcc is being built")
    }

    /// Tells the synced watchers what a batch means to them: `deliver` is called at most once for each, with its
    /// events in order, never with none.
    pub fn on_batch(&mut self, _batch: &Batch, _deliver: &mut dyn FnMut(&Id, &[&Event])) {
        unimplemented!("mvcc is being built")
    }

    /// Batches were lost: every watcher goes on from history.
    pub fn on_gap(&mut self) {
        unimplemented!("mvcc is being built")
    }

    /// This watcher takes nothing more for now (its connection is full): it goes on from history when asked for.
    pub fn lag(&mut self, _id: &Id) {
        unimplemented!("mvcc is being built")
    }

    /// The lagging watchers, those first that have waited longest.
    pub fn lagging(&self) -> impl Iterator<Item = Lagging<Id>> {
        std::iter::empty()
    }

    /// A stretch of history that was read for a watcher, from its `next` on. Returns its events after filters and
    /// its state; empty if it is gone or needs none of it.
    pub fn caught_up<'h>(&mut self, _id: &Id, _history: &'h History) -> Vec<&'h Event> {
        unimplemented!("mvcc is being built")
    }

    /// Removes and returns the lagging watchers that need revisions below the compaction mark.
    pub fn compacted(&mut self, _mark: i64) -> Vec<Id> {
        unimplemented!("mvcc is being built")
    }

    /// How far a watcher is.
    pub fn state(&self, _id: &Id) -> Option<WatcherState> {
        unimplemented!("mvcc is being built")
    }

    /// The revision up to which this watcher has been told everything, for a progress notice: only if it is synced
    /// and its start revision has come.
    pub fn progress(&self, _id: &Id) -> Option<i64> {
        unimplemented!("mvcc is being built")
    }

    /// How many watchers there are.
    pub fn len(&self) -> usize {
        unimplemented!("mvcc is being built")
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
