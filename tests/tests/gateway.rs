//! The JSON API beside a real etcd's: status, headers and body of every reply, for every method, for requests that
//! are right, wrong and hostile, by every way that HTTP clients write them.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proto::descriptor::{Field, Kind, Message, ROUTES};
use tests::hostile::{ESCAPES, corpus, mutations, not_refused, say, status};
use tests::http::{Exchange, Reply, Until, post, request};
use tests::process::{Cluster, Member, quorate, reference};
use tests::random::Random;

/// Headers that tell a client something; the others are the transport's.
const HEADERS: [&str; 10] = [
    "content-type",
    "grpc-metadata-content-type",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "allow",
    "location",
    "trailer",
    "www-authenticate",
    "x-content-type-options",
];

/// Bodies that are no message of any method.
fn mistakes() -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = [
        "x",
        "{",
        "[]",
        "12",
        "-",
        "\"a\"",
        "null",
        "true",
        "tru",
        "trux",
        "{\"a\"",
        "{\"a\":}",
        "{\"a\":1,}",
        "{'a':1}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "[1,]",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":1e}",
        "{\"a\":-x}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u00g0\"}",
        "{\"a\":\"\n\"}",
        "{\"a\":nul}",
        "}",
        ":",
        ",",
        "\u{feff}{}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\\ud800 and more\"}",
        "{\"a\":\"\\udc00\\ud800\"}",
        " \n [ \n ] \n",
        "{\"ü\n\":1}",
        "\u{7f}",
        "\u{a0}",
    ]
    .iter()
    .map(|body| body.as_bytes().to_vec())
    .collect();
    bodies.extend([
        b"\xff".to_vec(),
        b"\0".to_vec(),
        b"{\"a\":\"\xff\"}".to_vec(),
        b"{\n\"\xc3\xbc\xff\":1}".to_vec(),
        format!("{{\"a\":{}", "[".repeat(10_001)).into_bytes(),
        "[".repeat(200_000).into_bytes(),
    ]);
    bodies
}

/// Values that most fields do not take, and some do.
const PROBES: [&str; 10] =
    ["null", "true", "1.5", "\"x!\"", "\"\u{e9}\"", "{}", "[]", "[null]", "1e30", "[{}]"];

/// Bodies that name each field of a message, and of the messages in it, with each probe.
fn probes(message: &'static Message) -> Vec<String> {
    let mut bodies = Vec::new();
    for field in message.fields {
        let inner: &'static [Field] = match field.kind {
            Kind::Message(inner) => inner.fields,
            _ => &[],
        };
        for probe in PROBES {
            bodies.push(format!("{{\"{}\":{probe}}}", field.name));
            for inner in inner {
                let value = format!("{{\"{}\":{probe}}}", inner.json_name);
                let value = if field.repeated { format!("[{value}]") } else { value };
                bodies.push(format!("{{\"{}\":{value}}}", field.json_name));
            }
        }
        bodies.push(format!("{{\"{0}\":null,\"{0}\":null}}", field.name));
        bodies.push(format!("{{\"{}\":null,\"{}\":null}}", field.json_name, field.name));
    }
    bodies
}

/// Both servers, and what came of comparing them.
struct Pair {
    etcd: Cluster,
    ours: Cluster,
    /// How many bodies each path was compared with.
    compared: BTreeMap<String, usize>,
    /// The paths whose method is not there yet, as ours said itself.
    later: BTreeSet<String>,
    differences: Vec<String>,
}

impl Pair {
    async fn start(test: &str, flags: &[&str]) -> Option<Pair> {
        let binary = match reference("etcd") {
            Ok(binary) => binary,
            Err(reason) => {
                tests::skip(test, &reason);
                return None;
            }
        };
        let mut etcd = Cluster::new(&[binary], flags);
        etcd.start().await;
        let mut ours = Cluster::new(&[quorate()], flags);
        ours.start().await;
        let (compared, later, differences) = Default::default();
        let mut pair = Pair { etcd, ours, compared, later, differences };
        // Before its first compaction etcd has a hash of its own for the newest revision.
        for value in ["", "MQ=="] {
            pair.post("/v3/kv/put", &format!("{{\"key\":\"AA==\",\"value\":\"{value}\"}}"));
        }
        pair.post("/v3/kv/compaction", "{\"revision\":2}");
        Some(pair)
    }

    /// The same bytes to both. Ours are asked first: where they say that a method is not there yet, etcd is not
    /// asked, for it would do what was asked of it.
    fn compare(&mut self, what: &str, bytes: &[u8], until: Until) -> Reply {
        let ours = Exchange::send(self.ours.members[0].client, bytes).read(until);
        if ours.status == 501 && ours.text().contains("\"quorate: ") {
            self.later.insert(what.to_string());
            return ours;
        }
        let etcd = Exchange::send(self.etcd.members[0].client, bytes).read(until);
        *self.compared.entry(what.to_string()).or_default() += 1;
        let seen = |reply: &Reply, member: &Member| {
            let headers: Vec<_> = HEADERS
                .iter()
                .filter_map(|name| Some((*name, reply.header(name)?.to_string())))
                .collect();
            (reply.status, headers, plain(&reply.text(), what, member))
        };
        let (a, b) = (seen(&etcd, &self.etcd.members[0]), seen(&ours, &self.ours.members[0]));
        if a != b {
            let request = String::from_utf8_lossy(&bytes[..bytes.len().min(600)]).into_owned();
            self.differences.push(format!("{request}\n  etcd {a:?}\n  ours {b:?}"));
        }
        etcd
    }

