//! Searching a node's keys without following a pointer for each comparison.
//!
//! The keys of a node stand elsewhere, each behind a pointer, and most of what they begin with is the same for all
//! of them. A search that compared them as they are would miss the cache at every step. So a node keeps what all its
//! keys begin with once, and of each key the next eight bytes as a number:
//!
//! ```text
//!   keys     /pods/blue/a17   /pods/blue/a9   /pods/red/b
//!   prefix   /pods/
//!   heads    "blue/a17"       "blue/a9␀"      "red/b␀␀␀"      big-endian, so that numbers order as bytes do
//! ```
//!
//! Only keys whose heads are equal have to be looked at. A head that was filled up with zeros may equal one that
//! really ends in zeros; those two are told apart by their keys.

use std::cmp::Ordering;

/// Prefix and heads of a node's keys, which are ascending and unique.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    prefix: Box<[u8]>,
    heads: Vec<u64>,
}

impl Heads {
    /// Those of `keys`.
    pub fn of<'a>(
        keys: impl ExactSizeIterator<Item = &'a [u8]> + DoubleEndedIterator + Clone,
    ) -> Heads {
        let (mut ends, mut back) = (keys.clone(), keys.clone());
        let (Some(first), Some(last)) = (ends.next(), back.next_back()) else {
            return Heads::default();
        };
        let common = first.iter().zip(last).take_while(|(a, b)| a == b).count();
        Heads {
            prefix: first[..common].into(),
            heads: keys.map(|key| head(&key[common..])).collect(),
        }
    }

    /// The place of `key`, or where it would stand. `key_at` gives the keys themselves.
    pub fn search<'a>(
        &self,
        key: &[u8],
        key_at: impl Fn(usize) -> &'a [u8],
    ) -> Result<usize, usize> {
        let Some(rest) = key.strip_prefix(&*self.prefix) else {
            return Err(if *key < *self.prefix { 0 } else { self.heads.len() });
        };
        let wanted = head(rest);
        let mut low = self.heads.partition_point(|head| *head < wanted);
        let mut high = low + self.heads[low..].partition_point(|head| *head == wanted);
        while low < high {
            let middle = low.midpoint(high);
            match key_at(middle).cmp(key) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// A key has been inserted at `place`; false if it does not begin as the others do: then make them anew.
    #[must_use]
    pub fn insert(&mut self, place: usize, key: &[u8]) -> bool {
        match key.strip_prefix(&*self.prefix) {
            Some(rest) if !self.heads.is_empty() => {
                self.heads.insert(place, head(rest));
                true
            }
            _ => false,
        }
    }

    /// The key at `place` has been removed.
    pub fn remove(&mut self, place: usize) {
        self.heads.remove(place);
    }
}

/// The first eight bytes, filled up with zeros.
fn head(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(eight) => u64::from_be_bytes(*eight),
        None => {
            let mut eight = [0; 8];
            eight[..bytes.len()].copy_from_slice(bytes);
            u64::from_be_bytes(eight)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_and_every_other_has_its_place() {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for text in
            ["", "a", "/p/", "/p/abcdefgh", "/p/abcdefghi", "/p/abcdefg", "/p/b", "/p/abcdefghj"]
        {
            for zeros in 0..3 {
                keys.push([text.as_bytes(), &[0u8; 2][..zeros]].concat());
            }
        }
        keys.sort();
        for from in 0..keys.len() {
            for to in from..=keys.len() {
                let node = &keys[from..to];
                let heads = Heads::of(node.iter().map(Vec::as_slice));
                for key in &keys {
                    let found = heads.search(key, |place| &node[place]);
                    assert_eq!(found, node.binary_search(key), "{key:?} in {node:?}");
                }
            }
        }
    }
}
