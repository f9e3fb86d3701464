//! What committed commands do.
//!
//! [`StateMachine::apply`] is one function with one `match`, and the same for a leader, a follower, a
//! restart, a restore and a simulation. It takes entries in the order of their indexes, changes the
//! keyspace and the small tables, and says what to answer. Three promises:
//!
//! - *Deterministic*: equal entries make equal tables, on every member, also on etcd's own.
//! - *Total*: no entry stops it. What cannot be read, is not known, or asks for the impossible is answered
//!   with an error and changes nothing.
//! - *Every entry moves the applied index*, in the same frame as whatever it changes.
//!
//! ```text
//!  client's request ──try_from──▶ Request ─┐
//!                                          ├─ Command ──encode──▶ log ──decode──▶ apply ──▶ Outcome
//!               id, chosen by the replica ─┘                                       │  │
//!                                                               keyspace, tables ◀─┘  └▶ Reply::encode
//!  reads ──────────────────────────────▶ View ──▶ Reply::encode
//! ```
//!
//! Users, roles and tokens are not built yet: their commands are read and answered with
//! [`Error::AuthUnsupported`] on every member alike.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod alarm;
mod cluster;
mod command;
mod decode;
mod error;
mod fault;
mod kv;
mod lease;
mod reply;
pub mod tables;
mod txn;
mod view;
mod write;

use std::sync::Arc;

use bytes::Bytes;
use mutant::Mutant;
use mvcc::{Batch, CompactError, DueHash, Keyspace};
use proto::etcdserverpb::{CompactionRequest, LeaseGrantRequest, TxnRequest};
use proto::membershippb::{ClusterMemberAttrSetRequest, DowngradeInfoSetRequest};

use crate::fault::Fault;
use crate::kv::Keys;
use crate::lease::{LeaseTable, Move};
use crate::tables::{BadRow, Row};
use crate::view::Shared;
use crate::write::Writer;

pub use cluster::{ChangeKind, Cluster, ConfState, Downgrade, Member, MembershipChange, Version};
pub use command::{Caller, Command, Request, RequestId};
pub use decode::{Malformed, TXN_DEPTH_MAX, decode_txn};
pub use error::{Error, code};
pub use fault::StorageFailure;
pub use kv::{check_range, check_range_stream};
pub use lease::{LeaseChange, LeaseInfo, TTL_MAX};
pub use mvcc::Effort;
pub use reply::{DeleteRangeReply, Header, PutReply, RangeReply, Reply, Response, TxnReply};
pub use view::{Answer, View};

/// What a member's flags decide. All members of a cluster have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The shortest TTL that is shown, seconds: one and a half election timeouts, rounded up.
    pub lease_ttl_min: i64,
    /// How many learners the cluster may have.
    pub learners_max: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { lease_ttl_min: 2, learners_max: 1 }
    }
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// A normal entry's data; empty when a leader begins its term.
    Normal(&'a Bytes),
    /// A membership change, and the configuration that raft would switch to.
    Membership {
        /// What changes.
        change: &'a MembershipChange,
        /// Written in the entry's frame if the change is accepted.
        conf_state: ConfState,
    },
    /// An entry of a kind, or a change, that the caller could not read: it moves the applied index only.
    Unreadable,
}

/// What applying an entry led to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What to tell whoever waits; only if a reply was wanted and the entry has an id.
    pub reply: Option<(RequestId, Result<Reply, Error>)>,
    /// For the lease clock, to be handed over before the reply.
    pub leases: Vec<LeaseChange>,
    /// For raft: present exactly if the payload was a membership change.
    pub membership: Option<Verdict>,
    /// Of a compaction: its hash, to be computed once this is published.
    pub hash: Option<DueHash>,
    /// The reply is a physical compaction's, whether it moved the mark or came too late: it waits until no hash is
    /// due of any compaction so far.
    pub is_physical: bool,
}

/// Whether a membership change is switched to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes: raft applies it.
    Accepted,
    /// No: raft applies a change of nobody, and the membership stays as it is.
    Refused(Error),
}

/// The state that committed commands change. Owned by the apply thread.
///
/// ```text
///   for each entry:     apply(index, term, payload) → Outcome
///   then, once:         publish → the batch of events; only after it the replies
///   between entries:    keyspace: frames, pruning, relocations
///   after an import:    replace
/// ```
///
/// Membership changes, versions and alarms become visible with `publish`; leases with the entry, for nobody
/// learns of a lease's entry before its answer but the lease clock, which is told first anyway.
pub struct StateMachine {
    config: Config,
    keyspace: Keyspace,
    /// Apply's own copy: what is published follows it.
    cluster: Cluster,
    /// `cluster` is ahead of what is published.
    cluster_changed: bool,
    shared: Arc<Shared>,
    /// Index and term of the last entry.
    applied: (u64, u64),
}

