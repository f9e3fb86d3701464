//! Bad days: what is wrong is refused, or survived, with one clear error; nothing acknowledged is lost.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use proto::etcdserverpb::{PutRequest, RangeRequest};
use tests::address::own_address;
use tests::disk::{Syncs, Tmpfs};
use tests::need;
use tests::process::{Cluster, Member, READY_WITHIN, quorate, run};

const WITHIN: Duration = READY_WITHIN;

async fn put(member: &Member, key: &str, value: &str) -> Result<(), tonic::Status> {
    let put = PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    };
    member.kv().put(put).await.map(|_| ())
}

async fn get(member: &Member, key: &str) -> Option<String> {
    let range = RangeRequest { key: key.to_owned().into(), ..Default::default() };
    let answer = member.kv().range(range).await.unwrap().into_inner();
    answer.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
}

/// Starts the member, which must refuse: it ends with a status that is not zero, and its log names all of
/// `words`.
fn refuses(member: &mut Member, words: &[&str]) {
    let before = member.log_text().len();
    member.start();
    let code = member.wait_exit(WITHIN);
    let log = member.log_text()[before..].to_owned();
    assert!(code.is_some_and(|code| code != 0), "it ended with {code:?}:\n{log}");
    for word in words {
        assert!(log.to_lowercase().contains(word), "nothing says `{word}`:\n{log}");
    }
    assert!(!log.contains("panicked"), "a refusal is not a panic:\n{log}");
}

fn replace_argument(member: &mut Member, flag: &str, value: &str) {
    let at = member.arguments.iter().position(|argument| argument == flag).unwrap();
    member.arguments[at + 1] = value.to_owned();
}

fn newest(directory: &Path, ending: &str) -> PathBuf {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    files.sort();
    files.pop().unwrap()
}

