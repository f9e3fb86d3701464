//! The trace service of a lone member.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop where it stands, and looks at the real clock"
)]

mod common;

use common::{Lone, call, framed, head, put_request};
use prost::Message;
use proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest, range_request::SortOrder,
};
use proto::quorate::v1::trace_request::Request;
use proto::quorate::v1::trace_response::Response;
use proto::quorate::v1::{
    Record, SlowRequest, SlowResponse, StageKind, StagesRequest, StagesResponse, TraceRequest,
    TraceResponse,
};

/// A unary call of our own service.
async fn ask<A: Message + Default>(lone: &Lone, method: &str, message: &impl Message) -> A {
    let mut client = lone.connect().await;
    let path = format!("/quorate.v1.Trace/{method}");
    let outcome = call(&mut client, head(&path), framed(&message.encode_to_vec())).await;
    assert_eq!((outcome.code, outcome.text.as_str()), (0, ""));
    A::decode(&outcome.body[5..]).unwrap()
}

async fn trace(lone: &Lone, request: Request) -> (Option<Response>, Record) {
    let request = TraceRequest { request: Some(request) };
    let TraceResponse { response, record } = ask(lone, "Trace", &request).await;
    (response, record.unwrap())
}

fn kinds(record: &Record) -> Vec<StageKind> {
    assert!(record.stages.is_sorted_by_key(|stage| stage.at_us), "in order of time");
    let mut kinds: Vec<_> = record.stages.iter().map(|stage| stage.kind()).collect();
    // What has nothing to do with the answer may be there or not.
    kinds.retain(|kind| !matches!(kind, StageKind::FrameWritten | StageKind::FrameSynced));
    kinds
}

