//! Linearizability by witness: the answers themselves name the order, by their revisions; it is checked, not searched.
//!
//! Every write that changes something makes the next revision, and every answer says at which revision it was given.
//! So the order is known, and three things remain:
//!
//! 1. *Every revision is somebody's.* What was acknowledged at a revision is what the log did there. What else the log
//!    did was asked for by one operation of unknown outcome, and by none that was refused. Nothing is done twice.
//! 2. *Every answer is right.* The log is replayed once in a model of the store; each answer is, in all its fields, what
//!    the model says at its revision.
//! 3. *The order keeps the time.* An operation that is called after others have returned has a revision not below
//!    theirs; above theirs, if it makes one. The greatest revision that had returned before a call is looked up.
//!
//! ```text
//!   time       ──────────────────────────────────────────────▶
//!   put x=1    ├─ revision 2 ─┤
//!   get x                        ├─ revision 1 ─┤     refused: 2 had returned before
//! ```
//!
//! That is n log n, and complete: if it finds nothing, the order of the revisions is a linearization. What has no place in
//! it is checked beside it: a compaction by the mark that it moves, and leases by their entries in the log.
//!
//! The log is what the members applied, from its first entry. Without it, it is put together from what the clients were
//! told; where that leaves open who made a revision, the verdict is open too.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::response_op::Response as OpAnswer;
use proto::etcdserverpb::{InternalRaftRequest, PutRequest, TxnRequest, TxnResponse};
use proto::mvccpb::KeyValue;

use super::{Answer, Operation, Outcome, Request, ops};
use crate::model::{COMPACTED, FUTURE, Model};

/// What the members applied.
#[derive(Clone, Copy, Debug)]
pub struct Log<'l> {
    /// The data of the entries, each an encoded `InternalRaftRequest` or nothing, from the first one on.
    pub entries: &'l [Bytes],
    /// The shortest lease that is granted, in seconds.
    pub lease_ttl_min: i64,
}

impl Log<'_> {
    /// The store after all of it.
    ///
    /// # Errors
    /// An entry that cannot be read.
    pub fn model(&self) -> Result<Model, String> {
        let mut model = Model::new(self.lease_ttl_min);
        for request in self.requests() {
            model.take(Some(request?));
        }
        Ok(model)
    }

    fn requests(&self) -> impl Iterator<Item = Result<InternalRaftRequest, String>> {
        self.entries.iter().enumerate().map(|(place, data)| {
            InternalRaftRequest::decode(data.clone())
                .map_err(|why| format!("entry {} of the log is unreadable: {why}", place + 1))
        })
    }
}

/// What the witness says of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is linearizable, and every answer is right.
    Kept,
    /// It is not: why, in a sentence.
    Broken(String),
    /// Nobody can tell who made some revision.
    Open(String),
}

/// Judges a history, with the log of the members or without.
pub fn check(history: &[Operation], log: Option<Log<'_>>) -> Verdict {
    match judge(history, log) {
        Ok(()) => Verdict::Kept,
        Err(verdict) => verdict,
    }
}

fn broken<T>(what: String) -> Result<T, Verdict> {
    Err(Verdict::Broken(what))
}

fn judge(history: &[Operation], log: Option<Log<'_>>) -> Result<(), Verdict> {
    for (place, operation) in history.iter().enumerate() {
        if let Outcome::Answered { at, .. } | Outcome::Refused { at, .. } = operation.outcome
            && at < operation.call
        {
            return broken(format!("{} was answered before it was asked", name(history, place)));
        }
    }
    let seen = Seen::of(history.iter().filter_map(|operation| {
        let Outcome::Answered { at, answer } = &operation.outcome else { return None };
        Some((*at, answer.revision()))
    }));
    let mut replay = match log {
        Some(log) => Replay::of(log)?,
        None => Replay::gathered(history, &seen)?,
    };
    replay.give_to_answered(history)?;
    replay.give_to_unknown(history, &seen)?;
    if replay.is_whole {
        replay.give_to_refused(history)?;
    }
    replay.check_time(history, &seen)?;
    check_answers(history, &replay.model)?;
    check_marks(history, &seen)
}

