//! In words: where the time went, which disk was slowest, and whether the answer waited for it.

use std::fmt::Write;

use proto::quorate::v1::{Record, StageKind};

use super::timeline::{Part, Timeline, ms};

/// A stretch of a request's way, by what was waited for.
#[derive(Debug, PartialEq, Eq)]
struct Stretch {
    what: String,
    us: i64,
}

/// A disk that wrote the entry.
struct Disk<'a> {
    part: &'a Part,
    us: i64,
}

/// What is to be seen; with `all`, every stretch of the way.
pub(super) fn explain(timeline: &Timeline, all: bool) -> String {
    let way = way(timeline);
    let mut text = String::new();
    if all {
        text += "Where the time went:\n";
        for Stretch { what, us } in &way {
            let share = us * 100 / (timeline.took_us as i64).max(1);
            let us = ms(us.unsigned_abs());
            writeln!(text, "{us:>14}  {share:>3} %  {what}").expect("a string has room");
        }
        text.push('\n');
    }
    if let Some(longest) = way.iter().max_by_key(|stretch| stretch.us) {
        let us = ms(longest.us.unsigned_abs());
        writeln!(text, "The longest stretch, {us}: {}.", longest.what).expect("as above");
    }
    if let Some(disk) = slowest_disk(timeline) {
        let us = ms(disk.us.unsigned_abs());
        let name = &disk.part.name;
        writeln!(
            text,
            "The slowest disk was {name}'s: its sync took {us}. {}",
            waited(timeline, &disk)
        )
        .expect("as above");
    }
    for part in timeline.parts.iter().filter(|part| is_behind(part)) {
        writeln!(text, "{} has it in memory and not yet on disk.", part.name).expect("as above");
    }
    text
}

/// Whether a member's disk was still busy with the entry, or with what lies before it, when it was asked.
fn is_behind(part: &Part) -> bool {
    part.at(StageKind::Appended, None).is_some() && part.at(StageKind::Synced, None).is_none()
}

/// The stretches between what is known of the request, from its receipt to its answer.
fn way(timeline: &Timeline) -> Vec<Stretch> {
    let (asked, leader) = (timeline.part(timeline.asked), timeline.part(timeline.leader));
    let at = |part: Option<&Part>, kind| part.and_then(|part| part.at(kind, None));
    let is_leader = timeline.asked == timeline.leader;
    let to_leader = match is_leader {
        true => "until the leader took it into its log in memory".to_owned(),
        false => format!("on the way to the leader {}", timeline.name(timeline.leader)),
    };
    let quorum = match decisive(timeline) {
        Some(part) => format!("until a majority had it on disk, {} as the last of it", part.name),
        None => "until a majority had it on disk".to_owned(),
    };
    let asked_name = timeline.name(timeline.asked);
    let answering = match at(asked, StageKind::ReadBegun) {
        Some(_) => "reading from disk, and answering",
        None => "answering",
    };
    let stations = [
        (at(asked, StageKind::HandedIn), "in the connection's turn".to_owned()),
        (at(leader, StageKind::Appended), to_leader),
        (at(leader, StageKind::Committed), quorum),
        (
            at(asked, StageKind::Committed).filter(|_| !is_leader),
            format!("until {asked_name} knew that it was committed"),
        ),
        (at(asked, StageKind::ReadIndexAsked), "in the connection's turn".to_owned()),
        (
            at(asked, StageKind::ReadIndexConfirmed),
            "until a majority confirmed the read index".to_owned(),
        ),
        (at(asked, StageKind::Applied), format!("until {asked_name} had applied it")),
        (at(asked, StageKind::ReadBegun), "in the connection's turn".to_owned()),
        (at(asked, StageKind::Answered), answering.to_owned()),
    ];
    let mut before = 0;
    let mut way = Vec::new();
    for (at, what) in stations {
        let Some(at) = at else { continue };
        way.push(Stretch { what, us: (at - before).max(0) });
        before = before.max(at);
    }
    way
}

/// The member whose word made the majority, if the leader told.
fn decisive(timeline: &Timeline) -> Option<&Part> {
    let leader = timeline.part(timeline.leader)?;
    let at = |id: &u64| Some((leader.at(StageKind::Matched, Some(*id))?, *id));
    let mut matched: Vec<(i64, u64)> = timeline.voters.iter().filter_map(at).collect();
    matched.sort_unstable();
    matched.get(quorum(timeline) - 1).and_then(|(_, id)| timeline.part(*id))
}

