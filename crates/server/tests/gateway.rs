//! The JSON API over HTTP/2: what it says, and that a client's going ends its streams.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop where it stands, and looks at the real clock"
)]

mod common;

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use common::Lone;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response};

type Client = SendRequest<Bytes>;

async fn open(
    client: &mut Client,
    method: Method,
    path: &str,
) -> (SendStream<Bytes>, h2::client::ResponseFuture) {
    *client = client.clone().ready().await.unwrap();
    let uri = format!("http://member{path}");
    let request = Request::builder().method(method).uri(uri).body(()).unwrap();
    let (response, send) = client.send_request(request, false).unwrap();
    (send, response)
}

async fn ask(
    client: &mut Client,
    method: Method,
    path: &str,
    body: &str,
) -> (Response<()>, String) {
    let (mut send, response) = open(client, method, path).await;
    send.send_data(body.to_string().into(), true).unwrap();
    let (head, mut stream) = response.await.unwrap().into_parts();
    let mut text = BytesMut::new();
    while let Some(piece) = stream.data().await {
        let piece = piece.unwrap();
        stream.flow_control().release_capacity(piece.len()).unwrap();
        text.extend_from_slice(&piece);
    }
    (Response::from_parts(head, ()), String::from_utf8(text.to_vec()).unwrap())
}

/// The lines of a stream; a frame may hold several.
struct Lines {
    stream: RecvStream,
    received: String,
}

impl Lines {
    fn new(stream: RecvStream) -> Lines {
        Lines { stream, received: String::new() }
    }

