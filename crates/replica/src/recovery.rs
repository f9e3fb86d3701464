//! From what lies on disk to a running member: the rules of the start.
//!
//! ```text
//!   member/            lock
//!   member/incoming/   received snapshots
//!   member/snap/       empty; etcd's tools look for it
//!   member/store/      the store: applied index A and its term
//!   member/wal/        the log: base B, entries to L, hard state with commit C, snapshot records
//! ```
//!
//! 1. Both belong to this member of this cluster, or the start is refused.
//! 2. A store without its log is refused: whoever lost its log has lost its votes, and must not vote again.
//! 3. The log must reach: B ≤ A ≤ L. If B > A, and B is the place of a received snapshot, the import was cut short:
//!    it is finished from `incoming/`, or the start is refused. In all other cases the store has lost frames that were
//!    durable: that is rot, not a torn tail, and the start is refused.
//! 4. The log's entry at A has the store's term.
//! 5. The commit is max(C, A): a commit index is written late, the store is not.
//! 6. Whatever else lies in `incoming/` is deleted.
//! 7. A log in which no state was ever durable belongs to a member that has not begun: the founders of a new cluster
//!    write the list of founders (once more, if a crash came before or while writing it), a joining member waits.
//! 8. The term is that of the log's last entry, if the state's is lower ([`catch_up_with_the_log`]).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mvcc::Recovery;
use raft::{HardState, Index, Raft, Restored, Term};
use state_machine::StateMachine;
use store::Flusher;
use vfs::Vfs;
use wal::Wal;

use crate::config::{Bootstrap, Config, Founder, Identity};
use crate::forgotten;
use crate::pipeline::{Beginning, Pipeline};
use crate::replica::{Replica, from_tables};
use crate::snapshot::{Received, file_name, incoming_dir};
use crate::unsynced::Unsynced;
use crate::view::{Standing, View};
use crate::workers::{ApplyWorker, FlushWorker, LogWorker, ReadWorker};

/// A member and its workers.
pub struct Opened {
    /// Its mind.
    pub replica: Replica,
    /// For the log thread.
    pub log: LogWorker,
    /// For the apply thread.
    pub apply: ApplyWorker,
    /// For the flush thread.
    pub flush: FlushWorker,
    /// For the read threads; clone it for each.
    pub reads: ReadWorker,
    /// For everybody.
    pub view: View,
    /// What was found and mended, in sentences for the process's log (a torn tail cut off, leftovers deleted).
    pub found: Vec<String>,
}

/// Why a member does not start. Each says what to do.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has the directory, or the file system failed.
    Io {
        /// What was being done.
        what: String,
        /// What the system says.
        error: io::Error,
    },
    /// The directory belongs to another member or cluster.
    WrongIdentity {
        /// What was expected.
        expected: Identity,
        /// What lies there.
        found: Identity,
    },
    /// There should be data and is none.
    Empty,
    /// The log is rotten, or does not fit the store.
    Log(String),
    /// The store is rotten, or does not fit the log.
    Store(String),
    /// A received snapshot that the log relies on cannot be finished.
    Snapshot(String),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::Io { what, error } => write!(f, "{what}: {error}"),
            OpenError::WrongIdentity { expected, found } => write!(
                f,
                "the data directory belongs to member {:x} of cluster {:x}, not to member {:x} of cluster {:x}: \
                 start each member with its own data directory",
                found.node_id, found.cluster_id, expected.node_id, expected.cluster_id
            ),
            OpenError::Empty => write!(
                f,
                "the data directory is empty, but this member should have data: give it its own data directory, \
                 or remove it from the cluster and add it again"
            ),
            OpenError::Log(why) | OpenError::Store(why) | OpenError::Snapshot(why) => {
                f.write_str(why)
            }
        }
    }
}

impl std::error::Error for OpenError {}

const REPLACE: &str = "remove this member from the cluster and add it again with an empty data directory, or restore \
                       it from a backup";

