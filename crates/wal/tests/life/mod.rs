//! Short lives of a log, and what may be found of them after a crash.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use raft::{ConfState, Entry, EntryKind, HardState, Index, Term};
use vfs::Vfs;
use vfs::crash::{self, Depth, Found, Report};
use vfs::memory::{Fate, Memory};
use wal::dump::{Record, dump};
use wal::{Metadata, OpenError, Options, Recovered, SnapshotRecord, Wal, WriteError};

pub const METADATA: Metadata = Metadata { node_id: 1, cluster_id: 2 };
pub const SEGMENT_BYTES: u64 = 2048;

pub fn dir() -> &'static Path {
    Path::new("/wal")
}

/// Large enough for six batches of ten sectors.
pub const LARGE_SEGMENT_BYTES: u64 = 32 << 10;

pub fn options() -> Options {
    segments_of(SEGMENT_BYTES)
}

fn segments_of(segment_bytes: u64) -> Options {
    Options { segment_bytes }
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
#[derive(Clone)]
pub struct Life {
    pub pictures: Vec<Model>,
    /// The picture at the last sync.
    synced: usize,
    /// How often something new was synced.
    syncs: usize,
    segment_bytes: u64,
    /// The state's applied index, by which the log was released.
    applied: u64,
}

impl Life {
    pub fn new(segment_bytes: u64) -> Life {
        Life { pictures: vec![Model::default()], synced: 0, syncs: 0, segment_bytes, applied: 0 }
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
                self.syncs += usize::from(self.synced < self.pictures.len() - 1);
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
    live_on(Memory::new(7), SEGMENT_BYTES, steps, stop)
}

fn live_on(disk: Memory, segment_bytes: u64, steps: &[Step], stop: Option<u64>) -> (Memory, Life) {
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    let mut wal = Wal::create(vfs, dir(), METADATA, segments_of(segment_bytes)).unwrap();
    let mut life = Life::new(segment_bytes);
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
    let options = || segments_of(life.segment_bytes);
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

/// A life, the size of its segments, and what it shows.
pub struct Program {
    pub name: &'static str,
    pub segment_bytes: u64,
    pub steps: Vec<Step>,
}

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
    let above = vec![
        append(1, 8, 50, Some(3)),
        Step::Sync,
        Step::Snapshot { index: 50, term: 3, commit: 50 },
        Step::Sync,
        Step::Append { from: 51, to: 54, term: 3, len: 300, commit: Some(50) },
        Step::Sync,
    ];
    // In the middle of several files, twice, and the files below are released.
    let mut within = Vec::new();
    for i in 0..6 {
        within.extend([append(i * 2 + 1, i * 2 + 2, 500, Some(i)), Step::Sync]);
    }
    within.extend([
        append(13, 13, 40, None),
        Step::Snapshot { index: 5, term: 3, commit: 5 },
        Step::Sync,
        Step::Append { from: 6, to: 7, term: 4, len: 700, commit: Some(6) },
        Step::Snapshot { index: 30, term: 4, commit: 30 },
        Step::Sync,
        Step::Release(30),
        Step::Append { from: 31, to: 31, term: 4, len: 90, commit: None },
        Step::Sync,
    ]);
    // Each batch is one write over ten sectors, and its records end at other places in them.
    let batches = |batches: &[(u64, usize)]| {
        let (mut steps, mut last) = (Vec::new(), 0);
        for (count, len) in batches {
            steps.extend([append(last + 1, last + count, *len, Some(last)), Step::Sync]);
            last += count;
        }
        steps
    };
    let small = batches(&[(13, 320), (40, 81), (7, 625), (20, 200), (30, 121), (10, 425)]);
    let large = batches(&[(1, 4_546), (2, 2_255), (1, 4_550), (3, 1_490), (1, 4_545), (2, 2_260)]);
    let program = |name, steps| Program { name, segment_bytes: SEGMENT_BYTES, steps };
    let roomy = |name, steps| Program { name, segment_bytes: LARGE_SEGMENT_BYTES, steps };
    vec![
        program(
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
        program(
            "log: entries of a new term replace those of an old one",
            vec![
                Step::Append { from: 1, to: 6, term: 1, len: 60, commit: Some(2) },
                Step::Sync,
                Step::Append { from: 4, to: 5, term: 2, len: 200, commit: Some(2) },
                Step::Append { from: 5, to: 7, term: 3, len: 30, commit: Some(4) },
                Step::Sync,
            ],
        ),
        program("log: files are cut in the middle of what is not synced", cuts.collect()),
        program("log: a long life of batches and syncs, new terms and marks", long()),
        program("log: segments are released below a snapshot's record", releases),
        program("log: a received snapshot lies above it", above),
        program("log: received snapshots take its end away, and its files", within),
        roomy("log: batches of many records in ten sectors", small),
        roomy("log: records as large as ten sectors", large),
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

/// What is done to a disk before a program begins on it, told at which operation its points begin.
type Adjust<'a> = &'a dyn Fn(&Memory, u64);

/// Where the points of a life begin, and how it is lived.
fn lives<'a>(
    program: &'a Program,
    adjust: Adjust<'a>,
) -> (u64, impl Fn(Option<u64>) -> (Memory, Life) + 'a) {
    let first = live_on(Memory::new(7), program.segment_bytes, &[], None).0.operations();
    let run = move |stop: Option<u64>| {
        let disk = Memory::new(7);
        adjust(&disk, first);
        live_on(disk, program.segment_bytes, &program.steps, stop.map(|stop| stop - first))
    };
    (first, run)
}

/// Every crash of a life, on disks that `adjust` may have made to lie.
pub fn explore(program: &Program, adjust: Adjust, depth: Depth) -> Result<Report, String> {
    let (first, run) = lives(program, adjust);
    crash::explore(depth, first, run, |disk, life| recover(disk, life).map(|()| Found::Recovered))
}

/// Every crash of an open after a crash that left something to mend, for some crashes of all lives.
pub fn explore_open() -> Result<Report, String> {
    let mut report = Report::default();
    for program in programs() {
        let (first, run) = lives(&program, &|_, _| {});
        for (wreck, life) in crash::wrecks(first, run, 2) {
            let run = |stop| {
                let disk = wreck.fork();
                disk.stop_at(stop);
                let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
                drop(Wal::open(vfs, dir(), Index(life.applied), segments_of(life.segment_bytes)));
                (disk, &life)
            };
            let check =
                |disk: &Memory, life: &&Life| recover(disk, life).map(|()| Found::Recovered);
            report.add(&crash::explore(Depth::Everything, wreck.operations(), run, check)?);
        }
    }
    Ok(report)
}

/// Every crash of some lives, and then a bit rots in the first entry. As soon as a mark behind it proves that it had been durable,
/// the log is refused, as damaged, with the file; nothing is mended by that, for with the bit put right everything is there.
pub fn explore_rot() -> Result<Report, String> {
    explore_refusals(|disk, life| {
        if life.syncs < 2 {
            return Ok(None);
        }
        let mut lines = dump(disk, dir()).map_err(|error| error.to_string())?;
        let is_entry = |line: &wal::dump::Line| matches!(line.record, Ok(Record::Entry(_)));
        let line = lines.find(is_entry).ok_or("the first entry is not there")?;
        let (file, at) = (dir().join(&line.file), line.offset + line.bytes / 2);
        let before = disk.image();
        disk.rot(&file, at, 4);
        let opened =
            Wal::open(Arc::new(disk.clone()), dir(), Index(0), segments_of(life.segment_bytes));
        disk.rot(&file, at, 4);
        if disk.image() != before {
            return Err("what was refused was changed".to_owned());
        }
        match opened {
            Err(OpenError::Rotten { file: named, .. }) if named == file => Ok(Some(())),
            Err(error) => Err(format!("refused in other words: {error}")),
            Ok(_) => Err(format!("a rotten byte {at} of {} is not noticed", file.display())),
        }
    })
}

/// Every crash of some lives, and then a file in the middle of the log is gone: it is refused, as a gap.
pub fn explore_gap() -> Result<Report, String> {
    explore_refusals(|disk, life| {
        let names = disk.list(dir()).map_err(|error| error.to_string())?;
        let files: Vec<&String> = names.iter().filter(|name| name.ends_with(".wal")).collect();
        if files.len() < 3 {
            return Ok(None);
        }
        let disk = disk.fork();
        disk.unlink(&dir().join(files[1])).map_err(|error| error.to_string())?;
        match Wal::open(Arc::new(disk), dir(), Index(0), segments_of(life.segment_bytes)) {
            Err(OpenError::Gap(_)) => Ok(Some(())),
            Err(error) => Err(format!("refused in other words: {error}")),
            Ok(_) => Err(format!("{} is gone, and nobody misses it", files[1])),
        }
    })
}

/// Every crash of the lives that release nothing; `damage` breaks something that must be refused, if it is there, and puts it
/// right again. Then everything is as it would be.
fn explore_refusals(
    damage: impl Fn(&Memory, &Life) -> Result<Option<()>, String>,
) -> Result<Report, String> {
    let mut report = Report::default();
    for program in programs() {
        let keeps = |step: &Step| matches!(step, Step::Append { .. } | Step::Sync);
        if !program.steps.iter().all(keeps) || program.segment_bytes != SEGMENT_BYTES {
            continue;
        }
        let (first, run) = lives(&program, &|_, _| {});
        let check = |disk: &Memory, life: &Life| {
            let refused = damage(disk, life)?;
            recover(disk, life)?;
            Ok(if refused.is_some() { Found::Refused } else { Found::Recovered })
        };
        report.add(&crash::explore(Depth::Everything, first, run, check)?);
    }
    Ok(report)
}

/// Every crash while a log is made: there is none, or a whole one; making it again succeeds.
pub fn explore_making(adjust: Adjust, depth: Depth) -> Result<Report, String> {
    let make = |disk: &Memory| Wal::create(Arc::new(disk.clone()), dir(), METADATA, options());
    let run = |stop| {
        let disk = Memory::new(7);
        adjust(&disk, 0);
        disk.stop_at(stop);
        let is_made = make(&disk).is_ok();
        (disk, is_made)
    };
    crash::explore(depth, 0, run, |disk, is_made| {
        if !Wal::exists(disk, dir()).map_err(|error| error.to_string())? {
            if *is_made {
                return Err("a log that was made is gone".to_owned());
            }
            make(disk).map_err(|error| error.to_string())?;
        }
        recover(disk, &Life::new(SEGMENT_BYTES)).map(|()| Found::Recovered)
    })
}
