//! What one member is told at its start, and every limit that it holds to, by name.

use std::path::PathBuf;

use raft::NodeId;

use crate::trace::Tracing;
use crate::waiters::SHARDS_MAX;

/// Who a data directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// This member.
    pub node_id: NodeId,
    /// Its cluster.
    pub cluster_id: u64,
}

/// The settings of one member. Times are in ticks unless the name says otherwise; a tick is one heartbeat interval.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whose data this is.
    pub identity: Identity,
    /// The data directory; `member/` lies in it.
    pub data_dir: PathBuf,
    /// The directory of the log if it is not `member/wal`.
    pub wal_dir: Option<PathBuf>,
    /// How many shards there are, in `1..=63`.
    pub shards: u8,
    /// The length of a tick in milliseconds (etcd's heartbeat-interval).
    pub tick_ms: u64,
    /// After how many ticks without a leader a member campaigns; in `[3, 500]`.
    pub election_ticks: u32,
    /// Whether a candidate asks first whether it would win (thesis §9.6).
    pub pre_vote: bool,
    /// The largest proposal in bytes, as encoded in the log.
    pub max_request_bytes: usize,
    /// After how many applied entries the log is marked and released (etcd's snapshot-count).
    pub snapshot_count: u64,
    /// How many applied entries are kept for slow followers (etcd's snapshot-catchup-entries).
    pub snapshot_catchup_entries: u64,
    /// The most bytes of values kept in memory besides those that are not on disk yet.
    pub value_cache_bytes: usize,
    /// Where the file sizes of the log's and the store's segments come from; tests make them small.
    pub segment_bytes: SegmentBytes,
    /// Whether files are synced at all (false is etcd's unsafe-no-fsync).
    pub sync: bool,
    /// Seeds election timeouts.
    pub seed: u64,
    /// Unix time of the start in milliseconds: the names of the replica's own proposals start there.
    pub start_ms: u64,
    /// How much is told of the stages of the work (see [`crate::Trace`]).
    pub trace: Tracing,
    /// Everything that is bounded.
    pub limits: Limits,
}

/// The sizes at which segments are cut, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentBytes {
    /// Of the log; etcd's 64 MB.
    pub wal: u64,
    /// Of the store.
    pub store: u64,
}

/// The bounds of everything that could grow, and what is full when they are met.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Committed minus applied entries above which a proposal is refused with `too many requests` (etcd's 5000).
    pub apply_lag: u64,
    /// The same for lease revokes, so that what frees memory gets through (etcd's 10000).
    pub apply_lag_priority: u64,
    /// Proposed but not committed bytes above which the replica takes no proposals: its inbox fills.
    pub uncommitted_bytes: u64,
    /// Applied bytes whose frames are not written, above which the replica takes no proposals.
    pub unflushed_bytes: u64,
    /// The same, above which nothing more is applied until frames are written (a follower has no inbox to fill).
    pub unflushed_bytes_hard: u64,
    /// Proposals that wait for a leader, in number; more are refused at once.
    pub held_proposals: usize,
    /// Read rounds under way; more shard batches gather into the next round.
    pub read_rounds: usize,
    /// Leases' questions that wait for apply or for a quorum round; more are refused.
    pub lease_waits: usize,
    /// Committed entries handed to apply in one job, in bytes.
    pub apply_job_bytes: usize,
    /// Apply jobs under way.
    pub apply_jobs: usize,
    /// Bytes of committed entries taken out of raft and not yet handed to apply.
    pub committed_queue_bytes: u64,
    /// Entries of the log kept in memory, in bytes; older ones are read back by job.
    pub log_memory_bytes: u64,
    /// Entries that must stay in memory besides those, for they are not applied or not durable: above so many bytes a
    /// message that brings more is dropped, as if it had been lost on its way. Its sender has it, and tries again.
    pub stuck_bytes: u64,
    /// A frame is cut at so many bytes …
    pub frame_bytes: usize,
    /// … or after so many milliseconds.
    pub frame_ms: u64,
    /// The store is synced when so many bytes are written.
    pub store_sync_bytes: u64,
    /// Frames cut and not yet written.
    pub frames: usize,
    /// The most bytes of entries in one message to a follower.
    pub message_bytes: u64,
    /// Messages under way to one follower.
    pub inflight_messages: usize,
    /// Bytes under way to one follower.
    pub inflight_bytes: u64,
    /// Expiry revokes per second (etcd's 1000).
    pub lease_revokes_per_second: u32,
    /// Log reads for followers under way.
    pub fetches: usize,
    /// Bytes of the store's sealed segments that are read again per second, to find rot.
    pub scrub_bytes_per_second: u64,
    /// The time between two rounds of that through all of them.
    pub scrub_pause_ms: u64,
    /// The trace's events kept between two outputs.
    pub trace_events: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            apply_lag: 5_000,
            apply_lag_priority: 10_000,
            uncommitted_bytes: 64 << 20,
            unflushed_bytes: 64 << 20,
            unflushed_bytes_hard: 128 << 20,
            held_proposals: 4_096,
            read_rounds: 64,
            lease_waits: 65_536,
            apply_job_bytes: 1 << 20,
            apply_jobs: 2,
            committed_queue_bytes: 64 << 20,
            log_memory_bytes: 64 << 20,
            stuck_bytes: 256 << 20,
            frame_bytes: 1 << 20,
            frame_ms: 1_000,
            store_sync_bytes: 16 << 20,
            frames: 16,
            message_bytes: 512 << 10,
            inflight_messages: 512,
            inflight_bytes: 16 << 20,
            lease_revokes_per_second: 1_000,
            fetches: 8,
            scrub_bytes_per_second: 4 << 20,
            scrub_pause_ms: 3_600_000,
            trace_events: 65_536,
        }
    }
}

