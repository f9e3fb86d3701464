//! Snapshots: the store at a frame boundary as a stream of chunks, and such a stream turned into a store.
//!
//! ```text
//!   stream   header chunk, chunks of records …, end chunk
//!   chunk    0    4    8    12   16   20
//!            │QChk│kind│ nr │len │crc │ body (len bytes)      crc: of magic, kind, nr, len and the body
//!   header   │version 4│ cluster │ index │ term │ revision │ compact │ (8 each)
//!   records  as in a frame, each meta followed by its payload; revisions ascend over the whole stream
//!   end      │ records 8 │ bytes 8 │ crc 4 of all the record chunks' bodies together │
//! ```
//!
//! **What is in it.** All rows, deletions too, as they lie on disk: the import rebuilds them as a start would.
//! Of the keyspace whatever `needed` asks for. Everything on disk is a right answer, for it is what a restart
//! would find. The least right answer drops, for each key, all that no reader at the mark or above can ask for;
//! a tombstone among it may go because everything it guards goes too. What may not be is an answer
//! that changes while the stream runs: the put let through before a compaction, its tombstone dropped after it.
//!
//! **Import**: chunks are checked as they come and written into whole segments that nothing names yet. When the
//! end chunk has vouched for all of them they are synced, and one manifest replacement puts them in the place
//! of the old segments. A crash before it leaves files that the next start deletes; after it, the old segments
//! are those.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use mutant::Mutant;

use crate::copy::{CopyWriter, Whole};
use crate::error::{ImportError, ReadError};
use crate::footer::{Cursor, FooterRow, Merge};
use crate::inspect::Item;
use crate::manifest::{Manifest, Named};
use crate::record::{Kind, Meta, Revision, records, take_u32, take_u64};
use crate::segment::{SEGMENT_HEADER_BYTES, VERSION, View, Window};
use crate::store::{Flusher, MakeError};

const MAGIC: [u8; 4] = *b"QChk";
const CHUNK_HEADER_BYTES: usize = 20;
/// Longer chunks are refused, before memory is taken for them.
const CHUNK_BYTES_MAX: u32 = 256 << 20;

const HEADER: u32 = 1;
const RECORDS: u32 = 2;
const END: u32 = 3;

/// What a snapshot is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The cluster.
    pub cluster_id: u64,
    /// Index of the last entry applied in it.
    pub applied_index: u64,
    /// That entry's term.
    pub applied_term: u64,
    /// The highest main revision.
    pub revision: i64,
    /// The compaction mark, 0 if there is none.
    pub compact_revision: i64,
}

impl SnapshotHeader {
    fn encode(&self) -> Vec<u8> {
        let mut out = VERSION.to_le_bytes().to_vec();
        for number in [
            self.cluster_id,
            self.applied_index,
            self.applied_term,
            self.revision.cast_unsigned(),
            self.compact_revision.cast_unsigned(),
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out
    }

    fn decode(rest: &mut &[u8]) -> Option<SnapshotHeader> {
        Some(SnapshotHeader {
            cluster_id: take_u64(rest)?,
            applied_index: take_u64(rest)?,
            applied_term: take_u64(rest)?,
            revision: take_u64(rest)?.cast_signed(),
            compact_revision: take_u64(rest)?.cast_signed(),
        })
    }
}

/// A snapshot being streamed. It holds the files it reads; dropping it lets them go.
pub struct Snapshot {
    header: SnapshotHeader,
    view: View,
    merge: Merge,
    windows: BTreeMap<u32, Window>,
    /// Of the next chunk, from 0.
    number: u32,
    records: u64,
    bytes: u64,
    crc: u32,
    ended: bool,
}

impl Snapshot {
    /// What it is of: the last frame written before [`Flusher::snapshot`].
    pub fn header(&self) -> SnapshotHeader {
        self.header
    }

