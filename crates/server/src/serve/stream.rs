//! gRPC messages on h2 streams: reading them, answering a unary call, and the queue of a streaming one.
//!
//! ```text
//!   message = | compressed: u8 = 0 | length: u32, big endian | bytes |
//!   answer  = HEADERS (200, application/grpc)  DATA (message)*  HEADERS (grpc-status, grpc-message)
//! ```

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response};
use tokio::sync::oneshot;

use crate::serve::limits::{SEND_BUFFER_BYTES, STREAM_QUEUE_BYTES};
use crate::serve::seat::{Seat, Waits};
use crate::serve::status::{Code, Status};
use crate::serve::story::Story;

/// Bytes before each message.
pub const PREFIX_BYTES: usize = 5;
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// The head of an answer. Its map has room for the one header, where a map that grows by itself begins with eight.
fn head() -> Response<()> {
    let mut head = Response::new(());
    *head.headers_mut() = HeaderMap::with_capacity(1);
    head.headers_mut().insert(CONTENT_TYPE, GRPC);
    head
}

/// Writes a message with its prefix; `scratch` is a buffer that is used again and again, so that answers share
/// allocations.
pub fn message(scratch: &mut BytesMut, encode: impl FnOnce(&mut BytesMut)) -> Bytes {
    debug_assert!(scratch.is_empty(), "the last message was split off");
    scratch.put_slice(&[0; PREFIX_BYTES]);
    encode(scratch);
    let length = (scratch.len() - PREFIX_BYTES) as u32;
    scratch[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    scratch.split().freeze()
}

/// The messages of a request.
pub struct Body {
    stream: RecvStream,
    /// Received and not yet looked at.
    chunk: Bytes,
    /// The beginning of a message that spans several chunks; at most a prefix and `message_bytes_max`.
    partial: BytesMut,
    message_bytes_max: usize,
    /// What `grpc-encoding` says, if it is not `identity`.
    encoding: Option<String>,
    seat: Rc<Seat>,
    /// What `partial` counts for, once its length is known.
    waits: Option<Waits>,
}

impl Body {
    /// Reads messages of at most `message_bytes_max` bytes from a stream of the connection that has this seat.
    pub fn new(
        stream: RecvStream,
        message_bytes_max: usize,
        encoding: Option<String>,
        seat: &Rc<Seat>,
    ) -> Body {
        Body {
            stream,
            chunk: Bytes::new(),
            partial: BytesMut::new(),
            message_bytes_max,
            encoding,
            seat: seat.clone(),
            waits: None,
        }
    }

    /// The next message, `None` at the end. A message that lies in one frame is not copied.
    pub fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        loop {
            if let Some(message) = self.take()? {
                return Poll::Ready(Ok(Some(message)));
            }
            match self.stream.poll_data(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(chunk))) => {
                    // The window is given back at once: were it not, then messages of many streams that come piece
                    // by piece, in turn, would close it before any of them is whole. What is kept is bounded by
                    // what the seat admits.
                    drop(self.stream.flow_control().release_capacity(chunk.len()));
                    self.chunk = chunk;
                }
                Poll::Ready(Some(Err(_))) => {
                    return Poll::Ready(Err(Status::new(Code::Canceled, "context canceled")));
                }
                Poll::Ready(None) if self.partial.is_empty() => return Poll::Ready(Ok(None)),
                Poll::Ready(None) => {
                    return Poll::Ready(Err(Status::new(Code::Internal, "unexpected EOF")));
                }
            }
        }
    }

    /// A message from what was received, if it is whole.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        if self.partial.is_empty() && self.chunk.len() >= PREFIX_BYTES {
            let end = PREFIX_BYTES + self.length(&self.chunk)?;
            if self.chunk.len() >= end {
                let message = self.chunk.slice(PREFIX_BYTES..end);
                self.chunk.advance(end);
                return Ok(Some(message));
            }
        }
        while !self.chunk.is_empty() {
            let end = match self.partial.len() < PREFIX_BYTES {
                true => PREFIX_BYTES,
                false => PREFIX_BYTES + self.length(&self.partial)?,
            };
            let taken = self.chunk.len().min(end - self.partial.len());
            self.partial.extend_from_slice(&self.chunk[..taken]);
            self.chunk.advance(taken);
            if self.partial.len() >= PREFIX_BYTES {
                let end = PREFIX_BYTES + self.length(&self.partial)?;
                if self.partial.len() == end {
                    self.waits = None;
                    return Ok(Some(
                        std::mem::take(&mut self.partial).freeze().slice(PREFIX_BYTES..),
                    ));
                }
                if self.waits.is_none() {
                    self.waits = Some(self.seat.admit(end)?);
                }
                self.partial.reserve(end - self.partial.len());
            }
        }
        Ok(None)
    }

    /// The length that a prefix tells, if such a message is read at all; texts and codes are grpc-go's.
    fn length(&self, prefix: &[u8]) -> Result<usize, Status> {
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        match (prefix[0], &self.encoding) {
            (0, _) => {}
            (1, None) => {
                return Err(Status::new(
                    Code::Internal,
                    "grpc: compressed flag set with identity or empty encoding",
                ));
            }
            (1, Some(encoding)) => {
                return Err(Status::new(
                    Code::Unimplemented,
                    format!("grpc: Decompressor is not installed for grpc-encoding {encoding:?}"),
                ));
            }
            (other, _) => {
                return Err(Status::new(
                    Code::Internal,
                    format!("grpc: received unexpected payload format {other}"),
                ));
            }
        }
        match length > self.message_bytes_max {
            true => Err(too_large(length, self.message_bytes_max)),
            false => Ok(length),
        }
    }
}

