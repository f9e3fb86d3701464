//! The Cluster service: so far the list of members.

use std::rc::Rc;

use bytes::Bytes;
use proto::etcdserverpb::MemberListRequest;
use state_machine::Reply;

use crate::grpc::{Call, Read, decode};
use crate::serve::shard::Shard;
use crate::serve::stream::Responder;

/// MemberList: this member's own view, or the cluster's.
pub fn member_list(shard: &Rc<Shard>, call: Call, message: Bytes, respond: Responder) {
    match decode::<MemberListRequest>(message) {
        Err(status) => respond.fail(&status),
        Ok(request) if request.linearizable => {
            let deadline = call.deadline_ms(&shard.node.config);
            shard.read_linearizable(Read::members(&call, deadline, respond), deadline);
        }
        Ok(_) => {
            let reply = Reply::MemberList { members: shard.view.state.cluster().member_list() };
            let header = shard.header();
            respond.reply(shard.message(|out| reply.encode(&header, out)));
        }
    }
}
