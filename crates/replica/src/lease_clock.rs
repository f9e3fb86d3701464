//! The lease clock: when a lease's time is over, as the leader of one term sees it.
//!
//! The state machine knows which leases exist; when they end is known here, in ticks, and only while this member
//! leads. Deadlines are not replicated. So a new leader gives every lease its whole time again (or what a checkpoint
//! left of it), and an election timeout on top for the time in which nobody could renew.
//!
//! ```text
//!            leads, and has applied an entry of its term            three ticks or more at once
//!   Stopped ─────────────────────────────────────────────▶ Running ───────────────────────────▶ Doubtful
//!      ▲                                                    │   ▲                                 │
//!      └────────────────── ceases to lead ──────────────────┘   └──── a quorum confirmed it ──────┘
//! ```
//!
//! - A revoke for expiry is appended by the leader in whose term the clock ran, or by nobody. It is never forwarded:
//!   an old leader that slept through its lease's end, and awakes as a follower, must not end what clients have kept
//!   alive at the new one.
//! - Doubtful answers nobody and ends nothing: the pause may have been long enough for another leader.
//! - A keep-alive waits until what was committed when it came is applied. A grant or a revoke that its client has
//!   heard of is therefore known here before the keep-alive is answered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mutant::Mutant;
use raft::{Index, NONE, NodeId, Term};
use state_machine::{LeaseChange, LeaseInfo};

use crate::input::{LeaseAsk, LeaseQuestion};
use crate::output::{LeaseAnswer, LeaseRefusal, LeaseTime};

/// From so many ticks at once the clock doubts whether it still leads.
pub(crate) const GAP_TICKS: u32 = 3;
/// A revoke that has not been applied after so long is appended again.
const REVOKE_RETRY_MS: u64 = 3_000;
/// How long a question may wait for apply.
const APPLY_WAIT_MS: u64 = 1_000;

#[derive(Debug)]
struct Lease {
    ttl: i64,
    // What a checkpoint left of the TTL in seconds; 0 if there was none since the last renewal.
    remaining: i64,
    // Meaningful while the clock runs.
    deadline: u64,
    revoking_since: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Stopped,
    Running(Term),
    Doubtful(Term),
}

#[derive(Debug)]
struct Waiting {
    ask: LeaseAsk,
    applied_needed: Index,
    until_tick: u64,
}

/// Deadlines of all leases, and the questions about them.
#[derive(Debug)]
pub(crate) struct LeaseClock {
    tick_ms: u64,
    election_ticks: u64,
    revokes_per_second: u64,
    waits_max: usize,
    now: u64,
    state: State,
    leases: BTreeMap<i64, Lease>,
    deadlines: BTreeSet<(u64, i64)>,
    // Leases whose revoke was appended, by when; looked at for a second attempt.
    revoking: BTreeSet<(u64, i64)>,
    waiting: VecDeque<Waiting>,
    // A thousandth of a revoke each.
    credit: u64,
    // Leases whose checkpoint a renewal has made wrong.
    renewed: Vec<i64>,
}

impl LeaseClock {
    pub(crate) fn new(
        tick_ms: u64,
        election_ticks: u32,
        revokes_per_second: u32,
        waits_max: usize,
        leases: Vec<LeaseInfo>,
    ) -> LeaseClock {
        let mut clock = LeaseClock {
            tick_ms,
            election_ticks: u64::from(election_ticks),
            revokes_per_second: u64::from(revokes_per_second),
            waits_max,
            now: 0,
            state: State::Stopped,
            leases: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            revoking: BTreeSet::new(),
            waiting: VecDeque::new(),
            credit: 0,
            renewed: Vec::new(),
        };
        clock.restore(leases);
        clock
    }

    /// Takes these leases in place of all it knows: after a snapshot.
    pub(crate) fn restore(&mut self, leases: Vec<LeaseInfo>) {
        assert_eq!(self.state, State::Stopped, "a leader installs no snapshot");
        self.leases = leases
            .into_iter()
            .map(|info| {
                let lease = Lease {
                    ttl: info.ttl,
                    remaining: info.remaining,
                    deadline: 0,
                    revoking_since: None,
                };
                (info.id, lease)
            })
            .collect();
    }

