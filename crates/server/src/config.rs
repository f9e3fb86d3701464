//! The command line and environment of a member: every flag of etcd 3.7 stands in one table.
//!
//! A flag is either ours already, accepted and ignored (as etcd itself does with its oldest ones), or known
//! and refused: a member that silently ran without what its operator asked for would be worse than one that
//! does not start. Rules, all etcd's: `--f v`, `--f=v`, one dash or two, the last one wins; a boolean needs
//! `=` to be given a value; `ETCD_F` is read for flags that are not given, and giving both is an error.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use crate::compactor::Retention;
use crate::log::{Level, LogFormat};

/// The version that we answer to clients and peers. Clients and etcd's own tools switch features by it, so it
/// names the etcd release whose behaviour we follow, not our own.
pub const SERVER_VERSION: &str = "3.7.0";
/// The oldest server that a peer may be.
pub const MIN_CLUSTER_VERSION: &str = "3.0.0";
/// The cluster version that a cluster of our members decides on.
pub const CLUSTER_VERSION: &str = "3.7.0";
/// The quota that stands for `--quota-backend-bytes=0`.
pub const QUOTA_BYTES_DEFAULT: i64 = 2 * 1024 * 1024 * 1024;
/// What a gRPC message may be longer than the request in it: etcd's allowance for the envelope.
pub const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;
/// What grpc-go does where etcd sets nothing: silence before a ping, time to answer it, time between a client's.
const PING_INTERVAL: Duration = Duration::from_secs(2 * 60 * 60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
const PING_MIN_TIME: Duration = Duration::from_secs(5 * 60);
/// Shorter intervals are raised to this one, as grpc-go raises them.
const PING_INTERVAL_MIN: Duration = Duration::from_secs(1);
const ELECTION_TIMEOUT_MS_MAX: u64 = 50_000;

/// How a flag's text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Unsigned,
    Signed,
    Boolean,
    Duration,
    Urls,
}

/// What we do with a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Support {
    /// It works.
    Yes(Kind),
    /// etcd has it and we do not yet. The flag is a boolean or takes a value.
    NotYet { boolean: bool },
    /// etcd accepts it and does nothing with it; so do we.
    Ignored,
}

/// One flag, as the help prints it.
struct Flag {
    name: &'static str,
    default: &'static str,
    help: &'static str,
    support: Support,
}

const fn yes(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag { name, default, help, support: Support::Yes(kind) }
}
const fn later(name: &'static str) -> Flag {
    Flag { name, default: "", help: "", support: Support::NotYet { boolean: false } }
}
const fn later_bool(name: &'static str) -> Flag {
    Flag { name, default: "", help: "", support: Support::NotYet { boolean: true } }
}
const fn ignored(name: &'static str) -> Flag {
    Flag { name, default: "", help: "", support: Support::Ignored }
}

