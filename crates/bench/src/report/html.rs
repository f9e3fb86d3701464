//! The report as one page that needs nothing else: the suite's table, and plots of each workload.

use super::plot::{Axis, COLOURS, Line, bars, escape, lines};
use super::{Report, Series, Verdict, number};
use crate::measure::Measured;
use crate::record::{SLICE, Slice};

const STYLE: &str = "\
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1200px;padding:0 1rem;color:#222;background:#fff}\
h1,h2{font-weight:600}h2{margin-top:2.2rem;border-top:1px solid #ddd;padding-top:1rem}h2 small{font-weight:400;color:#666}\
table{border-collapse:collapse;margin:1rem 0}th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #eee}\
th:first-child,td:first-child{text-align:left}.missed{color:#b00020;font-weight:600}.reached{color:#00695c}\
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(420px,1fr));gap:1rem}figure{margin:0}\
figcaption{font-weight:600;font-size:.9rem}svg{width:100%;height:auto}svg text{font-size:11px;fill:#444}.grid{stroke:#e4e4e4}\
.key span{display:inline-block;width:.8em;height:.8em;margin:0 .35em 0 1.2em}.error{color:#b00020}\
@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}svg text{fill:#bbb}.grid{stroke:#333}\
th,td{border-color:#333}h2{border-color:#333}.missed,.error{color:#ff8a80}.reached{color:#80cbc4}}";

const PERCENTILES: [&str; 5] = ["p50", "p90", "p99", "p99.9", "max"];

fn percentiles(measured: &Measured) -> [f64; 5] {
    [measured.p50_ms, measured.p90_ms, measured.p99_ms, measured.p999_ms, measured.max_ms]
}

fn cells(kind: &str, cells: impl IntoIterator<Item = String>) -> String {
    let cells: String = cells.into_iter().map(|cell| format!("<{kind}>{cell}</{kind}>")).collect();
    format!("<tr>{cells}</tr>\n")
}

fn suite(report: &Report, out: &mut String) {
    out.push_str("<table>\n");
    let fixed = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let servers = report.servers.iter().map(|name| escape(name));
    let heading = fixed(&[""]).into_iter().chain(servers).chain(fixed(&["target", "got", ""]));
    out.push_str(&cells("th", heading));
    for row in &report.rows {
        let class = match row.verdict {
            Verdict::Reached => "reached",
            Verdict::Missed => "missed",
            Verdict::Open => "open",
        };
        let verdict = format!("<span class=\"{class}\">{}</span>", row.verdict.word());
        let figures = row.figures.iter().map(|figure| escape(figure));
        let ends = [escape(&row.target), escape(&row.got), verdict];
        out.push_str(&cells("td", [escape(&row.title)].into_iter().chain(figures).chain(ends)));
    }
    out.push_str("</table>\n");
}

fn curves(report: &Report, out: &mut String) {
    if report.curves.is_empty() {
        return;
    }
    key(report.servers.iter().map(String::as_str), out);
    out.push_str("<div class=\"plots\">\n");
    for curve in &report.curves {
        let drawn: Vec<Line<'_>> = curve
            .lines
            .iter()
            .map(|(name, points)| Line { name, points: points.clone() })
            .collect();
        let (across, up) =
            (Axis::logarithmic(&curve.size), Axis::logarithmic("µs of CPU for each"));
        out.push_str(&lines(&curve.title, &across, &up, &drawn));
    }
    out.push_str("</div>\n");
}

/// Which colour is whose.
fn key<'a>(names: impl Iterator<Item = &'a str>, out: &mut String) {
    out.push_str("<p class=\"key\">");
    for (place, name) in names.enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        out.push_str(&format!("<span style=\"background:{colour}\"></span>{}", escape(name)));
    }
    out.push_str("</p>\n");
}