/// What is said of a message that is longer than one may be; grpc-go's words.
pub fn too_large(bytes: usize, bytes_max: usize) -> Status {
    Status::new(
        Code::ResourceExhausted,
        format!("grpc: received message larger than max ({bytes} vs. {bytes_max})"),
    )
}

/// The way back to who made a unary call. It is used up by the answer; a client's, dropped without one, resets the
/// stream.
pub struct Responder {
    way: Way,
    /// What there is to tell of the call, once it is one.
    story: Option<Box<Story>>,
}

/// Where an answer goes.
enum Way {
    /// To a client, over gRPC: its stream and its connection.
    Client { respond: SendResponse<Bytes>, seat: Rc<Seat> },
    /// To a page of this member: it gets the message with its prefix, or the refusal.
    Inside(oneshot::Sender<Result<Bytes, Status>>),
}

impl Responder {
    /// A way back to a client.
    pub fn client(
        respond: SendResponse<Bytes>,
        seat: Rc<Seat>,
        story: Option<Box<Story>>,
    ) -> Responder {
        Responder { way: Way::Client { respond, seat }, story }
    }

    /// A way back to a page, and where it waits. The answer does not come if the shard ends.
    pub fn inside(
        story: Option<Box<Story>>,
    ) -> (Responder, oneshot::Receiver<Result<Bytes, Status>>) {
        let (sender, receiver) = oneshot::channel();
        (Responder { way: Way::Inside(sender), story }, receiver)
    }

    /// Adds to what there is to tell of the call.
    pub fn tell(&mut self, what: impl FnOnce(&mut Story)) {
        if let Some(story) = &mut self.story {
            what(story);
        }
    }

    /// Answers with a message (see [`message`]).
    pub fn reply(self, message: Bytes) {
        self.answer(Ok(message));
    }

    /// Answers with a status alone.
    pub fn fail(self, status: &Status) {
        self.answer(Err(status.clone()));
    }

    fn answer(self, answer: Result<Bytes, Status>) {
        let client = self.seat().and_then(|seat| seat.client);
        let answer = match self.story {
            Some(story) => story.end(answer, client),
            None => answer,
        };
        match (self.way, answer) {
            // An error of any of these says that the client has gone, and with it who wants to know.
            (Way::Client { mut respond, seat }, Ok(message)) => {
                seat.spoke.set(true);
                let sent = respond.send_response(head(), false).and_then(|mut stream| {
                    stream.send_data(seat.count(message), false)?;
                    stream.send_trailers(Status::ok().trailers())
                });
                drop(sent);
            }
            (Way::Client { mut respond, seat }, Err(status)) => {
                seat.spoke.set(true);
                let mut head = head();
                status.put_into(head.headers_mut());
                drop(respond.send_response(head, true));
            }
            (Way::Inside(sender), answer) => drop(sender.send(answer)),
        }
    }

    /// The connection of a client.
    pub fn seat(&self) -> Option<&Rc<Seat>> {
        match &self.way {
            Way::Client { seat, .. } => Some(seat),
            Way::Inside(_) => None,
        }
    }

    /// Whether nobody waits any more: the client has reset its stream, its connection is gone, or the page is.
    pub fn is_gone(&mut self) -> bool {
        match &mut self.way {
            // Who asks does so again by itself, so nobody need be woken.
            Way::Client { respond, .. } => {
                respond.poll_reset(&mut Context::from_waker(Waker::noop())).is_ready()
            }
            Way::Inside(sender) => sender.is_closed(),
        }
    }
}

/// The streams of one connection that something has happened to, so that its task looks at these alone.
#[derive(Default)]
pub struct Ready {
    /// A std lock held for a push or a swap. It is `Sync` because wakers must be, not because threads share it.
    keys: Mutex<Vec<usize>>,
    /// The connection's task.
    pub task: AtomicWaker,
}

impl Ready {
    /// The streams to look at, each once.
    pub fn take(&self) -> Vec<usize> {
        std::mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Wakes one stream of a connection.
pub struct StreamWake {
    key: usize,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl StreamWake {
    /// For the stream that the connection knows as `key`.
    pub fn new(key: usize, ready: &Arc<Ready>) -> Arc<StreamWake> {
        Arc::new(StreamWake { key, queued: AtomicBool::new(false), ready: ready.clone() })
    }
    /// Called before the stream is looked at: what happens from here on counts again.
    pub fn looking(&self) {
        self.queued.store(false, Ordering::Release);
    }
}

impl Wake for StreamWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready.keys.lock().unwrap_or_else(PoisonError::into_inner).push(self.key);
        }
        self.ready.task.wake();
    }
}

