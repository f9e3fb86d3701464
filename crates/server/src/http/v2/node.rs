//! The nodes of the v2 tree, and where they lie in the keyspace.
//!
//! ```text
//!   /quorate/v2/index                      the v2 index, in decimal
//!   /quorate/v2/keys/a/b                   the node /a/b; the root has no record
//!   /quorate/v2/events/0…042               what change 42 did; the last thousand are kept
//!   /quorate/v2/expiry/0…01795388115…/a/b  /a/b expires at that nanosecond since 1970; sorted by time
//!
//!   node  =  "file created=7 modified=9 expires=1795388115256065749\n" value
//!         |  "dir created=7 modified=7\n"
//! ```
//!
//! A v3 client sees all of it, and may read it; what it writes there itself is its own risk: a record that is
//! none is answered as an error, never guessed at.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::go;

/// Everything of the v2 API lies under this prefix.
pub const PREFIX: &str = "/quorate/v2/";
/// The key of the index.
pub const INDEX: &str = "/quorate/v2/index";
const KEYS: &[u8] = b"/quorate/v2/keys";
const EXPIRY: &[u8] = b"/quorate/v2/expiry/";
/// Directories above a node, and it. A deeper path is refused: each level is read and compared for itself.
pub const DEPTH_MAX: usize = 256;

/// The path of a node: `/` or `/a/b`; clean, any bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(Bytes);

impl Path {
    /// The path that some text means.
    pub fn clean(text: &[u8]) -> Path {
        Path(go::clean(text).into())
    }

    /// The path whose node lies at `key`, if one does.
    pub fn of_key(key: &[u8]) -> Option<Path> {
        let path = key.strip_prefix(KEYS)?;
        (path.len() > 1 && go::clean(path) == path).then(|| Path(Bytes::copy_from_slice(path)))
    }

    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// Its text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As answers name it: the root has no name.
    pub fn shown(&self) -> Bytes {
        if self.is_root() { Bytes::new() } else { self.0.clone() }
    }

    /// The directory it lies in; the root's is the root.
    pub fn parent(&self) -> Path {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(at) if at > 0 => Path(self.0.slice(..at)),
            _ => Path(Bytes::from_static(b"/")),
        }
    }

    /// The child of that name, which has no slash.
    pub fn child(&self, name: &str) -> Path {
        let parent = if self.is_root() { &b""[..] } else { &self.0 };
        Path([parent, b"/", name.as_bytes()].concat().into())
    }

    /// How many parts it has.
    pub fn depth(&self) -> usize {
        if self.is_root() { 0 } else { self.0.iter().filter(|byte| **byte == b'/').count() }
    }

    /// All paths from below the root down to itself.
    pub fn line(&self) -> impl Iterator<Item = Path> {
        let ends = (1..self.0.len()).filter(|at| self.0[*at] == b'/').chain([self.0.len()]);
        ends.filter(|_| !self.is_root()).map(|end| Path(self.0.slice(..end)))
    }

    /// Whether its last part is hidden from listings.
    pub fn is_hidden(&self) -> bool {
        self.0
            .iter()
            .rposition(|byte| *byte == b'/')
            .is_some_and(|at| self.0[at + 1..].starts_with(b"_"))
    }

    /// Where its node lies. Not for the root.
    pub fn key(&self) -> Bytes {
        debug_assert!(!self.is_root(), "the root has no record");
        [KEYS, &self.0].concat().into()
    }

    /// Where everything below it lies: from, and up to.
    pub fn below(&self) -> (Bytes, Bytes) {
        let path = if self.is_root() { &b""[..] } else { &self.0 };
        ([KEYS, path, b"/"].concat().into(), [KEYS, path, b"0"].concat().into())
    }

    /// Where it is noted that it expires then.
    pub fn expiry_key(&self, expires: i64) -> Bytes {
        let mut key = expiry_prefix(expires);
        key.extend_from_slice(&self.0);
        key.into()
    }

    /// What [`Path::expiry_key`] says, if the key is such a note: the time is at least that of the key, for times
    /// before 1970 stand at zero.
    pub fn of_expiry_key(key: &[u8]) -> Option<(Path, i64)> {
        let note = key.strip_prefix(EXPIRY)?;
        let (time, path) = note.split_at_checked(20)?;
        let time = go::unsigned(time).and_then(|time| i64::try_from(time).ok())?;
        (path.len() > 1 && go::clean(path) == path)
            .then(|| (Path(Bytes::copy_from_slice(path)), time))
    }
}

