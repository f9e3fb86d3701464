//! The report as text, for a terminal.

use super::{Report, Series, number};
use crate::measure::Measured;

/// Errors of a series that are shown; the JSON has all.
const ERRORS_SHOWN: usize = 5;

/// A column: its heading, and what stands in it.
type Column = (&'static str, fn(&Measured) -> String);

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), number)
}

const COLUMNS: &[Column] = &[
    ("ops/s", |m| number(m.rate)),
    ("mean ms", |m| number(m.mean_ms)),
    ("p50", |m| number(m.p50_ms)),
    ("p90", |m| number(m.p90_ms)),
    ("p99", |m| number(m.p99_ms)),
    ("p99.9", |m| number(m.p999_ms)),
    ("max", |m| number(m.max_ms)),
];

/// What is known only of servers that were started here.
const INSIDE: &[Column] = &[
    ("CPU µs/op", |m| optional(m.cpu_us)),
    ("RSS MiB", |m| optional(m.resident_mib)),
    ("peak", |m| optional(m.resident_max_mib)),
    ("B/op", |m| optional(m.written_bytes)),
    ("syncs/op", |m| optional(m.syncs)),
];

/// Lays cells out in columns, the first to the left and the others to the right.
fn grid(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (place, cell) in row.iter().enumerate() {
            let length = cell.chars().count();
            match widths.get_mut(place) {
                Some(width) => *width = length.max(*width),
                None => widths.push(length),
            }
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (place, cell) in row.iter().enumerate() {
            let width = widths[place];
            match place {
                0 => line.push_str(&format!(" {cell:<width$}")),
                _ => line.push_str(&format!("  {cell:>width$}")),
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn group(series: &[Series], out: &mut String) {
    let Some(first) = series.first() else { return };
    let medians: Vec<Measured> = series.iter().map(Series::median).collect();
    let inside = medians.iter().any(|m| m.cpu_us.is_some());
    let compared = series.len() > 1;
    out.push_str(&format!("{} · {}\n", first.title, first.how));
    let mut heading = vec![String::new()];
    for (place, (name, _)) in COLUMNS.iter().enumerate() {
        heading.push((*name).to_owned());
        if place == 0 && compared {
            heading.push("×".to_owned());
        }
    }
    if inside {
        for (place, (name, _)) in INSIDE.iter().enumerate() {
            heading.push((*name).to_owned());
            if place == 0 && compared {
                heading.push("×".to_owned());
            }
        }
    }
    heading.push("own µs/op".to_owned());
    let mut rows = vec![heading];
    let ratio = |value: Option<f64>, first: Option<f64>| match (value, first) {
        (Some(value), Some(first)) if first > 0.0 => number(value / first),
        _ => "–".to_owned(),
    };
    for (series, measured) in series.iter().zip(&medians) {
        let mut row = vec![series.server.clone()];
        for (place, (_, cell)) in COLUMNS.iter().enumerate() {
            row.push(cell(measured));
            if place == 0 && compared {
                row.push(ratio(Some(measured.rate), Some(medians[0].rate)));
            }
        }
        if inside {
            for (place, (_, cell)) in INSIDE.iter().enumerate() {
                row.push(cell(measured));
                if place == 0 && compared {
                    row.push(ratio(measured.cpu_us, medians[0].cpu_us));
                }
            }
        }
        row.push(number(measured.own_cpu_us));
        rows.push(row);
    }
    out.push_str(&grid(&rows));
    for (series, measured) in series.iter().zip(&medians) {
        for (error, count) in measured.errors.iter().take(ERRORS_SHOWN) {
            out.push_str(&format!("    {} error {count} × {error}\n", series.server));
        }
        if let Some(more) = measured.errors.len().checked_sub(ERRORS_SHOWN + 1) {
            out.push_str(&format!("    {} and {} kinds more\n", series.server, more + 1));
        }
    }
    out.push('\n');
}

/// The whole report.
pub fn table(report: &Report) -> String {
    let mut out = String::new();
    for (name, text) in &report.about {
        out.push_str(&format!("{name}: {text}\n"));
    }
    out.push('\n');
    for series in report.groups() {
        group(series, &mut out);
    }
    if !report.rows.is_empty() {
        let mut rows = vec![vec![report.title.clone()]];
        rows[0].extend(report.servers.iter().cloned());
        rows[0].extend(["target", "got", ""].map(str::to_owned));
        for row in &report.rows {
            let mut cells = vec![row.title.clone()];
            cells.extend(row.figures.iter().cloned());
            cells.extend([row.target.clone(), row.got.clone(), row.verdict.word().to_owned()]);
            rows.push(cells);
        }
        out.push_str(&grid(&rows));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn the_table_is_aligned_and_has_ratios_errors_and_verdicts() {
        let wanted = "\
rounds: 1

put · 256 clients on 16 connections
            ops/s     ×  mean ms   p50   p90   p99  p99.9   max  CPU µs/op     ×  RSS MiB  peak  B/op  syncs/op  own µs/op
  etcd     15,000  1.00     10.0  9.00  12.0  20.0   30.0  40.0        100  1.00     50.0  60.0   700      0.02       5.00
  quorate  75,000  5.00     2.00  1.80  2.40  4.00   6.00  8.00       20.0  0.20     50.0  60.0   700      0.02       5.00
    etcd error 3 × Unavailable: <no leader>

  Work             etcd           quorate                target           got
  put   15,000/s 100 µs  75,000/s 20.0 µs  rate ≥ 4×, CPU ≤ 1/6  5.00×, 1/5.0  MISSED
";
        assert_eq!(table(&example()), wanted);
    }

    #[test]
    fn one_server_somewhere_has_neither_ratios_nor_costs() {
        let mut report = example();
        report.rows.clear();
        report.series.remove(0);
        report.series[0].server.clear();
        let round = &mut report.series[0].rounds[0];
        round.cpu_us = None;
        let text = table(&report);
        assert!(!text.contains('×') && !text.contains("CPU"), "{text}");
        assert!(text.contains("75,000"), "{text}");
    }
}