    fn post(&mut self, path: &str, body: &str) -> Reply {
        self.compare(path, &post(path, "", body.as_bytes()), Until::End)
    }

    /// The revision of both, which must be one.
    fn revision(&mut self) -> u64 {
        let reply = self.post("/v3/kv/range", "{\"key\":\"AA==\"}").text();
        let at = reply.find("\"revision\":\"").unwrap() + 12;
        reply[at..].split('"').next().unwrap().parse().unwrap()
    }

    /// Revision and hash of the whole keyspace, of both.
    fn state(&mut self) -> (u64, String) {
        let revision = self.revision();
        (revision, self.post("/v3/maintenance/hashkv", "").text())
    }

    fn finish(mut self) {
        let member = &mut self.ours.members[0];
        assert!(
            member.is_running() && !member.log_text().contains("panic"),
            "{}",
            member.log_tail()
        );
        let total: usize = self.compared.values().sum();
        println!("{total} replies of {} paths compared: {:?}", self.compared.len(), self.compared);
        println!(
            "not there yet, and so not compared where the request could be read: {:?}",
            self.later
        );
        let count = self.differences.len();
        assert!(count == 0, "{count} differences:\n{}", self.differences.join("\n"));
    }
}

/// A body without what differs between any two members: ids, ports, places in the log, sizes on disk, and the
/// spaces by which Go's protobuf makes its output differ between any two builds.
fn plain(text: &str, path: &str, member: &Member) -> String {
    let mut out = String::new();
    let (mut quoted, mut escaped, mut before) = (false, false, ' ');
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        if quoted || c != ' ' || before != ',' {
            out.push(c);
        }
        before = c;
    }
    let mut out = out
        .replace("proto:\u{a0}", "proto: ")
        // When a client's time is over, either end of etcd's gateway may be the first to notice.
        .replace(
            "stream terminated by RST_STREAM with error code: CANCEL",
            "context deadline exceeded",
        )
        .replace(&format!(":{}\"", member.client.port()), ":CLIENT\"")
        .replace(&format!(":{}\"", member.peer.port()), ":PEER\"")
        .replace("\"version\":\"3.7.3\"", "\"version\":\"3.7.x\"")
        .replace("\"version\":\"3.7.0\"", "\"version\":\"3.7.x\"");
    for key in ["cluster_id", "member_id", "raft_term"] {
        out = mask(&out, key, 0);
    }
    out = mask(&out, "ID", 15);
    match path {
        "/v3/maintenance/status" => {
            for key in
                ["dbSize", "dbSizeInUse", "leader", "raftIndex", "raftAppliedIndex", "raftTerm"]
            {
                out = mask(&out, key, 0);
            }
        }
        // etcd hashes its file here.
        "/v3/maintenance/hash" => {
            if let Some(at) = out.find("\"hash\":") {
                out.truncate(at + 7);
            }
        }
        // Seconds may pass between one and the other.
        "/v3/lease/timetolive" | "/v3/kv/lease/timetolive" => out = mask(&out, "TTL", 3),
        _ => {}
    }
    out
}

/// Replaces a number in quotation marks, if it has so many digits, by a sign.
fn mask(text: &str, key: &str, digits: usize) -> String {
    let opening = format!("\"{key}\":\"");
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(&opening) {
        let (before, number) = rest.split_at(at + opening.len());
        out.push_str(before);
        let end = number.find('"').unwrap_or(0);
        let masked = end >= digits && number[..end].bytes().all(|c| c.is_ascii_digit());
        out.push_str(if masked { "#" } else { &number[..end] });
        rest = &number[end..];
    }
    out + rest
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in text.as_bytes().chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - group.len()));
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) & 63;
            out.push(if digit <= group.len() as u32 {
                DIGITS[index as usize] as char
            } else {
                '='
            });
        }
    }
    out
}

/// Methods that are called with mistakes alone: what they do takes time, blocks, or is random.
fn only_mistakes(path: &str) -> bool {
    ["/v3/lock/", "/v3/election/", "/v3/maintenance/snapshot"]
        .iter()
        .any(|root| path.starts_with(root))
}

/// Every path, with bodies that are no message and with every field given what it does not take: the same
/// refusals as etcd's, in the same words, and nothing has changed after those that no method accepts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_refuses_what_etcd_refuses() {
    let Some(mut pair) = Pair::start("gateway_refusals", &[]).await else { return };
    let before = pair.state();
    let deadline = "Grpc-Timeout: 150m\r\n";
    for route in ROUTES {
        // A watch of nothing is silent for ever: it is given some time.
        let headers = if route.http == "/v3/watch" { deadline } else { "" };
        for body in mistakes() {
            pair.compare(route.http, &post(route.http, headers, &body), Until::End);
        }
    }
    assert_eq!(pair.state(), before, "nothing that was refused has changed anything");
    for route in ROUTES.iter().filter(|route| !only_mistakes(route.http)) {
        let headers = if route.http == "/v3/watch" { deadline } else { "" };
        for body in probes(route.input) {
            // What a watch accepts is another test's; and leases that run out soon are gone on one side first.
            let silent = route.http == "/v3/watch" && !body.contains("1.5");
            if silent || route.http == "/v3/lease/grant" && body.ends_with("null}") {
                continue;
            }
            pair.compare(route.http, &post(route.http, headers, body.as_bytes()), Until::End);
        }
    }
    for route in ROUTES {
        assert!(
            pair.compared[route.http] >= 20,
            "{} bodies of {}",
            pair.compared[route.http],
            route.http
        );
    }
    pair.finish();
}

