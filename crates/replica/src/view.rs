//! What every thread of the process may look at without asking: the applied state, and where the member stands.
//!
//! Order is everything here. The apply worker publishes the state first, the applied index after it, and looks at
//! the shards' flags last. A shard raises its flag first and reads the applied index after it. So of a shard that
//! begins to wait and an apply that finishes, at least one sees the other. All of it is sequentially consistent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use raft::{Index, NodeId, Term};

use crate::config::Identity;
use crate::waiters::Shard;

/// A look at one member. Cheap to clone; a clone per thread.
#[derive(Clone, Debug)]
pub struct View {
    /// The applied state: keys, leases, members, versions.
    pub state: state_machine::View,
    standing: Arc<Standing>,
}

/// The words that replica and apply publish. Each has one writer.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) identity: Identity,
    pub(crate) shards: u8,
    // Written by the replica.
    lone: AtomicBool,
    leader: AtomicU64,
    term: AtomicU64,
    committed: AtomicU64,
    learner: AtomicBool,
    // Written by apply.
    applied: AtomicU64,
    // Written by flush.
    size: AtomicU64,
    size_in_use: AtomicU64,
    // Written by the shards, a bit each.
    watching: AtomicU64,
    waiting: AtomicU64,
}

impl View {
    pub(crate) fn new(state: state_machine::View, standing: Arc<Standing>) -> View {
        View { state, standing }
    }

    /// Whether a linearizable read may be served from here at once, without a read index: this member is the only
    /// one, leads, and has applied an entry of its term.
    pub fn lone(&self) -> bool {
        self.standing.lone.load(SeqCst)
    }

    /// The applied index that every reader sees at least.
    pub fn applied(&self) -> Index {
        Index(self.standing.applied.load(SeqCst))
    }

    /// The committed index as of the replica's last turn.
    pub fn committed(&self) -> Index {
        Index(self.standing.committed.load(SeqCst))
    }

    /// The term as of the replica's last turn.
    pub fn term(&self) -> Term {
        Term(self.standing.term.load(SeqCst))
    }

    /// Who leads as far as is known here; 0 if nobody.
    pub fn leader(&self) -> NodeId {
        self.standing.leader.load(SeqCst)
    }

    /// Whether this member leads, as far as it knows.
    pub fn leads(&self) -> bool {
        self.leader() == self.standing.identity.node_id
    }

    /// Whether this member only learns.
    pub fn is_learner(&self) -> bool {
        self.standing.learner.load(SeqCst)
    }

    /// Whose data this is.
    pub fn identity(&self) -> Identity {
        self.standing.identity
    }

    /// Bytes of the store's segments, and of them those that live, as of the last write.
    pub fn sizes(&self) -> (u64, u64) {
        (self.standing.size.load(SeqCst), self.standing.size_in_use.load(SeqCst))
    }

    /// Says whether this shard has watchers. Raise it before reading the revision from which a watcher starts; lower
    /// it when the last is gone.
    pub fn set_watching(&self, shard: Shard, watching: bool) {
        set_bit(&self.standing.watching, shard, watching);
    }

    /// Says whether this shard has reads that wait for an index to be applied. Raise it before reading
    /// [`View::applied`]; while it is up, a [`crate::ToShard`] comes after each batch of entries.
    pub fn set_waiting(&self, shard: Shard, waiting: bool) {
        set_bit(&self.standing.waiting, shard, waiting);
    }
}

impl Standing {
    pub(crate) fn new(identity: Identity, shards: u8, applied: Index) -> Standing {
        Standing {
            identity,
            shards,
            lone: AtomicBool::new(false),
            leader: AtomicU64::new(raft::NONE),
            term: AtomicU64::new(0),
            committed: AtomicU64::new(applied.0),
            learner: AtomicBool::new(false),
            applied: AtomicU64::new(applied.0),
            size: AtomicU64::new(0),
            size_in_use: AtomicU64::new(0),
            watching: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
        }
    }

    pub(crate) fn set_lone(&self, lone: bool) {
        self.lone.store(lone, SeqCst);
    }

    pub(crate) fn lone(&self) -> bool {
        self.lone.load(SeqCst)
    }

    pub(crate) fn set_leader(&self, leader: NodeId, term: Term) {
        self.term.store(term.0, SeqCst);
        self.leader.store(leader, SeqCst);
    }

    pub(crate) fn set_learner(&self, learner: bool) {
        self.learner.store(learner, SeqCst);
    }

    pub(crate) fn set_committed(&self, committed: Index) {
        self.committed.store(committed.0, SeqCst);
    }

    pub(crate) fn applied(&self) -> Index {
        Index(self.applied.load(SeqCst))
    }

    pub(crate) fn set_applied(&self, applied: Index) {
        self.applied.store(applied.0, SeqCst);
    }

    pub(crate) fn set_sizes(&self, size: u64, in_use: u64) {
        self.size.store(size, SeqCst);
        self.size_in_use.store(in_use, SeqCst);
    }

    /// The shards with watchers and those with waiting reads, a bit each.
    pub(crate) fn flags(&self) -> (u64, u64) {
        (self.watching.load(SeqCst), self.waiting.load(SeqCst))
    }
}

fn set_bit(word: &AtomicU64, shard: Shard, on: bool) {
    let bit = 1u64 << shard.0;
    if on {
        word.fetch_or(bit, SeqCst);
    } else {
        word.fetch_and(!bit, SeqCst);
    }
}
