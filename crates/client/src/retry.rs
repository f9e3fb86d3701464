//! Whether a failed request may be sent again.
//!
//! The promise: a request that changes something is applied at most once. So it is sent again only
//! while it certainly never left this process; once its bytes may have reached a member, its fate is
//! unknown and the caller is told so. Requests that change nothing, or that may be applied twice
//! without harm, are repeated as long as members answer that they cannot serve just now.
//!
//! A plain machine: no clock, no sockets. Which methods are repeatable, and the waits between the
//! tries, follow etcd's Go client.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use crate::error::Code;

/// What a second application of the same request would mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Nothing: reads, and the lease calls that clients have always repeated.
    Repeatable,
    /// Something: puts, deletes, transactions, compactions.
    AtMostOnce,
}

/// How one try ended, if not with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure<'a> {
    /// No connection: the request never left.
    NotSent,
    /// A status, from the member or from the broken connection; the request may have been applied.
    Status {
        /// The gRPC code.
        code: Code,
        /// The text that came with it.
        message: &'a str,
    },
}

/// What to do after a failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it again, at the next endpoint, after this wait.
    Again(Duration),
    /// Hand the error to the caller.
    GiveUp,
}

/// The most tries of one request that members have answered.
pub const TRIES_MAX: u32 = 100;
/// The wait after each round of tries at a majority of the endpoints.
pub const WAIT: Duration = Duration::from_millis(25);

/// A learner refuses what only voters serve; with several endpoints the next one may be a voter.
const LEARNER_REFUSES: &str = "etcdserver: rpc not supported for learner";

/// The tries of one request.
#[derive(Debug, Clone)]
pub struct Retry {
    policy: Policy,
    endpoints: u32,
    /// Tries that left this process. Never above [`TRIES_MAX`].
    tries: u32,
}

impl Retry {
    /// The tries of one request at a client of so many endpoints.
    pub fn new(policy: Policy, endpoints: usize) -> Retry {
        assert!(endpoints > 0, "a request needs an endpoint");
        Retry { policy, endpoints: u32::try_from(endpoints).unwrap_or(u32::MAX), tries: 0 }
    }

    /// How many tries have left this process and failed.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// A try failed: may there be another?
    pub fn on_failure(&mut self, failure: Failure<'_>) -> Verdict {
        let again = match failure {
            // The balancer paces what cannot be sent, and the caller's deadline ends it.
            Failure::NotSent => return Verdict::Again(Duration::ZERO),
            // The refusal is made before anything is proposed, so also a write may go on to a voter.
            Failure::Status { message: LEARNER_REFUSES, .. } => self.endpoints > 1,
            Failure::Status { code, .. } => {
                self.policy == Policy::Repeatable && code == Code::Unavailable
            }
        };
        self.tries += 1;
        if !again || self.tries >= TRIES_MAX {
            return Verdict::GiveUp;
        }
        let majority = self.endpoints / 2 + 1;
        Verdict::Again(if self.tries.is_multiple_of(majority) { WAIT } else { Duration::ZERO })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNAVAILABLE: Failure<'_> =
        Failure::Status { code: Code::Unavailable, message: "etcdserver: leader changed" };

    #[test]
    fn a_read_is_repeated_while_members_are_unavailable() {
        let mut retry = Retry::new(Policy::Repeatable, 3);
        assert_eq!(retry.on_failure(UNAVAILABLE), Verdict::Again(Duration::ZERO));
        assert_eq!(retry.on_failure(UNAVAILABLE), Verdict::Again(WAIT), "a majority was asked");
        for _ in 2..TRIES_MAX - 1 {
            assert!(matches!(retry.on_failure(UNAVAILABLE), Verdict::Again(_)));
        }
        assert_eq!(retry.on_failure(UNAVAILABLE), Verdict::GiveUp);
        assert_eq!(retry.tries(), TRIES_MAX);
    }

    #[test]
    fn a_write_of_unknown_fate_is_never_repeated() {
        for code in [Code::Unavailable, Code::Unknown, Code::DeadlineExceeded, Code::Cancelled] {
            let mut retry = Retry::new(Policy::AtMostOnce, 3);
            let failure = Failure::Status { code, message: "connection reset" };
            assert_eq!(retry.on_failure(failure), Verdict::GiveUp, "{code:?}");
        }
    }

    #[test]
    fn what_never_left_is_sent_again_also_a_write() {
        let mut retry = Retry::new(Policy::AtMostOnce, 1);
        for _ in 0..2 * TRIES_MAX {
            assert_eq!(retry.on_failure(Failure::NotSent), Verdict::Again(Duration::ZERO));
        }
        assert_eq!(retry.tries(), 0);
    }

    #[test]
    fn a_refusal_by_the_server_is_final() {
        let mut retry = Retry::new(Policy::Repeatable, 3);
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        let failure = Failure::Status { code: Code::OutOfRange, message: compacted };
        assert_eq!(retry.on_failure(failure), Verdict::GiveUp);
    }

    #[test]
    fn a_learner_sends_the_request_on_to_the_next_endpoint() {
        let failure = Failure::Status { code: Code::FailedPrecondition, message: LEARNER_REFUSES };
        assert!(matches!(Retry::new(Policy::AtMostOnce, 2).on_failure(failure), Verdict::Again(_)));
        assert_eq!(Retry::new(Policy::Repeatable, 1).on_failure(failure), Verdict::GiveUp);
    }
}
