//! Every crash of short lives of a log, and every subset of what was not synced: what was synced is there, what
//! was never written is not, and the log opens and goes on. Then what rots, and hostile files.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod life;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use life::{METADATA, SEGMENT_BYTES, Step, dir, entry, live, options};
use raft::{Entry, EntryKind, HardState, Index, Term};
use vfs::crash::Depth;
use vfs::memory::{Failure, Fate, Memory, OperationKind};
use vfs::{OpenMode, Vfs};
use wal::{OpenError, Wal};

#[test]
fn what_was_synced_survives_every_crash() {
    for program in life::programs().into_iter().filter(|one| one.segment_bytes == SEGMENT_BYTES) {
        let report = life::explore(&program, &|_, _| {}, Depth::Everything);
        let report = report.unwrap_or_else(|why| panic!("{}: {why}", program.name));
        assert!(report.states > 100, "{}: {report:?}", program.name);
    }
}

#[test]
fn making_a_log_survives_every_crash() {
    let report = life::explore_making(&|_, _| {}, Depth::Everything).unwrap();
    assert!(report.states > 50 && report.points > 5, "{report:?}");
}

/// A sync fails and ends the process; its bytes, and the length that they gave the file, stay in the kernel's memory, where
/// a later sync takes them for written. Who starts again finds them, and must make them what it says they are.
#[test]
fn what_a_failed_sync_left_behind_is_written_again() {
    for len in [40, 3 * SEGMENT_BYTES as usize] {
        let append = Step::Append { from: 1, to: 2, term: 1, len: 30, commit: Some(1) };
        let (disk, _) = live(&[append, Step::Sync], None);
        disk.crash();
        let open = || Wal::open(Arc::new(disk.clone()), dir(), Index(0), options()).unwrap();
        let (mut wal, _) = open();
        // A large entry fills the file, which is synced at its end.
        disk.fail(|operation| operation.kind == OperationKind::Sync, 1, Failure::Errno(5));
        assert!(wal.append(&[entry(3, 1, len)], None).and_then(|()| wal.sync()).is_err());
        drop(wal);
        disk.crash();
        let (_, found) = open();
        assert_eq!(found.last, Index(3), "the kernel has it");
        disk.power_cut_with(&mut |_| Fate::Lost);
        assert!(open().1.entries == found.entries, "an entry of {len} bytes is lost");
    }
}

fn last_file(disk: &Memory) -> PathBuf {
    dir().join(disk.list(dir()).unwrap().pop().unwrap())
}

/// The end of the log as a crash leaves it, cut at each byte of the last record: the records before are there.
#[test]
fn a_last_record_cut_at_each_byte_is_torn() {
    let append = |from, to| Step::Append { from, to, term: 1, len: 700, commit: None };
    let (disk, _) = live(&[append(1, 1)], None);
    let (whole, _) = live(&[append(1, 1), append(2, 2)], None);
    let path = last_file(&disk);
    let end_of = |disk: &Memory| {
        let (wal, _) = Wal::open(Arc::new(disk.fork()), dir(), Index(0), options()).unwrap();
        wal.bytes()
    };
    let (start, end) = (end_of(&disk), end_of(&whole));
    assert!(end - start > 700);
    for cut in start..end {
        for regrown in [false, true] {
            let fork = whole.fork();
            let file = fork.open(&path, OpenMode::Write).unwrap();
            file.truncate(cut).unwrap();
            if regrown {
                file.preallocate(SEGMENT_BYTES).unwrap();
            }
            let vfs = Arc::new(fork.clone());
            let (_, found) = Wal::open(vfs, dir(), Index(0), options()).unwrap();
            let len = found.entries.len();
            // The padding of the last record may be missing; nothing of it is.
            assert!(len == 1 || (len == 2 && cut > end - 8), "cut at {cut} of {start}..{end}");
            if len == 1 && cut > start {
                let torn = found.torn.unwrap();
                assert_eq!((torn.offset, torn.file), (start, path.clone()));
                assert!(torn.lost_bytes > 0 && torn.lost_bytes <= cut - start);
            }
        }
    }
}

