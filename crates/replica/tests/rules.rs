//! The rules of a replica, one test each: who may do what before whom, whatever the order in which workers finish. Those
//! that read better as a story are scripts, in `tests/scripts`.
//!
//! ```text
//! Order between log and store
//!  1. a frame is written only when the log is durable up to its last entry        `a_stalled_log_holds_frames_back`
//!  2. the quorum commits and apply answers without the local sync                  the same
//!  3. first the mark is synced, then files are unlinked, and S − catch-up is kept   `the_log_is_marked_before_it_is_released`
//!  4. commit at start is max(hard state, store); the log reaches down to the store  `a_commit_index_that_was_lost_is_made_up_for`,
//!     or the start is refused                                                       `what_does_not_fit_is_refused`
//!  5. after any crash what was acknowledged is there                                `a_lone_member_loses_nothing_at_any_step`
//!  6. no store sync while a log sync is in flight                                   `the_store_does_not_sync_beside_the_log`
//!  7. evicted entries are read back by job; only released ones lead to a snapshot   `a_slow_follower_is_fed_from_disk`
//!  8. a received snapshot is durable, marked, acknowledged, imported, exchanged     `a_snapshot_survives_a_crash_at_each_step`,
//!                                                                                   `a_member_that_was_away_gets_a_snapshot`
//! Publishing
//!  9. state, then events, then replies; only the flags' shards get events           asserted by the house, `events_go_where_the_flag_is_up`
//! Reads
//! 10. a read index is confirmed by a quorum and retried with fresh contexts         `a_read_is_asked_for_again_until_its_time_is_over`
//! 11. a new leader refuses those who wait                                           script `who_waits_to_read_is_told_of_a_new_leader`
//! 12. the lone flag rises with the first applied entry of the own term             script `a_lone_member_trusts_itself_only_…`
//! 13. and falls before an added voter can hear of it                                `the_lone_flag_falls_before_the_new_voter_is_told`
//! Proposals
//! 14. a follower forwards, and answers after its own apply                          `a_follower_answers_after_its_own_apply`
//! 15. lag, size, bytes, no leader, the end                                          `admission_by_bytes_closes_the_inbox`, scripts
//!     `a_member_that_cannot_keep_up_refuses`, `proposals_without_a_leader_are_held_and_then_refused`
//! Membership
//! 16. nothing is applied behind a membership entry before its verdict               script `a_membership_change_is_applied_before_…`
//! 17. a refused change is none                                                      the same
//!     who was removed is told so, again at each start                               `a_removed_member_is_told_so_at_each_start`
//! Leases
//! 18. an expiry is appended by the leader of the term, and never forwarded          `an_expiry_is_never_forwarded`
//!                                                                                   `an_expiry_dies_with_the_term_in_which_it_was_decided`
//! 19. keep-alives wait for apply, followers name the leader                         `a_keep_alive_goes_to_the_leader`
//! Trouble with the disk
//! 22. a full disk stops no read and loses nothing, and room that is made is found   `a_compaction_makes_room_on_a_full_disk`,
//!     `reclaim_does_not_wait_for_a_frame_that_waits_for_reclaim`, `room_that_was_made_by_hand_is_found`
//! 23. what a member holds for a disk that takes nothing is bounded                  `a_follower_that_cannot_write_holds_…`,
//!                                                                                   `a_follower_stops_applying_while_…`
//! 24. rot is looked for when nothing else is to be done, and said                   `rot_is_found_by_the_scrubber_and_said`,
//!                                                                                   `scrubbing_waits_for_the_log`
//! The end
//! 20. a failed sync ends the member, and nothing leaves                             `a_failed_sync_is_final`
//! 21. leadership is handed over, and what is applied is durable                     `the_end_hands_leadership_over`
//! Compaction
//! 25. its hash is computed before anything is cleared away, also if nobody waits    `a_compaction_is_hashed_before_it_is_pruned`
//! 26. a physical one is answered when its hash is known, a late one with it         `a_physical_compaction_waits_for_its_hash`
//! ```

#![allow(clippy::unwrap_used)]

mod house;

use std::path::Path;
use std::sync::Arc;

use house::*;
use raft::{ConfChangeKind, Index, MessageKind, NodeId, ProgressState};
use replica::*;
use state_machine::{Error, Reply};
use vfs::Vfs;
use vfs::memory::{Failure as Fault, Fate, Memory, OperationKind, Unsynced};

fn lone() -> House {
    let mut house = House::new(&[1]);
    assert_eq!(house.elect(), 1);
    house
}

fn three() -> (House, NodeId) {
    let mut house = House::new(&[1, 2, 3]);
    let leader = house.elect();
    house.ticks(2);
    (house, leader)
}

#[test]
fn a_lone_member_leads_at_once_and_answers() {
    let mut house = House::new(&[1]);
    house.settle();
    assert!(house.node(1).leads(), "without a tick");
    let id = house.node(1).put("a", "1");
    house.settle();
    let reply = house.node(1).reply(id).unwrap().as_ref().unwrap();
    assert!(matches!(reply, Reply::Put(put) if put.revision == 2), "{reply:?}");
    assert_eq!(house.node(1).get("a").as_deref(), Some("1"));
    assert!(house.node(1).notices.contains(&Notice::Ready));
}

#[test]
fn a_restarted_member_has_what_it_had() {
    let mut house = lone();
    let ids: Vec<_> = (0..50).map(|n| house.node(1).put(&format!("k{n}"), "v")).collect();
    house.settle();
    let hash = house.node(1).hash();
    assert!(ids.iter().all(|id| house.node(1).is_acknowledged(*id)));
    house.node(1).cut_power(3);
    house.node(1).open(Bootstrap::Restart).unwrap();
    assert_eq!(house.elect(), 1);
    assert_eq!(house.node(1).hash(), hash);
    assert_eq!(house.node(1).view().state.cluster().members.len(), 1);
}

/// The leader's log thread hangs; the others make a quorum. The leader applies and answers, for what is committed is
/// durable on two others. But its store must not run ahead of its own log.
#[test]
fn a_stalled_log_holds_frames_back() {
    let (mut house, leader) = three();
    house.ticks(15);
    house.node(leader).hold(Worker::Log);
    let before = house.node(leader).trace.len();
    let id = house.node(leader).put("a", "1");
    house.settle();
    house.ticks(5);
    assert!(house.node(leader).is_acknowledged(id));
    house.ticks(15);
    let flushed = |node: &Node| {
        node.trace[before..]
            .iter()
            .filter(|event| matches!(event, Trace::FrameWritten { .. }))
            .count()
    };
    assert_eq!(flushed(house.node(leader)), 0, "a frame is ahead of the log");
    house.node(leader).release(Worker::Log);
    house.ticks(2);
    assert!(flushed(house.node(leader)) > 0);
}

#[test]
fn the_log_is_marked_before_it_is_released() {
    let mut house = House::with(&[1], |mut config| {
        config.snapshot_count = 20;
        config.snapshot_catchup_entries = 5;
        config
    });
    house.elect();
    let mut marked = Index(0);
    let mut released = Index(0);
    for round in 0..200 {
        house.node(1).put(&format!("k{}", round % 7), &"v".repeat(300));
        // Step by step, to see each job on its way.
        loop {
            let node = house.node(1);
            node.turn();
            for event in &node.trace {
                if let Trace::Marked { index } = event {
                    marked = marked.max(*index);
                }
            }
            for job in &node.log {
                match job {
                    LogJob::Mark { record, hard_state } => {
                        let synced = node.trace.iter().rev().find_map(|event| match event {
                            Trace::StoreSynced { index } => Some(*index),
                            _ => None,
                        });
                        assert!(record.index <= synced.unwrap(), "a mark above the durable store");
                        assert!(hard_state.commit >= record.index);
                        assert!(record.conf_state.as_ref().unwrap().voters == [1]);
                    }
                    LogJob::Release { up_to } => {
                        assert!(
                            up_to.0 + 5 <= marked.0,
                            "release of {up_to} with a mark at {marked}"
                        );
                        released = *up_to;
                    }
                    LogJob::Append(_) => {}
                }
            }
            for worker in WORKERS {
                node.work(worker);
            }
            if node.inbox.is_empty() {
                break;
            }
        }
    }
    assert!(released > Index(100), "released up to {released}");
    let first = house.node(1).vfs.list("/data/member/wal".as_ref()).unwrap()[0].clone();
    assert!(!first.contains("0000000000000000-0000000000000000"), "{first}");
    house.node(1).cut_power(1);
    house.node(1).open(Bootstrap::Restart).unwrap();
    assert_eq!(house.elect(), 1);
    assert_eq!(house.node(1).view().state.revision(), 201);
}

