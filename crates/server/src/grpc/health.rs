//! The standard health service: it knows one service, the empty name, which serves while the member does.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use prost::Message;
use proto::health::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
};

use crate::grpc::decode;
use crate::serve::shard::Shard;
use crate::serve::status::{Code, Status};
use crate::serve::stream::{Outgoing, Responder};

/// Check.
pub fn check(shard: &Rc<Shard>, message: Bytes, respond: Responder) {
    match decode::<HealthCheckRequest>(message) {
        Err(status) => respond.fail(&status),
        Ok(request) if request.service.is_empty() => {
            respond.reply(encode(shard, ServingStatus::Serving));
        }
        Ok(_) => respond.fail(&Status::new(Code::NotFound, "unknown service")),
    }
}

/// Watch: says how the service stands, and stays open.
pub fn watch(shard: &Rc<Shard>, out: &Rc<RefCell<Outgoing>>, message: Bytes) -> Result<(), Status> {
    let request: HealthCheckRequest = decode(message)?;
    let status = match request.service.is_empty() {
        true => ServingStatus::Serving,
        false => ServingStatus::ServiceUnknown,
    };
    out.borrow_mut().push(encode(shard, status));
    Ok(())
}

fn encode(shard: &Rc<Shard>, status: ServingStatus) -> Bytes {
    let response = HealthCheckResponse { status: status as i32 };
    shard.message(|out| response.encode_raw(out))
}
