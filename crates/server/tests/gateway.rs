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
    let deadline = Instant::now() + Duration::from_secs(20);
    while watchers(client).await != "0" {
        assert!(Instant::now() < deadline, "watchers are left");
        tokio::time::sleep(Duration::from_millis(10)).await;
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
