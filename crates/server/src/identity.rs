//! Who a member is: etcd's ids, computed from URLs and token, so that Go members of one cluster agree with us.
//!
//! ```text
//!   member id  = first 8 bytes, big endian, of SHA-1(peer URLs, sorted, joined ‖ token)
//!   cluster id = first 8 bytes, big endian, of SHA-1(member ids, sorted, 8 bytes big endian each)
//! ```

use std::collections::BTreeMap;

use replica::{Founder, Identity};
use sha1::{Digest, Sha1};
use state_machine::Member;

use crate::config::{ClusterState, Config};

/// The id of a founding member.
pub fn member_id(peer_urls: &[String], token: &str) -> u64 {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    first_eight(&[urls.concat().as_bytes(), token.as_bytes()].concat())
}

/// The id of a cluster whose founders have these ids.
pub fn cluster_id(mut members: Vec<u64>) -> u64 {
    members.sort_unstable();
    let bytes: Vec<u8> = members.iter().flat_map(|id| id.to_be_bytes()).collect();
    first_eight(&bytes)
}

fn first_eight(bytes: &[u8]) -> u64 {
    let hash = Sha1::digest(bytes);
    let first: [u8; 8] = hash[..8].try_into().expect("SHA-1 has twenty bytes");
    u64::from_be_bytes(first)
}

/// The founding members as the command line names them, by id.
pub fn founders(config: &Config) -> BTreeMap<u64, Member> {
    config
        .initial_cluster
        .iter()
        .map(|(name, urls)| {
            let id = member_id(urls, &config.initial_cluster_token);
            let member =
                Member { id, name: name.clone(), peer_urls: urls.clone(), ..Member::default() };
            (id, member)
        })
        .collect()
}

/// Ourselves among the founders, and the cluster that they found.
///
/// # Errors
/// The command line contradicts itself; texts are etcd's where etcd has one.
pub fn of(config: &Config) -> Result<(Identity, Vec<Founder>), String> {
    let Some(own_urls) = config.initial_cluster.get(&config.name) else {
        return Err(format!(
            "couldn't find local name {:?} in the initial cluster configuration",
            config.name
        ));
    };
    let mut advertised: Vec<String> =
        config.initial_advertise_peer_urls.iter().map(|url| url.as_str().to_string()).collect();
    advertised.sort();
    if *own_urls != advertised {
        return Err(format!(
            "--initial-cluster has {} but missing from --initial-advertise-peer-urls={}; both must name the \
             same URLs for this member",
            own_urls
                .iter()
                .map(|url| format!("{}={url}", config.name))
                .collect::<Vec<_>>()
                .join(","),
            advertised.join(",")
        ));
    }
    let members = founders(config);
    if members.len() != config.initial_cluster.len() {
        return Err("--initial-cluster gives the same peer URLs to two members".to_string());
    }
    let identity = Identity {
        node_id: member_id(own_urls, &config.initial_cluster_token),
        cluster_id: cluster_id(members.keys().copied().collect()),
    };
    let founders = members
        .into_values()
        .map(|member| Founder { node_id: member.id, context: member.to_context() })
        .collect();
    Ok((identity, founders))
}

