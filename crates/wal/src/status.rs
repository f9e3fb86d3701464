//! What a log holds, read by the rules of a start ([`crate::Wal::open`]), for people: changes nothing, and what was
//! found before the damage is told as well.

use std::path::Path;

use raft::{HardState, Index, Term};
use vfs::{OpenMode, Vfs};

use crate::dump::{FILE_BYTES_MAX, too_long};
use crate::{Metadata, OpenError, SnapshotRecord, TornTail};
use crate::{codec, recover};

/// A file of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// Its name.
    pub name: String,
    /// The index of the first entry that it may contain, by its name.
    pub first: Index,
    /// Its length, with what is only preallocated.
    pub bytes: u64,
    /// Where its last good record ends; `None` if it was not read to there.
    pub used: Option<u64>,
}

/// What a log holds.
#[derive(Debug)]
pub struct Status {
    /// The files in order.
    pub files: Vec<FileStatus>,
    /// Names that the next start removes: unfinished files, and files before a gap.
    pub leftovers: Vec<String>,
    /// Whose log it is; `None` if that could not be read.
    pub metadata: Option<Metadata>,
    /// The last state.
    pub hard_state: HardState,
    /// The log begins after this place.
    pub base: (Index, Term),
    /// The last index, that of `base` if there are no entries, and its term.
    pub last: (Index, Term),
    /// The snapshot records, the one of index 0 left out.
    pub snapshots: Vec<SnapshotRecord>,
    /// The end is torn, as a crash tears it; a start cuts it off.
    pub torn: Option<TornTail>,
    /// Why a start would refuse the log. What stands above is then what was read before.
    pub damage: Option<OpenError>,
}

/// Looks at the log in `dir`. Whether it reaches to the state beside it is not asked.
///
/// # Errors
/// There is no log, or its directory or the length of a file cannot be read.
pub fn status(vfs: &dyn Vfs, dir: &Path) -> Result<Status, OpenError> {
    let mut files = Vec::new();
    let mut too_long_file = None;
    for (_, first, name) in recover::names(vfs, dir)?.files {
        let path = dir.join(&name);
        let opened = vfs.open(&path, OpenMode::Read).and_then(|file| file.len());
        let bytes = opened.map_err(OpenError::Io)?;
        if bytes > FILE_BYTES_MAX {
            too_long_file =
                Some(OpenError::Rotten { file: path, offset: 0, what: too_long(bytes) });
        }
        files.push(FileStatus { name, first, bytes, used: None });
    }
    let mut status = Status {
        files,
        leftovers: Vec::new(),
        metadata: None,
        hard_state: HardState::default(),
        base: (Index(0), Term(0)),
        last: (Index(0), Term(0)),
        snapshots: Vec::new(),
        torn: None,
        damage: too_long_file,
    };
    if status.damage.is_some() {
        return Ok(status);
    }
    let (found, damage) = recover::look(vfs, dir);
    for segment in found.layout.segments.iter().filter(|segment| segment.bytes > 0) {
        let file = status.files.iter_mut().find(|file| file.name == segment.name);
        file.into_iter().for_each(|file| file.used = Some(segment.bytes));
    }
    let last = found.layout.last;
    status.metadata =
        codec::decode_metadata(&found.metadata).ok().filter(|_| !found.metadata.is_empty());
    status.hard_state = found.hard_state;
    status.base = found.layout.base();
    status.last = (last, found.layout.term_at(last).unwrap_or_default());
    status.leftovers = found.leftovers;
    status.snapshots = found.snapshots;
    status.torn = found.torn;
    status.damage = damage;
    Ok(status)
}
