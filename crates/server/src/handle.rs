//! What the threads of a member know of each other: their inboxes, the shared view, and the hooks of the peers.
//!
//! ```text
//!   shards ──proposals, reads, lease questions──▶ replica ──jobs──▶ log, apply, flush, read threads
//!      ▲                                             ▲  │                │
//!      │                                completions──┴──│────────────────┤
//!      └──────events, replies (apply)───────────────────│────────────────┘
//!                                             messages  ▼
//!                          messages, snapshots ◀──▶ peers
//! ```
//!
//! What passes between two threads is a batch: an inbox is a list under a std lock that is held for a push or a
//! swap, and its owner is woken once per batch. Each says what happens when it is full.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use raft::{Message, NodeId};
use replica::{
    Answer, Completion, Identity, Input, LeaseAnswer, LeaseAsk, LeaseTime, OutgoingSnapshot,
    Proposals, ReadBatch, ReadJob, ToShard, View,
};

use crate::config::Config;
use crate::http::v2;
use crate::metrics::Metrics;
use crate::serve::limit::Constants;
use crate::serve::seat::AllAnswers;
use crate::serve::status::Status;
use crate::slow::Slow;
use crate::stages::Stages;

/// Bytes of proposals that wait for the replica. A shard that meets them keeps its batch, stops reading each
/// connection that proposes more, and is told when there is room.
const PROPOSAL_BYTES_MAX: usize = 32 << 20;
/// Bytes of other members' messages that wait for the replica. More are dropped: raft sends again.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panics ends the process (see `run`), so a poisoned list is never read for long.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One member, as all its threads see it.
pub struct Node {
    /// What it was told at its start.
    pub config: Config,
    /// Member and cluster.
    pub identity: Identity,
    /// Where received snapshots are written.
    pub vfs: Arc<dyn vfs::Vfs>,
    /// What the replica was told at its start.
    pub replica_config: replica::Config,
    /// The applied state and the standing in raft.
    pub view: View,
    /// Counters for `/metrics`.
    pub metrics: Metrics,
    /// The replica's inbox.
    pub replica: ReplicaInbox,
    /// A mailbox for each shard, by its number.
    pub shards: Vec<Mailbox>,
    /// The read threads' inbox: what clients read.
    pub reads: Inbox<ReadTask>,
    /// The fetching thread's inbox: what the replica reads, and its snapshots' chunks, which other members wait for. No
    /// client's read stands before them.
    pub fetches: Inbox<ReadTask>,
    /// The hashing thread's inbox: reads of the whole store, one after the other.
    pub hashes: Inbox<ReadTask>,
    /// Bytes of answers that wait for their clients.
    pub answer_bytes: AllAnswers,
    /// The log thread's inbox. Bounded by the replica, which keeps so many appends under way and no more.
    pub log: Inbox<replica::LogJob>,
    /// The apply thread's inbox. Bounded by the replica.
    pub apply: Inbox<replica::ApplyJob>,
    /// The flush thread's inbox. Bounded by the replica.
    pub flush: Inbox<replica::FlushJob>,
    /// The peer thread's inbox.
    pub peers: PeerInbox,
    /// What is known of the other members.
    pub peer_table: PeerTable,
    /// What the shards share for the v2 API.
    pub v2: v2::Shared,
    /// What the threads have done lately, and the clock that `now_ms` is read from.
    pub stages: Stages,
    /// The slowest requests.
    pub slow: Slow,
    /// Milliseconds, by `now_ms`, at which the present leader became known; 0 if there never was one.
    pub leader_since_ms: AtomicU64,
    /// What it answers if it is the limit server and no member.
    pub limit: Option<Constants>,
}

