//! The workloads: which requests are sent, and what their answers must say.

use std::fmt;
use std::str::FromStr;

use bytes::{Bytes, BytesMut};

use crate::random::Random;
use crate::wire::{self, Malformed, RangeOptions, Reply};

/// What precedes the number in the keys that are put and read.
const KEYS: &str = "bench/";
/// What precedes it in the keys that are deleted; no others may be, for those that are read must stay.
const DOOMED_KEYS: &str = "bench-doomed/";
/// Digits of the number: keys sort as their numbers do.
const DIGITS: usize = 10;
/// Keys at most, for that many digits.
pub const KEY_SPACE_MAX: u64 = 9_999_999_999;
/// The key that is watched.
pub const WATCHED_KEY: &[u8] = b"bench-watched";
/// A key that is watched and never written.
pub const QUIET_KEY: &[u8] = b"bench-quiet";
/// How long a lease lives without being kept alive; long, so that none expires while others are measured.
pub const LEASE_SECONDS: u64 = 3600;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// A value is put under a key.
    Put,
    /// A key that exists is deleted.
    Delete,
    /// A transaction: if the key exists, it is put.
    TxnPut,
    /// So many keys, one after the other, are read; `end` tells how the server is asked.
    Range {
        /// How many.
        keys: u64,
        /// Read, counted, or listed.
        what: What,
        /// Answered by the asked member alone.
        serializable: bool,
    },
    /// Puts, and ranges of one key.
    Mixed {
        /// Of a hundred requests, this many are ranges.
        reads: u64,
    },
    /// A lease is granted.
    LeaseGrant,
    /// A lease is kept alive, on a stream that stays open, as clients do.
    KeepAlive,
    /// A lease is kept alive, on a stream for each time, as etcd's `benchmark` does.
    KeepAliveOnce,
    /// Many watch a key, and one puts it; an operation is an event that arrives.
    Watch {
        /// How many watch.
        watchers: u64,
    },
}

/// How a range is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// From a key to a key, with values.
    Values,
    /// From a key to the end of all, with a limit: a page of a list.
    Page,
    /// Keys alone.
    KeysOnly,
    /// All keys are counted, and none is sent.
    Count,
}

/// The names by which workloads are asked for, and what each is.
pub const NAMES: &[(&str, &str)] = &[
    ("put", "put a value under a key"),
    ("delete", "delete a key that exists, each once"),
    ("txn-put", "a transaction: if the key exists, put it"),
    ("range", "read one key"),
    ("range:N", "read N keys from a key on (range:100)"),
    ("page:N", "read to the end of the prefix with a limit of N (page:500)"),
    ("keys-only:N", "the keys of N pairs without their values"),
    ("count", "count all keys of the prefix"),
    ("mixed:N", "N ranges of one key to 100-N puts (mixed:90)"),
    ("lease-grant", "grant a lease"),
    ("keep-alive", "keep a lease alive, on streams that stay open"),
    ("keep-alive-once", "the same with a stream for each time, as etcd's benchmark does"),
    ("watch:N", "N watchers of one key, one writer; counts events that arrive"),
];

impl FromStr for Workload {
    type Err = String;

