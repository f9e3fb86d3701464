//! The four workers: all that the log, apply, flush and read threads do.
//!
//! A driver's thread is a loop of receive, `run`, send. `run` takes whatever has gathered, in order, and may be
//! given any number of jobs; a failure ends in [`Completion::Failed`], after which the worker does nothing more: what
//! is on disk is unknown then, and nothing may be said to anybody.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use mvcc::Batch;
use raft::{
    ConfChange, ConfChangeKind, ConfState, Entry, EntryKind, HardState, Index, Message, NodeId,
    Term,
};
use state_machine::{ChangeKind, MembershipChange, Payload, RequestId, StateMachine};
use store::{Flusher, Goal, Reclaimed};
use vfs::{Lock, Vfs};
use wal::Wal;

use crate::forgotten;
use crate::job::{
    Append, ApplyDone, ApplyJob, ApplyReport, Completion, CutFrame, Exchanged, Failure, FlushDone,
    FlushJob, FlushReport, LogDone, LogJob, LogReport, ReadDone, ReadJob, ReadReport, Verdict,
};
use crate::output::{Applied, Space, ToShard};
use crate::recovery;
use crate::replica::to_tables;
use crate::snapshot::{Imported, Received, SnapshotStream};
use crate::trace::{Said, Trace, Traces, Tracing};
use crate::view::{Standing, View};
use crate::waiters::{Shard, shard_of};

/// Entries that become visible together, at most.
const PUBLISH_ENTRIES: usize = 256;
/// Keys looked at in one slice of clearing away what lies below the compaction mark.
const PRUNE_KEYS: usize = 1_024;
/// Replies to physical compactions that wait for a hash. One more does not wait: it says that the mark has moved, and
/// the hash follows.
const PHYSICAL_MAX: usize = 1_024;
/// Bytes copied in one slice of reclaim.
const RECLAIM_BYTES: usize = 1 << 20;

/// The log thread's work: append, one sync for all that waits, release what vouches for it.
///
/// [`LogWorker::run`] does both halves of a batch. A driver that wants to see what lies between them, or to die there,
/// calls [`LogWorker::write`] and then [`LogWorker::sync`].
pub struct LogWorker {
    wal: Wal,
    failed: bool,
    tracing: Tracing,
    // Term and vote as last written, for the trace.
    ballot: (Term, NodeId),
    // What is written and waits for the sync.
    written: Option<Result<Half, Failure>>,
}

/// A batch of the log between its two halves.
#[derive(Default)]
struct Half {
    report: LogReport,
    sync: bool,
    messages: Vec<Message>,
    trace: Traces,
}

impl LogWorker {
    pub(crate) fn new(wal: Wal, tracing: Tracing) -> LogWorker {
        let HardState { term, vote, .. } = wal.hard_state();
        LogWorker { wal, failed: false, tracing, ballot: (term, vote), written: None }
    }

    /// Runs the jobs with at most one sync for all that is appended, more only where files are released in between.
    /// The messages are those that may leave now; after a failure there are none.
    pub fn run(&mut self, jobs: Vec<LogJob>) -> LogDone {
        let mut trace = self.write(jobs);
        let mut done = self.sync();
        trace.append(&mut done.trace);
        LogDone { trace, ..done }
    }

    /// The first half: writes what the jobs bring into the file, and says what happened. Nothing of it is durable, and
    /// nothing may be said of it, before [`LogWorker::sync`]; until then no other batch may be begun.
    pub fn write(&mut self, jobs: Vec<LogJob>) -> Traces {
        assert!(self.written.is_none(), "a batch of the log is begun before the last one is done");
        if self.failed || jobs.is_empty() {
            return Traces::new();
        }
        let mut half = Half::default();
        let result = self.write_all(jobs, &mut half);
        let trace = std::mem::take(&mut half.trace);
        self.written = Some(result.map(|()| half).map_err(failure_of_log));
        trace
    }

