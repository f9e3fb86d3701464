//! The services end to end, through the generated client stubs.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop where it stands, and looks at the real clock"
)]

mod common;

use common::Lone;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp, StatusRequest, TxnRequest,
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
    request_op,
};
use tonic::transport::Channel;

async fn channel(lone: &Lone) -> Channel {
    Channel::from_shared(format!("http://{}", lone.address)).unwrap().connect().await.unwrap()
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: key.to_string().into(),
        value: value.to_string().into(),
        ..PutRequest::default()
    }
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_written_is_read_until_it_is_compacted() {
    let lone = Lone::start(&[]);
    let mut kv = KvClient::new(channel(&lone).await);
    let first = kv.put(put("a", "1")).await.unwrap().into_inner().header.unwrap();
    assert_eq!(first.revision, 2);
    assert!(first.cluster_id != 0 && first.member_id != 0 && first.raft_term > 0);
    let former = kv.put(PutRequest { prev_kv: true, ..put("a", "2") }).await.unwrap().into_inner();
    assert_eq!(former.prev_kv.unwrap().value, "1");

    let found = kv
        .range(RangeRequest { key: "a".into(), ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((found.count, found.kvs[0].version), (1, 2));
    assert_eq!(found.header.unwrap().revision, 3);

    let op = |request| RequestOp { request: Some(request) };
    let txn = TxnRequest {
        success: vec![
            op(request_op::Request::RequestPut(put("b", "3"))),
            op(request_op::Request::RequestDeleteRange(DeleteRangeRequest {
                key: "a".into(),
                ..Default::default()
            })),
        ],
        ..TxnRequest::default()
    };
    let done = kv.txn(txn).await.unwrap().into_inner();
    assert!(done.succeeded);
    assert_eq!(done.responses.len(), 2);

    kv.compact(CompactionRequest { revision: 4, physical: false }).await.unwrap();
    let old = RangeRequest { key: "a".into(), revision: 2, ..Default::default() };
    let error = kv.range(old).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::OutOfRange);
    assert_eq!(error.message(), "etcdserver: mvcc: required revision has been compacted");

    let status = MaintenanceClient::new(channel(&lone).await)
        .status(StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(status.leader, status.header.unwrap().member_id);
    assert!(status.errors.is_empty(), "{:?}", status.errors);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_member_that_ended_well_begins_again_with_what_it_had() {
    let mut lone = Lone::start(&[]);
    let mut kv = KvClient::new(channel(&lone).await);
    kv.put(put("a", "1")).await.unwrap();
    let before = kv.put(put("b", "2")).await.unwrap().into_inner().header.unwrap();
    drop(kv);
    tokio::task::block_in_place(|| lone.restart());
    let mut kv = KvClient::new(channel(&lone).await);
    let all = RangeRequest { key: "a".into(), range_end: "z".into(), ..Default::default() };
    let found = kv.range(all).await.unwrap().into_inner();
    assert_eq!(found.count, 2);
    let header = found.header.unwrap();
    assert_eq!(header.revision, before.revision);
    assert_eq!((header.cluster_id, header.member_id), (before.cluster_id, before.member_id));
    let after = kv.put(put("c", "3")).await.unwrap().into_inner().header.unwrap();
    assert_eq!(after.revision, before.revision + 1);
}

/// A watch stream: what is asked, and what comes.
struct Watching {
    ask: tokio::sync::mpsc::Sender<WatchRequest>,
    answers: tonic::Streaming<WatchResponse>,
}

impl Watching {
    async fn open(lone: &Lone) -> Watching {
        let (ask, asked) = tokio::sync::mpsc::channel(16);
        let asked = tokio_stream::wrappers::ReceiverStream::new(asked);
        let answers =
            WatchClient::new(channel(lone).await).watch(asked).await.unwrap().into_inner();
        Watching { ask, answers }
    }
    async fn say(&mut self, union: RequestUnion) {
        self.ask.send(WatchRequest { request_union: Some(union) }).await.unwrap();
    }
    async fn create(&mut self, create: WatchCreateRequest) -> WatchResponse {
        self.say(RequestUnion::CreateRequest(create)).await;
        self.next().await
    }
    async fn next(&mut self) -> WatchResponse {
        self.answers.message().await.unwrap().unwrap()
    }
}

fn key(key: &str, start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest { key: key.to_string().into(), start_revision, ..Default::default() }
}

#[tokio::test(flavor = "current_thread")]
async fn a_watcher_hears_the_past_and_the_present_once_each() {
    let lone = Lone::start(&[]);
    let mut kv = KvClient::new(channel(&lone).await);
    kv.put(put("w", "1")).await.unwrap();
    kv.put(put("w", "2")).await.unwrap();
    let mut watching = Watching::open(&lone).await;
    let created = watching.create(WatchCreateRequest { prev_kv: true, ..key("w", 2) }).await;
    assert!(created.created && !created.canceled);
    assert_eq!((created.watch_id, created.header.unwrap().revision), (0, 3));
    let past = watching.next().await;
    let values: Vec<_> = past.events.iter().map(|e| e.kv.as_ref().unwrap().value.clone()).collect();
    assert_eq!(values, ["1", "2"]);
    assert!(past.events[0].prev_kv.is_none());
    assert_eq!(past.events[1].prev_kv.as_ref().unwrap().value, "1");

    kv.delete_range(DeleteRangeRequest { key: "w".into(), ..Default::default() }).await.unwrap();
    let present = watching.next().await;
    assert_eq!((present.events.len(), present.events[0].r#type), (1, 1));
    assert_eq!(present.events[0].prev_kv.as_ref().unwrap().value, "2");
    assert_eq!(present.header.unwrap().revision, 4);

    watching.say(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    let progress = watching.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, 4));
    assert!(progress.events.is_empty());

    watching.say(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 9 })).await;
    watching.say(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 0 })).await;
    let canceled = watching.next().await;
    assert!(canceled.canceled && canceled.cancel_reason.is_empty());
    assert_eq!(canceled.watch_id, 0);
}

