//! Readable histories: each script under `tests/scripts` shows one promise of the keyspace.
//!
//! ```text
//!   put KEY VALUE [lease=N], delete KEY [END]        an entry that changes something, and is published
//!   unpublished CHANGE..., publish                   as part of a larger batch
//!   gap CHANGE...                                    its batch is lost on the way to the watchers
//!   txn "put K V" "delete K [END]" "get K" "range"   one revision
//!   range KEY [END] [rev=N] [limit=N] [effort=now|disk] [keys_only], count KEY [END] [rev=N]
//!   cursor NAME KEY END [rev=N] [limit=N]            a read in pieces; next NAME keys=N; close NAME
//!   pin NAME REVISION, unpin NAME, pins              who holds a revision, and whether he does still
//!   tick N idle=M                                    time passes; pins that were idle for M ticks are revoked
//!   compact REVISION [due]                           with its hash still to be computed; remember computes it
//!   flush, prune                                     a frame is written; what compactions left behind goes
//!   live KEY MAIN...                                 what reclaim is told of these records
//!   hash [rev=N]
//!   events [prev]                                    the last batch, with the values before
//!   history KEY END from=N [events=N] [effort=disk]  the past of a range, portion by portion
//!   watch NAME KEY END [from=N] [no_put|no_delete], catch_up [effort=disk], state
//!   leases                                           the living keys that hang on a lease
//!   restart [values=BYTES]                           from disk; so many bytes of values stay in memory
//!   exchange                                         an empty state takes the place of this one
//! ```
//!
//! END is the first key behind the range, `0x00` for no end and `""` for the one key.

#![allow(clippy::unwrap_used)]

#[path = "../../vfs/tests/script/mod.rs"]
mod script;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Runner};
use mvcc::{
    Batch, Cursor, DueHash, Effort, Event, EventKind, Filter, HashKv, Item, KeyRange, Keyspace,
    Options, Pin, Portion, RangeQuery, RangeResult, ReadError, Reader, Recovery, Revision, Txn,
    WatcherSet, WatcherState, key_value,
};
use store::Flusher;
use vfs::memory::Memory;

