//! Two servers, one request: the answers side by side, and what counts as equal.
//!
//! Left out of the comparison are only the things that must differ: cluster and member ids, the raft term,
//! and a lease's seconds left (within two). Keys that are equal under the requested sort come in any order
//! from etcd once there are more than twelve of them (its sort is not stable).

use proto::etcdserverpb::{
    HashKvRequest, LeaseKeepAliveRequest, RangeRequest, RangeResponse, ResponseHeader, ResponseOp,
    TxnRequest, TxnResponse, kv_client::KvClient, lease_client::LeaseClient,
    maintenance_client::MaintenanceClient, request_op::Request, response_op::Response,
};
use proto::mvccpb::KeyValue;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::generate::Op;
use crate::process::Member;

/// The clients of one server.
#[derive(Clone)]
pub struct Side {
    pub kv: KvClient<Channel>,
    pub lease: LeaseClient<Channel>,
    pub maintenance: MaintenanceClient<Channel>,
}

/// What came back, in a form that can be compared and printed.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Refused(Code, String),
    Range(RangeResponse),
    Put(proto::etcdserverpb::PutResponse),
    Delete(proto::etcdserverpb::DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(proto::etcdserverpb::CompactionResponse),
    Grant(proto::etcdserverpb::LeaseGrantResponse),
    Revoke(proto::etcdserverpb::LeaseRevokeResponse),
    TimeToLive(proto::etcdserverpb::LeaseTimeToLiveResponse),
    Leases(proto::etcdserverpb::LeaseLeasesResponse),
    KeepAlive(proto::etcdserverpb::LeaseKeepAliveResponse),
    HashKv(proto::etcdserverpb::HashKvResponse),
}

impl Side {
    pub fn new(member: &Member) -> Side {
        Side { kv: member.kv(), lease: member.lease(), maintenance: member.maintenance() }
    }

    pub async fn ask(&mut self, op: &Op) -> Answer {
        match self.try_ask(op).await {
            Ok(answer) => answer,
            Err(status) => Answer::Refused(status.code(), status.message().to_owned()),
        }
    }

    async fn try_ask(&mut self, op: &Op) -> Result<Answer, Status> {
        Ok(match op.clone() {
            Op::Range(request) => Answer::Range(self.kv.range(request).await?.into_inner()),
            Op::Put(request) => Answer::Put(self.kv.put(request).await?.into_inner()),
            Op::Delete(request) => {
                Answer::Delete(self.kv.delete_range(request).await?.into_inner())
            }
            Op::Txn(request) => Answer::Txn(self.kv.txn(request).await?.into_inner()),
            Op::Compact(request) => Answer::Compact(self.kv.compact(request).await?.into_inner()),
            Op::Grant(request) => {
                Answer::Grant(self.lease.lease_grant(request).await?.into_inner())
            }
            Op::Revoke(request) => {
                Answer::Revoke(self.lease.lease_revoke(request).await?.into_inner())
            }
            Op::TimeToLive(request) => {
                Answer::TimeToLive(self.lease.lease_time_to_live(request).await?.into_inner())
            }
            Op::Leases(request) => {
                Answer::Leases(self.lease.lease_leases(request).await?.into_inner())
            }
            Op::KeepAlive(id) => {
                let request = tokio_stream::iter([LeaseKeepAliveRequest { id }]);
                let mut answers = self.lease.lease_keep_alive(request).await?.into_inner();
                let first = answers.message().await?;
                Answer::KeepAlive(
                    first.ok_or_else(|| Status::internal("the stream ended without an answer"))?,
                )
            }
            Op::HashKv(revision) => Answer::HashKv(
                self.maintenance.hash_kv(HashKvRequest { revision }).await?.into_inner(),
            ),
        })
    }
}

impl Answer {
    pub fn header(&self) -> Option<&ResponseHeader> {
        match self {
            Answer::Refused(..) => None,
            Answer::Range(r) => r.header.as_ref(),
            Answer::Put(r) => r.header.as_ref(),
            Answer::Delete(r) => r.header.as_ref(),
            Answer::Txn(r) => r.header.as_ref(),
            Answer::Compact(r) => r.header.as_ref(),
            Answer::Grant(r) => r.header.as_ref(),
            Answer::Revoke(r) => r.header.as_ref(),
            Answer::TimeToLive(r) => r.header.as_ref(),
            Answer::Leases(r) => r.header.as_ref(),
            Answer::KeepAlive(r) => r.header.as_ref(),
            Answer::HashKv(r) => r.header.as_ref(),
        }
    }

