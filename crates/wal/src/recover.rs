//! Reading a log back: what it holds, and whether what is broken in it was torn by a crash or has rotted.
//!
//! A crash may tear the end of the log: of what was written after the last sync, any sector may be missing. That
//! is cut off, for nobody was told that it was kept. Bytes that had been synced and are not what was written are
//! rot: somebody relies on them, and going on without them would forget what this member has promised. The
//! first bad frame is judged by what a crash can do, which is to leave zeros where sectors were not written:
//!
//! ```text
//!   1  it stands in a file that has a successor             rot: a file is synced before its successor is made
//!   2  a sync mark stands somewhere behind it               rot: a mark is written after a sync of all before it
//!   3  it ends the log below the applied state              rot: the state is never ahead of the log's sync
//!   4  no sector under it ends in zeros that begin in it    rot: no part of it can be missing (its padding is no part)
//!   5  otherwise                                            torn: cut off, reported, and zeroed
//! ```
//!
//! The cut of 5 is a write like any other, and may be torn by the next crash: of the sector in which the end lies the first
//! bytes are zero by then, and the last are what should have gone. So a length word of zero is no rot by 4, unless the record behind
//! it is whole, and its word alone has changed.
//!
//! A sync mark is a crc record in the middle of a file, the first thing written after each sync. etcd's readers
//! take it for what it is, a checksum that must be the running one. Logs that etcd wrote have none, and are judged
//! by the other rules.

use std::io;
use std::path::{Path, PathBuf};

use raft::{Entry, EntryKind, HardState, Index, Term};
use vfs::{File, OpenMode, SECTOR_BYTES, Vfs};

use crate::codec;
use crate::frame::{self, Parsed, WORD, kind};
use crate::layout::{Base, Gap, Layout, Place, Segment};
use crate::segment;
use crate::{OpenError, SnapshotRecord, TornTail};

/// What to do about rot: this member's copy is lost, the cluster's is not.
const REMEDY: &str = "this member has lost a part of its log: remove it from the cluster, empty its data \
                      directory and add it again, or restore it from a backup";

/// A log as it was read.
pub(crate) struct Found {
    pub(crate) layout: Layout,
    /// The metadata record as found, to be written again byte by byte.
    pub(crate) metadata: Vec<u8>,
    pub(crate) hard_state: HardState,
    pub(crate) snapshots: Vec<SnapshotRecord>,
    /// The file in which the newest snapshot record stands.
    pub(crate) snapshot_sequence: u64,
    pub(crate) entries: Vec<Entry>,
    /// The running checksum at the end.
    pub(crate) crc: u32,
    pub(crate) torn: Option<TornTail>,
    /// What stands in the last file from its last sync mark on (from its beginning if it has none), and where. Nobody knows
    /// whether it is on the disk.
    pub(crate) unproven: (u64, Vec<u8>),
    /// Whether something other than zeros stands behind the end of the last file.
    pub(crate) is_dirty: bool,
    /// Names that are no longer part of the log, or never were.
    pub(crate) leftovers: Vec<String>,
}

/// Reads the log in `dir`, whose state is known elsewhere up to `from`. Changes nothing.
pub(crate) fn read(vfs: &dyn Vfs, dir: &Path, from: Index) -> Result<Found, OpenError> {
    let mut reader = LogReader::new(dir, from);
    reader.read_files(vfs, OpenMode::Write)?;
    reader.finish()
}

/// The newest snapshot record in `dir`. Whether the log reaches to it, and from where, is not asked.
pub(crate) fn newest_snapshot(
    vfs: &dyn Vfs,
    dir: &Path,
) -> Result<Option<SnapshotRecord>, OpenError> {
    let mut reader = LogReader::new(dir, ALL);
    reader.read_files(vfs, OpenMode::Write)?;
    Ok(reader.found.snapshots.pop())
}

