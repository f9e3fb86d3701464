//! `util wal`: the records of a log, and what it comes to.

use std::path::Path;

use vfs::{OpenMode, Vfs};
use wal::codec::{Fields, Value};
use wal::dump::{Entry, EntryKind, Line, Record};
use wal::{OpenError, SnapshotRecord};

use super::command::Request;
use super::page::{Form, Page, Schema};
use super::{
    Format, Found, Lines, Running, Span, arguments, failed, find, format, lock, path, span,
    unsigned,
};
use crate::flags::Parsed;
use crate::print::json::{self, Object};
use crate::{Exit, Streams, go};

/// Which records to print.
struct Filter {
    from: Option<u64>,
    to: Option<u64>,
    kind: Option<String>,
    span: Option<Span>,
    revision: Option<i64>,
}

const KINDS: [&str; 6] = ["crc", "metadata", "state", "entry", "snapshot", "unknown"];

impl Filter {
    fn of(parsed: &Parsed) -> Result<Filter, Exit> {
        let kind = parsed.is_set("kind").then(|| parsed.text("kind").to_owned());
        if let Some(kind) = kind.as_deref().filter(|kind| !KINDS.contains(kind)) {
            return Err(Exit::bad_arguments(format!(
                "--kind: {kind:?} is none of {}",
                KINDS.join(", ")
            )));
        }
        Ok(Filter {
            from: unsigned(parsed, "from")?,
            to: unsigned(parsed, "to")?,
            kind,
            span: span(parsed)?,
            revision: parsed.is_set("rev").then(|| parsed.int("rev")),
        })
    }

    fn takes(&self, record: &Record) -> bool {
        if self.kind.as_ref().is_some_and(|wanted| wanted != kind(record)) {
            return false;
        }
        let is_within = |index: u64| {
            self.from.is_none_or(|from| from <= index) && self.to.is_none_or(|to| index <= to)
        };
        let asks_for_contents = self.span.is_some() || self.revision.is_some();
        match record {
            Record::Entry(entry) => {
                is_within(entry.index.0)
                    && (!asks_for_contents || {
                        let request = Request::of(entry);
                        self.span.as_ref().is_none_or(|span| request.touches(span))
                            && self.revision.is_none_or(|revision| request.names(revision))
                    })
            }
            Record::Snapshot(snapshot) => is_within(snapshot.index.0) && !asks_for_contents,
            _ => self.from.is_none() && self.to.is_none() && !asks_for_contents,
        }
    }
}

pub(super) fn dump(vfs: &dyn Vfs, parsed: &Parsed, streams: &Streams) -> Result<(), Exit> {
    let format = format(parsed, &[Format::Simple, Format::Json, Format::Hex])?;
    let filter = Filter::of(parsed)?;
    let full = parsed.bool("full");
    let [dir] = arguments(parsed)?;
    let Found { dir, .. } = locate(vfs, path(dir), streams)?;
    let mut damaged = false;
    let mut lines = Lines::new(streams);
    for line in wal::dump::dump(vfs, &dir).map_err(|error| failed(&dir, error))? {
        damaged |= line.record.is_err();
        if line.record.as_ref().is_ok_and(|record| !filter.takes(record)) {
            continue;
        }
        match format {
            Format::Json => lines.push(&in_json(&line))?,
            Format::Hex => lines.push(in_hex(vfs, &dir, &line, full)?.trim_end())?,
            _ => lines.push(&in_words(&line, full))?,
        }
    }
    lines.flush()?;
    if damaged { Err(Exit::error("the log is damaged where it says so above")) } else { Ok(()) }
}

/// The log's directory. That a member runs on it is said: what it writes now may look torn.
fn locate(vfs: &dyn Vfs, given: &Path, streams: &Streams) -> Result<Found, Exit> {
    let is_log = |name: &str| name.ends_with(".wal");
    let found = find(vfs, given, "wal", "log (files that end in .wal)", is_log)?;
    match lock(vfs, &found.member) {
        // Nothing of a log is rewritten, so nobody need be kept from starting.
        Ok(lock) => drop(lock),
        Err(Running::Yes) => streams.complain(
            "A member runs on this log: what it writes while it is read may be missing, or look torn, at the end.\n",
        ),
        Err(Running::Unknown(exit)) => return Err(exit),
    }
    Ok(found)
}

fn kind(record: &Record) -> &'static str {
    match record {
        Record::Crc(_) => "crc",
        Record::Metadata(_) => "metadata",
        Record::State(_) => "state",
        Record::Entry(_) => "entry",
        Record::Snapshot(_) => "snapshot",
        Record::Unknown { .. } => "unknown",
    }
}

fn entry_kind(entry: &Entry) -> &'static str {
    match entry.kind {
        EntryKind::Normal => "normal",
        EntryKind::ConfChange => "conf-change",
        EntryKind::ConfChangeV2 => "conf-change-v2",
    }
}