/// The power goes before each write that a short life makes, with several fates of what was not synced. What was
/// acknowledged is there, the member starts, and goes on.
#[test]
fn a_lone_member_loses_nothing_at_any_step() {
    let life = |stop: Option<u64>| {
        let mut config = config(1);
        config.snapshot_count = 12;
        config.snapshot_catchup_entries = 4;
        config.limits.frame_bytes = 2_000;
        config.segment_bytes = SegmentBytes { wal: 4 << 10, store: 8 << 10 };
        let vfs = vfs::memory::Memory::new(9);
        vfs.stop_at(stop);
        let mut acknowledged = Vec::new();
        let started = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            Node::on(vfs.clone(), config.clone(), Bootstrap::New(founders(&[1])))
        }));
        if let Ok(node) = started {
            let mut house = House::new(&[]);
            house.nodes.insert(1, node);
            house.settle();
            for round in 0..40 {
                let key = format!("k{}", round % 5);
                let value = format!("{round:03}-{}", "x".repeat(150));
                let id = house.node(1).put(&key, &value);
                house.settle();
                house.ticks(usize::from(round % 8 == 0) * 11);
                if house.node(1).is_acknowledged(id) {
                    acknowledged.push((key, value));
                }
            }
        }
        (vfs, config, acknowledged)
    };
    let (whole, _, all) = life(None);
    assert_eq!(all.len(), 40);
    let operations = whole.operations();
    assert!(operations > 100, "{operations}");
    for stop in (0..operations).step_by(3) {
        let (vfs, config, acknowledged) = quietly(|| life(Some(stop)));
        for seed in 0..2 {
            let disk = vfs.fork();
            disk.power_cut(seed * 1_000 + stop);
            let mut house = House::new(&[]);
            house.nodes.insert(1, Node::on(disk, config.clone(), Bootstrap::New(founders(&[1]))));
            house.settle();
            let mut expected = std::collections::BTreeMap::new();
            for (key, value) in &acknowledged {
                expected.insert(key.clone(), value.clone());
            }
            for (key, value) in expected {
                let found = house.node(1).get(&key).unwrap_or_default();
                assert!(
                    found >= value,
                    "stop {stop} seed {seed}: {key} is {found}, acknowledged {value}"
                );
            }
            let id = house.node(1).put("more", "1");
            house.settle();
            assert!(house.node(1).is_acknowledged(id), "stop {stop} seed {seed}");
        }
    }
}

/// A life on a disk that is stopped ends in errors that print; they are expected.
fn quietly<T>(run: impl FnOnce() -> T) -> T {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = run();
    std::panic::set_hook(hook);
    result
}

/// The hard state's commit is written late: the store may know more.
#[test]
fn a_commit_index_that_was_lost_is_made_up_for() {
    let (mut house, leader) = three();
    let follower = house.followers(leader)[0];
    let id = house.node(leader).put("a", "1");
    house.settle();
    house.ticks(15);
    assert!(house.node(leader).is_acknowledged(id));
    let applied = house.node(follower).view().applied();
    house.node(follower).cut_power(5);
    house.node(follower).open(Bootstrap::Restart).unwrap();
    house.isolate(follower);
    let node = house.node(follower);
    node.turn();
    let status = node.replica().status();
    assert!(status.commit >= status.applied);
    assert!(node.view().applied() <= applied);
    assert_eq!(node.view().applied(), status.applied);
    house.heal();
    house.ticks(30);
    assert_eq!(house.node(follower).get("a").as_deref(), Some("1"));
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut house = lone();
    for n in 0..10 {
        house.node(1).put(&format!("k{n}"), "v");
    }
    house.settle();
    house.ticks(12);
    let whole = house.node(1).vfs.fork();
    let reopen = |disk: &vfs::memory::Memory, config: Config, bootstrap: Bootstrap| {
        open(std::sync::Arc::new(disk.clone()), config, bootstrap)
            .err()
            .map(|error| error.to_string())
    };

    let mut other = config(1);
    other.identity.cluster_id = 0xdd;
    let why = reopen(&whole.fork(), other, Bootstrap::Restart).unwrap();
    assert!(why.contains("cluster"), "{why}");

    let disk = whole.fork();
    disk.remove_dir_all("/data/member/wal".as_ref()).unwrap();
    let why = reopen(&disk, config(1), Bootstrap::New(founders(&[1]))).unwrap();
    assert!(why.contains("must not vote again"), "{why}");
    let why = reopen(&disk, config(1), Bootstrap::Restart).unwrap();
    assert!(why.contains("empty"), "{why}");

    let why = reopen(&vfs::memory::Memory::new(1), config(1), Bootstrap::Restart).unwrap();
    assert!(why.contains("empty"), "{why}");

    // Both disks of one member, mixed: the store of later, the log of before.
    let early = whole.fork();
    for n in 0..10 {
        house.node(1).put(&format!("k{n}"), "w");
    }
    house.settle();
    house.ticks(12);
    let late = house.node(1).vfs.fork();
    for name in early.list("/data/member/store".as_ref()).unwrap() {
        let path = std::path::Path::new("/data/member/store").join(&name);
        early.unlink(&path).unwrap();
    }
    for name in late.list("/data/member/store".as_ref()).unwrap() {
        let path = std::path::Path::new("/data/member/store").join(&name);
        let from = late.open(&path, vfs::OpenMode::Read).unwrap();
        let mut bytes = vec![0; from.len().unwrap() as usize];
        from.read_exact_at(&mut bytes, 0).unwrap();
        early.open(&path, vfs::OpenMode::Create).unwrap().append(&bytes).unwrap();
    }
    let why = reopen(&early, config(1), Bootstrap::Restart).unwrap();
    assert!(why.contains("the log ends here with index"), "{why}");

    // A store that vanished is built again from a log that is whole.
    let disk = whole.fork();
    disk.remove_dir_all("/data/member/store".as_ref()).unwrap();
    assert_eq!(reopen(&disk, config(1), Bootstrap::Restart), None);
}

#[test]
fn the_store_does_not_sync_beside_the_log() {
    let mut house = House::with(&[1, 2, 3], |mut config| {
        config.limits.frame_bytes = 2_000;
        config.limits.store_sync_bytes = 8_000;
        config
    });
    let leader = house.elect();
    house.ticks(2);
    let wants_sync = |node: &Node| node.flush.iter().any(|job| matches!(job, FlushJob::Sync));
    // Enough is written, and an append is under way all the time.
    house.node(leader).hold(Worker::Flush);
    for n in 0..20 {
        house.node(leader).put(&format!("k{n}"), &"v".repeat(1_000));
        house.settle();
    }
    house.node(leader).hold(Worker::Log);
    house.node(leader).put("last", "1");
    house.settle();
    house.node(leader).release(Worker::Flush);
    house.settle();
    house.node(leader).hold(Worker::Flush);
    house.settle();
    assert!(!wants_sync(house.node(leader)), "a store sync beside a log sync");
    house.node(leader).release(Worker::Log);
    house.settle();
    assert!(wants_sync(house.node(leader)));
}

#[test]
fn a_slow_follower_is_fed_from_disk() {
    let mut house = House::with(&[1, 2, 3], |mut config| {
        config.limits.log_memory_bytes = 4_000;
        config.limits.message_bytes = 2_000;
        config
    });
    let leader = house.elect();
    house.ticks(2);
    let away = house.followers(leader)[0];
    house.isolate(away);
    for n in 0..60 {
        house.node(leader).put(&format!("k{n}"), &"v".repeat(500));
        house.settle();
    }
    house.ticks(12);
    house.heal();
    house.node(leader).hold(Worker::Read);
    house.ticks(8);
    assert!(!house.node(leader).reads.is_empty(), "nothing is read back");
    house.node(leader).release(Worker::Read);
    house.ticks(30);
    assert!(!house.sent.iter().any(|message| message.kind == MessageKind::Snap));
    assert!(house.snapshots.is_empty());
    assert_eq!(house.node(away).hash(), house.node(leader).hash());
}

#[test]
fn a_member_that_was_away_gets_a_snapshot() {
    let (mut house, leader, away) = away_and_released(100);
    house.node(away).open(Bootstrap::Restart).unwrap();
    house.node(away).view().set_watching(SHARD, true);
    let before = house.node(away).to_shards.len();
    for n in 0..40 {
        house.tick();
        house.node(leader).put("meanwhile", &n.to_string());
    }
    house.settle();
    house.ticks(5);
    let node = house.node(away);
    let installed =
        node.notices.iter().any(|notice| matches!(notice, Notice::SnapshotInstalled { .. }));
    assert!(installed, "it was not needed");
    assert!(node.to_shards[before..].iter().any(|to| to.exchanged), "its watchers were not told");
    assert_eq!(node.get("before"), None);
    assert_eq!(node.view().state.leases().len(), 1);
    assert_eq!(node.view().state.cluster().members.len(), 3);
    assert!(node.vfs.list(&incoming_dir()).unwrap().is_empty(), "the file was kept");
    assert_eq!(house.node(away).hash(), house.node(leader).hash());
    let status = house.node(leader).replica().status();
    let (_, progress) = status.peers.iter().find(|(id, _)| *id == away).unwrap();
    assert_eq!(progress.state, ProgressState::Replicate);
    // And it goes on from there after a crash.
    house.node(away).cut_power(4);
    house.node(away).open(Bootstrap::Restart).unwrap();
    house.ticks(15);
    assert_eq!(house.node(away).hash(), house.node(leader).hash());
}

