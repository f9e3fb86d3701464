//! Looks for each deliberate bug of the crate `mutant`, one run of a seed after the other, until some promise is broken.
//!
//! ```text
//!   mutants                     all of them, and a table: by what each was found, and after how many seeds
//!   mutants --only NAME         this one
//!   mutants --rotate N          eight of them: the N-th eight
//!   mutants --seeds M           at most M seeds for each; 300 if nothing is said
//!   mutants --write FILE        the table into this file as well
//! ```
//!
//! It ends with 1 if one was not found. `cargo xtask mutants` builds and calls it; in any other build there are none.

// As in `main.rs`: threads share nothing but the number of the next bug, and the clock is for people.
#![allow(clippy::disallowed_methods)]

use std::fmt::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sim::{Mutant, Plan, Verdict};

const USAGE: &str = "usage: mutants [--only NAME] [--rotate N] [--seeds M] [--write FILE]";
/// Simulated seconds of a seed's storm.
const SECONDS: u64 = 30;
/// So many seeds are tried for a bug: ten times as many as the shyest has needed, for which seeds find it changes with all
/// that is simulated.
const SEEDS: u64 = 1_500;
/// Bugs in one rotation.
const ROTATION: usize = 8;
/// Two cores are what everybody has.
const THREADS: usize = 2;
/// Of the sentence in which a broken promise is told.
const SENTENCE_CHARS: usize = 130;

struct Options {
    only: Option<String>,
    rotate: Option<usize>,
    seeds: u64,
    write: Option<String>,
}

fn options() -> Result<Options, String> {
    let mut options = Options { only: None, rotate: None, seeds: SEEDS, write: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{flag}: {value} is no number"));
        match flag.as_str() {
            "--only" => options.only = Some(value),
            "--rotate" => options.rotate = Some(number()? as usize),
            "--seeds" => options.seeds = number()?,
            "--write" => options.write = Some(value),
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(options)
}

/// How the search for one bug ended.
struct Search {
    mutant: Mutant,
    /// The broken promise, in a sentence; `None` if all were kept.
    found_by: Option<String>,
    seeds: u64,
    simulated_us: u64,
    took: Duration,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(64);
        }
    };
    if !mutant::ON {
        eprintln!("this build has no deliberate bugs: use `cargo xtask mutants`");
        return ExitCode::from(64);
    }
    let chosen = choose(&options);
    if chosen.is_empty() {
        eprintln!("there is no such bug");
        return ExitCode::from(64);
    }
    sim::keep_panics_quiet();
    let started = Instant::now();
    let searches = search_all(&chosen, options.seeds);
    println!("{}", table(&searches, true));
    let found = searches.iter().filter(|search| search.found_by.is_some()).count();
    println!("{found} of {} found in {:.0} s", searches.len(), started.elapsed().as_secs_f64());
    if let Some(path) = &options.write
        && let Err(error) = std::fs::write(path, page(&searches))
    {
        eprintln!("{path}: {error}");
        return ExitCode::from(74);
    }
    if found == searches.len() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn choose(options: &Options) -> Vec<Mutant> {
    let all = Mutant::all();
    match (&options.only, options.rotate) {
        (Some(name), _) => Mutant::named(name).into_iter().collect(),
        (None, Some(turn)) => {
            let first = turn % all.len() * ROTATION % all.len();
            let round = all.iter().cycle().skip(first);
            round.take(ROTATION.min(all.len())).copied().collect()
        }
        (None, None) => all,
    }
}

/// Searches for all of them, on all threads; in their order.
fn search_all(chosen: &[Mutant], seeds: u64) -> Vec<Search> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    let mut searches: Vec<Option<Search>> = chosen.iter().map(|_| None).collect();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some(mutant) = {
                    let place = next.fetch_add(1, SeqCst);
                    chosen.get(place).map(|mutant| (place, *mutant))
                } {
                    let found = search(mutant.1, seeds);
                    // Whoever collects is there until all are done.
                    if sender.send((mutant.0, found)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (place, search) in receiver {
            let seeds = search.seeds;
            let found = if search.found_by.is_some() {
                "found by seed"
            } else {
                "NOT FOUND in seeds up to"
            };
            eprintln!("{:<30} {found} {seeds}", search.mutant.name());
            searches[place] = Some(search);
        }
    });
    searches.into_iter().flatten().collect()
}

/// One seed after the other, from the first on, until one finds it: a seed whose promises are kept without the bug.
fn search(mutant: Mutant, seeds: u64) -> Search {
    let started = Instant::now();
    let mut search =
        Search { mutant, found_by: None, seeds: 0, simulated_us: 0, took: Duration::ZERO };
    while search.found_by.is_none() && search.seeds < seeds {
        search.seeds += 1;
        let plan = Plan::new(search.seeds, SECONDS);
        let report = sim::run(&Plan { mutant: Some(mutant), ..plan.clone() });
        search.simulated_us += report.figures.simulated_us;
        if let Verdict::Broken { what, .. } = report.verdict
            && !sim::run(&plan).is_broken()
        {
            search.found_by = Some(sentence(&what));
        }
    }
    search.took = started.elapsed();
    search
}

/// A broken promise in one short line of a table.
fn sentence(what: &str) -> String {
    let plain = match what.strip_prefix("panic: panicked at ").and_then(|at| at.split_once('\n')) {
        Some((place, message)) => {
            let file = place.split(':').next().unwrap_or(place);
            format!("the code's own assertion in {file}: {message}")
        }
        None => what.to_owned(),
    };
    let plain: String = plain.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "/");
    match plain.char_indices().nth(SENTENCE_CHARS) {
        Some((end, _)) => format!("{} …", plain[..end].trim_end()),
        None => plain,
    }
}

fn table(searches: &[Search], with_time: bool) -> String {
    let mut table =
        String::from("| bug | what is wrong | stands for | found by | seeds | simulated |");
    table.push_str(if with_time {
        " time |\n|---|---|---|---|---|---|---|\n"
    } else {
        "\n|---|---|---|---|---|---|\n"
    });
    for search in searches {
        let (sentence, stands_for) = match search.mutant {
            Mutant::Inside(inside) => (inside.sentence(), inside.stands_for()),
            _ => ("In the simulator's own hands.", ""),
        };
        let (name, seeds) = (search.mutant.name(), search.seeds);
        let found_by = search.found_by.as_deref().unwrap_or("**nothing**");
        let simulated = search.simulated_us / 1_000_000;
        write!(
            table,
            "| {name} | {sentence} | {stands_for} | {found_by} | {seeds} | {simulated} s |"
        )
        .expect("a string takes everything");
        if with_time {
            write!(table, " {:.1} s |", search.took.as_secs_f64())
                .expect("a string takes everything");
        }
        table.push('\n');
    }
    table
}

/// The page of the documentation. Nothing in it depends on the machine.
fn page(searches: &[Search]) -> String {
    let found = searches.iter().filter(|search| search.found_by.is_some()).count();
    format!(
        "# Deliberate bugs\n\n\
         `cargo xtask mutants --write` builds the simulator with each of these bugs, runs the seeds from 1 on until one breaks\n\
         a promise, and writes this page. How a bug is added: [CONTRIBUTING.md](../CONTRIBUTING.md); what the promises are:\n\
         [simulation.md](simulation.md). A seed is a storm of {SECONDS} simulated seconds and the rest after it. Names like C01 are\n\
         those of bugs that etcd, or a store like it, once had.\n\n\
         {found} of {} are found.\n\n{}",
        searches.len(),
        table(searches, false)
    )
}
