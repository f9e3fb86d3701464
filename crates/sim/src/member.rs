//! A member: its disk, the five parts that the server's threads run, and a queue before each of them.
//!
//! ```text
//!   inbox ──▶ replica ──▶ log, apply, flush, read queues ──▶ worker (one batch under way) ──▶ inbox
//!                │                                             │
//!                └──▶ shards, network                          └──▶ network (log), shards (apply)
//! ```
//!
//! A worker takes what waits, runs it after a drawn time, and what it has done is passed on after another: so there is
//! a moment between any two steps in which the process may die. Queues keep their order; nothing is kept between
//! them.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use raft::{Message, MessageKind, NodeId, RoleKind};
use replica::{
    Answer, ApplyDone, ApplyJob, ApplyWorker, Asker, Bootstrap, Completion, FlushDone, FlushJob,
    FlushReport, FlushWorker, Incoming, Input, LeaseTime, LogDone, LogJob, LogWorker, Notice,
    Opened, OutgoingSnapshot, Output, Proposals, ReadDone, ReadJob, ReadWorker, Receptions,
    Replica, Traces, View,
};
use state_machine::Reply;
use vfs::memory::{Failure, Fate as DiskFate, Memory, Operation, OperationKind, Unsynced};
use vfs::{OpenMode, Vfs};

use crate::checker::{CLUSTER, Found, LogRun, Truth};
use crate::disk::Disk;
use crate::network::Fate;
use crate::random::Random;
use crate::scenario::{Fault, Mutant, Scenario};
use crate::script::Stall;
use crate::shard::{ShardEvent, ShardState};
use crate::world::{Event, Whose, World};

/// Bytes of a snapshot that travel in one piece.
const PIECE_BYTES: usize = 2_048;
/// So late applies who waits for the answers to its commit index.
const APPLY_LATE_US: u64 = 1_000_000;
/// Messages to a member that are kept to be heard again.
const HEARD_MAX: usize = 64;
/// So long stays who was removed: the others may need its word that the removal is committed.
const REMOVED_STAYS_US: u64 = 1_000_000;
/// How often shards look at their deadlines.
const SHARD_TICK_US: u64 = 50_000;

/// One of the four workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worker {
    /// Of the log.
    Log,
    /// Of the state.
    Apply,
    /// Of the store.
    Flush,
    /// A read thread.
    Read,
}

impl Worker {
    /// Its name in traces.
    pub fn name(self) -> &'static str {
        match self {
            Worker::Log => "run log",
            Worker::Apply => "run apply",
            Worker::Flush => "run flush",
            Worker::Read => "run read",
        }
    }
}

/// What waits for a worker, what it is doing, and what it has done and not passed on.
struct Desk<J, D> {
    waiting: Vec<J>,
    batch: Vec<J>,
    done: Option<D>,
    busy: bool,
}

impl<J, D> Default for Desk<J, D> {
    fn default() -> Desk<J, D> {
        Desk { waiting: Vec::new(), batch: Vec::new(), done: None, busy: false }
    }
}

impl<J, D> Desk<J, D> {
    /// Takes what waits, if the worker is free. True if there is something to run.
    fn begin(&mut self) -> bool {
        if self.busy || self.waiting.is_empty() {
            return false;
        }
        self.batch = mem::take(&mut self.waiting);
        self.busy = true;
        true
    }
}

/// A process.
pub struct Running {
    replica: Replica,
    log: LogWorker,
    apply: ApplyWorker,
    flush: FlushWorker,
    reads: ReadWorker,
    /// What everybody may look at.
    pub view: View,
    log_desk: Desk<LogJob, LogDone>,
    apply_desk: Desk<ApplyJob, ApplyDone>,
    // What the log worker has written and not synced.
    log_run: Option<LogRun>,
    flush_desk: Desk<FlushJob, FlushDone>,
    read_desk: Desk<ReadJob, ReadDone>,
    inbox: VecDeque<Input>,
    proposals: VecDeque<Proposals>,
    turn_due: bool,
    /// The shards.
    pub shards: Vec<ShardState>,
    /// When the clock ticks next.
    next_tick_us: u64,
    stopping: bool,
    receptions: Receptions,
    /// Term, commit and revision as last seen: they never go back.
    seen: (u64, u64, i64),
    /// What was committed when questions about leases came.
    lease_asks: BTreeMap<(Option<u8>, u64), u64>,
}

/// A member and its disk.
pub struct Member {
    /// The disk.
    memory: Memory,
    disk: Disk,
    /// Its process, if it lives.
    pub running: Option<Running>,
    /// Counted up with each start and each end.
    pub life: u64,
    /// The process does not run for a while.
    pub paused: bool,
    /// What happens to it meanwhile.
    pub kept: VecDeque<Event>,
    /// How many times slower its disk is now.
    pub slowness: u64,
    /// The disk stops at some operation, and the power goes then.
    doomed: bool,
    /// An operation of the disk will fail.
    failing: bool,
    /// The disk has no room, or hardly any.
    full: bool,
    /// What has spoilt its disk, and whether it was wiped at that.
    spoilt: Option<Fault>,
    /// It is out of service for good.
    gone: bool,
    /// Somebody has started it once, or will.
    pub begun: bool,
    latencies: Random,
    /// For the fate of what was not synced.
    cuts: Random,
    /// For what rots.
    rots: Random,
    /// Some of the messages that it was sent, to be heard again.
    pub heard: Vec<Message>,
}

impl Member {
    /// A member whose process has not started.
    pub fn new(scenario: &Scenario, root: &Random, m: usize) -> Member {
        let memory = Memory::with_sectors(root.child("disk", m as u64).next(), scenario.sector(m));
        Member {
            disk: Disk::new(memory.clone(), false),
            memory,
            running: None,
            life: 0,
            paused: false,
            kept: VecDeque::new(),
            slowness: 1,
            doomed: false,
            failing: false,
            full: false,
            spoilt: None,
            gone: false,
            begun: m < scenario.members,
            rots: root.child("rot", m as u64),
            latencies: root.child("latencies", m as u64),
            cuts: root.child("cuts", m as u64),
            heard: Vec::new(),
        }
    }

    /// Whether its process lives.
    pub fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Whether its disk is about to stop.
    pub fn is_doomed(&self) -> bool {
        self.doomed
    }