/// The greatest number that had returned by each time.
struct Seen(Vec<(u64, i64)>);

impl Seen {
    fn of(returns: impl Iterator<Item = (u64, i64)>) -> Seen {
        let mut seen: Vec<(u64, i64)> = returns.collect();
        seen.sort_unstable();
        let mut greatest = 0;
        for (_, number) in &mut seen {
            greatest = greatest.max(*number);
            *number = greatest;
        }
        Seen(seen)
    }

    /// Something else returns, not before all others.
    fn push(&mut self, at: u64, number: i64) {
        let greatest = self.0.last().map_or(0, |(_, greatest)| *greatest);
        self.0.push((at, greatest.max(number)));
    }

    /// The greatest that had returned before `call`; 0 if nothing had.
    fn before(&self, call: u64) -> i64 {
        let count = self.0.partition_point(|(at, _)| *at < call);
        self.0[..count].last().map_or(0, |(_, greatest)| *greatest)
    }
}

/// An entry of the log, and what it did.
struct Entry {
    /// What it asks for, as bytes; nothing if it asks for nothing.
    content: Vec<u8>,
    /// The revision after it.
    revision: i64,
    /// Whether it made that revision.
    is_change: bool,
    /// Whether it ends a lease: a leader's clock asks for that too.
    is_revoke: bool,
    /// The operation that it belongs to.
    owner: Option<usize>,
}

/// The log, replayed.
struct Replay {
    model: Model,
    /// Whether it is the members' own, with what made no revision.
    is_whole: bool,
    entries: Vec<Entry>,
    /// The entry that made each revision.
    made: BTreeMap<i64, usize>,
    /// The entries that ask for the same, in the order of the log.
    alike: BTreeMap<Vec<u8>, Vec<usize>>,
}

impl Replay {
    fn new(lease_ttl_min: i64, is_whole: bool) -> Replay {
        Replay {
            model: Model::new(lease_ttl_min),
            is_whole,
            entries: Vec::new(),
            made: BTreeMap::new(),
            alike: BTreeMap::new(),
        }
    }

    fn take(&mut self, request: InternalRaftRequest) {
        let content = content_of(request.clone());
        let is_revoke = request.lease_revoke.is_some();
        let before = self.model.revision();
        let revision = self.model.take(Some(request)).revision;
        let is_change = revision > before;
        let number = self.entries.len();
        if is_change {
            self.made.insert(revision, number);
        }
        if !content.is_empty() {
            self.alike.entry(content.clone()).or_default().push(number);
        }
        self.entries.push(Entry { content, revision, is_change, is_revoke, owner: None });
    }

    fn of(log: Log<'_>) -> Result<Replay, Verdict> {
        let mut replay = Replay::new(log.lease_ttl_min, true);
        for request in log.requests() {
            replay.take(request.map_err(Verdict::Broken)?);
        }
        Ok(replay)
    }

