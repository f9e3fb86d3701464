//! Readable lives of a store: each script under `tests/scripts` shows one promise that the store makes.
//!
//! ```text
//!   open [cluster=N] [member=N]      the store as a start finds it; a new one if there is none
//!   close                            its owner lets go of it
//!   elsewhere                        goes on with an empty disk, what was streamed in hand
//!   put KEY VALUE [size=N]           an entry that changes one key; the value is repeated up to so many bytes
//!   delete KEY, compact, nothing     an entry that deletes a key, compacts at the present revision, changes nothing
//!   row TABLE KEY VALUE [size=N], unrow TABLE KEY
//!   entry CHANGE...                  an entry of several: put/K/V delete/K row/T/K/V unrow/T/K compact
//!   frame                            cuts a frame; it waits for its turn
//!   write                            writes the frames that wait
//!   flush                            both
//!   lose                             the first frame that waits is lost
//!   sync, roll                       makes the written durable; lets the next frame begin a segment
//!   status                           indexes, marks and sizes
//!   state                            every key with the revisions that can be read, from disk, and every row
//!   reclaim [all] [slice=N]          one step of reclaim, or all of them; to keep within bounds, or everything=yes
//!   hold KEY, read                   looks a value's place up, and takes a view; reads it by the view, and without
//!   scrub [slice=N]                  one slice of scrubbing
//!   set-aside, lend-spare            what the owner does about a full disk
//!   snapshot [chunk=N] [without=KEY] begins to stream a snapshot, and the first chunk
//!   stream                           the rest
//!   import [end=N] [flip=N] [piece=N] [finish=no]
//!                                    what was streamed, up to some byte, with one changed, becomes the store
//!   abandon                          gives an import up
//! ```
//!
//! Commands about the disk: `vfs/tests/script/mod.rs`.

#[path = "../../../vfs/tests/script/mod.rs"]
mod script;

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use goldenscript::{Command, Runner};
use script::Disk;
use store::{Damage, Frame, Goal, Location, Reclaimed, Revision, Snapshot, View, WriteError};
use vfs::Vfs;

use crate::member::{Change, Member, Stopped, dir, options};

