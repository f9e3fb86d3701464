//! What a watcher is told: nothing missing, nothing twice, nothing out of order, and what is told is true.
//!
//! A [`Watcher`] stands beside one watch for all its life, over however many connections, and holds each response
//! against the changes that the model of the store has made, as it comes:
//!
//! ```text
//!   new ── created ──▶ next known ── events ──▶ next moves behind them ── progress ──▶ next moves behind it
//!                        ▲                                                                │
//!                        └────────── connection lost · resume from next ◀─────────────────┘
//!   a compaction may cancel it, if it stood before the mark
//! ```
//!
//! Because the changes are at hand, a gap is seen in the very response that leaves it, not when the missing event
//! never comes. What a response breaks is named by the [`Promise`], each of which etcd makes to its watchers.

use std::fmt;

use bytes::Bytes;
use proto::etcdserverpb::watch_create_request::FilterType;
use proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use proto::mvccpb::event::EventType;
use proto::mvccpb::{Event, KeyValue};

use crate::model::{Change, Model, contains};

/// What is promised to a watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// Events come in the order of their revisions, and within one in the order of its changes.
    Ordered,
    /// No event comes twice.
    Unique,
    /// The events of a revision come in one response, unless fragments were asked for.
    Atomic,
    /// No event is left out.
    Reliable,
    /// A watch begins at the revision that it was asked to begin at, be it again, and ends by itself only if what it
    /// needs was compacted away.
    Resumable,
    /// Whoever has been told of a progress has been told of everything up to it, and the header of a response is not
    /// behind its events.
    Bookmarkable,
    /// Nothing comes that was not asked for.
    Filtered,
    /// What was there before comes along if it was asked for, and only then.
    Previous,
    /// An event that makes a key says so, and no other does.
    Creation,
    /// What an event says is what happened.
    True,
}

/// All of them.
pub const PROMISES: [Promise; 10] = [
    Promise::Ordered,
    Promise::Unique,
    Promise::Atomic,
    Promise::Reliable,
    Promise::Resumable,
    Promise::Bookmarkable,
    Promise::Filtered,
    Promise::Previous,
    Promise::Creation,
    Promise::True,
];

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub promise: Promise,
    /// How, in a sentence.
    pub why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.promise, self.why)
    }
}

fn broken<T>(promise: Promise, why: String) -> Result<T, Broken> {
    Err(Broken { promise, why })
}

/// Something in the life of a watch, as it was recorded.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// It is asked for: first of all, and again after each break.
    Asked(WatchCreateRequest),
    /// A response comes.
    Told(WatchResponse),
}

impl Step {
    /// How many events come with it.
    pub fn events(&self) -> usize {
        match self {
            Step::Asked(_) => 0,
            Step::Told(response) => response.events.len(),
        }
    }
}

/// Judges a whole recorded watch, beside the model of all that happened to the keys.
///
/// # Errors
/// The first promise that is broken.
pub fn check(model: &Model, steps: &[Step]) -> Result<(), Broken> {
    let mut watcher: Option<Watcher> = None;
    for step in steps {
        match (step, &mut watcher) {
            (Step::Asked(asked), None) => watcher = Some(Watcher::new(asked.clone())),
            (Step::Asked(asked), Some(watcher)) => {
                let resumed = watcher.resume();
                if *asked != resumed {
                    let why = format!("{asked:?} was asked for, not {resumed:?}");
                    return broken(Promise::Resumable, why);
                }
            }
            (Step::Told(response), Some(watcher)) => watcher.on_response(model, response)?,
            (Step::Told(_), None) => {
                return broken(Promise::Filtered, "nobody had asked for anything".to_owned());
            }
        }
    }
    Ok(())
}

/// One watch, and how far it has been told.
#[derive(Clone, Debug)]
pub struct Watcher {
    asked: WatchCreateRequest,
    /// The first revision of this connection; 0 until it is known.
    start: i64,
    /// The first revision not told of; 0 until it is known.
    next: i64,
    /// It goes on after a break, and has been told nothing since.
    has_resumed: bool,
    /// Events of a response that has not come whole.
    fragments: Vec<Event>,
}

/// Whether a compaction has left nothing of a change that it need not keep: at the mark's revision, as at those below, a key
/// has its last change alone. (A put and a delete of one key in one revision: etcd overlooks deletes of everything from a
/// key on where it refuses that.)
fn is_overtaken(model: &Model, change: &Change) -> bool {
    change.main <= model.mark()
        && model
            .changes(change.main, change.main)
            .iter()
            .any(|other| other.key == change.key && other.sub > change.sub)
}

