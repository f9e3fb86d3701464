//! `util store`: what a member's state holds, and how it lies in the files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use prost::Message;
use proto::mvccpb::KeyValue;
use state_machine::tables;
use store::inspect::{Contents, Inspection, Item, MANIFEST_NAME, Piece};
use store::{Damage, Location, OpenError, Recovered, Revision};
use vfs::Vfs;

use super::page::Page;
use super::{
    Format, Found, Lines, Running, Span, arguments, find, format, key_of, lock, path, show, span,
    unsigned,
};
use crate::flags::Parsed;
use crate::print::json::{self, Object};
use crate::{Exit, Streams};

/// The store's directory, and the lock that keeps a member from starting on it.
fn locate(vfs: &dyn Vfs, given: &Path) -> Result<(Found, Option<Box<dyn vfs::Lock>>), Exit> {
    let found = find(vfs, given, "store", "store (a MANIFEST, and segments)", Inspection::is_part)?;
    match lock(vfs, &found.member) {
        Ok(lock) => Ok((found, lock)),
        Err(Running::Yes) => Err(Exit::error(format!(
            "a member runs on {}, and moves its files while they are read: stop the member, or copy the directory and look \
             at the copy (if it was copied at a bad moment, that is said: copy it again)",
            found.dir.display()
        ))),
        Err(Running::Unknown(exit)) => Err(exit),
    }
}

fn refused(error: OpenError) -> Exit {
    match error {
        OpenError::Io { .. } => Exit::new(Exit::IO, error),
        other => Exit::error(other),
    }
}

/// Which records to print.
struct Filter {
    from: Option<u64>,
    to: Option<u64>,
    span: Option<Span>,
    revision: Option<i64>,
    table: Option<u64>,
}

impl Filter {
    fn of(parsed: &Parsed) -> Result<Filter, Exit> {
        Ok(Filter {
            from: unsigned(parsed, "from")?,
            to: unsigned(parsed, "to")?,
            span: span(parsed)?,
            revision: parsed.is_set("rev").then(|| parsed.int("rev")),
            table: unsigned(parsed, "table")?,
        })
    }

    fn is_any(&self) -> bool {
        let by_index = self.from.is_some() || self.to.is_some();
        by_index || self.span.is_some() || self.revision.is_some() || self.table.is_some()
    }

    /// Whether a record passes. `frame` is the index of the frame's last entry, `before` that of the frame before.
    fn takes(&self, item: Item, key: &[u8], before: u64, frame: u64) -> bool {
        // The first and the last entry that the record can be of.
        let (low, high) = match item {
            Item::Row { index, .. } | Item::RowDelete { index, .. } => (index, index),
            // A segment that was written whole knows no indexes: then nothing can be ruled out.
            _ if frame == 0 => (0, u64::MAX),
            _ => (before + 1, frame),
        };
        let (revision, table) = match item {
            Item::Put { revision, .. } | Item::Tombstone { revision } => {
                (Some(revision.main), None)
            }
            Item::Compact { revision } => (Some(revision), None),
            Item::Row { table, .. } | Item::RowDelete { table, .. } => {
                (None, Some(u64::from(table)))
            }
        };
        let is_key = matches!(item, Item::Put { .. } | Item::Tombstone { .. });
        self.from.is_none_or(|from| from <= high)
            && self.to.is_none_or(|to| low <= to)
            && self.span.as_ref().is_none_or(|span| is_key && span.holds(key))
            && self.revision.is_none_or(|wanted| revision == Some(wanted))
            && self.table.is_none_or(|wanted| table == Some(wanted))
    }
}

