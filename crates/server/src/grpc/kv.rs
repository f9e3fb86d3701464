//! Put, Range, DeleteRange, Txn, Compact.
//!
//! Writes become commands and wait for their reply. Reads wait for what they need to know, if anything: a
//! serializable one for nothing, a linearizable one for a read index and its being applied.

use std::rc::Rc;

use bytes::Bytes;
use mvcc::Effort;
use prost::Message;
use proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    TxnResponse, request_op,
};
use replica::Lane;
use state_machine::{Answer, Error, Reply, Request};
use tokio::sync::oneshot;

use crate::grpc::{Call, decode};
use crate::serve::limits::LARGE_REQUEST_BYTES;
use crate::serve::seat::Waits;
use crate::serve::shard::Shard;
use crate::serve::status::{Code, Status};
use crate::serve::story::Story;
use crate::serve::stream::{PREFIX_BYTES, Responder};

/// Put.
pub fn put(shard: &Rc<Shard>, call: Call, message: Bytes, mut respond: Responder) {
    let request = put_request(message, &mut respond);
    propose(shard, &call, request, Lane::Ordinary, respond);
}

/// Reads what is to be put.
pub fn put_request(message: Bytes, respond: &mut Responder) -> Result<Request, Status> {
    let put = decode::<PutRequest>(message)?;
    respond.tell(|story| story.about(&put.key));
    Ok(Request::try_from(put)?)
}

/// DeleteRange.
pub fn delete_range(shard: &Rc<Shard>, call: Call, message: Bytes, mut respond: Responder) {
    let request = decode::<DeleteRangeRequest>(message).and_then(|delete| {
        respond.tell(|story| story.about(&delete.key));
        Ok(Request::try_from(delete)?)
    });
    propose(shard, &call, request, Lane::Ordinary, respond);
}

/// Compact.
pub fn compact(shard: &Rc<Shard>, call: Call, message: Bytes, respond: Responder) {
    let request = decode::<CompactionRequest>(message).map(Request::from);
    propose(shard, &call, request, Lane::Ordinary, respond);
}

/// Proposes a request that could be read, or answers why it could not.
pub fn propose(
    shard: &Rc<Shard>,
    call: &Call,
    request: Result<Request, Status>,
    lane: Lane,
    respond: Responder,
) {
    match request {
        Ok(request) => shard.propose(call, request, lane, respond),
        Err(status) => respond.fail(&status),
    }
}

/// Range.
pub fn range(shard: &Rc<Shard>, call: Call, message: Bytes, mut respond: Responder) {
    let bytes = message.len();
    let request = match range_request(message, &mut respond) {
        Ok(request) => request,
        Err(status) => return respond.fail(&status),
    };
    if shard.view.is_learner() && !request.serializable {
        return respond.fail(&Error::NotSupportedForLearner.into());
    }
    let serializable = request.serializable;
    read(shard, &call, Wanted::Range(request), bytes, serializable, respond);
}

/// Reads what is asked for.
pub fn range_request(message: Bytes, respond: &mut Responder) -> Result<RangeRequest, Status> {
    let request = decode::<RangeRequest>(message)?;
    respond.tell(|story| story.about(&request.key));
    state_machine::check_range(&request)?;
    Ok(request)
}

/// Txn: through the log if it may write, else a read.
pub fn txn(shard: &Rc<Shard>, call: Call, message: Bytes, respond: Responder) {
    let bytes = message.len();
    let request = match state_machine::decode_txn(message) {
        Ok(request) => request,
        Err(_) => return respond.fail(&malformed()),
    };
    begin_txn(shard, &call, request, bytes, shard.node.config.max_txn_ops, respond);
}

