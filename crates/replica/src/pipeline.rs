//! The pipeline: which jobs may be in flight, and the order between log and store. It is decided here and nowhere
//! else.
//!
//! ```text
//!   raft ──▶ append ──▶ LOG ──durable──┐
//!     │                                ▼
//!     └─▶ committed ─▶ APPLY ─frame─▶ (held until the log has its last entry) ─▶ FLUSH ─▶ written ─▶ synced = S
//!                                                                                                     │
//!                 LOG: mark {S, term, configuration} and hard state, synced  ◀───────────────────────┘
//!                  └─▶ LOG: release the files at or below S − catch-up entries
//! ```
//!
//! The rules, each with the reason why the reverse would lose something:
//!
//! - *A frame is written only when the log is durable up to its last entry.* Apply may overtake the local sync, for
//!   what is committed is durable on a quorum; but a store that knows entry 9 beside a log that ends at 7 would, after
//!   a crash, make this member vouch for a log it does not have.
//! - *"Durable up to" falls when an append replaces entries*, at the moment it is handed out, and a late report about
//!   an earlier append does not raise it over the replaced place.
//! - *First the mark and a hard state whose commit is not below it are synced, then files are unlinked.* Otherwise a
//!   crash leaves a log that neither begins at 1 nor says why.
//! - *While a log sync is in flight no store sync is started*, unless a mark waits for it: on one disk the
//!   acknowledgement of every write would wait behind 16 MiB.
//! - *Behind a membership entry nothing is given to apply before raft has switched*, so that each entry is applied
//!   under the configuration of its place in the log.
//! - *The hash of a compaction is computed before what it covers is cleared away*, by one read thread at a time, in the
//!   order of the compactions: the other is left to those who wait for a read.
//! - *A received snapshot takes the place of everything not yet written.* It is durable in `incoming/`, then marked in
//!   the log, then imported, then taken over by apply; entries behind it wait.

use std::collections::{BTreeMap, VecDeque};

use mutant::Mutant;
use mvcc::{DueHash, HASHES_MAX};
use raft::{
    ConfChangeSingle, ConfChangeV2, ConfState, Entry, EntryKind, Fetch, HardState, Index, Message,
    NodeId, Persisted, Raft, Ready, Snapshot, SnapshotMetadata, Term,
};
use wal::SnapshotRecord;

use crate::config::{Config, Limits};
use crate::job::{
    Append, ApplyJob, ApplyReport, CutFrame, FlushJob, FlushReport, LogJob, LogReport, ReadJob,
    ReadReport, Verdict,
};
use crate::output::{Notice, Output, Space};
use crate::snapshot::{OutgoingSnapshot, Received};
use crate::trace::{Said, Trace, Tracing};

/// So long after a snapshot was sent the entries behind it are kept for its receiver, in milliseconds.
const KEEP_AFTER_SNAPSHOT_MS: u64 = 30_000;
/// Bytes read in one slice of scrubbing, or one frame if that is more.
const SCRUB_SLICE_BYTES: usize = 256 << 10;

/// An append that the log has not reported yet.
#[derive(Debug)]
struct InFlight {
    sequence: u64,
    // Its entries, if it has any.
    range: Option<(Index, Index)>,
    // The place of a received snapshot that it records.
    snapshot: Option<Index>,
    sync: bool,
    persisted: Option<Persisted>,
}

/// The log's side of the pipeline.
#[derive(Debug)]
struct LogSide {
    next_sequence: u64,
    in_flight: VecDeque<InFlight>,
    // Every entry up to here is durable as raft's log has it, and no append in flight replaces it.
    durable: Index,
    // The last one handed to the log.
    hard_state: HardState,
    // Appended and not known to be committed: last index and bytes of each append.
    uncommitted: VecDeque<(Index, u64)>,
    uncommitted_bytes: u64,
    mark: Mark,
    marked: Index,
    // The last index that may be released but is not, because a snapshot's receiver may need what follows.
    release_wanted: Index,
    released: Index,
}

/// How far marking the log has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// Not due.
    Idle,
    /// The store must be durable up to here first.
    Wanted(Index),
    /// The record is being written.
    Writing,
}

/// The apply side.
#[derive(Debug)]
struct ApplySide {
    committed: VecDeque<Entry>,
    committed_bytes: u64,
    jobs: usize,
    prune_due: bool,
    prune_in_flight: bool,
    // Hashes of compactions, in their order; at most as many as are remembered.
    hashes: VecDeque<DueHash>,
    hash_in_flight: bool,
    membership: Option<(Index, Option<ConfChangeV2>)>,
    applied: (Index, Term),
    // The configurations since the last mark, each from its index on; never empty.
    conf_states: VecDeque<(Index, ConfState)>,
}

/// The store's side.
#[derive(Debug)]
struct StoreSide {
    // Bytes in the frame under construction as of apply's last report.
    pending_bytes: usize,
    // The next frame would bring more than entries.
    has_notes: bool,
    // What is applied up to here has been cut into frames.
    framed: Index,
    cut_in_flight: bool,
    last_cut_tick: u64,
    // Frames that wait for the log.
    held: VecDeque<CutFrame>,
    held_bytes: u64,
    writing: usize,
    writing_bytes: u64,
    written: Index,
    unsynced_bytes: u64,
    synced: (Index, Term),
    sync_in_flight: bool,
    reclaim: Reclaim,
    space: Space,
    // Room is to be looked for; or it is being done.
    retry: Retry,
    scrub: Scrub,
}

