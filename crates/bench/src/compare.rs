//! Servers side by side: each is started afresh in every round, and the order changes from round to round.
//!
//! A machine is not the same for long: its disk fills, its neighbours come and go. What is compared has to be
//! measured close together and by turns; a figure of this morning beside one of tonight says nothing.

use std::path::PathBuf;
use std::time::Duration;

use crate::flags::{Flags, Target};
use crate::load::Load;
use crate::measure::{Filled, inside};
use crate::report::Series;
use crate::server::{Binary, Cluster};
use crate::workload::{What, Workload};

/// One thing to measure on every server.
#[derive(Debug, Clone)]
pub struct Job {
    /// What it is called.
    pub title: String,
    /// The load.
    pub load: Load,
    /// Members of the cluster.
    pub members: usize,
    /// Which of them are asked.
    pub target: Target,
}

impl Job {
    /// How it is measured, in words.
    pub fn how(&self) -> String {
        let Load { clients, connections, data, rate, .. } = &self.load;
        let mut out =
            format!("{clients} clients on {connections} connections, {} bytes", data.value_bytes);
        if let Some(rate) = rate {
            out.push_str(&format!(", {rate} a second"));
        }
        if self.members > 1 {
            let target = match self.target {
                Target::Leader => "the leader is asked",
                Target::Follower => "a follower is asked",
                Target::All => "all are asked",
            };
            out.push_str(&format!(", {} members, {target}", self.members));
        }
        out
    }

    /// Whether a server that answers puts and ranges with a constant can take part.
    fn suits_limit(&self) -> bool {
        let plain = match self.load.workload {
            Workload::Put => true,
            Workload::Range { keys, what, .. } => keys == 1 && what == What::Values,
            _ => false,
        };
        plain && self.members == 1
    }
}

/// The servers, and how they are run.
pub struct Contest {
    /// Which.
    pub servers: Vec<Binary>,
    /// How often.
    pub rounds: usize,
    /// How long each load runs before it counts.
    pub warm_up: Duration,
    /// Where their directories are made.
    pub data_parent: Option<PathBuf>,
}

impl Contest {
    /// As the flags say.
    pub fn new(flags: &Flags) -> Contest {
        Contest {
            servers: flags.servers.clone(),
            rounds: flags.rounds as usize,
            warm_up: flags.warm_up(),
            data_parent: flags.data_parent.clone(),
        }
    }

    /// The servers of a round, in its order: each comes first once in so many rounds.
    pub fn order(&self, round: usize) -> Vec<&Binary> {
        let mut order: Vec<&Binary> = self.servers.iter().collect();
        let first = round % order.len().max(1);
        order.rotate_left(first);
        order
    }

    /// Measures all jobs on all servers. The series of a job stand together, in the servers' order. A server that
    /// cannot do a job (the limit can do few) has no series of it.
    ///
    /// # Errors
    /// If a server does not start, or cannot be filled.
    pub fn run(&self, jobs: &[Job]) -> Result<Vec<Series>, String> {
        let series = |job: &Job, binary: &Binary| Series {
            server: binary.name.clone(),
            title: job.title.clone(),
            how: job.how(),
            rounds: Vec::new(),
        };
        let mut all: Vec<Vec<Series>> = jobs
            .iter()
            .map(|job| self.servers.iter().map(|binary| series(job, binary)).collect())
            .collect();
        let mut sizes: Vec<usize> = jobs.iter().map(|job| job.members).collect();
        sizes.sort_unstable();
        sizes.dedup();
        for round in 0..self.rounds {
            for members in &sizes {
                for binary in self.order(round) {
                    self.one(round, *members, binary, jobs, &mut all)?;
                }
            }
        }
        Ok(all.into_iter().flatten().filter(|series| !series.rounds.is_empty()).collect())
    }

    /// One server, once, with all jobs for a cluster of this size.
    fn one(
        &self,
        round: usize,
        members: usize,
        binary: &Binary,
        jobs: &[Job],
        all: &mut [Vec<Series>],
    ) -> Result<(), String> {
        let suits = |job: &Job| job.members == members && (!binary.limit || job.suits_limit());
        if !jobs.iter().any(suits) {
            return Ok(());
        }
        let named = |error: String| format!("{}: {error}", binary.name);
        let cluster =
            Cluster::start(binary, members, self.data_parent.as_deref()).map_err(named)?;
        let mut filled = Filled::default();
        for (job, series) in jobs.iter().zip(all) {
            if !suits(job) {
                continue;
            }
            let endpoints = cluster.endpoints(job.target).map_err(named)?;
            let progress =
                format!("round {}/{} {} {}", round + 1, self.rounds, binary.name, job.title);
            let measured =
                inside(&job.load, self.warm_up, &mut filled, &cluster, &endpoints, &progress);
            let measured = measured.map_err(named)?;
            if let Some(series) = series.iter_mut().find(|series| series.server == binary.name) {
                series.rounds.push(measured);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_comes_first_as_often_as_the_others() {
        let servers = ["a", "b", "c"].map(|name| format!("{name}=x").parse().unwrap());
        let contest = Contest {
            servers: servers.to_vec(),
            rounds: 3,
            warm_up: Duration::ZERO,
            data_parent: None,
        };
        let names = |round| contest.order(round).iter().map(|b| b.name.clone()).collect::<String>();
        assert_eq!([0, 1, 2, 3].map(names), ["abc", "bca", "cab", "abc"]);
    }
}
