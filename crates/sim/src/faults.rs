//! What goes wrong: kinds of misfortune, each on or off for a seed, each at times of its own.
//!
//! A misfortune fires at a drawn time, is over after another, and fires again. Kinds overlap as they like. What is
//! counted is what had an effect: a lost message, not the intention to lose some. Cuts, crashes and pauses count from their
//! beginning, for somebody's heartbeat meets each of them.

use std::collections::BTreeMap;

use crate::member::Member;
use crate::network::MEMBERS_EVER;
use crate::random::Random;
use crate::report::Figures;
use crate::scenario::{Fault, SPOILERS, Scenario};
use crate::shard::Forward;
use crate::world::{Event, Phase, Whose, World};

/// The misfortunes of a seed.
pub struct Faults {
    enabled: Vec<Fault>,
    gap_us: u64,
    /// Nothing is drawn from it: below it each misfortune has a stream of its own.
    root: Random,
    random: Random,
    /// Cut links, by the name of the cut.
    cuts: BTreeMap<u64, Vec<(usize, usize)>>,
    next_cut: u64,
    /// Links that are clogged, or will be, and until when, by the name of the clog.
    clogs: BTreeMap<u64, (Vec<(usize, usize)>, u64)>,
    ended: bool,
    forwards: BTreeMap<u64, Forward>,
    next_forward: u64,
}

impl Faults {
    /// Nothing has gone wrong yet.
    pub fn new(scenario: &Scenario, root: &Random) -> Faults {
        Faults {
            enabled: scenario.faults.clone(),
            gap_us: scenario.fault_gap_us,
            root: root.child("faults", 0),
            random: root.child("faults", 0),
            cuts: BTreeMap::new(),
            next_cut: 0,
            clogs: BTreeMap::new(),
            ended: false,
            forwards: BTreeMap::new(),
            next_forward: 0,
        }
    }

    /// When a kind fires for the first time: early enough to fire at all.
    pub fn first_gap(&mut self) -> u64 {
        let most = self.gap_us.min(5_000_000);
        self.random.between(500_000, most)
    }

    /// Whether a kind happens in this seed.
    pub fn is_enabled(&self, fault: Fault) -> bool {
        self.enabled.contains(&fault)
    }

    /// How long a process stays down.
    pub fn down_time(&mut self) -> u64 {
        20_000 + self.random.exponential(400_000)
    }

    /// Nothing goes wrong any more.
    pub fn end(&mut self) {
        self.ended = true;
        self.cuts.clear();
        self.clogs.clear();
    }

    /// A slow disk has fired when somebody had to wait for it.
    pub fn count_slow(&self, members: &[Member], figures: &mut Figures) {
        if self.is_enabled(Fault::SlowDisk) {
            let felt = members.iter().filter(|member| member.feels_slow_disk()).count();
            figures.slow_samples += felt as u64;
        }
    }

    /// Names a forwarded question.
    pub fn name_forward(&mut self, forward: Forward) -> u64 {
        self.next_forward += 1;
        self.forwards.insert(self.next_forward, forward);
        self.next_forward
    }

    /// The question of this name.
    pub fn take_forward(&mut self, token: u64) -> Option<Forward> {
        self.forwards.remove(&token)
    }
}

