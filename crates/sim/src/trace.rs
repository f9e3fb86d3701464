//! A trace: all that happens in a run, each with its time, whose it is, and what there is to say of it; and the same as a
//! picture.
//!
//! It is taken by looking: events are noted as they happen, and after each the members and links are compared with what
//! they were, so that no misfortune has to tell of itself. Nothing that happens depends on whether somebody looks, and the
//! trace hash is the same.

use raft::Message;

use crate::client::request_of;
use crate::history::Span;
use crate::json::Object;
use crate::member::Member;
use crate::network::{Fate, Link, MEMBERS_EVER};
use crate::plan::Plan;
use crate::report::{Report, Verdict};
use crate::scenario::Scenario;
use crate::shard::{Ask, Outcome, Told};
use crate::world::{Event, World, kind_name};

/// How often it is noted how far members are, in microseconds.
const STAND_US: u64 = 50_000;

/// What the picture leaves out: the members' own small steps. The trace has them.
const SMALL_STEPS: [&str; 14] = [
    "tick",
    "turn",
    "run log",
    "run apply",
    "run flush",
    "run read",
    "done",
    "shard turn",
    "read thread",
    "request",
    "step",
    "patience",
    "replies",
    "snapshot piece",
];

/// The page that draws a trace, with a place for its data.
const PAGE: &str = include_str!("timeline.html");
const DATA: &str = "@DATA@";

/// Something to say of what happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Number(u64),
    /// A text.
    Text(String),
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(number)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

