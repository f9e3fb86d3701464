//! What must hold, checked at every event: the promises are stated here once and watch every run.
//!
//! The checker stands outside all members. It knows what each log worker was given and has synced, every entry that
//! any member was told is committed, who led in which term and who voted for whom, and it keeps all of it across
//! crashes: a member may forget, the checker does not.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use raft::{Entry, EntryKind, HardState, MessageKind, NodeId};
use replica::LogJob;
use state_machine::{Header, Reply};

use crate::history::Answer;
use crate::model::{self, Model};
use crate::random::Digest;
use crate::roster::{Change, Roster};

/// The cluster's id.
pub const CLUSTER: u64 = 0xc105;

/// A promise that was not kept, in a sentence.
pub type Broken = String;

/// An entry that some member knows to be committed.
struct Committed {
    term: u64,
    hash: u64,
}

/// What a member's log holds, as far as it was told to write it.
#[derive(Clone, Default)]
pub struct LogMirror {
    /// Everything up to here is in the store or in a received snapshot, durably.
    base: u64,
    /// The place of a received snapshot whose record was written; it counts with the next sync.
    live_base: u64,
    live: BTreeMap<u64, (u64, u64)>,
    live_last: u64,
    /// Every entry up to here is durable as `live` has it.
    durable_last: u64,
    live_state: HardState,
    durable_state: HardState,
}

/// What one run of a log worker writes, noted before it runs.
pub struct LogRun {
    steps: Vec<LogStep>,
    sync: bool,
}

struct LogStep {
    snapshot: Option<u64>,
    entries: Vec<(u64, u64, u64)>,
    hard_state: Option<HardState>,
}

impl LogRun {
    /// What these jobs write.
    pub fn of(jobs: &[LogJob]) -> LogRun {
        let mut run = LogRun { steps: Vec::new(), sync: false };
        for job in jobs {
            match job {
                LogJob::Append(append) => {
                    run.steps.push(LogStep {
                        snapshot: append.snapshot.as_ref().map(|record| record.index.0),
                        entries: append
                            .entries
                            .iter()
                            .map(|entry| (entry.index.0, entry.term.0, hash_of(entry)))
                            .collect(),
                        hard_state: append.hard_state,
                    });
                    run.sync |= append.sync;
                }
                LogJob::Mark { hard_state, .. } => {
                    run.steps.push(LogStep {
                        snapshot: None,
                        entries: Vec::new(),
                        hard_state: Some(*hard_state),
                    });
                    run.sync = true;
                }
                LogJob::Release { .. } => {}
            }
        }
        run
    }

    /// Whether the record of a received snapshot is among it.
    pub fn has_snapshot(&self) -> bool {
        self.steps.iter().any(|step| step.snapshot.is_some())
    }
}

impl LogMirror {
    fn take(&mut self, run: &LogRun) {
        for step in &run.steps {
            if let Some(index) = step.snapshot {
                self.live.clear();
                self.live_base = index;
                self.live_last = index;
            }
            if let Some((first, ..)) = step.entries.first() {
                self.live.split_off(first);
                self.durable_last = self.durable_last.min(first - 1);
                for (index, term, hash) in &step.entries {
                    self.live.insert(*index, (*term, *hash));
                    self.live_last = *index;
                }
            }
            if let Some(state) = step.hard_state {
                self.live_state = state;
            }
        }
        if run.sync {
            self.base = self.base.max(self.live_base);
            self.durable_last = self.live_last.max(self.base);
            self.durable_state = self.live_state;
        }
    }

    fn holds(&self, index: u64, term: u64) -> bool {
        index <= self.base
            || index <= self.durable_last
                && self.live.get(&index).is_some_and(|(of, _)| *of == term)
    }

    /// The last index that is durable.
    pub fn durable_last(&self) -> u64 {
        self.durable_last
    }
}

/// What a restart found, for comparison with what had to be there.
pub struct Found {
    /// The applied index of the store.
    pub applied: u64,
    /// The revision.
    pub revision: i64,
    /// The hash of the keyspace there, and the mark under which it was computed.
    pub hash: (u32, i64),
    /// The term, vote and commit that raft begins with.
    pub hard_state: HardState,
    /// The log's last index.
    pub last: u64,
    /// The log's entries above the applied index.
    pub entries: Vec<Entry>,
}

/// What a lease's clock was last set by.
#[derive(Clone, Copy, Default)]
struct Kept {
    term: u64,
    at: u64,
}

