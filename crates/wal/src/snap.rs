//! Snapshots in files, in etcd's format and naming: for those whose state fits into memory as one piece.
//!
//! ```text
//!   0000000000000003-000000000000271a.snap           term and index, in hexadecimal
//!   ┌──────────────┬────────────────────────────┐
//!   │ 1: CRC-32C   │ 2: raftpb Snapshot         │    a protobuf message of two fields;
//!   └──────────────┴────────────────────────────┘    the checksum is that of the second one's bytes
//! ```
//!
//! A snapshot, one's own or the leader's, is kept in this order: its file, and its record in the log ([`keep`]); a sync
//! of the log; then what it replaces may go ([`release`], [`Wal::release`]). So the file of the log's newest record is
//! there, whatever happened, and a start begins with it ([`open`]). [`Storage`] does all of it for a node that does one thing
//! at a time.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use raft::{Index, Ready, Snapshot, Term};
use vfs::{Lock, OpenMode, Vfs};

use crate::{Metadata, OpenError, Options, Recovered, SnapshotRecord, Wal, WriteError};
use crate::{codec, recover};

/// What a file is called until it is whole.
const SPARE: &str = "snap.tmp";

/// A log and the snapshots beside it: all that such a node remembers. Nobody else has them meanwhile.
pub struct Storage {
    /// The log.
    pub wal: Wal,
    vfs: Arc<dyn Vfs>,
    /// Where the snapshots are.
    dir: PathBuf,
    _lock: Box<dyn Lock>,
}

impl Storage {
    /// Opens log and snapshots as [`open`] does. `WouldBlock` if somebody else has them open.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        log: impl AsRef<Path>,
        dir: impl AsRef<Path>,
        metadata: Metadata,
        options: Options,
    ) -> Result<(Storage, Snapshot, Recovered), OpenError> {
        let (log, dir) = (log.as_ref(), dir.as_ref());
        let _lock = vfs.lock(&log.with_extension("lock")).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                OpenError::Io(io::Error::new(error.kind(), "somebody else has it open"))
            }
            _ => OpenError::Io(error),
        })?;
        let (wal, snapshot, recovered) = open(vfs.clone(), log, dir, metadata, options)?;
        Ok((Storage { wal, vfs, dir: dir.to_owned(), _lock }, snapshot, recovered))
    }

    /// Writes what a `Ready` wants remembered: a received snapshot, entries, the state. On return it is durable, if it must
    /// be before `messages_after_persist` leave.
    pub fn save(&mut self, ready: &Ready) -> Result<(), WriteError> {
        if let Some(snapshot) = &ready.snapshot {
            keep(&*self.vfs, &self.dir, &mut self.wal, snapshot)?;
        }
        self.wal.append(&ready.entries, ready.hard_state.as_ref())?;
        if ready.must_sync || ready.snapshot.is_some() {
            self.wal.sync()?;
        }
        Ok(())
    }

    /// Keeps a snapshot of one's own, which is durable on return. Then what it replaces goes: the snapshots before it, and the
    /// files of the log that hold nothing above `unneeded`, which is at or below it.
    pub fn keep(&mut self, snapshot: &Snapshot, unneeded: Index) -> Result<(), WriteError> {
        keep(&*self.vfs, &self.dir, &mut self.wal, snapshot)?;
        self.wal.sync()?;
        self.wal.release(unneeded)?;
        release(&*self.vfs, &self.dir, snapshot.metadata.index)
    }
}

/// Opens the log in `log`, or makes a new one, together with the snapshots in `dir`, which is made if it is missing:
/// what comes back is the newest snapshot, the default if there is none, and what the log holds after it.
pub fn open(
    vfs: Arc<dyn Vfs>,
    log: &Path,
    dir: &Path,
    metadata: Metadata,
    options: Options,
) -> Result<(Wal, Snapshot, Recovered), OpenError> {
    vfs.create_dir_all(dir).map_err(OpenError::Io)?;
    vfs.sync_dir(dir.parent().unwrap_or(Path::new(""))).map_err(OpenError::Io)?;
    if !Wal::exists(&*vfs, log).map_err(OpenError::Io)? {
        Wal::create(vfs.clone(), log, metadata, options.clone())
            .map_err(|error| OpenError::Io(error.error))?;
    }
    let snapshot = match recover::newest_snapshot(&*vfs, log)? {
        Some(record) => load(&*vfs, dir, &record)?,
        None => Snapshot::default(),
    };
    let (wal, recovered) = Wal::open(vfs, log, snapshot.metadata.index, options)?;
    Ok((wal, snapshot, recovered))
}

