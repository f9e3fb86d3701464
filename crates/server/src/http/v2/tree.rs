//! The tree as it lies in the keyspace: reading it, and changing it by transactions until one of them holds.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::response_op::Response as Answer;
use proto::etcdserverpb::{RangeRequest, RangeResponse, RequestOp, TxnRequest};
use proto::mvccpb::KeyValue;

use super::error::{Code, Error};
use super::event::{self, Event};
use super::node::{self, DEPTH_MAX, Node, Path};
use super::operation::{self, Decision, Look, Operation, Seen};
use super::request::KeyRequest;
use crate::grpc::txn_of_page;
use crate::serve::shard::Shard;
use crate::serve::status::Status;

/// Events that are read at a time out of the history.
const EVENTS_PER_READ: i64 = 16;

/// Nodes that are expired at a time.
const EXPIRIES_PER_LOOK: i64 = 64;
/// How often the leader looks for what has expired: TTLs are whole seconds.
pub const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);

/// Nanoseconds since 1970.
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Reads a node and, if it is a directory, what lies below: this member's own view, or with `quorum` the cluster's.
pub async fn get(shard: &Rc<Shard>, request: &KeyRequest) -> Result<(Event, u64), Error> {
    let path = &request.path;
    let (seen, below) = read(shard, &Looks::at(path), Some(path), !request.quorum).await?;
    match operation::get(request, &seen, &below, now_ns()) {
        Ok(event) => Ok((event, seen.index)),
        Err(Decision::Refused(error)) => Err(error),
        Err(_) => Err(not_ours(&path.shown())),
    }
}

/// Does what changes something. Changes of one member stand in line, so that they do not spoil each other's
/// transactions; those of other members may, and then it is decided anew, until the request's time is over.
pub async fn change(shard: &Rc<Shard>, request: &KeyRequest) -> Result<Event, Error> {
    let patience = shard.node.config.request_timeout();
    let operation = Operation::of(request);
    match tokio::time::timeout(patience, change_in_turn(shard, &operation, request)).await {
        Ok(changed) => changed,
        Err(_) => {
            let began = shard.now_ms().saturating_sub(patience.as_millis() as u64);
            Err(failed(&shard.timed_out(began, false)))
        }
    }
}

async fn change_in_turn(
    shard: &Rc<Shard>,
    operation: &Operation,
    request: &KeyRequest,
) -> Result<Event, Error> {
    let _turn = shard.node.v2.turn.lock().await;
    let mut looks = Looks::at(&request.path);
    // Whether this member is known to have all that was acknowledged before the request came. A change needs no such
    // proof, for its transaction holds or not; a refusal does.
    let (mut prove, mut proven) = (false, false);
    loop {
        let (seen, _) = read(shard, &looks, None, !prove).await?;
        proven |= prove;
        match operation::decide(operation, request, &seen, now_ns()) {
            Decision::Look(look) => looks.add(look),
            Decision::Refused(error) if proven => return Err(error),
            Decision::Refused(_) => prove = true,
            Decision::Change(change) => {
                let done = txn_of_page(shard, change.transaction(&seen)).await;
                if done.map_err(|status| failed(&status))?.succeeded {
                    return Ok(change.event);
                }
                // Our own transaction is applied here, and with it all that came before.
                (prove, proven) = (false, true);
            }
        }
    }
}

/// Expires what is to be expired by now, at most a batch; only on the leader, whose clock it is. Whether there was
/// more than a batch.
pub async fn expire(shard: &Rc<Shard>) -> Result<bool, Error> {
    let (key, range_end) = node::expired_notes(now_ns());
    let due = RangeRequest {
        key,
        range_end,
        limit: EXPIRIES_PER_LOOK,
        keys_only: true,
        serializable: true,
        ..RangeRequest::default()
    };
    let answer = ranges(shard, vec![due]).await?.remove(0);
    for note in &answer.kvs {
        if let Some((path, _)) = Path::of_expiry_key(&note.key) {
            expire_one(shard, path, &note.key).await?;
        }
    }
    Ok(answer.more)
}

