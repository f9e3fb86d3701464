//! Footers: a sealed segment's table of contents, and the merge of several of them by revision.
//!
//! ```text
//!   block     │len 4│crc 4│ rows … (len bytes, about 64 KiB)       row = meta ‖ offset of payload ‖ key
//!
//!   trailer   0        8    12   16       24       32       40       48       56     60    64
//!             │QFooter1│ at │blks│  rows  │ index  │ term   │revision│compact │blkcrc│ crc │
//! ```
//!
//! `at` is where the first block begins, `blkcrc` covers all the blocks' heads, `crc` covers cluster, member,
//! segment, `at`, and the trailer. Rows stand in the order of the records: revisions ascend.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use bytes::Bytes;

use crate::error::ReadError;
use crate::frame::Identity;
use crate::record::{Meta, Place, Revision, put_varint, take_u32, take_u64, take_varint_u32};
use crate::segment::Handle;

const BLOCK_BYTES: usize = 64 << 10;
pub(crate) const BLOCK_HEAD_BYTES: usize = 8;
/// No block is longer: 64 KiB and one row, whose key is bounded by the longest payload.
const BLOCK_BYTES_MAX: u32 = 1 << 30;
pub(crate) const TRAILER_BYTES: u32 = 64;
const MAGIC: [u8; 8] = *b"QFooter1";

/// The rows of a segment that is not sealed yet, held as they will be written.
#[derive(Default)]
pub(crate) struct FooterBuilder {
    blocks: Vec<Bytes>,
    current: Vec<u8>,
    rows: u64,
    /// Bytes of `blocks`.
    closed_bytes: usize,
}

impl FooterBuilder {
    pub fn push(&mut self, meta: &Meta, offset: u32, key: &[u8]) {
        meta.encode(&mut self.current);
        put_varint(&mut self.current, u64::from(offset));
        self.current.extend_from_slice(key);
        self.rows += 1;
        if self.current.len() >= BLOCK_BYTES {
            self.closed_bytes += self.current.len();
            self.blocks.push(Bytes::from(std::mem::take(&mut self.current)));
        }
    }

    /// Bytes of rows so far.
    pub fn bytes(&self) -> u32 {
        u32::try_from(self.closed_bytes + self.current.len()).unwrap_or(u32::MAX)
    }

    /// The most bytes that a footer with so many bytes of rows takes: each closed block has more than its limit.
    pub fn sealed_bytes_max(rows_bytes: u32) -> u64 {
        let heads = (rows_bytes as usize / BLOCK_BYTES + 1) * BLOCK_HEAD_BYTES;
        u64::from(rows_bytes) + heads as u64 + u64::from(TRAILER_BYTES)
    }

    /// The rows as they stand, to read while more are added.
    pub fn rows(&self) -> VecDeque<Bytes> {
        let mut blocks: VecDeque<Bytes> = self.blocks.iter().cloned().collect();
        if !self.current.is_empty() {
            blocks.push_back(Bytes::copy_from_slice(&self.current));
        }
        blocks
    }

    /// The footer's bytes, to be written at `trailer.at`, and the trailer's CRC.
    pub fn seal(
        &self,
        mut trailer: Trailer,
        segment: u32,
        identity: Identity,
    ) -> (Vec<u8>, Trailer) {
        let mut out = Vec::with_capacity(self.bytes() as usize + TRAILER_BYTES as usize + 64);
        for block in self.rows() {
            let start = out.len();
            out.extend_from_slice(&(block.len() as u32).to_le_bytes());
            out.extend_from_slice(&crc32c::crc32c(&block).to_le_bytes());
            trailer.blocks_crc = crc32c::crc32c_append(trailer.blocks_crc, &out[start..]);
            trailer.blocks += 1;
            out.extend_from_slice(&block);
        }
        trailer.rows = self.rows;
        trailer.encode(segment, identity, &mut out);
        (out, trailer)
    }
}

