//! Records: what one committed change leaves on disk, and the bytes it becomes.
//!
//! A record is a *meta*, which says what it is, followed by a *payload*, which is what readers ask for. The
//! same meta stands in a segment's footer, where the place and the key take the payload's stead; that is why
//! an index is rebuilt from footers without reading values.
//!
//! ```text
//!   in a frame     ┌ meta ┬ payload ┐        payload of a Put        the KeyValue bytes (the key lies within)
//!                                            payload of a Tombstone  the key
//!   in a footer    ┌ meta ┬ place ┬ key ┐    payload of a Row        key ‖ value
//!                                            payload of a RowDelete  the key
//!   meta
//!     Put         01  main sub create version lease key_offset key_len len  crc(4)
//!     Tombstone   02  main sub len                                           crc(4)
//!     Row         03  table(1) index(8) seq key_len len                      crc(4)
//!     RowDelete   04  table(1) index(8) seq len                              crc(4)
//!     Compact     05  revision                                 (no payload, not in footers)
//! ```
//!
//! Numbers without a width are unsigned LEB128 varints of 1 to 10 bytes; a negative number (a lease id may be
//! one) is written as its 64 bits. Fixed widths are little-endian. `crc` is CRC-32C of the payload.

use bytes::Bytes;

/// A revision: `main` counts the changing transactions of the whole keyspace from 1 upwards, `sub` the changes
/// within one transaction from 0 upwards. Ordered by `main`, then `sub`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// Which transaction. Never negative.
    pub main: i64,
    /// Which change within it. Never negative.
    pub sub: i64,
}

/// The first byte of a record's payload. Fixed when the record is handed to the builder; only reclaim moves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Number of the segment. Even: grown by frames; odd: written whole, by reclaim or by an import.
    pub segment: u32,
    /// Bytes from the beginning of the segment's file.
    pub offset: u32,
}

/// All that is needed to read a payload back and to know that it is the right one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Location {
    /// Where the payload begins.
    pub place: Place,
    /// Its length in bytes.
    pub len: u32,
    /// CRC-32C of it.
    pub crc: u32,
}

/// A put, as the builder takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutRecord {
    /// The revision of this change. Revisions only rise from record to record.
    pub revision: Revision,
    /// The main revision at which the key's present life began.
    pub create: i64,
    /// Changes in that life, from 1.
    pub version: i64,
    /// The lease it is attached to, 0 for none. Any 64 bits.
    pub lease: i64,
    /// Where the key begins within `key_value`.
    pub key_offset: u32,
    /// Length of the key in bytes.
    pub key_len: u32,
    /// The encoded `KeyValue`, held and written as it is. The store never looks into it but for the key.
    pub key_value: Bytes,
}

impl PutRecord {
    /// The key, within the `KeyValue` bytes.
    ///
    /// # Panics
    /// If `key_offset` and `key_len` do not lie within `key_value`.
    pub fn key(&self) -> &[u8] {
        &self.key_value[self.key_offset as usize..][..self.key_len as usize]
    }
}

/// A record of the keyspace found at start. [`crate::open`] hands them over in ascending order of revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered<'a> {
    /// A put.
    Put {
        /// The key.
        key: &'a [u8],
        /// The revision of this change.
        revision: Revision,
        /// The main revision at which the key's life began.
        create: i64,
        /// Changes in that life, from 1.
        version: i64,
        /// The lease, 0 for none.
        lease: i64,
        /// The `KeyValue` bytes.
        location: Location,
    },
    /// A deletion.
    Tombstone {
        /// The key.
        key: &'a [u8],
        /// The revision of this change.
        revision: Revision,
        /// The key on disk; give it to `Builder::dead` when the tombstone is needed no more.
        location: Location,
    },
}

/// A row of a small table (leases, auth, members, alarms, ConfState …).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which table. The numbers are the caller's.
    pub table: u8,
    /// The key within the table.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
}

/// When a row was written: the entry, and the how-manyeth row record of that entry. The higher one wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    pub index: u64,
    pub seq: u32,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Put { revision: Revision, create: i64, version: i64, lease: i64, key_offset: u32, key_len: u32 },
    Tombstone { revision: Revision },
    Row { table: u8, stamp: Stamp, key_len: u32 },
    RowDelete { table: u8, stamp: Stamp },
    Compact { revision: i64 },
}

/// A record without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub kind: Kind,
    /// Length of the payload; 0 for Compact.
    pub len: u32,
    /// CRC-32C of the payload; 0 for Compact.
    pub crc: u32,
}

const PUT: u8 = 1;
const TOMBSTONE: u8 = 2;
const ROW: u8 = 3;
const ROW_DELETE: u8 = 4;
const COMPACT: u8 = 5;

