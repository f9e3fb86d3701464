//! The log, open for appending: one thread owns it, appends what raft hands out, and syncs.
//!
//! ```text
//!   append ──▶ one buffer ──▶ one write ──▶ file full? ──no──▶ done, durable with the next sync
//!                                               │yes
//!                                               ▼  cut
//!          trim, sync │ make 0.tmp: head, sync │ rename to its name │ sync the directory
//! ```
//!
//! Whatever moment of a cut a crash hits, the log is whole: before the rename is durable the old file is the last
//! one, and full; afterwards the new one is, with a head that was synced before.
//!
//! The first write after a sync begins with a crc record, the *sync mark*: it says that all before it is durable,
//! and lets recovery tell rot from a torn tail (`recover.rs`). It costs sixteen bytes per sync.
//!
//! A write or sync that failed leaves unknown what is durable. The log is poisoned then: every later call
//! fails, and the process is to end.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use mutant::Mutant;
use raft::{Entry, HardState, Index, Term};
use vfs::{File, Vfs};

use crate::codec;
use crate::frame::Writer;
use crate::layout::{Layout, Place, Segment};
use crate::reader::Reader;
use crate::{Metadata, OpenError, Options, Recovered, SnapshotRecord, WriteError};
use crate::{recover, segment};

/// The log, open for appending. Call [`Wal::append`] and [`Wal::save_snapshot`] as often as there is something,
/// then [`Wal::sync`] once, then tell whoever waits.
pub struct Wal {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    options: Options,
    /// As it stands in every file.
    metadata: Vec<u8>,
    hard_state: HardState,
    /// Shared with the readers; held for the time of a look-up or of noting a batch, never across a call to
    /// the disk.
    layout: Arc<Mutex<Layout>>,
    /// The last file.
    file: Arc<dyn File>,
    /// Its sequence number.
    sequence: u64,
    /// Where the next frame goes in it.
    offset: u64,
    writer: Writer,
    /// Index, term and place of each entry of the batch in the writer.
    batch: Vec<(Index, Term, Place)>,
    is_synced: bool,
    /// Whether the next write is the first after a sync.
    is_mark_due: bool,
    /// The newest snapshot record, and the file it stands in.
    snapshot: Option<(Index, u64)>,
    /// Of these, the newest durable one.
    synced_snapshot: Option<(Index, u64)>,
    /// What failed first; then nothing is done any more.
    poison: Option<String>,
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal")
            .field("dir", &self.dir)
            .field("sequence", &self.sequence)
            .field("offset", &self.offset)
            .field("last_index", &self.last_index())
            .field("poison", &self.poison)
            .finish_non_exhaustive()
    }
}

impl Wal {
    /// Makes a new log in the directory `dir`, which must not exist while the one above it must. On return it is
    /// durable, and so is its name. What an earlier attempt left is removed.
    pub fn create(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        metadata: Metadata,
        options: Options,
    ) -> Result<Wal, WriteError> {
        let mut bytes = Vec::new();
        codec::encode_metadata(&metadata, &mut bytes);
        let mut head = Writer::new(0);
        head.crc();
        head.metadata(&bytes);
        // Every reader looks for the record of the snapshot it starts from; this is that of an empty state.
        head.snapshot(&SnapshotRecord::default());
        let name = segment::name(0, Index(0));
        let made = make_dir(&*vfs, dir, &name, &options, &head);
        let file = made.map_err(|error| WriteError {
            doing: format!("making a new log in {}", dir.display()),
            error,
        })?;

        let mut layout = Layout::new();
        layout.on_snapshot(Index(0), Term(0));
        let offset = head.bytes.len() as u64;
        layout.segments.push_back(Segment {
            sequence: 0,
            first: Index(0),
            name,
            file: file.clone(),
            bytes: offset,
        });
        Ok(Wal {
            vfs,
            dir: dir.to_owned(),
            options,
            metadata: bytes,
            hard_state: HardState::default(),
            layout: Arc::new(Mutex::new(layout)),
            file,
            sequence: 0,
            offset,
            writer: Writer::new(head.crc),
            batch: Vec::new(),
            is_synced: true,
            is_mark_due: false,
            snapshot: None,
            synced_snapshot: None,
            poison: None,
        })
    }

    /// Whether `dir` holds a log.
    pub fn exists(vfs: &dyn Vfs, dir: &Path) -> io::Result<bool> {
        if !vfs.exists(dir)? {
            return Ok(false);
        }
        Ok(vfs.list(dir)?.iter().any(|name| segment::parse_name(name).is_some()))
    }

