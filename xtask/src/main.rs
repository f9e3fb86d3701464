//! `cargo xtask codegen` writes the protobuf types anew; `cargo xtask codegen --check` compares them.
//! `cargo xtask mutants` builds the simulator with deliberate bugs and says which check finds each.
//! `cargo xtask instructions` counts what puts and ranges cost, and compares with what is committed.

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["codegen"] => xtask::codegen(&xtask::generated()),
        ["codegen", "--check"] => xtask::check(),
        ["mutants", "--write"] => xtask::mutants(&["--write", "docs/mutants.md"]),
        ["mutants", rest @ ..] => xtask::mutants(rest),
        ["instructions"] => xtask::instructions::run(false),
        ["instructions", "--write"] => xtask::instructions::run(true),
        _ => bail!(
            "usage: cargo xtask codegen [--check] | mutants [--write | --only NAME | --rotate N] [--seeds M] | \
             instructions [--write]"
        ),
    }
}