    /// The next chunk, of about `bytes_max` bytes; `None` after the last.
    ///
    /// `needed(key, revision)` is asked for each put and tombstone. It must answer from a state that does not
    /// change while the snapshot is streamed (a pin at the header's compaction mark): true for all above the
    /// mark, and for what a reader at the mark can ask for. `|_, _| true` is right as well, and streams more.
    pub fn next_chunk(
        &mut self,
        bytes_max: usize,
        needed: &mut dyn FnMut(&[u8], Revision) -> bool,
    ) -> Result<Option<Bytes>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        if self.number == 0 {
            let body = self.header.encode();
            return Ok(Some(self.chunk(HEADER, &body)));
        }
        let mut body = Vec::new();
        let mut looked_at = 0;
        while body.len() < bytes_max && looked_at < bytes_max {
            let Some(FooterRow { meta, place, key }) = self.merge.next()? else { break };
            looked_at += 32;
            if meta.revision().is_some_and(|revision| !needed(&key, revision)) {
                continue;
            }
            let segment = place.segment;
            let handle = self.view.0.get(&segment).ok_or(ReadError::Gone { segment })?;
            let window = self.windows.entry(segment).or_default();
            let payload = window.payload(handle, &meta.location(place))?;
            meta.encode(&mut body);
            body.extend_from_slice(payload);
            self.records += 1;
        }
        if looked_at > 0 {
            self.bytes += body.len() as u64;
            self.crc = crc32c::crc32c_append(self.crc, &body);
            return Ok(Some(self.chunk(RECORDS, &body)));
        }
        self.ended = true;
        let mut end = Vec::new();
        end.extend_from_slice(&self.records.to_le_bytes());
        end.extend_from_slice(&self.bytes.to_le_bytes());
        end.extend_from_slice(&self.crc.to_le_bytes());
        Ok(Some(self.chunk(END, &end)))
    }

    fn chunk(&mut self, kind: u32, body: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(CHUNK_HEADER_BYTES + body.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&out), body);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(body);
        self.number += 1;
        Bytes::from(out)
    }
}

/// What a stream holds, in the order in which it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The header chunk.
    Header {
        /// Bytes from the beginning of the stream.
        offset: u64,
        /// What it says.
        header: SnapshotHeader,
        /// The whole chunk.
        chunk: &'a [u8],
    },
    /// A chunk of records begins; they follow.
    Records {
        /// Bytes from the beginning of the stream.
        offset: u64,
        /// What stands before the records.
        head: &'a [u8],
        /// Bytes of them.
        len: usize,
    },
    /// A record.
    Record {
        /// Bytes from the beginning of the stream.
        offset: u64,
        /// What it is.
        item: Item,
        /// Its key.
        key: &'a [u8],
        /// What stands before the payload.
        meta: &'a [u8],
        /// The payload.
        payload: &'a [u8],
    },
    /// The end chunk, which vouches for all before it.
    End {
        /// Bytes from the beginning of the stream.
        offset: u64,
        /// How many records there were.
        records: u64,
        /// Bytes of them.
        bytes: u64,
        /// Their checksum.
        crc: u32,
        /// The whole chunk.
        chunk: &'a [u8],
    },
}

/// Takes the parts; with a record comes what it is in full.
type Take<'a> = dyn FnMut(Part<'_>, Option<&Meta>) -> Result<(), ImportError> + 'a;

/// Reads a stream, in pieces of any size, and checks all of it. Holds one chunk in memory.
#[derive(Default)]
pub struct SnapshotReader {
    /// Bytes that came and are no whole chunk yet.
    pending: Vec<u8>,
    /// Bytes of the chunks before those.
    offset: u64,
    chunks: u32,
    header: Option<SnapshotHeader>,
    last: Revision,
    records: u64,
    bytes: u64,
    crc: u32,
    ended: bool,
}

impl SnapshotReader {
    /// At the beginning of a stream.
    pub fn new() -> SnapshotReader {
        SnapshotReader::default()
    }