/// Removes a node whose note is due, or the note if the node is another by now. What another member has changed
/// meanwhile is looked at again the next time.
async fn expire_one(shard: &Rc<Shard>, path: Path, note: &Bytes) -> Result<(), Error> {
    let _turn = shard.node.v2.turn.lock().await;
    let (seen, _) = read(shard, &Looks::at(&path), None, true).await?;
    let expires = match seen.nodes.get(&path) {
        Some(Some((node, _))) => node.expires.filter(|expires| path.expiry_key(*expires) == note),
        _ => None,
    };
    let request = KeyRequest::of_path(path);
    let decision =
        expires.map(|at| operation::decide(&Operation::Expire(at), &request, &seen, now_ns()));
    let (transaction, expires) = match &decision {
        Some(Decision::Change(change)) => (change.transaction(&seen), true),
        _ => (operation::forget_note(note.clone(), &seen), false),
    };
    let done = txn_of_page(shard, transaction).await.map_err(|status| failed(&status))?;
    if done.succeeded && expires {
        shard.node.v2.counts.expired.add(1);
    }
    Ok(())
}

/// What the past says to who asks for the changes of a path from an index on.
pub enum Past {
    /// This was the first of them.
    Event(Box<Event>),
    /// There was none up to the index at which it was asked.
    Nothing,
}

/// Looks for the first change of `path` from `since` on (0: none but those to come). Also gives the v2 index at which
/// it looked last.
pub async fn past(
    shard: &Rc<Shard>,
    path: &Path,
    recursive: bool,
    since: u64,
) -> Result<(Past, u64), Error> {
    let mut next = since;
    loop {
        let from = |index| RangeRequest {
            key: event::key(index),
            range_end: event::end(),
            serializable: true,
            ..RangeRequest::default()
        };
        let index = RangeRequest { serializable: true, ..key(node::INDEX.into()) };
        let mut asked = vec![index];
        if since > 0 {
            asked.push(RangeRequest { limit: 1, keys_only: true, ..from(0) });
            asked.push(RangeRequest { limit: EVENTS_PER_READ, ..from(next) });
        }
        let answers = ranges(shard, asked).await?;
        let index = read_index(&answers[0])?.0;
        let [_, oldest, events] = answers.as_slice() else { return Ok((Past::Nothing, index)) };
        let oldest = oldest.kvs.first().and_then(|first| event::index_of(&first.key));
        if let Some(oldest) = oldest.filter(|oldest| next < *oldest) {
            let cause = format!("the requested history has been cleared [{oldest}/{next}]");
            return Err(Error::new(Code::EventIndexCleared, cause, index));
        }
        for stored in &events.kvs {
            let event = Event::decode(&stored.value).ok_or_else(|| not_ours(&stored.key))?;
            next = event.node.modified + 1;
            if event.is_past_of(path, recursive) {
                return Ok((Past::Event(Box::new(event)), index));
            }
        }
        if !events.more {
            return Ok((Past::Nothing, index));
        }
    }
}

/// What is read for a decision.
#[derive(Default)]
struct Looks {
    nodes: BTreeSet<Path>,
    /// Directories of which it matters whether they have children.
    children: BTreeSet<Path>,
}

impl Looks {
    /// A node and all above it.
    fn at(path: &Path) -> Looks {
        let mut looks = Looks::default();
        looks.add(Look::Node(path.clone()));
        looks
    }

    fn add(&mut self, look: Look) {
        match look {
            // Of a path that is too long, one part more than there can be: it is missing.
            Look::Node(path) => self.nodes.extend(path.line().take(DEPTH_MAX + 1)),
            Look::Children(path) => drop(self.children.insert(path)),
        }
    }
}

