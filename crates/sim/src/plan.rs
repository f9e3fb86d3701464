//! What is to be run: a seed, and what of its storm is left out or given instead of drawn.
//!
//! A plan is written and read as the flags of `sim`, so that whatever was found can be repeated by one line.

use std::fmt;
use std::str::FromStr;

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
    /// Single misfortunes that do not happen, by their numbers in this run.
    pub skip_faults: Numbers,
    /// Single requests that clients do not make, by their numbers in this run.
    pub skip_operations: Numbers,
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
            skip_faults: Numbers::default(),
            skip_operations: Numbers::default(),
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
        scenario.skip_faults = self.skip_faults.clone();
        scenario.skip_operations = self.skip_operations.clone();
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
        for (flag, skipped) in
            [("faults", &self.skip_faults), ("operations", &self.skip_operations)]
        {
            if *skipped != Numbers::default() {
                write!(f, " --skip-{flag} {skipped}")?;
            }
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

/// Some of the numbers from 1 on, as a few ranges: `3,7-12`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers(
    /// First and last of each range: ascending, and with something between them.
    Vec<(u64, u64)>,
);

impl Numbers {
    /// These ranges, each with its first and its last.
    pub fn of(mut ranges: Vec<(u64, u64)>) -> Numbers {
        ranges.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match joined.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => joined.push((first, last)),
            }
        }
        Numbers(joined)
    }

    /// Whether this is one of them.
    pub fn contains(&self, number: u64) -> bool {
        let place = self.0.partition_point(|(_, last)| *last < number);
        self.0.get(place).is_some_and(|(first, _)| *first <= number)
    }

    /// These, and some more.
    pub fn and(&self, more: &[u64]) -> Numbers {
        let more = more.iter().map(|number| (*number, *number));
        Numbers::of(self.0.iter().copied().chain(more).collect())
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (first, last)) in self.0.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Numbers, String> {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = (first.parse().ok()?, last.parse().ok()?);
            (range.0 <= range.1).then_some(range)
        };
        let ranges: Option<Vec<(u64, u64)>> = text.split(',').map(range).collect();
        ranges.map(Numbers::of).ok_or_else(|| format!("{text} are no numbers such as 3,7-12"))
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
            skip_faults: Numbers::of(vec![(3, 3), (7, 12)]),
            members: Some(3),
            clients: Some(1),
            workload: Some(Workload::Groups),
            mutant: Some(Mutant::SkipSync),
            ..Plan::new(7, 4)
        };
        assert_eq!(
            small.to_string(),
            "--seed 7 --seconds 4 --roll 2 --members 3 --clients 1 --workload groups \
             --without loss,cut-one-way --skip-faults 3,7-12 --mutant skip-a-sync"
        );
    }

    #[test]
    fn numbers_are_written_as_ranges() {
        let some: Numbers = "9-12,3,1-2,10-20,30".parse().unwrap();
        assert_eq!(some.to_string(), "1-3,9-20,30");
        let found: Vec<u64> = (0..40).filter(|number| some.contains(*number)).collect();
        assert_eq!(found, [1, 2, 3].into_iter().chain(9..=20).chain([30]).collect::<Vec<u64>>());
        assert_eq!(some.and(&[4, 8, 29]).to_string(), "1-4,8-20,29-30");
        assert_eq!(Numbers::default().to_string(), "");
        for wrong in ["", "a", "3-", "7-3", "1,,2"] {
            assert!(wrong.parse::<Numbers>().is_err(), "{wrong}");
        }
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
