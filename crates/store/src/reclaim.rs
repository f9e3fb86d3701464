//! Reclaim: live records of the emptiest segments are copied together, and the old segments go.
//!
//! ```text
//!   flush thread                                       apply thread
//!   plan: the emptiest segments
//!   copy, slice by slice (asks is_live)  → Copied
//!   seal and sync the copy               → Relocate ─▶ index: revision → new place; dead(new) if it lives no more
//!     …                                  → Relocate ─▶ …
//!   sync what was written; replace the
//!   manifest, unlink                     → Swapped
//!   what was dropped                     → Gone     ─▶ counts of dead puts on disk
//!                                        → Idle
//! ```
//!
//! **Why no job waits for a frame.** Nothing may be dropped on account of an entry that a crash could take back. So
//! whoever answers `is_live` calls dead only what is dead by what has been *written* (a compaction whose frame is
//! still on its way kills nothing yet), and that is synced before the old segments go. On a full disk frames
//! wait for the room that reclaim makes; if reclaim waited for a frame too, both would wait for ever.
//!
//! **Why a tombstone outlives its key.** At start the highest revision of a key wins. If a tombstone were
//! dropped while an older put of its key still lay in some other segment, that put would win: the dead would
//! rise. So whoever decides liveness counts, for each key, the puts it has reported dead and that are not yet
//! [`Gone`]; the newest tombstone at or below the mark lives until that count is zero. For rows the store does
//! it itself.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use mutant::Mutant;

use crate::copy::{CopyWriter, Whole};
use crate::error::{ReadError, ReclaimError};
use crate::footer::{Cursor, FooterRow, Merge};
use crate::manifest::Named;
use crate::record::{Kind, Location, Revision};
use crate::segment::{self, Window};
use crate::store::{Flusher, MakeError, SPARE, Sealed};

/// Records in a batch of relocations or of [`Gone`]: what apply takes under one hold of the index lock.
const BATCH_RECORDS: usize = 256;
/// Segments that one job copies from.
const SOURCES_MAX: usize = 32;

/// How far reclaim shall go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Keep the space on disk within 1.5 times what lives.
    Bounded,
    /// Get all back that is worth copying for (Defragment).
    Everything,
}

/// A record that has been copied. It is the same revision of the same key, in a new place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// The key.
    pub key: Bytes,
    /// The revision.
    pub revision: Revision,
    /// Where its payload lies from now on.
    pub to: Location,
}

/// A put that was reported dead, and of which no copy is on disk any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The key.
    pub key: Bytes,
    /// The revision.
    pub revision: Revision,
}

/// What a slice of reclaim did, and who is next.
#[derive(Debug)]
pub enum Reclaimed {
    /// There is nothing to do.
    Idle,
    /// The growing segment is half dead: call [`crate::Builder::roll`], write the frames that follow, go on.
    Roll,
    /// A slice was copied; call again.
    Copied {
        /// Bytes read and written.
        bytes: u64,
    },
    /// Take these, in ascending order of revision, into the index (and report [`crate::Builder::dead`] with the new
    /// place of those that live no more), then call again: the next call takes it that this is done.
    Relocate(Vec<Relocation>),
    /// The old segments are gone; call again.
    Swapped {
        /// Bytes of the files that went, less those of the copy.
        freed: u64,
    },
    /// For each of these lower its key's count of dead puts on disk, then call again.
    Gone(Vec<Gone>),
}

/// A job on its way.
pub(crate) struct Job {
    sources: Vec<u32>,
    /// The copy, once it is sealed; `None` if nothing lived.
    copy: Option<u32>,
    stage: Stage,
}

enum Stage {
    Copying {
        merge: Merge,
        writer: Option<CopyWriter>,
        windows: BTreeMap<u32, Window>,
    },
    /// Over the copy's own footer: what lies in it was moved.
    Relocating(Option<Cursor>),
    /// All relocations were handed out, and with the next call are taken.
    Relocated,
    /// The old footers once more, beside the copy's: what is not in the copy is gone.
    Dropping {
        merge: Merge,
        copy: Option<Cursor>,
        kept: Option<FooterRow>,
    },
}

