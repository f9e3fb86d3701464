//! What a shard does while the rest of its member stands still: who waits, who is served, and what is kept.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop where it stands, and looks at the real clock"
)]

mod common;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Outcome, Still, call, framed, head, outcome};
use h2::client::SendRequest;
use prost::Message;
use proto::etcdserverpb::{PutRequest, RangeRequest};
use replica::Input;
use server::handle::{ReadTask, ShardEvent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Of a put: as much as etcd takes.
const LARGE: usize = 1_500_000;
const PATIENCE: Duration = Duration::from_secs(60);

fn put(value: usize) -> Bytes {
    let request =
        PutRequest { key: "k".into(), value: vec![b'v'; value].into(), ..Default::default() };
    framed(&request.encode_to_vec())
}

/// Begins a put, and waits until the member has it.
async fn propose(still: &Still, client: &SendRequest<Bytes>) -> h2::client::ResponseFuture {
    let before = still.node.metrics.proposals_pending.value();
    let mut client = client.clone().ready().await.unwrap();
    let (response, mut send) = client.send_request(head("/etcdserverpb.KV/Put"), false).unwrap();
    send.send_data(put(LARGE), true).unwrap();
    until("a proposal is there", || still.node.metrics.proposals_pending.value() > before).await;
    response
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it did not come about that {what}");
        tokio::task::yield_now().await;
    }
}

async fn range(client: &SendRequest<Bytes>) -> Outcome {
    let request = RangeRequest { key: "k".into(), serializable: true, ..Default::default() };
    let body = framed(&request.encode_to_vec());
    let mut client = client.clone().ready().await.unwrap();
    call(&mut client, head("/etcdserverpb.KV/Range"), body).await
}

/// As the replica would do it: takes what waits, and tells the shard if it waited for room. How many proposals
/// there were.
fn take(still: &Still) -> usize {
    let (inputs, starved) = still.node.replica.take(Instant::now(), true);
    if starved != 0 {
        still.node.tell_all(|| ShardEvent::Room);
    }
    inputs
        .into_iter()
        .map(|input| match input {
            Input::Propose(proposals) => proposals.list.len(),
            _ => 0,
        })
        .sum()
}

/// Fills the replica's inbox and the shard's hands behind it: the last put is one too many for the inbox.
async fn crowd(still: &Still, client: &SendRequest<Bytes>) -> Vec<h2::client::ResponseFuture> {
    let mut answers = Vec::new();
    for _ in 0..(32 << 20) / LARGE + 1 {
        answers.push(propose(still, client).await);
    }
    answers
}

