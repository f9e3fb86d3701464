//! `util wal`.

use std::path::Path;

use super::{good, member, unchanged, util};

const FILE: &str = "0000000000000000-0000000000000000.wal";

/// The lines of a dump without file and offset.
fn dump(line: &str, dir: &Path) -> Vec<String> {
    let place = |line: &str| {
        line.split_once(FILE).unwrap().1.trim_start().split_once(' ').unwrap().1.to_owned()
    };
    good(line, dir).lines().map(place).collect()
}

#[test]
fn every_record_is_shown_with_what_it_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    member::make(dir.path());
    let shown = dump("wal dump DIR", dir.path());
    let records: Vec<_> = shown.iter().filter(|line| !line.starts_with("crc ")).collect();
    assert_eq!(
        records,
        [
            "metadata member=8e9e05c52164694d cluster=cdf818194e3a8c32",
            "snapshot index=0 term=0",
            concat!(
                "entry    index=1 term=1 conf-change 73 bytes: membership id=0 ",
                "steps [add node member=8e9e05c52164694d] ",
                r#"context="{\"id\":10276657743932975437,\"peerURLs\":[\"http://a:2380\"]}""#,
            ),
            "state    term=1 vote=8e9e05c52164694d commit=1",
            "entry    index=2 term=1 normal 0 bytes: nothing",
            "entry    index=3 term=1 normal 15 bytes: cluster version version=3.7.0",
            "entry    index=4 term=1 normal 11 bytes: lease grant id=7b ttl=60",
            "entry    index=5 term=1 normal 19 bytes: put foo=bar lease=7b",
            "state    term=1 vote=8e9e05c52164694d commit=4",
            "snapshot index=4 term=1 voters=8e9e05c52164694d",
            "entry    index=6 term=1 normal 32 bytes: txn if [compare foo mod = 2] then [put foo=baz] else []",
            r#"entry    index=7 term=1 normal 15 bytes: put fox="\x01""#,
            "entry    index=8 term=1 normal 12 bytes: delete fox",
            "entry    index=9 term=1 normal 9 bytes: compaction revision=3",
            "state    term=1 vote=8e9e05c52164694d commit=9",
        ]
    );
    // The head of the file, and before each write after a sync.
    assert_eq!(shown.len() - records.len(), 3);
}