    /// A name of [`NAMES`]; with `:serializable` behind those that read.
    fn from_str(text: &str) -> Result<Workload, String> {
        let (name, serializable) = match text.strip_suffix(":serializable") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let (name, number) = match name.split_once(':') {
            None => (name, None),
            Some((name, number)) => {
                let parsed = number.parse::<u64>().ok().filter(|number| *number > 0);
                (name, Some(parsed.ok_or_else(|| format!("{number:?} is no number above 0"))?))
            }
        };
        let range = |keys, what| Workload::Range { keys, what, serializable };
        let workload = match (name, number) {
            ("put", None) => Workload::Put,
            ("delete", None) => Workload::Delete,
            ("txn-put", None) => Workload::TxnPut,
            ("range", number) => range(number.unwrap_or(1), What::Values),
            ("page", number) => range(number.unwrap_or(500), What::Page),
            ("keys-only", number) => range(number.unwrap_or(100), What::KeysOnly),
            ("count", None) => range(0, What::Count),
            ("mixed", number) => match number.unwrap_or(50) {
                reads @ 0..=100 => Workload::Mixed { reads },
                _ => return Err("mixed is in percent".to_owned()),
            },
            ("lease-grant", None) => Workload::LeaseGrant,
            ("keep-alive", None) => Workload::KeepAlive,
            ("keep-alive-once", None) => Workload::KeepAliveOnce,
            ("watch", number) => Workload::Watch { watchers: number.unwrap_or(100) },
            _ => {
                let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
                return Err(format!("there are {}", names.join(", ")));
            }
        };
        match serializable && !matches!(workload, Workload::Range { .. }) {
            true => Err("only what reads can be serializable".to_owned()),
            false => Ok(workload),
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Workload::Put => out.write_str("put"),
            Workload::Delete => out.write_str("delete"),
            Workload::TxnPut => out.write_str("txn-put"),
            Workload::Range { keys, what, serializable } => {
                match (what, keys) {
                    (What::Values, 1) => out.write_str("range")?,
                    (What::Values, keys) => write!(out, "range:{keys}")?,
                    (What::Page, keys) => write!(out, "page:{keys}")?,
                    (What::KeysOnly, keys) => write!(out, "keys-only:{keys}")?,
                    (What::Count, _) => out.write_str("count")?,
                }
                if *serializable {
                    out.write_str(":serializable")?;
                }
                Ok(())
            }
            Workload::Mixed { reads } => write!(out, "mixed:{reads}"),
            Workload::LeaseGrant => out.write_str("lease-grant"),
            Workload::KeepAlive => out.write_str("keep-alive"),
            Workload::KeepAliveOnce => out.write_str("keep-alive-once"),
            Workload::Watch { watchers } => write!(out, "watch:{watchers}"),
        }
    }
}

/// What the keyspace must hold before a workload can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// All keys of the key space.
    Keys,
    /// Leases.
    Leases,
}

impl Workload {
    /// What must be there before.
    pub fn needs(&self) -> Needs {
        match self {
            Workload::Delete
            | Workload::TxnPut
            | Workload::Range { .. }
            | Workload::Mixed { .. } => Needs::Keys,
            Workload::KeepAlive | Workload::KeepAliveOnce => Needs::Leases,
            Workload::Put | Workload::LeaseGrant | Workload::Watch { .. } => Needs::Nothing,
        }
    }
}

/// The methods that are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `KV.Put`
    Put,
    /// `KV.Range`
    Range,
    /// `KV.DeleteRange`
    Delete,
    /// `KV.Txn`
    Txn,
    /// `Lease.LeaseGrant`
    LeaseGrant,
    /// `Lease.LeaseKeepAlive`
    KeepAlive,
    /// `Watch.Watch`
    Watch,
}

impl Method {
    /// Its path.
    pub fn path(self) -> &'static str {
        match self {
            Method::Put => "/etcdserverpb.KV/Put",
            Method::Range => "/etcdserverpb.KV/Range",
            Method::Delete => "/etcdserverpb.KV/DeleteRange",
            Method::Txn => "/etcdserverpb.KV/Txn",
            Method::LeaseGrant => "/etcdserverpb.Lease/LeaseGrant",
            Method::KeepAlive => "/etcdserverpb.Lease/LeaseKeepAlive",
            Method::Watch => "/etcdserverpb.Watch/Watch",
        }
    }
}

/// What an answer must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// That something was written: a revision above 1.
    Revision,
    /// So many keys in it.
    Keys(u64),
    /// So many counted.
    Counted(u64),
    /// One deleted.
    Deleted,
    /// That the compares held.
    Succeeded,
    /// A time to live.
    Lives,
}