    /// The log as far as it follows from what the clients were told: acknowledged writes stand at their revisions,
    /// and what is missing between them was made by operations of unknown outcome.
    fn gathered(history: &[Operation], seen: &Seen) -> Result<Replay, Verdict> {
        let mut makers: BTreeMap<i64, usize> = BTreeMap::new();
        let mut unknown: BTreeSet<usize> = BTreeSet::new();
        let mut highest = 1;
        let mut told: BTreeMap<i64, BTreeSet<(&Bytes, &Bytes)>> = BTreeMap::new();
        for (place, operation) in history.iter().enumerate() {
            if operation.request.lease().is_some() {
                let why = "leases occur, and only a log tells when they ended";
                return Err(Verdict::Open(why.to_owned()));
            }
            match &operation.outcome {
                Outcome::Answered { answer, .. } => {
                    let revision = answer.revision();
                    highest = highest.max(revision);
                    if answer.says_changed()
                        && let Some(other) = makers.insert(revision, place)
                    {
                        return broken(format!(
                            "revision {revision} was made twice: by {} and by {}",
                            name(history, other),
                            name(history, place)
                        ));
                    }
                    for kv in key_values(answer) {
                        // One without a value may be one whose value was not asked for.
                        if !kv.value.is_empty() {
                            told.entry(kv.mod_revision).or_default().insert((&kv.key, &kv.value));
                        }
                    }
                }
                Outcome::Unknown if !operation.request.is_read() => {
                    unknown.insert(place);
                }
                _ => {}
            }
        }
        let mut gaps: Vec<i64> = (2..=highest).filter(|r| !makers.contains_key(r)).collect();
        // Those first of which somebody was told what happened there.
        gaps.sort_by_key(|revision| (!told.contains_key(revision), *revision));
        for (place, revision) in gaps.iter().enumerate() {
            let evidence = told.get(revision);
            let left = gaps.len() - place;
            let mut fitting = unknown.iter().copied().filter(|maker| {
                let maker = &history[*maker];
                seen.before(maker.call) < *revision
                    && evidence.is_none_or(|told| has_put(&maker.request, told))
            });
            match (fitting.next(), fitting.next()) {
                (None, _) => {
                    let why = evidence.map_or(String::new(), |told| format!(", where {told:?}"));
                    return broken(format!("nobody asked for revision {revision}{why}"));
                }
                (Some(maker), None) => {
                    unknown.remove(&maker);
                    makers.insert(*revision, maker);
                }
                _ if unknown.len() < left => {
                    return broken(format!(
                        "nobody asked for {left} revisions, of which {revision} is one, but at most {} requests",
                        unknown.len()
                    ));
                }
                _ => {
                    return Err(Verdict::Open(format!(
                        "one of several requests of unknown outcome made revision {revision}"
                    )));
                }
            }
        }
        let mut replay = Replay::new(0, false);
        for (revision, maker) in makers {
            let entry = history[maker].request.to_entry();
            replay.take(entry.expect("what makes a revision is no range"));
            if replay.model.revision() != revision {
                return broken(format!(
                    "{} should have made revision {revision}, but changes nothing there",
                    name(history, maker)
                ));
            }
        }
        Ok(replay)
    }

    /// Every write that was acknowledged is in the log, once, and did there what was answered. Of equal requests whoever was
    /// answered first takes the earliest entry that time allows: what had returned before its call is known by then.
    fn give_to_answered(&mut self, history: &[Operation]) -> Result<(), Verdict> {
        let mut answered: Vec<(u64, usize)> = Vec::new();
        for (place, operation) in history.iter().enumerate() {
            if let Outcome::Answered { at, .. } = operation.outcome {
                answered.push((at, place));
            }
        }
        answered.sort_unstable();
        let mut taken = Seen(Vec::new());
        for (at, place) in answered {
            let operation = &history[place];
            let Outcome::Answered { answer, .. } = &operation.outcome else { continue };
            let revision = answer.revision();
            let Some(request) = answered_entry(&operation.request, answer) else { continue };
            let content = content_of(request);
            let who = || name(history, place);
            let entry = if answer.says_changed() {
                let Some(&entry) = self.made.get(&revision) else {
                    return broken(format!("{} is lost: nothing made revision {revision}", who()));
                };
                if self.entries[entry].content != content {
                    return broken(format!(
                        "{} is lost: something else made revision {revision}",
                        who()
                    ));
                }
                entry
            } else if self.is_logged(&operation.request) {
                let least = taken.before(operation.call);
                let is_it = |entry: &usize| {
                    self.entries[*entry].revision == revision && self.reply(*entry).is_ok()
                };
                let in_time = |entry: &usize| is_it(entry) && number_of(*entry) > least;
                let found = self.free(&content).find(in_time);
                match found.or_else(|| self.free(&content).find(is_it)) {
                    Some(entry) => entry,
                    None => return broken(format!("{} is lost: it is not in the log", who())),
                }
            } else {
                continue;
            };
            if let Some(other) = self.entries[entry].owner.replace(place) {
                return broken(format!(
                    "{} and {} were acknowledged, and one of them is lost",
                    name(history, other),
                    who()
                ));
            }
            taken.push(at, number_of(entry));
            let wanted = self.reply(entry);
            let got = answer.clone().stripped();
            if wanted.as_ref().ok().and_then(Option::as_ref) != Some(&got) {
                return broken(format!("{} was answered {got:?}, not {wanted:?}", who()));
            }
        }
        Ok(())
    }

