//! `quorate limit`: the serving layer alone. Put and Range are read as a member reads them, and answered on their shard,
//! at once, with a constant.
//!
//! Acceptor, shards, connections and streams are a member's own; nothing stands behind them. So what
//! `quorate bench --server limit` measures is what sockets, HTTP/2, gRPC and reading requests cost: as cheap as that a
//! member could be if there were nothing to do. It keeps nothing and must never be taken for a member, so it answers
//! nothing else.

use std::rc::Rc;

use bytes::{BufMut, Bytes};
use prost::Message;
use proto::etcdserverpb::{PutResponse, RangeResponse, ResponseHeader};
use proto::mvccpb::KeyValue;
use replica::{Identity, SegmentBytes};
use state_machine::Error;

use crate::config::{self, Action, ConfigError};
use crate::grpc::kv;
use crate::serve::shard::Shard;
use crate::serve::status::{Code, Status};
use crate::serve::stream::Responder;

/// What it says to all that it does not do.
pub const ONLY: &str = "quorate limit answers Put and Range alone, each with a constant";
/// Of the one value that it knows: what is usual in comparisons.
pub const VALUE_BYTES: usize = 256;
/// Of the files in memory that nothing is ever written to.
pub const SEGMENT_BYTES: SegmentBytes = SegmentBytes { wal: 64 << 10, store: 64 << 10 };

const USAGE: &str = "\
quorate limit [flags]    answer Put and Range with a constant, to measure what serving alone costs

Nothing is kept, whatever is put; every other method is answered UNIMPLEMENTED.

  --listen-client-urls URL,...    where to listen (default http://localhost:2379)

A member's other flags are taken as well; of them those count that concern connections and the log lines.
`quorate bench --server limit` starts it by itself.
";

/// Reads its command line. The environment is a member's, and not looked at.
///
/// # Errors
/// As a member's.
pub fn parse(given: &[String]) -> Result<Action, ConfigError> {
    if given.iter().any(|flag| matches!(flag.as_str(), "--help" | "-help" | "-h" | "--h")) {
        return Ok(Action::Print(USAGE.to_string()));
    }
    // A member must be told how its clients reach it; here nobody will ask.
    let mut flags = vec!["--advertise-client-urls=http://localhost:2379".to_string()];
    flags.extend_from_slice(given);
    config::parse(&flags, [])
}

/// The end of a call that it does not serve.
pub fn refusal(path: &str) -> Status {
    Status::new(Code::Unimplemented, format!("{ONLY}, not {path}"))
}

/// The answers, encoded.
pub struct Constants {
    put: Vec<u8>,
    range: Vec<u8>,
}

impl Constants {
    /// As a member of this identity would give them after its first write.
    pub fn new(identity: Identity) -> Constants {
        let header = Some(ResponseHeader {
            cluster_id: identity.cluster_id,
            member_id: identity.node_id,
            revision: 2,
            raft_term: 2,
        });
        let key_value = KeyValue {
            key: Bytes::from_static(b"limit"),
            create_revision: 2,
            mod_revision: 2,
            version: 1,
            value: vec![b'='; VALUE_BYTES].into(),
            lease: 0,
        };
        let range = RangeResponse { header, kvs: vec![key_value], more: false, count: 1 };
        Constants {
            put: PutResponse { header, prev_kv: None }.encode_to_vec(),
            range: range.encode_to_vec(),
        }
    }

    /// Put.
    pub fn put(&self, shard: &Rc<Shard>, message: Bytes, mut respond: Responder) {
        let request = kv::put_request(message, &mut respond);
        answer(shard, request.map(|_| &self.put[..]), respond);
    }

    /// Range.
    pub fn range(&self, shard: &Rc<Shard>, message: Bytes, mut respond: Responder) {
        let request = kv::range_request(message, &mut respond);
        answer(shard, request.map(|_| &self.range[..]), respond);
    }
}

/// A connection whose client takes no answers is refused more of them, as where a member proposes.
fn answer(shard: &Shard, constant: Result<&[u8], Status>, respond: Responder) {
    match constant {
        Ok(_) if respond.seat().is_some_and(|seat| seat.is_full()) => {
            respond.fail(&Error::TooManyRequests.into());
        }
        Ok(constant) => respond.reply(shard.message(|out| out.put_slice(constant))),
        Err(status) => respond.fail(&status),
    }
}
