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
    let run = |line: &&str| {
        let path = match line.contains("FILE") {
            true => dir.join(file),
            false => dir.to_owned(),
        };
        let said = util(&line.replace("FILE", "DIR"), &path);
        assert!([0, 1, 4, 6].contains(&said.code), "{line}, {file} {what}: {said:?}");
        assert_eq!(said.code == 0, said.err.is_empty(), "{line}, {file} {what}: {said:?}");
        said.code != 0
    };
    unchanged(dir, || looks(file).iter().filter(|line| run(line)).count())
}

/// Gives a file these bytes. Not by truncating it to nothing first: some file systems then write it to the disk at once,
/// and there are thousands.
fn put(path: &Path, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
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
        put(&path, bytes);
        let complained = look(self.dir.path(), file, what);
        put(&path, &before);
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

/// A log whose frames and checksums are right, whatever its records say.
fn log(records: &[(u64, Vec<u8>)]) -> Vec<u8> {
    fn varint(mut number: u64, out: &mut Vec<u8>) {
        while number >= 0x80 {
            out.push(number as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
    }
    let (mut out, mut crc) = (Vec::new(), 0);
    for (kind, data) in records {
        crc = crc32c::crc32c_append(crc, data);
        let mut record = vec![0x08];
        varint(*kind, &mut record);
        record.push(0x10);
        varint(crc.into(), &mut record);
        if *kind != 4 {
            record.push(0x1a);
            varint(data.len() as u64, &mut record);
            record.extend_from_slice(data);
        }
        let pad = (8 - record.len() % 8) % 8;
        let flag = if pad == 0 { 0 } else { 0x80 | pad as u64 };
        out.extend_from_slice(&(record.len() as u64 | flag << 56).to_le_bytes());
        out.extend_from_slice(&record);
        out.extend_from_slice(&vec![0; pad]);
    }
    out
}

#[test]
fn logs_whose_checksums_are_right_and_whose_records_are_not() {
    let corpus = Corpus::new();
    let file = &corpus.files[0].0;
    let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let fields = |numbers: &[&[u8]]| {
        let tag = |(i, number): (usize, &&[u8])| [&[(i as u8 + 1) << 3], *number].concat();
        numbers.iter().enumerate().flat_map(tag).collect::<Vec<u8>>()
    };
    // Of entries: kind, term, index, and a command of some kind.
    let command = |data: Vec<u8>| {
        let len = u8::try_from(data.len()).unwrap();
        [fields(&[&[0], &[1], &[1]]), vec![0x22, len], data].concat()
    };
    let contents = [
        vec![],
        vec![0xff; 20],
        fields(&[&[0], &[0], &[0]]),
        fields(&[&most, &most, &most]),
        fields(&[&[0], &most, &most]),
        fields(&[&[0], &[1], &most]),
        fields(&[&[1], &[1], &[1]]),
        fields(&[&[2], &[1], &[1]]),
        fields(&[&[3], &[1], &[1]]),
        fields(&[&[0], &[1], &[2]]),
        fields(&[&most, &[1]]),
        command(vec![0x33; 100]),
        command(vec![0x32, 0x7f]),
        command([0x32, 0x02, 0x12, 0x00].repeat(20)),
        command(vec![0xa2, 0x06, 0x02, 0x08, 0x80]),
    ];
    let head = |end: Option<(u64, Vec<u8>)>| {
        let mut records = vec![(4, vec![]), (1, fields(&[&[1], &[1]])), (5, fields(&[&[0], &[0]]))];
        records.extend(end);
        records
    };
    for kind in 0..7 {
        for data in &contents {
            let hostile = (kind, data.clone());
            let next = (2, fields(&[&[0], &[1], &[1]]));
            // In the place of each of the head's records, behind them, and followed by an entry.
            for at in 0..5 {
                let mut records = head(Some(next.clone()));
                records.insert(at.min(records.len()), hostile.clone());
                corpus.with(file, &log(&records), &format!("with a record {hostile:x?} at {at}"));
            }
            let mut records = head(None);
            records[2] = hostile.clone();
            records.extend([next.clone(), next]);
            corpus.with(
                file,
                &log(&records),
                &format!("with a record {hostile:x?} for a snapshot"),
            );
        }
    }
}

/// As many operations as fit into a command: in memory each takes a hundred times its bytes.
#[test]
fn commands_that_unfold() {
    let corpus = Corpus::new();
    let file = &corpus.files[0].0;
    for len in [1 << 20, 8 << 20] {
        let operations = [0x12, 0x00].repeat(len / 2);
        let number = |mut number: usize| {
            let mut out = Vec::new();
            while number >= 0x80 {
                out.push(number as u8 | 0x80);
                number >>= 7;
            }
            out.push(number as u8);
            out
        };
        let txn = [vec![0x32], number(operations.len()), operations].concat();
        let entry = [vec![0x08, 0, 0x10, 1, 0x18, 1, 0x22], number(txn.len()), txn].concat();
        let records =
            [(4, vec![]), (1, vec![0x08, 1, 0x10, 1]), (5, vec![0x08, 0, 0x10, 0]), (2, entry)];
        std::fs::write(corpus.dir.path().join(file), log(&records)).unwrap();
        let said = util("wal dump DIR", corpus.dir.path());
        assert_eq!(said.code, 0, "{}", said.err);
        let is_shown_as_bytes = said.out.contains("unreadable data=");
        assert_eq!(is_shown_as_bytes, len > 4 << 20, "{len} bytes of operations");
    }
}

fn put_u32(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

fn get_u32(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// Where the checksum begins of what stands at `offset` of a segment.
fn seed(segment: u32, offset: u32) -> u32 {
    let ids = [member::CLUSTER.to_le_bytes(), member::MEMBER.to_le_bytes()].concat();
    let place = [segment.to_le_bytes(), offset.to_le_bytes()].concat();
    crc32c::crc32c(&[ids, place].concat())
}

/// Makes all checksums of a segment right again, and its trailer's in the manifest.
fn mend(segment: u32, bytes: &mut [u8], manifest: &mut [u8]) {
    let len = get_u32(bytes, 68).min(bytes.len() - 104);
    let crc = crc32c::crc32c(&bytes[104..104 + len]);
    put_u32(bytes, 96, crc);
    let crc = crc32c::crc32c_append(seed(segment, 64), &bytes[64..100]);
    put_u32(bytes, 100, crc);
    if segment != 0 {
        return;
    }
    // One block of the footer, behind the frame as it was written.
    let end = bytes.len() - 64;
    let block = BLOCK_AT.min(end - 8);
    let crc = crc32c::crc32c(&bytes[block + 8..end]);
    put_u32(bytes, block + 4, crc);
    let crc = crc32c::crc32c(&bytes[block..block + 8]);
    put_u32(bytes, end + 56, crc);
    let at = get_u32(bytes, end + 8) as u32;
    let crc = crc32c::crc32c_append(seed(segment, at), &bytes[end..end + 60]);
    put_u32(bytes, end + 60, crc);
    put_u32(manifest, 88, crc);
    let crc = crc32c::crc32c(&manifest[..92]);
    put_u32(manifest, 92, crc);
}

/// Where the footer of segment 0 begins, see the example in `docs/format/store.md`.
const BLOCK_AT: usize = 0x143;

#[test]
fn stores_whose_checksums_are_right_and_whose_contents_are_not() {
    let corpus = Corpus::new();
    let store = corpus.dir.path().join("member/store");
    let good_manifest = corpus.read("member/store/MANIFEST");
    for (segment, file) in
        [(0, "member/store/0000000000.segment"), (2, "member/store/0000000002.segment")]
    {
        let good = corpus.read(file);
        let used = corpus.files.iter().find(|(name, _)| name == file).unwrap().1;
        let (mut same, mut manifest) = (good.clone(), good_manifest.clone());
        mend(segment, &mut same, &mut manifest);
        assert!(same == good && manifest == good_manifest, "what is sound is mended to itself");
        for at in 68..used {
            for value in [0x00, 0x7f, 0xff, good[at] ^ 1] {
                let (mut bytes, mut manifest) = (good.clone(), good_manifest.clone());
                bytes[at] = value;
                mend(segment, &mut bytes, &mut manifest);
                put(&store.join("MANIFEST"), &manifest);
                corpus.with(file, &bytes, &format!("with {value:x} at {at}, checksums right"));
            }
        }
        put(&store.join("MANIFEST"), &good_manifest);
    }
    for at in 8..92 {
        for value in [0x00, 0x01, 0x02, 0x7f, 0x80, 0xff] {
            let mut manifest = good_manifest.clone();
            manifest[at] = value;
            let crc = crc32c::crc32c(&manifest[..92]);
            put_u32(&mut manifest, 92, crc);
            corpus.with(
                "member/store/MANIFEST",
                &manifest,
                &format!("with {value:x} at {at}, crc right"),
            );
        }
    }
}

#[test]
fn snapshots_whose_checksums_are_right_and_whose_contents_are_not() {
    let corpus = Corpus::new();
    let file = &corpus.files.last().unwrap().0;
    let good = corpus.read(file);
    // The chunks: header, records, end.
    let records_at = 20 + get_u32(&good, 12);
    let end_at = records_at + 20 + get_u32(&good, records_at + 12);
    for at in 4..good.len() {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            if at < end_at {
                let crc = crc32c::crc32c(&bytes[records_at + 20..end_at]);
                put_u32(&mut bytes, end_at + 20 + 16, crc);
            }
            for (start, end) in [(0, records_at), (records_at, end_at), (end_at, good.len())] {
                let crc = crc32c::crc32c(&bytes[start..start + 16]);
                let crc = crc32c::crc32c_append(crc, &bytes[start + 20..end]);
                put_u32(&mut bytes, start + 16, crc);
            }
            corpus.with(file, &bytes, &format!("with {value:x} at {at}, checksums right"));
        }
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