/// Whose data lies in this data directory, if any does. The server asks it before it decides how to begin: on a
/// directory with data it is a restart, whatever the flags say. Changes nothing.
pub fn identity(
    vfs: &dyn Vfs,
    data_dir: &Path,
    wal_dir: Option<&Path>,
) -> Result<Option<Identity>, OpenError> {
    let dir = wal_dir.map_or_else(|| data_dir.join("member").join("wal"), Path::to_path_buf);
    let what = || format!("looking at {}", dir.display());
    if !Wal::exists(vfs, &dir).map_err(|error| OpenError::Io { what: what(), error })? {
        return Ok(None);
    }
    let lines =
        wal::dump::dump(vfs, &dir).map_err(|error| OpenError::Io { what: what(), error })?;
    for line in lines {
        match line.record {
            Ok(wal::dump::Record::Metadata(metadata)) => {
                let wal::Metadata { node_id, cluster_id } = metadata;
                return Ok(Some(Identity { node_id, cluster_id }));
            }
            Ok(_) => {}
            Err(why) => {
                let place = format!("{} at byte {}", line.file, line.offset);
                return Err(OpenError::Log(format!(
                    "the log {place} cannot be read: {why}; {REPLACE}"
                )));
            }
        }
    }
    Err(OpenError::Log(format!("the log in {} does not say whose it is; {REPLACE}", dir.display())))
}

