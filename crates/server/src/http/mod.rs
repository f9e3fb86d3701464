//! The pages on the client port: version, health and metrics, over HTTP/1.1 and HTTP/2 alike.

mod health;

use std::rc::Rc;

use bytes::Bytes;
use h2::server::SendResponse;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Uri};

use crate::config::{CLUSTER_VERSION, SERVER_VERSION};
use crate::handle::Node;
use crate::metrics;
use crate::serve::shard::Shard;

const TEXT: &str = "text/plain; charset=utf-8";

/// Answers a request that came over HTTP/2, in a task of its own: a page may wait for a read index.
pub fn spawn(shard: &Rc<Shard>, method: Method, uri: Uri, mut respond: SendResponse<Bytes>) {
    let shard = shard.clone();
    tokio::task::spawn_local(async move {
        let (head, body) = answer(&shard, &method, &uri).await.into_parts();
        // An error says that the client has gone.
        let sent = respond
            .send_response(Response::from_parts(head, ()), false)
            .and_then(|mut stream| stream.send_data(Bytes::from(body), true));
        drop(sent);
    });
}

/// Answers a request; none of the pages looks at a body.
pub async fn answer(shard: &Rc<Shard>, method: &Method, uri: &Uri) -> Response<String> {
    let query = uri.query().unwrap_or("");
    let path = uri.path();
    let known = matches!(path, "/version" | "/metrics" | "/health") || health::is_check(path);
    if !known {
        return page(StatusCode::NOT_FOUND, TEXT, "404 page not found\n".to_string());
    }
    // Prometheus' page takes any method in etcd, too.
    if *method != Method::GET && path != "/metrics" {
        let mut response =
            page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method Not Allowed\n".to_string());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    match path {
        "/version" => page(StatusCode::OK, "application/json", version(&shard.node)),
        "/metrics" => page(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            metrics::page(&shard.node),
        ),
        "/health" => health::health(shard, query).await,
        _ => health::checks(shard, path, query).await,
    }
}

fn page(status: StatusCode, content: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
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
            (decode(key) == name).then(|| decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
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
                out.push(if byte == b'+' { b' ' } else { byte });
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
    fn parameters_are_read_from_a_query() {
        let query = "verbose&exclude=a%20b&exclude=c+d&x=1&exclude=%zz";
        assert_eq!(parameters(query, "exclude"), ["a b", "c d", "%zz"]);
        assert_eq!(parameters(query, "verbose"), [""]);
        assert!(parameters("", "verbose").is_empty());
    }
}
