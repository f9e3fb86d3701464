//! The command line of the simulator.
//!
//! ```text
//!   sim --seed N                    one seed, with its trace hash and figures
//!   sim --seed N --timeline FILE    the same, drawn
//!   sim --seed N --seeds M          M seeds from N on
//!   sim --mutants                   each deliberate defect must be found within 50 seeds
//!   sim --histories [--seeds M]     what clients were told, judged without the simulator's own checks
//! ```
//!
//! It ends with 1 if a promise was broken, a mutant survived or a hash differed, and with 2 if more than two in a
//! hundred seeds were inconclusive, histories undecided, or something that can be asked was not (`--arguments`).

// The clock is for the speed in the summary; no seed ever sees it.
#![allow(clippy::disallowed_methods)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod crew;

use std::process::ExitCode;

use crew::Progress;
use sim::{
    Fault, Figures, INCONCLUSIVE_PERCENT, Judgement, MUTANTS, Mutant, Plan, Report, Shrunk,
    Verdict, Workload,
};

const USAGE: &str = "usage: sim [--seed N] [--seeds M] [--seconds S] [--jobs J] [--twice PERCENT]
           [--roll N] [--members N] [--clients N] [--workload everything|groups] [--arguments FILE]
           [--trace FILE] [--timeline FILE] [--without KIND,…] [--skip-faults N,M-O,…] [--skip-operations N,M-O,…]
           [--mutant NAME] [--blind] [--histories] [--mutants]";
/// Within so many seeds a mutant must be found.
const MUTANT_SEEDS: u64 = 50;
/// So many broken seeds tell enough.
const BROKEN_MAX: u64 = 5;
/// So many seeds in a hundred are run twice when there are many.
const TWICE_PERCENT: u64 = 5;

struct Options {
    /// What is run of each seed.
    plan: Plan,
    seeds: Option<u64>,
    jobs: usize,
    /// Of a hundred seeds so many are run twice.
    twice: Option<u64>,
    mutants: bool,
    histories: bool,
    /// A file for what clients asked; all that can be asked must be among it.
    arguments: Option<String>,
    /// Files for the trace and the timeline of a seed.
    trace: Option<String>,
    timeline: Option<String>,
}

fn options(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        plan: Plan::new(1, 30),
        seeds: None,
        jobs: std::thread::available_parallelism().map_or(1, usize::from),
        twice: None,
        mutants: false,
        histories: false,
        arguments: None,
        trace: None,
        timeline: None,
    };
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let (flag, inline) = match argument.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (argument, None),
        };
        let mut value = || {
            let value = inline.clone().or_else(|| arguments.next());
            value.ok_or_else(|| format!("{flag} needs a value"))
        };
        let number = |value: Result<String, String>| -> Result<u64, String> {
            let value = value?;
            value.parse().map_err(|_| format!("{flag}: {value} is no number"))
        };
        let plan = &mut options.plan;
        match flag.as_str() {
            "--seed" => plan.seed = number(value())?,
            "--seeds" => options.seeds = Some(number(value())?),
            "--seconds" => plan.seconds = number(value())?.clamp(1, 86_400),
            "--roll" => plan.roll = number(value())?,
            "--members" => plan.members = Some(number(value())?.max(1) as usize),
            "--clients" => plan.clients = Some(number(value())?.max(1) as usize),
            "--workload" => plan.workload = Some(named(&value()?, Workload::named)?),
            "--mutant" => plan.mutant = Some(named(&value()?, Mutant::named)?),
            "--without" => {
                for name in value()?.split(',') {
                    plan.without.push(named(name, Fault::named)?);
                }
            }
            "--skip-faults" => plan.skip_faults = value()?.parse()?,
            "--skip-operations" => plan.skip_operations = value()?.parse()?,
            "--jobs" => options.jobs = number(value())?.clamp(1, 1_024) as usize,
            "--twice" => options.twice = Some(number(value())?.min(100)),
            "--arguments" => options.arguments = Some(value()?),
            "--trace" => options.trace = Some(value()?),
            "--timeline" => options.timeline = Some(value()?),
            "--blind" => plan.blind = true,
            "--mutants" => options.mutants = true,
            "--histories" => options.histories = true,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    let is_one = options.seeds.is_none() && !options.mutants && !options.histories;
    if !is_one && (options.trace.is_some() || options.timeline.is_some()) {
        return Err("a trace and a timeline are of one seed".to_owned());
    }
    if options.seeds.is_none() && options.arguments.is_some() {
        return Err("what is asked is counted of many seeds".to_owned());
    }
    Ok(options)
}

fn named<T>(name: &str, find: fn(&str) -> Option<T>) -> Result<T, String> {
    find(name).ok_or_else(|| format!("nothing is named {name}"))
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(64);
        }
    };
    sim::keep_panics_quiet();
    if options.mutants {
        mutants(&options)
    } else if options.histories {
        histories(&options)
    } else {
        match options.seeds {
            None => one(&options),
            Some(seeds) => many(&options, seeds),
        }
    }
}

