//! What an entry of the log asks for, as text and as JSON.
//!
//! Everything is brought into one form first, a [`Request`]: a name and fields, some of which are requests again. Text
//! and JSON are printed from that.
//!
//! ```text
//!   put k=v lease=7b                           {"op":"put","key":"aw==","value":"dg==","lease":123}
//!   txn if [k mod = 3] then [put k=w] else []  {"op":"txn","if":[…],"then":[…],"else":[]}
//! ```

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::{compare::TargetUnion, request_op::Request as Op};
use wal::dump::{ConfChange, ConfChangeV2, Entry, EntryKind};

use super::{Span, show};
use crate::print::json::{self, Object};

/// Longer commands are not decoded: in memory a command may take a hundred times its bytes.
const COMMAND_BYTES_MAX: usize = 4 << 20;

/// What is asked for.
#[derive(Debug, PartialEq)]
pub(super) struct Request {
    name: &'static str,
    fields: Vec<(&'static str, Field)>,
    /// The keys that it reads or changes.
    spans: Vec<Span>,
    /// The revisions that it names.
    revisions: Vec<i64>,
}

#[derive(Debug, PartialEq)]
enum Field {
    Bytes(Bytes),
    Text(String),
    Number(i128),
    /// Shown in hexadecimal to people.
    Id(u64),
    True,
    Requests(Vec<Request>),
}

impl Request {
    /// What this entry asks for. Bytes that are no request of any kind are told as such.
    pub(super) fn of(entry: &Entry) -> Request {
        match entry.kind {
            EntryKind::ConfChange => ConfChange::decode(&entry.data).ok().map(|change| {
                let request = Request::new("membership").id("id", change.id);
                steps(request, &change.as_v2())
            }),
            EntryKind::ConfChangeV2 => ConfChangeV2::decode(&entry.data)
                .ok()
                .map(|change| steps(Request::new("membership"), &change)),
            EntryKind::Normal if entry.data.is_empty() => Some(Request::new("nothing")),
            EntryKind::Normal => read(&entry.data),
        }
        .unwrap_or_else(|| {
            Request::new("unreadable").field("data", Field::Bytes(entry.data.clone()))
        })
    }

    /// Whether it reads or changes one of these keys.
    pub(super) fn touches(&self, span: &Span) -> bool {
        self.spans.iter().any(|own| own.meets(span))
            || self.within().any(|request| request.touches(span))
    }

    /// Whether it names this revision.
    pub(super) fn names(&self, revision: i64) -> bool {
        self.revisions.contains(&revision) || self.within().any(|request| request.names(revision))
    }

    fn within(&self) -> impl Iterator<Item = &Request> {
        self.fields.iter().flat_map(|(_, field)| match field {
            Field::Requests(requests) => requests.as_slice(),
            _ => &[],
        })
    }

    /// For people.
    pub(super) fn text(&self, full: bool) -> String {
        let mut out = self.name.to_owned();
        for (name, field) in &self.fields {
            let text = match field {
                Field::Bytes(bytes) => show(bytes, full),
                Field::Text(text) => text.clone(),
                Field::Number(number) => number.to_string(),
                Field::Id(id) => format!("{id:x}"),
                Field::True => String::new(),
                Field::Requests(requests) => {
                    let texts: Vec<_> = requests.iter().map(|request| request.text(full)).collect();
                    format!("[{}]", texts.join("; "))
                }
            };
            out.push_str(&match (*name, field) {
                ("value", _) if self.name == "put" => format!("={text}"),
                ("range_end", _) => format!("..{text}"),
                ("key" | "target" | "result" | "operand", _) => format!(" {text}"),
                (name, Field::Requests(_)) => format!(" {name} {text}"),
                (name, Field::True) => format!(" {name}"),
                (name, _) => format!(" {name}={text}"),
            });
        }
        out
    }

    /// For programs.
    pub(super) fn json(&self) -> String {
        let object = Object::new().text("op", self.name);
        let add = |object: Object, (name, field): &(&str, Field)| match field {
            Field::Bytes(bytes) => object.raw(name, &json::bytes(bytes)),
            Field::Text(text) => object.text(name, text),
            Field::Number(number) => object.number(name, *number),
            Field::Id(id) => object.number(name, *id),
            Field::True => object.raw(name, "true"),
            Field::Requests(requests) => {
                object.raw(name, &json::list(requests.iter().map(Request::json).collect()))
            }
        };
        self.fields.iter().fold(object, add).end()
    }