impl Watcher {
    /// A watch that was asked for.
    pub fn new(asked: WatchCreateRequest) -> Watcher {
        let start = asked.start_revision;
        Watcher { asked, start, next: start, has_resumed: false, fragments: Vec::new() }
    }

    /// The connection is lost: what is asked for on another, from where it broke off. A response that has not come
    /// whole has not come.
    pub fn resume(&mut self) -> WatchCreateRequest {
        self.fragments.clear();
        self.start = self.next;
        self.has_resumed = self.next > 0;
        WatchCreateRequest { start_revision: self.next, ..self.asked.clone() }
    }

    /// The first revision not told of; 0 until it is known.
    pub fn next(&self) -> i64 {
        self.next
    }

    /// What has happened up to a revision, and has not been told.
    pub fn missed<'m>(&self, model: &'m Model, to: i64) -> Vec<&'m Change> {
        let changes = model.changes(self.next.max(1), to).iter();
        changes.filter(|change| self.wants(&change.key, change.is_put)).collect()
    }

    /// What was asked for, the first time.
    pub fn asked(&self) -> &WatchCreateRequest {
        &self.asked
    }

    fn wants(&self, key: &Bytes, is_put: bool) -> bool {
        let unwanted = if is_put { FilterType::Noput } else { FilterType::Nodelete };
        // The empty key stands for the first that there can be.
        let start = if self.asked.key.is_empty() { &[0][..] } else { &self.asked.key[..] };
        contains(start, &self.asked.range_end, key)
            && !self.asked.filters.contains(&(unwanted as i32))
    }

    /// The next response.
    ///
    /// # Errors
    /// The promise that it breaks.
    pub fn on_response(&mut self, model: &Model, response: &WatchResponse) -> Result<(), Broken> {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if response.created && self.next == 0 {
            (self.start, self.next) = (revision + 1, revision + 1);
        }
        if response.canceled {
            return self.check_cancel(model, response.compact_revision);
        }
        if response.fragment && !self.asked.fragment {
            return broken(Promise::Atomic, "a fragment came, and was not asked for".to_owned());
        }
        if !response.events.is_empty() && self.next == 0 {
            return broken(Promise::Ordered, "events came before it was created".to_owned());
        }
        if response.fragment {
            self.fragments.extend(response.events.iter().cloned());
            return Ok(());
        }
        if response.events.is_empty() && self.fragments.is_empty() {
            return if response.created { Ok(()) } else { self.on_progress(model, revision) };
        }
        let joined;
        let events = match self.fragments.is_empty() {
            true => &response.events,
            false => {
                self.fragments.extend(response.events.iter().cloned());
                joined = std::mem::take(&mut self.fragments);
                &joined
            }
        };
        let last = self.check_events(model, events)?;
        if revision < last {
            let why = format!("an event of {last} came under a header of {revision}");
            return broken(Promise::Bookmarkable, why);
        }
        self.next = last + 1;
        self.has_resumed = false;
        Ok(())
    }

    fn check_cancel(&self, model: &Model, compacted: i64) -> Result<(), Broken> {
        let mark = model.mark();
        // A cancel without a mark is one that was asked for, or says that the request was none.
        if compacted != 0 && (compacted > mark || self.next >= compacted) {
            return broken(
                Promise::Resumable,
                format!("at {} it was cancelled for the mark {compacted}; it is {mark}", self.next),
            );
        }
        Ok(())
    }

    fn on_progress(&mut self, model: &Model, revision: i64) -> Result<(), Broken> {
        let known = model.revision();
        if revision > known {
            let why = format!("progress to {revision}, where {known} is the last revision");
            return broken(Promise::Bookmarkable, why);
        }
        if self.next == 0 {
            return Ok(());
        }
        let missed = self.missed(model, revision);
        if let Some(change) = missed.first() {
            let why = format!(
                "progress to {revision}, but {} events from {} on never came",
                missed.len(),
                change.main
            );
            return broken(Promise::Bookmarkable, why);
        }
        self.next = self.next.max(revision + 1);
        Ok(())
    }

    /// Checks the events of a whole response, and returns the revision of the last.
    fn check_events(&self, model: &Model, events: &[Event]) -> Result<i64, Broken> {
        let mut told: Vec<(&Event, &KeyValue)> = Vec::with_capacity(events.len());
        for event in events {
            let Some(kv) = &event.kv else {
                return broken(Promise::True, "an event came without its key".to_owned());
            };
            told.push((event, kv));
        }
        let last = told.last().map_or(0, |(_, kv)| kv.mod_revision);
        let mut wanted = self.missed(model, last);
        wanted.retain(|change| {
            let place = (change.main, &change.key, change.is_put);
            !is_overtaken(model, change)
                || told.iter().any(|(event, kv)| place_of(event, kv) == place)
        });
        let same = |((event, kv), change): (&(&Event, &KeyValue), &&Change)| {
            place_of(event, kv) == (change.main, &change.key, change.is_put)
        };
        if wanted.len() != told.len() || !told.iter().zip(&wanted).all(same) {
            return self.name_difference(model, &told, &wanted);
        }
        for ((event, kv), change) in told.into_iter().zip(wanted) {
            if *kv != change.kv {
                let (was, is) = (&change.kv, kv);
                let made = |kv: &KeyValue| (kv.version, kv.create_revision);
                let promise = if made(was) == made(is) { Promise::True } else { Promise::Creation };
                return broken(promise, format!("{is:?} came, {was:?} happened"));
            }
            self.check_previous(model, event, change)?;
        }
        Ok(last)
    }

    /// What was there before a revision below the mark may be gone.
    fn check_previous(&self, model: &Model, event: &Event, change: &Change) -> Result<(), Broken> {
        let fits = match (&event.prev_kv, &change.previous) {
            (None, Some(_)) => !self.asked.prev_kv || change.main - 1 < model.mark(),
            (None, None) => true,
            (told, was) => self.asked.prev_kv && told == was,
        };
        if fits {
            return Ok(());
        }
        let asked = if self.asked.prev_kv { "" } else { " unasked" };
        broken(
            Promise::Previous,
            format!(
                "before {} there was {:?}, and {:?} came{asked}",
                change.main, change.previous, event.prev_kv
            ),
        )
    }

    /// The events are not those that should have come: which promise that breaks.
    fn name_difference(
        &self,
        model: &Model,
        told: &[(&Event, &KeyValue)],
        wanted: &[&Change],
    ) -> Result<i64, Broken> {
        let revisions: Vec<i64> = told.iter().map(|(_, kv)| kv.mod_revision).collect();
        let missing: Vec<&&Change> = wanted
            .iter()
            .filter(|change| {
                let place = (change.main, &change.key, change.is_put);
                !told.iter().any(|(event, kv)| place_of(event, kv) == place)
            })
            .collect();
        let last = revisions.last().copied().unwrap_or(0);
        let strange = told.iter().find(|(event, kv)| !self.wants(&kv.key, event.r#type == PUT));
        let unheard = told.iter().find(|(event, kv)| {
            let happened = model.changes(kv.mod_revision, kv.mod_revision).iter();
            let mut places = happened.map(|change| (change.main, &change.key, change.is_put));
            !places.any(|place| place == place_of(event, kv))
        });
        let (promise, why) = if let Some((_, kv)) = strange {
            (Promise::Filtered, format!("an event of {:?} was not asked for", kv.key))
        } else if let Some((_, kv)) = unheard {
            (Promise::True, format!("nothing happened to {:?} at {}", kv.key, kv.mod_revision))
        } else if !revisions.is_sorted() {
            (Promise::Ordered, "they are not in the order of their revisions".to_owned())
        } else if revisions.first().is_some_and(|first| *first < self.start) {
            (Promise::Resumable, format!("it was to begin at {}", self.start))
        } else if revisions.first().is_some_and(|first| *first < self.next) {
            (Promise::Unique, "some had come before".to_owned())
        } else if told.len() > wanted.len() - missing.len() {
            (Promise::Unique, "some came twice".to_owned())
        } else if missing.is_empty() {
            (Promise::Ordered, format!("those of a revision came in another order, up to {last}"))
        } else if missing.iter().all(|change| change.main == last) {
            (Promise::Atomic, format!("of {last}, {} events did not come along", missing.len()))
        } else if self.has_resumed && missing.iter().all(|change| change.main < revisions[0]) {
            (Promise::Resumable, format!("it went on behind {}", missing[0].main))
        } else {
            (Promise::Reliable, format!("the event of {} did not come", missing[0].main))
        };
        broken(promise, format!("next {}, told of {revisions:?}: {why}", self.next))
    }
}

const PUT: i32 = EventType::Put as i32;

/// What tells an event from all others.
fn place_of<'e>(event: &Event, kv: &'e KeyValue) -> (i64, &'e Bytes, bool) {
    (kv.mod_revision, &kv.key, event.r#type == PUT)
}