impl Meta {
    /// Bytes that [`Meta::encode`] writes.
    pub fn encoded_len(&self) -> usize {
        let len = varint_len(u64::from(self.len));
        let revision =
            |r: Revision| varint_len(r.main.cast_unsigned()) + varint_len(r.sub.cast_unsigned());
        match self.kind {
            Kind::Put { revision: r, create, version, lease, key_offset, key_len } => {
                1 + revision(r)
                    + varint_len(create.cast_unsigned())
                    + varint_len(version.cast_unsigned())
                    + varint_len(lease.cast_unsigned())
                    + varint_len(u64::from(key_offset))
                    + varint_len(u64::from(key_len))
                    + len
                    + 4
            }
            Kind::Tombstone { revision: r } => 1 + revision(r) + len + 4,
            Kind::Row { stamp, key_len, .. } => {
                1 + 1
                    + 8
                    + varint_len(u64::from(stamp.seq))
                    + varint_len(u64::from(key_len))
                    + len
                    + 4
            }
            Kind::RowDelete { stamp, .. } => 1 + 1 + 8 + varint_len(u64::from(stamp.seq)) + len + 4,
            Kind::Compact { revision } => 1 + varint_len(revision.cast_unsigned()),
        }
    }

    /// Writes the meta at the end of `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self.kind {
            Kind::Put { revision, create, version, lease, key_offset, key_len } => {
                out.push(PUT);
                for number in [revision.main, revision.sub, create, version, lease] {
                    put_varint(out, number.cast_unsigned());
                }
                put_varint(out, u64::from(key_offset));
                put_varint(out, u64::from(key_len));
            }
            Kind::Tombstone { revision } => {
                out.push(TOMBSTONE);
                put_varint(out, revision.main.cast_unsigned());
                put_varint(out, revision.sub.cast_unsigned());
            }
            Kind::Row { table, stamp, key_len } => {
                out.extend_from_slice(&[ROW, table]);
                out.extend_from_slice(&stamp.index.to_le_bytes());
                put_varint(out, u64::from(stamp.seq));
                put_varint(out, u64::from(key_len));
            }
            Kind::RowDelete { table, stamp } => {
                out.extend_from_slice(&[ROW_DELETE, table]);
                out.extend_from_slice(&stamp.index.to_le_bytes());
                put_varint(out, u64::from(stamp.seq));
            }
            Kind::Compact { revision } => {
                out.push(COMPACT);
                put_varint(out, revision.cast_unsigned());
                return;
            }
        }
        put_varint(out, u64::from(self.len));
        out.extend_from_slice(&self.crc.to_le_bytes());
    }

    /// Reads a meta from the front of `input` and moves it on. `None`: these bytes are not a meta.
    pub fn decode(input: &mut &[u8]) -> Option<Meta> {
        let kind = match take_u8(input)? {
            PUT => Kind::Put {
                revision: take_revision(input)?,
                create: take_varint(input)?.cast_signed(),
                version: take_varint(input)?.cast_signed(),
                lease: take_varint(input)?.cast_signed(),
                key_offset: take_varint_u32(input)?,
                key_len: take_varint_u32(input)?,
            },
            TOMBSTONE => Kind::Tombstone { revision: take_revision(input)? },
            ROW => Kind::Row {
                table: take_u8(input)?,
                stamp: Stamp { index: take_u64(input)?, seq: take_varint_u32(input)? },
                key_len: take_varint_u32(input)?,
            },
            ROW_DELETE => Kind::RowDelete {
                table: take_u8(input)?,
                stamp: Stamp { index: take_u64(input)?, seq: take_varint_u32(input)? },
            },
            COMPACT => {
                let revision = take_varint(input)?.cast_signed();
                return (revision >= 0).then_some(Meta {
                    kind: Kind::Compact { revision },
                    len: 0,
                    crc: 0,
                });
            }
            _ => return None,
        };
        let meta = Meta { kind, len: take_varint_u32(input)?, crc: take_u32(input)? };
        let (start, len) = meta.key_range();
        (start.checked_add(len)? <= meta.len).then_some(meta)
    }

    /// Where the key lies within the payload: offset and length.
    pub fn key_range(&self) -> (u32, u32) {
        match self.kind {
            Kind::Put { key_offset, key_len, .. } => (key_offset, key_len),
            Kind::Row { key_len, .. } => (0, key_len),
            Kind::Tombstone { .. } | Kind::RowDelete { .. } => (0, self.len),
            Kind::Compact { .. } => (0, 0),
        }
    }

    /// The revision of a record of the keyspace.
    pub fn revision(&self) -> Option<Revision> {
        match self.kind {
            Kind::Put { revision, .. } | Kind::Tombstone { revision } => Some(revision),
            Kind::Row { .. } | Kind::RowDelete { .. } | Kind::Compact { .. } => None,
        }
    }

    /// The payload's location, if it begins at `place`.
    pub fn location(&self, place: Place) -> Location {
        Location { place, len: self.len, crc: self.crc }
    }

    /// What mvcc is told of this record at start; `None` for rows.
    pub fn recovered<'a>(&self, key: &'a [u8], place: Place) -> Option<Recovered<'a>> {
        let location = self.location(place);
        match self.kind {
            Kind::Put { revision, create, version, lease, .. } => {
                Some(Recovered::Put { key, revision, create, version, lease, location })
            }
            Kind::Tombstone { revision } => Some(Recovered::Tombstone { key, revision, location }),
            Kind::Row { .. } | Kind::RowDelete { .. } | Kind::Compact { .. } => None,
        }
    }
}

