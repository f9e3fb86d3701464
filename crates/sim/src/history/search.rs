//! Linearizability by search: is there an order of the operations in which every answer is right?
//!
//! This is the algorithm of Wing and Gong as Lowe made it fast: calls and returns stand in a list in the order of
//! time. An operation that is called before the first return of the list may be the next in the order; if its answer
//! is possible in the present state, it is taken out of the list, and the search begins again at the front. At a return
//! nothing more can come before it, so if its own operation is still there, the last choice was wrong and is taken back.
//! Which operations are out, with the state they led to, is remembered: a second way to the same place leads nowhere new.
//!
//! ```text
//!   list   call a · call b · return a · call c · return c · return b
//!            ▲        ▲        ▲
//!            └────────┴── may be next; whoever returns here must have been chosen by now
//! ```
//!
//! Two things make it fast enough for histories with failures. An operation that changes nothing, wherever it stands, is
//! taken first and for good as soon as its answer fits: from any order in which it comes later, it can be moved here. And
//! an operation of unknown outcome has no return and need not be chosen at all, so it is tried last, when nothing else
//! fits.
//!
//! The problem is NP-complete. The search therefore stops at a bound and says so; that is not a yes.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::random::Digest;

/// What the operations mean.
pub trait Model {
    /// What is held.
    type State: Clone + Eq + Hash;
    /// What is asked, with what was answered, if that is known.
    type Operation;

    /// What is held in the beginning.
    fn begin(&self) -> Self::State;

    /// The states that the operation can lead to if it was answered as it was; none if it cannot have been.
    fn step(&self, state: &Self::State, operation: &Self::Operation) -> Vec<Self::State>;

    /// Whether the operation, answered as it was, changes nothing in any state.
    fn is_read(&self, operation: &Self::Operation) -> bool;

    /// Groups of operations, by their places, such that no operation of one has to do with one of another. A history
    /// is linearizable if each of its groups is, and the cost of the search grows with the largest.
    fn partition(&self, operations: &[Timed<Self::Operation>]) -> Vec<Vec<usize>> {
        vec![(0..operations.len()).collect()]
    }
}

/// An operation and its time.
#[derive(Clone, Debug)]
pub struct Timed<O> {
    /// When it was called.
    pub call: u64,
    /// When it returned, not before its call; `None`: nobody knows what became of it.
    pub returned: Option<u64>,
    /// What it was.
    pub operation: O,
}

/// How long the search goes on, for each group.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Operations tried.
    pub steps: u64,
    /// Places remembered: each is a state, and a bit for each operation of the group.
    pub places: usize,
}

impl Default for Bounds {
    /// Some seconds, and some hundred megabytes.
    fn default() -> Bounds {
        Bounds { steps: 20_000_000, places: 1_000_000 }
    }
}

/// What the search says of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is such an order.
    Linearizable,
    /// There is none.
    Refused {
        /// The operation, by its place in the history, that no order came past.
        stuck: usize,
    },
    /// The bounds were too narrow to tell.
    Unknown,
}

/// Searches an order for each group of the history.
pub fn check<M: Model>(model: &M, history: &[Timed<M::Operation>], bounds: Bounds) -> Verdict {
    let mut verdict = Verdict::Linearizable;
    for group in model.partition(history) {
        let operations = group.iter().map(|&place| &history[place]).collect();
        match Search::new(model, operations, bounds).run() {
            Verdict::Linearizable => {}
            Verdict::Refused { stuck } => return Verdict::Refused { stuck: group[stuck] },
            // Another group may still be refused.
            Verdict::Unknown => verdict = Verdict::Unknown,
        }
    }
    verdict
}

/// The node that stands before the first of the list and behind its last: the list is a ring.
const FRONT: usize = 0;

/// A call or a return in the list. Nodes are numbered in the order of time, calls before returns of the same time: what
/// returns at the time of a call has not returned before it.
#[derive(Clone, Copy)]
struct Node {
    operation: usize,
    is_call: bool,
    before: usize,
    behind: usize,
}

/// What is tried next: first what changes nothing, then the other calls of the list, then what has no return.
#[derive(Clone, Copy)]
enum Choice {
    /// From this node of the list on, an operation that changes nothing.
    Read(usize),
    /// From this node of the list on, one that may change something.
    Change(usize),
    /// From this of the open operations on.
    Open(usize),
}

