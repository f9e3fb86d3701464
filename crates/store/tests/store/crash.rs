//! Every crash of short programs: at each operation on the disk, with many subsets of what was pending there.
//!
//! Whatever the disk remembers, the start must find the state at the end of some frame: not before the last
//! synced one, not after the last written one. It must not report damage, and what it found once it must find
//! again after another power cut.

use bytes::Bytes;
use store::{Goal, OpenError};
use vfs::memory::{Fate, Memory, Unsynced};

use crate::member::{Change, Member, State, Step, Stopped, delete, new_disk, options, put};

/// Subsets of the pending that are tried at each cut.
const SUBSETS: u64 = 24;

/// Runs `program` once to count its operations, then cuts it at each. Returns the number of states checked.
fn cut_everywhere(program: &[Step]) -> u64 {
    let disk = new_disk(1);
    let first = disk.operations();
    run(&disk, program).1.unwrap();
    let operations = disk.operations();
    assert!(operations > 10, "the program does nothing");
    let mut states = 0;
    for cut in first..=operations {
        let disk = new_disk(1);
        disk.stop_at(Some(cut));
        let (member, stopped) = run(&disk, program);
        if let Err(Stopped::Refused(error)) = &stopped {
            assert!(matches!(error, OpenError::Io { .. }), "cut at {cut}: {error}");
        }
        let history = Promise::of(member.as_ref());
        let pending = disk.unsynced().len();
        let process_death = disk.fork();
        process_death.crash();
        check(&process_death, &history, cut);
        states += 1;
        let subsets = if pending < 5 { 1 << pending } else { SUBSETS };
        for subset in 0..subsets {
            let power_cut = disk.fork();
            let mut number = 0;
            let mut random = (cut << 20 | subset).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            power_cut.power_cut_with(&mut |unsynced| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                number += 1;
                if pending < 5 {
                    return if subset >> (number - 1) & 1 == 1 { Fate::Kept } else { Fate::Lost };
                }
                match (subset, unsynced, random >> 32 & 7) {
                    (0, _, _) => Fate::Lost,
                    (1, _, _) => Fate::Kept,
                    (_, Unsynced::Sector { .. }, 0) => Fate::Torn((random >> 40 & 511) as usize),
                    (_, _, fate) if fate & 1 == 0 => Fate::Lost,
                    _ => Fate::Kept,
                }
            });
            check(&power_cut, &history, cut);
            states += 1;
        }
    }
    states
}

fn run(disk: &Memory, program: &[Step]) -> (Option<Member>, Result<(), Stopped>) {
    let mut member = match Member::open(disk) {
        Ok(member) => member,
        Err(error) => return (None, Err(Stopped::Refused(error))),
    };
    for step in program {
        if let Err(stopped) = member.step(step) {
            return (Some(member), Err(stopped));
        }
    }
    member.check();
    (Some(member), Ok(()))
}

/// What a start may find.
struct Promise {
    synced: u64,
    written: u64,
    history: std::collections::BTreeMap<u64, State>,
}

impl Promise {
    fn of(member: Option<&Member>) -> Promise {
        match member {
            None => Promise { synced: 0, written: 0, history: [(0, State::default())].into() },
            Some(member) => Promise {
                synced: member.synced,
                written: member.written,
                history: member.history.clone(),
            },
        }
    }
}

fn check(disk: &Memory, promise: &Promise, cut: u64) {
    let found = Member::open(disk).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
    let applied = found.state.applied;
    assert!(
        (promise.synced..=promise.written).contains(&applied),
        "cut at {cut}: entry {applied} found, {} synced, {} written",
        promise.synced,
        promise.written
    );
    assert_eq!(Some(&found.state), promise.history.get(&applied), "cut at {cut}");
    // What a start found is durable: the power may go again at once.
    disk.power_cut_with(&mut |_| Fate::Lost);
    let mut again = Member::open(disk).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
    assert_eq!(again.state, found.state, "cut at {cut}, after a second power cut");
    assert_eq!(again.torn, None, "cut at {cut}: the tail was cut off the first time");
    // And it goes on from there.
    again.step(&put("after", "x")).unwrap();
    again.step(&Step::Flush).unwrap();
    again.step(&Step::Sync).unwrap();
    again.reclaim(Goal::Everything).unwrap();
    again.check();
    let state = again.state.clone();
    assert_eq!(Member::open(disk).unwrap().state, state, "cut at {cut}, one entry later");
}

fn big(letter: &str) -> String {
    letter.repeat(900)
}

