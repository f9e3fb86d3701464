//! The services end to end, through the generated client stubs.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop where it stands, and looks at the real clock"
)]

mod common;

use common::{Lone, channel, put_request as put};
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp, StatusRequest, TxnRequest,
    request_op,
};

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
