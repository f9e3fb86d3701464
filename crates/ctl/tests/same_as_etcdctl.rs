//! Our command line against etcdctl's own, on a real etcd: what they print, where, and how they end.
//!
//! Each case runs once through etcdctl and once in this process, each against a fresh server state that
//! the case's first lines prepare in the same way; what depends on time, ids or ports is blanked on
//! both sides. The binaries are looked up in `QUORATE_REFERENCE_DIR`, or in `target/reference`; without
//! them the test says so and passes.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test of real programs on real sockets"
)]

use std::{
    ffi::OsString,
    io::{Cursor, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use ctl::Streams;

#[path = "../../../tests/src/address.rs"]
mod address;

use self::address::own_address;

/// How a command ended and what it said.
#[derive(Debug, PartialEq)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn reference() -> Option<(PathBuf, PathBuf)> {
    let directory = match std::env::var_os("QUORATE_REFERENCE_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/reference"),
    };
    let (etcd, etcdctl) = (directory.join("etcd"), directory.join("etcdctl"));
    (etcd.exists() && etcdctl.exists()).then_some((etcd, etcdctl))
}

/// How long anything may take; a bound, not an expectation.
const WITHIN: Duration = Duration::from_secs(180);

struct Server {
    process: Child,
    endpoint: String,
    _data: tempfile::TempDir,
}

