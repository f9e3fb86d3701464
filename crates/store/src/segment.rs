//! Segments: the files of the store, and the table through which readers find them.

use bytes::Bytes;

use crate::error::ReadError;
use crate::record::Location;

/// Version of the formats of manifest and segments.
pub(crate) const VERSION: u32 = 1;
/// Bytes of a segment's header.
pub(crate) const SEGMENT_HEADER_BYTES: u32 = 64;

/// Reads payloads, from any thread.
#[derive(Clone)]
pub struct Reader {}

impl Reader {
    /// The segments as they stand now, held open. Taken while the index is locked for reading, it reads every
    /// location found under that lock, however long the reading takes: reclaim moves a record in the index
    /// (for which it needs the lock) before it lets the old file go.
    pub fn view(&self) -> View {
        unimplemented!("the store is being built")
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
pub struct View {}

impl View {
    /// Reads the payload at `location` and checks its CRC.
    pub fn read(&self, _location: &Location) -> Result<Bytes, ReadError> {
        unimplemented!("the store is being built")
    }

    /// As [`View::read`], but only if the page cache has it; else `None`.
    pub fn read_now(&self, _location: &Location) -> Result<Option<Bytes>, ReadError> {
        unimplemented!("the store is being built")
    }
}