    /// What everybody may look at, if it lives.
    pub fn view(&self) -> Option<&View> {
        self.running.as_ref().map(|running| &running.view)
    }

    /// Its process, if it lives.
    pub fn running(&mut self) -> Option<&mut Running> {
        self.running.as_mut()
    }

    /// Whether it leads, as far as it knows.
    pub fn leads(&self) -> bool {
        self.view().is_some_and(|view| view.leads())
    }

    /// What is wrong with its disk: it fails, has no room, or both.
    pub fn disk_trouble(&self) -> (bool, bool) {
        (self.failing, self.full)
    }

    /// Whether its disk may fail it: whoever fails then is excused.
    pub fn is_excused(&self) -> bool {
        self.doomed || self.failing || self.full
    }

    /// Whether what it reads may be damaged: whoever says so is excused.
    pub fn is_rotten(&self) -> bool {
        self.spoilt.is_some()
    }

    /// What has spoilt its disk.
    pub fn spoilt(&self) -> Option<Fault> {
        self.spoilt
    }

    /// Whether it is out of service for good.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Something is wrong with what its disk holds: one bit changes, a sector that was written and synced is not there, or is
    /// somewhere else. In any file but behind the log's last sync mark, where rot cannot be told from a torn write
    /// (docs/format/wal.md).
    pub fn spoil(&mut self, fault: Fault) {
        let files = self.settled_files();
        let sector = self.memory.sector_bytes();
        // What was never written cannot be lost: it is tried a few times.
        for _ in 0..8 {
            let places = files.iter().filter(|(_, len)| fault == Fault::Rot || *len >= sector);
            let places: Vec<&(PathBuf, u64)> = places.collect();
            if places.is_empty() {
                return;
            }
            let (path, len) = *self.rots.pick(&places);
            let whole = |random: &mut Random, len: u64| random.below(len / sector) * sector;
            let is_spoilt = match fault {
                Fault::Rot => {
                    let (at, bit) = (self.rots.below(*len), self.rots.below(8));
                    self.memory.rot(path, at, 1 << bit);
                    true
                }
                Fault::LostWrites => {
                    let at = whole(&mut self.rots, *len);
                    self.memory.lose(path, at)
                }
                _ => {
                    let (other, room) = *self.rots.pick(&places);
                    let from = whole(&mut self.rots, *len);
                    let to = whole(&mut self.rots, *room);
                    (path, from) != (other, to) && self.memory.misdirect((path, from), (other, to))
                }
            };
            if is_spoilt {
                self.spoilt = Some(fault);
                return;
            }
        }
    }

    /// The files of the log and the store, and how much of each is vouched for by the log's last sync mark that is itself
    /// durable, or is not the log's: a mark is written behind the sync that it speaks of, and if the power takes it, what it
    /// vouched for is the log's last batch again.
    fn settled_files(&self) -> Vec<(PathBuf, u64)> {
        let [disk, durable] = [self.memory.fork(), self.memory.fork()];
        disk.set_capacity(None);
        durable.set_capacity(None);
        durable.power_cut_with(&mut |_| vfs::memory::Fate::Lost);
        let log = Path::new("/data/member/wal");
        let mut bytes: Vec<(PathBuf, u64)> = Vec::new();
        for dir in [log, Path::new("/data/member/store")] {
            for name in disk.list(dir).unwrap_or_default() {
                let path = dir.join(name);
                let file = disk.open(&path, OpenMode::Read);
                let len = file.and_then(|file| file.len()).expect("a file that was listed");
                bytes.push((path, len));
            }
        }
        let marks = wal::dump::dump(&durable, log);
        let mark = marks
            .into_iter()
            .flatten()
            .filter(|line| matches!(line.record, Ok(wal::dump::Record::Crc(_))));
        let mark = mark.last().map(|mark| (log.join(mark.file), mark.offset));
        for (path, len) in bytes.iter_mut().filter(|(path, _)| path.starts_with(log)) {
            *len = match &mark {
                Some((file, offset)) if path == file => *offset,
                Some((file, _)) if &*path < file => *len,
                _ => 0,
            };
        }
        bytes.retain(|(_, len)| *len > 0);
        bytes
    }

    /// Its disk is replaced by an empty one.
    pub fn wipe(&mut self) {
        let sector = self.memory.sector_bytes() as usize;
        self.memory = Memory::with_sectors(self.rots.next(), sector);
        self.spoilt = Some(Fault::WipedDisk);
    }

    /// Lets the changing operation of its disk so many from now fail, once.
    pub fn fail_disk(&mut self, operations: u64) {
        const EIO: i32 = 5;
        let at = self.memory.operations() + operations;
        let is_it = move |operation: &Operation| {
            use OperationKind::{Exists, List, Lock, Open, Read};
            let changes = !matches!(operation.kind, Open | Lock | List | Exists | Read);
            changes && operation.number >= at
        };
        self.memory.fail(is_it, 1, Failure::Errno(EIO));
        self.failing = true;
    }

    /// Leaves its disk so many bytes.
    pub fn fill_disk(&mut self, room: u64) {
        self.memory.set_capacity(Some(self.memory.used() + room));
        self.full = true;
    }

    /// Its disk is as fast, and whole, and has as much room, as ever.
    pub fn mend_disk(&mut self) {
        self.slowness = 1;
        self.failing = false;
        self.full = false;
        self.memory.heal();
        self.memory.set_capacity(None);
    }

    /// Whether a worker is busy while the disk is slow.
    pub fn feels_slow_disk(&self) -> bool {
        self.slowness > 1 && self.running.as_ref().is_some_and(|running| running.log_desk.busy)
    }

    /// Lets the disk stop at the operation so many from now.
    pub fn doom(&mut self, operations: u64) {
        self.memory.stop_at(Some(self.memory.operations() + operations));
        self.doomed = true;
    }

    fn latency(&mut self, worker: Worker, sync_us: u64) -> u64 {
        let slow = self.slowness;
        let random = &mut self.latencies;
        match worker {
            Worker::Log => slow * (sync_us / 2 + random.exponential(sync_us)),
            Worker::Flush => slow * (sync_us / 2 + random.exponential(2 * sync_us)),
            Worker::Apply => 10 + slow * random.exponential(100),
            Worker::Read => 20 + slow * random.exponential(200),
        }
    }

