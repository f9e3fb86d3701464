//! All threads and channels of a member, its start and its end.
//!
//! ```text
//!   acceptor ──▶ shards (one per core) ◀──▶ replica ──▶ log, apply, flush, fetch; 2 × read, hash
//!                                              ▲
//!                                            peers
//! ```
//!
//! A thread takes a batch from its inbox, has the work done by `replica`'s parts, and passes the results on.
//! What each does is decided there, so that a simulator can do the same without threads.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use raft::NodeId;
use replica::{
    Bootstrap, FlushJob, Identity, Input, LeaseAnswer, LeaseTime, Notice, Output, Replica, Space,
};
use vfs::Vfs;
use vfs::memory::Memory;

use crate::config::{self, Action, ClusterState, Config, Url};
use crate::handle::{Inbox, Node, PeerEvent, ReadTask, ShardEvent};
use crate::http::v2;
use crate::identity;
use crate::log;
use crate::peer;
use crate::serve::limit::{self, Constants};
use crate::serve::limits::{
    ACCEPTED_MAX, TCP_KEEPALIVE_INTERVAL, TCP_KEEPALIVE_RETRIES, TCP_KEEPALIVE_TIME,
    TCP_USER_TIMEOUT,
};
use crate::serve::shard::Shard;
use crate::stages::Lane;
use crate::steward;

/// Which of the member's inboxes a thread reads for.
type ReadInbox = fn(&Node) -> &Inbox<ReadTask>;

/// How long connections may take to finish after GOAWAY.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);
/// How long a removed member stays: the others may need its word that the removal is committed.
const REMOVED_STAYS: Duration = Duration::from_secs(1);
/// How long the replica may take to hand leadership over and to write out what is applied.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// Connections that the system keeps for a listener.
const BACKLOG: i32 = 4096;

/// What `quorate` without a sub-command does. `arguments` are those behind the program's name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    begin_with(arguments, |given| config::parse(given, environment), Member::start)
}

/// What `quorate limit` does: see [`Member::limit`].
pub fn limit(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    begin_with(arguments, limit::parse, Member::limit)
}

fn begin_with(
    arguments: impl IntoIterator<Item = OsString>,
    parse: impl FnOnce(&[String]) -> Result<Action, config::ConfigError>,
    start: fn(Config) -> Result<Member, StartError>,
) -> ExitCode {
    let mut given = Vec::new();
    for argument in arguments {
        match argument.into_string() {
            Ok(argument) => given.push(argument),
            Err(argument) => {
                eprintln!("an argument is not valid UTF-8: {argument:?}");
                return ExitCode::from(2);
            }
        }
    }
    let config = match parse(&given) {
        Ok(Action::Run(config)) => *config,
        Ok(Action::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(error.exit_code);
        }
    };
    let writer = match log::open(config.log_level, config.log_format, &config.log_outputs) {
        Ok(writer) => writer,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(1);
        }
    };
    let logging =
        std::thread::Builder::new().name("log-lines".to_string()).spawn(move || writer.run());
    let logging = match logging {
        Ok(logging) => logging,
        Err(error) => {
            eprintln!("cannot start a thread: {error}");
            return ExitCode::from(1);
        }
    };
    // A thread that panics leaves the others with half a member: better stopped than wrong.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        log!(Panic, "a thread has panicked", "panic" => panic.to_string());
        log::flush(Duration::from_secs(1));
        std::process::abort();
    }));
    let code = serve(config, start);
    log::close();
    drop(logging.join());
    code
}

/// Starts a member and waits for a signal.
fn serve(config: Config, start: fn(Config) -> Result<Member, StartError>) -> ExitCode {
    use signal_hook::consts::{SIGINT, SIGTERM};
    // Taken before the start, so that a signal during a long recovery is not lost.
    let mut signals = match signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("cannot take signals: {error}");
            return ExitCode::from(1);
        }
    };
    let member = match start(config) {
        Ok(member) => member,
        Err(error) => {
            log!(Fatal, "the member does not start", "error" => error.to_string());
            eprintln!("{error}");
            return ExitCode::from(1);
        }
    };
    let mut coming = signals.forever();
    let signal = coming.next();
    log!(Info, "received signal; shutting down", "signal" => signal.map_or(0_u32, |s| s as u32));
    let ending = std::thread::Builder::new().name("end".to_string()).spawn(move || {
        member.stop();
    });
    // The next signal forces the end; so does the thread when it is done.
    let handle = signals.handle();
    let forced = std::thread::Builder::new().name("force".to_string()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            log!(Warn, "received a second signal; ending at once", "signal" => signal as u32);
            log::flush(Duration::from_secs(1));
            std::process::exit(1);
        }
    });
    let clean = ending.is_ok_and(|ending| ending.join().is_ok()) && forced.is_ok();
    handle.close();
    match clean {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(1),
    }
}

