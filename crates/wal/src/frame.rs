//! One record in bytes: etcd's frame around a walpb.Record, with its place in the chain of checksums.
//!
//! ```text
//!    0               8                           8+n          8+n+pad
//!    ├───────────────┼────────────────────────────┼───────────┤
//!    │ length word   │ Record: 08 type 10 crc     │ zeros     │    n = length of the Record
//!    │ i64 LE        │         1a len data        │           │    pad fills up to a multiple of 8
//!    └───────────────┴────────────────────────────┴───────────┘
//!    length word = n                         if pad is 0
//!                = n | (0x80 | pad) << 56    otherwise
//! ```
//!
//! `crc` is the CRC-32C of the data of all records from the log's first on, this one included. A crc record
//! has no data and carries the running value. A length word of 0 is the end: what was preallocated reads so.

use raft::{Entry, HardState};

use crate::SnapshotRecord;
use crate::codec;
use mutant::Mutant;

/// The types of records.
pub(crate) mod kind {
    pub(crate) const METADATA: u64 = 1;
    pub(crate) const ENTRY: u64 = 2;
    pub(crate) const STATE: u64 = 3;
    pub(crate) const CRC: u64 = 4;
    pub(crate) const SNAPSHOT: u64 = 5;
}

/// The length word's size in bytes, and what frames are aligned to.
pub(crate) const WORD: usize = 8;

/// The 56 bits of the length word that are the record's length.
const LENGTH_MASK: u64 = (1 << 56) - 1;

/// Gathers frames and carries the running checksum.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    /// The frames gathered.
    pub(crate) bytes: Vec<u8>,
    /// The running checksum, behind all that was gathered.
    pub(crate) crc: u32,
    scratch: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(crc: u32) -> Writer {
        Writer { bytes: Vec::new(), crc, scratch: Vec::new() }
    }

    pub(crate) fn crc(&mut self) {
        self.push(kind::CRC, None);
    }

    pub(crate) fn metadata(&mut self, metadata: &[u8]) {
        self.push(kind::METADATA, Some([metadata, &[]]));
    }

    pub(crate) fn state(&mut self, state: &HardState) {
        let mut scratch = [0; codec::HARD_STATE_MAX];
        let mut rest = &mut scratch[..];
        codec::encode_hard_state(state, &mut rest);
        let len = codec::HARD_STATE_MAX - rest.len();
        self.push(kind::STATE, Some([&scratch[..len], &[]]));
    }

    /// The data of the entry are copied once, into the buffer.
    pub(crate) fn entry(&mut self, entry: &Entry) {
        let mut head = [0; codec::ENTRY_HEAD_MAX];
        let mut rest = &mut head[..];
        codec::encode_entry_head(entry, &mut rest);
        let len = codec::ENTRY_HEAD_MAX - rest.len();
        self.push(kind::ENTRY, Some([&head[..len], &entry.data]));
    }

    pub(crate) fn snapshot(&mut self, snapshot: &SnapshotRecord) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        codec::encode_snapshot_record(snapshot, &mut scratch);
        self.push(kind::SNAPSHOT, Some([&scratch, &[]]));
        self.scratch = scratch;
    }

    fn push(&mut self, kind: u64, data: Option<[&[u8]; 2]>) {
        for part in data.iter().flatten() {
            self.crc = crc32c::crc32c_append(self.crc, part);
        }
        let data_len = data.map(|[head, tail]| head.len() + tail.len());
        let len = codec::record_len(kind, self.crc, data_len);
        let pad = pad(len);
        self.bytes.reserve(WORD + len + pad);
        self.bytes.extend_from_slice(&length_word(len).to_le_bytes());
        let start = self.bytes.len();
        codec::encode_record_head(kind, self.crc, data_len, &mut self.bytes);
        for part in data.iter().flatten() {
            self.bytes.extend_from_slice(part);
        }
        debug_assert_eq!(self.bytes.len() - start, len, "a record's length, foretold and written");
        self.bytes.extend_from_slice(&[0; WORD][..pad]);
    }
}

fn pad(len: usize) -> usize {
    (WORD - len % WORD) % WORD
}

fn length_word(len: usize) -> u64 {
    let pad = pad(len) as u64;
    let flag = if pad == 0 { 0 } else { 0x80 | pad };
    len as u64 | flag << 56
}

/// What a length word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Nothing follows.
    End,
    /// A record of this length; with word and padding the frame has `frame` bytes.
    Record { len: u64, frame: u64 },
    /// No writer writes this.
    Malformed,
}

/// Reads a length word.
pub(crate) fn parse_word(bytes: [u8; WORD]) -> Word {
    let word = u64::from_le_bytes(bytes);
    if word == 0 {
        return Word::End;
    }
    let (len, flag) = (word & LENGTH_MASK, word >> 56);
    let pad = (8 - len % 8) % 8;
    let expected = if pad == 0 { 0 } else { 0x80 | pad };
    if len == 0 || flag != expected {
        return Word::Malformed;
    }
    Word::Record { len, frame: WORD as u64 + len + pad }
}

/// What stands at an offset of a file that was read as a whole, or of a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parsed<'a> {
    /// The end of the bytes, or a length word of 0, or as much of one as there is.
    End,
    /// A frame whose record decodes; its checksum is not looked at.
    Record { record: codec::RawRecord<'a>, frame: u64 },
    /// A length word that promises more than there is.
    Beyond { frame: u64 },
    /// Bytes that are no frame. `frame` is its length if the length word is sound.
    Malformed { frame: Option<u64>, what: &'static str },
}

/// Looks at the frame that begins at `at`.
pub(crate) fn parse(bytes: &[u8], at: usize) -> Parsed<'_> {
    let rest = bytes.get(at..).unwrap_or(&[]);
    if rest.is_empty() {
        return Parsed::End;
    }
    let Some(word) = rest.first_chunk::<WORD>() else {
        let is_zero = rest.iter().all(|&byte| byte == 0);
        return if is_zero { Parsed::End } else { Parsed::Beyond { frame: WORD as u64 } };
    };
    match parse_word(*word) {
        Word::End => Parsed::End,
        Word::Malformed => Parsed::Malformed { frame: None, what: "the length word is none" },
        Word::Record { frame, .. } if frame > rest.len() as u64 => Parsed::Beyond { frame },
        Word::Record { len, frame } => {
            let malformed = |what| Parsed::Malformed { frame: Some(frame), what };
            let (record, padding) = rest[WORD..frame as usize].split_at(len as usize);
            if padding.iter().any(|&byte| byte != 0) {
                return malformed("the padding is not zero");
            }
            match codec::decode_record(record) {
                Ok(record) => Parsed::Record { record, frame },
                Err(codec::DecodeError(what)) => malformed(what),
            }
        }
    }
}

/// The running checksum behind `record`, if that is what the record says. `None` before the first crc record
/// of a log that is read from the middle.
pub(crate) fn chain(crc: Option<u32>, record: &codec::RawRecord<'_>) -> Option<u32> {
    if record.kind == kind::CRC {
        return (crc.is_none_or(|crc| crc == record.crc)).then_some(record.crc);
    }
    let crc = crc32c::crc32c_append(crc?, record.data);
    (crc == record.crc || mutant::is(Mutant::LogUnchecked)).then_some(crc)
}
