//! Jobs and completions: what goes to the workers and what comes back, as plain data.
//!
//! A driver moves them and looks into none. Jobs of one kind are run in the order in which they were given out, in
//! batches of any size; the four workers know nothing of each other, and their completions may come back in any
//! order between them. What may be in flight together is decided in `pipeline.rs` alone.

use std::fmt;

use mvcc::DueHash;
use raft::{ConfState, Entry, HardState, Index, Message, NodeId, Term};
use state_machine::{LeaseChange, LeaseInfo};
use wal::SnapshotRecord;

use crate::output::{Space, ToShard};
use crate::snapshot::{Imported, Received, SnapshotStream};
use crate::trace::Traces;

/// Work for the log thread.
#[derive(Debug)]
pub enum LogJob {
    /// Append, and sync with whatever else is in the batch.
    Append(Append),
    /// Everything up to here is in the store for good: write a snapshot record and the hard state, and sync.
    Mark {
        /// The record.
        record: SnapshotRecord,
        /// Its commit is at or above the record's index.
        hard_state: HardState,
    },
    /// Unlink the files whose entries all lie at or below this index. Given only after a `Mark` above it is done.
    Release {
        /// The last index nobody needs.
        up_to: Index,
    },
}

/// One turn's news for the log.
#[derive(Debug, Default)]
pub struct Append {
    /// Counted up by one for each append.
    pub sequence: u64,
    /// A snapshot that was received and takes the place of all that stands before it.
    pub snapshot: Option<SnapshotRecord>,
    /// Entries; the first may stand at an index that was written before, and then replaces all from there.
    pub entries: Vec<Entry>,
    /// The hard state, if it is another.
    pub hard_state: Option<HardState>,
    /// Whether anybody relies on this being durable (a mere new commit index need not be).
    pub sync: bool,
    /// Messages that vouch for it: they leave when it is durable.
    pub after: Vec<Message>,
}

/// What the log worker has done.
#[derive(Debug, Default)]
pub struct LogDone {
    /// For the replica.
    pub completion: Option<Completion>,
    /// For the other members: send them now. The driver need not go through the replica with them.
    pub messages: Vec<Message>,
    /// What happened, if it is told.
    pub trace: Traces,
}

/// Work for the apply thread.
#[derive(Debug)]
pub enum ApplyJob {
    /// Committed commands.
    Entries(Vec<Entry>),
    /// A committed membership entry. Nothing is given out behind it before its verdict has come back.
    Membership {
        /// The entry.
        entry: Entry,
        /// The configuration that raft would switch to; `None` if raft cannot make this change, or nobody can read
        /// it: then it only moves the applied index.
        conf_state: Option<ConfState>,
    },
    /// End the frame under construction and hand it over.
    CutFrame,
    /// Frames up to here are written: their values can be read from disk.
    FrameWritten(Index),
    /// Clear away another slice of what lies below the compaction mark.
    Prune,
    /// No hash is due any more of compactions up to this revision.
    Hashed {
        /// Of the newest one.
        revision: i64,
    },
    /// Take a received snapshot's memory in place of the present one.
    Exchange(Box<Imported>),
    /// What a slice of reclaim wants of apply.
    Reclaimed(store::Reclaimed),
}

/// What the apply worker has done. The driver hands `completion` to the replica first, and sends `shards` then: so
/// the lease clock knows of a lease before the client that it was granted to.
#[derive(Debug, Default)]
pub struct ApplyDone {
    /// For the replica.
    pub completion: Option<Completion>,
    /// For the shards.
    pub shards: Vec<ToShard>,
    /// What happened, if it is told.
    pub trace: Traces,
}

/// A frame and what the pipeline must know of it.
#[derive(Debug)]
pub struct CutFrame {
    /// The last entry in it; `None` if it only carries the store's own notes.
    pub last: Option<Index>,
    /// Its size in bytes.
    pub bytes: usize,
    /// The frame.
    pub frame: store::Frame,
}

/// Work for the flush thread.
#[derive(Debug)]
pub enum FlushJob {
    /// Write a frame.
    Write(Box<CutFrame>),
    /// Sync everything written.
    Sync,
    /// Pin the last written frame boundary and open a stream of all that lies before it.
    Pin {
        /// For whom.
        to: NodeId,
    },
    /// Import a received snapshot into new segments and switch the store to them.
    Import(Received),
    /// Delete a received snapshot that is not, or no longer, needed.
    Discard(Received),
    /// Note durably that in this term the member was told of receipts that it knows nothing of.
    NoteForgotten(Term),
    /// One bounded slice of reclaiming space.
    Reclaim,
    /// Read on in the sealed segments, and check what is there.
    Scrub {
        /// About so many bytes.
        bytes_max: usize,
    },
    /// Look for room: somebody else may have made some on a disk that was full.
    Retry,
}

/// What the flush worker has done.
#[derive(Debug, Default)]
pub struct FlushDone {
    /// For the replica.
    pub completion: Option<Completion>,
    /// What happened, if it is told.
    pub trace: Traces,
}