    /// Reads the log in `dir` and makes it ready to be appended to: a torn tail is cut off and zeroed, leftovers
    /// are removed. `from` is the applied index of the state that is durable elsewhere (0: none): entries
    /// up to it are checked but not returned, and a log that does not reach it, from either side, is refused.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        from: Index,
        options: Options,
    ) -> Result<(Wal, Recovered), OpenError> {
        let found = recover::read(&*vfs, dir, from)?;
        let end = found.layout.segments.back().expect("a log has files");
        let (file, sequence, offset) = (end.file.clone(), end.sequence, end.bytes);
        // A sync that failed ended the process that asked for it, and left its bytes in the kernel's memory, where they are
        // taken for written: what no mark vouches for is written again, so that the sync below means what it says.
        let (at, bytes) = &found.unproven;
        file.write_at(bytes, *at).map_err(OpenError::Io)?;
        prepare_end(&*file, offset, found.is_dirty, &options).map_err(OpenError::Io)?;
        for name in &found.leftovers {
            vfs.unlink(&dir.join(name)).map_err(OpenError::Io)?;
        }
        // A process that died, with the power staying, leaves names that are there and not durable.
        vfs.sync_dir(dir).map_err(OpenError::Io)?;
        vfs.sync_dir(parent(dir)).map_err(OpenError::Io)?;

        let metadata =
            codec::decode_metadata(&found.metadata).map_err(|error| OpenError::Rotten {
                file: dir.join(&end.name),
                offset: 0,
                what: format!("the metadata hold {error}"),
            })?;
        let recovered = Recovered {
            metadata,
            hard_state: found.hard_state,
            base: found.layout.base(),
            term_runs: found.layout.runs.iter().copied().collect(),
            last: found.layout.last,
            entries: found.entries,
            torn: found.torn,
            snapshots: found.snapshots,
        };
        let newest = recovered.snapshots.last().map(|s| (s.index, found.snapshot_sequence));
        let wal = Wal {
            vfs,
            dir: dir.to_owned(),
            options,
            metadata: found.metadata,
            hard_state: found.hard_state,
            layout: Arc::new(Mutex::new(found.layout)),
            file,
            sequence,
            offset,
            writer: Writer::new(found.crc),
            batch: Vec::new(),
            is_synced: true,
            is_mark_due: true,
            snapshot: newest,
            synced_snapshot: newest,
            poison: None,
        };
        Ok((wal, recovered))
    }

    /// Begins the log of a new cluster with what [`raft::founding`] tells, durable on return and told in `log`. False, and
    /// nothing is done, if the log has begun; or if it holds anything else, for then a leader has written to it: the others
    /// have founded the cluster, and it will go on.
    pub fn found(
        &mut self,
        log: &mut Recovered,
        (entries, hard_state): (Vec<Entry>, HardState),
    ) -> Result<bool, WriteError> {
        if !log.has_not_begun() || !entries.starts_with(&log.entries) {
            return Ok(false);
        }
        self.append(&entries, Some(&hard_state))?;
        self.sync()?;
        log.last = hard_state.commit;
        log.term_runs =
            entries.first().map(|first| (first.index, first.term)).into_iter().collect();
        (log.entries, log.hard_state) = (entries, hard_state);
        Ok(true)
    }

    /// Writes entries and then the state, with one write. Entries follow each other; the first may lie at or
    /// below the last index, and then replaces all from there on. Durable only after [`Wal::sync`]. A full
    /// file is followed by a new one here.
    ///
    /// Panics if the entries have a gap, or replace what is below the log's beginning.
    pub fn append(
        &mut self,
        entries: &[Entry],
        state: Option<&HardState>,
    ) -> Result<(), WriteError> {
        if entries.is_empty() && state.is_none() {
            return self.check();
        }
        let mut expected = None;
        if let Some(first) = entries.first() {
            let (base, last) = (self.base().0, self.last_index());
            assert!(
                first.index > base && first.index <= last.next(),
                "entries from {} on, but the log holds those after {base} up to {last}",
                first.index
            );
            expected = Some(first.index);
        }
        self.begin()?;
        for entry in entries {
            assert_eq!(Some(entry.index), expected, "entries with a gap");
            expected = Some(entry.index.next());
            let offset = self.offset + self.writer.bytes.len() as u64;
            let place = Place { sequence: self.sequence, offset, crc: self.writer.crc };
            self.batch.push((entry.index, entry.term, place));
            self.writer.entry(entry);
        }
        if let Some(state) = state {
            self.writer.state(state);
            self.hard_state = *state;
        }
        self.write(None)
    }

    /// Writes a snapshot record; durable only after [`Wal::sync`]. If the log does not hold an entry of this
    /// index and term, it is emptied and goes on after the snapshot: that is a snapshot received from the
    /// leader, whose state must be durable before. A record below the log's beginning changes nothing.
    ///
    /// For a received snapshot, append a state with commit ≥ its index right after it, before the sync.
    pub fn save_snapshot(&mut self, snapshot: &SnapshotRecord) -> Result<(), WriteError> {
        self.begin()?;
        self.writer.snapshot(snapshot);
        self.write(Some(snapshot))
    }

    /// Makes all that was written durable, with one fdatasync; does nothing if all is.
    pub fn sync(&mut self) -> Result<(), WriteError> {
        self.check()?;
        if self.is_synced {
            return Ok(());
        }
        let skip = mutant::is(Mutant::LogUnsynced);
        let result = if skip { Ok(()) } else { self.file.sync() };
        self.attempt("syncing the log", result)?;
        self.is_synced = true;
        self.is_mark_due = true;
        self.synced_snapshot = self.snapshot;
        Ok(())
    }

    /// Unlinks the files whose entries all lie below `up_to`, so that the entry there, or one before it, still gives
    /// its term; the last one, and those from the newest durable snapshot record on, stay. Returns how many went.
    ///
    /// Panics if no durable snapshot record lies at or above `up_to`: who reads the log later would not know
    /// that the entries are not needed.
    pub fn release(&mut self, up_to: Index) -> Result<usize, WriteError> {
        self.check()?;
        let Some((snapshot, sequence)) = self.synced_snapshot else {
            assert!(up_to == Index(0), "release up to {up_to} without a snapshot record");
            return Ok(0);
        };
        assert!(up_to <= snapshot, "release up to {up_to}, the snapshot record is at {snapshot}");
        let names: Vec<String> = {
            let layout = self.layout();
            let segments = &layout.segments;
            let is_needed = |(segment, next): &(&Segment, &Segment)| {
                next.first > up_to || segment.sequence >= sequence
            };
            segments
                .iter()
                .zip(segments.iter().skip(1))
                .take_while(|pair| !is_needed(pair))
                .map(|(segment, _)| segment.name.clone())
                .collect()
        };
        if names.is_empty() {
            return Ok(0);
        }
        for name in &names {
            let result = self.vfs.unlink(&self.dir.join(name));
            self.attempt("unlinking a released file of the log", result)?;
            let mut layout = self.layout();
            let front = layout.segments.front().expect("the last file stays").sequence;
            layout.release(front + 1);
        }
        let result = self.vfs.sync_dir(&self.dir);
        self.attempt("syncing the log's directory", result)?;
        Ok(names.len())
    }

    /// A handle to read entries back from the disk, for those who have let go of them.
    pub fn reader(&self) -> Reader {
        Reader::new(self.layout.clone(), self.dir.clone())
    }

    /// The first index that [`Reader::read`] gives, if the log has entries: one above the base.
    pub fn first_index(&self) -> Index {
        self.base().0.next()
    }

    /// The last index written; that of the base if there are no entries.
    pub fn last_index(&self) -> Index {
        self.layout().last
    }

    /// The place after which the log begins.
    pub fn base(&self) -> (Index, Term) {
        self.layout().base()
    }

    /// The term of the entry at `index`, if it is the base or in the log.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.layout().term_at(index)
    }

    /// The last state written.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Bytes written into the files that the log has now, without what is only preallocated.
    pub fn bytes(&self) -> u64 {
        self.layout().segments.iter().map(|segment| segment.bytes).sum()
    }

    /// How many files the log has.
    pub fn segments(&self) -> usize {
        self.layout().segments.len()
    }

    fn layout(&self) -> MutexGuard<'_, Layout> {
        // A panic while it was held is one of our own assertions, after which the log must not go on.
        self.layout.lock().expect("the log's layout is whole")
    }

    fn check(&self) -> Result<(), WriteError> {
        match &self.poison {
            None => Ok(()),
            Some(first) => Err(WriteError {
                doing: "using a log that failed".to_owned(),
                error: io::Error::other(first.clone()),
            }),
        }
    }

    /// Notes the first failure of the disk.
    fn attempt<T>(&mut self, doing: &str, result: io::Result<T>) -> Result<T, WriteError> {
        result.map_err(|error| {
            let doing = format!("{doing} in {}", self.dir.display());
            self.poison = Some(format!("{doing}: {error}"));
            WriteError { doing, error }
        })
    }

    /// Begins a write.
    fn begin(&mut self) -> Result<(), WriteError> {
        self.check()?;
        self.writer.bytes.clear();
        self.batch.clear();
        if self.is_mark_due {
            self.writer.crc();
        }
        Ok(())
    }

    /// Writes what was gathered, and only then lets readers see it.
    fn write(&mut self, snapshot: Option<&SnapshotRecord>) -> Result<(), WriteError> {
        self.is_synced = false;
        let result = self.file.write_at(&self.writer.bytes, self.offset);
        self.attempt("writing the log", result)?;
        self.is_mark_due = false;
        self.offset += self.writer.bytes.len() as u64;
        let offset = self.offset;
        {
            let mut layout = self.layout.lock().expect("the log's layout is whole");
            for &(index, term, place) in &self.batch {
                layout.on_entry(index, term, place).expect("entries without a gap");
            }
            if let Some(snapshot) = snapshot {
                layout.on_snapshot(snapshot.index, snapshot.term);
            }
            layout.segments.back_mut().expect("a log has files").bytes = offset;
        }
        if let Some(snapshot) = snapshot
            && snapshot.index > Index(0)
        {
            self.snapshot = Some((snapshot.index, self.sequence));
        }
        if self.writer.bytes.capacity() > BUFFER_BYTES_KEPT {
            self.writer.bytes = Vec::new();
        }
        if self.offset >= self.options.segment_bytes { self.cut() } else { Ok(()) }
    }

    /// Closes the last file and goes on in a new one.
    fn cut(&mut self) -> Result<(), WriteError> {
        let skip = mutant::is(Mutant::FullLogUnsynced);
        let sync = || if skip { Ok(()) } else { self.file.sync() };
        let trimmed = self.file.truncate(self.offset).and_then(|()| sync());
        self.attempt("closing a full file of the log", trimmed)?;

        let head = segment::head_after(self.writer.crc, &self.metadata, &self.hard_state);
        let (sequence, first) = (self.sequence + 1, self.last_index().next());
        let name = segment::name(sequence, first);
        let bytes = self.options.segment_bytes;
        let made = segment::make(&*self.vfs, &self.dir, segment::SPARE, bytes, &head);
        let file = self.attempt("making a new file of the log", made)?;
        let named = self
            .vfs
            .rename(&self.dir.join(segment::SPARE), &self.dir.join(&name))
            .and_then(|()| match mutant::is(Mutant::LogNameUnsynced) {
                true => Ok(()),
                false => self.vfs.sync_dir(&self.dir),
            });
        self.attempt("naming a new file of the log", named)?;

        self.file = file.clone();
        self.sequence = sequence;
        self.offset = head.bytes.len() as u64;
        self.writer.crc = head.crc;
        self.is_synced = true;
        self.is_mark_due = false;
        self.synced_snapshot = self.snapshot;
        let bytes = self.offset;
        self.layout().segments.push_back(Segment { sequence, first, name, file, bytes });
        Ok(())
    }
}

