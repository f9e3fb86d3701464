//! What the threads that answer reads see: the keyspace at any live revision, and the small tables.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use mvcc::{Effort, HashKv, RangeQuery, RangeResult, ReadError, Reader};
use proto::etcdserverpb::{RangeRequest, TxnRequest};

use crate::cluster::Cluster;
use crate::error::Error;
use crate::fault::Fault;
use crate::kv::{self, Keys};
use crate::lease::{LeaseInfo, LeaseTable};
use crate::reply::Reply;
use crate::txn;

/// Leases taken under one lock hold when all are listed.
const LEASES_PER_SLICE: usize = 1024;

/// What apply and readers share besides the keyspace.
///
/// Two locks, std's because they are held for moments and never across a wait: `cluster` guards a pointer
/// that apply replaces and readers copy; `leases` guards the lease table itself, which apply changes a few
/// entries at a time and readers look into. Neither is ever held while the disk is read or while the other
/// is taken. A panic under one of them leaves data that is whole, so poison is ignored.
#[derive(Debug)]
pub(crate) struct Shared {
    reader: Reader,
    leases: RwLock<LeaseTable>,
    cluster: RwLock<Arc<Cluster>>,
}

impl Shared {
    pub(crate) fn new(reader: Reader, leases: LeaseTable) -> Shared {
        Shared { reader, leases: RwLock::new(leases), cluster: RwLock::default() }
    }

    pub(crate) fn leases(&self) -> RwLockReadGuard<'_, LeaseTable> {
        self.leases.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn leases_mut(&self) -> RwLockWriteGuard<'_, LeaseTable> {
        self.leases.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_cluster(&self, cluster: Arc<Cluster>) {
        *self.cluster.write().unwrap_or_else(PoisonError::into_inner) = cluster;
    }
}

/// What became of a read.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It is done.
    Ready(Reply),
    /// It needs the disk, or is long: ask again with [`Effort::Disk`] on a read thread.
    Cold,
    /// The index is being changed: ask again with [`Effort::Now`]. Only of [`Effort::Try`].
    Busy,
}

/// A window on the state machine, as of the last publish. Cheap to clone, one per thread.
#[derive(Clone, Debug)]
pub struct View {
    shared: Arc<Shared>,
    /// This thread's own: it has a slot of the index lock.
    reader: Reader,
}

impl View {
    pub(crate) fn new(shared: Arc<Shared>) -> View {
        let reader = shared.reader.clone();
        View { shared, reader }
    }

    /// The current revision.
    pub fn revision(&self) -> i64 {
        self.reader.revision()
    }

    /// The compaction mark; -1 before any compaction.
    pub fn compact_revision(&self) -> i64 {
        self.reader.compact_revision()
    }

    /// The keyspace's reader: for watchers, streamed ranges, snapshots.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// A range at the revision it names. The request has passed [`crate::check_range`].
    ///
    /// # Errors
    /// Compacted, future; storage failures; revoked if it took too long.
    pub fn range(&self, request: &RangeRequest, effort: Effort) -> Result<Answer, Error> {
        let mut keys = Newest { reader: &self.reader, effort };
        answer(kv::range(&mut keys, request).map(Reply::Range))
    }

    /// A transaction of ranges alone ([`crate::is_read_only`]), all of it at one revision. It has passed
    /// [`crate::Request::txn`].
    ///
    /// # Errors
    /// As [`View::range`].
    pub fn txn(&self, request: &TxnRequest, effort: Effort) -> Result<Answer, Error> {
        loop {
            let (revision, compact_revision) = (self.revision(), self.compact_revision());
            let mut keys = At { reader: &self.reader, effort, revision, compact_revision };
            let result = txn::read(&mut keys, request).map(Reply::Txn);
            // 1. We take revision 7. 2. Apply writes 8 and compacts at 8. 3. We read at 7: compacted. The
            // client did not ask for 7, so it gets the transaction at 8.
            let overtaken = matches!(result, Err(Fault::Refused(Error::Compacted)))
                && self.compact_revision() > revision;
            if !overtaken {
                return answer(result);
            }
        }
    }