    /// Whether the second half of the batch under way has something to sync.
    pub fn owes_sync(&self) -> bool {
        matches!(&self.written, Some(Ok(half)) if half.sync)
    }

    /// The second half: one sync, if anybody relies on what was written, and then whatever vouches for it may leave.
    pub fn sync(&mut self) -> LogDone {
        let synced = match self.written.take() {
            None => return LogDone::default(),
            Some(half) => half.and_then(|mut half| {
                if std::mem::take(&mut half.sync) {
                    self.sync_now(&mut half).map_err(failure_of_log)?;
                }
                Ok(half)
            }),
        };
        match synced {
            Ok(Half { report, messages, mut trace, .. }) => {
                if self.tracing.is_on() {
                    let sent = messages
                        .iter()
                        .map(|message| Trace::Sent { to: message.to, message: Said::of(message) });
                    trace.extend(sent.filter(|event| self.tracing.tells(event)));
                }
                LogDone { completion: Some(Completion::Log(report)), messages, trace }
            }
            Err(failure) => {
                self.failed = true;
                let completion = Some(Completion::Failed(failure));
                LogDone { completion, ..LogDone::default() }
            }
        }
    }

    /// Bytes in the log's files, and how many files there are.
    pub fn size(&self) -> (u64, usize) {
        (self.wal.bytes(), self.wal.segments())
    }

    fn write_all(&mut self, jobs: Vec<LogJob>, half: &mut Half) -> Result<(), wal::WriteError> {
        // Appends that follow each other are written as one.
        let mut unwritten = Unwritten::default();
        for job in jobs {
            match job {
                LogJob::Append(append) => {
                    let Append { sequence, snapshot, entries, hard_state, after, .. } = append;
                    if let Some(record) = &snapshot {
                        self.write_out(&mut unwritten, half)?;
                        self.wal.save_snapshot(record)?;
                    }
                    if !unwritten.is_followed_by(&entries) {
                        self.write_out(&mut unwritten, half)?;
                    }
                    unwritten.add(entries, hard_state);
                    // A commit index alone need not be durable; and what vouches for nothing new waits all the same
                    // for the sync of what stands before it.
                    half.sync |= append.sync;
                    half.messages.extend(after);
                    half.report.appended = Some(sequence);
                }
                LogJob::Mark { record, hard_state } => {
                    self.write_out(&mut unwritten, half)?;
                    self.wal.save_snapshot(&record)?;
                    self.wal.append(&[], Some(&hard_state))?;
                    half.sync = true;
                    half.report.marked = Some(record.index);
                }
                LogJob::Release { up_to } => {
                    self.write_out(&mut unwritten, half)?;
                    if std::mem::take(&mut half.sync) {
                        self.sync_now(half)?;
                    }
                    self.wal.release(up_to)?;
                    half.report.released = Some(up_to);
                    self.trace(half, Trace::Released { index: up_to });
                }
            }
        }
        self.write_out(&mut unwritten, half)
    }

    fn write_out(
        &mut self,
        unwritten: &mut Unwritten,
        half: &mut Half,
    ) -> Result<(), wal::WriteError> {
        let range = unwritten.entries.first().zip(unwritten.entries.last());
        if let Some((first, last)) = range.map(|(first, last)| (first.index, last.index)) {
            self.trace(half, Trace::Written { first, last });
        }
        if let Some(HardState { term, vote, .. }) = unwritten.hard_state
            && self.ballot != (term, vote)
        {
            self.ballot = (term, vote);
            self.trace(half, Trace::BallotWritten { term, vote });
        }
        unwritten.write(&mut self.wal)
    }

    fn sync_now(&mut self, half: &mut Half) -> Result<(), wal::WriteError> {
        self.wal.sync()?;
        self.trace(half, Trace::Synced { last: self.wal.last_index() });
        if let Some(index) = half.report.marked {
            self.trace(half, Trace::Marked { index });
        }
        Ok(())
    }

    fn trace(&self, half: &mut Half, event: Trace) {
        if self.tracing.tells(&event) {
            half.trace.push(event);
        }
    }
}

