//! The key index: a B+tree from key to that key's live revisions, with the number of living keys of each subtree.
//!
//! ```text
//!   Inner   separators   │ "f" │ "p" │        children[i + 1] holds the keys ≥ separators[i]
//!           children   [ · ] [ · ] [ · ]
//!           living       40    12    33      keys whose newest revision is a put
//!   Leaf    entries ascending by key, each: key, newest revision inline, older ones aside
//! ```
//!
//! The newest revision of a key stands in the entry itself, for most keys have no other. Older live revisions, and
//! the count of dead puts that a tombstone guards against, are boxed aside and exist only where they are needed.
//! An entry takes 80 bytes besides its key, and nine more in its leaf, which keeps the keys' heads for the search
//! (see [`crate::heads`]) and a bit for each key that lives.
//!
//! Nodes own their children, so that a change is one descent; counts are corrected on the way back up. Leaves
//! split in half, except at their right end, where a new leaf is begun: keys that come in order fill leaves whole.

use store::{Location, Revision};

use crate::KeyRange;
use crate::heads::Heads;
use crate::write::Meta;

const LEAF_MAX: usize = 64;
const LEAF_MIN: usize = 16;
const INNER_MAX: usize = 64;
const INNER_MIN: usize = 16;
/// Entries that a leaf grows by: an eighth of a leaf is the most that stands empty after a split.
const LEAF_STEP: usize = 8;

/// A bit for each entry of a leaf, also in the moment before it is split.
const _: () = assert!(LEAF_MAX < 128);
const _: () = assert!(LEAF_MIN * 2 < LEAF_MAX && INNER_MIN * 2 < INNER_MAX);
const _: () = assert!(size_of::<Version>() == 56 && size_of::<Entry>() == 80);

/// One revision of a key. 56 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub main: i64,
    /// The main revision at which this life began; 0 in a tombstone.
    pub create: i64,
    /// Changes in this life from 1; 0 in a tombstone, and only there.
    pub version: i64,
    pub lease: i64,
    pub location: Location,
    pub sub: u32,
    /// Where the value may stand in memory, see [`crate::values`].
    pub slot: u32,
}

impl Version {
    pub fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    pub fn revision(&self) -> Revision {
        Revision { main: self.main, sub: i64::from(self.sub) }
    }

    pub fn meta(&self) -> Meta {
        Meta {
            revision: self.revision(),
            create: self.create,
            version: self.version,
            lease: self.lease,
        }
    }
}

/// What a key has besides its newest revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Aside {
    /// Ascending, all below the newest.
    pub older: Vec<Version>,
    /// Puts that were pruned and are still on disk. While there are any, the newest tombstone at or below the mark
    /// stays.
    pub dead_puts: u32,
}

/// A key and its live revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub key: Box<[u8]>,
    pub newest: Version,
    pub aside: Option<Box<Aside>>,
}

impl Entry {
    pub fn new(key: &[u8], newest: Version) -> Entry {
        Entry { key: key.into(), newest, aside: None }
    }

    /// Whether it lives at the newest revision.
    pub fn is_living(&self) -> bool {
        !self.newest.is_tombstone()
    }

    pub fn older(&self) -> &[Version] {
        self.aside.as_ref().map_or(&[], |aside| &aside.older)
    }

    pub fn dead_puts(&self) -> u32 {
        self.aside.as_ref().map_or(0, |aside| aside.dead_puts)
    }

    /// All revisions, ascending.
    pub fn versions(&self) -> impl DoubleEndedIterator<Item = &Version> {
        self.older().iter().chain(std::iter::once(&self.newest))
    }

    /// The revisions above this one, ascending.
    pub fn versions_after(&self, revision: Revision) -> impl Iterator<Item = &Version> {
        let older = self.older();
        let start = older.partition_point(|version| version.revision() <= revision);
        let newest = (self.newest.revision() > revision).then_some(&self.newest);
        older[start..].iter().chain(newest)
    }

    /// The newest revision at or below `main`, be it a tombstone.
    pub fn at(&self, main: i64) -> Option<&Version> {
        if self.newest.main <= main {
            return Some(&self.newest);
        }
        let older = self.older();
        let end = older.partition_point(|v| v.main <= main);
        older[..end].last()
    }

    /// The newest revision at or below `main`, if the key lives there.
    pub fn living_at(&self, main: i64) -> Option<&Version> {
        self.at(main).filter(|v| !v.is_tombstone())
    }

