//! `quorate ctl trace` and `quorate ctl slow` on three real members, some of whose disks are slow.
//!
//! A slow disk is one that syncs nothing of the log until the test says so: the order of what happens is certain then, and
//! how fast this machine is does not matter.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use proto::etcdserverpb::{
    MemberListRequest, PutRequest, RangeRequest, cluster_client::ClusterClient,
};
use serde_json::Value;
use tests::disk::Syncs;
use tests::history::eventually;
use tests::process::{Cluster, Member, READY_WITHIN, quorate, run_ok};

/// Where the part of infra2 stands in a transcript that begins with infra0, who was asked, and leads.
const INFRA2_COLUMN: usize = "infra0 (leader, asked)  infra1              ".len();

/// What the paths of the log's files have in them.
const LOG: &str = "/wal/";

/// Three members, of which infra0 leads.
struct Three {
    cluster: Cluster,
    syncs: Vec<Syncs>,
}

impl Three {
    /// Their syncs take no time, whatever this machine's disk does meanwhile; nothing is synced, for no power fails here.
    async fn start() -> Three {
        let mut cluster = Cluster::new(&vec![quorate(); 3], &[]);
        let directory = cluster.directory.clone();
        let mut all = Vec::new();
        for (i, member) in cluster.members.iter_mut().enumerate() {
            // The one that is to lead is the first to lose patience.
            let election =
                if i == 0 { "--election-timeout=5000" } else { "--election-timeout=50000" };
            member.arguments.push(election.to_owned());
            let syncs = Syncs::new(&directory, &member.name);
            syncs.pretend(0);
            member.environment.extend(syncs.environment());
            all.push(syncs);
        }
        cluster.start().await;
        assert_eq!(cluster.leader().await, 0);
        let three = Three { cluster, syncs: all };
        three.has_settled().await;
        three
    }

    /// Waits until members propose nothing more of their own: all have said what their names are, and the cluster's version
    /// is agreed on; and until they are at rest.
    async fn has_settled(&self) {
        for member in &self.cluster.members {
            let mut list = ClusterClient::new(member.channel());
            eventually_is(async || {
                let members = list.member_list(MemberListRequest { linearizable: false }).await;
                let names = members.is_ok_and(|all| {
                    all.get_ref().members.iter().all(|member| !member.name.is_empty())
                });
                let status = member.status().await;
                names && status.is_ok_and(|status| !status.storage_version.is_empty())
            })
            .await;
        }
        self.rests();
    }

    /// Waits until everything is on every disk: of a trace, all is waited for.
    fn rests(&self) {
        ctl(&self.cluster.members[0], &["trace", "put", "rest", "here"]);
    }

    /// Runs a command line that ends with the key and the value that it puts, while these members cannot sync their logs:
    /// until it waits for them, and, where it is done without them, the member `seen` shows it and answers another put.
    /// Then they are held as long again as all that took, and a second, so that no other wait was longer.
    ///
    /// What is printed, and how long they were held at least.
    async fn ctl_while_held(
        &self,
        held: &[usize],
        asked: usize,
        words: &[&str],
        seen: Option<usize>,
    ) -> (String, Duration) {
        let began = Instant::now();
        let before: Vec<u64> = held.iter().map(|i| self.syncs[*i].held()).collect();
        held.iter().for_each(|i| self.syncs[*i].hold(LOG));
        let command = command(&self.cluster.members[asked], words);
        let printed = std::thread::spawn(move || run_ok(&mut { command }));
        eventually("their syncs are held", || {
            held.iter().zip(&before).all(|(i, before)| self.syncs[*i].held() > *before)
        })
        .await;
        if let Some(seen) = seen {
            let (key, value) = (words[words.len() - 2], words[words.len() - 1]);
            let member = &self.cluster.members[seen];
            eventually_is(async || get(member, key).await.is_some_and(|found| found == value))
                .await;
            let put = PutRequest { key: "beside".into(), ..Default::default() };
            member.kv().put(put).await.unwrap();
        }
        let since = Instant::now();
        tokio::time::sleep(began.elapsed() + Duration::from_secs(1)).await;
        let held_for = since.elapsed();
        held.iter().for_each(|i| self.syncs[*i].pretend(0));
        let printed = tokio::task::block_in_place(|| printed.join().unwrap());
        self.rests();
        (printed, held_for)
    }
}

