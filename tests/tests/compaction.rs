//! Regular compaction: members that were told to forget what is older than a period do so together, whoever leads.
//!
//! By number of revisions a member looks every five minutes, as etcd does, which is longer than a test may take: the
//! unit tests of the server's compactor play that, on a clock of their own.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::{Duration, Instant};

use proto::etcdserverpb::{PutRequest, RangeRequest};
use tests::process::{Cluster, Member, READY_WITHIN, quorate};

/// How long the compaction of a period of one second may take to be seen; a bound, not an expectation.
const WITHIN: Duration = READY_WITHIN;
const PERIODIC: [&str; 4] =
    ["--auto-compaction-mode", "periodic", "--auto-compaction-retention", "1s"];
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

/// Puts `foo` so often; the last revision.
async fn put(member: &Member, values: std::ops::Range<u32>) -> i64 {
    let mut revision = 0;
    for value in values {
        let request =
            PutRequest { key: "foo".into(), value: value.to_string().into(), ..Default::default() };
        let reply = member.kv().put(request).await.unwrap().into_inner();
        revision = reply.header.unwrap().revision;
    }
    revision
}

/// What this member itself knows of `foo` at a revision.
async fn foo_at(member: &Member, revision: i64) -> Result<String, tonic::Status> {
    let request =
        RangeRequest { key: "foo".into(), revision, serializable: true, ..Default::default() };
    let reply = member.kv().range(request).await?.into_inner();
    Ok(String::from_utf8(reply.kvs[0].value.to_vec()).unwrap())
}

/// Waits until every running member refuses this revision as compacted.
async fn forgotten(cluster: &mut Cluster, revision: i64) {
    let deadline = Instant::now() + WITHIN;
    for member in &mut cluster.members {
        if !member.is_running() {
            continue;
        }
        loop {
            match foo_at(member, revision).await {
                Err(status) => {
                    assert_eq!(status.message(), COMPACTED);
                    assert_eq!(status.code(), tonic::Code::OutOfRange);
                    break;
                }
                Ok(_) => assert!(
                    Instant::now() < deadline,
                    "{} has revision {revision} still, after {WITHIN:?}",
                    member.name
                ),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_older_than_the_period_is_forgotten_by_all_and_the_next_leader_goes_on() {
    let mut cluster = Cluster::ours(3, &PERIODIC).await;
    let leader = cluster.leader().await;
    let last = put(&cluster.members[leader], 0..20).await;
    forgotten(&mut cluster, last - 1).await;
    for member in &cluster.members {
        assert_eq!(foo_at(member, last).await.unwrap(), "19", "the newest value stays");
    }
    let agreed = cluster.agree().await;
    assert_eq!(agreed.compact_revision, last, "all have forgotten the same");

    cluster.members[leader].kill();
    let next = cluster.leader().await;
    let last = put(&cluster.members[next], 20..40).await;
    forgotten(&mut cluster, last - 1).await;
    assert_eq!(foo_at(&cluster.members[next], last).await.unwrap(), "39");
}

#[test]
fn a_retention_that_says_nothing_is_refused() {
    for (mode, retention, why) in [
        ("sometimes", "1h", "unknown auto-compaction-mode"),
        ("", "1h", "undefined auto-compaction-mode"),
        ("periodic", "soon", "--auto-compaction-retention"),
        ("revision", "1h", "--auto-compaction-retention"),
        ("revision", "-1", "--auto-compaction-retention"),
    ] {
        let flags = [
            format!("--auto-compaction-mode={mode}"),
            format!("--auto-compaction-retention={retention}"),
        ];
        let mut cluster = Cluster::new(&[quorate()], &[&flags[0], &flags[1]]);
        let member = &mut cluster.members[0];
        member.start();
        let code = member.wait_exit(WITHIN);
        assert!(code.is_some_and(|code| code != 0), "{flags:?}: {code:?}");
        assert!(member.log_text().contains(why), "{flags:?}: {}", member.log_text());
        assert!(!member.data_dir.exists(), "{flags:?}: nothing was founded");
    }
}
