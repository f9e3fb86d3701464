//! A disk in memory that forgets, as a real one may, whatever was not synced.
//!
//! Two pictures of the disk are kept: the *live* one, which every call sees, and the *durable* one, which a
//! power cut goes back to. What lies between them is pending, in pieces as small as a disk has them:
//!
//! ```text
//!              write_at, truncate, preallocate                create, rename, unlink, mkdir
//!                          │                                              │
//!   live     sectors and length of each file                    names of each directory
//!                          │ File::sync                                   │ Vfs::sync_dir
//!   durable  sectors and length of each file                    names of each directory
//!                          ▲                                              ▲
//!              power cut: for each pending sector, length and name, on its own:
//!              lost, kept, an older version, or (a sector) torn within
//! ```
//!
//! Invariants:
//! - What was synced stays; of what was not, any subset may stay, whatever the order of writing. So a cut file
//!   may have its last sector and lack the first, or have its length and read as zeros.
//! - A rename is one piece: after a power cut exactly one of the two names leads to the file. A change of a name
//!   stays only if what it needs stays (there is no rename of a file whose creation was lost).
//! - A sync that failed leaves what it should have made durable pending for ever, even if a later sync
//!   succeeds, as Linux does: only writing those bytes anew helps.
//! - The pieces are enumerated in a fixed order, so that a test can try every subset, and a seed decides the
//!   same twice.
//!
//! One lock guards the whole disk and is held for one call; a hook runs outside of it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::{File, Lock, OpenMode, SECTOR_BYTES, Vfs};

const ENOSPC: i32 = 28;

/// How many writes to one sector are told apart between two syncs; older ones are forgotten.
const VERSIONS_MAX: usize = 4;

/// A disk in memory. Clones share it; [`Memory::fork`] copies it.
#[derive(Clone)]
pub struct Memory {
    disk: Arc<Mutex<Disk>>,
}

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

impl OperationKind {
    /// Whether it may change the disk, or what is durable on it. Only such operations are counted.
    fn is_change(self) -> bool {
        use OperationKind::*;
        !matches!(self, Open | Lock | List | Exists | Read)
    }
}

/// One call, as matchers and hooks see it before it is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The count of changing operations before this one (opens, locks, lists and reads are not counted).
    pub number: u64,
    /// What it does.
    pub kind: OperationKind,
    /// The file or directory; of a rename, the old name. A file renamed since it was opened shows its new
    /// name, an unlinked one an empty path.
    pub path: PathBuf,
    /// Of reads and writes; the new length of truncations and preallocations; else 0.
    pub offset: u64,
    /// Bytes to read or write; else 0.
    pub len: usize,
}

/// How a matched call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// With this error number (`EIO` is 5, `ENOSPC` 28); nothing is done.
    Errno(i32),
    /// A write writes its first bytes, so many, and fails with this error number; any other call does nothing.
    Short(usize, i32),
    /// Not at all, it is told: a sync, of a file or a directory, does nothing and says that it has. Only syncs can lie.
    Lie,
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
    /// It is as the change of this number left it, counted from 0 (a sector, a length); the last is `Kept`.
    Version(usize),
    /// The first bytes, so many, are as last written, the rest as it was at the last sync (a sector).
    Torn(usize),
}

impl Memory {
    /// An empty disk with sectors of 512 bytes.
    pub fn new(seed: u64) -> Memory {
        Memory::with_sectors(seed, SECTOR_BYTES)
    }

    /// An empty disk. `sector_bytes` is a power of two, at least 8.
    pub fn with_sectors(seed: u64, sector_bytes: usize) -> Memory {
        assert!(sector_bytes.is_power_of_two() && sector_bytes >= 8, "sectors of {sector_bytes}");
        Memory { disk: Arc::new(Mutex::new(Disk::new(seed, sector_bytes))) }
    }

    /// A copy of the disk, of all that is pending on it, and of the count; without faults, hook, stop and
    /// locks. Handles of the original do not reach it.
    pub fn fork(&self) -> Memory {
        let disk = self.disk();
        let copy = Disk {
            sector_bytes: disk.sector_bytes,
            seed: disk.seed,
            generation: disk.generation,
            next: disk.next,
            nodes: disk.nodes.clone(),
            names: disk.names.clone(),
            places: disk.places.clone(),
            durable_names: disk.durable_names.clone(),
            name_changes: disk.name_changes.clone(),
            locked: BTreeMap::new(),
            handles: BTreeMap::new(),
            operations: disk.operations,
            stop_at: None,
            stopped: false,
            faults: Vec::new(),
            capacity: disk.capacity,
            hook: None,
        };
        Memory { disk: Arc::new(Mutex::new(copy)) }
    }

    /// The process dies: handles and locks are void, all that was written stays (and stays pending).
    pub fn crash(&self) {
        self.disk().restart();
    }

