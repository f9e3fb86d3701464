//! What is refused at a server's door, before it comes to the store, written down a second time.
//!
//! It belongs to the model: it shares no line with the code that it judges, and knows etcd's order of checks and etcd's
//! oversights, which clients may rely on. A transaction is looked at twice: all keys and limits first, depth first; then
//! whether a key is written twice.

use bytes::Bytes;
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::{PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest};

use crate::history::Request;

/// The most operations in one list of a transaction, its nested ones having what is left: few, so that too many are
/// cheap.
pub const TXN_OPS_MAX: usize = 16;
/// The longest lease, in seconds.
pub const TTL_MAX: i64 = 9_000_000_000;

type Refused = Result<(), &'static str>;

const NO_KEY: &str = "etcdserver: key is not provided";
const BAD_SORT: &str = "etcdserver: invalid sort option";
const HAS_VALUE: &str = "etcdserver: value is provided";
const HAS_LEASE: &str = "etcdserver: lease is provided";
const NO_OPERATION: &str = "etcdserver: key not found";
const TOO_MANY: &str = "etcdserver: too many operations in txn request";
const TWICE: &str = "etcdserver: duplicate key given in txn request";
const TOO_LONG: &str = "etcdserver: too large lease TTL";

/// Whether the request comes through the door.
///
/// # Errors
/// The text of the refusal.
pub fn check(request: &Request) -> Refused {
    match request {
        Request::Range(range) => check_range(range),
        Request::Put(put) => check_put(put),
        Request::DeleteRange(delete) => check_key(&delete.key),
        Request::Txn(txn) => {
            check_shape(txn, TXN_OPS_MAX)?;
            if writes_twice(txn) { Err(TWICE) } else { Ok(()) }
        }
        Request::LeaseGrant(grant) if grant.ttl > TTL_MAX => Err(TOO_LONG),
        Request::LeaseGrant(_) | Request::LeaseRevoke(_) | Request::Compact(_) => Ok(()),
    }
}

/// Whether a watch can be: it begins somewhere, and there is a key that it could be about.
pub fn is_watchable(asked: &WatchCreateRequest) -> bool {
    // The empty key stands for the first that there can be.
    let key = if asked.key.is_empty() { &[0][..] } else { &asked.key[..] };
    let end = &asked.range_end[..];
    asked.start_revision >= 0 && (end.is_empty() || end == [0] || end > key)
}

fn check_key(key: &Bytes) -> Refused {
    if key.is_empty() { Err(NO_KEY) } else { Ok(()) }
}

fn check_range(range: &RangeRequest) -> Refused {
    check_key(&range.key)?;
    let known = SortOrder::try_from(range.sort_order).is_ok()
        && SortTarget::try_from(range.sort_target).is_ok();
    if known { Ok(()) } else { Err(BAD_SORT) }
}

fn check_put(put: &PutRequest) -> Refused {
    check_key(&put.key)?;
    if put.ignore_value && !put.value.is_empty() {
        return Err(HAS_VALUE);
    }
    if put.ignore_lease && put.lease != 0 { Err(HAS_LEASE) } else { Ok(()) }
}

/// Whether the transaction is longer than it may be, or one nested in it than what is left.
pub fn is_too_long(txn: &TxnRequest, most: usize) -> bool {
    let longest = [txn.compare.len(), txn.success.len(), txn.failure.len()].into_iter().max();
    let left = most.checked_sub(longest.unwrap_or(0));
    left.is_none_or(|left| nested(txn).any(|nested| is_too_long(nested, left)))
}

fn nested(txn: &TxnRequest) -> impl Iterator<Item = &TxnRequest> {
    txn.success.iter().chain(&txn.failure).filter_map(|op| match &op.request {
        Some(Op::RequestTxn(nested)) => Some(nested),
        _ => None,
    })
}

fn check_shape(txn: &TxnRequest, most: usize) -> Refused {
    let lists = [txn.compare.len(), txn.success.len(), txn.failure.len()];
    if lists.into_iter().any(|length| length > most) {
        return Err(TOO_MANY);
    }
    let left = most - lists.into_iter().max().unwrap_or(0);
    txn.compare.iter().try_for_each(|compare| check_key(&compare.key))?;
    txn.success.iter().chain(&txn.failure).try_for_each(|op| match &op.request {
        None => Err(NO_OPERATION),
        Some(Op::RequestRange(range)) => check_range(range),
        Some(Op::RequestPut(put)) => check_put(put),
        Some(Op::RequestDeleteRange(delete)) => check_key(&delete.key),
        Some(Op::RequestTxn(nested)) => check_shape(nested, left),
    })
}

/// Whether one of its branches puts a key twice, or puts one that it deletes.
pub fn writes_twice(txn: &TxnRequest) -> bool {
    [&txn.success, &txn.failure].into_iter().any(|branch| writes_of(branch).is_none())
}

