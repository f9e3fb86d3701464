//! The house keeps its own rules: the arrows between crates, generated code, the lints that keep the world
//! out of the heart.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use tests::process::{root, run, run_ok};
use tests::skip;

/// The rows `| crate | may use |` of ARCHITECTURE.md, under its heading "The arrows".
fn drawn() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let section = text.split("## The arrows").nth(1).expect("ARCHITECTURE.md draws the arrows");
    section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let names = |cell: &str| -> BTreeSet<String> {
                cell.split(',')
                    .map(|name| name.trim().trim_matches('`').to_owned())
                    .filter(|name| !name.is_empty() && name != "–")
                    .collect()
            };
            (cells[0].trim_matches('`').to_owned(), names(cells[1]))
        })
        .collect()
}

/// What the manifests say: normal dependencies between our own crates.
fn built() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or("cargo".into());
    let json = run_ok(Command::new(cargo).current_dir(root()).args([
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--offline",
    ]));
    let metadata: serde_json::Value = serde_json::from_str(&json).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<&str> = packages.iter().map(|p| p["name"].as_str().unwrap()).collect();
    packages
        .iter()
        .map(|package| {
            let uses = package["dependencies"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| dependency["name"].as_str().unwrap())
                .filter(|name| ours.contains(name))
                .map(str::to_owned)
                .collect();
            (package["name"].as_str().unwrap().to_owned(), uses)
        })
        .collect()
}

#[test]
fn arrows_between_crates_are_those_of_the_architecture() {
    let (drawn, built) = (drawn(), built());
    assert_eq!(
        drawn.keys().collect::<Vec<_>>(),
        built.keys().collect::<Vec<_>>(),
        "ARCHITECTURE.md names the crates that there are"
    );
    for (name, uses) in &built {
        let extra: Vec<_> = uses.difference(&drawn[name]).collect();
        assert!(
            extra.is_empty(),
            "{name} uses {extra:?}, an arrow that ARCHITECTURE.md does not draw"
        );
    }
}

/// Below `server`, nobody switches off the lints that ban clocks, threads, sockets and files; `vfs::os` is
/// the one place that opens files.
#[test]
fn the_heart_does_not_allow_itself_the_world() {
    for name in ["raft", "wal", "store", "mvcc", "state_machine", "replica", "vfs", "proto"] {
        let mut pending = vec![root().join("crates").join(name).join("src")];
        while let Some(path) = pending.pop() {
            if path.is_dir() {
                pending.extend(std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()));
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let allowed = name == "vfs" && path.ends_with("os.rs");
            assert!(
                allowed || !text.contains("clippy::disallowed_methods"),
                "{} switches off the ban on clocks, threads and files",
                path.display()
            );
            // The generated client stubs stand behind a feature of the doors.
            let generated = path.parent().unwrap().ends_with("generated");
            assert!(generated || !text.contains("async fn"), "{} is asynchronous", path.display());
        }
    }
}

/// Deliberate bugs are for `cargo xtask mutants`: neither the workspace nor the one binary is built with them.
#[test]
fn deliberate_bugs_are_in_no_usual_build() {
    for what in ["--workspace", "--package=quorate"] {
        let cargo = std::env::var("CARGO").unwrap_or("cargo".into());
        let tree = run_ok(Command::new(cargo).current_dir(root()).args([
            "tree",
            "--offline",
            "--prefix=none",
            "--format={p}|{f}",
            what,
        ]));
        let lines: Vec<_> = tree.lines().filter(|line| line.starts_with("mutant ")).collect();
        assert!(!lines.is_empty(), "{what}: the crate is part of the house");
        for line in lines {
            let features = line.split('|').nth(1).unwrap_or_default().trim_end_matches(" (*)");
            assert_eq!(features, "", "{what}: {line}");
        }
    }
}

#[test]
fn unsafe_code_stands_nowhere() {
    let git = run(Command::new("git").current_dir(root()).args([
        "grep",
        "-nE",
        r"\bunsafe\s*(\{|fn|impl)",
        "--",
        "*.rs",
    ]));
    assert_eq!(String::from_utf8_lossy(&git.stdout), "", "unsafe code");
}

/// The example is read from the top to the end, by whoever wants to know how `raft` is driven.
#[test]
fn the_example_is_short() {
    let source = root().join("examples/raftexample/src");
    let files = std::fs::read_dir(source).unwrap().map(|entry| entry.unwrap().path());
    let lines: usize =
        files.map(|path| std::fs::read_to_string(path).unwrap().lines().count()).sum();
    assert!((300..=500).contains(&lines), "raftexample has {lines} lines");
}

/// The committed protobuf code is what the generator writes from the transcription.
#[test]
fn generated_code_is_up_to_date() {
    if !run(Command::new("sh").args(["-c", "command -v protoc"])).status.success() {
        return skip("generated_code", "protoc is not installed");
    }
    xtask::check().unwrap();
}

/// RELIABILITY.md has a row for each invariant and each historic bug, and every test, script and function that it names is there.
#[test]
fn reliability_names_what_there_is() {
    let text = std::fs::read_to_string(root().join("RELIABILITY.md")).unwrap();
    let wanted = (1..=25).map(|n| format!("I{n}")).chain((1..=114).map(|n| format!("C{n:02}")));
    for id in wanted {
        let rows = text.lines().filter(|line| line.starts_with(&format!("| {id} |")));
        let rows: Vec<&str> = rows.collect();
        let [row] = rows[..] else { panic!("{id} has {} rows", rows.len()) };
        let says = row.trim_end_matches('|').rsplit('|').next().unwrap().trim();
        let is_shown = says.contains("::") || says.contains("/scripts/");
        // Or it waits for a feature, or a sentence says why it cannot happen.
        let is_argued = says.contains("later: ") || says.len() > 60;
        assert!(is_shown || is_argued, "{id}: {says}");
    }
    let mut names = 0;
    for name in text.split('`').skip(1).step_by(2).filter(|name| name.contains('/')) {
        let (file, function) = name.split_once("::").map_or((name, None), |(f, n)| (f, Some(n)));
        // Commands, paths of the API, and places within a sentence are not meant.
        if file.contains(' ') || file.starts_with('/') || file.ends_with('/') {
            continue;
        }
        names += 1;
        let path = [root().join(file), root().join("crates").join(file)];
        let path = path.iter().find(|path| path.is_file());
        let path = path.unwrap_or_else(|| panic!("{file} is named, and is not there"));
        let Some(function) = function else { continue };
        let code = std::fs::read_to_string(path).unwrap();
        let is_there = [format!("fn {function}("), format!("fn {function}<")];
        assert!(
            is_there.iter().any(|start| code.contains(start)),
            "{function} is named, and is not in {file}"
        );
    }
    assert!(names > 200, "only {names} names are understood");
}
