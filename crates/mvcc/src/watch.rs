//! Watchers of one shard: who is told what.
//!
//! A watcher is a range and a cursor:
//!
//! ```text
//!                        insert, if it wants what the shard has not seen yet
//!                       ──────────────────────────────────────────────────────▶ Synced
//!   insert                     caught_up, when it has what the shard has seen     ▲ │
//!   ──────▶ Lagging{next} ────────────────────────────────────────────────────────┘ │
//!             │  ▲  ▲                                                               │
//!        take │  │  └──── a batch that it does not take, on_gap, a batch with a gap ┘
//!             ▼  │ requeue, caught_up
//!           Lagging, and its history on the way, or put off
//! ```
//!
//! The set knows the revision up to which it has seen batches. A synced watcher has been told everything up to
//! there, and gets the next batch at once; a lagging one reads history from its cursor. History may run ahead of the
//! batches that are on their way to the shard; so every watcher keeps the first revision that it was not told of,
//! and drops what lies below. A watcher that starts in the future is one whose cursor lies far ahead.
//!
//! Lagging watchers stand in a queue until they are taken out of it, each once: whoever takes one reads history for
//! it, now or when its client can take it, and nobody looks at it again before. So a batch costs what its events
//! cost, however many watchers lag.
//!
//! Batches and stretches of history hold whole revisions, so whatever is delivered does.

use std::collections::BTreeMap;

use bytes::Bytes;
use mutant::Mutant;

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
    /// The main revision that it asked to start at; 0 if it asked for what comes next.
    start: i64,
    /// No event below this main revision is wanted any more. While synced it may lie below what was told, for a
    /// batch does not touch the watchers it has no events for.
    next: i64,
    place: Place,
}

/// Where a watcher waits for what it is to be told.
#[derive(Debug)]
enum Place {
    /// For the next batch.
    Synced,
    /// It lags, in the queue, with this ticket.
    Queued(u64),
    /// It lags, and was taken out of the queue.
    Taken,
}

impl<Id: Clone> Watcher<Id> {
    fn is_synced(&self) -> bool {
        matches!(self.place, Place::Synced)
    }

    fn lagging(&self) -> Lagging<Id> {
        Lagging { id: self.id.clone(), range: self.range.clone(), next: self.next }
    }
}

