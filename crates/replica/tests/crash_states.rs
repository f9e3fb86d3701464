//! Crash states: short programs over the log, the store and a member, cut at every change of the disk. At each of these points
//! the process dies, or the power goes: of what was not synced there (sectors, lengths, names) every subset is kept and the
//! rest lost if it is ten pieces or fewer, and else those subsets that have a meaning; sectors are torn at three places. `vfs::crash`
//! says exactly what is tried, and what is not: that is "exhaustive" here.
//!
//! Each start finds all that was acknowledged and nothing that was never proposed: of a log its records, of a store its keys with
//! their revisions and its rows, of a member every revision that can still be read, with each key's value, version and lease, the
//! compaction's mark, and each lease with its keys. It finds it again after the power went once more, and goes on. Starts are cut
//! in the same way. Then something is damaged behind every crash, which must be refused in the right words.
//!
//! `cargo test -p replica --test crash_states -- --nocapture` prints what was tried: states, and how many of them are disks that
//! differ; two choices may leave the same disk, which is then looked at once for each point. At last the programs are run on disks that
//! lie, which must be noticed.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop where it stands; programs are run on both cores"
)]

#[allow(dead_code)]
#[path = "../../wal/tests/life/mod.rs"]
mod life;
#[allow(dead_code)]
#[path = "../../store/tests/store/lives.rs"]
mod lives;
#[allow(dead_code)]
#[path = "../../store/tests/store/member.rs"]
mod member;

mod house;
mod programs;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use programs::Lie;
use vfs::crash::{Depth, Report};
use vfs::memory::Memory;

/// What is done to a disk before a program begins on it, told at which operation its points begin.
type Adjust<'a> = &'a dyn Fn(&Memory, u64);

type Explore = Box<dyn Fn(Adjust, Depth) -> Result<Report, String> + Send + Sync>;

/// A program, and which lies of its disk can matter to it.
struct Program {
    name: &'static str,
    lies: &'static [Lie],
    explore: Explore,
}

const OF_THE_LOG: &[Lie] =
    &[Lie::SyncsOfTheLog, Lie::EachThirdSyncOfTheLog, Lie::NamesOfTheLog, Lie::NamesAbove];
const OF_THE_STORE: &[Lie] = &[Lie::SyncsOfTheStore, Lie::NamesOfTheStore];
const OF_A_MEMBER: &[Lie] = &[
    Lie::SyncsOfTheLog,
    Lie::EachThirdSyncOfTheLog,
    Lie::NamesOfTheLog,
    Lie::SyncsOfTheStore,
    Lie::NamesOfTheStore,
    Lie::NamesAbove,
];

/// All programs of all floors; the longest stand last.
fn all() -> Vec<Program> {
    let mut all = Vec::new();
    let mut add = |name, lies, explore| all.push(Program { name, lies, explore });
    let always =
        |explore: fn() -> Result<Report, String>| -> Explore { Box::new(move |_, _| explore()) };
    add("log: it is made", OF_THE_LOG, Box::new(life::explore_making));
    for program in life::programs() {
        let name = program.name;
        add(
            name,
            OF_THE_LOG,
            Box::new(move |adjust, depth| life::explore(&program, adjust, depth)),
        );
    }
    add("log: an open that mends is cut", &[], always(life::explore_open));
    add("log: and then a bit rots in what was durable", &[], always(life::explore_rot));
    add("log: and then a file in its middle is gone", &[], always(life::explore_gap));
    for (name, steps) in lives::programs() {
        add(
            name,
            OF_THE_STORE,
            Box::new(move |adjust, depth| lives::explore(&steps, adjust, depth)),
        );
    }
    add("store: a start that mends is cut", &[], always(lives::explore_start));
    add("store: and then a file is gone or rotten", &[], always(lives::explore_refusals));
    add("member: it is founded", OF_A_MEMBER, Box::new(programs::explore_founding));
    add("member: and then a bit rots in its log", &[], always(programs::explore_rot));
    add("member: and then its log or store is gone", &[], always(programs::explore_defunct));
    add("member: a start that finishes an import is cut", &[], always(programs::explore_import));
    add(
        "member: a snapshot is received and installed",
        &programs::LIES,
        Box::new(programs::explore_snapshot),
    );
    add("member: a start that mends is cut", &[], always(programs::explore_start));
    for (name, steps) in programs::programs() {
        add(
            name,
            OF_A_MEMBER,
            Box::new(move |adjust, depth| programs::explore(&steps, adjust, depth)),
        );
    }
    all
}

