//! A shard: one thread's connections, and everything that waits on their behalf.
//!
//! A shard shares nothing with the others but the [`Node`]. Within a turn requests are served or gathered; at
//! its end all proposals leave as one batch and all reads ask for one read index. What comes back, comes back
//! in batches through the shard's mailbox.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::TcpStream;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use replica::{
    Answer, Lane, Proposal, Proposals, ReadBatch, ReadWaits, Refusal, ToShard, View, Waiters,
};
use state_machine::{Caller, Command, Error, Header, Reply, Request, RequestId};
use tokio::sync::Notify;

use crate::grpc::{Call, Question, Read, WatchHub};
use crate::handle::{Node, ReadOutcome, ReadTask, ShardEvent};
use crate::http::v2;
use crate::log;
use crate::serve::connection;
use crate::serve::limits::{
    CONNECTIONS_PER_SHARD, HASHES_MAX, PROPOSAL_BYTES_PER_SHARD, READS_PER_SHARD,
    STREAMS_PER_SHARD, WAITERS_PER_SHARD,
};
use crate::serve::seat::Seats;
use crate::serve::status::{Code, Status};
use crate::serve::story::Chronicle;
use crate::serve::stream::{self, Outgoing, Responder};

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(50);

/// The proposals of a turn, or those that the replica had no room for.
#[derive(Default)]
struct Gathered {
    list: Vec<Proposal>,
    /// Of all their data; at most [`PROPOSAL_BYTES_PER_SHARD`], or one proposal.
    bytes: usize,
    /// Names of those whose client waits no more, while they are kept: they are not handed in.
    given_up: Vec<RequestId>,
}

impl Gathered {
    fn has_room(&self, bytes: usize) -> bool {
        self.bytes == 0 || self.bytes + bytes <= PROPOSAL_BYTES_PER_SHARD
    }

    fn forget_given_up(&mut self) {
        if self.given_up.is_empty() {
            return;
        }
        self.given_up.sort_unstable();
        let given_up = std::mem::take(&mut self.given_up);
        self.list.retain(|proposal| given_up.binary_search(&proposal.id).is_err());
        self.bytes = self.list.iter().map(|proposal| proposal.data.len()).sum();
    }
}

/// Streams that something may happen to at once.
#[derive(Default)]
struct Streams(Vec<Weak<RefCell<Outgoing>>>);

impl Streams {
    fn add(&mut self, out: &Rc<RefCell<Outgoing>>) {
        // Those that are over are swept out whenever their number may have doubled.
        if self.0.len() == self.0.capacity() {
            self.0.retain(|stream| stream.strong_count() > 0);
        }
        self.0.push(Rc::downgrade(out));
    }

    fn finish(self, status: &Status) {
        for stream in self.0.iter().filter_map(Weak::upgrade) {
            stream.borrow_mut().finish(status.clone());
        }
    }
}

/// Who waits for a proposal's reply.
pub struct Waiting {
    /// The way back; `None` for what the member proposed itself.
    pub respond: Option<Responder>,
    /// When it began, by `Node::now_ms`.
    pub started_ms: u64,
    /// Whether the deadline is the client's own.
    pub client_deadline: bool,
}

/// A read under way on a read thread.
struct Cold {
    respond: Responder,
    /// Down once nobody waits: who has not begun need not.
    wanted: Arc<AtomicBool>,
}

/// Which thread reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// As much as was asked for.
    Part,
    /// The whole store: one after the other, so that nothing shorter waits behind.
    Whole,
}

/// Who of a shard wants to be told what becomes visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Watchers.
    Watchers = 1,
    /// Who waits by the v2 API.
    V2 = 2,
}

