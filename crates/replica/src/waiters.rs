//! Who waits for what: the waiters of proposals and the waits of reads, one set per shard.
//!
//! A shard names each proposal before it leaves, by the request id that travels in the log, and keeps here what
//! it needs to answer it. The reply comes back to that shard alone, with that name. A name is
//!
//! ```text
//!   63           48 47      42 41                                   0
//!   ┌──────────────┬──────────┬──────────────────────────────────────┐
//!   │ member (low) │  shard   │ start in ms << 8, then counted up    │
//!   └──────────────┴──────────┴──────────────────────────────────────┘
//! ```
//!
//! so that members that share a log never answer each other's clients, shards of one member neither, and a
//! process that was restarted does not meet the names of its former life: it would have to have named more than
//! 256 requests per millisecond of that life. A name is never used twice, so an answer that comes late finds
//! nobody instead of a stranger.
//!
//! Time is given by the caller in milliseconds of any clock that does not go back.

use std::collections::BTreeMap;

use raft::{Index, NodeId};
use state_machine::RequestId;

/// The number of a shard, in `0..SHARDS_MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u8);

/// How many shards may exist: six bits, of which the last names the replica itself (expiry revokes).
pub const SHARDS_MAX: u8 = 63;

/// The shard number under which the replica names its own proposals; no shard ever has it.
pub(crate) const OWN: Shard = Shard(63);

const SEQUENCE_BITS: u32 = 42;
const SEQUENCE_MASK: u64 = (1 << SEQUENCE_BITS) - 1;

/// Deadlines are kept in buckets of 2^6 ms: a waiter may be told up to that much late, never early.
const BUCKET_BITS: u32 = 6;

const _: () = assert!(16 + 6 + SEQUENCE_BITS == 64);

/// The names of one shard's requests, in order; they start at a point given by the clock.
#[derive(Clone, Debug)]
pub struct Names {
    prefix: u64,
    sequence: u64,
}

impl Names {
    /// `start_ms` is Unix time at the start of the process.
    pub fn new(member: NodeId, shard: Shard, start_ms: u64) -> Names {
        assert!(shard.0 <= SHARDS_MAX, "shard {} does not fit in six bits", shard.0);
        let prefix = (member & 0xffff) << 48 | u64::from(shard.0) << SEQUENCE_BITS;
        Names { prefix, sequence: (start_ms << 8) & SEQUENCE_MASK }
    }

    /// The next name. It is never zero, for zero means "no name" to etcd.
    pub fn next_name(&mut self) -> RequestId {
        self.sequence = (self.sequence + 1) & SEQUENCE_MASK;
        if self.prefix | self.sequence == 0 {
            self.sequence = 1;
        }
        RequestId(self.prefix | self.sequence)
    }
}

/// The shard that a name belongs to, if the name is of this member; a follower meets the names of others in the
/// log and must not answer them.
pub fn shard_of(id: RequestId, member: NodeId) -> Option<Shard> {
    let ours = id.0 >> 48 == member & 0xffff;
    let shard = (id.0 >> SEQUENCE_BITS) as u8 & 0x3f;
    (ours && shard < SHARDS_MAX).then_some(Shard(shard))
}

/// What a shard keeps for each proposal that it has handed over and that is not answered yet.
///
/// Call [`Waiters::add`] for each proposal, [`Waiters::take`] when its reply or refusal comes,
/// [`Waiters::take`] as well when the client has gone (a reset frees the place; the name stays used), and
/// [`Waiters::expired`] now and then. Whatever a call takes out is answered by the caller, exactly once.
#[derive(Debug)]
pub struct Waiters<T> {
    names: Names,
    limit: usize,
    waiting: BTreeMap<u64, T>,
    // Names by deadline bucket. Names that were answered stay until their bucket is due, and are not found then.
    deadlines: BTreeMap<u64, Vec<u64>>,
}

impl<T> Waiters<T> {
    /// At most `limit` waiters at a time.
    pub fn new(member: NodeId, shard: Shard, start_ms: u64, limit: usize) -> Waiters<T> {
        assert!(shard.0 < SHARDS_MAX, "shard {} is not a shard", shard.0);
        Waiters {
            names: Names::new(member, shard, start_ms),
            limit,
            waiting: BTreeMap::new(),
            deadlines: BTreeMap::new(),
        }
    }

    /// Takes a waiter in and names its request; gives the waiter back if `limit` already wait.
    pub fn add(&mut self, waiter: T, deadline_ms: u64) -> Result<RequestId, T> {
        if self.waiting.len() >= self.limit {
            return Err(waiter);
        }
        let id = self.names.next_name();
        self.waiting.insert(id.0, waiter);
        self.deadlines.entry(bucket_after(deadline_ms)).or_default().push(id.0);
        Ok(id)
    }

    /// A name of its own for something that nobody here waits for, or whose waiter is kept elsewhere.
    pub fn name(&mut self) -> RequestId {
        self.names.next_name()
    }

