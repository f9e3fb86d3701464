//! What a put and a range cost in instructions, from the mind to the disk, beside the figures that are committed.
//!
//! Time on a shared machine says nothing about a change of one part in twenty; the count of instructions does, for the
//! same program does the same. `crates/replica/benches/instructions.rs` runs under valgrind with so many operations and
//! with twice as many; the difference is the operations' own. Neither addresses nor time nor hash seeds have a say in
//! it; another compiler has, and another C library (its allocator is counted; a member has one of its own). A fifth of a
//! put is the disk in memory, so that one which has grown by 5 % here has grown by 6 % itself.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// Where the figures are committed, from the root.
const COMMITTED: &str = "docs/instructions.tsv";
/// By how many per cent a figure may differ from the committed one.
const TOLERANCE_PERCENT: u64 = 5;
/// Members that a request may have, and requests in a batch.
const MEMBERS: [u64; 2] = [1, 3];
const BATCHES: [u64; 2] = [1, 64];

/// Of the shorter run; enough that segments are cut and reclaimed several times.
const OPERATIONS: u64 = 16_384;

/// What is counted: `put` or `range`, the members, and how many requests come together.
type Work = (String, u64, u64);
/// Instructions per operation.
type Figures = BTreeMap<Work, u64>;

/// How a figure stands to the committed one.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Same,
    Grown,
    Fallen,
    /// Nothing is committed for it.
    New,
}

fn standing(committed: Option<u64>, now: u64) -> Standing {
    let Some(committed) = committed else { return Standing::New };
    let hundredfold = 100 * now;
    match hundredfold {
        _ if hundredfold > (100 + TOLERANCE_PERCENT) * committed => Standing::Grown,
        _ if hundredfold < (100 - TOLERANCE_PERCENT) * committed => Standing::Fallen,
        _ => Standing::Same,
    }
}

/// Counts, and compares with what is committed; or writes that anew.
///
/// # Errors
/// valgrind is missing, the program does not build or run, or a figure has grown.
pub fn run(write: bool) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = root.join(COMMITTED);
    let program = build(&root)?;
    let mut now = Figures::new();
    for (work, members, batch) in works() {
        let instructions = per_operation(&program, &work, members, batch)?;
        now.insert((work, members, batch), instructions);
    }
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let committed = if write { now.clone() } else { parse(&text)? };
    let (table, fails) = compare(&committed, &now);
    print!("{table}");
    let compiler = compiler()?;
    if write {
        std::fs::write(path, format(&now, &compiler))?;
    } else if fails && !text.starts_with(&format!("# {compiler}\n")) {
        bail!(
            "figures have changed, and so has the compiler: this is {compiler}. See with the old one whether \
             the code has a part in it, then `cargo xtask instructions --write`"
        );
    } else if fails {
        bail!(
            "make it cheaper, or say in the commit why it must cost more, with the figures of \
             `cargo xtask instructions --write`"
        );
    }
    Ok(())
}

/// Every kind of request, each alone and in a batch.
fn works() -> Vec<Work> {
    let mut works = Vec::new();
    for work in ["put", "range"] {
        for members in MEMBERS {
            works.extend(BATCHES.map(|batch| (work.to_owned(), members, batch)));
        }
    }
    works
}

/// Builds the program as a member is built, and says where it lies.
fn build(root: &Path) -> Result<String> {
    let cargo = std::env::var("CARGO").unwrap_or("cargo".into());
    let built = Command::new(cargo)
        .current_dir(root)
        .args(["build", "--quiet", "--release", "--package", "replica"])
        .args(["--bench", "instructions", "--message-format", "json"])
        .stderr(Stdio::inherit())
        .output()?;
    if !built.status.success() {
        bail!("the program does not build");
    }
    let messages = String::from_utf8(built.stdout)?;
    let executable = messages.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(message["executable"].as_str()?.to_owned())
    });
    executable.context("cargo does not say what it has built")
}

fn compiler() -> Result<String> {
    let rustc = std::env::var("RUSTC").unwrap_or("rustc".into());
    let version = Command::new(rustc).arg("--version").output()?.stdout;
    Ok(String::from_utf8(version)?.trim().to_owned())
}

fn per_operation(program: &str, work: &str, members: u64, batch: u64) -> Result<u64> {
    // Side by side: they share nothing.
    let [once, twice] = [OPERATIONS, 2 * OPERATIONS]
        .map(|operations| start(program, work, members, batch, operations));
    let (once, twice) = (instructions(once?)?, instructions(twice?)?);
    let more = twice.checked_sub(once).context("more operations took fewer instructions")?;
    Ok(more / OPERATIONS)
}

fn start(program: &str, work: &str, members: u64, batch: u64, operations: u64) -> Result<Child> {
    Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .args([program, work])
        .args([members, batch, operations].map(|number| number.to_string()))
        // The environment lies on the stack, and so may move what is there.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        // libc copies and compares in other ways on other processors; in these on all.
        .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("valgrind does not start; is it installed (Debian: valgrind)?")
}

/// Of one run, from its first instruction to its last.
fn instructions(run: Child) -> Result<u64> {
    let run = run.wait_with_output()?;
    let said = String::from_utf8_lossy(&run.stderr);
    let counted = counted(&said).filter(|_| run.status.success());
    counted.with_context(|| format!("under valgrind: {}\n{said}", run.status))
}

