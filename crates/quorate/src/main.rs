//! The one binary: a member, its command line, its tools; and whatever name it is called by decides which.
//!
//! | called as | is |
//! |---|---|
//! | `quorate [flags]`, `etcd [flags]` | a member |
//! | `quorate ctl …`, `etcdctl …` | the command line for a cluster |
//! | `quorate util …`, `etcdutl …` | tools for a member's files |
//! | `quorate lab …` | experiments on a simulated cluster |
//! | `quorate bench …` | a load generator, and servers side by side under it |
//! | `quorate limit …` | the serving layer alone, answering with a constant |

mod lab;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

// Every request allocates on one thread what others free (docs/decisions/0010-an-allocator-of-its-own.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What to run.
#[derive(Debug, PartialEq, Eq)]
enum Program {
    Member,
    Ctl,
    Util,
    Lab,
    Bench,
    Limit,
    Usage,
}

fn main() -> ExitCode {
    let (program, arguments) = choose(std::env::args_os().collect());
    match program {
        Program::Member => server::main(arguments),
        Program::Ctl => ctl::main(arguments),
        Program::Util => ctl::util(arguments),
        Program::Lab => lab::main(arguments),
        Program::Bench => bench::main(arguments),
        Program::Limit => server::limit(arguments),
        Program::Usage => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
    }
}

const USAGE: &str = "\
quorate [flags]      start a member (quorate --help lists the flags)
quorate ctl ...      work with a cluster, as etcdctl does
quorate util ...     look at a member's files: log, store, snapshots
quorate lab ...      see how a cluster works, on a simulated one
quorate bench ...    put load on a cluster, or compare servers under it
quorate limit ...    answer with a constant: what serving alone costs
";

/// By the program's name first, by its first argument second; also what remains for it.
fn choose(mut arguments: Vec<OsString>) -> (Program, Vec<OsString>) {
    let name = match arguments.is_empty() {
        true => OsString::new(),
        false => arguments.remove(0),
    };
    let name = Path::new(&name).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let program = match name {
        "etcd" => return (Program::Member, arguments),
        "etcdctl" => return (Program::Ctl, arguments),
        "etcdutl" => return (Program::Util, arguments),
        _ => match arguments.first().and_then(|first| first.to_str()) {
            Some("ctl") => Program::Ctl,
            Some("util") => Program::Util,
            Some("lab") => Program::Lab,
            Some("bench") => Program::Bench,
            Some("limit") => Program::Limit,
            Some("help") => Program::Usage,
            _ => return (Program::Member, arguments),
        },
    };
    arguments.remove(0);
    (program, arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, program: Program, rest: &[&str]) {
        let arguments = line.split(' ').map(OsString::from).collect();
        let rest = rest.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(choose(arguments), (program, rest), "{line}");
    }

    #[test]
    fn the_name_decides_and_then_the_first_argument() {
        check("quorate", Program::Member, &[]);
        check("/usr/bin/quorate --name a", Program::Member, &["--name", "a"]);
        check("./quorate ctl get k", Program::Ctl, &["get", "k"]);
        check("quorate util wal dump", Program::Util, &["wal", "dump"]);
        check("quorate lab write", Program::Lab, &["write"]);
        check("quorate bench put", Program::Bench, &["put"]);
        check("quorate limit --help", Program::Limit, &["--help"]);
        check("quorate help", Program::Usage, &[]);
        check("/opt/etcd --name ctl", Program::Member, &["--name", "ctl"]);
        check("etcdctl get ctl", Program::Ctl, &["get", "ctl"]);
        check("etcdutl version", Program::Util, &["version"]);
    }
}
