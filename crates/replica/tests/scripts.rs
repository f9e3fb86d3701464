//! Readable lives of members: each script under `tests/scripts` shows who may do what before whom, in a house of
//! replicas whose workers the script holds and lets go.
//!
//! ```text
//!   cluster N... [SETTING=V]...        a new cluster in which the first leads; settings are those of `set`
//!   start N join|restart|new, kill N   a member's process begins, in an empty house or its own; it dies
//!   put N KEY VALUE [size=B] [lease=ID], delete N KEY, grant N ID TTL, revoke N ID, compact N REVISION [physical]
//!   add N WHO, learn N WHO, promote N WHO, remove N WHO
//!                                      proposals at member N; each gets the next name p1, p2 …
//!   read N                             a linearizable read at member N; the next name r1, r2 …
//!   keep-alive N ID, time-left N ID    questions to the lease clock of member N
//!   transfer N WHO, stop N             leadership, and the end
//!   run                                everything that is not held, until nothing is left to do
//!   tick [T] [only=N] [pause=E]        so many ticks for everybody, or for one; or one tick after a pause of E
//!   hold N WORKER..., let N WORKER...  the log, apply, flush or read worker of a member stands still, or works again
//!   jobs N                             what waits for the workers of a member
//!   isolate N, cut N TO, heal          the network
//!   get N KEY, status N, files N, same what can be seen
//! ```
//!
//! Whatever ran says which members answered what, and what they noticed. The tag `[sent]` shows the messages as well, and
//! the name of any other stage of [`Trace`], as in `[synced]`, shows these. With a prefix, as in `2: power lost`, a
//! command is about that member's disk: see `vfs/tests/script/mod.rs`; its files stand in `/data/member/wal`.

#![allow(clippy::unwrap_used)]

mod house;
#[path = "../../vfs/tests/script/mod.rs"]
mod script;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use goldenscript::{ArgumentConsumer, Command, Runner};
use house::*;
use raft::{ConfChange, ConfChangeKind, Message, MessageKind, NodeId};
use replica::*;
use script::Disk;
use state_machine::{Reply, Request, RequestId};
use vfs::Vfs;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

