//! Short lives of a member, and what may be found of them after a crash: the state behind some of the requests that were
//! made, in their order; behind all that were acknowledged, and behind no other.

use std::collections::BTreeMap;

use proto::etcdserverpb::RangeRequest;
use raft::NodeId;
use replica::{Bootstrap, Config, SegmentBytes};
use state_machine::{Answer, Effort, Reply};
use vfs::crash::{self, Found, Report};
use vfs::memory::{Failure, Fate, Memory, Operation, OperationKind, Unsynced};

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

/// What can be read: the revision, and each key with its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    revision: i64,
    keys: BTreeMap<String, String>,
    leases: BTreeMap<i64, Vec<String>>,
}

impl State {
    fn new() -> State {
        State { revision: 1, ..State::default() }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Put(key, value, lease) => {
                self.revision += 1;
                self.keys.insert((*key).to_owned(), value.clone());
                for keys in self.leases.values_mut() {
                    keys.retain(|known| known != key);
                }
                if let Some(keys) = self.leases.get_mut(lease) {
                    keys.push((*key).to_owned());
                }
            }
            Step::Delete(key) => {
                self.revision += i64::from(self.keys.remove(*key).is_some());
            }
            Step::Grant(id) => drop(self.leases.insert(*id, Vec::new())),
            Step::Revoke(id) => {
                let keys = self.leases.remove(id).unwrap();
                self.revision += i64::from(!keys.is_empty());
                keys.iter().for_each(|key| drop(self.keys.remove(key)));
            }
            Step::Compact(_) | Step::Ticks(_) => {}
        }
    }
}

/// What a start may find.
#[derive(Clone)]
pub struct Promise {
    /// The states behind each request.
    states: Vec<State>,
    acknowledged: usize,
    asked: usize,
}

/// A disk that does what it says.
pub fn honest(_disk: &Memory) {}

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
    NamesAboveTheMember,
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
    Lie::NamesAboveTheMember,
];

/// Makes a disk lie.
pub fn lying(disk: &Memory, lie: Lie) {
    let (kind, part) = match lie {
        Lie::SyncsOfTheLog | Lie::EachThirdSyncOfTheLog => (OperationKind::Sync, "member/wal"),
        Lie::NamesOfTheLog => (OperationKind::SyncDir, "member/wal"),
        Lie::SyncsOfTheStore => (OperationKind::Sync, "member/store"),
        Lie::NamesOfTheStore => (OperationKind::SyncDir, "member/store"),
        Lie::SyncsOfAReceivedSnapshot => (OperationKind::Sync, "member/incoming"),
        Lie::NamesOfReceivedSnapshots => (OperationKind::SyncDir, "member/incoming"),
        Lie::NamesAboveTheMember => (OperationKind::SyncDir, ""),
    };
    let is_rare = lie == Lie::EachThirdSyncOfTheLog;
    let is_it = move |operation: &Operation| {
        operation.kind == kind
            && operation.path.to_string_lossy().contains(part)
            && (!part.is_empty() || !operation.path.starts_with("/data/member"))
            && (!is_rare || operation.number.is_multiple_of(3))
    };
    disk.fail(is_it, u64::MAX, Failure::Lie);
}