/// Every flag of etcd 3.7, and `enable-v2` of 3.4. The order is that of the help.
const FLAGS: &[Flag] = &[
    yes("name", Kind::Text, "default", "human-readable name of this member"),
    yes("data-dir", Kind::Text, "${name}.etcd", "directory of everything this member keeps"),
    yes(
        "wal-dir",
        Kind::Text,
        "",
        "directory of the write-ahead log, if it is not in the data directory",
    ),
    yes(
        "snapshot-count",
        Kind::Unsigned,
        "10000",
        "applied entries after which a snapshot is recorded",
    ),
    yes(
        "snapshot-catchup-entries",
        Kind::Unsigned,
        "5000",
        "entries kept for slow followers behind a snapshot",
    ),
    yes("heartbeat-interval", Kind::Unsigned, "100", "milliseconds between heartbeats"),
    yes(
        "election-timeout",
        Kind::Unsigned,
        "1000",
        "milliseconds without a leader before an election",
    ),
    yes(
        "pre-vote",
        Kind::Boolean,
        "true",
        "ask whether an election can be won before disturbing anyone with it",
    ),
    yes(
        "listen-peer-urls",
        Kind::Urls,
        "http://localhost:2380",
        "URLs to listen on for other members",
    ),
    yes(
        "listen-client-urls",
        Kind::Urls,
        "http://localhost:2379",
        "URLs to listen on for clients: gRPC and HTTP",
    ),
    yes(
        "quota-backend-bytes",
        Kind::Signed,
        "0",
        "size of the store at which writes will be refused, 0 for 2 GiB; not enforced yet",
    ),
    yes(
        "grpc-keepalive-min-time",
        Kind::Duration,
        "5s",
        "time between a client's pings; a client that pings more often is sent away",
    ),
    yes(
        "grpc-keepalive-interval",
        Kind::Duration,
        "2h0m0s",
        "time after which a silent client is pinged",
    ),
    yes(
        "grpc-keepalive-timeout",
        Kind::Duration,
        "20s",
        "time a client has to answer a ping before its connection is closed",
    ),
    yes("max-txn-ops", Kind::Unsigned, "128", "operations in one transaction, at most"),
    yes("max-request-bytes", Kind::Unsigned, "1572864", "bytes of one request, at most"),
    yes(
        "max-concurrent-streams",
        Kind::Unsigned,
        "4294967295",
        "open streams of one client connection, at most, and never more than 16384",
    ),
    yes(
        "watch-progress-notify-interval",
        Kind::Duration,
        "0s",
        "time between progress notices; 0 means ten minutes",
    ),
    yes(
        "unsafe-no-fsync",
        Kind::Boolean,
        "false",
        "do not wait for the disk; a power cut then loses data",
    ),
    yes(
        "initial-advertise-peer-urls",
        Kind::Urls,
        "http://localhost:2380",
        "this member's peer URLs as others reach them",
    ),
    yes(
        "advertise-client-urls",
        Kind::Urls,
        "http://localhost:2379",
        "this member's client URLs as clients reach them",
    ),
    yes(
        "initial-cluster",
        Kind::Text,
        "default=http://localhost:2380",
        "members at the cluster's birth: name=url,...",
    ),
    yes(
        "initial-cluster-state",
        Kind::Text,
        "new",
        "'new' for a cluster's birth, 'existing' to join one",
    ),
    yes(
        "initial-cluster-token",
        Kind::Text,
        "etcd-cluster",
        "token that keeps clusters of equal URLs apart",
    ),
    yes("enable-v2", Kind::Boolean, "false", "serve the v2 API, as etcd 3.4 does, under /v2"),
    yes("logger", Kind::Text, "zap", "form of the log lines; only zap's is spoken"),
    yes("log-outputs", Kind::Text, "default", "stdout, stderr or file paths, separated by commas"),
    yes("log-level", Kind::Text, "info", "debug, info, warn, error, panic or fatal"),
    yes("log-format", Kind::Text, "json", "json or console"),
    yes("version", Kind::Boolean, "false", "print the version and leave"),
    later("listen-client-http-urls"),
    later("listen-metrics-urls"),
    later_bool("initial-election-tick-advance"),
    later("max-snapshots"),
    later("max-wals"),
    later_bool("memory-mlock"),
    later("backend-bbolt-freelist-type"),
    later("backend-batch-interval"),
    later("backend-batch-limit"),
    later_bool("socket-reuse-port"),
    later_bool("socket-reuse-address"),
    yes("enable-grpc-gateway", Kind::Boolean, "true", "serve the JSON API under /v3/"),
    later("raft-read-timeout"),
    later("raft-write-timeout"),
    later("feature-gates"),
    later("discovery-token"),
    later("discovery-endpoints"),
    later("discovery-dial-timeout"),
    later("discovery-request-timeout"),
    later("discovery-keepalive-time"),
    later("discovery-keepalive-timeout"),
    later_bool("discovery-insecure-transport"),
    later_bool("discovery-insecure-skip-tls-verify"),
    later("discovery-cert"),
    later("discovery-key"),
    later("discovery-cacert"),
    later("discovery-user"),
    later("discovery-password"),
    later("discovery-fallback"),
    later("discovery-srv"),
    later("discovery-srv-name"),
    later_bool("strict-reconfig-check"),
    yes(
        "auto-compaction-mode",
        Kind::Text,
        "periodic",
        "what auto-compaction-retention counts: periodic (time) or revision",
    ),
    yes(
        "auto-compaction-retention",
        Kind::Text,
        "0",
        "history that is kept: 5m, 1h (a mere number is hours), or a number of revisions; 0 means all",
    ),
    later("cert-file"),
    later("key-file"),
    later("client-cert-file"),
    later("client-key-file"),
    later_bool("client-cert-auth"),
    later("client-crl-file"),
    later("client-cert-allowed-hostname"),
    later("trusted-ca-file"),
    later_bool("auto-tls"),
    later("peer-cert-file"),
    later("peer-key-file"),
    later("peer-client-cert-file"),
    later("peer-client-key-file"),
    later_bool("peer-client-cert-auth"),
    later("peer-trusted-ca-file"),
    later_bool("peer-auto-tls"),
    later("self-signed-cert-validity"),
    later("peer-crl-file"),
    later("peer-cert-allowed-cn"),
    later("peer-cert-allowed-hostname"),
    later_bool("peer-skip-client-san-verification"),
    later("cipher-suites"),
    later("tls-min-version"),
    later("tls-max-version"),
    later("cors"),
    later("host-whitelist"),
    later_bool("enable-log-rotation"),
    later("log-rotation-config-json"),
    later_bool("enable-pprof"),
    later("metrics"),
    later_bool("enable-distributed-tracing"),
    later("distributed-tracing-address"),
    later("distributed-tracing-service-name"),
    later("distributed-tracing-instance-id"),
    later("distributed-tracing-sampling-rate"),
    later("auth-token"),
    later("bcrypt-cost"),
    later("auth-token-ttl"),
    later("corrupt-check-time"),
    later("compact-hash-check-time"),
    later("compaction-batch-limit"),
    later("compaction-sleep-interval"),
    later("downgrade-check-time"),
    later("warning-apply-duration"),
    later("warning-unary-request-duration"),
    later("bootstrap-defrag-threshold-megabytes"),
    later("max-learners"),
    later("v2-deprecation"),
    later_bool("force-new-cluster"),
    later("config-file"),
    ignored("cluster-active-size"),
    ignored("cluster-remove-delay"),
    ignored("cluster-sync-interval"),
    ignored("config"),
    ignored("force"),
    ignored("max-result-buffer"),
    ignored("max-retry-attempts"),
    ignored("peer-heartbeat-interval"),
    ignored("peer-election-timeout"),
    ignored("retry-interval"),
    ignored("snapshot"),
    ignored("v"),
    ignored("vv"),
    ignored("test.coverprofile"),
    ignored("test.outputdir"),
];

