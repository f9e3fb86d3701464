//! The past of a range in the order of its revisions, gathered from the index in one walk and used many times.
//!
//! The index is ordered by key; a watcher that catches up wants revisions. Rather than keep a second order for every
//! revision there is, a walk through the range notes the lowest changes (key and revision, no values) until they take
//! [`GATHERED_BYTES`]; what is found beyond drops out again, so memory is bounded, however long the past:
//!
//! ```text
//!   index, by key    a 3 9   b 2 8   c 5 7   d 4 6 …         one walk
//!   past, by         b2 a3 d4 c5 │ d6 c7 b8 a9
//!   revision         ────────────┘ last: complete up to here; a second walk goes on behind it
//!                     ↑     ↑
//!                     the cursors of watchers, each taking its portions
//! ```
//!
//! Between two portions nothing is pinned. A watcher that a compaction has overtaken is told so when it asks for the
//! next; whoever has not been overtaken finds everything above the mark in the index, where it was. So a past stays
//! true while the keyspace lives, and several watchers of a range share it. The few that were used last are kept, and
//! dropped when nobody has asked for a while.
//!
//! A note costs 48 bytes, and the key once for all changes of the key that were noted together. With 10^6 keys and
//! 2·10^6 changes, the whole takes a dozen walks; each range that is being caught up with holds 16 MiB at most.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use store::Revision;

use crate::state::KEYS_PER_LOCK;
use crate::{KeyRange, Pin, ReadError, Reader};

/// Bytes of notes that a past keeps, and one main revision more. A walk holds three times as many at most.
const GATHERED_BYTES: usize = 16 << 20;
/// What a note costs besides its key, which it may share.
const NOTE_BYTES: usize = size_of::<Change>() + 32;
/// Changes that are noted under one hold of the index lock.
const CHANGES_PER_LOCK: usize = 4096;
/// Entries and changes that are walked through again rather than kept.
const WALK_MIN: usize = 1024;
/// Bytes of all pasts that are kept. The least recently used makes room.
const KEPT_BYTES: usize = 48 << 20;

const _: () = assert!(GATHERED_BYTES <= KEPT_BYTES);

/// A change, without what it changed to.
#[derive(Debug)]
pub(crate) struct Change {
    pub key: Bytes,
    pub revision: Revision,
}

/// All changes of a range between two main revisions.
#[derive(Debug)]
pub(crate) struct Past {
    range: KeyRange,
    first: i64,
    last: i64,
    /// By ascending revision.
    changes: Vec<Change>,
    bytes: usize,
}

impl Past {
    /// The main revision up to which it is complete.
    pub fn last(&self) -> i64 {
        self.last
    }

    /// The changes from a main revision on.
    pub fn from(&self, main: i64) -> &[Change] {
        let start = self.changes.partition_point(|change| change.revision.main < main);
        &self.changes[start..]
    }

    fn note(&mut self, key: &Bytes, revision: Revision) {
        self.changes.push(Change { key: key.clone(), revision });
        self.bytes += NOTE_BYTES + key.len();
    }

    /// Sorts, and drops what lies behind the revision with which the bytes are reached.
    fn keep_lowest(&mut self, bytes_max: usize) {
        self.changes.sort_unstable_by_key(|change| change.revision);
        let mut bytes = 0;
        let decisive = self.changes.iter().find(|change| {
            bytes += NOTE_BYTES + change.key.len();
            bytes >= bytes_max
        });
        if let Some(decisive) = decisive {
            self.last = self.last.min(decisive.revision.main);
        }
        let last = self.last;
        self.changes.truncate(self.changes.partition_point(|c| c.revision.main <= last));
        self.bytes = self.changes.iter().map(|change| NOTE_BYTES + change.key.len()).sum();
    }
}

/// The pasts that are kept. The mutex guards a short list and is never held across a walk.
#[derive(Debug, Default)]
pub(crate) struct Pasts {
    kept: Mutex<Vec<Kept>>,
    /// Entries that walks have looked at.
    #[cfg(test)]
    pub walked: std::sync::atomic::AtomicUsize,
}

#[derive(Debug)]
struct Kept {
    past: Arc<Past>,
    idle_ticks: u64,
}

impl Pasts {
    /// One that tells all of `range` from `from` on, at least a part.
    fn find(&self, range: &KeyRange, from: i64) -> Option<Arc<Past>> {
        let mut kept = self.lock();
        let place = kept.iter().position(|Kept { past, .. }| {
            past.first <= from && from <= past.last && past.range == *range
        })?;
        // The last in the list is the last used.
        let found = kept.remove(place);
        let past = found.past.clone();
        kept.push(Kept { idle_ticks: 0, ..found });
        Some(past)
    }