    /// The power goes: as [`Memory::crash`], and the seed decides over each [`Unsynced`].
    pub fn power_cut(&self, seed: u64) {
        let (own, sector_bytes) = {
            let disk = self.disk();
            (disk.seed, disk.sector_bytes)
        };
        let mut random = Random(own ^ seed.rotate_left(32));
        // Disks that lose all, or nothing, are as likely as those that lose something.
        let mood = random.below(4);
        self.power_cut_with(&mut |unsynced| match (mood, unsynced) {
            (0, _) => Fate::Lost,
            (1, _) => Fate::Kept,
            (_, Unsynced::Name(_)) if random.below(2) == 0 => Fate::Lost,
            (_, Unsynced::Name(_)) => Fate::Kept,
            (_, Unsynced::Length { versions, .. }) => match random.below(4) {
                0 => Fate::Lost,
                1 | 2 => Fate::Kept,
                _ => Fate::Version(random.below(*versions as u64) as usize),
            },
            (_, Unsynced::Sector { versions, .. }) => match random.below(8) {
                0..=2 => Fate::Lost,
                3..=5 => Fate::Kept,
                6 => Fate::Version(random.below(*versions as u64) as usize),
                _ => Fate::Torn(random.below(sector_bytes as u64) as usize),
            },
        });
    }

    /// The power goes, and `decide` says what becomes of each [`Unsynced`], in the order of
    /// [`Memory::unsynced`].
    pub fn power_cut_with(&self, decide: &mut dyn FnMut(&Unsynced) -> Fate) {
        self.disk().power_cut(decide);
    }

    /// All that is pending: names in the order of their changes, then file by file its length and its sectors.
    pub fn unsynced(&self) -> Vec<Unsynced> {
        self.disk().unsynced()
    }

    /// Lets the next `times` calls that `matches` fail. Of several faults the oldest counts.
    pub fn fail(
        &self,
        matches: impl Fn(&Operation) -> bool + Send + Sync + 'static,
        times: u64,
        failure: Failure,
    ) {
        self.disk().faults.push(Fault { matches: Arc::new(matches), times, failure });
    }

    /// Takes back all faults.
    pub fn heal(&self) {
        self.disk().faults.clear();
    }

    /// Bounds the sum of all files' lengths; what goes beyond is written as far as it fits and fails with
    /// `ENOSPC`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// The sum of all files' lengths, in bytes.
    pub fn used(&self) -> u64 {
        self.disk().used()
    }

    /// Calls `hook` before each operation, with nothing locked: to delay it, or to look.
    pub fn set_hook(&self, hook: Option<Hook>) {
        self.disk().hook = hook;
    }

    /// How many changing operations there were.
    pub fn operations(&self) -> u64 {
        self.disk().operations
    }

    /// Stops the world before the changing operation of this number: it and all calls after it fail until
    /// the process dies or the power goes.
    pub fn stop_at(&self, operation: Option<u64>) {
        let mut disk = self.disk();
        disk.stop_at = operation;
        disk.stopped = false;
    }

    /// A digest of all names, lengths and bytes that every call sees: equal for equal pictures of a disk.
    pub fn image(&self) -> u64 {
        let disk = self.disk();
        let mut digest = DefaultHasher::new();
        let by_path: BTreeMap<PathBuf, NodeId> =
            disk.names.values().map(|&node| (disk.path_of(node), node)).collect();
        for (path, node) in by_path {
            path.hash(&mut digest);
            if let Node::File(file) = &disk.nodes[&node] {
                file.live.len.hash(&mut digest);
                let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
                let sectors = file.live.sectors.iter().filter(|(_, bytes)| !is_zero(bytes));
                sectors.for_each(|sector| sector.hash(&mut digest));
            }
        }
        digest.finish()
    }

    /// How long a sector is.
    pub fn sector_bytes(&self) -> u64 {
        self.disk().sector_bytes as u64
    }

    /// Rot: changes the byte at `offset` of a file, live and durable, by exclusive or. Panics if there is no
    /// such byte.
    pub fn rot(&self, path: &Path, offset: u64, mask: u8) {
        let mut disk = self.disk();
        let sector_bytes = disk.sector_bytes;
        let node = disk.find(path).expect("a file to rot");
        let file = disk.file_mut(node).expect("a file to rot");
        assert!(offset < file.live.len, "no byte {offset} in {}", path.display());
        let (sector, at) = (offset / sector_bytes as u64, (offset % sector_bytes as u64) as usize);
        for content in [&mut file.live, &mut file.durable] {
            let mut bytes = content.sector(sector, sector_bytes);
            bytes[at] ^= mask;
            content.sectors.insert(sector, bytes.into());
        }
    }

    /// A write that never arrived, though it was synced: the sector in which `offset` lies holds what it held before
    /// anything was written there. False if it makes no difference. Panics if there is no such file.
    pub fn lose(&self, path: &Path, offset: u64) -> bool {
        let mut disk = self.disk();
        let sector_bytes = disk.sector_bytes;
        let node = disk.find(path).expect("a file to lose from");
        let file = disk.file_mut(node).expect("a file to lose from");
        file.replace(offset / sector_bytes as u64, vec![0; sector_bytes].into(), sector_bytes)
    }

