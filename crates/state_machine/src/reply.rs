//! Answers, and how they are written into the public response messages.
//!
//! A reply holds what the operation decided, with key-values as the very bytes that were encoded when
//! they were written; [`Reply::encode`] pastes them. Header and reply part company on purpose: the
//! revision belongs to the operation, cluster, member and term to the member that answers, at the moment
//! it answers.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use proto::etcdserverpb::{AlarmMember, Member};

/// What the answering member puts before every reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The cluster's id.
    pub cluster_id: u64,
    /// The id of the member that answers.
    pub member_id: u64,
    /// The current revision: stands in the answer if the reply has none of its own.
    pub revision: i64,
    /// The term at the time of the answer.
    pub raft_term: u64,
}

/// What an operation answers. Revisions are main revisions.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// `RangeResponse`.
    Range(RangeReply),
    /// `PutResponse`.
    Put(PutReply),
    /// `DeleteRangeResponse`.
    DeleteRange(DeleteRangeReply),
    /// `TxnResponse`.
    Txn(TxnReply),
    /// `CompactionResponse`, with the current revision.
    Compact {
        /// The current revision.
        revision: i64,
    },
    /// `LeaseGrantResponse`.
    LeaseGrant {
        /// The current revision.
        revision: i64,
        /// The lease.
        id: i64,
        /// Its time to live, seconds, after raising.
        ttl: i64,
    },
    /// `LeaseRevokeResponse`.
    LeaseRevoke {
        /// The revision of the deletes, or the current one if no key was attached.
        revision: i64,
    },
    /// `LeaseCheckpointResponse`: goes to the leader's own lease clock.
    LeaseCheckpoint {
        /// The current revision.
        revision: i64,
    },
    /// `LeaseKeepAliveResponse`.
    LeaseKeepAlive {
        /// The lease.
        id: i64,
        /// Its full time to live, seconds; 0 if there is no such lease.
        ttl: i64,
    },
    /// `LeaseTimeToLiveResponse`.
    LeaseTimeToLive {
        /// The lease.
        id: i64,
        /// Seconds left; -1 if there is no such lease.
        ttl: i64,
        /// The full time to live, seconds; 0 if there is no such lease.
        granted_ttl: i64,
        /// The attached keys, if they were asked for.
        keys: Vec<Bytes>,
    },
    /// `LeaseLeasesResponse`, soonest to expire first.
    LeaseLeases {
        /// The leases.
        ids: Vec<i64>,
    },
    /// `AlarmResponse`.
    Alarm {
        /// The current revision.
        revision: i64,
        /// The alarms asked for, or the one raised or taken back.
        alarms: Vec<AlarmMember>,
    },
    /// `MemberListResponse`, and the list that ends every other answer of the Cluster service: sorted by
    /// id. Its header has no revision.
    MemberList {
        /// All members.
        members: Vec<Member>,
    },
    /// `HashKVResponse`.
    HashKv {
        /// CRC-32C of keys and values.
        hash: u32,
        /// The compaction mark that the hash was made at; -1 if there was none.
        compact_revision: i64,
        /// The revision hashed.
        hash_revision: i64,
        /// The current revision.
        revision: i64,
    },
    /// Done; there is nothing to say. What the cluster's own commands answer.
    Done,
}

/// What a range found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RangeReply {
    /// The current revision, also when an old one was read.
    pub revision: i64,
    /// Each an encoded `mvccpb.KeyValue`.
    pub key_values: Vec<Bytes>,
    /// The limit cut the list.
    pub more: bool,
    /// Keys in the range, before filters and limit.
    pub count: i64,
}

/// What a put did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PutReply {
    /// The revision of the write.
    pub revision: i64,
    /// The encoded `mvccpb.KeyValue` that was there before, if it was asked for and existed.
    pub previous: Option<Bytes>,
}

/// What a delete did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeleteRangeReply {
    /// The revision of the deletes, or the current one if nothing was deleted.
    pub revision: i64,
    /// How many keys were deleted.
    pub deleted: i64,
    /// Each deleted key-value, encoded, if they were asked for; in key order.
    pub previous: Vec<Bytes>,
}

/// What a transaction did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TxnReply {
    /// The revision after the transaction. Zero in a nested one, whose header is empty.
    pub revision: i64,
    /// Every compare held.
    pub succeeded: bool,
    /// One for each operation of the branch taken; `None` for an operation that named nothing.
    pub responses: Vec<Option<Response>>,
}

/// What one operation of a transaction answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// A range.
    Range(RangeReply),
    /// A put.
    Put(PutReply),
    /// A delete.
    DeleteRange(DeleteRangeReply),
    /// A nested transaction.
    Txn(TxnReply),
}