#[test]
fn scripts() {
    script::run_all(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts"), Play::new);
}

struct Play {
    disk: Disk,
    member: Option<Member>,
    /// Frames that were cut, each with the compaction mark at its end.
    frames: Vec<(Frame, i64)>,
    held: Option<(Location, View)>,
    snapshot: Option<(Snapshot, Vec<u8>)>,
    /// The key whose records a snapshot leaves out.
    without: String,
}

impl Play {
    fn new() -> Play {
        let disk = Disk::new();
        disk.memory.create_dir_all(dir().parent().unwrap()).unwrap();
        disk.memory.sync_dir(Path::new("/")).unwrap();
        let (frames, without) = (Vec::new(), String::new());
        Play { disk, member: None, frames, held: None, snapshot: None, without }
    }

    fn member(&mut self) -> Result<&mut Member, Box<dyn Error>> {
        self.member.as_mut().ok_or_else(|| "no store is open".into())
    }

    fn cut_frame(&mut self, out: &mut String) -> Result<(), Box<dyn Error>> {
        let member = self.member()?;
        let mark = member.state.mark;
        match member.builder.take_frame() {
            None => writeln!(out, "no frame")?,
            Some(frame) => {
                let bytes = frame.bytes();
                match frame.applied() {
                    Some((index, _)) => writeln!(out, "frame up to {index}, {bytes} bytes")?,
                    None => writeln!(out, "frame of notes alone")?,
                }
                self.frames.push((frame, mark));
            }
        }
        Ok(())
    }

    fn write(&mut self, out: &mut String) -> Result<(), Box<dyn Error>> {
        while !self.frames.is_empty() {
            let (mut frame, mark) = self.frames.remove(0);
            let member = self.member()?;
            match member.flusher.write(&frame) {
                Ok(written) => {
                    let (index, unsynced) = (written.applied.0, written.unsynced_bytes);
                    if let Some(sealed) = written.sealed {
                        writeln!(out, "sealed, durable up to {}", sealed.index)?;
                    }
                    writeln!(out, "written up to {index}, {unsynced} bytes not durable")?;
                    member.written = index;
                    member.on_written(mark);
                }
                Err(WriteError::Full) => {
                    member.flusher.note(&mut frame);
                    self.frames.insert(0, (frame, mark));
                    writeln!(out, "no room, the frame waits")?;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn act(&mut self, command: &Command, out: &mut String) -> Result<(), Box<dyn Error>> {
        let mut args = command.consume_args();
        match command.name.as_str() {
            "open" => {
                (self.member, self.held) = (None, None);
                self.frames.clear();
                let mut options = options();
                options.cluster_id = args.lookup_parse("cluster")?.unwrap_or(options.cluster_id);
                options.member_id = args.lookup_parse("member")?.unwrap_or(options.member_id);
                let member = Member::open_with(&self.disk.memory, options)?;
                let (applied, revision) = (member.state.applied, member.state.revision);
                let (mark, records) = (member.state.mark, member.recovered);
                writeln!(
                    out,
                    "opened: applied {applied}, revision {revision}, compacted at {mark}, {records} records"
                )?;
                if let Some(torn) = &member.torn {
                    let (file, at, lost) = (torn.file.display(), torn.offset, torn.lost_bytes);
                    writeln!(out, "torn: {file} ends at {at} now, {lost} bytes were behind")?;
                }
                self.member = Some(member);
            }
            "close" => self.member = None,
            "elsewhere" => {
                let Play { snapshot, without, .. } = std::mem::replace(self, Play::new());
                *self = Play { snapshot, without, ..Play::new() };
            }
            "put" | "delete" | "row" | "unrow" | "compact" | "nothing" => {
                let mut words = vec![command.name.clone()];
                let size = args.lookup_parse("size")?;
                words.extend(args.rest_pos().iter().map(|arg| arg.value.clone()));
                if let (Some(size), Some(value)) = (size, words.last_mut()) {
                    *value = value.chars().cycle().take(size).collect();
                }
                let changes = match words[0].as_str() {
                    "nothing" => vec![],
                    _ => vec![parse_change(&words)?],
                };
                self.member()?.entry(&changes);
            }
            "entry" => {
                let mut changes = Vec::new();
                for arg in args.rest_pos() {
                    let words: Vec<String> = arg.value.split('/').map(Into::into).collect();
                    changes.push(parse_change(&words)?);
                }
                self.member()?.entry(&changes);
            }
            "frame" => self.cut_frame(out)?,
            "write" => self.write(out)?,
            "lose" => drop(self.frames.remove(0)),
            "flush" => {
                let before = out.len();
                self.cut_frame(out)?;
                if !self.frames.is_empty() {
                    out.truncate(before);
                }
                self.write(out)?;
            }
            "sync" => {
                let synced = self.member()?.flusher.sync()?;
                writeln!(out, "durable up to {}", synced.index)?;
            }
            "roll" => self.member()?.builder.roll(),
            "status" => {
                let member = self.member()?;
                let sizes = member.sizes();
                let (applied, written) = (member.state.applied, member.written);
                writeln!(out, "applied {applied}, written {written}")?;
                let (all, live) = (sizes.db_size, sizes.db_size_in_use);
                writeln!(out, "{all} bytes on disk, {live} of them live")?;
            }
            "state" => {
                let member = self.member()?;
                member.check();
                for (key, revisions) in member.read_all() {
                    let shown: Vec<String> = revisions
                        .iter()
                        .map(|(main, value)| match value {
                            Some(value) => format!("{main}: {}", abbreviate(value)),
                            None => format!("{main}: deleted"),
                        })
                        .collect();
                    writeln!(out, "{key} {}", shown.join(", "))?;
                }
                for ((table, key), value) in &member.rows {
                    writeln!(out, "row {table}/{key} {}", abbreviate(value))?;
                }
            }
            "reclaim" => {
                let everything = args.lookup_parse::<String>("everything")?.is_some();
                let goal = if everything { Goal::Everything } else { Goal::Bounded };
                let slice = args.lookup_parse("slice")?.unwrap_or(1 << 20);
                let is_all = args.next_pos().is_some();
                loop {
                    let done = self.member()?.reclaim_once(goal, slice);
                    let done = done.map_err(|stopped| match stopped {
                        Stopped::Disk(error) => error,
                        Stopped::Full => "no room".to_owned(),
                        Stopped::Refused(error) => error.to_string(),
                    })?;
                    writeln!(out, "{}", show_reclaimed(&done))?;
                    match done {
                        Reclaimed::Roll if is_all => {
                            self.member()?.builder.roll();
                            let mut told = String::new();
                            self.cut_frame(&mut told)?;
                            self.cut_frame(&mut told)?;
                            self.write(&mut told)?;
                        }
                        Reclaimed::Idle => break,
                        _ => {}
                    }
                    if !is_all {
                        break;
                    }
                }
            }
            "hold" => {
                let key = args.next_pos().ok_or("which key?")?.value.clone();
                let member = self.member()?;
                let location = member.index.location(&key);
                writeln!(
                    out,
                    "in segment {} at {}",
                    location.place.segment, location.place.offset
                )?;
                self.held = Some((location, member.reader.view()));
            }
            "read" => {
                let (location, view) = self.held.take().ok_or("nothing is held")?;
                let shown = |read: Result<bytes::Bytes, store::ReadError>| match read {
                    Ok(bytes) => format!("{} bytes", bytes.len()),
                    Err(error) => error.to_string(),
                };
                writeln!(out, "by the view: {}", shown(view.read(&location)))?;
                writeln!(out, "without: {}", shown(self.member()?.reader.read(&location)))?;
                self.held = Some((location, view));
            }
            "scrub" => {
                let slice = args.lookup_parse("slice")?.unwrap_or(usize::MAX);
                let scrubbed = self.member()?.flusher.scrub(slice);
                let end = if scrubbed.round_ended { ", all were read" } else { "" };
                writeln!(out, "{} bytes{end}", scrubbed.bytes)?;
                for damage in &scrubbed.damage {
                    writeln!(out, "{}", show_damage(damage))?;
                }
            }
            "set-aside" => {
                self.member()?.flusher.set_aside()?;
                writeln!(out, "short of room: {}", self.member()?.flusher.is_short())?;
            }
            "lend-spare" => self.member()?.flusher.lend_spare()?,
            "snapshot" => {
                let chunk = args.lookup_parse("chunk")?.unwrap_or(512);
                self.without =
                    args.lookup("without").map_or(String::new(), |arg| arg.value.clone());
                let mut snapshot = self.member()?.flusher.snapshot()?;
                let header = snapshot.header();
                let (index, revision) = (header.applied_index, header.revision);
                writeln!(
                    out,
                    "of entry {index}, revision {revision}, mark {}",
                    header.compact_revision
                )?;
                let without = self.without.clone();
                let first = snapshot.next_chunk(chunk, &mut |key, _| key != without.as_bytes())?;
                self.snapshot = Some((snapshot, first.ok_or("a snapshot has a head")?.to_vec()));
            }
            "stream" => {
                let (snapshot, stream) = self.snapshot.as_mut().ok_or("no snapshot")?;
                let without = self.without.as_bytes();
                while let Some(chunk) = snapshot.next_chunk(512, &mut |key, _| key != without)? {
                    stream.extend_from_slice(&chunk);
                }
                writeln!(out, "{} bytes", stream.len())?;
            }
            "import" => {
                let (_, stream) = self.snapshot.as_ref().ok_or("no snapshot")?;
                let mut stream = stream.clone();
                if let Some(byte) = args.lookup_parse::<usize>("flip")? {
                    stream[byte] ^= 1;
                }
                stream.truncate(args.lookup_parse("end")?.unwrap_or(stream.len()));
                let piece: usize = args.lookup_parse("piece")?.unwrap_or(700);
                let is_finished = args.lookup("finish").is_none();
                let mut member = self.member.take().ok_or("no store is open")?;
                member.flusher.begin_import()?;
                let mut taken = Ok(());
                for piece in stream.chunks(piece) {
                    taken = taken.and_then(|()| member.flusher.import(piece));
                }
                if !is_finished || taken.is_err() {
                    self.member = Some(member);
                    return taken.map_err(Into::into);
                }
                let header = member.flusher.finish_import()?;
                writeln!(
                    out,
                    "imported: entry {}, revision {}",
                    header.applied_index, header.revision
                )?;
            }
            "abandon" => self.member()?.flusher.abandon_import()?,
            other => return Err(format!("unknown command {other}").into()),
        }
        args.reject_rest()
    }
}

impl Runner for Play {
    fn run(&mut self, command: &Command) -> Result<String, Box<dyn Error>> {
        if let Some(out) = self.disk.run(command, dir())? {
            return Ok(out);
        }
        let mut out = String::new();
        self.disk.begin(command);
        let result = self.act(command, &mut out);
        out.insert_str(0, &self.disk.end());
        match result {
            Ok(()) => Ok(script::short(&out)),
            Err(error) => Err(format!("{out}{}", script::short(&error.to_string())).into()),
        }
    }
}

fn parse_change(words: &[String]) -> Result<Change, Box<dyn Error>> {
    let words: Vec<&str> = words.iter().map(|word| &word[..]).collect();
    // The keys of a script live as long as the test.
    let key = |key: &str| -> &'static str { key.to_owned().leak() };
    Ok(match words[..] {
        ["put", k, value] => Change::Put(key(k), value.to_owned()),
        ["delete", k] => Change::Delete(key(k)),
        ["row", table, k, value] => Change::Row(table.parse()?, key(k), value.to_owned()),
        ["unrow", table, k] => Change::DeleteRow(table.parse()?, key(k)),
        ["compact"] => Change::Compact,
        _ => return Err(format!("{words:?} is no change").into()),
    })
}

/// A value, its repetitions left out.
fn abbreviate(value: &str) -> String {
    let first = value.chars().next();
    match first {
        Some(c) if value.len() > 8 && value.chars().all(|other| other == c) => {
            format!("{c}*{}", value.len())
        }
        _ => value.to_owned(),
    }
}

fn show_damage(damage: &Damage) -> String {
    format!("damage: {damage}")
}

fn show_reclaimed(done: &Reclaimed) -> String {
    let records = |what: &str, records: Vec<String>| match records.is_empty() {
        true => format!("{what}: no key's record"),
        false => format!("{what}: {}", records.join(" ")),
    };
    let show = |key: &[u8], revision: Revision| format!("{}@{}", key.escape_ascii(), revision.main);
    match done {
        Reclaimed::Idle => "nothing to do".to_owned(),
        Reclaimed::Roll => "the growing segment is half dead".to_owned(),
        Reclaimed::Copied { bytes } => format!("copied {bytes} bytes"),
        Reclaimed::Relocate(batch) => {
            records("moved", batch.iter().map(|moved| show(&moved.key, moved.revision)).collect())
        }
        Reclaimed::Swapped { .. } => "the old segments went".to_owned(),
        Reclaimed::Gone(batch) => records(
            "gone for good",
            batch.iter().map(|gone| show(&gone.key, gone.revision)).collect(),
        ),
    }
}
