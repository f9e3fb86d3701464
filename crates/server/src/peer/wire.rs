//! HTTP between members: the headers that every request and stream carries, one request at a time on a
//! connection of its own, and bodies that are written while they are sent.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper_util::rt::TokioIo;
use replica::Identity;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::config::{MIN_CLUSTER_VERSION, SERVER_VERSION};

pub const CLUSTER_ID: &str = "x-etcd-cluster-id";
pub const FROM: &str = "x-server-from";
pub const TO: &str = "x-raft-to";
pub const VERSION: &str = "x-server-version";
pub const MIN_VERSION: &str = "x-min-cluster-version";
pub const PEER_URLS: &str = "x-peerurls";
/// Ours alone: its sender reads and writes snapshots in the form of `docs/format/snapshot.md`.
pub const SNAPSHOT_FORM: &str = "x-quorate-snapshot";
/// The present number of that form.
pub const SNAPSHOT_FORM_NUMBER: &str = "1";

/// The longest body that is read whole.
const BODY_BYTES_MAX: usize = 64 << 20;
/// How long the other side may take for its next bytes.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What every member says of itself in each request and each answer.
pub fn own_headers(identity: Identity, urls: &str, headers: &mut HeaderMap) {
    let mut put = |name: &'static str, value: &str| {
        // Ids, versions and URLs that the configuration took are visible ASCII.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    put(CLUSTER_ID, &format!("{:x}", identity.cluster_id));
    put(FROM, &format!("{:x}", identity.node_id));
    put(VERSION, SERVER_VERSION);
    put(MIN_VERSION, MIN_CLUSTER_VERSION);
    put(PEER_URLS, urls);
    put(SNAPSHOT_FORM, SNAPSHOT_FORM_NUMBER);
}

/// A body that is whole, or one that grows while it is sent.
pub enum OutBody {
    Whole(Option<Bytes>),
    Growing(Growing),
}

impl OutBody {
    pub fn whole(bytes: impl Into<Bytes>) -> OutBody {
        let bytes = bytes.into();
        OutBody::Whole((!bytes.is_empty()).then_some(bytes))
    }
}

/// The reading end of a body that grows; `waiting` counts the bytes that are not yet taken.
pub struct Growing {
    chunks: mpsc::Receiver<Bytes>,
    waiting: Rc<Cell<usize>>,
}

/// The writing end of a body that grows. Dropping it ends the body.
pub struct Grower {
    chunks: mpsc::Sender<Bytes>,
    waiting: Rc<Cell<usize>>,
}

/// A body that grows by at most `chunks` chunks more than the connection has taken.
pub fn growing(chunks: usize) -> (Grower, OutBody) {
    let (sender, receiver) = mpsc::channel(chunks);
    let waiting = Rc::new(Cell::new(0));
    let growing = Growing { chunks: receiver, waiting: waiting.clone() };
    (Grower { chunks: sender, waiting }, OutBody::Growing(growing))
}

impl Grower {
    /// Adds a chunk if there is room; else gives it back.
    pub fn try_push(&self, chunk: Bytes) -> Result<(), Bytes> {
        let bytes = chunk.len();
        self.chunks.try_send(chunk).map_err(mpsc::error::TrySendError::into_inner)?;
        self.waiting.set(self.waiting.get() + bytes);
        Ok(())
    }

    /// Adds a chunk when there is room; false if the connection is gone.
    pub async fn push(&self, chunk: Bytes) -> bool {
        let bytes = chunk.len();
        self.waiting.set(self.waiting.get() + bytes);
        self.chunks.send(chunk).await.is_ok()
    }

    /// Bytes that the connection has not taken yet.
    pub fn waiting(&self) -> usize {
        self.waiting.get()
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.chunks.is_closed()
    }
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            OutBody::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            OutBody::Growing(growing) => growing.chunks.poll_recv(context).map(|chunk| {
                let chunk = chunk?;
                growing.waiting.set(growing.waiting.get().saturating_sub(chunk.len()));
                Some(Ok(Frame::data(chunk)))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, OutBody::Whole(None))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            OutBody::Whole(bytes) => {
                hyper::body::SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64)
            }
            OutBody::Growing(_) => hyper::body::SizeHint::default(),
        }
    }
}

/// Why a request came to nothing.
#[derive(Debug)]
pub struct WireError(pub String);

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn failed(what: &str) -> impl Fn(&dyn std::fmt::Display) -> WireError {
    move |error| WireError(format!("{what}: {error}"))
}

/// Sends one request to `url` (scheme, host and port) and gives the answer with its body still to come. The
/// connection ends with the body.
pub async fn send(
    url: &str,
    method: Method,
    path: &str,
    headers: HeaderMap,
    body: OutBody,
    dial_patience: Duration,
    answer_patience: Duration,
) -> Result<Response<Incoming>, WireError> {
    let authority = url
        .strip_prefix("http://")
        .ok_or_else(|| WireError(format!("{url}: only http is supported between members")))?;
    let dial = tokio::time::timeout(dial_patience, TcpStream::connect(authority));
    let tcp = dial
        .await
        .map_err(|_| WireError(format!("dial {authority}: no answer within {dial_patience:?}")))?
        .map_err(|error| failed(&format!("dial {authority}"))(&error))?;
    tcp.set_nodelay(true).map_err(|error| failed("TCP_NODELAY")(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp))
        .await
        .map_err(|error| failed("handshake")(&error))?;
    // The connection lives for as long as somebody reads its answer; its end is seen there.
    tokio::task::spawn_local(async move { drop(connection.await) });
    let mut request =
        Request::builder().method(method).uri(path).body(body).expect("path is a path");
    *request.headers_mut() = headers;
    let host = HeaderValue::from_str(authority).map_err(|error| failed("the host")(&error))?;
    request.headers_mut().insert(http::header::HOST, host);
    tokio::time::timeout(answer_patience, sender.send_request(request))
        .await
        .map_err(|_| WireError(format!("{authority} did not answer within {answer_patience:?}")))?
        .map_err(|error| failed(&format!("request to {authority}"))(&error))
}

/// The same with a short body, and the answer read whole.
pub async fn ask(
    url: &str,
    method: Method,
    path: &str,
    headers: HeaderMap,
    body: Bytes,
    patience: Duration,
) -> Result<(StatusCode, HeaderMap, Bytes), WireError> {
    let body = OutBody::whole(body);
    let response = send(url, method, path, headers, body, patience, patience).await?;
    let (head, body) = response.into_parts();
    let body = read_whole(body, BODY_BYTES_MAX).await?;
    Ok((head.status, head.headers, body))
}

/// Reads a body to its end; it may not be longer than `bytes_max`, nor rest for longer than [`PATIENCE`].
pub async fn read_whole(mut body: Incoming, bytes_max: usize) -> Result<Bytes, WireError> {
    let mut whole = bytes::BytesMut::new();
    while let Some(chunk) = next_chunk(&mut body, PATIENCE).await? {
        if whole.len() + chunk.len() > bytes_max {
            return Err(WireError(format!("a body of more than {bytes_max} bytes")));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// The next bytes of a body; `None` at its end.
pub async fn next_chunk(
    body: &mut Incoming,
    patience: Duration,
) -> Result<Option<Bytes>, WireError> {
    loop {
        let frame = tokio::time::timeout(patience, body.frame())
            .await
            .map_err(|_| WireError(format!("nothing came for {patience:?}")))?;
        match frame {
            None => return Ok(None),
            Some(frame) => {
                if let Ok(data) = frame.map_err(|error| failed("read")(&error))?.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}
