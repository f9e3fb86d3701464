//! Transactions: compare, then do one list of operations or the other, as one revision or not at all.
//!
//! Applied in three passes over the same tree of operations, each depth first:
//!
//! 1. *Compare*, against the state before the transaction: nested ones too, so that no write of this
//!    transaction can decide a branch of it. The outcome is the *path*: which branch of each transaction
//!    on the way is taken.
//! 2. *Check* the operations on the path, against the same state: revisions of ranges, existence of
//!    leases, keys whose value or lease is to be kept. The first failure fails the whole.
//! 3. *Execute*. Nothing may fail any more but the disk, for half a transaction cannot be taken back.
//!
//! The second pass also follows what the transaction itself would do to a key. etcd's does not, and so a
//! delete up to the end of the keyspace, which [`check`] overlooks as etcd's front does, followed by a put
//! that keeps the value or lease of a key deleted by it, stops every etcd member in the third pass, and
//! again whenever it reads its log. Here it fails in the second, with `key not found`.

use std::collections::{BTreeMap, BTreeSet};
use std::slice;

use bytes::Bytes;
use mutant::Mutant;
use mvcc::{Item, KeyRange, RangeQuery, successor};
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    request_op::Request as Op,
};

use crate::error::Error;
use crate::fault::Fault;
use crate::kv::{self, Keys};
use crate::lease::LeaseTable;
use crate::reply::{Response, TxnReply};
use crate::write::Writer;