    /// A write that arrived elsewhere: the sector in which `from` lies is lost, and what it held is found where `to`
    /// lies. False, and nothing is done, if that makes no difference. Panics if there are no such files.
    pub fn misdirect(&self, from: (&Path, u64), to: (&Path, u64)) -> bool {
        let mut disk = self.disk();
        let sector_bytes = disk.sector_bytes;
        let node = disk.find(from.0).expect("a file to lose from");
        let file = disk.file_mut(node).expect("a file to lose from");
        let content = file.live.sector(from.1 / sector_bytes as u64, sector_bytes);
        if content.iter().all(|byte| *byte == 0) {
            return false;
        }
        let node = disk.find(to.0).expect("a file to find it in");
        let file = disk.file_mut(node).expect("a file to find it in");
        let arrives = file.replace(to.1 / sector_bytes as u64, content.into(), sector_bytes);
        drop(disk);
        arrives && self.lose(from.0, from.1)
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        // A panic while the lock was held would be a defect of this file; the picture may then be half changed.
        self.disk.lock().expect("no call on the disk panics")
    }

    /// Announces an operation and counts it: the gate through which every call goes. Returns the locked disk,
    /// or the failure that was ordered for this call.
    fn begin(
        &self,
        kind: OperationKind,
        target: Target<'_>,
        offset: u64,
        len: usize,
    ) -> io::Result<(MutexGuard<'_, Disk>, Option<Failure>)> {
        let mut disk = self.disk();
        if let Some(hook) = disk.hook.clone() {
            let operation = disk.operation(kind, target, offset, len);
            drop(disk);
            hook(&operation);
            disk = self.disk();
        }
        if let Target::Handle(_, generation) = target
            && generation != disk.generation
        {
            return Err(io::Error::other("the process that opened this file is gone"));
        }
        if kind.is_change() && disk.stop_at == Some(disk.operations) {
            disk.stopped = true;
        }
        if disk.stopped {
            return Err(io::Error::other("the world was stopped"));
        }
        let mut failure = None;
        if !disk.faults.is_empty() {
            let operation = disk.operation(kind, target, offset, len);
            let hit = disk.faults.iter_mut().find(|f| f.times > 0 && (f.matches)(&operation));
            if let Some(fault) = hit {
                fault.times -= 1;
                failure = Some(fault.failure);
            }
        }
        if kind.is_change() {
            disk.operations += 1;
        }
        Ok((disk, failure))
    }

    /// As [`Memory::begin`], for the calls of which nothing happens when they fail.
    fn enter(&self, kind: OperationKind, target: Target<'_>) -> io::Result<MutexGuard<'_, Disk>> {
        match self.begin(kind, target, 0, 0)? {
            (disk, None) => Ok(disk),
            (_, Some(failure)) => Err(failure.into()),
        }
    }
}

/// What is called before each operation.
pub type Hook = Arc<dyn Fn(&Operation) + Send + Sync>;

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> io::Error {
        match failure {
            Failure::Errno(errno) | Failure::Short(_, errno) => io::Error::from_raw_os_error(errno),
            Failure::Lie => io::Error::other("only syncs can lie"),
        }
    }
}