impl Flusher {
    /// Does one bounded slice of reclaim: about `bytes_max` bytes copied, or one batch of relocations.
    ///
    /// `is_live(key, revision)` answers for puts and tombstones from the present index: true if a reader at or
    /// above the mark, or a pin, can still ask for it, or if it is a tombstone that guards older puts. The mark it goes
    /// by must have been written: see above.
    pub fn reclaim(
        &mut self,
        goal: Goal,
        bytes_max: usize,
        is_live: &mut dyn FnMut(&[u8], Revision) -> bool,
    ) -> Result<Reclaimed, ReclaimError> {
        self.check_failed().map_err(ReclaimError::Failed)?;
        let Some(mut job) = self.job.take() else { return self.plan(goal) };
        match job.stage {
            Stage::Copying { mut merge, mut writer, mut windows } => {
                let slice = self
                    .copy_slice(&mut merge, &mut writer, &mut windows, bytes_max, is_live)
                    .map_err(|error| match error {
                        CopyError::Read(error) => self.doubt(&job.sources, error),
                        CopyError::Make(error) => self.copy_failed(error),
                    });
                match slice {
                    Ok((bytes, false)) => {
                        job.stage = Stage::Copying { merge, writer, windows };
                        self.job = Some(job);
                        Ok(Reclaimed::Copied { bytes })
                    }
                    Ok((bytes, true)) => {
                        let cursor = match writer {
                            Some(writer) => {
                                let cursor = self.take_in(writer)?;
                                job.copy = Some(cursor.0);
                                Some(cursor.1)
                            }
                            None => None,
                        };
                        job.stage = Stage::Relocating(cursor);
                        self.job = Some(job);
                        Ok(Reclaimed::Copied { bytes })
                    }
                    Err(error) => {
                        if !matches!(error, ReclaimError::Failed(_)) {
                            self.discard(writer)?;
                        }
                        Err(error)
                    }
                }
            }
            Stage::Relocating(mut cursor) => {
                let (batch, last) = self.relocate(&mut cursor)?;
                job.stage = if last { Stage::Relocated } else { Stage::Relocating(cursor) };
                self.job = Some(job);
                Ok(Reclaimed::Relocate(batch))
            }
            Stage::Relocated => self.swap(job),
            Stage::Dropping { mut merge, mut copy, mut kept } => {
                let (batch, last) = self.drop_slice(&mut merge, &mut copy, &mut kept)?;
                if !last {
                    job.stage = Stage::Dropping { merge, copy, kept };
                    self.job = Some(job);
                }
                Ok(Reclaimed::Gone(batch))
            }
        }
    }

    /// Chooses what to copy: the emptiest segments, as many as fit into one.
    fn plan(&mut self, goal: Goal) -> Result<Reclaimed, ReclaimError> {
        let grown = u64::from(self.growing.end);
        let growing_live = self.growing.usage.live(grown);
        let mut total = grown;
        let mut live = growing_live;
        let mut candidates = Vec::new();
        for (number, sealed) in &self.sealed {
            let len = u64::from(sealed.len);
            let lives = sealed.usage.live(len);
            total += len;
            live += lives;
            if !sealed.damaged {
                candidates.push((*number, len, lives));
            }
        }
        // A store that is small as a whole is not worth the trouble: 4 MiB with segments of 64 MiB.
        let slack = u64::from(self.segment_bytes / 16);
        let percent_max = match goal {
            Goal::Bounded if total <= live + live / 2 + slack => return Ok(Reclaimed::Idle),
            Goal::Bounded => 80,
            Goal::Everything => 95,
        };
        let is_worth = |len: u64, lives: u64| lives * 100 < len * percent_max;
        candidates.retain(|(_, len, lives)| is_worth(*len, *lives));
        candidates.sort_by_key(|(number, len, lives)| (lives * 1000 / len.max(&1), *number));
        let room_max = u64::from(self.segment_bytes - self.segment_bytes / 8);
        let mut room = room_max;
        let mut sources = Vec::new();
        for (number, _, lives) in candidates {
            if sources.len() == SOURCES_MAX || (lives > room && !sources.is_empty()) {
                break;
            }
            // Those in which nothing lives need no copy, and so no room: where there may be none they go by themselves.
            // With others they would wait for the room that they themselves would give.
            if self.is_short && lives > 0 && room == room_max && !sources.is_empty() {
                break;
            }
            let is_doubtful = self.doubtful.contains(&number);
            if is_doubtful && !sources.is_empty() {
                continue;
            }
            room = room.saturating_sub(lives);
            sources.push(number);
            if is_doubtful {
                break;
            }
        }
        if sources.is_empty() {
            let is_empty = grown <= u64::from(segment::SEGMENT_HEADER_BYTES) + slack;
            // Ending a segment early takes a new one, and without room that would make things worse.
            let may_roll = !is_empty && !self.is_short;
            return Ok(match may_roll && is_worth(grown, growing_live) {
                true => Reclaimed::Roll,
                false => Reclaimed::Idle,
            });
        }
        let merge = self.merge(&sources)?;
        let stage = Stage::Copying { merge, writer: None, windows: BTreeMap::new() };
        self.job = Some(Job { sources, copy: None, stage });
        Ok(Reclaimed::Copied { bytes: 0 })
    }

