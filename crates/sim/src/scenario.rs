//! What a seed is about: everything that is drawn before the first event.

use replica::{Bootstrap, Config, Founder, Identity, Limits, SegmentBytes};

use crate::checker::CLUSTER;
use crate::plan::{Numbers, flag};
use crate::random::Random;

/// In one of so many seeds clients keep to groups of keys.
const GROUPS_EVERY: u64 = 8;

/// A kind of misfortune.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Messages are lost.
    Loss,
    /// Messages arrive twice.
    Doubling,
    /// Messages overtake each other.
    Reordering,
    /// Links are cut in both directions.
    CutBoth,
    /// Links are cut in one direction.
    CutOneWay,
    /// A process dies; its disk keeps what was written.
    Crash,
    /// The power goes; the disk keeps what it likes of what was not synced.
    PowerCut,
    /// A process does nothing for a while.
    Pause,
    /// A disk is slow for a while.
    SlowDisk,
    /// An operation of a disk fails, a write or a sync as often as a name; the process must end.
    FailingDisk,
    /// A disk has no room for a while.
    FullDisk,
    /// Bytes of the disks of a minority change by themselves. Who cannot be read any more is gone.
    Rot,
    /// Members join, vote, and leave.
    Membership,
    /// Clocks run at different speeds, up to a tenth too fast or too slow, all the time.
    ClockDrift,
    /// Writes of a minority's disks that were synced never arrived.
    LostWrites,
    /// Writes of a minority's disks that were synced arrived elsewhere.
    MisdirectedWrites,
    /// A member is started on an empty disk as if it were new.
    WipedDisk,
    /// Two members are started on each other's disks.
    SwappedDisks,
    /// Links are clogged one after the other, and cleared one after the other, in another order: what is sent meanwhile arrives
    /// late, and all at once.
    Swizzle,
}

/// All of them, in the order of their numbers.
pub const FAULTS: [Fault; 19] = [
    Fault::Loss,
    Fault::Doubling,
    Fault::Reordering,
    Fault::CutBoth,
    Fault::CutOneWay,
    Fault::Crash,
    Fault::PowerCut,
    Fault::Pause,
    Fault::SlowDisk,
    Fault::FailingDisk,
    Fault::FullDisk,
    Fault::Rot,
    Fault::Membership,
    Fault::ClockDrift,
    Fault::LostWrites,
    Fault::MisdirectedWrites,
    Fault::WipedDisk,
    Fault::SwappedDisks,
    Fault::Swizzle,
];

/// Those that cost a disk. Of them happen no more in a seed than there may be disks that cannot be relied on.
pub const SPOILERS: [Fault; 4] =
    [Fault::Rot, Fault::LostWrites, Fault::MisdirectedWrites, Fault::WipedDisk];

/// The first so many are drawn together; what came later is drawn apart, so that seeds keep what they are about.
const DRAWN_TOGETHER: usize = 9;
/// From here on each kind is drawn by its own name.
const DRAWN_BY_NAME: usize = 12;

impl Fault {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Loss => "loss",
            Fault::Doubling => "doubling",
            Fault::Reordering => "reordering",
            Fault::CutBoth => "cut both ways",
            Fault::CutOneWay => "cut one way",
            Fault::Crash => "crash",
            Fault::PowerCut => "power cut",
            Fault::Pause => "pause",
            Fault::SlowDisk => "slow disk",
            Fault::FailingDisk => "failing disk",
            Fault::FullDisk => "full disk",
            Fault::Rot => "rot",
            Fault::Membership => "joining and leaving",
            Fault::ClockDrift => "clock drift",
            Fault::LostWrites => "lost writes",
            Fault::MisdirectedWrites => "misdirected writes",
            Fault::WipedDisk => "wiped disk",
            Fault::SwappedDisks => "swapped disks",
            Fault::Swizzle => "swizzle",
        }
    }

    /// The one of this name, the words apart or joined by hyphens.
    pub fn named(name: &str) -> Option<Fault> {
        FAULTS.into_iter().find(|fault| flag(fault.name()) == flag(name))
    }

    /// How many members it takes: two for what happens between them, three if there must be others with the data.
    pub fn members_needed(self) -> usize {
        use Fault::{CutBoth, CutOneWay, Doubling, Loss, Reordering, SwappedDisks, Swizzle};
        match self {
            Loss | Doubling | Reordering | CutBoth | CutOneWay | SwappedDisks | Swizzle => 2,
            spoiler if SPOILERS.contains(&spoiler) => 3,
            _ => 1,
        }
    }
}

