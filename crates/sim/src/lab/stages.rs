//! Stages by name, for experiments that ask when, or whether, one was told.

use raft::{Index, MessageKind, NodeId, RoleKind};
use replica::{Said, Trace};

/// The entry stands in raft's log in memory.
pub fn appended(entry: Index) -> impl Fn(&Trace) -> bool {
    move |t| matches!(t, Trace::Appended { first, last, .. } if *first <= entry && entry <= *last)
}

/// The entry stands in the write-ahead log's file.
pub fn written(entry: Index) -> impl Fn(&Trace) -> bool {
    move |t| matches!(t, Trace::Written { first, last } if *first <= entry && entry <= *last)
}

/// The write-ahead log is durable up to the entry.
pub fn synced(entry: Index) -> impl Fn(&Trace) -> bool {
    move |t| matches!(t, Trace::Synced { last } if *last >= entry)
}

/// The entry is known to be committed.
pub fn committed(entry: Index) -> impl Fn(&Trace) -> bool {
    move |t| matches!(t, Trace::Committed { index } if *index >= entry)
}

/// The entry is applied.
pub fn applied(entry: Index) -> impl Fn(&Trace) -> bool {
    move |t| matches!(t, Trace::Applied { index } if *index >= entry)
}

/// A frame with the entry is in the store's file.
pub fn framed(entry: Index) -> impl Fn(&Trace) -> bool {
    move |t| matches!(t, Trace::FrameWritten { index } if *index >= entry)
}

/// A message of this kind leaves.
pub fn sent(kind: MessageKind) -> impl Fn(&Trace) -> bool {
    move |t| matches!(t, Trace::Sent { message, .. } if message.kind == kind)
}

/// Entries are sent.
pub fn sent_entries() -> impl Fn(&Trace) -> bool {
    |t| {
        matches!(t, Trace::Sent { message: Said { kind: MessageKind::App, entries, .. }, .. }
            if *entries > 0)
    }
}

/// An acknowledgement of the entry comes from this member.
pub fn acknowledged(from: NodeId, entry: Index) -> impl Fn(&Trace) -> bool {
    move |t| {
        matches!(t, Trace::Received { from: of, message: Said { kind: MessageKind::AppResp, reject: false, index, .. } }
            if *of == from && *index >= entry)
    }
}

/// A message of this kind comes, and says no, or yes.
pub fn received(kind: MessageKind, reject: bool) -> impl Fn(&Trace) -> bool {
    move |t| {
        matches!(t, Trace::Received { message, .. }
            if message.kind == kind && message.reject == reject)
    }
}

/// The member comes into this role.
pub fn becomes(role: RoleKind) -> impl Fn(&Trace) -> bool {
    move |t| matches!(t, Trace::Role { role: of, .. } if *of == role)
}