/// All that must never be contradicted.
pub struct Truth {
    /// The reference, fed with every committed entry.
    pub model: Model,
    founders: usize,
    /// Who belongs to the cluster, from each accepted change on; from index 0 on the founders.
    rosters: Vec<(u64, Roster)>,
    /// The membership changes that were asked for, by their names.
    changes: BTreeMap<u64, Change>,
    /// A change that has just been committed, and whether it was accepted.
    news: Option<(Change, bool)>,
    committed: Vec<Committed>,
    index_of: BTreeMap<u64, u64>,
    refused: BTreeSet<u64>,
    leaders: BTreeMap<u64, (NodeId, u64)>,
    votes: BTreeMap<(u64, NodeId), NodeId>,
    /// (index, term) → the entry's hash and the term of the entry before it.
    logs: BTreeMap<(u64, u64), (u64, Option<u64>)>,
    hashes: BTreeMap<(i64, (i64, bool)), (u32, NodeId)>,
    kept: BTreeMap<i64, Kept>,
    /// How the last life of each lease's name was kept, and its time to live, once it has ended.
    former: BTreeMap<i64, (Kept, i64)>,
    /// Every lease's time to live in seconds, also of those that are gone.
    ttls: BTreeMap<i64, i64>,
    /// The entries that granted each lease and that ended it.
    spans: BTreeMap<i64, (u64, Option<u64>)>,
    mirrors: Vec<LogMirror>,
    /// The applied index that each member's store has synced.
    stored: Vec<u64>,
    /// How long a tick is for each member, in microseconds.
    tick_us: Vec<u64>,
    tick_ms: u64,
    /// Leases that the clock has ended.
    pub expired: u64,
    /// The highest revision and mark that any member has published.
    visible: (i64, i64),
}

/// The hash of what an entry says.
pub fn hash_of(entry: &Entry) -> u64 {
    let mut digest = Digest(Digest::of(&entry.data));
    digest.word(entry.kind as u64);
    digest.0
}

impl Truth {
    /// Nothing has happened yet.
    pub fn new(members: usize, lease_ttl_min: i64, tick_ms: u64, tick_us: Vec<u64>) -> Truth {
        Truth {
            model: Model::new(lease_ttl_min),
            founders: members,
            rosters: vec![(0, Roster::founded(members))],
            changes: BTreeMap::new(),
            news: None,
            committed: Vec::new(),
            index_of: BTreeMap::new(),
            refused: BTreeSet::new(),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            logs: BTreeMap::new(),
            hashes: BTreeMap::new(),
            kept: BTreeMap::new(),
            former: BTreeMap::new(),
            ttls: BTreeMap::new(),
            spans: BTreeMap::new(),
            mirrors: vec![LogMirror::default(); members],
            stored: vec![0; members],
            tick_us,
            tick_ms,
            expired: 0,
            visible: (1, -1),
        }
    }

    /// How many entries are known to be committed.
    pub fn committed(&self) -> u64 {
        self.committed.len() as u64
    }

    /// What a member's log holds.
    pub fn mirror(&self, member: usize) -> &LogMirror {
        &self.mirrors[member]
    }

    /// Somebody is about to join.
    pub fn add_member(&mut self) {
        self.mirrors.push(LogMirror::default());
        self.stored.push(0);
    }

    /// Who belongs to the cluster, by all that is known to be committed.
    pub fn roster(&self) -> &Roster {
        &self.rosters.last().expect("it begins with the founders").1
    }

    /// Who belongs to it by what is applied up to an index.
    pub fn roster_at(&self, applied: u64) -> &Roster {
        let in_force = self.rosters.iter().rev().find(|(from, _)| *from <= applied);
        &in_force.expect("it begins with the founders").1
    }

    /// Who belongs to it by what a member would know if it started now; `None` if it knows nothing yet.
    pub fn known_roster(&self, member: usize) -> Option<&Roster> {
        let committed = self.mirrors[member].durable_state.commit.0;
        let known = committed.max(self.stored[member]);
        (known > 0).then(|| self.roster_at(known))
    }

    /// A membership change is proposed under this name.
    pub fn on_change_asked(&mut self, id: u64, change: Change) {
        self.changes.insert(id, change);
    }

    /// The membership change that was committed last, and whether it was accepted, if nobody has taken note of it yet.
    pub fn take_change(&mut self) -> Option<(Change, bool)> {
        self.news.take()
    }

