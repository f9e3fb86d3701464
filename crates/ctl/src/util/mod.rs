//! `quorate util`: looks at a member's files, and never changes them.
//!
//! ```text
//!   wal        dump  status          ┐                 ┌ wal::dump, wal::status
//!   store      dump  status  get     ├─ one file each ─┤ store::inspect
//!   snapshot   status                ┘                 └ store::SnapshotReader
//!
//!   command    what an entry of the log asks for, as text and as JSON
//!   page       bytes beside what they mean
//! ```
//!
//! All files are opened for reading alone. A member that runs holds a lock; the log of such a member can be read all the
//! same, for nothing in it is ever rewritten, but its store cannot: files come and go there.
//!
//! Exit codes: 0 all is well, 1 something is damaged, missing or not what it should be (what was found is printed all the
//! same), 4 not built yet, 6 the system refused, 128 bad arguments.

mod command;
mod page;
mod snapshot;
mod store;
mod wal;

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use vfs::Vfs;

use crate::flags::{
    self, Command, Flag, Kind, Parsed, Verb, command, not_yet, number, on_off, text,
};
use crate::{API_VERSION, ETCDCTL_VERSION, Exit, Streams, go};

const FULL: Flag = on_off("full", "print keys and values whole, however long");

const WAL_DUMP: &str = "\
Prints the records of a write-ahead log: file, offset, kind, contents

DIR is the log's directory, or a member's data directory. Entries are shown with what they ask for. With --from or --to only
entries and snapshot records are shown, with --key, --prefix or --rev only entries. What is damaged is always shown, also a
torn end, as a crash leaves it: `quorate util wal status` tells one from the other.

A log holds requests, not what came of them. So it cannot be known from it alone which revision a change was given,
whether a transaction's compares held, whether anything was there to delete, nor whether an entry behind the last
state's commit index was ever committed. `quorate util store dump` tells the revisions. --rev finds the entries whose
request names a revision: compactions, compares, and reads within transactions.

A command of more than 4 MiB is shown as bytes.";

const WAL_STATUS: &str = "\
Says what a write-ahead log holds, as a start would find it

DIR is the log's directory, or a member's data directory. Whether the log reaches to the store beside it is not asked.";

const STORE_DUMP: &str = "\
Prints a store's segments, frames and records

DIR is the store's directory, or a member's data directory. With a filter only records are shown that pass it, and
what is damaged. --key and --prefix find records of the keyspace, --table those of the small tables (docs/format/tables.md):
1 leases, 2 members, 3 removed members, 4 cluster, 5 alarms, 6 conf state. --from and --to go by the index of the
entry: of a frame it is that of its last entry, all its records may be of earlier ones; in segments that were written whole
(odd numbers) only rows know it.";

const STORE_STATUS: &str = "\
Says what a store holds, and reads all of it to see whether it is sound

DIR is the store's directory, or a member's data directory. A record lives if somebody can still ask for it: of a key all
changes above the compaction mark, and the newest put at or below it; of a row of a small table the newest. A member that
runs may count a little more as alive: deletions that guard older records, and what its readers hold.";

const STORE_GET: &str = "\
Prints a key as of a revision, from the files alone

DIR is the store's directory, or a member's data directory. KEY is taken as it is; in double quotes (within those of the
shell) it may have escapes: '\"\\x00a\"'. The state is that of the last frame written: entries that only the log holds are
not in it.";

const SNAPSHOT_STATUS: &str = "\
Checks a snapshot and says what it is of

FILE is a snapshot as members of Quorate send it to each other (member/incoming). Printed are, as etcdutl does, its hash (the
checksum of all its records), revision, number of keys, size, and the cluster's version. A snapshot of etcd is recognised, and
cannot be read yet.";