    fn keep(&self, past: &Arc<Past>) {
        let mut kept = self.lock();
        kept.push(Kept { past: past.clone(), idle_ticks: 0 });
        let mut bytes: usize = kept.iter().map(|kept| kept.past.bytes).sum();
        while bytes > KEPT_BYTES && kept.len() > 1 {
            bytes -= kept.remove(0).past.bytes;
        }
    }

    /// One tick of the clock: drops those that were not used for so many.
    pub fn tick(&self, idle_ticks_max: u64) {
        self.lock().retain_mut(|kept| {
            kept.idle_ticks += 1;
            kept.idle_ticks <= idle_ticks_max
        });
    }

    /// Drops all: the keyspace is another.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// A list is whole also after a panic elsewhere.
    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// The past of a range from main revision `from` on, up to `to` or as far as one walk gathers; `pin` protects it.
    pub(crate) fn past(
        &self,
        range: &KeyRange,
        from: i64,
        to: i64,
        pin: &Pin,
    ) -> Result<Arc<Past>, ReadError> {
        if let Some(past) = self.shared.pasts.find(range, from) {
            return Ok(past);
        }
        let (past, walked) = self.gather(range, from, to, GATHERED_BYTES, pin)?;
        #[cfg(test)]
        self.shared.pasts.walked.fetch_add(walked, std::sync::atomic::Ordering::Relaxed);
        let past = Arc::new(past);
        if walked + past.changes.len() >= WALK_MIN {
            self.shared.pasts.keep(&past);
        }
        Ok(past)
    }