impl StateMachine {
    /// Builds the tables of an opened store: the keyspace that was recovered from it, its rows, and the
    /// index and term of the last entry in it.
    ///
    /// # Errors
    /// A row of a small table cannot be read.
    pub fn recover(
        keyspace: Keyspace,
        rows: &[store::Row],
        applied: (u64, u64),
        config: Config,
    ) -> Result<StateMachine, BadRow> {
        let reader = keyspace.reader();
        let mut machine = StateMachine {
            config,
            keyspace,
            cluster: Cluster::default(),
            cluster_changed: true,
            shared: Arc::new(Shared::new(reader, LeaseTable::new(config.lease_ttl_min))),
            applied,
        };
        machine.load(rows)?;
        // What was recovered is visible already; this only shows the tables.
        machine.publish();
        Ok(machine)
    }

    /// Takes an imported snapshot in place of everything, for all readers at once: the arguments are those
    /// of [`StateMachine::recover`] for the new store. The batch is a gap mark for watchers; the lease
    /// clock starts anew from [`View::leases`].
    ///
    /// # Errors
    /// A row of a small table cannot be read; nothing has changed then.
    pub fn replace(
        &mut self,
        keyspace: Keyspace,
        rows: &[store::Row],
        applied: (u64, u64),
    ) -> Result<Arc<Batch>, BadRow> {
        let next = StateMachine::recover(keyspace, rows, applied, self.config)?;
        let leases = std::mem::replace(
            &mut *next.shared.leases_mut(),
            LeaseTable::new(self.config.lease_ttl_min),
        );
        let batch = self.keyspace.exchange(next.keyspace);
        *self.shared.leases_mut() = leases;
        self.cluster = next.cluster;
        self.cluster_changed = true;
        self.applied = applied;
        self.show_cluster();
        Ok(batch)
    }

    /// Fills the empty tables.
    fn load(&mut self, rows: &[store::Row]) -> Result<(), BadRow> {
        let mut compacted_at_zero = false;
        let mut leases = self.shared.leases_mut();
        for row in rows {
            match Row::decode(row.table, &row.key, &row.value)? {
                Row::Lease { id, ttl, remaining } => leases.load(id, ttl, remaining),
                Row::CompactedAtZero => compacted_at_zero = true,
                row => self.cluster.load(row),
            }
        }
        self.keyspace.leased(&mut |key, lease| {
            leases.shift(&Move { key: Bytes::copy_from_slice(key), from: 0, to: lease });
        });
        drop(leases);
        if compacted_at_zero {
            self.keyspace.restore_zero_mark();
        }
        Ok(())
    }

    /// A window for another thread.
    pub fn view(&self) -> View {
        View::new(self.shared.clone())
    }

    /// Index and term of the last entry applied.
    pub fn applied(&self) -> (u64, u64) {
        self.applied
    }

    /// The keyspace, for what the pipeline does with it between entries: frames, pruning, reclaim.
    pub fn keyspace(&mut self) -> &mut Keyspace {
        &mut self.keyspace
    }

    /// Shows readers what was applied since the last time, and hands out its events. `None` if neither
    /// revision nor compaction mark moved.
    pub fn publish(&mut self) -> Option<Arc<Batch>> {
        // The tables first: whoever sees the revision sees at least its tables.
        self.show_cluster();
        self.keyspace.publish()
    }

    fn show_cluster(&mut self) {
        if std::mem::take(&mut self.cluster_changed) {
            self.shared.set_cluster(Arc::new(self.cluster.clone()));
        }
    }

    /// Applies one entry: indexes come one after the other, without a gap. Readers see what it changed
    /// after the next [`StateMachine::publish`], and never half of it.
    ///
    /// Without `want_reply` nothing is read that only an answer needs; what changes is the same.
    ///
    /// # Errors
    /// The storage failed. Nothing can be said about the state in memory then, and the process must end.
    ///
    /// # Panics
    /// If the index is not the one after the last. Nothing that an entry holds can make this panic.
    pub fn apply(
        &mut self,
        index: u64,
        term: u64,
        payload: Payload<'_>,
        want_reply: bool,
    ) -> Result<Outcome, StorageFailure> {
        let (applied, _) = self.applied;
        assert!(index == applied + 1, "entry {index} is to be applied after entry {applied}");
        let mut outcome = Outcome::default();
        match payload {
            // A leader's first entry of its term.
            Payload::Normal(data) if data.is_empty() => {}
            Payload::Normal(data) => {
                let command = Command::decode(data);
                let result = match self.execute(&command.request, want_reply, &mut outcome) {
                    Ok(reply) => Ok(reply),
                    Err(Fault::Refused(error)) => Err(error),
                    Err(Fault::Storage(failure)) => return Err(failure),
                    Err(Fault::Cold | Fault::Busy) => {
                        unreachable!(
                            "apply reads the disk itself, and nobody else changes the index"
                        )
                    }
                };
                if want_reply && command.id != RequestId(0) {
                    outcome.reply = Some((command.id, result));
                }
            }
            Payload::Membership { change, conf_state } => {
                let result = self.cluster.change(change, self.config.learners_max);
                outcome.membership = Some(match result {
                    Ok(row) => {
                        self.write_row(row);
                        self.write_row(Row::ConfState(conf_state));
                        Verdict::Accepted
                    }
                    Err(error) => Verdict::Refused(error),
                });
                if want_reply && change.id != RequestId(0) {
                    let members = self.cluster.member_list();
                    let reply = match outcome.membership {
                        Some(Verdict::Refused(error)) => Err(error),
                        _ => Ok(Reply::MemberList { members }),
                    };
                    outcome.reply = Some((change.id, reply));
                }
            }
            Payload::Unreadable => {}
        }
        self.keyspace.end_entry(index, term);
        self.applied = (index, term);
        Ok(outcome)
    }

