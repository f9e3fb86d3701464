//! A house of replicas in one thread: who works, and when, is the test's choice.
//!
//! Each member has its five parts and a queue before each of them. A test may let everything run until nothing is
//! left to do ([`House::settle`]), or hold a queue ([`Node::hold`]) and look what the others do meanwhile.

#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
    RangeRequest,
};
use raft::{Index, Message, MessageKind, NodeId, RoleKind};
use replica::*;
use state_machine::{Caller, Command, Effort, Reply, Request, RequestId};
use vfs::Vfs;
use vfs::memory::Memory;

/// One of the four workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worker {
    Log,
    Apply,
    Flush,
    Read,
}

pub const WORKERS: [Worker; 4] = [Worker::Log, Worker::Apply, Worker::Flush, Worker::Read];
pub const CLUSTER: u64 = 0xc1;
pub const SHARD: Shard = Shard(0);

pub struct Node {
    pub id: NodeId,
    pub vfs: Memory,
    pub config: Config,
    pub parts: Option<Opened>,
    pub inbox: VecDeque<Input>,
    pub log: VecDeque<LogJob>,
    pub apply: VecDeque<ApplyJob>,
    pub flush: VecDeque<FlushJob>,
    pub reads: VecDeque<ReadJob>,
    pub held: BTreeSet<Worker>,
    pub waiters: Waiters<String>,
    pub answers: Vec<Answer>,
    pub peer_answers: Vec<LeaseAnswer>,
    pub replies: BTreeMap<u64, Result<Reply, state_machine::Error>>,
    pub to_shards: Vec<ToShard>,
    pub notices: Vec<Notice>,
    pub trace: Vec<Trace>,
    pub receptions: Receptions,
    pub lives: u64,
}

pub struct House {
    pub nodes: BTreeMap<NodeId, Node>,
    pub net: VecDeque<Message>,
    pub snapshots: VecDeque<(NodeId, OutgoingSnapshot)>,
    /// Nothing passes between these, in this direction.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    /// Every message that left a member.
    pub sent: Vec<Message>,
    /// Every snapshot that came whole: to whom, how it was announced, its bytes.
    pub received: Vec<(NodeId, Message, Vec<Bytes>)>,
    /// How often somebody would not receive one.
    pub refused_snapshots: usize,
    /// Bytes of all snapshots that were sent.
    pub snapshot_bytes: usize,
}

pub fn config(id: NodeId) -> Config {
    let identity = Identity { node_id: id, cluster_id: CLUSTER };
    let mut config = Config::new(identity, "/data");
    config.seed = id;
    config.start_ms = 1_000;
    config.trace = replica::Tracing::All;
    config.segment_bytes = SegmentBytes { wal: 16 << 10, store: 64 << 10 };
    config
}

pub fn founders(ids: &[NodeId]) -> Vec<Founder> {
    let founder = |id| Founder { node_id: id, context: founding_member(id).to_context() };
    ids.iter().copied().map(founder).collect()
}

fn founding_member(id: NodeId) -> state_machine::Member {
    state_machine::Member {
        id,
        name: format!("m{id}"),
        peer_urls: vec![format!("http://10.0.0.{id}:2380")],
        ..state_machine::Member::default()
    }
}

impl Node {
    pub fn new(config: Config, bootstrap: Bootstrap) -> Node {
        Node::on(Memory::new(config.identity.node_id), config, bootstrap)
    }

    pub fn on(vfs: Memory, config: Config, bootstrap: Bootstrap) -> Node {
        let mut node = Node::closed(vfs, config);
        node.open(bootstrap).unwrap();
        node
    }

    /// A member that has not been started.
    pub fn closed(vfs: Memory, config: Config) -> Node {
        let id = config.identity.node_id;
        Node {
            id,
            vfs,
            waiters: Waiters::new(id, SHARD, config.start_ms, 1_000_000),
            config,
            parts: None,
            inbox: VecDeque::new(),
            log: VecDeque::new(),
            apply: VecDeque::new(),
            flush: VecDeque::new(),
            reads: VecDeque::new(),
            held: BTreeSet::new(),
            answers: Vec::new(),
            peer_answers: Vec::new(),
            replies: BTreeMap::new(),
            to_shards: Vec::new(),
            notices: Vec::new(),
            trace: Vec::new(),
            receptions: Receptions::default(),
            lives: 0,
        }
    }

    pub fn open(&mut self, bootstrap: Bootstrap) -> Result<(), OpenError> {
        self.lives += 1;
        self.config.start_ms += 1_000;
        self.waiters = Waiters::new(self.id, SHARD, self.config.start_ms, 1_000_000);
        self.parts = Some(open(Arc::new(self.vfs.clone()), self.config.clone(), bootstrap)?);
        Ok(())
    }

