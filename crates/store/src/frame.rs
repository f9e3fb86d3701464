//! Frames: the header that makes a run of records whole or not there.
//!
//! ```text
//!   0    4    8        16       24   28   32   36   40
//!   │magic│len │ index  │ term   │sync│recs│bcrc│hcrc│ records … (len bytes)
//! ```
//!
//! `hcrc` covers cluster id, member id, segment number and the frame's offset before it covers the header, so
//! a frame that lies anywhere but where it was written is no frame. `sync` says up to where the segment was
//! durable when the frame was written: a bad frame below the `sync` of a later good one cannot be a torn
//! write, it is rot. Frames of segments that were written whole carry index and term 0.

use std::io;
use std::sync::Arc;

use mutant::Mutant;
use vfs::File;

use crate::record::{take_u32, take_u64};

/// Bytes of a frame's header.
pub(crate) const FRAME_HEADER_BYTES: u32 = 40;
const HEADER: usize = FRAME_HEADER_BYTES as usize;
/// No frame is longer: a segment ends soon after it has reached the size that was asked for, which is at most this.
const FRAME_BYTES_MAX: u32 = 1 << 30;
const MAGIC: [u8; 4] = *b"QFrm";

/// Whose files these are; mixed into the checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: u64,
    /// The member.
    pub member_id: u64,
}

impl Identity {
    /// The CRC to begin with for something that stands at `offset` of `segment`.
    pub(crate) fn seed(&self, segment: u32, offset: u32) -> u32 {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.cluster_id.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.member_id.to_le_bytes());
        bytes[16..20].copy_from_slice(&segment.to_le_bytes());
        bytes[20..].copy_from_slice(&offset.to_le_bytes());
        crc32c::crc32c(&bytes)
    }
}

/// What a frame's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Bytes of the records.
    pub len: u32,
    pub index: u64,
    pub term: u64,
    /// Bytes of this segment known to be durable when the frame was written.
    pub synced_to: u32,
    pub records: u32,
    pub body_crc: u32,
}

impl FrameHeader {
    pub fn encode(&self, seed: u32) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.len.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.index.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.term.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.synced_to.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.records.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32c::crc32c_append(seed, &bytes[..36]);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None`: no frame was written there.
    pub fn decode(bytes: &[u8], seed: u32) -> Option<FrameHeader> {
        let header = bytes.get(..HEADER)?;
        let mut rest = header.strip_prefix(&MAGIC)?;
        let decoded = FrameHeader {
            len: take_u32(&mut rest)?,
            index: take_u64(&mut rest)?,
            term: take_u64(&mut rest)?,
            synced_to: take_u32(&mut rest)?,
            records: take_u32(&mut rest)?,
            body_crc: take_u32(&mut rest)?,
        };
        (take_u32(&mut rest)? == crc32c::crc32c_append(seed, &header[..36])).then_some(decoded)
    }
}

/// Reads a segment's frames one after the other.
pub(crate) struct Scan {
    pub file: Arc<dyn File>,
    pub identity: Identity,
    pub segment: u32,
    /// Where the next frame should begin.
    pub offset: u32,
    /// Where frames must end: the file's length, or where its footer begins.
    pub end: u32,
}

impl Scan {
    /// Reads the frame at `offset` into `body` and moves behind it. `None`: there is no whole frame, and
    /// `offset` stays.
    pub fn next(&mut self, body: &mut Vec<u8>) -> io::Result<Option<FrameHeader>> {
        let room = self.end.saturating_sub(self.offset);
        if room < FRAME_HEADER_BYTES {
            return Ok(None);
        }
        let mut bytes = [0; HEADER];
        self.file.read_exact_at(&mut bytes, u64::from(self.offset))?;
        let seed = self.identity.seed(self.segment, self.offset);
        let Some(header) = FrameHeader::decode(&bytes, seed) else { return Ok(None) };
        if header.len > (room - FRAME_HEADER_BYTES).min(FRAME_BYTES_MAX) {
            return Ok(None);
        }
        body.clear();
        body.resize(header.len as usize, 0);
        self.file.read_exact_at(body, u64::from(self.offset + FRAME_HEADER_BYTES))?;
        if crc32c::crc32c(body) != header.body_crc && !mutant::is(Mutant::FrameUnchecked) {
            return Ok(None);
        }
        self.offset += FRAME_HEADER_BYTES + header.len;
        Ok(Some(header))
    }

    /// Looks at what lies behind the last whole frame.
    pub fn tail(&self) -> io::Result<Tail> {
        let mut tail = Tail { end: self.offset, synced_to: 0 };
        let mut window = vec![0; 64 << 10];
        let mut start = self.offset;
        while start < self.end {
            let len = window.len().min((self.end - start) as usize);
            self.file.read_exact_at(&mut window[..len], u64::from(start))?;
            let written = window[..len].iter().rposition(|byte| *byte != 0);
            tail.end = written.map_or(tail.end, |last| start + last as u32 + 1);
            let last = len.saturating_sub(HEADER);
            // Most of it is what preallocation left; only the rest is looked through.
            for at in (0..=written.unwrap_or(0)).filter(|at| window[*at] == MAGIC[0]) {
                let seed = || self.identity.seed(self.segment, start + at as u32);
                if window[at..len].starts_with(&MAGIC)
                    && let Some(header) = FrameHeader::decode(&window[at..len], seed())
                {
                    tail.synced_to = tail.synced_to.max(header.synced_to);
                }
            }
            // The next window begins so that a header across the border is seen whole.
            start += if start + len as u32 == self.end { len } else { last + 1 } as u32;
        }
        Ok(tail)
    }
}

/// What lies behind the last whole frame of a growing segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Behind it there is nothing but what preallocation left; where the last whole frame ends if that is all.
    pub end: u32,
    /// The highest such mark of the frame headers found there.
    pub synced_to: u32,
}
