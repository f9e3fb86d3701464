//! The log: which entries there are, which of them are in memory, durable, committed and applied.
//!
//! ```text
//!        base                                                              last
//!          │ released │  evicted, terms known │ in memory                    │
//!   ───────┼──────────┼───────────────────────┼──────────────────────────────┤
//!                               applied ≤ applying ≤ committed ≤ last
//!                               stable (known durable) ≤ handed_out ≤ last
//! ```
//!
//! Every entry's term is known by runs, also when the entry itself was evicted; an entry at or below `base` is gone,
//! and only the base's own term is still known. Unapplied and not yet durable entries are always in memory.
//! A term that is not known is never taken for 0, or an append could seem to match where nothing is known.
//!
//! A received snapshot replaces the whole log. Until it is installed nothing behind it is handed out for applying.

use crate::message::*;
use mutant::Mutant;
use std::collections::VecDeque;

/// No bound on bytes.
pub(crate) const NO_LIMIT: u64 = u64::MAX;

/// What an entry in memory costs besides its data.
const ENTRY_BYTES: u64 = size_of::<Entry>() as u64;

/// Entries from `first` on, up to the next run, that have one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: Index,
    term: Term,
}

/// A batch handed out for applying.
#[derive(Clone, Copy, Debug)]
struct Batch {
    last: Index,
    encoded_bytes: u64,
    payload_bytes: u64,
}

/// Entries that a follower needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Here they are.
    Entries(Vec<Entry>),
    /// They were evicted, up to this index exclusive.
    Evicted(Index),
}

#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// The entry before the first one.
    base: (Index, Term),
    /// The terms of all entries after `base`, ascending in both; empty if there are none.
    runs: VecDeque<Run>,
    /// The entries in memory, without a gap, up to `last`.
    entries: VecDeque<Entry>,
    /// What `entries` costs.
    bytes: u64,
    /// The last entry, or the base if there is none.
    last: Index,
    /// Known to be durable on this node.
    stable: Index,
    /// Handed out for appending.
    handed_out: Index,
    committed: Index,
    /// Handed out for applying.
    applying: Index,
    applied: Index,
    /// A received snapshot that is not yet installed, at `base`.
    snapshot: Option<Snapshot>,
    snapshot_handed_out: bool,
    /// Batches handed out for applying and not yet applied.
    batches: VecDeque<Batch>,
    applying_bytes: u64,
    applying_bytes_max: u64,
    /// Nothing more is handed out for applying until some of it is applied.
    applying_paused: bool,
}

impl Log {
    /// The log as the disk remembers it; everything in it is durable.
    pub fn restore_from(
        base: (Index, Term),
        term_runs: &[(Index, Term)],
        entries: Vec<Entry>,
        applied: Index,
        applying_bytes_max: u64,
    ) -> Result<Log, String> {
        let mut log = Log {
            base,
            runs: VecDeque::new(),
            entries: VecDeque::new(),
            bytes: 0,
            last: base.0,
            stable: base.0,
            handed_out: base.0,
            committed: applied,
            applying: applied,
            applied,
            snapshot: None,
            snapshot_handed_out: false,
            batches: VecDeque::new(),
            applying_bytes: 0,
            applying_bytes_max,
            applying_paused: false,
        };
        // The tail holds all that follows `applied`: if there is none, the log ends there.
        let end = applied.max(base.0);
        let first = entries.first().map_or(end.next(), |entry| entry.index);
        if first <= base.0 {
            return Err(format!("entry {first} does not lie after the log's base {}", base.0));
        }
        let mut term = base.1;
        for &(start, run_term) in term_runs.iter().filter(|run| run.0 < first) {
            let follows = log.runs.back().map_or(start == base.0.next(), |run| run.first < start);
            if !follows || run_term < term {
                return Err(format!("the run of term {run_term} at {start} is out of order"));
            }
            term = run_term;
            log.runs.push_back(Run { first: start, term });
        }
        if log.runs.is_empty() && first != base.0.next() {
            return Err(format!("no terms are known of the entries {} to {first}", base.0));
        }
        if applied.next() < first || applied < base.0 {
            return Err(format!("applied is {applied}, but the log in memory begins at {first}"));
        }
        log.last = first.previous();
        for entry in entries {
            if entry.index != log.last.next() || entry.term < term {
                return Err(format!("{} {} follows {}", entry.term, entry.index, log.last));
            }
            term = entry.term;
            log.push(entry);
        }
        if log.last < applied {
            return Err(format!("applied is {applied}, but the log ends at {}", log.last));
        }
        log.stable = log.last;
        log.handed_out = log.last;
        Ok(log)
    }

