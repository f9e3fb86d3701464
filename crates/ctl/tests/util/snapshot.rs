//! `util snapshot`.

use std::path::PathBuf;

use super::{Said, good, member, unchanged, util};

fn made() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    member::make(dir.path());
    let file = dir.path().join("member/incoming").join(member::SNAPSHOT);
    (dir, file)
}

#[test]
fn the_status_has_etcdutls_shape() {
    let (_dir, file) = made();
    let bytes = std::fs::read(&file).unwrap();
    // The end chunk closes with the checksum of all records.
    let hash = u32::from_le_bytes(bytes[bytes.len() - 4..].try_into().unwrap());
    let size = bytes.len();
    assert!((10..1000).contains(&size), "the size below is in bytes");
    assert_eq!(good("snapshot status DIR", &file), format!("{hash:x}, 5, 1, {size} B, 3.7.0\n"));
    assert_eq!(
        good("snapshot status DIR -w json", &file),
        format!(
            "{{\"hash\":{hash},\"revision\":5,\"totalKey\":1,\"totalSize\":{size},\"version\":\"3.7.0\"}}\n"
        )
    );
    let table = good("snapshot status DIR --write-out=table", &file);
    let head = table.lines().nth(1).unwrap().split('│').map(str::trim).collect::<Vec<_>>();
    assert_eq!(head, ["", "HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION", ""]);
    assert!(table.contains("│ 3.7.0") || table.contains("3.7.0 │"), "{table}");
}

/// A file in place of the snapshot.
fn instead(name: &str, bytes: &[u8]) -> Said {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(name);
    std::fs::write(&file, bytes).unwrap();
    unchanged(dir.path(), || util("snapshot status DIR", &file))
}

#[test]
fn what_is_no_snapshot_is_called_by_its_name() {
    let mut bolt = vec![0; 8192 + 32];
    bolt[16..20].copy_from_slice(&0xed0c_daed_u32.to_le_bytes());
    bolt[24..28].copy_from_slice(&4096_u32.to_le_bytes());
    let saved = instead("db", &bolt);
    assert_eq!(saved.code, 4);
    assert!(saved.err.contains("pages of 4096 bytes") && saved.err.contains("cannot be read yet"));
    assert!(saved.err.contains("with the checksum"), "{}", saved.err);
    // The first page may be the one that is torn.
    bolt.copy_within(16..28, 4096 + 16);
    bolt[16] = 0;
    bolt.truncate(8192);
    let taken = instead("db", &bolt);
    assert_eq!(taken.code, 4);
    assert!(taken.err.contains("without the checksum"), "{}", taken.err);
    let (dir, _) = made();
    let read = |name: &str| std::fs::read(dir.path().join("member").join(name)).unwrap();
    let log = "0000000000000000-0000000000000000.wal";
    for (name, bytes, says) in [
        ("x", Vec::new(), "is empty"),
        ("x", vec![0; 5000], "begins with zeros"),
        ("x", b"plain text, and not short either".to_vec(), "no chunk begins here"),
        ("x", read("store/0000000000.segment"), "is a segment of a store"),
        ("x", read("store/MANIFEST"), "is a store's manifest"),
        (log, read(&format!("wal/{log}")), "is a file of a write-ahead log"),
    ] {
        let said = instead(name, &bytes);
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{says}: {}", said.err);
        assert!(said.err.contains(says), "{}", said.err);
    }
    let said = util("snapshot status DIR", dir.path());
    assert_eq!(said.code, 6, "{}", said.err);
}

#[test]
fn a_snapshot_that_is_not_whole_is_refused_wherever_it_ends() {
    let (_dir, file) = made();
    let bytes = std::fs::read(&file).unwrap();
    for len in 1..bytes.len() {
        let said = instead("x", &bytes[..len]);
        assert_eq!((said.code, said.out.as_str()), (1, ""), "cut at {len}");
        assert!(said.err.contains("damaged snapshot at byte"), "cut at {len}: {}", said.err);
    }
    let more = instead("x", &[&bytes[..], b"more"].concat());
    assert_eq!(more.code, 1);
    assert!(more.err.contains("something follows the end"), "{}", more.err);
}
