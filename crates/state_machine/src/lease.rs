//! Leases: which exist, for how long they were granted, and which keys hang on them.
//!
//! A lease's row holds the TTL as it stands in the log. etcd raises a TTL below its minimum when the entry
//! is applied, and that minimum comes from each member's own election timeout; here the row stays what was
//! agreed on and only what is *shown* (to the client, to the lease clock) is raised, so that members'
//! tables are equal whatever their flags. Which keys hang on a lease is not stored: it follows from the
//! `lease` field of the live key-values. Deadlines are not known here at all: the clock above keeps them.

use std::collections::{BTreeMap, BTreeSet};

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
    keys: BTreeSet<Box<[u8]>>,
}

/// The lease table. Keys are copied into it: a slice of an entry would keep the whole entry in memory for
/// as long as the lease lives.
#[derive(Debug)]
pub(crate) struct LeaseTable {
    leases: BTreeMap<i64, Lease>,
    ttl_min: i64,
}

/// A key leaves one lease for another; 0 is none. What every put and every delete comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) key: Bytes,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

impl LeaseTable {
    pub(crate) fn new(ttl_min: i64) -> LeaseTable {
        LeaseTable { leases: BTreeMap::new(), ttl_min }
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

    /// Forgets a lease.
    pub(crate) fn remove(&mut self, id: i64) {
        self.leases.remove(&id);
    }

    /// Moves a key. A lease that does not exist holds nothing: a key may name one after a restore from
    /// elsewhere.
    pub(crate) fn shift(&mut self, Move { key, from, to }: &Move) {
        if let Some(lease) = self.leases.get_mut(from) {
            lease.keys.remove(&key[..]);
        }
        if let Some(lease) = self.leases.get_mut(to) {
            lease.keys.insert(key[..].into());
        }
    }

    pub(crate) fn contains(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    /// Notes what is left of a lease's time; the row to write, if the lease exists.
    pub(crate) fn checkpoint(&mut self, id: i64, remaining: i64) -> Option<Row> {
        let lease = self.leases.get_mut(&id)?;
        lease.remaining = remaining;
        Some(Row::Lease { id, ttl: lease.ttl, remaining })
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

    /// A key hangs on one lease at a time; ids and TTLs may be any number.
    #[test]
    fn a_key_moves_from_lease_to_lease() {
        let shift = |table: &mut LeaseTable, key: &'static str, from, to| {
            table.shift(&Move { key: key.into(), from, to });
        };
        let mut table = LeaseTable::new(2);
        table.load(1, 10, 0);
        table.load(-1, i64::MIN, 0);
        shift(&mut table, "a", 0, 1);
        shift(&mut table, "b", 0, 1);
        shift(&mut table, "a", 1, -1);
        assert_eq!(table.keys(1).unwrap(), ["b"]);
        assert_eq!(table.keys(-1).unwrap(), ["a"]);
        shift(&mut table, "a", -1, 7);
        assert_eq!(table.keys(-1).unwrap(), [] as [&str; 0]);
        assert_eq!(table.info(-1), Some(LeaseInfo { id: -1, ttl: 2, remaining: 0 }));
        assert_eq!(table.check_grant(-1, 1), Err(Error::LeaseExists));
        assert_eq!(table.check_grant(0, i64::MAX), Err(Error::LeaseNotFound));
        assert_eq!(table.check_grant(1, TTL_MAX + 1), Err(Error::LeaseTtlTooLarge));
    }
}
