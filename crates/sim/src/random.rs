//! Randomness as a tree: one root seed, and below it a stream for everything that draws, found by name.
//!
//! A draw more in one stream shifts no other, so a change in one part of the simulator leaves the rest of a seed's
//! story as it was as long as it can.

/// A stream of numbers (splitmix64: one addition and a mixing function per number).
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The root of a seed's tree.
    pub fn new(seed: u64) -> Random {
        Random { state: mix(seed ^ 0x5153_494d) }
    }

    /// The stream of this name below this one. It depends on the name and on where this stream began, and must
    /// therefore be taken before the first draw.
    pub fn child(&self, name: &str, number: u64) -> Random {
        let mut hash = self.state;
        for byte in name.bytes() {
            hash = mix(hash ^ u64::from(byte));
        }
        Random { state: mix(hash ^ mix(number)) }
    }

    /// The next number, from all of them.
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number in `0..end`; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "nothing lies between {low} and {high}");
        low + self.below(high - low + 1)
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }

    /// The numbers below `end` in some order.
    pub fn shuffled(&mut self, end: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..end).collect();
        for place in (1..end).rev() {
            order.swap(place, self.below(place as u64 + 1) as usize);
        }
        order
    }

    /// Exponentially distributed with this mean, cut at twelve times the mean.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        let drawn = -(1.0 - self.unit()).ln() * mean as f64;
        drawn.min(12.0 * mean as f64) as u64
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A hash that is the same in every run: FNV-1a, eight bytes at a time.
#[derive(Clone, Copy, Debug)]
pub struct Digest(pub u64);

impl Default for Digest {
    fn default() -> Digest {
        Digest(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// Takes a number in.
    pub fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    /// Takes bytes in.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.word(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last));
        self.word(bytes.len() as u64);
    }

    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> u64 {
        let mut digest = Digest::default();
        digest.bytes(bytes);
        mix(digest.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_depend_on_name_and_number_alone() {
        let root = Random::new(7);
        assert_eq!(root.child("a", 1).next(), Random::new(7).child("a", 1).next());
        assert_ne!(root.child("a", 1).next(), root.child("a", 2).next());
        assert_ne!(root.child("a", 1).next(), root.child("b", 1).next());
        assert_ne!(root.child("a", 1).next(), Random::new(8).child("a", 1).next());
    }

    #[test]
    fn draws_lie_where_they_should() {
        let mut random = Random::new(1);
        let mut shuffled = random.shuffled(9);
        shuffled.sort_unstable();
        assert!(shuffled.iter().eq(&(0..9).collect::<Vec<_>>()));
        let (mut low, mut high, mut sum) = (false, false, 0);
        for _ in 0..2_000 {
            let drawn = random.between(3, 5);
            assert!((3..=5).contains(&drawn));
            low |= drawn == 3;
            high |= drawn == 5;
            sum += random.exponential(100);
        }
        assert!(low && high);
        assert!((160_000..240_000).contains(&sum), "{sum}");
    }
}
