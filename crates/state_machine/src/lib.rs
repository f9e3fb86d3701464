//! What committed commands do.
//!
//! [`StateMachine::apply`] is one function with one `match`, and the same for a leader, a follower, a
//! restart, a restore and a simulation. It takes entries in the order of their indexes, changes the
//! keyspace and the small tables, and says what to answer. Three promises:
//!
//! - *Deterministic*: equal entries make equal tables, on every member, also on etcd's own.
//! - *Total*: no entry stops it. What cannot be read, is not known, or asks for the impossible is answered
//!   with an error and changes nothing.
//! - *Every entry moves the applied index*, in the same frame as whatever it changes.
//!
//! ```text
//!  client's request ──try_from──▶ Request ─┐
//!                                          ├─ Command ──encode──▶ log ──decode──▶ apply ──▶ Outcome
//!               id, chosen by the replica ─┘                                       │  │
//!                                                               keyspace, tables ◀─┘  └▶ Reply::encode
//!  reads ──────────────────────────────▶ View ──▶ Reply::encode
//! ```
//!
//! Users, roles and tokens are not built yet: their commands are read and answered with
//! [`Error::AuthUnsupported`] on every member alike.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cluster;
mod command;
mod decode;
mod error;
mod kv;
mod lease;
mod reply;
pub mod tables;
mod txn;
mod view;

use std::io;

use bytes::Bytes;

pub use cluster::{ChangeKind, Cluster, ConfState, Downgrade, Member, MembershipChange, Version};
pub use command::{Caller, Command, Request, RequestId};
pub use decode::{Malformed, TXN_DEPTH_MAX, decode_txn};
pub use error::{Error, code};
pub use kv::{check_range, check_range_stream};
pub use lease::{LeaseChange, LeaseInfo, TTL_MAX};
pub use reply::{DeleteRangeReply, Header, PutReply, RangeReply, Reply, Response, TxnReply};
pub use view::{Answer, Effort, View};

/// What a member's flags decide. All members of a cluster have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The shortest TTL that is shown, seconds: one and a half election timeouts, rounded up.
    pub lease_ttl_min: i64,
    /// How many learners the cluster may have.
    pub learners_max: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { lease_ttl_min: 2, learners_max: 1 }
    }
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// A normal entry's data; empty when a leader begins its term.
    Normal(&'a Bytes),
    /// A membership change, and the configuration that raft would switch to.
    Membership {
        /// What changes.
        change: &'a MembershipChange,
        /// Written in the entry's frame if the change is accepted.
        conf_state: ConfState,
    },
    /// An entry of a kind, or a change, that the caller could not read: it moves the applied index only.
    Unreadable,
}

/// What applying an entry led to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What to tell whoever waits; only if a reply was wanted and the entry has an id.
    pub reply: Option<(RequestId, Result<Reply, Error>)>,
    /// For the lease clock, to be handed over before the reply.
    pub leases: Vec<LeaseChange>,
    /// For raft: present exactly if the payload was a membership change.
    pub membership: Option<Verdict>,
}

/// Whether a membership change is switched to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes: raft applies it.
    Accepted,
    /// No: raft applies a change of nobody, and the membership stays as it is.
    Refused(Error),
}

/// The storage failed under apply. The member cannot go on: the process ends with this message.
#[derive(Debug)]
pub struct StorageFailure(pub io::Error);

/// The state that committed commands change. Owned by the apply thread.
#[derive(Debug)]
pub struct StateMachine {
    _config: Config,
}

impl StateMachine {
    /// Applies one entry: indexes come one after the other, without a gap.
    ///
    /// # Errors
    /// The storage failed; nothing can be said about the state in memory.
    pub fn apply(
        &mut self,
        _index: u64,
        _term: u64,
        _payload: Payload<'_>,
        _want_reply: bool,
    ) -> Result<Outcome, StorageFailure> {
        unimplemented!("until the keyspace is there")
    }
}

/// True if a transaction writes nothing, so that it need not go through the log: every operation of both
/// branches is a range. A transaction with no operation at all is one of these; a nested one is not.
pub fn is_read_only(request: &proto::etcdserverpb::TxnRequest) -> bool {
    txn::ranges(request).all(|range| range.is_some())
}

/// True if a read-only transaction may be answered from this member's own state: all its ranges say so.
pub fn is_serializable(request: &proto::etcdserverpb::TxnRequest) -> bool {
    txn::ranges(request).all(|range| range.is_some_and(|range| range.serializable))
}
