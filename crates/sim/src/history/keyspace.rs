//! What a key-value store is to the search: keys with a value and a version, and no revisions.
//!
//! Revisions would tell the order, which the search shall find without them. So of an answer the keys, values,
//! versions, counts and branches are judged, not its revisions; and where a request turns on revisions, the answer is
//! believed in that point alone:
//!
//! - a compare of a create or modification revision with anything but 0 may hold or not, if the key is there;
//! - a range with a revision of its own speaks of the past, and is left to the witness;
//! - a range that filters or sorts by revision is judged by its count alone.
//!
//! Leases are not modelled: their ends are nobody's requests. A history in which they occur is refused here.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::response_op::Response as OpAnswer;
use proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, TxnRequest, TxnResponse,
};
use proto::mvccpb::KeyValue;

use super::search::{Model, Timed};
use super::{Answer, Operation, Outcome, Request};
use crate::model::contains;

/// The end of a range of one key, and the value of a key that is not there.
static NOTHING: Bytes = Bytes::new();

/// A key-value store.
pub struct Keyspace;

/// A request with its answer, if it got one.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    request: Request,
    answer: Option<Answer>,
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    value: Bytes,
    /// Puts since it was last not there.
    version: i64,
}

/// All keys that there are.
pub type State = BTreeMap<Bytes, Held>;

/// What the search has to explain of a history: the operations that may have changed keys, or have said what was there.
///
/// # Errors
/// A lease occurs.
pub fn of(history: &[Operation]) -> Result<Vec<Timed<Asked>>, String> {
    let mut operations = Vec::new();
    for Operation { call, request, outcome, .. } in history {
        if let Some(lease) = request.lease() {
            return Err(format!("lease {lease:x} occurs, and its end is nobody's request"));
        }
        let is_past = matches!(request, Request::Range(range) if range.revision != 0);
        if is_past || request.is_serializable() || matches!(request, Request::Compact(_)) {
            continue;
        }
        let (returned, answer) = match outcome {
            Outcome::Answered { at, answer } => (Some(*at), Some(answer.clone())),
            Outcome::Unknown if !request.is_read() => (None, None),
            // What had no effect says little, and why it had none is for the witness.
            Outcome::Unknown | Outcome::Refused { .. } | Outcome::NotTaken => continue,
        };
        let operation = Asked { request: request.clone(), answer };
        operations.push(Timed { call: *call, returned, operation });
    }
    Ok(operations)
}

impl Model for Keyspace {
    type State = State;
    type Operation = Asked;

    fn begin(&self) -> State {
        State::new()
    }

    fn step(&self, state: &State, asked: &Asked) -> Vec<State> {
        match (&asked.request, &asked.answer) {
            (Request::Put(put), None) => done_put(state, state, put, None),
            (Request::Put(put), Some(Answer::Put(answer))) => {
                done_put(state, state, put, Some(answer))
            }
            (Request::DeleteRange(delete), None) => done_delete(state, delete, None),
            (Request::DeleteRange(delete), Some(Answer::DeleteRange(answer))) => {
                done_delete(state, delete, Some(answer))
            }
            (Request::Txn(txn), None) => done_txn(state, state, txn, None),
            (Request::Txn(txn), Some(Answer::Txn(answer))) => {
                done_txn(state, state, txn, Some(answer))
            }
            (Request::Range(range), Some(Answer::Range(answer))) => {
                done_range(state, range, Some(answer))
            }
            // An answer to something else is an answer to nothing.
            _ => Vec::new(),
        }
    }

    fn is_read(&self, asked: &Asked) -> bool {
        asked.request.is_read() || asked.answer.as_ref().is_some_and(|a| !a.says_changed())
    }

    /// Two keys belong together if some request names both; requests belong where their keys do.
    fn partition(&self, operations: &[Timed<Asked>]) -> Vec<Vec<usize>> {
        let named: Vec<Vec<(&Bytes, &Bytes)>> =
            operations.iter().map(|timed| ranges_of(&timed.operation.request)).collect();
        let starts: BTreeSet<&Bytes> = named.iter().flatten().map(|(start, _)| *start).collect();
        let keys: Vec<&Bytes> = starts.into_iter().collect();
        let mut groups = Groups { above: (0..keys.len()).collect() };
        // Where the first key of each request stands; a request may name none.
        let mut home = Vec::new();
        for ranges in &named {
            let mut first = None;
            for (start, end) in ranges {
                let from = keys.partition_point(|key| key < start);
                let first = *first.get_or_insert(from);
                (from..keys.len())
                    .take_while(|place| contains(start, end, keys[*place]))
                    .for_each(|place| groups.join(first, place));
            }
            home.push(first);
        }
        let mut parts: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
        for (operation, place) in home.into_iter().enumerate() {
            parts.entry(place.map(|place| groups.top(place))).or_default().push(operation);
        }
        parts.into_values().collect()
    }
}

/// Keys that belong together, as trees: the keys of a group have one top.
struct Groups {
    above: Vec<usize>,
}