/// What a list of operations puts, and the ranges that it deletes.
type Writes<'t> = (Vec<&'t Bytes>, Vec<(&'t Bytes, &'t Bytes)>);

/// `None` if it writes a key twice. Of the branches of a nested transaction only one is done, so they may put the same.
/// What a later nested transaction deletes is not held against what an earlier one puts, and a delete of everything from
/// a key on against nothing: etcd overlooks both.
fn writes_of(ops: &[RequestOp]) -> Option<Writes<'_>> {
    let deletes_key =
        |deletes: &[(&Bytes, &Bytes)], key: &Bytes| {
            deletes.iter().any(|(from, end)| {
                if end.is_empty() { key == *from } else { key >= *from && key < *end }
            })
        };
    let (mut puts, mut deletes): Writes<'_> = (Vec::new(), Vec::new());
    for op in ops {
        if let Some(Op::RequestDeleteRange(delete)) = &op.request
            && delete.range_end[..] != [0]
        {
            deletes.push((&delete.key, &delete.range_end));
        }
    }
    for op in ops {
        let Some(Op::RequestTxn(nested)) = &op.request else { continue };
        let (then_puts, then_deletes) = writes_of(&nested.success)?;
        let (else_puts, else_deletes) = writes_of(&nested.failure)?;
        let both = || then_puts.iter().chain(&else_puts).copied();
        if both().any(|key| puts.contains(&key) || deletes_key(&deletes, key)) {
            return None;
        }
        puts.extend(both());
        deletes.extend(then_deletes);
        deletes.extend(else_deletes);
    }
    for op in ops {
        let Some(Op::RequestPut(put)) = &op.request else { continue };
        if puts.contains(&&put.key) || deletes_key(&deletes, &put.key) {
            return None;
        }
        puts.push(&put.key);
    }
    Some((puts, deletes))
}

#[cfg(test)]
mod tests {
    use proto::etcdserverpb::DeleteRangeRequest;

    use super::*;

    fn put(key: &'static str) -> RequestOp {
        let put = PutRequest { key: key.into(), ..PutRequest::default() };
        RequestOp { request: Some(Op::RequestPut(put)) }
    }

    fn delete(key: &'static str, range_end: &'static str) -> RequestOp {
        let (key, range_end) = (key.into(), range_end.into());
        let delete = DeleteRangeRequest { key, range_end, ..DeleteRangeRequest::default() };
        RequestOp { request: Some(Op::RequestDeleteRange(delete)) }
    }

    fn then(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        let txn = TxnRequest { success, failure, ..TxnRequest::default() };
        RequestOp { request: Some(Op::RequestTxn(txn)) }
    }

    #[test]
    fn a_key_is_written_once() {
        let twice = |success: Vec<RequestOp>| {
            writes_twice(&TxnRequest { success, ..TxnRequest::default() })
        };
        assert!(!twice(vec![put("a"), put("b"), delete("c", "d"), delete("c", "")]));
        assert!(twice(vec![put("a"), put("a")]));
        assert!(twice(vec![put("a"), delete("a", "")]));
        assert!(twice(vec![put("b"), delete("a", "c")]));
        assert!(!twice(vec![put("b"), delete("a", "\0")]));
        assert!(!twice(vec![then(vec![put("a")], vec![put("a")])]));
        assert!(twice(vec![then(vec![put("a")], vec![]), put("a")]));
        assert!(twice(vec![then(vec![delete("a", "")], vec![]), then(vec![put("a")], vec![])]));
        assert!(!twice(vec![then(vec![put("a")], vec![]), then(vec![delete("a", "")], vec![])]));
    }

    #[test]
    fn what_is_nested_has_what_is_left() {
        let txn = |ops: usize, inner: usize| TxnRequest {
            success: (0..ops)
                .map(|_| then((0..inner).map(|_| delete("a", "")).collect(), vec![]))
                .collect(),
            ..TxnRequest::default()
        };
        assert_eq!(check_shape(&txn(4, 12), 16), Ok(()));
        assert_eq!(check_shape(&txn(4, 13), 16), Err(TOO_MANY));
        assert!(is_too_long(&txn(4, 13), 16) && !is_too_long(&txn(4, 12), 16));
    }

    #[test]
    fn a_watch_is_of_something() {
        let asked = |key: &'static str, end: &'static str, start_revision| WatchCreateRequest {
            key: key.into(),
            range_end: end.into(),
            start_revision,
            ..WatchCreateRequest::default()
        };
        for (key, end, start, can_be) in [
            ("", "", 0, true),
            ("", "\0", 9, true),
            ("b", "a", 0, false),
            ("b", "b", 0, false),
            ("b", "c", -1, false),
        ] {
            assert_eq!(is_watchable(&asked(key, end, start)), can_be, "{key} {end} {start}");
        }
    }
}
