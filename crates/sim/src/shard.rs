//! A shard: what a server's thread does with requests, replies, reads and watchers, without sockets.
//!
//! Requests become commands and wait for their reply; linearizable reads wait for a read index and then for apply;
//! watchers hang in a `WatcherSet` and catch up from history. The order of the steps is the server's: the watching flag
//! goes up before the revision is read, the waiting flag before the applied index.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use bytes::Bytes;
use mvcc::{
    Event as Happened, Filter, History, KeyRange, Lagging, Portion, ReadError, Reader, WatcherSet,
};
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::watch_create_request::FilterType;
use proto::etcdserverpb::{RangeRequest, TxnRequest, WatchCreateRequest};
use raft::{Index, NodeId};
use replica::{
    Asker, Input, Lane, LeaseAnswer, LeaseAsk, LeaseQuestion, LeaseRefusal, LeaseTime, Proposal,
    Proposals, ReadBatch, ReadWaits, Refusal, Shard, ToShard, Waiters,
};
use state_machine::{Caller, Command, Effort, Error, Reply, Request as Wish};

use crate::arguments::End;
use crate::checker::answer_of;
use crate::client::request_of;
use crate::door;
use crate::history::Answer;
use crate::operator::OPERATOR;
use crate::roster::Change;
use crate::scenario::Mutant;
use crate::world::{Event, Whose, World};

/// Waiters and reads per shard.
const WAITS: usize = 10_000;
/// History that is read at once: little, so that catching up takes several portions.
const PORTION: Portion = Portion { events_max: 16, bytes_max: 1024 };

/// Who asks, and what was known when he did.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The client.
    pub client: usize,
    /// The number of its connection.
    pub conn: u64,
    /// The number of the request.
    pub op: u64,
    /// The revision that a linearizable answer must not lie below.
    pub revision: i64,
    /// The compaction mark that it must not lie below.
    pub mark: i64,
    /// The applied index that it must not lie below.
    pub index: u64,
}

/// What a client asks.
pub struct Request {
    /// Who asks.
    pub call: Call,
    /// What.
    pub ask: Ask,
}

/// What can be asked.
pub enum Ask {
    /// A write.
    Propose(Wish, Lane),
    /// A read.
    Read(Wanted),
    /// A membership change; the operator's alone.
    Change(Change),
    /// To keep a lease alive.
    KeepAlive(i64),
    /// How long a lease still lives.
    TimeToLive {
        /// Which.
        lease: i64,
        /// And which keys hang on it.
        keys: bool,
    },
    /// Which leases there are.
    Leases,
    /// To hand the leadership over.
    Transfer(NodeId),
    /// To watch.
    Watch {
        /// The client's name for the watch.
        id: u32,
        /// What.
        asked: WatchCreateRequest,
    },
    /// How far the watches of this connection are.
    Progress,
    /// To watch no longer.
    Unwatch(u32),
    /// The connection is gone.
    Gone,
}

/// A read.
#[derive(Clone)]
pub enum Wanted {
    /// A range.
    Range(RangeRequest),
    /// A transaction of ranges, serializable or not.
    Txn(TxnRequest, bool),
    /// The list of the members; the operator's alone.
    Members,
}

impl Wanted {
    fn is_serializable(&self) -> bool {
        match self {
            Wanted::Range(range) => range.serializable,
            Wanted::Txn(_, serializable) => *serializable,
            Wanted::Members => false,
        }
    }
}

/// One event as it travels to a client.
#[derive(Debug)]
pub struct WatchEvent {
    /// Its main revision.
    pub main: i64,
    /// Whether it is a put.
    pub is_put: bool,
    /// The encoded key-value.
    pub kv: Bytes,
    /// What was there before, if there was something; an error if it could not be read.
    pub previous: Result<Option<Bytes>, ()>,
}

/// How a request ended, as its client hears it.
#[derive(Debug)]
pub enum Outcome {
    /// It was done. There is nothing to show for what never enters the log and reads nothing.
    Done(Option<Box<Reply>>),
    /// It was refused: by the state machine, with etcd's error.
    Refused(Error),
    /// It was refused: at the door, with etcd's error, and nobody ever saw it.
    TurnedAway(Error),
    /// It was refused: by the replica, before it was proposed.
    NotTaken(Refusal),
    /// Nobody knows: its deadline came first, or whoever should know was not there.
    Unknown,
}

impl Outcome {
    /// Whether it was done.
    pub fn is_done(&self) -> bool {
        matches!(self, Outcome::Done(_))
    }

