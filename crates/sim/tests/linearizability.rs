//! Both linearizability checkers: the search on recorded logs with known verdicts, and both of them on histories that
//! are bad, on such as only look bad, and on what the simulator's clients live through.
//!
//! The logs are Jepsen's, of a register, with a file `verdicts.txt` beside them. They lie in the folder that
//! `QUORATE_LINEARIZABILITY_LOGS` names, else in `../shared/data/linearizability` beside the project.

// The logs are files of the world outside.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod histories;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use sim::history::register::{Register, parse};
use sim::history::search::{self, Bounds};
use sim::history::{Answer, Operation, Outcome, Request, keyspace, witness};
use sim::{Plan, Recording, Verdict, Workload, record};

use histories::{BAD, GOOD, Seen, get, kv, log, put, put_of, unknown};

fn logs() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("QUORATE_LINEARIZABILITY_LOGS") {
        let folder = PathBuf::from(named);
        assert!(
            folder.is_dir(),
            "QUORATE_LINEARIZABILITY_LOGS names {folder:?}, which is no folder"
        );
        return Some(folder);
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Some(workspace.join("../shared/data/linearizability")).filter(|folder| folder.is_dir())
}

/// Past the test harness, which would swallow what a passing test prints.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

#[test]
fn recorded_logs_have_the_verdicts_that_are_known() {
    let Some(folder) = logs() else {
        let reason = "no folder of recorded logs; QUORATE_LINEARIZABILITY_LOGS can name one";
        say(&format!("skipped: linearizability: {reason}"));
        if let Ok(allowed) = std::env::var("QUORATE_TESTS_STRICT") {
            assert!(
                allowed.split(',').any(|name| name == "linearizability"),
                "linearizability was skipped ({reason}), and is not on the list of skips that are allowed: {allowed}"
            );
        }
        return;
    };
    let verdicts = std::fs::read_to_string(folder.join("verdicts.txt"))
        .unwrap_or_else(|why| panic!("{folder:?} has no verdicts.txt that can be read: {why}"));
    let known: BTreeMap<&str, bool> = verdicts
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let known = line.trim().split_once(' ');
            let known = known.and_then(|(name, said)| Some((name, said.trim().parse().ok()?)));
            known.unwrap_or_else(|| panic!("verdicts.txt: {line:?} is no name and true or false"))
        })
        .collect();
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "log"));
    files.sort();
    assert!(!files.is_empty(), "{folder:?} has no logs");
    assert_eq!(files.len(), known.len(), "each log has a verdict, and each verdict a log");
    let (mut operations, mut good) = (0, 0);
    for file in &files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let history = parse(&std::fs::read_to_string(file).unwrap())
            .unwrap_or_else(|why| panic!("{name}: {why}"));
        let expected = *known.get(name).unwrap_or_else(|| panic!("{name} has no verdict"));
        let found = search::check(&Register, &history, Bounds::default());
        assert_ne!(found, search::Verdict::Unknown, "{name}");
        assert_eq!(found == search::Verdict::Linearizable, expected, "{name}: {found:?}");
        operations += history.len();
        good += usize::from(expected);
    }
    say(&format!(
        "{} logs of {operations} operations, {good} linearizable, all verdicts right",
        files.len()
    ));
}

/// The search's verdict on a history of keys.
fn searched(history: &[Operation]) -> search::Verdict {
    let operations = keyspace::of(history).unwrap();
    search::check(&keyspace::Keyspace, &operations, Bounds::default())
}

#[test]
fn bad_histories_are_refused_by_both() {
    assert!(BAD.len() >= 12, "a dozen at least");
    for bad in BAD {
        let (history, log) = (bad.history)();
        let found = witness::check(&history, None);
        let witness::Verdict::Broken(why) = &found else {
            panic!("{}: the witness says {found:?}", bad.name);
        };
        assert!(why.contains(bad.why), "{}: the witness says {why:?}, not {:?}", bad.name, bad.why);
        if let Some(log) = log {
            let log = witness::Log { entries: &log, lease_ttl_min: 1 };
            let found = witness::check(&history, Some(log));
            assert!(
                matches!(found, witness::Verdict::Broken(_)),
                "{}: with the log the witness says {found:?}",
                bad.name
            );
        }
        let found = searched(&history);
        match bad.search {
            Seen::Refused => assert!(
                matches!(found, search::Verdict::Refused { .. }),
                "{}: the search says {found:?}",
                bad.name
            ),
            Seen::Blind(_) => assert_eq!(
                found,
                search::Verdict::Linearizable,
                "{}: the search sees it after all; the table should say so",
                bad.name
            ),
        }
    }
    let seen = BAD.iter().filter(|bad| matches!(bad.search, Seen::Refused)).count();
    assert!(seen >= 12, "a dozen at least that both can see; {seen}");
    say(&format!("{} bad histories: the witness refuses all, the search {seen}", BAD.len()));
}

#[test]
fn good_histories_that_look_bad_are_accepted_by_both() {
    for good in GOOD {
        let (history, log) = (good.history)();
        assert_eq!(witness::check(&history, None), witness::Verdict::Kept, "{}", good.name);
        if let Some(log) = log {
            let log = witness::Log { entries: &log, lease_ttl_min: 1 };
            let found = witness::check(&history, Some(log));
            assert_eq!(found, witness::Verdict::Kept, "{}, with the log", good.name);
        }
        assert_eq!(searched(&history), search::Verdict::Linearizable, "{}", good.name);
    }
}

