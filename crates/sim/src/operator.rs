//! The operator: lets members join and leave, one change at a time, and knows only what it is told.
//!
//! ```text
//!   idle ──next misfortune──▶ asked ──accepted, refused, not taken──▶ idle
//!                               │
//!                            unknown ──▶ looking: a linearizable list of the members ──▶ idle
//! ```
//!
//! Who adds a member gives it an empty disk and starts it when the change is acknowledged, or when nobody knows whether it
//! was made: a member that nobody has added waits, and does no harm. Who removes one takes the machine away now and then,
//! and else leaves it running, so that it must learn by itself, or do no harm.
//!
//! The operator does nothing by which even a cluster without faults would be lost: those that can be relied on, without who
//! leaves, are always a majority of those who vote before and after. So a cluster of two does not become one: if the
//! leader left and took with it the news that its leaving is committed, the other would ask it for its vote for ever.

use std::collections::BTreeSet;

use raft::NodeId;
use state_machine::Reply;

use crate::member::Member;
use crate::network::MEMBERS_EVER;
use crate::random::Random;
use crate::roster::{Change, ChangeKind, Roster};
use crate::scenario::Fault;
use crate::shard::{Ask, Call, Outcome, Request, ShardEvent, Wanted};
use crate::world::{Event, Whose, World};

/// The operator's number among those who ask: no client's.
pub const OPERATOR: usize = usize::MAX;
/// So many members a cluster has at most.
const MEMBERS_MAX: usize = 7;
/// So many changes are thought of until one is found that does no harm.
const THOUGHTS: usize = 8;
/// After so many microseconds a proposal stands in somebody's log or nowhere: no member holds it, or pauses, that long.
const DOUBT_US: u64 = 20_000_000;
/// A learner has caught up when it has applied so much in a hundred of what is committed, as etcd has it.
const READY_PERCENT: u64 = 90;

/// What it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Asked(Change),
    Looking,
}

/// A change of which nobody knows whether it is still to come: the name of its proposal, and when that was made.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    id: u64,
    change: Change,
    since: u64,
}

/// The operator.
pub struct Operator {
    random: Random,
    state: State,
    /// The number of what it has asked last.
    op: u64,
    /// Who belongs to the cluster, as far as it has heard.
    known: Roster,
    /// What may still be committed.
    doubts: Vec<Doubt>,
}

impl Operator {
    /// It has founded a cluster of so many.
    pub fn new(root: &Random, members: usize) -> Operator {
        Operator {
            random: root.child("operator", 0),
            state: State::Idle,
            op: 0,
            known: Roster::founded(members),
            doubts: Vec::new(),
        }
    }
}

impl World {
    /// The operator changes something, if it is not waiting for anything.
    pub fn operate(&mut self) {
        if self.operator.state == State::Idle
            && let Some(change) = self.think_of_a_change()
        {
            self.propose_change(change);
            // Another hand does the same at the same time, now and then: only one change may be on its way.
            if self.operator.random.below(6) == 0
                && let Some(other) = self.think_of_a_change()
            {
                self.remember(None, "second change", other.node, 0);
                self.ask_for_change(other, 0);
            }
        }
    }

    fn propose_change(&mut self, change: Change) {
        self.operator.state = State::Asked(change);
        self.operator.op += 1;
        let op = self.operator.op;
        self.remember(None, "operator asks", change.node, change.kind as u64);
        self.ask_for_change(change, op);
        let patience = self.operator.random.between(700_000, 4_000_000);
        self.after(patience, Whose::World, Event::OperatorWaited(op));
    }

    /// Asks some member for a change: the leader as often as not.
    fn ask_for_change(&mut self, change: Change, op: u64) {
        if change.node as usize > self.members.len() {
            let root = self.scenario.root();
            self.members.push(Member::new(&self.scenario, &root, change.node as usize - 1));
            self.truth.add_member();
        }
        self.ask_as_operator(op, Ask::Change(change));
    }

    fn ask_as_operator(&mut self, op: u64, ask: Ask) {
        let up = |m: &usize| self.members[*m].is_up() && !self.members[*m].paused;
        let listed = self.operator.known.all().map(|node| node as usize - 1);
        let up: Vec<usize> = listed.filter(up).collect();
        if up.is_empty() {
            return;
        }
        let leader = up.iter().copied().find(|m| self.members[*m].leads());
        let m = match leader {
            Some(leader) if self.operator.random.chance(0.5) => leader,
            _ => *self.operator.random.pick(&up),
        };
        let (revision, mark, index) = self.truth.least_read();
        let call = Call { client: OPERATOR, conn: 0, op, revision, mark, index };
        self.tell_shard(m, 0, ShardEvent::Request(Request { call, ask }));
    }

