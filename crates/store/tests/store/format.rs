//! The bytes on disk are those that docs/format/store.md draws.

use crate::member::{Change, Member, Step, dir, new_disk};
use vfs::{OpenMode, Vfs};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// The example of the page: one entry that puts `k` = `v` and deletes it, and a row.
#[test]
fn the_worked_example() {
    let disk = new_disk(1);
    let mut member = Member::open(&disk).unwrap();
    member.entry(&[
        Change::Put("k", "v".into()),
        Change::Delete("k"),
        Change::Row(3, "r", "w".into()),
        Change::Compact,
    ]);
    member.step(&Step::Flush).unwrap();
    let file = disk.open(&dir().join("0000000000.segment"), OpenMode::Read).unwrap();
    let mut bytes = vec![0; 64 + 40 + 55];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let page = include_str!("../../../../docs/format/store.md");
    let mut drawn = String::new();
    for line in page.lines() {
        if let Some(line) = line.strip_prefix("  | ") {
            drawn.push_str(line.split("  ").next().unwrap());
            drawn.push(' ');
        }
    }
    assert_eq!(drawn.trim(), hex(&bytes), "the page's example must be these bytes");
}
