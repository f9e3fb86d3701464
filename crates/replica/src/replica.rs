//! One member's mind: inputs in, one output per turn out.
//!
//! It joins what the other files keep apart: raft agrees, `proposal` admits, `read` gathers, `lease_clock` counts,
//! `pipeline` orders. This file holds the turn itself, what a change of leader means to all of them, and the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use raft::{
    ConfState, Index, Message, MessageKind, NONE, NodeId, Raft, Ready, RoleKind, SoftState,
    StepError, Term,
};
use state_machine::{Caller, Command, Request, RequestId};

use crate::config::Config;
use crate::input::{Asker, Input, Lane, Proposal};
use crate::job::{Completion, Failure, FlushJob};
use crate::lease_clock::LeaseClock;
use crate::output::{Answer, LeaseAnswer, LeaseRefusal, Notice, Output, Refusal};
use crate::pipeline::Pipeline;
use crate::proposal::Proposing;
use crate::read::{RETRY_MS, Reader, Reads};
use crate::trace::{Said, Trace};
use crate::view::Standing;
use crate::waiters::{Names, OWN, Shard};

/// A pin whose reader takes nothing for so long is revoked.
const PIN_IDLE_MS: u64 = 60_000;

/// One member, without threads.
///
/// Inputs are [`Replica::handle`], called any number of times; then [`Replica::output`] takes what the turn has
/// decided. [`Replica::takes_proposals`] says whether the driver may take from its inbox of proposals.
pub struct Replica {
    config: Config,
    me: NodeId,
    raft: Raft,
    pipeline: Pipeline,
    proposing: Proposing,
    reads: Reads,
    clock: LeaseClock,
    // The clock has asked a quorum and nobody has answered yet.
    clock_asks: bool,
    names: Names,
    standing: Arc<Standing>,
    // For the pins of readers that take nothing any more.
    state: state_machine::View,
    pin_idle_ticks: u64,
    tick: u64,
    soft: SoftState,
    said: (NodeId, Term),
    told: Told,
    forgotten_said: bool,
    ready: Readiness,
    transfer: Option<Transfer>,
    end: End,
    out: Output,
    answers: BTreeMap<Shard, Vec<Answer>>,
}

/// raft's standing as the trace last told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    role: RoleKind,
    leader: NodeId,
    term: Term,
    commit: Index,
}

/// Whether the member has caught up since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    /// No leader is known yet.
    Waiting,
    /// A leader is known; this must be applied first.
    CatchingUp(Index),
    /// It was said.
    Said,
}

/// A leadership transfer that somebody waits for.
#[derive(Debug)]
struct Transfer {
    asker: Asker,
    to: NodeId,
    until_tick: u64,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It serves.
    Not,
    /// Leadership is being handed over, until this tick at most.
    HandingOver(u64),
    /// What is applied is being made durable.
    Finishing,
    /// It was said, or the member failed; nothing more is done.
    Over,
}

impl Replica {
    pub(crate) fn new(
        config: Config,
        raft: Raft,
        pipeline: Pipeline,
        state: state_machine::View,
        standing: Arc<Standing>,
    ) -> Replica {
        let me = config.identity.node_id;
        let limits = &config.limits;
        let clock = LeaseClock::new(
            config.tick_ms,
            config.election_ticks,
            limits.lease_revokes_per_second,
            limits.lease_waits,
            state.leases(),
        );
        let read_names = Names::new(me, OWN, config.start_ms);
        let reads = Reads::new(
            read_names,
            config.ticks(RETRY_MS),
            config.request_timeout_ticks(),
            limits.read_rounds,
        );
        // It may have ended between applying its removal and its end; nobody else will tell it.
        let removed = state.cluster().removed.contains(&me);
        standing.set_learner(raft.conf_state().learners.contains(&me));
        standing.set_leader(NONE, raft.term());
        standing.set_committed(raft.commit());
        Replica {
            me,
            proposing: Proposing::new(&config),
            reads,
            clock,
            clock_asks: false,
            // Proposals of its own and read contexts are two kinds of names, and need not differ.
            names: Names::new(me, OWN, config.start_ms),
            standing,
            state,
            pin_idle_ticks: config.ticks(PIN_IDLE_MS),
            tick: 0,
            soft: SoftState { leader: NONE, role: RoleKind::Follower },
            said: (NONE, raft.term()),
            told: Told {
                role: RoleKind::Follower,
                leader: NONE,
                term: raft.term(),
                commit: raft.commit(),
            },
            forgotten_said: false,
            ready: Readiness::Waiting,
            transfer: None,
            end: End::Not,
            out: Output {
                notices: removed.then_some(Notice::Removed).into_iter().collect(),
                ..Output::default()
            },
            answers: BTreeMap::new(),
            config,
            raft,
            pipeline,
        }
    }

