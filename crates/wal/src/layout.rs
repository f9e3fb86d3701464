//! What the log holds and where: its files, the terms of its entries, and a sparse table of places.
//!
//! The same rules build it when a log is read and when it is written, so that what a restart finds cannot
//! differ from what the running log believed:
//!
//! - An entry follows the last one, or lies at or below it; then it replaces all from its index on.
//! - A snapshot record whose place the log holds with the same term changes nothing. Any other record above the
//!   log's beginning empties the log: it goes on after the snapshot.
//!
//! ```text
//!   base        term runs                           last
//!    │   ┌───────────┬──────────────┬───────┐        │       entries base+1 ..= last, without a gap
//!    ●   │ term 3    │ term 4       │ term 7│ ◀──────┘
//!        └───────────┴──────────────┴───────┘
//!        ▲      ▲     ▲      ▲       ▲                       points: from each the entries up to the next
//!        file 5       file 6                                 point stand in order in one file
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use raft::{Index, Term};
use vfs::File;

/// Entries between two points take about so many bytes of file: what a read from the middle may have to skip.
const POINT_BYTES: u64 = 64 * 1024;

/// A file of the log.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) sequence: u64,
    /// The index of the first entry that it may contain, unless that one replaces others.
    pub(crate) first: Index,
    pub(crate) name: String,
    pub(crate) file: Arc<dyn File>,
    /// Where its last frame ends.
    pub(crate) bytes: u64,
}

/// Where an entry's frame begins, and the running checksum before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) sequence: u64,
    pub(crate) offset: u64,
    pub(crate) crc: u32,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    index: Index,
    place: Place,
}

/// What came before the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// Nothing was read yet.
    Unknown,
    /// The log is read from the middle, and the first thing in it was this record. The entry before it may be
    /// in a file that is gone, or the record may be older than the entries that follow.
    Perhaps(Index, Term),
    /// The log begins after this entry, which it may hold itself: then only its term counts.
    Entry(Index, Term),
    /// The log begins after this snapshot; index 0 is the beginning of all.
    Snapshot(Index, Term),
}

/// That an entry does not follow the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) last: Index,
    pub(crate) next: Index,
}

/// See the head of the file.
pub(crate) struct Layout {
    pub(crate) base: Base,
    pub(crate) last: Index,
    /// The first index and the term of each run of entries after the base; the indexes ascend.
    pub(crate) runs: VecDeque<(Index, Term)>,
    points: VecDeque<Point>,
    pub(crate) segments: VecDeque<Segment>,
}

impl Layout {
    pub(crate) fn new() -> Layout {
        Layout {
            base: Base::Unknown,
            last: Index(0),
            runs: VecDeque::new(),
            points: VecDeque::new(),
            segments: VecDeque::new(),
        }
    }

    /// Where the log begins.
    pub(crate) fn base(&self) -> (Index, Term) {
        match self.base {
            Base::Unknown => (Index(0), Term(0)),
            Base::Perhaps(index, term) | Base::Entry(index, term) | Base::Snapshot(index, term) => {
                (index, term)
            }
        }
    }