    async fn next(&mut self) -> String {
        loop {
            if let Some(end) = self.received.find('\n') {
                let rest = self.received.split_off(end + 1);
                return std::mem::replace(&mut self.received, rest);
            }
            let piece = self.stream.data().await.unwrap().unwrap();
            self.stream.flow_control().release_capacity(piece.len()).unwrap();
            self.received.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }
}

async fn watchers(client: &mut Client) -> String {
    let (_, page) = ask(client, Method::GET, "/metrics", "").await;
    let name = "etcd_debugging_mvcc_watcher_total ";
    page.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_string()
}

#[tokio::test(flavor = "current_thread")]
async fn replies_refusals_and_streams_go_over_http2() {
    let lone = Lone::start(&[]);
    let client = &mut lone.connect().await;
    let (head, text) =
        ask(client, Method::POST, "/v3alpha/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#).await;
    assert_eq!((head.status().as_u16(), text.contains(r#""revision":"2""#)), (200, true), "{text}");
    assert_eq!(head.headers()["content-type"], "application/json");
    assert_eq!(head.headers()["grpc-metadata-content-type"], "application/grpc");
    assert_eq!(head.headers()["access-control-allow-origin"], "*");
    for (method, path, body, status, want) in [
        (
            Method::POST,
            "/v3/kv/range",
            "{}",
            400,
            r#"{"code":3,"message":"etcdserver: key is not provided"}"#,
        ),
        (Method::POST, "/v3/kv/range", "{", 400, r#"{"code":3,"message":"unexpected EOF"}"#),
        (Method::GET, "/v3/kv/range", "", 501, r#"{"code":12,"message":"Method Not Allowed"}"#),
        (Method::HEAD, "/v3/kv/range", "", 501, ""),
        (Method::OPTIONS, "/v3/kv/range", "", 200, ""),
        (Method::POST, "/v3/none", "", 404, r#"{"code":5,"message":"Not Found"}"#),
        (Method::POST, "/v3", "", 307, ""),
    ] {
        let (head, text) = ask(client, method.clone(), path, body).await;
        assert_eq!((head.status().as_u16(), text.as_str()), (status, want), "{method} {path}");
    }

    let (mut send, response) = open(client, Method::POST, "/v3/watch").await;
    send.send_data(r#"{"create_request":{"key":"Zm9v","start_revision":2}}"#.into(), false)
        .unwrap();
    let mut lines = Lines::new(response.await.unwrap().into_body());
    assert!(lines.next().await.contains(r#""created":true"#));
    assert!(lines.next().await.contains(r#""mod_revision":"2""#));
    ask(client, Method::POST, "/v3/kv/put", r#"{"key":"Zm9v"}"#).await;
    assert!(lines.next().await.contains(r#""mod_revision":"3""#));
    // The client goes on speaking while it is answered.
    send.send_data(r#"{"create_request":{"key":"YQ=="}} "#.into(), false).unwrap();
    assert!(lines.next().await.contains(r#""watch_id":"1","created":true"#));
    assert_eq!(watchers(client).await, "2");
    send.send_reset(Reason::CANCEL);
    let deadline = Instant::now() + Duration::from_secs(180);
    while watchers(client).await != "0" {
        assert!(Instant::now() < deadline, "watchers are left");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Bodies that are no message, over HTTP/2: refused as over HTTP/1.1, in the same words, and nothing changes; neither by
/// those that break off, or come after the answer.
#[tokio::test(flavor = "current_thread")]
async fn hostile_bodies_over_http2_change_nothing() {
    let lone = Lone::start(&["--max-request-bytes", "1000"]);
    let client = &mut lone.connect().await;
    ask(client, Method::POST, "/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#).await;
    let state = async |client: &mut Client| {
        let (_, hash) = ask(client, Method::POST, "/v3/maintenance/hashkv", "{}").await;
        assert!(hash.contains(r#""revision":"2""#), "{hash}");
        hash
    };
    let before = state(client).await;
    let deep = format!(r#"{{"key":{}"#, "[".repeat(10_001));
    let bodies: [(&[u8], &str); 14] = [
        (b"{", "unexpected EOF"),
        (b"x", "invalid character 'x' looking for beginning of value"),
        (b"[]", "unexpected token ["),
        (b"{'a':1}", "looking for beginning of object key string"),
        (br#"{"key":"x!"}"#, "invalid value for bytes field key"),
        (br#"{"key":5}"#, "invalid value for bytes field key: 5"),
        (br#"{"key":"\ud800"}"#, "proto: unexpected EOF"),
        (b"{\"key\":\"\xff\"}", "invalid UTF-8"),
        (br#"{"key":"Zm9v","lease":1e30}"#, "invalid value for int64 field lease: 1e30"),
        (br#"{"key":"Zm9v","lease":"99999999999999999999"}"#, "int64 field lease"),
        (br#"{"key":"Zm9v","key":"Zm9v"}"#, "duplicate field"),
        (br#"{"key":"Zm9v","prev_kv":"yes"}"#, "invalid value for bool field prevKv"),
        (b"\0", "looking for beginning of value"),
        (deep.as_bytes(), "exceeded max depth"),
    ];
    for (body, why) in bodies {
        let (mut send, response) = open(client, Method::POST, "/v3/kv/put").await;
        // In two pieces, for a body comes as it comes.
        let (first, second) = body.split_at(body.len() / 2);
        send.send_data(Bytes::copy_from_slice(first), false).unwrap();
        send.send_data(Bytes::copy_from_slice(second), true).unwrap();
        let (status, text) = whole(response).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(100)]);
        assert_eq!(status, 400, "{shown}: {text}");
        assert!(text.starts_with(r#"{"code":3,"#), "{shown}: {text}");
        assert!(text.replace('\u{a0}', " ").contains(why), "{shown}: {text}");
    }
    // A byte more than may be read: eight for each of a message's, a thousand and half a MiB.
    let (mut send, response) = open(client, Method::POST, "/v3/kv/put").await;
    let long = " ".repeat(8 * (1000 + 512 * 1024) + 1);
    let (status, text) = tokio::join!(whole(response), feed(&mut send, long.as_bytes())).0;
    assert_eq!(
        (status, text.as_str()),
        (429, r#"{"code":8,"message":"http: request body too large"}"#)
    );
    // A message that is all there, and a stream that is reset before its end.
    for path in ["/v3/kv/put", "/v3/lease/grant", "/v3/watch"] {
        let (mut send, response) = open(client, Method::POST, path).await;
        send.send_data(r#"{"key":"Zm9v","ID":"77","TTL":"60""#.into(), false).unwrap();
        send.send_reset(Reason::CANCEL);
        assert!(response.await.is_err(), "{path}");
    }
    assert_eq!(state(client).await, before);
    let (_, leases) = ask(client, Method::POST, "/v3/lease/leases", "{}").await;
    assert!(!leases.contains("leases"), "{leases}");
    assert_eq!(watchers(client).await, "0");
}

/// The status of an answer, and its body.
async fn whole(response: h2::client::ResponseFuture) -> (u16, String) {
    let (head, mut stream) = response.await.unwrap().into_parts();
    let mut text = Vec::new();
    while let Some(piece) = stream.data().await {
        let Ok(piece) = piece else { break };
        stream.flow_control().release_capacity(piece.len()).unwrap();
        text.extend_from_slice(&piece);
    }
    (head.status.as_u16(), String::from_utf8(text).unwrap())
}

/// Sends a long body as the window allows, until it is sent or nobody wants more.
async fn feed(send: &mut SendStream<Bytes>, mut body: &[u8]) {
    while !body.is_empty() {
        send.reserve_capacity(body.len());
        let Some(Ok(room)) = std::future::poll_fn(|cx| send.poll_capacity(cx)).await else {
            return;
        };
        let (piece, rest) = body.split_at(room.min(body.len()));
        body = rest;
        if send.send_data(Bytes::copy_from_slice(piece), body.is_empty()).is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_member_that_ends_says_so_and_one_that_has_no_json_api_has_none() {
    let mut lone = Lone::start(&[]);
    let mut client = lone.connect().await;
    let (mut send, response) = open(&mut client, Method::POST, "/v3/watch").await;
    send.send_data(r#"{"create_request":{"key":"Zm9v"}}"#.into(), false).unwrap();
    let mut lines = Lines::new(response.await.unwrap().into_body());
    assert!(lines.next().await.contains(r#""created":true"#));
    let member = lone.member.take().unwrap();
    let ended = tokio::task::spawn_blocking(move || member.stop());
    assert_eq!(
        lines.next().await,
        "{\"error\":{\"code\":14,\"message\":\"etcdserver: server stopped\"}}\n"
    );
    drop((send, lines, client));
    ended.await.unwrap();

    let lone = Lone::start(&["--enable-grpc-gateway=false"]);
    let mut client = lone.connect().await;
    let (head, text) = ask(&mut client, Method::POST, "/v3/kv/put", r#"{"key":"Zm9v"}"#).await;
    assert_eq!((head.status().as_u16(), text.as_str()), (404, "404 page not found\n"));
}
