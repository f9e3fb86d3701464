//! A file of the log: its name, and the records that stand at its head.

use std::path::Path;
use std::sync::Arc;

use raft::{HardState, Index};
use vfs::{File, OpenMode, Vfs};

use crate::frame;

/// The name of a file being prepared. Whatever ends like this is no part of the log.
pub(crate) const SPARE: &str = "0.tmp";

/// Whether a name is that of a file that was being prepared when the process died.
pub(crate) fn is_leftover(name: &str) -> bool {
    name.ends_with(".tmp")
}

/// `sequence-first.wal`, both as sixteen hexadecimal digits.
pub(crate) fn name(sequence: u64, first: Index) -> String {
    format!("{sequence:016x}-{:016x}.wal", first.0)
}

/// The sequence number and the index in a name; `None` if it is not that of a log's file.
pub(crate) fn parse_name(name: &str) -> Option<(u64, Index)> {
    let (sequence, first) = name.strip_suffix(".wal")?.split_once('-')?;
    let number = |digits: &str| {
        let is_ours = digits.len() == 16
            && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if is_ours { u64::from_str_radix(digits, 16).ok() } else { None }
    };
    Some((number(sequence)?, Index(number(first)?)))
}

/// Makes the file `dir/name`, preallocated, with its head: the running checksum, the metadata, and what else
/// `head` gathered. Synced, its name not.
pub(crate) fn make(
    vfs: &dyn Vfs,
    dir: &Path,
    name: &str,
    segment_bytes: u64,
    head: &frame::Writer,
) -> std::io::Result<Arc<dyn File>> {
    let path = dir.join(name);
    if vfs.exists(&path)? {
        vfs.unlink(&path)?;
    }
    let file = vfs.open(&path, OpenMode::Create)?;
    file.preallocate(segment_bytes)?;
    file.write_at(&head.bytes, 0)?;
    file.sync()?;
    Ok(file)
}

/// The head of a file that follows another one.
pub(crate) fn head_after(crc: u32, metadata: &[u8], state: &HardState) -> frame::Writer {
    let mut head = frame::Writer::new(crc);
    head.crc();
    head.metadata(metadata);
    if *state != HardState::default() {
        head.state(state);
    }
    head
}
