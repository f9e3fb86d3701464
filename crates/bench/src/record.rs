//! What is noted while a load runs: latencies, throughput over time, and errors by kind.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest latency that is told apart from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(600);
/// Latencies are kept to one part in a thousand.
const SIGNIFICANT_DIGITS: u8 = 3;
/// The length of a piece of the time line.
pub const SLICE: Duration = Duration::from_millis(100);
/// Pieces of the time line that are kept: an hour. What comes later counts into the last.
const SLICES_MAX: usize = 36_000;
/// Kinds of errors that are told apart; what comes later counts as "other errors".
const ERROR_KINDS_MAX: usize = 32;
/// Bytes of an error's text that are kept.
const ERROR_TEXT_BYTES_MAX: usize = 160;

/// What happened in one [`SLICE`] of the time line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slice {
    /// Operations that were completed in it.
    pub operations: u64,
    /// The longest latency of those, in nanoseconds.
    pub longest_ns: u64,
}

/// The notes of one generator thread, or of all of them once they are joined.
#[derive(Debug, Clone)]
pub struct Record {
    /// Nanoseconds from the *intended* start of each operation to its answer.
    latencies: Histogram<u64>,
    /// By time since the start of the load.
    pub slices: Vec<Slice>,
    /// How often each error was seen, by its code and text.
    pub errors: BTreeMap<String, u64>,
    /// Operations answered well.
    pub operations: u64,
    /// Their latencies added up, in nanoseconds.
    total_ns: u128,
    /// When the last one was answered, in nanoseconds since the start of the load.
    pub last_ns: u64,
}

impl Default for Record {
    fn default() -> Record {
        let latencies =
            Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, SIGNIFICANT_DIGITS);
        Record {
            latencies: latencies.expect("the bounds are in order"),
            slices: Vec::new(),
            errors: BTreeMap::new(),
            operations: 0,
            total_ns: 0,
            last_ns: 0,
        }
    }
}

impl Record {
    /// Notes `operations` that were to start at `intended` and were answered at `now`; both count from the start
    /// of the load.
    ///
    /// In a closed loop a request is intended when it is sent. In an open one (`--rate`) it is intended when the
    /// rate says so: a server that stops for a second is then blamed for all that should have been asked in that
    /// second, not for the few requests that were under way. That is what is called corrected for coordinated
    /// omission.
    pub fn answered(&mut self, intended: u64, now: u64, operations: u64) {
        let latency = now.saturating_sub(intended).max(1);
        self.latencies.saturating_record_n(latency, operations);
        self.total_ns += u128::from(latency) * u128::from(operations);
        self.operations += operations;
        self.last_ns = self.last_ns.max(now);
        let place = ((now / SLICE.as_nanos() as u64) as usize).min(SLICES_MAX - 1);
        if place >= self.slices.len() {
            self.slices.resize(place + 1, Slice::default());
        }
        self.slices[place].operations += operations;
        self.slices[place].longest_ns = self.slices[place].longest_ns.max(latency);
    }

    /// Notes an error `count` times.
    pub fn failed(&mut self, what: &str, count: u64) {
        if count == 0 {
            return;
        }
        let mut end = what.len().min(ERROR_TEXT_BYTES_MAX);
        while !what.is_char_boundary(end) {
            end -= 1;
        }
        let what = &what[..end];
        if let Some(seen) = self.errors.get_mut(what) {
            *seen += count;
        } else {
            let full = self.errors.len() >= ERROR_KINDS_MAX;
            let kind = if full { "other errors" } else { what };
            *self.errors.entry(kind.to_owned()).or_default() += count;
        }
    }

    /// Adds the notes of another thread.
    pub fn join(&mut self, other: &Record) {
        self.latencies.add(&other.latencies).expect("all histograms have the same bounds");
        self.operations += other.operations;
        self.total_ns += other.total_ns;
        self.last_ns = self.last_ns.max(other.last_ns);
        if self.slices.len() < other.slices.len() {
            self.slices.resize(other.slices.len(), Slice::default());
        }
        for (slice, other) in self.slices.iter_mut().zip(&other.slices) {
            slice.operations += other.operations;
            slice.longest_ns = slice.longest_ns.max(other.longest_ns);
        }
        for (what, count) in &other.errors {
            self.failed(what, *count);
        }
    }

    /// How many errors there were.
    pub fn failures(&self) -> u64 {
        self.errors.values().sum()
    }

    /// The latency that this share of the operations did not exceed, in nanoseconds. 0 if there were none.
    pub fn quantile_ns(&self, share: f64) -> f64 {
        self.latencies.value_at_quantile(share) as f64
    }

    /// The mean latency in nanoseconds; of the latencies themselves, not of the histogram's steps.
    pub fn mean_ns(&self) -> f64 {
        match self.operations {
            0 => 0.0,
            operations => self.total_ns as f64 / operations as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A server that answers in 1 ms and stands still once, for a second, asked a thousand times a second.
    /// The closed loop sees one slow request; the open loop sees what its users would.
    #[test]
    fn a_stall_weighs_as_much_as_the_requests_that_it_held_up() {
        let (mut closed, mut open) = (Record::default(), Record::default());
        let answered_at = |asked: u64| match asked {
            1000..2000 => 2000 + 1,
            _ => asked + 1,
        };
        let mut now = 0;
        while now < 10_000 {
            let answered = answered_at(now);
            closed.answered(now * MS, answered * MS, 1);
            now = answered;
        }
        for intended in 0..10_000 {
            open.answered(intended * MS, answered_at(intended) * MS, 1);
        }
        let ms = |record: &Record, share| (record.quantile_ns(share) / 1e6).round() as u64;
        assert_eq!([0.5, 0.99, 0.999].map(|share| ms(&closed, share)), [1, 1, 1]);
        assert_eq!([0.5, 0.99, 0.999].map(|share| ms(&open, share)), [1, 901, 991]);
        assert_eq!(ms(&open, 1.0), 1001);
    }

    #[test]
    fn two_threads_notes_are_one() {
        let (mut one, mut other) = (Record::default(), Record::default());
        one.answered(0, 150 * MS, 1);
        other.answered(100 * MS, 130 * MS, 2);
        other.answered(100 * MS, 420 * MS, 1);
        one.failed("Unavailable: gone", 1);
        other.failed("Unavailable: gone", 2);
        one.join(&other);
        assert_eq!((one.operations, one.failures(), one.last_ns), (4, 3, 420 * MS));
        let slices: Vec<u64> = one.slices.iter().map(|slice| slice.operations).collect();
        assert_eq!(slices, [0, 3, 0, 0, 1]);
        assert_eq!(one.slices[1].longest_ns, 150 * MS);
        assert_eq!(one.mean_ns(), (150 + 30 + 30 + 320) as f64 / 4.0 * MS as f64);
    }

    #[test]
    fn errors_are_bounded_in_kind_and_length() {
        let mut record = Record::default();
        for i in 0..1000 {
            record.failed(&format!("error {i}"), 1);
        }
        record.failed(&"ä".repeat(500), 1);
        assert_eq!(record.failures(), 1001);
        assert!(record.errors.len() <= ERROR_KINDS_MAX + 1);
        let mut record = Record::default();
        record.failed(&"ä".repeat(500), 1);
        assert!(record.errors.keys().all(|text| text.len() <= ERROR_TEXT_BYTES_MAX));
    }

    #[test]
    fn what_nobody_answered_has_no_latency() {
        let record = Record::default();
        assert_eq!((record.mean_ns(), record.quantile_ns(0.5)), (0.0, 0.0));
    }
}
