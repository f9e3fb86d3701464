//! Watching end to end: what each watcher is told, whatever happens around it.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test may stop where it stands, looks at the real clock and takes ports"
)]

#[path = "../../../tests/src/address.rs"]
mod address;
mod common;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use address::own_address;
use common::{Lone, channel, put_request as put};
use prost::Message;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, WatchCancelRequest,
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, request_op,
    watch_create_request::FilterType,
};
use server::handle::ReadTask;
use server::serve::limits::{SEND_BUFFER_BYTES, STREAM_QUEUE_BYTES};
use tonic::transport::Channel;

/// A watch stream: what is asked, and what comes.
struct Watching {
    ask: tokio::sync::mpsc::Sender<WatchRequest>,
    answers: tonic::Streaming<WatchResponse>,
}

impl Watching {
    async fn open(lone: &Lone) -> Watching {
        Watching::open_on(channel(lone).await, false).await.unwrap()
    }
    /// On this connection; it may want a leader.
    async fn open_on(channel: Channel, has_leader: bool) -> Result<Watching, tonic::Status> {
        let (ask, asked) = tokio::sync::mpsc::channel(16);
        let asked = tokio_stream::wrappers::ReceiverStream::new(asked);
        let mut request = tonic::Request::new(asked);
        if has_leader {
            request.metadata_mut().insert("hasleader", "true".parse().unwrap());
        }
        let mut client = WatchClient::new(channel).max_decoding_message_size(64 << 20);
        Ok(Watching { ask, answers: client.watch(request).await?.into_inner() })
    }
    async fn say(&mut self, union: RequestUnion) {
        self.ask.send(WatchRequest { request_union: Some(union) }).await.unwrap();
    }
    async fn create(&mut self, create: WatchCreateRequest) -> WatchResponse {
        self.say(RequestUnion::CreateRequest(create)).await;
        self.next().await
    }
    async fn cancel(&mut self, watch_id: i64) -> WatchResponse {
        self.say(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })).await;
        self.next().await
    }
    /// The next response. What is lost must fail a test, and not keep it waiting.
    async fn next(&mut self) -> WatchResponse {
        let answer = tokio::time::timeout(Duration::from_secs(60), self.answers.message()).await;
        answer.expect("nothing comes any more").unwrap().unwrap()
    }
    /// Responses until they hold this many events.
    async fn until(&mut self, events: usize) -> Vec<WatchResponse> {
        let (mut responses, mut count) = (Vec::new(), 0);
        while count < events {
            let response = self.next().await;
            assert!(!response.canceled, "{response:?}");
            count += response.events.len();
            responses.push(response);
        }
        responses
    }
}

fn key(key: &str, start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest { key: key.to_string().into(), start_revision, ..Default::default() }
}

#[tokio::test(flavor = "current_thread")]
async fn a_watcher_hears_the_past_and_the_present_once_each() {
    let lone = Lone::start(&[]);
    let mut kv = KvClient::new(channel(&lone).await);
    kv.put(put("w", "1")).await.unwrap();
    kv.put(put("w", "2")).await.unwrap();
    let mut watching = Watching::open(&lone).await;
    let created = watching.create(WatchCreateRequest { prev_kv: true, ..key("w", 2) }).await;
    assert!(created.created && !created.canceled);
    assert_eq!((created.watch_id, created.header.unwrap().revision), (0, 3));
    let past = watching.next().await;
    let values: Vec<_> = past.events.iter().map(|e| e.kv.as_ref().unwrap().value.clone()).collect();
    assert_eq!(values, ["1", "2"]);
    assert!(past.events[0].prev_kv.is_none());
    assert_eq!(past.events[1].prev_kv.as_ref().unwrap().value, "1");

    kv.delete_range(DeleteRangeRequest { key: "w".into(), ..Default::default() }).await.unwrap();
    let present = watching.next().await;
    assert_eq!((present.events.len(), present.events[0].r#type), (1, 1));
    assert_eq!(present.events[0].prev_kv.as_ref().unwrap().value, "2");
    assert_eq!(present.header.unwrap().revision, 4);

    watching.say(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    let progress = watching.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, 4));
    assert!(progress.events.is_empty());

    watching.say(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 9 })).await;
    watching.say(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 0 })).await;
    let canceled = watching.next().await;
    assert!(canceled.canceled && canceled.cancel_reason.is_empty());
    assert_eq!(canceled.watch_id, 0);
}

