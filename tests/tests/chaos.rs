//! Everything breaks, two things at a time, under load; and the power fails, again and again.
//!
//! Each member has a disk of its own (an image with an ext4, on a loop device with direct I/O) and a network that can be
//! cut; what the clients were told is judged by the simulator's checkers. `QUORATE_SEED` draws the same faults and
//! requests again (real processes do not keep the same time), `QUORATE_FAULT_PAIRS`, `QUORATE_POWER_CUTS` and
//! `QUORATE_OPERATIONS` say how long it goes on.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::{Compare, PutRequest, RequestOp, TxnRequest};
use rustix::process::Signal;
use tests::disk::{Disk, Syncs};
use tests::history::{Asked, Clients, Judged, Watching, events, judge};
use tests::need;
use tests::network::Network;
use tests::process::{Cluster, Member, free_port, quorate};
use tests::random::Random;
use tokio::task::block_in_place;

const CLIENTS: u64 = 12;
const WITHIN: Duration = Duration::from_secs(40);

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |number| number.parse().unwrap())
}

/// The seed of this run, which it says.
fn seed(test: &str) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = from_environment("QUORATE_SEED", u64::from(now.subsec_nanos()));
    println!("{test}: QUORATE_SEED={seed}");
    seed
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Kill,
    Pause,
    CutOneWay,
    CutBothWays,
    SlowDisk,
    FullDisk,
    PowerCut,
}

const FAULTS: [Fault; 7] = [
    Fault::Kill,
    Fault::Pause,
    Fault::CutOneWay,
    Fault::CutBothWays,
    Fault::SlowDisk,
    Fault::FullDisk,
    Fault::PowerCut,
];

/// Members with what they stand on. Fields are dropped in this order: first the disks, then the directory they are in.
struct Site {
    syncs: Vec<Syncs>,
    disks: Vec<Disk>,
    network: Network,
    cluster: Cluster,
}

impl Site {
    /// Running members, or why there are none with disks of their own here.
    async fn start(size: usize) -> Result<Site, String> {
        // Little is kept, so that a member that was away sometimes needs a snapshot.
        let flags = ["--snapshot-count", "2000", "--snapshot-catchup-entries", "1000"];
        let mut cluster = Cluster::new(&vec![quorate(); size], &flags);
        let directory = cluster.directory.clone();
        let (mut syncs, mut disks, mut ports) = (Vec::new(), Vec::new(), Vec::new());
        for member in &mut cluster.members {
            let disk = Disk::new(&directory, &format!("{}.disk", member.name))?;
            let own = Syncs::new(&directory, &member.name);
            member.environment.extend(own.environment());
            member.data_dir = disk.path().join("data");
            let listen = free_port();
            ports.push((member.peer_port, listen));
            let data = member.data_dir.to_str().unwrap().to_owned();
            replace_argument(member, "--data-dir", &data);
            replace_argument(member, "--listen-peer-urls", &format!("http://127.0.0.1:{listen}"));
            syncs.push(own);
            disks.push(disk);
        }
        let network = Network::start(&ports).await;
        let mut site = Site { syncs, disks, network, cluster };
        site.cluster.start().await;
        let mut ids = Vec::new();
        for member in &site.cluster.members {
            ids.push(member.status().await.unwrap().header.unwrap().member_id);
        }
        site.network.know(&ids);
        Ok(site)
    }

    fn urls(&self) -> Vec<String> {
        self.cluster.members.iter().map(Member::client_url).collect()
    }

    fn begin(&mut self, fault: Fault, at: usize, other: usize) {
        let member = &mut self.cluster.members[at];
        match fault {
            Fault::Kill => member.kill(),
            Fault::Pause if member.is_running() => member.signal(Signal::STOP),
            Fault::Pause => {}
            Fault::CutOneWay => self.network.cut(at, other),
            Fault::CutBothWays => {
                self.network.cut(at, other);
                self.network.cut(other, at);
            }
            Fault::SlowDisk => self.syncs[at].slow(200),
            Fault::FullDisk => block_in_place(|| self.disks[at].fill()),
            Fault::PowerCut => {
                member.kill();
                block_in_place(|| self.disks[at].cut_power());
            }
        }
    }

