//! Short lives of a member, and what may be found of them after a crash: the state behind some of the requests that were
//! made, in their order; behind all that were acknowledged, and behind no other.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use proto::etcdserverpb::RangeRequest;
use raft::{MessageKind, NodeId};
use replica::{Bootstrap, Config, OpenError, SegmentBytes};
use state_machine::{Answer, Effort, Reply};
use vfs::Vfs;
use vfs::crash::{self, Depth, Found, Report};
use vfs::memory::{Failure, Fate, Memory, Operation, OperationKind};
use wal::dump::{Record, dump};

use crate::house::*;

/// What a client, or time, does.
#[derive(Clone, Debug)]
pub enum Step {
    Put(&'static str, String, i64),
    Delete(&'static str),
    /// Compacts at the revision that is so many behind.
    Compact(i64),
    Grant(i64),
    Revoke(i64),
    Ticks(usize),
}

/// A life, and what it shows.
pub type Program = (&'static str, Vec<Step>);

/// A key as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    value: Arc<str>,
    created: i64,
    changed: i64,
    version: i64,
    lease: i64,
}

/// All that can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    revision: i64,
    /// The compaction's, or -1.
    mark: i64,
    /// What each revision that can still be asked for shows.
    past: BTreeMap<i64, BTreeMap<String, Shown>>,
    /// Of each lease its time and its keys.
    leases: BTreeMap<i64, (i64, BTreeSet<String>)>,
}

impl State {
    fn new() -> State {
        State { revision: 1, mark: -1, past: [(1, BTreeMap::new())].into(), ..State::default() }
    }

    /// Makes the next revision.
    fn change(&mut self, change: impl FnOnce(&mut BTreeMap<String, Shown>, i64)) {
        let mut keys = self.past[&self.revision].clone();
        self.revision += 1;
        change(&mut keys, self.revision);
        self.past.insert(self.revision, keys);
    }

    fn has(&self, key: &str) -> bool {
        self.past[&self.revision].contains_key(key)
    }

    fn put(&mut self, key: &str, value: &str, lease: i64) {
        self.change(|keys, revision| {
            let before = keys.get(key);
            let shown = Shown {
                value: value.into(),
                created: before.map_or(revision, |before| before.created),
                changed: revision,
                version: before.map_or(0, |before| before.version) + 1,
                lease,
            };
            keys.insert(key.to_owned(), shown);
        });
        self.detach(key);
        if let Some((_, keys)) = self.leases.get_mut(&lease) {
            keys.insert(key.to_owned());
        }
    }

    fn detach(&mut self, key: &str) {
        for (_, keys) in self.leases.values_mut() {
            keys.remove(key);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Put(key, value, lease) => self.put(key, value, *lease),
            Step::Delete(key) if self.has(key) => {
                self.change(|keys, _| drop(keys.remove(*key)));
                self.detach(key);
            }
            Step::Grant(id) => drop(self.leases.insert(*id, (TTL, BTreeSet::new()))),
            Step::Revoke(id) => {
                let (_, gone) = self.leases.remove(id).unwrap();
                if !gone.is_empty() {
                    self.change(|keys, _| keys.retain(|key, _| !gone.contains(key)));
                }
            }
            Step::Compact(behind) => {
                self.mark = self.revision - behind;
                self.past.retain(|revision, _| *revision >= self.mark);
            }
            Step::Delete(_) | Step::Ticks(_) => {}
        }
    }
}

/// Of all leases, in seconds: nothing ends by itself here.
const TTL: i64 = 6_000;

/// What a start may find.
#[derive(Clone)]
pub struct Promise {
    /// The states behind each request.
    states: Vec<State>,
    acknowledged: usize,
    asked: usize,
}

/// A disk that does what it says.
pub fn honest(_disk: &Memory, _first: u64) {}

/// What a disk leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    SyncsOfTheLog,
    EachThirdSyncOfTheLog,
    NamesOfTheLog,
    SyncsOfTheStore,
    NamesOfTheStore,
    SyncsOfAReceivedSnapshot,
    NamesOfReceivedSnapshots,
    NamesAbove,
}