    fn new(name: &'static str) -> Request {
        Request { name, fields: Vec::new(), spans: Vec::new(), revisions: Vec::new() }
    }

    fn field(mut self, name: &'static str, field: Field) -> Request {
        self.fields.push((name, field));
        self
    }

    fn text_field(self, name: &'static str, text: impl Into<String>) -> Request {
        self.field(name, Field::Text(text.into()))
    }

    fn key(mut self, key: &Bytes) -> Request {
        self.spans.push(Span::key(key));
        self.field("key", Field::Bytes(key.clone()))
    }

    /// A key, or all from it to before another.
    fn range(mut self, key: &Bytes, end: &Bytes) -> Request {
        self.spans.push(Span::range(key, end));
        let request = self.field("key", Field::Bytes(key.clone()));
        match end.is_empty() {
            true => request,
            false => request.field("range_end", Field::Bytes(end.clone())),
        }
    }

    fn revision(mut self, name: &'static str, revision: i64) -> Request {
        self.revisions.push(revision);
        self.number(name, revision)
    }

    fn number(self, name: &'static str, number: impl Into<i128>) -> Request {
        self.field(name, Field::Number(number.into()))
    }

    fn maybe_number(self, name: &'static str, number: impl Into<i128>) -> Request {
        let number = number.into();
        if number == 0 { self } else { self.number(name, number) }
    }

    fn id(self, name: &'static str, id: u64) -> Request {
        self.field(name, Field::Id(id))
    }

    fn maybe_id(self, name: &'static str, id: u64) -> Request {
        if id == 0 { self } else { self.id(name, id) }
    }

    fn maybe_true(self, name: &'static str, flag: bool) -> Request {
        if flag { self.field(name, Field::True) } else { self }
    }

