//! The suites: whole sets of measurements, each a table of rows with targets.

pub mod growth;
pub mod work;

use crate::measure::Measured;
use crate::report::{Report, Row, Series, Verdict, number};
use crate::server::Binary;

/// Who is compared with whom: names that begin so are the reference; the best of them counts.
const REFERENCE: &str = "etcd";

/// What the servers of a suite are to each other.
pub struct Sides<'a> {
    /// Those that are compared with: called `etcd…`; if none is, the first.
    references: Vec<&'a str>,
    /// The one that has the targets: the first that is neither reference nor limit.
    subject: Option<&'a str>,
    /// Our own serving layer.
    limit: Option<&'a str>,
}

impl<'a> Sides<'a> {
    /// By the servers' names.
    pub fn of(servers: &'a [Binary]) -> Sides<'a> {
        let real = || servers.iter().filter(|binary| !binary.limit);
        let called = |binary: &&Binary| binary.name.starts_with(REFERENCE);
        let mut references: Vec<&str> = real().filter(called).map(|b| &*b.name).collect();
        if references.is_empty() {
            references.extend(real().map(|b| &*b.name).next());
        }
        let subject = real().map(|b| &*b.name).find(|name| !references.contains(name));
        let limit = servers.iter().find(|binary| binary.limit).map(|b| &*b.name);
        Sides { references, subject, limit }
    }

    /// The figures of a title: of each reference, of the subject, of the limit.
    pub fn figures(&self, report: &Report, title: &str) -> Figures {
        let of = |name: &str| {
            let is = |series: &&Series| series.title == title && series.server == name;
            report.series.iter().find(is).map(Series::median)
        };
        Figures {
            references: self.references.iter().filter_map(|name| of(name)).collect(),
            subject: self.subject.and_then(of),
            limit: self.limit.and_then(of),
        }
    }
}

/// What the sides showed.
pub struct Figures {
    /// The references.
    pub references: Vec<Measured>,
    /// The one that has the targets.
    pub subject: Option<Measured>,
    /// The limit.
    pub limit: Option<Measured>,
}

impl Figures {
    /// The highest rate of the references.
    pub fn reference_rate(&self) -> Option<f64> {
        self.references.iter().map(|m| m.rate).max_by(f64::total_cmp)
    }

    /// The lowest cost of the references.
    pub fn reference_cpu_us(&self) -> Option<f64> {
        self.references.iter().filter_map(|m| m.cpu_us).min_by(f64::total_cmp)
    }
}

/// A row for each workload: its cost is to be at most this part of the reference's.
pub fn cost_rows(sides: &Sides<'_>, report: &Report, at_most: f64) -> Vec<Row> {
    let row = |group: &[Series]| {
        let title = &group[0].title;
        let figures = sides.figures(report, title);
        let cost = |name: &String| {
            let cpu_us = group.iter().find(|series| series.server == *name)?.median().cpu_us?;
            Some(format!("{} µs", number(cpu_us)))
        };
        let subject = figures.subject.as_ref().and_then(|measured| measured.cpu_us);
        let (got, verdict) = match (subject, figures.reference_cpu_us()) {
            (Some(cpu_us), Some(of)) => (part(cpu_us, of), Verdict::of(cpu_us <= at_most * of)),
            // Nothing was shown, so nothing was reached.
            _ => ("–".to_owned(), Verdict::Missed),
        };
        Row {
            title: title.clone(),
            figures: report.servers.iter().map(|name| cost(name).unwrap_or("–".into())).collect(),
            target: format!("CPU ≤ {at_most}×"),
            got,
            verdict,
        }
    };
    report.groups().into_iter().map(row).collect()
}

/// A cost as a part of another: `1/6.3`.
pub fn part(cost: f64, of: f64) -> String {
    match cost > 0.0 {
        true => format!("1/{}", number(of / cost)),
        false => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_beyond_its_part_of_the_better_reference_is_missed() {
        let servers: Vec<Binary> =
            ["etcd-3.7=a", "etcd-3.6=b", "quorate=c"].map(|word| word.parse().unwrap()).into();
        let series = |server: &str, title: &str, cpu_us: Option<f64>| Series {
            server: server.to_owned(),
            title: title.to_owned(),
            how: String::new(),
            rounds: vec![Measured { cpu_us, ..Measured::default() }],
        };
        let report = Report {
            series: vec![
                series("etcd-3.7", "put", Some(100.0)),
                series("etcd-3.6", "put", Some(80.0)),
                series("quorate", "put", Some(40.0)),
                series("etcd-3.7", "range", Some(100.0)),
                series("quorate", "range", None),
            ],
            servers: servers.iter().map(|binary| binary.name.clone()).collect(),
            ..Report::default()
        };
        let judged = |part: f64| {
            let rows = cost_rows(&Sides::of(&servers), &report, part);
            rows.into_iter().map(|row| (row.title, row.got, row.verdict)).collect::<Vec<_>>()
        };
        let range = || ("range".to_owned(), "–".to_owned(), Verdict::Missed);
        let put = |verdict| ("put".to_owned(), "1/2.00".to_owned(), verdict);
        assert_eq!(judged(0.5), [put(Verdict::Reached), range()]);
        assert_eq!(judged(0.49), [put(Verdict::Missed), range()]);
    }

    #[test]
    fn sides_are_known_by_their_names() {
        let servers = |line: &str| -> Vec<Binary> {
            line.split(' ').map(|word| word.parse().unwrap()).collect()
        };
        let all = servers("etcd-3.7=a quorate=b etcd-3.6=c limit");
        let sides = Sides::of(&all);
        assert_eq!(sides.references, ["etcd-3.7", "etcd-3.6"]);
        assert_eq!((sides.subject, sides.limit), (Some("quorate"), Some("limit")));
        let two = servers("old=a new=b");
        let sides = Sides::of(&two);
        assert_eq!((sides.references, sides.subject), (vec!["old"], Some("new")));
        assert_eq!(part(10.0, 63.0), "1/6.30");
    }
}
