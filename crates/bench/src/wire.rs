//! Requests written by hand, and replies read as far as they are checked.
//!
//! A load generator that spends as much on a request as the server measures itself. So a request is a few
//! appends to one buffer, and a reply is walked over field by field, without building it.
//!
//! ```text
//!   gRPC message = | compressed: u8 = 0 | length: u32, big endian | protobuf bytes |
//!   field        = | number << 3 | kind | varint, or length and bytes |
//! ```

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes before each gRPC message.
pub const PREFIX_BYTES: usize = 5;

/// Writes the gRPC message that `fill` appends. `scratch` shares one allocation among many messages.
pub fn message(scratch: &mut BytesMut, fill: impl FnOnce(&mut BytesMut)) -> Bytes {
    let start = scratch.len();
    scratch.put_slice(&[0; PREFIX_BYTES]);
    fill(scratch);
    let length = (scratch.len() - start - PREFIX_BYTES) as u32;
    scratch[start + 1..start + PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    scratch.split().freeze()
}

fn varint(out: &mut BytesMut, mut number: u64) {
    while number > 127 {
        out.put_u8(number as u8 | 128);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

fn varint_bytes(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a number.
pub fn number(out: &mut BytesMut, field: u32, value: u64) {
    varint(out, u64::from(field) << 3);
    varint(out, value);
}

/// Appends bytes, or a message that is already encoded.
pub fn bytes(out: &mut BytesMut, field: u32, value: &[u8]) {
    head(out, field, value.len());
    out.put_slice(value);
}

/// Appends what stands before so many bytes.
fn head(out: &mut BytesMut, field: u32, length: usize) {
    varint(out, u64::from(field) << 3 | 2);
    varint(out, length as u64);
}

/// Bytes that [`bytes()`] takes for a value of this length.
fn sized(field: u32, length: usize) -> usize {
    varint_bytes(u64::from(field) << 3) + varint_bytes(length as u64) + length
}

/// A PutRequest.
pub fn put(out: &mut BytesMut, key: &[u8], value: &[u8]) {
    bytes(out, 1, key);
    bytes(out, 2, value);
}

/// What a range asks for besides its keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RangeOptions {
    /// Keys at most; 0 is all.
    pub limit: u64,
    /// Answered by the asked member alone, which may be behind.
    pub serializable: bool,
    /// Keys without values.
    pub keys_only: bool,
    /// Only their number.
    pub count_only: bool,
}

/// A RangeRequest for the key, or if `end` is not empty for all keys from `key` up to it.
pub fn range(out: &mut BytesMut, key: &[u8], end: &[u8], options: RangeOptions) {
    bytes(out, 1, key);
    if !end.is_empty() {
        bytes(out, 2, end);
    }
    if options.limit > 0 {
        number(out, 3, options.limit);
    }
    for (field, set) in [(7, options.serializable), (8, options.keys_only), (9, options.count_only)]
    {
        if set {
            number(out, field, 1);
        }
    }
}

/// A DeleteRangeRequest for one key.
pub fn delete(out: &mut BytesMut, key: &[u8]) {
    bytes(out, 1, key);
}

/// A TxnRequest: if the key exists (its create revision is greater than 0), it is put.
pub fn txn_put(out: &mut BytesMut, key: &[u8], value: &[u8]) {
    // Compare { result: GREATER = 1, target: CREATE = 1, key, create_revision: 0 }; the revision is a member of a
    // oneof, so it is written although it is zero.
    let compare = 2 + 2 + sized(3, key.len()) + 2;
    head(out, 1, compare);
    number(out, 1, 1);
    number(out, 2, 1);
    bytes(out, 3, key);
    number(out, 5, 0);
    // RequestOp { request_put = 2 }
    let put_bytes = sized(1, key.len()) + sized(2, value.len());
    head(out, 2, sized(2, put_bytes));
    head(out, 2, put_bytes);
    put(out, key, value);
}

/// A LeaseGrantRequest; with an id of 0 the server chooses one.
pub fn lease_grant(out: &mut BytesMut, ttl_seconds: u64, id: u64) {
    number(out, 1, ttl_seconds);
    if id > 0 {
        number(out, 2, id);
    }
}

/// A LeaseKeepAliveRequest.
pub fn keep_alive(out: &mut BytesMut, id: u64) {
    number(out, 1, id);
}

/// A WatchRequest that creates a watcher of one key.
pub fn watch_create(out: &mut BytesMut, key: &[u8]) {
    head(out, 1, sized(1, key.len()));
    bytes(out, 1, key);
}

/// A field of a reply.
#[derive(Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A varint.
    Number(u64),
    /// Bytes, a string or a message.
    Bytes(&'a [u8]),
}

/// What a reply says that is no protobuf message.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// Walks over the fields of a message.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            number |= u64::from(byte & 127).checked_shl(shift).ok_or(Malformed)?;
            if byte < 128 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), Malformed> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Bytes(self.take(8)?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Bytes(self.take(4)?),
            _ => return Err(Malformed),
        };
        Ok((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// What a reply says, as far as a check needs it; the fields have other numbers in each kind of reply, so each
/// kind has its reader below.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The revision in its header.
    pub revision: u64,
    /// The keys it carries; of a watch the events.
    pub items: u64,
    /// The number it states: of a range all keys in it, of a delete those deleted, of a transaction 1 if it
    /// succeeded, of a lease the seconds it lives.
    pub number: u64,
}

/// Reads a reply whose header is field 1, whose items are field `items`, and whose number is field `number`.
///
/// # Errors
/// [`Malformed`], if it is no message.
pub fn read(message: &[u8], items: u64, number: u64) -> Result<Reply, Malformed> {
    let mut reply = Reply::default();
    for field in Fields(message) {
        match field? {
            (1, Value::Bytes(header)) => {
                for field in Fields(header) {
                    if let (3, Value::Number(revision)) = field? {
                        reply.revision = revision;
                    }
                }
            }
            (field, Value::Bytes(_)) if field == items => reply.items += 1,
            (field, Value::Number(value)) if field == number => reply.number = value,
            _ => {}
        }
    }
    Ok(reply)
}

/// What a watch stream says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Watched<'a> {
    /// A watcher was made.
    pub created: bool,
    /// Why it was ended, if it was.
    pub canceled: Option<&'a [u8]>,
    /// How many events came.
    pub events: u64,
    /// The value of the first of them.
    pub first_value: Option<&'a [u8]>,
}

/// Reads a WatchResponse; calls `event` with each event's value.
///
/// # Errors
/// [`Malformed`], if it is no message.
pub fn read_watch<'a>(
    message: &'a [u8],
    mut event: impl FnMut(&'a [u8]),
) -> Result<Watched<'a>, Malformed> {
    let mut watched = Watched::default();
    let mut reason = &[][..];
    let mut canceled = false;
    for field in Fields(message) {
        match field? {
            (3, Value::Number(created)) => watched.created = created != 0,
            (4, Value::Number(said)) => canceled = said != 0,
            (6, Value::Bytes(why)) => reason = why,
            (11, Value::Bytes(body)) => {
                watched.events += 1;
                for field in Fields(body) {
                    let (2, Value::Bytes(pair)) = field? else { continue };
                    for field in Fields(pair) {
                        if let (5, Value::Bytes(value)) = field? {
                            watched.first_value.get_or_insert(value);
                            event(value);
                        }
                    }
                }
            }
            _ => {}
        }
    }
    watched.canceled = canceled.then_some(reason);
    Ok(watched)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::etcdserverpb as pb;
    use proto::mvccpb::{Event, KeyValue};

    use super::*;

    /// What we write is what prost reads, and what it would write.
    fn check<M: Message + Default + PartialEq + std::fmt::Debug>(
        fill: impl FnOnce(&mut BytesMut),
        wanted: M,
    ) {
        let framed = message(&mut BytesMut::new(), fill);
        assert_eq!(framed[0], 0);
        let length = u32::from_be_bytes(framed[1..PREFIX_BYTES].try_into().unwrap());
        assert_eq!(length as usize, framed.len() - PREFIX_BYTES);
        let got = M::decode(&framed[PREFIX_BYTES..]).unwrap();
        assert_eq!(got, wanted);
        assert_eq!(wanted.encode_to_vec(), framed[PREFIX_BYTES..]);
    }

    #[test]
    fn requests_are_those_that_prost_writes() {
        let value = vec![7; 300];
        let put_request = || pb::PutRequest {
            key: "key".into(),
            value: value.clone().into(),
            ..Default::default()
        };
        check(|out| put(out, b"key", &value), put_request());
        let options = RangeOptions { limit: 500, serializable: true, ..Default::default() };
        check(
            |out| range(out, b"a", b"b", options),
            pb::RangeRequest {
                key: "a".into(),
                range_end: "b".into(),
                limit: 500,
                serializable: true,
                ..Default::default()
            },
        );
        let options = RangeOptions { keys_only: true, count_only: true, ..Default::default() };
        check(
            |out| range(out, b"a", b"", options),
            pb::RangeRequest {
                key: "a".into(),
                keys_only: true,
                count_only: true,
                ..Default::default()
            },
        );
        check(
            |out| delete(out, b"a"),
            pb::DeleteRangeRequest { key: "a".into(), ..Default::default() },
        );
        check(
            |out| txn_put(out, b"key", &value),
            pb::TxnRequest {
                compare: vec![pb::Compare {
                    result: pb::compare::CompareResult::Greater as i32,
                    target: pb::compare::CompareTarget::Create as i32,
                    key: "key".into(),
                    target_union: Some(pb::compare::TargetUnion::CreateRevision(0)),
                    ..Default::default()
                }],
                success: vec![pb::RequestOp {
                    request: Some(pb::request_op::Request::RequestPut(put_request())),
                }],
                failure: vec![],
            },
        );
        check(|out| lease_grant(out, 60, 9), pb::LeaseGrantRequest { ttl: 60, id: 9 });
        check(|out| keep_alive(out, 300), pb::LeaseKeepAliveRequest { id: 300 });
        check(
            |out| watch_create(out, b"key"),
            pb::WatchRequest {
                request_union: Some(pb::watch_request::RequestUnion::CreateRequest(
                    pb::WatchCreateRequest { key: "key".into(), ..Default::default() },
                )),
            },
        );
    }

    #[test]
    fn replies_are_read_as_far_as_they_are_checked() {
        let header = Some(pb::ResponseHeader { revision: 77, raft_term: 2, ..Default::default() });
        let kv = KeyValue { key: "k".into(), value: "v".into(), ..Default::default() };
        let range = pb::RangeResponse {
            header,
            kvs: vec![kv.clone(), kv.clone()],
            more: true,
            count: 1000,
        };
        let wanted = Reply { revision: 77, items: 2, number: 1000 };
        assert_eq!(read(&range.encode_to_vec(), 2, 4), Ok(wanted));
        let watch = pb::WatchResponse {
            header,
            events: vec![Event { kv: Some(kv), ..Default::default() }; 3],
            ..Default::default()
        };
        let encoded = watch.encode_to_vec();
        let mut values = 0;
        let got = read_watch(&encoded, |value| values += value.len()).unwrap();
        assert_eq!((got.events, values, got.first_value), (3, 3, Some(&b"v"[..])));
        assert_eq!((got.created, got.canceled), (false, None));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for hostile in
            [&b"\x0a"[..], b"\x0a\x05abc", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x0b"]
        {
            assert_eq!(read(hostile, 2, 4), Err(Malformed), "{hostile:?}");
        }
        assert_eq!(read(b"", 2, 4), Ok(Reply::default()));
    }
}