#[test]
fn scripts() {
    script::run_all(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts"), Play::new);
}

struct Play {
    house: House,
    settings: Vec<(String, u64)>,
    proposals: Vec<Proposed>,
    reads: u64,
    /// How much of each member's answers, notices and trace was shown.
    shown: BTreeMap<NodeId, (usize, usize, usize)>,
    sent: usize,
}

struct Proposed {
    at: NodeId,
    id: RequestId,
    is_told: bool,
}

impl Play {
    fn new() -> Play {
        Play {
            house: House::new(&[]),
            settings: Vec::new(),
            proposals: Vec::new(),
            reads: 0,
            shown: BTreeMap::new(),
            sent: 0,
        }
    }

    fn node(&mut self, args: &mut ArgumentConsumer<'_>) -> Outcome<&mut Node> {
        let id: NodeId = args.next_pos().ok_or("which member?")?.parse()?;
        self.house.nodes.get_mut(&id).ok_or_else(|| format!("there is no member {id}").into())
    }

    fn config(&self, id: NodeId) -> Outcome<Config> {
        let mut config = config(id);
        for (name, value) in &self.settings {
            set(&mut config, name, *value)?;
        }
        Ok(config)
    }

    fn propose(&mut self, at: NodeId, id: RequestId) {
        self.proposals.push(Proposed { at, id, is_told: false });
    }

    /// What came of all that ran.
    fn news(&mut self, command: &Command, out: &mut String) -> std::fmt::Result {
        let is_tagged = |tag: &str| command.tags.contains(tag);
        if is_tagged("sent") {
            for message in &self.house.sent[self.sent..] {
                writeln!(out, "{} to {}: {}", message.from, message.to, show_message(message))?;
            }
        }
        self.sent = self.house.sent.len();
        for (id, node) in &self.house.nodes {
            let (answers, notices, traced) = self.shown.entry(*id).or_default();
            for event in &node.trace[*traced..] {
                let text = format!("{event:?}");
                let name = text.split([' ', '{']).next().unwrap_or("").to_lowercase();
                // Messages have a tag of their own, and the order in which they left.
                if is_tagged(&name) && name != "sent" {
                    let named = |id| {
                        let known = |known: &Proposed| known.id == id;
                        let name = self.proposals.iter().position(known);
                        name.map_or("?".into(), |n| format!("p{}", n + 1))
                    };
                    writeln!(out, "{id}: {}", show_trace(event, &named))?;
                }
            }
            for notice in &node.notices[*notices..] {
                writeln!(out, "{id}: {}", show_notice(notice))?;
            }
            for answer in &node.answers[*answers..] {
                let text = match answer {
                    Answer::Refused { id: of, why } => {
                        let known = |known: &&mut Proposed| known.at == *id && known.id == *of;
                        if let Some(proposed) = self.proposals.iter_mut().find(known) {
                            proposed.is_told = true;
                        }
                        let name = self.proposals.iter().position(|p| p.at == *id && p.id == *of);
                        format!("p{} refused: {why:?}", name.map_or(0, |n| n + 1))
                    }
                    Answer::Read { batch, result: Ok(index) } => {
                        format!("r{batch} may read at {index}")
                    }
                    Answer::Read { batch, result: Err(why) } => {
                        format!("r{batch} refused: {why:?}")
                    }
                    Answer::Lease(answer) => {
                        format!("lease {}: {}", answer.lease, show_lease(answer))
                    }
                    Answer::Transferred { result: Ok(()), .. } => "transferred".to_owned(),
                    Answer::Transferred { result: Err(why), .. } => {
                        format!("not transferred: {why:?}")
                    }
                };
                writeln!(out, "{id}: {text}")?;
            }
            (*answers, *notices) = (node.answers.len(), node.notices.len());
            *traced = node.trace.len();
            for (n, proposed) in self.proposals.iter_mut().enumerate() {
                if proposed.at == *id
                    && !proposed.is_told
                    && let Some(reply) = node.reply(proposed.id)
                {
                    proposed.is_told = true;
                    writeln!(out, "{id}: p{} {}", n + 1, show_reply(reply))?;
                }
            }
        }
        Ok(())
    }

    fn act(&mut self, command: &Command, out: &mut String) -> Outcome {
        let mut args = command.consume_args();
        match command.name.as_str() {
            "cluster" => {
                let settings = args.rest_key();
                self.settings = settings
                    .iter()
                    .map(|arg| Ok((arg.name().to_owned(), arg.parse()?)))
                    .collect::<Outcome<Vec<_>>>()?;
                let ids: Vec<NodeId> =
                    args.rest_pos().iter().map(|arg| arg.parse()).collect::<Outcome<_>>()?;
                let configs: BTreeMap<NodeId, Config> =
                    ids.iter().map(|id| Ok((*id, self.config(*id)?))).collect::<Outcome<_>>()?;
                self.house = House::with(&ids, |config| configs[&config.identity.node_id].clone());
                let leader = self.house.elect();
                self.house.ticks(2);
                if leader != ids[0] {
                    let asker = Asker::Shard { shard: SHARD, token: 0 };
                    let transfer = Input::TransferLeader { asker, to: ids[0] };
                    self.house.node(leader).inbox.push_back(transfer);
                    self.house.settle();
                    self.house.ticks(2);
                }
                assert!(self.house.node(ids[0]).leads(), "the first of a cluster leads");
                let mut before = String::new();
                self.news(command, &mut before)?;
                return args.reject_rest();
            }
            "start" => {
                let id: NodeId = args.next_pos().ok_or("which member?")?.parse()?;
                let others: Vec<NodeId> = self.house.nodes.keys().copied().collect();
                let bootstrap = match args.next_pos().ok_or("how?")?.value.as_str() {
                    "join" => Bootstrap::Join,
                    "restart" => Bootstrap::Restart,
                    "new" => Bootstrap::New(founders(&others)),
                    other => return Err(format!("{other} is no beginning").into()),
                };
                let config = self.config(id)?;
                match self.house.nodes.get_mut(&id) {
                    Some(node) => node.open(bootstrap)?,
                    None => {
                        self.house.nodes.insert(id, Node::new(config, bootstrap));
                    }
                }
            }
            "kill" => self.node(&mut args)?.kill(),
            "put" | "delete" | "grant" | "revoke" | "compact" => {
                let node = self.node(&mut args)?;
                let id = node.propose(parse_request(&command.name, &mut args)?);
                let at = node.id;
                self.propose(at, id);
            }
            "add" | "learn" | "promote" | "remove" => {
                let node = self.node(&mut args)?;
                let who = args.next_pos().ok_or("who?")?.parse()?;
                let at = node.id;
                let id = match command.name.as_str() {
                    "add" => node.change(ConfChangeKind::AddNode, who),
                    "learn" => node.change(ConfChangeKind::AddLearnerNode, who),
                    "remove" => node.change(ConfChangeKind::RemoveNode, who),
                    _ => promote(node, who),
                };
                self.propose(at, id);
            }
            "read" => {
                self.reads += 1;
                let batch = self.reads;
                self.node(&mut args)?.read_index(batch);
            }
            "keep-alive" | "time-left" => {
                let question = match command.name.as_str() {
                    "keep-alive" => LeaseQuestion::KeepAlive,
                    _ => LeaseQuestion::TimeToLive,
                };
                let node = self.node(&mut args)?;
                node.ask_lease(args.next_pos().ok_or("which lease?")?.parse()?, question);
            }
            "transfer" => {
                let node = self.node(&mut args)?;
                let to = args.next_pos().ok_or("to whom?")?.parse()?;
                let asker = Asker::Shard { shard: SHARD, token: 0 };
                node.inbox.push_back(Input::TransferLeader { asker, to });
            }
            "stop" => self.node(&mut args)?.inbox.push_back(Input::Stop),
            "run" => self.house.settle(),
            "tick" => {
                let count = args.next_pos().map_or(Ok(1), |arg| arg.parse())?;
                let pause = args.lookup_parse("pause")?.unwrap_or(1);
                let one: Option<NodeId> = args.lookup_parse("only")?;
                for _ in 0..count {
                    for node in self.house.nodes.values_mut() {
                        if node.is_up() && one.is_none_or(|one| one == node.id) {
                            node.tick(pause);
                        }
                    }
                    self.house.settle();
                }
            }
            "hold" | "let" => {
                let node = self.node(&mut args)?;
                for arg in args.rest_pos() {
                    let worker = match arg.value.as_str() {
                        "log" => Worker::Log,
                        "apply" => Worker::Apply,
                        "flush" => Worker::Flush,
                        "read" => Worker::Read,
                        other => return Err(format!("{other} is no worker").into()),
                    };
                    if command.name == "hold" { node.hold(worker) } else { node.release(worker) }
                }
            }
            "jobs" => {
                let node = self.node(&mut args)?;
                node.log
                    .iter()
                    .for_each(|job| writeln!(out, "log: {}", show_log_job(job)).unwrap());
                for job in &node.apply {
                    writeln!(out, "apply: {}", show_apply_job(job))?;
                }
                node.flush.iter().for_each(|job| writeln!(out, "flush: {}", head(job)).unwrap());
                node.reads.iter().for_each(|job| writeln!(out, "read: {}", head(job)).unwrap());
            }
            "isolate" => {
                let id = self.node(&mut args)?.id;
                self.house.isolate(id);
            }
            "cut" => {
                let from = self.node(&mut args)?.id;
                let to = args.next_pos().ok_or("to whom?")?.parse()?;
                self.house.cut.insert((from, to));
            }
            "heal" => self.house.heal(),
            "get" => {
                let node = self.node(&mut args)?;
                let value = node.get(&args.next_pos().ok_or("which key?")?.value);
                let shown = value.map_or("nothing".into(), |value| match value.len() {
                    0..=20 => value,
                    len => format!("{len} bytes"),
                });
                writeln!(out, "{shown}")?;
            }
            "status" => {
                let node = self.node(&mut args)?;
                let (status, takes) = (node.replica().status(), node.replica().takes_proposals());
                let view = node.view();
                writeln!(
                    out,
                    "{:?} in term {}, leader {}, log up to {}, committed {}, applied {}",
                    status.role,
                    status.term,
                    status.leader,
                    status.last,
                    status.commit,
                    view.applied(),
                )?;
                let conf = &status.conf_state;
                writeln!(out, "voters {:?}, learners {:?}", conf.voters, conf.learners)?;
                let (revision, leases) = (view.state.revision(), view.state.leases().len());
                let lone = if view.lone() { ", reads without a round" } else { "" };
                let full = if takes { "" } else { ", takes no proposals" };
                writeln!(out, "revision {revision}, {leases} leases{lone}{full}")?;
            }
            "files" => {
                let node = self.node(&mut args)?;
                for dir in ["wal", "store", "incoming"] {
                    let path = Path::new("/data/member").join(dir);
                    if node.vfs.exists(&path)? {
                        let names = node.vfs.list(&path)?;
                        writeln!(out, "{dir}: {}", script::short(&names.join(" ")))?;
                    }
                }
            }
            "same" => {
                let up = self.house.nodes.values().filter(|node| node.is_up());
                let hashes: Vec<String> = up.map(|node| format!("{:?}", node.hash())).collect();
                let same = hashes.windows(2).all(|pair| pair[0] == pair[1]);
                writeln!(
                    out,
                    "{} members {}",
                    hashes.len(),
                    if same { "are the same" } else { "differ" }
                )?;
            }
            other => return Err(format!("unknown command {other}").into()),
        }
        self.news(command, out)?;
        args.reject_rest()
    }
}

impl Runner for Play {
    fn run(&mut self, command: &Command) -> Outcome<String> {
        let mut out = String::new();
        if let Some(member) = &command.prefix {
            let id: NodeId = member.parse()?;
            let node = self.house.node(id);
            if command.name == "power" {
                node.kill();
            }
            let disk = Disk::of(node.vfs.clone());
            let done = disk.run(command, Path::new("/data/member/wal"))?;
            return done.ok_or_else(|| "this is not about a disk".into());
        }
        self.act(command, &mut out).map_err(|error| format!("{out}{error}"))?;
        Ok(out)
    }
}

fn set(config: &mut Config, name: &str, value: u64) -> Outcome {
    let limits = &mut config.limits;
    let count = usize::try_from(value)?;
    match name {
        "snapshot-count" => config.snapshot_count = value,
        "catch-up" => config.snapshot_catchup_entries = value,
        "wal-segment" => config.segment_bytes.wal = value,
        "store-segment" => config.segment_bytes.store = value,
        "request-bytes" => config.max_request_bytes = count,
        "election-ticks" => config.election_ticks = u32::try_from(value)?,
        "apply-lag" => limits.apply_lag = value,
        "apply-lag-priority" => limits.apply_lag_priority = value,
        "held-proposals" => limits.held_proposals = count,
        "uncommitted-bytes" => limits.uncommitted_bytes = value,
        "unflushed-bytes" => limits.unflushed_bytes = value,
        "unflushed-bytes-hard" => limits.unflushed_bytes_hard = value,
        "frame-bytes" => limits.frame_bytes = count,
        "store-sync-bytes" => limits.store_sync_bytes = value,
        "log-memory-bytes" => limits.log_memory_bytes = value,
        "message-bytes" => limits.message_bytes = value,
        "read-rounds" => limits.read_rounds = count,
        "lease-waits" => limits.lease_waits = count,
        other => return Err(format!("{other} is no setting").into()),
    }
    Ok(())
}

fn parse_request(name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome<Request> {
    let size: Option<usize> = args.lookup_parse("size")?;
    let lease = args.lookup_parse("lease")?.unwrap_or(0);
    let mut next = || args.next_pos().ok_or("what else?");
    Ok(match name {
        "put" => {
            let (key, value) = (&next()?.value, &next()?.value);
            let value = match size {
                Some(size) => value.chars().cycle().take(size).collect(),
                None => value.clone(),
            };
            put_request(key, value.as_bytes(), lease)
        }
        "delete" => delete_request(&next()?.value),
        "grant" => grant_request(next()?.parse()?, next()?.parse()?),
        "revoke" => revoke_request(next()?.parse()?),
        _ => {
            let revision = next()?.parse()?;
            let physical = args.next_pos().is_some();
            Request::Compact(proto::etcdserverpb::CompactionRequest { revision, physical })
        }
    })
}

/// Proposes that a learner becomes a voter.
fn promote(node: &mut Node, who: NodeId) -> RequestId {
    let id = node.waiters.add(String::new(), u64::MAX >> 8).unwrap();
    let context = state_machine::MembershipChange::promote_context(who);
    let data = ConfChange { id: id.0, kind: ConfChangeKind::AddNode, node_id: who, context };
    let list = vec![Proposal { id, data: data.encode(), lane: Lane::Membership }];
    node.inbox.push_back(Input::Propose(Proposals { shard: SHARD, list }));
    id
}

fn show_message(message: &Message) -> String {
    let said = Said::of(message);
    let what = match said.kind {
        MessageKind::App => {
            format!("{} entries after {}, commit {}", said.entries, said.index, said.commit)
        }
        MessageKind::AppResp if said.reject => format!("no, not after {}", said.index),
        MessageKind::AppResp => format!("durable up to {}", said.index),
        MessageKind::Prop => format!("{} proposals", said.entries),
        MessageKind::Vote | MessageKind::PreVote => format!("my log ends at {}", said.index),
        MessageKind::VoteResp | MessageKind::PreVoteResp => {
            if said.reject {
                "no".to_owned()
            } else {
                "yes".to_owned()
            }
        }
        MessageKind::Snap => format!("the state at {}", said.index),
        MessageKind::Heartbeat => format!("commit {}", said.commit),
        MessageKind::ReadIndexResp => format!("index {}", said.index),
        _ => return format!("{:?}", said.kind),
    };
    format!("{:?}, {what}", said.kind)
}

fn show_trace(event: &Trace, name: &dyn Fn(RequestId) -> String) -> String {
    let range = |first: &raft::Index, last: &raft::Index| format!("{first}..{last}");
    match event {
        Trace::Proposed { id, .. } => format!("{} proposed", name(*id)),
        Trace::Appended { first, last, term } => {
            format!("appended {} in term {term}", range(first, last))
        }
        Trace::Sent { to, message } => format!("sent {:?} to {to}", message.kind),
        Trace::Received { from, message } => format!("received {:?} from {from}", message.kind),
        Trace::Written { first, last } => format!("wrote {}", range(first, last)),
        Trace::BallotWritten { term, vote } => format!("wrote term {term}, vote for {vote}"),
        Trace::Synced { last } => format!("synced up to {last}"),
        Trace::Matched { node, index } => format!("{node} is known to have {index}"),
        Trace::Committed { index } => format!("committed {index}"),
        Trace::Applied { index } => format!("applied {index}"),
        Trace::Answered { id, index } => format!("answered {} of index {index}", name(*id)),
        Trace::FrameWritten { index } => format!("frame up to {index} written"),
        Trace::StoreSynced { index } => format!("store synced up to {index}"),
        Trace::Marked { index } => format!("log marked at {index}"),
        Trace::Released { index } => format!("log released up to {index}"),
        Trace::ReadConfirmed { index } => format!("read index {index} confirmed"),
        Trace::Role { role, term, leader } => format!("{role:?} in term {term}, leader {leader}"),
        Trace::SnapshotPinned { to, index } => format!("state at {index} pinned for {to}"),
        Trace::SnapshotImported { index } => format!("state at {index} imported"),
        Trace::SnapshotInstalled { index } => format!("state at {index} in force"),
    }
}

fn show_notice(notice: &Notice) -> String {
    match notice {
        Notice::Leader { leader: 0, term } => format!("nobody leads in term {term}"),
        Notice::Leader { leader, term } => format!("{leader} leads in term {term}"),
        Notice::Ready => "ready".to_owned(),
        Notice::Membership(conf) => {
            format!("voters {:?}, learners {:?}", conf.voters, conf.learners)
        }
        Notice::Removed => "removed".to_owned(),
        Notice::SnapshotInstalled { index, term } => {
            format!("took the state at {index} of term {term}")
        }
        Notice::LogReleased { index } => format!("log released up to {index}"),
        Notice::Space(space) => format!("space: {space:?}"),
        Notice::Damage(what) => format!("damage: {}", script::short(what)),
        Notice::Stopped => "stopped".to_owned(),
        Notice::Forgotten { acknowledged, last } => {
            format!("forgot up to {acknowledged}, ends with {last}")
        }
        Notice::Fatal(failure) => format!("must end: {}", script::short(&failure.to_string())),
    }
}

fn show_lease(answer: &LeaseAnswer) -> String {
    match answer.result {
        Ok(LeaseTime::KeptAlive { ttl }) => format!("{ttl} s from now"),
        Ok(LeaseTime::Remaining { remaining, granted }) => {
            format!("{remaining} of {granted} s left")
        }
        Ok(LeaseTime::Unknown) => "unknown".to_owned(),
        Err(why) => format!("refused: {why:?}"),
    }
}

fn show_reply(reply: &Result<Reply, state_machine::Error>) -> String {
    match reply {
        Ok(Reply::Put(put)) => format!("done, revision {}", put.revision),
        Ok(Reply::DeleteRange(delete)) => {
            format!("done, {} deleted, revision {}", delete.deleted, delete.revision)
        }
        Ok(Reply::Compact { revision } | Reply::LeaseRevoke { revision }) => {
            format!("done, revision {revision}")
        }
        Ok(Reply::LeaseGrant { id, ttl, .. }) => format!("done, lease {id} of {ttl} s"),
        Ok(_) => "done".to_owned(),
        Err(error) => format!("failed: {error}"),
    }
}

fn show_log_job(job: &LogJob) -> String {
    match job {
        LogJob::Append(append) => {
            let entries = match (append.entries.first(), append.entries.last()) {
                (Some(first), Some(last)) => format!("entries {}..{}", first.index, last.index),
                _ => "no entries".to_owned(),
            };
            let state = append.hard_state.map_or(String::new(), |state| {
                format!(", term {} vote {} commit {}", state.term, state.vote, state.commit)
            });
            let sync = if append.sync { ", and sync" } else { "" };
            let after: Vec<String> = append
                .after
                .iter()
                .map(|message| format!("; then to {}: {}", message.to, show_message(message)))
                .collect();
            format!("append {entries}{state}{sync}{}", after.concat())
        }
        LogJob::Mark { record, hard_state } => {
            format!("mark {}, commit {}", record.index, hard_state.commit)
        }
        LogJob::Release { up_to } => format!("release up to {up_to}"),
    }
}

fn show_apply_job(job: &ApplyJob) -> String {
    match job {
        ApplyJob::Entries(entries) => match (entries.first(), entries.last()) {
            (Some(first), Some(last)) => format!("entries {}..{}", first.index, last.index),
            _ => "no entries".to_owned(),
        },
        ApplyJob::Membership { entry, .. } => format!("membership entry {}", entry.index),
        other => head(other),
    }
}

/// A job's kind.
fn head(job: &dyn std::fmt::Debug) -> String {
    let text = format!("{job:?}");
    text.split(['(', ' ', '{']).next().unwrap_or("").to_owned()
}