/// A lone member that has taken `count` puts and was then killed.
async fn killed_after(count: usize) -> Cluster {
    let mut cluster = Cluster::ours(1, &[]).await;
    for i in 0..count {
        put(&cluster.members[0], &format!("key{i}"), &format!("value{i}")).await.unwrap();
    }
    cluster.members[0].kill();
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_another_cluster_is_refused() {
    let cluster = killed_after(3).await;
    let mut other = killed_after(3).await;
    let store = other.members[0].data_dir.join("member/store");
    fs::remove_dir_all(&store).unwrap();
    fs::rename(cluster.members[0].data_dir.join("member/store"), &store).unwrap();
    refuses(&mut other.members[0], &["belongs to cluster", "member/store"]);
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_tail_of_the_log_is_cut_off_and_said() {
    let mut cluster = killed_after(50).await;
    let wal = cluster.members[0].data_dir.join("member/wal");
    let segment = newest(&wal, ".wal");
    let bytes = fs::read(&segment).unwrap();
    // The last record ends where only zeros follow; half a record after it is what a power cut leaves.
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let end = end.div_ceil(8) * 8;
    let mut torn = bytes.clone();
    torn[end..end + 8].copy_from_slice(&0x0100_u64.to_le_bytes());
    torn[end + 8..end + 40].copy_from_slice(&[0x5a; 32]);
    fs::write(&segment, torn).unwrap();
    cluster.members[0].start();
    cluster.members[0].wait_ready().await;
    cluster.members[0].wait_log("torn").await;
    for i in 0..50 {
        assert_eq!(get(&cluster.members[0], &format!("key{i}")).await, Some(format!("value{i}")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_record_in_the_middle_of_the_log_is_refused_with_its_place() {
    let mut cluster = killed_after(50).await;
    let segment = newest(&cluster.members[0].data_dir.join("member/wal"), ".wal");
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(7).position(|window| window == b"value20").unwrap();
    bytes[at] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let name = segment.file_name().unwrap().to_string_lossy().into_owned();
    refuses(&mut cluster.members[0], &[&name, "at byte", "empty its data directory"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_segment_of_the_store_is_refused() {
    let mut cluster = killed_after(20).await;
    let store = cluster.members[0].data_dir.join("member/store");
    let segment = newest(&store, ".segment");
    fs::remove_file(&segment).unwrap();
    let name = segment.file_name().unwrap().to_string_lossy().into_owned();
    refuses(&mut cluster.members[0], &[&name]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_refused_and_named() {
    let cluster = Cluster::ours(1, &[]).await;
    let mut second = Cluster::new(&[quorate()], &[]);
    let taken = &cluster.members[0];
    replace_argument(&mut second.members[0], "--listen-client-urls", &taken.client_url());
    refuses(&mut second.members[0], &["address already in use", &taken.client.to_string()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_initial_cluster_is_refused() {
    let mut cluster = Cluster::new(&[quorate()], &[]);
    let other = format!("somebody=http://{}", own_address());
    replace_argument(&mut cluster.members[0], "--initial-cluster", &other);
    refuses(&mut cluster.members[0], &["local name \"infra0\"", "initial cluster"]);
    let other = format!("infra0=http://{}", own_address());
    replace_argument(&mut cluster.members[0], "--initial-cluster", &other);
    refuses(&mut cluster.members[0], &["initial-advertise-peer-urls"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_flag_is_refused_with_the_nearest_name() {
    let unknown = run(Command::new(quorate()).arg("--listen-client-url=http://127.0.0.1:1"));
    let text = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(2), "{text}");
    assert!(text.contains("listen-client-urls"), "{text}");
    let later = run(Command::new(quorate()).args(["--discovery-srv", "example.org"]));
    let text = String::from_utf8_lossy(&later.stderr).into_owned();
    assert!(!later.status.success() && text.contains("not yet supported"), "{text}");
}

/// A peer of another cluster knocks; it is turned away and nothing here changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_of_another_cluster_is_turned_away() {
    let mut cluster = Cluster::ours(3, &[]).await;
    put(&cluster.members[0], "before", "1").await.unwrap();
    // A stranger with a token of its own believes that our second member is in its cluster of two.
    let mut stranger = Cluster::new(&[quorate(), quorate()], &[]);
    let url = cluster.members[1].peer_url();
    let own = stranger.members[0].peer_url();
    replace_argument(&mut stranger.members[0], "--initial-cluster-token", "another");
    replace_argument(
        &mut stranger.members[0],
        "--initial-cluster",
        &format!("infra0={own},infra1={url}"),
    );
    stranger.members[0].start();
    stranger.members[0].wait_log("cluster id mismatch").await;
    put(&cluster.members[1], "after", "2").await.unwrap();
    cluster.agree().await;
    for member in &mut cluster.members {
        assert!(member.is_running());
    }
}

/// The disk is full: the member says so and ends; with room again it starts and holds what it acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_the_member_and_loses_nothing() {
    let mut cluster = Cluster::new(&[quorate()], &[]);
    let mounted = need!("full_disk", Tmpfs::new(cluster.directory.join("disk"), 400));
    let disk = mounted.path();
    let data = disk.join("data");
    replace_argument(&mut cluster.members[0], "--data-dir", data.to_str().unwrap());
    cluster.members[0].start();
    cluster.members[0].wait_ready().await;
    let ballast = disk.join("ballast");
    let value = "v".repeat(100_000);
    let mut acknowledged = 0;
    for i in 0..4000 {
        if i == 20 {
            // Somebody else fills what is left, but for a little.
            let free = run(Command::new("df").args(["--output=avail", "-B1"]).arg(disk));
            let free: u64 = String::from_utf8_lossy(&free.stdout)
                .lines()
                .nth(1)
                .and_then(|line| line.trim().parse().ok())
                .unwrap();
            // The member may have taken it meanwhile; then nothing is left, which is as well.
            if let Err(error) = fs::write(&ballast, vec![1; free.saturating_sub(3 << 20) as usize])
            {
                assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
            }
        }
        if put(&cluster.members[0], &format!("key{i}"), &value).await.is_err() {
            break;
        }
        acknowledged = i + 1;
    }
    assert!((20..4000).contains(&acknowledged), "{acknowledged} puts were acknowledged");
    assert!(cluster.members[0].wait_exit(WITHIN).is_some_and(|code| code != 0));
    let log = cluster.members[0].log_text().to_lowercase();
    assert!(log.contains("no space left"), "{}", cluster.members[0].log_tail());
    fs::remove_file(&ballast).unwrap();
    cluster.members[0].start();
    cluster.members[0].wait_ready().await;
    for i in 0..acknowledged {
        assert_eq!(get(&cluster.members[0], &format!("key{i}")).await.as_ref(), Some(&value));
    }
    cluster.members[0].kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_of_another_member_is_refused() {
    let binary = quorate();
    let mut cluster = Cluster::new(&[binary.clone(), binary.clone(), binary], &[]);
    cluster.start().await;
    put(&cluster.members[0], "key", "value").await.unwrap();
    for member in &mut cluster.members {
        member.kill();
    }
    let of_infra0 = cluster.members[0].data_dir.to_string_lossy().into_owned();
    let own = cluster.members[1].data_dir.to_string_lossy().into_owned();
    replace_argument(&mut cluster.members[1], "--data-dir", &of_infra0);
    refuses(&mut cluster.members[1], &["belongs to member \"infra0\"", "--data-dir"]);
    // With its own it goes on, and so does the one whose directory it was.
    replace_argument(&mut cluster.members[1], "--data-dir", &own);
    cluster.start().await;
    assert_eq!(get(&cluster.members[1], "key").await.as_deref(), Some("value"));
}

/// Its flags would found the cluster again, and it would vote without knowing what it promised.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_data_is_gone_does_not_start_as_if_it_were_new() {
    let mut cluster = Cluster::ours(3, &[]).await;
    // A follower: what a dead leader was asked, nobody answers.
    let leader = cluster.leader().await;
    let lost = (leader + 1) % 3;
    put(&cluster.members[leader], "k", "v").await.unwrap();
    let away = cluster.directory.join("away");
    let gone = &mut cluster.members[lost];
    gone.kill();
    fs::rename(&gone.data_dir, &away).unwrap();
    refuses(gone, &["has already been bootstrapped", "--data-dir", ".etcd"]);
    assert!(!gone.data_dir.exists(), "nothing was founded");
    put(&cluster.members[leader], "k", "w").await.unwrap();

    let gone = &mut cluster.members[lost];
    fs::rename(&away, &gone.data_dir).unwrap();
    gone.start();
    gone.wait_ready().await;
    assert_eq!(get(&cluster.members[lost], "k").await.as_deref(), Some("w"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_killed_has_all_that_it_acknowledged() {
    let mut cluster = killed_after(50).await;
    cluster.members[0].start();
    cluster.members[0].wait_ready().await;
    for i in 0..50 {
        assert_eq!(get(&cluster.members[0], &format!("key{i}")).await, Some(format!("value{i}")));
    }
}

/// A first start makes files one after the other, and syncs them. Wherever it is killed, the next start begins or goes on, and the
/// member that comes of it keeps what it acknowledges.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_killed_while_it_is_founded_starts_again() {
    let mut found_files = 0;
    for sync in 1.. {
        let mut cluster = Cluster::new(&[quorate()], &[]);
        let syncs = Syncs::new(&cluster.directory, "infra0");
        let member = &mut cluster.members[0];
        member.environment.extend(syncs.environment());
        syncs.kill_at(sync);
        member.start();
        if member.is_ready_before_it_ends().await {
            break;
        }
        member.kill();
        found_files += usize::from(member.data_dir.join("member").exists());
        syncs.heal();
        member.start();
        member.wait_ready().await;
        put(member, "key", "value").await.unwrap();
        member.kill();
        member.start();
        member.wait_ready().await;
        assert_eq!(get(member, "key").await.as_deref(), Some("value"), "sync {sync}");
    }
    assert!(found_files > 3, "only {found_files} were killed while they were founded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_a_member_at_once() {
    use std::io::Write as _;

    let mut cluster = Cluster::new(&[quorate()], &[]);
    let syncs = Syncs::new(&cluster.directory, "infra0");
    cluster.members[0].environment.extend(syncs.environment());
    cluster.start().await;
    let member = &mut cluster.members[0];
    // The store cannot sync what it has yet to keep, so an orderly end does not come.
    syncs.hold("/store/");
    put(member, "key", "value").await.unwrap();
    // Nor would it at once: here is a client that never answers GOAWAY.
    let mut client = std::net::TcpStream::connect(member.client).unwrap();
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    // The member's SETTINGS: it has taken the connection.
    std::io::Read::read_exact(&mut client, &mut [0; 9]).unwrap();
    member.signal(rustix::process::Signal::TERM);
    member.wait_log("received signal; shutting down").await;
    assert_eq!(member.terminate(), Some(1));
    let log = member.log_text();
    assert!(log.contains("received a second signal; ending at once"), "{log}");
    assert!(!log.contains("closed the member"), "it did not wait:\n{log}");
}
