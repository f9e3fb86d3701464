//! Snapshots on the wire: the message that announces one, then its bytes, in one POST.
//!
//! ```text
//!   ┌────────────┬───────────────────────┬──────────────────────────────┐
//!   │ length u64 │ raftpb.Message (Snap) │ the snapshot, until the end  │
//!   └────────────┴───────────────────────┴──────────────────────────────┘
//! ```
//!
//! Between our own members, which know each other by a header, the bytes are those of
//! `docs/format/snapshot.md`; a Go member would send and expect a bbolt file, which is not yet supported: it is
//! refused with a text that says so, and raft tries again later.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::Incoming as InBody;
use raft::MessageKind;
use replica::{Input, OutgoingSnapshot};

use super::wire::{self, OutBody};
use super::{Peers, encoded, listener};
use crate::log;

/// Chunks that may wait for the connection.
const CHUNKS_MAX: usize = 4;
/// How long the receiver may take to check and sync what it received.
const ACCEPT_PATIENCE: Duration = Duration::from_secs(60);
/// The longest announcement that is believed.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;
/// How long a refusal rests before raft hears of it: it would try again at once.
const REFUSED_REST: Duration = Duration::from_secs(1);

/// Sends one, and tells the replica how it ended.
pub(super) async fn send(peers: Rc<Peers>, snapshot: Box<OutgoingSnapshot>) {
    let to = snapshot.to;
    let index = snapshot.message.snapshot.as_ref().map_or(0, |snapshot| snapshot.metadata.index.0);
    let result = try_send(&peers, *snapshot).await;
    match &result {
        Ok(()) => log!(
            Info, "sent a snapshot", "to" => format!("{to:x}"), "snapshot-index" => index
        ),
        Err(error) => {
            log!(
                Warn, "a snapshot could not be sent",
                "to" => format!("{to:x}"), "snapshot-index" => index, "error" => error
            );
            tokio::time::sleep(REFUSED_REST).await;
        }
    }
    peers.node.replica.put(Input::SnapshotSent { to, ok: result.is_ok() });
}

async fn try_send(peers: &Rc<Peers>, snapshot: OutgoingSnapshot) -> Result<(), String> {
    let link = peers.link(snapshot.to).ok_or("the member is not known")?;
    if !link.takes_our_snapshots() {
        return Err("a snapshot in etcd's own form is not yet supported; the member is a real etcd, or has \
             not been met yet"
            .to_string());
    }
    let OutgoingSnapshot { message, mut stream, .. } = snapshot;
    let message = encoded(&message);
    let mut head = BytesMut::with_capacity(8 + message.len());
    head.put_u64(message.len() as u64);
    head.put_slice(&message);
    let (grower, body) = wire::growing(CHUNKS_MAX);
    let mut headers = peers.headers();
    headers.insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/octet-stream"),
    );
    let url = link.url();
    let answer = wire::send(
        &url,
        Method::POST,
        "/raft/snapshot",
        headers,
        body,
        peers.dial_patience(),
        // The answer comes after the whole body; how long that takes, the chunks decide.
        Duration::from_secs(24 * 3600),
    );
    let feed = async {
        let mut open = grower.push(head.freeze()).await;
        while open {
            let read = peers.on_read_thread(move || {
                let chunk = stream.next_chunk();
                (stream, chunk)
            });
            let (back, chunk) = read.await.ok_or("the process ends")?;
            stream = back;
            match chunk.map_err(|error| format!("the store cannot be read: {error}"))? {
                Some(chunk) => {
                    let pushed = tokio::time::timeout(wire::PATIENCE, grower.push(chunk)).await;
                    open = pushed.map_err(|_| "the receiver takes nothing".to_string())?;
                }
                None => break,
            }
        }
        drop(grower);
        Ok::<(), String>(())
    };
    tokio::pin!(answer);
    let early = tokio::select! {
        biased;
        answered = &mut answer => Some(answered),
        fed = feed => { fed?; None }
    };
    let answered = match early {
        Some(answered) => answered,
        None => tokio::time::timeout(ACCEPT_PATIENCE, answer)
            .await
            .map_err(|_| format!("the receiver did not accept it within {ACCEPT_PATIENCE:?}"))?,
    };
    let (head, body) = answered.map_err(|error| error.to_string())?.into_parts();
    match head.status {
        StatusCode::NO_CONTENT => Ok(()),
        status => {
            let text = wire::read_whole(body, 64 << 10).await.unwrap_or_default();
            Err(format!("{status}: {}", String::from_utf8_lossy(&text).trim()))
        }
    }
}

