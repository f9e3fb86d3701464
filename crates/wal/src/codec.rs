//! raftpb and walpb in bytes: hand-written encoders, and decoders that take any bytes.
//!
//! The encoders write what raft 3.6 writes: fields in ascending order, scalars always (zeros included), bytes
//! only if there are any. The decoders take what any version writes (fields missing, repeated, packed, in any
//! order, unknown ones between them), refuse what no version writes, and never panic. What they allocate is
//! bounded by the length of the input: a length is compared with what is there before it is used.
//!
//! ```text
//!   field  = tag varint (number << 3 | wire type), then by wire type:
//!            0 varint     1 eight bytes     2 length varint, bytes     5 four bytes     3…4 a group of fields
//! ```

use std::fmt;

use bytes::{BufMut, Bytes};
use raft::{
    ConfState, Entry, EntryKind, HardState, Index, Message, MessageKind, Snapshot,
    SnapshotMetadata, Term,
};

use crate::{Metadata, SnapshotRecord};

/// Why bytes are not the message that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError(
    /// What is wrong.
    pub &'static str,
);

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for DecodeError {}

type Result<T> = std::result::Result<T, DecodeError>;

/// The length of an entry's encoding, in bytes.
pub fn entry_len(entry: &Entry) -> usize {
    entry_head_len(entry) + entry.data.len()
}

/// Appends the encoding of an entry.
pub fn encode_entry(entry: &Entry, out: &mut impl BufMut) {
    encode_entry_head(entry, out);
    out.put_slice(&entry.data);
}

/// Reads an entry; its data shares the buffer.
pub fn decode_entry(bytes: &Bytes) -> Result<Entry> {
    entry_from(bytes, Source(Some(bytes)))
}

/// Reads an entry; its data is copied.
pub fn decode_entry_copied(bytes: &[u8]) -> Result<Entry> {
    entry_from(bytes, Source(None))
}

/// All of an entry but its data, which come last and need not be copied to be encoded.
pub(crate) fn encode_entry_head(entry: &Entry, out: &mut impl BufMut) {
    put_uint(1, entry_kind_number(entry.kind), out);
    put_uint(2, entry.term.0, out);
    put_uint(3, entry.index.0, out);
    if !entry.data.is_empty() {
        put_varint(4 << 3 | 2, out);
        put_varint(entry.data.len() as u64, out);
    }
}

/// The longest head: three fields of at most eleven bytes, a tag, and a length.
pub(crate) const ENTRY_HEAD_MAX: usize = 3 * 11 + 1 + 10;

fn entry_head_len(entry: &Entry) -> usize {
    let data = match entry.data.len() {
        0 => 0,
        n => 1 + varint_len(n as u64),
    };
    uint_len(entry_kind_number(entry.kind))
        + uint_len(entry.term.0)
        + uint_len(entry.index.0)
        + data
}

fn entry_kind_number(kind: EntryKind) -> u64 {
    match kind {
        EntryKind::Normal => 0,
        EntryKind::ConfChange => 1,
        EntryKind::ConfChangeV2 => 2,
    }
}

fn entry_from(bytes: &[u8], source: Source<'_>) -> Result<Entry> {
    let mut entry = Entry::default();
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => {
                entry.kind = match value.uint()? {
                    0 => EntryKind::Normal,
                    1 => EntryKind::ConfChange,
                    2 => EntryKind::ConfChangeV2,
                    _ => return Err(DecodeError("an entry of unknown type")),
                }
            }
            2 => entry.term = Term(value.uint()?),
            3 => entry.index = Index(value.uint()?),
            4 => entry.data = source.take(value.bytes()?),
            _ => {}
        }
    }
    Ok(entry)
}

/// The longest encoding of a state, in bytes.
pub(crate) const HARD_STATE_MAX: usize = 33;

/// Appends the encoding of a state.
pub fn encode_hard_state(state: &HardState, out: &mut impl BufMut) {
    put_uint(1, state.term.0, out);
    put_uint(2, state.vote, out);
    put_uint(3, state.commit.0, out);
}

