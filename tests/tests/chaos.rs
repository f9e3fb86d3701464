//! Everything breaks, two things at a time, under load; and the power fails, again and again.
//!
//! Each member has a disk of its own (an image with an ext4, on a loop device with direct I/O) and a network that can be
//! cut; what the clients were told is judged by the simulator's checkers. A fault counts when it has been seen to strike,
//! and the next step waits for that. See `docs/chaos.md`.
//!
//! `QUORATE_SEED` draws the same faults and requests again (real processes do not keep the same time),
//! `QUORATE_FAULT_PAIRS`, `QUORATE_POWER_CUTS` and `QUORATE_OPERATIONS` say how long it goes on.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant, SystemTime};

use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};
use rustix::process::Signal;
use tests::address::own_address;
use tests::disk::{Disk, Syncs};
use tests::history::{Asked, Clients, Judged, Watching, events, eventually, judge};
use tests::network::Network;
use tests::process::{Cluster, Member, READY_WITHIN, channel, quorate};
use tests::random::Random;
use tests::{need, skip};
use tokio::task::{JoinSet, block_in_place};

const CLIENTS: u64 = 12;

/// How much longer a sync takes on a slow disk.
const SLOW_MS: u32 = 200;

/// How often a disk that does not sync is cut off from power before it counts as one that loses nothing.
const LYING_CUTS_MAX: usize = 10;

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

/// In this order two of them begin that befall one member: what ends its process comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    SlowDisk,
    FullDisk,
    CutOneWay,
    CutBothWays,
    Stop,
    Kill,
    PowerCut,
}

use Fault::*;

const FAULTS: [Fault; 7] = [SlowDisk, FullDisk, CutOneWay, CutBothWays, Stop, Kill, PowerCut];

impl Fault {
    fn is_cut(self) -> bool {
        matches!(self, CutOneWay | CutBothWays)
    }

    fn needs_disk(self) -> bool {
        matches!(self, FullDisk | PowerCut)
    }

    /// Whether one member can have this and then that: whoever has ended has no more to suffer.
    fn may_precede(self, other: Fault) -> bool {
        match self {
            SlowDisk => true,
            Stop => matches!(other, Kill | PowerCut),
            _ => false,
        }
    }
}

/// A fault, the member that it befalls, and, if it is a cut, the one that hears no more of it.
#[derive(Clone, Copy, Debug)]
struct Blow {
    fault: Fault,
    at: usize,
    to: usize,
}

/// Whom two faults befall. Each must be able to strike while the other lasts: so what is not a cut befalls the member
/// that no link was cut of, for there are always entries for that one, and keep-alives between the others.
fn blows(first: Fault, second: Fault, random: &mut Random) -> [Blow; 2] {
    let mut three = [0, 1, 2];
    for i in [2, 1] {
        three.swap(i, random.below(i as u64 + 1) as usize);
    }
    let [a, b, c] = three;
    let (first, second) = (first.min(second), first.max(second));
    let blow = |fault, at, to| Blow { fault, at, to };
    let mut both = match (first.is_cut(), second.is_cut()) {
        (true, true) => {
            let (at, to) = *random.pick(&[(a, c), (c, a), (b, c), (c, b)]);
            [blow(first, a, b), blow(second, at, to)]
        }
        (true, false) => [blow(first, a, b), blow(second, c, c)],
        (false, true) => [blow(first, c, c), blow(second, a, b)],
        (false, false) if first < second && first.may_precede(second) && random.one_in(2) => {
            return [blow(first, a, a), blow(second, a, a)];
        }
        (false, false) => [blow(first, a, a), blow(second, b, b)],
    };
    if random.one_in(2) {
        both.reverse();
    }
    both
}

/// What is counted of faults.
#[derive(Debug, Default)]
struct Tally {
    struck: BTreeMap<Fault, usize>,
    slow_syncs: u64,
    held: u64,
    /// Power cuts in which something that was not synced was lost: so they were more than kills.
    cuts_with_loss: usize,
    /// Snapshots that members took over from others, having been away for too long.
    snapshots: usize,
}

