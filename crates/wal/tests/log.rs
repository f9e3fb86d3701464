//! The log as its owner sees it: what is written is found again, in etcd's bytes.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a reader is tried on a thread of its own")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use raft::{ConfState, Entry, EntryKind, HardState, Index, Term};
use vfs::memory::{Failure, Memory, OperationKind};
use vfs::{OpenMode, Vfs};
use wal::dump::{Record, dump};
use wal::status::status;
use wal::{Metadata, OpenError, Options, ReadError, SnapshotRecord, Wal};

const METADATA: Metadata =
    Metadata { node_id: 0x8e9e_05c5_2164_694d, cluster_id: 0xcdf8_1819_4e3a_8c32 };

fn dir() -> &'static Path {
    Path::new("/wal")
}

fn options(segment_bytes: u64) -> Options {
    Options { segment_bytes }
}

fn create(disk: &Memory, segment_bytes: u64) -> Wal {
    Wal::create(Arc::new(disk.clone()), dir(), METADATA, options(segment_bytes)).unwrap()
}

fn open(disk: &Memory, from: u64) -> Result<(Wal, wal::Recovered), OpenError> {
    Wal::open(Arc::new(disk.clone()), dir(), Index(from), options(4096))
}

fn entry(index: u64, term: u64) -> Entry {
    let data = Bytes::from(format!("entry {index} of term {term}, {}", "x".repeat(100)));
    Entry { kind: EntryKind::Normal, term: Term(term), index: Index(index), data }
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    range.map(|index| entry(index, term)).collect()
}

fn state(term: u64, commit: u64) -> HardState {
    HardState { term: Term(term), vote: 1, commit: Index(commit) }
}

fn snapshot(index: u64, term: u64) -> SnapshotRecord {
    let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    SnapshotRecord { index: Index(index), term: Term(term), conf_state: Some(conf_state) }
}

fn file_name(sequence: u64, first: u64) -> PathBuf {
    dir().join(format!("{sequence:016x}-{first:016x}.wal"))
}

