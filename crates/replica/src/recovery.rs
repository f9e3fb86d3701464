//! From what lies on disk to a running member: the rules of the start.

use std::path::PathBuf;
use std::sync::Arc;

use vfs::Vfs;

use crate::config::{Bootstrap, Config, Identity};
use crate::replica::Replica;
use crate::view::View;
use crate::workers::{ApplyWorker, FlushWorker, LogWorker, ReadWorker};

/// A member and its workers.
pub struct Opened {
    /// Its mind.
    pub replica: Replica,
    /// For the log thread.
    pub log: LogWorker,
    /// For the apply thread.
    pub apply: ApplyWorker,
    /// For the flush thread.
    pub flush: FlushWorker,
    /// For the read threads; clone it for each.
    pub reads: ReadWorker,
    /// For everybody.
    pub view: View,
    /// What was found and mended, in sentences for the process's log (a torn tail cut off, leftovers deleted).
    pub found: Vec<String>,
}

/// Whose data lies in this data directory, if any does. The server asks it before it decides how to begin: on a
/// directory with data it is a restart, whatever the flags say.
pub fn identity(
    _vfs: &Arc<dyn Vfs>,
    _data_dir: PathBuf,
    _wal_dir: Option<PathBuf>,
) -> Result<Option<Identity>, OpenError> {
    unimplemented!("identity")
}

/// Opens or begins a member.
pub fn open(
    _vfs: Arc<dyn Vfs>,
    _config: Config,
    _bootstrap: Bootstrap,
) -> Result<Opened, OpenError> {
    unimplemented!("open")
}

/// Why a member does not start. Each says what to do.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has the directory, or the file system failed.
    Io {
        /// What was being done.
        what: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// The directory belongs to another member or cluster.
    WrongIdentity {
        /// What was expected.
        expected: Identity,
        /// What lies there.
        found: Identity,
    },
    /// There should be data and is none.
    Empty,
    /// The log is rotten, or does not fit the store.
    Log(String),
    /// The store is rotten, or does not fit the log.
    Store(String),
    /// A received snapshot that the log relies on cannot be finished.
    Snapshot(String),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::Io { what, error } => write!(f, "{what}: {error}"),
            OpenError::WrongIdentity { expected, found } => write!(
                f,
                "the data directory belongs to member {:x} of cluster {:x}, not to member {:x} of cluster {:x}",
                found.node_id, found.cluster_id, expected.node_id, expected.cluster_id
            ),
            OpenError::Empty => {
                write!(f, "the data directory is empty, but the member should already have data")
            }
            OpenError::Log(why) | OpenError::Store(why) | OpenError::Snapshot(why) => {
                write!(f, "{why}")
            }
        }
    }
}

impl std::error::Error for OpenError {}
