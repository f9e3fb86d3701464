//! What a leader does: it appends, sends, counts what is durable, and confirms reads.

use crate::log::{NO_LIMIT, Tail, payload_bytes};
use crate::membership::ConfChangeV2;
use crate::message::*;
use crate::progress::ProgressState;
use crate::read_index::{ReadRequest, ReadRounds};
use crate::ready::{Fetch, ReadState};
use crate::role::Role;
use crate::{Raft, ReadOnly, StepError};
use bytes::Bytes;
use mutant::Mutant;
use std::mem;

/// What belongs to one leader in one term.
#[derive(Debug)]
pub(crate) struct Leader {
    /// To whom leadership is being handed over, or nobody. Meanwhile proposals are dropped (thesis §3.10).
    pub transferee: NodeId,
    /// No membership change lies in the log after this index; one at or before it may be unapplied as long as `applied` is
    /// below. Two at a time could make disjoint quorums (thesis §4.1).
    pub pending_conf_index: Index,
    /// Payload bytes appended in this term and not yet applied. Never more than there really are.
    pub uncommitted_bytes: u64,
    /// Reads that wait for a round of heartbeats.
    pub reads: ReadRounds,
    /// Reads that came before an entry of this term was committed. Until then the leader does not know what is (thesis §6.4).
    pub held_reads: Vec<Message>,
}

impl Leader {
    pub fn new(last: Index) -> Leader {
        Leader {
            transferee: NONE,
            pending_conf_index: last,
            uncommitted_bytes: 0,
            reads: ReadRounds::default(),
            held_reads: Vec::new(),
        }
    }
}

