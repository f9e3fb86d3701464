//! The clients: what they ask, what they believe, and what they check of what they are told.
//!
//! A client has one connection at a time to one shard of one member, and a few requests under way on it. Whatever it
//! does not hear of in time, or when the connection breaks, has an unknown outcome. Its watches it resumes elsewhere
//! from where they broke off, and holds each of them against the model: nothing missing, nothing twice, nothing out of
//! order.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchResponse,
};
use proto::mvccpb::event::EventType;
use proto::mvccpb::{Event as WatchedEvent, KeyValue};
use replica::Lane;
use state_machine::Request as Wish;

use crate::history;
use crate::history::watch::{Step, Watcher};
use crate::model::{self, Model};
use crate::network::{Fate, MEMBERS_EVER};
use crate::random::Random;
use crate::scenario::Workload;
use crate::shard::{Ask, Call, Outcome, Request, Told, Wanted, WatchEvent};
use crate::world::{Event, Phase, Whose, World};

/// The most watches and leases that a client has.
const WATCHES_MAX: usize = 4;
const LEASES_MAX: usize = 3;
/// How many groups of keys there are where requests keep to groups, and the keys of each. After so many microseconds all
/// turn to other groups: every request of unknown outcome doubles what has to be searched of its group from then on.
const GROUPS: u64 = 5;
const GROUP_KEYS: u64 = 3;
const GROUPS_US: u64 = 2_500_000;

/// A connection.
#[derive(Clone, Copy, Debug)]
struct Connection {
    number: u64,
    member: usize,
    life: u64,
    shard: u8,
    /// Something on it was lost, or its other end is gone.
    dead: bool,
}

/// A request under way.
struct Pending {
    is_write: bool,
    is_probe: bool,
    granted: Option<i64>,
}

/// A client.
pub struct Client {
    index: usize,
    random: Random,
    connection: Option<Connection>,
    connections: u64,
    next_op: u64,
    pending: BTreeMap<u64, Pending>,
    watches: BTreeMap<u32, Watcher>,
    next_watch: u32,
    leases: Vec<i64>,
}

impl Client {
    /// A client that has done nothing yet.
    pub fn new(root: &Random, index: usize) -> Client {
        Client {
            index,
            random: root.child("client", index as u64),
            connection: None,
            connections: 0,
            next_op: 0,
            pending: BTreeMap::new(),
            watches: BTreeMap::new(),
            next_watch: 0,
            leases: Vec::new(),
        }
    }

    /// The member that it is connected to.
    pub fn member(&self) -> Option<usize> {
        self.connection.map(|connection| connection.member)
    }

    /// Those of its watches that have not been told everything.
    pub fn behind(&self, model: &Model) -> Vec<String> {
        let missed = |watch: &Watcher| watch.missed(model, model.revision()).len();
        self.watches
            .iter()
            .filter(|(_, watch)| watch.next() == 0 || missed(watch) > 0)
            .map(|(id, watch)| {
                format!(
                    "{id} of client {}, next {}, {} events, {:?}",
                    self.index,
                    watch.next(),
                    missed(watch),
                    self.connection
                )
            })
            .collect()
    }

    /// The grant that this request asked for has made this lease.
    pub fn granted(&mut self, op: u64, lease: i64) {
        if let Some(pending) = self.pending.get_mut(&op) {
            pending.granted = Some(lease);
        }
    }

    fn key(&mut self, keys: u64) -> Bytes {
        let number = self.random.below(keys);
        match number % 5 {
            0 | 1 => format!("a/{number:02}").into(),
            2 => format!("b/{number:02}").into(),
            3 => format!("b/x/{number:02}").into(),
            _ => vec![0xff, number as u8].into(),
        }
    }

    fn range(&mut self, keys: u64) -> (Bytes, Bytes) {
        match self.random.below(6) {
            0 => (Bytes::from_static(b"a/"), Bytes::from_static(b"a0")),
            1 => (Bytes::from_static(b"b/x/"), Bytes::from_static(b"b/x0")),
            2 => (self.key(keys), Bytes::from_static(b"\0")),
            3 => {
                let (one, other) = (self.key(keys), self.key(keys));
                (one.clone().min(other.clone()), one.max(other))
            }
            _ => (self.key(keys), Bytes::new()),
        }
    }

    /// A value that no other request writes.
    fn value(&mut self) -> Bytes {
        let mut value = format!("{}:{}:", self.index, self.next_op).into_bytes();
        let length = match self.random.below(40) {
            0 => self.random.below(3_000),
            1..8 => self.random.below(300),
            _ => self.random.below(40),
        };
        value.resize(value.len() + length as usize, b'.');
        value.into()
    }