    fn of_lease(time: Option<LeaseTime>) -> Outcome {
        match time {
            Some(LeaseTime::KeptAlive { .. } | LeaseTime::Remaining { .. }) => Outcome::Done(None),
            Some(LeaseTime::Unknown) => Outcome::Refused(Error::LeaseNotFound),
            None => Outcome::Unknown,
        }
    }

    /// As it is counted.
    pub fn end(&self) -> End {
        match self {
            Outcome::Done(_) => End::Done,
            Outcome::Refused(_) | Outcome::TurnedAway(_) => End::Refused,
            Outcome::NotTaken(_) => End::NotTaken,
            Outcome::Unknown => End::Unknown,
        }
    }
}

/// What a client is told.
pub enum Told {
    /// The outcome of a request.
    Outcome {
        /// Which.
        op: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// A watch stands.
    Created {
        /// Which.
        id: u32,
        /// From which revision on it will be told.
        from: i64,
    },
    /// A watch cannot be.
    Rejected {
        /// Which.
        id: u32,
    },
    /// Events of a watch.
    Events {
        /// Which.
        id: u32,
        /// What happened.
        events: Vec<WatchEvent>,
    },
    /// All events up to a revision have been told.
    Progress {
        /// Of which watch.
        id: u32,
        /// Up to there.
        revision: i64,
    },
    /// A watch ends because of a compaction.
    Canceled {
        /// Which.
        id: u32,
        /// The mark.
        mark: i64,
    },
}

impl Told {
    /// Its name in traces.
    pub fn name(&self) -> &'static str {
        match self {
            Told::Outcome { outcome, .. } if outcome.is_done() => "ok",
            Told::Outcome { .. } => "not ok",
            Told::Created { .. } => "created",
            Told::Rejected { .. } => "rejected",
            Told::Events { .. } => "events",
            Told::Progress { .. } => "progress",
            Told::Canceled { .. } => "canceled",
        }
    }
}

/// What comes into a shard's mailbox.
pub enum ShardEvent {
    /// A client's request.
    Request(Request),
    /// The replica's answers.
    Answers(Vec<replica::Answer>),
    /// What apply has done.
    Applied(Box<ToShard>),
    /// A stretch of history that a read thread has read.
    Brought(WatchKey, Result<History, ReadError>),
    /// The leader's answer to a forwarded question.
    Forwarded(u64, Option<LeaseTime>),
    /// Time has passed.
    Tick,
}

/// What a read thread does for a shard.
pub enum Errand {
    /// A read of a client.
    Read(Call, Wanted),
    /// A stretch of history.
    History(Lagging<WatchKey>),
}

/// A watcher: client, connection, the client's name for it.
pub type WatchKey = (usize, u64, u32);

/// What a watcher wants besides events.
#[derive(Clone, Copy, Debug)]
struct Extras {
    /// What was there before.
    prev_kv: bool,
    /// To be told now and then how far it is.
    progress: bool,
}

/// A question about a lease on its way to the leader and back.
#[derive(Clone, Copy)]
pub struct Forward {
    /// Who asks: member, its life, shard and the shard's name for the question.
    from: (usize, u64, u8, u64),
    /// Which lease.
    pub lease: i64,
    question: LeaseQuestion,
}

/// The state of a shard.
pub struct ShardState {
    number: Shard,
    waiters: Waiters<Call>,
    reads: ReadWaits<(Call, Wanted)>,
    proposals: Vec<Proposal>,
    /// What waits to be looked at.
    pub mailbox: VecDeque<ShardEvent>,
    /// A turn is due.
    pub turn_due: bool,
    watchers: WatcherSet<WatchKey>,
    reading: BTreeMap<WatchKey, ()>,
    known: BTreeMap<WatchKey, Extras>,
    /// It takes nothing of the next batch that has something for it.
    slow: Option<WatchKey>,
    flag: bool,
    /// Questions to the replica: of whom, and, if they can be passed on, what they are.
    questions: BTreeMap<u64, (Call, Option<LeaseQuestion>)>,
    next_token: u64,
}

impl ShardState {
    /// A shard that nobody has asked anything.
    pub fn new(member: NodeId, number: Shard, start_ms: u64) -> ShardState {
        ShardState {
            number,
            waiters: Waiters::new(member, number, start_ms, WAITS),
            reads: ReadWaits::new(WAITS),
            proposals: Vec::new(),
            mailbox: VecDeque::new(),
            turn_due: false,
            watchers: WatcherSet::new(0),
            reading: BTreeMap::new(),
            known: BTreeMap::new(),
            slow: None,
            flag: false,
            questions: BTreeMap::new(),
            next_token: 0,
        }
    }

