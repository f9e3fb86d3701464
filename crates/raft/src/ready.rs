//! What the node wants done: persist, send, apply, read back. All of it plain data, nothing of it done here.
//!
//! ```text
//!              ┌──────────────── Ready ────────────────┐
//!   messages ──▶ send at once
//!   hard_state, snapshot, entries ──▶ append, in order ──▶ durable ──▶ send messages_after_persist,
//!                                                                  └─▶ Raft::on_persisted(persisted)
//!   snapshot ──▶ install ──▶ Raft::on_snapshot_installed(index)
//!   committed ──▶ apply, in order ──▶ Raft::on_applied(index)
//!   fetches ──▶ read from the log on disk ──▶ Raft::on_fetched(to, low, entries)
//! ```
//!
//! Several Readys may be in work at a time. Appends are durable in the order in which they were handed out, and their
//! `Persisted` come back in that order; so do applies. Between the two there is no order.

use crate::message::*;

/// Who leads, and what this node is; never persisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SoftState {
    /// The leader as far as known, or 0.
    pub leader: NodeId,
    /// This node's role.
    pub role: RoleKind,
}

/// The four roles, without what belongs to each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoleKind {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether a campaign could succeed (thesis §9.6).
    PreCandidate,
    /// Campaigns.
    Candidate,
    /// Leads.
    Leader,
}

/// The answer to one read request: whoever has applied `index` may serve it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadState {
    /// The index that the read must see.
    pub index: Index,
    /// The request's own context.
    pub context: bytes::Bytes,
}

/// Entries that a follower needs and that are no longer in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fetch {
    /// The follower that waits for them.
    pub to: NodeId,
    /// The first entry wanted.
    pub low: Index,
    /// The end, exclusive; fewer may be returned, from `low` on.
    pub high: Index,
    /// Most bytes wanted; one entry always fits.
    pub bytes_max: u64,
}

/// The receipt for one append: given back to [`crate::Raft::on_persisted`] when everything in that Ready, and
/// in all earlier ones, is durable.
///
/// Only a receipt of the current term speaks for entries. Otherwise an old receipt could speak for a write that a later
/// one is about to undo (index and term of the last entry are the same in steps 2 and 7):
///
/// 1. A leads in term 1 and appends entry 5; only B receives it.
/// 2. B hands out the append of entry 5 (term 1).
/// 3. A crashes; C wins term 2 with D and E.
/// 4. C appends its own entry 5 (term 2); B receives it and drops the old one.
/// 5. B hands out the append of entry 5 (term 2).
/// 6. C crashes; A restarts and wins term 3 with D and E.
/// 7. A sends its entry 5 (term 1) again; B drops C's and hands out the append of entry 5 (term 1).
/// 8. The receipt of step 2 comes back and names entry 5 of term 1, which is just what the log holds.
/// 9. But the append of step 5 is still under way and will overwrite it on disk, until that of step 7 has mended it.
///
/// So that a quiet log gets its receipt all the same, each receipt names the log's last entry while anything is not yet known
/// to be durable, also when its own Ready had no entries: a new term always brings a new hard state, hence a new receipt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "give it back to on_persisted when the append is durable"]
pub struct Persisted {
    /// The term in which the append was handed out.
    pub term: Term,
    /// The last entry of the log then, index and term; `None` if all was known to be durable.
    pub last: Option<(Index, Term)>,
    /// The node's own votes and acknowledgements, which count only now.
    pub own: Vec<OwnMessage>,
}

/// A message of the node to itself that waits for an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnMessage {
    /// How many of `messages_after_persist` precede it. Only a trace needs to know.
    pub after: usize,
    /// The message.
    pub message: Message,
}

/// What must happen next. See the [module](self) for the order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "raft believes that all of this will be done"]
pub struct Ready {
    /// Leader and role, if they changed.
    pub soft_state: Option<SoftState>,
    /// Term, vote and commit to append, if they changed.
    pub hard_state: Option<HardState>,
    /// A received snapshot: to be kept durably with the append, then installed. All entries before are void.
    pub snapshot: Option<Snapshot>,
    /// Entries to append. The first may lie at or below what was appended before, which it then replaces.
    pub entries: Vec<Entry>,
    /// Whether entries, term or vote must be synced before they count; a commit index alone need not. A snapshot is synced
    /// in any case.
    pub must_sync: bool,
    /// Messages to send now.
    pub messages: Vec<Message>,
    /// Messages that vouch for something (votes, acknowledgements): to send when the append is durable.
    pub messages_after_persist: Vec<Message>,
    /// The append's receipt; `Some` exactly if there is something to append or to vouch for.
    pub persisted: Option<Persisted>,
    /// Committed entries to apply, following those of the Ready before without a gap.
    pub committed: Vec<Entry>,
    /// Reads that may be served once their index is applied.
    pub read_states: Vec<ReadState>,
    /// Entries to read back from disk.
    pub fetches: Vec<Fetch>,
}
