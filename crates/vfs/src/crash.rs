//! Every state in which a power cut can leave a disk, tried one by one.
//!
//! ```text
//!   program   ──●──────●──────●──────●──▶        a point before each change of the disk, and one at the end
//!               │
//!               ├── pieces that are not synced: a name, a length, a sector, another sector …
//!               │       each kept or lost; a sector torn within; an older version of what was changed twice
//!               └── for each choice: a disk that the next start finds
//! ```
//!
//! What is tried is [`Everything`](Depth::Everything) only as far as this:
//!
//! - Points are the operations that change the disk, and between any two of them lies one point: a call is carried out or
//!   not. A write that a power cut breaks off is seen at the point behind it, where its sectors are pending.
//! - Up to [`PIECES_MAX`] pieces are pending: every subset of them is kept, the others lost. Each of these subsets comes again with all
//!   its sectors torn, at three places. This is called exhaustive; of all disks that a power cut could leave there it lacks
//!   those with sectors torn at other places, or each at another, and those with several older versions at a time.
//! - More are pending: those subsets that have a meaning. Nothing, everything, each piece alone, each one missing, what was
//!   written up to a piece and from it on, and (up to two dozen pieces) each pair missing.
//! - In either case each torn sector, and each older version of what was changed more than once, is tried among nothing,
//!   among everything, and at the end of what was written.
//! - Besides, the process may have died with nothing lost.
//!
//! Rot and disks that lie are no crash states; who wants them does them to the disk.

use std::collections::BTreeSet;

use crate::memory::{Fate, Memory, Unsynced};

/// Up to so many pending pieces every subset is tried.
pub const PIECES_MAX: usize = 10;
/// Up to so many pending pieces each pair is left out.
const PAIRS_MAX: usize = 24;
/// Where a sector is torn: within its first word, in the middle, before its last word.
const TEARS: [usize; 3] = [5, 256, 504];

/// What the next start made of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It has all that must be there, and nothing that must not.
    Recovered,
    /// It refused to start, rightly.
    Refused,
}

/// How much of a point is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// All that this module knows.
    Everything,
    /// The plainest states: the process dies, nothing that is pending is kept, or all of it but one name. What a disk that lies
    /// has broken is seen there, if it is seen at all.
    Plain,
}

/// What was tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Points at which the power failed.
    pub points: u64,
    /// Those of them at which every subset of what was pending was tried.
    pub exhaustive: u64,
    /// States, all points together. Of those of a point that are the same disk one is checked.
    pub states: u64,
    /// Pictures of the disk among them, by digest ([`Memory::image`]): those that differ count once.
    pub images: BTreeSet<u64>,
    /// States that were rightly refused.
    pub refused: u64,
}

impl Report {
    /// Takes what another one says in.
    pub fn add(&mut self, other: &Report) {
        let Report { points, exhaustive, states, images, refused } = other;
        self.points += points;
        self.exhaustive += exhaustive;
        self.states += states;
        self.images.extend(images);
        self.refused += refused;
    }
}

/// Lives through a program once for each of its points, and has every state checked that a power cut can leave there.
///
/// `run` makes a disk, lets it stop at the operation it is told (see [`Memory::stop_at`]) and gives the disk back with what
/// a start may find; points lie from operation `first` on. `check` may change the disk that it is given.
///
/// # Errors
///
/// What `check` says is wrong, with the point and the state: the first one.
pub fn explore<P>(
    depth: Depth,
    first: u64,
    run: impl Fn(Option<u64>) -> (Memory, P),
    check: impl Fn(&Memory, &P) -> Result<Found, String>,
) -> Result<Report, String> {
    let operations = run(None).0.operations();
    let mut report = Report::default();
    for point in first..=operations {
        let (disk, promise) = run(Some(point));
        disk.stop_at(None);
        let pending = disk.unsynced();
        report.points += 1;
        report.exhaustive += u64::from(depth == Depth::Everything && pending.len() <= PIECES_MAX);
        let mut known = BTreeSet::new();
        let mut try_one = |state: Memory, what: &dyn Fn() -> String| {
            report.states += 1;
            let image = state.image();
            report.images.insert(image);
            // Of what a sector had already, a part may be lost or torn without a trace.
            if !known.insert(image) {
                return Ok(());
            }
            match check(&state, &promise) {
                Ok(Found::Recovered) => Ok(()),
                Ok(Found::Refused) => {
                    report.refused += 1;
                    Ok(())
                }
                Err(why) => {
                    Err(format!("before operation {point} of {operations}, {}: {why}", what()))
                }
            }
        };
        let death = disk.fork();
        death.crash();
        try_one(death, &|| "the process died".to_owned())?;
        let all = match depth {
            Depth::Everything => choices(&pending),
            Depth::Plain => plain_choices(&pending),
        };
        for fates in all {
            let state = disk.fork();
            let mut each = fates.iter();
            state.power_cut_with(&mut |_| *each.next().expect("a fate for each piece"));
            try_one(state, &|| in_words(&pending, &fates))?;
        }
    }
    Ok(report)
}

