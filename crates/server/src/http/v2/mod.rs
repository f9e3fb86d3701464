//! The v2 API, as etcd 3.4 has it with `--enable-v2`: keys in a tree, members, machines, statistics.
//!
//! ```text
//!   go          how Go reads and writes texts
//!   request     a request for a key, read and checked        ┐
//!   node        nodes and their records                      │ pure: no clock, no socket
//!   event       changes, their records, and who is told      │
//!   operation   what a request does to the tree              │
//!   error       codes and statuses                           ┘
//!   tree        reading the keyspace, transactions, expiry
//!   wait        long polls and streams
//!   cluster     members and machines
//!   stats       statistics
//! ```
//!
//! The tree is kept in the one replicated store, under a prefix of its own ([`node`]), by transactions like any
//! client's. `docs/v2.md` tells users what differs from etcd.

mod cluster;
pub mod error;
pub mod event;
pub mod go;
pub mod node;
pub mod operation;
pub mod request;
pub mod stats;
mod tree;
mod wait;

use std::rc::Rc;
use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE, LOCATION};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};

use self::error::{Code, Error};
use self::event::{Action, Event};
use self::go::Form;
use self::node::Path;
use self::operation::Operation;
use self::request::KeyRequest;
use self::tree::Past;
pub use self::wait::Hub;
use self::wait::Wait;
use super::body::Unread;
use super::{Body, Request, RequestBody, TEXT, page};
use crate::log;
use crate::serve::shard::Shard;

const JSON: &str = "application/json";
/// Bytes of a form that are read; more is `http: POST too large`.
const FORM_BYTES_MAX: usize = 10 << 20;
const KEYS: &[u8] = b"/v2/keys";

/// What the shards of a member share for the v2 API.
#[derive(Default)]
pub struct Shared {
    /// Whose turn it is to change the tree. A lock of tokio's, for it spans the wait for the cluster; it guards no data:
    /// without it changes would still be right, but spoil each other's transactions.
    turn: tokio::sync::Mutex<()>,
    /// What was done.
    pub counts: stats::Counts,
}

/// Whether a path is the v2 API's.
pub fn is_path(path: &str) -> bool {
    path == "/v2" || path.starts_with("/v2/")
}

/// Looks after expiry, for as long as the shard lives.
pub async fn run_expiry(shard: Rc<Shard>) {
    let mut pause = tree::EXPIRY_INTERVAL;
    loop {
        tokio::time::sleep(pause).await;
        if shard.stopping.get() {
            return;
        }
        pause = tree::EXPIRY_INTERVAL;
        if !shard.view.leads() {
            continue;
        }
        match tree::expire(&shard).await {
            Ok(true) => pause = Duration::ZERO,
            Ok(false) => {}
            Err(error) => log!(Warn, "v2 keys could not be expired", "error" => error.to_json()),
        }
    }
}

/// Answers a request whose path is the v2 API's.
pub async fn answer(shard: &Rc<Shard>, request: Request) -> Response<Body> {
    if !shard.node.config.enable_v2 {
        let text = "the v2 API is not enabled; start the member with --enable-v2\n".to_string();
        return page(StatusCode::NOT_FOUND, TEXT, text);
    }
    let Ok(path) = go::unescape(request.head.uri.path().as_bytes(), false) else {
        return super::no_address(&request);
    };
    let wanted = go::mux_path(&path);
    if wanted != path {
        return redirect(&request.head, &wanted);
    }
    let method = &request.head.method;
    match path.as_slice() {
        b"/v2/machines" => match only(method, "GET,HEAD") {
            Some(refusal) => refusal,
            None => cluster::machines(shard),
        },
        b"/v2/stats/self" | b"/v2/stats/leader" | b"/v2/stats/store" => match only(method, "GET") {
            Some(refusal) => refusal,
            None => stats::answer(shard, &path),
        },
        path if under(path, b"/v2/members").is_some() => {
            let rest = under(path, b"/v2/members").unwrap_or_default();
            match only(method, "GET,POST,DELETE,PUT") {
                Some(refusal) => refusal,
                None => with_cluster_id(shard, cluster::members(shard, method, rest)),
            }
        }
        path if under(path, KEYS).is_some() => match only(method, "HEAD,GET,PUT,POST,DELETE") {
            Some(refusal) => refusal,
            None => {
                let path = Path::clean(&path[KEYS.len()..]);
                with_cluster_id(shard, keys(shard, request, path).await)
            }
        },
        path if path.starts_with(b"/v2/auth/") => not_yet("users and roles"),
        _ => page(StatusCode::NOT_FOUND, TEXT, "404 page not found\n".to_string()),
    }
}

/// What follows `prefix`, if the path is it or lies under it.
fn under<'p>(path: &'p [u8], prefix: &[u8]) -> Option<&'p [u8]> {
    match path.strip_prefix(prefix)? {
        [] => Some(&[]),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// The refusal of a method that is not one of those.
fn only(method: &Method, allowed: &'static str) -> Option<Response<Body>> {
    if allowed.split(',').any(|allowed| allowed == method.as_str()) {
        return None;
    }
    let text = "Method Not Allowed\n".to_string();
    let mut response = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, text);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    Some(response)
}