    /// This very revision.
    pub fn exactly(&self, revision: Revision) -> Option<&Version> {
        if self.newest.revision() == revision {
            return Some(&self.newest);
        }
        let older = self.older();
        older.binary_search_by_key(&revision, Version::revision).ok().map(|at| &older[at])
    }

    /// As [`Entry::exactly`], to change it.
    pub fn exactly_mut(&mut self, revision: Revision) -> Option<&mut Version> {
        if self.newest.revision() == revision {
            return Some(&mut self.newest);
        }
        let older = &mut self.aside.as_mut()?.older;
        older.binary_search_by_key(&revision, Version::revision).ok().map(|at| &mut older[at])
    }

    /// A new newest revision; what was newest goes aside.
    pub fn push(&mut self, version: Version) {
        assert!(
            self.newest.revision() < version.revision(),
            "{:?} after {:?}",
            version.revision(),
            self.newest.revision()
        );
        let older = &mut self.aside.get_or_insert_default().older;
        if older.is_empty() {
            older.reserve_exact(1);
        }
        older.push(std::mem::replace(&mut self.newest, version));
    }

    /// Puts a revision where it belongs, in any order; one that is there already is replaced.
    pub fn insert(&mut self, version: Version) {
        if self.newest.revision() < version.revision() {
            self.push(version);
        } else if self.newest.revision() == version.revision() {
            self.newest = version;
        } else {
            let older = &mut self.aside.get_or_insert_default().older;
            match older.binary_search_by_key(&version.revision(), Version::revision) {
                Ok(place) => older[place] = version,
                Err(place) => older.insert(place, version),
            }
        }
    }
}

/// Whether an entry stays in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Keep,
    Remove,
}

#[derive(Debug)]
enum Node {
    Leaf(Leaf),
    Inner(Inner),
}

#[derive(Debug, Default)]
struct Leaf {
    heads: Heads,
    /// Bit i: entry i lives.
    living: u128,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Inner {
    /// Of the separators.
    heads: Heads,
    /// One less than children.
    separators: Vec<Box<[u8]>>,
    children: Vec<Node>,
    /// Living keys of each child.
    living: Vec<u64>,
}

/// The right half of a node that has become too large, and the separator before it.
struct Split {
    separator: Box<[u8]>,
    right: Node,
}

/// The tree.
#[derive(Debug)]
pub(crate) struct Tree {
    root: Node,
    living: u64,
}

impl Tree {
    pub fn new() -> Tree {
        Tree { root: Node::Leaf(Leaf::default()), living: 0 }
    }

    /// Changes the entry of `key`, or makes one if `change` gives its first revision. `change` sees what is there.
    pub fn upsert<R>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(Option<&mut Entry>) -> (Option<Version>, R),
    ) -> R {
        let (result, delta, split) = self.root.upsert(key, change);
        self.living = self.living.checked_add_signed(delta).expect("no more dead than lived");
        if let Some(Split { separator, right }) = split {
            let right_living = right.living();
            let left = std::mem::replace(&mut self.root, Node::Leaf(Leaf::default()));
            self.root = Node::Inner(Inner {
                heads: Heads::of([&*separator].into_iter()),
                separators: vec![separator],
                living: vec![self.living - right_living, right_living],
                children: vec![left, right],
            });
        }
        result
    }