    fn put(&mut self, keys: u64) -> PutRequest {
        let lease = match self.leases.is_empty() || self.random.below(5) > 0 {
            true => 0,
            false => *self.random.pick(&self.leases),
        };
        let mut put = PutRequest {
            key: self.key(keys),
            value: self.value(),
            lease,
            prev_kv: self.random.chance(0.3),
            ..PutRequest::default()
        };
        match self.random.below(20) {
            0 => {
                put.ignore_value = true;
                put.value = Bytes::new();
            }
            1 => {
                put.ignore_lease = true;
                put.lease = 0;
            }
            _ => {}
        }
        put
    }

    fn delete(&mut self, keys: u64) -> DeleteRangeRequest {
        let (key, range_end) = match self.random.below(4) {
            0 => self.range(keys),
            _ => (self.key(keys), Bytes::new()),
        };
        DeleteRangeRequest { key, range_end, prev_kv: self.random.chance(0.3) }
    }

    fn read(&mut self, keys: u64, model: &Model) -> RangeRequest {
        let (key, range_end) = self.range(keys);
        let mut range = RangeRequest {
            key,
            range_end,
            serializable: self.random.chance(0.3),
            ..RangeRequest::default()
        };
        let random = &mut self.random;
        if random.chance(0.25) {
            let back = random.below(80) as i64 - 2;
            range.revision = (model.revision() - back).max(1);
        }
        if random.chance(0.3) {
            range.limit = random.between(1, 5) as i64;
        }
        match random.below(12) {
            0 => range.count_only = true,
            1 => range.keys_only = true,
            2 => range.min_mod_revision = model.revision() - random.below(30) as i64,
            3 => range.max_create_revision = model.revision() - random.below(30) as i64,
            4 | 5 => {
                range.sort_order = random.between(1, 2) as i32;
                range.sort_target = random.below(5) as i32;
            }
            _ => {}
        }
        range
    }

    fn compare(&mut self, keys: u64, model: &Model) -> Compare {
        let (key, range_end) = match self.random.below(5) {
            0 => self.range(keys),
            _ => (self.key(keys), Bytes::new()),
        };
        let now = model.live(&key, &Bytes::new(), model.revision()).pop().unwrap_or_default();
        let off = i64::from(self.random.below(3) == 0);
        let (target, union) = match self.random.below(5) {
            0 => (CompareTarget::Version, TargetUnion::Version(now.version + off)),
            1 => (CompareTarget::Create, TargetUnion::CreateRevision(now.create_revision + off)),
            2 => (CompareTarget::Mod, TargetUnion::ModRevision(now.mod_revision + off)),
            3 => (CompareTarget::Lease, TargetUnion::Lease(now.lease + off)),
            _ => (CompareTarget::Value, TargetUnion::Value(now.value)),
        };
        let results = [
            CompareResult::Equal,
            CompareResult::Equal,
            CompareResult::NotEqual,
            CompareResult::Less,
            CompareResult::Greater,
        ];
        Compare {
            result: *self.random.pick(&results) as i32,
            target: target as i32,
            key,
            range_end,
            target_union: Some(union),
        }
    }

    fn ops(&mut self, keys: u64, model: &Model, most: u64, depth: u32) -> Vec<RequestOp> {
        let count = self.random.below(most + 1);
        (0..count)
            .map(|_| {
                let request = match self.random.below(10) {
                    0..5 => Op::RequestPut(self.put(keys)),
                    5 | 6 => Op::RequestDeleteRange(self.delete(keys)),
                    7 if depth < 2 => Op::RequestTxn(self.txn(keys, model, depth + 1)),
                    _ => {
                        let (key, range_end) = self.range(keys);
                        // Also of the past, down to what may be compacted: the same must become of it everywhere.
                        let back = self.random.below(60) as i64;
                        let revision = match self.random.below(6) {
                            0 => (model.revision() - back).max(1),
                            _ => 0,
                        };
                        Op::RequestRange(RangeRequest {
                            key,
                            range_end,
                            revision,
                            ..Default::default()
                        })
                    }
                };
                RequestOp { request: Some(request) }
            })
            .collect()
    }

    fn txn(&mut self, keys: u64, model: &Model, depth: u32) -> TxnRequest {
        let compares = self.random.below(3);
        TxnRequest {
            compare: (0..compares).map(|_| self.compare(keys, model)).collect(),
            success: self.ops(keys, model, 3, depth),
            failure: self.ops(keys, model, 2, depth),
        }
    }

