//! A naive keyspace, written apart from the real one, and random histories that compare the two.
//!
//! The model keeps every change for ever in one list and answers each question by replaying it. It knows etcd's rules
//! as sentences: which changes survive a compaction, which records a hash covers. Random histories then run against
//! a whole keyspace on a disk in memory, with frames, reclaim, pins and restarts in between, and every answer at
//! every live revision must be the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use store::{Goal, Reclaimed};
use vfs::memory::Memory;

use crate::index::Entry;
use crate::values::NO_SLOT;
use crate::{
    CompactError, DueHash, Effort, EventKind, Filter, HASHES_MAX, KeyRange, Keyspace, Options, Pin,
    Portion, RangeQuery, ReadError, Recovery, Revision, WatcherSet, WatcherState, key_value,
};

/// One change, as the model remembers it.
#[derive(Clone, Debug, PartialEq)]
struct Change {
    main: i64,
    sub: i64,
    key: Vec<u8>,
    /// `None`: a delete.
    put: Option<Put>,
}

#[derive(Clone, Debug, PartialEq)]
struct Put {
    create: i64,
    version: i64,
    value: Vec<u8>,
    lease: i64,
}

#[derive(Default)]
struct Model {
    changes: Vec<Change>,
    current: i64,
    mark: i64,
}

impl Model {
    fn new() -> Model {
        Model { changes: Vec::new(), current: 1, mark: -1 }
    }

    fn living(&self, revision: i64) -> BTreeMap<Vec<u8>, Change> {
        let mut living = BTreeMap::new();
        for change in self.changes.iter().filter(|change| change.main <= revision) {
            match change.put {
                Some(_) => living.insert(change.key.clone(), change.clone()),
                None => living.remove(&change.key),
            };
        }
        living
    }

    fn apply(&mut self, ops: &[Op]) {
        let main = self.current + 1;
        let mut sub = 0;
        for op in ops {
            let living = self.living(main);
            match op {
                Op::Put(key, len, lease) => {
                    let key = name(*key);
                    let before = living.get(&key).and_then(|change| change.put.clone());
                    let (create, version) = before.map_or((main, 1), |b| (b.create, b.version + 1));
                    let value = vec![b'v'; usize::from(*len)];
                    let put = Some(Put { create, version, value, lease: *lease });
                    self.changes.push(Change { main, sub, key, put });
                    sub += 1;
                }
                Op::Delete(range) => {
                    let range = range.range();
                    for key in living.keys().filter(|key| range.contains(key)) {
                        self.changes.push(Change { main, sub, key: key.clone(), put: None });
                        sub += 1;
                    }
                }
            }
        }
        self.current += i64::from(sub > 0);
    }

    /// What is still there after compaction at the mark, of one key's changes in order.
    fn survives(&self, change: &Change) -> bool {
        self.survives_at(self.mark, change)
    }

    fn survives_at(&self, mark: i64, change: &Change) -> bool {
        let newest = self.changes.iter().rfind(|c| c.key == change.key && c.main <= mark);
        change.main > mark
            || (newest == Some(change) && (change.put.is_some() || change.main == mark))
    }

    /// The hash as it is computed when it is asked for: what lives at `revision` is kept.
    fn hash(&self, revision: i64) -> u32 {
        let kept = self.living(revision).values().map(|change| (change.main, change.sub)).collect();
        self.hash_keeping(&kept, self.mark, revision)
    }

    /// The hash as it is computed by a compaction that moves the mark from `mark` to `revision`: what survives it is
    /// kept.
    fn hash_of_compaction(&self, mark: i64, revision: i64) -> u32 {
        let survives = |c: &&Change| c.main <= revision && self.survives_at(revision, c);
        let kept = self.changes.iter().filter(survives).map(|c| (c.main, c.sub)).collect();
        self.hash_keeping(&kept, mark, revision)
    }

