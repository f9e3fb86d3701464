//! What this member's threads have done lately, with the time of each: what a request's trace is read from.
//!
//! ```text
//!   replica ──▶ mind  ┐
//!   log     ──▶ log   │  one lane each: the newest events of its thread, oldest first
//!   apply   ──▶ apply │
//!   flush   ──▶ store ┘
//! ```
//!
//! Always on. A thread writes down, with one look at the clock, what a batch of its work was made of
//! ([`replica::Tracing::Batches`]); so the price of a request falls as more of them come together. Nobody reads the lanes but
//! who is asked for a trace, or has met a request that was slow.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proto::quorate::v1::{Stage, StageKind};
use raft::{Index, MessageKind, NodeId, Term};
use replica::Trace;

/// Events kept in a lane: 512 KiB each when full. A busy member has some ten thousand in a second.
const EVENTS_PER_LANE: usize = 8_192;

/// Whose events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The replica's.
    Mind,
    /// The log's.
    Log,
    /// Apply's.
    Apply,
    /// The store's.
    Store,
}

/// The lanes, and the clock that they share.
pub struct Stages {
    started: Instant,
    /// Microseconds since 1970 at `started`.
    started_unix_us: u64,
    /// By [`Lane`]. A std lock, held by its thread for some pushes, and by who reads for one walk.
    lanes: [Mutex<VecDeque<Event>>; 4],
}

/// What happened, and when. The difference of two times costs more than the time itself, and few are ever asked for it.
#[derive(Clone, Copy, Debug)]
struct Event {
    at: Instant,
    what: Trace,
}

impl Default for Stages {
    fn default() -> Stages {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Stages {
            started: Instant::now(),
            started_unix_us: now.as_micros() as u64,
            lanes: Default::default(),
        }
    }
}

impl Stages {
    /// Microseconds since the process started. Never goes back.
    pub fn now_us(&self) -> u64 {
        self.us(Instant::now())
    }

