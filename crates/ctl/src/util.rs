//! `quorate util`: tools that read a member's files, which must not be open in a running member for
//! what changes them; `wal dump` changes nothing.

use std::{ffi::OsString, io::Write, path::Path};

use prost::Message;
use proto::etcdserverpb::InternalRaftRequest;
use wal::dump::{Line, Record, dump};

use crate::{Exit, Streams, go};

const USAGE: &str = "\
Usage:
  quorate util wal dump [flags] <directory>

Prints the records of a write-ahead log, one per line: file, offset, kind, contents.

Flags:
      --from int      entries from this index on
      --kind string   only this kind: crc, metadata, state, entry, snapshot or unknown
      --to int        entries up to this index
";

/// Which records to print.
#[derive(Debug, Default)]
struct Filter {
    from: u64,
    to: Option<u64>,
    kind: Option<String>,
}

pub(crate) fn run(args: &[OsString], streams: &mut Streams) -> Result<(), Exit> {
    let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] | ["help" | "-h" | "--help"] => streams.print(USAGE.as_bytes()),
        ["wal", "dump", rest @ ..] if rest.contains(&"--help") => streams.print(USAGE.as_bytes()),
        ["wal", "dump", ..] => dump_wal(&args[2..], streams),
        other => {
            streams.complain(USAGE);
            Err(Exit::bad_arguments(format!("unknown command {:?}", other.join(" "))))
        }
    }
}

fn dump_wal(args: &[OsString], streams: &Streams) -> Result<(), Exit> {
    let (filter, directory) = read_arguments(args).map_err(Exit::bad_arguments)?;
    let vfs = vfs::os::Os;
    let directory = Path::new(directory);
    let fail =
        |error: std::io::Error| Exit::new(Exit::IO, format!("{}: {error}", directory.display()));
    let mut damaged = false;
    // Lines are gathered: a log has millions of records.
    let mut text = Vec::new();
    for line in dump(&vfs, directory).map_err(fail)? {
        damaged |= line.record.is_err();
        if filter.takes(&line) {
            writeln!(text, "{}", describe(&line)).map_err(Exit::output)?;
        }
        if text.len() >= 64 << 10 {
            streams.print(&text)?;
            text.clear();
        }
    }
    streams.print(&text)?;
    if damaged { Err(Exit::error("the log is damaged where it says so above")) } else { Ok(()) }
}

fn read_arguments(args: &[OsString]) -> Result<(Filter, &OsString), String> {
    let mut filter = Filter::default();
    let mut directory = None;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy();
        let Some(flag) = text.strip_prefix("--") else {
            if directory.replace(arg).is_some() {
                return Err("wal dump takes one directory".to_owned());
            }
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => {
                let value = args.next().ok_or(format!("flag needs an argument: --{flag}"))?;
                (flag.to_owned(), value.to_string_lossy().into_owned())
            }
        };
        let index = || value.parse().map_err(|_| format!("--{name}: {value:?} is no index"));
        match name.as_str() {
            "from" => filter.from = index()?,
            "to" => filter.to = Some(index()?),
            "kind" => filter.kind = Some(value),
            _ => return Err(format!("unknown flag: --{name}")),
        }
    }
    Ok((filter, directory.ok_or("wal dump needs the directory of a log")?))
}

impl Filter {
    /// What is wrong with the log is always shown.
    fn takes(&self, line: &Line) -> bool {
        let Ok(record) = &line.record else { return true };
        if self.kind.as_ref().is_some_and(|wanted| wanted != kind(record)) {
            return false;
        }
        match record {
            Record::Entry(entry) => {
                self.from <= entry.index.0 && self.to.is_none_or(|to| entry.index.0 <= to)
            }
            _ => true,
        }
    }
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

fn describe(line: &Line) -> String {
    let place = format!("{} {:>8}", line.file, line.offset);
    let record = match &line.record {
        Ok(record) => record,
        Err(why) => return format!("{place} damaged  {why}"),
    };
    let contents = match record {
        Record::Crc(crc) => format!("{crc:08x}"),
        Record::Metadata(metadata) => format!("{metadata:?}"),
        Record::State(state) => format!("{state:?}"),
        Record::Entry(entry) => {
            // Commands stand in entries of the ordinary kind, which is the default one.
            let command = match InternalRaftRequest::decode(entry.data.clone()) {
                Ok(request) if entry.kind == Default::default() && !entry.data.is_empty() => {
                    format!("{request:?}")
                }
                _ => go::quote(&entry.data),
            };
            let (index, term, bytes) = (entry.index.0, entry.term.0, entry.data.len());
            format!("index={index} term={term} {:?} {bytes} bytes {command}", entry.kind)
        }
        Record::Snapshot(snapshot) => format!("{snapshot:?}"),
        Record::Unknown { kind, data } => format!("type {kind}, {} bytes", data.len()),
    };
    format!("{place} {:<8} {contents}", kind(record))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn arguments_are_read() {
        let read = |line: &str| {
            let args: Vec<_> = line.split(' ').map(OsString::from).collect();
            read_arguments(&args).map(|(filter, directory)| {
                (filter.from, filter.to, filter.kind, directory.as_bytes().to_vec())
            })
        };
        let all = (3, Some(7), Some("entry".to_owned()), b"d".to_vec());
        assert_eq!(read("--from 3 d --to=7 --kind entry"), Ok(all));
        assert_eq!(read("d e").unwrap_err(), "wal dump takes one directory");
        assert_eq!(read("--from x d").unwrap_err(), "--from: \"x\" is no index");
        assert_eq!(read("--to 1").unwrap_err(), "wal dump needs the directory of a log");
    }
}