    /// A member has proposed a change under this name: until it is refused it may be committed at any time.
    pub fn on_change_proposed(&mut self, id: u64, change: Change) {
        self.truth.on_change_asked(id, change);
        self.operator.doubts.push(Doubt { id, change, since: self.now });
    }

    /// Nobody has answered for a while.
    pub fn operator_waited(&mut self, op: u64) {
        if self.operator.op == op {
            self.operator_told(op, Outcome::Unknown);
        }
    }

    /// The proposal of this name was not taken.
    pub fn on_change_refused(&mut self, id: u64) {
        self.operator.doubts.retain(|doubt| doubt.id != id);
    }

    /// The operator hears what became of what it asked.
    pub fn operator_told(&mut self, op: u64, outcome: Outcome) {
        if op != self.operator.op {
            return;
        }
        let asked = std::mem::replace(&mut self.operator.state, State::Idle);
        match (asked, outcome) {
            (State::Idle, _) => {}
            (_, Outcome::Done(Some(reply))) => {
                if let Reply::MemberList { members } = *reply {
                    self.on_list(&members);
                }
            }
            // Refused by the tables, so they differ from what is known here; or nobody knows.
            (asked, Outcome::Refused(_) | Outcome::Unknown) => {
                if let State::Asked(Change {
                    kind: ChangeKind::AddLearner | ChangeKind::AddVoter,
                    node,
                }) = asked
                {
                    self.begin_member(node);
                }
                self.look_at_members();
            }
            (State::Looking, Outcome::NotTaken(_) | Outcome::TurnedAway(_)) => {
                self.look_at_members();
            }
            (_, Outcome::Done(None) | Outcome::NotTaken(_) | Outcome::TurnedAway(_)) => {}
        }
    }

    /// Asks for the list of the members until it comes.
    fn look_at_members(&mut self) {
        self.operator.state = State::Looking;
        self.operator.op += 1;
        let op = self.operator.op;
        self.ask_as_operator(op, Ask::Read(Wanted::Members));
        let patience = self.operator.random.between(300_000, 1_500_000);
        self.after(patience, Whose::World, Event::OperatorWaited(op));
    }

    fn on_list(&mut self, members: &[proto::etcdserverpb::Member]) {
        let ids = |is_learner: bool| {
            members.iter().filter(move |m| m.is_learner == is_learner).map(|member| member.id)
        };
        let before = std::mem::take(&mut self.operator.known);
        let left = before.all().filter(|node| !members.iter().any(|member| member.id == *node));
        let removed: Vec<NodeId> = left.collect();
        let mut known = Roster {
            voters: ids(false).collect(),
            learners: ids(true).collect(),
            removed: before.removed,
        };
        known.removed.extend(&removed);
        let all: Vec<NodeId> = known.all().collect();
        self.operator.known = known;
        all.into_iter().for_each(|node| self.begin_member(node));
        for node in removed {
            if self.operator.random.chance(0.5) {
                let delay = self.operator.random.exponential(1_000_000);
                self.after(delay, Whose::Member(node as usize - 1), Event::Leaves);
            }
        }
    }

    /// Starts a member that was given a disk and not started yet.
    pub fn begin_member(&mut self, node: NodeId) {
        let m = node as usize - 1;
        if !std::mem::replace(&mut self.members[m].begun, true) {
            let delay = self.delays.exponential(200_000);
            self.after(delay, Whose::Member(m), Event::Start);
        }
    }

    /// A membership change is committed.
    pub fn on_change(&mut self, change: Change, accepted: bool) {
        let what = if accepted { change.name() } else { "change refused" };
        self.remember(None, what, change.node, change.kind as u64);
        if !accepted {
            return;
        }
        self.figures.fired[Fault::Membership as usize] += 1;
        if self.is_stormy() {
            return;
        }
        // One that was long on its way: nobody looks any more, but what has to be done is done.
        match change.kind {
            ChangeKind::Remove => {
                let m = change.node as usize - 1;
                self.after(2_000_000, Whose::Member(m), Event::Leaves);
            }
            _ => self.begin_member(change.node),
        }
    }

    /// The storm is over: whoever belongs to the cluster runs, and whoever does not, does not.
    pub fn settle_members(&mut self) {
        self.operator.state = State::Idle;
        let roster = self.truth.roster().clone();
        roster.all().for_each(|node| self.begin_member(node));
        for node in roster.removed {
            self.after(2_000_000, Whose::Member(node as usize - 1), Event::Leaves);
        }
    }

    /// A member that was removed ends, or its machine is taken away.
    pub fn leave(&mut self, m: usize) {
        if !self.members[m].is_gone() {
            self.retire(m);
        }
    }

