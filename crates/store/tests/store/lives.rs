//! Short lives of a store, and what may be found of them after a crash.
//!
//! Whatever the disk remembers, the start must find the state at the end of some frame: not before the last
//! synced one, not after the last written one. It must not report damage, and what it found once it must find
//! again after another power cut.

use std::collections::BTreeMap;

use store::{Goal, OpenError};
use vfs::Vfs;
use vfs::crash::{self, Depth, Found, Report};
use vfs::memory::{Fate, Memory};

use crate::member::{Change, Member, State, Step, Stopped, delete, dir, file, new_disk, put};

/// A life, and what it shows.
pub type Program = (&'static str, Vec<Step>);

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
#[derive(Clone)]
pub struct Promise {
    pub synced: u64,
    written: u64,
    history: BTreeMap<u64, State>,
}

impl Promise {
    pub fn of(member: Option<&Member>) -> Promise {
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

fn check(disk: &Memory, promise: &Promise) -> Result<Found, String> {
    let open = || Member::open(disk).map_err(|error| error.to_string());
    let found = open()?;
    let applied = found.state.applied;
    if !(promise.synced..=promise.written).contains(&applied) {
        return Err(format!(
            "entry {applied} found, {} synced, {} written",
            promise.synced, promise.written
        ));
    }
    if promise.history.get(&applied) != Some(&found.state) {
        return Err(format!("at entry {applied}: {:?}", found.state));
    }
    // What a start found is durable: the power may go again at once.
    disk.power_cut_with(&mut |_| Fate::Lost);
    let mut again = open()?;
    if again.state != found.state {
        return Err(format!("after a second power cut: {:?}", again.state));
    }
    if let Some(torn) = again.torn {
        return Err(format!("the tail was cut off, and {torn:?} is told again"));
    }
    // And it goes on from there.
    let mut go_on = || {
        again.step(&put("after", "x"))?;
        again.step(&Step::Flush)?;
        again.step(&Step::Sync)?;
        again.reclaim(Goal::Everything)
    };
    go_on().map_err(|stopped| format!("going on: {stopped:?}"))?;
    again.check();
    match open()?.state == again.state {
        true => Ok(Found::Recovered),
        false => Err("one entry later it is another state".to_owned()),
    }
}

/// What is done to a disk before a program begins on it, told at which operation its points begin.
type Adjust<'a> = &'a dyn Fn(&Memory, u64);

/// Where the points of a life begin, and how it is lived.
fn lives<'a>(
    program: &'a [Step],
    adjust: Adjust<'a>,
) -> (u64, impl Fn(Option<u64>) -> (Memory, Promise) + 'a) {
    let first = new_disk(1).operations();
    let run = move |stop| {
        let disk = new_disk(1);
        adjust(&disk, first);
        disk.stop_at(stop);
        let (member, stopped) = run(&disk, program);
        match &stopped {
            Ok(()) => {}
            Err(Stopped::Refused(OpenError::Io { .. }) | Stopped::Disk(_)) if stop.is_some() => {}
            Err(stopped) => panic!("cut at {stop:?}: {stopped:?}"),
        }
        (disk, Promise::of(member.as_ref()))
    };
    (first, run)
}

/// Every crash of a life, on disks that `adjust` may have made to lie.
pub fn explore(program: &[Step], adjust: Adjust, depth: Depth) -> Result<Report, String> {
    let (first, run) = lives(program, adjust);
    crash::explore(depth, first, run, check)
}

/// Every crash of a start that has a torn tail to cut off, a segment and a manifest that are left over, or an import that
/// was cut short: for some crashes of all lives.
pub fn explore_start() -> Result<Report, String> {
    let mut report = Report::default();
    for (_, program) in programs() {
        let (first, run) = lives(&program, &|_, _| {});
        for (wreck, promise) in crash::wrecks(first, run, 4) {
            let run = |stop| {
                let disk = wreck.fork();
                disk.stop_at(stop);
                drop(Member::open(&disk).err());
                (disk, &promise)
            };
            let check = |disk: &Memory, promise: &&Promise| check(disk, promise);
            report.add(&crash::explore(Depth::Everything, wreck.operations(), run, check)?);
        }
    }
    Ok(report)
}

/// Every crash of the life of segments, and then one that the manifest names is gone, the manifest is, or it has rotted: each is
/// refused in its own words, and the store behind it is as it would be.
pub fn explore_refusals() -> Result<Report, String> {
    let (_, program) = programs().swap_remove(1);
    let (first, run) = lives(&program, &|_, _| {});
    crash::explore(Depth::Everything, first, run, |disk, promise| {
        if promise.synced == 0 {
            return check(disk, promise);
        }
        let manifest = file("MANIFEST");
        let names = disk.list(dir()).map_err(|error| error.to_string())?;
        let segment = names.iter().find(|name| *name != "MANIFEST").ok_or("there is no segment")?;
        let segment = file(segment);
        let refusal = |damage: &dyn Fn(&Memory)| {
            let disk = disk.fork();
            damage(&disk);
            Member::open(&disk).err().ok_or("it starts in spite of it".to_owned())
        };
        match refusal(&|disk| disk.unlink(&segment).unwrap())? {
            OpenError::SegmentMissing { file } if file == segment => {}
            error => return Err(format!("{} is gone: {error}", segment.display())),
        }
        match refusal(&|disk| disk.unlink(&manifest).unwrap())? {
            OpenError::ManifestMissing { .. } => {}
            error => return Err(format!("the manifest is gone: {error}")),
        }
        match refusal(&|disk| disk.rot(&manifest, 24, 1))? {
            OpenError::Rot(_) => {}
            error => return Err(format!("the manifest has rotted: {error}")),
        }
        check(disk, promise).map(|_| Found::Refused)
    })
}

fn big(letter: &str) -> String {
    letter.repeat(900)
}

/// The lives whose every crash is tried.
pub fn programs() -> Vec<Program> {
    let frames = vec![
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
    ];
    let mut seals = Vec::new();
    for letter in ["p", "q", "r", "s", "t", "u"] {
        seals.extend([put("k", &big(letter)), put(if letter < "s" { "x" } else { "y" }, letter)]);
        seals.push(Step::Flush);
    }
    seals.extend([Step::Sync, Step::Open, put("k", &big("v")), Step::Flush]);
    // "doomed" dies before its tombstone; the tombstone lies in a later segment than the put it guards.
    let reclaim = vec![
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
    let mut other = Member::open(&new_disk(2)).unwrap();
    for letter in ["1", "2", "3", "4", "5", "6"] {
        other.step(&put("theirs", &big(letter))).unwrap();
        other.step(&Step::Flush).unwrap();
    }
    other.entry(&[Change::Compact, Change::Row(2, "their", "row".into())]);
    for step in [put("more", &big("7")), delete("theirs"), Step::Flush] {
        other.step(&step).unwrap();
    }
    let import = vec![
        put("ours", &big("o")),
        Step::Entry(vec![Change::Row(1, "our", "row".into())]),
        Step::Flush,
        Step::Sync,
        Step::Import(other.snapshot(), other.state.clone()),
        put("after", "a"),
        Step::Flush,
        Step::Sync,
    ];
    vec![
        ("store: frames are whole or not there", frames),
        ("store: a segment is sealed and the next one begun", seals),
        ("store: reclaim loses nothing and raises no dead", reclaim),
        ("store: an import is there or not", import),
    ]
}
