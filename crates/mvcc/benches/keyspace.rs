//! What a put, a get and a count cost at ten thousand and at a million keys, in CPU time of the one thread that does
//! them, so that a busy machine makes little difference. Run on Linux: `cargo bench -p mvcc`.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use mvcc::{Effort, KeyRange, Keyspace, Options, Portion, RangeQuery, Reader, Recovery};
use vfs::memory::Memory;

const PUTS: u64 = 300_000;
const GETS: u64 = 1_000_000;

fn main() {
    for keys in [10_000, 1_000_000] {
        println!("{keys} keys");
        run(keys);
    }
}

fn run(keys: u64) {
    let mut recovery = Recovery::new();
    let opened = store::open(
        Arc::new(Memory::new(1)),
        Path::new("/store"),
        store::Options::new(1, 2),
        &mut |record| recovery.take(record),
    )
    .expect("an empty store opens");
    let options = Options { value_bytes_max: 4 << 30, ..Options::default() };
    let mut keyspace =
        recovery.finish(options, opened.builder, opened.reader, 0, 0).expect("nothing is wrong");
    let value = vec![7; 256];
    let mut entry = 0;

    measure("put, new keys", keys, || {
        for number in 0..keys {
            put(&mut keyspace, &mut entry, number, &value);
        }
    });
    measure("put, random present keys", PUTS, || {
        for number in 0..PUTS {
            put(&mut keyspace, &mut entry, mix(number) % keys, &value);
        }
    });
    keyspace.publish();
    measure("the index lock, taken and let go", PUTS, || {
        for _ in 0..PUTS {
            assert!(black_box(keyspace.publish()).is_none(), "all is published");
        }
    });
    let reader = keyspace.reader();
    measure("get, random", GETS, || {
        for number in 0..GETS {
            let key = Bytes::from(key(mix(number) % keys));
            let result = reader.range(&RangeQuery::new(KeyRange::One(key)), Effort::Now);
            assert_eq!(black_box(result).expect("in memory").count, 1);
        }
    });
    measure("count, random ranges", GETS / 10, || {
        for number in 0..GETS / 10 {
            let start = Bytes::from(key(mix(number) % keys));
            black_box(reader.count(&KeyRange::From(start), 0, Effort::Now).expect("current"));
        }
    });
    measure("hash, whole keyspace (per key)", keys, || {
        black_box(reader.hash_kv(0).expect("current"));
    });
    // The first walks through the index, the second meets what the first has noted.
    for watcher in ["first", "second"] {
        let events = keyspace.revision() - 1;
        measure(&format!("history, {watcher} watcher (per event)"), events as u64, || {
            assert_eq!(history(&reader, keyspace.revision()), events);
        });
    }
    keyspace.compact(keyspace.revision()).expect("above the mark");
    keyspace.publish();
    keyspace.end_entry(entry + 1, 1);
    drop(keyspace.take_frame());
    // Only what a written compaction killed is pruned.
    keyspace.frame_written(entry + 1);
    measure("prune, whole keyspace (per key)", keys, || while keyspace.prune(256) {});
}

/// Tells everything up to `last`, as to a watcher from the first revision on; how many events.
fn history(reader: &Reader, last: i64) -> i64 {
    let portion = Portion { events_max: 1024, bytes_max: 1 << 20 };
    let (mut next, mut events) = (2, 0);
    while next <= last {
        let told = reader.history(&KeyRange::all(), next, portion, Effort::Disk).expect("kept");
        (next, events) = (told.next, events + told.events.len() as i64);
    }
    events
}

/// One entry with one put; a publish per 64 entries and a frame per 4096, as a busy member does.
fn put(keyspace: &mut Keyspace, entry: &mut u64, number: u64, value: &[u8]) {
    let mut txn = keyspace.begin();
    txn.put(&key(number), value, 0);
    txn.finish();
    *entry += 1;
    keyspace.end_entry(*entry, 1);
    if entry.is_multiple_of(64) {
        black_box(keyspace.publish());
    }
    if entry.is_multiple_of(4096) {
        drop(black_box(keyspace.take_frame()));
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("/registry/pods/default/pod-{:012x}", mix(number)).into_bytes()
}

/// Spreads numbers over all 64 bits, each to another.
fn mix(number: u64) -> u64 {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

fn measure(what: &str, times: u64, work: impl FnOnce()) {
    let start = cpu_nanoseconds();
    work();
    println!("{what:36} {:6} ns", (cpu_nanoseconds() - start) / times);
}

/// How long this thread has been on a CPU.
#[allow(clippy::disallowed_methods, reason = "a measurement needs a clock, and this one is a file")]
fn cpu_nanoseconds() -> u64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux says it");
    times.split_whitespace().next().and_then(|first| first.parse().ok()).expect("a number first")
}
