//! Which endpoint the next request goes to: round robin over those believed to be up.
//!
//! A plain machine without sockets or clock: the caller says what happened and what time it is. One
//! endpoint is in one of two states:
//!
//! ```text
//!            on_failure                    pick, once `until` has come
//!   Up ─────────────────▶ Resting{until} ─────────────────────────────▶ tried again
//!    ▲                                                                      │
//!    └───────────────────────────── on_success ◀────────────────────────────┘
//! ```
//!
//! A dead endpoint costs at most one failed dial per rest, and the rests grow to [`REST_MAX`]; a
//! client can therefore never hang on one dead endpoint while another one lives.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

/// The first rest of an endpoint that could not be reached; each further failure doubles it.
pub const REST_FIRST: Duration = Duration::from_millis(100);
/// The longest rest: a member that comes back is found again within this time.
pub const REST_MAX: Duration = Duration::from_secs(5);

const _: () = assert!(REST_FIRST.as_millis() < REST_MAX.as_millis());

/// Which endpoint to use, or how long none is worth a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// Use the endpoint with this number.
    Use(usize),
    /// All rest; ask again at this time.
    RestUntil(Duration),
}

#[derive(Debug, Clone, Copy, Default)]
struct Health {
    /// Failures since the last success; 0 means up.
    failures: u32,
    /// Not worth a try before this time; meaningful while `failures > 0`.
    until: Duration,
}

/// The round robin over `count` endpoints. Times are durations since any fixed moment.
#[derive(Debug, Clone)]
pub struct Balancer {
    endpoints: Vec<Health>,
    /// The endpoint that is looked at first by the next pick. Always below `endpoints.len()`.
    next: usize,
}

impl Balancer {
    /// A balancer over `count` endpoints, all believed to be up.
    ///
    /// # Panics
    /// If `count` is 0: a client without endpoints is refused before.
    pub fn new(count: usize) -> Balancer {
        assert!(count > 0, "a balancer needs an endpoint");
        Balancer { endpoints: vec![Health::default(); count], next: 0 }
    }

    /// Chooses the endpoint of the next request and moves on.
    pub fn pick(&mut self, now: Duration) -> Pick {
        let count = self.endpoints.len();
        for step in 0..count {
            let endpoint = (self.next + step) % count;
            let health = self.endpoints[endpoint];
            if health.failures == 0 || health.until <= now {
                self.next = (endpoint + 1) % count;
                return Pick::Use(endpoint);
            }
        }
        let soonest = self.endpoints.iter().map(|health| health.until).min();
        Pick::RestUntil(soonest.expect("there is at least one endpoint"))
    }

    /// The endpoint answered: whatever it said, it is there.
    pub fn on_success(&mut self, endpoint: usize) {
        self.endpoints[endpoint] = Health::default();
    }

    /// The endpoint could not be reached, or its connection broke.
    pub fn on_failure(&mut self, endpoint: usize, now: Duration) {
        let health = &mut self.endpoints[endpoint];
        let rest = REST_FIRST.saturating_mul(1 << health.failures.min(16)).min(REST_MAX);
        health.failures = health.failures.saturating_add(1);
        health.until = now + rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn requests_go_round() {
        let mut balancer = Balancer::new(3);
        let picks: Vec<_> = (0..5).map(|_| balancer.pick(ms(0))).collect();
        assert_eq!(picks, [0, 1, 2, 0, 1].map(Pick::Use));
    }

    #[test]
    fn a_failed_endpoint_rests_while_the_others_serve() {
        let mut balancer = Balancer::new(3);
        balancer.on_failure(1, ms(0));
        let picks: Vec<_> = (0..4).map(|_| balancer.pick(ms(50))).collect();
        assert_eq!(picks, [0, 2, 0, 2].map(Pick::Use));
        assert!((0..3).any(|_| balancer.pick(ms(100)) == Pick::Use(1)), "its rest is over");
    }

    #[test]
    fn when_all_rest_the_caller_learns_until_when() {
        let mut balancer = Balancer::new(2);
        balancer.on_failure(0, ms(30));
        balancer.on_failure(1, ms(0));
        assert_eq!(balancer.pick(ms(40)), Pick::RestUntil(ms(100)));
        assert_eq!(balancer.pick(ms(100)), Pick::Use(1));
    }

    #[test]
    fn rests_grow_to_a_bound_and_a_success_ends_them() {
        let mut balancer = Balancer::new(1);
        let mut rests = Vec::new();
        for _ in 0..40 {
            balancer.on_failure(0, ms(0));
            let Pick::RestUntil(until) = balancer.pick(ms(0)) else { panic!("it must rest") };
            rests.push(until);
        }
        assert_eq!(rests[..4], [ms(100), ms(200), ms(400), ms(800)]);
        assert_eq!(rests[39], REST_MAX);
        balancer.on_success(0);
        assert_eq!(balancer.pick(ms(0)), Pick::Use(0));
    }
}