/// The end of a sealed segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// Where the footer begins, and the frames end.
    pub at: u32,
    pub blocks: u32,
    pub rows: u64,
    pub index: u64,
    pub term: u64,
    pub revision: i64,
    pub compact_revision: i64,
    pub blocks_crc: u32,
    /// Of the trailer itself. The manifest repeats it.
    pub crc: u32,
}

impl Trailer {
    fn encode(&mut self, segment: u32, identity: Identity, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.at.to_le_bytes());
        out.extend_from_slice(&self.blocks.to_le_bytes());
        out.extend_from_slice(&self.rows.to_le_bytes());
        out.extend_from_slice(&self.index.to_le_bytes());
        out.extend_from_slice(&self.term.to_le_bytes());
        out.extend_from_slice(&self.revision.to_le_bytes());
        out.extend_from_slice(&self.compact_revision.to_le_bytes());
        out.extend_from_slice(&self.blocks_crc.to_le_bytes());
        self.crc = crc32c::crc32c_append(identity.seed(segment, self.at), &out[start..]);
        out.extend_from_slice(&self.crc.to_le_bytes());
    }

    pub fn decode(bytes: &[u8; 64], segment: u32, identity: Identity) -> Option<Trailer> {
        let mut rest = bytes.strip_prefix(&MAGIC)?;
        let trailer = Trailer {
            at: take_u32(&mut rest)?,
            blocks: take_u32(&mut rest)?,
            rows: take_u64(&mut rest)?,
            index: take_u64(&mut rest)?,
            term: take_u64(&mut rest)?,
            revision: take_u64(&mut rest)?.cast_signed(),
            compact_revision: take_u64(&mut rest)?.cast_signed(),
            blocks_crc: take_u32(&mut rest)?,
            crc: take_u32(&mut rest)?,
        };
        let crc = crc32c::crc32c_append(identity.seed(segment, trailer.at), &bytes[..60]);
        (crc == trailer.crc).then_some(trailer)
    }
}

/// A footer's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FooterRow {
    pub meta: Meta,
    pub place: Place,
    pub key: Bytes,
}

/// Reads the row at the front of a block and moves it on: the record, the offset of its payload, and its key.
pub(crate) fn decode_row<'a>(block: &mut &'a [u8]) -> Option<(Meta, u32, &'a [u8])> {
    let meta = Meta::decode(block)?;
    let offset = take_varint_u32(block)?;
    let key = block.split_off(..meta.key_range().1 as usize)?;
    Some((meta, offset, key))
}

/// Reads a footer row by row, with one block in memory.
pub(crate) struct Cursor {
    segment: u32,
    source: Source,
    block: Bytes,
    last: Revision,
}

enum Source {
    /// A sealed segment: the next block's offset, how many are left, CRC of the heads so far and as it must be.
    File {
        handle: Handle,
        next: u64,
        left: u32,
        heads_crc: u32,
        blocks_crc: u32,
        end: u64,
    },
    Memory(VecDeque<Bytes>),
}

impl Cursor {
    /// Over the footer of a sealed segment, which is `len` bytes long.
    pub fn sealed(segment: u32, handle: Handle, trailer: &Trailer, len: u32) -> Cursor {
        let source = Source::File {
            handle,
            next: u64::from(trailer.at),
            left: trailer.blocks,
            heads_crc: 0,
            blocks_crc: trailer.blocks_crc,
            end: u64::from(len - TRAILER_BYTES),
        };
        Cursor { segment, source, block: Bytes::new(), last: Revision::default() }
    }

    /// Over the rows of the growing segment.
    pub fn growing(segment: u32, rows: VecDeque<Bytes>) -> Cursor {
        let source = Source::Memory(rows);
        Cursor { segment, source, block: Bytes::new(), last: Revision::default() }
    }