/// Keys that a compare reads at a time.
const COMPARED_AT_ONCE: usize = 64;

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
fn check_writes(ops: &[RequestOp]) -> Result<(BTreeSet<Bytes>, Intervals), Error> {
    let mut deletes = Intervals::default();
    for op in ops {
        if let Some(Op::RequestDeleteRange(delete)) = &op.request
            && delete.range_end[..] != [0]
        {
            let (from, to) = interval(delete);
            deletes.insert(from, to);
        }
    }
    let mut puts: BTreeSet<Bytes> = BTreeSet::new();
    for op in ops {
        let Some(Op::RequestTxn(nested)) = &op.request else { continue };
        let (mut then_puts, then_deletes) = check_writes(&nested.success)?;
        let (mut else_puts, else_deletes) = check_writes(&nested.failure)?;
        let clashes = |key: &Bytes| puts.contains(key) || deletes.contains(key);
        if then_puts.iter().any(clashes) || else_puts.iter().any(clashes) {
            return Err(Error::DuplicateKey);
        }
        puts.append(&mut then_puts);
        puts.append(&mut else_puts);
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

/// The operations of both branches, each as a range if it is one.
pub(crate) fn ranges(request: &TxnRequest) -> impl Iterator<Item = Option<&RangeRequest>> {
    request.success.iter().chain(&request.failure).map(|op| match &op.request {
        Some(Op::RequestRange(range)) => Some(range),
        _ => None,
    })
}

/// The same without the ranges of its branches: for the deliberate bug that leaves them out.
pub(crate) fn without_ranges(request: &TxnRequest) -> TxnRequest {
    let mut rest = request.clone();
    for branch in [&mut rest.success, &mut rest.failure] {
        branch.retain(|op| !matches!(op.request, Some(Op::RequestRange(_))));
    }
    rest
}

/// Runs a transaction of ranges alone, on a reader that stays at one revision.
pub(crate) fn read(keys: &mut impl Keys, request: &TxnRequest) -> Result<TxnReply, Fault> {
    let succeeded = holds(keys, &request.compare)?;
    let ops = branch(request, succeeded);
    for op in ops {
        if let Some(Op::RequestRange(range)) = &op.request {
            check_revision(keys, range)?;
        }
    }
    let mut responses = Vec::with_capacity(ops.len());
    for op in ops {
        responses.push(match &op.request {
            Some(Op::RequestRange(range)) => Some(Response::Range(kv::range(keys, range)?)),
            _ => None,
        });
    }
    Ok(TxnReply { revision: keys.revision(), succeeded, responses })
}

/// Compares and checks a transaction of an entry. The path that comes back is what [`execute`] takes.
pub(crate) fn prepare(
    writer: &mut Writer<'_>,
    request: &TxnRequest,
    leases: &LeaseTable,
) -> Result<Vec<bool>, Fault> {
    let mut path = Vec::new();
    compare(writer, request, &mut path)?;
    if !mutant::is(Mutant::TxnUnchecked) {
        check_path(writer, request, leases, &mut path.iter(), &mut Shadow::default())?;
    }
    Ok(path)
}

/// Does a transaction that [`prepare`] let pass. Without `want_reply` nothing is read that only the
/// answer needs.
pub(crate) fn execute(
    writer: &mut Writer<'_>,
    request: &TxnRequest,
    path: &[bool],
    want_reply: bool,
) -> Result<TxnReply, Fault> {
    let mut reply = execute_branch(writer, request, &mut path.iter(), want_reply)?;
    reply.revision = writer.revision();
    Ok(reply)
}

fn branch(request: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &request.success } else { &request.failure }
}

fn next(path: &mut slice::Iter<'_, bool>) -> bool {
    *path.next().expect("compare has put every transaction on the way into the path")
}

/// Pass 1. Appends this transaction's outcome, then those of the nested ones on the branch taken.
fn compare(keys: &mut impl Keys, request: &TxnRequest, path: &mut Vec<bool>) -> Result<(), Fault> {
    let succeeded = holds(keys, &request.compare)?;
    path.push(succeeded);
    for op in branch(request, succeeded) {
        if let Some(Op::RequestTxn(nested)) = &op.request {
            compare(keys, nested, path)?;
        }
    }
    Ok(())
}

fn holds(keys: &mut impl Keys, compares: &[Compare]) -> Result<bool, Fault> {
    for compare in compares {
        if !holds_one(keys, compare)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A compare holds if it holds for every key of its range. If there is none it is about a key that does
/// not exist: that has no value, so no statement about its value holds, and zero is everything else.
///
/// The range is read in pages, and no further than to the first key for which it does not hold: a small request
/// may name the whole keyspace.
fn holds_one(keys: &mut impl Keys, compare: &Compare) -> Result<bool, Fault> {
    let by_value = compare.target == CompareTarget::Value as i32;
    // No change is made between the pages, and a reader has its revision.
    let revision = keys.revision();
    let mut from = compare.key.clone();
    let mut is_first = true;
    loop {
        let range = KeyRange::parse(from, compare.range_end.clone());
        let query = RangeQuery {
            keys_only: !by_value,
            revision,
            limit: COMPARED_AT_ONCE,
            ..RangeQuery::new(range)
        };
        let found = keys.read(&query)?;
        let Some(last) = found.items.last() else {
            return Ok(!is_first || !by_value && holds_for(compare, 0.cmp(&operand(compare))));
        };
        if !found.items.iter().all(|item| holds_for(compare, against(compare, item))) {
            return Ok(false);
        }
        if !found.more {
            return Ok(true);
        }
        from = successor(&last.key).into();
        is_first = false;
    }
}

/// What a key has, beside what is asked for.
fn against(compare: &Compare, item: &Item) -> std::cmp::Ordering {
    match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Value) => {
            let operand = match &compare.target_union {
                Some(TargetUnion::Value(value)) => &value[..],
                _ => &[],
            };
            item.value()[..].cmp(operand)
        }
        Ok(CompareTarget::Version) => item.version.cmp(&operand(compare)),
        Ok(CompareTarget::Create) => item.create.cmp(&operand(compare)),
        Ok(CompareTarget::Mod) => item.revision.main.cmp(&operand(compare)),
        Ok(CompareTarget::Lease) => item.lease.cmp(&operand(compare)),
        Err(_) => std::cmp::Ordering::Equal,
    }
}

/// The number compared with; 0 if the union holds none, or the one of another target. An unknown target
/// compares equal.
fn operand(compare: &Compare) -> i64 {
    match (CompareTarget::try_from(compare.target), &compare.target_union) {
        (Ok(CompareTarget::Version), Some(TargetUnion::Version(v)))
        | (Ok(CompareTarget::Create), Some(TargetUnion::CreateRevision(v)))
        | (Ok(CompareTarget::Mod), Some(TargetUnion::ModRevision(v)))
        | (Ok(CompareTarget::Lease), Some(TargetUnion::Lease(v))) => *v,
        _ => 0,
    }
}

/// An unknown operator always holds.
fn holds_for(compare: &Compare, actual: std::cmp::Ordering) -> bool {
    let actual = if mutant::is(Mutant::CompareReversed) { actual.reverse() } else { actual };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => actual.is_eq(),
        Ok(CompareResult::NotEqual) => actual.is_ne(),
        Ok(CompareResult::Greater) => actual.is_gt(),
        Ok(CompareResult::Less) => actual.is_lt(),
        Err(_) => true,
    }
}

