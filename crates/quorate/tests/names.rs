//! The binary is what it is called: `quorate`, `etcd`, `etcdctl` or `etcdutl`.
//!
//! (That this test is here also means that `cargo test --workspace` builds the binary, for all tests that start it.)

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::os::unix::fs::symlink;
use std::process::{Command, Output};

/// Runs the binary under another name.
fn called(name: &str, arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join(name);
    symlink(env!("CARGO_BIN_EXE_quorate"), &link).unwrap();
    // No variable of the caller's may decide what a member or a command line does here.
    let variables = std::env::vars().map(|(name, _)| name);
    let mut command = Command::new(link);
    variables.filter(|name| name.starts_with("ETCD")).for_each(|name| {
        command.env_remove(name);
    });
    command.args(arguments).current_dir(directory.path()).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn each_name_is_its_own_program() {
    for (name, arguments, says) in [
        ("quorate", &["--version"][..], "etcd Version: "),
        ("etcd", &["--version"], "etcd Version: "),
        ("quorate", &["ctl", "version"], "etcdctl version: "),
        ("etcdctl", &["version"], "etcdctl version: "),
        ("quorate", &["util", "version"], "etcdutl version: "),
        ("etcdutl", &["version"], "etcdutl version: "),
        ("etcdutl", &["snapshot", "status", "--help"], "snapshot status FILE"),
        ("quorate", &["help"], "quorate ctl"),
    ] {
        let output = called(name, arguments);
        assert!(output.status.success(), "{name} {arguments:?}: {output:?}");
        assert!(out(&output).contains(says), "{name} {arguments:?}: {}", out(&output));
    }
}

#[test]
fn an_unknown_flag_is_refused_with_the_nearest_one() {
    let output = called("etcd", &["--data-dri", "x"]);
    assert!(!output.status.success());
    let says = String::from_utf8(output.stderr).unwrap();
    assert!(says.contains("data-dri") && says.contains("data-dir"), "{says}");
}