/// Waits until this is so, which it takes a request to know.
async fn eventually_is(mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + READY_WITHIN;
    while !is_so().await {
        assert!(Instant::now() < deadline, "not within {READY_WITHIN:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What this member itself knows of the key.
async fn get(member: &Member, key: &str) -> Option<String> {
    let range =
        RangeRequest { key: key.to_owned().into(), serializable: true, ..Default::default() };
    let answer = member.kv().range(range).await.ok()?.into_inner();
    answer.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
}

/// The command line, to be run at one member. It is patient: this machine may be slow.
fn command(member: &Member, words: &[&str]) -> Command {
    let mut command = Command::new(quorate());
    command.arg("ctl").arg(format!("--endpoints={}", member.client_url()));
    command.args(["--command-timeout=60s", "--dial-timeout=60s"]).args(words);
    command
}

/// Runs the command line at one member; what it prints.
fn ctl(member: &Member, words: &[&str]) -> String {
    run_ok(&mut command(member, words))
}

/// Of a trace in JSON: when a member was at a stage, in microseconds since the request came.
fn at(trace: &Value, member: &str, stage: &str) -> Option<i64> {
    let members = trace["members"].as_array().unwrap();
    let part = members.iter().find(|part| part["name"] == member).unwrap();
    let stages = part["stages"].as_array().unwrap();
    stages.iter().find(|of| of["stage"] == stage).map(|of| of["at_us"].as_i64().unwrap())
}

/// What a trace says, without what differs from run to run: times, terms, what took longest, and what may come too late or not at
/// all because nobody waits for it (the store's frames, a follower's own word of the commit, and the slow infra2's part).
fn gist(text: &str) -> BTreeSet<String> {
    let mut gist = BTreeSet::new();
    let differs = [" %  ", "frame ", "The longest stretch"];
    for line in text.lines().filter(|line| !differs.iter().any(|part| line.contains(part))) {
        match line.split_once(" ms  ") {
            Some((time, stage)) if time.trim().parse::<f64>().is_ok() => {
                let column = stage.len() - stage.trim_start().len();
                let is_free = column > 0 && stage.trim() == "committed" || stage == "infra2 has it";
                if !is_free && column < INFRA2_COLUMN {
                    gist.insert(stage.to_owned());
                }
            }
            _ => {
                let words = line.split_whitespace();
                let is_number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
                gist.insert(words.filter(|word| !is_number(word)).collect::<Vec<_>>().join(" "));
            }
        }
    }
    gist
}

/// The transcript in the page is what the command says today. `UPDATE_GOLDENFILES=1` puts this one there.
fn is_in_the_page(text: &str) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tracing.md");
    let written = std::fs::read_to_string(&page).unwrap();
    let head = "```text\n$ quorate ctl trace put foo bar --explain\n";
    let (before, rest) = written.split_once(head).expect("the page has a transcript");
    let (shown, after) = rest.split_once("```").unwrap();
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        let text = text.trim_end();
        std::fs::write(&page, format!("{before}{head}{text}\n```{after}")).unwrap();
    } else {
        assert_eq!(gist(shown), gist(text), "docs/tracing.md shows another command than this");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_one_slow_follower_not_even_at_itself() {
    let three = Three::start().await;
    for asked in [0, 1, 2] {
        // Another value for each, and the key of the page.
        let value = ["bar", "baz", "qux"][asked];
        let words = ["trace", "put", "--explain", "foo", value];
        let (text, _) = three.ctl_while_held(&[2], asked, &words, Some(asked)).await;
        assert!(text.starts_with("OK\n\nPut \"foo\" took "), "{text}");
        assert!(text.contains("infra0 (leader"), "{text}");
        assert!(text.contains("The slowest disk was infra2's: its sync took "), "{text}");
        let verdict =
            "The answer did not wait for it: infra0 and infra1 were a majority without it.";
        assert!(text.contains(verdict), "{text}");
        if asked == 0 {
            is_in_the_page(&text);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_the_leaders_own_disk_if_both_followers_are_faster() {
    let three = Three::start().await;
    let words = ["trace", "put", "--explain", "foo", "bar"];
    let (text, _) = three.ctl_while_held(&[0], 1, &words, Some(1)).await;
    assert!(text.contains("The slowest disk was infra0's"), "{text}");
    assert!(
        text.contains("The answer did not wait for it: infra1 and infra2 were a majority"),
        "{text}"
    );
    let words = ["trace", "put", "-w", "json", "foo", "baz"];
    let (printed, _) = three.ctl_while_held(&[0], 0, &words, Some(1)).await;
    let trace: Value = serde_json::from_str(printed.lines().nth(1).unwrap()).unwrap();
    let (committed, synced) =
        (at(&trace, "infra0", "COMMITTED").unwrap(), at(&trace, "infra0", "SYNCED").unwrap());
    assert!(committed < synced, "{trace:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_majority_is_waited_for_and_leaves_its_mark() {
    let mut three = Three::start().await;
    let words = ["trace", "put", "--explain", "foo", "bar"];
    let (text, held) = three.ctl_while_held(&[1, 2], 0, &words, None).await;
    let stretch = text.lines().find(|line| line.contains("until a majority had it on disk, infra"));
    assert!(milliseconds(stretch.expect(&text)) >= held.as_millis(), "{text}");
    let (_, sync) = text.split_once("'s: its sync took ").expect(&text);
    assert!(milliseconds(sync) >= held.as_millis(), "{text}");

    // Who made it slow stands in the list, without anybody having asked for it before.
    let (_, held) = three.ctl_while_held(&[1, 2], 0, &["put", "ordinary", "value"], None).await;
    let [leader, follower] = [&three.cluster.members[0], &three.cluster.members[1]];
    let slow: Value = serde_json::from_str(&ctl(leader, &["slow", "-w", "json"])).unwrap();
    let record = slow.as_array().unwrap().iter().find(|of| of["key"] == "b3JkaW5hcnk=").unwrap();
    assert!(record["longest"].as_str().unwrap().starts_with("the log of infra"), "{record:#}");
    let longest = Duration::from_micros(record["longest_us"].as_u64().unwrap());
    assert!(longest >= held, "{record:#}");
    let table = ctl(follower, &["slow", "--cluster"]);
    assert!(table.contains("\"ordinary\"") && table.contains("the log of infra"), "{table}");

    // A member that is gone is said to be silent; the others tell.
    three.cluster.members[2].kill();
    let words = ["--command-timeout=10s", "trace", "put", "foo", "bar"];
    let text = ctl(&three.cluster.members[0], &words);
    assert!(text.contains("infra2 says nothing: "), "{text}");
    assert!(text.contains("there was no majority without it"), "{text}");
}

/// The whole milliseconds that a line begins with.
fn milliseconds(line: &str) -> u128 {
    line.trim_start().split('.').next().unwrap().parse().expect(line)
}