/// Pass 2.
fn check_path(
    writer: &mut Writer<'_>,
    request: &TxnRequest,
    leases: &LeaseTable,
    path: &mut slice::Iter<'_, bool>,
    shadow: &mut Shadow,
) -> Result<(), Fault> {
    for op in branch(request, next(path)) {
        match &op.request {
            Some(Op::RequestRange(range)) => check_revision(writer, range)?,
            Some(Op::RequestPut(put)) => {
                check_put(writer, put, leases)?;
                if (put.ignore_value || put.ignore_lease) && shadow.is_deleted(&put.key) {
                    return Err(Error::KeyNotFound.into());
                }
                shadow.put(&put.key);
            }
            Some(Op::RequestDeleteRange(delete)) => shadow.delete(delete),
            Some(Op::RequestTxn(nested)) => check_path(writer, nested, leases, path, shadow)?,
            None => {}
        }
    }
    Ok(())
}

/// Inside a transaction only 0 means the newest revision: a negative one lies below any mark, and passes
/// only where nothing has ever been compacted and it is -1.
fn check_revision(keys: &impl Keys, range: &RangeRequest) -> Result<(), Error> {
    match range.revision {
        0 => Ok(()),
        revision if revision > keys.revision() => Err(Error::FutureRevision),
        revision if revision < keys.compact_revision() => Err(Error::Compacted),
        _ => Ok(()),
    }
}

/// What a put needs to find: its lease, then the key whose value or lease it keeps.
pub(crate) fn check_put(
    writer: &mut Writer<'_>,
    put: &PutRequest,
    leases: &LeaseTable,
) -> Result<(), Error> {
    if put.lease != 0 && !leases.contains(put.lease) {
        return Err(Error::LeaseNotFound);
    }
    if (put.ignore_value || put.ignore_lease) && !writer.exists(&put.key) {
        return Err(Error::KeyNotFound);
    }
    Ok(())
}

/// What the operations checked so far would do to keys, as far as a later one can see it.
#[derive(Debug, Default)]
struct Shadow {
    /// What some delete covers.
    deleted: Intervals,
    /// What was put, and not deleted since.
    put: BTreeSet<Bytes>,
}

impl Shadow {
    fn is_deleted(&self, key: &Bytes) -> bool {
        self.deleted.contains(key) && !self.put.contains(key)
    }

    fn put(&mut self, key: &Bytes) {
        // Before the first delete nothing needs remembering: a put makes no key go away.
        if !self.deleted.ranges.is_empty() {
            self.put.insert(key.clone());
        }
    }

    fn delete(&mut self, delete: &DeleteRangeRequest) {
        let (from, to) = interval(delete);
        if to.as_ref().is_some_and(|to| *to <= from) {
            return;
        }
        let mut back = self.put.split_off(&from);
        if let Some(to) = &to {
            self.put.append(&mut back.split_off(to));
        }
        self.deleted.insert(from, to);
    }
}

