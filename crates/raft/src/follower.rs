//! What a follower does with a message: it keeps what the leader sends, and passes on what is for the leader.

use crate::message::*;
use crate::ready::ReadState;
use crate::role::{Campaign, Role};
use crate::{Raft, StepError};
use mutant::Mutant;

impl Raft {
    pub(crate) fn step_follower(&mut self, m: Message) -> Result<(), StepError> {
        match m.kind {
            // Proposals go to the leader, if there is one and if that is wanted.
            MessageKind::Prop => {
                if self.leader() == NONE || self.config.disable_proposal_forwarding {
                    return Err(StepError::ProposalDropped);
                }
                self.send(Message { to: self.leader(), ..m });
            }

            // The leader lives.
            MessageKind::App => {
                self.hear_leader(m.from)?;
                return self.handle_append(m);
            }
            MessageKind::Heartbeat => {
                self.hear_leader(m.from)?;
                return self.handle_heartbeat(m);
            }
            MessageKind::Snap => {
                self.hear_leader(m.from)?;
                return self.handle_snapshot(m);
            }

            // The leader alone can hand over.
            MessageKind::TransferLeader => {
                if self.leader() != NONE {
                    self.send(Message { to: self.leader(), term: Term(0), ..m });
                }
            }

            // The leader hands over to this node. No pre-vote: it does not come back from a partition.
            MessageKind::TimeoutNow => self.hup(Campaign::Transfer),

            // The leader alone knows what is committed.
            MessageKind::ReadIndex => {
                if self.leader() != NONE {
                    self.send(Message { to: self.leader(), ..m });
                }
            }

            // The leader's answer to a read of this node.
            MessageKind::ReadIndexResp => {
                let context = m.entries.into_iter().next().map(|entry| entry.data);
                let context = context.expect("a read answer has one entry, or it is not let in");
                self.read_states.push(ReadState { index: m.index, context });
            }

            // Answers to somebody who is no longer leader or candidate.
            MessageKind::AppResp
            | MessageKind::HeartbeatResp
            | MessageKind::VoteResp
            | MessageKind::PreVoteResp => {}

            // Answered before the role is asked, or never let in.
            MessageKind::Vote
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

    /// A term has one leader (thesis §3.4); whoever says otherwise is not believed.
    fn hear_leader(&mut self, from: NodeId) -> Result<(), StepError> {
        let Role::Follower { leader } = &mut self.role else {
            unreachable!("only a follower hears a leader")
        };
        if *leader != NONE && *leader != from {
            return Err(StepError::Malformed("a second leader in one term"));
        }
        *leader = from;
        self.election_elapsed = 0;
        Ok(())
    }

    /// Keeps entries that follow on what is here (thesis §3.5), or says where the logs may match.
    pub(crate) fn handle_append(&mut self, m: Message) -> Result<(), StepError> {
        let answer = Message { kind: MessageKind::AppResp, to: m.from, ..Message::default() };
        if m.index < self.log.committed() {
            // An old one: what is committed is the same everywhere.
            self.send(Message { index: self.log.committed(), ..answer });
            return Ok(());
        }
        let unmatched = mutant::is(Mutant::AppendUnmatched) && m.index <= self.log.last();
        if self.log.matches(m.index, m.log_term) || unmatched {
            let last_new = Index(m.index.0 + m.entries.len() as u64);
            if !self.log.append_from(m.entries) {
                return Err(StepError::Malformed("an entry conflicts with a committed one"));
            }
            // Beyond the last new entry nothing is known to be the leader's.
            self.log.commit_to(m.commit.min(last_new));
            self.send(Message { index: last_new, ..answer });
            return Ok(());
        }
        // Nothing above that has a term above the leader's can match.
        let (hint, hint_term) =
            self.log.last_possible_match(m.index.min(self.log.last()), m.log_term);
        self.send(Message {
            index: m.index,
            reject: true,
            reject_hint: hint,
            log_term: hint_term,
            ..answer
        });
        Ok(())
    }

    /// A heartbeat tells no more than this follower has acknowledged. If that is not here, then it is lost (C27), or somebody
    /// lies (C47): nothing is committed by it.
    pub(crate) fn handle_heartbeat(&mut self, m: Message) -> Result<(), StepError> {
        let last = self.log.last();
        if m.commit > last {
            self.forgot_in = Some(self.term);
            return Err(StepError::Forgotten { acknowledged: m.commit, last });
        }
        self.log.commit_to(m.commit);
        self.send(Message {
            kind: MessageKind::HeartbeatResp,
            to: m.from,
            context: m.context,
            ..Message::default()
        });
        Ok(())
    }

    /// Takes a snapshot in place of the log, if it is ahead of what is committed here (thesis §5).
    pub(crate) fn handle_snapshot(&mut self, m: Message) -> Result<(), StepError> {
        let snapshot = *m.snapshot.expect("a snapshot message has one, or it is not let in");
        let index = if self.restore(snapshot)? { self.log.last() } else { self.log.committed() };
        self.send(Message { kind: MessageKind::AppResp, to: m.from, index, ..Message::default() });
        Ok(())
    }

    fn restore(&mut self, snapshot: Snapshot) -> Result<bool, StepError> {
        let SnapshotMetadata { conf_state, index, term } = &snapshot.metadata;
        let goes_back = mutant::is(Mutant::SnapshotOverNewer);
        if *index <= self.log.committed() && !goes_back {
            return Ok(false);
        }
        let id = self.config.id;
        let named = [&conf_state.voters, &conf_state.learners, &conf_state.voters_outgoing];
        if !named.iter().any(|set| set.contains(&id)) {
            return Ok(false);
        }
        if self.log.matches(*index, *term) && !goes_back {
            // All of it is here; only that it is committed was not known.
            self.log.commit_to(*index);
            return Ok(false);
        }
        let membership = self
            .membership
            .restore(conf_state, *index)
            .map_err(|_| StepError::Malformed("a snapshot's configuration contradicts itself"))?;
        self.log.restore_snapshot(snapshot);
        self.switch_to(membership);
        Ok(true)
    }
}