#[tokio::test(flavor = "current_thread")]
async fn watchers_that_cannot_be_are_refused_as_etcd_refuses_them() {
    let lone = Lone::start(&[]);
    let mut kv = KvClient::new(channel(&lone).await);
    for value in ["1", "2", "3"] {
        kv.put(put("w", value)).await.unwrap();
    }
    kv.compact(CompactionRequest { revision: 4, physical: false }).await.unwrap();
    let mut watching = Watching::open(&lone).await;

    let created = watching.create(WatchCreateRequest { watch_id: 7, ..key("w", 0) }).await;
    assert_eq!((created.watch_id, created.canceled), (7, false));
    for (create, reason) in [
        (
            WatchCreateRequest { watch_id: 7, ..key("w", 0) },
            "mvcc: duplicate watch ID provided on the WatchStream",
        ),
        (
            WatchCreateRequest { range_end: "a".into(), ..key("w", 0) },
            "mvcc: watcher range is empty",
        ),
        (key("w", -1), "etcdserver: mvcc: required revision has been compacted"),
    ] {
        let refused = watching.create(create).await;
        assert!(refused.created && refused.canceled);
        assert_eq!((refused.watch_id, refused.cancel_reason.as_str()), (-1, reason));
    }

    // Compacted: confirmed first, cancelled then.
    let created = watching.create(key("w", 2)).await;
    assert!(created.created && !created.canceled);
    let canceled = watching.next().await;
    assert!(canceled.canceled && !canceled.created);
    assert_eq!((canceled.compact_revision, canceled.cancel_reason.as_str()), (4, ""));
    assert_eq!((canceled.watch_id, canceled.header.unwrap().revision), (created.watch_id, 0));
    // The compaction's own revision can still be watched.
    watching.create(key("w", 4)).await;
    assert_eq!(watching.next().await.events.len(), 1);
}

#[tokio::test(flavor = "current_thread")]
async fn a_stopping_member_ends_its_streams_and_says_why() {
    let mut lone = Lone::start(&[]);
    let mut watching = Watching::open(&lone).await;
    watching.create(key("w", 0)).await;
    let member = lone.member.take().unwrap();
    let stopping = tokio::task::spawn_blocking(move || member.stop());
    let error = watching.answers.message().await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unavailable);
    assert_eq!(error.message(), "etcdserver: server stopped");
    stopping.await.unwrap();
}

/// Keeps the member's read threads busy until it is dropped: what is asked of them meanwhile stands behind.
struct ReadsHeld {
    _release: Vec<mpsc::Sender<()>>,
}

impl ReadsHeld {
    /// More tasks than there are threads.
    const TASKS: usize = 16;

    fn hold(lone: &Lone) -> ReadsHeld {
        let node = lone.member.as_ref().unwrap().node.clone();
        let hold = |_| {
            let (release, released) = mpsc::channel::<()>();
            // It ends when the sender is dropped.
            node.reads.put(ReadTask::Run(Box::new(move || {
                released.recv().unwrap_err();
            })));
            release
        };
        ReadsHeld { _release: (0..Self::TASKS).map(hold).collect() }
    }
}

/// Key and main revision of each event.
fn changes(responses: &[WatchResponse]) -> Vec<(String, i64)> {
    let events = responses.iter().flat_map(|response| &response.events);
    events
        .map(|event| {
            let kv = event.kv.as_ref().unwrap();
            (String::from_utf8(kv.key.to_vec()).unwrap(), kv.mod_revision)
        })
        .collect()
}

/// A put of so many bytes.
fn large(key: &str, bytes: usize) -> PutRequest {
    PutRequest { value: vec![b'v'; bytes].into(), ..put(key, "") }
}

/// Puts as one revision.
fn txn(puts: Vec<PutRequest>) -> TxnRequest {
    let op = |put| RequestOp { request: Some(request_op::Request::RequestPut(put)) };
    TxnRequest { success: puts.into_iter().map(op).collect(), ..TxnRequest::default() }
}