impl Node {
    /// A member of so many shards, with empty inboxes.
    pub fn new(
        config: Config,
        vfs: Arc<dyn vfs::Vfs>,
        replica_config: replica::Config,
        view: View,
    ) -> Node {
        Node {
            identity: replica_config.identity,
            vfs,
            view,
            metrics: Metrics::default(),
            replica: ReplicaInbox::default(),
            shards: (0..replica_config.shards).map(|_| Mailbox::default()).collect(),
            reads: Inbox::default(),
            fetches: Inbox::default(),
            hashes: Inbox::default(),
            answer_bytes: AllAnswers::default(),
            log: Inbox::default(),
            apply: Inbox::default(),
            flush: Inbox::default(),
            peers: PeerInbox::default(),
            peer_table: PeerTable::default(),
            stages: Stages::default(),
            slow: Slow::default(),
            leader_since_ms: AtomicU64::new(0),
            limit: None,
            v2: v2::Shared::default(),
            replica_config,
            config,
        }
    }

    /// Milliseconds since the process started. Never goes back.
    pub fn now_ms(&self) -> u64 {
        self.stages.now_us() / 1_000
    }

    /// Hands an event to a shard.
    pub fn tell(&self, shard: replica::Shard, event: ShardEvent) {
        self.shards[usize::from(shard.0)].put(event);
    }

    /// Hands an event to every shard.
    pub fn tell_all(&self, event: impl Fn() -> ShardEvent) {
        self.shards.iter().for_each(|shard| shard.put(event()));
    }
}

/// A list that one thread, or several alike, waits for.
///
/// It has no bound of its own: who uses it says in its field's comment what bounds it.
pub struct Inbox<T> {
    state: Mutex<InboxState<T>>,
    changed: Condvar,
}

struct InboxState<T> {
    items: VecDeque<T>,
    waiting: usize,
    closed: bool,
}