impl Groups {
    fn top(&mut self, place: usize) -> usize {
        let mut top = place;
        while self.above[top] != top {
            // Halves the way for whoever comes next.
            self.above[top] = self.above[self.above[top]];
            top = self.above[top];
        }
        top
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.top(one), self.top(other));
        self.above[other] = one;
    }
}

/// The ranges that a request names.
fn ranges_of(request: &Request) -> Vec<(&Bytes, &Bytes)> {
    fn add<'r>(op: &'r Op, ranges: &mut Vec<(&'r Bytes, &'r Bytes)>) {
        match op {
            Op::RequestPut(put) => ranges.push((&put.key, &NOTHING)),
            Op::RequestRange(range) => ranges.push((&range.key, &range.range_end)),
            Op::RequestDeleteRange(delete) => ranges.push((&delete.key, &delete.range_end)),
            Op::RequestTxn(txn) => add_txn(txn, ranges),
        }
    }
    fn add_txn<'r>(txn: &'r TxnRequest, ranges: &mut Vec<(&'r Bytes, &'r Bytes)>) {
        ranges.extend(txn.compare.iter().map(|compare| (&compare.key, &compare.range_end)));
        super::ops(txn).for_each(|op| add(op, ranges));
    }
    match request {
        Request::Put(put) => vec![(&put.key, &NOTHING)],
        Request::Range(range) => vec![(&range.key, &range.range_end)],
        Request::DeleteRange(delete) => vec![(&delete.key, &delete.range_end)],
        Request::Txn(txn) => {
            let mut ranges = Vec::new();
            add_txn(txn, &mut ranges);
            ranges
        }
        Request::Compact(_) | Request::LeaseGrant(_) | Request::LeaseRevoke(_) => Vec::new(),
    }
}

/// The states after a put; none if its answer cannot be. A put that keeps something needs a key that was there `before`
/// the whole transaction.
fn done_put(
    before: &State,
    state: &State,
    put: &PutRequest,
    answer: Option<&PutResponse>,
) -> Vec<State> {
    let held = state.get(&put.key);
    let keeps = put.ignore_value || put.ignore_lease;
    if keeps && !(held.is_some() && before.contains_key(&put.key)) {
        return Vec::new();
    }
    if let Some(answer) = answer {
        let wanted = held.filter(|_| put.prev_kv).map(|held| (&put.key, held));
        if !same(wanted, answer.prev_kv.as_ref()) {
            return Vec::new();
        }
    }
    let value = match held {
        Some(held) if put.ignore_value => held.value.clone(),
        _ => put.value.clone(),
    };
    let version = held.map_or(0, |held| held.version) + 1;
    let mut state = state.clone();
    state.insert(put.key.clone(), Held { value, version });
    vec![state]
}

fn done_delete(
    state: &State,
    delete: &DeleteRangeRequest,
    answer: Option<&DeleteRangeResponse>,
) -> Vec<State> {
    let gone = within(state, &delete.key, &delete.range_end);
    if let Some(answer) = answer {
        let wanted: &[_] = if delete.prev_kv { &gone } else { &[] };
        if answer.deleted != gone.len() as i64 || !all_same(wanted, &answer.prev_kvs) {
            return Vec::new();
        }
    }
    let keys: Vec<Bytes> = gone.into_iter().map(|(key, _)| key.clone()).collect();
    let mut state = state.clone();
    keys.iter().for_each(|key| drop(state.remove(key)));
    vec![state]
}

fn done_range(state: &State, range: &RangeRequest, answer: Option<&RangeResponse>) -> Vec<State> {
    let fits = answer.is_none_or(|answer| range.revision != 0 || fits_range(state, range, answer));
    if fits { vec![state.clone()] } else { Vec::new() }
}

fn fits_range(state: &State, range: &RangeRequest, answer: &RangeResponse) -> bool {
    let mut found = within(state, &range.key, &range.range_end);
    if answer.count != found.len() as i64 {
        return false;
    }
    let target = SortTarget::try_from(range.sort_target).unwrap_or_default();
    let by_revision = range.sort_order != SortOrder::None as i32
        && matches!(target, SortTarget::Create | SortTarget::Mod);
    let bounds = [
        range.min_mod_revision,
        range.max_mod_revision,
        range.min_create_revision,
        range.max_create_revision,
    ];
    if by_revision || bounds != [0; 4] {
        return true;
    }
    if range.sort_order != SortOrder::None as i32 {
        found.sort_by(|(a_key, a), (b_key, b)| {
            let ordering = match target {
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::Value => a.value.cmp(&b.value),
                _ => a_key.cmp(b_key),
            };
            let is_descending = range.sort_order == SortOrder::Descend as i32;
            if is_descending { ordering.reverse() } else { ordering }
        });
    }
    if range.count_only {
        found.clear();
    }
    let limit = usize::try_from(range.limit).unwrap_or(0);
    let more = limit > 0 && found.len() > limit;
    if more {
        found.truncate(limit);
    }
    if range.keys_only {
        let version = |(key, held): &(&Bytes, &Held)| ((*key).clone(), held.version);
        let told = answer.kvs.iter().map(|kv| (kv.key.clone(), kv.version));
        return answer.more == more && found.iter().map(version).eq(told);
    }
    answer.more == more && all_same(&found, &answer.kvs)
}

