//! Keys and values: reads, writes, transactions, compaction.

use bytes::Bytes;
use proto::etcdserverpb::{
    self as pb, CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse,
    PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse,
    compare::{CompareResult, CompareTarget, TargetUnion},
    kv_client::KvClient,
    request_op::Request as Op,
};
use tonic::transport::Channel;

use crate::{
    Client,
    error::Error,
    retry::Policy::{AtMostOnce, Repeatable},
};

impl Client {
    /// Reads a range of keys. Repeated while members are unavailable.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        self.call("/etcdserverpb.KV/Range", Repeatable, request, |channel, request| {
            let mut kv = self.kv(channel);
            async move { kv.range(request).await }
        })
        .await
    }

    /// Puts a key. Sent at most once.
    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, Error> {
        self.call("/etcdserverpb.KV/Put", AtMostOnce, request, |channel, request| {
            let mut kv = self.kv(channel);
            async move { kv.put(request).await }
        })
        .await
    }

    /// Deletes a range of keys. Sent at most once.
    pub async fn delete_range(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Error> {
        self.call("/etcdserverpb.KV/DeleteRange", AtMostOnce, request, |channel, request| {
            let mut kv = self.kv(channel);
            async move { kv.delete_range(request).await }
        })
        .await
    }

    /// Runs a transaction. Sent at most once.
    pub async fn txn(&self, request: impl Into<TxnRequest>) -> Result<TxnResponse, Error> {
        self.call("/etcdserverpb.KV/Txn", AtMostOnce, request.into(), |channel, request| {
            let mut kv = self.kv(channel);
            async move { kv.txn(request).await }
        })
        .await
    }

    /// Compacts the history up to a revision. Sent at most once.
    pub async fn compact(&self, request: CompactionRequest) -> Result<CompactionResponse, Error> {
        self.call("/etcdserverpb.KV/Compact", AtMostOnce, request, |channel, request| {
            let mut kv = self.kv(channel);
            async move { kv.compact(request).await }
        })
        .await
    }

    fn kv(&self, channel: Channel) -> KvClient<Channel> {
        KvClient::new(channel).max_decoding_message_size(self.receive_max())
    }
}

/// The end of the range of all keys with this prefix; `\0`, without end, where no key is greater.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    match prefix.iter().rposition(|&byte| byte < 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end.into()
        }
        None => Bytes::from_static(b"\0"),
    }
}

/// A transaction under construction: when all compares hold then these operations, or else those.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Txn {
    request: TxnRequest,
}

impl Txn {
    /// A transaction that does nothing yet.
    pub fn new() -> Txn {
        Txn::default()
    }

    /// Adds a compare; all of them must hold.
    pub fn when(mut self, compare: impl Into<pb::Compare>) -> Txn {
        self.request.compare.push(compare.into());
        self
    }

    /// Adds an operation for when all compares hold.
    pub fn then(mut self, op: Op) -> Txn {
        self.request.success.push(RequestOp { request: Some(op) });
        self
    }

    /// Adds an operation for when one does not.
    pub fn or_else(mut self, op: Op) -> Txn {
        self.request.failure.push(RequestOp { request: Some(op) });
        self
    }
}

impl From<Txn> for TxnRequest {
    fn from(txn: Txn) -> TxnRequest {
        txn.request
    }
}

/// One compare of a transaction: a property of a key against a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Compare(pb::Compare);

impl Compare {
    /// Compares what the target says of the key (its version, a revision, its value or lease) so:
    /// `result` is how the key's property stands to `target`.
    pub fn new(key: impl Into<Bytes>, result: CompareResult, target: TargetUnion) -> Compare {
        let kind = match target {
            TargetUnion::Version(_) => CompareTarget::Version,
            TargetUnion::CreateRevision(_) => CompareTarget::Create,
            TargetUnion::ModRevision(_) => CompareTarget::Mod,
            TargetUnion::Value(_) => CompareTarget::Value,
            TargetUnion::Lease(_) => CompareTarget::Lease,
        };
        Compare(pb::Compare {
            result: result.into(),
            target: kind.into(),
            key: key.into(),
            range_end: Bytes::new(),
            target_union: Some(target),
        })
    }

    /// Lets it hold only if it holds for every key up to `range_end`.
    pub fn up_to(mut self, range_end: impl Into<Bytes>) -> Compare {
        self.0.range_end = range_end.into();
        self
    }

    /// Holds while the key does not exist.
    pub fn absent(key: impl Into<Bytes>) -> Compare {
        Compare::new(key, CompareResult::Equal, TargetUnion::CreateRevision(0))
    }
}

impl From<Compare> for pb::Compare {
    fn from(compare: Compare) -> pb::Compare {
        compare.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_its_successor() {
        assert_eq!(prefix_end(b"a"), "b");
        assert_eq!(prefix_end(b"a\xff\xff"), "b");
        assert_eq!(prefix_end(b"\xff"), "\0");
        assert_eq!(prefix_end(b""), "\0");
    }

    #[test]
    fn a_transaction_is_its_request() {
        let put = |value: &'static str| {
            Op::RequestPut(PutRequest {
                key: "k".into(),
                value: value.into(),
                ..Default::default()
            })
        };
        let request: TxnRequest =
            Txn::new().when(Compare::absent("k")).then(put("made")).or_else(put("again")).into();
        assert_eq!(request.compare[0].target, i32::from(CompareTarget::Create));
        assert_eq!(request.compare[0].target_union, Some(TargetUnion::CreateRevision(0)));
        assert_eq!(request.success[0].request, Some(put("made")));
        assert_eq!(request.failure[0].request, Some(put("again")));
    }
}