/// Splits the records of a frame's body: each meta with its payload and the payload's offset within `body`.
/// `None` in place of a record: the bytes from there on are none, and nothing follows.
pub(crate) fn records(body: &[u8]) -> impl Iterator<Item = Option<(Meta, u32, &[u8])>> {
    let mut rest = body;
    let mut broken = false;
    std::iter::from_fn(move || {
        if broken || rest.is_empty() {
            return None;
        }
        let record = Meta::decode(&mut rest).and_then(|meta| {
            let offset = u32::try_from(body.len() - rest.len()).ok()?;
            let payload = rest.split_off(..meta.len as usize)?;
            Some((meta, offset, payload))
        });
        broken = record.is_none();
        Some(record)
    })
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

pub(crate) fn take_varint(input: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take_u8(input)?;
        if shift == 63 && byte > 1 {
            return None;
        }
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

pub(crate) fn take_varint_u32(input: &mut &[u8]) -> Option<u32> {
    u32::try_from(take_varint(input)?).ok()
}

pub(crate) fn take_u8(input: &mut &[u8]) -> Option<u8> {
    input.split_off_first().copied()
}

pub(crate) fn take_u32(input: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(*input.split_off(..4)?.first_chunk()?))
}

pub(crate) fn take_u64(input: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*input.split_off(..8)?.first_chunk()?))
}

fn take_revision(input: &mut &[u8]) -> Option<Revision> {
    let main = take_varint(input)?.cast_signed();
    let sub = take_varint(input)?.cast_signed();
    (main >= 0 && sub >= 0).then_some(Revision { main, sub })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Meta> {
        let revision = Revision { main: 300, sub: 2 };
        let stamp = Stamp { index: 9, seq: 200 };
        let put = |lease| Kind::Put {
            revision,
            create: 1,
            version: i64::MAX,
            lease,
            key_offset: 2,
            key_len: 3,
        };
        [
            put(0),
            put(-1),
            put(i64::MIN),
            Kind::Tombstone { revision },
            Kind::Row { table: 7, stamp, key_len: 5 },
            Kind::RowDelete { table: 7, stamp },
        ]
        .into_iter()
        .map(|kind| Meta { kind, len: 130, crc: 0xdead_beef })
        .chain([Meta { kind: Kind::Compact { revision: 127 }, len: 0, crc: 0 }])
        .collect()
    }

    #[test]
    fn a_meta_is_read_back_as_written_and_its_length_is_known_beforehand() {
        for meta in samples() {
            let mut bytes = Vec::new();
            meta.encode(&mut bytes);
            assert_eq!(bytes.len(), meta.encoded_len(), "{meta:?}");
            let mut rest = bytes.as_slice();
            assert_eq!(Meta::decode(&mut rest), Some(meta));
            assert!(rest.is_empty());
            for cut in 0..bytes.len() {
                assert_eq!(Meta::decode(&mut &bytes[..cut]), None, "{meta:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn varints_of_every_width() {
        for shift in 0..64 {
            for number in [(1u64 << shift) - 1, 1 << shift, (1 << shift) + 1] {
                let mut bytes = Vec::new();
                put_varint(&mut bytes, number);
                assert_eq!(bytes.len(), varint_len(number));
                assert_eq!(take_varint(&mut bytes.as_slice()), Some(number));
            }
        }
        assert_eq!(take_varint(&mut [0xff; 11].as_slice()), None);
        assert_eq!(
            take_varint(&mut [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2].as_slice()),
            None
        );
    }

    #[test]
    fn no_bytes_make_the_decoder_panic() {
        let mut state = 1u64;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..24)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // Small numbers are the interesting ones: kinds and lengths that almost fit.
                    ((state >> 33) as u8) >> ((state >> 60) as u8 & 7)
                })
                .collect();
            for (meta, offset, payload) in records(&bytes).flatten() {
                assert!(offset as usize + payload.len() <= bytes.len());
                assert_eq!(payload.len(), meta.len as usize);
            }
        }
    }
}
