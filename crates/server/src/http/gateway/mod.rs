//! etcd's JSON API: `/v3/…`, and under their old names `/v3beta/…` and `/v3alpha/…`.
//!
//! ```text
//!   POST /v3/kv/put {"key":"Zm9v"} ──▶ Values (json) ──▶ message (request) ──▶ grpc::serve ─┐
//!        {"header":{…}} ◀── JSON (reply) ◀── message ◀── Responder::inside ◀────────────────┘
//! ```
//!
//! Nothing here knows a method or a message: paths and messages come from `proto::descriptor`, and the request
//! goes to the very code that serves gRPC, on the same shard, as if a client had sent it. So a method that is added
//! there is here by itself. What is said and when is etcd's gateway's, which is Go's grpc-gateway: [`json`],
//! [`request`] and [`reply`] keep to its rules and words, [`live`] to its streams.

mod json;
mod live;
mod reply;
mod request;

use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::alphabet;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use proto::descriptor::{Message, ROUTES, Route};
use state_machine::Error;

use super::body::Unread;
use super::{Body, Request, RequestBody, unescape};
use crate::grpc::{self, Call, Metadata};
use crate::serve::limits::JSON_BYTES_PER_BYTE;
use crate::serve::shard::Shard;
use crate::serve::status::{Code, Status};
use crate::serve::story::Story;
use crate::serve::stream::{PREFIX_BYTES, Responder, too_large};
use json::{Next, Values};
use reply::Style;

/// The names that the API had before it was `/v3/`.
const OLD_ROOTS: [&str; 2] = ["/v3beta/", "/v3alpha/"];
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const METHOD_OVERRIDE: &str = "x-http-method-override";

/// Headers that are passed on under a name of the gateway's own; all others are not.
const PERMANENT: &[&str] = &[
    "accept",
    "accept-charset",
    "accept-language",
    "accept-ranges",
    "authorization",
    "cache-control",
    "content-type",
    "cookie",
    "date",
    "expect",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-schedule-tag-match",
    "if-unmodified-since",
    "max-forwards",
    "origin",
    "pragma",
    "referer",
    "user-agent",
    "via",
    "warning",
];

/// Names that gRPC keeps for itself: no caller sets them.
const RESERVED: &[&str] = &[
    "content-type",
    "user-agent",
    "grpc-message-type",
    "grpc-encoding",
    "grpc-message",
    "grpc-status",
    "grpc-timeout",
    "te",
];

/// The path in today's API, if it is one of it.
pub fn path(path: &str) -> Option<String> {
    for old in OLD_ROOTS {
        if let Some(rest) = path.strip_prefix(old) {
            return Some(format!("/v3/{rest}"));
        }
    }
    path.starts_with("/v3/").then(|| path.to_string())
}

/// Answers a request to a path of the API.
pub async fn answer(shard: &Rc<Shard>, path: &str, request: Request) -> Response<Body> {
    let Request { head, body } = request;
    let decoded = unescape(path, false);
    let Some(route) = ROUTES.iter().find(|route| route.http == decoded) else {
        return refusal(&Status::new(Code::NotFound, "Not Found"));
    };
    // A form may say that it means another method; it is read as a form then, and no body is left.
    let override_method = match head.headers.get(CONTENT_TYPE) {
        Some(content) if content == "application/x-www-form-urlencoded" => {
            head.headers.get(METHOD_OVERRIDE).filter(|method| !method.is_empty())
        }
        _ => None,
    };
    let is_post = match override_method {
        Some(method) => {
            head.method == Method::POST && method.as_bytes().eq_ignore_ascii_case(b"POST")
        }
        None => head.method == Method::POST,
    };
    if !is_post {
        return refusal(&Status::new(Code::Unimplemented, "Method Not Allowed"));
    }
    let caller = match Caller::read(&head.headers) {
        Ok(caller) => caller,
        Err(status) => return refusal(&status),
    };
    let body = override_method.is_none().then_some(body);
    let answered = match route.server_streams {
        true => live::answer(shard, route, &caller, body).await,
        false => unary(shard, route, &caller, body).await,
    };
    answered.unwrap_or_else(|status| refusal(&status))
}