/// Reads a state. Unlike elsewhere, a field that we do not know is refused: a record's type is not covered by its
/// checksum, and an entry whose type has rotted into a state's must not pass for one.
pub fn decode_hard_state(bytes: &[u8]) -> Result<HardState> {
    let mut state = HardState::default();
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => state.term = Term(value.uint()?),
            2 => state.vote = value.uint()?,
            3 => state.commit = Index(value.uint()?),
            _ => return Err(DecodeError("a state with an unknown field")),
        }
    }
    Ok(state)
}

/// The length of a configuration's encoding, in bytes.
pub fn conf_state_len(state: &ConfState) -> usize {
    let ids = |ids: &[u64]| ids.iter().map(|&id| uint_len(id)).sum::<usize>();
    let nodes = ids(&state.voters)
        + ids(&state.learners)
        + ids(&state.voters_outgoing)
        + ids(&state.learners_next);
    nodes + 2
}

/// Appends the encoding of a configuration.
pub fn encode_conf_state(state: &ConfState, out: &mut impl BufMut) {
    let lists = [&state.voters, &state.learners, &state.voters_outgoing, &state.learners_next];
    for (number, list) in (1..).zip(lists) {
        for &id in list {
            put_uint(number, id, out);
        }
    }
    put_uint(5, u64::from(state.auto_leave), out);
}

/// Reads a configuration.
pub fn decode_conf_state(bytes: &[u8]) -> Result<ConfState> {
    let mut state = ConfState::default();
    merge_conf_state(&mut state, bytes)?;
    Ok(state)
}

fn merge_conf_state(state: &mut ConfState, bytes: &[u8]) -> Result<()> {
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => value.uints(&mut state.voters)?,
            2 => value.uints(&mut state.learners)?,
            3 => value.uints(&mut state.voters_outgoing)?,
            4 => value.uints(&mut state.learners_next)?,
            5 => state.auto_leave = value.uint()? != 0,
            _ => {}
        }
    }
    Ok(())
}

/// The length of a snapshot's encoding, in bytes.
pub fn snapshot_len(snapshot: &Snapshot) -> usize {
    let data = match snapshot.data.len() {
        0 => 0,
        n => nested_len(n),
    };
    data + nested_len(snapshot_metadata_len(&snapshot.metadata))
}

/// Appends the encoding of a snapshot.
pub fn encode_snapshot(snapshot: &Snapshot, out: &mut impl BufMut) {
    if !snapshot.data.is_empty() {
        put_varint(1 << 3 | 2, out);
        put_varint(snapshot.data.len() as u64, out);
        out.put_slice(&snapshot.data);
    }
    let metadata = &snapshot.metadata;
    put_varint(2 << 3 | 2, out);
    put_varint(snapshot_metadata_len(metadata) as u64, out);
    put_varint(1 << 3 | 2, out);
    put_varint(conf_state_len(&metadata.conf_state) as u64, out);
    encode_conf_state(&metadata.conf_state, out);
    put_uint(2, metadata.index.0, out);
    put_uint(3, metadata.term.0, out);
}

/// Reads a snapshot; its data shares the buffer.
pub fn decode_snapshot(bytes: &Bytes) -> Result<Snapshot> {
    let mut snapshot = Snapshot::default();
    merge_snapshot(&mut snapshot, bytes, Source(Some(bytes)))?;
    Ok(snapshot)
}

/// Appends all of a snapshot's file but the snapshot, which comes last.
pub(crate) fn encode_snapshot_file_head(crc: u32, len: usize, out: &mut impl BufMut) {
    put_uint(1, u64::from(crc), out);
    put_varint(2 << 3 | 2, out);
    put_varint(len as u64, out);
}

/// Reads a snapshot's file: the checksum, and the snapshot's bytes, which share the buffer.
pub(crate) fn decode_snapshot_file(bytes: &Bytes) -> Result<(u32, Bytes)> {
    let (mut crc, mut data) = (0, Bytes::new());
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => {
                crc = u32::try_from(value.uint()?)
                    .map_err(|_| DecodeError("a checksum of more than 32 bits"))?;
            }
            2 => data = Source(Some(bytes)).take(value.bytes()?),
            _ => {}
        }
    }
    Ok((crc, data))
}