/// A URL that we listen on or advertise: plain HTTP over TCP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    text: String,
    host: String,
    port: u16,
}

impl Url {
    /// Reads one URL as etcd reads it.
    pub fn parse(text: &str) -> Result<Url, String> {
        let text = text.trim();
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("URL scheme must be http, https, unix, or unixs: {text}"));
        };
        match scheme {
            "http" => {}
            "https" => return Err(format!("https is not yet supported: {text}")),
            "unix" | "unixs" => return Err(format!("unix sockets are not yet supported: {text}")),
            _ => return Err(format!("URL scheme must be http, https, unix, or unixs: {text}")),
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let bad = || format!("URL address does not have the form \"host:port\": {text}");
        let (host, port) = match authority.strip_prefix('[') {
            Some(inner) => inner.split_once("]:").ok_or_else(bad)?,
            None => authority
                .rsplit_once(':')
                .filter(|(host, _)| !host.contains(':'))
                .ok_or_else(bad)?,
        };
        let port = port.parse().map_err(|_| bad())?;
        if !path.is_empty() {
            return Err(format!("URL must not contain a path: {text}"));
        }
        Ok(Url { text: text.to_string(), host: host.to_string(), port })
    }

    /// Reads a comma-separated list. The result is sorted and holds no URL twice, as etcd keeps it.
    pub fn parse_list(text: &str) -> Result<Vec<Url>, String> {
        let mut urls = text
            .split(',')
            .filter(|url| !url.trim().is_empty())
            .map(Url::parse)
            .collect::<Result<Vec<_>, _>>()?;
        if urls.is_empty() {
            return Err("no valid URLs given".to_string());
        }
        urls.sort();
        urls.dedup();
        Ok(urls)
    }

    /// The URL as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }
    /// The host: a name or an IP address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }
    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
    /// The addresses that a listener binds. A listener's host is `localhost` or an IP address.
    pub fn socket_addresses(&self) -> std::io::Result<Vec<SocketAddr>> {
        Ok((self.host.as_str(), self.port).to_socket_addrs()?.collect())
    }

    fn check_bindable(&self) -> Result<(), String> {
        match self.host == "localhost" || self.host.parse::<IpAddr>().is_ok() {
            true => Ok(()),
            false => Err(format!("expected IP in URL for binding ({})", self.text)),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether the member helps to found a cluster or joins one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// The cluster is born with `initial-cluster` as its members.
    New,
    /// The cluster exists and knows this member already.
    Existing,
}

/// All that a member is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Human-readable name, also the key of this member in `initial_cluster`.
    pub name: String,
    /// Directory of everything kept.
    pub data_dir: PathBuf,
    /// Directory of the write-ahead log when it is not inside `data_dir`.
    pub wal_dir: Option<PathBuf>,
    /// Where clients are served.
    pub listen_client_urls: Vec<Url>,
    /// How clients reach us.
    pub advertise_client_urls: Vec<Url>,
    /// Where other members are served.
    pub listen_peer_urls: Vec<Url>,
    /// How other members reach us.
    pub initial_advertise_peer_urls: Vec<Url>,
    /// The founding members: name and peer URLs. A name stands once; its URLs are sorted.
    pub initial_cluster: BTreeMap<String, Vec<String>>,
    /// Keeps clusters of equal URLs apart; part of the ids.
    pub initial_cluster_token: String,
    /// Founding or joining.
    pub initial_cluster_state: ClusterState,
    /// Applied entries between two snapshot records.
    pub snapshot_count: u64,
    /// Entries kept behind a snapshot record.
    pub snapshot_catchup_entries: u64,
    /// One tick.
    pub heartbeat_interval: Duration,
    /// Silence that starts an election; at least five heartbeats.
    pub election_timeout: Duration,
    /// Whether elections are tried before they are held.
    pub pre_vote: bool,
    /// Whether the JSON API is served.
    pub enable_grpc_gateway: bool,
    /// Longest raft entry in bytes.
    pub max_request_bytes: usize,
    /// Longest list of operations of a transaction.
    pub max_txn_ops: usize,
    /// HTTP/2 streams per client connection.
    pub max_concurrent_streams: u32,
    /// Time between a client's pings, at least.
    pub grpc_keepalive_min_time: Duration,
    /// Silence of a client after which it is pinged.
    pub grpc_keepalive_interval: Duration,
    /// Time a client has to answer.
    pub grpc_keepalive_timeout: Duration,
    /// Time between progress notices, before jitter.
    pub watch_progress_notify_interval: Duration,
    /// Store size at which writes will be refused; negative: never. Shown, and not enforced yet.
    pub quota_backend_bytes: i64,
    /// How much history is kept without anybody compacting.
    pub retention: Retention,
    /// Skip fsync.
    pub unsafe_no_fsync: bool,
    /// Whether the v2 API is served.
    pub enable_v2: bool,
    /// Lowest level written.
    pub log_level: Level,
    /// Form of a log line.
    pub log_format: LogFormat,
    /// Where log lines go: `stdout`, `stderr` or paths.
    pub log_outputs: Vec<String>,
    /// Sizes of the log's and the store's files, if not the usual ones. No flag: tests make them small.
    pub segment_bytes: Option<replica::SegmentBytes>,
    /// How much is noted of what requests go through. No flag: only measurements want another than a member has.
    pub tracing: replica::Tracing,
    /// What is worth a warning once there is a log.
    pub warnings: Vec<(String, String)>,
}

