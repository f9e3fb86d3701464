//! What the disk in memory forgets, refuses and lets a test decide.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vfs::memory::{Failure, Fate, Memory, OperationKind, Unsynced};
use vfs::{File, OpenMode, Vfs};

const EIO: i32 = 5;

fn path(name: &str) -> PathBuf {
    Path::new("/").join(name)
}

/// A disk with the file `f`, whose name and `synced` bytes are durable, and a handle on it.
fn disk_with(synced: &[u8]) -> (Memory, Arc<dyn File>) {
    let disk = Memory::with_sectors(1, 8);
    let file = disk.open(&path("f"), OpenMode::Create).unwrap();
    file.append(synced).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    (disk, file)
}

fn content(disk: &Memory, name: &str) -> Vec<u8> {
    let file = disk.open(&path(name), OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Tries every subset of what is pending, kept or lost, and gathers what `look` finds afterwards.
fn outcomes<T: Ord>(disk: &Memory, look: impl Fn(&Memory) -> T) -> BTreeSet<T> {
    let pending = disk.unsynced().len();
    let cut = |subset: u32| {
        let after = disk.fork();
        let mut bit = 0;
        after.power_cut_with(&mut |_| {
            bit += 1;
            if subset >> (bit - 1) & 1 == 1 { Fate::Kept } else { Fate::Lost }
        });
        look(&after)
    };
    (0..1 << pending).map(cut).collect()
}

/// Synced bytes survive every cut; of the others any sector may, and the length decides what of it is seen.
#[test]
fn unsynced_sectors_survive_in_any_combination() {
    let (disk, file) = disk_with(b"12345678");
    file.append(b"abcdefghABCDEFGH").unwrap();
    let found = outcomes(&disk, |disk| String::from_utf8(content(disk, "f")).unwrap());
    let zeros = "\0".repeat(8);
    let expected = [
        "12345678".to_owned(),
        format!("12345678{zeros}{zeros}"),
        format!("12345678abcdefgh{zeros}"),
        format!("12345678{zeros}ABCDEFGH"),
        "12345678abcdefghABCDEFGH".to_owned(),
    ];
    assert_eq!(found, BTreeSet::from(expected));
}

/// A sector may be torn within, or be as an earlier write left it.
#[test]
fn a_sector_is_torn_or_stale() {
    let (disk, file) = disk_with(b"........");
    file.write_at(b"ab", 0).unwrap();
    file.write_at(b"cd", 2).unwrap();
    let after = |fate: Fate| {
        let disk = disk.fork();
        disk.power_cut_with(&mut |_| fate);
        String::from_utf8(content(&disk, "f")).unwrap()
    };
    assert_eq!(after(Fate::Lost), "........");
    assert_eq!(after(Fate::Version(0)), "ab......");
    assert_eq!(after(Fate::Kept), "abcd....");
    assert_eq!(after(Fate::Torn(3)), "abc.....");
}

/// What was truncated away may be back after a cut, but only as it was, and not after a sync.
#[test]
fn a_truncation_is_pending_like_a_write() {
    let (disk, file) = disk_with(b"12345678abcdefgh");
    file.truncate(4).unwrap();
    file.preallocate(16).unwrap();
    let lost = disk.fork();
    lost.power_cut_with(&mut |_| Fate::Lost);
    assert_eq!(content(&lost, "f"), b"12345678abcdefgh");
    file.sync().unwrap();
    assert_eq!(disk.unsynced(), []);
    disk.power_cut(3);
    assert_eq!(content(&disk, "f"), b"1234\0\0\0\0\0\0\0\0\0\0\0\0");
}

/// Names are durable when their directory is synced; a rename leaves exactly one name, and needs the creation.
#[test]
fn names_survive_when_their_directory_was_synced() {
    let (disk, _file) = disk_with(b"x");
    disk.open(&path("t"), OpenMode::Create).unwrap();
    disk.rename(&path("f"), &path("g")).unwrap();
    disk.rename(&path("t"), &path("u")).unwrap();
    let found = outcomes(&disk, |disk| disk.list(Path::new("/")).unwrap().join(" "));
    let expected = ["f", "g", "f t", "g t", "f u", "g u"].map(str::to_owned);
    assert_eq!(found, BTreeSet::from(expected));
    disk.sync_dir(Path::new("/")).unwrap();
    disk.power_cut_with(&mut |_| Fate::Lost);
    assert_eq!(disk.list(Path::new("/")).unwrap(), ["g", "u"]);
}

/// A file in a directory whose own name was not synced goes with it.
#[test]
fn a_directory_that_was_lost_takes_its_files() {
    let disk = Memory::new(1);
    disk.create_dir_all(&path("a/b")).unwrap();
    disk.open(&path("a/b/f"), OpenMode::Create).unwrap();
    disk.sync_dir(&path("a/b")).unwrap();
    disk.sync_dir(&path("a")).unwrap();
    disk.power_cut_with(&mut |_| Fate::Lost);
    assert!(!disk.exists(&path("a")).unwrap());
}

/// A process that dies loses nothing that it wrote, but its handles and locks.
#[test]
fn a_crash_keeps_what_was_written() {
    let (disk, file) = disk_with(b"12");
    file.append(b"34").unwrap();
    let held = disk.lock(&path("lock")).unwrap();
    disk.crash();
    assert!(file.append(b"5").is_err());
    assert_eq!(content(&disk, "f"), b"1234");
    let _second = disk.lock(&path("lock")).unwrap();
    drop(held);
    let error = disk.lock(&path("lock")).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "a dead holder lets nothing go");
    assert!(!disk.unsynced().is_empty());
}

/// After a failed sync a second one proves nothing: the bytes are durable only when written anew.
#[test]
fn a_failed_sync_cannot_be_made_good() {
    let (disk, file) = disk_with(b"12345678");
    file.write_at(b"X", 0).unwrap();
    disk.fail(|op| op.kind == OperationKind::Sync && op.path == path("f"), 1, Failure::Errno(EIO));
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(EIO));
    file.sync().unwrap();
    let lost = disk.fork();
    lost.power_cut_with(&mut |_| Fate::Lost);
    assert_eq!(content(&lost, "f"), b"12345678");
    file.write_at(b"X", 0).unwrap();
    file.sync().unwrap();
    disk.power_cut_with(&mut |_| Fate::Lost);
    assert_eq!(content(&disk, "f"), b"X2345678");
}