/// Opens a member on what lies in its data directory, or begins one on an empty directory.
pub fn open(vfs: Arc<dyn Vfs>, config: Config, bootstrap: Bootstrap) -> Result<Opened, OpenError> {
    config.check();
    let vfs = if config.sync { vfs } else { Arc::new(Unsynced(vfs)) };
    let mut found = Vec::new();
    let places = Places::new(&config);
    places.make(&*vfs)?;
    let lock = places.lock(&*vfs)?;

    let has_log =
        Wal::exists(&*vfs, &places.wal).map_err(io_error("looking for the log", &places.wal))?;
    if !has_log {
        if matches!(bootstrap, Bootstrap::Restart) {
            return Err(OpenError::Empty);
        }
        let names =
            vfs.list(&places.store).map_err(io_error("looking for the store", &places.store))?;
        if !names.is_empty() {
            return Err(OpenError::Log(format!(
                "{} holds data, but the log in {} is missing: a member that lost its log must not vote again; \
                 {REPLACE}",
                places.store.display(),
                places.wal.display()
            )));
        }
        create_log(&vfs, &config, &places)?;
    } else if let Some(whose) = identity(&*vfs, &config.data_dir, config.wal_dir.as_deref())?
        && whose != config.identity
    {
        // Before opening it, which cuts off what is torn: a wrong wal-dir may name a log that is another's.
        return Err(OpenError::WrongIdentity { expected: config.identity, found: whose });
    }

    let options = StoreOptions::new(&config);
    let mut store = open_store(vfs.clone(), &places.store, &options)?;
    found.extend(store.torn.take());
    let log_options = wal::Options { segment_bytes: config.segment_bytes.wal };
    let (mut wal, mut log) =
        Wal::open(vfs.clone(), &places.wal, Index(store.applied.0), log_options)
            .map_err(log_error)?;
    if let Some(torn) = &log.torn {
        found.push(format!(
            "the end of the log {} was torn by a crash and has been cut off at byte {} ({} bytes lost, none of \
             them acknowledged)",
            torn.file.display(),
            torn.offset,
            torn.lost_bytes
        ));
    }

    if log.base.0 > Index(store.applied.0) {
        let file = unfinished_snapshot(&*vfs, &places, &log, store.applied)?;
        let refuse = |why: String| {
            let (index, dir) = (file.index, places.incoming.display());
            OpenError::Snapshot(format!(
                "the log begins after the snapshot at index {index}, the store is at {}, and that snapshot in {dir} \
                 cannot be imported: {why}; {REPLACE}",
                store.applied.0
            ))
        };
        import(&*vfs, store.flusher, &file).map_err(|error| refuse(error.to_string()))?;
        store = open_store(vfs.clone(), &places.store, &options)?;
        if (Index(store.applied.0), Term(store.applied.1)) != (file.index, file.term) {
            return Err(OpenError::Snapshot(format!(
                "the snapshot {} holds index {} instead; {REPLACE}",
                file.path.display(),
                store.applied.0
            )));
        }
        found.push(format!(
            "the import of a received snapshot at index {} was finished",
            file.index
        ));
    }
    places.clear_incoming(&*vfs, &mut found)?;

    let applied = (Index(store.applied.0), Term(store.applied.1));
    check_term(&log, applied)?;
    if applied.0 == Index(0) && log.has_not_begun() {
        match &bootstrap {
            Bootstrap::New(founders) => found_cluster(&mut wal, &mut log, founders)?,
            Bootstrap::Join => {}
            Bootstrap::Restart => found.push(
                "nothing is in the log yet: this member waits for the leader of its cluster"
                    .to_owned(),
            ),
        }
    }

    // What an earlier process has written and not synced is relied on from now on.
    store.flusher.sync().map_err(io_error("syncing the store", &places.store))?;
    let machine_config = state_machine::Config {
        lease_ttl_min: lease_ttl_min(&config),
        ..state_machine::Config::default()
    };
    let machine = StateMachine::recover(store.keyspace, &store.rows, store.applied, machine_config)
        .map_err(|error| OpenError::Store(format!("{}: {error}", places.store.display())))?;
    let state = machine.view();
    let conf_state = from_tables(&state.cluster().conf_state);

    catch_up_with_the_log(&mut wal, &mut log, &mut found)?;
    let last_run = log.term_runs.last().map_or(log.base.1, |(_, term)| *term);
    let last_term = log.entries.last().map_or(last_run, |entry| entry.term.max(last_run));
    let forgot_in = places.forgotten(&*vfs, last_term, &mut found)?;
    let mut hard_state = log.hard_state;
    hard_state.commit = hard_state.commit.max(applied.0);
    let raft = Raft::new(
        raft_config(&config),
        Restored {
            hard_state,
            conf_state: conf_state.clone(),
            applied: applied.0,
            base: log.base,
            term_runs: log.term_runs,
            entries: log.entries,
            forgot_in,
        },
    )
    .map_err(|error| {
        OpenError::Log(format!("the log in {}: {error}; {REPLACE}", places.wal.display()))
    })?;
    // Marks above the store do not count: their snapshots were either finished above, or are not needed.
    let marked =
        log.snapshots.iter().map(|record| record.index).filter(|index| *index <= applied.0).max();
    let beginning = Beginning {
        applied,
        conf_state,
        log_last: log.last,
        hard_state,
        marked: marked.unwrap_or(log.base.0),
    };
    let pipeline = Pipeline::new(&config, beginning);
    let standing = Arc::new(Standing::new(config.identity, config.shards, applied.0));
    let view = View::new(state.clone(), standing.clone());
    let flush = FlushWorker::new(
        vfs,
        places.store,
        options,
        store.flusher,
        state.reader().clone(),
        standing.clone(),
        lock,
    )
    .tracing(config.trace);
    Ok(Opened {
        reads: ReadWorker::new(wal.reader(), view.clone()),
        log: LogWorker::new(wal, config.trace),
        apply: ApplyWorker::new(machine, standing.clone(), config.trace),
        flush,
        replica: Replica::new(config, raft, pipeline, state, standing),
        view,
        found,
    })
}

/// Where things lie.
struct Places {
    data: PathBuf,
    member: PathBuf,
    wal: PathBuf,
    store: PathBuf,
    snap: PathBuf,
    incoming: PathBuf,
}

impl Places {
    fn new(config: &Config) -> Places {
        let data = config.data_dir.clone();
        let member = data.join("member");
        Places {
            wal: config.wal_dir.clone().unwrap_or_else(|| member.join("wal")),
            store: member.join("store"),
            snap: member.join("snap"),
            incoming: incoming_dir(&data),
            member,
            data,
        }
    }

    fn make(&self, vfs: &dyn Vfs) -> Result<(), OpenError> {
        for dir in [&self.store, &self.snap, &self.incoming] {
            make_durably(vfs, dir)?;
        }
        self.wal.parent().map_or(Ok(()), |parent| make_durably(vfs, parent))
    }