    /// The process dies; what was written stays.
    pub fn kill(&mut self) {
        self.forget();
        self.vfs.crash();
    }

    /// The power goes; what was not synced is at the seed's mercy.
    pub fn cut_power(&mut self, seed: u64) {
        self.forget();
        self.vfs.power_cut(seed);
    }

    fn forget(&mut self) {
        self.parts = None;
        self.receptions = Receptions::default();
        self.inbox.clear();
        self.log.clear();
        self.apply.clear();
        self.flush.clear();
        self.reads.clear();
        self.held.clear();
    }

    pub fn replica(&mut self) -> &mut Replica {
        &mut self.parts.as_mut().unwrap().replica
    }

    pub fn view(&self) -> &View {
        &self.parts.as_ref().unwrap().view
    }

    pub fn is_up(&self) -> bool {
        self.parts.is_some()
    }

    pub fn leads(&mut self) -> bool {
        self.is_up() && self.replica().status().role == RoleKind::Leader
    }

    pub fn hold(&mut self, worker: Worker) {
        self.held.insert(worker);
    }

    pub fn release(&mut self, worker: Worker) {
        self.held.remove(&worker);
    }

    pub fn tick(&mut self, elapsed: u32) {
        self.inbox.push_back(Input::Tick { elapsed });
    }

    pub fn propose(&mut self, request: Request) -> RequestId {
        let id = self.waiters.add(String::new(), u64::MAX >> 8).unwrap();
        let lane = match request {
            Request::LeaseRevoke(_) => Lane::Priority,
            _ => Lane::Ordinary,
        };
        let data = Command { id, caller: Caller::default(), request }.encode();
        let list = vec![Proposal { id, data, lane }];
        self.inbox.push_back(Input::Propose(Proposals { shard: SHARD, list }));
        id
    }

    pub fn put(&mut self, key: &str, value: &str) -> RequestId {
        self.propose(put_request(key, value.as_bytes(), 0))
    }

    pub fn change(&mut self, kind: raft::ConfChangeKind, node_id: NodeId) -> RequestId {
        let id = self.waiters.add(String::new(), u64::MAX >> 8).unwrap();
        let mut member = founding_member(node_id);
        member.is_learner = kind == raft::ConfChangeKind::AddLearnerNode;
        let context = member.to_context();
        let data = raft::ConfChange { id: id.0, kind, node_id, context }.encode();
        let list = vec![Proposal { id, data, lane: Lane::Membership }];
        self.inbox.push_back(Input::Propose(Proposals { shard: SHARD, list }));
        id
    }

    pub fn ask_lease(&mut self, lease: i64, question: LeaseQuestion) {
        let asker = Asker::Shard { shard: SHARD, token: 7 };
        self.inbox.push_back(Input::Lease(LeaseAsk { asker, lease, question }));
    }

    pub fn read_index(&mut self, batch: u64) {
        self.inbox.push_back(Input::ReadIndex(ReadBatch { shard: SHARD, batch }));
    }

