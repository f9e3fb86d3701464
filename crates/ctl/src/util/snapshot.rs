//! `util snapshot`: whether a snapshot is whole, and what it is of.

use std::collections::BTreeSet;
use std::path::Path;

use state_machine::tables;
use store::inspect::Item;
use store::{ImportError, Part, SnapshotReader};
use vfs::{File, OpenMode, Vfs};

use super::page::Page;
use super::store::record_in_hex;
use super::{Format, Lines, arguments, failed, format, path};
use crate::flags::Parsed;
use crate::print::json::Object;
use crate::print::table::{Table, draw, size};
use crate::{Exit, Streams};

/// Bytes read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// What etcdutl prints of a snapshot.
struct Status {
    hash: u32,
    revision: i64,
    keys: u64,
    bytes: u64,
    version: String,
}

pub(super) fn status(vfs: &dyn Vfs, parsed: &Parsed, streams: &Streams) -> Result<(), Exit> {
    let format = format(parsed, &[Format::Simple, Format::Json, Format::Table, Format::Hex])?;
    let [file] = arguments(parsed)?;
    let given = path(file);
    let file = vfs.open(given, OpenMode::Read).map_err(|error| failed(given, error))?;
    refuse_others(&*file, given)?;
    if format == Format::Hex {
        let (mut lines, mut page) = (Lines::new(streams), Page::new(false));
        let read = read(&*file, given, &mut |part| {
            in_hex(&part, &mut page);
            let shown = lines.push(page.text.trim_end());
            page.text.clear();
            shown
        });
        // What was whole is shown, whatever came behind.
        lines.flush()?;
        return read.map(drop);
    }
    let status = read(&*file, given, &mut |_| Ok(()))?;
    let total = i64::try_from(status.bytes).unwrap_or(i64::MAX);
    let cells = [
        format!("{:x}", status.hash),
        status.revision.to_string(),
        status.keys.to_string(),
        size(total),
        status.version.clone(),
    ];
    let text = match format {
        Format::Json => {
            Object::new()
                .number("hash", status.hash)
                .number("revision", status.revision)
                .number("totalKey", status.keys)
                .number("totalSize", status.bytes)
                .text("version", &status.version)
                .end()
                + "\n"
        }
        Format::Table => {
            let columns = ["hash", "revision", "total keys", "total size", "version"].to_vec();
            draw(&Table { columns, rows: vec![cells.to_vec()] })
        }
        _ => format!("{}\n", cells.join(", ")),
    };
    streams.print(text.as_bytes())
}

