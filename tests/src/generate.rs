//! Random requests over the full argument space of KV and Lease, with enough structure that they meet:
//! few keys with shared prefixes, revisions around the live ones, leases that exist and that do not.

use std::collections::BTreeSet;

use bytes::Bytes;
use proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseLeasesRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCreateRequest, compare::TargetUnion, request_op::Request,
};

use crate::random::Random;

/// One request.
#[derive(Clone, Debug)]
pub enum Op {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
    TimeToLive(LeaseTimeToLiveRequest),
    Leases(LeaseLeasesRequest),
    KeepAlive(i64),
    HashKv(i64),
}

/// What the generator knows of the servers, so that its requests mostly mean something.
pub struct Generator {
    pub random: Random,
    pub revision: i64,
    pub compacted: i64,
    pub leases: Vec<i64>,
    compactions: BTreeSet<i64>,
    values: u64,
}

const TTL_MIN: i64 = 100_000;

impl Generator {
    pub fn new(seed: u64) -> Generator {
        Generator {
            random: Random::new(seed),
            revision: 1,
            compacted: 0,
            leases: Vec::new(),
            compactions: BTreeSet::new(),
            values: 0,
        }
    }

    pub fn op(&mut self) -> Op {
        match self.random.below(1000) {
            0..330 => Op::Put(self.put(false)),
            330..560 => Op::Range(self.range()),
            560..650 => Op::Delete(self.delete(false)),
            650..900 => Op::Txn(self.txn()),
            900..904 => Op::Compact(self.compact()),
            904..930 => Op::Grant(self.grant()),
            930..942 => Op::Revoke(LeaseRevokeRequest { id: self.lease() }),
            942..960 => Op::TimeToLive(LeaseTimeToLiveRequest {
                id: self.lease(),
                keys: self.random.one_in(2),
            }),
            960..966 => Op::Leases(LeaseLeasesRequest {}),
            966..980 => Op::KeepAlive(self.lease()),
            _ => {
                let revision = match self.random.below(6) {
                    0 => 0,
                    // Remembered, or forgotten: the hash that was computed by the compaction itself.
                    4.. if !self.compactions.is_empty() => {
                        let newest = self.random.below((self.compactions.len() as u64).min(14));
                        self.compactions.iter().rev().nth(newest as usize).copied().unwrap_or(0)
                    }
                    1 => self.compacted - 2 + self.random.below(5) as i64,
                    2 => self.revision - 3 + self.random.below(5) as i64,
                    _ => self.some_revision(),
                };
                Op::HashKv(revision)
            }
        }
    }

    fn key(&mut self) -> Bytes {
        let letters = [&b"a"[..], b"b", b"c/", b"key", b"z"];
        match self.random.below(60) {
            0 => Bytes::new(),
            1 => Bytes::from_static(b"\0"),
            2 => Bytes::from_static(b"\xff\xff"),
            3 => Bytes::from_static(b"c/\xff"),
            // Many keys side by side, so that ranges outgrow a leaf of the index, a lock hold and a page; and
            // prefixes of them.
            4..14 => {
                let digits = if self.random.one_in(12) { self.random.below(4) } else { 4 };
                let number = format!("{:04}", self.random.below(3_000));
                Bytes::from(format!("wide/{}", &number[..digits as usize]))
            }
            _ => {
                let mut key = self.random.pick(&letters).to_vec();
                if !self.random.one_in(5) {
                    key.push(b'0' + self.random.below(8) as u8);
                }
                Bytes::from(key)
            }
        }
    }

    fn real_key(&mut self) -> Bytes {
        loop {
            let key = self.key();
            if !key.is_empty() {
                return key;
            }
        }
    }

    fn range_end(&mut self, key: &Bytes) -> Bytes {
        match self.random.below(8) {
            0..3 => Bytes::new(),
            3 => Bytes::from_static(b"\0"),
            4..6 => {
                let mut end = key.to_vec();
                while let Some(last) = end.pop() {
                    if last < 0xff {
                        end.push(last + 1);
                        return Bytes::from(end);
                    }
                }
                Bytes::from_static(b"\0")
            }
            6 => self.key(),
            _ => Bytes::from_static(b"zz"),
        }
    }

    fn some_revision(&mut self) -> i64 {
        match self.random.below(12) {
            0 => -(self.random.below(3) as i64),
            1 => self.revision + 1 + self.random.below(3) as i64,
            2 => self.compacted - 1 + self.random.below(3) as i64,
            _ => {
                let live = (self.revision - self.compacted).max(1) as u64;
                self.compacted + self.random.below(live) as i64 + 1
            }
        }
    }

