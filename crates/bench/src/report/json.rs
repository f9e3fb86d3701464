//! The report as JSON, for programs: every round, not only the medians.

use serde_json::{Map, Value, json};

use super::{Report, Series};
use crate::measure::{FIGURES, Measured};
use crate::record::SLICE;

fn measured(measured: &Measured) -> Value {
    let mut out = Map::new();
    for figure in FIGURES {
        if let Some(value) = (figure.value)(measured) {
            out.insert(figure.key.to_owned(), json!(value));
        }
    }
    let errors: Map<String, Value> =
        measured.errors.iter().map(|(error, count)| (error.clone(), json!(count))).collect();
    out.insert("errors".to_owned(), errors.into());
    let operations: Vec<u64> = measured.slices.iter().map(|slice| slice.operations).collect();
    let longest: Vec<f64> =
        measured.slices.iter().map(|slice| slice.longest_ns as f64 / 1e6).collect();
    out.insert("slice_operations".to_owned(), json!(operations));
    out.insert("slice_longest_ms".to_owned(), json!(longest));
    out.into()
}

fn series(series: &Series) -> Value {
    json!({
        "server": series.server,
        "title": series.title,
        "how": series.how,
        "median": measured(&series.median()),
        "rounds": series.rounds.iter().map(measured).collect::<Vec<_>>(),
    })
}

/// The whole report.
pub fn json(report: &Report) -> Value {
    let about: Map<String, Value> =
        report.about.iter().map(|(name, text)| (name.clone(), json!(text))).collect();
    let rows = report.rows.iter().map(|row| {
        json!({
            "title": row.title,
            "figures": row.figures,
            "target": row.target,
            "got": row.got,
            "verdict": row.verdict.word(),
        })
    });
    json!({
        "title": report.title,
        "about": about,
        "slice_seconds": SLICE.as_secs_f64(),
        "servers": report.servers,
        "rows": rows.collect::<Vec<_>>(),
        "series": report.series.iter().map(series).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn every_figure_of_every_round_is_there() {
        let json = json(&example());
        assert_eq!(json["series"][1]["server"], "quorate");
        assert_eq!(json["series"][1]["rounds"][0]["rate"], 75_000.0);
        assert_eq!(json["series"][1]["median"]["cpu_us"], 20.0);
        assert_eq!(json["series"][0]["median"]["errors"]["Unavailable: <no leader>"], 3);
        assert_eq!(json["series"][0]["rounds"][0]["slice_operations"][9], 1500);
        assert_eq!(json["rows"][0]["verdict"], "MISSED");
        for figure in FIGURES {
            assert!(json["series"][0]["median"][figure.key].is_number(), "{}", figure.key);
        }
    }
}