impl Vfs for Memory {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.enter(OperationKind::CreateDir, Target::Path(path))?;
        let mut node = ROOT;
        for name in components(path)? {
            node = match disk.names.get(&(node, name.clone())) {
                Some(&child) => child,
                None => disk.make(node, name, Node::Directory),
            };
            if !matches!(disk.nodes[&node], Node::Directory) {
                return Err(ErrorKind::NotADirectory.into());
            }
        }
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let kind = match mode {
            OpenMode::Create => OperationKind::Create,
            OpenMode::Read | OpenMode::Write => OperationKind::Open,
        };
        let mut disk = self.enter(kind, Target::Path(path))?;
        let node = if mode == OpenMode::Create {
            let (dir, name) = disk.parent(path)?;
            if disk.names.contains_key(&(dir, name.clone())) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            disk.make(dir, name, Node::File(Box::default()))
        } else {
            let node = disk.find(path).ok_or(ErrorKind::NotFound)?;
            if matches!(disk.nodes[&node], Node::Directory) {
                return Err(ErrorKind::IsADirectory.into());
            }
            node
        };
        let writes = mode != OpenMode::Read;
        *disk.handles.entry(node).or_default() += 1;
        Ok(Arc::new(Handle { memory: self.clone(), node, generation: disk.generation, writes }))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut disk = self.enter(OperationKind::Lock, Target::Path(path))?;
        let node = match disk.find(path) {
            Some(node) => node,
            None => {
                let (dir, name) = disk.parent(path)?;
                disk.make(dir, name, Node::File(Box::default()))
            }
        };
        if disk.locked.contains_key(&node) {
            return Err(ErrorKind::WouldBlock.into());
        }
        disk.locked.insert(node, Held::Alone);
        Ok(Box::new(MemoryLock { memory: self.clone(), node, generation: disk.generation }))
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut disk = self.enter(OperationKind::Lock, Target::Path(path))?;
        let node = disk.find(path).ok_or(ErrorKind::NotFound)?;
        match disk.locked.entry(node).or_insert(Held::Shared(0)) {
            Held::Alone => return Err(ErrorKind::WouldBlock.into()),
            Held::Shared(holders) => *holders += 1,
        }
        Ok(Box::new(MemoryLock { memory: self.clone(), node, generation: disk.generation }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.enter(OperationKind::Rename, Target::Path(from))?;
        let from = disk.parent(from)?;
        let to = disk.parent(to)?;
        let node = *disk.names.get(&from).ok_or(ErrorKind::NotFound)?;
        if from == to {
            return Ok(());
        }
        if let Some(&target) = disk.names.get(&to) {
            let moves_dir = matches!(disk.nodes[&node], Node::Directory);
            match disk.nodes[&target] {
                Node::Directory if !moves_dir => return Err(ErrorKind::IsADirectory.into()),
                Node::Directory if disk.children(target).next().is_some() => {
                    return Err(ErrorKind::DirectoryNotEmpty.into());
                }
                Node::File(_) if moves_dir => return Err(ErrorKind::NotADirectory.into()),
                Node::Directory | Node::File(_) => {}
            }
        }
        disk.change_name(NameChange::Rename { from, to, node });
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.enter(OperationKind::Unlink, Target::Path(path))?;
        let place = disk.parent(path)?;
        let node = *disk.names.get(&place).ok_or(ErrorKind::NotFound)?;
        if matches!(disk.nodes[&node], Node::Directory) {
            return Err(ErrorKind::IsADirectory.into());
        }
        disk.change_name(NameChange::Unlink { place, node });
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.enter(OperationKind::List, Target::Path(dir))?;
        let node = disk.directory(dir)?;
        Ok(disk.children(node).map(|(name, _)| name.clone()).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let disk = self.enter(OperationKind::Exists, Target::Path(path))?;
        Ok(disk.find(path).is_some())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let (mut disk, failure) = self.begin(OperationKind::SyncDir, Target::Path(dir), 0, 0)?;
        let node = disk.directory(dir)?;
        match failure {
            Some(Failure::Lie) => Ok(()),
            Some(failure) => Err(failure.into()),
            None => {
                disk.sync_names(node);
                Ok(())
            }
        }
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.enter(OperationKind::RemoveDir, Target::Path(path))?;
        let top = disk.directory(path)?;
        if top == ROOT {
            return Err(ErrorKind::InvalidInput.into());
        }
        let place = disk.parent(path)?;
        disk.remove_tree(top);
        disk.change_name(NameChange::Unlink { place, node: top });
        Ok(())
    }
}

struct Handle {
    memory: Memory,
    node: NodeId,
    generation: u64,
    writes: bool,
}

impl Handle {
    fn begin(
        &self,
        kind: OperationKind,
        offset: u64,
        len: usize,
    ) -> io::Result<(MutexGuard<'_, Disk>, Option<Failure>)> {
        if kind.is_change() && kind != OperationKind::Sync && !self.writes {
            return Err(ErrorKind::PermissionDenied.into());
        }
        self.memory.begin(kind, Target::Handle(self.node, self.generation), offset, len)
    }

    /// Writes `parts` from `offset`, or at the end if it is `None`: all, or what a fault or the space allows.
    fn write(&self, parts: &[&[u8]], offset: Option<u64>) -> io::Result<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let shown = match offset {
            Some(offset) => offset,
            None => self.memory.disk().file_mut(self.node)?.live.len,
        };
        let (mut disk, failure) = self.begin(OperationKind::Write, shown, len)?;
        let room = disk.room();
        let sector_bytes = disk.sector_bytes;
        let file = disk.file_mut(self.node)?;
        let mut at = offset.unwrap_or(file.live.len);
        let fits = (file.live.len + room).saturating_sub(at).min(len as u64) as usize;
        let (mut left, error) = match failure {
            Some(Failure::Errno(_) | Failure::Lie) => (0, failure.map(io::Error::from)),
            Some(Failure::Short(n, _)) => (n.min(len), failure.map(io::Error::from)),
            None if fits < len => (fits, Some(io::Error::from_raw_os_error(ENOSPC))),
            None => (len, None),
        };
        for part in parts {
            let part = &part[..part.len().min(left)];
            file.write(part, at, sector_bytes);
            at += part.len() as u64;
            left -= part.len();
        }
        error.map_or(Ok(()), Err)
    }

    fn set_len(&self, kind: OperationKind, len: u64) -> io::Result<()> {
        let (mut disk, failure) = self.begin(kind, len, 0)?;
        if let Some(failure) = failure {
            return Err(failure.into());
        }
        let (room, sector_bytes) = (disk.room(), disk.sector_bytes);
        let file = disk.file_mut(self.node)?;
        if kind == OperationKind::Preallocate && len <= file.live.len {
            return Ok(());
        }
        if len.saturating_sub(file.live.len) > room {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        file.set_len(len, sector_bytes);
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut disk = self.memory.disk();
        if disk.generation == self.generation
            && let Some(handles) = disk.handles.get_mut(&self.node)
        {
            *handles -= 1;
            if *handles == 0 {
                disk.handles.remove(&self.node);
                disk.sweep(&[self.node]);
            }
        }
    }
}

impl File for Handle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let (mut disk, failure) = self.begin(OperationKind::Read, offset, buffer.len())?;
        if let Some(failure) = failure {
            return Err(failure.into());
        }
        let sector_bytes = disk.sector_bytes;
        Ok(disk.file_mut(self.node)?.live.read(buffer, offset, sector_bytes))
    }