pub(super) fn dump(vfs: &dyn Vfs, parsed: &Parsed, streams: &Streams) -> Result<(), Exit> {
    let format = format(parsed, &[Format::Simple, Format::Json, Format::Hex])?;
    let filter = Filter::of(parsed)?;
    let full = parsed.bool("full");
    let [dir] = arguments(parsed)?;
    let (found, _lock) = locate(vfs, path(dir))?;
    let inspection = Inspection::open(vfs, &found.dir).map_err(refused)?;
    let mut lines = Lines::new(streams);
    let mut damaged = false;
    let mut page = Page::new(full);
    if format == Format::Hex && !filter.is_any() {
        manifest_in_hex(&inspection, &mut page);
    }
    // The last index of the frame, of the one before it, and of the last one that knew its own.
    let (mut file, mut frame, mut before, mut last) = (String::new(), 0, 0, 0);
    inspection.walk(&mut |piece| {
        match &piece {
            Piece::Segment { number, .. } => file = Inspection::file_name(*number),
            Piece::Frame { index, .. } => {
                // Segments need not come in the order of their entries.
                before = if last < *index { last } else { 0 };
                frame = *index;
                last = last.max(frame);
            }
            Piece::Damage(_) => damaged = true,
            _ => {}
        }
        let is_shown = match &piece {
            Piece::Record { item, key, .. } => filter.takes(*item, key, before, frame),
            Piece::Damage(_) => true,
            Piece::FooterRow { .. } if format != Format::Hex => false,
            Piece::Block { .. } if format != Format::Hex => false,
            _ => !filter.is_any(),
        };
        if !is_shown {
            return Ok(());
        }
        match format {
            Format::Hex => {
                if filter.is_any() {
                    let (name, offset) = place(&piece);
                    page.heading(&format!("{file} at {offset:x}: {name}"));
                }
                in_hex(&file, &piece, &mut page);
                lines.push(page.text.trim_end())?;
                page.text.clear();
                Ok(())
            }
            Format::Json => lines.push(&in_json(&file, &piece)),
            _ => lines.push(&in_words(&file, &piece, full)),
        }
    })?;
    lines.flush()?;
    if damaged { Err(Exit::error("the store is damaged where it says so above")) } else { Ok(()) }
}

/// Name of the kind, and the place.
fn place(piece: &Piece<'_>) -> (&'static str, u64) {
    match piece {
        Piece::Segment { .. } => ("segment", 0),
        Piece::Frame { offset, .. } => ("frame", *offset),
        Piece::Record { offset, item, .. } => (item_name(*item), *offset),
        Piece::Block { offset, .. } => ("block", *offset),
        Piece::FooterRow { offset, .. } => ("row", *offset),
        Piece::Trailer { offset, .. } => ("trailer", *offset),
        Piece::End { offset, torn_bytes: 0 } => ("end", *offset),
        Piece::End { offset, .. } => ("torn", *offset),
        Piece::Damage(damage) => ("damaged", damage.offset),
    }
}

pub(super) fn item_name(item: Item) -> &'static str {
    match item {
        Item::Put { .. } => "put",
        Item::Tombstone { .. } => "delete",
        Item::Row { .. } => "row",
        Item::RowDelete { .. } => "row-delete",
        Item::Compact { .. } => "compact",
    }
}

/// What a record says. `payload` is whole.
pub(super) fn item_in_words(item: Item, key: &[u8], payload: &[u8], full: bool) -> String {
    let at = |revision: Revision| format!("rev={}.{}", revision.main, revision.sub);
    match item {
        Item::Put { revision, create, version, lease } => {
            let value = match KeyValue::decode(payload) {
                Ok(kv) => show(&kv.value, full),
                Err(_) => "(not a KeyValue)".to_owned(),
            };
            let lease = if lease == 0 { String::new() } else { format!(" lease={lease:x}") };
            let key = show(key, full);
            format!("{key}={value} {} create={create} version={version}{lease}", at(revision))
        }
        Item::Tombstone { revision } => format!("{} {}", show(key, full), at(revision)),
        Item::Row { table, index, .. } => {
            let value = payload.get(key.len()..).unwrap_or_default();
            let words = tables::describe(table, key, value)
                .unwrap_or_else(|_| format!("{}={}", show(key, full), show(value, full)));
            format!("index={index} {}: {words}", table_name(table))
        }
        Item::RowDelete { table, index, .. } => {
            format!("index={index} {}: {}", table_name(table), show(key, full))
        }
        Item::Compact { revision } => format!("rev={revision}"),
    }
}

fn table_name(table: u8) -> String {
    tables::name(table).map_or(format!("table {table}"), str::to_owned)
}