/// Faults hit as often as ordered; a short write leaves its beginning; a full disk takes what fits.
#[test]
fn calls_fail_as_ordered() {
    let (disk, file) = disk_with(b"");
    disk.fail(|op| op.kind == OperationKind::Write, 1, Failure::Short(3, EIO));
    assert_eq!(file.append(b"abcdef").unwrap_err().raw_os_error(), Some(EIO));
    file.append(b"def").unwrap();
    assert_eq!(content(&disk, "f"), b"abcdef");

    disk.set_capacity(Some(8));
    let error = file.append(b"ghij").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(content(&disk, "f"), b"abcdefgh");
    assert_eq!(file.preallocate(9).unwrap_err().kind(), ErrorKind::StorageFull);
    file.write_at(b"A", 0).unwrap();
    disk.unlink(&path("f")).unwrap();
    assert_eq!(disk.used(), 0);
}

/// The world stops before the operation it was told, and goes on after the power was back.
#[test]
fn the_world_stops_at_an_operation() {
    let (disk, file) = disk_with(b"");
    let before = disk.operations();
    disk.stop_at(Some(before + 1));
    file.append(b"12345678").unwrap();
    assert!(file.sync().is_err());
    assert!(file.append(b"x").is_err());
    assert!(disk.list(Path::new("/")).is_err());
    assert_eq!(disk.operations(), before + 1);
    disk.power_cut_with(&mut |_| Fate::Kept);
    assert_eq!(content(&disk, "f"), b"12345678");
}

/// The same seed decides the same; different seeds reach different disks.
#[test]
fn a_seed_decides_a_power_cut() {
    let (disk, file) = disk_with(b"");
    file.append(&[1; 200]).unwrap();
    let after = |seed: u64| {
        let disk = disk.fork();
        disk.power_cut(seed);
        content(&disk, "f")
    };
    let all: BTreeSet<Vec<u8>> = (0..64).map(after).collect();
    assert!(all.len() > 10, "{} different disks", all.len());
    assert!((0..64).all(|seed| after(seed) == after(seed)));
}

/// The hook sees each operation with nothing locked, and may use the disk itself.
#[test]
fn a_hook_sees_every_operation() {
    let (disk, file) = disk_with(b"");
    let written = Arc::new(AtomicU64::new(0));
    let (seen, inner) = (written.clone(), disk.clone());
    disk.set_hook(Some(Arc::new(move |op| {
        if op.kind == OperationKind::Write {
            seen.fetch_add(op.len as u64, Ordering::Relaxed);
            assert_eq!(op.path, path("f"));
            assert!(inner.used() < 100);
        }
    })));
    file.append(b"12345").unwrap();
    file.append_vectored(&[b"6", b"78"]).unwrap();
    assert_eq!(written.load(Ordering::Relaxed), 8);
    let sector = Unsynced::Sector { path: path("f"), sector: 0, versions: 3 };
    assert!(disk.unsynced().contains(&sector), "{:?}", disk.unsynced());
}