impl Config {
    /// Time after which a request that waits for the cluster is given up: etcd's 5 s and two elections.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout
    }
    /// The election timeout in ticks of one heartbeat each.
    pub fn election_ticks(&self) -> u64 {
        (self.election_timeout.as_millis() / self.heartbeat_interval.as_millis().max(1)) as u64
    }
    /// The longest gRPC message that is read.
    pub fn receive_bytes_max(&self) -> usize {
        self.max_request_bytes + GRPC_OVERHEAD_BYTES
    }
    /// The quota in force: 0 was replaced by the default; `None` is no quota.
    pub fn quota_bytes(&self) -> Option<i64> {
        match self.quota_backend_bytes {
            0 => Some(QUOTA_BYTES_DEFAULT),
            bytes if bytes < 0 => None,
            bytes => Some(bytes),
        }
    }
    /// Whether this member is the only founding one.
    pub fn is_lone(&self) -> bool {
        self.initial_cluster.len() == 1
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Action {
    /// Serve.
    Run(Box<Config>),
    /// Print this text and leave with success.
    Print(String),
}

/// Why there is no configuration. `exit_code` is etcd's: 2 for a flag that cannot be read, 1 otherwise.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// One sentence for the operator.
    pub text: String,
    /// The process's exit code.
    pub exit_code: u8,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
impl std::error::Error for ConfigError {}

fn usage(text: String) -> ConfigError {
    ConfigError { text, exit_code: 2 }
}
fn wrong(text: String) -> ConfigError {
    ConfigError { text, exit_code: 1 }
}

/// Reads the command line (without the program's name) and the environment.
pub fn parse(
    arguments: &[String],
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Action, ConfigError> {
    let mut given: BTreeMap<&'static str, String> = BTreeMap::new();
    let mut warnings = Vec::new();

    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(body) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else {
            return Err(wrong(format!("{argument:?} is not a valid flag")));
        };
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (body, None),
        };
        if matches!(name, "help" | "h") {
            return Ok(Action::Print(help()));
        }
        let flag = find(name)?;
        let value = match (flag.support, inline) {
            (_, Some(value)) => value,
            (Support::Yes(Kind::Boolean) | Support::NotYet { boolean: true }, None) => {
                "true".to_string()
            }
            (_, None) => rest
                .next()
                .ok_or_else(|| usage(format!("flag needs an argument: --{name}")))?
                .clone(),
        };
        accept(flag, &value, &format!("--{name}"), &mut warnings)?;
        given.insert(flag.name, value);
    }

    if given.get("version").is_some_and(|value| boolean(value) == Some(true)) {
        return Ok(Action::Print(version()));
    }

    for (variable, value) in environment {
        let Some(name) = variable.strip_prefix("ETCD_") else { continue };
        let name = name.to_lowercase().replace('_', "-");
        if name == "version" {
            warnings.push(("cannot set special environment variable".to_string(), variable));
            continue;
        }
        let Some(flag) = FLAGS.iter().find(|flag| flag.name == name) else {
            warnings.push(("unrecognized environment variable".to_string(), variable));
            continue;
        };
        if given.contains_key(flag.name) {
            return Err(wrong(format!(
                "conflicting environment variable {variable} is shadowed by corresponding command-line flag \
                 (either unset environment variable or disable flag)"
            )));
        }
        if value.is_empty() {
            continue;
        }
        accept(flag, &value, &variable, &mut warnings).map_err(|error| wrong(error.text))?;
        given.insert(flag.name, value);
    }
    build(Given(given), warnings).map(|config| Action::Run(Box::new(config)))
}

fn find(name: &str) -> Result<&'static Flag, ConfigError> {
    if let Some(flag) = FLAGS.iter().find(|flag| flag.name == name) {
        return Ok(flag);
    }
    if let Some(now) =
        name.strip_prefix("experimental-").filter(|now| FLAGS.iter().any(|f| f.name == *now))
    {
        return Err(usage(format!(
            "unknown flag: --{name} (etcd 3.7 removed it in favour of --{now})"
        )));
    }
    let nearest = FLAGS
        .iter()
        .map(|flag| flag.name)
        .chain(["help"])
        .min_by_key(|candidate| distance(name, candidate))
        .expect("the table is not empty");
    Err(usage(match distance(name, nearest) <= name.len() / 2 {
        true => format!("unknown flag: --{name} (did you mean --{nearest}?)"),
        false => format!("unknown flag: --{name} (see --help)"),
    }))
}

