//! Single stories: rot, refusals, full disks, failed syncs, sizes, readers of files that are gone.

use std::sync::Arc;

use store::{Goal, ImportError, OpenError, ReadError, ReclaimError, Reclaimed, WriteError};
use vfs::memory::{Failure, Memory, OperationKind};
use vfs::{OpenMode, Vfs};

use crate::member::{Change, Member, Step, delete, dir, file, new_disk, options, put};

fn big(letter: &str) -> String {
    letter.repeat(900)
}

/// Several sealed segments and a growing one with two synced frames.
fn filled() -> Memory {
    let disk = new_disk(1);
    let mut member = Member::open(&disk).unwrap();
    for letter in ["1", "2", "3", "4", "5", "6", "7"] {
        member.step(&put("k", &big(letter))).unwrap();
        member.step(&Step::Entry(vec![Change::Row(1, "r", letter.into())])).unwrap();
        member.step(&Step::Flush).unwrap();
        member.step(&Step::Sync).unwrap();
    }
    disk
}

fn segments(disk: &Memory) -> Vec<String> {
    let names = disk.list(dir()).unwrap();
    names.into_iter().filter(|name| name.ends_with(".segment")).collect()
}

fn len(disk: &Memory, name: &str) -> u64 {
    disk.open(&file(name), OpenMode::Read).unwrap().len().unwrap()
}

#[test]
fn a_flipped_byte_is_never_served() {
    let disk = filled();
    let good = Member::open(&disk.fork()).unwrap().state;
    let growing = segments(&disk).pop().unwrap();
    for name in disk.list(dir()).unwrap() {
        if name == "spare" || name == "reserve" {
            continue;
        }
        let is_growing = name == growing;
        for offset in (0..len(&disk, &name)).step_by(if name == "MANIFEST" { 1 } else { 7 }) {
            let disk = disk.fork();
            disk.rot(&file(&name), offset, 0x10);
            // Values are not read at start: those are found by the reader or by scrubbing.
            let opened =
                std::panic::catch_unwind(|| Member::open(&disk).map(|member| member.state));
            let served = match opened {
                Ok(Ok(state)) => Some(state),
                Ok(Err(OpenError::Rot(damage))) => {
                    assert_eq!(damage.file, file(&name), "offset {offset}");
                    None
                }
                Ok(Err(OpenError::Io { error, .. })) => panic!("{error}"),
                Ok(Err(other)) => panic!("{name} at {offset}: {other}"),
                // The test's own reading of values met the reader's error.
                Err(_) => None,
            };
            match served {
                Some(state) if is_growing => {
                    // Only the last frame may be taken for a torn write, or zeros behind it for one.
                    assert!(
                        state == good || state.applied == good.applied - 2,
                        "{name} at {offset}"
                    );
                }
                Some(state) => {
                    assert_eq!(state, good, "{name} at {offset}");
                    let opened = store::open(Arc::new(disk), dir(), options(), &mut |_| {});
                    let scrubbed = opened.unwrap().flusher.scrub(usize::MAX);
                    assert_eq!(scrubbed.damage.len(), 1, "{name} at {offset}");
                    assert_eq!(scrubbed.damage[0].file, file(&name));
                }
                None => {}
            }
        }
    }
}

#[test]
fn scrub_reads_everything_in_slices_and_finds_nothing_in_good_segments() {
    let disk = filled();
    let mut member = Member::open(&disk).unwrap();
    let sealed: u64 = segments(&disk).iter().rev().skip(1).map(|name| len(&disk, name)).sum();
    let mut bytes = 0;
    let mut slices = 0;
    loop {
        let scrubbed = member.flusher.scrub(512);
        assert_eq!(scrubbed.damage, vec![]);
        bytes += scrubbed.bytes;
        slices += 1;
        if scrubbed.round_ended {
            break;
        }
    }
    assert_eq!(bytes, sealed);
    assert!(slices > 3);
}

