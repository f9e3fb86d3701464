//! Short lives of a log, and what may be found of them after a crash.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use raft::{ConfState, Entry, EntryKind, HardState, Index, Term};
use vfs::Vfs;
use vfs::crash::{self, Found, Report};
use vfs::memory::{Fate, Memory};
use wal::{Metadata, Options, Recovered, SnapshotRecord, Wal, WriteError};

pub const METADATA: Metadata = Metadata { node_id: 1, cluster_id: 2 };
pub const SEGMENT_BYTES: u64 = 2048;

pub fn dir() -> &'static Path {
    Path::new("/wal")
}

pub fn options() -> Options {
    Options { segment_bytes: SEGMENT_BYTES }
}

pub fn entry(index: u64, term: u64, len: usize) -> Entry {
    // Neither zeros nor repetitions: a lost part must not look like what was written.
    let byte = |i: usize| (index as usize * 31 + term as usize * 7 + i * 13) as u8 | 1;
    let data: Vec<u8> = (0..len).map(byte).collect();
    Entry {
        kind: EntryKind::Normal,
        term: Term(term),
        index: Index(index),
        data: Bytes::from(data),
    }
}

/// What the log's owner does.
#[derive(Clone, Debug)]
pub enum Step {
    Append { from: u64, to: u64, term: u64, len: usize, commit: Option<u64> },
    Snapshot { index: u64, term: u64, commit: u64 },
    Sync,
    Release(u64),
}

/// What the log should hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub entries: BTreeMap<u64, Entry>,
    base: (u64, u64),
    state: HardState,
    snapshots: Vec<(u64, u64)>,
}

impl Model {
    fn append(&mut self, entry: &Entry) {
        self.entries.split_off(&entry.index.0);
        self.entries.insert(entry.index.0, entry.clone());
    }

    fn snapshot(&mut self, index: u64, term: u64) {
        self.snapshots.push((index, term));
        let held = self.entries.get(&index).map(|entry| entry.term.0);
        if held != Some(term) && (index, term) != self.base && index >= self.base.0 {
            self.entries.clear();
            self.base = (index, term);
        }
    }

    fn last(&self) -> u64 {
        self.entries.keys().next_back().copied().unwrap_or(self.base.0)
    }
}

/// What the log may hold after a crash: at least the picture at the last sync, at most the last one, record by
/// record between them.
pub struct Life {
    pub pictures: Vec<Model>,
    /// The picture at the last sync.
    synced: usize,
    /// The state's applied index, by which the log was released.
    applied: u64,
}

impl Life {
    pub fn new() -> Life {
        Life { pictures: vec![Model::default()], synced: 0, applied: 0 }
    }

    fn note(&mut self, change: impl FnOnce(&mut Model)) {
        let mut next = self.pictures.last().unwrap().clone();
        change(&mut next);
        self.pictures.push(next);
    }

    /// Carries out a step on the log; what it may have written counts as written before it is known to have
    /// succeeded, what it made durable only afterwards.
    fn step(&mut self, wal: &mut Wal, step: &Step) -> Result<(), WriteError> {
        match *step {
            Step::Append { from, to, term, len, commit } => {
                let entries: Vec<Entry> = (from..=to).map(|i| entry(i, term, len)).collect();
                for entry in &entries {
                    self.note(|model| model.append(entry));
                }
                let state = commit.map(|commit| HardState {
                    term: Term(term),
                    vote: 1,
                    commit: Index(commit),
                });
                if let Some(state) = state {
                    self.note(|model| model.state = state);
                }
                wal.append(&entries, state.as_ref())
            }
            Step::Snapshot { index, term, commit } => {
                self.note(|model| model.snapshot(index, term));
                let conf_state = Some(ConfState { voters: vec![1], ..ConfState::default() });
                let record = SnapshotRecord { index: Index(index), term: Term(term), conf_state };
                wal.save_snapshot(&record)?;
                let state = HardState { term: Term(term), vote: 1, commit: Index(commit) };
                self.note(|model| model.state = state);
                wal.append(&[], Some(&state))
            }
            Step::Sync => {
                wal.sync()?;
                self.synced = self.pictures.len() - 1;
                Ok(())
            }
            Step::Release(up_to) => {
                self.applied = self.pictures.last().unwrap().snapshots.last().unwrap().0;
                wal.release(Index(up_to)).map(|_| ())
            }
        }
    }

    /// Whether what was found is one of the pictures that may be found.
    fn check(&self, found: &Recovered) -> Result<(), String> {
        let matches = |model: &Model| {
            let last = found.last.0 == model.last();
            let from = self.applied.max(found.base.0.0);
            let expected = model.entries.range(from + 1..).map(|(_, entry)| entry);
            last && found.entries.iter().eq(expected)
                && found.hard_state == model.state
                && found.snapshots.last().map(|s| (s.index.0, s.term.0))
                    == model.snapshots.last().copied()
        };
        if self.pictures[self.synced..].iter().any(matches) {
            return Ok(());
        }
        Err(format!(
            "found up to {} with {:?} and {:?}; synced was up to {} with {:?}",
            found.last,
            found.hard_state,
            found.snapshots,
            self.pictures[self.synced].last(),
            self.pictures[self.synced].state,
        ))
    }
}

/// Lives through `steps` and stops before the operation `stop`. Returns the disk as it was then.
pub fn live(steps: &[Step], stop: Option<u64>) -> (Memory, Life) {
    let disk = Memory::new(7);
    let mut wal = Wal::create(Arc::new(disk.clone()), dir(), METADATA, options()).unwrap();
    let mut life = Life::new();
    let start = disk.operations();
    disk.stop_at(stop.map(|stop| start + stop));
    for step in steps {
        if life.step(&mut wal, step).is_err() {
            assert!(stop.is_some(), "{step:?} failed");
            break;
        }
    }
    (disk, life)
}