    fn read_now(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        self.read_at(buffer, offset).map(Some)
    }

    fn append_vectored(&self, parts: &[&[u8]]) -> io::Result<()> {
        self.write(parts, None)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write(&[bytes], Some(offset))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(OperationKind::Truncate, len)
    }

    fn len(&self) -> io::Result<u64> {
        let (mut disk, failure) = self.begin(OperationKind::Read, 0, 0)?;
        match failure {
            Some(failure) => Err(failure.into()),
            None => Ok(disk.file_mut(self.node)?.live.len),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let (mut disk, failure) = self.begin(OperationKind::Sync, 0, 0)?;
        let file = disk.file_mut(self.node)?;
        match failure {
            Some(Failure::Lie) => Ok(()),
            Some(failure) => {
                file.abandon();
                Err(failure.into())
            }
            None => {
                file.sync();
                Ok(())
            }
        }
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.set_len(OperationKind::Preallocate, len)
    }
}

struct MemoryLock {
    memory: Memory,
    node: NodeId,
    generation: u64,
}

impl Lock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut disk = self.memory.disk();
        if disk.generation == self.generation {
            match disk.locked.get_mut(&self.node) {
                Some(Held::Shared(holders)) if *holders > 1 => *holders -= 1,
                _ => drop(disk.locked.remove(&self.node)),
            }
        }
    }
}

/// How a lock is held.
#[derive(Clone, Copy, Debug)]
enum Held {
    Alone,
    /// By so many.
    Shared(usize),
}

/// A file or a directory, whatever its name.
type NodeId = u64;

/// The directory above all.
const ROOT: NodeId = 0;

/// A name in a directory.
type PlaceOf = (NodeId, String);

/// What an operation is about.
#[derive(Clone, Copy)]
enum Target<'a> {
    Path(&'a Path),
    /// An open file and the generation in which it was opened.
    Handle(NodeId, u64),
}

struct Fault {
    matches: Arc<dyn Fn(&Operation) -> bool + Send + Sync>,
    times: u64,
    failure: Failure,
}

#[derive(Clone)]
enum Node {
    Directory,
    File(Box<Inode>),
}

/// A change of names that is not durable yet.
#[derive(Clone)]
enum NameChange {
    Link { place: PlaceOf, node: NodeId },
    Unlink { place: PlaceOf, node: NodeId },
    Rename { from: PlaceOf, to: PlaceOf, node: NodeId },
}

impl NameChange {
    fn node(&self) -> NodeId {
        match self {
            NameChange::Link { node, .. }
            | NameChange::Unlink { node, .. }
            | NameChange::Rename { node, .. } => *node,
        }
    }

    fn touches(&self, dir: NodeId) -> bool {
        match self {
            NameChange::Link { place, .. } | NameChange::Unlink { place, .. } => place.0 == dir,
            NameChange::Rename { from, to, .. } => from.0 == dir || to.0 == dir,
        }
    }

    /// Does it, unless what it needs is not there.
    fn apply(&self, names: &mut BTreeMap<PlaceOf, NodeId>) {
        match self {
            NameChange::Link { place, node } => {
                names.insert(place.clone(), *node);
            }
            NameChange::Unlink { place, node } => {
                if names.get(place) == Some(node) {
                    names.remove(place);
                }
            }
            NameChange::Rename { from, to, node } => {
                if names.get(from) == Some(node) {
                    names.remove(from);
                    names.insert(to.clone(), *node);
                }
            }
        }
    }
}

struct Disk {
    sector_bytes: usize,
    seed: u64,
    /// How often the process died: handles and locks of earlier lives are void.
    generation: u64,
    next: NodeId,
    nodes: BTreeMap<NodeId, Node>,
    names: BTreeMap<PlaceOf, NodeId>,
    /// `names` the other way round.
    places: BTreeMap<NodeId, PlaceOf>,
    durable_names: BTreeMap<PlaceOf, NodeId>,
    /// What turns `durable_names` into `names`, in order.
    name_changes: Vec<NameChange>,
    locked: BTreeMap<NodeId, Held>,
    /// How many handles of this life are open on a file.
    handles: BTreeMap<NodeId, usize>,
    operations: u64,
    stop_at: Option<u64>,
    stopped: bool,
    faults: Vec<Fault>,
    capacity: Option<u64>,
    hook: Option<Hook>,
}

impl Disk {
    fn new(seed: u64, sector_bytes: usize) -> Disk {
        Disk {
            sector_bytes,
            seed,
            generation: 0,
            next: ROOT + 1,
            nodes: BTreeMap::from([(ROOT, Node::Directory)]),
            names: BTreeMap::new(),
            places: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            locked: BTreeMap::new(),
            handles: BTreeMap::new(),
            operations: 0,
            stop_at: None,
            stopped: false,
            faults: Vec::new(),
            capacity: None,
            hook: None,
        }
    }

