//! HashKV: one number for the whole keyspace at a revision, equal to etcd's for the same history.

/// The answer of [`crate::Reader::hash_kv`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C over the records, see the module.
    pub hash: u32,
    /// The compaction mark that it was computed at; -1 before any compaction.
    pub compact_revision: i64,
    /// The revision that was hashed.
    pub hash_revision: i64,
    /// The current revision when it began.
    pub current_revision: i64,
}