    /// How the watchers of a connection stand, in words.
    pub fn standing(&self) -> String {
        let states: Vec<String> = self
            .known
            .keys()
            .map(|key| {
                let reading = if self.reading.contains_key(key) { ", reading" } else { "" };
                format!("{key:?} {:?}{reading}", self.watchers.state(key))
            })
            .collect();
        format!("seen {}, flag {}, [{}]", self.watchers.seen(), self.flag, states.join("; "))
    }

    /// The watches of the connection on which something is asked.
    fn watches_of(&self, call: Call) -> Vec<WatchKey> {
        let (first, last) = ((call.client, call.conn, 0), (call.client, call.conn, u32::MAX));
        self.known.range(first..=last).map(|(key, _)| *key).collect()
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }
}

impl World {
    /// A shard looks at all that is in its mailbox, and hands on what has gathered.
    pub fn shard_turn(&mut self, m: usize, s: usize) {
        let Some(shard) = self.shard(m, s) else { return };
        shard.turn_due = false;
        for event in mem::take(&mut shard.mailbox) {
            self.shard_event(m, s, event);
        }
        let Some(shard) = self.shard(m, s) else { return };
        let number = shard.number;
        let list = mem::take(&mut shard.proposals);
        let batch = shard.reads.batch();
        if !list.is_empty() {
            self.propose(m, Proposals { shard: number, list });
        }
        if let Some(batch) = batch {
            self.input(m, Input::ReadIndex(ReadBatch { shard: number, batch }));
        }
    }

    fn shard(&mut self, m: usize, s: usize) -> Option<&mut ShardState> {
        self.members[m].running().map(|running| &mut running.shards[s])
    }

    fn view(&self, m: usize) -> &replica::View {
        self.members[m].view().expect("a shard that has a turn belongs to a living process")
    }

    fn shard_event(&mut self, m: usize, s: usize, event: ShardEvent) {
        match event {
            ShardEvent::Request(request) => self.on_request(m, s, request),
            ShardEvent::Answers(answers) => {
                answers.into_iter().for_each(|answer| self.on_answer(m, s, answer));
            }
            ShardEvent::Applied(to_shard) => self.on_applied(m, s, *to_shard),
            ShardEvent::Brought(key, history) => {
                if let Some(shard) = self.shard(m, s)
                    && shard.reading.remove(&key).is_some()
                {
                    self.on_history(m, s, key, history);
                    self.catch_up(m, s);
                }
            }
            ShardEvent::Forwarded(token, time) => {
                if let Some((call, _)) = self.shard(m, s).and_then(|s| s.questions.remove(&token)) {
                    self.tell_outcome(m, call, Outcome::of_lease(time));
                }
            }
            ShardEvent::Tick => self.on_shard_tick(m, s),
        }
    }

    fn on_shard_tick(&mut self, m: usize, s: usize) {
        let now_ms = self.now / 1_000;
        let lagging = self.delays.below(16) == 0;
        let Some(shard) = self.shard(m, s) else { return };
        let mut late: Vec<Call> =
            shard.waiters.expired(now_ms).into_iter().map(|(_, call)| call).collect();
        late.extend(shard.reads.expired(now_ms).into_iter().map(|(call, _)| call));
        // A connection that takes nothing for a while makes its watchers lag.
        if lagging && let Some((key, _)) = shard.known.first_key_value() {
            shard.slow = Some(*key);
        }
        for call in late {
            self.tell_outcome(m, call, Outcome::Unknown);
        }
        self.tell_progress(m, s);
        self.catch_up(m, s);
    }

    /// Now and then somebody wants to know how far his watches are.
    fn tell_progress(&mut self, m: usize, s: usize) {
        if self.delays.below(8) > 0 {
            return;
        }
        let Some(shard) = self.shard(m, s) else { return };
        let told: Vec<(WatchKey, i64)> = shard
            .known
            .iter()
            .filter(|(_, extras)| extras.progress)
            .filter_map(|(key, _)| Some((*key, shard.watchers.progress(key)?)))
            .collect();
        for (key, revision) in told {
            self.tell_watch(m, key, Told::Progress { id: key.2, revision });
        }
    }

    /// Somebody asks how far all his watches are: he hears it when all of them have been told everything.
    fn tell_progress_of_all(&mut self, m: usize, s: usize, call: Call) {
        let Some(shard) = self.shard(m, s) else { return };
        let keys = shard.watches_of(call);
        let told = keys.iter().map(|key| shard.watchers.progress(key));
        if let Some(revision) =
            told.collect::<Option<Vec<i64>>>().and_then(|told| told.into_iter().min())
        {
            for key in keys {
                self.tell_watch(m, key, Told::Progress { id: key.2, revision });
            }
        }
    }