/// The states after a transaction. What is compared is what was there `before` the outermost.
fn done_txn(
    before: &State,
    state: &State,
    txn: &TxnRequest,
    answer: Option<&TxnResponse>,
) -> Vec<State> {
    let holds = all(txn.compare.iter().map(|compare| holds(before, compare)));
    let branches = [(true, &txn.success), (false, &txn.failure)];
    let possible = branches.into_iter().filter(|(succeeded, _)| {
        holds.is_none_or(|holds| holds == *succeeded)
            && answer.is_none_or(|answer| answer.succeeded == *succeeded)
    });
    let mut after = Vec::new();
    for (_, ops) in possible {
        if answer.is_some_and(|answer| answer.responses.len() != ops.len()) {
            continue;
        }
        let mut states = vec![state.clone()];
        for (place, op) in ops.iter().enumerate() {
            let told = answer.map(|answer| answer.responses[place].response.as_ref());
            states = states
                .iter()
                .flat_map(|state| done_op(before, state, op.request.as_ref(), told))
                .collect();
        }
        after.extend(states);
    }
    after
}

/// `told` is what the answer says here, if there is an answer.
fn done_op(
    before: &State,
    state: &State,
    op: Option<&Op>,
    told: Option<Option<&OpAnswer>>,
) -> Vec<State> {
    match (op, told) {
        (None, None | Some(None)) => vec![state.clone()],
        (Some(Op::RequestPut(put)), None) => done_put(before, state, put, None),
        (Some(Op::RequestPut(put)), Some(Some(OpAnswer::ResponsePut(answer)))) => {
            done_put(before, state, put, Some(answer))
        }
        (Some(Op::RequestDeleteRange(delete)), None) => done_delete(state, delete, None),
        (
            Some(Op::RequestDeleteRange(delete)),
            Some(Some(OpAnswer::ResponseDeleteRange(answer))),
        ) => done_delete(state, delete, Some(answer)),
        (Some(Op::RequestRange(range)), None) => done_range(state, range, None),
        (Some(Op::RequestRange(range)), Some(Some(OpAnswer::ResponseRange(answer)))) => {
            done_range(state, range, Some(answer))
        }
        (Some(Op::RequestTxn(txn)), None) => done_txn(before, state, txn, None),
        (Some(Op::RequestTxn(txn)), Some(Some(OpAnswer::ResponseTxn(answer)))) => {
            done_txn(before, state, txn, Some(answer))
        }
        _ => Vec::new(),
    }
}

/// Whether a compare holds; `None` if that turns on a revision.
fn holds(state: &State, compare: &Compare) -> Option<bool> {
    let found = within(state, &compare.key, &compare.range_end);
    if found.is_empty() {
        let by_value = compare.target == CompareTarget::Value as i32;
        return if by_value { Some(false) } else { holds_for(compare, None) };
    }
    all(found.into_iter().map(|(_, held)| holds_for(compare, Some(held))))
}

/// Whether all of them hold: not if one does not, and else nobody knows if of one nobody knows.
fn all(mut holds: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    holds
        .try_fold(Some(true), |all, one| match one {
            Some(false) => Err(Some(false)),
            Some(true) => Ok(all),
            None => Ok(None),
        })
        .unwrap_or_else(|not| not)
}

fn holds_for(compare: &Compare, held: Option<&Held>) -> Option<bool> {
    let ordering = match compare.target_union.as_ref()? {
        TargetUnion::Version(version) => held.map_or(0, |held| held.version).cmp(version),
        TargetUnion::Value(value) => held.map_or(&NOTHING, |held| &held.value).cmp(value),
        TargetUnion::Lease(lease) => 0.cmp(lease),
        // The revision of a key that is there is some number above 0.
        TargetUnion::CreateRevision(revision) | TargetUnion::ModRevision(revision) => match held {
            None => 0.cmp(revision),
            Some(_) if *revision <= 0 => std::cmp::Ordering::Greater,
            Some(_) => return None,
        },
    };
    Some(match CompareResult::try_from(compare.result).ok()? {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::NotEqual => ordering.is_ne(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
    })
}

fn within<'s>(state: &'s State, key: &Bytes, range_end: &[u8]) -> Vec<(&'s Bytes, &'s Held)> {
    state.range(key.clone()..).take_while(|(held, _)| contains(key, range_end, held)).collect()
}

fn all_same(wanted: &[(&Bytes, &Held)], told: &[KeyValue]) -> bool {
    wanted.len() == told.len()
        && wanted.iter().zip(told).all(|(wanted, told)| same(Some(*wanted), Some(told)))
}

fn same(wanted: Option<(&Bytes, &Held)>, told: Option<&KeyValue>) -> bool {
    match (wanted, told) {
        (None, None) => true,
        (Some((key, held)), Some(told)) => {
            (key, &held.value, held.version) == (&told.key, &told.value, told.version)
        }
        _ => false,
    }
}
