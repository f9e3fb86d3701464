//! etcd's services: which method a path names, what a call's metadata asks for, and who serves it.

pub mod cluster;
pub mod health;
pub mod kv;
pub mod lease;
pub mod maintenance;
pub mod trace;
pub mod watch;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use state_machine::Error;

pub use kv::{Read, txn_of_page};
pub use lease::Question;
pub use watch::WatchHub;

use crate::config::Config;
use crate::serve::limit;
use crate::serve::limits::REQUEST_DEADLINE;
use crate::serve::shard::Shard;
use crate::serve::status::{Code, Status};
use crate::serve::stream::{Outgoing, Responder};

/// How a method is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One message, one answer.
    Unary,
    /// Either side, or both, may send many.
    Streaming,
}

/// What a method is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    Range,
    Put,
    DeleteRange,
    Txn,
    Compact,
    Watch,
    LeaseGrant,
    LeaseRevoke,
    LeaseKeepAlive,
    LeaseTimeToLive,
    LeaseLeases,
    MemberList,
    Alarm,
    Status,
    Hash,
    HashKv,
    HealthCheck,
    HealthWatch,
    Trace,
    Stages,
    Slow,
    /// Known, and answered that it is not there yet.
    Later,
}

/// A method of one of etcd's services.
#[derive(Debug)]
pub struct Method {
    /// `/service/method`.
    pub path: &'static str,
    /// How it is called.
    pub kind: Kind,
    served: Served,
}

const fn unary(path: &'static str, served: Served) -> Method {
    Method { path, kind: Kind::Unary, served }
}
const fn streaming(path: &'static str, served: Served) -> Method {
    Method { path, kind: Kind::Streaming, served }
}

/// Every method of etcd 3.7, and our own. The busy ones stand first, for they are looked up in order.
static METHODS: &[Method] = &[
    unary("/etcdserverpb.KV/Put", Served::Put),
    unary("/etcdserverpb.KV/Range", Served::Range),
    unary("/etcdserverpb.KV/Txn", Served::Txn),
    unary("/etcdserverpb.KV/DeleteRange", Served::DeleteRange),
    unary("/etcdserverpb.KV/Compact", Served::Compact),
    streaming("/etcdserverpb.KV/RangeStream", Served::Later),
    streaming("/etcdserverpb.Watch/Watch", Served::Watch),
    unary("/etcdserverpb.Lease/LeaseGrant", Served::LeaseGrant),
    unary("/etcdserverpb.Lease/LeaseRevoke", Served::LeaseRevoke),
    streaming("/etcdserverpb.Lease/LeaseKeepAlive", Served::LeaseKeepAlive),
    unary("/etcdserverpb.Lease/LeaseTimeToLive", Served::LeaseTimeToLive),
    unary("/etcdserverpb.Lease/LeaseLeases", Served::LeaseLeases),
    unary("/etcdserverpb.Cluster/MemberList", Served::MemberList),
    unary("/etcdserverpb.Cluster/MemberAdd", Served::Later),
    unary("/etcdserverpb.Cluster/MemberRemove", Served::Later),
    unary("/etcdserverpb.Cluster/MemberUpdate", Served::Later),
    unary("/etcdserverpb.Cluster/MemberPromote", Served::Later),
    unary("/etcdserverpb.Maintenance/Alarm", Served::Alarm),
    unary("/etcdserverpb.Maintenance/Status", Served::Status),
    unary("/etcdserverpb.Maintenance/Hash", Served::Hash),
    unary("/etcdserverpb.Maintenance/HashKV", Served::HashKv),
    unary("/etcdserverpb.Maintenance/Defragment", Served::Later),
    streaming("/etcdserverpb.Maintenance/Snapshot", Served::Later),
    unary("/etcdserverpb.Maintenance/MoveLeader", Served::Later),
    unary("/etcdserverpb.Maintenance/Downgrade", Served::Later),
    unary("/etcdserverpb.Auth/AuthEnable", Served::Later),
    unary("/etcdserverpb.Auth/AuthDisable", Served::Later),
    unary("/etcdserverpb.Auth/AuthStatus", Served::Later),
    unary("/etcdserverpb.Auth/Authenticate", Served::Later),
    unary("/etcdserverpb.Auth/UserAdd", Served::Later),
    unary("/etcdserverpb.Auth/UserGet", Served::Later),
    unary("/etcdserverpb.Auth/UserList", Served::Later),
    unary("/etcdserverpb.Auth/UserDelete", Served::Later),
    unary("/etcdserverpb.Auth/UserChangePassword", Served::Later),
    unary("/etcdserverpb.Auth/UserGrantRole", Served::Later),
    unary("/etcdserverpb.Auth/UserRevokeRole", Served::Later),
    unary("/etcdserverpb.Auth/RoleAdd", Served::Later),
    unary("/etcdserverpb.Auth/RoleGet", Served::Later),
    unary("/etcdserverpb.Auth/RoleList", Served::Later),
    unary("/etcdserverpb.Auth/RoleDelete", Served::Later),
    unary("/etcdserverpb.Auth/RoleGrantPermission", Served::Later),
    unary("/etcdserverpb.Auth/RoleRevokePermission", Served::Later),
    unary("/v3electionpb.Election/Campaign", Served::Later),
    unary("/v3electionpb.Election/Proclaim", Served::Later),
    unary("/v3electionpb.Election/Leader", Served::Later),
    unary("/v3electionpb.Election/Resign", Served::Later),
    streaming("/v3electionpb.Election/Observe", Served::Later),
    unary("/v3lockpb.Lock/Lock", Served::Later),
    unary("/v3lockpb.Lock/Unlock", Served::Later),
    unary("/grpc.health.v1.Health/Check", Served::HealthCheck),
    streaming("/grpc.health.v1.Health/Watch", Served::HealthWatch),
    unary("/quorate.v1.Trace/Trace", Served::Trace),
    unary("/quorate.v1.Trace/Stages", Served::Stages),
    unary("/quorate.v1.Trace/Slow", Served::Slow),
];

