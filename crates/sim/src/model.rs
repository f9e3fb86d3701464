//! What etcd's key-value store means, written down a second time, as simply as it can be.
//!
//! It is fed with the entries of the log, in their order, reads them with the generated protobuf code, and says
//! what the reply to each must be. It shares no line with the state machine that it judges. It forgets nothing:
//! compaction only moves a mark, so that any answer of any member can be compared with the state at the revision
//! that the answer names.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::response_op::Response as OpAnswer;
use proto::etcdserverpb::{
    CompactionResponse, Compare, DeleteRangeRequest, DeleteRangeResponse, InternalRaftRequest,
    LeaseGrantResponse, LeaseRevokeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use proto::mvccpb::KeyValue;

use crate::history::{Answer, Request};

/// etcd's texts of the refusals that can occur here.
const KEY_NOT_FOUND: &str = "etcdserver: key not found";
const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";
const LEASE_EXISTS: &str = "etcdserver: lease already exists";
pub const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
pub const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";

/// What an entry led to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The name of its request; 0 if it has none.
    pub id: u64,
    /// The revision after it.
    pub revision: i64,
    /// The last compaction's revision after it; -1 if there was none.
    pub mark: i64,
    /// The public response message, with a header that holds the revision alone, or the text of the refusal; there is
    /// none to what no client asks.
    pub reply: Result<Option<Answer>, &'static str>,
    /// The lease that it ended.
    pub revoked: Option<i64>,
    /// The lease that it granted.
    pub granted: Option<i64>,
}

/// One change of one key, as a watcher must see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Its main revision.
    pub main: i64,
    /// Its place within that.
    pub sub: i64,
    /// The key.
    pub key: Bytes,
    /// Whether it is a put.
    pub is_put: bool,
    /// As etcd's events carry it: whole for a put, key and mod_revision for a delete.
    pub kv: KeyValue,
    /// What was there before this main revision.
    pub previous: Option<KeyValue>,
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its time to live in seconds, as shown.
    pub ttl: i64,
    /// The keys on it.
    pub keys: BTreeSet<Bytes>,
}

#[derive(Clone, Debug)]
struct Version {
    main: i64,
    /// `None`: deleted.
    kv: Option<KeyValue>,
}

/// The state after some prefix of the log, and all states before it.
pub struct Model {
    revision: i64,
    mark: i64,
    /// The marks with the revision at which each was set, ascending.
    marks: Vec<(i64, i64)>,
    keys: BTreeMap<Bytes, Vec<Version>>,
    leases: BTreeMap<i64, Lease>,
    changes: Vec<Change>,
    outcomes: Vec<Outcome>,
    lease_ttl_min: i64,
}

impl Model {
    /// The empty store, at revision 1.
    pub fn new(lease_ttl_min: i64) -> Model {
        Model {
            revision: 1,
            mark: -1,
            marks: Vec::new(),
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
            changes: Vec::new(),
            outcomes: Vec::new(),
            lease_ttl_min,
        }
    }

    /// The current revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The compaction mark; -1 before any compaction.
    pub fn mark(&self) -> i64 {
        self.mark
    }

    /// The mark as it was when `revision` became current: no state at that revision has a lower one.
    pub fn mark_when(&self, revision: i64) -> i64 {
        let set = self.marks.partition_point(|(at, _)| *at < revision);
        self.marks[..set].last().map_or(-1, |(_, mark)| *mark)
    }

    /// The leases that exist.
    pub fn leases(&self) -> &BTreeMap<i64, Lease> {
        &self.leases
    }

    /// What the entry at `index` led to.
    pub fn outcome(&self, index: u64) -> Option<&Outcome> {
        self.outcomes.get(usize::try_from(index).ok()?.checked_sub(1)?)
    }

    /// The changes from main revision `from` to `to`, both included, in order.
    pub fn changes(&self, from: i64, to: i64) -> &[Change] {
        let start = self.changes.partition_point(|change| change.main < from);
        let end = self.changes.partition_point(|change| change.main <= to);
        &self.changes[start..end.max(start)]
    }

