//! Histories: what clients asked, when, and what they were told, with those who judge whether a store that keeps its
//! promises can have told it.
//!
//! ```text
//!      call            returned
//!   a    ├── put x=1 ─────┤
//!   b         ├── get x ──────┤            the calls overlap: either order will do
//!   c                            ├── put x=2 ──────▶ nobody knows: some time after its call, or never
//!   d                               ├─ get x ─┤
//! ```
//!
//! A history is *linearizable* if all its operations can be put into one order in which every answer is the right one
//! and nothing comes before what had returned when it was called. Two ways lead to the verdict, and they share
//! neither code nor trust:
//!
//! | module | it believes | it costs |
//! |---|---|---|
//! | [`witness`] | the revisions in the answers: they name the order, which only has to be checked | n log n |
//! | [`search`] | nothing: it looks for an order, and remembers where there was none | exponential at worst; bounded |
//!
//! [`keyspace`] tells the search what a key-value store is, [`register`] what a single register is, and reads recorded
//! logs of one. [`watch`] judges what a watcher was told.
//!
//! Nothing here knows the simulator: whoever records [`Operation`]s of a real cluster has them judged the same way.

pub mod keyspace;
pub mod register;
pub mod search;
pub mod watch;
pub mod witness;

use std::fmt;

use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::response_op::Response as OpAnswer;
use proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse,
    InternalRaftRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, ResponseHeader,
    TxnRequest, TxnResponse,
};

/// One request of a client, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Who asked; for messages alone.
    pub client: u64,
    /// When, in any unit, by the one clock of the history. What returned at the same time has not returned before.
    pub call: u64,
    /// What was asked.
    pub request: Request,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Nobody knows: it may have taken effect at any time after its call, may do so later than anything in the
    /// history, or never.
    Unknown,
    /// It was answered.
    Answered {
        /// When; not before its call.
        at: u64,
        /// With what.
        answer: Answer,
    },
    /// The store refused it because of what it held then.
    Refused {
        /// When; not before its call.
        at: u64,
        /// The error's text.
        error: String,
    },
    /// It was turned away before it came to the store, and never took effect.
    NotTaken,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// To write a key.
    Put(PutRequest),
    /// To read.
    Range(RangeRequest),
    /// To delete.
    DeleteRange(DeleteRangeRequest),
    /// To compare and then do one thing or another.
    Txn(TxnRequest),
    /// To forget what was before a revision.
    Compact(CompactionRequest),
    /// To make a lease.
    LeaseGrant(LeaseGrantRequest),
    /// To end a lease.
    LeaseRevoke(LeaseRevokeRequest),
}

impl Request {
    /// The entry of the log that does this, without a name; `None` for a range, which never gets there.
    pub fn to_entry(&self) -> Option<InternalRaftRequest> {
        let mut entry = InternalRaftRequest::default();
        match self.clone() {
            Request::Range(_) => return None,
            Request::Put(put) => entry.put = Some(put),
            Request::DeleteRange(delete) => entry.delete_range = Some(delete),
            Request::Txn(txn) => entry.txn = Some(txn),
            Request::Compact(compaction) => entry.compaction = Some(compaction),
            Request::LeaseGrant(grant) => entry.lease_grant = Some(grant),
            Request::LeaseRevoke(revoke) => entry.lease_revoke = Some(revoke),
        }
        Some(entry)
    }

    /// Whether any state that a member has had is a right answer: a read that was asked for so.
    pub fn is_serializable(&self) -> bool {
        match self {
            Request::Range(range) => range.serializable,
            Request::Txn(txn) => {
                ops(txn).all(|op| matches!(op, Op::RequestRange(range) if range.serializable))
            }
            _ => false,
        }
    }

    /// A lease that it names.
    pub fn lease(&self) -> Option<i64> {
        fn named(txn: &TxnRequest) -> Option<i64> {
            ops(txn).find_map(|op| match op {
                Op::RequestPut(put) => (put.lease != 0).then_some(put.lease),
                Op::RequestTxn(nested) => named(nested),
                Op::RequestRange(_) | Op::RequestDeleteRange(_) => None,
            })
        }
        match self {
            Request::Put(put) => (put.lease != 0).then_some(put.lease),
            Request::Txn(txn) => named(txn),
            Request::LeaseGrant(grant) => Some(grant.id),
            Request::LeaseRevoke(revoke) => Some(revoke.id),
            Request::Range(_) | Request::DeleteRange(_) | Request::Compact(_) => None,
        }
    }

