//! A cluster in one thread: its members, their disks, their network and their clients, driven by a seed through the
//! very code that the server runs.
//!
//! ```text
//!             ┌────────────── World: virtual time, a heap of events, one seed ──────────────┐
//!   clients ──┤ network ── shards ── replica ── log · apply · flush · read ── disk in memory │
//!      ▲      └──────▲──────────────────────────────▲──────────────────────────────▲────────┘
//!      │          faults                            │ every event                faults
//!      └────────── model ◀──── committed entries ── checker
//! ```
//!
//! [`run`] runs one seed: a storm of drawn length, then everything is healed, and the cluster must come to rest with
//! all members equal. See `docs/simulation.md`. [`lab`] has experiments: no storm, but one thing after another, told as
//! it happens.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod arguments;
mod checker;
mod client;
mod disk;
mod door;
mod faults;
pub mod history;
mod json;
pub mod lab;
mod member;
mod model;
mod network;
mod operator;
mod plan;
mod random;
mod recorder;
mod report;
mod requests;
mod roster;
mod scenario;
mod script;
mod shard;
mod shrink;
mod trace;
mod world;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use arguments::{Arguments, Met, Tally};
pub use model::{Change, Model};
pub use plan::{Numbers, Plan, flag};
pub use recorder::{Judgement, Recording};
pub use report::{Figures, INCONCLUSIVE_PERCENT, Report, Verdict};
pub use scenario::{FAULTS, Fault, MUTANTS, Mutant, Workload};
pub use shrink::{Shrunk, likeness, shrink};
pub use trace::Trace;

use world::World;

thread_local! {
    /// The place and message of this thread's last panic, kept by the hook for the report.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Lets panics of simulated members be told in their seed's report instead of on standard error. For programs that do
/// nothing but simulate; call it once.
pub fn keep_panics_quiet() {
    std::panic::set_hook(Box::new(|info| {
        PANIC.with(|panic| *panic.borrow_mut() = Some(info.to_string()));
    }));
}

/// Runs a plan, and has judged what its clients were told.
pub fn run(plan: &Plan) -> Report {
    judged(record(plan))
}

/// Runs a plan, and keeps what its clients asked and were told, and the log that its members agreed on.
pub fn record(plan: &Plan) -> Recording {
    recorded(&mut World::new(plan.scenario()))
}

/// Runs a plan as [`run`] does, and keeps a trace of all that happens.
pub fn trace(plan: &Plan) -> (Report, Trace) {
    let mut world = World::new(plan.scenario());
    world.tracer = Some(Box::default());
    let report = judged(recorded(&mut world));
    let tracer = world.tracer.take().expect("it was put there");
    let trace = tracer.finish(plan, &world.scenario, &report);
    (report, trace)
}

fn recorded(world: &mut World) -> Recording {
    world.recorder = Some(Box::default());
    let report = run_world(world);
    let recorder = world.recorder.take().expect("it was put there");
    recorder.finish(report, &world.scenario)
}

fn judged(recording: Recording) -> Report {
    let mut report = recording.report.clone();
    // Of a run that was broken off there is no more to be said.
    if !report.is_broken() {
        report.judgement = recording.judge();
        report.take_judgement();
    }
    report
}

fn run_world(world: &mut World) -> Report {
    #[cfg(feature = "mutants")]
    mutant::choose(match world.scenario.mutant {
        Some(Mutant::Inside(inside)) => Some(inside),
        _ => None,
    });
    world.figures.enabled = world.scenario.faults.clone();
    PANIC.with(|panic| *panic.borrow_mut() = None);
    // What a panic leaves behind is only looked at to tell of it.
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let panic = result.err().map(|payload| {
        let told = PANIC.with(|panic| panic.borrow_mut().take());
        let plain = payload.downcast_ref::<String>().cloned();
        format!("panic: {}", told.or(plain).unwrap_or_else(|| "without a word".to_owned()))
    });
    world.report(panic)
}