    /// Apply has changed a lease.
    pub(crate) fn on_change(&mut self, change: &LeaseChange) {
        match *change {
            LeaseChange::Granted { id, ttl } => {
                self.forget(id);
                let deadline = self.now + self.ticks(ttl);
                let lease = Lease { ttl, remaining: 0, deadline, revoking_since: None };
                self.leases.insert(id, lease);
                if self.state != State::Stopped {
                    self.deadlines.insert((deadline, id));
                }
            }
            LeaseChange::Revoked { id } => self.forget(id),
            // The clock of the leader that wrote it runs on; only the next one begins from it.
            LeaseChange::Checkpointed { id, remaining } => {
                if let Some(lease) = self.leases.get_mut(&id) {
                    lease.remaining = remaining;
                }
            }
        }
    }

    /// This member leads in `term` and has applied an entry of that term: every lease gets its time.
    pub(crate) fn start(&mut self, term: Term) {
        assert_eq!(self.state, State::Stopped, "a clock runs for one term");
        self.state = State::Running(term);
        self.credit = 0;
        let (now, tick_ms, extra) = (self.now, self.tick_ms, self.election_ticks);
        for (id, lease) in &mut self.leases {
            let seconds = if lease.remaining > 0 { lease.remaining } else { lease.ttl };
            if !mutant::is(Mutant::LeaseByOwnClock) {
                lease.deadline = now + ticks(seconds, tick_ms) + extra;
            }
            lease.revoking_since = None;
            self.deadlines.insert((lease.deadline, *id));
        }
    }

    /// This member does not lead any more.
    pub(crate) fn stop(&mut self, refusal: LeaseRefusal) -> Vec<LeaseAnswer> {
        self.state = State::Stopped;
        self.deadlines.clear();
        self.revoking.clear();
        self.renewed.clear();
        self.waiting.drain(..).map(|waiting| answer(&waiting.ask, Err(refusal))).collect()
    }

    /// The term for which the clock runs, in doubt or not.
    pub(crate) fn term(&self) -> Option<Term> {
        match self.state {
            State::Stopped => None,
            State::Running(term) | State::Doubtful(term) => Some(term),
        }
    }

    /// Time has passed. True if the clock has just begun to doubt: ask a quorum, then call [`LeaseClock::confirm`].
    pub(crate) fn tick(&mut self, elapsed: u32) -> bool {
        self.now += u64::from(elapsed.max(1));
        let earned = self.revokes_per_second * self.tick_ms;
        // Half a second's worth may gather.
        self.credit = (self.credit + earned).min((self.revokes_per_second * 500).max(1_000));
        match self.state {
            State::Running(term) if elapsed >= GAP_TICKS => {
                self.state = State::Doubtful(term);
                true
            }
            State::Doubtful(_) => elapsed >= GAP_TICKS,
            State::Running(_) | State::Stopped => false,
        }
    }

    /// A quorum has confirmed, after the doubt arose, that this member still leads.
    pub(crate) fn confirm(&mut self) {
        if let State::Doubtful(term) = self.state {
            self.state = State::Running(term);
        }
    }

    /// Whether the clock waits for a quorum's word.
    pub(crate) fn doubts(&self) -> bool {
        matches!(self.state, State::Doubtful(_))
    }

    /// A question comes. `leader` is who leads as far as this member knows, `committed` what is committed as far as
    /// it knows; both at this moment.
    pub(crate) fn ask(
        &mut self,
        ask: LeaseAsk,
        me: NodeId,
        leader: NodeId,
        committed: Index,
    ) -> Option<LeaseAnswer> {
        if leader != me {
            let refusal = if leader == NONE {
                LeaseRefusal::NoLeader
            } else {
                LeaseRefusal::Forward { leader }
            };
            return Some(answer(&ask, Err(refusal)));
        }
        if self.waiting.len() >= self.waits_max {
            return Some(answer(&ask, Err(LeaseRefusal::TooManyRequests)));
        }
        let until_tick = self.now + APPLY_WAIT_MS.div_ceil(self.tick_ms);
        self.waiting.push_back(Waiting { ask, applied_needed: committed, until_tick });
        None
    }