    fn think_of_a_change(&mut self) -> Option<Change> {
        (0..THOUGHTS).find_map(|_| {
            let change = self.wish()?;
            let is_welcome = self.operator.known.after(change).is_ok();
            (is_welcome && self.survives(Some(change), None)).then_some(change)
        })
    }

    /// A change that comes to mind.
    fn wish(&mut self) -> Option<Change> {
        let known = &self.operator.known;
        let (count, wanted) = (known.len(), self.scenario.members);
        let learner = known.learners.first().copied();
        let all: Vec<NodeId> = known.all().collect();
        let down = |node: &&NodeId| !self.members[**node as usize - 1].is_up();
        let down: Vec<NodeId> = all.iter().filter(down).copied().collect();
        let leads = |node: &&NodeId| self.members[**node as usize - 1].leads();
        let leader = all.iter().find(leads).copied();
        let is_ready = |node: &NodeId| {
            let member = &self.members[*node as usize - 1];
            let applied = member.view().map_or(0, |view| view.applied().0);
            !member.is_rotten() && applied * 100 >= self.truth.committed() * READY_PERCENT
        };
        if let Some(node) = learner.filter(is_ready)
            && self.operator.random.chance(0.7)
        {
            return Some(Change { kind: ChangeKind::Promote, node });
        }
        // Who was to join, and may join yet, is not forgotten for another.
        let unheard = (self.scenario.members as u64 + 1..=self.members.len() as u64)
            .find(|node| !known.contains(*node) && !known.removed.contains(node));
        let random = &mut self.operator.random;
        let joins = match count {
            _ if count >= MEMBERS_MAX.min(wanted + 2) => false,
            _ if count < wanted => random.chance(0.75),
            _ => random.chance(0.4),
        };
        if joins {
            let node = unheard.unwrap_or(self.members.len() as u64 + 1);
            let learns = random.chance(0.6);
            let kind = if learns { ChangeKind::AddLearner } else { ChangeKind::AddVoter };
            return (node as usize <= MEMBERS_EVER).then_some(Change { kind, node });
        }
        let node = match (leader, random.below(10)) {
            (Some(leader), 0..4) => leader,
            (_, 4..7) if !down.is_empty() => *random.pick(&down),
            _ => *random.pick(&all),
        };
        Some(Change { kind: ChangeKind::Remove, node })
    }

    /// Whether the cluster can go on, whichever of the changes that may be on their way are made, if this one comes too and
    /// this member's disk cannot be relied on: a majority can be relied on, also without all who leave. Who joins needs no
    /// thought, for with one voter a majority grows by one at most; unless its own disk is spoilt. While one is, no majority
    /// may be needed either that was in force before and is all that somebody durably knows of: a change counts once it
    /// is known to be committed, and who alone could tell may be the one that is lost.
    pub fn survives(&mut self, change: Option<Change>, lost: Option<usize>) -> bool {
        let truth = &self.truth;
        let is_young = |doubt: &Doubt| self.now < doubt.since + DOUBT_US;
        let may_come = |doubt: &Doubt| is_young(doubt) || truth.is_in_a_log(doubt.id);
        self.operator.doubts.retain(|doubt| !truth.is_committed(doubt.id) && may_come(doubt));
        let doubts = self.operator.doubts.iter().map(|doubt| doubt.change);
        let changes: Vec<Change> = doubts.chain(change).collect();
        let is_spoilt = |node: NodeId| {
            let m = node as usize - 1;
            lost == Some(m) || self.members.get(m).is_some_and(|member| member.is_rotten())
        };
        let in_force = &truth.roster().voters;
        let mut voters = in_force.clone();
        let votes =
            |change: &&Change| matches!(change.kind, ChangeKind::AddVoter | ChangeKind::Promote);
        let joining = changes.iter().filter(votes).map(|change| change.node);
        voters.extend(joining.filter(|node| is_spoilt(*node)));
        let leaves = |node: NodeId| changes.contains(&Change { kind: ChangeKind::Remove, node });
        let is_relied_on =
            |node: &&NodeId| in_force.contains(*node) && !is_spoilt(**node) && !leaves(**node);
        let can_agree = |voters: &BTreeSet<NodeId>| {
            voters.iter().filter(is_relied_on).count() > voters.len() / 2
        };
        let is_any_spoilt = (1..=self.members.len() as NodeId).any(is_spoilt);
        let informed = in_force.iter().filter(is_relied_on);
        let mut known = informed.filter_map(|node| truth.known_roster(*node as usize - 1));
        can_agree(&voters) && (!is_any_spoilt || known.all(|roster| can_agree(&roster.voters)))
    }
}
