//! Groups of nodes whose messages are lost, doubled and reordered, whose disks are slow, and who crash; and nodes that
//! are told nonsense. What must hold is checked at every event:
//!
//! - a term has one leader (election safety, thesis figure 3.2);
//! - all nodes apply the same entry at the same index (state machine safety);
//! - a read index is no lower than anything committed anywhere when the read was asked for (thesis §6.4);
//! - no honest message is refused as malformed;
//! - when all faults have ended, the group has a leader and commits.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;
use raft::*;
use std::collections::{BTreeMap, VecDeque};

/// What survives a crash.
#[derive(Clone, Default)]
struct Disk {
    hard_state: HardState,
    conf_state: ConfState,
    base: (Index, Term),
    entries: Vec<Entry>,
}

impl Disk {
    fn write(&mut self, job: &AppendJob) {
        if let Some(hard_state) = job.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(Snapshot { metadata, .. }) = &job.snapshot {
            self.base = (metadata.index, metadata.term);
            self.conf_state = metadata.conf_state.clone();
            self.entries.clear();
            self.hard_state.commit = self.hard_state.commit.max(metadata.index);
        }
        let Some(first) = job.entries.first() else { return };
        self.entries.retain(|entry| entry.index < first.index);
        let base = self.base.0;
        self.entries.extend(job.entries.iter().filter(|entry| entry.index > base).cloned());
    }
}

struct AppendJob {
    hard_state: Option<HardState>,
    snapshot: Option<Snapshot>,
    entries: Vec<Entry>,
    after: Vec<Message>,
    persisted: Persisted,
}

struct Member {
    raft: Raft,
    disk: Disk,
    appends: VecDeque<AppendJob>,
    applies: VecDeque<Entry>,
    fetches: Vec<Fetch>,
    /// The configuration after each applied entry.
    configurations: BTreeMap<Index, ConfState>,
}

struct Group {
    random: u64,
    members: Vec<Member>,
    messages: Vec<Message>,
    leaders: BTreeMap<Term, NodeId>,
    applied: BTreeMap<Index, (Term, Bytes)>,
    /// What was committed anywhere when the read of this number was asked for.
    reads: Vec<Index>,
    reads_answered: usize,
    apply_unstable: bool,
    /// Nobody hears or is heard by this member, counted from 0, if there is one.
    isolated: u64,
    snapshots: usize,
    fetched: usize,
    changes: usize,
}

impl Group {
    fn new(seed: u64) -> Group {
        let mut group = Group {
            random: seed.wrapping_mul(2).wrapping_add(1),
            members: Vec::new(),
            messages: Vec::new(),
            leaders: BTreeMap::new(),
            applied: BTreeMap::new(),
            reads: Vec::new(),
            reads_answered: 0,
            apply_unstable: seed.is_multiple_of(2),
            isolated: u64::MAX - 1,
            snapshots: 0,
            fetched: 0,
            changes: 0,
        };
        for id in 1..=5 {
            // Who is not yet a member knows where the group began, for it replays the whole log.
            let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
            let disk = Disk { conf_state, ..Disk::default() };
            let member = group.start(id, disk);
            group.members.push(member);
        }
        group
    }

    fn start(&mut self, id: NodeId, disk: Disk) -> Member {
        let config = Config {
            id,
            election_ticks: 6,
            max_size_per_message: 60,
            max_inflight_messages: 4,
            max_committed_bytes_per_ready: 100,
            apply_unstable: self.apply_unstable,
            seed: self.pick(u64::MAX),
            ..Config::default()
        };
        let restored = Restored {
            hard_state: disk.hard_state,
            conf_state: disk.conf_state.clone(),
            applied: disk.base.0,
            base: disk.base,
            term_runs: Vec::new(),
            entries: disk.entries.clone(),
            forgot_in: None,
        };
        let configurations = BTreeMap::from([(disk.base.0, disk.conf_state.clone())]);
        Member {
            raft: Raft::new(config, restored).unwrap(),
            disk,
            appends: VecDeque::new(),
            applies: VecDeque::new(),
            fetches: Vec::new(),
            configurations,
        }
    }

    /// A number below `end` (xorshift).
    fn pick(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % end
    }

