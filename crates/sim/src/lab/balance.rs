//! `balance`: a client with three endpoints: its connections, what it does when one dies, and what it may repeat.

use std::time::Duration;

use client::Code;
use client::balance::{Balancer, Pick};
use client::retry::{Failure, Policy, Retry, Verdict};
use replica::Trace;

use crate::lab::Experiment;
use crate::lab::bench::{Fate, Lab, MEMBERS, Op};
use crate::lab::stages::committed;
use crate::scenario::Mutant;

pub const EXPERIMENT: Experiment = Experiment {
    name: "balance",
    question: "A client with three endpoints: its connections, what it does when one dies, what it repeats and what not",
    mutant: Mutant::RetryWrites,
    arrange: |_| {},
    run,
};

/// The client crate's machines, with the laboratory as their network and clock.
struct Client {
    balancer: Balancer,
    writes: Policy,
    /// Which endpoint each try went to.
    tries: Vec<usize>,
}

impl Client {
    /// The endpoint of the next try; waits while all rest.
    fn pick(&mut self, lab: &mut Lab) -> usize {
        loop {
            match self.balancer.pick(lab.clock()) {
                Pick::Use(endpoint) => return endpoint,
                Pick::RestUntil(until) => lab.run(until.saturating_sub(lab.clock())),
            }
        }
    }

    /// What became of a try: the request is done, or is to be tried again, or its fate is unknown.
    fn judge(&mut self, lab: &mut Lab, endpoint: usize, op: Op, retry: &mut Retry) -> Option<bool> {
        let failure = match lab.fate(op) {
            Fate::Answered => {
                self.balancer.on_success(endpoint);
                return Some(true);
            }
            Fate::NotSent => Failure::NotSent,
            Fate::Lost | Fate::Waiting => {
                Failure::Status { code: Code::Unavailable, message: "connection closed" }
            }
        };
        self.balancer.on_failure(endpoint, lab.clock());
        match retry.on_failure(failure) {
            Verdict::Again(wait) => {
                lab.run(wait);
                None
            }
            Verdict::GiveUp => Some(false),
        }
    }

    /// One request to its end, with `disturb` once its first try is on its way. Its last try, and whether it was answered.
    fn call(
        &mut self,
        lab: &mut Lab,
        policy: Policy,
        ask: impl Fn(&mut Lab, usize) -> Op,
        disturb: impl Fn(&mut Lab, usize),
    ) -> (Op, bool) {
        let mut retry = Retry::new(policy, MEMBERS);
        for tries in 0.. {
            let endpoint = self.pick(lab);
            self.tries.push(endpoint);
            let op = ask(lab, endpoint);
            if tries == 0 {
                disturb(lab, endpoint);
            }
            lab.until("the try ends", |lab| lab.fate(op) != Fate::Waiting);
            if let Some(answered) = self.judge(lab, endpoint, op, &mut retry) {
                return (op, answered);
            }
        }
        unreachable!("retry gives up some time")
    }

    /// Requests that only move the round robin on, until it is this endpoint's turn.
    fn turn_to(&mut self, lab: &mut Lab, endpoint: usize) {
        let nobody = |_: &mut Lab, _: usize| {};
        while self.tries.last().is_none_or(|last| (last + 1) % MEMBERS != endpoint) {
            self.call(lab, Policy::Repeatable, |lab, m| lab.get(m, "foo", false), nobody);
        }
    }
}

