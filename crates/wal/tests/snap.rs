//! Snapshots in files beside the log: whatever the moment of a crash, the newest one that counts is found again with
//! all that follows it.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use raft::{
    ConfState, Entry, EntryKind, HardState, Index, Ready, Snapshot, SnapshotMetadata, Term,
};
use vfs::memory::Memory;
use vfs::{OpenMode, Vfs};
use wal::snap::Storage;
use wal::{Metadata, OpenError, Options, Recovered, WriteError};

fn dir() -> &'static Path {
    Path::new("/snap")
}

fn open(disk: &Memory) -> Result<(Storage, Snapshot, Recovered), OpenError> {
    let metadata = Metadata { node_id: 1, cluster_id: 2 };
    let options = Options { segment_bytes: 2048 };
    Storage::open(Arc::new(disk.clone()), "/wal", dir(), metadata, options)
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    let entry = |index| Entry {
        kind: EntryKind::Normal,
        term: Term(term),
        index: Index(index),
        data: Bytes::from(format!("entry {index} of term {term}, {}", "x".repeat(90))),
    };
    range.map(entry).collect()
}

fn state(term: u64, commit: u64) -> HardState {
    HardState { term: Term(term), vote: 1, commit: Index(commit) }
}

fn snapshot(index: u64, term: u64) -> Snapshot {
    let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    let metadata = SnapshotMetadata { conf_state, index: Index(index), term: Term(term) };
    Snapshot { data: Bytes::from(format!("all up to {index}, {}", "y".repeat(700))), metadata }
}

fn names(disk: &Memory) -> Vec<String> {
    disk.list(dir()).unwrap()
}

/// What raft wants remembered: entries and a state, and a snapshot if it has received one.
fn ready(entries: Vec<Entry>, state: HardState, snapshot: Option<Snapshot>) -> Ready {
    Ready { entries, hard_state: Some(state), snapshot, must_sync: true, ..Ready::default() }
}

/// What is durable at least: the snapshot's index, and the last entry's.
type Promise = (u64, u64);

/// A node's life: entries, a snapshot of its own, more entries, and one of the leader's far ahead. Each time something is
/// durable, `promise` is told.
fn live(disk: &Memory, promise: &mut Promise) -> Result<(), WriteError> {
    let Ok((mut storage, _, _)) = open(disk) else { return Ok(()) };
    storage.save(&ready(entries(1..=20, 1), state(1, 20), None))?;
    *promise = (0, 20);

    storage.keep(&snapshot(15, 1), Index(10))?;
    *promise = (15, 20);
    storage.save(&ready(entries(21..=30, 1), state(2, 25), None))?;
    *promise = (15, 30);

    storage.save(&ready(entries(51..=52, 2), state(2, 50), Some(snapshot(50, 2))))?;
    *promise = (50, 52);
    storage.keep(&snapshot(52, 2), Index(50))?;
    *promise = (52, 52);
    Ok(())
}

/// The world is stopped before each changing operation of that life, in turn, and the power goes, in many ways. The next
/// start finds what was promised, and goes on.
#[test]
fn a_crash_at_any_moment_loses_nothing() {
    let whole = Memory::new(1);
    live(&whole, &mut (0, 0)).unwrap();
    let operations = whole.operations();
    assert!(operations > 20, "the life has {operations} operations");
    for stop in 0..=operations {
        for seed in 0..24 {
            let disk = Memory::new(1);
            disk.stop_at(Some(stop));
            let mut promise = (0, 0);
            let ended = live(&disk, &mut promise);
            assert!(ended.is_err() || promise == (0, 0) || stop >= operations);
            disk.power_cut(seed);
            disk.stop_at(None);

            let when = format!("stopped before operation {stop}, seed {seed}");
            let (mut storage, found, log) =
                open(&disk).unwrap_or_else(|error| panic!("{when}: {error}"));
            let (index, term) = (found.metadata.index.0, found.metadata.term.0);
            assert!(index >= promise.0, "{when}: found {index}, promised {}", promise.0);
            assert!(
                log.last.0 >= promise.1,
                "{when}: ends at {}, promised {}",
                log.last,
                promise.1
            );
            if index > 0 {
                assert_eq!(found, snapshot(index, term), "{when}");
            }
            let last = log.last;
            let follows = log.entries.first().is_none_or(|first| first.index == Index(index + 1));
            assert!(follows, "{when}: the entries begin with {:?}", log.entries.first());
            let restored = log.into_restored(Index(index), found.metadata.conf_state);
            assert_eq!(restored.applied, Index(index), "{when}");

            let received = Some(snapshot(last.0 + 1, 3));
            storage.save(&ready(Vec::new(), state(3, last.0 + 1), received)).unwrap();
            drop(storage);
            assert_eq!(open(&disk).unwrap().1, snapshot(last.0 + 1, 3), "{when}");
        }
    }
}