    /// Walks through the index for the lowest changes between `from` and `to`, and says how many entries it met.
    fn gather(
        &self,
        range: &KeyRange,
        from: i64,
        to: i64,
        bytes_max: usize,
        pin: &Pin,
    ) -> Result<(Past, usize), ReadError> {
        let mut past =
            Past { range: range.clone(), first: from, last: to, changes: Vec::new(), bytes: 0 };
        let mut walked = 0;
        let before = Revision { main: from - 1, sub: i64::MAX };
        // What is left, and the revision of its first key up to which that key's changes were noted.
        let mut rest = (!range.is_empty()).then(|| (range.clone(), before));
        while let Some((range, noted)) = rest.take() {
            let state = self.shared.read();
            if pin.is_revoked() {
                return Err(ReadError::Revoked);
            }
            pin.touch();
            let (mut entries, mut changes) = (0, 0);
            let mut end = None;
            let last = past.last;
            state.tree.visit(&range, &mut |entry| {
                let mut noted = if *entry.key == **range.start() { noted } else { before };
                let mut versions =
                    entry.versions_after(noted).take_while(|v| v.main <= last).peekable();
                if versions.peek().is_some() {
                    let key = Bytes::copy_from_slice(&entry.key);
                    for version in versions.by_ref().take(CHANGES_PER_LOCK - changes) {
                        noted = version.revision();
                        past.note(&key, noted);
                        changes += 1;
                    }
                }
                entries += 1;
                if entries == KEYS_PER_LOCK || changes == CHANGES_PER_LOCK {
                    end = Some((Bytes::copy_from_slice(&entry.key), noted));
                }
                end.is_none()
            });
            drop(state);
            walked += entries;
            rest = end.map(|(key, noted)| (range.starting_at(key), noted));
            if past.bytes > 2 * bytes_max {
                past.keep_lowest(bytes_max);
            }
        }
        past.keep_lowest(bytes_max);
        past.changes.shrink_to_fit();
        Ok((past, walked))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::Ordering::Relaxed;

    use vfs::memory::Memory;

    use super::*;
    use crate::{Effort, Keyspace, Options, Portion, Recovery};

    /// A keyspace that keeps no recent events.
    fn keyspace() -> Keyspace {
        let mut recovery = Recovery::new();
        let opened = store::open(
            Arc::new(Memory::new(1)),
            Path::new("/store"),
            store::Options { segment_bytes: 64 << 20, ..store::Options::new(1, 2) },
            &mut |record| recovery.take(record),
        )
        .unwrap();
        let options = Options { history_bytes_max: 0, ..Options::default() };
        recovery.finish(options, opened.builder, opened.reader, 0, 0).unwrap()
    }

    /// Puts keys by their numbers, each as a revision, with a value of so many bytes.
    fn put(keyspace: &mut Keyspace, keys: impl Iterator<Item = usize>, bytes: usize) {
        let value = vec![b'v'; bytes];
        for (entry, key) in (1..).zip(keys) {
            let mut txn = keyspace.begin();
            txn.put(format!("key{key:07}").as_bytes(), &value, 0);
            txn.finish();
            keyspace.end_entry(entry, 1);
        }
        keyspace.publish().unwrap();
    }

    /// A number below `bound`, as good as random and the same in every run.
    fn scattered(number: usize, bound: usize) -> usize {
        (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % bound
    }

    /// All of a range's history, in portions; and how many there were.
    fn told(
        reader: &Reader,
        range: &KeyRange,
        portion: Portion,
    ) -> (Vec<(Revision, Bytes)>, usize) {
        let (mut next, mut told, mut portions) = (2, Vec::new(), 0);
        while next <= reader.revision() {
            let history = reader.history(range, next, portion, Effort::Disk).unwrap();
            assert!(history.next > next && history.events.len() <= portion.events_max);
            told.extend(history.events.into_iter().map(|event| (event.revision, event.key)));
            (next, portions) = (history.next, portions + 1);
        }
        (told, portions)
    }

    #[test]
    fn one_walk_serves_every_portion_and_every_watcher_of_a_range() {
        const KEYS: usize = 3_000;
        let mut keyspace = keyspace();
        let keys = || (0..2 * KEYS).map(|number| scattered(number, KEYS));
        put(&mut keyspace, keys(), 8);
        let reader = keyspace.reader();
        let wanted: Vec<(Revision, Bytes)> = (2..)
            .zip(keys())
            .map(|(main, key)| (Revision { main, sub: 0 }, format!("key{key:07}").into()))
            .collect();
        let portion = Portion { events_max: 100, bytes_max: 1 << 20 };
        for _ in 0..3 {
            let (events, portions) = told(&reader, &KeyRange::all(), portion);
            assert_eq!((events == wanted, portions), (true, 2 * KEYS / 100));
        }
        let walked = reader.shared.pasts.walked.load(Relaxed);
        assert!(walked < KEYS + KEYS / 32, "{walked} entries");

        // It is dropped when nobody has asked for a while, and gathered again.
        reader.tick_pins(1);
        assert_eq!(reader.shared.pasts.lock().len(), 1);
        reader.tick_pins(1);
        assert_eq!(reader.shared.pasts.lock().len(), 0);
        assert_eq!(told(&reader, &KeyRange::all(), portion).0, wanted);
    }

    #[test]
    fn a_portion_ends_with_the_revision_that_reaches_its_bytes() {
        let mut keyspace = keyspace();
        put(&mut keyspace, 0..10, 1_000);
        let portion = Portion { events_max: 100, bytes_max: 1_500 };
        let (events, portions) = told(&keyspace.reader(), &KeyRange::all(), portion);
        assert_eq!((events.len(), portions), (10, 5));
    }

    #[test]
    fn walks_with_little_memory_follow_each_other_without_a_gap() {
        // One key has more changes than are noted under one lock.
        let keys: Vec<usize> = (0..12_000)
            .map(|number| if number % 2 == 0 { 7 } else { scattered(number, 1_000) })
            .collect();
        let mut keyspace = keyspace();
        put(&mut keyspace, keys.iter().copied(), 1);
        let reader = keyspace.reader();
        let pin = reader.pin(1).unwrap();
        for (range, is_in) in [
            (KeyRange::all(), (|_| true) as fn(usize) -> bool),
            (KeyRange::One("key0000007".into()), |key| key == 7),
            (KeyRange::prefix(b"key00005"), |key| key / 100 == 5),
        ] {
            let (mut from, mut found) = (2, Vec::new());
            while from <= reader.revision() {
                let bytes_max = 1_000 * NOTE_BYTES;
                let (past, _) =
                    reader.gather(&range, from, reader.revision(), bytes_max, &pin).unwrap();
                assert!(past.bytes <= bytes_max + NOTE_BYTES + 10);
                found.extend(past.from(from).iter().map(|change| change.revision.main));
                from = past.last() + 1;
            }
            let wanted: Vec<i64> =
                (2..).zip(&keys).filter(|(_, key)| is_in(**key)).map(|(main, _)| main).collect();
            assert!(found == wanted, "{range:?}: {} of {}", found.len(), wanted.len());
        }
    }

    #[test]
    fn a_past_that_a_compaction_has_overtaken_is_not_told() {
        let mut keyspace = keyspace();
        put(&mut keyspace, (0..4_000).map(|number| number % 2_000), 1);
        let reader = keyspace.reader();
        let portion = Portion { events_max: 10, bytes_max: 1 << 20 };
        let next = reader.history(&KeyRange::all(), 2, portion, Effort::Disk).unwrap().next;
        keyspace.compact(3_000).unwrap();
        keyspace.publish().unwrap();
        while keyspace.prune(1_000) {}
        let refused = reader.history(&KeyRange::all(), next, portion, Effort::Disk);
        assert!(matches!(refused, Err(ReadError::Compacted)));
        // Who stands at the mark is told of all that is left, of the same past.
        let history = reader.history(&KeyRange::all(), 3_000, portion, Effort::Disk).unwrap();
        let mains: Vec<i64> = history.events.iter().map(|event| event.revision.main).collect();
        assert_eq!(mains, (3_000..3_010).collect::<Vec<i64>>());
    }
}