#[test]
fn filters_choose_entries() {
    let dir = tempfile::tempdir().unwrap();
    member::make(dir.path());
    let indexes = |filter: &str| {
        let shown = dump(&format!("wal dump DIR {filter}"), dir.path());
        let index = |line: &String| {
            let (kind, rest) = line.split_once(char::is_whitespace).unwrap();
            let index = rest
                .trim_start()
                .strip_prefix("index=")
                .map(|rest| rest.split(' ').next().unwrap());
            format!("{}{}", &kind[..1], index.unwrap_or(""))
        };
        shown.iter().map(index).collect::<Vec<_>>().join(" ")
    };
    for (filter, chosen) in [
        ("--from 3 --to 5", "e3 e4 e5 s4"),
        ("--from=8", "e8 e9"),
        ("--to 0", "s0"),
        ("--kind snapshot", "s0 s4"),
        ("--kind entry --from 9", "e9"),
        ("--kind state", "s s s"),
        ("--key foo", "e5 e6"),
        ("--prefix fo", "e5 e6 e7 e8"),
        ("--prefix fo --from 6 --to 7", "e6 e7"),
        (r#"--key "f\x6fx""#, "e7 e8"),
        ("--key fo", ""),
        ("--rev 2", "e6"),
        ("--rev 3", "e9"),
        ("--rev 4", ""),
    ] {
        assert_eq!(indexes(filter), chosen, "{filter}");
    }
}

#[test]
fn programs_get_an_object_in_each_line() {
    let dir = tempfile::tempdir().unwrap();
    member::make(dir.path());
    let out = good("wal dump DIR -w json", dir.path());
    let lines: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), good("wal dump DIR", dir.path()).lines().count());
    // Each record begins where the one before it ends.
    let mut end = 0;
    for line in &lines {
        assert_eq!((line["file"].as_str(), line["offset"].as_u64()), (Some(FILE), Some(end)));
        end += line["bytes"].as_u64().unwrap();
    }
    let out = good("wal dump DIR -w json --key foo --to 5", dir.path());
    let (head, rest) = out.split_once(r#""kind""#).unwrap();
    assert!(head.starts_with(&format!(r#"{{"file":"{FILE}","offset":"#)), "{head}");
    assert_eq!(
        rest,
        concat!(
            r#":"entry","index":5,"term":1,"type":"normal","size":19,"#,
            r#""request":{"op":"put","key":"Zm9v","value":"YmFy","lease":123}}"#,
            "\n"
        )
    );
}

#[test]
fn the_status_is_that_which_a_start_finds() {
    let dir = tempfile::tempdir().unwrap();
    member::make(dir.path());
    let out = good("wal status DIR", dir.path());
    let (head, bytes) = out.split_once("bytes      ").unwrap();
    assert_eq!(
        head,
        "cluster    cdf818194e3a8c32\n\
         member     8e9e05c52164694d\n\
         entries    1 to 9, of term 1\n\
         state      term 1, vote 8e9e05c52164694d, commit 9\n\
         snapshot   index=4 term=1 voters=8e9e05c52164694d\n"
    );
    assert!(bytes.contains(&format!("used of 4096 in 1 files\nfile       {FILE}: ")), "{bytes}");
    let json: serde_json::Value =
        serde_json::from_str(&good("wal status DIR -w json", dir.path())).unwrap();
    assert_eq!(json["last"], 9);
    assert_eq!(json["commit"], 9);
    assert_eq!(json["member"], member::MEMBER);
    assert_eq!(json["snapshots"][0]["index"], 4);
    assert_eq!(json["files"][0]["name"], FILE);
    assert!(json.get("damage").is_none() && json.get("torn").is_none());
}

#[test]
fn a_torn_end_is_told_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    member::make(dir.path());
    let path = dir.path().join("member/wal").join(FILE);
    let bytes = std::fs::read(&path).unwrap();
    let used = bytes.len() - bytes.iter().rev().take_while(|&&byte| byte == 0).count();
    // A frame behind the end of which only the length word reached the disk.
    let at = used.next_multiple_of(8);
    let mut torn = bytes.clone();
    torn[at] = 0x50;
    std::fs::write(&path, &torn).unwrap();
    let said = unchanged(dir.path(), || util("wal status DIR", dir.path()));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(
        said.out.contains(&format!("at byte {at}: 1 bytes that a start cuts off")),
        "{}",
        said.out
    );
    let said = unchanged(dir.path(), || util("wal dump DIR --from 9", dir.path()));
    assert_eq!(said.code, 1);
    assert!(said.out.contains("damaged"), "{}", said.out);
}

#[test]
fn rot_is_told_with_all_that_was_found_before_it() {
    let dir = tempfile::tempdir().unwrap();
    member::make(dir.path());
    let path = dir.path().join("member/wal").join(FILE);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(3).position(|bytes| bytes == b"3.7").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let said = unchanged(dir.path(), || util("wal status DIR", dir.path()));
    assert_eq!((said.code, said.err.as_str()), (1, "Error: the log is damaged\n"));
    assert!(
        said.out.contains("entries    1 to 2") && said.out.contains("checksum"),
        "{}",
        said.out
    );
    // The dump goes on behind it.
    let said = unchanged(dir.path(), || util("wal dump DIR", dir.path()));
    assert_eq!(said.code, 1);
    assert!(said.out.contains("damaged  the checksum does not match"), "{}", said.out);
    assert!(said.out.contains("index=9"), "{}", said.out);
}
