//! Counters and the page that shows them, under etcd's names and types, in Prometheus' text format.
//!
//! Everything is a relaxed atomic: a scrape is a look at numbers that move, not a snapshot of one moment.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::config::SERVER_VERSION;
use crate::handle::Node;

/// A number that only grows.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }
    /// What it is now.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Fourteen buckets from a millisecond, each twice the one before: etcd's buckets for the disk.
const BUCKETS: usize = 14;

/// Durations in etcd's disk buckets.
#[derive(Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    count: AtomicU64,
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Takes a duration in.
    pub fn observe(&self, took: Duration) {
        let bucket = (0..BUCKETS).find(|bucket| took <= Duration::from_millis(1 << bucket));
        if let Some(bucket) = bucket {
            self.buckets[bucket].fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(took.as_nanos() as u64, Relaxed);
    }

    fn write(&self, name: &str, help: &str, page: &mut String) {
        head(page, name, help, "histogram");
        let mut below = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            below += count.load(Relaxed);
            let bound = 0.001 * f64::from(1 << bucket);
            line(page, &format!("{name}_bucket{{le=\"{bound}\"}}"), below as f64);
        }
        let count = self.count.load(Relaxed);
        line(page, &format!("{name}_bucket{{le=\"+Inf\"}}"), count as f64);
        line(page, &format!("{name}_sum"), self.sum_ns.load(Relaxed) as f64 / 1e9);
        line(page, &format!("{name}_count"), count as f64);
    }
}

/// Everything counted.
#[derive(Default)]
pub struct Metrics {
    /// Proposals that ended without a reply of the state machine.
    pub proposals_failed: Counter,
    /// Reads that found no read index.
    pub read_indexes_failed: Counter,
    /// Ranges and read-only transactions served.
    pub ranges: Counter,
    /// Puts answered by this member.
    pub puts: Counter,
    /// Deletes answered by this member.
    pub deletes: Counter,
    /// Transactions through the log answered by this member.
    pub txns: Counter,
    /// Leases granted through this member.
    pub leases_granted: Counter,
    /// Leases revoked through this member.
    pub leases_revoked: Counter,
    /// Leases renewed by this member as leader, whoever was asked.
    pub leases_renewed: Counter,
    /// Changes of leader seen, the first one too.
    pub leader_changes: Counter,
    /// Bytes of client requests.
    pub client_received_bytes: Counter,
    /// Bytes of answers.
    pub client_sent_bytes: Counter,
    /// Proposals that wait for their reply.
    pub proposals_pending: Pending,
    /// Open watchers.
    pub watchers: Pending,
    /// Open watch streams.
    pub watch_streams: Pending,
    /// Events sent.
    pub events: Counter,
    /// Appends handed to the connections to other members; counted while the v2 API is served.
    pub appends_sent: Counter,
    /// Appends received from other members.
    pub appends_received: Counter,
    /// Health checks that passed and failed.
    pub health_success: Counter,
    /// See above.
    pub health_failures: Counter,
    /// Syncs of the log: fdatasync, and what a release of its files adds.
    pub wal_fsync: Histogram,
    /// Turns of the flush thread that wrote or synced frames.
    pub backend_commit: Histogram,
}

impl Metrics {
    /// Counts what was answered to a client's command.
    pub fn count(&self, reply: &state_machine::Reply) {
        use state_machine::Reply;
        match reply {
            Reply::Put(_) => self.puts.add(1),
            Reply::DeleteRange(_) => self.deletes.add(1),
            Reply::Txn(_) => self.txns.add(1),
            Reply::LeaseGrant { .. } => self.leases_granted.add(1),
            Reply::LeaseRevoke { .. } => self.leases_revoked.add(1),
            _ => {}
        }
    }
}

/// A number that grows and shrinks.
#[derive(Default)]
pub struct Pending(AtomicU64);