/// All commands.
static ROOT: Command = Command {
    name: "quorate util",
    arguments: "",
    short: "Looks at a member's files, and never changes them.",
    verb: Verb::Group,
    flags: &[],
    shared_flags: &[Flag {
        name: "write-out",
        short: Some('w'),
        kind: Kind::Text,
        default: "simple",
        usage: "how to print: simple, json; dumps also hex, status of a snapshot also table",
    }],
    children: &[
        not_yet("completion", "Makes a completion script (not yet supported)"),
        not_yet(
            "defrag",
            "Gives space back (never needed by a store, not yet supported for etcd's)",
        ),
        command("help", "[command]", "Explains a command", Verb::Help, &[]),
        not_yet("hashkv", "Hashes the keys of a file (not yet supported)"),
        not_yet("migrate", "Changes the version of etcd's storage (not yet supported)"),
        Command {
            name: "snapshot",
            arguments: "",
            short: "Looks at snapshots",
            verb: Verb::Group,
            flags: &[],
            shared_flags: &[],
            children: &[
                not_yet("restore", "Makes a data directory of a snapshot (not yet supported)"),
                command("status", "FILE", SNAPSHOT_STATUS, Verb::SnapshotStatus, &[]),
            ],
        },
        Command {
            name: "store",
            arguments: "",
            short: "Looks at a member's state",
            verb: Verb::Group,
            flags: &[],
            shared_flags: &[],
            children: &[
                command(
                    "dump",
                    "DIR",
                    STORE_DUMP,
                    Verb::StoreDump,
                    &[
                        number("from", "from the entry of this index on"),
                        FULL,
                        text("key", "", "only this key"),
                        text("prefix", "", "only keys that begin so"),
                        number("rev", "only changes of this revision"),
                        number("table", "only rows of this table"),
                        number("to", "up to the entry of this index"),
                    ],
                ),
                command(
                    "get",
                    "DIR KEY",
                    STORE_GET,
                    Verb::StoreGet,
                    &[
                        FULL,
                        on_off("prefix", "all keys that begin with KEY"),
                        number("rev", "as of this revision (0: the newest)"),
                    ],
                ),
                command("status", "DIR", STORE_STATUS, Verb::StoreStatus, &[]),
            ],
        },
        command("version", "", "Prints the version", Verb::Version, &[]),
        Command {
            name: "wal",
            arguments: "",
            short: "Looks at a write-ahead log",
            verb: Verb::Group,
            flags: &[],
            shared_flags: &[],
            children: &[
                command(
                    "dump",
                    "DIR",
                    WAL_DUMP,
                    Verb::WalDump,
                    &[
                        number("from", "entries from this index on"),
                        FULL,
                        text("key", "", "entries whose request touches this key"),
                        text("kind", "", "only crc, metadata, state, entry, snapshot or unknown"),
                        text("prefix", "", "entries whose request touches keys that begin so"),
                        number("rev", "entries whose request names this revision"),
                        number("to", "entries up to this index"),
                    ],
                ),
                command("status", "DIR", WAL_STATUS, Verb::WalStatus, &[]),
            ],
        },
    ],
};

pub(crate) fn run(words: &[Vec<u8>], streams: &Streams) -> Result<(), Exit> {
    let parsed = flags::parse(&ROOT, words).map_err(|error| {
        let message = format!("{}\nRun 'quorate util help' for usage.", error.message);
        Exit::bad_arguments(message)
    })?;
    let verb = parsed.command().verb;
    if verb == Verb::NotYet {
        let path: Vec<_> = parsed.path[1..].iter().map(|command| command.name).collect();
        return Err(Exit::new(
            Exit::BAD_FEATURE,
            format!("{} is not yet supported", path.join(" ")),
        ));
    }
    if parsed.help || verb == Verb::Group {
        return streams.print(help(&parsed.path).as_bytes());
    }
    let vfs = vfs::os::Os;
    match verb {
        Verb::Help => {
            let path =
                flags::parse(&ROOT, &parsed.arguments).map_or(vec![&ROOT], |asked| asked.path);
            streams.print(help(&path).as_bytes())
        }
        Verb::Version => {
            let text = format!("etcdutl version: {ETCDCTL_VERSION}\nAPI version: {API_VERSION}\n");
            streams.print(text.as_bytes())
        }
        Verb::WalDump => wal::dump(&vfs, &parsed, streams),
        Verb::WalStatus => wal::status(&vfs, &parsed, streams),
        Verb::StoreDump => store::dump(&vfs, &parsed, streams),
        Verb::StoreStatus => store::status(&vfs, &parsed, streams),
        Verb::StoreGet => store::get(&vfs, &parsed, streams),
        Verb::SnapshotStatus => snapshot::status(&vfs, &parsed, streams),
        other => unreachable!("{other:?} is no command of this tool"),
    }
}