/// The method that a path names; texts are grpc-go's.
fn lookup(path: &str) -> Result<&'static Method, Status> {
    if let Some(method) = METHODS.iter().find(|method| method.path == path) {
        return Ok(method);
    }
    let Some((service, method)) = path.strip_prefix('/').and_then(|rest| rest.rsplit_once('/'))
    else {
        return Err(Status::new(Code::Unimplemented, format!("malformed method name: {path:?}")));
    };
    let known =
        METHODS.iter().any(|m| m.path[1..].rsplit_once('/').is_some_and(|(s, _)| s == service));
    Err(Status::new(
        Code::Unimplemented,
        match known {
            true => format!("unknown method {method} for service {service}"),
            false => format!("unknown service {service}"),
        },
    ))
}

/// What of a request's headers a call needs, found in one walk over them: each look-up in a map would parse and hash
/// its name. Of a header that stands there several times the first counts.
#[derive(Debug, Default)]
pub struct Metadata<'a> {
    content_type: Option<&'a HeaderValue>,
    encoding: Option<&'a HeaderValue>,
    timeout: Option<&'a HeaderValue>,
    api_version: Option<&'a HeaderValue>,
    has_leader: Option<&'a HeaderValue>,
}

impl Metadata<'_> {
    /// Walks over the headers.
    pub fn read(headers: &HeaderMap) -> Metadata<'_> {
        let mut found = Metadata::default();
        for (name, value) in headers {
            let place = match name.as_str() {
                "content-type" => &mut found.content_type,
                "grpc-encoding" => &mut found.encoding,
                "grpc-timeout" => &mut found.timeout,
                "client-api-version" => &mut found.api_version,
                "hasleader" => &mut found.has_leader,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        found
    }

    /// Whether the request is gRPC, by its content type.
    pub fn is_grpc(&self) -> bool {
        let Some(content) = self.content_type else { return false };
        match content.as_bytes().strip_prefix(b"application/grpc") {
            Some(rest) => rest.is_empty() || matches!(rest[0], b'+' | b';'),
            None => false,
        }
    }

    /// How messages may be compressed, unless they may not.
    pub fn encoding(&self) -> Option<String> {
        let encoding = self.encoding?.to_str().ok()?;
        (!encoding.is_empty() && encoding != "identity").then(|| encoding.to_string())
    }
}

