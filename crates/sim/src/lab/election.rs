//! `election`: pre-votes and votes, a split vote, and a member that was cut off and comes back.

use raft::{MessageKind, RoleKind};

use crate::lab::Experiment;
use crate::lab::bench::{Lab, before, when};
use crate::lab::stages::{becomes, received, sent};
use crate::scenario::Mutant;

pub const EXPERIMENT: Experiment = Experiment {
    name: "election",
    question: "How a leader is elected: pre-vote, votes, a split vote, and a member that comes back from a partition",
    mutant: Mutant::NoPreVote,
    arrange: |_| {},
    run,
};

fn run(lab: &mut Lab) {
    let leader = lab.settle();
    let [one, other] = lab.others(leader);
    lab.begin();
    let term = lab.term(leader);

    lab.step(format!("member {} is cut off from both others for five seconds", other + 1));
    lab.world().network.cut(leader, other, true);
    lab.world().network.cut(one, other, true);
    lab.run_ms(5_000);
    let asked = lab.count(other, sent(MessageKind::PreVote));
    let there = lab.term(other);
    lab.claim(
        format!(
            "Who hears no leader asks first whether it would win (MsgPreVote, sent {asked} times into the void), and stays \
             in its term: {there}, as before."
        ),
        asked > 0 && there == term,
    );
    lab.step("and is back");
    lab.world().network.cut(leader, other, false);
    lab.world().network.cut(one, other, false);
    lab.run_ms(1_500);
    let after = lab.leader();
    lab.claim(
        format!(
            "So it disturbs nobody when it comes back: member {} leads on in term {}, and nobody voted.",
            leader + 1,
            lab.term(leader)
        ),
        after == Some(leader)
            && lab.term(leader) == term
            && (0..3).all(|m| lab.at(m, sent(MessageKind::Vote)).is_none()),
    );

    lab.step(format!(
        "member {}, the leader, dies; the answers to pre-votes wait at the doors",
        leader + 1
    ));
    let from = lab.latest();
    lab.world().kill(leader, false);
    for member in [one, other] {
        lab.world().hold(member, |m| m.kind == MessageKind::PreVoteResp);
    }
    let all = |lab: &Lab, role| {
        [one, other].iter().all(|&m| lab.at_after(m, from, becomes(role)).is_some())
    };
    lab.until("both have an answer for the other", |lab| {
        all(lab, RoleKind::PreCandidate) && [one, other].iter().all(|&m| lab.held(m) > 0)
    });
    let first = [one, other]
        .iter()
        .filter_map(|&m| lab.at_after(m, from, becomes(RoleKind::PreCandidate)))
        .min();
    lab.claim(
        format!(
            "A follower that hears no leader for one to two seconds, drawn by lot, becomes pre-candidate: the first at {}.",
            when(first)
        ),
        first.is_some(),
    );
    lab.step("the answers go out, the votes wait: both are encouraged at the same time");
    for member in [one, other] {
        lab.world().let_go(member);
        lab.world().hold(member, |m| m.kind == MessageKind::Vote);
    }
    lab.until("both are candidates", |lab| all(lab, RoleKind::Candidate));
    lab.step("the votes go out");
    for member in [one, other] {
        lab.world().let_go(member);
    }
    lab.until("there is a leader", |lab| {
        [one, other].iter().any(|&m| lab.at_after(m, from, becomes(RoleKind::Leader)).is_some())
    });
    lab.run_ms(20);
    let refused = [one, other]
        .iter()
        .all(|&m| lab.at_after(m, from, received(MessageKind::VoteResp, true)).is_some());
    lab.claim(
        format!(
            "A split vote: both are candidates in term {}, each has its own vote and is refused the other's. Nobody has two \
             of three, and the term passes without a leader.",
            term + 1
        ),
        refused,
    );
    let won = [one, other]
        .into_iter()
        .filter_map(|m| Some((lab.at_after(m, from, becomes(RoleKind::Leader))?, m)))
        .min();
    let (at, winner) = won.map_or((None, one), |(at, m)| (Some(at), m));
    let granted = lab.at_after(winner, from, received(MessageKind::VoteResp, false));
    lab.claim(
        format!(
            "The lot decides the next time: member {} times out first, gets a pre-vote and a vote, and leads term {} from \
             {} on.",
            winner + 1,
            lab.term(winner),
            when(at)
        ),
        before(granted, at) && lab.term(winner) > term + 1,
    );
    lab.step(format!("member {} is started again", leader + 1));
    lab.start(leader);
    lab.until("it follows", |lab| lab.follows(leader, winner));
    lab.claim(
        format!("The old leader comes back as a follower of member {}, in its term.", winner + 1),
        lab.term(leader) == lab.term(winner) && lab.leader() == Some(winner),
    );
}