/// One shard. Everything in it belongs to its thread; the cells are borrowed for a statement at a time.
pub struct Shard {
    /// The member.
    pub node: Arc<Node>,
    /// This shard's number.
    pub number: replica::Shard,
    /// This thread's look at the member.
    pub view: View,
    /// The process ends: nothing new is taken.
    pub stopping: Cell<bool>,
    /// Tells those that wait for it so.
    stop: Notify,
    /// HTTP/2 connections.
    pub connections: RefCell<Seats>,
    /// All connections, of either protocol.
    open: Cell<usize>,
    waiters: RefCell<Waiters<Waiting>>,
    reads: RefCell<ReadWaits<Read>>,
    gathered_proposals: RefCell<Gathered>,
    /// Counts proposals, so that a connection knows whether its turn has made one.
    proposed: Cell<u64>,
    /// Reads that met a taken index: they are served at the end of the turn.
    busy: RefCell<Vec<Read>>,
    /// Lease questions under way, by token.
    pub questions: RefCell<HashMap<u64, Question>>,
    /// Reads under way on read threads, by token.
    cold: RefCell<HashMap<u64, Cold>>,
    /// A stream was reset, or a connection has ended: somebody may wait no more.
    reset: Cell<bool>,
    /// Streams that connections keep.
    pub streams: Cell<usize>,
    /// Pages under way over HTTP/2.
    pub pages: Cell<usize>,
    next_token: Cell<u64>,
    /// Something was gathered in this turn.
    gathered: Notify,
    /// The replica's inbox was full at the end of the last turn.
    crowded: Cell<bool>,
    scratch: RefCell<BytesMut>,
    /// What is remembered of its turns.
    pub chronicle: Rc<Chronicle>,
    /// Open streams that want to end when there is no leader.
    leader_streams: RefCell<Streams>,
    /// Open streams whose reader is in this process: they end when the process does.
    inside_streams: RefCell<Streams>,
    /// Since when there is none, by `Node::now_ms`.
    leaderless_ms: Cell<Option<u64>>,
    /// This shard's watchers.
    pub watches: RefCell<WatchHub>,
    /// Who waits by the v2 API.
    pub v2: RefCell<v2::Hub>,
    /// The [`Listener`]s there are, a bit each.
    listeners: Cell<u8>,
}

impl Shard {
    /// A shard that serves nobody yet.
    pub fn new(node: Arc<Node>, number: replica::Shard, start_ms: u64) -> Rc<Shard> {
        let view = node.view.clone();
        let member = node.identity.node_id;
        Rc::new(Shard {
            number,
            view,
            stopping: Cell::new(false),
            stop: Notify::new(),
            connections: RefCell::new(Seats::new(node.answer_bytes.clone())),
            open: Cell::new(0),
            waiters: RefCell::new(Waiters::new(member, number, start_ms, WAITERS_PER_SHARD)),
            reads: RefCell::new(ReadWaits::new(READS_PER_SHARD)),
            gathered_proposals: RefCell::default(),
            proposed: Cell::new(0),
            busy: RefCell::default(),
            questions: RefCell::default(),
            cold: RefCell::default(),
            reset: Cell::new(false),
            streams: Cell::new(0),
            pages: Cell::new(0),
            next_token: Cell::new(0),
            gathered: Notify::new(),
            crowded: Cell::new(false),
            scratch: RefCell::new(BytesMut::with_capacity(64 << 10)),
            chronicle: Chronicle::new(node.clone()),
            leader_streams: RefCell::default(),
            inside_streams: RefCell::default(),
            leaderless_ms: Cell::new(None),
            watches: RefCell::new(WatchHub::new(&node.config)),
            v2: RefCell::default(),
            listeners: Cell::new(0),
            node,
        })
    }