/// How many must have an entry; those count who have a vote, not those who answered us.
fn quorum(timeline: &Timeline) -> usize {
    timeline.voters.len() / 2 + 1
}

/// The disk that took longest from the entry's write to its sync.
fn slowest_disk(timeline: &Timeline) -> Option<Disk<'_>> {
    let disk = |part| {
        let (written, synced) = (StageKind::Written, StageKind::Synced);
        Some(Disk { part, us: Part::at(part, synced, None)? - part.at(written, None)? })
    };
    timeline.parts.iter().filter_map(disk).max_by_key(|disk| disk.us)
}

/// Whether the answer waited for this disk, and why.
fn waited(timeline: &Timeline, disk: &Disk<'_>) -> String {
    let id = disk.part.id;
    let committed = timeline.part(timeline.leader).and_then(|leader| {
        let at = leader.at(StageKind::Committed, None)?;
        Some((leader, at))
    });
    let Some((leader, committed)) = committed else {
        return "Whether the answer waited for it only the leader knows, and it does not tell."
            .to_owned();
    };
    let had_it = |other: &&u64| {
        let at = leader.at(StageKind::Matched, Some(**other));
        **other != id && at.is_some_and(|at| at <= committed)
    };
    let mut others: Vec<String> =
        timeline.voters.iter().filter(had_it).map(|other| timeline.name(*other)).collect();
    others.sort_unstable();
    if others.len() < quorum(timeline) {
        return "The answer waited for it: there was no majority without it.".to_owned();
    }
    let at = |kind| disk.part.at(kind, None);
    let is_between = || {
        let (synced, applied) = (at(StageKind::Synced)?, at(StageKind::Applied)?);
        Some(at(StageKind::Committed)? <= synced && synced <= applied)
    };
    if id == timeline.asked && is_between() == Some(true) {
        return "The answer waited for it: it was committed before, but the member that was asked applies only what its own log holds."
            .to_owned();
    }
    format!("The answer did not wait for it: {} were a majority without it.", others.join(" and "))
}

