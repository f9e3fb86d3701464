//! Pins: a promise that a revision stays readable while somebody is reading at it.

/// Holds a revision alive until it is dropped: the compaction mark may pass it, but what is readable at it is
/// neither pruned nor reclaimed. A pin that is not used for too long is revoked; from then on reads through it
/// fail with [`crate::ReadError::Revoked`].
#[derive(Debug)]
pub struct Pin {
    _private: (),
}

impl Pin {
    /// The pinned main revision.
    pub fn revision(&self) -> i64 {
        unimplemented!("mvcc is being built")
    }

    /// Whether it holds no more.
    pub fn is_revoked(&self) -> bool {
        unimplemented!("mvcc is being built")
    }

    /// Says that its reader is alive: something was taken.
    pub fn touch(&self) {
        unimplemented!("mvcc is being built")
    }
}