    fn push(&mut self, entry: Entry) {
        if self.last_term() != entry.term || self.runs.is_empty() {
            self.runs.push_back(Run { first: entry.index, term: entry.term });
        }
        self.bytes += entry.data.len() as u64 + ENTRY_BYTES;
        self.last = entry.index;
        self.entries.push_back(entry);
    }

    /// The leader's own entries, already numbered, at the end.
    pub fn append(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.last.next(), "entries are appended without a gap");
        assert!(entry.term >= self.last_term(), "terms do not go back");
        self.push(entry);
    }

    /// A leader's entries, of which some may be here already. What is equal stays (C51: dropping it first could lose a
    /// committed entry); from the first different one on everything is replaced. `false`: a committed entry would be.
    pub fn append_from(&mut self, entries: Vec<Entry>) -> bool {
        let blind = mutant::is(Mutant::TruncateMatching);
        let is_known = |entry: &&Entry| {
            self.matches(entry.index, entry.term) && (!blind || entry.index <= self.committed)
        };
        let known = entries.iter().take_while(is_known).count();
        let Some(first) = entries.get(known).map(|entry| entry.index) else { return true };
        if first <= self.committed {
            return false;
        }
        self.truncate(first);
        for entry in entries.into_iter().skip(known) {
            self.append(entry);
        }
        true
    }

    /// Drops all from `first` on.
    fn truncate(&mut self, first: Index) {
        assert!(first > self.committed, "committed entries stay");
        while self.entries.back().is_some_and(|entry| entry.index >= first) {
            let dropped = self.entries.pop_back().expect("it was just seen");
            self.bytes -= dropped.data.len() as u64 + ENTRY_BYTES;
        }
        while self.runs.back().is_some_and(|run| run.first >= first) {
            self.runs.pop_back();
        }
        self.last = self.last.min(first.previous());
        self.stable = self.stable.min(self.last);
        self.handed_out = self.handed_out.min(self.last);
    }

    /// A received snapshot takes the place of everything.
    pub fn restore_snapshot(&mut self, snapshot: Snapshot) {
        let (index, term) = (snapshot.metadata.index, snapshot.metadata.term);
        let goes_back = mutant::is(Mutant::SnapshotOverNewer);
        assert!(index > self.committed || goes_back, "a snapshot never takes the log back");
        self.base = (index, term);
        self.runs.clear();
        self.entries.clear();
        self.bytes = 0;
        self.last = index;
        self.stable = index;
        self.handed_out = index;
        self.committed = index;
        self.snapshot = Some(snapshot);
        self.snapshot_handed_out = false;
    }

    /// What is both applied and durable.
    pub fn releasable(&self) -> Index {
        self.applied.min(self.stable)
    }

    /// Drops entries up to and including this one.
    pub fn release(&mut self, up_to: Index) {
        assert!(
            up_to <= self.releasable(),
            "entry {up_to} is released, but applied is {} and durable {}",
            self.applied,
            self.stable
        );
        if up_to <= self.base.0 {
            return;
        }
        let term = self.term(up_to).expect("it lies within the log");
        self.base = (up_to, term);
        while self.runs.get(1).is_some_and(|run| run.first <= up_to.next()) {
            self.runs.pop_front();
        }
        match self.runs.front_mut() {
            Some(run) if self.last > up_to => run.first = run.first.max(up_to.next()),
            _ => self.runs.clear(),
        }
        while self.entries.front().is_some_and(|entry| entry.index <= up_to) {
            self.drop_oldest();
        }
    }

    /// Drops applied and durable entries from memory until this many bytes are left.
    pub fn evict(&mut self, bytes: u64) {
        let droppable = self.releasable();
        while self.bytes > bytes && self.first_in_memory() <= droppable {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let dropped = self.entries.pop_front().expect("there is one to drop");
        self.bytes -= dropped.data.len() as u64 + ENTRY_BYTES;
    }

    /// The append up to this entry is durable, and no append under way will overwrite it.
    pub fn stable_to(&mut self, index: Index, term: Term) {
        if index <= self.stable || !self.matches(index, term) {
            return;
        }
        self.stable = index;
        self.handed_out = self.handed_out.max(index);
    }

    /// Never goes back; the caller has checked that the log reaches so far.
    pub fn commit_to(&mut self, index: Index) {
        assert!(index <= self.last, "commit {index} lies beyond the last entry {}", self.last);
        self.committed = self.committed.max(index);
    }

    /// The state machine has applied up to here. Returns the payload bytes that are thereby done with.
    pub fn applied_to(&mut self, index: Index) -> u64 {
        assert!(
            index >= self.applied && index <= self.committed,
            "applied goes from {} to {index}, committed is {}",
            self.applied,
            self.committed
        );
        self.applied = index;
        self.applying = self.applying.max(index);
        let mut payload = 0;
        while let Some(batch) = self.batches.front()
            && batch.last <= index
        {
            self.applying_bytes -= batch.encoded_bytes;
            payload += batch.payload_bytes;
            self.batches.pop_front();
        }
        self.applying_paused = self.applying_bytes >= self.applying_bytes_max;
        payload
    }

    /// This snapshot is installed; an older one than that which is pending changes nothing.
    pub fn snapshot_installed(&mut self, index: Index) {
        if self.snapshot.as_ref().is_some_and(|snapshot| snapshot.metadata.index == index) {
            self.snapshot = None;
            self.snapshot_handed_out = false;
        }
    }

    /// Entries to append next; they count as handed out from now on.
    pub fn take_unstable(&mut self) -> Vec<Entry> {
        let low = self.handed_out.next();
        self.handed_out = self.last;
        self.slice(low, self.last.next(), NO_LIMIT)
    }

    pub fn has_unstable_to_take(&self) -> bool {
        self.handed_out < self.last
    }

    /// The snapshot to keep next; it counts as handed out from now on.
    pub fn take_snapshot(&mut self) -> Option<Snapshot> {
        if !self.has_snapshot_to_take() {
            return None;
        }
        self.snapshot_handed_out = true;
        self.snapshot.clone()
    }

    pub fn has_snapshot_to_take(&self) -> bool {
        self.snapshot.is_some() && !self.snapshot_handed_out
    }

    /// Entries to apply next, at most as many bytes as are allowed to be under way; they count as handed out from now on.
    pub fn take_committed(&mut self, also_unstable: bool) -> Vec<Entry> {
        if !self.has_committed_to_take(also_unstable) {
            return Vec::new();
        }
        let limit = self.applying_bytes_max - self.applying_bytes;
        let appliable = self.appliable(also_unstable);
        let entries = self.slice(self.applying.next(), appliable.next(), limit);
        let last = entries.last().expect("one entry always fits").index;
        let encoded_bytes = entries.iter().map(encoded_bytes).sum();
        let payload_bytes = payload_bytes(&entries);
        self.applying = last;
        self.batches.push_back(Batch { last, encoded_bytes, payload_bytes });
        self.applying_bytes += encoded_bytes;
        // The next one did not fit, or would not.
        self.applying_paused = self.applying_bytes >= self.applying_bytes_max || last < appliable;
        entries
    }

    pub fn has_committed_to_take(&self, also_unstable: bool) -> bool {
        !self.applying_paused
            && self.snapshot.is_none()
            && self.applying < self.appliable(also_unstable)
    }

    fn appliable(&self, also_unstable: bool) -> Index {
        if mutant::is(Mutant::ApplyBeforeCommit) {
            return self.last;
        }
        if also_unstable { self.committed } else { self.committed.min(self.stable) }
    }

    /// The entries from `low` on, as many as fit.
    pub fn tail(&self, low: Index, bytes_max: u64) -> Tail {
        if low > self.last {
            return Tail::Entries(Vec::new());
        }
        if low < self.first_in_memory() {
            return Tail::Evicted(self.first_in_memory());
        }
        Tail::Entries(self.slice(low, self.last.next(), bytes_max))
    }

    /// Entries in memory from `low` up to `high`, exclusive, as many as fit, at least one.
    fn slice(&self, low: Index, high: Index, bytes_max: u64) -> Vec<Entry> {
        if low >= high {
            return Vec::new();
        }
        let first = self.first_in_memory();
        assert!(
            first <= low && high <= self.last.next(),
            "[{low}, {high}) of [{first}, {}]",
            self.last
        );
        let start = (low.0 - first.0) as usize;
        let wanted = self.entries.range(start..(high.0 - first.0) as usize);
        if bytes_max == NO_LIMIT {
            return wanted.cloned().collect();
        }
        let mut bytes = 0;
        let fits = |(count, entry): &(usize, &Entry)| {
            bytes += encoded_bytes(entry);
            *count == 0 || bytes <= bytes_max
        };
        wanted.enumerate().take_while(fits).map(|(_, entry)| entry.clone()).collect()
    }

    /// Whether a membership change is committed and not yet applied.
    pub fn has_unapplied_conf_change(&self) -> bool {
        if self.snapshot.is_some() || self.applied >= self.committed {
            return false;
        }
        let first = self.first_in_memory();
        let range = (self.applied.0 + 1 - first.0) as usize..=(self.committed.0 - first.0) as usize;
        self.entries.range(range).any(|entry| entry.kind != EntryKind::Normal)
    }

    /// The term of an entry, if it is known.
    pub fn term(&self, index: Index) -> Option<Term> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        let missing = mutant::is(Mutant::MissingTermIsZero).then_some(Term(0));
        self.run_of(index).map(|run| run.term).or(missing)
    }

    fn run_of(&self, index: Index) -> Option<Run> {
        if index <= self.base.0 || index > self.last {
            return None;
        }
        let newest = *self.runs.back().expect("every entry lies in a run");
        if newest.first <= index {
            return Some(newest);
        }
        let after = self.runs.partition_point(|run| run.first <= index);
        Some(self.runs[after - 1])
    }

    pub fn matches(&self, index: Index, term: Term) -> bool {
        self.term(index) == Some(term)
    }

    /// A guess where this log ends matching another of which one entry is known: the greatest index up to `index` whose
    /// term is not above `term`, with its term, or 0 if its term is not known. It skips a term at a time.
    pub fn last_possible_match(&self, mut index: Index, term: Term) -> (Index, Term) {
        while index > Index(0) {
            match self.term(index) {
                None => return (index, Term(0)),
                Some(ours) if ours <= term => return (index, ours),
                Some(_) => {
                    index = self.run_of(index).map_or(index, |run| run.first).previous();
                }
            }
        }
        (Index(0), Term(0))
    }

    /// Whether a log that ends with this entry is at least as complete as ours (thesis §3.6.1).
    pub fn is_up_to_date(&self, index: Index, term: Term) -> bool {
        (term, index) >= (self.last_term(), self.last)
    }

    pub fn last(&self) -> Index {
        self.last
    }

    pub fn last_term(&self) -> Term {
        self.runs.back().map_or(self.base.1, |run| run.term)
    }

    pub fn base(&self) -> (Index, Term) {
        self.base
    }

    pub fn committed(&self) -> Index {
        self.committed
    }

    pub fn applied(&self) -> Index {
        self.applied
    }

    pub fn applying(&self) -> Index {
        self.applying
    }

    pub fn stable(&self) -> Index {
        self.stable
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a received snapshot is not yet installed.
    pub fn snapshot_pending(&self) -> bool {
        self.snapshot.is_some()
    }

    fn first_in_memory(&self) -> Index {
        self.entries.front().map_or(self.last.next(), |entry| entry.index)
    }

    pub fn check_invariants(&self) {
        assert!(self.applied <= self.applying, "applied {} {}", self.applied, self.applying);
        assert!(self.applying <= self.committed, "applying {} {}", self.applying, self.committed);
        assert!(self.committed <= self.last, "committed {} of {}", self.committed, self.last);
        assert!(self.stable <= self.handed_out, "stable {} {}", self.stable, self.handed_out);
        assert!(self.handed_out <= self.last, "handed out {} of {}", self.handed_out, self.last);
        assert!(self.base.0 <= self.committed, "base {} {}", self.base.0, self.committed);
        assert!(self.snapshot.is_some() || self.base.0 <= self.applied, "base is not applied");
        let needed = self.applied.min(self.stable).max(self.base.0);
        assert!(self.first_in_memory() <= needed.next(), "needed entries were evicted");
        assert_eq!(self.last == self.base.0, self.runs.is_empty(), "runs cover the log");
    }
}

