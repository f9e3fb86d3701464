//! `when-applied`: after which MsgAppResp does a leader apply: the one to the entries, or the one to the commit index?

use raft::MessageKind;

use crate::lab::Experiment;
use crate::lab::bench::{Lab, before, when};
use crate::lab::stages::{acknowledged, applied, committed};
use crate::scenario::Mutant;

pub const EXPERIMENT: Experiment = Experiment {
    name: "when-applied",
    question: "After which MsgAppResp does the leader apply: the one to the entries, or the one to the commit index?",
    mutant: Mutant::ApplyLate,
    arrange: |_| {},
    run,
};

fn run(lab: &mut Lab) {
    let leader = lab.settle();
    let followers = lab.others(leader);
    lab.begin();
    let put = lab.put(leader, "foo", "bar");
    lab.until("the leader commits", |lab| {
        let entry = lab.first_appended(leader);
        entry.0 > 0 && lab.at(leader, committed(entry)).is_some()
    });
    let entry = lab.first_appended(leader);
    lab.step("the entry is committed; no further MsgAppResp leaves the followers");
    for follower in followers {
        lab.world().hold(follower, |m| m.kind == MessageKind::AppResp);
    }
    lab.run_ms(100);
    let commits = lab.at(leader, committed(entry));
    let applies = lab.at(leader, applied(entry));
    let heard = followers.map(|f| lab.at(leader, acknowledged(f as u64 + 1, entry)));
    let first = heard.into_iter().flatten().min();
    lab.claim(
        format!(
            "The leader applies after the MsgAppResp to the entries: the first comes at {}, it commits at {} and applies \
             at {}.",
            when(first),
            when(commits),
            when(applies)
        ),
        before(first, applies) && before(commits, applies),
    );
    let waiting: usize = followers.iter().map(|&f| lab.held(f)).sum();
    let answered = lab.done_at(put);
    lab.claim(
        format!(
            "It does not wait for the MsgAppResp to the commit index: {waiting} letters wait at the followers' doors, and \
             the client was answered at {}.",
            when(answered)
        ),
        waiting >= 2 && before(applies, answered),
    );
    let followers_apply = followers.map(|f| lab.at(f, applied(entry)));
    let learn = followers.map(|f| lab.at(f, committed(entry)));
    lab.claim(
        format!(
            "A follower applies when it learns of the commit ({} and {}), and nobody has to confirm that either.",
            when(followers_apply[0]),
            when(followers_apply[1])
        ),
        (0..2).all(|f| before(learn[f], followers_apply[f])),
    );
    lab.step("the letters go out, and change nothing");
    let (applied_before, stages_before) = (lab.count(leader, applied(entry)), lab.latest());
    for follower in followers {
        lab.world().let_go(follower);
    }
    lab.run_ms(5);
    lab.claim(
        "The answers to the commit index, when they come, make nobody commit, apply or answer.",
        stages_before.is_some()
            && lab.count(leader, applied(entry)) == applied_before
            && lab.count(leader, committed(entry)) == 1,
    );
}