    /// etcd's HashKV at `revision`, if the keyspace is compacted at `mark`: over what is there, which is everything above
    /// the mark and of each key its last put at or below it; but of the latter only what can still be seen, unless nothing
    /// can. The hash that a compaction computes counts a deletion at its own revision as something that can be seen.
    pub fn hash_kv(&self, revision: i64, mark: i64, of_compaction: bool) -> u32 {
        let changes = self.changes(0, revision);
        let newest = |up_to: i64| -> BTreeMap<&Bytes, &Change> {
            self.changes(0, up_to).iter().map(|change| (&change.key, change)).collect()
        };
        let (kept, visible) = (newest(mark.min(revision)), newest(revision));
        let can_be_seen =
            |change: &&Change| change.is_put || of_compaction && change.main == revision;
        let hides = visible.values().any(can_be_seen);
        let is_last = |of: &BTreeMap<&Bytes, &Change>, change: &Change| {
            of.get(&change.key)
                .is_some_and(|last| (last.main, last.sub) == (change.main, change.sub))
        };
        let mut sum = crc32c::crc32c(b"key");
        for change in changes {
            let is_there = change.main > mark || change.is_put && is_last(&kept, change);
            let is_hidden = change.main <= mark && hides && !is_last(&visible, change);
            if !is_there || is_hidden {
                continue;
            }
            let mut bytes = change.main.to_be_bytes().to_vec();
            bytes.push(b'_');
            bytes.extend(change.sub.to_be_bytes());
            match change.is_put {
                true => change.kv.encode(&mut bytes).expect("a vector takes everything"),
                false => {
                    bytes.push(b't');
                    let key = KeyValue { key: change.key.clone(), ..KeyValue::default() };
                    key.encode(&mut bytes).expect("a vector takes everything");
                }
            }
            sum = crc32c::crc32c_append(sum, &bytes);
        }
        sum
    }

    /// Takes the next entry in. `data` is what a normal entry carries; `None` stands for a membership change.
    pub fn apply(&mut self, data: Option<&Bytes>) -> &Outcome {
        let request = data.filter(|data| !data.is_empty()).map(|data| {
            InternalRaftRequest::decode(data.clone())
                .expect("the simulator's own proposals are protobuf")
        });
        self.take(request)
    }

    /// Takes a membership change in, which changes nothing here: its name, and the text of its refusal if it was refused.
    pub fn note_change(&mut self, id: u64, refusal: Option<&'static str>) -> &Outcome {
        self.take(None);
        let outcome = self.outcomes.last_mut().expect("one was just pushed");
        outcome.id = id;
        outcome.reply = refusal.map_or(Ok(None), Err);
        outcome
    }

    /// Takes the next entry in; `None` stands for one that asks for nothing.
    pub fn take(&mut self, request: Option<InternalRaftRequest>) -> &Outcome {
        let mut outcome = Outcome {
            id: 0,
            revision: self.revision,
            mark: self.mark,
            reply: Ok(None),
            revoked: None,
            granted: None,
        };
        if let Some(request) = request {
            outcome.id = request.header.as_ref().map_or(0, |header| header.id);
            outcome.reply = self.execute(request, &mut outcome.revoked, &mut outcome.granted);
        }
        (outcome.revision, outcome.mark) = (self.revision, self.mark);
        self.outcomes.push(outcome);
        self.outcomes.last().expect("one was just pushed")
    }