fn expiry_prefix(expires: i64) -> Vec<u8> {
    [EXPIRY, format!("{:020}", expires.max(0)).as_bytes()].concat()
}

/// Where the notes of all that has expired at `now_ns` lie: from, and up to.
pub fn expired_notes(now_ns: i64) -> (Bytes, Bytes) {
    (Bytes::from_static(EXPIRY), expiry_prefix(now_ns.saturating_add(1)).into())
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It has a value.
    File(Bytes),
    /// It has children.
    Directory,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// File or directory.
    pub kind: Kind,
    /// The index at which it was created.
    pub created: u64,
    /// The index at which it was last changed.
    pub modified: u64,
    /// When it expires: nanoseconds since 1970.
    pub expires: Option<i64>,
}

impl Node {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }

    /// Its value; a directory's is empty.
    pub fn value(&self) -> &[u8] {
        match &self.kind {
            Kind::File(value) => value,
            Kind::Directory => &[],
        }
    }

    /// The record.
    pub fn encode(&self) -> Bytes {
        let kind = if self.is_directory() { "dir" } else { "file" };
        let mut record = format!("{kind} created={} modified={}", self.created, self.modified);
        if let Some(expires) = self.expires {
            record.push_str(&format!(" expires={expires}"));
        }
        record.push('\n');
        [record.as_bytes(), self.value()].concat().into()
    }

    /// Reads a record, if it is one.
    pub fn decode(record: &Bytes) -> Option<Node> {
        let end = record.iter().position(|byte| *byte == b'\n')?;
        let mut words = std::str::from_utf8(&record[..end]).ok()?.split(' ');
        let value = record.slice(end + 1..);
        let kind = match words.next()? {
            "file" => Kind::File(value),
            "dir" if value.is_empty() => Kind::Directory,
            _ => return None,
        };
        let created = words.next()?.strip_prefix("created=")?.parse().ok()?;
        let modified = words.next()?.strip_prefix("modified=")?.parse().ok()?;
        let expires = match words.next() {
            None => None,
            Some(word) => Some(word.strip_prefix("expires=")?.parse().ok()?),
        };
        words.next().is_none().then_some(Node { kind, created, modified, expires })
    }
}

/// A node as answers show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Which.
    pub path: Path,
    /// A file's value; none in what is left of a node that was deleted.
    pub value: Option<Bytes>,
    /// Whether it is a directory.
    pub dir: bool,
    /// When it expires, and in how many seconds, as of the answer.
    pub expires: Option<(i64, i64)>,
    /// The children that are shown.
    pub nodes: Vec<Shown>,
    /// The index of the last change.
    pub modified: u64,
    /// The index of its creation.
    pub created: u64,
}

impl Shown {
    /// A node without its children.
    pub fn of(path: &Path, node: &Node, now_ns: i64) -> Shown {
        let value = match &node.kind {
            Kind::File(value) => Some(value.clone()),
            Kind::Directory => None,
        };
        Shown {
            path: path.clone(),
            value,
            dir: node.is_directory(),
            expires: node.expires.map(|expires| (expires, seconds_left(expires, now_ns))),
            nodes: Vec::new(),
            modified: node.modified,
            created: node.created,
        }
    }

    /// A node with its children, hidden ones left out, sorted by their paths. `below` holds all nodes below it.
    pub fn with_children(
        path: &Path,
        node: &Node,
        below: &[(Path, Node)],
        recursive: bool,
        now_ns: i64,
    ) -> Shown {
        let mut children: BTreeMap<Path, Vec<&(Path, Node)>> = BTreeMap::new();
        for entry in below.iter().filter(|(path, _)| !path.is_hidden()) {
            children.entry(entry.0.parent()).or_default().push(entry);
        }
        fill(Shown::of(path, node, now_ns), &children, recursive, true, now_ns)
    }

