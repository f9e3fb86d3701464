//! Bytes that nobody wrote: whatever lies in the files, every command ends with an exit code and a sentence, within bounded
//! memory, and changes nothing. A panic fails the test by itself.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{LOOKS, member, unchanged, util};

/// The commands that read a file, each in one format: the formats differ in printing alone.
fn looks(file: &str) -> &'static [&'static str] {
    match file.split('/').nth(1).unwrap() {
        "wal" => &["wal dump DIR", "wal dump DIR -w hex", "wal status DIR"],
        "store" => {
            &["store dump DIR", "store dump DIR -w hex", "store status DIR", "store get DIR foo"]
        }
        _ => &["snapshot status FILE", "snapshot status FILE -w hex"],
    }
}

/// The files that are read, and how many bytes of them mean something.
fn files(dir: &Path) -> Vec<(String, usize)> {
    let names = [
        "member/wal/0000000000000000-0000000000000000.wal".to_owned(),
        "member/store/MANIFEST".to_owned(),
        "member/store/0000000000.segment".to_owned(),
        "member/store/0000000002.segment".to_owned(),
        format!("member/incoming/{}", member::SNAPSHOT),
    ];
    let used = |name: &String| {
        let bytes = std::fs::read(dir.join(name)).unwrap();
        bytes.len() - bytes.iter().rev().take_while(|&&byte| byte == 0).count()
    };
    names.into_iter().map(|name| (name.clone(), used(&name))).collect()
}

/// Looks at a damaged directory with every command that reads the file. Returns how many of them complained.
fn look(dir: &Path, file: &str, what: &str) -> usize {
    let mut complained = 0;
    for line in looks(file) {
        let path = match line.contains("FILE") {
            true => dir.join(file),
            false => dir.to_owned(),
        };
        let said = unchanged(dir, || util(&line.replace("FILE", "DIR"), &path));
        assert!([0, 1, 4, 6].contains(&said.code), "{line}, {file} {what}: {said:?}");
        assert_eq!(said.code == 0, said.err.is_empty(), "{line}, {file} {what}: {said:?}");
        complained += usize::from(said.code != 0);
    }
    complained
}

struct Corpus {
    dir: tempfile::TempDir,
    files: Vec<(String, usize)>,
}

impl Corpus {
    fn new() -> Corpus {
        let dir = tempfile::tempdir().unwrap();
        member::make(dir.path());
        let files = files(dir.path());
        Corpus { dir, files }
    }

    /// Replaces a file's bytes, looks, and puts the old ones back.
    fn with(&self, file: &str, bytes: &[u8], what: &str) -> usize {
        let path = self.dir.path().join(file);
        let before = std::fs::read(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        let complained = look(self.dir.path(), file, what);
        std::fs::write(&path, before).unwrap();
        complained
    }

    fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.dir.path().join(file)).unwrap()
    }
}

#[test]
fn files_that_end_too_early() {
    let corpus = Corpus::new();
    for (file, used) in &corpus.files {
        let bytes = corpus.read(file);
        for len in (0..*used).step_by(3) {
            let complained = corpus.with(file, &bytes[..len], &format!("cut at {len}"));
            // What ends at a frame's end is a shorter log or store, if nobody promised more; nothing else goes unseen.
            let is_silent_allowed = file.contains("/wal/") || file.ends_with("0000000002.segment");
            assert!(complained > 0 || is_silent_allowed, "{file} cut at {len}");
        }
    }
}

#[test]
fn bits_that_are_flipped() {
    let corpus = Corpus::new();
    for (file, used) in &corpus.files {
        let mut bytes = corpus.read(file);
        for at in 0..*used {
            // Every bit has its turn, the highest ones of lengths and kinds among them.
            if at % 2 == 1 && file.contains("/wal/") {
                continue;
            }
            let mask = 1 << (at % 8);
            bytes[at] ^= mask;
            corpus.with(file, &bytes, &format!("with bit {mask:x} of byte {at} flipped"));
            bytes[at] ^= mask;
        }
    }
}

