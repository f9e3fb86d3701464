//! Servers as processes: a cluster of members, ours or the real etcd's, with their ports, directories and
//! logs; started, killed, ended and restarted.

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use proto::etcdserverpb::{
    HashKvRequest, HashKvResponse, StatusRequest, StatusResponse, kv_client::KvClient,
    lease_client::LeaseClient, maintenance_client::MaintenanceClient, watch_client::WatchClient,
};
use tonic::transport::{Channel, Endpoint};

use crate::address::own_address;

/// How long a member may take to be ready; a bound, not an expectation.
pub const READY_WITHIN: Duration = Duration::from_secs(180);

/// The project's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Our binary: the one `QUORATE_BINARY` names, else it is built, in the profile of this test, and as `cargo test
/// --workspace` builds it: asked for alone it would have other features, and all it stands on be compiled anew.
pub fn quorate() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY
        .get_or_init(|| {
            if let Some(path) = std::env::var_os("QUORATE_BINARY") {
                return PathBuf::from(path).canonicalize().expect("QUORATE_BINARY names a file");
            }
            let release = !cfg!(debug_assertions);
            let mut build = Command::new(std::env::var("CARGO").unwrap_or("cargo".into()));
            build.current_dir(root());
            build.args(["test", "--quiet", "--workspace", "--no-run", "--test", "names"]);
            if release {
                build.arg("--release");
            }
            let built = build.output().unwrap();
            let says = String::from_utf8_lossy(&built.stderr);
            assert!(built.status.success(), "quorate must build: {says}");
            let target = std::env::var_os("CARGO_TARGET_DIR")
                .map_or_else(|| root().join("target"), PathBuf::from);
            target.join(if release { "release" } else { "debug" }).join("quorate")
        })
        .clone()
}

/// A program of the real etcd, as `scripts/reference.sh` leaves it, or why there is none.
pub fn reference(name: &str) -> Result<PathBuf, String> {
    let directory = std::env::var_os("QUORATE_REFERENCE_DIR")
        .map_or_else(|| root().join("target/reference"), PathBuf::from);
    let path = directory.join(name);
    if path.exists() {
        Ok(path)
    } else {
        Err(format!("{} is not there; scripts/reference.sh builds it", path.display()))
    }
}

/// Debian's etcd, the last that has the v2 API, or why there is none.
pub fn debian_etcd() -> Result<PathBuf, String> {
    let path = PathBuf::from("/usr/bin/etcd");
    if !path.exists() {
        return Err("/usr/bin/etcd is not there; it is in Debian's etcd-server".to_owned());
    }
    let version = run_ok(Command::new(&path).arg("--version"));
    match version.starts_with("etcd Version: 3.4.") {
        true => Ok(path),
        false => Err(format!("/usr/bin/etcd is not of version 3.4 but {version}")),
    }
}

/// One member: how it is started, and its process while it runs.
pub struct Member {
    pub name: String,
    pub binary: PathBuf,
    pub client: SocketAddrV4,
    pub peer: SocketAddrV4,
    pub data_dir: PathBuf,
    pub log: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Member {
    pub fn client_url(&self) -> String {
        format!("http://{}", self.client)
    }

    pub fn peer_url(&self) -> String {
        format!("http://{}", self.peer)
    }

    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let child = Command::new(&self.binary)
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", self.binary.display()));
        self.child = Some(child);
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the member runs").id()
    }

