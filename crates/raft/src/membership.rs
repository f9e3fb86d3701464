//! Membership: the configuration in force, the changes that lead from one to the next, and their raftpb bytes.
//!
//! ```text
//!    (1 2 3) ──simple: one voter at most──▶ (1 2 3 4)
//!       │
//!       └─enter joint─▶ (1 2 4)&&(1 2 3) ──leave joint──▶ (1 2 4)
//! ```
//!
//! A step never alters a configuration, it makes the next one: if it is refused, nothing has happened. All nodes take the
//! same steps in the same order, those of the log (thesis §4).

use crate::message::*;
use crate::progress::{Inflights, Progress};
use crate::quorum::{Joint, Majority};
use bytes::{BufMut, Bytes, BytesMut};
use mutant::Mutant;
use std::fmt;

/// What happens to one node. The numbers are raftpb's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum ConfChangeKind {
    /// It becomes a voter.
    #[default]
    AddNode = 0,
    /// It leaves.
    RemoveNode = 1,
    /// Nothing that raft would know of.
    UpdateNode = 2,
    /// It becomes a learner.
    AddLearnerNode = 3,
}

/// A change of one node, as etcd's members write it into the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfChange {
    /// The proposer's name for it.
    pub id: u64,
    /// What happens.
    pub kind: ConfChangeKind,
    /// To whom; 0 makes it a change of nothing.
    pub node_id: NodeId,
    /// Opaque to raft.
    pub context: Bytes,
}

/// One step of a [`ConfChangeV2`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfChangeSingle {
    /// What happens.
    pub kind: ConfChangeKind,
    /// To whom; 0 makes it a change of nothing.
    pub node_id: NodeId,
}

/// Whether and how a change goes through a joint configuration (thesis §4.3). The numbers are raftpb's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum ConfChangeTransition {
    /// Joint only if more than one step; the joint configuration is then left by itself.
    #[default]
    Auto = 0,
    /// Joint, and left by itself.
    JointImplicit = 1,
    /// Joint, and left by an empty change.
    JointExplicit = 2,
}

/// A change of any number of nodes; without any it leaves a joint configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfChangeV2 {
    /// How.
    pub transition: ConfChangeTransition,
    /// What, in order.
    pub changes: Vec<ConfChangeSingle>,
    /// Opaque to raft.
    pub context: Bytes,
}

/// Why a change cannot be made to a configuration, or bytes are not a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfChangeError {
    /// The bytes are not raftpb's, or name a kind that does not exist.
    Undecodable,
    /// The configuration does not allow it.
    Refused(&'static str),
}

impl fmt::Display for ConfChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfChangeError::Undecodable => write!(f, "not a membership change"),
            ConfChangeError::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ConfChangeError {}

impl ConfChangeKind {
    fn from_number(number: u64) -> Result<ConfChangeKind, ConfChangeError> {
        match number {
            0 => Ok(ConfChangeKind::AddNode),
            1 => Ok(ConfChangeKind::RemoveNode),
            2 => Ok(ConfChangeKind::UpdateNode),
            3 => Ok(ConfChangeKind::AddLearnerNode),
            _ => Err(ConfChangeError::Undecodable),
        }
    }
}

impl ConfChange {
    /// Its raftpb bytes; all scalars are written, as gogo's encoder does.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        put_number(&mut bytes, 1, self.id);
        put_number(&mut bytes, 2, self.kind as u64);
        put_number(&mut bytes, 3, self.node_id);
        if !self.context.is_empty() {
            put_bytes(&mut bytes, 4, &self.context);
        }
        bytes.freeze()
    }

    /// Reads raftpb bytes; unknown fields are skipped.
    pub fn decode(bytes: &[u8]) -> Result<ConfChange, ConfChangeError> {
        let mut change = ConfChange::default();
        let mut fields = Fields { rest: bytes };
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => change.id = value.number()?,
                2 => change.kind = ConfChangeKind::from_number(value.number()?)?,
                3 => change.node_id = value.number()?,
                4 => change.context = Bytes::copy_from_slice(value.bytes()?),
                _ => {}
            }
        }
        Ok(change)
    }

    /// The same change in the general form.
    pub fn as_v2(&self) -> ConfChangeV2 {
        ConfChangeV2 {
            transition: ConfChangeTransition::Auto,
            changes: vec![ConfChangeSingle { kind: self.kind, node_id: self.node_id }],
            context: self.context.clone(),
        }
    }
}