/// The count in cachegrind's words: `==123== I   refs:  1,234,567`; how many blanks there are has changed.
fn counted(said: &str) -> Option<u64> {
    let mut counts = said.lines().filter_map(|line| line.split_once("refs:"));
    let (_, count) = counts.find(|(what, _)| what.trim_end().ends_with('I'))?;
    count.trim().replace(',', "").parse().ok()
}

/// A table for people, and whether a figure has grown or is new.
fn compare(committed: &Figures, now: &Figures) -> (String, bool) {
    let mut out = "request  members  batch  committed  now      change\n".to_owned();
    let mut fails = false;
    for ((work, members, batch), instructions) in now {
        let before = committed.get(&(work.clone(), *members, *batch)).copied();
        let (change, before_text) = match before {
            Some(before) => {
                let change = (*instructions as f64 / before as f64 - 1.0) * 100.0;
                (format!("{change:+.1} %"), before.to_string())
            }
            None => ("–".to_owned(), "–".to_owned()),
        };
        let verdict = match standing(before, *instructions) {
            Standing::Same => "",
            Standing::Grown => "  GROWN",
            Standing::Fallen => "  fallen: `cargo xtask instructions --write` keeps it so",
            Standing::New => "  NEW: `cargo xtask instructions --write`",
        };
        fails |= matches!(standing(before, *instructions), Standing::Grown | Standing::New);
        let line = format!(
            "{work:<8} {members:<8} {batch:<6} {before_text:<10} {instructions:<8} {change:<7}{verdict}"
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
    (out, fails)
}

fn format(figures: &Figures, compiler: &str) -> String {
    let mut out = format!(
        "# {compiler}\n# Instructions per request; `cargo xtask instructions --write` writes this.\n\
         request\tmembers\tbatch\tinstructions\n"
    );
    for ((work, members, batch), instructions) in figures {
        writeln!(out, "{work}\t{members}\t{batch}\t{instructions}").expect("a string takes it");
    }
    out
}

fn parse(text: &str) -> Result<Figures> {
    let mut figures = Figures::new();
    for line in text.lines().filter(|line| !line.starts_with('#')).skip(1) {
        let read = || {
            let [work, members, batch, instructions] =
                line.split('\t').collect::<Vec<_>>().try_into().ok()?;
            let work = (work.to_owned(), members.parse().ok()?, batch.parse().ok()?);
            Some((work, instructions.parse().ok().filter(|count| *count > 0)?))
        };
        let (work, instructions) = read().with_context(|| format!("{COMMITTED}: {line:?}"))?;
        figures.insert(work, instructions);
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(list: &[(&str, u64, u64, u64)]) -> Figures {
        list.iter().map(|(work, m, b, n)| ((work.to_string(), *m, *b), *n)).collect()
    }

    #[test]
    fn a_figure_may_grow_by_a_twentieth_and_no_more() {
        for (committed, now, want) in [
            (Some(1_000), 1_000, Standing::Same),
            (Some(1_000), 1_050, Standing::Same),
            (Some(1_000), 1_051, Standing::Grown),
            (Some(1_000), 950, Standing::Same),
            (Some(1_000), 949, Standing::Fallen),
            (None, 949, Standing::New),
        ] {
            assert_eq!(standing(committed, now), want, "{committed:?}, {now}");
        }
    }

    #[test]
    fn what_has_grown_and_what_nobody_knows_fails_and_what_has_fallen_is_only_said() {
        let committed = figures(&[("put", 1, 1, 1_000), ("range", 3, 64, 500)]);
        let check = |now: &[(&str, u64, u64, u64)], fails: bool, word: &str| {
            let (table, failed) = compare(&committed, &figures(now));
            assert_eq!(failed, fails, "{table}");
            assert!(table.contains(word), "{table}");
        };
        check(&[("put", 1, 1, 1_040), ("range", 3, 64, 500)], false, "+4.0 %");
        check(&[("put", 1, 1, 1_060), ("range", 3, 64, 500)], true, "GROWN");
        check(&[("put", 1, 1, 900), ("range", 3, 64, 500)], false, "fallen");
        check(&[("put", 1, 64, 1_000), ("range", 3, 64, 500)], true, "NEW");
    }

    #[test]
    fn figures_are_read_as_they_were_written() {
        let written = figures(&[("put", 1, 64, 7_000), ("range", 3, 1, 8_000)]);
        let text = format(&written, "rustc 1.95.0");
        assert!(text.starts_with("# rustc 1.95.0\n"));
        assert_eq!(parse(&text).unwrap(), written);
        for bad in ["put\t1\t1", "put\tone\t1\t2", "put\t1\t1\t0"] {
            assert!(parse(&format!("{text}{bad}\n")).is_err(), "{bad}");
        }
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn valgrinds_count_is_understood() {
        for line in ["==7== I   refs:      1,234,567", "==7== I refs:        1,234,567"] {
            let said = format!("==7== Cachegrind, a profiler\n==7==\n{line}\n==7== D refs:  8\n");
            assert_eq!(counted(&said), Some(1_234_567));
        }
        assert_eq!(counted("==7== something else"), None);
    }
}
