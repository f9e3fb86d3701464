//! `write`: one put, sent to a follower, the whole way to the answer and to the store.

use raft::MessageKind;
use replica::Trace;

use crate::lab::Experiment;
use crate::lab::bench::{Lab, before, when};
use crate::lab::stages::{appended, applied, committed, framed, sent, sent_entries, synced};
use crate::scenario::Mutant;

pub const EXPERIMENT: Experiment = Experiment {
    name: "write",
    question: "The way of a write: one put through a follower, from the request to the store",
    mutant: Mutant::AckBeforeQuorum,
    arrange: |_| {},
    run,
};

fn run(lab: &mut Lab) {
    let leader = lab.settle();
    let [asked, other] = lab.others(leader);
    lab.begin();
    lab.step("the client puts foo; the member that it asks is a follower");
    let put = lab.put(asked, "foo", "bar");
    lab.until("the client is answered", |lab| lab.done_at(put).is_some());
    lab.step("the client has its answer; what follows nobody waits for");
    let frames = |lab: &Lab| {
        (0..3).all(|m| lab.at(m, |t| matches!(t, Trace::FrameWritten { .. })).is_some())
    };
    lab.until("each member's store has a frame", frames);

    let entry = lab.stages(asked).find_map(|(_, trace)| match trace {
        Trace::Answered { index, .. } => Some(*index),
        _ => None,
    });
    let entry = entry.unwrap_or_default();
    let acknowledges = |t: &Trace| {
        matches!(t, Trace::Sent { message, .. }
            if message.kind == MessageKind::AppResp && message.index >= entry)
    };

    let (asked_name, leader_name) = (asked + 1, leader + 1);
    let forwarded = lab.at(asked, sent(MessageKind::Prop));
    let numbered = lab.at(leader, appended(entry));
    lab.claim(
        format!(
            "A follower decides nothing: member {asked_name} passes the put on as MsgProp, and the leader, member \
             {leader_name}, makes entry {entry} of it."
        ),
        before(forwarded, numbered),
    );

    let (leaves, leader_synced) = (lab.at(leader, sent_entries()), lab.at(leader, synced(entry)));
    lab.claim(
        format!(
            "The leader does not write first and send then: MsgApp leaves at {}, its own WAL is durable at {}. Disk and \
             network work side by side.",
            when(leaves),
            when(leader_synced)
        ),
        before(leaves, leader_synced),
    );

    let honest =
        [asked, other].iter().all(|&m| before(lab.at(m, synced(entry)), lab.at(m, acknowledges)));
    lab.claim(
        "A follower writes its WAL when the entry comes, and sends MsgAppResp only after its own sync.",
        honest,
    );

    let commits = lab.at(leader, committed(entry));
    let durable = lab.members_by(commits, synced(entry));
    lab.claim(
        format!(
            "Committed means durable on a majority: at {}, when the leader commits, {durable} of 3 logs hold the entry \
             on disk.",
            when(commits)
        ),
        durable >= 2,
    );

    let learns = lab.at(asked, committed(entry));
    let applies = lab.at(asked, applied(entry));
    let answered = lab.done_at(put);
    lab.claim(
        format!(
            "Member {asked_name} learns of the commit at {}, applies, and answers its client ({}), who is answered once, \
             and by the member that it asked.",
            when(learns),
            when(answered)
        ),
        before(commits, learns) && before(learns, applies) && before(applies, answered),
    );

    let behind = (0..3).all(|m| before(lab.at(m, synced(entry)), lab.at(m, framed(entry))));
    lab.claim(
        "The store comes last, and nobody waits for it: on each member the frame with the entry is written only when \
         that member's own WAL has it on disk, and it is not even synced. What a crash takes from the store, the log \
         brings back.",
        behind,
    );
}