    fn end(&mut self, fault: Fault, at: usize) {
        let member = &mut self.cluster.members[at];
        match fault {
            // What does not run is started when both faults are over.
            Fault::Kill | Fault::PowerCut => {}
            Fault::Pause if member.is_running() => member.signal(Signal::CONT),
            Fault::Pause => {}
            Fault::CutOneWay | Fault::CutBothWays => self.network.heal(),
            Fault::SlowDisk => self.syncs[at].heal(),
            Fault::FullDisk => block_in_place(|| self.disks[at].free()),
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Nobody can unmount what somebody has open.
        for member in &mut self.cluster.members {
            member.kill();
        }
    }
}

fn replace_argument(member: &mut Member, flag: &str, value: &str) {
    let at = member.arguments.iter().position(|argument| argument == flag).unwrap();
    member.arguments[at + 1] = value.to_owned();
}

/// Entries of a megabyte that change no key, so that the log needs new files; as many as go through in this time.
async fn fill_the_log(member: &Member, during: Duration) {
    let put =
        PutRequest { key: "fat".into(), value: vec![b'f'; 1 << 20].into(), ..Default::default() };
    let never = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Version as i32,
        key: "fat".into(),
        target_union: Some(TargetUnion::Version(1)),
        ..Default::default()
    };
    let success = vec![RequestOp { request: Some(Op::RequestPut(put)) }];
    let txn = TxnRequest { compare: vec![never], success, ..Default::default() };
    let (mut kv, end) = (member.kv(), Instant::now() + during);
    while Instant::now() < end {
        // It may be refused, or be lost: it is there for its weight.
        if !matches!(tokio::time::timeout(during, kv.txn(txn.clone())).await, Ok(Ok(_))) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Three members under load, and each two of the faults together, at members drawn for each. In the end all members hold
/// the same, and what clients and a watch were told is as it was promised.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_live_through_every_two_faults_together() {
    let seed = seed("chaos");
    let mut random = Random::new(seed);
    let mut site = need!("chaos", Site::start(3).await);
    let mut pairs: Vec<(Fault, Fault)> = Vec::new();
    for (i, first) in FAULTS.iter().enumerate() {
        pairs.extend(FAULTS[i..].iter().map(|second| (*first, *second)));
    }
    for i in (1..pairs.len()).rev() {
        pairs.swap(i, random.below(i as u64 + 1) as usize);
    }
    let rounds = from_environment("QUORATE_FAULT_PAIRS", 3) as usize;
    let (clients, watching) =
        (Clients::start(&site.urls(), CLIENTS, seed), Watching::start(site.urls()));
    clients.progress(200, WITHIN).await;
    let mut counts: BTreeMap<Fault, usize> = BTreeMap::new();
    let mut ended_for_want_of_room = 0;
    for (first, second) in pairs.iter().cycle().take(rounds).copied() {
        let at = random.below(3) as usize;
        // The same fault twice is one of two members; others may meet in one.
        let step = random.below(3) as usize;
        let then = (at + if first == second { 1 + step % 2 } else { step }) % 3;
        let hold = Duration::from_millis(800 + random.below(1200));
        for (fault, victim) in [(first, at), (second, then)] {
            *counts.entry(fault).or_default() += 1;
            site.begin(fault, victim, (victim + 1) % 3);
        }
        if [first, second].contains(&Fault::FullDisk) {
            let asked = (then + 1) % 3;
            fill_the_log(&site.cluster.members[asked], hold).await;
        } else {
            tokio::time::sleep(hold).await;
        }
        // They end in either order.
        let mut both = [(first, at), (second, then)];
        if random.one_in(2) {
            both.reverse();
        }
        for (fault, victim) in both {
            site.end(fault, victim);
        }
        for (i, member) in site.cluster.members.iter_mut().enumerate() {
            if !member.is_running() {
                let has = |fault| [(first, at), (second, then)].contains(&(fault, i));
                if !has(Fault::Kill) && !has(Fault::PowerCut) {
                    let says_so = member.log_tail().to_lowercase().contains("no space left");
                    assert!(
                        has(Fault::FullDisk) && says_so,
                        "seed {seed}, {first:?} at {at} and {second:?} at {then}: {} ended by itself",
                        member.name
                    );
                    ended_for_want_of_room += 1;
                }
                member.kill();
                member.start();
            }
        }
        for member in &mut site.cluster.members {
            member.wait_ready().await;
        }
        clients.progress(100, WITHIN).await;
    }
    clients.until_asked(from_environment("QUORATE_OPERATIONS", 1000), WITHIN * 4).await;
    let asked = clients.stop().await;
    let agreed = site.cluster.agree().await;
    let last = agreed.header.unwrap().revision;
    let live = watching.finish(last, WITHIN).await;
    let whole = Watching::start(vec![site.cluster.members[0].client_url()]);
    let whole = events(&whole.finish(last, WITHIN).await);
    let judged = judge(&asked.history, &live, &whole)
        .unwrap_or_else(|why| panic!("QUORATE_SEED={seed}: {why}"));
    println!(
        "chaos: faults begun {counts:?}, two at a time; {ended_for_want_of_room} members ended for want of room"
    );
    report("chaos", &asked, &judged, counts.get(&Fault::PowerCut).copied().unwrap_or(0));
}

/// A lone member has nobody to learn from: what it acknowledged is on its own disk, whenever the power fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_power_of_a_lone_member_fails_again_and_again_and_nothing_is_lost() {
    let seed = seed("power_cuts");
    let mut random = Random::new(seed);
    let mut site = need!("power_cuts", Site::start(1).await);
    let cuts = from_environment("QUORATE_POWER_CUTS", 3);
    let (clients, watching) =
        (Clients::start(&site.urls(), CLIENTS, seed), Watching::start(site.urls()));
    for cut in 0..cuts {
        clients.progress(1 + random.below(400), WITHIN).await;
        // Not a wait for something: moments are spread between one write and the next.
        tokio::time::sleep(Duration::from_micros(random.below(20_000))).await;
        site.cluster.members[0].kill();
        clients.rest().await;
        let acknowledged = clients.revision();
        block_in_place(|| site.disks[0].cut_power());
        site.cluster.members[0].start();
        site.cluster.members[0].wait_ready().await;
        let status = site.cluster.members[0].status().await.unwrap();
        let revision = status.header.unwrap().revision;
        assert!(
            revision >= acknowledged,
            "QUORATE_SEED={seed}, cut {cut}: revision {acknowledged} was acknowledged, {revision} is left"
        );
        clients.resume();
    }
    clients.until_asked(from_environment("QUORATE_OPERATIONS", 1000), WITHIN * 4).await;
    let asked = clients.stop().await;
    let last = site.cluster.agree().await.header.unwrap().revision;
    let live = watching.finish(last, WITHIN).await;
    let whole = Watching::start(site.urls());
    let whole = events(&whole.finish(last, WITHIN).await);
    let judged = judge(&asked.history, &live, &whole)
        .unwrap_or_else(|why| panic!("QUORATE_SEED={seed}: {why}"));
    report("power_cuts", &asked, &judged, cuts as usize);
}

