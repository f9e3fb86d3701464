//! Consensus as a pure state machine: Raft, as Ongaro's thesis describes it and as etcd's members speak it.
//!
//! [`Raft`] is one node. Inputs are methods, outputs are data: nothing is sent, written, slept for or drawn by lot
//! here, so that a server and a simulator drive the very same code. One turn is
//!
//! 1. any number of inputs: [`Raft::tick`], [`Raft::step`], [`Raft::propose`], [`Raft::read_index`], completions;
//! 2. [`Raft::ready`], which says what to append, send, apply and read back ([`Ready`] says in which order);
//! 3. the doing, in the background; each part's completion is an input of a later turn: [`Raft::on_persisted`],
//!    [`Raft::on_applied`], [`Raft::on_snapshot_installed`], [`Raft::on_fetched`].
//!
//! `README.md` beside this crate introduces it with a whole program.
//!
//! Whatever a peer says is either sense or refused with an error; it never makes a node panic. What this node itself must
//! have right (and its driver: completions in order, nothing lost from its disk) is asserted at the end of each input: better
//! stopped than wrong.
//!
//! | file | what it knows |
//! |---|---|
//! | `role`, `follower`, `candidate`, `leader` | the protocol: one `match` per role |
//! | `log` | which entries there are, durable, committed, applied |
//! | `progress` | what the leader knows about each peer |
//! | `quorum`, `membership` | who decides, and how that changes |
//! | `read_index` | reads without the log |
//! | `ready`, `message`, `config` | what goes out and in |

#![cfg_attr(test, allow(clippy::unwrap_used))]

/// The code in the introduction is compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Introduction;

mod candidate;
pub mod config;
mod follower;
mod leader;
mod log;
pub mod membership;
pub mod message;
pub mod progress;
pub mod quorum;
mod read_index;
pub mod ready;
mod role;

pub use config::{Config, NewError, ReadOnly};
pub use membership::{
    ConfChange, ConfChangeError, ConfChangeKind, ConfChangeSingle, ConfChangeTransition,
    ConfChangeV2, Membership, founding,
};
pub use message::*;
pub use progress::{Progress, ProgressState};
pub use ready::{Fetch, OwnMessage, Persisted, ReadState, Ready, RoleKind, SoftState};

use std::{fmt, mem};

use bytes::Bytes;
use mutant::Mutant;

use crate::log::{Log, NO_LIMIT};
use crate::role::{Campaign, Random, Role, TRANSFER_CONTEXT};

/// What is read back from disk at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Term, vote and commit. A commit below `applied` is raised to it.
    pub hard_state: HardState,
    /// The configuration at `applied`.
    pub conf_state: ConfState,
    /// How far the state machine has applied the log; at least `base`.
    pub applied: Index,
    /// The log begins after this entry, index and term; (0, 0) for a log that is whole.
    pub base: (Index, Term),
    /// The terms of the entries after `base` that are not in `entries`: each pair is the first index of a run
    /// of entries of one term. May reach into `entries`, and may then be empty if `entries` begins after `base`.
    pub term_runs: Vec<(Index, Term)>,
    /// The log's tail in memory; it must hold all entries after `applied`. If it is empty, the log ends with `applied`.
    pub entries: Vec<Entry>,
    /// The term in which [`StepError::Forgotten`] was met, if ever. It is of no consequence behind an entry of a later term.
    pub forgot_in: Option<Term>,
}

/// Why an input was refused. The node's state is as before, except that a newer term may have been taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepError {
    /// A message that only a node's own parts may send.
    LocalMessage,
    /// An answer from a node that is not in the configuration.
    PeerNotFound,
    /// The proposal was dropped: no leader, a transfer under way, or too much uncommitted. Try again later.
    ProposalDropped,
    /// A message that no correct peer sends. Its connection deserves suspicion.
    Malformed(&'static str),
    /// The leader has this node's receipt for entries that are not here: its disk was emptied, or is an older copy. It
    /// takes part in no election until a leader of a later term has brought it an entry of that term (C27).
    Forgotten {
        /// What the leader has a receipt for, at least.
        acknowledged: Index,
        /// The last entry here.
        last: Index,
    },
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StepError::LocalMessage => write!(f, "raft: cannot step raft local message"),
            StepError::PeerNotFound => {
                write!(f, "raft: cannot step as peer not found")
            }
            StepError::ProposalDropped => write!(f, "raft proposal dropped"),
            StepError::Malformed(why) => write!(f, "raft: malformed message: {why}"),
            StepError::Forgotten { acknowledged, last } => {
                write!(
                    f,
                    "raft: entries up to {acknowledged} were acknowledged, but the log ends with {last}"
                )
            }
        }
    }
}