    fn make(&mut self, dir: NodeId, name: String, node: Node) -> NodeId {
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, node);
        self.change_name(NameChange::Link { place: (dir, name), node: id });
        id
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        if let NameChange::Rename { to, .. } = &change {
            // Whoever had the name before is without one now.
            self.places.retain(|_, place| place != to);
        }
        match &change {
            NameChange::Link { place, node } | NameChange::Rename { to: place, node, .. } => {
                self.places.insert(*node, place.clone());
            }
            NameChange::Unlink { node, .. } => {
                self.places.remove(node);
            }
        }
        self.name_changes.push(change);
    }

    fn remove_tree(&mut self, dir: NodeId) {
        let children: Vec<(String, NodeId)> =
            self.children(dir).map(|(name, node)| (name.clone(), node)).collect();
        for (name, node) in children {
            if matches!(self.nodes[&node], Node::Directory) {
                self.remove_tree(node);
            }
            self.change_name(NameChange::Unlink { place: (dir, name), node });
        }
    }

    /// Makes the changes in `dir` durable, and with each of them the earlier ones of the same file, without
    /// which it could not be.
    fn sync_names(&mut self, dir: NodeId) {
        let mut nodes = BTreeSet::new();
        let mut due = vec![false; self.name_changes.len()];
        for (i, change) in self.name_changes.iter().enumerate().rev() {
            if change.touches(dir) || nodes.contains(&change.node()) {
                due[i] = true;
                nodes.insert(change.node());
            }
        }
        let mut due = due.into_iter();
        let durable = &mut self.durable_names;
        self.name_changes.retain(|change| {
            let is_due = due.next().expect("a verdict for each change");
            if is_due {
                change.apply(durable);
            }
            !is_due
        });
        self.sweep(&Vec::from_iter(nodes));
    }

    /// Frees those of `nodes` that nothing leads to any more.
    fn sweep(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            let is_named = self.places.contains_key(node)
                || self.handles.contains_key(node)
                || self.name_changes.iter().any(|change| change.node() == *node)
                || self.durable_names.values().any(|named| named == node);
            if !is_named {
                self.nodes.remove(node);
            }
        }
    }

    fn restart(&mut self) {
        self.generation += 1;
        self.locked.clear();
        let opened = std::mem::take(&mut self.handles);
        self.sweep(&Vec::from_iter(opened.into_keys()));
        self.stopped = false;
        self.stop_at = None;
    }

    fn power_cut(&mut self, decide: &mut dyn FnMut(&Unsynced) -> Fate) {
        let pending = self.unsynced();
        let fates: Vec<Fate> = pending.iter().map(decide).collect();
        let mut fates = pending.iter().zip(fates).peekable();
        let files = self.pending_files();

        for change in std::mem::take(&mut self.name_changes) {
            let (_, fate) = fates.next().expect("a fate for each name");
            if fate == Fate::Kept {
                change.apply(&mut self.durable_names);
            }
        }
        let sector_bytes = self.sector_bytes;
        for node in files {
            let file = self.file_mut(node).expect("only files are pending");
            let mut len = file.durable.len;
            while let Some((unsynced, fate)) = fates.peek() {
                match unsynced {
                    Unsynced::Length { .. } if !file.lens.is_empty() => {
                        let last = file.lens.len() - 1;
                        len = match fate {
                            Fate::Lost => len,
                            Fate::Kept | Fate::Torn(_) => file.lens[last],
                            Fate::Version(n) => file.lens[(*n).min(last)],
                        };
                        file.lens.clear();
                    }
                    Unsynced::Sector { sector, .. } if file.pending.contains_key(sector) => {
                        file.settle(*sector, *fate, sector_bytes);
                    }
                    // The next file's.
                    _ => break,
                }
                fates.next();
            }
            file.durable.len = len;
            file.durable.cut(sector_bytes);
        }
        assert!(fates.next().is_none(), "a fate was left over");

        self.names = self.durable_names.clone();
        self.places = self.names.iter().map(|(place, &node)| (node, place.clone())).collect();
        let reachable = self.reachable();
        self.nodes.retain(|node, _| reachable.contains(node));
        self.names.retain(|(dir, _), _| reachable.contains(dir));
        self.durable_names.retain(|(dir, _), _| reachable.contains(dir));
        self.places.retain(|node, _| reachable.contains(node));
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                let durable = std::mem::take(&mut file.durable);
                **file = Inode { live: durable.clone(), durable, ..Inode::default() };
            }
        }
        self.restart();
    }

    fn unsynced(&self) -> Vec<Unsynced> {
        let mut all: Vec<Unsynced> =
            self.name_changes.iter().map(|change| Unsynced::Name(self.in_words(change))).collect();
        for node in self.pending_files() {
            let path = self.path_of(node);
            if let Node::File(file) = &self.nodes[&node] {
                if !file.lens.is_empty() {
                    all.push(Unsynced::Length { path: path.clone(), versions: file.lens.len() });
                }
                all.extend(file.pending.iter().map(|(&sector, versions)| Unsynced::Sector {
                    path: path.clone(),
                    sector,
                    versions: versions.len(),
                }));
            }
        }
        all
    }

    /// The files with pending bytes that may still have a name after a power cut.
    fn pending_files(&self) -> Vec<NodeId> {
        let mut named: BTreeSet<NodeId> = self.durable_names.values().copied().collect();
        named.extend(self.name_changes.iter().map(NameChange::node));
        let is_pending = |node: &NodeId| match self.nodes.get(node) {
            Some(Node::File(file)) => !file.lens.is_empty() || !file.pending.is_empty(),
            Some(Node::Directory) | None => false,
        };
        named.into_iter().filter(is_pending).collect()
    }

    fn reachable(&self) -> BTreeSet<NodeId> {
        let mut reached = BTreeSet::from([ROOT]);
        let mut todo = vec![ROOT];
        while let Some(dir) = todo.pop() {
            for (_, node) in self.children(dir) {
                if reached.insert(node) {
                    todo.push(node);
                }
            }
        }
        reached
    }

    fn children(&self, dir: NodeId) -> impl Iterator<Item = (&String, NodeId)> {
        self.names
            .range((dir, String::new())..(dir + 1, String::new()))
            .map(|((_, name), &node)| (name, node))
    }

    fn find(&self, path: &Path) -> Option<NodeId> {
        let mut node = ROOT;
        for name in components(path).ok()? {
            node = *self.names.get(&(node, name))?;
        }
        Some(node)
    }

    fn directory(&self, path: &Path) -> io::Result<NodeId> {
        let node = self.find(path).ok_or(ErrorKind::NotFound)?;
        match self.nodes[&node] {
            Node::Directory => Ok(node),
            Node::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    /// The directory in which `path` stands, which exists, and its name there.
    fn parent(&self, path: &Path) -> io::Result<PlaceOf> {
        let mut names = components(path)?;
        let last = names.pop().ok_or(ErrorKind::InvalidInput)?;
        let mut node = ROOT;
        for name in names {
            node = *self.names.get(&(node, name)).ok_or(ErrorKind::NotFound)?;
        }
        match self.nodes[&node] {
            Node::Directory => Ok((node, last)),
            Node::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn file_mut(&mut self, node: NodeId) -> io::Result<&mut Inode> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Directory) => Err(ErrorKind::IsADirectory.into()),
            None => Err(io::Error::other("the file went with the power")),
        }
    }

    fn path_of(&self, node: NodeId) -> PathBuf {
        if node != ROOT && !self.places.contains_key(&node) {
            return PathBuf::new();
        }
        let mut names = Vec::new();
        let mut at = node;
        while let Some((dir, name)) = self.places.get(&at) {
            names.push(name.as_str());
            at = *dir;
        }
        names.iter().rev().fold(PathBuf::from("/"), |path, name| path.join(name))
    }

    fn in_words(&self, change: &NameChange) -> String {
        let show = |(dir, name): &PlaceOf| self.path_of(*dir).join(name).display().to_string();
        match change {
            NameChange::Link { place, .. } => format!("create {}", show(place)),
            NameChange::Unlink { place, .. } => format!("unlink {}", show(place)),
            NameChange::Rename { from, to, .. } => format!("rename {} to {}", show(from), show(to)),
        }
    }

    fn operation(
        &self,
        kind: OperationKind,
        target: Target<'_>,
        offset: u64,
        len: usize,
    ) -> Operation {
        let path = match target {
            Target::Path(path) => path.to_path_buf(),
            Target::Handle(node, _) => self.path_of(node),
        };
        Operation { number: self.operations, kind, path, offset, len }
    }

    fn used(&self) -> u64 {
        let len = |node: &NodeId| match &self.nodes[node] {
            Node::File(file) => file.live.len,
            Node::Directory => 0,
        };
        self.places.keys().map(len).sum()
    }

    /// How many bytes files may still grow.
    fn room(&self) -> u64 {
        match self.capacity {
            // Half of the numbers, so that a length and the room can be added.
            None => u64::MAX / 2,
            Some(capacity) => capacity.saturating_sub(self.used()),
        }
    }
}

