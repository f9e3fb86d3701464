//! `quorate ctl trace` and `quorate ctl slow` on three real members, some of whose disks are slow.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::disk::Syncs;
use tests::process::{Cluster, quorate, run_ok};

/// Where the part of infra2 stands in a transcript that begins with infra0, who was asked, and leads.
const INFRA2_COLUMN: usize = "infra0 (leader, asked)  infra1              ".len();

/// How long a sync of a slow disk takes.
const SLOW_MS: u32 = 500;

/// Three members, of which infra0 leads, and the named ones have slow disks. Syncs take the time that we say, whatever this
/// machine's disk does meanwhile; nothing is synced, for no power fails here.
async fn cluster(slow: &[usize]) -> Cluster {
    let mut cluster = Cluster::new(&vec![quorate(); 3], &[]);
    let directory = cluster.directory.clone();
    for (i, member) in cluster.members.iter_mut().enumerate() {
        // The one that is to lead is the first to lose patience.
        let election = if i == 0 { "--election-timeout=1500" } else { "--election-timeout=20000" };
        member.arguments.push(election.to_owned());
        let syncs = Syncs::new(&directory, &member.name);
        syncs.pretend(if slow.contains(&i) { SLOW_MS } else { 0 });
        member.environment.extend(syncs.environment());
    }
    cluster.start().await;
    assert_eq!(cluster.leader().await, 0);
    cluster
}

/// Runs the command line at one member; what it prints.
fn ctl(cluster: &Cluster, member: usize, words: &[&str]) -> String {
    let endpoint = format!("--endpoints={}", cluster.members[member].client_url());
    run_ok(Command::new(quorate()).arg("ctl").arg(endpoint).args(words))
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

/// Traces a put at this member; the trace in JSON.
fn put(cluster: &Cluster, member: usize) -> Value {
    let printed = ctl(cluster, member, &["trace", "put", "foo", "bar", "-w", "json"]);
    serde_json::from_str(printed.lines().nth(1).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_one_slow_follower_not_even_at_itself() {
    let cluster = cluster(&[2]).await;
    for asked in [0, 1, 2] {
        let text = ctl(&cluster, asked, &["trace", "put", "foo", "bar", "--explain"]);
        assert!(text.starts_with("OK\n\nPut \"foo\" took "), "{text}");
        assert!(text.contains("infra0 (leader"), "{text}");
        assert!(text.contains("The slowest disk was infra2's: its sync took "), "{text}");
        let verdict =
            "The answer did not wait for it: infra0 and infra1 were a majority without it.";
        assert!(text.contains(verdict), "{text}");
        if asked == 0 {
            is_in_the_page(&text);
        }
        let trace = put(&cluster, asked);
        let name = format!("infra{asked}");
        assert!(at(&trace, &name, "ANSWERED") < at(&trace, "infra2", "SYNCED"), "{trace:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_the_leaders_own_disk_if_both_followers_are_faster() {
    let cluster = cluster(&[0]).await;
    let text = ctl(&cluster, 1, &["trace", "put", "foo", "bar", "--explain"]);
    assert!(text.contains("The slowest disk was infra0's"), "{text}");
    assert!(
        text.contains("The answer did not wait for it: infra1 and infra2 were a majority"),
        "{text}"
    );
    let trace = put(&cluster, 0);
    assert!(at(&trace, "infra0", "COMMITTED") < at(&trace, "infra0", "SYNCED"), "{trace:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_majority_is_waited_for_and_leaves_its_mark() {
    let cluster = cluster(&[1, 2]).await;
    let text = ctl(&cluster, 0, &["trace", "put", "foo", "bar", "--explain"]);
    let longest = text.lines().find(|line| line.starts_with("The longest stretch")).unwrap();
    assert!(longest.contains("until a majority had it on disk, infra"), "{text}");
    let (_, sync) = text.split_once("'s: its sync took ").expect(&text);
    let sync: f64 = sync.split_once(' ').unwrap().0.parse().unwrap();
    assert!(sync >= f64::from(SLOW_MS), "{text}");

    // Who made it slow stands in the list, without anybody having asked for it before.
    ctl(&cluster, 0, &["put", "ordinary", "value"]);
    let slow: Value = serde_json::from_str(&ctl(&cluster, 0, &["slow", "-w", "json"])).unwrap();
    let record = slow.as_array().unwrap().iter().find(|of| of["key"] == "b3JkaW5hcnk=").unwrap();
    assert!(record["longest"].as_str().unwrap().starts_with("the log of infra"), "{record:#}");
    assert!(record["longest_us"].as_u64().unwrap() >= u64::from(SLOW_MS) * 1_000 / 2, "{record:#}");
    let table = ctl(&cluster, 1, &["slow", "--cluster"]);
    assert!(table.contains("\"ordinary\"") && table.contains("the log of infra"), "{table}");

    // A member that is gone is said to be silent; the others tell.
    let mut cluster = cluster;
    cluster.members[2].kill();
    let text = ctl(&cluster, 0, &["trace", "put", "foo", "bar"]);
    assert!(text.contains("infra2 says nothing: "), "{text}");
    assert!(text.contains("there was no majority without it"), "{text}");
}