    fn wish(&mut self, keys: u64, model: &Model, members: u64) -> (Ask, bool) {
        let write = |wish: Wish| (Ask::Propose(wish, Lane::Ordinary), true);
        let read = |range| (Ask::Read(Wanted::Range(range)), false);
        match self.random.below(1_000) {
            0..470 => {
                let put = self.put(keys);
                Wish::try_from(put).map_or((Ask::KeepAlive(1), false), write)
            }
            470..540 => {
                let delete = self.delete(keys);
                Wish::try_from(delete).map_or((Ask::KeepAlive(1), false), write)
            }
            540..660 => {
                let txn = self.txn(keys, model, 0);
                match Wish::txn(txn, 128) {
                    Ok(Wish::Txn(txn)) if state_machine::is_read_only(&txn) => {
                        let serializable = state_machine::is_serializable(&txn);
                        (Ask::Read(Wanted::Txn(txn, serializable)), false)
                    }
                    Ok(wish) => write(wish),
                    // A key twice, or the like: refused before it is proposed. A read instead.
                    Err(_) => read(self.read(keys, model)),
                }
            }
            660..680 => {
                let back = self.random.below(120) as i64 - 3;
                let revision = (model.revision() - back).max(1);
                let physical = self.random.chance(0.5);
                write(Wish::Compact(CompactionRequest { revision, physical }))
            }
            680..720 if self.leases.len() < LEASES_MAX => {
                let ttl = self.random.between(1, 4) as i64;
                write(Wish::LeaseGrant(LeaseGrantRequest { id: 0, ttl }))
            }
            720..730 if !self.leases.is_empty() => {
                let id = self.leases.swap_remove(0);
                (Ask::Propose(Wish::LeaseRevoke(LeaseRevokeRequest { id }), Lane::Priority), true)
            }
            730..800 if !self.leases.is_empty() => {
                (Ask::KeepAlive(*self.random.pick(&self.leases)), false)
            }
            800..806 => (Ask::Transfer(self.random.between(1, members)), false),
            _ => read(self.read(keys, model)),
        }
    }

    /// A request within one of the small groups of keys.
    fn group_wish(&mut self, now: u64) -> (Ask, bool) {
        let group = now / GROUPS_US * GROUPS + self.random.below(GROUPS);
        let all = || {
            let (key, range_end) = (format!("g{group}/"), format!("g{group}0"));
            (Bytes::from(key), Bytes::from(range_end))
        };
        let write = |wish: Wish| (Ask::Propose(wish, Lane::Ordinary), true);
        match self.random.below(100) {
            0..35 => {
                let (key, value) = (self.group_key(group), self.value());
                let prev_kv = self.random.chance(0.3);
                write(Wish::Put(PutRequest { key, value, prev_kv, ..PutRequest::default() }))
            }
            35..45 => {
                let one = (self.group_key(group), Bytes::new());
                let (key, range_end) = if self.random.chance(0.3) { all() } else { one };
                let prev_kv = self.random.chance(0.3);
                write(Wish::DeleteRange(DeleteRangeRequest { key, range_end, prev_kv }))
            }
            45..65 => {
                let compare = Compare {
                    key: self.group_key(group),
                    result: CompareResult::Equal as i32,
                    target: CompareTarget::Version as i32,
                    target_union: Some(TargetUnion::Version(self.random.below(3) as i64)),
                    ..Compare::default()
                };
                let put = |place: u64| {
                    let key = format!("g{group}/{place}").into();
                    let value = format!("{}:{}:{place}", self.index, self.next_op).into();
                    let put = PutRequest { key, value, ..PutRequest::default() };
                    RequestOp { request: Some(Op::RequestPut(put)) }
                };
                let success = vec![put(0), put(1)];
                let (key, range_end) = all();
                let range = RangeRequest { key, range_end, ..RangeRequest::default() };
                let failure = vec![RequestOp { request: Some(Op::RequestRange(range)) }];
                write(Wish::Txn(TxnRequest { compare: vec![compare], success, failure }))
            }
            _ => {
                let one = (self.group_key(group), Bytes::new());
                let (key, range_end) = if self.random.chance(0.3) { all() } else { one };
                let range = RangeRequest { key, range_end, ..RangeRequest::default() };
                (Ask::Read(Wanted::Range(range)), false)
            }
        }
    }