/// A file's content, of which sectors that were never written, or were cut off, are not kept and read as zeros.
#[derive(Clone, Default)]
struct Content {
    len: u64,
    sectors: BTreeMap<u64, Arc<[u8]>>,
}

impl Content {
    fn sector(&self, sector: u64, sector_bytes: usize) -> Vec<u8> {
        match self.sectors.get(&sector) {
            Some(bytes) => bytes.to_vec(),
            None => vec![0; sector_bytes],
        }
    }

    fn read(&self, buffer: &mut [u8], offset: u64, sector_bytes: usize) -> usize {
        let n = self.len.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let mut filled = 0;
        while filled < n {
            let at = offset + filled as u64;
            let (sector, start) = (at / sector_bytes as u64, (at % sector_bytes as u64) as usize);
            let take = (sector_bytes - start).min(n - filled);
            let target = &mut buffer[filled..filled + take];
            match self.sectors.get(&sector) {
                Some(bytes) => target.copy_from_slice(&bytes[start..start + take]),
                None => target.fill(0),
            }
            filled += take;
        }
        n
    }

    /// Forgets what lies at or behind `len`, so that it reads as zeros if the file grows again.
    fn cut(&mut self, sector_bytes: usize) {
        let whole = self.len / sector_bytes as u64;
        let rest = (self.len % sector_bytes as u64) as usize;
        let mut behind = self.sectors.split_off(&whole);
        if rest > 0
            && let Some(bytes) = behind.remove(&whole)
        {
            let mut bytes = bytes.to_vec();
            bytes[rest..].fill(0);
            self.sectors.insert(whole, bytes.into());
        }
    }
}