    /// The shard's life, on its thread's local set: it returns when it was told to stop and its connections are
    /// gone, or `patience` is over.
    pub async fn run(self: Rc<Shard>, patience: Duration) {
        let turns = tokio::task::spawn_local(self.clone().turns());
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stopped_ms = None;
        loop {
            let events = poll_fn(|cx| {
                let events = self.node.shards[usize::from(self.number.0)].take(cx.waker());
                match events.is_empty() {
                    false => Poll::Ready(events),
                    true => tick.poll_tick(cx).map(|_| Vec::new()),
                }
            })
            .await;
            match events.is_empty() {
                true => self.on_tick(),
                false => events.into_iter().for_each(|event| self.on_event(event)),
            }
            if self.stopping.get() {
                let since = *stopped_ms.get_or_insert(self.now_ms());
                let patient = self.now_ms() - since < patience.as_millis() as u64;
                if self.open.get() == 0 || !patient {
                    break;
                }
            }
        }
        turns.abort();
    }

    /// Ends each turn: this task was woken by the first request that gathered something, and so runs after all
    /// connections that were ready then.
    async fn turns(self: Rc<Shard>) {
        loop {
            self.gathered.notified().await;
            self.end_turn();
            let busy = std::mem::take(&mut *self.busy.borrow_mut());
            busy.into_iter().for_each(|read| read.serve_with(&self, mvcc::Effort::Now));
        }
    }

    /// Hands all proposals to the replica, or keeps them if it has no room.
    fn hand_in(&self) {
        let mut gathered = self.gathered_proposals.borrow_mut();
        gathered.forget_given_up();
        if gathered.list.is_empty() {
            return self.crowded.set(false);
        }
        let list = std::mem::take(&mut gathered.list);
        // Taken before: the replica may have appended it before we are back.
        let now = self.chronicle.now();
        match self.node.replica.propose(Proposals { shard: self.number, list }) {
            Ok(()) => {
                self.chronicle.hand_in(now);
                gathered.bytes = 0;
                self.crowded.set(false);
            }
            Err(batch) => {
                gathered.list = batch.list;
                self.crowded.set(true);
            }
        }
    }

    fn end_turn(&self) {
        self.hand_in();
        if let Some(batch) = self.reads.borrow_mut().batch() {
            self.chronicle.ask(batch);
            self.node.replica.read_index(ReadBatch { shard: self.number, batch });
        }
    }

    fn on_event(self: &Rc<Shard>, event: ShardEvent) {
        match event {
            ShardEvent::Connection(tcp) => self.on_connection(tcp),
            ShardEvent::Answers(answers) => {
                answers.into_iter().for_each(|answer| self.on_answer(answer))
            }
            ShardEvent::Applied(applied) => self.on_applied(*applied),
            ShardEvent::Read { token, outcome } => match outcome {
                ReadOutcome::Answer(answer) => {
                    let waiting = self.cold.borrow_mut().remove(&token);
                    let Some(Cold { respond, .. }) = waiting else { return };
                    let seat = respond.seat().cloned();
                    match answer {
                        Ok(message) => {
                            self.count_sent(&message);
                            respond.reply(message);
                        }
                        Err(status) => respond.fail(&status),
                    }
                    // After the answer, which counts against the next one.
                    seat.inspect(|seat| seat.leave_cold());
                }
                ReadOutcome::Watch(brought) => WatchHub::on_brought(self, token, brought),
            },
            ShardEvent::Forwarded { token, result } => Question::on_forwarded(self, token, result),
            ShardEvent::Room => {
                self.end_turn();
                if !self.crowded.get() {
                    self.connections.borrow_mut().let_go();
                }
            }
            ShardEvent::Leader => Question::on_leader(self),
            ShardEvent::Stop => {
                self.stopping.set(true);
                self.stop.notify_waiters();
                self.inside_streams.take().finish(&Error::Stopped.into());
                self.connections.borrow().wake_all();
                self.v2.borrow_mut().end(self);
            }
        }
    }

    fn on_connection(self: &Rc<Shard>, tcp: TcpStream) {
        if self.stopping.get() {
            return;
        }
        if self.open.get() >= CONNECTIONS_PER_SHARD {
            log!(Warn, "a connection was refused: too many are open", "limit" => CONNECTIONS_PER_SHARD);
            return;
        }
        let tcp = match tokio::net::TcpStream::from_std(tcp) {
            Ok(tcp) => tcp,
            Err(error) => {
                log!(Warn, "a connection could not be taken", "error" => error.to_string());
                return;
            }
        };
        self.open.set(self.open.get() + 1);
        let shard = self.clone();
        tokio::task::spawn_local(async move {
            connection::serve(shard.clone(), tcp).await;
            shard.open.set(shard.open.get() - 1);
        });
    }

