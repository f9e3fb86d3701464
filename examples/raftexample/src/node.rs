//! One node: it takes inputs and does what raft's `Ready` says, waiting for the disk and for nobody else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result};
use bytes::Bytes;
use prost::Message as _;
use raft::{
    ConfChange, ConfChangeKind, ConfChangeV2, Config, Entry, EntryKind, HardState, Index, Message,
    MessageKind, Raft, Ready, Snapshot, SnapshotMetadata,
};
use tokio::sync::{mpsc, oneshot};
use vfs::{Lock, Vfs, os::Os};
use wal::{Metadata, Options, Wal, snap};

use crate::kv::{Put, State};
use crate::transport::Transport;

/// How many inputs may share a write and a sync.
const BATCH_MAX: usize = 256;
/// Proposals under way; raft drops more.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// Applied entries in memory; others are read back when a follower lags.
const LOG_BYTES_IN_MEMORY: u64 = 16 << 20;

/// All that ever happens to a node.
pub enum Input {
    /// Time has passed.
    Tick,
    /// A peer says something.
    Receive(Message),
    /// A client wants an entry. `done` hears when it is applied, and is dropped if raft does not take it.
    Propose { id: u64, kind: EntryKind, data: Bytes, done: oneshot::Sender<()> },
}

pub struct Node {
    raft: Raft,
    wal: Wal,
    /// Where its snapshots are.
    dir: PathBuf,
    _lock: Box<dyn Lock>,
    transport: Transport,
    state: Arc<Mutex<State>>,
    /// Who waits for which entry: one for each connection at most, since who has gone goes with the next tick.
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
    snapshot_count: u64,
    is_removed: bool,
}

impl Node {
    /// The node that the disk remembers. If there is none, it begins with the list of a cluster's founders, or with nothing.
    pub fn open(
        (id, seed): (u64, u64),
        founders: &[String],
        transport: Transport,
        state: Arc<Mutex<State>>,
        snapshot_count: u64,
    ) -> Result<Node> {
        let log = format!("raftexample-{id}");
        let dir = PathBuf::from(format!("{log}-snap"));
        let _lock = Os.lock(Path::new(&format!("{log}.lock"))).context("this node runs already")?;
        let metadata = Metadata { node_id: id, cluster_id: 0x1000 };
        let options = Options { segment_bytes: 16 << 20 };
        let (mut wal, snapshot, mut found) =
            snap::open(Arc::new(Os), Path::new(&log), &dir, metadata, options)?;
        let nodes = (1..).zip(founders.iter().map(|url| Bytes::from(url.clone())));
        let (entries, hard_state) = raft::founding(nodes);
        // A crash may have kept some of the founding entries and lost the rest, and the state behind them.
        let is_new = found.hard_state == HardState::default()
            && found.base.0 == Index(0)
            && entries.starts_with(&found.entries);
        if is_new && founders.is_empty() {
            eprintln!("node {id} joins the nodes that run");
        } else if is_new {
            eprintln!("node {id} founds the cluster");
            (found.entries, found.hard_state) = (entries, hard_state);
            wal.append(&found.entries, Some(&found.hard_state))?;
            wal.sync()?;
        }
        let config =
            Config { id, seed, max_uncommitted_bytes: UNCOMMITTED_BYTES_MAX, ..Config::default() };
        let SnapshotMetadata { index, conf_state, .. } = snapshot.metadata.clone();
        let raft = Raft::new(config, found.into_restored(index, conf_state))?;
        let (waiting, is_removed) = (BTreeMap::new(), false);
        let mut node =
            Node { raft, wal, dir, _lock, transport, state, waiting, snapshot_count, is_removed };
        node.become_snapshot(snapshot)?;
        Ok(node)
    }