impl World {
    /// The next misfortune of a kind.
    pub fn misfortune(&mut self, kind: usize) {
        if self.faults.ended {
            return;
        }
        let fault = self.scenario.faults[kind];
        self.figures.misfortunes += 1;
        let number = self.figures.misfortunes;
        // A stream of its own: one that is left out shifts none behind it.
        self.faults.random = self.faults.root.child("misfortune", number);
        // A kind that has had no effect yet does not wait as long for its next attempt.
        let silent = self.figures.fired[fault as usize] == 0;
        let gap = if silent { 1_000_000 } else { self.faults.gap_us };
        let next = 200_000 + self.faults.random.exponential(gap);
        self.after(next, Whose::World, Event::Misfortune(kind));
        if self.scenario.skip_faults.contains(number) {
            return;
        }
        self.remember(None, fault.name(), 0, 0);
        let random = &mut self.faults.random;
        let lasts = 100_000 + random.exponential(1_000_000).min(3_000_000);
        match fault {
            Fault::Loss | Fault::Doubling | Fault::Reordering => {
                let strength = 0.02 + random.below(15) as f64 / 100.0;
                let everywhere = random.chance(0.5);
                let members = self.members.len();
                let mut links = Vec::new();
                for from in 0..members {
                    for to in 0..members {
                        if from != to && (everywhere || self.faults.random.chance(0.3)) {
                            links.push((from, to));
                        }
                    }
                }
                for (from, to) in links {
                    let link = self.network.link(from, to);
                    match fault {
                        Fault::Loss => link.loss = strength,
                        Fault::Doubling => link.doubling = strength,
                        _ => link.reordering = strength,
                    }
                }
                let name = u64::MAX - fault as u64;
                self.after(lasts, Whose::World, Event::Heal(name));
            }
            Fault::CutBoth | Fault::CutOneWay => {
                let links = self.links_to_cut(fault == Fault::CutBoth);
                self.cut(fault, links, lasts);
            }
            Fault::Crash => {
                for m in self.victims() {
                    if !self.members[m].is_up() || self.members[m].is_doomed() {
                        continue;
                    }
                    self.figures.fired[fault as usize] += 1;
                    if !self.members[m].paused && self.faults.random.chance(0.2) {
                        // In order: handing over, writing out.
                        self.stop(m);
                    } else {
                        self.kill(m, false);
                        let delay = self.faults.down_time();
                        self.after(delay, Whose::Member(m), Event::Start);
                    }
                }
            }
            Fault::PowerCut => {
                for m in self.victims() {
                    if !self.members[m].is_up() || self.members[m].is_doomed() {
                        continue;
                    }
                    // At some operation of its disk, or after a while if there are none; or at once.
                    let middle = self.faults.random.chance(0.7);
                    let operations = if middle { self.faults.random.below(40) } else { 0 };
                    self.members[m].doom(operations);
                    if middle && !self.members[m].paused {
                        self.soon(m, 300_000, Event::PowerGoes);
                    } else {
                        self.power_goes(m);
                    }
                }
            }
            Fault::Pause => {
                let m = self.victim();
                if self.members[m].is_up() && !self.members[m].paused {
                    self.members[m].paused = true;
                    self.figures.fired[fault as usize] += 1;
                    let lasts = 50_000 + self.faults.random.exponential(900_000);
                    self.after(lasts, Whose::Member(m), Event::Resume);
                }
            }
            Fault::FailingDisk => {
                let m = self.victim();
                if self.members[m].is_up() && !self.members[m].is_excused() {
                    let operations = self.faults.random.below(30);
                    self.members[m].fail_disk(operations);
                    self.after(lasts, Whose::Member(m), Event::DiskRecovers);
                }
            }
            Fault::FullDisk => {
                let m = self.victim();
                if self.members[m].is_up() && !self.members[m].is_excused() {
                    let room = self.faults.random.below(8 << 10);
                    self.members[m].fill_disk(room);
                    // Until something is to be written where nothing was before.
                    self.after(4 * lasts, Whose::Member(m), Event::DiskRecovers);
                }
            }
            Fault::Rot | Fault::LostWrites | Fault::MisdirectedWrites | Fault::WipedDisk => {
                let Some(m) = self.victim_to_spoil(fault) else { return };
                if self.members[m].is_gone() || self.members[m].is_excused() {
                    return;
                }
                if fault == Fault::WipedDisk {
                    self.kill(m, false);
                    self.members[m].wipe();
                } else {
                    self.members[m].spoil(fault);
                    // Who starts again reads it sooner than who goes on.
                    if !self.members[m].is_up() || self.faults.random.chance(0.5) {
                        return;
                    }
                    self.kill(m, false);
                }
                let delay = self.faults.down_time();
                self.after(delay, Whose::Member(m), Event::Start);
            }
            Fault::SwappedDisks => {
                let sound = |m: &usize| {
                    let member = &self.members[*m];
                    member.is_up() && !member.is_excused() && !member.is_rotten()
                };
                let mut sound: Vec<usize> = (0..self.members.len()).filter(sound).collect();
                if sound.len() < 2 {
                    return;
                }
                let pair: Vec<usize> = (0..2)
                    .map(|_| {
                        sound.swap_remove(self.faults.random.below(sound.len() as u64) as usize)
                    })
                    .collect();
                pair.iter().for_each(|m| self.kill(*m, false));
                self.swap_disks(pair[0], pair[1]);
                for m in pair {
                    let delay = self.faults.down_time();
                    self.after(delay, Whose::Member(m), Event::Start);
                }
            }
            Fault::Membership => self.operate(),
            // It lasts all the time; this is when it is seen.
            Fault::ClockDrift => {
                let drifts =
                    |m: &usize| self.scenario.tick_us(*m) != 1_000 * self.scenario.config.tick_ms;
                let drifting = (0..self.scenario.members).filter(drifts).count();
                self.figures.fired[fault as usize] += drifting as u64;
            }
            Fault::Swizzle => self.swizzle(),
            Fault::SlowDisk => {
                let m = self.victim();
                self.members[m].slowness = self.faults.random.between(5, 60);
                self.figures.fired[fault as usize] += 1;
                self.after(lasts, Whose::Member(m), Event::DiskRecovers);
            }
        }
    }