    fn group_key(&mut self, group: u64) -> Bytes {
        format!("g{group}/{}", self.random.below(GROUP_KEYS)).into()
    }
}

impl World {
    /// A client issues its next request.
    pub fn step(&mut self, c: usize) {
        if !self.is_stormy() && (c != 0 || self.phase == Phase::Rest) {
            return;
        }
        if self.clients[c].connection.is_none() {
            self.reconnect(c);
        }
        let (keys, members) = (self.scenario.keys, self.members.len() as u64);
        let (phase, workload, now) = (self.phase, self.scenario.workload, self.now);
        let client = &mut self.clients[c];
        client.next_op += 1;
        let op = client.next_op;
        if phase == Phase::Storm && client.random.below(40) == 0 {
            self.change_watches(c);
        }
        let model = &self.truth.model;
        let client = &mut self.clients[c];
        let (ask, is_write) = match phase {
            Phase::Storm => match workload {
                Workload::Everything => client.wish(keys, model, members),
                Workload::Groups => client.group_wish(now),
            },
            Phase::Write => {
                let put = PutRequest {
                    key: Bytes::from_static(b"a/probe"),
                    value: client.value(),
                    ..PutRequest::default()
                };
                (Ask::Propose(Wish::Put(put), Lane::Ordinary), true)
            }
            Phase::Read | Phase::Rest => {
                let range =
                    RangeRequest { key: Bytes::from_static(b"a/probe"), ..Default::default() };
                (Ask::Read(Wanted::Range(range)), false)
            }
        };
        let is_probe = phase != Phase::Storm;
        client.pending.insert(op, Pending { is_write, is_probe, granted: None });
        let patience = client.random.between(700_000, 4_000_000);
        self.figures.operations += 1;
        if let Some(recorder) = &mut self.recorder
            && let Some(request) = request_of(&ask)
        {
            recorder.on_call(c, op, self.now, request);
        }
        self.trace_asked(c, op, &ask);
        self.after(patience, Whose::World, Event::Patience(c, op));
        self.ask(c, op, ask);
    }

    /// Sends a request over the client's connection.
    fn ask(&mut self, c: usize, op: u64, ask: Ask) {
        let Some(connection) = self.clients[c].connection else { return };
        let (revision, mark, index) = self.truth.least_read();
        let call = Call { client: c, conn: connection.number, op, revision, mark, index };
        let request = Box::new(Request { call, ask });
        let from = MEMBERS_EVER + c;
        match self.network.send(from, connection.member, self.now) {
            Fate::Arrives { at, .. } if !connection.dead => {
                let whose = Whose::Life(connection.member, connection.life);
                self.at(at, whose, Event::Ask(connection.shard, request));
            }
            _ => self.break_connection(c, connection.number),
        }
    }

    /// Something goes from a member to a client.
    pub fn reach_client(&mut self, m: usize, c: usize, conn: u64, told: Told) {
        if self.script.is_some() {
            return self.reach_reader(m, conn, told);
        }
        let alive = self.clients[c]
            .connection
            .is_some_and(|connection| connection.number == conn && !connection.dead);
        if !alive {
            return;
        }
        match self.network.send(m, MEMBERS_EVER + c, self.now) {
            Fate::Arrives { at, .. } => {
                self.at(at, Whose::World, Event::Tell(c, conn, Box::new(told)));
            }
            Fate::Cut | Fate::Lost => self.break_connection(c, conn),
        }
    }

    /// What follows on this connection does not arrive; the client notices after a while.
    fn break_connection(&mut self, c: usize, conn: u64) {
        if let Some(connection) = &mut self.clients[c].connection
            && connection.number == conn
            && !connection.dead
        {
            connection.dead = true;
            let delay = 1_000 + self.delays.exponential(100_000);
            self.after(delay, Whose::World, Event::Broken(c, conn));
        }
    }

    /// A process has ended, and its connections with it.
    pub fn connections_end(&mut self, m: usize, life: u64) {
        self.scripted_connections_end(m, life);
        for c in 0..self.clients.len() {
            if let Some(connection) = self.clients[c].connection
                && (connection.member, connection.life) == (m, life)
            {
                self.break_connection(c, connection.number);
            }
        }
    }

    /// A client notices that its connection is gone.
    pub fn connection_broken(&mut self, c: usize, conn: u64) {
        if let Some(script) = &mut self.script {
            return script.on_broken(self.now, conn);
        }
        if self.clients[c].connection.is_some_and(|connection| connection.number == conn) {
            self.reconnect(c);
        }
    }

