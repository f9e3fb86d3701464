//! The state machine: a map, and where the nodes are. On every node it becomes what the log says.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

/// What all agree on; encoded, it is a snapshot. A client's change, as it stands in the log, is a piece of it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct State {
    #[prost(btree_map = "string, bytes", tag = "1")]
    pub pairs: BTreeMap<String, Vec<u8>>,
    /// The nodes' addresses, for whoever begins with a snapshot.
    #[prost(btree_map = "uint64, string", tag = "2")]
    pub addresses: BTreeMap<u64, String>,
    /// Of a piece: by which the node that proposed it, and no other, knows it again.
    #[prost(uint64, tag = "3")]
    pub id: u64,
}

/// The state for a moment: to read it, or for the node to change it.
pub fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("nobody panics with the state in his hands")
}