fn snapshot_metadata_len(metadata: &SnapshotMetadata) -> usize {
    nested_len(conf_state_len(&metadata.conf_state))
        + uint_len(metadata.index.0)
        + uint_len(metadata.term.0)
}

fn merge_snapshot(snapshot: &mut Snapshot, bytes: &[u8], source: Source<'_>) -> Result<()> {
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => snapshot.data = source.take(value.bytes()?),
            2 => {
                let mut fields = Fields(value.bytes()?);
                while let Some((number, value)) = fields.next()? {
                    match number {
                        1 => merge_conf_state(&mut snapshot.metadata.conf_state, value.bytes()?)?,
                        2 => snapshot.metadata.index = Index(value.uint()?),
                        3 => snapshot.metadata.term = Term(value.uint()?),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The length of a message's encoding, in bytes.
pub fn message_len(message: &Message) -> usize {
    let scalars = [
        message.kind as u64,
        message.to,
        message.from,
        message.term.0,
        message.log_term.0,
        message.index.0,
        message.commit.0,
        u64::from(message.reject),
        message.reject_hint.0,
        message.vote,
    ];
    let entries: usize = message.entries.iter().map(|entry| nested_len(entry_len(entry))).sum();
    let snapshot = message.snapshot.as_ref().map_or(0, |s| nested_len(snapshot_len(s)));
    let context = match message.context.len() {
        0 => 0,
        n => nested_len(n),
    };
    scalars.into_iter().map(uint_len).sum::<usize>() + entries + snapshot + context
}

/// Appends the encoding of a message. `responses`, which never leave a member, are left out.
pub fn encode_message(message: &Message, out: &mut impl BufMut) {
    put_uint(1, message.kind as u64, out);
    put_uint(2, message.to, out);
    put_uint(3, message.from, out);
    put_uint(4, message.term.0, out);
    put_uint(5, message.log_term.0, out);
    put_uint(6, message.index.0, out);
    for entry in &message.entries {
        put_varint(7 << 3 | 2, out);
        put_varint(entry_len(entry) as u64, out);
        encode_entry(entry, out);
    }
    put_uint(8, message.commit.0, out);
    if let Some(snapshot) = &message.snapshot {
        put_varint(9 << 3 | 2, out);
        put_varint(snapshot_len(snapshot) as u64, out);
        encode_snapshot(snapshot, out);
    }
    put_uint(10, u64::from(message.reject), out);
    put_uint(11, message.reject_hint.0, out);
    if !message.context.is_empty() {
        put_varint(12 << 3 | 2, out);
        put_varint(message.context.len() as u64, out);
        out.put_slice(&message.context);
    }
    put_uint(13, message.vote, out);
}

/// Reads a message; its data shares the buffer. A snapshot of index 0 counts as none (raft 3.5 writes one into
/// every message); `responses` are skipped.
pub fn decode_message(bytes: &Bytes) -> Result<Message> {
    let source = Source(Some(bytes));
    let mut message = Message::default();
    let mut snapshot = Snapshot::default();
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => message.kind = message_kind(value.uint()?)?,
            2 => message.to = value.uint()?,
            3 => message.from = value.uint()?,
            4 => message.term = Term(value.uint()?),
            5 => message.log_term = Term(value.uint()?),
            6 => message.index = Index(value.uint()?),
            7 => message.entries.push(entry_from(value.bytes()?, source)?),
            8 => message.commit = Index(value.uint()?),
            9 => merge_snapshot(&mut snapshot, value.bytes()?, source)?,
            10 => message.reject = value.uint()? != 0,
            11 => message.reject_hint = Index(value.uint()?),
            12 => message.context = source.take(value.bytes()?),
            13 => message.vote = value.uint()?,
            _ => {}
        }
    }
    if snapshot.metadata.index > Index(0) {
        message.snapshot = Some(Box::new(snapshot));
    }
    Ok(message)
}

fn message_kind(number: u64) -> Result<MessageKind> {
    use MessageKind::*;
    const KINDS: [MessageKind; 24] = [
        Hup,
        Beat,
        Prop,
        App,
        AppResp,
        Vote,
        VoteResp,
        Snap,
        Heartbeat,
        HeartbeatResp,
        Unreachable,
        SnapStatus,
        CheckQuorum,
        TransferLeader,
        TimeoutNow,
        ReadIndex,
        ReadIndexResp,
        PreVote,
        PreVoteResp,
        StorageAppend,
        StorageAppendResp,
        StorageApply,
        StorageApplyResp,
        ForgetLeader,
    ];
    let kind = usize::try_from(number).ok().and_then(|number| KINDS.get(number));
    kind.copied().ok_or(DecodeError("a message of unknown type"))
}

/// Appends the encoding of a snapshot record.
pub fn encode_snapshot_record(record: &SnapshotRecord, out: &mut impl BufMut) {
    put_uint(1, record.index.0, out);
    put_uint(2, record.term.0, out);
    if let Some(conf_state) = &record.conf_state {
        put_varint(3 << 3 | 2, out);
        put_varint(conf_state_len(conf_state) as u64, out);
        encode_conf_state(conf_state, out);
    }
}

/// Reads a snapshot record.
pub fn decode_snapshot_record(bytes: &[u8]) -> Result<SnapshotRecord> {
    let mut record = SnapshotRecord::default();
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => record.index = Index(value.uint()?),
            2 => record.term = Term(value.uint()?),
            3 => {
                let state = record.conf_state.get_or_insert_default();
                merge_conf_state(state, value.bytes()?)?;
            }
            _ => {}
        }
    }
    Ok(record)
}