impl Server {
    fn start(etcd: &Path) -> Server {
        let data = tempfile::tempdir().unwrap();
        let [client, peer] = [(); 2].map(|()| own_address().to_string());
        let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
        // Ids are made from what a member advertises; nobody ever calls a lone member there.
        let advertised = "http://127.0.0.1:2380";
        let process = Command::new(etcd)
            .arg("--data-dir")
            .arg(data.path())
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", advertised])
            .args(["--initial-cluster", &format!("default={advertised}"), "--unsafe-no-fsync"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server { process, endpoint: client, _data: data };
        let deadline = Instant::now() + WITHIN;
        while ours(&server, &["get", "ready", "--command-timeout=1s"], "").code != 0 {
            assert!(Instant::now() < deadline, "etcd does not serve");
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn words(server: &Server, line: &[&str]) -> Vec<OsString> {
    let at = |word: &&str| word.replace("ENDPOINT", &server.endpoint);
    let mut words: Vec<OsString> = line.iter().map(at).map(OsString::from).collect();
    if !line.iter().any(|word| word.starts_with("--endpoints")) {
        words.insert(0, OsString::from(format!("--endpoints={}", server.endpoint)));
    }
    words
}

fn ours(server: &Server, line: &[&str], input: &str) -> Said {
    let (out, err) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let streams = Streams {
        input: Box::new(Cursor::new(input.to_owned())),
        out: out.clone(),
        err: err.clone(),
        environment: vec![("PATH".into(), std::env::var_os("PATH").unwrap_or_default())],
        inherit: false,
    };
    let code = i32::from(ctl::run(words(server, line), streams));
    let text =
        |bytes: &Mutex<Vec<u8>>| String::from_utf8_lossy(&bytes.lock().unwrap()).into_owned();
    Said { code, out: text(&out), err: text(&err) }
}

fn theirs(etcdctl: &Path, server: &Server, line: &[&str], input: &str) -> Said {
    let mut child = Command::new(etcdctl)
        .args(words(server, line))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads no input may be gone before it is written.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said {
        code: output.status.code().unwrap(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

/// Blanks what differs between two servers or two moments: addresses, ids, durations, sizes; and takes
/// log lines and usage out of the standard error.
fn blank(server: &Server, said: Said) -> Said {
    let plain = |text: &str| {
        let text = text.replace(&server.endpoint, "ENDPOINT");
        let mut out = String::new();
        let mut number = String::new();
        for c in text.chars().chain(['\n']) {
            if c.is_ascii_hexdigit() {
                number.push(c);
                continue;
            }
            let digits = number.chars().filter(char::is_ascii_digit).count();
            // Ids have at least twelve digits, decimal or hexadecimal; nothing else here has.
            out.push_str(if number.len() >= 12 && digits >= 4 { "ID" } else { &number });
            number.clear();
            out.push(c);
        }
        out.pop();
        out
    };
    let complaint = |line: &&str| !line.starts_with('{');
    let err: Vec<_> =
        said.err.lines().take_while(|line| *line != "Usage:").filter(complaint).collect();
    Said { code: said.code, out: plain(&said.out), err: plain(&err.join("\n")) }
}

/// Runs the same lines, in the same order, through both and compares each.
fn compare(cases: &[(&[&str], &str)]) {
    let Some((etcd, etcdctl)) = reference() else {
        // Past the test harness, which would swallow what a passing test prints.
        let line = "skipped: no etcd and etcdctl in QUORATE_REFERENCE_DIR or target/reference";
        std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
        let strict = std::env::var_os("QUORATE_TESTS_STRICT").is_some();
        assert!(!strict, "a skip is a failure here: {line}");
        return;
    };
    let (for_ours, for_theirs) = (Server::start(&etcd), Server::start(&etcd));
    for (line, input) in cases {
        let ours = blank(&for_ours, ours(&for_ours, line, input));
        let theirs = blank(&for_theirs, theirs(&etcdctl, &for_theirs, line, input));
        assert_eq!(ours, theirs, "left: ours, right: etcdctl; etcdctl {}", line.join(" "));
    }
}

/// The same with one server, whose sizes have come to rest: etcd frees pages for a while after its start.
fn compare_at_rest(cases: &[(&[&str], &str)]) {
    let Some((etcd, etcdctl)) = reference() else { return compare(&[]) };
    let server = Server::start(&etcd);
    let status = || theirs(&etcdctl, &server, &["endpoint", "status", "-w", "json"], "").out;
    // It frees them with its commits, a tenth of a second apart: what it says is to be the same for far longer than that.
    let (mut last, mut since) = (status(), Instant::now());
    let deadline = Instant::now() + WITHIN;
    while since.elapsed() < Duration::from_secs(2) {
        assert!(Instant::now() < deadline, "etcd does not come to rest: {last}");
        std::thread::sleep(Duration::from_millis(100));
        let now = status();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    for (line, input) in cases {
        let ours = blank(&server, ours(&server, line, input));
        let theirs = blank(&server, theirs(&etcdctl, &server, line, input));
        assert_eq!(ours, theirs, "left: ours, right: etcdctl; etcdctl {}", line.join(" "));
    }
}

macro_rules! lines {
    ($($line:literal $(< $input:literal)?),* $(,)?) => {
        &[$((&$line.split(' ').collect::<Vec<_>>()[..], concat!($($input)?))),*]
    };
}

#[test]
fn keys_and_values() {
    compare(lines![
        "put foo bar",
        "put foo baz --prev-kv -w json",
        "put foo baz --prev-kv -w fields",
        "put foo" < "from\nthe input\n",
        "put foo",
        "put",
        "put a 1 2 3",
        "put --ignore-value foo",
        "put --ignore-value foo x",
        "put --ignore-value nothing",
        "put x --lease=zz y",
        "put x --lease=5 y",
        "put b 2 -w protobuf",
        "put b 2 -w table",
        "put b 2 -w xml",
        "get foo",
        "get foo --hex",
        "get foo -w fields",
        "get foo -w json",
        "get foo -w table",
        "get foo --rev=3 -w json",
        "get foo --rev=99",
        "get --prefix",
        "get nothing -w json",
        "get a z --limit=1 -w json",
        "get a z --keys-only",
        "get a z --print-value-only",
        "get a z --print-value-only -w json",
        "get a --from-key --order=descend --sort-by=modify",
        "get a --from-key --order=sideways",
        "get a --from-key --sort-by=size",
        "get a --from-key --prefix",
        "get a --from-key --count-only",
        "get a --from-key --count-only -w fields",
        "get a --from-key --count-only --keys-only",
        "get a --from-key --min-mod-rev=4 --max-mod-rev=5 -w fields",
        "get a --from-key --min-create-rev=5 --max-create-rev=4",
        "get a --consistency=s",
        "get a --consistency=q",
        "get a z extra --prefix",
        "get a --limit=x",
        "get a --bogus",
        "compaction 3",
        "compaction 3",
        "compaction 99",
        "compaction x",
        "compaction",
        "compaction 4 --physical",
        "get foo --rev=2",
        "watch foo --rev=1",
        "del b --prev-kv",
        "del nothing",
        "del foo --prev-kv -w json",
        "del a z --range --prev-kv -w fields",
        "del",
        "del a b --prefix",
        "frob",
    ]);
}

#[test]
fn transactions() {
    compare(lines![
        "txn" < "mod(\"foo\") > \"0\"\n\nput foo x\nget foo\n\nput foo made\nget foo\n\n",
        "txn -w json" < "value(\"foo\") = \"made\"\n\nput foo 'x y'\nget foo\n\n\n",
        "txn -w fields"
            < "version(\"foo\") = \"2\"\ncreate(\"foo\") != \"0\"\n\ndel foo --prev-kv\nput b \"1\\n2\"\n\n\n",
        "txn -i" < "\nget b --print-value-only\n\n\n",
        "txn -w protobuf" < "\nget b\n\n\n",
        "txn" < "\nput foo 1\nput foo 2\n\n\n",
        "txn" < "mod(\"foo\" > \"0\"\n\n",
        "txn" < "val(\"foo\")=\"0\"\n\n",
        "txn" < "frob\n\n",
        "txn" < "mod(\"a\") = \"x\"\n",
        "txn" < "",
        "txn extra",
    ]);
}

#[test]
fn leases_and_members() {
    compare(lines![
        "lease grant 60",
        "lease grant",
        "lease grant x",
        "lease grant 9000000001",
        "lease grant 60 -w fields",
        "lease grant 60 -w json",
        "lease list",
        "lease list -w json",
        "lease list -w fields",
        "lease timetolive 1",
        "lease timetolive 1 --keys -w json",
        "lease timetolive 1 -w fields",
        "lease timetolive",
        "lease keep-alive --once 1",
        "lease keep-alive 1",
        "lease keep-alive 1 -w json",
        "lease revoke 1",
        "lease revoke x",
        "lease revoke",
        "member list",
        "member list --consistency=s",
        "version",
    ]);
}

#[test]
fn watches_read_from_the_past() {
    compare(lines![
        "put w 1",
        "put w 2",
        "put wx 3",
        "del w",
        "compaction 2",
        "watch w --rev=1 -w json",
        "watch w --rev=1 -w fields",
        "watch",
        "watch a --",
        "watch a b --prefix",
        "watch w --rev=2 -- false",
        "watch -i" < "frob\nwatch\n\n",
    ]);
}

#[test]
fn the_state_of_an_endpoint() {
    compare_at_rest(lines![
        "endpoint status -w table",
        "endpoint status -w fields --hex",
        "endpoint status -w protobuf",
    ]);
}

#[test]
fn endpoints_that_are_there_and_that_are_not() {
    compare(lines![
        "endpoint hashkv",
        "endpoint hashkv -w json",
        "endpoint hashkv --rev=9",
        "endpoint hashkv -w fields",
        "endpoint hashkv -w table",
        "endpoint --cluster hashkv",
        "--endpoints=http://ENDPOINT/ get k",
        "--endpoints=127.0.0.1:1,ENDPOINT put k v",
        "--endpoints=127.0.0.1:1 --command-timeout=300ms get k",
        "--endpoints=127.0.0.1:1 --command-timeout=300ms put k v",
        "--endpoints=127.0.0.1:1 --command-timeout=300ms endpoint status",
        "--endpoints=127.0.0.1:1 --command-timeout=300ms endpoint health",
        "--endpoints=127.0.0.1:1 --command-timeout=300ms endpoint health --cluster",
        "--endpoints= get k",
    ]);
}