    fn on_answer(self: &Rc<Shard>, answer: Answer) {
        match answer {
            Answer::Refused { id, why } => {
                let waiting = self.waiters.borrow_mut().take(id);
                if let Some(Waiting { respond: Some(respond), started_ms, .. }) = waiting {
                    self.node.metrics.proposals_pending.leave(1);
                    self.node.metrics.proposals_failed.add(1);
                    respond.fail(&self.refusal(why, started_ms));
                }
            }
            Answer::Read { batch, result: Ok(index) } => {
                self.chronicle.confirm(batch, index);
                self.reads.borrow_mut().confirmed(batch, index);
                // Flag first, index second: apply publishes first and looks at the flag second.
                self.view.set_waiting(self.number, true);
                self.serve_applied_reads(self.view.applied());
            }
            Answer::Read { batch, result: Err(why) } => {
                let refused = self.reads.borrow_mut().refused(batch);
                self.node.metrics.read_indexes_failed.add(refused.len() as u64);
                for read in refused {
                    let status = self.refusal(why, read.started_ms());
                    read.fail(&status);
                }
            }
            Answer::Lease(answer) => Question::on_answer(self, &answer),
            Answer::Transferred { .. } => {}
        }
    }

    fn on_applied(self: &Rc<Shard>, applied: ToShard) {
        WatchHub::on_batches(self, &applied.batches, applied.exchanged);
        v2::Hub::on_batches(self, &applied.batches, applied.exchanged);
        for reply in applied.replies {
            let waiting = self.waiters.borrow_mut().take(reply.id);
            let Some(Waiting { respond: Some(mut respond), .. }) = waiting else { continue };
            let (term, index) = (reply.term, reply.index);
            respond.tell(|story| story.apply(term, index, reply.revision));
            self.node.metrics.proposals_pending.leave(1);
            match reply.result {
                Ok(answer) => {
                    self.node.metrics.count(&answer);
                    let header = Header {
                        revision: reply.revision,
                        raft_term: reply.term.0,
                        ..self.header()
                    };
                    respond.reply(self.message(|out| answer.encode(&header, out)));
                }
                Err(error) => respond.fail(&error.into()),
            }
        }
        self.serve_applied_reads(applied.applied);
    }

    fn serve_applied_reads(self: &Rc<Shard>, applied: raft::Index) {
        let ready = self.reads.borrow_mut().applied(applied);
        if !self.reads.borrow().waits_for_apply() {
            self.view.set_waiting(self.number, false);
        }
        ready.into_iter().for_each(|read| read.serve(self));
    }

    fn on_tick(self: &Rc<Shard>) {
        let now = self.now_ms();
        if self.reset.take() {
            self.forget_gone();
        }
        self.connections.borrow().wake_due(now);
        let expired = self.waiters.borrow_mut().expired(now);
        for (id, waiting) in expired {
            self.give_up(id);
            if let Some(respond) = waiting.respond {
                self.node.metrics.proposals_pending.leave(1);
                self.node.metrics.proposals_failed.add(1);
                respond.fail(&self.timed_out(waiting.started_ms, waiting.client_deadline));
            }
        }
        let expired = self.reads.borrow_mut().expired(now);
        for read in expired {
            let status = self.timed_out(read.started_ms(), read.client_deadline());
            read.fail(&status);
        }
        Question::on_tick(self, now);
        WatchHub::on_tick(self, now);
        self.end_leaderless_streams(now);
        // A safety net for a wake that was lost to a full inbox: `Room` normally does this.
        if self.crowded.get() {
            self.on_event(ShardEvent::Room);
        }
    }

