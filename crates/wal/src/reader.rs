//! Reading entries back from the disk while the log thread appends: what raft has let go of but a follower,
//! or apply, still needs.
//!
//! A reader holds the files it reads, so a file that is released meanwhile stays readable to the end of the call.
//! Every record that is passed is checked against the chain of checksums.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use raft::{Entry, Index};
use vfs::File;

use crate::ReadError;
use crate::codec;
use crate::frame::{self, Parsed, kind};
use crate::layout::{Layout, Place};

/// How much is read from the disk at a time, unless a record is longer.
const CHUNK_BYTES: usize = 256 * 1024;

/// Reads entries back from the disk. Clones share the log.
#[derive(Clone)]
pub struct Reader {
    layout: Arc<Mutex<Layout>>,
    dir: PathBuf,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Entries that stand in order in one file.
struct Stretch {
    file: Arc<dyn File>,
    path: PathBuf,
    /// The first entry's index and place.
    first: Index,
    place: Place,
    /// The index of the first entry that does not belong to it.
    end: Index,
    /// Where nothing more was written when it was looked up.
    end_offset: u64,
}

impl Reader {
    pub(crate) fn new(layout: Arc<Mutex<Layout>>, dir: PathBuf) -> Reader {
        Reader { layout, dir }
    }

    /// The entries from `low` to before `high`: the first, and then as many as fit into `bytes_max`, counted
    /// as raftpb encodes them. Entries that are replaced by others during the call may be given as they
    /// were, which the receiver's checks of terms tell.
    pub fn read(&self, low: Index, high: Index, bytes_max: u64) -> Result<Vec<Entry>, ReadError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut next = low;
        while next < high {
            let stretch = self.find(next, high)?;
            let is_full = stretch.read(next, high, bytes_max, &mut bytes, &mut entries)?;
            if is_full {
                break;
            }
            next = stretch.end;
        }
        Ok(entries)
    }

    /// Where the entry at `index` stands.
    fn find(&self, index: Index, high: Index) -> Result<Stretch, ReadError> {
        let layout = self.layout.lock().expect("the log's layout is whole");
        if high > layout.last.next() {
            return Err(ReadError::Unavailable);
        }
        if index <= layout.base().0 {
            return Err(ReadError::Released);
        }
        let (first, place, end) = layout.find(index).ok_or(ReadError::Released)?;
        let segment = layout.segment(place.sequence).ok_or(ReadError::Released)?;
        Ok(Stretch {
            file: segment.file.clone(),
            path: self.dir.join(&segment.name),
            first,
            place,
            end,
            end_offset: segment.bytes,
        })
    }
}

impl Stretch {
    /// Adds the entries from `low` on to `entries` and their lengths to `bytes`. Returns whether the next one
    /// no longer fits.
    fn read(
        &self,
        low: Index,
        high: Index,
        bytes_max: u64,
        bytes: &mut u64,
        entries: &mut Vec<Entry>,
    ) -> Result<bool, ReadError> {
        let mut chunk: Vec<u8> = Vec::new();
        let mut chunk_offset = self.place.offset;
        let mut at = 0;
        let mut crc = self.place.crc;
        let mut expected = self.first;
        while expected < self.end.min(high) {
            let rotten = |what: &str| ReadError::Rotten {
                file: self.path.clone(),
                offset: chunk_offset + at as u64,
                what: what.to_owned(),
            };
            let (record, len) = match frame::parse(&chunk, at) {
                Parsed::Record { record, frame } => (record, frame as usize),
                Parsed::Malformed { what, .. } => return Err(rotten(what)),
                Parsed::End if at < chunk.len() => return Err(rotten("the log ends here")),
                // The chunk ends in the middle of a frame, or with one.
                more => {
                    let needed = match more {
                        Parsed::Beyond { frame } => frame,
                        _ => frame::WORD as u64,
                    };
                    let start = chunk_offset + at as u64;
                    let left = self.end_offset.saturating_sub(start);
                    if needed > left {
                        return Err(rotten("a record goes beyond the end of the log"));
                    }
                    let wanted = needed.max(CHUNK_BYTES as u64).min(left) as usize;
                    chunk.resize(wanted, 0);
                    self.file.read_exact_at(&mut chunk, start).map_err(ReadError::Io)?;
                    (chunk_offset, at) = (start, 0);
                    continue;
                }
            };
            let Some(next_crc) = frame::chain(Some(crc), &record) else {
                return Err(rotten("the checksum does not match"));
            };
            if record.kind == kind::ENTRY {
                let entry = codec::decode_entry_copied(record.data).map_err(|e| rotten(e.0))?;
                if entry.index != expected {
                    return Err(rotten("another entry than the one that was written here"));
                }
                if entry.index >= low {
                    *bytes += record.data.len() as u64;
                    if *bytes > bytes_max && !entries.is_empty() {
                        return Ok(true);
                    }
                    entries.push(entry);
                }
                expected = expected.next();
            }
            crc = next_crc;
            at += len;
        }
        Ok(false)
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> ReadError {
        ReadError::Io(error)
    }
}