impl std::error::Error for StepError {}

/// A node's state, for humans and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The node.
    pub id: NodeId,
    /// Its role.
    pub role: RoleKind,
    /// The leader as far as known, or 0.
    pub leader: NodeId,
    /// Its term.
    pub term: Term,
    /// Its vote in that term, or 0.
    pub vote: NodeId,
    /// The committed index.
    pub commit: Index,
    /// The applied index.
    pub applied: Index,
    /// The last entry of the log.
    pub last: Index,
    /// To whom leadership is being transferred, or 0.
    pub transferee: NodeId,
    /// The configuration in force.
    pub conf_state: ConfState,
    /// Every peer and the leader itself, ascending; empty unless leader.
    pub peers: Vec<(NodeId, Progress)>,
}

/// One node of a raft group. See the [crate] for how to drive it.
///
/// Invariants, asserted at the end of each input: applied ≤ handed out for applying ≤ committed ≤ last entry; durable ≤ last
/// entry; a leader's peers match at most what it has, and below what they are sent next; a candidate votes for itself.
#[derive(Debug)]
pub struct Raft {
    config: Config,
    random: Random,
    term: Term,
    vote: NodeId,
    role: Role,
    log: Log,
    membership: Membership,

    /// Ticks since a leader was heard, or since the last check for a quorum.
    election_elapsed: u32,
    /// Ticks since the leader's last heartbeat.
    heartbeat_elapsed: u32,
    /// Ticks without a leader after which this node campaigns; drawn anew with each role.
    election_timeout: u32,

    /// What a snapshot message will name.
    offered: Option<Snapshot>,
    /// The configuration at the applied index; the one in force may be that of the entry after it.
    applied_conf_state: ConfState,
    /// A change was switched to whose entry is not yet reported applied.
    switched: bool,
    /// In this term it was found out that entries are gone which this node had acknowledged.
    forgot_in: Option<Term>,

    // What the next `Ready` will say.
    messages: Vec<Message>,
    messages_after_persist: Vec<Message>,
    own_messages: Vec<OwnMessage>,
    read_states: Vec<ReadState>,
    fetches: Vec<Fetch>,

    // What the last one said.
    soft_state: SoftState,
    hard_state: HardState,
}

/// Up to where a log speaks for itself: of the membership changes in it all but the last are committed, for a leader appends
/// one only when it has applied those before it (thesis §4.1). Whoever loses the commit index that came with a change, in a
/// crash that tore what was written last, would else count votes as before both:
///
///  1. Of A, B and C, A leads, and adds D; A, B and C commit that. Then it adds E: A, B and D have that entry, and commit it.
///     C has it too, but crashes while it writes it; the entry is kept, and that the first one is committed is lost.
///  2. A, D and E, a majority of the five, commit the next entry.
///  3. C asks B for its vote, and takes the two of them for a majority. Neither has that entry.
fn committed_by_a_later_change(config: &Config, entries: &[Entry]) -> Index {
    if config.disable_conf_change_validation {
        return Index(0);
    }
    let mut changes = entries.iter().rev().filter(|entry| entry.kind != EntryKind::Normal);
    changes.nth(1).map_or(Index(0), |entry| entry.index)
}

/// Terms and indexes above this come from nobody honest; below, adding one never overflows.
const NUMBER_MAX: u64 = 1 << 62;

