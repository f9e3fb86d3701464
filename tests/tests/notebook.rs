//! The notebook's session: its script brings up three members, and its commands work with the real etcdctl
//! 3.7, with Debian's 3.4 and with ours.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tests::process::{quorate, reference, run, run_ok};
use tests::{need, skip};

/// The script as the notebook has it, for its own ports; only the binary has another name.
const SCRIPT: &str = r#"
set +x
NAME1=infra0
NAME2=infra1
NAME3=infra2
HOST1=http://127.0.0.1:2379
HOST2=http://127.0.0.1:2479
HOST3=http://127.0.0.1:2579
PEER1=http://127.0.0.1:2380
PEER2=http://127.0.0.1:2480
PEER3=http://127.0.0.1:2580
function StartService() {
  nohup ./quorate --name $1 --initial-advertise-peer-urls $2 \
  --listen-peer-urls $2 \
  --listen-client-urls $3 \
  --advertise-client-urls $3 \
  --initial-cluster-token etcd-cluster-sakulali \
  --initial-cluster infra0=$PEER1,infra1=$PEER2,infra2=$PEER3 \
  --initial-cluster-state new &
}
StartService $NAME1 $PEER1 $HOST1
StartService $NAME2 $PEER2 $HOST2
StartService $NAME3 $PEER3 $HOST3
echo "hello etcd..."
"#;

/// The script's shell and, by it, its three members, which end with it.
struct Session {
    directory: tempfile::TempDir,
    shell: Child,
    pids: Vec<i32>,
}

impl Session {
    fn start() -> Session {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(quorate(), directory.path().join("quorate")).unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let mut shell = Command::new("bash")
            .arg("-c")
            .arg(format!("{{ {SCRIPT}\n}} 2>log.script >log.script; jobs -p; wait"))
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let lines = BufReader::new(shell.stdout.take().unwrap()).lines();
        let pids = lines.take(3).map(|line| line.unwrap().trim().parse().unwrap()).collect();
        Session { directory, shell, pids }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for pid in &self.pids {
            let pid = rustix::process::Pid::from_raw(*pid).unwrap();
            if let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
                eprintln!("process {pid:?} had ended by itself: {error}");
            }
        }
        self.shell.wait().unwrap();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.path().join("log.script"));
            eprintln!("--- the script's output\n{}", log.unwrap_or_default());
        }
    }
}

const ALL: &str = "127.0.0.1:2379,127.0.0.1:2479,127.0.0.1:2579";
const EACH: [&str; 3] = ["http://127.0.0.1:2379", "127.0.0.1:2479", "http://127.0.0.1:2579"];

struct Ctl {
    program: PathBuf,
    first: Vec<&'static str>,
    /// A prefix of this tool's own keys.
    prefix: &'static str,
}