/// Two snapshots of one place are one file. The second must neither take it from under the first, whose record stands
/// in the log, nor stumble over its being gone when the first is done.
#[test]
fn a_snapshot_that_comes_twice_is_installed_once() {
    let (mut house, leader, away) = away_and_released(100);
    house.node(away).open(Bootstrap::Restart).unwrap();
    house.node(away).hold(Worker::Flush);
    house.ticks(10);
    let (_, message, chunks) = house.received.pop().expect("it was not needed");
    // While it is being installed, when the file of the second would have the name of the first.
    let again = house.stream(away, message.clone(), chunks.clone()).unwrap_err();
    assert_eq!(again.kind(), std::io::ErrorKind::WouldBlock);
    house.node(away).release(Worker::Flush);
    house.ticks(5);
    // And long after.
    house.stream(away, message, chunks).unwrap();
    house.ticks(5);
    let node = house.node(away);
    assert_eq!(node.fatal(), None);
    let is_install = |notice: &&Notice| matches!(notice, Notice::SnapshotInstalled { .. });
    assert_eq!(node.notices.iter().filter(is_install).count(), 1);
    assert!(node.vfs.list(&incoming_dir()).unwrap().is_empty(), "the file was kept");
    assert_eq!(house.node(away).hash(), house.node(leader).hash());
}

/// A second snapshot comes while the first is being installed, so it is of no use; when it comes again it is. Its file
/// must not fall to what was said of it the first time, which a slow disk has not done yet.
#[test]
fn a_snapshot_that_was_not_wanted_and_comes_again_is_not_deleted() {
    let (mut house, leader, away) = away_and_released(100);
    house.node(away).open(Bootstrap::Restart).unwrap();
    house.node(away).hold(Worker::Flush);
    house.node(away).hold(Worker::Apply);
    house.ticks(10);
    assert_eq!(house.received.len(), 1, "it needs one snapshot");
    // The first is imported, and not yet applied. Meanwhile the cluster goes on without this member.
    let imported = house.node(away).work(Worker::Flush);
    assert!(imported.is_empty(), "an import sends nothing");
    house.isolate(away);
    for n in 0..100 {
        house.node(leader).put(&format!("k{}", n % 20), &format!("{n}-{}", "w".repeat(400)));
        house.settle();
    }
    // Until nothing is kept for it any more.
    house.ticks(400);
    house.heal();
    house.ticks(10);
    assert!(house.refused_snapshots > 0, "the second did not come while the first was there");
    house.node(away).release(Worker::Apply);
    house.ticks(10);
    house.node(away).release(Worker::Flush);
    house.ticks(20);
    let node = house.node(away);
    assert_eq!(node.fatal(), None);
    assert!(node.vfs.list(&incoming_dir()).unwrap().is_empty(), "a file was kept");
    assert_eq!(house.received.len(), 2);
    assert_eq!(house.node(away).hash(), house.node(leader).hash());
}

/// The power goes at each step of a receiver's life, between the first byte of the snapshot and its last trace.
#[test]
fn a_snapshot_survives_a_crash_at_each_step() {
    let run = |stop: Option<u64>| {
        let (mut house, leader, away) = away_and_released(40);
        let vfs = house.node(away).vfs.clone();
        let base = vfs.operations();
        vfs.stop_at(stop.map(|stop| base + stop));
        if house.node(away).open(Bootstrap::Restart).is_ok() {
            house.ticks(8);
        }
        let used = vfs.operations() - base;
        if let Some(stop) = stop {
            // Whatever happened: the next life starts, and catches up.
            house.node(away).cut_power(stop);
            house.node(away).open(Bootstrap::Restart).unwrap();
            house.ticks(25);
        }
        assert_eq!(house.node(away).hash(), house.node(leader).hash(), "stop {stop:?}");
        assert!(house.node(away).vfs.list(&incoming_dir()).unwrap().is_empty(), "stop {stop:?}");
        used
    };
    let operations = run(None);
    assert!(operations > 20, "{operations}");
    for stop in 0..operations.min(120) {
        run(Some(stop));
    }
}

#[test]
fn events_go_where_the_flag_is_up() {
    let mut house = lone();
    house.node(1).put("a", "1");
    house.settle();
    assert!(house.node(1).to_shards.iter().all(|to| to.batches.is_empty()));
    house.node(1).view().set_watching(SHARD, true);
    house.node(1).put("a", "2");
    house.settle();
    let last = house.node(1).to_shards.last().unwrap();
    assert_eq!(last.batches.len(), 1);
    assert_eq!(last.batches[0].events.len(), 1);
    assert_eq!(last.replies.len(), 1);
    house.node(1).view().set_watching(SHARD, false);
    house.node(1).view().set_waiting(SHARD, true);
    let before = house.node(1).to_shards.len();
    house.node(1).put("a", "3");
    house.settle();
    let news = &house.node(1).to_shards[before..];
    assert!(news.iter().all(|to| to.batches.is_empty()) && !news.is_empty());
}

#[test]
fn a_read_is_asked_for_again_until_its_time_is_over() {
    let (mut house, leader) = three();
    let follower = house.followers(leader)[0];
    house.node(follower).read_index(1);
    house.settle();
    assert!(house.node(follower).read_answer(1).unwrap().unwrap() > Index(0));

    // The follower's questions are lost for a second; the leader is heard.
    house.cut.insert((follower, leader));
    let from = house.sent.len();
    house.node(follower).read_index(2);
    house.ticks(7);
    assert_eq!(house.node(follower).read_answer(2), None);
    let asked: Vec<_> = house.sent[from..]
        .iter()
        .filter(|message| message.kind == MessageKind::ReadIndex && message.from == follower)
        .map(|message| message.entries[0].data.clone())
        .collect();
    assert!(asked.len() >= 2, "{asked:?}");
    assert!(asked.iter().all(|context| context.len() == 8));
    assert!(asked.windows(2).all(|pair| pair[0] != pair[1]), "a context was used twice");
    house.heal();
    house.ticks(6);
    assert!(house.node(follower).read_answer(2).unwrap().is_ok());

    // Nobody answers at all.
    house.node(follower).hold(Worker::Log);
    house.isolate(follower);
    house.node(follower).read_index(3);
    house.ticks(75);
    assert!(house.node(follower).read_answer(3).unwrap().is_err());
}

#[test]
fn the_lone_flag_falls_before_the_new_voter_is_told() {
    let mut house = lone();
    let node = house.node(1);
    assert!(node.view().lone());
    let id = node.change(ConfChangeKind::AddNode, 2);
    let out = node.turn();
    assert!(
        node.log
            .iter()
            .any(|job| matches!(job, LogJob::Append(append) if !append.entries.is_empty()))
    );
    assert!(!node.view().lone(), "the entry is on its way and the flag is up");
    assert!(out.messages.is_empty());
    house.settle();
    assert!(house.node(1).is_acknowledged(id));
    assert!(house.sent.iter().any(|message| message.to == 2), "the new voter is told");
    assert!(!house.node(1).view().lone());
    // Two voters, one of them absent: nothing is committed, and nothing is read.
    house.node(1).read_index(1);
    house.ticks(3);
    assert_eq!(house.node(1).read_answer(1), None);
}

/// A read that a learner passes on is answered with what is committed, and the learner may have applied it before its leader
/// has. Who read there first and then here must not go back.
#[test]
fn a_lone_voter_beside_a_learner_reads_what_is_committed() {
    let mut house = House::new(&[1]);
    let learner = Node::new(config(2), Bootstrap::Join);
    house.nodes.insert(2, learner);
    house.ticks(2);
    house.node(1).change(ConfChangeKind::AddLearnerNode, 2);
    house.ticks(5);
    assert_eq!(house.node(1).replica().status().conf_state.learners, [2]);
    house.node(1).hold(Worker::Apply);
    house.node(1).put("k", "v");
    house.ticks(5);
    assert_eq!(house.node(2).get("k").as_deref(), Some("v"));
    assert_eq!(house.node(1).get("k"), None);
    assert!(!house.node(1).view().lone(), "it would read an older state");
    house.node(1).read_index(1);
    house.settle();
    let at = house.node(1).read_answer(1).unwrap().unwrap();
    assert!(at > house.node(1).view().applied(), "the read waits for the put");
}

#[test]
fn a_removed_second_voter_leaves_a_lone_one() {
    let mut house = House::new(&[1, 2]);
    let leader = house.elect();
    house.ticks(2);
    let other = house.followers(leader)[0];
    assert!(!house.node(leader).view().lone());
    let id = house.node(leader).change(ConfChangeKind::RemoveNode, other);
    house.settle();
    assert!(house.node(leader).is_acknowledged(id));
    house.ticks(2);
    assert!(house.node(leader).view().lone());
    assert_eq!(house.node(leader).replica().status().conf_state.voters, [leader]);
    house.node(leader).kill();
    house.node(leader).open(Bootstrap::Restart).unwrap();
    house.settle();
    assert!(house.node(leader).leads(), "at once, for it is alone");
}

