//! What was measured, in order: series of rounds, and the rows of a suite with their verdicts.

mod html;
mod json;
mod plot;
mod table;

pub use html::html;
pub use json::json;
pub use table::table;

use crate::measure::Measured;

/// One workload on one server, in all rounds.
#[derive(Debug, Clone)]
pub struct Series {
    /// The server's name; empty if there is but one, somewhere.
    pub server: String,
    /// What was measured, in words.
    pub title: String,
    /// How: clients, connections, members.
    pub how: String,
    /// Each round, the oldest first; at least one.
    pub rounds: Vec<Measured>,
}

impl Series {
    /// The rounds' medians.
    pub fn median(&self) -> Measured {
        Measured::median(&self.rounds)
    }
}

/// Whether a target was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was.
    Reached,
    /// It was not.
    Missed,
    /// There is no target, or nothing to compare with.
    Open,
}

impl Verdict {
    /// Reached or missed.
    pub fn of(reached: bool) -> Verdict {
        if reached { Verdict::Reached } else { Verdict::Missed }
    }

    /// A word for it.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Reached => "reached",
            Verdict::Missed => "MISSED",
            Verdict::Open => "–",
        }
    }
}

/// One line of a suite's table.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was measured.
    pub title: String,
    /// A figure for each server, in the servers' order.
    pub figures: Vec<String>,
    /// What shall be reached.
    pub target: String,
    /// What was, in the target's terms.
    pub got: String,
    /// And whether that is it.
    pub verdict: Verdict,
}

/// How a figure grows with a size, on each server.
#[derive(Debug, Clone)]
pub struct Curve {
    /// What is done.
    pub title: String,
    /// What grows.
    pub size: String,
    /// Each server's name, and its figure at each size, in microseconds of processor time for each operation.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

/// Everything.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What it is a report of.
    pub title: String,
    /// The circumstances: name and text.
    pub about: Vec<(String, String)>,
    /// What was measured; the series of one title stand together, in the servers' order.
    pub series: Vec<Series>,
    /// The servers of the rows' figures.
    pub servers: Vec<String>,
    /// The suite's table.
    pub rows: Vec<Row>,
    /// What grows with what.
    pub curves: Vec<Curve>,
}

impl Report {
    /// The series of each title.
    pub fn groups(&self) -> Vec<&[Series]> {
        let same = |one: &Series, other: &Series| one.title == other.title && one.how == other.how;
        self.series.chunk_by(same).collect()
    }

    /// Whether nothing failed and no target was missed.
    pub fn is_good(&self) -> bool {
        let failures: u64 = self.series.iter().map(|series| series.median().failures()).sum();
        failures == 0 && self.rows.iter().all(|row| row.verdict != Verdict::Missed)
    }
}

/// A number with three digits that count, and no more.
pub fn number(value: f64) -> String {
    match value.abs() {
        big if big >= 1000.0 => {
            let digits = format!("{value:.0}");
            let mut out = String::new();
            for (place, digit) in digits.chars().enumerate() {
                let left = digits.len() - place;
                if place > 0 && left % 3 == 0 && !out.ends_with('-') {
                    out.push(',');
                }
                out.push(digit);
            }
            out
        }
        big if big >= 100.0 => format!("{value:.0}"),
        big if big >= 10.0 => format!("{value:.1}"),
        small if small >= 0.01 || small == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::record::Slice;

    /// Two servers, one workload, a suite's row: what the renderers' tests show.
    pub fn example() -> Report {
        let measured = |factor: f64| Measured {
            operations: 1000.0 * factor,
            seconds: 1.0,
            rate: 15_000.0 * factor,
            mean_ms: 10.0 / factor,
            p50_ms: 9.0 / factor,
            p90_ms: 12.0 / factor,
            p99_ms: 20.0 / factor,
            p999_ms: 30.0 / factor,
            max_ms: 40.0 / factor,
            own_cpu_us: 5.0,
            cpu_us: Some(100.0 / factor),
            resident_mib: Some(50.0),
            resident_max_mib: Some(60.0),
            written_bytes: Some(700.0),
            syncs: Some(0.02),
            errors: match factor > 1.0 {
                true => vec![],
                false => vec![("Unavailable: <no leader>".to_owned(), 3)],
            },
            slices: (1..=10)
                .map(|i| Slice {
                    operations: (i as f64 * 150.0 * factor) as u64,
                    longest_ns: i * 1_000_000,
                })
                .collect(),
        };
        let series = |server: &str, factor| Series {
            server: server.to_owned(),
            title: "put".to_owned(),
            how: "256 clients on 16 connections".to_owned(),
            rounds: vec![measured(factor)],
        };
        Report {
            title: "Work".to_owned(),
            about: vec![("rounds".to_owned(), "1".to_owned())],
            series: vec![series("etcd", 1.0), series("quorate", 5.0)],
            servers: vec!["etcd".to_owned(), "quorate".to_owned()],
            rows: vec![Row {
                title: "put".to_owned(),
                figures: vec!["15,000/s 100 µs".to_owned(), "75,000/s 20.0 µs".to_owned()],
                target: "rate ≥ 4×, CPU ≤ 1/6".to_owned(),
                got: "5.00×, 1/5.0".to_owned(),
                verdict: Verdict::Missed,
            }],
            curves: Vec::new(),
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        let cases = [
            (1234567.8, "1,234,568"),
            (999.6, "1000"),
            (123.4, "123"),
            (12.34, "12.3"),
            (1.234, "1.23"),
            (0.0123, "0.01"),
            (0.00123, "0.0012"),
            (0.0, "0.00"),
            (100_000.0, "100,000"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn an_error_or_a_missed_target_is_not_good() {
        let mut report = example();
        assert!(!report.is_good());
        report.rows.clear();
        assert!(!report.is_good());
        report.series.remove(0);
        assert!(report.is_good());
    }
}