/// Reading what is on disk again, so that rot is found while others have the data.
#[derive(Debug)]
struct Scrub {
    // The next round begins at this tick.
    from_tick: u64,
    // Bytes that may be read by now; below zero after a slice that read more.
    budget: i64,
    in_flight: bool,
}

/// Whether somebody looks for room on a disk that was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    /// Not before the next tick.
    Idle,
    /// Somebody is to look.
    Due,
    /// Somebody is looking.
    InFlight,
}

/// Who is next with reclaim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reclaim {
    /// Nothing to do until more has been written.
    Idle,
    /// A slice is to be done.
    Due,
    /// A slice is being done.
    Flush,
    /// Apply takes over what the slice found.
    Apply,
    /// Apply is to end the growing segment.
    Roll,
    /// The frame that tells of the new segment must be written first.
    Frame,
}

/// A received snapshot that raft has accepted.
#[derive(Debug)]
struct Install {
    file: Received,
    metadata: SnapshotMetadata,
    state: Installing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Installing {
    /// Its record is being synced in the log, by the append of this sequence.
    Marking(u64),
    /// It is being imported.
    Importing,
    /// Apply is taking it over.
    Exchanging,
}

/// A snapshot on its way out.
#[derive(Debug)]
enum Outgoing {
    /// It is to be pinned once something is written.
    Wanted(Message),
    /// It is being pinned.
    Pinning(Message),
    /// It is being sent; entries behind this index are kept.
    Sending(Index),
    /// It has arrived; entries behind the index are kept until this tick.
    Sent(Index, u64),
}

/// The pipeline of one member.
#[derive(Debug)]
pub(crate) struct Pipeline {
    limits: Limits,
    snapshot_count: u64,
    catchup_entries: u64,
    frame_ticks: u64,
    keep_ticks: u64,
    scrub_pause_ticks: u64,
    scrub_bytes_per_tick: u64,
    me: NodeId,
    tracing: Tracing,
    tick: u64,
    log: LogSide,
    apply: ApplySide,
    store: StoreSide,
    // A snapshot whose message was given to raft in this turn.
    offered: Option<Received>,
    install: Option<Install>,
    outgoing: BTreeMap<NodeId, Outgoing>,
    fetches: VecDeque<Fetch>,
    fetches_in_flight: usize,
    // Everything applied up to here is to be durable before the member ends, and every append before this one written.
    finishing: Option<(Index, u64)>,
}

/// What the pipeline begins with.
pub(crate) struct Beginning {
    /// The applied index of the store, and its term.
    pub(crate) applied: (Index, Term),
    /// The configuration there.
    pub(crate) conf_state: ConfState,
    /// The last index of the log on disk.
    pub(crate) log_last: Index,
    /// The hard state on disk.
    pub(crate) hard_state: HardState,
    /// The newest mark, or the log's base.
    pub(crate) marked: Index,
}

/// What a report means for those outside the pipeline.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub(crate) leases: Vec<state_machine::LeaseChange>,
    pub(crate) restored_leases: Option<Vec<state_machine::LeaseInfo>>,
}

