//! The v2 API beside that of Debian's etcd 3.4: the same requests to both, and every answer compared; then what three
//! members, a restart and hostile bytes make of it.
//!
//! etcd writes to its v2 store when it starts, and so its index does not begin at zero. As many changes are made here
//! first; from then on the indexes are equal, and so is every text that holds one.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::process::Command;

use proto::etcdserverpb::RangeRequest;
use serde_json::Value;
use tests::hostile::{ESCAPES, corpus, mutations, not_refused, say, status};
use tests::http::{Exchange, Reply, Until, request};
use tests::need;
use tests::process::{Cluster, debian_etcd, run, run_ok};
use tests::random::Random;

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
/// How far two answers' times may lie apart: the second server is asked after the first.
const CLOCKS_APART_S: i64 = 10;
/// Headers whose values must be equal, and those that must be there or not.
const EQUAL_HEADERS: [&str; 5] =
    ["content-type", "x-etcd-index", "allow", "location", "x-content-type-options"];
const LIKE_HEADERS: [&str; 3] = ["x-etcd-cluster-id", "x-raft-index", "x-raft-term"];

/// One request, as both servers get it.
#[derive(Clone, Debug)]
struct Ask {
    method: &'static str,
    target: String,
    headers: &'static str,
    body: String,
}

impl Ask {
    fn bytes(&self) -> Vec<u8> {
        request(self.method, &self.target, self.headers, self.body.as_bytes())
    }

    /// Whether the first `sorted`, which counts, says so.
    fn is_sorted(&self) -> bool {
        let value = self.target.split("sorted=").nth(1).map(|rest| rest.split('&').next());
        matches!(value.flatten(), Some("true" | "1" | "T"))
    }
}

fn ask(method: &'static str, target: &str, form: &str) -> Ask {
    let headers = if form.is_empty() { "" } else { FORM };
    let target = match target.strip_prefix('~') {
        Some(whole) => whole.to_owned(),
        None => format!("/v2/keys{target}"),
    };
    Ask { method, target, headers, body: form.to_owned() }
}

fn send(server: SocketAddrV4, ask: &Ask) -> Reply {
    Exchange::send(server, &ask.bytes()).read(Until::End)
}

/// A PUT, POST or the like that must be done.
fn done(server: SocketAddrV4, method: &'static str, target: &str, form: &str) -> Value {
    let reply = send(server, &ask(method, target, form));
    assert!(matches!(reply.status, 200 | 201), "{method} {target} {form}: {reply:?}");
    serde_json::from_slice(&reply.body).unwrap_or(Value::Null)
}

fn index(server: SocketAddrV4) -> u64 {
    let reply = send(server, &ask("GET", "/", ""));
    reply.header("x-etcd-index").unwrap().parse().unwrap()
}

/// What a request to the keys may say, in its address or its form.
const PARAMETERS: [&str; 14] = [
    "recursive",
    "sorted",
    "quorum",
    "wait",
    "waitIndex",
    "stream",
    "dir",
    "value",
    "ttl",
    "refresh",
    "prevExist",
    "prevValue",
    "prevIndex",
    "noValueOnSuccess",
];

/// Both servers, asked alike.
struct Pair {
    etcd: SocketAddrV4,
    ours: SocketAddrV4,
    asked: usize,
    /// How many requests named each parameter.
    parameters: BTreeMap<&'static str, usize>,
    /// The error codes and statuses that etcd has answered, and how often.
    codes: BTreeMap<u64, usize>,
    statuses: BTreeMap<u16, usize>,
    _clusters: [Cluster; 2],
}

impl Pair {
    async fn start(etcd: std::path::PathBuf) -> Pair {
        let mut reference = Cluster::new(&[etcd], &["--enable-v2"]);
        reference.start().await;
        let ours = Cluster::ours(1, &["--enable-v2"]).await;
        let (a, b) = (reference.members[0].client, ours.members[0].client);
        let begun = index(a);
        assert!(begun >= 2, "etcd begins at {begun}");
        (1..begun).for_each(|_| drop(done(b, "PUT", "/warm", "value=up")));
        done(b, "DELETE", "/warm", "");
        assert_eq!(index(b), begun);
        Pair {
            etcd: a,
            ours: b,
            asked: 0,
            parameters: BTreeMap::new(),
            codes: BTreeMap::new(),
            statuses: BTreeMap::new(),
            _clusters: [reference, ours],
        }
    }

    /// Asks both and compares; etcd's answer.
    fn ask(&mut self, ask: &Ask) -> Reply {
        let (theirs, ours) = (send(self.etcd, ask), send(self.ours, ask));
        self.compare(ask, &theirs, &ours);
        theirs
    }

    fn all(&mut self, asks: &[Ask]) {
        asks.iter().for_each(|ask| drop(self.ask(ask)));
    }

    fn compare(&mut self, ask: &Ask, theirs: &Reply, ours: &Reply) {
        self.asked += 1;
        *self.statuses.entry(theirs.status).or_default() += 1;
        let query = ask.target.split_once('?').map_or("", |(_, query)| query);
        let fields = query.split('&').chain(ask.body.split('&'));
        let named: BTreeSet<&str> = fields.filter_map(|f| Some(f.split_once('=')?.0)).collect();
        for name in PARAMETERS.into_iter().filter(|name| named.contains(name)) {
            *self.parameters.entry(name).or_default() += 1;
        }
        if let Ok(Value::Object(body)) = serde_json::from_slice(&theirs.body)
            && let Some(code) = body.get("errorCode")
        {
            *self.codes.entry(code.as_u64().unwrap()).or_default() += 1;
        }
        if let Err(difference) = same(ask, theirs, ours) {
            panic!(
                "request {}: {ask:?}\n{difference}\netcd: {} {:?}\n{}\nours: {} {:?}\n{}",
                self.asked,
                theirs.status,
                theirs.headers,
                theirs.text(),
                ours.status,
                ours.headers,
                ours.text()
            );
        }
    }