    fn hash_keeping(&self, kept: &BTreeSet<(i64, i64)>, mark: i64, revision: i64) -> u32 {
        let mut bytes = b"key".to_vec();
        let is_there = |c: &&Change| c.main <= revision && self.survives_at(mark, c);
        for change in self.changes.iter().filter(is_there) {
            if change.main <= mark && !kept.is_empty() && !kept.contains(&(change.main, change.sub))
            {
                continue;
            }
            if change.main == mark && change.put.is_none() {
                continue;
            }
            bytes.extend_from_slice(&change.main.to_be_bytes());
            bytes.push(b'_');
            bytes.extend_from_slice(&change.sub.to_be_bytes());
            if change.put.is_none() {
                bytes.push(b't');
            }
            bytes.extend_from_slice(&encode(change, true));
        }
        crc32c::crc32c(&bytes)
    }
}

/// The `KeyValue` of a change: as it is stored, or as an event carries it.
fn encode(change: &Change, is_stored: bool) -> Vec<u8> {
    let mut out = vec![0x0a, u8::try_from(change.key.len()).unwrap()];
    out.extend_from_slice(&change.key);
    let number = |out: &mut Vec<u8>, tag: u8, n: i64| {
        if n != 0 {
            out.push(tag);
            key_value::put_varint(out, n.cast_unsigned());
        }
    };
    match &change.put {
        None if is_stored => {}
        None => number(&mut out, 0x18, change.main),
        Some(put) => {
            number(&mut out, 0x10, put.create);
            number(&mut out, 0x18, change.main);
            number(&mut out, 0x20, put.version);
            if !put.value.is_empty() {
                out.push(0x2a);
                key_value::put_varint(&mut out, put.value.len() as u64);
                out.extend_from_slice(&put.value);
            }
            number(&mut out, 0x30, put.lease);
        }
    }
    out
}

/// A keyspace with the threads around it played by hand.
struct Member {
    disk: Memory,
    keyspace: Keyspace,
    flusher: store::Flusher,
    entry: u64,
}

impl Member {
    fn open(disk: Memory, options: Options) -> Member {
        let mut recovery = Recovery::new();
        let sizes = store::Options { segment_bytes: 8 << 10, ..store::Options::new(1, 2) };
        let opened =
            store::open(Arc::new(disk.clone()), Path::new("/store"), sizes, &mut |record| {
                recovery.take(record);
            })
            .unwrap();
        let entry = opened.applied.0;
        let keyspace = recovery
            .finish(
                options,
                opened.builder,
                opened.reader,
                opened.revision,
                opened.compact_revision,
            )
            .unwrap();
        Member { disk, keyspace, flusher: opened.flusher, entry }
    }

    fn end_entry(&mut self) {
        self.entry += 1;
        self.keyspace.end_entry(self.entry, 1);
    }

    fn apply(&mut self, ops: &[Op]) {
        let mut txn = self.keyspace.begin();
        for op in ops {
            match op {
                Op::Put(key, len, lease) => {
                    txn.put(&name(*key), &vec![b'v'; usize::from(*len)], *lease);
                }
                Op::Delete(range) => {
                    txn.delete_range(&range.range(), &mut |_, _| {});
                }
            }
        }
        txn.finish();
        self.end_entry();
    }

    fn flush(&mut self) {
        while let Some(frame) = self.keyspace.take_frame() {
            let applied = frame.applied();
            self.flusher.write(&frame).unwrap();
            if let Some((index, _)) = applied {
                self.keyspace.frame_written(index);
            }
        }
        self.flusher.sync().unwrap();
    }

