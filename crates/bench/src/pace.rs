//! When requests are to start: as soon as the last one was answered, or at a given rate whatever the server does.

/// The rate of one connection among several that share a load.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Operations a second, of all connections together.
    rate: f64,
    /// The number of the next operation among all; it goes up by `stride`, so that connections take turns.
    next: u64,
    stride: u64,
}

impl Pace {
    /// The pace of connection `place` of `of`. The rate is above 0.
    pub fn new(rate: f64, place: u64, of: u64) -> Pace {
        Pace { rate, next: place, stride: of }
    }

    /// When the next operation is due, in nanoseconds since the start of the load.
    pub fn due(&self) -> u64 {
        (self.next as f64 / self.rate * 1e9) as u64
    }

    /// The operation that was due has been started.
    pub fn advance(&mut self) {
        self.next += self.stride;
    }

    /// How many operations are due before `end` and were not started.
    pub fn missed(&self, end: u64) -> u64 {
        let due = (end as f64 / 1e9 * self.rate).ceil() as u64;
        due.saturating_sub(self.next).div_ceil(self.stride)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_take_turns_at_even_distances() {
        let mut due: Vec<u64> = (0..4)
            .flat_map(|place| {
                let mut pace = Pace::new(1000.0, place, 4);
                (0..25).map(move |_| {
                    let due = pace.due();
                    pace.advance();
                    due
                })
            })
            .collect();
        due.sort_unstable();
        let wanted: Vec<u64> = (0..100).map(|number| number * 1_000_000).collect();
        assert_eq!(due, wanted);
    }

    #[test]
    fn what_was_due_and_never_sent_is_known() {
        let second = 1_000_000_000;
        let missed: u64 = (0..3).map(|place| Pace::new(100.0, place, 3).missed(second)).sum();
        assert_eq!(missed, 100);
        let mut pace = Pace::new(100.0, 0, 1);
        pace.advance();
        assert_eq!(pace.missed(second), 99);
        assert_eq!(pace.missed(0), 0);
    }
}
