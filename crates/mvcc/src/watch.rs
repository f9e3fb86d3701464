//! Watchers of one shard: who is told what.
//!
//! A watcher is a range and a cursor:
//!
//! ```text
//!              insert                     caught_up, when it has what the shard has seen
//!   ───────────────────▶ Lagging{next} ──────────────────────────────────────────────▶ Synced
//!                            ▲                                                            │
//!                            └──────────── on_gap, lag, a batch with a gap ───────────────┘
//!                         compacted(mark > next): removed
//! ```
//!
//! The set knows the revision up to which it has seen batches. A synced watcher has been told everything up to
//! there, and gets the next batch at once; a lagging one reads history from its cursor. History may run ahead of the
//! batches that are on their way to the shard; so every watcher keeps the first revision that it was not told of,
//! and drops what lies below. A watcher that starts in the future is one whose cursor lies far ahead.
//!
//! Batches and stretches of history hold whole revisions, so whatever is delivered does.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::event::EventKind;
use crate::{Batch, Event, History, KeyRange};

/// Which events a watcher does not want.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// No puts.
    pub no_put: bool,
    /// No deletes.
    pub no_delete: bool,
}

impl Filter {
    fn passes(self, event: &Event) -> bool {
        match event.kind {
            EventKind::Put => !self.no_put,
            EventKind::Delete => !self.no_delete,
        }
    }
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

/// One watcher.
#[derive(Debug)]
struct Watcher<Id> {
    id: Id,
    range: KeyRange,
    filter: Filter,
    /// No event below this main revision is wanted any more. While synced it may lie below what was told, for a
    /// batch does not touch the watchers it has no events for.
    next: i64,
    /// Its place in the queue while it lags.
    ticket: Option<u64>,
}

impl<Id> Watcher<Id> {
    fn is_synced(&self) -> bool {
        self.ticket.is_none()
    }
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
    /// Every batch up to this main revision has been here, or is known to be missing.
    seen: i64,
    names: BTreeMap<Id, u32>,
    slots: Vec<Option<Watcher<Id>>>,
    free: Vec<u32>,
    /// Watchers of one key, by key.
    of_key: BTreeMap<Bytes, Vec<u32>>,
    of_range: Intervals,
    /// Lagging watchers by ticket, those first that wait longest.
    queue: BTreeMap<u64, u32>,
    /// Tickets given out.
    tickets: u64,
}

impl<Id: Clone + Ord> WatcherSet<Id> {
    /// No watchers; `revision` is the current one.
    pub fn new(revision: i64) -> WatcherSet<Id> {
        WatcherSet {
            seen: revision,
            names: BTreeMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            of_key: BTreeMap::new(),
            of_range: Intervals::default(),
            queue: BTreeMap::new(),
            tickets: 0,
        }
    }

    /// Batches may have been missed up to `revision`, the current one, but will come from there on: the shard has
    /// raised its flag, then read the revision.
    pub fn begin(&mut self, revision: i64) {
        if revision > self.seen {
            self.on_gap();
            self.seen = revision;
        }
    }