    /// Changes the entry of `key`, if there is one, and removes it if `change` says so.
    pub fn change<R>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut Entry) -> (Fate, R),
    ) -> Option<R> {
        let (result, delta) = self.root.change(key, change)?;
        self.living = self.living.checked_add_signed(delta).expect("no more dead than lived");
        while let Node::Inner(inner) = &mut self.root
            && inner.children.len() == 1
        {
            self.root = inner.children.pop().expect("there is one");
        }
        Some(result)
    }

    pub fn get(&self, key: &[u8]) -> Option<&Entry> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Inner(inner) => node = &inner.children[inner.child_of(key)],
                Node::Leaf(leaf) => {
                    return leaf.position(key).ok().map(|place| &leaf.entries[place]);
                }
            }
        }
    }

    /// Calls `visit` with the entries of `range`, ascending, until it returns false.
    pub fn visit<'a>(&'a self, range: &KeyRange, visit: &mut dyn FnMut(&'a Entry) -> bool) {
        self.root.visit(range, visit);
    }

    /// Keys of `range` whose newest revision is a put.
    pub fn count(&self, range: &KeyRange) -> u64 {
        match range {
            KeyRange::One(key) => u64::from(self.get(key).is_some_and(Entry::is_living)),
            KeyRange::From(start) => self.living - self.living_below(start),
            KeyRange::Between(start, end) => {
                self.living_below(end).saturating_sub(self.living_below(start))
            }
        }
    }

    fn living_below(&self, key: &[u8]) -> u64 {
        let mut below = 0;
        let mut node = &self.root;
        loop {
            match node {
                Node::Inner(inner) => {
                    let child = inner.child_of(key);
                    below += inner.living[..child].iter().sum::<u64>();
                    node = &inner.children[child];
                }
                Node::Leaf(leaf) => {
                    let (Ok(end) | Err(end)) = leaf.position(key);
                    let before = leaf.living & ((1 << end) - 1);
                    return below + u64::from(before.count_ones());
                }
            }
        }
    }

    /// Everything that must hold of the tree; for tests.
    #[cfg(test)]
    fn check(&self) {
        assert_eq!(self.root.check(None, None), self.living);
    }
}

impl Leaf {
    fn of(entries: Vec<Entry>) -> Leaf {
        let mut leaf = Leaf { heads: Heads::default(), living: 0, entries };
        leaf.refresh();
        leaf
    }

    /// Makes heads and bits anew.
    fn refresh(&mut self) {
        self.heads = Heads::of(self.entries.iter().map(|entry| &*entry.key));
        self.living = 0;
        for (place, entry) in self.entries.iter().enumerate() {
            self.living |= u128::from(entry.is_living()) << place;
        }
    }

    fn position(&self, key: &[u8]) -> Result<usize, usize> {
        self.heads.search(key, |place| &self.entries[place].key)
    }

    fn insert(&mut self, place: usize, entry: Entry) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(LEAF_STEP);
        }
        let (below, above) = (self.living & ((1 << place) - 1), self.living >> place);
        self.living = below | u128::from(entry.is_living()) << place | above << (place + 1);
        let is_like_the_others = self.heads.insert(place, &entry.key);
        self.entries.insert(place, entry);
        if !is_like_the_others {
            self.refresh();
        }
    }

    fn remove(&mut self, place: usize) {
        let (below, above) = (self.living & ((1 << place) - 1), self.living >> (place + 1));
        self.living = below | above << place;
        self.heads.remove(place);
        self.entries.remove(place);
    }

    /// Lets `change` see an entry, and takes note of whether it lives now: by how much the count changed.
    fn change<R>(&mut self, place: usize, change: impl FnOnce(&mut Entry) -> R) -> (R, i64) {
        let entry = &mut self.entries[place];
        let before = i64::from(entry.is_living());
        let result = change(entry);
        let after = entry.is_living();
        self.living = self.living & !(1 << place) | u128::from(after) << place;
        (result, i64::from(after) - before)
    }

    /// Splits a leaf that has just grown at `place` beyond its limit.
    fn split(&mut self, place: usize) -> Option<Split> {
        if self.entries.len() <= LEAF_MAX {
            return None;
        }
        // Keys that come in order would leave half-empty leaves behind if they were cut in the middle.
        let cut = if place == LEAF_MAX { LEAF_MAX } else { LEAF_MAX / 2 };
        let right = Leaf::of(self.entries.split_off(cut));
        self.entries.shrink_to(cut + LEAF_STEP.min(LEAF_MAX - cut));
        self.refresh();
        let separator = separator(&self.entries[cut - 1].key, &right.entries[0].key);
        Some(Split { separator, right: Node::Leaf(right) })
    }
}