/// Refuses what cannot be, notes what has no effect.
fn accept(
    flag: &Flag,
    value: &str,
    source: &str,
    warnings: &mut Vec<(String, String)>,
) -> Result<(), ConfigError> {
    let kind = match flag.support {
        Support::Yes(kind) => kind,
        Support::NotYet { .. } => {
            return Err(usage(format!(
                "{source} is an etcd flag that is not yet supported; start without it"
            )));
        }
        Support::Ignored => {
            warnings.push(("ignored flag".to_string(), source.to_string()));
            return Ok(());
        }
    };
    let readable = match kind {
        Kind::Text => Ok(()),
        Kind::Unsigned => {
            value.parse::<u64>().map(|_| ()).map_err(|_| "it takes a number".to_string())
        }
        Kind::Signed => {
            value.parse::<i64>().map(|_| ()).map_err(|_| "it takes a number".to_string())
        }
        Kind::Boolean => {
            boolean(value).map(|_| ()).ok_or_else(|| "it takes true or false".to_string())
        }
        Kind::Duration => duration(value)
            .map(|_| ())
            .ok_or_else(|| "it takes a duration such as 10m or 1.5s".to_string()),
        Kind::Urls => Url::parse_list(value).map(|_| ()),
    };
    readable.map_err(|why| usage(format!("invalid value {value:?} for {source}: {why}")))
}

/// The values given, over the table's defaults. Every value has been read once already, in `accept`.
struct Given(BTreeMap<&'static str, String>);

impl Given {
    fn text(&self, name: &'static str) -> &str {
        let flag =
            FLAGS.iter().find(|flag| flag.name == name).expect("asked by names of the table");
        self.0.get(name).map_or(flag.default, String::as_str)
    }
    fn unsigned(&self, name: &'static str) -> u64 {
        self.text(name).parse().expect("read before")
    }
    fn boolean(&self, name: &'static str) -> bool {
        boolean(self.text(name)).expect("read before")
    }
    fn urls(&self, name: &'static str) -> Vec<Url> {
        Url::parse_list(self.text(name)).expect("read before")
    }
    fn has(&self, name: &'static str) -> bool {
        self.0.contains_key(name)
    }
}

fn build(given: Given, mut warnings: Vec<(String, String)>) -> Result<Config, ConfigError> {
    if given.has("quota-backend-bytes") {
        let warning = "this flag is shown in status and metrics, and not enforced yet: writes go on at any size";
        warnings.push((warning.to_string(), "quota-backend-bytes".to_string()));
    }
    let name = given.text("name").to_string();
    let data_dir = match given.text("data-dir") {
        "" | "${name}.etcd" => PathBuf::from(format!("{name}.etcd")),
        dir => PathBuf::from(dir),
    };
    let wal_dir = Some(given.text("wal-dir")).filter(|dir| !dir.is_empty()).map(PathBuf::from);

    let listen_peer_urls = given.urls("listen-peer-urls");
    let listen_client_urls = given.urls("listen-client-urls");
    for url in listen_peer_urls.iter().chain(&listen_client_urls) {
        url.check_bindable().map_err(wrong)?;
    }
    let initial_advertise_peer_urls = given.urls("initial-advertise-peer-urls");
    let advertise_client_urls = given.urls("advertise-client-urls");
    for (flag, urls, form) in [
        ("initial-advertise-peer-urls", &initial_advertise_peer_urls, "must be \"host:port\""),
        ("advertise-client-urls", &advertise_client_urls, "must be in the format \"host:port\""),
    ] {
        if let Some(url) = urls.iter().find(|url| url.host.is_empty()) {
            return Err(wrong(format!(
                "--{flag} \"{url}\" {form} (unexpected empty host ({url}))"
            )));
        }
    }

    let initial_cluster_state = match given.text("initial-cluster-state") {
        "new" => ClusterState::New,
        "existing" => ClusterState::Existing,
        other => {
            return Err(usage(format!(
                "invalid value {other:?} for flag --initial-cluster-state: it takes new or existing"
            )));
        }
    };
    let initial_cluster = match given.has("initial-cluster") {
        true => cluster(given.text("initial-cluster")).map_err(wrong)?,
        // Without the flag the member founds a cluster of its own, under the name and URLs it was given.
        false => BTreeMap::from([(
            name.clone(),
            initial_advertise_peer_urls.iter().map(|url| url.text.clone()).collect::<Vec<_>>(),
        )]),
    };

    let (heartbeat_ms, election_ms) =
        (given.unsigned("heartbeat-interval"), given.unsigned("election-timeout"));
    if heartbeat_ms == 0 {
        return Err(wrong("--heartbeat-interval must be >0 (set to 0ms)".to_string()));
    }
    if election_ms == 0 {
        return Err(wrong("--election-timeout must be >0 (set to 0ms)".to_string()));
    }
    if heartbeat_ms.saturating_mul(5) > election_ms {
        return Err(wrong(format!(
            "--election-timeout[{election_ms}ms] should be at least as 5 times as \
             --heartbeat-interval[{heartbeat_ms}ms]"
        )));
    }
    if election_ms > ELECTION_TIMEOUT_MS_MAX {
        return Err(wrong(format!(
            "--election-timeout[{election_ms}ms] is too long, and should be set less than \
             {ELECTION_TIMEOUT_MS_MAX}ms"
        )));
    }
    if given.has("listen-client-urls") && !given.has("advertise-client-urls") {
        return Err(wrong(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly"
                .to_string(),
        ));
    }
    if given.text("logger") != "zap" {
        return Err(wrong(format!("unknown logger option {:?}", given.text("logger"))));
    }
    let log_level = Level::parse(given.text("log-level"))
        .ok_or_else(|| wrong(format!("unrecognized level: {:?}", given.text("log-level"))))?;
    let log_format = match given.text("log-format") {
        "json" => LogFormat::Json,
        "console" => LogFormat::Console,
        other => {
            return Err(wrong(format!(
                "unknown log format: {other}, supported values json, console"
            )));
        }
    };
    let log_outputs: Vec<String> =
        given.text("log-outputs").split(',').map(|output| output.trim().to_string()).collect();
    if log_outputs.iter().any(|output| output == "systemd/journal") {
        return Err(wrong("--log-outputs=systemd/journal is not yet supported".to_string()));
    }
    if log_outputs.len() > 1 && log_outputs.iter().any(|output| output == "default") {
        return Err(wrong(
            "multi logoutput for \"default\" is not supported yet; list stderr itself".to_string(),
        ));
    }
    let retention =
        retention(given.text("auto-compaction-mode"), given.text("auto-compaction-retention"))
            .map_err(wrong)?;
    let time = |name| duration(given.text(name)).expect("read before");
    let progress = time("watch-progress-notify-interval");
    let (grpc_keepalive_interval, grpc_keepalive_timeout) =
        match (time("grpc-keepalive-interval"), time("grpc-keepalive-timeout")) {
            // With either of them etcd sets neither, and grpc-go's own are etcd's defaults.
            (Duration::ZERO, _) | (_, Duration::ZERO) => (PING_INTERVAL, PING_TIMEOUT),
            (interval, timeout) => (interval.max(PING_INTERVAL_MIN), timeout),
        };

    Ok(Config {
        name,
        data_dir,
        wal_dir,
        listen_client_urls,
        advertise_client_urls,
        listen_peer_urls,
        initial_advertise_peer_urls,
        initial_cluster,
        initial_cluster_token: given.text("initial-cluster-token").to_string(),
        initial_cluster_state,
        snapshot_count: given.unsigned("snapshot-count").max(1),
        snapshot_catchup_entries: given.unsigned("snapshot-catchup-entries"),
        heartbeat_interval: Duration::from_millis(heartbeat_ms),
        election_timeout: Duration::from_millis(election_ms),
        pre_vote: given.boolean("pre-vote"),
        enable_grpc_gateway: given.boolean("enable-grpc-gateway"),
        max_request_bytes: given.unsigned("max-request-bytes").min(u64::from(u32::MAX)) as usize,
        max_txn_ops: given.unsigned("max-txn-ops") as usize,
        max_concurrent_streams: given.unsigned("max-concurrent-streams").min(u64::from(u32::MAX))
            as u32,
        grpc_keepalive_min_time: match time("grpc-keepalive-min-time") {
            Duration::ZERO => PING_MIN_TIME,
            time => time,
        },
        grpc_keepalive_interval,
        grpc_keepalive_timeout,
        watch_progress_notify_interval: match progress {
            Duration::ZERO => Duration::from_secs(600),
            progress => progress.max(Duration::from_millis(100)),
        },
        quota_backend_bytes: given.text("quota-backend-bytes").parse().expect("read before"),
        retention,
        unsafe_no_fsync: given.boolean("unsafe-no-fsync"),
        enable_v2: given.boolean("enable-v2"),
        log_level,
        log_format,
        log_outputs,
        segment_bytes: None,
        tracing: replica::Tracing::Batches,
        warnings,
    })
}

/// Reads `name=url,name=url,…`; a name may repeat, each time with one more URL.
fn cluster(text: &str) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((name, url)) =
            part.split_once('=').filter(|(name, url)| !name.is_empty() && !url.is_empty())
        else {
            return Err(format!("--initial-cluster: {part:?} is not of the form name=url"));
        };
        let url = Url::parse(url).map_err(|why| format!("--initial-cluster: {why}"))?;
        let urls = members.entry(name.to_string()).or_default();
        urls.push(url.text);
        urls.sort();
        urls.dedup();
    }
    match members.is_empty() {
        true => Err("--initial-cluster names no member".to_string()),
        false => Ok(members),
    }
}

