//! The link to one other member: the streams that we read, the streams that we write, and single messages.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use raft::{Message, MessageKind, NodeId};
use replica::Input;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::codec::{Decoder, Encoder, StreamKind};
use super::wire::{self, Grower, OutBody};
use super::{Peers, encoded};
use crate::log;

/// Pause between two dials of a stream.
const REDIAL: Duration = Duration::from_millis(100);
/// Chunks, and bytes, that a stream may be behind; what comes then is dropped and raft sends again.
const STREAM_CHUNKS_MAX: usize = 4096;
const STREAM_BYTES_MAX: usize = 64 << 20;
/// Single messages that may wait.
const POSTS_MAX: usize = 64;
/// How often the other member's version is asked for; more often until it is known.
const VERSION_EVERY: Duration = Duration::from_secs(4);
const VERSION_FIRST: Duration = Duration::from_millis(200);

/// The link to one other member. Dropping it ends its tasks and its streams.
pub(crate) struct Link {
    id: NodeId,
    urls: RefCell<Vec<String>>,
    at: Cell<usize>,
    /// The answers to its GETs, into which we write.
    message: RefCell<Option<Attached>>,
    append: RefCell<Option<Attached>>,
    posts: mpsc::Sender<Bytes>,
    /// How many of its two streams we are reading.
    reading: Cell<usize>,
    /// Whether it takes snapshots in our own form.
    takes_our_snapshots: Cell<bool>,
    /// Something was dropped since the last flush.
    dropped: Cell<bool>,
    peers: std::rc::Weak<Peers>,
    tasks: RefCell<Vec<AbortHandle>>,
}

/// One answer into which we write.
struct Attached {
    grower: Grower,
    encoder: Encoder,
    /// What was added since the last flush.
    batch: BytesMut,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.tasks.borrow().iter().for_each(AbortHandle::abort);
    }
}

impl Link {
    /// Begins to dial.
    pub(super) fn start(peers: &Rc<Peers>, id: NodeId, urls: Vec<String>) -> Rc<Link> {
        let (posts, receiver) = mpsc::channel(POSTS_MAX);
        let link = Rc::new(Link {
            id,
            urls: RefCell::new(urls),
            at: Cell::new(0),
            message: RefCell::default(),
            append: RefCell::default(),
            posts,
            reading: Cell::new(0),
            takes_our_snapshots: Cell::new(false),
            dropped: Cell::new(false),
            peers: Rc::downgrade(peers),
            tasks: RefCell::default(),
        });
        // The tasks hold the link weakly, for it is the link that ends them.
        let tasks = [
            tokio::task::spawn_local(read_streams(
                peers.clone(),
                Rc::downgrade(&link),
                StreamKind::Message,
            )),
            tokio::task::spawn_local(read_streams(
                peers.clone(),
                Rc::downgrade(&link),
                StreamKind::Append,
            )),
            tokio::task::spawn_local(post(peers.clone(), Rc::downgrade(&link), receiver)),
            tokio::task::spawn_local(ask_version(peers.clone(), Rc::downgrade(&link))),
        ];
        *link.tasks.borrow_mut() =
            tasks.iter().map(tokio::task::JoinHandle::abort_handle).collect();
        link
    }

    pub(super) fn set_urls(&self, urls: &[String]) {
        if *self.urls.borrow() != urls {
            *self.urls.borrow_mut() = urls.to_vec();
            self.at.set(0);
        }
    }

    /// The URL in use.
    pub(super) fn url(&self) -> String {
        let urls = self.urls.borrow();
        urls.get(self.at.get() % urls.len().max(1)).cloned().unwrap_or_default()
    }

    /// Turns to the next URL, because the present one failed.
    pub(super) fn next_url(&self) {
        self.at.set(self.at.get().wrapping_add(1));
    }

    /// Remembers what the other member says of itself.
    pub(super) fn meet(&self, headers: &http::HeaderMap) {
        let ours =
            headers.get(wire::SNAPSHOT_FORM).is_some_and(|form| form == wire::SNAPSHOT_FORM_NUMBER);
        self.takes_our_snapshots.set(ours);
    }

    pub(super) fn takes_our_snapshots(&self) -> bool {
        self.takes_our_snapshots.get()
    }

