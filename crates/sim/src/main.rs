//! The command line of the simulator.
//!
//! ```text
//!   sim --seed N [--seconds S]                 one seed, with its trace hash and figures
//!   sim --seed N --seeds M [--seconds S]       M seeds from N on
//!   sim --check-determinism [--seeds M]        seeds twice: their hashes must be equal
//!   sim --mutants                              each deliberate defect must be found within 50 seeds
//!   sim --histories [--seeds M]                what clients were told, recorded and judged afterwards
//! ```
//!
//! It ends with 1 if a promise was broken, a mutant survived or a hash differed, and with 2 if more than two in a
//! hundred seeds were inconclusive, or histories undecided.

// Threads live here alone, and share nothing but the number of the next seed: each runs whole seeds. The clock is
// for the speed in the summary; no seed ever sees it.
#![allow(clippy::disallowed_methods)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Instant;

use sim::{Figures, Judgement, MUTANTS, Mutant, Report, Verdict, Workload};

const USAGE: &str = "usage: sim [--seed N] [--seeds M] [--seconds S] [--threads T] [--check-determinism] [--mutants] [--histories]";
/// Within so many seeds a mutant must be found.
const MUTANT_SEEDS: u64 = 50;
/// So many seeds in a hundred may be inconclusive.
const INCONCLUSIVE_PERCENT: u64 = 2;

struct Options {
    seed: u64,
    seeds: Option<u64>,
    seconds: u64,
    threads: usize,
    determinism: bool,
    mutants: bool,
    histories: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        seed: 1,
        seeds: None,
        seconds: 30,
        threads: 2,
        determinism: false,
        mutants: false,
        histories: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let (flag, inline) = match argument.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (argument, None),
        };
        let mut number = || -> Result<u64, String> {
            let value = inline.clone().or_else(|| arguments.next());
            let value = value.ok_or_else(|| format!("{flag} needs a number"))?;
            value.parse().map_err(|_| format!("{flag}: {value} is no number"))
        };
        match flag.as_str() {
            "--seed" => options.seed = number()?,
            "--seeds" => options.seeds = Some(number()?),
            "--seconds" => options.seconds = number()?,
            "--threads" => options.threads = number()?.clamp(1, 64) as usize,
            "--check-determinism" => options.determinism = true,
            "--mutants" => options.mutants = true,
            "--histories" => options.histories = true,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(64);
        }
    };
    sim::keep_panics_quiet();
    if options.mutants {
        mutants(&options)
    } else if options.determinism {
        determinism(&options)
    } else if options.histories {
        histories(&options)
    } else {
        match options.seeds {
            None => one(&options),
            Some(seeds) => many(&options, seeds),
        }
    }
}

fn one(options: &Options) -> ExitCode {
    let report = sim::run(options.seed, options.seconds, None);
    println!("seed           {}, {} members", report.seed, report.members);
    println!("trace hash     {:016x}", report.hash);
    report.figures.lines().iter().for_each(|line| println!("{line}"));
    match &report.verdict {
        Verdict::Kept => println!("every promise was kept"),
        Verdict::Inconclusive(why) => println!("inconclusive: {why}"),
        Verdict::Broken { .. } => tell(&report, options),
    }
    match report.verdict {
        Verdict::Broken { .. } => ExitCode::from(1),
        _ => ExitCode::SUCCESS,
    }
}

fn many(options: &Options, seeds: u64) -> ExitCode {
    let started = Instant::now();
    let mut sum = Figures::default();
    let (mut done, mut broken, mut inconclusive) = (0u64, 0u64, Vec::new());
    run_all(options, seeds, &|seed| sim::run(seed, options.seconds, None), &mut |report| {
        done += 1;
        sum.add(&report.figures);
        match &report.verdict {
            Verdict::Kept => {}
            Verdict::Inconclusive(why) => inconclusive.push((report.seed, why.clone())),
            Verdict::Broken { .. } => {
                broken += 1;
                eprintln!();
                tell(&report, options);
            }
        }
        if done.is_multiple_of(10) || done == seeds {
            eprint!(
                "\r{done} of {seeds} seeds, {broken} broken, {} inconclusive, {:.0} s simulated in {:.0} s ",
                inconclusive.len(),
                sum.simulated_us as f64 / 1e6,
                started.elapsed().as_secs_f64()
            );
        }
        // The first few tell enough.
        broken < 5
    });
    eprintln!();
    let core_seconds = started.elapsed().as_secs_f64() * options.threads as f64;
    println!(
        "seeds          {done} from {} on, {} s of storm each; {broken} broken, {} inconclusive",
        options.seed,
        options.seconds,
        inconclusive.len()
    );
    println!(
        "speed          {:.0} simulated seconds per core-second",
        sum.simulated_us as f64 / 1e6 / core_seconds
    );
    sum.lines().iter().for_each(|line| println!("{line}"));
    for (seed, why) in &inconclusive {
        println!("inconclusive   seed {seed}: {why}");
    }
    if broken == 0 && done > 0 {
        println!(
            "bound          95 % sure that fewer than {:.2} % of seeds break a promise",
            300.0 / done as f64
        );
    }
    if broken > 0 {
        ExitCode::from(1)
    } else if inconclusive.len() as u64 * 100 > INCONCLUSIVE_PERCENT * done {
        println!("too many seeds were inconclusive");
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    }
}

