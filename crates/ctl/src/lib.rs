//! The command lines: `etcdctl`, and `quorate util`.

use std::{ffi::OsString, process::ExitCode};

/// Runs the program called `etcdctl` (or `quorate ctl`): `args` are the arguments after the program's name.
///
/// Output goes to the process's standard streams; the exit code is etcdctl's (0 done, 1 refused by the
/// server, 2 not connected, 3 bad input, 4 not available, 5 interrupted, 6 input or output failed, 128 bad arguments).
pub fn main(_args: impl IntoIterator<Item = OsString>) -> ExitCode {
    unimplemented!("first landing: the signature only")
}

/// Runs `quorate util`: tools that read a member's files. `args` are the arguments after `util`.
pub fn util(_args: impl IntoIterator<Item = OsString>) -> ExitCode {
    unimplemented!("first landing: the signature only")
}