fn failure_of_log(error: wal::WriteError) -> Failure {
    Failure { what: error.doing, error: error.error.to_string() }
}

/// Entries without a gap, and the state behind them, that are not in the log's file yet.
#[derive(Default)]
struct Unwritten {
    entries: Vec<Entry>,
    hard_state: Option<HardState>,
}

impl Unwritten {
    /// Whether `entries` stand right behind these; if not they replace something, and these come first.
    fn is_followed_by(&self, entries: &[Entry]) -> bool {
        match (self.entries.last(), entries.first()) {
            (Some(last), Some(next)) => next.index == last.index.next(),
            _ => true,
        }
    }

    /// Of two states the later one counts, as it would in the file.
    fn add(&mut self, mut entries: Vec<Entry>, hard_state: Option<HardState>) {
        match self.entries.is_empty() {
            true => self.entries = entries,
            false => self.entries.append(&mut entries),
        }
        self.hard_state = hard_state.or(self.hard_state);
    }

    fn write(&mut self, wal: &mut Wal) -> Result<(), wal::WriteError> {
        let Unwritten { entries, hard_state } = std::mem::take(self);
        if entries.is_empty() && hard_state.is_none() {
            return Ok(());
        }
        wal.append(&entries, hard_state.as_ref())
    }
}

/// The apply thread's work: commands into the state, then publish, events, replies.
pub struct ApplyWorker {
    machine: StateMachine,
    standing: Arc<Standing>,
    member: NodeId,
    failed: bool,
    // Something may lie below the compaction mark.
    prune_due: bool,
    // The newest compaction whose hash was due, and the newest up to which none is any more.
    hash_due: i64,
    hashed: i64,
    // Replies to physical compactions, each behind the compaction whose hash it waits for, ascending.
    physical: VecDeque<(i64, Answered)>,
    tracing: Tracing,
    unpublished: Vec<Unpublished>,
}

/// A reply that waits until its entry is published.
struct Unpublished {
    id: RequestId,
    place: (Index, Term),
    result: Result<state_machine::Reply, state_machine::Error>,
    /// A physical compaction's: the hash that it waits for.
    hash: Option<i64>,
}

/// A reply to one of this member's own clients.
struct Answered {
    shard: Shard,
    applied: Applied,
}

/// What one run gathers for the shards.
#[derive(Default)]
struct Gathered {
    batches: Vec<Arc<Batch>>,
    replies: BTreeMap<Shard, Vec<Applied>>,
    published: bool,
    exchanged: bool,
    trace: Traces,
}

impl Gathered {
    fn answer(&mut self, answered: Answered, tracing: Tracing) {
        let Answered { shard, applied } = answered;
        let event = Trace::Answered { id: applied.id, index: applied.index };
        if tracing.tells(&event) {
            self.trace.push(event);
        }
        self.replies.entry(shard).or_default().push(applied);
    }
}

impl ApplyWorker {
    pub(crate) fn new(
        machine: StateMachine,
        standing: Arc<Standing>,
        tracing: Tracing,
    ) -> ApplyWorker {
        let member = standing.identity.node_id;
        ApplyWorker {
            machine,
            standing,
            member,
            failed: false,
            prune_due: true,
            hash_due: -1,
            hashed: -1,
            physical: VecDeque::new(),
            tracing,
            unpublished: Vec::new(),
        }
    }

    /// Runs the jobs: publishes what they changed, and returns the events and replies that follow from it.
    pub fn run(&mut self, jobs: Vec<ApplyJob>) -> ApplyDone {
        if self.failed || jobs.is_empty() {
            return ApplyDone::default();
        }
        let mut report = ApplyReport::default();
        let mut gathered = Gathered::default();
        for job in jobs {
            if let Err(failure) = self.run_one(job, &mut report, &mut gathered) {
                self.failed = true;
                let completion = Some(Completion::Failed(failure));
                return ApplyDone { completion, ..ApplyDone::default() };
            }
        }
        if self.prune_due {
            self.prune_due = self.machine.keyspace().prune(PRUNE_KEYS);
        }
        report.prune_due = self.prune_due;
        report.pending_bytes = self.machine.keyspace().builder().pending_bytes();
        report.has_notes = self.machine.keyspace().builder().has_notes();
        ApplyDone {
            completion: Some(Completion::Apply(Box::new(report))),
            trace: std::mem::take(&mut gathered.trace),
            shards: self.to_shards(gathered),
        }
    }

