//! Key ranges: etcd's `key` and `range_end`, understood once.
//!
//! ```text
//!   range_end        means
//!   (empty)          the one key
//!   one zero byte    every key from `key` on
//!   anything else    from `key` to before `range_end`; nothing if that is not above `key`
//! ```

use bytes::Bytes;

/// A set of keys without gaps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyRange {
    /// One key.
    One(Bytes),
    /// Every key from this one on. From the empty key on: all keys.
    From(Bytes),
    /// From the first to before the second. Empty if the second is not above the first.
    Between(Bytes, Bytes),
}

impl KeyRange {
    /// What `key` and `range_end` of a request mean.
    pub fn parse(key: Bytes, range_end: Bytes) -> KeyRange {
        match &range_end[..] {
            [] => KeyRange::One(key),
            [0] => KeyRange::From(key),
            _ => KeyRange::Between(key, range_end),
        }
    }

    /// All keys.
    pub fn all() -> KeyRange {
        KeyRange::From(Bytes::new())
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> KeyRange {
        match prefix.iter().rposition(|byte| *byte != 0xff) {
            Some(last) => {
                let mut end = prefix[..=last].to_vec();
                end[last] += 1;
                KeyRange::Between(Bytes::copy_from_slice(prefix), Bytes::from(end))
            }
            None => KeyRange::From(Bytes::copy_from_slice(prefix)),
        }
    }

    /// The lowest key that may be in it.
    pub fn start(&self) -> &Bytes {
        match self {
            KeyRange::One(key) | KeyRange::From(key) | KeyRange::Between(key, _) => key,
        }
    }

    /// Whether `key` is in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::One(one) => one == key,
            KeyRange::From(start) => key >= &start[..],
            KeyRange::Between(start, end) => key >= &start[..] && key < &end[..],
        }
    }

    /// Whether no key can be in it.
    pub fn is_empty(&self) -> bool {
        matches!(self, KeyRange::Between(start, end) if start >= end)
    }

    /// What of it lies at `key`, which is in it, and behind.
    pub(crate) fn starting_at(&self, key: Bytes) -> KeyRange {
        match self {
            KeyRange::One(_) => KeyRange::One(key),
            KeyRange::From(_) => KeyRange::From(key),
            KeyRange::Between(_, end) => KeyRange::Between(key, end.clone()),
        }
    }

    /// Whether `key`, which is not below the start, lies behind the end.
    pub(crate) fn is_past(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::One(one) => key > &one[..],
            KeyRange::From(_) => false,
            KeyRange::Between(_, end) => key >= &end[..],
        }
    }
}

/// The key that comes directly after `key`.
pub fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &'static str, range_end: &'static str, contained: &[&str]) {
        let range = KeyRange::parse(key.into(), range_end.into());
        let keys = ["", "\0", "a", "a\0", "ab", "b", "c"];
        let found: Vec<&str> = keys.into_iter().filter(|k| range.contains(k.as_bytes())).collect();
        assert_eq!(found, contained, "{range:?}");
    }

    #[test]
    fn conventions_of_range_end() {
        check("a", "", &["a"]);
        check("a", "\0", &["a", "a\0", "ab", "b", "c"]);
        check("\0", "\0", &["\0", "a", "a\0", "ab", "b", "c"]);
        check("a", "b", &["a", "a\0", "ab"]);
        check("b", "a", &[]);
        check("a", "a", &[]);
        check("a", "a\0", &["a"]);
    }

    #[test]
    fn prefixes() {
        assert_eq!(KeyRange::prefix(b"ab"), KeyRange::Between("ab".into(), "ac".into()));
        assert_eq!(KeyRange::prefix(b""), KeyRange::all());
        let odd = KeyRange::prefix(&[b'a', 0xff]);
        assert!(odd.contains(&[b'a', 0xff, 1]) && !odd.contains(b"b") && !odd.contains(b"ab"));
        assert!(KeyRange::prefix(&[0xff]).contains(&[0xff, 0xff]));
    }
}
