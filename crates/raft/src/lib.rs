//! Consensus as a pure state machine.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
pub mod membership;
pub mod message;
pub mod ready;

pub use config::{Config, NewError, ReadOnly};
pub use membership::{
    ConfChange, ConfChangeError, ConfChangeKind, ConfChangeSingle, ConfChangeTransition,
    ConfChangeV2,
};
pub use message::*;
pub use ready::{Fetch, OwnMessage, Persisted, ReadState, Ready, RoleKind, SoftState};

use bytes::Bytes;
use std::fmt;

/// What is read back from disk at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Term, vote and commit. A commit below `applied` is raised to it.
    pub hard_state: HardState,
    /// The configuration at `applied`.
    pub conf_state: ConfState,
    /// How far the state machine has applied the log; at least `base`.
    pub applied: Index,
    /// The log begins after this entry, index and term; (0, 0) for a log that is whole.
    pub base: (Index, Term),
    /// The terms of the entries after `base` that are not in `entries`: each pair is the first index of a run
    /// of entries of one term. May reach into `entries`, and may then be empty if `entries` begins after `base`.
    pub term_runs: Vec<(Index, Term)>,
    /// The log's tail in memory; it must hold all entries after `applied`.
    pub entries: Vec<Entry>,
}

/// Why an input was refused. The node's state is as before, except that a newer term may have been taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepError {
    /// A message that only a node's own parts may send.
    LocalMessage,
    /// An answer from a node that is not in the configuration.
    PeerNotFound,
    /// The proposal was dropped: no leader, a transfer under way, or too much uncommitted. Try again later.
    ProposalDropped,
    /// A message that no correct peer sends. Its connection deserves suspicion.
    Malformed(&'static str),
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StepError::LocalMessage => write!(f, "raft: cannot step raft local message"),
            StepError::PeerNotFound => {
                write!(f, "raft: cannot step as peer not found")
            }
            StepError::ProposalDropped => write!(f, "raft proposal dropped"),
            StepError::Malformed(why) => write!(f, "raft: malformed message: {why}"),
        }
    }
}

impl std::error::Error for StepError {}

/// How the leader replicates to one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProgressState {
    /// It is not known where the follower's log matches: one append per heartbeat.
    Probe,
    /// Appends are pipelined.
    Replicate,
    /// A snapshot is under way; appends wait for it.
    Snapshot,
}

/// What a leader knows about one peer, for humans and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerStatus {
    /// The peer.
    pub id: NodeId,
    /// Its log is known to match up to here.
    pub matched: Index,
    /// The next entry to send.
    pub next: Index,
    /// How it is replicated to.
    pub state: ProgressState,
    /// Whether it learns only.
    pub learner: bool,
    /// Whether appends to it are held back.
    pub paused: bool,
    /// The index of the snapshot under way, or 0.
    pub pending_snapshot: Index,
    /// Whether it was heard from lately.
    pub recent_active: bool,
    /// Append messages in flight.
    pub inflight: usize,
    /// Whether no more may be in flight.
    pub inflight_full: bool,
}

/// A node's state, for humans and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The node.
    pub id: NodeId,
    /// Its role.
    pub role: RoleKind,
    /// The leader as far as known, or 0.
    pub leader: NodeId,
    /// Its term.
    pub term: Term,
    /// Its vote in that term, or 0.
    pub vote: NodeId,
    /// The committed index.
    pub commit: Index,
    /// The applied index.
    pub applied: Index,
    /// The last entry of the log.
    pub last: Index,
    /// To whom leadership is being transferred, or 0.
    pub transferee: NodeId,
    /// The configuration in force.
    pub conf_state: ConfState,
    /// Every peer and the leader itself, ascending; empty unless leader.
    pub peers: Vec<PeerStatus>,
}

/// One node of a raft group.
pub struct Raft {}