/// The answers of a streaming call: a bounded queue before h2's own buffer.
///
/// Nobody waits for a slow reader: who has more to say than [`STREAM_QUEUE_BYTES`] asks [`Outgoing::is_full`]
/// first and comes back when the connection's task calls its handler's `on_room`.
pub struct Outgoing {
    to: To,
    queue: VecDeque<Bytes>,
    queued_bytes: usize,
    end: Option<Status>,
    closed: bool,
    waker: Waker,
}

/// Who takes the answers of a streaming call.
enum To {
    /// A client, over gRPC, on its connection.
    Client { send: SendStream<Bytes>, seat: Rc<Seat> },
    /// A reader in this process ([`Outgoing::take`]).
    Inside,
}

impl Outgoing {
    /// Answers the call's head at once, so that clients which wait for it before they send go on.
    pub fn open(
        mut respond: SendResponse<Bytes>,
        wake: &Arc<StreamWake>,
        seat: &Rc<Seat>,
    ) -> Option<Outgoing> {
        let send = respond.send_response(head(), false).ok()?;
        seat.spoke.set(true);
        let to = To::Client { send, seat: seat.clone() };
        Some(Outgoing::new(to, Waker::from(wake.clone())))
    }

    /// Answers for a reader in this process.
    pub fn inside() -> Outgoing {
        Outgoing::new(To::Inside, Waker::noop().clone())
    }

    fn new(to: To, waker: Waker) -> Outgoing {
        let queue = VecDeque::new();
        Outgoing { to, queue, queued_bytes: 0, end: None, closed: false, waker }
    }

    /// For the reader in this process: the next message with its prefix, or how the call ended. Who finds
    /// nothing is woken when there is something.
    pub fn take(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        if let Some(message) = self.queue.pop_front() {
            self.queued_bytes -= message.len();
            return Poll::Ready(Ok(message));
        }
        if let Some(status) = &self.end {
            let status = status.clone();
            self.close();
            return Poll::Ready(Err(status));
        }
        self.waker.clone_from(cx.waker());
        Poll::Pending
    }

    /// Sends a message, or queues it behind others.
    pub fn push(&mut self, message: Bytes) {
        if self.closed || self.end.is_some() {
            return;
        }
        self.queued_bytes += message.len();
        self.queue.push_back(match &self.to {
            To::Inside => message,
            To::Client { seat, .. } => {
                seat.spoke.set(true);
                seat.count(message)
            }
        });
        self.pump();
    }

    /// Ends the call after all that is queued.
    pub fn finish(&mut self, status: Status) {
        if self.end.is_none() {
            self.end = Some(status);
            self.pump();
            self.waker.wake_by_ref();
        }
    }

    /// Ends the call now: what the client has not taken it will not get.
    pub fn cut(&mut self, status: Status) {
        match self.queue.is_empty() {
            true => self.finish(status),
            false if self.closed => {}
            false => match &mut self.to {
                To::Client { send, .. } => {
                    send.send_reset(h2::Reason::CANCEL);
                    self.close();
                }
                To::Inside => {
                    self.queue.clear();
                    self.queued_bytes = 0;
                    self.finish(status);
                }
            },
        }
    }

    /// Whether nothing more should be pushed now. If it is the connection that is full, then what stands in this
    /// queue wakes the stream when there is room.
    pub fn is_full(&self) -> bool {
        let crowded = match &self.to {
            To::Client { seat, .. } => seat.is_full(),
            To::Inside => false,
        };
        self.queued_bytes >= STREAM_QUEUE_BYTES || self.queued_bytes > 0 && crowded
    }

    /// Whether the call is over: finished, reset, or its connection is gone.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Wakes the connection's task to look at this stream.
    pub fn wake(&self) {
        self.waker.wake_by_ref();
    }

    /// Hands to h2 what it takes. Called by the connection's task when h2 has room again.
    pub fn pump(&mut self) {
        let waker = self.waker.clone();
        let cx = &mut Context::from_waker(&waker);
        if self.closed {
            return;
        }
        let To::Client { send, .. } = &mut self.to else { return waker.wake() };
        if send.poll_reset(cx).is_ready() {
            return self.close();
        }
        while let Some(next) = self.queue.front() {
            send.reserve_capacity(next.len().min(SEND_BUFFER_BYTES));
            while send.capacity() == 0 {
                match send.poll_capacity(cx) {
                    Poll::Pending => return,
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(_) => return self.close(),
                }
            }
            let next = self.queue.pop_front().expect("looked at above");
            self.queued_bytes -= next.len();
            if send.send_data(next, false).is_err() {
                return self.close();
            }
        }
        if let Some(status) = &self.end {
            drop(send.send_trailers(status.trailers()));
            self.close();
        }
    }

    /// Nobody takes anything any more.
    pub fn close(&mut self) {
        self.closed = true;
        self.queue.clear();
        self.queued_bytes = 0;
        self.waker.wake_by_ref();
    }
}
