//! The bench on which an experiment is done: a world of three members and a client, the steps that one may take, and
//! what was seen.
//!
//! Times are in microseconds. Those that an experiment sees are counted from [`Lab::begin`] on, when the cluster has
//! elected a leader and come to rest; what was before is not told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use proto::etcdserverpb::{CompactionRequest, PutRequest, RangeRequest, WatchCreateRequest};
use proto::mvccpb::KeyValue;
use raft::{Index, MessageKind, RoleKind};
use replica::{Config, Identity, Lane, SegmentBytes, Trace};
use state_machine::{Reply, Request as Wish};

use crate::checker::CLUSTER;
use crate::lab::telling;
use crate::plan::Numbers;
use crate::scenario::{Mutant, Scenario, Workload};
use crate::script::{Script, What};
use crate::shard::{Ask, Outcome, Told, Wanted};
use crate::world::World;

/// How many members an experiment has.
pub const MEMBERS: usize = 3;
/// How long anything that is waited for may take, in milliseconds of the world.
const PATIENCE_MS: u64 = 10_000;
/// And so many events, for a cluster with a defect may talk without end.
const EVENTS_MAX: usize = 20_000;

/// What an experiment begins with.
pub struct Start {
    pub name: &'static str,
    pub question: &'static str,
    pub seed: u64,
    pub mutant: Option<Mutant>,
}

/// What a line is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A member tells a stage of its work; members are counted from 0.
    Member(usize, Trace),
    /// What the client does or hears.
    Client(String),
    /// What the experiment does.
    Step(String),
}

/// One event of the story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Microseconds since the beginning.
    pub at_us: u64,
    /// What happened.
    pub subject: Subject,
}

/// Something that was to be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// In a sentence.
    pub text: String,
    /// Whether it was seen.
    pub holds: bool,
}

/// What came of an experiment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The experiment's name.
    pub name: &'static str,
    /// What it answers.
    pub question: &'static str,
    /// Its seed.
    pub seed: u64,
    /// What each member was at the beginning.
    pub roles: Vec<&'static str>,
    /// The story.
    pub lines: Vec<Line>,
    /// What was to be seen.
    pub claims: Vec<Claim>,
}

impl Account {
    /// Whether everything was seen that was to be seen.
    pub fn holds(&self) -> bool {
        !self.claims.is_empty() && self.claims.iter().all(|claim| claim.holds)
    }
}

/// When something was seen: the time, and what counts if two share one, the place in the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    at_us: u64,
    order: usize,
}

impl PartialOrd for Seen {
    fn partial_cmp(&self, other: &Seen) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Seen {
    fn cmp(&self, other: &Seen) -> std::cmp::Ordering {
        self.order.cmp(&other.order)
    }
}

/// A request of the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Op(pub u64);

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is on its way.
    Waiting,
    /// It was answered.
    Answered,
    /// Nobody listened.
    NotSent,
    /// Its connection broke: it may have been done, or not.
    Lost,
}

/// What a watch is told.
#[derive(Debug)]
pub enum News {
    /// It stands.
    Created { from: i64 },
    /// Something changed.
    Events(Vec<KeyValue>),
    /// It ends: what it needs was compacted.
    Canceled { mark: i64 },
}

/// The bench.
pub struct Lab {
    start: Start,
    world: World,
    began_us: u64,
    began: bool,
    roles: Vec<&'static str>,
    lines: Vec<Line>,
    claims: Vec<Claim>,
    stages: Vec<(Seen, usize, Trace)>,
    order: usize,
    /// Which stages are told.
    shown: fn(&Trace) -> bool,
    quiet: bool,
    client_is_quiet: bool,
    next_op: u64,
    answers: BTreeMap<Op, (Seen, Outcome)>,
    /// The connections of what waits for its answer.
    pending: BTreeMap<Op, u64>,
    lost: BTreeSet<Op>,
    connections: BTreeMap<usize, u64>,
    connections_opened: usize,
    news: BTreeMap<u32, Vec<News>>,
}