    fn requests(self, name: &'static str, requests: Vec<Request>) -> Request {
        self.field(name, Field::Requests(requests))
    }
}

fn steps(request: Request, change: &ConfChangeV2) -> Request {
    let names = ["add node", "remove node", "update node", "add learner"];
    let step = |change: &wal::dump::ConfChangeSingle| {
        Request::new(names[change.kind as usize]).id("member", change.node_id)
    };
    let request = match change.transition as i32 {
        0 => request,
        1 => request.text_field("joint", "implicit"),
        _ => request.text_field("joint", "explicit"),
    };
    let request = request.requests("steps", change.changes.iter().map(step).collect());
    match change.context.is_empty() {
        true => request,
        false => request.field("context", Field::Bytes(change.context.clone())),
    }
}

/// A request of etcd's first API, as etcd up to 3.5 has it in its log: in field 2, or alone.
#[derive(Clone, PartialEq, Message)]
struct V2 {
    #[prost(string, tag = "2")]
    method: String,
    #[prost(string, tag = "3")]
    path: String,
    #[prost(string, tag = "4")]
    value: String,
    #[prost(bool, tag = "5")]
    dir: bool,
    #[prost(string, tag = "6")]
    prev_value: String,
    #[prost(uint64, tag = "7")]
    prev_index: u64,
    #[prost(bool, optional, tag = "8")]
    prev_exist: Option<bool>,
    #[prost(int64, tag = "9")]
    expiration: i64,
    #[prost(bool, tag = "12")]
    recursive: bool,
    #[prost(bool, optional, tag = "17")]
    refresh: Option<bool>,
}

/// The field of an entry in which such a request stands.
#[derive(Clone, PartialEq, Message)]
struct WithV2 {
    #[prost(message, optional, tag = "2")]
    v2: Option<V2>,
}

fn read(data: &Bytes) -> Option<Request> {
    if data.len() > COMMAND_BYTES_MAX {
        return None;
    }
    // Alone it would pass for other requests, but for its method.
    let is_v2 =
        |v2: &V2| matches!(v2.method.as_str(), "GET" | "PUT" | "POST" | "DELETE" | "QGET" | "SYNC");
    if let Some(v2) = V2::decode(data.clone()).ok().filter(is_v2) {
        return Some(v2_request(v2));
    }
    if let Some(v2) = WithV2::decode(data.clone()).ok().and_then(|with| with.v2).filter(is_v2) {
        return Some(v2_request(v2));
    }
    let request = pb::InternalRaftRequest::decode(data.clone()).ok()?;
    let user = request.header.as_ref().map_or("", |header| header.username.as_str()).to_owned();
    let known = keyspace(&request).or_else(|| cluster(&request)).or_else(|| auth(&request))?;
    Some(if user.is_empty() { known } else { known.text_field("user", user) })
}

fn v2_request(v2: V2) -> Request {
    let mut request = Request::new("v2").text_field("method", v2.method);
    request.spans.push(Span::key(v2.path.as_bytes()));
    let text = |text: String| Field::Bytes(Bytes::from(text));
    let mut request = request.field("path", text(v2.path));
    for (name, value) in [("value", v2.value), ("prevValue", v2.prev_value)] {
        if !value.is_empty() {
            request = request.field(name, text(value));
        }
    }
    if let Some(exists) = v2.prev_exist {
        request = request.text_field("prevExist", exists.to_string());
    }
    request
        .maybe_number("prevIndex", v2.prev_index)
        .maybe_number("expiration", v2.expiration)
        .maybe_true("dir", v2.dir)
        .maybe_true("recursive", v2.recursive)
        .maybe_true("refresh", v2.refresh.unwrap_or_default())
}

fn keyspace(request: &pb::InternalRaftRequest) -> Option<Request> {
    None.or_else(|| request.range.as_ref().map(range))
        .or_else(|| request.put.as_ref().map(put))
        .or_else(|| request.delete_range.as_ref().map(delete))
        .or_else(|| request.txn.as_ref().map(txn))
        .or_else(|| {
            let compaction = request.compaction?;
            let request = Request::new("compaction").revision("revision", compaction.revision);
            Some(request.maybe_true("physical", compaction.physical))
        })
        .or_else(|| {
            let lease = request.lease_grant?;
            let request = Request::new("lease grant").id("id", lease.id.cast_unsigned());
            Some(request.number("ttl", lease.ttl))
        })
        .or_else(|| {
            let lease = request.lease_revoke?;
            Some(Request::new("lease revoke").id("id", lease.id.cast_unsigned()))
        })
        .or_else(|| {
            let checkpoint = |lease: &pb::LeaseCheckpoint| {
                let request = Request::new("lease").id("id", lease.id.cast_unsigned());
                request.number("remaining", lease.remaining_ttl)
            };
            let leases = &request.lease_checkpoint.as_ref()?.checkpoints;
            let leases = leases.iter().map(checkpoint).collect();
            Some(Request::new("lease checkpoint").requests("leases", leases))
        })
}

fn put(put: &pb::PutRequest) -> Request {
    let request = Request::new("put").key(&put.key);
    let request = match put.ignore_value {
        true => request.maybe_true("ignore_value", true),
        false => request.field("value", Field::Bytes(put.value.clone())),
    };
    request
        .maybe_id("lease", put.lease.cast_unsigned())
        .maybe_true("ignore_lease", put.ignore_lease)
        .maybe_true("prev_kv", put.prev_kv)
}

fn delete(delete: &pb::DeleteRangeRequest) -> Request {
    let request = Request::new("delete").range(&delete.key, &delete.range_end);
    request.maybe_true("prev_kv", delete.prev_kv)
}

fn range(range: &pb::RangeRequest) -> Request {
    let request = Request::new("get").range(&range.key, &range.range_end);
    let request = match range.revision {
        0 => request,
        revision => request.revision("revision", revision),
    };
    request.maybe_number("limit", range.limit)
}

fn txn(txn: &pb::TxnRequest) -> Request {
    let operations = |operations: &[pb::RequestOp]| {
        let operation = |operation: &pb::RequestOp| match &operation.request {
            Some(Op::RequestRange(request)) => range(request),
            Some(Op::RequestPut(request)) => put(request),
            Some(Op::RequestDeleteRange(request)) => delete(request),
            Some(Op::RequestTxn(request)) => self::txn(request),
            None => Request::new("nothing"),
        };
        operations.iter().map(operation).collect()
    };
    Request::new("txn")
        .requests("if", txn.compare.iter().map(compare).collect())
        .requests("then", operations(&txn.success))
        .requests("else", operations(&txn.failure))
}

fn compare(compare: &pb::Compare) -> Request {
    let targets = ["version", "create", "mod", "value", "lease"];
    let results = ["=", ">", "<", "!="];
    let name = |names: &[&str], number: i32| {
        let known = usize::try_from(number).ok().and_then(|number| names.get(number));
        known.map_or(number.to_string(), |name| (*name).to_owned())
    };
    let request = Request::new("compare")
        .range(&compare.key, &compare.range_end)
        .text_field("target", name(&targets, compare.target))
        .text_field("result", name(&results, compare.result));
    match &compare.target_union {
        Some(TargetUnion::Version(version)) => request.number("operand", *version),
        Some(TargetUnion::CreateRevision(revision) | TargetUnion::ModRevision(revision)) => {
            request.revision("operand", *revision)
        }
        Some(TargetUnion::Value(value)) => request.field("operand", Field::Bytes(value.clone())),
        Some(TargetUnion::Lease(lease)) => request.id("operand", lease.cast_unsigned()),
        None => request.number("operand", 0),
    }
}

fn cluster(request: &pb::InternalRaftRequest) -> Option<Request> {
    let alarm = || {
        let alarm = request.alarm?;
        let action = ["get", "activate", "deactivate"];
        let action = usize::try_from(alarm.action).ok().and_then(|number| action.get(number));
        let kind =
            pb::AlarmType::try_from(alarm.alarm).map_or("unknown", |kind| kind.as_str_name());
        let request = Request::new("alarm").text_field("action", *action.unwrap_or(&"unknown"));
        Some(request.text_field("alarm", kind).id("member", alarm.member_id))
    };
    let version = || {
        let set = request.cluster_version_set.as_ref()?;
        Some(Request::new("cluster version").text_field("version", set.ver.clone()))
    };
    let attributes = || {
        let set = request.cluster_member_attr_set.as_ref()?;
        let attributes = set.member_attributes.clone().unwrap_or_default();
        let request = Request::new("member attributes").id("member", set.member_id);
        let request = request.text_field("name", attributes.name);
        Some(request.text_field("clientURLs", attributes.client_urls.join(",")))
    };
    let downgrade = || {
        let set = request.downgrade_info_set.as_ref()?;
        let request = Request::new("downgrade").text_field("enabled", set.enabled.to_string());
        Some(request.text_field("version", set.ver.clone()))
    };
    let test = || request.downgrade_version_test.as_ref().map(|_| Request::new("downgrade test"));
    alarm().or_else(version).or_else(attributes).or_else(downgrade).or_else(test)
}

/// Users and roles, by name; passwords and tokens are not shown.
fn auth(request: &pb::InternalRaftRequest) -> Option<Request> {
    let user = |name: &'static str, user: &str| Request::new(name).text_field("user", user);
    let role = |name: &'static str, role: &str| Request::new(name).text_field("role", role);
    let r = request;
    None.or_else(|| r.auth_enable.as_ref().map(|_| Request::new("auth enable")))
        .or_else(|| r.auth_disable.as_ref().map(|_| Request::new("auth disable")))
        .or_else(|| r.auth_status.as_ref().map(|_| Request::new("auth status")))
        .or_else(|| r.authenticate.as_ref().map(|a| user("authenticate", &a.name)))
        .or_else(|| r.auth_user_add.as_ref().map(|a| user("user add", &a.name)))
        .or_else(|| r.auth_user_delete.as_ref().map(|a| user("user delete", &a.name)))
        .or_else(|| r.auth_user_get.as_ref().map(|a| user("user get", &a.name)))
        .or_else(|| r.auth_user_change_password.as_ref().map(|a| user("user password", &a.name)))
        .or_else(|| {
            let grant = r.auth_user_grant_role.as_ref()?;
            Some(user("user grant", &grant.user).text_field("role", grant.role.clone()))
        })
        .or_else(|| {
            let revoke = r.auth_user_revoke_role.as_ref()?;
            Some(user("user revoke", &revoke.name).text_field("role", revoke.role.clone()))
        })
        .or_else(|| r.auth_user_list.as_ref().map(|_| Request::new("user list")))
        .or_else(|| r.auth_role_list.as_ref().map(|_| Request::new("role list")))
        .or_else(|| r.auth_role_add.as_ref().map(|a| role("role add", &a.name)))
        .or_else(|| r.auth_role_delete.as_ref().map(|a| role("role delete", &a.role)))
        .or_else(|| r.auth_role_get.as_ref().map(|a| role("role get", &a.role)))
        .or_else(|| {
            let grant = r.auth_role_grant_permission.as_ref()?;
            let request = role("role grant", &grant.name);
            Some(match &grant.perm {
                Some(permission) => request.range(&permission.key, &permission.range_end),
                None => request,
            })
        })
        .or_else(|| {
            let revoke = r.auth_role_revoke_permission.as_ref()?;
            Some(role("role revoke", &revoke.role).range(&revoke.key, &revoke.range_end))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(request: pb::InternalRaftRequest) -> Request {
        let data = Bytes::from(request.encode_to_vec());
        Request::of(&Entry { data, ..Entry::default() })
    }

    fn put_of(key: &'static str, value: &'static str) -> pb::PutRequest {
        pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
    }

    #[test]
    fn requests_are_told_in_a_line() {
        let lease = pb::PutRequest { lease: 123, ..put_of("k", "two words") };
        let txn = pb::TxnRequest {
            compare: vec![pb::Compare {
                target: 2,
                key: "k".into(),
                target_union: Some(TargetUnion::ModRevision(3)),
                ..Default::default()
            }],
            success: vec![pb::RequestOp { request: Some(Op::RequestPut(put_of("k", "w"))) }],
            failure: vec![],
        };
        let delete =
            pb::DeleteRangeRequest { key: "a".into(), range_end: "b".into(), prev_kv: false };
        let grant = pb::LeaseGrantRequest { id: 0x7b, ttl: 60 };
        let whole = pb::InternalRaftRequest::default;
        for (told, text, json) in [
            (
                request(pb::InternalRaftRequest { put: Some(lease), ..whole() }),
                r#"put k="two words" lease=7b"#,
                r#"{"op":"put","key":"aw==","value":"dHdvIHdvcmRz","lease":123}"#,
            ),
            (
                request(pb::InternalRaftRequest { txn: Some(txn), ..whole() }),
                "txn if [compare k mod = 3] then [put k=w] else []",
                concat!(
                    r#"{"op":"txn","if":[{"op":"compare","key":"aw==","target":"mod","result":"=","operand":3}],"#,
                    r#""then":[{"op":"put","key":"aw==","value":"dw=="}],"else":[]}"#
                ),
            ),
            (
                request(pb::InternalRaftRequest { delete_range: Some(delete), ..whole() }),
                "delete a..b",
                r#"{"op":"delete","key":"YQ==","range_end":"Yg=="}"#,
            ),
            (
                request(pb::InternalRaftRequest { lease_grant: Some(grant), ..whole() }),
                "lease grant id=7b ttl=60",
                r#"{"op":"lease grant","id":123,"ttl":60}"#,
            ),
        ] {
            assert_eq!(told.text(false), text);
            assert_eq!(told.json(), json);
        }
    }

    #[test]
    fn a_request_touches_the_keys_of_all_its_parts() {
        let inner = pb::TxnRequest {
            failure: vec![pb::RequestOp { request: Some(Op::RequestPut(put_of("deep", ""))) }],
            ..Default::default()
        };
        let txn = pb::TxnRequest {
            success: vec![pb::RequestOp { request: Some(Op::RequestTxn(inner)) }],
            ..Default::default()
        };
        let told = request(pb::InternalRaftRequest { txn: Some(txn), ..Default::default() });
        assert!(told.touches(&Span::key(b"deep")) && told.touches(&Span::prefix(b"de")));
        assert!(!told.touches(&Span::key(b"dee")));
        assert!(!told.names(3));
    }

    #[test]
    fn requests_of_the_first_api_are_known_alone_and_in_their_field() {
        let v2 = V2 {
            method: "PUT".into(),
            path: "/0/version".into(),
            value: "3.4.0".into(),
            ..V2::default()
        };
        let within = WithV2 { v2: Some(v2.clone()) }.encode_to_vec();
        for data in [v2.encode_to_vec(), within] {
            let told = Request::of(&Entry { data: data.into(), ..Entry::default() });
            assert_eq!(told.text(false), "v2 method=PUT path=/0/version value=3.4.0");
        }
    }

    #[test]
    fn bytes_that_are_no_request_are_shown_as_they_are() {
        let unreadable =
            |data: Vec<u8>| Request::of(&Entry { data: data.into(), ..Entry::default() });
        assert_eq!(unreadable(vec![0xff; 3]).text(false), r#"unreadable data="\xff\xff\xff""#);
        // A command that would be readable, but for its length.
        let long =
            pb::PutRequest { value: vec![0; COMMAND_BYTES_MAX].into(), ..Default::default() };
        let long = pb::InternalRaftRequest { put: Some(long), ..Default::default() };
        assert_eq!(unreadable(long.encode_to_vec()).name, "unreadable");
    }
}