    /// Whether some log holds the membership change of this name, committed or not.
    pub fn is_in_a_log(&self, id: u64) -> bool {
        let Some(change) = self.changes.get(&id) else { return false };
        let data = change.encode(id);
        let hash = hash_of(&Entry { kind: EntryKind::ConfChange, data, ..Entry::default() });
        self.mirrors.iter().any(|mirror| mirror.live.values().any(|(_, of)| *of == hash))
    }

    /// Whether the request of this name is committed.
    pub fn is_committed(&self, id: u64) -> bool {
        self.index_of.contains_key(&id)
    }

    /// Whether a member's tables at an applied index say who belongs to the cluster there.
    pub fn check_members(
        &self,
        member: NodeId,
        applied: u64,
        cluster: &state_machine::Cluster,
    ) -> Result<(), Broken> {
        let want = self.roster_at(applied);
        // While a cluster is founded its members come one by one.
        if applied < self.founders as u64 || want.is_in(cluster) {
            return Ok(());
        }
        Err(format!(
            "member {member} has the members {:?}, removed {:?}, voting {:?} at index {applied}, and should have {want:?}",
            cluster.members.values().map(|m| (m.id, m.is_learner)).collect::<Vec<_>>(),
            cluster.removed,
            cluster.conf_state
        ))
    }

    /// Those who could have committed the entry at `index`: a leader may or may not have applied the last change before it,
    /// but has applied all others, or that change would not have been appended (thesis §4.1).
    fn deciders(&self, index: u64) -> impl Iterator<Item = &Roster> {
        let before = self.rosters.partition_point(|(from, _)| *from < index);
        self.rosters[..before].iter().rev().take(2).map(|(_, roster)| roster)
    }

    /// Whether the entry at `index`, committed in `term`, is durable on a majority of those who could have committed it.
    fn is_held(&self, index: u64, term: u64) -> bool {
        let holds = |member: usize| self.mirrors[member].holds(index, term);
        self.deciders(index).any(|roster| roster.has_quorum(holds))
    }

    /// Where the entry is durable, and who votes, in words.
    fn holders(&self, index: u64, term: u64) -> String {
        let voters = &self.roster().voters;
        let holds = |node: &&NodeId| self.mirrors[**node as usize - 1].holds(index, term);
        format!("{} of {} members", voters.iter().filter(holds).count(), voters.len())
    }

    /// A log worker begins a run. What its entries replace, or stands behind its snapshots, may be gone from now on,
    /// whether the run ends or not.
    pub fn on_log_begin(&mut self, member: usize, run: &LogRun) {
        let mirror = &mut self.mirrors[member];
        for step in &run.steps {
            let first = step.entries.first().map(|(first, ..)| first - 1);
            for kept in first.into_iter().chain(step.snapshot) {
                mirror.durable_last = mirror.durable_last.min(kept);
            }
        }
    }

    /// A log worker has done its run.
    pub fn on_log(&mut self, member: usize, run: &LogRun) -> Result<(), Broken> {
        for step in &run.steps {
            let mut previous = None;
            for (index, term, hash) in &step.entries {
                let known = self.logs.entry((*index, *term)).or_insert((*hash, previous));
                let contradicts = match (known.1, previous) {
                    (Some(one), Some(other)) => one != other,
                    _ => false,
                };
                if known.0 != *hash || contradicts {
                    return Err(format!(
                        "logs do not match: member {} has another entry at index {index} of term {term}, or before it",
                        member + 1
                    ));
                }
                if known.1.is_none() {
                    known.1 = previous;
                }
                previous = Some(*term);
            }
        }
        let had = self.mirrors[member].clone();
        self.mirrors[member].take(run);
        self.check_kept(member, &had, run)
    }

    /// What is committed and was in a member's log, whoever knew it, does not go away again: of what a run replaces or cuts
    /// off nothing is committed (thesis §5.3, log matching and leader completeness together).
    fn check_kept(&self, member: usize, had: &LogMirror, run: &LogRun) -> Result<(), Broken> {
        let replaced = run.steps.iter().filter_map(|step| step.entries.first());
        let Some(first) = replaced.map(|(first, ..)| *first).min() else { return Ok(()) };
        let has = &self.mirrors[member];
        let last = had.live_last.min(self.committed());
        for index in first.max(has.live_base + 1)..=last {
            let term = self.term_of(index);
            let holds = |log: &LogMirror| log.live.get(&index).is_some_and(|(of, _)| *of == term);
            if holds(had) && !holds(has) {
                return Err(format!(
                    "member {} had index {index} of term {term}, which is committed, and drops it from its log",
                    member + 1
                ));
            }
        }
        Ok(())
    }

