//! Why an operation did not come to its end.

use crate::error::Error;

/// The storage failed under apply. The member cannot go on: the process ends with this message.
#[derive(Debug)]
pub struct StorageFailure(pub Box<dyn std::error::Error + Send + Sync>);

impl std::fmt::Display for StorageFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the storage failed while an entry was applied: {}", self.0)
    }
}

impl std::error::Error for StorageFailure {}

/// What can stop a read or an apply.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The request is refused; nothing has changed.
    Refused(Error),
    /// What is needed is not in memory, and this reader may not wait for the disk.
    Cold,
    /// The index is being changed, and this reader would not wait for it.
    Busy,
    /// The disk failed.
    Storage(StorageFailure),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Refused(error)
    }
}
