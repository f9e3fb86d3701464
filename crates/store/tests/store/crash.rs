//! Every crash of short lives of a store: at each operation on the disk, with every meaningful subset of what was pending.

use vfs::crash::Depth;
use vfs::memory::{Failure, Fate, OperationKind};

use crate::lives;
use crate::member::{Member, Step, new_disk, options, put};

#[test]
fn what_was_synced_survives_every_crash() {
    // The numbers in the lives are for small segments.
    assert_eq!(options().segment_bytes, 4096);
    for (name, steps) in lives::programs() {
        let report = lives::explore(&steps, &|_, _| {}, Depth::Everything)
            .unwrap_or_else(|why| panic!("{name}: {why}"));
        assert!(report.states > 1_000, "{name}: {report:?}");
    }
}

#[test]
fn a_start_may_be_cut_as_well() {
    let report = lives::explore_start().unwrap();
    assert!(report.points > 3 && report.states > 100, "{report:?}");
}

/// Behind every crash: a file that is gone, or a manifest that has rotted, is refused in its own words.
#[test]
fn damage_behind_a_crash_is_refused() {
    let report = lives::explore_refusals().unwrap();
    assert!(report.refused > 400, "{} of {} states", report.refused, report.states);
}

/// A sync fails and ends the process; its bytes stay in the kernel's memory, where a later sync takes them for written. Who
/// starts again finds the frame, and must make it what it says it is, before the log lets go of its entries.
#[test]
fn what_a_failed_sync_left_behind_is_written_again() {
    let disk = new_disk(1);
    let mut member = Member::open(&disk).unwrap();
    for step in [put("a", "1"), Step::Flush, Step::Sync, put("b", "2"), Step::Flush] {
        member.step(&step).unwrap();
    }
    disk.fail(|operation| operation.kind == OperationKind::Sync, 1, Failure::Errno(5));
    assert!(member.step(&Step::Sync).is_err());
    drop(member);
    disk.crash();
    let found = Member::open(&disk).unwrap().state;
    assert_eq!(found.applied, 2, "the kernel has it");
    disk.power_cut_with(&mut |_| Fate::Lost);
    assert_eq!(Member::open(&disk).unwrap().state, found);
}