    /// A moment in microseconds since the process started.
    pub fn us(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.started).as_micros() as u64
    }

    /// The same moment again; to the microsecond, so not later than it was.
    pub fn instant(&self, at_us: u64) -> Instant {
        self.started + Duration::from_micros(at_us)
    }

    /// The same moment in microseconds since 1970, as the clock stood when the process started.
    pub fn unix_us(&self, at_us: u64) -> u64 {
        self.started_unix_us + at_us
    }

    /// Writes down what has just happened.
    pub fn tell(&self, lane: Lane, events: &[Trace]) {
        if !events.is_empty() {
            self.tell_at(Instant::now(), lane, events);
        }
    }

    /// Writes down what happened then, which is not before what the lane was told last.
    pub fn tell_at(&self, at: Instant, lane: Lane, events: &[Trace]) {
        if events.is_empty() {
            return;
        }
        let mut lane = self.lane(lane);
        for what in events {
            if lane.len() == EVENTS_PER_LANE {
                lane.pop_front();
            }
            lane.push_back(Event { at, what: *what });
        }
    }

    fn lane(&self, lane: Lane) -> std::sync::MutexGuard<'_, VecDeque<Event>> {
        // A thread that panics ends the process.
        self.lanes[lane as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is remembered of an entry, in order of time. `since_us` is when its request came to this member: without it,
    /// nothing is said of how it was passed on to the leader, for before it has an index it cannot be told from others.
    pub fn of(&self, term: Term, index: Index, since_us: Option<u64>) -> Vec<Stage> {
        let mut stages = Found { stages: Vec::new(), clock: self };
        let (began, replaced) = {
            let mind = self.lane(Lane::Mind);
            // Of several leaders' entries the one of this term. A follower that catches up may append those of several
            // terms together, of which only the last is told.
            let appended = |is_wanted: fn(Term, Term) -> bool| {
                mind.iter().rposition(|event| match event.what {
                    Trace::Appended { first, last, term: of } => {
                        first <= index && index <= last && is_wanted(of, term)
                    }
                    _ => false,
                })
            };
            let place = appended(|of, term| of == term).or_else(|| appended(|of, term| of > term));
            let Some(place) = place else { return Vec::new() };
            // What is appended at or below it later stands in its place: from then on indexes mean another entry.
            let replaced = mind.range(place + 1..).position(
                |event| matches!(event.what, Trace::Appended { first, .. } if first <= index),
            );
            let end = replaced.map_or(mind.len(), |behind| place + 1 + behind);
            let began = mind[place].at;
            let forwarded = since_us.and_then(|since_us| {
                let since = self.instant(since_us);
                let first = mind.partition_point(|event| event.at < since).min(place);
                mind.range(first..place).find(|event| {
                    let is_prop = |kind| matches!(kind, MessageKind::Prop);
                    matches!(event.what, Trace::Sent { message, .. } if is_prop(message.kind))
                })
            });
            if let Some(Event { at, what: Trace::Sent { to, .. } }) = forwarded {
                stages.add(StageKind::Forwarded, *to, *at);
            }
            stages.add(StageKind::Appended, 0, began);
            for Event { at, what } in mind.range(place + 1..end) {
                match what {
                    Trace::Sent { to, message } if message.kind == MessageKind::App => {
                        let last = message.index.0 + u64::from(message.entries);
                        if message.index < index && index.0 <= last {
                            stages.add(StageKind::Sent, *to, *at);
                        }
                    }
                    Trace::Matched { node, index: now } if *now >= index => {
                        stages.add(StageKind::Matched, *node, *at);
                    }
                    Trace::Committed { index: now } if *now >= index => {
                        stages.add(StageKind::Committed, 0, *at);
                    }
                    _ => {}
                }
            }
            (began, mind.get(end).map(|event| event.at))
        };
        for lane in [Lane::Log, Lane::Apply, Lane::Store] {
            let lane = self.lane(lane);
            let later = lane.partition_point(|event| event.at < began);
            let rest =
                lane.range(later..).take_while(|event| replaced.is_none_or(|end| event.at <= end));
            for Event { at, what } in rest {
                match what {
                    Trace::Written { first, last } if *first <= index && index <= *last => {
                        stages.add(StageKind::Written, 0, *at);
                    }
                    Trace::Synced { last } if *last >= index => {
                        stages.add(StageKind::Synced, 0, *at);
                    }
                    Trace::Sent { to, message } if is_word_of(message, index) => {
                        stages.add(StageKind::Acknowledged, *to, *at);
                    }
                    Trace::Applied { index: now } if *now >= index => {
                        stages.add(StageKind::Applied, 0, *at);
                    }
                    Trace::FrameWritten { index: now } if *now >= index => {
                        stages.add(StageKind::FrameWritten, 0, *at);
                    }
                    Trace::StoreSynced { index: now } if *now >= index => {
                        stages.add(StageKind::FrameSynced, 0, *at);
                    }
                    _ => {}
                }
            }
        }
        let mut stages = stages.stages;
        stages.sort_by_key(|stage| stage.at_us);
        stages
    }

    /// When this member had applied that much, if it came to it after `since_us`, in microseconds since 1970.
    pub fn applied_after(&self, index: Index, since_us: u64) -> Option<u64> {
        let lane = self.lane(Lane::Apply);
        let is_it =
            |event: &&Event| matches!(event.what, Trace::Applied { index: now } if now >= index);
        let event = lane.iter().find(is_it)?;
        let at_us = self.us(event.at);
        (at_us > since_us).then(|| self.unix_us(at_us))
    }
}

/// Whether a follower says with this message that it has the entry.
fn is_word_of(message: &replica::Said, index: Index) -> bool {
    message.kind == MessageKind::AppResp && !message.reject && message.index >= index
}

/// Stages that were found: of each kind, and member, the first.
struct Found<'a> {
    stages: Vec<Stage>,
    clock: &'a Stages,
}