    fn reclaim(&mut self) {
        for _ in 0..10_000 {
            let reader = self.keyspace.reader();
            let mut is_live = |key: &[u8], revision: Revision| reader.is_live(key, revision);
            match self.flusher.reclaim(Goal::Everything, 1 << 10, &mut is_live).unwrap() {
                Reclaimed::Idle => return,
                Reclaimed::Roll => {
                    self.keyspace.builder().roll();
                    self.end_entry();
                    self.flush();
                }
                Reclaimed::Relocate(batch) => self.keyspace.relocate(&batch),
                Reclaimed::Gone(gone) => self.keyspace.gone(&gone),
                Reclaimed::Copied { .. } | Reclaimed::Swapped { .. } => {}
            }
        }
        panic!("reclaim comes to no end");
    }

    /// The index without what a restart may change.
    fn index(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        self.keyspace.shared.read().tree.visit(&KeyRange::all(), &mut |entry| {
            let mut entry = entry.clone();
            entry.newest.slot = NO_SLOT;
            if let Some(aside) = &mut entry.aside {
                aside.older.iter_mut().for_each(|version| version.slot = NO_SLOT);
            }
            entries.push(entry);
            true
        });
        entries
    }
}

#[derive(Clone, Debug)]
enum Op {
    Put(u8, u8, i64),
    Delete(Span),
}

#[derive(Clone, Debug)]
enum Span {
    One(u8),
    Between(u8, u8),
    From(u8),
}