#[tokio::test(flavor = "current_thread")]
async fn while_there_is_no_room_only_who_proposes_waits() {
    let test = async {
        let still = Still::start(&[]).await;
        let greedy = still.connect().await;
        let mut answers = crowd(&still, &greedy).await;
        // It proposes once more, and is not read from then on.
        answers.push(propose(&still, &greedy).await);
        let mut held = pin!(range(&greedy));
        poll_fn(|cx| {
            assert!(held.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;

        // Others, new ones too, are served as ever.
        for _ in 0..10 {
            let other = still.connect().await;
            let served = tokio::time::timeout(PATIENCE, range(&other)).await;
            assert_eq!(served.expect("who reads is served").code, 0);
        }
        poll_fn(|cx| {
            assert!(held.as_mut().poll(cx).is_pending(), "who proposes waits for room");
            Poll::Ready(())
        })
        .await;

        let first = take(&still);
        assert_eq!(held.await.code, 0);
        assert_eq!(first + take(&still), answers.len(), "nothing is lost");
    };
    tokio::task::LocalSet::new().run_until(test).await;
}

#[tokio::test(flavor = "current_thread")]
async fn what_a_shard_keeps_is_bounded_by_its_bytes() {
    let test = async {
        let still = Still::start(&[]).await;
        let mut kept = crowd(&still, &still.connect().await).await;
        // Each comes from a connection of its own, which is read until it has proposed.
        for _ in 1..(32 << 20) / LARGE {
            kept.push(propose(&still, &still.connect().await).await);
        }
        let mut client = still.connect().await;
        let refused = call(&mut client, head("/etcdserverpb.KV/Put"), put(LARGE)).await;
        assert_eq!((refused.code, refused.text.as_str()), (2, "etcdserver: too many requests"));
        assert_eq!(still.node.metrics.proposals_pending.value(), kept.len() as u64);
    };
    tokio::task::LocalSet::new().run_until(test).await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_kept_proposal_whose_client_waits_no_more_is_never_made() {
    let test = async {
        let still = Still::start(&[]).await;
        let answers = crowd(&still, &still.connect().await).await;
        let mut client = still.connect().await;
        let mut hasty = head("/etcdserverpb.KV/Put");
        hasty.headers_mut().insert("grpc-timeout", "100m".parse().unwrap());
        let (response, mut send) = client.send_request(hasty, false).unwrap();
        send.send_data(put(1), true).unwrap();
        let late = outcome(response).await;
        assert_eq!((late.code, late.text.as_str()), (4, "context deadline exceeded"));

        // All that was there before, and not the put that was given up.
        let mut taken = take(&still);
        until("the shard has handed in the rest", || {
            taken += take(&still);
            taken >= answers.len()
        })
        .await;
    };
    tokio::task::LocalSet::new().run_until(test).await;
}

/// The frames that are sent to a client of bytes alone, up to the first of this type, or to the end.
async fn frames_until(tcp: &mut tokio::net::TcpStream, kind: u8) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    loop {
        let mut head = [0; 9];
        if tcp.read_exact(&mut head).await.is_err() {
            return frames;
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut body = vec![0; length];
        tcp.read_exact(&mut body).await.unwrap();
        frames.push((head[3], body));
        if head[3] == kind {
            return frames;
        }
    }
}

const PING: u8 = 6;
const GOAWAY: u8 = 7;
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test(flavor = "current_thread")]
async fn a_client_that_is_gone_is_found_out_and_its_watches_end() {
    let test = async {
        let flags = ["--grpc-keepalive-interval=1s", "--grpc-keepalive-timeout=5s"];
        let still = Still::start(&flags).await;
        // Both watch; of one nobody looks at what comes, and its pings stay without an answer.
        let here = still.connect().await;
        let (response, _here) =
            here.clone().send_request(head("/etcdserverpb.Watch/Watch"), false).unwrap();
        let _here_too = response.await.unwrap();
        let (gone, connection) = h2::client::handshake(still.tcp().await).await.unwrap();
        let mut connection = Box::pin(connection);
        let open = async {
            let mut gone = gone.ready().await.unwrap();
            let (response, send) =
                gone.send_request(head("/etcdserverpb.Watch/Watch"), false).unwrap();
            (response.await.unwrap(), send, gone)
        };
        let _kept = tokio::select! {
            kept = open => kept,
            _ = &mut connection => panic!("it ended before anything was asked"),
        };
        assert_eq!(still.node.metrics.watch_streams.value(), 2);
        until("the watch of the client that is gone ends", || {
            still.node.metrics.watch_streams.value() == 1
        })
        .await;
        assert_eq!(range(&here).await.code, 0, "who answers stays");
    };
    tokio::task::LocalSet::new().run_until(test).await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_client_that_pings_too_often_is_told_so() {
    let test = async {
        let still = Still::start(&[]).await;
        let mut tcp = still.tcp().await;
        let ping = [0, 0, 8, PING, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        tcp.write_all(HELLO).await.unwrap();
        // The first comes when it likes, and two more are forgiven.
        for _ in 0..3 {
            tcp.write_all(&ping).await.unwrap();
            let frames = frames_until(&mut tcp, PING).await;
            assert_eq!(frames.last().unwrap(), &(PING, vec![1, 2, 3, 4, 5, 6, 7, 8]));
        }
        tcp.write_all(&ping).await.unwrap();
        let frames = frames_until(&mut tcp, GOAWAY).await;
        let (kind, words) = frames.last().unwrap();
        assert_eq!(*kind, GOAWAY);
        assert_eq!(words[4..], *b"\0\0\0\x0btoo_many_pings");
        assert!(frames_until(&mut tcp, GOAWAY).await.is_empty(), "and that is the end");
    };
    tokio::task::LocalSet::new().run_until(test).await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_call_that_does_not_come_ends_at_its_deadline() {
    let test = async {
        let still = Still::start(&[]).await;
        let client = still.connect().await;
        for path in ["/etcdserverpb.KV/Put", "/etcdserverpb.Watch/Watch"] {
            let mut request = head(path);
            request.headers_mut().insert("grpc-timeout", "100m".parse().unwrap());
            // Its side stays open, and says nothing.
            let (response, _open) = client.clone().send_request(request, false).unwrap();
            let late = tokio::time::timeout(PATIENCE, outcome(response)).await;
            let late = late.expect("it ends");
            assert_eq!((late.code, late.text.as_str()), (4, "context deadline exceeded"));
        }
    };
    tokio::task::LocalSet::new().run_until(test).await;
}

#[tokio::test(flavor = "current_thread")]
async fn requests_that_are_not_whole_are_bounded_by_the_bytes_they_will_have() {
    let test = async {
        let still = Still::start(&[]).await;
        let client = still.connect().await;
        let begin = || {
            let (response, mut send) =
                client.clone().send_request(head("/etcdserverpb.KV/Put"), false).unwrap();
            let mut beginning = vec![0];
            beginning.extend_from_slice(&2_000_000_u32.to_be_bytes());
            beginning.extend_from_slice(b"begun");
            send.send_data(beginning.into(), false).unwrap();
            (response, send)
        };
        let mut begun: Vec<_> = (0..(64 << 20) / 2_000_005).map(|_| begin()).collect();
        let (response, _open) = begin();
        let refused = outcome(response).await;
        assert_eq!((refused.code, refused.text.as_str()), (2, "etcdserver: too many requests"));
        // What its client gives up makes room; what is small never needed any.
        let (_, mut send) = begun.pop().unwrap();
        send.send_reset(h2::Reason::CANCEL);
        assert_eq!(range(&client).await.code, 0);
        let (response, mut send) = begin();
        send.send_data(vec![0xff; 2_000_000 - 5].into(), true).unwrap();
        let read = outcome(response).await;
        assert_eq!(read.code, 13, "whole, and no put: {}", read.text);
        drop(begun);
    };
    tokio::task::LocalSet::new().run_until(test).await;
}

#[tokio::test(flavor = "current_thread")]
async fn connections_that_say_nothing_do_not_keep_a_shard_that_ends() {
    let test = async {
        let still = Still::start(&[]).await;
        let mut tcps = Vec::new();
        for first in [&b""[..], b"PRI * HT", b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let mut tcp = still.tcp().await;
            tcp.write_all(first).await.unwrap();
            tcps.push(tcp);
        }
        // The last one was served, and is kept for more.
        assert!(tcps[2].read(&mut [0; 4096]).await.unwrap() > 0);
        still.node.tell(replica::Shard(0), ShardEvent::Stop);
        for tcp in &mut tcps {
            assert_eq!(tcp.read(&mut [0; 4096]).await.unwrap(), 0);
        }
        // It would wait for an hour for who has said more.
        tokio::time::timeout(PATIENCE, still.shard).await.expect("it waits for none").unwrap();
    };
    tokio::task::LocalSet::new().run_until(test).await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_call_that_its_client_resets_waits_no_more() {
    let test = async {
        // So that the deadline of a put, twice this and more, is far beyond our patience.
        let still = Still::start(&["--election-timeout=50000"]).await;
        let client = still.connect().await;
        let (response, mut send) =
            client.clone().send_request(head("/etcdserverpb.KV/Put"), false).unwrap();
        send.send_data(put(1), true).unwrap();
        let pending = || still.node.metrics.proposals_pending.value();
        until("the put waits", || pending() == 1).await;
        drop(response);
        send.send_reset(h2::Reason::CANCEL);
        until("its place is free", || pending() == 0).await;

        // The end of a connection is the end of its calls.
        let other = still.connect().await;
        let _response = propose(&still, &other).await;
        let (gone, connection) = h2::client::handshake(still.tcp().await).await.unwrap();
        let mut connection = Box::pin(connection);
        let mut gone = tokio::select! {
            gone = gone.ready() => gone.unwrap(),
            _ = &mut connection => panic!("it ended before anything was asked"),
        };
        let (_response, mut send) = gone.send_request(head("/etcdserverpb.KV/Put"), false).unwrap();
        send.send_data(put(1), true).unwrap();
        poll_fn(|cx| match connection.as_mut().poll(cx) {
            Poll::Ready(_) => panic!("it ended before its put was there"),
            Poll::Pending if pending() == 2 => Poll::Ready(()),
            Poll::Pending => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await;
        drop(connection);
        until("its place is free", || pending() == 1).await;
    };
    tokio::task::LocalSet::new().run_until(test).await;
}

#[tokio::test(flavor = "current_thread")]
async fn hashes_wait_for_each_other_and_for_nobody_who_has_gone() {
    let test = async {
        let still = Still::start(&[]).await;
        let client = still.connect().await;
        let ask = || {
            let (response, mut send) = client
                .clone()
                .send_request(head("/etcdserverpb.Maintenance/HashKV"), false)
                .unwrap();
            send.send_data(framed(b""), true).unwrap();
            (response, send)
        };
        let mut asked: Vec<_> = (0..16).map(|_| ask()).collect();
        until("all wait", || still.node.hashes.len() == 16).await;
        assert!(still.node.reads.is_empty() && still.node.fetches.is_empty());
        let refused = outcome(ask().0).await;
        assert_eq!((refused.code, refused.text.as_str()), (2, "etcdserver: too many requests"));

        let (first, _) = asked.remove(0);
        for (response, mut send) in asked {
            drop(response);
            send.send_reset(h2::Reason::CANCEL);
        }
        // A call behind them, and a tick, which sees who has gone.
        assert_eq!(range(&client).await.code, 0);
        let (expiring, _open) = {
            let mut request = head("/etcdserverpb.KV/Put");
            request.headers_mut().insert("grpc-timeout", "150m".parse().unwrap());
            client.clone().send_request(request, false).unwrap()
        };
        assert_eq!(outcome(expiring).await.code, 4);
        let mut told = 0;
        for _ in 0..16 {
            let Some(ReadTask::Run(run)) = still.node.hashes.take_one() else {
                panic!("the replica asks for no hash")
            };
            run();
            told += still.node.shards[0].len();
            tokio::task::yield_now().await;
        }
        assert_eq!(outcome(first).await.code, 0);
        assert_eq!(told, 1, "the others are not hashed for");
    };
    tokio::task::LocalSet::new().run_until(test).await;
}