    /// What each command does. A command that is refused has changed nothing.
    fn execute(
        &mut self,
        request: &Request,
        want_reply: bool,
        outcome: &mut Outcome,
    ) -> Result<Reply, Fault> {
        alarm::gate(&self.cluster, request)?;
        match request {
            // Nobody proposes a read; whoever did not ask for it need not do it.
            Request::Range(_) if !want_reply => Ok(Reply::Done),
            Request::Range(request) => {
                let mut writer = Writer::begin(&mut self.keyspace);
                kv::range(&mut writer, request).map(Reply::Range)
            }
            Request::Put(request) => {
                let mut writer = Writer::begin(&mut self.keyspace);
                txn::check_put(&mut writer, request, &self.shared.leases())?;
                let reply = writer.put(request, want_reply)?;
                let moves = writer.finish();
                self.finish(moves);
                Ok(Reply::Put(reply))
            }
            Request::DeleteRange(request) => {
                let mut writer = Writer::begin(&mut self.keyspace);
                let reply = writer.delete_range(request, want_reply)?;
                let moves = writer.finish();
                self.finish(moves);
                Ok(Reply::DeleteRange(reply))
            }
            Request::Txn(request) => self.txn(request, want_reply),
            Request::Compact(request) => self.compact(request, outcome),
            Request::LeaseGrant(request) => self.grant(request, &mut outcome.leases),
            Request::LeaseRevoke(request) => {
                let keys = self.shared.leases().keys(request.id).ok_or(Error::LeaseNotFound)?;
                let mut writer = Writer::begin(&mut self.keyspace);
                let forgotten = usize::from(mutant::is(Mutant::RevokeForgetsKey));
                keys.iter().skip(forgotten).for_each(|key| writer.delete(key));
                let revision = writer.revision();
                writer.finish();
                self.shared.leases_mut().remove(request.id);
                let key = tables::lease_key(request.id);
                self.keyspace.builder().delete_row(tables::LEASES, key.into());
                outcome.leases.push(LeaseChange::Revoked { id: request.id });
                Ok(Reply::LeaseRevoke { revision })
            }
            // A checkpoint of a lease that is gone by now is nothing special.
            Request::LeaseCheckpoint(request) => {
                for checkpoint in &request.checkpoints {
                    let (id, remaining) = (checkpoint.id, checkpoint.remaining_ttl);
                    let row = self.shared.leases_mut().checkpoint(id, remaining);
                    if let Some(row) = row {
                        self.write_row(row);
                        outcome.leases.push(LeaseChange::Checkpointed { id, remaining });
                    }
                }
                Ok(Reply::LeaseCheckpoint { revision: self.keyspace.revision() })
            }
            Request::Alarm(request) => {
                let (effect, alarms) = alarm::decide(&self.cluster, request);
                match effect {
                    alarm::Effect::None => {}
                    alarm::Effect::Raise(row) => self.write_row(row),
                    alarm::Effect::Lower(alarm, member) => {
                        self.cluster.alarms.remove(&(alarm, member));
                        self.cluster_changed = true;
                        let key = tables::alarm_key(member, alarm);
                        self.keyspace.builder().delete_row(tables::ALARMS, key.into());
                    }
                }
                Ok(Reply::Alarm { revision: self.keyspace.revision(), alarms })
            }
            // A version that cannot be read stops an etcd member; here it changes nothing.
            Request::ClusterVersionSet(request) => {
                let version = Version::parse(&request.ver).ok_or(Error::BadVersion)?;
                self.write_row(Row::Version(version));
                Ok(Reply::Done)
            }
            Request::MemberAttributesSet(request) => self.set_attributes(request),
            Request::DowngradeInfoSet(request) => {
                let DowngradeInfoSetRequest { enabled, ver } = request.clone();
                let target_version = if enabled { ver } else { String::new() };
                self.write_row(Row::Downgrade(Downgrade { enabled, target_version }));
                Ok(Reply::Done)
            }
            Request::DowngradeVersionTest => Ok(Reply::Done),
            Request::Auth { .. } => Err(Error::AuthUnsupported.into()),
            Request::Refused(error) => Err((*error).into()),
        }
    }