fn run(lab: &mut Lab) {
    let leader = lab.settle();
    let [one, other] = lab.others(leader);
    lab.begin();
    lab.show(|trace| matches!(trace, Trace::Applied { .. } | Trace::Answered { .. }));
    let writes = if lab.has(Mutant::RetryWrites) { Policy::Repeatable } else { Policy::AtMostOnce };
    let mut client = Client { balancer: Balancer::new(MEMBERS), writes, tries: Vec::new() };
    let nobody = |_: &mut Lab, _: usize| {};
    let get = |lab: &mut Lab, m: usize| lab.get(m, "foo", false);

    lab.step("six reads");
    for _ in 0..6 {
        client.call(lab, Policy::Repeatable, get, nobody);
    }
    lab.claim(
        format!(
            "One request after another goes to the next endpoint (members {}), over one connection to each, which is kept: {} \
             were opened.",
            names(&client.tries),
            lab.connections_opened()
        ),
        client.tries == [0, 1, 2, 0, 1, 2] && lab.connections_opened() == 3,
    );

    lab.step(format!("member {} dies", one + 1));
    lab.world().kill(one, false);
    lab.until("the client notices", |lab| lab.broken(one));
    client.turn_to(lab, one);
    let before = client.tries.len();
    let put = |lab: &mut Lab, m: usize| lab.put(m, "foo", "1");
    let (op, answered) = client.call(lab, client.writes, put, nobody);
    let tries = client.tries[before..].to_vec();
    lab.claim(
        format!(
            "A put whose turn is the dead one's was never sent there (members tried: {}), so it may go to the next one. The \
             caller sees nothing of it.",
            names(&tries)
        ),
        answered && tries.first() == Some(&one) && tries.len() == 2,
    );
    let before = client.tries.len();
    for _ in 0..4 {
        client.call(lab, Policy::Repeatable, get, nobody);
    }
    lab.claim(
        "The dead endpoint rests: the next requests go round the other two without asking it, for 100 ms at first, for five \
         seconds at last.",
        lab.answer(op).is_some() && !client.tries[before..].contains(&one),
    );

    lab.step(format!("member {} is started again", one + 1));
    lab.start(one);
    lab.quietly(|lab| lab.run_ms(2_000));
    client.turn_to(lab, other);
    let before = client.tries.len();
    lab.step(format!("a read at member {}, which dies before it can answer", other + 1));
    let (read, answered) =
        client.call(lab, Policy::Repeatable, get, |lab, m| lab.world().kill(m, false));
    let tries = client.tries[before..].to_vec();
    lab.claim(
        format!(
            "A read changes nothing, so it is repeated at the next (members tried: {}).",
            names(&tries)
        ),
        answered && lab.found(read).is_some() && tries.len() >= 2 && tries[0] == other,
    );

    lab.step(format!("member {} is started again", other + 1));
    lab.start(other);
    lab.quietly(|lab| lab.run_ms(2_000));
    client.turn_to(lab, one);
    let before = client.tries.len();
    lab.step(format!(
        "a put at member {}, which dies after the entry is committed and before it answers",
        one + 1
    ));
    let from = lab.latest();
    let put = |lab: &mut Lab, m: usize| lab.put(m, "counter", "once");
    let (_, answered) = client.call(lab, client.writes, put, |lab, m| {
        lab.until("the leader commits", |lab| {
            let entry = lab.newest_appended(leader, from);
            entry.is_some_and(|entry| lab.at(leader, committed(entry)).is_some())
        });
        lab.world().kill(m, false);
    });
    let tries = client.tries[before..].to_vec();
    lab.claim(
        format!(
            "A put that was sent and not answered may have been done, so it is not repeated (members tried: {}): the caller \
             is told that its fate is unknown.",
            names(&tries)
        ),
        !answered && tries == [one],
    );
    let (read, _) =
        client.call(lab, Policy::Repeatable, |lab, m| lab.get(m, "counter", false), nobody);
    lab.claim(
        format!(
            "It was done, once: counter is there in version {}. Repeated, it would have been done twice.",
            lab.version(read).unwrap_or(0)
        ),
        lab.version(read) == Some(1),
    );
}

fn names(members: &[usize]) -> String {
    let names: Vec<String> = members.iter().map(|member| (member + 1).to_string()).collect();
    names.join(", ")
}

const _: () =
    assert!(client::balance::REST_FIRST.as_nanos() == Duration::from_millis(100).as_nanos());
const _: () = assert!(client::balance::REST_MAX.as_nanos() == Duration::from_secs(5).as_nanos());
