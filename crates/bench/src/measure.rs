//! One measurement: what must be there before, a warm-up, the load itself, and what the servers used meanwhile.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::load::{Load, Observer, Outcome};
use crate::record::{SLICE, Slice};
use crate::server::{Cluster, Reading};
use crate::workload::{Data, Needs, Workload};

/// Clients and connections that fill the keyspace.
const FILLERS: (usize, usize) = (256, 16);
/// After a load that wrote, servers have this long to write out what they still hold.
const SETTLE: Duration = Duration::from_millis(1200);

/// What a load showed, once. Latencies are milliseconds, costs are for each operation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    /// Operations that were answered well.
    pub operations: f64,
    /// From the start to the last answer.
    pub seconds: f64,
    /// Operations a second.
    pub rate: f64,
    /// The mean latency.
    pub mean_ms: f64,
    /// What half of them did not exceed.
    pub p50_ms: f64,
    /// What nine of ten did not exceed.
    pub p90_ms: f64,
    /// What 99 of 100 did not exceed.
    pub p99_ms: f64,
    /// What 999 of 1,000 did not exceed.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// Processor time of this generator, in microseconds.
    pub own_cpu_us: f64,
    /// Processor time of the servers, in microseconds.
    pub cpu_us: Option<f64>,
    /// The servers' resident memory after the load, in MiB.
    pub resident_mib: Option<f64>,
    /// The most that it ever was, in MiB.
    pub resident_max_mib: Option<f64>,
    /// Bytes that the servers sent to the disk.
    pub written_bytes: Option<f64>,
    /// Syncs of the servers' logs and stores.
    pub syncs: Option<f64>,
    /// Errors by code and text.
    pub errors: Vec<(String, u64)>,
    /// What happened in each tenth of a second.
    pub slices: Vec<Slice>,
}

/// A figure of a measurement, by name.
pub struct Figure {
    /// Its name in JSON.
    pub key: &'static str,
    /// Where it stands.
    pub value: fn(&Measured) -> Option<f64>,
    /// Where it is put when medians are taken.
    pub place: fn(&mut Measured) -> &mut f64,
}

macro_rules! figures {
    ($($name:ident),*; $($optional:ident),*) => {
        /// All figures.
        pub const FIGURES: &[Figure] = &[
            $(Figure {
                key: stringify!($name),
                value: |measured| Some(measured.$name),
                place: |measured| &mut measured.$name,
            },)*
            $(Figure {
                key: stringify!($optional),
                value: |measured| measured.$optional,
                place: |measured| measured.$optional.get_or_insert(0.0),
            },)*
        ];
    };
}
figures!(operations, seconds, rate, mean_ms, p50_ms, p90_ms, p99_ms, p999_ms, max_ms, own_cpu_us;
    cpu_us, resident_mib, resident_max_mib, written_bytes, syncs);

impl Measured {
    /// How many errors there were.
    pub fn failures(&self) -> u64 {
        self.errors.iter().map(|(_, count)| count).sum()
    }

    /// Figure by figure the median of several rounds, of which there is at least one; all errors; the time line of
    /// the round whose rate is the median.
    pub fn median(rounds: &[Measured]) -> Measured {
        let mut out = Measured::default();
        for figure in FIGURES {
            let values: Vec<f64> = rounds.iter().filter_map(figure.value).collect();
            if let Some(middle) = median(values) {
                *(figure.place)(&mut out) = middle;
            }
        }
        for (error, count) in rounds.iter().flat_map(|round| &round.errors) {
            match out.errors.iter_mut().find(|(known, _)| known == error) {
                Some((_, sum)) => *sum += count,
                None => out.errors.push((error.clone(), *count)),
            }
        }
        let off = |round: &&Measured| (round.rate - out.rate).abs();
        let nearest = rounds.iter().min_by(|one, other| off(one).total_cmp(&off(other)));
        out.slices = nearest.map(|round| round.slices.clone()).unwrap_or_default();
        out
    }

    fn of(outcome: &Outcome) -> Measured {
        let record = &outcome.record;
        let ms = |share| record.quantile_ns(share) / 1e6;
        let operations = record.operations as f64;
        let mut slices = record.slices.clone();
        // The last slice is not a whole one; it would look like a fall.
        if slices.len() > 1 && !outcome.elapsed.as_nanos().is_multiple_of(SLICE.as_nanos()) {
            slices.pop();
        }
        Measured {
            operations,
            seconds: outcome.elapsed.as_secs_f64(),
            rate: outcome.rate(),
            mean_ms: record.mean_ns() / 1e6,
            p50_ms: ms(0.5),
            p90_ms: ms(0.9),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
            max_ms: ms(1.0),
            own_cpu_us: outcome.own_cpu_ns as f64 / 1e3 / operations.max(1.0),
            errors: record.errors.iter().map(|(error, count)| (error.clone(), *count)).collect(),
            slices,
            ..Measured::default()
        }
    }
}

/// The one in the middle, or the mean of the two; none of none.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// Remembers what a cluster holds, so that it is not filled twice.
#[derive(Debug, Default)]
pub struct Filled {
    keys: Option<(u64, usize)>,
    first_lease: u64,
    leases: u64,
}