    /// A member has published this revision and mark.
    pub fn on_published(&mut self, revision: i64, mark: i64) {
        self.visible = (self.visible.0.max(revision), self.visible.1.max(mark));
    }

    /// The revision, the mark and the applied index that a linearizable read asked now must not lie below: what is
    /// committed, for a read index covers that; of a lone member, which asks nobody, what somebody can have seen.
    pub fn least_read(&self) -> (i64, i64, u64) {
        match self.roster().voters.len() {
            1 => (self.visible.0, self.visible.1, 0),
            _ => (self.model.revision(), self.model.mark(), self.committed()),
        }
    }

    /// A store has synced its frames up to here.
    pub fn on_stored(&mut self, member: usize, index: u64) {
        self.stored[member] = self.stored[member].max(index);
    }

    /// A member hands a committed entry to apply.
    pub fn on_committed(&mut self, member: usize, entry: &Entry, now: u64) -> Result<(), Broken> {
        let (index, term, hash) = (entry.index.0, entry.term.0, hash_of(entry));
        if let Some(known) = self.committed.get(index as usize - 1) {
            if (known.term, known.hash) != (term, hash) {
                return Err(format!(
                    "committed entries differ: index {index} was committed in term {}, member {} has another of term {term}",
                    known.term,
                    member + 1
                ));
            }
            return Ok(());
        }
        if index != self.committed() + 1 {
            return Err(format!(
                "member {} applies index {index}, but only {} entries were ever committed",
                member + 1,
                self.committed()
            ));
        }
        // The founders' list stands committed in every log from the beginning, before anybody has agreed on anything.
        let is_founding = index <= self.founders as u64 && entry.kind == EntryKind::ConfChange;
        if !is_founding && !self.is_held(index, term) {
            return Err(format!(
                "index {index} of term {term} is committed for member {}, but durable on {}",
                member + 1,
                self.holders(index, term)
            ));
        }
        if !is_founding && let Some(other) = self.could_lead_without(index, term) {
            return Err(format!(
                "index {index} of term {term} is committed for member {}, but member {}, which lacks it, could still be elected",
                member + 1,
                other + 1
            ));
        }
        self.committed.push(Committed { term, hash });
        let outcome = match entry.kind {
            EntryKind::Normal => self.model.apply(Some(&entry.data)).clone(),
            _ if is_founding => self.model.apply(None).clone(),
            _ => self.on_change(index, entry)?,
        };
        if outcome.id != 0 {
            if self.refused.contains(&outcome.id) {
                return Err(format!(
                    "request {:x} was refused as not taken, and is committed at index {index}",
                    outcome.id
                ));
            }
            if let Some(first) = self.index_of.insert(outcome.id, index) {
                return Err(format!(
                    "request {:x} is committed twice, at {first} and {index}",
                    outcome.id
                ));
            }
        }
        if let Some(lease) = outcome.granted {
            self.kept.insert(lease, Kept { term, at: now });
            self.ttls.insert(lease, self.model.leases()[&lease].ttl);
            self.spans.insert(lease, (index, None));
        }
        if let Some(lease) = outcome.revoked {
            if let Some((_, end)) = self.spans.get_mut(&lease) {
                *end = Some(index);
            }
            self.check_expiry(lease, outcome.id, term, now)?;
        }
        Ok(())
    }

    /// A membership change is committed: it is one that somebody asked for, and what becomes of it is decided here.
    fn on_change(&mut self, index: u64, entry: &Entry) -> Result<model::Outcome, Broken> {
        let id = raft::ConfChange::decode(&entry.data).map_or(0, |change| change.id);
        let asked = self.changes.get(&id).copied();
        let Some(change) = asked.filter(|change| change.encode(id) == entry.data) else {
            return Err(format!("index {index} changes the membership as nobody has asked for"));
        };
        let verdict = self.roster().after(change);
        self.news = Some((change, verdict.is_ok()));
        let refusal = verdict.as_ref().err().copied();
        if let Ok(roster) = verdict {
            self.rosters.push((index, roster));
        }
        Ok(self.model.note_change(id, refusal).clone())
    }

