//! HashKV: one number for the whole keyspace at a revision, equal to etcd's for the same history.
//!
//! It is a CRC-32C over the word `key` and then, for each record at or below the revision, ascending by revision:
//!
//! ```text
//!   main(8, big-endian) '_' sub(8, big-endian) [ 't' in a tombstone ]   KeyValue bytes (of a tombstone: key only)
//! ```
//!
//! Three rules decide which records count; C is the compaction mark, R the revision asked for.
//! - At or below C only what compaction keeps (see [`crate::compaction`]) is there at all; how far pruning has come
//!   makes no difference.
//! - Of that, only what is still visible at R: a key's newest revision at or below R, if it is a put. But if no
//!   key at all is visible at R, everything that is there counts. (An oddity of etcd's, kept because members are
//!   compared by this number.)
//! - A tombstone at C itself does not count.
//!
//! etcd also remembers the hashes that it computed while compacting, and answers with such a one when asked for
//! exactly that revision; after a restart it has forgotten them. We answer as a member after its restart.
//!
//! No value is read: the index knows the CRC of every record, and the CRC of two strings one after the other
//! follows from theirs and the length of the second. That the bytes on disk are those of the CRC is the scrubber's care.

use crate::index::Entry;
use crate::key_value::varint_len;
use crate::read::check_revision;
use crate::state::KEYS_PER_LOCK;
use crate::{KeyRange, ReadError, Reader};

/// The answer of [`crate::Reader::hash_kv`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C over the records, see the module.
    pub hash: u32,
    /// The compaction mark that it was computed at; -1 before any compaction.
    pub compact_revision: i64,
    /// The revision that was hashed.
    pub hash_revision: i64,
    /// The current revision when it began.
    pub current_revision: i64,
}

/// etcd hashes the name of its bucket first.
const BUCKET: &[u8] = b"key";

/// A record that may count.
struct Record {
    main: i64,
    sub: u32,
    is_tombstone: bool,
    /// At or below the mark, and no longer visible at the revision asked for.
    is_hidden: bool,
    crc: u32,
    len: u32,
}

impl Reader {
    /// etcd's hash of the keyspace at `revision`; zero is the current one, and at a negative one, as with etcd, there
    /// is nothing to hash. A long walk: only on a read thread.
    ///
    /// # Errors
    /// Compacted, future, revoked.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, ReadError> {
        // Nothing above a pin is pruned, so a pin at the mark keeps all that counts.
        let (pin, mark, revision, current) = {
            let state = self.shared.read();
            if revision < 0 {
                return Ok(HashKv {
                    hash: Crc::new(BUCKET).sum,
                    compact_revision: state.mark,
                    hash_revision: revision,
                    current_revision: state.published,
                });
            }
            let asked = check_revision(&state, revision)?;
            (self.shared.pins.pin(state.mark), state.mark, asked, state.published)
        };
        let mut records: Vec<Record> = Vec::new();
        let mut is_any_visible = false;
        let mut rest = Some(KeyRange::all());
        while let Some(range) = rest {
            let state = self.shared.read();
            if pin.is_revoked() {
                return Err(ReadError::Revoked);
            }
            pin.touch();
            let mut seen = 0;
            let mut last = None;
            state.tree.visit(&range, &mut |entry| {
                is_any_visible |= entry.living_at(revision).is_some();
                gather(entry, mark, revision, &mut records);
                seen += 1;
                last = Some(entry);
                seen < KEYS_PER_LOCK
            });
            rest = match last {
                Some(entry) if seen == KEYS_PER_LOCK => {
                    crate::compaction::rest_after(&range, &entry.key)
                }
                _ => None,
            };
        }
        drop(pin);

        records.sort_unstable_by_key(|record| (record.main, record.sub));
        let mut crc = Crc::new(BUCKET);
        for record in &records {
            if !(record.is_hidden && is_any_visible) {
                crc.record(record);
            }
        }
        Ok(HashKv {
            hash: crc.sum,
            compact_revision: mark,
            hash_revision: revision,
            current_revision: current,
        })
    }
}

fn gather(entry: &Entry, mark: i64, revision: i64, records: &mut Vec<Record>) {
    let kept = entry.living_at(mark);
    let visible = entry.at(revision);
    let above = entry.versions().filter(|v| v.main > mark && v.main <= revision);
    records.extend(kept.into_iter().chain(above).map(|version| Record {
        main: version.main,
        sub: version.sub,
        is_tombstone: version.is_tombstone(),
        is_hidden: version.main <= mark && visible != Some(version),
        crc: version.location.crc,
        len: version.location.len,
    }));
}

/// A CRC-32C that can be continued with bytes, or with the CRC of bytes.
struct Crc {
    sum: u32,
    /// For each length below its own: x^(8·length) modulo the polynomial; 0 if not computed yet.
    shifts: Vec<u32>,
}

impl Crc {
    fn new(bytes: &[u8]) -> Crc {
        Crc { sum: crc32c::crc32c(bytes), shifts: vec![0; 4096] }
    }

    fn record(&mut self, record: &Record) {
        let mut key = [0; 18];
        key[..8].copy_from_slice(&record.main.to_be_bytes());
        key[8] = b'_';
        key[9..17].copy_from_slice(&u64::from(record.sub).to_be_bytes());
        key[17] = b't';
        self.bytes(&key[..17 + usize::from(record.is_tombstone)]);
        // The store holds of a tombstone the bare key; its value is the KeyValue that has only this key.
        if record.is_tombstone && record.len > 0 {
            let mut field = Vec::with_capacity(1 + varint_len(u64::from(record.len)));
            field.push(0x0a);
            crate::key_value::put_varint(&mut field, u64::from(record.len));
            self.bytes(&field);
        }
        self.summed(record.crc, record.len);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.sum = crc32c::crc32c_append(self.sum, bytes);
    }

    /// Continues with `len` bytes of which only the CRC is known.
    fn summed(&mut self, crc: u32, len: u32) {
        let shift = match self.shifts.get(len as usize) {
            Some(0) => {
                let shift = power(len);
                self.shifts[len as usize] = shift;
                shift
            }
            Some(shift) => *shift,
            None => power(len),
        };
        self.sum = multiply(self.sum, shift) ^ crc;
    }
}

/// Castagnoli's polynomial without its highest term, lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// 1 in that order of bits.
const ONE: u32 = 1 << 31;

/// The product of two polynomials over GF(2), modulo the polynomial.
fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    for power in 0..32 {
        // Without a branch: the bits are as good as random.
        product ^= b & 0u32.wrapping_sub(a >> (31 - power) & 1);
        b = (b >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(b & 1));
    }
    product
}

/// x^(8·len) modulo the polynomial.
fn power(mut len: u32) -> u32 {
    let mut square = ONE >> 8;
    let mut power = ONE;
    while len > 0 {
        if len & 1 == 1 {
            power = multiply(power, square);
        }
        square = multiply(square, square);
        len >>= 1;
    }
    power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crc_continues_with_bytes_or_with_their_crc() {
        let text: Vec<u8> = (0..10_000u32).map(|n| ((n * n) >> 3) as u8).collect();
        for len in [0, 1, 2, 17, 300, 4095, 4096, 9_000] {
            let mut crc = Crc::new(BUCKET);
            crc.summed(crc32c::crc32c(&text[..len]), u32::try_from(len).unwrap());
            let mut expected = Crc::new(BUCKET);
            expected.bytes(&text[..len]);
            assert_eq!(crc.sum, expected.sum, "{len}");
        }
    }
}
