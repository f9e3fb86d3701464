//! Reads the requests that stand in log entries, field by field, exactly as etcd's own decoder does.
//!
//! Generated decoders will not do here, for one reason: all members must read the same entry alike, and
//! a member that refuses what the others apply has diverged. Go's protobuf decoder
//! - follows nested messages 10,000 levels deep, where generated Rust stops at 100 (a transaction may
//!   nest as deep as `max-txn-ops`, at two messages per level);
//! - treats a known field of the wrong wire type as an unknown one, where generated Rust fails;
//! - and etcd writes unknown fields back into the entry, so that both do reach a log.
//!
//! Byte fields are slices of the entry's own buffer; nothing is copied.

use bytes::{Buf, Bytes};
use proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, Compare, DeleteRangeRequest, LeaseCheckpoint,
    LeaseCheckpointRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest,
    RequestOp, TxnRequest, compare::TargetUnion, request_op,
};

/// Transactions nested deeper than this are not read: some stack is needed for each level. etcd's front
/// refuses what is nested deeper than `max-txn-ops`, which is 128 unless configured.
pub const TXN_DEPTH_MAX: usize = 256;

/// The bytes are no protobuf message, or nest too deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// What a message is read from: a buffer whose parts are shared, or a plain look at one.
pub(crate) trait Part: Buf {
    /// Takes the first `length` bytes away, of which there are enough.
    fn take_part(&mut self, length: usize) -> Self;
}

impl Part for Bytes {
    fn take_part(&mut self, length: usize) -> Bytes {
        self.split_to(length)
    }
}

impl Part for &[u8] {
    fn take_part(&mut self, length: usize) -> Self {
        let (part, rest) = self.split_at(length);
        *self = rest;
        part
    }
}

/// The value of one field, by its wire type.
pub(crate) enum Value<B = Bytes> {
    /// Integers, booleans, enums.
    Varint(u64),
    /// Strings, bytes, messages.
    Bytes(B),
    /// Four or eight fixed bytes, or a group: no request has such a field, so it is skipped.
    Other,
}

/// The fields of one message, in their order.
pub(crate) struct Fields<B = Bytes> {
    rest: B,
}

impl<B: Part> Fields<B> {
    pub(crate) fn new(message: B) -> Fields<B> {
        Fields { rest: message }
    }

    /// The next field's number and value.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value<B>)>, Malformed> {
        if !self.rest.has_remaining() {
            return Ok(None);
        }
        let (number, wire_type) = self.tag()?;
        let value = match wire_type {
            0 => Value::Varint(self.varint()?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                if length > self.rest.remaining() {
                    return Err(Malformed);
                }
                Value::Bytes(self.rest.take_part(length))
            }
            other => {
                self.skip(number, other)?;
                Value::Other
            }
        };
        Ok(Some((number, value)))
    }

    fn tag(&mut self) -> Result<(u32, u8), Malformed> {
        let tag = u32::try_from(self.varint()?).map_err(|_| Malformed)?;
        if tag >> 3 == 0 {
            return Err(Malformed);
        }
        Ok((tag >> 3, (tag & 7) as u8))
    }

    /// At most ten bytes, of which the last carries one bit.
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (at, &byte) in self.rest.chunk().iter().enumerate().take(10) {
            if at == 9 && byte > 1 {
                return Err(Malformed);
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.rest.advance(at + 1);
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    /// Skips a field that is neither a varint nor length-delimited. Groups nest; they are walked with a
    /// list of the open ones, so that no input can exhaust the stack.
    fn skip(&mut self, number: u32, wire_type: u8) -> Result<(), Malformed> {
        let mut open = Vec::new();
        let (mut number, mut wire_type) = (number, wire_type);
        loop {
            match wire_type {
                0 => drop(self.varint()?),
                1 => self.advance(8)?,
                2 => {
                    let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                    self.advance(length)?;
                }
                3 => open.push(number),
                4 if open.pop() == Some(number) => {}
                5 => self.advance(4)?,
                _ => return Err(Malformed),
            }
            if open.is_empty() {
                return Ok(());
            }
            (number, wire_type) = self.tag()?;
        }
    }

    fn advance(&mut self, length: usize) -> Result<(), Malformed> {
        if length > self.rest.remaining() {
            return Err(Malformed);
        }
        self.rest.advance(length);
        Ok(())
    }
}

pub(crate) fn range(into: &mut RangeRequest, message: Bytes) -> Result<(), Malformed> {
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(v)) => into.key = v,
            (2, Value::Bytes(v)) => into.range_end = v,
            (3, Value::Varint(v)) => into.limit = v as i64,
            (4, Value::Varint(v)) => into.revision = v as i64,
            (5, Value::Varint(v)) => into.sort_order = v as i32,
            (6, Value::Varint(v)) => into.sort_target = v as i32,
            (7, Value::Varint(v)) => into.serializable = v != 0,
            (8, Value::Varint(v)) => into.keys_only = v != 0,
            (9, Value::Varint(v)) => into.count_only = v != 0,
            (10, Value::Varint(v)) => into.min_mod_revision = v as i64,
            (11, Value::Varint(v)) => into.max_mod_revision = v as i64,
            (12, Value::Varint(v)) => into.min_create_revision = v as i64,
            (13, Value::Varint(v)) => into.max_create_revision = v as i64,
            _ => {}
        }
    }
    Ok(())
}

