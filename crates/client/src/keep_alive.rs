//! When to renew a lease, and when to give it up.
//!
//! A plain machine; times are durations since any fixed moment. The lease is renewed when a third of
//! its time has gone. It is given up when a member says that it is gone (a TTL of zero), or when its
//! whole time has passed without an answer: then it may have expired, whatever the members think.
//! Before that another member is asked: the one that does not answer may be cut off from the rest.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

/// The wait before a new stream when one broke.
pub const RECONNECT: Duration = Duration::from_millis(500);
/// Keep-alives without an answer after which the member is left for another. Each time that this does
/// not help either it doubles, for it may be that all are slow and none is cut off.
pub const SILENT_AFTER: u32 = 2;

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
    /// Keep-alives sent to the present member since it last answered.
    unanswered: u32,
    /// How many of them it may leave so.
    silent_after: u32,
}

impl KeepAlive {
    /// A lease whose first answer must come within `patience` from now.
    pub fn new(now: Duration, patience: Duration) -> KeepAlive {
        KeepAlive {
            renew_at: now,
            deadline: Some(now + patience),
            unanswered: 0,
            silent_after: SILENT_AFTER,
        }
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
        self.unanswered = self.unanswered.saturating_add(1);
        Action::Renew
    }

    /// Asked after [`Action::Renew`]: whether another member should be asked this time. If so, the next
    /// one has longer.
    pub fn leave_silent(&mut self) -> bool {
        if self.unanswered <= self.silent_after {
            return false;
        }
        self.unanswered = 1;
        self.silent_after = self.silent_after.saturating_mul(2);
        true
    }

    /// A member answered with this TTL in seconds; zero or less: there is no such lease.
    pub fn on_response(&mut self, ttl_seconds: i64, now: Duration) {
        (self.unanswered, self.silent_after) = (0, SILENT_AFTER);
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
        self.unanswered = 0;
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
    fn a_member_that_does_not_answer_is_left_before_the_lease_expires() {
        let mut lease = KeepAlive::new(s(0), s(3));
        lease.poll(s(0));
        lease.on_response(6, s(0));
        let asked = |lease: &mut KeepAlive, times: u32, from: Duration| {
            (0..times).map(|n| from + RECONNECT * n).find(|now| {
                assert_eq!(lease.poll(*now), Action::Renew);
                lease.leave_silent()
            })
        };
        // A third of six seconds, and then two that stay without an answer.
        assert_eq!(asked(&mut lease, 3, s(2)), Some(s(3)));
        // The next member has longer, and one that answers has its due again.
        assert_eq!(asked(&mut lease, 3, s(3) + RECONNECT), None);
        lease.on_response(6, s(5));
        assert_eq!(asked(&mut lease, 3, s(7)), Some(s(8)));
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