    /// A read of what is published here.
    pub fn get(&self, key: &str) -> Option<String> {
        let request = RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() };
        match self.view().state.range(&request, Effort::Disk).unwrap() {
            state_machine::Answer::Ready(Reply::Range(reply)) => {
                reply.key_values.first().map(|kv| {
                    let kv = mvcc::key_value::decode(kv).unwrap();
                    String::from_utf8(kv.value.to_vec()).unwrap()
                })
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn hash(&self) -> Reply {
        self.view().state.hash_now().unwrap()
    }

    pub fn reply(&self, id: RequestId) -> Option<&Result<Reply, state_machine::Error>> {
        self.replies.get(&id.0)
    }

    pub fn is_acknowledged(&self, id: RequestId) -> bool {
        matches!(self.reply(id), Some(Ok(_)))
    }

    pub fn refusal(&self, id: RequestId) -> Option<Refusal> {
        self.answers.iter().find_map(|answer| match answer {
            Answer::Refused { id: of, why } if *of == id => Some(*why),
            _ => None,
        })
    }

    pub fn read_answer(&self, batch: u64) -> Option<Result<Index, Refusal>> {
        self.answers.iter().find_map(|answer| match answer {
            Answer::Read { batch: of, result } if *of == batch => Some(*result),
            _ => None,
        })
    }

    pub fn lease_answer(&self) -> Option<Result<LeaseTime, LeaseRefusal>> {
        self.answers.iter().rev().find_map(|answer| match answer {
            Answer::Lease(answer) => Some(answer.result),
            _ => None,
        })
    }

    pub fn fatal(&self) -> Option<&Failure> {
        self.notices.iter().find_map(|notice| match notice {
            Notice::Fatal(failure) => Some(failure),
            _ => None,
        })
    }

    /// One turn of the replica thread: all that is in the inbox, then one output. Returns what it sent.
    pub fn turn(&mut self) -> Output {
        let inputs: Vec<Input> = self.inbox.drain(..).collect();
        let replica = self.replica();
        inputs.into_iter().for_each(|input| replica.handle(input));
        let mut out = replica.output();
        self.log.extend(out.log.drain(..));
        self.apply.extend(out.apply.drain(..));
        self.flush.extend(out.flush.drain(..));
        self.reads.extend(out.reads.drain(..));
        self.answers.extend(out.answers.drain(..).flat_map(|(_, answers)| answers));
        self.peer_answers.append(&mut out.peer_answers);
        self.notices.extend(out.notices.iter().cloned());
        self.trace.extend(out.trace.drain(..));
        out
    }

    /// One run of a worker with all that waits for it. Returns the messages that may leave now.
    pub fn work(&mut self, worker: Worker) -> Vec<Message> {
        let Some(parts) = &mut self.parts else { return Vec::new() };
        let (completion, messages) = match worker {
            Worker::Log => {
                let mut done = parts.log.run(self.log.drain(..).collect());
                self.trace.extend(done.trace.drain(..));
                (done.completion, done.messages)
            }
            Worker::Apply => {
                let mut done = parts.apply.run(self.apply.drain(..).collect());
                self.trace.extend(done.trace.drain(..));
                for to_shard in done.shards {
                    for applied in &to_shard.replies {
                        // What a former life proposed is answered too, and finds nobody.
                        if self.waiters.take(applied.id).is_none() {
                            assert!(!self.replies.contains_key(&applied.id.0) || self.lives > 1);
                            continue;
                        }
                        self.replies.insert(applied.id.0, applied.result.clone());
                        assert!(
                            parts.view.state.revision() >= applied.revision,
                            "told before visible"
                        );
                    }
                    assert!(parts.view.applied() >= to_shard.applied);
                    self.to_shards.push(to_shard);
                }
                (done.completion, Vec::new())
            }
            Worker::Flush => {
                let mut done = parts.flush.run(self.flush.drain(..).collect());
                self.trace.extend(done.trace.drain(..));
                (done.completion, Vec::new())
            }
            Worker::Read => {
                (parts.reads.run(self.reads.drain(..).collect()).completion, Vec::new())
            }
        };
        self.inbox.extend(completion.map(Input::Done));
        messages
    }

    pub fn has_work(&self, worker: Worker) -> bool {
        self.is_up()
            && !self.held.contains(&worker)
            && match worker {
                Worker::Log => !self.log.is_empty(),
                Worker::Apply => !self.apply.is_empty(),
                Worker::Flush => !self.flush.is_empty(),
                Worker::Read => !self.reads.is_empty(),
            }
    }
}

impl House {
    /// A new cluster of these members, not yet run.
    pub fn new(ids: &[NodeId]) -> House {
        House::with(ids, |config| config)
    }

    pub fn with(ids: &[NodeId], adjust: impl Fn(Config) -> Config) -> House {
        let nodes = ids
            .iter()
            .map(|id| (*id, Node::new(adjust(config(*id)), Bootstrap::New(founders(ids)))))
            .collect();
        House {
            nodes,
            net: VecDeque::new(),
            snapshots: VecDeque::new(),
            cut: BTreeSet::new(),
            sent: Vec::new(),
            received: Vec::new(),
            refused_snapshots: 0,
            snapshot_bytes: 0,
        }
    }

    pub fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    /// Runs everything that is not held until nothing is left to do, without time passing.
    pub fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "the house does not come to rest");
            let mut busy = false;
            for id in self.nodes.keys().copied().collect::<Vec<_>>() {
                busy |= self.turn_and_work(id);
            }
            busy |= self.deliver();
            if !busy {
                return;
            }
        }
    }

    fn turn_and_work(&mut self, id: NodeId) -> bool {
        let node = self.nodes.get_mut(&id).unwrap();
        if !node.is_up() {
            return false;
        }
        let mut busy = !node.inbox.is_empty();
        let out = node.turn();
        let mut messages = out.messages;
        for worker in WORKERS {
            if node.has_work(worker) {
                busy = true;
                messages.extend(node.work(worker));
            }
        }
        self.sent.extend(messages.iter().cloned());
        self.net.extend(messages);
        self.snapshots.extend(out.snapshots.into_iter().map(|snapshot| (id, snapshot)));
        busy
    }

    fn deliver(&mut self) -> bool {
        let busy = !self.net.is_empty() || !self.snapshots.is_empty();
        while let Some(message) = self.net.pop_front() {
            if self.cut.contains(&(message.from, message.to)) {
                continue;
            }
            if let Some(node) = self.nodes.get_mut(&message.to)
                && node.is_up()
            {
                node.inbox.push_back(Input::Messages(vec![message]));
            }
        }
        while let Some((from, mut outgoing)) = self.snapshots.pop_front() {
            let to = outgoing.to;
            let reachable =
                !self.cut.contains(&(from, to)) && self.nodes.get(&to).is_some_and(Node::is_up);
            let mut chunks = Vec::new();
            while let Some(chunk) = outgoing.stream.next_chunk().unwrap() {
                chunks.push(chunk);
            }
            let ok = reachable && self.stream(to, outgoing.message, chunks).is_ok();
            let sender = self.nodes.get_mut(&from).unwrap();
            if sender.is_up() {
                sender.inbox.push_back(Input::SnapshotSent { to, ok });
            }
        }
        busy
    }

    /// A snapshot goes over.
    pub fn stream(&mut self, to: NodeId, message: Message, chunks: Vec<Bytes>) -> io::Result<()> {
        let node = self.nodes.get_mut(&to).unwrap();
        let vfs: Arc<dyn Vfs> = Arc::new(node.vfs.clone());
        let begun = node.receptions.begin(vfs, &node.config, &message);
        let mut incoming = begun.inspect_err(|_| self.refused_snapshots += 1)?;
        for chunk in &chunks {
            self.snapshot_bytes += chunk.len();
            incoming.write(chunk)?;
        }
        let file = incoming.finish()?;
        let announced = Box::new(message.clone());
        node.inbox.push_back(Input::SnapshotReceived { message: announced, file });
        self.received.push((to, message, chunks));
        Ok(())
    }

    /// One tick for everybody, then rest.
    pub fn tick(&mut self) {
        for node in self.nodes.values_mut().filter(|node| node.is_up()) {
            node.tick(1);
        }
        self.settle();
    }

    pub fn ticks(&mut self, count: usize) {
        (0..count).for_each(|_| self.tick());
    }

    /// Lets time pass until somebody leads whom a majority of the living follows.
    pub fn elect(&mut self) -> NodeId {
        self.settle();
        for _ in 0..200 {
            let followed: Vec<NodeId> =
                self.nodes.values_mut().filter(|n| n.is_up()).map(|n| n.view().leader()).collect();
            let leaders: Vec<NodeId> = self
                .nodes
                .iter_mut()
                .filter_map(|(id, node)| node.leads().then_some(*id))
                .collect();
            for leader in leaders {
                let votes = followed.iter().filter(|followed| **followed == leader).count();
                if 2 * votes > self.nodes.len() {
                    return leader;
                }
            }
            self.tick();
        }
        panic!("nobody is elected");
    }

    pub fn isolate(&mut self, id: NodeId) {
        for other in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    pub fn followers(&self, leader: NodeId) -> Vec<NodeId> {
        self.nodes.keys().copied().filter(|id| *id != leader).collect()
    }
}

