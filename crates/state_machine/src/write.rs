//! The writer: one entry's changes of the keyspace, and what they mean for leases.

use bytes::Bytes;
use mutant::Mutant;
use mvcc::{KeyRange, Keyspace, RangeQuery, RangeResult, ReadError, Txn};
use proto::etcdserverpb::{DeleteRangeRequest, PutRequest};

use crate::error::Error;
use crate::fault::{Fault, StorageFailure};
use crate::kv::Keys;
use crate::lease::Move;
use crate::reply::{DeleteRangeReply, PutReply};

/// A write transaction that has its own changes in sight. Everything that can be refused is checked before
/// the first change; from then on only the disk can fail.
pub(crate) struct Writer<'a> {
    txn: Txn<'a>,
    compact_revision: i64,
    moves: Vec<Move>,
}

impl<'a> Writer<'a> {
    pub(crate) fn begin(keyspace: &'a mut Keyspace) -> Writer<'a> {
        let compact_revision = keyspace.compact_revision();
        Writer { txn: keyspace.begin(), compact_revision, moves: Vec::new() }
    }

    /// The key lives.
    pub(crate) fn exists(&mut self, key: &Bytes) -> bool {
        self.txn.look(key).is_some()
    }

    /// Puts a key that [`crate::txn::check_put`] let pass. A put that keeps what is not there, which the
    /// checks rule out, would keep nothing.
    pub(crate) fn put(&mut self, put: &PutRequest, want_reply: bool) -> Result<PutReply, Fault> {
        let previous = if put.ignore_value || (put.prev_kv && want_reply) {
            self.txn.get(&put.key).map_err(fault)?
        } else {
            None
        };
        let kept_lease = match put.ignore_lease {
            true if mutant::is(Mutant::IgnoreLeaseForgotten) => 0,
            true => self.txn.look(&put.key).map_or(0, |meta| meta.lease),
            false => put.lease,
        };
        let kept_value = match (put.ignore_value, &previous) {
            (true, Some(item)) => item.value(),
            _ => put.value.clone(),
        };
        let before = self.txn.put(&put.key, &kept_value, kept_lease);
        let from = before.map_or(0, |meta| meta.lease);
        if from != kept_lease && !mutant::is(Mutant::LeaseKeepsKey) {
            self.moves.push(Move { key: put.key.clone(), from, to: kept_lease });
        }
        let previous = previous.filter(|_| put.prev_kv).map(|item| item.bytes);
        Ok(PutReply { revision: self.txn.revision(), previous })
    }

    /// Deletes a range.
    pub(crate) fn delete_range(
        &mut self,
        delete: &DeleteRangeRequest,
        want_reply: bool,
    ) -> Result<DeleteRangeReply, Fault> {
        let range = KeyRange::parse(delete.key.clone(), delete.range_end.clone());
        let mut previous = Vec::new();
        if delete.prev_kv && want_reply {
            let found = self.txn.range(&RangeQuery::new(range.clone())).map_err(fault)?;
            previous = found.items.into_iter().map(|item| item.bytes).collect();
        }
        let deleted = self.delete_keys(&range);
        let deleted = i64::try_from(deleted).unwrap_or(i64::MAX);
        let deleted = if mutant::is(Mutant::DeleteCountsWrong) { deleted.min(1) } else { deleted };
        Ok(DeleteRangeReply { revision: self.txn.revision(), deleted, previous })
    }

    /// Deletes one key.
    pub(crate) fn delete(&mut self, key: &Bytes) {
        self.delete_keys(&KeyRange::One(key.clone()));
    }

    fn delete_keys(&mut self, range: &KeyRange) -> u64 {
        let moves = &mut self.moves;
        self.txn.delete_range(range, &mut |key, before| {
            if before.lease != 0 {
                moves.push(Move { key, from: before.lease, to: 0 });
            }
        })
    }

    /// Ends the transaction; the keys that changed their lease.
    pub(crate) fn finish(self) -> Vec<Move> {
        self.txn.finish();
        self.moves
    }
}

impl Keys for Writer<'_> {
    fn revision(&self) -> i64 {
        self.txn.revision()
    }

    fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    fn read(&mut self, query: &RangeQuery) -> Result<RangeResult, Fault> {
        self.txn.range(query).map_err(fault)
    }
}

/// What apply makes of a failed read.
fn fault(error: ReadError) -> Fault {
    match error {
        ReadError::Compacted => Error::Compacted.into(),
        ReadError::Future => Error::FutureRevision.into(),
        other => Fault::Storage(StorageFailure(Box::new(other))),
    }
}