/// Found by simulation: a write on a full disk ended behind the first byte of a length word, and that byte was zero. The
/// start after it panicked, as would each one after that.
#[test]
fn a_piece_of_a_length_word_may_be_zero() {
    let append = |from, len| Step::Append { from, to: from, term: 1, len, commit: None };
    let (disk, _) = live(&[append(1, 100)], None);
    let path = last_file(&disk);
    let (wal, _) = Wal::open(Arc::new(disk.fork()), dir(), Index(0), options()).unwrap();
    let start = wal.bytes();
    let mut zeros = 0;
    for len in 500..760 {
        let (whole, _) = live(&[append(1, 100), append(2, len)], None);
        for cut in start + 1..start + 8 {
            let disk = whole.fork();
            let file = disk.open(&path, OpenMode::Write).unwrap();
            file.truncate(cut).unwrap();
            let mut left = vec![0; (cut - start) as usize];
            file.read_exact_at(&mut left, start).unwrap();
            zeros += u32::from(left.iter().all(|byte| *byte == 0));
            let (mut wal, found) =
                Wal::open(Arc::new(disk.clone()), dir(), Index(0), options()).unwrap();
            assert_eq!(found.last, Index(1));
            wal.append(&[entry(2, 1, 30)], None).unwrap();
            wal.sync().unwrap();
        }
    }
    assert!(zeros > 0, "some of the pieces are zero");
}

/// A byte that rots anywhere but in the last batch is refused, with the place; in the last batch it is refused or
/// reported as torn, and never read as something that was not written.
#[test]
fn each_rotten_byte_is_noticed() {
    let append = |from, to, len| Step::Append { from, to, term: 1, len, commit: Some(from - 1) };
    let (disk, life) = live(
        &[
            append(1, 2, 100),
            Step::Sync,
            append(3, 12, 150),
            Step::Sync,
            append(13, 13, 40),
            Step::Sync,
            append(14, 15, 60),
            Step::Sync,
        ],
        None,
    );
    let files = disk.list(dir()).unwrap();
    assert_eq!(files.len(), 2);
    let mut last_batch_refused = 0;
    for (i, name) in files.iter().enumerate() {
        let path = dir().join(name);
        let lines: Vec<_> =
            wal::dump::dump(&disk, dir()).unwrap().filter(|l| l.file == *name).collect();
        let marks = lines.iter().filter(|l| matches!(l.record, Ok(wal::dump::Record::Crc(_))));
        let last_mark = marks.last().unwrap().offset;
        let end = if i == 0 {
            disk.open(&path, OpenMode::Read).unwrap().len().unwrap()
        } else {
            let (wal, _) = Wal::open(Arc::new(disk.fork()), dir(), Index(0), options()).unwrap();
            let first = disk.open(&dir().join(&files[0]), OpenMode::Read).unwrap().len().unwrap();
            wal.bytes() - first
        };
        for offset in 0..end {
            for mask in [1, 0x80] {
                let fork = disk.fork();
                fork.rot(&path, offset, mask);
                let opened = Wal::open(Arc::new(fork.clone()), dir(), Index(0), options());
                let is_in_last_batch = i == 1 && offset >= last_mark;
                match opened {
                    Err(OpenError::Rotten { file, offset: at, .. }) => {
                        assert!(file == path || at == 0, "rot in {name} is told of {file:?}");
                        assert!(
                            at <= offset || file != path,
                            "byte {offset} of {name} is told at {at}"
                        );
                        last_batch_refused += u64::from(is_in_last_batch);
                    }
                    Err(error) => panic!("byte {offset} of {name}: {error}"),
                    Ok((_, found)) => {
                        assert!(is_in_last_batch, "byte {offset} of {name}, mask {mask}");
                        let whole = life.pictures.last().unwrap();
                        assert!(found.torn.is_some(), "byte {offset} of {name} went unnoticed");
                        assert!(
                            found
                                .entries
                                .iter()
                                .eq(whole.entries.values().take(found.entries.len()))
                        );
                    }
                }
            }
        }
    }
    assert!(last_batch_refused > 0);
}

