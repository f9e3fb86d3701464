//! Clients that ask for all sorts of things while things break, and whose histories are judged by the simulator's
//! checkers: linearizability by witness and by search, and a watch.
//!
//! Whatever a client writes bears its name and a number, so a value says which request made it. The final member's whole
//! watch is the log: what it tells of must have been asked for, once, and everything acknowledged must be in it.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCreateRequest, WatchRequest, kv_client::KvClient, watch_client::WatchClient,
};
use proto::mvccpb::Event;
use sim::history::watch::{self, Step};
use sim::history::witness::{self, Log};
use sim::history::{Answer, Operation, Outcome, Request, keyspace, search};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::process::{READY_WITHIN, channel};
use crate::random::Random;

/// How long anything may take that must come: a bound, not an expectation.
const WITHIN: Duration = READY_WITHIN;

/// How long a client waits for one answer before it calls the fate of its request unknown.
const PATIENCE: Duration = Duration::from_secs(3);

/// Keys that are asked for at a time.
const KEYS: u64 = 16;

/// Requests before other keys are asked for: so the history of one key is short enough to be searched.
const REQUESTS_PER_EPOCH: u64 = 400;

/// How long the search may take for one key.
const BOUNDS: search::Bounds = search::Bounds { steps: 2_000_000, places: 200_000 };

/// Of a hundred keys, how many the search may give up.
const INCONCLUSIVE_PERCENT_MAX: usize = 2;

struct Shared {
    began: Instant,
    stop: AtomicBool,
    /// While set, nobody asks.
    rest: AtomicBool,
    /// How many are asking.
    busy: AtomicU64,
    asked: AtomicU64,
    /// Writes that were acknowledged.
    acknowledged: AtomicU64,
    /// The greatest revision that was acknowledged.
    revision: AtomicI64,
    /// When a write was last acknowledged, and the longest time between two.
    pause: Mutex<(Instant, Duration)>,
}

/// Waits until this is so.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {WITHIN:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Clients at work on some endpoints.
pub struct Clients {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<Asked>>,
}

/// What clients asked, and how it went.
#[derive(Default)]
pub struct Asked {
    pub history: Vec<Operation>,
    /// Answered with an error of the member's.
    pub refused: usize,
    /// Acknowledged by kind.
    pub kinds: BTreeMap<&'static str, usize>,
    pub longest_pause: Duration,
}

impl Clients {
    /// `count` clients, spread over `urls`; each turns to the next url when an answer fails to come.
    pub fn start(urls: &[String], count: u64, seed: u64) -> Clients {
        let shared = Arc::new(Shared {
            began: Instant::now(),
            stop: AtomicBool::new(false),
            rest: AtomicBool::new(false),
            busy: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            revision: AtomicI64::new(0),
            pause: Mutex::new((Instant::now(), Duration::ZERO)),
        });
        let channels: Vec<Channel> = urls.iter().map(|url| channel(url)).collect();
        let client = |client: u64| {
            let random = Random::new(seed ^ (client + 1).wrapping_mul(0x9e37_79b9));
            let (shared, channels) = (shared.clone(), channels.clone());
            tokio::spawn(async move { Client { client, shared, channels, random }.run().await })
        };
        let tasks = (0..count).map(client).collect();
        Clients { shared, tasks }
    }

    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }

    pub fn revision(&self) -> i64 {
        self.shared.revision.load(Ordering::SeqCst)
    }

    /// Waits until `more` writes have been acknowledged from now on.
    pub async fn progress(&self, more: u64) {
        let goal = self.acknowledged() + more;
        let what = format!("{goal} writes are acknowledged");
        eventually(&what, || self.acknowledged() >= goal).await;
    }

    /// Waits until so many more requests were made, answered or not.
    pub async fn ask(&self, more: u64) {
        let goal = self.asked() + more;
        eventually(&format!("{goal} requests are made"), || self.asked() >= goal).await;
    }

    /// Requests that were made.
    pub fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// Waits until `count` requests were made in all, at whatever pace.
    pub async fn until_asked(&self, count: u64) {
        while self.asked() < count {
            self.progress(1).await;
        }
    }

    /// Nobody asks any more, and everybody has been answered or has given up.
    pub async fn rest(&self) {
        self.shared.rest.store(true, Ordering::SeqCst);
        while self.shared.busy.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn resume(&self) {
        self.shared.rest.store(false, Ordering::SeqCst);
    }

    pub async fn stop(self) -> Asked {
        self.shared.stop.store(true, Ordering::SeqCst);
        let mut all = Asked::default();
        for task in self.tasks {
            let one = task.await.unwrap();
            all.history.extend(one.history);
            all.refused += one.refused;
            for (kind, count) in one.kinds {
                *all.kinds.entry(kind).or_default() += count;
            }
        }
        all.longest_pause = self.shared.pause.lock().unwrap().1;
        all
    }
}

