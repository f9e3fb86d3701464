//! Our own service: a request that tells what it went through, what this member knows of an entry, and which requests
//! were slow. etcd has no such thing; nothing of it stands in etcd's messages or goes to other members.

use std::rc::Rc;

use bytes::Bytes;
use prost::Message;
use proto::quorate::v1::trace_request::Request;
use proto::quorate::v1::{SlowRequest, SlowResponse, StagesRequest, StagesResponse, TraceRequest};
use raft::{Index, Term};

use crate::grpc::{Call, decode, serve};
use crate::serve::shard::Shard;
use crate::serve::status::{Code, Status};
use crate::serve::stream::Responder;

/// Trace: the request is served as KV serves it, with this call's deadline; then its client is told.
pub fn trace(shard: &Rc<Shard>, call: Call, message: Bytes, mut respond: Responder) {
    let request = match decode::<TraceRequest>(message) {
        Ok(TraceRequest { request: Some(request) }) => request,
        Ok(TraceRequest { request: None }) => {
            let text = "quorate: the request to trace is missing, or is none that can be traced";
            return respond.fail(&Status::new(Code::InvalidArgument, text));
        }
        Err(status) => return respond.fail(&status),
    };
    // The numbers of the fields in `TraceResponse`.
    let (path, field, message) = match request {
        Request::Range(range) => ("/etcdserverpb.KV/Range", 1, range.encode_to_vec()),
        Request::Put(put) => ("/etcdserverpb.KV/Put", 2, put.encode_to_vec()),
        Request::DeleteRange(range) => ("/etcdserverpb.KV/DeleteRange", 3, range.encode_to_vec()),
        Request::Txn(txn) => ("/etcdserverpb.KV/Txn", 4, txn.encode_to_vec()),
    };
    match call.again(path) {
        Ok(call) => {
            respond.tell(|story| story.trace(call.method.path, field));
            serve(shard, call, message.into(), respond);
        }
        Err(status) => respond.fail(&status),
    }
}

/// Stages.
pub fn stages(shard: &Rc<Shard>, message: Bytes, respond: Responder) {
    let StagesRequest { term, index } = match decode(message) {
        Ok(request) => request,
        Err(status) => return respond.fail(&status),
    };
    let node = &shard.node;
    let cluster = shard.view.state.cluster();
    let voters = cluster.members.values().filter(|member| !member.is_learner);
    let response = StagesResponse {
        member_id: node.identity.node_id,
        name: node.config.name.clone(),
        leader: shard.view.leader(),
        voters: voters.map(|member| member.id).collect(),
        stages: node.stages.of(Term(term), Index(index), None),
    };
    respond.reply(shard.message(|out| put(&response, out)));
}

/// Slow.
pub fn slow(shard: &Rc<Shard>, message: Bytes, respond: Responder) {
    let SlowRequest {} = match decode(message) {
        Ok(request) => request,
        Err(status) => return respond.fail(&status),
    };
    let node = &shard.node;
    let response = SlowResponse {
        member_id: node.identity.node_id,
        name: node.config.name.clone(),
        records: node.slow.records(node.stages.now_us()),
    };
    respond.reply(shard.message(|out| put(&response, out)));
}

fn put(message: &impl Message, out: &mut bytes::BytesMut) {
    message.encode(out).expect("a buffer that grows has room");
}