    fn run_one(
        &mut self,
        job: ApplyJob,
        report: &mut ApplyReport,
        gathered: &mut Gathered,
    ) -> Result<(), Failure> {
        match job {
            ApplyJob::Entries(entries) => {
                report.entry_jobs += 1;
                for slice in entries.chunks(PUBLISH_ENTRIES) {
                    for entry in slice {
                        self.apply(entry, None, report)?;
                    }
                    self.publish(gathered);
                }
            }
            ApplyJob::Membership { entry, conf_state } => {
                report.entry_jobs += 1;
                self.apply(&entry, conf_state, report)?;
                self.publish(gathered);
            }
            ApplyJob::CutFrame => {
                report.cuts += 1;
                if let Some(frame) = self.machine.keyspace().take_frame() {
                    let last = frame.applied().map(|(index, _)| Index(index));
                    report.frames.push(CutFrame { last, bytes: frame.bytes(), frame });
                }
            }
            ApplyJob::FrameWritten(index) => {
                self.machine.keyspace().frame_written(index.0);
                // A compaction in it counts from now on.
                self.prune_due = true;
            }
            ApplyJob::Prune => self.prune_due = true,
            ApplyJob::Hashed { revision } => {
                // What it was computed from may go.
                self.prune_due = true;
                self.hashed = self.hashed.max(revision);
                self.answer_physical(gathered);
            }
            ApplyJob::Exchange(imported) => {
                let Imported { index, term, keyspace, rows } = *imported;
                let batch =
                    self.machine.replace(keyspace, &rows, (index.0, term.0)).map_err(|error| {
                        Failure {
                            what: "a received snapshot could not be put into force".to_owned(),
                            error: error.to_string(),
                        }
                    })?;
                self.standing.set_applied(index);
                gathered.batches.clear();
                gathered.batches.push(batch);
                gathered.exchanged = true;
                gathered.published = true;
                self.prune_due = true;
                // The snapshot took the pins away: what was due will not be known.
                self.hashed = self.hash_due;
                self.answer_physical(gathered);
                if self.tracing.is_on() {
                    gathered.trace.push(Trace::SnapshotInstalled { index });
                }
                let leases = self.machine.view().leases();
                report.leases.clear();
                report.exchanged = Some(Exchanged { index, term, leases });
            }
            ApplyJob::Reclaimed(reclaimed) => {
                report.reclaimed += 1;
                let keyspace = self.machine.keyspace();
                match reclaimed {
                    Reclaimed::Roll => keyspace.builder().roll(),
                    Reclaimed::Relocate(batch) => keyspace.relocate(&batch),
                    Reclaimed::Gone(gone) => keyspace.gone(&gone),
                    Reclaimed::Idle | Reclaimed::Copied { .. } | Reclaimed::Swapped { .. } => {}
                }
            }
        }
        Ok(())
    }