/// Reads and checks all of it, or up to what `see` fails with.
fn read(
    file: &dyn File,
    given: &Path,
    see: &mut dyn FnMut(Part<'_>) -> Result<(), Exit>,
) -> Result<Status, Exit> {
    let fail = |error: std::io::Error| failed(given, error);
    let wrong = |error: ImportError| Exit::error(format!("{}: {error}", given.display()));
    let mut reader = SnapshotReader::new();
    let (mut keys, mut version, mut newest, mut hash) = (BTreeSet::new(), String::new(), (0, 0), 0);
    let mut buffer = vec![0; PIECE_BYTES];
    let mut offset = 0;
    let mut stopped = None;
    loop {
        let len = file.read_at(&mut buffer, offset).map_err(fail)?;
        if len == 0 {
            break;
        }
        offset += len as u64;
        let taken = reader.feed(&buffer[..len], &mut |part| {
            match part {
                Part::Record { item: Item::Put { .. }, key, .. } => {
                    keys.insert(key.to_vec());
                }
                Part::Record { item: Item::Tombstone { .. }, key, .. } => {
                    keys.remove(key);
                }
                // Rows come in any order; the newest counts.
                Part::Record { item: Item::Row { table, index, seq }, key, payload, .. }
                    if table == tables::CLUSTER
                        && key == tables::CLUSTER_VERSION_KEY
                        && (index, seq) > newest =>
                {
                    newest = (index, seq);
                    version = String::from_utf8_lossy(&payload[key.len()..]).into_owned();
                }
                Part::End { crc, .. } => hash = crc,
                _ => {}
            }
            see(part).map_err(|exit| {
                stopped = Some(exit);
                ImportError::Failed(std::io::ErrorKind::Other.into())
            })
        });
        taken.map_err(|error| stopped.take().unwrap_or_else(|| wrong(error)))?;
    }
    let header = reader.finish().map_err(wrong)?;
    Ok(Status { hash, revision: header.revision, keys: keys.len() as u64, bytes: offset, version })
}

/// Says what a file is that is no snapshot of ours, if that can be told.
fn refuse_others(file: &dyn File, given: &Path) -> Result<(), Exit> {
    let fail = |error| failed(given, error);
    let len = file.len().map_err(fail)?;
    let mut start = [0; 32];
    let read = file.read_at(&mut start, 0).map_err(fail)?;
    let start = &start[..read];
    if let Some(bolt) = bolt(file, len).map_err(fail)? {
        let digest = match len % 512 {
            32 => "with the checksum that `etcdctl snapshot save` puts behind it",
            _ => "without the checksum of a saved snapshot: taken out of a data directory",
        };
        return Err(Exit::new(
            Exit::BAD_FEATURE,
            format!(
                "{} is a snapshot of etcd: a bbolt database with pages of {bolt} bytes, {len} bytes in all, {digest}; such \
                 a file cannot be read yet",
                given.display()
            ),
        ));
    }
    let what = match start {
        [] => "is empty",
        _ if start.starts_with(b"QSegment") => "is a segment of a store: see `util store dump`",
        _ if start.starts_with(b"QManifst") => "is a store's manifest: see `util store status`",
        _ if start.iter().all(|byte| *byte == 0) => "begins with zeros",
        _ if given.extension().is_some_and(|end| end == "wal") => {
            "is a file of a write-ahead log: see `util wal dump`"
        }
        _ => return Ok(()),
    };
    Err(Exit::error(format!("{} {what}, and no snapshot", given.display())))
}

/// The size of a bbolt database's pages, if the file is one: one of its first two pages says so.
fn bolt(file: &dyn File, len: u64) -> std::io::Result<Option<u32>> {
    const PAGE_HEADER_BYTES: u64 = 16;
    const MAGIC: u32 = 0xed0c_daed;
    let sizes = (9..=16).map(|shift| 1 << shift);
    for start in std::iter::once(0).chain(sizes).filter(|start| start + PAGE_HEADER_BYTES < len) {
        let mut meta = [0; 12];
        if file.read_at(&mut meta, start + PAGE_HEADER_BYTES)? < meta.len() {
            continue;
        }
        let word =
            |at: usize| u32::from_le_bytes([meta[at], meta[at + 1], meta[at + 2], meta[at + 3]]);
        if word(0) == MAGIC {
            return Ok(Some(word(8)));
        }
    }
    Ok(None)
}

fn in_hex(part: &Part<'_>, page: &mut Page) {
    let magic = || (4, "\"QChk\"".to_owned());
    match part {
        Part::Header { offset, header, chunk } => {
            let widths = [
                magic(),
                (8, "kind 1, the header; chunk 0".to_owned()),
                (8, "bytes of it, crc".to_owned()),
                (4, "version 1".to_owned()),
                (8, format!("cluster {:x}", header.cluster_id)),
                (16, format!("index {}, term {}", header.applied_index, header.applied_term)),
                (
                    16,
                    format!(
                        "revision {}, compacted at {}",
                        header.revision, header.compact_revision
                    ),
                ),
            ];
            page.pieces(*offset, chunk, &widths);
        }
        Part::Records { offset, head: bytes, len } => {
            let widths = [
                magic(),
                (8, "kind 2, records; number of the chunk".to_owned()),
                (8, format!("{len} bytes of records, crc")),
            ];
            page.pieces(*offset, bytes, &widths);
        }
        Part::Record { offset, item, key, meta, payload } => {
            record_in_hex(*offset, *item, key, meta, payload, page);
        }
        Part::End { offset, records, bytes, chunk, .. } => {
            let widths = [
                magic(),
                (8, "kind 3, the end; number of the chunk".to_owned()),
                (8, "bytes of it, crc".to_owned()),
                (16, format!("{records} records, {bytes} bytes")),
                (4, "crc of them all".to_owned()),
            ];
            page.pieces(*offset, chunk, &widths);
        }
    }
}