/// A read for a watcher that is gone must not be taken for one of the watcher that has its id now.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_id_that_is_used_again_while_its_history_is_read_is_a_new_watcher() {
    let mut lone = Lone::start(&[]);
    let mut kv = KvClient::new(channel(&lone).await);
    for key in ["a", "b", "a", "b"] {
        kv.put(put(key, "v")).await.unwrap();
    }
    drop(kv);
    // After a start no event is in memory: history is a read thread's.
    tokio::task::block_in_place(|| lone.restart());
    let held = ReadsHeld::hold(&lone);
    let mut watching = Watching::open(&lone).await;
    watching.create(WatchCreateRequest { watch_id: 7, ..key("a", 2) }).await;
    assert!(watching.cancel(7).await.canceled);
    watching.create(WatchCreateRequest { watch_id: 7, ..key("b", 2) }).await;
    drop(held);
    let told = changes(&watching.until(2).await);
    assert_eq!(told, [("b".to_string(), 3), ("b".to_string(), 5)]);
}

/// However much a watcher has missed, it is told in answers of about a megabyte, but no revision is split.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_past_is_told_in_answers_of_bounded_size() {
    const VALUE: usize = 700_000;
    let mut lone = Lone::start(&[]);
    let mut kv = KvClient::new(channel(&lone).await);
    for _ in 0..8 {
        kv.put(large("k", VALUE)).await.unwrap();
    }
    kv.txn(txn(vec![large("k", VALUE), large("l", VALUE)])).await.unwrap();
    for _ in 0..8 {
        kv.put(large("k", VALUE)).await.unwrap();
    }
    let wanted: Vec<(String, i64)> = (2..=9)
        .map(|revision| ("k", revision))
        .chain([("k", 10), ("l", 10)])
        .chain((11..=18).map(|revision| ("k", revision)))
        .map(|(key, revision)| (key.to_string(), revision))
        .collect();
    // The first time recent events are in memory, the second time they are read from disk.
    for _ in 0..2 {
        for prev_kv in [false, true] {
            let mut watching = Watching::open(&lone).await;
            let all = WatchCreateRequest { range_end: "z".into(), prev_kv, ..key("a", 2) };
            watching.create(all).await;
            let responses = watching.until(wanted.len()).await;
            assert_eq!(changes(&responses), wanted);
            for response in &responses {
                let bytes = response.encoded_len();
                // A megabyte was not reached before the last revision.
                let last = if prev_kv { 4 * VALUE } else { 2 * VALUE };
                assert!(bytes < (1 << 20) + last + 1000, "{bytes} bytes");
            }
            let of_ten: Vec<usize> = responses
                .iter()
                .map(|response| {
                    let events = response.events.iter();
                    events.filter(|e| e.kv.as_ref().unwrap().mod_revision == 10).count()
                })
                .filter(|count| *count > 0)
                .collect();
            assert_eq!(of_ten, [2], "one revision stays together");
        }
        tokio::task::block_in_place(|| lone.restart());
    }
}

/// Former values that are many are read off the shard; a compaction meanwhile takes them, but not the events.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn events_that_wait_for_former_values_outlive_a_compaction() {
    const VALUE: usize = 50_000;
    let mut lone = Lone::start(&[]);
    let keys = ["k0", "k1", "k2", "k3"];
    let mut kv = KvClient::new(channel(&lone).await);
    kv.txn(txn(keys.iter().map(|key| large(key, VALUE)).collect())).await.unwrap();
    drop(kv);
    // After a start no value is in memory.
    tokio::task::block_in_place(|| lone.restart());
    let mut kv = KvClient::new(channel(&lone).await);
    let mut watching = Watching::open(&lone).await;
    for _ in 0..2 {
        let all = WatchCreateRequest { range_end: "l".into(), prev_kv: true, ..key("k", 0) };
        watching.create(all).await;
    }
    let mut kept = Watching::open(&lone).await;
    kept.create(WatchCreateRequest { range_end: "l".into(), prev_kv: true, ..key("k", 0) }).await;

    // First as it should be: all former values come with their events.
    kv.txn(txn(keys.iter().map(|key| large(key, VALUE)).collect())).await.unwrap();
    for response in watching.until(8).await.iter().chain(&kept.until(4).await) {
        assert_eq!(response.events.len(), 4);
        let former = response.events.iter().map(|event| event.prev_kv.as_ref().unwrap());
        assert!(former.map(|kv| kv.value.len()).eq([VALUE; 4]));
    }

    drop(kv);
    tokio::task::block_in_place(|| lone.restart());
    let mut kv = KvClient::new(channel(&lone).await);
    let mut watching = Watching::open(&lone).await;
    for _ in 0..2 {
        let all = WatchCreateRequest { range_end: "l".into(), prev_kv: true, ..key("k", 0) };
        watching.create(all).await;
    }
    let held = ReadsHeld::hold(&lone);
    kv.txn(txn(keys.iter().map(|key| put(key, "small")).collect())).await.unwrap();
    for key in ["x", "y"] {
        kv.put(put(key, "")).await.unwrap();
    }
    kv.compact(CompactionRequest { revision: 6, physical: false }).await.unwrap();
    drop(held);
    let told = watching.until(8).await;
    for response in &told {
        let revisions = response.events.iter().map(|e| e.kv.as_ref().unwrap().mod_revision);
        assert!(revisions.eq([4; 4]));
        assert!(response.events.iter().all(|event| event.prev_kv.is_none()), "compacted");
    }
    assert_ne!(told[0].watch_id, told[1].watch_id);
}