    fn lease(&mut self) -> i64 {
        match self.random.below(10) {
            0 => 4711 + self.random.below(5) as i64,
            1 => -5,
            _ if self.leases.is_empty() => 17,
            _ => *self.random.pick(&self.leases),
        }
    }

    fn value(&mut self) -> Bytes {
        self.values += 1;
        match self.random.below(40) {
            0 => Bytes::new(),
            1 => Bytes::from(vec![b'x'; self.random.below(20_000) as usize]),
            2..8 => Bytes::from(format!("v{}", self.random.below(4))),
            _ => Bytes::from(format!("value {}", self.values)),
        }
    }

    fn put(&mut self, in_txn: bool) -> PutRequest {
        let mut put = PutRequest { key: self.key(), value: self.value(), ..Default::default() };
        if self.random.one_in(4) {
            put.lease = self.lease();
        }
        put.prev_kv = self.random.one_in(3);
        if self.random.one_in(if in_txn { 12 } else { 8 }) {
            put.ignore_value = true;
            if !self.random.one_in(6) {
                put.value = Bytes::new();
            }
        }
        if self.random.one_in(if in_txn { 12 } else { 8 }) {
            put.ignore_lease = true;
            if !self.random.one_in(6) {
                put.lease = 0;
            }
        }
        put
    }

    fn delete(&mut self, bounded: bool) -> DeleteRangeRequest {
        let key = self.key();
        // Mostly few keys at once, else nothing would live.
        let mut range_end = if self.random.one_in(3) { self.range_end(&key) } else { Bytes::new() };
        if bounded && range_end.as_ref() == b"\0" {
            range_end = Bytes::from_static(b"b");
        }
        DeleteRangeRequest { key, range_end, prev_kv: self.random.one_in(2) }
    }

    pub fn range(&mut self) -> RangeRequest {
        let key = self.key();
        let range_end = self.range_end(&key);
        let mut range = RangeRequest { key, range_end, ..Default::default() };
        if self.random.one_in(3) {
            range.limit = self.random.below(8) as i64 - 1;
        }
        if self.random.one_in(3) {
            range.revision = self.some_revision();
        }
        if self.random.one_in(3) {
            range.sort_order = self.random.below(3) as i32;
            range.sort_target = self.random.below(5) as i32;
            if self.random.one_in(30) {
                range.sort_order = 7;
            }
            if self.random.one_in(30) {
                range.sort_target = -1;
            }
        }
        range.serializable = self.random.one_in(3);
        range.keys_only = self.random.one_in(4);
        range.count_only = self.random.one_in(6);
        for field in [
            &mut range.min_mod_revision,
            &mut range.max_mod_revision,
            &mut range.min_create_revision,
            &mut range.max_create_revision,
        ] {
            if self.random.one_in(8) {
                *field = self.random.below(self.revision as u64 + 2) as i64;
            }
        }
        range
    }

    fn compare(&mut self) -> Compare {
        let key = self.key();
        let mut compare = Compare {
            result: self.random.below(4) as i32,
            target: self.random.below(5) as i32,
            range_end: if self.random.one_in(5) { self.range_end(&key) } else { Bytes::new() },
            key,
            target_union: None,
        };
        if self.random.one_in(40) {
            compare.result = 9;
        }
        if self.random.one_in(40) {
            compare.target = 9;
        }
        let number = match self.random.below(4) {
            0 => 0,
            1 => self.random.below(5) as i64,
            _ => self.some_revision(),
        };
        // Mostly the union that goes with the target; sometimes another, sometimes none.
        let union =
            if self.random.one_in(15) { self.random.below(6) as i32 } else { compare.target };
        compare.target_union = match union {
            0 => Some(TargetUnion::Version(number)),
            1 => Some(TargetUnion::CreateRevision(number)),
            2 => Some(TargetUnion::ModRevision(number)),
            3 => Some(TargetUnion::Value(self.value())),
            4 => Some(TargetUnion::Lease(self.lease())),
            _ => None,
        };
        compare
    }

    fn txn(&mut self) -> TxnRequest {
        // A delete to the end and a put that keeps the old value or lease in one transaction can stop a real
        // etcd for ever (the delete escapes its overlap check), so no transaction here has both; ours is tested
        // for it elsewhere.
        let open_ends = self.random.one_in(2);
        self.txn_tree(2, open_ends)
    }

