//! `snapshot --real`: how long a snapshot takes on a real disk, measured with a real clock.
//!
//! Two members in one thread, without a simulator: each is asked for its output until it has nothing to do, and its jobs
//! are run where they are handed out. The first is the only voter and writes; the second joins when the log that it would
//! need is gone, and gets everything as a snapshot. Files and clock come from the caller.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::etcdserverpb::PutRequest;
use raft::{ConfChange, ConfChangeKind, Message};
use replica::{
    Bootstrap, Config, Founder, Identity, Input, Lane, Names, Notice, Opened, OutgoingSnapshot,
    Proposal, Proposals, Receptions, Shard,
};
use state_machine::{Caller, Command, Member, Request};
use vfs::Vfs;

use crate::checker::CLUSTER;

/// The size of a value.
const VALUE_BYTES: usize = 4 << 10;
/// Puts that go into the log together.
const BATCH: usize = 64;
/// Ticks after which whatever is waited for will not come any more.
const PATIENCE_TICKS: u32 = 1_000;

/// How long each part took for one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Values in the state, in MiB.
    pub mib: u64,
    /// To write them: through raft, log and store of one member, synced for each 64 values.
    pub write: Duration,
    /// To stream all of it to the other member's disk: read, sent, received, checked and synced.
    pub stream: Duration,
    /// To import it there, and to put it in force.
    pub import: Duration,
    /// To start that member again from what lies on its disk.
    pub restart: Duration,
}

/// Measures each size in a new subdirectory of `dir`, and removes what it has written. `clock` says how late it is.
pub fn measure(
    vfs: Arc<dyn Vfs>,
    dir: &Path,
    sizes_mib: &[u64],
    clock: &mut dyn FnMut() -> Duration,
) -> Result<Vec<Measured>, String> {
    sizes_mib
        .iter()
        .map(|mib| {
            let dir = dir.join(format!("quorate-lab-{mib}"));
            if vfs.exists(&dir).map_err(told("looking for the directory"))? {
                return Err(format!("{} is there already; remove it first", dir.display()));
            }
            let measured = measure_one(&vfs, &dir, *mib, clock);
            vfs.remove_dir_all(&dir).map_err(told("removing what was written"))?;
            measured
        })
        .collect()
}

fn told<E: std::fmt::Display>(doing: &str) -> impl Fn(E) -> String {
    move |error| format!("{doing}: {error}")
}

fn measure_one(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    mib: u64,
    clock: &mut dyn FnMut() -> Duration,
) -> Result<Measured, String> {
    let founder = Founder { node_id: 1, context: member(1).to_context() };
    let mut writer = Half::open(vfs, &dir.join("1"), 1, Bootstrap::New(vec![founder]))?;
    writer.work()?;
    let mut names = Names::new(1, Shard(0), writer.config.start_ms);

    let began = clock();
    let mut left = ((mib << 20) as usize).div_ceil(VALUE_BYTES);
    while left > 0 {
        let count = left.min(BATCH);
        let list = (left - count..left).map(|number| {
            let id = names.next_name();
            let put = PutRequest {
                key: format!("key-{number:08}").into(),
                value: Bytes::from(vec![number as u8; VALUE_BYTES]),
                ..PutRequest::default()
            };
            let command = Command { id, caller: Caller::default(), request: Request::Put(put) };
            Proposal { id, data: command.encode(), lane: Lane::Ordinary }
        });
        let list = list.collect();
        writer.inbox.push_back(Input::Propose(Proposals { shard: Shard(0), list }));
        writer.work()?;
        left -= count;
    }
    let write = clock() - began;

    // The last entries are marked and released when ticks have cut their frame.
    for _ in 0..40 {
        writer.inbox.push_back(Input::Tick { elapsed: 1 });
        writer.work()?;
    }
    let mut reader = Half::open(vfs, &dir.join("2"), 2, Bootstrap::Join)?;
    let id = names.next_name();
    let (kind, context) = (ConfChangeKind::AddLearnerNode, member(2).to_context());
    let data = ConfChange { id: id.0, kind, node_id: 2, context }.encode();
    let list = vec![Proposal { id, data, lane: Lane::Membership }];
    writer.inbox.push_back(Input::Propose(Proposals { shard: Shard(0), list }));

    let snapshot = exchange(&mut writer, &mut reader, |writer, _| writer.snapshots.pop())?;
    let began = clock();
    let (message, file) = stream(vfs, &reader.config, snapshot)?;
    let arrived = clock();
    writer.inbox.push_back(Input::SnapshotSent { to: 2, ok: true });
    reader.inbox.push_back(Input::SnapshotReceived { message: Box::new(message), file });
    exchange(&mut writer, &mut reader, |_, reader| reader.installed.then_some(()))?;
    let installed = clock();

    drop(reader);
    let began_again = clock();
    let mut reader = Half::open(vfs, &dir.join("2"), 2, Bootstrap::Restart)?;
    let restart = clock() - began_again;
    exchange(&mut writer, &mut reader, |writer, reader| {
        (reader.parts.view.applied() == writer.parts.view.applied()).then_some(())
    })?;
    let (one, other) = (&writer.parts.view.state, &reader.parts.view.state);
    match one.revision() == other.revision() {
        true => Ok(Measured {
            mib,
            write,
            stream: arrived - began,
            import: installed - arrived,
            restart,
        }),
        false => Err(format!("revision {} became {}", one.revision(), other.revision())),
    }
}