/// It ends a while after it has heard of its removal. If it is killed in that while, it must hear of it again: nobody sends
/// it anything any more, and it would wait for a leader for ever.
#[test]
fn a_removed_member_is_told_so_at_each_start() {
    let mut house = House::new(&[1, 2, 3]);
    let leader = house.elect();
    house.ticks(2);
    house.node(leader).change(ConfChangeKind::RemoveNode, leader);
    house.ticks(2);
    let removed = |node: &mut Node| node.notices.contains(&Notice::Removed);
    assert!(removed(house.node(leader)));
    // So long that it stands in the store, and is not applied again.
    house.ticks(30);
    house.node(leader).kill();
    house.node(leader).notices.clear();
    house.node(leader).open(Bootstrap::Restart).unwrap();
    house.node(leader).turn();
    assert!(removed(house.node(leader)), "the removal was applied and written");
}

#[test]
fn a_follower_answers_after_its_own_apply() {
    let (mut house, leader) = three();
    let follower = house.followers(leader)[0];
    house.node(follower).hold(Worker::Apply);
    let id = house.node(follower).put("a", "1");
    house.settle();
    house.ticks(2);
    assert_eq!(house.node(leader).get("a").as_deref(), Some("1"), "the cluster has it");
    assert!(house.node(follower).reply(id).is_none());
    assert!(house.node(leader).reply(id).is_none(), "a stranger answers");
    house.node(follower).release(Worker::Apply);
    house.settle();
    assert!(house.node(follower).is_acknowledged(id));
}

#[test]
fn admission_by_bytes_closes_the_inbox() {
    let mut house = House::with(&[1], |mut config| {
        config.limits.uncommitted_bytes = 10_000;
        config.limits.unflushed_bytes = 20_000;
        config
    });
    house.elect();
    house.node(1).hold(Worker::Log);
    assert!(house.node(1).replica().takes_proposals());
    for _ in 0..12 {
        house.node(1).put("a", &"x".repeat(1_000));
    }
    house.settle();
    assert!(!house.node(1).replica().takes_proposals(), "too much is uncommitted");
    house.node(1).release(Worker::Log);
    house.node(1).hold(Worker::Flush);
    house.settle();
    assert!(house.node(1).replica().takes_proposals());
    for _ in 0..20 {
        house.node(1).put("a", &"x".repeat(1_000));
        house.settle();
    }
    assert!(!house.node(1).replica().takes_proposals(), "too much is not flushed");
    house.node(1).release(Worker::Flush);
    house.ticks(11);
    assert!(house.node(1).replica().takes_proposals());
}

/// The leader sleeps through the lease's end; the others elect another, at which the client keeps the lease alive. The
/// sleeper awakes with the deadline long passed, believing that it leads.
#[test]
fn an_expiry_is_never_forwarded() {
    let (mut house, leader) = three();
    house.node(leader).propose(grant_request(5, 4));
    house.node(leader).propose(put_request("k", b"v", 5));
    house.settle();
    house.ticks(2);
    house.isolate(leader);
    let others = house.followers(leader);
    for _ in 0..40 {
        others.iter().for_each(|id| house.node(*id).tick(1));
        house.settle();
    }
    let new_leader = *others.iter().find(|id| house.node(**id).leads()).unwrap();
    house.node(new_leader).ask_lease(5, LeaseQuestion::KeepAlive);
    house.settle();
    assert_eq!(house.node(new_leader).lease_answer(), Some(Ok(LeaseTime::KeptAlive { ttl: 4 })));

    let from = house.sent.len();
    let last = house.node(leader).replica().status().last;
    assert!(house.node(leader).leads(), "it has not heard");
    house.node(leader).tick(60);
    house.settle();
    house.node(leader).ask_lease(5, LeaseQuestion::KeepAlive);
    house.settle();
    assert_eq!(house.node(leader).lease_answer(), None, "it answers in doubt");
    assert_eq!(house.node(leader).replica().status().last, last, "it appended a revoke in doubt");
    house.heal();
    house.ticks(10);
    assert!(!house.sent[from..].iter().any(is_prop), "it forwarded a revoke");
    assert_eq!(house.node(leader).lease_answer(), Some(Err(LeaseRefusal::LeadershipLost)));
    assert_eq!(house.node(leader).get("k").as_deref(), Some("v"));
}

/// In one turn the lease's time is over and another leader is heard: raft would pass the revoke on to it.
#[test]
fn an_expiry_dies_with_the_term_in_which_it_was_decided() {
    let (mut house, leader) = three();
    house.node(leader).propose(grant_request(5, 3));
    house.settle();
    house.ticks(29);
    assert_eq!(house.node(leader).view().state.leases().len(), 1);
    let status = house.node(leader).replica().status();
    let news = raft::Message {
        kind: MessageKind::Heartbeat,
        from: house.followers(leader)[0],
        to: leader,
        term: raft::Term(status.term.0 + 1),
        ..raft::Message::default()
    };
    let node = house.node(leader);
    node.tick(1);
    node.inbox.push_back(Input::Messages(vec![news]));
    let out = node.turn();
    assert!(!node.leads());
    assert!(!out.messages.iter().any(is_prop), "it forwarded a revoke");
}

#[test]
fn a_pause_alone_does_not_stop_the_clock() {
    let (mut house, leader) = three();
    house.node(leader).propose(grant_request(5, 2));
    house.settle();
    house.node(leader).tick(50);
    house.settle();
    house.ticks(3);
    assert!(house.node(leader).view().state.leases().is_empty(), "the quorum has confirmed it");
}

#[test]
fn a_keep_alive_goes_to_the_leader() {
    let (mut house, leader) = three();
    let follower = house.followers(leader)[0];
    house.node(follower).ask_lease(5, LeaseQuestion::KeepAlive);
    house.settle();
    assert_eq!(house.node(follower).lease_answer(), Some(Err(LeaseRefusal::Forward { leader })));

    // The grant is committed and not applied when the keep-alive comes.
    house.node(leader).hold(Worker::Apply);
    house.node(leader).propose(grant_request(5, 10));
    house.settle();
    house.node(leader).ask_lease(5, LeaseQuestion::KeepAlive);
    house.settle();
    assert_eq!(house.node(leader).lease_answer(), None);
    house.node(leader).release(Worker::Apply);
    house.settle();
    assert_eq!(house.node(leader).lease_answer(), Some(Ok(LeaseTime::KeptAlive { ttl: 10 })));

    let asker = Asker::Peer { token: 3 };
    let ask = LeaseAsk { asker, lease: 5, question: LeaseQuestion::TimeToLive };
    house.node(leader).inbox.push_back(Input::Lease(ask));
    house.settle();
    let answer = house.node(leader).peer_answers.last().unwrap();
    assert_eq!(answer.result, Ok(LeaseTime::Remaining { remaining: 10, granted: 10 }));
}

#[test]
fn a_failed_sync_is_final() {
    let (mut house, leader) = three();
    let follower = house.followers(leader)[0];
    let vfs = house.node(follower).vfs.clone();
    vfs.fail(
        |operation| {
            operation.kind == OperationKind::Sync && operation.path.starts_with("/data/member/wal")
        },
        1,
        Fault::Errno(5),
    );
    let from = house.sent.len();
    house.node(leader).put("a", "1");
    house.settle();
    let failure = house.node(follower).fatal().expect("it goes on after a failed sync").clone();
    assert!(failure.to_string().contains("sync"), "{failure}");
    let vouched = |message: &raft::Message| {
        message.from == follower && message.kind == MessageKind::AppResp && !message.reject
    };
    assert!(!house.sent[from..].iter().any(vouched), "it vouched for what may be lost");
    house.ticks(3);
    assert!(house.node(follower).log.is_empty(), "it is given more work");
}

#[test]
fn the_end_hands_leadership_over() {
    let (mut house, leader) = three();
    let id = house.node(leader).put("a", "1");
    house.settle();
    house.node(leader).inbox.push_back(Input::Stop);
    let late = house.node(leader).put("b", "1");
    house.settle();
    house.ticks(2);
    assert!(house.node(leader).is_acknowledged(id));
    assert_eq!(house.node(leader).refusal(late), Some(Refusal::Stopped));
    assert!(house.node(leader).notices.contains(&Notice::Stopped));
    let others = house.followers(leader);
    assert!(others.iter().any(|id| house.node(*id).leads()), "nobody has taken over");
    // What it had applied needs no log.
    let applied = house.node(leader).view().applied();
    house.node(leader).cut_power(8);
    house.node(leader).open(Bootstrap::Restart).unwrap();
    assert_eq!(house.node(leader).view().applied(), applied);
}

#[test]
fn a_member_joins_with_an_empty_log() {
    let mut house = lone();
    for n in 0..20 {
        house.node(1).put(&format!("k{n}"), "v");
    }
    house.settle();
    let id = house.node(1).change(ConfChangeKind::AddNode, 2);
    house.settle();
    assert!(house.node(1).is_acknowledged(id));
    house.nodes.insert(2, Node::new(config(2), Bootstrap::Join));
    house.ticks(12);
    assert_eq!(house.node(2).hash(), house.node(1).hash());
    let more = house.node(2).put("more", "1");
    house.ticks(2);
    assert!(house.node(2).is_acknowledged(more));
}

