//! When to renew a lease, and when to give it up.
//!
//! A plain machine; times are durations since any fixed moment. The lease is renewed when a third of
//! its time has gone. It is given up when a member says that it is gone (a TTL of zero), or when its
//! whole time has passed without an answer: then it may have expired, whatever the members think.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

/// The wait before a new stream when one broke.
pub const RECONNECT: Duration = Duration::from_millis(500);

/// What to do now for the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send a keep-alive.
    Renew,
    /// Nothing before this time.
    WaitUntil(Duration),
    /// The lease is gone, or must be taken for gone.
    Expired,
}

/// One lease that is kept alive.
#[derive(Debug, Clone)]
pub struct KeepAlive {
    /// Renew at this time.
    renew_at: Duration,
    /// Without an answer until then the lease counts as gone. `None` once it is.
    deadline: Option<Duration>,
}

impl KeepAlive {
    /// A lease whose first answer must come within `patience` from now.
    pub fn new(now: Duration, patience: Duration) -> KeepAlive {
        KeepAlive { renew_at: now, deadline: Some(now + patience) }
    }

    /// What to do at this time. After [`Action::Renew`] the caller waits for the answer: it is asked
    /// for once per wait.
    pub fn poll(&mut self, now: Duration) -> Action {
        let Some(deadline) = self.deadline else { return Action::Expired };
        if now >= deadline {
            self.deadline = None;
            return Action::Expired;
        }
        if now < self.renew_at {
            return Action::WaitUntil(self.renew_at.min(deadline));
        }
        // An answer that does not come is asked for again, as often as a broken stream is.
        self.renew_at = now + RECONNECT;
        Action::Renew
    }

    /// A member answered with this TTL in seconds; zero or less: there is no such lease.
    pub fn on_response(&mut self, ttl_seconds: i64, now: Duration) {
        match u64::try_from(ttl_seconds) {
            Ok(ttl) if ttl > 0 && self.deadline.is_some() => {
                let ttl = Duration::from_secs(ttl);
                self.renew_at = now + ttl / 3;
                self.deadline = Some(now.saturating_add(ttl));
            }
            _ => self.deadline = None,
        }
    }

    /// The stream broke: an answer on its way is lost, so ask again soon.
    pub fn on_broken(&mut self, now: Duration) {
        self.renew_at = now + RECONNECT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_is_renewed_after_a_third_of_its_time() {
        let mut lease = KeepAlive::new(s(0), s(3));
        assert_eq!(lease.poll(s(0)), Action::Renew);
        lease.on_response(30, s(0));
        assert_eq!(lease.poll(s(9)), Action::WaitUntil(s(10)));
        assert_eq!(lease.poll(s(10)), Action::Renew);
    }

    #[test]
    fn a_lease_that_members_do_not_know_is_gone() {
        let mut lease = KeepAlive::new(s(0), s(3));
        lease.poll(s(0));
        lease.on_response(0, s(1));
        assert_eq!(lease.poll(s(1)), Action::Expired);
        lease.on_response(30, s(1));
        assert_eq!(lease.poll(s(1)), Action::Expired, "what is gone does not come back");
    }

    #[test]
    fn without_an_answer_it_is_given_up_when_its_time_is_over() {
        let mut lease = KeepAlive::new(s(0), s(3));
        lease.poll(s(0));
        lease.on_response(6, s(0));
        assert_eq!(lease.poll(s(2)), Action::Renew);
        lease.on_broken(s(2));
        assert_eq!(lease.poll(s(2)), Action::WaitUntil(s(2) + RECONNECT));
        assert_eq!(lease.poll(s(5)), Action::Renew);
        assert_eq!(lease.poll(s(6)), Action::Expired);
    }
}
