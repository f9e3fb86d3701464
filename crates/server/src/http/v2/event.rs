//! What a request answers and a change tells: events, how they are kept, and who hears of them.
//!
//! ```text
//!   event  =  "set refresh key=2 node=41 previous=38\n" key node previous
//!   node   =  ("file" | "dir" | "gone") " created=7 modified=9 expires=1795388115256065749 ttl=5\n" value
//! ```
//!
//! The numbers are lengths in bytes. A record lies at its index ([`key`]); that of `index - 1000` goes when it comes.

use bytes::Bytes;

use super::go;
use super::node::{Path, Shown};

const EVENTS: &str = "/quorate/v2/events/";
/// How many events are kept for those who ask for the past.
pub const HISTORY: u64 = 1000;

/// Where the event of an index lies.
pub fn key(index: u64) -> Bytes {
    format!("{EVENTS}{index:020}").into()
}

/// Behind the last event there can be.
pub fn end() -> Bytes {
    "/quorate/v2/events0".into()
}

/// The index of the event that lies at `key`, if one does.
pub fn index_of(key: &[u8]) -> Option<u64> {
    let index = key.strip_prefix(EVENTS.as_bytes())?;
    (index.len() == 20).then(|| go::unsigned(index)).flatten()
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read; never kept.
    Get,
    /// Written, whether it was there or not.
    Set,
    /// Written where nothing was.
    Create,
    /// Written where something was.
    Update,
    /// Written because a compare held.
    CompareAndSwap,
    /// Deleted.
    Delete,
    /// Deleted because a compare held.
    CompareAndDelete,
    /// Deleted because its time was over.
    Expire,
}

impl Action {
    const ALL: [Action; 8] = [
        Action::Get,
        Action::Set,
        Action::Create,
        Action::Update,
        Action::CompareAndSwap,
        Action::Delete,
        Action::CompareAndDelete,
        Action::Expire,
    ];

    /// Its name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Action::Get => "get",
            Action::Set => "set",
            Action::Create => "create",
            Action::Update => "update",
            Action::CompareAndSwap => "compareAndSwap",
            Action::Delete => "delete",
            Action::CompareAndDelete => "compareAndDelete",
            Action::Expire => "expire",
        }
    }
}

/// A change, or an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What was done.
    pub action: Action,
    /// Nobody is told: the value did not change, only its time.
    pub refresh: bool,
    /// The node, as it is now. Of a change, `modified` is the change's index.
    pub node: Shown,
    /// The node as it was.
    pub previous: Option<Shown>,
}

impl Event {
    /// Whether something came to be that was not there.
    pub fn is_creation(&self) -> bool {
        self.action == Action::Create || self.action == Action::Set && self.previous.is_none()
    }

    /// The answer's body; without the nodes if the client does not want what it knows.
    pub fn to_json(&self, with_nodes: bool) -> String {
        let mut out = format!("{{\"action\":\"{}\"", self.action.name());
        if with_nodes {
            out.push_str(",\"node\":");
            self.node.write_json(&mut out);
            if let Some(previous) = &self.previous {
                out.push_str(",\"prevNode\":");
                previous.write_json(&mut out);
            }
        }
        out.push_str("}\n");
        out
    }

    /// The record of a change.
    pub fn encode(&self) -> Bytes {
        let path = self.node.path.as_bytes();
        let node = encode_shown(&self.node);
        let previous = self.previous.as_ref().map(encode_shown);
        let mut head = self.action.name().to_string();
        if self.refresh {
            head.push_str(" refresh");
        }
        head.push_str(&format!(" key={} node={}", path.len(), node.len()));
        if let Some(previous) = &previous {
            head.push_str(&format!(" previous={}", previous.len()));
        }
        head.push('\n');
        [head.as_bytes(), path, &node, previous.as_deref().unwrap_or_default()].concat().into()
    }