#[tokio::test(flavor = "current_thread")]
async fn a_traced_request_is_answered_as_any_other_and_tells_its_way() {
    use StageKind::*;
    let lone = Lone::start(&[]);
    let (response, record) = trace(&lone, Request::Put(put_request("key", "value"))).await;
    let Some(Response::Put(put)) = response else { panic!("{response:?}") };
    let header = put.header.unwrap();
    assert_eq!((header.revision, record.revision), (2, 2));
    assert_eq!(
        (record.method.as_str(), &record.key[..], record.member_id, record.leader, record.code),
        ("/etcdserverpb.KV/Put", &b"key"[..], header.member_id, header.member_id, 0)
    );
    // A lone leader counts its log once it is on disk, and answers then. Of equal moments the order is free.
    let told = kinds(&record);
    for kind in [Received, HandedIn, Appended, Written, Matched, Committed, Applied, Answered] {
        assert_eq!(told.iter().filter(|of| **of == kind).count(), 1, "{kind:?} in {told:?}");
    }
    let at = |kind| record.stages.iter().find(|stage| stage.kind() == kind).unwrap().at_us;
    let way =
        [Received, HandedIn, Appended, Written, Matched, Committed, Applied, Answered].map(at);
    assert!(way.is_sorted(), "{way:?}");
    assert_eq!(at(Received), record.began_us);
    assert_eq!(at(Answered) - at(Received), record.took_us);

    let read = RangeRequest { key: "key".into(), ..Default::default() };
    let (response, record) = trace(&lone, Request::Range(read.clone())).await;
    let Some(Response::Range(range)) = response else { panic!("{response:?}") };
    assert_eq!(range.kvs[0].value, "value");
    // A lone member asks nobody.
    assert_eq!((kinds(&record), record.index), (vec![Received, Answered], 0));

    let (response, _) = trace(&lone, Request::Txn(TxnRequest::default())).await;
    assert!(matches!(response, Some(Response::Txn(txn)) if txn.succeeded));
    let delete = DeleteRangeRequest { key: "key".into(), ..Default::default() };
    let (response, record) = trace(&lone, Request::DeleteRange(delete)).await;
    assert!(matches!(response, Some(Response::DeleteRange(done)) if done.deleted == 1));
    assert_eq!(record.revision, 3);

    let entry = StagesRequest { term: record.term, index: record.index };
    let stages: StagesResponse = ask(&lone, "Stages", &entry).await;
    assert_eq!((stages.member_id, stages.voters), (record.member_id, vec![record.member_id]));
    assert!(stages.stages.iter().any(|stage| stage.kind() == Synced || stage.kind() == Applied));
    for (term, index) in [(record.term, record.index + 1), (record.term + 1, record.index), (0, 0)]
    {
        let stages: StagesResponse = ask(&lone, "Stages", &StagesRequest { term, index }).await;
        assert!(stages.stages.is_empty(), "of entry {index} of term {term}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_refusal_is_traced_as_well() {
    let lone = Lone::start(&[]);
    let request = PutRequest { lease: 77, ..put_request("key", "value") };
    let (response, record) = trace(&lone, Request::Put(request)).await;
    assert_eq!(response, None);
    assert_eq!((record.code, record.error.as_str()), (5, "etcdserver: requested lease not found"));
    // It was in the log, and is told so.
    assert!(kinds(&record).contains(&StageKind::Applied));
    let request = RangeRequest { sort_order: SortOrder::Ascend.into(), ..Default::default() };
    let (response, record) = trace(&lone, Request::Range(request)).await;
    assert_eq!((response, record.error.as_str()), (None, "etcdserver: key is not provided"));
}

#[tokio::test(flavor = "current_thread")]
async fn the_slow_are_kept_without_asking() {
    let lone = Lone::start(&[]);
    let mut client = lone.connect().await;
    let put = framed(&put_request("slow", "value").encode_to_vec());
    assert_eq!(call(&mut client, head("/etcdserverpb.KV/Put"), put).await.code, 0);
    for _ in 0..3 {
        let slow: SlowResponse = ask(&lone, "Slow", &SlowRequest {}).await;
        // Those who look are not counted among them.
        let [record] = slow.records.as_slice() else { panic!("{:?}", slow.records) };
        assert_eq!((&record.key[..], record.revision), (&b"slow"[..], 2));
        assert!(kinds(record).contains(&StageKind::Applied));
    }
}

/// Bytes that nobody means well with, to each method: an error or an answer, and nothing changed.
#[tokio::test(flavor = "current_thread")]
async fn hostile_bytes_change_nothing() {
    let lone = Lone::start(&[]);
    let mut client = lone.connect().await;
    let put = PutRequest { prev_kv: true, ..put_request("key", "value") };
    let put = TraceRequest { request: Some(Request::Put(put)) }.encode_to_vec();
    // Each with the code that it must have; 13 is what etcd says of a message that it cannot read.
    let mut corpus: Vec<(Vec<u8>, u32)> = vec![
        // No request; a field that nobody knows; a range where a number should be; a group without end.
        (vec![], 3),
        (vec![0x7a, 0], 3),
        (vec![0x08, 1], 13),
        (vec![0x0b], 13),
        // Lengths beyond the end, and beyond all memory.
        (vec![0x12, 0x05, 1], 13),
        (vec![0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], 13),
        // A tag that does not end, the tag 0, a wire type that is none.
        (vec![0xff; 12], 13),
        (vec![0], 13),
        (vec![0x17], 13),
        // Within the put: a key as a number.
        (vec![0x12, 2, 0x08, 7], 13),
    ];
    corpus.extend((1..put.len()).map(|end| (put[..end].to_vec(), 13)));
    // A transaction in a transaction in …, deeper than anybody reads.
    let mut txn = TxnRequest::default().encode_to_vec();
    for _ in 0..2_000 {
        let mut operation = vec![0x22];
        prost::encoding::encode_varint(txn.len() as u64, &mut operation);
        operation.extend(&txn);
        txn = vec![0x12];
        prost::encoding::encode_varint(operation.len() as u64, &mut txn);
        txn.extend(&operation);
    }
    let mut deep = vec![0x22];
    prost::encoding::encode_varint(txn.len() as u64, &mut deep);
    deep.extend(&txn);
    corpus.push((deep, 13));
    for (bytes, code) in &corpus {
        let shown = &bytes[..bytes.len().min(16)];
        let outcome = call(&mut client, head("/quorate.v1.Trace/Trace"), framed(bytes)).await;
        assert_eq!(outcome.code, *code, "{shown:x?}: {}", outcome.text);
        assert!(!outcome.text.is_empty());
        // The others read numbers, or nothing: they may understand it, and must not mind.
        for method in ["Stages", "Slow"] {
            let path = format!("/quorate.v1.Trace/{method}");
            let outcome = call(&mut client, head(&path), framed(bytes)).await;
            assert!(matches!(outcome.code, 0 | 13), "{method} {shown:x?}: {}", outcome.text);
        }
    }
    let all = RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
    let (response, _) = trace(&lone, Request::Range(all)).await;
    let Some(Response::Range(range)) = response else { panic!("{response:?}") };
    assert_eq!((range.count, range.header.unwrap().revision), (0, 1));
}
