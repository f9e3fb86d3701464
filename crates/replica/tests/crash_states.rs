//! Crash states, exhaustively: short programs over the log, the store and a member, cut at every change of the disk, and of what
//! was not synced every subset that matters (`vfs::crash`). Each start finds all that was acknowledged and nothing that
//! was never proposed, finds it again after the power went once more, and goes on.
//!
//! `cargo test -p replica --test crash_states -- --nocapture` prints what was tried. Then the programs are run on disks that
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

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use programs::Lie;
use vfs::crash::Report;

type Explore = Box<dyn Fn() -> Result<Report, String> + Send + Sync>;

/// All programs of all floors.
fn all() -> Vec<(&'static str, Explore)> {
    let mut all: Vec<(&'static str, Explore)> =
        vec![("log: it is made", Box::new(life::explore_making))];
    for (name, steps) in life::programs() {
        all.push((name, Box::new(move || life::explore(&steps))));
    }
    for (name, steps) in lives::programs() {
        all.push((name, Box::new(move || lives::explore(&steps))));
    }
    all.push(("store: a start that mends is cut", Box::new(lives::explore_start)));
    for (name, steps) in programs::programs() {
        all.push((name, Box::new(move || programs::explore(&steps, &programs::honest))));
    }
    all.push(("member: it is founded", Box::new(|| programs::explore_founding(&programs::honest))));
    all.push(("member: a start that mends is cut", Box::new(programs::explore_start)));
    all.push((
        "member: a snapshot is received and installed",
        Box::new(|| programs::explore_snapshot(&programs::honest)),
    ));
    all
}

/// Past the test harness, which would swallow what a passing test prints.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

#[test]
fn every_state_recovers() {
    let all = all();
    let (next, reports) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // The longest stand last.
                while let Some(at) = all.len().checked_sub(1 + next.fetch_add(1, Relaxed)) {
                    let (name, explore) = &all[at];
                    let began = Instant::now();
                    let report = explore().unwrap_or_else(|why| panic!("{name}: {why}"));
                    reports.lock().unwrap().push((at, report, began.elapsed()));
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap();
    reports.sort_by_key(|(at, ..)| *at);
    let mut sum = Report::default();
    say("crash states: points (of which exhaustive), states, disks that differ, seconds");
    for (at, report, took) in &reports {
        let Report { points, exhaustive, states, images, refused } = *report;
        sum.points += points;
        sum.exhaustive += exhaustive;
        sum.states += states;
        sum.images += images;
        sum.refused += refused;
        let name = all[*at].0;
        say(&format!(
            "  {name:<60} {points:>5} ({exhaustive:>4}) {states:>7} {images:>7} {:>6.1}",
            took.as_secs_f64()
        ));
    }
    say(&format!(
        "{} programs, {} points ({} exhaustive), {} states, {} disks that differ, {} refused, {:.1} s",
        reports.len(),
        sum.points,
        sum.exhaustive,
        sum.states,
        sum.images,
        sum.refused,
        began.elapsed().as_secs_f64()
    ));
    assert!(reports.len() >= 12, "programs");
    assert!(sum.states >= 100_000, "states");
    let most = reports.iter().map(|(_, report, _)| report.states).max().unwrap();
    assert!(most * 4 <= sum.states, "a program has {most} of {} states", sum.states);
}

/// A disk that leaves out what it was asked for, and says that it was done: what it breaks must be noticed, or the programs
/// see nothing.
#[test]
fn disks_that_lie_are_noticed() {
    for lie in programs::LIES {
        let lying = move |disk: &vfs::memory::Memory| programs::lying(disk, lie);
        let (name, explored) = match lie {
            Lie::SyncsOfAReceivedSnapshot | Lie::NamesOfReceivedSnapshots => {
                ("a snapshot is received and installed", programs::explore_snapshot(&lying))
            }
            Lie::NamesAboveTheMember => ("it is founded", programs::explore_founding(&lying)),
            _ => {
                let (name, steps) = programs::programs().swap_remove(0);
                (name, programs::explore(&steps, &lying))
            }
        };
        let why = explored.expect_err(&format!("nobody notices {lie:?}"));
        let words = |text: &str| text.split_whitespace().take(12).collect::<Vec<_>>().join(" ");
        say(&format!("{lie:?}: {name}: {}", words(&why)));
    }
}