    /// What would be found if the power went now, and of what was not synced this were lost.
    pub fn would_recover(
        &self,
        loss: Loss,
        scenario: &Scenario,
        truth: &Truth,
        m: usize,
        now: u64,
    ) -> Result<(), String> {
        let memory = self.memory.fork();
        memory.set_capacity(None);
        loss.befall(&memory);
        let config = scenario.config_of(m, u64::MAX, now);
        let found = match replica::open(Arc::new(memory.fork()), config, Bootstrap::Restart) {
            Ok(opened) => found(&memory, &opened)?,
            // It has not written its first record yet.
            Err(_) if truth.mirror(m).durable_last() == 0 => return Ok(()),
            Err(error) => {
                return Err(format!(
                    "if the power went now, member {} would not start: {error}",
                    m + 1
                ));
            }
        };
        truth.check_found(m, &found).map_err(|broken| format!("if the power went now: {broken}"))
    }
}

/// What is lost of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Everything.
    Everything,
    /// The log's, and the rest is there: nothing may have been ahead of it.
    Log,
    /// All but the log's.
    AllButLog,
    /// What this seed says, as in a power cut.
    Some(u64),
}

impl Loss {
    fn befall(self, memory: &Memory) {
        let is_log = |unsynced: &Unsynced| match unsynced {
            Unsynced::Name(words) => words.contains("/wal"),
            Unsynced::Length { path, .. } | Unsynced::Sector { path, .. } => {
                path.starts_with("/data/member/wal")
            }
        };
        let lose = |is_lost: &dyn Fn(&Unsynced) -> bool| {
            memory.power_cut_with(&mut |unsynced| match is_lost(unsynced) {
                true => DiskFate::Lost,
                false => DiskFate::Kept,
            });
        };
        match self {
            Loss::Everything => lose(&|_| true),
            Loss::Log => lose(&is_log),
            Loss::AllButLog => lose(&|unsynced| !is_log(unsynced)),
            Loss::Some(seed) => memory.power_cut(seed),
        }
    }
}

/// What `opened` has found on `memory`, a copy of the disk as it was before.
fn found(memory: &Memory, opened: &Opened) -> Result<Found, String> {
    let status = opened.replica.status();
    let applied = opened.view.applied();
    let options = wal::Options { segment_bytes: 1 << 20 };
    let dir = Path::new("/data/member/wal");
    let entries = match wal::Wal::open(Arc::new(memory.clone()), dir, applied, options) {
        Ok((_, recovered)) => recovered.entries,
        // The snapshot whose import was finished at the start stands above what the log holds.
        Err(_) if status.last == applied => Vec::new(),
        Err(error) => return Err(format!("the log cannot be read a second time: {error}")),
    };
    let hash = match opened.view.state.hash_now() {
        Ok(Reply::HashKv { hash, compact_revision, .. }) => (hash, compact_revision),
        other => return Err(format!("the keyspace cannot be hashed: {other:?}")),
    };
    Ok(Found {
        applied: applied.0,
        revision: opened.view.state.revision(),
        hash,
        hard_state: raft::HardState { term: status.term, vote: status.vote, commit: status.commit },
        last: status.last.0,
        entries,
    })
}

/// A snapshot on its way from one member to another.
pub struct Transfer {
    from: (usize, u64),
    to: (usize, u64),
    outgoing: OutgoingSnapshot,
    incoming: Incoming,
    rest: BytesMut,
}

impl World {
    /// The member's process starts.
    pub fn start(&mut self, m: usize) {
        if self.members[m].is_up() || self.members[m].gone {
            return;
        }
        if self.members[m].spoilt == Some(Fault::WipedDisk) {
            return self.start_as_new(m);
        }
        let lies = self.scenario.mutant == Some(Mutant::SkipSync);
        let now = self.now;
        let member = &mut self.members[m];
        member.life += 1;
        member.disk = Disk::new(member.memory.clone(), lies);
        let life = member.life;
        let config = self.scenario.config_of(m, life, now);
        // The power may go while the member starts, also for the first time.
        if self.faults.is_enabled(Fault::PowerCut)
            && self.phase == crate::world::Phase::Storm
            && member.cuts.chance(0.15)
        {
            // A first start takes about twice as many steps as another.
            let operations = member.cuts.below(if life == 1 { 60 } else { 30 });
            member.doom(operations);
        }
        let before = member.memory.fork();
        before.set_capacity(None);
        let vfs: Arc<dyn Vfs> = Arc::new(member.disk.clone());
        let known = replica::identity(&*vfs, &config.data_dir, None);
        let had_log = matches!(known, Ok(Some(_)));
        let bootstrap = self.scenario.bootstrap_of(m);
        let opened = replica::open(vfs, config, bootstrap);
        let opened = match opened {
            Ok(opened) => opened,
            Err(_) if member.doomed => return self.power_goes(m),
            Err(_) if member.is_excused() => return self.disk_failed(m),
            Err(_) if member.is_rotten() => return self.damage_is_found(m),
            Err(error) => {
                return self.violate(format!("member {} does not start: {error}", m + 1));
            }
        };
        if member.doomed {
            member.memory.stop_at(None);
            member.doomed = false;
        }
        let looked_at = if had_log { before } else { member.memory.fork() };
        match found(&looked_at, &opened) {
            Ok(found) => {
                if self.members[m].is_rotten() {
                    self.truth.on_rot(m);
                }
                let kept = self.truth.on_restart(m, &found);
                self.expect(kept);
            }
            Err(broken) => return self.violate(format!("member {}: {broken}", m + 1)),
        }
        if life > 1 {
            self.figures.restarts += 1;
        }
        let Opened { replica, log, apply, flush, reads, view, .. } = opened;
        let start_ms = 1_700_000_000_000 + now / 1_000;
        let member = &mut self.members[m];
        member.running = Some(Running {
            replica,
            log,
            apply,
            flush,
            reads,
            shards: (0..self.scenario.shards)
                .map(|shard| ShardState::new(m as u64 + 1, replica::Shard(shard), start_ms))
                .collect(),
            seen: (view.term().0, view.committed().0, view.state.revision()),
            view,
            log_desk: Desk::default(),
            log_run: None,
            apply_desk: Desk::default(),
            flush_desk: Desk::default(),
            read_desk: Desk::default(),
            inbox: VecDeque::new(),
            proposals: VecDeque::new(),
            turn_due: false,
            next_tick_us: now + self.scenario.tick_us(m),
            receptions: Receptions::default(),
            lease_asks: BTreeMap::new(),
            stopping: false,
        });
        // What was recovered must itself be as durable as what is told of it from now on.
        let loss = Loss::Everything;
        self.figures.crash_states += 1;
        let kept = self.members[m].would_recover(loss, &self.scenario, &self.truth, m, now);
        self.expect(kept);
        let phase = self.members[m].latencies.below(self.scenario.tick_us(m));
        self.soon(m, phase, Event::Tick);
        self.soon(m, phase % SHARD_TICK_US, Event::ShardTick);
        self.remember(Some(m), "started", life, 0);
        self.wake(m);
    }

