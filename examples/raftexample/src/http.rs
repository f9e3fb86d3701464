//! What clients see: `PUT` and `GET` of any path, `POST /ID` of a URL to add a node, `DELETE /ID` to remove one.
//!
//! 204: it is decided, and applied here; a `GET` elsewhere may be a moment behind. 400: it makes no sense. 503: who knows.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::{convert::Infallible, num::NonZeroU32};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prost::Message;
use raft::{ConfChange, ConfChangeKind, EntryKind};
use tokio::sync::{mpsc::Sender, oneshot};
use tokio::{net::TcpStream, time};

use crate::kv::{State, lock};
use crate::{TICK, TIMEOUT, node::Input, transport::address};

/// The longest value.
const VALUE_BYTES_MAX: usize = 1 << 20;

/// Serves a connection until the client has enough, does what makes no sense, or is silent for half a minute.
pub async fn serve(stream: TcpStream, state: Arc<Mutex<State>>, inbox: Sender<Input>) {
    let answer = service_fn(|request| answer(request, &state, &inbox));
    let (mut http, stream) = (http1::Builder::new(), TokioIo::new(stream));
    http.timer(TokioTimer::new()).serve_connection(stream, answer).await.ok();
}

async fn answer(
    request: Request<Incoming>,
    state: &Mutex<State>,
    inbox: &Sender<Input>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let failed = format!("Failed on {}\n", request.method());
    let (status, body) = match *request.method() {
        Method::GET => match lock(state).pairs.get(&request.uri().to_string()) {
            Some(value) => (StatusCode::OK, value.clone()),
            None => (StatusCode::NOT_FOUND, "Failed to GET\n".into()),
        },
        Method::PUT | Method::POST | Method::DELETE => {
            match time::timeout(TIMEOUT, change(request, inbox)).await {
                Ok(Some(())) => (StatusCode::NO_CONTENT, Vec::new()),
                Ok(None) => (StatusCode::BAD_REQUEST, failed.into()),
                Err(_) => (StatusCode::SERVICE_UNAVAILABLE, failed.into()),
            }
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed\n".into()),
    };
    let reply = Response::builder().status(status).header(ALLOW, "PUT, GET, POST, DELETE");
    let reply = reply.header(CONTENT_TYPE, "text/plain; charset=utf-8");
    Ok(reply.body(Full::from(body)).expect("its headers are valid"))
}

/// Has a change decided and applied; `None` if it makes no sense.
async fn change(request: Request<Incoming>, inbox: &Sender<Input>) -> Option<()> {
    let (method, key) = (request.method().clone(), request.uri().to_string());
    let body = Limited::new(request.into_body(), VALUE_BYTES_MAX).collect().await.ok()?.to_bytes();
    #[allow(clippy::disallowed_methods, reason = "no two changes may have the same")]
    let id = RandomState::new().hash_one(());
    let (kind, data) = if method == Method::PUT {
        let piece = State { id, pairs: [(key, body.into())].into(), ..State::default() };
        (EntryKind::Normal, piece.encode_to_vec().into())
    } else {
        // Neither 0 nor more than 32 bits: raft gives the least and the greatest numbers to nobody.
        let node_id = key.strip_prefix('/')?.parse::<NonZeroU32>().ok()?.get().into();
        let (kind, address) = match method {
            Method::POST => {
                (ConfChangeKind::AddNode, address(std::str::from_utf8(&body).ok()?).ok()?)
            }
            _ => (ConfChangeKind::RemoveNode, String::new()),
        };
        let change = ConfChange { id, kind, node_id, context: address.into() };
        (EntryKind::ConfChange, change.encode())
    };
    loop {
        let (done, outcome) = oneshot::channel();
        inbox.send(Input::Propose { id, kind, data: data.clone(), done }).await.ok()?;
        match outcome.await {
            Ok(()) => return Some(()),
            // Raft does not take it now, for want of a leader mostly.
            Err(_) => time::sleep(TICK).await,
        }
    }
}