impl Raft {
    pub(crate) fn step_leader(&mut self, m: Message) -> Result<(), StepError> {
        match m.kind {
            // A proposal forwarded by a follower; the leader gives it its place and term.
            MessageKind::Prop => {
                let proposals =
                    m.entries.into_iter().map(|entry| (entry.kind, entry.data)).collect();
                return self.propose_as_leader(proposals);
            }

            // A read, asked for by a follower or here.
            MessageKind::ReadIndex => {
                if self.committed_in_term() || mutant::is(Mutant::ReadBeforeOwnTerm) {
                    self.confirm_read(m);
                } else {
                    self.leader_mut().held_reads.push(m);
                }
                return Ok(());
            }

            // A term has one leader (thesis §3.4), and that is this one.
            MessageKind::App | MessageKind::Heartbeat | MessageKind::Snap => {
                return Err(StepError::Malformed("a second leader in one term"));
            }
            _ => {}
        }

        // Whatever follows is about a peer that must be in the configuration.
        let (last, commit, from) = (self.log.last(), self.log.committed(), m.from);
        let Some(progress) = self.membership.progress_mut(from) else { return Ok(()) };
        match m.kind {
            // Entries are durable on a peer, or here; or it had nothing that they could follow on.
            MessageKind::AppResp if m.reject => {
                progress.recent_active = true;
                // Where our terms lie above the follower's, it cannot match either.
                let hint = if m.log_term > Term(0) {
                    self.log.last_possible_match(m.reject_hint, m.log_term).0
                } else {
                    m.reject_hint
                };
                if progress.maybe_decrease(m.index, hint) {
                    if progress.state == ProgressState::Replicate {
                        progress.become_probe();
                    }
                    self.maybe_send_append(from, true);
                }
            }
            MessageKind::AppResp => {
                if m.index > last {
                    return Err(StepError::Malformed("an acknowledgement of what was never sent"));
                }
                progress.recent_active = true;
                // A probed peer that acknowledges what is known is found again, too.
                let probed = progress.state == ProgressState::Probe;
                let news = progress.maybe_update(m.index);
                let found = probed && progress.matched == m.index;
                if !news && !found {
                    return Ok(());
                }
                match progress.state {
                    ProgressState::Probe => progress.become_replicate(),
                    // It does not matter how far the snapshot was to reach, if the log goes on from where the peer is.
                    ProgressState::Snapshot { .. } => {
                        if progress.matched >= self.log.base().0 {
                            progress.become_probe();
                            progress.become_replicate();
                        }
                    }
                    ProgressState::Replicate => progress.inflights.free_up_to(m.index),
                }
                let can_bump = progress.can_bump_commit(commit);
                if self.maybe_commit() {
                    self.release_held_reads();
                    self.broadcast_append();
                } else if from != self.config.id && can_bump {
                    self.maybe_send_append(from, true);
                }
                if from != self.config.id {
                    // There may be room for more than one append now.
                    while self.maybe_send_append(from, false) {}
                    self.maybe_finish_transfer(from);
                }
            }

            // A peer follows.
            MessageKind::HeartbeatResp => {
                progress.recent_active = true;
                progress.flow_paused = false;
                if mutant::is(Mutant::HeartbeatAcknowledges) {
                    progress.maybe_update(last);
                }
                // A full window may be full of lost messages, and a probed peer may have been found unreachable: an append,
                // perhaps an empty one, brings an answer.
                if progress.matched < last || progress.state == ProgressState::Probe {
                    self.maybe_send_append(from, true);
                }
                if self.config.read_only == ReadOnly::Safe && !m.context.is_empty() {
                    let number = <[u8; 8]>::try_from(&m.context[..]).map(u64::from_le_bytes);
                    let refused =
                        Err(StepError::Malformed("an answer to a heartbeat that was never sent"));
                    let Ok(number) = number else { return refused };
                    if !self.leader_mut().reads.acknowledge(from, number) {
                        return refused;
                    }
                    self.answer_confirmed_reads();
                }
            }

            // Leadership is wanted for `from`, who need not be the sender.
            MessageKind::TransferLeader => {
                if progress.learner || from == self.leader_mut().transferee {
                    return Ok(());
                }
                self.leader_mut().transferee = NONE;
                if from == self.config.id {
                    return Ok(());
                }
                // It shall be done within an election timeout.
                self.election_elapsed = 0;
                self.leader_mut().transferee = from;
                if !self.maybe_finish_transfer(from) {
                    self.maybe_send_append(from, true);
                }
            }

            // Late answers to the campaign that made this leader, and what only a follower heeds.
            MessageKind::VoteResp
            | MessageKind::PreVoteResp
            | MessageKind::TimeoutNow
            | MessageKind::ReadIndexResp => {}

            // Handled above, answered before the role is asked, or never let in.
            MessageKind::Prop
            | MessageKind::ReadIndex
            | MessageKind::App
            | MessageKind::Heartbeat
            | MessageKind::Snap
            | MessageKind::Vote
            | MessageKind::PreVote
            | MessageKind::Hup
            | MessageKind::Beat
            | MessageKind::Unreachable
            | MessageKind::SnapStatus
            | MessageKind::CheckQuorum
            | MessageKind::StorageAppend
            | MessageKind::StorageAppendResp
            | MessageKind::StorageApply
            | MessageKind::StorageApplyResp
            | MessageKind::ForgetLeader => unreachable!("{:?} does not reach a role", m.kind),
        }
        Ok(())
    }

    /// The leader's data; only where the role is known.
    fn leader_mut(&mut self) -> &mut Leader {
        match &mut self.role {
            Role::Leader(leader) => leader,
            role => unreachable!("not a leader but {:?}", role.kind()),
        }
    }

    // --- Clock. ---

    pub(crate) fn tick_leader(&mut self) {
        self.heartbeat_elapsed += 1;
        self.election_elapsed += 1;
        if self.election_elapsed >= self.config.election_ticks {
            self.election_elapsed = 0;
            if self.config.check_quorum {
                self.check_quorum();
            }
            // A transferee that did not manage by now will not.
            if let Role::Leader(leader) = &mut self.role {
                leader.transferee = NONE;
            }
        }
        if self.is_leader() && self.heartbeat_elapsed >= self.config.heartbeat_ticks {
            self.heartbeat_elapsed = 0;
            self.broadcast_heartbeat();
        }
    }