/// Lists of a configuration that have members.
fn configuration(snapshot: &SnapshotRecord) -> Vec<(&'static str, &[u64])> {
    let Some(state) = &snapshot.conf_state else { return Vec::new() };
    let lists = [
        ("voters", state.voters.as_slice()),
        ("learners", &state.learners),
        ("voters_outgoing", &state.voters_outgoing),
        ("learners_next", &state.learners_next),
    ];
    lists.into_iter().filter(|(_, ids)| !ids.is_empty()).collect()
}

fn in_words(line: &Line, full: bool) -> String {
    let place = format!("{} {:>8}", line.file, line.offset);
    let record = match &line.record {
        Ok(record) => record,
        Err(why) => return format!("{place} damaged  {why}"),
    };
    let contents = match record {
        Record::Crc(crc) => format!("{crc:08x}"),
        Record::Metadata(metadata) => {
            format!("member={:x} cluster={:x}", metadata.node_id, metadata.cluster_id)
        }
        Record::State(state) => {
            format!("term={} vote={:x} commit={}", state.term, state.vote, state.commit)
        }
        Record::Entry(entry) => {
            let (index, term, bytes) = (entry.index, entry.term, entry.data.len());
            let request = Request::of(entry).text(full);
            format!("index={index} term={term} {} {bytes} bytes: {request}", entry_kind(entry))
        }
        Record::Snapshot(snapshot) => snapshot_in_words(snapshot),
        Record::Unknown { kind, data } => {
            let shown = if full { data.as_slice() } else { &data[..data.len().min(64)] };
            format!("type {kind}, {} bytes: {}", data.len(), go::quote(shown))
        }
    };
    format!("{place} {:<8} {contents}", kind(record))
}

fn snapshot_in_words(snapshot: &SnapshotRecord) -> String {
    let mut text = format!("index={} term={}", snapshot.index, snapshot.term);
    for (name, ids) in configuration(snapshot) {
        let ids: Vec<_> = ids.iter().map(|id| format!("{id:x}")).collect();
        text.push_str(&format!(" {name}={}", ids.join(",")));
    }
    text
}

fn snapshot_in_json(object: Object, snapshot: &SnapshotRecord) -> Object {
    let object = object.number("index", snapshot.index.0).number("term", snapshot.term.0);
    configuration(snapshot).into_iter().fold(object, |object, (name, ids)| {
        object.raw(name, &json::list(ids.iter().map(u64::to_string).collect()))
    })
}

fn in_json(line: &Line) -> String {
    let object = Object::new().text("file", &line.file).number("offset", line.offset);
    let record = match &line.record {
        Ok(record) => record,
        Err(why) => return object.text("damage", why).end(),
    };
    let object = object.number("bytes", line.bytes).text("kind", kind(record));
    match record {
        Record::Crc(crc) => object.number("crc", *crc),
        Record::Metadata(metadata) => {
            object.number("member", metadata.node_id).number("cluster", metadata.cluster_id)
        }
        Record::State(state) => object
            .number("term", state.term.0)
            .number("vote", state.vote)
            .number("commit", state.commit.0),
        Record::Entry(entry) => object
            .number("index", entry.index.0)
            .number("term", entry.term.0)
            .text("type", entry_kind(entry))
            .number("size", entry.data.len() as u64)
            .raw("request", &Request::of(entry).json()),
        Record::Snapshot(snapshot) => snapshot_in_json(object, snapshot),
        Record::Unknown { kind, data } => {
            object.number("type", *kind).raw("data", &json::bytes(data))
        }
    }
    .end()
}

const CONF_STATE: Schema = Schema(&[
    (1, "voter", Form::Id),
    (2, "learner", Form::Id),
    (3, "outgoing voter", Form::Id),
    (4, "learner to be", Form::Id),
    (5, "auto_leave", Form::Number),
]);
const METADATA: Schema = Schema(&[(1, "member", Form::Id), (2, "cluster", Form::Id)]);
const STATE: Schema =
    Schema(&[(1, "term", Form::Number), (2, "vote", Form::Id), (3, "commit", Form::Number)]);