fn group(series: &[Series], out: &mut String) {
    let Some(first) = series.first() else { return };
    let medians: Vec<Measured> = series.iter().map(Series::median).collect();
    let name = |series: &Series| match series.server.is_empty() {
        true => "the cluster".to_owned(),
        false => series.server.clone(),
    };
    let names: Vec<String> = series.iter().map(name).collect();
    out.push_str(&format!(
        "<h2>{} <small>{}</small></h2>\n",
        escape(&first.title),
        escape(&first.how)
    ));
    key(names.iter().map(String::as_str), out);
    out.push_str("<div class=\"plots\">\n");
    let bar = |of: fn(&Measured) -> f64| -> Vec<(&str, f64)> {
        names.iter().map(String::as_str).zip(medians.iter().map(of)).collect()
    };
    out.push_str(&bars("Rate", "/s", &bar(|m| m.rate)));
    if medians.iter().any(|m| m.cpu_us.is_some()) {
        let title = "Server's processor time for each operation";
        out.push_str(&bars(title, "µs", &bar(|m| m.cpu_us.unwrap_or(0.0))));
    }
    let over_time = |of: fn(&Slice) -> f64| -> Vec<Line<'_>> {
        let second = |place: usize| place as f64 * SLICE.as_secs_f64();
        let points = |measured: &Measured| {
            let slices = measured.slices.iter().enumerate();
            slices.map(|(place, slice)| (second(place), of(slice))).collect()
        };
        let lines = names.iter().zip(&medians);
        lines.map(|(name, measured)| Line { name, points: points(measured) }).collect()
    };
    let rates = over_time(|slice| slice.operations as f64 / SLICE.as_secs_f64());
    out.push_str(&lines(
        "Throughput over time",
        &Axis::linear("s"),
        &Axis::linear("operations a second"),
        &rates,
    ));
    let longest = over_time(|slice| slice.longest_ns as f64 / 1e6);
    let ms = Axis::logarithmic("ms");
    out.push_str(&lines("Longest latency over time", &Axis::linear("s"), &ms, &longest));
    let latencies: Vec<Line<'_>> = names
        .iter()
        .zip(&medians)
        .map(|(name, measured)| {
            let points = percentiles(measured).into_iter().enumerate();
            Line { name, points: points.map(|(place, ms)| (place as f64, ms)).collect() }
        })
        .collect();
    let across = Axis { label: "", logarithmic: false, names: &PERCENTILES };
    out.push_str(&lines("Latency", &across, &ms, &latencies));
    out.push_str("</div>\n<table>\n");
    let heading = ["", "rate/s", "mean ms"]
        .into_iter()
        .chain(PERCENTILES)
        .chain(["CPU µs", "RSS MiB", "B/op", "syncs/op"]);
    out.push_str(&cells("th", heading.map(str::to_owned)));
    for (name, m) in names.iter().zip(&medians) {
        let optional = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), number);
        let figures = [m.rate, m.mean_ms].into_iter().chain(percentiles(m)).map(number);
        let inside = [m.cpu_us, m.resident_mib, m.written_bytes, m.syncs].map(optional);
        out.push_str(&cells("td", [escape(name)].into_iter().chain(figures).chain(inside)));
    }
    out.push_str("</table>\n");
    for (name, measured) in names.iter().zip(&medians) {
        for (error, count) in &measured.errors {
            let line = format!("{name}: {count} × {error}");
            out.push_str(&format!("<p class=\"error\">{}</p>\n", escape(&line)));
        }
    }
}

/// The whole page.
pub fn html(report: &Report) -> String {
    let title = escape(&report.title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title>\n<style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n<p>"
    );
    let about =
        report.about.iter().map(|(name, text)| format!("{}: {}", escape(name), escape(text)));
    out.push_str(&about.collect::<Vec<_>>().join("<br>\n"));
    out.push_str("</p>\n");
    if !report.rows.is_empty() {
        suite(report, &mut out);
    }
    curves(report, &mut out);
    for series in report.groups() {
        group(series, &mut out);
    }
    out.push_str("</body></html>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn the_page_stands_alone_and_shows_everything() {
        let page = html(&example());
        for foreign in ["http:", "https:", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert_eq!(page.matches("<svg").count(), 5);
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert!(
            page.contains("etcd: 3 × Unavailable: &lt;no leader&gt;"),
            "errors are shown, and are no markup"
        );
        assert!(page.contains("<span class=\"missed\">MISSED</span>"));
        assert!(page.contains("75,000 /s") && page.contains("20.0 µs"));
    }
}
