//! `quorate bench` on one of our own members: it does what it is asked to, finds no error where there is none, and
//! counts what there is. How fast anything is, is not looked at.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tests::address::own_address;
use tests::process::{Cluster, quorate};

/// Runs it with these words, and reads what it wrote.
fn bench(words: &str, directory: &Path) -> (Output, Value) {
    let json = directory.join("report.json");
    let output = Command::new(quorate())
        .arg("bench")
        .args(words.split_whitespace())
        .args(["--clients", "8", "--connections", "2", "--key-space", "600"])
        .arg("--json")
        .arg(&json)
        .arg("--html")
        .arg(directory.join("report.html"))
        .output()
        .unwrap();
    let text = std::fs::read_to_string(&json).unwrap_or_else(|_| {
        panic!("no report; it said:\n{}", String::from_utf8_lossy(&output.stderr))
    });
    (output, serde_json::from_str(&text).unwrap())
}

/// Every workload is answered as often as was asked, and every answer is what it must be.
#[tokio::test]
async fn every_workload_counts_what_it_did() {
    let mut cluster = Cluster::new(&[quorate()], &[]);
    let member = &mut cluster.members[0];
    member.start();
    member.wait_ready().await;
    let directory = tempfile::tempdir().unwrap();
    let workloads = [
        "put",
        "range",
        "range:serializable",
        "range:100",
        "page:500",
        "keys-only:100",
        "count",
        "txn-put",
        "mixed:50",
        "delete",
        "lease-grant",
        "keep-alive",
        "keep-alive-once",
        "watch:20",
    ];
    let words = format!("{} --total 600 --endpoints {}", workloads.join(" "), member.client_url());
    let (output, report) = bench(&words, directory.path());
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}");
    let series = report["series"].as_array().unwrap();
    assert_eq!(series.len(), workloads.len());
    for (series, workload) in series.iter().zip(workloads) {
        let median = &series["median"];
        assert_eq!(series["title"], workload);
        assert_eq!(median["operations"], 600.0, "{workload}");
        assert_eq!(median["errors"], serde_json::json!({}), "{workload}");
        assert!(median["p50_ms"].as_f64() <= median["p99_ms"].as_f64(), "{workload}");
        assert!(table.contains(workload), "{table}");
    }
    // What was written is there: one revision for each put that was counted, at the least.
    let status = member.status().await.unwrap();
    assert!(status.header.unwrap().revision > 600, "the puts have arrived");
    let page = std::fs::read_to_string(directory.path().join("report.html")).unwrap();
    assert!(page.ends_with("</body></html>\n"));
}

/// A server that it starts itself is measured from outside, too, and nothing of it is left behind.
#[test]
fn a_server_is_started_measured_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let binary = quorate();
    let words = format!(
        "put range --total 300 --warm-up 0s --rounds 2 --server one={0} --server two={0} --data-parent {1}",
        binary.display(),
        data.display()
    );
    let (output, report) = bench(&words, directory.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let series = report["series"].as_array().unwrap();
    let names: Vec<_> = series.iter().map(|s| (&s["title"], &s["server"])).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    for series in series {
        assert_eq!(series["rounds"].as_array().unwrap().len(), 2);
        assert_eq!(series["median"]["operations"], 300.0);
        assert!(series["median"]["resident_mib"].as_f64().unwrap() > 1.0);
        assert!(series["median"]["syncs"].is_number(), "our members tell their syncs");
    }
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0, "the members' directories are gone");
}

/// Nobody listens: it says so, counts what was not sent, and ends.
#[test]
fn a_dead_server_is_an_error_and_no_panic() {
    let directory = tempfile::tempdir().unwrap();
    let words = format!("put --duration 300ms --endpoints {}", own_address());
    let (output, report) = bench(&words, directory.path());
    assert_eq!(output.status.code(), Some(1));
    let median = &report["series"][0]["median"];
    assert_eq!(median["operations"], 0.0);
    let errors = median["errors"].as_object().unwrap();
    assert!(errors.keys().any(|error| error.starts_with("connect: ")), "{errors:?}");
}
