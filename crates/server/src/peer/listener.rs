//! The peer port: who may speak, and what is answered.
//!
//! The status codes are part of the protocol, and two of them are deadly: on 403 to a message, or 410 to a stream,
//! a Go member believes that it was removed and ends for good. So they are said to a member that really was
//! removed, and to nobody else.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use proto::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
    ResponseHeader,
};
use raft::NodeId;
use replica::{LeaseQuestion, LeaseRefusal, LeaseTime};
use state_machine::{Error, Reply, Version};
use tokio::net::TcpListener;

use super::codec::StreamKind;
use super::wire::{self, OutBody};
use super::{Peers, link, snapshot};
use crate::config::{MIN_CLUSTER_VERSION, SERVER_VERSION};
use crate::log;

/// How long the first bytes of a request may take.
const HEADER_PATIENCE: Duration = Duration::from_secs(5);
/// The longest single message that is taken; etcd's bound.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// The longest body of the small questions.
const QUESTION_BYTES_MAX: usize = 64 << 10;
/// Connections at a time; more are closed at once.
const CONNECTIONS_MAX: usize = 1024;

/// Accepts connections until the thread ends.
pub(super) async fn accept(peers: Rc<Peers>, listener: TcpListener) {
    let open = Rc::new(());
    loop {
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                log!(Warn, "a peer's connection could not be accepted", "error" => error.to_string());
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if Rc::strong_count(&open) > CONNECTIONS_MAX {
            log!(Warn, "a peer's connection was refused: there are too many");
            continue;
        }
        if let Err(error) = tcp.set_nodelay(true) {
            log!(Debug, "a connection ended before it began", "error" => error.to_string());
            continue;
        }
        let (peers, counted) = (peers.clone(), open.clone());
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| {
                let peers = peers.clone();
                async move { Ok::<_, Infallible>(answer(&peers, request).await) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(hyper_util::rt::TokioTimer::new())
                .header_read_timeout(HEADER_PATIENCE)
                .serve_connection(TokioIo::new(tcp), service)
                .await;
            if let Err(error) = served {
                log!(Debug, "a peer's connection ended", "error" => error.to_string());
            }
            drop(counted);
        });
    }
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response<OutBody> {
    let mut response = Response::new(OutBody::whole(""));
    *response.status_mut() = status;
    response
}

/// An answer in one line.
pub(super) fn text(status: StatusCode, text: &str) -> Response<OutBody> {
    let mut response = Response::new(OutBody::whole(format!("{text}\n")));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn typed(kind: &'static str, body: impl Into<Bytes>) -> Response<OutBody> {
    let mut response = Response::new(OutBody::whole(body.into()));
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

async fn answer(peers: &Rc<Peers>, request: Request<Incoming>) -> Response<OutBody> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_string();
    let wanted = match path.as_str() {
        "/raft" | "/raft/snapshot" | "/leases" | "/leases/internal" => Method::POST,
        _ if path.starts_with("/members/promote/") => Method::POST,
        _ => Method::GET,
    };
    if head.method != wanted {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        if let Ok(allowed) = HeaderValue::from_str(wanted.as_str()) {
            response.headers_mut().insert(http::header::ALLOW, allowed);
        }
        return response;
    }
    let mut response = match path.as_str() {
        "/raft" => take_message(peers, &head.headers, body).await,
        "/raft/snapshot" => match check_sender(peers, &head.headers) {
            Err(refusal) => refusal,
            Ok(_) => snapshot::receive(peers, &head.headers, body).await,
        },
        "/raft/probing" => {
            let now = crate::log::timestamp(SystemTime::now());
            typed("application/json", format!("{{\"OK\":true,\"Now\":\"{now}\"}}\n"))
        }
        "/members" => members(peers),
        "/members/hashkv" => hash_kv(peers, &head.headers, body).await,
        "/version" => typed("application/json", crate::http::version(&peers.node)),
        "/downgrade/enabled" => {
            text(StatusCode::OK, &peers.node.view.state.cluster().downgrade.enabled.to_string())
        }
        "/leases" => renew(peers, body).await,
        "/leases/internal" => time_to_live(peers, body).await,
        _ if path.starts_with("/members/promote/") => {
            text(StatusCode::NOT_IMPLEMENTED, "quorate: promoting a member is not implemented yet")
        }
        _ => match path.strip_prefix("/raft/stream/") {
            Some(stream) => open_stream(peers, &head.headers, stream),
            None => text(StatusCode::NOT_FOUND, "404 page not found"),
        },
    };
    wire::own_headers(peers.node.identity, &peers.urls, response.headers_mut());
    response
}

/// Whether a member with these headers may speak to us at all, and who it is.
#[allow(
    clippy::result_large_err,
    reason = "the refusal is the answer; it is made once and moved out"
)]
fn check_sender(peers: &Peers, headers: &HeaderMap) -> Result<Option<NodeId>, Response<OutBody>> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let version = |name: &str| match header(name) {
        // Who does not say is from before versions were said.
        "" => Some(Version::new(2, 0, 0)),
        text => Version::parse(text),
    };
    let own = Version::parse(SERVER_VERSION).expect("our own version can be read");
    let least = Version::parse(MIN_CLUSTER_VERSION).expect("our own version can be read");
    let order = |version: &Version| (version.major, version.minor);
    let compatible = match (version(wire::VERSION), version(wire::MIN_VERSION)) {
        (Some(server), Some(min)) => order(&server) >= order(&least) && order(&min) <= order(&own),
        _ => false,
    };
    if !compatible {
        return Err(text(StatusCode::PRECONDITION_FAILED, "incompatible version"));
    }
    let cluster = header(wire::CLUSTER_ID);
    if cluster != format!("{:x}", peers.node.identity.cluster_id) {
        log!(
            Warn, "request cluster ID mismatch",
            "remote-peer-cluster-id" => cluster,
            "remote-peer-server-from" => header(wire::FROM),
            "local-member-cluster-id" => format!("{:x}", peers.node.identity.cluster_id)
        );
        return Err(text(StatusCode::PRECONDITION_FAILED, "cluster ID mismatch"));
    }
    let from = NodeId::from_str_radix(header(wire::FROM), 16).ok();
    if from.is_some_and(|from| peers.node.view.state.cluster().removed.contains(&from)) {
        let mut refusal = typed(
            "application/json",
            "{\"message\":\"the member has been permanently removed from the cluster\"}",
        );
        *refusal.status_mut() = StatusCode::FORBIDDEN;
        return Err(refusal);
    }
    if let Some(link) = from.and_then(|from| peers.link(from)) {
        link.meet(headers);
    }
    Ok(from)
}

