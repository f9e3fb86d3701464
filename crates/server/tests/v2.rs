//! Scenarios of the v2 API's decisions: each file of `tests/v2` is one, named by the sentence that it shows.
//!
//! ```text
//! METHOD PATH [name=value]…   a request; shows the status and the answer, or the error
//! at SECONDS                  the time is now so many seconds after 2020 began
//! expire                      what a leader does now and then
//! dump                        all keys and values
//! race METHOD PATH […]        a request that is decided, and overtaken before its transaction comes
//! ```
//!
//! The keyspace is a map, and a transaction is done on it as v3 does it. `UPDATE_GOLDENFILES=1` writes what comes out.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::fmt::Write as _;

use bytes::Bytes;
use goldenscript::Command;
use http::Method;
use proto::etcdserverpb::TxnRequest;
use proto::etcdserverpb::compare::TargetUnion;
use proto::etcdserverpb::request_op::Request as Op;
use server::http::v2::error::Error;
use server::http::v2::event::Event;
use server::http::v2::go::Form;
use server::http::v2::node::{self, Node, Path};
use server::http::v2::operation::{self, Decision, Look, Operation, Seen};
use server::http::v2::request::KeyRequest;

const SECOND: i64 = 1_000_000_000;
const BEGIN: i64 = 1_577_836_800 * SECOND;

#[test]
fn scripts() {
    let mut names: Vec<_> =
        std::fs::read_dir("tests/v2").unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(!names.is_empty());
    for path in names {
        eprintln!("{}", path.display());
        goldenscript::run(&mut Script { now: BEGIN, ..Script::default() }, path).unwrap();
    }
}

#[derive(Default)]
struct Script {
    now: i64,
    revision: i64,
    keys: BTreeMap<Bytes, (Bytes, i64)>,
}

impl goldenscript::Runner for Script {
    fn run(&mut self, command: &Command) -> Result<String, Box<dyn StdError>> {
        let words: Vec<String> = command
            .args
            .iter()
            .map(|argument| match &argument.key {
                Some(key) => format!("{key}={}", argument.value),
                None => argument.value.clone(),
            })
            .collect();
        match command.name.as_str() {
            "at" => {
                self.now = BEGIN + words[0].parse::<i64>()? * SECOND;
                Ok(String::new())
            }
            "expire" => Ok(self.expire()),
            "dump" => Ok(self.dump()),
            "race" => {
                let request = self.request(&words[0], &words[1..])?;
                let seen = self.settle(&request)?;
                let Decision::Change(change) =
                    operation::decide(&Operation::of(&request), &request, &seen, self.now)
                else {
                    return Err("it is refused, so nothing can overtake it".into());
                };
                let winner = self.request("PUT", &["/winner".into(), "value=1".into()])?;
                self.answer(&winner);
                let done = self.transact(&change.transaction(&seen));
                Ok(format!("done at once: {done}\n{}", self.answer(&request)))
            }
            method => {
                let request = self.request(method, &words);
                Ok(match request {
                    Ok(request) => self.answer(&request),
                    Err(error) => show_error(&error),
                })
            }
        }
    }
}

fn show_error(error: &Error) -> String {
    format!("{} {}", error.status().as_u16(), error.to_json())
}

fn show_event(event: &Event) -> String {
    format!("{} {}", if event.is_creation() { 201 } else { 200 }, event.to_json(true))
}

impl Script {
    fn request(&self, method: &str, words: &[String]) -> Result<KeyRequest, Error> {
        let form = Form::parse(words[1..].join("&").as_bytes(), None);
        let method: Method = method.parse().unwrap();
        KeyRequest::read(&method, Path::clean(words[0].as_bytes()), form, self.now)
    }

    /// What the server does: read, decide, read more, and do it.
    fn answer(&mut self, request: &KeyRequest) -> String {
        let operation = Operation::of(request);
        if operation == Operation::Get {
            let seen = self.read(&request.path.line().collect(), &BTreeSet::new());
            return match operation::get(request, &seen, &self.below(&request.path), self.now) {
                Ok(event) => show_event(&event),
                Err(Decision::Refused(error)) => show_error(&error),
                Err(other) => panic!("{other:?}"),
            };
        }
        let seen = match self.settle(request) {
            Ok(seen) => seen,
            Err(error) => return show_error(&error),
        };
        match operation::decide(&operation, request, &seen, self.now) {
            Decision::Change(change) => {
                assert!(self.transact(&change.transaction(&seen)), "nobody is in the way");
                show_event(&change.event)
            }
            other => panic!("{other:?} after it was settled"),
        }
    }

