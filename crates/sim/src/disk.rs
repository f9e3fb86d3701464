//! A member's disk as one life of its process sees it.
//!
//! It passes everything on to the disk in memory, and adds two things: a process that is dead does nothing more (its
//! destructors would otherwise still delete files), and, for the mutant that it is there for, it can lie about syncs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use vfs::memory::Memory;
use vfs::{File, Lock, OpenMode, Vfs};

/// The files of one life.
#[derive(Clone)]
pub struct Disk {
    memory: Memory,
    life: Arc<Life>,
}

#[derive(Default)]
struct Life {
    dead: AtomicBool,
    lies: bool,
    syncs: AtomicU64,
}

impl Disk {
    /// A new life on this disk. If it lies, every third sync of a file of the log is skipped.
    pub fn new(memory: Memory, lies: bool) -> Disk {
        Disk { memory, life: Arc::new(Life { lies, ..Life::default() }) }
    }

    /// The process is dead: nothing it does from now on reaches the disk.
    pub fn die(&self) {
        self.life.dead.store(true, Relaxed);
    }

    fn check(&self) -> io::Result<()> {
        match self.life.dead.load(Relaxed) {
            true => Err(io::Error::other("this process is dead")),
            false => Ok(()),
        }
    }
}

impl Vfs for Disk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.check()?;
        self.memory.create_dir_all(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.check()?;
        let file = self.memory.open(path, mode)?;
        if !self.life.lies {
            return Ok(file);
        }
        Ok(Arc::new(Liar { file, path: path.to_path_buf(), disk: self.clone() }))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.check()?;
        self.memory.lock(path)
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.check()?;
        self.memory.lock_shared(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check()?;
        self.memory.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.check()?;
        self.memory.unlink(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.check()?;
        self.memory.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.check()?;
        self.memory.exists(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.check()?;
        self.memory.sync_dir(dir)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.check()?;
        self.memory.remove_dir_all(path)
    }
}

/// A file whose syncs are not always what they say. (Of an honest disk the file itself is used: its handles are void
/// once the process is dead.)
struct Liar {
    file: Arc<dyn File>,
    path: PathBuf,
    disk: Disk,
}

impl File for Liar {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn read_now(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        self.file.read_now(buffer, offset)
    }

    fn append_vectored(&self, parts: &[&[u8]]) -> io::Result<()> {
        self.file.append_vectored(parts)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn sync(&self) -> io::Result<()> {
        if self.path.extension().is_some_and(|extension| extension == "wal") {
            let count = self.disk.life.syncs.fetch_add(1, Relaxed);
            if count % 3 == 2 {
                return Ok(());
            }
        }
        self.file.sync()
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.file.preallocate(len)
    }
}