    /// What a server looks at before anything else. The model says whether it is refused, and with which words.
    fn admit(&mut self, m: usize, ask: Ask) -> Result<Ask, Error> {
        let judged = request_of(&ask).map_or(Ok(()), |request| door::check(&request));
        let admitted = at_door(ask);
        let said = admitted.as_ref().map(|_| ()).map_err(|error| error.text());
        if said != judged {
            self.violate(format!("member {} says {said:?} at its door, not {judged:?}", m + 1));
        }
        admitted
    }

    fn on_request(&mut self, m: usize, s: usize, request: Request) {
        let Request { call, ask } = request;
        let ask = match self.admit(m, ask) {
            Ok(ask) => ask,
            Err(error) => return self.tell_outcome(m, call, Outcome::TurnedAway(error)),
        };
        let deadline = self.now / 1_000
            + self.scenario.config.request_timeout_ticks() * self.scenario.config.tick_ms;
        match ask {
            Ask::Propose(wish, lane) => {
                let Some(shard) = self.shard(m, s) else { return };
                let wish = match wish {
                    Wish::LeaseGrant(grant) => Wish::lease_grant(grant, shard.waiters.name()),
                    other => other,
                };
                match shard.waiters.add(call, deadline) {
                    Ok(id) => {
                        let command = Command { id, caller: Caller::default(), request: wish };
                        shard.proposals.push(Proposal { id, data: command.encode(), lane });
                    }
                    Err(call) => {
                        self.tell_outcome(m, call, Outcome::NotTaken(Refusal::TooManyRequests));
                    }
                }
            }
            Ask::Change(change) => {
                let Some(shard) = self.shard(m, s) else { return };
                match shard.waiters.add(call, deadline) {
                    Ok(id) => {
                        let (data, lane) = (change.encode(id.0), Lane::Membership);
                        shard.proposals.push(Proposal { id, data, lane });
                        self.on_change_proposed(id.0, change);
                    }
                    Err(call) => {
                        self.tell_outcome(m, call, Outcome::NotTaken(Refusal::TooManyRequests));
                    }
                }
            }
            Ask::Read(wanted) => {
                let lone = self.view(m).lone();
                if lone || wanted.is_serializable() {
                    return self.serve(m, s, call, wanted, Effort::Try);
                }
                let Some(shard) = self.shard(m, s) else { return };
                if let Err((call, _)) = shard.reads.add((call, wanted), deadline) {
                    self.tell_outcome(m, call, Outcome::NotTaken(Refusal::TooManyRequests));
                }
            }
            Ask::KeepAlive(lease) => {
                self.ask_lease(m, s, call, lease, LeaseQuestion::KeepAlive);
            }
            // The keys are compared where they are read, whoever wants to know them.
            Ask::TimeToLive { lease, .. } => {
                self.ask_lease(m, s, call, lease, LeaseQuestion::TimeToLive);
            }
            Ask::Leases => {
                self.compare_leases(m);
                self.tell_outcome(m, call, Outcome::Done(None));
            }
            Ask::Transfer(to) => {
                let Some(shard) = self.shard(m, s) else { return };
                let token = shard.token();
                shard.questions.insert(token, (call, None));
                let asker = Asker::Shard { shard: shard.number, token };
                self.input(m, Input::TransferLeader { asker, to });
            }
            Ask::Watch { id, asked } => self.watch(m, s, (call.client, call.conn, id), asked),
            Ask::Progress => self.tell_progress_of_all(m, s, call),
            Ask::Unwatch(id) => {
                let key = (call.client, call.conn, id);
                self.unwatch(m, s, key);
            }
            Ask::Gone => {
                let Some(shard) = self.shard(m, s) else { return };
                let keys = shard.watches_of(call);
                keys.into_iter().for_each(|key| self.unwatch(m, s, key));
            }
        }
    }

    fn ask_lease(&mut self, m: usize, s: usize, call: Call, lease: i64, question: LeaseQuestion) {
        let Some(shard) = self.shard(m, s) else { return };
        let token = shard.token();
        shard.questions.insert(token, (call, Some(question)));
        let asker = Asker::Shard { shard: shard.number, token };
        self.input(m, Input::Lease(LeaseAsk { asker, lease, question }));
    }