const SNAPSHOT: Schema = Schema(&[
    (1, "index", Form::Number),
    (2, "term", Form::Number),
    (3, "configuration", Form::Message(&CONF_STATE)),
]);
const CHANGE: Schema = Schema(&[
    (1, "id", Form::Id),
    (2, "change", Form::Number),
    (3, "member", Form::Id),
    (4, "context", Form::Bytes),
]);
const REQUEST: Schema = Schema(&[
    (1, "id", Form::Id),
    (
        4,
        "put",
        Form::Message(&Schema(&[
            (1, "key", Form::Bytes),
            (2, "value", Form::Bytes),
            (3, "lease", Form::Id),
        ])),
    ),
    (
        5,
        "delete",
        Form::Message(&Schema(&[(1, "key", Form::Bytes), (2, "range_end", Form::Bytes)])),
    ),
    (6, "txn", Form::Bytes),
    (
        7,
        "compaction",
        Form::Message(&Schema(&[(1, "revision", Form::Number), (2, "physical", Form::Number)])),
    ),
    (8, "lease grant", Form::Message(&Schema(&[(1, "ttl", Form::Number), (2, "id", Form::Id)]))),
    (9, "lease revoke", Form::Message(&Schema(&[(1, "id", Form::Id)]))),
    (100, "header", Form::Message(&Schema(&[(1, "id", Form::Id), (2, "user", Form::Bytes)]))),
    (1300, "cluster version", Form::Message(&Schema(&[(1, "version", Form::Bytes)]))),
    (
        1301,
        "member attributes",
        Form::Message(&Schema(&[
            (1, "member", Form::Id),
            (
                2,
                "attributes",
                Form::Message(&Schema(&[(1, "name", Form::Bytes), (2, "client URL", Form::Bytes)])),
            ),
        ])),
    ),
]);

/// An entry's schema, by what it asks for.
fn entry_schema(entry: &Entry) -> Schema {
    match entry.kind {
        EntryKind::ConfChange => Schema(&[
            (1, "type", Form::Number),
            (2, "term", Form::Number),
            (3, "index", Form::Number),
            (4, "data", Form::Message(&CHANGE)),
        ]),
        _ => Schema(&[
            (1, "type", Form::Number),
            (2, "term", Form::Number),
            (3, "index", Form::Number),
            (4, "data", Form::Message(&REQUEST)),
        ]),
    }
}

/// The frame's bytes beside what they mean.
fn in_hex(vfs: &dyn Vfs, dir: &Path, line: &Line, full: bool) -> Result<String, Exit> {
    let mut page = Page::new(full);
    let record = match &line.record {
        Ok(record) => record,
        Err(why) => {
            page.heading(&format!("{} at {:x}: damaged: {why}", line.file, line.offset));
            return Ok(page.text);
        }
    };
    let path = dir.join(&line.file);
    // A frame was found there, so this is no longer than a file may be.
    let mut bytes = vec![0; line.bytes as usize];
    vfs.open(&path, OpenMode::Read)
        .and_then(|file| file.read_exact_at(&mut bytes, line.offset))
        .map_err(|error| failed(&path, error))?;
    let title = match record {
        Record::Entry(entry) => format!("entry {}: {}", entry.index, Request::of(entry).text(full)),
        record => kind(record).to_owned(),
    };
    page.heading(&format!("{} at {:x}: {title}", line.file, line.offset));
    let (word, rest) = bytes.split_at(8);
    let len =
        (u64::from_le_bytes(word.try_into().expect("eight bytes")) & ((1 << 56) - 1)) as usize;
    let (frame, padding) = rest.split_at(len.min(rest.len()));
    page.piece(
        line.offset,
        word,
        &format!("a record of {len} bytes, {} of padding", padding.len()),
    );
    let at = line.offset + 8;
    let data = record_data(frame);
    let head = frame.len() - data.len();
    let schema = Schema(&[(1, "type", Form::Number), (2, "crc", Form::Id)]);
    let described = page.message(at, &frame[..head_of_data(frame, data)], &schema).and_then(|()| {
        if head > head_of_data(frame, data) {
            let from = head_of_data(frame, data);
            page.piece(
                at + from as u64,
                &frame[from..head],
                &format!("data, {} bytes", data.len()),
            );
        }
        let at = at + head as u64;
        match record {
            Record::Metadata(_) => page.message(at, data, &METADATA),
            Record::State(_) => page.message(at, data, &STATE),
            Record::Snapshot(_) => page.message(at, data, &SNAPSHOT),
            Record::Entry(entry) => {
                let mark = page.text.len();
                page.message(at, data, &entry_schema(entry)).or_else(|_| {
                    // The entry's data are no message: then they are only bytes.
                    page.text.truncate(mark);
                    page.message(
                        at,
                        data,
                        &Schema(&[
                            (1, "type", Form::Number),
                            (2, "term", Form::Number),
                            (3, "index", Form::Number),
                            (4, "data", Form::Bytes),
                        ]),
                    )
                })
            }
            Record::Crc(_) | Record::Unknown { .. } => {
                page.piece(at, data, "");
                Ok(())
            }
        }
    });
    if described.is_err() {
        page.piece(at, frame, "");
    }
    if !padding.is_empty() {
        page.piece(line.offset + 8 + len as u64, padding, "padding");
    }
    Ok(page.text)
}