    /// Somebody starts a member whose disk was replaced as he always did. The server asks the others before it founds a
    /// cluster, and one that runs already refuses whoever was part of it; nobody is asked in vain here.
    fn start_as_new(&mut self, m: usize) {
        let knows = |other: &usize| {
            *other != m && self.members[*other].is_up() && self.network.is_whole(m, *other)
        };
        match (0..self.members.len()).find(knows) {
            Some(_) => self.damage_is_found(m),
            None => self.after(500_000, Whose::Member(m), Event::Start),
        }
    }

    /// Two members, both down, are started on each other's disks. Neither may take the other's for its own.
    pub fn swap_disks(&mut self, one: usize, other: usize) {
        for (m, of) in [(one, other), (other, one)] {
            let disk: Arc<dyn Vfs> = Arc::new(self.members[of].memory.clone());
            let config = self.scenario.config_of(m, self.members[m].life + 1, self.now);
            let owner = self.scenario.config_of(of, self.members[of].life + 1, self.now);
            // One that has never been started belongs to nobody.
            if !matches!(replica::identity(&*disk, &owner.data_dir, None), Ok(Some(_))) {
                continue;
            }
            match replica::open(disk, config, self.scenario.bootstrap_of(m)) {
                Ok(_) => self.violate(format!(
                    "member {} starts on the disk of member {}",
                    m + 1,
                    of + 1
                )),
                Err(_) => self.figures.fired[Fault::SwappedDisks as usize] += 1,
            }
        }
    }

    /// The process ends at once.
    pub fn kill(&mut self, m: usize, power: bool) {
        let member = &mut self.members[m];
        if !member.is_up() && !member.is_excused() {
            return;
        }
        // First the dead process's hand is taken off the disk, for what it still drops would reach for it.
        member.disk.die();
        let life = member.life;
        let member = &mut self.members[m];
        member.running = None;
        member.kept.clear();
        member.paused = false;
        member.doomed = false;
        member.failing = false;
        member.memory.heal();
        member.life += 1;
        if power {
            let seed = member.cuts.next();
            member.memory.power_cut(seed);
        } else {
            member.memory.crash();
        }
        member.memory.stop_at(None);
        let dead: Vec<u64> = self
            .transfers
            .iter()
            .filter(|(_, t)| t.from == (m, life) || t.to == (m, life))
            .map(|(id, _)| *id)
            .collect();
        for id in dead {
            self.end_transfer(id, None);
        }
        self.connections_end(m, life);
        self.remember(Some(m), if power { "power is gone" } else { "died" }, life, 0);
    }

    /// The power of a member that was doomed goes.
    pub fn power_goes(&mut self, m: usize) {
        if self.members[m].doomed {
            self.figures.fired[Fault::PowerCut as usize] += 1;
            self.kill(m, true);
            let delay = self.faults.down_time();
            self.after(delay, Whose::Member(m), Event::Start);
        }
    }

    /// The process ended because its disk failed it; now and then the machine ends with it.
    fn disk_failed(&mut self, m: usize) {
        let fault = match self.members[m].failing {
            true => Fault::FailingDisk,
            false => Fault::FullDisk,
        };
        self.figures.fired[fault as usize] += 1;
        let power = self.members[m].cuts.chance(0.3);
        self.kill(m, power);
        let delay = self.faults.down_time();
        self.after(delay, Whose::Member(m), Event::Start);
    }

    /// What it read was damaged, and it said so and ended, or refused to start.
    fn damage_is_found(&mut self, m: usize) {
        self.reads_rot(m);
        self.retire(m);
    }

    /// Its operator takes it out of service.
    pub fn retire(&mut self, m: usize) {
        self.kill(m, false);
        self.members[m].gone = true;
        self.remember(Some(m), "gone", 0, 0);
    }

    /// The process goes on.
    pub fn resume(&mut self, m: usize) {
        let member = &mut self.members[m];
        if !mem::take(&mut member.paused) {
            return;
        }
        let kept = mem::take(&mut member.kept);
        for (at, event) in kept.into_iter().enumerate() {
            self.soon(m, at as u64 + 1, event);
        }
    }

    /// The clock ticks: a turn is due, which sees for itself how late it is.
    pub fn tick(&mut self, m: usize) {
        let tick_us = self.scenario.tick_us(m);
        self.soon(m, tick_us, Event::Tick);
        self.wake(m);
    }

    /// The shards look at their deadlines.
    pub fn shard_tick(&mut self, m: usize) {
        self.soon(m, SHARD_TICK_US, Event::ShardTick);
        let Some(running) = self.members[m].running() else { return };
        for shard in 0..running.shards.len() as u8 {
            self.tell_shard(m, shard, ShardEvent::Tick);
        }
    }

    /// Puts something into the replica's inbox.
    pub fn input(&mut self, m: usize, input: Input) {
        if let Some(running) = self.members[m].running() {
            if let Input::Lease(ask) = &input {
                running.lease_asks.insert(name_of(ask.asker), running.view.committed().0);
            }
            running.inbox.push_back(input);
            self.wake(m);
        }
    }

    /// Puts a shard's proposals into their inbox.
    pub fn propose(&mut self, m: usize, proposals: Proposals) {
        if let Some(running) = self.members[m].running() {
            running.proposals.push_back(proposals);
            self.wake(m);
        }
    }

