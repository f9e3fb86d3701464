//! The network: a directed link between any two of members and clients.
//!
//! A link takes its least time and an exponentially distributed rest, and keeps the order of what goes over it, as a
//! stream does, unless it is told to reorder. It can lose, double, reorder, and be cut in its direction.

use crate::random::Random;

/// So many members a cluster ever has, counting those that left: the ends of clients are numbered behind them.
pub const MEMBERS_EVER: usize = 24;

/// One direction between two ends.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// How many cuts lie on it.
    pub cuts: u32,
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

    /// Whether messages pass both ways.
    pub fn is_whole(&self, one: usize, other: usize) -> bool {
        self.passes(one, other) && self.passes(other, one)
    }

    /// Whether messages pass this way.
    pub fn passes(&self, from: usize, to: usize) -> bool {
        self.links[from * self.ends + to].cuts == 0
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
        let aside = link.reordering > 0.0 && random.chance(link.reordering);
        let at = if aside {
            now + delay + random.exponential(20 * (self.least_us + self.rest_us))
        } else {
            link.last_us = (link.last_us + 1).max(now + delay);
            link.last_us
        };
        let again = (link.doubling > 0.0 && random.chance(link.doubling))
            .then(|| at + random.exponential(5 * (self.least_us + self.rest_us)));
        Fate::Arrives { at, again, aside }
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
