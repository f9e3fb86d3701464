//! The world: virtual time, a heap of events, and all that there is, in one thread.
//!
//! Time is counted in microseconds and jumps from event to event. Of events at the same time a number drawn from the
//! seed decides, and then the order in which they were made; so one seed is one story. Every event goes into the
//! trace hash, and the last of them are kept, to be told if a promise is broken.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use proto::etcdserverpb::RangeRequest;
use raft::{Message, NodeId};

use crate::checker::{Broken, Truth};
use crate::client::Client;
use crate::faults::Faults;
use crate::member::{Loss, Member, Transfer, Worker};
use crate::model;
use crate::network::Network;
use crate::operator::Operator;
use crate::random::{Digest, Random};
use crate::recorder::{Judgement, Recorder};
use crate::report::{Figures, Report, Verdict};
use crate::scenario::Scenario;
use crate::script::Script;
use crate::shard::{Ask, Call, Forward, Request, ShardEvent, Told, Wanted};
use crate::trace::{self, Tracer};

/// How many of the last events are told.
const LAST_EVENTS: usize = 120;
/// How often the simulator looks who leads, in microseconds.
const SAMPLE_US: u64 = 10_000;
/// How often it looks into a member more closely.
const LOOK_US: u64 = 250_000;
/// How long the healed cluster has to come to rest.
const REST_US: u64 = 60_000_000;

/// Something that happens at a time.
pub enum Event {
    /// A member's clock ticks.
    Tick,
    /// A member's shards look at their deadlines.
    ShardTick,
    /// The replica takes its turn.
    Turn,
    /// A worker runs its batch.
    Run(Worker),
    /// What a worker has done is passed on.
    Done(Worker),
    /// A shard takes its turn.
    ShardTurn(u8),
    /// A read thread does something for a shard.
    ReadThread(u8, Box<crate::shard::Errand>),
    /// A message of another member arrives.
    Arrive(Box<Message>),
    /// The transport says that a member cannot be reached.
    Unreachable(NodeId),
    /// A question about a lease, of another member.
    Forwarded(Forward),
    /// Its answer.
    ForwardAnswered(Forward, Option<replica::LeaseTime>),
    /// A client's request arrives.
    Ask(u8, Box<Request>),
    /// The power of this member goes, if it has not gone yet.
    PowerGoes,
    /// This member's process starts.
    Start,
    /// This member goes on.
    Resume,
    /// Its disk is as fast again as it was.
    DiskRecovers,
    /// What the log worker has written is synced: a step of its own only under a script.
    Sync,
    /// The next piece of a snapshot under way.
    Piece(u64),
    /// Something arrives at a client.
    Tell(usize, u64, Box<Told>),
    /// A client issues its next request.
    Step(usize),
    /// A client waits no longer.
    Patience(usize, u64),
    /// A client notices that its connection is gone.
    Broken(usize, u64),
    /// The next misfortune of a kind.
    Misfortune(usize),
    /// The operator has waited long enough for the answer to this.
    OperatorWaited(u64),
    /// This member is removed from the cluster, and ends for ever.
    Leaves,
    /// One of those is over.
    Heal(u64),
    /// Some links are clogged.
    Clog(u64),
    /// The simulator looks who leads.
    Sample,
    /// It looks into a member.
    Look,
}

impl Event {
    /// A number and two words about it, for trace and hash.
    fn stamp(&self) -> (&'static str, u64, u64) {
        match self {
            Event::Tick => ("tick", 0, 0),
            Event::ShardTick => ("shard tick", 0, 0),
            Event::Turn => ("turn", 0, 0),
            Event::Run(worker) => (worker.name(), 0, 0),
            Event::Done(worker) => ("done", *worker as u64, 0),
            Event::ShardTurn(shard) => ("shard turn", u64::from(*shard), 0),
            Event::ReadThread(shard, _) => ("read thread", u64::from(*shard), 0),
            Event::Arrive(message) => (kind_name(message), message.from, message.index.0),
            Event::Unreachable(id) => ("unreachable", *id, 0),
            Event::Forwarded(forward) => ("lease question", forward.lease as u64, 0),
            Event::ForwardAnswered(forward, _) => ("lease answer", forward.lease as u64, 0),
            Event::Ask(shard, request) => ("request", u64::from(*shard), request.call.op),
            Event::PowerGoes => ("power goes", 0, 0),
            Event::Start => ("start", 0, 0),
            Event::Resume => ("resume", 0, 0),
            Event::DiskRecovers => ("disk recovers", 0, 0),
            Event::Sync => ("sync log", 0, 0),
            Event::Piece(transfer) => ("snapshot piece", *transfer, 0),
            Event::Tell(client, conn, told) => (told.name(), *client as u64, *conn),
            Event::Step(client) => ("step", *client as u64, 0),
            Event::Patience(client, op) => ("patience", *client as u64, *op),
            Event::Broken(client, conn) => ("broken", *client as u64, *conn),
            Event::Misfortune(kind) => ("misfortune", *kind as u64, 0),
            Event::OperatorWaited(op) => ("operator waited", *op, 0),
            Event::Leaves => ("leaves", 0, 0),
            Event::Heal(id) => ("heal", *id, 0),
            Event::Clog(id) => ("clog", *id, 0),
            Event::Sample => ("sample", 0, 0),
            Event::Look => ("look", 0, 0),
        }
    }
}