fn member(id: u64) -> Member {
    Member {
        id,
        name: format!("m{id}"),
        peer_urls: vec![format!("http://10.0.0.{id}:2380")],
        is_learner: id == 2,
        ..Member::default()
    }
}

/// The whole way of a snapshot from one disk to the other.
fn stream(
    vfs: &Arc<dyn Vfs>,
    receiver: &Config,
    outgoing: OutgoingSnapshot,
) -> Result<(Message, replica::Received), String> {
    let OutgoingSnapshot { message, mut stream, .. } = outgoing;
    let mut incoming = Receptions::default()
        .begin(vfs.clone(), receiver, &message)
        .map_err(told("beginning to receive the snapshot"))?;
    while let Some(chunk) = stream.next_chunk().map_err(told("reading the snapshot"))? {
        incoming.write(&chunk).map_err(told("writing the snapshot"))?;
    }
    let file = incoming.finish().map_err(told("checking the snapshot"))?;
    Ok((message, file))
}

/// Lets both work, and time pass when they have nothing to do, until there is what is waited for.
fn exchange<T>(
    one: &mut Half,
    other: &mut Half,
    mut wanted: impl FnMut(&mut Half, &mut Half) -> Option<T>,
) -> Result<T, String> {
    for _ in 0..PATIENCE_TICKS {
        loop {
            one.work()?;
            other.work()?;
            if let Some(found) = wanted(one, other) {
                return Ok(found);
            }
            let (there, back) = (std::mem::take(&mut one.sent), std::mem::take(&mut other.sent));
            if there.is_empty() && back.is_empty() {
                break;
            }
            other.inbox.push_back(Input::Messages(there));
            one.inbox.push_back(Input::Messages(back));
        }
        one.inbox.push_back(Input::Tick { elapsed: 1 });
        other.inbox.push_back(Input::Tick { elapsed: 1 });
    }
    Err("two members came to no end".to_owned())
}

/// One of the two members.
struct Half {
    config: Config,
    parts: Opened,
    inbox: VecDeque<Input>,
    sent: Vec<Message>,
    snapshots: Vec<OutgoingSnapshot>,
    installed: bool,
}

impl Half {
    fn open(
        vfs: &Arc<dyn Vfs>,
        dir: &Path,
        node_id: u64,
        bootstrap: Bootstrap,
    ) -> Result<Half, String> {
        let mut config = Config::new(Identity { node_id, cluster_id: CLUSTER }, dir);
        // The log is to be gone when the second member asks for it.
        config.snapshot_count = 32;
        config.snapshot_catchup_entries = 0;
        config.seed = node_id;
        config.start_ms = 1_700_000_000_000;
        vfs.create_dir_all(dir).map_err(told("making the directory"))?;
        let parts = replica::open(vfs.clone(), config.clone(), bootstrap)
            .map_err(|error| format!("starting member {node_id}: {error}"))?;
        let (inbox, sent, snapshots) = (VecDeque::new(), Vec::new(), Vec::new());
        Ok(Half { config, parts, inbox, sent, snapshots, installed: false })
    }

    /// Turns, and the jobs that they hand out, until there is nothing left to do.
    fn work(&mut self) -> Result<(), String> {
        loop {
            for input in std::mem::take(&mut self.inbox) {
                self.parts.replica.handle(input);
            }
            let out = self.parts.replica.output();
            if out.is_empty() {
                return Ok(());
            }
            self.sent.extend(out.messages);
            self.snapshots.extend(out.snapshots);
            for notice in out.notices {
                match notice {
                    Notice::Fatal(failure) => return Err(failure.to_string()),
                    Notice::SnapshotInstalled { .. } => self.installed = true,
                    _ => {}
                }
            }
            let log = self.parts.log.run(out.log);
            self.sent.extend(log.messages);
            let apply = self.parts.apply.run(out.apply);
            let flush = self.parts.flush.run(out.flush);
            let reads = self.parts.reads.run(out.reads);
            let done = [log.completion, apply.completion, flush.completion, reads.completion];
            self.inbox.extend(done.into_iter().flatten().map(Input::Done));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfs::memory::Memory;

    /// A clock that is one millisecond later each time.
    fn clock() -> impl FnMut() -> Duration {
        let mut now = Duration::ZERO;
        move || {
            now += Duration::from_millis(1);
            now
        }
    }

    #[test]
    fn a_member_joins_by_snapshot_and_starts_again_from_it() {
        let vfs: Arc<dyn Vfs> = Arc::new(Memory::new(1));
        let measured = measure(vfs.clone(), Path::new("/lab"), &[1], &mut clock()).unwrap();
        let ms = Duration::from_millis(1);
        let wanted = Measured { mib: 1, write: ms, stream: ms, import: ms, restart: ms };
        assert_eq!(measured, [wanted]);
        assert!(!vfs.exists(Path::new("/lab/quorate-lab-1")).unwrap(), "nothing stays");
    }

    #[test]
    fn what_lies_there_is_left_alone() {
        let vfs: Arc<dyn Vfs> = Arc::new(Memory::new(1));
        vfs.create_dir_all(Path::new("/lab/quorate-lab-1")).unwrap();
        let refused = measure(vfs.clone(), Path::new("/lab"), &[1], &mut clock());
        assert!(refused.is_err_and(|why| why.contains("is there already")));
        assert!(vfs.exists(Path::new("/lab/quorate-lab-1")).unwrap());
    }
}
