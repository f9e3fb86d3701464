//! A store's directory, looked at without opening the store: nothing is mended, and nothing changes.
//!
//! ```text
//!   Inspection::open     the manifest
//!     ├─ read            what a start would find, or why it would refuse        the very code of a start
//!     └─ walk            every segment, frame, record and footer as it lies, and all that is damaged
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vfs::{OpenMode, Vfs};

use crate::error::{Damage, OpenError, ReadError};
use crate::footer::{BLOCK_HEAD_BYTES, Cursor, TRAILER_BYTES, Trailer, decode_row};
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, Scan};
use crate::manifest::{MANIFEST, Manifest, Named};
use crate::record::{Kind, Location, Meta, Recovered, Revision, Row, records};
use crate::recovery::{Scanned, read_manifest, scan};
use crate::segment::{self, Handle, Reader, SEGMENT_HEADER_BYTES, Table, check_header, damage};
use crate::store::TornTail;

/// The name of the manifest.
pub const MANIFEST_NAME: &str = MANIFEST;

/// A directory whose manifest was read.
pub struct Inspection<'a> {
    vfs: &'a dyn Vfs,
    dir: PathBuf,
    manifest: Manifest,
    bytes: Vec<u8>,
}

/// What a start would find.
pub struct Contents {
    /// Index and term of the last entry.
    pub applied: (u64, u64),
    /// The highest main revision ever given.
    pub revision: i64,
    /// The compaction mark, 0 if there is none.
    pub compact_revision: i64,
    /// All rows of the small tables by table and key, and where they lie.
    pub rows: Vec<(Row, Location)>,
    /// What a start would cut off.
    pub torn: Option<TornTail>,
    /// Reads payloads.
    pub reader: Reader,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A put.
    Put {
        /// Of this change.
        revision: Revision,
        /// The main revision at which the key's life began.
        create: i64,
        /// Changes in that life, from 1.
        version: i64,
        /// The lease, 0 for none.
        lease: i64,
    },
    /// A deletion.
    Tombstone {
        /// Of this change.
        revision: Revision,
    },
    /// A row of a small table was set.
    Row {
        /// The table.
        table: u8,
        /// The entry that did it.
        index: u64,
        /// Which row record of that entry, from 1.
        seq: u32,
    },
    /// A row of a small table was deleted.
    RowDelete {
        /// The table.
        table: u8,
        /// The entry that did it.
        index: u64,
        /// Which row record of that entry, from 1.
        seq: u32,
    },
    /// The compaction mark moved.
    Compact {
        /// To here.
        revision: i64,
    },
}

/// What lies in a segment, in the order in which it lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A segment begins.
    Segment {
        /// Its number.
        number: u32,
        /// Length of the file in bytes.
        bytes: u64,
        /// It takes no more frames.
        is_sealed: bool,
        /// The header's bytes.
        header: &'a [u8],
    },
    /// A frame begins; its records follow.
    Frame {
        /// Where in the file.
        offset: u64,
        /// Index of its last entry, 0 in segments written whole.
        index: u64,
        /// That entry's term.
        term: u64,
        /// Bytes of the segment that were durable when it was written.
        synced_to: u32,
        /// How many records it has.
        records: u32,
        /// Bytes of them.
        len: u32,
        /// The header's bytes.
        header: &'a [u8],
    },
    /// A record.
    Record {
        /// Where in the file.
        offset: u64,
        /// What it is.
        item: Item,
        /// Its key; empty in a compaction.
        key: &'a [u8],
        /// What stands before the payload.
        meta: &'a [u8],
        /// The payload.
        payload: &'a [u8],
    },
    /// A block of the footer begins.
    Block {
        /// Where in the file.
        offset: u64,
        /// Its head.
        head: [u8; BLOCK_HEAD_BYTES],
        /// How many rows' bytes follow.
        len: u32,
    },
    /// A row of a block.
    FooterRow {
        /// Where in the file.
        offset: u64,
        /// The record that it stands for.
        item: Item,
        /// Where that record's payload begins.
        payload_offset: u32,
        /// The record's key.
        key: &'a [u8],
        /// The row's bytes.
        bytes: &'a [u8],
    },
    /// The end of a sealed segment.
    Trailer {
        /// Where in the file.
        offset: u64,
        /// Where the first block begins.
        at: u32,
        /// How many blocks there are.
        blocks: u32,
        /// How many rows.
        rows: u64,
        /// Index and term of the last entry.
        applied: (u64, u64),
        /// The highest main revision.
        revision: i64,
        /// The compaction mark.
        compact_revision: i64,
        /// The trailer's bytes.
        bytes: &'a [u8],
    },
    /// Frames end here: from `offset` on there is nothing, or what a torn write left.
    End {
        /// Where in the file.
        offset: u64,
        /// Bytes that a start cuts off; 0 if nothing is torn.
        torn_bytes: u64,
    },
    /// Something is not what was written. What can be read behind it follows.
    Damage(Damage),
}