/// A defect that is put in on purpose, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Disks skip a sync of the log now and then, and say they did it.
    SkipSync,
    /// The leader hears acknowledgements that no follower has given.
    AckBeforeQuorum,
    /// A member that has voted, or should refuse, votes all the same.
    VoteTwice,
    /// What vouches for an append leaves before the append is synced.
    AckBeforeSync,
    /// A leader applies only when the answers to its commit index are in.
    ApplyLate,
    /// A snapshot that was sent whole is thrown away, and its sender is told that it arrived.
    LoseSnapshots,
    /// A candidate does not ask first whether it could win.
    NoPreVote,
    /// A watch that was broken off goes on from now instead of from where it was.
    ResumeFromNow,
    /// A watch that needs what was compacted away ends without a word.
    SilentCompaction,
    /// A client repeats also what may have been done.
    RetryWrites,
    /// A bug in the code that is simulated, in builds that have them.
    Inside(mutant::Mutant),
}

/// Those that the storms must find; the others are for the experiments of the laboratory, each of which names the one
/// that breaks what it shows.
pub const MUTANTS: [Mutant; 3] = [Mutant::SkipSync, Mutant::AckBeforeQuorum, Mutant::VoteTwice];

impl Mutant {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Mutant::SkipSync => "skip a sync",
            Mutant::AckBeforeQuorum => "acknowledge before the quorum",
            Mutant::VoteTwice => "vote twice",
            Mutant::AckBeforeSync => "acknowledge before the sync",
            Mutant::ApplyLate => "apply after the commit is confirmed",
            Mutant::LoseSnapshots => "lose snapshots",
            Mutant::NoPreVote => "no pre-vote",
            Mutant::ResumeFromNow => "resume from now",
            Mutant::SilentCompaction => "compact silently",
            Mutant::RetryWrites => "retry writes",
            Mutant::Inside(inside) => inside.name(),
        }
    }

    /// Those that storms must find: in the simulator's own hands, and, in builds that have them, in the code.
    pub fn all() -> Vec<Mutant> {
        let inside = if mutant::ON { mutant::ALL } else { &[] };
        MUTANTS.into_iter().chain(inside.iter().map(|inside| Mutant::Inside(*inside))).collect()
    }

    /// The one of this name that storms must find, the words apart or joined by hyphens.
    pub fn named(name: &str) -> Option<Mutant> {
        Mutant::all().into_iter().find(|mutant| flag(mutant.name()) == flag(name))
    }
}

/// What the clients of a storm ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Everything.
    Everything,
    /// Puts, deletes, reads and transactions of current keys, each within one of a few small groups of keys: what an
    /// order can be searched for.
    Groups,
}

impl Workload {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Everything => "everything",
            Workload::Groups => "groups",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Workload> {
        [Workload::Everything, Workload::Groups]
            .into_iter()
            .find(|workload| workload.name() == name)
    }
}

/// What a seed is about.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// Other dice than the seed's own for all that is drawn after the beginning, unless 0.
    pub roll: u64,
    /// How long faults and clients go on, in microseconds.
    pub length_us: u64,
    /// How many members found the cluster.
    pub members: usize,
    /// How many clients.
    pub clients: usize,
    /// How many requests a client has under way at most.
    pub width: usize,
    /// How long a client rests between two requests, on average, in microseconds.
    pub think_us: u64,
    /// Shards per member.
    pub shards: u8,
    /// The sector size of each founder's disk.
    pub sectors: Vec<usize>,
    /// How long each founder's clock takes for a second, in milliseconds, where clocks drift.
    pub clocks: Vec<u64>,
    /// How long a sync of each founder's disk takes on average, in microseconds.
    pub sync_us: Vec<u64>,
    /// The least time and the average of the rest that a message takes, in microseconds.
    pub latency_us: (u64, u64),
    /// The kinds of misfortune that happen.
    pub faults: Vec<Fault>,
    /// The average time between two misfortunes of a kind, in microseconds.
    pub fault_gap_us: u64,
    /// How many keys there are.
    pub keys: u64,
    /// What clients ask.
    pub workload: Workload,
    /// The defect put in.
    pub mutant: Option<Mutant>,
    /// What the simulator itself sees is not told.
    pub blind: bool,
    /// Single misfortunes that are left out.
    pub skip_faults: Numbers,
    /// Single requests that are left out.
    pub skip_operations: Numbers,
    /// What all members are told at their start.
    pub config: Config,
}