#[test]
fn a_missing_file_is_refused() {
    let disk = filled();
    for name in segments(&disk) {
        let disk = disk.fork();
        disk.unlink(&file(&name)).unwrap();
        let error = Member::open(&disk).err().unwrap();
        assert!(matches!(&error, OpenError::SegmentMissing { file: f } if *f == file(&name)));
    }
    disk.unlink(&file("MANIFEST")).unwrap();
    assert!(matches!(Member::open(&disk).err().unwrap(), OpenError::ManifestMissing { .. }));
    assert!(segments(&disk).len() > 1, "a refusal deletes nothing");
}

#[test]
fn an_unknown_version_is_refused() {
    let disk = filled();
    let manifest = disk.open(&file("MANIFEST"), OpenMode::Write).unwrap();
    let mut bytes = vec![0; manifest.len().unwrap() as usize];
    manifest.read_exact_at(&mut bytes, 0).unwrap();
    bytes[8] = 2;
    let body = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..body]);
    bytes[body..].copy_from_slice(&crc.to_le_bytes());
    manifest.write_at(&bytes, 0).unwrap();
    let error = Member::open(&disk).err().unwrap();
    assert!(matches!(error, OpenError::UnknownVersion { found: 2, .. }), "{error}");
}

#[test]
fn a_reader_goes_on_in_a_file_that_is_gone() {
    let disk = new_disk(1);
    let mut member = Member::open(&disk).unwrap();
    for letter in ["1", "2", "3", "4", "5", "6", "7"] {
        member.step(&put(if letter == "1" { "old" } else { "k" }, &big(letter))).unwrap();
        member.step(&Step::Flush).unwrap();
    }
    member.entry(&[Change::Compact]);
    member.step(&Step::Flush).unwrap();
    let location = member.index.location("old");
    let view = member.reader.view();
    let before = view.read(&location).unwrap();
    member.step(&Step::Reclaim(Goal::Everything)).unwrap();
    let after = member.index.location("old");
    assert_ne!(after.place, location.place, "it has moved");
    assert_eq!(view.read(&location).unwrap(), before);
    assert_eq!(member.reader.read(&after).unwrap(), before);
    assert_eq!(member.reader.read_now(&after).unwrap().unwrap(), before);
    let gone = member.reader.read(&location).unwrap_err();
    assert!(matches!(gone, ReadError::Gone { segment } if segment == location.place.segment));
}

#[test]
fn space_stays_within_one_and_a_half_of_what_lives() {
    let disk = new_disk(1);
    let mut member = Member::open(&disk).unwrap();
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"];
    for round in 0..40 {
        for (number, key) in keys.iter().enumerate() {
            if round == 0 || (round + number) % 5 == 0 {
                member.step(&put(key, &big(&format!("{}", round % 10)))).unwrap();
                member.step(&Step::Flush).unwrap();
            }
        }
        member.entry(&[Change::Compact]);
        member.step(&Step::Flush).unwrap();
        member.reclaim(Goal::Bounded).unwrap();
        let sizes = member.sizes();
        // Pages of 4 KiB count for more than they hold in segments as small as these.
        let pages = segments(&disk).len() as u64 * 4096;
        assert!(
            sizes.db_size <= sizes.db_size_in_use * 3 / 2 + 4096 / 16 + pages,
            "round {round}: {sizes:?}"
        );
        member.check();
    }
    member.reclaim(Goal::Everything).unwrap();
    let sizes = member.sizes();
    let live = keys.len() as u64 * 900;
    assert!(sizes.db_size_in_use < live * 11 / 10 + 2048, "{sizes:?}");
    let state = member.state.clone();
    assert_eq!(Member::open(&disk).unwrap().state, state);
}