#[test]
fn frames_are_whole_or_not_there() {
    let states = cut_everywhere(&[
        put("a", "1"),
        Step::Flush,
        put("b", &big("2")),
        Step::Entry(vec![
            Change::Put("c", "3".into()),
            Change::Delete("a"),
            Change::Row(1, "lease", "9".into()),
        ]),
        Step::Flush,
        Step::Sync,
        put("a", &big("4")),
        Step::Flush,
        Step::Entry(vec![Change::DeleteRow(1, "lease")]),
        Step::Entry(vec![]),
        Step::Flush,
    ]);
    assert!(states > 100, "{states}");
}

#[test]
fn a_segment_is_sealed_and_the_next_one_begun() {
    let mut program = Vec::new();
    for letter in ["p", "q", "r", "s", "t", "u"] {
        program.extend([put("k", &big(letter)), put(if letter < "s" { "x" } else { "y" }, letter)]);
        program.push(Step::Flush);
    }
    program.extend([Step::Sync, Step::Open, put("k", &big("v")), Step::Flush]);
    let states = cut_everywhere(&program);
    assert!(states > 300, "{states}");
}

#[test]
fn reclaim_loses_nothing_and_raises_no_dead() {
    // "doomed" dies before its tombstone; the tombstone lies in a later segment than the put it guards.
    let program = [
        Step::Entry(vec![Change::Put("doomed", big("d")), Change::Row(1, "gone", "r".into())]),
        put("stays", "s"),
        Step::Flush,
        Step::Roll,
        Step::Entry(vec![Change::Delete("doomed"), Change::DeleteRow(1, "gone")]),
        put("stays", "t"),
        put("fill", &big("f")),
        Step::Entry(vec![Change::Compact]),
        Step::Flush,
        Step::Roll,
        put("fill", &big("g")),
        Step::Flush,
        Step::Entry(vec![Change::Compact, Change::Row(1, "kept", "k".into())]),
        // The compaction is not on disk yet when reclaim acts on it.
        Step::Reclaim(Goal::Everything),
        put("last", "l"),
        Step::Flush,
        Step::Reclaim(Goal::Everything),
    ];
    let states = cut_everywhere(&program);
    assert!(states > 300, "{states}");
}

#[test]
fn an_import_is_there_or_not() {
    let source = new_disk(2);
    let mut other = Member::open(&source).unwrap();
    for letter in ["1", "2", "3", "4", "5", "6"] {
        other.step(&put("theirs", &big(letter))).unwrap();
        other.step(&Step::Flush).unwrap();
    }
    other.entry(&[Change::Compact, Change::Row(2, "their", "row".into())]);
    other.step(&put("more", &big("7"))).unwrap();
    other.step(&delete("theirs")).unwrap();
    other.step(&Step::Flush).unwrap();
    let snapshot: Bytes = other.snapshot();
    let program = [
        put("ours", &big("o")),
        Step::Entry(vec![Change::Row(1, "our", "row".into())]),
        Step::Flush,
        Step::Sync,
        Step::Import(snapshot, other.state.clone()),
        put("after", "a"),
        Step::Flush,
        Step::Sync,
    ];
    let states = cut_everywhere(&program);
    assert!(states > 200, "{states}");
}

#[test]
fn a_start_may_be_cut_as_well() {
    // A torn tail, a leftover segment and a leftover manifest: mended, with a cut at each step of the mending.
    let disk = new_disk(1);
    let mut member = Member::open(&disk).unwrap();
    for step in [put("a", &big("1")), Step::Flush, Step::Sync, put("b", &big("2")), Step::Flush] {
        member.step(&step).unwrap();
    }
    let promise = Promise { synced: 1, ..Promise::of(Some(&member)) };
    let before = disk.fork();
    before.power_cut_with(&mut |unsynced| match unsynced {
        Unsynced::Sector { sector, .. } if sector % 2 == 0 => Fate::Lost,
        _ => Fate::Kept,
    });
    let started = before.fork();
    let torn = Member::open(&started).unwrap().torn.expect("half of a frame is a torn tail");
    assert!(torn.lost_bytes > 0);
    for cut in 0..started.operations() {
        let disk = before.fork();
        disk.stop_at(Some(cut));
        drop(Member::open(&disk).err());
        for seed in 0..16 {
            let disk = disk.fork();
            disk.power_cut(seed);
            check(&disk, &promise, cut);
        }
    }
    assert_eq!(options().segment_bytes, 4096, "the numbers above are for small segments");
}