fn in_words(file: &str, piece: &Piece<'_>, full: bool) -> String {
    let (name, offset) = place(piece);
    let contents = match piece {
        Piece::Segment { bytes, is_sealed, .. } => {
            format!("{bytes} bytes, {}", if *is_sealed { "sealed" } else { "growing" })
        }
        Piece::Frame { index, term, records, len, .. } => {
            format!("index={index} term={term} {records} records, {len} bytes")
        }
        Piece::Record { item, key, payload, .. } => item_in_words(*item, key, payload, full),
        Piece::Block { len, .. } => format!("{len} bytes"),
        Piece::FooterRow { item, payload_offset, key, .. } => {
            format!("{} {} at {payload_offset}", item_name(*item), show(key, full))
        }
        Piece::Trailer { rows, blocks, applied, revision, compact_revision, .. } => format!(
            "index={} term={} rev={revision} compacted={compact_revision}, {rows} rows in {blocks} blocks",
            applied.0, applied.1
        ),
        Piece::End { torn_bytes: 0, .. } => String::new(),
        Piece::End { torn_bytes, .. } => {
            format!("{torn_bytes} bytes that a start cuts off, as after a crash")
        }
        Piece::Damage(damage) => damage.what.clone(),
    };
    format!("{file} {offset:>8} {name:<10} {contents}").trim_end().to_owned()
}

fn in_json(file: &str, piece: &Piece<'_>) -> String {
    let (name, offset) = place(piece);
    let object = Object::new().text("file", file).number("offset", offset);
    let object = match piece {
        Piece::Damage(damage) => return object.text("damage", &damage.what).end(),
        _ => object.text("kind", name),
    };
    match piece {
        Piece::Segment { number, bytes, is_sealed, .. } => object
            .number("segment", *number)
            .number("bytes", *bytes)
            .raw("sealed", &is_sealed.to_string()),
        Piece::Frame { index, term, synced_to, records, len, .. } => object
            .number("index", *index)
            .number("term", *term)
            .number("syncedTo", *synced_to)
            .number("records", *records)
            .number("bytes", *len),
        Piece::Record { item, key, payload, .. } => item_in_json(object, *item, key, payload),
        Piece::Trailer { rows, blocks, applied, revision, compact_revision, .. } => object
            .number("index", applied.0)
            .number("term", applied.1)
            .number("revision", *revision)
            .number("compactRevision", *compact_revision)
            .number("rows", *rows)
            .number("blocks", *blocks),
        Piece::End { torn_bytes, .. } => object.number("tornBytes", *torn_bytes),
        Piece::Block { .. } | Piece::FooterRow { .. } | Piece::Damage(_) => object,
    }
    .end()
}

fn item_in_json(object: Object, item: Item, key: &[u8], payload: &[u8]) -> Object {
    let at = |object: Object, revision: Revision| {
        object.number("revision", revision.main).number("sub", revision.sub)
    };
    let object = match item {
        Item::Compact { .. } => object,
        _ => object.raw("key", &json::bytes(key)),
    };
    match item {
        Item::Put { revision, create, version, lease } => {
            let object = match KeyValue::decode(payload) {
                Ok(kv) => object.raw("value", &json::bytes(&kv.value)),
                Err(_) => object.raw("payload", &json::bytes(payload)),
            };
            at(object, revision)
                .number("create", create)
                .number("version", version)
                .maybe_number("lease", lease)
        }
        Item::Tombstone { revision } => at(object, revision),
        Item::Row { table, index, .. } => {
            let value = payload.get(key.len()..).unwrap_or_default();
            let object = object
                .raw("value", &json::bytes(value))
                .number("table", table)
                .number("index", index);
            match tables::describe(table, key, value) {
                Ok(words) => object.text("says", &words),
                Err(_) => object,
            }
        }
        Item::RowDelete { table, index, .. } => {
            object.number("table", table).number("index", index)
        }
        Item::Compact { revision } => object.number("revision", revision),
    }
}

