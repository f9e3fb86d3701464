//! A member small enough to be printed byte by byte: nine entries in its log, and the state that they make.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::membershippb::ClusterVersionSetRequest;
use raft::{ConfChange, Entry, EntryKind, HardState, Index, Term};
use state_machine::{
    ChangeKind, Config, Member, MembershipChange, Payload, RequestId, StateMachine,
};
use vfs::Vfs;
use wal::{Metadata, SnapshotRecord, Wal};

pub const MEMBER: u64 = 0x8e9e_05c5_2164_694d;
pub const CLUSTER: u64 = 0xcdf8_1819_4e3a_8c32;

/// Where the files of the log and of the store end, in bytes.
const SEGMENT_BYTES: u32 = 4096;

/// Makes `member/` in `dir`: its log, its store, and a snapshot in `incoming/`.
pub fn make(dir: &Path) {
    let vfs: Arc<dyn Vfs> = Arc::new(vfs::os::Os);
    let member = dir.join("member");
    for place in ["store", "incoming"] {
        vfs.create_dir_all(&member.join(place)).unwrap();
    }
    drop(vfs.lock(&member.join("LOCK")).unwrap());
    log(vfs.clone(), &member.join("wal"));
    let snapshot = state(vfs, &member.join("store"));
    std::fs::write(member.join("incoming").join(SNAPSHOT), snapshot).unwrap();
}

/// The snapshot's name: index and term.
pub const SNAPSHOT: &str = "0000000000000009-0000000000000001.snap";

fn command(id: u64, fill: impl FnOnce(&mut pb::InternalRaftRequest)) -> Bytes {
    let header = pb::RequestHeader { id, ..Default::default() };
    let mut request = pb::InternalRaftRequest { header: Some(header), ..Default::default() };
    fill(&mut request);
    Bytes::from(prost::Message::encode_to_vec(&request))
}

fn put(key: &'static str, value: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

fn founder() -> ConfChange {
    let member = Member {
        id: MEMBER,
        name: String::new(),
        peer_urls: vec!["http://a:2380".to_owned()],
        client_urls: Vec::new(),
        is_learner: false,
    };
    ConfChange { id: 0, node_id: MEMBER, context: member.to_context(), ..ConfChange::default() }
}

/// The log's entries, from index 1 on.
pub fn entries() -> Vec<Entry> {
    let compare = pb::Compare {
        target: pb::compare::CompareTarget::Mod as i32,
        key: "foo".into(),
        target_union: Some(pb::compare::TargetUnion::ModRevision(2)),
        ..Default::default()
    };
    let operation = pb::request_op::Request::RequestPut(put("foo", "baz"));
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![pb::RequestOp { request: Some(operation) }],
        failure: Vec::new(),
    };
    let data = [
        founder().encode(),
        Bytes::new(),
        command(3, |request| {
            let version = ClusterVersionSetRequest { ver: "3.7.0".to_owned() };
            request.cluster_version_set = Some(version);
        }),
        command(4, |request| {
            request.lease_grant = Some(pb::LeaseGrantRequest { id: 0x7b, ttl: 60 });
        }),
        command(5, |request| {
            request.put = Some(pb::PutRequest { lease: 0x7b, ..put("foo", "bar") });
        }),
        command(6, |request| request.txn = Some(txn)),
        command(7, |request| request.put = Some(put("fox", "\x01"))),
        command(8, |request| {
            let delete = pb::DeleteRangeRequest { key: "fox".into(), ..Default::default() };
            request.delete_range = Some(delete);
        }),
        command(9, |request| {
            request.compaction = Some(pb::CompactionRequest { revision: 3, physical: false });
        }),
    ];
    let entry = |(at, data): (usize, Bytes)| Entry {
        kind: if at == 0 { EntryKind::ConfChange } else { EntryKind::Normal },
        term: Term(1),
        index: Index(at as u64 + 1),
        data,
    };
    data.into_iter().enumerate().map(entry).collect()
}

fn voters() -> raft::ConfState {
    raft::ConfState { voters: vec![MEMBER], ..raft::ConfState::default() }
}

/// The log, with a sync before each of its states and a snapshot record at 4.
fn log(vfs: Arc<dyn Vfs>, dir: &Path) {
    let metadata = Metadata { node_id: MEMBER, cluster_id: CLUSTER };
    let options = wal::Options { segment_bytes: SEGMENT_BYTES.into() };
    let mut log = Wal::create(vfs, dir, metadata, options).unwrap();
    let entries = entries();
    let state = |commit| HardState { term: Term(1), vote: MEMBER, commit: Index(commit) };
    log.append(&entries[..1], Some(&state(1))).unwrap();
    log.sync().unwrap();
    log.append(&entries[1..5], Some(&state(4))).unwrap();
    log.sync().unwrap();
    let place = SnapshotRecord { index: Index(4), term: Term(1), conf_state: Some(voters()) };
    log.save_snapshot(&place).unwrap();
    log.append(&entries[5..], Some(&state(9))).unwrap();
    log.sync().unwrap();
}

/// The store, in two segments: that of the first five entries sealed. Returns a snapshot of it.
fn state(vfs: Arc<dyn Vfs>, dir: &Path) -> Vec<u8> {
    let mut recovery = mvcc::Recovery::new();
    let options =
        store::Options { segment_bytes: SEGMENT_BYTES, ..store::Options::new(CLUSTER, MEMBER) };
    let opened = store::open(vfs, dir, options, &mut |record| recovery.take(record)).unwrap();
    let (revision, mark, mut flusher) = (opened.revision, opened.compact_revision, opened.flusher);
    let keyspace = recovery
        .finish(mvcc::Options::default(), opened.builder, opened.reader, revision, mark)
        .unwrap();
    let mut machine =
        StateMachine::recover(keyspace, &opened.rows, opened.applied, Config::default()).unwrap();
    for entry in entries() {
        let (index, term) = (entry.index.0, entry.term.0);
        let change = MembershipChange {
            id: RequestId(0),
            kind: ChangeKind::AddNode,
            node_id: MEMBER,
            context: founder().context,
        };
        let conf_state = state_machine::ConfState { voters: vec![MEMBER], ..Default::default() };
        let payload = match entry.kind {
            EntryKind::Normal => Payload::Normal(&entry.data),
            _ => Payload::Membership { change: &change, conf_state },
        };
        machine.apply(index, term, payload, false).unwrap();
        machine.publish();
        if index == 5 {
            // The next frame begins a new segment, as when this one is full.
            machine.keyspace().builder().roll();
            write(&mut machine, &mut flusher);
            flusher.sync().unwrap();
        }
    }
    write(&mut machine, &mut flusher);
    flusher.sync().unwrap();
    let mut stream = flusher.snapshot().unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next_chunk(64 << 10, &mut |_, _| true).unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

fn write(machine: &mut StateMachine, flusher: &mut store::Flusher) {
    while let Some(frame) = machine.keyspace().take_frame() {
        let written = flusher.write(&frame).unwrap();
        machine.keyspace().frame_written(written.applied.0);
    }
}
