//! Snapshots between members: sending one as a stream, and receiving one into a file.
//!
//! A snapshot travels beside raft's message: the message names its place (index, term, configuration), the stream
//! carries all records and small tables as of exactly that place.
//!
//! ```text
//!   sender                                          receiver
//!   flush: pin the last durable frame boundary      Incoming::create: member/incoming/<index>-<term>.part
//!   replica: OutgoingSnapshot {message, stream}     Incoming::write(chunk) …
//!   read thread: stream.next_chunk() …  ─────────▶  Incoming::finish: check whole, sync, name, sync directory
//!   Input::SnapshotSent                             Input::SnapshotReceived
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use raft::{Index, Message, NodeId, Term};
use vfs::Vfs;

/// A snapshot on its way out. The driver sends the message's head and then the chunks to `to`, reading each chunk on
/// a read thread, and tells the replica the end by [`crate::Input::SnapshotSent`]. Dropping it releases the pin.
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
#[derive(Debug)]
pub struct SnapshotStream {
    index: Index,
    term: Term,
}

impl SnapshotStream {
    /// The next chunk, of 1 MiB or less; `None` at the end. It reads the disk.
    pub fn next_chunk(&mut self) -> std::io::Result<Option<Bytes>> {
        unimplemented!("SnapshotStream::next_chunk")
    }

    /// Where it stands.
    pub fn place(&self) -> (Index, Term) {
        (self.index, self.term)
    }
}

/// A snapshot on its way in: a file under `member/incoming/` that takes chunks as they come. It is written by
/// whatever thread receives, and is deleted when dropped unfinished.
pub struct Incoming {
    _vfs: Arc<dyn Vfs>,
}

impl Incoming {
    /// Begins one. `message` is the `Snap` message that announced it. At most two may be under way.
    pub fn create(
        _vfs: Arc<dyn Vfs>,
        _config: &crate::Config,
        _message: &Message,
    ) -> std::io::Result<Incoming> {
        unimplemented!("Incoming::create")
    }

    /// Takes the next bytes.
    pub fn write(&mut self, _chunk: &[u8]) -> std::io::Result<()> {
        unimplemented!("Incoming::write")
    }

    /// Checks that it is whole, syncs it and its directory.
    pub fn finish(self) -> std::io::Result<Received> {
        unimplemented!("Incoming::finish")
    }
}

/// A snapshot in `member/incoming/`, whole and durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its file.
    pub path: PathBuf,
    /// Where it stands.
    pub index: Index,
    /// The term of that index.
    pub term: Term,
}

/// A received snapshot after its import: what apply needs to take it over.
#[derive(Debug)]
pub struct Imported {
    /// Where it stands.
    pub index: Index,
    /// The term of that index.
    pub term: Term,
}