    fn apply(
        &mut self,
        entry: &Entry,
        conf_state: Option<ConfState>,
        report: &mut ApplyReport,
    ) -> Result<(), Failure> {
        let (index, term) = (entry.index.0, entry.term.0);
        let change = match entry.kind {
            EntryKind::Normal => None,
            EntryKind::ConfChange => membership_change(&entry.data),
            // etcd's members never write one, and stop when they meet one.
            EntryKind::ConfChangeV2 => None,
        };
        let (payload, id) = match (entry.kind, &change, conf_state) {
            (EntryKind::Normal, ..) => {
                (Payload::Normal(&entry.data), state_machine::Command::id_of(&entry.data))
            }
            (_, Some(change), Some(conf_state)) => {
                (Payload::Membership { change, conf_state: to_tables(conf_state) }, change.id)
            }
            _ => (Payload::Unreadable, RequestId(0)),
        };
        let want_reply = shard_of(id, self.member).is_some();
        let outcome =
            self.machine.apply(index, term, payload, want_reply).map_err(|error| Failure {
                what: format!("entry {index} could not be applied"),
                error: error.to_string(),
            })?;
        report.applied = Some((entry.index, entry.term));
        report.leases.extend(outcome.leases);
        if let Some(due) = outcome.hash {
            self.hash_due = due.revision();
            report.hashes.push(due);
        }
        if entry.kind != EntryKind::Normal {
            let accepted = outcome.membership == Some(state_machine::Verdict::Accepted);
            report.verdict = Some(if accepted { Verdict::Accepted } else { Verdict::Refused });
        }
        if let Some((id, result)) = outcome.reply {
            let place = (entry.index, entry.term);
            let hash = outcome.is_physical.then_some(self.hash_due);
            self.unpublished.push(Unpublished { id, place, result, hash });
        }
        Ok(())
    }

    /// State first, applied index second; only what is visible is told to anybody.
    fn publish(&mut self, gathered: &mut Gathered) {
        if let Some(batch) = self.machine.publish() {
            self.prune_due |= batch.compact_revision > 0;
            gathered.batches.push(batch);
        }
        let (index, _) = self.machine.applied();
        self.standing.set_applied(Index(index));
        gathered.published = true;
        if self.tracing.is_on() {
            gathered.trace.push(Trace::Applied { index: Index(index) });
        }
        let revision = self.machine.keyspace().revision();
        for Unpublished { id, place: (index, term), result, hash } in self.unpublished.drain(..) {
            if let Some(shard) = shard_of(id, self.member) {
                let applied = Applied { id, index, term, revision, result };
                let answered = Answered { shard, applied };
                match hash {
                    Some(due) if due > self.hashed && self.physical.len() < PHYSICAL_MAX => {
                        self.physical.push_back((due, answered));
                    }
                    _ => gathered.answer(answered, self.tracing),
                }
            }
        }
    }

    /// Lets go the replies that wait for no hash any more.
    fn answer_physical(&mut self, gathered: &mut Gathered) {
        let hashed = self.hashed;
        while let Some((_, answered)) = self.physical.pop_front_if(|(due, _)| *due <= hashed) {
            gathered.published = true;
            gathered.answer(answered, self.tracing);
        }
    }

    /// Looks at the flags after everything is published: a shard whose flag is not up yet finds what it needs in
    /// the published state when it has raised it.
    fn to_shards(&self, gathered: Gathered) -> Vec<ToShard> {
        let Gathered { batches, mut replies, published, exchanged, .. } = gathered;
        if !published {
            return Vec::new();
        }
        let (watching, waiting) = self.standing.flags();
        let applied = Index(self.machine.applied().0);
        let mut shards = Vec::new();
        for number in 0..self.standing.shards {
            let shard = Shard(number);
            let bit = 1u64 << number;
            let batches = if watching & bit != 0 { batches.clone() } else { Vec::new() };
            let replies = replies.remove(&shard).unwrap_or_default();
            let exchanged = exchanged && watching & bit != 0;
            if !batches.is_empty() || !replies.is_empty() || exchanged || waiting & bit != 0 {
                shards.push(ToShard { shard, applied, batches, replies, exchanged });
            }
        }
        shards
    }
}

/// The change that an entry of kind `ConfChange` carries, in the state machine's words.
fn membership_change(data: &[u8]) -> Option<MembershipChange> {
    let change = ConfChange::decode(data).ok()?;
    let kind = match change.kind {
        ConfChangeKind::AddNode => ChangeKind::AddNode,
        ConfChangeKind::RemoveNode => ChangeKind::RemoveNode,
        ConfChangeKind::UpdateNode => ChangeKind::UpdateNode,
        ConfChangeKind::AddLearnerNode => ChangeKind::AddLearnerNode,
    };
    Some(MembershipChange {
        id: RequestId(change.id),
        kind,
        node_id: change.node_id,
        context: change.context,
    })
}