    fn take_ready(&mut self, place: usize) {
        let member = &mut self.members[place];
        if !member.raft.has_ready() {
            return;
        }
        let ready = member.raft.ready();
        self.messages.extend(ready.messages);
        member.fetches.extend(ready.fetches);
        member.applies.extend(ready.committed);
        if let Some(persisted) = ready.persisted {
            member.appends.push_back(AppendJob {
                hard_state: ready.hard_state,
                snapshot: ready.snapshot,
                entries: ready.entries,
                after: ready.messages_after_persist,
                persisted,
            });
        }
        for read in ready.read_states {
            let number = u64::from_le_bytes(read.context[..].try_into().unwrap());
            let floor = self.reads[number as usize];
            assert!(read.index >= floor, "read {number} got {}, not {floor}", read.index);
            self.reads_answered += 1;
        }
        if member.raft.role() == RoleKind::Leader {
            let leader = self.leaders.entry(member.raft.term()).or_insert(member.raft.id());
            assert_eq!(*leader, member.raft.id(), "two leaders in {}", member.raft.term());
        }
    }

    fn persist_one(&mut self, place: usize) {
        let member = &mut self.members[place];
        let Some(job) = member.appends.pop_front() else { return };
        member.disk.write(&job);
        self.messages.extend(job.after);
        member.raft.on_persisted(job.persisted);
        if let Some(Snapshot { metadata, .. }) = job.snapshot {
            member.applies.clear();
            member.configurations.insert(metadata.index, metadata.conf_state);
            member.raft.on_snapshot_installed(metadata.index);
            self.snapshots += 1;
        }
    }

    fn apply_one(&mut self, place: usize) {
        let member = &mut self.members[place];
        let Some(entry) = member.applies.pop_front() else { return };
        let applied = (entry.term, entry.data.clone());
        let known = self.applied.entry(entry.index).or_insert(applied.clone());
        assert_eq!(*known, applied, "entry {} differs", entry.index);
        if let Some(change) = ConfChangeV2::of_entry(&entry).unwrap() {
            // A change that came too late for its configuration is refused everywhere alike.
            let would = member.raft.would_switch_to(&change);
            assert_eq!(member.raft.apply_conf_change(&change).is_ok(), would.is_ok());
            self.changes += 1;
        }
        member.configurations.insert(entry.index, member.raft.conf_state());
        member.raft.on_applied(entry.index);
    }

    fn fetch_one(&mut self, place: usize) {
        let member = &mut self.members[place];
        let Some(fetch) = member.fetches.pop() else { return };
        let wanted = |entry: &&Entry| entry.index >= fetch.low && entry.index < fetch.high;
        let entries = member.disk.entries.iter().filter(wanted).cloned().collect();
        member.raft.on_fetched(fetch.to, fetch.low, entries);
        self.fetched += 1;
    }

    fn deliver(&mut self, message: Message) {
        let (place, from, kind) = (message.to as usize - 1, message.from, message.kind);
        if self.isolated + 1 == message.to || self.isolated + 1 == from {
            return;
        }
        let outcome = self.members[place].raft.step(message);
        if let Err(StepError::Malformed(why)) = outcome {
            panic!("an honest {kind:?} is refused: {why}");
        }
        if kind == MessageKind::Snap {
            self.members[from as usize - 1].raft.report_snapshot(place as u64 + 1, true);
        }
    }

    fn crash(&mut self, place: usize) {
        let mut disk = self.members[place].disk.clone();
        // The commit index on disk may be an old one.
        disk.hard_state.commit = disk.hard_state.commit.max(disk.base.0);
        self.members[place] = self.start(place as u64 + 1, disk);
    }

    fn release(&mut self, place: usize) {
        let member = &mut self.members[place];
        let durable = member.disk.base.0.0 + member.disk.entries.len() as u64;
        let up_to = Index(member.raft.applied().0.min(durable).saturating_sub(2));
        if up_to <= member.raft.base_index() || !member.appends.is_empty() {
            return;
        }
        let conf_state = member.configurations[&up_to].clone();
        let term = member.raft.term_at(up_to).unwrap();
        member.raft.release(up_to);
        member.disk.base = (up_to, term);
        member.disk.conf_state = conf_state;
        member.disk.entries.retain(|entry| entry.index > up_to);
        member.disk.hard_state.commit = member.disk.hard_state.commit.max(up_to);
    }