/// All of them.
pub const LIES: [Lie; 8] = [
    Lie::SyncsOfTheLog,
    Lie::EachThirdSyncOfTheLog,
    Lie::NamesOfTheLog,
    Lie::SyncsOfTheStore,
    Lie::NamesOfTheStore,
    Lie::SyncsOfAReceivedSnapshot,
    Lie::NamesOfReceivedSnapshots,
    Lie::NamesAbove,
];

/// Makes a disk lie, from its operation of this number on.
pub fn lying(disk: &Memory, lie: Lie, from: u64) {
    let (kind, part) = match lie {
        Lie::SyncsOfTheLog | Lie::EachThirdSyncOfTheLog => (OperationKind::Sync, "/wal"),
        Lie::NamesOfTheLog => (OperationKind::SyncDir, "/wal"),
        Lie::SyncsOfTheStore => (OperationKind::Sync, "member/store"),
        Lie::NamesOfTheStore => (OperationKind::SyncDir, "member/store"),
        Lie::SyncsOfAReceivedSnapshot => (OperationKind::Sync, "member/incoming"),
        Lie::NamesOfReceivedSnapshots => (OperationKind::SyncDir, "member/incoming"),
        Lie::NamesAbove => (OperationKind::SyncDir, ""),
    };
    let is_rare = lie == Lie::EachThirdSyncOfTheLog;
    let is_it = move |operation: &Operation| {
        operation.kind == kind
            && operation.number >= from
            && operation.path.to_string_lossy().contains(part)
            && (!part.is_empty() || operation.path.components().count() < 3)
            && (!is_rare || operation.number.is_multiple_of(3))
    };
    disk.fail(is_it, u64::MAX, Failure::Lie);
}

/// All that is bounded is small, so that files are cut, marked, released and reclaimed all the time.
fn small() -> Config {
    let mut config = config(1);
    config.trace = replica::Tracing::Off;
    config.snapshot_count = 12;
    config.snapshot_catchup_entries = 4;
    config.limits.frame_bytes = 2_000;
    config.segment_bytes = SegmentBytes { wal: 2 << 10, store: 8 << 10 };
    config
}

fn house_of(node: Node) -> House {
    let mut house = House::new(&[]);
    house.nodes.insert(node.id, node);
    house.settle();
    house
}

fn start(disk: &Memory) -> Result<House, String> {
    let mut node = Node::closed(disk.clone(), small());
    node.open(Bootstrap::New(founders(&[1]))).map_err(|error| error.to_string())?;
    Ok(house_of(node))
}

fn live(disk: &Memory, steps: &[Step]) -> Promise {
    let mut promise = Promise { states: vec![State::new()], acknowledged: 0, asked: 0 };
    let Ok(mut house) = start(disk) else { return promise };
    for step in steps {
        let revision = promise.states[promise.asked].revision;
        let request = match step {
            Step::Put(key, value, lease) => put_request(key, value.as_bytes(), *lease),
            Step::Delete(key) => delete_request(key),
            Step::Compact(behind) => compact_request(revision - behind),
            Step::Grant(id) => grant_request(*id, TTL),
            Step::Revoke(id) => revoke_request(*id),
            Step::Ticks(count) => {
                house.ticks(*count);
                continue;
            }
        };
        let mut state = promise.states[promise.asked].clone();
        state.step(step);
        promise.states.push(state);
        promise.asked += 1;
        let id = house.node(1).propose(request);
        house.settle();
        if !house.node(1).is_acknowledged(id) {
            break;
        }
        promise.acknowledged = promise.asked;
    }
    promise
}

