//! Linearizable reads without the log (thesis §6.4): rounds of heartbeats that prove that the leader still leads.
//!
//! Reads are numbered from 1 within a term. A heartbeat carries the number of the last read asked for before it was sent,
//! as eight bytes, lowest first; its answer echoes them and thereby confirms that read and all before it, never a later
//! one. So a late answer to an old heartbeat cannot confirm a read that was asked for meanwhile, although the bytes of a
//! client's own context may come twice:
//!
//! 1. A leads; a read is asked for, with context x, and heartbeats leave with x.
//! 2. B's answer is delayed. The client gives up and asks again with the same context x.
//! 3. C has become leader in the meantime, and writes.
//! 4. B's answer to step 1 arrives; were it counted for the read of step 2, that would miss what C wrote.

use crate::message::{Entry, Index, NodeId};
use crate::quorum::Joint;
use bytes::Bytes;
use mutant::Mutant;
use std::collections::VecDeque;

/// A read that waits for its round.
#[derive(Clone, Debug)]
pub(crate) struct ReadRequest {
    /// Who asked: a peer, or 0 for this node.
    pub from: NodeId,
    /// The committed index when it was asked for.
    pub index: Index,
    /// One entry, whose data is the request's context.
    pub entries: Vec<Entry>,
}

/// The reads of one term of a leader.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadRounds {
    /// How many reads of this term were confirmed.
    confirmed: u64,
    /// The reads after those, in order.
    unconfirmed: VecDeque<ReadRequest>,
    /// The greatest number that each node has echoed, ascending by node.
    acknowledged: Vec<(NodeId, u64)>,
}

impl ReadRounds {
    /// A read was asked for.
    pub fn add(&mut self, request: ReadRequest) {
        self.unconfirmed.push_back(request);
    }

    /// The number of the last read.
    pub fn last_number(&self) -> u64 {
        self.confirmed + self.unconfirmed.len() as u64
    }

    /// What a heartbeat carries: nothing if no read waits.
    pub fn heartbeat_context(&self) -> Bytes {
        if self.unconfirmed.is_empty() {
            return Bytes::new();
        }
        Bytes::copy_from_slice(&self.last_number().to_le_bytes())
    }

    /// A node still follows, at the time of the heartbeat that carried this number; false if none did.
    pub fn acknowledge(&mut self, from: NodeId, number: u64) -> bool {
        if number > self.last_number() {
            return false;
        }
        let stale = mutant::is(Mutant::StaleReadAnswer);
        let number = if stale { self.last_number() } else { number };
        match self.acknowledged.binary_search_by_key(&from, |ack| ack.0) {
            Ok(place) => {
                let known = &mut self.acknowledged[place].1;
                *known = (*known).max(number);
            }
            Err(place) => self.acknowledged.insert(place, (from, number)),
        }
        true
    }

    /// The reads that a quorum has confirmed by now.
    pub fn confirm(&mut self, voters: &Joint) -> Vec<ReadRequest> {
        let reached = |id| {
            let place = self.acknowledged.binary_search_by_key(&id, |ack| ack.0).ok()?;
            Some(self.acknowledged[place].1)
        };
        // Without any voter there is no bound, and nobody who could confirm.
        let confirmed = voters.committed(reached);
        if confirmed > self.last_number() || confirmed <= self.confirmed {
            return Vec::new();
        }
        let count = usize::try_from(confirmed - self.confirmed).expect("reads lie in memory");
        self.confirmed = confirmed;
        self.unconfirmed.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quorum::Majority;

    fn ask(rounds: &mut ReadRounds) -> u64 {
        rounds.add(ReadRequest { from: 0, index: Index(1), entries: Vec::new() });
        rounds.acknowledge(1, rounds.last_number());
        rounds.last_number()
    }

    #[test]
    fn a_late_answer_confirms_its_own_round_only() {
        let voters = Joint { incoming: Majority::new(vec![1, 2, 3]), ..Joint::default() };
        let mut rounds = ReadRounds::default();
        let first = ask(&mut rounds);
        let second = ask(&mut rounds);
        assert!(rounds.acknowledge(2, first));
        assert_eq!(rounds.confirm(&voters).len(), 1);
        assert!(rounds.acknowledge(3, first));
        assert!(rounds.confirm(&voters).is_empty());
        assert!(rounds.acknowledge(3, second));
        assert_eq!(rounds.confirm(&voters).len(), 1);
        assert!(rounds.heartbeat_context().is_empty());
    }

    #[test]
    fn an_answer_to_a_heartbeat_never_sent_is_refused() {
        let mut rounds = ReadRounds::default();
        let last = ask(&mut rounds);
        assert!(!rounds.acknowledge(2, last + 1));
    }
}