/// One call: its method and what its metadata says.
#[derive(Debug)]
pub struct Call {
    /// What is called.
    pub method: &'static Method,
    /// When, by `Stages::now_us`.
    pub started_us: u64,
    /// The same, by `Node::now_ms`.
    pub started_ms: u64,
    /// Whether the client's own deadline is known.
    pub client_deadline: bool,
    timeout_ms: Option<u64>,
    require_leader: bool,
}

impl Call {
    /// Reads the head of a request.
    pub fn read(head: &Parts, metadata: &Metadata<'_>, now_us: u64) -> Result<Call, Status> {
        if head.method != http::Method::POST {
            return Err(Status::new(
                Code::Internal,
                format!(
                    "Received a HEADERS frame with :method {:?} which should be POST",
                    head.method.as_str()
                ),
            ));
        }
        Call::of(head.uri.path(), metadata, now_us)
    }

    /// A call of the method with this path.
    pub fn of(path: &str, metadata: &Metadata<'_>, now_us: u64) -> Result<Call, Status> {
        let method = lookup(path)?;
        let timeout_ms = match metadata.timeout.map(HeaderValue::as_bytes) {
            None => None,
            Some(timeout) => Some(timeout_ms(timeout).ok_or_else(|| {
                Status::new(
                    Code::Internal,
                    format!("malformed grpc-timeout: {:?}", String::from_utf8_lossy(timeout)),
                )
            })?),
        };
        if metadata
            .api_version
            .is_some_and(|version| std::str::from_utf8(version.as_bytes()).is_err())
        {
            return Err(Error::InvalidClientApiVersion.into());
        }
        let require_leader = metadata.has_leader.is_some_and(|wanted| wanted == "true");
        Ok(Call {
            method,
            started_us: now_us,
            started_ms: now_us / 1_000,
            client_deadline: timeout_ms.is_some(),
            timeout_ms,
            require_leader,
        })
    }

    /// A call that a page of this member makes for its client, under the member's own deadline.
    ///
    /// # Errors
    /// If there is no such method.
    pub fn of_page(path: &str, now_us: u64) -> Result<Call, Status> {
        Ok(Call {
            method: lookup(path)?,
            started_us: now_us,
            started_ms: now_us / 1_000,
            client_deadline: false,
            timeout_ms: None,
            require_leader: false,
        })
    }

    /// The same call of another method.
    ///
    /// # Errors
    /// If there is no such method.
    pub fn again(self, path: &str) -> Result<Call, Status> {
        Ok(Call { method: lookup(path)?, ..self })
    }

    /// When the call is given up, by `Node::now_ms`: the client's deadline or the member's, whichever is first.
    pub fn deadline_ms(&self, config: &Config) -> u64 {
        let own = config.request_timeout().as_millis() as u64;
        self.started_ms + self.timeout_ms.map_or(own, |client| client.min(own))
    }

    /// The client's own deadline, by `Node::now_ms`.
    pub fn client_deadline_ms(&self) -> Option<u64> {
        self.timeout_ms.map(|client| self.started_ms.saturating_add(client))
    }

    /// When a unary request must be whole, by `Node::now_ms`.
    pub fn collected_ms(&self) -> u64 {
        let own = self.started_ms + REQUEST_DEADLINE.as_millis() as u64;
        self.client_deadline_ms().map_or(own, |client| client.min(own))
    }

    /// Whether the client's deadline is the one that counts.
    fn settle_deadline(&mut self, config: &Config) {
        let own = config.request_timeout().as_millis() as u64;
        self.client_deadline = self.timeout_ms.is_some_and(|client| client < own);
    }
}