#[test]
fn every_founder_writes_the_same_beginning() {
    let first = |id: NodeId| {
        let mut order = founders(&[3, 1, 2]);
        order.rotate_left(id as usize % 3);
        let node = Node::new(config(id), Bootstrap::New(order));
        let lines = wal::dump::dump(&node.vfs, "/data/member/wal".as_ref()).unwrap();
        let entries = lines.filter_map(|line| match line.record {
            Ok(wal::dump::Record::Entry(entry)) => Some(entry),
            _ => None,
        });
        entries.collect::<Vec<_>>()
    };
    let entries = first(1);
    assert_eq!(entries.len(), 3);
    assert_eq!(entries, first(2));
    assert_eq!(entries, first(3));
    let ids: Vec<_> =
        entries.iter().map(|e| raft::ConfChange::decode(&e.data).unwrap().node_id).collect();
    assert_eq!(ids, [1, 2, 3]);
}

/// A founder is cut short at any step of its first start, and of what was written and not synced anything may be kept:
/// also a part of the founding write itself, some of the founders and not the state behind them. It begins again.
#[test]
fn a_founder_that_was_cut_short_begins_again() {
    for ids in [&[1][..], &[1, 2, 3]] {
        let bootstrap = || Bootstrap::New(founders(ids));
        let whole = Node::new(config(1), bootstrap()).vfs.operations();
        let mut founding_was_torn = false;
        for stop in 0..whole {
            let disk = Memory::new(stop);
            disk.stop_at(Some(stop));
            assert!(open(Arc::new(disk.clone()), config(1), bootstrap()).is_err());
            for cut in cuts(&disk) {
                let begun = entries_in_log(&cut);
                founding_was_torn |= 0 < begun && begun < ids.len();
                let mut house = House::new(&[]);
                house.nodes.insert(1, Node::on(cut, config(1), bootstrap()));
                house.settle();
                let status = house.node(1).replica().status();
                assert!(status.commit >= Index(ids.len() as u64), "stop {stop}: {status:?}");
                assert_eq!(status.conf_state.voters, ids, "stop {stop}");
                assert_eq!(house.node(1).leads(), ids.len() == 1, "stop {stop}");
            }
        }
        assert!(founding_was_torn || ids.len() == 1, "no tear went through the list of founders");
    }
}

/// A follower is away while another campaigns alone, term after term, and then wins. The first the follower hears of all
/// that is a heartbeat and an append of the new term; they reach its log in one write, entries first, then the state that
/// says the term, and the power goes before the sync: whatever is kept of that write, the member starts again and follows.
#[test]
fn a_tail_torn_after_a_jump_of_terms_does_no_harm() {
    let mut house = House::with(&[1, 2, 3], |config| Config { pre_vote: false, ..config });
    let old = house.elect();
    house.ticks(2);
    let (away, alone) = (house.followers(old)[0], house.followers(old)[1]);
    let before = house.node(away).view().term();
    house.isolate(away);
    house.isolate(alone);
    for _ in 0..60 {
        house.node(alone).tick(1);
        house.settle();
    }
    house.heal();
    house.isolate(away);
    let new = (0..100).find_map(|_| {
        [old, alone].into_iter().for_each(|id| house.node(id).tick(1));
        house.settle();
        let leader = [old, alone].into_iter().find(|id| house.node(*id).leads())?;
        (house.node(leader).view().term().0 > before.0 + 1).then_some(leader)
    });
    let new = new.expect("one of the two leads in a far term");
    house.heal();
    house.node(away).hold(Worker::Log);
    house.node(new).tick(1);
    house.settle();
    assert!(house.node(away).view().term().0 > before.0 + 1);

    let vfs = house.node(away).vfs.clone();
    vfs.stop_at(Some(vfs.operations() + 1));
    house.node(away).work(Worker::Log);
    let cuts = cuts(&vfs);
    house.node(away).parts = None;
    let mut ahead = None;
    for cut in cuts {
        let mut again = Node::on(cut, house.node(away).config.clone(), Bootstrap::Restart);
        let status = again.replica().status();
        assert!(status.term == before || status.vote == raft::NONE, "{status:?}");
        let found = &again.parts.as_ref().unwrap().found;
        if found.iter().any(|what| what.contains("the log ends in term")) {
            ahead = Some(again);
        }
    }
    house.nodes.insert(away, ahead.expect("a cut that kept entries and lost their state"));
    house.ticks(15);
    assert_eq!(house.node(away).hash(), house.node(new).hash());
    assert!(house.node(new).leads());
}

/// A wrong --wal-dir names the log of another member: it is refused, and nothing in it is mended before.
#[test]
fn the_log_of_another_is_not_touched() {
    let disk = Node::new(config(1), Bootstrap::New(founders(&[1]))).vfs;
    disk.crash();
    let log = Path::new("/data/member/wal");
    let leftover = log.join("0.tmp");
    disk.open(&leftover, vfs::OpenMode::Create).unwrap();
    let mut other = config(2);
    other.data_dir = "/other".into();
    other.wal_dir = Some(log.to_path_buf());
    let why = open(Arc::new(disk.clone()), other, Bootstrap::Restart).err().unwrap();
    assert!(matches!(why, OpenError::WrongIdentity { .. }), "{why}");
    assert!(disk.exists(&leftover).unwrap());
    open(Arc::new(disk.clone()), config(1), Bootstrap::Restart).unwrap();
    assert!(!disk.exists(&leftover).unwrap(), "its owner mends it");
}

/// A lone member with small segments. Its disk has room for the log, what is set aside, and one more segment of the store.
fn on_a_small_disk() -> House {
    let mut house = House::with(&[1], |mut config| {
        config.segment_bytes = SegmentBytes { wal: 4 << 20, store: 64 << 10 };
        config.limits.frame_bytes = 4_000;
        config.limits.unflushed_bytes = 100_000;
        config
    });
    house.elect();
    let vfs = house.node(1).vfs.clone();
    vfs.set_capacity(Some(vfs.used() + (80 << 10)));
    house
}

/// Overwrites one key until there is so little space. All of it is acknowledged, whatever the disk says.
fn write_until(house: &mut House, space: Space) {
    for n in 0..200 {
        if house.node(1).notices.contains(&Notice::Space(space)) {
            return;
        }
        let id = house.node(1).put("k", &format!("{n}{}", "v".repeat(4_000)));
        house.settle();
        assert!(house.node(1).is_acknowledged(id), "put {n}");
    }
    panic!("the disk does not fill");
}

fn last_space(node: &Node) -> Option<Space> {
    let space = |notice: &Notice| match notice {
        Notice::Space(space) => Some(*space),
        _ => None,
    };
    node.notices.iter().rev().find_map(space)
}

fn compact_now(house: &mut House) {
    let revision = house.node(1).view().state.revision();
    let id = house.node(1).propose(compact_request(revision));
    house.settle();
    assert!(house.node(1).is_acknowledged(id));
}

fn writes_go_on(house: &mut House) {
    for n in 0..60 {
        let id = house.node(1).put("k", &format!("{n}{}", "w".repeat(4_000)));
        house.settle();
        assert!(house.node(1).is_acknowledged(id));
        if n % 10 == 9 {
            compact_now(house);
            house.ticks(12);
        }
    }
    assert_eq!(house.node(1).fatal(), None);
    assert_eq!(last_space(house.node(1)), Some(Space::Plenty));
    let hash = house.node(1).hash();
    house.node(1).cut_power(3);
    house.node(1).open(Bootstrap::Restart).unwrap();
    house.elect();
    assert_eq!(house.node(1).hash(), hash);
}

/// The disk fills; what was set aside lets the frames go on, with the compaction among them that makes room again.
#[test]
fn a_compaction_makes_room_on_a_full_disk() {
    let mut house = on_a_small_disk();
    write_until(&mut house, Space::Short);
    compact_now(&mut house);
    // A frame with the compaction, a frame with what it killed.
    house.ticks(25);
    assert_eq!(last_space(house.node(1)), Some(Space::Plenty));
    writes_go_on(&mut house);
}

/// The frame that finds no room is the one that would tell reclaim what died, and the room is what reclaim would make:
/// neither may wait for the other. The compaction is written; what it killed is known to memory alone.
#[test]
fn reclaim_does_not_wait_for_a_frame_that_waits_for_reclaim() {
    let mut house = on_a_small_disk();
    let vfs = house.node(1).vfs.clone();
    for n in 0..20 {
        house.node(1).put("k", &format!("{n}{}", "v".repeat(4_000)));
        house.settle();
    }
    house.ticks(12);
    house.node(1).hold(Worker::Flush);
    compact_now(&mut house);
    house.node(1).release(Worker::Flush);
    // Nobody may have room but reclaim, which has its spare.
    vfs.unlink("/data/member/store/reserve".as_ref()).unwrap();
    vfs.set_capacity(Some(vfs.used()));
    write_until(&mut house, Space::Full);
    house.ticks(15);
    assert_ne!(last_space(house.node(1)), Some(Space::Full));
    vfs.set_capacity(Some(vfs.used() + (160 << 10)));
    house.ticks(2);
    writes_go_on(&mut house);
}