    fn execute(
        &mut self,
        request: InternalRaftRequest,
        revoked: &mut Option<i64>,
        granted: &mut Option<i64>,
    ) -> Result<Option<Answer>, &'static str> {
        let mut write = Write { main: self.revision + 1, sub: 0 };
        let reply = if let Some(put) = request.put {
            self.check_put(&put)?;
            Answer::Put(self.put(&put, &mut write))
        } else if let Some(delete) = request.delete_range {
            Answer::DeleteRange(self.delete(&delete, &mut write))
        } else if let Some(txn) = request.txn {
            let mut path = Vec::new();
            self.compare(&txn, &mut path);
            let mut gone = BTreeSet::new();
            self.check_txn(&txn, &mut path.iter(), &mut gone)?;
            let mut answer = self.txn(&txn, &mut path.iter(), &mut write);
            answer.header = header(write.revision());
            Answer::Txn(answer)
        } else if let Some(compaction) = request.compaction {
            if compaction.revision <= self.mark {
                return Err(COMPACTED);
            }
            if compaction.revision > self.revision {
                return Err(FUTURE);
            }
            self.mark = compaction.revision;
            self.marks.push((self.revision, self.mark));
            Answer::Compact(CompactionResponse { header: header(self.revision) })
        } else if let Some(grant) = request.lease_grant {
            if self.leases.contains_key(&grant.id) {
                return Err(LEASE_EXISTS);
            }
            let ttl = grant.ttl.max(self.lease_ttl_min);
            self.leases.insert(grant.id, Lease { ttl, keys: BTreeSet::new() });
            *granted = Some(grant.id);
            Answer::LeaseGrant(LeaseGrantResponse {
                header: header(self.revision),
                id: grant.id,
                ttl,
                ..LeaseGrantResponse::default()
            })
        } else if let Some(revoke) = request.lease_revoke {
            let lease = self.leases.get(&revoke.id).cloned().ok_or(LEASE_NOT_FOUND)?;
            for key in lease.keys {
                self.delete_key(&key, &mut write);
            }
            self.leases.remove(&revoke.id);
            *revoked = Some(revoke.id);
            Answer::LeaseRevoke(LeaseRevokeResponse { header: header(write.revision()) })
        } else {
            return Ok(None);
        };
        if write.sub > 0 {
            self.revision = write.main;
        }
        Ok(Some(reply))
    }

    fn check_put(&self, put: &PutRequest) -> Result<(), &'static str> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(LEASE_NOT_FOUND);
        }
        let keeps = put.ignore_value || put.ignore_lease;
        if keeps && self.at(&put.key, i64::MAX).is_none() {
            return Err(KEY_NOT_FOUND);
        }
        Ok(())
    }

    fn put(&mut self, put: &PutRequest, write: &mut Write) -> PutResponse {
        let before = self.at(&put.key, i64::MAX).cloned();
        let kept = before.clone().unwrap_or_default();
        let alive = before.is_some();
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: if alive { kept.create_revision } else { write.main },
            mod_revision: write.main,
            version: kept.version + 1,
            value: if put.ignore_value { kept.value } else { put.value.clone() },
            lease: if put.ignore_lease { kept.lease } else { put.lease },
        };
        self.attach(&put.key, kept.lease, kv.lease);
        self.change(put.key.clone(), Some(kv), write);
        PutResponse { header: header(write.revision()), prev_kv: before.filter(|_| put.prev_kv) }
    }

    fn delete(&mut self, delete: &DeleteRangeRequest, write: &mut Write) -> DeleteRangeResponse {
        let keys: Vec<KeyValue> = self.live(&delete.key, &delete.range_end, i64::MAX);
        for kv in &keys {
            self.delete_key(&kv.key, write);
        }
        DeleteRangeResponse {
            header: header(write.revision()),
            deleted: keys.len() as i64,
            prev_kvs: if delete.prev_kv { keys } else { Vec::new() },
        }
    }

    fn delete_key(&mut self, key: &Bytes, write: &mut Write) {
        let lease = self.at(key, i64::MAX).map_or(0, |kv| kv.lease);
        self.attach(key, lease, 0);
        self.change(key.clone(), None, write);
    }

    fn attach(&mut self, key: &Bytes, from: i64, to: i64) {
        if let Some(lease) = self.leases.get_mut(&from) {
            lease.keys.remove(key);
        }
        if let Some(lease) = self.leases.get_mut(&to) {
            lease.keys.insert(key.clone());
        }
    }

    fn change(&mut self, key: Bytes, kv: Option<KeyValue>, write: &mut Write) {
        let previous = self.at(&key, write.main - 1).cloned();
        let told = kv.clone().unwrap_or_else(|| KeyValue {
            key: key.clone(),
            mod_revision: write.main,
            ..KeyValue::default()
        });
        self.changes.push(Change {
            main: write.main,
            sub: write.sub,
            key: key.clone(),
            is_put: kv.is_some(),
            kv: told,
            previous,
        });
        self.keys.entry(key).or_default().push(Version { main: write.main, kv });
        write.sub += 1;
    }

    fn compare(&self, txn: &TxnRequest, path: &mut Vec<bool>) {
        let holds = txn.compare.iter().all(|compare| self.holds(compare, i64::MAX));
        path.push(holds);
        for op in branch(txn, holds) {
            if let Some(Op::RequestTxn(nested)) = &op.request {
                self.compare(nested, path);
            }
        }
    }

    fn holds(&self, compare: &Compare, at: i64) -> bool {
        let found = self.live(&compare.key, &compare.range_end, at);
        let by_value = compare.target == CompareTarget::Value as i32;
        if found.is_empty() {
            return !by_value && self.holds_for(compare, &KeyValue::default());
        }
        found.iter().all(|kv| self.holds_for(compare, kv))
    }

    /// What is compared is what the target says. An operand of another one is none: zero, or nothing.
    fn holds_for(&self, compare: &Compare, kv: &KeyValue) -> bool {
        use std::cmp::Ordering::Equal;
        let operand = compare.target_union.as_ref();
        let ordering = match (CompareTarget::try_from(compare.target), operand) {
            (Err(_), _) => Equal,
            (Ok(CompareTarget::Version), Some(TargetUnion::Version(v))) => kv.version.cmp(v),
            (Ok(CompareTarget::Version), _) => kv.version.cmp(&0),
            (Ok(CompareTarget::Create), Some(TargetUnion::CreateRevision(v))) => {
                kv.create_revision.cmp(v)
            }
            (Ok(CompareTarget::Create), _) => kv.create_revision.cmp(&0),
            (Ok(CompareTarget::Mod), Some(TargetUnion::ModRevision(v))) => kv.mod_revision.cmp(v),
            (Ok(CompareTarget::Mod), _) => kv.mod_revision.cmp(&0),
            (Ok(CompareTarget::Lease), Some(TargetUnion::Lease(v))) => kv.lease.cmp(v),
            (Ok(CompareTarget::Lease), _) => kv.lease.cmp(&0),
            (Ok(CompareTarget::Value), Some(TargetUnion::Value(v))) => kv.value.cmp(v),
            (Ok(CompareTarget::Value), _) => kv.value[..].cmp(&[]),
        };
        match CompareResult::try_from(compare.result) {
            Ok(CompareResult::Equal) => ordering.is_eq(),
            Ok(CompareResult::NotEqual) => ordering.is_ne(),
            Ok(CompareResult::Greater) => ordering.is_gt(),
            Ok(CompareResult::Less) => ordering.is_lt(),
            Err(_) => true,
        }
    }

    /// Every operation on the path must be possible before the first is done. `gone` are keys that an earlier
    /// operation of the transaction deletes.
    fn check_txn(
        &self,
        txn: &TxnRequest,
        path: &mut std::slice::Iter<'_, bool>,
        gone: &mut BTreeSet<Bytes>,
    ) -> Result<(), &'static str> {
        let holds = *path.next().expect("each transaction on the way has its outcome");
        for op in branch(txn, holds) {
            match &op.request {
                Some(Op::RequestRange(range)) => match range.revision {
                    0 => {}
                    revision if revision > self.revision => return Err(FUTURE),
                    revision if revision < self.mark => return Err(COMPACTED),
                    _ => {}
                },
                Some(Op::RequestPut(put)) => {
                    self.check_put(put)?;
                    if (put.ignore_value || put.ignore_lease) && gone.contains(&put.key) {
                        return Err(KEY_NOT_FOUND);
                    }
                    gone.remove(&put.key);
                }
                Some(Op::RequestDeleteRange(delete)) => {
                    let keys = self.live(&delete.key, &delete.range_end, i64::MAX);
                    gone.extend(keys.into_iter().map(|kv| kv.key));
                }
                Some(Op::RequestTxn(nested)) => self.check_txn(nested, path, gone)?,
                None => {}
            }
        }
        Ok(())
    }

    fn txn(
        &mut self,
        txn: &TxnRequest,
        path: &mut std::slice::Iter<'_, bool>,
        write: &mut Write,
    ) -> TxnResponse {
        let succeeded = *path.next().expect("each transaction on the way has its outcome");
        let mut responses = Vec::new();
        for op in branch(txn, succeeded) {
            let response = op.request.as_ref().map(|request| match request {
                Op::RequestRange(range) => {
                    let current = write.revision();
                    let at = if range.revision > 0 { range.revision } else { i64::MAX };
                    OpAnswer::ResponseRange(self.range_at(range, at, current))
                }
                Op::RequestPut(put) => OpAnswer::ResponsePut(self.put(put, write)),
                Op::RequestDeleteRange(delete) => {
                    OpAnswer::ResponseDeleteRange(self.delete(delete, write))
                }
                Op::RequestTxn(nested) => OpAnswer::ResponseTxn(self.txn(nested, path, write)),
            });
            responses.push(ResponseOp { response });
        }
        TxnResponse { header: header(0), succeeded, responses }
    }

    /// The answer to a range at `current`, the newest revision of whoever answers.
    pub fn range(&self, range: &RangeRequest, current: i64) -> RangeResponse {
        let at = if range.revision > 0 { range.revision } else { current };
        self.range_at(range, at, current)
    }

    /// The answer at revision `current` to a request that changes nothing then; `None` if it changes something, or is
    /// about more than keys.
    pub fn answer(&self, request: &Request, current: i64) -> Option<Answer> {
        match request {
            Request::Range(range) => Some(Answer::Range(self.range(range, current))),
            Request::Txn(txn) => self.quiet_txn(txn, current).map(Answer::Txn),
            Request::DeleteRange(delete) => {
                self.quiet_delete(delete, current).map(Answer::DeleteRange)
            }
            _ => None,
        }
    }

    /// The answer at `current` to a transaction that changes nothing then.
    pub fn quiet_txn(&self, txn: &TxnRequest, current: i64) -> Option<TxnResponse> {
        let mut answer = self.quiet_branch(txn, current)?;
        answer.header = header(current);
        Some(answer)
    }

    fn quiet_branch(&self, txn: &TxnRequest, current: i64) -> Option<TxnResponse> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare, current));
        let responses = branch(txn, succeeded)
            .iter()
            .map(|op| {
                let response = match &op.request {
                    None => None,
                    Some(Op::RequestRange(range)) => {
                        Some(OpAnswer::ResponseRange(self.range(range, current)))
                    }
                    Some(Op::RequestDeleteRange(delete)) => {
                        Some(OpAnswer::ResponseDeleteRange(self.quiet_delete(delete, current)?))
                    }
                    Some(Op::RequestTxn(nested)) => {
                        Some(OpAnswer::ResponseTxn(self.quiet_branch(nested, current)?))
                    }
                    Some(Op::RequestPut(_)) => return None,
                };
                Some(ResponseOp { response })
            })
            .collect::<Option<Vec<ResponseOp>>>()?;
        Some(TxnResponse { header: header(0), succeeded, responses })
    }

    fn quiet_delete(
        &self,
        delete: &DeleteRangeRequest,
        current: i64,
    ) -> Option<DeleteRangeResponse> {
        let is_nothing = self.live(&delete.key, &delete.range_end, current).is_empty();
        is_nothing.then(|| DeleteRangeResponse {
            header: header(current),
            ..DeleteRangeResponse::default()
        })
    }

    fn range_at(&self, range: &RangeRequest, at: i64, current: i64) -> RangeResponse {
        let mut kvs = self.live(&range.key, &range.range_end, at);
        let count = kvs.len() as i64;
        let between = |n: i64, min: i64, max: i64| (min == 0 || n >= min) && (max == 0 || n <= max);
        kvs.retain(|kv| {
            between(kv.mod_revision, range.min_mod_revision, range.max_mod_revision)
                && between(kv.create_revision, range.min_create_revision, range.max_create_revision)
        });
        let target = SortTarget::try_from(range.sort_target).unwrap_or_default();
        let descending = range.sort_order == SortOrder::Descend as i32;
        let limit = usize::try_from(range.limit).unwrap_or(0);
        let bounds = [
            range.min_mod_revision,
            range.max_mod_revision,
            range.min_create_revision,
            range.max_create_revision,
        ];
        if range.sort_order == SortOrder::None as i32 && limit > 0 && bounds == [0; 4] {
            // By something else than the key and in no direction, the smallest keys are sorted upwards, those that the
            // limit lets through and one more.
            kvs.truncate(limit.saturating_add(1));
        }
        if range.sort_order != SortOrder::None as i32 || target != SortTarget::Key {
            kvs.sort_by(|a, b| {
                let ordering = match target {
                    SortTarget::Key => a.key.cmp(&b.key),
                    SortTarget::Version => a.version.cmp(&b.version),
                    SortTarget::Create => a.create_revision.cmp(&b.create_revision),
                    SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
                    SortTarget::Value => a.value.cmp(&b.value),
                };
                if descending { ordering.reverse() } else { ordering }
            });
        }
        if range.count_only {
            kvs.clear();
        }
        let more = limit > 0 && kvs.len() > limit;
        if more {
            kvs.truncate(limit);
        }
        if range.keys_only {
            for kv in &mut kvs {
                kv.value = Bytes::new();
                // Only an answer that was sorted by value has read the lease along.
                if target != SortTarget::Value {
                    kv.lease = 0;
                }
            }
        }
        RangeResponse { header: header(current), kvs, more, count }
    }

    /// The key-values of a range that live at `at`, by key.
    pub fn live(&self, key: &Bytes, range_end: &Bytes, at: i64) -> Vec<KeyValue> {
        if range_end.is_empty() {
            return self.at(key, at).cloned().into_iter().collect();
        }
        self.keys
            .range(key.clone()..)
            .take_while(|(key, _)| range_end[..] == [0] || *key < range_end)
            .filter_map(|(_, versions)| living(versions, at).cloned())
            .collect()
    }

    /// What a key holds now.
    pub fn newest(&self, key: &[u8]) -> Option<&KeyValue> {
        self.at(key, i64::MAX)
    }

    fn at(&self, key: &[u8], at: i64) -> Option<&KeyValue> {
        living(self.keys.get(key)?, at)
    }
}