pub(crate) fn put(into: &mut PutRequest, message: Bytes) -> Result<(), Malformed> {
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(v)) => into.key = v,
            (2, Value::Bytes(v)) => into.value = v,
            (3, Value::Varint(v)) => into.lease = v as i64,
            (4, Value::Varint(v)) => into.prev_kv = v != 0,
            (5, Value::Varint(v)) => into.ignore_value = v != 0,
            (6, Value::Varint(v)) => into.ignore_lease = v != 0,
            _ => {}
        }
    }
    Ok(())
}

pub(crate) fn delete_range(into: &mut DeleteRangeRequest, message: Bytes) -> Result<(), Malformed> {
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(v)) => into.key = v,
            (2, Value::Bytes(v)) => into.range_end = v,
            (3, Value::Varint(v)) => into.prev_kv = v != 0,
            _ => {}
        }
    }
    Ok(())
}

/// Reads a transaction; `depth` is how many transactions enclose it.
pub(crate) fn txn(into: &mut TxnRequest, message: Bytes, depth: usize) -> Result<(), Malformed> {
    if depth > TXN_DEPTH_MAX {
        return Err(Malformed);
    }
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(v)) => into.compare.push(compare(v)?),
            (2, Value::Bytes(v)) => into.success.push(request_op(v, depth)?),
            (3, Value::Bytes(v)) => into.failure.push(request_op(v, depth)?),
            _ => {}
        }
    }
    Ok(())
}

fn compare(message: Bytes) -> Result<Compare, Malformed> {
    let mut into = Compare::default();
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Varint(v)) => into.result = v as i32,
            (2, Value::Varint(v)) => into.target = v as i32,
            (3, Value::Bytes(v)) => into.key = v,
            (4, Value::Varint(v)) => into.target_union = Some(TargetUnion::Version(v as i64)),
            (5, Value::Varint(v)) => {
                into.target_union = Some(TargetUnion::CreateRevision(v as i64))
            }
            (6, Value::Varint(v)) => into.target_union = Some(TargetUnion::ModRevision(v as i64)),
            (7, Value::Bytes(v)) => into.target_union = Some(TargetUnion::Value(v)),
            (8, Value::Varint(v)) => into.target_union = Some(TargetUnion::Lease(v as i64)),
            (64, Value::Bytes(v)) => into.range_end = v,
            _ => {}
        }
    }
    Ok(into)
}

/// The last operation named wins; one named twice in a row is merged, as in every protobuf union.
fn request_op(message: Bytes, depth: usize) -> Result<RequestOp, Malformed> {
    use request_op::Request;
    let mut into = RequestOp::default();
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(v)) => {
                let mut op = match into.request.take() {
                    Some(Request::RequestRange(op)) => op,
                    _ => RangeRequest::default(),
                };
                range(&mut op, v)?;
                into.request = Some(Request::RequestRange(op));
            }
            (2, Value::Bytes(v)) => {
                let mut op = match into.request.take() {
                    Some(Request::RequestPut(op)) => op,
                    _ => PutRequest::default(),
                };
                put(&mut op, v)?;
                into.request = Some(Request::RequestPut(op));
            }
            (3, Value::Bytes(v)) => {
                let mut op = match into.request.take() {
                    Some(Request::RequestDeleteRange(op)) => op,
                    _ => DeleteRangeRequest::default(),
                };
                delete_range(&mut op, v)?;
                into.request = Some(Request::RequestDeleteRange(op));
            }
            (4, Value::Bytes(v)) => {
                let mut op = match into.request.take() {
                    Some(Request::RequestTxn(op)) => op,
                    _ => TxnRequest::default(),
                };
                txn(&mut op, v, depth + 1)?;
                into.request = Some(Request::RequestTxn(op));
            }
            _ => {}
        }
    }
    Ok(into)
}

pub(crate) fn compaction(into: &mut CompactionRequest, message: Bytes) -> Result<(), Malformed> {
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Varint(v)) => into.revision = v as i64,
            (2, Value::Varint(v)) => into.physical = v != 0,
            _ => {}
        }
    }
    Ok(())
}

pub(crate) fn lease_grant(into: &mut LeaseGrantRequest, message: Bytes) -> Result<(), Malformed> {
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Varint(v)) => into.ttl = v as i64,
            (2, Value::Varint(v)) => into.id = v as i64,
            _ => {}
        }
    }
    Ok(())
}

pub(crate) fn lease_revoke(into: &mut LeaseRevokeRequest, message: Bytes) -> Result<(), Malformed> {
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        if let (1, Value::Varint(v)) = field {
            into.id = v as i64;
        }
    }
    Ok(())
}

