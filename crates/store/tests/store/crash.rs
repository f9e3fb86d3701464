//! Every crash of short lives of a store: at each operation on the disk, with every meaningful subset of what was pending.

use crate::lives;
use crate::member::options;

#[test]
fn what_was_synced_survives_every_crash() {
    // The numbers in the lives are for small segments.
    assert_eq!(options().segment_bytes, 4096);
    for (name, steps) in lives::programs() {
        let report = lives::explore(&steps).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert!(report.states > 1_000, "{name}: {report:?}");
    }
}

#[test]
fn a_start_may_be_cut_as_well() {
    let report = lives::explore_start().unwrap();
    assert!(report.points > 3 && report.states > 100, "{report:?}");
}