fn read_file(disk: &Memory, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

/// A new log begins with the very bytes with which etcd begins one, in a preallocated file of etcd's name.
#[test]
fn a_new_log_is_etcds_to_the_byte() {
    let disk = Memory::new(1);
    create(&disk, 64_000_000);
    assert_eq!(disk.list(dir()).unwrap(), ["0000000000000000-0000000000000000.wal"],);
    let bytes = read_file(&disk, &file_name(0, 0));
    assert_eq!(bytes.len(), 64_000_000);
    let golden = hex("0400000000000084 0804100000000000
         2000000000000000 080110bb81c7fc051a1608cdd2918bd2b881cf8e0110b298eaf1948386fccd01
         0e00000000000082 08051094bbc7ed0e1a04080010000000");
    assert_eq!(&bytes[..80], golden);
    assert!(bytes[80..].iter().all(|&byte| byte == 0));
}

/// A membership change, a sync, a put and a state. etcd's own tools print this file as what it is.
#[test]
fn entries_and_states_are_etcds_to_the_byte() {
    let disk = Memory::new(1);
    let mut wal = create(&disk, 4096);
    let add_node = Entry {
        kind: EntryKind::ConfChange,
        term: Term(1),
        index: Index(1),
        data: hex("0801 1000 1805").into(),
    };
    let put = Entry {
        kind: EntryKind::Normal,
        term: Term(1),
        index: Index(2),
        data: hex("0805 220a 0a03 666f6f 1203 626172").into(),
    };
    wal.append(&[add_node], None).unwrap();
    wal.sync().unwrap();
    let state = HardState { term: Term(1), vote: 5, commit: Index(1) };
    wal.append(&[put], Some(&state)).unwrap();
    let golden = hex("1800000000000000 080210a1bea9d80f1a0e080110011801220608011000 1805
         0800000000000000 080410a1bea9d80f
         2000000000000000 080210eacfb28e091a160800100118 02220e0805220a0a03666f6f1203626172
         1000000000000000 08031083 9ad9b6051a06080110051801");
    let bytes = read_file(&disk, &file_name(0, 0));
    assert_eq!(&bytes[0x50..0x50 + golden.len()], golden);
    assert!(bytes[0x50 + golden.len()..].iter().all(|&byte| byte == 0));
}

/// All that was appended is found again; what the state already holds is checked and left out.
#[test]
fn a_log_is_read_back() {
    let disk = Memory::new(1);
    let mut wal = create(&disk, 4096);
    wal.append(&entries(1..=3, 1), Some(&state(1, 2))).unwrap();
    wal.sync().unwrap();
    wal.append(&entries(4..=5, 2), None).unwrap();
    wal.append(&[], Some(&state(2, 4))).unwrap();
    wal.sync().unwrap();
    drop(wal);

    let (wal, found) = open(&disk, 0).unwrap();
    assert_eq!(found.metadata, METADATA);
    assert_eq!(found.hard_state, state(2, 4));
    assert_eq!(found.base, (Index(0), Term(0)));
    assert_eq!(found.term_runs, [(Index(1), Term(1)), (Index(4), Term(2))]);
    assert_eq!(found.entries, [entries(1..=3, 1), entries(4..=5, 2)].concat());
    assert_eq!((found.last, found.torn), (Index(5), None));
    assert_eq!((wal.last_index(), wal.hard_state()), (Index(5), state(2, 4)));
    drop(wal);

    let (_, found) = open(&disk, 3).unwrap();
    assert_eq!(found.entries, entries(4..=5, 2));
    let error = open(&disk, 6).err().unwrap();
    assert!(matches!(error, OpenError::Rotten { .. }), "{error}");
}

/// A full file is followed by the next, named by what comes; each begins with checksum, metadata and state.
#[test]
fn a_full_file_is_followed_by_another() {
    let disk = Memory::new(1);
    let mut wal = create(&disk, 4096);
    for index in 1..=100 {
        wal.append(&[entry(index, 1)], Some(&state(1, index))).unwrap();
        wal.sync().unwrap();
    }
    let files = disk.list(dir()).unwrap();
    assert_eq!(files.len(), wal.segments());
    assert!(files.len() > 3, "{files:?}");
    let first_of = |file: &String| {
        let lines = dump(&disk, dir()).unwrap().filter(|line| line.file == *file);
        lines.map(|line| line.record.unwrap()).take(3).collect::<Vec<_>>()
    };
    for file in &files[1..] {
        let first = u64::from_str_radix(&file[17..33], 16).unwrap();
        let head = first_of(file);
        assert!(matches!(head[0], Record::Crc(crc) if crc != 0));
        assert_eq!(head[1..], [Record::Metadata(METADATA), Record::State(state(1, first - 1))]);
    }
    let written: usize = wal.bytes() as usize;
    drop(wal);
    let (wal, found) = open(&disk, 0).unwrap();
    assert_eq!(found.entries, entries(1..=100, 1));
    assert_eq!(wal.bytes() as usize, written);
}

/// Files whose entries lie below a durable snapshot go, and the log still opens, for us and by etcd's rule:
/// the first file begins at or below the snapshot.
#[test]
fn released_files_are_unlinked() {
    let disk = Memory::new(1);
    let mut wal = create(&disk, 4096);
    for index in 1..=100 {
        wal.append(&[entry(index, 1)], Some(&state(1, index))).unwrap();
    }
    let reader = wal.reader();
    wal.save_snapshot(&snapshot(90, 1)).unwrap();
    wal.sync().unwrap();
    let before = wal.segments();
    let released = wal.release(Index(80)).unwrap();
    assert!(released > 1);
    assert_eq!(wal.segments(), before - released);
    assert_eq!(disk.list(dir()).unwrap().len(), wal.segments());
    assert_eq!(wal.release(Index(80)).unwrap(), 0);

    let first = wal.first_index();
    assert!(first <= Index(81));
    assert!(matches!(reader.read(Index(1), Index(2), 1), Err(ReadError::Released)));
    let rest = reader.read(first, Index(101), u64::MAX).unwrap();
    assert_eq!(rest, entries(first.0..=100, 1));
    let base = wal.base();
    drop(wal);
    let (wal, found) = open(&disk, 90).unwrap();
    assert_eq!((found.base, wal.first_index()), (base, first));
    assert_eq!(found.term_runs, [(first, Term(1))]);
    assert_eq!(found.entries, entries(91..=100, 1));
    assert_eq!(found.snapshots, [snapshot(90, 1)]);
    drop(wal);
    let error = open(&disk, 0).err().unwrap();
    assert!(matches!(error, OpenError::Gap(_)), "{error}");
}

/// A reader gives the first entry whatever its size, then stops before the bound.
#[test]
fn a_read_is_bounded_by_bytes() {
    let disk = Memory::new(1);
    let mut wal = create(&disk, 1 << 30);
    let mut all = entries(1..=2000, 1);
    all[1000].data = Bytes::from(vec![7; 700_000]);
    wal.append(&all, None).unwrap();
    let reader = wal.reader();
    let read = |low, bytes| reader.read(Index(low), Index(2001), bytes).unwrap();
    assert_eq!(read(1, 0), all[..1]);
    let len = wal::codec::entry_len(&all[0]) as u64;
    assert_eq!(read(1, 3 * len), all[..3]);
    assert_eq!(read(1001, 1).len(), 1);
    assert_eq!(read(1, u64::MAX), all);
    assert_eq!(read(1999, u64::MAX), all[1998..]);
    assert_eq!(reader.read(Index(7), Index(7), 1).unwrap(), []);
}

/// A reader reads while the log is written to, cut and released by another thread, and never sees anything else
/// than what was appended.
#[test]
fn readers_follow_a_running_log() {
    let disk = Memory::new(1);
    let mut wal = create(&disk, 4096);
    wal.append(&[entry(1, 1)], None).unwrap();
    let reader = wal.reader();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reads = scope.spawn(|| {
            let mut next = 1;
            while next <= 500 {
                let is_done = done.load(std::sync::atomic::Ordering::Acquire);
                match reader.read(Index(next), Index(next + 1), 1000) {
                    Ok(read) => {
                        assert_eq!(read, [entry(next, 1)]);
                        next += 1;
                    }
                    Err(ReadError::Released) => next += 1,
                    Err(ReadError::Unavailable) => assert!(!is_done, "entry {next} never came"),
                    Err(error) => panic!("{error}"),
                }
            }
        });
        for index in 2..=500 {
            wal.append(&[entry(index, 1)], Some(&state(1, index))).unwrap();
            if index % 100 == 0 {
                wal.save_snapshot(&snapshot(index, 1)).unwrap();
                wal.sync().unwrap();
                wal.release(Index(index - 50)).unwrap();
            }
        }
        done.store(true, std::sync::atomic::Ordering::Release);
        reads.join().unwrap();
    });
}

/// After a failed write or sync nothing is tried any more: what is durable is not known.
#[test]
fn a_failure_poisons_the_log() {
    for kind in [OperationKind::Write, OperationKind::Sync] {
        let disk = Memory::new(1);
        let mut wal = create(&disk, 4096);
        wal.append(&entries(1..=1, 1), None).unwrap();
        wal.sync().unwrap();
        disk.fail(move |op| op.kind == kind, 1, Failure::Errno(5));
        let failed = wal.append(&entries(2..=2, 1), None).and_then(|()| wal.sync());
        assert_eq!(failed.unwrap_err().error.raw_os_error(), Some(5));
        assert!(wal.append(&[], None).is_err());
        assert!(wal.append(&entries(2..=2, 1), None).is_err());
        assert!(wal.sync().is_err());
        drop(wal);
        disk.power_cut(1);
        assert!(open(&disk, 1).unwrap().1.entries.len() <= 1);
    }
}

/// A disk that fills up leaves a log that opens when there is space again, whatever it was doing.
#[test]
fn a_full_disk_leaves_a_log_that_opens() {
    for spare in 0..40 {
        let disk = Memory::new(1);
        let mut wal = create(&disk, 4096);
        disk.set_capacity(Some(4096 * 2 + spare * 128));
        let mut synced = 0;
        for index in 1..=200 {
            let wrote = wal.append(&[entry(index, 1)], Some(&state(1, index - 1)));
            if wrote.and_then(|()| wal.sync()).is_err() {
                break;
            }
            synced = index;
        }
        assert!(synced > 10 && synced < 200);
        disk.crash();
        disk.set_capacity(None);
        let (mut wal, found) = open(&disk, synced).unwrap();
        assert!(found.last >= Index(synced));
        wal.append(&[entry(found.last.0 + 1, 1)], None).unwrap();
        wal.sync().unwrap();
    }
}

/// What only a mistake of an operator can bring about is refused with a name: no log, a file taken away, files
/// of another member's log.
#[test]
fn a_log_that_is_not_whole_is_refused() {
    let disk = Memory::new(1);
    assert!(matches!(open(&disk, 0), Err(OpenError::Missing(_))));
    let mut wal = create(&disk, 4096);
    for index in 1..=100 {
        wal.append(&[entry(index, 1)], Some(&state(1, index - 1))).unwrap();
    }
    wal.sync().unwrap();
    drop(wal);
    let files = disk.list(dir()).unwrap();
    let without = |i: usize, from: u64| {
        let disk = disk.fork();
        disk.unlink(&dir().join(&files[i])).unwrap();
        open(&disk, from).map(|(_, found)| (found.last, disk.list(dir()).unwrap().len()))
    };
    assert!(matches!(without(0, 0), Err(OpenError::Gap(_))));
    assert!(matches!(without(1, 0), Err(OpenError::Gap(_))));
    assert!(matches!(without(files.len() - 1, 100), Err(OpenError::Rotten { .. })));
    // With a state that needs none of them, what was released and came back is removed.
    assert_eq!(without(1, 100).unwrap(), (Index(100), files.len() - 2));

    let other = Memory::new(1);
    let metadata = Metadata { node_id: 7, ..METADATA };
    let mut wal = Wal::create(Arc::new(other.clone()), dir(), metadata, options(4096)).unwrap();
    for index in 1..=100 {
        wal.append(&[entry(index, 1)], Some(&state(1, index - 1))).unwrap();
    }
    let foreign = read_file(&other, &dir().join(&files[1]));
    let file = disk.open(&dir().join(&files[1]), OpenMode::Write).unwrap();
    file.truncate(0).unwrap();
    file.append(&foreign).unwrap();
    let error = open(&disk, 0).err().unwrap();
    assert!(matches!(error, OpenError::Rotten { offset: 0, .. }), "{error}");
}

/// Looking at a log changes nothing on the disk, not even when there is something to mend.
#[test]
fn the_status_is_what_a_start_finds_and_mends_nothing() {
    let disk = Memory::new(1);
    assert!(matches!(status(&disk, dir()), Err(OpenError::Missing(_))));
    let mut wal = create(&disk, 4096);
    for index in 1..=60 {
        wal.append(&[entry(index, 1 + index / 40)], Some(&state(2, index - 1))).unwrap();
        wal.sync().unwrap();
    }
    wal.save_snapshot(&snapshot(50, 2)).unwrap();
    wal.append(&[], Some(&state(2, 60))).unwrap();
    wal.sync().unwrap();
    wal.release(Index(30)).unwrap();
    let (files, used) = (wal.segments(), wal.bytes());
    drop(wal);
    let last = disk.list(dir()).unwrap().pop().unwrap();
    let file = disk.open(&dir().join(&last), OpenMode::Write).unwrap();
    let end = status(&disk, dir()).unwrap().files.last().unwrap().used.unwrap();
    // Of the next frame only the length word was written.
    file.write_at(&[0x40], end).unwrap();
    disk.open(&dir().join("0.tmp"), OpenMode::Create).unwrap();

    let operations = disk.operations();
    let found = status(&disk, dir()).unwrap();
    assert_eq!(dump(&disk, dir()).unwrap().filter(|line| line.record.is_err()).count(), 1);
    assert_eq!(disk.operations(), operations, "only reading");

    assert_eq!(found.metadata, Some(METADATA));
    assert_eq!(found.hard_state, state(2, 60));
    assert_eq!(found.last, (Index(60), Term(2)));
    assert_eq!(found.snapshots, [snapshot(50, 2)]);
    assert_eq!(found.leftovers, ["0.tmp"]);
    assert_eq!(found.files.len(), files);
    assert_eq!(found.files.iter().map(|file| file.used.unwrap()).sum::<u64>(), used);
    assert_eq!(found.torn.as_ref().map(|torn| (torn.offset, torn.lost_bytes)), Some((end, 1)));
    assert!(found.damage.is_none());
    let (_, recovered) = open(&disk, 50).unwrap();
    assert_eq!((found.base, found.torn), (recovered.base, recovered.torn));
}

/// What was read before the damage is told with it.
#[test]
fn the_status_of_a_rotten_log_says_where_and_what_came_before() {
    let disk = Memory::new(1);
    let mut wal = create(&disk, 4096);
    for index in 1..=60 {
        wal.append(&[entry(index, 1)], Some(&state(1, index))).unwrap();
        wal.sync().unwrap();
    }
    drop(wal);
    let files = disk.list(dir()).unwrap();
    assert!(files.len() > 2);
    disk.rot(&dir().join(&files[1]), 2000, 0x10);
    let found = status(&disk, dir()).unwrap();
    let Some(OpenError::Rotten { file, offset, .. }) = &found.damage else {
        panic!("{:?}", found.damage);
    };
    assert_eq!(*file, dir().join(&files[1]));
    assert!((1800..=2000).contains(offset), "{offset}");
    assert!(found.files[0].used.is_some() && found.files[1].used.is_none());
    assert!(found.last.0 > Index(10) && found.last.0 < Index(60), "{:?}", found.last);
    assert_eq!(found.metadata, Some(METADATA));
}

/// A length that is only said takes no memory.
#[test]
fn a_file_of_impossible_length_is_not_read() {
    let disk = Memory::new(1);
    create(&disk, 4096);
    let file = disk.open(&file_name(0, 0), OpenMode::Write).unwrap();
    file.truncate(wal::dump::FILE_BYTES_MAX + 1).unwrap();
    let found = status(&disk, dir()).unwrap();
    assert!(matches!(found.damage, Some(OpenError::Rotten { offset: 0, .. })), "{found:?}");
    let lines: Vec<_> = dump(&disk, dir()).unwrap().collect();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].record.as_ref().unwrap_err().contains("are more than a file of a log has"));
}
