//! `mvccpb.KeyValue`, encoded by hand: canonical protobuf, the same bytes that etcd writes.
//!
//! ```text
//!   0a len key   10 create_revision   18 mod_revision   20 version   2a len value   30 lease
//! ```
//!
//! Fields in this order, those that are zero or empty left out, numbers as varints (a negative one takes ten
//! bytes). The key comes first, which is how it is found again without decoding the rest.

use bytes::Bytes;

/// A `KeyValue`, taken apart. Absent fields are zero or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The main revision at which the key's present life began.
    pub create_revision: i64,
    /// The main revision of this change.
    pub mod_revision: i64,
    /// Changes in this life, from 1.
    pub version: i64,
    /// The value.
    pub value: Bytes,
    /// The lease, 0 for none.
    pub lease: i64,
}

/// The fields of a `KeyValue`, borrowed, for [`encode`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fields<'a> {
    pub key: &'a [u8],
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    pub value: &'a [u8],
    pub lease: i64,
}

/// Encodes with one allocation of the exact size.
pub(crate) fn encode(fields: Fields<'_>) -> Bytes {
    let bytes_field =
        |b: &[u8]| if b.is_empty() { 0 } else { 1 + varint_len(b.len() as u64) + b.len() };
    let number_field = |n: i64| if n == 0 { 0 } else { 1 + varint_len(n.cast_unsigned()) };
    let len = bytes_field(fields.key)
        + number_field(fields.create_revision)
        + number_field(fields.mod_revision)
        + number_field(fields.version)
        + bytes_field(fields.value)
        + number_field(fields.lease);
    let mut out = Vec::with_capacity(len);
    put_bytes(&mut out, 0x0a, fields.key);
    put_number(&mut out, 0x10, fields.create_revision);
    put_number(&mut out, 0x18, fields.mod_revision);
    put_number(&mut out, 0x20, fields.version);
    put_bytes(&mut out, 0x2a, fields.value);
    put_number(&mut out, 0x30, fields.lease);
    debug_assert_eq!(out.len(), len);
    Bytes::from(out)
}

/// Where the key begins within the bytes that [`encode`] made of it.
pub(crate) fn key_offset(key_len: usize) -> usize {
    if key_len == 0 { 0 } else { 1 + varint_len(key_len as u64) }
}

/// The key within canonical bytes, without copying it. Empty if there is none.
pub fn key(bytes: &Bytes) -> Bytes {
    let mut rest = &bytes[..];
    if rest.first() != Some(&0x0a) {
        return Bytes::new();
    }
    rest = &rest[1..];
    match take_varint(&mut rest).and_then(|len| rest.get(..usize::try_from(len).ok()?)) {
        Some(key) => bytes.slice_ref(key),
        None => Bytes::new(),
    }
}

/// Takes encoded bytes apart. Fields may come in any order, unknown ones are skipped; `None` if it is not a
/// message. Key and value are slices of `bytes`.
pub fn decode(bytes: &Bytes) -> Option<KeyValue> {
    let mut out = KeyValue::default();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let tag = take_varint(&mut rest)?;
        match (tag >> 3, tag & 7) {
            (field, 0) => {
                let number = take_varint(&mut rest)?.cast_signed();
                match field {
                    2 => out.create_revision = number,
                    3 => out.mod_revision = number,
                    4 => out.version = number,
                    6 => out.lease = number,
                    _ => {}
                }
            }
            (field, 2) => {
                let len = usize::try_from(take_varint(&mut rest)?).ok()?;
                let content = rest.split_off(..len)?;
                match field {
                    1 => out.key = bytes.slice_ref(content),
                    5 => out.value = bytes.slice_ref(content),
                    _ => {}
                }
            }
            (_, 1) => {
                rest.split_off(..8)?;
            }
            (_, 5) => {
                rest.split_off(..4)?;
            }
            _ => return None,
        }
    }
    Some(out)
}

/// Bytes of a varint.
pub(crate) fn varint_len(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(tag);
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

fn put_number(out: &mut Vec<u8>, tag: u8, number: i64) {
    if number != 0 {
        out.push(tag);
        put_varint(out, number.cast_unsigned());
    }
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_canonical_and_read_back() {
        let bytes = encode(Fields {
            key: b"foo",
            create_revision: 2,
            mod_revision: 300,
            version: 1,
            value: b"bar",
            lease: 0,
        });
        assert_eq!(&bytes[..], b"\x0a\x03foo\x10\x02\x18\xac\x02\x20\x01\x2a\x03bar");
        assert_eq!(key(&bytes), "foo");
        assert_eq!(key_offset(3), 2);
        let back = decode(&bytes).unwrap();
        assert_eq!((back.mod_revision, &back.value[..]), (300, &b"bar"[..]));

        let lone = encode(Fields { key: b"k", lease: -1, ..Fields::default() });
        assert_eq!(lone.len(), 3 + 11);
        assert_eq!(decode(&lone).unwrap().lease, -1);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bad in [
            &b"\x0a\x05foo"[..],
            b"\x0a",
            b"\x10\xff",
            b"\x0f",
            b"\x10\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
        ] {
            assert_eq!(decode(&Bytes::from_static(bad)), None);
        }
        assert_eq!(key(&Bytes::from_static(b"\x0a\x05foo")), "");
    }
}