/// A transaction that a page of this member makes for its client; `max-txn-ops` is for what clients make themselves.
///
/// # Errors
/// As Txn; `request timed out` and its like if its fate is not known.
pub async fn txn_of_page(shard: &Rc<Shard>, request: TxnRequest) -> Result<TxnResponse, Status> {
    let call = Call::of_page("/etcdserverpb.KV/Txn", shard.node.stages.now_us())?;
    let story = Story::new(&shard.chronicle, call.method.path, call.started_us);
    let (respond, answer) = Responder::inside(story);
    // The page has read it, and bounds it.
    begin_txn(shard, &call, request, 0, usize::MAX, respond);
    // A dropped sender means that the shard ends.
    let message = answer.await.unwrap_or_else(|_| Err(Error::Stopped.into()))?;
    TxnResponse::decode(message.slice(PREFIX_BYTES..))
        .map_err(|error| Status::new(Code::Internal, format!("an answer of our own: {error}")))
}

fn begin_txn(
    shard: &Rc<Shard>,
    call: &Call,
    request: TxnRequest,
    bytes: usize,
    ops_max: usize,
    mut respond: Responder,
) {
    let key = request.compare.first().map(|compare| &compare.key);
    if let Some(key) = key.or_else(|| request.success.iter().find_map(key_of)) {
        respond.tell(|story| story.about(key));
    }
    let request = match Request::txn(request, ops_max) {
        Ok(Request::Txn(request)) => request,
        Ok(_) => return respond.fail(&malformed()),
        Err(error) => return respond.fail(&error.into()),
    };
    match state_machine::is_read_only(&request) {
        false => shard.propose(call, Request::Txn(request), Lane::Ordinary, respond),
        true => {
            let serializable = state_machine::is_serializable(&request);
            read(shard, call, Wanted::Txn(request), bytes, serializable, respond);
        }
    }
}

/// The key of an operation, if it has one of its own.
fn key_of(operation: &RequestOp) -> Option<&Bytes> {
    match operation.request.as_ref()? {
        request_op::Request::RequestRange(range) => Some(&range.key),
        request_op::Request::RequestPut(put) => Some(&put.key),
        request_op::Request::RequestDeleteRange(delete) => Some(&delete.key),
        request_op::Request::RequestTxn(_) => None,
    }
}

fn malformed() -> Status {
    Status::new(
        Code::Internal,
        "grpc: error unmarshalling request: the transaction is malformed or nested too deeply",
    )
}

/// `bytes`: of the request.
fn read(
    shard: &Rc<Shard>,
    call: &Call,
    wanted: Wanted,
    bytes: usize,
    serializable: bool,
    respond: Responder,
) {
    let waits = match respond.seat().filter(|_| bytes >= LARGE_REQUEST_BYTES) {
        None => None,
        Some(seat) => match seat.admit(bytes) {
            Ok(waits) => Some(waits),
            Err(error) => return respond.fail(&error.into()),
        },
    };
    let deadline_ms = call.deadline_ms(&shard.node.config);
    let read = Read {
        wanted,
        to: To::Client(respond),
        started_ms: call.started_ms,
        deadline_ms,
        client_deadline: call.client_deadline,
        _waits: waits,
    };
    match serializable {
        true => read.serve(shard),
        false => shard.read_linearizable(read, deadline_ms),
    }
}

/// A read that waits, or is served.
pub struct Read {
    wanted: Wanted,
    to: To,
    started_ms: u64,
    deadline_ms: u64,
    client_deadline: bool,
    /// A large request counts while it waits.
    _waits: Option<Waits>,
}

/// What is read.
enum Wanted {
    Range(RangeRequest),
    Txn(TxnRequest),
    Members,
    /// Only that the member is as far as the read index says.
    Nothing,
}

/// Who reads.
enum To {
    Client(Responder),
    /// A page or the member itself.
    Inside(oneshot::Sender<Result<(), Status>>),
}

impl Read {
    /// The list of members.
    pub fn members(call: &Call, deadline_ms: u64, respond: Responder) -> Read {
        Read {
            wanted: Wanted::Members,
            to: To::Client(respond),
            started_ms: call.started_ms,
            deadline_ms,
            client_deadline: call.client_deadline,
            _waits: None,
        }
    }

