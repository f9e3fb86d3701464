//! Servers as processes: a cluster in a directory of its own, on ports of its own, ended when it is dropped.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use client::{Client, Config};
use proto::etcdserverpb::{PutRequest, StatusResponse};
use tempfile::TempDir;

use crate::flags::Target;
use crate::usage::{Cpu, Held, disk_written_bytes, metric};

/// How long a cluster may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How often it is asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(2);
/// How long a page of metrics may take.
const PAGE_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of a server's log that are shown when it does not start.
const LOG_TAIL_BYTES: usize = 2000;
/// The metrics that count syncs: of the log, and of the store.
const SYNCS: [&str; 2] = [
    "etcd_disk_wal_fsync_duration_seconds_count",
    "etcd_disk_backend_commit_duration_seconds_count",
];

/// A server to measure: what it is called in the report, and how it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary {
    /// Its name.
    pub name: String,
    /// It is our own serving layer, which answers with a constant.
    pub limit: bool,
    /// The file.
    pub program: PathBuf,
    /// Its flags, besides those that every member gets.
    pub flags: Vec<String>,
}

/// One member.
struct Member {
    client: SocketAddr,
    command: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Member {
    fn start(&mut self) -> Result<(), String> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(|error| format!("{}: {error}", self.log.display()))?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        let words = &self.command;
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("{}: {error}", words[0]))?;
        self.child = Some(child);
        Ok(())
    }

    fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Ends it at once; what it had not written is not wanted.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; either way it is gone then.
            let _ended_already = child.kill();
            let _status = child.wait();
        }
    }
}

/// What a cluster used between two moments.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    cpu: Vec<Cpu>,
    /// Of all members together.
    pub held: Held,
    /// Syncs of logs and stores; `None` if a member does not tell.
    pub syncs: Option<f64>,
}

impl Reading {
    /// Processor time of all members since `before`, in nanoseconds.
    pub fn cpu_since(&self, before: &Reading) -> u64 {
        self.cpu.iter().zip(&before.cpu).map(|(after, before)| after.since(before)).sum()
    }
}

/// A running cluster.
pub struct Cluster {
    members: Vec<Member>,
    limit: bool,
    /// Removed, with all data, when the cluster is dropped.
    directory: TempDir,
}

