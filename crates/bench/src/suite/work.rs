//! The suite `work`: what each kind of request costs, and how many are answered.
//!
//! Two shapes of load, for servers gather their work by connection: `h` has 16 connections of 16 streams, `b` has
//! 1,000 clients on 100 connections, as etcd's own `benchmark` is usually run.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Figures, Sides, part};
use crate::compare::{Contest, Job};
use crate::flags::{Flags, Target};
use crate::report::{Report, Row, Verdict, number};
use crate::workload::Workload;

/// What is to be reached, beside the reference of the same run.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Goal {
    /// So many times its rate, at most this part of its processor time (1/6 is 6).
    Reference { rate: f64, cpu: f64 },
    /// At least this part of our own serving layer's rate (1/2.2 is 2.2), at most so many times its cost.
    Limit(f64),
    /// One client's put takes no longer on average than its range, one sync and [`HOPS_US`].
    OneClient,
    /// A figure that another row needs.
    Shown,
}

/// What a lone put may take beyond a range and a sync, in microseconds.
const HOPS_US: f64 = 80.0;
/// Syncs that are timed, and the bytes before each.
const SYNCS: (usize, usize) = (300, 512);

/// A row of the table.
struct Line {
    title: &'static str,
    workload: &'static str,
    clients: usize,
    connections: usize,
    members: usize,
    target: Target,
    goal: Goal,
}

const fn h(title: &'static str, workload: &'static str, rate: f64, cpu: f64) -> Line {
    let goal = Goal::Reference { rate, cpu };
    Line { title, workload, clients: 256, connections: 16, members: 1, target: Target::All, goal }
}

const fn b(title: &'static str, workload: &'static str, cpu: f64) -> Line {
    Line { clients: 1000, connections: 100, ..h(title, workload, 1.8, cpu) }
}

const fn three(line: Line, target: Target) -> Line {
    Line { members: 3, target, ..line }
}

const fn one(title: &'static str, workload: &'static str, goal: Goal) -> Line {
    Line { clients: 1, connections: 1, goal, ..h(title, workload, 0.0, 0.0) }
}

const PUT: &str = "put (h)";
const RANGE: &str = "range (h)";
const ONE_PUT: &str = "put, one client";
const ONE_RANGE: &str = "range, one client";

/// The table.
const LINES: &[Line] = &[
    h(PUT, "put", 4.0, 6.0),
    h(RANGE, "range", 4.0, 6.0),
    h("range serializable (h)", "range:serializable", 4.0, 6.0),
    h("range of 100 keys (h)", "range:100", 4.0, 5.0),
    h("page of 500 (h)", "page:500", 4.0, 5.0),
    b("put (b)", "put", 3.0),
    b("txn compare and put (b)", "txn-put", 3.0),
    b("range (b)", "range", 4.0),
    b("lease keep-alive (b)", "keep-alive-once", 4.0),
    h("watch, 100 watchers", "watch:100", 5.0, 5.0),
    h("watch, 10,000 watchers", "watch:10000", 5.0, 5.0),
    one(ONE_RANGE, "range", Goal::Shown),
    one(ONE_PUT, "put", Goal::OneClient),
    Line { goal: Goal::Limit(2.2), ..h("put beside the limit (h)", "put", 0.0, 0.0) },
    three(h("put, three members (h)", "put", 4.0, 6.0), Target::All),
    three(h("range through the leader (h)", "range", 4.0, 6.0), Target::Leader),
    three(h("range through a follower (h)", "range", 4.0, 6.0), Target::Follower),
];