    /// etcd's hash of the keyspace at a revision, 0 meaning the current one; that of a compaction at exactly this
    /// revision, if it is remembered. Reads everything: only on a read thread.
    ///
    /// # Errors
    /// Compacted, future; storage failures.
    pub fn hash_kv(&self, revision: i64) -> Result<Reply, Error> {
        hash_reply(self.reader.hash_kv(revision))
    }

    /// The same at the current revision, whatever is remembered.
    ///
    /// # Errors
    /// Storage failures.
    pub fn hash_now(&self) -> Result<Reply, Error> {
        hash_reply(self.reader.hash_now(0))
    }

    /// One lease.
    pub fn lease(&self, id: i64) -> Option<LeaseInfo> {
        self.shared.leases().info(id)
    }

    /// The keys that hang on a lease, in key order.
    pub fn lease_keys(&self, id: i64) -> Option<Vec<Bytes>> {
        self.shared.leases().keys(id)
    }

    /// All leases by id. Taken in slices, so that apply never waits for all of them.
    pub fn leases(&self) -> Vec<LeaseInfo> {
        let mut all: Vec<LeaseInfo> = Vec::new();
        loop {
            let after = all.last().map(|lease| lease.id);
            let slice = self.shared.leases().slice(after, LEASES_PER_SLICE);
            let is_last = slice.len() < LEASES_PER_SLICE;
            all.extend(slice);
            if is_last {
                return all;
            }
        }
    }

    /// Members, cluster version, downgrade, alarms and ConfState, as of one publish.
    pub fn cluster(&self) -> Arc<Cluster> {
        self.shared.cluster.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reads at whatever revision is the newest when the read begins.
struct Newest<'a> {
    reader: &'a Reader,
    effort: Effort,
}

impl Keys for Newest<'_> {
    fn revision(&self) -> i64 {
        self.reader.revision()
    }

    fn compact_revision(&self) -> i64 {
        self.reader.compact_revision()
    }

    fn read(&mut self, query: &RangeQuery) -> Result<RangeResult, Fault> {
        self.reader.range(query, self.effort).map_err(fault)
    }
}

/// Reads as if the revision it was made with were still the newest.
struct At<'a> {
    reader: &'a Reader,
    effort: Effort,
    revision: i64,
    compact_revision: i64,
}

impl Keys for At<'_> {
    fn revision(&self) -> i64 {
        self.revision
    }

    fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    fn read(&mut self, query: &RangeQuery) -> Result<RangeResult, Fault> {
        let revision = if query.revision <= 0 { self.revision } else { query.revision };
        if revision > self.revision {
            return Err(Error::FutureRevision.into());
        }
        let query = RangeQuery { revision, ..query.clone() };
        let result = self.reader.range(&query, self.effort).map_err(fault)?;
        Ok(RangeResult { current_revision: self.revision, ..result })
    }
}

/// What a reader makes of a failed read.
fn hash_reply(hash: Result<HashKv, ReadError>) -> Result<Reply, Error> {
    let HashKv { hash, compact_revision, hash_revision, current_revision: revision } = hash
        .map_err(|error| match fault(error) {
            Fault::Refused(error) => error,
            _ => Error::Storage,
        })?;
    Ok(Reply::HashKv { hash, compact_revision, hash_revision, revision })
}

fn fault(error: ReadError) -> Fault {
    match error {
        ReadError::Compacted => Error::Compacted.into(),
        ReadError::Future => Error::FutureRevision.into(),
        ReadError::Revoked => Error::ReadRevoked.into(),
        ReadError::Cold => Fault::Cold,
        ReadError::Busy => Fault::Busy,
        ReadError::Store(_) => Error::Storage.into(),
    }
}

fn answer(result: Result<Reply, Fault>) -> Result<Answer, Error> {
    match result {
        Ok(reply) => Ok(Answer::Ready(reply)),
        Err(Fault::Refused(error)) => Err(error),
        Err(Fault::Cold) => Ok(Answer::Cold),
        Err(Fault::Busy) => Ok(Answer::Busy),
        Err(Fault::Storage(_)) => Err(Error::Storage),
    }
}
