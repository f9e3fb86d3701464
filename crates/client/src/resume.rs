//! A watch that outlives its streams: what to ask for on each new stream, and what to hand on.
//!
//! A plain machine, without streams or clock. Its owner opens a stream, sends [`Resume::request`],
//! feeds every answer to [`Resume::on_response`], and says [`Resume::on_broken`] when the stream is
//! gone; then it opens the next one, until the machine has finished.
//!
//! ```text
//!   Closed ──request──▶ Opening ──created──▶ Open ──canceled──▶ Finished
//!     ▲                    │                   │                   ▲
//!     └──────on_broken─────┴───────────────────┴──(cannot be helped)┘
//! ```
//!
//! Invariants:
//! - `next` is the lowest revision whose events have not been handed on. It never goes back.
//! - Events below `next` are not handed on again, so nothing comes twice; each stream is asked to
//!   start at `next`, so nothing is left out.
//! - The pieces of a fragmented batch are handed on together: a batch that breaks off half way
//!   leaves `next` where it was, and comes whole from the next stream.
//! - A watch without start revision is given one by the first answer (the revision *after* which it
//!   watches); otherwise changes made while no stream was open would be lost.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use proto::etcdserverpb::{WatchCreateRequest, WatchResponse};

use crate::error::{Code, Error};

/// What a stream's answer means for the watcher.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing to hand on.
    Nothing,
    /// Hand this on: creation, events or progress.
    Deliver(WatchResponse),
    /// Hand this on, the last one: the member has cancelled the watch.
    Finished(WatchResponse),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Opening,
    Open { id: i64 },
    Finished,
}

/// One watch across its streams.
#[derive(Debug, Clone)]
pub struct Resume {
    request: WatchCreateRequest,
    /// A stream that breaks for want of a leader ends the watch.
    require_leader: bool,
    /// See the file's head; 0 until a member has said where the watch starts.
    next: i64,
    /// The creation has been handed on once.
    announced: bool,
    state: State,
    /// The pieces so far of a fragmented batch.
    pieces: Option<WatchResponse>,
}

impl Resume {
    /// A watch that was asked for with this request.
    pub fn new(request: WatchCreateRequest, require_leader: bool) -> Resume {
        let next = request.start_revision;
        Resume {
            request,
            require_leader,
            next,
            announced: false,
            state: State::Closed,
            pieces: None,
        }
    }

    /// A stream is open: what to send on it.
    ///
    /// # Panics
    /// If the watch has a stream already or has finished.
    pub fn request(&mut self) -> WatchCreateRequest {
        assert_eq!(self.state, State::Closed, "a watch has one stream at a time");
        self.state = State::Opening;
        WatchCreateRequest { start_revision: self.next, ..self.request.clone() }
    }

    /// The stream has brought this.
    pub fn on_response(&mut self, response: WatchResponse) -> Step {
        let step = self.step(response);
        assert!(self.next >= self.request.start_revision, "a watch never goes back");
        step
    }

    fn step(&mut self, response: WatchResponse) -> Step {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        match self.state {
            State::Closed | State::Finished => Step::Nothing,
            // A member refuses a watch by creating and cancelling it at once.
            _ if response.canceled => {
                self.state = State::Finished;
                self.pieces = None;
                Step::Finished(response)
            }
            State::Opening if response.created => {
                self.state = State::Open { id: response.watch_id };
                if self.next == 0 {
                    self.next = revision + 1;
                }
                if std::mem::replace(&mut self.announced, true) {
                    return Step::Nothing;
                }
                Step::Deliver(response)
            }
            // Nothing but the creation opens a watch; what comes before it belongs to nobody.
            State::Opening => Step::Nothing,
            // Progress that was asked for carries no watcher's id; everything else carries ours.
            State::Open { id } if response.watch_id != id && response.watch_id != -1 => {
                Step::Nothing
            }
            State::Open { .. } if response.events.is_empty() => {
                // Progress: all up to this revision has been sent on this stream.
                self.next = self.next.max(revision + 1);
                Step::Deliver(response)
            }
            State::Open { .. } => self.on_events(response),
        }
    }