    fn on_answer(&mut self, m: usize, s: usize, answer: replica::Answer) {
        use replica::Answer;
        let Some(shard) = self.shard(m, s) else { return };
        match answer {
            Answer::Refused { id, why } => {
                if let Some(call) = shard.waiters.take(id) {
                    self.tell_outcome(m, call, Outcome::NotTaken(why));
                }
                self.on_change_refused(id.0);
            }
            Answer::Read { batch, result: Ok(index) } => {
                shard.reads.confirmed(batch, index);
                let number = shard.number;
                self.view(m).set_waiting(number, true);
                let applied = self.view(m).applied();
                self.serve_applied(m, s, applied);
            }
            Answer::Read { batch, result: Err(why) } => {
                for (call, _) in shard.reads.refused(batch) {
                    self.tell_outcome(m, call, Outcome::NotTaken(why));
                }
            }
            Answer::Lease(LeaseAnswer { asker, lease, result }) => {
                let Asker::Shard { token, .. } = asker else { return };
                match result {
                    Err(LeaseRefusal::Forward { leader }) => {
                        if let Some((_, Some(question))) = shard.questions.get(&token).copied() {
                            self.forward(m, s, token, leader, (lease, question));
                        }
                    }
                    other => {
                        if let Some((call, _)) = shard.questions.remove(&token) {
                            self.tell_outcome(m, call, Outcome::of_lease(other.ok()));
                        }
                    }
                }
            }
            Answer::Transferred { token, result } => {
                if let Some((call, _)) = shard.questions.remove(&token) {
                    let outcome = match result {
                        Ok(()) => Outcome::Done(None),
                        Err(why) => Outcome::NotTaken(why),
                    };
                    self.tell_outcome(m, call, outcome);
                }
            }
        }
    }

    fn on_applied(&mut self, m: usize, s: usize, to_shard: ToShard) {
        let ToShard { applied, batches, replies, exchanged, .. } = to_shard;
        if self.view(m).applied() < applied {
            self.violate(format!(
                "member {} told a shard of {applied} before it was visible",
                m + 1
            ));
        }
        self.on_batches(m, s, &batches, exchanged);
        for reply in replies {
            if self.view(m).state.revision() < reply.revision {
                self.violate(format!("member {} replies before its readers see it", m + 1));
            }
            let Some(call) = self.shard(m, s).and_then(|shard| shard.waiters.take(reply.id)) else {
                continue;
            };
            match self.truth.on_reply(&reply) {
                Ok(answer) => self.note_answer(call, answer),
                Err(broken) => self.violate(broken),
            }
            self.figures.checked += 1;
            self.remember(Some(m), "replies", call.op, reply.revision as u64);
            if let Ok(Reply::LeaseGrant { id, .. }) = reply.result {
                self.clients[call.client].granted(call.op, id);
            }
            let outcome = match reply.result {
                Ok(reply) => Outcome::Done(Some(Box::new(reply))),
                Err(error) => Outcome::Refused(error),
            };
            self.tell_outcome(m, call, outcome);
        }
        self.serve_applied(m, s, applied);
    }

    fn serve_applied(&mut self, m: usize, s: usize, applied: Index) {
        let Some(shard) = self.shard(m, s) else { return };
        let ready = shard.reads.applied(applied);
        let (number, waits) = (shard.number, shard.reads.waits_for_apply());
        if !waits {
            self.view(m).set_waiting(number, false);
        }
        for (call, wanted) in ready {
            self.serve(m, s, call, wanted, Effort::Try);
        }
    }

    /// Reads what this member has now, here or on a read thread, and compares it with the model.
    fn serve(&mut self, m: usize, s: usize, call: Call, wanted: Wanted, effort: Effort) {
        let state = &self.view(m).state;
        let answer = match &wanted {
            Wanted::Range(range) => state.range(range, effort),
            Wanted::Txn(txn, _) => state.txn(txn, effort),
            Wanted::Members => return self.serve_members(m, call),
        };
        match answer {
            Ok(state_machine::Answer::Cold | state_machine::Answer::Busy) => {
                let delay = 20 + self.delays.exponential(500);
                let errand = Box::new(Errand::Read(call, wanted));
                self.soon(m, delay, Event::ReadThread(s as u8, errand));
            }
            Ok(state_machine::Answer::Ready(reply)) => {
                match self.check_read(m, &call, &wanted, &reply) {
                    Ok(answer) => self.note_answer(call, Some(answer)),
                    Err(broken) => self.violate(broken),
                }
                self.figures.checked += 1;
                self.tell_outcome(m, call, Outcome::Done(Some(Box::new(reply))));
            }
            Err(error) => {
                let kept = self.check_refused_read(m, &call, &wanted, error);
                self.expect(kept);
                self.tell_outcome(m, call, Outcome::Refused(error));
            }
        }
    }

    /// The list of the members, as it stands here.
    fn serve_members(&mut self, m: usize, call: Call) {
        let view = self.view(m);
        let (applied, cluster) = (view.applied().0, view.state.cluster());
        let kept = self.truth.check_members(m as u64 + 1, applied, &cluster);
        self.expect(kept);
        if applied < call.index {
            self.violate(format!(
                "member {} lists the members at index {applied}; before it was asked, {} was committed",
                m + 1,
                call.index
            ));
        }
        let reply = Reply::MemberList { members: cluster.member_list() };
        self.tell_outcome(m, call, Outcome::Done(Some(Box::new(reply))));
    }

