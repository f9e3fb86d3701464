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
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::{Connection as H2, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use tokio::net::TcpStream;

use crate::grpc::{self, Call, Kind, Metadata, Streaming};
use crate::http as pages;
use crate::log;
use crate::serve::http1;
use crate::serve::limits::{
    CONNECTION_WINDOW_BYTES, FIRST_BYTES_DEADLINE, HEADER_LIST_BYTES, LOCAL_ERROR_RESETS,
    PENDING_RESETS, REQUESTS_PER_TURN, SEND_BUFFER_BYTES, STREAM_WINDOW_BYTES,
};
use crate::serve::shard::Shard;
use crate::serve::socket::{self, Handle, Socket};
use crate::serve::status::{Code, Status};
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
    let looked =
        tokio::time::timeout(FIRST_BYTES_DEADLINE, first_bytes(&mut tcp, &mut first)).await;
    let Ok(Ok(protocol)) = looked else {
        return;
    };
    let (socket, handle) = socket::wrap(tcp, first, matches!(protocol, Protocol::Http2));
    match protocol {
        Protocol::Http2 => http2(shard, socket, handle).await,
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

async fn http2(shard: Rc<Shard>, socket: Socket, handle: Handle) {
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(shard.node.config.max_concurrent_streams)
        .max_header_list_size(HEADER_LIST_BYTES)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(LOCAL_ERROR_RESETS))
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .handshake::<_, Bytes>(socket);
    // The preface is here already, but the client's SETTINGS may be withheld.
    let Ok(Ok(h2)) = tokio::time::timeout(FIRST_BYTES_DEADLINE, handshake).await else {
        return;
    };
    handle.cork();
    let ready = Arc::new(Ready::default());
    let seat = shard.connections.borrow_mut().sit(ready.clone());
    let mut connection = Connection {
        shard: shard.clone(),
        h2,
        socket: handle,
        ready,
        seat,
        streams: HashMap::new(),
        next_key: 0,
        leaving: false,
    };
    poll_fn(|cx| connection.poll(cx)).await;
    connection.close();
    shard.connections.borrow_mut().leave(seat);
}

/// A call that the connection looks after.
enum Stream {
    /// A unary request whose message is not whole yet.
    Collecting { call: Call, body: Body, respond: Responder },
    /// A streaming call. The body is gone once the client has ended it.
    Streaming { body: Option<Body>, handler: Streaming, out: Rc<RefCell<Outgoing>> },
}

struct Connection {
    shard: Rc<Shard>,
    h2: H2<Socket, Bytes>,
    socket: Handle,
    ready: Arc<Ready>,
    seat: u64,
    streams: HashMap<usize, (Arc<StreamWake>, Stream)>,
    next_key: usize,
    /// GOAWAY has been said.
    leaving: bool,
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
            self.shard.connections.borrow_mut().hold(self.seat, &self.socket);
        }
        match self.socket.poll_flush_now(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    fn on_request(
        &mut self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        cx: &mut Context<'_>,
    ) {
        let (head, body) = request.into_parts();
        let metadata = Metadata::read(&head.headers);
        if !metadata.is_grpc() {
            pages::spawn(&self.shard, head, body, respond);
            return;
        }
        let call = match Call::read(&head, &metadata, self.shard.now_ms()) {
            Ok(call) => call,
            Err(status) => return Responder::Client(respond).fail(&status),
        };
        let receive_bytes_max = self.shard.node.config.receive_bytes_max();
        let mut body = Body::new(body, receive_bytes_max, metadata.encoding());
        match call.method.kind {
            Kind::Unary => match body.poll_message(cx) {
                Poll::Ready(message) => {
                    unary(&self.shard, call, message, Responder::Client(respond))
                }
                Poll::Pending => {
                    let respond = Responder::Client(respond);
                    self.keep(|_| Some(Stream::Collecting { call, body, respond }));
                }
            },
            Kind::Streaming => {
                if let Err(status) = grpc::check_stream(&self.shard, &call) {
                    return Responder::Client(respond).fail(&status);
                }
                if self.leaving {
                    return respond.send_reset(Reason::REFUSED_STREAM);
                }
                let shard = self.shard.clone();
                self.keep(|wake| {
                    let out = Rc::new(RefCell::new(Outgoing::open(respond, wake)?));
                    let handler = Streaming::open(&shard, &call, &out);
                    Some(Stream::Streaming { body: Some(body), handler, out })
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
            self.streams.insert(key, (wake, stream));
            self.on_stream(key);
        }
    }

    /// Something has happened to a stream: it is read, written, or over.
    fn on_stream(&mut self, key: usize) {
        let Some((wake, stream)) = self.streams.remove(&key) else { return };
        wake.looking();
        let waker = Waker::from(wake.clone());
        let cx = &mut Context::from_waker(&waker);
        let kept = match stream {
            Stream::Collecting { call, mut body, respond } => match body.poll_message(cx) {
                Poll::Pending => Some(Stream::Collecting { call, body, respond }),
                Poll::Ready(message) => {
                    unary(&self.shard, call, message, respond);
                    None
                }
            },
            Stream::Streaming { mut body, mut handler, out } => {
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
                            handler.on_half_close(&self.shard, &out);
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
                    false => Some(Stream::Streaming { body, handler, out: out.clone() }),
                }
            }
        };
        if let Some(stream) = kept {
            self.streams.insert(key, (wake, stream));
        }
    }

    /// The connection is gone: so are its streams.
    fn close(&mut self) {
        for (_, (_, stream)) in self.streams.drain() {
            if let Stream::Streaming { mut handler, .. } = stream {
                handler.close(&self.shard);
            }
        }
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
