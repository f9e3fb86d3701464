//! `cargo xtask codegen` writes the protobuf types anew; `cargo xtask codegen --check` compares them.

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["codegen"] => xtask::codegen(&xtask::generated()),
        ["codegen", "--check"] => xtask::check(),
        _ => bail!("usage: cargo xtask codegen [--check]"),
    }
}