    /// A client turns to another member, or to another shard of the same; what was under way is unknown for ever.
    pub fn reconnect(&mut self, c: usize) {
        let client = &mut self.clients[c];
        if let Some(old) = client.connection.take() {
            let call = Call { client: c, conn: old.number, op: 0, revision: 0, mark: 0, index: 0 };
            let gone = Box::new(Request { call, ask: Ask::Gone });
            let delay = self.delays.exponential(50_000);
            let whose = Whose::Life(old.member, old.life);
            self.after(delay, whose, Event::Ask(old.shard, gone));
        }
        let client = &mut self.clients[c];
        let lost = std::mem::take(&mut client.pending);
        lost.keys().for_each(|op| self.trace_given_up(c, *op));
        let lost = lost.len();
        self.figures.unknown += lost as u64;
        let client = &mut self.clients[c];
        // Clients hear of those who join and leave.
        let members: Vec<usize> = self.truth.roster().all().map(|node| node as usize - 1).collect();
        let first = client.random.below(members.len() as u64) as usize;
        let mut places = members.iter().cycle().skip(first).take(members.len());
        // A closed port is noticed at once.
        let open = places.find(|member| self.members[**member].is_up());
        let member = *open.unwrap_or(&members[first]);
        client.connections += 1;
        let number = client.connections;
        let shard = client.random.below(u64::from(self.scenario.shards)) as u8;
        let life = self.members[member].life;
        let dead = false;
        client.connection = Some(Connection { number, member, life, shard, dead });
        for _ in 0..lost {
            let delay = 1_000 + self.delays.exponential(50_000);
            self.after(delay, Whose::World, Event::Step(c));
        }
        if !self.members[member].is_up() {
            return self.break_connection(c, number);
        }
        let watches = self.clients[c].watches.iter_mut();
        let resumed: Vec<_> = watches.map(|(id, watch)| (*id, watch.resume())).collect();
        for (id, asked) in resumed {
            self.ask_watch(c, id, asked);
        }
    }

    fn ask_watch(&mut self, c: usize, id: u32, asked: WatchCreateRequest) {
        if let Some(recorder) = &mut self.recorder {
            recorder.on_watch(c, id, Step::Asked(asked.clone()));
        }
        let WatchCreateRequest { key, range_end, start_revision: from, .. } = asked;
        self.ask(c, 0, Ask::Watch { id, key, range_end, from });
    }

    fn change_watches(&mut self, c: usize) {
        let keys = self.scenario.keys;
        let revision = self.truth.model.revision();
        let client = &mut self.clients[c];
        if client.watches.len() >= WATCHES_MAX || client.random.below(4) == 0 {
            if let Some((id, _)) = client.watches.pop_first() {
                self.ask(c, 0, Ask::Unwatch(id));
            }
            return;
        }
        let (key, range_end) = client.range(keys);
        let from = match client.random.below(3) {
            0 => (revision - client.random.below(100) as i64).max(1),
            1 => revision + client.random.below(20) as i64,
            _ => 0,
        };
        client.next_watch += 1;
        let id = client.next_watch;
        let asked = WatchCreateRequest {
            key,
            range_end,
            start_revision: from,
            prev_kv: true,
            ..WatchCreateRequest::default()
        };
        client.watches.insert(id, Watcher::new(asked.clone()));
        self.figures.watches += 1;
        self.ask_watch(c, id, asked);
    }

    /// A client waits no longer: the outcome is unknown, and perhaps another member is better.
    pub fn lose_patience(&mut self, c: usize, op: u64) {
        let client = &mut self.clients[c];
        if client.pending.remove(&op).is_none() {
            return;
        }
        self.figures.unknown += 1;
        self.trace_given_up(c, op);
        let client = &mut self.clients[c];
        let turns_away = client.random.chance(0.7);
        self.after(1_000, Whose::World, Event::Step(c));
        if turns_away {
            self.reconnect(c);
        }
    }