#[test]
fn a_tombstone_goes_when_nothing_is_left_to_guard() {
    let disk = new_disk(1);
    let mut member = Member::open(&disk).unwrap();
    for step in [
        Step::Entry(vec![Change::Put("dead", big("d")), Change::Row(1, "r", "1".into())]),
        put("lives", "1"),
        Step::Flush,
        Step::Roll,
        Step::Entry(vec![Change::Delete("dead"), Change::DeleteRow(1, "r")]),
        put("lives", "2"),
        Step::Entry(vec![Change::Compact]),
        Step::Flush,
        Step::Reclaim(Goal::Everything),
        Step::Reclaim(Goal::Everything),
        Step::Roll,
        Step::Reclaim(Goal::Everything),
    ] {
        member.step(&step).unwrap();
    }
    member.check();
    let state = member.state.clone();
    let again = Member::open(&disk).unwrap();
    assert_eq!(again.state, state);
    assert_eq!(again.recovered, 1, "one put is all that is on disk");
    assert_eq!(again.state.revision, 4, "revisions are not given twice");
}

#[test]
fn what_guards_the_dead_of_another_segment_stays() {
    let disk = new_disk(1);
    let mut member = Member::open(&disk).unwrap();
    for step in [
        // Too much alive to be worth copying, and two small dead among it.
        Step::Entry(vec![Change::Put("t", "x".into()), Change::Row(1, "r", "x".into())]),
        put("a", &big("a")),
        put("b", &big("b")),
        put("c", &big("c")),
        Step::Entry(
            ["d", "e", "f", "g", "h", "i"].map(|key| Change::Put(key, key.into())).to_vec(),
        ),
        Step::Flush,
        Step::Roll,
        Step::Flush,
        // What says that they are dead lies among much that is dead itself.
        Step::Entry(vec![Change::Delete("t"), Change::DeleteRow(1, "r")]),
        put("fill", &big("f")),
        put("fill", "g"),
        Step::Entry(vec![Change::Compact]),
        Step::Flush,
        Step::Roll,
        Step::Flush,
        Step::Reclaim(Goal::Everything),
    ] {
        member.step(&step).unwrap();
    }
    assert_eq!(segments(&disk)[0], "0000000000.segment", "the first one is still there");
    assert!(!segments(&disk).contains(&"0000000002.segment".to_owned()), "the second one went");
    let state = member.state.clone();
    assert!(!state.keys.contains_key("t") && state.rows.is_empty());
    assert_eq!(Member::open(&disk).unwrap().state, state);
}

#[test]
fn a_death_that_is_not_durable_drops_nothing() {
    // The put is replaced and compacted in memory only; reclaim may not act on it before that is on disk.
    let disk = new_disk(1);
    let mut member = Member::open(&disk).unwrap();
    for step in [
        put("k", "1"),
        put("fill", &big("2")),
        Step::Flush,
        Step::Roll,
        put("fill", "3"),
        Step::Entry(vec![Change::Compact]),
        Step::Flush,
        Step::Flush,
        Step::Sync,
    ] {
        member.step(&step).unwrap();
    }
    member.entry(&[Change::Put("k", "new".into())]);
    member.entry(&[Change::Compact]);
    // What kills the first k is taken, and not written: the disk knows of fill's death alone. Reclaim does not wait for
    // it, and takes the first k along.
    let frame = member.builder.take_frame().unwrap();
    let mut swapped = false;
    for _ in 0..20 {
        let done = member.reclaim_once(Goal::Everything, 4096).unwrap();
        swapped |= matches!(done, Reclaimed::Swapped { .. });
    }
    assert!(swapped);
    let crashed = disk.fork();
    crashed.crash();
    let found = Member::open(&crashed).unwrap();
    assert_eq!(found.state, member.history[&4]);
    assert_eq!(found.state.keys["k"], vec![(1, Some("1".into()))]);
    drop(frame);
}