    fn lock(&self, vfs: &dyn Vfs) -> Result<Box<dyn vfs::Lock>, OpenError> {
        let path = self.member.join("LOCK");
        vfs.lock(&path).map_err(|error| OpenError::Io {
            what: match error.kind() {
                io::ErrorKind::WouldBlock => {
                    format!("another process uses {}", self.data.display())
                }
                _ => format!("locking {}", path.display()),
            },
            error,
        })
    }

    /// In which term it was found out that acknowledged entries are gone, unless the log has been restored since.
    fn forgotten(
        &self,
        vfs: &dyn Vfs,
        last_term: Term,
        found: &mut Vec<String>,
    ) -> Result<Option<Term>, OpenError> {
        let path = forgotten::path(&self.member);
        let noted = forgotten::read(vfs, &self.member).map_err(io_error("reading", &path))?;
        match noted {
            Some(term) if last_term > term => {
                forgotten::remove(vfs, &self.member).map_err(io_error("deleting", &path))?;
                Ok(None)
            }
            Some(term) => {
                found.push(format!(
                    "in term {term} this member had lost what it had acknowledged: it takes part in no election until an \
                     entry of a later leader has come"
                ));
                Ok(noted)
            }
            None => Ok(None),
        }
    }

    fn clear_incoming(&self, vfs: &dyn Vfs, found: &mut Vec<String>) -> Result<(), OpenError> {
        let names = vfs.list(&self.incoming).map_err(io_error("listing", &self.incoming))?;
        for name in names {
            let path = self.incoming.join(&name);
            vfs.unlink(&path).map_err(io_error("deleting", &path))?;
            found.push(format!("{} was left over and has been deleted", path.display()));
        }
        Ok(())
    }
}

/// Makes a directory and those above it that are missing, each durably before the next one is made in it. So of those that
/// are there only the innermost may have a name that is not durable: whoever made it may have been killed before it synced.
fn make_durably(vfs: &dyn Vfs, dir: &Path) -> Result<(), OpenError> {
    let mut missing = Vec::new();
    for path in dir.ancestors().filter(|path| !path.as_os_str().is_empty()) {
        if vfs.exists(path).map_err(io_error("looking for", path))? {
            match sync_name(vfs, path) {
                // Then it is not ours: we could not have made it there.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                synced => synced.map_err(io_error("syncing the name of", path))?,
            }
            break;
        }
        missing.push(path);
    }
    for path in missing.into_iter().rev() {
        vfs.create_dir_all(path).map_err(io_error("making", path))?;
        sync_name(vfs, path).map_err(io_error("syncing the name of", path))?;
    }
    Ok(())
}

/// Makes the name of a directory durable in that which holds it.
fn sync_name(vfs: &dyn Vfs, dir: &Path) -> io::Result<()> {
    match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => vfs.sync_dir(Path::new(".")),
        Some(parent) => vfs.sync_dir(parent),
        None => Ok(()),
    }
}

/// How the store and the keyspace in it are opened.
#[derive(Clone, Copy)]
pub(crate) struct StoreOptions {
    store: store::Options,
    keyspace: mvcc::Options,
}

impl StoreOptions {
    fn new(config: &Config) -> StoreOptions {
        let Identity { node_id, cluster_id } = config.identity;
        let mut store = store::Options::new(cluster_id, node_id);
        store.segment_bytes = u32::try_from(config.segment_bytes.store).unwrap_or(1 << 30);
        let keyspace =
            mvcc::Options { value_bytes_max: config.value_cache_bytes, ..mvcc::Options::default() };
        StoreOptions { store, keyspace }
    }
}

/// The store with the keyspace built from it.
pub(crate) struct OpenedStore {
    pub(crate) keyspace: mvcc::Keyspace,
    pub(crate) rows: Vec<store::Row>,
    pub(crate) flusher: Flusher,
    pub(crate) applied: (u64, u64),
    pub(crate) torn: Option<String>,
}

