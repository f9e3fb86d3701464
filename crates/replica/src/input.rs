//! What a replica is told: one closed list, all plain data.

use bytes::Bytes;
use raft::{Message, NodeId};
use state_machine::RequestId;

use crate::job::Completion;
use crate::snapshot::Received;
use crate::waiters::Shard;

/// Everything that can happen to a replica.
///
/// The driver may call [`crate::Replica::handle`] many times before it takes the [`crate::Output`]: what came in one
/// such turn is proposed, read and sent together. It keeps separate bounded inboxes for proposals and for all else,
/// and takes from that of the proposals only while [`crate::Replica::takes_proposals`].
#[derive(Debug)]
pub enum Input {
    /// Time has passed: `elapsed` heartbeat intervals since the last tick, normally 1. More than one says that the
    /// process did not run (a pause, an overloaded machine): raft counts one tick all the same, for it has had no
    /// chance to hear anybody meanwhile; the lease clock counts all, and from three on it asks a quorum before it
    /// trusts itself.
    Tick {
        /// How many intervals; 0 counts as 1.
        elapsed: u32,
    },
    /// A shard's proposals of one turn.
    Propose(Proposals),
    /// One shard's reads of one turn want a read index.
    ReadIndex(ReadBatch),
    /// A keep-alive or a time-to-live, of a client or forwarded by a follower.
    Lease(LeaseAsk),
    /// Messages of other members, in the order in which they came. The driver has checked that they are of this
    /// cluster and for this member. A message of kind `Snap` comes by `SnapshotReceived` instead and is dropped here.
    Messages(Vec<Message>),
    /// A peer could not be reached.
    Unreachable(NodeId),
    /// A snapshot came, and lies checked and synced in `member/incoming/` (see [`crate::Incoming`]).
    SnapshotReceived {
        /// The message that it came with.
        message: Box<Message>,
        /// Its file.
        file: Received,
    },
    /// A snapshot was sent, or could not be (see [`crate::OutgoingSnapshot`]).
    SnapshotSent {
        /// To whom.
        to: NodeId,
        /// Whether all of it was accepted.
        ok: bool,
    },
    /// A worker has finished jobs.
    Done(Completion),
    /// Hand the leadership to another voter (MoveLeader).
    TransferLeader {
        /// Who is answered.
        asker: Asker,
        /// The new leader.
        to: NodeId,
    },
    /// End: hand leadership over, take nothing more, write out what is applied; [`crate::Notice::Stopped`] follows.
    Stop,
}

/// Who asked, and is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A shard, which knows the token.
    Shard {
        /// The shard.
        shard: Shard,
        /// Its own name for the question.
        token: u64,
    },
    /// The peer listener, for another member; it knows the token.
    Peer {
        /// Its own name for the question.
        token: u64,
    },
}

/// A shard's proposals of one turn.
#[derive(Clone, Debug)]
pub struct Proposals {
    /// Who is answered.
    pub shard: Shard,
    /// In the order in which they are to stand in the log.
    pub list: Vec<Proposal>,
}

/// One thing to put into the log.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Its name; the encoded request carries the same.
    pub id: RequestId,
    /// The bytes for the log, complete: nothing is decided after this.
    pub data: Bytes,
    /// What kind of entry it makes and how it is admitted.
    pub lane: Lane,
}

/// How a proposal is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// A command.
    Ordinary,
    /// A command that frees something (a lease revoke): it gets the wider gap.
    Priority,
    /// A membership change: `data` is an encoded `ConfChange` whose id is the proposal's.
    Membership,
}

/// One shard's reads of one turn: they share a read index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadBatch {
    /// Who is answered.
    pub shard: Shard,
    /// The shard's own name for the batch.
    pub batch: u64,
}

/// A question to the lease clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseAsk {
    /// Who is answered.
    pub asker: Asker,
    /// Which lease.
    pub lease: i64,
    /// What about it.
    pub question: LeaseQuestion,
}

/// What is asked about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseQuestion {
    /// Let it live its whole TTL from now.
    KeepAlive,
    /// How long it still lives.
    TimeToLive,
}
