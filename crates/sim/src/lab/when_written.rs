//! `when-written`: when does a follower write its WAL, and when does it apply?

use raft::MessageKind;

use crate::lab::Experiment;
use crate::lab::bench::{Lab, before, when};
use crate::lab::stages::{acknowledged, applied, committed, synced, written};
use crate::scenario::Mutant;
use crate::script::Stall;

pub const EXPERIMENT: Experiment = Experiment {
    name: "when-written",
    question: "When does a follower write its WAL, and when does it apply: at the entries, or at the commit index?",
    mutant: Mutant::AckBeforeSync,
    arrange: |_| {},
    run,
};

fn run(lab: &mut Lab) {
    let leader = lab.settle();
    let [one, other] = lab.others(leader);
    lab.begin();
    lab.step(format!(
        "the leader's commit index reaches nobody, and member {}'s disk hangs before its next sync",
        other + 1
    ));
    // Heartbeats carry it too.
    lab.world().hold(leader, |m| {
        m.kind == MessageKind::App && m.entries.is_empty() || m.kind == MessageKind::Heartbeat
    });
    lab.world().stall(other, Stall::Sync);
    let put = lab.put(leader, "foo", "bar");
    lab.until("the client is answered", |lab| lab.done_at(put).is_some());
    lab.run_ms(20);
    let entry = lab.first_appended(leader);
    let hung = lab.at(leader, acknowledged(other as u64 + 1, entry));
    lab.claim(
        format!(
            "An answer vouches for a disk: member {} has the entry in its WAL's file ({}), and says nothing before the \
             sync.",
            other + 1,
            when(lab.at(other, written(entry)))
        ),
        lab.at(other, written(entry)).is_some() && hung.is_none(),
    );
    lab.step(format!("member {}'s disk goes on", other + 1));
    lab.world().unstall(other, Stall::Sync);
    lab.until("its answer comes", |lab| {
        lab.at(leader, acknowledged(other as u64 + 1, entry)).is_some()
    });
    lab.run_ms(10);
    let heard = lab.at(leader, acknowledged(other as u64 + 1, entry));
    lab.claim(
        format!(
            "Its MsgAppResp comes after its sync: synced at {}, at the leader at {}.",
            when(lab.at(other, synced(entry))),
            when(heard)
        ),
        before(lab.at(other, synced(entry)), heard),
    );
    let stale = lab.get(one, "foo", true);
    lab.until("the read is answered", |lab| lab.done_at(stale).is_some());
    let durable = [one, other].iter().all(|&m| lab.at(m, synced(entry)).is_some());
    let knows = [one, other].iter().any(|&m| lab.at(m, committed(entry)).is_some());
    let applies = [one, other].iter().any(|&m| lab.at(m, applied(entry)).is_some());
    lab.claim(
        "Both followers have written and synced at the entries, and none knows that it is committed: the WAL is written at \
         the first MsgApp, not at the second.",
        durable && !knows,
    );
    lab.claim(
        "Neither has applied. A read of what member has (serializable) finds nothing yet, although the client was told OK."
            .replace("what member", &format!("what member {}", one + 1)),
        !applies && lab.found(stale).is_some_and(|found| found.is_empty()),
    );
    lab.step("the leader's letters go out");
    lab.world().let_go(leader);
    lab.until("the followers apply", |lab| {
        [one, other].iter().all(|&m| lab.at(m, applied(entry)).is_some())
    });
    let fresh = lab.get(one, "foo", true);
    lab.until("the read is answered", |lab| lab.done_at(fresh).is_some());
    let in_order = |m| before(lab.at(m, committed(entry)), lab.at(m, applied(entry)));
    let once = [one, other].iter().all(|&m| lab.count(m, written(entry)) == 1);
    lab.claim(
        "At the commit index they apply, and write nothing: each WAL got the entry once.",
        in_order(one) && in_order(other) && once && lab.found(fresh).is_some_and(|f| f.len() == 1),
    );
}
