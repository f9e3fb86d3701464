//! What everybody builds has no bug to choose.

use mutant::{ALL, ON, is};

#[test]
fn the_usual_build_has_no_mutants() {
    // The workspace's features are united: were the feature on for any crate in it, it would be on here.
    const { assert!(!ON, "the feature `on` is for `cargo xtask mutants` alone") };
    assert!(ALL.iter().all(|mutant| !is(*mutant)));
}
