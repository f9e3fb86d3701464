//! Snapshots between members: sending one as a stream, and receiving one into a file.
//!
//! A snapshot travels beside raft's message: the message names its place (index, term, configuration), the stream
//! carries all records and small tables as of exactly that place.
//!
//! ```text
//!   sender                                          receiver
//!   flush: pin the last written frame boundary      Incoming::create: member/incoming/<index>-<term>.part
//!   replica: OutgoingSnapshot {message, stream}     Incoming::write(chunk) …
//!   read thread: stream.next_chunk() …  ─────────▶  Incoming::finish: check whole, sync, name it .snap, sync directory
//!   Input::SnapshotSent                             Input::SnapshotReceived → log: mark → acknowledge → import
//! ```
//!
//! The stream, and the file byte for byte the same (numbers little-endian, CRC-32C):
//!
//! ```text
//!   "QUOSNAP1"  cluster u64  index u64  term u64  crc u32 of these 32 bytes
//!   len u32  crc u32  len bytes of the store's stream        any number of times
//!   0 u32    crc u32  total u64 (crc of these 8 bytes)       the end: how many bytes the store's stream has
//! ```
//!
//! The file is checked as it lies on disk before anybody hears that it is there. For once the log names it, this
//! member has promised to hold what is in it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use mutant::Mutant;
use raft::{Index, Message, NodeId, Term};
use vfs::{File, OpenMode, Vfs};

use crate::config::Config;

const MAGIC: &[u8; 8] = b"QUOSNAP1";
const HEAD_BYTES: usize = 8 + 24 + 4;
const CHUNK_BYTES: usize = 1 << 20;
/// No chunk is larger, whatever its head says: the store cuts its stream at about `CHUNK_BYTES`, and a record is
/// bounded by the largest request.
const CHUNK_BYTES_MAX: usize = 64 << 20;

/// A snapshot on its way out. The driver sends the message and then the chunks to `to`, reading each chunk on a read
/// thread, and tells the replica the end by [`crate::Input::SnapshotSent`]. Dropping it lets the files go.
#[derive(Debug)]
pub struct OutgoingSnapshot {
    /// To whom.
    pub to: NodeId,
    /// raft's message, of kind `Snap`.
    pub message: Message,
    /// What it stands for.
    pub stream: SnapshotStream,
}

/// The records and tables of the store as of one frame boundary, in chunks.
pub struct SnapshotStream {
    snapshot: store::Snapshot,
    place: (Index, Term),
    // What the compaction at the snapshot's mark has left is told by the index, as long as the pin holds; without it
    // everything is streamed.
    living: Option<(mvcc::Pin, mvcc::Reader)>,
    head: Option<Bytes>,
    total: u64,
    ended: bool,
}

impl fmt::Debug for SnapshotStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotStream")
            .field("place", &self.place)
            .field("total", &self.total)
            .finish()
    }
}

impl SnapshotStream {
    /// The index has lost nothing yet that lives at the snapshot's mark, for it loses only what a written compaction
    /// killed, and the mark is that of the last one. The pin keeps it so.
    pub(crate) fn new(snapshot: store::Snapshot, reader: mvcc::Reader) -> SnapshotStream {
        let header = snapshot.header();
        let mark = header.compact_revision;
        // If the mark has moved on meanwhile nothing can be pinned there; without one nothing is dead.
        let pin = if mark > 0 { reader.pin(mark).ok() } else { None };
        let mut head = BytesMut::with_capacity(HEAD_BYTES);
        head.put_slice(MAGIC);
        head.put_u64_le(header.cluster_id);
        head.put_u64_le(header.applied_index);
        head.put_u64_le(header.applied_term);
        let crc = crc32c::crc32c(&head);
        head.put_u32_le(crc);
        SnapshotStream {
            place: (Index(header.applied_index), Term(header.applied_term)),
            snapshot,
            living: pin.map(|pin| (pin, reader)),
            head: Some(head.freeze()),
            total: 0,
            ended: false,
        }
    }

    /// The next chunk, of a MiB or so; `None` at the end. It reads the disk.
    pub fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(head) = self.head.take() {
            return Ok(Some(head));
        }
        if self.ended {
            return Ok(None);
        }
        // Once the pin is revoked the index says nothing about this snapshot any more. Records come in ascending order of
        // revision, so from then on a deletion is never left out that guards a put which is not.
        let living = &self.living;
        let mut needed = |key: &[u8], revision| match living {
            None => true,
            Some((pin, reader)) => reader.is_live(key, revision) || pin.is_revoked(),
        };
        let content =
            self.snapshot.next_chunk(CHUNK_BYTES, &mut needed).map_err(io::Error::other)?;
        if let Some((pin, _)) = living {
            pin.touch();
        }
        let mut out = BytesMut::new();
        match content {
            Some(content) if content.is_empty() => return self.next_chunk(),
            Some(content) => {
                self.total += content.len() as u64;
                out.reserve(8 + content.len());
                out.put_u32_le(u32::try_from(content.len()).expect("a chunk is far below 4 GiB"));
                out.put_u32_le(crc32c::crc32c(&content));
                out.put_slice(&content);
            }
            None => {
                self.ended = true;
                let total = self.total.to_le_bytes();
                out.put_u32_le(0);
                out.put_u32_le(crc32c::crc32c(&total));
                out.put_slice(&total);
            }
        }
        Ok(Some(out.freeze()))
    }

    /// Where it stands.
    pub fn place(&self) -> (Index, Term) {
        self.place
    }
}

