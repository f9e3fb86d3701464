//! Streams over plain HTTP: one JSON per line, `{"result":…}` or, as the last one, `{"error":…}`.
//!
//! A stream is a future of its own request: it reads the client's messages and takes the method's answers when
//! it is polled, and dropping it ends the call. As in etcd's gateway the head of the answer waits for the first
//! line; where the method fails before that, the HTTP status says so. What is no message ends the client's half of
//! the stream, without a word; where the body breaks off, the stream is over.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::CONTENT_TYPE;
use proto::descriptor::Route;
use state_machine::Error;
use tokio::time::Sleep;

use super::super::body::Unread;
use super::json::{Next, Values};
use super::reply::{self, Style};
use super::{
    Body, Caller, JSON, RequestBody, body_bytes_max, http_status, malformed, not_read,
    only_message, out_of_time, request, success, write_status,
};
use crate::grpc::{self, Streaming};
use crate::serve::limits::JSON_PIECE_BYTES;
use crate::serve::shard::Shard;
use crate::serve::status::Status;
use crate::serve::stream::{Outgoing, PREFIX_BYTES, too_large};

/// Opens a stream and answers with its lines.
///
/// # Errors
/// The request could not be read, or its time is over before anything is done.
pub async fn answer(
    shard: &Rc<Shard>,
    route: &'static Route,
    caller: &Caller,
    body: Option<RequestBody>,
) -> Result<Response<Body>, Status> {
    let asks = match (route.client_streams, body) {
        (true, Some(body)) => Asks::Many { body, values: Values::default() },
        (true, None) => Asks::Nothing,
        (false, body) => Asks::One(only_message(shard, route.input, body).await?),
    };
    let bytes = if let Asks::One(message) = &asks { message.len() } else { 0 };
    let call = caller.call(shard, route, bytes)?;
    if shard.stopping.get() {
        return Ok(failed(&Error::Stopped.into()));
    }
    if let Err(status) = grpc::check_stream(shard, &call) {
        return Ok(failed(&status));
    }
    let out = Rc::new(RefCell::new(Outgoing::inside()));
    shard.look_after(&out);
    let handler = Streaming::open(shard, &call, &out);
    let patience = caller.patience.map(|patience: Duration| Box::pin(tokio::time::sleep(patience)));
    let mut live = Live { shard: shard.clone(), route, asks, handler, out, patience, over: false };
    let mut first = Vec::new();
    match poll_fn(|cx| live.poll_message(cx)).await {
        Some(Err(status)) => Ok(failed(&status)),
        None => Ok(Response::new(Body::Whole(Bytes::new()))),
        Some(Ok(message)) => {
            live.write_line(Ok(message), &mut first);
            let pieces = futures_util::stream::poll_fn(move |cx| {
                live.poll_piece(&mut first, cx).map(|piece| piece.map(Bytes::from))
            });
            Ok(success(Body::Pieces(Box::pin(pieces))))
        }
    }
}