fn manifest_in_hex(inspection: &Inspection<'_>, page: &mut Page) {
    let manifest = inspection.manifest();
    let (bytes, identity) = (inspection.manifest_bytes(), manifest.identity);
    let mut widths = vec![
        (8, "\"QManifst\"".to_owned()),
        (8, format!("version 1, {} sealed", manifest.sealed.len())),
        (8, format!("cluster {:x}", identity.cluster_id)),
        (8, format!("member {:x}", identity.member_id)),
        (8, format!("generation {}", manifest.generation)),
        (16, format!("index {}, term {}", manifest.applied.0, manifest.applied.1)),
        (16, format!("revision {}, compacted at {}", manifest.revision, manifest.compact_revision)),
        (
            8,
            format!(
                "segment {} grows, {} bytes were durable",
                manifest.growing, manifest.growing_synced
            ),
        ),
    ];
    for named in &manifest.sealed {
        widths.push((
            12,
            format!("segment {}, {} bytes, crc of its trailer", named.segment, named.len),
        ));
    }
    widths.push((4, "crc".to_owned()));
    page.heading(MANIFEST_NAME);
    page.pieces(0, bytes, &widths);
}

fn in_hex(file: &str, piece: &Piece<'_>, page: &mut Page) {
    match piece {
        Piece::Segment { number, header, is_sealed, .. } => {
            page.heading(&format!("{file}: {}", if *is_sealed { "sealed" } else { "growing" }));
            let widths = [
                (8, "\"QSegment\""),
                (8, &*format!("version 1, segment {number}")),
                (16, "cluster, member"),
                (28, "zeros"),
                (4, "crc"),
            ];
            page.pieces(0, header, &widths.map(|(width, meaning)| (width, meaning.to_owned())));
        }
        Piece::Frame { offset, index, term, synced_to, records, len, header } => {
            page.heading(&format!("{file} at {offset:x}: frame"));
            let widths = [
                (8, format!("\"QFrm\", {len} bytes of records")),
                (16, format!("index {index}, term {term}")),
                (8, format!("{synced_to} bytes were durable, {records} records")),
                (8, "crc of the records, crc of this header".to_owned()),
            ];
            page.pieces(*offset, header, &widths);
        }
        Piece::Record { offset, item, key, meta, payload } => {
            record_in_hex(*offset, *item, key, meta, payload, page);
        }
        Piece::Block { offset, head, len } => {
            page.heading(&format!("{file} at {offset:x}: block of the footer"));
            let widths = [(4, format!("{len} bytes of rows")), (4, "their crc".to_owned())];
            page.pieces(*offset, head, &widths);
        }
        Piece::FooterRow { offset, item, payload_offset, key, bytes } => {
            let meaning =
                format!("{} {}, payload at {payload_offset:x}", item_name(*item), show(key, false));
            page.piece(*offset, bytes, &meaning);
        }
        Piece::Trailer { offset, at, blocks, rows, applied, revision, compact_revision, bytes } => {
            page.heading(&format!("{file} at {offset:x}: trailer"));
            let widths = [
                (8, "\"QFooter1\"".to_owned()),
                (8, format!("the first block is at {at:x}, there are {blocks}")),
                (8, format!("{rows} rows")),
                (16, format!("index {}, term {}", applied.0, applied.1)),
                (16, format!("revision {revision}, compacted at {compact_revision}")),
                (8, "crc of the blocks' heads, crc of this trailer".to_owned()),
            ];
            page.pieces(*offset, bytes, &widths);
        }
        Piece::End { offset, torn_bytes: 0 } => {
            page.heading(&format!("{file} at {offset:x}: nothing was written behind"));
        }
        Piece::End { offset, torn_bytes } => {
            page.heading(&format!(
                "{file} at {offset:x}: torn, a start cuts off {torn_bytes} bytes"
            ));
        }
        Piece::Damage(damage) => page.heading(&format!("{file}: damaged: {damage}")),
    }
}

pub(super) fn record_in_hex(
    offset: u64,
    item: Item,
    key: &[u8],
    meta: &[u8],
    payload: &[u8],
    page: &mut Page,
) {
    let words = item_in_words(item, key, payload, false);
    page.piece(offset, meta, &format!("{} {words}", item_name(item)));
    let meaning = match item {
        Item::Put { .. } => "payload: the KeyValue",
        Item::Row { .. } => "payload: key, value",
        _ => "payload: the key",
    };
    page.piece(offset + meta.len() as u64, payload, meaning);
}