    /// The term of the entry at `index`, if it is the base or an entry.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        let (base, term) = self.base();
        if index == base && self.base != Base::Unknown {
            return Some(term);
        }
        if index < base || index > self.last {
            return None;
        }
        let run = self.runs.partition_point(|&(first, _)| first <= index);
        self.runs.get(run.checked_sub(1)?).map(|&(_, term)| term)
    }

    /// Takes in an entry that stands at `place`. Whether it follows was not checked by the caller.
    pub(crate) fn on_entry(&mut self, index: Index, term: Term, place: Place) -> Result<(), Gap> {
        match self.base {
            Base::Unknown => self.begin_at(index, term),
            Base::Perhaps(base, _) if index != base.next() => self.begin_at(index, term),
            // Only what was never committed is replaced, and no base is above that; so the log was read from
            // the middle of what was replaced later.
            Base::Entry(base, _) if index <= base => self.begin_at(index, term),
            Base::Perhaps(base, term) => self.base = Base::Snapshot(base, term),
            Base::Entry(..) | Base::Snapshot(..) => {}
        }
        let (base, _) = self.base();
        if index > self.last.next() || (index <= base && self.base != Base::Entry(index, term)) {
            return Err(Gap { last: self.last, next: index });
        }
        let replaces = index <= self.last && index > base;
        if replaces {
            self.cut_from(index);
        }
        self.last = index;
        let is_new_term = self.runs.back().is_none_or(|&(_, last)| last != term);
        if index > base && is_new_term {
            self.runs.push_back((index, term));
        }
        let is_far = |point: &Point| {
            point.place.sequence != place.sequence
                || place.offset - point.place.offset >= POINT_BYTES
        };
        if replaces || self.points.back().is_none_or(is_far) {
            self.points.push_back(Point { index, place });
        }
        Ok(())
    }

    /// Takes in a snapshot record. Returns whether it emptied the log.
    pub(crate) fn on_snapshot(&mut self, index: Index, term: Term) -> bool {
        match self.base {
            Base::Unknown if index == Index(0) => self.base = Base::Snapshot(index, term),
            Base::Unknown | Base::Perhaps(..) => {
                self.base = Base::Perhaps(index, term);
                self.last = index;
            }
            Base::Entry(base, _) | Base::Snapshot(base, _) => {
                if index < base || self.term_at(index) == Some(term) {
                    return false;
                }
                self.base = Base::Snapshot(index, term);
                self.last = index;
                self.runs.clear();
                self.points.clear();
                return true;
            }
        }
        false
    }

    /// Forgets the files before `sequence`, and the entries in them.
    pub(crate) fn release(&mut self, sequence: u64) {
        while self.segments.front().is_some_and(|segment| segment.sequence < sequence) {
            self.segments.pop_front();
        }
        let mut is_cut = false;
        while self.points.front().is_some_and(|point| point.place.sequence < sequence) {
            self.points.pop_front();
            is_cut = true;
        }
        if !is_cut {
            return;
        }
        let base = self.points.front().map_or(self.last, |point| point.index);
        let term = self.term_at(base).expect("the log holds its points' entries");
        while self.runs.get(1).is_some_and(|&(first, _)| first <= base.next()) {
            self.runs.pop_front();
        }
        if base == self.last {
            self.runs.clear();
        } else if let Some((first, _)) = self.runs.front_mut() {
            *first = base.next();
        }
        self.base = Base::Entry(base, term);
    }

    /// Where reading must begin to meet the entry at `index`, and the index at which it must stop there.
    pub(crate) fn find(&self, index: Index) -> Option<(Index, Place, Index)> {
        let next = self.points.partition_point(|point| point.index <= index);
        let point = self.points.get(next.checked_sub(1)?)?;
        let end = self.points.get(next).map_or(self.last.next(), |point| point.index);
        Some((point.index, point.place, end))
    }

    /// The file of this sequence number.
    pub(crate) fn segment(&self, sequence: u64) -> Option<&Segment> {
        let first = self.segments.front()?.sequence;
        self.segments.get(usize::try_from(sequence.checked_sub(first)?).ok()?)
    }

    /// The log begins with the entry at `index`. The first of all has nothing before it; of any other only the
    /// term is used, since that of the entry before it is not known.
    fn begin_at(&mut self, index: Index, term: Term) {
        self.base = if index <= Index(1) {
            Base::Snapshot(Index(0), Term(0))
        } else {
            Base::Entry(index, term)
        };
        self.last = index.previous();
        self.runs.clear();
        self.points.clear();
    }

    fn cut_from(&mut self, index: Index) {
        while self.runs.back().is_some_and(|&(first, _)| first >= index) {
            self.runs.pop_back();
        }
        while self.points.back().is_some_and(|point| point.index >= index) {
            self.points.pop_back();
        }
    }
}
