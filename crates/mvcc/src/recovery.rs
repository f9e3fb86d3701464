//! Recovery: the key index rebuilt from the store's records.
//!
//! Each record names its revision, and a put also when its key's life began and its version, so records may come in
//! any order, the first of a life may be missing, and a tombstone may stand alone. What a pruning that was
//! interrupted has left is pruned here; the same rule gives the same index, and the same counts of dead puts.

use std::fmt;

use mutant::Mutant;
use store::{Builder, Location, Recovered, Revision};

use crate::KeyRange;
use crate::compaction::{Pruning, prune_entry};
use crate::index::{Fate, Tree, Version};
use crate::state::{Recent, State};
use crate::values::{NO_SLOT, Values};
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
#[derive(Debug)]
pub struct Recovery {
    tree: Tree,
    highest: i64,
    error: Option<RecoveryError>,
}

impl Default for Recovery {
    fn default() -> Recovery {
        Recovery { tree: Tree::new(), highest: 0, error: None }
    }
}

impl Recovery {
    /// Nothing was taken yet.
    pub fn new() -> Recovery {
        Recovery::default()
    }

    /// Takes one record. They may come in any order and more than once: the higher revision wins.
    pub fn take(&mut self, record: Recovered<'_>) {
        match record {
            Recovered::Put { key, revision, create, version, lease, location } => {
                if version < 1 || create > revision.main {
                    self.refuse(
                        revision,
                        format!("a put of version {version}, created at {create}"),
                    );
                    return;
                }
                self.insert(key, revision, create, version, lease, location);
            }
            Recovered::Tombstone { key, revision, location } => {
                self.insert(key, revision, 0, 0, 0, location);
            }
        }
    }

    fn insert(
        &mut self,
        key: &[u8],
        revision: Revision,
        create: i64,
        version: i64,
        lease: i64,
        location: Location,
    ) {
        let Revision { main, sub } = revision;
        let Ok(sub) = u32::try_from(sub) else {
            return self.refuse(revision, "no transaction has so many changes".to_owned());
        };
        self.highest = self.highest.max(main);
        let version = if mutant::is(Mutant::VersionForgotten) { version.min(1) } else { version };
        let new = Version { main, create, version, lease, location, sub, slot: NO_SLOT };
        self.tree.upsert(key, |entry| match entry {
            Some(entry) => {
                entry.insert(new);
                (None, ())
            }
            None => (Some(new), ()),
        });
    }

    fn refuse(&mut self, revision: Revision, what: String) {
        let what = format!("the record of revision {}.{}: {what}", revision.main, revision.sub);
        self.error.get_or_insert(RecoveryError { what });
    }

    /// The keyspace as of the last frame. `revision` and `compact_revision` are [`store::Opened`]'s. What lies
    /// below the mark is cleared away and reported dead. The current revision is published.
    ///
    /// # Errors
    /// A record contradicts itself, or the mark lies above every revision.
    pub fn finish(
        self,
        options: Options,
        mut builder: Builder,
        store: store::Reader,
        revision: i64,
        compact_revision: i64,
    ) -> Result<Keyspace, RecoveryError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let compact_revision = if mutant::is(Mutant::MarkForgotten) { 0 } else { compact_revision };
        let published = revision.max(self.highest).max(1);
        let mark = if compact_revision > 0 { compact_revision } else { -1 };
        if mark > published {
            let what = format!("compacted at {mark}, but the revision is {published}");
            return Err(RecoveryError { what });
        }
        let mut tree = self.tree;
        let mut values = Values::new(options.value_bytes_max);
        let mut keys: Vec<Box<[u8]>> = Vec::new();
        tree.visit(&KeyRange::all(), &mut |entry| {
            if entry.aside.is_some() || !entry.is_living() {
                keys.push(entry.key.clone());
            }
            true
        });
        for key in keys {
            tree.change(&key, |entry| -> (Fate, ()) {
                (prune_entry(entry, mark, &mut values, &mut builder), ())
            });
        }
        let state = State {
            tree,
            values,
            published,
            mark,
            unpublished: Default::default(),
            recent: Recent::new(options.history_bytes_max, published + 1),
            store,
        };
        Ok(Keyspace::new(state, builder, Pruning::done_to(mark)))
    }
}