    /// A stream was reset, or a connection has ended. Who waited there is looked for at the next tick: to know it for
    /// each request would cost each request.
    pub fn on_reset(&self) {
        self.reset.set(true);
    }

    /// Forgets requests whose client has gone; their places are free.
    fn forget_gone(&self) {
        let gone = self
            .waiters
            .borrow_mut()
            .extract(|waiting| waiting.respond.as_mut().is_some_and(Responder::is_gone));
        for (id, _) in gone {
            self.give_up(id);
            self.node.metrics.proposals_pending.leave(1);
        }
        drop(self.reads.borrow_mut().extract(Read::is_gone));
        self.busy.borrow_mut().retain_mut(|read| !read.is_gone());
        self.cold.borrow_mut().retain(|_, cold| {
            let gone = cold.respond.is_gone();
            if gone {
                cold.wanted.store(false, Relaxed);
                cold.respond.seat().inspect(|seat| seat.leave_cold());
            }
            !gone
        });
        self.questions.borrow_mut().retain(|_, question| !question.is_gone());
        self.connections.borrow().forget_gone();
    }

    /// Ends the streams that asked for it once there was no leader for three election timeouts.
    fn end_leaderless_streams(&self, now_ms: u64) {
        if self.view.leader() != raft::NONE {
            return self.leaderless_ms.set(None);
        }
        let since = self.leaderless_ms.get().unwrap_or(now_ms);
        self.leaderless_ms.set(Some(since));
        if now_ms - since >= 3 * self.node.config.election_timeout.as_millis() as u64 {
            self.leader_streams.take().finish(&Error::NoLeader.into());
        }
    }

    /// Remembers a stream that wants to end when there is no leader.
    pub fn require_leader(&self, out: &Rc<RefCell<Outgoing>>) {
        self.leader_streams.borrow_mut().add(out);
    }

    /// Remembers a stream that no connection looks after.
    pub fn look_after(&self, out: &Rc<RefCell<Outgoing>>) {
        self.inside_streams.borrow_mut().add(out);
    }

    /// Puts a client's command on its way into the log.
    pub fn propose(&self, call: &Call, request: Request, lane: Lane, mut respond: Responder) {
        // Its answer may be large, and could not be put off as a read's.
        if respond.seat().is_some_and(|seat| seat.is_full()) {
            return respond.fail(&Error::TooManyRequests.into());
        }
        respond.tell(|story| story.propose());
        let waiting = Waiting {
            respond: Some(respond),
            started_ms: call.started_ms,
            client_deadline: call.client_deadline,
        };
        let deadline = call.deadline_ms(&self.node.config);
        let added = self.waiters.borrow_mut().add(waiting, deadline);
        let refused = match added {
            Ok(id) if self.submit(id, request, lane) => {
                self.node.metrics.proposals_pending.enter();
                return;
            }
            Ok(id) => self.waiters.borrow_mut().take(id),
            Err(refused) => Some(refused),
        };
        if let Some(Waiting { respond: Some(respond), .. }) = refused {
            respond.fail(&Error::TooManyRequests.into());
        }
    }

    /// Puts a command of the member itself on its way; nobody waits for it, and it may be dropped.
    pub fn propose_own(&self, request: Request) {
        let id = self.waiters.borrow_mut().name();
        self.submit(id, request, Lane::Ordinary);
    }

    /// Gathers a proposal; false if there is no room even so.
    fn submit(&self, id: RequestId, request: Request, lane: Lane) -> bool {
        self.proposed.set(self.proposed.get() + 1);
        let data = Command { id, caller: Caller::default(), request }.encode();
        let has_room = |shard: &Shard| shard.gathered_proposals.borrow().has_room(data.len());
        if !has_room(self) && !self.crowded.get() {
            self.hand_in();
        }
        if !has_room(self) {
            return false;
        }
        let mut gathered = self.gathered_proposals.borrow_mut();
        gathered.bytes += data.len();
        gathered.list.push(Proposal { id, data, lane });
        drop(gathered);
        self.gathered.notify_one();
        true
    }

