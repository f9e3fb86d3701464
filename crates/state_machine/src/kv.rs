//! Range, put and delete: what is checked before they are proposed, and what they do.
//!
//! A range works in this order, and several of its odd answers follow from it: read (up to one more than
//! the limit), drop what the revision filters exclude, sort, cut to the limit. A sort or a filter needs
//! everything first, so then the limit does not reach the read. `count` is of the range, whatever is
//! filtered or cut. Asked for an order by something else than the key but for no direction, the result is
//! sorted upwards, but the limit has reached the read by then: the smallest *keys* are sorted.

use std::cmp::Ordering;

use bytes::Bytes;
use mutant::Mutant;
use mvcc::{Item, KeyRange, RangeQuery, RangeResult};
use prost::Message;
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};

use crate::error::Error;
use crate::fault::Fault;
use crate::reply::RangeReply;

/// Checks a range before it runs, wherever it comes from: key, then sort order, then sort target.
///
/// # Errors
/// The first check that fails.
pub fn check_range(request: &RangeRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    let order = SortOrder::try_from(request.sort_order);
    let target = SortTarget::try_from(request.sort_target);
    if order.is_err() || target.is_err() { Err(Error::InvalidSortOption) } else { Ok(()) }
}

/// Checks a range that is to be streamed: what [`check_range`] checks, then that it needs no sorting and
/// no filtering, both of which would need the whole result first.
///
/// # Errors
/// The first check that fails.
pub fn check_range_stream(request: &RangeRequest) -> Result<(), Error> {
    check_range(request)?;
    if !is_key_order(request.sort_target, request.sort_order) {
        return Err(Error::RangeStreamSorted);
    }
    if has_filters(request) { Err(Error::RangeStreamFiltered) } else { Ok(()) }
}

/// Checks a put: key, then a value beside `ignore_value`, then a lease beside `ignore_lease`.
pub(crate) fn check_put(request: &PutRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 { Err(Error::LeaseProvided) } else { Ok(()) }
}

/// Checks a delete: it has a key.
pub(crate) fn check_delete(request: &DeleteRangeRequest) -> Result<(), Error> {
    if request.key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

/// The order in which the keyspace is read anyway.
fn is_key_order(target: i32, order: i32) -> bool {
    order == SortOrder::None as i32
        || (target == SortTarget::Key as i32 && order == SortOrder::Ascend as i32)
}

fn has_filters(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

/// The keyspace as one reader sees it: apply in the middle of a transaction, or a read thread.
pub(crate) trait Keys {
    /// The newest revision there is to see.
    fn revision(&self) -> i64;

    /// Revisions below this cannot be read; -1 if all can.
    fn compact_revision(&self) -> i64;

    /// Reads a range.
    fn read(&mut self, query: &RangeQuery) -> Result<RangeResult, Fault>;
}

/// Runs a range. Orders and targets outside their enums sort nothing: only [`check_range`] refuses them,
/// because an entry that holds one is applied by every member that does not answer it.
pub(crate) fn range(keys: &mut impl Keys, request: &RangeRequest) -> Result<RangeReply, Fault> {
    let sorts = !is_key_order(request.sort_target, request.sort_order);
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let read_limit =
        if limit == 0 || sorts || has_filters(request) { 0 } else { limit.saturating_add(1) };
    let by_value = request.sort_target == SortTarget::Value as i32;
    let mut found = keys.read(&RangeQuery {
        range: KeyRange::parse(request.key.clone(), request.range_end.clone()),
        revision: request.revision,
        limit: read_limit,
        count_only: request.count_only,
        keys_only: request.keys_only && !by_value,
    })?;
    if request.count_only {
        found.items.clear();
    }
    filter(&mut found.items, request);
    if mutant::is(Mutant::LimitBeforeSort)
        && limit > 0
        && request.sort_order == SortOrder::Descend as i32
    {
        found.items.truncate(limit.saturating_add(1));
    }
    sort(&mut found.items, request);
    let more = limit > 0 && found.items.len() > limit;
    if more {
        found.items.truncate(limit);
    }
    let key_values = match request.keys_only && by_value {
        // Sorting by value has read whole key-values, and so the lease stays in the answer.
        true => found.items.iter().map(without_value).collect(),
        false => found.items.into_iter().map(|item| item.bytes).collect(),
    };
    let count = i64::try_from(found.count).unwrap_or(i64::MAX);
    Ok(RangeReply { revision: found.current_revision, key_values, more, count })
}

/// The key-value without its value, encoded anew.
fn without_value(item: &Item) -> Bytes {
    let key_value = proto::mvccpb::KeyValue {
        key: item.key.clone(),
        create_revision: item.create,
        mod_revision: item.revision.main,
        version: item.version,
        value: Bytes::new(),
        lease: item.lease,
    };
    key_value.encode_to_vec().into()
}

fn filter(items: &mut Vec<Item>, request: &RangeRequest) {
    if !has_filters(request) {
        return;
    }
    let above = |revision, min| min == 0 || revision >= min;
    let below = |revision, max| max == 0 || revision <= max;
    if mutant::is(Mutant::OneBoundCounts) && request.min_mod_revision != 0 {
        return items.retain(|item| above(item.revision.main, request.min_mod_revision));
    }
    items.retain(|item| {
        below(item.revision.main, request.max_mod_revision)
            && above(item.revision.main, request.min_mod_revision)
            && below(item.create, request.max_create_revision)
            && above(item.create, request.min_create_revision)
    });
}

/// Equal ones stay in key order; etcd leaves that open.
fn sort(items: &mut [Item], request: &RangeRequest) {
    let (Ok(target), Ok(order)) =
        (SortTarget::try_from(request.sort_target), SortOrder::try_from(request.sort_order))
    else {
        return;
    };
    let direct: fn(Ordering) -> Ordering = match (target, order) {
        (SortTarget::Key, SortOrder::None | SortOrder::Ascend) => return,
        (_, SortOrder::None | SortOrder::Ascend) => |ordering| ordering,
        (_, SortOrder::Descend) => Ordering::reverse,
    };
    match target {
        SortTarget::Key => items.sort_by(|a, b| direct(a.key.cmp(&b.key))),
        SortTarget::Version => items.sort_by(|a, b| direct(a.version.cmp(&b.version))),
        SortTarget::Create => items.sort_by(|a, b| direct(a.create.cmp(&b.create))),
        SortTarget::Mod => items.sort_by(|a, b| direct(a.revision.main.cmp(&b.revision.main))),
        SortTarget::Value => {
            let compare = |a: &Item, b: &Item| direct(a.value().cmp(&b.value()));
            items.sort_by(compare);
        }
    }
}