#[test]
fn lengths_that_promise_too_much() {
    let corpus = Corpus::new();
    for (file, used) in &corpus.files {
        let bytes = corpus.read(file);
        for at in (0..used.saturating_sub(8)).step_by(5) {
            for huge in [&[0xff; 8][..], &[0xff, 0xff, 0xff, 0x7f], &[0, 0, 0, 0x80]] {
                let mut bytes = bytes.clone();
                bytes[at..at + huge.len()].copy_from_slice(huge);
                corpus.with(file, &bytes, &format!("with {huge:x?} at {at}"));
            }
        }
    }
}

#[test]
fn files_of_nothing_of_garbage_and_of_others() {
    let corpus = Corpus::new();
    let mut state = 1u64;
    let garbage: Vec<u8> = std::iter::repeat_with(|| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(5000)
    .collect();
    for (file, _) in &corpus.files {
        for (what, bytes) in [
            ("empty", Vec::new()),
            ("of zeros", vec![0; 4096]),
            ("of ones", vec![0xff; 4096]),
            ("of garbage", garbage.clone()),
            ("of text", b"{\"this\":\"is another kind of file\"}\n".repeat(40)),
        ] {
            assert!(corpus.with(file, &bytes, what) > 0, "{file} {what}");
        }
        for (other, _) in corpus.files.iter().filter(|(other, _)| other != file) {
            assert!(corpus.with(file, &corpus.read(other), other) > 0, "{file} is {other}");
        }
    }
}

#[test]
fn files_that_are_huge_take_no_memory() {
    let corpus = Corpus::new();
    for (file, used) in &corpus.files {
        let path = corpus.dir.path().join(file);
        let before = corpus.read(file);
        // Sparse: the length is only said.
        let handle = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        handle.set_len(1 << 30).unwrap();
        handle.write_all_at(&[0; 64], *used as u64).unwrap();
        let dir = corpus.dir.path();
        let line = looks(file)[looks(file).len() - 1];
        let target = if line.contains("FILE") { path.clone() } else { dir.to_owned() };
        let said = util(&line.replace("FILE", "DIR"), &target);
        assert!([0, 1].contains(&said.code), "{file}: {said:?}");
        drop(handle);
        std::fs::write(&path, before).unwrap();
    }
}

/// How a path can be something else than the file it should be.
#[test]
fn things_in_the_place_of_files() {
    for (file, _) in Corpus::new().files {
        for what in ["a directory", "a pipe", "a device", "a link to nowhere", "nothing"] {
            let corpus = Corpus::new();
            let path = corpus.dir.path().join(&file);
            std::fs::remove_file(&path).unwrap();
            match what {
                "a directory" => std::fs::create_dir(&path).unwrap(),
                "a pipe" => {
                    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
                    assert!(made.success());
                }
                "a device" => std::os::unix::fs::symlink("/dev/zero", &path).unwrap(),
                "a link to nowhere" => std::os::unix::fs::symlink("nowhere", &path).unwrap(),
                _ => {}
            }
            assert!(look(corpus.dir.path(), &file, what) > 0, "{file} is {what}");
        }
    }
}

#[test]
fn directories_in_which_nothing_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"not a directory").unwrap();
    let missing = dir.path().join("missing");
    let places: [(PathBuf, u8); 3] = [(dir.path().to_owned(), 1), (file, 6), (missing, 6)];
    for (place, code) in places {
        for line in LOOKS {
            let said = unchanged(dir.path(), || util(line, &place));
            assert_eq!((said.code, said.out.as_str()), (code, ""), "{line}: {said:?}");
            assert!(said.err.contains(&place.display().to_string()), "{line}: {said:?}");
        }
    }
    // A name that is no text.
    use std::os::unix::ffi::OsStrExt;
    let odd = dir.path().join(std::ffi::OsStr::from_bytes(b"\xff.wal"));
    std::fs::write(odd, b"").unwrap();
    for line in LOOKS {
        let said = unchanged(dir.path(), || util(line, dir.path()));
        assert!(said.code != 0 && said.out.is_empty(), "{line}: {said:?}");
    }
}
