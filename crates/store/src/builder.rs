//! The builder: the apply thread's end of the store, where every record gets its place.
//!
//! Apply hands each change to the [`Builder`], which keeps it (the `Bytes`, no copy of them) and says at once
//! where its payload will lie. Nothing is encoded here: the flusher gathers the bytes. A [`Frame`] is what was
//! built since the last one, cut at an entry's end; it is plain data for the flush thread.
//!
//! ```text
//!   put / tombstone / row / delete_row / compact      any number of times
//!   end_entry(index, term)                            the entry is complete; also for entries without records
//!   take_frame()                                      between entries
//! ```
//!
//! Invariants:
//! - A frame lies in one segment; the next segment is chosen between frames, by the builder alone, for places
//!   cannot change afterwards. Segments that grow have even numbers.
//! - Frames reach the flusher in the order they were taken, none is left out. The deaths that ride in one are counts,
//!   for choosing what to reclaim; nothing waits for them.

use std::collections::BTreeMap;

use bytes::Bytes;
use mutant::Mutant;

use crate::frame::FRAME_HEADER_BYTES;
use crate::record::{Kind, Location, Meta, Place, PutRecord, Revision, Stamp, varint_len};
use crate::segment::SEGMENT_HEADER_BYTES;

/// A record on its way to the flusher.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    Put { put: PutRecord, location: Location },
    Tombstone { revision: Revision, key: Bytes, location: Location },
    Row { table: u8, key: Bytes, value: Bytes, stamp: Stamp },
    RowDelete { table: u8, key: Bytes, stamp: Stamp },
    Compact { revision: i64 },
}

/// Records and payload bytes of one segment that ceased to live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dead {
    pub records: u64,
    pub bytes: u64,
}

/// What was built between two calls of [`Builder::take_frame`], for [`crate::Flusher::write`].
#[derive(Debug)]
pub struct Frame {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    /// The last entry, its index and term; `None` if no entry ended, then there is nothing to write.
    pub(crate) applied: Option<(u64, u64)>,
    pub(crate) records: Vec<Record>,
    /// Bytes of the frame in the file, with its header.
    pub(crate) bytes: u32,
    /// What the footer of its segment will take behind it, roughly.
    pub(crate) footer_bytes: u32,
    pub(crate) dead: BTreeMap<u32, Dead>,
}

impl Frame {
    /// Index and term of the last entry in it. The frame may be written once the log holds that entry durably.
    /// `None`: it only carries notes for the flusher and may be handed over at any time, in its turn.
    pub fn applied(&self) -> Option<(u64, u64)> {
        self.applied
    }

    /// Bytes it takes on disk.
    pub fn bytes(&self) -> usize {
        if self.applied.is_some() { self.bytes as usize } else { 0 }
    }
}

/// Where the builder goes on after a start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resume {
    pub segment: u32,
    pub offset: u32,
    pub footer_bytes: u32,
    pub applied_index: u64,
}

/// Gives records their places and collects them into frames. Owned by the apply thread.
#[derive(Debug)]
pub struct Builder {
    segment_bytes: u32,
    segment: u32,
    /// Where the frame under construction begins.
    frame_start: u32,
    /// Where the next record begins. Always ≥ frame_start + the frame's header.
    next: u32,
    /// What the segment's footer will take, roughly; it counts towards the segment's size.
    footer_bytes: u32,
    records: Vec<Record>,
    /// Records of ended entries; those behind belong to the entry that is being applied.
    ended: usize,
    /// Row records of the entry that is being applied.
    row_seq: u32,
    applied: Option<(u64, u64)>,
    last_index: u64,
    dead: BTreeMap<u32, Dead>,
    roll_wanted: bool,
    /// The segment was left on request: the flusher must hear of it though nothing is written yet.
    announce: bool,
}

impl Builder {
    pub(crate) fn new(segment_bytes: u32, resume: Resume) -> Builder {
        Builder {
            segment_bytes,
            segment: resume.segment,
            frame_start: resume.offset,
            next: resume.offset + FRAME_HEADER_BYTES,
            footer_bytes: resume.footer_bytes,
            records: Vec::new(),
            ended: 0,
            row_seq: 0,
            applied: None,
            last_index: resume.applied_index,
            dead: BTreeMap::new(),
            roll_wanted: false,
            announce: false,
        }
    }

