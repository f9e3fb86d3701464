//! A few seeds of every kind, so that a change that breaks a promise, or determinism, or the simulator's eyes, is seen
//! before the long runs see it.

use sim::{FAULTS, MUTANTS, Mutant, Plan, Report, Verdict, Workload};

fn run(seed: u64, seconds: u64, mutant: Option<Mutant>) -> Report {
    sim::run(&Plan { mutant, ..Plan::new(seed, seconds) })
}

/// Nothing is broken; whether enough happened is for runs of full length.
fn check_kept(report: &Report) {
    if let Verdict::Broken { what, last } = &report.verdict {
        panic!("seed {}: {what}\n{}", report.seed, last.join("\n"));
    }
}

#[test]
fn short_storms_break_no_promise() {
    let mut led = 0;
    for seed in 1..=12 {
        let report = run(seed, 10, None);
        check_kept(&report);
        let figures = &report.figures;
        assert!(figures.checked > 0, "seed {seed}: nothing was compared");
        // A short storm may be one outage.
        if figures.available_us >= 500_000 {
            led += 1;
            assert!(figures.acknowledged > 0, "seed {seed}: nobody could write");
        }
    }
    assert!(led >= 9, "in {led} of twelve storms somebody led");
}

/// Whatever can be asked is asked, in a run that everybody can afford. (That every two values meet takes the run of each
/// change: `sim --arguments`.)
#[test]
fn every_value_of_every_field_is_asked_for() {
    let mut arguments = sim::Arguments::default();
    for seed in 1..=30 {
        let report = run(seed, 6, None);
        check_kept(&report);
        arguments.add(&report.figures.arguments);
    }
    let met = arguments.met();
    assert!(met.values.all > 180, "{}", met.line());
    assert_eq!(met.values.missed, [] as [&str; 0], "{}", met.line());
}

#[test]
fn seeds_that_once_showed_something_stay_quiet() {
    for line in include_str!("../seeds.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let mut number = || words.next().and_then(|word| word.parse().ok());
        let (Some(seed), Some(seconds)) = (number(), number()) else {
            panic!("a seed and its seconds are wanted: {line}");
        };
        // When the first of them showed it, all clients asked for everything.
        for workload in [None, Some(Workload::Everything)] {
            check_kept(&sim::run(&Plan { workload, ..Plan::new(seed, seconds) }));
        }
    }
}

#[test]
fn a_second_run_of_a_seed_is_the_same_story() {
    let (one, other) = (run(31, 5, None), run(31, 5, None));
    assert_eq!(one.hash, other.hash);
    assert_eq!(format!("{:?}", one.figures), format!("{:?}", other.figures));
    assert_ne!(one.hash, run(32, 5, None).hash);
}

/// With the simulator's own checks silent, what clients were told betrays what was acknowledged and is not there.
#[test]
fn what_clients_were_told_betrays_a_mutant() {
    let found = (1..=20).filter_map(|seed| {
        let mutant = Some(Mutant::AckBeforeQuorum);
        sim::run(&Plan { mutant, blind: true, ..Plan::new(seed, 10) }).judgement.broken
    });
    assert!(found.count() >= 3, "three of twenty seeds at least");
}

/// Seven members and all misfortunes, or one and none: a plan leaves out what it says, and the run is sound.
#[test]
fn what_a_plan_leaves_out_does_not_happen() {
    let whole = run(5, 6, None);
    let plan =
        Plan { members: Some(1), clients: Some(1), without: FAULTS.to_vec(), ..Plan::new(5, 6) };
    let small = sim::run(&plan);
    check_kept(&small);
    assert!(whole.members > 1 && small.members == 1);
    assert_eq!(small.figures.fired, [0; FAULTS.len()]);
    assert_ne!(whole.hash, small.hash);
    let other = sim::run(&Plan { roll: 1, ..Plan::new(5, 6) });
    check_kept(&other);
    assert_eq!(other.members, whole.members);
    assert_ne!(whole.hash, other.hash);
}

/// Whoever looks on changes nothing, and what he writes is whole: a line for the run and one for each event, and a page
/// that needs nothing from elsewhere.
#[test]
fn a_trace_is_of_the_same_story() {
    let plan = Plan::new(34, 5);
    let (report, trace) = sim::trace(&plan);
    assert_eq!(report.hash, run(34, 5, None).hash);
    let json = trace.json();
    let mut lines = json.lines();
    let head = lines.next().unwrap_or_default();
    assert!(head.starts_with("{\"run\":\"sim --seed 34 --seconds 5\","), "{head}");
    assert!(lines.clone().count() > 10_000);
    assert!(lines.all(|line| line.starts_with("{\"at_us\":") && line.ends_with('}')));
    assert!(json.contains("\"what\":\"started\"") && json.contains("\"kind\":\"Vote\""));
    let page = trace.timeline();
    assert!(page.contains(head) && page.ends_with("</html>\n"));
    assert!(!page.contains("@DATA@") && !page.contains("://") && !page.contains(" src="));
}

/// A run that fails is shrunk to one that fails in the same way, and again when it is repeated.
#[test]
fn a_failing_run_is_shrunk() {
    for mutant in [Mutant::SkipSync, Mutant::VoteTwice] {
        let (plan, report) = (20..70)
            .map(|seed| Plan { mutant: Some(mutant), ..Plan::new(seed, 20) })
            .map(|plan| (plan.clone(), sim::run(&plan)))
            .find(|(_, report)| report.is_broken())
            .expect("a mutant is found");
        let shrunk = sim::shrink(&plan, &report);
        assert!(shrunk.plan.seconds < 20, "{}", shrunk.plan);
        assert!(!shrunk.plan.without.is_empty() || shrunk.plan.members == Some(1));
        let again = sim::run(&shrunk.plan);
        assert_eq!(sim::likeness(&again), sim::likeness(&report), "{}", shrunk.plan);
        assert_eq!(again.hash, shrunk.report.hash);
    }
}

#[test]
fn each_mutant_is_found() {
    for mutant in MUTANTS {
        let found = (1..=50).find(|seed| {
            let report = run(*seed, 10, Some(mutant));
            matches!(report.verdict, Verdict::Broken { .. })
        });
        assert!(found.is_some(), "{mutant:?} was not found");
    }
}

/// The mutants are found for what they do, and not because of something that any run would show.
#[test]
fn a_mutant_is_found_by_the_promise_that_it_breaks() {
    let what = |mutant| {
        (1..=50)
            .find_map(|seed| match run(seed, 10, Some(mutant)).verdict {
                Verdict::Broken { what, .. } => Some(what),
                _ => None,
            })
            .unwrap_or_default()
    };
    assert!(what(Mutant::SkipSync).contains("durable"), "{}", what(Mutant::SkipSync));
    let early = what(Mutant::AckBeforeQuorum);
    assert!(early.contains("is committed for member") && early.contains("durable on"), "{early}");
    assert!(what(Mutant::VoteTwice).contains("votes"), "{}", what(Mutant::VoteTwice));
}