fn help(path: &[&'static Command]) -> String {
    let command = path.last().expect("a path begins with the root");
    let mut text = format!("{}\n\n{}", command.short, flags::usage(path));
    if path.len() > 1 {
        text.push_str("\nGlobal Flags:\n");
    } else {
        text.push_str("\nFlags:\n");
    }
    text.push_str(&flags::global_flags(&ROOT));
    text
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Simple,
    Json,
    Hex,
    Table,
}

/// The format that was asked for, if it is one of these.
fn format(parsed: &Parsed, known: &[Format]) -> Result<Format, Exit> {
    let name = parsed.text("write-out");
    let format = match name {
        "simple" => Some(Format::Simple),
        "json" => Some(Format::Json),
        "hex" => Some(Format::Hex),
        "table" => Some(Format::Table),
        _ => None,
    };
    format.filter(|format| known.contains(format)).ok_or_else(|| {
        Exit::new(Exit::BAD_FEATURE, format!("{name} not supported as output format"))
    })
}

/// The arguments, of which there must be so many.
fn arguments<const COUNT: usize>(parsed: &Parsed) -> Result<&[Vec<u8>; COUNT], Exit> {
    parsed.arguments.as_slice().try_into().map_err(|_| {
        let command = parsed.command();
        let names: Vec<_> = parsed.path[1..].iter().map(|command| command.name).collect();
        Exit::bad_arguments(format!("{} takes {}", names.join(" "), command.arguments))
    })
}

fn path(argument: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(argument))
}

/// An index or a number of a table: not negative; `None` if the flag was not given.
fn unsigned(parsed: &Parsed, name: &str) -> Result<Option<u64>, Exit> {
    if !parsed.is_set(name) {
        return Ok(None);
    }
    let value = parsed.int(name);
    let value = u64::try_from(value);
    value.map(Some).map_err(|_| Exit::bad_arguments(format!("--{name} must not be negative")))
}

/// Keys from one on to before another; `None`: to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    from: Vec<u8>,
    to: Option<Vec<u8>>,
}

impl Span {
    /// One key.
    fn key(key: &[u8]) -> Span {
        Span { from: key.to_vec(), to: Some([key, &[0]].concat()) }
    }

    /// All keys that begin so.
    fn prefix(prefix: &[u8]) -> Span {
        let mut to = prefix.to_vec();
        while to.last() == Some(&0xff) {
            to.pop();
        }
        if let Some(last) = to.last_mut() {
            *last += 1;
        }
        Span { from: prefix.to_vec(), to: Some(to).filter(|to| !to.is_empty()) }
    }

    /// As requests have it: no end is one key, an end of one zero byte is none.
    fn range(key: &[u8], end: &[u8]) -> Span {
        match end {
            [] => Span::key(key),
            [0] => Span { from: key.to_vec(), to: None },
            end => Span { from: key.to_vec(), to: Some(end.to_vec()) },
        }
    }

    fn meets(&self, other: &Span) -> bool {
        let before = |from: &Vec<u8>, to: &Option<Vec<u8>>| to.as_ref().is_none_or(|to| from < to);
        before(&self.from, &other.to) && before(&other.from, &self.to)
    }

    fn holds(&self, key: &[u8]) -> bool {
        key >= self.from.as_slice() && self.to.as_ref().is_none_or(|to| key < to.as_slice())
    }
}

/// What `--key` and `--prefix` ask for.
fn span(parsed: &Parsed) -> Result<Option<Span>, Exit> {
    match (parsed.is_set("key"), parsed.is_set("prefix")) {
        (false, false) => Ok(None),
        (true, false) => key_of(parsed.text("key").as_bytes()).map(|key| Some(Span::key(&key))),
        (false, true) => {
            key_of(parsed.text("prefix").as_bytes()).map(|key| Some(Span::prefix(&key)))
        }
        (true, true) => Err(Exit::bad_arguments("--key and --prefix exclude each other")),
    }
}

/// A key as it was typed: as it is, or a quoted string with escapes.
fn key_of(typed: &[u8]) -> Result<Vec<u8>, Exit> {
    if !typed.starts_with(b"\"") {
        return Ok(typed.to_vec());
    }
    match go::unquote(typed) {
        Some((key, [])) => Ok(key),
        _ => Err(Exit::bad_arguments(format!("{} is no quoted key", go::quote(typed)))),
    }
}

/// More bytes of a key or value are not shown unless it is asked for.
const SHOWN_BYTES_MAX: usize = 64;

/// Bytes as people read them: as they are if nothing in them can be mistaken, else quoted.
fn show(bytes: &[u8], full: bool) -> String {
    let shown = if full { bytes } else { &bytes[..bytes.len().min(SHOWN_BYTES_MAX)] };
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/_.:-@+%~".contains(byte);
    let text = match shown.iter().all(plain) && !shown.is_empty() {
        true => String::from_utf8_lossy(shown).into_owned(),
        false => go::quote(shown),
    };
    match bytes.len() - shown.len() {
        0 => text,
        _ => format!("{text}…({} bytes)", bytes.len()),
    }
}