impl Expect {
    /// Checks an answer.
    ///
    /// # Errors
    /// What is wrong with it, as a line for the list of errors.
    pub fn check(self, message: &[u8]) -> Result<(), String> {
        let wrong = |what: &str, got: u64, wanted: u64| {
            Err(format!("wrong answer: {what} {got}, wanted {wanted}"))
        };
        let read = |items, number| {
            wire::read(message, items, number).map_err(|Malformed| "malformed answer".to_owned())
        };
        match self {
            Expect::Revision => match read(0, 0)? {
                Reply { revision: 0, .. } => Err("wrong answer: no revision".to_owned()),
                _ => Ok(()),
            },
            Expect::Keys(keys) => match read(2, 4)?.items {
                items if items == keys => Ok(()),
                items => wrong("keys", items, keys),
            },
            Expect::Counted(keys) => match read(2, 4)?.number {
                number if number == keys => Ok(()),
                number => wrong("count", number, keys),
            },
            Expect::Deleted => match read(3, 2)?.number {
                1 => Ok(()),
                number => wrong("deleted", number, 1),
            },
            Expect::Succeeded => match read(3, 2)?.number {
                1 => Ok(()),
                _ => Err("wrong answer: the compare failed".to_owned()),
            },
            Expect::Lives => match read(0, 3)?.number {
                0 => Err("wrong answer: the lease is gone".to_owned()),
                seconds if seconds > i64::MAX as u64 => {
                    Err("wrong answer: the lease is gone".to_owned())
                }
                _ => Ok(()),
            },
        }
    }
}

/// One request, ready to be sent.
pub struct Request {
    /// The method.
    pub method: Method,
    /// The whole gRPC message.
    pub message: Bytes,
    /// What the answer must say.
    pub expect: Expect,
}

/// How keys and values are chosen.
#[derive(Debug, Clone)]
pub struct Data {
    /// How many keys there are.
    pub key_space: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Keys in turn instead of by chance.
    pub sequential: bool,
    /// The seed of everything that is left to chance.
    pub seed: u64,
    /// The id of the first lease; the others follow it.
    pub first_lease: u64,
    /// How many leases there are.
    pub leases: u64,
    /// The keys are those that are to be deleted.
    pub doomed: bool,
}

/// Makes the requests of one connection.
pub struct Source {
    workload: Workload,
    data: Data,
    random: Random,
    /// Random bytes; values are windows in them, so that no two neighbours are the same.
    noise: Vec<u8>,
    key: Key,
    scratch: BytesMut,
}

/// Bytes of noise beyond one value.
const NOISE_BYTES: usize = 4096;

impl Source {
    /// The source of connection `place`.
    pub fn new(workload: Workload, data: &Data, place: u64) -> Source {
        let mut random = Random::new(data.seed, place);
        let noise = random.bytes(data.value_bytes + NOISE_BYTES);
        let prefix = if data.doomed { DOOMED_KEYS } else { KEYS };
        Source {
            workload,
            data: data.clone(),
            random,
            noise,
            key: Key::new(prefix),
            scratch: BytesMut::with_capacity(64 << 10),
        }
    }

    /// Whether its requests stay on one stream for each client.
    pub fn stands(&self) -> bool {
        self.workload == Workload::KeepAlive
    }

    /// The number of a key that has at least `room` keys from it to the end of the key space; `turn` is the request's.
    fn choose(&mut self, turn: u64, room: u64) -> u64 {
        let bound = self.data.key_space.saturating_sub(room) + 1;
        match self.data.sequential {
            true => turn % bound,
            false => self.random.below(bound),
        }
    }

    fn value(noise: &[u8], random: &mut Random, length: usize) -> std::ops::Range<usize> {
        let start = random.below((noise.len() - length + 1) as u64) as usize;
        start..start + length
    }