    fn wake(&mut self, m: usize) {
        if let Some(running) = self.members[m].running()
            && !mem::replace(&mut running.turn_due, true)
        {
            let delay = 2 + self.delays.exponential(20);
            self.soon(m, delay, Event::Turn);
        }
    }

    /// Puts something into a shard's mailbox.
    pub fn tell_shard(&mut self, m: usize, shard: u8, event: ShardEvent) {
        let Some(running) = self.members[m].running() else { return };
        let state = &mut running.shards[usize::from(shard)];
        state.mailbox.push_back(event);
        if !mem::replace(&mut state.turn_due, true) {
            let delay = 2 + self.delays.exponential(20);
            self.soon(m, delay, Event::ShardTurn(shard));
        }
    }

    /// One turn of the replica: all that is in its inbox, the clock if it is time, then what it has decided. After a
    /// pause the clock comes before any decision, as in the server: what is promised is promised from now on.
    pub fn turn(&mut self, m: usize) {
        let (now, tick_us) = (self.now, self.scenario.tick_us(m));
        let Some(running) = self.members[m].running() else { return };
        running.turn_due = false;
        let takes_proposals = running.replica.takes_proposals();
        for input in mem::take(&mut running.inbox) {
            running.replica.handle(input);
        }
        if takes_proposals {
            for proposals in mem::take(&mut running.proposals) {
                running.replica.handle(Input::Propose(proposals));
            }
        }
        if now >= running.next_tick_us {
            let elapsed = (now - running.next_tick_us) / tick_us + 1;
            running.next_tick_us += elapsed * tick_us;
            running.replica.handle(Input::Tick { elapsed: elapsed as u32 });
        }
        let output = running.replica.output();
        let view = &running.view;
        let now_seen = (view.term().0, view.committed().0, view.state.revision());
        let seen = mem::replace(&mut running.seen, now_seen);
        let leads = view.leads() && running.replica.status().role == RoleKind::Leader;
        if now_seen.0 < seen.0 || now_seen.1 < seen.1 || now_seen.2 < seen.2 {
            self.violate(format!(
                "member {}: term, commit and revision went from {seen:?} to {now_seen:?}",
                m + 1
            ));
        }
        if leads {
            let kept = self.truth.on_leader(m as u64 + 1, now_seen.0, self.now);
            self.expect(kept);
        }
        self.carry_out(m, output);
    }

    fn carry_out(&mut self, m: usize, output: Output) {
        let Output {
            mut messages,
            snapshots,
            mut log,
            apply,
            flush,
            reads,
            answers,
            peer_answers,
            notices,
            trace,
        } = output;
        self.tell_trace(m, trace);
        if self.scenario.mutant == Some(Mutant::AckBeforeSync) {
            for job in &mut log {
                if let LogJob::Append(append) = job {
                    messages.append(&mut append.after);
                }
            }
        }
        for job in &apply {
            let entries = match job {
                ApplyJob::Entries(entries) => &entries[..],
                ApplyJob::Membership { entry, .. } => std::slice::from_ref(entry),
                _ => &[],
            };
            for entry in entries {
                let known = self.truth.committed();
                let kept = self.truth.on_committed(m, entry, self.now);
                if let Some(recorder) = &mut self.recorder
                    && self.truth.committed() > known
                    && entry.kind == raft::EntryKind::Normal
                {
                    recorder.on_committed(&entry.data);
                }
                self.expect(kept);
                if let Some((change, accepted)) = self.truth.take_change() {
                    self.on_change(change, accepted);
                }
            }
        }
        let Some(running) = self.members[m].running() else { return };
        running.log_desk.waiting.extend(log);
        running.apply_desk.waiting.extend(apply);
        running.flush_desk.waiting.extend(flush);
        running.read_desk.waiting.extend(reads);
        for worker in [Worker::Log, Worker::Apply, Worker::Flush, Worker::Read] {
            self.begin(m, worker);
        }
        for message in messages {
            self.send(m, message);
        }
        for (shard, answers) in answers {
            for answer in &answers {
                match answer {
                    Answer::Refused { id, .. } => {
                        let kept = self.truth.on_refused(id.0);
                        self.expect(kept);
                    }
                    Answer::Lease(answer) => self.note_lease_answer(m, answer),
                    _ => {}
                }
            }
            self.tell_shard(m, shard.0, ShardEvent::Answers(answers));
        }
        for answer in peer_answers {
            self.note_lease_answer(m, &answer);
            if let Asker::Peer { token } = answer.asker {
                self.answer_forward(m, token, answer.result.ok());
            }
        }
        for snapshot in snapshots {
            self.begin_transfer(m, snapshot);
        }
        for notice in notices {
            self.on_notice(m, notice);
        }
    }

    fn note_lease_answer(&mut self, m: usize, answer: &replica::LeaseAnswer) {
        let asked =
            self.members[m].running().and_then(|r| r.lease_asks.remove(&name_of(answer.asker)));
        let is_kept = match answer.result {
            Ok(LeaseTime::KeptAlive { .. } | LeaseTime::Remaining { .. }) => Some(true),
            Ok(LeaseTime::Unknown) => Some(false),
            Err(_) => None,
        };
        if let (Some(asked), Some(is_kept)) = (asked, is_kept) {
            let kept = self.truth.check_lease_known(answer.lease, is_kept, asked);
            self.expect(kept);
        }
        if let (Some(asked), Ok(LeaseTime::Remaining { remaining, granted })) =
            (asked, answer.result)
        {
            let kept = self.truth.check_time_to_live(answer.lease, (remaining, granted), asked);
            self.expect(kept);
            self.compare_lease_keys(m, answer.lease);
        }
        if let Ok(LeaseTime::KeptAlive { .. }) = answer.result {
            let term = self.members[m].view().map_or(0, |view| view.term().0);
            let kept = self.truth.on_kept_alive(answer.lease, term, self.now);
            self.expect(kept);
        }
    }