/// What the last test would have missed if its power cuts lost nothing: a disk whose syncs do nothing is found out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_says_it_has_synced_and_has_not_loses_what_was_acknowledged() {
    let seed = seed("lying_disk");
    let mut site = need!("lying_disk", Site::start(1).await);
    site.syncs[0].lie();
    let clients = Clients::start(&site.urls(), CLIENTS, seed);
    clients.progress(300, WITHIN).await;
    site.cluster.members[0].kill();
    clients.rest().await;
    let acknowledged = clients.revision();
    block_in_place(|| site.disks[0].cut_power());
    site.syncs[0].heal();
    site.cluster.members[0].start();
    site.cluster.members[0].wait_ready().await;
    let revision = site.cluster.members[0].status().await.unwrap().header.unwrap().revision;
    assert!(
        revision < acknowledged,
        "{acknowledged} were acknowledged, and none of {revision} lost"
    );
    clients.stop().await;
}

fn report(test: &str, asked: &Asked, judged: &Judged, cuts: usize) {
    println!(
        "{test}: {} operations, acknowledged by kind {:?}; {} writes acknowledged, {} refused, {} unknown; {cuts} power \
         cuts; lost writes 0; {} revisions watched without gap or double; {} keys searched, {} inconclusive; \
         longest pause without a write {:.1} s",
        asked.history.len(),
        asked.kinds,
        judged.acknowledged_writes,
        asked.refused,
        judged.unknown,
        judged.revisions,
        judged.searched,
        judged.inconclusive,
        asked.longest_pause.as_secs_f64(),
    );
}
