//! Progress: what a leader knows about one peer's log, and how much it may send.
//!
//! ```text
//!             acknowledged                     log released at `next`
//!   ┌─────── ─────────────▶ ┌─────────────┐ ──────────────────────────▶ ┌──────────┐
//!   │ Probe                 │  Replicate  │                             │ Snapshot │
//!   └─────── ◀───────────── └─────────────┘ ◀────────────────────────── └──────────┘
//!      ▲      rejected, unreachable             acknowledged                 │
//!      └──────────────────────────────────── reported sent or failed ────────┘
//! ```
//!
//! Probe sends one append per heartbeat, for nobody knows where the logs match. Replicate sends as much as the window
//! holds, each append following the last. Snapshot sends nothing.

use crate::message::Index;
use std::collections::VecDeque;
use std::fmt;

/// How the leader replicates to one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProgressState {
    /// It is not known where the follower's log matches: one append per heartbeat.
    Probe,
    /// Appends are pipelined.
    Replicate,
    /// A snapshot up to `pending` is under way; appends wait for it.
    Snapshot {
        /// The last index that the snapshot holds.
        pending: Index,
    },
}

/// What a leader knows about one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The peer's log is known to match, durably, up to here. Always below `next`.
    pub matched: Index,
    /// The next entry to send; those between `matched` and it are in flight.
    pub next: Index,
    /// The greatest commit index sent. It goes back when what was sent before may have been lost.
    pub sent_commit: Index,
    /// How it is replicated to.
    pub state: ProgressState,
    /// It was heard from since the last check for a quorum.
    pub recent_active: bool,
    /// Appends are held back until the peer answers an append or a heartbeat.
    pub flow_paused: bool,
    /// The first entry of those being read back from disk for it. Appends wait for them.
    pub fetching: Option<Index>,
    /// Appends not yet acknowledged.
    pub inflights: Inflights,
    /// It learns and does not vote.
    pub learner: bool,
}

impl Progress {
    /// A peer of which nothing is known.
    pub fn new(next: Index, learner: bool, inflights: Inflights) -> Progress {
        assert!(next > Index(0), "next must lie above matched");
        Progress {
            matched: Index(0),
            next,
            sent_commit: Index(0),
            state: ProgressState::Probe,
            recent_active: false,
            flow_paused: false,
            fetching: None,
            inflights,
            learner,
        }
    }

    /// Whoever wonders where the logs match starts after what is known to, or after the snapshot that was sent.
    pub fn become_probe(&mut self) {
        let snapshot = match self.state {
            ProgressState::Snapshot { pending } => pending,
            _ => Index(0),
        };
        self.enter(ProgressState::Probe);
        self.next = self.matched.max(snapshot).next();
        self.sent_commit = self.sent_commit.min(self.next.previous());
    }

    /// The logs are known to match at `matched`.
    pub fn become_replicate(&mut self) {
        self.enter(ProgressState::Replicate);
        self.next = self.matched.next();
    }

    /// A snapshot up to `pending` is sent.
    pub fn become_snapshot(&mut self, pending: Index) {
        self.enter(ProgressState::Snapshot { pending });
        self.next = pending.next();
        self.sent_commit = pending;
    }

    fn enter(&mut self, state: ProgressState) {
        self.flow_paused = false;
        self.state = state;
        self.inflights.clear();
    }

    /// An append with so many entries and bytes was sent from `next` on.
    pub fn on_sent(&mut self, entries: usize, bytes: u64) {
        match self.state {
            ProgressState::Replicate => {
                if entries > 0 {
                    self.next = Index(self.next.0 + entries as u64);
                    self.inflights.add(self.next.previous(), bytes);
                }
                // An append into a full window is a probe: it waits for an answer.
                self.flow_paused = self.inflights.is_full();
            }
            ProgressState::Probe => self.flow_paused |= entries > 0,
            ProgressState::Snapshot { .. } => panic!("an append was sent while a snapshot is"),
        }
    }

    /// Whether telling the peer this commit index could move its own: it moves at most to `next - 1`.
    pub fn can_bump_commit(&self, commit: Index) -> bool {
        commit > self.sent_commit && self.sent_commit < self.next.previous()
    }

    /// The peer acknowledged up to `index`; false if that is no news.
    pub fn maybe_update(&mut self, index: Index) -> bool {
        if index <= self.matched {
            return false;
        }
        self.matched = index;
        self.next = self.next.max(index.next());
        self.flow_paused = false;
        true
    }

    /// The peer rejected the append after `rejected` and hints where the logs may match; false if that is an old answer.
    pub fn maybe_decrease(&mut self, rejected: Index, hint: Index) -> bool {
        if self.state == ProgressState::Replicate {
            if rejected <= self.matched {
                return false;
            }
            self.next = self.matched.next();
        } else {
            // A probe is alone in flight, so a genuine rejection is of just that.
            if self.next.previous() != rejected {
                return false;
            }
            let after_hint = Index(hint.0.saturating_add(1));
            self.next = rejected.min(after_hint).max(self.matched.next());
            self.flow_paused = false;
        }
        self.sent_commit = self.sent_commit.min(self.next.previous());
        true
    }