    /// Takes one input in. Nothing leaves before [`Replica::output`].
    pub fn handle(&mut self, input: Input) {
        if self.end == End::Over {
            return;
        }
        match input {
            Input::Tick { elapsed } => self.on_tick(elapsed.max(1)),
            Input::Propose(proposals) => {
                let lag = self.raft.commit().0.saturating_sub(self.standing.applied().0);
                for proposal in proposals.list {
                    let id = proposal.id;
                    let bytes = u32::try_from(proposal.data.len()).unwrap_or(u32::MAX);
                    self.trace(Trace::Proposed { id, bytes });
                    if let Err(why) = self.proposing.admit(proposal, lag, self.tick) {
                        self.answer(proposals.shard, Answer::Refused { id, why });
                    }
                }
            }
            Input::ReadIndex(batch) if self.end != End::Not => {
                let answer = Answer::Read { batch: batch.batch, result: Err(Refusal::Stopped) };
                self.answer(batch.shard, answer);
            }
            Input::ReadIndex(batch) => self.reads.ask(Reader::Shard(batch), self.tick),
            Input::Lease(ask) => {
                let answer = if self.end == End::Not {
                    self.clock.ask(ask, self.me, self.raft.leader(), self.raft.commit())
                } else {
                    let result = Err(LeaseRefusal::Stopped);
                    Some(LeaseAnswer { asker: ask.asker, lease: ask.lease, result })
                };
                self.lease_answers(answer);
            }
            Input::Messages(messages) => {
                messages.into_iter().for_each(|message| self.step(message))
            }
            Input::Unreachable(id) => self.raft.report_unreachable(id),
            Input::SnapshotReceived { message, file } => {
                self.pipeline.offer(file);
                self.step_checked(*message);
                self.drain();
                self.pipeline.end_offer(&mut self.out);
            }
            Input::SnapshotSent { to, ok } => {
                self.pipeline.on_snapshot_sent(to, ok, &mut self.raft)
            }
            Input::Done(completion) => self.on_done(completion),
            Input::TransferLeader { asker, to } => self.transfer_leader(asker, to),
            Input::Stop => self.stop(),
        }
    }

    /// Ends the turn: what must happen now. Call it after each batch of inputs, and once right after the start.
    pub fn output(&mut self) -> Output {
        if self.end != End::Over {
            self.expire_leases();
            let refused = self.proposing.end_turn(&mut self.raft, self.tick);
            self.refuse(refused);
            for context in self.reads.end_turn(self.tick) {
                self.raft.read_index(context);
            }
            self.campaign_alone();
            self.drain();
            self.pipeline.advance(&mut self.raft, &mut self.out);
            // Releasing and evicting say nothing, but what was handed out may have been the last that was waited for.
            self.drain();
            self.run_clock();
            self.publish();
            self.go_on_ending();
        }
        let mut out = std::mem::take(&mut self.out);
        out.answers = std::mem::take(&mut self.answers).into_iter().collect();
        out
    }

    /// Whether proposals are taken. While they are not, the driver leaves them in their inbox, which fills, and
    /// shards that meet it full stop reading the connections that propose.
    pub fn takes_proposals(&self) -> bool {
        let is_full = self.proposing.is_full()
            || self.pipeline.is_full()
            || self.pipeline.is_stuck(&self.raft);
        self.end != End::Not || !is_full
    }

    /// raft's standing: role, term, indexes, every peer's progress.
    pub fn status(&self) -> raft::Status {
        self.raft.status()
    }

    fn on_tick(&mut self, elapsed: u32) {
        self.tick += u64::from(elapsed);
        self.raft.tick();
        self.pipeline.tick(elapsed);
        self.state.reader().tick_pins(self.pin_idle_ticks);
        let begins_to_doubt = self.clock.tick(elapsed);
        if begins_to_doubt || self.clock.doubts() && !self.clock_asks {
            self.reads.ask(Reader::Clock, self.tick);
            self.clock_asks = true;
        }
        for reader in self.reads.expired(self.tick) {
            self.refuse_reader(reader, Refusal::TimedOut);
        }
        if self.transfer.as_ref().is_some_and(|transfer| transfer.until_tick <= self.tick) {
            self.end_transfer(Err(Refusal::TimedOut));
        }
    }