/// The flush thread's work: frames to disk, syncs, seals, imports, reclaim.
pub struct FlushWorker {
    vfs: Arc<dyn Vfs>,
    store_dir: PathBuf,
    options: recovery::StoreOptions,
    // None only in the middle of an import.
    flusher: Option<Flusher>,
    // Says what lives, for reclaim; goes on to see the new state after an exchange.
    reader: mvcc::Reader,
    standing: Arc<Standing>,
    // Frames that found the disk full, in order.
    stalled: VecDeque<CutFrame>,
    // As last reported.
    space: Space,
    // What was last said to be damaged.
    damage: String,
    written: Option<(Index, Term)>,
    failed: bool,
    tracing: Tracing,
    // The data directory's; let go when the member is.
    _lock: Box<dyn Lock>,
}

impl FlushWorker {
    pub(crate) fn new(
        vfs: Arc<dyn Vfs>,
        store_dir: PathBuf,
        options: recovery::StoreOptions,
        flusher: Flusher,
        reader: mvcc::Reader,
        standing: Arc<Standing>,
        lock: Box<dyn Lock>,
    ) -> FlushWorker {
        let worker = FlushWorker {
            vfs,
            store_dir,
            options,
            flusher: Some(flusher),
            reader,
            standing,
            stalled: VecDeque::new(),
            space: Space::Plenty,
            damage: String::new(),
            written: None,
            failed: false,
            tracing: Tracing::Off,
            _lock: lock,
        };
        worker.publish_sizes();
        worker
    }

    /// The same, telling what happens, or not.
    pub(crate) fn tracing(self, tracing: Tracing) -> FlushWorker {
        FlushWorker { tracing, ..self }
    }

    /// Runs the jobs.
    pub fn run(&mut self, jobs: Vec<FlushJob>) -> FlushDone {
        if self.failed || jobs.is_empty() {
            return FlushDone::default();
        }
        let mut reports = Vec::new();
        for job in jobs {
            if let Err(failure) = self.run_one(job, &mut reports) {
                self.failed = true;
                let completion = Some(Completion::Failed(failure));
                return FlushDone { completion, ..FlushDone::default() };
            }
        }
        self.publish_sizes();
        if self.space() != self.space {
            self.report_space(&mut reports);
        }
        let trace = match self.tracing.is_on() {
            true => reports.iter().filter_map(trace_of).collect(),
            false => Traces::new(),
        };
        FlushDone { completion: Some(Completion::Flush(reports)), trace }
    }