/// What lives of the keyspace: gathered from its records in ascending order of revision.
#[derive(Default)]
struct Living {
    mark: i64,
    /// Of each key the newest put at or below the mark.
    below: BTreeMap<Vec<u8>, Location>,
    /// Of each segment the records that live, and their bytes.
    segments: BTreeMap<u32, (u64, u64)>,
    /// Keys that are there now.
    keys: BTreeSet<Vec<u8>>,
}

impl Living {
    fn take(&mut self, record: Recovered<'_>) {
        let (key, revision, location, is_put) = match record {
            Recovered::Put { key, revision, location, .. } => (key, revision, location, true),
            Recovered::Tombstone { key, revision, location } => (key, revision, location, false),
        };
        match is_put {
            true => drop(self.keys.insert(key.to_vec())),
            false => drop(self.keys.remove(key)),
        }
        if revision.main > self.mark {
            self.count(&location);
        } else if is_put {
            self.below.insert(key.to_vec(), location);
        } else {
            self.below.remove(key);
        }
    }

    fn count(&mut self, location: &Location) {
        let counts = self.segments.entry(location.place.segment).or_default();
        counts.0 += 1;
        counts.1 += u64::from(location.len);
    }
}

/// What lies in a segment.
struct Segment {
    number: u32,
    is_sealed: bool,
    bytes: u64,
    used: u64,
    frames: u64,
    records: u64,
    payload_bytes: u64,
}

pub(super) fn status(vfs: &dyn Vfs, parsed: &Parsed, streams: &Streams) -> Result<(), Exit> {
    let format = format(parsed, &[Format::Simple, Format::Json])?;
    let [dir] = arguments(parsed)?;
    let (found, _lock) = locate(vfs, path(dir))?;
    let inspection = Inspection::open(vfs, &found.dir).map_err(refused)?;

    let mut segments: Vec<Segment> = Vec::new();
    let mut damage: Vec<Damage> = Vec::new();
    inspection.walk(&mut |piece| {
        look(&piece, &mut segments, &mut damage);
        Ok::<(), Exit>(())
    })?;
    // The mark is known when all was read; what dies by it is found in a second pass.
    let contents = inspection.read(&mut |_| {});
    let mut living = Living::default();
    if let Ok(contents) = &contents {
        living.mark = contents.compact_revision;
        inspection.read(&mut |record| living.take(record)).map_err(refused)?;
        let below: Vec<_> = std::mem::take(&mut living.below).into_values().collect();
        let rows = contents.rows.iter().map(|(_, location)| *location);
        below.into_iter().chain(rows).for_each(|location| living.count(&location));
    }
    let names = vfs.list(&found.dir).map_err(|error| super::failed(&found.dir, error))?;
    let is_named = |name: &str| {
        name == MANIFEST_NAME
            || segments.iter().any(|segment| Inspection::file_name(segment.number) == name)
    };
    let beside: Vec<_> = names.into_iter().filter(|name| !is_named(name)).collect();

    let mut lines = Lines::new(streams);
    match format {
        Format::Json => {
            lines.push(&status_in_json(
                &inspection,
                &contents,
                &living,
                &segments,
                &damage,
                &beside,
            ))?;
        }
        _ => status_in_words(
            &inspection,
            &contents,
            &living,
            &segments,
            &damage,
            &beside,
            &mut lines,
        )?,
    }
    lines.flush()?;
    match (damage.is_empty(), contents) {
        (true, Ok(_)) => Ok(()),
        (_, Err(error)) => Err(refused(error)),
        (false, Ok(_)) => Err(Exit::error("the store is damaged")),
    }
}