/// All that a member shows. An error if it does not show what it should.
fn read(house: &mut House, id: NodeId) -> Result<State, String> {
    let view = house.node(id).view();
    let (revision, mark) = (view.state.revision(), view.state.compact_revision());
    let at = |revision| {
        let all = RangeRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            revision,
            ..RangeRequest::default()
        };
        match view.state.range(&all, Effort::Disk) {
            Ok(Answer::Ready(Reply::Range(reply))) => Ok(reply.key_values),
            Ok(other) => Err(format!("revision {revision}: {other:?}")),
            Err(error) => Err(format!("revision {revision}: {}", error.text())),
        }
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut past = BTreeMap::new();
    for revision in mark.max(1)..=revision {
        let mut keys = BTreeMap::new();
        for kv in at(revision)? {
            let kv = mvcc::key_value::decode(&kv).unwrap();
            let shown = Shown {
                value: text(&kv.value).into(),
                created: kv.create_revision,
                changed: kv.mod_revision,
                version: kv.version,
                lease: kv.lease,
            };
            keys.insert(text(&kv.key), shown);
        }
        past.insert(revision, keys);
    }
    if mark > 1 && at(mark - 1).is_ok() {
        return Err(format!("revision {} can be read below the mark", mark - 1));
    }
    let leases = view.state.leases().into_iter().map(|lease| {
        let keys = view.state.lease_keys(lease.id).unwrap_or_default();
        (lease.id, (lease.ttl, keys.iter().map(|key| text(key)).collect()))
    });
    Ok(State { revision, mark, past, leases: leases.collect() })
}

fn check(disk: &Memory, promise: &Promise) -> Result<Found, String> {
    let mut house = start(disk)?;
    let mut expected = read(&mut house, 1)?;
    let may_be = &promise.states[promise.acknowledged..=promise.asked];
    if !may_be.contains(&expected) {
        return Err(format!("found {expected:?}, which is none of {may_be:?}"));
    }
    // And it goes on, and finds that again when the power has gone.
    let id = house.node(1).put("after", "1");
    house.settle();
    if !house.node(1).is_acknowledged(id) {
        return Err(format!("it does not go on: {:?}", house.node(1).fatal()));
    }
    drop(house);
    disk.power_cut_with(&mut |_| Fate::Lost);
    let again = read(&mut start(disk)?, 1)?;
    expected.put("after", "1", 0);
    match again == expected {
        true => Ok(Found::Recovered),
        false => Err(format!("found {again:?} again, not {expected:?}")),
    }
}

/// A disk before anything was done on it.
fn new_disk() -> Memory {
    Memory::new(9)
}

/// What is done to a disk before a program begins on it, told at which operation its points begin.
type Adjust<'a> = &'a dyn Fn(&Memory, u64);

/// Where the points of a life begin (behind its founding, which has a program of its own), and how it is lived.
fn lives<'a>(
    steps: &'a [Step],
    adjust: Adjust<'a>,
) -> (u64, impl Fn(Option<u64>) -> (Memory, Promise) + 'a) {
    // The founding has points of its own.
    let founding = new_disk();
    if !steps.is_empty() {
        drop(start(&founding));
    }
    let first = founding.operations();
    let run = move |stop: Option<u64>| {
        let disk = new_disk();
        adjust(&disk, first);
        disk.stop_at(stop);
        let promise = live(&disk, steps);
        assert!(stop.is_some() || promise.acknowledged == promise.asked, "a step was refused");
        (disk, promise)
    };
    (first, run)
}

/// Every crash of a life, on disks that `adjust` may have made to lie.
pub fn explore(steps: &[Step], adjust: Adjust, depth: Depth) -> Result<Report, String> {
    let (first, run) = lives(steps, adjust);
    crash::explore(depth, first, run, check)
}

/// Every crash of the first start of a lone member.
pub fn explore_founding(adjust: Adjust, depth: Depth) -> Result<Report, String> {
    explore(&[], adjust, depth)
}

/// Every crash of a start after a crash that left much to mend, for some crashes of all lives and of the founding.
pub fn explore_start() -> Result<Report, String> {
    let mut report = Report::default();
    let founding = ("", Vec::new());
    for (_, steps) in programs().into_iter().chain([founding]) {
        let (first, run) = lives(&steps, &honest);
        for (wreck, promise) in crash::wrecks(first, run, 1) {
            let run = |stop| {
                let disk = wreck.fork();
                disk.stop_at(stop);
                drop(start(&disk));
                (disk, &promise)
            };
            let check = |disk: &Memory, promise: &&Promise| check(disk, promise);
            report.add(&crash::explore(Depth::Everything, wreck.operations(), run, check)?);
        }
    }
    Ok(report)
}

