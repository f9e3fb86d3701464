//! A member reduced to its state machine: a store on a disk in memory, and entries one after the other.

#![allow(dead_code, reason = "each test crate uses its part")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use state_machine::{
    Answer, ChangeKind, Command, ConfState, Config, Effort, LeaseInfo, MembershipChange, Outcome,
    Payload, Reply, Request, RequestId, StateMachine, Verdict,
};
use vfs::memory::Memory;

/// The disk survives a restart, the rest is built anew from it.
pub struct Member {
    disk: Memory,
    running: Option<(StateMachine, store::Flusher)>,
    conf_state: ConfState,
    next_id: u64,
}

impl Member {
    pub fn new() -> Member {
        let mut member = Member {
            disk: Memory::new(1),
            running: None,
            conf_state: ConfState::default(),
            next_id: 1,
        };
        member.start();
        member
    }

    fn start(&mut self) {
        let (keyspace, rows, applied, flusher) = self.open();
        let machine = StateMachine::recover(keyspace, &rows, applied, Config::default()).unwrap();
        self.running = Some((machine, flusher));
    }

    fn open(&self) -> (mvcc::Keyspace, Vec<store::Row>, (u64, u64), store::Flusher) {
        let mut recovery = mvcc::Recovery::new();
        let disk = Arc::new(self.disk.clone());
        let options = store::Options { segment_bytes: 256 << 10, ..store::Options::new(1, 2) };
        let opened =
            store::open(disk, Path::new("store"), options, &mut |record| recovery.take(record))
                .unwrap();
        let (revision, mark) = (opened.revision, opened.compact_revision);
        let options = mvcc::Options::default();
        let keyspace =
            recovery.finish(options, opened.builder, opened.reader, revision, mark).unwrap();
        (keyspace, opened.rows, opened.applied, opened.flusher)
    }

    /// Takes the other's state in place of its own, as after an imported snapshot. The other stops.
    pub fn replace(&mut self, mut other: Member) {
        other.flush();
        other.running = None;
        let (keyspace, rows, applied, flusher) = other.open();
        let (machine, own) = self.running.as_mut().unwrap();
        let batch = machine.replace(keyspace, &rows, applied).unwrap();
        assert!(batch.is_gap, "watchers are told that events are missing");
        *own = flusher;
        self.disk = other.disk;
    }

    /// Writes out what was applied.
    pub fn flush(&mut self) {
        let (machine, flusher) = self.running.as_mut().unwrap();
        while let Some(frame) = machine.keyspace().take_frame() {
            let written = flusher.write(&frame).unwrap();
            machine.keyspace().frame_written(written.applied.0);
        }
        flusher.sync().unwrap();
    }

    /// Stops after a flush and starts from the disk.
    pub fn restart(&mut self) {
        self.flush();
        self.running = None;
        self.start();
    }

    /// Dies without a word and starts from the disk. Returns up to where that holds everything.
    pub fn die(&mut self) -> u64 {
        self.running = None;
        self.disk.crash();
        self.start();
        self.machine().applied().0
    }

    pub fn machine(&mut self) -> &mut StateMachine {
        &mut self.running.as_mut().unwrap().0
    }

    pub fn view(&mut self) -> state_machine::View {
        self.machine().view()
    }

    pub fn apply(&mut self, payload: Payload<'_>, want_reply: bool) -> Outcome {
        let machine = self.machine();
        let (index, _) = machine.applied();
        let outcome = machine.apply(index + 1, 3, payload, want_reply).unwrap();
        assert_eq!(machine.applied(), (index + 1, 3));
        machine.publish();
        outcome
    }

    /// Sends a request through its encoding, as the log would.
    pub fn request(&mut self, request: Request) -> Outcome {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let command = Command { id, caller: Default::default(), request };
        let data = command.encode();
        assert_eq!(Command::decode(&data), command, "what is encoded is decoded");
        self.apply(Payload::Normal(&data), true)
    }

    /// Applies a change as raft would offer it, and keeps raft's configuration.
    pub fn change(&mut self, kind: ChangeKind, node_id: u64, context: Bytes) -> Outcome {
        let change = MembershipChange { id: RequestId(9), kind, node_id, context };
        let mut next = self.conf_state.clone();
        next.voters.retain(|id| *id != node_id);
        next.learners.retain(|id| *id != node_id);
        match kind {
            ChangeKind::AddNode => next.voters.push(node_id),
            ChangeKind::AddLearnerNode => next.learners.push(node_id),
            ChangeKind::RemoveNode => {}
            ChangeKind::UpdateNode => next = self.conf_state.clone(),
        }
        let payload = Payload::Membership { change: &change, conf_state: next.clone() };
        let outcome = self.apply(payload, true);
        if outcome.membership == Some(Verdict::Accepted) {
            self.conf_state = next;
        }
        outcome
    }

    /// All that members must agree on, and all that must survive a restart.
    pub fn state(&mut self) -> State {
        let view = self.view();
        let leases = view.leases();
        let keys: Vec<_> = leases.iter().map(|lease| view.lease_keys(lease.id).unwrap()).collect();
        let everything = proto::etcdserverpb::RangeRequest {
            key: Bytes::from_static(&[0]),
            range_end: Bytes::from_static(&[0]),
            ..Default::default()
        };
        let Ok(Answer::Ready(keyspace)) = view.range(&everything, Effort::Disk) else {
            panic!("a read thread is always answered");
        };
        State {
            applied: self.machine().applied(),
            revision: view.revision(),
            compact_revision: view.compact_revision(),
            hash: view.hash_now().unwrap(),
            keyspace,
            leases: leases.into_iter().zip(keys).collect(),
            cluster: (*view.cluster()).clone(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub applied: (u64, u64),
    pub revision: i64,
    pub compact_revision: i64,
    pub hash: Reply,
    pub keyspace: Reply,
    pub leases: Vec<(LeaseInfo, Vec<Bytes>)>,
    pub cluster: state_machine::Cluster,
}
