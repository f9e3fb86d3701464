//! `quorate util` on the files of a small member: what it shows, that it changes nothing, and what it makes of bytes that
//! nobody wrote.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "these tests damage real files")]

mod hostile;
mod member;
mod pages;
mod snapshot;
mod store;
mod wal;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Said {
    /// The exit code.
    pub code: u8,
    /// To the standard output.
    pub out: String,
    /// To the standard error.
    pub err: String,
}

/// Runs `quorate util` with these words, of which `DIR` stands for the directory.
pub fn util(line: &str, dir: &Path) -> Said {
    let words: Vec<OsString> = line
        .split(' ')
        .map(|word| if word == "DIR" { dir.as_os_str().to_owned() } else { OsString::from(word) })
        .collect();
    run(words)
}

fn run(words: Vec<OsString>) -> Said {
    let (out, err) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let streams = ctl::Streams {
        input: Box::new(std::io::empty()),
        out: out.clone(),
        err: err.clone(),
        environment: Vec::new(),
        inherit: false,
    };
    let code = ctl::run_util(words, &streams);
    let text = |stream: &Mutex<Vec<u8>>| String::from_utf8(stream.lock().unwrap().clone()).unwrap();
    Said { code, out: text(&out), err: text(&err) }
}

/// What is said on a directory that is as it should be.
pub fn good(line: &str, dir: &Path) -> String {
    let said = util(line, dir);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{line}:\n{}", said.out);
    said.out
}

/// Everything below a directory: of each name its time of change, and its bytes if it is a file.
pub fn all(dir: &Path) -> BTreeMap<PathBuf, (SystemTime, Option<Vec<u8>>)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let modified = metadata.modified().unwrap();
        if metadata.is_dir() {
            pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            found.insert(path, (modified, None));
        } else {
            let bytes = metadata.is_file().then(|| std::fs::read(&path).unwrap());
            found.insert(path, (modified, bytes));
        }
    }
    found
}

/// Runs it and makes sure that no file has changed, nor come or gone.
pub fn unchanged<T>(dir: &Path, look: impl FnOnce() -> T) -> T {
    let before = all(dir);
    let seen = look();
    assert!(before == all(dir), "something has changed in {}", dir.display());
    seen
}

/// Every command that looks at a data directory.
pub const LOOKS: [&str; 11] = [
    "wal dump DIR",
    "wal dump DIR -w json",
    "wal dump DIR -w hex --full",
    "wal status DIR",
    "wal status DIR -w json",
    "store dump DIR",
    "store dump DIR -w json",
    "store dump DIR -w hex --full",
    "store status DIR",
    "store status DIR -w json",
    "store get DIR foo --rev 4",
];

#[test]
fn a_sound_member_is_shown_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    member::make(dir.path());
    for line in LOOKS {
        unchanged(dir.path(), || good(line, dir.path()));
        // The member's own directory, and the very ones, will do as well.
        let tool = line.split(' ').next().unwrap();
        for within in [PathBuf::from("member"), Path::new("member").join(tool)] {
            unchanged(dir.path(), || good(line, &dir.path().join(within)));
        }
    }
}

#[test]
fn a_running_members_store_is_left_alone_and_its_log_is_read() {
    let dir = tempfile::tempdir().unwrap();
    member::make(dir.path());
    let vfs = vfs::os::Os;
    let lock = vfs::Vfs::lock(&vfs, &dir.path().join("member/LOCK")).unwrap();
    for line in LOOKS {
        let said = unchanged(dir.path(), || util(line, dir.path()));
        if line.starts_with("wal") {
            assert_eq!(said.code, 0, "{line}: {}", said.err);
            assert!(said.err.contains("A member runs on this log"), "{}", said.err);
        } else {
            assert_eq!((said.code, said.out.as_str()), (1, ""), "{line}");
            assert!(
                said.err.contains("stop the member") && said.err.contains("copy"),
                "{}",
                said.err
            );
        }
    }
    // Whoever looks does not keep others from looking.
    drop(lock);
    let _other = vfs::Vfs::lock_shared(&vfs, &dir.path().join("member/LOCK")).unwrap();
    LOOKS.iter().for_each(|line| drop(good(line, dir.path())));
}

#[test]
fn commands_explain_themselves_and_refuse_what_they_do_not_know() {
    let nowhere = Path::new("/nowhere");
    for (line, says) in [
        ("help", "Looks at a member's files"),
        ("wal", "quorate util wal [command]"),
        ("wal dump --help", "cannot be known from it alone"),
        ("wal status -h", "quorate util wal status DIR [flags]"),
        ("store dump --help", "--table int"),
        ("store status --help", "compaction mark"),
        ("store get --help", "quorate util store get DIR KEY [flags]"),
        ("snapshot status --help", "as etcdutl does"),
        ("help store get", "from the files alone"),
        ("version", "etcdutl version: "),
    ] {
        let said = good(line, nowhere);
        assert!(said.contains(says), "{line}:\n{said}");
    }
    for (line, code, says) in [
        ("frob", 128, "unknown command \"frob\""),
        ("wal dump", 128, "wal dump takes DIR"),
        ("wal dump DIR DIR", 128, "wal dump takes DIR"),
        ("wal dump DIR --bogus", 128, "unknown flag: --bogus"),
        ("wal dump DIR --kind entries", 128, "none of crc, metadata"),
        ("wal dump DIR --from x", 128, "invalid argument"),
        ("wal dump DIR --from -1", 128, "must not be negative"),
        ("wal dump DIR --key a --prefix b", 128, "exclude each other"),
        ("wal dump DIR -w table", 4, "table not supported as output format"),
        ("wal status DIR -w hex", 4, "hex not supported as output format"),
        ("store get DIR", 128, "store get takes DIR KEY"),
        ("snapshot status", 128, "snapshot status takes FILE"),
        ("snapshot status DIR -w fields", 4, "fields not supported as output format"),
        ("snapshot restore x", 4, "snapshot restore is not yet supported"),
        ("defrag --data-dir x", 4, "defrag is not yet supported"),
        ("hashkv x", 4, "hashkv is not yet supported"),
        ("migrate --target-version 3.5", 4, "migrate is not yet supported"),
        ("completion bash", 4, "completion is not yet supported"),
        ("wal dump DIR", 6, "/nowhere: "),
        ("store status DIR", 6, "/nowhere: "),
        ("snapshot status DIR", 6, "/nowhere: "),
    ] {
        let said = util(line, nowhere);
        assert_eq!((said.code, said.out.as_str()), (code, ""), "{line}: {}", said.err);
        assert!(said.err.contains(says), "{line}: {}", said.err);
    }
}