/// The watchers of one shard.
///
/// ```text
///   begin(revision)            the shard's flag was raised, and then this revision read
///   insert, remove             watchers come and go
///   on_batch(&Batch)           → events for the synced ones; who does not take them lags
///   on_gap()                   batches were lost: all lag
///   take_next() → history → caught_up(id, &History)   → events; synced when it has all the shard has seen
///             or, later, requeue(id), take(id)
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
    /// Lagging watchers by ticket, those first that wait longest; without those that were taken.
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

    /// Adds a watcher that wants the changes of `range` from main revision `from` on (0: what comes after `revision`,
    /// the current one, which the shard may not have seen yet; above it: it waits). It lags if the shard has seen some
    /// of what it wants. False if there is one with that id.
    pub fn insert(
        &mut self,
        id: Id,
        range: KeyRange,
        from: i64,
        revision: i64,
        filter: Filter,
    ) -> bool {
        if self.names.contains_key(&id) {
            return false;
        }
        let next = if from == 0 { revision + 1 } else { from };
        let watcher = Watcher {
            id: id.clone(),
            range: range.clone(),
            filter,
            start: from,
            next,
            place: Place::Synced,
        };
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
        if next <= self.seen {
            self.enqueue(slot);
        }
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
        if let Place::Queued(ticket) = watcher.place {
            self.queue.remove(&ticket);
        }
        self.free.push(slot);
        true
    }

    /// Tells the synced watchers what a batch means to them: `deliver` is called at most once for each, with its
    /// events in order, never with none. It returns the first main revision that it does not take, if it does not
    /// take all: from there on the watcher lags.
    pub fn on_batch(
        &mut self,
        batch: &Batch,
        deliver: &mut dyn FnMut(&Id, &[&Event]) -> Option<i64>,
    ) {
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
                    && (event.revision.main >= watcher.next
                        || mutant::is(Mutant::FutureWatchHearsPast))
                    && watcher.filter.passes(event)
                {
                    hits.push((slot, number));
                    if mutant::is(Mutant::EventTwice) {
                        hits.push((slot, number));
                    }
                }
            }
        }
        self.seen = self.seen.max(batch.last);
        hits.sort_unstable();
        let mut events: Vec<&Event> = Vec::new();
        for hits in hits.chunk_by(|a, b| a.0 == b.0) {
            events.clear();
            events.extend(hits.iter().map(|(_, number)| &batch.events[*number as usize]));
            let slot = hits[0].0;
            if let Some(next) = deliver(&self.watcher(slot).id, &events) {
                let watcher = self.slots[slot as usize].as_mut().expect("it had hits");
                watcher.next = watcher.next.max(next);
                if watcher.next <= self.seen {
                    self.enqueue(slot);
                }
            }
        }
    }

    /// Batches were lost: every watcher goes on from history.
    pub fn on_gap(&mut self) {
        for slot in 0..self.slots.len() {
            self.fall_behind(u32::try_from(slot).expect("slots are numbered so"));
        }
    }

    fn fall_behind(&mut self, slot: u32) {
        let seen = self.seen;
        if let Some(watcher) = &mut self.slots[slot as usize]
            && watcher.is_synced()
        {
            let told = if mutant::is(Mutant::WatchGoesBack) { 0 } else { seen + 1 };
            watcher.next = watcher.next.max(told);
            self.enqueue(slot);
        }
    }

    /// Puts a watcher at the end of the queue. It stands not in it.
    fn enqueue(&mut self, slot: u32) {
        self.tickets += 1;
        let watcher = self.slots[slot as usize].as_mut().expect("only watchers lag");
        watcher.place = Place::Queued(self.tickets);
        self.queue.insert(self.tickets, slot);
    }

    /// Takes the watcher out of the queue that has waited longest.
    pub fn take_next(&mut self) -> Option<Lagging<Id>> {
        let (_, slot) = self.queue.pop_first()?;
        let watcher = self.slots[slot as usize].as_mut().expect("the queue leads to watchers");
        watcher.place = Place::Taken;
        Some(watcher.lagging())
    }

    /// The watcher that [`WatcherSet::take_next`] would take.
    pub fn first(&self) -> Option<&Id> {
        self.queue.first_key_value().map(|(_, slot)| &self.watcher(*slot).id)
    }

    /// Takes this watcher out of the queue, if it stands there. `None` if it does not lag, or is gone.
    pub fn take(&mut self, id: &Id) -> Option<Lagging<Id>> {
        let slot = *self.names.get(id)?;
        let watcher = self.slots[slot as usize].as_mut().expect("a name leads to a watcher");
        match watcher.place {
            Place::Synced => return None,
            Place::Queued(ticket) => drop(self.queue.remove(&ticket)),
            Place::Taken => {}
        }
        watcher.place = Place::Taken;
        Some(watcher.lagging())
    }

    /// Puts a watcher that was taken at the end of the queue. Nothing happens to others.
    pub fn requeue(&mut self, id: &Id) {
        if let Some(&slot) = self.names.get(id)
            && matches!(self.watcher(slot).place, Place::Taken)
        {
            self.enqueue(slot);
        }
    }

    /// A stretch of history that reaches down to a watcher's `next`. Returns the events that it wants, and moves its
    /// cursor; nothing if it is gone or not lagging. If it lags still, it goes to the end of the queue.
    pub fn caught_up<'h>(&mut self, id: &Id, history: &'h History) -> Vec<&'h Event> {
        if self.take(id).is_none() {
            return Vec::new();
        }
        let slot = self.names[id];
        let watcher = self.slots[slot as usize].as_mut().expect("a name leads to a watcher");
        let Watcher { range, filter, next, .. } = &*watcher;
        let first = *next + i64::from(mutant::is(Mutant::SkipMissed));
        let wants = |event: &&Event| {
            event.revision.main >= first && range.contains(&event.key) && filter.passes(event)
        };
        let events: Vec<&Event> = history.events.iter().filter(wants).collect();
        watcher.next = watcher.next.max(history.next);
        watcher.place = Place::Synced;
        if watcher.next <= self.seen {
            self.enqueue(slot);
        }
        events
    }

    /// How far a watcher is.
    pub fn state(&self, id: &Id) -> Option<WatcherState> {
        let watcher = self.watcher(*self.names.get(id)?);
        Some(match watcher.is_synced() {
            true => WatcherState::Synced,
            false => WatcherState::Lagging { next: watcher.next },
        })
    }

    /// The revision up to which this watcher has been told everything, for a progress notice: only if it is synced and
    /// the shard has seen what was current when it came. Who asked for a revision, also for the very next one, is told
    /// nothing before that, as with etcd.
    pub fn progress(&self, id: &Id) -> Option<i64> {
        let watcher = self.watcher(*self.names.get(id)?);
        let begun = watcher.next <= self.seen + 1 && watcher.start <= self.seen;
        let lags = !watcher.is_synced() && !mutant::is(Mutant::ProgressTooEarly);
        (begun && !lags).then_some(self.seen)
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

    fn put(main: i64, key: &'static str) -> Event {
        Event {
            kind: EventKind::Put,
            revision: crate::Revision { main, sub: 0 },
            key: key.into(),
            kv: Bytes::new(),
            is_create: false,
            previous: None,
        }
    }

    fn batch(events: Vec<Event>) -> Batch {
        let (first, last) = (events[0].revision.main, events[events.len() - 1].revision.main);
        Batch { first, last, compact_revision: -1, events, is_gap: false }
    }

    /// A progress notice never goes back behind the revision that its watcher was created at, nor comes before the one
    /// that it asked for.
    #[test]
    fn progress_begins_where_the_watcher_does() {
        let mut set = WatcherSet::new(1);
        for (id, from) in [("what comes", 0), ("the next", 4), ("this", 3)] {
            // The third revision is current, and the shard has seen the first.
            assert!(set.insert(id, KeyRange::One("k".into()), from, 3, Filter::default()));
        }
        let told =
            |set: &WatcherSet<&str>| ["what comes", "the next", "this"].map(|id| set.progress(&id));
        assert_eq!(told(&set), [None, None, None]);
        set.on_batch(&batch(vec![put(2, "x")]), &mut |_, _| panic!("nobody\'s key"));
        assert_eq!(told(&set), [None, None, None]);
        set.on_batch(&batch(vec![put(3, "x")]), &mut |_, _| panic!("nobody\'s key"));
        assert_eq!(told(&set), [Some(3), None, Some(3)]);
        set.on_batch(&batch(vec![put(4, "x")]), &mut |_, _| panic!("nobody\'s key"));
        assert_eq!(told(&set), [Some(4); 3]);
    }

    /// Who does not take a batch lags from there; taken out of the queue, he is not looked at again until he is put
    /// back or has caught up, whatever happens meanwhile.
    #[test]
    fn a_watcher_that_takes_nothing_is_handed_out_once() {
        let mut set = WatcherSet::new(1);
        for id in 0..3 {
            assert!(set.insert(id, KeyRange::One("k".into()), 0, 1, Filter::default()));
        }
        assert_eq!(set.first(), None, "they want only what comes");
        let mut told: Vec<(i32, Vec<i64>)> = Vec::new();
        let mut play = |set: &mut WatcherSet<i32>, batch: &Batch| {
            told.clear();
            set.on_batch(batch, &mut |id, events| {
                told.push((*id, events.iter().map(|event| event.revision.main).collect()));
                // 0 takes all, 1 nothing, 2 the first revision.
                [None, Some(events[0].revision.main), Some(events[0].revision.main + 1)]
                    [*id as usize]
            });
            told.clone()
        };
        let both = vec![2, 3];
        let calls = play(&mut set, &batch(vec![put(2, "k"), put(3, "k")]));
        assert_eq!(calls, [(0, both.clone()), (1, both.clone()), (2, both)]);
        assert_eq!(set.state(&0), Some(WatcherState::Synced));
        assert_eq!(set.take_next().map(|lagging| (lagging.id, lagging.next)), Some((1, 2)));
        assert_eq!(set.first(), Some(&2));
        assert_eq!(set.take_next().map(|lagging| (lagging.id, lagging.next)), Some((2, 3)));

        assert_eq!(play(&mut set, &batch(vec![put(4, "k")])), [(0, vec![4])]);
        assert!(set.take_next().is_none(), "both were taken already");
        set.requeue(&0);
        set.requeue(&1);
        assert_eq!(set.first(), Some(&1), "only what was taken comes back");
        let history = History { events: vec![put(2, "k"), put(3, "x"), put(3, "k")], next: 4 };
        let events: Vec<i64> =
            set.caught_up(&2, &history).iter().map(|event| event.revision.main).collect();
        assert_eq!(events, [3], "neither what it knows nor another's key");
        assert_eq!(set.state(&2), Some(WatcherState::Lagging { next: 4 }));
        assert_eq!(set.take(&2).map(|lagging| lagging.next), Some(4));
        assert!(set.caught_up(&2, &History { events: vec![], next: 5 }).is_empty());
        assert_eq!(set.state(&2), Some(WatcherState::Synced));
        assert_eq!(set.take(&2), None);
    }

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
