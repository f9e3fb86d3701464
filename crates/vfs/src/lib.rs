//! The few file operations that the log and the store need, as a trait with two implementors.
//!
//! Everything below the server reaches a disk through [`Vfs`] and [`File`] alone. [`os::Os`] is the operating
//! system; [`memory::Memory`] is a disk in memory that forgets, as a real one may, whatever was not synced.
//! A crash can therefore be enumerated instead of hoped for ([`crash`]).
//!
//! What a caller may rely on, and nothing more:
//!
//! ```text
//!   what changed             is visible at once to    survives the process    survives the power
//!   bytes of a file          every handle             yes                     after File::sync
//!   length of a file         every handle             yes                     after File::sync
//!   a name (create, rename,  every caller             yes                     after Vfs::sync_dir of
//!     unlink, mkdir)                                                            the directory it stands in
//! ```
//!
//! Syncing a file does not make its name durable, and syncing a directory does not make the bytes of its
//! files durable. Until then any part of what is pending may be there after a power cut, in any order; a
//! sector of 512 bytes may even hold a new beginning and an old end.
//!
//! After [`File::sync`] or [`Vfs::sync_dir`] failed, nobody knows what is durable, and a second call that
//! succeeds proves nothing: callers end the process.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod crash;
pub mod memory;
pub mod os;

use std::io;
use std::path::Path;
use std::sync::Arc;

/// The smallest piece that a disk writes as a whole, in bytes. Larger sectors are multiples of it.
pub const SECTOR_BYTES: usize = 512;

/// Gives a file another length, of at least `least` bytes and at most two sectors more; all of it that is used lies below
/// `least`. A length that a failed sync has left in the kernel's memory is taken for written, and is so only when it has
/// changed once more and was synced. A disk without room for it keeps the length.
///
/// # Errors
///
/// What the disk says, if it is not that there is no room.
pub fn renew_len(file: &dyn File, least: u64) -> io::Result<()> {
    let sector = SECTOR_BYTES as u64;
    let whole = least.next_multiple_of(sector);
    let len = if file.len()? == whole { whole + sector } else { whole };
    match file.truncate(len) {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
        done => done,
    }
}

/// How [`Vfs::open`] opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    Write,
    /// A new file of length 0, to read and write; `AlreadyExists` if the name is taken.
    Create,
}

/// A file system. Paths are taken as they are; directories are made with mode 0700, files with 0600.
pub trait Vfs: Send + Sync {
    /// Makes `path` and the directories above it that are missing. Their names become durable when the
    /// directories they stand in are synced.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Opens a file. The handle outlives a rename and an unlink of its name.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// Takes the exclusive lock named by the file `path`, which is made if it is missing. `WouldBlock` when
    /// somebody holds it. It is let go when the guard is dropped, or when the process ends.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;

    /// Takes the lock named by the existing file `path` for somebody who only looks: together with others who do, but
    /// not while somebody holds it alone (`WouldBlock`). Changes nothing; `NotFound` if there is no such file.
    fn lock_shared(&self, path: &Path) -> io::Result<Box<dyn Lock>>;

    /// Gives the file or directory `from` the name `to`, in one step; a file that had this name loses it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes a file's name away. Open handles go on.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Whether the name `path` is taken, by a file or a directory.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Makes the names in `dir` durable: those that came, and the absence of those that went.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Removes a directory and all that is in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
}

/// An open file. All methods take `&self`: a reader may go on while another thread appends. Two writers must
/// agree between themselves.
pub trait File: Send + Sync {
    /// Reads up to `buffer.len()` bytes at `offset`; less only at the end of the file, 0 past it.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Fills `buffer` from `offset`, or fails with `UnexpectedEof`.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self.read_at(buffer, offset)? {
            n if n == buffer.len() => Ok(()),
            n => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("wanted {} bytes at {offset}, the file has {n} there", buffer.len()),
            )),
        }
    }

    /// As [`File::read_at`], but only if all of it can be had without waiting for the disk; `None` otherwise,
    /// or where the system cannot tell.
    fn read_now(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>>;

    /// Writes all of `bytes` at the end of the file.
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.append_vectored(&[bytes])
    }

    /// Writes all of `parts`, one after the other, at the end of the file, with one system call if it can.
    fn append_vectored(&self, parts: &[&[u8]]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`; a gap before it reads as zeros.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Sets the length in bytes. What is cut off is gone; what is added reads as zeros.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the length is 0.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Makes bytes and length durable (fdatasync). Never retry it after a failure.
    fn sync(&self) -> io::Result<()>;

    /// Makes the file at least `len` bytes long and reserves the space for them; what is added reads as
    /// zeros. Writes within it do not fail for want of space.
    fn preallocate(&self, len: u64) -> io::Result<()>;
}

/// A lock that is held until it is dropped.
pub trait Lock: Send + Sync {}
