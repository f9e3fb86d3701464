//! Quorums: what a majority has acknowledged, and how a vote stands, in one configuration or in two at once.
//!
//! A joint configuration (thesis §4.3) decides only what both of its halves decide; an empty half has no opinion.

use crate::message::NodeId;
use mutant::Mutant;
use std::fmt;

/// How a vote stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VoteResult {
    /// Neither won nor lost: the missing votes decide.
    Pending,
    /// A quorum said no, or so many did that none can say yes.
    Lost,
    /// A quorum said yes.
    Won,
}

/// A set of voters of which more than half decide.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Majority {
    /// Ascending, without doubles.
    voters: Vec<NodeId>,
}

impl Majority {
    /// The set of these voters.
    pub fn new(mut voters: Vec<NodeId>) -> Majority {
        voters.sort_unstable();
        voters.dedup();
        Majority { voters }
    }

    /// Adds a voter.
    pub fn insert(&mut self, id: NodeId) {
        if let Err(place) = self.voters.binary_search(&id) {
            self.voters.insert(place, id);
        }
    }

    /// Removes a voter.
    pub fn remove(&mut self, id: NodeId) {
        self.voters.retain(|voter| *voter != id);
    }

    /// The voters, ascending.
    pub fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty()
    }

    /// Whether this node votes.
    pub fn contains(&self, id: NodeId) -> bool {
        self.voters.binary_search(&id).is_ok()
    }

    /// The greatest number that more than half of the voters have reached; without voters there is no bound. Who
    /// has said nothing has reached 0.
    pub fn committed(&self, reached: impl Fn(NodeId) -> Option<u64>) -> u64 {
        const SMALL: usize = 9;
        let count = self.voters.len();
        if count == 0 {
            return u64::MAX;
        }
        let mut small = [0; SMALL];
        let mut large;
        let numbers: &mut [u64] = if count <= SMALL {
            &mut small[..count]
        } else {
            large = vec![0; count];
            &mut large
        };
        for (number, voter) in numbers.iter_mut().zip(&self.voters) {
            *number = reached(*voter).unwrap_or(0);
        }
        numbers.sort_unstable();
        // A quorum is count / 2 + 1 of the greatest ones; its least member is what it has in common.
        let quorum = count / 2 + 1;
        let quorum = if mutant::is(Mutant::MinorityCommits) { 1 } else { quorum };
        numbers[count - quorum]
    }

    /// How a vote stands; without voters it is won.
    pub fn vote_result(&self, vote: impl Fn(NodeId) -> Option<bool>) -> VoteResult {
        let quorum = self.voters.len() / 2 + 1;
        let quorum = if mutant::is(Mutant::MinorityElects) { 1 } else { quorum };
        let (mut yes, mut missing) = (0, 0);
        for voter in &self.voters {
            match vote(*voter) {
                Some(true) => yes += 1,
                Some(false) => {}
                None => missing += 1,
            }
        }
        if self.voters.is_empty() || yes >= quorum {
            VoteResult::Won
        } else if yes + missing >= quorum {
            VoteResult::Pending
        } else {
            VoteResult::Lost
        }
    }
}

impl fmt::Display for Majority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (count, voter) in self.voters.iter().enumerate() {
            let blank = if count == 0 { "" } else { " " };
            write!(f, "{blank}{voter:x}")?;
        }
        f.write_str(")")
    }
}

/// One or two sets of voters; both must agree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Joint {
    /// The voters that stay.
    pub incoming: Majority,
    /// The voters before the change; empty if no change is under way.
    pub outgoing: Majority,
}

impl Joint {
    /// The greatest number that both halves have reached.
    pub fn committed(&self, reached: impl Fn(NodeId) -> Option<u64>) -> u64 {
        self.incoming.committed(&reached).min(self.outgoing.committed(&reached))
    }