impl ConfChangeV2 {
    /// Its raftpb bytes.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        put_number(&mut bytes, 1, self.transition as u64);
        for change in &self.changes {
            let mut single = BytesMut::new();
            put_number(&mut single, 1, change.kind as u64);
            put_number(&mut single, 2, change.node_id);
            put_bytes(&mut bytes, 2, &single);
        }
        if !self.context.is_empty() {
            put_bytes(&mut bytes, 3, &self.context);
        }
        bytes.freeze()
    }

    /// Reads raftpb bytes; unknown fields are skipped. No bytes at all are the change that leaves a joint configuration.
    pub fn decode(bytes: &[u8]) -> Result<ConfChangeV2, ConfChangeError> {
        let mut change = ConfChangeV2::default();
        let mut fields = Fields { rest: bytes };
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => {
                    change.transition = match value.number()? {
                        0 => ConfChangeTransition::Auto,
                        1 => ConfChangeTransition::JointImplicit,
                        2 => ConfChangeTransition::JointExplicit,
                        _ => return Err(ConfChangeError::Undecodable),
                    };
                }
                2 => {
                    let mut single = ConfChangeSingle::default();
                    let mut fields = Fields { rest: value.bytes()? };
                    while let Some((number, value)) = fields.next()? {
                        match number {
                            1 => single.kind = ConfChangeKind::from_number(value.number()?)?,
                            2 => single.node_id = value.number()?,
                            _ => {}
                        }
                    }
                    change.changes.push(single);
                }
                3 => change.context = Bytes::copy_from_slice(value.bytes()?),
                _ => {}
            }
        }
        Ok(change)
    }

    /// Reads the change that an entry carries: `None` if the entry is a normal one.
    pub fn of_entry(entry: &Entry) -> Result<Option<ConfChangeV2>, ConfChangeError> {
        match entry.kind {
            EntryKind::Normal => Ok(None),
            EntryKind::ConfChange => Ok(Some(ConfChange::decode(&entry.data)?.as_v2())),
            EntryKind::ConfChangeV2 => Ok(Some(ConfChangeV2::decode(&entry.data)?)),
        }
    }

    /// Whether it leaves a joint configuration.
    pub fn leaves_joint(&self) -> bool {
        self.transition == ConfChangeTransition::Auto && self.changes.is_empty()
    }

    /// Whether it enters a joint configuration, and if so whether that is left by itself. More than one step always does:
    /// whether a simple change would do depends on the configuration, and nobody minds.
    pub fn enters_joint(&self) -> Option<bool> {
        match self.transition {
            ConfChangeTransition::Auto if self.changes.len() <= 1 => None,
            ConfChangeTransition::Auto | ConfChangeTransition::JointImplicit => Some(true),
            ConfChangeTransition::JointExplicit => Some(false),
        }
    }
}

/// How the log of a new cluster begins: entries of term 1 that add its nodes, each with its change's context, in this order,
/// and the state in which all of them are committed. Every founder writes the same before it starts, so that it does not
/// matter which of them leads first; who joins later receives them with the rest of the log.
pub fn founding(nodes: impl IntoIterator<Item = (NodeId, Bytes)>) -> (Vec<Entry>, HardState) {
    let add = |((node_id, context), index): ((NodeId, Bytes), u64)| {
        let change = ConfChange { id: 0, kind: ConfChangeKind::AddNode, node_id, context };
        let (kind, data) = (EntryKind::ConfChange, change.encode());
        Entry { kind, term: Term(1), index: Index(index), data }
    };
    let entries: Vec<Entry> = nodes.into_iter().zip(1..).map(add).collect();
    let commit = entries.last().map_or(Index(0), |entry| entry.index);
    (entries, HardState { term: Term(1), vote: NONE, commit })
}

fn put_varint(bytes: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        bytes.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.put_u8(value as u8);
}

fn put_number(bytes: &mut BytesMut, field: u8, value: u64) {
    bytes.put_u8(field << 3);
    put_varint(bytes, value);
}

fn put_bytes(bytes: &mut BytesMut, field: u8, value: &[u8]) {
    bytes.put_u8(field << 3 | 2);
    put_varint(bytes, value.len() as u64);
    bytes.put_slice(value);
}

/// The fields of a protobuf message, one by one.
struct Fields<'a> {
    rest: &'a [u8],
}

