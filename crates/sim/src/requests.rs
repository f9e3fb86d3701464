//! What the clients of a storm ask, drawn from the whole space of what can be asked.
//!
//! Most requests are plain, so that something is written and found. Of the others each field is drawn by itself, from all
//! classes of its values, so that every two of them meet sooner or later: [`crate::arguments`] counts whether they do.
//! What no server takes is asked as well, but seldom.

use bytes::Bytes;
use proto::etcdserverpb::compare::{CompareResult, TargetUnion};
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::watch_create_request::FilterType;
use proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
};
use replica::Lane;
use state_machine::Request as Wish;

use crate::arguments::prefix_end;
use crate::door;
use crate::model::Model;
use crate::random::Random;
use crate::shard::{Ask, Wanted};

/// The most leases that a client looks after.
pub const LEASES_MAX: usize = 3;
/// How many groups of keys there are where requests keep to groups, and the keys of each. After so many microseconds all
/// turn to other groups: every request of unknown outcome doubles what has to be searched of its group from then on.
const GROUPS: u64 = 5;
const GROUP_KEYS: u64 = 3;
const GROUPS_US: u64 = 2_500_000;

/// Whoever draws the next request of a client.
pub struct Draw<'a> {
    /// The client's stream.
    pub random: &'a mut Random,
    /// What there is to ask about.
    pub model: &'a Model,
    /// How many keys there are.
    pub keys: u64,
    /// The client, and the number of the request.
    pub name: (usize, u64),
    /// The leases that the client looks after.
    pub leases: &'a mut Vec<i64>,
}