/// Appends the encoding of a log's metadata.
pub fn encode_metadata(metadata: &Metadata, out: &mut impl BufMut) {
    put_uint(1, metadata.node_id, out);
    put_uint(2, metadata.cluster_id, out);
}

/// Reads a log's metadata.
pub fn decode_metadata(bytes: &[u8]) -> Result<Metadata> {
    let mut metadata = Metadata { node_id: 0, cluster_id: 0 };
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => metadata.node_id = value.uint()?,
            2 => metadata.cluster_id = value.uint()?,
            _ => {}
        }
    }
    Ok(metadata)
}

/// A record as it stands in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawRecord<'a> {
    pub(crate) kind: u64,
    pub(crate) crc: u32,
    pub(crate) data: &'a [u8],
}

/// The length of a record with `data` bytes of data (`None`: without the field), and of all before the data.
pub(crate) fn record_len(kind: u64, crc: u32, data: Option<usize>) -> usize {
    let scalars = uint_len(kind) + uint_len(u64::from(crc));
    scalars + data.map_or(0, nested_len)
}

/// Appends a record up to its data.
pub(crate) fn encode_record_head(kind: u64, crc: u32, data: Option<usize>, out: &mut impl BufMut) {
    put_uint(1, kind, out);
    put_uint(2, u64::from(crc), out);
    if let Some(len) = data {
        put_varint(3 << 3 | 2, out);
        put_varint(len as u64, out);
    }
}

/// Reads a record.
pub(crate) fn decode_record(bytes: &[u8]) -> Result<RawRecord<'_>> {
    let mut record = RawRecord { kind: 0, crc: 0, data: &[] };
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => record.kind = value.uint()?,
            2 => {
                record.crc = u32::try_from(value.uint()?)
                    .map_err(|_| DecodeError("a checksum of more than 32 bits"))?;
            }
            3 => record.data = value.bytes()?,
            _ => {}
        }
    }
    Ok(record)
}

/// Reads a record whose length is not known, from bytes that go on behind it: as writers write it, with its data last. `None` if
/// they do not begin with one.
pub(crate) fn decode_record_alone(bytes: &[u8]) -> Option<RawRecord<'_>> {
    let mut fields = Fields(bytes);
    let mut next = |wanted| match fields.next() {
        Ok(Some((number, value))) if number == wanted => Some(value),
        _ => None,
    };
    let kind = next(1)?.uint().ok()?;
    let crc = u32::try_from(next(2)?.uint().ok()?).ok()?;
    let data = next(3).and_then(|value| value.bytes().ok()).unwrap_or(&[]);
    Some(RawRecord { kind, crc, data })
}