/// The door through which snapshots come in, one at a time.
///
/// Two of the same place would write under one name:
/// 1. A is whole and is being synced; its sender has lost patience and sends the same snapshot again, as B.
/// 2. B begins its own file under the name of A's.
/// 3. A, synced at last, renames what now is B's: a file with a hole where its end should be gets the name that the
///    log then vouches for.
///
/// And one that is not wanted is deleted later, by the flush worker:
/// 1. A comes while another is being installed, so it is to be deleted. The disk is slow.
/// 2. A comes again, and now it is wanted: the log vouches for it.
/// 3. What was said of A's first coming is done, and A is gone.
///
/// So who is received holds the door until it was dropped unfinished, or was deleted, as each is in the end; on whatever
/// thread that happens.
#[derive(Clone, Debug, Default)]
pub struct Receptions {
    under_way: Arc<AtomicBool>,
}

impl Receptions {
    /// Begins a reception. `message` is the `Snap` message that announced it.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] while another is under way, or its file is still there: its sender tries again. Else
    /// the disk's.
    pub fn begin(
        &self,
        vfs: Arc<dyn Vfs>,
        config: &Config,
        message: &Message,
    ) -> io::Result<Incoming> {
        if self.under_way.swap(true, Ordering::AcqRel) {
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "another snapshot is being received or installed",
            ));
        }
        Incoming::create(vfs, config, message, Arc::new(Door(self.under_way.clone())))
    }
}

/// Opens the door again when dropped.
#[derive(Debug, Default)]
struct Door(Arc<AtomicBool>);

impl Drop for Door {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A snapshot on its way in: a file under `member/incoming/` that takes bytes as they come, in pieces of any size. It
/// is written by whatever thread receives, and is deleted when dropped unfinished.
pub struct Incoming {
    vfs: Arc<dyn Vfs>,
    part: PathBuf,
    file: Option<Arc<dyn File>>,
    received: Received,
    cluster_id: u64,
}

impl Incoming {
    fn create(
        vfs: Arc<dyn Vfs>,
        config: &Config,
        message: &Message,
        door: Arc<Door>,
    ) -> io::Result<Incoming> {
        let Some(snapshot) = &message.snapshot else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a snapshot message without a snapshot",
            ));
        };
        let (index, term) = (snapshot.metadata.index, snapshot.metadata.term);
        let dir = incoming_dir(&config.data_dir);
        let path = dir.join(file_name(index, term));
        let part = path.with_extension("part");
        if vfs.exists(&part)? {
            vfs.unlink(&part)?;
        }
        let file = vfs.open(&part, OpenMode::Create)?;
        let cluster_id = config.identity.cluster_id;
        Ok(Incoming {
            vfs,
            part,
            file: Some(file),
            received: Received { path, index, term, _door: door },
            cluster_id,
        })
    }

    /// Takes the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.as_ref().expect("an unfinished snapshot has its file").append(bytes)
    }

    /// Checks that it is whole, syncs it, gives it its name and syncs the directory.
    pub fn finish(mut self) -> io::Result<Received> {
        let file = self.file.take().expect("an unfinished snapshot has its file");
        let result = self.finish_file(&*file);
        if result.is_err() {
            self.remove();
        }
        result.map(|()| self.received.clone())
    }

    fn finish_file(&self, file: &dyn File) -> io::Result<()> {
        let head = read_chunks(file, &mut |_| Ok(()))?;
        let expected = (self.cluster_id, self.received.index, self.received.term);
        if head != expected {
            return Err(invalid(format!(
                "a snapshot of cluster {:x} at index {} of term {}, announced as of cluster {:x} at {} of {}",
                head.0, head.1, head.2, expected.0, expected.1, expected.2
            )));
        }
        file.sync()?;
        self.vfs.rename(&self.part, &self.received.path)?;
        if mutant::is(Mutant::ReceivedNameUnsynced) {
            return Ok(());
        }
        // The log will name this file, so its name must be as durable as its bytes.
        self.vfs.sync_dir(self.received.path.parent().expect("it lies in incoming"))
    }

    fn remove(&self) {
        // What stays is a leftover: the next start deletes it.
        let _leftover = self.vfs.unlink(&self.part);
    }
}