fn look(piece: &Piece<'_>, segments: &mut Vec<Segment>, damage: &mut Vec<Damage>) {
    if let Piece::Segment { number, bytes, is_sealed, .. } = piece {
        segments.push(Segment {
            number: *number,
            is_sealed: *is_sealed,
            bytes: *bytes,
            used: 0,
            frames: 0,
            records: 0,
            payload_bytes: 0,
        });
    }
    if let Piece::Damage(found) = piece {
        damage.push(found.clone());
    }
    let Some(segment) = segments.last_mut() else { return };
    match piece {
        Piece::Frame { .. } => segment.frames += 1,
        Piece::Record { item, payload, .. } if !matches!(item, Item::Compact { .. }) => {
            segment.records += 1;
            segment.payload_bytes += payload.len() as u64;
        }
        Piece::Trailer { .. } => segment.used = segment.bytes,
        Piece::End { offset, .. } => segment.used = *offset,
        _ => {}
    }
}

/// How many rows each table has.
fn tables_of(contents: &Contents) -> Vec<(String, u64)> {
    let mut counts: BTreeMap<u8, u64> = BTreeMap::new();
    contents.rows.iter().for_each(|(row, _)| *counts.entry(row.table).or_default() += 1);
    counts.into_iter().map(|(table, count)| (table_name(table), count)).collect()
}

fn status_in_words(
    inspection: &Inspection<'_>,
    contents: &Result<Contents, OpenError>,
    living: &Living,
    segments: &[Segment],
    damage: &[Damage],
    beside: &[String],
    lines: &mut Lines<'_>,
) -> Result<(), Exit> {
    let manifest = inspection.manifest();
    lines.push(&format!("cluster    {:x}", manifest.identity.cluster_id))?;
    lines.push(&format!("member     {:x}", manifest.identity.member_id))?;
    let (generation, sealed) = (manifest.generation, manifest.sealed.len());
    lines.push(&format!("manifest   generation {generation}, {sealed} sealed segments"))?;
    if let Ok(contents) = contents {
        lines.push(&format!(
            "applied    index {}, term {}",
            contents.applied.0, contents.applied.1
        ))?;
        let (revision, mark) = (contents.revision, contents.compact_revision);
        lines.push(&format!("revision   {revision}, compacted at {mark}"))?;
        lines.push(&format!("keys       {}", living.keys.len()))?;
        let tables = tables_of(contents);
        let tables: Vec<_> = tables.iter().map(|(name, count)| format!("{name} {count}")).collect();
        lines.push(&format!("rows       {}", tables.join(", ")))?;
    }
    for segment in segments {
        let name = Inspection::file_name(segment.number);
        let state = if segment.is_sealed { "sealed" } else { "growing" };
        let Segment { used, bytes, frames, records, payload_bytes, .. } = segment;
        let mut line = format!(
            "segment    {name}: {state}, {used} used of {bytes} bytes, {frames} frames, {records} records"
        );
        if contents.is_ok() {
            let (alive, alive_bytes) =
                living.segments.get(&segment.number).copied().unwrap_or_default();
            line.push_str(&format!(
                ", {alive} alive and {} dead ({alive_bytes} of {payload_bytes} bytes alive)",
                records.saturating_sub(alive)
            ));
        }
        lines.push(&line)?;
    }
    for name in beside {
        lines.push(&format!("beside     {name}"))?;
    }
    if let Ok(Contents { torn: Some(torn), .. }) = contents {
        let (offset, lost) = (torn.offset, torn.lost_bytes);
        let file = torn.file.display();
        lines.push(&format!(
            "torn       {file} at byte {offset}: {lost} bytes that a start cuts off, as after a crash"
        ))?;
    }
    for damage in damage {
        lines.push(&format!("damage     {damage}"))?;
    }
    Ok(())
}