    fn note_answer(&mut self, call: Call, answer: Option<Answer>) {
        if let (Some(recorder), Some(answer)) = (&mut self.recorder, answer) {
            recorder.on_answer(call.client, call.op, answer);
        }
    }

    fn check_read(
        &self,
        m: usize,
        call: &Call,
        wanted: &Wanted,
        reply: &Reply,
    ) -> Result<Answer, String> {
        let model = &self.truth.model;
        let running = self.members[m].running.as_ref();
        let header = running.map(|running| running.header(m as u64 + 1, 0));
        let got = answer_of(reply, &header.expect("whoever reads is up"))
            .map_err(|error| format!("a reply cannot be read: {error}"))?
            .ok_or("a read is answered as something else")?;
        let revision = got.revision();
        let (at, want) = match wanted {
            Wanted::Range(range) => {
                let at = if range.revision > 0 { range.revision } else { revision };
                (at, Some(Answer::Range(model.range(range, revision))))
            }
            Wanted::Txn(txn, _) => (revision, model.quiet_txn(txn, revision).map(Answer::Txn)),
            Wanted::Members => (revision, None),
        };
        if want.as_ref() != Some(&got) {
            return Err(format!("member {} answers {got:?}, not {want:?}", m + 1));
        }
        if revision > model.revision() {
            return Err(format!(
                "member {} reads at revision {revision}, which is not committed",
                m + 1
            ));
        }
        if wanted.is_serializable() {
            if at < model.mark_when(revision) {
                return Err(format!("member {} reads revision {at} below its mark", m + 1));
            }
            return Ok(got);
        }
        let applied = self.view(m).applied().0;
        if revision < call.revision || at < call.mark || applied < call.index {
            return Err(format!(
                "member {} answers a linearizable read at {at} of revision {revision} with index {applied} applied; before \
                 it was asked, revision {} and index {} were committed, and {} compacted",
                m + 1,
                call.revision,
                call.index,
                call.mark
            ));
        }
        Ok(got)
    }

    fn check_refused_read(
        &mut self,
        m: usize,
        call: &Call,
        wanted: &Wanted,
        error: Error,
    ) -> Result<(), String> {
        // In a transaction a negative revision lies below any mark.
        let least = if matches!(wanted, Wanted::Txn(..)) { i64::MIN } else { 1 };
        let asked: Vec<i64> = match wanted {
            Wanted::Range(range) => vec![range.revision],
            Wanted::Members => Vec::new(),
            Wanted::Txn(txn, _) => {
                let ops = txn.success.iter().chain(&txn.failure);
                ops.filter_map(|op| match &op.request {
                    Some(Op::RequestRange(range)) => Some(range.revision),
                    _ => None,
                })
                .collect()
            }
        };
        let mark = self.truth.model.mark();
        let fair = match error {
            Error::Compacted => asked
                .iter()
                .any(|asked| *asked != 0 && *asked >= least && (*asked < mark || *asked < -1)),
            Error::FutureRevision => {
                let least = if wanted.is_serializable() { 0 } else { call.revision };
                asked.iter().any(|asked| *asked > least)
            }
            Error::ReadRevoked => true,
            Error::Storage => self.members[m].is_doomed() || self.reads_rot(m),
            _ => false,
        };
        match fair {
            true => Ok(()),
            false => Err(format!(
                "member {} refuses a read at {asked:?}: {}; revision {} is committed, {} compacted",
                m + 1,
                error.text(),
                self.truth.model.revision(),
                self.truth.model.mark()
            )),
        }
    }

    /// A read thread does what a shard asked of it.
    pub fn run_errand(&mut self, m: usize, s: usize, errand: Errand) {
        match errand {
            Errand::Read(call, wanted) => self.serve(m, s, call, wanted, Effort::Disk),
            Errand::History(lagging) => {
                let history = read_history(self.view(m).state.reader(), &lagging, Effort::Disk);
                self.tell_shard(m, s as u8, ShardEvent::Brought(lagging.id, history));
            }
        }
    }