    /// A leader that no quorum has answered for an election timeout steps down: clients go elsewhere (thesis §6.2).
    fn check_quorum(&mut self) {
        use crate::quorum::VoteResult;
        let active = |id| Some(self.membership.progress(id)?.recent_active);
        if self.membership.voters().vote_result(active) != VoteResult::Won {
            self.become_follower(self.term, NONE);
        }
        let id = self.config.id;
        for (peer, progress) in self.membership.nodes_mut() {
            progress.recent_active &= *peer == id;
        }
    }

    // --- Proposals. ---

    /// Appends what is proposed, all or nothing, and sends it on.
    pub(crate) fn propose_as_leader(
        &mut self,
        mut proposals: Vec<(EntryKind, Bytes)>,
    ) -> Result<(), StepError> {
        // A leader that was removed appends nothing any more, nor does one that hands over.
        let removed = self.membership.progress(self.config.id).is_none();
        if removed || self.leader_mut().transferee != NONE {
            return Err(StepError::ProposalDropped);
        }
        let mut pending_conf_index = self.leader_mut().pending_conf_index;
        for (place, (kind, data)) in proposals.iter_mut().enumerate() {
            if *kind == EntryKind::Normal {
                continue;
            }
            let change = Entry { kind: *kind, data: data.clone(), ..Entry::default() };
            let Ok(Some(change)) = ConfChangeV2::of_entry(&change) else {
                return Err(StepError::Malformed("a membership change that is none"));
            };
            let unapplied =
                pending_conf_index > self.log.applied() && !mutant::is(Mutant::ChangeBesideChange);
            let leaves = change.changes.is_empty();
            let untimely = self.membership.voters().is_joint() != leaves;
            if (unapplied || untimely) && !self.config.disable_conf_change_validation {
                // An empty entry takes its place, so that its proposer sees that it is done with.
                (*kind, *data) = (EntryKind::Normal, Bytes::new());
            } else {
                pending_conf_index = Index(self.log.last().0 + place as u64 + 1);
            }
        }
        if !self.append_own(proposals) {
            return Err(StepError::ProposalDropped);
        }
        self.leader_mut().pending_conf_index = pending_conf_index;
        self.broadcast_append();
        Ok(())
    }

    /// Numbers entries and appends them, unless too much is uncommitted already; empty ones always fit.
    pub(crate) fn append_own(&mut self, proposals: Vec<(EntryKind, Bytes)>) -> bool {
        let bytes = proposals.iter().map(|(_, data)| data.len() as u64).sum::<u64>();
        let limit = match self.config.max_uncommitted_bytes {
            0 => NO_LIMIT,
            limit => limit,
        };
        let uncommitted = &mut self.leader_mut().uncommitted_bytes;
        if *uncommitted > 0 && bytes > 0 && *uncommitted + bytes > limit {
            return false;
        }
        *uncommitted += bytes;
        for (kind, data) in proposals {
            self.log.append(Entry { kind, term: self.term, index: self.log.last().next(), data });
        }
        // The leader is one of the quorum, from when its own append is durable.
        self.send(Message {
            kind: MessageKind::AppResp,
            to: self.config.id,
            index: self.log.last(),
            ..Message::default()
        });
        true
    }

    // --- Sending. ---

    pub(crate) fn broadcast_append(&mut self) {
        self.for_each_peer(|raft, id| {
            raft.maybe_send_append(id, true);
        });
    }

    fn broadcast_heartbeat(&mut self) {
        let context = self.leader_mut().reads.heartbeat_context();
        let commit = self.log.committed();
        self.for_each_peer(|raft, to| {
            let progress = raft.membership.progress_mut(to).expect("it is in the configuration");
            // Beyond what it acknowledged, a follower may hold something else.
            let beyond = mutant::is(Mutant::HeartbeatBeyondMatch);
            let commit = if beyond { commit } else { commit.min(progress.matched) };
            progress.sent_commit = commit;
            let context = context.clone();
            let kind = MessageKind::Heartbeat;
            raft.send(Message { kind, to, commit, context, ..Message::default() });
        });
    }