/// Where the bytes being read come from: a buffer that may be shared, or one that must be copied from.
#[derive(Clone, Copy)]
struct Source<'a>(Option<&'a Bytes>);

impl Source<'_> {
    fn take(self, part: &[u8]) -> Bytes {
        match self.0 {
            Some(whole) => whole.slice_ref(part),
            None => Bytes::copy_from_slice(part),
        }
    }
}

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number.
    Uint(u64),
    /// Bytes, a text or a message.
    Bytes(&'a [u8]),
    /// A fixed number or a group: nothing we know is written so.
    Other,
}

impl<'a> Value<'a> {
    fn uint(self) -> Result<u64> {
        match self {
            Value::Uint(value) => Ok(value),
            Value::Bytes(_) | Value::Other => Err(DecodeError("a number of another wire type")),
        }
    }

    fn bytes(self) -> Result<&'a [u8]> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Uint(_) | Value::Other => Err(DecodeError("bytes of another wire type")),
        }
    }

    /// One number of a repeated field, or all of them packed.
    fn uints(self, to: &mut Vec<u64>) -> Result<()> {
        match self {
            Value::Uint(value) => to.push(value),
            Value::Bytes(bytes) => {
                let mut rest = Fields(bytes);
                while !rest.0.is_empty() {
                    to.push(rest.varint()?);
                }
            }
            Value::Other => return Err(DecodeError("numbers of another wire type")),
        }
        Ok(())
    }
}

/// The fields of a message, one after the other; holds what is not read yet.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// The next field's number and value; `None` at the end.
    #[allow(
        clippy::should_implement_trait,
        reason = "a message may break off, and then nothing follows"
    )]
    pub fn next(&mut self) -> Result<Option<(u64, Value<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let (number, wire_type) = self.tag()?;
        let value = match wire_type {
            0 => Value::Uint(self.varint()?),
            2 => Value::Bytes(self.bytes()?),
            3 => {
                self.skip_group()?;
                Value::Other
            }
            _ => {
                self.skip(wire_type)?;
                Value::Other
            }
        };
        Ok(Some((number, value)))
    }

    fn tag(&mut self) -> Result<(u64, u64)> {
        let tag = self.varint()?;
        if tag >> 3 == 0 || tag > u64::from(u32::MAX) {
            return Err(DecodeError("a field of an impossible number"));
        }
        Ok((tag >> 3, tag & 7))
    }

    /// Skips to the end of a group whose beginning was read. Groups within are counted, not entered, so that no
    /// input can exhaust the stack.
    fn skip_group(&mut self) -> Result<()> {
        let mut depth = 1u64;
        while depth > 0 {
            match self.tag()?.1 {
                3 => depth += 1,
                4 => depth -= 1,
                wire_type => self.skip(wire_type)?,
            }
        }
        Ok(())
    }

    fn skip(&mut self, wire_type: u64) -> Result<()> {
        match wire_type {
            0 => self.varint().map(|_| ()),
            1 => self.split(8).map(|_| ()),
            2 => self.bytes().map(|_| ()),
            5 => self.split(4).map(|_| ()),
            _ => Err(DecodeError("an unknown wire type")),
        }
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.varint()?;
        self.split(len)
    }

    fn split(&mut self, len: u64) -> Result<&'a [u8]> {
        if len > self.0.len() as u64 {
            return Err(DecodeError("a field that is longer than the message"));
        }
        let (part, rest) = self.0.split_at(len as usize);
        self.0 = rest;
        Ok(part)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for (i, &byte) in self.0.iter().take(10).enumerate() {
            if i == 9 && byte > 1 {
                return Err(DecodeError("a number of more than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.0 = &self.0[i + 1..];
                return Ok(value);
            }
        }
        Err(DecodeError("a number without an end"))
    }
}

fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn put_varint(mut value: u64, out: &mut impl BufMut) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// The length of a number field whose number is at most 15.
fn uint_len(value: u64) -> usize {
    1 + varint_len(value)
}

/// The length of a field of `len` bytes whose number is at most 15.
fn nested_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

fn put_uint(number: u64, value: u64, out: &mut impl BufMut) {
    put_varint(number << 3, out);
    put_varint(value, out);
}
