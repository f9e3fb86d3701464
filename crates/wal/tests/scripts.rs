//! Readable lives of a log: each script under `tests/scripts` shows one promise that the log makes.
//!
//! ```text
//!   create [segment=N] [member=N]     a new log, its files of N bytes (4096)
//!   open [from=N]                     the log as a restart finds it, with a state that holds all up to N
//!   close                             its owner lets go of it
//!   append A..B term=T [size=N] [vote=V commit=C]
//!                                     entries, of N bytes of data, and the state behind them, in one write
//!   state term=T vote=V commit=C      the state alone
//!   snapshot N term=T                 a snapshot record
//!   sync                              then all is durable
//!   release N                         the files whose entries lie at or below N go
//!   read A..B [bytes=N]               a reader's entries
//!   status                            what the open log says of itself
//!   files                             the files, with what is preallocated and what is written
//!   dump                              all records
//!   restored applied=N                what raft would be told at a start from here
//!   begin                             opens log and snapshots together (`snap`)
//!   keep N term=T, drop below=N       keeps a snapshot in a file; removes older ones
//! ```
//!
//! Commands about the disk: `vfs/tests/script/mod.rs`.

#![allow(clippy::unwrap_used)]

#[path = "../../vfs/tests/script/mod.rs"]
mod script;

use std::error::Error;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::Path;

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Runner};
use raft::{ConfState, Entry, EntryKind, HardState, Index, Snapshot, SnapshotMetadata, Term};
use script::{Disk, short};
use vfs::Vfs;
use wal::dump::{Record, dump};
use wal::{Metadata, Options, Reader, Recovered, SnapshotRecord, Wal, snap};

const LOG: &str = "/wal";
const SNAPSHOTS: &str = "/snap";