#[tokio::test(flavor = "current_thread")]
async fn watchers_that_cannot_be_are_refused_as_etcd_refuses_them() {
    let lone = Lone::start(&[]);
    let mut kv = KvClient::new(channel(&lone).await);
    for value in ["1", "2", "3"] {
        kv.put(put("w", value)).await.unwrap();
    }
    kv.compact(CompactionRequest { revision: 4, physical: false }).await.unwrap();
    let mut watching = Watching::open(&lone).await;

    let created = watching.create(WatchCreateRequest { watch_id: 7, ..key("w", 0) }).await;
    assert_eq!((created.watch_id, created.canceled), (7, false));
    for (create, reason) in [
        (
            WatchCreateRequest { watch_id: 7, ..key("w", 0) },
            "mvcc: duplicate watch ID provided on the WatchStream",
        ),
        (
            WatchCreateRequest { range_end: "a".into(), ..key("w", 0) },
            "mvcc: watcher range is empty",
        ),
        (key("w", -1), "etcdserver: mvcc: required revision has been compacted"),
    ] {
        let refused = watching.create(create).await;
        assert!(refused.created && refused.canceled);
        assert_eq!((refused.watch_id, refused.cancel_reason.as_str()), (-1, reason));
    }

    // Compacted: confirmed first, cancelled then.
    let created = watching.create(key("w", 2)).await;
    assert!(created.created && !created.canceled);
    let canceled = watching.next().await;
    assert!(canceled.canceled && !canceled.created);
    assert_eq!((canceled.compact_revision, canceled.cancel_reason.as_str()), (4, ""));
    assert_eq!((canceled.watch_id, canceled.header.unwrap().revision), (created.watch_id, 0));
    // The compaction's own revision can still be watched.
    watching.create(key("w", 4)).await;
    assert_eq!(watching.next().await.events.len(), 1);
}

#[tokio::test(flavor = "current_thread")]
async fn a_lease_is_granted_renewed_and_takes_its_keys_along() {
    let lone = Lone::start(&[]);
    let mut kv = KvClient::new(channel(&lone).await);
    let mut leases = LeaseClient::new(channel(&lone).await);
    let lease =
        leases.lease_grant(LeaseGrantRequest { ttl: 60, id: 0 }).await.unwrap().into_inner();
    assert_eq!(lease.ttl, 60);
    kv.put(PutRequest { lease: lease.id, ..put("l", "v") }).await.unwrap();

    let asked = tokio_stream::iter([
        LeaseKeepAliveRequest { id: lease.id },
        LeaseKeepAliveRequest { id: 12345 },
    ]);
    let mut answers = leases.lease_keep_alive(asked).await.unwrap().into_inner();
    let renewed = answers.message().await.unwrap().unwrap();
    assert_eq!((renewed.id, renewed.ttl), (lease.id, 60));
    let unknown = answers.message().await.unwrap().unwrap();
    assert_eq!((unknown.id, unknown.ttl), (12345, 0));
    // The client has ended its side, so the stream ends, well.
    assert!(answers.message().await.unwrap().is_none());

    let ask = |id| LeaseTimeToLiveRequest { id, keys: true };
    let time = leases.lease_time_to_live(ask(lease.id)).await.unwrap().into_inner();
    assert!((58..=60).contains(&time.ttl), "{}", time.ttl);
    assert_eq!((time.granted_ttl, time.keys), (60, vec!["l".into()]));
    let time = leases.lease_time_to_live(ask(12345)).await.unwrap().into_inner();
    assert_eq!((time.ttl, time.granted_ttl), (-1, 0));

    leases.lease_revoke(proto::etcdserverpb::LeaseRevokeRequest { id: lease.id }).await.unwrap();
    let gone = kv.range(RangeRequest { key: "l".into(), ..Default::default() }).await.unwrap();
    assert_eq!(gone.into_inner().count, 0);
    let too_long =
        leases.lease_grant(LeaseGrantRequest { ttl: 9_000_000_001, id: 0 }).await.unwrap_err();
    assert_eq!(too_long.message(), "etcdserver: too large lease TTL");
}

#[tokio::test(flavor = "current_thread")]
async fn a_stopping_member_ends_its_streams_and_says_why() {
    let mut lone = Lone::start(&[]);
    let mut watching = Watching::open(&lone).await;
    watching.create(key("w", 0)).await;
    let member = lone.member.take().unwrap();
    let stopping = tokio::task::spawn_blocking(move || member.stop());
    let error = watching.answers.message().await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unavailable);
    assert_eq!(error.message(), "etcdserver: server stopped");
    stopping.await.unwrap();
}
