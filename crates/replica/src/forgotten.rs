//! `member/forgotten`: a member's note to itself that it has lost what it had acknowledged.
//!
//! Whoever hears from a leader of receipts that it knows nothing of takes part in no election until an entry of a later
//! term has come ([`raft::StepError::Forgotten`]): only a later leader's log shows that all which was acknowledged is there.
//! That must outlive the process, for the first thing an operator does with such a member is to start it again.
//!
//! The file holds the term in decimal, and a newline. It appears under its name whole and durable, and goes with the
//! first start that finds an entry of a later term in the log.

use std::io;
use std::path::{Path, PathBuf};

use raft::Term;
use vfs::{OpenMode, Vfs};

/// More digits no term has.
const DIGITS_MAX: u64 = 20;

/// Where the note is, if it is.
pub(crate) fn path(member: &Path) -> PathBuf {
    member.join("forgotten")
}

/// Notes that in `term` it was found out.
pub(crate) fn write(vfs: &dyn Vfs, member: &Path, term: Term) -> io::Result<()> {
    let path = path(member);
    let part = path.with_extension("part");
    if vfs.exists(&part)? {
        vfs.unlink(&part)?;
    }
    let file = vfs.open(&part, OpenMode::Create)?;
    file.append(format!("{term}\n").as_bytes())?;
    file.sync()?;
    vfs.rename(&part, &path)?;
    vfs.sync_dir(member)
}

/// The term of the note, if there is one.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if the file holds anything else; else the disk's.
pub(crate) fn read(vfs: &dyn Vfs, member: &Path) -> io::Result<Option<Term>> {
    let path = path(member);
    if !vfs.exists(&path)? {
        return Ok(None);
    }
    let file = vfs.open(&path, OpenMode::Read)?;
    let mut text = vec![0; file.len()?.min(DIGITS_MAX + 1) as usize];
    file.read_exact_at(&mut text, 0)?;
    let term =
        std::str::from_utf8(&text).ok().and_then(|text| text.strip_suffix('\n')?.parse().ok());
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "it does not hold a term");
    term.map(|term| Some(Term(term))).ok_or_else(invalid)
}

/// Throws the note away.
pub(crate) fn remove(vfs: &dyn Vfs, member: &Path) -> io::Result<()> {
    vfs.unlink(&path(member))
}