    fn run_one(&mut self, job: FlushJob, reports: &mut Vec<FlushReport>) -> Result<(), Failure> {
        match job {
            FlushJob::Write(frame) => {
                let mut frame = *frame;
                if !self.stalled.is_empty() {
                    self.flusher()?.note(&mut frame.frame);
                }
                self.stalled.push_back(frame);
                self.write_stalled(reports)?;
            }
            FlushJob::Sync => {
                let flusher = self.flusher()?;
                let synced = flusher
                    .sync()
                    .map_err(|error| failure("the store could not be synced", &error))?;
                reports.push(FlushReport::Synced {
                    index: Index(synced.index),
                    term: Term(synced.term),
                    by_job: true,
                });
            }
            FlushJob::Pin { to } => {
                let reader = self.reader.clone();
                reports.push(match self.flusher()?.snapshot() {
                    Ok(snapshot) => FlushReport::Pinned {
                        to,
                        stream: Box::new(SnapshotStream::new(snapshot, reader)),
                    },
                    // The follower stays behind; whoever reads what cannot be read will say so.
                    Err(_) => FlushReport::NotPinned { to },
                });
            }
            FlushJob::Import(file) => {
                // What found the disk full belongs to the state that goes away.
                self.stalled.clear();
                let imported = self.import(&file)?;
                reports.push(FlushReport::Imported(Box::new(imported)));
            }
            FlushJob::Discard(file) => {
                let what = "a received snapshot could not be deleted";
                self.vfs.unlink(&file.path).map_err(|error| failure(what, &error))?;
            }
            FlushJob::NoteForgotten(term) => {
                let member = self.store_dir.parent().expect("it lies in the member's directory");
                forgotten::write(&*self.vfs, member, term)
                    .map_err(|error| failure("what was forgotten could not be noted", &error))?;
            }
            FlushJob::Reclaim => {
                let goal = match self.space() {
                    Space::Plenty => Goal::Bounded,
                    Space::Short | Space::Full => Goal::Everything,
                };
                let reader = self.reader.clone();
                let mut is_live = |key: &[u8], revision| reader.is_live(key, revision);
                let reclaimed = match self.flusher()?.reclaim(goal, RECLAIM_BYTES, &mut is_live) {
                    Ok(reclaimed) => reclaimed,
                    Err(store::ReclaimError::Full) => Reclaimed::Idle,
                    Err(store::ReclaimError::Source(error)) => {
                        self.report_damage(
                            format!(
                                "space could not be reclaimed from a segment of the store: {error}"
                            ),
                            reports,
                        );
                        Reclaimed::Idle
                    }
                    Err(error) => return Err(failure("space could not be reclaimed", &error)),
                };
                if matches!(reclaimed, Reclaimed::Idle) && !self.stalled.is_empty() {
                    let lent = self.flusher()?.lend_spare();
                    lent.map_err(|error| failure("the spare could not be lent", &error))?;
                }
                reports.push(FlushReport::Reclaimed(reclaimed));
                self.write_stalled(reports)?;
            }
            FlushJob::Scrub { bytes_max } => {
                let store::Scrubbed { bytes, damage, round_ended } =
                    self.flusher()?.scrub(bytes_max);
                for damage in damage {
                    self.report_damage(format!("the store has rotted in {damage}"), reports);
                }
                reports.push(FlushReport::Scrubbed { bytes, round_ended });
            }
            FlushJob::Retry => {
                self.write_stalled(reports)?;
                let set = self.flusher()?.set_aside();
                set.map_err(|error| failure("no segment could be set aside", &error))?;
                self.report_space(reports);
            }
        }
        Ok(())
    }

    /// Writes what waits, in order, until the disk is full.
    fn write_stalled(&mut self, reports: &mut Vec<FlushReport>) -> Result<(), Failure> {
        while let Some(mut frame) = self.stalled.pop_front() {
            match self.flusher()?.write(&frame.frame) {
                Ok(written) => {
                    // A seal comes before the frame, so what it made durable was written before.
                    if let Some(synced) = written.sealed {
                        let (index, term) = (Index(synced.index), Term(synced.term));
                        reports.push(FlushReport::Synced { index, term, by_job: false });
                    }
                    self.written =
                        frame.frame.applied().map(|(i, t)| (Index(i), Term(t))).or(self.written);
                    reports.push(FlushReport::Written { last: frame.last, bytes: frame.bytes });
                }
                Err(store::WriteError::Full) => {
                    self.flusher()?.note(&mut frame.frame);
                    self.stalled.push_front(frame);
                    return Ok(());
                }
                Err(error) => return Err(failure("a frame could not be written", &error)),
            }
        }
        Ok(())
    }

    fn import(&mut self, file: &Received) -> Result<Imported, Failure> {
        let what = "a received snapshot could not be imported";
        let flusher = self.flusher.take().ok_or_else(|| closed(what))?;
        recovery::import(&*self.vfs, flusher, file).map_err(|error| failure(what, &error))?;
        let opened = recovery::open_store(self.vfs.clone(), &self.store_dir, &self.options)
            .map_err(|error| failure(what, &error))?;
        let (index, term) = (Index(opened.applied.0), Term(opened.applied.1));
        if (index, term) != (file.index, file.term) {
            return Err(closed(what));
        }
        self.flusher = Some(opened.flusher);
        self.written = Some((index, term));
        Ok(Imported { index, term, keyspace: opened.keyspace, rows: opened.rows })
    }

