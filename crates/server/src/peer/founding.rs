//! Before a cluster is founded: whether it was already, with this member in it.
//!
//! A member whose data directory was emptied, and that starts with its first flags, would found its cluster a second time:
//! it would vote, and be counted, without knowing what it has promised, and what it had acknowledged could be lost (C27). So it
//! asks the other founders first. Who has ever run stands in their list of members with the URLs of its clients. Founders that
//! do not answer count for nothing, since clusters are founded by members that start one after the other. etcd asks
//! the same question, one founder after the other.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use replica::Identity;
use tokio::task::JoinSet;

use super::{dial_patience, wire};
use crate::config::Config;
use crate::identity::founders;

/// Asks all other founders at once, on the current local set.
///
/// # Errors
/// One of them knows this member as one that has run, in a sentence for the operator.
pub async fn check(config: &Config, identity: Identity) -> Result<(), String> {
    let urls: Vec<&str> =
        config.initial_advertise_peer_urls.iter().map(|url| url.as_str()).collect();
    let mut headers = HeaderMap::new();
    wire::own_headers(identity, &urls.join(","), &mut headers);
    let patience = dial_patience(config);
    let mut asking = JoinSet::new();
    let others = founders(config).into_values().filter(|member| member.id != identity.node_id);
    for url in others.flat_map(|member| member.peer_urls) {
        let headers = headers.clone();
        asking.spawn_local(async move {
            let asked =
                wire::ask(&url, Method::GET, "/members", headers, Bytes::new(), patience).await;
            match asked {
                Ok((StatusCode::OK, _, body)) if has_run(&body, identity.node_id) => Some(url),
                _ => None,
            }
        });
    }
    while let Some(answer) = asking.join_next().await {
        if let Ok(Some(url)) = answer {
            return Err(format!(
                "member {:x} has already been bootstrapped, says {url}: it may not start without its data, for it would \
                 not know what it has promised; start it on its own --data-dir, not on {}, or, if its data is lost, \
                 replace the member",
                identity.node_id,
                config.data_dir.display()
            ));
        }
    }
    Ok(())
}

/// Whether the member stands in this list, which is etcd's JSON, with URLs for clients: those it publishes when it runs.
fn has_run(body: &[u8], id: u64) -> bool {
    let Ok(members) = serde_json::from_slice::<Vec<serde_json::Value>>(body) else { return false };
    let this = members.iter().find(|member| member["id"] == id);
    this.and_then(|member| member["clientURLs"].as_array()).is_some_and(|urls| !urls.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_published_its_urls_has_run() {
        let list = br#"[{"id":7,"peerURLs":["http://a:1"],"name":"a","clientURLs":["http://a:2"]},
                        {"id":8,"peerURLs":["http://b:1"],"name":"b"},
                        {"id":9,"peerURLs":["http://c:1"],"clientURLs":[]}]"#;
        let ran: Vec<u64> = (6..=10).filter(|id| has_run(list, *id)).collect();
        assert_eq!(ran, [7]);
        let others: [&[u8]; 4] = [b"", b"[]", b"{\"id\":7}", b"[7]"];
        assert!(!others.iter().any(|body| has_run(body, 7)));
    }
}
