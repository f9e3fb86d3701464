//! Readable histories: each script under `tests/scripts` shows one promise of the keyspace.

#![allow(clippy::unwrap_used)]

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Runner};
use mvcc::{
    Batch, DueHash, Effort, Event, EventKind, Filter, HashKv, KeyRange, Keyspace, Options, Portion,
    RangeQuery, RangeResult, ReadError, Reader, Recovery, Txn, WatcherSet, WatcherState, key_value,
};
use vfs::memory::Memory;

#[test]
#[allow(clippy::disallowed_methods, reason = "a test finds its scripts on the real disk")]
fn scripts() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut ran = 0;
    for script in std::fs::read_dir(dir).unwrap() {
        goldenscript::run(&mut Play::new(), script.unwrap().path()).unwrap();
        ran += 1;
    }
    assert!(ran > 0, "there are scripts");
}

/// History is read so little at a time.
const PORTION: Portion = Portion { events_max: 2, bytes_max: 1 << 20 };

/// A keyspace, and one shard's watchers.
struct Play {
    keyspace: Keyspace,
    reader: Reader,
    due: Option<DueHash>,
    watchers: WatcherSet<String>,
    last: Option<Arc<Batch>>,
    entry: u64,
}

impl Play {
    fn new() -> Play {
        let mut recovery = Recovery::new();
        let opened = store::open(
            Arc::new(Memory::new(1)),
            Path::new("/store"),
            store::Options { segment_bytes: 64 << 10, ..store::Options::new(1, 2) },
            &mut |record| recovery.take(record),
        )
        .unwrap();
        let keyspace =
            recovery.finish(Options::default(), opened.builder, opened.reader, 0, 0).unwrap();
        let reader = keyspace.reader();
        Play { reader, keyspace, due: None, watchers: WatcherSet::new(1), last: None, entry: 0 }
    }

    fn publish(&mut self, is_lost: bool, out: &mut String) {
        let Some(batch) = self.keyspace.publish() else { return };
        if is_lost {
            self.watchers.on_gap();
            self.watchers.begin(batch.last);
        }
        self.watchers.on_batch(&batch, &mut |id, events| {
            deliver(id, events, out);
            None
        });
        self.last = Some(batch);
    }

    fn end_entry(&mut self) {
        self.entry += 1;
        self.keyspace.end_entry(self.entry, 1);
    }

    fn change(
        &mut self,
        name: &str,
        args: &mut ArgumentConsumer<'_>,
    ) -> Result<(), Box<dyn Error>> {
        let key = args.next_pos().ok_or("which key?")?.value.clone();
        let mut txn = self.keyspace.begin();
        if name == "put" {
            let value = args.next_pos().ok_or("which value?")?.value.clone();
            txn.put(key.as_bytes(), value.as_bytes(), args.lookup_parse("lease")?.unwrap_or(0));
        } else {
            let end = args.next_pos().map_or_else(String::new, |arg| arg.value.clone());
            txn.delete_range(&KeyRange::parse(key.into(), range_end(&end)), &mut |_, _| {});
        }
        txn.finish();
        self.end_entry();
        Ok(())
    }
}

fn show_hash(hash: &HashKv, out: &mut String) -> std::fmt::Result {
    let HashKv { hash, compact_revision, hash_revision, .. } = hash;
    writeln!(out, "{hash:08x} of revision {hash_revision}, compacted at {compact_revision}")
}