/// A method with one message and one answer.
async fn unary(
    shard: &Rc<Shard>,
    route: &Route,
    caller: &Caller,
    body: Option<RequestBody>,
) -> Result<Response<Body>, Status> {
    let message = only_message(shard, route.input, body).await?;
    let call = caller.call(shard, route, message.len())?;
    let story = Story::new(&shard.chronicle, call.method.path, call.started_us);
    let (respond, answer) = Responder::inside(story);
    grpc::serve(shard, call, message, respond);
    let answer = match caller.patience {
        None => answer.await,
        Some(patience) => {
            tokio::time::timeout(patience, answer).await.map_err(|_| out_of_time())?
        }
    };
    // Nobody answers any more when the process ends.
    let message = answer.unwrap_or_else(|_| Err(Error::Stopped.into()))?;
    let mut json = Vec::with_capacity(2 * message.len());
    reply::write(route.output, &message[PREFIX_BYTES..], Style::Plain, &mut json)
        .map_err(|_| malformed())?;
    Ok(success(Body::Whole(json.into())))
}

/// The message of a request that has one; what follows it in the body is not looked at.
async fn only_message(
    shard: &Shard,
    message: &'static Message,
    body: Option<RequestBody>,
) -> Result<Bytes, Status> {
    let invalid = |text: String| Status::new(Code::InvalidArgument, text);
    let body = match body {
        None => Bytes::new(),
        Some(body) => body.collect(body_bytes_max(shard)).await.map_err(not_read)?,
    };
    match Values::of(body).next().map_err(invalid)? {
        Next::Value(value) => request::read(message, &value).map_err(invalid),
        // An empty body is an empty message.
        Next::End | Next::More => Ok(Bytes::new()),
    }
}

fn not_read(unread: Unread) -> Status {
    match unread {
        Unread::TooLarge => Status::new(Code::ResourceExhausted, "http: request body too large"),
        Unread::Broken(text) => Status::new(Code::InvalidArgument, text),
    }
}

/// Bytes of JSON that one message may take.
fn body_bytes_max(shard: &Shard) -> usize {
    shard.node.config.receive_bytes_max().saturating_mul(JSON_BYTES_PER_BYTE)
}

/// What the head of a request says to gRPC.
struct Caller {
    metadata: HeaderMap,
    /// How long the caller waits; none at all is possible.
    patience: Option<Duration>,
}

impl Caller {
    /// Reads a request's headers.
    fn read(headers: &HeaderMap) -> Result<Caller, Status> {
        let patience = match headers.get("grpc-timeout").filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => {
                let text = String::from_utf8_lossy(text.as_bytes());
                let refused = || {
                    let text = format!("invalid grpc-timeout: {text}");
                    Status::new(Code::InvalidArgument, text)
                };
                patience(&text).ok_or_else(refused)?
            }
        };
        let mut metadata = HeaderMap::new();
        for (name, value) in headers {
            if name == AUTHORIZATION {
                metadata.append(AUTHORIZATION, value.clone());
            }
            let passed_on = match name.as_str().strip_prefix("grpc-metadata-") {
                _ if PERMANENT.contains(&name.as_str()) => format!("grpcgateway-{name}"),
                Some(name) => name.to_string(),
                None => continue,
            };
            if name.as_str().ends_with("-bin") {
                // Binary values are checked, and nobody reads them.
                check_binary(name, value)?;
                continue;
            }
            let is_text = value.as_bytes().iter().all(|c| matches!(c, b' '..=b'~'));
            let is_key = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
            if is_text
                && passed_on.bytes().all(is_key)
                && !RESERVED.contains(&passed_on.as_str())
                && let Ok(passed_on) = HeaderName::from_bytes(passed_on.as_bytes())
            {
                metadata.append(passed_on, value.clone());
            }
        }
        if let Some(patience) = patience {
            /// The longest time that gRPC's header can tell in milliseconds: more than a day.
            const LONGEST_MS: u128 = 99_999_999;
            let text = format!("{}m", patience.as_millis().clamp(1, LONGEST_MS));
            let value = HeaderValue::from_str(&text).expect("digits and a letter");
            metadata.insert(HeaderName::from_static("grpc-timeout"), value);
        }
        Ok(Caller { metadata, patience })
    }

    /// The call of a route's method, with a message of so many bytes.
    fn call(&self, shard: &Shard, route: &Route, message_bytes: usize) -> Result<Call, Status> {
        if self.patience == Some(Duration::ZERO) {
            return Err(out_of_time());
        }
        let bytes_max = shard.node.config.receive_bytes_max();
        if message_bytes > bytes_max {
            return Err(too_large(message_bytes, bytes_max));
        }
        Call::of(route.grpc, &Metadata::read(&self.metadata), shard.node.stages.now_us())
    }
}