/// Go's `strconv.ParseBool`.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// What the two flags of regular compaction mean together.
fn retention(mode: &str, retention: &str) -> Result<Retention, String> {
    if !matches!(mode, "periodic" | "revision") {
        return Err(match mode {
            "" => "undefined auto-compaction-mode".to_string(),
            mode => format!("unknown auto-compaction-mode {mode:?}"),
        });
    }
    match (mode, retention.parse::<u32>(), duration(retention)) {
        (_, Ok(0), _) | (_, _, Some(Duration::ZERO)) => Ok(Retention::Everything),
        ("revision", Ok(revisions), _) => Ok(Retention::Revisions(i64::from(revisions))),
        ("periodic", Ok(hours), _) => {
            Ok(Retention::Period(Duration::from_secs(3600 * u64::from(hours))))
        }
        ("periodic", Err(_), Some(period)) => Ok(Retention::Period(period)),
        _ => Err(format!(
            "--auto-compaction-retention {retention:?} is no {}",
            if mode == "periodic" { "duration, as 5m or 1h30m" } else { "number of revisions" }
        )),
    }
}

/// Go's `time.ParseDuration`, without signs: `1h2m3.5s`, `100ms`, `0`.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit_end] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

/// The number of letters to insert, delete or replace to make one text of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// What `--version` prints: etcd's four lines, for scripts read the first one, and ours.
pub fn version() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!(
        "etcd Version: {SERVER_VERSION}\nGit SHA: unknown\n\
         Go Version: none (Quorate {})\nGo OS/Arch: {}/{arch}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
    )
}