/// Members with what they stand on. Fields are dropped in this order: first the disks, then the directory they are in.
struct Site {
    syncs: Vec<Syncs>,
    /// One for each member, or none at all.
    disks: Vec<Disk>,
    network: Network,
    /// What the faults draw.
    random: Random,
    tally: Tally,
    cluster: Cluster,
}

impl Site {
    /// Running members. If there can be no disks of their own here it says why, and has none.
    async fn start(size: usize, seed: u64) -> (Site, Result<(), String>) {
        // Little is kept, so that a member that was away sometimes needs a snapshot.
        let flags = ["--snapshot-count", "400", "--snapshot-catchup-entries", "200"];
        let cluster = Cluster::new(&vec![quorate(); size], &flags);
        let mut site = Site {
            syncs: Vec::new(),
            disks: Vec::new(),
            network: Network::default(),
            random: Random::new(seed),
            tally: Tally::default(),
            cluster,
        };
        let directory = site.cluster.directory.clone();
        let disk = |member: &Member| Disk::new(&directory, &format!("{}.disk", member.name));
        let disks: Result<Vec<Disk>, String> = site.cluster.members.iter().map(disk).collect();
        let has_disks = disks.map(|disks| site.disks = disks);
        let mut addresses = Vec::new();
        for (i, member) in site.cluster.members.iter_mut().enumerate() {
            let syncs = Syncs::new(&directory, &member.name);
            member.environment.extend(syncs.environment());
            site.syncs.push(syncs);
            if let Some(disk) = site.disks.get(i) {
                member.data_dir = disk.path().join("data");
                let data = member.data_dir.to_str().unwrap().to_owned();
                replace_argument(member, "--data-dir", &data);
            }
            let listen = own_address();
            addresses.push((member.peer, listen));
            replace_argument(member, "--listen-peer-urls", &format!("http://{listen}"));
        }
        site.network = Network::start(&addresses).await;
        site.cluster.start().await;
        let mut ids = Vec::new();
        for member in &site.cluster.members {
            ids.push(member.status().await.unwrap().header.unwrap().member_id);
        }
        site.network.know(&ids);
        (site, has_disks)
    }

    /// A lone member with a disk of its own, or why there is none here.
    async fn lone(seed: u64) -> Result<Site, String> {
        let (site, has_disks) = Site::start(1, seed).await;
        has_disks.map(|()| site)
    }

    fn urls(&self) -> Vec<String> {
        self.cluster.members.iter().map(Member::client_url).collect()
    }

    /// Begins a fault and waits until it has struck.
    async fn begin(&mut self, blow: Blow, clients: &Clients) {
        let Blow { fault, at, to } = blow;
        match fault {
            SlowDisk => {
                let (syncs, before) = (&self.syncs[at], self.syncs[at].struck());
                syncs.slow(SLOW_MS);
                eventually("a sync was slow", || syncs.struck() > before).await;
            }
            FullDisk => self.fill_disk(at).await,
            CutOneWay => self.cut(&[(at, to)]).await,
            CutBothWays => self.cut(&[(at, to), (to, at)]).await,
            Stop => {
                self.cluster.members[at].signal(Signal::STOP);
                eventually("all its threads stand", || self.stands_still(at)).await;
                clients.ask(CLIENTS).await;
                assert!(self.stands_still(at), "it was stopped while the clients asked");
            }
            Kill => self.kill(at),
            PowerCut => self.cut_power(at, true),
        }
        *self.tally.struck.entry(fault).or_default() += 1;
    }

    fn end(&mut self, blow: Blow) {
        let Blow { fault, at, to } = blow;
        match fault {
            SlowDisk => self.syncs[at].heal(),
            FullDisk => block_in_place(|| self.disks[at].free()),
            CutOneWay => self.network.mend(at, to),
            CutBothWays => {
                self.network.mend(at, to);
                self.network.mend(to, at);
            }
            Stop if self.cluster.members[at].is_running() => {
                assert!(self.stands_still(at), "it was stopped all the time");
                self.cluster.members[at].signal(Signal::CONT);
            }
            // What does not run is started when both faults are over.
            Stop | Kill | PowerCut => {}
        }
    }