impl Reply {
    /// Writes the public response message behind what `out` holds.
    pub fn encode(&self, header: &Header, out: &mut BytesMut) {
        let own = |revision: i64| Header { revision, ..*header };
        let none = Header { revision: 0, ..*header };
        match self {
            Reply::Range(reply) => {
                out.reserve(reply.body_length() + HEADER_LENGTH_MAX);
                write_header(&pick(header, reply.revision), out);
                reply.write_body(out);
            }
            Reply::Put(reply) => {
                write_header(&pick(header, reply.revision), out);
                reply.write_body(out);
            }
            Reply::DeleteRange(reply) => {
                out.reserve(reply.body_length() + HEADER_LENGTH_MAX);
                write_header(&pick(header, reply.revision), out);
                reply.write_body(out);
            }
            Reply::Txn(reply) => {
                let lengths = Lengths::of(reply);
                out.reserve(lengths.body + HEADER_LENGTH_MAX);
                write_header(&pick(header, reply.revision), out);
                reply.write_body(&lengths, out);
            }
            Reply::Compact { revision }
            | Reply::LeaseRevoke { revision }
            | Reply::LeaseCheckpoint { revision } => write_header(&own(*revision), out),
            Reply::LeaseGrant { revision, id, ttl } => {
                write_header(&own(*revision), out);
                write_int(2, *id, out);
                write_int(3, *ttl, out);
            }
            Reply::LeaseKeepAlive { id, ttl } => {
                write_header(header, out);
                write_int(2, *id, out);
                write_int(3, *ttl, out);
            }
            Reply::LeaseTimeToLive { id, ttl, granted_ttl, keys } => {
                write_header(header, out);
                write_int(2, *id, out);
                write_int(3, *ttl, out);
                write_int(4, *granted_ttl, out);
                keys.iter().for_each(|key| write_bytes(5, key, out));
            }
            Reply::LeaseLeases { ids } => {
                write_header(header, out);
                for id in ids {
                    encode_key(2, WireType::LengthDelimited, out);
                    encode_varint(int_length(1, *id) as u64, out);
                    write_int(1, *id, out);
                }
            }
            Reply::Alarm { revision, alarms } => {
                write_header(&own(*revision), out);
                alarms.iter().for_each(|alarm| write_message(2, alarm, out));
            }
            Reply::MemberList { members } => {
                write_header(&none, out);
                members.iter().for_each(|member| write_message(2, member, out));
            }
            Reply::HashKv { hash, compact_revision, hash_revision, revision } => {
                write_header(&own(*revision), out);
                write_int(2, i64::from(*hash), out);
                write_int(3, *compact_revision, out);
                write_int(4, *hash_revision, out);
            }
            Reply::Done => {}
        }
    }

    /// The public response message by itself.
    pub fn to_bytes(&self, header: &Header) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(header, &mut out);
        out.freeze()
    }
}

/// A header with four ten-byte numbers, its key and length.
const HEADER_LENGTH_MAX: usize = 2 + 4 * 11;

fn pick(header: &Header, revision: i64) -> Header {
    Header { revision: if revision == 0 { header.revision } else { revision }, ..*header }
}

impl RangeReply {
    fn body_length(&self) -> usize {
        self.key_values.iter().map(|bytes| bytes_length(2, bytes)).sum::<usize>()
            + bool_length(3, self.more)
            + int_length(4, self.count)
    }

    fn write_body(&self, out: &mut BytesMut) {
        self.key_values.iter().for_each(|bytes| write_bytes(2, bytes, out));
        write_bool(3, self.more, out);
        write_int(4, self.count, out);
    }
}

impl PutReply {
    fn body_length(&self) -> usize {
        self.previous.as_ref().map_or(0, |bytes| bytes_length(2, bytes))
    }

    fn write_body(&self, out: &mut BytesMut) {
        self.previous.iter().for_each(|bytes| write_bytes(2, bytes, out));
    }
}

impl DeleteRangeReply {
    fn body_length(&self) -> usize {
        int_length(2, self.deleted)
            + self.previous.iter().map(|bytes| bytes_length(3, bytes)).sum::<usize>()
    }

    fn write_body(&self, out: &mut BytesMut) {
        write_int(2, self.deleted, out);
        self.previous.iter().for_each(|bytes| write_bytes(3, bytes, out));
    }
}

