//! What the client port says in plain HTTP: version, health, metrics and the JSON API, over HTTP/1.1 and HTTP/2 alike.

pub mod body;
mod gateway;
mod health;
pub mod v2;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use futures_util::Stream;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW,
    CONNECTION, CONTENT_TYPE, LOCATION,
};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Version};

pub use body::{Body, Request, RequestBody};

use crate::config::{CLUSTER_VERSION, SERVER_VERSION};
use crate::handle::Node;
use crate::metrics;
use crate::serve::limit;
use crate::serve::limits::{PAGES_PER_SHARD, SEND_BUFFER_BYTES};
use crate::serve::shard::Shard;

const TEXT: &str = "text/plain; charset=utf-8";

/// Answers a request that came over HTTP/2, in a task of its own: a page may wait for a read index.
pub fn spawn(shard: &Rc<Shard>, head: Parts, body: RecvStream, mut respond: SendResponse<Bytes>) {
    if shard.pages.get() >= PAGES_PER_SHARD {
        let mut head = Response::new(());
        *head.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        // An error says that the client has gone.
        return drop(respond.send_response(head, true));
    }
    shard.pages.set(shard.pages.get() + 1);
    let shard = shard.clone();
    tokio::task::spawn_local(async move {
        send_page(&shard, head, body, respond).await;
        shard.pages.set(shard.pages.get() - 1);
    });
}

async fn send_page(
    shard: &Rc<Shard>,
    head: Parts,
    body: RecvStream,
    mut respond: SendResponse<Bytes>,
) {
    // The answer to HEAD is the head alone, whatever body it tells of.
    let head_only = head.method == Method::HEAD;
    let request = Request { head, body: RequestBody::Http2(body) };
    let mut answering = pin!(answer(shard, request));
    // `None` when the client has gone.
    let answered = poll_fn(|cx| match respond.poll_reset(cx) {
        Poll::Ready(_) => Poll::Ready(None),
        Poll::Pending => answering.as_mut().poll(cx).map(Some),
    })
    .await;
    let Some(response) = answered else { return };
    let (head, body) = response.into_parts();
    let head = Response::from_parts(head, ());
    // An error says that the client has gone.
    let sent = match body {
        Body::Whole(body) => {
            let end = head_only || body.is_empty();
            respond.send_response(head, end).and_then(|mut stream| match end {
                true => Ok(()),
                false => stream.send_data(body, true),
            })
        }
        Body::Pieces(_) if head_only => respond.send_response(head, true).map(drop),
        Body::Pieces(pieces) => match respond.send_response(head, false) {
            Ok(stream) => send_pieces(stream, pieces).await,
            Err(error) => Err(error),
        },
    };
    drop(sent);
}

/// Sends pieces as the client's window takes them, to their end or until the client has gone.
async fn send_pieces(
    mut stream: SendStream<Bytes>,
    mut pieces: Pin<Box<dyn Stream<Item = Bytes>>>,
) -> Result<(), h2::Error> {
    loop {
        let piece = poll_fn(|cx| match stream.poll_reset(cx) {
            Poll::Ready(gone) => Poll::Ready(gone.map(|_| None)),
            Poll::Pending => pieces.as_mut().poll_next(cx).map(|piece| Ok(Some(piece))),
        })
        .await?;
        let Some(piece) = piece else { return Ok(()) };
        let Some(piece) = piece else { return stream.send_data(Bytes::new(), true) };
        stream.reserve_capacity(piece.len().min(SEND_BUFFER_BYTES));
        while stream.capacity() == 0 {
            match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(room) => drop(room?),
                None => return Ok(()),
            }
        }
        stream.send_data(piece, false)?;
    }
}