impl Found<'_> {
    fn add(&mut self, kind: StageKind, peer: NodeId, at: Instant) {
        let kind = kind.into();
        if !self.stages.iter().any(|known| known.kind == kind && known.peer == peer) {
            let at_us = self.clock.unix_us(self.clock.us(at));
            self.stages.push(Stage { kind, peer, at_us });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replica::Said;

    fn said(kind: MessageKind, index: u64, entries: u32) -> Said {
        Said { kind, reject: false, entries, term: Term(2), index: Index(index), commit: Index(0) }
    }

    impl Stages {
        fn tell_at_us(&self, at_us: u64, lane: Lane, events: &[Trace]) {
            self.tell_at(self.instant(at_us), lane, events);
        }
    }

    fn appended(first: u64, last: u64, term: u64) -> Trace {
        Trace::Appended { first: Index(first), last: Index(last), term: Term(term) }
    }

    /// What is known of an entry: kind, other member and microseconds since the start.
    fn of(stages: &Stages, term: u64, index: u64) -> Vec<(StageKind, u64, u64)> {
        let found = stages.of(Term(term), Index(index), Some(0));
        let tell = |stage: Stage| (stage.kind(), stage.peer, stage.at_us - stages.started_unix_us);
        found.into_iter().map(tell).collect()
    }

    #[test]
    fn a_leader_tells_the_first_event_that_reaches_an_entry() {
        let stages = Stages::default();
        let app = |to, index, entries| Trace::Sent {
            to,
            message: said(MessageKind::App, index, entries),
        };
        stages.tell_at_us(10, Lane::Mind, &[appended(5, 6, 2), app(2, 4, 2), app(3, 4, 1)]);
        stages.tell_at_us(11, Lane::Mind, &[appended(7, 9, 2), app(2, 6, 3), app(3, 5, 4)]);
        stages.tell_at_us(12, Lane::Log, &[Trace::Written { first: Index(5), last: Index(6) }]);
        stages.tell_at_us(15, Lane::Log, &[Trace::Synced { last: Index(6) }]);
        let matched = |node, index| Trace::Matched { node, index: Index(index) };
        stages.tell_at_us(16, Lane::Mind, &[matched(1, 6), matched(2, 5)]);
        let committed = |index| Trace::Committed { index: Index(index) };
        stages.tell_at_us(17, Lane::Mind, &[committed(5), matched(2, 9), committed(9)]);
        stages.tell_at_us(18, Lane::Apply, &[Trace::Applied { index: Index(9) }]);
        stages.tell_at_us(19, Lane::Store, &[Trace::FrameWritten { index: Index(9) }]);
        use StageKind::*;
        assert_eq!(
            of(&stages, 2, 6),
            [
                (Appended, 0, 10),
                (Sent, 2, 10),
                (Sent, 3, 11),
                (Written, 0, 12),
                (Synced, 0, 15),
                (Matched, 1, 16),
                (Matched, 2, 17),
                (Committed, 0, 17),
                (Applied, 0, 18),
                (FrameWritten, 0, 19),
            ]
        );
        assert_eq!(stages.applied_after(Index(9), 17), Some(stages.unix_us(18)));
        assert_eq!(stages.applied_after(Index(9), 18), None);
    }

    #[test]
    fn a_follower_tells_when_it_passed_on_and_acknowledged() {
        let stages = Stages::default();
        let prop = Trace::Sent { to: 1, message: said(MessageKind::Prop, 0, 1) };
        stages.tell_at_us(3, Lane::Mind, &[prop]);
        stages.tell_at_us(7, Lane::Mind, &[appended(4, 4, 2)]);
        let response = |index| Trace::Sent { to: 1, message: said(MessageKind::AppResp, index, 0) };
        stages.tell_at_us(8, Lane::Log, &[response(3)]);
        stages.tell_at_us(9, Lane::Log, &[response(4)]);
        use StageKind::*;
        assert_eq!(of(&stages, 2, 4), [(Forwarded, 1, 3), (Appended, 0, 7), (Acknowledged, 1, 9)]);
        // Somebody who does not know when the request came cannot tell which proposal it was.
        assert_eq!(stages.of(Term(2), Index(4), None).len(), 2);
    }

    #[test]
    fn an_entry_of_another_term_or_long_ago_is_not_known() {
        let stages = Stages::default();
        assert!(of(&stages, 1, 1).is_empty());
        stages.tell_at_us(1, Lane::Mind, &[appended(5, 5, 2)]);
        assert!(of(&stages, 3, 5).is_empty(), "the entry of term 3 did not come here");
        // Another leader's entry took its place.
        stages.tell_at_us(2, Lane::Mind, &[appended(5, 5, 3)]);
        let committed = Trace::Committed { index: Index(5) };
        stages.tell_at_us(3, Lane::Mind, &[committed]);
        stages.tell_at_us(3, Lane::Apply, &[Trace::Applied { index: Index(5) }]);
        use StageKind::*;
        assert_eq!(of(&stages, 3, 5), [(Appended, 0, 2), (Committed, 0, 3), (Applied, 0, 3)]);
        assert_eq!(of(&stages, 2, 5), [(Appended, 0, 1)], "it never was committed");
        for _ in 0..EVENTS_PER_LANE {
            stages.tell_at_us(4, Lane::Mind, &[committed]);
        }
        assert!(of(&stages, 3, 5).is_empty(), "it was forgotten");
        assert_eq!(stages.lane(Lane::Mind).len(), EVENTS_PER_LANE);
    }
}