/// Past the test harness, which would swallow what a passing test prints.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Does all of these on both cores, from the last to the first. Returns what came of them in order.
fn on_both_cores<T: Sync, R: Send>(all: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(at) = all.len().checked_sub(1 + next.fetch_add(1, Relaxed)) {
                    let result = work(&all[at]);
                    done.lock().unwrap().insert(at, result);
                }
            });
        }
    });
    done.into_inner().unwrap().into_values().collect()
}

#[test]
fn every_state_recovers() {
    let all = all();
    let began = Instant::now();
    let reports = on_both_cores(&all, |program| {
        let began = Instant::now();
        let explored = (program.explore)(&programs::honest, Depth::Everything);
        let report = explored.unwrap_or_else(|why| panic!("{}: {why}", program.name));
        (report, began.elapsed())
    });
    let mut sum = Report::default();
    say("crash states: points (of which exhaustive), states, disks that differ, refused, seconds");
    for (Program { name, .. }, (report, took)) in all.iter().zip(&reports) {
        sum.add(report);
        let Report { points, exhaustive, states, images, refused } = report;
        say(&format!(
            "  {name:<60} {points:>5} ({exhaustive:>4}) {states:>7} {:>7} {refused:>6} {:>6.1}",
            images.len(),
            took.as_secs_f64()
        ));
    }
    let (states, images) = (sum.states, sum.images.len());
    say(&format!(
        "{} programs, {} points ({} exhaustive), {states} states, {images} disks that differ, {} refused, {:.1} s",
        reports.len(),
        sum.points,
        sum.exhaustive,
        sum.refused,
        began.elapsed().as_secs_f64()
    ));
    assert!(reports.len() >= 12, "programs");
    assert!(images >= 100_000, "{images} disks that differ");
    let most =
        |of: fn(&Report) -> usize| reports.iter().map(|(report, _)| of(report)).max().unwrap();
    let most_states = most(|report| report.states as usize);
    assert!(most_states * 4 <= states as usize, "a program has {most_states} of {states} states");
    let most_images = most(|report| report.images.len());
    assert!(most_images * 4 <= images, "a program has {most_images} of {images} disks");
    for (program, (report, _)) in all.iter().zip(&reports) {
        let is_refused = program.name.contains("and then");
        assert_eq!(is_refused, report.refused > 0, "{}: {} refused", program.name, report.refused);
    }
}

/// Behind so many operations of a program its disk begins to lie.
const BEGINNINGS: [u64; 4] = [0, 2, 10, 30];

/// A disk that leaves out what it was asked for, and says that it was done: what it breaks must be noticed, or the programs
/// see nothing. Each lie is told to each program to which it can matter, from several moments on; at more than one of them some program
/// must notice it.
#[test]
fn disks_that_lie_are_noticed() {
    let all = all();
    let mut told = Vec::new();
    for lie in programs::LIES {
        for program in all.iter().filter(|program| program.lies.contains(&lie)) {
            told.extend(BEGINNINGS.map(|from| (lie, program, from)));
        }
    }
    let noticed = on_both_cores(&told, |(lie, program, from)| {
        let lying = |disk: &Memory, first: u64| programs::lying(disk, *lie, first + from);
        (program.explore)(&lying, Depth::Plain).err()
    });
    for lie in programs::LIES {
        let of_it = told.iter().zip(&noticed).filter(|((of, ..), why)| *of == lie && why.is_some());
        let mut by: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
        of_it.for_each(|((_, program, from), _)| by.entry(*from).or_default().push(program.name));
        let to = told.iter().filter(|(of, ..)| *of == lie).count() / BEGINNINGS.len();
        let counts: Vec<String> =
            by.iter().map(|(from, names)| format!("{} from {from} on", names.len())).collect();
        say(&format!("{lie:?}: of {to} programs it is noticed by {}", counts.join(", ")));
        assert!(by.len() > 1, "{lie:?} is noticed by {by:?}");
    }
}