struct Client {
    client: u64,
    shared: Arc<Shared>,
    channels: Vec<Channel>,
    random: Random,
}

impl Client {
    async fn run(mut self) -> Asked {
        let mut done = Asked::default();
        let mut at = self.client as usize;
        let mut seen = Bytes::new();
        for number in 0_u64.. {
            // Busy first, then a look: so whoever waits for a rest overlooks nobody.
            self.shared.busy.fetch_add(1, Ordering::SeqCst);
            if self.shared.stop.load(Ordering::SeqCst) || self.shared.rest.load(Ordering::SeqCst) {
                self.shared.busy.fetch_sub(1, Ordering::SeqCst);
                if self.shared.stop.load(Ordering::SeqCst) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
            let (kind, request) = self.draw(number, &seen);
            let call = self.now();
            let kv = KvClient::new(self.channels[at % self.channels.len()].clone());
            let outcome = match tokio::time::timeout(PATIENCE, ask(kv, request.clone())).await {
                Ok(Ok(answer)) => {
                    *done.kinds.entry(kind).or_default() += 1;
                    self.note(&answer);
                    if let Answer::Range(range) = &answer {
                        seen = range.kvs.first().map_or(Bytes::new(), |kv| kv.value.clone());
                    }
                    Outcome::Answered { at: self.now(), answer }
                }
                Ok(Err(status)) if never_sent(&status) => Outcome::NotTaken,
                Ok(Err(status)) => {
                    assert!(is_bad_day(&status), "{request:?} was answered with {status:?}");
                    done.refused += usize::from(status.message().starts_with("etcdserver: "));
                    Outcome::Unknown
                }
                Err(_) => Outcome::Unknown,
            };
            let is_answered = matches!(outcome, Outcome::Answered { .. });
            done.history.push(Operation { client: self.client, call, request, outcome });
            self.shared.busy.fetch_sub(1, Ordering::SeqCst);
            if !is_answered {
                at += 1;
                // So that nobody asks a dead member without end.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        done
    }

    fn now(&self) -> u64 {
        self.shared.began.elapsed().as_micros() as u64
    }

    fn note(&self, answer: &Answer) {
        if !answer.says_changed() {
            return;
        }
        self.shared.revision.fetch_max(answer.revision(), Ordering::SeqCst);
        self.shared.acknowledged.fetch_add(1, Ordering::SeqCst);
        let mut pause = self.shared.pause.lock().unwrap();
        let longest = pause.1.max(pause.0.elapsed());
        *pause = (Instant::now(), longest);
    }

    /// The next request; what it writes is its own.
    fn draw(&mut self, number: u64, seen: &Bytes) -> (&'static str, Request) {
        let epoch = self.shared.asked.fetch_add(1, Ordering::SeqCst) / REQUESTS_PER_EPOCH;
        let key = Bytes::from(format!("key/{epoch}/{}", self.random.below(KEYS)));
        let own = Bytes::from(format!("{}/{number}", self.client));
        let put = PutRequest { key: key.clone(), value: own.clone(), ..Default::default() };
        let range = RangeRequest { key: key.clone(), ..Default::default() };
        let op = |request| RequestOp { request: Some(request) };
        match self.random.below(10) {
            0..5 => ("put", Request::Put(put)),
            5..8 => ("range", Request::Range(range)),
            8 => {
                let compare = Compare {
                    result: CompareResult::Equal as i32,
                    target: CompareTarget::Value as i32,
                    key,
                    target_union: Some(TargetUnion::Value(seen.clone())),
                    ..Default::default()
                };
                // What was read is of another key as often as not; then it is compared with what is there now.
                let txn = TxnRequest {
                    compare: vec![compare],
                    success: vec![op(Op::RequestPut(put))],
                    failure: vec![op(Op::RequestRange(range))],
                };
                ("compare and put", Request::Txn(txn))
            }
            _ => {
                // A delete has no value that could say whose it is, so it leaves a mark.
                let delete = DeleteRangeRequest { key: key.clone(), ..Default::default() };
                let mark = PutRequest { key: [&key[..], b"/deleted"].concat().into(), ..put };
                let success = vec![op(Op::RequestDeleteRange(delete)), op(Op::RequestPut(mark))];
                ("delete", Request::Txn(TxnRequest { success, ..Default::default() }))
            }
        }
    }
}

async fn ask(mut kv: KvClient<Channel>, request: Request) -> Result<Answer, Status> {
    Ok(match request {
        Request::Put(put) => Answer::Put(kv.put(put).await?.into_inner()),
        Request::Range(range) => Answer::Range(kv.range(range).await?.into_inner()),
        Request::Txn(txn) => Answer::Txn(kv.txn(txn).await?.into_inner()),
        other => unreachable!("{other:?} is never drawn"),
    })
}

/// Whether nobody listened.
fn never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return error.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        source = error.source();
    }
    false
}

/// Whether it is what a client hears on a bad day: of a broken connection, or a member's own word that it cannot now.
/// Anything else is a bug.
fn is_bad_day(status: &Status) -> bool {
    let cannot_now =
        [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::ResourceExhausted];
    status.source().is_some() || cannot_now.contains(&status.code())
}

/// A watch over everything that goes on elsewhere when it breaks off, as it was asked for and told.
pub struct Watching {
    stop: Arc<AtomicBool>,
    next: Arc<AtomicI64>,
    task: JoinHandle<Vec<Step>>,
}

impl Watching {
    pub fn start(urls: Vec<String>) -> Watching {
        let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(1)));
        let (stop_it, next_it) = (stop.clone(), next.clone());
        let task = tokio::spawn(async move {
            let mut steps = Vec::new();
            for at in 0_usize.. {
                if stop_it.load(Ordering::SeqCst) {
                    break;
                }
                let from = WatchClient::new(channel(&urls[at % urls.len()]))
                    .max_decoding_message_size(usize::MAX);
                if let Err(status) = watch_on(from, &mut steps, &stop_it, &next_it).await {
                    assert!(is_bad_day(&status), "the watch ended with {status:?}");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            steps
        });
        Watching { stop, next, task }
    }

    /// Waits until the event of `revision` was seen, and returns all that was recorded.
    pub async fn finish(self, revision: i64) -> Vec<Step> {
        let what = format!("the watch sees revision {revision}");
        eventually(&what, || self.next.load(Ordering::SeqCst) > revision).await;
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap()
    }
}

async fn watch_on(
    mut client: WatchClient<Channel>,
    steps: &mut Vec<Step>,
    stop: &AtomicBool,
    next: &AtomicI64,
) -> Result<(), Status> {
    let create = WatchCreateRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        start_revision: next.load(Ordering::SeqCst),
        ..Default::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create.clone())) };
    // The request stream stays open for as long as this sender lives.
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    sender.send(request).await.expect("the receiver is here");
    let open = client.watch(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let mut responses = tokio::time::timeout(PATIENCE, open)
        .await
        .map_err(|_| Status::deadline_exceeded("no stream"))??
        .into_inner();
    steps.push(Step::Asked(create));
    let mut silent = Instant::now();
    // A member that is stopped says nothing; so after a while the watch goes on elsewhere.
    while !stop.load(Ordering::SeqCst) && silent.elapsed() < PATIENCE {
        let wait = Duration::from_millis(200);
        let Ok(response) = tokio::time::timeout(wait, responses.message()).await else { continue };
        let Some(response) = response? else { break };
        silent = Instant::now();
        assert!(!response.canceled, "the watch was cancelled: {response:?}");
        if let Some(kv) = response.events.last().and_then(|event| event.kv.as_ref()) {
            next.store(kv.mod_revision + 1, Ordering::SeqCst);
        }
        steps.push(Step::Told(response));
    }
    Ok(())
}

