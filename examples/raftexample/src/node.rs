//! One node: it takes inputs and does what raft's `Ready` says, waiting for the disk and for nobody else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use bytes::Bytes;
use prost::Message as _;
use raft::{
    ConfChange, ConfChangeKind, Config, Entry, EntryKind, Index, Message, MessageKind, NodeId,
    Raft, Ready, Snapshot, SnapshotMetadata,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use wal::{Metadata, Options, snap::Storage};

use crate::kv::{State, lock};
use crate::{QUEUE_MAX, TICK, transport::connect};

/// Of the log, in memory: so much that is not yet committed, and raft drops more; and so much that is applied. What a
/// follower needs that lies before is read back.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// What others want of a node.
pub enum Input {
    /// A peer says something.
    Receive(Message),
    /// A client wants an entry. `done` hears when it is applied, and is dropped if raft does not take it.
    Propose { id: u64, kind: EntryKind, data: Bytes, done: oneshot::Sender<()> },
}

pub struct Node {
    pub state: Arc<Mutex<State>>,
    raft: Raft,
    storage: Storage,
    peers: BTreeMap<NodeId, mpsc::Sender<Message>>,
    /// Who waits for which entry: one for each connection at most, since who has gone goes with the next tick.
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
    snapshot_count: u64,
    is_removed: bool,
}

impl Node {
    /// The node that the disk remembers. If there is none, it is one of the cluster's founders, or begins with nothing.
    pub fn open(id: u64, nodes: &[String], is_joining: bool, snapshot_count: u64) -> Result<Node> {
        let log = format!("raftexample-{id}");
        let snapshots = format!("{log}-snap");
        let metadata = Metadata { node_id: id, cluster_id: 0x1000 };
        let os = Arc::new(vfs::os::Os);
        let (mut storage, snapshot, mut found) =
            Storage::open(os, log, snapshots, metadata, Options::default())?;
        let nodes = || (1..).zip(nodes);
        let founders = nodes().map(|(id, address)| (id, Bytes::from(address.clone())));
        if is_joining {
            eprintln!("node {id} joins the nodes that run");
        } else if storage.wal.found(&mut found, raft::founding(founders))? {
            eprintln!("node {id} joins nobody and founds the cluster");
        }
        let config =
            Config { id, seed: id, max_uncommitted_bytes: LOG_BYTES_MAX, ..Config::default() };
        let SnapshotMetadata { index, conf_state, .. } = snapshot.metadata.clone();
        let raft = Raft::new(config, found.into_restored(index, conf_state))?;
        let peers = nodes().map(|(id, address)| (id, connect(address))).collect();
        let (state, waiting, is_removed) = Default::default();
        let mut node = Node { state, raft, storage, peers, waiting, snapshot_count, is_removed };
        node.become_snapshot(snapshot)?;
        Ok(node)
    }

    /// Runs until it is removed, or its disk fails: then nobody knows what it remembers, and it must not go on.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Input>) -> Result<()> {
        let (mut inputs, mut ticks) = (Vec::new(), interval(TICK));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while !self.is_removed {
            tokio::select! {
                _ = ticks.tick() => {
                    self.raft.tick();
                    self.waiting.retain(|_, done| !done.is_closed());
                }
                _ = inbox.recv_many(&mut inputs, QUEUE_MAX) => {
                    inputs.drain(..).for_each(|input| self.handle(input));
                }
            }
            while !self.is_removed && self.raft.has_ready() {
                let ready = self.raft.ready();
                self.work(ready)?;
            }
        }
        eprintln!("node {} was removed from the cluster and ends", self.raft.id());
        Ok(())
    }

    fn handle(&mut self, input: Input) {
        match input {
            // One that makes no sense is refused, and that is all.
            Input::Receive(message) => drop(self.raft.step(message)),
            Input::Propose { id, kind, data, done } => {
                // While one change of the nodes is under way, raft would append nothing in another's stead.
                let is_early = kind != EntryKind::Normal && self.raft.conf_change_pending();
                if !is_early && self.raft.propose_entry(kind, data).is_ok() {
                    self.waiting.insert(id, done);
                }
            }
        }
    }

    /// Does what raft asks for, in this order.
    fn work(&mut self, mut ready: Ready) -> Result<()> {
        if let Some(now) = ready.soft_state {
            eprintln!("{:?} in term {}, the leader is {}", now.role, self.raft.term(), now.leader);
        }
        // 1. What promises nothing leaves at once: the followers write while this node does.
        self.send(std::mem::take(&mut ready.messages));
        // 2. What must be remembered.
        self.storage.save(&ready)?;
        // 3. What promises that it is remembered: votes, acknowledgements.
        self.send(ready.messages_after_persist);
        if let Some(persisted) = ready.persisted {
            self.raft.on_persisted(persisted);
        }
        // 4. What is decided becomes the state: at one stroke, or entry by entry.
        if let Some(snapshot) = ready.snapshot {
            let index = snapshot.metadata.index;
            self.become_snapshot(snapshot)?;
            self.raft.on_snapshot_installed(index);
        }
        for entry in ready.committed {
            self.apply(entry)?;
        }
        // 5. What a follower needs and memory no longer has. Nothing is an answer, too: it will ask again.
        for fetch in ready.fetches {
            let entries = self.storage.wal.reader().read(fetch.low, fetch.high, fetch.bytes_max);
            self.raft.on_fetched(fetch.to, fetch.low, entries.unwrap_or_default());
        }
        Ok(())
    }

    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            let (to, kind) = (message.to, message.kind);
            let is_sent = self.peers.get(&to).is_some_and(|peer| peer.try_send(message).is_ok());
            if kind == MessageKind::Snap {
                // Should it be lost after all, the appends behind it are refused, and raft sends another.
                self.raft.report_snapshot(to, is_sent);
            } else if !is_sent {
                self.raft.report_unreachable(to);
            }
        }
    }

    fn apply(&mut self, entry: Entry) -> Result<()> {
        let id = match entry.kind {
            EntryKind::Normal => self.put(entry.data),
            _ => self.change_nodes(&entry.data),
        };
        self.raft.on_applied(entry.index);
        if let Some(done) = id.and_then(|id| self.waiting.remove(&id)) {
            // Who has gone does not want to know.
            done.send(()).ok();
        }
        // At once after a change of the nodes, since a new node takes no snapshot that does not name it.
        if entry.kind != EntryKind::Normal || entry.index.0.is_multiple_of(self.snapshot_count) {
            self.take_snapshot(entry.index)?;
        }
        Ok(())
    }

    /// Applies a client's change. A new leader's empty entry changes nothing; neither does nonsense, on all nodes alike.
    fn put(&mut self, data: Bytes) -> Option<u64> {
        let piece = State::decode(data).ok()?;
        lock(&self.state).pairs.extend(piece.pairs);
        Some(piece.id)
    }

    fn change_nodes(&mut self, data: &Bytes) -> Option<u64> {
        let change = ConfChange::decode(data).ok()?;
        // Refused if nobody would be left.
        self.raft.apply_conf_change(&change.as_v2()).ok()?;
        let ConfChange { id, kind, node_id, context } = change;
        if kind == ConfChangeKind::RemoveNode {
            self.is_removed |= node_id == self.raft.id();
            lock(&self.state).addresses.remove(&node_id);
            self.peers.remove(&node_id);
        } else {
            let address = String::from_utf8(context.into()).ok()?;
            self.peers.insert(node_id, connect(&address));
            lock(&self.state).addresses.insert(node_id, address);
        }
        Some(id)
    }

    /// Takes a snapshot of the state at `index`, and lets go of the entries that only a laggard would need.
    fn take_snapshot(&mut self, index: Index) -> Result<()> {
        let term = self.raft.term_at(index).expect("what was just applied is in the log");
        let metadata = SnapshotMetadata { index, term, conf_state: self.raft.conf_state() };
        let snapshot = Snapshot { data: lock(&self.state).encode_to_vec().into(), metadata };
        let unneeded = Index(index.0.saturating_sub(self.snapshot_count));
        self.storage.keep(&snapshot, unneeded)?;
        self.raft.release(unneeded);
        self.raft.evict(LOG_BYTES_MAX);
        self.raft.offer_snapshot(snapshot);
        Ok(())
    }

    /// Makes a snapshot the state, and what laggards get from now on.
    fn become_snapshot(&mut self, snapshot: Snapshot) -> Result<()> {
        let state = State::decode(snapshot.data.clone()).context("a snapshot holds no state")?;
        self.peers.extend(state.addresses.iter().map(|(id, address)| (*id, connect(address))));
        *lock(&self.state) = state;
        self.raft.offer_snapshot(snapshot);
        Ok(())
    }
}