    /// Writes it as etcd does: empty fields are left out, but for an empty value.
    pub fn write_json(&self, out: &mut String) {
        let mut separator = '{';
        let mut field = |name: &str, out: &mut String| {
            out.push(std::mem::replace(&mut separator, ','));
            out.push('"');
            out.push_str(name);
            out.push_str("\":");
        };
        if !self.path.is_root() {
            field("key", out);
            go::write_json_string(self.path.as_bytes(), out);
        }
        if let Some(value) = &self.value {
            field("value", out);
            go::write_json_string(value, out);
        }
        if self.dir {
            field("dir", out);
            out.push_str("true");
        }
        if let Some((expires, ttl)) = self.expires {
            field("expiration", out);
            out.push_str(&format!("\"{}\"", go::time(expires)));
            if ttl != 0 {
                field("ttl", out);
                out.push_str(&ttl.to_string());
            }
        }
        if !self.nodes.is_empty() {
            field("nodes", out);
            for (number, node) in self.nodes.iter().enumerate() {
                out.push(if number == 0 { '[' } else { ',' });
                node.write_json(out);
            }
            out.push(']');
        }
        for (name, index) in [("modifiedIndex", self.modified), ("createdIndex", self.created)] {
            if index != 0 {
                field(name, out);
                out.push_str(&index.to_string());
            }
        }
        if separator == '{' {
            out.push('{');
        }
        out.push('}');
    }
}

/// Hangs the children on a directory; below the first level only if `recursive`. The depth is that of paths.
fn fill(
    mut shown: Shown,
    children: &BTreeMap<Path, Vec<&(Path, Node)>>,
    recursive: bool,
    first: bool,
    now_ns: i64,
) -> Shown {
    if shown.dir && (first || recursive) {
        let entries = children.get(&shown.path).map_or(&[][..], Vec::as_slice);
        shown.nodes = entries
            .iter()
            .map(|(path, node)| {
                fill(Shown::of(path, node, now_ns), children, recursive, false, now_ns)
            })
            .collect();
    }
    shown
}

