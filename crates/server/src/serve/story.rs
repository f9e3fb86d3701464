//! What a unary request went through on this member, told when it is answered: to its client if that asked for it
//! (`grpc/trace.rs`), and to the list of the slowest ([`crate::slow`]).
//!
//! A story travels with the way back to the client, so whoever answers need not know of it. What happened in between
//! is looked up when it is told: in the lanes of the threads ([`crate::stages`]) and in what its shard remembers of its
//! turns.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{self, WireType};
use proto::quorate::v1::{Record, Stage, StageKind, TraceResponse};
use raft::{Index, Term};

use crate::handle::Node;
use crate::serve::status::{Code, Status};
use crate::serve::stream::{PREFIX_BYTES, message};

/// Turns, and rounds of read indexes, that a shard remembers.
const TURNS: usize = 1_024;
/// Bytes of a key that a record shows.
const KEY_BYTES: usize = 128;

/// What a shard remembers of its turns.
pub struct Chronicle {
    node: Arc<Node>,
    /// When proposals were handed to the replica; the newest [`TURNS`].
    handed_in: RefCell<VecDeque<Instant>>,
    /// Read indexes that were asked for; the newest [`TURNS`].
    rounds: RefCell<VecDeque<Round>>,
}

/// One question for a read index.
struct Round {
    batch: u64,
    asked_us: u64,
    confirmed: Option<(u64, Index)>,
}

fn remember<T>(list: &RefCell<VecDeque<T>>, item: T) {
    let mut list = list.borrow_mut();
    if list.len() == TURNS {
        list.pop_front();
    }
    list.push_back(item);
}

impl Chronicle {
    /// Nothing has happened yet.
    pub fn new(node: Arc<Node>) -> Rc<Chronicle> {
        Rc::new(Chronicle { node, handed_in: RefCell::default(), rounds: RefCell::default() })
    }

    fn is_on(&self) -> bool {
        self.node.config.tracing.is_on()
    }

    /// The time, if stories are told.
    pub fn now(&self) -> Option<Instant> {
        self.is_on().then(Instant::now)
    }

    /// Proposals were handed in then.
    pub fn hand_in(&self, at: Option<Instant>) {
        if let Some(at) = at {
            remember(&self.handed_in, at);
        }
    }

    /// A read index was asked for.
    pub fn ask(&self, batch: u64) {
        if !self.is_on() {
            return;
        }
        let asked_us = self.node.stages.now_us();
        remember(&self.rounds, Round { batch, asked_us, confirmed: None });
    }

    /// It was confirmed.
    pub fn confirm(&self, batch: u64, index: Index) {
        let mut rounds = self.rounds.borrow_mut();
        if let Some(round) = rounds.iter_mut().rev().find(|round| round.batch == batch) {
            round.confirmed = Some((self.node.stages.now_us(), index));
        }
    }
}

/// Which way a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// It is answered from what this member has.
    Direct,
    /// It waits for a read index.
    Read,
    /// It was proposed, and nothing is known of it yet.
    Proposed,
    /// It was applied.
    Applied { term: Term, index: Index, revision: i64 },
}

/// One request, from its message to its answer.
pub struct Story {
    chronicle: Rc<Chronicle>,
    path: &'static str,
    /// By `Stages::now_us`.
    began_us: u64,
    /// When it was given to a read thread, by the same; 0 if it was not.
    read_us: u64,
    request_bytes: usize,
    /// The beginning of the key, if it has one.
    key: [u8; KEY_BYTES],
    key_bytes: u8,
    course: Course,
    /// The number of the response's field in [`TraceResponse`], if the client wants to know.
    traced: Option<u32>,
    /// It was told.
    ended: bool,
}

impl Story {
    /// A request of this method, which was read at `began_us`; `None` if the member is not traced.
    pub fn new(chronicle: &Rc<Chronicle>, path: &'static str, began_us: u64) -> Option<Box<Story>> {
        let story = || Story {
            chronicle: chronicle.clone(),
            path,
            began_us,
            read_us: 0,
            request_bytes: 0,
            key: [0; KEY_BYTES],
            key_bytes: 0,
            course: Course::Direct,
            traced: None,
            ended: false,
        };
        // In a box, for it goes from hand to hand.
        chronicle.is_on().then(|| Box::new(story()))
    }

    /// The client wants to be told; it is another method's answer that it waits for. `field` is where that stands in
    /// [`TraceResponse`].
    pub fn trace(&mut self, path: &'static str, field: u32) {
        self.path = path;
        self.traced = Some(field);
    }

    /// So long is its message.
    pub fn weigh(&mut self, bytes: usize) {
        self.request_bytes = bytes;
    }

    /// It is given to a read thread.
    pub fn read_elsewhere(&mut self) {
        self.read_us = self.chronicle.node.stages.now_us();
    }

    /// What it is about.
    pub fn about(&mut self, key: &[u8]) {
        let bytes = key.len().min(KEY_BYTES);
        self.key[..bytes].copy_from_slice(&key[..bytes]);
        self.key_bytes = bytes as u8;
    }

    /// It is on its way into the log.
    pub fn propose(&mut self) {
        self.course = Course::Proposed;
    }

    /// It waits for a read index.
    pub fn read(&mut self) {
        self.course = Course::Read;
    }

    /// It is applied.
    pub fn apply(&mut self, term: Term, index: Index, revision: i64) {
        self.course = Course::Applied { term, index, revision };
    }