/// A choice that was made, and what is needed to take it back.
struct Chosen<S> {
    choice: Choice,
    operation: usize,
    /// The state before it.
    state: S,
    /// Other states that it could have led to, and that nobody has looked at yet.
    others: Vec<S>,
}

/// The search for an order of one group.
struct Search<'h, M: Model> {
    model: &'h M,
    operations: Vec<&'h Timed<M::Operation>>,
    nodes: Vec<Node>,
    /// The nodes of each operation's call and return, if it has returned.
    ends: Vec<Option<(usize, usize)>>,
    /// The operations without a return, each with the first node that does not come before its call, in that order.
    open: Vec<(usize, usize)>,
    /// How many operations are still in the list.
    listed: usize,
    chosen: Vec<Chosen<M::State>>,
    state: M::State,
    places: Places<M::State>,
    steps: u64,
    bounds: Bounds,
    /// The furthest return at which nothing fitted.
    stuck: usize,
}

impl<'h, M: Model> Search<'h, M> {
    fn new(model: &'h M, operations: Vec<&'h Timed<M::Operation>>, bounds: Bounds) -> Self {
        let mut times: Vec<(u64, bool, usize)> = Vec::new();
        for (operation, timed) in operations.iter().enumerate() {
            if let Some(returned) = timed.returned {
                assert!(timed.call <= returned, "called at {}, returned at {returned}", timed.call);
                times.push((timed.call, false, operation));
                times.push((returned, true, operation));
            }
        }
        times.sort_unstable();
        let front = Node {
            operation: usize::MAX,
            is_call: false,
            before: times.len(),
            behind: if times.is_empty() { FRONT } else { 1 },
        };
        let mut nodes = vec![front];
        let mut ends = vec![None; operations.len()];
        for &(_, is_return, operation) in &times {
            let node = nodes.len();
            let behind = if node == times.len() { FRONT } else { node + 1 };
            nodes.push(Node { operation, is_call: !is_return, before: node - 1, behind });
            let (_, returned) = ends[operation].get_or_insert((node, node));
            *returned = node;
        }
        let mut open: Vec<(usize, usize)> = Vec::new();
        for (operation, timed) in operations.iter().enumerate() {
            if timed.returned.is_none() && !model.is_read(&timed.operation) {
                let earlier = times.partition_point(|time| *time < (timed.call, true, 0));
                open.push((earlier + 1, operation));
            }
        }
        open.sort_unstable();
        Search {
            model,
            nodes,
            ends,
            open,
            listed: times.len() / 2,
            chosen: Vec::new(),
            state: model.begin(),
            places: Places::new(operations.len()),
            steps: 0,
            bounds,
            stuck: FRONT,
            operations,
        }
    }

    fn run(mut self) -> Verdict {
        let mut choice = self.first();
        while self.listed > 0 {
            if self.steps >= self.bounds.steps || self.places.count >= self.bounds.places {
                return Verdict::Unknown;
            }
            choice = match self.candidate(choice) {
                Some((choice, operation)) => match self.choose(choice, operation) {
                    Tried::Chosen => self.first(),
                    Tried::Failed => self.following(choice),
                    Tried::InVain => match self.take_back() {
                        Some(choice) => choice,
                        None => return self.refused(),
                    },
                },
                None => match self.take_back() {
                    Some(choice) => choice,
                    None => return self.refused(),
                },
            };
        }
        Verdict::Linearizable
    }

    fn refused(&self) -> Verdict {
        Verdict::Refused { stuck: self.nodes[self.stuck].operation }
    }

    fn first(&self) -> Choice {
        Choice::Read(self.nodes[FRONT].behind)
    }

    fn following(&self, choice: Choice) -> Choice {
        match choice {
            Choice::Read(node) => Choice::Read(self.nodes[node].behind),
            Choice::Change(node) => Choice::Change(self.nodes[node].behind),
            Choice::Open(place) => Choice::Open(place + 1),
        }
    }

    /// The first operation that may be chosen, from this choice on; `None` if all have been tried.
    fn candidate(&mut self, mut choice: Choice) -> Option<(Choice, usize)> {
        loop {
            match choice {
                Choice::Read(node) | Choice::Change(node) if self.nodes[node].is_call => {
                    let operation = self.nodes[node].operation;
                    let wants_read = matches!(choice, Choice::Read(_));
                    if self.model.is_read(&self.operations[operation].operation) == wants_read {
                        return Some((choice, operation));
                    }
                    choice = self.following(choice);
                }
                Choice::Read(_) => choice = Choice::Change(self.nodes[FRONT].behind),
                Choice::Change(_) => choice = Choice::Open(0),
                Choice::Open(place) => {
                    let limit = self.first_return();
                    match self.open.get(place) {
                        Some(&(node, operation)) if node <= limit => {
                            if !self.places.is_out(operation) {
                                return Some((choice, operation));
                            }
                            choice = self.following(choice);
                        }
                        _ => {
                            self.stuck = self.stuck.max(limit);
                            return None;
                        }
                    }
                }
            }
        }
    }