impl Pending {
    /// One more.
    pub fn enter(&self) {
        self.0.fetch_add(1, Relaxed);
    }
    /// So many less.
    pub fn leave(&self, count: u64) {
        self.0.fetch_sub(count, Relaxed);
    }
    /// What it is now.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

fn head(page: &mut String, name: &str, help: &str, kind: &str) {
    write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n")
        .expect("a String takes everything");
}

fn line(page: &mut String, name: &str, value: f64) {
    writeln!(page, "{name} {value}").expect("a String takes everything");
}

/// The page.
pub fn page(node: &Node) -> String {
    let (metrics, view) = (&node.metrics, &node.view);
    let cluster = view.state.cluster();
    let (size, in_use) = view.sizes();
    let yes = |flag: bool| f64::from(u8::from(flag));
    let mut page = String::with_capacity(16 << 10);

    let gauges = [
        (
            "etcd_server_has_leader",
            "Whether or not a leader exists. 1 is existence, 0 is not.",
            yes(view.leader() != raft::NONE),
        ),
        (
            "etcd_server_is_leader",
            "Whether or not this member is a leader. 1 if is, 0 otherwise.",
            yes(view.leads()),
        ),
        (
            "etcd_server_is_learner",
            "Whether or not this member is a learner. 1 if is, 0 otherwise.",
            yes(view.is_learner()),
        ),
        (
            "etcd_server_proposals_committed_total",
            "Committed entries of the log.",
            view.committed().0 as f64,
        ),
        (
            "etcd_server_proposals_applied_total",
            "Applied entries of the log.",
            view.applied().0 as f64,
        ),
        (
            "etcd_server_proposals_pending",
            "Proposals that wait for their reply.",
            metrics.proposals_pending.value() as f64,
        ),
        (
            "etcd_server_quota_backend_bytes",
            "Size of the store at which writes will be refused; not enforced yet.",
            node.config.quota_bytes().unwrap_or(0) as f64,
        ),
        ("etcd_mvcc_db_total_size_in_bytes", "Bytes of the store's segments.", size as f64),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes of the store that live.", in_use as f64),
        (
            "etcd_debugging_mvcc_current_revision",
            "The current revision.",
            view.state.revision() as f64,
        ),
        (
            "etcd_debugging_mvcc_compact_revision",
            "The compaction mark.",
            view.state.compact_revision() as f64,
        ),
        ("etcd_debugging_mvcc_watcher_total", "Open watchers.", metrics.watchers.value() as f64),
        (
            "etcd_debugging_mvcc_watch_stream_total",
            "Open watch streams.",
            metrics.watch_streams.value() as f64,
        ),
    ];
    for (name, help, value) in gauges {
        head(&mut page, name, help, "gauge");
        line(&mut page, name, value);
    }
    let counters = [
        (
            "etcd_server_leader_changes_seen_total",
            "Changes of leader seen.",
            metrics.leader_changes.value(),
        ),
        (
            "etcd_server_proposals_failed_total",
            "Proposals that ended without a reply.",
            metrics.proposals_failed.value(),
        ),
        (
            "etcd_server_read_indexes_failed_total",
            "Reads that found no read index.",
            metrics.read_indexes_failed.value(),
        ),
        (
            "etcd_server_health_success",
            "Health checks that passed.",
            metrics.health_success.value(),
        ),
        (
            "etcd_server_health_failures",
            "Health checks that failed.",
            metrics.health_failures.value(),
        ),
        ("etcd_mvcc_range_total", "Reads that this member answered.", metrics.ranges.value()),
        ("etcd_mvcc_put_total", "Puts that this member answered.", metrics.puts.value()),
        ("etcd_mvcc_delete_total", "Deletes that this member answered.", metrics.deletes.value()),
        (
            "etcd_mvcc_txn_total",
            "Writing transactions that this member answered.",
            metrics.txns.value(),
        ),
        ("etcd_debugging_mvcc_events_total", "Events sent by this member.", metrics.events.value()),
        ("etcd_debugging_lease_granted_total", "Leases granted.", metrics.leases_granted.value()),
        ("etcd_debugging_lease_revoked_total", "Leases revoked.", metrics.leases_revoked.value()),
        (
            "etcd_debugging_lease_renewed_total",
            "Renewals seen by the leader.",
            metrics.leases_renewed.value(),
        ),
        (
            "etcd_network_client_grpc_received_bytes_total",
            "Bytes received from clients.",
            metrics.client_received_bytes.value(),
        ),
        (
            "etcd_network_client_grpc_sent_bytes_total",
            "Bytes sent to clients.",
            metrics.client_sent_bytes.value(),
        ),
    ];
    for (name, help, value) in counters {
        head(&mut page, name, help, "counter");
        line(&mut page, name, value as f64);
    }
    metrics.wal_fsync.write(
        "etcd_disk_wal_fsync_duration_seconds",
        "How long the log's syncs take.",
        &mut page,
    );
    metrics.backend_commit.write(
        "etcd_disk_backend_commit_duration_seconds",
        "How long the store's writes take.",
        &mut page,
    );
    for (name, label, value) in [
        ("etcd_server_version", "server_version", SERVER_VERSION.to_string()),
        ("etcd_server_id", "server_id", format!("{:x}", node.identity.node_id)),
    ] {
        head(&mut page, name, "Which one it is. The value is 1.", "gauge");
        line(&mut page, &format!("{name}{{{label}=\"{value}\"}}"), 1.0);
    }
    if let Some(version) = &cluster.version {
        head(&mut page, "etcd_cluster_version", "The cluster's version. The value is 1.", "gauge");
        let (major, minor) = (version.major, version.minor);
        line(
            &mut page,
            &format!("etcd_cluster_version{{cluster_version=\"{major}.{minor}\"}}"),
            1.0,
        );
    }
    process(&mut page);
    page
}

/// What Linux says about the process; left out where it says nothing.
fn process(page: &mut String) {
    // Fields of /proc/self/stat behind the name, which may hold blanks and ends with the last parenthesis.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
    let field = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
    const TICKS_PER_SECOND: f64 = 100.0;
    if let (Some(user), Some(system)) = (field(11), field(12)) {
        let name = "process_cpu_seconds_total";
        head(page, name, "Total user and system CPU time spent in seconds.", "counter");
        line(page, name, (user + system) / TICKS_PER_SECOND);
    }
    let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot =
        boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<f64>().ok());
    let files = std::fs::read_dir("/proc/self/fd").map(|entries| entries.count() as f64).ok();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let gauges = [
        ("process_virtual_memory_bytes", "Virtual memory size in bytes.", field(20)),
        (
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            pages.map(|pages| pages * 4096.0),
        ),
        ("process_open_fds", "Number of open file descriptors.", files),
        (
            "process_max_fds",
            "Maximum number of open file descriptors.",
            limit.map(|limit| limit as f64),
        ),
        (
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            boot.zip(field(19)).map(|(boot, start)| boot + start / TICKS_PER_SECOND),
        ),
        ("os_fd_used", "File descriptors in use.", files),
        ("os_fd_limit", "File descriptors that may be used.", limit.map(|limit| limit as f64)),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            head(page, name, help, "gauge");
            line(page, name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_downwards_and_keeps_what_is_too_long() {
        let histogram = Histogram::default();
        for ms in [0, 1, 2, 3, 8192, 9000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let mut page = String::new();
        histogram.write("x", "help", &mut page);
        for want in [
            "# TYPE x histogram\n",
            "x_bucket{le=\"0.001\"} 2\n",
            "x_bucket{le=\"0.002\"} 3\n",
            "x_bucket{le=\"0.004\"} 4\n",
            "x_bucket{le=\"8.192\"} 5\n",
            "x_bucket{le=\"+Inf\"} 6\n",
            "x_sum 17.198\n",
            "x_count 6\n",
        ] {
            assert!(page.contains(want), "{want:?} is not in {page}");
        }
    }

    #[test]
    fn the_process_page_has_what_prometheus_clients_show() {
        let mut page = String::new();
        process(&mut page);
        for name in
            ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"]
        {
            let line = page.lines().find(|line| line.starts_with(name)).unwrap();
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() >= 0.0, "{line}");
        }
    }
}
