//! What is counted in a seed, what a seed says, and what many of them say together.

use crate::arguments::Arguments;
use crate::recorder::Judgement;
use crate::scenario::{FAULTS, Fault};

/// A seed counts only with so many acknowledged writes per simulated second outside outages.
pub const WRITES_PER_SECOND: u64 = 10;
/// So many seeds in a hundred may be inconclusive.
pub const INCONCLUSIVE_PERCENT: u64 = 2;

/// Counts of one seed, or of many.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Simulated time, in microseconds.
    pub simulated_us: u64,
    /// Of the storm, the time with a leader that was connected both ways to an unpaused majority.
    pub available_us: u64,
    /// Of the storm, the rest.
    pub outage_us: u64,
    /// Events.
    pub events: u64,
    /// Messages between members.
    pub messages: u64,
    /// Misfortunes that were due, also those that were left out.
    pub misfortunes: u64,
    /// Requests that were due in the storm, also those that were left out.
    pub steps: u64,
    /// How often each kind of misfortune had an effect.
    pub fired: [u64; FAULTS.len()],
    /// Samples at which somebody waited for a slow disk.
    pub slow_samples: u64,
    /// Requests issued.
    pub operations: u64,
    /// Requests that were done.
    pub succeeded: u64,
    /// Requests whose outcome nobody knows.
    pub unknown: u64,
    /// Writes that were acknowledged to a client.
    pub acknowledged: u64,
    /// Replies and reads compared with the model.
    pub checked: u64,
    /// Watches begun.
    pub watches: u64,
    /// Watches cancelled by compactions.
    pub canceled: u64,
    /// Events told to watches, each compared with the model.
    pub watch_events: u64,
    /// Snapshots that began to travel.
    pub sent: u64,
    /// Snapshots put into force.
    pub snapshots: u64,
    /// Releases of the log.
    pub releases: u64,
    /// Times that a process started again.
    pub restarts: u64,
    /// Elections won.
    pub elections: u64,
    /// Leases ended by a clock.
    pub expired: u64,
    /// Copies of disks, without what was not synced, on which a start was tried.
    pub crash_states: u64,
    /// What clients asked, by the values of its fields.
    pub arguments: Arguments,
    /// The kinds that were enabled.
    pub enabled: Vec<Fault>,
}

impl Figures {
    /// Whether the seed counts.
    pub fn verdict(&self) -> Verdict {
        let silent: Vec<&str> = self
            .enabled
            .iter()
            .filter(|fault| self.effects(**fault) == 0)
            .map(|fault| fault.name())
            .collect();
        if !silent.is_empty() {
            return Verdict::Inconclusive(format!("{} never fired", silent.join(", ")));
        }
        let wanted = WRITES_PER_SECOND * self.available_us;
        if self.available_us == 0 || self.acknowledged * 1_000_000 < wanted {
            return Verdict::Inconclusive(format!(
                "{} writes acknowledged in {:.1} s outside outages",
                self.acknowledged,
                self.available_us as f64 / 1e6
            ));
        }
        Verdict::Kept
    }

    /// How often a kind of misfortune was felt: a slow disk is when somebody waits for it.
    fn effects(&self, fault: Fault) -> u64 {
        match fault {
            Fault::SlowDisk => self.fired[fault as usize].min(self.slow_samples),
            _ => self.fired[fault as usize],
        }
    }

    /// Adds those of another seed.
    pub fn add(&mut self, other: &Figures) {
        macro_rules! add {
            ($($field:ident),+) => { $( self.$field += other.$field; )+ };
        }
        add!(
            simulated_us,
            available_us,
            outage_us,
            events,
            messages,
            misfortunes,
            steps,
            slow_samples,
            operations,
            succeeded,
            unknown,
            acknowledged,
            checked,
            watches,
            canceled,
            watch_events,
            sent,
            snapshots,
            releases,
            restarts,
            elections,
            expired,
            crash_states
        );
        self.arguments.add(&other.arguments);
        for (sum, fired) in self.fired.iter_mut().zip(other.fired) {
            *sum += fired;
        }
    }

    /// The counts, a line each.
    pub fn lines(&self) -> Vec<String> {
        let seconds = |us: u64| us as f64 / 1e6;
        let fired: Vec<String> = FAULTS
            .iter()
            .map(|fault| format!("{} {}", fault.name(), self.fired[*fault as usize]))
            .collect();
        vec![
            format!(
                "storms         {:.0} s of a leader with a majority, {:.0} s of outages",
                seconds(self.available_us),
                seconds(self.outage_us)
            ),
            format!("survived       {}", fired.join(", ")),
            format!("events         {}, messages {}", self.events, self.messages),
            format!(
                "operations     {} issued, {} done, {} unknown, {} replies and reads compared with the model",
                self.operations, self.succeeded, self.unknown, self.checked
            ),
            format!(
                "writes         {} acknowledged, {:.1} per second outside outages",
                self.acknowledged,
                self.acknowledged as f64 / seconds(self.available_us).max(1e-6)
            ),
            format!(
                "watches        {} begun, {} cancelled by compactions, {} events compared with the model",
                self.watches, self.canceled, self.watch_events
            ),
            format!(
                "members        {} restarts, {} elections, {} snapshots sent, {} installed, {} releases of the log",
                self.restarts, self.elections, self.sent, self.snapshots, self.releases
            ),
            format!("leases         {} expired", self.expired),
            format!(
                "crash states   {} disks started from a copy, as they would be if the power went",
                self.crash_states
            ),
            self.arguments.met().line(),
        ]
    }
}

/// What a seed says.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Every promise was kept, and enough happened.
    Kept,
    /// Every promise was kept, but too little happened.
    Inconclusive(String),
    /// A promise was broken.
    Broken {
        /// Which, in a sentence.
        what: String,
        /// The last events before.
        last: Vec<String>,
    },
}

/// The report on a seed.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How many members it had.
    pub members: usize,
    /// What it says.
    pub verdict: Verdict,
    /// The hash over everything that happened.
    pub hash: u64,
    /// The counts.
    pub figures: Figures,
    /// What the judges of histories say, if they were asked.
    pub judgement: Judgement,
}

impl Report {
    /// Whether a promise was broken.
    pub fn is_broken(&self) -> bool {
        matches!(self.verdict, Verdict::Broken { .. })
    }

    /// Makes what the judges say part of the verdict. A search that gave up is no yes, and is counted; the witness has
    /// judged the same history.
    pub(crate) fn take_judgement(&mut self) {
        if let Some(what) = &self.judgement.broken {
            self.verdict = Verdict::Broken { what: what.clone(), last: Vec::new() };
        }
    }

    /// The counts, a line each.
    pub fn lines(&self) -> Vec<String> {
        [self.figures.lines(), self.judgement.lines()].concat()
    }
}
