//! The write-ahead log, in etcd's record format and file naming.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod codec;
pub mod dump;

use raft::{ConfState, Entry, HardState, Index, Term};
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use vfs::Vfs;

/// Whose log it is. Written into every file; the bytes found in an existing log are kept as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The member.
    pub node_id: u64,
    /// Its cluster.
    pub cluster_id: u64,
}

/// How the log is laid out.
#[derive(Clone, Debug)]
pub struct Options {
    /// A file that has grown to this many bytes is followed by a new one; files are preallocated to it.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { segment_bytes: 64_000_000 }
    }
}

/// That the state up to `index` is, or will be, kept elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// The last index that the snapshot holds.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// The configuration there; `None` in the record of index 0 that opens every log, and in logs of etcd 3.4.
    pub conf_state: Option<ConfState>,
}

/// The end of the log that a crash tore, and that was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The last file of the log.
    pub file: PathBuf,
    /// Where the log now ends in it.
    pub offset: u64,
    /// How many bytes behind it held something.
    pub lost_bytes: u64,
}

/// What a log held when it was opened.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Whose log it is.
    pub metadata: Metadata,
    /// The last one written; the default if none was.
    pub hard_state: HardState,
    /// The snapshot records in the order in which they were written, the one of index 0 left out.
    pub snapshots: Vec<SnapshotRecord>,
    /// The log begins after this place. Its entry is not in the log, or only there to give its term.
    pub base: (Index, Term),
    /// For each run of entries of one term after `base`: the first index of the run and the term.
    pub term_runs: Vec<(Index, Term)>,
    /// The entries above both `from` and `base`, without a gap, to the log's end.
    pub entries: Vec<Entry>,
    /// The last index of the log; that of `base` if the log is empty.
    pub last: Index,
    /// Whether the end was torn.
    pub torn: Option<TornTail>,
}

/// Why a log could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The disk refused.
    Io(std::io::Error),
    /// The directory holds no log.
    Missing(PathBuf),
    /// Bytes that had been durable are not what was written. `what` says what is wrong there, and what to do.
    Rotten {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// Files or entries that are needed are not there.
    Gap(String),
}

/// Why something could not be written. The log is poisoned: every later call fails, and the process is to end.
#[derive(Debug)]
pub struct WriteError {
    /// What was being done.
    pub doing: String,
    /// What the disk said.
    pub error: std::io::Error,
}

/// Why entries could not be read back.
#[derive(Debug)]
pub enum ReadError {
    /// The log begins after `low` by now: only a snapshot helps.
    Released,
    /// The log does not reach to `high`.
    Unavailable,
    /// The disk refused.
    Io(std::io::Error),
    /// The bytes are not what was written.
    Rotten {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: String,
    },
}

/// The log, open for appending. One thread owns it.
pub struct Wal {}

impl Wal {
    /// Makes a new log in the directory `dir`, which must not exist. On return it is durable, its name too.
    pub fn create(
        _vfs: Arc<dyn Vfs>,
        _dir: &Path,
        _metadata: Metadata,
        _options: Options,
    ) -> Result<Wal, WriteError> {
        unimplemented!("comes with the next landing")
    }

    /// Whether `dir` holds a log.
    pub fn exists(_vfs: &dyn Vfs, _dir: &Path) -> std::io::Result<bool> {
        unimplemented!("comes with the next landing")
    }

    /// Reads the log in `dir` and makes it ready to be appended to. `from` is the applied index of the state
    /// that is durable elsewhere (0: none): entries up to it are checked but not returned, and a log that does
    /// not reach it is refused.
    pub fn open(
        _vfs: Arc<dyn Vfs>,
        _dir: &Path,
        _from: Index,
        _options: Options,
    ) -> Result<(Wal, Recovered), OpenError> {
        unimplemented!("comes with the next landing")
    }

    /// Writes entries and then the state, with one write. Entries follow each other; the first may lie at or
    /// below the last index, and then replaces all from there on. Durable only after [`Wal::sync`]. A full
    /// file is followed by a new one here.
    pub fn append(
        &mut self,
        _entries: &[Entry],
        _state: Option<&HardState>,
    ) -> Result<(), WriteError> {
        unimplemented!("comes with the next landing")
    }

    /// Writes a snapshot record; durable only after [`Wal::sync`]. If the log does not hold an entry of this
    /// index and term, it is emptied and goes on after the snapshot.
    pub fn save_snapshot(&mut self, _snapshot: &SnapshotRecord) -> Result<(), WriteError> {
        unimplemented!("comes with the next landing")
    }

    /// Makes all that was written durable, with one fdatasync; does nothing if all is.
    pub fn sync(&mut self) -> Result<(), WriteError> {
        unimplemented!("comes with the next landing")
    }

    /// Unlinks the files whose entries all lie at or below `up_to`, and whose snapshot records are not the
    /// newest synced one, which must not lie below `up_to`. Returns how many.
    pub fn release(&mut self, _up_to: Index) -> Result<usize, WriteError> {
        unimplemented!("comes with the next landing")
    }

    /// A handle to read entries back from the disk.
    pub fn reader(&self) -> Reader {
        unimplemented!("comes with the next landing")
    }

    /// The first index that [`Reader::read`] can give; one above the last if there is none.
    pub fn first_index(&self) -> Index {
        unimplemented!("comes with the next landing")
    }

    /// The last index written.
    pub fn last_index(&self) -> Index {
        unimplemented!("comes with the next landing")
    }

    /// The last state written.
    pub fn hard_state(&self) -> HardState {
        unimplemented!("comes with the next landing")
    }

    /// Bytes written into the files that the log has now, without what is only preallocated.
    pub fn bytes(&self) -> u64 {
        unimplemented!("comes with the next landing")
    }

    /// How many files the log has.
    pub fn segments(&self) -> usize {
        unimplemented!("comes with the next landing")
    }
}

/// Reads entries back from the disk while the log thread appends.
#[derive(Clone)]
pub struct Reader {}

impl Reader {
    /// The entries `low..high`, at least one and then as many as fit into `bytes_max`, as encoded.
    pub fn read(
        &self,
        _low: Index,
        _high: Index,
        _bytes_max: u64,
    ) -> Result<Vec<Entry>, ReadError> {
        unimplemented!("comes with the next landing")
    }
}
