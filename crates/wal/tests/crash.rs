//! Every crash of short lives of a log, and every subset of what was not synced: what was synced is there, what
//! was never written is not, and the log opens and goes on.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use raft::{ConfState, Entry, EntryKind, HardState, Index, Term};
use vfs::memory::{Fate, Memory, Unsynced};
use vfs::{OpenMode, Vfs};
use wal::{Metadata, OpenError, Options, Recovered, SnapshotRecord, Wal, WriteError};

const METADATA: Metadata = Metadata { node_id: 1, cluster_id: 2 };
const SEGMENT_BYTES: u64 = 2048;

/// Up to so many pending pieces all subsets are tried; beyond, so many drawn from a seed.
const PIECES_MAX: usize = 7;
const DRAWN: u64 = 96;

fn dir() -> &'static Path {
    Path::new("/wal")
}

fn options() -> Options {
    Options { segment_bytes: SEGMENT_BYTES }
}

fn entry(index: u64, term: u64, len: usize) -> Entry {
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
enum Step {
    Append { from: u64, to: u64, term: u64, len: usize, commit: Option<u64> },
    Snapshot { index: u64, term: u64, commit: u64 },
    Sync,
    Release(u64),
}

/// What the log should hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    entries: BTreeMap<u64, Entry>,
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
struct Life {
    pictures: Vec<Model>,
    /// The picture at the last sync.
    synced: usize,
    /// The state's applied index, by which the log was released.
    applied: u64,
}

impl Life {
    fn new() -> Life {
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
fn live(steps: &[Step], stop: Option<u64>) -> (Memory, Life) {
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
fn recover(disk: &Memory, life: &Life) -> Result<(), String> {
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

/// Crashes a life at every operation, with every subset of what is pending then (or many of them), torn sectors
/// among them. Returns how many states were tried.
fn crash_everywhere(steps: &[Step]) -> u64 {
    let (whole, _) = live(steps, None);
    let (start, _) = live(&[], None);
    let operations = whole.operations() - start.operations();
    let mut states = 0;
    for stop in 0..=operations {
        let (disk, life) = live(steps, Some(stop));
        disk.stop_at(None);
        let pending = disk.unsynced();
        let mut check = |what: &dyn Fn() -> String, fork: Memory| {
            states += 1;
            if let Err(why) = recover(&fork, &life) {
                panic!("crash before operation {stop}, {}: {why}\n{pending:#?}", what());
            }
        };

        let fork = disk.fork();
        fork.crash();
        check(&|| "nothing lost".to_owned(), fork);

        let pieces = pending.len();
        let subsets = if pieces <= PIECES_MAX { 1 << pieces } else { 0 };
        for subset in 0..subsets {
            // All kept whole or lost; then each kept sector torn somewhere.
            for torn in [None, Some(8), Some(211), Some(505)] {
                let fork = disk.fork();
                let mut piece = 0;
                fork.power_cut_with(&mut |unsynced| {
                    piece += 1;
                    let is_kept = subset >> (piece - 1) & 1u64 == 1;
                    match (is_kept, unsynced, torn) {
                        (false, _, _) => Fate::Lost,
                        (true, Unsynced::Sector { .. }, Some(n)) => Fate::Torn(n),
                        (true, _, _) => Fate::Kept,
                    }
                });
                check(&|| format!("subset {subset:b} of {pieces}, torn {torn:?}"), fork);
            }
        }
        for seed in 0..DRAWN {
            let fork = disk.fork();
            fork.power_cut(seed ^ stop << 8);
            check(&|| format!("seed {seed}"), fork);
        }
    }
    states
}

/// Small and large batches, several to a sync, states between them.
#[test]
fn appends_survive_every_crash() {
    let append = |from, to, len, commit| Step::Append { from, to, term: 1, len, commit };
    let states = crash_everywhere(&[
        append(1, 1, 10, None),
        Step::Sync,
        append(2, 4, 100, Some(1)),
        append(5, 5, 1, None),
        Step::Sync,
        append(6, 6, 900, Some(4)),
        append(7, 9, 20, Some(6)),
        Step::Sync,
    ]);
    assert!(states > 900, "{states}");
}

/// Entries of a new term replace those of an old one, synced or not.
#[test]
fn replacing_entries_survives_every_crash() {
    let states = crash_everywhere(&[
        Step::Append { from: 1, to: 6, term: 1, len: 60, commit: Some(2) },
        Step::Sync,
        Step::Append { from: 4, to: 5, term: 2, len: 200, commit: Some(2) },
        Step::Append { from: 5, to: 7, term: 3, len: 30, commit: Some(4) },
        Step::Sync,
    ]);
    assert!(states > 500, "{states}");
}

/// Files are cut, in the middle of what is not synced too.
#[test]
fn cuts_survive_every_crash() {
    let steps: Vec<Step> = (0..8)
        .flat_map(|i| {
            let append =
                Step::Append { from: i * 3 + 1, to: i * 3 + 3, term: 1, len: 250, commit: Some(i) };
            if i % 3 == 1 { vec![append, Step::Sync] } else { vec![append] }
        })
        .collect();
    let states = crash_everywhere(&steps);
    assert!(states > 3000, "{states}");
}

/// Snapshot records of the own state, with releases of what lies below; what was unlinked may be back.
#[test]
fn releases_survive_every_crash() {
    let mut steps = Vec::new();
    for i in 0..10 {
        steps.push(Step::Append { from: i + 1, to: i + 1, term: 1, len: 900, commit: Some(i) });
        steps.push(Step::Sync);
    }
    steps.push(Step::Snapshot { index: 9, term: 1, commit: 9 });
    steps.push(Step::Sync);
    steps.push(Step::Release(8));
    steps.push(Step::Append { from: 11, to: 12, term: 1, len: 100, commit: Some(10) });
    steps.push(Step::Sync);
    let states = crash_everywhere(&steps);
    assert!(states > 3000, "{states}");
}

/// A received snapshot takes the place of the log, and entries follow behind it.
#[test]
fn received_snapshots_survive_every_crash() {
    for (index, term) in [(50, 3), (5, 3)] {
        let states = crash_everywhere(&[
            Step::Append { from: 1, to: 8, term: 1, len: 50, commit: Some(3) },
            Step::Sync,
            Step::Snapshot { index, term, commit: index },
            Step::Sync,
            Step::Append { from: index + 1, to: index + 4, term, len: 300, commit: Some(index) },
            Step::Sync,
        ]);
        assert!(states > 800, "{states}");
    }
}

/// While a log is being made there is none, or a whole one; making it again succeeds.
#[test]
fn making_a_log_survives_every_crash() {
    let make = |disk: &Memory| Wal::create(Arc::new(disk.clone()), dir(), METADATA, options());
    let whole = Memory::new(7);
    make(&whole).unwrap();
    for stop in 0..=whole.operations() {
        let disk = Memory::new(7);
        disk.stop_at(Some(stop));
        let is_made = make(&disk).is_ok();
        disk.stop_at(None);
        let pieces = disk.unsynced().len();
        assert!(pieces <= 12, "{pieces} pending pieces");
        for subset in 0..1u64 << pieces {
            let fork = disk.fork();
            let mut piece = 0;
            fork.power_cut_with(&mut |_| {
                piece += 1;
                if subset >> (piece - 1) & 1 == 1 { Fate::Kept } else { Fate::Lost }
            });
            if Wal::exists(&fork, dir()).unwrap() {
                assert_eq!(recover(&fork, &Life::new()), Ok(()));
            } else {
                assert!(!is_made, "a log that was made is gone");
                make(&fork).unwrap();
            }
        }
    }
}

fn last_file(disk: &Memory) -> PathBuf {
    dir().join(disk.list(dir()).unwrap().pop().unwrap())
}

/// The end of the log as a crash leaves it, cut at each byte of the last record: the records before are there.
#[test]
fn a_last_record_cut_at_each_byte_is_torn() {
    let append = |from, to| Step::Append { from, to, term: 1, len: 700, commit: None };
    let (disk, _) = live(&[append(1, 1)], None);
    let (whole, _) = live(&[append(1, 1), append(2, 2)], None);
    let path = last_file(&disk);
    let end_of = |disk: &Memory| {
        let (wal, _) = Wal::open(Arc::new(disk.fork()), dir(), Index(0), options()).unwrap();
        wal.bytes()
    };
    let (start, end) = (end_of(&disk), end_of(&whole));
    assert!(end - start > 700);
    for cut in start..end {
        for regrown in [false, true] {
            let fork = whole.fork();
            let file = fork.open(&path, OpenMode::Write).unwrap();
            file.truncate(cut).unwrap();
            if regrown {
                file.preallocate(SEGMENT_BYTES).unwrap();
            }
            let vfs = Arc::new(fork.clone());
            let (_, found) = Wal::open(vfs, dir(), Index(0), options()).unwrap();
            let len = found.entries.len();
            // The padding of the last record may be missing; nothing of it is.
            assert!(len == 1 || (len == 2 && cut > end - 8), "cut at {cut} of {start}..{end}");
            if len == 1 && cut > start {
                let torn = found.torn.unwrap();
                assert_eq!((torn.offset, torn.file), (start, path.clone()));
                assert!(torn.lost_bytes > 0 && torn.lost_bytes <= cut - start);
            }
        }
    }
}

/// A byte that rots anywhere but in the last batch is refused, with the place; in the last batch it is refused or
/// reported as torn, and never read as something that was not written.
#[test]
fn each_rotten_byte_is_noticed() {
    let append = |from, to, len| Step::Append { from, to, term: 1, len, commit: Some(from - 1) };
    let (disk, life) = live(
        &[
            append(1, 2, 100),
            Step::Sync,
            append(3, 12, 150),
            Step::Sync,
            append(13, 13, 40),
            Step::Sync,
            append(14, 15, 60),
            Step::Sync,
        ],
        None,
    );
    let files = disk.list(dir()).unwrap();
    assert_eq!(files.len(), 2);
    let mut last_batch_refused = 0;
    for (i, name) in files.iter().enumerate() {
        let path = dir().join(name);
        let lines: Vec<_> =
            wal::dump::dump(&disk, dir()).unwrap().filter(|l| l.file == *name).collect();
        let marks = lines.iter().filter(|l| matches!(l.record, Ok(wal::dump::Record::Crc(_))));
        let last_mark = marks.last().unwrap().offset;
        let end = if i == 0 {
            disk.open(&path, OpenMode::Read).unwrap().len().unwrap()
        } else {
            let (wal, _) = Wal::open(Arc::new(disk.fork()), dir(), Index(0), options()).unwrap();
            let first = disk.open(&dir().join(&files[0]), OpenMode::Read).unwrap().len().unwrap();
            wal.bytes() - first
        };
        for offset in 0..end {
            for mask in [1, 0x80] {
                let fork = disk.fork();
                fork.rot(&path, offset, mask);
                let opened = Wal::open(Arc::new(fork.clone()), dir(), Index(0), options());
                let is_in_last_batch = i == 1 && offset >= last_mark;
                match opened {
                    Err(OpenError::Rotten { file, offset: at, .. }) => {
                        assert!(file == path || at == 0, "rot in {name} is told of {file:?}");
                        assert!(
                            at <= offset || file != path,
                            "byte {offset} of {name} is told at {at}"
                        );
                        last_batch_refused += u64::from(is_in_last_batch);
                    }
                    Err(error) => panic!("byte {offset} of {name}: {error}"),
                    Ok((_, found)) => {
                        assert!(is_in_last_batch, "byte {offset} of {name}, mask {mask}");
                        let whole = life.pictures.last().unwrap();
                        assert!(found.torn.is_some(), "byte {offset} of {name} went unnoticed");
                        assert!(
                            found
                                .entries
                                .iter()
                                .eq(whole.entries.values().take(found.entries.len()))
                        );
                    }
                }
            }
        }
    }
    assert!(last_batch_refused > 0);
}

/// A record's type is not covered by its checksum, so an entry and a state that rot into each other must be told
/// apart by what they say, wherever they stand.
#[test]
fn a_rotten_type_is_noticed() {
    let conf_change = Entry {
        kind: EntryKind::ConfChange,
        data: Bytes::from_static(&[0x08, 1, 0x10, 0, 0x18, 5]),
        ..entry(3, 1, 0)
    };
    let state = |commit| HardState { term: Term(1), vote: 1, commit: Index(commit) };
    let disk = Memory::new(7);
    let mut wal = Wal::create(Arc::new(disk.clone()), dir(), METADATA, options()).unwrap();
    wal.append(&[entry(1, 1, 0), entry(2, 1, 9), conf_change], Some(&state(2))).unwrap();
    wal.sync().unwrap();
    let path = last_file(&disk);
    let lines: Vec<_> = wal::dump::dump(&disk, dir()).unwrap().collect();
    let mut tried = 0;
    for line in lines {
        use wal::dump::Record;
        if !matches!(line.record, Ok(Record::Entry(_) | Record::State(_))) {
            continue;
        }
        tried += 1;
        let fork = disk.fork();
        fork.rot(&path, line.offset + 9, 1);
        let error = Wal::open(Arc::new(fork), dir(), Index(0), options()).err().unwrap();
        let is_told = matches!(&error, OpenError::Rotten { offset, .. } if *offset == line.offset);
        assert!(is_told, "{:?}: {error}", line.record);
    }
    assert_eq!(tried, 4);
}

/// A torn tail is cut off only above the applied state: below it the bytes had been synced.
#[test]
fn a_tail_below_the_state_is_rot() {
    let append = |from, to| Step::Append { from, to, term: 1, len: 300, commit: None };
    let (disk, _) = live(&[append(1, 3), Step::Sync], None);
    let path = last_file(&disk);
    let file = disk.open(&path, OpenMode::Write).unwrap();
    file.write_at(&[0; 512], 512).unwrap();
    let open = |from| Wal::open(Arc::new(disk.fork()), dir(), Index(from), options());
    assert!(open(1).unwrap().1.torn.is_some());
    let error = open(3).err().unwrap().to_string();
    assert!(error.contains("the state holds 3"), "{error}");
    assert!(error.contains("remove it from the cluster"), "{error}");
}

/// Whatever stands in a file, opening it says what is wrong; it does not panic and does not ask for memory that
/// the file does not have.
#[test]
fn hostile_files_never_panic() {
    let (disk, _) = live(
        &[Step::Append { from: 1, to: 5, term: 1, len: 50, commit: Some(3) }, Step::Sync],
        None,
    );
    let path = last_file(&disk);
    let mut random = 88_172_645_463_325_252u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for _ in 0..3000 {
        let fork = disk.fork();
        let file = fork.open(&path, OpenMode::Write).unwrap();
        for _ in 0..1 + next() % 4 {
            let bytes = next().to_le_bytes();
            let len = 1 + (next() % 8) as usize;
            file.write_at(&bytes[..len], next() % 600).unwrap();
        }
        let _lines = wal::dump::dump(&fork, dir()).unwrap().count();
        match Wal::open(Arc::new(fork.clone()), dir(), Index(0), options()) {
            Ok((_, found)) => assert!(found.entries.len() <= 5),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
