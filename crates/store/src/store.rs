//! The flush thread's end of the store: frames onto disk, seals, manifests.
//!
//! ```text
//!   seal of segment N, next is M
//!     1  create M, reserve its space, write its header, sync it, sync the directory
//!        (no space: M is made of the reserve; that is used up: nothing changed)
//!     2  write N's footer, cut off what is left of its reserve, sync it
//!     3  replace the manifest: N sealed, M growing
//!     4  frames go to M
//! ```
//!
//! A crash before 3 finds N growing (its footer is cut off again) and deletes M; after 3, M is growing and
//! empty. Any failure after 1 is final: the flusher remembers it and refuses everything from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mutant::Mutant;
use vfs::{OpenMode, Vfs};

use crate::builder::{Builder, Dead, Frame, Record};
use crate::error::WriteError;
use crate::footer::{Cursor, FooterBuilder, Trailer};
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, Identity};
use crate::live::{Rows, Usage};
use crate::manifest::{Manifest, Named};
use crate::reclaim::Job;
use crate::record::{Kind, Location, Meta, Place, Row};
use crate::scrub::Position;
use crate::segment::{self, Handle, Reader, SEGMENT_HEADER_BYTES, Table};
use crate::snapshot::Import;

/// The name of the preallocated segment that nobody uses until a full disk must be reclaimed: into it reclaim copies.
pub(crate) const SPARE: &str = "spare";
/// The name of the preallocated segment into which frames go on a full disk, so that the compaction by which somebody
/// wants to make room can be written before there is any.
pub(crate) const RESERVE: &str = "reserve";

/// Whose store it is, and how large its pieces are.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The cluster; a directory of another one is refused.
    pub cluster_id: u64,
    /// The member; a directory of another one is refused.
    pub member_id: u64,
    /// Where a segment ends, in bytes: from 4 KiB to 1 GiB.
    pub segment_bytes: u32,
}

impl Options {
    /// Segments of 64 MiB.
    pub fn new(cluster_id: u64, member_id: u64) -> Options {
        Options { cluster_id, member_id, segment_bytes: 64 << 20 }
    }
}

/// An opened store.
pub struct Opened {
    /// For the apply thread.
    pub builder: Builder,
    /// For the flush thread.
    pub flusher: Flusher,
    /// For everybody.
    pub reader: Reader,
    /// Index and term of the last entry in the state; (0, 0) in a new store.
    pub applied: (u64, u64),
    /// The highest main revision ever given, 0 in a new store. Records of it may have been reclaimed.
    pub revision: i64,
    /// The compaction mark, 0 if there is none. As the caller gave it.
    pub compact_revision: i64,
    /// All rows of the small tables, ordered by table and key.
    pub rows: Vec<Row>,
    /// The directory was empty, and this is its first start.
    pub created: bool,
    /// Something at the end of the growing segment was not a whole frame and has been cut off.
    pub torn: Option<TornTail>,
}

/// An unfinished write that a crash left at the end of the growing segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub file: PathBuf,
    /// Where it was cut.
    pub offset: u64,
    /// How many bytes behind it held something.
    pub lost_bytes: u64,
}

/// Writes frames, seals segments, replaces manifests; owned by the flush thread.
pub struct Flusher {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) dir: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) segment_bytes: u32,
    pub(crate) manifest: Manifest,
    pub(crate) table: Arc<Table>,
    pub(crate) sealed: BTreeMap<u32, Sealed>,
    pub(crate) growing: Growing,
    pub(crate) rows: Rows,
    /// Index and term of the last written entry.
    pub(crate) applied: (u64, u64),
    pub(crate) revision: i64,
    pub(crate) compact_revision: i64,
    /// Odd, and above every segment that was ever seen in the directory.
    pub(crate) next_whole: u32,
    pub(crate) job: Option<Job>,
    /// Sources of jobs that were given up because something could not be read; each is tried alone next time.
    pub(crate) doubtful: BTreeSet<u32>,
    /// Spare or reserve is used up.
    pub(crate) is_short: bool,
    /// A segment was sealed for a frame that has found no room yet; told with it.
    pub(crate) untold_seal: Option<Synced>,
    pub(crate) scrub: Position,
    pub(crate) import: Option<Import>,
    /// The first failure of a write or sync.
    pub(crate) failed: Option<(io::ErrorKind, String)>,
    pub(crate) buffer: Vec<u8>,
}

/// A sealed segment.
pub(crate) struct Sealed {
    pub handle: Handle,
    pub len: u32,
    pub trailer: Trailer,
    pub usage: Usage,
    /// Reclaim found it damaged and leaves it alone.
    pub damaged: bool,
}