pub(crate) fn open_store(
    vfs: Arc<dyn Vfs>,
    dir: &Path,
    options: &StoreOptions,
) -> Result<OpenedStore, OpenError> {
    let mut recovery = Recovery::new();
    let opened = store::open(vfs, dir, options.store, &mut |record| recovery.take(record))
        .map_err(|error| OpenError::Store(error.to_string()))?;
    let torn = opened.torn.map(|torn| {
        format!(
            "the end of {} was not a whole frame and has been cut off at byte {} ({} bytes; the log has what was \
             in them)",
            torn.file.display(),
            torn.offset,
            torn.lost_bytes
        )
    });
    let keyspace = recovery
        .finish(
            options.keyspace,
            opened.builder,
            opened.reader,
            opened.revision,
            opened.compact_revision,
        )
        .map_err(|error| OpenError::Store(format!("{}: {error}; {REPLACE}", dir.display())))?;
    Ok(OpenedStore {
        keyspace,
        rows: opened.rows,
        flusher: opened.flusher,
        applied: opened.applied,
        torn,
    })
}

/// Makes a received snapshot the store's content. The caller opens the store again, whatever comes of it.
pub(crate) fn import(vfs: &dyn Vfs, mut flusher: Flusher, file: &Received) -> io::Result<()> {
    flusher.begin_import().map_err(io::Error::other)?;
    file.read(vfs, &mut |chunk| flusher.import(chunk).map_err(io::Error::other))?;
    flusher.finish_import().map_err(io::Error::other)?;
    Ok(())
}

fn create_log(vfs: &Arc<dyn Vfs>, config: &Config, places: &Places) -> Result<(), OpenError> {
    let Identity { node_id, cluster_id } = config.identity;
    // An empty directory may stand where the log will be made: a volume that was mounted there, or a crash.
    if vfs.exists(&places.wal).map_err(io_error("looking at", &places.wal))? {
        let names = vfs.list(&places.wal).map_err(io_error("listing", &places.wal))?;
        if !names.is_empty() {
            return Err(OpenError::Log(format!(
                "{} is not empty and holds no log: empty it, or give another wal-dir",
                places.wal.display()
            )));
        }
        vfs.remove_dir_all(&places.wal).map_err(io_error("replacing", &places.wal))?;
    }
    let options = wal::Options { segment_bytes: config.segment_bytes.wal };
    Wal::create(vfs.clone(), &places.wal, wal::Metadata { node_id, cluster_id }, options)
        .map(drop)
        .map_err(write_error)
}

/// Whether this member has never promised anything: no state was ever durable in the log, no snapshot either.
///
/// The beginning of a new cluster's log: one change per founder, ordered by id, at indexes 1 to n of term 1, all
/// committed. Every founder writes the same bytes, also an etcd member among them.
fn found_cluster(
    wal: &mut Wal,
    log: &mut wal::Recovered,
    founders: &[Founder],
) -> Result<(), OpenError> {
    let mut founders = founders.to_vec();
    founders.sort_by_key(|founder| founder.node_id);
    let nodes = founders.into_iter().map(|founder| (founder.node_id, founder.context));
    wal.found(log, raft::founding(nodes)).map_err(write_error)?;
    Ok(())
}

/// Raises the state's term to that of the log's last entry, with no vote in it.
///
/// Entries are written before the state that came with them, for a state may commit them. So a crash may keep entries of
/// term 7 (or the record of a snapshot of it) and lose the state: the log ends in term 7, and the state says 3. That
/// is no rot, and the member may go on as one that has seen term 7 and has not voted in it:
///
///  1. raft hands out the state of a new term together with, or before, the first entry of that term, and the log worker
///     writes both before the same sync.
///  2. So if that state was lost, the sync behind it was not done.
///  3. Whatever vouches for anything in term 7 (a vote, one's own in an election, an acknowledged append or
///     snapshot) leaves behind that sync. So none has left: nobody counts on a vote of this member in term 7.
///  4. In terms between 3 and 7 it may have voted no more than in 7 (again the state would have been synced first), and
///     it will not vote in them any more, for its term is 7 now.
///  5. What the kept entries replaced was in conflict with the log of a leader of term 7, so it was not committed.
///
/// The raised state is made durable before anything else is done, so that 1 holds again for the next life.
fn catch_up_with_the_log(
    wal: &mut Wal,
    log: &mut wal::Recovered,
    found: &mut Vec<String>,
) -> Result<(), OpenError> {
    let term = log.term_runs.last().map_or(log.base.1, |(_, term)| *term);
    let state = &mut log.hard_state;
    if term <= state.term {
        return Ok(());
    }
    found.push(format!(
        "the log ends in term {term}, the last state in it is of term {}: a crash has torn what was written last, none \
         of it acknowledged; the member goes on in term {term}",
        state.term
    ));
    *state = HardState { term, vote: raft::NONE, commit: state.commit };
    wal.append(&[], Some(state)).and_then(|()| wal.sync()).map_err(write_error)
}