/// A buffer that one large batch has made larger than this is given back.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// Makes the directory of a new log under another name, and renames it when it is whole.
fn make_dir(
    vfs: &dyn Vfs,
    dir: &Path,
    name: &str,
    options: &Options,
    head: &Writer,
) -> io::Result<Arc<dyn File>> {
    if vfs.exists(dir)? {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut spare = dir.as_os_str().to_owned();
    spare.push(".tmp");
    let spare = PathBuf::from(spare);
    if vfs.exists(&spare)? {
        vfs.remove_dir_all(&spare)?;
    }
    vfs.create_dir_all(&spare)?;
    let file = segment::make(vfs, &spare, name, options.segment_bytes, head)?;
    vfs.sync_dir(&spare)?;
    vfs.rename(&spare, dir)?;
    vfs.sync_dir(parent(dir))?;
    Ok(file)
}

/// The directory in which `dir` stands; the empty path is the current one.
fn parent(dir: &Path) -> &Path {
    dir.parent().unwrap_or(Path::new(""))
}

/// Makes sure that nothing but durable zeros stands behind `offset`: recovery takes zeros for what was not
/// written, so nothing else may be there when the next crash comes.
fn prepare_end(file: &dyn File, offset: u64, is_dirty: bool, options: &Options) -> io::Result<()> {
    let is_short = file.len()? < options.segment_bytes;
    if is_dirty {
        file.truncate(offset)?;
    }
    if is_dirty || is_short {
        file.preallocate(options.segment_bytes)?;
    }
    vfs::renew_len(file, offset.max(options.segment_bytes))?;
    // Also what an earlier process wrote and did not sync before it died is relied on from now on.
    file.sync()
}