/// Requests that mean something, one after the other, with the state that the ones before have left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_answers_as_etcds_does() {
    let Some(mut pair) = Pair::start("gateway_answers", &["--max-txn-ops", "128"]).await else {
        return;
    };
    let key = |key: &str| base64(key);
    let (a, b, c) = (key("a"), key("b"), key("c"));

    // Leases first, so that puts can name them.
    for id in 1..=24 {
        let ttl = if id % 2 == 0 { format!("{}", 1000 + id) } else { format!("\"{}\"", 1000 + id) };
        pair.post("/v3/lease/grant", &format!("{{\"ID\":{id},\"TTL\":{ttl}}}"));
    }
    for body in [
        "{\"ID\":1,\"TTL\":1000}",
        "{\"TTL\":9000000001}",
        "{\"TTL\":2000}",
        "{\"ID\":\"-5\",\"TTL\":9e2}",
    ] {
        pair.post("/v3/lease/grant", body);
    }
    for path in ["/v3/lease/leases", "/v3/kv/lease/leases"] {
        for body in ["", "{}", " ", "{\"x\":1}", "{} and more"] {
            pair.post(path, body);
        }
    }

    // Puts, by every spelling.
    for body in [
        format!("{{\"key\":\"{a}\",\"value\":\"{b}\"}}"),
        format!("{{\"key\":\"{a}\",\"value\":\"{c}\",\"prev_kv\":true}}"),
        format!("{{\"key\":\"{a}\",\"value\":\"{b}\",\"prevKv\":true,\"lease\":\"2\"}}"),
        format!("{{\"key\":\"{a}\",\"ignore_value\":true,\"lease\":3}}"),
        format!("{{\"key\":\"{a}\",\"ignoreLease\":true,\"value\":\"_-8\"}}"),
        format!("{{\"key\":\"{b}\",\"value\":\"/+8=\"}}"),
        format!("{{\"key\":\"{b}\",\"value\":\"\"}}"),
        format!("{{\"key\":\"{b}\"}}"),
        format!("{{\"key\":\"{b}\",\"lease\":99}}"),
        format!("{{\"key\":\"{key}\",\"ignore_value\":true}}", key = key("nothing")),
        format!("{{\"key\":\"{a}\",\"ignore_value\":true,\"value\":\"{b}\"}}"),
        format!("{{\"key\":\"{a}\",\"ignore_lease\":true,\"lease\":3}}"),
        format!("{{\"key\":\"{c}\",\"value\":\"{c}\",\"unknown\":{{\"a\":[1]}}}}"),
        format!("{{\"key\":\"{c}\",\"value\":\"{c}\"}} {{\"key\":\"{a}\"}}"),
        format!(" \n {{ \"key\" : \"{c}\" , \"value\" : \"{c}\" , \"prev_kv\" : true }} "),
        format!("{{\"\\u006bey\":\"{c}\",\"prev_kv\":true}}"),
        "{}".to_string(),
        String::new(),
        "{\"key\":\"\"}".to_string(),
        "{\"key\":null}".to_string(),
        format!("{{\"key\":\"{a}\",\"lease\":\"0\",\"value\":null}}"),
        format!("{{\"key\":\"{}\",\"value\":\"{}\"}}", key("d/1"), key("<&>\u{1}\u{e9}")),
        format!("{{\"key\":\"{}\",\"value\":\"{}\"}}", key("d/2"), key("2")),
        format!("{{\"key\":\"{}\",\"value\":\"{}\"}}", key("d/3"), key("1")),
    ] {
        pair.post("/v3/kv/put", &body);
        pair.post("/v3beta/kv/put", &body);
    }
    // As large as may be, and a byte more; longer than a message may be.
    for bytes in [1_570_000, 1_572_865, 2_200_000] {
        let value = "A".repeat(bytes / 3 * 4);
        pair.post("/v3/kv/put", &format!("{{\"key\":\"{}\",\"value\":\"{value}\"}}", key("large")));
    }

    let (d, e) = (key("d/"), key("d0"));
    for rest in [
        "",
        ",\"limit\":2",
        ",\"limit\":\"1\",\"sort_order\":\"DESCEND\"",
        ",\"sort_order\":2,\"sort_target\":4",
        ",\"sortTarget\":\"VALUE\",\"sortOrder\":\"ASCEND\"",
        ",\"sort_target\":\"MOD\"",
        ",\"sort_order\":7",
        ",\"sort_target\":-1",
        ",\"count_only\":true",
        ",\"keys_only\":true",
        ",\"keysOnly\":true,\"limit\":1",
        ",\"serializable\":true",
        ",\"revision\":2",
        ",\"revision\":\"1000000\"",
        ",\"revision\":-1",
        ",\"min_mod_revision\":40",
        ",\"max_mod_revision\":40",
        ",\"min_create_revision\":\"1\"",
        ",\"maxCreateRevision\":3",
        ",\"limit\":0",
        ",\"limit\":-1",
        ",\"sort_order\":\"NEW\"",
    ] {
        pair.post("/v3/kv/range", &format!("{{\"key\":\"{d}\",\"range_end\":\"{e}\"{rest}}}"));
        pair.post("/v3/kv/range", &format!("{{\"key\":\"{a}\"{rest}}}"));
    }
    pair.post("/v3/kv/range", "{\"key\":\"AA==\",\"range_end\":\"AA==\",\"keys_only\":true}");

    let op_put =
        format!("{{\"request_put\":{{\"key\":\"{a}\",\"value\":\"{b}\",\"prev_kv\":true}}}}");
    let op_range = format!("{{\"requestRange\":{{\"key\":\"{a}\"}}}}");
    let op_delete = format!("{{\"request_delete_range\":{{\"key\":\"{b}\",\"prev_kv\":true}}}}");
    let op_txn = format!("{{\"request_txn\":{{\"success\":[{op_range}]}}}}");
    let deep = |levels: usize| {
        "{\"success\":[{\"requestTxn\":".repeat(levels) + "{}" + &"}]}".repeat(levels)
    };
    for body in [
        "{}".to_string(),
        format!("{{\"success\":[{op_put}]}}"),
        format!("{{\"success\":[{op_range},{op_txn}]}}"),
        format!("{{\"success\":[{op_delete},{op_range},{op_put}]}}"),
        format!("{{\"success\":[{op_put},{op_put}]}}"),
        format!("{{\"failure\":[{op_put}]}}"),
        format!(
            "{{\"compare\":[{{\"key\":\"{a}\",\"target\":\"VALUE\",\"value\":\"{b}\"}}],\"success\":[{op_range}]}}"
        ),
        format!(
            "{{\"compare\":[{{\"key\":\"{a}\",\"target\":0,\"version\":\"0\"}}],\"failure\":[{op_range}]}}"
        ),
        format!(
            "{{\"compare\":[{{\"key\":\"{a}\",\"target\":\"VERSION\",\"result\":\"GREATER\",\"version\":0}}],\"success\":[{op_put}]}}"
        ),
        format!(
            "{{\"compare\":[{{\"key\":\"{a}\",\"target\":\"CREATE\",\"result\":\"LESS\",\"create_revision\":\"5\"}}]}}"
        ),
        format!(
            "{{\"compare\":[{{\"key\":\"{a}\",\"target\":\"MOD\",\"result\":\"NOT_EQUAL\",\"modRevision\":5}}]}}"
        ),
        format!("{{\"compare\":[{{\"key\":\"{a}\",\"target\":\"LEASE\",\"lease\":0}}]}}"),
        format!(
            "{{\"compare\":[{{\"key\":\"{d}\",\"range_end\":\"{e}\",\"target\":\"VALUE\",\"result\":3,\"value\":\"\"}}]}}"
        ),
        format!("{{\"compare\":[{{\"key\":\"{a}\",\"version\":1,\"value\":\"{b}\"}}]}}"),
        format!("{{\"compare\":[{{\"key\":\"{a}\",\"result\":9}}]}}"),
        "{\"compare\":[{}]}".to_string(),
        "{\"success\":[{}]}".to_string(),
        "{\"success\":[{\"request_put\":{}}]}".to_string(),
        "{\"success\":[{\"request_range\":null}]}".to_string(),
        format!("{{\"success\":[{op_put}],\"failure\":[{op_delete}],\"x\":[[],{{}}]}}"),
        format!("{{\"success\":[{}]}}", vec![op_range.as_str(); 128].join(",")),
        format!("{{\"success\":[{}]}}", vec![op_range.as_str(); 129].join(",")),
        deep(10),
        deep(120),
        deep(200),
    ] {
        pair.post("/v3/kv/txn", &body);
    }

    for body in [
        format!("{{\"key\":\"{}\"}}", key("nothing")),
        format!("{{\"key\":\"{b}\",\"prev_kv\":true}}"),
        format!("{{\"key\":\"{d}\",\"range_end\":\"{e}\",\"prevKv\":true}}"),
        format!("{{\"key\":\"{e}\",\"rangeEnd\":\"{d}\"}}"),
        "{\"key\":\"AA==\",\"range_end\":\"AA==\",\"prev_kv\":false,\"x\":1}".to_string(),
        "{\"range_end\":\"AA==\"}".to_string(),
        "{}".to_string(),
    ] {
        pair.post("/v3/kv/deleterange", &body);
    }

    for path in ["/v3/lease/timetolive", "/v3/kv/lease/timetolive"] {
        for body in [
            "{\"ID\":2}",
            "{\"ID\":\"3\",\"keys\":true}",
            "{\"ID\":99}",
            "{}",
            "{\"ID\":-1,\"keys\":false}",
        ] {
            pair.post(path, body);
        }
    }
    let reused = format!("{{\"key\":\"{a}\",\"value\":\"{b}\",\"lease\":7}}");
    pair.post("/v3/kv/put", &reused);
    pair.post("/v3/kv/lease/timetolive", "{\"ID\":7,\"keys\":true}");
    for body in [
        "{\"ID\":1}",
        "{\"ID\":\"2\"} {\"ID\":3}",
        "{\"ID\":99}",
        "",
        "{}",
        "{\"ID\":1}{\"ID\":\"x\"}{\"ID\":2}",
        "{\"ID\":1}[]",
        "{\"ID\":1} {\"ID\"",
        "{\"id\":5}",
        "{\"ID\":1,\"x\":[]}\n\n{\"ID\":2}\n",
    ] {
        pair.post("/v3/lease/keepalive", body);
    }
    for body in ["{\"ID\":1}", "{\"ID\":1}", "{\"ID\":\"7\"}", "{}", "{\"ID\":null}"] {
        pair.post("/v3/lease/revoke", body);
        pair.post("/v3/kv/lease/revoke", body);
    }

    for body in
        ["", "{}", "{\"linearizable\":true}", "{\"linearizable\":false}", "{\"linearizable\":null}"]
    {
        pair.post("/v3/cluster/member/list", body);
    }
    for body in [
        "",
        "{}",
        "{\"action\":\"GET\"}",
        "{\"action\":0,\"alarm\":\"NOSPACE\"}",
        "{\"alarm\":2}",
        "{\"memberID\":\"5\"}",
    ] {
        pair.post("/v3/maintenance/alarm", body);
    }
    for body in ["", "{}", "{\"x\":1}"] {
        pair.post("/v3/maintenance/status", body);
        pair.post("/v3/maintenance/hash", body);
    }
    let revision = pair.revision();
    for body in [
        String::new(),
        "{\"revision\":0}".to_string(),
        "{\"revision\":\"9\"}".to_string(),
        "{\"revision\":-1}".to_string(),
        format!("{{\"revision\":{revision}}}"),
        format!("{{\"revision\":{}}}", revision + 1),
    ] {
        pair.post("/v3/maintenance/hashkv", &body);
    }
    for body in [
        "{}",
        "{\"revision\":\"0\"}",
        "{\"revision\":-3}",
        "{\"revision\":1000000}",
        "{\"revision\":20}",
        "{\"revision\":20}",
        "{\"revision\":\"30\",\"physical\":true}",
        "{\"revision\":10,\"physical\":false}",
    ] {
        pair.post("/v3/kv/compaction", body);
    }
    pair.post("/v3/kv/range", &format!("{{\"key\":\"{a}\",\"revision\":25}}"));
    pair.post("/v3/maintenance/hashkv", "{\"revision\":29}");
    pair.finish();
}