/// A client that does not read its stream.
struct Slow {
    client: h2::client::SendRequest<bytes::Bytes>,
    stream: h2::RecvStream,
    send: h2::SendStream<bytes::Bytes>,
    bytes: Vec<u8>,
}

impl Slow {
    /// Its stream takes 64 KiB; its connection has room for other streams besides.
    async fn open(lone: &Lone, create: WatchCreateRequest) -> Slow {
        let tcp = tokio::net::TcpStream::connect(lone.address).await.unwrap();
        let (client, connection) = h2::client::Builder::new()
            .initial_connection_window_size(16 << 20)
            .handshake(tcp)
            .await
            .unwrap();
        tokio::spawn(async move {
            // The connection ends with the test, by whichever side.
            drop(connection.await);
        });
        let mut client = client.ready().await.unwrap();
        let (response, mut send) =
            client.send_request(common::head("/etcdserverpb.Watch/Watch"), false).unwrap();
        send.send_data(request(create), false).unwrap();
        let stream = response.await.unwrap().into_body();
        Slow { client, stream, send, bytes: Vec::new() }
    }

    /// Adds watchers to the stream.
    fn create(&mut self, create: WatchCreateRequest) {
        self.send.send_data(request(create), false).unwrap();
    }

    /// Puts on the same connection.
    async fn put(&mut self, put: &PutRequest) {
        let head = common::head("/etcdserverpb.KV/Put");
        let outcome =
            common::call(&mut self.client, head, common::framed(&put.encode_to_vec())).await;
        assert_eq!(outcome.code, 0, "{}", outcome.text);
    }

    /// Now it does read: the next response.
    async fn next(&mut self) -> WatchResponse {
        loop {
            if self.bytes.len() >= 5 {
                let end = 5 + u32::from_be_bytes(self.bytes[1..5].try_into().unwrap()) as usize;
                if self.bytes.len() >= end {
                    let response = WatchResponse::decode(&self.bytes[5..end]).unwrap();
                    self.bytes.drain(..end);
                    return response;
                }
            }
            let chunk = self.stream.data().await.unwrap().unwrap();
            self.stream.flow_control().release_capacity(chunk.len()).unwrap();
            self.bytes.extend_from_slice(&chunk);
        }
    }
}

fn request(create: WatchCreateRequest) -> bytes::Bytes {
    let union = RequestUnion::CreateRequest(create);
    common::framed(&WatchRequest { request_union: Some(union) }.encode_to_vec())
}

/// Of sixteen megabytes a stream that nobody reads takes what fits into its queue and no more; every put is answered
/// while it stands, on its own connection too; and when it is read at last, each event comes once.
#[tokio::test(flavor = "current_thread")]
async fn a_slow_watcher_blocks_nobody_keeps_little_and_loses_nothing() {
    const PUTS: i64 = 160;
    const VALUE: usize = 100_000;
    let lone = Lone::start(&[]);
    let mut slow = Slow::open(&lone, key("k", 1)).await;
    let mut other = Watching::open(&lone).await;
    other.create(key("k", 0)).await;
    let events = |lone: &Lone| lone.member.as_ref().unwrap().node.metrics.events.value();
    for _ in 0..PUTS {
        slow.put(&large("k", VALUE)).await;
    }
    other.until(PUTS as usize).await;
    let of_slow = events(&lone) as i64 - PUTS;
    // Its window, h2's buffer, the queue, and one more.
    let bytes_max = (64 << 10) + SEND_BUFFER_BYTES + STREAM_QUEUE_BYTES + VALUE;
    assert!((1..=(bytes_max / VALUE) as i64 + 1).contains(&of_slow), "{of_slow} events");

    assert!(slow.next().await.created);
    let mut versions: Vec<i64> = Vec::new();
    while versions.len() < PUTS as usize {
        let response = slow.next().await;
        versions.extend(response.events.iter().map(|event| event.kv.as_ref().unwrap().version));
    }
    assert_eq!(versions, (1..=PUTS).collect::<Vec<i64>>());
}

