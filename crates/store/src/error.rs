//! What can go wrong in the store, by what the caller can do about it.

use std::path::PathBuf;
use std::{fmt, io};

/// Bytes on disk that are not what was written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// The first byte of the record, frame or block that fails its check.
    pub offset: u64,
    /// What fails.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.file.display(), self.offset, self.what)
    }
}

/// Why a store was not opened. None of these changed a file.
#[derive(Debug)]
pub enum OpenError {
    /// The directory belongs to another cluster.
    OtherCluster {
        /// The store's directory.
        dir: PathBuf,
        /// The cluster that wrote it.
        found: u64,
        /// The cluster that was asked for.
        wanted: u64,
    },
    /// The directory belongs to another member of the cluster.
    OtherMember {
        /// The store's directory.
        dir: PathBuf,
        /// The member that wrote it.
        found: u64,
        /// The member that was asked for.
        wanted: u64,
    },
    /// Written by a version of the format that this program does not know.
    UnknownVersion {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
    },
    /// There are segments, but no manifest that says which of them count.
    ManifestMissing {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The manifest names a segment that is not there.
    SegmentMissing {
        /// The file.
        file: PathBuf,
    },
    /// Bytes that were durable have changed. Not a crash: those leave no such thing.
    Rot(Damage),
    /// The operating system refused.
    Io {
        /// The file or directory.
        file: PathBuf,
        /// Its answer.
        error: io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const REPLACE: &str = "restore the directory from a backup, or remove this member from the cluster and \
             add it again with an empty directory";
        match self {
            OpenError::OtherCluster { dir, found, wanted } => write!(
                f,
                "{} belongs to cluster {found:x}, not {wanted:x}: start the member with the data directory of \
                 its own cluster",
                dir.display()
            ),
            OpenError::OtherMember { dir, found, wanted } => write!(
                f,
                "{} belongs to member {found:x}, not {wanted:x}: start each member with its own data directory",
                dir.display()
            ),
            OpenError::UnknownVersion { file, found } => write!(
                f,
                "{} has format version {found}, this program knows up to {}: start it with the version that \
                 wrote it, or a later one",
                file.display(),
                crate::segment::VERSION
            ),
            OpenError::ManifestMissing { dir } => {
                write!(f, "{} holds segments but no MANIFEST: {REPLACE}", dir.display())
            }
            OpenError::SegmentMissing { file } => {
                write!(f, "{} is missing, the manifest names it: {REPLACE}", file.display())
            }
            OpenError::Rot(damage) => write!(f, "rotten data in {damage}: {REPLACE}"),
            OpenError::Io { file, error } => write!(f, "{}: {error}", file.display()),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Why a payload was not read.
#[derive(Debug)]
pub enum ReadError {
    /// Its segment was reclaimed after the location was looked up: look it up again, it has moved. A
    /// [`crate::View`] taken under the index lock never meets this.
    Gone {
        /// The segment.
        segment: u32,
    },
    /// The bytes do not have the CRC they were written with.
    Rot(Damage),
    /// The operating system refused.
    Io(io::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Gone { segment } => write!(f, "segment {segment} has been reclaimed"),
            ReadError::Rot(damage) => write!(f, "rotten data in {damage}"),
            ReadError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

/// Why a frame was not written.
#[derive(Debug)]
pub enum WriteError {
    /// There is no space for it, and the reserve is used up. Nothing of it was written: tell the flusher what the
    /// frame knows ([`crate::Flusher::note`]), and write the same frame again after [`crate::Flusher::reclaim`] or somebody
    /// else made room, before any later frame.
    Full,
    /// A write or sync failed, now or earlier, and nobody knows what is on disk. The process must end.
    Failed(io::Error),
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Full => write!(f, "no space for a new segment"),
            WriteError::Failed(error) => write!(f, "writing the store failed: {error}"),
        }
    }
}

impl std::error::Error for WriteError {}

/// Why a slice of reclaim was not done.
#[derive(Debug)]
pub enum ReclaimError {
    /// There is no space for the copy. The job is given up, nothing has changed.
    Full,
    /// A segment to copy from is damaged or unreadable. Nothing has changed; such a segment is left alone sooner or later.
    Source(ReadError),
    /// A write or sync failed, now or earlier. The process must end.
    Failed(io::Error),
}

impl fmt::Display for ReclaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReclaimError::Full => write!(f, "no space to copy what lives"),
            ReclaimError::Source(error) => write!(f, "cannot copy what lives: {error}"),
            ReclaimError::Failed(error) => write!(f, "writing the store failed: {error}"),
        }
    }
}

impl std::error::Error for ReclaimError {}

/// Why a snapshot was not imported. The store is as it was.
#[derive(Debug)]
pub enum ImportError {
    /// The bytes are not a whole snapshot.
    Rot {
        /// Bytes from the beginning of the stream.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// It was taken in another cluster.
    OtherCluster {
        /// The cluster that took it.
        found: u64,
        /// The cluster that imports it.
        wanted: u64,
    },
    /// Its format version is unknown.
    UnknownVersion(u32),
    /// There is no space for it.
    Full,
    /// A write or sync failed, now or earlier. The process must end.
    Failed(io::Error),
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImportError::Rot { offset, what } => {
                write!(f, "damaged snapshot at byte {offset}: {what}")
            }
            ImportError::OtherCluster { found, wanted } => {
                write!(f, "a snapshot of cluster {found:x}, not {wanted:x}")
            }
            ImportError::UnknownVersion(found) => {
                write!(f, "a snapshot of format version {found}, which this program does not know")
            }
            ImportError::Full => write!(f, "no space to import the snapshot"),
            ImportError::Failed(error) => write!(f, "writing the store failed: {error}"),
        }
    }
}

impl std::error::Error for ImportError {}
