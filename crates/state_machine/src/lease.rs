//! Leases: which exist, for how long they were granted, and which keys hang on them.
//!
//! A lease's row holds the TTL as it stands in the log. etcd raises a TTL below its minimum when the entry
//! is applied, and that minimum comes from each member's own election timeout; here the row stays what was
//! agreed on and only what is *shown* (to the client, to the lease clock) is raised, so that members'
//! tables are equal whatever their flags. Which keys hang on a lease is not stored: it follows from the
//! `lease` field of the live key-values. Deadlines are not known here at all: the clock above keeps them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Error;
use crate::tables::Row;

/// The longest TTL that can be granted, seconds.
pub const TTL_MAX: i64 = 9_000_000_000;

/// What apply tells the lease clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// The lease exists now.
    Granted {
        /// The lease.
        id: i64,
        /// Seconds, after raising.
        ttl: i64,
    },
    /// The lease is gone.
    Revoked {
        /// The lease.
        id: i64,
    },
    /// The leader noted how much time was left.
    Checkpointed {
        /// The lease.
        id: i64,
        /// Seconds; 0 means the full TTL.
        remaining: i64,
    },
}

/// A lease as the tables know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// The lease.
    pub id: i64,
    /// The granted TTL, seconds, after raising.
    pub ttl: i64,
    /// What was left at the last checkpoint, seconds; 0 if there was none.
    pub remaining: i64,
}

#[derive(Debug)]
struct Lease {
    /// As logged: any number up to [`TTL_MAX`], also negative.
    ttl: i64,
    remaining: i64,
    /// In key order, because a revoke deletes them in key order on every member.
    keys: BTreeSet<Arc<[u8]>>,
}

/// The lease table. Keys are copied into it: a slice of an entry would keep the whole entry in memory for
/// as long as the lease lives.
#[derive(Debug)]
pub(crate) struct LeaseTable {
    leases: BTreeMap<i64, Lease>,
    /// Which lease a key hangs on. A key not named here hangs on none.
    holders: HashMap<Arc<[u8]>, i64>,
    ttl_min: i64,
}

impl LeaseTable {
    pub(crate) fn new(ttl_min: i64) -> LeaseTable {
        LeaseTable { leases: BTreeMap::new(), holders: HashMap::new(), ttl_min }
    }

    /// Id, then TTL, then whether the id is taken: etcd's order.
    pub(crate) fn check_grant(&self, id: i64, ttl: i64) -> Result<(), Error> {
        if id == 0 {
            return Err(Error::LeaseNotFound);
        }
        if ttl > TTL_MAX {
            return Err(Error::LeaseTtlTooLarge);
        }
        if self.leases.contains_key(&id) { Err(Error::LeaseExists) } else { Ok(()) }
    }

    /// Takes a lease into memory, keeping its keys if it is there already.
    pub(crate) fn load(&mut self, id: i64, ttl: i64, remaining: i64) {
        let lease =
            self.leases.entry(id).or_insert(Lease { ttl, remaining, keys: BTreeSet::new() });
        lease.ttl = ttl;
        lease.remaining = remaining;
    }

    /// Forgets a lease, and which keys hung on it.
    pub(crate) fn remove(&mut self, id: i64) {
        if let Some(lease) = self.leases.remove(&id) {
            for key in &lease.keys {
                self.holders.remove(key);
            }
        }
    }

    /// Hangs a key on a lease, or on none if `id` is 0, taking it from the one it hung on. A lease that
    /// does not exist holds nothing: a key may name one after a restore from elsewhere.
    pub(crate) fn attach(&mut self, key: &[u8], id: i64) {
        if id == 0 && self.holders.is_empty() {
            return;
        }
        let old = self.holders.get(key).copied().unwrap_or(0);
        if old == id {
            return;
        }
        if let Some(lease) = self.leases.get_mut(&old) {
            lease.keys.remove(key);
        }
        self.holders.remove(key);
        if let Some(lease) = self.leases.get_mut(&id) {
            let key: Arc<[u8]> = key.into();
            lease.keys.insert(key.clone());
            self.holders.insert(key, id);
        }
    }

    /// True if attaching `id` to `key` would change nothing.
    pub(crate) fn is_attached(&self, key: &[u8], id: i64) -> bool {
        if self.holders.is_empty() { id == 0 } else { self.holder(key) == id }
    }

    fn holder(&self, key: &[u8]) -> i64 {
        self.holders.get(key).copied().unwrap_or(0)
    }

    pub(crate) fn contains(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    /// The table's row of a lease.
    pub(crate) fn row(&self, id: i64) -> Option<Row> {
        let lease = self.leases.get(&id)?;
        Some(Row::Lease { id, ttl: lease.ttl, remaining: lease.remaining })
    }

    pub(crate) fn info(&self, id: i64) -> Option<LeaseInfo> {
        self.leases.get(&id).map(|lease| self.show(id, lease))
    }

    fn show(&self, id: i64, lease: &Lease) -> LeaseInfo {
        LeaseInfo { id, ttl: lease.ttl.max(self.ttl_min), remaining: lease.remaining }
    }

    /// The keys that hang on a lease, in key order.
    pub(crate) fn keys(&self, id: i64) -> Option<Vec<Bytes>> {
        let lease = self.leases.get(&id)?;
        Some(lease.keys.iter().map(|key| Bytes::copy_from_slice(key)).collect())
    }

    /// Up to `count` leases with ids above `after`.
    pub(crate) fn slice(&self, after: Option<i64>, count: usize) -> Vec<LeaseInfo> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.leases.range((from, Unbounded)).take(count).map(|(id, l)| self.show(*id, l)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key hangs on one lease at a time, and the sets of both sides agree.
    #[test]
    fn a_key_moves_from_lease_to_lease() {
        let mut table = LeaseTable::new(2);
        table.load(1, 10, 0);
        table.load(-1, i64::MIN, 0);
        table.attach(b"a", 1);
        table.attach(b"b", 1);
        table.attach(b"a", -1);
        assert_eq!(table.keys(1).unwrap(), ["b"]);
        assert_eq!(table.keys(-1).unwrap(), ["a"]);
        table.attach(b"a", 7);
        assert_eq!(table.keys(-1).unwrap(), [] as [&str; 0]);
        assert!(table.is_attached(b"a", 0));
        table.remove(1);
        assert!(table.holders.is_empty());
        assert_eq!(table.info(-1), Some(LeaseInfo { id: -1, ttl: 2, remaining: 0 }));
    }
}