    async fn cut(&mut self, ways: &[(usize, usize)]) {
        for (from, to) in ways.iter().copied() {
            let before = self.network.held(from, to);
            self.network.cut(from, to);
            let what = format!("something is held on its way from {from} to {to}");
            eventually(&what, || self.network.held(from, to) > before).await;
        }
    }

    /// Until the member finds no room for a new file of its log, and ends for that.
    async fn fill_disk(&mut self, at: usize) {
        let said_before = self.cluster.members[at].log_text().len();
        let urls = self.urls();
        let mut fillers: JoinSet<()> = (0..4).map(|i| fill_the_log(urls.clone(), i)).collect();
        let deadline = Instant::now() + READY_WITHIN;
        while self.cluster.members[at].is_running() {
            assert!(Instant::now() < deadline, "it still finds room within {READY_WITHIN:?}");
            // Again and again, for a log that is compacted gives room back.
            block_in_place(|| self.disks[at].fill());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        fillers.shutdown().await;
        let member = &mut self.cluster.members[at];
        let said = member.log_text()[said_before..].to_lowercase();
        assert!(said.contains("no space left"), "it ended for another reason:\n{said}");
        let ended = member.kill().unwrap();
        assert_eq!(ended.code(), Some(1), "{ended}");
    }

    fn kill(&mut self, at: usize) {
        let ended = self.cluster.members[at].kill().expect("it was not ended yet");
        assert_eq!(ended.signal(), Some(Signal::KILL.as_raw()), "it ended by itself: {ended}");
    }

    /// With `is_moody`, every other time the kernel has written some files before.
    fn cut_power(&mut self, at: usize, is_moody: bool) {
        self.kill(at);
        // How much is drawn depends on the files; what is drawn afterwards shall not.
        let mut random = Random::new(self.random.draw());
        let disk = &mut self.disks[at];
        let lost = block_in_place(|| {
            if is_moody && random.one_in(2) {
                disk.write_back_some(&mut random);
            }
            disk.cut_power()
        });
        self.tally.cuts_with_loss += usize::from(lost);
    }

    /// Whether none of its threads runs nor can run.
    fn stands_still(&self, at: usize) -> bool {
        let tasks = format!("/proc/{}/task", self.cluster.members[at].pid());
        std::fs::read_dir(tasks).unwrap().all(|task| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            // The state follows the name, which stands in brackets.
            stat.rsplit_once(") ").unwrap().1.starts_with('T')
        })
    }

    /// Starts whoever has ended for one of these faults, and waits for all.
    async fn recover(&mut self, blows: &[Blow]) {
        for (i, member) in self.cluster.members.iter_mut().enumerate() {
            if !member.is_running() {
                let ends = |blow: &Blow| matches!(blow.fault, FullDisk | Kill | PowerCut);
                assert!(
                    blows.iter().any(|blow| blow.at == i && ends(blow)),
                    "{blows:?}: {} ended by itself; its log ends with:\n{}",
                    member.name,
                    member.log_tail()
                );
                member.start();
            }
        }
        for member in &mut self.cluster.members {
            member.wait_ready().await;
        }
    }