impl Draw<'_> {
    /// The next request; whether it writes.
    pub fn wish(&mut self, members: u64) -> (Ask, bool) {
        let write = |wish: Wish| (Ask::Propose(wish, Lane::Ordinary), true);
        match self.random.below(1_000) {
            0..460 => write(Wish::Put(self.put())),
            460..530 => write(Wish::DeleteRange(self.delete())),
            530..650 => {
                let txn = self.txn(0);
                match state_machine::is_read_only(&txn) {
                    true => {
                        let serializable = state_machine::is_serializable(&txn);
                        (Ask::Read(Wanted::Txn(txn, serializable)), false)
                    }
                    false => write(Wish::Txn(txn)),
                }
            }
            650..675 => write(Wish::Compact(self.compaction())),
            675..720 => write(Wish::LeaseGrant(self.grant())),
            720..735 => {
                let id = match self.leases.is_empty() || self.random.chance(0.4) {
                    true => self.lease(),
                    false => self.leases.swap_remove(0),
                };
                (Ask::Propose(Wish::LeaseRevoke(LeaseRevokeRequest { id }), Lane::Priority), true)
            }
            735..800 => {
                let lease = match self.leases.is_empty() || self.random.chance(0.15) {
                    true => self.lease(),
                    false => *self.random.pick(self.leases),
                };
                (Ask::KeepAlive(lease), false)
            }
            800..806 => (Ask::Transfer(self.random.between(1, members)), false),
            806..820 => {
                let (lease, keys) = (self.lease(), self.random.chance(0.5));
                (Ask::TimeToLive { lease, keys }, false)
            }
            820..826 => (Ask::Leases, false),
            _ => (Ask::Read(Wanted::Range(self.read())), false),
        }
    }

    /// A watch: mostly of something that happens.
    pub fn watch(&mut self) -> WatchCreateRequest {
        if self.random.chance(0.35) {
            return self.any_watch();
        }
        let (key, range_end) = self.range();
        let revision = self.model.revision();
        let start_revision = match self.random.below(3) {
            0 => (revision - self.random.below(100) as i64).max(1),
            1 => revision + self.random.below(20) as i64,
            _ => 0,
        };
        let (progress_notify, prev_kv) = (true, true);
        WatchCreateRequest {
            key,
            range_end,
            start_revision,
            progress_notify,
            prev_kv,
            ..WatchCreateRequest::default()
        }
    }

    fn any_watch(&mut self) -> WatchCreateRequest {
        let (key, range_end) = self.any_range();
        let (revision, mark) = (self.model.revision(), self.model.mark());
        let random = &mut *self.random;
        let start_revision = match random.below(12) {
            0 | 1 => -1,
            2 | 3 if mark > 1 => random.between(1, mark as u64 - 1) as i64,
            4 | 5 => (revision - random.below(40) as i64).max(1),
            6 | 7 => revision + 1,
            8 | 9 => revision + random.below(20) as i64,
            _ => 0,
        };
        let mut filters = Vec::new();
        if random.chance(0.4) {
            filters.push(FilterType::Noput as i32);
        }
        if random.chance(0.4) {
            filters.push(FilterType::Nodelete as i32);
        }
        WatchCreateRequest {
            key,
            range_end,
            start_revision,
            progress_notify: random.chance(0.5),
            filters,
            prev_kv: random.chance(0.5),
            ..WatchCreateRequest::default()
        }
    }

    fn key(&mut self) -> Bytes {
        let number = self.random.below(self.keys);
        match number % 5 {
            0 | 1 => format!("a/{number:02}").into(),
            2 => format!("b/{number:02}").into(),
            3 => format!("b/x/{number:02}").into(),
            _ => vec![0xff, number as u8].into(),
        }
    }

    /// A key of any kind: also the first that there can be, and, seldom, none.
    fn any_key(&mut self) -> Bytes {
        match self.random.below(20) {
            0 => Bytes::new(),
            1..4 => Bytes::from_static(b"\0"),
            4..6 => format!("c/{}", self.name.1).into(),
            _ => self.key(),
        }
    }

    fn range(&mut self) -> (Bytes, Bytes) {
        match self.random.below(6) {
            0 => (Bytes::from_static(b"a/"), Bytes::from_static(b"a0")),
            1 => (Bytes::from_static(b"b/x/"), Bytes::from_static(b"b/x0")),
            2 => (self.key(), Bytes::from_static(b"\0")),
            3 => {
                let (one, other) = (self.key(), self.key());
                (one.clone().min(other.clone()), one.max(other))
            }
            _ => (self.key(), Bytes::new()),
        }
    }

    /// A range of any kind. (One from a key on is not as likely as others: deletes are drawn so too.)
    fn any_range(&mut self) -> (Bytes, Bytes) {
        let key = self.any_key();
        let end = match self.random.below(12) {
            0 => Bytes::from_static(b"\0"),
            1..4 => prefix_end(&key).into(),
            4..7 => {
                let other = self.key();
                let further = Bytes::from([&key[..], b"5"].concat());
                if other > key { other } else { further }
            }
            7..9 => match self.random.chance(0.5) {
                true => key.clone(),
                false => key.slice(..key.len() / 2),
            },
            _ => Bytes::new(),
        };
        (key, end)
    }

    /// A value that no other request writes.
    pub fn value(&mut self) -> Bytes {
        let (client, op) = self.name;
        let mut value = format!("{client}:{op}:").into_bytes();
        let length = match self.random.below(40) {
            0 => self.random.below(3_000),
            1..8 => self.random.below(300),
            _ => self.random.below(40),
        };
        value.resize(value.len() + length as usize, b'.');
        value.into()
    }

    /// A lease that somebody has, mostly, or an id that nobody grants.
    fn lease(&mut self) -> i64 {
        let nobodys = 1_000_000 + self.random.below(1_000) as i64;
        match self.random.below(8) {
            0 => 0,
            1 | 2 => nobodys,
            _ => self.taken_lease().unwrap_or(nobodys),
        }
    }

    fn taken_lease(&mut self) -> Option<i64> {
        let leases = self.model.leases();
        let place = self.random.below(leases.len() as u64) as usize;
        leases.keys().nth(place).copied()
    }

    fn put(&mut self) -> PutRequest {
        if self.random.chance(0.12) {
            return self.any_put();
        }
        let lease = match self.leases.is_empty() || self.random.below(5) > 0 {
            true => 0,
            false => *self.random.pick(self.leases),
        };
        let mut put = PutRequest {
            key: self.key(),
            value: self.value(),
            lease,
            prev_kv: self.random.chance(0.3),
            ..PutRequest::default()
        };
        match self.random.below(20) {
            0 => {
                put.ignore_value = true;
                put.value = Bytes::new();
            }
            1 => {
                put.ignore_lease = true;
                put.lease = 0;
            }
            _ => {}
        }
        put
    }

    fn any_put(&mut self) -> PutRequest {
        let key = self.any_key();
        let value = match self.random.below(4) {
            0 | 1 => Bytes::new(),
            2 => self.value(),
            _ => {
                let mut value = self.value().to_vec();
                value.resize(value.len() + 300, b'+');
                value.into()
            }
        };
        PutRequest {
            key,
            value,
            lease: if self.random.chance(0.4) { self.lease() } else { 0 },
            prev_kv: self.random.chance(0.5),
            ignore_value: self.random.chance(0.3),
            ignore_lease: self.random.chance(0.3),
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let (key, range_end) = match self.random.below(8) {
            0 => self.range(),
            1 | 2 => self.any_range(),
            _ => (self.key(), Bytes::new()),
        };
        DeleteRangeRequest { key, range_end, prev_kv: self.random.chance(0.3) }
    }

    fn read(&mut self) -> RangeRequest {
        if self.random.chance(0.5) {
            return self.any_read();
        }
        let (key, range_end) = self.range();
        let mut range = RangeRequest {
            key,
            range_end,
            serializable: self.random.chance(0.3),
            ..RangeRequest::default()
        };
        if self.random.chance(0.25) {
            range.revision = self.revision();
        }
        if self.random.chance(0.3) {
            range.limit = self.random.between(1, 5) as i64;
        }
        if self.random.chance(0.3) {
            range.sort_order = self.random.between(1, 2) as i32;
            range.sort_target = self.random.below(5) as i32;
        }
        range
    }

    /// Some revision around now, the next few among them.
    fn revision(&mut self) -> i64 {
        let back = self.random.below(80) as i64 - 2;
        (self.model.revision() - back).max(1)
    }

    fn any_read(&mut self) -> RangeRequest {
        let (key, range_end) = match self.random.chance(0.5) {
            true => self.range(),
            false => self.any_range(),
        };
        let limit = match self.random.below(8) {
            0 => 1,
            1 | 2 => self.random.between(2, 5) as i64,
            3 => i64::MAX,
            4 => -1,
            _ => 0,
        };
        let revision = match self.random.below(16) {
            0 => -(self.random.between(1, 3) as i64),
            1 => self.model.mark() - 1,
            2 | 3 => self.model.mark(),
            4..8 => self.revision(),
            8 => self.model.revision(),
            9 => self.model.revision() + self.random.between(1, 20) as i64,
            _ => 0,
        };
        let unknown = |random: &mut Random, known: u64| match random.below(25) {
            0 => 9,
            _ => random.below(known) as i32,
        };
        RangeRequest {
            key,
            range_end,
            limit,
            revision,
            sort_order: unknown(self.random, 3),
            sort_target: unknown(self.random, 5),
            serializable: self.random.chance(0.3),
            keys_only: self.random.chance(0.3),
            count_only: self.random.chance(0.2),
            min_mod_revision: self.bound(),
            max_mod_revision: self.bound(),
            min_create_revision: self.bound(),
            max_create_revision: self.bound(),
        }
    }

    /// A bound of revisions: mostly none, and mostly such that something lies on either side.
    fn bound(&mut self) -> i64 {
        let revision = self.model.revision();
        match self.random.below(20) {
            0 | 1 => -1,
            2 | 3 => revision + self.random.between(1, 9) as i64,
            4..8 => (revision - self.random.below(40) as i64).max(1),
            _ => 0,
        }
    }

    fn compare(&mut self) -> Compare {
        let (key, range_end) = match self.random.below(8) {
            0 => self.range(),
            1..3 => self.any_range(),
            _ => (self.key(), Bytes::new()),
        };
        let now = self.model.newest(&key).cloned().unwrap_or_default();
        let random = &mut *self.random;
        let target = random.below(5) as i32;
        let off = *random.pick(&[0, 0, 0, 1, -1]);
        let mut other_value = now.value.to_vec();
        match off {
            1 => other_value.push(b'.'),
            -1 => drop(other_value.pop()),
            _ => {}
        }
        // An operand of each target, in the order of their numbers; now and then another one than the target's, or none.
        let operands = [
            TargetUnion::Version(now.version + off),
            TargetUnion::CreateRevision(now.create_revision + off),
            TargetUnion::ModRevision(now.mod_revision + off),
            TargetUnion::Value(other_value.into()),
            TargetUnion::Lease(now.lease + off),
        ];
        let union = match random.below(12) {
            0 => None,
            1 => Some(random.pick(&operands).clone()),
            _ => Some(operands[target as usize].clone()),
        };
        let results = [
            CompareResult::Equal,
            CompareResult::Equal,
            CompareResult::NotEqual,
            CompareResult::Less,
            CompareResult::Greater,
        ];
        let result = *random.pick(&results) as i32;
        Compare {
            result: if random.below(16) == 0 { 9 } else { result },
            target: if random.below(16) == 0 { 9 } else { target },
            key,
            range_end,
            target_union: union,
        }
    }

    fn ops(&mut self, most: u64, depth: u32) -> Vec<RequestOp> {
        let count = self.random.below(most + 1);
        (0..count)
            .map(|_| {
                let request = match self.random.below(20) {
                    0..10 => Some(Op::RequestPut(self.put())),
                    10..14 => Some(Op::RequestDeleteRange(self.delete())),
                    14 | 15 if depth < 2 => Some(Op::RequestTxn(self.txn(depth + 1))),
                    // Now and then none.
                    16 if self.random.below(6) == 0 => None,
                    16..19 => Some(Op::RequestRange(self.any_read())),
                    _ => {
                        let (key, range_end) = self.range();
                        // Also of the past, down to what may be compacted: the same must become of it everywhere.
                        let revision = match self.random.below(6) {
                            0 => self.revision(),
                            _ => 0,
                        };
                        let serializable = self.random.chance(0.3);
                        Some(Op::RequestRange(RangeRequest {
                            key,
                            range_end,
                            revision,
                            serializable,
                            ..RangeRequest::default()
                        }))
                    }
                };
                RequestOp { request }
            })
            .collect()
    }

    fn txn(&mut self, depth: u32) -> TxnRequest {
        let compares = self.random.below(3);
        let mut txn = TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.ops(3, depth),
            failure: self.ops(2, depth),
        };
        match self.random.below(40) {
            // One operation too many for all of them to be done.
            0 => {
                let delete = DeleteRangeRequest { key: self.key(), ..Default::default() };
                let op = RequestOp { request: Some(Op::RequestDeleteRange(delete)) };
                let place = self.random.below(2);
                let list = if place == 0 { &mut txn.success } else { &mut txn.failure };
                list.resize(door::TXN_OPS_MAX + 1, op);
            }
            // The same thing twice.
            1 => {
                let list =
                    if self.random.chance(0.5) { &mut txn.success } else { &mut txn.failure };
                list.extend(list.first().cloned());
            }
            _ => {}
        }
        txn
    }

    fn compaction(&mut self) -> CompactionRequest {
        let (revision, mark) = (self.model.revision(), self.model.mark());
        let revision = match self.random.below(20) {
            0 => -1,
            1 => 0,
            2 | 3 => mark - self.random.below(3) as i64,
            4 => revision,
            5 => revision + self.random.between(1, 9) as i64,
            _ => (revision - self.random.below(120) as i64).max(1),
        };
        CompactionRequest { revision, physical: self.random.chance(0.5) }
    }

    /// A lease: mostly a short one, and with an id that the server chooses.
    fn grant(&mut self) -> LeaseGrantRequest {
        let ttl = match self.random.below(18) {
            0 => -(self.random.between(1, 3) as i64),
            1 => 0,
            2 => 3_600,
            3 => door::TTL_MAX,
            4 => door::TTL_MAX + 1,
            _ => self.random.between(1, 4) as i64,
        };
        let (client, op) = self.name;
        let own = (client as i64 + 1) << 32 | op as i64;
        let id = match self.random.below(10) {
            0 | 1 => own,
            2 => -own,
            3 => self.taken_lease().unwrap_or(own),
            _ => 0,
        };
        LeaseGrantRequest { id, ttl }
    }

    /// A request within one of the small groups of keys.
    pub fn group_wish(&mut self, now: u64) -> (Ask, bool) {
        let group = now / GROUPS_US * GROUPS + self.random.below(GROUPS);
        let all = || {
            let (key, range_end) = (format!("g{group}/"), format!("g{group}0"));
            (Bytes::from(key), Bytes::from(range_end))
        };
        let write = |wish: Wish| (Ask::Propose(wish, Lane::Ordinary), true);
        match self.random.below(100) {
            0..35 => {
                let (key, value) = (self.group_key(group), self.value());
                let prev_kv = self.random.chance(0.3);
                write(Wish::Put(PutRequest { key, value, prev_kv, ..PutRequest::default() }))
            }
            35..45 => {
                let one = (self.group_key(group), Bytes::new());
                let (key, range_end) = if self.random.chance(0.3) { all() } else { one };
                let prev_kv = self.random.chance(0.3);
                write(Wish::DeleteRange(DeleteRangeRequest { key, range_end, prev_kv }))
            }
            45..65 => {
                let compare = Compare {
                    key: self.group_key(group),
                    target_union: Some(TargetUnion::Version(self.random.below(3) as i64)),
                    ..Compare::default()
                };
                let (client, op) = self.name;
                let put = |place: u64| {
                    let key = format!("g{group}/{place}").into();
                    let value = format!("{client}:{op}:{place}").into();
                    let put = PutRequest { key, value, ..PutRequest::default() };
                    RequestOp { request: Some(Op::RequestPut(put)) }
                };
                let success = vec![put(0), put(1)];
                let (key, range_end) = all();
                let range = RangeRequest { key, range_end, ..RangeRequest::default() };
                let failure = vec![RequestOp { request: Some(Op::RequestRange(range)) }];
                write(Wish::Txn(TxnRequest { compare: vec![compare], success, failure }))
            }
            _ => {
                let one = (self.group_key(group), Bytes::new());
                let (key, range_end) = if self.random.chance(0.3) { all() } else { one };
                let range = RangeRequest { key, range_end, ..RangeRequest::default() };
                (Ask::Read(Wanted::Range(range)), false)
            }
        }
    }

    fn group_key(&mut self, group: u64) -> Bytes {
        format!("g{group}/{}", self.random.below(GROUP_KEYS)).into()
    }
}