    pub fn next(&mut self) -> Result<Option<FooterRow>, ReadError> {
        while self.block.is_empty() {
            match self.next_block()? {
                Some(block) => self.block = block,
                None => return Ok(None),
            }
        }
        let mut rest: &[u8] = &self.block;
        let Some((meta, offset, key)) = decode_row(&mut rest) else {
            return Err(self.rot("a footer row cannot be read"));
        };
        let end = self.block.len() - rest.len();
        let start = end - key.len();
        if let Some(revision) = meta.revision() {
            if revision <= self.last {
                return Err(self.rot("revisions do not ascend in the footer"));
            }
            self.last = revision;
        }
        let key = self.block.slice(start..end);
        self.block = self.block.slice(end..);
        let place = Place { segment: self.segment, offset };
        Ok(Some(FooterRow { meta, place, key }))
    }

    /// The rows of the next block, checked. Between rows only.
    pub fn next_block(&mut self) -> Result<Option<Bytes>, ReadError> {
        let (handle, next, left, heads_crc, blocks_crc, end) = match &mut self.source {
            Source::Memory(blocks) => return Ok(blocks.pop_front()),
            Source::File { handle, next, left, heads_crc, blocks_crc, end } => {
                (handle, next, left, heads_crc, *blocks_crc, *end)
            }
        };
        if *left == 0 {
            return match *heads_crc == blocks_crc && *next == end {
                true => Ok(None),
                false => Err(handle.rot(*next, "the footer does not end where it should")),
            };
        }
        let mut head = [0; BLOCK_HEAD_BYTES];
        if end.saturating_sub(*next) < BLOCK_HEAD_BYTES as u64 {
            return Err(handle.rot(*next, "a footer block is missing"));
        }
        handle.file.read_exact_at(&mut head, *next).map_err(ReadError::Io)?;
        *heads_crc = crc32c::crc32c_append(*heads_crc, &head);
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let start = *next + BLOCK_HEAD_BYTES as u64;
        if len > BLOCK_BYTES_MAX || start + u64::from(len) > end {
            return Err(handle.rot(*next, "a footer block is longer than the footer"));
        }
        let mut block = vec![0; len as usize];
        handle.file.read_exact_at(&mut block, start).map_err(ReadError::Io)?;
        if crc32c::crc32c(&block) != crc {
            return Err(handle.rot(*next, "a footer block's CRC does not match"));
        }
        *next = start + u64::from(len);
        *left -= 1;
        Ok(Some(Bytes::from(block)))
    }

    fn rot(&self, what: &str) -> ReadError {
        match &self.source {
            Source::File { handle, next, .. } => handle.rot(*next, what),
            // What this process encoded itself cannot be unreadable; said rather than panicked all the same.
            Source::Memory(_) => ReadError::Io(std::io::Error::other(what.to_owned())),
        }
    }
}

/// Several footers as one, keyspace records in ascending order of revision; rows of small tables as they come.
pub(crate) struct Merge {
    cursors: Vec<Cursor>,
    heads: Vec<Option<FooterRow>>,
    /// The least head first. Rows of small tables have no revision and are therefore least.
    heap: BinaryHeap<Reverse<(Option<Revision>, usize)>>,
    last: Revision,
}

impl Merge {
    pub fn new(cursors: Vec<Cursor>) -> Result<Merge, ReadError> {
        let heads = cursors.iter().map(|_| None).collect();
        let heap = BinaryHeap::with_capacity(cursors.len());
        let mut merge = Merge { cursors, heads, heap, last: Revision::default() };
        for cursor in 0..merge.cursors.len() {
            merge.advance(cursor)?;
        }
        Ok(merge)
    }

    pub fn next(&mut self) -> Result<Option<FooterRow>, ReadError> {
        let Some(Reverse((revision, cursor))) = self.heap.pop() else { return Ok(None) };
        let row = self.heads[cursor].take().expect("a cursor in the heap has a head");
        if let Some(revision) = revision {
            if revision <= self.last {
                return Err(self.cursors[cursor].rot("a revision stands in two segments"));
            }
            self.last = revision;
        }
        self.advance(cursor)?;
        Ok(Some(row))
    }

    fn advance(&mut self, cursor: usize) -> Result<(), ReadError> {
        if let Some(row) = self.cursors[cursor].next()? {
            self.heap.push(Reverse((row.meta.revision(), cursor)));
            self.heads[cursor] = Some(row);
        }
        Ok(())
    }
}
