//! The peers' thread: everything that members say to each other, in etcd's own protocol.
//!
//! Who dials reads: for each other member and each of the two codecs we send a GET and read its messages from the
//! endless answer; to send, we write into the answers to *its* GETs. Until it has dialled, and for what has no
//! stream, single messages go by POST.
//!
//! ```text
//!        A ── GET /raft/stream/message/A ──▶ B      B writes any message to A into the answer
//!        A ── GET /raft/stream/msgapp/A  ──▶ B      B writes appends to A into the answer
//!        A ── POST /raft ─────────────────▶ B      one message, when there is no stream yet
//!        A ── POST /raft/snapshot ────────▶ B      a snapshot: the message, then the data
//! ```
//!
//! All of it runs as tasks of one thread, so nothing here is locked. What a link does not take in time is
//! dropped, and raft is told that the member cannot be reached: it sends again.

pub mod codec;
pub(crate) mod founding;
mod link;
mod listener;
mod snapshot;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use prost::Message as _;
use proto::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use raft::{Message, MessageKind, NodeId};
use replica::{LeaseAnswer, LeaseTime, Receptions};
use tokio::sync::oneshot;

use crate::config::Config;
use crate::handle::{ForwardedLease, ForwardedQuestion, Node, PeerEvent, ReadTask, ShardEvent};
use crate::log;
use crate::serve::status::{Code, Status};
use link::Link;

/// How often links are compared with the members, and kept alive.
const ROUND: Duration = Duration::from_millis(100);
/// Rounds between two signs of life on each stream: etcd gives up after five seconds without one.
const ALIVE_ROUNDS: u64 = 15;
/// How long what was given to the links may take to leave at the end.
const FLUSH_PATIENCE: Duration = Duration::from_millis(100);

/// What the tasks of this thread share.
pub(crate) struct Peers {
    node: Arc<Node>,
    /// Our peer URLs, comma-joined, as headers carry them.
    urls: String,
    links: RefCell<BTreeMap<NodeId, Rc<Link>>>,
    /// Questions to our lease clock that other members wait for.
    questions: RefCell<BTreeMap<u64, oneshot::Sender<LeaseAnswer>>>,
    next_question: Cell<u64>,
    receptions: Receptions,
}

/// The thread's body: serves `listeners` and the links until it is told to stop.
pub fn run(node: &Arc<Node>, listeners: Vec<TcpListener>) {
    let node = node.clone();
    crate::run::on_own_runtime(async move {
        let urls: Vec<&str> =
            node.config.initial_advertise_peer_urls.iter().map(|url| url.as_str()).collect();
        let peers = Rc::new(Peers {
            urls: urls.join(","),
            node: node.clone(),
            links: RefCell::default(),
            questions: RefCell::default(),
            next_question: Cell::new(1),
            receptions: Receptions::default(),
        });
        for listener in listeners {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    tokio::task::spawn_local(listener::accept(peers.clone(), listener));
                }
                Err(error) => log!(Error, "a peer listener failed", "error" => error.to_string()),
            }
        }
        peers.reconcile();
        let mut rounds = tokio::time::interval(ROUND);
        let mut round: u64 = 0;
        loop {
            let events = std::future::poll_fn(|context| {
                let events = node.peers.take(context.waker());
                match events.is_empty() {
                    true => std::task::Poll::Pending,
                    false => std::task::Poll::Ready(events),
                }
            });
            tokio::select! {
                biased;
                events = events => {
                    if peers.on_events(events) {
                        tokio::time::sleep(FLUSH_PATIENCE).await;
                        return;
                    }
                }
                _ = rounds.tick() => {
                    round += 1;
                    peers.reconcile();
                    if round.is_multiple_of(ALIVE_ROUNDS) {
                        peers.links.borrow().values().for_each(|link| link.keep_alive());
                    }
                }
            }
        }
    });
}