/// Measures it.
///
/// # Errors
/// If a server does not start, or cannot be filled.
pub fn run(flags: &Flags) -> Result<Report, String> {
    let contest = Contest::new(flags);
    let lines: Vec<&Line> = LINES.iter().filter(|line| line.title.contains(&flags.only)).collect();
    let mut jobs = Vec::new();
    for line in &lines {
        let workload: Workload = line.workload.parse()?;
        let mut load = flags.load(workload);
        load.clients = line.clients;
        load.connections = line.connections;
        load.data.leases = line.clients as u64;
        // The row beside the limit is another look at the first one's figures.
        if !matches!(line.goal, Goal::Limit(_)) {
            jobs.push(Job {
                title: line.title.to_owned(),
                load,
                members: line.members,
                target: line.target,
            });
        }
    }
    let before_us = sync_us(flags.data_parent.as_deref())?;
    let series = contest.run(&jobs)?;
    let sync_us = (before_us + sync_us(flags.data_parent.as_deref())?) / 2.0;
    let mut report = Report {
        title: "Work".to_owned(),
        series,
        servers: flags.servers.iter().map(|binary| binary.name.clone()).collect(),
        ..Report::default()
    };
    report.about.push(("one sync of the disk".to_owned(), format!("{} µs", number(sync_us))));
    report.rows = lines.iter().map(|line| row(line, flags, &report, sync_us)).collect();
    Ok(report)
}

fn row(line: &Line, flags: &Flags, report: &Report, sync_us: f64) -> Row {
    let sides = Sides::of(&flags.servers);
    let title = if matches!(line.goal, Goal::Limit(_)) { PUT } else { line.title };
    let figure = |name: &String| {
        let series = report.series.iter().find(|s| s.title == title && s.server == *name);
        series.map_or_else(
            || "–".to_owned(),
            |series| {
                let measured = series.median();
                let cpu =
                    measured.cpu_us.map_or_else(String::new, |cpu| format!(" {} µs", number(cpu)));
                match line.clients {
                    1 => format!("{} ms{cpu}", number(measured.mean_ms)),
                    _ => format!("{}/s{cpu}", number(measured.rate)),
                }
            },
        )
    };
    let figures = report.servers.iter().map(figure).collect();
    let (target, got, verdict) = judge(line.goal, sides.figures(report, title), || {
        let range = sides.figures(report, ONE_RANGE).subject?;
        Some(range.mean_ms * 1e3 + sync_us + HOPS_US)
    });
    Row { title: line.title.to_owned(), figures, target, got, verdict }
}

/// What a goal asks for, what there was, and whether that is enough. `one_client_us` is what a lone put may take.
fn judge(
    goal: Goal,
    figures: Figures,
    one_client_us: impl FnOnce() -> Option<f64>,
) -> (String, String, Verdict) {
    let open = |target: String| (target, "–".to_owned(), Verdict::Open);
    match goal {
        Goal::Shown => open(String::new()),
        Goal::Reference { rate, cpu } => {
            let target = format!("rate ≥ {rate}×, CPU ≤ 1/{cpu}");
            let (Some(subject), Some(reference_rate), Some(reference_cpu)) =
                (&figures.subject, figures.reference_rate(), figures.reference_cpu_us())
            else {
                return open(target);
            };
            let Some(cpu_us) = subject.cpu_us else { return open(target) };
            let times = subject.rate / reference_rate.max(f64::MIN_POSITIVE);
            let got = format!("{}×, {}", number(times), part(cpu_us, reference_cpu));
            // The cost binds; a rate is a goal as far as generator and server share the processors.
            let reached = cpu_us * cpu <= reference_cpu;
            let rate_note = if times >= rate { "" } else { " (rate below)" };
            (target, got + rate_note, Verdict::of(reached))
        }
        Goal::Limit(factor) => {
            let target = format!("rate ≥ 1/{factor}, CPU ≤ {factor}×");
            let (Some(subject), Some(limit)) = (&figures.subject, &figures.limit) else {
                return open(target);
            };
            let (Some(cpu_us), Some(limit_us)) = (subject.cpu_us, limit.cpu_us) else {
                return open(target);
            };
            let times = cpu_us / limit_us.max(f64::MIN_POSITIVE);
            let got = format!("{}, {}×", part(subject.rate, limit.rate), number(times));
            let reached = subject.rate * factor >= limit.rate && times <= factor;
            (target, got, Verdict::of(reached))
        }
        Goal::OneClient => {
            let target = format!("mean ≤ range + sync + {HOPS_US:.0} µs");
            let (Some(subject), Some(allowed_us)) = (&figures.subject, one_client_us()) else {
                return open(target);
            };
            let mean_us = subject.mean_ms * 1e3;
            let got = format!("{} µs of {}", number(mean_us), number(allowed_us));
            (target, got, Verdict::of(mean_us <= allowed_us))
        }
    }
}