    pub fn revision(&self) -> Option<i64> {
        self.header().map(|header| header.revision)
    }

    pub fn succeeded(&self) -> bool {
        !matches!(self, Answer::Refused(..))
    }

    fn header_mut(&mut self) -> Option<&mut ResponseHeader> {
        match self {
            Answer::Refused(..) => None,
            Answer::Range(r) => r.header.as_mut(),
            Answer::Put(r) => r.header.as_mut(),
            Answer::Delete(r) => r.header.as_mut(),
            Answer::Txn(r) => r.header.as_mut(),
            Answer::Compact(r) => r.header.as_mut(),
            Answer::Grant(r) => r.header.as_mut(),
            Answer::Revoke(r) => r.header.as_mut(),
            Answer::TimeToLive(r) => r.header.as_mut(),
            Answer::Leases(r) => r.header.as_mut(),
            Answer::KeepAlive(r) => r.header.as_mut(),
            Answer::HashKv(r) => r.header.as_mut(),
        }
    }

    /// Without what must differ between two clusters. A header's presence still counts.
    fn plain(mut self) -> Answer {
        if let Some(header) = self.header_mut() {
            header.cluster_id = (header.cluster_id != 0) as u64;
            header.member_id = (header.member_id != 0) as u64;
            header.raft_term = (header.raft_term != 0) as u64;
        }
        // etcd gives both in the order of a Go map, or of deadlines that are equal.
        match &mut self {
            Answer::Leases(leases) => leases.leases.sort_by_key(|lease| lease.id),
            Answer::TimeToLive(lease) => lease.keys.sort(),
            _ => {}
        }
        self
    }
}

/// Nothing, or how the two answers to `op` differ.
pub fn difference(op: &Op, reference: Answer, ours: Answer) -> Option<String> {
    let (mut reference, mut ours) = (reference.plain(), ours.plain());
    match (op, &mut reference, &mut ours) {
        (Op::TimeToLive(_), Answer::TimeToLive(a), Answer::TimeToLive(b))
            if (a.ttl - b.ttl).abs() <= 2 =>
        {
            b.ttl = a.ttl;
        }
        (Op::Range(request), Answer::Range(a), Answer::Range(b)) => settle_ties(request, a, b),
        (Op::Txn(request), Answer::Txn(a), Answer::Txn(b)) => settle_txn_ties(request, a, b),
        _ => {}
    }
    (reference != ours).then(|| format!("{op:?}\n  etcd: {reference:?}\n  ours: {ours:?}"))
}

fn settle_txn_ties(request: &TxnRequest, a: &mut TxnResponse, b: &mut TxnResponse) {
    if a.succeeded != b.succeeded || a.responses.len() != b.responses.len() {
        return;
    }
    let branch = if a.succeeded { &request.success } else { &request.failure };
    for (op, (x, y)) in branch.iter().zip(a.responses.iter_mut().zip(b.responses.iter_mut())) {
        match (&op.request, x, y) {
            (
                Some(Request::RequestRange(range)),
                ResponseOp { response: Some(Response::ResponseRange(x)) },
                ResponseOp { response: Some(Response::ResponseRange(y)) },
            ) => settle_ties(range, x, y),
            (
                Some(Request::RequestTxn(txn)),
                ResponseOp { response: Some(Response::ResponseTxn(x)) },
                ResponseOp { response: Some(Response::ResponseTxn(y)) },
            ) => settle_txn_ties(txn, x, y),
            _ => {}
        }
    }
}

/// Where more than twelve keys were sorted by something that is not unique, compares the sequence of what
/// was sorted by, and takes the reference's order among equals.
fn settle_ties(request: &RangeRequest, a: &mut RangeResponse, b: &mut RangeResponse) {
    if request.sort_target == 0 || a.count <= 12 || a.kvs.len() != b.kvs.len() {
        return;
    }
    let sorted_by = |kv: &KeyValue| match request.sort_target {
        1 => (kv.version, kv.value.slice(..0)),
        2 => (kv.create_revision, kv.value.slice(..0)),
        3 => (kv.mod_revision, kv.value.slice(..0)),
        _ => (0, kv.value.clone()),
    };
    if a.kvs.iter().map(sorted_by).eq(b.kvs.iter().map(sorted_by)) {
        b.kvs = a.kvs.clone();
    }
}
