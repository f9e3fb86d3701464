//! `quorate bench`: a load generator for etcd's API, and servers side by side under it.
//!
//! ```text
//!   flags ─▶ one load ────────────────▶ load ─▶ lanes ─▶ record ─▶ report (table, JSON, HTML)
//!       └──▶ servers: compare, suites ───▶ server (a process, afresh)      ▲
//!                                            usage (CPU, memory, writes) ──┘
//! ```
//!
//! It speaks gRPC over `h2` itself, for it is to cost less than what it measures; `client` is for what is asked
//! once: who leads, a compaction.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it measures the real time of real processes, over real sockets, and its threads generate the load"
)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod clock;
mod compare;
mod flags;
mod lane;
mod load;
mod measure;
mod pace;
mod random;
mod record;
mod report;
mod server;
mod socket;
mod suite;
mod usage;
mod wire;
mod workload;

use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;

use crate::compare::{Contest, Job};
use crate::flags::{Flags, Suite, address};
use crate::measure::{Filled, from_outside};
use crate::report::{Report, Series};
use crate::suite::Sides;

/// The command. It ends with 0 if nothing failed and no target was missed, with 1 if something was, and with 2 if it
/// is not understood.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let words = [OsString::from("quorate bench")].into_iter().chain(arguments);
    let flags = match Flags::try_parse_from(words) {
        Ok(flags) => flags,
        Err(error) => {
            // Whoever has stopped reading has seen enough.
            drop(error.print());
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let understood = flags.check().map_err(|why| (why, 2));
    match understood.and_then(|()| perform(&flags).map_err(|why| (why, 1))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err((why, code)) => {
            eprintln!("quorate bench: {why}");
            ExitCode::from(code)
        }
    }
}

/// Measures, and says what was seen; whether all was well.
fn perform(flags: &Flags) -> Result<bool, String> {
    let mut report = match (flags.suite, flags.servers.is_empty()) {
        (Some(Suite::Work), _) => suite::work::run(flags)?,
        (Some(Suite::Growth), _) => suite::growth::run(flags)?,
        (None, true) => somewhere(flags)?,
        (None, false) => side_by_side(flags)?,
    };
    report.about.splice(0..0, circumstances(flags));
    // Whoever has stopped reading has seen enough.
    drop(std::io::stdout().lock().write_all(report::table(&report).as_bytes()));
    if let Some(path) = &flags.json {
        let text = format!("{:#}\n", report::json(&report));
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if let Some(path) = &flags.html {
        let page = report::html(&report);
        std::fs::write(path, page).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(report.is_good())
}

/// On a cluster that runs already.
fn somewhere(flags: &Flags) -> Result<Report, String> {
    let endpoints = flags.endpoints.iter().map(|endpoint| address(endpoint));
    let endpoints: Vec<SocketAddr> = endpoints.collect::<Result<_, _>>()?;
    let mut filled = Filled::default();
    let mut report = Report { title: "Load".to_owned(), ..Report::default() };
    for workload in flags.all_workloads() {
        let job = job(flags, workload);
        let measured =
            from_outside(&job.load, flags.warm_up(), &mut filled, &endpoints, &job.title)?;
        report.series.push(Series {
            server: String::new(),
            how: job.how(),
            title: job.title,
            rounds: vec![measured],
        });
    }
    Ok(report)
}

/// On servers that are started for it.
fn side_by_side(flags: &Flags) -> Result<Report, String> {
    let jobs: Vec<Job> =
        flags.all_workloads().into_iter().map(|workload| job(flags, workload)).collect();
    let series = Contest::new(flags).run(&jobs)?;
    let mut report = Report { title: "Side by side".to_owned(), series, ..Report::default() };
    if let Some(part) = flags.cpu_within {
        report.servers = flags.servers.iter().map(|binary| binary.name.clone()).collect();
        report.rows = suite::cost_rows(&Sides::of(&flags.servers), &report, part);
    }
    Ok(report)
}

fn job(flags: &Flags, workload: workload::Workload) -> Job {
    let members = if flags.servers.is_empty() { 1 } else { flags.member_count() };
    Job { title: workload.to_string(), load: flags.load(workload), members, target: flags.target }
}

/// What a reader of the figures has to know.
fn circumstances(flags: &Flags) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut say = |name: &str, text: String| out.push((name.to_owned(), text));
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    say("processors", format!("{processors}, shared by servers and generator"));
    match flags.servers.is_empty() {
        true => say("endpoints", flags.endpoints.join(", ")),
        false => {
            for binary in &flags.servers {
                let command = [&[binary.program.display().to_string()], &binary.flags[..]].concat();
                say(&binary.name, command.join(" "));
            }
            say("rounds", format!("{}, interleaved; medians are shown", flags.rounds));
        }
    }
    let latency = match flags.rate {
        Some(_) => "from when each request was due, whatever the server did",
        None => "of a closed loop: a client asks when it has been answered",
    };
    say("latency", latency.to_owned());
    out
}