    /// A client that waits on each server; both have answered the head.
    fn wait(&mut self, target: &str) -> Waiting {
        let ask = ask("GET", target, "");
        let mut open = [self.etcd, self.ours].map(|server| Exchange::send(server, &ask.bytes()));
        let heads = open.each_mut().map(|exchange| exchange.read(Until::Head));
        let headless = heads.map(|head| Reply { body: Vec::new(), ..head });
        self.compare(&ask, &headless[0], &headless[1]);
        Waiting { ask, open }
    }
}

/// A wait that is open on both servers.
struct Waiting {
    ask: Ask,
    open: [Exchange; 2],
}

impl Waiting {
    /// Both answers are over, and equal.
    fn over(&mut self, pair: &mut Pair) -> Reply {
        let [theirs, ours] = self.open.each_mut().map(|exchange| exchange.read(Until::End));
        pair.compare(&self.ask, &theirs, &ours);
        theirs
    }

    /// Both have told so much, and it is equal.
    fn told(&mut self, pair: &mut Pair, lines: usize) -> Reply {
        let [theirs, ours] =
            self.open.each_mut().map(|exchange| exchange.read(Until::Lines(lines)));
        pair.compare(&self.ask, &theirs, &ours);
        theirs
    }

    /// What etcd tells up to the line that holds `last`, of which there is one, we tell as well.
    fn told_until(&mut self, pair: &mut Pair, last: &str) {
        let mut lines = 1;
        loop {
            let told = self.open[0].read(Until::Lines(lines));
            if told.text().contains(last) {
                // It was the last change: nothing follows, and all that came is to be told by both.
                lines = told.text().lines().count();
                break;
            }
            lines += 1;
        }
        self.told(pair, lines);
    }
}

/// Whether two answers are the same but for times, random order and what only one server can know.
fn same(ask: &Ask, theirs: &Reply, ours: &Reply) -> Result<(), String> {
    if theirs.status != ours.status {
        return Err("statuses differ".to_owned());
    }
    for name in EQUAL_HEADERS {
        if theirs.header(name) != ours.header(name) {
            return Err(format!("{name} differs"));
        }
    }
    for name in LIKE_HEADERS {
        if theirs.header(name).is_some() != ours.header(name).is_some() {
            return Err(format!("{name} is there once only"));
        }
    }
    let (theirs, ours) = (theirs.text(), ours.text());
    if theirs.lines().count() != ours.lines().count() {
        return Err("one says more".to_owned());
    }
    for (theirs, ours) in theirs.lines().zip(ours.lines()) {
        let times = (times_of(theirs), times_of(ours));
        let near = |(a, b): (&i64, &i64)| (a - b).abs() <= CLOCKS_APART_S;
        if times.0.len() != times.1.len() || !times.0.iter().zip(&times.1).all(near) {
            return Err(format!("times differ: {times:?}"));
        }
        let (theirs, ours) = (masked(theirs), masked(ours));
        let alike = match (serde_json::from_str(&theirs), serde_json::from_str(&ours)) {
            // etcd lists what is not to be sorted in any order.
            (Ok(theirs), Ok(ours)) if !ask.is_sorted() && has_nodes(&theirs) => {
                ordered(theirs) == ordered(ours)
            }
            // Everything else is compared letter by letter.
            _ => theirs == ours,
        };
        if !alike {
            return Err(format!("bodies differ:\n{theirs}\n{ours}"));
        }
    }
    Ok(())
}

/// All `ttl`s, in order of their keys so that random order does not matter.
fn times_of(line: &str) -> Vec<i64> {
    fn gather(value: &Value, out: &mut BTreeMap<String, Vec<i64>>) {
        match value {
            Value::Object(map) => {
                if let Some(ttl) = map.get("ttl").and_then(Value::as_i64) {
                    let key = map.get("key").map_or(String::new(), Value::to_string);
                    out.entry(key).or_default().push(ttl);
                }
                map.values().for_each(|value| gather(value, out));
            }
            Value::Array(values) => values.iter().for_each(|value| gather(value, out)),
            _ => {}
        }
    }
    let mut times = BTreeMap::new();
    if let Ok(value) = serde_json::from_str(line) {
        gather(&value, &mut times);
    }
    times.into_values().flatten().collect()
}

/// The line without its times: `ttl` and `expiration` stand there, but say nothing.
fn masked(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) =
        [",\"ttl\":", ",\"expiration\":\""].iter().filter_map(|name| rest.find(name)).min()
    {
        let (before, from) = rest.split_at(at);
        let is_ttl = from.starts_with(",\"ttl\"");
        let name = if is_ttl { ",\"ttl\":" } else { ",\"expiration\":\"" };
        out.push_str(before);
        out.push_str(name);
        rest = &from[name.len()..];
        let end = rest.find(|c| if is_ttl { !matches!(c, '0'..='9' | '-') } else { c == '"' });
        out.push('0');
        rest = &rest[end.unwrap_or(rest.len())..];
    }
    out + rest
}

fn has_nodes(value: &Value) -> bool {
    value.pointer("/node/nodes").is_some()
}

fn ordered(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(key, value)| (key, ordered(value))).collect())
        }
        Value::Array(values) => {
            let mut values: Vec<Value> = values.into_iter().map(ordered).collect();
            values.sort_by_key(Value::to_string);
            Value::Array(values)
        }
        other => other,
    }
}

