//! The bench on which an experiment is done: a world of three members and a client, the steps that one may take, and
//! what was seen.
//!
//! Times are in microseconds. Those that an experiment sees are counted from [`Lab::begin`] on, when the cluster has
//! elected a leader and come to rest; what was before is not told.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::etcdserverpb::{PutRequest, RangeRequest};
use raft::{Index, MessageKind, RoleKind};
use replica::{Config, Identity, Lane, SegmentBytes, Trace};
use state_machine::{Reply, Request as Wish};

use crate::checker::CLUSTER;
use crate::lab::telling;
use crate::scenario::{Mutant, Scenario};
use crate::script::{Script, What};
use crate::shard::{Ask, Outcome, Told, Wanted};
use crate::world::World;

/// How many members an experiment has.
pub const MEMBERS: usize = 3;
/// How long anything that is waited for may take, in milliseconds of the world.
const PATIENCE_MS: u64 = 20_000;

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
    heartbeats: bool,
    next_op: u64,
    answers: BTreeMap<Op, (Seen, Outcome)>,
    connections: BTreeMap<usize, u64>,
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
            heartbeats: false,
            next_op: 0,
            answers: BTreeMap::new(),
            connections: BTreeMap::new(),
        }
    }

    /// What came of it.
    pub fn end(mut self, panic: Option<String>) -> Account {
        self.absorb();
        if let Some(what) = panic {
            self.claim(format!("no member stops where it must not: {what}"), false);
        }
        if let Some(what) = self.world.broken().cloned() {
            self.claim(format!("every promise is kept: {what}"), false);
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
        let until = self.world.now + ms * 1_000;
        while self.world.next_at().is_some_and(|at| at <= until) && self.world.go_on() {}
        self.world.now = until;
        self.absorb();
    }

    /// Lets time pass until this is seen. What is not seen in time is a claim that does not hold.
    pub fn until(&mut self, what: &str, seen: impl Fn(&Lab) -> bool) -> bool {
        let limit = self.world.now + PATIENCE_MS * 1_000;
        loop {
            self.absorb();
            if seen(self) {
                return true;
            }
            if self.world.next_at().is_none_or(|at| at > limit) || !self.world.go_on() {
                self.claim(format!("In time: {what}."), false);
                return false;
            }
        }
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
                    if self.heartbeats || !is_heartbeat(&trace) {
                        self.lines.push(Line { at_us, subject: Subject::Member(member, trace) });
                    }
                }
                What::Told(_, Told::Outcome { op, outcome }) => {
                    self.says(at_us, telling::outcome(&outcome));
                    self.answers.insert(Op(op), (seen, outcome));
                }
                What::Told(..) => {}
                What::Broken(connection) => {
                    let member = self.connections.iter().find(|(_, c)| **c == connection);
                    if let Some(member) = member.map(|(member, _)| *member) {
                        self.connections.remove(&member);
                        self.says(at_us, format!("connection to {} is gone", member + 1));
                    }
                }
            }
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

    fn ask(&mut self, member: usize, text: String, ask: Ask) -> Op {
        self.absorb();
        self.next_op += 1;
        let op = Op(self.next_op);
        let connection = match self.connections.get(&member) {
            Some(connection) => Some(*connection),
            None => self.world.connect(member),
        };
        let at_us = self.now();
        self.says(at_us, text);
        if let Some(connection) = connection {
            self.connections.insert(member, connection);
            self.world.ask_over(connection, op.0, ask);
        }
        op
    }

    fn says(&mut self, at_us: u64, text: String) {
        self.lines.push(Line { at_us, subject: Subject::Client(text) });
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

    /// The revision that an answer names.
    pub fn revision(&self, op: Op) -> Option<i64> {
        match self.answer(op) {
            Some((_, Outcome::Done(Some(reply)))) => Some(telling::revision(reply)),
            _ => None,
        }
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
}

/// Whether the first came, and came before the second; what never came is later than all.
pub fn before(first: Option<Seen>, second: Option<Seen>) -> bool {
    first.is_some_and(|first| second.is_none_or(|second| first < second))
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
    config.trace = true;
    // The memory that plays the disk need not be large.
    config.segment_bytes = SegmentBytes { wal: 256 << 10, store: 256 << 10 };
    config.pre_vote = mutant != Some(Mutant::NoPreVote);
    Scenario {
        seed,
        length_us: u64::MAX,
        members: MEMBERS,
        clients: 1,
        width: 0,
        think_us: 0,
        shards: 1,
        sectors: vec![512; MEMBERS],
        tick_us: vec![config.tick_ms * 1_000; MEMBERS],
        sync_us: vec![600; MEMBERS],
        latency_us: (150, 60),
        faults: Vec::new(),
        fault_gap_us: u64::MAX,
        keys: 1,
        mutant,
        config,
    }
}