/// Work for any of the read threads. A driver gives its own reads (cold values, long ranges, HashKV) to the same
/// threads; those go through the view and are no concern of the replica.
#[derive(Debug)]
pub enum ReadJob {
    /// Read entries back from the log's files for a follower.
    Fetch {
        /// For whom.
        to: NodeId,
        /// The first index.
        low: Index,
        /// The index after the last.
        high: Index,
        /// The most bytes to bring, but at least one entry.
        bytes_max: u64,
    },
    /// Compute the hash of a compaction: a walk over all keys.
    Hash(DueHash),
}

/// What a read worker has done.
#[derive(Debug, Default)]
pub struct ReadDone {
    /// For the replica.
    pub completion: Option<Completion>,
}

/// What a worker reports to the replica.
#[derive(Debug)]
pub enum Completion {
    /// From the log.
    Log(LogReport),
    /// From apply.
    Apply(Box<ApplyReport>),
    /// From flush.
    Flush(Vec<FlushReport>),
    /// From a read thread.
    Read(Vec<ReadReport>),
    /// A worker failed. It does nothing more.
    Failed(Failure),
}

/// What became durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogReport {
    /// The last append of the batch, if there was one; it and all before are durable as far as they asked to be.
    pub appended: Option<u64>,
    /// The last mark that is durable.
    pub marked: Option<Index>,
    /// Up to where files were released.
    pub released: Option<Index>,
}

/// What was applied.
#[derive(Debug, Default)]
pub struct ApplyReport {
    /// How many jobs with entries are done.
    pub entry_jobs: usize,
    /// The last applied index, and its term.
    pub applied: Option<(Index, Term)>,
    /// Bytes in the frame under construction.
    pub pending_bytes: usize,
    /// The store is to be told something by a frame, though it brings no entry.
    pub has_notes: bool,
    /// Leases granted, revoked and changed, in order.
    pub leases: Vec<LeaseChange>,
    /// Whether the membership entry at the end of the batch was accepted.
    pub verdict: Option<Verdict>,
    /// How many frames were to be cut, and those that were; the applied index at the last cut.
    pub cuts: usize,
    /// The frames.
    pub frames: Vec<CutFrame>,
    /// A received snapshot is in force.
    pub exchanged: Option<Exchanged>,
    /// There is more to clear away below the compaction mark.
    pub prune_due: bool,
    /// Hashes of the compactions among what was applied, in order.
    pub hashes: Vec<DueHash>,
    /// Apply has taken over what reclaim wanted, so many times.
    pub reclaimed: usize,
}

/// A received snapshot is in force.
#[derive(Debug)]
pub struct Exchanged {
    /// Where it stands.
    pub index: Index,
    /// The term of that index.
    pub term: Term,
    /// All leases in it, in place of those before.
    pub leases: Vec<LeaseInfo>,
}

/// What the state machine says of a membership entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The configuration becomes the one that was offered.
    Accepted,
    /// Nothing changes; raft is told "none".
    Refused,
}

/// What the store did.
#[derive(Debug)]
pub enum FlushReport {
    /// A frame is written.
    Written {
        /// The last entry in it; `None` if it carried only notes.
        last: Option<Index>,
        /// Its size in bytes.
        bytes: usize,
    },
    /// Everything up to this entry is durable, by a sync or because a segment was sealed.
    Synced {
        /// Its index.
        index: Index,
        /// Its term.
        term: Term,
        /// Whether a `Sync` job did it.
        by_job: bool,
    },
    /// A stream is open.
    Pinned {
        /// For whom.
        to: NodeId,
        /// The stream.
        stream: Box<SnapshotStream>,
    },
    /// A stream could not be opened.
    NotPinned {
        /// For whom.
        to: NodeId,
    },
    /// A received snapshot is in new segments, and the store is switched to them.
    Imported(Box<Imported>),
    /// A slice of reclaim is done.
    Reclaimed(store::Reclaimed),
    /// How much room there is, when that changes and after each `Retry`.
    Space(Space),
    /// A slice was read again.
    Scrubbed {
        /// So many bytes.
        bytes: u64,
        /// It was the last one; the next begins from the front.
        round_ended: bool,
    },
    /// Something in the store cannot be read, in words.
    Damage(String),
}

/// What was read.
#[derive(Debug)]
pub enum ReadReport {
    /// Entries for a follower; empty if they are no longer there.
    Fetched {
        /// For whom.
        to: NodeId,
        /// From here on.
        low: Index,
        /// What was found.
        entries: Vec<Entry>,
    },
    /// The hash of a compaction is remembered, or was given up.
    Hashed {
        /// The revision compacted at.
        revision: i64,
    },
}

/// Which worker failed, and how. There is no way on from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was being done: "the log could not be synced".
    pub what: String,
    /// What the system says.
    pub error: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.error)
    }
}