/// What came of a seed.
struct Done {
    plan: Plan,
    report: Report,
    twice: bool,
    differs: bool,
    shrunk: Option<Shrunk>,
}

/// Runs a plan, a second time too if so asked: a second story is a broken promise. What fails is shrunk.
fn done(plan: Plan, twice: bool, shrinks: bool) -> Done {
    let mut report = sim::run(&plan);
    let mut differs = false;
    if twice && !report.is_broken() {
        let other = sim::run(&plan);
        if (report.hash, &report.verdict) != (other.hash, &other.verdict) {
            differs = true;
            let (one, other, last) = (report.hash, other.hash, Vec::new());
            let what = format!("two runs have the trace hashes {one:016x} and {other:016x}");
            report.verdict = Verdict::Broken { what, last };
        }
    }
    let shrunk = (shrinks && report.is_broken() && !differs).then(|| sim::shrink(&plan, &report));
    Done { plan, report, twice, differs, shrunk }
}

fn one(options: &Options) -> ExitCode {
    let twice = options.twice.is_some_and(|percent| percent > 0);
    let is_drawn = options.trace.is_some() || options.timeline.is_some();
    let done = done(options.plan.clone(), twice, !is_drawn);
    if is_drawn {
        let (_, trace) = sim::trace(&options.plan);
        let written = write(options.trace.as_deref(), || trace.json())
            .and_then(|()| write(options.timeline.as_deref(), || trace.timeline()));
        if let Err(why) = written {
            eprintln!("{why}");
            return ExitCode::from(74);
        }
    }
    let report = &done.report;
    println!("seed           {}, {} members", report.seed, report.members);
    println!("trace hash     {:016x}{}", report.hash, if twice { ", twice" } else { "" });
    println!("simulated      {:.0} s", report.figures.simulated_us as f64 / 1e6);
    report.lines().iter().for_each(|line| println!("{line}"));
    match &report.verdict {
        Verdict::Kept => println!("every promise was kept"),
        Verdict::Inconclusive(why) => println!("inconclusive: {why}"),
        Verdict::Broken { .. } => tell(&done),
    }
    ExitCode::from(u8::from(report.is_broken()))
}

fn write(file: Option<&str>, what: impl FnOnce() -> String) -> Result<(), String> {
    let Some(file) = file else { return Ok(()) };
    std::fs::write(file, what()).map_err(|why| format!("{file} cannot be written: {why}"))
}

/// Whether the seed of this number is among so many in a hundred, which lie evenly and begin with the first.
fn is_twice(number: u64, percent: u64) -> bool {
    ((number + 1) * percent).div_ceil(100) > (number * percent).div_ceil(100)
}

fn many(options: &Options, seeds: u64) -> ExitCode {
    let percent = options.twice.unwrap_or(TWICE_PERCENT);
    let first = options.plan.seed;
    let (mut figures, mut judgement) = (Figures::default(), Judgement::default());
    let (mut count, mut broken, mut inconclusive) = (0u64, 0u64, Vec::new());
    let (mut twice, mut differ) = (0u64, 0u64);
    let mut progress = Progress::new();
    let run = |number| done(options.plan.of_seed(first + number), is_twice(number, percent), true);
    crew::work(options.jobs, seeds, &run, &mut |done| {
        count += 1;
        twice += u64::from(done.twice);
        differ += u64::from(done.differs);
        figures.add(&done.report.figures);
        judgement.add(&done.report.judgement);
        match &done.report.verdict {
            Verdict::Kept if done.report.judgement.undecided > 0 => {
                let why = "the search for an order of what clients were told gave up";
                inconclusive.push((done.report.seed, why.to_owned()));
            }
            Verdict::Kept => {}
            Verdict::Inconclusive(why) => inconclusive.push((done.report.seed, why.clone())),
            Verdict::Broken { .. } => {
                broken += 1;
                progress.clear();
                tell(&done);
            }
        }
        progress.tell(|seconds| {
            format!(
                "{count} of {seeds} seeds, {broken} broken, {} inconclusive, {:.1} hours simulated in {seconds} s",
                inconclusive.len(),
                hours(&figures)
            )
        });
        broken < BROKEN_MAX
    });
    progress.clear();
    let wall = progress.elapsed().as_secs_f64();
    let cores = crew::core_time().map_or(wall * options.jobs as f64, |time| time.as_secs_f64());
    let share = |part: u64| 100.0 * part as f64 / count.max(1) as f64;
    println!(
        "seeds          {count} from {first} on, {} s of storm each: {broken} broken, {} inconclusive ({:.2} %)",
        options.plan.seconds,
        inconclusive.len(),
        share(inconclusive.len() as u64)
    );
    println!("simulated      {:.2} hours", hours(&figures));
    println!(
        "speed          {:.0} simulated seconds per core-second; {wall:.0} s, {} at a time",
        figures.simulated_us as f64 / 1e6 / cores.max(1e-2),
        options.jobs
    );
    println!(
        "determinism    {twice} seeds ({:.1} %) run twice, {differ} to another trace hash",
        share(twice)
    );
    figures.lines().iter().chain(&judgement.lines()).for_each(|line| println!("{line}"));
    for (seed, why) in &inconclusive {
        println!("inconclusive   seed {seed}: {why}");
    }
    if let Err(why) = write(options.arguments.as_deref(), || figures.arguments.page()) {
        eprintln!("{why}");
        return ExitCode::from(74);
    }
    if broken == 0 && count > 0 {
        println!(
            "bound          95 % sure that fewer than {:.2} % of seeds break a promise",
            300.0 / count as f64
        );
    }
    if broken > 0 {
        ExitCode::from(1)
    } else if inconclusive.len() as u64 * 100 > INCONCLUSIVE_PERCENT * count {
        println!("too many seeds were inconclusive");
        ExitCode::from(2)
    } else if options.arguments.is_some() && !figures.arguments.met().is_everything() {
        println!("something that can be asked was not");
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    }
}