// What is drawn: often what works, sometimes what does not.
const PATHS: [&str; 22] = [
    "/a",
    "/a",
    "/a/b",
    "/a/b",
    "/a/b/c",
    "/a/b/c/d",
    "/a/_h",
    "/a/_h/x",
    "/_h",
    "/_h/y",
    "/q",
    "/q/",
    "/a-b",
    "/a/b.c",
    "/sp%20ace",
    "/%ff%00",
    "/a%2Fb",
    "/%C3%BC",
    "/f",
    "/f/x",
    "/",
    "",
];
const VALUES: [&str; 9] = ["1", "2", "3", "", "v%26%3C%3E", "%ff%fe", "a+b", "%e2%80%a8", "x%0Ay"];
const TRUTHS: [&str; 13] =
    ["true", "true", "true", "true", "true", "true", "false", "false", "1", "T", "0", "yes", ""];

/// Draws requests over a small tree, so that they meet each other.
struct Generator {
    random: Random,
    /// Indexes that nodes have or had.
    indexes: Vec<u64>,
}

impl Generator {
    fn path(&mut self) -> &'static str {
        self.random.pick::<&str>(&PATHS)
    }

    fn value(&mut self) -> &'static str {
        self.random.pick::<&str>(&VALUES)
    }

    fn truth(&mut self) -> &'static str {
        self.random.pick::<&str>(&TRUTHS)
    }

    fn index(&mut self) -> String {
        match self.random.below(12) {
            0 => "0".to_owned(),
            1 => "x".to_owned(),
            2 => "18446744073709551616".to_owned(),
            _ if self.indexes.is_empty() => "1".to_owned(),
            _ => {
                let newest = self.indexes.len().saturating_sub(12);
                self.random.pick(&self.indexes[newest..]).to_string()
            }
        }
    }

    /// `name=value` that goes with writes or with all requests.
    fn field(&mut self, writes: bool) -> String {
        let kind = self.random.below(if writes { 15 } else { 7 });
        match kind {
            0 => format!("recursive={}", self.truth()),
            1 => format!("sorted={}", self.truth()),
            2 => format!("quorum={}", self.truth()),
            3 => format!("dir={}", self.truth()),
            4 => format!("unknown={}", self.value()),
            5 => format!("stream={}", self.random.pick(&["false", "maybe", "0"])),
            6 => self.random.pick(&["%", "a;b", "=", "&", "x=%zz"]).to_string(),
            7 => format!("noValueOnSuccess={}", self.truth()),
            8 => format!("prevExist={}", self.truth()),
            9 => format!("prevValue={}", self.value()),
            10 | 11 => format!("prevIndex={}", self.index()),
            12 => {
                format!("ttl={}", self.random.pick(&["5000", "90000", "315360000", "", "x", "-1"]))
            }
            13 => format!("refresh={}", self.truth()),
            _ => format!("wait={}", self.random.pick(&["false", "x", "true"])),
        }
    }

    fn fields(&mut self, writes: bool) -> Vec<String> {
        let count = *self.random.pick(&[0, 0, 1, 1, 1, 2, 2, 3]);
        let mut fields: Vec<String> = (0..count).map(|_| self.field(writes)).collect();
        // What cannot be read at all is interesting now and then, and else only in the way.
        if !self.random.one_in(6) {
            fields.retain(|field| !["%", "a;b", "x=%zz"].contains(&field.as_str()));
        }
        fields
    }

    fn draw(&mut self) -> Ask {
        let path = self.path();
        match self.random.below(20) {
            0..=6 => {
                let query = self.fields(false).join("&");
                let method = if self.random.one_in(8) { "HEAD" } else { "GET" };
                ask(method, &format!("{path}?{query}"), "")
            }
            7..=13 => {
                let mut form = self.fields(true);
                if !form.iter().any(|field| field.starts_with("refresh")) || self.random.one_in(4) {
                    form.push(format!("value={}", self.value()));
                }
                // A body that is a query is the same.
                match self.random.one_in(3) {
                    true => ask("PUT", &format!("{path}?{}", form.join("&")), ""),
                    false => ask("PUT", path, &form.join("&")),
                }
            }
            14 => ask(
                "POST",
                path,
                &format!("value={}&{}", self.value(), self.fields(true).join("&")),
            ),
            15..=18 => {
                let fields = self.fields(true).join("&");
                let extra = self.random.pick(&["", "recursive=true", "dir=true"]);
                ask("DELETE", &format!("{path}?{extra}&{fields}"), "")
            }
            _ => {
                let target = self.random.pick(&[
                    "~/v2/keys//a",
                    "~/v2/keys/a/../b?x=1",
                    "~/v2/keys/./a/",
                    "~/v2",
                    "~/v2/",
                    "~/v2/keysx",
                    "~/v2/stats",
                    "~/v2/machines/",
                    "~/v2/keys/%2e%2e/a",
                    "~/v2/keys/a%2F%2Fb",
                    "~/v2/keys/..",
                ]);
                let method = self.random.pick(&["GET", "HEAD", "PUT", "DELETE", "PATCH", "POST"]);
                ask(method, target, "")
            }
        }
    }

    /// Remembers the indexes of an answer.
    fn learn(&mut self, reply: &Reply) {
        fn gather(value: &Value, out: &mut Vec<u64>) {
            match value {
                Value::Object(map) => {
                    out.extend(map.get("modifiedIndex").and_then(Value::as_u64));
                    map.values().for_each(|value| gather(value, out));
                }
                Value::Array(values) => values.iter().for_each(|value| gather(value, out)),
                _ => {}
            }
        }
        if let Ok(value) = serde_json::from_slice(&reply.body) {
            gather(&value, &mut self.indexes);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_requests_are_answered_as_etcd_3_4_answers_them() {
    let mut pair = Pair::start(need!("v2", debian_etcd())).await;
    let seed = std::env::var("QUORATE_SEED").map_or(20_260_101, |seed| seed.parse().unwrap());
    let count: usize =
        std::env::var("QUORATE_V2_REQUESTS").map_or(4_000, |count| count.parse().unwrap());
    let mut generator = Generator { random: Random::new(seed), indexes: Vec::new() };
    let mut waits = 0;
    while pair.asked < count {
        // Some wait from here on, on both, while requests come; then each is told of one last change.
        let start = index(pair.etcd);
        let mut waiting: Vec<(&str, bool, Waiting)> = Vec::new();
        for _ in 0..generator.random.below(4) {
            let path = *generator.random.pick(&["/a", "/a/b", "/a/b/c", "/a/_h", "/_h/y", "/f"]);
            let stream = generator.random.one_in(2);
            let recursive = generator.random.one_in(2);
            let since = match generator.random.below(4) {
                0 if !stream => format!(
                    "&waitIndex={}",
                    start.saturating_sub(generator.random.below(40)).max(8)
                ),
                1 => format!("&waitIndex={}", start + 1 + generator.random.below(5)),
                _ => String::new(),
            };
            let target = format!("{path}?wait=true&recursive={recursive}&stream={stream}{since}");
            waiting.push((path, stream, pair.wait(&target)));
            waits += 1;
        }
        for _ in 0..60 {
            let ask = generator.draw();
            // Only known waits are opened: one that nobody ends would keep the test.
            if ask.method == "GET" && ask.target.contains("wait=true") {
                continue;
            }
            let reply = pair.ask(&ask);
            generator.learn(&reply);
        }
        for (number, (path, stream, mut waiting)) in waiting.into_iter().enumerate() {
            for top in ["/a", "/_h", "/f"] {
                pair.ask(&ask("DELETE", &format!("{top}?recursive=true"), ""));
            }
            // Those that wait from beyond the next indexes are reached, too.
            for _ in 0..5 {
                pair.ask(&ask("PUT", path, "value=end"));
            }
            pair.ask(&ask("PUT", path, &format!("value=last-{number}")));
            match stream {
                true => waiting.told_until(&mut pair, &format!("last-{number}")),
                false => drop(waiting.over(&mut pair)),
            }
        }
        pair.ask(&ask("GET", "/?recursive=true&sorted=true", ""));
    }
    println!(
        "seed {seed}: {} requests, {waits} waits, up to index {}, all equal; how many of each parameter {:?}, \
         error code {:?}, status {:?}",
        pair.asked,
        index(pair.etcd),
        pair.parameters,
        pair.codes,
        pair.statuses
    );
    if count >= 3_000 {
        let few = PARAMETERS.map(|name| pair.parameters.get(name).is_none_or(|count| *count < 30));
        assert_eq!(few, [false; 14], "each parameter is met often: {:?}", pair.parameters);
        let provoked = [100, 101, 102, 104, 105, 107, 108, 201, 202, 203, 209, 210, 211, 212];
        assert!(provoked.iter().all(|code| pair.codes.contains_key(code)), "{:?}", pair.codes);
    }
}

/// Each parameter, each error and each page at least once, in an order that can be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_parameter_and_every_error_is_as_in_etcd_3_4() {
    let mut pair = Pair::start(need!("v2", debian_etcd())).await;
    let p = &mut pair;
    p.all(&[
        // The notebook's line, and what must stand before it.
        ask("GET", "/hello", ""),
        ask("PUT", "/hello", "value=world"),
        ask("GET", "/hello", ""),
        ask("HEAD", "/hello", ""),
        ask("GET", "/hello?quorum=true", ""),
        // Directories, files, and what stands in the way of what.
        ask("GET", "", ""),
        ask("PUT", "/hello/below", "value=1"),
        ask("GET", "/hello/below/more", ""),
        ask("PUT", "/d", "dir=true"),
        ask("PUT", "/d", "dir=true"),
        ask("PUT", "/d", "value=1"),
        ask("PUT", "/d/e/f", "value=deep"),
        ask("GET", "/d", ""),
        ask("GET", "/d?recursive=true&sorted=true", ""),
        ask("GET", "/d/x/y", ""),
        ask("DELETE", "/d", ""),
        ask("DELETE", "/d?dir=true", ""),
        ask("DELETE", "/hello?dir=true", ""),
        ask("DELETE", "/d/e?recursive=true", ""),
        ask("DELETE", "/d?dir=true", ""),
        ask("DELETE", "/d", ""),
        ask("PUT", "/turn", "value=1"),
        ask("PUT", "/turn", "dir=true"),
        // Hidden keys are there for who knows them.
        ask("PUT", "/_hidden/x", "value=1"),
        ask("PUT", "/open/_x", "value=1"),
        ask("GET", "/?recursive=true&sorted=true", ""),
        ask("GET", "/_hidden?recursive=true", ""),
        ask("GET", "/open/_x", ""),
        // Create, update, compare.
        ask("PUT", "/c", "value=1&prevExist=false"),
        ask("PUT", "/c", "value=1&prevExist=false"),
        ask("PUT", "/c", "value=2&prevExist=true"),
        ask("PUT", "/none", "value=2&prevExist=true"),
        ask("PUT", "/open", "value=2&prevExist=true"),
        ask("PUT", "/open", "prevExist=true&ttl=1000"),
        ask("PUT", "/c", "value=3&prevValue=2"),
        ask("PUT", "/c", "value=3&prevValue=2"),
        ask("PUT", "/c", "value=3&prevIndex=1"),
        ask("PUT", "/c", "value=3&prevIndex=1&prevValue=0"),
        ask("PUT", "/c", "value=3&prevIndex=0"),
        ask("PUT", "/open", "value=3&prevValue=x"),
        ask("PUT", "/none", "value=3&prevValue=x"),
        ask("PUT", "/c", "value=3&prevValue="),
        ask("PUT", "/c", "value=4&prevExist=true&prevValue=3"),
        ask("DELETE", "/c?prevValue=x", ""),
        ask("DELETE", "/c?prevIndex=1", ""),
        ask("DELETE", "/c?prevIndex=x", ""),
        ask("DELETE", "/open?prevIndex=1", ""),
        ask("DELETE", "/?prevIndex=1", ""),
        ask("DELETE", "/c?prevValue=4", ""),
        // In order.
        ask("POST", "/queue", "value=first"),
        ask("POST", "/queue", "value=second&ttl=1000"),
        ask("POST", "/queue", "dir=true"),
        ask("POST", "/hello", "value=1"),
        ask("POST", "/", "value=root"),
        ask("GET", "/queue?sorted=true&recursive=true", ""),
        // The root.
        ask("PUT", "/", "value=1"),
        ask("PUT", "/", "dir=true"),
        ask("PUT", "/", "prevExist=true"),
        ask("PUT", "/", "prevExist=false"),
        ask("PUT", "/", "prevValue=x"),
        ask("DELETE", "/?recursive=true", ""),
        // Time.
        ask("PUT", "/t", "value=1&ttl=1000"),
        ask("GET", "/t", ""),
        ask("PUT", "/t", "ttl=2000&refresh=true&prevExist=true"),
        ask("PUT", "/t", "ttl=3000&refresh=true"),
        ask("PUT", "/t", "ttl=3000&refresh=true&prevValue=1"),
        ask("PUT", "/t", "ttl=&value=forever"),
        ask("GET", "/t", ""),
        ask("PUT", "/t", "ttl=x"),
        ask("PUT", "/t", "ttl=-1"),
        ask("PUT", "/t", "refresh=true"),
        ask("PUT", "/t", "refresh=true&ttl=5&value=x"),
        ask("PUT", "/none", "refresh=true&ttl=5"),
        ask("PUT", "/open", "refresh=true&ttl=5000"),
        // 9223372037 seconds are more nanoseconds than there are: the past, and so no time at all.
        ask("PUT", "/wrapped", "value=1&ttl=9223372037"),
        // What need not be said again.
        ask("PUT", "/n", "value=1&noValueOnSuccess=true"),
        ask("PUT", "/n", "value=1&prevValue=1&noValueOnSuccess=true"),
        ask("DELETE", "/n?noValueOnSuccess=true", ""),
        // Fields that cannot be read.
        ask("GET", "/x?recursive=maybe", ""),
        ask("GET", "/x?sorted=", ""),
        ask("GET", "/x?wait=2", ""),
        ask("GET", "/x?quorum=y", ""),
        ask("GET", "/x?stream=y", ""),
        ask("GET", "/x?dir=y", ""),
        ask("GET", "/x?waitIndex=-1", ""),
        ask("PUT", "/x?wait=true", ""),
        ask("HEAD", "/x?wait=true", ""),
        ask("PUT", "/x", "noValueOnSuccess=y"),
        ask("PUT", "/x", "prevExist="),
        ask("PUT", "/x", "refresh=y"),
        ask("PUT", "/x?a=%", "value=1"),
        ask("PUT", "/x", "value=1;2"),
        ask("PUT", "/x?value=query", "value=form&value=second"),
        Ask { headers: "Content-Type: text/plain\r\n", ..ask("PUT", "/x", "value=unread") },
        Ask { headers: "Content-Type: text/plain; =\r\n", ..ask("PUT", "/x", "value=unread") },
        Ask { headers: "Content-Type: a b\r\n", ..ask("PUT", "/x", "value=unread") },
        Ask { headers: "", ..ask("PUT", "/x", "value=unread") },
        Ask { headers: FORM, ..ask("DELETE", "/x", "prevValue=unread") },
        // Letters.
        ask("PUT", "/%C3%BC/%ff%00", "value=%3C%26%3E%22%5C%0A%0D%09%01%7f%E2%80%A8%E2%80"),
        ask("GET", "/%C3%BC?recursive=true", ""),
        ask("GET", "/%zz", ""),
        ask("GET", "//hello", ""),
        ask("PUT", "/a/../hello?x=%20", "value=1"),
        // Methods and pages.
        ask("PATCH", "/hello", ""),
        ask("OPTIONS", "/hello", ""),
        ask("GET", "~/v2/machine", ""),
        ask("POST", "~/v2/machines", ""),
        ask("POST", "~/v2/stats/self", ""),
        ask("HEAD", "~/v2/stats/store", ""),
        ask("HEAD", "~/v2/members", ""),
        ask("GET", "~/v2/members/x", ""),
        ask("GET", "~/v2/members/x/y", ""),
    ]);
    // Waits, told of what comes, what came, and what is gone.
    let since = index(p.etcd) + 1;
    let mut next = p.wait("/w?wait=true");
    let mut below = p.wait("/w?wait=true&recursive=true");
    let mut all = p.wait("/w?wait=true&recursive=true&stream=true");
    let mut one = p.wait("/w/x?wait=true&stream=true");
    let mut later = p.wait(&format!("/w/x?wait=true&waitIndex={}", since + 2));
    let mut hidden = p.wait("/w/_h?wait=true&recursive=true&stream=true");
    p.all(&[
        ask("PUT", "/w/_h/1", "value=0"),
        ask("PUT", "/w/x", "value=1"),
        ask("PUT", "/w/x", "value=2&ttl=5000"),
        ask("PUT", "/w/x", "refresh=true&ttl=6000"),
        ask("PUT", "/w/x", "value=3&prevValue=2"),
        ask("DELETE", "/w/x?prevValue=3", ""),
        ask("POST", "/w", "value=4"),
        ask("PUT", "/w/x", "value=5"),
        ask("DELETE", "/w?recursive=true", ""),
        ask("PUT", "/w", "value=file"),
    ]);
    next.over(p);
    below.over(p);
    later.over(p);
    assert!(all.told(p, 9).text().ends_with("}\n"));
    one.told(p, 7);
    hidden.told(p, 2);
    for query in ["", "&recursive=true"] {
        for back in [0, 1, 3, 6] {
            let target = format!("/w/x?wait=true&waitIndex={}{query}", since + back);
            p.wait(&target).over(p);
        }
    }
    // A stream from the past tells of the first change, and then of nothing.
    let mut past = p.wait(&format!("/w?wait=true&stream=true&recursive=true&waitIndex={since}"));
    p.ask(&ask("PUT", "/w", "value=again"));
    past.told(p, 1);
    // A thousand changes later the past is gone.
    for number in 0..1_002 {
        p.ask(&ask("PUT", "/many", &format!("value={number}")));
    }
    let now = index(p.etcd);
    p.ask(&ask("GET", &format!("/w?wait=true&waitIndex={since}"), ""));
    p.ask(&ask("GET", &format!("/many?wait=true&waitIndex={}", now - 1_000), ""));
    p.ask(&ask("GET", &format!("/many?wait=true&waitIndex={}", now - 999), ""));
    p.wait(&format!("/many?wait=true&waitIndex={now}")).over(p);
    println!(
        "{} requests, all equal; how many of each parameter {:?}, error code {:?}, status {:?}",
        p.asked, p.parameters, p.codes, p.statuses
    );
    assert!(PARAMETERS.iter().all(|name| p.parameters.contains_key(name)), "{:?}", p.parameters);
    let want: BTreeSet<u64> =
        [100, 101, 102, 104, 105, 107, 108, 201, 202, 203, 209, 210, 211, 212, 401].into();
    let codes: BTreeSet<u64> = p.codes.keys().copied().collect();
    assert_eq!(codes, want, "each code that etcd's own server answers with");

    pages(p);
    expiry(p);
}

/// Pages that tell of one server alone: the same shape, and the same numbers where they count the same.
fn pages(pair: &mut Pair) {
    fn shape(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                map.iter().map(|(key, value)| (key.clone(), shape(value))).collect()
            }
            Value::Array(values) => values.iter().map(shape).collect(),
            Value::String(_) => "text".into(),
            Value::Number(_) => 0.into(),
            other => other.clone(),
        }
    }
    for page in [
        "/v2/members",
        "/v2/members/leader",
        "/v2/stats/self",
        "/v2/stats/leader",
        "/v2/stats/store",
    ] {
        let ask = ask("GET", &format!("~{page}"), "");
        let [theirs, ours] = [pair.etcd, pair.ours].map(|server| send(server, &ask));
        assert_eq!(
            (theirs.status, theirs.header("content-type")),
            (ours.status, ours.header("content-type")),
            "{page}"
        );
        let [theirs, ours]: [Value; 2] =
            [theirs, ours].map(|reply| serde_json::from_slice(&reply.body).unwrap());
        assert_eq!(shape(&theirs), shape(&ours), "{page}: {theirs} {ours}");
    }
    let machines = send(pair.ours, &ask("GET", "~/v2/machines", ""));
    assert_eq!(machines.text(), format!("http://{}", pair.ours));
    // What changes members says that it is not there yet.
    for (method, target) in
        [("POST", "/v2/members"), ("PUT", "/v2/members/1"), ("DELETE", "/v2/members/1")]
    {
        let reply = send(pair.ours, &ask(method, &format!("~{target}"), ""));
        assert_eq!(reply.status, 501, "{method}");
        assert_eq!(reply.text(), "{\"message\":\"membership changes are not implemented yet\"}");
    }
}

