//! What a request does to the tree: a pure decision, made on what was read and proposed as one transaction.
//!
//! ```text
//!            ┌── Look: read these too ──┐
//!            ▼                          │
//!   read ─▶ Seen ─▶ decide ─┬───────────┘
//!    ▲                      ├─ Refused(error)
//!    │                      └─ Change ─▶ transaction: if nothing that was seen has changed, put and delete
//!    └────────── it has: again ──────────────┘
//! ```
//!
//! Every change puts the index, and every transaction compares the revision of the index: two changes that were
//! decided on the same state cannot both be done. The revisions of the nodes that were seen are compared as well, for
//! a v3 client may write them.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::{Compare, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};

use super::error::{Code, Error};
use super::event::{self, Action, Event};
use super::node::{self, DEPTH_MAX, Kind, Node, Path, Shown};
use super::request::KeyRequest;

/// Times before the year 2000 are no TTL where a node is created: clients have sent them for "never".
const EXPIRES_MIN: i64 = 946_684_800_000_000_000;

/// What is done to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read it.
    Get,
    /// Write it, whether it is there or not.
    Set,
    /// Write it if it is not there; `in_order` writes a child named by the index instead.
    Create {
        /// POST.
        in_order: bool,
    },
    /// Write it if it is there.
    Update,
    /// Write it if value and index are those given.
    CompareAndSwap,
    /// Delete it.
    Delete,
    /// Delete it if value and index are those given.
    CompareAndDelete,
    /// Delete it if it still expires then.
    Expire(i64),
}

impl Operation {
    /// What a request asks for.
    pub fn of(request: &KeyRequest) -> Operation {
        let compares = request.prev_index > 0 || !request.prev_value.is_empty();
        match (request.method.as_str(), request.prev_exist) {
            ("POST", _) => Operation::Create { in_order: true },
            ("PUT", Some(false)) => Operation::Create { in_order: false },
            ("PUT", _) if compares => Operation::CompareAndSwap,
            ("PUT", Some(true)) => Operation::Update,
            ("PUT", None) => Operation::Set,
            ("DELETE", _) if compares => Operation::CompareAndDelete,
            ("DELETE", _) => Operation::Delete,
            _ => Operation::Get,
        }
    }
}

/// What was read of the tree, all at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The v2 index.
    pub index: u64,
    /// The revision of its key; 0 if there is none yet.
    pub index_revision: i64,
    /// Nodes with the revisions of their keys; `None` where there is none. Never the root.
    pub nodes: BTreeMap<Path, Option<(Node, i64)>>,
    /// Whether directories have children.
    pub children: BTreeMap<Path, bool>,
}

/// What has to be read before more can be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// A node and all above it.
    Node(Path),
    /// Whether a directory has children.
    Children(Path),
}

/// What comes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Read this as well, and decide again.
    Look(Look),
    /// It cannot be done.
    Refused(Error),
    /// It is done by this, if nothing has changed since.
    Change(Box<Change>),
}

/// What a change does to the keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What is answered and told.
    pub event: Event,
    /// Nodes that are written: directories on the way, then the node.
    puts: Vec<(Path, Node)>,
    /// The node that is deleted, and whether all below it goes as well.
    delete: Option<(Path, bool)>,
    /// The time at which the node was to expire before.
    expired: Option<i64>,
}

/// Why a decision stops short of a change.
enum Stop {
    Look(Look),
    Refused(Error),
}

impl Seen {
    /// The node at a path, looked up part by part.
    fn node(&self, path: &Path) -> Result<Option<&Node>, Stop> {
        match self.nodes.get(path) {
            Some(seen) => Ok(seen.as_ref().map(|(node, _)| node)),
            None => Err(Stop::Look(Look::Node(path.clone()))),
        }
    }

    /// The node at a path; `None` is the root. The first part that is missing, or the file that something should
    /// lie in, is the error.
    fn find(&self, path: &Path) -> Result<Option<&Node>, Stop> {
        let mut found: Option<&Node> = None;
        for part in path.line() {
            if found.is_some_and(|parent| !parent.is_directory()) {
                return Err(self.refuse(Code::NotADirectory, part.parent().shown()));
            }
            match self.node(&part)? {
                Some(node) => found = Some(node),
                None => return Err(self.refuse(Code::KeyNotFound, part.shown())),
            }
        }
        Ok(found)
    }