fn refusal(disk: &Memory, bootstrap: Bootstrap) -> Result<OpenError, String> {
    let mut node = Node::closed(disk.clone(), small());
    node.open(bootstrap).err().ok_or_else(|| "it starts in spite of it".to_owned())
}

/// Every crash of two lives, and then a bit rots in the oldest entry that the log still has. Behind two more acknowledged requests a mark
/// proves that it had been durable: it is refused as damage, and with the bit put right everything is there.
pub fn explore_rot() -> Result<Report, String> {
    explore_refusals(|disk, promise| {
        if promise.acknowledged < 4 {
            return Ok(Found::Recovered);
        }
        let dir = Path::new("/data/member/wal");
        let mut lines = dump(disk, dir).map_err(|error| error.to_string())?;
        let is_entry = |line: &wal::dump::Line| matches!(line.record, Ok(Record::Entry(_)));
        let line = lines.find(is_entry).ok_or("the log has no entries")?;
        // The newest files may have been cut behind all that was asked for.
        if dump(disk, dir).into_iter().flatten().filter(is_entry).count() < 3 {
            return Ok(Found::Recovered);
        }
        let (file, at) = (dir.join(&line.file), line.offset + line.bytes / 2);
        disk.rot(&file, at, 4);
        let refused = refusal(disk, Bootstrap::Restart);
        disk.rot(&file, at, 4);
        match refused? {
            OpenError::Log(why)
                if why.contains(&*file.to_string_lossy())
                    && (why.contains("had been synced") || why.contains("in the next file")) =>
            {
                Ok(Found::Refused)
            }
            error => Err(format!("refused in other words: {error}")),
        }
    })
}

/// Every crash of two lives, and then a directory is gone. Without its log a member has lost its votes, and must not start. Without its
/// store it is as it was if the log reaches back to its beginning, and must not start if not.
pub fn explore_defunct() -> Result<Report, String> {
    let released = Cell::new(false);
    let report = explore_refusals(|disk, promise| {
        let without = |name: &str| {
            let disk = disk.fork();
            disk.remove_dir_all(&Path::new("/data/member").join(name)).unwrap();
            disk
        };
        let founders = || Bootstrap::New(founders(&[1]));
        match refusal(&without("wal"), founders())? {
            OpenError::Log(why) if why.contains("must not vote again") => {}
            error => return Err(format!("the log is gone: {error}")),
        }
        match refusal(&without("wal"), Bootstrap::Restart)? {
            OpenError::Empty => {}
            error => return Err(format!("the log is gone, and this is no founder: {error}")),
        }
        let wal = disk.list(Path::new("/data/member/wal")).map_err(|error| error.to_string())?;
        // What was released may be back, in part.
        let files = wal.iter().filter(|name| name.ends_with(".wal"));
        let is_whole =
            files.enumerate().all(|(number, name)| name.starts_with(&format!("{number:016x}-")));
        let disk = without("store");
        if is_whole {
            check(&disk, promise)?;
            return Ok(Found::Refused);
        }
        released.set(true);
        match refusal(&disk, Bootstrap::Restart)? {
            OpenError::Log(why)
                if why.contains("but the state holds only") || why.contains("are missing") =>
            {
                Ok(Found::Refused)
            }
            error => Err(format!("the store is gone: {error}")),
        }
    });
    assert!(released.get() || report.is_err(), "no log was ever released");
    report
}

/// Every crash of the first two lives; `damage` breaks something on the disk, or on a copy, and says what became of it. The disk itself
/// is then as it would be.
fn explore_refusals(
    damage: impl Fn(&Memory, &Promise) -> Result<Found, String>,
) -> Result<Report, String> {
    let mut report = Report::default();
    for (_, steps) in programs().into_iter().take(2) {
        let (first, run) = lives(&steps, &honest);
        let check = |disk: &Memory, promise: &Promise| {
            let found = damage(disk, promise)?;
            check(disk, promise)?;
            Ok(found)
        };
        report.add(&crash::explore(Depth::Plain, first, run, check)?);
    }
    Ok(report)
}

