//! The example as its users see it: real processes on loopback, and bytes on their sockets.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take that is not promised sooner; a bound, not an expectation.
const WITHIN: Duration = Duration::from_secs(180);

/// One node: its flags, and its process while it runs.
struct Node {
    id: usize,
    port: u16,
    child: Option<Child>,
}

/// Nodes in a directory of their own, each of which may be on the list.
struct Cluster {
    directory: TempDir,
    urls: Vec<String>,
    nodes: Vec<Node>,
    more_flags: &'static [&'static str],
}

/// Ports of the loopback that nobody listens on, each given out once. They lie below those that the system picks for
/// connections, so that none is taken between now and the start of a node, or while it is down.
fn free_ports<const N: usize>() -> [u16; N] {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 600) as u16 * 20;
    [(); N].map(|()| {
        loop {
            let port = first + TRIED.fetch_add(1, Ordering::Relaxed) % 700;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    })
}

impl Cluster {
    /// The names and ports of three nodes and a spare one; nobody runs yet.
    fn new(more_flags: &'static [&'static str]) -> Cluster {
        let (peers, clients) = (free_ports::<4>(), free_ports::<4>());
        Cluster {
            directory: tempfile::tempdir().unwrap(),
            urls: peers.iter().map(|port| format!("http://127.0.0.1:{port}")).collect(),
            nodes: (1..).zip(clients).map(|(id, port)| Node { id, port, child: None }).collect(),
            more_flags,
        }
    }

    /// Starts a node with a list of the first `listed` nodes.
    fn start(&mut self, id: usize, listed: usize, join: &[&str]) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log(id)).unwrap();
        let node = &mut self.nodes[id - 1];
        let child = Command::new(env!("CARGO_BIN_EXE_raftexample"))
            .current_dir(&self.directory)
            .args(["--id", &node.id.to_string(), "--cluster", &self.urls[..listed].join(",")])
            .args(["--port", &node.port.to_string()])
            .args(join)
            .args(self.more_flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        assert!(node.child.replace(child).is_none(), "node {id} runs already");
    }

    /// Ends a node as a power cut would.
    fn kill(&mut self, id: usize) {
        let mut child = self.nodes[id - 1].child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn log(&self, id: usize) -> std::path::PathBuf {
        self.directory.path().join(format!("{id}.log"))
    }

    fn log_text(&self, id: usize) -> String {
        std::fs::read_to_string(self.log(id)).unwrap_or_default()
    }

    /// One request; its status and body, or `None` if nobody listens or answers.
    fn request(&self, id: usize, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        let answer = exchange(self.nodes[id - 1].port, request.as_bytes())?;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned()))
    }

    /// Repeats a change until it is answered with 204: nodes may still be starting, or electing.
    fn change(&self, id: usize, method: &str, path: &str, body: &str, within: Duration) {
        let what = format!("{method} {path} on node {id}");
        let answer = || self.request(id, method, path, body).map(|(status, _)| status);
        self.eventually(&what, within, || answer() == Some(204));
    }

    fn put(&self, id: usize, path: &str, value: &str) {
        self.change(id, "PUT", path, value, WITHIN);
    }

    /// Waits until a node has this value; what it has before is older.
    fn expect(&self, id: usize, path: &str, value: &str) {
        let expected = Some((200, value.to_owned()));
        let what = format!("GET {path} on node {id} is {value:?}");
        self.eventually(&what, WITHIN, || self.request(id, "GET", path, "") == expected);
    }

    fn eventually(&self, what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + within;
        while !is_so() {
            if Instant::now() >= deadline {
                let logs: String =
                    (1..=4).map(|id| format!("{id}:\n{}\n", self.log_text(id))).collect();
                panic!("not within {within:?}: {what}\n{logs}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the process has ended by itself, and well.
    fn expect_end(&mut self, id: usize) {
        let mut child = self.nodes[id - 1].child.take().unwrap();
        self.eventually(&format!("node {id} ends"), WITHIN, || match child.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success(), "node {id}: {status}\n{}", self.log_text(id));
                true
            }
            None => false,
        });
    }

    fn snapshots(&self, id: usize) -> Vec<String> {
        names(&self.directory.path().join(format!("raftexample-{id}-snap")))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What comes back for these bytes until the server closes, or has said nothing for a while.
fn exchange(port: u16, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(WITHIN)).unwrap();
    stream.write_all(bytes).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(answer)
}

/// The notebook's three commands, all told to join what does not exist: the first one finds nobody and founds the cluster,
/// the others do, or join it. It takes a change at once, and each node tells it.
#[test]
fn the_notebooks_commands_end_in_a_working_cluster() {
    let mut cluster = Cluster::new(&[]);
    for id in 1..=3 {
        cluster.start(id, 3, &["--join", "true"]);
    }
    cluster.change(1, "PUT", "/", "name=sakulali", WITHIN);
    // Whoever has answered the change shows it at once.
    assert_eq!(cluster.request(1, "GET", "/", ""), Some((200, "name=sakulali".to_owned())));
    for id in 1..=3 {
        cluster.expect(id, "/", "name=sakulali");
    }
    let all: String = (1..=3).map(|id| cluster.log_text(id)).collect();
    assert!(all.contains("founds the cluster"), "{all}");

    assert_eq!(cluster.request(2, "GET", "/none", ""), Some((404, "Failed to GET\n".to_owned())));
    for (method, path, body) in
        [("POST", "/x", "http://a:1"), ("POST", "/4", "nowhere"), ("DELETE", "/x", "")]
    {
        let expected = (400, format!("Failed on {method}\n"));
        assert_eq!(
            cluster.request(3, method, path, body),
            Some(expected),
            "{method} {path} {body}"
        );
    }
    let refused = cluster.request(3, "PATCH", "/x", "");
    assert_eq!(refused, Some((405, "Method not allowed\n".to_owned())));
}

/// One command after the other, as by hand: who comes later finds the first one, and joins it.
#[test]
fn who_comes_later_joins() {
    let mut cluster = Cluster::new(&[]);
    cluster.start(1, 3, &["--join=true"]);
    cluster.eventually("node 1 listens", WITHIN, || cluster.request(1, "GET", "/", "").is_some());
    cluster.start(2, 3, &["--join"]);
    cluster.change(2, "PUT", "/a", "1", WITHIN);
    cluster.start(3, 3, &["--join"]);
    cluster.change(3, "PUT", "/b", "2", WITHIN);
    cluster.expect(3, "/a", "1");
    assert!(cluster.log_text(1).contains("founds the cluster"), "{}", cluster.log_text(1));
    for id in 2..=3 {
        assert!(cluster.log_text(id).contains("joins"), "{}", cluster.log_text(id));
    }
}

/// Any one may be killed, at any time: the others go on, and it comes back with all that was answered with 204. Then
/// all at once.
#[test]
fn killed_nodes_come_back_with_everything() {
    let mut cluster = Cluster::new(&[]);
    for id in 1..=3 {
        cluster.start(id, 3, &[]);
    }
    for victim in 1..=3 {
        cluster.put(victim, "/before", &victim.to_string());
        cluster.kill(victim);
        cluster.put(victim % 3 + 1, "/without", &victim.to_string());
        cluster.start(victim, 3, &[]);
        cluster.expect(victim, "/before", &victim.to_string());
        cluster.expect(victim, "/without", &victim.to_string());
    }
    cluster.put(1, "/last", "kept");
    (1..=3).for_each(|id| cluster.kill(id));
    (1..=3).for_each(|id| cluster.start(id, 3, &["--join", "true"]));
    for id in 1..=3 {
        cluster.expect(id, "/last", "kept");
        cluster.expect(id, "/without", "3");
    }
}

/// A node that was away for longer than the log reaches back gets a snapshot, and so does a new one; whoever restarts begins
/// with his own.
#[test]
fn laggards_and_new_nodes_get_a_snapshot() {
    let mut cluster = Cluster::new(&["--snapshot-count", "10"]);
    for id in 1..=3 {
        cluster.start(id, 3, &[]);
    }
    cluster.put(3, "/early", "1");
    cluster.kill(3);
    let last_before = cluster.snapshots(3);
    for i in 0..50 {
        cluster.put(1, &format!("/{i}"), &format!("value {i}"));
    }
    cluster.start(3, 3, &[]);
    cluster.expect(3, "/49", "value 49");
    cluster.expect(3, "/0", "value 0");
    assert_ne!(cluster.snapshots(3), last_before, "node 3 has the leader's snapshot");

    cluster.change(2, "POST", "/4", &cluster.urls[3], WITHIN);
    cluster.start(4, 4, &["--join"]);
    cluster.expect(4, "/49", "value 49");
    cluster.put(4, "/late", "2");
    for id in 1..=4 {
        cluster.kill(id);
    }
    // Only the snapshots tell the first three where node 4 is.
    (1..=3).for_each(|id| cluster.start(id, 3, &[]));
    cluster.start(4, 4, &[]);
    for id in 1..=4 {
        cluster.expect(id, "/early", "1");
        cluster.expect(id, "/late", "2");
        let kept = cluster.snapshots(id);
        assert!(kept.len() <= 2, "old snapshots go: {kept:?}");
    }
}

/// A fourth node is added and joins; with it there is a quorum without two of the others. Then it is removed, hears of it,
/// and ends; a removed leader does, too, and the others elect another.
#[test]
fn nodes_come_and_go() {
    let mut cluster = Cluster::new(&[]);
    for id in 1..=3 {
        cluster.start(id, 3, &[]);
    }
    cluster.put(1, "/a", "1");
    cluster.change(3, "POST", "/4", &cluster.urls[3], WITHIN);
    cluster.start(4, 4, &["--join"]);
    cluster.expect(4, "/a", "1");
    cluster.kill(2);
    cluster.put(4, "/b", "2");
    cluster.expect(1, "/b", "2");
    cluster.start(2, 3, &[]);
    cluster.expect(2, "/b", "2");

    cluster.change(1, "DELETE", "/4", "", WITHIN);
    cluster.expect_end(4);
    assert!(cluster.log_text(4).contains("was removed"), "{}", cluster.log_text(4));

    let leads = |id: usize| {
        cluster
            .log_text(id)
            .lines()
            .rfind(|line| line.contains("in term"))
            .unwrap_or_default()
            .contains("Leader")
    };
    cluster.eventually("somebody leads", WITHIN, || (1..=3).any(leads));
    let leader = (1..=3).find(|id| leads(*id)).unwrap();
    let other = leader % 3 + 1;
    assert_eq!(
        cluster.request(leader, "DELETE", &format!("/{leader}"), ""),
        Some((204, String::new()))
    );
    cluster.expect_end(leader);
    cluster.put(other, "/c", "3");
}

/// Bytes that no client sends: each gets an error or a closed connection, nothing changes, and the node serves on.
#[test]
fn hostile_bytes_do_no_harm() {
    let mut cluster = Cluster::new(&[]);
    cluster.start(1, 1, &[]);
    cluster.put(1, "/a", "1");

    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20));
    let headers = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(10_000));
    let large =
        format!("PUT /a HTTP/1.1\r\nContent-Length: {}\r\n\r\n{}", 2 << 20, "x".repeat(2 << 20));
    let corpus: Vec<(&[u8], &str)> = vec![
        (b"\r\n\r\n\0\0\0\0", "400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello", "400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
        (b"GET  / HTTP/1.1\r\n\r\n", "400"),
        (b"GET / HTTP/9.9\r\n\r\n", "400"),
        (b"GET /\xff\xfe\0 HTTP/1.1\r\n\r\n", "400"),
        (b"GET / HTTP/1.1\r\nA\0: b\r\n\r\n", "400"),
        (b"PUT /a HTTP/1.1\r\nContent-Length: -1\r\n\r\n2", "400"),
        (b"PUT /a HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n2", "400"),
        (b"PUT /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n22", "400"),
        (b"PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400"),
        (b"PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", "400"),
        (b"POST /-1 HTTP/1.1\r\nContent-Length: 10\r\nConnection: close\r\n\r\nhttp://a:1", "400"),
        (b"POST /18446744073709551615 HTTP/1.1\r\nContent-Length: 10\r\nConnection: close\r\n\r\nhttp://a:1", "400"),
        (b"POST /2 HTTP/1.1\r\nContent-Length: 4\r\nConnection: close\r\n\r\n\xff\xfe\xfd\xfc", "400"),
        (b"POST /2 HTTP/1.1\r\nContent-Length: 12\r\nConnection: close\r\n\r\nhttp://a:1/x", "400"),
        (b"DELETE /0 HTTP/1.1\r\nConnection: close\r\n\r\n", "400"),
        (b"DELETE /99999999999 HTTP/1.1\r\nConnection: close\r\n\r\n", "400"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\r\n\r\n", "400"),
        (b"PUT /a HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf", "400"),
        (b"PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n22\r\n", "400"),
        (b"PUT /a HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n22", "400"),
        (b"PUT /a", ""),
        (b"\0\r\n\r\nPUT /a HTTP/1.1\r\nContent-Length: 1\r\n\r\n2", "400"),
        (b"GET / HTTP/1.1\r\nA\r\n\r\nPUT /a HTTP/1.1\r\nContent-Length: 1\r\n\r\n2", "400"),
        (b"POST /%ff HTTP/1.1\r\nContent-Length: 10\r\nConnection: close\r\n\r\nhttp://a:1", "400"),
        (b"POST /2 HTTP/1.1\r\nContent-Length: 16\r\nConnection: close\r\n\r\nhttp://a:9999999", "400"),
        (long.as_bytes(), "4"),
        (headers.as_bytes(), "431"),
        (large.as_bytes(), "400"),
    ];
    for (bytes, status) in corpus {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let answer = say(cluster.nodes[0].port, bytes);
        let expected = format!("HTTP/1.1 {status}");
        let is_right = answer.is_empty() || answer.starts_with(expected.as_bytes());
        assert!(is_right, "{shown:?} is answered with {:?}", String::from_utf8_lossy(&answer));
        assert_eq!(
            cluster.request(1, "GET", "/a", ""),
            Some((200, "1".to_owned())),
            "after {shown:?}"
        );
    }

    // A question with bytes turned, put in and cut, from a seed, is a question still, or nothing.
    let (asked, mut lot) =
        (b"GET /a?b=c HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 1_u64);
    let mut draw = |below: usize| {
        lot = lot.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (lot >> 33) as usize % below
    };
    for _ in 0..500 {
        let mut bytes = asked.to_vec();
        for _ in 0..=draw(3) {
            let at = draw(bytes.len());
            match draw(3) {
                0 => bytes[at] = draw(256) as u8,
                1 => bytes.insert(at, draw(256) as u8),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let answer = say(cluster.nodes[0].port, &bytes);
        let is_right = answer.is_empty() || answer.starts_with(b"HTTP/1.");
        assert!(is_right, "{:?}: {:?}", String::from_utf8_lossy(&bytes), answer);
        assert!(!answer.starts_with(b"HTTP/1.1 204"), "{:?}", String::from_utf8_lossy(&bytes));
    }
    assert_eq!(cluster.request(1, "GET", "/a", ""), Some((200, "1".to_owned())));

    // What nobody's peer sends, to the peers' port.
    let peers: u16 = cluster.urls[0].rsplit_once(':').unwrap().1.parse().unwrap();
    let corpus: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\x40\0\0\0 much is announced, little comes",
        b"\0\0\0\x02\x08\x7f",
        // A vote of a term to come, an append, and a snapshot whose state is none; all for node 1.
        b"\0\0\0\x08\x08\x05\x10\x01\x18\x02\x20\x63",
        b"\0\0\0\x08\x08\x03\x10\x01\x18\x09\x20\x01",
        b"\0\0\0\x14\x08\x07\x10\x01\x18\x02\x20\x63\x4a\x0a\x0a\x02\xff\xff\x12\x04\x10\x63\x18\x63",
    ];
    for bytes in corpus {
        say(peers, bytes);
        cluster.put(1, "/a", "1");
    }
    assert!(cluster.nodes[0].child.as_mut().unwrap().try_wait().unwrap().is_none());
    assert!(!cluster.log_text(1).contains("panicked"), "{}", cluster.log_text(1));
}

/// Says this and no more; what comes back until the server closes. It may close before it has heard all of it, but it must
/// close: a node that hangs on what it was told does harm.
fn say(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(WITHIN)).unwrap();
    let mut answer = Vec::new();
    if stream.write_all(bytes).is_ok() && stream.shutdown(std::net::Shutdown::Write).is_ok() {
        let end = stream.read_to_end(&mut answer);
        // A reset is an end, too; silence is none.
        let is_silent = end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!is_silent, "no end within {WITHIN:?} of {:?}", String::from_utf8_lossy(bytes));
    }
    answer
}