    fn on_events(&mut self, mut response: WatchResponse) -> Step {
        let unfinished = std::mem::take(&mut response.fragment);
        let mut batch = match self.pieces.take() {
            Some(mut pieces) => {
                pieces.events.append(&mut response.events);
                pieces
            }
            None => response,
        };
        if unfinished {
            self.pieces = Some(batch);
            return Step::Nothing;
        }
        let next = self.next;
        batch.events.retain(|event| event.kv.as_ref().is_some_and(|kv| kv.mod_revision >= next));
        let Some(last) = batch.events.last().and_then(|event| event.kv.as_ref()) else {
            return Step::Nothing;
        };
        self.next = last.mod_revision + 1;
        Step::Deliver(batch)
    }

    /// The stream is gone (`None`: it ended without a status). Gives the error if the watch is over
    /// with it; otherwise a new stream is to be opened.
    pub fn on_broken(&mut self, error: Option<Error>) -> Result<(), Error> {
        if self.state == State::Finished {
            return Ok(());
        }
        self.pieces = None;
        self.state = State::Closed;
        match error {
            Some(error) if self.is_final(&error) => {
                self.state = State::Finished;
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Streams come and go with members; but what a member says about this very watch, or about
    /// having no leader when one is required, will not get better on the next stream.
    fn is_final(&self, error: &Error) -> bool {
        match error {
            Error::Status { message, .. } if message == "etcdserver: no leader" => {
                self.require_leader
            }
            Error::Status { code: Code::Unavailable | Code::Internal, .. } => false,
            // How a connection that went away under the stream looks from here.
            Error::Status { code: Code::Unknown | Code::Cancelled, message } => {
                message.starts_with("etcdserver: ") || message.starts_with("auth: ")
            }
            Error::DeadlineExceeded { .. } => false,
            _ => true,
        }
    }

    /// The lowest revision not handed on yet; 0 while no member has said where the watch starts.
    pub fn next_revision(&self) -> i64 {
        self.next
    }

    /// Whether nothing more will come.
    pub fn is_finished(&self) -> bool {
        self.state == State::Finished
    }
}

#[cfg(test)]
mod tests {
    use proto::{
        etcdserverpb::ResponseHeader,
        mvccpb::{Event, KeyValue},
    };

    use super::*;

    fn header(revision: i64) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision, ..Default::default() })
    }

    fn created(revision: i64) -> WatchResponse {
        WatchResponse { header: header(revision), watch_id: 7, created: true, ..Default::default() }
    }

    fn events(revisions: &[i64]) -> WatchResponse {
        let event = |&mod_revision| Event {
            kv: Some(KeyValue { mod_revision, ..Default::default() }),
            ..Default::default()
        };
        let events: Vec<_> = revisions.iter().map(event).collect();
        WatchResponse { header: header(1000), watch_id: 7, events, ..Default::default() }
    }

    /// What the watcher sees of a step: the revisions of its events.
    fn seen(step: Step) -> Vec<i64> {
        match step {
            Step::Deliver(response) => response
                .events
                .iter()
                .map(|event| event.kv.as_ref().unwrap().mod_revision)
                .collect(),
            Step::Nothing => Vec::new(),
            Step::Finished(_) => panic!("not over yet"),
        }
    }

    fn broken() -> Option<Error> {
        Some(Error::Status { code: Code::Unavailable, message: "broken pipe".to_owned() })
    }

    fn opened(start_revision: i64, revision: i64) -> Resume {
        let request = WatchCreateRequest { start_revision, ..Default::default() };
        let mut watch = Resume::new(request, true);
        assert_eq!(watch.request().start_revision, start_revision);
        assert!(matches!(watch.on_response(created(revision)), Step::Deliver(_)));
        watch
    }