    fn watch(&mut self, m: usize, s: usize, key: WatchKey, asked: WatchCreateRequest) {
        let start = if asked.key.is_empty() { Bytes::from_static(&[0]) } else { asked.key };
        let (range, from) = (KeyRange::parse(start, asked.range_end), asked.start_revision);
        if from < 0 || range.is_empty() {
            return self.tell_watch(m, key, Told::Rejected { id: key.2 });
        }
        let has = |filter: FilterType| asked.filters.contains(&(filter as i32));
        let filter =
            Filter { no_put: has(FilterType::Noput), no_delete: has(FilterType::Nodelete) };
        let extras = Extras { prev_kv: asked.prev_kv, progress: asked.progress_notify };
        let view = self.view(m).clone();
        let Some(shard) = self.shard(m, s) else { return };
        if !mem::replace(&mut shard.flag, true) {
            view.set_watching(shard.number, true);
            shard.watchers.begin(view.state.reader().revision());
        }
        let revision = view.state.reader().revision();
        shard.watchers.insert(key, range, from, revision, filter);
        let from = if from == 0 { revision + 1 } else { from };
        shard.known.insert(key, extras);
        self.tell_watch(m, key, Told::Created { id: key.2, from });
        self.catch_up(m, s);
    }

    fn unwatch(&mut self, m: usize, s: usize, key: WatchKey) {
        let view = self.view(m).clone();
        let Some(shard) = self.shard(m, s) else { return };
        shard.watchers.remove(&key);
        shard.known.remove(&key);
        shard.reading.remove(&key);
        if shard.watchers.is_empty() && mem::replace(&mut shard.flag, false) {
            view.set_watching(shard.number, false);
        }
    }

    fn on_batches(
        &mut self,
        m: usize,
        s: usize,
        batches: &[std::sync::Arc<mvcc::Batch>],
        exchanged: bool,
    ) {
        let reader = self.view(m).state.reader().clone();
        let Some(shard) = self.shard(m, s) else { return };
        if !shard.flag {
            return;
        }
        if exchanged {
            shard.watchers.on_gap();
        }
        let mut told: Vec<(WatchKey, Told)> = Vec::new();
        let ShardState { slow, known, watchers, .. } = shard;
        for batch in batches {
            watchers.on_batch(batch, &mut |key, events| {
                if slow.take_if(|slow| slow == key).is_some() {
                    return Some(events[0].revision.main);
                }
                let prev_kv = known.get(key).is_some_and(|extras| extras.prev_kv);
                let events = carry(&reader, events.iter().copied(), prev_kv);
                told.push((*key, Told::Events { id: key.2, events }));
                None
            });
        }
        for (key, told) in told {
            self.tell_watch(m, key, told);
        }
        // Before those that have just fallen behind have caught up.
        if self.script.is_none() {
            self.tell_progress(m, s);
        }
        self.catch_up(m, s);
    }

    /// Reads history for the watchers that lag: here if it can be had at once, else on a read thread.
    fn catch_up(&mut self, m: usize, s: usize) {
        for _ in 0..8 {
            let elsewhere = self.delays.below(4) == 0;
            let reader = self.view(m).state.reader().clone();
            let Some(shard) = self.shard(m, s) else { return };
            let Some(lagging) = shard.watchers.take_next() else { return };
            let key = lagging.id;
            let history = match elsewhere {
                true => Err(ReadError::Cold),
                false => read_history(&reader, &lagging, Effort::Now),
            };
            match history {
                Err(ReadError::Cold | ReadError::Busy) => {
                    shard.reading.insert(key, ());
                    let delay = 20 + self.delays.exponential(1_000);
                    let errand = Box::new(Errand::History(lagging));
                    self.soon(m, delay, Event::ReadThread(s as u8, errand));
                }
                history => self.on_history(m, s, key, history),
            }
        }
    }

    fn on_history(
        &mut self,
        m: usize,
        s: usize,
        key: WatchKey,
        history: Result<History, ReadError>,
    ) {
        let view = self.view(m).clone();
        let reader = view.state.reader();
        let Some(shard) = self.shard(m, s) else { return };
        match history {
            Ok(history) => {
                let events = shard.watchers.caught_up(&key, &history);
                let prev_kv = shard.known.get(&key).is_some_and(|extras| extras.prev_kv);
                let events = carry(reader, events.into_iter(), prev_kv);
                if !events.is_empty() {
                    self.tell_watch(m, key, Told::Events { id: key.2, events });
                }
            }
            Err(ReadError::Compacted) => {
                let mark = reader.compact_revision();
                shard.watchers.remove(&key);
                shard.known.remove(&key);
                self.tell_watch(m, key, Told::Canceled { id: key.2, mark });
            }
            // The keyspace was exchanged under the read, or its disk is about to stop: again, later.
            Err(ReadError::Revoked) => shard.watchers.requeue(&key),
            Err(error) => {
                if !self.members[m].is_doomed() && !self.reads_rot(m) {
                    self.violate(format!("member {} cannot read history: {error}", m + 1));
                }
            }
        }
    }

