//! The command lines: `etcdctl`, and `quorate util`.
//!
//! ```text
//!   words ──flags──▶ Parsed ──config──▶ Client      kv txn watch lease cluster maintenance
//!                       └──────────────────┴──────────▶ one file per service ──▶ print ──▶ streams
//! ```
//!
//! What it prints, to which stream, and its exit codes are etcdctl's, for people script against them.
//! The streams and the environment are passed in, so that a test can run a command and read what it
//! said.

#![allow(clippy::disallowed_methods, reason = "a command line runs in the real time")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Write},
    os::unix::ffi::OsStringExt,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

mod cluster;
mod config;
mod flags;
mod go;
mod kv;
mod lease;
mod maintenance;
mod print;
mod trace;
mod txn;
mod util;
mod watch;

use crate::{
    config::Session,
    flags::{ROOT, Verb},
};

/// The version of etcdctl whose behaviour this is.
const ETCDCTL_VERSION: &str = "3.7.3";
/// The version of the API that is spoken.
const API_VERSION: &str = "3.7";

/// A stream to write to, shared by the command and by what reports failures under it.
pub type Output = Arc<Mutex<dyn Write + Send>>;

/// What a command reads and writes.
pub struct Streams {
    /// The standard input.
    pub input: Box<dyn BufRead + Send>,
    /// The standard output.
    pub out: Output,
    /// The standard error.
    pub err: Output,
    /// The environment: names and values.
    pub environment: Vec<(OsString, OsString)>,
    /// Commands that a watch runs write to the process's own streams; else to the ones above.
    pub inherit: bool,
}

impl Streams {
    /// The streams and the environment of this process.
    pub fn of_process() -> Streams {
        Streams {
            input: Box::new(BufReader::new(std::io::stdin())),
            out: Arc::new(Mutex::new(std::io::stdout())),
            err: Arc::new(Mutex::new(std::io::stderr())),
            environment: std::env::vars_os().collect(),
            inherit: true,
        }
    }

    fn print(&self, bytes: &[u8]) -> Result<(), Exit> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(bytes).and_then(|()| out.flush()).map_err(Exit::output)
    }

    fn complain(&self, text: &str) {
        complain(&self.err, text);
    }
}

/// Writes to the standard error. If that fails there is nobody left to tell.
fn complain(err: &Output, text: &str) {
    let mut err = err.lock().unwrap_or_else(PoisonError::into_inner);
    drop(err.write_all(text.as_bytes()).and_then(|()| err.flush()));
}

/// How a command ends if not well: a code, and what to say.
#[derive(Debug, PartialEq, Eq)]
struct Exit {
    code: u8,
    message: Option<String>,
}

impl Exit {
    const ERROR: u8 = 1;
    const BAD_CONNECTION: u8 = 2;
    const INVALID_INPUT: u8 = 3;
    const BAD_FEATURE: u8 = 4;
    const INTERRUPTED: u8 = 5;
    const IO: u8 = 6;
    const BAD_ARGUMENTS: u8 = 128;

    fn new(code: u8, message: impl ToString) -> Exit {
        Exit { code, message: Some(message.to_string()) }
    }

    fn error(message: impl ToString) -> Exit {
        Exit::new(Exit::ERROR, message)
    }

    fn bad_arguments(message: impl ToString) -> Exit {
        Exit::new(Exit::BAD_ARGUMENTS, message)
    }

    /// All has been said already.
    fn silent(code: u8) -> Exit {
        Exit { code, message: None }
    }

    /// Whoever reads our output may go away when it has seen enough; that is no news.
    fn output(error: std::io::Error) -> Exit {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Exit::silent(Exit::IO),
            _ => Exit::new(Exit::IO, error),
        }
    }
}

/// Runs the program called `etcdctl` (or `quorate ctl`): `args` are the arguments after the program's
/// name.
///
/// Output goes to the process's standard streams; the exit code is etcdctl's (0 done, 1 refused by
/// the server, 2 not connected, 3 bad input, 4 not available, 5 interrupted, 6 input or output
/// failed, 128 bad arguments).
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    ExitCode::from(run(args, Streams::of_process()))
}

/// Runs `quorate util`: tools that read a member's files. `args` are the arguments after `util`.
pub fn util(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    ExitCode::from(run_util(args, &Streams::of_process()))
}

/// As [`util`], with these streams; gives the exit code (0 all is well, 1 something is damaged or missing, 4 not
/// built yet, 6 the system refused, 128 bad arguments).
pub fn run_util(args: impl IntoIterator<Item = OsString>, streams: &Streams) -> u8 {
    let words: Vec<_> = args.into_iter().map(OsString::into_vec).collect();
    ended(util::run(&words, streams), &streams.err)
}

