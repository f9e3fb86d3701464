//! What both implementors promise, checked on each by the same scenarios.

#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::path::Path;

use vfs::memory::Memory;
use vfs::os::Os;
use vfs::{OpenMode, Vfs};

/// Runs a scenario on the operating system and in memory.
fn on_both(scenario: fn(&dyn Vfs, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    scenario(&Os, dir.path());
    let memory = Memory::new(1);
    memory.create_dir_all(Path::new("/tmp")).unwrap();
    scenario(&memory, Path::new("/tmp"));
}

/// Bytes go where they were sent, gaps and preallocated space read as zeros, and the end is the end.
#[test]
fn a_file_holds_what_was_written() {
    on_both(|vfs, dir| {
        let file = vfs.open(&dir.join("f"), OpenMode::Create).unwrap();
        assert!(file.is_empty().unwrap());
        file.append(b"hello ").unwrap();
        file.append_vectored(&[b"wor", b"", b"ld"]).unwrap();
        file.write_at(b"J", 0).unwrap();
        file.write_at(b"!", 1000).unwrap();
        let mut all = vec![1; 1100];
        assert_eq!(file.read_at(&mut all, 0).unwrap(), 1001);
        assert_eq!(&all[..11], b"Jello world");
        assert!(all[11..1000].iter().all(|&b| b == 0));
        assert_eq!(all[1000], b'!');

        file.truncate(5).unwrap();
        file.preallocate(2000).unwrap();
        file.preallocate(10).unwrap();
        assert_eq!(file.len().unwrap(), 2000);
        let mut all = vec![1; 2000];
        file.read_exact_at(&mut all, 0).unwrap();
        assert_eq!(&all[..5], b"Jello");
        assert!(all[5..].iter().all(|&b| b == 0), "what was cut off must not come back");
        assert_eq!(file.read_at(&mut all, 2000).unwrap(), 0);
        let error = file.read_exact_at(&mut all, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        file.sync().unwrap();
    });
}

/// What a moment ago was written is cached, so reading it now gives all of it, or nothing where that is not
/// to be known.
#[test]
fn read_now_gives_all_or_nothing() {
    on_both(|vfs, dir| {
        let file = vfs.open(&dir.join("f"), OpenMode::Create).unwrap();
        file.append(&[7; 10_000]).unwrap();
        let mut bytes = vec![0; 8_000];
        if let Some(n) = file.read_now(&mut bytes, 100).unwrap() {
            assert_eq!((n, bytes[0], bytes[7_999]), (8_000, 7, 7));
        }
        if let Some(n) = file.read_now(&mut bytes, 9_000).unwrap() {
            assert_eq!(n, 1_000);
        }
    });
}

/// Names: created once, listed sorted, moved over others, gone; each refusal with its kind.
#[test]
fn names_come_and_go() {
    on_both(|vfs, dir| {
        let kind =
            |result: std::io::Result<std::sync::Arc<dyn vfs::File>>| result.err().unwrap().kind();
        vfs.create_dir_all(&dir.join("a/b")).unwrap();
        vfs.create_dir_all(&dir.join("a/b")).unwrap();
        let b = dir.join("a/b");
        vfs.open(&b.join("z"), OpenMode::Create).unwrap().append(b"z").unwrap();
        vfs.open(&b.join("y"), OpenMode::Create).unwrap();
        assert_eq!(kind(vfs.open(&b.join("y"), OpenMode::Create)), ErrorKind::AlreadyExists);
        assert_eq!(kind(vfs.open(&b.join("x"), OpenMode::Write)), ErrorKind::NotFound);
        assert_eq!(kind(vfs.open(&b, OpenMode::Read)), ErrorKind::IsADirectory);
        assert_eq!(kind(vfs.open(&dir.join("n/x"), OpenMode::Create)), ErrorKind::NotFound);
        assert_eq!(vfs.list(&b).unwrap(), ["y", "z"]);

        vfs.rename(&b.join("z"), &b.join("y")).unwrap();
        assert_eq!(vfs.list(&b).unwrap(), ["y"]);
        assert_eq!(vfs.open(&b.join("y"), OpenMode::Read).unwrap().len().unwrap(), 1);
        vfs.rename(&b, &dir.join("c")).unwrap();
        assert!(!vfs.exists(&b).unwrap());
        assert!(vfs.exists(&dir.join("c/y")).unwrap());
        vfs.sync_dir(&dir.join("c")).unwrap();
        vfs.sync_dir(dir).unwrap();

        vfs.unlink(&dir.join("c/y")).unwrap();
        assert_eq!(vfs.unlink(&dir.join("c/y")).unwrap_err().kind(), ErrorKind::NotFound);
        vfs.open(&dir.join("c/w"), OpenMode::Create).unwrap();
        vfs.remove_dir_all(&dir.join("c")).unwrap();
        assert!(!vfs.exists(&dir.join("c")).unwrap());
        assert_eq!(vfs.list(&dir.join("c")).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

/// A reader goes on with a file whose name is gone.
#[test]
fn a_handle_outlives_its_name() {
    on_both(|vfs, dir| {
        let path = dir.join("f");
        vfs.open(&path, OpenMode::Create).unwrap().append(b"still here").unwrap();
        let reader = vfs.open(&path, OpenMode::Read).unwrap();
        assert!(reader.append(b"no").is_err(), "opened to read only");
        vfs.unlink(&path).unwrap();
        vfs.sync_dir(dir).unwrap();
        let mut bytes = [0; 10];
        reader.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"still here");
    });
}

/// Those who only look share the lock with each other, not with its holder, and do not make its file.
#[test]
fn a_shared_lock_keeps_the_holder_out() {
    on_both(|vfs, dir| {
        let path = dir.join("lock");
        assert_eq!(vfs.lock_shared(&path).err().unwrap().kind(), ErrorKind::NotFound);
        assert!(!vfs.exists(&path).unwrap());
        let held = vfs.lock(&path).unwrap();
        assert_eq!(vfs.lock_shared(&path).err().unwrap().kind(), ErrorKind::WouldBlock);
        drop(held);
        let (one, other) = (vfs.lock_shared(&path).unwrap(), vfs.lock_shared(&path).unwrap());
        drop(one);
        assert_eq!(vfs.lock(&path).err().unwrap().kind(), ErrorKind::WouldBlock);
        drop(other);
        drop(vfs.lock(&path).unwrap());
    });
}

/// A lock has one holder at a time, also within one process.
#[test]
fn a_lock_is_held_once() {
    on_both(|vfs, dir| {
        let path = dir.join("lock");
        let held = vfs.lock(&path).unwrap();
        assert_eq!(vfs.lock(&path).err().unwrap().kind(), ErrorKind::WouldBlock);
        drop(held);
        drop(vfs.lock(&path).unwrap());
    });
}

/// Only the owner may look into what we write.
#[test]
fn files_and_directories_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    Os.create_dir_all(&dir.path().join("d")).unwrap();
    Os.open(&dir.path().join("d/f"), OpenMode::Create).unwrap();
    let mode =
        |path: &str| std::fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("d"), mode("d/f")), (0o700, 0o600));
}
