//! What a candidate does with a message, and a pre-candidate, which differs only in whose answers it waits for.

use crate::message::*;
use crate::quorum::VoteResult;
use crate::role::{Campaign, Role};
use crate::{Raft, StepError};
use mutant::Mutant;

impl Raft {
    pub(crate) fn step_candidate(&mut self, m: Message) -> Result<(), StepError> {
        match m.kind {
            // There is nobody to forward it to.
            MessageKind::Prop => return Err(StepError::ProposalDropped),

            // Somebody else has won this term (thesis §3.4).
            MessageKind::App => {
                self.become_follower(m.term, m.from);
                return self.handle_append(m);
            }
            MessageKind::Heartbeat => {
                self.become_follower(m.term, m.from);
                return self.handle_heartbeat(m);
            }
            MessageKind::Snap => {
                self.become_follower(m.term, m.from);
                return self.handle_snapshot(m);
            }

            // An answer to this campaign; a late one to the pre-campaign before it, or after it, says nothing.
            MessageKind::VoteResp | MessageKind::PreVoteResp => {
                let (pre, votes) = match (&mut self.role, m.kind) {
                    (Role::PreCandidate(votes), MessageKind::PreVoteResp) => (true, votes),
                    (Role::Candidate(votes), MessageKind::VoteResp) => (false, votes),
                    _ => return Ok(()),
                };
                votes.record(m.from, !m.reject);
                let (Role::PreCandidate(votes) | Role::Candidate(votes)) = &self.role else {
                    unreachable!("the role was matched above")
                };
                // One's own vote must be durable even if the others suffice. Otherwise one node could lead one term twice:
                // 1. A campaigns in term 5; B and C grant it, and A leads before its own vote is on disk.
                // 2. A sends entry 9 of term 5; B takes it. A crashes, and remembers term 4.
                // 3. A campaigns in term 5 again; B and C have voted for A in it and do so again.
                // 4. A sends another entry 9 of term 5; C takes it. B's and C's look the same and differ.
                let early = mutant::is(Mutant::LeadBeforeOwnVote);
                let own = pre || votes.of(self.config.id).is_some() || early;
                match self.tally(votes) {
                    VoteResult::Won if !own => {}
                    VoteResult::Won if pre => self.start_campaign(Campaign::Election),
                    VoteResult::Won => {
                        self.become_leader();
                        self.broadcast_append();
                    }
                    // A pre-vote's answer may bear a term to come; it is not taken up.
                    VoteResult::Lost => self.become_follower(self.term, NONE),
                    VoteResult::Pending => {}
                }
            }

            // It campaigns already.
            MessageKind::TimeoutNow => {}

            // Nobody here to answer or to pass it on to.
            MessageKind::TransferLeader
            | MessageKind::ReadIndex
            | MessageKind::ReadIndexResp
            | MessageKind::AppResp
            | MessageKind::HeartbeatResp => {}

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
}
