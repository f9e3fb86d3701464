//! The clients: what they ask, what they believe, and what they check of what they are told.
//!
//! A client has one connection at a time to one shard of one member, and a few requests under way on it. Whatever it
//! does not hear of in time, or when the connection breaks, has an unknown outcome. Its watches it resumes elsewhere
//! from where they broke off, and holds each of them against the model: nothing missing, nothing twice, nothing out of
//! order.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use proto::etcdserverpb::{
    LeaseRevokeRequest, PutRequest, RangeRequest, WatchCreateRequest, WatchResponse,
};
use proto::mvccpb::event::EventType;
use proto::mvccpb::{Event as WatchedEvent, KeyValue};
use replica::Lane;
use state_machine::Request as Wish;

use crate::arguments::{self, End, Reduced};
use crate::door;
use crate::history;
use crate::history::watch::{Step, Watcher};
use crate::model::{self, Model};
use crate::network::{Fate, MEMBERS_EVER};
use crate::random::Random;
use crate::requests::{Draw, LEASES_MAX};
use crate::scenario::Workload;
use crate::shard::{Ask, Call, Outcome, Request, Told, Wanted, WatchEvent};
use crate::world::{Event, Phase, Whose, World};

/// The most watches that a client has.
const WATCHES_MAX: usize = 4;
/// Leases that live longer, in seconds, are ended when the storm is over; nobody waits for them.
const LONG_TTL: i64 = 20;

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
    values: Reduced,
}

/// A client.
pub struct Client {
    index: usize,
    /// Nothing is drawn from it: below it each request has a stream of its own.
    root: Random,
    random: Random,
    connection: Option<Connection>,
    connections: u64,
    next_op: u64,
    pending: BTreeMap<u64, Pending>,
    watches: BTreeMap<u32, Watcher>,
    next_watch: u32,
    /// Watches that nobody has answered yet.
    unborn: BTreeMap<u32, Reduced>,
    leases: Vec<i64>,
}

impl Client {
    /// A client that has done nothing yet.
    pub fn new(root: &Random, index: usize) -> Client {
        Client {
            index,
            root: root.child("client", index as u64),
            random: root.child("client", index as u64),
            connection: None,
            connections: 0,
            next_op: 0,
            pending: BTreeMap::new(),
            watches: BTreeMap::new(),
            next_watch: 0,
            unborn: BTreeMap::new(),
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
}

impl World {
    /// A client issues its next request.
    pub fn step(&mut self, c: usize) {
        if !self.is_stormy() && c != 0 {
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
        // A stream of its own: one that is left out shifts none behind it.
        client.random = client.root.child("request", op);
        self.figures.steps += u64::from(phase == Phase::Storm);
        if phase == Phase::Storm && self.scenario.skip_operations.contains(self.figures.steps) {
            let rest = client.random.exponential(self.scenario.think_us);
            return self.after(rest, Whose::World, Event::Step(c));
        }
        if phase == Phase::Storm && client.random.below(30) == 0 {
            self.change_watches(c);
        }
        let model = &self.truth.model;
        let client = &mut self.clients[c];
        let (random, leases) = (&mut client.random, &mut client.leases);
        let mut draw = Draw { random, model, keys, name: (c, op), leases };
        let (ask, is_write) = match phase {
            Phase::Storm => match workload {
                Workload::Everything => draw.wish(members),
                Workload::Groups => draw.group_wish(now),
            },
            Phase::Write => {
                let put = PutRequest {
                    key: Bytes::from_static(b"a/probe"),
                    value: draw.value(),
                    ..PutRequest::default()
                };
                (Ask::Propose(Wish::Put(put), Lane::Ordinary), true)
            }
            Phase::Read => {
                let range =
                    RangeRequest { key: Bytes::from_static(b"a/probe"), ..Default::default() };
                (Ask::Read(Wanted::Range(range)), false)
            }
            Phase::Rest => {
                let long = model.leases().iter().find(|(_, lease)| lease.ttl > LONG_TTL);
                let Some((id, _)) = long else {
                    return self.after(300_000, Whose::World, Event::Step(c));
                };
                let revoke = LeaseRevokeRequest { id: *id };
                (Ask::Propose(Wish::LeaseRevoke(revoke), Lane::Priority), true)
            }
        };
        let is_probe = phase != Phase::Storm;
        let mut values = Reduced::new();
        if !is_probe {
            values = arguments::reduce(&ask, model);
            self.figures.arguments.ask(&values);
        }
        client.pending.insert(op, Pending { is_write, is_probe, granted: None, values });
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
        let unborn = std::mem::take(&mut client.unborn);
        for values in lost.values().map(|pending| &pending.values).chain(unborn.values()) {
            self.figures.arguments.end(values, End::Unknown);
        }
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
        self.ask(c, 0, Ask::Watch { id, asked });
    }

    fn change_watches(&mut self, c: usize) {
        let client = &mut self.clients[c];
        if client.watches.len() >= WATCHES_MAX || client.random.below(4) == 0 {
            if let Some((id, _)) = client.watches.pop_first() {
                self.ask(c, 0, Ask::Unwatch(id));
            }
            return;
        }
        if client.random.below(4) == 0 {
            self.ask(c, 0, Ask::Progress);
        }
        let (model, keys) = (&self.truth.model, self.scenario.keys);
        let client = &mut self.clients[c];
        let (random, leases) = (&mut client.random, &mut client.leases);
        let asked = Draw { random, model, keys, name: (c, client.next_op), leases }.watch();
        client.next_watch += 1;
        let id = client.next_watch;
        let ask = Ask::Watch { id, asked: asked.clone() };
        let values = arguments::reduce(&ask, model);
        self.figures.arguments.ask(&values);
        client.unborn.insert(id, values);
        client.watches.insert(id, Watcher::new(asked.clone()));
        self.figures.watches += 1;
        self.ask_watch(c, id, asked);
    }

    /// A client waits no longer: the outcome is unknown, and perhaps another member is better.
    pub fn lose_patience(&mut self, c: usize, op: u64) {
        let Some(pending) = self.clients[c].pending.remove(&op) else { return };
        self.figures.arguments.end(&pending.values, End::Unknown);
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
                self.on_answered_watch(c, id, true);
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
            Told::Rejected { id } => {
                self.on_answered_watch(c, id, false);
                let rejected =
                    WatchResponse { created: true, canceled: true, ..WatchResponse::default() };
                self.on_watch(c, id, rejected);
                self.clients[c].watches.remove(&id);
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

    /// A watch stands, or was refused: whether it can be is for the model to say.
    fn on_answered_watch(&mut self, c: usize, id: u32, stands: bool) {
        let client = &mut self.clients[c];
        let can_be =
            client.watches.get(&id).is_none_or(|watch| door::is_watchable(watch.asked()) == stands);
        if let Some(values) = client.unborn.remove(&id) {
            self.figures.arguments.end(&values, if stands { End::Done } else { End::Refused });
        }
        if !can_be {
            let what = if stands { "stands, and cannot be" } else { "is refused, and can be" };
            self.violate(format!("watch {id} of client {c} {what}"));
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
        self.figures.arguments.end(&pending.values, outcome.end());
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