    /// Runs until it is removed, or its disk fails: then nobody knows what it remembers, and it must not go on.
    pub fn run(mut self, mut inbox: mpsc::Receiver<Input>) -> Result<()> {
        let mut inputs = Vec::new();
        while !self.is_removed && inbox.blocking_recv_many(&mut inputs, BATCH_MAX) > 0 {
            inputs.drain(..).for_each(|input| self.handle(input));
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
            Input::Tick => {
                self.raft.tick();
                self.waiting.retain(|_, done| !done.is_closed());
            }
            Input::Receive(message) => {
                let (from, kind) = (message.from, message.kind);
                if let Err(why) = self.raft.step(message) {
                    eprintln!("{kind:?} from node {from} is refused: {why}");
                }
            }
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
    fn work(&mut self, ready: Ready) -> Result<()> {
        if let Some(now) = ready.soft_state {
            let (id, term) = (self.raft.id(), self.raft.term());
            eprintln!("node {id}: {:?} in term {term}, the leader is {}", now.role, now.leader);
        }
        // 1. What promises nothing leaves at once: the followers write while this node does.
        self.send(ready.messages);

        // 2. What must be remembered.
        if let Some(snapshot) = &ready.snapshot {
            snap::keep(&Os, &self.dir, &mut self.wal, snapshot)?;
        }
        self.wal.append(&ready.entries, ready.hard_state.as_ref())?;
        if ready.must_sync || ready.snapshot.is_some() {
            self.wal.sync()?;
        }

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
            let entries = self.wal.reader().read(fetch.low, fetch.high, fetch.bytes_max);
            self.raft.on_fetched(fetch.to, fetch.low, entries.unwrap_or_default());
        }
        Ok(())
    }

    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            let (to, kind) = (message.to, message.kind);
            let is_sent = self.transport.send(message);
            if kind == MessageKind::Snap {
                // Should it be lost after all, the appends behind it are refused, and raft sends another.
                self.raft.report_snapshot(to, is_sent);
            } else if !is_sent {
                self.raft.report_unreachable(to);
            }
        }
    }

    /// Applies a decided entry. One that makes no sense changes nothing, on all nodes alike.
    fn apply(&mut self, entry: Entry) -> Result<()> {
        let mut id = 0;
        if let Ok(Some(change)) = ConfChangeV2::of_entry(&entry) {
            // Refused if nobody would be left.
            if self.raft.apply_conf_change(&change).is_ok() {
                id = ConfChange::decode(&entry.data).map_or(0, |change| change.id);
                self.change_nodes(change);
            }
        } else if let Ok(put) = Put::decode(entry.data)
            && !put.key.is_empty()
        {
            id = put.id;
            self.state().pairs.insert(put.key, put.value);
        }
        self.raft.on_applied(entry.index);
        if let Some(done) = self.waiting.remove(&id) {
            // Who has gone does not want to know.
            done.send(()).ok();
        }
        // At once after a change of the nodes, since a new node takes no snapshot that does not name it.
        if entry.kind != EntryKind::Normal || entry.index.0.is_multiple_of(self.snapshot_count) {
            self.take_snapshot(entry.index)?;
        }
        Ok(())
    }

    fn change_nodes(&mut self, change: ConfChangeV2) {
        for node in change.changes {
            if node.kind == ConfChangeKind::RemoveNode {
                self.is_removed |= node.node_id == self.raft.id();
                self.state().urls.remove(&node.node_id);
                self.transport.forget(node.node_id);
            } else if let Ok(url) = std::str::from_utf8(&change.context) {
                self.state().urls.insert(node.node_id, url.to_owned());
                self.transport.reach(node.node_id, url);
            }
        }
    }

    /// Takes a snapshot of the state at `index`, and lets go of the entries that only a laggard would need.
    fn take_snapshot(&mut self, index: Index) -> Result<()> {
        let term = self.raft.term_at(index).expect("what was just applied is in the log");
        let metadata = SnapshotMetadata { index, term, conf_state: self.raft.conf_state() };
        let snapshot = Snapshot { data: self.state().encode_to_vec().into(), metadata };
        let unneeded = Index(index.0.saturating_sub(self.snapshot_count));
        snap::keep(&Os, &self.dir, &mut self.wal, &snapshot)?;
        self.wal.sync()?;
        self.wal.release(unneeded)?;
        snap::release(&Os, &self.dir, index)?;
        self.raft.release(unneeded);
        self.raft.evict(LOG_BYTES_IN_MEMORY);
        self.raft.offer_snapshot(snapshot);
        Ok(())
    }

    /// Makes a snapshot the state, and what laggards get from now on.
    fn become_snapshot(&mut self, snapshot: Snapshot) -> Result<()> {
        let state = State::decode(snapshot.data.clone()).context("a snapshot holds no state")?;
        state.urls.iter().for_each(|(id, url)| self.transport.reach(*id, url));
        *self.state() = state;
        self.raft.offer_snapshot(snapshot);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with the state in his hands")
    }
}