    fn refuse(&self, code: Code, cause: impl Into<Bytes>) -> Stop {
        Stop::Refused(Error::new(code, cause, self.index))
    }

    fn root_is_read_only(&self) -> Stop {
        self.refuse(Code::RootReadOnly, &b"/"[..])
    }
}

/// Decides a request that changes something. `now_ns` is nanoseconds since 1970.
pub fn decide(operation: &Operation, request: &KeyRequest, seen: &Seen, now_ns: i64) -> Decision {
    let at = At { request, seen, now_ns };
    let decided = match operation {
        Operation::Get => Err(seen.refuse(Code::InvalidField, "a read changes nothing")),
        Operation::Set => at.set(),
        Operation::Create { in_order } => at.create(*in_order),
        Operation::Update => at.update(),
        Operation::CompareAndSwap => at.compare_and_swap(),
        Operation::Delete => at.delete(),
        Operation::CompareAndDelete => at.compare_and_delete(),
        Operation::Expire(expires) => at.expire(*expires),
    };
    match decided {
        Ok(change) => Decision::Change(Box::new(change)),
        Err(Stop::Look(look)) => Decision::Look(look),
        Err(Stop::Refused(error)) => Decision::Refused(error),
    }
}

/// Answers a read. `below` holds all nodes below the path.
pub fn get(
    request: &KeyRequest,
    seen: &Seen,
    below: &[(Path, Node)],
    now_ns: i64,
) -> Result<Event, Decision> {
    let path = &request.path;
    match seen.find(path) {
        Ok(found) => {
            let node = found.cloned().unwrap_or_else(root);
            let node = Shown::with_children(path, &node, below, request.recursive, now_ns);
            Ok(Event { action: Action::Get, refresh: false, node, previous: None })
        }
        Err(Stop::Look(look)) => Err(Decision::Look(look)),
        Err(Stop::Refused(error)) => Err(Decision::Refused(error)),
    }
}

fn root() -> Node {
    Node { kind: Kind::Directory, created: 0, modified: 0, expires: None }
}

/// A request, and what it meets.
struct At<'a> {
    request: &'a KeyRequest,
    seen: &'a Seen,
    now_ns: i64,
}