    /// A client waits no more for its proposal: if it is still here, it stays here.
    fn give_up(&self, id: RequestId) {
        if self.crowded.get() {
            self.gathered_proposals.borrow_mut().given_up.push(id);
        }
    }

    /// A name that no other request of this shard has.
    pub fn fresh_name(&self) -> RequestId {
        self.waiters.borrow_mut().name()
    }

    /// Serves a linearizable read now, if this member need not ask anybody, or once it knows a read index.
    pub fn read_linearizable(self: &Rc<Shard>, mut read: Read, deadline_ms: u64) {
        if self.view.lone() {
            return read.serve(self);
        }
        read.waits();
        let refused = self.reads.borrow_mut().add(read, deadline_ms);
        match refused {
            Ok(()) => self.gathered.notify_one(),
            Err(read) => read.fail(&Error::TooManyRequests.into()),
        }
    }

    /// Serves a read once others had their turn.
    pub fn serve_later(&self, read: Read) {
        self.busy.borrow_mut().push(read);
        self.gathered.notify_one();
    }

    /// Runs `read` on a read thread and answers with what it encodes.
    pub fn read_cold(
        &self,
        respond: Responder,
        read: impl FnOnce(&View) -> Result<Reply, Error> + Send + 'static,
    ) {
        let header = self.header();
        self.read_cold_message(respond, move |view, out| {
            read(view)?.encode(&header, out);
            Ok(())
        });
    }

    /// The same for an answer that is no [`Reply`]: `read` writes the message.
    pub fn read_cold_message(
        &self,
        respond: Responder,
        read: impl FnOnce(&View, &mut BytesMut) -> Result<(), Error> + Send + 'static,
    ) {
        self.read_elsewhere(Depth::Part, respond, read);
    }

    /// The same for a read of the whole store.
    pub fn read_whole(
        &self,
        respond: Responder,
        read: impl FnOnce(&View, &mut BytesMut) -> Result<(), Error> + Send + 'static,
    ) {
        match self.node.hashes.len() < HASHES_MAX {
            true => self.read_elsewhere(Depth::Whole, respond, read),
            false => respond.fail(&Error::TooManyRequests.into()),
        }
    }

    fn read_elsewhere(
        &self,
        depth: Depth,
        mut respond: Responder,
        read: impl FnOnce(&View, &mut BytesMut) -> Result<(), Error> + Send + 'static,
    ) {
        if self.cold.borrow().len() >= READS_PER_SHARD {
            return respond.fail(&Error::TooManyRequests.into());
        }
        let token = self.token();
        respond.tell(|story| story.read_elsewhere());
        respond.seat().inspect(|seat| seat.enter_cold());
        let wanted = Arc::new(AtomicBool::new(true));
        self.cold.borrow_mut().insert(token, Cold { respond, wanted: wanted.clone() });
        let (node, shard) = (self.node.clone(), self.number);
        let inbox = match depth {
            Depth::Part => &self.node.reads,
            Depth::Whole => &self.node.hashes,
        };
        inbox.put(ReadTask::Run(Box::new(move || {
            if !wanted.load(Relaxed) {
                return;
            }
            let mut refused = None;
            let message = stream::message(&mut BytesMut::new(), |out| {
                refused = read(&node.view, out).err();
            });
            let answer = refused.map_or(Ok(message), |error| Err(error.into()));
            node.tell(shard, ShardEvent::Read { token, outcome: ReadOutcome::Answer(answer) });
        })));
    }

    /// Waits until the process ends.
    pub async fn stopped(&self) {
        let told = self.stop.notified();
        if !self.stopping.get() {
            told.await;
        }
    }

    /// Says whether one of its listeners wants batches: they come from the revision on that is read after the first
    /// has said so.
    pub fn listen(&self, who: Listener, wants: bool) {
        let before = self.listeners.get();
        let now = if wants { before | who as u8 } else { before & !(who as u8) };
        self.listeners.set(now);
        if (before == 0) != (now == 0) {
            self.view.set_watching(self.number, now != 0);
        }
    }

