//! `/health`, `/livez` and `/readyz`, as etcd answers them.

use std::rc::Rc;

use http::{Response, StatusCode};
use mvcc::Effort;
use proto::etcdserverpb::{AlarmType, RangeRequest};

use super::{Body, TEXT, page, parameters};
use crate::grpc::Read;
use crate::log;
use crate::serve::shard::Shard;

const LIVEZ: &[&str] = &["serializable_read"];
const READYZ: &[&str] =
    &["data_corruption", "serializable_read", "linearizable_read", "non_learner"];

/// Whether a path is one of the checks' pages.
pub fn is_check(path: &str) -> bool {
    names(path).is_some()
}

/// The checks that a path asks for.
fn names(path: &str) -> Option<Vec<&'static str>> {
    for (root, all) in [("/livez", LIVEZ), ("/readyz", READYZ)] {
        match path.strip_prefix(root) {
            Some("") => return Some(all.to_vec()),
            Some(rest) => {
                let one = rest.strip_prefix('/')?;
                return all.iter().find(|name| **name == one).map(|name| vec![*name]);
            }
            None => {}
        }
    }
    None
}

/// `/health`: alarms, then a leader, then a read; the first failure is the reason.
pub async fn health(shard: &Rc<Shard>, query: &str) -> Response<Body> {
    let excluded = parameters(query, "exclude");
    let serializable =
        parameters(query, "serializable").first().is_some_and(|value| value == "true");
    let reason = failure(shard, &excluded, serializable).await;
    let metrics = &shard.node.metrics;
    match reason {
        None => {
            metrics.health_success.add(1);
            // Go's handler sets no content type and so lets it be guessed: plain text.
            page(StatusCode::OK, TEXT, "{\"health\":\"true\",\"reason\":\"\"}".to_string())
        }
        Some(reason) => {
            metrics.health_failures.add(1);
            log!(Warn, "/health error", "reason" => &reason);
            let reason = serde_json::Value::String(reason);
            let body = format!("{{\"health\":\"false\",\"reason\":{reason}}}\n");
            page(StatusCode::SERVICE_UNAVAILABLE, TEXT, body)
        }
    }
}

async fn failure(shard: &Rc<Shard>, excluded: &[String], serializable: bool) -> Option<String> {
    let alarm = shard
        .view
        .state
        .cluster()
        .alarms
        .iter()
        .map(|(alarm, _)| {
            AlarmType::try_from(*alarm).map_or("UNKNOWN", |alarm| alarm.as_str_name())
        })
        .find(|name| !excluded.iter().any(|excluded| excluded == name));
    if let Some(name) = alarm {
        return Some(format!("ALARM {name}"));
    }
    if !serializable && shard.view.leader() == raft::NONE {
        return Some("RAFT NO LEADER".to_string());
    }
    read(shard, !serializable).await.err().map(|error| format!("RANGE ERROR:{error}"))
}

/// `/livez`, `/readyz`, and their single checks.
pub async fn checks(shard: &Rc<Shard>, path: &str, query: &str) -> Response<Body> {
    let names = names(path).expect("only asked for paths that have checks");
    let excluded = parameters(query, "exclude");
    let verbose = !parameters(query, "verbose").is_empty();
    let mut lines = String::new();
    let mut healthy = true;
    // A single check is run whatever is excluded.
    let single = !matches!(path, "/livez" | "/readyz");
    for name in names.into_iter().filter(|name| single || !excluded.iter().any(|out| out == name)) {
        match check(shard, name).await {
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            Err(error) => {
                healthy = false;
                lines.push_str(&format!("[-]{name} failed: {error}\n"));
            }
        }
    }
    match (healthy, verbose) {
        // Go's error page ends with a line end of its own.
        (false, _) => {
            log!(Error, "Health check error", "path" => path, "reason" => &lines);
            page(StatusCode::SERVICE_UNAVAILABLE, TEXT, lines + "\n")
        }
        (true, true) => page(StatusCode::OK, TEXT, lines + "ok\n"),
        (true, false) => page(StatusCode::OK, TEXT, "ok\n".to_string()),
    }
}

async fn check(shard: &Rc<Shard>, name: &str) -> Result<(), String> {
    match name {
        "data_corruption" => {
            match shard.view.state.cluster().has_alarm(AlarmType::Corrupt as i32) {
                true => Err("alarm activated: CORRUPT".to_string()),
                false => Ok(()),
            }
        }
        "serializable_read" => read(shard, false).await,
        "linearizable_read" => read(shard, true).await,
        _ => match shard.view.is_learner() {
            true => Err("not supported for learner".to_string()),
            false => Ok(()),
        },
    }
}

/// The read that etcd does: one key, without its value.
async fn read(shard: &Rc<Shard>, linearizable: bool) -> Result<(), String> {
    if linearizable {
        let now = shard.now_ms();
        let (read, answer) = Read::proof(now);
        shard.read_linearizable(read, now + shard.node.config.request_timeout().as_millis() as u64);
        // A dropped sender means that the shard ends.
        answer
            .await
            .unwrap_or_else(|_| Err(state_machine::Error::Stopped.into()))
            .map_err(|s| s.text)?;
    }
    // As in etcd the key is empty; here that is asked for by its smallest one.
    let request =
        RangeRequest { key: vec![0].into(), keys_only: true, limit: 1, ..RangeRequest::default() };
    shard
        .view
        .state
        .range(&request, Effort::Now)
        .map(drop)
        .map_err(|error| error.text().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_their_checks() {
        assert_eq!(names("/livez"), Some(vec!["serializable_read"]));
        assert_eq!(names("/readyz").unwrap().len(), 4);
        assert_eq!(names("/readyz/non_learner"), Some(vec!["non_learner"]));
        for path in ["/readyzz", "/readyz/", "/livez/non_learner", "/health"] {
            assert_eq!(names(path), None, "{path}");
        }
    }
}