    /// The other member has dialled: what we write goes there from now on; an older stream ends.
    pub(super) fn attach(&self, kind: StreamKind) -> OutBody {
        let (grower, body) = wire::growing(STREAM_CHUNKS_MAX);
        let attached = Attached { grower, encoder: Encoder::new(kind), batch: BytesMut::new() };
        *self.stream(kind).borrow_mut() = Some(attached);
        body
    }

    fn stream(&self, kind: StreamKind) -> &RefCell<Option<Attached>> {
        match kind {
            StreamKind::Message => &self.message,
            StreamKind::Append => &self.append,
        }
    }

    /// Adds a message to the batch of the stream that it belongs to, or posts it.
    pub(super) fn add(&self, message: &Message) {
        let kinds = match message.kind {
            MessageKind::App => &[StreamKind::Append, StreamKind::Message][..],
            _ => &[StreamKind::Message][..],
        };
        for kind in kinds {
            let mut stream = self.stream(*kind).borrow_mut();
            let Some(attached) = stream.as_mut().filter(|attached| !attached.grower.is_closed())
            else {
                continue;
            };
            if attached.grower.waiting() + attached.batch.len() > STREAM_BYTES_MAX {
                self.dropped.set(true);
            } else {
                attached.encoder.encode(message, &mut attached.batch);
            }
            return;
        }
        if self.posts.try_send(encoded(message)).is_err() {
            self.dropped.set(true);
        }
    }

    /// Sends what was added.
    pub(super) fn flush(&self) {
        for kind in [StreamKind::Message, StreamKind::Append] {
            let mut stream = self.stream(kind).borrow_mut();
            let Some(attached) = stream.as_mut().filter(|attached| !attached.batch.is_empty())
            else {
                continue;
            };
            if attached.grower.try_push(attached.batch.split().freeze()).is_err() {
                // An encoder whose bytes did not leave is ahead of its reader: the stream cannot go on.
                *stream = None;
                self.dropped.set(true);
            }
        }
        if self.dropped.replace(false) {
            self.unreachable();
        }
    }

    fn unreachable(&self) {
        if let Some(peers) = self.peers.upgrade() {
            peers.node.peer_table.update(self.id, |peer| peer.appends.failed += 1);
            peers.node.replica.put(Input::Unreachable(self.id));
        }
    }

    /// A sign of life on each stream.
    pub(super) fn keep_alive(&self) {
        for kind in [StreamKind::Message, StreamKind::Append] {
            if let Some(attached) = self.stream(kind).borrow_mut().as_mut() {
                attached.encoder.encode_heartbeat(&mut attached.batch);
            }
        }
        self.flush();
    }

    fn begin_reading(&self, peers: &Peers) {
        self.reading.set(self.reading.get() + 1);
        if self.reading.get() == 1 {
            let now = peers.node.now_ms();
            peers.node.peer_table.update(self.id, |peer| peer.connected_since_ms = Some(now));
            log!(Info, "peer became active", "peer-id" => format!("{:x}", self.id));
        }
    }

    fn end_reading(&self, peers: &Peers, error: &str) {
        self.reading.set(self.reading.get() - 1);
        if self.reading.get() == 0 {
            peers.node.peer_table.update(self.id, |peer| peer.connected_since_ms = None);
            log!(
                Warn, "peer became inactive (message send to peer failed)",
                "peer-id" => format!("{:x}", self.id),
                "error" => error
            );
        }
    }
}

/// Dials one of the other member's streams again and again, and reads it.
async fn read_streams(peers: Rc<Peers>, link: std::rc::Weak<Link>, kind: StreamKind) {
    // The same complaint is logged once, not ten times a second.
    let mut complaint = String::new();
    loop {
        let Some(link) = link.upgrade() else { return };
        let url = link.url();
        match dial(&peers, &link, kind).await {
            Ok(body) => {
                complaint.clear();
                link.begin_reading(&peers);
                let error = read(&peers, &link, kind, body).await;
                link.end_reading(&peers, &error);
            }
            Err(error) => {
                link.next_url();
                if error != complaint {
                    log!(
                        Warn, "a stream could not be opened",
                        "remote-peer-id" => format!("{:x}", link.id),
                        "stream" => kind.name(),
                        "url" => url,
                        "error" => &error
                    );
                    complaint = error;
                }
            }
        }
        drop(link);
        tokio::time::sleep(REDIAL).await;
    }
}