/// Why a member does not start: one sentence that says what to do.
#[derive(Debug)]
pub struct StartError(pub String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for StartError {}

/// A running member.
pub struct Member {
    /// What its threads share.
    pub node: Arc<Node>,
    client_addresses: Vec<SocketAddr>,
    peer_addresses: Vec<SocketAddr>,
    acceptor: (Arc<tokio::sync::Notify>, JoinHandle<()>),
    shards: Vec<JoinHandle<()>>,
    /// Behind the limit server's shards there is nobody.
    heart: Option<Heart>,
}

/// The threads behind the shards.
struct Heart {
    replica: JoinHandle<()>,
    workers: Vec<JoinHandle<()>>,
    peers: JoinHandle<()>,
}

impl Member {
    /// Binds, recovers, makes the threads. Clients are served once the member is part of a cluster with a leader.
    pub fn start(config: Config) -> Result<Member, StartError> {
        for (what, which) in &config.warnings {
            log!(Warn, what, "name" => which);
        }
        log!(
            Info, "starting",
            "version" => config::SERVER_VERSION,
            "name" => &config.name,
            "data-dir" => config.data_dir.display().to_string(),
            "listen-client-urls" => urls(&config.listen_client_urls),
            "advertise-client-urls" => urls(&config.advertise_client_urls),
            "listen-peer-urls" => urls(&config.listen_peer_urls),
            "initial-advertise-peer-urls" => urls(&config.initial_advertise_peer_urls)
        );
        let vfs: Arc<dyn Vfs> = Arc::new(vfs::os::Os);
        let found = replica::identity(&*vfs, &config.data_dir, config.wal_dir.as_deref())
            .map_err(|error| StartError(error.to_string()))?;
        let (identity, bootstrap) = begin(found, &config)?;
        if found.is_none() && config.initial_cluster.len() > 1 {
            // Before anybody can connect to us: founders that start together do not wait for each other.
            ask_the_others(&config, identity)?;
        }
        let peer_listeners = bind(&config.listen_peer_urls)?;
        let client_listeners = bind(&config.listen_client_urls)?;
        prepare_directory(&config.data_dir)?;

        if let Some(sentence) = identity::compare(identity, &config).map_err(StartError)? {
            log!(Warn, "the flags do not describe the data directory", "what" => sentence);
        }
        let replica_config = replica_config(&config, identity);
        let opened = replica::open(vfs.clone(), replica_config.clone(), bootstrap)
            .map_err(|error| StartError(error.to_string()))?;
        for sentence in &opened.found {
            log!(Warn, "found and mended at the start", "what" => sentence);
        }
        log!(
            Info, "starting local member",
            "local-member-id" => format!("{:x}", identity.node_id),
            "cluster-id" => format!("{:x}", identity.cluster_id),
            "applied-index" => opened.view.applied().0,
            "shards" => u32::from(replica_config.shards)
        );

        let node = Arc::new(Node::new(config, vfs, replica_config, opened.view));
        let client_addresses = addresses(&client_listeners)?;
        let peer_addresses = addresses(&peer_listeners)?;

        let mut workers = Vec::new();
        let (mut log, mut apply, mut flush) = (opened.log, opened.apply, opened.flush);
        workers.push(thread("log", &node, move |node| {
            while let Some(jobs) = node.log.take() {
                let events = log.write(jobs);
                let syncs = log.owes_sync();
                let written = Instant::now();
                node.stages.tell_at(written, Lane::Log, &events);
                let done = log.sync();
                let synced = Instant::now();
                if syncs {
                    node.metrics.wal_fsync.observe(synced - written);
                }
                node.stages.tell_at(synced, Lane::Log, &done.trace);
                if let Some(completion) = done.completion {
                    node.replica.done(completion);
                }
                if !done.messages.is_empty() {
                    node.peers.put(PeerEvent::Messages(done.messages));
                }
            }
        })?);
        workers.push(thread("apply", &node, move |node| {
            while let Some(jobs) = node.apply.take() {
                let done = apply.run(jobs);
                node.stages.tell(Lane::Apply, &done.trace);
                // The lease clock must know a lease before the client that it was granted to does.
                if let Some(completion) = done.completion {
                    node.replica.done(completion);
                }
                for news in done.shards {
                    node.tell(news.shard, ShardEvent::Applied(Box::new(news)));
                }
            }
        })?);
        workers.push(thread("flush", &node, move |node| {
            while let Some(jobs) = node.flush.take() {
                let writes =
                    jobs.iter().any(|job| matches!(job, FlushJob::Write(_) | FlushJob::Sync));
                let began = Instant::now();
                let done = flush.run(jobs);
                node.stages.tell(Lane::Store, &done.trace);
                if writes {
                    node.metrics.backend_commit.observe(began.elapsed());
                }
                if let Some(completion) = done.completion {
                    node.replica.done(completion);
                }
            }
        })?);
        let reading: [(&str, ReadInbox); 4] = [
            ("read-0", |node| &node.reads),
            ("read-1", |node| &node.reads),
            ("fetch", |node| &node.fetches),
            ("hash", |node| &node.hashes),
        ];
        for (name, inbox) in reading {
            let mut reads = opened.reads.clone();
            workers.push(thread(name, &node, move |node| {
                while let Some(task) = inbox(&node).take_one() {
                    match task {
                        ReadTask::Run(run) => run(),
                        ReadTask::Replica(job) => {
                            if let Some(completion) = reads.run(vec![job]).completion {
                                node.replica.done(completion);
                            }
                        }
                    }
                }
            })?);
        }

        let shards = start_shards(&node)?;
        let peers = thread("peers", &node, move |node| peer::run(&node, peer_listeners))?;
        let replica = opened.replica;
        let replica = thread("replica", &node, move |node| drive(&node, replica))?;

        Ok(Member {
            client_addresses,
            peer_addresses,
            acceptor: start_acceptor(&node, client_listeners)?,
            shards,
            heart: Some(Heart { replica, workers, peers }),
            node,
        })
    }

    /// The limit server: sockets, acceptor and shards as a member has them, and constants for answers. What the shards may
    /// look at is the state of a member before its first entry, on a disk in memory; nobody will ever add to it.
    ///
    /// # Errors
    /// It cannot listen, or start a thread.
    pub fn limit(mut config: Config) -> Result<Member, StartError> {
        config.segment_bytes = Some(limit::SEGMENT_BYTES);
        let listeners = bind(&config.listen_client_urls)?;
        let client_addresses = addresses(&listeners)?;
        let (identity, founders) = identity::of(&config).map_err(StartError)?;
        let replica_config = replica_config(&config, identity);
        let vfs: Arc<dyn Vfs> = Arc::new(Memory::new(0));
        let founded = Bootstrap::New(founders);
        let opened = replica::open(vfs.clone(), replica_config.clone(), founded)
            .map_err(|error| StartError(error.to_string()))?;
        let limit = Some(Constants::new(identity));
        let node = Node { limit, ..Node::new(config, vfs, replica_config, opened.view) };
        let node = Arc::new(node);
        Ok(Member {
            client_addresses,
            peer_addresses: Vec::new(),
            shards: start_shards(&node)?,
            acceptor: start_acceptor(&node, listeners)?,
            heart: None,
            node,
        })
    }

    /// Where clients are served; with the ports that the system has chosen for port 0.
    pub fn client_addresses(&self) -> &[SocketAddr] {
        &self.client_addresses
    }

    /// Where other members are served.
    pub fn peer_addresses(&self) -> &[SocketAddr] {
        &self.peer_addresses
    }

    /// Ends in order: no new connections, GOAWAY and a short time to finish, leadership handed over, everything
    /// applied written out, threads joined.
    pub fn stop(self) {
        let (stop, acceptor) = self.acceptor;
        stop.notify_one();
        join("acceptor", acceptor);
        self.node.tell_all(|| ShardEvent::Stop);
        self.shards.into_iter().for_each(|shard| join("shard", shard));
        if let Some(heart) = self.heart {
            heart.stop(&self.node);
        }
        log!(Info, "closed the member", "name" => &self.node.config.name);
    }
}

impl Heart {
    fn stop(self, node: &Node) {
        node.replica.put(Input::Stop);
        join("replica", self.replica);
        node.log.close();
        node.apply.close();
        node.flush.close();
        node.reads.close();
        node.fetches.close();
        node.hashes.close();
        self.workers.into_iter().for_each(|worker| join("worker", worker));
        node.peers.put(PeerEvent::Stop);
        join("peers", self.peers);
    }
}

fn join(name: &str, thread: JoinHandle<()>) {
    if thread.join().is_err() {
        log!(Error, "a thread ended by a panic", "thread" => name);
    }
}

fn thread(
    name: &str,
    node: &Arc<Node>,
    run: impl FnOnce(Arc<Node>) + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    let node = node.clone();
    std::thread::Builder::new()
        .name(name.to_string())
        .spawn(move || run(node))
        .map_err(|error| StartError(format!("cannot start the thread {name}: {error}")))
}

fn start_shards(node: &Arc<Node>) -> Result<Vec<JoinHandle<()>>, StartError> {
    let start = |number: u8| {
        thread(&format!("shard-{number}"), node, move |node| {
            on_own_runtime(async {
                let start_ms = node.replica_config.start_ms;
                let shard = Shard::new(node, replica::Shard(number), start_ms);
                if number == 0 && shard.node.limit.is_none() {
                    tokio::task::spawn_local(steward::run(shard.clone()));
                    if shard.node.config.enable_v2 {
                        tokio::task::spawn_local(v2::run_expiry(shard.clone()));
                    }
                }
                shard.run(DRAIN_PATIENCE).await;
            });
        })
    };
    (0..node.replica_config.shards).map(start).collect()
}

/// The thread, and how it is told to stop.
fn start_acceptor(
    node: &Arc<Node>,
    listeners: Vec<TcpListener>,
) -> Result<(Arc<tokio::sync::Notify>, JoinHandle<()>), StartError> {
    let stop = Arc::new(tokio::sync::Notify::new());
    let stopped = stop.clone();
    let acceptor = thread("acceptor", node, move |node| {
        on_own_runtime(async {
            tokio::select! {
                () = stopped.notified() => {}
                () = accept(node.clone(), listeners) => {}
            }
        });
    })?;
    Ok((stop, acceptor))
}

/// A current-thread runtime of one's own, with a local set.
pub fn on_own_runtime(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("epoll and a timer are all that a runtime needs");
    tokio::task::LocalSet::new().block_on(&runtime, future);
}

/// How the member begins: with the data that lies there, whatever the flags say; else as a founder.
///
/// Data may be that of a first start which was cut short before the founders were written, and nobody else can write them:
/// so a founder brings the list also to data of its own. It counts only if nothing was written yet.
fn begin(found: Option<Identity>, config: &Config) -> Result<(Identity, Bootstrap), StartError> {
    let is_new = config.initial_cluster_state == ClusterState::New;
    if let Some(found) = found {
        log!(Info, "restarting from the data directory", "data-dir" => config.data_dir.display().to_string());
        return Ok(match identity::of(config) {
            Ok((identity, founders)) if is_new && identity == found => {
                (found, Bootstrap::New(founders))
            }
            // Flags of another life; what lies there counts.
            Ok(_) | Err(_) => (found, Bootstrap::Restart),
        });
    }
    let (identity, founders) = identity::of(config).map_err(StartError)?;
    match is_new {
        true => Ok((identity, Bootstrap::New(founders))),
        false => Err(StartError(
            "joining an existing cluster is not yet supported; start with --initial-cluster-state=new".to_string(),
        )),
    }
}

/// See [`peer::founding`]; on a thread of its own, for whoever starts a member may have a runtime on his.
fn ask_the_others(config: &Config, identity: Identity) -> Result<(), StartError> {
    let ask = || {
        let mut known = Ok(());
        on_own_runtime(async { known = peer::founding::check(config, identity).await });
        known
    };
    let asked = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("founding".to_owned());
        let thread = thread.spawn_scoped(scope, ask);
        thread.map(|asking| asking.join())
    });
    match asked {
        Ok(Ok(known)) => known.map_err(StartError),
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(error) => Err(StartError(format!("cannot start a thread: {error}"))),
    }
}

