//! Shrinking: from a run that breaks a promise to a smaller one that breaks it in the same way.
//!
//! A smaller run is a plan that takes something away: seconds, a kind of misfortune, members, clients. Whatever is taken
//! away, everything behind it happens otherwise, so a candidate is tried with some other dice too before it is given up.
//! What fails becomes the run to be shrunk, until nothing can be taken from it or enough was tried. Which candidates are
//! tried depends on the run alone, so a seed shrinks to the same plan each time.
//!
//! What is left is then shrunk by single misfortunes and requests: all of them are left out, then each half, each quarter,
//! and so on down to one, whatever of it is not needed (Zeller's delta debugging). The others stay as they were drawn.

use crate::plan::{Numbers, Plan};
use crate::report::{Figures, Report, Verdict};

/// So many runs are tried at most.
const ATTEMPTS_MAX: u64 = 250;
/// And so many more without single misfortunes and requests.
const SINGLES_MAX: u64 = 150;
/// So many other dice a candidate is tried with.
const ROLLS: u64 = 4;
/// So many words of a sentence say in which way a promise was broken.
const WORDS: usize = 16;

/// What a run was shrunk to.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest run that was found to fail in the same way.
    pub plan: Plan,
    /// What it said.
    pub report: Report,
    /// How many runs were tried.
    pub attempts: u64,
}

/// Shrinks a run that has broken a promise.
pub fn shrink(plan: &Plan, report: &Report) -> Shrunk {
    shrink_by(plan, report, &crate::run)
}

fn shrink_by(plan: &Plan, report: &Report, run: &dyn Fn(&Plan) -> Report) -> Shrunk {
    let wanted = likeness(report).expect("only what is broken can be shrunk");
    let shrunk = Shrunk { plan: plan.clone(), report: report.clone(), attempts: 0 };
    let mut search = Search { run, wanted, shrunk, attempts_max: ATTEMPTS_MAX };
    search.cut();
    loop {
        let before = search.shrunk.plan.clone();
        search.fewer_seconds();
        search.fewer_misfortunes();
        search.fewer_members();
        search.fewer_clients();
        if search.shrunk.plan == before || search.shrunk.attempts >= ATTEMPTS_MAX {
            break;
        }
    }
    search.attempts_max = search.shrunk.attempts + SINGLES_MAX;
    search.fewer_singles(|figures| figures.misfortunes, |plan| &mut plan.skip_faults);
    search.fewer_singles(|figures| figures.steps, |plan| &mut plan.skip_operations);
    search.cut();
    search.shrunk
}

struct Search<'r> {
    run: &'r dyn Fn(&Plan) -> Report,
    wanted: String,
    shrunk: Shrunk,
    attempts_max: u64,
}