/// A file.
#[derive(Clone, Default)]
struct Inode {
    live: Content,
    durable: Content,
    /// For each sector changed since the last sync: what it held after each change, the live one last.
    pending: BTreeMap<u64, Vec<Arc<[u8]>>>,
    /// The lengths since the last sync, the live one last.
    lens: Vec<u64>,
    /// Pending sectors that a failed sync gave up, until they are written anew.
    abandoned: BTreeSet<u64>,
    /// Whether a failed sync gave up the length.
    abandoned_len: bool,
}

impl Inode {
    fn write(&mut self, mut bytes: &[u8], mut offset: u64, sector_bytes: usize) {
        while !bytes.is_empty() {
            let (sector, at) =
                (offset / sector_bytes as u64, (offset % sector_bytes as u64) as usize);
            let take = (sector_bytes - at).min(bytes.len());
            let content: Arc<[u8]> = if take == sector_bytes {
                bytes[..take].into()
            } else {
                let mut content = self.live.sector(sector, sector_bytes);
                content[at..at + take].copy_from_slice(&bytes[..take]);
                content.into()
            };
            self.change(sector, content);
            offset += take as u64;
            bytes = &bytes[take..];
            if offset > self.live.len {
                self.live.len = offset;
                self.change_len(offset);
            }
        }
    }

    /// A sector becomes another, live and durable. Whether that was a change.
    fn replace(&mut self, sector: u64, content: Arc<[u8]>, sector_bytes: usize) -> bool {
        let held = self.live.sector(sector, sector_bytes);
        for of in [&mut self.live, &mut self.durable] {
            of.sectors.insert(sector, content.clone());
        }
        held[..] != content[..]
    }

    fn set_len(&mut self, len: u64, sector_bytes: usize) {
        if len < self.live.len {
            let before = self.live.clone();
            self.live.len = len;
            self.live.cut(sector_bytes);
            for (&sector, bytes) in before.sectors.range(len / sector_bytes as u64..) {
                let content = match self.live.sectors.get(&sector) {
                    Some(content) if Arc::ptr_eq(content, bytes) => continue,
                    Some(content) => content.clone(),
                    None => vec![0; sector_bytes].into(),
                };
                self.note(sector, content);
            }
        }
        if len != self.live.len || self.lens.last().is_none_or(|&last| last != len) {
            self.live.len = len;
            self.change_len(len);
        }
    }

    fn change(&mut self, sector: u64, content: Arc<[u8]>) {
        self.live.sectors.insert(sector, content.clone());
        self.note(sector, content);
    }

    fn note(&mut self, sector: u64, content: Arc<[u8]>) {
        self.abandoned.remove(&sector);
        let versions = self.pending.entry(sector).or_default();
        if versions.len() == VERSIONS_MAX {
            versions.remove(0);
        }
        versions.push(content);
    }

    fn change_len(&mut self, len: u64) {
        self.abandoned_len = false;
        if self.lens.len() == VERSIONS_MAX {
            self.lens.remove(0);
        }
        self.lens.push(len);
    }

    fn sync(&mut self) {
        let given_up = &self.abandoned;
        let (live, durable) = (&self.live, &mut self.durable);
        self.pending.retain(|sector, _| {
            if given_up.contains(sector) {
                return true;
            }
            match live.sectors.get(sector) {
                Some(bytes) => durable.sectors.insert(*sector, bytes.clone()),
                None => durable.sectors.remove(sector),
            };
            false
        });
        if !self.abandoned_len {
            self.durable.len = self.live.len;
            self.lens.clear();
        }
    }

    fn abandon(&mut self) {
        self.abandoned.extend(self.pending.keys());
        self.abandoned_len |= !self.lens.is_empty();
    }

    /// Decides over one pending sector.
    fn settle(&mut self, sector: u64, fate: Fate, sector_bytes: usize) {
        let versions = self.pending.remove(&sector).expect("the sector is pending");
        let last = versions.len() - 1;
        let content = match fate {
            Fate::Lost => return,
            Fate::Kept => versions[last].clone(),
            Fate::Version(n) => versions[n.min(last)].clone(),
            Fate::Torn(n) => {
                let n = n.min(sector_bytes);
                let mut content = self.durable.sector(sector, sector_bytes);
                content[..n].copy_from_slice(&versions[last][..n]);
                content.into()
            }
        };
        self.durable.sectors.insert(sector, content);
    }
}

/// The names that lead from the root to `path`; relative and absolute paths mean the same.
fn components(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => {
                let name = name.to_str().ok_or(ErrorKind::InvalidInput)?;
                names.push(name.to_owned());
            }
            Component::ParentDir | Component::Prefix(_) => {
                return Err(ErrorKind::InvalidInput.into());
            }
        }
    }
    Ok(names)
}

/// A splitmix64 sequence: enough to decide, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