/// The events of what was watched.
pub fn events(steps: &[Step]) -> Vec<Event> {
    let told = steps.iter().filter_map(|step| match step {
        Step::Told(response) => Some(response.events.clone()),
        Step::Asked(_) => None,
    });
    told.flatten().collect()
}

/// What the checkers looked at.
#[derive(Debug, Default)]
pub struct Judged {
    pub acknowledged_writes: usize,
    /// Of these, those that are not where they were acknowledged to be.
    pub lost_writes: usize,
    /// Requests of which nobody knows whether they took effect.
    pub unknown: usize,
    pub revisions: usize,
    /// Histories of a key that were searched.
    pub searched: usize,
    /// Of these, those that the search gave up.
    pub inconclusive: usize,
}

/// Judges everything: what the clients were told, what a watch was told meanwhile, and what a member tells of all
/// revisions afterwards, in a watch that was never broken off.
///
/// # Errors
/// What is not as it was promised.
pub fn judge(history: &[Operation], live: &[Step], whole: &[Event]) -> Result<Judged, String> {
    let mut judged = count_lost(history, whole)?;
    let entries = log(history, whole)?;
    let log = Log { entries: &entries, lease_ttl_min: 1 };
    match witness::check(history, Some(log)) {
        witness::Verdict::Kept => {}
        verdict => return Err(format!("by witness: {verdict:?}")),
    }
    let model = log.model()?;
    watch::check(&model, live).map_err(|broken| format!("the watch: {broken}"))?;
    // That says that nothing is wrong in what came; and this, that all came.
    let (all, watched) = (model.changes(2, model.revision()).len(), events(live).len());
    if watched != all || whole.len() != all {
        return Err(format!("of {all} changes, {watched} and {} were watched", whole.len()));
    }
    judged.revisions = entries.len();
    let mut keys: BTreeMap<&[u8], Vec<Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(key_of(&operation.request)).or_default().push(operation.clone());
    }
    for (key, history) in keys {
        judged.searched += 1;
        let operations = keyspace::of(&history)?;
        match search::check(&keyspace::Keyspace, &operations, BOUNDS) {
            search::Verdict::Linearizable => {}
            search::Verdict::Unknown => judged.inconclusive += 1,
            search::Verdict::Refused { stuck } => {
                let key = String::from_utf8_lossy(key);
                return Err(format!("by search: {key} is stuck at {:?}", operations[stuck]));
            }
        }
    }
    match judged.inconclusive * 100 > judged.searched * INCONCLUSIVE_PERCENT_MAX {
        true => Err(format!("too much is left open: {judged:?}")),
        false => Ok(judged),
    }
}