impl Pipeline {
    pub(crate) fn new(config: &Config, beginning: Beginning) -> Pipeline {
        let Beginning { applied, conf_state, log_last, hard_state, marked } = beginning;
        assert!(log_last >= applied.0, "the log ends at {log_last}, the store is at {}", applied.0);
        Pipeline {
            limits: config.limits.clone(),
            snapshot_count: config.snapshot_count,
            catchup_entries: config.snapshot_catchup_entries,
            frame_ticks: config.ticks(config.limits.frame_ms),
            keep_ticks: config.ticks(KEEP_AFTER_SNAPSHOT_MS),
            scrub_pause_ticks: config.ticks(config.limits.scrub_pause_ms),
            scrub_bytes_per_tick: (config.limits.scrub_bytes_per_second * config.tick_ms / 1_000)
                .max(1),
            me: config.identity.node_id,
            tracing: config.trace,
            tick: 0,
            log: LogSide {
                next_sequence: 1,
                in_flight: VecDeque::new(),
                durable: log_last,
                hard_state,
                uncommitted: VecDeque::new(),
                uncommitted_bytes: 0,
                mark: Mark::Idle,
                marked,
                release_wanted: Index(0),
                released: Index(0),
            },
            apply: ApplySide {
                committed: VecDeque::new(),
                committed_bytes: 0,
                jobs: 0,
                prune_due: false,
                prune_in_flight: false,
                hashes: VecDeque::new(),
                hash_in_flight: false,
                membership: None,
                applied,
                conf_states: VecDeque::from([(applied.0, conf_state)]),
            },
            store: StoreSide {
                pending_bytes: 0,
                has_notes: false,
                framed: applied.0,
                cut_in_flight: false,
                last_cut_tick: 0,
                held: VecDeque::new(),
                held_bytes: 0,
                writing: 0,
                writing_bytes: 0,
                written: applied.0,
                unsynced_bytes: 0,
                synced: applied,
                sync_in_flight: false,
                reclaim: Reclaim::Due,
                space: Space::Plenty,
                retry: Retry::Idle,
                scrub: Scrub {
                    from_tick: config.ticks(config.limits.scrub_pause_ms),
                    budget: 0,
                    in_flight: false,
                },
            },
            offered: None,
            install: None,
            outgoing: BTreeMap::new(),
            fetches: VecDeque::new(),
            fetches_in_flight: 0,
            finishing: None,
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, elapsed: u32) {
        self.tick += u64::from(elapsed.max(1));
        let now = self.tick;
        self.outgoing
            .retain(|_, outgoing| !matches!(outgoing, Outgoing::Sent(_, until) if *until <= now));
        let earned = self.scrub_bytes_per_tick.saturating_mul(u64::from(elapsed.max(1)));
        let budget = self.store.scrub.budget.saturating_add_unsigned(earned);
        // What was not used is not saved up: a busy member catches up slowly.
        self.store.scrub.budget = budget.min(SCRUB_SLICE_BYTES as i64);
        if self.store.space != Space::Plenty {
            if self.store.retry == Retry::Idle {
                self.store.retry = Retry::Due;
            }
            if self.store.reclaim == Reclaim::Idle {
                self.store.reclaim = Reclaim::Due;
            }
        }
    }

    /// What raft wants done. The messages it sends go out at once, those that vouch go with the append.
    pub(crate) fn on_ready(&mut self, mut ready: Ready, out: &mut Output) {
        if let Some(snapshot) = ready.snapshot.take() {
            self.begin_install(&snapshot, &mut ready, out);
        } else if ready.persisted.is_some()
            || !ready.entries.is_empty()
            || ready.hard_state.is_some()
            || !ready.messages_after_persist.is_empty()
        {
            self.append(&mut ready, None, out);
        }
        for entry in ready.committed {
            self.apply.committed_bytes += entry_bytes(&entry);
            self.apply.committed.push_back(entry);
        }
        for message in ready.messages {
            match message.kind {
                raft::MessageKind::Snap => {
                    self.outgoing.insert(message.to, Outgoing::Wanted(message));
                }
                _ => {
                    let said = Said::of(&message);
                    self.trace(out, Trace::Sent { to: message.to, message: said });
                    out.messages.push(message);
                }
            }
        }
        self.fetches.extend(ready.fetches);
    }

    /// raft is about to be told of a received snapshot.
    pub(crate) fn offer(&mut self, file: Received) {
        let is_alone = self.install.is_none() && self.offered.is_none();
        assert!(is_alone, "a snapshot was received while another had the door");
        self.offered = Some(file);
    }

    /// raft has been told, and has not taken it.
    pub(crate) fn end_offer(&mut self, out: &mut Output) {
        if let Some(file) = self.offered.take() {
            out.flush.push(FlushJob::Discard(file));
        }
    }

    /// The log reports.
    pub(crate) fn on_log(&mut self, report: LogReport, raft: &mut Raft, out: &mut Output) {
        if let Some(sequence) = report.appended {
            while self.log.in_flight.front().is_some_and(|first| first.sequence <= sequence) {
                let done = self.log.in_flight.pop_front().expect("its front was just seen");
                if let Some(index) = done.snapshot {
                    self.log.durable = index;
                }
                if let Some((_, last)) = done.range {
                    self.log.durable = last;
                }
                if let Some(persisted) = done.persisted {
                    raft.on_persisted(persisted);
                }
                if let Some(install) = &mut self.install
                    && install.state == Installing::Marking(done.sequence)
                {
                    install.state = Installing::Importing;
                    self.log.marked = install.metadata.index;
                    out.flush.push(FlushJob::Import(install.file.clone()));
                }
            }
            // What is still in flight may replace what was just reported.
            for first in
                self.log.in_flight.iter().filter_map(|append| append.range).map(|(first, _)| first)
            {
                self.log.durable = self.log.durable.min(first.previous());
            }
        }
        if let Some(index) = report.marked {
            assert_eq!(
                self.log.mark,
                Mark::Writing,
                "a mark at {index} was reported and not asked for"
            );
            self.log.mark = Mark::Idle;
            self.log.marked = self.log.marked.max(index);
            self.log.release_wanted =
                self.log.release_wanted.max(Index(index.0.saturating_sub(self.catchup_entries)));
            self.forget_conf_states_before(index);
            self.offer_snapshot(raft, index);
        }
        if let Some(index) = report.released {
            out.notices.push(Notice::LogReleased { index });
        }
    }

    /// Apply reports.
    pub(crate) fn on_apply(
        &mut self,
        report: ApplyReport,
        raft: &mut Raft,
        out: &mut Output,
    ) -> Applied {
        self.apply.jobs =
            self.apply.jobs.checked_sub(report.entry_jobs).expect("a job reported twice");
        self.store.pending_bytes = report.pending_bytes;
        self.store.has_notes = report.has_notes;
        self.apply.prune_due = report.prune_due;
        self.apply.prune_in_flight = false;
        self.apply.hashes.extend(report.hashes);
        // The oldest would be forgotten as soon as the others are remembered.
        let beyond = self.apply.hashes.len().saturating_sub(HASHES_MAX);
        self.apply.hashes.drain(..beyond);
        let mut applied = Applied { leases: report.leases, restored_leases: None };
        if let Some((index, term)) = report.applied {
            assert!(index > self.apply.applied.0, "applied {index} after {}", self.apply.applied.0);
            self.apply.applied = (index, term);
            if let Some(verdict) = report.verdict {
                self.switch(index, verdict, raft, out);
            }
            // Once raft has a snapshot in hand it is past these entries.
            if self.install.is_none() {
                raft.on_applied(index);
            }
        }
        if report.cuts > 0 {
            self.store.cut_in_flight = false;
            self.store.framed = self.store.framed.max(self.apply.applied.0);
            let quiet = self.store.held.is_empty() && self.store.writing == 0;
            if report.frames.is_empty() && quiet && self.store.reclaim == Reclaim::Frame {
                // The segment was empty, and there is nothing to tell; the next frame wakes reclaim.
                self.store.reclaim = Reclaim::Idle;
            }
        }
        for frame in report.frames {
            // What a snapshot replaces is not written any more.
            if self.install.is_none() {
                self.store.held_bytes += frame.bytes as u64;
                self.store.held.push_back(frame);
            }
        }
        if let Some(exchanged) = report.exchanged {
            applied.leases.clear();
            self.end_install(exchanged.index, exchanged.term, raft, out);
            applied.restored_leases = Some(exchanged.leases);
        }
        if report.reclaimed > 0 {
            self.store.reclaim = match self.store.reclaim {
                Reclaim::Apply => Reclaim::Due,
                Reclaim::Roll => Reclaim::Frame,
                other => other,
            };
        }
        applied
    }

    /// The store reports.
    pub(crate) fn on_flush(&mut self, report: FlushReport, raft: &mut Raft, out: &mut Output) {
        match report {
            FlushReport::Written { last, bytes } => {
                self.store.writing =
                    self.store.writing.checked_sub(1).expect("a frame written twice");
                self.store.writing_bytes -= bytes as u64;
                self.store.unsynced_bytes += bytes as u64;
                if let Some(index) = last {
                    self.store.written = index;
                    out.apply.push(ApplyJob::FrameWritten(index));
                }
                if matches!(self.store.reclaim, Reclaim::Idle | Reclaim::Frame) {
                    self.store.reclaim = Reclaim::Due;
                }
            }
            FlushReport::Synced { index, term, by_job } => {
                if index >= self.store.synced.0 {
                    self.store.synced = (index, term);
                }
                if by_job {
                    self.store.sync_in_flight = false;
                    self.store.unsynced_bytes = 0;
                }
            }
            FlushReport::Pinned { to, stream } => {
                let Some(Outgoing::Pinning(mut message)) = self.outgoing.remove(&to) else {
                    return;
                };
                let (index, term) = stream.place();
                message.snapshot = Some(Box::new(Snapshot {
                    data: bytes::Bytes::new(),
                    metadata: SnapshotMetadata {
                        conf_state: self.conf_state_at(index),
                        index,
                        term,
                    },
                }));
                self.trace(out, Trace::Sent { to, message: Said::of(&message) });
                self.outgoing.insert(to, Outgoing::Sending(index));
                out.snapshots.push(OutgoingSnapshot { to, message, stream: *stream });
            }
            FlushReport::NotPinned { to } => {
                self.outgoing.remove(&to);
                raft.report_snapshot(to, false);
            }
            FlushReport::Imported(imported) => {
                let install = self.install.as_mut().expect("an import belongs to an install");
                assert_eq!(install.state, Installing::Importing);
                install.state = Installing::Exchanging;
                // Frames that found no room went with the old state, without a report of their own.
                self.store.writing = 0;
                self.store.writing_bytes = 0;
                out.apply.push(ApplyJob::Exchange(imported));
            }
            FlushReport::Reclaimed(reclaimed) => {
                use store::Reclaimed::{Copied, Gone, Idle, Relocate, Roll, Swapped};
                self.store.reclaim = match &reclaimed {
                    Idle => Reclaim::Idle,
                    Copied { .. } | Swapped { .. } => Reclaim::Due,
                    Roll => Reclaim::Roll,
                    Relocate(_) | Gone(_) => Reclaim::Apply,
                };
                if matches!(self.store.reclaim, Reclaim::Apply | Reclaim::Roll) {
                    out.apply.push(ApplyJob::Reclaimed(reclaimed));
                }
            }
            FlushReport::Space(space) => {
                if self.store.retry == Retry::InFlight {
                    self.store.retry = Retry::Idle;
                }
                if self.store.space != space {
                    self.store.space = space;
                    out.notices.push(Notice::Space(space));
                }
            }
            FlushReport::Scrubbed { bytes, round_ended } => {
                let scrub = &mut self.store.scrub;
                scrub.in_flight = false;
                scrub.budget = scrub.budget.saturating_sub_unsigned(bytes);
                if round_ended {
                    scrub.from_tick = self.tick + self.scrub_pause_ticks;
                }
            }
            FlushReport::Damage(what) => out.notices.push(Notice::Damage(what)),
        }
    }

    /// A read thread reports.
    pub(crate) fn on_read(&mut self, report: ReadReport, raft: &mut Raft, out: &mut Output) {
        match report {
            ReadReport::Fetched { to, low, entries } => {
                self.fetches_in_flight -= 1;
                raft.on_fetched(to, low, entries);
            }
            ReadReport::Hashed { revision } => {
                self.apply.hash_in_flight = false;
                out.apply.push(ApplyJob::Hashed { revision });
            }
        }
    }

    /// The driver has sent a snapshot, or has not.
    pub(crate) fn on_snapshot_sent(&mut self, to: NodeId, ok: bool, raft: &mut Raft) {
        if let Some(Outgoing::Sending(index)) = self.outgoing.remove(&to)
            && ok
        {
            self.outgoing.insert(to, Outgoing::Sent(index, self.tick + self.keep_ticks));
        }
        raft.report_snapshot(to, ok);
    }

    /// Ends a turn: hands out whatever may go now.
    pub(crate) fn advance(&mut self, raft: &mut Raft, out: &mut Output) {
        self.hand_out_entries(raft, out);
        self.cut_frame(out);
        self.write_frames(out);
        self.sync_store(out);
        self.mark_log(out);
        self.release_log(raft, out);
        self.pin_snapshots(out);
        self.fetch(out);
        self.hash(out);
        self.reclaim(out);
        self.look_for_room(out);
        self.scrub(out);
        self.prune(out);
        raft.evict(self.limits.log_memory_bytes);
        self.check(raft);
    }

    /// Everything that is applied is to be made durable, because the member ends.
    pub(crate) fn finish(&mut self) {
        self.finishing = Some((self.apply.applied.0, self.log.next_sequence));
    }

    /// Whether what [`Pipeline::finish`] asked for is done. What came after it need not be: a leader goes on sending, and
    /// there may never be a moment without an append under way.
    pub(crate) fn is_finished(&self) -> bool {
        self.finishing.is_some_and(|(index, sequence)| {
            self.store.synced.0 >= index
                && self.log.in_flight.front().is_none_or(|append| append.sequence >= sequence)
        })
    }

    /// The applied index as raft knows it, and its term.
    pub(crate) fn applied(&self) -> (Index, Term) {
        self.apply.applied
    }

    /// Whether so much is uncommitted or unflushed that no proposals should be taken.
    pub(crate) fn is_full(&self) -> bool {
        self.log.uncommitted_bytes >= self.limits.uncommitted_bytes
            || self.apply.committed_bytes >= self.limits.committed_queue_bytes
            || self.unflushed_bytes() >= self.limits.unflushed_bytes
    }

    /// Whether memory holds so much of the log that must stay there that no more may come, from whomever.
    pub(crate) fn is_stuck(&self, raft: &Raft) -> bool {
        raft.bytes_in_memory() >= self.limits.log_memory_bytes + self.limits.stuck_bytes
    }

    /// Forgets what has been committed, in the sum of what is not.
    pub(crate) fn on_commit(&mut self, commit: Index) {
        while self.log.uncommitted.front().is_some_and(|(last, _)| *last <= commit) {
            let (_, bytes) = self.log.uncommitted.pop_front().expect("its front was just seen");
            self.log.uncommitted_bytes -= bytes;
        }
    }

    fn unflushed_bytes(&self) -> u64 {
        self.store.pending_bytes as u64 + self.store.held_bytes + self.store.writing_bytes
    }

    fn append(&mut self, ready: &mut Ready, snapshot: Option<SnapshotRecord>, out: &mut Output) {
        let entries = std::mem::take(&mut ready.entries);
        let range =
            entries.first().zip(entries.last()).map(|(first, last)| (first.index, last.index));
        if let Some((first, last)) = range {
            self.log.durable = self.log.durable.min(first.previous());
            while self.log.uncommitted.back().is_some_and(|(index, _)| *index >= first) {
                let (_, bytes) = self.log.uncommitted.pop_back().expect("its back was just seen");
                self.log.uncommitted_bytes -= bytes;
            }
            let bytes = entries.iter().map(entry_bytes).sum();
            self.log.uncommitted.push_back((last, bytes));
            self.log.uncommitted_bytes += bytes;
            let term = entries.last().expect("there is a range").term;
            self.trace(out, Trace::Appended { first, last, term });
        }
        if let Some(hard_state) = ready.hard_state {
            self.log.hard_state = hard_state;
        }
        let sequence = self.log.next_sequence;
        self.log.next_sequence += 1;
        let unsynced = mutant::is(Mutant::SnapshotRecordUnsynced);
        let sync = ready.must_sync || snapshot.is_some() && !unsynced;
        self.log.in_flight.push_back(InFlight {
            sequence,
            range,
            snapshot: snapshot.as_ref().map(|record| record.index),
            sync,
            persisted: ready.persisted.take(),
        });
        out.log.push(LogJob::Append(Append {
            sequence,
            snapshot,
            entries,
            hard_state: ready.hard_state,
            sync,
            after: std::mem::take(&mut ready.messages_after_persist),
        }));
    }

    /// raft has accepted the snapshot that was offered to it. Its record goes into the log with a hard state that
    /// commits it, in one sync; raft's acknowledgement leaves behind that.
    fn begin_install(&mut self, snapshot: &Snapshot, ready: &mut Ready, out: &mut Output) {
        let metadata = snapshot.metadata.clone();
        let file =
            self.offered.take().expect("raft accepts only a snapshot that was offered to it");
        assert_eq!((file.index, file.term), (metadata.index, metadata.term), "the wrong snapshot");
        let goes_back = mutant::is(Mutant::SnapshotOverNewer);
        let brings = metadata.index > self.apply.applied.0 || goes_back;
        assert!(brings, "a snapshot that brings nothing");
        let record = SnapshotRecord {
            index: metadata.index,
            term: metadata.term,
            conf_state: Some(metadata.conf_state.clone()),
        };
        let commit = ready.hard_state.map_or(self.log.hard_state.commit, |state| state.commit);
        assert!(
            commit >= metadata.index,
            "a snapshot at {} and a commit at {commit}",
            metadata.index
        );
        // A hard state always goes with the record, for a record above the commit counts for nothing.
        ready.hard_state.get_or_insert(self.log.hard_state);
        self.append(ready, Some(record), out);
        self.log.uncommitted.clear();
        self.log.uncommitted_bytes = 0;
        self.apply.committed.clear();
        self.apply.committed_bytes = 0;
        self.store.held.clear();
        self.store.held_bytes = 0;
        self.log.mark = match self.log.mark {
            // A mark that is being written lies in the log before this record and does no harm.
            Mark::Writing => Mark::Writing,
            Mark::Idle | Mark::Wanted(_) => Mark::Idle,
        };
        let sequence = self.log.next_sequence - 1;
        self.install = Some(Install { file, metadata, state: Installing::Marking(sequence) });
    }

    fn end_install(&mut self, index: Index, term: Term, raft: &mut Raft, out: &mut Output) {
        let install = self.install.take().expect("an exchange belongs to an install");
        assert_eq!((install.metadata.index, install.metadata.term), (index, term));
        self.apply.applied = (index, term);
        self.apply.membership = None;
        self.apply.conf_states.clear();
        self.apply.conf_states.push_back((index, install.metadata.conf_state.clone()));
        self.store.pending_bytes = 0;
        self.store.framed = index;
        self.store.cut_in_flight = false;
        self.store.written = index;
        self.store.unsynced_bytes = 0;
        self.store.synced = (index, term);
        self.store.reclaim = Reclaim::Due;
        raft.on_snapshot_installed(index);
        self.offer_snapshot(raft, index);
        out.flush.push(FlushJob::Discard(install.file));
        out.notices.push(Notice::SnapshotInstalled { index, term });
        out.notices.push(Notice::Membership(install.metadata.conf_state));
    }

    /// The verdict on a membership entry: raft switches, or is told "none", and hears that it is applied after that.
    fn switch(&mut self, index: Index, verdict: Verdict, raft: &mut Raft, out: &mut Output) {
        let (expected, change) = self.apply.membership.take().expect("a verdict without a change");
        assert_eq!(index, expected, "the verdict is about another entry");
        if self.install.is_some() {
            // raft has its configuration from the snapshot already.
            return;
        }
        let none =
            ConfChangeV2 { changes: vec![ConfChangeSingle::default()], ..ConfChangeV2::default() };
        let accepted = verdict == Verdict::Accepted;
        let change = change.filter(|_| accepted).unwrap_or(none);
        let conf_state = raft
            .apply_conf_change(&change)
            .expect("raft said what it would switch to, and a change of nobody is always possible");
        if accepted {
            let was_member =
                is_member(&self.apply.conf_states.back().expect("never empty").1, self.me);
            let is_now = is_member(&conf_state, self.me);
            self.apply.conf_states.push_back((index, conf_state.clone()));
            out.notices.push(Notice::Membership(conf_state));
            if was_member && !is_now {
                out.notices.push(Notice::Removed);
            }
        }
    }

    fn hand_out_entries(&mut self, raft: &Raft, out: &mut Output) {
        while self.apply.jobs < self.limits.apply_jobs
            && self.apply.membership.is_none()
            && self.install.is_none()
            && self.unflushed_bytes() < self.limits.unflushed_bytes_hard
        {
            let mut entries = Vec::new();
            let mut bytes = 0;
            while let Some(next) = self.apply.committed.front() {
                if next.kind != EntryKind::Normal {
                    break;
                }
                let size = entry_bytes(next);
                if !entries.is_empty() && bytes + size > self.limits.apply_job_bytes as u64 {
                    break;
                }
                bytes += size;
                entries.extend(self.apply.committed.pop_front());
            }
            self.apply.committed_bytes -= bytes;
            if !entries.is_empty() {
                out.apply.push(ApplyJob::Entries(entries));
            } else if let Some(entry) = self.apply.committed.pop_front() {
                self.apply.committed_bytes -= entry_bytes(&entry);
                let change = ConfChangeV2::of_entry(&entry).ok().flatten();
                let conf_state =
                    change.as_ref().and_then(|change| raft.would_switch_to(change).ok());
                self.apply.membership = Some((entry.index, change));
                out.apply.push(ApplyJob::Membership { entry, conf_state });
            } else {
                break;
            }
            self.apply.jobs += 1;
        }
    }

    fn cut_frame(&mut self, out: &mut Output) {
        let store = &mut self.store;
        if store.cut_in_flight
            || self.install.is_some()
            || store.held.len() + store.writing >= self.limits.frames
        {
            return;
        }
        let applied = self.apply.applied.0;
        let due = store.pending_bytes >= self.limits.frame_bytes
            || self.tick >= store.last_cut_tick + self.frame_ticks
            || matches!(self.log.mark, Mark::Wanted(target) if store.framed < target)
            || self.finishing.is_some()
            || store.reclaim == Reclaim::Frame && store.writing == 0 && store.held.is_empty();
        if due && (applied > store.framed || store.has_notes || store.reclaim == Reclaim::Frame) {
            store.cut_in_flight = true;
            store.last_cut_tick = self.tick;
            out.apply.push(ApplyJob::CutFrame);
        }
    }

    /// The rule of rules: a frame goes to the store when the log is durable up to its last entry.
    fn write_frames(&mut self, out: &mut Output) {
        let hasty = mutant::is(Mutant::FrameBeforeLog);
        let durable = if hasty { self.apply.applied.0 } else { self.log.durable };
        while self
            .store
            .held
            .front()
            .is_some_and(|frame| frame.last.is_none_or(|last| last <= durable))
        {
            let frame = self.store.held.pop_front().expect("its front was just seen");
            self.store.held_bytes -= frame.bytes as u64;
            self.store.writing += 1;
            self.store.writing_bytes += frame.bytes as u64;
            out.flush.push(FlushJob::Write(Box::new(frame)));
        }
    }

    fn sync_store(&mut self, out: &mut Output) {
        if self.store.sync_in_flight
            || self.install.is_some()
            || self.store.written <= self.store.synced.0
        {
            return;
        }
        let awaited = matches!(self.log.mark, Mark::Wanted(target) if self.store.written >= target)
            || self.finishing.is_some_and(|(target, _)| self.store.written >= target);
        let log_syncs = self.log.in_flight.iter().any(|append| append.sync);
        if awaited || self.store.unsynced_bytes >= self.limits.store_sync_bytes && !log_syncs {
            self.store.sync_in_flight = true;
            out.flush.push(FlushJob::Sync);
        }
    }

    fn mark_log(&mut self, out: &mut Output) {
        let applied = self.apply.applied.0;
        if self.install.is_some() {
            return;
        }
        if self.log.mark == Mark::Idle
            && applied.0 - self.log.marked.0.min(applied.0) >= self.snapshot_count
        {
            self.log.mark = Mark::Wanted(applied);
        }
        let hasty = mutant::is(Mutant::MarkBeforeStore);
        let (index, term) = if hasty { self.apply.applied } else { self.store.synced };
        if matches!(self.log.mark, Mark::Wanted(target) if index >= target) {
            let hard_state = self.log.hard_state;
            assert!(
                hard_state.commit >= index,
                "a mark at {index} and a commit at {}",
                hard_state.commit
            );
            let conf_state = Some(self.conf_state_at(index));
            self.log.mark = Mark::Writing;
            out.log.push(LogJob::Mark {
                record: SnapshotRecord { index, term, conf_state },
                hard_state,
            });
        }
    }

    /// Only what a synced mark covers is released, and nothing that the receiver of a snapshot will ask for next.
    fn release_log(&mut self, raft: &mut Raft, out: &mut Output) {
        let needed = self.outgoing.values().map(|outgoing| match outgoing {
            Outgoing::Wanted(_) | Outgoing::Pinning(_) => self.store.written,
            Outgoing::Sending(index) | Outgoing::Sent(index, _) => *index,
        });
        // raft may not know yet that so much is durable; it will be asked again.
        let wanted = self.log.release_wanted.min(raft.releasable());
        let up_to = needed.fold(wanted, Index::min);
        if up_to > self.log.released && self.install.is_none() {
            assert!(
                up_to <= self.log.marked,
                "releasing {up_to} above the mark {}",
                self.log.marked
            );
            raft.release(up_to);
            self.log.released = up_to;
            out.log.push(LogJob::Release { up_to });
        }
    }

    fn pin_snapshots(&mut self, out: &mut Output) {
        if self.install.is_some() {
            return;
        }
        for (to, outgoing) in &mut self.outgoing {
            if let Outgoing::Wanted(message) = outgoing {
                let message = std::mem::take(message);
                *outgoing = Outgoing::Pinning(message);
                out.flush.push(FlushJob::Pin { to: *to });
            }
        }
    }

    fn fetch(&mut self, out: &mut Output) {
        while self.fetches_in_flight < self.limits.fetches
            && let Some(fetch) = self.fetches.pop_front()
        {
            self.fetches_in_flight += 1;
            let Fetch { to, low, high, bytes_max } = fetch;
            out.reads.push(ReadJob::Fetch { to, low, high, bytes_max });
        }
    }

    fn hash(&mut self, out: &mut Output) {
        if !self.apply.hash_in_flight
            && let Some(due) = self.apply.hashes.pop_front()
        {
            self.apply.hash_in_flight = true;
            out.reads.push(ReadJob::Hash(due));
        }
    }

    fn reclaim(&mut self, out: &mut Output) {
        if self.store.reclaim == Reclaim::Due && self.install.is_none() && self.finishing.is_none()
        {
            self.store.reclaim = Reclaim::Flush;
            out.flush.push(FlushJob::Reclaim);
        }
    }

    fn look_for_room(&mut self, out: &mut Output) {
        if self.store.retry == Retry::Due && self.install.is_none() {
            self.store.retry = Retry::InFlight;
            out.flush.push(FlushJob::Retry);
        }
    }

    /// Reads a slice of the sealed segments again, when the disk has nothing else to do: everything else comes first.
    fn scrub(&mut self, out: &mut Output) {
        let store = &mut self.store;
        let is_due = self.tick >= store.scrub.from_tick && store.scrub.budget > 0;
        let is_quiet = store.writing == 0
            && !store.sync_in_flight
            && store.reclaim == Reclaim::Idle
            && self.install.is_none()
            && self.finishing.is_none()
            && !self.log.in_flight.iter().any(|append| append.sync);
        if is_due && is_quiet && !store.scrub.in_flight {
            store.scrub.in_flight = true;
            out.flush.push(FlushJob::Scrub { bytes_max: SCRUB_SLICE_BYTES });
        }
    }

    /// What lies below the compaction mark is cleared away in slices, one at a time, while apply has nothing else to do;
    /// otherwise each apply job brings a slice of it along.
    fn prune(&mut self, out: &mut Output) {
        let idle = self.apply.jobs == 0 && self.install.is_none() && self.finishing.is_none();
        if self.apply.prune_due && idle && !self.apply.prune_in_flight {
            self.apply.prune_in_flight = true;
            out.apply.push(ApplyJob::Prune);
        }
    }

    /// The configuration in force behind the entry at `index`.
    fn conf_state_at(&self, index: Index) -> ConfState {
        let at = self.apply.conf_states.iter().rev().find(|(from, _)| *from <= index);
        at.expect("configurations are kept from the last mark on").1.clone()
    }

    fn forget_conf_states_before(&mut self, index: Index) {
        while self.apply.conf_states.get(1).is_some_and(|(from, _)| *from <= index) {
            self.apply.conf_states.pop_front();
        }
    }

    /// Tells raft which snapshot a follower that is too far behind would get.
    fn offer_snapshot(&self, raft: &mut Raft, index: Index) {
        let conf_state = self.conf_state_at(index);
        let term = if index == self.apply.applied.0 {
            Some(self.apply.applied.1)
        } else {
            raft.term_at(index)
        };
        if let Some(term) = term {
            raft.offer_snapshot(Snapshot {
                data: bytes::Bytes::new(),
                metadata: SnapshotMetadata { conf_state, index, term },
            });
        }
    }

    fn trace(&self, out: &mut Output, event: Trace) {
        if self.tracing.tells(&event) && out.trace.len() < self.limits.trace_events {
            out.trace.push(event);
        }
    }

    /// The order of the whole house in four lines.
    fn check(&self, raft: &Raft) {
        let (synced, written) = (self.store.synced.0, self.store.written);
        assert!(
            synced <= written,
            "the store is durable up to {synced} and written up to {written}"
        );
        assert!(
            written <= self.apply.applied.0,
            "frames up to {written} of {}",
            self.apply.applied.0
        );
        assert!(self.apply.applied.0 <= raft.commit(), "applied beyond the commit");
        assert!(self.log.released <= self.log.marked, "released beyond the mark");
    }
}

fn entry_bytes(entry: &Entry) -> u64 {
    // An entry without data takes memory too.
    entry.data.len() as u64 + 64
}

fn is_member(conf_state: &ConfState, id: NodeId) -> bool {
    conf_state.voters.contains(&id)
        || conf_state.learners.contains(&id)
        || conf_state.voters_outgoing.contains(&id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Identity;

    fn pipeline() -> Pipeline {
        let config = Config::new(Identity { node_id: 1, cluster_id: 1 }, "/data");
        let beginning = Beginning {
            applied: (Index(0), Term(0)),
            conf_state: ConfState::default(),
            log_last: Index(0),
            hard_state: HardState::default(),
            marked: Index(0),
        };
        Pipeline::new(&config, beginning)
    }

    fn append(pipeline: &mut Pipeline, term: u64, indexes: std::ops::RangeInclusive<u64>) -> u64 {
        let entry = |index| Entry { term: Term(term), index: Index(index), ..Entry::default() };
        let entries = indexes.map(entry).collect();
        let ready = Ready { entries, must_sync: true, ..Ready::default() };
        let mut out = Output::default();
        pipeline.on_ready(ready, &mut out);
        pipeline.log.next_sequence - 1
    }

    fn report(pipeline: &mut Pipeline, sequence: u64) -> Index {
        let mut raft = Raft::new(raft::Config::default(), raft::Restored::default()).unwrap();
        let report = LogReport { appended: Some(sequence), ..LogReport::default() };
        pipeline.on_log(report, &mut raft, &mut Output::default());
        pipeline.log.durable
    }

    #[test]
    fn what_is_durable_rises_with_reports_in_order() {
        let mut pipeline = pipeline();
        let first = append(&mut pipeline, 1, 1..=3);
        let second = append(&mut pipeline, 1, 4..=5);
        assert_eq!(pipeline.log.durable, Index(0));
        assert_eq!(report(&mut pipeline, first), Index(3));
        assert_eq!(report(&mut pipeline, second), Index(5));
    }

    /// Entries 1 to 5 of term 1 are handed out; then a new leader replaces 4 and 5 with one of term 2; then the report of
    /// the first append comes. Entry 4 of term 2 may be committed, even applied; a frame with it must wait all the same.
    #[test]
    fn a_late_report_does_not_speak_for_what_was_replaced() {
        let mut pipeline = pipeline();
        let first = append(&mut pipeline, 1, 1..=5);
        let second = append(&mut pipeline, 2, 4..=4);
        assert_eq!(report(&mut pipeline, first), Index(3));
        assert_eq!(report(&mut pipeline, second), Index(4));
    }

    #[test]
    fn what_was_durable_falls_when_it_is_replaced() {
        let mut pipeline = pipeline();
        let first = append(&mut pipeline, 1, 1..=5);
        assert_eq!(report(&mut pipeline, first), Index(5));
        append(&mut pipeline, 2, 4..=4);
        assert_eq!(pipeline.log.durable, Index(3));
        let third = append(&mut pipeline, 2, 5..=9);
        assert_eq!(report(&mut pipeline, third), Index(9));
    }

    #[test]
    fn uncommitted_bytes_follow_appends_replacements_and_commits() {
        let mut pipeline = pipeline();
        append(&mut pipeline, 1, 1..=2);
        append(&mut pipeline, 1, 3..=4);
        let four = pipeline.log.uncommitted_bytes;
        append(&mut pipeline, 2, 3..=3);
        assert!(pipeline.log.uncommitted_bytes < four);
        pipeline.on_commit(Index(3));
        assert_eq!(pipeline.log.uncommitted_bytes, 0);
    }
}