/// A compaction that overtakes a slow watcher ends it when it has taken what was queued: without a gap before.
#[tokio::test(flavor = "current_thread")]
async fn a_slow_watcher_that_a_compaction_overtakes_is_told_so() {
    let lone = Lone::start(&[]);
    let mut slow = Slow::open(&lone, key("k", 1)).await;
    for _ in 0..40 {
        slow.put(&large("k", 100_000)).await;
    }
    let mut kv = KvClient::new(channel(&lone).await);
    kv.compact(CompactionRequest { revision: 41, physical: false }).await.unwrap();
    assert!(slow.next().await.created);
    let mut last = 1;
    let canceled = loop {
        let response = slow.next().await;
        if response.canceled {
            break response;
        }
        for event in response.events {
            last += 1;
            assert_eq!(event.kv.unwrap().mod_revision, last);
        }
    };
    assert!(last < 40, "{last}: it was not slow");
    assert_eq!((canceled.watch_id, canceled.compact_revision), (0, 41));
    assert_eq!((canceled.cancel_reason.as_str(), canceled.events.len()), ("", 0));
}

/// The answers for one revision that is larger than a request may be: pieces for who asked for them, which say that
/// more comes, and one answer for others.
#[tokio::test(flavor = "current_thread")]
async fn a_large_revision_is_cut_only_for_who_wants_fragments() {
    let lone = Lone::start(&[]);
    let mut kv = KvClient::new(channel(&lone).await);
    for key in ["k0", "k1", "k2"] {
        kv.put(large(key, 1_000_000)).await.unwrap();
    }
    let of_all = |fragment, start_revision| WatchCreateRequest {
        range_end: "l".into(),
        prev_kv: true,
        fragment,
        ..key("k", start_revision)
    };
    let mut streams = Vec::new();
    for fragment in [true, false] {
        let mut watching = Watching::open(&lone).await;
        watching.create(of_all(fragment, 0)).await;
        streams.push((fragment, watching));
    }
    let all = DeleteRangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    kv.delete_range(all).await.unwrap();
    // The same from the past.
    for fragment in [true, false] {
        let mut watching = Watching::open(&lone).await;
        watching.create(of_all(fragment, 5)).await;
        streams.push((fragment, watching));
    }
    for (fragment, mut watching) in streams {
        let responses = watching.until(3).await;
        let shape: Vec<(usize, bool)> =
            responses.iter().map(|response| (response.events.len(), response.fragment)).collect();
        match fragment {
            true => assert_eq!(shape, [(2, true), (1, false)]),
            false => assert_eq!(shape, [(3, false)]),
        }
        assert_eq!(changes(&responses), ["k0", "k1", "k2"].map(|key| (key.to_string(), 5)));
    }
}

/// A watcher that wants notices is told now and then up to where it has heard everything; others are not.
#[tokio::test(flavor = "current_thread")]
async fn idle_watchers_that_want_it_are_told_how_far_they_are() {
    let lone = Lone::start(&["--watch-progress-notify-interval=100ms"]);
    let mut kv = KvClient::new(channel(&lone).await);
    let mut watching = Watching::open(&lone).await;
    watching.create(key("w", 0)).await;
    watching.create(WatchCreateRequest { progress_notify: true, ..key("w", 0) }).await;
    // One that begins later has nothing to report.
    watching.create(WatchCreateRequest { progress_notify: true, ..key("w", 100) }).await;
    for revision in [1, 2] {
        for _ in 0..2 {
            let notice = watching.next().await;
            assert_eq!((notice.watch_id, notice.events.len()), (1, 0));
            assert!(!notice.created && !notice.canceled);
            assert_eq!(notice.header.unwrap().revision, revision);
        }
        // Not of its key: the notice alone tells it that there is a revision more.
        kv.put(put("x", "")).await.unwrap();
        // One that was under way may tell the revision before.
        while watching.next().await.header.unwrap().revision == revision {}
    }
}

