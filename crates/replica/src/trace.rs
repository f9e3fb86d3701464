//! A life of a write as a list of events, for a laboratory. Collected only when switched on.

use raft::{Index, NodeId, Term};
use state_machine::RequestId;

/// Something that happened inside one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// A proposal came in.
    Proposed {
        /// Its name.
        id: RequestId,
        /// Its size in bytes.
        bytes: usize,
    },
    /// raft appended entries to its log in memory, and the log thread was asked to write them.
    Appended {
        /// The first.
        first: Index,
        /// The last.
        last: Index,
        /// The term of the last.
        term: Term,
    },
    /// A message was handed over to be sent now.
    Sent {
        /// To whom.
        to: NodeId,
        /// What it says.
        kind: raft::MessageKind,
        /// Its index.
        index: Index,
        /// How many entries it carries.
        entries: usize,
    },
    /// The log thread reported that it has synced everything up to here.
    Synced {
        /// The last durable index.
        index: Index,
    },
    /// A follower's acknowledgement came.
    Acknowledged {
        /// Whose.
        from: NodeId,
        /// Up to where.
        index: Index,
    },
    /// The committed index rose.
    Committed {
        /// To here.
        index: Index,
    },
    /// Entries were applied and published, and their replies sent.
    Applied {
        /// The last.
        index: Index,
    },
    /// A frame was written to the store.
    Flushed {
        /// Its applied index.
        index: Index,
    },
    /// The store was synced.
    StoreSynced {
        /// The applied index of the last durable frame.
        index: Index,
    },
    /// The log was marked.
    Marked {
        /// The snapshot record's index.
        index: Index,
    },
    /// A lease's question or a batch of reads was answered by the replica.
    Answered {
        /// The read index, or 0.
        index: Index,
    },
}