    /// The first return of the list, which is not empty.
    fn first_return(&self) -> usize {
        let mut node = self.nodes[FRONT].behind;
        while self.nodes[node].is_call {
            node = self.nodes[node].behind;
        }
        node
    }

    /// Takes the operation out of the list, if its answer is possible now and leads to a new place.
    fn choose(&mut self, choice: Choice, operation: usize) -> Tried {
        self.steps += 1;
        let mut states = self.model.step(&self.state, &self.operations[operation].operation);
        if matches!(choice, Choice::Open(_)) {
            // What would change nothing here need not be here.
            states.retain(|state| *state != self.state);
        }
        let fits = !states.is_empty();
        self.places.put_out(operation);
        states.retain(|state| self.places.is_new(state));
        let Some(state) = states.pop() else {
            self.places.put_back(operation);
            let in_vain = fits && matches!(choice, Choice::Read(_));
            return if in_vain { Tried::InVain } else { Tried::Failed };
        };
        if let Some((call, returned)) = self.ends[operation] {
            self.unlink(call);
            self.unlink(returned);
            self.listed -= 1;
        }
        let state = std::mem::replace(&mut self.state, state);
        self.chosen.push(Chosen { choice, operation, state, others: states });
        Tried::Chosen
    }

    /// Goes back to the last choice that could have been another, and says what to try there; `None` if there is none.
    fn take_back(&mut self) -> Option<Choice> {
        while let Some(mut last) = self.chosen.pop() {
            if let Some(other) = last.others.pop() {
                self.state = other;
                self.chosen.push(last);
                return Some(self.first());
            }
            self.state = last.state;
            self.places.put_back(last.operation);
            if let Some((call, returned)) = self.ends[last.operation] {
                self.relink(returned);
                self.relink(call);
                self.listed += 1;
            }
            if !matches!(last.choice, Choice::Read(_)) {
                return Some(self.following(last.choice));
            }
        }
        None
    }

    fn unlink(&mut self, node: usize) {
        let Node { before, behind, .. } = self.nodes[node];
        self.nodes[before].behind = behind;
        self.nodes[behind].before = before;
    }

    /// Puts a node back that was the last to be taken out.
    fn relink(&mut self, node: usize) {
        let Node { before, behind, .. } = self.nodes[node];
        self.nodes[before].behind = node;
        self.nodes[behind].before = node;
    }
}

/// What became of a choice.
enum Tried {
    /// It was made.
    Chosen,
    /// It could not be made, or leads nowhere new.
    Failed,
    /// It could be made and leads nowhere new; and as nothing is lost by making it, nothing else does.
    InVain,
}

/// Where the search has been: which operations were chosen, and what they led to.
struct Places<S> {
    /// A bit for each operation that is chosen now.
    out: Vec<u64>,
    /// The hashes of those operations, each added without carry: what is put out and back leaves no trace.
    hash: u64,
    known: BTreeMap<u64, Vec<Place<S>>>,
    count: usize,
}

/// Operations that were chosen, and what they led to.
type Place<S> = (Box<[u64]>, S);

impl<S: Clone + Eq + Hash> Places<S> {
    fn new(operations: usize) -> Places<S> {
        let out = vec![0; operations.div_ceil(64)];
        Places { out, hash: 0, known: BTreeMap::new(), count: 0 }
    }

    fn put_out(&mut self, operation: usize) {
        debug_assert!(!self.is_out(operation), "operation {operation} is chosen twice");
        self.flip(operation);
    }

    fn put_back(&mut self, operation: usize) {
        debug_assert!(self.is_out(operation), "operation {operation} was not chosen");
        self.flip(operation);
    }

    fn flip(&mut self, operation: usize) {
        self.out[operation / 64] ^= 1 << (operation % 64);
        self.hash ^= Digest::of(&operation.to_le_bytes());
    }

    fn is_out(&self, operation: usize) -> bool {
        self.out[operation / 64] >> (operation % 64) & 1 == 1
    }