    fn change_membership(&mut self, place: usize) {
        let kinds = [
            ConfChangeKind::AddNode,
            ConfChangeKind::AddNode,
            ConfChangeKind::AddLearnerNode,
            ConfChangeKind::RemoveNode,
        ];
        let count = 1 + self.pick(2) as usize;
        let changes = (0..count).map(|_| ConfChangeSingle {
            kind: kinds[self.pick(4) as usize],
            node_id: 1 + self.pick(5),
        });
        let changes = changes.collect();
        let change = ConfChangeV2 { changes, ..ConfChangeV2::default() };
        // Who refuses it has no room or no leader; that is no matter here.
        self.members[place].raft.propose_conf_change_v2(&change).ok();
    }

    fn event(&mut self) {
        let place = self.pick(5) as usize;
        match self.pick(100) {
            0..40 if !self.messages.is_empty() => {
                let nth = self.pick(self.messages.len() as u64) as usize;
                let message = match self.pick(20) {
                    0 => return drop(self.messages.swap_remove(nth)),
                    1 => self.messages[nth].clone(),
                    _ => self.messages.swap_remove(nth),
                };
                self.deliver(message);
            }
            0..60 => self.take_ready(place),
            60..70 => self.persist_one(place),
            70..78 => self.apply_one(place),
            78..80 => self.fetch_one(place),
            80..88 => self.members[place].raft.tick(),
            88..93 => {
                let data = Bytes::from(self.pick(1000).to_string());
                self.members[place].raft.propose(vec![data.clone(), data]).ok();
            }
            93..96 => {
                let committed = self.members.iter().map(|member| member.raft.commit()).max();
                let context = (self.reads.len() as u64).to_le_bytes();
                self.reads.push(committed.unwrap());
                self.members[place].raft.read_index(Bytes::copy_from_slice(&context));
            }
            96 => match self.pick(6) {
                0 => self.crash(place),
                1 => self.members[place].raft.campaign(),
                2 => {
                    let to = 1 + self.pick(5);
                    self.members[place].raft.transfer_leader(to);
                }
                3 => self.members[place].raft.forget_leader(),
                4 => {
                    let to = 1 + self.pick(5);
                    self.members[place].raft.report_unreachable(to);
                }
                _ => self.isolated = self.pick(10),
            },
            97 => self.members[place].raft.evict(0),
            98 => self.release(place),
            _ => self.change_membership(place),
        }
        // A flood is no fault worth looking at.
        while self.messages.len() > 200 {
            let nth = self.pick(self.messages.len() as u64) as usize;
            self.messages.swap_remove(nth);
        }
    }

    /// All faults end, time goes on, and everything is done at once.
    fn heal(&mut self) {
        self.isolated = u64::MAX - 1;
        for round in 0..400 {
            for place in 0..5 {
                self.members[place].raft.tick();
                if round % 10 == 0 && self.members[place].raft.role() == RoleKind::Leader {
                    self.members[place].raft.propose(vec![Bytes::from_static(b"healed")]).ok();
                }
            }
            for _ in 0..6 {
                for place in 0..5 {
                    self.take_ready(place);
                    while !self.members[place].appends.is_empty() {
                        self.persist_one(place);
                    }
                    while !self.members[place].applies.is_empty() {
                        self.apply_one(place);
                    }
                    while !self.members[place].fetches.is_empty() {
                        self.fetch_one(place);
                    }
                }
                for message in std::mem::take(&mut self.messages) {
                    self.deliver(message);
                }
            }
        }
        let leaders = self.members.iter().filter(|member| member.raft.role() == RoleKind::Leader);
        let leader = leaders.max_by_key(|member| member.raft.term());
        let leader = &leader.expect("a healed group has a leader").raft;
        assert!(leader.committed_in_term(), "a healed group commits");
        let status = leader.status();
        for (id, progress) in &status.peers {
            let behind = status.last.0 - progress.matched.0;
            assert!(behind < 20, "{id} is {behind} entries behind: {progress}");
        }
    }
}

#[test]
fn a_group_keeps_its_promises_whatever_happens() {
    let mut seen = [0; 6];
    for seed in 0..60 {
        println!("seed {seed}");
        let mut group = Group::new(seed);
        for _ in 0..4000 {
            group.event();
        }
        group.heal();
        let Group { applied, reads_answered, leaders, .. } = &group;
        let counts = [applied.len(), *reads_answered, leaders.len()];
        let counts = counts.into_iter().chain([group.snapshots, group.fetched, group.changes]);
        for (sum, count) in seen.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    // Else the chaos kept anything from happening, and the checks above were idle.
    let [applied, reads, leaders, snapshots, fetches, changes] = seen;
    println!(
        "{applied} entries, {reads} reads, {leaders} leaders, {snapshots} snapshots, \
         {fetches} fetches, {changes} changes of membership"
    );
    assert!(applied > 5_000 && reads > 1_000 && leaders > 120);
    assert!(snapshots > 20 && fetches > 100 && changes > 200);
}

// --- Nonsense. ---

fn any_number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0u64..9, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1), 1 => Just(1 << 62)]
}