/// A field's value.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of fixed width; no field here is.
    Other,
}

impl<'a> Value<'a> {
    fn number(&self) -> Result<u64, ConfChangeError> {
        match self {
            Value::Number(number) => Ok(*number),
            _ => Err(ConfChangeError::Undecodable),
        }
    }

    fn bytes(&self) -> Result<&'a [u8], ConfChangeError> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(ConfChangeError::Undecodable),
        }
    }
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, ConfChangeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Other)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Other)?,
            _ => return Err(ConfChangeError::Undecodable),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn varint(&mut self) -> Result<u64, ConfChangeError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ConfChangeError::Undecodable)
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], ConfChangeError> {
        let count = usize::try_from(count).map_err(|_| ConfChangeError::Undecodable)?;
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or(ConfChangeError::Undecodable)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// The configuration in force, and the progress of each of its nodes.
///
/// Invariants: there is a progress of exactly the voters of both halves and the learners; a learner votes in neither half; who
/// is to become a learner votes in the outgoing half only; without an outgoing half nobody is, and nothing is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Who votes.
    voters: Joint,
    /// Who only learns.
    learners: Majority,
    /// Outgoing voters that become learners when the joint configuration is left.
    learners_next: Majority,
    /// The leader leaves the joint configuration by itself.
    auto_leave: bool,
    /// Ascending by node.
    progress: Vec<(NodeId, Progress)>,
    /// The window of a new progress.
    window: Inflights,
}

impl Membership {
    /// Of nobody; each peer will get a window of this size.
    pub fn new(inflight_messages_max: usize, inflight_bytes_max: u64) -> Membership {
        Membership {
            voters: Joint::default(),
            learners: Majority::default(),
            learners_next: Majority::default(),
            auto_leave: false,
            progress: Vec::new(),
            window: Inflights::new(inflight_messages_max, inflight_bytes_max),
        }
    }

    /// That which a snapshot or the disk speaks of, with the progress of nodes of which nothing is known. Refuses what no
    /// sequence of changes could have led to.
    pub fn restore(&self, state: &ConfState, last: Index) -> Result<Membership, ConfChangeError> {
        let refuse = |why| Err(ConfChangeError::Refused(why));
        let mut next = Membership {
            voters: Joint {
                incoming: Majority::new(state.voters.clone()),
                outgoing: Majority::new(state.voters_outgoing.clone()),
            },
            learners: Majority::new(state.learners.clone()),
            learners_next: Majority::new(state.learners_next.clone()),
            auto_leave: state.auto_leave,
            progress: Vec::new(),
            window: self.window.clone(),
        };
        next.window.clear();
        if next.voters.incoming.is_empty() && *state != ConfState::default() {
            return refuse("a configuration without voters");
        }
        if next.voters.contains(NONE) || next.learners.contains(NONE) {
            return refuse("a configuration with node 0");
        }
        if next.auto_leave && !next.voters.is_joint() {
            return refuse("a configuration that is to be left and not joint");
        }
        if next.learners.voters().iter().any(|id| next.voters.contains(*id)) {
            return refuse("a learner that votes");
        }
        let staged =
            |id: &NodeId| next.voters.outgoing.contains(*id) && !next.voters.incoming.contains(*id);
        if !next.learners_next.voters().iter().all(staged) {
            return refuse("a future learner that is no outgoing voter");
        }
        let learners = next.learners.voters().iter().map(|id| (*id, true));
        let voters = next.voters.ids().into_iter().map(|id| (id, false));
        for (id, learner) in learners.chain(voters).collect::<Vec<_>>() {
            next.start_progress(id, learner, last);
        }
        next.check_invariants();
        Ok(next)
    }

    /// The configuration after this change.
    pub fn change(
        &self,
        change: &ConfChangeV2,
        last: Index,
    ) -> Result<Membership, ConfChangeError> {
        if change.leaves_joint() {
            self.leave_joint()
        } else if let Some(auto_leave) = change.enters_joint() {
            self.enter_joint(auto_leave, &change.changes, last)
        } else {
            self.simple(&change.changes, last)
        }
    }