/// A cluster of three of which one is away: the others, who need no more of their past, and the one as the power left it.
struct Away {
    others: House,
    away: NodeId,
    /// The disk of the one who is away.
    disk: Memory,
    config: Config,
    /// Its revision, and what the others have.
    before: i64,
    after: (i64, Reply),
    /// The index up to which the others have applied.
    last: u64,
}

/// What the one who was away may be found with.
#[derive(Clone)]
pub struct Told {
    /// It has said that everything is durable.
    everything: bool,
}

impl Away {
    fn new() -> Result<Away, String> {
        let (mut others, leader, away) = away_and_released(PUTS);
        let node = others.node(away);
        let (disk, config) = (node.vfs.fork(), node.config.clone());
        disk.power_cut_with(&mut |_| Fate::Lost);
        let mut node = Node::closed(disk.fork(), config.clone());
        node.open(Bootstrap::Restart).map_err(|error| error.to_string())?;
        let before = node.view().state.revision();
        let view = others.node(leader).view();
        let (revision, last) = (view.state.revision(), view.applied().0);
        let after = (revision, others.node(leader).hash());
        Ok(Away { others, away, disk, config, before, after, last })
    }

    /// The others on disks of their own, with `disk` in the place of the one who was away.
    fn together(&self, disk: &Memory) -> Result<House, String> {
        let mut house = House::new(&[]);
        for (id, node) in &self.others.nodes {
            let disk = if *id == self.away { disk.clone() } else { node.vfs.fork() };
            disk.crash();
            let mut node = Node::closed(disk, node.config.clone());
            let opened = node.open(Bootstrap::Restart);
            if *id != self.away {
                opened.map_err(|error| error.to_string())?;
            }
            house.nodes.insert(*id, node);
        }
        Ok(house)
    }

    /// It comes back and is sent a snapshot, on a disk that stops at `stop`.
    fn run(&self, adjust: Adjust, stop: Option<u64>) -> (Memory, Told) {
        let disk = self.disk.fork();
        adjust(&disk, disk.operations());
        disk.stop_at(stop);
        // Others that had been started again could send it entries.
        let (mut house, ..) = away_and_released(PUTS);
        house.node(self.away).vfs = disk.clone();
        if house.node(self.away).open(Bootstrap::Restart).is_ok() {
            house.ticks(6);
        }
        assert!(stop.is_some() || !house.received.is_empty(), "it was sent no snapshot");
        let is_told = |message: &raft::Message| {
            message.from == self.away
                && message.kind == MessageKind::AppResp
                && !message.reject
                && message.index.0 >= self.last
        };
        (disk, Told { everything: house.sent.iter().any(is_told) })
    }

    fn check(&self, disk: &Memory, told: &Told) -> Result<Found, String> {
        let open = || {
            let mut node = Node::closed(disk.clone(), self.config.clone());
            node.open(Bootstrap::Restart).map_err(|error| error.to_string())?;
            Ok::<_, String>((node.view().state.revision(), node.hash()))
        };
        let found = open()?;
        let is_old = found.0 == self.before && !told.everything;
        if !is_old && found != self.after {
            let said = if told.everything { "it had said so" } else { "it had said nothing" };
            return Err(format!(
                "found revision {}, of {} and then {}; {said}",
                found.0, self.before, self.after.0
            ));
        }
        disk.power_cut_with(&mut |_| Fate::Lost);
        match open()? == found {
            true => Ok(Found::Recovered),
            false => Err("a second start finds another state".to_owned()),
        }
    }

    /// And with the others it comes to what they have.
    fn check_catches_up(&self, disk: &Memory) -> Result<(), String> {
        let mut house = self.together(disk)?;
        if !house.node(self.away).is_up() {
            return Err("it does not start".to_owned());
        }
        let leader = house.elect();
        let id = house.node(leader).put("together", "1");
        house.ticks(12);
        let hashes: BTreeSet<String> =
            house.nodes.values().map(|node| format!("{:?}", node.hash())).collect();
        let is_acknowledged = house.node(leader).is_acknowledged(id);
        match is_acknowledged && hashes.len() == 1 {
            true => Ok(()),
            false => Err(format!("it does not catch up: {is_acknowledged}, {hashes:?}")),
        }
    }
}