    /// Adds a watcher that wants the changes of `range` from main revision `from` on (0: after what the shard has
    /// seen; above the current one: it waits). It starts lagging. False if there is one with that id.
    pub fn insert(&mut self, id: Id, range: KeyRange, from: i64, filter: Filter) -> bool {
        if self.names.contains_key(&id) {
            return false;
        }
        let next = if from == 0 { self.seen + 1 } else { from };
        let watcher = Watcher { id: id.clone(), range: range.clone(), filter, next, ticket: None };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(watcher);
                slot
            }
            None => {
                self.slots.push(Some(watcher));
                u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 watchers")
            }
        };
        match range {
            KeyRange::One(key) => self.of_key.entry(key).or_default().push(slot),
            KeyRange::From(start) => self.of_range.insert(start, None, slot),
            KeyRange::Between(start, end) => self.of_range.insert(start, Some(end), slot),
        }
        self.names.insert(id, slot);
        self.enqueue(slot);
        true
    }

    /// Removes a watcher; false if there is none.
    pub fn remove(&mut self, id: &Id) -> bool {
        let Some(slot) = self.names.remove(id) else { return false };
        let watcher = self.slots[slot as usize].take().expect("a name leads to a watcher");
        match &watcher.range {
            KeyRange::One(key) => {
                let slots = self.of_key.get_mut(key).expect("it was entered there");
                slots.retain(|other| *other != slot);
                if slots.is_empty() {
                    self.of_key.remove(key);
                }
            }
            range => self.of_range.remove(range.start(), slot),
        }
        if let Some(ticket) = watcher.ticket {
            self.queue.remove(&ticket);
        }
        self.free.push(slot);
        true
    }

    /// Tells the synced watchers what a batch means to them: `deliver` is called at most once for each, with its
    /// events in order, never with none.
    pub fn on_batch(&mut self, batch: &Batch, deliver: &mut dyn FnMut(&Id, &[&Event])) {
        if batch.is_gap || batch.first > self.seen + 1 {
            self.on_gap();
        }
        let mut hits: Vec<(u32, u32)> = Vec::new();
        let mut slots: Vec<u32> = Vec::new();
        let seen = self.seen;
        for (number, event) in (0..).zip(&batch.events) {
            if event.revision.main <= seen {
                continue;
            }
            slots.extend(self.of_key.get(&event.key).into_iter().flatten());
            self.of_range.stab(&event.key, &mut slots);
            for slot in slots.drain(..) {
                let watcher = self.watcher(slot);
                if watcher.is_synced()
                    && event.revision.main >= watcher.next
                    && watcher.filter.passes(event)
                {
                    hits.push((slot, number));
                }
            }
        }
        self.seen = self.seen.max(batch.last);
        hits.sort_unstable();
        let mut events: Vec<&Event> = Vec::new();
        for hits in hits.chunk_by(|a, b| a.0 == b.0) {
            events.clear();
            events.extend(hits.iter().map(|(_, number)| &batch.events[*number as usize]));
            deliver(&self.watcher(hits[0].0).id, &events);
        }
    }

    /// Batches were lost: every watcher goes on from history.
    pub fn on_gap(&mut self) {
        for slot in 0..self.slots.len() {
            self.fall_behind(u32::try_from(slot).expect("slots are numbered so"));
        }
    }

    /// This watcher takes nothing more for now (its connection is full): it goes on from history when asked for.
    /// Call it between batches.
    pub fn lag(&mut self, id: &Id) {
        if let Some(slot) = self.names.get(id) {
            self.fall_behind(*slot);
        }
    }

    fn fall_behind(&mut self, slot: u32) {
        let seen = self.seen;
        if let Some(watcher) = &mut self.slots[slot as usize]
            && watcher.is_synced()
        {
            watcher.next = watcher.next.max(seen + 1);
            self.enqueue(slot);
        }
    }

    /// Puts a watcher that lags at the end of the queue.
    fn enqueue(&mut self, slot: u32) {
        self.tickets += 1;
        let watcher = self.slots[slot as usize].as_mut().expect("only watchers lag");
        watcher.ticket = Some(self.tickets);
        self.queue.insert(self.tickets, slot);
    }

    /// The lagging watchers, those first that have waited longest.
    pub fn lagging(&self) -> impl Iterator<Item = Lagging<Id>> {
        self.queue.values().map(|slot| {
            let watcher = self.watcher(*slot);
            let Watcher { id, range, next, .. } = watcher;
            Lagging { id: id.clone(), range: range.clone(), next: *next }
        })
    }

    /// How many are lagging.
    pub fn lagging_len(&self) -> usize {
        self.queue.len()
    }

    /// A stretch of history that was read for a watcher, from its `next` on. Returns its events after filters, and
    /// moves its cursor; nothing if it is gone or not lagging. If it lags still, it goes to the end of the queue.
    pub fn caught_up<'h>(&mut self, id: &Id, history: &'h History) -> Vec<&'h Event> {
        let Some(&slot) = self.names.get(id) else { return Vec::new() };
        let watcher = self.slots[slot as usize].as_mut().expect("a name leads to a watcher");
        let Some(ticket) = watcher.ticket.take() else { return Vec::new() };
        let events: Vec<&Event> = history
            .events
            .iter()
            .filter(|event| event.revision.main >= watcher.next && watcher.filter.passes(event))
            .collect();
        watcher.next = watcher.next.max(history.next);
        let is_synced = watcher.next > self.seen;
        self.queue.remove(&ticket);
        if !is_synced {
            self.enqueue(slot);
        }
        events
    }

    /// Removes and returns the lagging watchers that need revisions below the compaction mark.
    pub fn compacted(&mut self, mark: i64) -> Vec<Id> {
        let ids: Vec<Id> = self
            .lagging()
            .filter(|lagging| lagging.next < mark)
            .map(|lagging| lagging.id)
            .collect();
        for id in &ids {
            self.remove(id);
        }
        ids
    }

    /// How far a watcher is.
    pub fn state(&self, id: &Id) -> Option<WatcherState> {
        let watcher = self.watcher(*self.names.get(id)?);
        Some(match watcher.is_synced() {
            true => WatcherState::Synced,
            false => WatcherState::Lagging { next: watcher.next },
        })
    }

    /// The revision up to which this watcher has been told everything, for a progress notice: only if it is synced
    /// and its start revision has come.
    pub fn progress(&self, id: &Id) -> Option<i64> {
        let watcher = self.watcher(*self.names.get(id)?);
        (watcher.is_synced() && watcher.next <= self.seen + 1).then_some(self.seen)
    }

    /// The revision up to which batches have been seen.
    pub fn seen(&self) -> i64 {
        self.seen
    }

    /// How many watchers there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn watcher(&self, slot: u32) -> &Watcher<Id> {
        self.slots[slot as usize].as_ref().expect("queue, names and ranges lead to watchers only")
    }
}

