//! One client connection: which protocol it speaks, and its HTTP/2 streams.
//!
//! There is no task per request. The connection's task reads every frame there is, serves or submits each
//! request in place, and sends once at the end of its turn. A unary request that waits is only an entry in the
//! shard's waiters, which holds the way back ([`Responder`]); requests whose bytes are not all here, and
//! streaming calls, stand in this connection's list, each with a waker of its own, so that a turn looks only at
//! those to which something has happened.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::{Connection as H2, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::Request;
use state_machine::Error;
use tokio::net::TcpStream;

use crate::grpc::{self, Call, Kind, Metadata, Streaming};
use crate::http as pages;
use crate::log;
use crate::serve::http1;
use crate::serve::limits::{
    ANSWER_DEADLINE, CONNECTION_WINDOW_BYTES, FIRST_BYTES_DEADLINE, HEADER_LIST_BYTES,
    IDLE_PING_TIME, LINGER, LOCAL_ERROR_RESETS, PENDING_RESETS, PING_STRIKES, REQUESTS_PER_TURN,
    SEND_BUFFER_BYTES, STREAM_WINDOW_BYTES, STREAMS_PER_CONNECTION,
};
use crate::serve::seat::Seat;
use crate::serve::shard::Shard;
use crate::serve::socket::{self, Handle, Socket};
use crate::serve::status::{Code, Status};
use crate::serve::story::Story;
use crate::serve::stream::{Body, Outgoing, Ready, Responder, StreamWake};

/// What every HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes tell.
#[derive(Debug, PartialEq, Eq)]
enum Protocol {
    Http2,
    Http1,
    Undecided,
}

fn protocol(first: &[u8]) -> Protocol {
    let known = first.len().min(PREFACE.len());
    match first[..known] == PREFACE[..known] {
        false => Protocol::Http1,
        true if known == PREFACE.len() => Protocol::Http2,
        true => Protocol::Undecided,
    }
}

/// Serves a connection to its end. Errors are the client's: they end the connection and nothing else.
pub async fn serve(shard: Rc<Shard>, mut tcp: TcpStream) {
    // Replies are small and already gathered; without this they would wait for the client's acknowledgement.
    if tcp.set_nodelay(true).is_err() {
        return;
    }
    let mut first = Vec::with_capacity(PREFACE.len());
    let looking = tokio::time::timeout(FIRST_BYTES_DEADLINE, first_bytes(&mut tcp, &mut first));
    let looked = tokio::select! {
        looked = looking => looked,
        () = shard.stopped() => return,
    };
    let Ok(Ok(protocol)) = looked else {
        return;
    };
    // Without it a record of a slow request does not say whose it was.
    let client = tcp.peer_addr().ok();
    let (socket, handle) = socket::wrap(tcp, first, matches!(protocol, Protocol::Http2));
    match protocol {
        Protocol::Http2 => http2(shard, socket, handle, client).await,
        Protocol::Http1 => http1::serve(shard, socket).await,
        Protocol::Undecided => {}
    }
}

