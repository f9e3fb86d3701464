//! Regular compaction: which revision is to be compacted, and when. The leader's member asks; all take notes.
//!
//! - *Periodic* keeps the history of the last period: ten times in it (or in an hour, if the period is longer) the
//!   revision is noted, and the oldest note, a period old, is compacted once a period is over, and then after each
//!   further period or hour.
//! - *By revision* keeps the newest so many revisions, and looks every five minutes.
//!
//! As etcd's, down to the intervals. Every member notes revisions, so that a new leader need not begin a period anew;
//! a compaction that does not come to pass is asked for again at the next look.

use std::collections::VecDeque;
use std::time::Duration;

/// How much history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// All of it, until somebody compacts.
    Everything,
    /// That of this time, which is not zero.
    Period(Duration),
    /// So many of the newest revisions; at least one.
    Revisions(i64),
}

/// In a period, or in each hour of a longer one, the member looks so often.
const LOOKS: u32 = 10;
const HOUR: Duration = Duration::from_secs(3600);
/// How often a member looks that keeps a number of revisions.
const REVISIONS_LOOK: Duration = Duration::from_secs(300);

/// Decides. Call [`Compactor::look`] often; it says when there is something to compact.
#[derive(Debug)]
pub struct Compactor {
    retention: Retention,
    /// When it looks next, and how often.
    next_ms: u64,
    look_ms: u64,
    /// The revisions of the looks of one period, oldest first.
    notes: VecDeque<i64>,
    notes_max: usize,
    /// When the next compaction is due, and how long after one that came to pass.
    due_ms: u64,
    every_ms: u64,
    /// What was asked for and has not been seen to happen.
    asked: Option<i64>,
}

impl Compactor {
    /// One that begins now.
    pub fn new(retention: Retention, now_ms: u64) -> Compactor {
        let (first, every, look) = match retention {
            Retention::Period(period) => {
                let every = period.min(HOUR);
                (period, every, every / LOOKS)
            }
            Retention::Everything | Retention::Revisions(_) => {
                (REVISIONS_LOOK, REVISIONS_LOOK, REVISIONS_LOOK)
            }
        };
        let ms = |duration: Duration| (duration.as_millis() as u64).max(1);
        Compactor {
            retention,
            next_ms: now_ms,
            look_ms: ms(look),
            notes: VecDeque::new(),
            notes_max: (ms(first) / ms(look)) as usize + 1,
            due_ms: now_ms + ms(first),
            every_ms: ms(every),
            asked: None,
        }
    }

    /// The revision to compact now, if there is one. `mark` is the newest compacted revision, `leads` whether this
    /// member leads.
    pub fn look(&mut self, now_ms: u64, revision: i64, mark: i64, leads: bool) -> Option<i64> {
        if now_ms < self.next_ms {
            return None;
        }
        self.next_ms = now_ms + self.look_ms;
        let wanted = match self.retention {
            Retention::Everything => return None,
            Retention::Revisions(kept) => Some(revision - kept),
            Retention::Period(_) => {
                let oldest = self.notes.front().copied();
                self.notes.push_back(revision);
                if self.notes.len() > self.notes_max {
                    self.notes.pop_front();
                }
                oldest
            }
        };
        if self.asked.take().is_some_and(|asked| asked <= mark) {
            // It came to pass at about the time of the last look.
            self.due_ms = now_ms - self.look_ms + self.every_ms;
        }
        let wanted =
            wanted.filter(|wanted| leads && now_ms >= self.due_ms && *wanted > mark.max(0))?;
        self.asked = Some(wanted);
        Some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    /// Looks once a minute for so long, with ten writes a minute, and says what was compacted when.
    fn play(
        compactor: &mut Compactor,
        minutes: std::ops::RangeInclusive<u64>,
        mark: &mut i64,
        leads: bool,
    ) -> Vec<(u64, i64)> {
        let mut compacted = Vec::new();
        for minute in minutes {
            let revision = 1 + 10 * minute as i64;
            if let Some(wanted) = compactor.look(minute * MINUTE, revision, *mark, leads) {
                compacted.push((minute, wanted));
                *mark = wanted;
            }
        }
        compacted
    }

    #[test]
    fn a_period_of_history_is_kept() {
        let mut compactor = Compactor::new(Retention::Period(Duration::from_secs(600)), 0);
        let done = play(&mut compactor, 0..=40, &mut -1, true);
        // Nothing in the first period; then each ten minutes what is ten minutes old, or eleven.
        assert_eq!(done, [(10, 1), (20, 91), (30, 191), (40, 291)]);
    }

    #[test]
    fn a_long_period_is_compacted_each_hour() {
        let mut compactor = Compactor::new(Retention::Period(Duration::from_secs(4 * 3600)), 0);
        let done = play(&mut compactor, 0..=6 * 60, &mut -1, true);
        assert_eq!(done, [(240, 1), (300, 541), (360, 1141)]);
    }

    #[test]
    fn a_number_of_revisions_is_kept() {
        let mut compactor = Compactor::new(Retention::Revisions(30), 0);
        let done = play(&mut compactor, 0..=12, &mut -1, true);
        assert_eq!(done, [(5, 21), (10, 71)]);
    }

    #[test]
    fn who_does_not_lead_takes_notes_and_is_ready_when_it_does() {
        let mut compactor = Compactor::new(Retention::Period(Duration::from_secs(600)), 0);
        let mut mark = -1;
        assert_eq!(play(&mut compactor, 0..=25, &mut mark, false), []);
        assert_eq!(play(&mut compactor, 26..=26, &mut mark, true), [(26, 151)]);
    }

    #[test]
    fn what_did_not_come_to_pass_is_asked_for_again_at_the_next_look() {
        let mut compactor = Compactor::new(Retention::Revisions(30), 0);
        assert_eq!(compactor.look(5 * MINUTE, 100, -1, true), Some(70));
        assert_eq!(compactor.look(10 * MINUTE, 100, -1, true), Some(70));
        assert_eq!(compactor.look(15 * MINUTE, 100, 70, true), None, "nothing is new");
        assert_eq!(compactor.look(20 * MINUTE, 20, -1, true), None, "fewer than are kept");
    }

    #[test]
    fn everything_is_kept_unless_something_else_is_said() {
        let mut compactor = Compactor::new(Retention::Everything, 0);
        assert_eq!(play(&mut compactor, 0..=600, &mut -1, true), []);
    }
}