/// Ranges by what they contain: a treap ordered by start, each node knowing the highest end below it.
///
/// ```text
///              [c, m)  highest: none (open)
///             ╱      ╲
///      [a, d)          [e, …)  highest: none (open)
///      highest: d
/// ```
///
/// Asking for a key visits only subtrees that begin at or before it and reach beyond it. Priorities come from a
/// counter through a mixing function: as good as random, and the same in every run.
#[derive(Debug, Default)]
struct Intervals {
    root: Option<Box<Interval>>,
    made: u64,
}

#[derive(Debug)]
struct Interval {
    start: Bytes,
    /// `None` is beyond all keys.
    end: Option<Bytes>,
    slot: u32,
    priority: u64,
    /// The highest end of this subtree.
    highest: Option<Bytes>,
    left: Option<Box<Interval>>,
    right: Option<Box<Interval>>,
}

impl Intervals {
    fn insert(&mut self, start: Bytes, end: Option<Bytes>, slot: u32) {
        self.made += 1;
        // The finalizer of splitmix64.
        let mut priority = self.made.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        priority = (priority ^ (priority >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        priority ^= priority >> 27;
        let highest = end.clone();
        let new = Interval { start, end, slot, priority, highest, left: None, right: None };
        let (below, above) = split(self.root.take(), &new.start, new.slot);
        self.root = join(join(below, Some(Box::new(new))), above);
    }

    fn remove(&mut self, start: &Bytes, slot: u32) {
        let (below, rest) = split(self.root.take(), start, slot);
        let next = slot.checked_add(1).expect("slots are fewer than 2^32");
        let (_it, above) = split(rest, start, next);
        self.root = join(below, above);
    }

    /// Adds the slots of all ranges that contain `key`.
    fn stab(&self, key: &[u8], slots: &mut Vec<u32>) {
        // Expected depth is logarithmic; an explicit stack needs no recursion.
        let mut stack: Vec<&Interval> = self.root.as_deref().into_iter().collect();
        while let Some(node) = stack.pop() {
            if node.highest.as_ref().is_some_and(|highest| &highest[..] <= key) {
                continue;
            }
            stack.extend(node.left.as_deref());
            if &node.start[..] <= key {
                if node.end.as_ref().is_none_or(|end| key < &end[..]) {
                    slots.push(node.slot);
                }
                stack.extend(node.right.as_deref());
            }
        }
    }
}

impl Interval {
    fn refresh(&mut self) {
        let mut highest = self.end.clone();
        for child in [&self.left, &self.right].into_iter().flatten() {
            highest = match (highest, &child.highest) {
                (Some(a), Some(b)) => Some(if a < *b { b.clone() } else { a }),
                _ => None,
            };
        }
        self.highest = highest;
    }
}

type Subtree = Option<Box<Interval>>;

/// Those below (`start`, `slot`), and the others.
fn split(node: Subtree, start: &Bytes, slot: u32) -> (Subtree, Subtree) {
    let Some(mut node) = node else { return (None, None) };
    if (&node.start, node.slot) < (start, slot) {
        let (below, above) = split(node.right.take(), start, slot);
        node.right = below;
        node.refresh();
        (Some(node), above)
    } else {
        let (below, above) = split(node.left.take(), start, slot);
        node.left = above;
        node.refresh();
        (below, Some(node))
    }
}

/// Everything in `left` lies below everything in `right`.
fn join(left: Subtree, right: Subtree) -> Subtree {
    match (left, right) {
        (None, one) | (one, None) => one,
        (Some(mut left), Some(mut right)) => {
            if left.priority > right.priority {
                left.right = join(left.right.take(), Some(right));
                left.refresh();
                Some(left)
            } else {
                right.left = join(Some(left), right.left.take());
                right.refresh();
                Some(right)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_key_finds_the_ranges_that_contain_it(
            steps in proptest::collection::vec((any::<bool>(), 0u8..30, 0u8..33), 1..200)
        ) {
            let mut intervals = Intervals::default();
            let mut model: Vec<(u32, KeyRange)> = Vec::new();
            for (slot, (is_insert, start, end)) in (0..).zip(steps) {
                if is_insert || model.is_empty() {
                    let start = Bytes::from(vec![start]);
                    let end = (end < 31).then(|| Bytes::from(vec![end]));
                    intervals.insert(start.clone(), end.clone(), slot);
                    model.push((slot, match end {
                        Some(end) => KeyRange::Between(start, end),
                        None => KeyRange::From(start),
                    }));
                } else {
                    let (slot, range) = model.swap_remove(usize::from(start) % model.len());
                    intervals.remove(range.start(), slot);
                }
            }
            for key in 0..32u8 {
                let mut found = Vec::new();
                intervals.stab(&[key], &mut found);
                found.sort_unstable();
                let mut expected: Vec<u32> =
                    model.iter().filter(|(_, r)| r.contains(&[key])).map(|(slot, _)| *slot).collect();
                expected.sort_unstable();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