    #[test]
    fn a_broken_watch_goes_on_after_the_last_event() {
        let mut watch = opened(0, 10);
        assert_eq!(seen(watch.on_response(events(&[11, 12]))), [11, 12]);
        watch.on_broken(broken()).unwrap();
        assert_eq!(watch.request().start_revision, 13);
        assert_eq!(watch.on_response(created(14)), Step::Nothing, "created once, for the watcher");
        assert_eq!(seen(watch.on_response(events(&[13, 14]))), [13, 14]);
    }

    #[test]
    fn a_watch_from_now_on_remembers_where_now_was() {
        let mut watch = opened(0, 10);
        watch.on_broken(None).unwrap();
        assert_eq!(watch.request().start_revision, 11, "changes made meanwhile are not lost");
    }

    #[test]
    fn nothing_is_handed_on_twice() {
        let mut watch = opened(5, 10);
        assert_eq!(seen(watch.on_response(events(&[5, 6, 6]))), [5, 6, 6]);
        watch.on_broken(broken()).unwrap();
        watch.request();
        watch.on_response(created(10));
        assert_eq!(seen(watch.on_response(events(&[6, 6, 7]))), [7]);
        assert_eq!(watch.on_response(events(&[7])), Step::Nothing);
    }

    #[test]
    fn progress_moves_the_start_of_the_next_stream() {
        let mut watch = opened(0, 10);
        let progress = WatchResponse { header: header(20), watch_id: -1, ..Default::default() };
        assert!(matches!(watch.on_response(progress), Step::Deliver(_)));
        watch.on_broken(broken()).unwrap();
        assert_eq!(watch.request().start_revision, 21);
    }

    #[test]
    fn a_watch_of_the_future_stays_in_the_future() {
        let mut watch = opened(50, 10);
        assert_eq!(watch.next_revision(), 50);
        watch.on_broken(broken()).unwrap();
        assert_eq!(watch.request().start_revision, 50);
    }

    #[test]
    fn pieces_come_together_or_again() {
        let mut watch = opened(5, 10);
        let piece = |revisions: &[i64]| WatchResponse { fragment: true, ..events(revisions) };
        assert_eq!(watch.on_response(piece(&[5, 6])), Step::Nothing);
        watch.on_broken(broken()).unwrap();
        assert_eq!(watch.request().start_revision, 5, "half a batch is no batch");
        watch.on_response(created(10));
        assert_eq!(watch.on_response(piece(&[5, 6])), Step::Nothing);
        assert_eq!(seen(watch.on_response(events(&[6]))), [5, 6, 6]);
        assert_eq!(watch.next_revision(), 7);
    }

    #[test]
    fn a_compaction_ends_the_watch() {
        let mut watch = opened(5, 10);
        let cancel = WatchResponse {
            watch_id: 7,
            canceled: true,
            compact_revision: 9,
            ..Default::default()
        };
        assert_eq!(watch.on_response(cancel.clone()), Step::Finished(cancel));
        assert!(watch.is_finished());
        assert!(watch.on_broken(broken()).is_ok());
        assert!(watch.is_finished(), "a broken stream does not wake it up");
    }

    #[test]
    fn for_want_of_a_leader_only_those_end_who_require_one() {
        let no_leader =
            Error::Status { code: Code::Unavailable, message: "etcdserver: no leader".to_owned() };
        let mut strict = opened(0, 10);
        assert_eq!(strict.on_broken(Some(no_leader.clone())), Err(no_leader.clone()));
        assert!(strict.is_finished());
        let mut patient = Resume::new(WatchCreateRequest::default(), false);
        patient.request();
        assert_eq!(patient.on_broken(Some(no_leader)), Ok(()));
        assert!(!patient.is_finished());
    }

    #[test]
    fn another_watchers_events_are_not_ours() {
        let mut watch = opened(0, 10);
        let foreign = WatchResponse { watch_id: 8, ..events(&[11]) };
        assert_eq!(watch.on_response(foreign), Step::Nothing);
        assert_eq!(watch.next_revision(), 11);
    }
}