/// Everything on the disk lives, so nothing can be reclaimed. The member goes on until so much waits in memory that it takes
/// nothing more, and waits there; when somebody makes room it goes on by itself.
#[test]
fn room_that_was_made_by_hand_is_found() {
    let mut house = on_a_small_disk();
    write_until(&mut house, Space::Full);
    for n in 0..200 {
        if !house.node(1).replica().takes_proposals() {
            break;
        }
        house.node(1).put("k", &format!("{n}{}", "x".repeat(4_000)));
        house.settle();
    }
    assert!(!house.node(1).replica().takes_proposals(), "what waits is not bounded");
    house.ticks(30);
    assert_eq!(house.node(1).fatal(), None);
    assert_eq!(last_space(house.node(1)), Some(Space::Full));
    let vfs = house.node(1).vfs.clone();
    vfs.set_capacity(Some(vfs.used() + (1 << 20)));
    house.ticks(3);
    assert_eq!(last_space(house.node(1)), Some(Space::Plenty));
    assert!(house.node(1).replica().takes_proposals());
    writes_go_on(&mut house);
}

/// A follower whose store takes nothing more stops applying, and then stops taking entries, which are not lost: its leader
/// has them. So its memory stays bounded, and when the store goes on, it catches up.
#[test]
fn a_follower_that_cannot_write_holds_a_bounded_part_of_the_log() {
    let mut house = House::with(&[1, 2, 3], |mut config| {
        config.limits.frame_bytes = 4_000;
        config.limits.unflushed_bytes_hard = 50_000;
        config.limits.committed_queue_bytes = 50_000;
        config.limits.log_memory_bytes = 50_000;
        config.limits.stuck_bytes = 100_000;
        config
    });
    let leader = house.elect();
    house.ticks(2);
    let stuck = house.followers(leader)[0];
    house.node(stuck).hold(Worker::Flush);
    for n in 0..200 {
        let id = house.node(leader).put(&format!("k{n}"), &"v".repeat(4_000));
        house.settle();
        assert!(house.node(leader).is_acknowledged(id));
        if n % 10 == 0 {
            house.tick();
        }
    }
    let last = house.node(stuck).replica().status().last;
    assert!(last < house.node(leader).replica().status().last, "it takes all there is");
    assert_eq!(house.node(leader).view().leader(), leader);
    house.node(stuck).release(Worker::Flush);
    house.ticks(40);
    assert_eq!(house.node(stuck).hash(), house.node(leader).hash());
}

/// Frames wait because the disk is full; then a snapshot takes the place of all of them. What never was written must not be
/// counted for ever.
#[test]
fn a_snapshot_takes_the_place_of_frames_that_found_no_room() {
    let mut house = House::with(&[1, 2, 3], |mut config| {
        config.snapshot_count = 20;
        config.snapshot_catchup_entries = 5;
        config.segment_bytes = SegmentBytes { wal: 4 << 10, store: 16 << 10 };
        config.limits.frame_bytes = 1_000;
        config.limits.frames = 2;
        config
    });
    let leader = house.elect();
    house.ticks(2);
    let full = house.followers(leader)[0];
    let vfs = house.node(full).vfs.clone();
    for aside in ["spare", "reserve"] {
        vfs.unlink(&Path::new("/data/member/store").join(aside)).unwrap();
    }
    let in_store = |operation: &vfs::memory::Operation| {
        operation.kind == OperationKind::Preallocate
            && operation.path.starts_with("/data/member/store")
    };
    vfs.fail(in_store, u64::MAX, Fault::Errno(28));
    let put = |house: &mut House, n: usize| {
        house.node(leader).put(&format!("k{}", n % 20), &format!("{n}{}", "v".repeat(400)));
        house.settle();
    };
    (0..60).for_each(|n| put(&mut house, n));
    assert!(house.node(full).notices.contains(&Notice::Space(Space::Full)));
    house.isolate(full);
    for n in 0..60 {
        put(&mut house, n);
        house.node(leader).tick(1);
    }
    house.settle();
    vfs.heal();
    house.heal();
    let is_install = |notice: &Notice| matches!(notice, Notice::SnapshotInstalled { .. });
    for _ in 0..20 {
        house.node(leader).tick(1);
        house.settle();
    }
    assert!(house.node(full).notices.iter().any(is_install), "no snapshot was needed");
    let from = house.node(full).trace.len();
    for n in 0..20 {
        put(&mut house, n);
        house.tick();
    }
    let is_frame = |event: &Trace| matches!(event, Trace::FrameWritten { .. });
    assert!(house.node(full).trace[from..].iter().any(is_frame), "nothing is written any more");
    house.node(full).inbox.push_back(Input::Stop);
    house.ticks(3);
    assert!(house.node(full).notices.contains(&Notice::Stopped));
}

/// A follower is asked to end while its leader goes on sending: its log always has one more append under way, and the end
/// waits only for those that came before it.
#[test]
fn a_follower_ends_under_load() {
    let (mut house, leader) = three();
    let ending = house.followers(leader)[0];
    let put = |house: &mut House| {
        house.node(leader).put("k", "v");
        house.settle();
    };
    house.node(ending).hold(Worker::Log);
    put(&mut house);
    house.node(ending).inbox.push_back(Input::Stop);
    for _ in 0..20 {
        if house.node(ending).notices.contains(&Notice::Stopped) {
            return;
        }
        // What waits is reported, and in the same turn more comes.
        put(&mut house);
        let waiting: Vec<LogJob> = house.node(ending).log.drain(..).collect();
        put(&mut house);
        let behind = std::mem::replace(&mut house.node(ending).log, waiting.into());
        let messages = house.node(ending).work(Worker::Log);
        house.node(ending).log = behind;
        house.net.extend(messages);
        assert!(!house.node(ending).log.is_empty(), "there is a moment without an append");
        house.settle();
        house.tick();
    }
    panic!("it does not come to an end");
}

/// An append of term 2, the state of term 3, a mark, the state of term 4: the receipts of the first two come when the term
/// they name is over, and say nothing to raft. What the mark allows is released later.
#[test]
fn a_mark_between_two_changes_of_terms_releases_nothing_too_early() {
    let mut house = House::with(&[1, 2, 3], |mut config| {
        config.snapshot_count = 5;
        config.snapshot_catchup_entries = 0;
        config.limits.frame_bytes = 1;
        config
    });
    let leader = house.elect();
    house.ticks(2);
    let slow = house.followers(leader)[0];
    let beat = |house: &mut House, before: Vec<Input>, after: Vec<Input>| {
        let node = house.node(slow);
        let term = raft::Term(node.view().term().0 + 1);
        let (from, to) = (leader, slow);
        let message =
            raft::Message { kind: MessageKind::Heartbeat, from, to, term, ..Default::default() };
        node.inbox.extend(before);
        node.inbox.push_back(Input::Messages(vec![message]));
        node.inbox.extend(after);
        node.turn();
    };
    house.node(slow).hold(Worker::Log);
    for n in 0..10 {
        house.node(leader).put(&format!("k{n}"), "v");
        house.settle();
    }
    house.isolate(slow);
    // The log's word about the appends comes behind the news of the next term.
    house.node(slow).work(Worker::Log);
    let word = house.node(slow).inbox.drain(..).collect();
    beat(&mut house, Vec::new(), word);
    house.settle();
    let log = &house.node(slow).log;
    assert!(log.iter().any(|job| matches!(job, LogJob::Mark { .. })), "{log:?}");
    // And the same once more, with the mark.
    house.node(slow).work(Worker::Log);
    let word = house.node(slow).inbox.drain(..).collect();
    beat(&mut house, Vec::new(), word);
    house.node(slow).release(Worker::Log);
    house.settle();
    let released = |event: &Trace| matches!(event, Trace::Released { .. });
    assert!(house.node(slow).trace.iter().any(released));
}

/// The record of a mark counts for nothing without a state that commits it, so both are in the log before the word is given.
#[test]
fn a_mark_goes_to_the_log_with_a_state_that_commits_it() {
    let mut house = House::with(&[1], |mut config| {
        config.snapshot_count = 5;
        config
    });
    house.elect();
    for n in 0..30 {
        house.node(1).put(&format!("k{n}"), "v");
        house.tick();
    }
    house.ticks(15);
    let disk = house.node(1).vfs.fork();
    disk.power_cut_with(&mut |_| Fate::Lost);
    let marks = std::cell::RefCell::new(Vec::new());
    let mut open = None;
    for line in wal::dump::dump(&disk, "/data/member/wal".as_ref()).unwrap() {
        match line.record {
            Ok(wal::dump::Record::Snapshot(record)) if record.index > Index(0) => {
                assert_eq!(open, None, "a mark without a state");
                open = Some(record.index);
                marks.borrow_mut().push(record.index);
            }
            Ok(wal::dump::Record::State(state)) => {
                assert!(open.take().is_none_or(|mark| state.commit >= mark));
            }
            // Neither a sync nor an entry comes between the two.
            _ => assert_eq!(open, None, "something between a mark and its state"),
        }
    }
    assert!(!marks.into_inner().is_empty());
}

