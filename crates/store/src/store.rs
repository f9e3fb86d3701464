//! The store: how it is opened, and the flush thread's end of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vfs::Vfs;

use crate::builder::{Builder, Frame};
use crate::error::{OpenError, WriteError};
use crate::record::{Recovered, Row};
use crate::segment::Reader;

/// Whose store it is, and how large its pieces are.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The cluster; a directory of another one is refused.
    pub cluster_id: u64,
    /// The member; a directory of another one is refused.
    pub member_id: u64,
    /// Where a segment ends, in bytes: from 4 KiB to 1 GiB.
    pub segment_bytes: u32,
}

impl Options {
    /// Segments of 64 MiB.
    pub fn new(cluster_id: u64, member_id: u64) -> Options {
        Options { cluster_id, member_id, segment_bytes: 64 << 20 }
    }
}

/// An opened store.
pub struct Opened {
    /// For the apply thread.
    pub builder: Builder,
    /// For the flush thread.
    pub flusher: Flusher,
    /// For everybody.
    pub reader: Reader,
    /// Index and term of the last entry in the state; (0, 0) in a new store.
    pub applied: (u64, u64),
    /// The highest main revision ever given, 0 in a new store. Records of it may have been reclaimed.
    pub revision: i64,
    /// The compaction mark, 0 if there is none. Never above `revision`… of the entries applied.
    pub compact_revision: i64,
    /// All rows of the small tables, ordered by table and key.
    pub rows: Vec<Row>,
    /// The directory was empty, and this is its first start.
    pub created: bool,
    /// Something at the end of the growing segment was not a whole frame and has been cut off.
    pub torn: Option<TornTail>,
}

/// An unfinished write that a crash left at the end of the growing segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub file: PathBuf,
    /// Where it was cut.
    pub offset: u64,
    /// Bytes that were cut off.
    pub lost_bytes: u64,
}

/// Opens the store in `dir`, or makes one if there is none, and hands every record of the keyspace to
/// `recovered`, in ascending order of revision (also dead ones that are still on disk).
pub fn open(
    _vfs: Arc<dyn Vfs>,
    _dir: &Path,
    _options: Options,
    _recovered: &mut dyn FnMut(Recovered<'_>),
) -> Result<Opened, OpenError> {
    unimplemented!("the store is being built")
}

/// Writes frames, seals segments, replaces manifests; owned by the flush thread.
pub struct Flusher {}

/// A frame was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Index and term of the last written entry.
    pub applied: (u64, u64),
    /// Bytes written since the last sync.
    pub unsynced_bytes: u64,
    /// A segment was sealed: everything before this frame is durable. Its last entry.
    pub sealed: Option<Synced>,
}

/// What is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synced {
    /// Index of the last durable entry.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

/// Sizes as etcd's users know them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the segments in pages of 4 KiB, without what is only preallocated.
    pub db_size: u64,
    /// Bytes of it that live.
    pub db_size_in_use: u64,
}

impl Flusher {
    /// Writes a frame at the end of the growing segment, with one write; before it, if the builder has gone on
    /// to a new segment, seals the old one and replaces the manifest. Frames come in the order they were taken.
    pub fn write(&mut self, _frame: &Frame) -> Result<Written, WriteError> {
        unimplemented!("the store is being built")
    }

    /// Makes all written frames durable. A failure is final.
    pub fn sync(&mut self) -> io::Result<Synced> {
        unimplemented!("the store is being built")
    }

    /// The sizes as of the last frame.
    pub fn sizes(&self) -> Sizes {
        unimplemented!("the store is being built")
    }
}