    /// Whose disk a misfortune of this kind spoils: always the same one's, once there is one; else somebody's without whom a
    /// majority of sound disks is left. A kind takes more of them if it is the only one of its kind in the seed.
    fn victim_to_spoil(&mut self, fault: Fault) -> Option<usize> {
        let by = |m: &usize| self.members[*m].spoilt() == Some(fault);
        let spoilt: Vec<usize> = (0..self.members.len()).filter(by).collect();
        let others = SPOILERS.iter().any(|of| *of != fault && self.faults.is_enabled(*of));
        let victim = self.victim();
        let is_new = !self.members[victim].is_rotten() && (spoilt.is_empty() || !others);
        match is_new && self.survives(None, Some(victim)) {
            true => Some(victim),
            false if spoilt.is_empty() => None,
            false => Some(*self.faults.random.pick(&spoilt)),
        }
    }

    fn cut(&mut self, fault: Fault, links: Vec<(usize, usize)>, lasts: u64) {
        for (from, to) in &links {
            self.network.link(*from, *to).cuts += 1;
        }
        self.figures.fired[fault as usize] += u64::from(!links.is_empty());
        self.faults.next_cut += 1;
        let name = self.faults.next_cut;
        self.faults.cuts.insert(name, links);
        self.after(lasts, Whose::World, Event::Heal(name));
    }

    /// For a while one member hears no other, and no other hears it.
    pub fn cut_off(&mut self, m: usize) {
        let others = (0..self.members.len()).filter(|other| *other != m);
        let links = others.flat_map(|other| [(m, other), (other, m)]).collect();
        let lasts = 500_000 + self.faults.random.exponential(1_000_000).min(3_000_000);
        self.cut(Fault::CutBoth, links, lasts);
    }

    /// One misfortune is over.
    pub fn heal(&mut self, name: u64) {
        let fault = u64::MAX - name;
        if fault < 3 {
            let members = self.members.len();
            for from in 0..members {
                for to in 0..members {
                    let link = self.network.link(from, to);
                    match fault {
                        0 => link.loss = 0.0,
                        1 => link.doubling = 0.0,
                        _ => link.reordering = 0.0,
                    }
                }
            }
        } else if let Some(links) = self.faults.cuts.remove(&name) {
            for (from, to) in links {
                self.network.link(from, to).cuts -= 1;
            }
        } else if let Some((links, _)) = self.faults.clogs.remove(&name) {
            links.into_iter().for_each(|(from, to)| self.network.unclog(from, to));
        }
    }