fn determinism(options: &Options) -> ExitCode {
    let seeds = options.seeds.unwrap_or(10);
    let mut differ = 0;
    let twice = |seed| {
        let one = sim::run(seed, options.seconds, None);
        let other = sim::run(seed, options.seconds, None);
        (one, other.hash)
    };
    run_all(options, seeds, &twice, &mut |(one, other)| {
        if one.hash != other {
            differ += 1;
            println!("seed {}: {:016x} and {other:016x}", one.seed, one.hash);
        }
        true
    });
    println!("{seeds} seeds of {} s twice, {differ} differ", options.seconds);
    if differ == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// Each seed twice: with everything that clients can ask, which the witness judges, and with requests that keep to groups of
/// keys, which the search judges too.
fn histories(options: &Options) -> ExitCode {
    let seeds = options.seeds.unwrap_or(10);
    let judged = |seed| {
        let everything = sim::record(seed, options.seconds, Workload::Everything).judge();
        let groups = sim::record(seed, options.seconds, Workload::Groups).judge();
        (seed, [everything, groups])
    };
    let (mut sum, mut broken) = (Judgement::default(), 0u64);
    run_all(options, seeds, &judged, &mut |(seed, judgements)| {
        for (judgement, workload) in judgements.into_iter().zip(["everything", "groups"]) {
            if let Some(what) = &judgement.broken {
                broken += 1;
                println!("BROKEN         seed {seed}, {workload}: {what}");
            }
            sum.add(&judgement);
        }
        true
    });
    println!("seeds          {seeds} from {} on, {broken} histories broken", options.seed);
    println!("witness        {} operations, {} of unknown outcome", sum.operations, sum.unknown);
    println!(
        "search         {} operations in {} histories, {} undecided",
        sum.searched, sum.searches, sum.undecided
    );
    println!("watches        {}, {} events", sum.watches, sum.events);
    match (broken, sum.undecided * 100 > sum.searches * INCONCLUSIVE_PERCENT) {
        (0, false) => ExitCode::SUCCESS,
        (0, true) => ExitCode::from(2),
        _ => ExitCode::from(1),
    }
}

fn mutants(options: &Options) -> ExitCode {
    let mut survivors = 0;
    for mutant in MUTANTS {
        match find(options, mutant) {
            Some((seeds, report)) => {
                let Verdict::Broken { what, .. } = &report.verdict else { continue };
                let name = mutant.name();
                println!("{name:<32} found by seed {} ({seeds} tried): {what}", report.seed);
            }
            None => {
                survivors += 1;
                println!("{:<32} not found in {MUTANT_SEEDS} seeds", mutant.name());
            }
        }
    }
    if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// The first seed, in their order, that finds the mutant.
fn find(options: &Options, mutant: Mutant) -> Option<(u64, Report)> {
    (0..MUTANT_SEEDS).find_map(|number| {
        let report = sim::run(options.seed + number, options.seconds, Some(mutant));
        matches!(report.verdict, Verdict::Broken { .. }).then_some((number + 1, report))
    })
}

/// Runs seeds on all threads; `take` gets each result and says whether to go on.
fn run_all<T: Send>(
    options: &Options,
    seeds: u64,
    run: &(dyn Fn(u64) -> T + Sync),
    take: &mut dyn FnMut(T) -> bool,
) {
    let next = AtomicU64::new(0);
    let enough = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..options.threads {
            let (sender, next, enough) = (sender.clone(), &next, &enough);
            scope.spawn(move || {
                while !enough.load(SeqCst) {
                    let number = next.fetch_add(1, SeqCst);
                    if number >= seeds || sender.send(run(options.seed + number)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for result in receiver {
            if !take(result) {
                enough.store(true, SeqCst);
            }
        }
    });
}

/// Tells of a broken promise, so that it can be looked at again.
fn tell(report: &Report, options: &Options) {
    let Verdict::Broken { what, last } = &report.verdict else { return };
    last.iter().for_each(|line| println!("{line}"));
    println!("BROKEN         seed {}, {} members: {what}", report.seed, report.members);
    println!("again          sim --seed {} --seconds {}", report.seed, options.seconds);
}