/// Where something lies, and the member's directory in which its lock would be.
struct Found {
    dir: PathBuf,
    member: PathBuf,
}

/// The directory itself, or that of this name in a member's directory or data directory: the first that holds a name of
/// this kind.
fn find(
    vfs: &dyn Vfs,
    given: &Path,
    name: &str,
    what: &str,
    is_one: fn(&str) -> bool,
) -> Result<Found, Exit> {
    let member = given.join("member");
    let places = [
        Found { dir: given.to_owned(), member: given.join("..") },
        Found { dir: given.join(name), member: given.to_owned() },
        Found { dir: member.join(name), member },
    ];
    let mut refused = None;
    for place in places {
        match vfs.list(&place.dir) {
            Ok(names) if names.iter().any(|name| is_one(name)) => return Ok(place),
            Ok(_) => {}
            Err(error) => {
                refused.get_or_insert((place.dir, error));
            }
        }
    }
    match refused {
        // That the directory itself cannot be read is the news, not that it is none of a member's.
        Some((dir, error)) if dir == given => Err(failed(&dir, error)),
        _ => Err(Exit::error(format!(
            "{0} holds no {what}, nor do {0}/{name} and {0}/member/{name}",
            given.display()
        ))),
    }
}

/// Whether a member runs in `member`, and if not the lock that keeps one from starting. A copy may have no lock.
fn lock(vfs: &dyn Vfs, member: &Path) -> Result<Option<Box<dyn vfs::Lock>>, Running> {
    let path = member.join("LOCK");
    match vfs.lock_shared(&path) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Running::Yes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Running::Unknown(failed(&path, error))),
    }
}

/// Why no lock was taken.
enum Running {
    Yes,
    Unknown(Exit),
}

fn failed(path: &Path, error: io::Error) -> Exit {
    Exit::new(Exit::IO, format!("{}: {error}", path.display()))
}

/// Gathers lines: there may be millions.
struct Lines<'a> {
    streams: &'a Streams,
    text: String,
}

impl Lines<'_> {
    fn new(streams: &Streams) -> Lines<'_> {
        Lines { streams, text: String::new() }
    }

    fn push(&mut self, line: &str) -> Result<(), Exit> {
        self.text.push_str(line);
        self.text.push('\n');
        if self.text.len() >= 64 << 10 { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Exit> {
        self.streams.print(self.text.as_bytes())?;
        self.text.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_meet_as_ranges_of_requests_do() {
        let (a, ab) = (Span::key(b"a"), Span::prefix(b"ab"));
        assert!(!a.meets(&ab) && !ab.meets(&a));
        assert!(Span::range(b"a", b"b").meets(&ab) && Span::range(b"a", b"b").meets(&a));
        assert!(!Span::range(b"ac", b"b").meets(&ab) && !Span::range(b"a", b"ab").meets(&ab));
        assert!(Span::range(b"b", b"\0").meets(&Span::prefix(b"")));
        assert!(!Span::range(b"b", b"\0").meets(&a));
        assert!(Span::prefix(b"\xff").holds(b"\xff\xff") && !Span::prefix(b"\xff").holds(b"\xfe"));
    }

    #[test]
    fn bytes_are_shown_so_that_they_cannot_be_mistaken() {
        for (bytes, shown) in [
            (&b"/registry/pods"[..], "/registry/pods"),
            (b"", "\"\""),
            (b"two words", "\"two words\""),
            (b"a=b", "\"a=b\""),
            (b"\x00\xff", "\"\\x00\\xff\""),
        ] {
            assert_eq!(show(bytes, false), shown);
        }
        assert_eq!(show(&[b'x'; 100], false), format!("{}…(100 bytes)", "x".repeat(64)));
        assert_eq!(show(&[b'x'; 100], true), "x".repeat(100));
    }

    #[test]
    fn a_key_may_be_typed_with_escapes() {
        assert_eq!(key_of(b"a b"), Ok(b"a b".to_vec()));
        assert_eq!(key_of(br#""\x00a""#), Ok(b"\0a".to_vec()));
        assert!(key_of(br#""a"b"#).is_err() && key_of(b"\"").is_err());
    }
}