async fn dial(
    peers: &Rc<Peers>,
    link: &Link,
    kind: StreamKind,
) -> Result<hyper::body::Incoming, String> {
    let mut headers = peers.headers();
    if let Ok(to) = http::HeaderValue::from_str(&format!("{:x}", link.id)) {
        headers.insert(wire::TO, to);
    }
    let path = format!("/raft/stream/{}/{:x}", kind.name(), peers.node.identity.node_id);
    let patience = peers.dial_patience();
    let response = wire::send(
        &link.url(),
        Method::GET,
        &path,
        headers,
        OutBody::whole(""),
        patience,
        patience,
    )
    .await
    .map_err(|error| error.to_string())?;
    let (head, body) = response.into_parts();
    match head.status {
        StatusCode::OK => {
            link.meet(&head.headers);
            Ok(body)
        }
        StatusCode::GONE => {
            Err("the other member says that this one was removed from the cluster; if it \
             was, end it and start a new one with an empty data directory"
                .to_string())
        }
        status => {
            let text = wire::read_whole(body, 64 << 10).await.unwrap_or_default();
            Err(format!("{status}: {}", String::from_utf8_lossy(&text).trim()))
        }
    }
}

/// Reads until the stream ends; why it ended.
async fn read(
    peers: &Rc<Peers>,
    link: &Link,
    kind: StreamKind,
    mut body: hyper::body::Incoming,
) -> String {
    let own = peers.node.identity.node_id;
    let mut decoder = Decoder::new(kind, link.id, own);
    let mut bytes = BytesMut::new();
    loop {
        match wire::next_chunk(&mut body, wire::PATIENCE).await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return "the other member closed the stream".to_string(),
            Err(error) => return error.to_string(),
        }
        let mut messages = match decoder.decode(&mut bytes) {
            Ok(messages) => messages,
            Err(error) => return format!("not a peer's stream: {}", error.0),
        };
        messages.retain(|message| message.to == own && message.from == link.id);
        if !messages.is_empty() {
            let size = messages.iter().map(message_bytes).sum();
            peers.count_received(&messages);
            // What does not fit is dropped; raft sends again.
            peers.node.replica.messages(messages, size);
        }
    }
}

pub(super) fn message_bytes(message: &Message) -> usize {
    64 + message.entries.iter().map(|entry| 32 + entry.data.len()).sum::<usize>()
}

/// Posts single messages, one after the other.
async fn post(peers: Rc<Peers>, link: std::rc::Weak<Link>, mut messages: mpsc::Receiver<Bytes>) {
    while let Some(message) = messages.recv().await {
        let Some(link) = link.upgrade() else { return };
        let mut headers = peers.headers();
        headers.insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/protobuf"),
        );
        let patience = peers.dial_patience();
        let sent = wire::ask(&link.url(), Method::POST, "/raft", headers, message, patience).await;
        if !matches!(sent, Ok((StatusCode::NO_CONTENT, ..))) {
            link.next_url();
            link.unreachable();
        }
    }
}

/// Keeps the other member's version known.
async fn ask_version(peers: Rc<Peers>, link: std::rc::Weak<Link>) {
    loop {
        let Some(link) = link.upgrade() else { return };
        let patience = peers.dial_patience();
        let asked = wire::ask(
            &link.url(),
            Method::GET,
            "/version",
            peers.headers(),
            Bytes::new(),
            patience,
        )
        .await;
        let version = match asked {
            Ok((StatusCode::OK, _, body)) => serde_json::from_slice::<serde_json::Value>(&body)
                .ok()
                .and_then(|json| Some(json.get("etcdserver")?.as_str()?.to_string())),
            _ => None,
        };
        let known = version.is_some();
        peers.node.peer_table.update(link.id, |peer| peer.version = version);
        drop(link);
        tokio::time::sleep(if known { VERSION_EVERY } else { VERSION_FIRST }).await;
    }
}
