//! The stages of a member's work, as they happen: what a laboratory tells, and what a request's trace is made of.
//!
//! ```text
//!   mind     Proposed ─▶ Appended ─▶ Sent … Received ─▶ Matched ─▶ Committed          Role, ReadConfirmed
//!   log                     └─▶ Written ─▶ Synced ─▶ Sent (what vouches)              BallotWritten, Marked, Released
//!   apply                                                   └─▶ Applied ─▶ Answered   SnapshotInstalled
//!   flush                                                          └─▶ FrameWritten ─▶ StoreSynced
//!                                                                                     SnapshotPinned, SnapshotImported
//! ```
//!
//! Each part hands out its own events, in the order in which they happened: the mind in [`crate::Output::trace`], a
//! worker in the `trace` of its `…Done`. There is no clock here: the driver adds the time at which it gets them. How
//! much is told [`crate::Config::trace`] says; an event costs one push of at most 56 bytes.
//!
//! A request is followed by its name up to `Proposed`, and by its index from `Appended` on; `Answered` has both.

use raft::{Index, Message, MessageKind, NodeId, RoleKind, Term};
use smallvec::SmallVec;
use state_machine::RequestId;

/// What one turn, or one batch of a worker, tells: of a single put no more than this holds without asking for memory.
pub type Traces = SmallVec<[Trace; 2]>;

/// How much a member tells of its work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tracing {
    /// Nothing.
    #[default]
    Off,
    /// What happens once for many requests together. A busy member tells hardly more of it than an idle one.
    Batches,
    /// Every event.
    All,
}

impl Tracing {
    /// Whether anything is told.
    pub fn is_on(self) -> bool {
        self != Tracing::Off
    }

    /// Whether this is told.
    pub(crate) fn tells(self, event: &Trace) -> bool {
        match self {
            Tracing::Off => false,
            Tracing::Batches => event.is_of_a_batch(),
            Tracing::All => true,
        }
    }
}

/// Something that happened in one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// A proposal of this member's own clients came to the mind. It may yet be refused, or held until there is a leader.
    Proposed {
        /// Its name.
        id: RequestId,
        /// Its size in bytes, as it would stand in the log.
        bytes: u32,
    },
    /// raft appended entries to its log in memory (unstable: not yet on disk), and the log worker was given them.
    Appended {
        /// The first.
        first: Index,
        /// The last.
        last: Index,
        /// The term of the last.
        term: Term,
    },
    /// A message was handed over to be sent now; by the mind, or by the log worker if it vouches for what is durable.
    Sent {
        /// To whom.
        to: NodeId,
        /// What it says.
        message: Said,
    },
    /// A message came, and raft is about to see it.
    Received {
        /// From whom.
        from: NodeId,
        /// What it says.
        message: Said,
    },
    /// Entries were appended to the write-ahead log's file. They are not durable yet.
    Written {
        /// The first.
        first: Index,
        /// The last.
        last: Index,
    },
    /// Another term or vote was appended to the write-ahead log's file. It is not durable yet.
    BallotWritten {
        /// The term.
        term: Term,
        /// Who has the vote in it; 0 if nobody.
        vote: NodeId,
    },
    /// The write-ahead log was synced: everything written before is durable.
    Synced {
        /// The last entry in it.
        last: Index,
    },
    /// On the leader: how far a member's log is known to be durable, and the same, has risen; also the leader's own.
    Matched {
        /// Whose.
        node: NodeId,
        /// Up to where.
        index: Index,
    },
    /// The committed index rose: on a leader because a quorum matches, on a follower because the leader said so.
    Committed {
        /// To here.
        index: Index,
    },
    /// Everything up to here is applied and published: readers of this member see it.
    Applied {
        /// The last.
        index: Index,
    },
    /// The reply to a proposal of this member's own clients was handed to its shard.
    Answered {
        /// The proposal's name.
        id: RequestId,
        /// The index of its entry.
        index: Index,
    },
    /// A frame was written to the store's file. It is not durable yet.
    FrameWritten {
        /// Its applied index.
        index: Index,
    },
    /// The store was synced, or a segment of it sealed.
    StoreSynced {
        /// The applied index of the last durable frame.
        index: Index,
    },
    /// A snapshot record is durable in the write-ahead log: below its index the store answers for everything.
    Marked {
        /// The record's index.
        index: Index,
    },
    /// Files of the write-ahead log were unlinked.
    Released {
        /// All their entries lie at or below this index.
        index: Index,
    },
    /// A quorum confirmed a read index; one for all reads that had gathered.
    ReadConfirmed {
        /// The index.
        index: Index,
    },
    /// Role, term or the known leader is another.
    Role {
        /// The role.
        role: RoleKind,
        /// The term.
        term: Term,
        /// The leader as far as known; 0 if nobody.
        leader: NodeId,
    },
    /// A frame boundary of the store was pinned, to be streamed to a member that the log cannot help any more.
    SnapshotPinned {
        /// To whom.
        to: NodeId,
        /// The applied index of the boundary.
        index: Index,
    },
    /// A received snapshot lies in new segments, and the store is switched to them.
    SnapshotImported {
        /// Its index.
        index: Index,
    },
    /// A received snapshot is what readers see.
    SnapshotInstalled {
        /// Its index.
        index: Index,
    },
}

impl Trace {
    /// Whether it happens once for many requests together, and does not only say that a member is there.
    fn is_of_a_batch(&self) -> bool {
        match self {
            Trace::Proposed { .. } | Trace::Answered { .. } | Trace::Received { .. } => false,
            Trace::Sent { message, .. } => matches!(
                message.kind,
                MessageKind::App | MessageKind::AppResp | MessageKind::Prop | MessageKind::Snap
            ),
            _ => true,
        }
    }
}

const _: () = assert!(size_of::<Trace>() <= 56, "an event fits into a cache line");

/// What a message says, as far as a trace wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its kind.
    pub kind: MessageKind,
    /// Whether the answer is no.
    pub reject: bool,
    /// How many entries, or proposals, it carries.
    pub entries: u32,
    /// The sender's term; 0 on what is forwarded.
    pub term: Term,
    /// The index before the entries, the index acknowledged, the candidate's last, or the snapshot's.
    pub index: Index,
    /// The sender's committed index, on what a leader sends; else 0.
    pub commit: Index,
}

impl Said {
    /// What this message says.
    pub fn of(message: &Message) -> Said {
        let snapshot = message.snapshot.as_ref().map(|snapshot| snapshot.metadata.index);
        Said {
            kind: message.kind,
            reject: message.reject,
            entries: u32::try_from(message.entries.len()).unwrap_or(u32::MAX),
            term: message.term,
            index: snapshot.unwrap_or(message.index),
            commit: message.commit,
        }
    }
}
