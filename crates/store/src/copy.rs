//! Segments written whole, by reclaim and by imports: nothing names them before they are sealed and synced.

use mutant::Mutant;

use crate::footer::{FooterBuilder, Trailer};
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, Identity};
use crate::live::Usage;
use crate::record::{Location, Meta, Place};
use crate::segment::{Handle, SEGMENT_HEADER_BYTES};
use crate::store::MakeError;

/// A frame is closed when it has so many bytes.
const FRAME_BYTES: usize = 256 << 10;
/// The file is synced whenever so many bytes are not, so that no sync is a long one: others of this disk wait for it.
const SYNC_BYTES: u32 = 4 << 20;

/// Writes a segment from its beginning to its seal.
pub(crate) struct CopyWriter {
    pub segment: u32,
    pub handle: Handle,
    identity: Identity,
    /// Where the frame under construction will begin.
    end: u32,
    /// Bytes known to be durable. Never above `end`.
    synced: u32,
    body: Vec<u8>,
    records: u32,
    footer: FooterBuilder,
    usage: Usage,
    revision: i64,
}

/// A segment that was written and synced.
pub(crate) struct Whole {
    pub segment: u32,
    pub handle: Handle,
    pub len: u32,
    pub trailer: Trailer,
    pub usage: Usage,
}

impl CopyWriter {
    /// Goes on in a file that holds its header and nothing else.
    pub fn new(segment: u32, handle: Handle, identity: Identity) -> CopyWriter {
        CopyWriter {
            segment,
            handle,
            identity,
            end: SEGMENT_HEADER_BYTES,
            synced: SEGMENT_HEADER_BYTES,
            body: Vec::new(),
            records: 0,
            footer: FooterBuilder::default(),
            usage: Usage::default(),
            revision: 0,
        }
    }

    /// Bytes of the file if it were sealed now, roughly.
    pub fn bytes(&self) -> u64 {
        u64::from(self.end) + self.body.len() as u64 + u64::from(self.footer.bytes())
    }

    /// Adds a record and says where it will lie.
    pub fn push(&mut self, meta: &Meta, key: &[u8], payload: &[u8]) -> Result<Location, MakeError> {
        meta.encode(&mut self.body);
        let offset = self.end + FRAME_HEADER_BYTES + self.body.len() as u32;
        self.body.extend_from_slice(payload);
        self.records += 1;
        self.footer.push(meta, offset, key);
        self.usage.add(meta.len);
        self.revision = self.revision.max(meta.revision().map_or(0, |revision| revision.main));
        if self.body.len() >= FRAME_BYTES {
            self.close_frame()?;
        }
        Ok(meta.location(Place { segment: self.segment, offset }))
    }

    /// Writes the footer and makes the file durable; its name is the caller's to sync.
    pub fn seal(mut self) -> Result<Whole, MakeError> {
        if self.records > 0 {
            self.close_frame()?;
        }
        let trailer = Trailer { at: self.end, revision: self.revision, ..Trailer::default() };
        let (bytes, trailer) = self.footer.seal(trailer, self.segment, self.identity);
        let written = self.handle.file.write_at(&bytes, u64::from(self.end));
        let len = self.end + bytes.len() as u32;
        written
            .and_then(|()| self.handle.file.truncate(u64::from(len)))
            .map_err(MakeError::unsynced)?;
        if !mutant::is(Mutant::CopyUnsynced) {
            self.handle.file.sync().map_err(MakeError::Failed)?;
        }
        Ok(Whole { segment: self.segment, handle: self.handle, len, trailer, usage: self.usage })
    }

    fn close_frame(&mut self) -> Result<(), MakeError> {
        let header = FrameHeader {
            len: self.body.len() as u32,
            index: 0,
            term: 0,
            synced_to: SEGMENT_HEADER_BYTES,
            records: self.records,
            body_crc: crc32c::crc32c(&self.body),
        };
        let head = header.encode(self.identity.seed(self.segment, self.end));
        let file = &self.handle.file;
        file.write_at(&head, u64::from(self.end))
            .and_then(|()| file.write_at(&self.body, u64::from(self.end + FRAME_HEADER_BYTES)))
            .map_err(MakeError::unsynced)?;
        self.end += FRAME_HEADER_BYTES + header.len;
        if self.end - self.synced >= SYNC_BYTES {
            file.sync().map_err(MakeError::Failed)?;
            self.synced = self.end;
        }
        self.body.clear();
        self.records = 0;
        Ok(())
    }
}