    fn txn_tree(&mut self, depth: u32, open_ends: bool) -> TxnRequest {
        let mut txn = TxnRequest::default();
        for _ in 0..self.random.below(3) {
            txn.compare.push(self.compare());
        }
        for _ in 0..self.random.below(4) {
            txn.success.push(self.txn_op(depth, open_ends));
        }
        for _ in 0..self.random.below(4) {
            txn.failure.push(self.txn_op(depth, open_ends));
        }
        if self.random.one_in(150) {
            // At the limit of 128 operations, and above.
            let count = 127 + self.random.below(3);
            txn.success = (0..count).map(|_| self.read_op()).collect();
        }
        if self.random.one_in(150) {
            txn.compare = (0..127 + self.random.below(3)).map(|_| self.compare()).collect();
        }
        txn
    }

    fn read_op(&mut self) -> RequestOp {
        RequestOp { request: Some(Request::RequestRange(self.range())) }
    }

    fn txn_op(&mut self, depth: u32, open_ends: bool) -> RequestOp {
        let request = match self.random.below(100) {
            0..30 => Some(Request::RequestRange(self.range())),
            30..70 => {
                let mut put = self.put(true);
                if open_ends {
                    put.ignore_value = false;
                    put.ignore_lease = false;
                }
                Some(Request::RequestPut(put))
            }
            70..85 => Some(Request::RequestDeleteRange(self.delete(!open_ends))),
            85..98 if depth > 0 => Some(Request::RequestTxn(self.txn_tree(depth - 1, open_ends))),
            85..98 => Some(Request::RequestRange(self.range())),
            _ => None,
        };
        RequestOp { request }
    }

    fn compact(&mut self) -> CompactionRequest {
        let revision = match self.random.below(8) {
            0 => self.compacted,
            1 => self.revision + 1,
            2 => 0,
            3 => self.revision,
            _ => {
                let live = (self.revision - self.compacted).max(1) as u64;
                self.compacted + self.random.below(live) as i64
            }
        };
        CompactionRequest { revision, physical: self.random.one_in(2) }
    }

    fn grant(&mut self) -> LeaseGrantRequest {
        let id = match self.random.below(6) {
            0 if !self.leases.is_empty() => *self.random.pick(&self.leases),
            1 => -(self.random.below(1000) as i64) - 10,
            _ => 1 + self.random.below(1 << 40) as i64,
        };
        let ttl = match self.random.below(20) {
            0 => 9_000_000_001,
            1 => 9_000_000_000,
            _ => TTL_MIN + self.random.below(100_000) as i64,
        };
        LeaseGrantRequest { ttl, id }
    }

    /// A watch on something that changes, from somewhere in the past, now, or the future.
    pub fn watch(&mut self) -> WatchCreateRequest {
        let key = if self.random.one_in(30) { Bytes::new() } else { self.real_key() };
        let range_end = self.range_end(&key);
        let start_revision = match self.random.below(10) {
            0..4 => 0,
            4 => self.revision + self.random.below(6) as i64,
            5 => self.compacted - 1 + self.random.below(3) as i64,
            6 if self.random.one_in(4) => -1,
            _ => self.some_revision(),
        };
        let filters = match self.random.below(8) {
            0 => vec![0],
            1 => vec![1],
            2 => vec![0, 1],
            _ => Vec::new(),
        };
        WatchCreateRequest {
            key,
            range_end,
            start_revision,
            progress_notify: self.random.one_in(4),
            filters,
            prev_kv: self.random.one_in(2),
            watch_id: if self.random.one_in(6) { 1 + self.random.below(40) as i64 } else { 0 },
            fragment: self.random.one_in(3),
        }
    }

    /// Learns from the reference's answer what the next requests should aim at.
    pub fn learn(&mut self, op: &Op, revision: Option<i64>, succeeded: bool) {
        if let Some(revision) = revision {
            self.revision = self.revision.max(revision);
        }
        if !succeeded {
            return;
        }
        match op {
            Op::Compact(request) => {
                self.compacted = self.compacted.max(request.revision);
                self.compactions.insert(request.revision);
            }
            Op::Grant(request) => self.leases.push(request.id),
            Op::Revoke(request) => self.leases.retain(|id| *id != request.id),
            _ => {}
        }
    }
}