fn hours(figures: &Figures) -> f64 {
    figures.simulated_us as f64 / 3.6e9
}

/// Each seed twice, with everything that clients can ask, which the witness judges, and with requests that keep to groups of
/// keys, which the search judges too. The simulator's own checks are silent: what is wrong must be seen by what clients
/// were told.
fn histories(options: &Options) -> ExitCode {
    let seeds = options.seeds.unwrap_or(10);
    let judged = |number| {
        [Workload::Everything, Workload::Groups].map(|workload| {
            let seed = options.plan.seed + number;
            let plan = Plan { workload: Some(workload), blind: true, ..options.plan.of_seed(seed) };
            let report = sim::run(&plan);
            (plan, report)
        })
    };
    let (mut sum, mut broken) = (Judgement::default(), 0u64);
    crew::work(options.jobs, seeds, &judged, &mut |reports| {
        for (plan, report) in reports {
            if let Verdict::Broken { what, .. } = &report.verdict {
                broken += 1;
                println!("BROKEN         {what}");
                println!("again          sim {plan}");
            }
            sum.add(&report.judgement);
        }
        true
    });
    println!("seeds          {seeds} from {} on, {broken} histories broken", options.plan.seed);
    sum.lines().iter().for_each(|line| println!("{line}"));
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
        let plan = options.plan.of_seed(options.plan.seed + number);
        let report = sim::run(&Plan { mutant: Some(mutant), ..plan });
        report.is_broken().then_some((number + 1, report))
    })
}

/// Tells of a broken promise, so that it can be looked at again.
fn tell(done: &Done) {
    let Verdict::Broken { what, last } = &done.report.verdict else { return };
    last.iter().for_each(|line| println!("{line}"));
    println!(
        "BROKEN         seed {}, {} members, after {:.6} s: {what}",
        done.report.seed,
        done.report.members,
        done.report.figures.simulated_us as f64 / 1e6
    );
    println!("again          sim {}", done.plan);
    let Some(shrunk) = &done.shrunk else { return };
    if shrunk.plan == done.plan {
        return println!("shrunk         no, nothing smaller of {} runs fails so", shrunk.attempts);
    }
    println!("shrunk         sim {}", shrunk.plan);
    if let Verdict::Broken { what, .. } = &shrunk.report.verdict {
        println!(
            "               after {:.6} s: {what} ({} runs tried)",
            shrunk.report.figures.simulated_us as f64 / 1e6,
            shrunk.attempts
        );
    }
    println!("to be seen     with --timeline seed-{}.html besides", done.report.seed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_hundred_seeds_as_many_as_asked_are_run_twice_the_first_among_them() {
        for percent in [0, 1, 5, 33, 100] {
            let twice = (0..1_000).filter(|number| is_twice(*number, percent)).count() as u64;
            assert_eq!(twice, percent * 10);
            assert_eq!(is_twice(0, percent), percent > 0);
        }
    }

    #[test]
    fn a_plan_is_read_back_from_its_flags() {
        let plan = Plan {
            roll: 3,
            members: Some(2),
            clients: Some(4),
            workload: Some(Workload::Groups),
            without: vec![Fault::named("power-cut").unwrap(), Fault::named("slow disk").unwrap()],
            skip_faults: "3,7-12".parse().unwrap(),
            skip_operations: "1-40".parse().unwrap(),
            mutant: Mutant::named("vote-twice"),
            blind: true,
            ..Plan::new(9, 61)
        };
        let words = plan.to_string();
        let read = options(words.split(' ').map(str::to_owned)).unwrap();
        assert_eq!(read.plan, plan);
        let refused = options(["--without=weather".to_owned()].into_iter()).err();
        assert_eq!(refused.as_deref(), Some("nothing is named weather"));
    }
}