    /// Reads a record, if it is one.
    pub fn decode(record: &Bytes) -> Option<Event> {
        let end = record.iter().position(|byte| *byte == b'\n')?;
        let mut words = std::str::from_utf8(&record[..end]).ok()?.split(' ').peekable();
        let name = words.next()?;
        let action = Action::ALL.into_iter().find(|action| action.name() == name)?;
        let refresh = words.next_if_eq(&"refresh").is_some();
        let mut rest = record.slice(end + 1..);
        let mut part = |name: &str, word: &str| {
            let length = word.strip_prefix(name)?.strip_prefix('=')?.parse().ok()?;
            (length <= rest.len()).then(|| rest.split_to(length))
        };
        let path = part("key", words.next()?)?;
        let path = (path.len() > 1 && go::clean(&path) == path).then(|| Path::clean(&path))?;
        let node = decode_shown(&path, &part("node", words.next()?)?)?;
        let previous = match words.next() {
            None => None,
            Some(word) => Some(decode_shown(&path, &part("previous", word)?)?),
        };
        let whole = words.next().is_none() && rest.is_empty();
        whole.then_some(Event { action, refresh, node, previous })
    }

    /// Whether who asks for the past of `path` is told of this. Hidden keys are, here; and as in etcd a deleted
    /// directory concerns every path that its own text begins.
    pub fn is_past_of(&self, path: &Path, recursive: bool) -> bool {
        let (key, path) = (self.node.path.as_bytes(), path.as_bytes());
        let removed_directory = matches!(self.action, Action::Delete | Action::Expire)
            && self.previous.as_ref().is_some_and(|previous| previous.dir);
        !self.refresh
            && (key == path
                || recursive && is_below(key, path)
                || removed_directory && path.starts_with(key))
    }

    /// How often who waits for changes of `path` is told of this; `removed` says whether a node at that very path
    /// went with it. As in etcd, who waits for a node that is deleted itself is told twice.
    pub fn tells(&self, path: &Path, recursive: bool, removed: bool) -> usize {
        if self.refresh {
            return 0;
        }
        let (key, path) = (self.node.path.as_bytes(), path.as_bytes());
        let reaches = key == path || recursive && is_below(key, path) && !is_hidden(key, path);
        usize::from(removed) + usize::from(reaches)
    }
}

fn is_below(key: &[u8], directory: &[u8]) -> bool {
    match directory {
        b"/" => key.len() > 1,
        _ => key.strip_prefix(directory).is_some_and(|rest| rest.first() == Some(&b'/')),
    }
}

/// Whether a part of `key` below `directory` is hidden.
fn is_hidden(key: &[u8], directory: &[u8]) -> bool {
    let below = if directory == b"/" { key } else { &key[directory.len()..] };
    below.windows(2).any(|pair| pair == b"/_")
}

fn encode_shown(shown: &Shown) -> Vec<u8> {
    let kind = match (&shown.value, shown.dir) {
        (Some(_), _) => "file",
        (None, true) => "dir",
        (None, false) => "gone",
    };
    let mut record = format!("{kind} created={} modified={}", shown.created, shown.modified);
    if let Some((expires, ttl)) = shown.expires {
        record.push_str(&format!(" expires={expires} ttl={ttl}"));
    }
    record.push('\n');
    let mut record = record.into_bytes();
    record.extend_from_slice(shown.value.as_deref().unwrap_or_default());
    record
}