/// What the replica is told: by the flags, the cores of this machine, and the time.
fn replica_config(config: &Config, identity: Identity) -> replica::Config {
    let start_ms =
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let shards = std::thread::available_parallelism()
        .map_or(1, |cores| cores.get().min(usize::from(replica::SHARDS_MAX)))
        as u8;
    let mut made = replica::Config::new(identity, config.data_dir.clone());
    made.wal_dir = config.wal_dir.clone();
    made.shards = shards;
    made.tick_ms = config.heartbeat_interval.as_millis() as u64;
    made.election_ticks = config.election_ticks() as u32;
    made.pre_vote = config.pre_vote;
    made.max_request_bytes = config.max_request_bytes;
    made.snapshot_count = config.snapshot_count;
    made.snapshot_catchup_entries = config.snapshot_catchup_entries;
    made.sync = !config.unsafe_no_fsync;
    if let Some(segment_bytes) = config.segment_bytes {
        made.segment_bytes = segment_bytes;
    }
    // Members that start together must not campaign together.
    made.seed = start_ms ^ identity.node_id.rotate_left(17) ^ u64::from(std::process::id());
    made.start_ms = start_ms;
    made.trace = config.tracing;
    made
}

fn urls(urls: &[Url]) -> Vec<String> {
    urls.iter().map(|url| url.as_str().to_string()).collect()
}