    /// A proof that this member can answer linearizable reads.
    pub fn proof(now_ms: u64) -> (Read, oneshot::Receiver<Result<(), Status>>) {
        let (sender, receiver) = oneshot::channel();
        let read = Read {
            wanted: Wanted::Nothing,
            to: To::Inside(sender),
            started_ms: now_ms,
            // It never rests, for its answer is nothing.
            deadline_ms: u64::MAX,
            client_deadline: false,
            _waits: None,
        };
        (read, receiver)
    }

    /// It waits for a read index.
    pub fn waits(&mut self) {
        if let To::Client(respond) = &mut self.to {
            respond.tell(|story| story.read());
        }
    }

    /// Whether nobody waits for it any more.
    pub fn is_gone(&mut self) -> bool {
        match &mut self.to {
            To::Client(respond) => respond.is_gone(),
            To::Inside(sender) => sender.is_closed(),
        }
    }

    /// When it is given up.
    pub fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }

    /// When it began.
    pub fn started_ms(&self) -> u64 {
        self.started_ms
    }

    /// Whether the deadline is the client's own.
    pub fn client_deadline(&self) -> bool {
        self.client_deadline
    }

    /// Answers with a refusal.
    pub fn fail(self, status: &Status) {
        match self.to {
            To::Client(respond) => respond.fail(status),
            // Whoever asked may have gone.
            To::Inside(sender) => drop(sender.send(Err(status.clone()))),
        }
    }

    /// Reads what this member has now: memory and the page cache here, all else on a read thread. If apply has
    /// the index just now, others are served first.
    pub fn serve(self, shard: &Rc<Shard>) {
        self.serve_with(shard, Effort::Try);
    }

    /// As [`Read::serve`]; with [`Effort::Now`] it waits for the index.
    pub fn serve_with(self, shard: &Rc<Shard>, effort: Effort) {
        if let To::Client(respond) = &self.to
            && let Some(seat) = respond.seat()
            && seat.is_full()
        {
            return seat.clone().rest(self);
        }
        let respond = match self.to {
            To::Client(respond) => respond,
            To::Inside(sender) => return drop(sender.send(Ok(()))),
        };
        let state = &shard.view.state;
        let answer = match &self.wanted {
            Wanted::Range(request) => state.range(request, effort),
            Wanted::Txn(request) => state.txn(request, effort),
            Wanted::Members => {
                Ok(Answer::Ready(Reply::MemberList { members: state.cluster().member_list() }))
            }
            Wanted::Nothing => return,
        };
        match answer {
            Err(error) => respond.fail(&error.into()),
            Ok(Answer::Ready(reply)) => {
                shard.node.metrics.ranges.add(1);
                let header = shard.header();
                respond.reply(shard.message(|out| reply.encode(&header, out)));
            }
            Ok(Answer::Busy) => shard.serve_later(Read { to: To::Client(respond), ..self }),
            Ok(Answer::Cold) if respond.seat().is_some_and(|seat| seat.is_busy()) => {
                if let Some(seat) = respond.seat().cloned() {
                    seat.rest(Read { to: To::Client(respond), ..self });
                }
            }
            Ok(Answer::Cold) => {
                let wanted = self.wanted;
                shard.read_cold(respond, move |view| {
                    let answer = match &wanted {
                        Wanted::Range(request) => view.state.range(request, Effort::Disk)?,
                        Wanted::Txn(request) => view.state.txn(request, Effort::Disk)?,
                        Wanted::Members | Wanted::Nothing => Answer::Cold,
                    };
                    match answer {
                        Answer::Ready(reply) => Ok(reply),
                        // A read that may wait for disk and index is never cold or busy.
                        Answer::Cold | Answer::Busy => Err(Error::Storage),
                    }
                })
            }
        }
    }
}