impl Scenario {
    /// Draws what the seed is about.
    pub fn draw(seed: u64, length_us: u64, mutant: Option<Mutant>) -> Scenario {
        let mut random = Random::new(seed).child("scenario", 0);
        let members = match random.below(100) {
            0..12 => 1,
            12..16 => 2,
            16..72 => 3,
            72..94 => 5,
            _ => 7,
        };
        let tick_ms = *random.pick(&[50, 100, 100]);
        let sector_choice = *random.pick(&[512, 512, 4096]);
        let (together, apart) = FAULTS[..DRAWN_BY_NAME].split_at(DRAWN_TOGETHER);
        let mut faults: Vec<Fault> =
            together.iter().copied().filter(|_| random.chance(0.5)).collect();
        let mut disks = Random::new(seed).child("disk faults", 0);
        faults.extend(apart.iter().copied().filter(|_| disks.chance(0.5)));
        let by_name = |fault: &Fault| Random::new(seed).child(fault.name(), 0).chance(0.5);
        faults.extend(FAULTS[DRAWN_BY_NAME..].iter().copied().filter(by_name));
        faults.retain(|fault| members >= fault.members_needed());
        let mut spared = Random::new(seed).child("spoilers", 0);
        loop {
            let drawn: Vec<Fault> =
                SPOILERS.into_iter().filter(|fault| faults.contains(fault)).collect();
            if drawn.len() <= (members - 1) / 2 {
                break;
            }
            let spared = *spared.pick(&drawn);
            faults.retain(|fault| *fault != spared);
        }
        Scenario {
            seed,
            roll: 0,
            length_us,
            members,
            clients: random.between(2, 8) as usize,
            width: random.between(1, 3) as usize,
            think_us: 0,
            shards: random.between(1, 3) as u8,
            sectors: vec![sector_choice; members],
            clocks: (0..members).map(|_| 901 + random.below(61) * 10 / 3).collect(),
            sync_us: (0..members).map(|_| *random.pick(&[150, 400, 400, 1_000, 3_000])).collect(),
            latency_us: (random.between(50, 1_500), random.between(50, 2_000)),
            faults,
            fault_gap_us: random.between(3_000_000, 7_000_000),
            // Mostly so few that requests meet; at times so many that ranges outgrow leaves, slices and pages.
            keys: if random.chance(0.1) {
                random.between(300, 2_000)
            } else {
                random.between(6, 40)
            },
            workload: draw_workload(seed),
            mutant,
            blind: false,
            skip_faults: Numbers::default(),
            skip_operations: Numbers::default(),
            config: config(&mut random, tick_ms),
        }
        .with_load(&mut random)
    }

    /// Enough requests that ten writes a second get through, and not so many that a seed takes long.
    fn with_load(mut self, random: &mut Random) -> Scenario {
        if self.clients * self.width < 4 {
            self.width = 4usize.div_ceil(self.clients);
        }
        let per_second = random.between(45, 80);
        self.think_us = (self.clients * self.width) as u64 * 1_000_000 / per_second;
        self
    }

    /// No more than so many members, one at least.
    pub fn keep_members(&mut self, most: usize) {
        self.members = self.members.min(most.max(1));
        self.sectors.truncate(self.members);
        self.clocks.truncate(self.members);
        self.sync_us.truncate(self.members);
        self.faults.retain(|fault| self.members >= fault.members_needed());
    }

    /// The sector size of a member's disk. Who joins has a machine like a founder's.
    pub fn sector(&self, member: usize) -> usize {
        self.sectors[member % self.members]
    }

    /// How long a tick is for a member, in microseconds.
    pub fn tick_us(&self, member: usize) -> u64 {
        let drifts = self.faults.contains(&Fault::ClockDrift);
        let clock = if drifts { self.clocks[member % self.members] } else { 1_000 };
        self.config.tick_ms * clock
    }

    /// How long a sync of a member's disk takes on average, in microseconds.
    pub fn sync_us(&self, member: usize) -> u64 {
        self.sync_us[member % self.members]
    }