pub(crate) fn lease_checkpoint(
    into: &mut LeaseCheckpointRequest,
    message: Bytes,
) -> Result<(), Malformed> {
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        if let (1, Value::Bytes(v)) = field {
            let mut checkpoint = LeaseCheckpoint::default();
            let mut fields = Fields::new(v);
            while let Some(field) = fields.next()? {
                match field {
                    (1, Value::Varint(v)) => checkpoint.id = v as i64,
                    (2, Value::Varint(v)) => checkpoint.remaining_ttl = v as i64,
                    _ => {}
                }
            }
            into.checkpoints.push(checkpoint);
        }
    }
    Ok(())
}

pub(crate) fn alarm(into: &mut AlarmRequest, message: Bytes) -> Result<(), Malformed> {
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Varint(v)) => into.action = v as i32,
            (2, Value::Varint(v)) => into.member_id = v,
            (3, Value::Varint(v)) => into.alarm = v as i32,
            _ => {}
        }
    }
    Ok(())
}

/// A transaction as a client sends it. Servers read it with this, because a client may nest deeper than
/// a generated decoder follows.
///
/// # Errors
/// The bytes are no `TxnRequest`, or it nests deeper than [`TXN_DEPTH_MAX`].
pub fn decode_txn(message: Bytes) -> Result<TxnRequest, Malformed> {
    let mut request = TxnRequest::default();
    txn(&mut request, message, 0)?;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::command::{Command, Request, RequestId};
    use crate::error::Error;

    fn nested(depth: usize) -> TxnRequest {
        let mut txn = TxnRequest::default();
        for _ in 0..depth {
            let op = RequestOp { request: Some(request_op::Request::RequestTxn(txn)) };
            txn = TxnRequest { success: vec![op], ..TxnRequest::default() };
        }
        txn
    }

    /// Generated decoders stop at a hundred messages. The deepest one that is read fits the stack of a test.
    #[test]
    fn transactions_nest_deep() {
        let deep = nested(TXN_DEPTH_MAX);
        let bytes = Bytes::from(deep.encode_to_vec());
        assert!(TxnRequest::decode(bytes.clone()).is_err());
        assert_eq!(decode_txn(bytes).unwrap(), deep);
        let command = Command {
            id: RequestId(1),
            caller: Default::default(),
            request: Request::txn(deep, TXN_DEPTH_MAX).unwrap(),
        };
        assert_eq!(Command::decode(&command.encode()), command);
    }

    #[test]
    fn transactions_that_nest_too_deep_are_refused() {
        let bytes = Bytes::from(nested(TXN_DEPTH_MAX + 1).encode_to_vec());
        assert_eq!(decode_txn(bytes.clone()), Err(Malformed));
        let mut entry = vec![0x08, 1, 0x32];
        prost::encoding::encode_varint(bytes.len() as u64, &mut entry);
        entry.extend_from_slice(&bytes);
        let command = Command::decode(&entry.into());
        assert_eq!(command.id, RequestId(1));
        assert_eq!(command.request, Request::Refused(Error::Undecodable));
    }

    /// Groups nest without end and cost no stack; an end without a beginning is refused.
    #[test]
    fn groups_are_skipped() {
        let deep = [vec![0x0b; 100_000], vec![0x0c; 100_000], vec![0x0a, 1, b'k']].concat();
        let mut request = DeleteRangeRequest::default();
        assert_eq!(delete_range(&mut request, deep.into()), Ok(()));
        assert_eq!(&request.key[..], b"k");
        for bad in [&[0x0c][..], &[0x0b, 0x14], &[0x0b], &[0x00, 0x00], &[0x0d, 1, 2, 3], &[0x0e]] {
            let bytes = Bytes::copy_from_slice(bad);
            assert_eq!(delete_range(&mut request, bytes), Err(Malformed), "{bad:x?}");
        }
    }

    /// A known field of another wire type is an unknown field, as in etcd's decoder.
    #[test]
    fn fields_of_another_wire_type_are_unknown() {
        let mut request = PutRequest::default();
        let bytes =
            Bytes::from_static(&[0x08, 5, 0x1a, 1, 9, 0x0a, 1, b'k', 0x39, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(put(&mut request, bytes), Ok(()));
        assert_eq!(request, PutRequest { key: "k".into(), ..PutRequest::default() });
    }

    /// Ten bytes at most, and no more than 64 bits.
    #[test]
    fn varints() {
        let mut request = LeaseRevokeRequest::default();
        let bytes = [&[0x08][..], &[0xff; 9], &[0x01]].concat();
        assert_eq!(lease_revoke(&mut request, bytes.into()), Ok(()));
        assert_eq!(request.id, -1);
        let bytes = [&[0x08][..], &[0xff; 9], &[0x02]].concat();
        assert_eq!(lease_revoke(&mut request, bytes.into()), Err(Malformed));
        let bytes = [&[0x08][..], &[0x80; 11], &[0x00]].concat();
        assert_eq!(lease_revoke(&mut request, bytes.into()), Err(Malformed));
    }
}
