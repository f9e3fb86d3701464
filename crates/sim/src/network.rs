//! The network: a directed link between any two of members and clients.
//!
//! A link takes its least time and an exponentially distributed rest, and keeps the order of what goes over it, as a
//! stream does, unless it is told to reorder. It can lose, double, reorder, be cut in its direction, and be clogged: then what is sent over it
//! waits in front of it.

use crate::random::Random;

/// So many members a cluster ever has, counting those that left: the ends of clients are numbered behind them.
pub const MEMBERS_EVER: usize = 24;

/// One direction between two ends.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// How many cuts lie on it.
    pub cuts: u32,
    /// How many clogs: what goes over it waits.
    pub clogs: u32,
    /// When the last of those is over.
    clear_us: u64,
    /// The probability that a message is lost.
    pub loss: f64,
    /// The probability that a message comes twice.
    pub doubling: f64,
    /// The probability that a message waits aside while others pass.
    pub reordering: f64,
    last_us: u64,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The link is cut.
    Cut,
    /// It is lost.
    Lost,
    /// It arrives, at this time; a second time, if so; out of order, if so.
    Arrives {
        /// When, in microseconds.
        at: u64,
        /// When again.
        again: Option<u64>,
        /// Whether it was put aside.
        aside: bool,
        /// Whether it waits in front of a clogged link.
        waits: bool,
    },
}

/// All links. Ends are members first, also those that may yet join, and clients after them.
#[derive(Debug)]
pub struct Network {
    ends: usize,
    links: Vec<Link>,
    least_us: u64,
    rest_us: u64,
    random: Random,
}

impl Network {
    /// Whole links between all members that there may ever be, and so many clients.
    pub fn new(clients: usize, (least_us, rest_us): (u64, u64), random: Random) -> Network {
        let ends = MEMBERS_EVER + clients;
        Network { ends, links: vec![Link::default(); ends * ends], least_us, rest_us, random }
    }

    /// The link from one end to another.
    pub fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from * self.ends + to]
    }

    /// All links, each with its two ends.
    pub fn links(&self) -> impl Iterator<Item = (usize, usize, &Link)> {
        let ends = self.ends;
        self.links.iter().enumerate().map(move |(place, link)| (place / ends, place % ends, link))
    }

    /// Whether messages pass both ways, now.
    pub fn is_whole(&self, one: usize, other: usize) -> bool {
        self.is_uncut(one, other) && self.is_clear(one, other)
    }

    /// Whether what is sent arrives, sooner or later, both ways.
    pub fn is_uncut(&self, one: usize, other: usize) -> bool {
        self.both(one, other).iter().all(|link| link.cuts == 0)
    }

    /// Whether nothing waits in front of the link, both ways.
    pub fn is_clear(&self, one: usize, other: usize) -> bool {
        self.both(one, other).iter().all(|link| link.clogs == 0)
    }

    fn both(&self, one: usize, other: usize) -> [&Link; 2] {
        [&self.links[one * self.ends + other], &self.links[other * self.ends + one]]
    }

    /// What is sent this way waits, until then at least; [`Network::unclog`] follows at that time.
    pub fn clog(&mut self, from: usize, to: usize, until: u64) {
        let link = self.link(from, to);
        link.clogs += 1;
        link.clear_us = link.clear_us.max(until);
    }

    /// One clog is gone.
    pub fn unclog(&mut self, from: usize, to: usize) {
        self.link(from, to).clogs -= 1;
    }

    /// Sends something now.
    pub fn send(&mut self, from: usize, to: usize, now: u64) -> Fate {
        let random = &mut self.random;
        let delay = self.least_us + random.exponential(self.rest_us);
        let link = &mut self.links[from * self.ends + to];
        if link.cuts > 0 {
            return Fate::Cut;
        }
        if link.loss > 0.0 && random.chance(link.loss) {
            return Fate::Lost;
        }
        let waits = link.clogs > 0;
        let now = if waits { now.max(link.clear_us) } else { now };
        let aside = link.reordering > 0.0 && random.chance(link.reordering);
        let at = if aside {
            now + delay + random.exponential(20 * (self.least_us + self.rest_us))
        } else {
            link.last_us = (link.last_us + 1).max(now + delay);
            link.last_us
        };
        let again = (link.doubling > 0.0 && random.chance(link.doubling))
            .then(|| at + random.exponential(5 * (self.least_us + self.rest_us)));
        Fate::Arrives { at, again, aside, waits }
    }

    /// Nothing passes between the two, or everything again.
    pub fn cut(&mut self, one: usize, other: usize, cut: bool) {
        for (from, to) in [(one, other), (other, one)] {
            self.link(from, to).cuts = u32::from(cut);
        }
    }

    /// Everything is whole again.
    pub fn heal(&mut self) {
        for link in &mut self.links {
            *link = Link { last_us: link.last_us, ..Link::default() };
        }
    }
}