impl Drop for Incoming {
    // Its fields are dropped behind this: the part is gone before the door opens.
    fn drop(&mut self) {
        if self.file.is_some() {
            self.remove();
        }
    }
}

/// A snapshot in `member/incoming/`, whole and durable. No other is received while one of these is about.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its file.
    pub path: PathBuf,
    /// Where it stands.
    pub index: Index,
    /// The term of that index.
    pub term: Term,
    _door: Arc<Door>,
}

impl Received {
    /// The one that a former process received.
    pub(crate) fn found(path: PathBuf, index: Index, term: Term) -> Received {
        Received { path, index, term, _door: Arc::default() }
    }

    /// Hands the store's stream in it to `take`, chunk by chunk, checking each.
    pub(crate) fn read(
        &self,
        vfs: &dyn Vfs,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let file = vfs.open(&self.path, OpenMode::Read)?;
        let (_, index, term) = read_chunks(&*file, take)?;
        if (index, term) != (self.index, self.term) {
            return Err(invalid(format!(
                "it is at index {index} of term {term}, not what its name says"
            )));
        }
        Ok(())
    }
}

/// A received snapshot after its import: what apply needs to take it over.
pub struct Imported {
    /// Where it stands.
    pub index: Index,
    /// The term of that index.
    pub term: Term,
    pub(crate) keyspace: mvcc::Keyspace,
    pub(crate) rows: Vec<store::Row>,
}

impl fmt::Debug for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imported").field("index", &self.index).field("term", &self.term).finish()
    }
}

/// Where received snapshots lie.
pub(crate) fn incoming_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("member").join("incoming")
}

/// The name of a received snapshot.
pub(crate) fn file_name(index: Index, term: Term) -> String {
    format!("{:016x}-{:016x}.snap", index.0, term.0)
}

/// Walks over a snapshot's file, checking everything, and returns cluster, index and term.
fn read_chunks(
    file: &dyn File,
    take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<(u64, Index, Term)> {
    let u32_at = |bytes: &[u8], at: usize| {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes are four bytes"))
    };
    let u64_at = |bytes: &[u8], at: usize| {
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes are eight bytes"))
    };
    let mut head = [0; HEAD_BYTES];
    file.read_exact_at(&mut head, 0)?;
    if &head[..8] != MAGIC || u32_at(&head, 32) != crc32c::crc32c(&head[..32]) {
        return Err(invalid("its beginning is not that of a snapshot".to_owned()));
    }
    let place = (u64_at(&head, 8), Index(u64_at(&head, 16)), Term(u64_at(&head, 24)));
    let (mut offset, mut total) = (HEAD_BYTES as u64, 0u64);
    let mut chunk = Vec::new();
    loop {
        let mut frame = [0; 8];
        file.read_exact_at(&mut frame, offset)?;
        let (len, crc) = (u32_at(&frame, 0) as usize, u32_at(&frame, 4));
        if len > CHUNK_BYTES_MAX {
            return Err(invalid(format!("a chunk of {len} bytes at byte {offset}")));
        }
        chunk.resize(if len == 0 { 8 } else { len }, 0);
        file.read_exact_at(&mut chunk, offset + 8)?;
        if crc32c::crc32c(&chunk) != crc {
            return Err(invalid(format!("the chunk at byte {offset} does not have its checksum")));
        }
        offset += 8 + chunk.len() as u64;
        if len == 0 {
            break;
        }
        total += len as u64;
        take(&chunk)?;
    }
    if u64_at(&chunk, 0) != total || offset != file.len()? {
        return Err(invalid(format!("it has {total} bytes of content and ends at byte {offset}")));
    }
    Ok(place)
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use vfs::memory::Memory;

    use super::*;

    /// The second of two receptions is refused until the first is finished or given up, wherever that happens: its
    /// file would have the same name.
    #[test]
    fn one_snapshot_is_received_at_a_time() {
        let memory = Memory::new(1);
        let identity = crate::Identity { node_id: 1, cluster_id: 7 };
        let config = Config::new(identity, "/data");
        memory.create_dir_all(&incoming_dir(&config.data_dir)).unwrap();
        let metadata =
            raft::SnapshotMetadata { index: Index(5), term: Term(2), ..Default::default() };
        let announcement = Message {
            snapshot: Some(Box::new(raft::Snapshot { metadata, ..Default::default() })),
            ..Default::default()
        };
        let begin = |receptions: &Receptions| {
            receptions.begin(Arc::new(memory.clone()), &config, &announcement)
        };
        let receptions = Receptions::default();
        let mut first = begin(&receptions).unwrap();
        first.write(b"the beginning of something long").unwrap();
        let refused = begin(&receptions.clone()).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert!(memory.exists(&first.part).unwrap(), "the first goes on");

        first.finish().expect_err("what came is no snapshot");
        let second = begin(&receptions).expect("the door is open again after a failure");
        drop(second);
        begin(&receptions).expect("and after one that was given up");
    }
}
