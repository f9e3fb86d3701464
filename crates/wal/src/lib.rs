//! The write-ahead log, in etcd's record format and file naming.
//!
//! What a member has promised to remember, it writes here first: the entries, the term and the vote, and that a
//! snapshot took the place of what was before it. The log is a directory of files that are only ever appended to:
//!
//! ```text
//!   0000000000000000-0000000000000000.wal   ┐  sequence number and index of the first entry, in hexadecimal
//!   0000000000000001-00000000000186a1.wal   │  64,000,000 bytes each, preallocated, the last one growing
//!   0000000000000002-0000000000030d41.wal   ┘
//!   │
//!   └─▶ │ crc │ metadata │ state │ entry │ entry │ … │ state │ crc │ entry │ … │ snapshot │ … │ zeros …
//!         └────── head ───────┘                              └ first write after a sync
//! ```
//!
//! [`Wal`] writes, [`Wal::open`] reads all back after a restart, [`Reader`] reads entries back while the log
//! runs, [`snap`] keeps snapshots in files, [`dump`] shows all to people, [`status`] what it comes to. `docs/format/wal.md` draws every byte.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod codec;
pub mod dump;
mod frame;
mod layout;
mod reader;
mod recover;
mod segment;
pub mod snap;
pub mod status;
mod wal;

use std::fmt;
use std::io;
use std::path::PathBuf;

use raft::{ConfState, Entry, HardState, Index, Restored, Term};

pub use reader::Reader;
pub use wal::Wal;

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

impl Recovered {
    /// Whether nothing was ever done with this log. It may hold entries: a founder's and the state behind them are one write
    /// ([`Wal::found`]), and a crash may have kept the first of those entries and lost the rest.
    pub fn has_not_begun(&self) -> bool {
        self.hard_state == HardState::default()
            && self.base.0 == Index(0)
            && self.snapshots.is_empty()
    }

    /// What raft is to know of it at start, when the state machine has applied the log up to `applied`, where the
    /// configuration was `conf_state`.
    ///
    /// A crash may have kept the first entries of a term and lost the state behind them. Then nothing that vouches for
    /// anything in that term has left, for it waits until both are durable: the node has seen it, and has not voted in it.
    pub fn into_restored(self, applied: Index, conf_state: ConfState) -> Restored {
        let Recovered { mut hard_state, base, term_runs, entries, .. } = self;
        let last_term = entries.last().map_or(base.1, |entry| entry.term);
        let last_term = term_runs.last().map_or(last_term, |&(_, term)| term.max(last_term));
        if hard_state.term < last_term {
            hard_state = HardState { term: last_term, vote: raft::NONE, ..hard_state };
        }
        Restored { hard_state, conf_state, applied, base, term_runs, entries, forgot_in: None }
    }
}

/// Why a log could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The disk refused.
    Io(io::Error),
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
    pub error: io::Error,
}

/// Why entries could not be read back.
#[derive(Debug)]
pub enum ReadError {
    /// The log begins after `low` by now: only a snapshot helps.
    Released,
    /// The log does not reach to `high`.
    Unavailable,
    /// The disk refused.
    Io(io::Error),
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

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Io(error) => write!(f, "the log cannot be read: {error}"),
            OpenError::Missing(dir) => write!(f, "{} holds no log", dir.display()),
            OpenError::Rotten { file, offset, what } => {
                write!(f, "{} is damaged at byte {offset}: {what}", file.display())
            }
            OpenError::Gap(what) => write!(f, "a part of the log is missing: {what}"),
        }
    }
}

impl std::error::Error for OpenError {}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.error)
    }
}

impl std::error::Error for WriteError {}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Released => f.write_str("the log begins later by now"),
            ReadError::Unavailable => f.write_str("the log does not reach so far"),
            ReadError::Io(error) => write!(f, "the log cannot be read: {error}"),
            ReadError::Rotten { file, offset, what } => {
                write!(f, "{} is damaged at byte {offset}: {what}", file.display())
            }
        }
    }
}

impl std::error::Error for ReadError {}
