//! Members of ours and a real etcd in one cluster; and etcd's own tool reads our log.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::process::Command;
use std::time::{Duration, Instant};

use proto::etcdserverpb::{
    Compare, LeaseGrantRequest, LeaseRevokeRequest, MoveLeaderRequest, PutRequest, RangeRequest,
    RequestOp, TxnRequest, compare::TargetUnion, request_op::Request,
};
use tests::need;
use tests::process::{Cluster, Member, quorate, reference, run_ok};

/// The place of the etcd member.
const ETCD: usize = 2;

/// Makes `target` the leader: etcd is asked to hand over; ours hands over when it is ended, and comes back.
async fn lead(cluster: &mut Cluster, target: usize) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let leader = cluster.leader().await;
        if leader == target {
            return;
        }
        assert!(Instant::now() < deadline, "member {target} does not become leader");
        if leader == ETCD {
            let id = cluster.members[target].status().await.unwrap().header.unwrap().member_id;
            let request = MoveLeaderRequest { target_id: id };
            // Refused when leadership has moved in the meantime; the loop looks again.
            drop(cluster.members[ETCD].maintenance().move_leader(request).await);
        } else {
            let code = cluster.members[leader].terminate();
            assert!(matches!(code, Some(0) | None), "SIGTERM ends it cleanly, not with {code:?}");
            cluster.leader().await;
            cluster.members[leader].start();
            cluster.members[leader].wait_ready().await;
        }
    }
}

/// A hundred rounds of a put, a transaction and a lease through one member.
async fn work(member: &Member, label: &str) {
    let mut kv = member.kv();
    let mut lease = member.lease();
    for i in 0..112 {
        let key = format!("{label}/{i}");
        let put = PutRequest { key: key.clone().into(), value: "1".into(), ..Default::default() };
        kv.put(put.clone()).await.unwrap();
        if i % 4 == 0 {
            let txn = TxnRequest {
                compare: vec![Compare {
                    target: 0,
                    key: key.clone().into(),
                    target_union: Some(TargetUnion::Version(1)),
                    ..Default::default()
                }],
                success: vec![
                    RequestOp {
                        request: Some(Request::RequestPut(PutRequest {
                            value: "2".into(),
                            prev_kv: true,
                            ..put
                        })),
                    },
                    RequestOp {
                        request: Some(Request::RequestRange(RangeRequest {
                            key: key.clone().into(),
                            ..Default::default()
                        })),
                    },
                ],
                ..Default::default()
            };
            assert!(kv.txn(txn).await.unwrap().into_inner().succeeded);
        }
        if i % 8 == 0 {
            let grant = LeaseGrantRequest { ttl: 3600, id: 0 };
            let id = lease.lease_grant(grant).await.unwrap().into_inner().id;
            let put = PutRequest { key: key.into(), lease: id, ..Default::default() };
            kv.put(put).await.unwrap();
            if i % 16 == 0 {
                lease.lease_revoke(LeaseRevokeRequest { id }).await.unwrap();
            }
        }
    }
}

/// Two of ours and one etcd: each leads once, each takes puts, transactions and leases under each leader
/// (over a thousand puts through each member in all), their HashKV are equal, and the etcd member restarts
/// from its own log into the same state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_ours_and_one_etcd_are_one_cluster() {
    let etcd = need!("mixed", reference("etcd"));
    let mut cluster = Cluster::new(&[quorate(), quorate(), etcd], &[]);
    cluster.start().await;
    for leader in 0..3 {
        lead(&mut cluster, leader).await;
        for (i, member) in cluster.members.iter().enumerate() {
            for round in 0..3 {
                work(member, &format!("leader{leader}/through{i}/{round}")).await;
            }
        }
        let agreed = cluster.agree().await;
        println!("led by {leader}: revision {}", agreed.hash_revision);
    }
    let before = cluster.agree().await;
    cluster.members[ETCD].kill();
    cluster.members[ETCD].start();
    cluster.members[ETCD].wait_ready().await;
    let after = cluster.agree().await;
    assert_eq!((before.hash, before.hash_revision), (after.hash, after.hash_revision));
}

/// etcd's own etcd-dump-logs reads a WAL of ours and shows its entries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_dump_logs_reads_our_wal() {
    let dump = need!("dump_logs", reference("etcd-dump-logs"));
    let mut cluster = Cluster::ours(1, &[]).await;
    work(&cluster.members[0], "dumped").await;
    cluster.members[0].terminate();
    let text = run_ok(Command::new(dump).arg(&cluster.members[0].data_dir));
    assert!(text.contains("WAL metadata"), "{text}");
    assert!(text.matches("dumped/").count() >= 112, "the entries are not shown:\n{text}");
}