/// Disks on which the next start has something to mend: from the `count` points of a program at which most is pending, each
/// broken in three ways (every other piece kept, sectors torn or lost by turns, only names kept). With each what a start may find.
pub fn wrecks<P: Clone>(
    first: u64,
    run: impl Fn(Option<u64>) -> (Memory, P),
    count: usize,
) -> Vec<(Memory, P)> {
    let operations = run(None).0.operations();
    let pending = |point: &u64| std::cmp::Reverse(run(Some(*point)).0.unsynced().len());
    let mut points: Vec<u64> = (first..=operations).collect();
    points.sort_by_cached_key(pending);
    let mut all = Vec::new();
    for point in points.into_iter().take(count) {
        let (disk, promise) = run(Some(point));
        disk.stop_at(None);
        for way in 0..3 {
            let wreck = disk.fork();
            let mut piece = 0;
            wreck.power_cut_with(&mut |unsynced| {
                piece += 1;
                match (way, unsynced) {
                    (0, _) if piece % 2 == 0 => Fate::Kept,
                    (1, Unsynced::Sector { .. }) if piece % 2 == 0 => Fate::Torn(TEARS[1]),
                    (2, Unsynced::Name(_)) => Fate::Kept,
                    (1, Unsynced::Name(_) | Unsynced::Length { .. }) => Fate::Kept,
                    _ => Fate::Lost,
                }
            });
            all.push((wreck, promise.clone()));
        }
    }
    all
}

/// See [`Depth::Plain`].
fn plain_choices(pending: &[Unsynced]) -> Vec<Vec<Fate>> {
    let names = pending.iter().enumerate().filter(|(_, one)| matches!(one, Unsynced::Name(_)));
    let without = |lost: usize| {
        let fate = |piece| if piece == lost { Fate::Lost } else { Fate::Kept };
        (0..pending.len()).map(fate).collect()
    };
    let nothing = vec![Fate::Lost; pending.len()];
    std::iter::once(nothing).chain(names.map(|(name, _)| without(name))).collect()
}

/// What a power cut may make of what is pending.
fn choices(pending: &[Unsynced]) -> Vec<Vec<Fate>> {
    let pieces = pending.len();
    let mut all: Vec<Vec<Fate>> = Vec::new();
    let mut torn: Vec<(u32, usize)> = Vec::new();
    let mut add = |is_kept: &dyn Fn(usize) -> bool| {
        let fate = |piece| if is_kept(piece) { Fate::Kept } else { Fate::Lost };
        all.push((0..pieces).map(fate).collect());
    };
    if pieces <= PIECES_MAX {
        for subset in 0..1u32 << pieces {
            let is_kept = |piece| subset >> piece & 1 == 1;
            add(&is_kept);
            let has_sector = |(piece, unsynced): (usize, &Unsynced)| {
                is_kept(piece) && matches!(unsynced, Unsynced::Sector { .. })
            };
            if pending.iter().enumerate().any(has_sector) {
                torn.extend(TEARS.map(|at| (subset, at)));
            }
        }
    } else {
        add(&|_| false);
        add(&|_| true);
        for one in 0..pieces {
            add(&|piece| piece == one);
            add(&|piece| piece != one);
            // The ends of these are there already.
            if 0 < one && one < pieces - 1 {
                add(&|piece| piece <= one);
                add(&|piece| piece > one);
            }
            if pieces <= PAIRS_MAX {
                (0..one).for_each(|other| add(&|piece| piece != one && piece != other));
            }
        }
    }
    for (subset, at) in torn {
        let fate = |(piece, unsynced): (usize, &Unsynced)| match (subset >> piece & 1, unsynced) {
            (0, _) => Fate::Lost,
            (_, Unsynced::Sector { .. }) => Fate::Torn(at),
            _ => Fate::Kept,
        };
        all.push(pending.iter().enumerate().map(fate).collect());
    }
    for (one, unsynced) in pending.iter().enumerate() {
        let versions = match unsynced {
            Unsynced::Name(_) => 1,
            Unsynced::Length { versions, .. } | Unsynced::Sector { versions, .. } => *versions,
        };
        let tears = TEARS.map(Fate::Torn).into_iter();
        let tears = tears.filter(|_| matches!(unsynced, Unsynced::Sector { .. }));
        for fate in tears.chain((0..versions - 1).map(Fate::Version)) {
            for rest in [|_, _| false, |_, _| true, |piece, one| piece < one] {
                let of = |piece| match (piece == one, rest(piece, one)) {
                    (true, _) => fate,
                    (_, true) => Fate::Kept,
                    (_, false) => Fate::Lost,
                };
                all.push((0..pieces).map(of).collect());
            }
        }
    }
    all
}