/// Reads until the protocol is known; `Undecided` if the client closes before.
async fn first_bytes(tcp: &mut TcpStream, first: &mut Vec<u8>) -> io::Result<Protocol> {
    loop {
        tcp.readable().await?;
        let mut buffer = [0; PREFACE.len()];
        let wanted = PREFACE.len() - first.len();
        match tcp.try_read(&mut buffer[..wanted]) {
            Ok(0) => return Ok(Protocol::Undecided),
            Ok(bytes) => first.extend_from_slice(&buffer[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        match protocol(first) {
            Protocol::Undecided => {}
            decided => return Ok(decided),
        }
    }
}

async fn http2(shard: Rc<Shard>, socket: Socket, handle: Handle, client: Option<SocketAddr>) {
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(
            shard.node.config.max_concurrent_streams.min(STREAMS_PER_CONNECTION),
        )
        .max_header_list_size(HEADER_LIST_BYTES)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(LOCAL_ERROR_RESETS))
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .handshake::<_, Bytes>(socket);
    // The preface is here already, but the client's SETTINGS may be withheld.
    let Ok(Ok(mut h2)) = tokio::time::timeout(FIRST_BYTES_DEADLINE, handshake).await else {
        return;
    };
    handle.cork();
    let ready = Arc::new(Ready::default());
    let seat = shard.connections.borrow_mut().sit(ready.clone(), handle.clone(), client);
    let pulse = Pulse::new(&mut h2, &shard);
    seat.look_at(pulse.due_ms);
    let mut connection = Connection {
        shard: shard.clone(),
        h2,
        socket: handle,
        ready,
        seat,
        pulse,
        stalled: None,
        streams: HashMap::new(),
        next_key: 0,
        last_stream: 0,
        leaving: false,
        said_why: false,
    };
    poll_fn(|cx| connection.poll(cx)).await;
    connection.close();
    let said_why = connection.said_why.then(|| connection.socket.clone());
    drop(connection);
    // Now that h2 has forgotten its streams, it can be seen that nobody waits at them.
    shard.on_reset();
    if let Some(socket) = said_why {
        // At the end of the time the client has our words, or never will.
        drop(tokio::time::timeout(LINGER, socket.linger()).await);
    }
}

/// Whether the client is there, and how often it asks whether we are.
struct Pulse {
    pings: Option<PingPong>,
    /// When it is looked at next.
    due_ms: u64,
    /// It was asked.
    asked: bool,
    /// When the client's last PING came, and how many have come too soon, one after the other.
    pinged_ms: Option<u64>,
    strikes: u32,
}

impl Pulse {
    fn new(h2: &mut H2<Socket, Bytes>, shard: &Shard) -> Pulse {
        let due_ms = shard.now_ms() + shard.node.config.grpc_keepalive_interval.as_millis() as u64;
        Pulse { pings: h2.ping_pong(), due_ms, asked: false, pinged_ms: None, strikes: 0 }
    }

    /// Asks a client that was silent for an interval; false if it was asked and is silent still.
    fn on_due(&mut self, shard: &Shard, heard: bool) -> bool {
        let config = &shard.node.config;
        let wait = match (heard, self.asked) {
            (false, true) => return false,
            (true, _) => {
                self.asked = false;
                config.grpc_keepalive_interval
            }
            (false, false) => {
                self.asked = true;
                if let Some(pings) = &mut self.pings {
                    // An earlier answer is taken first. A ping that is still under way does as well as a new one.
                    drop(pings.poll_pong(&mut Context::from_waker(Waker::noop())));
                    drop(pings.send_ping(Ping::opaque()));
                }
                config.grpc_keepalive_timeout
            }
        };
        self.due_ms = shard.now_ms() + wait.as_millis() as u64;
        true
    }

    /// The client has sent PINGs: false if it sends too many, as grpc-go counts them. One that follows something
    /// that we said counts as the first.
    fn on_pings(&mut self, pings: u32, shard: &Shard, spoke: bool, has_streams: bool) -> bool {
        let now = shard.now_ms();
        let apart = match has_streams {
            true => shard.node.config.grpc_keepalive_min_time,
            false => IDLE_PING_TIME,
        };
        for ping in 0..pings {
            let soon = self.pinged_ms.is_some_and(|at| at + apart.as_millis() as u64 > now);
            self.pinged_ms = Some(now);
            match (ping == 0 && spoke, soon) {
                (true, _) => self.strikes = 0,
                (false, true) => self.strikes += 1,
                (false, false) => {}
            }
        }
        self.strikes <= PING_STRIKES
    }
}

/// A call that the connection looks after.
enum Stream {
    /// A unary request whose message is not whole yet, and when it is given up.
    Collecting { call: Call, body: Body, respond: Responder, deadline_ms: u64 },
    /// A streaming call. The body is gone once the client has ended it. It has a deadline if the client gave one.
    Streaming {
        body: Option<Body>,
        handler: Streaming,
        out: Rc<RefCell<Outgoing>>,
        deadline_ms: Option<u64>,
    },
}

impl Stream {
    fn deadline_ms(&self) -> Option<u64> {
        match self {
            Stream::Collecting { deadline_ms, .. } => Some(*deadline_ms),
            Stream::Streaming { deadline_ms, .. } => *deadline_ms,
        }
    }
}

struct Connection {
    shard: Rc<Shard>,
    h2: H2<Socket, Bytes>,
    socket: Handle,
    ready: Arc<Ready>,
    seat: Rc<Seat>,
    pulse: Pulse,
    /// While too many answers wait: until when the client must have taken some, and what it had taken by then.
    stalled: Option<(u64, u64)>,
    streams: HashMap<usize, (Arc<StreamWake>, Stream)>,
    next_key: usize,
    /// The last stream that was taken.
    last_stream: u32,
    /// GOAWAY has been said.
    leaving: bool,
    /// The client was told why the connection ends.
    said_why: bool,
}

impl Connection {
    /// One turn. Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.ready.task.register(cx.waker());
        if self.shard.stopping.get() && !self.leaving {
            self.leaving = true;
            self.h2.graceful_shutdown();
            for (_, stream) in self.streams.values() {
                if let Stream::Streaming { out, .. } = stream {
                    out.borrow_mut().finish(state_machine::Error::Stopped.into());
                }
            }
        }
        if self.seat.take_due() && !self.on_due() {
            return Poll::Ready(());
        }
        let proposed = self.shard.proposed();
        let mut taken = 0;
        loop {
            let mut progress = false;
            while taken < REQUESTS_PER_TURN {
                match self.h2.poll_accept(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        progress = true;
                        taken += 1;
                        self.on_request(request, respond, cx);
                    }
                    // The client has closed, or broken the protocol: h2 has written its GOAWAY already.
                    Poll::Ready(_) => {
                        drop(self.socket.poll_flush_now(cx));
                        return Poll::Ready(());
                    }
                }
            }
            for key in self.ready.take() {
                progress = true;
                self.on_stream(key);
            }
            while let Some(read) = self.seat.next_rested() {
                progress = true;
                read.serve(&self.shard);
            }
            if taken >= REQUESTS_PER_TURN {
                cx.waker().wake_by_ref();
                break;
            }
            // Whatever was answered stands in h2's streams; one more round brings it to the socket.
            if !progress {
                break;
            }
        }
        // Who proposes while there is no room waits for it. Who only reads, watches or renews is served.
        if self.shard.is_crowded() && self.shard.proposed() != proposed {
            self.shard.connections.borrow_mut().hold(&self.seat);
        }
        if self.stalled.is_none() && self.seat.is_full() {
            self.watch_stall();
        }
        let seen = self.socket.take_seen();
        if seen.reset {
            self.shard.on_reset();
        }
        if seen.pings > 0 {
            let spoke = self.seat.spoke.take();
            if !self.pulse.on_pings(seen.pings, &self.shard, spoke, self.h2.has_streams()) {
                return self.say_why(Reason::ENHANCE_YOUR_CALM, b"too_many_pings", cx);
            }
        }
        match self.socket.poll_flush_now(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    /// Something is due: false if the connection ends.
    fn on_due(&mut self) -> bool {
        let now = self.shard.now_ms();
        if self.pulse.due_ms <= now && !self.pulse.on_due(&self.shard, self.socket.take_heard()) {
            log!(Info, "a client is gone: it answers no ping");
            return false;
        }
        self.seat.look_at(self.pulse.due_ms);
        if let Some((due_ms, sent)) = self.stalled {
            match due_ms <= now {
                true if !self.seat.is_full() => self.stalled = None,
                true if self.socket.sent_total() == sent => {
                    log!(
                        Warn, "a client takes none of its answers: its connection is closed",
                        "bytes" => self.seat.answer_bytes()
                    );
                    return false;
                }
                true => self.watch_stall(),
                false => self.seat.look_at(due_ms),
            }
        }
        let shard = self.shard.clone();
        for read in self.seat.take_expired(now) {
            let status = shard.timed_out(read.started_ms(), read.client_deadline());
            read.fail(&status);
        }
        let late = |stream: &Stream| stream.deadline_ms().is_some_and(|at| at <= now);
        let expired: Vec<usize> = self
            .streams
            .iter()
            .filter(|(_, (_, stream))| late(stream))
            .map(|(key, _)| *key)
            .collect();
        let status = || Status::new(Code::DeadlineExceeded, "context deadline exceeded");
        for key in expired {
            match self.remove(key) {
                Some((_, Stream::Collecting { respond, .. })) => respond.fail(&status()),
                Some((wake, Stream::Streaming { body, handler, out, .. })) => {
                    out.borrow_mut().cut(status());
                    let stream = Stream::Streaming { body, handler, out, deadline_ms: None };
                    self.insert(key, wake, stream);
                    self.on_stream(key);
                }
                None => {}
            }
        }
        let next = self.streams.values().filter_map(|(_, stream)| stream.deadline_ms()).min();
        if let Some(due_ms) = next {
            self.seat.look_at(due_ms);
        }
        true
    }

    /// Has the connection looked at again when its client must have taken something.
    fn watch_stall(&mut self) {
        let due_ms = self.shard.now_ms() + ANSWER_DEADLINE.as_millis() as u64;
        self.stalled = Some((due_ms, self.socket.sent_total()));
        self.seat.look_at(due_ms);
    }

    /// Ends the connection with a GOAWAY that says why, in words that h2 would not send.
    fn say_why(&mut self, reason: Reason, why: &[u8], cx: &mut Context<'_>) -> Poll<()> {
        const GOAWAY: u8 = 7;
        let mut frame = vec![0, 0, 8 + why.len() as u8, GOAWAY, 0, 0, 0, 0, 0];
        frame.extend_from_slice(&self.last_stream.to_be_bytes());
        frame.extend_from_slice(&u32::from(reason).to_be_bytes());
        frame.extend_from_slice(why);
        self.socket.write(&frame);
        self.said_why = true;
        drop(self.socket.poll_flush_now(cx));
        Poll::Ready(())
    }

    fn insert(&mut self, key: usize, wake: Arc<StreamWake>, stream: Stream) {
        self.shard.streams.set(self.shard.streams.get() + 1);
        self.streams.insert(key, (wake, stream));
    }

    fn remove(&mut self, key: usize) -> Option<(Arc<StreamWake>, Stream)> {
        let removed = self.streams.remove(&key)?;
        self.shard.streams.set(self.shard.streams.get() - 1);
        Some(removed)
    }

    fn on_request(
        &mut self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        cx: &mut Context<'_>,
    ) {
        let (head, body) = request.into_parts();
        self.last_stream = body.stream_id().as_u32();
        let metadata = Metadata::read(&head.headers);
        if !metadata.is_grpc() {
            self.seat.spoke.set(true);
            pages::spawn(&self.shard, head, body, respond);
            return;
        }
        let seat = self.seat.clone();
        let call = match Call::read(&head, &metadata, self.shard.node.stages.now_us()) {
            Ok(call) => call,
            Err(status) => return Responder::client(respond, seat, None).fail(&status),
        };
        let receive_bytes_max = self.shard.node.config.receive_bytes_max();
        let mut body = Body::new(body, receive_bytes_max, metadata.encoding(), &seat);
        match call.method.kind {
            Kind::Unary => {
                let message = body.poll_message(cx);
                let story = Story::new(&self.shard.chronicle, call.method.path, call.started_us);
                let respond = Responder::client(respond, seat, story);
                match message {
                    Poll::Ready(message) => unary(&self.shard, call, message, respond),
                    Poll::Pending if !self.shard.has_room_for_stream() => {
                        respond.fail(&Error::TooManyRequests.into());
                    }
                    Poll::Pending => {
                        let deadline_ms = call.collected_ms();
                        self.seat.look_at(deadline_ms);
                        self.keep(|_| {
                            Some(Stream::Collecting { call, body, respond, deadline_ms })
                        });
                    }
                }
            }
            Kind::Streaming => {
                let checked = match self.shard.has_room_for_stream() {
                    true => grpc::check_stream(&self.shard, &call),
                    false => Err(Error::TooManyRequests.into()),
                };
                if let Err(status) = checked {
                    return Responder::client(respond, seat, None).fail(&status);
                }
                if self.leaving {
                    return respond.send_reset(Reason::REFUSED_STREAM);
                }
                let shard = self.shard.clone();
                let deadline_ms = call.client_deadline_ms();
                deadline_ms.inspect(|due_ms| self.seat.look_at(*due_ms));
                self.keep(|wake| {
                    let out = Rc::new(RefCell::new(Outgoing::open(respond, wake, &seat)?));
                    let handler = Streaming::open(&shard, &call, &out);
                    Some(Stream::Streaming { body: Some(body), handler, out, deadline_ms })
                });
            }
        }
    }

    /// Takes a stream into the list and looks at it at once.
    fn keep(&mut self, make: impl FnOnce(&Arc<StreamWake>) -> Option<Stream>) {
        let key = self.next_key;
        self.next_key += 1;
        let wake = StreamWake::new(key, &self.ready);
        if let Some(stream) = make(&wake) {
            self.insert(key, wake, stream);
            self.on_stream(key);
        }
    }

    /// Something has happened to a stream: it is read, written, or over.
    fn on_stream(&mut self, key: usize) {
        let Some((wake, stream)) = self.remove(key) else { return };
        wake.looking();
        let waker = Waker::from(wake.clone());
        let cx = &mut Context::from_waker(&waker);
        let kept = match stream {
            Stream::Collecting { call, mut body, respond, deadline_ms } => {
                match body.poll_message(cx) {
                    Poll::Pending => Some(Stream::Collecting { call, body, respond, deadline_ms }),
                    Poll::Ready(message) => {
                        unary(&self.shard, call, message, respond);
                        None
                    }
                }
            }
            Stream::Streaming { mut body, mut handler, out, deadline_ms } => {
                out.borrow_mut().pump();
                while let Some(reading) = &mut body {
                    // Whoever does not read its answers is not read either.
                    if out.borrow().is_full() || out.borrow().is_closed() {
                        break;
                    }
                    match reading.poll_message(cx) {
                        Poll::Pending => break,
                        Poll::Ready(Ok(Some(message))) => {
                            handler.on_message(&self.shard, &out, message)
                        }
                        Poll::Ready(Ok(None)) => {
                            body = None;
                            handler.on_half_close(&out);
                        }
                        Poll::Ready(Err(status)) => {
                            body = None;
                            out.borrow_mut().finish(status);
                        }
                    }
                }
                if !out.borrow().is_full() {
                    handler.on_room(&self.shard, &out);
                }
                match out.borrow().is_closed() {
                    true => {
                        handler.close(&self.shard);
                        None
                    }
                    false => {
                        Some(Stream::Streaming { body, handler, out: out.clone(), deadline_ms })
                    }
                }
            }
        };
        if let Some(stream) = kept {
            self.insert(key, wake, stream);
        }
    }

    /// The connection is gone: so are its streams.
    fn close(&mut self) {
        self.shard.streams.set(self.shard.streams.get() - self.streams.len());
        for (_, (_, stream)) in self.streams.drain() {
            if let Stream::Streaming { mut handler, .. } = stream {
                handler.close(&self.shard);
            }
        }
        self.shard.connections.borrow_mut().leave(&self.seat);
    }
}

fn unary(
    shard: &Rc<Shard>,
    call: Call,
    message: Result<Option<Bytes>, Status>,
    respond: Responder,
) {
    match message {
        Ok(Some(message)) => grpc::serve(shard, call, message, respond),
        Ok(None) => {
            log!(Debug, "a unary call ended without its message", "method" => call.method.path);
            respond.fail(&Status::new(Code::Internal, "unexpected EOF"));
        }
        Err(status) => respond.fail(&status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_the_protocol_wherever_they_are_split() {
        for known in 0..PREFACE.len() {
            assert_eq!(protocol(&PREFACE[..known]), Protocol::Undecided, "{known} bytes");
        }
        assert_eq!(protocol(PREFACE), Protocol::Http2);
        assert_eq!(protocol(b"G"), Protocol::Http1);
        assert_eq!(protocol(b"PRI * HTTP/1.1"), Protocol::Http1);
        assert_eq!(protocol(b"POST /v3"), Protocol::Http1);
    }
}