impl Filled {
    /// Makes what the load needs, and tells the load of it.
    ///
    /// # Errors
    /// The first error that filling met.
    pub fn prepare(&mut self, load: &mut Load, endpoints: &[SocketAddr]) -> Result<(), String> {
        match load.workload.needs() {
            Needs::Nothing => Ok(()),
            Needs::Keys => {
                let wanted = (load.data.key_space, load.data.value_bytes);
                // Keys that are deleted are others, and nothing of them is left.
                if load.data.doomed || self.keys != Some(wanted) {
                    let data = Data { sequential: true, ..load.data.clone() };
                    fill(load, Workload::Put, data, wanted.0, endpoints)?;
                }
                if !load.data.doomed {
                    self.keys = Some(wanted);
                }
                Ok(())
            }
            Needs::Leases => {
                if self.leases < load.data.leases {
                    // The cluster may hold leases of an earlier run; ids by the time of day are new.
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                    self.first_lease = (now.as_millis() as u64) << 20;
                    self.leases = load.data.leases;
                    let data = Data { first_lease: self.first_lease, ..load.data.clone() };
                    fill(load, Workload::LeaseGrant, data, self.leases, endpoints)?;
                }
                load.data.first_lease = self.first_lease;
                Ok(())
            }
        }
    }
}

/// Does the work so many times, as fast as it goes.
fn fill(
    like: &Load,
    workload: Workload,
    data: Data,
    total: u64,
    endpoints: &[SocketAddr],
) -> Result<(), String> {
    let (clients, connections) = FILLERS;
    let load = Load {
        workload,
        data,
        clients,
        connections,
        total: Some(total),
        duration: None,
        rate: None,
        threads: like.threads,
        bystanders: 0,
        stopped: 0,
    };
    let outcome = load.run(endpoints, "filling", &mut ());
    let failures = outcome.record.failures();
    match outcome.record.errors.first_key_value() {
        None => Ok(()),
        Some((error, _)) => Err(format!("filling with {workload}: {failures} errors, as: {error}")),
    }
}

/// Measures a load on a cluster that runs already, of which only the endpoints are known.
///
/// # Errors
/// If it could not be prepared.
pub fn from_outside(
    load: &Load,
    warm_up: Duration,
    filled: &mut Filled,
    endpoints: &[SocketAddr],
    progress: &str,
) -> Result<Measured, String> {
    let mut load = load.clone();
    filled.prepare(&mut load, endpoints)?;
    warm(&load, warm_up, endpoints);
    Ok(Measured::of(&load.run(endpoints, progress, &mut ())))
}

/// Measures a load on a cluster of ours, and what that used.
///
/// # Errors
/// If it could not be prepared.
pub fn inside(
    load: &Load,
    warm_up: Duration,
    filled: &mut Filled,
    cluster: &Cluster,
    endpoints: &[SocketAddr],
    progress: &str,
) -> Result<Measured, String> {
    struct Watch<'a> {
        cluster: &'a Cluster,
        before: Reading,
        after: Reading,
    }
    impl Observer for Watch<'_> {
        fn on_start(&mut self) {
            self.before = self.cluster.read(false);
        }
        fn on_end(&mut self) {
            self.after = self.cluster.read(true);
        }
    }
    let mut load = load.clone();
    filled.prepare(&mut load, endpoints)?;
    warm(&load, warm_up, endpoints);
    let mut watch = Watch { cluster, before: Reading::default(), after: Reading::default() };
    let outcome = load.run(endpoints, progress, &mut watch);
    let Watch { before, after, .. } = watch;
    let mut written = after.clone();
    if after.held.written_bytes > before.held.written_bytes {
        std::thread::sleep(SETTLE);
        written = cluster.read(false);
    }
    let mut measured = Measured::of(&outcome);
    let each = |whole: f64| Some(whole / measured.operations.max(1.0));
    let mib = |bytes: u64| Some(bytes as f64 / f64::from(1 << 20));
    let cpu_us = each(after.cpu_since(&before) as f64 / 1e3);
    let wrote = written.held.written_bytes.saturating_sub(before.held.written_bytes);
    let written_bytes = each(wrote as f64);
    let syncs = match (before.syncs, written.syncs) {
        (Some(before), Some(after)) => each(after - before),
        _ => None,
    };
    measured.cpu_us = cpu_us;
    measured.resident_mib = mib(after.held.resident_bytes);
    measured.resident_max_mib = mib(after.held.resident_max_bytes);
    measured.written_bytes = written_bytes;
    measured.syncs = syncs;
    Ok(measured)
}

/// The same load for a while; what it shows does not count. What can be done only once is not rehearsed.
fn warm(load: &Load, warm_up: Duration, endpoints: &[SocketAddr]) {
    if warm_up.is_zero() || load.workload == Workload::Delete {
        return;
    }
    let rehearsal = Load { total: None, duration: Some(warm_up), ..load.clone() };
    rehearsal.run(endpoints, "warming up", &mut ());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_taken_figure_by_figure() {
        let round = |rate: f64, p99_ms: f64, cpu_us: Option<f64>, errors: u64| Measured {
            rate,
            p99_ms,
            cpu_us,
            errors: vec![("e".to_owned(), errors)],
            slices: vec![Slice { operations: rate as u64, longest_ns: 0 }],
            ..Measured::default()
        };
        let rounds = [
            round(3.0, 9.0, Some(1.0), 1),
            round(1.0, 7.0, Some(5.0), 0),
            round(2.0, 8.0, None, 2),
        ];
        let median = Measured::median(&rounds);
        assert_eq!((median.rate, median.p99_ms, median.cpu_us), (2.0, 8.0, Some(3.0)));
        assert_eq!(median.failures(), 3);
        assert_eq!(median.slices[0].operations, 2);
        assert_eq!(median.syncs, None);
    }
}