impl At<'_> {
    fn next(&self) -> u64 {
        self.seen.index + 1
    }

    fn shown(&self, path: &Path, node: &Node) -> Shown {
        Shown::of(path, node, self.now_ns)
    }

    fn set(&self) -> Result<Change, Stop> {
        let path = &self.request.path;
        let found = match self.seen.find(path) {
            Ok(found) => found,
            // A file on the way is an error of the look; a missing node is one only to a refresh.
            Err(Stop::Refused(error))
                if error.code == Code::KeyNotFound && !self.request.refresh =>
            {
                None
            }
            Err(stop) => return Err(stop),
        };
        let value = match (self.request.refresh, found) {
            (true, Some(node)) => Bytes::copy_from_slice(node.value()),
            (true, None) => Bytes::new(),
            (false, _) => self.request.value.clone(),
        };
        self.write_new(path, value, Action::Set, true)
    }

    fn create(&self, in_order: bool) -> Result<Change, Stop> {
        let path = match in_order {
            true => self.request.path.child(&format!("{:020}", self.next())),
            false => self.request.path.clone(),
        };
        self.write_new(&path, self.request.value.clone(), Action::Create, false)
    }

    /// Writes a node anew, with the directories on the way to it; over a file if it `replaces`.
    fn write_new(
        &self,
        path: &Path,
        value: Bytes,
        action: Action,
        replaces: bool,
    ) -> Result<Change, Stop> {
        if path.is_root() {
            return Err(self.seen.root_is_read_only());
        }
        if path.depth() > DEPTH_MAX {
            let cause = format!("a path of more than {DEPTH_MAX} parts");
            return Err(self.seen.refuse(Code::InvalidField, cause));
        }
        let next = self.next();
        let mut puts = Vec::new();
        for directory in path.parent().line() {
            match self.seen.node(&directory)? {
                Some(node) if node.is_directory() => {}
                Some(_) => return Err(self.seen.refuse(Code::NotADirectory, directory.shown())),
                None => puts.push((
                    directory,
                    Node { kind: Kind::Directory, created: next, modified: next, expires: None },
                )),
            }
        }
        let former = self.seen.node(path)?;
        match former {
            Some(_) if !replaces => return Err(self.seen.refuse(Code::KeyExists, path.shown())),
            Some(node) if node.is_directory() => {
                return Err(self.seen.refuse(Code::NotAFile, path.shown()));
            }
            _ => {}
        }
        let kind = if self.request.dir { Kind::Directory } else { Kind::File(value) };
        let expires = self.request.expires.filter(|expires| *expires >= EXPIRES_MIN);
        let node = Node { kind, created: next, modified: next, expires };
        let event = Event {
            action,
            refresh: self.request.refresh && replaces,
            node: self.shown(path, &node),
            previous: former.map(|former| self.shown(path, former)),
        };
        puts.push((path.clone(), node));
        let expired = former.and_then(|former| former.expires);
        Ok(Change { event, puts, delete: None, expired })
    }

    fn update(&self) -> Result<Change, Stop> {
        let path = &self.request.path;
        if path.is_root() {
            return Err(self.seen.root_is_read_only());
        }
        let Some(former) = self.seen.find(path)? else {
            return Err(self.seen.root_is_read_only());
        };
        if former.is_directory() && !self.request.value.is_empty() {
            return Err(self.seen.refuse(Code::NotAFile, path.shown()));
        }
        Ok(self.rewrite(former, Action::Update))
    }

    fn compare_and_swap(&self) -> Result<Change, Stop> {
        let path = &self.request.path;
        if path.is_root() {
            return Err(self.seen.root_is_read_only());
        }
        let former = self.compared()?;
        Ok(self.rewrite(former, Action::CompareAndSwap))
    }

    /// Writes a node that is there: it keeps its creation. Of a directory only the time changes, not even the index.
    fn rewrite(&self, former: &Node, action: Action) -> Change {
        let (path, next) = (&self.request.path, self.next());
        let kind = match (&former.kind, self.request.refresh) {
            (Kind::Directory, _) => Kind::Directory,
            (Kind::File(value), true) => Kind::File(value.clone()),
            (Kind::File(_), false) => Kind::File(self.request.value.clone()),
        };
        let modified = if former.is_directory() { former.modified } else { next };
        let node = Node { kind, created: former.created, modified, expires: self.request.expires };
        let event = Event {
            action,
            refresh: self.request.refresh,
            node: Shown { modified: next, ..self.shown(path, &node) },
            previous: Some(self.shown(path, former)),
        };
        let puts = vec![(path.clone(), node)];
        Change { event, puts, delete: None, expired: former.expires }
    }

    /// The file for which the request's compares hold.
    fn compared(&self) -> Result<&Node, Stop> {
        let (path, request) = (&self.request.path, self.request);
        let node = match self.seen.find(path)? {
            Some(node) if !node.is_directory() => node,
            _ => return Err(self.seen.refuse(Code::NotAFile, path.shown())),
        };
        let value_holds = request.prev_value.is_empty() || request.prev_value == node.value();
        let index_holds = request.prev_index == 0 || request.prev_index == node.modified;
        let value = || [b"[", &request.prev_value[..], b" != ", node.value(), b"]"].concat();
        let index = || format!("[{} != {}]", request.prev_index, node.modified).into_bytes();
        let cause = match (value_holds, index_holds) {
            (true, true) => return Ok(node),
            (true, false) => index(),
            (false, true) => value(),
            (false, false) => [value(), index()].join(&b' '),
        };
        Err(self.seen.refuse(Code::CompareFailed, cause))
    }

    fn delete(&self) -> Result<Change, Stop> {
        let (path, request) = (&self.request.path, self.request);
        let Some(former) = self.seen.find(path)? else {
            return Err(self.seen.root_is_read_only());
        };
        if former.is_directory() && !request.recursive {
            if !request.dir {
                return Err(self.seen.refuse(Code::NotAFile, path.shown()));
            }
            match self.seen.children.get(path) {
                None => return Err(Stop::Look(Look::Children(path.clone()))),
                Some(true) => {
                    return Err(self.seen.refuse(Code::DirectoryNotEmpty, path.shown()));
                }
                Some(false) => {}
            }
        }
        Ok(self.remove(former, Action::Delete))
    }

    fn compare_and_delete(&self) -> Result<Change, Stop> {
        let former = self.compared()?;
        Ok(self.remove(former, Action::CompareAndDelete))
    }

    fn expire(&self, expires: i64) -> Result<Change, Stop> {
        let path = &self.request.path;
        match self.seen.find(path)? {
            Some(node) if node.expires == Some(expires) => Ok(self.remove(node, Action::Expire)),
            _ => Err(self.seen.refuse(Code::KeyNotFound, path.shown())),
        }
    }

    /// Removes a node that may go, with all below it.
    fn remove(&self, former: &Node, action: Action) -> Change {
        let path = &self.request.path;
        let previous = self.shown(path, former);
        let node = Shown { value: None, expires: None, modified: self.next(), ..previous.clone() };
        let event = Event { action, refresh: false, node, previous: Some(previous) };
        let delete = Some((path.clone(), former.is_directory()));
        Change { event, puts: Vec::new(), delete, expired: former.expires }
    }
}