    /// Takes a put and says where its `KeyValue` bytes will lie. They can be read from there once the frame
    /// has been written; until then the caller keeps its own handle of them.
    ///
    /// # Panics
    /// If the key does not lie within the bytes, or the frame grows beyond 4 GiB.
    pub fn put(&mut self, put: PutRecord) -> Location {
        let key_end = u64::from(put.key_offset) + u64::from(put.key_len);
        assert!(key_end <= put.key_value.len() as u64, "a key that ends at {key_end} in {put:?}");
        let meta = Meta {
            kind: Kind::Put {
                revision: put.revision,
                create: put.create,
                version: put.version,
                lease: put.lease,
                key_offset: put.key_offset,
                key_len: put.key_len,
            },
            len: length(put.key_value.len()),
            crc: crc32c::crc32c(&put.key_value),
        };
        let location = meta.location(self.reserve(&meta, put.key_len));
        self.records.push(Record::Put { put, location });
        location
    }

    /// Takes a deletion of `key`. The location names the key's bytes on disk; nobody needs to read them, but
    /// [`Builder::dead`] wants it when the tombstone has nothing left to guard.
    pub fn tombstone(&mut self, revision: Revision, key: Bytes) -> Location {
        let meta = Meta {
            kind: Kind::Tombstone { revision },
            len: length(key.len()),
            crc: crc32c::crc32c(&key),
        };
        let location = meta.location(self.reserve(&meta, meta.len));
        self.records.push(Record::Tombstone { revision, key, location });
        location
    }

    /// Sets a row of a small table. Which older record of the row thereby dies is the store's own business.
    pub fn row(&mut self, table: u8, key: Bytes, value: Bytes) {
        let stamp = self.stamp();
        let key_len = length(key.len());
        let meta = Meta {
            kind: Kind::Row { table, stamp, key_len },
            len: length(key.len() + value.len()),
            crc: 0,
        };
        self.reserve(&meta, key_len);
        self.records.push(Record::Row { table, key, value, stamp });
    }

    /// Deletes a row of a small table; allowed also if there is none.
    pub fn delete_row(&mut self, table: u8, key: Bytes) {
        let stamp = self.stamp();
        let meta = Meta { kind: Kind::RowDelete { table, stamp }, len: length(key.len()), crc: 0 };
        self.reserve(&meta, meta.len);
        self.records.push(Record::RowDelete { table, key, stamp });
    }

    /// Moves the compaction mark to `revision`; lower marks than the present one change nothing.
    pub fn compact(&mut self, revision: i64) {
        assert!(revision >= 0, "compaction at {revision}");
        let meta = Meta { kind: Kind::Compact { revision }, len: 0, crc: 0 };
        self.reserve(&meta, 0);
        self.records.push(Record::Compact { revision });
    }

    /// The entry (`index`, `term`) has been applied completely. Call it for every entry, also for one that
    /// failed, was empty, or changed nothing: the applied index must advance with each.
    ///
    /// # Panics
    /// If `index` is not above the last one.
    pub fn end_entry(&mut self, index: u64, term: u64) {
        assert!(index > self.last_index, "entry {index} after entry {}", self.last_index);
        if self.row_seq > 0 {
            for record in &mut self.records[self.ended..] {
                if let Record::Row { stamp, .. } | Record::RowDelete { stamp, .. } = record {
                    stamp.index = index;
                }
            }
        }
        self.row_seq = 0;
        self.ended = self.records.len();
        self.last_index = index;
        let behind = u64::from(mutant::is(Mutant::AppliedBehind));
        let ahead = u64::from(mutant::is(Mutant::AppliedAhead));
        self.applied = Some((index - behind + ahead, term));
    }