impl Raft {
    /// Makes a node from what its disk remembers. It starts as a follower.
    pub fn new(config: Config, restored: Restored) -> Result<Raft, NewError> {
        config.check()?;
        let limit = match config.max_committed_bytes_per_ready {
            0 => NO_LIMIT,
            limit => limit,
        };
        let Restored { hard_state, conf_state, applied, base, term_runs, entries, forgot_in } =
            restored;
        let settled = committed_by_a_later_change(&config, &entries);
        let mut log = Log::restore_from(base, &term_runs, entries, applied, limit)
            .map_err(NewError::Restored)?;
        if hard_state.commit > log.last() {
            let last = log.last();
            let why = format!("{} is committed, but the log ends at {last}", hard_state.commit);
            return Err(NewError::Restored(why));
        }
        // A log that begins with a snapshot may be one term ahead of a node that has not yet been in any.
        if log.last_term().0 > hard_state.term.0 + 1 || hard_state.term.0 > NUMBER_MAX {
            let why = format!("term is {}, the log's is {}", hard_state.term, log.last_term());
            return Err(NewError::Restored(why));
        }
        log.commit_to(hard_state.commit.max(applied).max(settled));
        let membership = Membership::new(config.max_inflight_messages, config.max_inflight_bytes)
            .restore(&conf_state, log.last())
            .map_err(|error| NewError::Restored(error.to_string()))?;
        let mut raft = Raft {
            random: Random::new(config.seed, config.id),
            config,
            term: hard_state.term,
            vote: if mutant::is(Mutant::ForgetVote) { NONE } else { hard_state.vote },
            role: Role::Follower { leader: NONE },
            log,
            membership,
            election_elapsed: 0,
            heartbeat_elapsed: 0,
            election_timeout: 0,
            offered: None,
            applied_conf_state: conf_state,
            switched: false,
            forgot_in,
            messages: Vec::new(),
            messages_after_persist: Vec::new(),
            own_messages: Vec::new(),
            read_states: Vec::new(),
            fetches: Vec::new(),
            soft_state: SoftState { leader: NONE, role: RoleKind::Follower },
            hard_state,
        };
        raft.become_follower(raft.term, NONE);
        // A commit index that was raised to what is applied is no news; one that was inferred is.
        let commit = hard_state.commit.max(applied);
        raft.hard_state = HardState { commit, ..raft.current_hard_state() };
        raft.check_invariants();
        Ok(raft)
    }

    // --- Inputs. ---

    /// One unit of time has passed.
    pub fn tick(&mut self) {
        if self.is_leader() {
            self.tick_leader();
        } else {
            self.election_elapsed += 1;
            if self.election_elapsed >= self.election_timeout && self.is_promotable() {
                self.election_elapsed = 0;
                self.hup_as_configured();
            }
        }
        self.check_invariants();
    }

    /// A peer's message. Never panics, whatever it says.
    pub fn step(&mut self, message: Message) -> Result<(), StepError> {
        self.let_in(&message)?;
        let outcome = self.step_any(message);
        self.check_invariants();
        outcome
    }

    /// Campaigns now (with a pre-vote first if configured), unless this node leads or must not campaign.
    pub fn campaign(&mut self) {
        self.hup_as_configured();
        self.check_invariants();
    }

    /// Proposes commands; all are appended, in this order, or none. A follower forwards them.
    pub fn propose(&mut self, commands: Vec<Bytes>) -> Result<(), StepError> {
        self.propose_all(commands.into_iter().map(|data| (EntryKind::Normal, data)).collect())
    }

    /// Proposes one entry of any kind.
    pub fn propose_entry(&mut self, kind: EntryKind, data: Bytes) -> Result<(), StepError> {
        self.propose_all(vec![(kind, data)])
    }

    /// Proposes a membership change of one node, as etcd's members do. A leader that may not append it now appends an
    /// empty entry in its stead.
    pub fn propose_conf_change(&mut self, change: &ConfChange) -> Result<(), StepError> {
        self.propose_entry(EntryKind::ConfChange, change.encode())
    }

    /// Proposes a membership change, joint or not.
    pub fn propose_conf_change_v2(&mut self, change: &ConfChangeV2) -> Result<(), StepError> {
        self.propose_entry(EntryKind::ConfChangeV2, change.encode())
    }

    /// Asks for a read index; the answer is a [`ReadState`] with this context. It may never come (no leader, lost
    /// message, change of term): ask again.
    pub fn read_index(&mut self, context: Bytes) {
        let entries = vec![Entry { data: context, ..Entry::default() }];
        let read = Message { kind: MessageKind::ReadIndex, entries, ..Message::default() };
        self.step_own(read);
    }

