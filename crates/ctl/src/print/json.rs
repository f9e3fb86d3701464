//! The JSON format: Go's encoding of the answers, fields that are empty left out as etcdctl does.

use base64::{Engine, engine::general_purpose::STANDARD};
use proto::{
    etcdserverpb::{
        DeleteRangeResponse, HashKvResponse, Member, PutResponse, RangeResponse, ResponseHeader,
        StatusResponse, TxnResponse, response_op::Response,
    },
    mvccpb::{Event, KeyValue},
};

use super::Answer;

/// An object under construction. Methods named `maybe_` leave empty values out.
pub(crate) struct Object(String);

impl Object {
    pub(crate) fn new() -> Object {
        Object(String::from("{"))
    }

    pub(crate) fn raw(mut self, name: &str, value: &str) -> Object {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&format!("\"{name}\":{value}"));
        self
    }

    pub(crate) fn maybe_raw(self, name: &str, value: Option<String>) -> Object {
        match value {
            Some(value) => self.raw(name, &value),
            None => self,
        }
    }

    pub(crate) fn number(self, name: &str, value: impl Into<i128>) -> Object {
        self.raw(name, &value.into().to_string())
    }

    pub(crate) fn maybe_number(self, name: &str, value: impl Into<i128>) -> Object {
        let value = value.into();
        if value == 0 { self } else { self.number(name, value) }
    }

    pub(crate) fn maybe_true(self, name: &str, value: bool) -> Object {
        if value { self.raw(name, "true") } else { self }
    }

    pub(crate) fn text(self, name: &str, value: &str) -> Object {
        self.raw(name, &string(value))
    }

    pub(crate) fn maybe_text(self, name: &str, value: &str) -> Object {
        if value.is_empty() { self } else { self.text(name, value) }
    }

    pub(crate) fn maybe_bytes(self, name: &str, value: &[u8]) -> Object {
        if value.is_empty() { self } else { self.raw(name, &bytes(value)) }
    }

    fn maybe_list(self, name: &str, values: Vec<String>) -> Object {
        if values.is_empty() { self } else { self.raw(name, &list(values)) }
    }

    pub(crate) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

pub(crate) fn list(values: Vec<String>) -> String {
    format!("[{}]", values.join(","))
}

/// Where Go has a nil slice.
fn list_or_null(values: Vec<String>) -> String {
    if values.is_empty() { "null".to_owned() } else { list(values) }
}

pub(crate) fn bytes(bytes: &[u8]) -> String {
    format!("\"{}\"", STANDARD.encode(bytes))
}

/// A string; Go also escapes what a browser might take for markup.
pub(crate) fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            c if c < ' ' || matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}') => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

pub(super) fn print(answer: &Answer, hex: bool) -> String {
    let mut out = match answer {
        Answer::Put(response) => put(response),
        Answer::Get(response) => range(response),
        Answer::Del(response) => delete(response),
        Answer::Txn(response) => txn(response),
        Answer::Watch(watch) => Object::new()
            .raw("Header", &watch.header.as_ref().map_or("null".to_owned(), header))
            .raw("Events", &list_or_null(watch.events.iter().map(event).collect()))
            .number("CompactRevision", watch.compact_revision)
            .raw("Canceled", &watch.canceled.to_string())
            .raw("Created", &watch.created.to_string())
            .text("CancelReason", &watch.cancel_reason)
            .end(),
        Answer::Grant(grant) => header_fields(grant.header.as_ref())
            .number("ID", grant.id)
            .number("TTL", grant.ttl)
            .text("Error", &grant.error)
            .end(),
        Answer::Revoke(_, revoke) => {
            Object::new().maybe_raw("header", revoke.header.as_ref().map(header)).end()
        }
        Answer::KeepAlive(alive) => header_fields(alive.header.as_ref())
            .number("ID", alive.id)
            .number("TTL", alive.ttl)
            .end(),
        Answer::TimeToLive { response, .. } => header_fields(response.header.as_ref())
            .number("id", response.id)
            .number("ttl", response.ttl)
            .number("granted-ttl", response.granted_ttl)
            .raw("keys", &list_or_null(response.keys.iter().map(|key| bytes(key)).collect()))
            .end(),
        Answer::Leases(leases) => {
            let id = |lease: &proto::etcdserverpb::LeaseStatus| {
                Object::new().number("id", lease.id).end()
            };
            header_fields(leases.header.as_ref())
                .raw("leases", &list(leases.leases.iter().map(id).collect()))
                .end()
        }
        Answer::Members(members) if hex => Object::new()
            .raw("header", &members.header.as_ref().map_or("null".to_owned(), hex_header))
            .raw("members", &list(members.members.iter().map(|m| member(m, true)).collect()))
            .end(),
        Answer::Members(members) => Object::new()
            .maybe_raw("header", members.header.as_ref().map(header))
            .maybe_list("members", members.members.iter().map(|m| member(m, false)).collect())
            .end(),
        Answer::Health(endpoints) => {
            let one = |health: &super::Health| {
                Object::new()
                    .text("endpoint", &health.endpoint)
                    .raw("health", &health.healthy.to_string())
                    .text("took", &health.took)
                    .maybe_text("error", &health.error)
                    .end()
            };
            list_or_null(endpoints.iter().map(one).collect())
        }
        Answer::Status(endpoints) => {
            let one = |(endpoint, response): &(String, StatusResponse)| {
                Object::new().text("Endpoint", endpoint).raw("Status", &status(response)).end()
            };
            list_or_null(endpoints.iter().map(one).collect())
        }
        Answer::HashKv(endpoints) => {
            let one = |(endpoint, response): &(String, HashKvResponse)| {
                let hash = Object::new()
                    .maybe_raw("header", response.header.as_ref().map(header))
                    .maybe_number("hash", response.hash)
                    .maybe_number("compact_revision", response.compact_revision)
                    .maybe_number("hash_revision", response.hash_revision)
                    .end();
                Object::new().text("Endpoint", endpoint).raw("HashKV", &hash).end()
            };
            list_or_null(endpoints.iter().map(one).collect())
        }
    };
    out.push('\n');
    out
}