/// The kind of a message, as a word.
pub fn kind_name(message: &Message) -> &'static str {
    use raft::MessageKind::*;
    match message.kind {
        App => "App",
        AppResp if message.reject => "AppResp no",
        AppResp => "AppResp",
        Vote => "Vote",
        VoteResp if message.reject => "VoteResp no",
        VoteResp => "VoteResp",
        PreVote => "PreVote",
        PreVoteResp => "PreVoteResp",
        Heartbeat => "Heartbeat",
        HeartbeatResp => "HeartbeatResp",
        Prop => "Prop",
        Snap => "Snap",
        ReadIndex => "ReadIndex",
        ReadIndexResp => "ReadIndexResp",
        TimeoutNow => "TimeoutNow",
        TransferLeader => "TransferLeader",
        _ => "message",
    }
}

/// Whose event it is: a member in one of its lives, a member whatever its life, or nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Of a member in this life: void when that is over, and kept while the process is paused.
    Life(usize, u64),
    /// Of a member.
    Member(usize),
    /// Of nobody.
    World,
}

struct Entry {
    time: u64,
    tie: u64,
    sequence: u64,
    whose: Whose,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        let key = |entry: &Entry| (entry.time, entry.tie, entry.sequence);
        key(self).cmp(&key(other))
    }
}

/// One of the last events.
#[derive(Clone, Copy)]
struct Note {
    time: u64,
    member: Option<usize>,
    what: &'static str,
    one: u64,
    two: u64,
}

/// How far a seed is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Faults and clients.
    Storm,
    /// Everything is healed; a fresh write must succeed.
    Write,
    /// And a linearizable read.
    Read,
    /// And everything must come to rest.
    Rest,
}

/// Everything there is.
pub struct World {
    /// What the seed is about.
    pub scenario: Scenario,
    /// Microseconds since the beginning.
    pub now: u64,
    /// The members.
    pub members: Vec<Member>,
    /// The clients.
    pub clients: Vec<Client>,
    /// The links between them all.
    pub network: Network,
    /// What must hold.
    pub truth: Truth,
    /// What goes wrong, and when.
    pub faults: Faults,
    /// Lets members join and leave.
    pub operator: Operator,
    /// Snapshots under way.
    pub transfers: BTreeMap<u64, Transfer>,
    /// What is counted.
    pub figures: Figures,
    /// How far the seed is.
    pub phase: Phase,
    /// Small delays within members.
    pub delays: Random,
    /// The hand of an experiment, if this world is one's.
    pub script: Option<Box<Script>>,
    /// Keeps what clients ask and are told, if somebody wants it.
    pub recorder: Option<Box<Recorder>>,
    /// Keeps all that happens, if somebody wants it.
    pub tracer: Option<Box<Tracer>>,
    queue: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
    ties: Random,
    digest: Digest,
    last: VecDeque<Note>,
    broken: Option<Broken>,
    looks: Random,
    healed_at: u64,
}