    pub(crate) fn for_each_peer(&mut self, mut act: impl FnMut(&mut Raft, NodeId)) {
        for place in 0..self.membership.nodes().len() {
            let id = self.membership.nodes()[place].0;
            if id != self.config.id {
                act(self, id);
            }
        }
    }

    /// Sends a peer what comes next, if it may be sent anything; without entries only if `if_empty`, to tell the commit
    /// index. Whether something was sent.
    pub(crate) fn maybe_send_append(&mut self, to: NodeId, if_empty: bool) -> bool {
        let progress = self.membership.progress_mut(to).expect("it is in the configuration");
        if progress.is_paused() || progress.fetching.is_some() {
            return false;
        }
        let (next, previous) = (progress.next, progress.next.previous());
        let Some(log_term) = self.log.term(previous) else {
            return self.maybe_send_snapshot(to);
        };
        // Into a full window goes only what makes the peer answer.
        let full = progress.state == ProgressState::Replicate && progress.inflights.is_full();
        let entries = if full {
            Vec::new()
        } else {
            match self.log.tail(next, self.config.max_size_per_message) {
                Tail::Entries(entries) => entries,
                Tail::Evicted(high) => {
                    progress.fetching = Some(next);
                    let bytes_max = self.config.max_size_per_message;
                    self.fetches.push(Fetch { to, low: next, high, bytes_max });
                    return false;
                }
            }
        };
        if entries.is_empty() && !if_empty {
            return false;
        }
        self.send_append(to, log_term, entries);
        true
    }

    fn send_append(&mut self, to: NodeId, log_term: Term, entries: Vec<Entry>) {
        let commit = self.log.committed();
        let progress = self.membership.progress_mut(to).expect("it is in the configuration");
        let index = progress.next.previous();
        progress.on_sent(entries.len(), payload_bytes(&entries));
        progress.sent_commit = commit;
        let kind = MessageKind::App;
        self.send(Message { kind, to, index, log_term, entries, commit, ..Message::default() });
    }

    /// The log does not reach back to what the peer needs. Only a peer that is there gets a snapshot.
    fn maybe_send_snapshot(&mut self, to: NodeId) -> bool {
        let snapshot = self.snapshot_to_send();
        let progress = self.membership.progress_mut(to).expect("it is in the configuration");
        if !progress.recent_active {
            return false;
        }
        progress.become_snapshot(snapshot.metadata.index);
        let snapshot = Some(Box::new(snapshot));
        self.send(Message { kind: MessageKind::Snap, to, snapshot, ..Message::default() });
        true
    }

    /// Entries that were no longer in memory are there. They are sent as if they had been in memory, if they are still what
    /// the peer needs.
    pub(crate) fn send_fetched(&mut self, to: NodeId, low: Index, mut entries: Vec<Entry>) {
        if !self.is_leader() {
            return;
        }
        let Some(progress) = self.membership.progress_mut(to) else { return };
        if progress.fetching != Some(low) {
            return;
        }
        progress.fetching = None;
        let full = progress.state == ProgressState::Replicate && progress.inflights.is_full();
        let wanted = progress.next == low && !progress.is_paused() && !full;
        let fits = |(place, entry): (usize, &Entry)| {
            entry.index.0 == low.0 + place as u64 && self.log.matches(entry.index, entry.term)
        };
        let genuine = !entries.is_empty() && entries.iter().enumerate().all(fits);
        let Some(log_term) = self.log.term(low.previous()) else {
            // Released meanwhile.
            self.maybe_send_append(to, false);
            return;
        };
        if wanted && genuine {
            let mut bytes = 0;
            let limit = self.config.max_size_per_message;
            let count = entries.iter().take_while(|entry| {
                bytes += crate::log::encoded_bytes(entry);
                bytes <= limit
            });
            entries.truncate(count.count().max(1));
            self.send_append(to, log_term, entries);
        }
        // What could not be read is asked for again when the peer is next heard of, not at once for ever.
        if genuine {
            while self.maybe_send_append(to, false) {}
        }
    }