    /// The configuration after these steps, which together change at most one voter (thesis §4.1).
    pub fn simple(
        &self,
        changes: &[ConfChangeSingle],
        last: Index,
    ) -> Result<Membership, ConfChangeError> {
        if self.voters.is_joint() {
            return Err(ConfChangeError::Refused(
                "can't apply simple config change in joint config",
            ));
        }
        let mut next = self.clone();
        next.take_steps(changes, last)?;
        let (before, after) = (&self.voters.incoming, &next.voters.incoming);
        let left = before.voters().iter().filter(|id| !after.contains(**id)).count();
        let came = after.voters().iter().filter(|id| !before.contains(**id)).count();
        if left + came > 1 {
            return Err(ConfChangeError::Refused(
                "more than one voter changed without entering joint config",
            ));
        }
        next.check_invariants();
        Ok(next)
    }

    /// The joint configuration whose outgoing half is the present one and whose incoming half has these steps taken.
    pub fn enter_joint(
        &self,
        auto_leave: bool,
        changes: &[ConfChangeSingle],
        last: Index,
    ) -> Result<Membership, ConfChangeError> {
        if self.voters.is_joint() {
            return Err(ConfChangeError::Refused("config is already joint"));
        }
        if self.voters.incoming.is_empty() {
            return Err(ConfChangeError::Refused("can't make a zero-voter config joint"));
        }
        let mut next = self.clone();
        next.voters.outgoing = next.voters.incoming.clone();
        next.take_steps(changes, last)?;
        next.auto_leave = auto_leave;
        next.check_invariants();
        Ok(next)
    }

    /// The configuration that is the present one's incoming half alone.
    pub fn leave_joint(&self) -> Result<Membership, ConfChangeError> {
        if !self.voters.is_joint() {
            return Err(ConfChangeError::Refused("can't leave a non-joint config"));
        }
        let mut next = self.clone();
        for id in std::mem::take(&mut next.learners_next).voters() {
            next.learners.insert(*id);
            next.progress_mut(*id).expect("an outgoing voter has a progress").learner = true;
        }
        for id in std::mem::take(&mut next.voters.outgoing).voters() {
            if !next.voters.incoming.contains(*id) && !next.learners.contains(*id) {
                next.end_progress(*id);
            }
        }
        next.auto_leave = false;
        next.check_invariants();
        Ok(next)
    }

    fn take_steps(
        &mut self,
        changes: &[ConfChangeSingle],
        last: Index,
    ) -> Result<(), ConfChangeError> {
        for change in changes {
            match change.kind {
                // Whoever applies a change and refuses it hands on node 0 in its stead.
                _ if change.node_id == NONE => {}
                ConfChangeKind::AddNode => self.make_voter(change.node_id, last),
                ConfChangeKind::AddLearnerNode => self.make_learner(change.node_id, last),
                ConfChangeKind::RemoveNode => self.remove(change.node_id),
                ConfChangeKind::UpdateNode => {}
            }
        }
        if self.voters.incoming.is_empty() {
            return Err(ConfChangeError::Refused("removed all voters"));
        }
        Ok(())
    }

    fn make_voter(&mut self, id: NodeId, last: Index) {
        match self.progress_mut(id) {
            Some(progress) => progress.learner = false,
            None => self.start_progress(id, false, last),
        }
        self.learners.remove(id);
        self.learners_next.remove(id);
        self.voters.incoming.insert(id);
    }

    /// Nobody votes and learns at a time: an outgoing voter becomes a learner when the joint configuration is left.
    fn make_learner(&mut self, id: NodeId, last: Index) {
        let outgoing = self.voters.outgoing.contains(id);
        match self.progress_mut(id) {
            Some(progress) if progress.learner => return,
            Some(progress) => progress.learner = !outgoing,
            None => self.start_progress(id, true, last),
        }
        self.voters.incoming.remove(id);
        if outgoing {
            self.learners_next.insert(id);
        } else {
            self.learners.insert(id);
        }
    }

    /// An outgoing voter keeps its progress, for it still votes.
    fn remove(&mut self, id: NodeId) {
        self.voters.incoming.remove(id);
        self.learners.remove(id);
        self.learners_next.remove(id);
        if !self.voters.outgoing.contains(id) {
            self.end_progress(id);
        }
    }

    /// A new node counts as heard from, or a check for a quorum could make the leader step down before it could speak.
    fn start_progress(&mut self, id: NodeId, learner: bool, last: Index) {
        let mut progress = Progress::new(last.max(Index(1)), learner, self.window.clone());
        progress.recent_active = true;
        let place = self.progress.partition_point(|known| known.0 < id);
        self.progress.insert(place, (id, progress));
    }

