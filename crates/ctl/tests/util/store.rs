//! `util store`.

use std::path::Path;

use super::{good, member, unchanged, util};

/// The lines of a dump without file and offset.
fn dump(line: &str, dir: &Path) -> Vec<String> {
    let contents = |line: &str| {
        let (_, rest) = line.split_once(".segment").unwrap();
        let (_, rest) = rest.trim_start().split_once(' ').unwrap_or_default();
        rest.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    good(line, dir).lines().map(contents).collect()
}

#[test]
fn every_frame_and_record_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    member::make(dir.path());
    let shown = dump("store dump DIR", dir.path());
    let is_sized = |line: &&String| !line.starts_with("segment") && !line.starts_with("frame");
    assert_eq!(
        shown.iter().filter(is_sized).collect::<Vec<_>>(),
        [
            r#"row index=1 members: member 8e9e05c52164694d "" peers http://a:2380"#,
            "row index=1 conf state: voters 8e9e05c52164694d",
            "row index=3 cluster: cluster version 3.7.0",
            "row index=4 leases: lease 7b of 60 s",
            "put foo=bar rev=2.0 create=2 version=1 lease=7b",
            "trailer index=5 term=1 rev=2 compacted=0, 5 rows in 1 blocks",
            "put foo=baz rev=3.0 create=2 version=2",
            r#"put fox="\x01" rev=4.0 create=4 version=1"#,
            "delete fox rev=5.0",
            "compact rev=3",
            "end",
        ]
    );
    let frames: Vec<_> = shown.iter().filter(|line| line.starts_with("frame")).collect();
    assert!(frames[0].starts_with("frame index=5 term=1 5 records"), "{frames:?}");
    assert!(frames[1].starts_with("frame index=9 term=1 4 records"), "{frames:?}");
}

#[test]
fn filters_choose_records() {
    let dir = tempfile::tempdir().unwrap();
    member::make(dir.path());
    let chosen = |filter: &str| {
        let shown = dump(&format!("store dump DIR {filter}"), dir.path());
        let words = |line: &String| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        shown.iter().map(words).collect::<Vec<_>>().join(", ")
    };
    for (filter, records) in [
        ("--key foo", "put foo=bar, put foo=baz"),
        ("--prefix fo --rev 4", "put fox=\"\\x01\""),
        ("--rev 5", "delete fox"),
        ("--rev 3", "put foo=baz, compact rev=3"),
        ("--table 1", "row index=4"),
        ("--table 7", ""),
        ("--from 4 --to 4", "row index=4, put foo=bar"),
        ("--from 6 --key fox", "put fox=\"\\x01\", delete fox"),
    ] {
        assert_eq!(chosen(filter), records, "{filter}");
    }
}

#[test]
fn programs_get_an_object_in_each_line() {
    let dir = tempfile::tempdir().unwrap();
    member::make(dir.path());
    let out = good("store dump DIR -w json", dir.path());
    let lines: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).collect::<Vec<_>>();
    assert_eq!(of("segment").len(), 2);
    assert_eq!(of("frame")[1]["index"], 9);
    let put = of("put")[0];
    assert_eq!((put["key"].as_str(), put["value"].as_str()), (Some("Zm9v"), Some("YmFy")));
    assert_eq!((put["revision"].as_i64(), put["lease"].as_i64()), (Some(2), Some(123)));
    assert_eq!(of("row")[3]["says"], "lease 7b of 60 s");
    assert_eq!(of("compact")[0]["revision"], 3);
}

#[test]
fn the_status_says_what_lives() {
    let dir = tempfile::tempdir().unwrap();
    member::make(dir.path());
    let out = good("store status DIR", dir.path());
    let (head, segments) = out.split_once("segment    ").unwrap();
    assert_eq!(
        head,
        "cluster    cdf818194e3a8c32\n\
         member     8e9e05c52164694d\n\
         manifest   generation 2, 1 sealed segments\n\
         applied    index 9, term 1\n\
         revision   5, compacted at 3\n\
         keys       1\n\
         rows       leases 1, members 1, cluster 1, conf state 1\n"
    );
    // foo=bar is compacted away; foo=baz, fox and its deletion lie above the mark or are the newest below it.
    assert!(segments.starts_with("0000000000.segment: sealed, "), "{segments}");
    assert!(segments.contains("1 frames, 5 records, 4 alive and 1 dead"), "{segments}");
    assert!(segments.contains("1 frames, 3 records, 3 alive and 0 dead"), "{segments}");
    assert!(segments.ends_with("beside     reserve\nbeside     spare\n"), "{segments}");
    let json: serde_json::Value =
        serde_json::from_str(&good("store status DIR -w json", dir.path())).unwrap();
    assert_eq!(json["index"], 9);
    assert_eq!(json["rows"]["leases"], 1);
    assert_eq!(json["segments"][0]["aliveRecords"], 4);
    assert_eq!(json["segments"][1]["sealed"], false);
    assert_eq!(json["damage"], serde_json::json!([]));
}