/// A record's type is not covered by its checksum, so an entry and a state that rot into each other must be told
/// apart by what they say, wherever they stand.
#[test]
fn a_rotten_type_is_noticed() {
    let conf_change = Entry {
        kind: EntryKind::ConfChange,
        data: Bytes::from_static(&[0x08, 1, 0x10, 0, 0x18, 5]),
        ..entry(3, 1, 0)
    };
    let state = |commit| HardState { term: Term(1), vote: 1, commit: Index(commit) };
    let disk = Memory::new(7);
    let mut wal = Wal::create(Arc::new(disk.clone()), dir(), METADATA, options()).unwrap();
    wal.append(&[entry(1, 1, 0), entry(2, 1, 9), conf_change], Some(&state(2))).unwrap();
    wal.sync().unwrap();
    let path = last_file(&disk);
    let lines: Vec<_> = wal::dump::dump(&disk, dir()).unwrap().collect();
    let mut tried = 0;
    for line in lines {
        use wal::dump::Record;
        if !matches!(line.record, Ok(Record::Entry(_) | Record::State(_))) {
            continue;
        }
        tried += 1;
        let fork = disk.fork();
        fork.rot(&path, line.offset + 9, 1);
        let error = Wal::open(Arc::new(fork), dir(), Index(0), options()).err().unwrap();
        let is_told = matches!(&error, OpenError::Rotten { offset, .. } if *offset == line.offset);
        assert!(is_told, "{:?}: {error}", line.record);
    }
    assert_eq!(tried, 4);
}

/// A torn tail is cut off only above the applied state: below it the bytes had been synced.
#[test]
fn a_tail_below_the_state_is_rot() {
    let append = |from, to| Step::Append { from, to, term: 1, len: 300, commit: None };
    let (disk, _) = live(&[append(1, 3), Step::Sync], None);
    let path = last_file(&disk);
    let file = disk.open(&path, OpenMode::Write).unwrap();
    file.write_at(&[0; 512], 512).unwrap();
    let open = |from| Wal::open(Arc::new(disk.fork()), dir(), Index(from), options());
    assert!(open(1).unwrap().1.torn.is_some());
    let error = open(3).err().unwrap().to_string();
    assert!(error.contains("the state holds 3"), "{error}");
    assert!(error.contains("remove it from the cluster"), "{error}");
}

/// Whatever stands in a file, opening it says what is wrong; it does not panic and does not ask for memory that
/// the file does not have.
#[test]
fn hostile_files_never_panic() {
    let (disk, _) = live(
        &[Step::Append { from: 1, to: 5, term: 1, len: 50, commit: Some(3) }, Step::Sync],
        None,
    );
    let path = last_file(&disk);
    let mut random = 88_172_645_463_325_252u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for _ in 0..3000 {
        let fork = disk.fork();
        let file = fork.open(&path, OpenMode::Write).unwrap();
        for _ in 0..1 + next() % 4 {
            let bytes = next().to_le_bytes();
            let len = 1 + (next() % 8) as usize;
            file.write_at(&bytes[..len], next() % 600).unwrap();
        }
        let _lines = wal::dump::dump(&fork, dir()).unwrap().count();
        match Wal::open(Arc::new(fork.clone()), dir(), Index(0), options()) {
            Ok((_, found)) => assert!(found.entries.len() <= 5),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// Also behind every crash: what had been synced and rots, or is gone, is refused, and nothing is mended by that.
#[test]
fn damage_behind_a_crash_is_refused() {
    for explored in [life::explore_rot(), life::explore_gap()] {
        let report = explored.unwrap();
        assert!(report.refused > 100 && report.refused < report.states, "{report:?}");
    }
}

#[test]
fn an_open_may_be_cut_as_well() {
    let report = life::explore_open().unwrap();
    assert!(report.points > 50 && report.states > 500, "{report:?}");
}

/// The length word of each record of the last batch is gone, and nothing else: that is no cut that a crash has torn.
#[test]
fn a_length_word_that_rotted_to_zero_is_noticed() {
    let append = |from, to, len| Step::Append { from, to, term: 1, len, commit: None };
    let (disk, life) = live(&[append(1, 1, 40), Step::Sync, append(2, 5, 90), Step::Sync], None);
    disk.crash();
    let entries: Vec<u64> = wal::dump::dump(&disk, dir())
        .unwrap()
        .filter(|line| matches!(line.record, Ok(wal::dump::Record::Entry(_))))
        .map(|line| line.offset)
        .collect();
    assert_eq!(entries.len(), 5);
    let path = last_file(&disk);
    for at in entries {
        let disk = disk.fork();
        let mut word = [0; 8];
        disk.open(&path, OpenMode::Read).unwrap().read_exact_at(&mut word, at).unwrap();
        (at..).zip(word).for_each(|(at, byte)| disk.rot(&path, at, byte));
        let why = life::recover(&disk, &life).unwrap_err();
        assert!(why.contains("is damaged at byte"), "{why}");
    }
}