#[test]
fn a_full_disk_can_be_reclaimed_and_written_again() {
    let disk = new_disk(1);
    let mut member = Member::open(&disk).unwrap();
    disk.set_capacity(Some(30 << 10));
    let mut rounds = 0;
    // Overwrites fill the disk; nothing is reclaimed until it is full.
    let frame = loop {
        member.step(&put("k", &big("x"))).unwrap();
        member.entry(&[Change::Compact]);
        let frame = member.builder.take_frame().unwrap();
        match member.flusher.write(&frame) {
            Ok(_) => rounds += 1,
            Err(WriteError::Full) => break frame,
            Err(WriteError::Failed(error)) => panic!("{error}"),
        }
        assert!(rounds < 100, "the disk never fills");
    };
    // A start on the full disk finds all that was written.
    let full = disk.fork();
    full.crash();
    let found = Member::open(&full).unwrap();
    assert_eq!(found.state, member.history[&(2 * rounds)]);
    // Reclaim needs a note carried to the flusher, never the frame that found no space: what died, died in
    // frames that were written.
    let mut found = found;
    found.reclaim(Goal::Bounded).unwrap();
    for _ in 0..10 {
        found.step(&put("k", &big("y"))).unwrap();
        found.entry(&[Change::Compact]);
        found.flush().unwrap();
        found.reclaim(Goal::Bounded).unwrap();
    }
    found.check();
    drop(frame);
}

/// A member with a few sealed segments of which nearly everything is dead, by a compaction that is written.
fn with_dead_segments(disk: &Memory) -> Member {
    let mut member = Member::open(disk).unwrap();
    for key in ["a", "b", "c", "d"] {
        for step in [put(key, "1"), put("k", &big("x")), Step::Flush, Step::Roll] {
            member.step(&step).unwrap();
        }
    }
    for step in [put("k", "last"), Step::Entry(vec![Change::Compact]), Step::Flush, Step::Flush] {
        member.step(&step).unwrap();
    }
    member
}

fn slice(member: &mut Member) -> Result<Reclaimed, ReclaimError> {
    let index = std::mem::take(&mut member.index);
    let done = member
        .flusher
        .reclaim(Goal::Everything, 256, &mut |key, revision| index.is_live(key, revision));
    member.index = index;
    done
}

/// The old footers cannot be read in the very moment in which the copy would take their place. The job stays where it is;
/// no other may begin, for that could copy the copy, and a revision would stand in two segments.
#[test]
fn a_read_that_fails_before_the_swap_is_made_up_for() {
    let disk = new_disk(1);
    let mut member = with_dead_segments(&disk);
    while !matches!(member.reclaim_once(Goal::Everything, 1 << 20), Ok(Reclaimed::Relocate(_))) {}
    disk.fail(|operation| operation.kind == OperationKind::Read, 1, Failure::Errno(5));
    assert!(matches!(slice(&mut member), Err(ReclaimError::Source(_))));
    // What was copied dies meanwhile.
    for step in [delete("a"), delete("b"), Step::Entry(vec![Change::Compact]), Step::Flush] {
        member.step(&step).unwrap();
    }
    member.reclaim(Goal::Everything).unwrap();
    member.flusher.sync().unwrap();
    member.check();
    disk.power_cut(1);
    assert_eq!(Member::open(&disk).unwrap().state, member.state);
}

/// One segment cannot be read, now or later. The others are reclaimed without it.
#[test]
fn a_segment_that_cannot_be_read_does_not_stop_the_others() {
    let disk = new_disk(1);
    let mut member = with_dead_segments(&disk);
    let bad = file(&segments(&disk)[1]);
    let path = bad.clone();
    disk.fail(
        move |operation| operation.kind == OperationKind::Read && operation.path == path,
        u64::MAX,
        Failure::Errno(5),
    );
    let before = segments(&disk);
    let mut failures = 0;
    for _ in 0..200 {
        match member.reclaim_once(Goal::Everything, 1 << 20) {
            Ok(Reclaimed::Idle) => break,
            Ok(_) => {}
            Err(_) => failures += 1,
        }
    }
    assert!((1..10).contains(&failures), "{failures} failures");
    let growing = file(before.last().unwrap());
    let old = before.iter().map(|name| file(name));
    let left: Vec<_> = old.filter(|path| disk.exists(path).unwrap()).collect();
    assert_eq!(left, [bad, growing]);
    disk.heal();
    member.flusher.sync().unwrap();
    disk.power_cut(1);
    assert_eq!(Member::open(&disk).unwrap().state, member.state);
}