/// Pass 3.
fn execute_branch(
    writer: &mut Writer<'_>,
    request: &TxnRequest,
    path: &mut slice::Iter<'_, bool>,
    want_reply: bool,
) -> Result<TxnReply, Fault> {
    let succeeded = next(path);
    let ops = branch(request, succeeded);
    let mut reply = TxnReply { revision: 0, succeeded, responses: Vec::new() };
    for op in ops {
        let response = match &op.request {
            Some(Op::RequestRange(_)) if !want_reply => None,
            Some(Op::RequestRange(range)) => Some(Response::Range(kv::range(writer, range)?)),
            Some(Op::RequestPut(put)) => Some(Response::Put(writer.put(put, want_reply)?)),
            Some(Op::RequestDeleteRange(delete)) => {
                Some(Response::DeleteRange(writer.delete_range(delete, want_reply)?))
            }
            Some(Op::RequestTxn(nested)) => {
                Some(Response::Txn(execute_branch(writer, nested, path, want_reply)?))
            }
            None => None,
        };
        if want_reply {
            reply.responses.push(response);
        }
    }
    Ok(reply)
}

/// Some operation, on whichever branch and however deep, is a put: what a full disk refuses.
pub(crate) fn puts(request: &TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).any(|op| match &op.request {
        Some(Op::RequestPut(_)) => true,
        Some(Op::RequestTxn(nested)) => puts(nested),
        _ => false,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn delete(key: &'static str, range_end: &'static str) -> DeleteRangeRequest {
        DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: false }
    }

    fn set(ranges: &[(&'static str, &'static str)]) -> Intervals {
        let mut set = Intervals::default();
        for (key, range_end) in ranges {
            let (from, to) = interval(&delete(key, range_end));
            set.insert(from, to);
        }
        set
    }

    /// Against a plain list of ranges, for all ranges and keys of a tiny alphabet.
    #[test]
    fn intervals_cover_what_their_ranges_cover() {
        let ends = ["", "\0", "a", "b", "bb", "c", "d"];
        let keys = ["a", "b", "bb", "c", "cc", "d", "z"];
        let ranges: Vec<_> = keys.iter().flat_map(|k| ends.iter().map(move |e| (*k, *e))).collect();
        let covers = |(from, end): (&str, &str), key: &str| match end {
            "" => key == from,
            "\0" => key >= from,
            end => key >= from && key < end,
        };
        for one in &ranges {
            for two in &ranges {
                let set = set(&[*one, *two, ("b", "c")]);
                for key in keys {
                    let expected =
                        covers(*one, key) || covers(*two, key) || covers(("b", "c"), key);
                    assert_eq!(set.contains(&key.into()), expected, "{one:?} {two:?} {key}");
                }
                let ranges: Vec<_> = set.ranges.iter().collect();
                for pair in ranges.windows(2) {
                    assert!(pair[0].1.as_ref().is_some_and(|end| end < pair[1].0), "{set:?}");
                }
            }
        }
    }

    /// A put after the delete brings the key back, a later delete takes it away again.
    #[test]
    fn the_shadow_follows_puts_and_deletes() {
        let mut shadow = Shadow::default();
        assert!(!shadow.is_deleted(&"k".into()));
        shadow.delete(&delete("a", "\0"));
        assert!(shadow.is_deleted(&"k".into()));
        shadow.put(&"k".into());
        assert!(!shadow.is_deleted(&"k".into()));
        shadow.delete(&delete("k", ""));
        assert!(shadow.is_deleted(&"k".into()));
        shadow.put(&"k".into());
        shadow.delete(&delete("z", "b"));
        shadow.delete(&delete("l", "m"));
        assert!(!shadow.is_deleted(&"k".into()));
    }
}