/// Opens the log, compares it with what it may hold, and goes on: appends, syncs, loses the power, opens again.
pub fn recover(disk: &Memory, life: &Life) -> Result<(), String> {
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    let open =
        || Wal::open(vfs.clone(), dir(), Index(life.applied), options()).map_err(|e| e.to_string());
    let (mut wal, found) = open()?;
    life.check(&found)?;
    let next = entry(found.last.0 + 1, 99, 40);
    wal.append(std::slice::from_ref(&next), None).map_err(|e| e.to_string())?;
    wal.sync().map_err(|e| e.to_string())?;
    drop(wal);
    disk.power_cut_with(&mut |_| Fate::Lost);
    let (_, again) = open()?;
    let mut expected = found.entries;
    expected.push(next);
    if again.torn.is_some() || again.entries != expected {
        return Err(format!("after going on: {:?}, {} entries", again.torn, again.entries.len()));
    }
    Ok(())
}

/// A life, and what it shows.
pub type Program = (&'static str, Vec<Step>);

/// The lives whose every crash is tried.
pub fn programs() -> Vec<Program> {
    let append = |from, to, len, commit| Step::Append { from, to, term: 1, len, commit };
    let cuts = (0..8).flat_map(|i| {
        let append = append(i * 3 + 1, i * 3 + 3, 250, Some(i));
        if i % 3 == 1 { vec![append, Step::Sync] } else { vec![append] }
    });
    // What was unlinked may be back.
    let mut releases = Vec::new();
    for i in 0..10 {
        releases.extend([append(i + 1, i + 1, 900, Some(i)), Step::Sync]);
    }
    releases.extend([
        Step::Snapshot { index: 9, term: 1, commit: 9 },
        Step::Sync,
        Step::Release(8),
        append(11, 12, 100, Some(10)),
        Step::Sync,
    ]);
    let received = |index, term| {
        vec![
            append(1, 8, 50, Some(3)),
            Step::Sync,
            Step::Snapshot { index, term, commit: index },
            Step::Sync,
            Step::Append { from: index + 1, to: index + 4, term, len: 300, commit: Some(index) },
            Step::Sync,
        ]
    };
    vec![
        (
            "log: appends, small and large, several to a sync",
            vec![
                append(1, 1, 10, None),
                Step::Sync,
                append(2, 4, 100, Some(1)),
                append(5, 5, 1, None),
                Step::Sync,
                append(6, 6, 900, Some(4)),
                append(7, 9, 20, Some(6)),
                Step::Sync,
            ],
        ),
        (
            "log: entries of a new term replace those of an old one",
            vec![
                Step::Append { from: 1, to: 6, term: 1, len: 60, commit: Some(2) },
                Step::Sync,
                Step::Append { from: 4, to: 5, term: 2, len: 200, commit: Some(2) },
                Step::Append { from: 5, to: 7, term: 3, len: 30, commit: Some(4) },
                Step::Sync,
            ],
        ),
        ("log: files are cut in the middle of what is not synced", cuts.collect()),
        ("log: a long life of batches and syncs, new terms and marks", long()),
        ("log: segments are released below a snapshot's record", releases),
        ("log: a received snapshot lies above it", received(50, 3)),
        ("log: a received snapshot takes its end away", received(5, 3)),
    ]
}

/// Batches of all sizes, most of them synced together with others; now and then a new term takes some of the end away, or
/// the state has a snapshot.
fn long() -> Vec<Step> {
    let (mut steps, mut last, mut term, mut synced) = (Vec::new(), 0, 1, 0);
    for round in 0..70u64 {
        let draw = round * round * 31 + round * 17;
        let mut from = last + 1;
        if draw % 11 == 3 && last > synced + 1 {
            term += 1;
            from = last;
        }
        last = from + draw % 3;
        let commit = (draw % 2 == 0).then_some(synced);
        steps.push(Step::Append { from, to: last, term, len: (draw * 13 % 400) as usize, commit });
        if draw % 4 == 1 {
            steps.push(Step::Sync);
            synced = last;
        }
        if draw % 23 == 7 && synced == last {
            steps.push(Step::Snapshot { index: last, term, commit: last });
            steps.push(Step::Sync);
            steps.push(Step::Release(last.saturating_sub(3)));
        }
    }
    steps
}

/// Every crash of a life.
pub fn explore(steps: &[Step]) -> Result<Report, String> {
    let first = live(&[], None).0.operations();
    let run = |stop: Option<u64>| live(steps, stop.map(|stop| stop - first));
    crash::explore(first, run, |disk, life| recover(disk, life).map(|()| Found::Recovered))
}

/// Every crash while a log is made: there is none, or a whole one; making it again succeeds.
pub fn explore_making() -> Result<Report, String> {
    let make = |disk: &Memory| Wal::create(Arc::new(disk.clone()), dir(), METADATA, options());
    let run = |stop| {
        let disk = Memory::new(7);
        disk.stop_at(stop);
        let is_made = make(&disk).is_ok();
        (disk, is_made)
    };
    crash::explore(0, run, |disk, is_made| {
        if !Wal::exists(disk, dir()).map_err(|error| error.to_string())? {
            if *is_made {
                return Err("a log that was made is gone".to_owned());
            }
            make(disk).map_err(|error| error.to_string())?;
        }
        recover(disk, &Life::new()).map(|()| Found::Recovered)
    })
}