impl Cluster {
    /// Starts a cluster of so many members, and waits until it answers.
    ///
    /// # Errors
    /// Why it does not, with the end of its log.
    pub fn start(
        binary: &Binary,
        members: usize,
        parent: Option<&Path>,
    ) -> Result<Cluster, String> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let directory = tempfile::Builder::new().prefix("quorate-bench-").tempdir_in(&parent);
        let directory = directory.map_err(|error| format!("{}: {error}", parent.display()))?;
        let members = if binary.limit { 1 } else { members };
        let ports = free_ports(2 * members).map_err(|error| format!("no free port: {error}"))?;
        let host = host();
        let url = |port: u16| format!("http://{host}:{port}");
        let founders: Vec<String> =
            (0..members).map(|i| format!("m{i}={}", url(ports[members + i]))).collect();
        let mut built = Vec::new();
        for i in 0..members {
            let (client, peer) = (url(ports[i]), url(ports[members + i]));
            let data = directory.path().join(format!("m{i}"));
            let own = || std::env::current_exe().map(|path| path.display().to_string());
            let mut command = match binary.limit {
                true => vec![own().map_err(|error| error.to_string())?, "limit".to_owned()],
                false => vec![binary.program.display().to_string()],
            };
            let mut flag = |name: &str, value: String| command.extend([name.to_owned(), value]);
            flag("--listen-client-urls", client.clone());
            if !binary.limit {
                flag("--name", format!("m{i}"));
                flag("--data-dir", data.display().to_string());
                flag("--advertise-client-urls", client);
                flag("--listen-peer-urls", peer.clone());
                flag("--initial-advertise-peer-urls", peer);
                flag("--initial-cluster", founders.join(","));
            }
            command.extend(binary.flags.iter().cloned());
            built.push(Member {
                client: SocketAddr::from((host, ports[i])),
                command,
                log: directory.path().join(format!("m{i}.log")),
                child: None,
            });
        }
        let mut cluster = Cluster { members: built, limit: binary.limit, directory };
        for member in &mut cluster.members {
            member.start()?;
        }
        cluster.wait_ready()?;
        Ok(cluster)
    }

    /// Waits until every member answers and knows a leader; how long that took.
    ///
    /// # Errors
    /// If a member has ended, or takes too long.
    pub fn wait_ready(&mut self) -> Result<Duration, String> {
        let began = Instant::now();
        // The limit server knows nothing but Put and Range.
        let put = PutRequest { key: "ready".into(), ..PutRequest::default() };
        for place in 0..self.members.len() {
            let client = self.client(place)?;
            loop {
                let ready = match self.limit {
                    true => ask(client.put(put.clone())).is_ok(),
                    false => ask(client.status()).is_ok_and(|status| status.leader != 0),
                };
                if ready {
                    break;
                }
                let member = &mut self.members[place];
                let ended = member
                    .child
                    .as_mut()
                    .is_none_or(|child| child.try_wait().is_ok_and(|status| status.is_some()));
                if ended || began.elapsed() > READY_WITHIN {
                    let what = if ended { "has ended" } else { "does not answer" };
                    let log = std::fs::read(&member.log).unwrap_or_default();
                    let tail = &log[log.len().saturating_sub(LOG_TAIL_BYTES)..];
                    let tail = String::from_utf8_lossy(tail);
                    return Err(format!(
                        "{} {what}; its log ends with:\n{tail}",
                        member.command[0]
                    ));
                }
                std::thread::sleep(ASK_EVERY);
            }
        }
        Ok(began.elapsed())
    }

    /// A client of one member.
    ///
    /// # Errors
    /// Never, for its address is one.
    pub fn client(&self, place: usize) -> Result<Client, String> {
        let config = Config::new([self.members[place].client.to_string()]);
        Client::new(config).map_err(|error| error.to_string())
    }

    /// The members that a load goes to.
    ///
    /// # Errors
    /// If none says who leads.
    pub fn endpoints(&self, target: Target) -> Result<Vec<SocketAddr>, String> {
        if self.members.len() == 1 || target == Target::All {
            return Ok(self.members.iter().map(|member| member.client).collect());
        }
        let leader = self.leader()?;
        let wanted = match target {
            Target::Follower => (leader + 1) % self.members.len(),
            Target::Leader | Target::All => leader,
        };
        Ok(vec![self.members[wanted].client])
    }

    /// Which member leads.
    ///
    /// # Errors
    /// If none says so.
    pub fn leader(&self) -> Result<usize, String> {
        for place in 0..self.members.len() {
            let own_id =
                |status: &StatusResponse| status.header.as_ref().map(|header| header.member_id);
            match ask(self.client(place)?.status()) {
                Ok(status) if own_id(&status) == Some(status.leader) => return Ok(place),
                _ => {}
            }
        }
        Err("no member leads".to_owned())
    }

    /// What the members have used until now. Asked for at the start of a load, the processor time comes last; at its
    /// end first, so that the asking itself does not count.
    pub fn read(&self, at_end: bool) -> Reading {
        let cpu = || self.members.iter().filter_map(Member::pid).map(Cpu::of).collect();
        let early = if at_end { cpu() } else { Vec::new() };
        let syncs = self.members.iter().map(|member| self.syncs(member)).sum();
        let mut held = Held::default();
        for pid in self.members.iter().filter_map(Member::pid) {
            let own = Held::of(pid);
            held.resident_bytes += own.resident_bytes;
            held.resident_max_bytes += own.resident_max_bytes;
            held.written_bytes += own.written_bytes;
        }
        if let Some(bytes) = disk_written_bytes(self.directory.path()) {
            held.written_bytes = bytes;
        }
        Reading { cpu: if at_end { early } else { cpu() }, held, syncs }
    }

    fn syncs(&self, member: &Member) -> Option<f64> {
        if self.limit {
            return None;
        }
        let page = page(member.client).ok()?;
        SYNCS.iter().map(|name| metric(&page, name)).sum()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            member.kill();
        }
    }
}

/// Waits for an answer, on a runtime of its own.
///
/// # Errors
/// The error of what was waited for, as text.
pub fn ask<T, E: ToString>(what: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(what).map_err(|error| error.to_string())
}

/// An address of the loopback that is this process's own: connections go out from 127.0.0.1, and would now and then take a port
/// there between the moment in which it was found free and that in which a server listens on it.
fn host() -> Ipv4Addr {
    /// 127.128.0.0/10: as many addresses as Linux has process ids.
    const FIRST: u32 = 0x7f80_0000;
    Ipv4Addr::from(FIRST + std::process::id() % (1 << 22))
}

/// Ports of it that nobody listens on now, all different.
fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    let listeners = (0..count).map(|_| TcpListener::bind((host(), 0)));
    let listeners = listeners.collect::<std::io::Result<Vec<_>>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// A member's page of metrics.
fn page(address: SocketAddr) -> std::io::Result<String> {
    let mut tcp = TcpStream::connect_timeout(&address, PAGE_WITHIN)?;
    tcp.set_read_timeout(Some(PAGE_WITHIN))?;
    write!(tcp, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut page = Vec::new();
    tcp.read_to_end(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
