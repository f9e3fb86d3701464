//! Puts and reads through the whole heart, for `cargo xtask instructions` to count what they cost.
//!
//! One member or three, each on a disk in memory, all in this thread; requests come in batches, as a shard gathers them in
//! a turn, and each batch is answered before the next one comes. There is no clock, no random number and no thread, so
//! the same arguments run the same instructions: run twice, with so many operations and with twice as many, and the
//! difference is what the operations cost, without the start and the filling.
//!
//! ```text
//!   put     try_from, encode ─▶ replica ─▶ log ─▶ (followers) ─▶ replica ─▶ apply ─▶ encode the reply
//!                                                                  └▶ frames, segments, reclaim
//!   range   check ─▶ (a round of messages, unless the member is alone) ─▶ state ─▶ encode the reply
//! ```
//!
//! Arguments: `put` or `range`, members, requests in a batch, operations.

use std::mem;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proto::etcdserverpb::{PutRequest, RangeRequest};
use raft::{Message, NodeId, RoleKind};
use replica::{
    Answer, Bootstrap, Config, Founder, Identity, Input, Lane, Notice, Opened, Proposal, Proposals,
    ReadBatch, ReadWaits, SegmentBytes, Shard, Waiters,
};
use state_machine::{Caller, Command, Effort, Header, Member as Founding, Reply, Request};
use vfs::memory::Memory;

const SHARD: Shard = Shard(0);
/// Keys there are, of so many bytes each; puts overwrite them in an order without a pattern.
const KEYS: u64 = 4_096;
const VALUE_BYTES: usize = 256;
/// Requests in a batch while the keys are filled in.
const FILL_BATCH: u64 = 64;
/// Small files, so that cutting, sealing and reclaiming them happens often enough to count as much as it does in the long run.
const SEGMENT_BYTES: SegmentBytes = SegmentBytes { wal: 1 << 20, store: 1 << 20 };
/// Operations between two heartbeats: twenty thousand a second.
const TICK_EVERY: u64 = 2_048;
/// Nobody waits so long here.
const DEADLINE_MS: u64 = 1 << 40;

/// What is counted.
#[derive(Clone, Copy)]
enum Work {
    Put,
    Range,
}

/// One member, and the shard that asks it.
struct Member {
    parts: Opened,
    inbox: Vec<Input>,
    waiters: Waiters<()>,
    reads: ReadWaits<RangeRequest>,
    /// Answers are encoded here.
    scratch: BytesMut,
    /// Puts and reads that were answered.
    answered: u64,
}

impl Member {
    fn open(id: NodeId, founders: &[Founder]) -> Member {
        let identity = Identity { node_id: id, cluster_id: 0xc1 };
        let mut config = Config::new(identity, "/data");
        (config.seed, config.start_ms) = (id, 1_000);
        config.segment_bytes = SEGMENT_BYTES;
        let disk = Arc::new(Memory::new(id));
        let bootstrap = Bootstrap::New(founders.to_vec());
        let parts = replica::open(disk, config, bootstrap).expect("an empty disk opens");
        Member {
            parts,
            inbox: Vec::new(),
            waiters: Waiters::new(id, SHARD, 1_000, 1 << 16),
            reads: ReadWaits::new(1 << 16),
            scratch: BytesMut::with_capacity(64 << 10),
            answered: 0,
        }
    }

    /// One turn of the replica, and all the work that comes of it. What is to be sent.
    fn turn(&mut self) -> Vec<Message> {
        let inputs = mem::take(&mut self.inbox);
        inputs.into_iter().for_each(|input| self.parts.replica.handle(input));
        let out = self.parts.replica.output();
        for notice in &out.notices {
            assert!(!matches!(notice, Notice::Fatal(_)), "{notice:?}");
        }
        let mut messages = out.messages;
        if !out.log.is_empty() {
            let done = self.parts.log.run(out.log);
            self.inbox.extend(done.completion.map(Input::Done));
            messages.extend(done.messages);
        }
        if !out.apply.is_empty() {
            let done = self.parts.apply.run(out.apply);
            self.inbox.extend(done.completion.map(Input::Done));
            for applied in done.shards.into_iter().flat_map(|shard| shard.replies) {
                if self.waiters.take(applied.id).is_some() {
                    self.answer(&applied.result.expect("nothing is wrong with a put"));
                }
            }
        }
        if !out.flush.is_empty() {
            let done = self.parts.flush.run(out.flush);
            self.inbox.extend(done.completion.map(Input::Done));
        }
        if !out.reads.is_empty() {
            let done = self.parts.reads.run(out.reads);
            self.inbox.extend(done.completion.map(Input::Done));
        }
        for answer in out.answers.into_iter().flat_map(|(_, answers)| answers) {
            let Answer::Read { batch, result: Ok(index) } = answer else { panic!("{answer:?}") };
            self.reads.confirmed(batch, index);
            self.parts.view.set_waiting(SHARD, true);
        }
        if self.reads.waits_for_apply() {
            let ready = self.reads.applied(self.parts.view.applied());
            ready.iter().for_each(|request| self.read(request));
            if !self.reads.waits_for_apply() {
                self.parts.view.set_waiting(SHARD, false);
            }
        }
        messages
    }

