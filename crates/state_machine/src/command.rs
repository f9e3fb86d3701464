//! What is proposed, and what an entry of the log asks for: etcd's `InternalRaftRequest`.
//!
//! A command is complete when it is proposed: ids are chosen and everything that needs no state is
//! checked, with etcd's errors in etcd's order of checks. So `Request::try_from` is the door for requests
//! of clients, and [`Command::decode`] the door for entries, which may come from a Go member of any
//! version and are therefore only read, never trusted: what cannot be read, or is not known, is a value
//! like any other ([`Request::Refused`]) and is answered with an error while the applied index moves on.
//!
//! ```text
//! InternalRaftRequest
//!   1 ID (legacy)   3 range  4 put  5 delete_range  6 txn  7 compaction
//!   8 lease_grant   9 lease_revoke  10 alarm  11 lease_checkpoint
//!   100 header { 1 ID  2 username  3 auth_revision }
//!   1000… auth      1300 cluster_version_set  1301 cluster_member_attr_set  1302 downgrade_info_set
//!   9900 downgrade_version_test
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, DeleteRangeRequest, LeaseCheckpoint, LeaseCheckpointRequest,
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestHeader, TxnRequest,
};
use proto::membershippb::{
    ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest,
};

use crate::decode::{self, Fields, Malformed, Value};
use crate::error::Error;
use crate::{kv, txn};

/// Names a proposal on the member that made it, so that the answer finds who waits for it. Members draw
/// from disjoint ranges; zero is nobody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// On whose behalf a command runs. Empty while auth is off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The user's name.
    pub name: String,
    /// The revision of the auth tables that the user's token was made at.
    pub auth_revision: u64,
}

/// One entry's worth of work.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Who waits for the answer.
    pub id: RequestId,
    /// Who asked.
    pub caller: Caller,
    /// What to do.
    pub request: Request,
}

/// What a command does. The variants that hold a protobuf message hold it as it came.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// A read that went through the log. Nobody proposes it; an old log may hold one.
    Range(RangeRequest),
    /// Write one key.
    Put(PutRequest),
    /// Delete a key or a range.
    DeleteRange(DeleteRangeRequest),
    /// Compare, then do one list of operations or the other, as one revision.
    Txn(TxnRequest),
    /// Move the compaction mark.
    Compact(CompactionRequest),
    /// Make a lease.
    LeaseGrant(LeaseGrantRequest),
    /// End a lease and delete its keys.
    LeaseRevoke(LeaseRevokeRequest),
    /// Note how much of leases' time is left.
    LeaseCheckpoint(LeaseCheckpointRequest),
    /// List, raise or take back an alarm.
    Alarm(AlarmRequest),
    /// Decide the cluster's version.
    ClusterVersionSet(ClusterVersionSetRequest),
    /// Publish a member's name and client URLs.
    MemberAttributesSet(ClusterMemberAttrSetRequest),
    /// Start or end a downgrade.
    DowngradeInfoSet(DowngradeInfoSetRequest),
    /// A marker that etcd's own tests write: does nothing.
    DowngradeVersionTest,
    /// Users, roles and tokens: the number of the field and its message.
    Auth {
        /// The field's number in `InternalRaftRequest`.
        field: u32,
        /// The message, unread.
        message: Bytes,
    },
    /// What this version does not do, or cannot read: only from logs, never proposed.
    Refused(Error),
}

/// The fields of `InternalRaftRequest` that name a request, in the order in which etcd looks for them.
/// An entry holds exactly one; if it holds more, the first of this list is done.
const DISPATCH: [u32; 31] = [
    1300, 1301, 1302, 9900, 3, 4, 5, 6, 7, 8, 9, 11, 10, 1012, 1000, 1011, 1013, 1100, 1101, 1103,
    1104, 1102, 1105, 1200, 1203, 1202, 1204, 1201, 1106, 1107, 2,
];
const HEADER: u32 = 100;

