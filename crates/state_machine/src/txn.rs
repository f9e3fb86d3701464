//! Transactions: compare, then do one list of operations or the other, as one revision or not at all.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use proto::etcdserverpb::{
    DeleteRangeRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request as Op,
};

use crate::error::Error;
use crate::kv;

/// Checks a transaction before it is proposed: everything that can be said without the keyspace. Both
/// branches are checked, whichever will be taken.
///
/// # Errors
/// The first check that fails, in etcd's order: all keys and limits first, depth first; then duplicate
/// keys of the success branch, then those of the failure branch.
pub fn check(request: &TxnRequest, ops_max: usize) -> Result<(), Error> {
    check_shape(request, ops_max)?;
    check_writes(&request.success)?;
    check_writes(&request.failure)?;
    Ok(())
}

/// The longest of the three lists counts; what is nested has what is left.
fn check_shape(request: &TxnRequest, ops_max: usize) -> Result<(), Error> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    let Some(left) = ops_max.checked_sub(ops) else { return Err(Error::TooManyOps) };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Error::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Op::RequestRange(range)) => kv::check_range(range)?,
            Some(Op::RequestPut(put)) => kv::check_put(put)?,
            Some(Op::RequestDeleteRange(delete)) => kv::check_delete(delete)?,
            Some(Op::RequestTxn(txn)) => check_shape(txn, left)?,
            None => return Err(Error::KeyNotFound),
        }
    }
    Ok(())
}

/// No key may be put twice, or put where it is also deleted, by operations that can run together. Deletes
/// may overlap. The two branches of a nested transaction never run together, so they may share puts.
///
/// A delete of everything from a key on (`range_end` is one zero byte) counts as deleting nothing: etcd
/// overlooks it, so clients may rely on it, and so do the members of a mixed cluster. What that can lead
/// to is caught when the transaction is applied.
fn check_writes(ops: &[RequestOp]) -> Result<(HashSet<Bytes>, Intervals), Error> {
    let mut deletes = Intervals::default();
    for op in ops {
        if let Some(Op::RequestDeleteRange(delete)) = &op.request
            && delete.range_end[..] != [0]
        {
            let (from, to) = interval(delete);
            deletes.insert(from, to);
        }
    }
    let mut puts: HashSet<Bytes> = HashSet::new();
    for op in ops {
        let Some(Op::RequestTxn(nested)) = &op.request else { continue };
        let (then_puts, then_deletes) = check_writes(&nested.success)?;
        let (else_puts, else_deletes) = check_writes(&nested.failure)?;
        let clashes = |key: &Bytes| puts.contains(key) || deletes.contains(key);
        if then_puts.iter().any(clashes) || else_puts.iter().any(clashes) {
            return Err(Error::DuplicateKey);
        }
        puts.extend(then_puts);
        puts.extend(else_puts);
        deletes.extend(then_deletes);
        deletes.extend(else_deletes);
    }
    for op in ops {
        let Some(Op::RequestPut(put)) = &op.request else { continue };
        if deletes.contains(&put.key) || !puts.insert(put.key.clone()) {
            return Err(Error::DuplicateKey);
        }
    }
    Ok((puts, deletes))
}

/// The keys a delete covers, from the first to before the last; `None` is beyond all keys.
fn interval(delete: &DeleteRangeRequest) -> (Bytes, Option<Bytes>) {
    let from = delete.key.clone();
    match &delete.range_end[..] {
        [] => {
            let after = [&from[..], &[0]].concat();
            (from, Some(after.into()))
        }
        [0] => (from, None),
        _ => (from, Some(delete.range_end.clone())),
    }
}

/// A set of keys made of ranges. Kept merged: no two touch, so a look-up asks one of them.
#[derive(Debug, Default)]
struct Intervals {
    /// First key → end, exclusive; `None` is beyond all keys.
    ranges: BTreeMap<Bytes, Option<Bytes>>,
}

impl Intervals {
    fn insert(&mut self, from: Bytes, to: Option<Bytes>) {
        if to.as_ref().is_some_and(|to| *to <= from) {
            return;
        }
        let (mut from, mut to) = (from, to);
        // Whatever begins at or before our end and ends at or after our beginning becomes part of us. The
        // ranges do not touch, so those form one run, and its last one is found from our end.
        loop {
            let last = match &to {
                Some(to) => self.ranges.range(..=to.clone()).next_back(),
                None => self.ranges.iter().next_back(),
            };
            let Some((start, end)) = last else { break };
            if end.as_ref().is_some_and(|end| *end < from) {
                break;
            }
            let start = start.clone();
            let end = end.clone();
            to = match (to, end) {
                (Some(a), Some(b)) => Some(a.max(b)),
                _ => None,
            };
            self.ranges.remove(&start);
            from = from.min(start);
        }
        self.ranges.insert(from, to);
    }

    fn contains(&self, key: &Bytes) -> bool {
        let at_or_before = self.ranges.range(..=key.clone()).next_back();
        at_or_before.is_some_and(|(_, end)| end.as_ref().is_none_or(|end| key < end))
    }

    fn extend(&mut self, other: Intervals) {
        for (from, to) in other.ranges {
            self.insert(from, to);
        }
    }
}

/// The operations of both branches, each as a range if it is one.
pub(crate) fn ranges(request: &TxnRequest) -> impl Iterator<Item = Option<&RangeRequest>> {
    request.success.iter().chain(&request.failure).map(|op| match &op.request {
        Some(Op::RequestRange(range)) => Some(range),
        _ => None,
    })
}
