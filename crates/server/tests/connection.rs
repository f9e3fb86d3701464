//! What a connection does with clients that are wrong, slow, or gone.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop where it stands, and looks at the real clock"
)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Lone, call, framed, head, outcome};
use prost::Message;
use proto::etcdserverpb::{
    PutRequest, RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn put(key: &str, value: usize) -> Bytes {
    let request = PutRequest {
        key: key.to_string().into(),
        value: vec![b'v'; value].into(),
        ..Default::default()
    };
    framed(&request.encode_to_vec())
}

fn range(key: &str) -> Bytes {
    framed(&RangeRequest { key: key.to_string().into(), ..Default::default() }.encode_to_vec())
}

#[tokio::test(flavor = "current_thread")]
async fn calls_that_cannot_be_served_get_grpcs_status_and_the_connection_lives_on() {
    let lone = Lone::start(&[]);
    let mut client = lone.connect().await;
    let too_large = "grpc: received message larger than max (2097153 vs. 2097152)";
    let mut compressed = range("k").to_vec();
    compressed[0] = 1;
    let mut zipped = head("/etcdserverpb.KV/Range");
    zipped.headers_mut().insert("grpc-encoding", "gzip".parse().unwrap());
    let mut late = head("/etcdserverpb.KV/Range");
    late.headers_mut().insert("grpc-timeout", "soon".parse().unwrap());
    for (request, body, code, text) in [
        (
            head("/etcdserverpb.KV/Get"),
            range("k"),
            12,
            "unknown method Get for service etcdserverpb.KV",
        ),
        (head("/x.Y/Z"), range("k"), 12, "unknown service x.Y"),
        (head("/Put"), range("k"), 12, "malformed method name: \"/Put\""),
        (
            head("/etcdserverpb.Auth/UserList"),
            framed(b""),
            12,
            "quorate: /etcdserverpb.Auth/UserList is not implemented yet",
        ),
        (head("/etcdserverpb.KV/Put"), framed(&vec![0; 2_097_153]), 8, too_large),
        (
            head("/etcdserverpb.KV/Range"),
            compressed.clone().into(),
            13,
            "grpc: compressed flag set with identity or empty encoding",
        ),
        (
            zipped,
            compressed.into(),
            12,
            "grpc: Decompressor is not installed for grpc-encoding \"gzip\"",
        ),
        (late, range("k"), 13, "malformed grpc-timeout: \"soon\""),
        (head("/etcdserverpb.KV/Range"), range(""), 3, "etcdserver: key is not provided"),
        (head("/etcdserverpb.KV/Put"), framed(b"\xff"), 13, ""),
        (head("/etcdserverpb.KV/Put"), Bytes::from_static(b"\0\0"), 13, "unexpected EOF"),
        (
            head("/etcdserverpb.KV/Put"),
            put("big", 1_600_000),
            3,
            "etcdserver: request is too large",
        ),
    ] {
        let path = request.uri().path().to_string();
        let outcome = call(&mut client, request, body).await;
        assert_eq!(outcome.code, code, "{path}: {}", outcome.text);
        if !text.is_empty() {
            assert_eq!(outcome.text, text);
        }
    }
    let outcome = call(&mut client, head("/etcdserverpb.KV/Put"), put("k", 3)).await;
    assert_eq!((outcome.code, outcome.text.as_str()), (0, ""));
}

#[tokio::test(flavor = "current_thread")]
async fn a_message_may_come_in_any_pieces_and_the_preface_too() {
    let lone = Lone::start(&[]);
    let mut client = lone.connect().await;
    let (response, mut send) = client.send_request(head("/etcdserverpb.KV/Put"), false).unwrap();
    let body = put("pieces", 40);
    for at in 0..body.len() {
        send.send_data(body.slice(at..at + 1), at + 1 == body.len()).unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(outcome(response).await.code, 0);
    let found = call(&mut client, head("/etcdserverpb.KV/Range"), range("pieces")).await;
    let found = RangeResponse::decode(found.body.slice(5..)).unwrap();
    assert_eq!(found.kvs[0].value.len(), 40);

    // The preface byte by byte, with an empty SETTINGS frame behind it: the server answers with its own.
    let mut tcp = tokio::net::TcpStream::connect(lone.address).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0" {
        tcp.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut frame = [0; 9];
    tcp.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[3], 4, "a SETTINGS frame comes first");
}

#[tokio::test(flavor = "current_thread")]
async fn http1_is_served_on_the_same_port() {
    let lone = Lone::start(&[]);
    for (request, status, body) in [
        ("GET /version", "200", "\"etcdserver\":\"3.7.0\""),
        ("GET /health", "200", "{\"health\":\"true\",\"reason\":\"\"}"),
        ("GET /livez?verbose", "200", "[+]serializable_read ok\nok\n"),
        ("GET /readyz", "200", "ok\n"),
        ("GET /metrics", "200", "etcd_server_has_leader 1\n"),
        ("GET /nothing", "404", "404 page not found\n"),
        ("POST /version", "405", "Method Not Allowed\n"),
    ] {
        let mut tcp = tokio::net::TcpStream::connect(lone.address).await.unwrap();
        let text = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        tcp.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        assert!(answer.contains(body), "{request}: {answer}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn pages_are_served_over_http2_as_well() {
    let lone = Lone::start(&[]);
    let mut client = lone.connect().await;
    let request =
        http::Request::get("http://member/readyz?verbose&exclude=non_learner").body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    let page = response.into_body().data().await.unwrap().unwrap();
    let page = std::str::from_utf8(&page).unwrap();
    assert!(page.contains("[+]linearizable_read ok\n") && page.ends_with("ok\n"), "{page}");
    assert!(!page.contains("non_learner"), "{page}");
}

#[tokio::test(flavor = "current_thread")]
async fn streams_above_the_limit_wait_and_reset_ones_make_room() {
    let lone = Lone::start(&["--max-concurrent-streams=4"]);
    let mut client = lone.connect().await;
    // The limit is known once the server's SETTINGS are here, which an answer proves.
    call(&mut client, head("/etcdserverpb.KV/Put"), put("k", 1)).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(client.send_request(head("/etcdserverpb.Watch/Watch"), false).unwrap());
    }
    assert_eq!(client.current_max_send_streams(), 4);
    for (response, mut send) in open {
        drop(response);
        send.send_reset(h2::Reason::CANCEL);
    }
    for _ in 0..100 {
        let mut ready = client.clone().ready().await.unwrap();
        assert_eq!(call(&mut ready, head("/etcdserverpb.KV/Put"), put("k", 1)).await.code, 0);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_thousand_reset_calls_leave_nothing_behind() {
    let lone = Lone::start(&[]);
    let mut client = lone.connect().await;
    for _ in 0..1000 {
        let mut ready = client.clone().ready().await.unwrap();
        let (response, mut send) =
            ready.send_request(head("/etcdserverpb.Watch/Watch"), false).unwrap();
        let create = watch("k", 0);
        send.send_data(create, false).unwrap();
        // The call is open on both sides when its head is answered.
        drop(response.await.unwrap());
        send.send_reset(h2::Reason::CANCEL);
    }
    // A put behind them on the same connection is served when all resets before it have been seen.
    assert_eq!(call(&mut client, head("/etcdserverpb.KV/Put"), put("k", 1)).await.code, 0);
    let node = lone.member.as_ref().unwrap().node.clone();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while node.metrics.watch_streams.value() > 0 || node.metrics.watchers.value() > 0 {
        assert!(std::time::Instant::now() < deadline, "streams are left open");
        tokio::task::yield_now().await;
    }
}

fn watch(key: &str, start_revision: i64) -> Bytes {
    let create = WatchCreateRequest {
        key: key.to_string().into(),
        range_end: vec![0].into(),
        start_revision,
        ..Default::default()
    };
    let union = proto::etcdserverpb::watch_request::RequestUnion::CreateRequest(create);
    framed(&WatchRequest { request_union: Some(union) }.encode_to_vec())
}

#[tokio::test(flavor = "current_thread")]
async fn answers_that_nobody_takes_are_bounded_and_none_is_lost() {
    const ANSWER: usize = 2 << 20;
    const ASKED: usize = 30;
    let lone = Lone::start(&[]);
    let mut writer = lone.connect().await;
    for key in ["a", "b"] {
        let outcome = call(&mut writer, head("/etcdserverpb.KV/Put"), put(key, ANSWER / 2)).await;
        assert_eq!(outcome.code, 0, "{}", outcome.text);
    }
    let both = RangeRequest { key: "a".into(), range_end: "c".into(), ..Default::default() };
    let both = framed(&both.encode_to_vec());
    let lazy = lone.connect().await;
    let mut answers = Vec::new();
    for _ in 0..ASKED {
        let (response, mut send) =
            lazy.clone().send_request(head("/etcdserverpb.KV/Range"), false).unwrap();
        send.send_data(both.clone(), true).unwrap();
        answers.push(response);
    }
    let node = lone.member.as_ref().unwrap().node.clone();
    let waiting = || node.answer_bytes.load(std::sync::atomic::Ordering::Relaxed);
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while waiting() < 16 << 20 {
        assert!(std::time::Instant::now() < deadline, "only {} bytes wait", waiting());
        tokio::task::yield_now().await;
    }
    // Others are served meanwhile; each call is several turns of every thread.
    for _ in 0..50 {
        assert_eq!(call(&mut writer, head("/etcdserverpb.KV/Put"), put("k", 1)).await.code, 0);
        // What may wait, and the eight that were being read when that was reached.
        assert!(waiting() < (16 << 20) + 9 * ANSWER, "{} bytes wait", waiting());
    }
    // All at once: the window is theirs together.
    let answers: Vec<_> = answers.into_iter().map(|answer| tokio::spawn(outcome(answer))).collect();
    for answer in answers {
        let outcome = answer.await.unwrap();
        assert_eq!((outcome.code, outcome.text.as_str()), (0, ""));
        assert!(outcome.body.len() > ANSWER);
    }
    assert_eq!(waiting(), 0);
}

#[tokio::test(flavor = "current_thread")]
async fn the_answer_to_head_is_a_head_over_http2_too() {
    let lone = Lone::start(&[]);
    let mut client = lone.connect().await;
    let request = http::Request::head("http://member/metrics").body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.into_body().data().await.is_none());
}

#[tokio::test(flavor = "current_thread")]
async fn connections_that_say_nothing_end_with_the_member_and_by_themselves() {
    let mut lone = Lone::start(&[]);
    let silent = async |first: &'static [u8]| {
        let mut tcp = tokio::net::TcpStream::connect(lone.address).await.unwrap();
        tcp.write_all(first).await.unwrap();
        tcp
    };
    // The beginning of a preface, and nothing behind it. The member's clock for it starts later than this one.
    let began = std::time::Instant::now();
    let mut dripping = silent(b"PRI * HT").await;
    assert_eq!(dripping.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(began.elapsed() >= server::serve::limits::FIRST_BYTES_DEADLINE);

    let mut waiting = [
        silent(b"").await,
        silent(b"PRI * HT").await,
        // One that was served, and is kept for more.
        silent(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n").await,
    ];
    let mut page = vec![0; 4096];
    assert!(waiting[2].read(&mut page).await.unwrap() > 0);
    let stopping = lone.member.take().unwrap();
    let stopping = tokio::task::spawn_blocking(move || stopping.stop());
    for tcp in &mut waiting {
        // Closed; or reset, if the member ended before it had read what was said.
        let end = tcp.read(&mut page).await.or_else(|error| match error.kind() {
            std::io::ErrorKind::ConnectionReset => Ok(0),
            _ => Err(error),
        });
        assert_eq!(end.unwrap(), 0);
    }
    stopping.await.unwrap();
}