    /// Hands leadership over (thesis §3.10); a follower asks its leader to.
    pub fn transfer_leader(&mut self, transferee: NodeId) {
        if transferee == NONE {
            return;
        }
        let kind = MessageKind::TransferLeader;
        self.step_own(Message { kind, from: transferee, ..Message::default() });
    }

    /// A follower forgets its leader, so that it may vote for another before its timeout. Not where reads believe in the
    /// leader's lease, which it would break.
    pub fn forget_leader(&mut self) {
        if self.config.read_only == ReadOnly::LeaseBased {
            return;
        }
        if let Role::Follower { leader } = &mut self.role {
            *leader = NONE;
        }
        self.check_invariants();
    }

    /// The last message to this peer may be lost.
    pub fn report_unreachable(&mut self, id: NodeId) {
        if self.is_leader() {
            self.peer_unreachable(id);
        }
        self.check_invariants();
    }

    /// The snapshot sent to this peer has arrived, or failed.
    pub fn report_snapshot(&mut self, id: NodeId, ok: bool) {
        if self.is_leader() {
            self.peer_has_snapshot(id, ok);
        }
        self.check_invariants();
    }

    /// Switches the configuration, when a committed change is applied and before `on_applied` of its entry. On error nothing
    /// has changed. A change that the applier refuses must not come here. While a received snapshot waits to be installed,
    /// whatever is applied lies before it: its configuration is in force already, and stays.
    pub fn apply_conf_change(
        &mut self,
        change: &ConfChangeV2,
    ) -> Result<ConfState, ConfChangeError> {
        if self.log.snapshot_pending() {
            return Ok(self.conf_state());
        }
        let next = self.membership.change(change, self.log.last())?;
        self.switch_to(next);
        self.check_invariants();
        Ok(self.conf_state())
    }

    /// The snapshot that a `Snap` message will name. Without one at or above the log's base, raft names its own applied
    /// index and configuration with no data; whoever sends the message may put in what it really streams.
    pub fn offer_snapshot(&mut self, snapshot: Snapshot) {
        self.offered = Some(snapshot);
    }

    /// Up to where [`Raft::release`] may go: what is applied, and durable as far as this node has heard. A receipt of a
    /// former term says nothing to it, so it may know less than its driver does, until the next receipt.
    pub fn releasable(&self) -> Index {
        self.log.releasable()
    }

    /// Drops the log up to and including this index, not above [`Raft::releasable`]; whoever needs it gets a snapshot.
    pub fn release(&mut self, up_to: Index) {
        self.log.release(up_to);
        self.check_invariants();
    }

    /// Drops applied and durable entries from memory, oldest first, until at most this many bytes are left. Their terms
    /// stay; they are read back with a [`Fetch`].
    pub fn evict(&mut self, bytes: u64) {
        self.log.evict(bytes);
    }

    /// The append with this receipt, and all before it, are durable. Receipts come back in order.
    pub fn on_persisted(&mut self, persisted: Persisted) {
        for own in persisted.own {
            self.step_own(own.message);
        }
        assert!(persisted.term <= self.term, "a receipt of a term to come");
        if let Some((index, term)) = persisted.last
            && persisted.term == self.term
        {
            self.log.stable_to(index, term);
        }
        self.check_invariants();
    }

    /// The state machine now is this snapshot. Entries behind it are handed out from here on.
    pub fn on_snapshot_installed(&mut self, index: Index) {
        self.log.snapshot_installed(index);
        self.advance_applied(index);
    }

    /// The state machine has applied everything up to here.
    pub fn on_applied(&mut self, index: Index) {
        assert!(index <= self.log.applying(), "{index} was not yet handed out for applying");
        self.advance_applied(index);
    }

    /// The answer to a [`Fetch`]: entries from its `low` on, in order, without a gap; none if the read failed. Every fetch is
    /// answered once, or its follower gets no more appends.
    pub fn on_fetched(&mut self, to: NodeId, low: Index, entries: Vec<Entry>) {
        self.send_fetched(to, low, entries);
        self.check_invariants();
    }