impl Sealed {
    pub fn cursor(&self, number: u32) -> Cursor {
        Cursor::sealed(number, self.handle.clone(), &self.trailer, self.len)
    }
}

/// The segment that takes frames.
pub(crate) struct Growing {
    pub number: u32,
    pub handle: Handle,
    /// Where the next frame begins.
    pub end: u32,
    /// Bytes known to be durable. Never above `end`.
    pub synced: u32,
    pub footer: FooterBuilder,
    pub usage: Usage,
}

/// A frame was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Index and term of the last written entry.
    pub applied: (u64, u64),
    /// Bytes written since the last sync.
    pub unsynced_bytes: u64,
    /// A segment was sealed: everything before this frame is durable. Its last entry.
    pub sealed: Option<Synced>,
}

/// What is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synced {
    /// Index of the last durable entry.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

/// Sizes as etcd's users know them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the segments in pages of 4 KiB, without what is only preallocated.
    pub db_size: u64,
    /// Bytes of it that live.
    pub db_size_in_use: u64,
}

impl Flusher {
    /// Writes a frame at the end of the growing segment, with one write; before it, if the builder has gone on
    /// to a new segment, seals the old one and replaces the manifest. Frames come in the order they were taken.
    ///
    /// # Panics
    /// If a frame was left out.
    pub fn write(&mut self, frame: &Frame) -> Result<Written, WriteError> {
        self.check_failed().map_err(WriteError::Failed)?;
        if frame.segment != self.growing.number {
            self.untold_seal = Some(self.roll(frame.segment)?);
        }
        if let Some(applied) = frame.applied {
            assert_eq!(frame.offset, self.growing.end, "a frame for another place");
            assert!(applied.0 > self.applied.0, "entry {} after {}", applied.0, self.applied.0);
            self.make_room(frame)?;
            let died = self.gather(frame, applied);
            let written = self.growing.handle.file.write_at(&self.buffer, frame.offset.into());
            written.map_err(|error| WriteError::Failed(self.fail(error)))?;
            self.growing.end += frame.bytes;
            self.applied = applied;
            died.iter().for_each(|location| self.die(location));
        }
        self.count_deaths(&frame.dead);
        let sealed = self.untold_seal.take();
        Ok(Written { applied: self.applied, unsynced_bytes: self.unsynced_bytes(), sealed })
    }

    /// Reserves what the frame takes, and the footer behind it: a write that stops in its middle for want of space would be
    /// final. Mostly it is reserved since the segment was made. A frame that outgrows that, or a segment that was opened on
    /// a full disk, gets the room of the reserve if there is no other.
    fn make_room(&mut self, frame: &Frame) -> Result<(), WriteError> {
        let end = u64::from(frame.offset) + u64::from(frame.bytes);
        let needed = end + FooterBuilder::sealed_bytes_max(frame.footer_bytes);
        match self.reserve_room(needed) {
            Ok(()) => Ok(()),
            Err(MakeError::Full) => Err(WriteError::Full),
            Err(MakeError::Failed(error)) => Err(WriteError::Failed(self.fail(error))),
        }
    }

    fn reserve_room(&mut self, needed: u64) -> Result<(), MakeError> {
        let file = &self.growing.handle.file;
        if needed <= file.len().map_err(MakeError::Failed)? {
            return Ok(());
        }
        let reserved = file.preallocate(needed).map_err(MakeError::unsynced);
        let reserve = self.dir.join(RESERVE);
        match reserved {
            Err(MakeError::Full) if self.vfs.exists(&reserve).map_err(MakeError::Failed)? => {
                self.vfs.unlink(&reserve).map_err(MakeError::Failed)?;
                self.is_short = true;
                file.preallocate(needed).map_err(MakeError::unsynced)
            }
            reserved => reserved,
        }
    }

    /// Takes in what a frame that finds no room tells of segments that are there, before it is written: reclaim must know
    /// what died to make the room for it.
    pub fn note(&mut self, frame: &mut Frame) {
        let is_here =
            |number: &u32| *number == self.growing.number || self.sealed.contains_key(number);
        let (here, later) =
            std::mem::take(&mut frame.dead).into_iter().partition(|(n, _)| is_here(n));
        frame.dead = later;
        self.count_deaths(&here);
    }

    fn count_deaths(&mut self, dead: &BTreeMap<u32, Dead>) {
        for (number, dead) in dead {
            if let Some(usage) = self.usage_mut(*number) {
                usage.die(dead.records, dead.bytes);
            }
        }
    }