    /// Whether appends are held back.
    pub fn is_paused(&self) -> bool {
        matches!(self.state, ProgressState::Snapshot { .. }) || self.flow_paused
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            ProgressState::Probe => "StateProbe",
            ProgressState::Replicate => "StateReplicate",
            ProgressState::Snapshot { .. } => "StateSnapshot",
        };
        write!(f, "{state} match={} next={}", self.matched, self.next)?;
        if self.learner {
            f.write_str(" learner")?;
        }
        if self.is_paused() {
            f.write_str(" paused")?;
        }
        if let ProgressState::Snapshot { pending } = self.state {
            write!(f, " pendingSnap={pending}")?;
        }
        if !self.recent_active {
            f.write_str(" inactive")?;
        }
        if self.inflights.count() > 0 {
            write!(f, " inflight={}", self.inflights.count())?;
            if self.inflights.is_full() {
                f.write_str("[full]")?;
            }
        }
        Ok(())
    }
}

/// The window of appends sent and not acknowledged, bounded by their count and, softly, by their bytes: the one that crosses
/// the bound is still sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inflights {
    /// Last index and bytes of each append, the indexes ascending.
    window: VecDeque<(Index, u64)>,
    /// The sum of the bytes in `window`.
    bytes: u64,
    messages_max: usize,
    /// 0 is no bound.
    bytes_max: u64,
}

impl Inflights {
    /// An empty window.
    pub fn new(messages_max: usize, bytes_max: u64) -> Inflights {
        Inflights { window: VecDeque::new(), bytes: 0, messages_max, bytes_max }
    }

    /// An append up to `index` was sent.
    pub fn add(&mut self, index: Index, bytes: u64) {
        assert!(!self.is_full(), "an append was sent into a full window");
        assert!(self.window.back().is_none_or(|last| last.0 < index), "appends go forward");
        self.window.push_back((index, bytes));
        self.bytes += bytes;
    }

    /// All up to `index` was acknowledged.
    pub fn free_up_to(&mut self, index: Index) {
        while let Some(&(last, bytes)) = self.window.front()
            && last <= index
        {
            self.window.pop_front();
            self.bytes -= bytes;
        }
    }

    /// Nothing is in flight, as far as one cares.
    pub fn clear(&mut self) {
        self.window.clear();
        self.bytes = 0;
    }

    /// Whether nothing more may be sent.
    pub fn is_full(&self) -> bool {
        self.window.len() >= self.messages_max
            || (self.bytes_max != 0 && self.bytes >= self.bytes_max)
    }

    /// How many appends are in flight.
    pub fn count(&self) -> usize {
        self.window.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(messages_max: usize, bytes_max: u64) -> Progress {
        Progress::new(Index(5), false, Inflights::new(messages_max, bytes_max))
    }

    #[test]
    fn a_probe_sends_once_and_waits() {
        let mut peer = progress(4, 0);
        peer.on_sent(0, 0);
        assert!(!peer.is_paused(), "an empty append is no probe");
        peer.on_sent(2, 10);
        assert!(peer.is_paused());
        assert_eq!(peer.next, Index(5));
    }

    #[test]
    fn a_full_window_pauses_by_count_and_by_bytes() {
        let mut peer = progress(2, 0);
        peer.become_replicate();
        peer.on_sent(1, 1);
        assert!(!peer.is_paused());
        peer.on_sent(1, 1);
        assert!(peer.is_paused());

        let mut peer = progress(100, 8);
        peer.become_replicate();
        peer.on_sent(1, 7);
        assert!(!peer.is_paused());
        peer.on_sent(1, 7);
        assert!(peer.is_paused());
        peer.inflights.free_up_to(Index(2));
        assert_eq!((peer.inflights.count(), peer.inflights.bytes), (0, 0));
    }

    #[test]
    fn an_acknowledgement_frees_what_it_covers() {
        let mut window = Inflights::new(10, 0);
        for index in [3, 5, 9] {
            window.add(Index(index), 2);
        }
        window.free_up_to(Index(2));
        assert_eq!((window.count(), window.bytes), (3, 6));
        window.free_up_to(Index(6));
        assert_eq!((window.count(), window.bytes), (1, 2));
    }

    #[test]
    fn an_old_rejection_changes_nothing() {
        let mut peer = progress(4, 0);
        assert!(!peer.maybe_decrease(Index(3), Index(1)), "not the probe that is in flight");
        assert!(peer.maybe_decrease(Index(4), Index(2)));
        assert_eq!(peer.next, Index(3));
        peer.maybe_update(Index(7));
        peer.become_replicate();
        assert!(!peer.maybe_decrease(Index(7), Index(0)));
        assert!(peer.maybe_decrease(Index(u64::MAX), Index(u64::MAX)));
        assert_eq!(peer.next, Index(8));
    }
}