impl<T> Default for Inbox<T> {
    fn default() -> Inbox<T> {
        let state = InboxState { items: VecDeque::new(), waiting: 0, closed: false };
        Inbox { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<T> Inbox<T> {
    /// Adds one item.
    pub fn put(&self, item: T) {
        self.put_all(vec![item]);
    }

    /// Adds a batch. It wakes a waiting thread, if there is one.
    pub fn put_all(&self, batch: Vec<T>) {
        if batch.is_empty() {
            return;
        }
        let mut state = lock(&self.state);
        match state.items.is_empty() {
            true => state.items = batch.into(),
            false => state.items.extend(batch),
        }
        // Who does not wait will look again before it does; without this each put would be a system call.
        if state.waiting > 0 {
            self.changed.notify_one();
        }
    }

    /// Waits for items and takes all of them; `None` once the inbox is closed and empty.
    pub fn take(&self) -> Option<Vec<T>> {
        self.wait(|items| mem::take(items).into())
    }

    /// Waits for items and takes the first alone, for threads that share an inbox.
    pub fn take_one(&self) -> Option<T> {
        self.wait(|items| items.pop_front().expect("there is one"))
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        lock(&self.state).items.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn wait<R>(&self, take: impl FnOnce(&mut VecDeque<T>) -> R) -> Option<R> {
        let mut state = lock(&self.state);
        while state.items.is_empty() {
            if state.closed {
                return None;
            }
            state.waiting += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        Some(take(&mut state.items))
    }

    /// Lets waiting threads end once everything is taken.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }
}

/// What the replica thread waits for: proposals apart from all else, for they alone are held back.
#[derive(Default)]
pub struct ReplicaInbox {
    state: Mutex<ReplicaQueue>,
    changed: Condvar,
}

#[derive(Default)]
struct ReplicaQueue {
    /// Messages are bounded by [`MESSAGE_BYTES_MAX`], reads and lease questions by the shards' waits,
    /// completions by what the replica has under way.
    inputs: Vec<Input>,
    message_bytes: usize,
    proposals: Vec<Proposals>,
    proposal_bytes: usize,
    /// Shards that met a full inbox, a bit each.
    starved: u64,
    waiting: bool,
}

impl ReplicaInbox {
    /// Hands in a shard's proposals, or gives them back if there is no room; the shard is then told
    /// [`ShardEvent::Room`] when there is.
    pub fn propose(&self, batch: Proposals) -> Result<(), Proposals> {
        let bytes: usize = batch.list.iter().map(|proposal| proposal.data.len()).sum();
        let mut state = lock(&self.state);
        if state.proposal_bytes > 0 && state.proposal_bytes + bytes > PROPOSAL_BYTES_MAX {
            state.starved |= 1 << batch.shard.0;
            return Err(batch);
        }
        state.proposal_bytes += bytes;
        state.proposals.push(batch);
        self.wake(&state);
        Ok(())
    }

    /// Asks for a read index for a shard's reads.
    pub fn read_index(&self, batch: ReadBatch) {
        self.put(Input::ReadIndex(batch));
    }

    /// Asks the lease clock; also for another member, whose question the peer listener has.
    pub fn ask_lease(&self, ask: LeaseAsk) {
        self.put(Input::Lease(ask));
    }

    /// Hands in a worker's completion.
    pub fn done(&self, completion: Completion) {
        self.put(Input::Done(completion));
    }

    /// Hands in messages of other members, checked to be of this cluster and for this member. False if they were
    /// dropped because too many wait.
    pub fn messages(&self, messages: Vec<Message>, bytes: usize) -> bool {
        let mut state = lock(&self.state);
        if state.message_bytes > 0 && state.message_bytes + bytes > MESSAGE_BYTES_MAX {
            return false;
        }
        state.message_bytes += bytes;
        state.inputs.push(Input::Messages(messages));
        self.wake(&state);
        true
    }

    /// Hands in anything else.
    pub fn put(&self, input: Input) {
        let mut state = lock(&self.state);
        state.inputs.push(input);
        self.wake(&state);
    }

    fn wake(&self, state: &ReplicaQueue) {
        if state.waiting {
            self.changed.notify_one();
        }
    }

    /// Waits for inputs until `deadline` and takes all of them; proposals only if `takes_proposals`. The second
    /// part names shards that may propose again, a bit each.
    pub fn take(&self, deadline: Instant, takes_proposals: bool) -> (Vec<Input>, u64) {
        let mut state = lock(&self.state);
        while state.inputs.is_empty() && (state.proposals.is_empty() || !takes_proposals) {
            let patience = deadline.saturating_duration_since(Instant::now());
            if patience.is_zero() {
                break;
            }
            state.waiting = true;
            state = self
                .changed
                .wait_timeout(state, patience)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            state.waiting = false;
        }
        let mut inputs = mem::take(&mut state.inputs);
        state.message_bytes = 0;
        let mut fed = 0;
        if takes_proposals {
            inputs.extend(mem::take(&mut state.proposals).into_iter().map(Input::Propose));
            state.proposal_bytes = 0;
            fed = mem::take(&mut state.starved);
        }
        (inputs, fed)
    }
}

/// A shard's inbox; its task is woken once per batch.
#[derive(Default)]
pub struct Mailbox {
    events: Mutex<Vec<ShardEvent>>,
    owner: AtomicWaker,
}

impl Mailbox {
    /// Adds an event. Replies have a waiter each and so are bounded by the shard's waiters; event batches by
    /// what apply has under way; connections by the acceptor, which looks at [`Mailbox::len`].
    pub fn put(&self, event: ShardEvent) {
        let mut events = lock(&self.events);
        events.push(event);
        let first = events.len() == 1;
        drop(events);
        if first {
            self.owner.wake();
        }
    }

    /// Takes everything; the shard's task waits by `waker` for more.
    pub fn take(&self, waker: &Waker) -> Vec<ShardEvent> {
        self.owner.register(waker);
        mem::take(&mut *lock(&self.events))
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        lock(&self.events).len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What can happen to a shard from outside.
pub enum ShardEvent {
    /// A connection to serve.
    Connection(std::net::TcpStream),
    /// What the replica answers.
    Answers(Vec<Answer>),
    /// What apply publishes.
    Applied(Box<ToShard>),
    /// A read thread has finished what the shard named so.
    Read {
        /// The shard's name for the read.
        token: u64,
        /// What came out.
        outcome: ReadOutcome,
    },
    /// The leader has answered a question that the peers forwarded.
    Forwarded {
        /// The shard's name for the question.
        token: u64,
        /// What the leader says, or why it could not be asked.
        result: Result<ForwardedLease, Status>,
    },
    /// There is room for proposals again.
    Room,
    /// The leader is another, or none.
    Leader,
    /// End: refuse what is new, finish what is under way.
    Stop,
}

/// What comes back from a read thread.
pub enum ReadOutcome {
    /// A whole gRPC message with its prefix, or the refusal.
    Answer(Result<bytes::Bytes, Status>),
    /// What a watcher needs.
    Watch(crate::grpc::watch::Brought),
}

/// Work for the threads that read.
pub enum ReadTask {
    /// The replica's; at most `Limits::fetches` are under way.
    Replica(ReadJob),
    /// A shard's or the peers': it delivers its own result. Bounded by the shard's waits, or one per snapshot under way.
    Run(Box<dyn FnOnce() + Send>),
}

/// What the peer thread waits for. Its owner is a thread or, like a shard's task, a waker.
#[derive(Default)]
pub struct PeerInbox {
    events: Mutex<Vec<PeerEvent>>,
    owner: AtomicWaker,
}

impl PeerInbox {
    /// Adds an event. Messages are bounded by raft's flow control per follower; the peers drop what a link does
    /// not take and report it unreachable.
    pub fn put(&self, event: PeerEvent) {
        let mut events = lock(&self.events);
        events.push(event);
        let first = events.len() == 1;
        drop(events);
        if first {
            self.owner.wake();
        }
    }

    /// Takes everything; the owner waits by `waker` for more.
    pub fn take(&self, waker: &Waker) -> Vec<PeerEvent> {
        self.owner.register(waker);
        mem::take(&mut *lock(&self.events))
    }
}

/// What the peer thread is asked to do.
pub enum PeerEvent {
    /// Send these, now. They come from the replica and, after a sync, from the log thread.
    Messages(Vec<Message>),
    /// Send a snapshot: its message, then its chunks, each read on the fetching thread ([`ReadTask::Run`]); report the
    /// end by `Input::SnapshotSent`.
    Snapshot(Box<OutgoingSnapshot>),
    /// Answers to questions that the peer listener asked with `Asker::Peer`.
    LeaseAnswers(Vec<LeaseAnswer>),
    /// Members or their URLs have changed: `node.view.state.cluster()` has them.
    Membership,
    /// Ask the leader about a lease over the peer port (`/leases`, `/leases/internal`), and answer the shard by
    /// [`ShardEvent::Forwarded`].
    AskLeader {
        /// Who is answered.
        shard: replica::Shard,
        /// The shard's name for the question.
        token: u64,
        /// Whom to ask.
        leader: NodeId,
        /// Which lease.
        lease: i64,
        /// What about it.
        question: ForwardedQuestion,
    },
    /// The process ends: stop listening, flush what can be flushed, and return.
    Stop,
}

/// What a follower asks its leader on behalf of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedQuestion {
    /// `/leases`: renew it.
    KeepAlive,
    /// `/leases/internal`: how long it still lives, and with which keys.
    TimeToLive {
        /// Whether keys are wanted.
        keys: bool,
    },
}

/// What the leader says about a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedLease {
    /// Its time.
    pub time: LeaseTime,
    /// Its keys, if they were asked for.
    pub keys: Vec<bytes::Bytes>,
}

/// What the peers know of the other members, for those who decide timeouts' texts and the cluster's version.
#[derive(Default)]
pub struct PeerTable {
    peers: Mutex<BTreeMap<NodeId, PeerState>>,
}

/// The appends that went to another member, for `/v2/stats/leader`; counted while the v2 API is served. As in etcd a
/// latency is the time that handing them to the connection took, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Appends {
    /// How many were handed over.
    pub sent: u64,
    /// How often the member could not be reached.
    pub failed: u64,
    /// The last latency.
    pub current_ms: f64,
    /// The mean of all.
    pub average_ms: f64,
    average_square: f64,
    /// The least.
    pub minimum_ms: f64,
    /// The greatest.
    pub maximum_ms: f64,
}

impl Appends {
    /// So many were handed over together, and it took so long.
    pub fn observe(&mut self, count: u64, took: Duration) {
        let ms = took.as_secs_f64() * 1e3;
        let (before, new) = (self.sent as f64, count as f64);
        let mean = |mean: f64, value: f64| (mean * before + value * new) / (before + new);
        self.average_ms = mean(self.average_ms, ms);
        self.average_square = mean(self.average_square, ms * ms);
        self.minimum_ms = if self.sent == 0 { ms } else { self.minimum_ms.min(ms) };
        self.maximum_ms = self.maximum_ms.max(ms);
        self.current_ms = ms;
        self.sent += count;
    }

    /// The standard deviation of the latencies.
    pub fn deviation_ms(&self) -> f64 {
        (self.average_square - self.average_ms * self.average_ms).max(0.0).sqrt()
    }
}

/// One other member.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerState {
    /// What was sent to it.
    pub appends: Appends,
    /// Since when its connection stands, by `Node::now_ms`; `None` while it does not.
    pub connected_since_ms: Option<u64>,
    /// Its server version, once it was asked.
    pub version: Option<String>,
}

impl PeerTable {
    /// Changes what is known of a member.
    pub fn update(&self, id: NodeId, change: impl FnOnce(&mut PeerState)) {
        change(lock(&self.peers).entry(id).or_default());
    }

    /// Forgets a member that was removed.
    pub fn forget(&self, id: NodeId) {
        lock(&self.peers).remove(&id);
    }

    /// What is known of a member.
    pub fn of(&self, id: NodeId) -> PeerState {
        lock(&self.peers).get(&id).cloned().unwrap_or_default()
    }

    /// Whether the connection to a member has stood since then.
    pub fn connected_since(&self, id: NodeId, since_ms: u64) -> bool {
        self.of(id).connected_since_ms.is_some_and(|at| at <= since_ms)
    }
}

/// How long the replica thread sleeps at most: one tick.
pub fn tick_interval(config: &Config) -> Duration {
    config.heartbeat_interval
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_gives_batches_and_ends_when_closed() {
        let inbox = Inbox::default();
        inbox.put_all(vec![1, 2]);
        inbox.put(3);
        assert_eq!(inbox.take_one(), Some(1));
        assert_eq!(inbox.take(), Some(vec![2, 3]));
        inbox.put(4);
        inbox.close();
        assert_eq!(inbox.take(), Some(vec![4]));
        assert_eq!(inbox.take(), None);
    }

    #[test]
    fn a_full_proposal_inbox_gives_the_batch_back_and_remembers_the_shard() {
        let inbox = ReplicaInbox::default();
        let batch = |bytes: usize| Proposals {
            shard: replica::Shard(3),
            list: vec![replica::Proposal {
                id: state_machine::RequestId(1),
                data: vec![0; bytes].into(),
                lane: replica::Lane::Ordinary,
            }],
        };
        // A batch that alone is larger than the inbox is taken: else it could never be.
        inbox.propose(batch(PROPOSAL_BYTES_MAX + 1)).unwrap();
        assert!(inbox.propose(batch(1)).is_err());
        let (inputs, fed) = inbox.take(Instant::now(), false);
        assert!(inputs.is_empty());
        assert_eq!(fed, 0);
        let (inputs, fed) = inbox.take(Instant::now(), true);
        assert_eq!(inputs.len(), 1);
        assert_eq!(fed, 1 << 3);
        inbox.propose(batch(1)).unwrap();
    }

    #[test]
    fn latencies_of_appends_are_counted_as_many_times_as_there_were_appends() {
        let mut appends = Appends::default();
        appends.observe(1, Duration::from_millis(4));
        appends.observe(3, Duration::from_millis(8));
        assert_eq!((appends.sent, appends.average_ms, appends.current_ms), (4, 7.0, 8.0));
        assert_eq!((appends.minimum_ms, appends.maximum_ms), (4.0, 8.0));
        assert!((appends.deviation_ms() - 3.0_f64.sqrt()).abs() < 1e-9);
    }

    #[test]
    fn a_peer_counts_as_connected_only_since_it_is() {
        let table = PeerTable::default();
        assert!(!table.connected_since(1, 5));
        table.update(1, |peer| peer.connected_since_ms = Some(7));
        assert!(!table.connected_since(1, 6));
        assert!(table.connected_since(1, 7));
        table.forget(1);
        assert!(!table.connected_since(1, 9));
    }
}