    fn end_progress(&mut self, id: NodeId) {
        self.progress.retain(|known| known.0 != id);
    }

    /// A new term: nothing is known of anybody, except of oneself.
    pub(crate) fn reset_progress(&mut self, own: NodeId, last: Index) {
        for (id, progress) in &mut self.progress {
            *progress = Progress::new(last.next(), progress.learner, self.window.clone());
            if *id == own {
                progress.matched = last;
            }
        }
    }

    /// A node's progress.
    pub fn progress(&self, id: NodeId) -> Option<&Progress> {
        let place = self.progress.binary_search_by_key(&id, |known| known.0).ok()?;
        Some(&self.progress[place].1)
    }

    pub(crate) fn progress_mut(&mut self, id: NodeId) -> Option<&mut Progress> {
        let place = self.progress.binary_search_by_key(&id, |known| known.0).ok()?;
        Some(&mut self.progress[place].1)
    }

    /// All nodes and their progress, ascending.
    pub fn nodes(&self) -> &[(NodeId, Progress)] {
        &self.progress
    }

    pub(crate) fn nodes_mut(&mut self) -> &mut [(NodeId, Progress)] {
        &mut self.progress
    }

    /// Who votes.
    pub fn voters(&self) -> &Joint {
        &self.voters
    }

    /// Whether a joint configuration is to be left by itself.
    pub fn auto_leave(&self) -> bool {
        self.auto_leave
    }

    /// Whether this node is the only voter.
    pub fn is_lone_voter(&self, id: NodeId) -> bool {
        self.voters.incoming.voters() == [id] && !self.voters.is_joint()
    }

    /// The greatest index that a quorum has acknowledged as durable.
    pub(crate) fn committed(&self) -> Index {
        let reached = |id| Some(self.progress(id)?.matched.0);
        if mutant::is(Mutant::LearnerCounts) {
            let all = self.progress.iter().map(|(id, _)| *id).collect();
            return Index(Majority::new(all).committed(reached));
        }
        Index(self.voters.committed(reached))
    }

    /// The same in raftpb's form.
    pub fn conf_state(&self) -> ConfState {
        ConfState {
            voters: self.voters.incoming.voters().to_vec(),
            learners: self.learners.voters().to_vec(),
            voters_outgoing: self.voters.outgoing.voters().to_vec(),
            learners_next: self.learners_next.voters().to_vec(),
            auto_leave: self.auto_leave,
        }
    }