/// A write under way: the main revision it would have, and how many changes it has made.
struct Write {
    main: i64,
    sub: i64,
}

impl Write {
    /// What a header inside says: the new revision once there is a change.
    fn revision(&self) -> i64 {
        if self.sub > 0 { self.main } else { self.main - 1 }
    }
}

fn living(versions: &[Version], at: i64) -> Option<&KeyValue> {
    let count = versions.partition_point(|version| version.main <= at);
    versions[..count].last()?.kv.as_ref()
}

fn branch(txn: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &txn.success } else { &txn.failure }
}

/// A header with nothing but a revision.
pub fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

/// Whether `key` lies in the range that a request names.
pub fn contains(start: &[u8], range_end: &[u8], key: &[u8]) -> bool {
    match range_end {
        [] => key == start,
        [0] => key >= start,
        end => key >= start && key < end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(model: &mut Model, key: &'static str, value: &'static str) {
        let put = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
        let request = InternalRaftRequest { put: Some(put), ..InternalRaftRequest::default() };
        model.apply(Some(&request.encode_to_vec().into()));
    }

    #[test]
    fn every_revision_stays_readable() {
        let mut model = Model::new(1);
        put(&mut model, "a", "1");
        put(&mut model, "a", "2");
        put(&mut model, "b", "3");
        let range = |revision| RangeRequest {
            key: "a".into(),
            range_end: "c".into(),
            revision,
            ..RangeRequest::default()
        };
        let now = model.range(&range(0), 4);
        assert_eq!((now.count, now.kvs[0].version, now.kvs[0].create_revision), (2, 2, 2));
        assert_eq!(model.range(&range(2), 4).kvs[0].value, "1");
        assert_eq!(model.changes(3, 4).len(), 2);
        assert_eq!(model.changes(3, 3)[0].previous.as_ref().unwrap().value, "1");
    }
}