#[test]
fn scripts() {
    script::run_all(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts"), Play::new);
}

/// History is read so little at a time.
const PORTION: Portion = Portion { events_max: 2, bytes_max: 1 << 20 };

/// A keyspace, and one shard's watchers.
struct Play {
    disk: Memory,
    flusher: Flusher,
    keyspace: Keyspace,
    reader: Reader,
    due: Option<DueHash>,
    watchers: WatcherSet<String>,
    last: Option<Arc<Batch>>,
    cursors: BTreeMap<String, Cursor>,
    pins: BTreeMap<String, Pin>,
    entry: u64,
}

fn open(disk: &Memory, options: Options) -> (Keyspace, Flusher, u64) {
    let mut recovery = Recovery::new();
    let opened = store::open(
        Arc::new(disk.clone()),
        Path::new("/store"),
        store::Options { segment_bytes: 64 << 10, ..store::Options::new(1, 2) },
        &mut |record| recovery.take(record),
    )
    .unwrap();
    let (revision, mark) = (opened.revision, opened.compact_revision);
    let keyspace = recovery.finish(options, opened.builder, opened.reader, revision, mark).unwrap();
    (keyspace, opened.flusher, opened.applied.0)
}

impl Play {
    fn new() -> Play {
        Play::on(Memory::new(1), Options::default())
    }

    fn on(disk: Memory, options: Options) -> Play {
        let (keyspace, flusher, entry) = open(&disk, options);
        let reader = keyspace.reader();
        let watchers = WatcherSet::new(keyspace.revision());
        Play {
            disk,
            flusher,
            reader,
            keyspace,
            due: None,
            watchers,
            last: None,
            cursors: BTreeMap::new(),
            pins: BTreeMap::new(),
            entry,
        }
    }

    fn flush(&mut self) -> Result<(), Box<dyn Error>> {
        if let Some(frame) = self.keyspace.take_frame() {
            self.flusher.write(&frame)?;
            if let Some((index, _)) = frame.applied() {
                self.keyspace.frame_written(index);
            }
        }
        Ok(())
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
            let range = KeyRange::parse(key.into(), range_end(&end));
            txn.delete_range(&range, &mut |_, _| {});
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
                let revision = args.lookup_parse("rev")?.unwrap_or(0);
                let limit = args.lookup_parse("limit")?.unwrap_or(0);
                let effort = effort(&mut args)?;
                let range = next_range(&mut args)?;
                let keys_only = args.next_pos().is_some_and(|arg| arg.value == "keys_only");
                let count_only = command.name == "count";
                let query = RangeQuery { range, revision, limit, count_only, keys_only };
                show(self.reader.range(&query, effort), &mut out);
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
            "flush" => self.flush()?,
            "prune" => {
                self.flush()?;
                while self.keyspace.prune(64) {}
            }
            "live" => {
                let key = args.next_pos().ok_or("which key?")?.value.clone();
                for arg in args.rest_pos() {
                    let revision = Revision { main: arg.parse()?, sub: 0 };
                    let lives = self.reader.is_live(key.as_bytes(), revision);
                    writeln!(out, "{key}@{}: {}", arg.value, if lives { "lives" } else { "dead" })?;
                }
            }
            "cursor" => {
                let name = args.next_pos().ok_or("which name?")?.value.clone();
                let query = RangeQuery {
                    revision: args.lookup_parse("rev")?.unwrap_or(0),
                    limit: args.lookup_parse("limit")?.unwrap_or(0),
                    ..RangeQuery::new(next_range(&mut args)?)
                };
                match self.reader.cursor(&query, Effort::Now) {
                    Ok(cursor) => drop(self.cursors.insert(name, cursor)),
                    Err(error) => writeln!(out, "error: {error}")?,
                }
            }
            "next" => {
                let name = args.next_pos().ok_or("which cursor?")?.value.clone();
                let keys_max = args.lookup_parse("keys")?.unwrap_or(2);
                let cursor = self.cursors.get_mut(&name).ok_or("no such cursor")?;
                match cursor.next(keys_max, 1 << 20, Effort::Disk) {
                    Ok(items) => items.iter().for_each(|item| show_item(item, &mut out)),
                    Err(error) => writeln!(out, "error: {error}")?,
                }
                let end = match (cursor.is_finished(), cursor.more()) {
                    (false, _) => "there is more",
                    (true, true) => "the limit is reached",
                    (true, false) => "that was all",
                };
                writeln!(out, "of revision {}: {end}", cursor.revision())?;
            }
            "close" => {
                let name = &args.next_pos().ok_or("which cursor?")?.value;
                self.cursors.remove(name).ok_or("no such cursor")?;
            }
            "pin" => {
                let name = args.next_pos().ok_or("which name?")?.value.clone();
                let revision = args.next_pos().ok_or("which revision?")?.parse()?;
                match self.reader.pin(revision) {
                    Ok(pin) => drop(self.pins.insert(name, pin)),
                    Err(error) => writeln!(out, "error: {error}")?,
                }
            }
            "unpin" => {
                let name = &args.next_pos().ok_or("which pin?")?.value;
                self.pins.remove(name).ok_or("no such pin")?;
            }
            "pins" => {
                for (name, pin) in &self.pins {
                    let state = if pin.is_revoked() { "revoked" } else { "holds" };
                    writeln!(out, "{name}: {state} {}", pin.revision())?;
                }
            }
            "tick" => {
                let count = args.next_pos().ok_or("how often?")?.parse()?;
                let idle: u64 = args.lookup_parse("idle")?.ok_or("how long?")?;
                let revoked: usize = (0..count).map(|_: u64| self.reader.tick_pins(idle)).sum();
                writeln!(out, "{revoked} revoked")?;
            }
            "history" => {
                let range = next_range(&mut args)?;
                let effort = effort(&mut args)?;
                let mut from = args.lookup_parse("from")?.ok_or("from where?")?;
                let events_max = args.lookup_parse("events")?.unwrap_or(100);
                let portion = Portion { events_max, bytes_max: 1 << 20 };
                while from <= self.reader.revision() {
                    match self.reader.history(&range, from, portion, effort) {
                        Ok(history) => {
                            let lines: Vec<String> = history.events.iter().map(line).collect();
                            from = history.next;
                            writeln!(out, "{}; next {from}", lines.join(", "))?;
                        }
                        Err(error) => {
                            writeln!(out, "error: {error}")?;
                            break;
                        }
                    }
                }
            }
            "leases" => {
                self.keyspace.leased(&mut |key, lease| {
                    writeln!(out, "{} on {lease}", String::from_utf8_lossy(key)).unwrap();
                });
            }
            "restart" => {
                let value_bytes_max = args.lookup_parse("values")?.unwrap_or(512 << 20);
                self.disk.crash();
                let options = Options { value_bytes_max, ..Options::default() };
                *self = Play::on(self.disk.clone(), options);
                let (revision, mark) = (self.keyspace.revision(), self.keyspace.compact_revision());
                writeln!(out, "revision {revision}, compacted at {mark}, entry {}", self.entry)?;
            }
            "exchange" => {
                let disk = Memory::new(2);
                let (keyspace, flusher, entry) = open(&disk, Options::default());
                let batch = self.keyspace.exchange(keyspace);
                let (first, last, is_gap) = (batch.first, batch.last, batch.is_gap);
                writeln!(out, "revisions {first} to {last}, a gap: {is_gap}")?;
                (self.disk, self.flusher, self.entry) = (disk, flusher, entry);
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
                let is_previous_wanted = args.next_pos().is_some();
                for event in &self.last.as_ref().ok_or("no batch yet")?.events {
                    let previous = match is_previous_wanted {
                        true => match self.reader.previous(event, Effort::Disk)? {
                            Some(bytes) => {
                                let before = key_value::decode(&bytes).ok_or("no KeyValue")?;
                                format!(", before {}", text(&before.value))
                            }
                            None => ", before nothing".to_owned(),
                        },
                        false => String::new(),
                    };
                    writeln!(out, "{}{previous}", line(event))?;
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
                let revision = self.reader.revision();
                assert!(self.watchers.insert(id, range, from, revision, filter));
            }
            "catch_up" => {
                let effort = effort(&mut args)?;
                while let Some(lagging) = self.watchers.take_next() {
                    let (id, next) = (&lagging.id, lagging.next);
                    match self.reader.history(&lagging.range, next, PORTION, effort) {
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
        ["delete", key, ref end @ ..] => {
            let end = end.first().copied().unwrap_or_default();
            let range = KeyRange::parse(key.to_owned().into(), range_end(end));
            let deleted = txn.delete_range(&range, &mut |_, _| {});
            if deleted != 1 {
                writeln!(out, "{deleted} deleted")?;
            }
        }
        ["get", key] => match txn.get(key.as_bytes())? {
            Some(item) => show_item(&item, out),
            None => writeln!(out, "{key} is not there")?,
        },
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
            result.items.iter().for_each(|item| show_item(item, out));
            let RangeResult { count, revision, current_revision, more, .. } = result;
            let more = if more { ", and there is more" } else { "" };
            writeln!(out, "count {count} at revision {revision} of {current_revision}{more}")
                .unwrap();
        }
    }
}

fn show_item(item: &Item, out: &mut String) {
    let key_value = key_value::decode(&item.bytes).expect("a KeyValue");
    let lease = match key_value.lease {
        0 => String::new(),
        lease => format!(" lease={lease}"),
    };
    writeln!(
        out,
        "{}={} mod={}.{} create={} version={}{lease}",
        text(&item.key),
        text(&key_value.value),
        item.revision.main,
        item.revision.sub,
        item.create,
        item.version
    )
    .unwrap();
}

/// `effort=now|disk`: as a shard reads, or as a read thread does.
fn effort(args: &mut ArgumentConsumer) -> Result<Effort, Box<dyn Error>> {
    match args.lookup("effort").map_or("now", |arg| &arg.value) {
        "now" => Ok(Effort::Now),
        "disk" => Ok(Effort::Disk),
        other => Err(format!("no effort {other}").into()),
    }
}

/// KEY and END, of which the second may be missing.
fn next_range(args: &mut ArgumentConsumer<'_>) -> Result<KeyRange, Box<dyn Error>> {
    let key = args.next_pos().ok_or("which key?")?.value.clone();
    let end = args.next_pos().map_or_else(String::new, |arg| arg.value.clone());
    Ok(KeyRange::parse(key.into(), range_end(&end)))
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