    fn on_notice(&mut self, m: usize, notice: Notice) {
        match notice {
            Notice::Leader { leader, term } => {
                self.remember(Some(m), "leader is", leader, term.0);
                if leader != raft::NONE {
                    let kept = self.truth.on_leader(leader, term.0, self.now);
                    self.expect(kept);
                }
                if leader == m as u64 + 1 {
                    self.figures.elections += 1;
                    self.greet_leader(m);
                }
            }
            Notice::SnapshotInstalled { index, .. } => {
                self.figures.snapshots += 1;
                self.remember(Some(m), "installed", index.0, 0);
            }
            Notice::LogReleased { index } => {
                self.figures.releases += 1;
                self.remember(Some(m), "log released", index.0, 0);
            }
            Notice::Stopped => {
                self.kill(m, false);
                let delay = self.faults.down_time();
                self.after(delay, Whose::Member(m), Event::Start);
            }
            Notice::Fatal(failure) => self.failed(m, &failure),
            Notice::Removed if self.truth.roster().removed.contains(&(m as u64 + 1)) => {
                self.remember(Some(m), "was removed", 0, 0);
                self.soon(m, REMOVED_STAYS_US, Event::Leaves);
            }
            Notice::Removed => self.violate(format!("member {} was removed by nobody", m + 1)),
            Notice::Space(_) if self.faults.is_enabled(Fault::FullDisk) => {
                let felt = self.members[m].full;
                self.figures.fired[Fault::FullDisk as usize] += u64::from(felt);
            }
            Notice::Space(_) => self.violate(format!("member {} has a disk without end", m + 1)),
            Notice::Forgotten { acknowledged, last } => self.violate(format!(
                "member {} acknowledged {acknowledged}, and its log ends with {last}",
                m + 1
            )),
            Notice::Damage(_) if self.reads_rot(m) => {
                self.remember(Some(m), "found damage", 0, 0);
            }
            // Looked for in the moment at which the disk stopped, or failed.
            Notice::Damage(_) if self.members[m].is_excused() => {}
            Notice::Damage(what) => self.violate(format!("member {}: {what}", m + 1)),
            Notice::Ready | Notice::Membership(_) => {}
        }
    }

    /// Somebody has just been elected, and has committed nothing yet: the moment to ask it for a read, or to cut it off with
    /// the entry that it has just begun its term with.
    fn greet_leader(&mut self, m: usize) {
        if self.is_stormy() && self.script.is_none() {
            self.ask_for_a_read(m);
            if self.faults.is_enabled(Fault::CutBoth) && self.delays.below(3) == 0 {
                self.cut_off(m);
            }
        }
    }

    fn failed(&mut self, m: usize, failure: &replica::Failure) {
        if self.members[m].doomed {
            self.power_goes(m);
        } else if self.members[m].is_excused() {
            self.disk_failed(m);
        } else if self.members[m].is_rotten() {
            self.damage_is_found(m);
        } else {
            self.violate(format!("member {} failed, and nothing explains it: {failure}", m + 1));
        }
    }

    /// Asks a member to end in order; it is killed when it has, or when its patience is over.
    pub fn stop(&mut self, m: usize) {
        if let Some(running) = self.members[m].running()
            && !mem::replace(&mut running.stopping, true)
        {
            self.input(m, Input::Stop);
        }
    }

    fn begin(&mut self, m: usize, worker: Worker) {
        let sync_us = self.scenario.sync_us(m);
        let Some(running) = self.members[m].running() else { return };
        let begins = match worker {
            Worker::Log => running.log_desk.begin(),
            Worker::Apply => running.apply_desk.begin(),
            Worker::Flush => running.flush_desk.begin(),
            Worker::Read => running.read_desk.begin(),
        };
        if begins {
            let mut latency = self.members[m].latency(worker, sync_us);
            match worker {
                // Its time goes by between its two halves.
                Worker::Log if self.script.is_some() => latency /= 20,
                Worker::Apply if self.scenario.mutant == Some(Mutant::ApplyLate) => {
                    latency += APPLY_LATE_US;
                }
                _ => {}
            }
            self.soon_unless_stalled(m, latency, Stall::Worker(worker), Event::Run(worker));
        }
    }

    /// A worker runs its batch.
    pub fn run_worker(&mut self, m: usize, worker: Worker) {
        let Some(running) = self.members[m].running() else { return };
        let mut failure = None;
        let mut stored = None;
        let mut swapped = false;
        let trace;
        match worker {
            Worker::Log => {
                let jobs = mem::take(&mut running.log_desk.batch);
                let run = LogRun::of(&jobs);
                self.truth.on_log_begin(m, &run);
                running.log_run = Some(run);
                let trace = running.log.write(jobs);
                let owes = running.log.owes_sync();
                return match self.script.is_some() {
                    true => self.sync_later(m, owes, trace),
                    false => self.sync_log(m),
                };
            }
            Worker::Apply => {
                let mut done = running.apply.run(mem::take(&mut running.apply_desk.batch));
                failure = failure_of(done.completion.as_ref());
                trace = mem::take(&mut done.trace);
                running.apply_desk.done = Some(done);
                let state = &running.view.state;
                self.truth.on_published(state.revision(), state.compact_revision());
            }
            Worker::Flush => {
                let mut done = running.flush.run(mem::take(&mut running.flush_desk.batch));
                trace = mem::take(&mut done.trace);
                if let Some(Completion::Flush(reports)) = &done.completion {
                    let is_swap = |report: &FlushReport| {
                        matches!(report, FlushReport::Reclaimed(store::Reclaimed::Swapped { .. }))
                    };
                    swapped = reports.iter().any(is_swap);
                    stored = reports.iter().rev().find_map(|report| match report {
                        FlushReport::Synced { index, .. } => Some(index.0),
                        _ => None,
                    });
                }
                failure = failure.or_else(|| failure_of(done.completion.as_ref()));
                running.flush_desk.done = Some(done);
            }
            Worker::Read => {
                trace = Traces::new();
                let done = running.reads.run(mem::take(&mut running.read_desk.batch));
                failure = failure.or_else(|| failure_of(done.completion.as_ref()));
                running.read_desk.done = Some(done);
            }
        }
        self.tell_trace(m, trace);
        if let Some(failure) = failure {
            return self.failed(m, &failure);
        }
        if let Some(index) = stored {
            self.truth.on_stored(m, index);
        }
        // What was dropped from the disk is missed at the next start, if at all.
        if swapped {
            self.look_at_start(m, Loss::Everything);
        }
        let delay = 1 + self.delays.exponential(15);
        self.soon(m, delay, Event::Done(worker));
    }

