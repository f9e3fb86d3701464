//! Reclaim: live records of the emptiest segments are copied together, and the old segments go.
//!
//! ```text
//!   flush thread                                       apply thread
//!   plan: the emptiest segments
//!   copy, slice by slice (asks is_live)  → Copied
//!   seal and sync the copy               → Relocate ─▶ index: revision → new place; dead(new) if it lives no more
//!     …                                  → Relocate ─▶ … the last batch: builder.relocated(job)
//!                                          Waiting      take_frame ─┐
//!   write(frame), sync  ◀───────────────────────────────────────────┘
//!   replace the manifest, unlink         → Swapped
//!   what was dropped                     → Gone     ─▶ counts of dead puts on disk
//!                                        → Idle
//! ```
//!
//! **Why a tombstone outlives its key.** At start the highest revision of a key wins. If a tombstone were
//! dropped while an older put of its key still lay in some other segment, that put would win: the dead would
//! rise. So whoever decides liveness counts, for each key, the puts it has reported dead and that are not yet
//! [`Gone`]; the newest tombstone at or below the mark lives until that count is zero. For rows the store does
//! it itself.

use bytes::Bytes;

use crate::error::ReclaimError;
use crate::record::{Location, Revision};
use crate::store::Flusher;

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
    /// Take these into the index, then call again. With the last batch of a job, apply calls
    /// [`crate::Builder::relocated`] with `job`.
    Relocate {
        /// The job's number.
        job: u64,
        /// In ascending order of revision.
        batch: Vec<Relocation>,
        /// No batch of this job follows.
        last: bool,
    },
    /// The frame that carries [`crate::Builder::relocated`] has not been written: call again after it was.
    Waiting,
    /// The old segments are gone; call again.
    Swapped {
        /// Bytes of the files that went, less those of the copy.
        freed: u64,
    },
    /// For each of these lower its key's count of dead puts on disk, then call again.
    Gone(Vec<Gone>),
}

impl Flusher {
    /// Does one bounded slice of reclaim: about `bytes_max` bytes copied, or one batch of relocations.
    ///
    /// `is_live(key, revision)` answers for puts and tombstones from the present index: true if a reader at or
    /// above the mark, or a pin, can still ask for it, or if it is a tombstone that guards older puts.
    pub fn reclaim(
        &mut self,
        _goal: Goal,
        _bytes_max: usize,
        _is_live: &mut dyn FnMut(&[u8], Revision) -> bool,
    ) -> Result<Reclaimed, ReclaimError> {
        unimplemented!("the store is being built")
    }
}