    /// Whether such a request has an entry, though its answer does not tell of a change.
    fn is_logged(&self, request: &Request) -> bool {
        let of_no_key = matches!(
            request,
            Request::Compact(_) | Request::LeaseGrant(_) | Request::LeaseRevoke(_)
        );
        self.is_whole && of_no_key
    }

    /// The entries that ask for this and are nobody's yet.
    fn free(&self, content: &[u8]) -> impl Iterator<Item = usize> {
        let alike = self.alike.get(content).into_iter().flatten().copied();
        alike.filter(|entry| self.entries[*entry].owner.is_none())
    }

    fn reply(&self, entry: usize) -> &Result<Option<Answer>, &'static str> {
        let outcome = self.model.outcome(entry as u64 + 1);
        &outcome.expect("every entry was replayed").reply
    }

    /// Whatever else the log did was asked for by one operation of unknown outcome each, after it was called.
    fn give_to_unknown(&mut self, history: &[Operation], seen: &Seen) -> Result<(), Verdict> {
        let mut askers: BTreeMap<Vec<u8>, Vec<(i64, usize)>> = BTreeMap::new();
        for (place, operation) in history.iter().enumerate() {
            if operation.outcome == Outcome::Unknown
                && let Some(entry) = operation.request.to_entry()
            {
                let least = seen.before(operation.call);
                askers.entry(content_of(entry)).or_default().push((least, place));
            }
        }
        // Of equal requests, the one that may have taken effect earliest takes the earliest.
        askers.values_mut().for_each(|list| list.sort_unstable_by(|a, b| b.cmp(a)));
        for number in 0..self.entries.len() {
            let entry = &mut self.entries[number];
            if entry.owner.is_some() || !entry.is_change {
                continue;
            }
            let revision = entry.revision;
            let asker = askers.get_mut(&entry.content);
            match asker
                .and_then(|list| list.pop_if(|(least, _)| !entry.is_revoke || *least < revision))
            {
                Some((least, place)) if least < revision => entry.owner = Some(place),
                Some((least, place)) => {
                    return broken(format!(
                        "{} made revision {revision}, but {least} had returned before it was called",
                        name(history, place)
                    ));
                }
                None if entry.is_revoke => {}
                None => {
                    let content = &entry.content;
                    return broken(match asker_of(history, content) {
                        Some(place) => format!(
                            "{} took effect again, or should not have, at revision {revision}",
                            name(history, place)
                        ),
                        None => format!("nobody asked for revision {revision}"),
                    });
                }
            }
        }
        Ok(())
    }

    /// Whatever was refused because of what the store held was refused so in the log.
    fn give_to_refused(&mut self, history: &[Operation]) -> Result<(), Verdict> {
        let mut refused: Vec<(u64, usize, &str)> = Vec::new();
        for (place, operation) in history.iter().enumerate() {
            if let Outcome::Refused { error, .. } = &operation.outcome
                && !operation.request.is_read()
            {
                refused.push((operation.call, place, error));
            }
        }
        refused.sort_unstable();
        let seen = self.seen(history);
        for (call, place, error) in refused {
            let entry = history[place].request.to_entry().expect("it is no range");
            let least = seen.before(call);
            let says_so =
                |entry: &usize| number_of(*entry) > least && *self.reply(*entry) == Err(error);
            let found = self.free(&content_of(entry)).find(says_so);
            match found {
                Some(entry) => self.entries[entry].owner = Some(place),
                None => {
                    return broken(format!(
                        "{} was refused with \"{error}\", which the log does not bear out",
                        name(history, place)
                    ));
                }
            }
        }
        Ok(())
    }

    /// The greatest number of an entry that had been answered by each time.
    fn seen(&self, history: &[Operation]) -> Seen {
        Seen::of(self.entries.iter().enumerate().filter_map(|(number, entry)| {
            let Outcome::Answered { at, .. } = history[entry.owner?].outcome else { return None };
            Some((at, number_of(number)))
        }))
    }

    /// The order of the revisions, and of the entries, keeps the time.
    fn check_time(&self, history: &[Operation], seen: &Seen) -> Result<(), Verdict> {
        let late = |place: usize, what: String| {
            broken(format!("{} {what} had returned before it was called", name(history, place)))
        };
        for (place, operation) in history.iter().enumerate() {
            let Outcome::Answered { answer, .. } = &operation.outcome else { continue };
            let (revision, least) = (answer.revision(), seen.before(operation.call));
            if revision < least && !operation.request.is_serializable() {
                return late(place, format!("is of revision {revision}, and {least}"));
            }
        }
        let entries_seen = self.seen(history);
        for (number, entry) in self.entries.iter().enumerate() {
            let Some(place) = entry.owner else { continue };
            let least = seen.before(history[place].call);
            if entry.is_change && entry.revision <= least {
                return late(place, format!("made revision {}, and {least}", entry.revision));
            }
            let least = entries_seen.before(history[place].call);
            if number_of(number) <= least {
                return late(place, format!("is entry {}, and {least}", number_of(number)));
            }
        }
        Ok(())
    }
}

