//! Watch streams on two servers at once: what each watcher was told, in order, side by side.
//!
//! How events are packed into responses depends on time and is not compared; created, events and canceled
//! are. On both sides it is checked that responses go forward and that no revision is split unless asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchRequest, WatchResponse, watch_client::WatchClient,
    watch_request::RequestUnion,
};
use proto::mvccpb::Event;
use tokio::sync::mpsc::UnboundedSender;
use tonic::transport::Channel;

/// Something that a watcher was told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Created { revision: i64, canceled: bool, compact_revision: i64, reason: String },
    Event(Event),
    Canceled { compact_revision: i64, reason: String },
    Failed(String),
}

/// One stream on one server.
pub struct Stream {
    requests: UnboundedSender<WatchRequest>,
    told: Arc<Mutex<BTreeMap<i64, Vec<Told>>>>,
    faults: Arc<Mutex<Vec<String>>>,
}

impl Stream {
    pub async fn open(mut client: WatchClient<Channel>) -> Stream {
        let (requests, receiver) = tokio::sync::mpsc::unbounded_channel();
        let receiver = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
        let told: Arc<Mutex<BTreeMap<i64, Vec<Told>>>> = Arc::default();
        let faults: Arc<Mutex<Vec<String>>> = Arc::default();
        let (told_by_task, faults_by_task) = (told.clone(), faults.clone());
        tokio::spawn(async move {
            let mut last: BTreeMap<i64, (i64, bool)> = BTreeMap::new();
            let fail = |text: String| {
                told_by_task.lock().unwrap().entry(-2).or_default().push(Told::Failed(text));
            };
            let mut responses = match client.watch(receiver).await {
                Ok(responses) => responses.into_inner(),
                Err(status) => return fail(status.to_string()),
            };
            loop {
                match responses.message().await {
                    Ok(Some(response)) => {
                        if let Some(fault) = check(&mut last, &response) {
                            faults_by_task.lock().unwrap().push(fault);
                        }
                        take(&mut told_by_task.lock().unwrap(), response);
                    }
                    Ok(None) => return,
                    Err(status) => return fail(status.to_string()),
                }
            }
        });
        Stream { requests, told, faults }
    }

    pub fn create(&self, request: WatchCreateRequest) {
        self.send(RequestUnion::CreateRequest(request));
    }

    pub fn cancel(&self, watch_id: i64) {
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }));
    }

    fn send(&self, union: RequestUnion) {
        // A stream that has failed is told of by its record, which is compared.
        drop(self.requests.send(WatchRequest { request_union: Some(union) }));
    }

    pub fn told(&self) -> BTreeMap<i64, Vec<Told>> {
        self.told.lock().unwrap().clone()
    }

    pub fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap().clone()
    }

    pub fn events(&self) -> usize {
        let told = self.told.lock().unwrap();
        told.values().flatten().filter(|told| matches!(told, Told::Event(_))).count()
    }
}

/// The order that every watcher is promised: forward, atomic by revision unless in fragments.
fn check(last: &mut BTreeMap<i64, (i64, bool)>, response: &WatchResponse) -> Option<String> {
    if response.created {
        last.insert(response.watch_id, (0, false));
    }
    let (mut revision, in_fragments) = last.get(&response.watch_id).copied().unwrap_or_default();
    for (i, event) in response.events.iter().enumerate() {
        let modified = event.kv.as_ref()?.mod_revision;
        let torn = i == 0 && !in_fragments && modified == revision;
        if modified < revision || torn {
            return Some(format!(
                "watcher {}: revision {modified} came after {revision}",
                response.watch_id
            ));
        }
        revision = modified;
    }
    let header = response.header.as_ref().map_or(0, |header| header.revision);
    if !response.events.is_empty() && header < revision {
        return Some(format!(
            "watcher {}: an event of {revision} in a response of {header}",
            response.watch_id
        ));
    }
    last.insert(response.watch_id, (revision, response.fragment));
    None
}

fn take(told: &mut BTreeMap<i64, Vec<Told>>, response: WatchResponse) {
    let list = told.entry(response.watch_id).or_default();
    if response.created {
        list.push(Told::Created {
            revision: response.header.as_ref().map_or(0, |header| header.revision),
            canceled: response.canceled,
            compact_revision: response.compact_revision,
            reason: response.cancel_reason,
        });
    } else if response.canceled {
        list.push(Told::Canceled {
            compact_revision: response.compact_revision,
            reason: response.cancel_reason,
        });
    } else {
        list.extend(response.events.into_iter().map(Told::Event));
    }
}

/// Waits until both streams were told the same; else how they differ.
pub async fn settle(reference: &Stream, ours: &Stream, within: Duration) -> Result<(), String> {
    let deadline = Instant::now() + within;
    loop {
        let (a, b) = (reference.told(), ours.told());
        if a == b {
            let faults = [reference.faults(), ours.faults()].concat();
            return if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) };
        }
        if Instant::now() > deadline {
            return Err(describe(&a, &b));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn describe(a: &BTreeMap<i64, Vec<Told>>, b: &BTreeMap<i64, Vec<Told>>) -> String {
    let none = Vec::new();
    for id in a.keys().chain(b.keys()) {
        let (x, y) = (a.get(id).unwrap_or(&none), b.get(id).unwrap_or(&none));
        if x != y {
            let at = x.iter().zip(y).take_while(|(x, y)| x == y).count();
            return format!(
                "watcher {id} was told {} things by etcd, {} by us; the first that differs is number \
                 {at}:\n  etcd: {:?}\n  ours: {:?}",
                x.len(),
                y.len(),
                x.get(at),
                y.get(at)
            );
        }
    }
    "they differ in nothing".into()
}
