//! `/v2/stats/self`, `/v2/stats/leader` and `/v2/stats/store`.

use std::rc::Rc;

use http::{Response, StatusCode};

use super::operation::Operation;
use super::{JSON, go, message, tree};
use crate::http::{Body, page};
use crate::metrics::{Counter, Pending};
use crate::serve::shard::Shard;

/// Requests that were done, and those that were refused.
#[derive(Default)]
struct Tally {
    done: Counter,
    refused: Counter,
}

/// What this member has answered. etcd counts what it has applied, so that there each member counts all changes.
#[derive(Default)]
pub struct Counts {
    gets: Tally,
    sets: Tally,
    deletes: Tally,
    updates: Tally,
    creates: Tally,
    swaps: Tally,
    compared_deletes: Tally,
    /// Nodes that this member has expired as the leader.
    pub expired: Counter,
    /// Clients that wait for changes.
    pub watchers: Pending,
}

impl Counts {
    /// Counts a request that was answered.
    pub fn count(&self, operation: &Operation, done: bool) {
        let tally = match operation {
            Operation::Get => &self.gets,
            Operation::Set => &self.sets,
            Operation::Create { .. } => &self.creates,
            Operation::Update => &self.updates,
            Operation::CompareAndSwap => &self.swaps,
            Operation::Delete => &self.deletes,
            Operation::CompareAndDelete => &self.compared_deletes,
            Operation::Expire(_) => return,
        };
        if done { tally.done.add(1) } else { tally.refused.add(1) }
    }

    fn to_json(&self) -> String {
        let mut out = String::from("{");
        for (done, refused, tally) in [
            ("getsSuccess", "getsFail", &self.gets),
            ("setsSuccess", "setsFail", &self.sets),
            ("deleteSuccess", "deleteFail", &self.deletes),
            ("updateSuccess", "updateFail", &self.updates),
            ("createSuccess", "createFail", &self.creates),
            ("compareAndSwapSuccess", "compareAndSwapFail", &self.swaps),
            ("compareAndDeleteSuccess", "compareAndDeleteFail", &self.compared_deletes),
        ] {
            let (done_count, refused_count) = (tally.done.value(), tally.refused.value());
            out.push_str(&format!("\"{done}\":{done_count},\"{refused}\":{refused_count},"));
        }
        let (expired, watchers) = (self.expired.value(), self.watchers.value());
        out.push_str(&format!("\"expireCount\":{expired},\"watchers\":{watchers}}}"));
        out
    }
}

/// Answers one of the three pages.
pub fn answer(shard: &Rc<Shard>, path: &[u8]) -> Response<Body> {
    let node = &shard.node;
    match path {
        b"/v2/stats/store" => page(StatusCode::OK, JSON, node.v2.counts.to_json()),
        b"/v2/stats/leader" if !shard.view.leads() => {
            message(StatusCode::FORBIDDEN, "not current leader")
        }
        b"/v2/stats/leader" => page(StatusCode::OK, JSON, leader(shard)),
        _ => page(StatusCode::OK, JSON, own(shard)),
    }
}

fn own(shard: &Rc<Shard>) -> String {
    let node = &shard.node;
    let (now_ms, now_ns) = (node.now_ms(), tree::now_ns());
    let ago = |ms: u64| now_ns.saturating_sub((ms as i64).saturating_mul(1_000_000));
    let led_ms =
        now_ms.saturating_sub(node.leader_since_ms.load(std::sync::atomic::Ordering::Relaxed));
    let leader = match shard.view.leader() {
        raft::NONE => String::new(),
        leader => format!("{leader:x}"),
    };
    let state = match (shard.view.leads(), shard.view.leader()) {
        (true, _) => "StateLeader",
        (false, raft::NONE) => "StateCandidate",
        _ => "StateFollower",
    };
    let mut name = String::new();
    go::write_json_string(node.config.name.as_bytes(), &mut name);
    format!(
        "{{\"name\":{name},\"id\":\"{:x}\",\"state\":\"{state}\",\"startTime\":\"{}\",\
         \"leaderInfo\":{{\"leader\":\"{leader}\",\"uptime\":\"{}\",\"startTime\":\"{}\"}},\
         \"recvAppendRequestCnt\":{},\"sendAppendRequestCnt\":{}}}",
        node.identity.node_id,
        go::time(ago(now_ms)),
        go::duration(led_ms.saturating_mul(1_000_000)),
        go::time(ago(led_ms)),
        node.metrics.appends_received.value(),
        node.metrics.appends_sent.value(),
    )
}

fn leader(shard: &Rc<Shard>) -> String {
    let own = shard.node.identity.node_id;
    let followers: Vec<String> = shard
        .view
        .state
        .cluster()
        .members
        .keys()
        .filter(|id| **id != own)
        .map(|id| {
            let sent = shard.node.peer_table.of(*id).appends;
            format!(
                "\"{id:x}\":{{\"latency\":{{\"current\":{},\"average\":{},\"standardDeviation\":{},\
                 \"minimum\":{},\"maximum\":{}}},\"counts\":{{\"fail\":{},\"success\":{}}}}}",
                sent.current_ms,
                sent.average_ms,
                sent.deviation_ms(),
                sent.minimum_ms,
                sent.maximum_ms,
                sent.failed,
                sent.sent
            )
        })
        .collect();
    format!("{{\"leader\":\"{own:x}\",\"followers\":{{{}}}}}", followers.join(","))
}