/// The mean time of one fdatasync behind a small append, on the disk that the servers use, in microseconds.
fn sync_us(parent: Option<&Path>) -> Result<f64, String> {
    let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
    let failed = |error: std::io::Error| format!("{}: {error}", parent.display());
    let mut file: File = tempfile::tempfile_in(&parent).map_err(failed)?;
    let (count, bytes) = SYNCS;
    let block = vec![0x5a; bytes];
    // Allocated before, as the log's files are, so that a sync is of data and not of the file's length.
    file.write_all(&vec![0; count * bytes]).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    std::io::Seek::rewind(&mut file).map_err(failed)?;
    let mut taken = Duration::ZERO;
    for _ in 0..count {
        file.write_all(&block).map_err(failed)?;
        let began = Instant::now();
        file.sync_data().map_err(failed)?;
        taken += began.elapsed();
    }
    Ok(taken.as_secs_f64() * 1e6 / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Measured;

    fn measured(rate: f64, cpu_us: f64) -> Measured {
        Measured { rate, cpu_us: Some(cpu_us), mean_ms: 1e3 / rate, ..Measured::default() }
    }

    fn figures(
        references: &[(f64, f64)],
        subject: (f64, f64),
        limit: Option<(f64, f64)>,
    ) -> Figures {
        Figures {
            references: references.iter().map(|(rate, cpu)| measured(*rate, *cpu)).collect(),
            subject: Some(measured(subject.0, subject.1)),
            limit: limit.map(|(rate, cpu)| measured(rate, cpu)),
        }
    }

    #[test]
    fn every_line_is_a_load() {
        for line in LINES {
            assert!(line.workload.parse::<Workload>().is_ok(), "{}", line.title);
            assert_eq!(LINES.iter().filter(|other| other.title == line.title).count(), 1);
        }
        for needed in [PUT, ONE_RANGE, ONE_PUT, RANGE] {
            assert!(LINES.iter().any(|line| line.title == needed));
        }
    }

    #[test]
    fn the_better_of_two_references_counts_and_the_cost_binds() {
        let goal = Goal::Reference { rate: 4.0, cpu: 6.0 };
        let judged = |subject| {
            let (_, got, verdict) =
                judge(goal, figures(&[(10.0, 120.0), (12.0, 150.0)], subject, None), || None);
            (got, verdict)
        };
        assert_eq!(judged((60.0, 20.0)), ("5.00×, 1/6.00".to_owned(), Verdict::Reached));
        assert_eq!(judged((60.0, 20.1)), ("5.00×, 1/5.97".to_owned(), Verdict::Missed));
        assert_eq!(
            judged((36.0, 10.0)),
            ("3.00×, 1/12.0 (rate below)".to_owned(), Verdict::Reached)
        );
    }

    #[test]
    fn the_limit_and_the_lone_client_have_their_own_measure() {
        let beside = |subject| {
            judge(Goal::Limit(2.2), figures(&[], subject, Some((110.0, 10.0))), || None).2
        };
        assert_eq!(beside((50.0, 22.0)), Verdict::Reached);
        assert_eq!(beside((49.0, 22.0)), Verdict::Missed);
        assert_eq!(beside((50.0, 23.0)), Verdict::Missed);
        let lone = |allowed: f64| {
            judge(Goal::OneClient, figures(&[], (2000.0, 1.0), None), || Some(allowed)).2
        };
        assert_eq!((lone(500.0), lone(499.0)), (Verdict::Reached, Verdict::Missed));
        assert_eq!(
            judge(Goal::Limit(2.2), figures(&[], (1.0, 1.0), None), || None).2,
            Verdict::Open
        );
    }
}