    fn propose(&mut self, batch: impl Iterator<Item = PutRequest>) {
        let propose = |put| {
            let id = self.waiters.add((), DEADLINE_MS).expect("there is room for a batch");
            let request = Request::try_from(put).expect("nothing is wrong with a put");
            let data = Command { id, caller: Caller::default(), request }.encode();
            Proposal { id, data, lane: Lane::Ordinary }
        };
        let list = batch.map(propose).collect();
        self.inbox.push(Input::Propose(Proposals { shard: SHARD, list }));
    }

    /// As a shard does: at once on a member that is alone, else once a read index is known and applied.
    fn ask(&mut self, batch: impl Iterator<Item = RangeRequest>) {
        for request in batch {
            state_machine::check_range(&request).expect("nothing is wrong with a range");
            match self.parts.view.lone() {
                true => self.read(&request),
                false => self.reads.add(request, DEADLINE_MS).expect("there is room for a batch"),
            }
        }
        if let Some(batch) = self.reads.batch() {
            self.inbox.push(Input::ReadIndex(ReadBatch { shard: SHARD, batch }));
        }
    }

    fn read(&mut self, request: &RangeRequest) {
        match self.parts.view.state.range(request, Effort::Try) {
            Ok(state_machine::Answer::Ready(reply @ Reply::Range(_))) => self.answer(&reply),
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, reply: &Reply) {
        if let Reply::Range(range) = reply {
            assert_eq!(range.count, 1, "every key is there");
        }
        let header = Header {
            cluster_id: 0xc1,
            member_id: 1,
            revision: self.parts.view.state.revision(),
            raft_term: self.parts.view.term().0,
        };
        reply.encode(&header, &mut self.scratch);
        self.scratch.clear();
        self.answered += 1;
    }
}

/// All members; the first leads.
struct House {
    members: Vec<Member>,
    /// Without a pattern, and always the same.
    random: u64,
    done: u64,
}

impl House {
    fn new(members: u64) -> House {
        let founder = |id| Founder {
            node_id: id,
            context: Founding {
                id,
                name: format!("m{id}"),
                peer_urls: vec![format!("http://10.0.0.{id}:2380")],
                ..Founding::default()
            }
            .to_context(),
        };
        let founders: Vec<Founder> = (1..=members).map(founder).collect();
        let members = (1..=members).map(|id| Member::open(id, &founders)).collect();
        let mut house = House { members, random: 1, done: 0 };
        house.settle();
        while house.members[0].parts.replica.status().role != RoleKind::Leader {
            house.members[0].inbox.push(Input::Tick { elapsed: 1 });
            house.settle();
        }
        for key in (0..KEYS).step_by(FILL_BATCH as usize) {
            house.members[0].propose((key..key + FILL_BATCH).map(put));
            house.settle();
        }
        house
    }

    /// Runs until nothing is left to do.
    fn settle(&mut self) {
        while self.members.iter().any(|member| !member.inbox.is_empty()) {
            for place in 0..self.members.len() {
                for message in self.members[place].turn() {
                    let to = message.to as usize - 1;
                    self.members[to].inbox.push(Input::Messages(vec![message]));
                }
            }
        }
    }

    fn batch(&mut self, work: Work, batch: u64) {
        let random = &mut self.random;
        let keys = (0..batch).map(|_| {
            // xorshift64.
            *random ^= *random << 13;
            *random ^= *random >> 7;
            *random ^= *random << 17;
            *random % KEYS
        });
        match work {
            Work::Put => self.members[0].propose(keys.map(put)),
            Work::Range => self.members[0].ask(keys.map(range)),
        }
        self.settle();
        let before = self.done;
        self.done += batch;
        if self.done / TICK_EVERY > before / TICK_EVERY {
            self.members.iter_mut().for_each(|m| m.inbox.push(Input::Tick { elapsed: 1 }));
            self.settle();
        }
        assert_eq!(self.members[0].answered, KEYS + self.done, "everybody was answered");
    }
}

fn key(number: u64) -> Bytes {
    format!("/registry/pods/namespace/{number:08}").into()
}

fn put(number: u64) -> PutRequest {
    PutRequest { key: key(number), value: vec![7; VALUE_BYTES].into(), ..PutRequest::default() }
}

fn range(number: u64) -> RangeRequest {
    RangeRequest { key: key(number), ..RangeRequest::default() }
}

fn main() -> ExitCode {
    // What `cargo bench` adds is none of ours.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let Some((work, members, batch, operations)) = read(&arguments) else {
        eprintln!("usage: put|range MEMBERS BATCH OPERATIONS");
        return ExitCode::from(2);
    };
    let mut house = House::new(members);
    for _ in 0..operations / batch {
        house.batch(work, batch);
    }
    ExitCode::SUCCESS
}

fn read(arguments: &[String]) -> Option<(Work, u64, u64, u64)> {
    let [work, numbers @ ..] = arguments else { return None };
    let work = match work.as_str() {
        "put" => Work::Put,
        "range" => Work::Range,
        _ => return None,
    };
    let numbers: Option<Vec<u64>> = numbers.iter().map(|number| number.parse().ok()).collect();
    match numbers?[..] {
        [members, batch, operations] if members > 0 && batch > 0 => {
            Some((work, members, batch, operations))
        }
        _ => None,
    }
}