/// Compares the data that lies in a data directory with the flags beside it. Like etcd, a member that starts again is
/// who its data says, whatever the flags do; so flags of another member would have it serve, and publish itself, in the
/// other's place. A sentence comes back if the flags merely describe something else, as they may once a member's URLs
/// were changed.
///
/// # Errors
/// The data is that of another member that the flags name.
pub fn compare(found: Identity, config: &Config) -> Result<Option<String>, String> {
    // Flags that name no member can name no other.
    let Ok((own, _)) = of(config) else { return Ok(None) };
    let directory = config.data_dir.display();
    if found == own {
        return Ok(None);
    }
    if let Some(other) =
        founders(config).get(&found.node_id).filter(|_| found.node_id != own.node_id)
    {
        return Err(format!(
            "the data directory {directory} belongs to member {:?} ({:x}), not to {:?} ({:x}); start this member with \
             its own --data-dir, or the other one with its own --name and URLs",
            other.name, found.node_id, config.name, own.node_id
        ));
    }
    Ok((config.initial_cluster_state == ClusterState::New).then(|| {
        format!(
            "the data directory {directory} belongs to member {:x} of cluster {:x}, and the flags describe member {:x} \
             of cluster {:x}: the data counts; if this is not the directory you meant, stop the member and give its \
             own --data-dir",
            found.node_id, found.cluster_id, own.node_id, own.cluster_id
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_of_another_member_is_refused_and_changed_flags_are_told() {
        let config = |name: &str, port: &str, cluster: &str, state: &str| {
            let arguments = [
                format!("--name={name}"),
                format!("--initial-advertise-peer-urls=http://localhost:{port}"),
                format!("--initial-cluster={cluster}"),
                format!("--initial-cluster-state={state}"),
            ];
            match crate::config::parse(&arguments, []).unwrap() {
                crate::config::Action::Run(config) => *config,
                crate::config::Action::Print(_) => panic!("there is no help to print"),
            }
        };
        let both = "a=http://localhost:1,b=http://localhost:2";
        let a = config("a", "1", both, "new");
        let (found, _) = of(&a).unwrap();
        assert_eq!(compare(found, &a), Ok(None));
        let error = compare(found, &config("b", "2", both, "new")).unwrap_err();
        assert!(
            error.contains("belongs to member \"a\"") && error.contains("--data-dir"),
            "{error}"
        );

        // A member whose URL was changed, or a directory of another cluster: that cannot be told apart.
        let moved = "a=http://localhost:3,b=http://localhost:2";
        let told = compare(found, &config("a", "3", moved, "new")).unwrap().unwrap();
        assert!(told.contains(&format!("{:x}", found.cluster_id)), "{told}");
        // Who joined has an id that no flags give.
        assert_eq!(compare(found, &config("a", "3", moved, "existing")), Ok(None));
        // Flags that contradict themselves are not looked at when there is data, as in etcd.
        assert_eq!(compare(found, &config("c", "3", both, "new")), Ok(None));
    }

    #[test]
    fn the_default_member_has_etcds_well_known_ids() {
        // A fresh etcd without flags says 8e9e05c52164694d and cdf818194e3a8c32 in its log and headers.
        let id = member_id(&["http://localhost:2380".to_string()], "etcd-cluster");
        assert_eq!(format!("{id:x}"), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", cluster_id(vec![id])), "cdf818194e3a8c32");
    }

    #[test]
    fn the_order_of_urls_and_members_does_not_matter() {
        let (a, b) = ("http://a:1".to_string(), "http://b:1".to_string());
        assert_eq!(member_id(&[a.clone(), b.clone()], "t"), member_id(&[b, a], "t"));
        assert_eq!(cluster_id(vec![1, 2]), cluster_id(vec![2, 1]));
    }

    #[test]
    fn a_contradiction_between_flags_is_named() {
        let parse = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            match crate::config::parse(&arguments, []).unwrap() {
                crate::config::Action::Run(config) => of(&config),
                crate::config::Action::Print(_) => panic!("there is no help to print"),
            }
        };
        let error = parse(&["--name=a", "--initial-cluster=b=http://localhost:2380"]).unwrap_err();
        assert_eq!(error, "couldn't find local name \"a\" in the initial cluster configuration");
        let error = parse(&["--name=a", "--initial-cluster=a=http://localhost:1"]).unwrap_err();
        assert!(
            error.contains("missing from --initial-advertise-peer-urls=http://localhost:2380"),
            "{error}"
        );
        let error = parse(&[
            "--name=a",
            "--initial-cluster=a=http://localhost:2380,b=http://localhost:2380",
        ])
        .unwrap_err();
        assert!(error.contains("same peer URLs"), "{error}");
        let (identity, founders) = parse(&[]).unwrap();
        assert_eq!(founders.len(), 1);
        assert_eq!(founders[0].node_id, identity.node_id);
    }
}