    /// A name for something under way elsewhere.
    pub fn token(&self) -> u64 {
        self.next_token.set(self.next_token.get() + 1);
        self.next_token.get()
    }

    /// The header of an answer given now.
    pub fn header(&self) -> Header {
        Header {
            cluster_id: self.node.identity.cluster_id,
            member_id: self.node.identity.node_id,
            revision: self.view.state.revision(),
            raft_term: self.view.term().0,
        }
    }

    /// Writes a gRPC message into the shard's buffer.
    pub fn message(&self, encode: impl FnOnce(&mut BytesMut)) -> Bytes {
        let message = stream::message(&mut self.scratch.borrow_mut(), encode);
        self.count_sent(&message);
        message
    }

    fn count_sent(&self, message: &Bytes) {
        self.node.metrics.client_sent_bytes.add((message.len() - stream::PREFIX_BYTES) as u64);
    }

    /// Whether one more stream may be kept.
    pub fn has_room_for_stream(&self) -> bool {
        self.streams.get() < STREAMS_PER_SHARD
    }

    /// Milliseconds since the process started.
    pub fn now_ms(&self) -> u64 {
        self.node.now_ms()
    }

    /// How many proposals wait for their reply.
    pub fn pending_proposals(&self) -> usize {
        self.waiters.borrow().len()
    }

    /// Whether the replica had no room at the end of the last turn.
    pub fn is_crowded(&self) -> bool {
        self.crowded.get()
    }

    /// How many proposals have been made so far.
    pub fn proposed(&self) -> u64 {
        self.proposed.get()
    }

    /// What a refusal of the replica is to a client.
    pub fn refusal(&self, why: Refusal, started_ms: u64) -> Status {
        match why {
            Refusal::TooManyRequests => Error::TooManyRequests.into(),
            Refusal::TooLarge => Error::RequestTooLarge.into(),
            Refusal::NoLeader => Error::NoLeader.into(),
            Refusal::Dropped => Status::new(Code::Unknown, "raft proposal dropped"),
            Refusal::LeaderChanged => Error::LeaderChanged.into(),
            Refusal::TimedOut => self.timed_out(started_ms, false),
            Refusal::NotLeader => Error::NotLeader.into(),
            Refusal::BadTransferee => Error::BadLeaderTransferee.into(),
            Refusal::Stopped => Error::Stopped.into(),
        }
    }

    /// Why a request that began at `started_ms` was not done in time, as far as can be told: etcd's three texts.
    pub fn timed_out(&self, started_ms: u64, client_deadline: bool) -> Status {
        if client_deadline {
            return Status::new(Code::DeadlineExceeded, "context deadline exceeded");
        }
        let elected_ms = self.node.leader_since_ms.load(std::sync::atomic::Ordering::Relaxed);
        let election_ms = self.node.config.election_timeout.as_millis() as u64;
        // The leader before this one was lost up to two elections before this one was known.
        if elected_ms > started_ms && elected_ms.saturating_sub(2 * election_ms) < started_ms {
            return Error::TimeoutDueToLeaderFail.into();
        }
        let leader = self.view.leader();
        let own = self.node.identity.node_id;
        let connected = match leader == own || leader == raft::NONE {
            false => self.node.peer_table.connected_since(leader, started_ms),
            true => {
                let cluster = self.view.state.cluster();
                let voters = cluster.members.values().filter(|member| !member.is_learner);
                let total = voters.clone().count();
                let here = voters
                    .filter(|m| {
                        m.id == own || self.node.peer_table.connected_since(m.id, started_ms)
                    })
                    .count();
                here > total / 2
            }
        };
        match connected {
            true => Error::Timeout.into(),
            false => Error::TimeoutDueToConnectionLost.into(),
        }
    }
}
