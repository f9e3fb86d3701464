//! `withhold-acks`: the followers do not answer. Does the leader write, does it apply, does the client hear?

use raft::MessageKind;

use crate::lab::Experiment;
use crate::lab::bench::{Lab, before, when};
use crate::lab::stages::{applied, committed, sent_entries, synced, written};
use crate::scenario::Mutant;

pub const EXPERIMENT: Experiment = Experiment {
    name: "withhold-acks",
    question: "The followers keep their MsgAppResp to themselves: does the leader write its WAL, does it apply?",
    mutant: Mutant::AckBeforeQuorum,
    arrange: |_| {},
    run,
};

fn run(lab: &mut Lab) {
    let leader = lab.settle();
    let followers = lab.others(leader);
    lab.begin();
    lab.step("from now on no MsgAppResp of the two followers leaves them");
    for follower in followers {
        lab.world().hold(follower, |m| m.kind == MessageKind::AppResp);
    }
    let put = lab.put(leader, "foo", "bar");
    lab.run_ms(250);
    let entry = lab.first_appended(leader);
    let (wrote, durable) = (lab.at(leader, written(entry)), lab.at(leader, synced(entry)));
    lab.claim(
        format!(
            "The leader asks nobody before it writes: WAL appended at {}, synced at {}, and no follower has answered.",
            when(wrote),
            when(durable)
        ),
        durable.is_some(),
    );
    let all = lab.members_by(lab.latest(), synced(entry));
    lab.claim(
        format!(
            "The entry is on all disks by now ({all} of 3 logs), but the leader does not know it."
        ),
        all == 3,
    );
    let commits = lab.at(leader, committed(entry));
    let applies = lab.at(leader, applied(entry));
    let answered = lab.answer(put).is_some();
    lab.claim(
        "So it does not commit, it does not apply, and the client hears nothing, for a quarter of a second and however \
         long it lasts.",
        commits.is_none() && applies.is_none() && !answered,
    );
    lab.step("one follower's letters go out: with the leader's own log that is a majority");
    let released = lab.latest();
    lab.world().let_go(followers[0]);
    lab.until("the client is answered", |lab| lab.done_at(put).is_some());
    lab.run_ms(2);
    let (commits, applies) = (lab.at(leader, committed(entry)), lab.at(leader, applied(entry)));
    lab.claim(
        format!(
            "One answer of two is enough: committed at {}, applied at {}, answered at {}. The WAL was written once, long \
             before.",
            when(commits),
            when(applies),
            when(lab.done_at(put))
        ),
        before(released, commits)
            && before(commits, applies)
            && before(applies, lab.done_at(put))
            && lab.count(leader, written(entry)) == 1
            && before(lab.at(leader, sent_entries()), durable),
    );
}