/// The number of an entry in the log, which is its place counted from 1.
fn number_of(place: usize) -> i64 {
    place as i64 + 1
}

/// Every answer that tells of no change is what the model says at its revision.
fn check_answers(history: &[Operation], model: &Model) -> Result<(), Verdict> {
    for (place, operation) in history.iter().enumerate() {
        let Outcome::Answered { answer, .. } = &operation.outcome else { continue };
        let revision = answer.revision();
        if !(1..=model.revision()).contains(&revision) {
            return broken(format!(
                "{} is of revision {revision}, and there are those from 1 to {}",
                name(history, place),
                model.revision()
            ));
        }
        if let Request::Range(range) = &operation.request
            && range.revision > revision
        {
            return broken(format!(
                "{} reads revision {} at {revision}",
                name(history, place),
                range.revision
            ));
        }
        let is_of_keys = matches!(
            operation.request,
            Request::Put(_) | Request::Range(_) | Request::DeleteRange(_) | Request::Txn(_)
        );
        if answer.says_changed() || !is_of_keys {
            continue;
        }
        let got = answer.clone().stripped();
        match model.answer(&operation.request, revision) {
            Some(wanted) if wanted == got => {}
            Some(wanted) => {
                return broken(format!(
                    "{} was answered {got:?}, not {wanted:?}",
                    name(history, place)
                ));
            }
            None => {
                return broken(format!(
                    "{} changed nothing, it says, but at revision {revision} it would have",
                    name(history, place)
                ));
            }
        }
    }
    Ok(())
}