    /// How a vote stands: one half can lose it, both must win it.
    pub fn vote_result(&self, vote: impl Fn(NodeId) -> Option<bool>) -> VoteResult {
        match (self.incoming.vote_result(&vote), self.outgoing.vote_result(&vote)) {
            (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
            (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
            _ => VoteResult::Pending,
        }
    }

    /// Whether this node votes in either half.
    pub fn contains(&self, id: NodeId) -> bool {
        self.incoming.contains(id) || self.outgoing.contains(id)
    }

    /// Who votes in either half, ascending.
    pub fn ids(&self) -> Vec<NodeId> {
        let both = [self.incoming.voters(), self.outgoing.voters()].concat();
        Majority::new(both).voters
    }

    /// Whether a change is under way.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }
}

impl fmt::Display for Joint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.incoming)?;
        if self.is_joint() {
            write!(f, "&&{}", self.outgoing)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// All ways to choose a quorum, tried one by one: the greatest number that all members of some quorum reached.
    fn committed_by_brute_force(voters: &[NodeId], reached: &BTreeMap<NodeId, u64>) -> u64 {
        if voters.is_empty() {
            return u64::MAX;
        }
        let quorums = (0u32..1 << voters.len())
            .filter(|set| set.count_ones() as usize > voters.len() / 2)
            .map(|set| {
                let members = voters.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1);
                members.map(|(_, id)| reached.get(id).copied().unwrap_or(0)).min().unwrap()
            });
        quorums.max().unwrap()
    }

    /// All ways to cast the missing votes, tried one by one.
    fn vote_by_brute_force(joint: &Joint, votes: &BTreeMap<NodeId, bool>) -> VoteResult {
        let missing: Vec<_> =
            joint.ids().into_iter().filter(|id| !votes.contains_key(id)).collect();
        let won = |set: u32| {
            let mut votes = votes.clone();
            votes.extend(missing.iter().enumerate().map(|(bit, id)| (*id, set >> bit & 1 == 1)));
            [&joint.incoming, &joint.outgoing].iter().all(|half| {
                let yes = half.voters.iter().filter(|id| votes[id]).count();
                half.is_empty() || yes > half.voters.len() / 2
            })
        };
        let ways: Vec<bool> = (0..1 << missing.len()).map(won).collect();
        match (ways.contains(&true), ways.contains(&false)) {
            (true, false) => VoteResult::Won,
            (false, _) => VoteResult::Lost,
            _ => VoteResult::Pending,
        }
    }

    proptest! {
        #[test]
        fn what_is_committed_is_what_some_quorum_of_each_half_has_reached(
            incoming in prop::collection::vec(1u64..9, 0..6),
            outgoing in prop::collection::vec(1u64..9, 0..6),
            reached in prop::collection::btree_map(1u64..9, 0u64..6, 0..9),
        ) {
            let joint = Joint { incoming: Majority::new(incoming), outgoing: Majority::new(outgoing) };
            let expected = committed_by_brute_force(&joint.incoming.voters, &reached)
                .min(committed_by_brute_force(&joint.outgoing.voters, &reached));
            prop_assert_eq!(joint.committed(|id| reached.get(&id).copied()), expected);
        }

        #[test]
        fn a_vote_is_decided_when_no_missing_vote_can_change_it(
            incoming in prop::collection::vec(1u64..8, 0..6),
            outgoing in prop::collection::vec(1u64..8, 0..6),
            votes in prop::collection::btree_map(1u64..8, any::<bool>(), 0..8),
        ) {
            let joint = Joint { incoming: Majority::new(incoming), outgoing: Majority::new(outgoing) };
            prop_assert_eq!(
                joint.vote_result(|id| votes.get(&id).copied()),
                vote_by_brute_force(&joint, &votes)
            );
        }

        #[test]
        fn two_quorums_always_share_a_voter(
            voters in prop::collection::btree_set(1u64..12, 1..11),
            yes in prop::collection::btree_set(1u64..12, 0..11),
        ) {
            let majority = Majority::new(voters.into_iter().collect());
            let for_it = majority.vote_result(|id| Some(yes.contains(&id)));
            let for_the_other = majority.vote_result(|id| Some(!yes.contains(&id)));
            prop_assert!(!(for_it == VoteResult::Won && for_the_other == VoteResult::Won));
        }
    }
}