    fn evidence(&mut self) -> &Tally {
        self.tally.slow_syncs = self.syncs.iter().map(Syncs::struck).sum();
        self.tally.held = (0..9).map(|way| self.network.held(way / 3, way % 3)).sum();
        let logs = self.cluster.members.iter().map(Member::log_text);
        self.tally.snapshots = logs.map(|log| log.matches("installed a snapshot").count()).sum();
        &self.tally
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

/// Entries of a megabyte that change no key, so that the logs need new files; on and on, at whoever takes them.
async fn fill_the_log(urls: Vec<String>, first: usize) {
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
    for at in first.. {
        let mut kv = KvClient::new(channel(&urls[at % urls.len()]));
        let patience = Duration::from_secs(3);
        while let Ok(Ok(_)) = tokio::time::timeout(patience, kv.txn(txn.clone())).await {}
        // It was refused, or is lost: it was there for its weight.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Three members under load, and each two of the faults together, at members drawn for each. In the end all members hold
/// the same, and what clients and a watch were told is as it was promised.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_live_through_every_two_faults_together() {
    let seed = seed("fault_pairs");
    let (mut site, has_disks) = Site::start(3, seed).await;
    let mut faults = FAULTS.to_vec();
    if let Err(why) = has_disks {
        skip("full_disks_and_power_cuts", &why);
        faults.retain(|fault| !fault.needs_disk());
    }
    let mut pairs: Vec<(Fault, Fault)> = Vec::new();
    for (i, first) in faults.iter().enumerate() {
        pairs.extend(faults[i..].iter().map(|second| (*first, *second)));
    }
    for i in (1..pairs.len()).rev() {
        pairs.swap(i, site.random.below(i as u64 + 1) as usize);
    }
    let rounds = from_environment("QUORATE_FAULT_PAIRS", 2) as usize;
    let (clients, watching) =
        (Clients::start(&site.urls(), CLIENTS, seed), Watching::start(site.urls()));
    clients.progress(200).await;
    for (first, second) in pairs.iter().cycle().take(rounds).copied() {
        let mut blows = blows(first, second, &mut site.random);
        for blow in blows {
            println!("fault_pairs: {:?} at {}, {}", blow.fault, blow.at, blow.to);
            site.begin(blow, &clients).await;
        }
        clients.ask(CLIENTS).await;
        // Not a wait for something: it shall last for a while, now longer and now shorter than an election.
        tokio::time::sleep(Duration::from_millis(site.random.below(1500))).await;
        // They end in either order.
        if site.random.one_in(2) {
            blows.reverse();
        }
        for blow in blows {
            site.end(blow);
        }
        site.recover(&blows).await;
        clients.progress(100).await;
    }
    clients.until_asked(from_environment("QUORATE_OPERATIONS", 600)).await;
    let asked = clients.stop().await;
    let agreed = site.cluster.agree().await;
    let last = agreed.header.unwrap().revision;
    let live = watching.finish(last).await;
    let whole = Watching::start(vec![site.cluster.members[0].client_url()]);
    let whole = events(&whole.finish(last).await);
    let judged = judge(&asked.history, &live, &whole)
        .unwrap_or_else(|why| panic!("QUORATE_SEED={seed}: {why}"));
    println!("fault_pairs: {rounds} pairs of faults; all members have the HashKV {}", agreed.hash);
    report("fault_pairs", &asked, &judged, site.evidence());
}

/// A lone member has nobody to learn from: what it acknowledged is on its own disk, whenever the power fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_power_of_a_lone_member_fails_again_and_again_and_nothing_is_lost() {
    let seed = seed("power_cuts");
    let mut site = need!("power_cuts", Site::lone(seed).await);
    let (clients, watching) =
        (Clients::start(&site.urls(), CLIENTS, seed), Watching::start(site.urls()));
    for cut in 0..from_environment("QUORATE_POWER_CUTS", 2) {
        clients.progress(1 + site.random.below(400)).await;
        // Not a wait for something: moments are spread between one write and the next.
        tokio::time::sleep(Duration::from_micros(site.random.below(20_000))).await;
        let left = power_failed(&mut site, &clients, true).await;
        let (acknowledged, revision) =
            left.unwrap_or_else(|| panic!("QUORATE_SEED={seed}, cut {cut}"));
        assert!(
            revision >= acknowledged,
            "QUORATE_SEED={seed}, cut {cut}: revision {acknowledged} was acknowledged, {revision} is left"
        );
        clients.resume();
    }
    clients.until_asked(from_environment("QUORATE_OPERATIONS", 600)).await;
    let asked = clients.stop().await;
    let last = site.cluster.agree().await.header.unwrap().revision;
    let live = watching.finish(last).await;
    let whole = Watching::start(site.urls());
    let whole = events(&whole.finish(last).await);
    let judged = judge(&asked.history, &live, &whole)
        .unwrap_or_else(|why| panic!("QUORATE_SEED={seed}: {why}"));
    report("power_cuts", &asked, &judged, site.evidence());
    // Somebody who syncs all the disks of this machine may come between the one or the other write and its power cut.
    let (cuts, with_loss) = (site.tally.struck[&PowerCut], site.tally.cuts_with_loss);
    assert!(with_loss * 2 > cuts, "{with_loss} of {cuts} power cuts were more than kills");
}

/// What the last test would have missed if its power cuts lost nothing or nobody counted: a disk whose syncs do nothing
/// is found out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_says_it_has_synced_and_has_not_loses_what_was_acknowledged() {
    let seed = seed("lying_disk");
    let mut site = need!("lying_disk", Site::lone(seed).await);
    let clients = Clients::start(&site.urls(), CLIENTS, seed);
    for cut in 1..=LYING_CUTS_MAX {
        site.syncs[0].pretend(0);
        clients.progress(300).await;
        let Some((acknowledged, revision)) = power_failed(&mut site, &clients, false).await else {
            // The kernel has written the state meanwhile, and not the log.
            let log = site.cluster.members[0].log_text();
            assert!(log.contains("this member has lost a part of its log"), "{log}");
            println!("lying_disk: cut {cut} left a log that the member does not start with");
            return;
        };
        if revision < acknowledged {
            clients.resume();
            clients.progress(100).await;
            let asked = clients.stop().await;
            let last = site.cluster.agree().await.header.unwrap().revision;
            let whole = events(&Watching::start(site.urls()).finish(last).await);
            let why = judge(&asked.history, &[], &whole).unwrap_err();
            assert!(why.contains(" writes are lost, the first is "), "{why}");
            println!(
                "lying_disk: cut {cut} left {revision} of {acknowledged} acknowledged revisions; {}",
                why.split(',').next().unwrap()
            );
            return;
        }
        // The kernel may have written everything by itself meanwhile.
        clients.resume();
    }
    panic!("{LYING_CUTS_MAX} power cuts, and nothing was lost of what was never synced");
}

/// The power of a lone member fails and comes back while clients ask, who rest then. The greatest revision that was
/// acknowledged, and the one that it has, if it starts.
async fn power_failed(site: &mut Site, clients: &Clients, is_moody: bool) -> Option<(i64, i64)> {
    site.cut_power(0, is_moody);
    *site.tally.struck.entry(PowerCut).or_default() += 1;
    clients.rest().await;
    let acknowledged = clients.revision();
    site.syncs[0].heal();
    site.cluster.members[0].start();
    if !site.cluster.members[0].is_ready_before_it_ends().await {
        return None;
    }
    // A linearizable read; a status may be told before the log's last entries are applied again.
    let read = RangeRequest { key: "any".into(), ..Default::default() };
    let answer = site.cluster.members[0].kv().range(read).await.unwrap().into_inner();
    Some((acknowledged, answer.header.unwrap().revision))
}

fn report(test: &str, asked: &Asked, judged: &Judged, tally: &Tally) {
    println!(
        "{test}: {} operations, acknowledged by kind {:?}; {} refused, {} unknown\n\
         {test}: faults that struck {:?}; {} syncs were slow, {} times something was held on a cut link, \
         {} power cuts took what was not synced; {} snapshots installed\n\
         {test}: {} acknowledged writes, of which lost: {}\n\
         {test}: linearizable by witness, {} revisions; {} keys searched, {} inconclusive; each revision watched once\n\
         {test}: longest pause without a write {:.1} s",
        asked.history.len(),
        asked.kinds,
        asked.refused,
        judged.unknown,
        tally.struck,
        tally.slow_syncs,
        tally.held,
        tally.cuts_with_loss,
        tally.snapshots,
        judged.acknowledged_writes,
        judged.lost_writes,
        judged.revisions,
        judged.searched,
        judged.inconclusive,
        asked.longest_pause.as_secs_f64(),
    );
}
