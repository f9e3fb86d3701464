//! The same random requests to a real etcd and to us: every reply, error, text and event equal.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proto::etcdserverpb::{
    CompactionRequest, LeaseGrantRequest, PutRequest, RangeRequest, WatchCreateRequest,
};
use tests::compare::{Answer, Side, difference};
use tests::generate::{Generator, Op};
use tests::http::{Exchange, Until, request};
use tests::need;
use tests::process::{Cluster, Member, quorate, reference};
use tests::watches::{Stream, Told, settle};

const SETTLE: Duration = Duration::from_secs(180);
const STREAMS: u64 = 4;

/// A watch on each stream, of a key that is put to see how far the stream has come.
const SENTINEL: i64 = 1 << 40;

/// What a client can be refused with by a member that is well, without auth and membership changes.
const ERRORS: [&str; 14] = [
    "etcdserver: key is not provided",
    "etcdserver: key not found",
    "etcdserver: value is provided",
    "etcdserver: lease is provided",
    "etcdserver: too many operations in txn request",
    "etcdserver: duplicate key given in txn request",
    "etcdserver: invalid sort option",
    "etcdserver: mvcc: required revision has been compacted",
    "etcdserver: mvcc: required revision is a future revision",
    "etcdserver: requested lease not found",
    "etcdserver: lease already exists",
    "etcdserver: too large lease TTL",
    "etcdserver: request is too large",
    "etcdserver: invalid client api version",
];

struct Pair {
    etcd: Side,
    ours: Side,
    generator: Generator,
    errors: BTreeSet<String>,
    asked: usize,
}

impl Pair {
    async fn ask(&mut self, op: Op) -> Answer {
        self.asked += 1;
        let (reference, ours) = tokio::join!(self.etcd.ask(&op), self.ours.ask(&op));
        if let Answer::Refused(_, text) = &reference {
            self.errors.insert(text.clone());
        }
        self.generator.learn(&op, reference.revision(), reference.succeeded());
        let answer = reference.clone();
        if let Some(difference) = difference(&op, reference, ours) {
            panic!("request {} (revision {}):\n{difference}", self.asked, self.generator.revision);
        }
        answer
    }

