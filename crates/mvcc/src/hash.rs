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
//! The hash of a compaction is that of its revision C under the mark P before it, as etcd computes it while it clears
//! away what lies between. It is remembered, and is the answer from then on when exactly C is asked for, even below
//! the mark; the newest ten are, until the process ends. What etcd keeps at C includes tombstones at C here, and they
//! count as visible in the second rule.
//!
//! ```text
//!   apply: Keyspace::compact(C) ──▶ DueHash, with a pin at P ──▶ read thread: Reader::remember ──▶ the pin is dropped
//!          the mark is C at once;   pruning goes no further than P until then
//! ```
//!
//! No value is read: the index knows the CRC of every record, and the CRC of two strings one after the other
//! follows from theirs and the length of the second. That the bytes on disk are those of the CRC is the scrubber's care.

use std::sync::{Mutex, MutexGuard, PoisonError};

use mutant::Mutant;

use crate::index::{Entry, Version};
use crate::key_value::varint_len;
use crate::read::check_revision;
use crate::state::KEYS_PER_LOCK;
use crate::{KeyRange, Pin, ReadError, Reader};

/// Hashes of compactions that are remembered; as many as etcd does.
pub const HASHES_MAX: usize = 10;

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

/// The hash of a compaction that is still to be computed, by [`Reader::remember`] on a read thread. What counts in it
/// is not pruned before; if this is dropped instead, the hash is not remembered, and nothing else comes of it.
#[derive(Debug)]
pub struct DueHash {
    /// At the mark before the compaction.
    pub(crate) pin: Pin,
    /// The mark since.
    pub(crate) revision: i64,
}

impl DueHash {
    /// The revision that was compacted at.
    pub fn revision(&self) -> i64 {
        self.revision
    }
}

/// The hashes of the newest compactions, ascending by revision. The mutex guards a list of ten and spans nothing that
/// waits.
#[derive(Debug, Default)]
pub(crate) struct Remembered(Mutex<Vec<HashKv>>);

impl Remembered {
    fn at(&self, revision: i64) -> Option<HashKv> {
        self.lock().iter().find(|known| known.hash_revision == revision).copied()
    }

    fn insert(&self, hash: HashKv) {
        let mut newest = self.lock();
        newest.push(hash);
        newest.sort_by_key(|known| known.hash_revision);
        let beyond = newest.len().saturating_sub(HASHES_MAX);
        newest.drain(..beyond);
    }

    /// A list is whole also after a panic elsewhere.
    fn lock(&self) -> MutexGuard<'_, Vec<HashKv>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    /// etcd's hash of the keyspace at `revision`: the one that is remembered of a compaction at exactly that revision
    /// (also at zero, as with etcd), else [`Reader::hash_now`]. A long walk: only on a read thread.
    ///
    /// # Errors
    /// Compacted, future, revoked.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, ReadError> {
        match self.shared.hashes.at(revision) {
            Some(known) => Ok(HashKv { current_revision: self.revision(), ..known }),
            None => self.hash_now(revision),
        }
    }

    /// The hash of what is readable at `revision` now, whatever is remembered; zero is the current one, and at a
    /// negative one, as with etcd, there is nothing to hash. A long walk: only on a read thread.
    ///
    /// # Errors
    /// Compacted, future, revoked.
    pub fn hash_now(&self, revision: i64) -> Result<HashKv, ReadError> {
        // Nothing above a pin is pruned, so a pin at the mark keeps all that counts.
        let (pin, revision, current) = {
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
            (self.shared.pins.pin(state.mark), asked, state.published)
        };
        let hash = self.hash_at(&pin, revision, &|version| !version.is_tombstone())?;
        Ok(HashKv {
            hash,
            compact_revision: pin.revision(),
            hash_revision: revision,
            current_revision: current,
        })
    }

    /// Computes the hash of a compaction, and remembers it. `None` if its pin was revoked: then it is never known. A
    /// long walk: only on a read thread.
    pub fn remember(&self, due: DueHash) -> Option<HashKv> {
        let DueHash { pin, revision } = due;
        let keeps = |version: &Version| !version.is_tombstone() || version.main == revision;
        let hash = HashKv {
            // The walk reads no value, so nothing but the pin can fail it.
            hash: self.hash_at(&pin, revision, &keeps).ok()?,
            compact_revision: pin.revision(),
            hash_revision: revision,
            current_revision: self.revision(),
        };
        self.shared.hashes.insert(hash);
        Some(hash)
    }

    /// The hash at `revision` under the mark at which `pin` stands. `keeps` says of a key's newest revision at or
    /// below `revision` whether it is among those that make what is hidden not count.
    fn hash_at(
        &self,
        pin: &Pin,
        revision: i64,
        keeps: &dyn Fn(&Version) -> bool,
    ) -> Result<u32, ReadError> {
        let mark = pin.revision();
        let mut records: Vec<Record> = Vec::new();
        let mut is_any_kept = false;
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
                is_any_kept |= entry.at(revision).is_some_and(keeps);
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
        records.sort_unstable_by_key(|record| (record.main, record.sub));
        let mut crc = Crc::new(BUCKET);
        for record in &records {
            if record.is_tombstone && mutant::is(Mutant::HashWithoutTombstones) {
                continue;
            }
            if !(record.is_hidden && is_any_kept) {
                crc.record(record);
            }
        }
        Ok(crc.sum)
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
