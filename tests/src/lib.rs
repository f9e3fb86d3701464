//! Black-box tests: real processes, real clients, the real etcd beside us.
//!
//! What a test needs and does not find (a real etcd, a network namespace) makes it skip, with a line that
//! says so; where `QUORATE_TESTS_STRICT` is set, as in `.ci/run`, a skip is a failure unless the test's name
//! stands in that variable's comma-separated list.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, missing_docs)]
// Real processes live in the real world: its clock, its files and its sockets.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod address;
pub mod compare;
pub mod disk;
pub mod generate;
pub mod history;
pub mod hostile;
pub mod http;
pub mod network;
pub mod process;
pub mod random;
pub mod watches;
pub mod workload;

use std::io::Write;

/// Says that a test is skipped, where no output capture can hide it; fails where skips are forbidden.
pub fn skip(test: &str, reason: &str) {
    let line = format!("skipped: {test}: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    if let Ok(allowed) = std::env::var("QUORATE_TESTS_STRICT") {
        assert!(
            allowed.split(',').any(|name| name == test),
            "{test} was skipped ({reason}), and is not on the list of skips that are allowed: {allowed}"
        );
    }
}

/// `let etcd = need!("test_name", process::reference("etcd"));` — the value, or skip and return.
#[macro_export]
macro_rules! need {
    ($test:expr, $value:expr) => {
        match $value {
            Ok(value) => value,
            Err(reason) => {
                $crate::skip($test, &reason);
                return;
            }
        }
    };
}