/// What can be read of the log in `dir`, without its entries, and why not more. Changes nothing.
pub(crate) fn look(vfs: &dyn Vfs, dir: &Path) -> (Found, Option<OpenError>) {
    let mut reader = LogReader::new(dir, ALL);
    let read = reader.read_files(vfs, OpenMode::Read).and_then(|()| reader.check_commit());
    (reader.found, read.err())
}

/// Above every index: with it no entry is kept in memory, and no file is missing that only an older state needs.
const ALL: Index = Index(u64::MAX - 1);

/// The names in a log's directory: the files in order, with sequence number and index, and leftovers.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) files: Vec<(u64, Index, String)>,
    pub(crate) leftovers: Vec<String>,
}

/// Reads them; there is at least one file.
pub(crate) fn names(vfs: &dyn Vfs, dir: &Path) -> Result<Names, OpenError> {
    let names = match vfs.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(OpenError::Missing(dir.to_owned()));
        }
        names => names.map_err(OpenError::Io)?,
    };
    let mut files: Vec<(u64, Index, String)> = Vec::new();
    let mut leftovers = Vec::new();
    for name in names {
        match segment::parse_name(&name) {
            Some((sequence, first)) => files.push((sequence, first, name)),
            None if segment::is_leftover(&name) => leftovers.push(name),
            None => {}
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(OpenError::Missing(dir.to_owned()));
    }
    Ok(Names { files, leftovers })
}

/// Read at once, a file's bytes that are all zero take no memory.
const CHUNK_BYTES: usize = 256 << 10;

/// The first `len` bytes of a file, and where the zeros begin with which they end. Most of the last file is only
/// preallocated; where nothing is written, the memory that came as zeros is not touched.
fn read_whole(file: &dyn File, len: usize) -> io::Result<(Vec<u8>, usize)> {
    let mut bytes = vec![0; len];
    let mut chunk = vec![0; CHUNK_BYTES.min(len)];
    let mut written = 0;
    for (i, place) in bytes.chunks_mut(CHUNK_BYTES).enumerate() {
        let chunk = &mut chunk[..place.len()];
        let offset = i * CHUNK_BYTES;
        file.read_exact_at(chunk, offset as u64)?;
        if let Some(last) = chunk.iter().rposition(|&byte| byte != 0) {
            place.copy_from_slice(chunk);
            written = offset + last + 1;
        }
    }
    Ok((bytes, written))
}

/// Reads one file after the other.
struct LogReader<'a> {
    dir: &'a Path,
    from: Index,
    found: Found,
    /// `None` until the first crc record of a log whose first file is gone.
    crc: Option<u32>,
    has_metadata: bool,
}