    fn check_invariants(&self) {
        let learns = |id: NodeId| self.progress(id).is_some_and(|progress| progress.learner);
        let votes = |id: NodeId| self.progress(id).is_some_and(|progress| !progress.learner);
        assert!(self.voters.ids().into_iter().all(votes), "voters have a progress: {self}");
        assert!(self.learners.voters().iter().all(|id| learns(*id)), "learners too: {self}");
        let staged = |id: &NodeId| self.voters.outgoing.contains(*id);
        assert!(self.learners_next.voters().iter().all(staged), "staged learners vote: {self}");
        let known = self.voters.ids().len() + self.learners.voters().len();
        assert_eq!(self.progress.len(), known, "nobody else has a progress: {self}");
        let joint = self.voters.is_joint();
        assert!(joint || (self.learners_next.is_empty() && !self.auto_leave), "not joint: {self}");
    }
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "voters={}", self.voters)?;
        if !self.learners.is_empty() {
            write!(f, " learners={}", self.learners)?;
        }
        if !self.learners_next.is_empty() {
            write!(f, " learners_next={}", self.learners_next)?;
        }
        if self.auto_leave {
            f.write_str(" autoleave")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_change() -> impl Strategy<Value = ConfChangeV2> {
        let kinds = [
            ConfChangeKind::AddNode,
            ConfChangeKind::RemoveNode,
            ConfChangeKind::UpdateNode,
            ConfChangeKind::AddLearnerNode,
        ];
        let transitions = [
            ConfChangeTransition::Auto,
            ConfChangeTransition::JointImplicit,
            ConfChangeTransition::JointExplicit,
        ];
        let single = (prop::sample::select(kinds.to_vec()), 0u64..6)
            .prop_map(|(kind, node_id)| ConfChangeSingle { kind, node_id });
        (
            prop::sample::select(transitions.to_vec()),
            prop::collection::vec(single, 0..4),
            prop::collection::vec(any::<u8>(), 0..4),
        )
            .prop_map(|(transition, changes, context)| ConfChangeV2 {
                transition,
                changes,
                context: context.into(),
            })
    }

    fn start() -> Membership {
        let state = ConfState { voters: vec![1, 2], ..ConfState::default() };
        Membership::new(8, 0).restore(&state, Index(3)).unwrap()
    }

    /// What the state says about a node must be what a plain model of sets says.
    fn intersect(one: &Majority, other: &Majority) -> bool {
        let quorums = |half: &Majority| {
            let voters = half.voters().to_vec();
            (0u32..1 << voters.len())
                .filter(|set| set.count_ones() as usize > voters.len() / 2)
                .map(|set| {
                    let members = voters.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1);
                    members.map(|(_, id)| *id).collect::<Vec<_>>()
                })
                .collect::<Vec<_>>()
        };
        quorums(one)
            .iter()
            .all(|a| quorums(other).iter().all(|b| a.iter().any(|id| b.contains(id))))
    }

    proptest! {
        #[test]
        fn every_quorum_before_a_change_meets_every_quorum_after_it(
            changes in prop::collection::vec(any_change(), 0..12),
        ) {
            let mut membership = start();
            for change in &changes {
                let Ok(next) = membership.change(change, Index(3)) else { continue };
                let before = [&membership.voters.incoming, &membership.voters.outgoing];
                let after = [&next.voters.incoming, &next.voters.outgoing];
                let meets = before.iter().any(|one| {
                    after.iter().any(|other| !one.is_empty() && !other.is_empty() && intersect(one, other))
                });
                prop_assert!(meets, "{} then {}", membership, next);
                membership = next;
            }
        }

        #[test]
        fn a_configuration_survives_its_conf_state(
            changes in prop::collection::vec(any_change(), 0..12),
        ) {
            let mut membership = start();
            for change in &changes {
                membership = membership.change(change, Index(3)).unwrap_or(membership);
            }
            let restored = start().restore(&membership.conf_state(), Index(3)).unwrap();
            prop_assert_eq!(restored.conf_state(), membership.conf_state());
            let flags = |of: &Membership| {
                of.nodes().iter().map(|node| (node.0, node.1.learner)).collect::<Vec<_>>()
            };
            prop_assert_eq!(flags(&restored), flags(&membership));
        }

        #[test]
        fn changes_survive_their_bytes(change in any_change(), id: u64) {
            prop_assert_eq!(&ConfChangeV2::decode(&change.encode()).unwrap(), &change);
            if let Some(single) = change.changes.first() {
                let context = change.context.clone();
                let change = ConfChange { id, kind: single.kind, node_id: single.node_id, context };
                prop_assert_eq!(&ConfChange::decode(&change.encode()).unwrap(), &change);
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(change) = ConfChangeV2::decode(&bytes) {
                prop_assert!(ConfChangeV2::decode(&change.encode()).is_ok());
            }
            if let Ok(change) = ConfChange::decode(&bytes) {
                prop_assert!(ConfChange::decode(&change.encode()).is_ok());
            }
        }
    }

    #[test]
    fn bytes_are_raftpbs() {
        let change = ConfChange {
            id: 300,
            kind: ConfChangeKind::AddLearnerNode,
            node_id: 5,
            context: Bytes::from_static(b"x"),
        };
        assert_eq!(change.encode()[..], [8, 0xac, 2, 16, 3, 24, 5, 34, 1, b'x']);
        assert_eq!(change.as_v2().encode()[..], [8, 0, 18, 4, 8, 3, 16, 5, 26, 1, b'x']);
        // An unknown field, and all others missing.
        assert_eq!(ConfChange::decode(&[0x7a, 1, 9]).unwrap(), ConfChange::default());
    }

    #[test]
    fn a_configuration_that_contradicts_itself_is_refused() {
        let refused = |state: ConfState| start().restore(&state, Index(3)).is_err();
        let voters = vec![1, 2];
        assert!(refused(ConfState { learners: vec![3], ..ConfState::default() }));
        assert!(refused(ConfState { voters: vec![0, 1], ..ConfState::default() }));
        assert!(refused(ConfState {
            voters: voters.clone(),
            learners: vec![2],
            ..ConfState::default()
        }));
        assert!(refused(ConfState {
            voters: voters.clone(),
            learners_next: vec![3],
            ..ConfState::default()
        }));
        assert!(refused(ConfState { voters, auto_leave: true, ..ConfState::default() }));
    }
}
