//! What a replica wants done: one record of plain lists per turn.

use std::sync::Arc;

use mvcc::Batch;
use raft::{ConfState, Index, Message, NodeId, Term};
use state_machine::{Reply, RequestId};

use crate::input::Asker;
use crate::job::{ApplyJob, Failure, FlushJob, LogJob, ReadJob};
use crate::snapshot::OutgoingSnapshot;
use crate::trace::Traces;
use crate::waiters::Shard;

/// Everything that one turn has decided. Nothing in it waits for anything else in it: each list may go to its
/// thread at once, and the lists of jobs must reach their worker in the order in which they were given.
#[derive(Debug, Default)]
pub struct Output {
    /// To other members, now.
    pub messages: Vec<Message>,
    /// Snapshots to send.
    pub snapshots: Vec<OutgoingSnapshot>,
    /// Jobs for the log thread.
    pub log: Vec<LogJob>,
    /// Jobs for the apply thread.
    pub apply: Vec<ApplyJob>,
    /// Jobs for the flush thread.
    pub flush: Vec<FlushJob>,
    /// Jobs for any of the read threads.
    pub reads: Vec<ReadJob>,
    /// Answers, at most one batch per shard.
    pub answers: Vec<(Shard, Vec<Answer>)>,
    /// Answers to the peer listener.
    pub peer_answers: Vec<LeaseAnswer>,
    /// What the driver should know.
    pub notices: Vec<Notice>,
    /// What happened in the mind, if it is told.
    pub trace: Traces,
}

impl Output {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.snapshots.is_empty()
            && self.log.is_empty()
            && self.apply.is_empty()
            && self.flush.is_empty()
            && self.reads.is_empty()
            && self.answers.is_empty()
            && self.peer_answers.is_empty()
            && self.notices.is_empty()
            && self.trace.is_empty()
    }
}

/// What the replica itself answers to a shard. Replies to proposals come from the apply worker instead, in a
/// [`ToShard`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A proposal was not taken; it may be answered at once. (One that was taken is answered by its reply or by its
    /// deadline.)
    Refused {
        /// The proposal.
        id: RequestId,
        /// Why.
        why: Refusal,
    },
    /// A batch of reads may be served once this index is applied here, or not at all.
    Read {
        /// The shard's name for the batch.
        batch: u64,
        /// The read index.
        result: Result<Index, Refusal>,
    },
    /// What a lease's clock says.
    Lease(LeaseAnswer),
    /// A leadership transfer came about, or not.
    Transferred {
        /// The shard's name for the question.
        token: u64,
        /// Whether it did.
        result: Result<(), Refusal>,
    },
}

/// Why the replica does not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many committed entries wait to be applied: `etcdserver: too many requests`.
    TooManyRequests,
    /// The entry would be larger than max-request-bytes: `etcdserver: request is too large`.
    TooLarge,
    /// No leader was known for too long, or too many already wait for one: `etcdserver: no leader`.
    NoLeader,
    /// raft did not take it (a leadership transfer is under way): `raft proposal dropped`.
    Dropped,
    /// The leader changed while a read waited: `etcdserver: leader changed`.
    LeaderChanged,
    /// The deadline passed: `etcdserver: request timed out`.
    TimedOut,
    /// Only the leader can do this: `etcdserver: not leader`.
    NotLeader,
    /// The transfer's target does not vote: `etcdserver: bad leader transferee`.
    BadTransferee,
    /// This member is ending: `etcdserver: server stopped`.
    Stopped,
}

/// The answer to a [`crate::LeaseAsk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseAnswer {
    /// Who asked.
    pub asker: Asker,
    /// Which lease.
    pub lease: i64,
    /// What the clock says.
    pub result: Result<LeaseTime, LeaseRefusal>,
}

/// What the clock says about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseTime {
    /// It lives `ttl` seconds from now on.
    KeptAlive {
        /// The granted TTL in seconds.
        ttl: i64,
    },
    /// It lives `remaining` of its `granted` seconds; etcd rounds down.
    Remaining {
        /// Seconds left, which may be negative when its revoke is under way.
        remaining: i64,
        /// The TTL as granted, in seconds.
        granted: i64,
    },
    /// There is no such lease.
    Unknown,
}

/// Why the clock does not say anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseRefusal {
    /// This member does not lead; ask that one.
    Forward {
        /// Who leads, as far as is known here.
        leader: NodeId,
    },
    /// Nobody leads, as far as is known here.
    NoLeader,
    /// It ceased to lead while the question waited: `not a primary lessor`, or ask anew.
    LeadershipLost,
    /// What was committed when the question came was not applied in time.
    ApplyTooSlow,
    /// Too many questions wait.
    TooManyRequests,
    /// This member is ending.
    Stopped,
}

/// What the apply worker sends to one shard after a batch of entries: the driver delivers it whole.
///
/// The shard takes `batches` first, then `replies`; `applied` is already published when this is sent.
#[derive(Debug)]
pub struct ToShard {
    /// The receiver.
    pub shard: Shard,
    /// The applied index that is visible to all readers by now.
    pub applied: Index,
    /// The events, for a shard that had its watching flag up; in order of revision.
    pub batches: Vec<Arc<Batch>>,
    /// Replies to this shard's proposals, in log order.
    pub replies: Vec<Applied>,
    /// The memory was exchanged for that of a received snapshot: every watcher of this shard becomes Lagging.
    pub exchanged: bool,
}

/// The reply to one proposal.
#[derive(Debug)]
pub struct Applied {
    /// Its name.
    pub id: RequestId,
    /// The index of its entry.
    pub index: Index,
    /// The term of its entry, for the header.
    pub term: Term,
    /// The revision of the keyspace after it, for the header.
    pub revision: i64,
    /// What the state machine says.
    pub result: Result<Reply, state_machine::Error>,
}

/// How much room the store finds on its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Space {
    /// Enough.
    #[default]
    Plenty,
    /// What was set aside for this day is in use, or could not be set aside.
    Short,
    /// None: frames wait in memory. Reclaim goes on with what was set aside for it; when too much waits, nothing more is
    /// applied and no proposals are taken, until there is room again.
    Full,
}

/// What the driver should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The leader is another, or none (0), or the term is another.
    Leader {
        /// Who leads.
        leader: NodeId,
        /// In which term.
        term: Term,
    },
    /// There is a leader, and everything that was committed when it became known is applied: said once.
    Ready,
    /// The configuration is another: the members' addresses stand in the view.
    Membership(ConfState),
    /// This member was removed from the cluster: said when that is applied, and at each start after that. It should end, a second later or so: until then it may still tell
    /// the others that its removal is committed.
    Removed,
    /// A snapshot was received and put into force.
    SnapshotInstalled {
        /// Where it stands.
        index: Index,
        /// Its term.
        term: Term,
    },
    /// Files of the log were released up to this index.
    LogReleased {
        /// The last index that is gone.
        index: Index,
    },
    /// The store finds more room on its disk than before, or less.
    Space(Space),
    /// Something on the disk cannot be read any more, in a sentence that says what and where.
    Damage(String),
    /// Entries are gone that this member acknowledged: its data directory was emptied, or is an older copy. It takes part in
    /// no election until a later leader has restored it. Said once in a life.
    Forgotten {
        /// What the leader has a receipt for, at least.
        acknowledged: Index,
        /// The last entry here.
        last: Index,
    },
    /// Everything applied is written and synced, and leadership handed over where somebody could take it.
    Stopped,
    /// A write, a sync or a rule failed. The process must end now; nothing is retried.
    Fatal(Failure),
}