    /// Takes the next bytes and hands out what is whole by now. After an error the reader is of no use.
    ///
    /// # Errors
    /// What `take` fails with, and [`ImportError::Rot`] or [`ImportError::UnknownVersion`].
    pub fn feed(
        &mut self,
        bytes: &[u8],
        take: &mut dyn FnMut(Part<'_>) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        self.feed_with_meta(bytes, &mut |part, _| take(part))
    }

    /// The stream has ended: what it was of.
    ///
    /// # Errors
    /// It was not whole.
    pub fn finish(&self) -> Result<SnapshotHeader, ImportError> {
        match self.header {
            Some(_) if self.ended && !self.pending.is_empty() => {
                Err(self.rot("something follows the end"))
            }
            Some(header) if self.ended => Ok(header),
            Some(_) | None => Err(self.rot("the stream ends before the snapshot does")),
        }
    }

    /// As [`SnapshotReader::feed`].
    fn feed_with_meta(&mut self, bytes: &[u8], take: &mut Take<'_>) -> Result<(), ImportError> {
        self.pending.extend_from_slice(bytes);
        while let Some(len) = self.chunk_len()?.filter(|len| *len <= self.pending.len()) {
            let rest = self.pending.split_off(len);
            let chunk = std::mem::replace(&mut self.pending, rest);
            self.take_chunk(&chunk, take)?;
            self.offset += len as u64;
            self.chunks += 1;
        }
        Ok(())
    }

    fn rot(&self, what: &str) -> ImportError {
        ImportError::Rot { offset: self.offset, what: what.to_owned() }
    }

    /// The length of the chunk at the front of `pending`, once its header is there.
    fn chunk_len(&self) -> Result<Option<usize>, ImportError> {
        let Some(mut rest) = self.pending.get(4..CHUNK_HEADER_BYTES) else { return Ok(None) };
        if self.pending[..4] != MAGIC {
            return Err(self.rot("no chunk begins here"));
        }
        let fields = (take_u32(&mut rest), take_u32(&mut rest), take_u32(&mut rest));
        let (Some(_), Some(number), Some(len)) = fields else { return Ok(None) };
        if number != self.chunks {
            return Err(self.rot("a chunk is missing or stands twice"));
        }
        if len > CHUNK_BYTES_MAX {
            return Err(self.rot("a chunk is too long"));
        }
        Ok(Some(CHUNK_HEADER_BYTES + len as usize))
    }

    fn take_chunk(&mut self, chunk: &[u8], take: &mut Take<'_>) -> Result<(), ImportError> {
        let (head, mut body) = chunk.split_at(CHUNK_HEADER_BYTES);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..16]), body);
        if crc.to_le_bytes() != head[16..20] {
            return Err(self.rot("the chunk's CRC does not match"));
        }
        if self.ended {
            return Err(self.rot("something follows the end"));
        }
        let offset = self.offset;
        let kind = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        match (kind, self.header) {
            (HEADER, None) => {
                let version = take_u32(&mut body).ok_or_else(|| self.rot("no version"))?;
                if version != VERSION {
                    return Err(ImportError::UnknownVersion(version));
                }
                let header = SnapshotHeader::decode(&mut body)
                    .filter(|_| body.is_empty())
                    .ok_or_else(|| self.rot("the header cannot be read"))?;
                self.header = Some(header);
                take(Part::Header { offset, header, chunk }, None)
            }
            (RECORDS, Some(_)) => {
                take(Part::Records { offset, head, len: body.len() }, None)?;
                self.take_records(body, take)
            }
            (END, Some(_)) => {
                let end = (take_u64(&mut body), take_u64(&mut body), take_u32(&mut body));
                if end != (Some(self.records), Some(self.bytes), Some(self.crc)) {
                    return Err(self.rot("the end does not vouch for what came before it"));
                }
                self.ended = true;
                let SnapshotReader { records, bytes, crc, .. } = *self;
                take(Part::End { offset, records, bytes, crc, chunk }, None)
            }
            _ => Err(self.rot("an unknown chunk, or one in the wrong place")),
        }
    }

    fn take_records(&mut self, body: &[u8], take: &mut Take<'_>) -> Result<(), ImportError> {
        self.bytes += body.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, body);
        let mut behind = 0;
        for record in records(body) {
            let Some((meta, at, payload)) = record else {
                return Err(self.rot("a record cannot be read"));
            };
            if matches!(meta.kind, Kind::Compact { .. }) {
                return Err(self.rot("a record that is not the state's"));
            }
            if crc32c::crc32c(payload) != meta.crc {
                return Err(self.rot("a record's CRC does not match"));
            }
            if let Some(revision) = meta.revision() {
                if revision <= self.last {
                    return Err(self.rot("revisions do not ascend"));
                }
                self.last = revision;
            }
            self.records += 1;
            let (key_at, key_len) = meta.key_range();
            let part = Part::Record {
                offset: self.offset + (CHUNK_HEADER_BYTES + behind) as u64,
                item: meta.item(),
                key: &payload[key_at as usize..][..key_len as usize],
                meta: &body[behind..at as usize],
                payload,
            };
            take(part, Some(&meta))?;
            behind = at as usize + payload.len();
        }
        Ok(())
    }
}

