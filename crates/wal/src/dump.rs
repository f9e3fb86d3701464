//! Walks over all records of a log's directory, for people: changes nothing, and goes on where it can.

use std::io;
use std::path::{Path, PathBuf};

pub use raft::{
    ConfChange, ConfChangeSingle, ConfChangeV2, ConfState, Entry, EntryKind, HardState,
};
use vfs::{OpenMode, Vfs};

use crate::codec;
use crate::frame::{self, Parsed, kind};
use crate::segment;
use crate::{Metadata, SnapshotRecord};

/// A record, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The running checksum: at the head of a file, and before the first write after a sync.
    Crc(u32),
    /// Whose log it is.
    Metadata(Metadata),
    /// The state that survives a crash.
    State(HardState),
    /// An entry.
    Entry(Entry),
    /// A snapshot's place.
    Snapshot(SnapshotRecord),
    /// A type that we do not know, or bytes of a known type that do not decode.
    Unknown {
        /// The type's number.
        kind: u64,
        /// Its bytes.
        data: Vec<u8>,
    },
}

/// One line of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The file's name.
    pub file: String,
    /// Where the record's frame begins in it.
    pub offset: u64,
    /// How many bytes the frame takes; 0 where there is none.
    pub bytes: u64,
    /// The record, or what is wrong there. After bytes that are no record the next file follows; after a
    /// checksum that does not match the record itself follows, and its checksum is taken for right.
    pub record: Result<Record, String>,
}

/// Longer files are not read: each is held in memory as a whole, and this is eight times what a file of a log grows to.
pub const FILE_BYTES_MAX: u64 = 512 << 20;

/// All records of the log in `dir`, file by file.
pub fn dump<'a>(vfs: &'a dyn Vfs, dir: &Path) -> io::Result<Dump<'a>> {
    let mut files: Vec<String> = vfs.list(dir)?;
    files.retain(|name| segment::parse_name(name).is_some());
    files.reverse();
    Ok(Dump { vfs, dir: dir.to_owned(), files, current: None, crc: None })
}

/// Iterates over the records; see [`dump`].
pub struct Dump<'a> {
    vfs: &'a dyn Vfs,
    dir: PathBuf,
    /// Those to come, the next one last.
    files: Vec<String>,
    current: Option<Current>,
    crc: Option<u32>,
}

struct Current {
    name: String,
    bytes: Vec<u8>,
    at: usize,
    /// Whether the checksum at `at` was complained of.
    is_told: bool,
}

impl Iterator for Dump<'_> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        loop {
            let Some(current) = &mut self.current else {
                let name = self.files.pop()?;
                match self.load(&name) {
                    Ok(bytes) => {
                        self.current = Some(Current { name, bytes, at: 0, is_told: false });
                        continue;
                    }
                    Err(error) => {
                        return Some(Line {
                            file: name,
                            offset: 0,
                            bytes: 0,
                            record: Err(error.to_string()),
                        });
                    }
                }
            };
            let (offset, file) = (current.at as u64, current.name.clone());
            let mut bytes = 0;
            let record = match frame::parse(&current.bytes, current.at) {
                Parsed::End => {
                    let rest = &current.bytes[current.at..];
                    let left = rest.iter().filter(|&&byte| byte != 0).count();
                    self.current = None;
                    if left == 0 {
                        continue;
                    }
                    Err(format!("the log ends here, but {left} bytes behind are not zero"))
                }
                Parsed::Beyond { frame } => {
                    self.current = None;
                    Err(format!("a record of {frame} bytes, more than the file has left"))
                }
                Parsed::Malformed { what, .. } => {
                    self.current = None;
                    Err(what.to_owned())
                }
                Parsed::Record { record, frame } => {
                    let chained = frame::chain(self.crc, &record);
                    if chained.is_none() && !current.is_told {
                        current.is_told = true;
                        Err("the checksum does not match".to_owned())
                    } else {
                        self.crc = Some(record.crc);
                        current.is_told = false;
                        current.at += frame as usize;
                        bytes = frame;
                        Ok(decode(&record))
                    }
                }
            };
            return Some(Line { file, offset, bytes, record });
        }
    }
}

impl Dump<'_> {
    fn load(&self, name: &str) -> io::Result<Vec<u8>> {
        let file = self.vfs.open(&self.dir.join(name), OpenMode::Read)?;
        let len = file.len()?;
        if len > FILE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, too_long(len)));
        }
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

pub(crate) fn too_long(len: u64) -> String {
    format!("{len} bytes are more than a file of a log has ({FILE_BYTES_MAX} at most are read)")
}

fn decode(record: &codec::RawRecord<'_>) -> Record {
    let decoded = match record.kind {
        kind::CRC => Ok(Record::Crc(record.crc)),
        kind::METADATA => codec::decode_metadata(record.data).map(Record::Metadata),
        kind::STATE => codec::decode_hard_state(record.data).map(Record::State),
        kind::ENTRY => codec::decode_entry_copied(record.data).map(Record::Entry),
        kind::SNAPSHOT => codec::decode_snapshot_record(record.data).map(Record::Snapshot),
        _ => Err(codec::DecodeError("a record of unknown type")),
    };
    let unknown = |_| Record::Unknown { kind: record.kind, data: record.data.to_vec() };
    decoded.unwrap_or_else(unknown)
}