/// gRPC's timeout: up to eight digits and a unit.
fn timeout_ms(text: &[u8]) -> Option<u64> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let timeout = match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    };
    Some(timeout.as_millis() as u64)
}

/// What every call must pass: a leader if it wants one, and a voter where a learner does not serve.
fn check(shard: &Shard, call: &Call) -> Result<(), Status> {
    // The health service is refused as all else is: a learner is no member to send clients to.
    // What is traced is looked at as what it is.
    let learner_serves = matches!(
        call.method.served,
        Served::Range | Served::Status | Served::Trace | Served::Stages | Served::Slow
    );
    if shard.view.is_learner() && !learner_serves {
        return Err(Error::NotSupportedForLearner.into());
    }
    if call.require_leader && shard.view.leader() == raft::NONE {
        return Err(Error::NoLeader.into());
    }
    Ok(())
}

/// What a streaming call must pass before it is opened.
pub fn check_stream(shard: &Shard, call: &Call) -> Result<(), Status> {
    if shard.node.limit.is_some() {
        return Err(limit::refusal(call.method.path));
    }
    check(shard, call)?;
    match call.method.served {
        Served::Later => Err(Status::later(call.method.path)),
        _ => Ok(()),
    }
}

/// Serves a unary call, or puts it where its answer will come from.
pub fn serve(shard: &Rc<Shard>, mut call: Call, message: Bytes, mut respond: Responder) {
    respond.tell(|story| story.weigh(message.len()));
    call.settle_deadline(&shard.node.config);
    shard.node.metrics.client_received_bytes.add(message.len() as u64);
    if shard.stopping.get() {
        return respond.fail(&Error::Stopped.into());
    }
    if let Some(constants) = &shard.node.limit {
        return match call.method.served {
            Served::Put => constants.put(shard, message, respond),
            Served::Range => constants.range(shard, message, respond),
            _ => respond.fail(&limit::refusal(call.method.path)),
        };
    }
    if let Err(status) = check(shard, &call) {
        return respond.fail(&status);
    }
    match call.method.served {
        Served::Range => kv::range(shard, call, message, respond),
        Served::Put => kv::put(shard, call, message, respond),
        Served::DeleteRange => kv::delete_range(shard, call, message, respond),
        Served::Txn => kv::txn(shard, call, message, respond),
        Served::Compact => kv::compact(shard, call, message, respond),
        Served::LeaseGrant => lease::grant(shard, call, message, respond),
        Served::LeaseRevoke => lease::revoke(shard, call, message, respond),
        Served::LeaseTimeToLive => lease::time_to_live(shard, call, message, respond),
        Served::LeaseLeases => lease::leases(shard, respond),
        Served::MemberList => cluster::member_list(shard, call, message, respond),
        Served::Alarm => maintenance::alarm(shard, message, respond),
        Served::Status => maintenance::status(shard, respond),
        Served::Hash => maintenance::hash(shard, respond),
        Served::HashKv => maintenance::hash_kv(shard, message, respond),
        Served::HealthCheck => health::check(shard, message, respond),
        Served::Trace => trace::trace(shard, call, message, respond),
        Served::Stages => trace::stages(shard, message, respond),
        Served::Slow => trace::slow(shard, message, respond),
        Served::Later => respond.fail(&Status::later(call.method.path)),
        Served::Watch | Served::LeaseKeepAlive | Served::HealthWatch => {
            respond
                .fail(&Status::new(Code::Internal, "a streaming method was called as a unary one"));
        }
    }
}

/// Reads a request message; the text is grpc-go's with our decoder's reason.
fn decode<M: prost::Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message).map_err(|error| {
        Status::new(Code::Internal, format!("grpc: error unmarshalling request: {error}"))
    })
}

/// An open streaming call.
pub enum Streaming {
    /// Watch.
    Watch(watch::Stream),
    /// LeaseKeepAlive.
    KeepAlive(Rc<lease::Renewals>),
    /// The health service's Watch.
    Health,
}