    /// What the member would find if the power went now.
    pub fn look_at_start(&mut self, m: usize, loss: Loss) {
        let member = &self.members[m];
        let is_sound = member.is_up() && !member.is_doomed() && !member.is_rotten();
        if is_sound && self.script.is_none() {
            let now = self.now;
            self.figures.crash_states += 1;
            let kept = self.members[m].would_recover(loss, &self.scenario, &self.truth, m, now);
            self.expect(kept);
        }
    }

    /// The second half of what the log worker does.
    pub fn sync_log(&mut self, m: usize) {
        let Some(running) = self.members[m].running() else { return };
        let run = running.log_run.take().expect("a batch of the log was begun");
        let mut done = running.log.sync();
        let trace = mem::take(&mut done.trace);
        let failure = failure_of(done.completion.as_ref());
        running.log_desk.done = Some(done);
        self.tell_trace(m, trace);
        if let Some(failure) = failure {
            return self.failed(m, &failure);
        }
        let kept = self.truth.on_log(m, &run);
        self.expect(kept);
        // A received snapshot is relied on from the moment that its record is durable.
        if run.has_snapshot() {
            self.look_at_start(m, Loss::Everything);
        }
        let delay = 1 + self.delays.exponential(15);
        self.soon(m, delay, Event::Done(Worker::Log));
    }

    /// Under a script the sync is a step of its own, which takes the time of a sync if there is anything to sync.
    fn sync_later(&mut self, m: usize, owes_sync: bool, trace: Traces) {
        self.tell_trace(m, trace);
        let sync_us = self.scenario.sync_us(m);
        let delay = match owes_sync {
            true => self.members[m].latency(Worker::Log, sync_us),
            false => 1,
        };
        self.soon_unless_stalled(m, delay, Stall::Sync, Event::Sync);
    }

    /// What a worker has done is passed on.
    pub fn worker_done(&mut self, m: usize, worker: Worker) {
        let Some(running) = self.members[m].running() else { return };
        let completion;
        let (mut messages, mut shards) = (Vec::new(), Vec::new());
        match worker {
            Worker::Log => {
                running.log_desk.busy = false;
                let done = running.log_desk.done.take().expect("the log worker has run");
                completion = done.completion;
                messages = done.messages;
            }
            Worker::Apply => {
                running.apply_desk.busy = false;
                let done = running.apply_desk.done.take().expect("the apply worker has run");
                completion = done.completion;
                shards = done.shards;
            }
            Worker::Flush => {
                running.flush_desk.busy = false;
                completion = running.flush_desk.done.take().and_then(|done| done.completion);
            }
            Worker::Read => {
                running.read_desk.busy = false;
                completion = running.read_desk.done.take().and_then(|done| done.completion);
            }
        }
        for message in messages {
            self.send(m, message);
        }
        if let Some(completion) = completion {
            self.input(m, Input::Done(completion));
        }
        for to_shard in shards {
            self.tell_shard(m, to_shard.shard.0, ShardEvent::Applied(Box::new(to_shard)));
        }
        self.begin(m, worker);
    }

    /// A message leaves a member.
    pub fn send(&mut self, m: usize, message: Message) {
        let Some(mut message) = self.at_the_door(m, message) else { return };
        if self.scenario.mutant == Some(Mutant::VoteTwice)
            && matches!(message.kind, MessageKind::VoteResp | MessageKind::PreVoteResp)
            && message.reject
        {
            message.reject = false;
        }
        let kept = self.truth.on_message(m, &message, self.now);
        self.expect(kept);
        let to = message.to as usize - 1;
        if self.delays.below(16) == 0 {
            let mut bytes = BytesMut::new();
            wal::codec::encode_message(&message, &mut bytes);
            match wal::codec::decode_message(&bytes.freeze()) {
                Ok(decoded) if decoded == message => message = decoded,
                other => {
                    self.violate(format!("{message:?} is read back from its bytes as {other:?}"));
                }
            }
        }
        if self.scenario.mutant == Some(Mutant::AckBeforeQuorum)
            && message.kind == MessageKind::App
            && let Some(last) = message.entries.last()
        {
            let forged = Message {
                kind: MessageKind::AppResp,
                to: message.from,
                from: message.to,
                term: message.term,
                index: last.index,
                ..Message::default()
            };
            self.soon(m, 50, Event::Arrive(Box::new(forged)));
        }
        self.figures.messages += 1;
        let fate = self.network.send(m, to, self.now);
        self.trace_sent(m, &message, fate);
        match fate {
            Fate::Cut => self.unreachable(m, message.to),
            Fate::Lost => self.figures.fired[Fault::Loss as usize] += 1,
            Fate::Arrives { at, again, aside, waits } => {
                if !self.members[to].is_up() {
                    return self.unreachable(m, message.to);
                }
                self.figures.fired[Fault::Reordering as usize] += u64::from(aside);
                self.figures.fired[Fault::Swizzle as usize] += u64::from(waits);
                self.record(to, &message);
                let whose = Whose::Life(to, self.members[to].life);
                // The transport never sends a proposal twice: a stream either delivers it or breaks.
                if let Some(again) = again.filter(|_| message.kind != MessageKind::Prop) {
                    self.figures.fired[Fault::Doubling as usize] += 1;
                    self.at(again, whose, Event::Arrive(Box::new(message.clone())));
                }
                self.at(at, whose, Event::Arrive(Box::new(message)));
            }
        }
    }

    /// A message comes to a member. As in the server: of whom it knows that it left, it hears nothing any more.
    pub fn arrive(&mut self, m: usize, message: Message) {
        if !self.refuses(m, message.from) {
            self.input(m, Input::Messages(vec![message]));
        }
    }

    /// Whether a member knows that another was removed from the cluster.
    fn refuses(&self, m: usize, from: NodeId) -> bool {
        let view = self.members[m].view();
        view.is_some_and(|view| view.state.cluster().removed.contains(&from))
    }

    /// Keeps a few of the messages to a member, old ones and new ones, for [`World::replay`].
    fn record(&mut self, to: usize, message: &Message) {
        let doubles = self.faults.is_enabled(Fault::Doubling) && self.script.is_none();
        if !doubles || message.kind == MessageKind::Prop || self.delays.below(8) > 0 {
            return;
        }
        if self.members[to].heard.len() < HEARD_MAX {
            self.members[to].heard.push(message.clone());
        } else {
            let place = self.delays.below(HEARD_MAX as u64) as usize;
            self.members[to].heard[place] = message.clone();
        }
    }

