//! The project's own chores: writing the protobuf types anew, checking that they are up to date, looking for deliberate bugs,
//! counting instructions.
//!
//! Beside the types stand the tables of `descriptors`. The generated code is committed, so that a build needs no protoc; [`check`] compares what is
//! committed with what protoc and prost would write today, and fails where they differ.

// A chore, not a part of the house: it works on the project's own files.
#![allow(clippy::disallowed_methods)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod descriptors;
pub mod instructions;

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

const PROTOS: [&str; 11] = [
    "mvccpb.proto",
    "authpb.proto",
    "rpc.proto",
    "membershippb.proto",
    "raft_internal.proto",
    "raftpb.proto",
    "walpb.proto",
    "health.proto",
    "v3electionpb.proto",
    "v3lockpb.proto",
    "trace.proto",
];

fn proto_crate() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/proto")
}

/// Where the generated code is committed.
pub fn generated() -> PathBuf {
    proto_crate().join("src/generated")
}

/// Writes the generated code into a folder.
///
/// # Errors
/// protoc is missing, or the transcription is wrong.
pub fn codegen(out: &Path) -> Result<()> {
    std::fs::create_dir_all(out)?;
    let protos = proto_crate().join("proto");
    let files: Vec<PathBuf> = PROTOS.iter().map(|name| protos.join(name)).collect();
    let set = tempfile::NamedTempFile::new()?;
    tonic_prost_build::configure()
        .build_server(false)
        .file_descriptor_set_path(set.path())
        // The annotations are read from the descriptors; no code is wanted for them.
        .extern_path(".google.api", "()")
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .bytes(".")
        .out_dir(out)
        .compile_protos(&files, &[protos])
        .context("protoc or prost failed; is protoc installed (Debian: protobuf-compiler)?")?;
    let tables = descriptors::tables(&std::fs::read(set.path())?)?;
    Ok(std::fs::write(out.join("descriptors.rs"), tables)?)
}

/// Compares what is committed with what would be written today.
///
/// # Errors
/// As [`codegen`], or the first file that differs.
pub fn check() -> Result<()> {
    let fresh = tempfile::tempdir()?;
    codegen(fresh.path())?;
    for entry in std::fs::read_dir(fresh.path())? {
        let name = entry?.file_name();
        let new = std::fs::read_to_string(fresh.path().join(&name))?;
        let old = std::fs::read_to_string(generated().join(&name)).unwrap_or_default();
        if new != old {
            bail!("{name:?} is out of date: run `cargo xtask codegen` and commit the result");
        }
    }
    Ok(())
}

/// Builds the simulator with the deliberate bugs, under a profile of its own, and lets it look for them: for all, or as
/// `arguments` say (see `crates/sim/src/bin/mutants.rs`).
///
/// # Errors
/// It does not build, or a bug was not found.
pub fn mutants(arguments: &[&str]) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let status = std::process::Command::new(std::env::var("CARGO").unwrap_or("cargo".into()))
        .current_dir(&root)
        .args(["run", "--quiet", "--profile", "mutants", "--package", "sim"])
        .args(["--features", "mutants", "--bin", "mutants", "--"])
        .args(arguments)
        .status()?;
    if !status.success() {
        bail!("not every deliberate bug was found");
    }
    Ok(())
}