impl<'a> LogReader<'a> {
    fn new(dir: &'a Path, from: Index) -> LogReader<'a> {
        let found = Found {
            layout: Layout::new(),
            metadata: Vec::new(),
            hard_state: HardState::default(),
            snapshots: Vec::new(),
            snapshot_sequence: 0,
            entries: Vec::new(),
            crc: 0,
            torn: None,
            unproven: (0, Vec::new()),
            is_dirty: false,
            leftovers: Vec::new(),
        };
        LogReader { dir, from, found, crc: None, has_metadata: false }
    }

    fn read_files(&mut self, vfs: &dyn Vfs, mode: OpenMode) -> Result<(), OpenError> {
        let Names { mut files, mut leftovers } = names(vfs, self.dir)?;
        // Files that were released may vanish in any order when the power goes. So a gap is one of files that are
        // still needed only if the file behind it begins above the state.
        let is_gap = |i: &usize| files[*i].0 - files[i - 1].0 != 1;
        if let Some(start) = (1..files.len()).rev().find(is_gap) {
            if files[start].1 > self.from.next() {
                return Err(OpenError::Gap(format!(
                    "{}: {} is followed by {}, the files between them are missing; {REMEDY}",
                    self.dir.display(),
                    files[start - 1].2,
                    files[start].2,
                )));
            }
            leftovers.extend(files.drain(..start).map(|(_, _, name)| name));
        }
        self.found.leftovers = leftovers;
        let last = files.len() - 1;
        for (i, (sequence, first, name)) in files.into_iter().enumerate() {
            self.read_file(vfs, mode, sequence, first, name, i == last)?;
        }
        Ok(())
    }

    fn read_file(
        &mut self,
        vfs: &dyn Vfs,
        mode: OpenMode,
        sequence: u64,
        first: Index,
        name: String,
        is_last: bool,
    ) -> Result<(), OpenError> {
        let path = self.dir.join(&name);
        let file = vfs.open(&path, mode).map_err(OpenError::Io)?;
        let len = file.len().map_err(OpenError::Io)?;
        let len =
            usize::try_from(len).map_err(|_| OpenError::Io(io::ErrorKind::FileTooLarge.into()))?;
        let (bytes, written) = read_whole(&*file, len).map_err(OpenError::Io)?;

        self.found.layout.segments.push_back(Segment { sequence, first, name, file, bytes: 0 });
        if sequence == 0 {
            self.crc = Some(0);
        }
        let (mut at, mut mark) = (0, 0);
        let mut records = 0;
        loop {
            let wrong = match frame::parse(&bytes, at) {
                Parsed::End if at >= written => break,
                Parsed::End => "the log ends here, but something is written behind".to_owned(),
                Parsed::Beyond { frame } => {
                    format!("a record of {frame} bytes, more than the file has left")
                }
                Parsed::Malformed { what, .. } => what.to_owned(),
                Parsed::Record { record, frame } => match frame::chain(self.crc, &record) {
                    None => "the checksum does not match".to_owned(),
                    Some(crc) => {
                        let place =
                            Place { sequence, offset: at as u64, crc: self.crc.unwrap_or(0) };
                        self.on_record(&record, place, records)
                            .map_err(|what| rotten(&path, at, &what))?;
                        if record.kind == kind::CRC {
                            mark = at;
                        }
                        self.crc = Some(crc);
                        at += frame as usize;
                        records += 1;
                        continue;
                    }
                },
            };
            if !is_last {
                return Err(rotten(
                    &path,
                    at,
                    &format!("{wrong}, and the log goes on in the next file"),
                ));
            }
            if records < 2 {
                return Err(rotten(&path, at, &format!("{wrong}, in the head of the file")));
            }
            if let Err(why) = judge(&bytes, at, written, self.crc) {
                return Err(rotten(&path, at, &format!("{wrong}, and {why}")));
            }
            let lost_bytes = (written - at) as u64;
            self.found.torn = Some(TornTail { file: path.clone(), offset: at as u64, lost_bytes });
            break;
        }
        if records < 2 {
            return Err(rotten(&path, at, "the file has no head"));
        }
        self.found.is_dirty = at < written;
        self.found.unproven = (mark as u64, bytes[mark..at].to_vec());
        let segment = self.found.layout.segments.back_mut().expect("pushed above");
        segment.bytes = at as u64;
        Ok(())
    }

    /// Takes in a record whose checksum is right. The error says what cannot be.
    fn on_record(
        &mut self,
        record: &codec::RawRecord<'_>,
        place: Place,
        ordinal: usize,
    ) -> Result<(), String> {
        let found = &mut self.found;
        let undecodable = |error: codec::DecodeError| format!("its record holds {error}");
        match (ordinal, record.kind) {
            (0, kind::CRC) | (1, kind::METADATA) => {}
            (0 | 1, _) => {
                return Err("the file does not begin with a checksum and metadata".to_owned());
            }
            _ => {}
        }
        match record.kind {
            kind::CRC => {}
            kind::METADATA => {
                if self.has_metadata && found.metadata != record.data {
                    return Err("the metadata differ from those of the file before".to_owned());
                }
                self.has_metadata = true;
                found.metadata = record.data.to_vec();
            }
            kind::STATE => {
                let state = codec::decode_hard_state(record.data).map_err(undecodable)?;
                // The checksum does not cover a record's type: an entry that has rotted into a state, and the
                // other way round, is known by what it says.
                if state.term == Term(0) && state != HardState::default() {
                    return Err(format!("a state without a term: {state:?}"));
                }
                found.hard_state = state;
            }
            kind::ENTRY => {
                let entry = codec::decode_entry_copied(record.data).map_err(undecodable)?;
                if entry.kind != EntryKind::Normal && entry.data.is_empty() {
                    return Err(format!("a membership change without content: {entry:?}"));
                }
                check_index(entry.index)?;
                self.on_entry(entry, place)?;
            }
            kind::SNAPSHOT if record.data.is_empty() => {
                return Err("a snapshot record without content".to_owned());
            }
            kind::SNAPSHOT => {
                let snapshot = codec::decode_snapshot_record(record.data).map_err(undecodable)?;
                check_index(snapshot.index)?;
                if found.layout.on_snapshot(snapshot.index, snapshot.term) {
                    found.entries.clear();
                }
                if snapshot.index > Index(0) {
                    found.snapshot_sequence = place.sequence;
                    found.snapshots.push(snapshot);
                }
            }
            unknown => return Err(format!("a record of the unknown type {unknown}")),
        }
        Ok(())
    }

    fn on_entry(&mut self, entry: Entry, place: Place) -> Result<(), String> {
        let found = &mut self.found;
        let (index, term) = (entry.index, entry.term);
        found.layout.on_entry(index, term, place).map_err(|Gap { last, next }| {
            format!("the entry of index {next} follows that of index {last}")
        })?;
        let kept = found.entries.first().map_or(0, |first| index.0.saturating_sub(first.index.0));
        found.entries.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        if index > self.from && index > found.layout.base().0 {
            found.entries.push(entry);
        }
        Ok(())
    }

    fn check_commit(&self) -> Result<(), OpenError> {
        let (last, commit) = (self.found.layout.last, self.found.hard_state.commit);
        if commit <= last {
            return Ok(());
        }
        let end = self.found.layout.segments.back().expect("a log has files");
        let what = format!("the log ends here with index {last}, but {commit} is committed");
        Err(rotten(&self.dir.join(&end.name), end.bytes as usize, &what))
    }

    fn finish(mut self) -> Result<Found, OpenError> {
        self.found.crc = self.crc.unwrap_or(0);
        let found = &self.found;
        let (last, (base, _)) = (found.layout.last, found.layout.base());
        let end = found.layout.segments.back().expect("a log has files");
        let path = self.dir.join(&end.name);
        if last < self.from {
            let what = format!(
                "the log ends here with index {last}, but the state holds {}, so what followed had been synced",
                self.from
            );
            return Err(rotten(&path, end.bytes as usize, &what));
        }
        self.check_commit()?;
        if base > self.from && matches!(found.layout.base, Base::Entry(..)) {
            return Err(OpenError::Gap(format!(
                "{}: the log begins with index {base}, but the state holds only {}; {REMEDY}",
                self.dir.display(),
                self.from
            )));
        }
        Ok(self.found)
    }
}

/// No log grows so long, and there must be a next index.
fn check_index(index: Index) -> Result<(), String> {
    if index >= ALL { Err("an index that no log reaches".to_owned()) } else { Ok(()) }
}

fn rotten(path: &Path, offset: usize, what: &str) -> OpenError {
    OpenError::Rotten {
        file: PathBuf::from(path),
        offset: offset as u64,
        what: format!("{what}; {REMEDY}"),
    }
}

/// Whether the frame at `at`, the first bad one of the last file, can have been torn by a crash. `written` is
/// where the zeros begin that reach to the end of the file.
fn judge(bytes: &[u8], at: usize, written: usize, crc: Option<u32>) -> Result<(), &'static str> {
    if has_sync_mark(bytes, at, written) {
        return Err("a later record proves that this one had been synced");
    }
    let fits = |frame: u64| frame <= (bytes.len() - at) as u64;
    match frame::parse(bytes, at) {
        // The word itself was lost, and with it the rest of its sector.
        Parsed::End | Parsed::Malformed { frame: None, .. } => {
            if !lacks_part(bytes, at, at + WORD) && !is_half_cut(bytes, at, crc) {
                return Err("nothing is missing that a crash could have lost");
            }
        }
        Parsed::Beyond { frame } => {
            // Either the file should be longer, and then nothing but this frame can follow; or the word is not
            // what was written, and what follows gives that away.
            if !lacks_part(bytes, at, at + WORD) && has_record(bytes, at + WORD, written) {
                return Err("other records follow");
            }
            assert!(!fits(frame), "a frame beyond the file");
        }
        Parsed::Record { .. } | Parsed::Malformed { frame: Some(_), .. } => {
            // The padding is zero anyway: of a record that lacks no more than that, nothing is missing.
            if !lacks_part(bytes, at, at + WORD + record_len(bytes, at)) {
                return Err("nothing is missing that a crash could have lost");
            }
        }
    }
    Ok(())
}

