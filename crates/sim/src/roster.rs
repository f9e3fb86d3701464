//! Who belongs to the cluster: what a membership change means, written down a second time, as simply as it can be.
//!
//! A roster is fed with the changes of the log, in their order, by the checker. It shares no line with raft's
//! configurations or the state machine's tables, which are compared with it.

use std::collections::BTreeSet;

use bytes::Bytes;
use raft::{ConfChange, ConfChangeKind, NodeId};
use state_machine::{Cluster, MembershipChange};

/// etcd's texts of the refusals that can occur here.
const NOT_FOUND: &str = "etcdserver: member not found";
const EXISTS: &str = "etcdserver: member ID already exist";
const NOT_LEARNER: &str = "etcdserver: can only promote a learner member";
const TOO_MANY_LEARNERS: &str = "etcdserver: too many learner members in cluster";
/// So many learners there may be at a time.
const LEARNERS_MAX: usize = 1;

/// A membership change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What is to become of the member.
    pub kind: ChangeKind,
    /// Which.
    pub node: NodeId,
}

/// What can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It joins, and learns.
    AddLearner,
    /// It joins, and votes.
    AddVoter,
    /// It has learned, and votes from now on.
    Promote,
    /// It leaves for ever.
    Remove,
}

impl Change {
    /// In a few words, for traces.
    pub fn name(self) -> &'static str {
        match self.kind {
            ChangeKind::AddLearner => "learner joins",
            ChangeKind::AddVoter => "voter joins",
            ChangeKind::Promote => "learner votes",
            ChangeKind::Remove => "member leaves",
        }
    }

    /// As an entry says it, under this name.
    pub fn encode(self, id: u64) -> Bytes {
        let (kind, context) = match self.kind {
            ChangeKind::AddLearner => {
                (ConfChangeKind::AddLearnerNode, member(self.node, true).to_context())
            }
            ChangeKind::AddVoter => {
                (ConfChangeKind::AddNode, member(self.node, false).to_context())
            }
            ChangeKind::Promote => {
                (ConfChangeKind::AddNode, MembershipChange::promote_context(self.node))
            }
            ChangeKind::Remove => (ConfChangeKind::RemoveNode, Bytes::new()),
        };
        ConfChange { id, kind, node_id: self.node, context }.encode()
    }
}

/// What the tables say of a member that joins.
fn member(id: NodeId, is_learner: bool) -> state_machine::Member {
    state_machine::Member {
        id,
        peer_urls: vec![format!("http://10.0.0.{id}:2380")],
        is_learner,
        ..state_machine::Member::default()
    }
}

/// Who belongs to the cluster, and who once did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// Those who vote.
    pub voters: BTreeSet<NodeId>,
    /// Those who only learn.
    pub learners: BTreeSet<NodeId>,
    /// Those who left.
    pub removed: BTreeSet<NodeId>,
}

impl Roster {
    /// That of a new cluster of so many founders.
    pub fn founded(members: usize) -> Roster {
        Roster { voters: (1..=members as u64).collect(), ..Roster::default() }
    }

    /// That after a change, or why the change is refused.
    pub fn after(&self, change: Change) -> Result<Roster, &'static str> {
        let (mut next, node) = (self.clone(), change.node);
        if self.removed.contains(&node) {
            return Err(NOT_FOUND);
        }
        match change.kind {
            ChangeKind::AddLearner | ChangeKind::AddVoter if self.contains(node) => {
                return Err(EXISTS);
            }
            ChangeKind::AddLearner if self.learners.len() >= LEARNERS_MAX => {
                return Err(TOO_MANY_LEARNERS);
            }
            ChangeKind::Promote | ChangeKind::Remove if !self.contains(node) => {
                return Err(NOT_FOUND);
            }
            ChangeKind::Promote if !self.learners.contains(&node) => return Err(NOT_LEARNER),
            ChangeKind::AddLearner => {
                next.learners.insert(node);
            }
            ChangeKind::AddVoter => {
                next.voters.insert(node);
            }
            ChangeKind::Promote => {
                next.learners.remove(&node);
                next.voters.insert(node);
            }
            ChangeKind::Remove => {
                next.voters.remove(&node);
                next.learners.remove(&node);
                next.removed.insert(node);
            }
        }
        Ok(next)
    }

    /// Whether it belongs to the cluster.
    pub fn contains(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }

    /// How many belong to it.
    pub fn len(&self) -> usize {
        self.voters.len() + self.learners.len()
    }

    /// All who belong to it.
    pub fn all(&self) -> impl Iterator<Item = NodeId> {
        self.voters.iter().chain(&self.learners).copied()
    }

    /// So many voters are a majority.
    pub fn quorum(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// Whether a majority of the voters is so.
    pub fn has_quorum(&self, mut is_so: impl FnMut(usize) -> bool) -> bool {
        let count = self.voters.iter().filter(|node| is_so(**node as usize - 1)).count();
        count >= self.quorum()
    }

    /// Whether a member's tables say the same.
    pub fn is_in(&self, cluster: &Cluster) -> bool {
        let of = |is_learner: bool| -> Vec<NodeId> {
            let members = cluster.members.values();
            members.filter(|member| member.is_learner == is_learner).map(|m| m.id).collect()
        };
        let ids = |set: &BTreeSet<NodeId>| -> Vec<NodeId> { set.iter().copied().collect() };
        let raft = &cluster.conf_state;
        (of(false), of(true)) == (ids(&self.voters), ids(&self.learners))
            && cluster.removed == self.removed
            && (&raft.voters, &raft.learners) == (&ids(&self.voters), &ids(&self.learners))
            && raft.voters_outgoing.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_left_never_comes_back_and_one_learns_at_a_time() {
        let change = |kind, node| Change { kind, node };
        let roster = Roster::founded(3);
        let learns = roster.after(change(ChangeKind::AddLearner, 4)).unwrap();
        assert_eq!((learns.len(), learns.quorum()), (4, 2));
        let too_many = learns.after(change(ChangeKind::AddLearner, 5));
        assert_eq!(too_many, Err(TOO_MANY_LEARNERS));
        assert_eq!(learns.after(change(ChangeKind::Promote, 3)), Err(NOT_LEARNER));
        let votes = learns.after(change(ChangeKind::Promote, 4)).unwrap();
        assert_eq!((votes.len(), votes.quorum()), (4, 3));
        let left = votes.after(change(ChangeKind::Remove, 1)).unwrap();
        assert!(!left.contains(1));
        for kind in [ChangeKind::AddVoter, ChangeKind::AddLearner, ChangeKind::Remove] {
            assert_eq!(left.after(change(kind, 1)), Err(NOT_FOUND));
        }
        assert_eq!(left.after(change(ChangeKind::AddVoter, 2)), Err(EXISTS));
    }
}
