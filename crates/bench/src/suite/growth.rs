//! The suite `growth`: what an operation costs when there is ten, a hundred, a thousand times as much of something.

use super::Sides;
use crate::compare::{Contest, Job};
use crate::flags::{Flags, Target};
use crate::load::Load;
use crate::report::{Curve, Report, Row, Verdict, number};

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Size {
    /// Keys that there are.
    Keys,
    /// Watchers of a key that nobody writes.
    Bystanders,
    /// Connections, with one client each.
    Connections,
    /// Bytes of a value.
    ValueBytes,
    /// Leases that there are.
    Leases,
}

impl Size {
    fn words(self) -> &'static str {
        match self {
            Size::Keys => "keys",
            Size::Bystanders => "watchers of another key",
            Size::Connections => "connections",
            Size::ValueBytes => "bytes of a value",
            Size::Leases => "leases",
        }
    }

    fn set(self, load: &mut Load, size: u64) {
        match self {
            Size::Keys => load.data.key_space = size,
            Size::Bystanders => load.bystanders = size,
            Size::Connections => (load.clients, load.connections) = (size as usize, size as usize),
            Size::ValueBytes => load.data.value_bytes = size as usize,
            Size::Leases => load.data.leases = size,
        }
    }
}

/// A row of the table: the work, what grows and how far, and within which factor of the first size the cost of an
/// operation is to stay.
struct Line {
    title: &'static str,
    workload: &'static str,
    size: Size,
    sizes: &'static [u64],
    within: Option<f64>,
    /// What it may cost at most at any size, in microseconds.
    below_us: Option<f64>,
}

const fn line(
    title: &'static str,
    workload: &'static str,
    size: Size,
    sizes: &'static [u64],
) -> Line {
    Line { title, workload, size, sizes, within: Some(1.5), below_us: None }
}

/// The table. Where keys grow, what reads stands before what writes: it has the keys made.
const LINES: &[Line] = &[
    line("put, as watchers grow", "put", Size::Bystanders, &[0, 1_000, 10_000, 100_000]),
    Line {
        within: None,
        ..line("put, as connections grow", "put", Size::Connections, &[1, 10, 100, 1_000])
    },
    Line {
        within: None,
        ..line("put, as values grow", "put", Size::ValueBytes, &[16, 256, 4_096, 65_536, 1 << 20])
    },
    line("keep-alive, as leases grow", "keep-alive", Size::Leases, &[1_000, 10_000, 100_000]),
    Line {
        within: Some(3.0),
        below_us: Some(100.0),
        ..line("count, as keys grow", "count", Size::Keys, &[1_000, 10_000, 100_000, 1_000_000])
    },
    line("page of 500, as keys grow", "page:500", Size::Keys, &[1_000, 10_000, 100_000, 1_000_000]),
    line("range, as keys grow", "range", Size::Keys, &[10_000, 100_000, 1_000_000, 10_000_000]),
    line("put, as keys grow", "put", Size::Keys, &[10_000, 100_000, 1_000_000, 10_000_000]),
];

fn title(line: &Line, size: u64) -> String {
    format!("{}: {size}", line.title)
}

/// The jobs of these lines, in an order in which a server that only ever gets more keys has the right number.
fn jobs(lines: &[&Line], flags: &Flags) -> Result<Vec<Job>, String> {
    let mut jobs = Vec::new();
    for line in lines {
        for size in line.sizes {
            let mut load = flags.load(line.workload.parse()?);
            line.size.set(&mut load, *size);
            let keys = if line.size == Size::Keys { *size } else { 0 };
            let job = Job { title: title(line, *size), load, members: 1, target: Target::All };
            jobs.push((keys, job));
        }
    }
    // Stable: what has the same number of keys stays in the table's order.
    jobs.sort_by_key(|(keys, _)| *keys);
    Ok(jobs.into_iter().map(|(_, job)| job).collect())
}

/// Measures it.
///
/// # Errors
/// If a server does not start, or cannot be filled.
pub fn run(flags: &Flags) -> Result<Report, String> {
    let lines: Vec<&Line> = LINES.iter().filter(|line| line.title.contains(&flags.only)).collect();
    let series = Contest::new(flags).run(&jobs(&lines, flags)?)?;
    let mut report = Report {
        title: "Growth".to_owned(),
        series,
        servers: flags.servers.iter().map(|binary| binary.name.clone()).collect(),
        ..Report::default()
    };
    report.curves = lines.iter().map(|line| curve(line, &report)).collect();
    let subject = Sides::of(&flags.servers).subject;
    report.rows =
        lines.iter().zip(&report.curves).map(|(line, curve)| row(line, curve, subject)).collect();
    Ok(report)
}