/// How long a dial may take: etcd's second and an election timeout.
fn dial_patience(config: &Config) -> Duration {
    Duration::from_secs(1) + config.election_timeout
}

impl Peers {
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        wire::own_headers(self.node.identity, &self.urls, &mut headers);
        headers
    }

    fn dial_patience(&self) -> Duration {
        dial_patience(&self.node.config)
    }

    /// Makes the links those of the present members.
    fn reconcile(self: &Rc<Self>) {
        let cluster = self.node.view.state.cluster();
        let mut links = self.links.borrow_mut();
        links.retain(|id, _| {
            let stays = cluster.members.contains_key(id);
            if !stays {
                log!(Info, "stopped remote peer", "remote-peer-id" => format!("{id:x}"));
                self.node.peer_table.forget(*id);
            }
            stays
        });
        for (id, member) in &cluster.members {
            if *id == self.node.identity.node_id {
                continue;
            }
            match links.get(id) {
                Some(link) => link.set_urls(&member.peer_urls),
                None => {
                    log!(
                        Info, "started remote peer",
                        "remote-peer-id" => format!("{id:x}"),
                        "remote-peer-urls" => member.peer_urls.clone()
                    );
                    links.insert(*id, Link::start(self, *id, member.peer_urls.clone()));
                }
            }
        }
    }

    fn link(&self, id: NodeId) -> Option<Rc<Link>> {
        self.links.borrow().get(&id).cloned()
    }

    /// Carries out what the other threads ask for; true at the end.
    fn on_events(self: &Rc<Self>, events: Vec<PeerEvent>) -> bool {
        let mut messages: Vec<Message> = Vec::new();
        let mut stop = false;
        for event in events {
            match event {
                PeerEvent::Messages(batch) => messages.extend(batch),
                PeerEvent::Snapshot(snapshot) => {
                    tokio::task::spawn_local(snapshot::send(self.clone(), snapshot));
                }
                PeerEvent::LeaseAnswers(answers) => {
                    answers.into_iter().for_each(|a| self.answer(a))
                }
                PeerEvent::Membership => self.reconcile(),
                PeerEvent::AskLeader { shard, token, leader, lease, question } => {
                    let peers = self.clone();
                    tokio::task::spawn_local(async move {
                        let result = peers.ask_leader(leader, lease, question).await;
                        peers.node.tell(shard, ShardEvent::Forwarded { token, result });
                    });
                }
                PeerEvent::Stop => stop = true,
            }
        }
        self.send(messages);
        stop
    }

    /// Gives each message to its link, all of one link in one write.
    fn send(&self, messages: Vec<Message>) {
        let links = self.links.borrow();
        let counting = self.node.config.enable_v2.then(Instant::now);
        let mut appends: BTreeMap<NodeId, u64> = BTreeMap::new();
        for message in messages {
            if counting.is_some() && message.kind == MessageKind::App {
                *appends.entry(message.to).or_default() += 1;
            }
            match links.get(&message.to) {
                Some(link) => link.add(&message),
                // A member that was removed, or one that is not yet known: raft sends again.
                None => log!(Debug, "a message to nobody", "to" => format!("{:x}", message.to)),
            }
        }
        links.values().for_each(|link| link.flush());
        let Some(began) = counting else { return };
        let took = began.elapsed();
        for (to, count) in appends.into_iter().filter(|(to, _)| links.contains_key(to)) {
            self.node.metrics.appends_sent.add(count);
            self.node.peer_table.update(to, |peer| peer.appends.observe(count, took));
        }
    }

    /// Counts the appends among messages that were received.
    fn count_received(&self, messages: &[Message]) {
        let appends = messages.iter().filter(|message| message.kind == MessageKind::App).count();
        self.node.metrics.appends_received.add(appends as u64);
    }

    /// Asks our own lease clock on behalf of another member.
    async fn ask_clock(&self, lease: i64, question: replica::LeaseQuestion) -> Option<LeaseAnswer> {
        let token = self.next_question.replace(self.next_question.get() + 1);
        let (sender, receiver) = oneshot::channel();
        self.questions.borrow_mut().insert(token, sender);
        self.node.replica.ask_lease(replica::LeaseAsk {
            asker: replica::Asker::Peer { token },
            lease,
            question,
        });
        let answer = tokio::time::timeout(self.node.config.request_timeout(), receiver).await;
        self.questions.borrow_mut().remove(&token);
        answer.ok()?.ok()
    }

    fn answer(&self, answer: LeaseAnswer) {
        if let replica::Asker::Peer { token } = answer.asker
            && let Some(sender) = self.questions.borrow_mut().remove(&token)
        {
            // Whoever asked may have given up meanwhile.
            sender.send(answer).ok();
        }
    }

    /// Asks the leader about a lease over its peer port. An answer that may be another soon is `Unavailable`.
    async fn ask_leader(
        &self,
        leader: NodeId,
        lease: i64,
        question: ForwardedQuestion,
    ) -> Result<ForwardedLease, Status> {
        let away = |text: String| Status::new(Code::Unavailable, text);
        let link = self.link(leader).ok_or_else(|| away("the leader is not known".to_string()))?;
        let (path, body) = match question {
            ForwardedQuestion::KeepAlive => {
                ("/leases", LeaseKeepAliveRequest { id: lease }.encode_to_vec())
            }
            ForwardedQuestion::TimeToLive { keys } => {
                let inner = LeaseTimeToLiveRequest { id: lease, keys }.encode_to_vec();
                ("/leases/internal", listener::wrapped(&inner))
            }
        };
        let mut headers = self.headers();
        headers.insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/protobuf"),
        );
        let patience = self.dial_patience();
        let (status, _, body) =
            wire::ask(&link.url(), Method::POST, path, headers, body.into(), patience)
                .await
                .map_err(|error| {
                    link.next_url();
                    away(error.to_string())
                })?;
        let malformed = |_| away("the leader's answer cannot be read".to_string());
        match (status, question) {
            (StatusCode::NOT_FOUND, _) => {
                Ok(ForwardedLease { time: LeaseTime::Unknown, keys: Vec::new() })
            }
            (StatusCode::OK, ForwardedQuestion::KeepAlive) => {
                let answer = LeaseKeepAliveResponse::decode(body).map_err(malformed)?;
                let time = LeaseTime::KeptAlive { ttl: answer.ttl };
                Ok(ForwardedLease { time, keys: Vec::new() })
            }
            (StatusCode::OK, ForwardedQuestion::TimeToLive { .. }) => {
                let inner = listener::unwrapped(body)
                    .ok_or_else(|| away("the leader's answer cannot be read".to_string()))?;
                let answer = LeaseTimeToLiveResponse::decode(inner).map_err(malformed)?;
                let time = match answer.ttl < 0 && answer.granted_ttl == 0 {
                    true => LeaseTime::Unknown,
                    false => {
                        LeaseTime::Remaining { remaining: answer.ttl, granted: answer.granted_ttl }
                    }
                };
                Ok(ForwardedLease { time, keys: answer.keys })
            }
            (status, _) => {
                Err(away(format!("the leader says {status}: {}", String::from_utf8_lossy(&body))))
            }
        }
    }

    /// Has something that may wait for a disk done by a read thread.
    async fn on_read_thread<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Option<R> {
        let (sender, receiver) = oneshot::channel();
        let task = move || {
            // Whoever wanted it may have gone.
            sender.send(work()).ok();
        };
        self.node.fetches.put(ReadTask::Run(Box::new(task)));
        receiver.await.ok()
    }
}

/// The protobuf bytes of a member's `Message`.
fn encoded(message: &Message) -> Bytes {
    let mut out = bytes::BytesMut::with_capacity(wal::codec::message_len(message));
    wal::codec::encode_message(message, &mut out);
    out.freeze()
}