impl Lab {
    pub fn new(start: Start, arrange: fn(&mut Scenario)) -> Lab {
        let mut scenario = scenario(start.seed, start.mutant);
        arrange(&mut scenario);
        let mut world = World::new(scenario);
        world.script = Some(Box::new(Script::default()));
        Lab {
            start,
            world,
            began_us: 0,
            began: false,
            roles: Vec::new(),
            lines: Vec::new(),
            claims: Vec::new(),
            stages: Vec::new(),
            order: 0,
            shown: |_| true,
            quiet: false,
            client_is_quiet: false,
            next_op: 0,
            answers: BTreeMap::new(),
            pending: BTreeMap::new(),
            lost: BTreeSet::new(),
            connections: BTreeMap::new(),
            connections_opened: 0,
            news: BTreeMap::new(),
        }
    }

    /// What came of it.
    pub fn end(mut self, panic: Option<String>) -> Account {
        self.absorb();
        if let Some(what) = panic {
            self.claim(format!("No member stops where it must not: {what}."), false);
        }
        if let Some(what) = self.world.broken().cloned() {
            self.claim(format!("Every promise is kept: {what}."), false);
        }
        let Start { name, question, seed, .. } = self.start;
        Account { name, question, seed, roles: self.roles, lines: self.lines, claims: self.claims }
    }

    // --- Time. ---

    /// Waits until a leader is known to all, and until all have applied and stored what there is. Who leads.
    pub fn settle(&mut self) -> usize {
        self.until("the cluster has a leader", |lab| {
            let standing =
                |m: usize| lab.world.members[m].view().map(|v| (v.leader(), v.applied()));
            let first = standing(0);
            first.is_some_and(|(leader, applied)| leader != 0 && applied > Index(MEMBERS as u64))
                && (1..MEMBERS).all(|m| standing(m) == first)
        });
        self.run_ms(2_500);
        self.leader().unwrap_or(0)
    }

    /// From here on it is told, and time counts.
    pub fn begin(&mut self) {
        self.absorb();
        self.began = true;
        self.began_us = self.world.now;
        self.roles = (0..MEMBERS).map(|m| self.role(m)).collect();
        self.stages.clear();
        self.lines.clear();
    }

    /// Lets so much time pass.
    pub fn run_ms(&mut self, ms: u64) {
        self.run_us(ms * 1_000);
    }

    fn run_us(&mut self, us: u64) {
        let until = self.world.now + us;
        while self.world.next_at().is_some_and(|at| at <= until) && self.world.go_on() {}
        self.world.now = until;
        self.absorb();
    }

    /// Lets time pass until this is seen. What is not seen in time is a claim that does not hold.
    pub fn until(&mut self, what: &str, seen: impl Fn(&Lab) -> bool) -> bool {
        // What has gone wrong once is not waited for again and again.
        let well = self.claims.iter().all(|claim| claim.holds);
        let patience_ms = if well { PATIENCE_MS } else { PATIENCE_MS / 5 };
        let limit = self.world.now + patience_ms * 1_000;
        let mut looked_at = None;
        for _ in 0..EVENTS_MAX {
            self.absorb();
            // Where nobody tells anything nothing has changed.
            if looked_at != Some(self.order) && seen(self) {
                return true;
            }
            looked_at = Some(self.order);
            if self.world.next_at().is_none_or(|at| at > limit) || !self.world.go_on() {
                break;
            }
        }
        self.claim(format!("In time: {what}."), false);
        false
    }

    /// Takes in what has happened.
    fn absorb(&mut self) {
        let happened = self.world.script.as_mut().map(|script| script.take()).unwrap_or_default();
        for happening in happened {
            let at_us = happening.at_us.saturating_sub(self.began_us);
            self.order += 1;
            let seen = Seen { at_us, order: self.order };
            match happening.what {
                What::Stage(member, trace) => {
                    self.stages.push((seen, member, trace));
                    if !self.quiet && !is_heartbeat(&trace) && (self.shown)(&trace) {
                        self.lines.push(Line { at_us, subject: Subject::Member(member, trace) });
                    }
                }
                What::Told(told) => self.hear(seen, told),
                What::Broken(connection) => {
                    let member = self.connections.iter().find(|(_, c)| **c == connection);
                    if let Some(member) = member.map(|(member, _)| *member) {
                        self.connections.remove(&member);
                        self.says(at_us, format!("connection to {} is gone", member + 1));
                    }
                    let dead = self.pending.extract_if(.., |_, over| *over == connection);
                    self.lost.extend(dead.map(|(op, _)| op));
                }
            }
        }
    }