    /// The record at `location` no longer lives: no reader at or above the mark and no pin can ask for it, and
    /// if it is a tombstone, no older put of its key is on disk. Reported once for each record, after the
    /// change that killed it and before the `end_entry` or `take_frame` that follows.
    pub fn dead(&mut self, location: &Location) {
        let dead = self.dead.entry(location.place.segment).or_default();
        dead.records += 1;
        dead.bytes += u64::from(location.len);
    }

    /// The frame after the one under construction begins a new segment, so that the present one can be
    /// sealed and reclaimed ([`crate::Reclaimed::Roll`]). Changes nothing if the segment is empty.
    pub fn roll(&mut self) {
        self.roll_wanted = true;
    }

    /// Bytes of the frame under construction.
    pub fn pending_bytes(&self) -> usize {
        (self.next - self.frame_start) as usize
            - if self.applied.is_some() || !self.records.is_empty() {
                0
            } else {
                FRAME_HEADER_BYTES as usize
            }
    }

    /// Whether the next frame has something to tell besides records: deaths, or that a segment was left.
    pub fn has_notes(&self) -> bool {
        self.announce || self.roll_wanted || !self.dead.is_empty()
    }

    /// Index of the last ended entry.
    pub fn applied_index(&self) -> u64 {
        self.last_index
    }

    /// Cuts the frame. `None` if no entry ended since the last one and there is nothing to tell the flusher.
    ///
    /// # Panics
    /// In the middle of an entry.
    pub fn take_frame(&mut self) -> Option<Frame> {
        assert_eq!(self.ended, self.records.len(), "a frame ends at an entry's end");
        if self.applied.is_none() {
            if std::mem::take(&mut self.roll_wanted) && self.frame_start > SEGMENT_HEADER_BYTES {
                self.next_segment();
                self.announce = true;
            }
            if !self.announce && self.dead.is_empty() {
                return None;
            }
        }
        let frame = Frame {
            segment: self.segment,
            offset: self.frame_start,
            applied: self.applied.take(),
            // The next frame will be about as long.
            records: std::mem::replace(&mut self.records, Vec::with_capacity(self.ended)),
            bytes: self.next - self.frame_start,
            footer_bytes: self.footer_bytes,
            dead: std::mem::take(&mut self.dead),
        };
        self.announce = false;
        self.ended = 0;
        if frame.applied.is_some() {
            self.frame_start = self.next;
            self.next = self.frame_start + FRAME_HEADER_BYTES;
            let wanted = std::mem::take(&mut self.roll_wanted);
            if wanted || self.is_full() {
                self.next_segment();
                self.announce = wanted;
            }
        }
        Some(frame)
    }

    /// A 32nd is left for the frame that crosses the line, so that segments keep to their preallocated size.
    fn is_full(&self) -> bool {
        u64::from(self.frame_start) + u64::from(self.footer_bytes)
            >= u64::from(self.segment_bytes - self.segment_bytes / 32)
    }

    fn next_segment(&mut self) {
        self.segment = self.segment.checked_add(2).expect("segment numbers last for 10^17 bytes");
        self.frame_start = SEGMENT_HEADER_BYTES;
        self.next = SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES;
        self.footer_bytes = 0;
    }

    /// The index is not known before the entry ends; `end_entry` fills it in.
    fn stamp(&mut self) -> Stamp {
        self.row_seq += 1;
        Stamp { index: 0, seq: self.row_seq }
    }

    /// The place of a payload whose record begins at `next`, which moves behind it.
    fn reserve(&mut self, meta: &Meta, key_len: u32) -> Place {
        let meta_len = length(meta.encoded_len());
        let offset = self.next.checked_add(meta_len);
        let end = offset.and_then(|offset| offset.checked_add(meta.len));
        let (offset, end) =
            offset.zip(end).expect("a frame under construction is held far below 4 GiB");
        self.footer_bytes = self
            .footer_bytes
            .saturating_add(meta_len + length(varint_len(u64::from(offset))) + key_len);
        self.next = end;
        Place { segment: self.segment, offset }
    }
}

fn length(len: usize) -> u32 {
    u32::try_from(len).expect("requests are bounded far below 4 GiB")
}