    /// A lease whose end a leader's clock has decided had all its time, as that leader counts it; or the lease of the same
    /// name before it had, if a client has revoked that one and granted it again while the clock's decision was on its way:
    /// what is proposed then names the lease alone, here as in etcd.
    fn check_expiry(&mut self, lease: i64, id: u64, term: u64, now: u64) -> Result<(), Broken> {
        let is_own = id >> 42 & 0x3f == 63;
        let ttl = self.ttls.get(&lease).copied().unwrap_or(0);
        let life = (self.kept.remove(&lease).unwrap_or_default(), ttl);
        let former = self.former.insert(lease, life);
        if !is_own {
            return Ok(());
        }
        self.expired += 1;
        let Some((leader, since)) = self.leaders.get(&term).copied() else { return Ok(()) };
        let tick_us = self.tick_us[(leader as usize - 1) % self.founders];
        let tick_ms = self.tick_ms;
        let least = |(kept, ttl): (Kept, i64)| {
            let from = if kept.term == term { kept.at.max(since) } else { since };
            let ticks = (ttl as u64 * 1_000).div_ceil(tick_ms).saturating_sub(2);
            from + ticks * tick_us
        };
        if now < least(life) && former.is_none_or(|former| now < least(former)) {
            return Err(format!(
                "lease {lease:x} of {ttl} s was ended by the clock of term {term} {} ms too early",
                (least(life) - now) / 1_000
            ));
        }
        Ok(())
    }

    /// A leader answers a question about a lease that came when so much was committed as far as it knew: a lease that it
    /// knows was not gone by then, and one that it does not know had not been granted by then, or has ended since.
    pub fn check_lease_known(&self, lease: i64, is_known: bool, asked: u64) -> Result<(), Broken> {
        match (is_known, self.spans.get(&lease)) {
            (true, None) => Err(format!("lease {lease:x} is said to live and was never granted")),
            (true, Some((_, Some(end)))) if *end <= asked => Err(format!(
                "lease {lease:x} is said to live, but index {end} had ended it and {asked} was committed"
            )),
            (false, Some((start, None))) if *start <= asked => Err(format!(
                "lease {lease:x} is said not to exist, but index {start} had granted it and {asked} was committed"
            )),
            _ => Ok(()),
        }
    }

    /// A leader says how long a lease was granted for and still lives, in seconds: no longer than a new leader gives it,
    /// which is its time and an election timeout of less than two seconds.
    pub fn check_time_to_live(
        &self,
        lease: i64,
        (remaining, granted): (i64, i64),
        asked: u64,
    ) -> Result<(), Broken> {
        // One that was granted since may be another of the same id.
        let is_the_one = self.spans.get(&lease).is_some_and(|(start, _)| *start <= asked);
        let ttl = self.ttls.get(&lease).copied().unwrap_or(0);
        if is_the_one && (granted != ttl || remaining > ttl + 2) {
            return Err(format!(
                "lease {lease:x} of {ttl} s is said to be of {granted} s, {remaining} s of them left"
            ));
        }
        Ok(())
    }

    /// The keys that a member says hang on a lease are those which the model has on it at that member's revision.
    pub fn check_lease_keys(
        &self,
        member: NodeId,
        lease: i64,
        revision: i64,
        keys: &[Bytes],
    ) -> Result<(), Broken> {
        let zero = Bytes::from_static(b"\0");
        let mut want = self.model.live(&zero, &zero, revision);
        want.retain(|kv| kv.lease == lease);
        if !keys.iter().eq(want.iter().map(|kv| &kv.key)) {
            return Err(format!(
                "member {member} has the keys {keys:?} on lease {lease:x} at revision {revision}, and should have {want:?}"
            ));
        }
        Ok(())
    }

    /// A leader's clock has told a client that its lease is kept alive.
    pub fn on_kept_alive(&mut self, lease: i64, term: u64, now: u64) -> Result<(), Broken> {
        let kept = self.kept.entry(lease).or_default();
        if term >= kept.term {
            *kept = Kept { term, at: now };
        }
        Ok(())
    }

    /// Somebody leads a term, by its own word or by that of a member that follows it.
    pub fn on_leader(&mut self, leader: NodeId, term: u64, now: u64) -> Result<(), Broken> {
        // One that wins late, by answers that were long on their way, need not have what later terms have committed.
        if term > self.last_term()
            && let Some(index) = self.first_missing(leader as usize - 1)
        {
            return Err(format!(
                "member {leader} leads term {term} without index {index} of term {}, which is committed",
                self.committed[index as usize - 1].term
            ));
        }
        let (known, _) = *self.leaders.entry(term).or_insert((leader, now));
        if known != leader {
            return Err(format!("two leaders in term {term}: members {known} and {leader}"));
        }
        Ok(())
    }

