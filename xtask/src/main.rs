//! The project's own chores: `cargo xtask codegen` writes the protobuf types anew.
//!
//! The generated code is committed, so that a build needs no protoc; `codegen --check` compares what is
//! committed with what protoc and prost would write today, and fails where they differ.

// A chore, not a part of the house: it works on the project's own files.
#![allow(clippy::disallowed_methods)]

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

const PROTOS: [&str; 10] = [
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
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["codegen"] => codegen(&generated()),
        ["codegen", "--check"] => check(),
        _ => bail!("usage: cargo xtask codegen [--check]"),
    }
}

fn proto_crate() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/proto")
}

fn generated() -> PathBuf {
    proto_crate().join("src/generated")
}

fn codegen(out: &Path) -> Result<()> {
    std::fs::create_dir_all(out)?;
    let protos = proto_crate().join("proto");
    let files: Vec<PathBuf> = PROTOS.iter().map(|name| protos.join(name)).collect();
    tonic_prost_build::configure()
        .build_server(false)
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .bytes(".")
        .out_dir(out)
        .compile_protos(&files, &[protos])
        .context("protoc or prost failed; is protoc installed (Debian: protobuf-compiler)?")
}

fn check() -> Result<()> {
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