fn header(response: &ResponseHeader) -> String {
    header_fields(Some(response)).end()
}

/// An object that begins with the header's fields, as in answers that embed it.
fn header_fields(header: Option<&ResponseHeader>) -> Object {
    let header = header.copied().unwrap_or_default();
    Object::new()
        .maybe_number("cluster_id", header.cluster_id)
        .maybe_number("member_id", header.member_id)
        .maybe_number("revision", header.revision)
        .maybe_number("raft_term", header.raft_term)
}

fn hex_header(header: &ResponseHeader) -> String {
    Object::new()
        .text("cluster_id", &format!("{:x}", header.cluster_id))
        .text("member_id", &format!("{:x}", header.member_id))
        .maybe_number("revision", header.revision)
        .maybe_number("raft_term", header.raft_term)
        .end()
}

pub(crate) fn kv(kv: &KeyValue) -> String {
    Object::new()
        .maybe_bytes("key", &kv.key)
        .maybe_number("create_revision", kv.create_revision)
        .maybe_number("mod_revision", kv.mod_revision)
        .maybe_number("version", kv.version)
        .maybe_bytes("value", &kv.value)
        .maybe_number("lease", kv.lease)
        .end()
}

fn event(event: &Event) -> String {
    Object::new()
        .maybe_number("type", event.r#type)
        .maybe_raw("kv", event.kv.as_ref().map(kv))
        .maybe_raw("prev_kv", event.prev_kv.as_ref().map(kv))
        .end()
}

fn put(response: &PutResponse) -> String {
    Object::new()
        .maybe_raw("header", response.header.as_ref().map(header))
        .maybe_raw("prev_kv", response.prev_kv.as_ref().map(kv))
        .end()
}

fn range(response: &RangeResponse) -> String {
    Object::new()
        .maybe_raw("header", response.header.as_ref().map(header))
        .maybe_list("kvs", response.kvs.iter().map(kv).collect())
        .maybe_true("more", response.more)
        .maybe_number("count", response.count)
        .end()
}

fn delete(response: &DeleteRangeResponse) -> String {
    Object::new()
        .maybe_raw("header", response.header.as_ref().map(header))
        .maybe_number("deleted", response.deleted)
        .maybe_list("prev_kvs", response.prev_kvs.iter().map(kv).collect())
        .end()
}

fn txn(response: &TxnResponse) -> String {
    let op = |op: &proto::etcdserverpb::ResponseOp| {
        let inner = Object::new();
        let inner = match &op.response {
            Some(Response::ResponseRange(response)) => {
                inner.raw("response_range", &range(response))
            }
            Some(Response::ResponsePut(response)) => inner.raw("response_put", &put(response)),
            Some(Response::ResponseDeleteRange(response)) => {
                inner.raw("response_delete_range", &delete(response))
            }
            Some(Response::ResponseTxn(response)) => inner.raw("response_txn", &txn(response)),
            None => inner,
        };
        Object::new().raw("Response", &inner.end()).end()
    };
    Object::new()
        .maybe_raw("header", response.header.as_ref().map(header))
        .maybe_true("succeeded", response.succeeded)
        .maybe_list("responses", response.responses.iter().map(op).collect())
        .end()
}

fn member(member: &Member, hex: bool) -> String {
    let urls = |urls: &[String]| urls.iter().map(|url| string(url)).collect();
    let object = Object::new();
    let object = match hex {
        true => object.text("ID", &format!("{:x}", member.id)),
        false => object.maybe_number("ID", member.id),
    };
    object
        .maybe_text("name", &member.name)
        .maybe_list("peerURLs", urls(&member.peer_ur_ls))
        .maybe_list("clientURLs", urls(&member.client_ur_ls))
        .maybe_true("isLearner", member.is_learner)
        .end()
}

fn status(status: &StatusResponse) -> String {
    let downgrade = status.downgrade_info.as_ref().map(|downgrade| {
        Object::new()
            .maybe_true("enabled", downgrade.enabled)
            .maybe_text("targetVersion", &downgrade.target_version)
            .end()
    });
    Object::new()
        .maybe_raw("header", status.header.as_ref().map(header))
        .maybe_text("version", &status.version)
        .maybe_number("dbSize", status.db_size)
        .maybe_number("leader", status.leader)
        .maybe_number("raftIndex", status.raft_index)
        .maybe_number("raftTerm", status.raft_term)
        .maybe_number("raftAppliedIndex", status.raft_applied_index)
        .maybe_list("errors", status.errors.iter().map(|error| string(error)).collect())
        .maybe_number("dbSizeInUse", status.db_size_in_use)
        .maybe_true("isLearner", status.is_learner)
        .maybe_text("storageVersion", &status.storage_version)
        .maybe_number("dbSizeQuota", status.db_size_quota)
        .maybe_raw("downgradeInfo", downgrade)
        .end()
}