/// All there is to say of something, by names.
pub type Fields = Vec<(&'static str, Value)>;

/// Something that happened.
#[derive(Clone, Debug)]
struct Line {
    at_us: u64,
    /// The member that it happened to, from 0 on.
    member: Option<usize>,
    what: &'static str,
    fields: Fields,
}

impl Line {
    fn json(&self) -> String {
        let mut object = Object::new();
        object.number("at_us", self.at_us);
        if let Some(member) = self.member {
            object.number("member", member as u64 + 1);
        }
        object.text("what", self.what);
        for (name, value) in &self.fields {
            match value {
                Value::Number(number) => object.number(name, *number),
                Value::Text(text) => object.text(name, text),
            };
        }
        object.close()
    }
}

/// The trace of a run.
pub struct Trace {
    head: String,
    lines: Vec<Line>,
}

impl Trace {
    /// A line of JSON for the run, and one for each thing that happened.
    pub fn json(&self) -> String {
        let mut out = self.head.clone();
        self.lines.iter().for_each(|line| out.push_str(&line.json()));
        out
    }

    /// A page that draws it, whole in itself.
    pub fn timeline(&self) -> String {
        let large = self.lines.iter().filter(|line| !SMALL_STEPS.contains(&line.what));
        let lines: Vec<String> = large.map(Line::json).collect();
        let data = format!("[{},{}]", self.head, lines.join(","));
        // Within a script nothing may look like its end.
        PAGE.replacen(DATA, &data.replace("</", "<\\/"), 1)
    }
}

/// What can be seen of a member from outside.
#[derive(Clone, Default, PartialEq, Eq)]
struct Condition {
    state: &'static str,
    role: &'static str,
    term: u64,
    disk: &'static str,
}

impl Condition {
    fn of(member: &Member) -> Condition {
        let state = match (member.is_up(), member.paused) {
            _ if member.is_gone() => "gone",
            (false, _) => "down",
            (true, true) => "paused",
            (true, false) => "up",
        };
        let role = match (member.is_up(), member.leads()) {
            (false, _) => "none",
            (true, true) => "leader",
            (true, false) => "follower",
        };
        let disk = match member.disk_trouble() {
            (true, _) => "failing",
            (_, true) => "full",
            _ if member.is_rotten() => "rotten",
            _ if member.slowness > 1 => "slow",
            _ => "good",
        };
        Condition { state, role, term: member.view().map_or(0, |view| view.term().0), disk }
    }
}

/// Keeps what happens.
#[derive(Default)]
pub struct Tracer {
    lines: Vec<Line>,
    conditions: Vec<Condition>,
    links: Vec<Trouble>,
    stood_at: u64,
    stands: Vec<Fields>,
}

impl Tracer {
    fn take(&mut self, at_us: u64, member: Option<usize>, what: &'static str, fields: Fields) {
        self.lines.push(Line { at_us, member, what, fields });
    }

    /// The run is over.
    pub fn finish(mut self, plan: &Plan, scenario: &Scenario, report: &Report) -> Trace {
        let end_us = report.figures.simulated_us;
        let (verdict, why) = match &report.verdict {
            Verdict::Kept => ("kept", ""),
            Verdict::Inconclusive(why) => ("inconclusive", why.as_str()),
            Verdict::Broken { what, .. } => ("broken", what.as_str()),
        };
        if report.is_broken() {
            self.take(end_us, None, "promise broken", vec![("why", why.into())]);
        }
        let faults: Vec<&str> = scenario.faults.iter().map(|fault| fault.name()).collect();
        let mut head = Object::new();
        head.text("run", &format!("sim {plan}"));
        head.number("seed", scenario.seed);
        let members = self.conditions.len().max(scenario.members);
        head.number("members", members as u64).number("clients", scenario.clients as u64);
        head.list("faults", &faults).text("workload", scenario.workload.name());
        head.number("storm_us", scenario.length_us).number("end_us", end_us);
        head.text("hash", &format!("{:016x}", report.hash));
        head.text("verdict", verdict).text("why", why);
        Trace { head: head.close(), lines: self.lines }
    }
}

/// What the two numbers of something remembered are.
pub fn fields_of(what: &str, one: u64, two: u64) -> Fields {
    let (first, second) = match what {
        "started" | "died" | "power is gone" => ("life", "two"),
        "leader is" => ("leader", "term"),
        "installed" | "log released" => ("index", "two"),
        "HashKV" => ("revision", "hash"),
        "replies" => ("op", "revision"),
        "learner joins" | "voter joins" | "learner votes" | "member leaves" | "change refused"
        | "second change" | "operator asks" => ("node", "kind"),
        _ => ("one", "two"),
    };
    let named = [(first, one), (second, two)].into_iter();
    // A number that has no name and says nothing is none.
    named
        .filter(|(name, number)| *number != 0 || !matches!(*name, "one" | "two"))
        .map(|(name, number)| (name, number.into()))
        .collect()
}

impl Event {
    /// What there is to say of it.
    pub fn fields(&self) -> Fields {
        match self {
            Event::Done(worker) => vec![("worker", worker.name().into())],
            Event::ShardTurn(shard) | Event::ReadThread(shard, _) => {
                vec![("shard", u64::from(*shard).into())]
            }
            Event::Arrive(message) => fields_of_message("from", message.from, message),
            Event::Unreachable(id) => vec![("peer", (*id).into())],
            Event::Forwarded(forward) | Event::ForwardAnswered(forward, _) => {
                vec![("lease", format!("{:x}", forward.lease).into())]
            }
            Event::Ask(shard, request) => vec![
                ("shard", u64::from(*shard).into()),
                ("client", (request.call.client as u64).into()),
                ("op", request.call.op.into()),
                ("asks", name_of(&request.ask).into()),
            ],
            Event::Piece(transfer) => vec![("transfer", (*transfer).into())],
            Event::Tell(client, connection, told) => {
                let mut fields: Fields =
                    vec![("client", (*client as u64).into()), ("connection", (*connection).into())];
                match &**told {
                    Told::Outcome { op, .. } => fields.push(("op", (*op).into())),
                    Told::Created { id, from } => {
                        fields.push(("watch", u64::from(*id).into()));
                        fields.push(("from", (*from as u64).into()));
                    }
                    Told::Rejected { id } => fields.push(("watch", u64::from(*id).into())),
                    Told::Events { id, events } => {
                        let last = events.last().map_or(0, |event| event.main);
                        fields.push(("watch", u64::from(*id).into()));
                        fields.push(("events", (events.len() as u64).into()));
                        fields.push(("revision", (last as u64).into()));
                    }
                    Told::Progress { id, revision: number }
                    | Told::Canceled { id, mark: number } => {
                        fields.push(("watch", u64::from(*id).into()));
                        fields.push(("revision", (*number as u64).into()));
                    }
                }
                fields
            }
            Event::Step(client) => vec![("client", (*client as u64).into())],
            Event::Patience(client, op) => {
                vec![("client", (*client as u64).into()), ("op", (*op).into())]
            }
            Event::Broken(client, connection) => {
                vec![("client", (*client as u64).into()), ("connection", (*connection).into())]
            }
            Event::Misfortune(kind) => vec![("kind", (*kind as u64).into())],
            Event::OperatorWaited(op) => vec![("op", (*op).into())],
            Event::Heal(id) | Event::Clog(id) => vec![("name", format!("{id:x}").into())],
            _ => Vec::new(),
        }
    }
}

fn fields_of_message(peer: &'static str, id: u64, message: &Message) -> Fields {
    let mut fields: Fields = vec![
        (peer, id.into()),
        ("term", message.term.0.into()),
        ("index", message.index.0.into()),
        ("commit", message.commit.0.into()),
    ];
    if !message.entries.is_empty() {
        fields.push(("entries", (message.entries.len() as u64).into()));
    }
    fields
}

/// A request in a few words.
fn name_of(ask: &Ask) -> String {
    if let Some(request) = request_of(ask) {
        return request.to_string();
    }
    match ask {
        Ask::KeepAlive(lease) => format!("keep {lease:x} alive"),
        Ask::Transfer(to) => format!("hand over to member {to}"),
        Ask::TimeToLive { lease, .. } => format!("how long {lease:x} lives"),
        Ask::Leases => "which leases there are".to_owned(),
        Ask::Watch { id, asked } => {
            let from = asked.start_revision;
            format!("watch {id} of {} from {from}", Span(&asked.key, &asked.range_end))
        }
        Ask::Progress => "how far all watches are".to_owned(),
        Ask::Unwatch(id) => format!("watch {id} no longer"),
        Ask::Gone => "the connection is gone".to_owned(),
        Ask::Change(change) => format!("{} ({})", change.name(), change.node),
        Ask::Propose(..) | Ask::Read(_) => "something".to_owned(),
    }
}

impl World {
    /// Notes something, if somebody wants a trace.
    pub fn trace(
        &mut self,
        member: Option<usize>,
        what: &'static str,
        fields: impl FnOnce() -> Fields,
    ) {
        let now = self.now;
        if let Some(tracer) = &mut self.tracer {
            tracer.take(now, member, what, fields());
        }
    }

    /// A message leaves, or would.
    pub fn trace_sent(&mut self, from: usize, message: &Message, fate: Fate) {
        let is_up = self.members[message.to as usize - 1].is_up();
        self.trace(Some(from), "sends", || {
            let mut fields = fields_of_message("to", message.to, message);
            fields.push(("kind", kind_name(message).into()));
            match fate {
                Fate::Cut => fields.push(("fate", "cut".into())),
                Fate::Lost => fields.push(("fate", "lost".into())),
                Fate::Arrives { .. } if !is_up => fields.push(("fate", "nobody there".into())),
                Fate::Arrives { at, .. } => fields.push(("arrives_us", at.into())),
            }
            fields
        });
    }

    /// A client asks.
    pub fn trace_asked(&mut self, client: usize, op: u64, ask: &Ask) {
        let member = self.clients[client].member().map_or(0, |member| member as u64 + 1);
        self.trace(None, "asks", || {
            let (client, request) = (client as u64, name_of(ask));
            vec![
                ("client", client.into()),
                ("op", op.into()),
                ("of", member.into()),
                ("request", request.into()),
            ]
        });
    }

    /// A client hears how its request ended.
    pub fn trace_told(&mut self, client: usize, op: u64, outcome: &Outcome) {
        self.trace(None, "told", || {
            let (outcome, why) = match outcome {
                Outcome::Done(_) => ("done", String::new()),
                Outcome::Refused(error) | Outcome::TurnedAway(error) => {
                    ("refused", error.text().to_owned())
                }
                Outcome::NotTaken(refusal) => ("not taken", format!("{refusal:?}")),
                Outcome::Unknown => ("unknown", String::new()),
            };
            vec![
                ("client", (client as u64).into()),
                ("op", op.into()),
                ("outcome", outcome.into()),
                ("why", why.into()),
            ]
        });
    }

    /// A client will not hear how its request ended.
    pub fn trace_given_up(&mut self, client: usize, op: u64) {
        self.trace(None, "gives up", || {
            vec![("client", (client as u64).into()), ("op", op.into())]
        });
    }

    /// Notes how members and links differ from what they were when this was last asked.
    pub fn trace_changes(&mut self) {
        let Some(mut tracer) = self.tracer.take() else { return };
        tracer.conditions.resize_with(self.members.len(), Condition::default);
        tracer.stands.resize_with(self.members.len(), Fields::new);
        for (m, member) in self.members.iter().enumerate() {
            let condition = Condition::of(member);
            if tracer.conditions[m] != condition {
                let Condition { state, role, term, disk } = condition.clone();
                let fields = vec![
                    ("state", state.into()),
                    ("role", role.into()),
                    ("term", term.into()),
                    ("disk", disk.into()),
                ];
                tracer.take(self.now, Some(m), "is", fields);
                tracer.conditions[m] = condition;
            }
        }
        tracer.links.resize_with(self.network.links().count(), Trouble::default);
        for (place, (from, to, link)) in self.network.links().enumerate() {
            let trouble = Trouble::of(link);
            if tracer.links[place] != trouble {
                let fields = vec![
                    ("from", self.name_of_end(from).into()),
                    ("to", self.name_of_end(to).into()),
                    ("is", trouble.name().into()),
                ];
                tracer.take(self.now, None, "link", fields);
                tracer.links[place] = trouble;
            }
        }
        if self.now >= tracer.stood_at + STAND_US {
            tracer.stood_at = self.now;
            for (m, member) in self.members.iter().enumerate() {
                let Some(view) = member.view() else { continue };
                let fields: Fields = vec![
                    ("committed", view.committed().0.into()),
                    ("applied", view.applied().0.into()),
                    ("revision", (view.state.revision() as u64).into()),
                ];
                if tracer.stands[m] != fields {
                    tracer.take(self.now, Some(m), "stands", fields.clone());
                    tracer.stands[m] = fields;
                }
            }
        }
        self.tracer = Some(tracer);
    }

    fn name_of_end(&self, end: usize) -> String {
        match end.checked_sub(MEMBERS_EVER) {
            None => format!("member {}", end + 1),
            Some(client) => format!("client {client}"),
        }
    }
}

/// What is wrong with a link.
#[derive(Clone, Copy, Default, PartialEq)]
struct Trouble {
    is_cut: bool,
    is_clogged: bool,
    loss: f64,
    doubling: f64,
    reordering: f64,
}

impl Trouble {
    fn of(link: &Link) -> Trouble {
        let Link { cuts, clogs, loss, doubling, reordering, .. } = *link;
        Trouble { is_cut: cuts > 0, is_clogged: clogs > 0, loss, doubling, reordering }
    }

    /// In words; nothing if it is whole.
    fn name(self) -> String {
        if self.is_cut {
            return "cut".to_owned();
        }
        if self.is_clogged {
            return "clogged".to_owned();
        }
        let shares =
            [("loses", self.loss), ("doubles", self.doubling), ("reorders", self.reordering)];
        let named = shares.iter().filter(|(_, share)| *share > 0.0);
        let named: Vec<String> =
            named.map(|(name, share)| format!("{name} {:.0} %", share * 100.0)).collect();
        named.join(", ")
    }
}