    /// Makes all written frames durable. A failure is final.
    pub fn sync(&mut self) -> io::Result<Synced> {
        self.check_failed()?;
        if self.growing.synced < self.growing.end {
            let skip = mutant::is(Mutant::StoreUnsynced);
            let synced = if skip { Ok(()) } else { self.growing.handle.file.sync() };
            synced.map_err(|error| self.fail(error))?;
            self.growing.synced = self.growing.end;
        }
        Ok(Synced { index: self.applied.0, term: self.applied.1 })
    }

    /// The sizes as of the last frame.
    pub fn sizes(&self) -> Sizes {
        let pages = |len: u32| u64::from(len).div_ceil(4096) * 4096;
        let mut sizes = Sizes {
            db_size: pages(self.growing.end),
            db_size_in_use: self.growing.usage.live(self.growing.end.into()),
        };
        for sealed in self.sealed.values() {
            sizes.db_size += pages(sealed.len);
            sizes.db_size_in_use += sealed.usage.live(sealed.len.into());
        }
        sizes
    }

    /// Bytes written since the last sync.
    pub fn unsynced_bytes(&self) -> u64 {
        u64::from(self.growing.end - self.growing.synced)
    }

    /// Encodes the frame into the buffer, and takes its records into footer, counts and rows. Returns the
    /// row records that died.
    fn gather(&mut self, frame: &Frame, applied: (u64, u64)) -> Vec<Location> {
        let mut died = Vec::new();
        let buffer = &mut self.buffer;
        buffer.clear();
        buffer.resize(FRAME_HEADER_BYTES as usize, 0);
        for record in &frame.records {
            let (meta, key, rest): (Meta, &[u8], &[u8]) = match record {
                Record::Put { put, location } => {
                    let kind = Kind::Put {
                        revision: put.revision,
                        create: put.create,
                        version: put.version,
                        lease: put.lease,
                        key_offset: put.key_offset,
                        key_len: put.key_len,
                    };
                    (Meta { kind, len: location.len, crc: location.crc }, put.key(), &[])
                }
                Record::Tombstone { revision, key, location } => {
                    let kind = Kind::Tombstone { revision: *revision };
                    (Meta { kind, len: location.len, crc: location.crc }, key, &[])
                }
                Record::Row { table, key, value, stamp } => {
                    let kind =
                        Kind::Row { table: *table, stamp: *stamp, key_len: key.len() as u32 };
                    let crc = crc32c::crc32c_append(crc32c::crc32c(key), value);
                    (Meta { kind, len: (key.len() + value.len()) as u32, crc }, key, value)
                }
                Record::RowDelete { table, key, stamp } => {
                    let kind = Kind::RowDelete { table: *table, stamp: *stamp };
                    (Meta { kind, len: key.len() as u32, crc: crc32c::crc32c(key) }, key, &[])
                }
                Record::Compact { revision } => {
                    self.compact_revision = self.compact_revision.max(*revision);
                    let kind = Kind::Compact { revision: *revision };
                    (Meta { kind, len: 0, crc: 0 }, &[], &[])
                }
            };
            meta.encode(buffer);
            if let Kind::Compact { .. } = meta.kind {
                continue;
            }
            let place = Place {
                segment: frame.segment,
                offset: frame.offset + u32::try_from(buffer.len()).expect("frames are below 4 GiB"),
            };
            match record {
                Record::Put { put, location } => {
                    assert_eq!(place, location.place, "the builder counted other bytes");
                    buffer.extend_from_slice(&put.key_value);
                }
                Record::Tombstone { location, .. } => {
                    assert_eq!(place, location.place, "the builder counted other bytes");
                    buffer.extend_from_slice(key);
                }
                Record::Row { .. } | Record::RowDelete { .. } | Record::Compact { .. } => {
                    buffer.extend_from_slice(key);
                    buffer.extend_from_slice(rest);
                    died.extend(self.rows.observe(&meta, key, meta.location(place)));
                    if let Record::RowDelete { table, key, .. } = record {
                        // Deleting what never was leaves nothing to guard.
                        died.extend(self.rows.settle(&(*table, key.clone())));
                    }
                }
            }
            self.revision = self.revision.max(meta.revision().map_or(0, |revision| revision.main));
            self.growing.footer.push(&meta, place.offset, key);
            self.growing.usage.add(meta.len);
        }
        assert_eq!(buffer.len(), frame.bytes as usize, "the builder counted other bytes");
        let body = &buffer[FRAME_HEADER_BYTES as usize..];
        let header = FrameHeader {
            len: body.len() as u32,
            index: applied.0,
            term: applied.1,
            synced_to: self.growing.synced,
            records: u32::try_from(frame.records.len()).expect("a record has more than a byte"),
            body_crc: crc32c::crc32c(body),
        };
        let header = header.encode(self.identity.seed(frame.segment, frame.offset));
        buffer[..header.len()].copy_from_slice(&header);
        died
    }