#[allow(unused_variables)]
impl Raft {
    /// Makes a node from what its disk remembers. It starts as a follower.
    pub fn new(config: Config, restored: Restored) -> Result<Raft, NewError> {
        unimplemented!("first landing")
    }
    /// One unit of time has passed.
    pub fn tick(&mut self) {
        unimplemented!("first landing")
    }
    /// A peer's message. Never panics, whatever it says.
    pub fn step(&mut self, message: Message) -> Result<(), StepError> {
        unimplemented!("first landing")
    }
    /// Campaigns now (with a pre-vote first if configured), unless this node leads or must not campaign.
    pub fn campaign(&mut self) {
        unimplemented!("first landing")
    }
    /// Proposes commands; all are appended, in this order, or none. A follower forwards them.
    pub fn propose(&mut self, commands: Vec<Bytes>) -> Result<(), StepError> {
        unimplemented!("first landing")
    }
    /// Proposes one entry of any kind.
    pub fn propose_entry(&mut self, kind: EntryKind, data: Bytes) -> Result<(), StepError> {
        unimplemented!("first landing")
    }
    /// Proposes a membership change of one node, as etcd's members do. A leader that may not append it now appends an
    /// empty entry in its stead.
    pub fn propose_conf_change(&mut self, change: &ConfChange) -> Result<(), StepError> {
        unimplemented!("first landing")
    }
    /// Proposes a membership change, joint or not.
    pub fn propose_conf_change_v2(&mut self, change: &ConfChangeV2) -> Result<(), StepError> {
        unimplemented!("first landing")
    }
    /// Asks for a read index; the answer is a [`ReadState`] with this context. It may never come (no leader, lost
    /// message, change of term): ask again.
    pub fn read_index(&mut self, context: Bytes) {
        unimplemented!("first landing")
    }
    /// Hands leadership over (thesis §3.10); a follower asks its leader to.
    pub fn transfer_leader(&mut self, transferee: NodeId) {
        unimplemented!("first landing")
    }
    /// A follower forgets its leader, so that it may vote for another before its timeout.
    pub fn forget_leader(&mut self) {
        unimplemented!("first landing")
    }
    /// The last message to this peer may be lost.
    pub fn report_unreachable(&mut self, id: NodeId) {
        unimplemented!("first landing")
    }
    /// The snapshot sent to this peer has arrived, or failed.
    pub fn report_snapshot(&mut self, id: NodeId, ok: bool) {
        unimplemented!("first landing")
    }
    /// The configuration that [`Raft::apply_conf_change`] would switch to.
    pub fn would_switch_to(&self, change: &ConfChangeV2) -> Result<ConfState, ConfChangeError> {
        unimplemented!("first landing")
    }
    /// Switches the configuration, when a committed change is applied and before `on_applied` of its entry. On error nothing
    /// has changed.
    pub fn apply_conf_change(
        &mut self,
        change: &ConfChangeV2,
    ) -> Result<ConfState, ConfChangeError> {
        unimplemented!("first landing")
    }
    /// The snapshot that a `Snap` message will name. Without one at or above the log's base, raft names its own applied
    /// index and configuration with no data; whoever sends the message may put in what it really streams.
    pub fn offer_snapshot(&mut self, snapshot: Snapshot) {
        unimplemented!("first landing")
    }
    /// Drops the log up to and including this applied and durable index; whoever needs it gets a snapshot.
    pub fn release(&mut self, up_to: Index) {
        unimplemented!("first landing")
    }
    /// Drops applied and durable entries from memory, oldest first, until at most this many bytes are left. Their terms
    /// stay; they are read back with a [`Fetch`].
    pub fn evict(&mut self, bytes: u64) {
        unimplemented!("first landing")
    }
    /// Bytes of entries in memory.
    pub fn bytes_in_memory(&self) -> u64 {
        unimplemented!("first landing")
    }
    /// Whether [`Raft::ready`] has anything to say.
    pub fn has_ready(&self) -> bool {
        unimplemented!("first landing")
    }
    /// What must happen next.
    pub fn ready(&mut self) -> Ready {
        unimplemented!("first landing")
    }
    /// The append with this receipt, and all before it, are durable.
    pub fn on_persisted(&mut self, persisted: Persisted) {
        unimplemented!("first landing")
    }
    /// The state machine now is this snapshot. Entries behind it are handed out from here on.
    pub fn on_snapshot_installed(&mut self, index: Index) {
        unimplemented!("first landing")
    }
    /// The state machine has applied everything up to here.
    pub fn on_applied(&mut self, index: Index) {
        unimplemented!("first landing")
    }
    /// The answer to a [`Fetch`]: entries from its `low` on, in order, without a gap; none if the read failed.
    pub fn on_fetched(&mut self, to: NodeId, low: Index, entries: Vec<Entry>) {
        unimplemented!("first landing")
    }
    /// The node's own name.
    pub fn id(&self) -> NodeId {
        unimplemented!("first landing")
    }
    /// Its role.
    pub fn role(&self) -> RoleKind {
        unimplemented!("first landing")
    }
    /// The leader as far as known, or 0.
    pub fn leader(&self) -> NodeId {
        unimplemented!("first landing")
    }
    /// Its term.
    pub fn term(&self) -> Term {
        unimplemented!("first landing")
    }
    /// The committed index.
    pub fn commit(&self) -> Index {
        unimplemented!("first landing")
    }
    /// The applied index.
    pub fn applied(&self) -> Index {
        unimplemented!("first landing")
    }
    /// The last entry's index.
    pub fn last_index(&self) -> Index {
        unimplemented!("first landing")
    }
    /// The index that the log begins after.
    pub fn base_index(&self) -> Index {
        unimplemented!("first landing")
    }
    /// The term of an entry; `None` if it was released or does not exist.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        unimplemented!("first landing")
    }
    /// Whether an entry of the current term is committed; a leader may answer reads only then (thesis §6.4).
    pub fn committed_in_term(&self) -> bool {
        unimplemented!("first landing")
    }
    /// The configuration in force.
    pub fn conf_state(&self) -> ConfState {
        unimplemented!("first landing")
    }
    /// A leader whose log may hold a membership change that is not yet applied.
    pub fn conf_change_pending(&self) -> bool {
        unimplemented!("first landing")
    }
    /// Overrides the randomized election timeout until the next change of role; for tests and simulation.
    pub fn set_election_timeout(&mut self, ticks: u32) {
        unimplemented!("first landing")
    }
    /// A picture of the whole node.
    pub fn status(&self) -> Status {
        unimplemented!("first landing")
    }
}