    /// Something has come to the client.
    fn hear(&mut self, seen: Seen, told: Told) {
        let at_us = seen.at_us;
        match told {
            Told::Outcome { op, outcome } => {
                self.says(at_us, telling::outcome(&outcome));
                self.pending.remove(&Op(op));
                self.answers.insert(Op(op), (seen, outcome));
            }
            Told::Created { id, from } => {
                self.says(at_us, format!("← watch {id}, from revision {from}"));
                self.news.entry(id).or_default().push(News::Created { from });
            }
            Told::Events { id, events } => {
                let events: Vec<KeyValue> = events
                    .into_iter()
                    .filter_map(|event| KeyValue::decode(event.kv).ok())
                    .collect();
                for kv in &events {
                    let (key, value) = (telling::text(&kv.key), telling::text(&kv.value));
                    self.says(at_us, format!("← watch {id}: {key}={value} @{}", kv.mod_revision));
                }
                self.news.entry(id).or_default().push(News::Events(events));
            }
            Told::Canceled { id, mark } => {
                self.says(at_us, format!("← watch {id} ends: compacted at {mark}"));
                self.news.entry(id).or_default().push(News::Canceled { mark });
            }
            // It comes when the simulator likes, and says nothing here; and experiments watch what can be watched.
            Told::Progress { .. } | Told::Rejected { .. } => {}
        }
    }

    // --- Steps. ---

    /// Says what is done now.
    pub fn step(&mut self, text: impl Into<String>) {
        self.absorb();
        let at_us = self.now();
        self.lines.push(Line { at_us, subject: Subject::Step(text.into()) });
    }

    /// What can be done to the world itself.
    pub fn world(&mut self) -> &mut World {
        &mut self.world
    }

    /// The member's process starts again.
    pub fn start(&mut self, member: usize) {
        self.world.start(member);
    }

    /// From here on only these stages are told.
    pub fn show(&mut self, shown: fn(&Trace) -> bool) {
        self.absorb();
        self.shown = shown;
    }

    /// What happens in there is seen and not told.
    pub fn quietly(&mut self, act: impl FnOnce(&mut Lab)) {
        self.absorb();
        self.quiet = true;
        act(self);
        self.absorb();
        self.quiet = false;
    }

    /// The client puts so many values of so many bytes, one after the other, and it is not told.
    pub fn put_many(&mut self, member: usize, count: u64, bytes: usize) {
        self.absorb();
        self.client_is_quiet = true;
        for number in 0..count {
            let value = "x".repeat(bytes);
            let put = self.put(member, &format!("k{number:02}"), &value);
            self.until("the put is done", |lab| lab.done_at(put).is_some());
        }
        self.absorb();
        self.client_is_quiet = false;
    }

    /// Whoever is dead is started again, all links are whole, and the cluster comes to rest.
    pub fn heal(&mut self, dead: usize) {
        self.step(format!("member {} is started again, and the cluster comes to rest", dead + 1));
        self.quietly(|lab| {
            lab.world.network.heal();
            lab.start(dead);
            lab.until("all have caught up", |lab| {
                let leader = lab.leader();
                leader.is_some_and(|leader| {
                    (0..MEMBERS).all(|m| lab.applied(m) == lab.applied(leader))
                        && lab.follows(dead, leader)
                })
            });
            lab.run_ms(1_500);
        });
    }