/// "No space" from a sync is not the answer of a full disk to a request for room: what was to be made durable may be gone.
#[test]
fn a_sync_that_finds_no_space_is_final() {
    for kind in [OperationKind::Sync, OperationKind::SyncDir] {
        let disk = new_disk(1);
        let mut member = with_dead_segments(&disk);
        member.step(&put("k", "2")).unwrap();
        member.builder.roll();
        member.flush().unwrap();
        disk.fail(move |operation| operation.kind == kind, 1, Failure::Errno(28));
        member.entry(&[Change::Put("k", "3".into())]);
        let frame = member.builder.take_frame().unwrap();
        let written = member.flusher.write(&frame);
        assert!(matches!(written, Err(WriteError::Failed(_))), "{kind:?}: {written:?}");
        assert!(member.flusher.sync().is_err(), "{kind:?}: it is tried again");
    }
    // The same while a copy is made.
    let disk = new_disk(1);
    let mut member = with_dead_segments(&disk);
    disk.fail(|operation| operation.kind == OperationKind::Sync, 1, Failure::Errno(28));
    let failed = (0..20).find_map(|_| slice(&mut member).err());
    assert!(matches!(failed, Some(ReclaimError::Failed(_))), "{failed:?}");
}

#[test]
fn a_snapshot_that_is_not_whole_changes_nothing() {
    let source = filled();
    let snapshot = Member::open(&source).unwrap().snapshot();
    let disk = new_disk(3);
    let mut member = Member::open(&disk).unwrap();
    for step in [put("mine", "1"), Step::Flush, Step::Sync] {
        member.step(&step).unwrap();
    }
    let state = member.state.clone();
    drop(member);
    let import = |disk: &Memory, bytes: &[u8]| -> Result<(), ImportError> {
        let opened = store::open(Arc::new(disk.clone()), dir(), options(), &mut |_| {}).unwrap();
        let mut flusher = opened.flusher;
        flusher.begin_import()?;
        flusher.import(bytes)?;
        flusher.finish_import().map(drop)
    };
    let names = disk.list(dir()).unwrap();
    for at in (0..snapshot.len()).step_by(13) {
        assert!(import(&disk, &snapshot[..at]).is_err(), "cut at {at}");
        let mut flipped = snapshot.to_vec();
        flipped[at] ^= 1;
        assert!(import(&disk, &flipped).is_err(), "flipped at {at}");
    }
    assert_eq!(disk.list(dir()).unwrap(), names, "nothing is left behind");
    assert_eq!(Member::open(&disk).unwrap().state, state);
    import(&disk, &snapshot).unwrap();
    let imported = Member::open(&disk).unwrap();
    assert_eq!(imported.state, Member::open(&source).unwrap().state);
    assert_eq!(disk.list(dir()).unwrap().len(), 3 + segments(&disk).len());
}

#[test]
fn a_snapshot_reads_its_boundary_while_writes_and_reclaim_go_on() {
    let disk = filled();
    let mut member = Member::open(&disk).unwrap();
    let state = member.state.clone();
    let mut snapshot = member.flusher.snapshot().unwrap();
    let mut stream = snapshot.next_chunk(512, &mut |_, _| true).unwrap().unwrap().to_vec();
    for step in [
        put("k", "later"),
        delete("k"),
        Step::Entry(vec![Change::Compact, Change::DeleteRow(1, "r")]),
        Step::Flush,
        Step::Reclaim(Goal::Everything),
    ] {
        member.step(&step).unwrap();
    }
    while let Some(chunk) = snapshot.next_chunk(512, &mut |_, _| true).unwrap() {
        stream.extend_from_slice(&chunk);
    }
    let other = new_disk(4);
    let mut receiver = Member::open(&other).unwrap();
    receiver.step(&Step::Import(stream.into(), state.clone())).unwrap();
    assert_eq!(receiver.state, state);
}