fn decode_shown(path: &Path, record: &Bytes) -> Option<Shown> {
    let end = record.iter().position(|byte| *byte == b'\n')?;
    let mut words = std::str::from_utf8(&record[..end]).ok()?.split(' ');
    let value = record.slice(end + 1..);
    let (value, dir) = match words.next()? {
        "file" => (Some(value), false),
        "dir" if value.is_empty() => (None, true),
        "gone" if value.is_empty() => (None, false),
        _ => return None,
    };
    let number = |name: &str, word: &str| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok();
    let created = number("created", words.next()?)?;
    let modified = number("modified", words.next()?)?;
    let expires = match words.next() {
        None => None,
        Some(word) => {
            let time = |name: &str, word: &str| word.strip_prefix(name)?.parse::<i64>().ok();
            Some((time("expires=", word)?, time("ttl=", words.next()?)?))
        }
    };
    let nodes = Vec::new();
    let path = path.clone();
    words.next().is_none().then_some(Shown { path, value, dir, expires, nodes, modified, created })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::v2::node::{Kind, Node};

    fn path(text: &str) -> Path {
        Path::clean(text.as_bytes())
    }

    fn event(action: Action, key: &str, dir: bool) -> Event {
        let kind = if dir { Kind::Directory } else { Kind::File("old\n".into()) };
        let node = Node { kind, created: 2, modified: 3, expires: Some(9_000_000_000) };
        let previous = Shown::of(&path(key), &node, 0);
        let node = Shown { value: None, expires: None, modified: 7, ..previous.clone() };
        Event { action, refresh: false, node, previous: Some(previous) }
    }

    #[test]
    fn records_are_read_as_they_were_written_and_strangers_are_not() {
        let delete = event(Action::Delete, "/a", false);
        let set = Event {
            action: Action::Set,
            refresh: true,
            node: Shown { value: Some("".into()), ..delete.node.clone() },
            previous: None,
        };
        for event in [delete, set, event(Action::Expire, "/d", true)] {
            let record = event.encode();
            assert_eq!(Event::decode(&record), Some(event));
            for cut in 0..record.len() {
                assert_eq!(Event::decode(&record.slice(..cut)), None, "cut at {cut}");
            }
        }
        for stranger in [
            "\n",
            "set key=2 node=1\n/ax",
            "lift key=2 node=26\n/agone created=1 modified=1\n",
            "set key=99999999999999999999 node=1\n",
            "set key=1 node=26\n/gone created=1 modified=1\n",
            "set key=2 node=26\n/agone created=1 modified=1\nmore",
        ] {
            assert_eq!(Event::decode(&Bytes::from(stranger)), None, "{stranger:?}");
        }
        assert_eq!(index_of(&key(42)), Some(42));
        assert_eq!(index_of(b"/quorate/v2/events/42"), None);
        assert!(key(u64::MAX) < end());
    }

    #[test]
    fn an_event_is_shown_as_etcd_shows_it() {
        let delete = event(Action::Delete, "/a", false);
        assert_eq!(
            delete.to_json(true),
            "{\"action\":\"delete\",\"node\":{\"key\":\"/a\",\"modifiedIndex\":7,\"createdIndex\":2},\
             \"prevNode\":{\"key\":\"/a\",\"value\":\"old\\n\",\"expiration\":\"1970-01-01T00:00:09Z\",\"ttl\":9,\
             \"modifiedIndex\":3,\"createdIndex\":2}}\n"
        );
        assert_eq!(delete.to_json(false), "{\"action\":\"delete\"}\n");
    }

    #[test]
    fn who_asks_for_the_past_is_told_by_these_rules() {
        let set = event(Action::Set, "/a/_h/x", false);
        for (watched, recursive, want) in [
            ("/a/_h/x", false, true),
            ("/a", false, false),
            ("/a", true, true),
            ("/", true, true),
            ("/a/_h/xy", true, false),
            ("/a/_", true, false),
        ] {
            assert_eq!(set.is_past_of(&path(watched), recursive), want, "{watched}");
        }
        let removed = event(Action::Delete, "/a", true);
        assert!(removed.is_past_of(&path("/a/b"), false));
        assert!(removed.is_past_of(&path("/ab"), false), "etcd compares the texts alone");
        assert!(!event(Action::Delete, "/a", false).is_past_of(&path("/a/b"), false));
        assert!(!Event { refresh: true, ..set }.is_past_of(&path("/a/_h/x"), false));
    }

    #[test]
    fn who_waits_is_told_by_those() {
        let set = event(Action::Set, "/a/_h/x", false);
        for (watched, recursive, want) in [
            ("/a/_h/x", false, 1),
            ("/a/_h", false, 0),
            ("/a/_h", true, 1),
            ("/a", true, 0),
            ("/", true, 0),
            ("/b", true, 0),
        ] {
            assert_eq!(set.tells(&path(watched), recursive, false), want, "{watched}");
        }
        let removed = event(Action::Delete, "/a", true);
        for (watched, recursive, gone, want) in [
            ("/a", false, true, 2),
            ("/a/b", false, true, 1),
            ("/a/none", true, false, 0),
            ("/", true, false, 1),
        ] {
            assert_eq!(removed.tells(&path(watched), recursive, gone), want, "{watched}");
        }
        assert_eq!(Event { refresh: true, ..set }.tells(&path("/a/_h/x"), true, false), 0);
    }
}