    fn space(&self) -> Space {
        match &self.flusher {
            _ if !self.stalled.is_empty() => Space::Full,
            Some(flusher) if flusher.is_short() => Space::Short,
            _ => Space::Plenty,
        }
    }

    fn report_space(&mut self, reports: &mut Vec<FlushReport>) {
        self.space = self.space();
        reports.push(FlushReport::Space(self.space));
    }

    /// Whatever cannot be read is met again with every attempt, and said once.
    fn report_damage(&mut self, what: String, reports: &mut Vec<FlushReport>) {
        if self.damage != what {
            self.damage.clone_from(&what);
            reports.push(FlushReport::Damage(what));
        }
    }

    fn flusher(&mut self) -> Result<&mut Flusher, Failure> {
        self.flusher.as_mut().ok_or_else(|| closed("the store is used"))
    }

    fn publish_sizes(&self) {
        if let Some(flusher) = &self.flusher {
            let sizes = flusher.sizes();
            self.standing.set_sizes(sizes.db_size, sizes.db_size_in_use);
        }
    }
}

/// What a report of the store says to the trace.
fn trace_of(report: &FlushReport) -> Option<Trace> {
    match report {
        FlushReport::Written { last, .. } => last.map(|index| Trace::FrameWritten { index }),
        FlushReport::Synced { index, .. } => Some(Trace::StoreSynced { index: *index }),
        FlushReport::Pinned { to, stream } => {
            Some(Trace::SnapshotPinned { to: *to, index: stream.place().0 })
        }
        FlushReport::Imported(imported) => Some(Trace::SnapshotImported { index: imported.index }),
        FlushReport::NotPinned { .. }
        | FlushReport::Reclaimed(_)
        | FlushReport::Space(_)
        | FlushReport::Scrubbed { .. }
        | FlushReport::Damage(_) => None,
    }
}

/// A read thread's work; clone one per thread. A driver's own reads (long ranges, HashKV, cold values) go through
/// [`ReadWorker::view`] on the same threads.
#[derive(Clone)]
pub struct ReadWorker {
    log: wal::Reader,
    view: View,
}

impl ReadWorker {
    pub(crate) fn new(log: wal::Reader, view: View) -> ReadWorker {
        ReadWorker { log, view }
    }

    /// Runs the jobs.
    pub fn run(&mut self, jobs: Vec<ReadJob>) -> ReadDone {
        if jobs.is_empty() {
            return ReadDone::default();
        }
        let mut reports = Vec::new();
        for job in jobs {
            match job {
                ReadJob::Fetch { to, low, high, bytes_max } => {
                    let entries = match self.log.read(low, high, bytes_max) {
                        Ok(entries) => entries,
                        // raft has dropped them too by now, and will send a snapshot.
                        Err(wal::ReadError::Released | wal::ReadError::Unavailable) => Vec::new(),
                        Err(error) => {
                            let failure =
                                failure("the log could not be read", &format!("{error:?}"));
                            return ReadDone { completion: Some(Completion::Failed(failure)) };
                        }
                    };
                    reports.push(ReadReport::Fetched { to, low, entries });
                }
                ReadJob::Hash(due) => {
                    let revision = due.revision();
                    // Without a pin it will not be known; nobody relies on it.
                    self.view.state.reader().remember(due);
                    reports.push(ReadReport::Hashed { revision });
                }
            }
        }
        ReadDone { completion: Some(Completion::Read(reports)) }
    }

    /// This thread's look at the member.
    pub fn view(&self) -> &View {
        &self.view
    }
}

fn failure(what: &str, error: &dyn fmt::Display) -> Failure {
    Failure { what: what.to_owned(), error: error.to_string() }
}

fn closed(what: &str) -> Failure {
    failure(what, &"the store is not what it should be after an import")
}
