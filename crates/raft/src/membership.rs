//! Membership: the configuration in force, the changes that lead from one to the next, and their raftpb bytes.

use crate::message::*;
use bytes::Bytes;
use std::fmt;

/// What happens to one node. The numbers are raftpb's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum ConfChangeKind {
    /// It becomes a voter.
    #[default]
    AddNode = 0,
    /// It leaves.
    RemoveNode = 1,
    /// Nothing that raft would know of.
    UpdateNode = 2,
    /// It becomes a learner.
    AddLearnerNode = 3,
}

/// A change of one node, as etcd's members write it into the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfChange {
    /// The proposer's name for it.
    pub id: u64,
    /// What happens.
    pub kind: ConfChangeKind,
    /// To whom; 0 makes it a change of nothing.
    pub node_id: NodeId,
    /// Opaque to raft.
    pub context: Bytes,
}

/// One step of a [`ConfChangeV2`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfChangeSingle {
    /// What happens.
    pub kind: ConfChangeKind,
    /// To whom; 0 makes it a change of nothing.
    pub node_id: NodeId,
}

/// Whether and how a change goes through a joint configuration (thesis §4.3). The numbers are raftpb's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum ConfChangeTransition {
    /// Joint only if more than one step; the joint configuration is then left by itself.
    #[default]
    Auto = 0,
    /// Joint, and left by itself.
    JointImplicit = 1,
    /// Joint, and left by an empty change.
    JointExplicit = 2,
}

/// A change of any number of nodes; without any it leaves a joint configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfChangeV2 {
    /// How.
    pub transition: ConfChangeTransition,
    /// What, in order.
    pub changes: Vec<ConfChangeSingle>,
    /// Opaque to raft.
    pub context: Bytes,
}

/// Why a change cannot be made to a configuration, or bytes are not a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfChangeError {
    /// The bytes are not raftpb's, or name a kind that does not exist.
    Undecodable,
    /// The configuration does not allow it.
    Refused(&'static str),
}

impl fmt::Display for ConfChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfChangeError::Undecodable => write!(f, "not a membership change"),
            ConfChangeError::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ConfChangeError {}

impl ConfChange {
    /// Its raftpb bytes; all scalars are written, as gogo's encoder does.
    pub fn encode(&self) -> Bytes {
        unimplemented!("first landing")
    }
    /// Reads raftpb bytes; unknown fields are skipped.
    pub fn decode(_bytes: &[u8]) -> Result<ConfChange, ConfChangeError> {
        unimplemented!("first landing")
    }
    /// The same change in the general form.
    pub fn as_v2(&self) -> ConfChangeV2 {
        unimplemented!("first landing")
    }
}

impl ConfChangeV2 {
    /// Its raftpb bytes; the change that leaves a joint configuration may be empty.
    pub fn encode(&self) -> Bytes {
        unimplemented!("first landing")
    }
    /// Reads raftpb bytes; unknown fields are skipped.
    pub fn decode(_bytes: &[u8]) -> Result<ConfChangeV2, ConfChangeError> {
        unimplemented!("first landing")
    }
    /// Reads the change that an entry carries: `None` if the entry is a normal one.
    pub fn of_entry(_entry: &Entry) -> Result<Option<ConfChangeV2>, ConfChangeError> {
        unimplemented!("first landing")
    }
}