fn help() -> String {
    let mut text = String::from("Usage:\n\n  quorate [flags]\n    Start a member.\n\nFlags:\n");
    for flag in FLAGS.iter().filter(|flag| matches!(flag.support, Support::Yes(_))) {
        text.push_str(&format!("  --{} '{}'\n    {}\n", flag.name, flag.default, flag.help));
    }
    text.push_str("\nEvery flag is also read from the environment: --data-dir from ETCD_DATA_DIR, and so on.\n");
    text.push_str("\nKnown from etcd and not yet supported:\n ");
    for flag in FLAGS.iter().filter(|flag| matches!(flag.support, Support::NotYet { .. })) {
        text.push_str(&format!(" --{}", flag.name));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Result<Config, ConfigError> {
        run_with(arguments, &[])
    }
    fn run_with(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let environment = environment.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        match parse(&arguments, environment.collect::<Vec<_>>())? {
            Action::Run(config) => Ok(*config),
            Action::Print(text) => panic!("prints {text}"),
        }
    }
    fn refusal(arguments: &[&str]) -> String {
        run(arguments).unwrap_err().text
    }

    #[test]
    fn without_arguments_a_member_has_etcds_defaults() {
        let config = run(&[]).unwrap();
        assert_eq!(config.name, "default");
        assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
        assert_eq!(config.listen_client_urls[0].as_str(), "http://localhost:2379");
        assert_eq!(config.initial_cluster["default"], ["http://localhost:2380"]);
        assert_eq!(config.request_timeout(), Duration::from_secs(7));
        assert_eq!(config.receive_bytes_max(), 2_097_152);
        assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(600));
        assert_eq!(config.quota_bytes(), Some(QUOTA_BYTES_DEFAULT));
        assert_eq!(config.election_ticks(), 10);
    }

    #[test]
    fn pings_are_timed_as_in_etcd_over_grpc_go() {
        let times = |arguments: &[&str]| {
            let config = run(arguments).unwrap();
            let times = [
                config.grpc_keepalive_min_time,
                config.grpc_keepalive_interval,
                config.grpc_keepalive_timeout,
            ];
            times.map(|time| time.as_millis())
        };
        assert_eq!(times(&[]), [5_000, 7_200_000, 20_000]);
        let zero = ["--grpc-keepalive-min-time=0s", "--grpc-keepalive-interval=0s"];
        assert_eq!(times(&zero), [300_000, 7_200_000, 20_000]);
        let short = ["--grpc-keepalive-interval=10ms", "--grpc-keepalive-timeout=30ms"];
        assert_eq!(times(&short), [5_000, 1_000, 30]);
    }

    #[test]
    fn a_value_follows_or_is_attached_and_the_last_one_wins() {
        let config =
            run(&["--name", "a", "-name=b", "--pre-vote=false", "--unsafe-no-fsync"]).unwrap();
        assert_eq!(config.name, "b");
        assert!(!config.pre_vote);
        assert!(config.unsafe_no_fsync);
        assert_eq!(config.data_dir, PathBuf::from("b.etcd"));
    }

    #[test]
    fn three_members_are_read_as_the_script_names_them() {
        let config = run(&[
            "--name", "infra0",
            "--listen-client-urls", "http://127.0.0.1:12379",
            "--advertise-client-urls", "http://127.0.0.1:12379",
            "--initial-cluster",
            "infra0=http://127.0.0.1:12380,infra1=http://127.0.0.1:22380,infra0=http://127.0.0.1:12381",
            "--initial-cluster-state", "existing",
        ])
        .unwrap();
        assert_eq!(
            config.initial_cluster["infra0"],
            ["http://127.0.0.1:12380", "http://127.0.0.1:12381"]
        );
        assert_eq!(config.initial_cluster.len(), 2);
        assert!(!config.is_lone());
        assert_eq!(config.initial_cluster_state, ClusterState::Existing);
    }

    #[test]
    fn the_environment_fills_in_and_a_conflict_is_refused() {
        let config =
            run_with(&[], &[("ETCD_NAME", "x"), ("ETCD_MAX_TXN_OPS", "7"), ("PATH", "/")]).unwrap();
        assert_eq!((config.name.as_str(), config.max_txn_ops), ("x", 7));
        let error = run_with(&["--name", "y"], &[("ETCD_NAME", "x")]).unwrap_err();
        assert!(
            error.text.starts_with("conflicting environment variable ETCD_NAME is shadowed"),
            "{error}"
        );
        assert_eq!(error.exit_code, 1);
        let config = run_with(&[], &[("ETCD_NONSENSE", "1")]).unwrap();
        assert_eq!(
            config.warnings,
            [("unrecognized environment variable".to_string(), "ETCD_NONSENSE".to_string())]
        );
        let error = run_with(&[], &[("ETCD_CERT_FILE", "x")]).unwrap_err();
        assert!(error.text.contains("not yet supported"), "{error}");
    }

    #[test]
    fn what_cannot_be_is_refused_with_etcds_words() {
        for (arguments, text) in [
            (
                &["--listen-client-urls", "http://127.0.0.1:1"][..],
                "--advertise-client-urls is required when --listen-client-urls is set explicitly",
            ),
            (
                &["--election-timeout", "400"],
                "--election-timeout[400ms] should be at least as 5 times as --heartbeat-interval[100ms]",
            ),
            (
                &["--election-timeout", "60000"],
                "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
            ),
            (&["--heartbeat-interval=0"], "--heartbeat-interval must be >0 (set to 0ms)"),
            (
                &["--listen-peer-urls=http://a.example:1"],
                "expected IP in URL for binding (http://a.example:1)",
            ),
            (&["serve"], "\"serve\" is not a valid flag"),
            (&["--log-level=loud"], "unrecognized level: \"loud\""),
            (&["--nam", "x"], "unknown flag: --nam (did you mean --name?)"),
            (
                &["--snapshot-cuont=5"],
                "unknown flag: --snapshot-cuont (did you mean --snapshot-count?)",
            ),
            (&["--qqqqqqqq"], "unknown flag: --qqqqqqqq (see --help)"),
            (
                &["--experimental-snapshot-catchup-entries=1"],
                "unknown flag: --experimental-snapshot-catchup-entries (etcd 3.7 removed it in favour of \
                 --snapshot-catchup-entries)",
            ),
            (&["--name"], "flag needs an argument: --name"),
            (
                &["--pre-vote=maybe"],
                "invalid value \"maybe\" for --pre-vote: it takes true or false",
            ),
            (
                &["--auto-tls"],
                "--auto-tls is an etcd flag that is not yet supported; start without it",
            ),
            (&["--initial-cluster=x"], "--initial-cluster: \"x\" is not of the form name=url"),
        ] {
            assert_eq!(refusal(arguments), text, "{arguments:?}");
        }
    }

    #[test]
    fn every_flag_of_etcd_is_known_once() {
        // The names that the flag sets of etcd 3.7.3 define, and those that it ignores: from its sources and its help.
        let mut etcds: Vec<&str> = include_str!("../etcd-3.7-flags.txt").lines().collect();
        // The one flag that 3.7 has no more and we have: it was there up to 3.5.
        etcds.push("enable-v2");
        etcds.sort_unstable();
        let mut names: Vec<_> = FLAGS.iter().map(|flag| flag.name).collect();
        names.sort_unstable();
        assert_eq!(names, etcds);
        for flag in FLAGS {
            let given = format!("--{}=1", flag.name);
            let outcome = run_quietly(&given);
            match flag.support {
                Support::Yes(_) => {}
                Support::NotYet { .. } => {
                    assert!(outcome.unwrap_err().text.contains("not yet supported"), "{given}");
                }
                Support::Ignored => assert_eq!(outcome.unwrap().warnings.len(), 1, "{given}"),
            }
        }
    }
    fn run_quietly(argument: &str) -> Result<Config, ConfigError> {
        match parse(&[argument.to_string()], [])? {
            Action::Run(config) => Ok(*config),
            Action::Print(_) => Ok(run(&[])?),
        }
    }

    #[test]
    fn every_default_of_the_table_can_be_read() {
        for flag in FLAGS {
            if let Support::Yes(_) = flag.support {
                accept(flag, flag.default, flag.name, &mut Vec::new()).unwrap();
            }
        }
    }

    #[test]
    fn urls_are_read_as_etcd_reads_them() {
        assert_eq!(Url::parse("http://[::1]:80").unwrap().host(), "::1");
        for (text, error) in [
            ("127.0.0.1:80", "URL scheme must be http, https, unix, or unixs: 127.0.0.1:80"),
            ("ftp://a:1", "URL scheme must be http, https, unix, or unixs: ftp://a:1"),
            ("http://a", "URL address does not have the form \"host:port\": http://a"),
            ("http://::1:80", "URL address does not have the form \"host:port\": http://::1:80"),
            ("http://a:1/x", "URL must not contain a path: http://a:1/x"),
            ("https://a:1", "https is not yet supported: https://a:1"),
        ] {
            assert_eq!(Url::parse(text).unwrap_err(), error);
        }
    }

    #[test]
    fn the_history_that_is_kept_is_a_time_or_a_number_of_revisions() {
        let hours = |hours: u64| Ok(Retention::Period(Duration::from_secs(3600 * hours)));
        assert_eq!(retention("periodic", "0"), Ok(Retention::Everything));
        assert_eq!(retention("periodic", "0s"), Ok(Retention::Everything));
        assert_eq!(retention("revision", "0"), Ok(Retention::Everything));
        assert_eq!(retention("periodic", "8"), hours(8));
        assert_eq!(retention("periodic", "2h"), hours(2));
        assert_eq!(retention("revision", "1000"), Ok(Retention::Revisions(1000)));
        for (mode, text) in
            [("revision", "10m"), ("periodic", "-1"), ("periodic", "x"), ("", "1"), ("daily", "1")]
        {
            assert!(retention(mode, text).is_err(), "{mode} {text}");
        }
    }

    #[test]
    fn durations_are_gos() {
        for (text, want) in [
            ("10m", Some(600_000)),
            ("1h1m1.5s", Some(3_661_500)),
            ("100ms", Some(100)),
            ("0", Some(0)),
            ("", None),
            ("5", None),
            ("m", None),
            ("5x", None),
        ] {
            assert_eq!(duration(text).map(|d| d.as_millis()), want, "{text}");
        }
    }
}
