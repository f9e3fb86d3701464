//! A member was away. It catches up while the others go on: by the log, or, when that is gone, by a snapshot.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use tests::history::eventually;
use tests::process::{Cluster, Member, READY_WITHIN};
use tests::workload::{Writers, check};

const WITHIN: Duration = READY_WITHIN;

/// One member of three is away for `entries` puts and returns while writes go on.
async fn away_for(entries: u64, flags: &[&str]) -> (Cluster, Vec<tests::workload::Promise>) {
    let mut cluster = Cluster::ours(3, flags).await;
    let leader = cluster.leader().await;
    let away = (leader + 1) % 3;
    let urls: Vec<String> = cluster
        .members
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != away)
        .map(|(_, member)| member.client_url())
        .collect();
    let writers = Writers::start(&urls, 16);
    writers.progress(100, WITHIN).await;
    cluster.members[away].kill();
    writers.progress(entries, WITHIN).await;
    cluster.members[away].start();
    cluster.members[away].wait_ready().await;
    // It has caught up when it answers a linearizable read; the others still write.
    let mut kv = cluster.members[away].kv();
    kv.range(proto::etcdserverpb::RangeRequest { key: "writer/000".into(), ..Default::default() })
        .await
        .unwrap();
    writers.progress(200, WITHIN).await;
    let promises = writers.stop().await;
    cluster.agree().await;
    (cluster, promises)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_catches_up_by_the_log() {
    let (cluster, promises) = away_for(2_000, &["--snapshot-count", "10000000"]).await;
    for member in &cluster.members {
        check(member.kv(), &promises).await;
    }
    assert!(!received_a_snapshot(&cluster), "the log was long enough, no snapshot was needed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_too_long_catches_up_by_a_snapshot() {
    let flags = ["--snapshot-count", "500", "--snapshot-catchup-entries", "100"];
    let (mut cluster, promises) = away_for(4_000, &flags).await;
    for member in &cluster.members {
        check(member.kv(), &promises).await;
    }
    // It says so; the line may be under way.
    eventually("the log was gone, a snapshot was needed", || received_a_snapshot(&cluster)).await;
    // What came by snapshot is as durable as what came by the log.
    for member in &mut cluster.members {
        member.kill();
    }
    cluster.start().await;
    cluster.agree().await;
    for member in &cluster.members {
        check(member.kv(), &promises).await;
    }
}

fn received_a_snapshot(cluster: &Cluster) -> bool {
    cluster.members.iter().any(|member: &Member| {
        member.log_text().lines().any(|line| line.contains("installed a snapshot"))
    })
}