    /// A message of another member. Those that only come with a file are not for this door; and those that bring entries
    /// are lost here when memory cannot hold more.
    fn step(&mut self, message: Message) {
        let passes = match message.kind {
            MessageKind::Snap => false,
            MessageKind::App | MessageKind::Prop => {
                message.entries.is_empty() || !self.pipeline.is_stuck(&self.raft)
            }
            _ => true,
        };
        if passes {
            self.step_checked(message);
        }
    }

    fn step_checked(&mut self, message: Message) {
        if message.to != self.me || message.from == self.me {
            return;
        }
        let from = message.from;
        self.trace(Trace::Received { from, message: Said::of(&message) });
        let before = self.known_match(from);
        match self.raft.step(message) {
            Err(StepError::Forgotten { acknowledged, last }) if !self.forgotten_said => {
                self.forgotten_said = true;
                self.out.flush.push(FlushJob::NoteForgotten(self.raft.status().term));
                self.out.notices.push(Notice::Forgotten { acknowledged, last });
            }
            // What raft does not take is dropped, like a message that was lost: its sender tries again, or it is
            // nobody we know. A forwarded proposal's owner has a deadline.
            Ok(()) | Err(_) => {}
        }
        self.trace_match(from, before);
    }

    fn on_done(&mut self, completion: Completion) {
        match completion {
            Completion::Log(report) => {
                let before = self.known_match(self.me);
                self.pipeline.on_log(report, &mut self.raft, &mut self.out);
                self.trace_match(self.me, before);
            }
            Completion::Apply(report) => {
                let applied = self.pipeline.on_apply(*report, &mut self.raft, &mut self.out);
                applied.leases.iter().for_each(|change| self.clock.on_change(change));
                if let Some(leases) = applied.restored_leases {
                    self.clock.restore(leases);
                }
            }
            Completion::Flush(reports) => {
                reports.into_iter().for_each(|report| {
                    self.pipeline.on_flush(report, &mut self.raft, &mut self.out)
                });
            }
            Completion::Read(reports) => {
                reports.into_iter().for_each(|report| {
                    self.pipeline.on_read(report, &mut self.raft, &mut self.out)
                });
            }
            Completion::Failed(failure) => self.fail(failure),
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.standing.set_lone(false);
        self.out = Output::default();
        self.out.notices.push(Notice::Fatal(failure));
        self.end = End::Over;
    }

    /// Takes everything that raft wants done.
    fn drain(&mut self) {
        while self.raft.has_ready() {
            let ready = self.raft.ready();
            self.on_ready(ready);
        }
        self.pipeline.on_commit(self.raft.commit());
    }

    fn on_ready(&mut self, ready: Ready) {
        self.trace_standing();
        if let Some(soft) = ready.soft_state {
            self.on_soft_state(soft);
        }
        for state in &ready.read_states {
            for (reader, index) in self.reads.confirmed(state) {
                match reader {
                    Reader::Shard(batch) => {
                        self.trace(Trace::ReadConfirmed { index });
                        self.answer(
                            batch.shard,
                            Answer::Read { batch: batch.batch, result: Ok(index) },
                        );
                    }
                    Reader::Clock => {
                        self.clock_asks = false;
                        self.clock.confirm();
                    }
                }
            }
        }
        self.pipeline.on_ready(ready, &mut self.out);
    }

    fn on_soft_state(&mut self, soft: SoftState) {
        let new_leader = soft.leader != NONE && soft.leader != self.soft.leader;
        if soft.role != RoleKind::Leader {
            self.stop_clock();
        }
        self.soft = soft;
        if new_leader {
            for reader in self.reads.refuse_all() {
                self.refuse_reader(reader, Refusal::LeaderChanged);
            }
            if self.ready == Readiness::Waiting {
                self.ready = Readiness::CatchingUp(self.raft.commit());
            }
        }
        if let Some(transfer) = &self.transfer
            && soft.leader != self.me
            && soft.leader != NONE
        {
            let result =
                if soft.leader == transfer.to { Ok(()) } else { Err(Refusal::LeaderChanged) };
            self.end_transfer(result);
        }
    }

    /// A lone voter has nobody to wait for.
    fn campaign_alone(&mut self) {
        if self.raft.role() == RoleKind::Follower && self.end == End::Not && self.is_only_voter() {
            self.raft.campaign();
        }
    }

    fn is_only_voter(&self) -> bool {
        let conf_state = self.raft.conf_state();
        conf_state.voters == [self.me] && conf_state.voters_outgoing.is_empty()
    }

    /// A learner may have applied what this member has committed and not applied yet, and have shown it.
    fn is_only_member(&self) -> bool {
        let conf_state = self.raft.conf_state();
        self.is_only_voter()
            && conf_state.learners.is_empty()
            && conf_state.learners_next.is_empty()
    }

    /// Whether it leads and has applied an entry of its term: it has then applied whatever was committed before it.
    fn leads_in_force(&self) -> bool {
        self.raft.role() == RoleKind::Leader && self.pipeline.applied().1 == self.raft.term()
    }

    fn run_clock(&mut self) {
        // A term may end and another begin within one turn, without a word in between.
        if self.clock.term().is_some_and(|term| term != self.raft.term()) {
            self.stop_clock();
        }
        if self.clock.term().is_none() && self.leads_in_force() {
            self.clock.start(self.raft.term());
        }
        let answers = self.clock.answers(self.standing.applied().min(self.pipeline.applied().0));
        self.lease_answers(answers);
    }

    fn stop_clock(&mut self) {
        self.clock_asks = false;
        let answers = self.clock.stop(LeaseRefusal::LeadershipLost);
        self.lease_answers(answers);
    }

    /// Appends revokes for leases whose time is over. They go straight to raft, past admission, and only if this
    /// member leads in the very term in which that was decided: raft would otherwise forward them.
    fn expire_leases(&mut self) {
        if self.end != End::Not {
            return;
        }
        for (term, lease) in self.clock.due() {
            if self.raft.role() == RoleKind::Leader && self.raft.term() == term {
                let command = self.command(Request::lease_expiry(lease));
                // If raft does not take it now (a transfer, too much uncommitted), the clock tries again.
                let _dropped_is_retried = self.raft.propose(vec![command.encode()]);
            }
        }
        for lease in self.clock.renewed() {
            let command = self.command(Request::lease_checkpoint(lease, 0));
            let proposal =
                Proposal { id: command.id, data: command.encode(), lane: Lane::Priority };
            let _refused_is_harmless = self.proposing.admit(proposal, 0, self.tick);
        }
    }

    fn command(&mut self, request: Request) -> Command {
        Command { id: self.names.next_name(), caller: Caller::default(), request }
    }

    /// The words that other threads look at. The flag of the lone member falls here, before the driver has any message
    /// of this turn in hand, and rises only when no membership change can be on its way.
    fn publish(&mut self) {
        let lone =
            self.leads_in_force() && self.is_only_member() && !self.raft.conf_change_pending();
        if lone != self.standing.lone() {
            self.standing.set_lone(lone && self.end == End::Not);
        }
        let standing = (self.raft.leader(), self.raft.term());
        self.standing.set_committed(self.raft.commit());
        if standing != self.said {
            self.said = standing;
            self.standing.set_leader(standing.0, standing.1);
            self.out.notices.push(Notice::Leader { leader: standing.0, term: standing.1 });
        }
        for notice in &self.out.notices {
            if let Notice::Membership(conf_state) = notice {
                self.standing.set_learner(conf_state.learners.contains(&self.me));
            }
        }
        if matches!(self.ready, Readiness::CatchingUp(index) if index <= self.pipeline.applied().0)
        {
            self.ready = Readiness::Said;
            self.out.notices.push(Notice::Ready);
        }
    }

    fn transfer_leader(&mut self, asker: Asker, to: NodeId) {
        let refusal = if self.end != End::Not {
            Some(Refusal::Stopped)
        } else if self.raft.role() != RoleKind::Leader {
            Some(Refusal::NotLeader)
        } else if !self.raft.conf_state().voters.contains(&to) {
            Some(Refusal::BadTransferee)
        } else {
            None
        };
        if let Some(why) = refusal {
            self.answer_transfer(asker, Err(why));
        } else if to == self.me {
            self.answer_transfer(asker, Ok(()));
        } else {
            self.end_transfer(Err(Refusal::LeaderChanged));
            let until_tick = self.tick + u64::from(self.config.election_ticks);
            self.transfer = Some(Transfer { asker, to, until_tick });
            self.raft.transfer_leader(to);
        }
    }

    fn end_transfer(&mut self, result: Result<(), Refusal>) {
        if let Some(transfer) = self.transfer.take() {
            self.answer_transfer(transfer.asker, result);
        }
    }

    fn answer_transfer(&mut self, asker: Asker, result: Result<(), Refusal>) {
        // Members do not ask each other for a transfer, only clients do.
        if let Asker::Shard { shard, token } = asker {
            self.answer(shard, Answer::Transferred { token, result });
        }
    }

    fn stop(&mut self) {
        if self.end != End::Not {
            return;
        }
        let refused = self.proposing.stop();
        self.refuse(refused);
        for reader in self.reads.refuse_all() {
            self.refuse_reader(reader, Refusal::Stopped);
        }
        let answers = self.clock.stop(LeaseRefusal::Stopped);
        self.lease_answers(answers);
        self.end_transfer(Err(Refusal::Stopped));
        self.end = End::HandingOver(self.tick + u64::from(self.config.election_ticks));
        if let Some(heir) = self.heir() {
            self.raft.transfer_leader(heir);
        }
    }

    /// The voter that would need the least to lead.
    fn heir(&self) -> Option<NodeId> {
        let status = self.raft.status();
        let others = status.peers.iter().filter(|(id, _)| *id != self.me);
        let heirs = others.filter(|(_, progress)| !progress.learner && progress.recent_active);
        heirs.max_by_key(|(_, progress)| progress.matched).map(|(id, _)| *id)
    }

    fn go_on_ending(&mut self) {
        match self.end {
            End::HandingOver(until_tick) => {
                let leads = self.raft.role() == RoleKind::Leader;
                if !leads || self.heir().is_none() || until_tick <= self.tick {
                    self.end = End::Finishing;
                    self.pipeline.finish();
                    self.pipeline.advance(&mut self.raft, &mut self.out);
                    self.go_on_ending();
                }
            }
            End::Finishing if self.pipeline.is_finished() => {
                self.end = End::Over;
                self.standing.set_lone(false);
                self.out.notices.push(Notice::Stopped);
            }
            End::Not | End::Finishing | End::Over => {}
        }
    }

    fn answer(&mut self, shard: Shard, answer: Answer) {
        self.answers.entry(shard).or_default().push(answer);
    }

    fn refuse(&mut self, refused: Vec<(Shard, RequestId, Refusal)>) {
        for (shard, id, why) in refused {
            self.answer(shard, Answer::Refused { id, why });
        }
    }

    fn refuse_reader(&mut self, reader: Reader, why: Refusal) {
        match reader {
            Reader::Shard(batch) => {
                self.answer(batch.shard, Answer::Read { batch: batch.batch, result: Err(why) });
            }
            // The next tick asks again if the clock still doubts.
            Reader::Clock => self.clock_asks = false,
        }
    }

    fn lease_answers(&mut self, answers: impl IntoIterator<Item = LeaseAnswer>) {
        for answer in answers {
            match answer.asker {
                Asker::Shard { shard, .. } => self.answer(shard, Answer::Lease(answer)),
                Asker::Peer { .. } => self.out.peer_answers.push(answer),
            }
        }
    }

    /// On a leader that is traced, how far a member's log reaches as far as known.
    fn known_match(&self, node: NodeId) -> Option<Index> {
        self.raft.matched(node).filter(|_| self.config.trace.is_on())
    }

    /// The leader has learnt that a member's log reaches further than `before`.
    fn trace_match(&mut self, node: NodeId, before: Option<Index>) {
        if let Some(before) = before
            && let Some(index) = self.raft.matched(node).filter(|now| *now > before)
        {
            self.trace(Trace::Matched { node, index });
        }
    }

    /// What raft has come to since it was last told of: role and term, and what is committed.
    fn trace_standing(&mut self) {
        let now = Told {
            role: self.raft.role(),
            leader: self.raft.leader(),
            term: self.raft.term(),
            commit: self.raft.commit(),
        };
        let before = std::mem::replace(&mut self.told, now);
        if (now.role, now.leader, now.term) != (before.role, before.leader, before.term) {
            self.trace(Trace::Role { role: now.role, term: now.term, leader: now.leader });
        }
        if now.commit > before.commit {
            self.trace(Trace::Committed { index: now.commit });
        }
    }

    fn trace(&mut self, event: Trace) {
        if self.config.trace.tells(&event) && self.out.trace.len() < self.config.limits.trace_events
        {
            self.out.trace.push(event);
        }
    }
}

/// raft's words for a configuration and the state machine's are the same; the wings do not know each other.
pub(crate) fn to_tables(conf_state: ConfState) -> state_machine::ConfState {
    let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = conf_state;
    state_machine::ConfState { voters, learners, voters_outgoing, learners_next, auto_leave }
}

/// The way back.
pub(crate) fn from_tables(conf_state: &state_machine::ConfState) -> ConfState {
    let state_machine::ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } =
        conf_state.clone();
    ConfState { voters, learners, voters_outgoing, learners_next, auto_leave }
}