/// As [`main`], with these streams; gives the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>, streams: Streams) -> u8 {
    let words: Vec<_> = args.into_iter().map(OsString::into_vec).collect();
    let err = streams.err.clone();
    ended(dispatch(&words, streams), &err)
}

fn ended(result: Result<(), Exit>, err: &Output) -> u8 {
    let Err(exit) = result else { return 0 };
    if let Some(message) = &exit.message {
        complain(err, &format!("Error: {message}\n"));
    }
    exit.code
}

fn dispatch(words: &[Vec<u8>], streams: Streams) -> Result<(), Exit> {
    let parsed = match flags::parse(&ROOT, words) {
        Ok(parsed) => parsed,
        Err(error) => {
            let hint = match error.command {
                Some(_) => String::new(),
                None => "Run 'etcdctl --help' for usage.\n".to_owned(),
            };
            let usage = usage_of(words, error.command);
            streams.complain(&format!("Error: {}\n{hint}{usage}", error.message));
            return Err(Exit::silent(Exit::ERROR));
        }
    };
    let verb = parsed.command().verb;
    if verb == Verb::NotYet {
        let path: Vec<_> = parsed.path[1..].iter().map(|command| command.name).collect();
        let message = format!("{} is not yet supported", path.join(" "));
        return Err(Exit::new(Exit::BAD_FEATURE, message));
    }
    if parsed.help || verb == Verb::Group {
        return streams.print(help(&parsed.path).as_bytes());
    }
    match verb {
        Verb::Help => {
            let asked = flags::parse(&ROOT, &parsed.arguments);
            let path = asked.map_or(vec![&ROOT], |asked| asked.path);
            streams.print(help(&path).as_bytes())
        }
        Verb::Options => {
            let text = format!(
                "The following options can be passed to any command:\n\n{}",
                flags::global_flags(&ROOT)
            );
            streams.print(text.as_bytes())
        }
        Verb::Version => {
            let text = format!("etcdctl version: {ETCDCTL_VERSION}\nAPI version: {API_VERSION}\n");
            streams.print(text.as_bytes())
        }
        _ => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(Exit::error)?;
            let result = runtime.block_on(talk(verb, Session::new(parsed, streams)));
            // A line of standard input may still be waited for; nobody wants it any more.
            runtime.shutdown_background();
            result
        }
    }
}

/// The verbs that talk to a cluster.
async fn talk(verb: Verb, session: Session) -> Result<(), Exit> {
    match verb {
        Verb::Put => kv::put(session).await,
        Verb::Get => kv::get(session).await,
        Verb::Del => kv::del(session).await,
        Verb::Compaction => kv::compaction(session).await,
        Verb::Txn => txn::txn(session).await,
        Verb::Watch => watch::watch(session).await,
        Verb::LeaseGrant => lease::grant(session).await,
        Verb::LeaseRevoke => lease::revoke(session).await,
        Verb::LeaseTimeToLive => lease::time_to_live(session).await,
        Verb::LeaseList => lease::list(session).await,
        Verb::LeaseKeepAlive => lease::keep_alive(session).await,
        Verb::MemberList => cluster::member_list(session).await,
        Verb::EndpointHealth => maintenance::health(session).await,
        Verb::EndpointStatus => maintenance::status(session).await,
        Verb::EndpointHashKv => maintenance::hash_kv(session).await,
        Verb::TracePut | Verb::TraceGet | Verb::TraceDel | Verb::TraceTxn => {
            trace::trace(session).await
        }
        Verb::Slow => trace::slow(session).await,
        _ => unreachable!("{verb:?} needs no cluster"),
    }
}

fn help(path: &[&'static flags::Command]) -> String {
    let command = path.last().expect("a path begins with the root");
    format!(
        "{}\n\n{}Use \"etcdctl options\" for the options that every command takes.\n",
        command.short,
        flags::usage(path)
    )
}

/// The usage of the command in which something was wrong.
fn usage_of(words: &[Vec<u8>], command: Option<&str>) -> String {
    // The words up to the command parse; what was wrong came after it.
    let reads = |length: usize| flags::parse(&ROOT, &words[..length]).ok();
    let parsed =
        (1..=words.len()).filter_map(reads).find(|parsed| Some(parsed.command().name) == command);
    parsed.map_or(String::new(), |parsed| flags::usage(&parsed.path) + "\n")
}

/// Reads a line of input with its end; nothing at the end of the input.
fn read_line(input: &mut (dyn BufRead + Send)) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line)?;
    Ok(line.ends_with(b"\n").then_some(line))
}

/// Reads all of the input.
fn read_all(input: &mut (dyn BufRead + Send)) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    Ok(bytes)
}