impl Config {
    /// etcd's defaults for everything but the identity and the place.
    pub fn new(identity: Identity, data_dir: impl Into<PathBuf>) -> Config {
        Config {
            identity,
            data_dir: data_dir.into(),
            wal_dir: None,
            shards: 1,
            tick_ms: 100,
            election_ticks: 10,
            pre_vote: true,
            max_request_bytes: 1_572_864,
            snapshot_count: 10_000,
            snapshot_catchup_entries: 5_000,
            value_cache_bytes: 256 << 20,
            segment_bytes: SegmentBytes { wal: 64_000_000, store: 64 << 20 },
            sync: true,
            seed: 0,
            start_ms: 0,
            trace: Tracing::Off,
            limits: Limits::default(),
        }
    }

    /// How many ticks make up `ms`, at least one.
    pub fn ticks(&self, ms: u64) -> u64 {
        ms.div_ceil(self.tick_ms.max(1)).max(1)
    }

    /// How long a request may take: five seconds and two election timeouts, as etcd has it.
    pub fn request_timeout_ticks(&self) -> u64 {
        self.ticks(5_000) + 2 * u64::from(self.election_ticks)
    }

    /// Panics if a setting is outside its range; the server checks what users give before.
    pub(crate) fn check(&self) {
        assert!(self.identity.node_id != raft::NONE, "a member has a name");
        assert!((1..=SHARDS_MAX).contains(&self.shards), "{} shards", self.shards);
        assert!(self.tick_ms > 0, "a tick takes time");
        assert!(self.election_ticks >= 3, "election in {} ticks", self.election_ticks);
        assert!(self.snapshot_count > 0, "snapshot-count is positive");
        assert!(self.limits.apply_jobs > 0 && self.limits.frames > 0 && self.limits.fetches > 0);
        assert!(self.limits.read_rounds > 0);
    }
}

/// How a member begins when its data directory is empty. On one that is not, only what lies there counts.
#[derive(Clone, Debug)]
pub enum Bootstrap {
    /// A new cluster; every founder is given the same list.
    New(Vec<Founder>),
    /// A member that was added to a running cluster: it starts with an empty log and waits for the leader.
    Join,
    /// The data must be there; an empty directory is refused.
    Restart,
}

/// A member of a new cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founder {
    /// Its id.
    pub node_id: NodeId,
    /// The change's context: etcd's member JSON with name and peer URLs, byte for byte the same on all founders.
    pub context: bytes::Bytes,
}