/// What an operation cost each server at each size.
fn curve(line: &Line, report: &Report) -> Curve {
    let cost = |server: &str, size: u64| {
        let wanted = title(line, size);
        let series = report.series.iter().find(|s| s.title == wanted && s.server == server)?;
        Some((size as f64, series.median().cpu_us?))
    };
    let lines = report.servers.iter().map(|server| {
        let points = line.sizes.iter().filter_map(|size| cost(server, *size)).collect();
        (server.clone(), points)
    });
    let lines = lines.collect();
    Curve { title: line.title.to_owned(), size: line.size.words().to_owned(), lines }
}

fn row(line: &Line, curve: &Curve, subject: Option<&str>) -> Row {
    let costs = |points: &[(f64, f64)]| match points.is_empty() {
        true => "–".to_owned(),
        false => {
            let costs: Vec<String> = points.iter().map(|(_, us)| number(*us)).collect();
            format!("{} µs", costs.join(" "))
        }
    };
    let mut target = Vec::new();
    target.extend(line.within.map(|factor| format!("within {factor}×")));
    target.extend(line.below_us.map(|us| format!("below {us} µs")));
    let of_subject = curve.lines.iter().find(|(name, _)| Some(name.as_str()) == subject);
    let points = of_subject.map_or(&[][..], |(_, points)| points);
    let (got, verdict) = match points {
        [(_, first), ..] if *first > 0.0 => {
            let greatest = points.iter().map(|point| point.1).fold(0.0, f64::max);
            let factor = greatest / first;
            let reached = line.within.is_none_or(|within| factor <= within)
                && line.below_us.is_none_or(|us| greatest < us);
            let verdict = if target.is_empty() { Verdict::Open } else { Verdict::of(reached) };
            (format!("{}×", number(factor)), verdict)
        }
        _ => ("–".to_owned(), Verdict::Open),
    };
    Row {
        title: line.title.to_owned(),
        figures: curve.lines.iter().map(|(_, points)| costs(points)).collect(),
        target: target.join(", "),
        got,
        verdict,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn keys_only_ever_grow_and_are_made_before_they_are_written() {
        let flags = Flags::try_parse_from(["x"]).unwrap();
        let jobs = jobs(&LINES.iter().collect::<Vec<_>>(), &flags).unwrap();
        assert_eq!(jobs.len(), LINES.iter().map(|line| line.sizes.len()).sum::<usize>());
        let grown = jobs.iter().filter(|job| job.title.contains("keys grow"));
        let keys: Vec<u64> = grown.map(|job| job.load.data.key_space).collect();
        assert!(keys.is_sorted(), "{keys:?}");
        let place = |title: &str| jobs.iter().position(|job| job.title == title).unwrap();
        assert!(place("range, as keys grow: 10000000") < place("put, as keys grow: 10000000"));
    }

    #[test]
    fn the_worst_size_is_judged() {
        let judged = |line: &Line, costs: &[f64]| {
            let points = costs.iter().enumerate().map(|(i, cost)| (i as f64, *cost)).collect();
            let lines = vec![("quorate".to_owned(), points)];
            let curve = Curve { title: String::new(), size: String::new(), lines };
            let row = row(line, &curve, Some("quorate"));
            (row.got, row.verdict)
        };
        let count = LINES.iter().find(|line| line.below_us.is_some()).unwrap();
        assert_eq!(judged(count, &[10.0, 30.0, 20.0]), ("3.00×".to_owned(), Verdict::Reached));
        assert_eq!(judged(count, &[10.0, 31.0]).1, Verdict::Missed);
        assert_eq!(judged(count, &[50.0, 100.0]).1, Verdict::Missed);
        assert_eq!(judged(count, &[]).1, Verdict::Open);
        let shown = LINES.iter().find(|line| line.within.is_none()).unwrap();
        assert_eq!(judged(shown, &[1.0, 100.0]).1, Verdict::Open);
    }
}