/// Keys whose time is over go on both, once, and tell who waits.
fn expiry(pair: &mut Pair) {
    let mut gone = pair.wait("/soon?wait=true&recursive=true&stream=true");
    pair.all(&[
        ask("PUT", "/soon/file", "value=1&ttl=1"),
        ask("PUT", "/soon/refreshed", "value=1&ttl=1"),
        ask("PUT", "/soon/refreshed", "refresh=true&ttl=3"),
        ask("PUT", "/soon/kept", "value=1&ttl=1"),
        ask("PUT", "/soon/kept", "value=2&prevExist=true"),
        ask("PUT", "/soon/dir", "dir=true&ttl=2"),
        ask("PUT", "/soon/dir/child", "value=1&ttl=2"),
    ]);
    // Six changes that are told, and three expiries; the directory's child is gone with it, or before it.
    let mut waits = gone.open.each_mut().map(|exchange| {
        let mut lines = 9;
        loop {
            let told = exchange.read(Until::Lines(lines)).text();
            if told.contains("\"action\":\"expire\",\"node\":{\"key\":\"/soon/refreshed\"") {
                return told;
            }
            lines += 1;
        }
    });
    for told in &mut waits {
        let expired = |key: &str| {
            told.matches(&format!("\"action\":\"expire\",\"node\":{{\"key\":\"{key}\"")).count()
        };
        assert_eq!((expired("/soon/file"), expired("/soon/refreshed")), (1, 1), "{told}");
        assert_eq!((expired("/soon/dir"), expired("/soon/kept")), (1, 0), "{told}");
    }
    pair.ask(&Ask { ..ask("GET", "/soon/kept?quorum=true", "") });
    for gone in ["/soon/file", "/soon/refreshed", "/soon/dir"] {
        for server in [pair.etcd, pair.ours] {
            assert_eq!(send(server, &ask("GET", gone, "")).status, 404, "{gone}");
        }
    }
}