impl Command {
    /// The bytes of the log entry.
    ///
    /// # Panics
    /// If the id is zero, which stops Go members, or the request is [`Request::Refused`]: neither is ever
    /// proposed.
    pub fn encode(&self) -> Bytes {
        assert!(self.id.0 != 0, "a command without an id stops every Go member of the cluster");
        let header = RequestHeader {
            id: self.id.0,
            username: self.caller.name.clone(),
            auth_revision: self.caller.auth_revision,
        };
        let (field, message): (u32, &dyn Encode) = match &self.request {
            Request::Range(m) => (3, m),
            Request::Put(m) => (4, m),
            Request::DeleteRange(m) => (5, m),
            Request::Txn(m) => (6, m),
            Request::Compact(m) => (7, m),
            Request::LeaseGrant(m) => (8, m),
            Request::LeaseRevoke(m) => (9, m),
            Request::Alarm(m) => (10, m),
            Request::LeaseCheckpoint(m) => (11, m),
            Request::ClusterVersionSet(m) => (1300, m),
            Request::MemberAttributesSet(m) => (1301, m),
            Request::DowngradeInfoSet(m) => (1302, m),
            Request::DowngradeVersionTest => (9900, &Raw(&[])),
            Request::Auth { field, message } => (*field, &Raw(message)),
            Request::Refused(error) => panic!("a refused request is never proposed: {error}"),
        };
        let length = message.length();
        let mut out = BytesMut::with_capacity(length + header.encoded_len() + 16);
        let write_header = |out: &mut BytesMut| {
            encode_key(HEADER, WireType::LengthDelimited, out);
            encode_varint(header.encoded_len() as u64, out);
            header.encode_raw(out);
        };
        if field > HEADER {
            write_header(&mut out);
        }
        encode_key(field, WireType::LengthDelimited, &mut out);
        encode_varint(length as u64, &mut out);
        message.write(&mut out);
        if field < HEADER {
            write_header(&mut out);
        }
        out.freeze()
    }

    /// The id that an entry carries, 0 if none can be read: whether the member that applies it has anybody to
    /// answer. It looks at the top fields alone.
    pub fn id_of(data: &Bytes) -> RequestId {
        let (mut legacy, mut header) = (0, 0);
        let mut fields = Fields::new(&data[..]);
        while let Ok(Some((number, value))) = fields.next() {
            match value {
                Value::Varint(id) if number == 1 => legacy = id,
                Value::Bytes(message) if number == HEADER => {
                    let mut fields = Fields::new(message);
                    while let Ok(Some((number, value))) = fields.next() {
                        if let (1, Value::Varint(id)) = (number, value) {
                            header = id;
                        }
                    }
                }
                _ => {}
            }
        }
        RequestId(if legacy != 0 { legacy } else { header })
    }

    /// Reads an entry. Never fails: what cannot be read or is not known becomes [`Request::Refused`],
    /// with the id if that much could be read, so that whoever waits on the proposing member hears of it.
    pub fn decode(data: &Bytes) -> Command {
        let mut command = Command {
            id: RequestId(0),
            caller: Caller::default(),
            request: Request::Refused(Error::Undecodable),
        };
        match find(data, &mut command) {
            Ok((field, message)) => {
                command.request =
                    read(field, message).unwrap_or(Request::Refused(Error::Undecodable));
            }
            Err(error) => command.request = Request::Refused(error),
        }
        command
    }
}

/// Finds the request's field and fills in the id and caller. A message that is split over several fields
/// of one number is, in protobuf, the same as their concatenation.
fn find(data: &Bytes, command: &mut Command) -> Result<(u32, Bytes), Error> {
    let malformed = |Malformed| Error::Undecodable;
    let (mut legacy, mut header) = (0, RequestHeader::default());
    let mut found: Option<(usize, Bytes)> = None;
    let mut fields = Fields::new(data.clone());
    while let Some((number, value)) = fields.next().map_err(malformed)? {
        let message = match value {
            Value::Varint(id) if number == 1 => {
                legacy = id;
                continue;
            }
            Value::Bytes(message) => message,
            _ => continue,
        };
        // Of the version 2 API's requests, field 2 is the method and the rest are strings and numbers
        // that would pass for other fields here, so they are told apart first.
        if number == 2 && is_v2_method(&message) {
            return Err(Error::V2Unsupported);
        }
        if number == HEADER {
            header.merge(message).map_err(|_| Error::Undecodable)?;
            continue;
        }
        let Some(rank) = DISPATCH.iter().position(|&field| field == number) else { continue };
        match &mut found {
            Some((first, so_far)) if *first == rank => {
                *so_far = [&so_far[..], &message[..]].concat().into();
            }
            Some((first, _)) if *first < rank => {}
            _ => found = Some((rank, message)),
        }
    }
    command.id = RequestId(if legacy != 0 { legacy } else { header.id });
    command.caller = Caller { name: header.username, auth_revision: header.auth_revision };
    let (rank, message) = found.ok_or(Error::UnknownRequest)?;
    Ok((DISPATCH[rank], message))
}

fn is_v2_method(text: &[u8]) -> bool {
    matches!(text, b"PUT" | b"POST" | b"DELETE" | b"QGET" | b"GET" | b"SYNC")
}