    /// Answers what can be answered now that `applied` is applied, and gives up on what has waited too long. While
    /// the clock does not run (a new leader that has not applied an entry of its term) or doubts, all wait.
    pub(crate) fn answers(&mut self, applied: Index) -> Vec<LeaseAnswer> {
        let mut answers = Vec::new();
        if self.waiting.is_empty() {
            return answers;
        }
        let running = matches!(self.state, State::Running(_));
        let mut still = VecDeque::new();
        while let Some(waiting) = self.waiting.pop_front() {
            let hasty = mutant::is(Mutant::KeepAliveBeforeApply);
            let ready = running && (waiting.applied_needed <= applied || hasty);
            match ready.then(|| self.answer_now(&waiting.ask)).flatten() {
                Some(time) => answers.push(answer(&waiting.ask, Ok(time))),
                None if waiting.until_tick <= self.now => {
                    answers.push(answer(&waiting.ask, Err(LeaseRefusal::ApplyTooSlow)));
                }
                None => still.push_back(waiting),
            }
        }
        self.waiting = still;
        answers
    }

    /// The leases to revoke now, with the term in which that was decided: to be appended in that term or not at all.
    pub(crate) fn due(&mut self) -> Vec<(Term, i64)> {
        let State::Running(term) = self.state else { return Vec::new() };
        let mut due = Vec::new();
        let retry_ticks = REVOKE_RETRY_MS.div_ceil(self.tick_ms);
        while self.credit >= 1_000 {
            let again = self.revoking.first().filter(|(since, _)| since + retry_ticks <= self.now);
            let id = if let Some(&(since, id)) = again {
                self.revoking.remove(&(since, id));
                id
            } else if let Some(&(deadline, id)) =
                self.deadlines.first().filter(|(deadline, _)| *deadline <= self.now)
            {
                self.deadlines.remove(&(deadline, id));
                id
            } else {
                break;
            };
            let lease = self.leases.get_mut(&id).expect("a lease with a deadline exists");
            lease.revoking_since = Some(self.now);
            self.revoking.insert((self.now, id));
            self.credit -= 1_000;
            due.push((term, id));
        }
        due
    }

    /// Leases that were renewed although a checkpoint stands in the tables: it must be taken back, or the next leader
    /// would end them early.
    pub(crate) fn renewed(&mut self) -> Vec<i64> {
        std::mem::take(&mut self.renewed)
    }

    fn answer_now(&mut self, ask: &LeaseAsk) -> Option<LeaseTime> {
        let (now, tick_ms) = (self.now, self.tick_ms);
        let Some(lease) = self.leases.get_mut(&ask.lease) else { return Some(LeaseTime::Unknown) };
        match ask.question {
            // Its end is decided: the answer waits for the revoke, and is "unknown" then.
            LeaseQuestion::KeepAlive if lease.revoking_since.is_some() => None,
            LeaseQuestion::KeepAlive => {
                self.deadlines.remove(&(lease.deadline, ask.lease));
                lease.deadline = now + ticks(lease.ttl, tick_ms);
                self.deadlines.insert((lease.deadline, ask.lease));
                if lease.remaining > 0 {
                    lease.remaining = 0;
                    self.renewed.push(ask.lease);
                }
                Some(LeaseTime::KeptAlive { ttl: lease.ttl })
            }
            LeaseQuestion::TimeToLive => {
                let left_ms = (i128::from(lease.deadline) - i128::from(now)) * i128::from(tick_ms);
                let remaining = i64::try_from(left_ms / 1_000).unwrap_or(i64::MAX);
                Some(LeaseTime::Remaining { remaining, granted: lease.ttl })
            }
        }
    }

    fn forget(&mut self, id: i64) {
        if let Some(lease) = self.leases.remove(&id) {
            self.deadlines.remove(&(lease.deadline, id));
            if let Some(since) = lease.revoking_since {
                self.revoking.remove(&(since, id));
            }
        }
    }