/// Asked for, progress is told for the stream as a whole, and only when none of its watchers lags.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn progress_of_a_stream_is_told_when_all_its_watchers_have_heard_everything() {
    let mut lone = Lone::start(&[]);
    let mut kv = KvClient::new(channel(&lone).await);
    kv.put(put("w", "")).await.unwrap();
    drop(kv);
    tokio::task::block_in_place(|| lone.restart());
    let mut watching = Watching::open(&lone).await;
    watching.create(key("w", 0)).await;
    let held = ReadsHeld::hold(&lone);
    watching.create(key("w", 2)).await;
    let ask = || RequestUnion::ProgressRequest(WatchProgressRequest {});
    watching.say(ask()).await;
    // The next answer is that of the request behind it.
    let created = watching.create(key("v", 0)).await;
    assert!(created.created, "{created:?}");
    drop(held);
    assert_eq!(changes(&watching.until(1).await), [("w".to_string(), 2)]);
    watching.say(ask()).await;
    let progress = watching.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, 2));
    // A watcher whose start has not come has not heard everything.
    watching.create(key("w", 9)).await;
    watching.say(ask()).await;
    assert!(watching.create(key("v", 0)).await.created);
}

#[tokio::test(flavor = "current_thread")]
async fn filters_hide_puts_or_deletes() {
    let lone = Lone::start(&[]);
    let mut kv = KvClient::new(channel(&lone).await);
    let mut streams = Vec::new();
    for (filters, wanted) in [
        (vec![FilterType::Noput], vec![3]),
        (vec![FilterType::Nodelete], vec![2, 4]),
        (vec![], vec![2, 3, 4]),
    ] {
        let mut watching = Watching::open(&lone).await;
        let filters: Vec<i32> = filters.into_iter().map(i32::from).collect();
        let create = WatchCreateRequest { filters, ..key("w", 0) };
        watching.create(create.clone()).await;
        streams.push((watching, create, wanted));
    }
    kv.put(put("w", "")).await.unwrap();
    kv.delete_range(DeleteRangeRequest { key: "w".into(), ..Default::default() }).await.unwrap();
    kv.put(put("w", "")).await.unwrap();
    for (mut watching, create, wanted) in streams {
        let told = |responses: &[WatchResponse]| -> Vec<i64> {
            changes(responses).into_iter().map(|(_, revision)| revision).collect()
        };
        assert_eq!(told(&watching.until(wanted.len()).await), wanted, "as it comes");
        let past = WatchCreateRequest { start_revision: 2, ..create };
        let created = watching.create(past).await;
        assert!(created.created, "no event was left over: {created:?}");
        assert_eq!(told(&watching.until(wanted.len()).await), wanted, "out of the past");
    }
}

/// Ids that the client chose are passed over where the server chooses, and free again when they were cancelled.
#[tokio::test(flavor = "current_thread")]
async fn ids_are_the_streams_own() {
    let lone = Lone::start(&[]);
    let mut watching = Watching::open(&lone).await;
    for (asked, given) in [(0, 0), (1, 1), (2, 2), (0, 3), (-5, -5), (2, -1), (0, 4)] {
        let created = watching.create(WatchCreateRequest { watch_id: asked, ..key("w", 0) }).await;
        assert_eq!((created.watch_id, created.canceled), (given, given == -1), "{asked}");
    }
    assert!(watching.cancel(2).await.canceled);
    let created = watching.create(WatchCreateRequest { watch_id: 2, ..key("w", 0) }).await;
    assert_eq!((created.watch_id, created.canceled), (2, false));
    // Another stream has ids of its own.
    let mut other = Watching::open(&lone).await;
    let created = other.create(WatchCreateRequest { watch_id: 2, ..key("w", 0) }).await;
    assert_eq!((created.watch_id, created.canceled), (2, false));
}