    /// A client is told something.
    pub fn told(&mut self, c: usize, conn: u64, told: Told) {
        if let Some(script) = &mut self.script {
            return script.on_told(self.now, conn, told);
        }
        if self.clients[c].connection.is_none_or(|connection| connection.number != conn) {
            return;
        }
        match told {
            Told::Outcome { op, outcome } => self.on_outcome(c, op, &outcome),
            Told::Created { id, from } => {
                let header = model::header(from - 1);
                let created = WatchResponse { header, created: true, ..Default::default() };
                self.on_watch(c, id, created);
            }
            Told::Events { id, events } => {
                self.figures.watch_events += events.len() as u64;
                match self.response_of(&events) {
                    Ok(response) => self.on_watch(c, id, response),
                    Err(why) => self.violate(format!("watch {id} of client {c}: {why}")),
                }
            }
            Told::Progress { id, revision } => {
                let header = model::header(revision);
                self.on_watch(c, id, WatchResponse { header, ..Default::default() });
            }
            Told::Canceled { id, mark } => {
                let canceled = WatchResponse {
                    canceled: true,
                    compact_revision: mark,
                    ..WatchResponse::default()
                };
                self.on_watch(c, id, canceled);
                if self.clients[c].watches.remove(&id).is_some() {
                    self.figures.canceled += 1;
                }
            }
        }
    }

    /// A watch is told what the model says comes next.
    fn on_watch(&mut self, c: usize, id: u32, response: WatchResponse) {
        let Some(watch) = self.clients[c].watches.get_mut(&id) else { return };
        if let Err(broken) = watch.on_response(&self.truth.model, &response) {
            self.violate(format!("watch {id} of client {c}: {broken}"));
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.on_watch(c, id, Step::Told(response));
        }
    }

    /// Events as a watcher's client reads them.
    fn response_of(&self, events: &[WatchEvent]) -> Result<WatchResponse, prost::DecodeError> {
        let mut response = WatchResponse::default();
        for event in events {
            let kv = KeyValue::decode(event.kv.clone())?;
            let prev_kv = match &event.previous {
                Ok(previous) => previous.clone().map(KeyValue::decode).transpose()?,
                // Whoever could not read it is about to end, and is believed.
                Err(()) => {
                    let mut changes = self.truth.model.changes(event.main, event.main).iter();
                    changes.find(|change| change.key == kv.key).and_then(|c| c.previous.clone())
                }
            };
            let kind = if event.is_put { EventType::Put } else { EventType::Delete };
            response.events.push(WatchedEvent { r#type: kind as i32, kv: Some(kv), prev_kv });
        }
        response.header = model::header(events.last().map_or(0, |event| event.main));
        Ok(response)
    }

    fn on_outcome(&mut self, c: usize, op: u64, outcome: &Outcome) {
        let Some(pending) = self.clients[c].pending.remove(&op) else { return };
        if let Some(recorder) = &mut self.recorder {
            recorder.on_outcome(c, op, self.now, outcome);
        }
        self.trace_told(c, op, outcome);
        let ok = outcome.is_done();
        let mut granted = None;
        if let Some(lease) = pending.granted {
            let client = &mut self.clients[c];
            client.leases.push(lease);
            granted = Some(lease);
            if client.leases.len() > LEASES_MAX {
                client.leases.remove(0);
            }
        }
        // As etcd's client does: a lease is kept alive from its first moment.
        if let Some(lease) = granted {
            self.ask(c, 0, Ask::KeepAlive(lease));
        }
        if ok {
            self.figures.succeeded += 1;
        }
        if ok && pending.is_write {
            self.figures.acknowledged += u64::from(self.is_stormy());
        }
        if pending.is_probe {
            match (self.phase, ok) {
                (Phase::Write, true) if pending.is_write => self.phase = Phase::Read,
                (Phase::Read, true) if !pending.is_write => self.phase = Phase::Rest,
                _ => {}
            }
            return self.after(300_000, Whose::World, Event::Step(c));
        }
        let rest = self.clients[c].random.exponential(self.scenario.think_us);
        // Who was refused tries again a little later.
        let rest = if ok { rest } else { rest.max(50_000) };
        self.after(rest, Whose::World, Event::Step(c));
    }
}

/// What a history says of a request, if it is one that a history knows.
pub fn request_of(ask: &Ask) -> Option<history::Request> {
    use history::Request;
    Some(match ask {
        Ask::Propose(wish, _) => match wish.clone() {
            Wish::Put(put) => Request::Put(put),
            Wish::DeleteRange(delete) => Request::DeleteRange(delete),
            Wish::Txn(txn) => Request::Txn(txn),
            Wish::Compact(compaction) => Request::Compact(compaction),
            Wish::LeaseGrant(grant) => Request::LeaseGrant(grant),
            Wish::LeaseRevoke(revoke) => Request::LeaseRevoke(revoke),
            _ => return None,
        },
        Ask::Read(Wanted::Range(range)) => Request::Range(range.clone()),
        Ask::Read(Wanted::Txn(txn, _)) => Request::Txn(txn.clone()),
        _ => return None,
    })
}
