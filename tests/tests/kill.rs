//! Members die without warning, again and again, under load; nothing that was acknowledged is lost.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use tests::process::{Cluster, Member};
use tests::workload::{Follower, Writers, check, check_events};

/// Twenty where it counts; `QUORATE_KILLS` says otherwise, and a quick run of all tests makes do with five.
fn kills() -> usize {
    std::env::var("QUORATE_KILLS").map_or(5, |kills| kills.parse().unwrap())
}

const WRITERS: usize = 16;
const WITHIN: Duration = Duration::from_secs(30);

/// Again and again the leader is killed while sixteen clients write; it comes back, and in the end every
/// acknowledged write is on every member, their HashKV are equal, and a watch that resumed each time on
/// another member has seen each revision once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_of_three_is_killed_again_and_again_and_nothing_is_lost() {
    // Few entries between snapshots, so that members that return sometimes need one.
    let mut cluster =
        Cluster::ours(3, &["--snapshot-count", "2000", "--snapshot-catchup-entries", "1000"]).await;
    let urls: Vec<String> = cluster.members.iter().map(Member::client_url).collect();
    let writers = Writers::start(&urls, WRITERS);
    let follower = Follower::start(urls);
    for _ in 0..kills() {
        writers.progress(200, WITHIN).await;
        let leader = cluster.leader().await;
        cluster.members[leader].kill();
        writers.progress(100, WITHIN).await;
        cluster.members[leader].start();
        cluster.members[leader].wait_ready().await;
    }
    let promises = writers.stop().await;
    let agreed = cluster.agree().await;
    for member in &cluster.members {
        check(member.kv(), &promises).await;
    }
    let last = agreed.header.unwrap().revision;
    let events = follower.finish(last, WITHIN).await;
    check_events(cluster.members[0].kv(), &events, WRITERS).await;
    println!(
        "{} leaders killed; {} puts tried, {} events watched",
        kills(),
        sum(&promises),
        events.len()
    );
}

/// The same with a lone member: what it acknowledged is on its own disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_member_is_killed_again_and_again_and_nothing_is_lost() {
    let mut cluster = Cluster::ours(1, &["--snapshot-count", "3000"]).await;
    let urls = vec![cluster.members[0].client_url()];
    let writers = Writers::start(&urls, WRITERS);
    let follower = Follower::start(urls);
    for _ in 0..kills() {
        writers.progress(500, WITHIN).await;
        cluster.members[0].kill();
        cluster.members[0].start();
        cluster.members[0].wait_ready().await;
    }
    let promises = writers.stop().await;
    check(cluster.members[0].kv(), &promises).await;
    let last = cluster.agree().await.header.unwrap().revision;
    let events = follower.finish(last, WITHIN).await;
    check_events(cluster.members[0].kv(), &events, WRITERS).await;
    println!("{} kills; {} puts tried, {} events watched", kills(), sum(&promises), events.len());
}

fn sum(promises: &[tests::workload::Promise]) -> u64 {
    promises.iter().map(|promise| promise.tried).sum()
}