/// Writes a snapshot's file into `dir`, where it is durable on return, and its record into the log, where it is durable
/// with the next sync. If the snapshot is the leader's, append a state with commit ≥ its index before that sync.
pub fn keep(
    vfs: &dyn Vfs,
    dir: &Path,
    wal: &mut Wal,
    snapshot: &Snapshot,
) -> Result<(), WriteError> {
    let place = &snapshot.metadata;
    save(vfs, dir, snapshot).map_err(|error| WriteError {
        doing: format!("writing the snapshot at index {} into {}", place.index, dir.display()),
        error,
    })?;
    let (index, term, conf_state) = (place.index, place.term, Some(place.conf_state.clone()));
    wal.save_snapshot(&SnapshotRecord { index, term, conf_state })
}

/// Unlinks the snapshots below this index; call it when the record of one at or above it is durable. They may come back
/// when the power goes, and then do no harm.
pub fn release(vfs: &dyn Vfs, dir: &Path, below: Index) -> Result<(), WriteError> {
    let unlink = || -> io::Result<()> {
        for name in vfs.list(dir)? {
            if index_of(&name).is_some_and(|index| index < below) {
                vfs.unlink(&dir.join(name))?;
            }
        }
        Ok(())
    };
    unlink().map_err(|error| WriteError {
        doing: format!("unlinking a released snapshot in {}", dir.display()),
        error,
    })
}

fn save(vfs: &dyn Vfs, dir: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let mut data = BytesMut::with_capacity(codec::snapshot_len(snapshot));
    codec::encode_snapshot(snapshot, &mut data);
    let mut head = Vec::new();
    codec::encode_snapshot_file_head(crc32c::crc32c(&data), data.len(), &mut head);
    let spare = dir.join(SPARE);
    if vfs.exists(&spare)? {
        vfs.unlink(&spare)?;
    }
    let file = vfs.open(&spare, OpenMode::Create)?;
    file.append_vectored(&[&head, &data])?;
    file.sync()?;
    vfs.rename(&spare, &dir.join(name(snapshot.metadata.index, snapshot.metadata.term)))?;
    vfs.sync_dir(dir)
}

/// Reads the snapshot that a record of the log speaks of.
fn load(vfs: &dyn Vfs, dir: &Path, record: &SnapshotRecord) -> Result<Snapshot, OpenError> {
    let path = dir.join(name(record.index, record.term));
    let read = || -> io::Result<Bytes> {
        let file = vfs.open(&path, OpenMode::Read)?;
        let len = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Bytes::from(bytes))
    };
    let bytes = read().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            OpenError::Gap(format!("the log needs the snapshot {}", path.display()))
        }
        _ => OpenError::Io(error),
    })?;
    let rotten = |what: &str| OpenError::Rotten {
        file: path.clone(),
        offset: 0,
        what: format!("the snapshot holds {what}"),
    };
    let (crc, data) = codec::decode_snapshot_file(&bytes).map_err(|error| rotten(error.0))?;
    if crc32c::crc32c(&data) != crc {
        return Err(rotten("other bytes than were written"));
    }
    let snapshot = codec::decode_snapshot(&data).map_err(|error| rotten(error.0))?;
    if (snapshot.metadata.index, snapshot.metadata.term) != (record.index, record.term) {
        return Err(rotten("the state of another place"));
    }
    Ok(snapshot)
}

fn name(index: Index, term: Term) -> String {
    format!("{:016x}-{:016x}.snap", term.0, index.0)
}

fn index_of(name: &str) -> Option<Index> {
    let (term, index) = name.strip_suffix(".snap")?.split_once('-')?;
    u64::from_str_radix(term, 16).ok()?;
    u64::from_str_radix(index, 16).ok().map(Index)
}