impl<'a> Inspection<'a> {
    /// Reads the manifest in `dir`.
    ///
    /// # Errors
    /// There is none, it cannot be read, or it is damaged.
    pub fn open(vfs: &'a dyn Vfs, dir: &Path) -> Result<Inspection<'a>, OpenError> {
        let io_here = |error| OpenError::Io { file: dir.to_owned(), error };
        let names = vfs.list(dir).map_err(io_here)?;
        if !names.iter().any(|name| name == MANIFEST) {
            return Err(OpenError::ManifestMissing { dir: dir.to_owned() });
        }
        let (manifest, bytes) = read_manifest(vfs, dir)?;
        Ok(Inspection { vfs, dir: dir.to_owned(), manifest, bytes })
    }

    /// What the manifest says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest's bytes.
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The file of a segment.
    pub fn file_name(segment: u32) -> String {
        segment::name(segment)
    }

    /// Whether a name is that of a manifest or a segment.
    pub fn is_part(name: &str) -> bool {
        name == MANIFEST || segment::parse_name(name).is_some()
    }

    /// Reads what a start would read, by the same rules, and hands the keyspace's records to `recovered` in ascending
    /// order of revision.
    ///
    /// # Errors
    /// Why a start would refuse.
    pub fn read(&self, recovered: &mut dyn FnMut(Recovered<'_>)) -> Result<Contents, OpenError> {
        let scanned = scan(self.vfs, &self.dir, &self.manifest, OpenMode::Read, recovered)?;
        let torn = scanned.torn();
        let Scanned { handles, rows, applied, revision, compact_revision, .. } = scanned;
        let table = Table::default();
        table.change(|current| *current = handles);
        let reader = Reader(Arc::new(table));
        Ok(Contents { applied, revision, compact_revision, rows, torn, reader })
    }

    /// Shows every piece of every segment that the manifest names, those that are sealed first, and checks every
    /// checksum. Ends early with what `visit` fails with.
    pub fn walk<E>(&self, visit: &mut dyn FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        for named in &self.manifest.sealed {
            self.walk_segment(named.segment, Some(named), visit)?;
        }
        self.walk_segment(self.manifest.growing, None, visit)
    }

    fn walk_segment<E>(
        &self,
        number: u32,
        named: Option<&Named>,
        visit: &mut dyn FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let path = self.dir.join(segment::name(number));
        let opened = self.vfs.open(&path, OpenMode::Read).and_then(|file| {
            let len = file.len()?;
            let mut header = [0; SEGMENT_HEADER_BYTES as usize];
            file.read_exact_at(&mut header, 0)?;
            Ok((file, len, header))
        });
        let (file, len, header) = match opened {
            Ok(opened) => opened,
            Err(error) => return visit(Piece::Damage(damage(&path, 0, error.to_string()))),
        };
        visit(Piece::Segment { number, bytes: len, is_sealed: named.is_some(), header: &header })?;
        if check_header(&header, number, self.manifest.identity).is_err() {
            visit(Piece::Damage(damage(&path, 0, "the segment's header is damaged")))?;
        }
        let handle = Handle::new(file, path.clone());
        let mut trailer = None;
        if let Some(named) = named {
            match self.trailer(named, &handle, len) {
                Ok(found) => trailer = Some(found),
                Err(damage) => visit(Piece::Damage(damage))?,
            }
        }
        let end = trailer.as_ref().map_or(len, |(trailer, _)| trailer.at.into());
        let mut scan = Scan {
            file: Arc::clone(&handle.file),
            identity: self.manifest.identity,
            segment: number,
            offset: SEGMENT_HEADER_BYTES,
            end: u32::try_from(end).unwrap_or(u32::MAX),
        };
        if let Err(error) = walk_frames(&mut scan, &handle, visit)? {
            visit(Piece::Damage(damage(&path, scan.offset.into(), error.to_string())))?;
        }
        match (&trailer, named) {
            (Some((trailer, bytes)), _) => {
                if scan.offset < scan.end {
                    let at = scan.offset.into();
                    visit(Piece::Damage(damage(&path, at, "a frame is damaged")))?;
                }
                walk_footer(number, &handle, trailer, bytes, len, visit)
            }
            (None, Some(_)) => visit(Piece::End { offset: scan.offset.into(), torn_bytes: 0 }),
            (None, None) => {
                let found = match scan.tail() {
                    Ok(found) => found,
                    Err(error) => {
                        let at = scan.offset.into();
                        return visit(Piece::Damage(damage(&path, at, error.to_string())));
                    }
                };
                if self.manifest.growing_synced.max(found.synced_to) > scan.offset {
                    let what = "a frame that was durable is damaged";
                    return visit(Piece::Damage(damage(&path, scan.offset.into(), what)));
                }
                let torn_bytes = u64::from(found.end - scan.offset);
                visit(Piece::End { offset: scan.offset.into(), torn_bytes })
            }
        }
    }

    fn trailer(
        &self,
        named: &Named,
        handle: &Handle,
        len: u64,
    ) -> Result<(Trailer, [u8; 64]), Damage> {
        let rot = |offset, what: &str| damage(&handle.path, offset, what);
        if len != u64::from(named.len) || named.len < SEGMENT_HEADER_BYTES + TRAILER_BYTES {
            return Err(rot(len, "the file has not the length that it was sealed with"));
        }
        let at = len - u64::from(TRAILER_BYTES);
        let mut bytes = [0; 64];
        let read = handle.file.read_exact_at(&mut bytes, at);
        read.map_err(|error| rot(at, &error.to_string()))?;
        Trailer::decode(&bytes, named.segment, self.manifest.identity)
            .filter(|trailer| trailer.crc == named.trailer_crc)
            .map(|trailer| (trailer, bytes))
            .ok_or_else(|| rot(at, "the footer's end is damaged"))
    }
}

fn walk_frames<E>(
    scan: &mut Scan,
    handle: &Handle,
    visit: &mut dyn FnMut(Piece<'_>) -> Result<(), E>,
) -> Result<std::io::Result<()>, E> {
    let mut body = Vec::new();
    loop {
        let start = scan.offset;
        let header = match scan.next(&mut body) {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        };
        let FrameHeader { len, index, term, synced_to, records: count, .. } = header;
        let encoded = header.encode(scan.identity.seed(scan.segment, start));
        let offset = u64::from(start);
        visit(Piece::Frame {
            offset,
            index,
            term,
            synced_to,
            records: count,
            len,
            header: &encoded,
        })?;
        let first = offset + u64::from(FRAME_HEADER_BYTES);
        let (mut behind, mut found) = (0, 0);
        for record in records(&body) {
            let Some((meta, at, payload)) = record else {
                let what = "a frame holds an unknown kind of record";
                visit(Piece::Damage(damage(&handle.path, first + behind as u64, what)))?;
                break;
            };
            found += 1;
            let (key_at, key_len) = meta.key_range();
            let offset = first + behind as u64;
            visit(Piece::Record {
                offset,
                item: meta.item(),
                key: &payload[key_at as usize..][..key_len as usize],
                meta: &body[behind..at as usize],
                payload,
            })?;
            if !matches!(meta.kind, Kind::Compact { .. }) && crc32c::crc32c(payload) != meta.crc {
                let what = "the record's CRC does not match";
                visit(Piece::Damage(damage(&handle.path, offset, what)))?;
            }
            behind = at as usize + payload.len();
        }
        if found != count {
            let what = "a frame has not the number of records it says";
            visit(Piece::Damage(damage(&handle.path, offset, what)))?;
        }
    }
}

fn walk_footer<E>(
    number: u32,
    handle: &Handle,
    trailer: &Trailer,
    bytes: &[u8],
    len: u64,
    visit: &mut dyn FnMut(Piece<'_>) -> Result<(), E>,
) -> Result<(), E> {
    // The manifest has its length in four bytes.
    let mut cursor = Cursor::sealed(number, handle.clone(), trailer, len as u32);
    let mut offset = u64::from(trailer.at);
    loop {
        let block = match cursor.next_block() {
            Ok(Some(block)) => block,
            Ok(None) => break,
            Err(ReadError::Rot(damage)) => {
                visit(Piece::Damage(damage))?;
                break;
            }
            Err(error) => {
                visit(Piece::Damage(damage(&handle.path, offset, error.to_string())))?;
                break;
            }
        };
        let mut head = [0; BLOCK_HEAD_BYTES];
        head[..4].copy_from_slice(&(block.len() as u32).to_le_bytes());
        head[4..].copy_from_slice(&crc32c::crc32c(&block).to_le_bytes());
        visit(Piece::Block { offset, head, len: block.len() as u32 })?;
        offset += BLOCK_HEAD_BYTES as u64;
        let mut rest: &[u8] = &block;
        while !rest.is_empty() {
            let start = block.len() - rest.len();
            let Some((meta, payload_offset, key)) = decode_row(&mut rest) else {
                let at = offset + start as u64;
                visit(Piece::Damage(damage(&handle.path, at, "a footer row cannot be read")))?;
                break;
            };
            let bytes = &block[start..block.len() - rest.len()];
            let offset = offset + start as u64;
            visit(Piece::FooterRow { offset, item: meta.item(), payload_offset, key, bytes })?;
        }
        offset += block.len() as u64;
    }
    let Trailer { at, blocks, rows, index, term, revision, compact_revision, .. } = *trailer;
    let (offset, applied) = (len - u64::from(TRAILER_BYTES), (index, term));
    visit(Piece::Trailer { offset, at, blocks, rows, applied, revision, compact_revision, bytes })
}

impl Meta {
    pub(crate) fn item(&self) -> Item {
        match self.kind {
            Kind::Put { revision, create, version, lease, .. } => {
                Item::Put { revision, create, version, lease }
            }
            Kind::Tombstone { revision } => Item::Tombstone { revision },
            Kind::Row { table, stamp, .. } => {
                Item::Row { table, index: stamp.index, seq: stamp.seq }
            }
            Kind::RowDelete { table, stamp } => {
                Item::RowDelete { table, index: stamp.index, seq: stamp.seq }
            }
            Kind::Compact { revision } => Item::Compact { revision },
        }
    }
}