    /// Ends the process at once, if there is one; how it ended, which may have been by itself before.
    pub fn kill(&mut self) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        child.kill().unwrap();
        Some(child.wait().unwrap())
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Ends the process with SIGTERM and waits for it; its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.wait_exit(READY_WITHIN)
    }

    /// Waits until the process has ended by itself; its exit code.
    pub fn wait_exit(&mut self, within: Duration) -> Option<i32> {
        let deadline = Instant::now() + within;
        let child = self.child.as_mut().expect("the member runs");
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                self.child = None;
                return status.code();
            }
            assert!(
                Instant::now() < deadline,
                "{} did not end within {within:?}; its log ends with:\n{}",
                self.name,
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn is_running(&mut self) -> bool {
        match &mut self.child {
            None => false,
            Some(child) => child.try_wait().unwrap().is_none(),
        }
    }

    /// Waits until the log says this, in capitals or not: it is written by a thread of its own, for which nobody else waits.
    pub async fn wait_log(&self, words: &str) {
        let deadline = Instant::now() + READY_WITHIN;
        while !self.log_text().to_lowercase().contains(words) {
            assert!(Instant::now() < deadline, "nothing says `{words}`:\n{}", self.log_tail());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What a member that has ended has said; of one that runs, the last words may be under way.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    pub fn channel(&self) -> Channel {
        channel(&self.client_url())
    }

    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel()).max_decoding_message_size(usize::MAX)
    }

    pub fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel()).max_decoding_message_size(usize::MAX)
    }

    pub fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel())
    }

    pub fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel())
    }

    pub async fn status(&self) -> Result<StatusResponse, tonic::Status> {
        Ok(self.maintenance().status(StatusRequest {}).await?.into_inner())
    }

    pub async fn hash_kv(&self, revision: i64) -> Result<HashKvResponse, tonic::Status> {
        Ok(self.maintenance().hash_kv(HashKvRequest { revision }).await?.into_inner())
    }

    /// Waits until the member answers and knows a leader.
    pub async fn wait_ready(&mut self) {
        assert!(
            self.is_ready_before_it_ends().await,
            "{} ended before it was ready; its log ends with:\n{}",
            self.name,
            self.log_tail()
        );
    }

    /// Waits until the member answers and knows a leader, or ends by itself.
    pub async fn is_ready_before_it_ends(&mut self) -> bool {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Ok(Ok(status)) =
                tokio::time::timeout(Duration::from_secs(2), self.status()).await
                && status.leader != 0
            {
                return true;
            }
            if !self.is_running() {
                return false;
            }
            assert!(
                Instant::now() < deadline,
                "{} was not ready within {READY_WITHIN:?}; its log ends with:\n{}",
                self.name,
                self.log_tail()
            );
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A lazily connected channel to one endpoint.
pub fn channel(url: &str) -> Channel {
    Endpoint::from_shared(url.to_owned())
        .unwrap()
        .connect_timeout(Duration::from_secs(2))
        .tcp_nodelay(true)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
        .connect_lazy()
}

/// A cluster in a directory of its own, removed when it is dropped (kept, and named, when the test fails).
pub struct Cluster {
    pub members: Vec<Member>,
    pub directory: PathBuf,
}

impl Cluster {
    /// Lays out, but does not start, a new cluster of one member for each binary; `flags` go to all.
    pub fn new(binaries: &[PathBuf], flags: &[&str]) -> Cluster {
        let directory = tempfile::Builder::new().prefix("quorate-test-").tempdir().unwrap().keep();
        let mut members: Vec<Member> = binaries
            .iter()
            .enumerate()
            .map(|(i, binary)| {
                let name = format!("infra{i}");
                Member {
                    binary: binary.clone(),
                    client: own_address(),
                    peer: own_address(),
                    data_dir: directory.join(format!("{name}.etcd")),
                    log: directory.join(format!("{name}.log")),
                    arguments: Vec::new(),
                    environment: Vec::new(),
                    child: None,
                    name,
                }
            })
            .collect();
        let initial: Vec<String> =
            members.iter().map(|m| format!("{}={}", m.name, m.peer_url())).collect();
        for member in &mut members {
            member.arguments = [
                "--name",
                &member.name,
                "--data-dir",
                member.data_dir.to_str().unwrap(),
                "--initial-advertise-peer-urls",
                &member.peer_url(),
                "--listen-peer-urls",
                &member.peer_url(),
                "--listen-client-urls",
                &member.client_url(),
                "--advertise-client-urls",
                &member.client_url(),
                "--initial-cluster-token",
                "etcd-cluster-test",
                "--initial-cluster",
                &initial.join(","),
                "--initial-cluster-state",
                "new",
            ]
            .iter()
            .map(|s| s.to_string())
            .chain(flags.iter().map(|s| s.to_string()))
            .collect();
        }
        Cluster { members, directory }
    }

    /// A running cluster of `size` members of ours.
    pub async fn ours(size: usize, flags: &[&str]) -> Cluster {
        let mut cluster = Cluster::new(&vec![quorate(); size], flags);
        cluster.start().await;
        cluster
    }

    pub async fn start(&mut self) {
        for member in &mut self.members {
            member.start();
        }
        for member in &mut self.members {
            member.wait_ready().await;
        }
    }

    pub fn endpoints(&self) -> String {
        self.members.iter().map(Member::client_url).collect::<Vec<_>>().join(",")
    }

    /// The place of the leader among the running members.
    pub async fn leader(&mut self) -> usize {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            for i in 0..self.members.len() {
                if !self.members[i].is_running() {
                    continue;
                }
                if let Ok(Ok(status)) =
                    tokio::time::timeout(Duration::from_secs(2), self.members[i].status()).await
                    && status.leader != 0
                    && status.leader == status.header.as_ref().unwrap().member_id
                {
                    return i;
                }
            }
            assert!(Instant::now() < deadline, "no leader within {READY_WITHIN:?}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Waits until all running members have applied the same, and returns their common HashKV.
    pub async fn agree(&mut self) -> HashKvResponse {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let mut answers = Vec::new();
            for i in 0..self.members.len() {
                if self.members[i].is_running() {
                    answers.push((i, self.members[i].hash_kv(0).await));
                }
            }
            let plain: Vec<_> = answers
                .iter()
                .map(|(_, answer)| {
                    answer
                        .as_ref()
                        .ok()
                        .map(|a| (a.header.as_ref().unwrap().revision, a.hash, a.compact_revision))
                })
                .collect();
            if plain.iter().all(|answer| answer.is_some() && *answer == plain[0]) {
                return answers.swap_remove(0).1.unwrap();
            }
            assert!(
                Instant::now() < deadline,
                "members do not agree within {READY_WITHIN:?}: (revision, hash, compacted) {plain:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            member.kill();
        }
        if std::thread::panicking() {
            for member in &self.members {
                eprintln!("--- the end of {}'s log\n{}", member.name, member.log_tail());
            }
            eprintln!("--- the cluster's files are kept in {}", self.directory.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("{} could not be removed: {error}", self.directory.display());
        }
    }
}

/// Runs a command to its end, bounded; its output.
pub fn run(command: &mut Command) -> Output {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    child.wait_with_output().unwrap()
}

/// The same, as text of standard output, and the command must succeed.
pub fn run_ok(command: &mut Command) -> String {
    let output = run(command);
    assert!(
        output.status.success(),
        "{command:?} failed with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