/// Every crash of a member that was away, and gets a snapshot: it starts, and has the state that it had or that of the others, which
/// it must have if it has told them so; and it catches up.
pub fn explore_snapshot(adjust: Adjust, depth: Depth) -> Result<Report, String> {
    let away = Away::new()?;
    let run = |stop| away.run(adjust, stop);
    let told = run(None).1;
    assert!(told.everything, "it never says that it has everything");
    let seen = Cell::new(0_u64);
    crash::explore(depth, away.disk.operations(), run, |disk, told| {
        let state = disk.fork();
        let found = away.check(disk, told)?;
        if seen.replace(seen.get() + 1).is_multiple_of(CATCH_UP_EVERY) {
            away.check_catches_up(&state)?;
        }
        Ok(found)
    })
}

/// So many it has missed.
const PUTS: usize = 40;

/// Of so many disks on which a snapshot was being received one is put among the others, to see it catch up: that takes longer
/// than all the rest.
const CATCH_UP_EVERY: u64 = 16;

/// Every crash of the start that finishes what an interrupted installation left, for some such crashes.
pub fn explore_import() -> Result<Report, String> {
    let away = Away::new()?;
    let mut report = Report::default();
    for (wreck, told) in crash::wrecks(away.disk.operations(), |stop| away.run(&honest, stop), 3) {
        let run = |stop| {
            let disk = wreck.fork();
            disk.stop_at(stop);
            let mut node = Node::closed(disk.clone(), away.config.clone());
            drop(node.open(Bootstrap::Restart));
            (disk, told.clone())
        };
        let check = |disk: &Memory, told: &Told| away.check(disk, told);
        report.add(&crash::explore(Depth::Everything, wreck.operations(), run, check)?);
    }
    Ok(report)
}

fn value(round: usize) -> String {
    format!("{round:03}-{}", "x".repeat(150))
}

/// The lives whose every crash is tried.
pub fn programs() -> Vec<Program> {
    const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
    let put = |key, round| Step::Put(key, value(round), 0);
    let mut marks = Vec::new();
    for round in 0..17 {
        marks.push(put(KEYS[round % 5], round));
        if round % 8 == 0 {
            marks.push(Step::Ticks(11));
        }
    }
    let mut compacts = Vec::new();
    for round in 0..18 {
        compacts.push(put(KEYS[round % 3], round));
        match round % 6 {
            2 => compacts.push(Step::Delete(KEYS[round % 3])),
            4 => compacts.push(Step::Compact(1)),
            5 => compacts.push(Step::Ticks(12)),
            _ => {}
        }
    }
    let mut leases = Vec::new();
    for round in 0..3 {
        let id = 70 + round as i64;
        leases.extend([
            Step::Grant(id),
            Step::Put("k", value(round), id),
            Step::Put("l", value(round), id),
            put("l", round),
            Step::Ticks(if round % 2 == 0 { 11 } else { 1 }),
            Step::Revoke(id),
        ]);
    }
    let large = |round: usize| Step::Put("large", format!("{round}-{}", "y".repeat(5_000)), 0);
    let mut larges = Vec::new();
    for round in 0..4 {
        larges.extend([large(round), put("small", round)]);
    }
    larges.extend([Step::Compact(1), Step::Ticks(12), large(9), Step::Ticks(12)]);
    let mut empties = vec![put("a", 0), put("b", 1), put("a", 2), Step::Delete("a")];
    empties.extend([Step::Delete("b"), Step::Compact(0), Step::Ticks(12)]);
    empties.extend([put("a", 3), Step::Delete("a"), Step::Compact(1), Step::Ticks(12)]);
    empties.extend([put("b", 4), Step::Compact(0), Step::Ticks(12)]);
    vec![
        ("member: the log is marked and released behind frames", marks),
        ("member: compactions clear away, and reclaim follows", compacts),
        ("member: leases come and go with their keys", leases),
        ("member: values larger than a segment's rest", larges),
        ("member: everything is deleted, and compacted away", empties),
    ]
}
