//! `snapshot`: what triggers one, what is in it, a member that is too far behind for the log, and a restart.

use raft::MessageKind;
use replica::Trace;

use crate::lab::Experiment;
use crate::lab::bench::{Lab, before, took, when};
use crate::lab::stages::{received, sent};
use crate::scenario::Mutant;

/// The log is marked after so many applied entries (etcd: 10,000), and so many stay for who is a little behind (5,000).
const COUNT: u64 = 10;
const KEPT: u64 = 3;

pub const EXPERIMENT: Experiment = Experiment {
    name: "snapshot",
    question: "Snapshots: what triggers one, what is in it, a member too far behind for the log, a restart, how long",
    mutant: Mutant::LoseSnapshots,
    arrange: |scenario| {
        scenario.config.snapshot_count = COUNT;
        scenario.config.snapshot_catchup_entries = KEPT;
    },
    run,
};

/// What belongs to snapshots and to catching up, and not to each single put.
fn worth_telling(trace: &Trace) -> bool {
    match trace {
        Trace::Marked { .. }
        | Trace::Released { .. }
        | Trace::StoreSynced { .. }
        | Trace::SnapshotPinned { .. }
        | Trace::SnapshotImported { .. }
        | Trace::SnapshotInstalled { .. } => true,
        Trace::Sent { message, .. } | Trace::Received { message, .. } => {
            message.kind == MessageKind::Snap
                || message.kind == MessageKind::AppResp && message.reject
        }
        _ => false,
    }
}

fn run(lab: &mut Lab) {
    let leader = lab.settle();
    let [one, behind] = lab.others(leader);
    lab.begin();
    lab.show(worth_telling);

    lab.step(format!("member {} is cut off; {} puts follow", behind + 1, 2 * COUNT));
    for other in [leader, one] {
        lab.world().network.cut(other, behind, true);
    }
    lab.put_many(leader, 2 * COUNT, 100);
    lab.run_ms(300);
    let index = |trace: &Trace| match trace {
        Trace::Marked { index } | Trace::Released { index } => Some(index.0),
        _ => None,
    };
    let is_mark = |t: &Trace| matches!(t, Trace::Marked { .. });
    let place = |t: &Trace| index(t).unwrap_or(0);
    let first_mark = lab.stages(leader).find(|(_, t)| is_mark(t)).map_or(0, |(_, t)| place(t));
    let marked = lab.last(leader, is_mark).map_or(0, |(_, t)| place(&t));
    let is_release = |t: &Trace| matches!(t, Trace::Released { .. });
    let released = lab.last(leader, is_release).map_or(0, |(_, t)| place(&t));
    let stored = lab.at(leader, |t| matches!(t, Trace::StoreSynced { .. }));
    lab.claim(
        format!(
            "The trigger is the number of applied entries, here {COUNT} (etcd's snapshot-count). What it makes is no copy: the \
             store, which has everything anyway, is synced ({}), and then a record in the WAL says that the store answers \
             for all up to {first_mark}.",
            when(stored)
        ),
        marked > 0 && before(stored, lab.at(leader, is_mark)),
    );
    lab.claim(
        format!(
            "That is what a snapshot is for: what lies {KEPT} entries below the mark is given up, here up to {released}. \
             Without it the log would grow for ever."
        ),
        released > 0 && released + KEPT <= marked,
    );

    let from = lab.latest();
    lab.step(format!("member {} is back; the log that it needs is gone", behind + 1));
    for other in [leader, one] {
        lab.world().network.cut(other, behind, false);
    }
    if !lab.until("it has caught up", |lab| lab.applied(behind) == lab.applied(leader)) {
        return;
    }
    lab.run_ms(5);
    let asked = lab.at_after(leader, from, sent(MessageKind::Snap));
    let installed = |t: &Trace| matches!(t, Trace::SnapshotInstalled { .. });
    let arrived = lab.at_after(behind, from, installed);
    lab.claim(
        format!(
            "The leader finds the place gone, and sends MsgSnap ({}); the store is streamed beside it, imported, and in \
             force at {}. The entries behind it come by the log again.",
            when(asked),
            when(arrived)
        ),
        before(asked, arrived) && lab.at_after(behind, from, received(MessageKind::Snap, false)).is_some(),
    );
    let hashes: Vec<_> = (0..3).map(|m| lab.hash(m)).collect();
    lab.claim(
        format!(
            "In it is the whole keyspace with its history, and leases, members and settings: the three members' HashKV at \
             revision {} is the same.",
            lab.keyspace_revision(leader)
        ),
        hashes[0].is_some() && hashes.iter().all(|hash| *hash == hashes[0]),
    );

    let from = lab.latest();
    lab.step(format!("member {} dies and starts again", behind + 1));
    lab.world().kill(behind, false);
    lab.start(behind);
    let at_start = lab.applied(behind);
    lab.until("it follows", |lab| {
        lab.follows(behind, leader) && lab.applied(behind) == lab.applied(leader)
    });
    lab.claim(
        format!(
            "A restart needs no snapshot from anybody: the member finds its own store at entry {at_start}, and the log \
             has the rest."
        ),
        at_start.0 > 0 && lab.at_after(behind, from, received(MessageKind::Snap, false)).is_none(),
    );

    let mut times = Vec::new();
    for kib in [16, 128, 512] {
        lab.step(format!(
            "half a minute later member {} is cut off while {kib} KiB are written, and comes back",
            behind + 1
        ));
        // For so long what follows a snapshot is kept for its receiver.
        lab.quietly(|lab| {
            lab.run_ms(31_000);
            for other in [leader, one] {
                lab.world().network.cut(other, behind, true);
            }
            lab.put_many(leader, 2 * COUNT, (kib << 10) / 20);
            lab.run_ms(300);
        });
        let from = lab.latest();
        for other in [leader, one] {
            lab.world().network.cut(other, behind, false);
        }
        lab.until("it has caught up", |lab| lab.applied(behind) == lab.applied(leader));
        let begins = lab.at_after(leader, from, sent(MessageKind::Snap));
        let ends = lab.at_after(behind, from, installed);
        times.push((kib, took(begins, ends)));
    }
    let told: Vec<String> = times
        .iter()
        .map(|(kib, time)| format!("{kib} KiB more: {}", time.as_deref().unwrap_or("never")))
        .collect();
    lab.claim(
        format!(
            "It takes as long as its bytes take to travel (on this network, from MsgSnap to in force: {}). quorate lab \
             snapshot --real measures it on this machine's disk.",
            told.join(", ")
        ),
        times.iter().all(|(_, time)| time.is_some()),
    );
}