    /// Seals the growing segment and goes on in `next`. Everything written is durable afterwards.
    fn roll(&mut self, next: u32) -> Result<Synced, WriteError> {
        assert!(next > self.growing.number, "segment {next} after {}", self.growing.number);
        let handle = self.create_segment_or_take(RESERVE, next).map_err(|error| match error {
            MakeError::Full => WriteError::Full,
            MakeError::Failed(error) => WriteError::Failed(self.fail(error)),
        })?;
        let synced = self.seal(next, handle).and_then(|synced| {
            self.set_aside()?;
            Ok(synced)
        });
        synced.map_err(|error| WriteError::Failed(self.fail(error)))
    }

    fn seal(&mut self, next: u32, handle: Handle) -> io::Result<Synced> {
        let old = &self.growing;
        let trailer = Trailer {
            at: old.end,
            index: self.applied.0,
            term: self.applied.1,
            revision: self.revision,
            compact_revision: self.compact_revision,
            ..Trailer::default()
        };
        let (bytes, trailer) = old.footer.seal(trailer, old.number, self.identity);
        old.handle.file.write_at(&bytes, u64::from(old.end))?;
        let len = old.end + u32::try_from(bytes.len()).expect("footers are below 4 GiB");
        old.handle.file.truncate(u64::from(len))?;
        if !mutant::is(Mutant::SealUnsynced) {
            old.handle.file.sync()?;
        }

        let mut manifest = self.manifest.clone();
        manifest.sealed.push(Named { segment: old.number, len, trailer_crc: trailer.crc });
        manifest.growing = next;
        manifest.growing_synced = SEGMENT_HEADER_BYTES;
        manifest.applied = self.applied;
        manifest.revision = self.revision;
        manifest.compact_revision = self.compact_revision;
        self.replace_manifest(manifest)?;

        self.table.change(|handles| {
            handles.insert(next, handle.clone());
        });
        let growing = Growing {
            number: next,
            handle,
            end: SEGMENT_HEADER_BYTES,
            synced: SEGMENT_HEADER_BYTES,
            footer: FooterBuilder::default(),
            usage: Usage::default(),
        };
        let old = std::mem::replace(&mut self.growing, growing);
        let sealed = Sealed { handle: old.handle, len, trailer, usage: old.usage, damaged: false };
        self.sealed.insert(old.number, sealed);
        Ok(Synced { index: self.applied.0, term: self.applied.1 })
    }

    /// Puts `manifest`, a changed copy of the present one, in its place.
    pub(crate) fn replace_manifest(&mut self, mut manifest: Manifest) -> io::Result<()> {
        manifest.generation += 1;
        manifest.replace(&*self.vfs, &self.dir)?;
        self.manifest = manifest;
        Ok(())
    }

    /// Makes a segment with nothing but its header, its space reserved, durable with its name. If there is no room,
    /// nothing is left behind.
    pub(crate) fn create_segment(&self, number: u32) -> Result<Handle, MakeError> {
        create_segment(&*self.vfs, &self.dir, self.identity, number, self.segment_bytes)
    }

    /// As [`Flusher::create_segment`], out of what was set aside under this name if there is no other space.
    pub(crate) fn create_segment_or_take(
        &mut self,
        aside: &str,
        number: u32,
    ) -> Result<Handle, MakeError> {
        match self.create_segment(number) {
            Err(MakeError::Full) => {}
            other => return other,
        }
        let aside = self.dir.join(aside);
        if !self.vfs.exists(&aside).map_err(MakeError::Failed)? {
            return Err(MakeError::Full);
        }
        let path = self.dir.join(segment::name(number));
        self.vfs.rename(&aside, &path).map_err(MakeError::unsynced)?;
        self.is_short = true;
        // From here on there is no way back, whatever the reason.
        let made = self.vfs.open(&path, OpenMode::Write).and_then(|file| {
            file.write_at(&segment::encode_header(number, self.identity), 0)?;
            file.sync()?;
            self.vfs.sync_dir(&self.dir)?;
            Ok(Handle::new(file, path))
        });
        made.map_err(MakeError::Failed)
    }