    /// Reads until a request can be decided; the refusal if that is the decision.
    fn settle(&self, request: &KeyRequest) -> Result<Seen, Error> {
        let mut nodes: BTreeSet<Path> = request.path.line().collect();
        let mut children = BTreeSet::new();
        loop {
            let seen = self.read(&nodes, &children);
            match operation::decide(&Operation::of(request), request, &seen, self.now) {
                Decision::Look(Look::Node(path)) => {
                    assert!(!path.line().all(|path| nodes.contains(&path)), "it was read");
                    nodes.extend(path.line());
                }
                Decision::Look(Look::Children(path)) => {
                    assert!(children.insert(path), "it was read")
                }
                Decision::Refused(error) => return Err(error),
                Decision::Change(_) => return Ok(seen),
            }
        }
    }

    fn read(&self, nodes: &BTreeSet<Path>, children: &BTreeSet<Path>) -> Seen {
        let index = self.keys.get(node::INDEX.as_bytes());
        let number = |value: &Bytes| std::str::from_utf8(value).unwrap().parse().unwrap();
        Seen {
            index: index.map_or(0, |(value, _)| number(value)),
            index_revision: index.map_or(0, |(_, revision)| *revision),
            nodes: nodes
                .iter()
                .map(|path| {
                    let found = self.keys.get(&path.key());
                    let found = found.map(|(v, revision)| (Node::decode(v).unwrap(), *revision));
                    (path.clone(), found)
                })
                .collect(),
            children: children
                .iter()
                .map(|path| (path.clone(), !self.below(path).is_empty()))
                .collect(),
        }
    }

    fn below(&self, path: &Path) -> Vec<(Path, Node)> {
        let (from, to) = path.below();
        self.keys
            .range(from..to)
            .map(|(key, (value, _))| (Path::of_key(key).unwrap(), Node::decode(value).unwrap()))
            .collect()
    }

    /// A transaction as v3 does it: all compares hold and all is done, or nothing.
    fn transact(&mut self, request: &TxnRequest) -> bool {
        let holds = request.compare.iter().all(|compare| {
            let Some(TargetUnion::ModRevision(wanted)) = compare.target_union else { panic!() };
            self.keys.get(&compare.key).map_or(0, |(_, revision)| *revision) == wanted
        });
        if !holds {
            return false;
        }
        self.revision += 1;
        let mut written = BTreeSet::new();
        for op in &request.success {
            match op.request.as_ref().unwrap() {
                Op::RequestPut(put) => {
                    assert!(written.insert(put.key.clone()), "a key is written twice");
                    self.keys.insert(put.key.clone(), (put.value.clone(), self.revision));
                }
                Op::RequestDeleteRange(delete) if delete.range_end.is_empty() => {
                    assert!(written.insert(delete.key.clone()), "a key is written twice");
                    self.keys.remove(&delete.key);
                }
                Op::RequestDeleteRange(delete) => {
                    let range = delete.key.clone()..delete.range_end.clone();
                    assert!(
                        !written.iter().any(|key| range.contains(key)),
                        "a key is written twice"
                    );
                    self.keys.retain(|key, _| !range.contains(key));
                }
                other => panic!("{other:?}"),
            }
        }
        true
    }

    fn expire(&mut self) -> String {
        let (from, to) = node::expired_notes(self.now);
        let notes: Vec<Bytes> = self.keys.range(from..to).map(|(key, _)| key.clone()).collect();
        let mut out = String::new();
        for note in notes {
            let (path, _) = Path::of_expiry_key(&note).unwrap();
            let seen = self.read(&path.line().collect(), &BTreeSet::new());
            let expires = match &seen.nodes[&path] {
                Some((node, _)) => node.expires.filter(|at| path.expiry_key(*at) == note),
                None => None,
            };
            let request = KeyRequest::of_path(path);
            let decision = expires
                .map(|at| operation::decide(&Operation::Expire(at), &request, &seen, self.now));
            match decision {
                Some(Decision::Change(change)) => {
                    assert!(self.transact(&change.transaction(&seen)));
                    out.push_str(&show_event(&change.event));
                }
                None => {
                    assert!(self.transact(&operation::forget_note(note.clone(), &seen)));
                    writeln!(out, "forgotten: {}", String::from_utf8_lossy(&note)).unwrap();
                }
                Some(other) => panic!("{other:?}"),
            }
        }
        out
    }

    fn dump(&self) -> String {
        let mut out = String::new();
        for (key, (value, revision)) in &self.keys {
            let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
            writeln!(out, "{key} @{revision} {value:?}").unwrap();
        }
        out
    }
}