/// The received snapshot after which the log begins, if it is there.
fn unfinished_snapshot(
    vfs: &dyn Vfs,
    places: &Places,
    log: &wal::Recovered,
    applied: (u64, u64),
) -> Result<Received, OpenError> {
    let (index, term) = log.base;
    let path = places.incoming.join(file_name(index, term));
    if vfs.exists(&path).map_err(io_error("looking for", &path))? {
        return Ok(Received::found(path, index, term));
    }
    Err(OpenError::Snapshot(format!(
        "the log begins after index {index}, but the store is at {} and {} is missing; {REPLACE}",
        applied.0,
        path.display()
    )))
}

/// The store and the log must agree on the term of the last applied entry.
fn check_term(log: &wal::Recovered, applied: (Index, Term)) -> Result<(), OpenError> {
    let (index, term) = applied;
    let run = log.term_runs.iter().rev().find(|(first, _)| *first <= index).map(|(_, term)| *term);
    let in_log = if index == log.base.0 { Some(log.base.1) } else { run };
    if index > Index(0) && in_log.is_some_and(|in_log| in_log != term) {
        return Err(OpenError::Log(format!(
            "the store has applied entry {index} of term {term}, the log has there one of term {}; {REPLACE}",
            in_log.unwrap_or_default()
        )));
    }
    Ok(())
}

fn raft_config(config: &Config) -> raft::Config {
    let limits = &config.limits;
    raft::Config {
        id: config.identity.node_id,
        election_ticks: config.election_ticks,
        heartbeat_ticks: 1,
        max_size_per_message: limits.message_bytes,
        max_inflight_messages: limits.inflight_messages,
        max_inflight_bytes: limits.inflight_bytes,
        // Own proposals stop earlier, at the inbox; this bounds what others forward.
        max_uncommitted_bytes: 2 * limits.uncommitted_bytes,
        max_committed_bytes_per_ready: limits.committed_queue_bytes,
        check_quorum: true,
        pre_vote: config.pre_vote,
        apply_unstable: true,
        seed: config.seed,
        ..raft::Config::default()
    }
}

/// One and a half election timeouts in seconds, rounded up, as etcd has it.
fn lease_ttl_min(config: &Config) -> i64 {
    let ms = 3 * u64::from(config.election_ticks) * config.tick_ms / 2;
    i64::try_from(ms.div_ceil(1_000)).unwrap_or(i64::MAX)
}

fn io_error(what: &'static str, path: &Path) -> impl Fn(io::Error) -> OpenError {
    let path = path.to_path_buf();
    move |error| OpenError::Io { what: format!("{what} {}", path.display()), error }
}

fn write_error(error: wal::WriteError) -> OpenError {
    OpenError::Io { what: error.doing, error: error.error }
}

fn log_error(error: wal::OpenError) -> OpenError {
    match error {
        wal::OpenError::Io(error) => OpenError::Io { what: "opening the log".to_owned(), error },
        wal::OpenError::Missing(dir) => {
            OpenError::Log(format!("there is no log in {}", dir.display()))
        }
        wal::OpenError::Rotten { file, offset, what } => {
            OpenError::Log(format!("the log {} at byte {offset}: {what}", file.display()))
        }
        wal::OpenError::Gap(what) => OpenError::Log(what),
    }
}