    /// Sets two segments aside for the day when the disk is full, or as many as there is room for: [`Flusher::is_short`]
    /// says whether some are missing. It is tried again by itself whenever there may be room; a full disk may also be
    /// emptied by somebody else, so call it now and then while it is short. A failure is final.
    pub fn set_aside(&mut self) -> io::Result<()> {
        self.check_failed()?;
        let set = set_aside(&*self.vfs, &self.dir, self.segment_bytes);
        self.is_short = !set.map_err(|error| self.fail(error))?;
        Ok(())
    }

    /// For frames that found no room when reclaim has found nothing to do: they get the spare, which is of no use to it now.
    /// They may bring what reclaim can work with. A failure is final.
    pub fn lend_spare(&mut self) -> io::Result<()> {
        self.check_failed()?;
        let (spare, reserve) = (self.dir.join(SPARE), self.dir.join(RESERVE));
        let lent = self.vfs.exists(&spare).and_then(|there| {
            match there && !self.vfs.exists(&reserve)? {
                true => self.vfs.rename(&spare, &reserve),
                false => Ok(()),
            }
        });
        lent.map_err(|error| self.fail(error))
    }

    /// Whether the disk has less room than is to be set aside: what was is in use, or could not be made.
    pub fn is_short(&self) -> bool {
        self.is_short
    }

    pub(crate) fn usage_mut(&mut self, segment: u32) -> Option<&mut Usage> {
        if segment == self.growing.number {
            return Some(&mut self.growing.usage);
        }
        self.sealed.get_mut(&segment).map(|sealed| &mut sealed.usage)
    }

    /// The record at `location` died; its segment may already be gone.
    pub(crate) fn die(&mut self, location: &Location) {
        if let Some(usage) = self.usage_mut(location.place.segment) {
            usage.die(1, u64::from(location.len));
        }
    }

    pub(crate) fn fail(&mut self, error: io::Error) -> io::Error {
        self.failed.get_or_insert_with(|| (error.kind(), error.to_string()));
        error
    }

    pub(crate) fn check_failed(&self) -> io::Result<()> {
        match &self.failed {
            None => Ok(()),
            Some((kind, text)) => {
                Err(io::Error::new(*kind, format!("an earlier write failed: {text}")))
            }
        }
    }
}

/// What keeps a segment from being made.
#[derive(Debug)]
pub(crate) enum MakeError {
    /// There is no room for it. Nothing was synced, so the caller may try again.
    Full,
    /// Anything else, and whatever a sync says, though it be that there is no room: what is on disk is unknown then.
    Failed(io::Error),
}

impl MakeError {
    /// What an open, a reservation or a write says.
    pub fn unsynced(error: io::Error) -> MakeError {
        match is_full(&error) {
            true => MakeError::Full,
            false => MakeError::Failed(error),
        }
    }
}

impl From<MakeError> for io::Error {
    fn from(error: MakeError) -> io::Error {
        match error {
            MakeError::Full => io::ErrorKind::StorageFull.into(),
            MakeError::Failed(error) => error,
        }
    }
}

/// The three ways in which a system says that there is no space.
pub(crate) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

pub(crate) fn create_segment(
    vfs: &dyn Vfs,
    dir: &Path,
    identity: Identity,
    number: u32,
    segment_bytes: u32,
) -> Result<Handle, MakeError> {
    let path = dir.join(segment::name(number));
    let file = vfs.open(&path, OpenMode::Create).map_err(MakeError::unsynced)?;
    let reserved = file
        .preallocate(u64::from(segment_bytes))
        .and_then(|()| file.write_at(&segment::encode_header(number, identity), 0));
    if let Err(error) = reserved {
        vfs.unlink(&path).map_err(MakeError::Failed)?;
        return Err(MakeError::unsynced(error));
    }
    file.sync().and_then(|()| vfs.sync_dir(dir)).map_err(MakeError::Failed)?;
    Ok(Handle::new(file, path))
}

/// Sets the spare and the reserve aside, as far as there is room; the spare first, for with it reclaim can make more.
/// False if one of them is missing.
pub(crate) fn set_aside(vfs: &dyn Vfs, dir: &Path, segment_bytes: u32) -> io::Result<bool> {
    let len = u64::from(segment_bytes);
    for name in [SPARE, RESERVE] {
        let path = dir.join(name);
        // A name alone is not believed: a crash may have come before the room was reserved.
        let file = match vfs.exists(&path)? {
            true => vfs.open(&path, OpenMode::Write)?,
            false => match vfs.open(&path, OpenMode::Create) {
                Err(error) if is_full(&error) => return Ok(false),
                other => other?,
            },
        };
        if file.len()? < len {
            match file.preallocate(len) {
                Err(error) if is_full(&error) => {
                    vfs.unlink(&path)?;
                    return Ok(false);
                }
                other => other?,
            }
        }
    }
    Ok(true)
}