    /// Whether it only reads, whatever is answered.
    pub fn is_read(&self) -> bool {
        fn reads(txn: &TxnRequest) -> bool {
            ops(txn).all(|op| match op {
                Op::RequestRange(_) => true,
                Op::RequestTxn(nested) => reads(nested),
                Op::RequestPut(_) | Op::RequestDeleteRange(_) => false,
            })
        }
        match self {
            Request::Range(_) => true,
            Request::Txn(txn) => reads(txn),
            _ => false,
        }
    }
}

/// In a few words.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Put(put) => {
                write!(f, "put {}", Span(&put.key, b""))?;
                if put.ignore_value {
                    write!(f, ", its value kept")
                } else {
                    write!(f, " of {} bytes", put.value.len())
                }?;
                if put.lease != 0 { write!(f, ", lease {:x}", put.lease) } else { Ok(()) }
            }
            Request::Range(range) => {
                write!(f, "get {}", Span(&range.key, &range.range_end))?;
                if range.revision > 0 {
                    write!(f, " at {}", range.revision)?;
                }
                if range.serializable { write!(f, ", serializable") } else { Ok(()) }
            }
            Request::DeleteRange(delete) => {
                write!(f, "delete {}", Span(&delete.key, &delete.range_end))
            }
            Request::Txn(txn) => {
                let (compares, then, or) = (&txn.compare, &txn.success, &txn.failure);
                write!(
                    f,
                    "txn of {} compares, {} operations or {}",
                    compares.len(),
                    then.len(),
                    or.len()
                )
            }
            Request::Compact(compaction) => write!(f, "compact at {}", compaction.revision),
            Request::LeaseGrant(grant) => write!(f, "grant of {} s", grant.ttl),
            Request::LeaseRevoke(revoke) => write!(f, "revoke of {:x}", revoke.id),
        }
    }
}

/// A key, or a range of keys, to be read.
pub(crate) struct Span<'k>(pub &'k [u8], pub &'k [u8]);

impl fmt::Display for Span<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.escape_ascii(), self.1) {
            (key, b"") => write!(f, "{key}"),
            (key, b"\0") => write!(f, "{key}.."),
            (key, end) => write!(f, "{key}..{}", end.escape_ascii()),
        }
    }
}

/// The operations of both branches.
fn ops(txn: &TxnRequest) -> impl Iterator<Item = &Op> {
    txn.success.iter().chain(&txn.failure).filter_map(|op| op.request.as_ref())
}

/// What was answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To a put.
    Put(PutResponse),
    /// To a range.
    Range(RangeResponse),
    /// To a delete.
    DeleteRange(DeleteRangeResponse),
    /// To a transaction.
    Txn(TxnResponse),
    /// To a compaction.
    Compact(CompactionResponse),
    /// To a grant.
    LeaseGrant(LeaseGrantResponse),
    /// To a revoke.
    LeaseRevoke(LeaseRevokeResponse),
}

impl Answer {
    /// The revision in its header; 0 if it has none.
    pub fn revision(&self) -> i64 {
        let header = match self {
            Answer::Put(answer) => &answer.header,
            Answer::Range(answer) => &answer.header,
            Answer::DeleteRange(answer) => &answer.header,
            Answer::Txn(answer) => &answer.header,
            Answer::Compact(answer) => &answer.header,
            Answer::LeaseGrant(answer) => &answer.header,
            Answer::LeaseRevoke(answer) => &answer.header,
        };
        header.as_ref().map_or(0, |header| header.revision)
    }

    /// Without what belongs to whoever answered: his name, his cluster's and his term.
    pub fn stripped(mut self) -> Answer {
        let header = match &mut self {
            Answer::Put(answer) => &mut answer.header,
            Answer::Range(answer) => &mut answer.header,
            Answer::DeleteRange(answer) => &mut answer.header,
            Answer::Txn(answer) => &mut answer.header,
            Answer::Compact(answer) => &mut answer.header,
            Answer::LeaseGrant(answer) => &mut answer.header,
            Answer::LeaseRevoke(answer) => &mut answer.header,
        };
        if let Some(header) = header {
            *header = ResponseHeader { revision: header.revision, ..ResponseHeader::default() };
        }
        self
    }

    /// Whether it says that keys were changed. Of leases it does not say.
    pub fn says_changed(&self) -> bool {
        fn changed(txn: &TxnResponse) -> bool {
            txn.responses.iter().any(|op| match &op.response {
                Some(OpAnswer::ResponsePut(_)) => true,
                Some(OpAnswer::ResponseDeleteRange(delete)) => delete.deleted > 0,
                Some(OpAnswer::ResponseTxn(nested)) => changed(nested),
                Some(OpAnswer::ResponseRange(_)) | None => false,
            })
        }
        match self {
            Answer::Put(_) => true,
            Answer::DeleteRange(delete) => delete.deleted > 0,
            Answer::Txn(txn) => changed(txn),
            _ => false,
        }
    }
}