/// The lengths of a transaction's body and of everything nested in it, worked out once: a length stands
/// before its message, and asking anew at each level would cost the square of the depth.
struct Lengths {
    /// Of the body: all fields but the header.
    body: usize,
    /// For each response, the length of its `ResponseOp`'s inner message, and of what is nested in it.
    responses: Vec<(usize, Option<Lengths>)>,
}

impl Lengths {
    fn of(reply: &TxnReply) -> Lengths {
        let mut body = bool_length(2, reply.succeeded);
        let mut responses = Vec::with_capacity(reply.responses.len());
        for response in &reply.responses {
            let (inner, nested) = match response {
                None => (0, None),
                Some(Response::Range(r)) => {
                    (inner_header_length(r.revision) + r.body_length(), None)
                }
                Some(Response::Put(r)) => (inner_header_length(r.revision) + r.body_length(), None),
                Some(Response::DeleteRange(r)) => {
                    (inner_header_length(r.revision) + r.body_length(), None)
                }
                Some(Response::Txn(r)) => {
                    let nested = Lengths::of(r);
                    (inner_header_length(r.revision) + nested.body, Some(nested))
                }
            };
            let op = if response.is_some() { framed(1, inner) } else { 0 };
            body += framed(3, op);
            responses.push((inner, nested));
        }
        Lengths { body, responses }
    }
}

impl TxnReply {
    fn write_body(&self, lengths: &Lengths, out: &mut BytesMut) {
        write_bool(2, self.succeeded, out);
        for (response, (inner, nested)) in self.responses.iter().zip(&lengths.responses) {
            encode_key(3, WireType::LengthDelimited, out);
            let Some(response) = response else {
                encode_varint(0, out);
                continue;
            };
            encode_varint(framed(1, *inner) as u64, out);
            let field = match response {
                Response::Range(_) => 1,
                Response::Put(_) => 2,
                Response::DeleteRange(_) => 3,
                Response::Txn(_) => 4,
            };
            encode_key(field, WireType::LengthDelimited, out);
            encode_varint(*inner as u64, out);
            match (response, nested) {
                (Response::Range(reply), _) => {
                    write_inner_header(reply.revision, out);
                    reply.write_body(out);
                }
                (Response::Put(reply), _) => {
                    write_inner_header(reply.revision, out);
                    reply.write_body(out);
                }
                (Response::DeleteRange(reply), _) => {
                    write_inner_header(reply.revision, out);
                    reply.write_body(out);
                }
                (Response::Txn(reply), Some(nested)) => {
                    write_inner_header(reply.revision, out);
                    reply.write_body(nested, out);
                }
                (Response::Txn(_), None) => unreachable!("a nested transaction has its lengths"),
            }
        }
    }
}

fn write_header(header: &Header, out: &mut BytesMut) {
    let (cluster, member, term) =
        (header.cluster_id as i64, header.member_id as i64, header.raft_term as i64);
    let length = int_length(1, cluster)
        + int_length(2, member)
        + int_length(3, header.revision)
        + int_length(4, term);
    encode_key(1, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
    write_int(1, cluster, out);
    write_int(2, member, out);
    write_int(3, header.revision, out);
    write_int(4, term, out);
}

/// The header of an answer inside a transaction has a revision and nothing else.
fn write_inner_header(revision: i64, out: &mut BytesMut) {
    encode_key(1, WireType::LengthDelimited, out);
    encode_varint(int_length(3, revision) as u64, out);
    write_int(3, revision, out);
}

fn inner_header_length(revision: i64) -> usize {
    framed(1, int_length(3, revision))
}

/// The length of a length-delimited field around `length` bytes.
fn framed(field: u32, length: usize) -> usize {
    key_len(field) + encoded_len_varint(length as u64) + length
}

fn bytes_length(field: u32, bytes: &Bytes) -> usize {
    framed(field, bytes.len())
}

fn int_length(field: u32, value: i64) -> usize {
    if value == 0 { 0 } else { key_len(field) + encoded_len_varint(value as u64) }
}

fn bool_length(field: u32, value: bool) -> usize {
    if value { key_len(field) + 1 } else { 0 }
}

fn write_bytes(field: u32, bytes: &Bytes, out: &mut BytesMut) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.put_slice(bytes);
}

fn write_int(field: u32, value: i64, out: &mut BytesMut) {
    if value != 0 {
        encode_key(field, WireType::Varint, out);
        encode_varint(value as u64, out);
    }
}

fn write_bool(field: u32, value: bool, out: &mut BytesMut) {
    if value {
        encode_key(field, WireType::Varint, out);
        encode_varint(1, out);
    }
}

fn write_message(field: u32, message: &impl Message, out: &mut BytesMut) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(message.encoded_len() as u64, out);
    message.encode_raw(out);
}
