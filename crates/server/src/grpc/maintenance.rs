//! The Maintenance service: Status, Hash, HashKV, and the list of alarms.

use std::rc::Rc;

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, DowngradeInfo, HashKvRequest, HashResponse,
    ResponseHeader, StatusResponse, alarm_request::AlarmAction,
};
use state_machine::{Header, Reply};

use crate::config::{CLUSTER_VERSION, SERVER_VERSION};
use crate::grpc::decode;
use crate::serve::shard::Shard;
use crate::serve::status::Status;
use crate::serve::stream::Responder;

/// Status: this member as it sees itself; also without a leader.
pub fn status(shard: &Rc<Shard>, respond: Responder) {
    let view = &shard.view;
    let cluster = view.state.cluster();
    let (size, size_in_use) = view.sizes();
    let mut errors = Vec::new();
    if view.leader() == raft::NONE {
        errors.push(state_machine::Error::NoLeader.text().to_string());
    }
    for (alarm, member) in &cluster.alarms {
        let name = AlarmType::try_from(*alarm).map_or("UNKNOWN", |alarm| alarm.as_str_name());
        errors.push(format!("memberID:{member} alarm:{name}"));
    }
    let header = shard.header();
    let response = StatusResponse {
        header: Some(response_header(&header)),
        version: SERVER_VERSION.to_string(),
        db_size: size as i64,
        leader: view.leader(),
        raft_index: view.committed().0,
        raft_term: header.raft_term,
        raft_applied_index: view.applied().0,
        errors,
        db_size_in_use: size_in_use as i64,
        is_learner: view.is_learner(),
        storage_version: cluster
            .version
            .as_ref()
            .map_or(String::new(), |_| CLUSTER_VERSION.to_string()),
        db_size_quota: shard.node.config.quota_bytes().unwrap_or(0),
        downgrade_info: Some(DowngradeInfo {
            enabled: cluster.downgrade.enabled,
            target_version: cluster.downgrade.target_version.clone(),
        }),
    };
    respond.reply(shard.message(|out| response.encode_raw(out)));
}

/// The header as a message of its own.
pub fn response_header(header: &Header) -> ResponseHeader {
    ResponseHeader {
        cluster_id: header.cluster_id,
        member_id: header.member_id,
        revision: header.revision,
        raft_term: header.raft_term,
    }
}

/// Hash. etcd hashes its file, which nobody else has; ours is HashKV at the current revision.
pub fn hash(shard: &Rc<Shard>, respond: Responder) {
    let header = shard.header();
    shard.read_whole(respond, move |view, out| {
        let reply = view.state.hash_now()?;
        let Reply::HashKv { hash, revision, .. } = reply else {
            unreachable!("hash_now answers with a hash")
        };
        let header = response_header(&Header { revision, ..header });
        HashResponse { header: Some(header), hash }.encode_raw(out);
        Ok(())
    });
}

/// HashKV.
pub fn hash_kv(shard: &Rc<Shard>, message: Bytes, respond: Responder) {
    match decode::<HashKvRequest>(message) {
        Err(status) => respond.fail(&status),
        Ok(request) => {
            let header = shard.header();
            shard.read_whole(respond, move |view, out| {
                view.state.hash_kv(request.revision)?.encode(&header, out);
                Ok(())
            });
        }
    }
}

/// Alarm: the list can be read; raising and taking back come later.
pub fn alarm(shard: &Rc<Shard>, message: Bytes, respond: Responder) {
    let request: AlarmRequest = match decode(message) {
        Ok(request) => request,
        Err(status) => return respond.fail(&status),
    };
    if request.action != AlarmAction::Get as i32 {
        return respond.fail(&Status::later("raising or taking back an alarm"));
    }
    let header = shard.header();
    let wanted = |alarm: i32| request.alarm == AlarmType::None as i32 || request.alarm == alarm;
    let cluster = shard.view.state.cluster();
    let alarms = cluster
        .alarms
        .iter()
        .filter(|(alarm, _)| wanted(*alarm))
        .map(|(alarm, member)| AlarmMember { member_id: *member, alarm: *alarm })
        .collect();
    let reply = Reply::Alarm { revision: header.revision, alarms };
    respond.reply(shard.message(|out| reply.encode(&header, out)));
}