/// Reclaim makes the store write; it has the store sync only what it needs itself, and never beside the log. A mark that
/// waits is another matter.
#[test]
fn reclaim_asks_for_no_sync_and_a_mark_does() {
    let mut house = House::with(&[1, 2, 3], |mut config| {
        config.segment_bytes = SegmentBytes { wal: 4 << 20, store: 8 << 10 };
        config.limits.frame_bytes = 1_000;
        config.snapshot_count = 200;
        config
    });
    let leader = house.elect();
    house.ticks(2);
    let wants_sync = |node: &Node| node.flush.iter().any(|job| matches!(job, FlushJob::Sync));
    let mut reclaimed = false;
    let mut marked_in = None;
    for round in 0..30 {
        // Frames gather before the store.
        house.node(leader).hold(Worker::Flush);
        for _ in 0..10 {
            house.node(leader).put("k", &"v".repeat(500));
            house.settle();
        }
        let revision = house.node(leader).view().state.revision();
        house.node(leader).propose(compact_request(revision));
        house.settle();
        // An append is under way, and the store works.
        house.node(leader).hold(Worker::Log);
        house.node(leader).put("more", "v");
        for _ in 0..40 {
            house.settle();
            let node = house.node(leader);
            reclaimed |= node.flush.iter().any(|job| matches!(job, FlushJob::Reclaim));
            if wants_sync(node) {
                marked_in.get_or_insert(round);
            }
            node.work(Worker::Flush);
        }
        house.node(leader).release(Worker::Log);
        house.node(leader).release(Worker::Flush);
        house.settle();
        house.ticks(11);
    }
    assert!(reclaimed, "there was nothing to reclaim");
    // Twelve entries in a round, and every two hundredth makes a mark due.
    assert!(marked_in.is_some_and(|round| round >= 14), "a sync in round {marked_in:?}");
}

/// What is applied and not written is bounded also where nobody could close an inbox, and goes on when frames are written.
#[test]
fn a_follower_stops_applying_while_too_much_is_not_written() {
    let mut house = House::with(&[1, 2, 3], |mut config| {
        config.limits.unflushed_bytes_hard = 20_000;
        config.limits.frame_bytes = 4_000;
        config
    });
    let leader = house.elect();
    house.ticks(2);
    let slow = house.followers(leader)[0];
    house.node(slow).hold(Worker::Flush);
    for n in 0..50 {
        house.node(leader).put(&format!("k{n}"), &"v".repeat(1_000));
        house.settle();
    }
    house.ticks(2);
    let applied = house.node(slow).view().applied();
    let last = house.node(leader).view().applied();
    assert!(applied.0 > 15 && applied.0 < 30, "{applied} of {last}");
    house.node(slow).release(Worker::Flush);
    house.ticks(15);
    assert_eq!(house.node(slow).view().applied(), last);
}

/// A byte of a sealed segment changes on disk. Nobody reads it; the scrubber finds it in time, and says where.
#[test]
fn rot_is_found_by_the_scrubber_and_said() {
    let mut house = House::with(&[1], |mut config| {
        config.segment_bytes = SegmentBytes { wal: 4 << 20, store: 16 << 10 };
        config.limits.frame_bytes = 4_000;
        config.limits.scrub_pause_ms = 3_000;
        config
    });
    house.elect();
    for n in 0..60 {
        house.node(1).put(&format!("k{n}"), &"v".repeat(1_000));
        house.settle();
    }
    house.ticks(80);
    let damage = |node: &Node| {
        let said = |notice: &Notice| matches!(notice, Notice::Damage(_));
        node.notices.iter().filter(|notice| said(notice)).cloned().collect::<Vec<_>>()
    };
    assert_eq!(damage(house.node(1)), []);
    let vfs = house.node(1).vfs.clone();
    vfs.rot("/data/member/store/0000000000.segment".as_ref(), 5_000, 0x10);
    house.ticks(80);
    let said = damage(house.node(1));
    let [Notice::Damage(what)] = &said[..] else { panic!("{said:?}") };
    assert!(what.contains("0000000000.segment"), "{what}");
    assert_eq!(house.node(1).fatal(), None);
}

/// Everything else comes before scrubbing: while an append waits for its sync, or reclaim has work, none is given out.
#[test]
fn scrubbing_waits_for_the_log() {
    let mut house = House::with(&[1, 2, 3], |mut config| {
        config.segment_bytes = SegmentBytes { wal: 4 << 20, store: 16 << 10 };
        config.limits.frame_bytes = 4_000;
        config.limits.scrub_pause_ms = 1_000;
        config
    });
    let leader = house.elect();
    for n in 0..60 {
        house.node(leader).put(&format!("k{n}"), &"v".repeat(1_000));
        house.settle();
    }
    house.ticks(30);
    let scrubs = |node: &Node| node.flush.iter().any(|job| matches!(job, FlushJob::Scrub { .. }));
    house.node(leader).hold(Worker::Log);
    house.node(leader).put("last", "1");
    house.settle();
    house.node(leader).hold(Worker::Flush);
    house.ticks(30);
    assert!(!scrubs(house.node(leader)), "beside a sync of the log");
    house.node(leader).release(Worker::Log);
    house.node(leader).release(Worker::Flush);
    let mut seen = false;
    for _ in 0..30 {
        house.node(leader).tick(1);
        house.node(leader).turn();
        seen |= scrubs(house.node(leader));
        house.settle();
    }
    assert!(seen);
}

/// What a compaction killed and reclaim has not yet cleared away is not sent to a member that was away.
#[test]
fn a_snapshot_brings_what_lives_and_no_more() {
    let mut house = House::with(&[1, 2, 3], |mut config| {
        config.snapshot_count = 20;
        config.snapshot_catchup_entries = 5;
        config.segment_bytes = SegmentBytes { wal: 4 << 10, store: 1 << 20 };
        config
    });
    let leader = house.elect();
    house.ticks(2);
    let away = house.followers(leader)[0];
    house.node(away).kill();
    for n in 0..100 {
        house.node(leader).put(&format!("k{}", n % 5), &"v".repeat(1_000));
        house.settle();
    }
    house.node(leader).propose(delete_request("k0"));
    house.settle();
    let revision = house.node(leader).view().state.revision();
    house.node(leader).propose(compact_request(revision));
    house.settle();
    house.ticks(25);
    house.node(away).open(Bootstrap::Restart).unwrap();
    house.ticks(15);
    assert!(!house.received.is_empty(), "no snapshot was needed");
    assert!(house.snapshot_bytes < 20_000, "{} bytes for four keys", house.snapshot_bytes);
    assert_eq!(house.node(away).hash(), house.node(leader).hash());
    house.node(away).put("k0", "again");
    house.ticks(2);
    house.node(away).cut_power(1);
    house.node(away).open(Bootstrap::Restart).unwrap();
    house.ticks(15);
    assert_eq!(house.node(away).hash(), house.node(leader).hash());
}

/// A member proposes, is cut off, and hears of its entry only as a part of a snapshot. Its waiter hears nothing and ends at
/// its deadline: what the entry answered, nobody here knows. A reader's pin does not outlive the memory it was made in.
#[test]
fn a_snapshot_answers_nobody_and_revokes_pins() {
    let mut house = House::with(&[1, 2, 3], |mut config| {
        config.snapshot_count = 20;
        config.snapshot_catchup_entries = 5;
        config.segment_bytes = SegmentBytes { wal: 4 << 10, store: 16 << 10 };
        config
    });
    let leader = house.elect();
    house.ticks(2);
    let away = house.followers(leader)[0];
    let pin = house.node(away).view().state.reader().pin(0).unwrap();
    // What it forwards arrives; what follows from it does not come back.
    let back: Vec<_> = house.nodes.keys().map(|id| (*id, away)).collect();
    house.cut.extend(back);
    let waiting = house.node(away).put("mine", "1");
    house.settle();
    house.isolate(away);
    assert_eq!(house.node(leader).get("mine").as_deref(), Some("1"));
    for n in 0..60 {
        house.node(leader).put(&format!("k{}", n % 20), &"v".repeat(400));
        house.settle();
        house.node(leader).tick(1);
    }
    house.settle();
    assert!(!pin.is_revoked());
    house.heal();
    house.ticks(15);
    let node = house.node(away);
    let is_install = |notice: &Notice| matches!(notice, Notice::SnapshotInstalled { .. });
    assert!(node.notices.iter().any(is_install), "no snapshot was needed");
    assert_eq!(node.get("mine").as_deref(), Some("1"));
    assert!(pin.is_revoked());
    assert!(node.reply(waiting).is_none() && node.refusal(waiting).is_none());
    let expired = node.waiters.expired(u64::MAX);
    assert!(expired.iter().any(|(id, _)| *id == waiting));
}

/// A reader that takes nothing any more does not hold up what a compaction would clear away.
#[test]
fn a_pin_that_nobody_uses_is_revoked() {
    let mut house = House::with(&[1], |config| Config { tick_ms: 10_000, ..config });
    house.elect();
    let (idle, used) = {
        let reader = house.node(1).view().state.reader().clone();
        (reader.pin(0).unwrap(), reader.pin(0).unwrap())
    };
    for _ in 0..10 {
        used.touch();
        house.tick();
    }
    assert!(idle.is_revoked() && !used.is_revoked());
}