impl World {
    /// A new cluster, nothing of it started.
    pub fn new(scenario: Scenario) -> World {
        let root = scenario.root();
        let (members, clients) = (scenario.members, scenario.clients);
        let truth = Truth::new(
            members,
            scenario.lease_ttl_min(),
            scenario.config.tick_ms,
            (0..members).map(|m| scenario.tick_us(m)).collect(),
        );
        let mut world = World {
            now: 0,
            members: (0..members).map(|m| Member::new(&scenario, &root, m)).collect(),
            clients: (0..clients).map(|c| Client::new(&root, c)).collect(),
            network: Network::new(clients, scenario.latency_us, root.child("network", 0)),
            truth,
            faults: Faults::new(&scenario, &root),
            operator: Operator::new(&root, members),
            transfers: BTreeMap::new(),
            figures: Figures::default(),
            phase: Phase::Storm,
            delays: root.child("delays", 0),
            script: None,
            recorder: None,
            tracer: None,
            queue: BinaryHeap::new(),
            sequence: 0,
            ties: root.child("ties", 0),
            digest: Digest::default(),
            last: VecDeque::new(),
            broken: None,
            looks: root.child("looks", 0),
            healed_at: 0,
            scenario,
        };
        for member in 0..members {
            let delay = world.delays.below(50_000);
            world.after(delay, Whose::Member(member), Event::Start);
        }
        for client in 0..clients {
            for _ in 0..world.scenario.width {
                let delay = world.delays.below(300_000);
                world.after(delay, Whose::World, Event::Step(client));
            }
        }
        for kind in 0..world.scenario.faults.len() {
            let delay = world.faults.first_gap();
            world.after(delay, Whose::World, Event::Misfortune(kind));
        }
        world.after(SAMPLE_US, Whose::World, Event::Sample);
        world.after(LOOK_US, Whose::World, Event::Look);
        world
    }

    /// Runs the seed to its end, or to the first broken promise.
    pub fn run(&mut self) {
        while self.broken.is_none() {
            if !self.go_on() {
                self.violate("nothing happens any more".to_owned());
                break;
            }
            if self.phase == Phase::Rest && self.is_at_rest() {
                self.check_end();
                break;
            }
            if self.phase != Phase::Storm && self.now > self.healed_at + REST_US {
                let why = self.why_restless();
                self.violate(format!("a minute after everything was healed: {why}"));
                break;
            }
        }
        self.figures.expired = self.truth.expired;
    }

    /// Lets the next event happen; false if there is none.
    pub fn go_on(&mut self) -> bool {
        let Some(Reverse(entry)) = self.queue.pop() else { return false };
        self.now = entry.time;
        if self.phase == Phase::Storm && self.now >= self.scenario.length_us {
            self.calm();
        }
        self.happen(entry);
        true
    }