/// Two requests that say the same, one effect: without a log nobody can tell whose it was, and with one it does not matter.
#[test]
fn what_nobody_can_tell_stays_open() {
    let history = [
        unknown(0, put_of("x", "1")),
        unknown(1, put_of("x", "1")),
        get((4, 5, 2), "x", &[kv("x", "1", 2, 2, 1)]),
    ];
    let found = witness::check(&history, None);
    assert!(matches!(found, witness::Verdict::Open(_)), "{found:?}");
    let entries = log(&[put_of("x", "1")]);
    let log = witness::Log { entries: &entries, lease_ttl_min: 1 };
    assert_eq!(witness::check(&history, Some(log)), witness::Verdict::Kept);
}

/// The bad history stands at the end of two hundred good operations on other keys, and is found all the same.
#[test]
fn the_search_judges_each_group_of_keys() {
    let mut history: Vec<Operation> = (0..100u64)
        .flat_map(|n| {
            let (key, value, rev) = (format!("k{}", n % 7), n.to_string(), n as i64 + 2);
            let modified = kv(&key, &value, rev - n as i64 / 7 * 7, rev, n as i64 / 7 + 1);
            [
                put((4 * n, 4 * n + 1, rev), &key, &value),
                get((4 * n + 2, 4 * n + 3, rev), &key, &[modified]),
            ]
        })
        .collect();
    assert_eq!(searched(&history), search::Verdict::Linearizable);
    assert_eq!(witness::check(&history, None), witness::Verdict::Kept);
    history.push(put((500, 501, 102), "y", "1"));
    history.push(get((502, 503, 102), "y", &[]));
    let found = searched(&history);
    assert_eq!(found, search::Verdict::Refused { stuck: history.len() - 1 });
    assert!(matches!(witness::check(&history, None), witness::Verdict::Broken(_)));
}

fn storm(seed: u64, workload: Workload) -> Recording {
    record(&Plan { workload: Some(workload), ..Plan::new(seed, 10) })
}

fn check_kept(recording: &Recording) {
    if let Verdict::Broken { what, .. } = &recording.report.verdict {
        panic!("seed {}: {what}", recording.report.seed);
    }
}

fn witnessed(recording: &Recording, history: &[Operation]) -> witness::Verdict {
    witness::check(history, Some(recording.log()))
}

/// What clients ask of everything there is, in storms: the witness goes along with what the simulator's own checks said
/// of each reply when it was given.
#[test]
fn storms_of_everything_have_a_witness() {
    let (mut operations, mut unknown) = (0, 0);
    for seed in 1..=12 {
        let recording = storm(seed, Workload::Everything);
        check_kept(&recording);
        let found = witnessed(&recording, &recording.history);
        assert_eq!(found, witness::Verdict::Kept, "seed {seed}");
        operations += recording.history.len();
        unknown += recording.history.iter().filter(|o| o.outcome == Outcome::Unknown).count();
    }
    assert!(operations > 2_000 && unknown > 50, "{operations} operations, {unknown} unknown");
    say(&format!("12 storms of everything: {operations} operations, {unknown} of unknown outcome"));
}

/// In storms of requests that keep to groups of keys both checkers can judge all that there is; they agree that it is
/// good, and, after an answer was exchanged for one that is wrong, that it is not.
#[test]
fn on_storms_over_groups_of_keys_both_agree() {
    let (mut operations, mut spoiled) = (0, 0);
    for seed in 1..=20 {
        let recording = storm(seed, Workload::Groups);
        check_kept(&recording);
        let history = &recording.history;
        assert_eq!(witnessed(&recording, history), witness::Verdict::Kept, "seed {seed}");
        assert_eq!(searched(history), search::Verdict::Linearizable, "seed {seed}");
        operations += history.len();
        for bad in stale_reads(history).into_iter().take(6) {
            spoiled += 1;
            let found = witnessed(&recording, &bad);
            assert!(matches!(found, witness::Verdict::Broken(_)), "seed {seed}: {found:?}");
            let found = searched(&bad);
            assert!(matches!(found, search::Verdict::Refused { .. }), "seed {seed}: {found:?}");
        }
    }
    assert!(operations > 1_500 && spoiled >= 40, "{operations} operations, {spoiled} spoiled");
    say(&format!(
        "20 storms over groups of keys: {operations} operations, {spoiled} spoiled histories, the checkers agree"
    ));
}

/// The same history with one read that is answered as an earlier read of the same key was, though a put to that key was
/// acknowledged between them: some of all that can be made so, spread over the history.
fn stale_reads(history: &[Operation]) -> Vec<Vec<Operation>> {
    let mut spoiled = Vec::new();
    let mut last: BTreeMap<Vec<u8>, (u64, Answer)> = BTreeMap::new();
    let mut put: BTreeMap<Vec<u8>, (u64, u64)> = BTreeMap::new();
    for (place, operation) in history.iter().enumerate() {
        let Outcome::Answered { at, answer } = &operation.outcome else { continue };
        match &operation.request {
            Request::Put(request) => {
                put.insert(request.key.to_vec(), (operation.call, *at));
            }
            Request::Range(range) if range.range_end.is_empty() => {
                let key = range.key.to_vec();
                let fresh = (*at, answer.clone());
                let earlier = last.insert(key.clone(), fresh);
                let (Some((read, old)), Some((called, done))) = (earlier, put.get(&key)) else {
                    continue;
                };
                // A value is written once. What is not there may have been deleted beside the read.
                let was_there = matches!(&old, Answer::Range(old) if old.count > 0);
                if read < *called && *done < operation.call && was_there {
                    let mut bad = history.to_vec();
                    bad[place].outcome = Outcome::Answered { at: *at, answer: old };
                    spoiled.push(bad);
                }
            }
            _ => {}
        }
    }
    let step = (spoiled.len() / 6).max(1);
    spoiled.into_iter().step_by(step).collect()
}