/// An import on its way.
#[derive(Default)]
pub(crate) struct Import {
    reader: SnapshotReader,
    writer: Option<CopyWriter>,
    whole: Vec<Whole>,
}

impl Flusher {
    /// Pins the state as of the last written frame.
    pub fn snapshot(&self) -> Result<Snapshot, ReadError> {
        let header = SnapshotHeader {
            cluster_id: self.identity.cluster_id,
            applied_index: self.applied.0,
            applied_term: self.applied.1,
            revision: self.revision,
            compact_revision: self.compact_revision,
        };
        // The manifest's segments, not all that are open: the copy of a running job holds what others hold too.
        let named = self.manifest.sealed.iter().map(|named| named.segment);
        let mut cursors: Vec<Cursor> =
            named.map(|number| self.sealed[&number].cursor(number)).collect();
        cursors.push(Cursor::growing(self.growing.number, self.growing.footer.rows()));
        Ok(Snapshot {
            header,
            view: View(self.table.current()),
            merge: Merge::new(cursors)?,
            windows: BTreeMap::new(),
            number: 0,
            records: 0,
            bytes: 0,
            crc: 0,
            ended: false,
        })
    }

    /// Begins to import a snapshot; one begun before is given up.
    pub fn begin_import(&mut self) -> Result<(), ImportError> {
        self.check_failed().map_err(ImportError::Failed)?;
        self.abandon_import()?;
        self.import = Some(Import::default());
        Ok(())
    }

    /// Takes the next bytes of the stream, in pieces of any size. After an error the import is over.
    ///
    /// # Panics
    /// Without [`Flusher::begin_import`].
    pub fn import(&mut self, bytes: &[u8]) -> Result<(), ImportError> {
        self.check_failed().map_err(ImportError::Failed)?;
        let mut import = self.import.take().expect("an import was begun and has not failed");
        let mut reader = std::mem::take(&mut import.reader);
        let taken =
            reader.feed_with_meta(bytes, &mut |part, meta| self.take_part(&mut import, part, meta));
        import.reader = reader;
        self.import = Some(import);
        if taken.is_err() {
            self.abandon_import()?;
        }
        taken
    }