/// What the length word at `at`, which is sound, says.
fn record_len(bytes: &[u8], at: usize) -> usize {
    let word = bytes[at..].first_chunk().expect("a frame has a length word");
    match frame::parse_word(*word) {
        frame::Word::Record { len, .. } => len as usize,
        frame::Word::End | frame::Word::Malformed => unreachable!("the length word is sound"),
    }
}

/// Whether some sector under `start..end` may lack its end: it is zero from a byte of this range to its own end.
fn lacks_part(bytes: &[u8], start: usize, end: usize) -> bool {
    let first = start / SECTOR_BYTES;
    let last = (end - 1) / SECTOR_BYTES;
    (first..=last).any(|sector| {
        let from = start.max(sector * SECTOR_BYTES);
        let to = ((sector + 1) * SECTOR_BYTES).min(bytes.len());
        if from >= to {
            return true;
        }
        let zeros = bytes[from..to].iter().rev().take_while(|&&byte| byte == 0).count();
        to - zeros < end.min(to)
    })
}

/// Whether an earlier start may have begun to cut off here what a crash had torn: the length is zero, and what stands behind
/// the word is not the whole record to which it belonged. `crc` is the running checksum before it.
fn is_half_cut(bytes: &[u8], at: usize, crc: Option<u32>) -> bool {
    let is_zero = bytes[at..].iter().take(WORD - 1).all(|&byte| byte == 0);
    let record = bytes.get(at + WORD..).and_then(codec::decode_record_alone);
    is_zero && record.is_none_or(|record| frame::chain(crc, &record).is_none())
}

/// Whether a sync mark stands behind `at`: a crc record, followed by a record that continues its checksum.
fn has_sync_mark(bytes: &[u8], at: usize, written: usize) -> bool {
    (at + WORD..written).step_by(WORD).any(|at| match frame::parse(bytes, at) {
        Parsed::Record { record, frame } if record.kind == kind::CRC => {
            is_continued(bytes, at + frame as usize, &record)
        }
        _ => false,
    })
}

/// Whether two records, of which the second continues the checksum of the first, stand at or behind `at`.
fn has_record(bytes: &[u8], at: usize, written: usize) -> bool {
    (at..written).step_by(WORD).any(|at| match frame::parse(bytes, at) {
        Parsed::Record { record, frame } => is_continued(bytes, at + frame as usize, &record),
        _ => false,
    })
}

/// Whether the record at `next` continues the checksum of `record`.
fn is_continued(bytes: &[u8], next: usize, record: &codec::RawRecord<'_>) -> bool {
    match frame::parse(bytes, next) {
        Parsed::Record { record: next, .. } => frame::chain(Some(record.crc), &next).is_some(),
        _ => false,
    }
}
