//! Range, put and delete.

use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};

use crate::error::Error;

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
