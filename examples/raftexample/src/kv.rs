//! The state machine: a map, and where the nodes are. On every node it becomes what the log says.

use std::collections::BTreeMap;

/// What all agree on; encoded, it is a snapshot. The node changes it and clients read it, under a lock for each time.
#[derive(Clone, PartialEq, prost::Message)]
pub struct State {
    #[prost(btree_map = "string, bytes", tag = "1")]
    pub pairs: BTreeMap<String, Vec<u8>>,
    /// The nodes' URLs, for whoever begins with a snapshot.
    #[prost(btree_map = "uint64, string", tag = "2")]
    pub urls: BTreeMap<u64, String>,
}

/// A client's change, as it stands in the log.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Put {
    /// By which the node that proposed it, and no other, knows it again.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub key: String,
    #[prost(bytes = "vec", tag = "3")]
    pub value: Vec<u8>,
}
