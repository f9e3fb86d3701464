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
use server::handle::ShardEvent;

/// Of a put: as much as etcd takes.
const LARGE: usize = 1_500_000;
const PATIENCE: Duration = Duration::from_secs(10);

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
        for _ in kept.len() * LARGE / (32 << 20)..(32 << 20) / LARGE - 1 {
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