fn read(field: u32, message: Bytes) -> Result<Request, Malformed> {
    fn whole<M: Default>(
        message: Bytes,
        read: fn(&mut M, Bytes) -> Result<(), Malformed>,
    ) -> Result<M, Malformed> {
        let mut into = M::default();
        read(&mut into, message)?;
        Ok(into)
    }
    fn generated<M: Message + Default>(message: Bytes) -> Result<M, Malformed> {
        M::decode(message).map_err(|_| Malformed)
    }
    Ok(match field {
        3 => Request::Range(whole(message, decode::range)?),
        4 => Request::Put(whole(message, decode::put)?),
        5 => Request::DeleteRange(whole(message, decode::delete_range)?),
        6 => Request::Txn(whole(message, |into, bytes| decode::txn(into, bytes, 0))?),
        7 => Request::Compact(whole(message, decode::compaction)?),
        8 => Request::LeaseGrant(whole(message, decode::lease_grant)?),
        9 => Request::LeaseRevoke(whole(message, decode::lease_revoke)?),
        10 => Request::Alarm(whole(message, decode::alarm)?),
        11 => Request::LeaseCheckpoint(whole(message, decode::lease_checkpoint)?),
        1300 => Request::ClusterVersionSet(generated(message)?),
        1301 => Request::MemberAttributesSet(generated(message)?),
        1302 => Request::DowngradeInfoSet(generated(message)?),
        9900 => Request::DowngradeVersionTest,
        2 => Request::Refused(Error::V2Unsupported),
        field => Request::Auth { field, message },
    })
}

/// A protobuf message, or bytes that are one already.
trait Encode {
    fn length(&self) -> usize;
    fn write(&self, out: &mut BytesMut);
}

impl<M: Message> Encode for M {
    fn length(&self) -> usize {
        self.encoded_len()
    }
    fn write(&self, out: &mut BytesMut) {
        self.encode_raw(out);
    }
}

struct Raw<'a>(&'a [u8]);

impl Encode for Raw<'_> {
    fn length(&self) -> usize {
        self.0.len()
    }
    fn write(&self, out: &mut BytesMut) {
        out.put_slice(self.0);
    }
}

impl TryFrom<PutRequest> for Request {
    type Error = Error;

    /// Key, then `ignore_value`, then `ignore_lease`.
    fn try_from(request: PutRequest) -> Result<Request, Error> {
        kv::check_put(&request)?;
        Ok(Request::Put(request))
    }
}

impl TryFrom<DeleteRangeRequest> for Request {
    type Error = Error;

    fn try_from(request: DeleteRangeRequest) -> Result<Request, Error> {
        kv::check_delete(&request)?;
        Ok(Request::DeleteRange(request))
    }
}

impl From<CompactionRequest> for Request {
    /// Nothing can be checked without the keyspace.
    fn from(request: CompactionRequest) -> Request {
        Request::Compact(request)
    }
}

impl From<LeaseRevokeRequest> for Request {
    /// Nothing can be checked without the lease table.
    fn from(request: LeaseRevokeRequest) -> Request {
        Request::LeaseRevoke(request)
    }
}

impl From<AlarmRequest> for Request {
    /// Unknown actions are answered with nothing, as etcd does.
    fn from(request: AlarmRequest) -> Request {
        Request::Alarm(request)
    }
}

impl Request {
    /// A transaction, checked: number of operations (nested ones share the budget of what encloses
    /// them), keys, sort options and the flags of puts; then whether a key is written twice.
    ///
    /// # Errors
    /// The first check that fails, in etcd's order.
    pub fn txn(request: TxnRequest, ops_max: usize) -> Result<Request, Error> {
        txn::check(&request, ops_max)?;
        Ok(Request::Txn(request))
    }

    /// The revoke of a lease whose time is over: the leader's own.
    pub fn lease_expiry(id: i64) -> Request {
        Request::LeaseRevoke(LeaseRevokeRequest { id })
    }

    /// The note of how many seconds of a lease are left, 0 meaning all of them: the leader's own.
    pub fn lease_checkpoint(id: i64, remaining: i64) -> Request {
        let checkpoint = LeaseCheckpoint { id, remaining_ttl: remaining };
        Request::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints: vec![checkpoint] })
    }

    /// A lease grant. If the client left the id to the server it becomes `fresh`, cut to the positive
    /// numbers; the caller gives an id of which that is not zero.
    pub fn lease_grant(mut request: LeaseGrantRequest, fresh: RequestId) -> Request {
        if request.id == 0 {
            request.id = (fresh.0 & i64::MAX as u64) as i64;
        }
        Request::LeaseGrant(request)
    }
}