    fn txn(&mut self, request: &TxnRequest, want_reply: bool) -> Result<Reply, Fault> {
        let has_ranges = || txn::ranges(request).any(|range| range.is_some());
        if mutant::is(Mutant::RangesLeftOut) && !want_reply && has_ranges() {
            return self.txn(&txn::without_ranges(request), want_reply);
        }
        let mut writer = Writer::begin(&mut self.keyspace);
        let path = txn::prepare(&mut writer, request, &self.shared.leases())?;
        let reply = txn::execute(&mut writer, request, &path, want_reply)?;
        let moves = writer.finish();
        self.finish(moves);
        Ok(Reply::Txn(reply))
    }

    /// A revision at or below the mark has been compacted already. On a keyspace that never was, the mark
    /// is -1, so that 0 passes, once.
    fn compact(
        &mut self,
        request: &CompactionRequest,
        outcome: &mut Outcome,
    ) -> Result<Reply, Fault> {
        let due = self.keyspace.compact(request.revision);
        outcome.is_physical = request.physical && due.as_ref().err() != Some(&CompactError::Future);
        outcome.hash = Some(due.map_err(|error| match error {
            CompactError::Compacted => Error::Compacted,
            CompactError::Future => Error::FutureRevision,
        })?);
        if request.revision == 0 {
            self.write_row(Row::CompactedAtZero);
        }
        let revision = self.keyspace.revision();
        Ok(Reply::Compact { revision })
    }

    fn grant(
        &mut self,
        request: &LeaseGrantRequest,
        changes: &mut Vec<LeaseChange>,
    ) -> Result<Reply, Fault> {
        let LeaseGrantRequest { id, ttl } = *request;
        let info = {
            let mut leases = self.shared.leases_mut();
            leases.check_grant(id, ttl)?;
            leases.load(id, ttl, 0);
            leases.info(id).expect("the lease has just been put in")
        };
        self.write_row(Row::Lease { id, ttl, remaining: 0 });
        changes.push(LeaseChange::Granted { id, ttl: info.ttl });
        Ok(Reply::LeaseGrant { revision: self.keyspace.revision(), id, ttl: info.ttl })
    }

    /// A removed member may still say how it is called; nobody listens. One that was never there stops an
    /// etcd member; here it changes nothing.
    fn set_attributes(&mut self, request: &ClusterMemberAttrSetRequest) -> Result<Reply, Fault> {
        let Some(member) = self.cluster.members.get(&request.member_id) else {
            let removed = self.cluster.removed.contains(&request.member_id);
            return if removed { Ok(Reply::Done) } else { Err(Error::MemberNotFound.into()) };
        };
        let attributes = request.member_attributes.clone().unwrap_or_default();
        self.write_row(Row::Member(Member {
            name: attributes.name,
            client_urls: attributes.client_urls,
            ..member.clone()
        }));
        Ok(Reply::Done)
    }

    /// Ends a write: its keys go from lease to lease.
    fn finish(&mut self, moves: Vec<Move>) {
        if !moves.is_empty() {
            let mut leases = self.shared.leases_mut();
            moves.iter().for_each(|one| leases.shift(one));
        }
    }

    /// Writes a row, and takes it into memory; those of leases and of the mark are in memory elsewhere.
    fn write_row(&mut self, row: Row) {
        if let Row::Removed(id) = &row {
            let key = tables::member_key(*id);
            self.keyspace.builder().delete_row(tables::MEMBERS, key.into());
        }
        let (table, key, value) = row.encode();
        self.keyspace.builder().row(table, key.into(), value.into());
        if !matches!(row, Row::Lease { .. } | Row::CompactedAtZero) {
            self.cluster.load(row);
            self.cluster_changed = true;
        }
    }
}

/// True if a transaction writes nothing, so that it need not go through the log: every operation of both
/// branches is a range. A transaction with no operation at all is one of these; a nested one is not.
pub fn is_read_only(request: &TxnRequest) -> bool {
    txn::ranges(request).all(|range| range.is_some())
}

/// True if a read-only transaction may be answered from this member's own state: all its ranges say so.
pub fn is_serializable(request: &TxnRequest) -> bool {
    txn::ranges(request).all(|range| range.is_some_and(|range| range.serializable))
}
