//! Clients that write while things break, and remember what they were promised.
//!
//! Each writer owns keys of its own and puts a growing number; a put that was answered is acknowledged, one
//! that failed or timed out may or may not have happened. Afterwards each key must hold at least the last
//! acknowledged number, and nothing above the last one tried.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proto::etcdserverpb::{
    PutRequest, RangeRequest, WatchCreateRequest, WatchRequest, WatchResponse, kv_client::KvClient,
    watch_client::WatchClient, watch_request::RequestUnion,
};
use proto::mvccpb::{Event, event::EventType};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::process::channel;

/// How long a writer waits for one answer before it calls the fate of its put unknown.
const PATIENCE: Duration = Duration::from_secs(3);

/// What one writer was promised.
#[derive(Clone, Copy, Debug, Default)]
pub struct Promise {
    pub acknowledged: u64,
    /// The revision of the last acknowledged put.
    pub revision: i64,
    pub tried: u64,
}

/// Writers at work on some endpoints.
pub struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Promise>>,
}

pub fn key(writer: usize) -> String {
    format!("writer/{writer:03}")
}

impl Writers {
    /// `count` writers, spread over `urls`; each turns to the next url when an answer fails to come.
    pub fn start(urls: &[String], count: usize) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let channels: Vec<Channel> = urls.iter().map(|url| channel(url)).collect();
        let tasks = (0..count)
            .map(|writer| {
                let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
                let channels = channels.clone();
                tokio::spawn(async move {
                    let mut promise = Promise::default();
                    let mut at = writer;
                    while !stop.load(Ordering::Relaxed) {
                        promise.tried += 1;
                        let mut kv = KvClient::new(channels[at % channels.len()].clone());
                        let put = PutRequest {
                            key: key(writer).into(),
                            value: promise.tried.to_string().into(),
                            ..Default::default()
                        };
                        match tokio::time::timeout(PATIENCE, kv.put(put)).await {
                            Ok(Ok(answer)) => {
                                promise.acknowledged = promise.tried;
                                promise.revision = answer.into_inner().header.unwrap().revision;
                                acknowledged.fetch_add(1, Ordering::Relaxed);
                            }
                            _ => {
                                at += 1;
                                tokio::time::sleep(Duration::from_millis(20)).await;
                            }
                        }
                    }
                    promise
                })
            })
            .collect();
        Writers { stop, acknowledged, tasks }
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until `more` puts have been acknowledged from now on, at whatever pace, but one within each `within`.
    pub async fn progress(&self, more: u64, within: Duration) {
        let goal = self.acknowledged() + more;
        let (mut seen, mut deadline) = (self.acknowledged(), Instant::now() + within);
        while self.acknowledged() < goal {
            if self.acknowledged() > seen {
                (seen, deadline) = (self.acknowledged(), Instant::now() + within);
            }
            assert!(
                Instant::now() < deadline,
                "only {} of {goal} puts were acknowledged within {within:?}",
                self.acknowledged()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn stop(self) -> Vec<Promise> {
        self.stop.store(true, Ordering::Relaxed);
        let mut promises = Vec::new();
        for task in self.tasks {
            promises.push(task.await.unwrap());
        }
        promises
    }
}

/// Checks on one member that every promise is kept.
pub async fn check(mut kv: KvClient<Channel>, promises: &[Promise]) {
    for (writer, promise) in promises.iter().enumerate() {
        let range = RangeRequest { key: key(writer).into(), ..Default::default() };
        let answer = kv.range(range).await.unwrap().into_inner();
        let held = answer.kvs.first();
        let number = held
            .map_or(0, |kv| String::from_utf8(kv.value.to_vec()).unwrap().parse::<u64>().unwrap());
        assert!(
            number >= promise.acknowledged && number <= promise.tried,
            "{} holds {number}; {promise:?}: an acknowledged write is lost, or one came from nowhere",
            key(writer)
        );
        if number == promise.acknowledged && number > 0 {
            assert_eq!(held.unwrap().mod_revision, promise.revision, "{}", key(writer));
        }
    }
}

/// A watch over all writers' keys that resumes after the last event it saw, on any of `urls`, until told to
/// end; it panics on a gap, a double or a step back.
pub struct Follower {
    stop: Arc<AtomicBool>,
    seen: Arc<AtomicU64>,
    task: JoinHandle<Vec<Event>>,
}

impl Follower {
    pub fn start(urls: Vec<String>) -> Follower {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(AtomicU64::new(0));
        let (stop_it, seen_it) = (stop.clone(), seen.clone());
        let task = tokio::spawn(async move {
            let mut events: Vec<Event> = Vec::new();
            let mut at = 0;
            while !stop_it.load(Ordering::Relaxed) {
                let from = events.last().map_or(1, |event| modified(event) + 1);
                let watch = WatchClient::new(channel(&urls[at % urls.len()]));
                at += 1;
                drop(follow(watch, from, &mut events, &stop_it, &seen_it).await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            events
        });
        Follower { stop, seen, task }
    }

    /// Waits until the event of `revision` was seen, and returns all events.
    pub async fn finish(self, revision: i64, within: Duration) -> Vec<Event> {
        let deadline = Instant::now() + within;
        while self.seen.load(Ordering::Relaxed) < revision as u64 {
            assert!(
                Instant::now() < deadline,
                "the watch stands at revision {} and should reach {revision}",
                self.seen.load(Ordering::Relaxed)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

pub fn modified(event: &Event) -> i64 {
    event.kv.as_ref().unwrap().mod_revision
}

async fn follow(
    mut watch: WatchClient<Channel>,
    from: i64,
    events: &mut Vec<Event>,
    stop: &AtomicBool,
    seen: &AtomicU64,
) -> Result<(), tonic::Status> {
    let create = WatchCreateRequest {
        key: "writer/".into(),
        range_end: "writer0".into(),
        start_revision: from,
        ..Default::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // The request stream stays open for as long as this sender lives.
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    sender.send(request).await.expect("the receiver is here");
    let open = watch.watch(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let mut responses = tokio::time::timeout(PATIENCE, open)
        .await
        .map_err(|_| tonic::Status::deadline_exceeded("no stream"))??
        .into_inner();
    while !stop.load(Ordering::Relaxed) {
        let response: WatchResponse =
            match tokio::time::timeout(Duration::from_millis(500), responses.message()).await {
                Err(_) => continue,
                Ok(response) => match response? {
                    Some(response) => response,
                    None => return Ok(()),
                },
            };
        assert!(!response.canceled, "the watch was cancelled: {response:?}");
        for event in response.events {
            let last = events.last().map_or(0, modified);
            assert!(modified(&event) > last, "an event of {} after {last}", modified(&event));
            seen.store(modified(&event) as u64, Ordering::Relaxed);
            events.push(event);
        }
    }
    Ok(())
}

/// The watch told of every revision of each key: versions without a gap, and the last is what is stored.
pub async fn check_events(mut kv: KvClient<Channel>, events: &[Event], writers: usize) {
    for writer in 0..writers {
        let name = key(writer);
        let mine: Vec<_> = events
            .iter()
            .filter(|event| event.kv.as_ref().unwrap().key == name.as_bytes())
            .collect();
        for (i, event) in mine.iter().enumerate() {
            assert_eq!(event.r#type(), EventType::Put);
            let version = event.kv.as_ref().unwrap().version;
            assert_eq!(version, i as i64 + 1, "{name}: the watch has a gap or a double");
        }
        let range = RangeRequest { key: name.clone().into(), ..Default::default() };
        let answer = kv.range(range).await.unwrap().into_inner();
        let last = mine.last().map(|event| event.kv.clone().unwrap());
        assert_eq!(answer.kvs.first().cloned(), last, "{name}: the watch and the store differ");
    }
}
