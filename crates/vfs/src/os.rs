//! The operating system's files: the one place of the project that opens them.
//!
//! Interrupted calls are repeated and short writes continued here, so that no caller has to know of either.
//! Where the system cannot do what only saves time (reserve space, read only what is cached), the plain way
//! is taken instead.

#![allow(clippy::disallowed_methods, reason = "this is where files are opened")]

use std::fs;
use std::io;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::{Errno, ReadWriteFlags};

use crate::{File, Lock, OpenMode, Vfs};

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Os;

impl Vfs for Os {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).mode(FILE_MODE);
        let file = match mode {
            OpenMode::Read => open_to_read(path)?,
            OpenMode::Write => options.write(true).open(path)?,
            OpenMode::Create => options.write(true).create_new(true).open(path)?,
        };
        if file.metadata()?.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        Ok(Arc::new(OsFile { file, reads_now: AtomicBool::new(true) }))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)?;
        // flock belongs to the open file, not to the process: a second open in this process is refused too.
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(OsLock { _file: file }))
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let file = open_to_read(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared)?;
        Ok(Box::new(OsLock { _file: file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            names.push(name.into_string().map_err(|name| {
                io::Error::new(
                    ErrorKind::InvalidData,
                    format!("{} holds a name that is not UTF-8: {name:?}", dir.display()),
                )
            })?);
        }
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match fs::symlink_metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // A relative path of one component has the empty parent, which means here.
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        fs::File::open(dir)?.sync_all()
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }
}

/// Opens what may be anything: a pipe that nobody writes to must not make the caller wait, and what has no length
/// must not be read to its end.
fn open_to_read(path: &Path) -> io::Result<fs::File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let kind = file.metadata()?.file_type();
    match kind.is_file() || kind.is_dir() {
        true => Ok(file),
        false => Err(io::Error::new(ErrorKind::InvalidInput, "this is neither file nor directory")),
    }
}

struct OsFile {
    file: fs::File,
    /// Falls once, when the file system says that it cannot read without waiting.
    reads_now: AtomicBool,
}

impl File for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn read_now(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        if !self.reads_now.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let mut filled = 0;
        while filled < buffer.len() {
            let mut rest = [io::IoSliceMut::new(&mut buffer[filled..])];
            let at = offset + filled as u64;
            match rustix::io::preadv2(&self.file, &mut rest, at, ReadWriteFlags::NOWAIT) {
                // The end of the file: a short answer because only a part was cached goes on to AGAIN below.
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    self.reads_now.store(false, Ordering::Relaxed);
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(filled))
    }

    fn append_vectored(&self, parts: &[&[u8]]) -> io::Result<()> {
        let mut offset = self.len()?;
        let mut slices: Vec<io::IoSlice<'_>> = parts
            .iter()
            .filter(|part| !part.is_empty())
            .map(|part| io::IoSlice::new(part))
            .collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            // The kernel takes a limited number of slices per call; the loop does the others.
            let batch = &rest[..rest.len().min(SLICES_MAX)];
            match rustix::io::pwritev(&self.file, batch, offset) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    offset += n as u64;
                    io::IoSlice::advance_slices(&mut rest, n);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        let current = self.len()?;
        if len <= current {
            return Ok(());
        }
        loop {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                // The length at least; the space is then taken as it is written.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return self.file.set_len(len),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// `IOV_MAX` of Linux.
const SLICES_MAX: usize = 1024;

struct OsLock {
    _file: fs::File,
}

impl Lock for OsLock {}