/// An entry's length in raftpb, which all limits are counted in.
pub(crate) fn encoded_bytes(entry: &Entry) -> u64 {
    let data = entry.data.len() as u64;
    let data_field = if data == 0 { 0 } else { 1 + varint_bytes(data) + data };
    // Tag and value of kind, term and index.
    2 + 1 + varint_bytes(entry.term.0) + 1 + varint_bytes(entry.index.0) + data_field
}

fn varint_bytes(value: u64) -> u64 {
    u64::from((64 - (value | 1).leading_zeros()).div_ceil(7))
}

/// The bytes of entries that count as a load of their own; those without data count nothing.
pub(crate) fn payload_bytes(entries: &[Entry]) -> u64 {
    entries.iter().map(|entry| entry.data.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn entry(index: u64, term: u64) -> Entry {
        let data = Bytes::from_static(b"data");
        Entry { kind: EntryKind::Normal, term: Term(term), index: Index(index), data }
    }

    fn log(terms: &[u64], applied: u64) -> Log {
        let entries = terms.iter().zip(1..).map(|(term, index)| entry(index, *term)).collect();
        let base = (Index(0), Term(0));
        Log::restore_from(base, &[], entries, Index(applied), NO_LIMIT).unwrap()
    }

    fn terms(log: &Log) -> Vec<Option<u64>> {
        (0..=log.last().0 + 1).map(|index| log.term(Index(index)).map(|term| term.0)).collect()
    }

    #[test]
    fn terms_are_known_of_everything_after_the_base_and_nothing_else() {
        let mut log = log(&[1, 1, 2, 5, 5], 4);
        assert_eq!(terms(&log), [Some(0), Some(1), Some(1), Some(2), Some(5), Some(5), None]);
        log.evict(0);
        assert_eq!(log.first_in_memory(), Index(5));
        assert_eq!(terms(&log), [Some(0), Some(1), Some(1), Some(2), Some(5), Some(5), None]);
        log.release(Index(2));
        assert_eq!(terms(&log), [None, None, Some(1), Some(2), Some(5), Some(5), None]);
        log.release(Index(4));
        assert_eq!(terms(&log), [None, None, None, None, Some(5), Some(5), None]);
        log.check_invariants();
    }

    #[test]
    fn a_log_released_to_its_end_goes_on() {
        let mut log = log(&[1, 1, 2], 3);
        log.release(Index(3));
        log.check_invariants();
        assert_eq!((log.last(), log.last_term(), log.bytes()), (Index(3), Term(2), 0));
        log.append(entry(4, 2));
        assert_eq!(log.term(Index(4)), Some(Term(2)));
        log.check_invariants();
    }

    #[test]
    fn equal_entries_stay_and_different_ones_are_replaced() {
        let mut log = log(&[1, 1, 2, 2], 1);
        assert!(log.append_from(vec![entry(2, 1), entry(3, 2)]));
        assert_eq!(log.last(), Index(4), "an old append does not shorten the log");
        assert!(log.append_from(vec![entry(3, 3)]));
        assert_eq!((log.last(), log.stable()), (Index(3), Index(2)));
        assert_eq!(log.take_unstable(), [entry(3, 3)]);
        assert!(!log.append_from(vec![entry(1, 3)]), "a committed entry is not replaced");
        log.check_invariants();
    }

    #[test]
    fn a_receipt_for_what_was_replaced_is_worth_nothing() {
        let mut log = log(&[1], 0);
        log.append(entry(2, 1));
        assert_eq!(log.take_unstable().len(), 1);
        assert!(log.append_from(vec![entry(2, 2)]));
        log.stable_to(Index(2), Term(1));
        assert_eq!(log.stable(), Index(1));
        log.stable_to(Index(2), Term(2));
        assert_eq!(log.stable(), Index(2));
    }

    #[test]
    fn entries_are_handed_out_for_applying_once_and_within_the_bound() {
        let mut log = log(&[1, 1, 1], 0);
        log.applying_bytes_max = 2 * encoded_bytes(&entry(1, 1));
        log.commit_to(Index(3));
        assert_eq!(log.take_committed(false).len(), 2);
        assert!(!log.has_committed_to_take(false));
        assert_eq!(log.applied_to(Index(1)), 0, "the batch is not yet done");
        assert_eq!(log.applied_to(Index(2)), 8);
        assert_eq!(log.take_committed(false), [entry(3, 1)]);
    }

    #[test]
    fn only_durable_entries_are_applied_unless_allowed() {
        let mut log = log(&[1], 1);
        log.append(entry(2, 1));
        log.commit_to(Index(2));
        assert!(!log.has_committed_to_take(false));
        assert!(log.has_committed_to_take(true));
    }

    #[test]
    fn nothing_is_applied_behind_a_snapshot_that_is_not_installed() {
        let mut log = log(&[1, 1], 1);
        let metadata = SnapshotMetadata { index: Index(7), term: Term(3), ..Default::default() };
        log.restore_snapshot(Snapshot { metadata, ..Default::default() });
        log.append(entry(8, 3));
        log.commit_to(Index(8));
        assert!(!log.has_committed_to_take(true));
        log.snapshot_installed(Index(7));
        log.applied_to(Index(7));
        assert_eq!(log.take_committed(true), [entry(8, 3)]);
        log.check_invariants();
    }

    #[test]
    fn a_guess_where_logs_match_skips_whole_terms() {
        let mut log = log(&[1, 3, 3, 3, 5, 5, 5], 3);
        assert_eq!(log.last_possible_match(Index(6), Term(2)), (Index(1), Term(1)));
        assert_eq!(log.last_possible_match(Index(6), Term(4)), (Index(4), Term(3)));
        assert_eq!(log.last_possible_match(Index(99), Term(4)), (Index(99), Term(0)));
        log.release(Index(3));
        assert_eq!(log.last_possible_match(Index(6), Term(2)), (Index(2), Term(0)));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let base = (Index(4), Term(2));
        let from = |runs: &[(Index, Term)], entries, applied| {
            Log::restore_from(base, runs, entries, Index(applied), NO_LIMIT).is_ok()
        };
        assert!(from(&[], vec![entry(5, 2)], 4));
        assert!(from(&[(Index(5), Term(3))], vec![entry(8, 3)], 7));
        assert!(!from(&[], vec![entry(8, 3)], 7), "terms of 5 to 7 are not known");
        assert!(!from(&[(Index(5), Term(1))], vec![entry(8, 3)], 7), "terms go back");
        assert!(!from(&[], vec![entry(5, 2), entry(7, 2)], 4), "a gap");
        assert!(!from(&[], vec![entry(5, 1)], 4), "terms go back");
        assert!(!from(&[], vec![entry(5, 2)], 3), "applied lies before the base");
        assert!(!from(&[], vec![entry(5, 2)], 6), "applied lies behind the end");
        assert!(!from(&[(Index(5), Term(3))], vec![entry(8, 3)], 5), "unapplied, not in memory");
    }

    #[test]
    fn an_entry_is_as_long_as_raftpb_makes_it() {
        let entry = Entry { data: Bytes::from(vec![0; 200]), ..entry(300, 1) };
        assert_eq!(encoded_bytes(&entry), 2 + 2 + 3 + 1 + 2 + 200);
        assert_eq!([0, 127, 128, u64::MAX].map(varint_bytes), [1, 1, 2, 10]);
    }
}