/// Reads nodes, whether directories have children, and all nodes below one, at one revision.
async fn read(
    shard: &Rc<Shard>,
    looks: &Looks,
    below: Option<&Path>,
    serializable: bool,
) -> Result<(Seen, Vec<(Path, Node)>), Error> {
    let mut asked = vec![key(node::INDEX.into())];
    asked.extend(looks.nodes.iter().map(|path| key(path.key())));
    asked.extend(looks.children.iter().map(|path| {
        let (key, range_end) = path.below();
        RangeRequest { key, range_end, limit: 1, keys_only: true, ..RangeRequest::default() }
    }));
    asked.extend(below.map(|path| {
        let (key, range_end) = path.below();
        RangeRequest { key, range_end, ..RangeRequest::default() }
    }));
    asked.iter_mut().for_each(|range| range.serializable = serializable);
    let mut answers = ranges(shard, asked).await?.into_iter();
    let mut answer = move || answers.next().ok_or_else(|| not_ours(b"an answer"));
    let (index, index_revision) = read_index(&answer()?)?;
    let mut seen = Seen { index, index_revision, ..Seen::default() };
    for path in &looks.nodes {
        let found = match answer()?.kvs.first() {
            Some(stored) => Some((decode(stored)?.1, stored.mod_revision)),
            None => None,
        };
        seen.nodes.insert(path.clone(), found);
    }
    for path in &looks.children {
        seen.children.insert(path.clone(), !answer()?.kvs.is_empty());
    }
    let below = match below {
        Some(_) => answer()?.kvs.iter().map(decode).collect::<Result<Vec<_>, _>>()?,
        None => Vec::new(),
    };
    Ok((seen, below))
}

fn key(key: Bytes) -> RangeRequest {
    RangeRequest { key, ..RangeRequest::default() }
}

async fn ranges(shard: &Rc<Shard>, asked: Vec<RangeRequest>) -> Result<Vec<RangeResponse>, Error> {
    let count = asked.len();
    let op = |range| RequestOp { request: Some(Op::RequestRange(range)) };
    let success = asked.into_iter().map(op).collect();
    let request = TxnRequest { success, ..TxnRequest::default() };
    let answer = txn_of_page(shard, request).await.map_err(|status| failed(&status))?;
    let ranges: Vec<RangeResponse> = answer
        .responses
        .into_iter()
        .filter_map(|response| match response.response {
            Some(Answer::ResponseRange(range)) => Some(range),
            _ => None,
        })
        .collect();
    match ranges.len() == count {
        true => Ok(ranges),
        false => Err(not_ours(b"an answer")),
    }
}

fn read_index(answer: &RangeResponse) -> Result<(u64, i64), Error> {
    match answer.kvs.first() {
        None => Ok((0, 0)),
        Some(stored) => match super::go::unsigned(&stored.value) {
            Some(index) => Ok((index, stored.mod_revision)),
            None => Err(not_ours(&stored.key)),
        },
    }
}

fn decode(stored: &KeyValue) -> Result<(Path, Node), Error> {
    let path = Path::of_key(&stored.key);
    let node = Node::decode(&stored.value);
    path.zip(node).ok_or_else(|| not_ours(&stored.key))
}

/// What a v3 client has written where only v2 records lie is not interpreted.
fn not_ours(key: &[u8]) -> Error {
    let cause = [b"not a record of the v2 API: ", key].concat();
    Error::new(Code::RaftInternal, cause, 0)
}

fn failed(status: &Status) -> Error {
    Error::new(Code::RaftInternal, status.text.clone(), 0)
}

/// The event that a change of the keyspace brings, if it is a new event's record.
pub fn told(change: &mvcc::Event) -> Option<Event> {
    event::index_of(&change.key)?;
    if change.kind != mvcc::EventKind::Put {
        return None;
    }
    Event::decode(&KeyValue::decode(change.kv.clone()).ok()?.value)
}
