//! Recovery: the key index rebuilt from the store's records.

use std::fmt;

use store::{Builder, Recovered};

use crate::write::{Keyspace, Options};

/// What the store told that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryError {
    what: String,
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for RecoveryError {}

/// Collects records while the store is opened, then becomes a [`Keyspace`].
///
/// ```text
///   let mut recovery = Recovery::new();
///   let opened = store::open(.., &mut |record| recovery.take(record))?;
///   let keyspace = recovery.finish(options, opened.builder, opened.reader,
///                                  opened.revision, opened.compact_revision)?;
/// ```
#[derive(Debug, Default)]
pub struct Recovery {
    _private: (),
}

impl Recovery {
    /// Nothing was taken yet.
    pub fn new() -> Recovery {
        Recovery::default()
    }

    /// Takes one record. They may come in any order and more than once: the higher revision wins.
    pub fn take(&mut self, _record: Recovered<'_>) {
        unimplemented!("mvcc is being built")
    }

    /// The keyspace as of the last frame. `revision` and `compact_revision` are [`store::Opened`]'s. What lies
    /// below the mark is cleared away and reported dead. The current revision is published.
    ///
    /// # Errors
    /// The records contradict each other.
    pub fn finish(
        self,
        _options: Options,
        _builder: Builder,
        _reader: store::Reader,
        _revision: i64,
        _compact_revision: i64,
    ) -> Result<Keyspace, RecoveryError> {
        unimplemented!("mvcc is being built")
    }
}
