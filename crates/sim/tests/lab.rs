//! The laboratory's experiments hold, tell the same story each time, fail with the defect that each names, and are what
//! the pages in `docs/lab/` show. `UPDATE_GOLDENFILES=1` writes the transcripts into the pages anew.

// Reading and writing the pages is what this test is for.
#![allow(clippy::disallowed_methods)]

use std::path::PathBuf;

use sim::lab::{EXPERIMENTS, Experiment, Style, json, tell};

/// The seed whose story the pages tell.
const SEED: u64 = 1;

const BEGIN: &str = "<!-- transcript: quorate lab ";
const END: &str = "<!-- end of transcript -->";

fn page(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join("docs/lab").join(format!("{name}.md"))
}

fn check(experiment: &Experiment, seed: u64) {
    let account = experiment.perform(seed, None);
    assert!(account.holds(), "seed {seed}:\n{}", tell(&account, Style::Plain));
}

#[test]
fn what_is_to_be_seen_is_seen_whatever_the_seed() {
    for experiment in EXPERIMENTS {
        (1..=12).for_each(|seed| check(experiment, seed));
    }
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for experiment in EXPERIMENTS {
        let (one, other) = (experiment.perform(3, None), experiment.perform(3, None));
        assert_eq!(json(&one), json(&other), "{}", experiment.name);
        assert_ne!(json(&one), json(&experiment.perform(4, None)), "{}", experiment.name);
    }
}

/// An experiment that cannot fail shows nothing.
#[test]
fn each_experiment_fails_with_the_defect_that_it_names() {
    for experiment in EXPERIMENTS {
        let account = experiment.perform(SEED, Some(experiment.mutant));
        let text = tell(&account, Style::Plain);
        assert!(!account.holds(), "{} survives {:?}:\n{text}", experiment.name, experiment.mutant);
        // By what it claims, and not only because the simulator's checker sees something.
        let failed = account.claims.iter().filter(|claim| !claim.holds);
        let own = failed.filter(|claim| !claim.text.starts_with("Every promise is kept"));
        assert!(own.count() > 0, "{} fails by accident:\n{text}", experiment.name);
    }
}

#[test]
fn the_pages_show_what_the_experiments_tell() {
    let update = std::env::var_os("UPDATE_GOLDENFILES").is_some();
    for experiment in EXPERIMENTS {
        let path = page(experiment.name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
            panic!("{}: {error}; each experiment has a page", path.display())
        });
        let begin = format!("{BEGIN}{} -->\n", experiment.name);
        let (head, rest) = text.split_once(&begin).expect("the page marks its transcript");
        let (_, tail) = rest.split_once(END).expect("the transcript ends");
        let told = tell(&experiment.perform(SEED, None), Style::Plain);
        let wanted = format!(
            "{head}{begin}```text\n$ quorate lab {}\n{told}```\n{END}{tail}",
            experiment.name
        );
        if update {
            std::fs::write(&path, &wanted).expect("the page can be written");
        } else {
            assert!(
                text == wanted,
                "{} does not show what is told; UPDATE_GOLDENFILES=1 writes it anew",
                path.display()
            );
        }
    }
}

#[test]
fn the_index_names_each_experiment() {
    let index = std::fs::read_to_string(page("README")).expect("there is an index");
    for experiment in EXPERIMENTS {
        let link = format!("[`{0}`]({0}.md)", experiment.name);
        assert!(index.contains(&link), "docs/lab/README.md does not name {}", experiment.name);
    }
}