    /// Some links, or all of some members, are clogged one after the other, and cleared one after the other in another order.
    fn swizzle(&mut self) {
        let members = self.members.len();
        let others = |m: usize| (0..members).filter(move |other| *other != m);
        let random = &mut self.faults.random;
        let mut parts: Vec<Vec<(usize, usize)>> = if random.chance(0.5) {
            let of_one = |m: usize| others(m).flat_map(move |o| [(m, o), (o, m)]).collect();
            (0..members).map(of_one).collect()
        } else {
            (0..members).flat_map(|m| others(m).map(move |other| vec![(m, other)])).collect()
        };
        parts.retain(|_| random.chance(0.5));
        let begins = random.shuffled(parts.len());
        let ends = random.shuffled(parts.len());
        let mut times = vec![(0, 0); parts.len()];
        let mut at = self.now + 1;
        let spread = 500_000 / parts.len().max(1) as u64;
        for part in begins {
            at += random.exponential(spread);
            times[part].0 = at;
        }
        at += random.exponential(200_000);
        for part in ends {
            at += random.exponential(spread);
            times[part].1 = at;
        }
        for (links, (begin, end)) in parts.into_iter().zip(times) {
            self.faults.next_cut += 1;
            let name = self.faults.next_cut;
            self.faults.clogs.insert(name, (links, end));
            self.at(begin, Whose::World, Event::Clog(name));
            self.at(end, Whose::World, Event::Heal(name));
        }
    }

    /// The next links of a swizzle are clogged.
    pub fn clog(&mut self, name: u64) {
        if let Some((links, until)) = self.faults.clogs.get(&name) {
            links.iter().for_each(|(from, to)| self.network.clog(*from, *to, *until));
        }
    }

    /// The leader as often as not, for it is the one worth hitting.
    fn victim(&mut self) -> usize {
        let leader = (0..self.members.len()).find(|m| self.members[*m].leads());
        match leader {
            Some(leader) if self.faults.random.chance(0.45) => leader,
            _ => {
                // Who was removed, and runs all the same, now and then.
                let anybody = self.faults.random.chance(0.1);
                let is_one = |m: &usize| {
                    let belongs = self.truth.roster().contains(*m as u64 + 1);
                    self.members[*m].begun && !self.members[*m].is_gone() && (belongs || anybody)
                };
                let left: Vec<usize> = (0..self.members.len()).filter(is_one).collect();
                *self.faults.random.pick(&left)
            }
        }
    }

    /// One, now and then some, rarely all.
    fn victims(&mut self) -> Vec<usize> {
        let all = self.members.len();
        match self.faults.random.below(20) {
            0 => (0..all).collect(),
            1 | 2 => (0..all).filter(|_| self.faults.random.chance(0.5)).collect(),
            _ => vec![self.victim()],
        }
    }

    /// Which links a cut takes: those of one member, those between two halves, or those of a half to all but one
    /// bridge; the clients of the cut off side with them now and then.
    fn links_to_cut(&mut self, both: bool) -> Vec<(usize, usize)> {
        let members = self.members.len();
        let alone = self.victim();
        let random = &mut self.faults.random;
        let shape = random.below(4);
        let side: Vec<bool> = match shape {
            0 | 1 => (0..members).map(|m| m == alone).collect(),
            _ => (0..members).map(|_| random.chance(0.5)).collect(),
        };
        let bridge = (shape == 3).then(|| random.below(members as u64) as usize);
        let outwards = random.chance(0.5);
        let with_clients = random.chance(0.3);
        let mut links = Vec::new();
        for from in 0..members {
            for to in 0..members {
                if side[from] == side[to] || bridge == Some(from) || bridge == Some(to) {
                    continue;
                }
                if both || side[from] == outwards {
                    links.push((from, to));
                }
            }
        }
        if with_clients {
            for client in MEMBERS_EVER..MEMBERS_EVER + self.clients.len() {
                if self.faults.random.chance(0.5) {
                    for m in (0..members).filter(|m| side[*m]) {
                        links.push((client, m));
                        links.push((m, client));
                    }
                }
            }
        }
        links
    }

    /// Whether the storm is on.
    pub fn is_stormy(&self) -> bool {
        self.phase == Phase::Storm
    }
}