/// A stream that wants a leader ends when there has been none for a while, and is refused from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_that_wants_a_leader_ends_without_one() {
    let peers = [(); 2].map(|()| format!("http://{}", own_address()));
    let flags = |name: &str, peer: &str| {
        vec![
            format!("--name={name}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=a={},b={}", peers[0], peers[1]),
            "--heartbeat-interval=20".to_string(),
            "--election-timeout=200".to_string(),
        ]
    };
    let start = |name, peer| {
        let flags = flags(name, peer);
        Lone::start(&flags.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let (a, b) = (start("a", &peers[0]), start("b", &peers[1]));
    let there = channel(&a).await;
    let mut kv = KvClient::new(there.clone());
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(status) = kv.put(put("w", "")).await {
        assert!(Instant::now() < deadline, "no leader: {status}");
    }
    let mut wants = loop {
        // A leader may just have changed.
        match Watching::open_on(there.clone(), true).await {
            Ok(watching) => break watching,
            Err(status) => assert!(Instant::now() < deadline, "{status}"),
        }
    };
    let mut does_not = Watching::open_on(there.clone(), false).await.unwrap();
    for watching in [&mut wants, &mut does_not] {
        assert!(watching.create(key("w", 0)).await.created);
    }
    tokio::task::block_in_place(|| drop(b));
    let ended = wants.answers.message().await.unwrap_err();
    assert_eq!(
        (ended.code(), ended.message()),
        (tonic::Code::Unavailable, "etcdserver: no leader")
    );
    let Err(refused) = Watching::open_on(there, true).await else { panic!("it was opened") };
    assert_eq!(
        (refused.code(), refused.message()),
        (tonic::Code::Unavailable, "etcdserver: no leader")
    );
    assert!(does_not.create(key("w", 0)).await.created, "this one goes on");
}

/// Processor time of this process, in microseconds.
fn processor_us() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // User and system time, in hundredths of a second.
    [11, 12].iter().map(|field| fields[*field].parse::<u64>().unwrap() * 10_000).sum()
}

/// Puts, and how much processor time each took, member and client together: the least of five rounds, for others use
/// the machine too.
async fn cost_of_puts(kv: &mut KvClient<Channel>, puts: u64) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..5 {
        let began = processor_us();
        for number in 0..puts / 5 {
            kv.put(put(&format!("put/{}", number % 100), "value")).await.unwrap();
        }
        least = least.min((processor_us() - began) as f64 * 5.0 / puts as f64);
    }
    least
}

#[tokio::test(flavor = "current_thread")]
#[ignore = "a measurement: run it alone"]
async fn idle_watchers_cost_a_put_nothing() {
    let lone = Lone::start(&[]);
    let mut kv = KvClient::new(channel(&lone).await);
    cost_of_puts(&mut kv, 5_000).await;
    let alone = cost_of_puts(&mut kv, 20_000).await;
    let mut streams = Vec::new();
    for stream in 0..100 {
        let mut watching = Watching::open(&lone).await;
        for watcher in 0..100 {
            let prefix = format!("idle/{stream}/{watcher}/");
            let range_end = format!("idle/{stream}/{watcher}0").into();
            watching.create(WatchCreateRequest { range_end, ..key(&prefix, 0) }).await;
        }
        streams.push(watching);
    }
    cost_of_puts(&mut kv, 5_000).await;
    let beside = cost_of_puts(&mut kv, 20_000).await;
    println!("processor time of a put: {alone:.1} µs alone, {beside:.1} µs beside 10,000 watchers");
    assert!(beside < alone * 1.25, "{beside} µs, {alone} µs alone");
}

#[tokio::test(flavor = "current_thread")]
#[ignore = "a measurement: run it alone"]
async fn watchers_of_a_full_stream_cost_a_put_nothing() {
    const WATCHERS: i64 = 50_000;
    let lone = Lone::start(&[]);
    let mut kv = KvClient::new(channel(&lone).await);
    cost_of_puts(&mut kv, 2_000).await;
    let alone = cost_of_puts(&mut kv, 20_000).await;
    let node = lone.member.as_ref().unwrap().node.clone();
    let shards = node.shards.len();
    // As many streams as shards, dealt out in turn: each shard has one that is full.
    let mut streams = Vec::new();
    for _ in 0..shards {
        let mut slow = Slow::open(&lone, key("hot", 0)).await;
        for _ in 1..WATCHERS / shards as i64 {
            slow.create(key("hot", 0));
        }
        streams.push(slow);
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while node.metrics.watchers.value() < WATCHERS as u64 / 2 {
        assert!(Instant::now() < deadline, "{} watchers", node.metrics.watchers.value());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..20 {
        kv.put(large("hot", 100_000)).await.unwrap();
    }
    // What the streams took is told, and the rest set aside.
    cost_of_puts(&mut kv, 2_000).await;
    let beside = cost_of_puts(&mut kv, 20_000).await;
    println!(
        "processor time of a put: {alone:.1} µs alone, {beside:.1} µs beside {} watchers of full streams",
        node.metrics.watchers.value()
    );
    assert!(beside < alone * 1.25, "{beside} µs, {alone} µs alone");
}