    fn ticks(&self, seconds: i64) -> u64 {
        ticks(seconds, self.tick_ms)
    }
}

/// Ticks in so many seconds, rounded up: a lease never ends early. TTLs are at most nine thousand million seconds.
fn ticks(seconds: i64, tick_ms: u64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000).div_ceil(tick_ms)
}

fn answer(ask: &LeaseAsk, result: Result<LeaseTime, LeaseRefusal>) -> LeaseAnswer {
    LeaseAnswer { asker: ask.asker, lease: ask.lease, result }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Asker;
    use crate::waiters::Shard;

    const ME: NodeId = 1;

    fn clock() -> LeaseClock {
        LeaseClock::new(100, 10, 1_000, 8, Vec::new())
    }

    fn running() -> LeaseClock {
        let mut clock = clock();
        clock.start(Term(3));
        clock
    }

    fn keep_alive(lease: i64) -> LeaseAsk {
        let asker = Asker::Shard { shard: Shard(0), token: 9 };
        LeaseAsk { asker, lease, question: LeaseQuestion::KeepAlive }
    }

    fn granted(id: i64, ttl: i64) -> LeaseChange {
        LeaseChange::Granted { id, ttl }
    }

    fn after(clock: &mut LeaseClock, ticks: u32) -> Vec<(Term, i64)> {
        let mut due = Vec::new();
        for _ in 0..ticks {
            clock.tick(1);
            due.extend(clock.due());
        }
        due
    }

    #[test]
    fn a_lease_is_due_when_its_time_is_over_and_not_a_tick_earlier() {
        let mut clock = running();
        clock.on_change(&granted(5, 2));
        assert!(after(&mut clock, 19).is_empty());
        assert_eq!(after(&mut clock, 1), vec![(Term(3), 5)]);
        clock.on_change(&LeaseChange::Revoked { id: 5 });
        assert!(after(&mut clock, 100).is_empty());
    }

    #[test]
    fn a_revoke_that_was_lost_is_appended_again() {
        let mut clock = running();
        clock.on_change(&granted(5, 2));
        assert_eq!(after(&mut clock, 20).len(), 1);
        assert!(after(&mut clock, 29).is_empty());
        assert_eq!(after(&mut clock, 1).len(), 1);
    }

    #[test]
    fn only_a_running_clock_ends_leases() {
        let mut clock = clock();
        clock.on_change(&granted(5, 2));
        assert!(after(&mut clock, 100).is_empty());
    }

    #[test]
    fn a_new_leader_gives_the_whole_time_and_an_election_timeout() {
        let mut clock = clock();
        clock.on_change(&granted(5, 2));
        clock.on_change(&granted(6, 60));
        clock.on_change(&LeaseChange::Checkpointed { id: 6, remaining: 1 });
        after(&mut clock, 50);
        clock.start(Term(4));
        assert!(after(&mut clock, 19).is_empty());
        assert_eq!(after(&mut clock, 1), vec![(Term(4), 6)]);
        assert!(after(&mut clock, 9).is_empty());
        assert_eq!(after(&mut clock, 1), vec![(Term(4), 5)]);
    }

    #[test]
    fn a_renewal_gives_the_whole_time_and_takes_back_the_checkpoint() {
        let mut clock = running();
        clock.on_change(&granted(5, 2));
        clock.on_change(&LeaseChange::Checkpointed { id: 5, remaining: 1 });
        after(&mut clock, 15);
        assert_eq!(clock.ask(keep_alive(5), ME, ME, Index(0)), None);
        let answers = clock.answers(Index(0));
        assert_eq!(answers[0].result, Ok(LeaseTime::KeptAlive { ttl: 2 }));
        assert_eq!(clock.renewed(), vec![5]);
        assert!(after(&mut clock, 19).is_empty());
        assert_eq!(after(&mut clock, 1).len(), 1);
    }

    #[test]
    fn a_keep_alive_waits_for_what_was_committed_when_it_came() {
        let mut clock = running();
        assert_eq!(clock.ask(keep_alive(5), ME, ME, Index(8)), None);
        assert!(clock.answers(Index(7)).is_empty());
        clock.on_change(&granted(5, 2));
        let answers = clock.answers(Index(8));
        assert_eq!(answers[0].result, Ok(LeaseTime::KeptAlive { ttl: 2 }));
    }

    #[test]
    fn a_keep_alive_of_a_dying_lease_hears_that_it_is_gone() {
        let mut clock = running();
        clock.on_change(&granted(5, 2));
        assert_eq!(after(&mut clock, 20).len(), 1);
        assert_eq!(clock.ask(keep_alive(5), ME, ME, Index(0)), None);
        assert!(clock.answers(Index(0)).is_empty());
        clock.on_change(&LeaseChange::Revoked { id: 5 });
        assert_eq!(clock.answers(Index(0))[0].result, Ok(LeaseTime::Unknown));
    }

    #[test]
    fn questions_give_up_after_a_second_and_are_bounded() {
        let mut clock = running();
        for _ in 0..8 {
            assert_eq!(clock.ask(keep_alive(5), ME, ME, Index(8)), None);
        }
        let ninth = clock.ask(keep_alive(5), ME, ME, Index(8)).unwrap();
        assert_eq!(ninth.result, Err(LeaseRefusal::TooManyRequests));
        after(&mut clock, 9);
        assert!(clock.answers(Index(0)).is_empty());
        after(&mut clock, 1);
        let answers = clock.answers(Index(0));
        assert_eq!(answers.len(), 8);
        assert_eq!(answers[0].result, Err(LeaseRefusal::ApplyTooSlow));
    }

    #[test]
    fn a_follower_names_the_leader() {
        let mut clock = clock();
        let forward = clock.ask(keep_alive(5), ME, 2, Index(8)).unwrap();
        assert_eq!(forward.result, Err(LeaseRefusal::Forward { leader: 2 }));
        let nobody = clock.ask(keep_alive(5), ME, NONE, Index(8)).unwrap();
        assert_eq!(nobody.result, Err(LeaseRefusal::NoLeader));
    }

    #[test]
    fn after_a_gap_nothing_ends_and_nothing_is_renewed_before_a_quorum_has_spoken() {
        let mut clock = running();
        clock.on_change(&granted(5, 2));
        assert!(!clock.tick(2));
        assert!(clock.tick(30));
        assert!(clock.due().is_empty());
        assert_eq!(clock.ask(keep_alive(5), ME, ME, Index(0)), None);
        assert!(clock.answers(Index(9)).is_empty());
        clock.confirm();
        assert_eq!(clock.answers(Index(9))[0].result, Ok(LeaseTime::KeptAlive { ttl: 2 }));
        assert!(clock.due().is_empty());
    }

    #[test]
    fn who_ceases_to_lead_answers_and_ends_nothing_more() {
        let mut clock = running();
        clock.on_change(&granted(5, 2));
        assert_eq!(clock.ask(keep_alive(5), ME, ME, Index(4)), None);
        let answers = clock.stop(LeaseRefusal::LeadershipLost);
        assert_eq!(answers[0].result, Err(LeaseRefusal::LeadershipLost));
        assert!(after(&mut clock, 100).is_empty());
    }

    #[test]
    fn revokes_keep_to_their_rate() {
        let mut clock = running();
        for id in 1..=5_000 {
            clock.on_change(&granted(id, 2));
        }
        let first = after(&mut clock, 20);
        assert!(first.len() <= 500, "{}", first.len());
        for (_, id) in &first {
            clock.on_change(&LeaseChange::Revoked { id: *id });
        }
        assert_eq!(after(&mut clock, 10).len(), 1_000);
    }

    #[test]
    fn a_slow_rate_with_long_ticks_still_revokes() {
        let mut clock = LeaseClock::new(10, 10, 1, 8, Vec::new());
        clock.start(Term(1));
        clock.on_change(&granted(1, 1));
        assert_eq!(after(&mut clock, 300).len(), 1);
    }
}