fn in_words(pending: &[Unsynced], fates: &[Fate]) -> String {
    let mut words = String::from("of what was not synced");
    for (unsynced, fate) in pending.iter().zip(fates) {
        words += &format!("\n  {fate:?}: {unsynced:?}");
    }
    words + "\n"
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{OpenMode, Vfs};

    /// Two sectors and a name, and a promise about the first sector.
    fn run(stop: Option<u64>, syncs: bool) -> (Memory, bool) {
        let disk = Memory::new(1);
        disk.stop_at(stop);
        let write = || {
            let file = disk.open(Path::new("/f"), OpenMode::Create)?;
            disk.sync_dir(Path::new("/"))?;
            file.write_at(&[1; 700], 0)?;
            if syncs {
                file.sync()?;
            }
            Ok::<(), std::io::Error>(())
        };
        let is_written = write().is_ok();
        (disk, is_written)
    }

    fn check(disk: &Memory, is_written: &bool) -> Result<Found, String> {
        let mut bytes = [0; 700];
        let read = disk.open(Path::new("/f"), OpenMode::Read).map(|f| f.read_at(&mut bytes, 0));
        match (is_written, read.is_ok() && bytes == [1; 700]) {
            (true, false) => Err("it is not there".to_owned()),
            (false, false) => Ok(Found::Refused),
            (_, true) => Ok(Found::Recovered),
        }
    }

    #[test]
    fn each_subset_of_each_point_is_tried() {
        let report = explore(Depth::Everything, 0, |stop| run(stop, true), check).unwrap();
        // Nothing; a name; nothing more; a length in two versions and two sectors, kept and lost, six of the subsets torn in
        // three places, each sector torn in three surroundings, and the older length in as many; synced.
        let states = 2 + 3 + 2 + (1 + 8 + 6 * 3 + 18 + 3) + 2;
        assert_eq!((report.points, report.exhaustive, report.states), (5, 5, states));
        assert!(report.images.len() > 10 && report.refused > 10, "{report:?}");
    }

    #[test]
    fn what_was_not_synced_is_missed() {
        let why = explore(Depth::Everything, 0, |stop| run(stop, false), check).unwrap_err();
        assert!(why.contains("before operation 3 of 3"), "{why}");
        assert!(why.contains("it is not there") && why.contains("Lost: Sector"), "{why}");
    }

    #[test]
    fn a_plain_look_sees_what_is_missing_altogether() {
        let report = explore(Depth::Plain, 0, |stop| run(stop, true), check).unwrap();
        // At each point a death and a loss of everything; and once the name alone.
        assert_eq!((report.points, report.exhaustive, report.states), (5, 0, 5 * 2 + 1));
        let why = explore(Depth::Plain, 0, |stop| run(stop, false), check).unwrap_err();
        assert!(why.contains("it is not there"), "{why}");
    }

    #[test]
    fn wrecks_are_where_most_is_pending() {
        let all = wrecks(0, |stop| run(stop, true), 1);
        let images: BTreeSet<u64> = all.iter().map(|(disk, _)| disk.image()).collect();
        assert_eq!((all.len(), images.len()), (3, 2));
        assert!(all.iter().all(|(_, is_written)| !is_written));
    }

    #[test]
    fn many_pieces_are_tried_by_rule() {
        let sector = |sector| Unsynced::Sector {
            path: "/f".into(),
            sector,
            versions: 1 + sector as usize % 2,
        };
        let pending: Vec<Unsynced> = (0..12).map(sector).collect();
        let all = choices(&pending);
        let distinct: BTreeSet<String> = all.iter().map(|fates| format!("{fates:?}")).collect();
        // Ends, alone and missing, up to and from, pairs; tears; versions.
        assert_eq!(all.len(), 2 + 24 + 20 + 66 + 12 * 9 + 6 * 3);
        assert!(distinct.len() > 200, "{}", distinct.len());
    }
}