impl Runner for Play {
    fn run(&mut self, command: &Command) -> Result<String, Box<dyn Error>> {
        let mut out = String::new();
        let mut args = command.consume_args();
        match command.name.as_str() {
            name @ ("put" | "delete") => {
                self.change(name, &mut args)?;
                self.publish(false, &mut out);
            }
            // unpublished put|delete …: as part of a larger batch.  gap put|delete …: its batch is lost.
            name @ ("unpublished" | "gap") => {
                let what = args.next_pos().ok_or("what?")?.value.clone();
                self.change(&what, &mut args)?;
                if name == "gap" {
                    self.publish(true, &mut out);
                }
            }
            "publish" => self.publish(false, &mut out),
            // txn "put k v" "delete k" "range": one revision.
            "txn" => {
                let mut txn = self.keyspace.begin();
                for op in args.rest() {
                    step(&mut txn, &op.value, &mut out)?;
                }
                writeln!(out, "revision {}", txn.finish())?;
                self.end_entry();
                self.publish(false, &mut out);
            }
            "range" | "count" => {
                let key = args.next_pos().ok_or("which key?")?.value.clone();
                let end = args.next_pos().map_or_else(String::new, |arg| arg.value.clone());
                let query = RangeQuery {
                    revision: args.lookup_parse("rev")?.unwrap_or(0),
                    limit: args.lookup_parse("limit")?.unwrap_or(0),
                    count_only: command.name == "count",
                    ..RangeQuery::new(KeyRange::parse(key.into(), range_end(&end)))
                };
                show(self.reader.range(&query, Effort::Now), &mut out);
            }
            // compact REVISION [due]: with its hash still to be computed.
            "compact" => {
                let revision = args.next_pos().ok_or("where?")?.parse()?;
                match self.keyspace.compact(revision) {
                    Ok(due) => {
                        writeln!(out, "mark {revision}")?;
                        self.due = args.next_pos().map(|_due| due);
                    }
                    Err(error) => writeln!(out, "error: {error}")?,
                }
                self.end_entry();
                self.publish(false, &mut out);
            }
            // What a compaction left behind goes when the compaction is written.
            "prune" => {
                if let Some((index, _)) = self.keyspace.take_frame().and_then(|f| f.applied()) {
                    self.keyspace.frame_written(index);
                }
                while self.keyspace.prune(64) {}
            }
            "remember" => {
                let hash = self.reader.remember(self.due.take().ok_or("nothing is due")?);
                show_hash(&hash.ok_or("its pin was revoked")?, &mut out)?;
            }
            "hash" => match self.reader.hash_kv(args.lookup_parse("rev")?.unwrap_or(0)) {
                Ok(hash) => show_hash(&hash, &mut out)?,
                Err(error) => writeln!(out, "error: {error}")?,
            },
            "events" => {
                for event in &self.last.as_ref().ok_or("no batch yet")?.events {
                    writeln!(out, "{}", line(event))?;
                }
            }
            "watch" => {
                let id = args.next_pos().ok_or("who?")?.value.clone();
                let key = args.next_pos().ok_or("which key?")?.value.clone();
                let end = args.next_pos().ok_or("which end?")?.value.clone();
                let from = args.lookup_parse("from")?.unwrap_or(0);
                let filter = args.next_pos().map_or("", |arg| &arg.value);
                let filter =
                    Filter { no_put: filter == "no_put", no_delete: filter == "no_delete" };
                let range = KeyRange::parse(key.into(), range_end(&end));
                assert!(self.watchers.insert(id, range, from, filter));
            }
            "catch_up" => {
                while let Some(lagging) = self.watchers.take_next() {
                    let (id, next) = (&lagging.id, lagging.next);
                    match self.reader.history(&lagging.range, next, PORTION, Effort::Now) {
                        Ok(history) => {
                            let events = self.watchers.caught_up(id, &history);
                            if !events.is_empty() {
                                deliver(id, &events, &mut out);
                            }
                        }
                        Err(ReadError::Compacted) => {
                            let mark = self.reader.compact_revision();
                            self.watchers.remove(id);
                            writeln!(out, "{id}: cancelled, compacted at {mark}")?;
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            "state" => {
                for id in ["all", "at", "below", "deletes", "later", "one"] {
                    let id = id.to_owned();
                    match self.watchers.state(&id) {
                        None => {}
                        Some(WatcherState::Lagging { next }) => {
                            writeln!(out, "{id}: lagging, needs {next}")?;
                        }
                        Some(WatcherState::Synced) => match self.watchers.progress(&id) {
                            Some(told) => writeln!(out, "{id}: synced, told up to {told}")?,
                            None => writeln!(out, "{id}: synced, waits for its start")?,
                        },
                    }
                }
            }
            name => return Err(format!("unknown command {name}").into()),
        }
        args.reject_rest()?;
        Ok(out)
    }
}

fn step(txn: &mut Txn<'_>, op: &str, out: &mut String) -> Result<(), Box<dyn Error>> {
    match op.split(' ').collect::<Vec<_>>()[..] {
        ["put", key, value] => {
            txn.put(key.as_bytes(), value.as_bytes(), 0);
        }
        ["delete", key] => {
            let range = KeyRange::One(Bytes::copy_from_slice(key.as_bytes()));
            txn.delete_range(&range, &mut |_, _| {});
        }
        ["range"] => show(txn.range(&RangeQuery::new(KeyRange::all())), out),
        _ => return Err(format!("unknown operation {op}").into()),
    }
    Ok(())
}

/// A script writes the zero byte as `0x00` or `\0`.
fn range_end(text: &str) -> Bytes {
    if text == "\\0" || text == "0x00" { "\0".into() } else { text.to_owned().into() }
}

fn show(result: Result<RangeResult, ReadError>, out: &mut String) {
    match result {
        Err(error) => writeln!(out, "error: {error}").unwrap(),
        Ok(result) => {
            for item in &result.items {
                let key_value = key_value::decode(&item.bytes).expect("a KeyValue");
                writeln!(
                    out,
                    "{}={} mod={}.{} create={} version={}",
                    text(&item.key),
                    text(&key_value.value),
                    item.revision.main,
                    item.revision.sub,
                    item.create,
                    item.version
                )
                .unwrap();
            }
            let RangeResult { count, revision, current_revision, .. } = result;
            writeln!(out, "count {count} at revision {revision} of {current_revision}").unwrap();
        }
    }
}

fn deliver(id: &str, events: &[&Event], out: &mut String) {
    for event in events {
        writeln!(out, "{id}: {}", line(event)).unwrap();
    }
}

fn line(event: &Event) -> String {
    let revision = format!("{}.{}", event.revision.main, event.revision.sub);
    let key = text(&event.key);
    match event.kind {
        EventKind::Put => {
            let value = key_value::decode(&event.kv).expect("a KeyValue").value;
            format!("{revision} put {key}={}", text(&value))
        }
        EventKind::Delete => format!("{revision} delete {key}"),
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