/// POST /raft: one message.
async fn take_message(peers: &Rc<Peers>, headers: &HeaderMap, body: Incoming) -> Response<OutBody> {
    if let Err(refusal) = check_sender(peers, headers) {
        return refusal;
    }
    let message = match wire::read_whole(body, MESSAGE_BYTES_MAX).await {
        Ok(bytes) => wal::codec::decode_message(&bytes).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match message {
        Err(error) => {
            text(StatusCode::BAD_REQUEST, &format!("the message cannot be read: {error}"))
        }
        // Not 403, which etcd would say: it ends a Go member that merely has an old address of ours.
        Ok(message) if message.to != peers.node.identity.node_id => {
            text(StatusCode::PRECONDITION_FAILED, "the message is for another member")
        }
        Ok(message) => {
            let size = link::message_bytes(&message);
            peers.count_received(std::slice::from_ref(&message));
            match peers.node.replica.messages(vec![message], size) {
                true => empty(StatusCode::NO_CONTENT),
                false => text(StatusCode::SERVICE_UNAVAILABLE, "too many messages wait"),
            }
        }
    }
}

/// GET /raft/stream/KIND/ID: an endless answer, into which we write from now on.
fn open_stream(peers: &Rc<Peers>, headers: &HeaderMap, path: &str) -> Response<OutBody> {
    match check_sender(peers, headers) {
        Err(refusal) if refusal.status() == StatusCode::FORBIDDEN => {
            return text(StatusCode::GONE, "removed member");
        }
        Err(refusal) => return refusal,
        Ok(_) => {}
    }
    let (kind, id) = match path.split_once('/') {
        Some(("message", id)) => (StreamKind::Message, id),
        Some(("msgapp", id)) => (StreamKind::Append, id),
        _ => return text(StatusCode::NOT_FOUND, "invalid path"),
    };
    let Ok(from) = NodeId::from_str_radix(id, 16) else {
        return text(StatusCode::NOT_FOUND, "invalid from");
    };
    if peers.node.view.state.cluster().removed.contains(&from) {
        return text(StatusCode::GONE, "removed member");
    }
    let Some(link) = peers.link(from) else {
        return text(StatusCode::NOT_FOUND, "error sender not found");
    };
    let to = headers.get(wire::TO).and_then(|to| to.to_str().ok()).unwrap_or("");
    if to != format!("{:x}", peers.node.identity.node_id) {
        return text(StatusCode::PRECONDITION_FAILED, "to field mismatch");
    }
    Response::new(link.attach(kind))
}

fn members(peers: &Peers) -> Response<OutBody> {
    let cluster = peers.node.view.state.cluster();
    let mut json = b"[".to_vec();
    for (i, member) in cluster.members.values().enumerate() {
        if i > 0 {
            json.push(b',');
        }
        json.extend_from_slice(&member.to_context());
    }
    json.extend_from_slice(b"]\n");
    typed("application/json", json)
}

/// GET /members/hashkv, with a body.
async fn hash_kv(peers: &Rc<Peers>, headers: &HeaderMap, body: Incoming) -> Response<OutBody> {
    let cluster = headers.get(wire::CLUSTER_ID).and_then(|id| id.to_str().ok()).unwrap_or("");
    if cluster != format!("{:x}", peers.node.identity.cluster_id) {
        return text(StatusCode::PRECONDITION_FAILED, "cluster ID mismatch");
    }
    let bytes = match wire::read_whole(body, QUESTION_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(error) => return text(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let revision = match serde_json::from_slice::<serde_json::Value>(&bytes) {
        Ok(json) => json.get("revision").and_then(serde_json::Value::as_i64).unwrap_or(0),
        Err(_) => return text(StatusCode::BAD_REQUEST, "error unmarshalling request"),
    };
    let node = peers.node.clone();
    match peers.on_read_thread(move || node.view.state.hash_kv(revision)).await {
        None => text(StatusCode::SERVICE_UNAVAILABLE, "the member ends"),
        Some(Err(error)) => text(StatusCode::BAD_REQUEST, &error.to_string()),
        Some(Ok(Reply::HashKv { hash, compact_revision, hash_revision, revision })) => {
            let json = serde_json::json!({
                "header": {
                    "cluster_id": peers.node.identity.cluster_id,
                    "member_id": peers.node.identity.node_id,
                    "revision": revision,
                },
                "hash": hash,
                "compact_revision": compact_revision,
                "hash_revision": hash_revision,
            });
            typed("application/json", json.to_string())
        }
        Some(Ok(other)) => {
            text(StatusCode::INTERNAL_SERVER_ERROR, &format!("not a hash: {other:?}"))
        }
    }
}

fn refused(refusal: LeaseRefusal) -> Response<OutBody> {
    match refusal {
        LeaseRefusal::ApplyTooSlow => {
            text(StatusCode::REQUEST_TIMEOUT, Error::TimeoutWaitAppliedIndex.text())
        }
        LeaseRefusal::Forward { .. } | LeaseRefusal::NoLeader | LeaseRefusal::LeadershipLost => {
            text(StatusCode::BAD_REQUEST, "not a primary lessor")
        }
        LeaseRefusal::TooManyRequests | LeaseRefusal::Stopped => {
            text(StatusCode::SERVICE_UNAVAILABLE, "the member does not take lease questions now")
        }
    }
}

/// POST /leases: renews a lease for a follower's client.
async fn renew(peers: &Rc<Peers>, body: Incoming) -> Response<OutBody> {
    let request = match wire::read_whole(body, QUESTION_BYTES_MAX).await {
        Ok(bytes) => LeaseKeepAliveRequest::decode(bytes).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let request = match request {
        Ok(request) => request,
        Err(error) => return text(StatusCode::BAD_REQUEST, &error),
    };
    match peers.ask_clock(request.id, LeaseQuestion::KeepAlive).await.map(|answer| answer.result) {
        None => text(StatusCode::REQUEST_TIMEOUT, "the lease clock did not answer"),
        Some(Err(refusal)) => refused(refusal),
        Some(Ok(LeaseTime::KeptAlive { ttl })) => {
            let answer = LeaseKeepAliveResponse { header: None, id: request.id, ttl };
            typed("application/protobuf", answer.encode_to_vec())
        }
        Some(Ok(_)) => text(StatusCode::NOT_FOUND, Error::LeaseNotFound.text()),
    }
}

/// POST /leases/internal: the time that a lease has left, and its keys.
async fn time_to_live(peers: &Rc<Peers>, body: Incoming) -> Response<OutBody> {
    let request = match wire::read_whole(body, QUESTION_BYTES_MAX).await {
        Ok(bytes) => unwrapped(bytes).and_then(|inner| LeaseTimeToLiveRequest::decode(inner).ok()),
        Err(_) => None,
    };
    let Some(request) = request else {
        return text(StatusCode::BAD_REQUEST, "the request cannot be read");
    };
    let answer = peers.ask_clock(request.id, LeaseQuestion::TimeToLive).await;
    match answer.map(|answer| answer.result) {
        None => text(StatusCode::REQUEST_TIMEOUT, "the lease clock did not answer"),
        Some(Err(refusal)) => refused(refusal),
        Some(Ok(LeaseTime::Remaining { remaining, granted })) => {
            let view = &peers.node.view;
            let keys = match request.keys {
                true => view.state.lease_keys(request.id).unwrap_or_default(),
                false => Vec::new(),
            };
            let header = ResponseHeader {
                cluster_id: peers.node.identity.cluster_id,
                member_id: peers.node.identity.node_id,
                revision: view.state.revision(),
                raft_term: view.term().0,
            };
            let answer = LeaseTimeToLiveResponse {
                header: Some(header),
                id: request.id,
                ttl: remaining,
                granted_ttl: granted,
                keys,
            };
            typed("application/protobuf", wrapped(&answer.encode_to_vec()))
        }
        Some(Ok(_)) => text(StatusCode::NOT_FOUND, Error::LeaseNotFound.text()),
    }
}

/// A message as the only field, number 1, of another: what `/leases/internal` speaks.
pub(super) fn wrapped(inner: &[u8]) -> Vec<u8> {
    let mut out = vec![1 << 3 | 2];
    prost::encoding::encode_varint(inner.len() as u64, &mut out);
    out.extend_from_slice(inner);
    out
}

/// The message inside.
pub(super) fn unwrapped(mut outer: Bytes) -> Option<Bytes> {
    use bytes::Buf;
    if outer.is_empty() || outer.get_u8() != (1 << 3 | 2) {
        return None;
    }
    let length = prost::encoding::decode_varint(&mut outer).ok()?;
    (length == outer.len() as u64).then_some(outer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_question_is_unwrapped_and_nothing_else_is() {
        assert_eq!(unwrapped(wrapped(b"inner").into()), Some(Bytes::from_static(b"inner")));
        assert_eq!(unwrapped(Bytes::new()), None);
        assert_eq!(unwrapped(Bytes::from_static(b"\x0a\x05abc")), None);
        assert_eq!(unwrapped(Bytes::from_static(b"\x12\x00")), None);
    }
}