#[test]
fn scripts() {
    script::run_all(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts"), Play::new);
}

struct Play {
    disk: Disk,
    segment_bytes: u64,
    wal: Option<Wal>,
    /// Of the log that was opened last.
    reader: Option<Reader>,
    recovered: Option<Recovered>,
}

impl Play {
    fn new() -> Play {
        Play { disk: Disk::new(), segment_bytes: 4096, wal: None, reader: None, recovered: None }
    }

    fn log(&mut self) -> Result<&mut Wal, Box<dyn Error>> {
        self.wal.as_mut().ok_or_else(|| "no log is open".into())
    }

    fn options(&self) -> Options {
        Options { segment_bytes: self.segment_bytes }
    }

    fn opened(&mut self, wal: Wal, recovered: Recovered, out: &mut String) -> std::fmt::Result {
        let (base, base_term) = recovered.base;
        let entries = match (recovered.entries.first(), recovered.entries.last()) {
            (Some(first), Some(last)) => format!("entries {}..{}", first.index, last.index),
            _ => "no entries".to_owned(),
        };
        let terms: Vec<String> = recovered
            .term_runs
            .iter()
            .map(|(first, term)| format!(", term {term} from {first}"))
            .collect();
        writeln!(out, "opened: {entries} after {base} of term {base_term}{}", terms.concat())?;
        writeln!(out, "  {}", show_state(&recovered.hard_state))?;
        for snapshot in &recovered.snapshots {
            writeln!(out, "  {}", show_snapshot(snapshot))?;
        }
        if let Some(torn) = &recovered.torn {
            let (file, at, lost) = (torn.file.display(), torn.offset, torn.lost_bytes);
            writeln!(out, "  torn: {file} ends at {at} now, {lost} bytes were behind")?;
        }
        self.reader = Some(wal.reader());
        self.wal = Some(wal);
        self.recovered = Some(recovered);
        Ok(())
    }

    fn act(&mut self, command: &Command, out: &mut String) -> Result<(), Box<dyn Error>> {
        let mut args = command.consume_args();
        match command.name.as_str() {
            "create" => {
                self.segment_bytes = args.lookup_parse("segment")?.unwrap_or(4096);
                let metadata =
                    Metadata { node_id: args.lookup_parse("member")?.unwrap_or(1), cluster_id: 2 };
                let log = Path::new(LOG);
                let wal = Wal::create(self.disk.vfs(), log, metadata, self.options())?;
                self.reader = Some(wal.reader());
                self.wal = Some(wal);
            }
            "open" => {
                self.wal = None;
                let from = Index(args.lookup_parse("from")?.unwrap_or(0));
                let (wal, recovered) =
                    Wal::open(self.disk.vfs(), Path::new(LOG), from, self.options())?;
                self.opened(wal, recovered, out)?;
            }
            "close" => self.wal = None,
            "append" => {
                let range = parse_range(&mut args)?;
                let term = Term(args.lookup_parse("term")?.ok_or("of which term?")?);
                let size = args.lookup_parse("size")?.unwrap_or(40);
                let entries: Vec<Entry> = range.map(|index| entry(index, term, size)).collect();
                let state = match args.lookup_parse("commit")? {
                    None => None,
                    Some(commit) => {
                        let vote = args.lookup_parse("vote")?.unwrap_or(1);
                        Some(HardState { term, vote, commit: Index(commit) })
                    }
                };
                self.log()?.append(&entries, state.as_ref())?;
            }
            "state" => {
                let state = HardState {
                    term: Term(args.lookup_parse("term")?.ok_or("which term?")?),
                    vote: args.lookup_parse("vote")?.unwrap_or(0),
                    commit: Index(args.lookup_parse("commit")?.unwrap_or(0)),
                };
                self.log()?.append(&[], Some(&state))?;
            }
            "snapshot" => {
                let metadata = parse_snapshot(&mut args)?;
                self.log()?.save_snapshot(&SnapshotRecord {
                    index: metadata.index,
                    term: metadata.term,
                    conf_state: Some(metadata.conf_state),
                })?;
            }
            "sync" => self.log()?.sync()?,
            "release" => {
                let up_to = Index(args.next_pos().ok_or("up to where?")?.parse()?);
                writeln!(out, "{} files went", self.log()?.release(up_to)?)?;
            }
            "read" => {
                let range = parse_range(&mut args)?;
                let bytes_max = args.lookup_parse("bytes")?.unwrap_or(u64::MAX);
                let reader = self.reader.as_ref().ok_or("no reader")?;
                let (low, high) = (Index(*range.start()), Index(range.end() + 1));
                for entry in reader.read(low, high, bytes_max)? {
                    writeln!(out, "{}", show_entry(&entry))?;
                }
            }
            "status" => {
                let wal = self.log()?;
                let ((base, term), last) = (wal.base(), wal.last_index());
                writeln!(out, "after {base} of term {term}, up to {last}")?;
                writeln!(out, "{}", show_state(&wal.hard_state()))?;
                writeln!(out, "{} bytes in {} files", wal.bytes(), wal.segments())?;
            }
            "files" => {
                for name in self.disk.memory.list(Path::new(LOG))? {
                    let bytes = script::read(&self.disk.memory, &Path::new(LOG).join(&name))?;
                    let zeros = bytes.iter().rev().take_while(|&&byte| byte == 0).count();
                    let (len, written) = (bytes.len(), (bytes.len() - zeros).next_multiple_of(8));
                    writeln!(out, "{}: {len} bytes, {written} written", short(&name))?;
                }
            }
            "dump" => {
                let mut file = String::new();
                for line in dump(&self.disk.memory, Path::new(LOG))? {
                    if line.file != file {
                        writeln!(out, "{}", short(&line.file))?;
                        file = line.file;
                    }
                    let record = match &line.record {
                        Ok(record) => show_record(record),
                        Err(wrong) => format!("!! {wrong}"),
                    };
                    writeln!(out, "{:5} {record}", line.offset)?;
                }
            }
            "restored" => {
                let applied = Index(args.lookup_parse("applied")?.unwrap_or(0));
                let recovered = self.recovered.clone().ok_or("nothing was opened")?;
                let restored = recovered.into_restored(applied, ConfState::default());
                writeln!(out, "{}", show_state(&restored.hard_state))?;
            }
            "begin" => {
                self.wal = None;
                let metadata = Metadata { node_id: 1, cluster_id: 2 };
                let (log, snapshots) = (Path::new(LOG), Path::new(SNAPSHOTS));
                let (wal, snapshot, recovered) =
                    snap::open(self.disk.vfs(), log, snapshots, metadata, self.options())?;
                let text = String::from_utf8_lossy(&snapshot.data);
                writeln!(out, "begun with: {}", if text.is_empty() { "nothing" } else { &text })?;
                self.opened(wal, recovered, out)?;
            }
            "keep" => {
                let metadata = parse_snapshot(&mut args)?;
                let data = format!("the state at {}", metadata.index);
                let snapshot = Snapshot { data: data.into(), metadata };
                let memory = self.disk.memory.clone();
                snap::keep(&memory, Path::new(SNAPSHOTS), self.log()?, &snapshot)?;
            }
            "drop" => {
                let below = Index(args.lookup_parse("below")?.ok_or("below what?")?);
                snap::release(&self.disk.memory, Path::new(SNAPSHOTS), below)?;
            }
            other => return Err(format!("unknown command {other}").into()),
        }
        args.reject_rest()
    }
}

impl Runner for Play {
    fn run(&mut self, command: &Command) -> Result<String, Box<dyn Error>> {
        if let Some(out) = self.disk.run(command, Path::new(LOG))? {
            return Ok(out);
        }
        let mut out = String::new();
        self.disk.begin(command);
        let result = self.act(command, &mut out);
        out.insert_str(0, &self.disk.end());
        match result {
            Ok(()) => Ok(short(&out)),
            Err(error) => Err(format!("{}{}", out, short(&error.to_string())).into()),
        }
    }
}

fn entry(index: u64, term: Term, size: usize) -> Entry {
    let mut data = format!("entry {index} of term {term} ").into_bytes();
    data.resize(size.max(data.len()), b'x');
    Entry { kind: EntryKind::Normal, term, index: Index(index), data: Bytes::from(data) }
}

fn parse_range(args: &mut ArgumentConsumer<'_>) -> Result<RangeInclusive<u64>, Box<dyn Error>> {
    let text = &args.next_pos().ok_or("which indexes?")?.value;
    let (low, high) = text.split_once("..").unwrap_or((text, text));
    Ok(low.parse()?..=high.parse()?)
}

fn parse_snapshot(args: &mut ArgumentConsumer<'_>) -> Result<SnapshotMetadata, Box<dyn Error>> {
    Ok(SnapshotMetadata {
        index: Index(args.next_pos().ok_or("at which index?")?.parse()?),
        term: Term(args.lookup_parse("term")?.ok_or("of which term?")?),
        conf_state: ConfState { voters: vec![1, 2, 3], ..ConfState::default() },
    })
}

fn show_entry(entry: &Entry) -> String {
    format!("entry {} of term {}, {} bytes", entry.index, entry.term, entry.data.len())
}

fn show_state(state: &HardState) -> String {
    format!("state: term {}, vote {}, commit {}", state.term, state.vote, state.commit)
}

fn show_snapshot(snapshot: &SnapshotRecord) -> String {
    let voters =
        snapshot.conf_state.as_ref().map_or("nobody".into(), |conf| format!("{:?}", conf.voters));
    format!("snapshot {} of term {}, voters {voters}", snapshot.index, snapshot.term)
}

fn show_record(record: &Record) -> String {
    match record {
        Record::Crc(crc) => format!("crc {crc:08x}"),
        Record::Metadata(metadata) => {
            format!("metadata: member {}, cluster {}", metadata.node_id, metadata.cluster_id)
        }
        Record::State(state) => show_state(state),
        Record::Entry(entry) => show_entry(entry),
        Record::Snapshot(snapshot) => show_snapshot(snapshot),
        Record::Unknown { kind, data } => format!("type {kind}, {} bytes", data.len()),
    }
}
