//! A member small enough to be obviously right: it drives a store as the real one does, and keeps the state
//! after every entry in plain maps, to compare with what a start finds.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use store::{
    Builder, Flusher, Goal, Location, OpenError, Opened, Options, PutRecord, Reader, Reclaimed,
    Recovered, Revision, Sizes, TornTail, WriteError,
};
use vfs::Vfs;
use vfs::memory::Memory;

pub const DIR: &str = "/member/store";

/// A disk with the directory in which the store's will stand; making that is the caller's business.
pub fn new_disk(seed: u64) -> Memory {
    let disk = Memory::new(seed);
    disk.create_dir_all(dir().parent().unwrap()).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

pub fn dir() -> &'static Path {
    Path::new(DIR)
}

pub fn options() -> Options {
    Options { cluster_id: 0xc1, member_id: 0xa1, segment_bytes: 4 << 10 }
}

/// A change of an entry.
#[derive(Clone, Debug)]
pub enum Change {
    Put(&'static str, String),
    Delete(&'static str),
    Row(u8, &'static str, String),
    DeleteRow(u8, &'static str),
    /// Compacts at the present revision.
    Compact,
}

/// What a member does.
#[derive(Clone, Debug)]
pub enum Step {
    Entry(Vec<Change>),
    /// Takes the frame and writes it.
    Flush,
    Sync,
    Roll,
    /// Runs reclaim to its end, with the frames it needs.
    Reclaim(Goal),
    /// Imports the snapshot of another member, taken at this entry with this content.
    Import(Bytes, State),
    Open,
}

/// The state after an entry. Of each key: the revisions a reader can ask for, `None` for a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub applied: u64,
    pub revision: i64,
    pub mark: i64,
    pub keys: BTreeMap<String, Vec<(i64, Option<String>)>>,
    pub rows: BTreeMap<(u8, String), String>,
}

impl State {
    fn change(&mut self, main: i64, change: &Change) {
        match change {
            Change::Put(key, value) => {
                self.revision = main;
                self.keys.entry((*key).to_owned()).or_default().push((main, Some(value.clone())));
            }
            Change::Delete(key) => {
                self.revision = main;
                self.keys.entry((*key).to_owned()).or_default().push((main, None));
            }
            Change::Row(table, key, value) => {
                self.rows.insert((*table, (*key).to_owned()), value.clone());
            }
            Change::DeleteRow(table, key) => {
                self.rows.remove(&(*table, (*key).to_owned()));
            }
            Change::Compact => {
                self.mark = self.revision;
                self.prune();
            }
        }
    }

    fn prune(&mut self) {
        let mark = self.mark;
        for revisions in self.keys.values_mut() {
            let newest = revisions.iter().rposition(|(main, _)| *main <= mark);
            if let Some(newest) = newest {
                let is_put = revisions[newest].1.is_some();
                revisions.drain(..newest + usize::from(!is_put));
            }
        }
        self.keys.retain(|_, revisions| !revisions.is_empty());
    }
}

#[derive(Clone, Debug)]
struct Indexed {
    revision: Revision,
    location: Location,
    is_put: bool,
}

/// The index: of each key what is in the store and lives, and how many dead puts are still on disk.
#[derive(Default)]
pub struct Index {
    keys: BTreeMap<Vec<u8>, (Vec<Indexed>, u64)>,
    mark: i64,
}

impl Index {
    fn add(&mut self, key: &[u8], record: Indexed) {
        self.keys.entry(key.to_vec()).or_default().0.push(record);
    }

    fn prune(&mut self, builder: &mut Builder, mark: i64) {
        self.keys.retain(|_, (records, dead_puts)| {
            let newest = records.iter().rposition(|record| record.revision.main <= mark);
            for record in records.drain(..newest.unwrap_or(0)) {
                *dead_puts += u64::from(record.is_put);
                builder.dead(&record.location);
            }
            let guards_nothing = newest.is_some() && !records[0].is_put && *dead_puts == 0;
            if guards_nothing {
                builder.dead(&records.remove(0).location);
            }
            !records.is_empty() || *dead_puts > 0
        });
    }

    pub fn is_live(&self, key: &[u8], revision: Revision) -> bool {
        self.keys
            .get(key)
            .is_some_and(|(records, _)| records.iter().any(|r| r.revision == revision))
    }

    pub fn location(&self, key: &str) -> Location {
        self.keys[key.as_bytes()].0.last().unwrap().location
    }
}

pub struct Member {
    pub disk: Memory,
    pub builder: Builder,
    pub flusher: Flusher,
    pub reader: Reader,
    pub index: Index,
    pub rows: BTreeMap<(u8, String), String>,
    pub state: State,
    /// The state after each entry, from the one the start found.
    pub history: BTreeMap<u64, State>,
    pub written: u64,
    /// The compaction mark as of there.
    pub written_mark: i64,
    pub synced: u64,
    pub torn: Option<TornTail>,
    /// For the check of the tombstone rule: all that a start handed over.
    pub recovered: usize,
}

/// Why a step was not done.
#[derive(Debug)]
pub enum Stopped {
    /// With what was said.
    Disk(String),
    Full,
    Refused(OpenError),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Stopped {
        Stopped::Disk(error.to_string())
    }
}

impl Member {
    pub fn open(disk: &Memory) -> Result<Member, OpenError> {
        Member::open_with(disk, options())
    }

    pub fn open_with(disk: &Memory, options: Options) -> Result<Member, OpenError> {
        let mut index = Index::default();
        let mut recovered = 0;
        let mut last = Revision::default();
        let opened = store::open(Arc::new(disk.clone()), dir(), options, &mut |record| {
            recovered += 1;
            let (key, revision, location, is_put) = match record {
                Recovered::Put { key, revision, location, create, version, lease } => {
                    assert_eq!((create, version, lease), (revision.main, 1, -7));
                    (key, revision, location, true)
                }
                Recovered::Tombstone { key, revision, location } => {
                    (key, revision, location, false)
                }
            };
            assert!(revision > last, "{revision:?} after {last:?}");
            last = revision;
            index.add(key, Indexed { revision, location, is_put });
        })?;
        let Opened {
            mut builder,
            flusher,
            reader,
            applied,
            revision,
            compact_revision,
            rows,
            torn,
            ..
        } = opened;
        index.mark = compact_revision;
        index.prune(&mut builder, compact_revision);
        let rows = rows
            .into_iter()
            .map(|row| ((row.table, text(&row.key)), text(&row.value)))
            .collect::<BTreeMap<_, _>>();
        let mut member = Member {
            disk: disk.clone(),
            builder,
            flusher,
            reader,
            index,
            rows: rows.clone(),
            state: State::default(),
            history: BTreeMap::new(),
            written: applied.0,
            written_mark: compact_revision,
            synced: applied.0,
            torn,
            recovered,
        };
        member.state = State {
            applied: applied.0,
            revision,
            mark: compact_revision,
            keys: member.read_all(),
            rows,
        };
        member.history.insert(applied.0, member.state.clone());
        Ok(member)
    }

    /// Reads every value that a reader could ask for from disk.
    pub fn read_all(&self) -> BTreeMap<String, Vec<(i64, Option<String>)>> {
        let mut keys = BTreeMap::new();
        for (key, (records, _)) in &self.index.keys {
            let visible = records
                .iter()
                .filter(|record| record.is_put || record.revision.main > self.index.mark)
                .map(|record| {
                    let bytes = self.reader.read(&record.location).unwrap();
                    let value = record.is_put.then(|| {
                        assert_eq!(bytes[1..1 + key.len()], key[..]);
                        text(&bytes[1 + key.len()..])
                    });
                    (record.revision.main, value)
                })
                .collect::<Vec<_>>();
            if !visible.is_empty() {
                keys.insert(text(key), visible);
            }
        }
        keys
    }

    pub fn step(&mut self, step: &Step) -> Result<(), Stopped> {
        match step {
            Step::Entry(changes) => self.entry(changes),
            Step::Flush => self.flush()?,
            Step::Sync => {
                self.synced = self.flusher.sync()?.index;
            }
            Step::Roll => {
                self.builder.roll();
                self.flush()?;
            }
            Step::Reclaim(goal) => self.reclaim(*goal)?,
            Step::Import(snapshot, state) => {
                let opened =
                    store::open(Arc::new(self.disk.clone()), dir(), options(), &mut |_| {})
                        .map_err(Stopped::Refused)?;
                let mut flusher = opened.flusher;
                flusher.begin_import().map_err(|error| Stopped::Disk(error.to_string()))?;
                // In pieces that end anywhere.
                for piece in snapshot.chunks(700) {
                    flusher.import(piece).map_err(|error| Stopped::Disk(error.to_string()))?;
                }
                // From here on, until the import is known to be done, either state may be found.
                self.history.insert(state.applied, state.clone());
                self.written = state.applied;
                flusher.finish_import().map_err(|error| Stopped::Disk(error.to_string()))?;
                self.synced = state.applied;
                self.step(&Step::Open)?;
            }
            Step::Open => {
                let opened = Member::open(&self.disk).map_err(Stopped::Refused)?;
                let mut history = std::mem::take(&mut self.history);
                history.extend(opened.history.clone());
                *self = Member { history, ..opened };
            }
        }
        Ok(())
    }

    pub fn entry(&mut self, changes: &[Change]) {
        let main = self.state.revision + 1;
        for (sub, change) in changes.iter().enumerate() {
            let revision = Revision { main, sub: sub as i64 };
            match change {
                Change::Put(key, value) => {
                    let mut bytes = vec![key.len() as u8];
                    bytes.extend_from_slice(key.as_bytes());
                    bytes.extend_from_slice(value.as_bytes());
                    let location = self.builder.put(PutRecord {
                        revision,
                        create: main,
                        version: 1,
                        lease: -7,
                        key_offset: 1,
                        key_len: key.len() as u32,
                        key_value: bytes.into(),
                    });
                    self.index.add(key.as_bytes(), Indexed { revision, location, is_put: true });
                }
                Change::Delete(key) => {
                    let location = self.builder.tombstone(revision, Bytes::from(*key));
                    self.index.add(key.as_bytes(), Indexed { revision, location, is_put: false });
                }
                Change::Row(table, key, value) => {
                    self.builder.row(*table, Bytes::from(*key), value.clone().into());
                    self.rows.insert((*table, (*key).to_owned()), value.clone());
                }
                Change::DeleteRow(table, key) => {
                    self.builder.delete_row(*table, Bytes::from(*key));
                    self.rows.remove(&(*table, (*key).to_owned()));
                }
                Change::Compact => {
                    self.builder.compact(self.state.revision);
                    self.index.mark = self.state.revision;
                }
            }
            self.state.change(main, change);
        }
        self.state.applied += 1;
        self.builder.end_entry(self.state.applied, 1);
        self.history.insert(self.state.applied, self.state.clone());
    }

    pub fn flush(&mut self) -> Result<(), Stopped> {
        let mark = self.index.mark;
        let Some(mut frame) = self.builder.take_frame() else { return Ok(()) };
        let before = self.written;
        // A write that fails half-way may still be found whole.
        self.written = frame.applied().map_or(before, |(index, _)| index);
        match self.flusher.write(&frame) {
            Ok(written) => {
                self.synced = written.sealed.map_or(self.synced, |synced| synced.index);
            }
            Err(WriteError::Full) => {
                // The frame is kept by its owner, who says what it knows, makes room and comes again.
                self.flusher.note(&mut frame);
                self.reclaim_without_frames(Goal::Everything)?;
                self.flusher.write(&frame).map_err(|_| Stopped::Full)?;
            }
            Err(WriteError::Failed(error)) => return Err(Stopped::Disk(error.to_string())),
        }
        self.on_written(mark);
        Ok(())
    }

    /// A frame is written at whose end the compaction mark was `mark`: it counts for reclaim from now on, and not before.
    pub fn on_written(&mut self, mark: i64) {
        self.written_mark = mark;
        self.index.prune(&mut self.builder, mark);
    }

    /// Reclaim as far as it comes while no frame can be written.
    fn reclaim_without_frames(&mut self, goal: Goal) -> Result<(), Stopped> {
        while !matches!(self.reclaim_once(goal, 256)?, Reclaimed::Idle | Reclaimed::Roll) {}
        Ok(())
    }

    pub fn reclaim(&mut self, goal: Goal) -> Result<(), Stopped> {
        // The flusher must hear of the deaths: they follow what kills.
        self.flush()?;
        self.flush()?;
        for _ in 0..10_000 {
            match self.reclaim_once(goal, 256)? {
                Reclaimed::Idle => return Ok(()),
                Reclaimed::Roll => {
                    self.builder.roll();
                    self.flush()?;
                    // What was pending went to the old segment; now the new one is heard of.
                    self.flush()?;
                }
                _ => {}
            }
        }
        panic!("reclaim does not come to an end");
    }

    pub fn reclaim_once(&mut self, goal: Goal, bytes_max: usize) -> Result<Reclaimed, Stopped> {
        let index = &self.index;
        let done = self
            .flusher
            .reclaim(goal, bytes_max, &mut |key, revision| index.is_live(key, revision))
            .map_err(|error| Stopped::Disk(error.to_string()))?;
        match &done {
            Reclaimed::Relocate(batch) => {
                for moved in batch {
                    let records = self.index.keys.get_mut(&moved.key[..]);
                    let record = records
                        .and_then(|(all, _)| all.iter_mut().find(|r| r.revision == moved.revision));
                    match record {
                        Some(record) => record.location = moved.to,
                        None => self.builder.dead(&moved.to),
                    }
                }
            }
            Reclaimed::Gone(batch) => {
                for gone in batch {
                    let (records, dead_puts) = self.index.keys.get_mut(&gone.key[..]).unwrap();
                    assert!(!records.iter().any(|r| r.revision == gone.revision));
                    *dead_puts -= 1;
                }
                self.index.prune(&mut self.builder, self.written_mark);
            }
            _ => {}
        }
        Ok(done)
    }

    pub fn snapshot(&self) -> Bytes {
        let mut stream = Vec::new();
        let mut snapshot = self.flusher.snapshot().unwrap();
        while let Some(chunk) = snapshot.next_chunk(512, &mut |_, _| true).unwrap() {
            stream.extend_from_slice(&chunk);
        }
        stream.into()
    }

    pub fn sizes(&self) -> Sizes {
        self.flusher.sizes()
    }

    /// What the index reads is what the entries said.
    pub fn check(&self) {
        assert_eq!(self.read_all(), self.state.keys);
        assert_eq!(self.rows, self.state.rows);
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub fn put(key: &'static str, value: &str) -> Step {
    Step::Entry(vec![Change::Put(key, value.to_owned())])
}

pub fn delete(key: &'static str) -> Step {
    Step::Entry(vec![Change::Delete(key)])
}

pub fn file(name: &str) -> PathBuf {
    dir().join(name)
}
