//! What is to be run: a seed, and what of its storm is left out or given instead of drawn.
//!
//! A plan is written and read as the flags of `sim`, so that whatever was found can be repeated by one line.

use std::fmt;

use crate::scenario::{Fault, Mutant, Scenario, Workload};

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// How long the storm lasts, in simulated seconds.
    pub seconds: u64,
    /// Other dice for what happens in the storm, while what the seed is about stays: 0 are the seed's own.
    pub roll: u64,
    /// Kinds of misfortune that do not happen, though the seed has drawn them.
    pub without: Vec<Fault>,
    /// At most so many members, however many were drawn.
    pub members: Option<usize>,
    /// At most so many clients.
    pub clients: Option<usize>,
    /// What the clients ask, whatever was drawn.
    pub workload: Option<Workload>,
    /// A defect that is put in.
    pub mutant: Option<Mutant>,
    /// The simulator's own checks say nothing: only what clients were told is judged.
    pub blind: bool,
}

impl Plan {
    /// The whole storm of a seed, for so many simulated seconds.
    pub fn new(seed: u64, seconds: u64) -> Plan {
        Plan {
            seed,
            seconds,
            roll: 0,
            without: Vec::new(),
            members: None,
            clients: None,
            workload: None,
            mutant: None,
            blind: false,
        }
    }

    /// The same of another seed.
    pub fn of_seed(&self, seed: u64) -> Plan {
        Plan { seed, ..self.clone() }
    }

    /// What the seed is about, after all that the plan changes of it.
    pub(crate) fn scenario(&self) -> Scenario {
        let mut scenario = Scenario::draw(self.seed, self.seconds * 1_000_000, self.mutant);
        scenario.roll = self.roll;
        scenario.blind = self.blind;
        if let Some(members) = self.members {
            scenario.keep_members(members);
        }
        if let Some(clients) = self.clients {
            scenario.clients = scenario.clients.min(clients.max(1));
        }
        if let Some(workload) = self.workload {
            scenario.workload = workload;
        }
        scenario.faults.retain(|fault| !self.without.contains(fault));
        scenario
    }
}

/// As the flags of `sim`.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--seed {} --seconds {}", self.seed, self.seconds)?;
        if self.roll > 0 {
            write!(f, " --roll {}", self.roll)?;
        }
        if let Some(members) = self.members {
            write!(f, " --members {members}")?;
        }
        if let Some(clients) = self.clients {
            write!(f, " --clients {clients}")?;
        }
        if let Some(workload) = self.workload {
            write!(f, " --workload {}", workload.name())?;
        }
        if !self.without.is_empty() {
            let names: Vec<String> = self.without.iter().map(|fault| flag(fault.name())).collect();
            write!(f, " --without {}", names.join(","))?;
        }
        if let Some(mutant) = self.mutant {
            write!(f, " --mutant {}", flag(mutant.name()))?;
        }
        if self.blind {
            write!(f, " --blind")?;
        }
        Ok(())
    }
}

/// A name of several words as one.
pub fn flag(name: &str) -> String {
    name.replace(' ', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_written_as_its_flags() {
        assert_eq!(Plan::new(7, 30).to_string(), "--seed 7 --seconds 30");
        let small = Plan {
            roll: 2,
            without: vec![Fault::Loss, Fault::CutOneWay],
            members: Some(3),
            clients: Some(1),
            workload: Some(Workload::Groups),
            mutant: Some(Mutant::SkipSync),
            ..Plan::new(7, 4)
        };
        assert_eq!(
            small.to_string(),
            "--seed 7 --seconds 4 --roll 2 --members 3 --clients 1 --workload groups \
             --without loss,cut-one-way --mutant skip-a-sync"
        );
    }

    #[test]
    fn a_plan_takes_away_and_never_adds() {
        let seven = (1..).find(|seed| Plan::new(*seed, 1).scenario().members == 7).unwrap();
        let whole = Plan::new(seven, 1).scenario();
        let without = whole.faults[..1].to_vec();
        let plan = Plan { members: Some(3), clients: Some(1), without, ..Plan::new(seven, 1) };
        let small = plan.scenario();
        assert_eq!((small.members, small.clients), (3, 1));
        assert_eq!(small.faults, whole.faults[1..]);
        assert_eq!(small.clocks, whole.clocks[..3]);
        let larger = Plan { members: Some(9), clients: Some(99), ..Plan::new(seven, 1) }.scenario();
        assert_eq!((larger.members, larger.clients), (7, whole.clients));
        let lone = Plan { members: Some(1), ..Plan::new(seven, 1) }.scenario();
        assert!(lone.faults.iter().all(|fault| fault.members_needed() == 1));
    }
}