/// Debian's `etcdctl` speaks v2 when it is told to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_command_line_works() {
    let etcdctl = std::path::Path::new("/usr/bin/etcdctl");
    if !etcdctl.exists() {
        return tests::skip("v2", "/usr/bin/etcdctl is not there; it is in Debian's etcd-client");
    }
    let cluster = Cluster::ours(1, &["--enable-v2"]).await;
    let ctl = |arguments: &[&str]| {
        let mut command = Command::new(etcdctl);
        command.env("ETCDCTL_API", "2").args(["--endpoints", &cluster.endpoints()]).args(arguments);
        command
    };
    assert_eq!(run_ok(&mut ctl(&["set", "/hello", "world"])), "world\n");
    assert_eq!(run_ok(&mut ctl(&["get", "/hello"])), "world\n");
    assert_eq!(run_ok(&mut ctl(&["mkdir", "/d"])), "");
    assert_eq!(run_ok(&mut ctl(&["mk", "--in-order", "/d", "x"])), "x\n");
    assert_eq!(run_ok(&mut ctl(&["update", "/hello", "again"])), "again\n");
    assert!(run_ok(&mut ctl(&["ls", "--recursive", "--sort", "/"])).starts_with("/d\n/d/0000"));
    assert_eq!(run_ok(&mut ctl(&["rm", "--with-value", "again", "/hello"])), "\n");
    assert_eq!(run(&mut ctl(&["get", "/hello"])).status.code(), Some(4));
    assert!(run_ok(&mut ctl(&["member", "list"])).contains("isLeader=true"));
    assert!(run_ok(&mut ctl(&["cluster-health"])).contains("cluster is healthy"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_flag_there_is_no_v2_api_and_the_answer_says_so() {
    let cluster = Cluster::ours(1, &[]).await;
    let reply = send(cluster.members[0].client, &ask("GET", "/hello", ""));
    assert_eq!(reply.status, 404);
    assert!(reply.text().contains("--enable-v2"), "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_have_one_tree_and_expire_a_key_once() {
    let mut cluster = Cluster::ours(3, &["--enable-v2"]).await;
    let leader = cluster.leader().await;
    let servers: Vec<SocketAddrV4> = cluster.members.iter().map(|member| member.client).collect();
    let (follower, other) = (servers[(leader + 1) % 3], servers[(leader + 2) % 3]);
    // What is put by one follower is read on the other, at once with a quorum.
    done(follower, "PUT", "/shared", "value=1");
    let read = done(other, "GET", "/shared?quorum=true", "");
    assert_eq!(read["node"]["value"], "1");
    // Changes on all members at once: each is done, none twice, and every index is given once.
    let before = index(follower);
    let writers: Vec<_> = servers
        .iter()
        .flat_map(|server| [*server, *server])
        .map(|server| {
            std::thread::spawn(move || -> Vec<u64> {
                (0..25)
                    .map(|_| {
                        let created = done(server, "POST", "/queue", "value=x");
                        created["node"]["createdIndex"].as_u64().unwrap()
                    })
                    .collect()
            })
        })
        .collect();
    let given: Vec<u64> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
    let unique: BTreeSet<u64> = given.iter().copied().collect();
    assert_eq!(unique, (before + 1..=before + 150).collect());
    let queue = done(other, "GET", "/queue?quorum=true", "");
    assert_eq!(queue["node"]["nodes"].as_array().unwrap().len(), 150);
    // A key with a time: on each member exactly one expiry is told, and it is the same.
    let mut waits: Vec<Exchange> = servers
        .iter()
        .map(|server| {
            let ask = ask("GET", "/soon?wait=true&stream=true&recursive=true", "");
            let mut exchange = Exchange::send(*server, &ask.bytes());
            exchange.read(Until::Head);
            exchange
        })
        .collect();
    done(follower, "PUT", "/soon/a", "value=1&ttl=1");
    let told: Vec<String> =
        waits.iter_mut().map(|wait| wait.read(Until::Lines(2)).text()).collect();
    done(follower, "PUT", "/soon/b", "value=end");
    for wait in &mut waits {
        let text = wait.read(Until::Lines(3)).text();
        let actions: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["action"].clone())
            .collect();
        assert_eq!(actions, ["set", "expire", "set"], "{text}");
    }
    assert!(told.iter().all(|text| *text == told[0]), "{told:?}");
    cluster.agree().await;
    // All of it is kept over a restart of everybody, the index and the past too.
    let asks = [
        ask("GET", "/?recursive=true", ""),
        ask("GET", "/queue?wait=true&recursive=true&waitIndex=2", ""),
    ];
    let kept: Vec<String> = asks.iter().map(|ask| send(follower, ask).text()).collect();
    let at = index(follower);
    for member in &mut cluster.members {
        member.terminate();
    }
    cluster.start().await;
    for server in servers {
        let now: Vec<String> = asks.iter().map(|ask| send(server, ask).text()).collect();
        assert_eq!(now, kept);
        assert_eq!(index(server), at);
    }
    done(other, "PUT", "/shared", "value=2");
    assert_eq!(index(other), at + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v3_sees_the_tree_under_its_prefix_and_what_it_breaks_there_is_an_error() {
    let cluster = Cluster::ours(1, &["--enable-v2"]).await;
    let server = cluster.members[0].client;
    done(server, "PUT", "/hello", "value=world");
    let mut kv = cluster.members[0].kv();
    let range = RangeRequest {
        key: "/quorate/v2/".into(),
        range_end: "/quorate/v20".into(),
        ..RangeRequest::default()
    };
    let found = kv.range(range).await.unwrap().into_inner();
    let text: Vec<(String, String)> = found
        .kvs
        .iter()
        .map(|kv| {
            (String::from_utf8_lossy(&kv.key).into(), String::from_utf8_lossy(&kv.value).into())
        })
        .collect();
    let node = "file created=1 modified=1\nworld";
    let want = [
        (
            "/quorate/v2/events/00000000000000000001",
            format!("set key=6 node={}\n/hello{node}", node.len()),
        ),
        ("/quorate/v2/index", "1".to_owned()),
        ("/quorate/v2/keys/hello", node.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value));
    assert_eq!(text, want);
    for (key, value) in [("/quorate/v2/keys/hello", "no record"), ("/quorate/v2/index", "many")] {
        let put = proto::etcdserverpb::PutRequest {
            key: key.into(),
            value: value.into(),
            ..Default::default()
        };
        kv.put(put).await.unwrap();
        for broken in
            [ask("GET", "/hello", ""), ask("PUT", "/hello", "value=1"), ask("DELETE", "/hello", "")]
        {
            let reply = send(server, &broken);
            assert_eq!(reply.status, 500);
            let cause = format!("not a record of the v2 API: {key}");
            assert!(reply.text().contains(&cause), "{}", reply.text());
        }
    }
}

/// Bytes that no client sends: each is answered by an error or closed on, the member goes on, and nothing changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_bytes_change_nothing() {
    let mut cluster = Cluster::ours(1, &["--enable-v2"]).await;
    let server = cluster.members[0].client;
    done(server, "PUT", "/hello", "value=world");
    done(server, "PUT", "/dir/x", "value=1");
    let before =
        (index(server), send(server, &ask("GET", "/?recursive=true&sorted=true", "")).text());
    let deep = format!("/v2/keys{}", "/d".repeat(4_000));
    let long = format!("/v2/keys/{}", "l".repeat(60_000));
    let many = vec!["a=1"; 10_000].join("&");
    // A byte more than is read of a form.
    let huge = format!("value={}", "v".repeat((10 << 20) + 1 - "value=".len()));
    let large = format!("value={}", "v".repeat(2 << 20));
    let mut requests: Vec<(Vec<u8>, &[u16])> = Vec::new();
    let mut add =
        |method: &str, target: &str, headers: &str, body: &[u8], statuses: &'static [u16]| {
            requests.push((request(method, target, headers, body), statuses));
        };
    add("GET", "/v2/keys/%", "", b"", &[400]);
    add("GET", "/v2/keys/%0", "", b"", &[400]);
    add("GET", "/v2/keys/%00%00", "", b"", &[404]);
    add("GET", "/v2/keys/\u{1}", "", b"", &[400]);
    add("GET", "/v2/keys/%ff%fe/%c0%af", "", b"", &[404]);
    add("PUT", "/v2/keys/x?ttl=%00", FORM, b"value=1", &[400]);
    add("PUT", "/v2/keys/x", FORM, b"value=%&prevIndex=1", &[400]);
    add("PUT", "/v2/keys/x", FORM, b"value=1&prevIndex=99999999999999999999", &[400]);
    add("PUT", "/v2/keys/x", FORM, b"\xff\xfe\x00=\x00&prevExist=\xff", &[400]);
    add("PUT", "/v2/keys/x", "Content-Type: \u{fc};;;=\r\n", b"value=1", &[400]);
    add("PUT", "/v2/keys/hello", FORM, b"value=1&prevValue=%00", &[412]);
    add("PUT", &deep, FORM, b"value=1", &[400, 414, 431]);
    add("GET", &deep, "", b"", &[404, 414, 431]);
    add("GET", &long, "", b"", &[404, 414, 431]);
    add("DELETE", &format!("/v2/keys/none?{many}"), "", b"", &[404, 414, 431]);
    add("PUT", "/v2/keys/x", FORM, huge.as_bytes(), &[400]);
    add("PUT", "/v2/keys/x", FORM, large.as_bytes(), &[500]);
    add("GET", "/v2/keys/x?waitIndex=18446744073709551615&wait=maybe", "", b"", &[400]);
    add("POST", "/v2/keys/hello", FORM, b"value=1", &[400]);
    add("DELETE", "/v2/keys/?recursive=true", "", b"", &[400]);
    add("DELETE", "/v2/keys/dir?dir=true", "", b"", &[403]);
    add("TRACE", "/v2/keys/hello", "", b"", &[405]);
    add("\u{fc}", "/v2/keys/hello", "", b"", &[400, 405]);
    add("GET", "/v2/members/%ff", "", b"", &[404]);
    add("DELETE", "/v2/members/%ff", "", b"", &[501]);
    add("GET", "/v2/stats/%73elf", "", b"", &[200]);
    add("PUT", "/v2/keys/..%2f..%2fquorate", FORM, b"value=1", &[301]);
    for (bytes, statuses) in &requests {
        let reply = Exchange::send(server, bytes).read(Until::End);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
        assert!(statuses.contains(&reply.status), "{shown}: {} {}", reply.status, reply.text());
    }
    // What is no request by the rules of HTTP, although there is one in it.
    let mut spoiled = corpus("PUT", "/v2/keys/hello", FORM, b"value=hostile");
    spoiled.extend(corpus("POST", "/v2/keys/dir", FORM, b"value=hostile"));
    let mut wrong = Vec::new();
    for hostile in &spoiled {
        let why = not_refused(say(server, &hostile.bytes).as_deref());
        wrong.extend(why.map(|why| format!("{}: {why}", hostile.what)));
    }
    for escape in ESCAPES {
        let bytes = request("PUT", &format!("/v2/keys/{escape}"), FORM, b"value=hostile");
        let reply = Exchange::send(server, &bytes).read(Until::End);
        assert_eq!(reply.status, 400, "{escape}: {}", reply.text());
    }
    // Questions with bytes turned, cut and put in, from a seed: still questions, or nothing.
    let asked = request("GET", "/v2/keys/hello?recursive=true&sorted=true&quorum=false", FORM, b"");
    for hostile in mutations(7, 1_500, &asked) {
        let answer = say(server, &hostile.bytes);
        let is_answer = matches!(answer.as_deref().and_then(status), Some(200 | 301));
        let why = not_refused(answer.as_deref()).filter(|_| !is_answer);
        wrong.extend(why.map(|why| format!("{}: {why}", hostile.what)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let after =
        (index(server), send(server, &ask("GET", "/?recursive=true&sorted=true", "")).text());
    assert_eq!(before, after);
    assert!(cluster.members[0].is_running());
    assert!(!cluster.members[0].log_text().contains("panic"));
}
