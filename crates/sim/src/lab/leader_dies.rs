//! `leader-dies`: what the next leader holds, and what the client may believe, when a leader dies at three moments.

use raft::{Message, MessageKind, RoleKind};

use crate::lab::Experiment;
use crate::lab::bench::{Lab, before, when};
use crate::lab::stages::{appended, becomes, committed, received, synced};
use crate::scenario::Mutant;

pub const EXPERIMENT: Experiment = Experiment {
    name: "leader-dies",
    question: "The leader dies before it could send the commit index: does the next leader have what was committed?",
    mutant: Mutant::VoteTwice,
    arrange: |_| {},
    run,
};

fn tells_commit(m: &Message) -> bool {
    m.kind == MessageKind::App && m.entries.is_empty() || m.kind == MessageKind::Heartbeat
}

fn tells_anything(m: &Message) -> bool {
    matches!(m.kind, MessageKind::App | MessageKind::Heartbeat)
}

fn run(lab: &mut Lab) {
    let leader = lab.settle();
    lab.begin();
    let next = committed_but_not_told(lab, leader);
    lab.heal(leader);
    let next = on_one_disk_only(lab, next);
    lab.heal(next.0);
    on_a_majority_but_not_known(lab, next.1);
}

/// On a majority, committed, answered; the followers have not heard of the commit, and one has not even the entry.
fn committed_but_not_told(lab: &mut Lab, leader: usize) -> usize {
    let [holder, other] = lab.others(leader);
    lab.step(format!(
        "first: entry on a majority. Member {} is cut off from the leader, and no commit index leaves it",
        other + 1
    ));
    lab.world().network.cut(leader, other, true);
    lab.world().hold(leader, tells_commit);
    let put = lab.put(leader, "first", "1");
    lab.until("the client is answered", |lab| lab.done_at(put).is_some());
    let entry = lab.first_appended(leader);
    lab.step("the client has its answer; the leader dies");
    lab.world().kill(leader, false);
    // So that the one without the entry tries first.
    lab.world().hold(holder, |m| matches!(m.kind, MessageKind::PreVote | MessageKind::Vote));
    lab.until("the one without the entry is refused", |lab| {
        lab.at(other, received(MessageKind::PreVoteResp, true)).is_some()
    });
    let refused = lab.at(other, received(MessageKind::PreVoteResp, true));
    lab.claim(
        format!(
            "Member {} lacks entry {entry}, and cannot lead: member {}, which has it, refuses its vote ({}).",
            other + 1,
            holder + 1,
            when(refused)
        ),
        refused.is_some() && lab.at(other, synced(entry)).is_none(),
    );
    lab.step(format!("member {} may ask for votes now", holder + 1));
    lab.world().let_go(holder);
    lab.until("there is a leader again", |lab| {
        lab.leader().is_some() && lab.at(holder, committed(entry)).is_some()
    });
    let next = lab.leader().unwrap_or(holder);
    let read = lab.get(next, "first", false);
    lab.until("the read is answered", |lab| lab.answer(read).is_some());
    lab.claim(
        format!(
            "The next leader is member {}. It has the entry, and commits it at {} together with the first entry of its own \
             term, although no commit index ever reached it.",
            next + 1,
            when(lab.at(holder, committed(entry)))
        ),
        next == holder && before(lab.at(holder, becomes(RoleKind::Leader)), lab.at(holder, committed(entry))),
    );
    lab.claim(
        "What a client was told OK is there: a read through the new leader finds first=1.",
        lab.found(read) == Some(vec![("first".to_owned(), "1".to_owned())]),
    );
    next
}

/// On the leader's disk alone. Who leads next, and who was leader.
fn on_one_disk_only(lab: &mut Lab, leader: usize) -> (usize, usize) {
    lab.step("second: the entry is on the leader's disk alone; nothing leaves it");
    lab.world().hold(leader, tells_anything);
    let from = lab.latest();
    let put = lab.put(leader, "second", "2");
    lab.until("the leader's WAL is synced", |lab| lab.newest_synced(leader, from).is_some());
    let entry = lab.newest_synced(leader, from).unwrap_or_default();
    lab.step("it dies");
    lab.world().kill(leader, false);
    lab.until("there is a leader again", |lab| lab.leader().is_some_and(|l| l != leader));
    let next = lab.leader().unwrap_or(leader);
    let read = lab.get(next, "second", false);
    lab.until("the read is answered", |lab| lab.answer(read).is_some());
    lab.step(format!("member {} comes back, with an entry that nobody else has", leader + 1));
    let back = lab.latest();
    lab.start(leader);
    lab.until("it has the new leader's entry in that place", |lab| {
        lab.at_after(leader, back, appended(entry)).is_some()
    });
    lab.run_ms(50);
    lab.claim(
        "What was on one disk only was never promised: the client got no answer, only a connection that broke.",
        lab.answer(put).is_none(),
    );
    lab.claim(
        format!(
            "The next leader never saw it: a read finds nothing. Member {} comes back, and its entry {entry} is replaced by \
             the new leader's ({}).",
            leader + 1,
            when(lab.at_after(leader, back, appended(entry)))
        ),
        lab.found(read).is_some_and(|found| found.is_empty())
            && lab.at_after(leader, back, appended(entry)).is_some(),
    );
    (next, next)
}

/// On all disks, but the leader dies before it hears so.
fn on_a_majority_but_not_known(lab: &mut Lab, leader: usize) {
    let followers = lab.others(leader);
    lab.step("third: the entry is on all disks, but the leader dies before it hears so");
    for follower in followers {
        lab.world().hold(follower, |m| m.kind == MessageKind::AppResp);
    }
    let from = lab.latest();
    let put = lab.put(leader, "third", "3");
    lab.until("all have it on disk", |lab| (0..3).all(|m| lab.newest_synced(m, from).is_some()));
    lab.step("it dies");
    lab.world().kill(leader, false);
    for follower in followers {
        lab.world().let_go(follower);
    }
    lab.until("there is a leader again", |lab| lab.leader().is_some_and(|l| l != leader));
    let next = lab.leader().unwrap_or(leader);
    let read = lab.get(next, "third", false);
    lab.until("the read is answered", |lab| lab.answer(read).is_some());
    lab.claim(
        "An answer that does not come says nothing: this client heard as little as the one before, and its value is there \
         (third=3), committed by a leader that it never asked.",
        lab.answer(put).is_none()
            && lab.found(read) == Some(vec![("third".to_owned(), "3".to_owned())]),
    );
}