fn any_kind() -> impl Strategy<Value = MessageKind> {
    use MessageKind::*;
    prop::sample::select(vec![
        Hup,
        Beat,
        Prop,
        App,
        App,
        App,
        AppResp,
        AppResp,
        Vote,
        VoteResp,
        Snap,
        Heartbeat,
        HeartbeatResp,
        Unreachable,
        SnapStatus,
        CheckQuorum,
        TransferLeader,
        TimeoutNow,
        ReadIndex,
        ReadIndexResp,
        PreVote,
        PreVoteResp,
        StorageAppend,
        StorageAppendResp,
        StorageApply,
        StorageApplyResp,
        ForgetLeader,
    ])
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let kinds = vec![EntryKind::Normal, EntryKind::ConfChange, EntryKind::ConfChangeV2];
    let data = prop::collection::vec(any::<u8>(), 0..4);
    (prop::sample::select(kinds), any_number(), any_number(), data).prop_map(
        |(kind, term, index, data)| Entry {
            kind,
            term: Term(term),
            index: Index(index),
            data: data.into(),
        },
    )
}

fn any_message() -> impl Strategy<Value = Message> {
    let numbers = prop::array::uniform8(any_number());
    let entries = prop::collection::vec(any_entry(), 0..3);
    let set = || prop::collection::vec(0u64..5, 0..4);
    let metadata = (set(), set(), set(), set(), any_number(), any_number());
    let context = prop::collection::vec(any::<u8>(), 0..9);
    (any_kind(), numbers, entries, metadata, context, any::<[bool; 3]>()).prop_map(
        |(kind, numbers, mut entries, metadata, context, [reject, orderly, snapshot])| {
            let [from, to, term, log_term, index, commit, reject_hint, vote] = numbers;
            if orderly {
                for (entry, place) in entries.iter_mut().zip(1..) {
                    entry.index = Index(index.saturating_add(place));
                    entry.term = Term(log_term.max(term.min(3)));
                }
            }
            let (voters, learners, voters_outgoing, learners_next, at, of) = metadata;
            let conf_state =
                ConfState { voters, learners, voters_outgoing, learners_next, auto_leave: reject };
            let metadata = SnapshotMetadata { conf_state, index: Index(at), term: Term(of) };
            Message {
                kind,
                to: if to < 8 { 1 } else { to },
                from,
                term: Term(term),
                log_term: Term(log_term),
                index: Index(index),
                entries,
                commit: Index(commit),
                snapshot: snapshot.then(|| Box::new(Snapshot { data: Bytes::new(), metadata })),
                reject,
                reject_hint: Index(reject_hint),
                context: context.into(),
                vote,
                responses: Vec::new(),
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    /// Whatever a peer says, a node does not panic, and goes on (C46, C47).
    #[test]
    fn no_message_makes_a_node_panic(
        messages in prop::collection::vec(any_message(), 1..60),
        lead: bool,
        pre_vote: bool,
    ) {
        let voters = vec![1, 2, 3];
        let config = Config { pre_vote, apply_unstable: true, ..Config::default() };
        let conf_state = ConfState { voters, ..ConfState::default() };
        let mut raft = Raft::new(config, Restored { conf_state, ..Restored::default() }).unwrap();
        if lead {
            raft.campaign();
        }
        for message in messages {
            // Refused or not, it must not panic.
            raft.step(message).ok();
            raft.tick();
            while raft.has_ready() {
                let ready = raft.ready();
                if let Some(persisted) = ready.persisted {
                    raft.on_persisted(persisted);
                }
                if let Some(snapshot) = ready.snapshot {
                    raft.on_snapshot_installed(snapshot.metadata.index);
                }
                for entry in ready.committed {
                    if let Ok(Some(change)) = ConfChangeV2::of_entry(&entry) {
                        // Forged changes may be impossible.
                        raft.apply_conf_change(&change).ok();
                    }
                    raft.on_applied(entry.index);
                }
            }
            raft.evict(0);
        }
    }
}