#[test]
fn a_key_is_read_as_of_any_revision_that_is_left() {
    let dir = tempfile::tempdir().unwrap();
    member::make(dir.path());
    let get = |arguments: &str| good(&format!("store get DIR {arguments}"), dir.path());
    assert_eq!(get("foo"), "foo=baz create=2 mod=3 version=2\n");
    assert_eq!(get("fo"), "");
    assert_eq!(get("fox"), "");
    assert_eq!(get("fox --rev 4"), "fox=\"\\x01\" create=4 mod=4 version=1\n");
    assert_eq!(get(r#""fo\x78" --rev 4"#), get("fox --rev 4"));
    assert_eq!(get("f --prefix --rev=4").lines().count(), 2);
    assert_eq!(
        get("foo -w json"),
        "{\"key\":\"Zm9v\",\"create_revision\":2,\"mod_revision\":3,\"version\":2,\"value\":\"YmF6\"}\n"
    );
    for (revision, says) in [
        ("2", "revision 2 is forgotten: the store is compacted at 3"),
        ("-1", "revision -1 is forgotten"),
        ("6", "revision 6 is to come: the store is at 5"),
    ] {
        let said = util(&format!("store get DIR foo --rev {revision}"), dir.path());
        assert_eq!((said.code, said.out.as_str()), (1, ""));
        assert!(said.err.contains(says), "{}", said.err);
    }
}

#[test]
fn damage_is_found_wherever_it_is_and_all_else_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    member::make(dir.path());
    let path = dir.path().join("member/store/0000000000.segment");
    let mut bytes = std::fs::read(&path).unwrap();
    // A value, which a start does not read.
    let at = bytes.windows(3).position(|bytes| bytes == b"bar").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let said = unchanged(dir.path(), || util("store status DIR", dir.path()));
    assert_eq!((said.code, said.err.as_str()), (1, "Error: the store is damaged\n"));
    assert!(
        said.out.contains("damage     ") && said.out.contains("a frame is damaged"),
        "{}",
        said.out
    );
    assert!(said.out.contains("revision   5, compacted at 3"), "{}", said.out);
    let said = unchanged(dir.path(), || util("store dump DIR", dir.path()));
    assert_eq!(said.code, 1);
    assert!(said.out.contains("damaged") && said.out.contains("delete     fox"), "{}", said.out);
    // What can be read can be asked for.
    assert_eq!(good("store get DIR foo", dir.path()), "foo=baz create=2 mod=3 version=2\n");
}

#[test]
fn a_torn_end_is_told_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    member::make(dir.path());
    let path = dir.path().join("member/store/0000000002.segment");
    let mut bytes = std::fs::read(&path).unwrap();
    let used = bytes.len() - bytes.iter().rev().take_while(|&&byte| byte == 0).count();
    bytes[used + 8] = 1;
    std::fs::write(&path, &bytes).unwrap();
    for line in ["store status DIR", "store dump DIR"] {
        let said = unchanged(dir.path(), || util(line, dir.path()));
        assert_eq!(said.code, 0, "{}", said.err);
        assert!(said.out.contains("bytes that a start cuts off"), "{}", said.out);
    }
}

#[test]
fn a_missing_segment_is_named() {
    let dir = tempfile::tempdir().unwrap();
    member::make(dir.path());
    std::fs::remove_file(dir.path().join("member/store/0000000000.segment")).unwrap();
    let said = unchanged(dir.path(), || util("store status DIR", dir.path()));
    assert_eq!(said.code, 1);
    assert!(said.err.contains("0000000000.segment is missing"), "{}", said.err);
    assert!(said.out.contains("generation 2"), "{}", said.out);
}