    /// Waits until every watch has been told all. To be told the same is not enough, for both may lag alike. So first etcd
    /// says that none of its watches lags, which means that all is on its way; behind that a put to the sentinel is told.
    async fn catch_up(&mut self, etcd: &Member, streams: &[(Stream, Stream)]) {
        let deadline = Instant::now() + SETTLE;
        while laggards(etcd) > 0 {
            assert!(Instant::now() < deadline, "etcd's watches lag");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let put = PutRequest { key: "sentinel".into(), ..Default::default() };
        let revision = self.ask(Op::Put(put)).await.revision();
        let is_it = |told: &Told| matches!(told, Told::Event(event) if event.kv.as_ref().map(|kv| kv.mod_revision) == revision);
        for (etcd, ours) in streams {
            while !etcd.told()[&SENTINEL].iter().any(is_it) {
                assert!(Instant::now() < deadline, "etcd does not tell revision {revision:?}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            settle(etcd, ours, SETTLE).await.unwrap_or_else(|d| panic!("{d}"));
        }
    }

    /// Requests that no random draw would make, or that need a state of their own.
    async fn directed(&mut self) {
        let large = vec![b'x'; 1_572_865];
        self.ask(Op::Put(PutRequest {
            key: "large".into(),
            value: large.clone().into(),
            ..Default::default()
        }))
        .await;
        // Above the receive limit of the transport itself: max-request-bytes and half a MiB.
        self.ask(Op::Put(PutRequest {
            key: "larger".into(),
            value: vec![b'x'; 2_200_000].into(),
            ..Default::default()
        }))
        .await;
        for version in [&b"3.7"[..], b"\xff\xfe", b""] {
            let request = |version: &[u8]| {
                let mut request = tonic::Request::new(RangeRequest {
                    key: "a".into(),
                    serializable: true,
                    ..Default::default()
                });
                let value = tonic::metadata::AsciiMetadataValue::try_from(version).unwrap();
                request.metadata_mut().insert("client-api-version", value);
                request
            };
            let etcd = self.etcd.kv.range(request(version)).await;
            let ours = self.ours.kv.range(request(version)).await;
            match (etcd, ours) {
                (Ok(a), Ok(b)) => assert_eq!(a.into_inner().kvs, b.into_inner().kvs),
                (Err(a), Err(b)) => {
                    assert_eq!((a.code(), a.message()), (b.code(), b.message()), "{version:?}");
                    self.errors.insert(a.message().to_owned());
                }
                (a, b) => panic!("client-api-version {version:?}: etcd {a:?}, ours {b:?}"),
            }
        }
    }

    /// A lease that runs out: its keys go in one revision on both sides.
    async fn expiry(&mut self) {
        self.ask(Op::Grant(LeaseGrantRequest { ttl: 1, id: 777 })).await;
        for key in ["expire/2", "expire/1", "expire/3"] {
            let put = PutRequest { key: key.into(), lease: 777, ..Default::default() };
            self.ask(Op::Put(put)).await;
        }
        let gone = |answer: &Answer| matches!(answer, Answer::Range(r) if r.count == 0);
        let range = Op::Range(RangeRequest {
            key: "expire/".into(),
            range_end: "expire0".into(),
            ..Default::default()
        });
        let deadline = Instant::now() + Duration::from_secs(180);
        loop {
            let (a, b) = (self.etcd.ask(&range).await, self.ours.ask(&range).await);
            if gone(&a) && gone(&b) {
                break;
            }
            assert!(Instant::now() < deadline, "the lease does not expire: {a:?} {b:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.ask(range).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_requests_are_answered_as_etcd_answers_them() {
    let etcd = need!("differential", reference("etcd"));
    let seed = std::env::var("QUORATE_SEED").map_or(20_260_101, |seed| seed.parse().unwrap());
    let count: usize =
        std::env::var("QUORATE_OPERATIONS").map_or(22_000, |count| count.parse().unwrap());
    let flags = ["--max-txn-ops", "128", "--snapshot-count", "5000"];
    let mut cluster = Cluster::new(&[etcd], &flags);
    cluster.start().await;
    let our_binary =
        std::env::var("QUORATE_COMPARE_WITH").map_or_else(|_| quorate(), std::path::PathBuf::from);
    let mut our_cluster = Cluster::new(&[our_binary], &flags);
    our_cluster.start().await;
    let mut pair = Pair {
        etcd: Side::new(&cluster.members[0]),
        ours: Side::new(&our_cluster.members[0]),
        generator: Generator::new(seed),
        errors: BTreeSet::new(),
        asked: 0,
    };
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let etcd = Stream::open(cluster.members[0].watch()).await;
        let ours = Stream::open(our_cluster.members[0].watch()).await;
        for stream in [&etcd, &ours] {
            let key = "sentinel".into();
            let watch_id = SENTINEL;
            stream.create(WatchCreateRequest { key, watch_id, ..Default::default() });
        }
        settle_created(&etcd, &ours, 1).await.unwrap_or_else(|d| panic!("{d}"));
        streams.push((etcd, ours));
    }
    let mut watches = 0;
    // A watch from the past must have caught up on both sides before a compaction, or its fate is a race.
    let mut behind = false;
    while pair.asked < count {
        if pair.generator.random.one_in(60) {
            let (etcd, ours) = &streams[pair.generator.random.below(STREAMS) as usize];
            let request: WatchCreateRequest = pair.generator.watch();
            let known = created(etcd);
            etcd.create(request.clone());
            ours.create(request);
            if let Err(difference) = settle_created(etcd, ours, known + 1).await {
                panic!("after {} requests, a watch:\n{difference}", pair.asked);
            }
            watches += 1;
            behind = true;
        }
        if pair.generator.random.one_in(120) {
            let (etcd, ours) = &streams[pair.generator.random.below(STREAMS) as usize];
            let known: Vec<i64> = etcd.told().into_keys().filter(|id| *id != SENTINEL).collect();
            if !known.is_empty() {
                // What is still under way to a watcher that is cancelled is a race, too.
                settle(etcd, ours, SETTLE).await.unwrap_or_else(|d| panic!("{d}"));
                let id = *pair.generator.random.pick(&known);
                etcd.cancel(id);
                ours.cancel(id);
                settle(etcd, ours, SETTLE).await.unwrap_or_else(|d| panic!("{d}"));
            }
        }
        let op = pair.generator.op();
        if behind && matches!(op, Op::Compact(_)) {
            pair.catch_up(&cluster.members[0], &streams).await;
            behind = false;
        }
        let compacted = matches!(op, Op::Compact(CompactionRequest { physical: false, .. }));
        pair.ask(op).await;
        if compacted {
            // Its hash is on its way on both sides. A physical one is answered behind it, though it is refused.
            let revision = pair.generator.compacted;
            pair.ask(Op::Compact(CompactionRequest { revision, physical: true })).await;
        }
    }
    pair.directed().await;
    pair.expiry().await;
    for (etcd, ours) in &streams {
        settle(etcd, ours, SETTLE).await.unwrap_or_else(|d| panic!("{d}"));
    }
    let events: usize = streams.iter().map(|(etcd, _)| etcd.events()).sum();
    let Generator { revision, compacted, .. } = pair.generator;
    for revision in [0, revision, compacted - 1, compacted, compacted + 1] {
        pair.ask(Op::HashKv(revision)).await;
    }
    println!(
        "seed {seed}: {} requests, {watches} watches, {events} events, {} errors, all equal",
        pair.asked,
        pair.errors.len()
    );
    if count >= 20_000 {
        assert!(watches >= 200, "only {watches} watches were drawn");
        for error in ERRORS {
            assert!(pair.errors.contains(error), "`{error}` was never provoked: {:?}", pair.errors);
        }
    }
}

/// How many watches of an etcd have not been told all.
fn laggards(etcd: &Member) -> u64 {
    let page = tokio::task::block_in_place(|| {
        Exchange::send(etcd.client, &request("GET", "/metrics", "", b"")).read(Until::End).text()
    });
    let name = "etcd_debugging_mvcc_slow_watcher_total ";
    let value = page.lines().find_map(|line| line.strip_prefix(name)).expect("it is on the page");
    value.parse().unwrap()
}

fn created(stream: &Stream) -> usize {
    let told = stream.told();
    told.values().flatten().filter(|told| matches!(told, Told::Created { .. })).count()
}

/// Waits until both sides answered all creations (the events may still be on their way).
async fn settle_created(etcd: &Stream, ours: &Stream, expected: usize) -> Result<(), String> {
    let before = Instant::now();
    loop {
        let (a, b) = (created(etcd), created(ours));
        if a == expected && b == expected {
            return Ok(());
        }
        if before.elapsed() > SETTLE {
            return Err(format!("of {expected} creations etcd answered {a}, we {b}"));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
