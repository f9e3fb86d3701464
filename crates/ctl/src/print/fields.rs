//! The fields format: one line per field, names and texts quoted.

use std::fmt::Display;

use proto::{
    etcdserverpb::{ResponseHeader, response_op::Response},
    mvccpb::KeyValue,
};

use super::{Answer, event_type};
use crate::go::quote;

struct Fields {
    hex: bool,
    out: String,
}

pub(super) fn print(answer: &Answer, hex: bool) -> String {
    let mut fields = Fields { hex, out: String::new() };
    fields.answer(answer);
    fields.out
}

impl Fields {
    fn field(&mut self, name: &str, value: impl Display) {
        self.out.push_str(&format!("\"{name}\" : {value}\n"));
    }

    fn quoted(&mut self, name: &str, value: &[u8]) {
        self.field(name, quote(value));
    }

    fn empty_line(&mut self) {
        self.out.push('\n');
    }

    /// Ids of members and clusters.
    fn id(&mut self, name: &str, id: u64) {
        if self.hex { self.field(name, format!("{id:x}")) } else { self.field(name, id) }
    }

    fn lease(&mut self, name: &str, id: i64) {
        if self.hex { self.field(name, format!("{id:016x}")) } else { self.field(name, id) }
    }

    fn header(&mut self, header: Option<&ResponseHeader>) {
        let header = header.copied().unwrap_or_default();
        self.id("ClusterID", header.cluster_id);
        self.id("MemberID", header.member_id);
        if header.revision > 0 {
            self.field("Revision", header.revision);
        }
        self.field("RaftTerm", header.raft_term);
    }

    fn kv(&mut self, prefix: &str, kv: &KeyValue) {
        self.quoted(&format!("{prefix}Key"), &kv.key);
        self.field(&format!("{prefix}CreateRevision"), kv.create_revision);
        self.field(&format!("{prefix}ModRevision"), kv.mod_revision);
        self.field(&format!("{prefix}Version"), kv.version);
        self.quoted(&format!("{prefix}Value"), &kv.value);
        self.lease(&format!("{prefix}Lease"), kv.lease);
    }

    fn answer(&mut self, answer: &Answer) {
        match answer {
            Answer::Put(put) => {
                self.header(put.header.as_ref());
                put.prev_kv.iter().for_each(|kv| self.kv("Prev", kv));
            }
            Answer::Get(get) => {
                self.header(get.header.as_ref());
                get.kvs.iter().for_each(|kv| self.kv("", kv));
                self.field("More", get.more);
                self.field("Count", get.count);
            }
            Answer::Del(del) => {
                self.header(del.header.as_ref());
                self.field("Deleted", del.deleted);
                del.prev_kvs.iter().for_each(|kv| self.kv("Prev", kv));
            }
            Answer::Txn(txn) => {
                self.header(txn.header.as_ref());
                self.field("Succeeded", txn.succeeded);
                for op in &txn.responses {
                    match &op.response {
                        Some(Response::ResponsePut(put)) => self.answer(&Answer::Put(put.clone())),
                        Some(Response::ResponseRange(get)) => {
                            self.answer(&Answer::Get(get.clone()));
                        }
                        Some(Response::ResponseDeleteRange(del)) => {
                            self.answer(&Answer::Del(del.clone()));
                        }
                        Some(Response::ResponseTxn(_)) | None => {
                            self.quoted("Unknown", format!("{op:?}").as_bytes());
                        }
                    }
                }
            }
            Answer::Watch(watch) => {
                self.header(watch.header.as_ref());
                for event in &watch.events {
                    self.field("Type", event_type(event));
                    event.prev_kv.iter().for_each(|kv| self.kv("Prev", kv));
                    self.kv("", event.kv.as_ref().unwrap_or(&KeyValue::default()));
                }
            }
            Answer::Grant(grant) => {
                self.header(grant.header.as_ref());
                self.lease("ID", grant.id);
                self.field("TTL", grant.ttl);
            }
            Answer::Revoke(_, revoke) => self.header(revoke.header.as_ref()),
            Answer::KeepAlive(alive) => {
                self.header(alive.header.as_ref());
                self.lease("ID", alive.id);
                self.field("TTL", alive.ttl);
            }
            Answer::TimeToLive { response, .. } => {
                self.header(response.header.as_ref());
                self.lease("ID", response.id);
                self.field("TTL", response.ttl);
                self.field("GrantedTTL", response.granted_ttl);
                response.keys.iter().for_each(|key| self.quoted("Key", key));
            }
            Answer::Leases(leases) => {
                self.header(leases.header.as_ref());
                leases.leases.iter().for_each(|lease| self.lease("ID", lease.id));
            }
            Answer::Members(members) => {
                self.header(members.header.as_ref());
                for member in &members.members {
                    self.id("ID", member.id);
                    self.quoted("Name", member.name.as_bytes());
                    member.peer_ur_ls.iter().for_each(|url| self.quoted("PeerURL", url.as_bytes()));
                    let clients = member.client_ur_ls.iter();
                    clients.for_each(|url| self.quoted("ClientURL", url.as_bytes()));
                    self.field("IsLearner", member.is_learner);
                    self.empty_line();
                }
            }
            Answer::Health(endpoints) => {
                for health in endpoints {
                    self.quoted("Endpoint", health.endpoint.as_bytes());
                    self.field("Health", health.healthy);
                    self.field("Took", &health.took);
                    self.field("Error", &health.error);
                    self.empty_line();
                }
            }
            Answer::Status(endpoints) => {
                for (endpoint, status) in endpoints {
                    let downgrade = status.downgrade_info.clone().unwrap_or_default();
                    self.header(status.header.as_ref());
                    self.quoted("Version", status.version.as_bytes());
                    self.quoted("StorageVersion", status.storage_version.as_bytes());
                    self.field("DBSize", status.db_size);
                    self.field("DBSizeInUse", status.db_size_in_use);
                    self.field("DBSizeQuota", status.db_size_quota);
                    self.field("Leader", status.leader);
                    self.field("IsLearner", status.is_learner);
                    self.field("RaftIndex", status.raft_index);
                    self.field("RaftAppliedIndex", status.raft_applied_index);
                    self.field("Errors", format!("[{}]", status.errors.join(" ")));
                    self.quoted("Endpoint", endpoint.as_bytes());
                    self.quoted("DowngradeTargetVersion", downgrade.target_version.as_bytes());
                    self.field("DowngradeEnabled", downgrade.enabled);
                    self.empty_line();
                }
            }
            Answer::HashKv(endpoints) => {
                for (endpoint, hash) in endpoints {
                    self.header(hash.header.as_ref());
                    self.quoted("Endpoint", endpoint.as_bytes());
                    self.field("Hash", hash.hash);
                    self.field("HashRevision", hash.hash_revision);
                    self.empty_line();
                }
            }
        }
    }
}