    fn merge(&mut self, sources: &[u32]) -> Result<Merge, ReclaimError> {
        let cursors = sources.iter().map(|number| self.sealed[number].cursor(*number)).collect();
        Merge::new(cursors).map_err(|error| self.doubt(sources, error))
    }

    /// Copies what lives, until about `bytes_max` bytes were. True: that was all.
    fn copy_slice(
        &mut self,
        merge: &mut Merge,
        writer: &mut Option<CopyWriter>,
        windows: &mut BTreeMap<u32, Window>,
        bytes_max: usize,
        is_live: &mut dyn FnMut(&[u8], Revision) -> bool,
    ) -> Result<(u64, bool), CopyError> {
        let mut bytes = 0;
        // Rows that do not live cost a look; they count as well, so that a slice is bounded.
        while bytes < bytes_max as u64 {
            let Some(row) = merge.next().map_err(CopyError::Read)? else {
                return Ok((bytes, true));
            };
            bytes += 32 + row.key.len() as u64;
            let lives = match row.meta.revision() {
                Some(revision) => is_live(&row.key, revision),
                None => self.rows.is_live(&row.meta, &row.key),
            };
            if !lives {
                continue;
            }
            let handle = self.sealed[&row.place.segment].handle.clone();
            let window = windows.entry(row.place.segment).or_default();
            let payload =
                window.payload(&handle, &row.meta.location(row.place)).map_err(CopyError::Read)?;
            bytes += payload.len() as u64;
            let writer = match writer {
                Some(writer) => writer,
                None => {
                    let number = self.next_whole;
                    let created = self.create_segment_or_take(SPARE, number);
                    let handle = created.map_err(CopyError::Make)?;
                    self.next_whole += 2;
                    writer.insert(CopyWriter::new(number, handle, self.identity))
                }
            };
            writer.push(&row.meta, &row.key, payload).map_err(CopyError::Make)?;
        }
        Ok((bytes, false))
    }

    /// Seals the copy, and lets readers find it. From here on the job runs to its end.
    fn take_in(&mut self, writer: CopyWriter) -> Result<(u32, Cursor), ReclaimError> {
        let path = writer.handle.path.clone();
        let whole = match writer.seal() {
            Ok(whole) => whole,
            Err(MakeError::Full) => {
                self.unlink(&path)?;
                return Err(ReclaimError::Full);
            }
            Err(MakeError::Failed(error)) => return Err(ReclaimError::Failed(self.fail(error))),
        };
        let Whole { segment, handle, len, trailer, usage } = whole;
        self.table.change(|handles| {
            handles.insert(segment, handle.clone());
        });
        let sealed = Sealed { handle, len, trailer, usage, damaged: false };
        let cursor = sealed.cursor(segment);
        self.sealed.insert(segment, sealed);
        Ok((segment, cursor))
    }

    fn relocate(
        &mut self,
        cursor: &mut Option<Cursor>,
    ) -> Result<(Vec<Relocation>, bool), ReclaimError> {
        let mut batch = Vec::new();
        while batch.len() < BATCH_RECORDS {
            let Some(row) = next_of(cursor).map_err(|error| self.lost(error))? else {
                return Ok((batch, true));
            };
            let to = row.meta.location(row.place);
            match row.meta.revision() {
                Some(revision) => {
                    // The block this key is a slice of would stay in memory as long as the key.
                    let key = Bytes::copy_from_slice(&row.key);
                    batch.push(Relocation { key, revision, to });
                }
                None if self.rows.relocate(&row.meta, &row.key, to) => {}
                None => self.die(&to),
            }
        }
        Ok((batch, false))
    }