/// The index is what reclaim asks. It must not call dead what only a compaction killed that a crash could take back: reclaim
/// waits for no frame.
#[test]
fn a_compaction_kills_nothing_before_it_is_written() {
    let mut house = lone();
    house.node(1).put("k", "1");
    house.settle();
    let old = store::Revision { main: house.node(1).view().state.revision(), sub: 0 };
    house.node(1).put("k", "2");
    house.ticks(12);
    let is_live = |node: &Node| node.view().state.reader().is_live(b"k", old);
    house.node(1).hold(Worker::Flush);
    compact_now(&mut house);
    house.ticks(25);
    assert!(is_live(house.node(1)));
    house.node(1).release(Worker::Flush);
    house.ticks(25);
    assert!(!is_live(house.node(1)));
}

/// What a power cut may make of a disk: nothing that was not synced is kept, or all of it, or all but the end of one
/// sector, at each of its words.
fn cuts(disk: &Memory) -> Vec<Memory> {
    let cut = |decide: &mut dyn FnMut(&Unsynced) -> Fate| {
        let copy = disk.fork();
        copy.power_cut_with(decide);
        copy
    };
    let mut cuts = vec![cut(&mut |_| Fate::Lost), cut(&mut |_| Fate::Kept)];
    for torn in disk.unsynced() {
        if matches!(torn, Unsynced::Sector { .. }) {
            cuts.extend((0..512).step_by(8).map(|at| {
                cut(&mut |unsynced| match *unsynced == torn {
                    true => Fate::Torn(at),
                    false => Fate::Kept,
                })
            }));
        }
    }
    cuts
}

/// How many entries the log on a disk has, as far as it can be read.
fn entries_in_log(disk: &Memory) -> usize {
    let Ok(lines) = wal::dump::dump(disk, "/data/member/wal".as_ref()) else { return 0 };
    lines.filter(|line| matches!(line.record, Ok(wal::dump::Record::Entry(_)))).count()
}

fn compact(house: &mut House, revision: i64, physical: bool) -> state_machine::RequestId {
    let request = proto::etcdserverpb::CompactionRequest { revision, physical };
    house.node(1).propose(state_machine::Request::Compact(request))
}

/// What HashKV says of a revision: the mark that it was computed under.
fn hashed_under(house: &mut House, revision: i64) -> Result<i64, Error> {
    match house.node(1).view().state.hash_kv(revision)? {
        Reply::HashKv { compact_revision, .. } => Ok(compact_revision),
        other => panic!("{other:?}"),
    }
}

/// Four compactions while the read threads are busy. Each answers at once, and old revisions are still on record, for
/// none may go before its hash is known; then the hashes come in their order, and what they held back goes.
#[test]
fn a_compaction_is_hashed_before_it_is_pruned() {
    let mut house = lone();
    house.node(1).hold(Worker::Read);
    for revision in 2..=6 {
        house.node(1).put("a", "1");
        if revision > 2 {
            let id = compact(&mut house, revision - 1, false);
            house.settle();
            assert!(house.node(1).is_acknowledged(id));
        }
    }
    let first = store::Revision { main: 2, sub: 0 };
    assert_eq!(hashed_under(&mut house, 5), Ok(5), "not known yet, so computed as it is now");
    // The frame with the compactions is written, which would be enough without what is due.
    house.ticks(15);
    assert!(house.node(1).view().state.reader().is_live(b"a", first));
    house.node(1).release(Worker::Read);
    house.settle();
    assert!(!house.node(1).view().state.reader().is_live(b"a", first));
    let under: Vec<_> = (2..=5).map(|revision| hashed_under(&mut house, revision)).collect();
    assert_eq!(under, [Ok(-1), Ok(2), Ok(3), Ok(4)]);
}

/// Who asks for a physical compaction hears of it when its hash can be asked for; so does who asks for one that is not
/// above the mark, as with etcd. What can never be is refused at once. Puts pass them by.
#[test]
fn a_physical_compaction_waits_for_its_hash() {
    let mut house = lone();
    for _ in 0..4 {
        house.node(1).put("a", "1");
    }
    house.settle();
    house.node(1).hold(Worker::Read);
    let plain = compact(&mut house, 2, false);
    let physical = compact(&mut house, 4, true);
    let late = compact(&mut house, 3, true);
    let future = compact(&mut house, 9, true);
    let put = house.node(1).put("a", "2");
    house.settle();
    assert!(house.node(1).is_acknowledged(plain) && house.node(1).is_acknowledged(put));
    assert_eq!(house.node(1).reply(future), Some(&Err(Error::FutureRevision)));
    assert!(house.node(1).reply(physical).is_none() && house.node(1).reply(late).is_none());
    house.node(1).release(Worker::Read);
    house.settle();
    assert!(house.node(1).is_acknowledged(physical));
    assert_eq!(house.node(1).reply(late), Some(&Err(Error::Compacted)));
    assert_eq!(hashed_under(&mut house, 4), Ok(2));
    let again = compact(&mut house, 4, true);
    house.settle();
    assert_eq!(house.node(1).reply(again), Some(&Err(Error::Compacted)), "nothing to wait for");
}

/// The stages of one put, as the parts of the leader tell them: written and synced before it counts for itself,
/// committed by a quorum, applied, answered under its name and index, in this order and each once.
#[test]
fn the_trace_tells_the_stages_of_a_put_in_their_order() {
    let (mut house, leader) = three();
    house.ticks(15);
    let before = house.node(leader).trace.len();
    let id = house.node(leader).put("a", "1");
    house.settle();
    let told = house.node(leader).trace[before..].to_vec();
    let index = told.iter().find_map(|event| match event {
        Trace::Answered { id: of, index } if *of == id => Some(*index),
        _ => None,
    });
    let index = index.expect("the reply is told");
    let stages: [fn(&Trace, Index) -> bool; 8] = [
        |event, _| matches!(event, Trace::Proposed { .. }),
        |event, at| matches!(event, Trace::Appended { last, .. } if *last == at),
        |event, _| matches!(event, Trace::Sent { message, .. } if message.entries == 1),
        |event, at| matches!(event, Trace::Written { last, .. } if *last == at),
        |event, at| matches!(event, Trace::Synced { last } if *last == at),
        |event, at| matches!(event, Trace::Committed { index } if *index == at),
        |event, at| matches!(event, Trace::Applied { index } if *index == at),
        |event, at| matches!(event, Trace::Answered { index, .. } if *index == at),
    ];
    let mut last = None;
    for (number, stage) in stages.iter().enumerate() {
        let place = told.iter().position(|event| stage(event, index));
        assert!(place.is_some() && place > last, "stage {number} is not in its place: {told:?}");
        last = place;
    }
    let matched: Vec<_> = told
        .iter()
        .filter_map(|event| match event {
            Trace::Matched { node, index: at } if *at == index => Some(*node),
            _ => None,
        })
        .collect();
    assert_eq!(matched.len(), 3, "each member's log is known to hold it once: {told:?}");
    let commit = told.iter().position(|event| *event == Trace::Committed { index });
    let second = told
        .iter()
        .enumerate()
        .filter(|(_, event)| matches!(event, Trace::Matched { index: at, .. } if *at == index))
        .nth(1)
        .map(|(place, _)| place);
    assert!(second < commit, "committed before two logs held it: {told:?}");
}

/// A put is acknowledged by the leader and one follower, which then loses its disk and starts as the founder that it was.
/// Without the leader, the two others could elect the one that never had the put: but who forgot does not vote.
#[test]
fn a_member_that_lost_its_disk_cannot_lose_what_it_acknowledged() {
    let mut house = House::new(&[1, 2, 3]);
    let leader = house.elect();
    let [amnesiac, behind] = house.followers(leader)[..] else { panic!("there are three") };
    house.ticks(2);
    house.isolate(behind);
    let id = house.node(leader).put("k", "v");
    house.settle();
    assert!(house.node(leader).is_acknowledged(id));

    house.node(amnesiac).kill();
    house.node(amnesiac).vfs = Memory::new(99);
    house.node(amnesiac).open(Bootstrap::New(founders(&[1, 2, 3]))).unwrap();
    house.ticks(3);
    let forgotten = |notice: &Notice| matches!(notice, Notice::Forgotten { .. });
    let said =
        |house: &mut House| house.node(amnesiac).notices.iter().filter(|n| forgotten(n)).count();
    assert_eq!(said(&mut house), 1, "once");
    // Whoever reads that starts it again, first of all.
    house.node(amnesiac).cut_power(1);
    house.node(amnesiac).open(Bootstrap::Restart).unwrap();

    house.node(leader).kill();
    house.heal();
    house.ticks(100);
    assert!(!house.node(behind).leads() && !house.node(amnesiac).leads(), "the put would be lost");

    // With whoever has it, all goes on, and in the new term the amnesiac gets it back.
    house.node(leader).open(Bootstrap::Restart).unwrap();
    let next = house.elect();
    assert_eq!(next, leader, "nobody else has the put");
    house.ticks(20);
    for id in [1, 2, 3] {
        assert_eq!(house.node(id).get("k").as_deref(), Some("v"), "member {id}");
    }
    house.node(leader).kill();
    assert_ne!(house.elect(), leader, "and votes again");
    house.node(amnesiac).kill();
    house.node(amnesiac).open(Bootstrap::Restart).unwrap();
    let names = house.node(amnesiac).vfs.list(std::path::Path::new("/data/member")).unwrap();
    assert!(!names.contains(&"forgotten".to_owned()), "nothing is noted any more: {names:?}");
}