    /// A member hears something again that it was told long ago.
    pub fn replay(&mut self, m: usize) {
        if !self.members[m].heard.is_empty() {
            let place = self.delays.below(self.members[m].heard.len() as u64) as usize;
            let again = self.members[m].heard[place].clone();
            self.figures.fired[Fault::Doubling as usize] += 1;
            self.soon(m, 1, Event::Arrive(Box::new(again)));
        }
    }

    /// The transport has noticed, sooner or later or never.
    fn unreachable(&mut self, m: usize, id: NodeId) {
        if self.delays.below(3) > 0 {
            let delay = self.delays.exponential(20_000);
            self.soon(m, delay, Event::Unreachable(id));
        }
    }

    fn begin_transfer(&mut self, m: usize, outgoing: OutgoingSnapshot) {
        let to = outgoing.to as usize - 1;
        let kept = self.truth.on_message(m, &outgoing.message, self.now);
        self.expect(kept);
        let reachable = self.network.is_uncut(m, to)
            && self.members[to].is_up()
            && !self.refuses(to, m as u64 + 1);
        let member = &self.members[to];
        let config = self.scenario.config_of(to, member.life, self.now);
        let vfs: Arc<dyn Vfs> = Arc::new(member.disk.clone());
        let incoming = match &member.running {
            Some(running) if reachable && !member.paused => {
                running.receptions.begin(vfs, &config, &outgoing.message).ok()
            }
            _ => None,
        };
        let Some(incoming) = incoming else {
            let (to, ok) = (outgoing.to, false);
            let life = self.members[m].life;
            return self.after_input(m, life, Input::SnapshotSent { to, ok });
        };
        let (from, to) = ((m, self.members[m].life), (to, self.members[to].life));
        let transfer = Transfer { from, to, outgoing, incoming, rest: BytesMut::new() };
        let id =
            self.transfers.last_key_value().map_or(1, |(id, _)| id + 1).max(self.figures.sent + 1);
        self.figures.sent = id;
        self.transfers.insert(id, transfer);
        self.after(self.scenario.latency_us.0, Whose::World, Event::Piece(id));
    }

    fn after_input(&mut self, m: usize, life: u64, input: Input) {
        if self.members[m].life == life {
            self.input(m, input);
        }
    }

    /// The next piece of a snapshot goes over.
    pub fn piece(&mut self, id: u64) {
        let delay = self.scenario.latency_us.0 / 2 + self.delays.exponential(1_000);
        let storms = self.phase == crate::world::Phase::Storm && self.script.is_none();
        let breaks = storms && self.delays.below(200) == 0;
        let Some(transfer) = self.transfers.get_mut(&id) else { return };
        let (from, to) = (transfer.from.0, transfer.to.0);
        let is_stuck = !self.network.is_clear(from, to);
        if is_stuck || self.members[from].paused || self.members[to].paused {
            return self.after(50_000, Whose::World, Event::Piece(id));
        }
        if breaks || !self.network.is_uncut(from, to) {
            return self.end_transfer(id, Some(false));
        }
        while transfer.rest.is_empty() {
            match transfer.outgoing.stream.next_chunk() {
                Ok(Some(chunk)) => transfer.rest.extend_from_slice(&chunk),
                Ok(None) => return self.end_transfer(id, Some(true)),
                Err(error) => {
                    let excused = self.members[from].doomed || self.reads_rot(from);
                    self.end_transfer(id, Some(false));
                    if !excused {
                        self.violate(format!("a snapshot cannot be read: {error}"));
                    }
                    return;
                }
            }
        }
        let length = transfer.rest.len().min(PIECE_BYTES);
        let piece: Bytes = transfer.rest.split_to(length).freeze();
        match transfer.incoming.write(&piece) {
            Ok(()) => self.after(delay, Whose::World, Event::Piece(id)),
            Err(error) => {
                let excused = self.members[to].is_excused();
                self.end_transfer(id, Some(false));
                if !excused {
                    self.violate(format!("a snapshot cannot be written: {error}"));
                }
            }
        }
    }

    /// Whether a read of this member's disk may fail because of what has spoilt it; it is noted that it did.
    pub fn reads_rot(&mut self, m: usize) -> bool {
        let spoilt = self.members[m].spoilt;
        if let Some(fault) = spoilt {
            self.figures.fired[fault as usize] += 1;
        }
        spoilt.is_some()
    }

    /// A snapshot has been sent, or has not.
    fn end_transfer(&mut self, id: u64, whole: Option<bool>) {
        let Some(transfer) = self.transfers.remove(&id) else { return };
        let Transfer { from, to, outgoing, incoming, .. } = transfer;
        let mut ok = whole == Some(true);
        if ok {
            match incoming.finish() {
                Ok(_) if self.scenario.mutant == Some(Mutant::LoseSnapshots) => {}
                Ok(file) => {
                    let message = Box::new(outgoing.message);
                    self.after_input(to.0, to.1, Input::SnapshotReceived { message, file });
                }
                Err(error) => {
                    ok = false;
                    if !self.members[to.0].is_excused() {
                        self.violate(format!("a received snapshot is not whole: {error}"));
                    }
                }
            }
        }
        self.after_input(from.0, from.1, Input::SnapshotSent { to: outgoing.to, ok });
    }
}

/// Who has asked about a lease, in one word.
fn name_of(asker: Asker) -> (Option<u8>, u64) {
    match asker {
        Asker::Shard { shard, token } => (Some(shard.0), token),
        Asker::Peer { token } => (None, token),
    }
}

fn failure_of(completion: Option<&Completion>) -> Option<replica::Failure> {
    match completion {
        Some(Completion::Failed(failure)) => Some(failure.clone()),
        _ => None,
    }
}

impl Running {
    /// The cluster's id, the member's and its term, for headers.
    pub fn header(&self, member: NodeId, revision: i64) -> state_machine::Header {
        state_machine::Header {
            cluster_id: CLUSTER,
            member_id: member,
            revision,
            raft_term: self.view.term().0,
        }
    }
}
