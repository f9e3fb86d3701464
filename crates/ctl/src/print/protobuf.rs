//! The protobuf format: the answer's message, raw and without a newline.

use prost::Message;
use proto::etcdserverpb::{ResponseHeader, WatchResponse};

use super::Answer;

pub(super) fn print(answer: &Answer) -> Option<Vec<u8>> {
    // Of most lease answers etcdctl prints the header alone.
    let header = |header: &Option<ResponseHeader>| header.unwrap_or_default().encode_to_vec();
    Some(match answer {
        Answer::Put(put) => put.encode_to_vec(),
        Answer::Get(get) => get.encode_to_vec(),
        Answer::Del(del) => del.encode_to_vec(),
        Answer::Txn(txn) => txn.encode_to_vec(),
        Answer::Watch(watch) => {
            let shown = WatchResponse {
                watch_id: 0,
                cancel_reason: String::new(),
                fragment: false,
                ..watch.clone()
            };
            shown.encode_to_vec()
        }
        Answer::Revoke(_, revoke) => revoke.encode_to_vec(),
        Answer::Grant(grant) => header(&grant.header),
        Answer::KeepAlive(alive) => header(&alive.header),
        Answer::TimeToLive { response, .. } => header(&response.header),
        Answer::Leases(leases) => header(&leases.header),
        Answer::Members(members) => members.encode_to_vec(),
        Answer::Health(_) | Answer::Status(_) | Answer::HashKv(_) => return None,
    })
}