    /// The waiter of that name, if it still waits.
    pub fn take(&mut self, id: RequestId) -> Option<T> {
        self.waiting.remove(&id.0)
    }

    /// Those whose deadline has passed, in the order of their names within a bucket.
    pub fn expired(&mut self, now_ms: u64) -> Vec<(RequestId, T)> {
        let mut expired = Vec::new();
        while let Some(first) = self.deadlines.first_entry() {
            if *first.key() > now_ms >> BUCKET_BITS {
                break;
            }
            for name in first.remove() {
                if let Some(waiter) = self.waiting.remove(&name) {
                    expired.push((RequestId(name), waiter));
                }
            }
        }
        expired
    }

    /// Those of whom it is said so. It looks at each.
    pub fn extract(&mut self, mut is_so: impl FnMut(&mut T) -> bool) -> Vec<(RequestId, T)> {
        let extracted = self.waiting.extract_if(.., |_, waiter| is_so(waiter));
        extracted.map(|(id, waiter)| (RequestId(id), waiter)).collect()
    }

    /// All of them, because nobody will be answered any more.
    pub fn drain(&mut self) -> Vec<(RequestId, T)> {
        self.deadlines.clear();
        std::mem::take(&mut self.waiting).into_iter().map(|(id, w)| (RequestId(id), w)).collect()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// The reads of one shard: first those whose read index is not known yet, gathered into one batch per turn, then
/// those that wait until this member has applied that index.
///
/// ```text
///   add ──▶ gathering ──batch()──▶ asked ──confirmed()──▶ waiting ──applied()──▶ read
///                                    └──refused()──▶ answered with the refusal
/// ```
#[derive(Debug)]
pub struct ReadWaits<T> {
    limit: usize,
    next_batch: u64,
    count: usize,
    gathering: Vec<(u64, T)>,
    asked: BTreeMap<u64, Vec<(u64, T)>>,
    waiting: BTreeMap<Index, Vec<(u64, T)>>,
}

impl<T> ReadWaits<T> {
    /// At most `limit` reads at a time.
    pub fn new(limit: usize) -> ReadWaits<T> {
        ReadWaits {
            limit,
            next_batch: 1,
            count: 0,
            gathering: Vec::new(),
            asked: BTreeMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// Takes a read in; gives it back if `limit` already wait.
    pub fn add(&mut self, read: T, deadline_ms: u64) -> Result<(), T> {
        if self.count >= self.limit {
            return Err(read);
        }
        self.count += 1;
        self.gathering.push((deadline_ms, read));
        Ok(())
    }

    /// The batch to ask the replica for, with all reads gathered since the last call; `None` if there are none.
    pub fn batch(&mut self) -> Option<u64> {
        if self.gathering.is_empty() {
            return None;
        }
        let batch = self.next_batch;
        self.next_batch += 1;
        self.asked.insert(batch, std::mem::take(&mut self.gathering));
        Some(batch)
    }

    /// The replica gave `index` for `batch`; its reads may be served once that much is applied.
    ///
    /// After this call raise the shard's waiting flag, read the applied index and call [`ReadWaits::applied`]: the
    /// apply worker publishes first and looks at the flag then, so one of the two sees the other.
    pub fn confirmed(&mut self, batch: u64, index: Index) {
        if let Some(mut reads) = self.asked.remove(&batch) {
            self.waiting.entry(index).or_default().append(&mut reads);
        }
    }

    /// The replica refused `batch`; these reads are the caller's to answer.
    pub fn refused(&mut self, batch: u64) -> Vec<T> {
        let reads = self.asked.remove(&batch).unwrap_or_default();
        self.count -= reads.len();
        reads.into_iter().map(|(_, read)| read).collect()
    }

    /// The reads that may be served now that `applied` is published.
    pub fn applied(&mut self, applied: Index) -> Vec<T> {
        let mut ready = Vec::new();
        while let Some(first) = self.waiting.first_entry() {
            if *first.key() > applied {
                break;
            }
            ready.extend(first.remove().into_iter().map(|(_, read)| read));
        }
        self.count -= ready.len();
        ready
    }

    /// Those whose deadline has passed, wherever they wait. It looks at each read: call it every 100 ms or so.
    pub fn expired(&mut self, now_ms: u64) -> Vec<T> {
        self.take_out(|deadline, _| deadline <= now_ms)
    }

    /// Those of whom it is said so, wherever they wait. It looks at each.
    pub fn extract(&mut self, mut is_so: impl FnMut(&mut T) -> bool) -> Vec<T> {
        self.take_out(|_, read| is_so(read))
    }

    fn take_out(&mut self, mut is_out: impl FnMut(u64, &mut T) -> bool) -> Vec<T> {
        let mut out = Vec::new();
        let lists = std::iter::once(&mut self.gathering)
            .chain(self.asked.values_mut())
            .chain(self.waiting.values_mut());
        for list in lists {
            let taken = list.extract_if(.., |(deadline, read)| is_out(*deadline, read));
            out.extend(taken.map(|(_, read)| read));
        }
        self.asked.retain(|_, list| !list.is_empty());
        self.waiting.retain(|_, list| !list.is_empty());
        self.count -= out.len();
        out
    }

    /// Whether a read waits for its index to be applied: as long as it is so, the shard's waiting flag stays up.
    pub fn waits_for_apply(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How many reads there are in all three states.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// The first bucket that is due only when `deadline_ms` has passed.
fn bucket_after(deadline_ms: u64) -> u64 {
    deadline_ms.div_ceil(1 << BUCKET_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_members_shards_and_lives_apart() {
        let mut first = Names::new(0xabcd_1234, Shard(5), 1_000_000);
        let name = first.next_name();
        assert_eq!(name.0 >> 48, 0x1234);
        assert_eq!(shard_of(name, 0x1234), Some(Shard(5)));
        assert_eq!(shard_of(name, 0x1235), None);
        assert_ne!(first.next_name(), name);
        let mut next_life = Names::new(0xabcd_1234, Shard(5), 1_000_001);
        assert!(next_life.next_name() > first.next_name());
    }

    #[test]
    fn the_replicas_own_names_belong_to_no_shard() {
        let mut own = Names::new(7, OWN, 5);
        assert_eq!(shard_of(own.next_name(), 7), None);
    }

    #[test]
    fn a_name_is_not_zero_where_the_count_wraps() {
        let mut names = Names { prefix: 0, sequence: SEQUENCE_MASK };
        assert_eq!(names.next_name(), RequestId(1));
    }

    #[test]
    fn a_waiter_is_answered_once_and_a_late_answer_finds_nobody() {
        let mut waiters = Waiters::new(1, Shard(0), 0, 2);
        let a = waiters.add("a", 1000).unwrap();
        let b = waiters.add("b", 1000).unwrap();
        assert_eq!(waiters.add("c", 1000), Err("c"));
        assert_eq!(waiters.take(a), Some("a"));
        assert_eq!(waiters.take(a), None);
        let c = waiters.add("c", 9000).unwrap();
        assert!(c != a && c != b);
        assert!(waiters.expired(999).is_empty());
        assert_eq!(waiters.expired(1100), vec![(b, "b")]);
        assert_eq!(waiters.take(b), None);
        assert_eq!(waiters.drain(), vec![(c, "c")]);
    }

    #[test]
    fn who_has_gone_makes_room() {
        let mut waiters = Waiters::new(1, Shard(0), 0, 2);
        let a = waiters.add("a", 1000).unwrap();
        waiters.add("b", 1000).unwrap();
        assert_eq!(waiters.extract(|waiter| *waiter == "a"), vec![(a, "a")]);
        waiters.add("c", 1000).unwrap();
        assert_eq!(waiters.take(a), None);

        let mut reads = ReadWaits::new(3);
        reads.add("waiting", 10).unwrap();
        let batch = reads.batch().unwrap();
        reads.confirmed(batch, Index(3));
        reads.add("asked", 10).unwrap();
        reads.batch().unwrap();
        reads.add("gathering", 10).unwrap();
        assert_eq!(reads.extract(|read| *read != "asked"), vec!["gathering", "waiting"]);
        assert_eq!(reads.len(), 1);
        assert!(!reads.waits_for_apply());
    }

    #[test]
    fn no_waiter_is_told_early() {
        for deadline in [1, 63, 64, 65, 1000] {
            let mut waiters = Waiters::new(1, Shard(0), 0, 2);
            waiters.add((), deadline).unwrap();
            assert!(waiters.expired(deadline - 1).is_empty(), "deadline {deadline}");
            assert_eq!(waiters.expired(deadline + 64).len(), 1, "deadline {deadline}");
        }
    }

    #[test]
    fn a_read_is_served_when_its_index_is_applied() {
        let mut reads = ReadWaits::new(10);
        assert_eq!(reads.batch(), None);
        reads.add("a", 100).unwrap();
        reads.add("b", 100).unwrap();
        let first = reads.batch().unwrap();
        reads.add("c", 100).unwrap();
        let second = reads.batch().unwrap();
        reads.confirmed(first, Index(7));
        assert!(reads.waits_for_apply());
        assert!(reads.applied(Index(6)).is_empty());
        assert_eq!(reads.applied(Index(7)), vec!["a", "b"]);
        assert!(!reads.waits_for_apply());
        assert_eq!(reads.refused(second), vec!["c"]);
        assert!(reads.is_empty());
    }

    #[test]
    fn a_read_expires_wherever_it_waits() {
        let mut reads = ReadWaits::new(3);
        reads.add("waiting", 10).unwrap();
        let batch = reads.batch().unwrap();
        reads.confirmed(batch, Index(3));
        reads.add("asked", 11).unwrap();
        reads.batch().unwrap();
        reads.add("gathering", 12).unwrap();
        assert_eq!(reads.add("too many", 12), Err("too many"));
        assert_eq!(reads.expired(10), vec!["waiting"]);
        assert_eq!(reads.expired(12), vec!["gathering", "asked"]);
        assert!(reads.is_empty() && !reads.waits_for_apply());
    }
}