impl Node {
    fn upsert<R>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(Option<&mut Entry>) -> (Option<Version>, R),
    ) -> (R, i64, Option<Split>) {
        match self {
            Node::Leaf(leaf) => match leaf.position(key) {
                Ok(place) => {
                    let ((_, result), delta) = leaf.change(place, |entry| change(Some(entry)));
                    (result, delta, None)
                }
                Err(place) => {
                    let (version, result) = change(None);
                    let Some(version) = version else { return (result, 0, None) };
                    leaf.insert(place, Entry::new(key, version));
                    (result, i64::from(!version.is_tombstone()), leaf.split(place))
                }
            },
            Node::Inner(inner) => {
                let child = inner.child_of(key);
                let (result, delta, split) = inner.children[child].upsert(key, change);
                inner.add(child, delta);
                if let Some(Split { separator, right }) = split {
                    let right_living = right.living();
                    inner.living[child] -= right_living;
                    let is_like_the_others = inner.heads.insert(child, &separator);
                    inner.separators.insert(child, separator);
                    if !is_like_the_others {
                        inner.refresh();
                    }
                    inner.children.insert(child + 1, right);
                    inner.living.insert(child + 1, right_living);
                }
                (result, delta, inner.split())
            }
        }
    }

    fn change<R>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut Entry) -> (Fate, R),
    ) -> Option<(R, i64)> {
        match self {
            Node::Leaf(leaf) => {
                let place = leaf.position(key).ok()?;
                let ((fate, result), mut delta) = leaf.change(place, change);
                if fate == Fate::Remove {
                    delta -= i64::from(leaf.entries[place].is_living());
                    leaf.remove(place);
                }
                Some((result, delta))
            }
            Node::Inner(inner) => {
                let child = inner.child_of(key);
                let (result, delta) = inner.children[child].change(key, change)?;
                inner.add(child, delta);
                if inner.children[child].is_small() {
                    inner.mend(child);
                }
                Some((result, delta))
            }
        }
    }

    fn visit<'a>(&'a self, range: &KeyRange, visit: &mut dyn FnMut(&'a Entry) -> bool) -> bool {
        match self {
            Node::Leaf(leaf) => {
                let (Ok(start) | Err(start)) = leaf.position(range.start());
                let mut entries = leaf.entries[start..].iter();
                entries.all(|entry| !range.is_past(&entry.key) && visit(entry))
            }
            Node::Inner(inner) => {
                let first = inner.child_of(range.start());
                inner.children[first].visit(range, visit)
                    && (first + 1..inner.children.len()).all(|child| {
                        !range.is_past(&inner.separators[child - 1])
                            && inner.children[child].visit(range, visit)
                    })
            }
        }
    }

    fn living(&self) -> u64 {
        match self {
            Node::Leaf(leaf) => u64::from(leaf.living.count_ones()),
            Node::Inner(inner) => inner.living.iter().sum(),
        }
    }

    fn is_small(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.entries.len() < LEAF_MIN,
            Node::Inner(inner) => inner.children.len() < INNER_MIN,
        }
    }

    #[cfg(test)]
    fn check(&self, low: Option<&[u8]>, high: Option<&[u8]>) -> u64 {
        match self {
            Node::Leaf(leaf) => {
                let entries = &leaf.entries;
                assert!(entries.len() <= LEAF_MAX);
                assert!(entries.is_sorted_by(|a, b| a.key < b.key));
                for (place, entry) in entries.iter().enumerate() {
                    assert_eq!(leaf.position(&entry.key), Ok(place));
                    assert_eq!(leaf.living >> place & 1 == 1, entry.is_living());
                    assert!(low.is_none_or(|low| low <= &entry.key[..]));
                    assert!(high.is_none_or(|high| &entry.key[..] < high));
                }
                u64::from(leaf.living.count_ones())
            }
            Node::Inner(inner) => {
                assert!(inner.children.len() <= INNER_MAX && !inner.children.is_empty());
                assert_eq!(inner.separators.len() + 1, inner.children.len());
                for (place, child) in inner.children.iter().enumerate() {
                    let low = if place == 0 { low } else { Some(&*inner.separators[place - 1]) };
                    let high = inner.separators.get(place).map(|key| &**key).or(high);
                    assert_eq!(child.check(low, high), inner.living[place]);
                }
                inner.living.iter().sum()
            }
        }
    }
}

/// The shortest key that is above `left` and not above `right`.
fn separator(left: &[u8], right: &[u8]) -> Box<[u8]> {
    let common = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    right[..common + 1].into()
}

impl Inner {
    fn child_of(&self, key: &[u8]) -> usize {
        match self.heads.search(key, |place| &self.separators[place]) {
            Ok(place) => place + 1,
            Err(place) => place,
        }
    }

    fn refresh(&mut self) {
        self.heads = Heads::of(self.separators.iter().map(|separator| &**separator));
    }

    fn add(&mut self, child: usize, delta: i64) {
        self.living[child] =
            self.living[child].checked_add_signed(delta).expect("no more dead than lived");
    }