/// All that is bounded is small, so that files are cut, marked, released and reclaimed all the time.
fn small() -> Config {
    let mut config = config(1);
    config.snapshot_count = 12;
    config.snapshot_catchup_entries = 4;
    config.limits.frame_bytes = 2_000;
    config.segment_bytes = SegmentBytes { wal: 4 << 10, store: 8 << 10 };
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
            Step::Grant(id) => grant_request(*id, 6_000),
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

fn read(house: &mut House, id: NodeId) -> State {
    let view = house.node(id).view();
    let all =
        RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..RangeRequest::default() };
    let Ok(Answer::Ready(Reply::Range(reply))) = view.state.range(&all, Effort::Disk) else {
        panic!("the keyspace cannot be read")
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let key_values = reply.key_values.iter().map(|kv| mvcc::key_value::decode(kv).unwrap());
    let keys = key_values.map(|kv| (text(&kv.key), text(&kv.value))).collect();
    let leases = view.state.leases().into_iter().map(|lease| (lease.id, Vec::new())).collect();
    State { revision: view.state.revision(), keys, leases }
}

fn check(disk: &Memory, promise: &Promise) -> Result<Found, String> {
    let mut house = start(disk)?;
    let found = read(&mut house, 1);
    let may_be = &promise.states[promise.acknowledged..=promise.asked];
    let is_it = |state: &State| {
        state.revision == found.revision
            && state.keys == found.keys
            && state.leases.keys().eq(found.leases.keys())
    };
    if !may_be.iter().any(is_it) {
        return Err(format!("found {found:?}, which is none of {may_be:?}"));
    }
    // And it goes on, and finds that again when the power has gone.
    let id = house.node(1).put("after", "1");
    house.settle();
    if !house.node(1).is_acknowledged(id) {
        return Err(format!("it does not go on: {:?}", house.node(1).fatal()));
    }
    drop(house);
    disk.power_cut_with(&mut |_| Fate::Lost);
    let again = read(&mut start(disk)?, 1);
    let mut expected = found;
    expected.keys.insert("after".to_owned(), "1".to_owned());
    expected.revision += 1;
    match again == expected {
        true => Ok(Found::Recovered),
        false => Err(format!("found {again:?} again, not {expected:?}")),
    }
}

/// A disk before anything was done on it.
fn new_disk(adjust: &dyn Fn(&Memory)) -> Memory {
    let disk = Memory::new(9);
    adjust(&disk);
    disk
}

/// Every crash of a life, from its founding on.
pub fn explore(steps: &[Step], adjust: &dyn Fn(&Memory)) -> Result<Report, String> {
    let founding = new_disk(&honest);
    drop(start(&founding)?);
    let run = |stop| {
        let disk = new_disk(adjust);
        disk.stop_at(stop);
        let promise = live(&disk, steps);
        (disk, promise)
    };
    crash::explore(founding.operations(), run, check)
}

/// Every crash of the first start of a lone member.
pub fn explore_founding(adjust: &dyn Fn(&Memory)) -> Result<Report, String> {
    let run = |stop| {
        let disk = new_disk(adjust);
        disk.stop_at(stop);
        let promise = live(&disk, &[]);
        (disk, promise)
    };
    crash::explore(0, run, check)
}

/// Every crash of a start after a crash that left much to mend.
pub fn explore_start() -> Result<Report, String> {
    let (_, steps) = programs().swap_remove(0);
    let disk = new_disk(&honest);
    let operations = {
        live(&disk, &steps);
        disk.operations()
    };
    // Where most is pending.
    let (before, promise) = (operations / 2..operations)
        .map(|stop| {
            let disk = new_disk(&honest);
            disk.stop_at(Some(stop));
            let promise = live(&disk, &steps);
            (disk, promise)
        })
        .max_by_key(|(disk, _)| disk.unsynced().len())
        .unwrap();
    before.stop_at(None);
    let mut piece = 0;
    before.power_cut_with(&mut |unsynced| {
        piece += 1;
        match unsynced {
            Unsynced::Sector { .. } if piece % 3 == 0 => Fate::Torn(256),
            _ if piece % 2 == 0 => Fate::Lost,
            _ => Fate::Kept,
        }
    });
    let run = |stop| {
        let disk = before.fork();
        disk.stop_at(stop);
        drop(start(&disk));
        (disk, promise.clone())
    };
    crash::explore(before.operations(), run, check)
}

/// Every crash of a member that was away, and gets a snapshot: it starts, and has a state that the others had, not before the one
/// that it had said it has on disk; and it catches up.
pub fn explore_snapshot(adjust: &dyn Fn(&Memory)) -> Result<Report, String> {
    let (mut whole, leader, away) = away_and_released(40);
    let node = whole.node(away);
    let (base, config) = (node.vfs.fork(), node.config.clone());
    base.power_cut_with(&mut |_| Fate::Lost);
    // What the others have been behind each revision.
    let before = {
        let mut node = Node::closed(base.fork(), config.clone());
        node.open(Bootstrap::Restart).map_err(|error| error.to_string())?;
        node.view().state.revision()
    };
    let after = (whole.node(leader).view().state.revision(), whole.node(leader).hash());
    let run = |stop| {
        let (mut house, _, away) = away_and_released(40);
        let disk = base.fork();
        adjust(&disk);
        disk.stop_at(stop);
        house.node(away).vfs = disk.clone();
        if house.node(away).open(Bootstrap::Restart).is_ok() {
            house.ticks(6);
        }
        // What it says it has applied, others may rely on.
        let installed = house.node(away).is_up() && house.node(away).fatal().is_none();
        (disk, installed && stop.is_none())
    };
    let check = |disk: &Memory, is_done: &bool| {
        let open = || {
            let mut node = Node::closed(disk.clone(), config.clone());
            node.open(Bootstrap::Restart).map_err(|error| error.to_string())?;
            Ok::<_, String>((node.view().state.revision(), node.hash()))
        };
        let found = open()?;
        let is_old = found.0 == before && !is_done;
        if !is_old && found != after {
            return Err(format!("found revision {}, neither {before} nor {}", found.0, after.0));
        }
        disk.power_cut_with(&mut |_| Fate::Lost);
        match open()? == found {
            true => Ok(Found::Recovered),
            false => Err("a second start finds another state".to_owned()),
        }
    };
    crash::explore(base.operations(), run, check)
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
    vec![
        ("member: the log is marked and released behind frames", marks),
        ("member: compactions clear away, and reclaim follows", compacts),
        ("member: leases come and go with their keys", leases),
        ("member: values larger than a segment's rest", larges),
    ]
}