/// Watches: what lies behind them, what comes, and how they end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_tell_what_etcds_tell() {
    let Some(mut pair) = Pair::start("gateway_watches", &[]).await else { return };
    let (a, z) = (base64("a"), base64("z"));
    for value in ["1", "2", "<3>"] {
        pair.post("/v3/kv/put", &format!("{{\"key\":\"{a}\",\"value\":\"{}\"}}", base64(value)));
    }
    pair.post("/v3/kv/put", &format!("{{\"key\":\"{}\"}}", base64("ab")));
    pair.post("/v3/kv/deleterange", &format!("{{\"key\":\"{a}\",\"range_end\":\"{z}\"}}"));
    pair.post("/v3/kv/put", &format!("{{\"key\":\"{a}\"}}"));
    let watch = |rest: &str| format!("{{\"create_request\":{{\"key\":\"{a}\"{rest}}}}}");
    for (body, lines) in [
        (watch(""), 1),
        // What is compacted.
        (watch(",\"start_revision\":1"), 2),
        (watch(",\"start_revision\":3"), 2),
        (watch(",\"start_revision\":\"4\",\"prev_kv\":true"), 2),
        (watch(",\"startRevision\":5,\"prevKv\":true"), 2),
        (watch(&format!(",\"range_end\":\"{z}\",\"start_revision\":3")), 2),
        (watch(&format!(",\"rangeEnd\":\"{z}\",\"start_revision\":7,\"prev_kv\":true")), 2),
        (watch(",\"start_revision\":3,\"filters\":[\"NOPUT\"]"), 2),
        (watch(",\"start_revision\":3,\"filters\":[1]"), 2),
        (watch(",\"start_revision\":3,\"filters\":[\"NEW\",\"NODELETE\"]"), 2),
        (watch(",\"filters\":[\"NOPUT\",\"NODELETE\"]"), 1),
        (watch(",\"watch_id\":7,\"start_revision\":8"), 2),
        (watch(",\"watchId\":\"-7\""), 1),
        (watch(",\"progress_notify\":true,\"fragment\":true,\"start_revision\":3"), 2),
        (watch(",\"start_revision\":1000000"), 1),
        (watch(",\"start_revision\":-1"), 1),
        ("{\"create_request\":{}}".to_string(), 1),
        (
            "{\"createRequest\":{\"key\":\"AA==\",\"range_end\":\"AA==\",\"start_revision\":3}}"
                .to_string(),
            2,
        ),
        (watch(&format!(",\"range_end\":\"{}\"", base64("A"))), 1),
        (watch("") + &watch("") + " " + &watch(",\"watch_id\":1"), 3),
        (watch("") + "{\"cancel_request\":{\"watch_id\":5}}{\"create_request\":{}}", 2),
        (watch("") + "{\"create_request\":{\"filters\":[true]}}", 1),
        (format!("\n{}\n", watch(",\"start_revision\":4,\"x\":{}")), 2),
    ] {
        pair.compare("/v3/watch", &post("/v3/watch", "", body.as_bytes()), Until::Lines(lines));
    }
    // What ends by the client's own clock, before its first line and behind it.
    let soon = "Grpc-Timeout: 400m\r\n";
    for body in [
        "",
        "{}",
        "x",
        "{\"progress_request\":{}}",
        "{\"cancel_request\":{}}",
        "{\"create_request\":{\"key\":1}}",
    ] {
        pair.compare("/v3/watch", &post("/v3/watch", soon, body.as_bytes()), Until::End);
    }
    pair.compare("/v3/watch", &post("/v3/watch", soon, watch("").as_bytes()), Until::End);
    let compaction = pair.post("/v3/kv/compaction", "{\"revision\":7}");
    assert_eq!(compaction.status, 200);
    let late = watch(",\"start_revision\":4");
    pair.compare("/v3/watch", &post("/v3/watch", "", late.as_bytes()), Until::Lines(2));

    // What happens while they are open.
    let servers = [&pair.etcd, &pair.ours].map(|cluster| cluster.members[0].client);
    let open = post(
        "/v3/watch",
        "",
        watch(&format!(",\"range_end\":\"{z}\",\"prev_kv\":true")).as_bytes(),
    );
    let mut streams = servers.map(|server| Exchange::send(server, &open));
    streams.iter_mut().for_each(|stream| drop(stream.read(Until::Lines(1))));
    for i in 0..20 {
        pair.post(
            "/v3/kv/put",
            &format!("{{\"key\":\"{a}\",\"value\":\"{}\"}}", base64(&i.to_string())),
        );
    }
    pair.post("/v3/kv/deleterange", &format!("{{\"key\":\"{a}\"}}"));
    let [etcd, ours] = streams.map(|mut stream| stream.read(Until::Lines(22)).text());
    assert_eq!(
        plain(&etcd, "/v3/watch", &pair.etcd.members[0]),
        plain(&ours, "/v3/watch", &pair.ours.members[0])
    );
    // Clients that are gone leave nothing behind.
    let server = pair.ours.members[0].client;
    let deadline = Instant::now() + Duration::from_secs(180);
    loop {
        let page =
            Exchange::send(server, &request("GET", "/metrics", "", b"")).read(Until::End).text();
        let line = page.lines().find(|line| line.starts_with("etcd_debugging_mvcc_watcher_total "));
        let count = line
            .expect("the number of watchers is on the page")
            .rsplit(' ')
            .next()
            .unwrap()
            .to_string();
        if count == "0" {
            break;
        }
        assert!(Instant::now() < deadline, "{count} watchers are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    pair.finish();
}

/// A conversation over HTTP/1.1: the client goes on speaking while it is answered. (Go's server would first wait
/// for the end of the request, so there is nothing to compare with.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_both_ways() {
    let cluster = Cluster::ours(1, &[]).await;
    let server = cluster.members[0].client;
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len()).into_bytes();
    let mut stream = Exchange::send(
        server,
        b"POST /v3/watch HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    stream.more(&chunk("{\"create_request\":{\"key\":\"YQ==\"}}"));
    assert!(stream.read(Until::Lines(1)).text().ends_with("\"created\":true}}\n"));
    Exchange::send(server, &post("/v3/kv/put", "", b"{\"key\":\"YQ==\",\"value\":\"Yg==\"}"))
        .read(Until::End);
    let reply = stream.read(Until::Lines(2));
    assert!(
        reply.text().contains("\"kv\":{\"key\":\"YQ==\",\"create_revision\":\"2\""),
        "{reply:?}"
    );
    // In pieces, too.
    stream.more(&chunk("{\"cancel_reque"));
    stream.more(&chunk("st\":{}}"));
    let reply = stream.read(Until::Lines(3));
    assert!(reply.text().ends_with("\"canceled\":true}}\n"), "{reply:?}");
    assert!(!reply.complete);
}