    /// Whether nobody has been here with this state; from now on somebody has.
    fn is_new(&mut self, state: &S) -> bool {
        // Where outcomes are unknown, the same operations lead to very many states.
        let mut digest = DefaultHasher::new();
        state.hash(&mut digest);
        let known = self.known.entry(self.hash ^ digest.finish()).or_default();
        if known.iter().any(|(out, led_to)| **out == *self.out && led_to == state) {
            return false;
        }
        known.push((self.out.clone().into(), state.clone()));
        self.count += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::register::{Operation, Register};
    use crate::random::Random;

    fn timed(call: u64, returned: Option<u64>, operation: Operation) -> Timed<Operation> {
        Timed { call, returned, operation }
    }

    fn verdict(history: &[Timed<Operation>]) -> Verdict {
        check(&Register, history, Bounds::default())
    }

    /// Every order there is, one after the other: slow, and too simple to be wrong.
    fn has_order(history: &[Timed<Operation>], state: Option<i64>, done: u32) -> bool {
        let left = || (0..history.len()).filter(|i| done >> i & 1 == 0);
        if left().all(|i| history[i].returned.is_none()) {
            return true;
        }
        left().any(|i| {
            let is_next =
                left().all(|j| history[j].returned.is_none_or(|at| at >= history[i].call));
            is_next
                && Register
                    .step(&state, &history[i].operation)
                    .into_iter()
                    .any(|state| has_order(history, state, done | 1 << i))
        })
    }

    /// Up to seven operations of a few clients on three values, some of unknown outcome.
    fn drawn(random: &mut Random) -> Vec<Timed<Operation>> {
        (0..random.between(1, 7))
            .map(|_| {
                let call = random.below(10);
                let is_open = random.below(5) == 0;
                let value = random.below(3) as i64;
                let operation = match random.below(3) {
                    0 if !is_open => Operation::Read { saw: random.chance(0.8).then_some(value) },
                    0 | 1 => Operation::Write(value),
                    _ => Operation::Swap {
                        from: value,
                        to: random.below(3) as i64,
                        done: (!is_open).then(|| random.chance(0.5)),
                    },
                };
                let returned = (!is_open).then(|| call + random.below(6));
                timed(call, returned, operation)
            })
            .collect()
    }

    #[test]
    fn it_says_what_trying_every_order_says() {
        let mut random = Random::new(5);
        let (mut yes, mut no) = (0, 0);
        for number in 0..20_000 {
            let history = drawn(&mut random);
            let wanted = has_order(&history, None, 0);
            let found = verdict(&history);
            assert_ne!(found, Verdict::Unknown);
            assert_eq!(found == Verdict::Linearizable, wanted, "{number}: {history:?}");
            if wanted { yes += 1 } else { no += 1 }
        }
        assert!(yes > 4_000 && no > 4_000, "{yes} of one kind, {no} of the other");
    }

    /// Write 1, write 1 again while 2 is written, read 1: the second write is no read, though it finds its value there.
    #[test]
    fn a_write_of_what_is_there_is_no_read() {
        let history = [
            timed(0, Some(1), Operation::Write(1)),
            timed(2, Some(5), Operation::Write(1)),
            timed(2, Some(4), Operation::Write(2)),
            timed(6, Some(7), Operation::Read { saw: Some(1) }),
        ];
        assert_eq!(verdict(&history), Verdict::Linearizable);
    }

    #[test]
    fn whoever_cannot_be_explained_is_named() {
        let history = [
            timed(0, Some(1), Operation::Write(1)),
            timed(2, Some(3), Operation::Write(2)),
            timed(4, Some(5), Operation::Read { saw: Some(1) }),
            timed(6, Some(7), Operation::Read { saw: Some(2) }),
        ];
        assert_eq!(verdict(&history), Verdict::Refused { stuck: 2 });
    }

    #[test]
    fn a_search_that_was_stopped_is_no_answer() {
        let writes = (0..12).map(|value| timed(0, Some(100), Operation::Write(value)));
        let read = timed(101, Some(102), Operation::Read { saw: Some(77) });
        let history: Vec<Timed<Operation>> = writes.chain([read]).collect();
        let narrow = |steps, places| check(&Register, &history, Bounds { steps, places });
        assert_eq!(narrow(500, 1_000_000), Verdict::Unknown);
        assert_eq!(narrow(1_000_000, 500), Verdict::Unknown);
        assert_eq!(narrow(1_000_000, 1_000_000), Verdict::Refused { stuck: 12 });
    }
}