/// Answers a request. As in etcd every answer tells browsers that pages of any origin may read it, and a
/// browser that asks first is told the same.
pub async fn answer(shard: &Rc<Shard>, request: Request) -> Response<Body> {
    if shard.node.limit.is_some() {
        return page(StatusCode::NOT_IMPLEMENTED, TEXT, limit::ONLY.to_string());
    }
    if v2::go::unescape(request.head.uri.path().as_bytes(), false).is_err() {
        return no_address(&request);
    }
    let mut response = match request.head.method == Method::OPTIONS {
        true => Response::new(Body::Whole(Bytes::new())),
        false => route(shard, request).await,
    };
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_METHODS, "POST, GET, OPTIONS, PUT, DELETE"),
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "accept, content-type, authorization"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A path with a percent sign that says nothing: Go's server says so itself, before any handler, and lets the client go.
fn no_address(request: &Request) -> Response<Body> {
    let mut response = page(StatusCode::BAD_REQUEST, TEXT, "400 Bad Request".to_string());
    response.headers_mut().remove("x-content-type-options");
    // HTTP/2 has no such header.
    if request.head.version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Which path is whose.
async fn route(shard: &Rc<Shard>, request: Request) -> Response<Body> {
    let Parts { method, uri, .. } = &request.head;
    let (path, query) = (uri.path(), uri.query().unwrap_or(""));
    let api_path = gateway::path(path).filter(|_| shard.node.config.enable_grpc_gateway);
    if let Some(clean) = clean(api_path.as_deref().unwrap_or(path)) {
        return redirect(method, &clean, uri.query());
    }
    if let Some(path) = api_path {
        return gateway::answer(shard, &path, request).await;
    }
    match path {
        // Prometheus' page takes any method in etcd, too.
        "/metrics" => page(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            metrics::page(&shard.node),
        ),
        "/version" => match method == Method::GET {
            true => page(StatusCode::OK, "application/json", version(&shard.node)),
            false => get_only(),
        },
        "/health" => match method == Method::GET {
            true => health::health(shard, query).await,
            false => get_only(),
        },
        _ if health::is_check(path) => match method == Method::GET {
            true => health::checks(shard, path, query).await,
            false => get_only(),
        },
        _ if v2::is_path(path) => v2::answer(shard, request).await,
        _ => page(StatusCode::NOT_FOUND, TEXT, "404 page not found\n".to_string()),
    }
}

/// The path without its empty, `.` and `..` parts, if it has some; the API's root ends with a slash.
fn clean(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut clean = format!("/{}", parts.join("/"));
    let is_directory = path.ends_with('/') || clean == "/v3";
    if is_directory && !parts.is_empty() {
        clean.push('/');
    }
    (clean != path && path.starts_with('/')).then_some(clean)
}

/// Sends a client to the path that it meant, as Go's server does: that of the newest etcd with 307, that of etcd 3.4,
/// which was the last to have the v2 API, with 301.
fn redirect(method: &Method, path: &str, query: Option<&str>) -> Response<Body> {
    let place = query.map_or_else(|| path.to_string(), |query| format!("{path}?{query}"));
    let (status, reason) = match v2::is_path(path) {
        true => (StatusCode::MOVED_PERMANENTLY, "Moved Permanently"),
        false => (StatusCode::TEMPORARY_REDIRECT, "Temporary Redirect"),
    };
    let body = match *method == Method::GET {
        true => {
            let mut text = place.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            text = text.replace('"', "&#34;").replace('\'', "&#39;");
            format!("<a href=\"{text}\">{reason}</a>.\n\n")
        }
        false => String::new(),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    if let Ok(place) = HeaderValue::from_str(&place) {
        response.headers_mut().insert(LOCATION, place);
    }
    if *method == Method::GET || *method == Method::HEAD {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, html);
    }
    response
}

fn get_only() -> Response<Body> {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let mut response = page(status, TEXT, "Method Not Allowed\n".to_string());
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    response
}

fn page(status: StatusCode, content: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content));
    if content == TEXT {
        response.headers_mut().insert(
            HeaderName::from_static("x-content-type-options"),
            HeaderValue::from_static("nosniff"),
        );
    }
    response
}

/// The versions of this binary, of the cluster and of what it stores, as JSON.
pub(crate) fn version(node: &Node) -> String {
    let cluster = node.view.state.cluster();
    let (decided, storage) = match &cluster.version {
        Some(version) => {
            (format!("{}.{}.{}", version.major, version.minor, version.patch), CLUSTER_VERSION)
        }
        None => ("not_decided".to_string(), "unknown"),
    };
    format!(
        "{{\"etcdserver\":\"{SERVER_VERSION}\",\"etcdcluster\":\"{decided}\",\"storage\":\"{storage}\"}}"
    )
}

/// The values of a query's parameter, percent-decoded, in order; a parameter without `=` has an empty value.
fn parameters(query: &str, name: &str) -> Vec<String> {
    query
        .split('&')
        .filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescape(key, true) == name).then(|| unescape(value, true))
        })
        .collect()
}

/// Takes the percent-encoding away; in a query a plus is a space.
fn unescape(text: &str, is_query: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |byte: Option<&u8>| byte.and_then(|byte| (*byte as char).to_digit(16));
        match (bytes[at], hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(if byte == b'+' && is_query { b' ' } else { byte });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_in_go() {
        for (path, want) in [
            ("/", None),
            ("/version", None),
            ("/v3/kv/put", None),
            ("/v3/kv/put/", None),
            ("*", None),
            ("/v3", Some("/v3/")),
            ("//", Some("/")),
            ("//version", Some("/version")),
            ("/v3//kv/put", Some("/v3/kv/put")),
            ("/v3/./kv/../kv/put//", Some("/v3/kv/put/")),
            ("/../..", Some("/")),
        ] {
            assert_eq!(clean(path).as_deref(), want, "{path}");
        }
    }

    #[test]
    fn parameters_are_read_from_a_query() {
        let query = "verbose&exclude=a%20b&exclude=c+d&x=1&exclude=%zz";
        assert_eq!(parameters(query, "exclude"), ["a b", "c d", "%zz"]);
        assert_eq!(parameters(query, "verbose"), [""]);
        assert!(parameters("", "verbose").is_empty());
    }
}