    /// The next request; `turn` is its number among those of all connections, each of which is given once.
    pub fn request(&mut self, turn: u64) -> Request {
        let length = self.data.value_bytes;
        match self.workload {
            Workload::Put | Workload::Watch { .. } => self.put(turn),
            Workload::Mixed { reads } if self.random.below(100) >= reads => self.put(turn),
            Workload::Mixed { .. } => self.range(turn, 1, What::Values, false),
            Workload::Range { keys, what, serializable } => {
                self.range(turn, keys, what, serializable)
            }
            Workload::TxnPut => {
                let number = self.choose(turn, 1);
                self.key.set(number);
                let value = Self::value(&self.noise, &mut self.random, length);
                let (key, value) = (self.key.bytes(), &self.noise[value]);
                let message =
                    wire::message(&mut self.scratch, |out| wire::txn_put(out, key, value));
                Request { method: Method::Txn, message, expect: Expect::Succeeded }
            }
            Workload::Delete => {
                // In turn, whatever is asked for: each key can be deleted once.
                self.key.set(turn);
                let key = self.key.bytes();
                let message = wire::message(&mut self.scratch, |out| wire::delete(out, key));
                Request { method: Method::Delete, message, expect: Expect::Deleted }
            }
            Workload::LeaseGrant => {
                let id = match self.data.first_lease {
                    0 => 0,
                    first => first + turn,
                };
                let message = wire::message(&mut self.scratch, |out| {
                    wire::lease_grant(out, LEASE_SECONDS, id)
                });
                Request { method: Method::LeaseGrant, message, expect: Expect::Lives }
            }
            Workload::KeepAlive | Workload::KeepAliveOnce => {
                let id = self.data.first_lease + self.random.below(self.data.leases.max(1));
                let message = wire::message(&mut self.scratch, |out| wire::keep_alive(out, id));
                Request { method: Method::KeepAlive, message, expect: Expect::Lives }
            }
        }
    }

    fn put(&mut self, turn: u64) -> Request {
        let number = self.choose(turn, 1);
        self.key.set(number);
        let value = Self::value(&self.noise, &mut self.random, self.data.value_bytes);
        let (key, value) = (self.key.bytes(), &self.noise[value]);
        let message = wire::message(&mut self.scratch, |out| wire::put(out, key, value));
        Request { method: Method::Put, message, expect: Expect::Revision }
    }

    fn range(&mut self, turn: u64, keys: u64, what: What, serializable: bool) -> Request {
        let keys = keys.min(self.data.key_space);
        let first = match what {
            What::Count => 0,
            _ => self.choose(turn, keys),
        };
        self.key.set(first);
        let mut options = RangeOptions { serializable, ..RangeOptions::default() };
        let mut end = Vec::new();
        let expect = match what {
            What::Values | What::KeysOnly => {
                options.keys_only = what == What::KeysOnly;
                if keys > 1 {
                    let mut last = Key::new(KEYS);
                    last.set(first + keys);
                    end = last.0;
                }
                Expect::Keys(keys)
            }
            What::Page => {
                options.limit = keys;
                end = prefix_end();
                Expect::Keys(keys)
            }
            What::Count => {
                options.count_only = true;
                end = prefix_end();
                Expect::Counted(self.data.key_space)
            }
        };
        let key = if what == What::Count { KEYS.as_bytes() } else { self.key.bytes() };
        let message = wire::message(&mut self.scratch, |out| wire::range(out, key, &end, options));
        Request { method: Method::Range, message, expect }
    }

    /// A put of the watched key, whose value begins with the time at which it is to be sent.
    pub fn watched_put(&mut self, intended: u64) -> Request {
        let length = self.data.value_bytes.max(8);
        let value = &mut self.noise[..length];
        value[..8].copy_from_slice(&intended.to_be_bytes());
        let value = &self.noise[..length];
        let message = wire::message(&mut self.scratch, |out| wire::put(out, WATCHED_KEY, value));
        Request { method: Method::Put, message, expect: Expect::Revision }
    }
}

/// A key: its prefix, and its number in so many digits that keys sort as their numbers.
struct Key(Vec<u8>);

impl Key {
    fn new(prefix: &str) -> Key {
        Key([prefix.as_bytes(), &[b'0'; DIGITS]].concat())
    }

