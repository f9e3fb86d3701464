//! The committed protobuf code is what protoc and prost write from `proto/*.proto` today.
//!
//! Needs protoc on PATH. Without it nothing can be compared, and the test says so on standard error: a
//! build of this project never needs protoc.

use std::process::Command;

#[test]
fn generated_code_is_up_to_date() {
    if Command::new("protoc").arg("--version").output().is_err() {
        eprintln!("skipped: protoc is not installed (Debian: protobuf-compiler)");
        return;
    }
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--package", "xtask", "--", "codegen", "--check"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .expect("cargo runs, since it runs this test");
    assert!(
        output.status.success(),
        "{}\nrun `cargo xtask codegen` and commit the result",
        String::from_utf8_lossy(&output.stderr)
    );
}
