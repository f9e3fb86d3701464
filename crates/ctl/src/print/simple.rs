//! The simple format: for people and for shell scripts.

use proto::{etcdserverpb::response_op::Response, mvccpb::KeyValue};

use super::{Answer, Printed, event_type, table};

struct Simple {
    hex: bool,
    value_only: bool,
    out: Vec<u8>,
}

pub(super) fn print(answer: &Answer, hex: bool, value_only: bool) -> Printed {
    let mut simple = Simple { hex, value_only, out: Vec::new() };
    let mut err = String::new();
    match answer {
        Answer::Health(endpoints) => {
            for health in endpoints {
                let (endpoint, took, why) = (&health.endpoint, &health.took, &health.error);
                if why.is_empty() {
                    simple.line(&format!(
                        "{endpoint} is healthy: successfully committed proposal: took = {took}"
                    ));
                } else {
                    err.push_str(&format!(
                        "{endpoint} is unhealthy: failed to commit proposal: {why}\n"
                    ));
                }
            }
        }
        answer => simple.answer(answer),
    }
    Printed { out: simple.out, err }
}

impl Simple {
    fn line(&mut self, line: &str) {
        self.bytes(line.as_bytes());
    }

    fn bytes(&mut self, line: &[u8]) {
        self.out.extend_from_slice(line);
        self.out.push(b'\n');
    }

    fn kv(&mut self, kv: &KeyValue) {
        if !self.value_only {
            self.text(&kv.key);
        }
        self.text(&kv.value);
    }

    fn text(&mut self, bytes: &[u8]) {
        if self.hex {
            let escaped: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            self.line(&escaped);
        } else {
            self.bytes(bytes);
        }
    }

    fn answer(&mut self, answer: &Answer) {
        match answer {
            Answer::Put(put) => {
                self.line("OK");
                put.prev_kv.iter().for_each(|kv| self.kv(kv));
            }
            Answer::Get(get) => get.kvs.iter().for_each(|kv| self.kv(kv)),
            Answer::Del(del) => {
                self.line(&del.deleted.to_string());
                del.prev_kvs.iter().for_each(|kv| self.kv(kv));
            }
            Answer::Txn(txn) => {
                self.line(if txn.succeeded { "SUCCESS" } else { "FAILURE" });
                for op in &txn.responses {
                    self.line("");
                    match &op.response {
                        Some(Response::ResponsePut(put)) => self.answer(&Answer::Put(put.clone())),
                        Some(Response::ResponseRange(get)) => {
                            self.answer(&Answer::Get(get.clone()));
                        }
                        Some(Response::ResponseDeleteRange(del)) => {
                            self.answer(&Answer::Del(del.clone()));
                        }
                        // Neither can be asked for on the command line.
                        Some(Response::ResponseTxn(_)) | None => {
                            self.line(&format!("unexpected response {op:?}"));
                        }
                    }
                }
            }
            Answer::Watch(watch) => {
                for event in &watch.events {
                    self.line(&event_type(event));
                    event.prev_kv.iter().for_each(|kv| self.kv(kv));
                    event.kv.iter().for_each(|kv| self.kv(kv));
                }
            }
            Answer::Grant(grant) => {
                self.line(&format!("lease {:016x} granted with TTL({}s)", grant.id, grant.ttl));
            }
            Answer::Revoke(id, _) => self.line(&format!("lease {id:016x} revoked")),
            Answer::KeepAlive(alive) => {
                self.line(&format!("lease {:016x} keepalived with TTL({})", alive.id, alive.ttl));
            }
            Answer::TimeToLive { response, .. }
                if response.granted_ttl == 0 && response.ttl == -1 =>
            {
                self.line(&format!("lease {:016x} already expired", response.id));
            }
            Answer::TimeToLive { response, keys } => {
                let (id, granted, ttl) = (response.id, response.granted_ttl, response.ttl);
                let mut line =
                    format!("lease {id:016x} granted with TTL({granted}s), remaining({ttl}s)")
                        .into_bytes();
                if *keys {
                    line.extend_from_slice(b", attached keys([");
                    line.extend_from_slice(&response.keys.join(&b' '));
                    line.extend_from_slice(b"])");
                }
                self.bytes(&line);
            }
            Answer::Leases(leases) => {
                self.line(&format!("found {} leases", leases.leases.len()));
                leases.leases.iter().for_each(|lease| self.line(&format!("{:016x}", lease.id)));
            }
            Answer::Members(_) | Answer::Status(_) | Answer::HashKv(_) | Answer::Health(_) => {
                let rows = table::rows(answer).map_or(Vec::new(), |table| table.rows);
                rows.iter().for_each(|row| self.line(&row.join(", ")));
            }
        }
    }
}
