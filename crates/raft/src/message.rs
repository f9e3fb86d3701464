//! The words of the protocol: entries, states, snapshots and messages.
//!
//! Each type means what the message of the same name in etcd's raftpb means, one to one; turning them into
//! bytes is the work of those who own a wire or a file (`wal`, `server/peer`), for raft itself needs none.

use bytes::Bytes;
use std::fmt;

/// The name of a node; 0 is nobody.
pub type NodeId = u64;

/// Nobody: no leader known, no vote cast.
pub const NONE: NodeId = 0;

/// A place in the log, counted from 1; 0 is before the first entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u64);

/// A term of office, counted from 1; 0 is before the first election (thesis §3.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Index {
    /// The index after this one.
    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }

    /// The index before this one; that of 0 is 0.
    pub fn previous(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

/// What an entry carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A command, or nothing (a new leader's first entry).
    #[default]
    Normal,
    /// A `ConfChange` of one node.
    ConfChange,
    /// A `ConfChangeV2`, joint or not. etcd's members stop at one, so the server never proposes it.
    ConfChangeV2,
}

/// One entry of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entry {
    /// What `data` is.
    pub kind: EntryKind,
    /// The term in which a leader appended it.
    pub term: Term,
    /// Its place.
    pub index: Index,
    /// The payload, carried verbatim and never encoded anew.
    pub data: Bytes,
}

/// What a node must remember across a crash besides its entries (thesis figure 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HardState {
    /// The latest term seen.
    pub term: Term,
    /// Who got the vote in `term`.
    pub vote: NodeId,
    /// The committed index; it may be written late, it is only a hint that saves replay.
    pub commit: Index,
}

/// The configuration: who votes, who only learns, and the joint half if one is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfState {
    /// The (incoming) voters, ascending.
    pub voters: Vec<NodeId>,
    /// The learners, ascending.
    pub learners: Vec<NodeId>,
    /// The outgoing voters of a joint configuration, ascending; empty otherwise.
    pub voters_outgoing: Vec<NodeId>,
    /// Outgoing voters that become learners when the joint configuration ends.
    pub learners_next: Vec<NodeId>,
    /// Whether the leader leaves the joint configuration by itself.
    pub auto_leave: bool,
}

/// Where a snapshot stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SnapshotMetadata {
    /// The configuration at `index`.
    pub conf_state: ConfState,
    /// The last index that it holds.
    pub index: Index,
    /// The term of that index.
    pub term: Term,
}

/// A snapshot as raft sees it: its place, and bytes it does not look at. The state itself travels beside
/// the message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// Opaque to raft.
    pub data: Bytes,
    /// Where it stands.
    pub metadata: SnapshotMetadata,
}

/// What a message says. The numbers are raftpb's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
#[allow(missing_docs)]
pub enum MessageKind {
    #[default]
    Hup = 0,
    Beat = 1,
    Prop = 2,
    App = 3,
    AppResp = 4,
    Vote = 5,
    VoteResp = 6,
    Snap = 7,
    Heartbeat = 8,
    HeartbeatResp = 9,
    Unreachable = 10,
    SnapStatus = 11,
    CheckQuorum = 12,
    TransferLeader = 13,
    TimeoutNow = 14,
    ReadIndex = 15,
    ReadIndexResp = 16,
    PreVote = 17,
    PreVoteResp = 18,
    StorageAppend = 19,
    StorageAppendResp = 20,
    StorageApply = 21,
    StorageApplyResp = 22,
    ForgetLeader = 23,
}

/// A message between nodes. Which fields mean something depends on `kind`, as in raftpb.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Message {
    /// What it says.
    pub kind: MessageKind,
    /// The receiver.
    pub to: NodeId,
    /// The sender.
    pub from: NodeId,
    /// The sender's term; 0 on what is local or forwarded.
    pub term: Term,
    /// The term of the entry at `index`.
    pub log_term: Term,
    /// The index before `entries`, or the one that is acknowledged.
    pub index: Index,
    /// Entries to append, or proposals.
    pub entries: Vec<Entry>,
    /// The sender's committed index.
    pub commit: Index,
    /// A snapshot, in `Snap`.
    pub snapshot: Option<Box<Snapshot>>,
    /// Whether the answer is no.
    pub reject: bool,
    /// Where the rejecting follower's log may match.
    pub reject_hint: Index,
    /// A context that is echoed.
    pub context: Bytes,
    /// The vote to persist, in `StorageAppend`.
    pub vote: NodeId,
    /// Messages to release when the storage work is done, in `StorageAppend` and `StorageApply`.
    pub responses: Vec<Message>,
}