impl Change {
    /// The transaction that does it, if nothing that was seen has changed.
    pub fn transaction(&self, seen: &Seen) -> TxnRequest {
        let next = seen.index + 1;
        let mut ops = vec![
            put(node::INDEX.into(), next.to_string().into()),
            put(event::key(next), self.event.encode()),
        ];
        if next > event::HISTORY {
            ops.push(delete(event::key(next - event::HISTORY), Bytes::new()));
        }
        let mut noted = None;
        for (path, node) in &self.puts {
            ops.push(put(path.key(), node.encode()));
            if let Some(expires) = node.expires {
                noted = Some(path.expiry_key(expires));
                ops.push(put(path.expiry_key(expires), Bytes::new()));
            }
        }
        if let Some((path, with_children)) = &self.delete {
            ops.push(delete(path.key(), Bytes::new()));
            if *with_children {
                let (from, to) = path.below();
                ops.push(delete(from, to));
            }
        }
        if let Some(expired) = self.expired {
            let note = self.event.node.path.expiry_key(expired);
            if Some(&note) != noted.as_ref() {
                ops.push(delete(note, Bytes::new()));
            }
        }
        TxnRequest { compare: unchanged(seen), success: ops, failure: Vec::new() }
    }
}

/// The transaction that forgets a note of an expiry that concerns no node any more.
pub fn forget_note(note: Bytes, seen: &Seen) -> TxnRequest {
    TxnRequest {
        compare: unchanged(seen),
        success: vec![delete(note, Bytes::new())],
        failure: Vec::new(),
    }
}

/// That everything is as it was seen.
fn unchanged(seen: &Seen) -> Vec<Compare> {
    let index = (Bytes::from_static(node::INDEX.as_bytes()), seen.index_revision);
    let nodes = seen
        .nodes
        .iter()
        .map(|(path, found)| (path.key(), found.as_ref().map_or(0, |(_, revision)| *revision)));
    std::iter::once(index)
        .chain(nodes)
        .map(|(key, revision)| Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Mod as i32,
            key,
            range_end: Bytes::new(),
            target_union: Some(TargetUnion::ModRevision(revision)),
        })
        .collect()
}

fn put(key: Bytes, value: Bytes) -> RequestOp {
    let put = PutRequest { key, value, ..PutRequest::default() };
    RequestOp { request: Some(Op::RequestPut(put)) }
}

fn delete(key: Bytes, range_end: Bytes) -> RequestOp {
    let delete = DeleteRangeRequest { key, range_end, prev_kv: false };
    RequestOp { request: Some(Op::RequestDeleteRange(delete)) }
}
