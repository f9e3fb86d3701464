//! `compaction`: history, the revision that no longer is, and what a watcher gets that needs it.

use replica::Trace;

use crate::lab::Experiment;
use crate::lab::bench::{Lab, News};
use crate::scenario::Mutant;
use crate::shard::Outcome;

/// The mark.
const MARK: i64 = 5;

pub const EXPERIMENT: Experiment = Experiment {
    name: "compaction",
    question: "Compaction: the history before it, the revision that no longer is, and what a watcher gets",
    mutant: Mutant::SilentCompaction,
    arrange: |_| {},
    run,
};

fn revisions(news: &[News]) -> Vec<i64> {
    let events = news.iter().flat_map(|news| match news {
        News::Events(events) => events.as_slice(),
        _ => &[],
    });
    events.map(|kv| kv.mod_revision).collect()
}

fn run(lab: &mut Lab) {
    let leader = lab.settle();
    let [one, other] = lab.others(leader);
    lab.begin();
    lab.show(|trace| matches!(trace, Trace::Applied { .. }));
    for value in ["a", "b", "c", "d", "e"] {
        let put = lab.put(leader, "foo", value);
        lab.until("the put is done", |lab| lab.done_at(put).is_some());
    }
    lab.run_ms(3);
    lab.step("every revision can still be read, and watched from");
    let third = lab.get_at(one, "foo", 3);
    lab.until("the read is answered", |lab| lab.answer(third).is_some());
    lab.watch(one, 1, ("foo", ""), 2);
    lab.run_ms(5);
    let history = revisions(&lab.news(1));
    lab.claim(
        "Before: foo was b at revision 3, and a watch from revision 2 gets all five changes.",
        lab.found(third) == Some(vec![("foo".to_owned(), "b".to_owned())])
            && history == [2, 3, 4, 5, 6],
    );

    lab.step(format!("compaction at revision {MARK}: a command like any other, through the log"));
    let compact = lab.compact(leader, MARK);
    lab.until("it is done", |lab| lab.answer(compact).is_some());
    lab.run_ms(3);
    let (below, at) = (MARK - 1, MARK);
    let mut refused = true;
    let mut kept = true;
    for member in [leader, one, other] {
        let gone = lab.get_at(member, "foo", below);
        let there = lab.get_at(member, "foo", at);
        lab.until("the reads are answered", |lab| {
            lab.answer(gone).is_some() && lab.answer(there).is_some()
        });
        refused &= matches!(
            lab.answer(gone),
            Some((_, Outcome::Refused(state_machine::Error::Compacted)))
        );
        kept &= lab.found(there) == Some(vec![("foo".to_owned(), "d".to_owned())]);
    }
    lab.claim(
        format!(
            "After: revision {below} is refused by every member, as compacted. Revision {at} itself can be read, and \
             everything above it."
        ),
        refused && kept,
    );
    let again = lab.compact(leader, below);
    lab.until("it is answered", |lab| lab.answer(again).is_some());
    lab.claim(
        "What is compacted is not compacted again: that is the same error.",
        matches!(lab.answer(again), Some((_, Outcome::Refused(state_machine::Error::Compacted)))),
    );

    lab.step("one watches from before the mark, one from the mark on");
    lab.watch(other, 2, ("foo", ""), 3);
    lab.watch(other, 3, ("foo", ""), MARK);
    lab.run_ms(10);
    let told = lab.news(2);
    lab.claim(
        format!(
            "A watch that needs what is gone gets no events with a hole in them: it is cancelled, and told {MARK}, from \
             where on it may ask."
        ),
        revisions(&told).is_empty()
            && told.iter().any(|news| matches!(news, News::Canceled { mark } if *mark == MARK)),
    );
    let rest = revisions(&lab.news(3));
    lab.claim(format!("From the mark on everything is there: revisions {rest:?}."), rest == [5, 6]);

    lab.step("and one more change");
    let put = lab.put(leader, "foo", "f");
    lab.until("the put is done", |lab| lab.done_at(put).is_some());
    lab.run_ms(5);
    let (old, new) = (revisions(&lab.news(1)), revisions(&lab.news(3)));
    lab.claim(
        "Watches that had seen everything do not notice a compaction: the one from the beginning, and the one from the mark, \
         both get revision 7.",
        old == [7] && new == [7],
    );
}