pub fn put_request(key: &str, value: &[u8], lease: i64) -> Request {
    let request = PutRequest {
        key: key.to_owned().into(),
        value: value.to_vec().into(),
        lease,
        ..PutRequest::default()
    };
    Request::Put(request)
}

pub fn grant_request(id: i64, ttl: i64) -> Request {
    Request::LeaseGrant(LeaseGrantRequest { id, ttl })
}

pub fn revoke_request(id: i64) -> Request {
    Request::LeaseRevoke(LeaseRevokeRequest { id })
}

pub fn delete_request(key: &str) -> Request {
    let request =
        DeleteRangeRequest { key: key.to_owned().into(), ..DeleteRangeRequest::default() };
    Request::DeleteRange(request)
}

pub fn compact_request(revision: i64) -> Request {
    Request::Compact(CompactionRequest { revision, physical: false })
}

pub fn incoming_dir() -> PathBuf {
    PathBuf::from("/data/member/incoming")
}

pub fn is_prop(message: &Message) -> bool {
    message.kind == MessageKind::Prop
}

/// Three members, one of whom is down and needs a snapshot: `count` puts later the log that it needs is gone.
pub fn away_and_released(count: usize) -> (House, NodeId, NodeId) {
    let mut house = House::with(&[1, 2, 3], |mut config| {
        config.snapshot_count = 20;
        config.snapshot_catchup_entries = 5;
        config.segment_bytes = SegmentBytes { wal: 4 << 10, store: 16 << 10 };
        config
    });
    let leader = house.elect();
    house.ticks(2);
    let away = house.followers(leader)[0];
    house.node(leader).put("before", "1");
    house.node(leader).propose(grant_request(77, 600));
    house.settle();
    house.node(away).kill();
    for n in 0..count {
        house.node(leader).put(&format!("k{}", n % 20), &format!("{n}-{}", "v".repeat(400)));
        house.settle();
    }
    house.node(leader).propose(delete_request("before"));
    house.settle();
    house.ticks(15);
    (house, leader, away)
}