/// The same by every way that HTTP clients have of saying it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_of_asking_is_understood() {
    let Some(mut pair) = Pair::start("gateway_forms", &[]).await else { return };
    let put = "{\"key\":\"Zm9v\",\"value\":\"YmFy\"}";
    let range = "{\"key\":\"Zm9v\"}";
    for path in [
        "/v3/kv/put",
        "/v3beta/kv/put",
        "/v3/kv/%70ut",
        "/v3/kv%2Fput",
        "/v3//kv/put",
        "/v3/./kv/put",
        "/v3/kv/../kv/put",
        "//v3/kv/put",
        "/v3/kv/put/",
        "/v3/kv/put?key=x",
        "/v3/kv/put:x",
        "/v3/kv/PUT",
        "/v3",
        "/v3/",
        "/v3?a=b&c",
        "/v3/kv",
        "/v3/nope",
        "/v3beta",
        "/v3beta/v3beta/kv/put",
        "/v4/kv/put",
        "/v3/kv/rangestream",
        "/v3/etcdserverpb.KV/Put",
        "/etcdserverpb.KV/Put",
    ] {
        for method in ["POST", "GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "FOO", "post"] {
            let bytes = request(method, path, "Accept: */*\r\n", put.as_bytes());
            pair.compare("ways", &bytes, Until::End);
        }
    }
    for headers in [
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: application/json\r\n",
        "Content-Type: application/grpc\r\n",
        "Content-Type: text/plain; charset=latin1\r\nAccept: text/html\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\nX-HTTP-Method-Override: GET\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\nX-HTTP-Method-Override: post\r\n",
        "Content-Type: application/json\r\nX-HTTP-Method-Override: GET\r\n",
        "Origin: http://example.com\r\n",
        "Origin: http://example.com\r\nAccess-Control-Request-Method: POST\r\n",
        "Authorization: Bearer nothing\r\n",
        "Cookie: a=b\r\nUser-Agent: x\r\n",
        "Grpc-Timeout: 5S\r\n",
        "Grpc-Timeout: 0S\r\n",
        "Grpc-Timeout: -1S\r\n",
        "Grpc-Timeout: x\r\n",
        "Grpc-Timeout: S\r\n",
        "Grpc-Timeout: 5\r\n",
        "Grpc-Timeout: 1.5S\r\n",
        "Grpc-Timeout: 999999999999H\r\n",
        "Grpc-Timeout: \r\n",
        "Grpc-Metadata-Hasleader: true\r\n",
        "Grpc-Metadata-hasleader: maybe\r\n",
        "Grpc-Metadata-Client-Api-Version: 3.7\r\n",
        "Grpc-Metadata-X-Bin: Zm9v\r\n",
        "Grpc-Metadata-X-Bin: Zm9\r\n",
        "Grpc-Metadata-X-Bin: %%%\r\n",
        "Grpc-Metadata-Grpc-Timeout: 1n\r\n",
        "Grpc-Metadata-Content-Type: text/plain\r\n",
        "Grpc-Metadata-Te: x\r\n",
        "Grpc-Metadata-A: \u{e9}\r\n",
        "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: example.com\r\n",
        "TE: trailers\r\n",
        "Expect: 100-continue\r\n",
    ] {
        pair.compare("ways", &post("/v3/kv/put", headers, put.as_bytes()), Until::End);
        pair.compare("ways", &post("/v3/kv/range", headers, range.as_bytes()), Until::End);
        pair.compare("ways", &post("/v3/lease/keepalive", headers, b"{\"ID\":5}"), Until::End);
    }
    let length = range.len();
    for bytes in [
        format!("POST /v3/kv/range HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{range}"),
        format!("POST /v3/kv/range HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: {length}\r\n\r\n{range}"),
        "POST /v3/lease/keepalive HTTP/1.0\r\nContent-Length: 8\r\n\r\n{\"ID\":5}".to_string(),
        "POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_string(),
        format!("POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{range}"),
        "POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n{\"key\":\r\n7\r\n\"Zm9v\"}\r\n0\r\n\r\n".to_string(),
        format!("POST http://localhost/v3/kv/range HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{range}"),
    ] {
        pair.compare("ways", bytes.as_bytes(), Until::End);
    }
    // Two requests on one connection.
    let once =
        format!("POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{range}");
    let mut kept = Exchange::send(pair.ours.members[0].client, once.as_bytes());
    let first = kept.read(Until::End);
    assert_eq!((first.status, first.complete), (200, true));
    pair.finish();
}