    /// The client puts a value through a member.
    pub fn put(&mut self, member: usize, key: &str, value: &str) -> Op {
        let put = PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            ..PutRequest::default()
        };
        let ask = Ask::Propose(Wish::Put(put), Lane::Ordinary);
        self.ask(member, format!("put {key} {value} → {}", member + 1), ask)
    }

    /// The client reads a key through a member, linearizably or what that member has.
    pub fn get(&mut self, member: usize, key: &str, serializable: bool) -> Op {
        let key_bytes = Bytes::copy_from_slice(key.as_bytes());
        let range = RangeRequest { key: key_bytes, serializable, ..RangeRequest::default() };
        let how = if serializable { "get -s" } else { "get" };
        self.ask(member, format!("{how} {key} → {}", member + 1), Ask::Read(Wanted::Range(range)))
    }

    /// The client reads a key as it was at a revision.
    pub fn get_at(&mut self, member: usize, key: &str, revision: i64) -> Op {
        let key_bytes = Bytes::copy_from_slice(key.as_bytes());
        let range = RangeRequest { key: key_bytes, revision, ..RangeRequest::default() };
        let text = format!("get --rev={revision} {key} → {}", member + 1);
        self.ask(member, text, Ask::Read(Wanted::Range(range)))
    }

    /// The client compacts.
    pub fn compact(&mut self, member: usize, revision: i64) -> Op {
        let compaction = CompactionRequest { revision, ..CompactionRequest::default() };
        let ask = Ask::Propose(Wish::Compact(compaction), Lane::Ordinary);
        self.ask(member, format!("compaction {revision} → {}", member + 1), ask)
    }

    /// The client watches a range from a revision on; 0 is from now on.
    pub fn watch(&mut self, member: usize, id: u32, (key, end): (&str, &str), from: i64) {
        let since = if from == 0 { String::new() } else { format!(" --rev={from}") };
        let text = format!("watch {id}:{since} {key} → {}", member + 1);
        let (key, range_end) = (key.to_owned().into(), end.to_owned().into());
        let asked = WatchCreateRequest {
            key,
            range_end,
            start_revision: from,
            prev_kv: true,
            progress_notify: true,
            ..WatchCreateRequest::default()
        };
        self.ask(member, text, Ask::Watch { id, asked });
    }

    fn ask(&mut self, member: usize, text: String, ask: Ask) -> Op {
        self.absorb();
        self.next_op += 1;
        let op = Op(self.next_op);
        let connection = match self.connections.get(&member) {
            Some(connection) => Some(*connection),
            None => {
                let opened = self.world.connect(member);
                self.connections_opened += usize::from(opened.is_some());
                opened
            }
        };
        let at_us = self.now();
        self.says(at_us, text);
        match connection {
            Some(connection) => {
                let answered = !matches!(ask, Ask::Watch { .. });
                self.connections.insert(member, connection);
                self.world.ask_over(connection, op.0, ask);
                if answered {
                    self.pending.insert(op, connection);
                }
            }
            None => self.says(at_us, format!("nobody listens at {}", member + 1)),
        }
        op
    }

    fn says(&mut self, at_us: u64, text: String) {
        if !self.quiet && !self.client_is_quiet {
            self.lines.push(Line { at_us, subject: Subject::Client(text) });
        }
    }

    // --- What is seen. ---

    /// Microseconds since the beginning.
    pub fn now(&self) -> u64 {
        self.world.now - self.began_us
    }

    /// Notes something that was to be seen, and whether it was.
    pub fn claim(&mut self, text: impl Into<String>, holds: bool) {
        self.claims.push(Claim { text: text.into(), holds });
    }

    /// Who leads, in its own eyes; of two that think so the one of the later term.
    pub fn leader(&self) -> Option<usize> {
        let leads = |m: &usize| self.world.members[*m].leads();
        let term = |m: &usize| self.world.members[*m].view().map(|view| view.term());
        (0..MEMBERS).filter(leads).max_by_key(term)
    }

    /// The two others, in their order.
    pub fn others(&self, member: usize) -> [usize; 2] {
        let mut others = [(member + 1) % MEMBERS, (member + 2) % MEMBERS];
        others.sort_unstable();
        others
    }

    fn role(&self, member: usize) -> &'static str {
        match self.world.members[member].view() {
            None => "down",
            Some(view) if view.leads() => "leader",
            Some(_) => "follower",
        }
    }

    /// How many letters wait at a member's door.
    pub fn held(&self, member: usize) -> usize {
        self.world.held(member)
    }

    /// The term that a member is in; 0 if it is down.
    pub fn term(&self, member: usize) -> u64 {
        self.world.members[member].view().map_or(0, |view| view.term().0)
    }

    /// Up to where a member has applied; 0 if it is down.
    pub fn applied(&self, member: usize) -> Index {
        self.world.members[member].view().map_or(Index(0), |view| view.applied())
    }

    /// Whether a member follows that one.
    pub fn follows(&self, member: usize, leader: usize) -> bool {
        let view = self.world.members[member].view();
        view.is_some_and(|view| view.leader() == leader as u64 + 1)
    }

    /// A member's HashKV at its newest revision.
    pub fn hash(&self, member: usize) -> Option<u32> {
        match self.world.members[member].view()?.state.hash_kv(0) {
            Ok(Reply::HashKv { hash, .. }) => Some(hash),
            _ => None,
        }
    }

    /// The newest revision that a member shows.
    pub fn keyspace_revision(&self, member: usize) -> i64 {
        self.world.members[member].view().map_or(0, |view| view.state.revision())
    }

    /// Whether this defect is put in.
    pub fn has(&self, mutant: Mutant) -> bool {
        self.start.mutant == Some(mutant)
    }

    /// The client's clock.
    pub fn clock(&self) -> Duration {
        Duration::from_micros(self.world.now)
    }

    /// Lets so much time pass.
    pub fn run(&mut self, time: Duration) {
        self.run_us(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// The moment of what was seen last.
    pub fn latest(&self) -> Option<Seen> {
        Some(Seen { at_us: self.now(), order: self.order })
    }

    /// When a member first told such a stage after a moment.
    pub fn at_after(
        &self,
        member: usize,
        after: Option<Seen>,
        stage: impl Fn(&Trace) -> bool,
    ) -> Option<Seen> {
        let mut stages = self.stages(member).filter(|(seen, _)| Some(*seen) > after);
        stages.find(|(_, trace)| stage(trace)).map(|(seen, _)| seen)
    }

    /// The last time that a member told such a stage.
    pub fn last(&self, member: usize, stage: impl Fn(&Trace) -> bool) -> Option<(Seen, Trace)> {
        let told = self.stages(member).filter(|(_, trace)| stage(trace));
        told.last().map(|(seen, trace)| (seen, *trace))
    }

    /// How often a member told such a stage.
    pub fn count(&self, member: usize, stage: impl Fn(&Trace) -> bool) -> usize {
        self.stages(member).filter(|(_, trace)| stage(trace)).count()
    }

    /// The first entry that a member appended since the beginning; 0 if there is none yet.
    pub fn first_appended(&self, member: usize) -> Index {
        self.newest_appended(member, None).unwrap_or_default()
    }

    /// The first entry that a member appended after a moment.
    pub fn newest_appended(&self, member: usize, after: Option<Seen>) -> Option<Index> {
        self.stages(member).filter(|(seen, _)| Some(*seen) > after).find_map(|(_, trace)| {
            match trace {
                Trace::Appended { first, .. } => Some(*first),
                _ => None,
            }
        })
    }

    /// The entry that a member appended first after a moment, once it is durable there.
    pub fn newest_synced(&self, member: usize, after: Option<Seen>) -> Option<Index> {
        let entry = self.newest_appended(member, after)?;
        self.at_after(
            member,
            after,
            |trace| matches!(trace, Trace::Synced { last } if *last >= entry),
        )
        .map(|_| entry)
    }

    /// What became of a request so far.
    pub fn fate(&self, op: Op) -> Fate {
        if self.answers.contains_key(&op) {
            Fate::Answered
        } else if self.lost.contains(&op) {
            Fate::Lost
        } else if self.pending.contains_key(&op) {
            Fate::Waiting
        } else {
            Fate::NotSent
        }
    }

    /// Whether the client has no connection to a member.
    pub fn broken(&self, member: usize) -> bool {
        !self.connections.contains_key(&member)
    }

    /// How many connections the client has opened.
    pub fn connections_opened(&self) -> usize {
        self.connections_opened
    }

    /// What a watch was told since this was last asked.
    pub fn news(&mut self, id: u32) -> Vec<News> {
        self.absorb();
        self.news.remove(&id).unwrap_or_default()
    }

    /// When a member first told such a stage.
    pub fn at(&self, member: usize, stage: impl Fn(&Trace) -> bool) -> Option<Seen> {
        self.stages.iter().find(|(_, m, trace)| *m == member && stage(trace)).map(|(at, ..)| *at)
    }

    /// All that a member has told since the beginning, and when.
    pub fn stages(&self, member: usize) -> impl Iterator<Item = (Seen, &Trace)> {
        self.stages.iter().filter(move |(_, m, _)| *m == member).map(|(at, _, trace)| (*at, trace))
    }

    /// How many members told such a stage up to a time.
    pub fn members_by(&self, time: Option<Seen>, stage: impl Fn(&Trace) -> bool) -> usize {
        let Some(time) = time else { return 0 };
        (0..MEMBERS).filter(|m| self.at(*m, &stage).is_some_and(|at| at <= time)).count()
    }

    /// What came back, and when.
    pub fn answer(&self, op: Op) -> Option<&(Seen, Outcome)> {
        self.answers.get(&op)
    }

    /// When it was said that this was done.
    pub fn done_at(&self, op: Op) -> Option<Seen> {
        self.answer(op).filter(|(_, outcome)| outcome.is_done()).map(|(at, _)| *at)
    }

    /// The values that a range found.
    pub fn found(&self, op: Op) -> Option<Vec<(String, String)>> {
        match self.answer(op) {
            Some((_, Outcome::Done(Some(reply)))) => match &**reply {
                Reply::Range(range) => Some(telling::key_values(range)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The version of the one key that a range found.
    pub fn version(&self, op: Op) -> Option<i64> {
        match self.answer(op) {
            Some((_, Outcome::Done(Some(reply)))) => match &**reply {
                Reply::Range(range) => {
                    let first = range.key_values.first()?;
                    KeyValue::decode(first.clone()).ok().map(|kv| kv.version)
                }
                _ => None,
            },
            _ => None,
        }
    }
}

/// Whether the first came, and came before the second; what never came is later than all.
pub fn before(first: Option<Seen>, second: Option<Seen>) -> bool {
    first.is_some_and(|first| second.is_none_or(|second| first < second))
}

/// The time from the one to the other, as a claim names it.
pub fn took(first: Option<Seen>, last: Option<Seen>) -> Option<String> {
    let (first, last) = first.zip(last).filter(|(first, last)| first < last)?;
    Some(telling::time(last.at_us - first.at_us))
}

/// A time as a claim names it.
pub fn when(seen: Option<Seen>) -> String {
    match seen {
        Some(seen) => telling::time(seen.at_us),
        None => "never".to_owned(),
    }
}

fn is_heartbeat(trace: &Trace) -> bool {
    let kind = match trace {
        Trace::Sent { message, .. } | Trace::Received { message, .. } => message.kind,
        _ => return false,
    };
    matches!(kind, MessageKind::Heartbeat | MessageKind::HeartbeatResp)
}

/// The role as a word.
pub fn role_name(role: RoleKind) -> &'static str {
    match role {
        RoleKind::Follower => "follower",
        RoleKind::PreCandidate => "pre-candidate",
        RoleKind::Candidate => "candidate",
        RoleKind::Leader => "leader",
    }
}

/// Three members with a member's own settings, a quiet network, an ordinary disk, and one client.
fn scenario(seed: u64, mutant: Option<Mutant>) -> Scenario {
    let mut config = Config::new(Identity { node_id: 1, cluster_id: CLUSTER }, "/data");
    config.trace = replica::Tracing::All;
    // The memory that plays the disk need not be large.
    config.segment_bytes = SegmentBytes { wal: 256 << 10, store: 256 << 10 };
    config.pre_vote = mutant != Some(Mutant::NoPreVote);
    Scenario {
        seed,
        roll: 0,
        length_us: u64::MAX,
        members: MEMBERS,
        clients: 1,
        width: 0,
        think_us: 0,
        shards: 1,
        sectors: vec![512; MEMBERS],
        clocks: vec![1_000; MEMBERS],
        sync_us: vec![600; MEMBERS],
        latency_us: (150, 60),
        faults: Vec::new(),
        fault_gap_us: u64::MAX,
        keys: 1,
        workload: Workload::Everything,
        mutant,
        blind: false,
        skip_faults: Numbers::default(),
        skip_operations: Numbers::default(),
        config,
    }
}