/// The file is etcd's: its name, and the message in it.
#[test]
fn a_snapshots_file_is_etcds() {
    let disk = Memory::new(1);
    let (mut storage, none, _) = open(&disk).unwrap();
    assert_eq!(none, Snapshot::default());
    storage.save(&ready(entries(1..=1, 1), state(1, 1), None)).unwrap();
    let conf_state = ConfState { voters: vec![5], ..ConfState::default() };
    let metadata = SnapshotMetadata { conf_state, index: Index(1), term: Term(1) };
    let small = Snapshot { data: Bytes::from("state"), metadata };
    storage.keep(&small, Index(0)).unwrap();
    assert_eq!(names(&disk), ["0000000000000001-0000000000000001.snap"]);
    let file = disk.open(&dir().join(&names(&disk)[0]), OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();

    // raftpb: the data, then the metadata: a configuration with voter 5 and no auto_leave, index 1, term 1.
    let data = b"\x0a\x05state\x12\x0a\x0a\x04\x08\x05\x28\x00\x10\x01\x18\x01";
    let mut expected = vec![0x08];
    let mut crc = crc32c::crc32c(data);
    while crc >= 0x80 {
        expected.push(crc as u8 | 0x80);
        crc >>= 7;
    }
    expected.extend([crc as u8, 0x12, data.len() as u8]);
    expected.extend(data);
    assert_eq!(bytes, expected);
}

/// A file that is missing or damaged although the log relies on it is named, and the start refused.
#[test]
fn what_is_damaged_is_refused() {
    let disk = Memory::new(1);
    let (mut storage, _, _) = open(&disk).unwrap();
    storage.save(&ready(entries(1..=20, 1), state(1, 20), None)).unwrap();
    storage.keep(&snapshot(15, 1), Index(0)).unwrap();
    let error = open(&disk).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("somebody else has it open"), "{error}");
    drop(storage);
    let path = dir().join(&names(&disk)[0]);
    let len = disk.open(&path, OpenMode::Read).unwrap().len().unwrap();
    for offset in 0..len {
        let rotten = disk.fork();
        rotten.rot(&path, offset, 0x10);
        let error = open(&rotten).map(|_| ()).unwrap_err();
        assert!(matches!(error, OpenError::Rotten { .. }), "byte {offset}: {error}");
        assert!(error.to_string().contains(".snap"), "byte {offset}: {error}");
    }
    disk.unlink(&path).unwrap();
    let error = open(&disk).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Gap(_)), "{error}");
}

/// A founder writes the cluster's beginning once. If a crash has kept a part of it, it is written again; over anything else
/// it is not.
#[test]
fn a_log_is_founded_once() {
    let beginning = || raft::founding([1, 2, 3].map(|id| (id, Bytes::from("an address"))));
    let found = |disk: &Memory| {
        let (mut storage, _, mut log) = open(disk).unwrap();
        let is_done = storage.wal.found(&mut log, beginning()).unwrap();
        (is_done, log)
    };
    let with_entries = |entries: &[Entry]| {
        let disk = Memory::new(1);
        let entries = Ready { entries: entries.to_vec(), must_sync: true, ..Ready::default() };
        open(&disk).unwrap().0.save(&entries).unwrap();
        disk
    };
    for kept in 0..=3 {
        let disk = with_entries(&beginning().0[..kept]);
        let (is_done, told) = found(&disk);
        assert!(is_done, "with {kept} entries");
        assert_eq!((told.entries.clone(), told.hard_state), beginning());
        let (is_done, read) = found(&disk);
        assert!(!is_done, "it has begun");
        assert_eq!((read.entries, read.hard_state), (told.entries, told.hard_state));
        assert_eq!((read.last, read.term_runs), (told.last, told.term_runs));
    }
    let disk = with_entries(&entries(1..=2, 1));
    let (is_done, log) = found(&disk);
    assert!(!is_done && log.has_not_begun(), "a leader has written here");
    assert_eq!(log.entries, entries(1..=2, 1));
}
