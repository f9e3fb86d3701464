//! Keeps what the clients of a run ask and are told, and the log, for those who judge histories afterwards.
//!
//! It takes an answer when a shard gives it, and counts it as heard when the client hears it: what is lost on the way
//! is unknown, as in life. Nothing that happens in the world depends on whether somebody keeps it.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::history::keyspace::{self, Keyspace};
use crate::history::search::{self, Bounds};
use crate::history::watch::{self, Step};
use crate::history::witness::{self, Log};
use crate::history::{Answer, Operation, Outcome, Request};
use crate::report::Report;
use crate::scenario::{Scenario, Workload};
use crate::shard;

/// How far an order is searched in each group: a second and some ten megabytes at worst.
const SEARCH: Bounds = Bounds { steps: 500_000, places: 50_000 };

/// What was recorded of a run.
#[derive(Clone, Debug)]
pub struct Recording {
    /// What the simulator's own checks said.
    pub report: Report,
    /// What clients asked and were told, in the order of their calls; times are microseconds.
    pub history: Vec<Operation>,
    /// The data of the log's entries, from the first on, membership changes left out.
    pub log: Vec<Bytes>,
    /// The shortest lease that was granted, in seconds.
    pub lease_ttl_min: i64,
    /// What each watch was told.
    pub watches: Vec<Vec<Step>>,
    /// What the clients asked.
    pub workload: Workload,
}

impl Recording {
    /// The log, for those who judge by it.
    pub fn log(&self) -> Log<'_> {
        Log { entries: &self.log, lease_ttl_min: self.lease_ttl_min }
    }
}

/// What the judges of histories say of a recording, or of many.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// The first promise that was broken, whoever says so.
    pub broken: Option<String>,
    /// Operations that the witness was shown.
    pub operations: u64,
    /// Those of them whose outcome nobody knows.
    pub unknown: u64,
    /// Histories of which an order was searched.
    pub searches: u64,
    /// Operations in them.
    pub searched: u64,
    /// Histories of which the search could not tell.
    pub undecided: u64,
    /// Watches.
    pub watches: u64,
    /// Events that they were told.
    pub events: u64,
}

impl Judgement {
    /// Adds the counts of another.
    pub fn add(&mut self, other: &Judgement) {
        self.operations += other.operations;
        self.unknown += other.unknown;
        self.searches += other.searches;
        self.searched += other.searched;
        self.undecided += other.undecided;
        self.watches += other.watches;
        self.events += other.events;
    }

    /// The counts, a line each.
    pub fn lines(&self) -> Vec<String> {
        vec![
            format!(
                "histories      {} operations judged by their revisions, {} of unknown outcome",
                self.operations, self.unknown
            ),
            format!(
                "orders         searched in {} histories over groups of keys, {} operations, {} undecided",
                self.searches, self.searched, self.undecided
            ),
            format!("watchers       {} judged, {} events", self.watches, self.events),
        ]
    }

    fn broken(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }
}

impl Recording {
    /// Has everything judged: the history by the witness and, if its requests keep to groups of keys, by the search; the
    /// watches by the model of the log.
    pub fn judge(&self) -> Judgement {
        let unknown = self.history.iter().filter(|o| o.outcome == Outcome::Unknown);
        let mut judgement = Judgement {
            operations: self.history.len() as u64,
            unknown: unknown.count() as u64,
            ..Judgement::default()
        };
        match witness::check(&self.history, Some(self.log())) {
            witness::Verdict::Kept => {}
            witness::Verdict::Broken(why) => judgement.broken(format!("the witness says: {why}")),
            witness::Verdict::Open(why) => {
                judgement.broken(format!("the witness cannot tell: {why}"))
            }
        }
        if self.workload == Workload::Groups
            && let Ok(operations) = keyspace::of(&self.history)
        {
            judgement.searches = 1;
            judgement.searched = operations.len() as u64;
            match search::check(&Keyspace, &operations, SEARCH) {
                search::Verdict::Linearizable => {}
                search::Verdict::Unknown => judgement.undecided = 1,
                search::Verdict::Refused { stuck } => {
                    let operation = &operations[stuck];
                    judgement.broken(format!("no order comes past {operation:?}"));
                }
            }
        }
        let model = match self.log().model() {
            Ok(model) => model,
            Err(why) => {
                judgement.broken(why);
                return judgement;
            }
        };
        for steps in &self.watches {
            judgement.watches += 1;
            judgement.events += steps.iter().map(Step::events).sum::<usize>() as u64;
            if let Err(broken) = watch::check(&model, steps) {
                judgement.broken(format!("a watch was told wrongly: {broken}"));
            }
        }
        judgement
    }
}

/// Keeps what happens.
#[derive(Default)]
pub struct Recorder {
    history: Vec<Operation>,
    /// Where in the history the requests stand that nobody has heard of yet, by client and number.
    open: BTreeMap<(usize, u64), usize>,
    /// Answers on their way.
    answers: BTreeMap<(usize, u64), Answer>,
    log: Vec<Bytes>,
    watches: BTreeMap<(usize, u32), Vec<Step>>,
}

impl Recorder {
    /// A client asks.
    pub fn on_call(&mut self, client: usize, op: u64, now: u64, request: Request) {
        self.open.insert((client, op), self.history.len());
        let outcome = Outcome::Unknown;
        self.history.push(Operation { client: client as u64, call: now, request, outcome });
    }

    /// A member answers.
    pub fn on_answer(&mut self, client: usize, op: u64, answer: Answer) {
        self.answers.insert((client, op), answer);
    }

    /// The client hears it.
    pub fn on_outcome(&mut self, client: usize, op: u64, now: u64, outcome: &shard::Outcome) {
        let Some(place) = self.open.remove(&(client, op)) else { return };
        let answer = self.answers.remove(&(client, op));
        self.history[place].outcome = match outcome {
            shard::Outcome::Done(_) => match answer {
                Some(answer) => Outcome::Answered { at: now, answer },
                None => return,
            },
            shard::Outcome::Refused(error) => {
                Outcome::Refused { at: now, error: error.text().to_owned() }
            }
            shard::Outcome::NotTaken(_) | shard::Outcome::TurnedAway(_) => Outcome::NotTaken,
            shard::Outcome::Unknown => return,
        };
    }

    /// An entry is committed.
    pub fn on_committed(&mut self, data: &Bytes) {
        self.log.push(data.clone());
    }

    /// Something in the life of a watch.
    pub fn on_watch(&mut self, client: usize, id: u32, step: Step) {
        self.watches.entry((client, id)).or_default().push(step);
    }

    /// The run is over.
    pub fn finish(self, report: Report, scenario: &Scenario) -> Recording {
        Recording {
            report,
            history: self.history,
            log: self.log,
            lease_ttl_min: scenario.lease_ttl_min(),
            workload: scenario.workload,
            watches: self.watches.into_values().collect(),
        }
    }
}