/// Looks for each acknowledged write at the revision that it was acknowledged to be: its value must be there, which no
/// other request writes.
fn count_lost(history: &[Operation], whole: &[Event]) -> Result<Judged, String> {
    let mut values: BTreeMap<i64, BTreeSet<&Bytes>> = BTreeMap::new();
    for kv in whole.iter().filter_map(|event| event.kv.as_ref()) {
        values.entry(kv.mod_revision).or_default().insert(&kv.value);
    }
    let mut judged = Judged::default();
    let mut lost = Vec::new();
    for operation in history {
        match &operation.outcome {
            Outcome::Answered { answer, .. } if answer.says_changed() => {
                judged.acknowledged_writes += 1;
                let own = own_value(&operation.request).ok_or("a read that says it changed")?;
                let there = values.get(&answer.revision());
                if !there.is_some_and(|there| there.contains(&own)) {
                    lost.push(operation);
                }
            }
            Outcome::Unknown => judged.unknown += 1,
            _ => {}
        }
    }
    judged.lost_writes = lost.len();
    match lost.first() {
        Some(first) => Err(format!("{} writes are lost, the first is {first:?}", lost.len())),
        None => Ok(judged),
    }
}

/// The log that these events tell of: of each revision, the request that its value names.
fn log(history: &[Operation], whole: &[Event]) -> Result<Vec<Bytes>, String> {
    let mut asked: BTreeMap<Bytes, &Request> = BTreeMap::new();
    for Operation { request, .. } in history {
        if let Some(own) = own_value(request) {
            asked.insert(own, request);
        }
    }
    let mut entries = Vec::new();
    for event in whole {
        let kv = event.kv.as_ref().ok_or("an event of no key")?;
        let revision = entries.len() as i64 + 2;
        // The delete and the mark that it leaves are of one revision, the mark is the last of it.
        if kv.value.is_empty() {
            continue;
        }
        if kv.mod_revision != revision {
            return Err(format!("after revision {} comes {}", revision - 1, kv.mod_revision));
        }
        let Some(request) = asked.get(&kv.value) else {
            return Err(format!("nobody asked for what revision {revision} is: {kv:?}"));
        };
        let entry = request.to_entry().expect("what writes has an entry");
        entries.push(entry.encode_to_vec().into());
    }
    Ok(entries)
}

/// The value that only this request writes.
fn own_value(request: &Request) -> Option<Bytes> {
    match request {
        Request::Put(put) => Some(put.value.clone()),
        Request::Txn(txn) => txn.success.iter().find_map(|op| match &op.request {
            Some(Op::RequestPut(put)) => Some(put.value.clone()),
            _ => None,
        }),
        _ => None,
    }
}