    /// The stream has ended. If it was whole, one manifest replacement makes it the store, and the old
    /// segments are unlinked; builder, flusher and readers of the old state are then of no use: [`crate::open`]
    /// the directory again. On error the store is as it was; the caller opens it again.
    ///
    /// # Panics
    /// Without [`Flusher::begin_import`].
    pub fn finish_import(mut self) -> Result<SnapshotHeader, ImportError> {
        self.check_failed().map_err(ImportError::Failed)?;
        let mut import = self.import.take().expect("an import was begun and has not failed");
        let header = match import.reader.finish() {
            Ok(header) => header,
            Err(error) => {
                self.import = Some(import);
                self.abandon_import()?;
                return Err(error);
            }
        };
        if let Err(error) = self.seal_import(&mut import) {
            self.import = Some(import);
            self.abandon_import()?;
            return Err(error);
        }
        let growing = self.growing.number + 2;
        self.create_segment(growing).map_err(|error| self.import_failed(error))?;
        let manifest = Manifest {
            identity: self.identity,
            generation: self.manifest.generation + 1,
            applied: match mutant::is(Mutant::ReceivedIndexForgotten) {
                false => (header.applied_index, header.applied_term),
                true => self.applied,
            },
            revision: header.revision,
            compact_revision: header.compact_revision,
            growing,
            growing_synced: SEGMENT_HEADER_BYTES,
            sealed: import
                .whole
                .iter()
                .map(|whole| Named {
                    segment: whole.segment,
                    len: whole.len,
                    trailer_crc: whole.trailer.crc,
                })
                .collect(),
        };
        let replaced = manifest.replace(&*self.vfs, &self.dir);
        replaced.map_err(|error| ImportError::Failed(self.fail(error)))?;
        let old = self.sealed.values().map(|sealed| &sealed.handle.path);
        for path in old.chain([&self.growing.handle.path]) {
            self.vfs.unlink(path).map_err(ImportError::Failed)?;
        }
        Ok(header)
    }

    /// Gives up an import, if there is one, and deletes what it wrote.
    pub fn abandon_import(&mut self) -> Result<(), ImportError> {
        let Some(import) = self.import.take() else { return Ok(()) };
        let written = import.whole.iter().map(|whole| &whole.handle.path);
        for path in written.chain(import.writer.iter().map(|writer| &writer.handle.path)) {
            let unlinked = self.vfs.unlink(path);
            unlinked.map_err(|error| {
                self.failed.get_or_insert_with(|| (error.kind(), error.to_string()));
                ImportError::Failed(error)
            })?;
        }
        Ok(())
    }

    fn take_part(
        &mut self,
        import: &mut Import,
        part: Part<'_>,
        meta: Option<&Meta>,
    ) -> Result<(), ImportError> {
        let (meta, key, payload) = match (part, meta) {
            (Part::Header { header, .. }, _) if header.cluster_id != self.identity.cluster_id => {
                return Err(ImportError::OtherCluster {
                    found: header.cluster_id,
                    wanted: self.identity.cluster_id,
                });
            }
            (Part::Record { key, payload, .. }, Some(meta)) => (meta, key, payload),
            _ => return Ok(()),
        };
        let full = |writer: &CopyWriter| {
            writer.bytes() + payload.len() as u64 > u64::from(self.segment_bytes)
                && writer.bytes() > u64::from(SEGMENT_HEADER_BYTES)
        };
        if import.writer.as_ref().is_some_and(full) {
            self.seal_import(import)?;
        }
        let writer = match &mut import.writer {
            Some(writer) => writer,
            None => {
                let number = self.next_whole;
                let created = self.create_segment(number);
                let handle = created.map_err(|error| self.import_failed(error))?;
                self.next_whole += 2;
                import.writer.insert(CopyWriter::new(number, handle, self.identity))
            }
        };
        let pushed = writer.push(meta, key, payload);
        pushed.map(drop).map_err(|error| self.import_failed(error))
    }

    fn seal_import(&mut self, import: &mut Import) -> Result<(), ImportError> {
        let Some(writer) = import.writer.take() else { return Ok(()) };
        let path = Arc::clone(&writer.handle.path);
        match writer.seal() {
            Ok(whole) => {
                import.whole.push(whole);
                let synced = self.vfs.sync_dir(&self.dir);
                synced.map_err(|error| ImportError::Failed(self.fail(error)))
            }
            Err(error) => {
                let error = self.import_failed(error);
                if let ImportError::Full = error {
                    self.vfs.unlink(&path).map_err(ImportError::Failed)?;
                }
                Err(error)
            }
        }
    }

    fn import_failed(&mut self, error: MakeError) -> ImportError {
        match error {
            MakeError::Full => ImportError::Full,
            MakeError::Failed(error) => ImportError::Failed(self.fail(error)),
        }
    }
}
