//! The laboratory: experiments on a cluster of three that show what a member does, and when, and why.
//!
//! ```text
//!   write.rs, election.rs …   what is done and what must be seen: one file per experiment
//!        │
//!       Lab                   a world of three members, a client and a script: steps, waits, claims
//!        │
//!     Account ──▶ telling.rs  columns, colours, JSON
//! ```
//!
//! The members are the simulator's, that is, the server's own code; what they tell are [`replica::Trace`]s. An
//! experiment ends in claims. Each names the defect (a [`Mutant`]) with which one of them no longer holds, so that it is
//! known to look at what it says it looks at.

mod balance;
mod bench;
mod compaction;
mod election;
mod leader_dies;
pub mod real;
mod snapshot;
mod stages;
mod telling;
mod watch_resume;
mod when_applied;
mod when_written;
mod withhold_acks;
mod write;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use bench::{Account, Claim, Line, Subject};
pub use telling::{Style, json, tell};

use crate::scenario::Mutant;
use bench::{Lab, Start};

/// One experiment.
pub struct Experiment {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it answers.
    pub question: &'static str,
    /// The defect that breaks what it shows.
    pub mutant: Mutant,
    run: fn(&mut Lab),
    arrange: fn(&mut crate::scenario::Scenario),
}

/// All of them, in the order in which they are best read.
pub const EXPERIMENTS: &[Experiment] = &[
    write::EXPERIMENT,
    withhold_acks::EXPERIMENT,
    when_applied::EXPERIMENT,
    when_written::EXPERIMENT,
    leader_dies::EXPERIMENT,
    election::EXPERIMENT,
    snapshot::EXPERIMENT,
    watch_resume::EXPERIMENT,
    compaction::EXPERIMENT,
    balance::EXPERIMENT,
];

/// The experiment of this name.
pub fn find(name: &str) -> Option<&'static Experiment> {
    EXPERIMENTS.iter().find(|experiment| experiment.name == name)
}

impl Experiment {
    /// Performs it: the same seed, the same story.
    pub fn perform(&self, seed: u64, mutant: Option<Mutant>) -> Account {
        let start = Start { name: self.name, question: self.question, seed, mutant };
        let mut lab = Lab::new(start, self.arrange);
        // What a panic leaves behind is only looked at to tell of it.
        let result = catch_unwind(AssertUnwindSafe(|| (self.run)(&mut lab)));
        let panic = result.err().map(|payload| {
            let text = payload.downcast_ref::<String>().cloned();
            let text =
                text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            text.unwrap_or_else(|| "without a word".to_owned())
        });
        lab.end(panic)
    }
}
