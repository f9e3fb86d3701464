//! The command line of the simulator: what it says does not depend on how many seeds run at a time, and what it prints to
//! repeat a failure does repeat it.

// Starting the program and looking at its files is what this test is for.
#![allow(clippy::disallowed_methods)]

use std::process::{Command, Output};

fn sim(words: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
    command.args(words.split_whitespace()).output().expect("the simulator runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What stands behind a word at the beginning of a line.
fn behind<'t>(text: &'t str, word: &str) -> &'t str {
    text.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_default().trim()
}

#[test]
fn the_summary_does_not_depend_on_how_many_seeds_run_at_a_time() {
    let without_speed = |jobs: u64| {
        let output = sim(&format!("--seed 5 --seeds 9 --seconds 3 --twice 30 --jobs {jobs}"));
        let told = said(&output);
        let kept: Vec<&str> = told.lines().filter(|line| !line.starts_with("speed")).collect();
        assert!(kept.len() > 12, "{told}");
        kept.join("\n")
    };
    let one = without_speed(1);
    assert_eq!(one, without_speed(3));
    assert!(behind(&one, "determinism").starts_with("3 seeds (33.3 %) run twice, 0 "), "{one}");
    assert!(behind(&one, "seeds").starts_with("9 from 5 on, 3 s of storm each: 0 broken"), "{one}");
}

#[test]
fn a_failure_is_repeated_by_what_is_printed() {
    let output = sim("--seed 20 --seeds 4 --seconds 10 --mutant vote-twice");
    let told = said(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for word in ["again          sim", "shrunk         sim"] {
        let flags = behind(&told, word);
        // Whoever wants it drawn does not want it shrunk again.
        let page = std::env::temp_dir().join(format!("sim-{}.html", std::process::id()));
        let repeated = sim(&format!("{flags} --timeline {}", page.display()));
        std::fs::remove_file(page).expect("it was drawn");
        assert_eq!(repeated.status.code(), Some(1), "{flags}");
        assert!(behind(&said(&repeated), "BROKEN").contains("votes for"), "{flags}");
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    for (words, why) in [
        ("--seeds many", "--seeds: many is no number"),
        ("--without weather", "nothing is named weather"),
        ("--seed", "--seed needs a value"),
        ("--seeds 3 --trace /tmp/x", "a trace and a timeline are of one seed"),
        ("--skip-faults 3-", "3- are no numbers such as 3,7-12"),
        ("--seed 3 --arguments /tmp/x", "what is asked is counted of many seeds"),
    ] {
        let output = sim(words);
        assert_eq!(output.status.code(), Some(64), "{words}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.starts_with(why), "{words}: {told}");
    }
}