fn status_in_json(
    inspection: &Inspection<'_>,
    contents: &Result<Contents, OpenError>,
    living: &Living,
    segments: &[Segment],
    damage: &[Damage],
    beside: &[String],
) -> String {
    let manifest = inspection.manifest();
    let mut object = Object::new()
        .number("cluster", manifest.identity.cluster_id)
        .number("member", manifest.identity.member_id)
        .number("generation", manifest.generation);
    if let Ok(contents) = contents {
        let tables = tables_of(contents)
            .into_iter()
            .fold(Object::new(), |object, (name, count)| object.number(&name, count));
        object = object
            .number("index", contents.applied.0)
            .number("term", contents.applied.1)
            .number("revision", contents.revision)
            .number("compactRevision", contents.compact_revision)
            .number("keys", living.keys.len() as u64)
            .raw("rows", &tables.end());
        if let Some(torn) = &contents.torn {
            let torn = Object::new().number("offset", torn.offset).number("bytes", torn.lost_bytes);
            object = object.raw("torn", &torn.end());
        }
    }
    let segment = |segment: &Segment| {
        let mut object = Object::new()
            .number("segment", segment.number)
            .raw("sealed", &segment.is_sealed.to_string())
            .number("bytes", segment.bytes)
            .number("used", segment.used)
            .number("frames", segment.frames)
            .number("records", segment.records)
            .number("payloadBytes", segment.payload_bytes);
        if contents.is_ok() {
            let (alive, bytes) = living.segments.get(&segment.number).copied().unwrap_or_default();
            object = object.number("aliveRecords", alive).number("aliveBytes", bytes);
        }
        object.end()
    };
    let broken = |damage: &Damage| {
        let file = damage.file.display().to_string();
        Object::new()
            .text("file", &file)
            .number("offset", damage.offset)
            .text("what", &damage.what)
            .end()
    };
    object
        .raw("segments", &json::list(segments.iter().map(segment).collect()))
        .raw("beside", &json::list(beside.iter().map(|name| json::string(name)).collect()))
        .raw("damage", &json::list(damage.iter().map(broken).collect()))
        .end()
}

pub(super) fn get(vfs: &dyn Vfs, parsed: &Parsed, streams: &Streams) -> Result<(), Exit> {
    let format = format(parsed, &[Format::Simple, Format::Json])?;
    let full = parsed.bool("full");
    let wanted = parsed.int("rev");
    let [dir, key] = arguments(parsed)?;
    let key = key_of(key)?;
    let span = if parsed.bool("prefix") { Span::prefix(&key) } else { Span::key(&key) };
    let (found, _lock) = locate(vfs, path(dir))?;
    let inspection = Inspection::open(vfs, &found.dir).map_err(refused)?;
    // Of each key the newest change at or below the revision that is asked for, if that is a put.
    let mut kept: BTreeMap<Vec<u8>, Location> = BTreeMap::new();
    let contents = inspection.read(&mut |record| match record {
        Recovered::Put { key, revision, location, .. } => {
            if span.holds(key) && (wanted <= 0 || revision.main <= wanted) {
                kept.insert(key.to_vec(), location);
            }
        }
        Recovered::Tombstone { key, revision, .. } => {
            if wanted <= 0 || revision.main <= wanted {
                kept.remove(key);
            }
        }
    });
    let contents = contents.map_err(refused)?;
    // A store without a change is at revision 1, as etcd's.
    let (newest, mark) = (contents.revision.max(1), contents.compact_revision);
    if wanted > newest {
        return Err(Exit::error(format!("revision {wanted} is to come: the store is at {newest}")));
    }
    if wanted < 0 || (wanted > 0 && wanted < mark) {
        return Err(Exit::error(format!(
            "revision {wanted} is forgotten: the store is compacted at {mark}"
        )));
    }
    let mut lines = Lines::new(streams);
    for location in kept.values() {
        let payload = contents.reader.read(location).map_err(Exit::error)?;
        let kv = KeyValue::decode(payload).map_err(|_| {
            let (segment, offset) = (location.place.segment, location.place.offset);
            Exit::error(format!(
                "{} at byte {offset}: not a KeyValue",
                Inspection::file_name(segment)
            ))
        })?;
        match format {
            Format::Json => lines.push(&json::kv(&kv))?,
            _ => {
                let (key, value) = (show(&kv.key, full), show(&kv.value, full));
                let KeyValue { create_revision, mod_revision, version, lease, .. } = kv;
                let lease = if lease == 0 { String::new() } else { format!(" lease={lease:x}") };
                lines.push(&format!(
                    "{key}={value} create={create_revision} mod={mod_revision} version={version}{lease}"
                ))?;
            }
        }
    }
    lines.flush()
}