    fn forward(
        &mut self,
        m: usize,
        s: usize,
        token: u64,
        leader: NodeId,
        (lease, question): (i64, LeaseQuestion),
    ) {
        let to = leader as usize - 1;
        let life = self.members[m].life;
        let forward = Forward { from: (m, life, s as u8, token), lease, question };
        match self.network.send(m, to, self.now) {
            crate::network::Fate::Arrives { at, .. } if self.members[to].is_up() => {
                let whose = Whose::Life(to, self.members[to].life);
                self.at(at, whose, Event::Forwarded(forward));
            }
            _ => self.soon(m, 100_000, Event::ForwardAnswered(forward, None)),
        }
    }

    /// The leader hears a question of another member.
    pub fn forwarded(&mut self, m: usize, forward: Forward) {
        let token = self.faults.name_forward(forward);
        let ask = LeaseAsk {
            asker: Asker::Peer { token },
            lease: forward.lease,
            question: forward.question,
        };
        self.input(m, Input::Lease(ask));
    }

    /// The leader has an answer for another member.
    pub fn answer_forward(&mut self, m: usize, token: u64, time: Option<LeaseTime>) {
        let Some(forward) = self.faults.take_forward(token) else { return };
        let (to, life, ..) = forward.from;
        if let crate::network::Fate::Arrives { at, .. } = self.network.send(m, to, self.now) {
            self.at(at, Whose::Life(to, life), Event::ForwardAnswered(forward, time));
        }
    }

    /// The answer has come.
    pub fn forward_answered(&mut self, m: usize, forward: Forward, time: Option<LeaseTime>) {
        let (_, _, shard, token) = forward.from;
        self.tell_shard(m, shard, ShardEvent::Forwarded(token, time));
    }

    fn tell_outcome(&mut self, m: usize, call: Call, outcome: Outcome) {
        if call.client == OPERATOR {
            return self.operator_told(call.op, outcome);
        }
        let told = Told::Outcome { op: call.op, outcome };
        self.reach_client(m, call.client, call.conn, told);
    }

    fn tell_watch(&mut self, m: usize, key: WatchKey, told: Told) {
        if let Told::Events { events, .. } = &told
            && events.iter().any(|event| event.previous.is_err())
            && !self.members[m].is_doomed()
            && !self.reads_rot(m)
        {
            self.violate(format!("member {} cannot read what an event replaced", m + 1));
        }
        let silent = self.scenario.mutant == Some(Mutant::SilentCompaction);
        if silent && matches!(told, Told::Canceled { .. }) {
            return;
        }
        self.reach_client(m, key.0, key.1, told);
    }
}

fn read_history(
    reader: &Reader,
    lagging: &Lagging<WatchKey>,
    effort: Effort,
) -> Result<History, ReadError> {
    reader.history(&lagging.range, lagging.next, PORTION, effort)
}

/// What a server checks of a request before anything else.
fn at_door(ask: Ask) -> Result<Ask, Error> {
    Ok(match ask {
        Ask::Propose(wish, lane) => {
            let wish = match wish {
                Wish::Put(put) => Wish::try_from(put)?,
                Wish::DeleteRange(delete) => Wish::try_from(delete)?,
                Wish::Txn(txn) => Wish::txn(txn, door::TXN_OPS_MAX)?,
                Wish::LeaseGrant(grant) if grant.ttl > state_machine::TTL_MAX => {
                    return Err(Error::LeaseTtlTooLarge);
                }
                other => other,
            };
            Ask::Propose(wish, lane)
        }
        Ask::Read(Wanted::Range(range)) => {
            state_machine::check_range(&range)?;
            Ask::Read(Wanted::Range(range))
        }
        Ask::Read(Wanted::Txn(txn, serializable)) => match Wish::txn(txn, door::TXN_OPS_MAX)? {
            Wish::Txn(txn) => Ask::Read(Wanted::Txn(txn, serializable)),
            wish => Ask::Propose(wish, Lane::Ordinary),
        },
        other => other,
    })
}

/// Events as they travel to a client, with what they replaced if it is wanted.
fn carry<'e>(
    reader: &Reader,
    events: impl Iterator<Item = &'e Happened>,
    prev_kv: bool,
) -> Vec<WatchEvent> {
    events
        .map(|event| WatchEvent {
            main: event.revision.main,
            is_put: event.kind == mvcc::EventKind::Put,
            kv: event.kv.clone(),
            // It cannot be read when the disk is about to stop, and only then: the end of the process follows.
            previous: match prev_kv {
                true => reader.previous(event, Effort::Disk).map_err(drop),
                false => Ok(None),
            },
        })
        .collect()
}