impl Streaming {
    /// Opens a call that has passed [`check_stream`].
    pub fn open(shard: &Rc<Shard>, call: &Call, out: &Rc<RefCell<Outgoing>>) -> Streaming {
        if call.require_leader {
            shard.require_leader(out);
        }
        match call.method.served {
            Served::Watch => Streaming::Watch(watch::Stream::open(shard, out)),
            Served::LeaseKeepAlive => Streaming::KeepAlive(Rc::default()),
            _ => Streaming::Health,
        }
    }

    /// The client has said something.
    pub fn on_message(&mut self, shard: &Rc<Shard>, out: &Rc<RefCell<Outgoing>>, message: Bytes) {
        shard.node.metrics.client_received_bytes.add(message.len() as u64);
        let taken = match self {
            Streaming::Watch(stream) => stream.on_message(shard, message),
            Streaming::KeepAlive(renewals) => lease::keep_alive(shard, out, renewals, message),
            Streaming::Health => health::watch(shard, out, message),
        };
        if let Err(status) = taken {
            out.borrow_mut().finish(status);
        }
    }

    /// The client has nothing more to say. etcd ends a LeaseKeepAlive then, and goes on with a Watch.
    pub fn on_half_close(&mut self, out: &Rc<RefCell<Outgoing>>) {
        match self {
            Streaming::KeepAlive(renewals) => lease::keep_alive_ended(out, renewals),
            // The health service's Watch has one request, behind which it stays open.
            Streaming::Watch(_) | Streaming::Health => {}
        }
    }

    /// There is room in the stream's queue.
    pub fn on_room(&mut self, shard: &Rc<Shard>, _out: &Rc<RefCell<Outgoing>>) {
        if let Streaming::Watch(stream) = self {
            stream.on_room(shard);
        }
    }

    /// The call is over.
    pub fn close(&mut self, shard: &Rc<Shard>) {
        if let Streaming::Watch(stream) = self {
            stream.close(shard);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_stands_once_and_paths_are_told_apart() {
        let mut paths: Vec<_> = METHODS.iter().map(|method| method.path).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), METHODS.len());
        for (path, text) in [
            ("Put", "malformed method name: \"Put\""),
            ("/Put", "malformed method name: \"/Put\""),
            ("/etcdserverpb.KV/Get", "unknown method Get for service etcdserverpb.KV"),
            ("/etcdserverpb.Cv/Get", "unknown service etcdserverpb.Cv"),
        ] {
            let status = lookup(path).unwrap_err();
            assert_eq!((status.code, status.text.as_str()), (12, text));
        }
    }

    #[test]
    fn timeouts_are_read_in_every_unit() {
        for (text, want) in [
            ("2H", Some(7_200_000)),
            ("3M", Some(180_000)),
            ("4S", Some(4_000)),
            ("5m", Some(5)),
            ("6000u", Some(6)),
            ("7000000n", Some(7)),
            ("", None),
            ("S", None),
            ("123456789S", None),
            ("1x", None),
            ("-1S", None),
        ] {
            assert_eq!(timeout_ms(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn content_types_are_told_apart() {
        for (content, want) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", content.parse().unwrap());
            assert_eq!(Metadata::read(&headers).is_grpc(), want, "{content}");
        }
        assert!(!Metadata::read(&HeaderMap::new()).is_grpc());
    }

    #[test]
    fn of_a_header_that_comes_twice_the_first_counts() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("hasleader", "true"), ("grpc-encoding", "gzip"), ("grpc-encoding", "identity")]
        {
            headers.append(name, value.parse().unwrap());
        }
        headers.append("hasleader", "false".parse().unwrap());
        let metadata = Metadata::read(&headers);
        assert_eq!(metadata.has_leader.unwrap(), "true");
        assert_eq!(metadata.encoding().unwrap(), "gzip");
        headers.insert("grpc-encoding", "identity".parse().unwrap());
        assert_eq!(Metadata::read(&headers).encoding(), None);
    }
}