fn not_yet(what: &str) -> Response<Body> {
    message(StatusCode::NOT_IMPLEMENTED, &format!("{what} are not implemented yet"))
}

/// An answer that says one thing.
fn message(status: StatusCode, text: &str) -> Response<Body> {
    let mut body = String::from("{\"message\":");
    go::write_json_string(text.as_bytes(), &mut body);
    body.push('}');
    page(status, JSON, body)
}

/// Sends a client to the clean form of its path, as Go's multiplexer does.
fn redirect(head: &Parts, path: &[u8]) -> Response<Body> {
    let mut location = go::escape_path(path);
    if let Some(query) = head.uri.query() {
        location.push('?');
        location.push_str(query);
    }
    let text = match head.method == Method::GET {
        true => format!("<a href=\"{}\">Moved Permanently</a>.\n\n", go::escape_html(&location)),
        false => String::new(),
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if matches!(head.method, Method::GET | Method::HEAD) {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, html);
    }
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn with_cluster_id(shard: &Rc<Shard>, mut response: Response<Body>) -> Response<Body> {
    let id = format!("{:x}", shard.node.identity.cluster_id);
    let id = HeaderValue::try_from(id).expect("hexadecimal digits are a header's value");
    response.headers_mut().insert(HeaderName::from_static("x-etcd-cluster-id"), id);
    response
}

async fn keys(shard: &Rc<Shard>, request: Request, path: Path) -> Response<Body> {
    let Request { head, body } = request;
    let form = form(&head, body).await;
    let request = match KeyRequest::read(&head.method, path, form, tree::now_ns()) {
        Ok(request) => request,
        Err(error) => return refuse(&error),
    };
    let answered = match Operation::of(&request) {
        Operation::Get if request.wait => return wait(shard, &request).await,
        Operation::Get => tree::get(shard, &request).await,
        _ => {
            let changed = tree::change(shard, &request).await;
            changed.map(|event| (event.node.modified, event)).map(|(index, event)| (event, index))
        }
    };
    shard.node.v2.counts.count(&Operation::of(&request), answered.is_ok());
    match answered {
        Ok((event, index)) => show(shard, &event, index, request.no_value_on_success),
        Err(error) => refuse(&error),
    }
}

async fn form(head: &Parts, body: RequestBody) -> Result<Form, String> {
    let query = head.uri.query().unwrap_or("").as_bytes();
    if !matches!(head.method, Method::PUT | Method::POST) {
        return Form::parse(query, None);
    }
    let content_type = head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let body = body.collect(FORM_BYTES_MAX).await.map_err(|unread| match unread {
        Unread::TooLarge => "http: POST too large".to_string(),
        Unread::Broken(why) => why,
    });
    let body = body.as_ref().map(|body| &body[..]).map_err(Clone::clone);
    Form::parse(query, Some((content_type, body)))
}

fn show(shard: &Rc<Shard>, event: &Event, index: u64, no_value: bool) -> Response<Body> {
    let known = matches!(
        event.action,
        Action::Set | Action::CompareAndSwap | Action::Create | Action::Update
    );
    let status = if event.is_creation() { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = page(status, JSON, event.to_json(!(no_value && known)));
    put_standing(shard, &mut response, index);
    response
}

/// The index of the answer, and where the member stands in raft.
fn put_standing(shard: &Rc<Shard>, response: &mut Response<Body>, index: u64) {
    let view = &shard.view;
    for (name, number) in [
        ("x-etcd-index", index),
        ("x-raft-index", view.committed().0),
        ("x-raft-term", view.term().0),
    ] {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from(number));
    }
}

fn refuse(error: &Error) -> Response<Body> {
    let mut response = page(error.status(), JSON, error.to_json());
    let index = HeaderValue::from(error.index);
    response.headers_mut().insert(HeaderName::from_static("x-etcd-index"), index);
    response
}

/// Answers at once with the head, and with changes when they come.
async fn wait(shard: &Rc<Shard>, request: &KeyRequest) -> Response<Body> {
    let wish = wait::Wish {
        path: request.path.clone(),
        recursive: request.recursive,
        stream: request.stream,
        since: request.wait_index,
    };
    let Some(wait) = Wait::enter(shard, wish) else {
        let text = state_machine::Error::TooManyRequests.text();
        return refuse(&Error::new(Code::RaftInternal, text, 0));
    };
    let index = match tree::past(shard, &request.path, request.recursive, request.wait_index).await
    {
        Ok((Past::Event(event), index)) => {
            wait.tell_past(&event, request.stream);
            index
        }
        Ok((Past::Nothing, index)) => {
            wait.open(index);
            index
        }
        Err(error) => return refuse(&error),
    };
    let mut response = Response::new(Body::Pieces(Box::pin(wait)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    put_standing(shard, &mut response, index);
    response
}