impl Span {
    fn range(&self) -> KeyRange {
        match self {
            Span::One(key) => KeyRange::One(name(*key).into()),
            Span::Between(start, end) => KeyRange::Between(name(*start).into(), name(*end).into()),
            Span::From(start) => KeyRange::From(name(*start).into()),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Txn(Vec<Op>),
    /// At this many hundredths between mark and current revision, and a little beyond both.
    Compact(i64),
    Publish,
    Prune(usize),
    /// The oldest hash that is due is computed, or dropped.
    Hash(bool),
    Flush,
    Reclaim,
    Restart,
    Pin(i64),
    Unpin,
    Check(i64, Span),
}

fn name(key: u8) -> Vec<u8> {
    format!("k{key:03}").into_bytes()
}

fn spans() -> impl Strategy<Value = Span> {
    prop_oneof![
        (0u8..90).prop_map(Span::One),
        (0u8..90, 0u8..99).prop_map(|(a, b)| Span::Between(a, b)),
        (0u8..90).prop_map(Span::From),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let op = prop_oneof![
        6 => (0u8..90, 0u8..60, 0i64..3).prop_map(|(key, len, lease)| Op::Put(key, len, lease)),
        1 => (0u8..90).prop_map(|key| Op::Delete(Span::One(key))),
        1 => (0u8..90, 0u8..6).prop_map(|(a, n)| Op::Delete(Span::Between(a, a + n))),
        1 => (80u8..90).prop_map(|a| Op::Delete(Span::From(a))),
    ];
    prop_oneof![
        12 => proptest::collection::vec(op, 0..8).prop_map(Step::Txn),
        2 => (-5i64..105).prop_map(Step::Compact),
        5 => Just(Step::Publish),
        2 => (1usize..80).prop_map(Step::Prune),
        2 => (0u8..6).prop_map(|n| Step::Hash(n > 0)),
        2 => Just(Step::Flush),
        1 => Just(Step::Reclaim),
        1 => Just(Step::Restart),
        1 => (0i64..=100).prop_map(Step::Pin),
        1 => Just(Step::Unpin),
        3 => (0i64..=100, spans()).prop_map(|(at, span)| Step::Check(at, span)),
    ]
}

/// The revision at `hundredths` of the way from the mark to `current`.
fn between(model: &Model, current: i64, hundredths: i64) -> i64 {
    let low = model.mark.max(1);
    low + (current - low) * hundredths / 100
}

/// Everything that can be asked of a range at a revision.
fn check_range(member: &Member, model: &Model, published: i64, revision: i64, range: &KeyRange) {
    let reader = member.keyspace.reader();
    let expected: Vec<Change> =
        model.living(revision).into_values().filter(|change| range.contains(&change.key)).collect();
    for limit in [0, 1, 3, 64, 65] {
        let query = RangeQuery { revision, limit, ..RangeQuery::new(range.clone()) };
        let result = reader.range(&query, Effort::Disk).unwrap();
        assert_eq!(result.count, expected.len() as u64, "{range:?} at {revision}");
        assert_eq!((result.current_revision, result.revision), (published, revision));
        let shown = if limit == 0 { expected.len() } else { limit.min(expected.len()) };
        assert_eq!(result.more, expected.len() > shown);
        let found: Vec<&[u8]> = result.items.iter().map(|item| &item.bytes[..]).collect();
        let wanted: Vec<Vec<u8>> = expected[..shown].iter().map(|c| encode(c, true)).collect();
        assert_eq!(found, wanted, "{range:?} at {revision}");
        for (item, change) in result.items.iter().zip(&expected) {
            let put = change.put.as_ref().unwrap();
            assert_eq!(item.key, change.key);
            assert_eq!(item.value(), put.value);
            assert_eq!(item.revision, Revision { main: change.main, sub: change.sub });
            assert_eq!(
                (item.create, item.version, item.lease),
                (put.create, put.version, put.lease)
            );
        }
    }
    let query = RangeQuery { revision, ..RangeQuery::new(range.clone()) };
    let mut cursor = reader.cursor(&query, Effort::Disk).unwrap();
    let mut keys = Vec::new();
    while !cursor.is_finished() {
        keys.extend(cursor.next(7, 200, Effort::Disk).unwrap().into_iter().map(|item| item.key));
    }
    assert_eq!(cursor.count(), expected.len() as u64);
    assert!(keys.iter().eq(expected.iter().map(|change| &change.key)));
    assert_eq!(reader.count(range, revision, Effort::Disk).unwrap(), expected.len() as u64);
}

/// A little of the past.
const PORTION: Portion = Portion { events_max: 5, bytes_max: 100 };

/// History from `from` on, in small pieces: no event is missing, none comes twice, no revision is torn.
fn check_history(member: &Member, model: &Model, published: i64, from: i64, range: &KeyRange) {
    let reader = member.keyspace.reader();
    let mut next = from;
    let mut events = Vec::new();
    while next <= published {
        let history = reader.history(range, next, PORTION, Effort::Disk).unwrap();
        assert!(
            history.next > next && history.events.iter().all(|e| e.revision.main < history.next)
        );
        next = history.next;
        events.extend(history.events);
    }
    // At the mark itself, what one transaction did and undid may or may not be remembered.
    events.retain(|event| {
        let same = |c: &&Change| c.main == event.revision.main && c.sub == event.revision.sub;
        model.survives(model.changes.iter().find(same).expect("an event of what was done"))
    });
    let expected: Vec<&Change> = model
        .changes
        .iter()
        .filter(|c| c.main >= from && c.main <= published && range.contains(&c.key))
        .filter(|c| model.survives(c))
        .collect();
    assert_eq!(events.len(), expected.len(), "{range:?} from {from}");
    for (event, change) in events.iter().zip(expected) {
        assert_eq!(event.revision, Revision { main: change.main, sub: change.sub });
        assert_eq!(event.key, change.key);
        assert_eq!(event.kv, encode(change, false));
        assert_eq!(event.kind == EventKind::Delete, change.put.is_none());
        assert_eq!(event.is_create, change.put.as_ref().is_some_and(|put| put.version == 1));
        let before = model.living(change.main - 1).remove(&change.key).map(|c| encode(&c, true));
        let before = before.filter(|_| change.main > model.mark);
        let previous = reader.previous(event, Effort::Disk).unwrap();
        assert_eq!(previous.as_deref(), before.as_deref());
    }
}

fn check_everything(member: &Member, model: &Model, published: i64) {
    let reader = member.keyspace.reader();
    for revision in model.mark.max(1)..=published {
        check_range(member, model, published, revision, &KeyRange::all());
        let hash = reader.hash_now(revision).unwrap();
        assert_eq!(hash.hash, model.hash(revision), "hash at {revision}, compacted {}", model.mark);
        assert_eq!((hash.compact_revision, hash.hash_revision), (model.mark, revision));
    }
    check_history(member, model, published, model.mark.max(1), &KeyRange::all());
    if model.mark > 1 {
        let query = RangeQuery { revision: model.mark - 1, ..RangeQuery::new(KeyRange::all()) };
        assert!(matches!(reader.range(&query, Effort::Disk), Err(ReadError::Compacted)));
        assert!(matches!(reader.hash_now(model.mark - 1), Err(ReadError::Compacted)));
    }
    let query = RangeQuery { revision: published + 1, ..RangeQuery::new(KeyRange::all()) };
    assert!(matches!(reader.range(&query, Effort::Disk), Err(ReadError::Future)));
}

/// A watcher that follows along, sometimes falling behind.
struct Follower {
    set: WatcherSet<u8>,
    told: Vec<(Revision, Bytes)>,
}

impl Follower {
    fn new(revision: i64) -> Follower {
        let mut set = WatcherSet::new(revision);
        assert!(set.insert(0, KeyRange::all(), 0, revision, Filter::default()));
        Follower { set, told: Vec::new() }
    }

    fn catch_up(&mut self, member: &Member) {
        while let Some(lagging) = self.set.take_next() {
            let reader = member.keyspace.reader();
            let history =
                reader.history(&lagging.range, lagging.next, PORTION, Effort::Disk).unwrap();
            for event in self.set.caught_up(&0, &history) {
                self.told.push((event.revision, event.kv.clone()));
            }
        }
    }
}

fn run(steps: Vec<Step>, options: Options) {
    let disk = Memory::new(7);
    let mut member = Member::open(disk, options);
    let mut model = Model::new();
    // The model's mark is the published one while checks run; the keyspace's own may be ahead.
    let mut published = 1;
    let mut mark = -1;
    let mut pins: Vec<(Pin, BTreeMap<Vec<u8>, Change>)> = Vec::new();
    let mut due: VecDeque<DueHash> = VecDeque::new();
    // What is remembered of compactions: revision, mark before, hash.
    let mut remembered: BTreeMap<i64, (i64, u32)> = BTreeMap::new();
    let mut follower = Follower::new(1);
    let mut published_times = 0u32;
    for step in steps {
        match step {
            Step::Txn(ops) => {
                model.apply(&ops);
                member.apply(&ops);
                assert_eq!(member.keyspace.revision(), model.current);
            }
            Step::Compact(hundredths) => {
                let revision = between(&model, model.current, hundredths);
                let result = member.keyspace.compact(revision);
                if revision <= mark {
                    assert_eq!(result.unwrap_err(), CompactError::Compacted);
                } else if revision > model.current {
                    assert_eq!(result.unwrap_err(), CompactError::Future);
                } else {
                    let hash = result.unwrap();
                    assert_eq!((hash.pin.revision(), hash.revision()), (mark, revision));
                    due.push_back(hash);
                    mark = revision;
                }
                member.end_entry();
            }
            Step::Hash(is_computed) => {
                // Only what is published is asked for.
                if let Some(hash) = due.pop_front_if(|hash| hash.revision() <= model.mark)
                    && is_computed
                {
                    let (before, at) = (hash.pin.revision(), hash.revision());
                    let hash = member.keyspace.reader().remember(hash).unwrap();
                    assert_eq!((hash.compact_revision, hash.hash_revision), (before, at));
                    let expected = model.hash_of_compaction(before, at);
                    assert_eq!(hash.hash, expected, "compacted from {before} to {at}");
                    remembered.insert(at, (before, hash.hash));
                    while remembered.len() > HASHES_MAX {
                        remembered.pop_first();
                    }
                }
                for (at, (before, expected)) in &remembered {
                    let hash = member.keyspace.reader().hash_kv(*at).unwrap();
                    assert_eq!((hash.hash, hash.compact_revision), (*expected, *before));
                    assert_eq!((hash.hash_revision, hash.current_revision), (*at, published));
                }
            }
            Step::Publish => {
                let batch = member.keyspace.publish();
                assert_eq!(batch.is_some(), published < model.current || model.mark < mark);
                (published, model.mark) = (model.current, mark);
                // What a watcher needs is told before it is compacted away, or never.
                published_times += 1;
                if let Some(batch) = batch {
                    let told = &mut follower.told;
                    follower.set.on_batch(&batch, &mut |_, events| {
                        if published_times.is_multiple_of(4) {
                            return Some(events[0].revision.main);
                        }
                        told.extend(events.iter().map(|e| (e.revision, e.kv.clone())));
                        None
                    });
                }
                let overtaken = matches!(
                    follower.set.state(&0),
                    Some(WatcherState::Lagging { next }) if next < model.mark
                );
                if !overtaken {
                    follower.catch_up(&member);
                    assert_eq!(follower.set.state(&0), Some(WatcherState::Synced));
                    assert_eq!(follower.set.progress(&0), Some(published));
                } else {
                    follower = Follower::new(published);
                }
            }
            Step::Prune(keys) => {
                member.keyspace.prune(keys);
            }
            Step::Flush => member.flush(),
            Step::Reclaim => {
                member.flush();
                member.reclaim();
            }
            Step::Restart => {
                member.keyspace.publish();
                (published, model.mark) = (model.current, mark);
                pins.clear();
                due.clear();
                remembered.clear();
                member.flush();
                while member.keyspace.prune(100) {}
                member.flush();
                member.reclaim();
                while member.keyspace.prune(100) {}
                member.end_entry();
                member.flush();
                let before = member.index();
                member = Member::open(member.disk.clone(), options);
                assert_eq!(member.index(), before, "a rebuild equals the live index");
                follower = Follower::new(published);
                check_everything(&member, &model, published);
            }
            Step::Pin(hundredths) => {
                let revision = between(&model, published, hundredths);
                let pin = member.keyspace.reader().pin(revision).unwrap();
                pins.push((pin, model.living(revision)));
            }
            Step::Unpin => {
                if !pins.is_empty() {
                    let (pin, living) = pins.remove(0);
                    let state = member.keyspace.shared.read();
                    let mut found = BTreeSet::new();
                    state.tree.visit(&KeyRange::all(), &mut |entry| {
                        if entry.living_at(pin.revision()).is_some() {
                            found.insert(entry.key.to_vec());
                        }
                        true
                    });
                    assert!(found.iter().eq(living.keys()), "the pin at {} held", pin.revision());
                }
            }
            Step::Check(hundredths, span) => {
                let revision = between(&model, published, hundredths);
                check_range(&member, &model, published, revision, &span.range());
                check_range(&member, &model, published, published, &span.range());
                check_history(&member, &model, published, revision, &span.range());
            }
        }
    }
    member.keyspace.publish();
    (published, model.mark) = (model.current, mark);
    check_everything(&member, &model, published);
    while member.keyspace.prune(100) {}
    check_everything(&member, &model, published);

    let told: Vec<&(Revision, Bytes)> = follower.told.iter().collect();
    assert!(told.is_sorted_by(|a, b| a.0 < b.0), "no event twice, none out of order");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_equal_the_model(
        steps in proptest::collection::vec(steps(), 1..90),
        is_tight in any::<bool>(),
    ) {
        // With no memory to spare, every value that can leave does, and history is read from disk.
        let options = if is_tight {
            Options { value_bytes_max: 0, history_bytes_max: 0 }
        } else {
            Options::default()
        };
        run(steps, options);
    }
}

/// Of eleven compactions the first is forgotten. One whose reader was too slow is not known at all: asked for, it is
/// below the mark. A due hash holds pruning at the mark before, and lets go when it is computed.
#[test]
fn the_newest_hashes_of_compactions_are_remembered() {
    let mut member = Member::open(Memory::new(1), Options::default());
    let put = |member: &mut Member| {
        member.keyspace.begin().put(b"foo", b"bar", 0);
        member.end_entry();
        member.keyspace.publish();
    };
    put(&mut member);
    for revision in 2..=12 {
        put(&mut member);
        let due = member.keyspace.compact(revision).unwrap();
        member.end_entry();
        member.keyspace.publish();
        member.flush();
        while member.keyspace.prune(100) {}
        assert_eq!(member.index()[0].versions().count(), if revision == 2 { 2 } else { 3 });
        assert!(member.keyspace.reader().remember(due).is_some());
        while member.keyspace.prune(100) {}
        assert_eq!(member.index()[0].versions().count(), 2);
    }
    let reader = member.keyspace.reader();
    assert!(matches!(reader.hash_kv(2), Err(ReadError::Compacted)));
    assert!((3..=12).all(|revision| reader.hash_kv(revision).unwrap().hash_revision == revision));
    assert_eq!(reader.hash_kv(12).unwrap().compact_revision, 11);
    assert_eq!(reader.hash_now(12).unwrap().compact_revision, 12);

    put(&mut member);
    let slow = member.keyspace.compact(13).unwrap();
    put(&mut member);
    let next = member.keyspace.compact(14).unwrap();
    member.end_entry();
    member.keyspace.publish();
    member.flush();
    reader.tick_pins(0);
    assert_eq!(reader.remember(slow), None);
    assert!(matches!(reader.hash_kv(13), Err(ReadError::Compacted)));
    while member.keyspace.prune(100) {}
    assert_eq!(member.index()[0].versions().count(), 2, "who was too slow holds nothing back");
    assert_eq!(reader.remember(next), None);
}

/// The numbers were taken from a real etcd.
#[test]
fn hashes_known_from_etcd() {
    let mut member = Member::open(Memory::new(1), Options::default());
    let hash = |member: &Member| member.keyspace.reader().hash_kv(0).unwrap().hash;
    assert_eq!(hash(&member), 0x40a4_756d);
    member.keyspace.begin().put(b"foo", b"bar", 0);
    member.end_entry();
    member.keyspace.publish();
    assert_eq!(hash(&member), 0xc502_3252);
    member.keyspace.begin().delete_range(&KeyRange::One("foo".into()), &mut |_, _| {});
    member.end_entry();
    member.keyspace.publish();
    assert_eq!(hash(&member), 0x9469_3eb5);
}

/// Dead keys that nobody has pruned yet stand in the index like living ones; a delete goes over them in slices, and
/// what lives before, among and behind them is found in spite of where the slices end.
#[test]
fn a_delete_goes_over_more_keys_than_one_lock_hold_takes() {
    let mut member = Member::open(Memory::new(1), Options::default());
    let key = |n: usize| format!("key {n:04}");
    let all = 3 * crate::write::CHANGES_PER_LOCK + 7;
    let mut write = |ops: &mut dyn FnMut(&mut crate::Txn<'_>)| {
        ops(&mut member.keyspace.begin());
        member.end_entry();
        member.keyspace.publish();
    };
    write(&mut |txn| (0..all).for_each(|n| _ = txn.put(key(n).as_bytes(), b"v", 0)));
    write(&mut |txn| assert_eq!(txn.delete_range(&KeyRange::all(), &mut |_, _| {}), all as u64));
    let living = [0, 255, 256, 257, 512, all - 1];
    write(&mut |txn| living.iter().for_each(|n| _ = txn.put(key(*n).as_bytes(), b"w", 0)));
    let mut gone = Vec::new();
    write(&mut |txn| {
        txn.delete_range(&KeyRange::all(), &mut |key, _| gone.push(key));
    });
    assert_eq!(gone, living.map(|n| bytes::Bytes::from(key(n))));
}
