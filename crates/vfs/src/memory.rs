//! A disk in memory that forgets, as a real one may, whatever was not synced.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{File, Lock, OpenMode, Vfs};

/// A disk in memory. Clones share it; [`Memory::fork`] copies it.
#[derive(Clone)]
pub struct Memory {}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum OperationKind {
    CreateDir,
    Create,
    Open,
    Lock,
    Rename,
    Unlink,
    List,
    Exists,
    SyncDir,
    RemoveDir,
    Read,
    Write,
    Truncate,
    Sync,
    Preallocate,
}

/// One call, as matchers and hooks see it before it is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The count of changing operations before this one (reads, opens, lists are not counted).
    pub number: u64,
    /// What it does.
    pub kind: OperationKind,
    /// The file or directory; of a rename, the old name. A file renamed since it was opened shows its new name.
    pub path: PathBuf,
    /// Of reads, writes, truncations and preallocations; else 0.
    pub offset: u64,
    /// Bytes to read or write; else 0.
    pub len: usize,
}

/// How a matched call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// With this error number (`EIO` is 5, `ENOSPC` 28); nothing is done.
    Errno(i32),
    /// A write writes its first bytes, so many, and fails with this error number.
    Short(usize, i32),
}

/// Something that was not synced and whose fate a power cut decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// A name that came, went or changed, in words.
    Name(String),
    /// A file's length.
    Length {
        /// The file.
        path: PathBuf,
        /// How often it changed since the last sync.
        versions: usize,
    },
    /// A sector of a file.
    Sector {
        /// The file.
        path: PathBuf,
        /// Counted from 0.
        sector: u64,
        /// How many of the writes to it since the last sync are remembered.
        versions: usize,
    },
}

/// What a power cut does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is as it was at the last sync.
    Lost,
    /// It is as it was last written.
    Kept,
    /// It is as the write of this number left it, counted from 0 (a sector, a length); the last is `Kept`.
    Version(usize),
    /// The first bytes, so many, are as last written, the rest as it was at the last sync (a sector).
    Torn(usize),
}

impl Memory {
    /// An empty disk with sectors of 512 bytes.
    pub fn new(seed: u64) -> Memory {
        Memory::with_sectors(seed, crate::SECTOR_BYTES)
    }

    /// An empty disk. `sector_bytes` is a power of two from 8 on.
    pub fn with_sectors(_seed: u64, _sector_bytes: usize) -> Memory {
        unimplemented!("comes with the next landing")
    }

    /// A copy of the disk, of all that is pending on it, and of the count; without the faults and the hook.
    pub fn fork(&self) -> Memory {
        unimplemented!("comes with the next landing")
    }

    /// The process dies: handles and locks are void, all that was written stays.
    pub fn crash(&self) {
        unimplemented!("comes with the next landing")
    }

    /// The power goes: as [`Memory::crash`], and the seed decides over each [`Unsynced`].
    pub fn power_cut(&self, _seed: u64) {
        unimplemented!("comes with the next landing")
    }

    /// The power goes, and `decide` says what becomes of each [`Unsynced`], in the order of
    /// [`Memory::unsynced`].
    pub fn power_cut_with(&self, _decide: &mut dyn FnMut(&Unsynced) -> Fate) {
        unimplemented!("comes with the next landing")
    }

    /// All that is pending.
    pub fn unsynced(&self) -> Vec<Unsynced> {
        unimplemented!("comes with the next landing")
    }

    /// Lets the next `times` calls that `matches` fail.
    pub fn fail(
        &self,
        _matches: impl Fn(&Operation) -> bool + Send + Sync + 'static,
        _times: u64,
        _failure: Failure,
    ) {
        unimplemented!("comes with the next landing")
    }

    /// Takes back all faults.
    pub fn heal(&self) {
        unimplemented!("comes with the next landing")
    }

    /// Bounds the sum of all files' lengths; what goes beyond is written as far as it fits and fails with
    /// `ENOSPC`.
    pub fn set_capacity(&self, _bytes: Option<u64>) {
        unimplemented!("comes with the next landing")
    }

    /// Calls `hook` before each operation, with nothing locked: to delay it, or to look.
    pub fn set_hook(&self, _hook: Option<Arc<dyn Fn(&Operation) + Send + Sync>>) {
        unimplemented!("comes with the next landing")
    }

    /// How many changing operations there were.
    pub fn operations(&self) -> u64 {
        unimplemented!("comes with the next landing")
    }

    /// Stops the world before the changing operation of this number: it and all calls after it fail until
    /// the process dies or the power goes.
    pub fn stop_at(&self, _operation: Option<u64>) {
        unimplemented!("comes with the next landing")
    }

    /// Rot: changes the byte at `offset` of a file, live and durable, by exclusive or.
    pub fn rot(&self, _path: &Path, _offset: u64, _mask: u8) {
        unimplemented!("comes with the next landing")
    }
}

impl Vfs for Memory {
    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        unimplemented!("comes with the next landing")
    }
    fn open(&self, _path: &Path, _mode: OpenMode) -> io::Result<Arc<dyn File>> {
        unimplemented!("comes with the next landing")
    }
    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Lock>> {
        unimplemented!("comes with the next landing")
    }
    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        unimplemented!("comes with the next landing")
    }
    fn unlink(&self, _path: &Path) -> io::Result<()> {
        unimplemented!("comes with the next landing")
    }
    fn list(&self, _dir: &Path) -> io::Result<Vec<String>> {
        unimplemented!("comes with the next landing")
    }
    fn exists(&self, _path: &Path) -> io::Result<bool> {
        unimplemented!("comes with the next landing")
    }
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        unimplemented!("comes with the next landing")
    }
    fn remove_dir_all(&self, _path: &Path) -> io::Result<()> {
        unimplemented!("comes with the next landing")
    }
}