fn prepare_directory(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        StartError(format!("cannot create the data directory {}: {error}", path.display()))
    })?;
    let mode = std::fs::metadata(path)
        .map_err(|error| {
            StartError(format!("cannot read the data directory {}: {error}", path.display()))
        })?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        log!(
            Warn, "check file permission",
            "path" => path.display().to_string(),
            "mode" => format!("{:o}", mode & 0o777),
            "wanted" => "700"
        );
    }
    Ok(())
}

/// Listens on all URLs, or says which port is taken.
fn bind(urls: &[Url]) -> Result<Vec<TcpListener>, StartError> {
    urls.iter()
        .map(|url| {
            let failed = |error: io::Error| {
                let hint = match error.kind() {
                    io::ErrorKind::AddrInUse => "; is another member running there?",
                    _ => "",
                };
                StartError(format!("cannot listen on {url}: {error}{hint}"))
            };
            let mut addresses = url.socket_addresses().map_err(failed)?;
            // `localhost` is both; like Go we listen on the first IPv4 address.
            addresses.sort_by_key(|address| !address.is_ipv4());
            let address = *addresses.first().ok_or_else(|| {
                failed(io::Error::new(io::ErrorKind::NotFound, "the host has no address"))
            })?;
            listen(address).map_err(failed)
        })
        .collect()
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Socket, TcpKeepalive, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A restart must not wait for the last life's connections to be forgotten.
    socket.set_reuse_address(true)?;
    if address.ip().is_unspecified() && address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // What is accepted has these too. A client that vanished without a word (its machine, or a NAT between) would
    // else keep its connection, its watchers and its leases' streams for ever.
    let keepalive = TcpKeepalive::new()
        .with_time(TCP_KEEPALIVE_TIME)
        .with_interval(TCP_KEEPALIVE_INTERVAL)
        .with_retries(TCP_KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn addresses(listeners: &[TcpListener]) -> Result<Vec<SocketAddr>, StartError> {
    listeners
        .iter()
        .map(|listener| {
            listener
                .local_addr()
                .map_err(|error| StartError(format!("a listener has no address: {error}")))
        })
        .collect()
}

/// Deals connections out to the shards, in turn, once the member is ready.
async fn accept(node: Arc<Node>, listeners: Vec<TcpListener>) {
    if node.limit.is_none() {
        steward::until_ready(&node).await;
    }
    log!(Info, "ready to serve client requests", "name" => &node.config.name);
    for url in &node.config.listen_client_urls {
        log!(
            Warn, "serving client traffic insecurely; this is strongly discouraged!",
            "address" => url.as_str().trim_start_matches("http://")
        );
    }
    let mut tasks = tokio::task::JoinSet::new();
    for listener in listeners {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => drop(tasks.spawn_local(accept_on(node.clone(), listener))),
            Err(error) => log!(Error, "a listener failed", "error" => error.to_string()),
        }
    }
    while tasks.join_next().await.is_some() {}
}

async fn accept_on(node: Arc<Node>, listener: tokio::net::TcpListener) {
    let mut next = 0;
    loop {
        let accepted = listener.accept().await.and_then(|(tcp, _)| tcp.into_std());
        match accepted {
            Ok(tcp) => {
                let shard = &node.shards[next % node.shards.len()];
                next += 1;
                match shard.len() < ACCEPTED_MAX {
                    true => shard.put(ShardEvent::Connection(tcp)),
                    false => log!(Warn, "a connection was refused: the shard does not keep up"),
                }
            }
            // Out of descriptors, most likely: the pending connection stays, so trying at once would spin.
            Err(error) => {
                log!(Warn, "a connection could not be accepted", "error" => error.to_string());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The replica's thread: inputs in, one output per turn out, and the clock's ticks.
fn drive(node: &Arc<Node>, mut replica: Replica) {
    let interval = node.config.heartbeat_interval;
    let mut next_tick = Instant::now() + interval;
    let mut news = News::default();
    let mut deadline: Option<Instant> = None;
    pass_on(node, replica.output(), &mut news);
    loop {
        let (inputs, fed) = node.replica.take(next_tick, replica.takes_proposals());
        for shard in 0..node.shards.len() {
            if fed & (1 << shard) != 0 {
                node.shards[shard].put(ShardEvent::Room);
            }
        }
        for input in inputs {
            if matches!(input, Input::Stop) {
                deadline = Some(Instant::now() + STOP_PATIENCE);
            }
            replica.handle(input);
        }
        let now = Instant::now();
        if now >= next_tick {
            let late = now.duration_since(next_tick).as_nanos() / interval.as_nanos().max(1);
            let elapsed = (late as u32).saturating_add(1);
            replica.handle(Input::Tick { elapsed });
            next_tick += interval * elapsed;
        }
        if pass_on(node, replica.output(), &mut news) {
            return;
        }
        if news.removed.is_some_and(|since| now >= since + REMOVED_STAYS) {
            fatal(
                "the member has been permanently removed from the cluster; start a new one with an empty data directory",
            );
        }
        if deadline.is_some_and(|deadline| now >= deadline) {
            log!(Warn, "the replica did not end in time; what is applied is in the log");
            return;
        }
    }
}

/// What the replica has said that outlasts a turn.
#[derive(Default)]
struct News {
    /// Who led last.
    leader: Option<NodeId>,
    /// Since when this member is none any more.
    removed: Option<Instant>,
}

/// Hands one turn's decisions to those who carry them out. True if the replica has stopped.
fn pass_on(node: &Arc<Node>, output: Output, news: &mut News) -> bool {
    // First, for the others begin at once with what they are given.
    node.stages.tell(Lane::Mind, &output.trace);
    if !output.messages.is_empty() {
        node.peers.put(PeerEvent::Messages(output.messages));
    }
    node.log.put_all(output.log);
    node.apply.put_all(output.apply);
    node.flush.put_all(output.flush);
    node.fetches.put_all(output.reads.into_iter().map(ReadTask::Replica).collect());
    for (shard, answers) in output.answers {
        node.tell(shard, ShardEvent::Answers(answers));
    }
    for snapshot in output.snapshots {
        node.peers.put(PeerEvent::Snapshot(Box::new(snapshot)));
    }
    if !output.peer_answers.is_empty() {
        let renewed =
            |answer: &&LeaseAnswer| matches!(answer.result, Ok(LeaseTime::KeptAlive { .. }));
        let renewed = output.peer_answers.iter().filter(renewed).count();
        node.metrics.leases_renewed.add(renewed as u64);
        node.peers.put(PeerEvent::LeaseAnswers(output.peer_answers));
    }
    let mut stopped = false;
    for notice in output.notices {
        stopped |= on_notice(node, notice, news);
    }
    stopped
}

fn on_notice(node: &Arc<Node>, notice: Notice, news: &mut News) -> bool {
    match notice {
        Notice::Leader { leader: now, term } => {
            let before = news.leader.replace(now);
            if before != Some(now) {
                log!(
                    Info, "leader changed",
                    "leader" => format!("{now:x}"),
                    "term" => term.0,
                    "local-member-id" => format!("{:x}", node.identity.node_id)
                );
                if now != raft::NONE {
                    node.metrics.leader_changes.add(1);
                    node.leader_since_ms.store(node.now_ms(), Ordering::Relaxed);
                }
            }
            node.tell_all(|| ShardEvent::Leader);
        }
        Notice::Ready => log!(Info, "everything committed is applied"),
        Notice::Membership(_) => node.peers.put(PeerEvent::Membership),
        Notice::Removed => {
            log!(Warn, "this member was removed from the cluster and ends soon");
            news.removed = Some(Instant::now());
        }
        Notice::SnapshotInstalled { index, term } => {
            log!(Info, "installed a snapshot", "index" => index.0, "term" => term.0);
        }
        Notice::LogReleased { index } => {
            log!(Info, "released files of the log", "index" => index.0)
        }
        Notice::Space(Space::Plenty) => log!(Info, "the disk of the store has room again"),
        Notice::Space(Space::Short) => log!(
            Warn, "the disk of the store is nearly full: what was set aside is in use",
            "advice" => "make room on it, or compact and delete"
        ),
        Notice::Space(Space::Full) => log!(
            Error, "the disk of the store is full: what is applied waits in memory to be written, and soon no more is taken",
            "advice" => "make room on it"
        ),
        Notice::Damage(what) => log!(
            Error, "data on the disk is damaged",
            "what" => what,
            "advice" => "replace the member while the others have the data"
        ),
        Notice::Forgotten { acknowledged, last } => log!(
            Error, "this member has lost what it acknowledged, and takes part in no election: its data directory was \
                    emptied, or is an older copy",
            "acknowledged-index" => acknowledged.0,
            "last-index" => last.0,
            "advice" => "remove it from the cluster and add it again"
        ),
        Notice::Stopped => return true,
        Notice::Fatal(failure) => fatal(&failure.to_string()),
    }
    false
}

/// Ends the process with a plain message: nothing that has failed under the log or the store is tried again.
fn fatal(why: &str) -> ! {
    log!(Fatal, "the member ends", "error" => why);
    log::flush(Duration::from_secs(1));
    eprintln!("{why}");
    std::process::exit(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(size: usize) -> Config {
        let url = |n: usize| format!("http://127.0.0.1:{}", 2380 + n);
        let members: Vec<String> = (0..size).map(|n| format!("m{n}={}", url(n))).collect();
        let arguments = [
            "--name=m0".to_string(),
            "--data-dir=/data".to_string(),
            format!("--initial-advertise-peer-urls={}", url(0)),
            format!("--initial-cluster={}", members.join(",")),
        ];
        match crate::config::parse(&arguments, []).unwrap() {
            crate::config::Action::Run(config) => *config,
            crate::config::Action::Print(_) => panic!("there is no help to print"),
        }
    }

    /// One start of the server's member, as far as its own disk goes.
    fn start(disk: &Memory, config: &Config) -> Result<replica::Opened, String> {
        let found = replica::identity(disk, &config.data_dir, None).map_err(|e| e.to_string())?;
        let (identity, bootstrap) = begin(found, config).map_err(|error| error.to_string())?;
        let mut replica_config = replica_config(config, identity);
        (replica_config.shards, replica_config.start_ms) = (1, 1_000);
        replica_config.segment_bytes = replica::SegmentBytes { wal: 16 << 10, store: 64 << 10 };
        replica::open(Arc::new(disk.clone()), replica_config, bootstrap)
            .map_err(|error| error.to_string())
    }

    /// The first start is killed, or loses its power, before any of its steps. The next one finds a log, so that it is no
    /// first start any more; the founders are in it all the same.
    #[test]
    fn a_first_start_that_was_cut_short_still_founds_the_cluster() {
        for size in [1, 3] {
            let config = config(size);
            let disk = Memory::new(1);
            drop(start(&disk, &config).unwrap());
            for stop in 0..disk.operations() {
                for power in [false, true] {
                    let disk = Memory::new(stop);
                    disk.stop_at(Some(stop));
                    assert!(start(&disk, &config).is_err());
                    if power {
                        disk.power_cut(stop)
                    } else {
                        disk.crash()
                    }
                    let opened = start(&disk, &config).unwrap();
                    let founded = opened.replica.status().commit.0;
                    assert_eq!(founded, size as u64, "cut before step {stop}, power: {power}");
                }
            }
        }
    }

    #[test]
    fn accepted_connections_end_when_their_client_vanishes() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = socket2::SockRef::from(&accepted);
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), TCP_KEEPALIVE_TIME);
        assert_eq!(accepted.tcp_keepalive_interval().unwrap(), TCP_KEEPALIVE_INTERVAL);
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), TCP_KEEPALIVE_RETRIES);
        assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(TCP_USER_TIMEOUT));
    }
}