/// The data of a record, which stand at its end where writers that we know put them; else nothing.
fn record_data(frame: &[u8]) -> &[u8] {
    let mut fields = Fields(frame);
    while let Ok(Some((number, value))) = fields.next() {
        if let (3, Value::Bytes(data)) = (number, value)
            && fields.0.is_empty()
        {
            return data;
        }
    }
    &[]
}

/// Where the field of the data begins.
fn head_of_data(frame: &[u8], data: &[u8]) -> usize {
    let mut fields = Fields(frame);
    loop {
        let at = frame.len() - fields.0.len();
        match fields.next() {
            Ok(Some((3, Value::Bytes(found)))) if std::ptr::eq(found, data) => return at,
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return frame.len(),
        }
    }
}

pub(super) fn status(vfs: &dyn Vfs, parsed: &Parsed, streams: &Streams) -> Result<(), Exit> {
    let format = format(parsed, &[Format::Simple, Format::Json])?;
    let [dir] = arguments(parsed)?;
    let Found { dir, .. } = locate(vfs, path(dir), streams)?;
    let status = wal::status::status(vfs, &dir).map_err(|error| match error {
        OpenError::Io(error) => failed(&dir, error),
        other => Exit::error(other),
    })?;
    let (base, last) = (status.base, status.last);
    // An entry at the base is in the log only to give its term.
    let first = base.0.next();
    let state = &status.hard_state;
    let bytes: u64 = status.files.iter().map(|file| file.bytes).sum();
    let used: u64 = status.files.iter().filter_map(|file| file.used).sum();
    let damage = status.damage.as_ref().map(ToString::to_string);
    let mut lines = Lines::new(streams);
    if format == Format::Json {
        let file = |file: &wal::status::FileStatus| {
            let used = file.used.map(|used| used.to_string());
            let object = Object::new().text("name", &file.name).number("first", file.first.0);
            object.number("bytes", file.bytes).maybe_raw("used", used).end()
        };
        let snapshot = |snapshot: &SnapshotRecord| snapshot_in_json(Object::new(), snapshot).end();
        let mut object = Object::new();
        if let Some(metadata) = status.metadata {
            object =
                object.number("cluster", metadata.cluster_id).number("member", metadata.node_id);
        }
        object = object
            .number("first", first.0)
            .number("last", last.0.0)
            .number("lastTerm", last.1.0)
            .number("term", state.term.0)
            .number("vote", state.vote)
            .number("commit", state.commit.0)
            .number("bytes", bytes)
            .number("used", used)
            .raw("files", &json::list(status.files.iter().map(file).collect()))
            .raw("snapshots", &json::list(status.snapshots.iter().map(snapshot).collect()))
            .raw(
                "leftovers",
                &json::list(status.leftovers.iter().map(|name| json::string(name)).collect()),
            );
        if let Some(torn) = &status.torn {
            let torn = Object::new().number("offset", torn.offset).number("bytes", torn.lost_bytes);
            object = object.raw("torn", &torn.end());
        }
        if let Some(damage) = &damage {
            object = object.text("damage", damage);
        }
        lines.push(&object.end())?;
    } else {
        match status.metadata {
            Some(metadata) => {
                lines.push(&format!("cluster    {:x}", metadata.cluster_id))?;
                lines.push(&format!("member     {:x}", metadata.node_id))?;
            }
            None => lines.push("cluster and member could not be read")?,
        }
        match last.0 >= first {
            true => lines.push(&format!("entries    {first} to {}, of term {}", last.0, last.1))?,
            false => lines.push(&format!("entries    none after index {}", base.0))?,
        }
        lines.push(&format!(
            "state      term {}, vote {:x}, commit {}",
            state.term, state.vote, state.commit
        ))?;
        for snapshot in &status.snapshots {
            lines.push(&format!("snapshot   {}", snapshot_in_words(snapshot)))?;
        }
        lines
            .push(&format!("bytes      {used} used of {bytes} in {} files", status.files.len()))?;
        for file in &status.files {
            let used = file.used.map_or("not read".to_owned(), |used| format!("{used} used"));
            lines.push(&format!("file       {}: {used} of {}", file.name, file.bytes))?;
        }
        for name in &status.leftovers {
            lines.push(&format!("left over  {name}"))?;
        }
        if let Some(torn) = &status.torn {
            let (offset, lost) = (torn.offset, torn.lost_bytes);
            lines.push(&format!(
                "torn       {} at byte {offset}: {lost} bytes that a start cuts off, as after a crash",
                torn.file.display()
            ))?;
        }
        if let Some(damage) = &damage {
            lines.push(&format!("damage     {damage}"))?;
        }
    }
    lines.flush()?;
    if damage.is_some() { Err(Exit::error("the log is damaged")) } else { Ok(()) }
}
