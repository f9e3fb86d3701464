//! `/v2/members` and `/v2/machines`.

use std::rc::Rc;

use http::{Method, Response, StatusCode};

use super::{JSON, go, message, not_yet};
use crate::http::{Body, TEXT, page};
use crate::serve::shard::Shard;

/// All client URLs, for clients that look for the cluster.
pub fn machines(shard: &Rc<Shard>) -> Response<Body> {
    let cluster = shard.view.state.cluster();
    let mut urls: Vec<&str> = cluster
        .members
        .values()
        .flat_map(|member| member.client_urls.iter().map(String::as_str))
        .collect();
    urls.sort_unstable();
    let mut response = page(StatusCode::OK, TEXT, urls.join(", "));
    // Go guesses the type of this page, and so does not forbid others to guess.
    response.headers_mut().remove("x-content-type-options");
    response
}

/// The members; `rest` is what follows `/v2/members/`. Changing them is not there yet.
pub fn members(shard: &Rc<Shard>, method: &Method, rest: &[u8]) -> Response<Body> {
    if *method != Method::GET {
        return not_yet("membership changes");
    }
    let cluster = shard.view.state.cluster();
    match rest {
        b"" => {
            let mut members: Vec<_> = cluster.members.values().collect();
            members.sort_by(|a, b| a.peer_urls.first().cmp(&b.peer_urls.first()));
            let members: Vec<String> = members.into_iter().map(json).collect();
            page(StatusCode::OK, JSON, format!("{{\"members\":[{}]}}\n", members.join(",")))
        }
        b"leader" => match cluster.members.get(&shard.view.leader()) {
            Some(leader) => page(StatusCode::OK, JSON, json(leader) + "\n"),
            None => message(StatusCode::SERVICE_UNAVAILABLE, "During election"),
        },
        _ => message(StatusCode::NOT_FOUND, "Not found"),
    }
}

fn json(member: &state_machine::Member) -> String {
    let text = |text: &str| {
        let mut out = String::new();
        go::write_json_string(text.as_bytes(), &mut out);
        out
    };
    let list = |urls: &[String]| urls.iter().map(|url| text(url)).collect::<Vec<_>>().join(",");
    format!(
        "{{\"id\":\"{:x}\",\"name\":{},\"peerURLs\":[{}],\"clientURLs\":[{}]}}",
        member.id,
        text(&member.name),
        list(&member.peer_urls),
        list(&member.client_urls)
    )
}