/// Bodies that were right once, with bytes changed, cut, doubled and put in: a fixed thousand and more of them.
/// Nobody falls over, every answer is etcd's, and so is what is stored in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_bytes_do_what_they_do_to_etcd() {
    let Some(mut pair) = Pair::start("gateway_hostile", &[]).await else { return };
    let mut random = Random::new(20_261_122);
    let bodies = [
        (
            "/v3/kv/put",
            "{\"key\":\"Zm9v\",\"value\":\"YmFy\",\"lease\":\"0\",\"prev_kv\":true,\"ignore_lease\":false}",
        ),
        (
            "/v3/kv/range",
            "{\"key\":\"Zg==\",\"range_end\":\"AA==\",\"limit\":\"5\",\"sort_order\":\"DESCEND\",\"sort_target\":\"KEY\"}",
        ),
        ("/v3/kv/deleterange", "{\"key\":\"Zm9v\",\"range_end\":\"Zz==\",\"prev_kv\":true}"),
        (
            "/v3/kv/txn",
            "{\"compare\":[{\"key\":\"Zm9v\",\"result\":\"EQUAL\",\"target\":\"VERSION\",\"version\":\"1\"}],\"success\":[{\"request_put\":{\"key\":\"Zm9v\",\"value\":\"YQ==\"}}],\"failure\":[{\"request_range\":{\"key\":\"Zm9v\"}}]}",
        ),
        ("/v3/lease/revoke", "{\"ID\":\"5\"}"),
        ("/v3/lease/timetolive", "{\"ID\":\"5\",\"keys\":true}"),
        ("/v3/lease/keepalive", "{\"ID\":5}{\"ID\":\"6\"}"),
        ("/v3/cluster/member/list", "{\"linearizable\":true}"),
        ("/v3/maintenance/hashkv", "{\"revision\":\"0\"}"),
    ];
    const TOKENS: [&[u8]; 24] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"\\",
        b"\\u00",
        b"\\ud83d\\ude00",
        b"null",
        b"true",
        b"-",
        b"1e5",
        b".5",
        b"0",
        b"99999999999999999999",
        b" ",
        b"\n",
        b"\0",
        b"\xff",
        b"\xc3\xbc",
        b"\"key\":",
        b"\"a\":{}",
    ];
    for round in 0..150 {
        for (path, body) in bodies {
            let mut body = body.as_bytes().to_vec();
            for _ in 0..=random.below(2) {
                let at = random.below(body.len() as u64 + 1) as usize;
                let end = (at + random.below(6) as usize).min(body.len());
                match random.below(6) {
                    0 if at < body.len() => body[at] ^= 1 << random.below(8),
                    1 => body.truncate(at),
                    2 => drop(body.drain(at..end)),
                    3 => {
                        let doubled = body[at..end].to_vec();
                        body.splice(at..at, doubled);
                    }
                    _ => {
                        let token = *random.pick(&TOKENS);
                        body.splice(at..at, token.iter().copied());
                    }
                }
            }
            pair.compare(path, &post(path, "", &body), Until::End);
        }
        assert!(pair.ours.members[0].is_running(), "our member has fallen over in round {round}");
    }
    pair.post("/v3/kv/range", "{\"key\":\"AA==\",\"range_end\":\"AA==\"}");
    pair.post("/v3/maintenance/hashkv", "");
    pair.finish();
}