impl Search<'_> {
    /// Whether this very run fails in the same way; if so, it is the one to go on with.
    fn attempt(&mut self, plan: Plan) -> bool {
        if self.shrunk.attempts >= self.attempts_max {
            return false;
        }
        self.shrunk.attempts += 1;
        let report = (self.run)(&plan);
        let fails = likeness(&report).as_ref() == Some(&self.wanted);
        if fails {
            self.shrunk.plan = plan;
            self.shrunk.report = report;
        }
        fails
    }

    /// The same, with other dice if need be; and then without the seconds after its failure.
    fn attempts(&mut self, plan: &Plan) -> bool {
        let rolls = [plan.roll].into_iter().chain((0..=ROLLS).filter(|roll| *roll != plan.roll));
        let found = rolls.into_iter().any(|roll| self.attempt(Plan { roll, ..plan.clone() }));
        if found {
            self.cut();
        }
        found
    }

    /// What comes after the failure is not needed: all before it stays as it was.
    fn cut(&mut self) {
        let seconds = self.shrunk.report.figures.simulated_us / 1_000_000 + 1;
        if seconds < self.shrunk.plan.seconds {
            self.attempt(Plan { seconds, ..self.shrunk.plan.clone() });
        }
    }

    fn fewer_seconds(&mut self) {
        loop {
            let seconds = self.shrunk.plan.seconds;
            let fewer = [seconds / 2, seconds * 3 / 4, seconds.saturating_sub(1)];
            let found = fewer
                .into_iter()
                .filter(|fewer| (1..seconds).contains(fewer))
                .any(|fewer| self.attempts(&Plan { seconds: fewer, ..self.shrunk.plan.clone() }));
            if !found {
                return;
            }
        }
    }

    fn fewer_misfortunes(&mut self) {
        for fault in self.shrunk.plan.scenario().faults {
            let mut plan = self.shrunk.plan.clone();
            plan.without.push(fault);
            self.attempts(&plan);
        }
    }

    fn fewer_members(&mut self) {
        let members = self.shrunk.plan.scenario().members;
        for fewer in [1, 2, 3, 5].into_iter().filter(|fewer| *fewer < members) {
            if self.attempts(&Plan { members: Some(fewer), ..self.shrunk.plan.clone() }) {
                return;
            }
        }
    }

    fn fewer_clients(&mut self) {
        let clients = self.shrunk.plan.scenario().clients;
        for fewer in [1, 2, 4].into_iter().filter(|fewer| *fewer < clients) {
            if self.attempts(&Plan { clients: Some(fewer), ..self.shrunk.plan.clone() }) {
                return;
            }
        }
    }

    /// Single ones of a kind are left out: whichever portions are not needed, the portions ever smaller.
    fn fewer_singles(
        &mut self,
        count: fn(&Figures) -> u64,
        skipped: fn(&mut Plan) -> &mut Numbers,
    ) {
        let mut plan = self.shrunk.plan.clone();
        let before = skipped(&mut plan).clone();
        let last = count(&self.shrunk.report.figures);
        let mut left: Vec<u64> = (1..=last).filter(|number| !before.contains(*number)).collect();
        let mut size = left.len();
        while size > 0 {
            let mut start = 0;
            while start < left.len() {
                let end = (start + size).min(left.len());
                let mut plan = self.shrunk.plan.clone();
                let numbers = skipped(&mut plan);
                *numbers = numbers.and(&left[start..end]);
                if self.attempt(plan) {
                    left.drain(start..end);
                    let last = count(&self.shrunk.report.figures);
                    left.retain(|number| *number <= last);
                } else {
                    start = end;
                }
            }
            size /= 2;
        }
    }
}