    /// When the next event happens.
    pub fn next_at(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse(entry)| entry.time)
    }

    /// The first promise that was broken.
    pub fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    fn happen(&mut self, entry: Entry) {
        let member = match entry.whose {
            Whose::Life(member, life) => {
                if self.members[member].life != life || !self.members[member].is_up() {
                    return;
                }
                if self.members[member].paused {
                    self.members[member].kept.push_back(entry.event);
                    return;
                }
                Some(member)
            }
            Whose::Member(member) => Some(member),
            Whose::World => None,
        };
        let (what, one, two) = entry.event.stamp();
        self.figures.events += 1;
        self.digest.word(self.now);
        self.digest.word(Digest::of(what.as_bytes()) ^ one.rotate_left(32) ^ two);
        if !matches!(entry.event, Event::Sample | Event::Look | Event::ShardTick) {
            self.note(member, what, one, two);
            self.trace(member, what, || entry.event.fields());
        }
        self.dispatch(member, entry.event);
        self.trace_changes();
    }

    fn dispatch(&mut self, member: Option<usize>, event: Event) {
        let m = member.unwrap_or(usize::MAX);
        match event {
            Event::Tick => self.tick(m),
            Event::ShardTick => self.shard_tick(m),
            Event::Turn => self.turn(m),
            Event::Run(worker) => self.run_worker(m, worker),
            Event::Done(worker) => self.worker_done(m, worker),
            Event::ShardTurn(shard) => self.shard_turn(m, usize::from(shard)),
            Event::ReadThread(shard, errand) => self.run_errand(m, usize::from(shard), *errand),
            Event::Arrive(message) => self.arrive(m, *message),
            Event::Unreachable(id) => self.input(m, replica::Input::Unreachable(id)),
            Event::Forwarded(forward) => self.forwarded(m, forward),
            Event::ForwardAnswered(forward, time) => self.forward_answered(m, forward, time),
            Event::Ask(shard, request) => {
                self.tell_shard(m, shard, crate::shard::ShardEvent::Request(*request));
            }
            Event::PowerGoes => self.power_goes(m),
            Event::Start => self.start(m),
            Event::Resume => self.resume(m),
            Event::DiskRecovers => self.members[m].mend_disk(),
            Event::Sync => self.sync_log(m),
            Event::Piece(transfer) => self.piece(transfer),
            Event::Tell(client, conn, told) => self.told(client, conn, *told),
            Event::Step(client) => self.step(client),
            Event::Patience(client, op) => self.lose_patience(client, op),
            Event::Broken(client, conn) => self.connection_broken(client, conn),
            Event::Misfortune(kind) => self.misfortune(kind),
            Event::OperatorWaited(op) => self.operator_waited(op),
            Event::Leaves => self.leave(m),
            Event::Heal(id) => self.heal(id),
            Event::Clog(id) => self.clog(id),
            Event::Sample => self.sample(),
            Event::Look => self.look(),
        }
    }

    /// Lets something happen so many microseconds from now.
    pub fn after(&mut self, delay: u64, whose: Whose, event: Event) {
        self.at(self.now + delay, whose, event);
    }

    /// Lets something happen at a time.
    pub fn at(&mut self, time: u64, whose: Whose, event: Event) {
        self.sequence += 1;
        let (tie, sequence) = (self.ties.next(), self.sequence);
        self.queue.push(Reverse(Entry { time, tie, sequence, whose, event }));
    }

    /// Something for the present life of a member.
    pub fn soon(&mut self, member: usize, delay: u64, event: Event) {
        let life = self.members[member].life;
        self.after(delay, Whose::Life(member, life), event);
    }

    /// A promise is broken. The first counts.
    pub fn violate(&mut self, what: Broken) {
        if !self.scenario.blind {
            self.broken.get_or_insert(what);
        }
    }

    /// Notes a broken promise, if there is one.
    pub fn expect(&mut self, kept: Result<(), Broken>) {
        if let Err(what) = kept {
            self.violate(what);
        }
    }

    /// Puts something that happened into the trace and its hash.
    pub fn remember(&mut self, member: Option<usize>, what: &'static str, one: u64, two: u64) {
        self.digest.word(Digest::of(what.as_bytes()) ^ one.rotate_left(32) ^ two);
        self.note(member, what, one, two);
        self.trace(member, what, || trace::fields_of(what, one, two));
    }

    fn note(&mut self, member: Option<usize>, what: &'static str, one: u64, two: u64) {
        if self.last.len() == LAST_EVENTS {
            self.last.pop_front();
        }
        self.last.push_back(Note { time: self.now, member, what, one, two });
    }

    /// The last events, a line each.
    pub fn last_events(&self) -> Vec<String> {
        self.last
            .iter()
            .map(|note| {
                let member =
                    note.member.map_or("      -".to_owned(), |m| format!("member {}", m + 1));
                let (seconds, micros) = (note.time / 1_000_000, note.time % 1_000_000);
                format!(
                    "{seconds:>4}.{micros:06}  {member}  {:<16} {} {}",
                    note.what, note.one, note.two
                )
            })
            .collect()
    }

    /// What the run of the seed showed.
    pub fn report(&self, panic: Option<String>) -> Report {
        let broken = panic.or_else(|| self.broken.clone());
        let verdict = match broken {
            Some(what) => Verdict::Broken { what, last: self.last_events() },
            None => self.figures.verdict(),
        };
        Report {
            seed: self.scenario.seed,
            members: self.scenario.members,
            verdict,
            hash: self.digest.0,
            figures: Figures { simulated_us: self.now, ..self.figures.clone() },
            judgement: Judgement::default(),
        }
    }

    /// A member that leads, and that a majority of members hears and is heard by, none of them paused.
    pub fn connected_leader(&self) -> Option<usize> {
        (0..self.members.len()).find(|&leader| {
            let able = |m: usize| self.members[m].is_up() && !self.members[m].paused;
            if !able(leader) || !self.members[leader].leads() {
                return false;
            }
            let with = |m| m == leader || able(m) && self.network.is_whole(leader, m);
            self.truth.roster().has_quorum(with)
        })
    }

    /// Ground truth about outages, sample by sample.
    fn sample(&mut self) {
        if self.phase == Phase::Storm {
            match self.connected_leader() {
                Some(_) => self.figures.available_us += SAMPLE_US,
                None => self.figures.outage_us += SAMPLE_US,
            }
            // An experiment asks for itself.
            if self.script.is_none() {
                self.ask_deposed();
            }
            if !self.scenario.faults.is_empty() {
                self.faults.count_slow(&self.members, &mut self.figures);
            }
        }
        self.after(SAMPLE_US, Whose::World, Event::Sample);
    }

    /// Whoever believes to lead and does not any more is asked for a read at once, and hears old answers. Clients and
    /// accidents seldom meet that moment, and it is the one in which a stale answer would be given. Others hear old messages
    /// once in a while.
    fn ask_deposed(&mut self) {
        let last = self.truth.last_term();
        for m in 0..self.members.len() {
            let believes = |view: &replica::View| view.leads() && view.term().0 < last;
            let is_deposed = self.members[m].view().is_some_and(believes);
            if self.members[m].is_up() && (is_deposed || self.delays.below(100) == 0) {
                self.replay(m);
            }
            if is_deposed && !self.members[m].paused {
                self.ask_for_a_read(m);
            }
        }
    }

    /// A linearizable read of no client's connection: the answer is checked, and goes nowhere.
    pub fn ask_for_a_read(&mut self, m: usize) {
        let (revision, mark, index) = self.truth.least_read();
        let call = Call { client: 0, conn: 0, op: 0, revision, mark, index };
        let range = RangeRequest { key: "a/probe".into(), ..RangeRequest::default() };
        let ask = Ask::Read(Wanted::Range(range));
        self.tell_shard(m, 0, ShardEvent::Request(Request { call, ask }));
    }

    /// A closer look into one member: its hash at a revision that others will be asked for too, and what it would
    /// find if the power went now.
    fn look(&mut self) {
        // An experiment looks for itself.
        if self.script.is_some() {
            return;
        }
        self.after(LOOK_US, Whose::World, Event::Look);
        let m = self.looks.below(self.members.len() as u64) as usize;
        if self.members[m].is_up() {
            self.compare_hash(m);
            self.compare_leases(m);
            self.compare_members(m);
        }
        if self.looks.below(8) == 0 {
            let seed = self.looks.next();
            let losses = [Loss::Everything, Loss::Log, Loss::AllButLog, Loss::Some(seed)];
            let loss = *self.looks.pick(&losses);
            self.look_at_start(m, loss);
        }
    }

    /// One that it computes now, and the one that it remembers of the last compaction, if it does.
    fn compare_hash(&mut self, m: usize) {
        let Some(view) = self.members[m].view() else { return };
        let view = view.state.clone();
        let mark = view.compact_revision().max(1);
        for revision in [view.revision() / 8 * 8, mark] {
            if revision >= mark
                && let Ok(state_machine::Reply::HashKv { hash, compact_revision, .. }) =
                    view.hash_kv(revision)
            {
                let remembered = revision == mark && compact_revision < mark;
                let id = m as u64 + 1;
                let kept = self.truth.on_hash(id, revision, (compact_revision, remembered), hash);
                self.remember(Some(m), "HashKV", revision as u64, u64::from(hash));
                self.expect(kept);
            }
        }
    }

    /// The keys that this member has on a lease.
    pub fn compare_lease_keys(&mut self, m: usize, lease: i64) {
        let Some(view) = self.members[m].view() else { return };
        let (revision, keys) = (view.state.revision(), view.state.lease_keys(lease));
        let keys = keys.unwrap_or_default();
        let kept = self.truth.check_lease_keys(m as u64 + 1, lease, revision, &keys);
        self.expect(kept);
    }

    /// The leases that this member has, if it has applied everything.
    pub fn compare_leases(&mut self, m: usize) {
        let Some(view) = self.members[m].view() else { return };
        let applied = view.applied().0;
        let ttl_min = self.scenario.lease_ttl_min();
        let here = view
            .state
            .leases()
            .iter()
            .map(|lease| {
                let keys = view.state.lease_keys(lease.id).unwrap_or_default();
                let keys = keys.into_iter().collect();
                (lease.id, model::Lease { ttl: lease.ttl.max(ttl_min), keys })
            })
            .collect();
        let kept = self.truth.on_leases(m as u64 + 1, applied, &here);
        self.expect(kept);
    }

    fn compare_members(&mut self, m: usize) {
        let Some(view) = self.members[m].view() else { return };
        let applied = view.applied().0;
        let kept = self.truth.check_members(m as u64 + 1, applied, &view.state.cluster());
        self.expect(kept);
    }

    /// Those who belong to the cluster, but for those whose disk has failed them.
    fn left(&self) -> Vec<usize> {
        let all = self.truth.roster().all().map(|node| node as usize - 1);
        all.filter(|m| !self.members[*m].is_gone()).collect()
    }

    /// The storm is over: everything is healed, and clients only watch.
    fn calm(&mut self) {
        self.healed_at = self.now;
        self.phase = Phase::Write;
        self.remember(None, "calm", 0, 0);
        self.network.heal();
        self.faults.end();
        for m in 0..self.members.len() {
            self.members[m].mend_disk();
            if self.members[m].is_up() && self.members[m].is_doomed() {
                self.power_goes(m);
            }
            if self.members[m].paused {
                self.resume(m);
            }
            if self.members[m].is_rotten() {
                // Whatever it said so far: its operator knows.
                self.retire(m);
            }
            if !self.members[m].is_up() && self.members[m].begun {
                self.after(1_000, Whose::Member(m), Event::Start);
            }
        }
        self.settle_members();
        for client in 0..self.clients.len() {
            self.reconnect(client);
        }
        self.after(500_000, Whose::World, Event::Step(0));
    }

    fn why_restless(&self) -> String {
        match self.phase {
            Phase::Write => "no fresh write succeeds".to_owned(),
            Phase::Read => "no linearizable read succeeds".to_owned(),
            Phase::Storm | Phase::Rest => {
                let standing: Vec<String> = self
                    .members
                    .iter()
                    .map(|member| match member.view() {
                        Some(view) => format!(
                            "{} applied, leader {}, {} leases",
                            view.applied(),
                            view.leader(),
                            view.state.leases().len()
                        ),
                        None => "down".to_owned(),
                    })
                    .collect();
                let shards: Vec<String> = self
                    .members
                    .iter()
                    .flat_map(|member| member.running.iter().flat_map(|running| &running.shards))
                    .map(|shard| shard.standing())
                    .collect();
                let lagging: Vec<String> =
                    self.clients.iter().flat_map(|c| c.behind(&self.truth.model)).collect();
                format!(
                    "{} entries and revision {} are committed, {} compacted, members are at [{}], watches behind: [{}], shards: [{}]",
                    self.truth.committed(),
                    self.truth.model.revision(),
                    self.truth.model.mark(),
                    standing.join("; "),
                    lagging.join("; "),
                    shards.join("; ")
                )
            }
        }
    }

    /// Everybody has applied everything, follows one leader, has no lease left, and has told its watchers.
    fn is_at_rest(&self) -> bool {
        let committed = self.truth.committed();
        let left = self.left();
        let mut left = left.iter().map(|m| &self.members[*m]).peekable();
        let first = left.peek().and_then(|member| member.view());
        let leader = first.map_or(0, |view| view.leader());
        leader != 0
            && self.truth.model.leases().is_empty()
            && left.all(|member| {
                member
                    .view()
                    .is_some_and(|view| view.applied().0 == committed && view.leader() == leader)
            })
            && self.clients.iter().all(|client| client.behind(&self.truth.model).is_empty())
    }

    /// All members hold the same, and the same as the model.
    fn check_end(&mut self) {
        let everything = (bytes::Bytes::from_static(b"\0"), bytes::Bytes::from_static(b"\0"));
        let revision = self.truth.model.revision();
        let want = self.truth.model.live(&everything.0, &everything.1, revision);
        let mut first = None;
        for m in self.left() {
            self.compare_members(m);
            let view = self.members[m].view().expect("everybody is up at the end").clone();
            let hash = format!("{:?}", view.state.hash_now());
            let tables = format!("{:?} {:?}", view.state.leases(), view.state.cluster());
            let here = (hash, tables);
            match &first {
                None => first = Some(here),
                Some(first) if *first != here => {
                    return self.violate(format!(
                        "at the end the first member and {} differ: {first:?} and {here:?}",
                        m + 1
                    ));
                }
                Some(_) => {}
            }
            let range = proto::etcdserverpb::RangeRequest {
                key: everything.0.clone(),
                range_end: everything.1.clone(),
                ..Default::default()
            };
            let got = match view.state.range(&range, state_machine::Effort::Disk) {
                Ok(state_machine::Answer::Ready(state_machine::Reply::Range(reply))) => reply,
                other => {
                    return self.violate(format!("member {} cannot be read: {other:?}", m + 1));
                }
            };
            let got: Vec<_> = got
                .key_values
                .into_iter()
                .map(<proto::mvccpb::KeyValue as prost::Message>::decode)
                .collect();
            let same = got.len() == want.len()
                && got.iter().zip(&want).all(|(got, want)| got.as_ref() == Ok(want));
            if !same {
                return self.violate(format!("at the end member {} holds {got:?}", m + 1));
            }
        }
    }
}