/// The key that a request is about.
fn key_of(request: &Request) -> &[u8] {
    match request {
        Request::Put(put) => &put.key,
        Request::Range(range) => &range.key,
        Request::Txn(txn) => {
            let first = txn.success.first().and_then(|op| op.request.as_ref());
            match first {
                Some(Op::RequestPut(put)) => &put.key,
                Some(Op::RequestDeleteRange(delete)) => &delete.key,
                _ => unreachable!("no such transaction is drawn"),
            }
        }
        other => unreachable!("{other:?} is never drawn"),
    }
}

#[cfg(test)]
mod tests {
    use proto::etcdserverpb::{PutResponse, RangeResponse, ResponseHeader, WatchResponse};
    use proto::mvccpb::KeyValue;

    use super::*;

    fn header(revision: i64) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision, ..Default::default() })
    }

    fn kv(value: &str, revision: i64) -> KeyValue {
        KeyValue {
            key: "key".into(),
            value: Bytes::copy_from_slice(value.as_bytes()),
            create_revision: 2,
            mod_revision: revision,
            version: revision - 1,
            ..Default::default()
        }
    }

    /// A put that was acknowledged to be of this revision, or never.
    fn put(value: &str, revision: Option<i64>, call: u64) -> Operation {
        let own = kv(value, 0);
        let put = PutRequest { key: own.key, value: own.value, ..Default::default() };
        let answer = |revision| {
            let answer = Answer::Put(PutResponse { header: header(revision), prev_kv: None });
            Outcome::Answered { at: call + 1, answer }
        };
        let outcome = revision.map_or(Outcome::Unknown, answer);
        Operation { client: 0, call, request: Request::Put(put), outcome }
    }

    /// A read that found what was put at this revision.
    fn read(value: &str, revision: i64, call: u64) -> Operation {
        let range = RangeRequest { key: "key".into(), ..Default::default() };
        let answer = Answer::Range(RangeResponse {
            header: header(revision),
            kvs: vec![kv(value, revision)],
            count: 1,
            ..Default::default()
        });
        let outcome = Outcome::Answered { at: call + 1, answer };
        Operation { client: 1, call, request: Request::Range(range), outcome }
    }

    /// What a watch is told if these values come one after the other from revision 2 on.
    fn told(values: &[&str]) -> Vec<Event> {
        let event = |(value, revision): (&&str, i64)| Event {
            kv: Some(kv(value, revision)),
            ..Default::default()
        };
        values.iter().zip(2..).map(event).collect()
    }

    fn live(events: Vec<Event>) -> Vec<Step> {
        let asked = WatchCreateRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            start_revision: 1,
            ..Default::default()
        };
        let tell = |event: Event| {
            let revision = event.kv.as_ref().unwrap().mod_revision;
            let events = vec![event];
            Step::Told(WatchResponse { header: header(revision), events, ..Default::default() })
        };
        [Step::Asked(asked)].into_iter().chain(events.into_iter().map(tell)).collect()
    }

    /// Two puts that were acknowledged, one that nobody knows of, and a read.
    fn history() -> Vec<Operation> {
        vec![put("a", Some(2), 1), put("b", Some(3), 3), put("c", None, 5), read("b", 3, 7)]
    }

    #[test]
    fn what_was_promised_is_kept_with_the_unknown_write_or_without() {
        for values in [&["a", "b"][..], &["a", "b", "c"]] {
            let (whole, live) = (told(values), live(told(values)));
            let judged = judge(&history(), &live, &whole).unwrap();
            assert_eq!((judged.acknowledged_writes, judged.unknown), (2, 1));
            assert_eq!((judged.lost_writes, judged.inconclusive), (0, 0));
            assert_eq!(judged.revisions, values.len());
        }
    }

    #[test]
    fn what_was_not_is_named() {
        let refused = |history: &[Operation], watched: &[&str], whole: &[&str], why: &str| {
            let says = judge(history, &live(told(watched)), &told(whole)).unwrap_err();
            assert!(says.contains(why), "{says}");
        };
        refused(&history(), &["a"], &["a"], "1 writes are lost");
        refused(&history(), &["a", "c"], &["a", "c"], "1 writes are lost");
        refused(&history(), &["b", "a"], &["b", "a"], "2 writes are lost");
        refused(&history(), &["a", "b", "x"], &["a", "b", "x"], "nobody asked");
        refused(&history(), &["a", "b", "c"], &["a", "b", "c", "c"], "took effect again");
        refused(&history(), &["a"], &["a", "b"], "of 2 changes, 1 and 2 were watched");
        refused(&history(), &["a", "c"], &["a", "b", "c"], "the watch: ");
        let mut stale = history();
        stale.push(read("a", 2, 9));
        refused(&stale, &["a", "b"], &["a", "b"], "by witness");
    }
}