/// What is no request by the rules of HTTP, although there is one in it: nobody does what it says, on any path; and what
/// may be one, with bytes changed, is a question at most, for it was one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_changes_nothing() {
    let Some(mut pair) = Pair::start("gateway_no_requests", &[]).await else { return };
    let servers = [&pair.etcd, &pair.ours].map(|cluster| cluster.members[0].client);
    let before = pair.state();
    let json = "Content-Type: application/json\r\n";
    let (mut said, mut wrong) = (0, Vec::new());
    for (path, body) in [
        ("/v3/kv/put", "{\"key\":\"Zm9v\",\"value\":\"YmFy\"}"),
        ("/v3beta/kv/txn", "{\"success\":[{\"request_put\":{\"key\":\"Zm9v\"}}]}"),
        ("/v3/lease/grant", "{\"ID\":77,\"TTL\":1000}"),
        ("/v3/watch", "{\"create_request\":{\"key\":\"Zm9v\"}}"),
    ] {
        for hostile in corpus("POST", path, json, body.as_bytes()) {
            // etcd keeps a watch open whose connection has lost its thread: it can neither be heard nor closed.
            let asked = if path == "/v3/watch" { &servers[1..] } else { &servers[..] };
            for server in asked {
                let who = if *server == servers[0] { "etcd" } else { "ours" };
                let answer = say(*server, &hostile.bytes);
                let why = not_refused(answer.as_deref());
                wrong.extend(why.map(|why| format!("{path}, {}: {who}: {why}", hostile.what)));
            }
            said += 1;
        }
        if pair.state() != before {
            wrong.push(format!("something has changed after {path}"));
        }
    }
    for path in ESCAPES.into_iter().chain(["%00", "%ff%fe", "%2e%2e%2f"]) {
        for root in ["/v3/kv/put", "/v3/", "/"] {
            let target = format!("{root}{path}");
            pair.compare("escapes", &post(&target, json, b"{\"key\":\"Zm9v\"}"), Until::End);
            said += 1;
        }
    }
    for (seed, path, body) in [
        (1, "/v3/kv/range", "{\"key\":\"AA==\",\"range_end\":\"AA==\",\"limit\":\"3\"}"),
        (2, "/v3/lease/timetolive", "{\"ID\":\"5\",\"keys\":true}"),
        (3, "/v3/maintenance/hashkv", "{\"revision\":\"0\"}"),
        (4, "/v3/cluster/member/list", "{\"linearizable\":true}"),
    ] {
        for hostile in mutations(seed, 400, &post(path, json, body.as_bytes())) {
            let answer = say(servers[1], &hostile.bytes);
            let is_answer = matches!(answer.as_deref().and_then(status), Some(200 | 301 | 307));
            let why = not_refused(answer.as_deref()).filter(|_| !is_answer);
            wrong.extend(why.map(|why| format!("{}: {why}", hostile.what)));
            said += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(pair.state(), before, "after mutations");
    println!("{said} hostile requests");
    pair.finish();
}

/// A body longer than is read, and one that nests deeper: refused, and the member lives on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_without_end_is_refused() {
    let mut cluster = Cluster::ours(1, &["--max-request-bytes", "1000"]).await;
    let server = cluster.members[0].client;
    // Eight bytes of JSON for each byte that a message may have: a thousand, and half a MiB.
    let limit = 8 * (1000 + 512 * 1024);
    let blank = " ".repeat(limit - 2) + "{}";
    let reply =
        Exchange::send(server, &post("/v3/kv/range", "", blank.as_bytes())).read(Until::End);
    assert_eq!(
        (reply.status, reply.text().contains("key is not provided")),
        (400, true),
        "{reply:?}"
    );
    let head = "POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut endless = Exchange::send(server, head.as_bytes());
    endless.more(format!("{:x}\r\n{}\r\n", limit + 1, " ".repeat(limit + 1)).as_bytes());
    let reply = endless.read(Until::End);
    assert_eq!(reply.status, 429, "{reply:?}");
    assert_eq!(reply.text(), "{\"code\":8,\"message\":\"http: request body too large\"}");
    assert!(cluster.members[0].is_running());
}
