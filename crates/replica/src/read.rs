//! Linearizable reads: one read-index round per turn, for all who asked in it (thesis §6.4).
//!
//! ```text
//!   ask ──▶ gathering ──end of turn──▶ round {contexts, who} ──confirmed──▶ answers with the index
//!                                        │  every 500 ms: a fresh context, the round stays
//!                                        └─ deadline or a new leader ──▶ refused
//! ```
//!
//! A context is never used twice. A late acknowledgement of a first attempt would otherwise confirm a second one
//! that began after leadership had moved, and a stale read would be served. Any context of a round confirms the
//! round, because each was issued after everybody in the round had asked.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::{Index, ReadState};

use crate::input::ReadBatch;
use crate::waiters::Names;

/// How often a round is asked for again, in milliseconds.
pub(crate) const RETRY_MS: u64 = 500;

/// Who wants a read index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A shard's batch.
    Shard(ReadBatch),
    /// The lease clock, which wants to know whether this member still leads.
    Clock,
}

#[derive(Debug)]
struct Round {
    // At most timeout / retry of them.
    contexts: Vec<u64>,
    issued_tick: u64,
    readers: Vec<(Reader, u64)>,
}

/// All reads that wait for their index.
#[derive(Debug)]
pub(crate) struct Reads {
    names: Names,
    retry_ticks: u64,
    timeout_ticks: u64,
    rounds_max: usize,
    gathering: Vec<(Reader, u64)>,
    rounds: VecDeque<Round>,
}

impl Reads {
    pub(crate) fn new(
        names: Names,
        retry_ticks: u64,
        timeout_ticks: u64,
        rounds_max: usize,
    ) -> Reads {
        Reads {
            names,
            retry_ticks,
            timeout_ticks,
            rounds_max,
            gathering: Vec::new(),
            rounds: VecDeque::new(),
        }
    }

    /// Somebody asks at `tick`.
    pub(crate) fn ask(&mut self, reader: Reader, tick: u64) {
        self.gathering.push((reader, tick + self.timeout_ticks));
    }

    /// The turn ends: the contexts for which raft is to be asked now. With too many rounds under way, those who have
    /// gathered wait for one of them to end.
    pub(crate) fn end_turn(&mut self, tick: u64) -> Vec<Bytes> {
        let mut contexts = Vec::new();
        for round in &mut self.rounds {
            if tick >= round.issued_tick + self.retry_ticks {
                let context = self.names.next_name().0;
                round.contexts.push(context);
                round.issued_tick = tick;
                contexts.push(bytes_of(context));
            }
        }
        if !self.gathering.is_empty() && self.rounds.len() < self.rounds_max {
            let context = self.names.next_name().0;
            self.rounds.push_back(Round {
                contexts: vec![context],
                issued_tick: tick,
                readers: std::mem::take(&mut self.gathering),
            });
            contexts.push(bytes_of(context));
        }
        contexts
    }

    /// raft answers; what it answers may be a context of a round that is gone, or not ours at all.
    pub(crate) fn confirmed(&mut self, state: &ReadState) -> Vec<(Reader, Index)> {
        let Ok(context) = <[u8; 8]>::try_from(&state.context[..]) else { return Vec::new() };
        let context = u64::from_be_bytes(context);
        let Some(at) = self.rounds.iter().position(|round| round.contexts.contains(&context))
        else {
            return Vec::new();
        };
        let round = self.rounds.remove(at).expect("its position was just found");
        round.readers.into_iter().map(|(reader, _)| (reader, state.index)).collect()
    }

    /// Those whose deadline has come.
    pub(crate) fn expired(&mut self, tick: u64) -> Vec<Reader> {
        let mut expired = Vec::new();
        let mut drop_expired = |list: &mut Vec<(Reader, u64)>| {
            expired.extend(list.extract_if(.., |(_, deadline)| *deadline <= tick).map(|(r, _)| r));
        };
        drop_expired(&mut self.gathering);
        self.rounds.iter_mut().for_each(|round| drop_expired(&mut round.readers));
        self.rounds.retain(|round| !round.readers.is_empty());
        expired
    }

    /// Everybody who waits: a new leader is known, and what the old one said counts no more. Who is told may ask
    /// again.
    pub(crate) fn refuse_all(&mut self) -> Vec<Reader> {
        let gathered = std::mem::take(&mut self.gathering);
        let rounds = std::mem::take(&mut self.rounds);
        rounds.into_iter().flat_map(|round| round.readers).chain(gathered).map(|(r, _)| r).collect()
    }
}

fn bytes_of(context: u64) -> Bytes {
    Bytes::copy_from_slice(&context.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waiters::{OWN, Shard};

    fn reads() -> Reads {
        Reads::new(Names::new(1, OWN, 7), 5, 70, 2)
    }

    fn reader(batch: u64) -> Reader {
        Reader::Shard(ReadBatch { shard: Shard(0), batch })
    }

    fn state(context: &Bytes, index: u64) -> ReadState {
        ReadState { index: Index(index), context: context.clone() }
    }

    #[test]
    fn all_of_a_turn_share_one_round() {
        let mut reads = reads();
        reads.ask(reader(1), 0);
        reads.ask(reader(2), 0);
        let contexts = reads.end_turn(0);
        assert_eq!(contexts.len(), 1);
        assert_eq!(contexts[0].len(), 8);
        assert!(reads.end_turn(0).is_empty());
        let answers = reads.confirmed(&state(&contexts[0], 9));
        assert_eq!(answers, vec![(reader(1), Index(9)), (reader(2), Index(9))]);
        assert!(reads.confirmed(&state(&contexts[0], 9)).is_empty());
    }

    #[test]
    fn a_retry_has_a_fresh_context_and_either_confirms() {
        let mut reads = reads();
        reads.ask(reader(1), 0);
        let first = reads.end_turn(0);
        assert!(reads.end_turn(4).is_empty());
        let second = reads.end_turn(5);
        assert_eq!(second.len(), 1);
        assert_ne!(first[0], second[0]);
        assert_eq!(reads.confirmed(&state(&first[0], 3)).len(), 1);
        assert!(reads.confirmed(&state(&second[0], 4)).is_empty());
    }

    #[test]
    fn a_round_does_not_confirm_who_asked_after_it() {
        let mut reads = reads();
        reads.ask(reader(1), 0);
        let first = reads.end_turn(0);
        reads.ask(reader(2), 0);
        assert_eq!(reads.confirmed(&state(&first[0], 3)), vec![(reader(1), Index(3))]);
        assert_eq!(reads.refuse_all(), vec![reader(2)]);
    }

    #[test]
    fn rounds_are_bounded_and_reads_expire() {
        let mut reads = reads();
        for batch in 0..3 {
            reads.ask(reader(batch), batch);
            assert_eq!(reads.end_turn(batch).len(), usize::from(batch < 2));
        }
        assert_eq!(reads.expired(70), vec![reader(0)]);
        assert_eq!(reads.expired(72), vec![reader(2), reader(1)]);
        assert!(reads.end_turn(100).is_empty());
    }
}