/// Takes one in: into `member/incoming/`, whole and durable, before it is acknowledged.
pub(super) async fn receive(
    peers: &Rc<Peers>,
    headers: &HeaderMap,
    body: InBody,
) -> Response<OutBody> {
    if headers.get(wire::SNAPSHOT_FORM).is_none_or(|form| form != wire::SNAPSHOT_FORM_NUMBER) {
        return listener::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "quorate: a snapshot in etcd's own form is not yet supported",
        );
    }
    match try_receive(peers, body).await {
        Ok(()) => listener::empty(StatusCode::NO_CONTENT),
        Err((status, error)) => {
            log!(Warn, "a snapshot could not be received", "error" => &error);
            listener::text(status, &error)
        }
    }
}

async fn try_receive(peers: &Rc<Peers>, mut body: InBody) -> Result<(), (StatusCode, String)> {
    let bad = |text: &str| (StatusCode::BAD_REQUEST, text.to_string());
    let io = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::WouldBlock => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let wire_error = |error: wire::WireError| (StatusCode::BAD_REQUEST, error.to_string());
    let stopped = || (StatusCode::SERVICE_UNAVAILABLE, "the member ends".to_string());

    let mut read = BytesMut::new();
    let message = loop {
        if let Some(message) = take_message(&mut read).map_err(bad)? {
            break message;
        }
        match wire::next_chunk(&mut body, wire::PATIENCE).await.map_err(wire_error)? {
            Some(chunk) => read.extend_from_slice(&chunk),
            None => return Err(bad("the body ends before its message does")),
        }
    };
    let message = wal::codec::decode_message(&message)
        .map_err(|error| bad(&format!("the message cannot be read: {error}")))?;
    if message.kind != MessageKind::Snap || message.to != peers.node.identity.node_id {
        return Err(bad("the message is not a snapshot for this member"));
    }
    log!(Info, "receiving a snapshot", "from" => format!("{:x}", message.from));
    let (node, receptions) = (peers.node.clone(), peers.receptions.clone());
    let announced = message.clone();
    let created = peers.on_read_thread(move || {
        receptions.begin(node.vfs.clone(), &node.replica_config, &announced)
    });
    let mut incoming = created.await.ok_or_else(stopped)?.map_err(io)?;
    let mut chunk = Some(read.freeze());
    while let Some(bytes) = chunk {
        let written = peers.on_read_thread(move || {
            let result = incoming.write(&bytes);
            (incoming, result)
        });
        let (back, result) = written.await.ok_or_else(stopped)?;
        incoming = back;
        result.map_err(io)?;
        chunk = wire::next_chunk(&mut body, wire::PATIENCE).await.map_err(wire_error)?;
    }
    let finished = peers.on_read_thread(move || incoming.finish());
    let file = finished.await.ok_or_else(stopped)?.map_err(io)?;
    log!(Info, "received a snapshot", "snapshot-index" => file.index.0);
    peers.node.replica.put(Input::SnapshotReceived { message: Box::new(message), file });
    Ok(())
}

/// The announcing message, once it is whole.
fn take_message(read: &mut BytesMut) -> Result<Option<Bytes>, &'static str> {
    let Some(eight) = read.get(..8) else { return Ok(None) };
    let length = u64::from_be_bytes(eight.try_into().expect("the slice has eight bytes"));
    if length > MESSAGE_BYTES_MAX {
        return Err("the message is too long");
    }
    if (read.len() as u64) < 8 + length {
        return Ok(None);
    }
    read.advance(8);
    Ok(Some(read.split_to(length as usize).freeze()))
}