/// The whole seconds that are left, rounded up as etcd does it; negative for what should be gone.
fn seconds_left(expires: i64, now_ns: i64) -> i64 {
    const SECOND: i64 = 1_000_000_000;
    let left = expires.saturating_sub(now_ns);
    left / SECOND + i64::from(left % SECOND > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        Path::clean(text.as_bytes())
    }

    fn file(value: &'static str, index: u64) -> Node {
        Node { kind: Kind::File(value.into()), created: index, modified: index, expires: None }
    }

    #[test]
    fn paths_know_their_place() {
        let (root, deep) = (path("//"), path("/a//b/_c/"));
        assert_eq!((root.is_root(), root.depth(), root.parent()), (true, 0, root.clone()));
        assert_eq!(deep.as_bytes(), b"/a/b/_c");
        assert_eq!((deep.depth(), deep.is_hidden(), path("/_a/b").is_hidden()), (3, true, false));
        let line: Vec<Path> = deep.line().collect();
        assert_eq!(line, [path("/a"), path("/a/b"), path("/a/b/_c")]);
        assert_eq!(root.line().count(), 0);
        assert_eq!((deep.parent(), path("/a").parent()), (path("/a/b"), root.clone()));
        assert_eq!((root.child("x"), path("/a").child("x")), (path("/x"), path("/a/x")));
        assert_eq!(deep.key(), "/quorate/v2/keys/a/b/_c");
        assert_eq!(Path::of_key(&deep.key()), Some(deep));
        assert_eq!(
            path("/a").below(),
            ("/quorate/v2/keys/a/".into(), "/quorate/v2/keys/a0".into())
        );
        assert_eq!(root.below().0, "/quorate/v2/keys/");
        for stranger in [
            "/quorate/v2/keys",
            "/quorate/v2/keys/",
            "/quorate/v2/keysx",
            "/quorate/v2/keys/a//b",
            "x",
        ] {
            assert_eq!(Path::of_key(stranger.as_bytes()), None, "{stranger}");
        }
    }

    #[test]
    fn notes_of_expiry_are_sorted_by_time() {
        let note = path("/a").expiry_key(1_795_388_115_256_065_749);
        assert_eq!(note, "/quorate/v2/expiry/01795388115256065749/a");
        assert_eq!(Path::of_expiry_key(&note), Some((path("/a"), 1_795_388_115_256_065_749)));
        let (from, to) = expired_notes(1_795_388_115_256_065_749);
        assert!(from < note && note < to);
        assert!(expired_notes(1_795_388_115_256_065_748).1 < note);
        assert!(path("/a").expiry_key(-5) < expired_notes(0).1);
        for stranger in ["/quorate/v2/expiry/1/a", "/quorate/v2/expiry/00000000000000000001", "y"] {
            assert_eq!(Path::of_expiry_key(stranger.as_bytes()), None, "{stranger}");
        }
    }

    #[test]
    fn records_are_read_as_they_were_written_and_strangers_are_not() {
        for node in [
            file("", 3),
            file("two\nlines", 4),
            Node { expires: Some(-5), ..file("\u{fffd}", 9) },
            Node { kind: Kind::Directory, created: 1, modified: 2, expires: Some(7) },
        ] {
            assert_eq!(Node::decode(&node.encode()), Some(node));
        }
        for stranger in [
            "",
            "file created=1 modified=1",
            "file created=1\n",
            "file created=1 modified=x\n",
            "file created=-1 modified=1\n",
            "file created=1 modified=1 expires=\n",
            "file created=1 modified=1 expires=1 more\n",
            "dir created=1 modified=1\nvalue",
            "link created=1 modified=1\n",
            "file  created=1 modified=1\n",
        ] {
            assert_eq!(Node::decode(&Bytes::from(stranger)), None, "{stranger:?}");
        }
    }

    #[test]
    fn a_directory_is_shown_with_what_is_not_hidden() {
        let dir = |index| Node { kind: Kind::Directory, ..file("", index) };
        let below = [
            (path("/a"), dir(1)),
            (path("/a-b"), file("1", 2)),
            (path("/a/_h"), dir(3)),
            (path("/a/_h/x"), file("2", 3)),
            (path("/a/c"), dir(4)),
            (path("/a/c/d"), Node { expires: Some(3_100_000_000), ..file("3", 5) }),
        ];
        let root = Node { kind: Kind::Directory, created: 0, modified: 0, expires: None };
        let json = |recursive| {
            let mut out = String::new();
            Shown::with_children(&path("/"), &root, &below, recursive, 1_000_000_000)
                .write_json(&mut out);
            out
        };
        assert_eq!(
            json(false),
            "{\"dir\":true,\"nodes\":[{\"key\":\"/a\",\"dir\":true,\"modifiedIndex\":1,\"createdIndex\":1},\
             {\"key\":\"/a-b\",\"value\":\"1\",\"modifiedIndex\":2,\"createdIndex\":2}]}"
        );
        assert_eq!(
            json(true),
            "{\"dir\":true,\"nodes\":[{\"key\":\"/a\",\"dir\":true,\"nodes\":[{\"key\":\"/a/c\",\"dir\":true,\
             \"nodes\":[{\"key\":\"/a/c/d\",\"value\":\"3\",\"expiration\":\"1970-01-01T00:00:03.1Z\",\"ttl\":3,\
             \"modifiedIndex\":5,\"createdIndex\":5}],\"modifiedIndex\":4,\"createdIndex\":4}],\
             \"modifiedIndex\":1,\"createdIndex\":1},\
             {\"key\":\"/a-b\",\"value\":\"1\",\"modifiedIndex\":2,\"createdIndex\":2}]}"
        );
    }

    #[test]
    fn seconds_left_are_rounded_up_but_never_away() {
        for (expires, now, want) in [
            (3_000_000_000, 0, 3),
            (3_000_000_001, 0, 4),
            (1, 0, 1),
            (0, 0, 0),
            (0, 1, 0),
            (0, 1_000_000_000, -1),
            (i64::MIN, i64::MAX, -9_223_372_036),
        ] {
            assert_eq!(seconds_left(expires, now), want);
        }
    }
}