    /// A transferee with the whole log is told to campaign at once; false if it does not have it yet.
    fn maybe_finish_transfer(&mut self, to: NodeId) -> bool {
        let progress = self.membership.progress(to);
        let up_to_date = progress.is_some_and(|progress| progress.matched == self.log.last());
        if self.leader_mut().transferee != to || !up_to_date {
            return false;
        }
        self.send(Message { kind: MessageKind::TimeoutNow, to, ..Message::default() });
        true
    }

    // --- What is reported about a peer. ---

    pub(crate) fn peer_unreachable(&mut self, id: NodeId) {
        if let Some(progress) = self.membership.progress_mut(id)
            && progress.state == ProgressState::Replicate
        {
            // What was sent last is probably lost.
            progress.become_probe();
        }
    }

    pub(crate) fn peer_has_snapshot(&mut self, id: NodeId, ok: bool) {
        let Some(progress) = self.membership.progress_mut(id) else { return };
        let ProgressState::Snapshot { .. } = progress.state else { return };
        if !ok {
            // So that it is probed from where it was.
            progress.state = ProgressState::Snapshot { pending: Index(0) };
        }
        progress.become_probe();
        // Its own acknowledgement, or a heartbeat's answer, comes first.
        progress.flow_paused = true;
    }

    // --- Committing. ---

    /// Commits what a quorum has durably, if it is of this term: an entry of a former term may yet be replaced although a
    /// quorum has it (thesis §3.6.2).
    pub(crate) fn maybe_commit(&mut self) -> bool {
        let index = self.membership.committed();
        let index = if mutant::is(Mutant::CommitBeforeQuorum) { self.log.last() } else { index };
        let own = self.log.matches(index, self.term) || mutant::is(Mutant::CommitFormerTerm);
        if index <= self.log.committed() || !own {
            return false;
        }
        self.log.commit_to(index);
        true
    }

    // --- Reads. ---

    /// An entry of this term is committed, so the reads that waited for it go their way.
    pub(crate) fn release_held_reads(&mut self) {
        if self.committed_in_term() {
            for read in mem::take(&mut self.leader_mut().held_reads) {
                self.confirm_read(read);
            }
        }
    }

    /// Confirms a read as configured; who votes alone needs nobody.
    fn confirm_read(&mut self, m: Message) {
        let read = ReadRequest { from: m.from, index: self.log.committed(), entries: m.entries };
        let alone =
            self.membership.is_lone_voter(self.config.id) || mutant::is(Mutant::ReadWithoutRound);
        if alone || self.config.read_only == ReadOnly::LeaseBased {
            self.answer_read(read);
            return;
        }
        let id = self.config.id;
        let reads = &mut self.leader_mut().reads;
        reads.add(read);
        let number = reads.last_number();
        reads.acknowledge(id, number);
        self.broadcast_heartbeat();
    }

    /// Answers the reads that a quorum has confirmed, in the order in which they came.
    pub(crate) fn answer_confirmed_reads(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        for read in leader.reads.confirm(self.membership.voters()) {
            self.answer_read(read);
        }
    }

    fn answer_read(&mut self, read: ReadRequest) {
        if read.from == NONE || read.from == self.config.id {
            let context = read.entries.into_iter().next().map(|entry| entry.data);
            let context = context.expect("a read has one entry, or it is not let in");
            self.read_states.push(ReadState { index: read.index, context });
        } else {
            self.send(Message {
                kind: MessageKind::ReadIndexResp,
                to: read.from,
                index: read.index,
                entries: read.entries,
                ..Message::default()
            });
        }
    }
}
