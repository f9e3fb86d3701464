//! What a node is told once, when it is made: its name, its clocks in ticks, its limits, its manners.

use crate::message::NodeId;
use std::fmt;

/// How linearizable reads learn that the leader still leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReadOnly {
    /// A round of heartbeats, answered by a quorum, confirms it (thesis §6.4). Needs no clock.
    #[default]
    Safe,
    /// The leader's lease is believed. Only as good as the clocks; needs `check_quorum`.
    LeaseBased,
}

/// The configuration of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's own name; not 0 and not one of the two greatest numbers, which raftpb reserves.
    pub id: NodeId,
    /// Ticks without a word from the leader until a follower campaigns; the real timeout is drawn from
    /// `[election_ticks, 2 * election_ticks)`. Greater than `heartbeat_ticks`.
    pub election_ticks: u32,
    /// Ticks between two heartbeats of a leader, at least 1.
    pub heartbeat_ticks: u32,
    /// Most bytes of entries in one append message; one entry always fits. 0 sends entries one by one.
    pub max_size_per_message: u64,
    /// Most append messages in flight to one follower, at least 1.
    pub max_inflight_messages: usize,
    /// Most bytes of entries in flight to one follower; 0 is no limit.
    pub max_inflight_bytes: u64,
    /// Most bytes of proposals not yet applied; more are dropped. 0 is no limit.
    pub max_uncommitted_bytes: u64,
    /// Most bytes of committed entries handed out and not yet applied; 0 is no limit.
    pub max_committed_bytes_per_ready: u64,
    /// The leader steps down when it has not heard from a quorum for an election timeout, and a follower
    /// that hears a leader ignores candidates (thesis §6.2, §4.2.3).
    pub check_quorum: bool,
    /// Ask before campaigning whether it could succeed (thesis §9.6).
    pub pre_vote: bool,
    /// How linearizable reads are confirmed.
    pub read_only: ReadOnly,
    /// Followers drop proposals rather than forward them to the leader.
    pub disable_proposal_forwarding: bool,
    /// The leader appends membership changes without looking whether they are timely. The applier must
    /// then see to it that no two overlap.
    pub disable_conf_change_validation: bool,
    /// A leader that is removed or demoted becomes a follower at once.
    pub step_down_on_removal: bool,
    /// Committed entries may be handed out for applying before they are durable on this node. They are
    /// then durable on a quorum without it.
    pub apply_unstable: bool,
    /// Where the election timeouts are drawn from; the only randomness there is.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            id: 1,
            election_ticks: 10,
            heartbeat_ticks: 1,
            max_size_per_message: 512 * 1024,
            max_inflight_messages: 512,
            max_inflight_bytes: 0,
            max_uncommitted_bytes: 0,
            max_committed_bytes_per_ready: 0,
            check_quorum: true,
            pre_vote: true,
            read_only: ReadOnly::Safe,
            disable_proposal_forwarding: false,
            disable_conf_change_validation: false,
            step_down_on_removal: false,
            apply_unstable: false,
            seed: 0,
        }
    }
}

impl Config {
    /// Refuses what no node could live with.
    pub(crate) fn check(&self) -> Result<(), NewError> {
        let refuse = |why| Err(NewError::Config(why));
        if self.id == 0 || self.id >= u64::MAX - 1 {
            return refuse("the id is reserved");
        }
        if self.heartbeat_ticks == 0 {
            return refuse("heartbeat_ticks must be at least 1");
        }
        if self.election_ticks <= self.heartbeat_ticks {
            return refuse("election_ticks must be greater than heartbeat_ticks");
        }
        if self.max_inflight_messages == 0 {
            return refuse("max_inflight_messages must be at least 1");
        }
        if self.max_inflight_bytes != 0 && self.max_inflight_bytes < self.max_size_per_message {
            return refuse("max_inflight_bytes must not be below max_size_per_message");
        }
        if self.read_only == ReadOnly::LeaseBased && !self.check_quorum {
            return refuse("lease-based reads need check_quorum");
        }
        Ok(())
    }
}

/// Why a node could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewError {
    /// The configuration contradicts itself.
    Config(&'static str),
    /// What was read back from disk does not fit together.
    Restored(String),
}

impl fmt::Display for NewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NewError::Config(why) => write!(f, "raft configuration: {why}"),
            NewError::Restored(why) => write!(f, "restored raft state: {why}"),
        }
    }
}

impl std::error::Error for NewError {}