    /// It is answered so: what the client gets. A request that is traced gets its record even if it failed.
    pub fn end(
        mut self: Box<Self>,
        answer: Result<Bytes, Status>,
        client: Option<SocketAddr>,
    ) -> Result<Bytes, Status> {
        self.ended = true;
        let node = &self.chronicle.node;
        let now_us = node.stages.now_us();
        let took_us = now_us.saturating_sub(self.began_us);
        let is_slow = self.is_slow(now_us, took_us);
        if !is_slow && self.traced.is_none() {
            return answer;
        }
        let mut record = self.record(now_us, answer.as_ref().err());
        record.response_bytes =
            answer.as_ref().map_or(0, |message| (message.len() - PREFIX_BYTES) as u64);
        record.client = client.map(|client| client.to_string()).unwrap_or_default();
        if is_slow {
            node.slow.add(now_us, record.clone());
        }
        match self.traced {
            Some(field) => Ok(with_record(field, answer.ok(), record)),
            None => answer,
        }
    }

    /// Whether it belongs to the slowest. Who looks at the others is not one of them.
    fn is_slow(&self, now_us: u64, took_us: u64) -> bool {
        self.chronicle.node.slow.is_slow(now_us, took_us) && !self.path.starts_with("/quorate.")
    }

    fn record(&self, now_us: u64, error: Option<&Status>) -> Record {
        let node = &self.chronicle.node;
        let (term, index, revision) = match self.course {
            Course::Applied { term, index, revision } => (term.0, index.0, revision),
            Course::Direct | Course::Read | Course::Proposed => (0, 0, 0),
        };
        Record {
            member_id: node.identity.node_id,
            leader: node.view.leader(),
            method: self.path.to_string(),
            key: Bytes::copy_from_slice(&self.key[..usize::from(self.key_bytes)]),
            began_us: node.stages.unix_us(self.began_us),
            took_us: now_us.saturating_sub(self.began_us),
            term,
            index,
            revision,
            code: error.map_or(0, |status| status.code),
            error: error.map(|status| status.text.clone()).unwrap_or_default(),
            stages: self.stages(now_us),
            request_bytes: self.request_bytes as u64,
            response_bytes: 0,
            client: String::new(),
        }
    }

    fn stages(&self, now_us: u64) -> Vec<Stage> {
        let stages = &self.chronicle.node.stages;
        let stage = |kind: StageKind, at_us: u64| Stage {
            kind: kind.into(),
            peer: 0,
            at_us: stages.unix_us(at_us),
        };
        let mut told = vec![stage(StageKind::Received, self.began_us)];
        match self.course {
            Course::Direct => {}
            Course::Proposed | Course::Applied { .. } => {
                let handed_in = self.chronicle.handed_in.borrow();
                let began = stages.instant(self.began_us);
                let at = handed_in.get(handed_in.partition_point(|at| *at < began));
                told.extend(at.map(|at| stage(StageKind::HandedIn, stages.us(*at))));
            }
            Course::Read => {
                let rounds = self.chronicle.rounds.borrow();
                if let Some(round) = rounds.iter().find(|round| round.asked_us >= self.began_us) {
                    told.push(stage(StageKind::ReadIndexAsked, round.asked_us));
                    if let Some((at_us, index)) = round.confirmed {
                        told.push(stage(StageKind::ReadIndexConfirmed, at_us));
                        let applied_us = stages.applied_after(index, at_us);
                        told.extend(applied_us.map(|at_us| Stage {
                            kind: StageKind::Applied.into(),
                            peer: 0,
                            at_us,
                        }));
                    }
                }
            }
        }
        if let Course::Applied { term, index, .. } = self.course {
            told.extend(stages.of(term, index, Some(self.began_us)));
        }
        if self.read_us > 0 {
            told.push(stage(StageKind::ReadBegun, self.read_us));
        }
        told.push(stage(StageKind::Answered, now_us));
        told.sort_by_key(|stage| stage.at_us);
        told
    }
}

/// Whoever drops a story that was not told has found that its client waits no more.
impl Drop for Story {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let node = &self.chronicle.node;
        let now_us = node.stages.now_us();
        if self.is_slow(now_us, now_us.saturating_sub(self.began_us)) {
            let gone = Status::new(Code::Canceled, "the client did not wait for the answer");
            node.slow.add(now_us, self.record(now_us, Some(&gone)));
        }
    }
}

/// A [`TraceResponse`] with this answer, a message with its prefix, in this field.
fn with_record(field: u32, answer: Option<Bytes>, record: Record) -> Bytes {
    let rest = TraceResponse { response: None, record: Some(record) };
    message(&mut BytesMut::new(), |out| {
        if let Some(answer) = answer {
            encoding::encode_key(field, WireType::LengthDelimited, out);
            encoding::encode_varint((answer.len() - PREFIX_BYTES) as u64, out);
            out.put_slice(&answer[PREFIX_BYTES..]);
        }
        out.put_slice(&rest.encode_to_vec());
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::etcdserverpb::PutResponse;
    use proto::quorate::v1::trace_response::Response;

    #[test]
    fn an_answer_stands_in_its_field_beside_the_record() {
        let header = proto::etcdserverpb::ResponseHeader { revision: 7, ..Default::default() };
        let put = PutResponse { header: Some(header), prev_kv: None };
        let answer = message(&mut BytesMut::new(), |out| out.put_slice(&put.encode_to_vec()));
        let record = Record { took_us: 5, ..Record::default() };
        for (answer, response) in [(Some(answer), Some(Response::Put(put))), (None, None)] {
            let told = with_record(2, answer, record.clone()).slice(PREFIX_BYTES..);
            let told = TraceResponse::decode(told).unwrap();
            assert_eq!(told, TraceResponse { response, record: Some(record.clone()) });
        }
    }
}