/// What a record that one member kept waited for longest, and how long in microseconds.
pub(super) fn longest(record: &Record, name: &impl Fn(u64) -> String) -> (String, u64) {
    let is_leader = record.leader == record.member_id;
    let mut longest = ("nothing".to_owned(), 0);
    for (before, stage) in record.stages.iter().zip(record.stages.iter().skip(1)) {
        let us = stage.at_us.saturating_sub(before.at_us);
        if us <= longest.1 {
            continue;
        }
        let what = match stage.kind() {
            StageKind::HandedIn | StageKind::ReadIndexAsked => "its turn".to_owned(),
            StageKind::Forwarded => "the replica's turn".to_owned(),
            StageKind::Appended if is_leader => "the replica's turn".to_owned(),
            StageKind::Appended => format!("the leader {}", name(record.leader)),
            StageKind::Sent => "the replica's turn".to_owned(),
            StageKind::Written => "the log's turn".to_owned(),
            StageKind::Synced => "its own disk".to_owned(),
            StageKind::Acknowledged => "its own log".to_owned(),
            StageKind::Matched if stage.peer == record.member_id => "its own log".to_owned(),
            StageKind::Matched => format!("the log of {}", name(stage.peer)),
            StageKind::Committed => "a majority".to_owned(),
            StageKind::ReadIndexConfirmed => "a majority's word for the read index".to_owned(),
            StageKind::Applied => "apply".to_owned(),
            // Without the stages before there is nothing but this.
            StageKind::ReadBegun => "its turn".to_owned(),
            StageKind::Answered if record.code != 0 => "an answer that did not come".to_owned(),
            StageKind::Answered => "reading and answering".to_owned(),
            StageKind::Received
            | StageKind::FrameWritten
            | StageKind::FrameSynced
            | StageKind::Unspecified => continue,
        };
        longest = (what, us);
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::super::timeline::Told;
    use super::*;
    use StageKind::*;
    use proto::quorate::v1::Stage;

    fn stages(list: &[(StageKind, u64, u64)]) -> Vec<Stage> {
        list.iter()
            .map(|(kind, peer, at_us)| Stage { kind: (*kind).into(), peer: *peer, at_us: *at_us })
            .collect()
    }

    fn voter(id: u64, name: &str, list: &[(StageKind, u64, u64)]) -> Told {
        Told { voters: vec![1, 2, 3], ..Told::of(id, name, stages(list)) }
    }

    /// A put at leader 1 of three; the members' syncs end at these times, and are known a millisecond later.
    fn put(synced: [u64; 3]) -> Timeline {
        let [own, second, third] = synced;
        let mut known = [own + 1_000, second + 1_000, third + 1_000];
        known.sort_unstable();
        let committed = known[1];
        let record = Record {
            member_id: 1,
            leader: 1,
            took_us: committed + 200,
            term: 2,
            index: 5,
            stages: stages(&[
                (Received, 0, 0),
                (HandedIn, 0, 10),
                (Appended, 0, 100),
                (Sent, 2, 100),
                (Sent, 3, 100),
                (Written, 0, 150),
                (Committed, 0, committed),
                (Applied, 0, committed + 100),
                (Answered, 0, committed + 200),
            ]),
            ..Record::default()
        };
        let mut own = vec![(Synced, 0, own), (Matched, 1, own + 1_000)];
        own.extend([(Matched, 2, second + 1_000), (Matched, 3, third + 1_000)]);
        let told = vec![
            voter(1, "a", &own),
            voter(2, "b", &[(Appended, 0, 200), (Written, 0, 250), (Synced, 0, second)]),
            voter(3, "c", &[(Appended, 0, 200), (Written, 0, 250), (Synced, 0, third)]),
        ];
        Timeline::new(&record, told)
    }

    #[test]
    fn a_slow_follower_is_named_and_nobody_waited_for_it() {
        let text = explain(&put([1_000, 2_000, 100_250]), false);
        assert_eq!(
            text,
            "The longest stretch, 2.900 ms: until a majority had it on disk, b as the last of it.\n\
             The slowest disk was c's: its sync took 100.000 ms. \
             The answer did not wait for it: a and b were a majority without it.\n"
        );
    }

    #[test]
    fn a_slow_majority_is_waited_for() {
        let text = explain(&put([1_000, 90_000, 100_250]), false);
        assert!(text.contains("until a majority had it on disk, b as the last of it"), "{text}");
        let text = explain(&put([80_000, 100_000, 90_000]), true);
        assert!(text.contains("91.000 ms") || text.contains("90.900 ms"), "{text}");
        let slowest = explain(&put([500_150, 400_000, 100]), false);
        assert!(slowest.contains("a's: its sync took 500.000 ms"), "{slowest}");
        assert!(slowest.contains("c and b were") || slowest.contains("b and c were"), "{slowest}");
        let needed = explain(&put([900_000, 400_250, 350]), false);
        assert!(needed.contains("until a majority had it on disk, b"), "{needed}");
    }

    #[test]
    fn a_disk_without_which_there_is_no_majority_was_waited_for_though_its_word_was_not_the_last() {
        // The leader's own sync takes longest; b's word comes later by the network, and c is not there.
        let mut timeline = put([50_000, 50_000, 10_000_000]);
        timeline.parts[1].stages.retain(|stage| stage.0 != Synced);
        assert!(explain(&timeline, false).contains("b has it in memory and not yet on disk."));
        timeline.parts[2].stages.clear();
        timeline.parts[2].silent = Some("it is not there".to_owned());
        assert_eq!(decisive(&timeline).map(|part| part.name.as_str()), Some("b"));
        let text = explain(&timeline, false);
        assert!(text.contains("a's: its sync took 49.850 ms. The answer waited for it"), "{text}");
        // Who does not answer us has a vote all the same.
        assert_eq!(quorum(&timeline), 2);
        timeline.parts.remove(0);
        timeline.parts[0].stages.push((Synced, 0, 60_000));
        assert!(explain(&timeline, false).contains("only the leader knows"));
    }

    #[test]
    fn the_longest_gap_of_a_record_has_a_name() {
        let record = |list: &[(StageKind, u64, u64)], leader| Record {
            member_id: 1,
            leader,
            stages: stages(list),
            ..Record::default()
        };
        let name = |id: u64| format!("infra{id}");
        let list = [(Received, 0, 0), (Appended, 0, 5), (Synced, 0, 90), (Answered, 0, 95)];
        assert_eq!(longest(&record(&list, 1), &name), ("its own disk".to_owned(), 85));
        let list = [(Received, 0, 0), (Forwarded, 2, 5), (Appended, 0, 90), (Answered, 0, 95)];
        assert_eq!(longest(&record(&list, 2), &name), ("the leader infra2".to_owned(), 85));
        let list = [(Received, 0, 0), (Appended, 0, 5), (Matched, 3, 90), (Answered, 0, 95)];
        assert_eq!(longest(&record(&list, 1), &name), ("the log of infra3".to_owned(), 85));
    }
}
