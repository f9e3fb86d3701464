//! Segments: the files of the store, and the table through which readers find them.
//!
//! ```text
//!   ┌ header 64 ┬ frame ┬ frame ┬ … ┬ footer block ┬ … ┬ trailer 64 ┐   sealed
//!   ┌ header 64 ┬ frame ┬ frame ┬ … zeros                               growing
//!
//!   header   0        8    12   16       24       32 … 60   64
//!            │QSegment│vers│ nr │ cluster│ member │ zeros │crc│
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use vfs::File;

use crate::error::{Damage, ReadError};
use crate::frame::Identity;
use crate::record::Location;

/// Version of the formats of manifest and segments.
pub(crate) const VERSION: u32 = 1;
/// Bytes of a segment's header.
pub(crate) const SEGMENT_HEADER_BYTES: u32 = 64;
const MAGIC: [u8; 8] = *b"QSegment";

/// The file name of a segment.
pub(crate) fn name(segment: u32) -> String {
    format!("{segment:010}.segment")
}

/// The number in a segment's file name.
pub(crate) fn parse_name(name: &str) -> Option<u32> {
    name.strip_suffix(".segment")?.parse().ok()
}

pub(crate) fn encode_header(segment: u32, identity: Identity) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&segment.to_le_bytes());
    bytes[16..24].copy_from_slice(&identity.cluster_id.to_le_bytes());
    bytes[24..32].copy_from_slice(&identity.member_id.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// What is wrong with a segment's header.
pub(crate) enum HeaderFault {
    UnknownVersion(u32),
    Rot,
}

pub(crate) fn check_header(
    bytes: &[u8; 64],
    segment: u32,
    identity: Identity,
) -> Result<(), HeaderFault> {
    let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    let crc = u32::from_le_bytes([bytes[60], bytes[61], bytes[62], bytes[63]]);
    if bytes[..8] != MAGIC || crc != crc32c::crc32c(&bytes[..60]) {
        Err(HeaderFault::Rot)
    } else if version != VERSION {
        Err(HeaderFault::UnknownVersion(version))
    } else if *bytes != encode_header(segment, identity) {
        Err(HeaderFault::Rot)
    } else {
        Ok(())
    }
}

/// An open segment.
#[derive(Clone)]
pub(crate) struct Handle {
    pub file: Arc<dyn File>,
    pub path: Arc<PathBuf>,
}

impl Handle {
    pub fn new(file: Arc<dyn File>, path: PathBuf) -> Handle {
        Handle { file, path: Arc::new(path) }
    }

    pub fn rot(&self, offset: u64, what: impl Into<String>) -> ReadError {
        ReadError::Rot(damage(&self.path, offset, what))
    }
}

pub(crate) fn damage(path: &Path, offset: u64, what: impl Into<String>) -> Damage {
    Damage { file: path.to_owned(), offset, what: what.into() }
}

type Handles = BTreeMap<u32, Handle>;

/// Which segments there are. The flusher changes it, readers take what stands there.
///
/// The lock is std's and guards one `Arc`: a reader holds it for a clone, the flusher for a store, at a roll
/// or at a step of reclaim. It is never held across a read of a file.
#[derive(Default)]
pub(crate) struct Table(RwLock<Arc<Handles>>);

impl Table {
    pub fn current(&self) -> Arc<Handles> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn change(&self, change: impl FnOnce(&mut Handles)) {
        let mut guard = self.0.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut guard));
    }
}

/// Reads payloads, from any thread.
#[derive(Clone)]
pub struct Reader(pub(crate) Arc<Table>);

impl Reader {
    /// The segments as they stand now, held open. Taken while the index is locked for reading, it reads every
    /// location found under that lock, however long the reading takes: reclaim moves a record in the index
    /// (for which it needs the lock) before it lets the old file go.
    pub fn view(&self) -> View {
        View(self.0.current())
    }

    /// Reads the payload at `location` and checks its CRC. It must have been written.
    pub fn read(&self, location: &Location) -> Result<Bytes, ReadError> {
        self.view().read(location)
    }

    /// As [`Reader::read`], but only if the page cache has it; else `None`.
    pub fn read_now(&self, location: &Location) -> Result<Option<Bytes>, ReadError> {
        self.view().read_now(location)
    }
}

/// The segments at one instant, see [`Reader::view`].
#[derive(Clone)]
pub struct View(pub(crate) Arc<Handles>);

impl View {
    /// Reads the payload at `location` and checks its CRC.
    pub fn read(&self, location: &Location) -> Result<Bytes, ReadError> {
        let handle = self.handle(location)?;
        let mut bytes = vec![0; location.len as usize];
        match handle.file.read_exact_at(&mut bytes, u64::from(location.place.offset)) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(
                    handle.rot(location.place.offset.into(), "the file ends within the record")
                );
            }
            other => other.map_err(ReadError::Io)?,
        }
        checked(handle, location, bytes)
    }

    /// As [`View::read`], but only if the page cache has it; else `None`.
    pub fn read_now(&self, location: &Location) -> Result<Option<Bytes>, ReadError> {
        let handle = self.handle(location)?;
        let mut bytes = vec![0; location.len as usize];
        let offset = u64::from(location.place.offset);
        match handle.file.read_now(&mut bytes, offset).map_err(ReadError::Io)? {
            Some(len) if len == bytes.len() => checked(handle, location, bytes).map(Some),
            Some(_) | None => Ok(None),
        }
    }

    fn handle(&self, location: &Location) -> Result<&Handle, ReadError> {
        let segment = location.place.segment;
        self.0.get(&segment).ok_or(ReadError::Gone { segment })
    }
}

fn checked(handle: &Handle, location: &Location, bytes: Vec<u8>) -> Result<Bytes, ReadError> {
    if crc32c::crc32c(&bytes) != location.crc {
        return Err(handle.rot(location.place.offset.into(), "the record's CRC does not match"));
    }
    Ok(Bytes::from(bytes))
}

/// Reads payloads that lie close to each other, many with one call.
#[derive(Default)]
pub(crate) struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// The payload at `location` of the segment `handle`, its CRC checked.
    pub fn payload(&mut self, handle: &Handle, location: &Location) -> Result<&[u8], ReadError> {
        const READ_AHEAD_BYTES: usize = 128 << 10;
        let offset = u64::from(location.place.offset);
        let len = location.len as usize;
        if offset < self.start || offset + len as u64 > self.start + self.bytes.len() as u64 {
            self.start = offset;
            self.bytes.clear();
            self.bytes.resize(len.max(READ_AHEAD_BYTES), 0);
            let read = handle.file.read_at(&mut self.bytes, offset).map_err(ReadError::Io)?;
            self.bytes.truncate(read);
            if read < len {
                return Err(handle.rot(offset, "the file ends within the record"));
            }
        }
        let payload = &self.bytes[(offset - self.start) as usize..][..len];
        if crc32c::crc32c(payload) != location.crc {
            return Err(handle.rot(offset, "the record's CRC does not match"));
        }
        Ok(payload)
    }
}
