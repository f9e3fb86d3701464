//! What clients see: `PUT` and `GET` of any path, `POST /ID` of a URL to add a node, `DELETE /ID` to remove one.
//!
//! 204: it is decided, and applied on this node; a `GET` elsewhere may be a moment behind. 400: it makes no sense.
//! 503: nobody knows.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, atomic::AtomicU64, atomic::Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prost::Message;
use raft::{ConfChange, ConfChangeKind, EntryKind};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::kv::{Put, State};
use crate::node::Input;
use crate::transport::address;

/// The longest value.
const VALUE_BYTES_MAX: usize = 1 << 20;
/// How long a connection may be silent before a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a change may take, its body included; an election takes less.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// What raft does not take now, for want of a leader mostly, is proposed again after this.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Clone)]
pub struct Api {
    pub state: Arc<Mutex<State>>,
    pub inbox: mpsc::Sender<Input>,
    pub next_id: Arc<AtomicU64>,
}

/// Serves a connection to its end. If that is an error, it is the client's.
pub async fn serve(stream: TcpStream, api: Api) {
    let answer = service_fn(|request| async { Ok::<_, Infallible>(api.answer(request).await) });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    http.serve_connection(TokioIo::new(stream), answer).await.ok();
}

impl Api {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let method = request.method().clone();
        match method {
            Method::GET => {
                let state = self.state.lock().expect("nobody panics with the state in his hands");
                match state.pairs.get(&request.uri().to_string()) {
                    Some(value) => reply(StatusCode::OK, value.clone()),
                    None => reply(StatusCode::NOT_FOUND, "Failed to GET\n"),
                }
            }
            Method::PUT | Method::POST | Method::DELETE => {
                let failed = |status| reply(status, format!("Failed on {method}\n"));
                match timeout(CHANGE_TIMEOUT, self.change(request)).await {
                    Ok(Some(())) => reply(StatusCode::NO_CONTENT, ""),
                    Ok(None) => failed(StatusCode::BAD_REQUEST),
                    Err(_) => failed(StatusCode::SERVICE_UNAVAILABLE),
                }
            }
            _ => reply(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed\n"),
        }
    }

    /// Has a change decided and applied; `None` if it makes no sense.
    async fn change(&self, request: Request<Incoming>) -> Option<()> {
        let (method, key) = (request.method().clone(), request.uri().to_string());
        let body = Limited::new(request.into_body(), VALUE_BYTES_MAX).collect();
        let body = body.await.ok()?.to_bytes();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (kind, data) = if method == Method::PUT {
            (EntryKind::Normal, Put { id, key, value: body.into() }.encode_to_vec().into())
        } else {
            // Neither 0 nor more than 32 bits: raft gives the least and the greatest numbers to nobody.
            let node_id = key.strip_prefix('/')?.parse::<NonZeroU32>().ok()?.get().into();
            let (kind, context) = if method == Method::POST {
                address(std::str::from_utf8(&body).ok()?)?;
                (ConfChangeKind::AddNode, body)
            } else {
                (ConfChangeKind::RemoveNode, Bytes::new())
            };
            (EntryKind::ConfChange, ConfChange { id, kind, node_id, context }.encode())
        };
        loop {
            let (done, outcome) = oneshot::channel();
            self.inbox.send(Input::Propose { id, kind, data: data.clone(), done }).await.ok()?;
            match outcome.await {
                Ok(()) => return Some(()),
                Err(_) => sleep(PAUSE).await,
            }
        }
    }
}

fn reply(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let reply = Response::builder().status(status).header(ALLOW, "PUT, GET, POST, DELETE");
    let reply = reply.header(CONTENT_TYPE, "text/plain; charset=utf-8");
    reply.body(Full::new(body.into())).expect("its headers are valid")
}
