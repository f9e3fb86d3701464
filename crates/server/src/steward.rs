//! What a member says through the log of its own accord: its name and client URLs, and, as leader, the cluster's
//! version and the compactions that its operator wants regularly. Runs on the first shard.

use std::rc::Rc;
use std::time::Duration;

use proto::etcdserverpb::CompactionRequest;
use proto::membershippb::{Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest};
use state_machine::{Request, Version};

use crate::compactor::Compactor;
use crate::config::{CLUSTER_VERSION, MIN_CLUSTER_VERSION};
use crate::handle::Node;
use crate::log;
use crate::serve::shard::Shard;

/// How often the member looks whether all is said.
const LOOK: Duration = Duration::from_millis(50);
/// How long something said may take to be applied before it is said again.
const AGAIN_MS: u64 = 2_000;

/// Looks after all of it, for as long as the shard lives.
pub async fn run(shard: Rc<Shard>) {
    let mut compactor = Compactor::new(shard.node.config.retention, shard.now_ms());
    let (mut attributes_ms, mut version_ms) = (None::<u64>, None::<u64>);
    loop {
        tokio::time::sleep(LOOK).await;
        if shard.stopping.get() {
            return;
        }
        if shard.view.leader() == raft::NONE {
            continue;
        }
        let now = shard.now_ms();
        let (state, leads) = (&shard.view.state, shard.view.leads());
        let wanted = compactor.look(now, state.revision(), state.compact_revision(), leads);
        if let Some(revision) = wanted {
            log!(Info, "starting auto compaction", "revision" => revision);
            let compaction = CompactionRequest { revision, physical: false };
            shard.propose_own(Request::Compact(compaction));
        }
        let due = |said: Option<u64>| said.is_none_or(|at| now >= at + AGAIN_MS);
        if !is_published(&shard.node) && due(attributes_ms) {
            attributes_ms = Some(now);
            shard.propose_own(Request::MemberAttributesSet(ClusterMemberAttrSetRequest {
                member_id: shard.node.identity.node_id,
                member_attributes: Some(Attributes {
                    name: shard.node.config.name.clone(),
                    client_urls: client_urls(&shard.node),
                }),
            }));
        }
        if shard.view.leads()
            && due(version_ms)
            && let Some(version) = next_version(&shard.node)
        {
            version_ms = Some(now);
            log!(Info, "setting the cluster version", "cluster-version" => &version);
            shard
                .propose_own(Request::ClusterVersionSet(ClusterVersionSetRequest { ver: version }));
        }
    }
}

/// Waits until the member serves: there is a leader, and its list of members tells clients where to find us.
pub async fn until_ready(node: &Node) {
    while node.view.leader() == raft::NONE || !is_published(node) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn client_urls(node: &Node) -> Vec<String> {
    node.config.advertise_client_urls.iter().map(|url| url.as_str().to_string()).collect()
}

fn is_published(node: &Node) -> bool {
    let cluster = node.view.state.cluster();
    cluster
        .members
        .get(&node.identity.node_id)
        .is_some_and(|own| own.name == node.config.name && own.client_urls == client_urls(node))
}

/// The version that the cluster should have, if it should have another: the lowest of all members', as far as
/// all are known; until then the lowest there is, so that no member is asked for what it may not have.
fn next_version(node: &Node) -> Option<String> {
    let cluster = node.view.state.cluster();
    let mut lowest = Version::parse(CLUSTER_VERSION).expect("a constant version can be read");
    for member in cluster.members.keys().filter(|id| **id != node.identity.node_id) {
        let version = node.peer_table.of(*member).version;
        match version.and_then(|version| Version::parse(&version)) {
            Some(version) if (version.major, version.minor) < (lowest.major, lowest.minor) => {
                lowest = Version::new(version.major, version.minor, 0);
            }
            Some(_) => {}
            None if cluster.version.is_none() => return Some(MIN_CLUSTER_VERSION.to_string()),
            None => return None,
        }
    }
    let higher = cluster
        .version
        .as_ref()
        .is_none_or(|now| (now.major, now.minor) < (lowest.major, lowest.minor));
    higher.then(|| format!("{}.{}.0", lowest.major, lowest.minor))
}
