//! The slowest requests of the last minutes, always kept.
//!
//! The minute that runs has a bar: how slow a request must be to belong to its sixteen slowest. So almost every
//! request pays a comparison, and few pay more.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use proto::quorate::v1::Record;

/// How many requests are kept of each minute.
const SLOWEST_PER_MINUTE: usize = 16;
/// How many minutes are kept, with the one that runs.
const MINUTES: u64 = 10;
const MINUTE_US: u64 = 60_000_000;
/// Of the bar, the bits that tell how slow; the others tell the minute.
const TOOK_BITS: u32 = 40;
const TOOK_MAX: u64 = (1 << TOOK_BITS) - 1;

/// The slowest requests that were made to this member. Shards add to it.
#[derive(Default)]
pub struct Slow {
    /// `minute << TOOK_BITS | took`: slower ones of that minute are kept, and any of another minute.
    bar: AtomicU64,
    /// Oldest first. A std lock, held for one insertion or one copy.
    minutes: Mutex<VecDeque<Minute>>,
}

#[derive(Default)]
struct Minute {
    number: u64,
    /// The slowest first.
    records: Vec<Record>,
}

impl Slow {
    /// Whether a request that ends now, by `Stages::now_us`, belongs here.
    pub fn is_slow(&self, now_us: u64, took_us: u64) -> bool {
        let bar = self.bar.load(Relaxed);
        bar >> TOOK_BITS != minute(now_us) || took_us.min(TOOK_MAX) > bar & TOOK_MAX
    }

    /// Keeps a record of a request that ended at `now_us`.
    pub fn add(&self, now_us: u64, record: Record) {
        let number = minute(now_us);
        let mut minutes = self.minutes.lock().unwrap_or_else(PoisonError::into_inner);
        // Another shard may have begun the next minute in between.
        if minutes.back().is_none_or(|last| last.number < number) {
            minutes.push_back(Minute { number, records: Vec::new() });
        }
        forget_old(&mut minutes, number);
        let Some(minute) = minutes.iter_mut().find(|minute| minute.number == number) else {
            return;
        };
        let place = minute.records.partition_point(|kept| kept.took_us >= record.took_us);
        minute.records.insert(place, record);
        minute.records.truncate(SLOWEST_PER_MINUTE);
        let is_full = minute.records.len() == SLOWEST_PER_MINUTE;
        let least = minute.records.last().map_or(0, |least| least.took_us.min(TOOK_MAX));
        if minutes.back().is_some_and(|last| last.number == number) {
            self.bar.store(number << TOOK_BITS | if is_full { least } else { 0 }, Relaxed);
        }
    }

    /// What is kept at `now_us`, the slowest first.
    pub fn records(&self, now_us: u64) -> Vec<Record> {
        let mut minutes = self.minutes.lock().unwrap_or_else(PoisonError::into_inner);
        forget_old(&mut minutes, minute(now_us));
        let mut records: Vec<Record> =
            minutes.iter().flat_map(|minute| minute.records.iter().cloned()).collect();
        drop(minutes);
        records.sort_by_key(|record| std::cmp::Reverse(record.took_us));
        records
    }
}

/// The number of a minute; from 1 on, so that a bar of 0 is no minute's.
fn minute(now_us: u64) -> u64 {
    now_us / MINUTE_US + 1
}

fn forget_old(minutes: &mut VecDeque<Minute>, now: u64) {
    while minutes.front().is_some_and(|minute| minute.number + MINUTES <= now) {
        minutes.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request ends: was it kept?
    fn end(slow: &Slow, now_us: u64, took_us: u64) -> bool {
        let is_slow = slow.is_slow(now_us, took_us);
        if is_slow {
            slow.add(now_us, Record { took_us, ..Record::default() });
        }
        is_slow
    }

    #[test]
    fn the_slowest_of_a_minute_are_kept_and_the_others_pay_a_comparison() {
        let slow = Slow::default();
        for took_us in 1..=16 {
            assert!(end(&slow, 5, took_us));
        }
        assert!(!end(&slow, 6, 1), "not slower than the least");
        assert!(end(&slow, 6, 40));
        assert!(!end(&slow, 7, 2), "it has raised the bar");
        let kept: Vec<u64> = slow.records(8).iter().map(|record| record.took_us).collect();
        let wanted: Vec<u64> = std::iter::once(40).chain((2..=16).rev()).collect();
        assert_eq!(kept, wanted);
    }

    #[test]
    fn each_minute_has_its_own_and_old_ones_go() {
        let slow = Slow::default();
        for took_us in 100..120 {
            end(&slow, 0, took_us);
        }
        assert!(end(&slow, MINUTE_US, 3), "the first of its minute");
        assert_eq!(slow.records(MINUTE_US).len(), 17);
        // It began in the first minute, and is kept there as long as that one is; but it does not lower the new bar.
        for took_us in 200..216 {
            assert!(end(&slow, MINUTE_US, took_us));
        }
        assert!(!end(&slow, MINUTE_US, 150));
        assert_eq!(slow.records(MINUTES * MINUTE_US).len(), 16, "the first minute is gone");
        assert_eq!(slow.records(3 * MINUTES * MINUTE_US).len(), 0);
    }
}