    // --- Outputs. ---

    /// Whether [`Raft::ready`] has anything to say.
    pub fn has_ready(&self) -> bool {
        !self.messages.is_empty()
            || !self.messages_after_persist.is_empty()
            || !self.own_messages.is_empty()
            || !self.read_states.is_empty()
            || !self.fetches.is_empty()
            || self.log.has_unstable_to_take()
            || self.log.has_snapshot_to_take()
            || self.log.has_committed_to_take(self.config.apply_unstable)
            || self.current_hard_state() != self.hard_state
            || self.current_soft_state() != self.soft_state
    }

    /// What must happen next.
    pub fn ready(&mut self) -> Ready {
        let soft_state = self.current_soft_state();
        let hard_state = self.current_hard_state();
        let ballot = |state: &HardState| (state.term, state.vote);
        let ballot_changed = ballot(&hard_state) != ballot(&self.hard_state);
        // Asked before anything is taken: while any entry is not known to be durable, the receipt names the last one.
        let unknown = self.log.stable() < self.log.last();
        let last = unknown.then(|| (self.log.last(), self.log.last_term()));
        let mut ready = Ready {
            soft_state: (soft_state != self.soft_state).then_some(soft_state),
            hard_state: (hard_state != self.hard_state).then_some(hard_state),
            entries: self.log.take_unstable(),
            snapshot: self.log.take_snapshot(),
            committed: self.log.take_committed(self.config.apply_unstable),
            messages: mem::take(&mut self.messages),
            messages_after_persist: mem::take(&mut self.messages_after_persist),
            read_states: mem::take(&mut self.read_states),
            fetches: mem::take(&mut self.fetches),
            must_sync: false,
            persisted: None,
        };
        let ballot_counts = ballot_changed && !mutant::is(Mutant::BallotUnsynced);
        ready.must_sync = !ready.entries.is_empty() || ballot_counts;
        let own = mem::take(&mut self.own_messages);
        if !ready.entries.is_empty()
            || ready.hard_state.is_some()
            || ready.snapshot.is_some()
            || !ready.messages_after_persist.is_empty()
            || !own.is_empty()
        {
            ready.persisted = Some(Persisted { term: self.term, last, own });
        }
        self.soft_state = soft_state;
        self.hard_state = hard_state;
        ready
    }

    // --- Questions. ---

    /// The configuration that [`Raft::apply_conf_change`] would switch to.
    pub fn would_switch_to(&self, change: &ConfChangeV2) -> Result<ConfState, ConfChangeError> {
        Ok(self.membership.change(change, self.log.last())?.conf_state())
    }

    /// The node's own name.
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// Its role.
    pub fn role(&self) -> RoleKind {
        self.role.kind()
    }

    /// The leader as far as known, or 0.
    pub fn leader(&self) -> NodeId {
        match self.role {
            Role::Follower { leader } => leader,
            Role::PreCandidate(_) | Role::Candidate(_) => NONE,
            Role::Leader(_) => self.config.id,
        }
    }

    /// Its term.
    pub fn term(&self) -> Term {
        self.term
    }

    /// The committed index.
    pub fn commit(&self) -> Index {
        self.log.committed()
    }

    /// The applied index.
    pub fn applied(&self) -> Index {
        self.log.applied()
    }

    /// The last entry's index.
    pub fn last_index(&self) -> Index {
        self.log.last()
    }

    /// How far this peer's log, or the node's own, is known to be durable and the same; `None` unless this node leads.
    pub fn matched(&self, id: NodeId) -> Option<Index> {
        if !self.is_leader() {
            return None;
        }
        self.membership.progress(id).map(|progress| progress.matched)
    }

    /// The index that the log begins after.
    pub fn base_index(&self) -> Index {
        self.log.base().0
    }