    /// The root of all that is drawn from now on.
    pub fn root(&self) -> Random {
        let root = Random::new(self.seed);
        if self.roll == 0 { root } else { root.child("roll", self.roll) }
    }

    /// What the member of this number is told in this life of its.
    pub fn config_of(&self, member: usize, life: u64, now_us: u64) -> Config {
        let mut config = self.config.clone();
        config.identity.node_id = member as u64 + 1;
        config.shards = self.shards;
        config.seed = self.root().child("raft", (member as u64) << 32 | life).next();
        config.start_ms = 1_700_000_000_000 + now_us / 1_000;
        config
    }

    /// As the server: a founder brings the list of founders to every start.
    pub fn bootstrap_of(&self, member: usize) -> Bootstrap {
        match member < self.members {
            true => Bootstrap::New(self.founders()),
            false => Bootstrap::Join,
        }
    }

    /// The founders of the cluster.
    pub fn founders(&self) -> Vec<Founder> {
        (1..=self.members as u64)
            .map(|id| {
                let member = state_machine::Member {
                    id,
                    name: format!("m{id}"),
                    peer_urls: vec![format!("http://10.0.0.{id}:2380")],
                    ..state_machine::Member::default()
                };
                Founder { node_id: id, context: member.to_context() }
            })
            .collect()
    }

    /// The shortest lease that is granted, in seconds: one and a half election timeouts, rounded up.
    pub fn lease_ttl_min(&self) -> i64 {
        let ms = 3 * u64::from(self.config.election_ticks) * self.config.tick_ms / 2;
        ms.div_ceil(1_000) as i64
    }
}

/// Of some seeds the clients keep to groups of keys, so that the search can judge what they were told.
fn draw_workload(seed: u64) -> Workload {
    match Random::new(seed).child("workload", 0).below(GROUPS_EVERY) {
        0 => Workload::Groups,
        _ => Workload::Everything,
    }
}

/// Everything small, so that what is rare in life happens all the time here.
fn config(random: &mut Random, tick_ms: u64) -> Config {
    let mut config = Config::new(Identity { node_id: 1, cluster_id: CLUSTER }, "/data");
    config.tick_ms = tick_ms;
    config.election_ticks = random.between(5, 10) as u32;
    config.pre_vote = random.chance(0.6);
    config.snapshot_count = random.between(5, 200);
    config.snapshot_catchup_entries = *random.pick(&[0, 1, 5, 20, 100]);
    config.value_cache_bytes = *random.pick(&[0, 512, 16 << 10, 1 << 20]);
    config.segment_bytes = SegmentBytes {
        wal: *random.pick(&[4 << 10, 16 << 10, 64 << 10]),
        store: *random.pick(&[16 << 10, 32 << 10, 128 << 10]),
    };
    config.limits = Limits {
        frame_bytes: *random.pick(&[256, 1 << 10, 8 << 10]),
        frame_ms: *random.pick(&[50, 200, 1_000]),
        store_sync_bytes: *random.pick(&[1, 2 << 10, 32 << 10]),
        frames: *random.pick(&[1, 2, 16]),
        apply_job_bytes: *random.pick(&[1, 1 << 10, 1 << 20]),
        apply_jobs: random.between(1, 3) as usize,
        log_memory_bytes: *random.pick(&[0, 1 << 10, 32 << 10, 1 << 20]),
        message_bytes: *random.pick(&[1, 512, 8 << 10, 512 << 10]),
        inflight_messages: *random.pick(&[1, 4, 64]),
        inflight_bytes: *random.pick(&[1 << 10, 64 << 10, 16 << 20]),
        uncommitted_bytes: *random.pick(&[16 << 10, 64 << 10, 64 << 20]),
        unflushed_bytes: *random.pick(&[4 << 10, 64 << 20]),
        unflushed_bytes_hard: *random.pick(&[8 << 10, 128 << 20]),
        committed_queue_bytes: *random.pick(&[2 << 10, 64 << 20]),
        held_proposals: *random.pick(&[4, 4_096]),
        read_rounds: *random.pick(&[1, 4, 64]),
        fetches: *random.pick(&[1, 8]),
        scrub_pause_ms: 2_000,
        ..Limits::default()
    };
    // raft refuses a window that no message fits through.
    config.limits.inflight_bytes = config.limits.inflight_bytes.max(config.limits.message_bytes);
    config
}
