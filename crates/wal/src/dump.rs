//! Walks over all records of a log's directory, for people: changes nothing, and goes on where it can.

use std::io;
use std::path::Path;

use raft::{Entry, HardState};
use vfs::Vfs;

use crate::SnapshotRecord;

/// A record, decoded.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// The running checksum, at the head of a file and after a sync.
    Crc(u32),
    /// Whose log it is.
    Metadata(crate::Metadata),
    /// The state that survives a crash.
    State(HardState),
    /// An entry.
    Entry(Entry),
    /// A snapshot's place.
    Snapshot(SnapshotRecord),
    /// A type that we do not know, or bytes of a known type that do not decode.
    Unknown {
        /// The type's number.
        kind: i64,
        /// Its bytes.
        data: Vec<u8>,
    },
}

/// One line of a dump.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The file's name.
    pub file: String,
    /// Where the record's frame begins.
    pub offset: u64,
    /// The record, or what is wrong there; after the latter the next file follows.
    pub record: Result<Record, String>,
}

/// All records of the log in `dir`.
pub fn dump<'a>(_vfs: &'a dyn Vfs, _dir: &Path) -> io::Result<Box<dyn Iterator<Item = Line> + 'a>> {
    unimplemented!("comes with the next landing")
}