/// Nobody reads what was compacted away before he asked; nobody is refused for what cannot have been compacted, or
/// cannot still have been to come; no mark is set twice.
fn check_marks(history: &[Operation], seen: &Seen) -> Result<(), Verdict> {
    let compactions = || {
        history.iter().filter_map(|operation| match &operation.request {
            Request::Compact(compaction) => Some((compaction.revision, operation)),
            _ => None,
        })
    };
    let set = Seen::of(compactions().filter_map(|(revision, operation)| match operation.outcome {
        Outcome::Answered { at, .. } => Some((at, revision)),
        _ => None,
    }));
    let asked = Seen::of(compactions().filter_map(|(revision, operation)| {
        let may_be = matches!(operation.outcome, Outcome::Answered { .. } | Outcome::Unknown);
        may_be.then_some((operation.call, revision))
    }));
    for (place, operation) in history.iter().enumerate() {
        let who = || name(history, place);
        let mark = set.before(operation.call);
        match (&operation.request, &operation.outcome) {
            (Request::Range(range), Outcome::Answered { answer, .. }) if !range.serializable => {
                let at = if range.revision > 0 { range.revision } else { answer.revision() };
                if at < mark {
                    return broken(format!("{} reads revision {at}, compacted at {mark}", who()));
                }
            }
            (Request::Range(range), Outcome::Refused { at, error }) => {
                let bottom = asked.before(at + 1);
                if error == COMPACTED && !(range.revision > 0 && range.revision < bottom) {
                    return broken(format!(
                        "{} finds revision {} compacted; {bottom} was the most that anybody asked for",
                        who(),
                        range.revision
                    ));
                }
                let top = seen.before(operation.call);
                if error == FUTURE && !range.serializable && range.revision <= top {
                    return broken(format!(
                        "{} finds revision {} still to come; {top} had returned before",
                        who(),
                        range.revision
                    ));
                }
            }
            // Of a mark at zero nobody can tell whether it was set at all.
            (Request::Compact(compaction), Outcome::Answered { answer, .. })
                if mark > 0 && compaction.revision <= mark
                    || compaction.revision > answer.revision() =>
            {
                return broken(format!(
                    "{} moves the mark to {} at revision {}, and stood at {mark}",
                    who(),
                    compaction.revision,
                    answer.revision()
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What an entry asks for, without its name.
fn content_of(mut entry: InternalRaftRequest) -> Vec<u8> {
    entry.header = None;
    entry.id = 0;
    entry.encode_to_vec()
}

/// The entry of an answered request: a grant that left the choice of the id has found one.
fn answered_entry(request: &Request, answer: &Answer) -> Option<InternalRaftRequest> {
    let mut entry = request.to_entry()?;
    if let (Some(grant), Answer::LeaseGrant(granted)) = (&mut entry.lease_grant, answer) {
        grant.id = granted.id;
    }
    Some(entry)
}

/// Somebody who asked for this.
fn asker_of(history: &[Operation], content: &[u8]) -> Option<usize> {
    history.iter().position(|operation| {
        operation.request.to_entry().is_some_and(|entry| content_of(entry) == content)
    })
}

fn name(history: &[Operation], place: usize) -> String {
    let Operation { client, call, request, .. } = &history[place];
    format!("operation {place} (client {client}, called at {call}: {request})")
}

/// Whether the request may have put all of these keys with these values.
fn has_put(request: &Request, told: &BTreeSet<(&Bytes, &Bytes)>) -> bool {
    fn puts<'r>(txn: &'r TxnRequest, found: &mut Vec<&'r PutRequest>) {
        ops(txn).for_each(|op| match op {
            Op::RequestPut(put) => found.push(put),
            Op::RequestTxn(nested) => puts(nested, found),
            Op::RequestRange(_) | Op::RequestDeleteRange(_) => {}
        });
    }
    let mut found = Vec::new();
    match request {
        Request::Put(put) => found.push(put),
        Request::Txn(txn) => puts(txn, &mut found),
        _ => {}
    }
    told.iter().all(|(key, value)| {
        found.iter().any(|put| put.key == *key && (put.ignore_value || put.value == *value))
    })
}

/// The key-values that an answer shows.
fn key_values(answer: &Answer) -> Vec<&KeyValue> {
    fn shown<'a>(txn: &'a TxnResponse, found: &mut Vec<&'a KeyValue>) {
        for op in &txn.responses {
            match &op.response {
                Some(OpAnswer::ResponsePut(put)) => found.extend(&put.prev_kv),
                Some(OpAnswer::ResponseDeleteRange(delete)) => found.extend(&delete.prev_kvs),
                Some(OpAnswer::ResponseRange(range)) => found.extend(&range.kvs),
                Some(OpAnswer::ResponseTxn(nested)) => shown(nested, found),
                None => {}
            }
        }
    }
    let mut found = Vec::new();
    match answer {
        Answer::Put(put) => found.extend(&put.prev_kv),
        Answer::DeleteRange(delete) => found.extend(&delete.prev_kvs),
        Answer::Range(range) => found.extend(&range.kvs),
        Answer::Txn(txn) => shown(txn, &mut found),
        Answer::Compact(_) | Answer::LeaseGrant(_) | Answer::LeaseRevoke(_) => {}
    }
    found
}