    /// One manifest replacement takes the copy in and the old segments out. Everything written is synced
    /// before: a record may have been dropped because of an entry in the growing segment, and if a crash took
    /// that entry back, the record would be missed.
    ///
    /// If the old footers cannot be read now the job stays where it is, and is tried again: its copy is in use, and no
    /// other job may take that for a source before a manifest names it.
    fn swap(&mut self, mut job: Job) -> Result<Reclaimed, ReclaimError> {
        if !mutant::is(Mutant::ReclaimUnsynced) {
            self.sync().map_err(ReclaimError::Failed)?;
        }
        let merge = match self.merge(&job.sources) {
            Ok(merge) => merge,
            Err(error) => {
                self.job = Some(job);
                return Err(error);
            }
        };
        let mut manifest = self.manifest.clone();
        manifest.sealed.retain(|named| !job.sources.contains(&named.segment));
        let mut copied = 0;
        let mut freed = 0;
        let mut cursor = None;
        if let Some(segment) = job.copy {
            let copy = &self.sealed[&segment];
            manifest.sealed.push(Named { segment, len: copy.len, trailer_crc: copy.trailer.crc });
            copied = u64::from(copy.len);
            cursor = Some(copy.cursor(segment));
        }
        manifest.growing_synced = self.growing.synced;
        let replaced = self.replace_manifest(manifest);
        replaced.map_err(|error| ReclaimError::Failed(self.fail(error)))?;

        self.table.change(|handles| handles.retain(|number, _| !job.sources.contains(number)));
        for number in &job.sources {
            let old = self.sealed.remove(number).expect("sources stay until they are swapped");
            freed += u64::from(old.len);
            self.doubtful.remove(number);
            self.unlink(&old.handle.path)?;
        }
        self.set_aside().map_err(ReclaimError::Failed)?;
        let kept = next_of(&mut cursor).map_err(|error| self.lost(error))?;
        job.stage = Stage::Dropping { merge, copy: cursor, kept };
        self.job = Some(job);
        Ok(Reclaimed::Swapped { freed: freed.saturating_sub(copied) })
    }

    /// The copy's rows are a subsequence of the old ones', for the same merge made both.
    fn drop_slice(
        &mut self,
        merge: &mut Merge,
        copy: &mut Option<Cursor>,
        kept: &mut Option<FooterRow>,
    ) -> Result<(Vec<Gone>, bool), ReclaimError> {
        let mut batch = Vec::new();
        while batch.len() < BATCH_RECORDS {
            let Some(row) = merge.next().map_err(|error| self.lost(error))? else {
                return Ok((batch, true));
            };
            if kept.as_ref().is_some_and(|kept| kept.meta == row.meta && kept.key == row.key) {
                *kept = next_of(copy).map_err(|error| self.lost(error))?;
                continue;
            }
            match row.meta.kind {
                Kind::Put { revision, .. } => {
                    batch.push(Gone { key: Bytes::copy_from_slice(&row.key), revision });
                }
                Kind::Row { .. } | Kind::RowDelete { .. } => {
                    if let Some(location) = self.rows.gone(&row.meta, &row.key) {
                        self.die(&location);
                    }
                }
                // Tombstones guard and are not guarded against.
                Kind::Tombstone { .. } | Kind::Compact { .. } => {}
            }
        }
        Ok((batch, false))
    }

    /// Something of a job's sources cannot be read. Whatever rotted is left alone from now on. What only could not be
    /// read now is tried again, each source alone, and left alone if it fails then too.
    fn doubt(&mut self, sources: &[u32], error: ReadError) -> ReclaimError {
        match &error {
            ReadError::Rot(damage) => {
                for sealed in self.sealed.values_mut() {
                    sealed.damaged |= *sealed.handle.path == damage.file;
                }
            }
            ReadError::Gone { .. } | ReadError::Io(_) => {
                if let [alone] = sources
                    && self.doubtful.contains(alone)
                    && let Some(sealed) = self.sealed.get_mut(alone)
                {
                    sealed.damaged = true;
                }
                self.doubtful.extend(sources);
            }
        }
        ReclaimError::Source(error)
    }

    /// Places have been handed out already, or counts: there is no way back.
    fn lost(&mut self, error: ReadError) -> ReclaimError {
        ReclaimError::Failed(self.fail(std::io::Error::other(error.to_string())))
    }

    /// A full disk is not the end; anything else is.
    fn copy_failed(&mut self, error: MakeError) -> ReclaimError {
        match error {
            MakeError::Full => ReclaimError::Full,
            MakeError::Failed(error) => ReclaimError::Failed(self.fail(error)),
        }
    }

    fn discard(&mut self, writer: Option<CopyWriter>) -> Result<(), ReclaimError> {
        let Some(writer) = writer else { return Ok(()) };
        self.unlink(&writer.handle.path)?;
        self.set_aside().map_err(ReclaimError::Failed)
    }

    fn unlink(&mut self, path: &Path) -> Result<(), ReclaimError> {
        let unlinked = self.vfs.unlink(path);
        unlinked.map_err(|error| ReclaimError::Failed(self.fail(error)))
    }
}

/// Why a slice was not copied.
enum CopyError {
    Read(ReadError),
    Make(MakeError),
}

fn next_of(cursor: &mut Option<Cursor>) -> Result<Option<FooterRow>, ReadError> {
    cursor.as_mut().map_or(Ok(None), Cursor::next)
}
