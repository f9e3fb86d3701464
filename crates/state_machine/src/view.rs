//! What the threads that answer reads see: the keyspace at any live revision, and the small tables.

use proto::etcdserverpb::{RangeRequest, TxnRequest};

use crate::cluster::Cluster;
use crate::error::Error;
use crate::lease::LeaseInfo;
use crate::reply::Reply;

use std::sync::Arc;

use bytes::Bytes;

/// How far a read may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Memory and the page cache, and no more than one slice: on a shard.
    Now,
    /// The disk as well, and as long as it takes: on a read thread.
    Disk,
}

/// What became of a read.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It is done.
    Ready(Reply),
    /// It needs the disk, or is long: ask again with [`Effort::Disk`] on a read thread.
    Cold,
}

/// A window on the state machine: cheap to clone, one per thread.
#[derive(Clone, Debug)]
pub struct View {
    _private: (),
}

impl View {
    /// The current revision.
    pub fn revision(&self) -> i64 {
        unimplemented!("until the keyspace is there")
    }

    /// The compaction mark; -1 before any compaction.
    pub fn compact_revision(&self) -> i64 {
        unimplemented!("until the keyspace is there")
    }

    /// A range at the revision it names. The request has passed [`crate::check_range`].
    ///
    /// # Errors
    /// Compacted, future; storage failures; revoked if it took too long.
    pub fn range(&self, _request: &RangeRequest, _effort: Effort) -> Result<Answer, Error> {
        unimplemented!("until the keyspace is there")
    }

    /// A transaction of ranges alone ([`crate::is_read_only`]), at one revision. It has passed
    /// [`crate::Request::txn`].
    ///
    /// # Errors
    /// As [`View::range`].
    pub fn txn(&self, _request: &TxnRequest, _effort: Effort) -> Result<Answer, Error> {
        unimplemented!("until the keyspace is there")
    }

    /// etcd's hash of the keyspace at a revision, 0 meaning the current one. Reads everything: only on a
    /// read thread.
    ///
    /// # Errors
    /// Compacted, future; storage failures.
    pub fn hash_kv(&self, _revision: i64) -> Result<Reply, Error> {
        unimplemented!("until the keyspace is there")
    }

    /// One lease.
    pub fn lease(&self, _id: i64) -> Option<LeaseInfo> {
        unimplemented!("until the keyspace is there")
    }

    /// The keys that hang on a lease, in key order.
    pub fn lease_keys(&self, _id: i64) -> Option<Vec<Bytes>> {
        unimplemented!("until the keyspace is there")
    }

    /// All leases by id. Taken in slices, so that apply never waits for all of them.
    pub fn leases(&self) -> Vec<LeaseInfo> {
        unimplemented!("until the keyspace is there")
    }

    /// Members, cluster version, downgrade, alarms and ConfState, as of one entry.
    pub fn cluster(&self) -> Arc<Cluster> {
        unimplemented!("until the keyspace is there")
    }
}