/// A stream that failed before its first line.
fn failed(status: &Status) -> Response<Body> {
    let mut line = Vec::new();
    write_error(status, &mut line);
    let mut response = Response::new(Body::Whole(line.into()));
    *response.status_mut() = http_status(status.code);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn write_error(status: &Status, out: &mut Vec<u8>) {
    out.extend(b"{\"error\":");
    write_status(status, Style::Line, out);
    out.extend(b"}\n");
}

/// What the client still has to say.
enum Asks {
    /// Messages, as they come.
    Many { body: RequestBody, values: Values },
    /// One message.
    One(Bytes),
    /// No more, and the method is still to be told.
    Nothing,
    /// No more.
    Told,
}

/// An open stream.
struct Live {
    shard: Rc<Shard>,
    route: &'static Route,
    asks: Asks,
    handler: Streaming,
    out: Rc<RefCell<Outgoing>>,
    patience: Option<Pin<Box<Sleep>>>,
    /// The last line was taken.
    over: bool,
}

impl Live {
    /// The method's next message, how it failed, or `None` where it ended well.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(patience) = &mut self.patience
            && patience.as_mut().poll(cx).is_ready()
        {
            self.over = true;
            return Poll::Ready(Some(Err(out_of_time())));
        }
        let mut made_room = false;
        loop {
            let taken = self.out.borrow_mut().take(cx);
            match taken {
                Poll::Ready(Ok(message)) => return Poll::Ready(Some(Ok(message))),
                Poll::Ready(Err(status)) => {
                    self.over = true;
                    return Poll::Ready((status.code != 0).then_some(Err(status)));
                }
                Poll::Pending if self.poll_client(cx).is_ready() => {}
                Poll::Pending if made_room => return Poll::Pending,
                Poll::Pending => {
                    // All was taken, so there is room for more.
                    self.handler.on_room(&self.shard, &self.out);
                    made_room = true;
                }
            }
        }
    }

    /// Hands the client's next message, or the end of its half, to the method.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let message = match std::mem::replace(&mut self.asks, Asks::Told) {
            Asks::Told => return Poll::Pending,
            Asks::Nothing => None,
            Asks::One(message) => {
                self.asks = Asks::Nothing;
                Some(message)
            }
            Asks::Many { mut body, mut values } => {
                match self.poll_value(&mut body, &mut values, cx) {
                    Poll::Ready(Ok(None)) => None,
                    Poll::Ready(Err(unread)) => {
                        // Whoever is gone in the middle of his words waits for no answer.
                        self.out.borrow_mut().finish(not_read(unread));
                        return Poll::Ready(());
                    }
                    other => {
                        self.asks = Asks::Many { body, values };
                        ready!(other).unwrap_or_default()
                    }
                }
            }
        };
        let Some(message) = message else {
            self.handler.on_half_close(&self.out);
            return Poll::Ready(());
        };
        let bytes_max = self.shard.node.config.receive_bytes_max();
        match message.len() > bytes_max {
            true => self.out.borrow_mut().finish(too_large(message.len(), bytes_max)),
            false => self.handler.on_message(&self.shard, &self.out, message),
        }
        Poll::Ready(())
    }

    /// The client's next message, `None` where there is none or something else stands there.
    ///
    /// # Errors
    /// The body breaks off, and so does the connection: there is nobody, or nobody who keeps to the protocol.
    fn poll_value(
        &self,
        body: &mut RequestBody,
        values: &mut Values,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, Unread>> {
        loop {
            match values.next() {
                Ok(Next::Value(value)) => {
                    return Poll::Ready(Ok(request::read(self.route.input, &value).ok()));
                }
                Ok(Next::More) => {}
                Ok(Next::End) | Err(_) => return Poll::Ready(Ok(None)),
            }
            if values.waiting_bytes() > body_bytes_max(&self.shard) {
                return Poll::Ready(Ok(None));
            }
            match ready!(body.poll_piece(cx)) {
                Some(Ok(piece)) => values.push(&piece),
                Some(Err(unread)) => return Poll::Ready(Err(unread)),
                None => values.end(),
            }
        }
    }

    /// The next lines: as many as are there, up to the size of a piece. `lines` has been written already.
    fn poll_piece(&mut self, lines: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        while lines.len() < JSON_PIECE_BYTES {
            match self.poll_message(cx) {
                Poll::Ready(Some(message)) => self.write_line(message, lines),
                Poll::Ready(None) if lines.is_empty() => return Poll::Ready(None),
                Poll::Pending if lines.is_empty() => return Poll::Pending,
                _ => break,
            }
        }
        Poll::Ready(Some(std::mem::take(lines)))
    }

    fn write_line(&mut self, message: Result<Bytes, Status>, lines: &mut Vec<u8>) {
        let start = lines.len();
        let failed = match message {
            Err(status) => Some(status),
            Ok(message) => {
                lines.extend(b"{\"result\":");
                let written =
                    reply::write(self.route.output, &message[PREFIX_BYTES..], Style::Line, lines);
                lines.extend(b"}\n");
                written.err().map(|_| malformed())
            }
        };
        if let Some(status) = failed {
            lines.truncate(start);
            write_error(&status, lines);
            self.over = true;
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.out.borrow_mut().close();
        self.handler.close(&self.shard);
    }
}