    /// The term of an entry; `None` if it was released or does not exist.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term(index)
    }

    /// Bytes of entries in memory.
    pub fn bytes_in_memory(&self) -> u64 {
        self.log.bytes()
    }

    /// Whether an entry of the current term is committed; a leader may answer reads only then (thesis §6.4).
    pub fn committed_in_term(&self) -> bool {
        self.log.matches(self.log.committed(), self.term)
    }

    /// The configuration in force.
    pub fn conf_state(&self) -> ConfState {
        self.membership.conf_state()
    }

    /// A leader whose log may hold a membership change that is not yet applied.
    pub fn conf_change_pending(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.pending_conf_index > self.log.applied(),
            _ => false,
        }
    }

    /// A picture of the whole node.
    pub fn status(&self) -> Status {
        let (transferee, peers) = match &self.role {
            Role::Leader(leader) => (leader.transferee, self.membership.nodes().to_vec()),
            _ => (NONE, Vec::new()),
        };
        Status {
            id: self.config.id,
            role: self.role(),
            leader: self.leader(),
            term: self.term,
            vote: self.vote,
            commit: self.log.committed(),
            applied: self.log.applied(),
            last: self.log.last(),
            transferee,
            conf_state: self.conf_state(),
            peers,
        }
    }

    /// Overrides the randomized election timeout until the next change of role; for tests and simulation.
    pub fn set_election_timeout(&mut self, ticks: u32) {
        self.election_timeout = ticks;
    }

    // --- The protocol, as far as all roles share it. ---

    /// Refuses what no correct peer sends, before it can change anything.
    fn let_in(&self, m: &Message) -> Result<(), StepError> {
        use MessageKind::*;
        let refuse = |why| Err(StepError::Malformed(why));
        match m.kind {
            Hup | Beat | Unreachable | SnapStatus | CheckQuorum | StorageAppend
            | StorageAppendResp | StorageApply | StorageApplyResp | ForgetLeader => {
                return Err(StepError::LocalMessage);
            }
            AppResp | VoteResp | HeartbeatResp | ReadIndexResp | PreVoteResp
                if self.membership.progress(m.from).is_none() =>
            {
                return Err(StepError::PeerNotFound);
            }
            // These bear no term: they are for whoever leads.
            Prop | ReadIndex if m.term != Term(0) => return refuse("a request with a term"),
            Prop | ReadIndex | TransferLeader => {}
            _ if m.term == Term(0) => return refuse("no term"),
            _ => {}
        }
        if m.to != self.config.id {
            return refuse("a message for somebody else");
        }
        // A transfer names its transferee, which may be the leader itself.
        let own = m.from == self.config.id && m.kind != TransferLeader;
        if m.from == NONE || m.from >= u64::MAX - 1 || own {
            return refuse("no such sender");
        }
        let numbers = [m.term.0, m.index.0, m.log_term.0, m.commit.0];
        if numbers.iter().any(|number| *number > NUMBER_MAX) {
            return refuse("a number out of range");
        }
        match m.kind {
            App => {
                let (mut index, mut term) = (m.index, m.log_term);
                for entry in &m.entries {
                    if entry.index != index.next() || entry.term < term || entry.term > m.term {
                        return refuse("entries that do not follow each other");
                    }
                    (index, term) = (entry.index, entry.term);
                }
                if m.log_term > m.term {
                    return refuse("an entry of a term to come");
                }
            }
            Snap => {
                let place = m.snapshot.as_ref().map(|snapshot| &snapshot.metadata);
                let Some(place) = place.filter(|place| place.index > Index(0)) else {
                    return refuse("a snapshot message without a snapshot");
                };
                let genuine = place.term > Term(0) && place.term <= m.term;
                if !genuine || place.index.0 > NUMBER_MAX {
                    return refuse("a snapshot of nowhere");
                }
            }
            Prop => {
                let decodes = |entry: &Entry| ConfChangeV2::of_entry(entry).is_ok();
                if m.entries.is_empty() || !m.entries.iter().all(decodes) {
                    return refuse("a proposal of nothing");
                }
            }
            ReadIndex | ReadIndexResp if m.entries.len() != 1 => {
                return refuse("a read without its one context");
            }
            _ => {}
        }
        Ok(())
    }

    /// What this node says to itself. It cannot be malformed, and being dropped is no error.
    fn step_own(&mut self, message: Message) {
        let outcome = self.step_any(message);
        assert!(!matches!(outcome, Err(StepError::Malformed(_))), "own message: {outcome:?}");
        self.check_invariants();
    }

    /// First the term, which comes before all else (thesis §3.3), then votes, then what depends on the role.
    fn step_any(&mut self, m: Message) -> Result<(), StepError> {
        use MessageKind::*;
        if m.term > self.term {
            // Whoever has heard a leader lately does not let himself be disturbed (thesis §4.2.3), unless that leader wants it.
            let in_lease = self.config.check_quorum
                && self.leader() != NONE
                && self.election_elapsed < self.config.election_ticks;
            if matches!(m.kind, Vote | PreVote) && in_lease && m.context != TRANSFER_CONTEXT {
                return Ok(());
            }
            match m.kind {
                // Only a question about a term to come.
                PreVote => {}
                // The answer to one; the term is taken up if the campaign follows.
                PreVoteResp if !m.reject => {}
                App | Heartbeat | Snap => self.become_follower(m.term, m.from),
                _ => self.become_follower(m.term, NONE),
            }
        } else if m.term < self.term && m.term != Term(0) {
            let aware = self.config.check_quorum || self.config.pre_vote;
            match m.kind {
                // A leader of the past, and this node's requests for a vote would be ignored: it must hear of the new
                // term, or this node will never be let back in.
                App | Heartbeat if aware => {
                    self.send(Message { kind: AppResp, to: m.from, ..Message::default() });
                }
                // Where a candidate of a later term has a shorter log, pre-candidates must hear of that term, too.
                PreVote => {
                    let (kind, term) = (PreVoteResp, self.term);
                    self.send(Message {
                        kind,
                        to: m.from,
                        term,
                        reject: true,
                        ..Message::default()
                    });
                }
                // Everything else of the past is void.
                _ => {}
            }
            return Ok(());
        }

        match m.kind {
            Vote | PreVote => {
                let may_vote = self.vote == m.from
                    || (self.vote == NONE && self.leader() == NONE)
                    || (m.kind == PreVote && m.term > self.term)
                    || mutant::is(Mutant::VoteTwice);
                // A learner votes, too: that it was made a voter may not have reached it (C42).
                let complete = self.log.is_up_to_date(m.index, m.log_term)
                    || mutant::is(Mutant::VoteForShorterLog);
                let granted = may_vote && !self.is_forgetful() && complete;
                // The request's term in a grant: a pre-candidate would ignore an answer of the past. One's own in a refusal.
                let term = if granted { m.term } else { self.term };
                let kind = if m.kind == Vote { VoteResp } else { PreVoteResp };
                self.send(Message {
                    kind,
                    to: m.from,
                    term,
                    reject: !granted,
                    ..Message::default()
                });
                if granted && m.kind == Vote {
                    self.election_elapsed = 0;
                    self.vote = m.from;
                }
                Ok(())
            }
            _ => match self.role {
                Role::Follower { .. } => self.step_follower(m),
                Role::PreCandidate(_) | Role::Candidate(_) => self.step_candidate(m),
                Role::Leader(_) => self.step_leader(m),
            },
        }
    }

    fn hup_as_configured(&mut self) {
        self.hup(if self.config.pre_vote { Campaign::PreElection } else { Campaign::Election });
    }

    fn propose_all(&mut self, proposals: Vec<(EntryKind, Bytes)>) -> Result<(), StepError> {
        assert!(!proposals.is_empty(), "a proposal of nothing");
        let outcome = if self.is_leader() {
            self.propose_as_leader(proposals)
        } else {
            let entry = |(kind, data)| Entry { kind, data, ..Entry::default() };
            let entries = proposals.into_iter().map(entry).collect();
            let (kind, from) = (MessageKind::Prop, self.config.id);
            self.step_any(Message { kind, from, entries, ..Message::default() })
        };
        self.check_invariants();
        outcome
    }

    fn advance_applied(&mut self, index: Index) {
        let applied = index.max(self.log.applied());
        let payload = self.log.applied_to(applied);
        if mem::take(&mut self.switched) {
            self.applied_conf_state = self.membership.conf_state();
        }
        let leave = self.membership.auto_leave();
        if let Role::Leader(leader) = &mut self.role {
            leader.uncommitted_bytes = leader.uncommitted_bytes.saturating_sub(payload);
            if leave && applied >= leader.pending_conf_index {
                // Dropped while leadership is being handed over; the next leader, or the next applied entry, sees to it.
                let leave = vec![(EntryKind::ConfChangeV2, Bytes::new())];
                let dropped = self.propose_as_leader(leave).err();
                assert!(
                    matches!(dropped, None | Some(StepError::ProposalDropped)),
                    "leaving a joint configuration: {dropped:?}"
                );
            }
        }
        self.check_invariants();
    }

    /// A new configuration is in force at once (thesis §4.1).
    fn switch_to(&mut self, membership: Membership) {
        self.membership = membership;
        self.switched = true;
        let own = self.membership.progress(self.config.id);
        let gone = own.is_none_or(|progress| progress.learner);
        if !self.is_leader() {
            return;
        }
        if gone {
            // It may lead until what removes it is committed everywhere, without counting itself (thesis §4.2.2).
            if self.config.step_down_on_removal {
                self.become_follower(self.term, NONE);
            }
            return;
        }
        if self.maybe_commit() {
            // Fewer are needed now.
            self.release_held_reads();
            self.broadcast_append();
        } else {
            // Who is new need not wait for a heartbeat.
            self.for_each_peer(|raft, id| {
                raft.maybe_send_append(id, false);
            });
        }
        if let Role::Leader(leader) = &mut self.role
            && !self.membership.voters().contains(leader.transferee)
        {
            leader.transferee = NONE;
        }
        // Who confirmed these reads may be a quorum now; if nobody else is left, nobody else will answer.
        self.answer_confirmed_reads();
    }

    fn snapshot_to_send(&self) -> Snapshot {
        let offered = self.offered.as_ref();
        if let Some(offered) = offered.filter(|offer| offer.metadata.index >= self.log.base().0) {
            return offered.clone();
        }
        let index = self.log.applied();
        let term = self.log.term(index).expect("what is applied lies at or above the base");
        let metadata =
            SnapshotMetadata { conf_state: self.applied_conf_state.clone(), index, term };
        Snapshot { data: Bytes::new(), metadata }
    }

    /// Queues a message. What vouches for a vote or an entry waits until that is durable (thesis §3.8); that a rejection
    /// does, too, costs little and need not be argued about.
    fn send(&mut self, mut message: Message) {
        use MessageKind::*;
        if message.from == NONE {
            message.from = self.config.id;
        }
        match message.kind {
            Vote | VoteResp | PreVote | PreVoteResp => {
                assert!(message.term > Term(0), "{:?} without its term", message.kind);
            }
            // They bear no term: whoever leads when they arrive takes them.
            Prop | ReadIndex => assert_eq!(message.term, Term(0), "a request with a term"),
            _ => message.term = self.term,
        }
        match message.kind {
            AppResp | VoteResp | PreVoteResp if message.to == self.config.id => {
                let after = self.messages_after_persist.len();
                self.own_messages.push(OwnMessage { after, message });
            }
            AppResp | VoteResp | PreVoteResp if !mutant::is(Mutant::AnswerBeforeSync) => {
                self.messages_after_persist.push(message);
            }
            _ => {
                assert_ne!(message.to, self.config.id, "{:?} to itself", message.kind);
                self.messages.push(message);
            }
        }
    }

    fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    fn current_soft_state(&self) -> SoftState {
        SoftState { leader: self.leader(), role: self.role() }
    }

    fn current_hard_state(&self) -> HardState {
        HardState { term: self.term, vote: self.vote, commit: self.log.committed() }
    }

    fn check_invariants(&self) {
        self.log.check_invariants();
        match &self.role {
            Role::Follower { .. } | Role::PreCandidate(_) => {}
            Role::Candidate(_) => assert_eq!(self.vote, self.config.id, "it votes for itself"),
            Role::Leader(_) => {
                assert_eq!(self.log.last_term(), self.term, "a leader appends in its term");
                assert!(!self.log.snapshot_pending(), "a leader has the whole log");
                for (id, progress) in self.membership.nodes() {
                    let (matched, next, last) = (progress.matched, progress.next, self.log.last());
                    assert!(matched < next, "{id} matches {matched}, next is {next}");
                    assert!(matched <= last, "{id} matches {matched}, the last is {last}");
                }
            }
        }
    }
}