impl Ctl {
    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.first).args(arguments.split(' ')).env("ETCDCTL_API", "3");
        command
    }

    fn ok(&self, arguments: &str) -> String {
        run_ok(&mut self.command(arguments))
    }

    fn revision(&self, key: &str) -> i64 {
        let json = self.ok(&format!("--endpoints={ALL} get {key} -w=json"));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        json["header"]["revision"].as_i64().unwrap()
    }

    /// The notebook's commands, in its order.
    fn session(&self) {
        let p = self.prefix;
        // Wait for the three, then look at leader and followers.
        let deadline = Instant::now() + Duration::from_secs(30);
        while !run(&mut self.command(&format!("--endpoints={ALL} endpoint health")))
            .status
            .success()
        {
            assert!(Instant::now() < deadline, "the three members do not become healthy");
            std::thread::sleep(Duration::from_millis(100));
        }
        let table = self.ok("--endpoints=http://127.0.0.1:2379 endpoint status --cluster -w table");
        for port in ["2379", "2479", "2579"] {
            assert!(table.contains(&format!("http://127.0.0.1:{port}")), "{table}");
        }
        assert_eq!(table.matches("true").count(), 1, "one of them leads:\n{table}");

        // Put through each member, read through the next.
        let before = self.revision("none");
        for (i, endpoint) in EACH.iter().enumerate() {
            let put = self.ok(&format!("--endpoints={endpoint} put {p}foo{i} bar{i}"));
            assert_eq!(put, "OK\n");
            let next = EACH[(i + 1) % 3];
            let get = self.ok(&format!("get {p}foo{i} --endpoints={next}"));
            assert_eq!(get, format!("{p}foo{i}\nbar{i}\n"));
        }
        let first = before + 1;
        // One revision of the whole keyspace, looked up again later.
        let get = self.ok(&format!("--endpoints={ALL} get --prefix --rev={} {p}foo", first + 1));
        assert_eq!(get, format!("{p}foo0\nbar0\n{p}foo1\nbar1\n"));
        // The same value again is a new revision.
        let revision = self.revision(&format!("{p}foo0"));
        self.ok(&format!("--endpoints={ALL} put {p}foo0 bar0"));
        assert_eq!(self.revision(&format!("{p}foo0")), revision + 1);
        let json = self.ok(&format!("--endpoints={ALL} get {p}foo0 -w=json"));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["kvs"][0]["mod_revision"].as_i64(), Some(revision + 1), "{json}");
        assert_eq!(json["kvs"][0]["version"].as_i64(), Some(2), "{json}");
        assert_eq!(json["count"].as_i64(), Some(1), "{json}");

        // A watch from a revision of the past tells what was missed, and then what comes.
        let mut watch = self
            .command(&format!("--endpoints={ALL} watch --rev={first} {p}foo0"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
        let mut next = |count: usize| -> Vec<String> {
            lines.by_ref().take(count).map(|line| line.unwrap()).collect()
        };
        assert_eq!(
            next(6),
            ["PUT", &format!("{p}foo0"), "bar0", "PUT", &format!("{p}foo0"), "bar0"]
        );
        self.ok(&format!("--endpoints={ALL} put {p}foo0 later"));
        assert_eq!(next(3), ["PUT", &format!("{p}foo0"), "later"]);
        self.ok(&format!("--endpoints={ALL} del {p}foo0"));
        assert_eq!(next(3), ["DELETE", &format!("{p}foo0"), ""]);
        watch.kill().unwrap();
        watch.wait().unwrap();

        // Compaction: what is below it is gone, and says so.
        let at = self.revision("none");
        let compacted = self.ok(&format!("--endpoints={ALL} compaction {at}"));
        assert_eq!(compacted, format!("compacted revision {at}\n"));
        let gone = run(&mut self.command(&format!("--endpoints={ALL} get {p}foo1 --rev={first}")));
        let error = String::from_utf8_lossy(&gone.stderr).into_owned();
        assert!(!gone.status.success() && error.contains("required revision has been compacted"));
        let again = run(&mut self.command(&format!("--endpoints={ALL} compaction {at}")));
        let error = String::from_utf8_lossy(&again.stderr).into_owned();
        assert!(!again.status.success() && error.contains("required revision has been compacted"));

        // A lease that runs out takes its key with it.
        let granted = self.ok(&format!("--endpoints={ALL} lease grant 2"));
        let id = granted.split_whitespace().nth(1).unwrap().to_owned();
        assert!(granted.contains("granted with TTL(2s)"), "{granted}");
        self.ok(&format!("--endpoints={ALL} put {p}leased here --lease={id}"));
        assert_eq!(
            self.ok(&format!("--endpoints={ALL} get {p}leased")),
            format!("{p}leased\nhere\n")
        );
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.ok(&format!("--endpoints={ALL} get {p}leased")).is_empty() {
            assert!(Instant::now() < deadline, "the lease does not expire");
            std::thread::sleep(Duration::from_millis(100));
        }
        let left = self.ok(&format!("--endpoints={ALL} lease timetolive {id}"));
        assert!(left.contains("already expired"), "{left}");
    }
}

#[test]
fn the_notebooks_script_and_commands_work_with_three_etcdctls() {
    let etcdctl = need!("notebook", reference("etcdctl"));
    let _session = Session::start();
    Ctl { program: etcdctl, first: Vec::new(), prefix: "a" }.session();
    match reference("etcdctl-3.4") {
        Ok(program) => Ctl { program, first: Vec::new(), prefix: "b" }.session(),
        Err(reason) => skip("notebook_3_4", &reason),
    }
    Ctl { program: quorate(), first: vec!["ctl"], prefix: "c" }.session();
    // Called by the name of etcdctl, it is that.
    let directory = tempfile::tempdir().unwrap();
    let link: &Path = &directory.path().join("etcdctl");
    std::os::unix::fs::symlink(quorate(), link).unwrap();
    Ctl { program: link.to_path_buf(), first: Vec::new(), prefix: "d" }.session();
}
