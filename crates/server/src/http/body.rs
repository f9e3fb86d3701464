//! Bodies of requests and answers, over HTTP/1.1 and HTTP/2 alike.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use h2::RecvStream;
use http::request::Parts;
use hyper::body::{Body as HyperBody, Frame, Incoming, SizeHint};

/// A request for a page: its head, and its body as it comes.
pub struct Request {
    /// Method, address and headers.
    pub head: Parts,
    /// What follows.
    pub body: RequestBody,
}

/// A request's body, of either protocol.
pub enum RequestBody {
    /// Read by hyper.
    Http1(Incoming),
    /// A stream of an HTTP/2 connection.
    Http2(RecvStream),
}

/// Why a body was not read to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Unread {
    /// It has more bytes than were asked for.
    TooLarge,
    /// The client has gone, or broken the protocol; the library's words.
    Broken(String),
}

impl RequestBody {
    /// The next bytes, `None` at the end.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Unread>>> {
        loop {
            let piece = match self {
                RequestBody::Http1(body) => match ready!(Pin::new(body).poll_frame(cx)) {
                    None => return Poll::Ready(None),
                    Some(Err(error)) => Err(Unread::Broken(error.to_string())),
                    // Trailers say nothing here.
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(piece) => Ok(piece),
                        Err(_) => continue,
                    },
                },
                RequestBody::Http2(stream) => match ready!(stream.poll_data(cx)) {
                    None => return Poll::Ready(None),
                    Some(Err(error)) => Err(Unread::Broken(error.to_string())),
                    Some(Ok(piece)) => {
                        // The window is given back at once: who reads bounds what it keeps.
                        drop(stream.flow_control().release_capacity(piece.len()));
                        Ok(piece)
                    }
                },
            };
            return Poll::Ready(Some(piece));
        }
    }

    /// All of it, if it has at most `bytes_max` bytes.
    pub async fn collect(mut self, bytes_max: usize) -> Result<Bytes, Unread> {
        let mut all = BytesMut::new();
        while let Some(piece) = poll_fn(|cx| self.poll_piece(cx)).await {
            let piece = piece?;
            if all.len() + piece.len() > bytes_max {
                return Err(Unread::TooLarge);
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }
}

/// An answer's body.
pub enum Body {
    /// All of it.
    Whole(Bytes),
    /// Piece by piece, as they come; dropped when the client goes away.
    Pieces(Pin<Box<dyn Stream<Item = Bytes>>>),
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        Body::Whole(text.into())
    }
}

impl HyperBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match &mut *self {
            Body::Whole(bytes) if bytes.is_empty() => None,
            Body::Whole(bytes) => Some(std::mem::take(bytes)),
            Body::Pieces(pieces) => ready!(pieces.as_mut().poll_next(cx)),
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Body::Pieces(_) => SizeHint::default(),
        }
    }
}