    /// Writes another number.
    fn set(&mut self, mut number: u64) {
        for place in self.0.iter_mut().rev().take(DIGITS) {
            *place = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The first key behind all of ours.
fn prefix_end() -> Vec<u8> {
    let mut end = KEYS.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::etcdserverpb::{PutRequest, RangeRequest, RangeResponse, ResponseHeader};

    use super::*;

    fn data() -> Data {
        Data {
            key_space: 1000,
            value_bytes: 16,
            sequential: false,
            seed: 1,
            first_lease: 0,
            leases: 0,
            doomed: false,
        }
    }

    #[test]
    fn a_name_is_a_workload_and_back() {
        for name in [
            "put",
            "delete",
            "txn-put",
            "range",
            "range:100",
            "range:serializable",
            "page:500",
            "range:100:serializable",
            "keys-only:7",
            "count",
            "mixed:90",
            "lease-grant",
            "keep-alive",
            "keep-alive-once",
            "watch:10000",
        ] {
            assert_eq!(name.parse::<Workload>().unwrap().to_string(), name);
        }
        for bad in ["", "puts", "put:3", "put:serializable", "range:0", "range:x", "mixed:101"] {
            assert!(bad.parse::<Workload>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_same_seed_asks_the_same() {
        let messages = |seed| {
            let data = Data { seed, ..data() };
            let mut source = Source::new(Workload::Mixed { reads: 50 }, &data, 3);
            (0..100).map(|turn| source.request(turn).message).collect::<Vec<_>>()
        };
        assert_eq!(messages(5), messages(5));
        assert_ne!(messages(5), messages(6));
    }

    #[test]
    fn connections_that_take_keys_in_turn_take_each_once() {
        let data = Data { sequential: true, ..data() };
        let mut keys = std::collections::BTreeSet::new();
        let mut sources = [0, 1, 2].map(|place| Source::new(Workload::Put, &data, place));
        for turn in 0..1000 {
            // However fast each connection is.
            let source = &mut sources[if turn % 7 < 4 { 0 } else { turn as usize % 3 }];
            {
                let message = source.request(turn).message;
                let put = PutRequest::decode(&message[wire::PREFIX_BYTES..]).unwrap();
                assert_eq!(put.value.len(), 16);
                keys.insert(put.key);
            }
        }
        assert_eq!(keys.len(), 1000);
        assert_eq!(keys.first().unwrap(), &b"bench/0000000000"[..]);
        assert_eq!(keys.last().unwrap(), &b"bench/0000000999"[..]);
    }

    /// Every range that is asked for lies in the key space, so that what it must find is known.
    #[test]
    fn ranges_find_what_they_expect() {
        for name in ["range", "range:100", "page:500", "keys-only:1000", "count", "page:5000"] {
            let mut source = Source::new(name.parse().unwrap(), &data(), 0);
            for turn in 0..1000 {
                let Request { message, expect, .. } = source.request(turn);
                let asked = RangeRequest::decode(&message[wire::PREFIX_BYTES..]).unwrap();
                let all = (0..1000).map(|number| {
                    let mut key = Key::new(KEYS);
                    key.set(number);
                    key.0
                });
                let found = all.filter(|key| match asked.range_end.is_empty() {
                    true => key[..] == asked.key,
                    false => asked.key <= key[..] && key[..] < asked.range_end[..],
                });
                let found = found.count() as u64;
                match expect {
                    Expect::Counted(count) => assert_eq!(count, found, "{name}"),
                    Expect::Keys(keys) if asked.limit > 0 => {
                        assert_eq!(keys, found.min(asked.limit as u64), "{name}");
                    }
                    Expect::Keys(keys) => assert_eq!(keys, found, "{name}"),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn a_wrong_answer_is_an_error() {
        let header = Some(ResponseHeader { revision: 5, ..Default::default() });
        let empty = RangeResponse { header, ..Default::default() }.encode_to_vec();
        assert_eq!(Expect::Revision.check(&empty), Ok(()));
        assert_eq!(Expect::Keys(0).check(&empty), Ok(()));
        assert_eq!(Expect::Keys(1).check(&empty), Err("wrong answer: keys 0, wanted 1".to_owned()));
        assert_eq!(
            Expect::Counted(9).check(&empty),
            Err("wrong answer: count 0, wanted 9".to_owned())
        );
        assert!(Expect::Lives.check(&empty).is_err());
        assert!(Expect::Revision.check(b"").is_err());
        assert_eq!(Expect::Revision.check(b"\x0a"), Err("malformed answer".to_owned()));
    }
}