/// Go's idea of a gRPC timeout: any number that fits, and a unit; zero means none. `None` if it is not one.
fn patience(text: &str) -> Option<Option<Duration>> {
    let (at, unit) = text.char_indices().next_back()?;
    let nanoseconds = match unit {
        'H' => 3_600_000_000_000,
        'M' => 60_000_000_000,
        'S' => 1_000_000_000,
        'm' => 1_000_000,
        'u' => 1_000,
        'n' => 1,
        _ => return None,
    };
    let number: i64 = text[..at].parse().ok()?;
    Some((number != 0).then(|| {
        // Time that has run out already is none.
        Duration::from_nanos(u64::try_from(number).unwrap_or(0).saturating_mul(nanoseconds))
    }))
}

fn check_binary(name: &HeaderName, value: &HeaderValue) -> Result<(), Status> {
    let bytes = value.as_bytes();
    let decoded = request::base64_of(&alphabet::STANDARD, bytes.len()).decode(bytes);
    decoded.map(drop).map_err(|error| {
        let at = match error {
            base64::DecodeError::InvalidByte(at, _)
            | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            _ => bytes.len(),
        };
        let name: Vec<String> = name.as_str().split('-').map(capitalized).collect();
        let name = name.join("-");
        let text = format!("invalid binary header {name}: illegal base64 data at input byte {at}");
        Status::new(Code::InvalidArgument, text)
    })
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars
        .next()
        .map_or(String::new(), |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}

fn out_of_time() -> Status {
    Status::new(Code::DeadlineExceeded, "context deadline exceeded")
}

fn malformed() -> Status {
    Status::new(Code::Internal, "the reply could not be written as JSON")
}

/// An answer of a method that was called.
fn success(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response.headers_mut().insert(
        HeaderName::from_static("grpc-metadata-content-type"),
        HeaderValue::from_static("application/grpc"),
    );
    response
}

/// The answer to a request that was not served.
fn refusal(status: &Status) -> Response<Body> {
    let mut json = Vec::new();
    write_status(status, Style::Plain, &mut json);
    let mut response = Response::new(Body::Whole(json.into()));
    *response.status_mut() = http_status(status.code);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    if status.code == Code::Unauthenticated as u32
        && let Ok(text) = HeaderValue::from_str(&status.text)
    {
        response.headers_mut().insert(WWW_AUTHENTICATE, text);
    }
    response
}

fn write_status(status: &Status, style: Style, out: &mut Vec<u8>) {
    out.extend(format!("{{\"code\":{}", status.code).bytes());
    if !status.text.is_empty() {
        out.extend(b",\"message\":");
        reply::write_text(&status.text, style, out);
    }
    out.push(b'}');
}

/// The HTTP status of a gRPC code.
fn http_status(code: u32) -> StatusCode {
    /// What proxies say of a client that has gone.
    const CLIENT_CLOSED_REQUEST: u16 = 499;
    match code {
        0 => StatusCode::OK,
        1 => StatusCode::from_u16(CLIENT_CLOSED_REQUEST).expect("three digits"),
        3 | 9 | 11 => StatusCode::BAD_REQUEST,
        4 => StatusCode::GATEWAY_TIMEOUT,
        5 => StatusCode::NOT_FOUND,
        6 | 10 => StatusCode::CONFLICT,
        7 => StatusCode::FORBIDDEN,
        8 => StatusCode::TOO_MANY_REQUESTS,
        12 => StatusCode::NOT_IMPLEMENTED,
        14 => StatusCode::SERVICE_UNAVAILABLE,
        16 => StatusCode::UNAUTHORIZED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_of_the_api_are_todays() {
        for (given, want) in [
            ("/v3/kv/put", Some("/v3/kv/put")),
            ("/v3beta/kv/put", Some("/v3/kv/put")),
            ("/v3alpha/watch", Some("/v3/watch")),
            ("/v3beta/v3beta/watch", Some("/v3/v3beta/watch")),
            ("/v3beta", None),
            ("/v3", None),
            ("/v4/kv/put", None),
            ("/v2/keys", None),
        ] {
            assert_eq!(path(given).as_deref(), want, "{given}");
        }
    }

    /// A method that the descriptors give a path and gRPC does not know could never be called.
    #[test]
    fn every_path_leads_to_a_method() {
        let metadata = HeaderMap::new();
        for route in ROUTES {
            Call::of(route.grpc, &Metadata::read(&metadata), 0).unwrap();
            assert_eq!(path(route.http).as_deref(), Some(route.http));
        }
    }

    #[test]
    fn headers_become_metadata() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer x"),
            ("accept", "*/*"),
            ("x-other", "1"),
            ("grpc-metadata-hasleader", "true"),
            ("grpc-metadata-grpc-status", "5"),
            ("grpc-metadata-a!b", "1"),
            ("grpc-metadata-x-bin", "Zm9"),
            ("grpc-timeout", "1500u"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        headers.append("grpc-metadata-text", HeaderValue::from_bytes(b"\xff").unwrap());
        let caller = Caller::read(&headers).unwrap();
        assert_eq!(caller.patience, Some(Duration::from_micros(1500)));
        let mut passed_on: Vec<(&str, &str)> = caller
            .metadata
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        passed_on.sort_unstable();
        assert_eq!(
            passed_on,
            [
                ("authorization", "Bearer x"),
                ("grpc-timeout", "1m"),
                ("grpcgateway-accept", "*/*"),
                ("grpcgateway-authorization", "Bearer x"),
                ("hasleader", "true"),
            ]
        );
        headers.insert("grpc-metadata-x-bin", "a%".parse().unwrap());
        assert_eq!(
            Caller::read(&headers).err().unwrap().text,
            "invalid binary header Grpc-Metadata-X-Bin: illegal base64 data at input byte 1"
        );
    }

    #[test]
    fn a_callers_patience_is_told_as_in_go() {
        let ms = |ms| Some(Some(Duration::from_millis(ms)));
        for (text, want) in [
            ("1S", ms(1000)),
            ("+2M", ms(120_000)),
            ("1H", ms(3_600_000)),
            ("123456789m", ms(123_456_789)),
            ("0S", Some(None)),
            ("-1S", ms(0)),
            ("1n", Some(Some(Duration::from_nanos(1)))),
            ("9223372036854775807H", Some(Some(Duration::from_nanos(u64::MAX)))),
            ("S", None),
            ("", None),
            ("1", None),
            ("1x", None),
            ("1.5S", None),
            ("1ü", None),
        ] {
            assert_eq!(patience(text), want, "{text}");
        }
    }

    #[test]
    fn refusals_have_etcds_status_and_shape() {
        for (code, status) in [
            (Code::Canceled, 499),
            (Code::Unknown, 500),
            (Code::InvalidArgument, 400),
            (Code::DeadlineExceeded, 504),
            (Code::NotFound, 404),
            (Code::AlreadyExists, 409),
            (Code::PermissionDenied, 403),
            (Code::ResourceExhausted, 429),
            (Code::FailedPrecondition, 400),
            (Code::Aborted, 409),
            (Code::OutOfRange, 400),
            (Code::Unimplemented, 501),
            (Code::Internal, 500),
            (Code::Unavailable, 503),
            (Code::DataLoss, 500),
            (Code::Unauthenticated, 401),
        ] {
            let response = refusal(&Status::new(code, "a\"b<"));
            assert_eq!(response.status().as_u16(), status);
            let Body::Whole(body) = response.body() else { panic!("a refusal is whole") };
            assert_eq!(body, &format!("{{\"code\":{},\"message\":\"a\\\"b<\"}}", code as u32));
            let asks = response.headers().get(WWW_AUTHENTICATE);
            assert_eq!(asks.is_some(), code == Code::Unauthenticated);
        }
    }
}