    fn split(&mut self) -> Option<Split> {
        if self.children.len() <= INNER_MAX {
            return None;
        }
        let cut = INNER_MAX / 2;
        let mut right = Inner {
            heads: Heads::default(),
            separators: self.separators.split_off(cut),
            children: self.children.split_off(cut),
            living: self.living.split_off(cut),
        };
        let separator = self.separators.pop().expect("a separator before each child but the first");
        right.refresh();
        self.refresh();
        Some(Split { separator, right: Node::Inner(right) })
    }

    /// `child` has become small: it is dropped if empty, else joined with a neighbour if they fit into one node.
    fn mend(&mut self, child: usize) {
        let is_empty = match &self.children[child] {
            Node::Leaf(leaf) => leaf.entries.is_empty(),
            Node::Inner(inner) => inner.children.is_empty(),
        };
        if is_empty {
            self.children.remove(child);
            self.living.remove(child);
            if !self.separators.is_empty() {
                self.separators.remove(child.saturating_sub(1));
                self.heads.remove(child.saturating_sub(1));
            }
            return;
        }
        for left in [child.checked_sub(1), Some(child)].into_iter().flatten() {
            if left + 1 < self.children.len() && self.join(left) {
                return;
            }
        }
    }

    /// Joins `left` and the child after it, if they fit into one node.
    fn join(&mut self, left: usize) -> bool {
        let [a, b] = &mut self.children[left..=left + 1] else { return false };
        match (a, b) {
            (Node::Leaf(a), Node::Leaf(b)) if a.entries.len() + b.entries.len() <= LEAF_MAX => {
                a.entries.reserve_exact(b.entries.len());
                a.entries.append(&mut b.entries);
                a.refresh();
                self.separators.remove(left);
            }
            (Node::Inner(a), Node::Inner(b))
                if a.children.len() + b.children.len() <= INNER_MAX =>
            {
                a.separators.push(self.separators.remove(left));
                a.separators.append(&mut b.separators);
                a.children.append(&mut b.children);
                a.living.append(&mut b.living);
                a.refresh();
            }
            _ => return false,
        }
        self.heads.remove(left);
        self.children.remove(left + 1);
        self.living[left] += self.living.remove(left + 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::values::NO_SLOT;

    fn version(main: i64, alive: bool) -> Version {
        Version {
            main,
            create: 1,
            version: i64::from(alive),
            lease: 0,
            location: Location::default(),
            sub: 0,
            slot: NO_SLOT,
        }
    }

    fn key(number: u16) -> Vec<u8> {
        format!("{number:b}").into_bytes()
    }

    #[test]
    fn keys_in_order_fill_leaves() {
        let mut tree = Tree::new();
        for number in 0..10_000u32 {
            tree.upsert(&number.to_be_bytes(), |_| (Some(version(1, true)), ()));
        }
        tree.check();
        let Node::Inner(root) = &tree.root else { panic!("one leaf") };
        assert!(root.children.len() < 10_000 / LEAF_MAX);
        assert_eq!(tree.count(&KeyRange::all()), 10_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn it_is_a_sorted_map_that_counts(
            steps in proptest::collection::vec((0u8..4, 0u16..1500), 1..4000)
        ) {
            let mut tree = Tree::new();
            let mut model: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
            for (main, (step, number)) in (1..).zip(steps) {
                let key = key(number);
                match step {
                    0 | 1 => {
                        let version = version(main, step == 0);
                        tree.upsert(&key, |entry| match entry {
                            Some(entry) => {
                                entry.push(version);
                                (None, ())
                            }
                            None => (Some(version), ()),
                        });
                        model.insert(key, step == 0);
                    }
                    _ => {
                        let was = tree.change(&key, |entry| (Fate::Remove, entry.is_living()));
                        prop_assert_eq!(was, model.remove(&key));
                    }
                }
            }
            tree.check();
            for (start, end) in [("", "1"), ("1", "11"), ("10", "2"), ("11", "10")] {
                let range = KeyRange::Between(start.into(), end.into());
                let mut found = Vec::new();
                tree.visit(&range, &mut |entry| {
                    found.push((entry.key.to_vec(), entry.is_living()));
                    true
                });
                let expected: Vec<_> = model
                    .iter()
                    .filter(|(key, _)| range.contains(key))
                    .map(|(key, alive)| (key.clone(), *alive))
                    .collect();
                let alive = expected.iter().filter(|(_, alive)| *alive).count() as u64;
                prop_assert_eq!(found, expected);
                prop_assert_eq!(tree.count(&range), alive);
            }
        }
    }
}