/// In which way a promise was broken: the sentence that says so, without what differs from run to run, which are numbers
/// and whatever stands in brackets or quotes. `None` if none was broken.
pub fn likeness(report: &Report) -> Option<String> {
    let Verdict::Broken { what, .. } = &report.verdict else { return None };
    let (mut plain, mut depth, mut quoted) = (String::new(), 0u32, false);
    for character in what.chars() {
        match character {
            '"' => quoted = !quoted,
            '(' | '[' | '{' if !quoted => depth += 1,
            ')' | ']' | '}' if !quoted => depth = depth.saturating_sub(1),
            _ if depth > 0 || quoted => {}
            other => plain.push(other),
        }
    }
    let words = plain.split_whitespace().take(WORDS).map(|word| {
        let has_number = word.contains(|character: char| character.is_ascii_digit());
        match has_number {
            // Of a place in the code the file stays.
            true if word.contains('/') => word.split(':').next().unwrap_or_default(),
            true => "#",
            false => word,
        }
    });
    Some(words.collect::<Vec<&str>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{FAULTS, Fault};

    fn report(broken: Option<String>, simulated_us: u64) -> Report {
        Report {
            seed: 1,
            members: 3,
            verdict: match broken {
                Some(what) => Verdict::Broken { what, last: Vec::new() },
                None => Verdict::Kept,
            },
            hash: 0,
            figures: Figures { simulated_us, ..Figures::default() },
            judgement: crate::Judgement::default(),
        }
    }

    #[test]
    fn numbers_brackets_and_quotes_do_not_make_another_failure() {
        let like = |what: &str| likeness(&report(Some(what.to_owned()), 0)).unwrap();
        assert_eq!(
            like("member 3 had index 17 of term 2 durable, and it is gone"),
            like("member 1 had index 9 of term 12 durable, and it is gone")
        );
        assert_eq!(
            like("the reply to index 5 is Ok(Some(\"x)\")), not [1]"),
            "the reply to index # is Ok, not"
        );
        assert_eq!(
            like("panic: panicked at crates/raft/src/log.rs:10:2: index 4 is gone"),
            "panic: panicked at crates/raft/src/log.rs index # is gone"
        );
        assert_ne!(like("member 1 votes"), like("member 1 had a vote"));
        assert_eq!(likeness(&report(None, 0)), None);
    }

    /// A failure that needs a power cut, three members and five seconds, shrinks to these; one of another kind that comes
    /// with small plans does not lead astray.
    #[test]
    fn all_goes_that_the_failure_does_not_need() {
        let seven = (1..)
            .map(|seed| Plan::new(seed, 60))
            .find(|plan| {
                let scenario = plan.scenario();
                scenario.members == 7 && scenario.faults.contains(&Fault::PowerCut)
            })
            .unwrap();
        let run = |plan: &Plan| {
            let scenario = plan.scenario();
            let needs = scenario.faults.contains(&Fault::PowerCut) && plan.seconds >= 5;
            let what = match (needs, scenario.members) {
                (true, 3..) => Some(format!("index {} is gone", plan.seconds)),
                (_, 1) => Some("nobody leads".to_owned()),
                _ => None,
            };
            report(what, plan.seconds * 1_000_000)
        };
        let shrunk = shrink_by(&seven, &run(&seven), &run);
        let scenario = shrunk.plan.scenario();
        assert_eq!(shrunk.plan.seconds, 5);
        assert_eq!(scenario.faults, [Fault::PowerCut]);
        assert_eq!((scenario.members, scenario.clients), (3, 1));
        assert!(shrunk.attempts <= ATTEMPTS_MAX);
        assert!(shrunk.plan.without.len() < FAULTS.len());
    }

    /// A failure that needs two of thirty misfortunes, and three of two hundred requests, keeps these alone.
    #[test]
    fn single_ones_go_that_the_failure_does_not_need() {
        let run = |plan: &Plan| {
            let happens = |skipped: &Numbers, needed: &[u64]| {
                needed.iter().all(|number| !skipped.contains(*number))
            };
            let fails = happens(&plan.skip_faults, &[5, 28])
                && happens(&plan.skip_operations, &[1, 99, 150]);
            let mut report = report(fails.then(|| "it is gone".to_owned()), 900_000);
            (report.figures.misfortunes, report.figures.steps) = (30, 200);
            report
        };
        let plan = Plan::new(1, 1);
        let shrunk = shrink_by(&plan, &run(&plan), &run).plan;
        assert_eq!(shrunk.skip_faults.to_string(), "1-4,6-27,29-30");
        assert_eq!(shrunk.skip_operations.to_string(), "2-98,100-149,151-200");
    }

    /// What fails only with other dice is found too, and the seconds behind its failure are cut off.
    #[test]
    fn other_dice_are_tried() {
        let run = |plan: &Plan| match (plan.seconds, plan.roll) {
            (60, 0) | (_, 3) => {
                report(Some("it is gone".to_owned()), 7_300_000.min(plan.seconds * 1_000_000 - 1))
            }
            _ => report(None, 0),
        };
        let plan = Plan::new(1, 60);
        let shrunk = shrink_by(&plan, &run(&plan), &run);
        assert_eq!((shrunk.plan.roll, shrunk.plan.seconds), (3, 1));
    }
}
