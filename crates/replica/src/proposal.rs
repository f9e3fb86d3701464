//! Admission: which proposals go into the log, in which order, and what the others are told.
//!
//! Only apply lag refuses at once, with etcd's numbers: a member that cannot keep up would otherwise promise work
//! that nobody waits for any more. Bytes never refuse: while too many are uncommitted or unflushed the replica takes
//! no proposals, its inbox fills, and the shards stop reading those who propose. Without a leader proposals are held,
//! as etcd holds them, until there is one or their time is over.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::{EntryKind, NONE, Raft, StepError};
use state_machine::RequestId;

use crate::config::{Config, Limits};
use crate::input::{Lane, Proposal};
use crate::output::Refusal;
use crate::waiters::{Shard, shard_of};

#[derive(Debug)]
struct Held {
    proposal: Proposal,
    until_tick: u64,
}

/// The proposals that are not in the log yet.
#[derive(Debug)]
pub(crate) struct Proposing {
    limits: Limits,
    member: raft::NodeId,
    max_request_bytes: usize,
    timeout_ticks: u64,
    queue: VecDeque<Held>,
    stopped: bool,
}

impl Proposing {
    pub(crate) fn new(config: &Config) -> Proposing {
        Proposing {
            limits: config.limits.clone(),
            member: config.identity.node_id,
            max_request_bytes: config.max_request_bytes,
            timeout_ticks: config.request_timeout_ticks(),
            queue: VecDeque::new(),
            stopped: false,
        }
    }

    /// Admits a proposal, or says why not. `lag` is how many committed entries are not applied.
    pub(crate) fn admit(&mut self, proposal: Proposal, lag: u64, tick: u64) -> Result<(), Refusal> {
        if self.stopped {
            return Err(Refusal::Stopped);
        }
        let lag_max = match proposal.lane {
            Lane::Ordinary | Lane::Membership => self.limits.apply_lag,
            Lane::Priority => self.limits.apply_lag_priority,
        };
        if lag > lag_max {
            return Err(Refusal::TooManyRequests);
        }
        if proposal.data.len() > self.max_request_bytes {
            return Err(Refusal::TooLarge);
        }
        self.queue.push_back(Held { proposal, until_tick: tick + self.timeout_ticks });
        Ok(())
    }

    /// Gives raft what it takes, in order; what it does not take now is held. Returns whom to refuse.
    pub(crate) fn end_turn(
        &mut self,
        raft: &mut Raft,
        tick: u64,
    ) -> Vec<(Shard, RequestId, Refusal)> {
        let mut refused = Vec::new();
        while raft.leader() != NONE && !self.queue.is_empty() {
            match self.propose_run(raft) {
                Ok(()) => {}
                // A transfer is under way, or the leader is full: later.
                Err(StepError::ProposalDropped) => break,
                Err(_) => {
                    let held = self.queue.pop_front().expect("the queue was not empty");
                    self.refuse(held, Refusal::Dropped, &mut refused);
                }
            }
        }
        let why = if raft.leader() == NONE { Refusal::NoLeader } else { Refusal::Dropped };
        while self.queue.len() > self.limits.held_proposals {
            let held = self.queue.pop_back().expect("it is over its limit");
            self.refuse(held, why, &mut refused);
        }
        while self.queue.front().is_some_and(|held| held.until_tick <= tick) {
            let held = self.queue.pop_front().expect("its front was just seen");
            self.refuse(held, Refusal::TimedOut, &mut refused);
        }
        refused
    }

    /// Takes nothing more, and refuses what it has.
    pub(crate) fn stop(&mut self) -> Vec<(Shard, RequestId, Refusal)> {
        self.stopped = true;
        let mut refused = Vec::new();
        while let Some(held) = self.queue.pop_front() {
            self.refuse(held, Refusal::Stopped, &mut refused);
        }
        refused
    }

    /// Whether so many wait for raft that no more should be taken from the inbox.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() >= self.limits.held_proposals
    }

    /// The first proposals that can go as one message: a membership change goes alone, commands up to the size of
    /// one message between members, because a follower forwards them so.
    fn propose_run(&mut self, raft: &mut Raft) -> Result<(), StepError> {
        let mut count = 0;
        let mut bytes = 0;
        for held in &self.queue {
            let membership = held.proposal.lane == Lane::Membership;
            bytes += held.proposal.data.len() as u64;
            if count > 0 && (membership || bytes > self.limits.message_bytes) {
                break;
            }
            count += 1;
            if membership {
                break;
            }
        }
        let first = &self.queue.front().expect("the caller has looked").proposal;
        if first.lane == Lane::Membership {
            raft.propose_entry(EntryKind::ConfChange, first.data.clone())?;
        } else {
            let commands: Vec<Bytes> =
                self.queue.iter().take(count).map(|held| held.proposal.data.clone()).collect();
            raft.propose(commands)?;
        }
        self.queue.drain(..count);
        Ok(())
    }

    fn refuse(&self, held: Held, why: Refusal, refused: &mut Vec<(Shard, RequestId, Refusal)>) {
        // The replica's own proposals (lease checkpoints) have nobody to tell.
        if let Some(shard) = shard_of(held.proposal.id, self.member) {
            refused.push((shard, held.proposal.id, why));
        }
    }
}