    /// The greatest term in which somebody led.
    pub fn last_term(&self) -> u64 {
        self.leaders.last_key_value().map_or(0, |(term, _)| *term)
    }

    /// The first committed entry that a member's log does not hold; of those behind the founders' list, which stands in
    /// every founder's log from the beginning.
    fn first_missing(&self, member: usize) -> Option<u64> {
        let mirror = &self.mirrors[member];
        let founded = if member < self.founders { self.founders as u64 } else { 0 };
        let settled = mirror.base.max(founded);
        let holds = |index: &u64| {
            let term = self.committed[*index as usize - 1].term;
            mirror.live.get(index).is_some_and(|(of, _)| *of == term)
        };
        (settled + 1..=self.committed()).find(|index| !holds(index))
    }

    /// The term of a committed entry; 0 of what is none.
    fn term_of(&self, index: u64) -> u64 {
        let place = index.checked_sub(1).and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| self.committed.get(place)).map_or(0, |known| known.term)
    }

    /// A member that lacks the entry and could be elected all the same, if all went down and came back with what is
    /// durable: it lies ahead of a majority, by the rule of votes (thesis §3.6.1). If there is one, the entry was not
    /// committed (§3.6.2, figure 3.7).
    fn could_lead_without(&self, index: u64, term: u64) -> Option<usize> {
        let last = |mirror: &LogMirror| -> (u64, u64) {
            let index = mirror.durable_last.max(mirror.base);
            let of = mirror.live.get(&index).map(|(term, _)| *term);
            let settled = || self.term_of(index);
            (of.unwrap_or_else(settled), index)
        };
        let lasts: Vec<(u64, u64)> = self.mirrors.iter().map(last).collect();
        (0..self.mirrors.len()).find(|&member| {
            let mirror = &self.mirrors[member];
            if mirror.holds(index, term) {
                return false;
            }
            // It campaigns when it has applied what it knows to be committed, and counts the votes of those who vote there.
            let roster = self.roster_at(mirror.base.max(mirror.durable_state.commit.0));
            let is_voter = roster.voters.contains(&(member as u64 + 1));
            is_voter && roster.has_quorum(|voter| lasts[member] >= lasts[voter])
        })
    }

    /// A message leaves a member: what it vouches for is durable there.
    pub fn on_message(
        &mut self,
        member: usize,
        message: &raft::Message,
        now: u64,
    ) -> Result<(), Broken> {
        let mirror = &self.mirrors[member];
        let from = member as u64 + 1;
        match message.kind {
            MessageKind::AppResp if !message.reject => {
                // An acknowledgement of an earlier term may leave behind the sync of what has replaced its entries since:
                // had it left at once, it would have been true, and nobody could tell the difference.
                let index = message.index.0;
                let is_past = mirror.durable_state.term > message.term;
                if index > mirror.durable_last.max(mirror.base) && !is_past {
                    return Err(format!(
                        "member {from} acknowledges index {index}, but only {} is durable there",
                        mirror.durable_last
                    ));
                }
            }
            MessageKind::VoteResp if !message.reject => {
                // Where a later term is durable, nobody votes in this one again, whatever became of the vote's record.
                let state = mirror.durable_state;
                let is_kept = state.term > message.term
                    || (state.term, state.vote) == (message.term, message.to);
                if !is_kept {
                    return Err(format!(
                        "member {from} votes for {} in term {}, but durable there is a vote for {} in term {}",
                        message.to, message.term, state.vote, state.term
                    ));
                }
                let known = *self.votes.entry((message.term.0, from)).or_insert(message.to);
                if known != message.to {
                    return Err(format!(
                        "member {from} votes for {known} and for {} in term {}",
                        message.to, message.term
                    ));
                }
            }
            MessageKind::App | MessageKind::Heartbeat | MessageKind::Snap => {
                // Else it could lead this term a second time, with other entries.
                let state = mirror.durable_state;
                let is_own = state.term > message.term
                    || (state.term, state.vote) == (message.term, message.from);
                if !is_own {
                    return Err(format!(
                        "member {from} leads term {}, but durable there is a vote for {} in term {}",
                        message.term, state.vote, state.term
                    ));
                }
                self.on_leader(message.from, message.term.0, now)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The replica says that it did not take a proposal.
    pub fn on_refused(&mut self, id: u64) -> Result<(), Broken> {
        self.refused.insert(id);
        match self.index_of.get(&id) {
            Some(index) => {
                Err(format!("request {id:x} was committed at {index} and is refused as not taken"))
            }
            None => Ok(()),
        }
    }

    /// A shard is about to answer a write: the entry is durable on a quorum, and the answer is what the model says. The
    /// answer, if there is one to a request of clients.
    pub fn on_reply(&self, applied: &replica::Applied) -> Result<Option<Answer>, Broken> {
        let id = applied.id.0;
        let Some(&index) = self.index_of.get(&id) else {
            return Err(format!("request {id:x} is answered, and was never committed"));
        };
        let term = self.committed[index as usize - 1].term;
        if applied.term.0 != term {
            return Err(format!(
                "the reply to index {index} names term {}, not {term}",
                applied.term
            ));
        }
        if !self.is_held(index, term) {
            return Err(format!(
                "index {index} is acknowledged, and durable on {}",
                self.holders(index, term)
            ));
        }
        let outcome = self.model.outcome(index).expect("what is committed has been applied");
        if applied.revision < outcome.revision {
            return Err(format!(
                "the reply to index {index} comes at revision {}, before its own {}",
                applied.revision, outcome.revision
            ));
        }
        let (reply, want) = match (&applied.result, &outcome.reply) {
            (Err(error), Err(text)) if error.text() == *text => return Ok(None),
            (Ok(reply), Ok(want)) => (reply, want),
            (got, want) => {
                return Err(format!("the reply to index {index} is {got:?}, not {want:?}"));
            }
        };
        if let Reply::MemberList { members } = reply {
            let want = self.roster_at(index);
            let told = |is_learner: bool| -> BTreeSet<NodeId> {
                members.iter().filter(|m| m.is_learner == is_learner).map(|m| m.id).collect()
            };
            if (told(false), told(true)) != (want.voters.clone(), want.learners.clone()) {
                return Err(format!("the reply to index {index} is {members:?}, not {want:?}"));
            }
        }
        let header = Header {
            cluster_id: CLUSTER,
            member_id: 1,
            revision: applied.revision,
            raft_term: term,
        };
        let Some(want) = want else { return Ok(None) };
        let got = answer_of(reply, &header)
            .map_err(|error| format!("the reply to index {index} cannot be read: {error}"))?;
        if got.as_ref() != Some(want) {
            return Err(format!("the reply to index {index} is {got:?}, not {want:?}"));
        }
        Ok(got)
    }

    /// A member's hash of the keyspace: the same revision under the same mark hashes the same everywhere, for ever. A
    /// compaction's is another than one computed before it, for it keeps tombstones at its revision.
    pub fn on_hash(
        &mut self,
        member: NodeId,
        revision: i64,
        (mark, remembered): (i64, bool),
        hash: u32,
    ) -> Result<(), Broken> {
        let key = (revision, (mark, remembered));
        if !self.hashes.contains_key(&key) {
            let want = self.model.hash_kv(revision, mark, remembered);
            if hash != want {
                return Err(format!(
                    "HashKV at revision {revision}, compacted at {mark}: {hash:x} on member {member}, and should be {want:x}"
                ));
            }
        }
        let (known, first) = *self.hashes.entry(key).or_insert((hash, member));
        if known != hash {
            return Err(format!(
                "HashKV at revision {revision}, compacted at {mark}: {known:x} on member {first}, {hash:x} on member {member}"
            ));
        }
        Ok(())
    }

    /// A member's leases at an applied index: what stands there must be what the model has, if that is where the model
    /// is.
    pub fn on_leases(
        &self,
        member: NodeId,
        applied: u64,
        leases: &BTreeMap<i64, model::Lease>,
    ) -> Result<(), Broken> {
        let want = self.model.leases();
        if applied == self.committed.len() as u64 && leases != want {
            return Err(format!(
                "member {member} has the leases {leases:?} at index {applied}, and should have {want:?}"
            ));
        }
        Ok(())
    }

    /// What a member's disk held may have changed by itself: of its store, a start cuts off what no later frame vouches for,
    /// for rot there cannot be told from a torn write (docs/format/store.md). The log must then go on from an earlier place.
    pub fn on_rot(&mut self, member: usize) {
        self.stored[member] = 0;
    }

    /// A member has started again: nothing that was durable is missing. What it has found is what it vouches for
    /// from now on.
    pub fn on_restart(&mut self, member: usize, found: &Found) -> Result<(), Broken> {
        self.check_found(member, found)?;
        let mirror = &mut self.mirrors[member];
        mirror.live = found.entries.iter().map(|e| (e.index.0, (e.term.0, hash_of(e)))).collect();
        mirror.base = found.applied;
        mirror.live_base = found.applied;
        mirror.live_last = found.last;
        mirror.durable_last = found.last;
        mirror.live_state = found.hard_state;
        mirror.durable_state = found.hard_state;
        self.stored[member] = found.applied;
        Ok(())
    }

    /// What a start found, or would find, holds all that was durable.
    pub fn check_found(&self, member: usize, found: &Found) -> Result<(), Broken> {
        let name = member + 1;
        let mirror = &self.mirrors[member];
        let (had, has) = (mirror.durable_state, found.hard_state);
        if has.term < had.term || has.term == had.term && had.vote != 0 && has.vote != had.vote {
            return Err(format!(
                "member {name} had a durable vote for {} in term {}, and begins with {} in term {}",
                had.vote, had.term, has.vote, has.term
            ));
        }
        if has.commit < had.commit.min(raft::Index(mirror.durable_last)) {
            return Err(format!(
                "member {name} had a durable commit of {}, and begins with {}",
                had.commit, has.commit
            ));
        }
        if found.applied < self.stored[member] {
            return Err(format!(
                "member {name} had stored index {}, and begins with {}",
                self.stored[member], found.applied
            ));
        }
        let entries: BTreeMap<u64, (u64, u64)> =
            found.entries.iter().map(|e| (e.index.0, (e.term.0, hash_of(e)))).collect();
        let above = found.applied.max(mirror.base) + 1;
        if mirror.durable_last >= above {
            for (index, entry) in mirror.live.range(above..=mirror.durable_last) {
                if entries.get(index) != Some(entry) {
                    return Err(format!(
                        "member {name} had index {index} of term {} durable, and it is gone after a restart",
                        entry.0
                    ));
                }
            }
        }
        if found.applied > self.committed() {
            return Err(format!(
                "member {name} begins with index {} applied, but only {} is committed",
                found.applied,
                self.committed()
            ));
        }
        let revision = self.model.outcome(found.applied).map_or(1, |outcome| outcome.revision);
        if found.revision != revision {
            return Err(format!(
                "member {name} begins at revision {} with index {} applied, where the model is at {revision}",
                found.revision, found.applied
            ));
        }
        let (hash, mark) = found.hash;
        let compacted = self.model.outcome(found.applied).map_or(-1, |outcome| outcome.mark);
        if mark != compacted {
            return Err(format!(
                "member {name} begins compacted at {mark} with index {} applied, where the model is at {compacted}",
                found.applied
            ));
        }
        let want = self.model.hash_kv(revision, mark, false);
        if hash != want {
            return Err(format!(
                "member {name} begins with HashKV {hash:x} at revision {revision}, compacted at {mark}, and should with {want:x}"
            ));
        }
        // Also what is not known to be committed, and what a crash has torn, is what its leader wrote.
        for entry in &found.entries {
            if let Some((known, _)) = self.logs.get(&(entry.index.0, entry.term.0))
                && *known != hash_of(entry)
            {
                return Err(format!(
                    "logs do not match: member {name} begins with another entry at index {} of term {}",
                    entry.index, entry.term
                ));
            }
        }
        Ok(())
    }
}

/// A reply as its client reads it, without what belongs to whoever answered; `None` if it is not to one of the requests
/// that a history knows.
pub fn answer_of(reply: &Reply, header: &Header) -> Result<Option<Answer>, prost::DecodeError> {
    let bytes = reply.to_bytes(header);
    let answer = match reply {
        Reply::Put(_) => Answer::Put(Message::decode(bytes)?),
        Reply::Range(_) => Answer::Range(Message::decode(bytes)?),
        Reply::DeleteRange(_) => Answer::DeleteRange(Message::decode(bytes)?),
        Reply::Txn(_) => Answer::Txn(Message::decode(bytes)?),
        Reply::Compact { .. } => Answer::Compact(Message::decode(bytes)?),
        Reply::LeaseGrant { .. } => Answer::LeaseGrant(Message::decode(bytes)?),
        Reply::LeaseRevoke { .. } => Answer::LeaseRevoke(Message::decode(bytes)?),
        _ => return Ok(None),
    };
    Ok(Some(answer.stripped()))
}
