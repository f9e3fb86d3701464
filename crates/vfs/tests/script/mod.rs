//! What the script runners of the floors share: a folder of scripts, and the commands about the disk.
//!
//! A runner includes this file by its path. Commands that it does not know itself it hands to [`Disk::run`]:
//!
//! ```text
//!   pending                     what a power cut would decide over, numbered
//!   power FATE [N=FATE]...      the power goes; all that was pending is lost, kept, version-N (as its N-th change left
//!                               it) or torn-N (the first N bytes new, the rest old), those numbered as they say
//!   crash                       the process dies; all that was written stays, and stays pending
//!   fail KIND [in=PART] [times=N] [short=N] [errno=N]
//!                               the next calls of this kind (write, sync, syncdir, read, rename, unlink, create …)
//!                               on paths that contain PART fail, a short write after N bytes
//!   heal                        no call fails any more
//!   capacity BYTES|more-N|none  the disk is so large; it has room for N bytes more
//!   stop after=N                the world stops before the N-th changing call from now, counted from 0
//!   rot FILE OFFSET [mask=N]    a byte changes, live and durable
//!   cut FILE LENGTH             a file ends here
//!   unlink FILE                 somebody takes a file away
//!   copy FILE FILE              and puts one in the place of another
//!   ls DIR                      names and lengths
//! ```
//!
//! The tag `[disk]` behind a command shows the changing calls that it made. Names that are numbers of ten or sixteen
//! hexadecimal digits are shown, and may be written, without leading zeros.

#![allow(dead_code, reason = "each floor's runner uses a part of it")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use goldenscript::{ArgumentConsumer, Command, Runner};
use vfs::memory::{Failure, Fate, Memory, Operation, OperationKind, Unsynced};
use vfs::{OpenMode, Vfs};

/// Runs every script in a folder with a runner of its own, after a look at its form: two lines that say what it shows
/// and why, and no two scripts that differ in nothing but numbers.
#[allow(clippy::disallowed_methods, reason = "a test finds its scripts on the real disk")]
pub fn run_all<R: Runner>(folder: &str, mut new: impl FnMut() -> R) {
    let mut seen: BTreeMap<String, PathBuf> = BTreeMap::new();
    let scripts = std::fs::read_dir(folder).expect("a folder of scripts");
    let mut paths: Vec<PathBuf> = scripts.map(|script| script.expect("readable").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "there are scripts");
    let mut wrong = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("readable");
        let opening = text.lines().take_while(|line| line.starts_with("# ")).count();
        assert_eq!(opening, 2, "{}: two lines say what is shown and why", path.display());
        let commands = commands_without_numbers(&text);
        if let Some(other) = seen.insert(commands, path.clone()) {
            panic!("{} and {} differ in numbers alone", path.display(), other.display());
        }
        println!("{}", path.display());
        match catch_unwind(AssertUnwindSafe(|| goldenscript::run(&mut new(), &path))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => wrong.push(format!("{}: {error}", path.display())),
            // What differs was printed.
            Err(_) => wrong.push(format!("{} ended otherwise", path.display())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The inputs of a script, each number as a `0`.
fn commands_without_numbers(text: &str) -> String {
    let mut commands = String::new();
    for block in text.split("\n\n") {
        let input = block.split("\n---").next().unwrap_or("");
        for line in input.lines().filter(|line| !line.starts_with('#')) {
            let mut was_digit = false;
            for c in line.chars() {
                if !c.is_ascii_digit() {
                    commands.push(c);
                } else if !was_digit {
                    commands.push('0');
                }
                was_digit = c.is_ascii_digit();
            }
            commands.push('\n');
        }
    }
    commands
}

/// The disk of a script.
pub struct Disk {
    pub memory: Memory,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Disk {
    pub fn new() -> Disk {
        Disk::of(Memory::new(1))
    }

    pub fn of(memory: Memory) -> Disk {
        Disk { memory, calls: Arc::default() }
    }

    pub fn vfs(&self) -> Arc<dyn Vfs> {
        Arc::new(self.memory.clone())
    }

    /// Call it before each command.
    pub fn begin(&self, command: &Command) {
        self.calls.lock().expect("whole").clear();
        let calls = self.calls.clone();
        let note = move |operation: &Operation| {
            use OperationKind as K;
            if matches!(operation.kind, K::Open | K::Lock | K::List | K::Exists | K::Read) {
                return;
            }
            let what = format!("{:?}", operation.kind).to_lowercase();
            let mut line = format!("disk: {what} {}", operation.path.display());
            if operation.kind == K::Write {
                write!(line, " at {}, {} bytes", operation.offset, operation.len).expect("text");
            } else if operation.offset > 0 {
                write!(line, " to {}", operation.offset).expect("text");
            }
            calls.lock().expect("whole").push(short(&line));
        };
        let is_shown = command.tags.contains("disk");
        self.memory.set_hook(is_shown.then(|| Arc::new(note) as Arc<_>));
    }

    /// Call it after each command: what its tag asks for.
    pub fn end(&self) -> String {
        let calls = std::mem::take(&mut *self.calls.lock().expect("whole"));
        calls.iter().map(|call| format!("{call}\n")).collect()
    }

    /// Carries out a command about the disk; `None` if it is none. File names without a
    /// directory stand in `dir`.
    pub fn run(&self, command: &Command, dir: &Path) -> Result<Option<String>, Box<dyn Error>> {
        let memory = &self.memory;
        let mut out = String::new();
        let mut args = command.consume_args();
        match command.name.as_str() {
            "pending" => {
                for (number, unsynced) in memory.unsynced().iter().enumerate() {
                    writeln!(out, "{number}: {}", show_unsynced(unsynced))?;
                }
            }
            "power" => {
                let fate = parse_fate(&args.next_pos().ok_or("what becomes of it?")?.value)?;
                let mut except = BTreeMap::new();
                for arg in args.rest_key() {
                    except.insert(arg.name().parse::<usize>()?, parse_fate(&arg.value)?);
                }
                let mut number = 0;
                memory.power_cut_with(&mut |_| {
                    number += 1;
                    except.remove(&(number - 1)).unwrap_or(fate)
                });
                if let Some((number, _)) = except.first_key_value() {
                    return Err(format!("nothing of number {number} is pending").into());
                }
            }
            "crash" => memory.crash(),
            "fail" => {
                let wanted = args.next_pos().ok_or("what fails?")?.value.clone();
                let part = args.lookup("in").map_or_else(String::new, |arg| arg.value.clone());
                let errno = args.lookup_parse("errno")?.unwrap_or(5);
                let failure = match args.lookup_parse("short")? {
                    Some(bytes) => Failure::Short(bytes, errno),
                    None => Failure::Errno(errno),
                };
                let matches = move |operation: &Operation| {
                    format!("{:?}", operation.kind).to_lowercase() == wanted
                        && operation.path.to_string_lossy().contains(&part)
                };
                memory.fail(matches, args.lookup_parse("times")?.unwrap_or(1), failure);
            }
            "heal" => memory.heal(),
            "capacity" => {
                let bytes = &args.next_pos().ok_or("how large?")?.value;
                memory.set_capacity(match bytes.strip_prefix("more-") {
                    Some(more) => Some(memory.used() + more.parse::<u64>()?),
                    None if bytes == "none" => None,
                    None => Some(bytes.parse()?),
                });
            }
            "stop" => {
                let after: u64 = args.lookup_parse("after")?.ok_or("after how many calls?")?;
                memory.stop_at(Some(memory.operations() + after));
            }
            "rot" => {
                let path = self.path(dir, &mut args)?;
                let offset = args.next_pos().ok_or("where?")?.parse()?;
                memory.rot(&path, offset, args.lookup_parse("mask")?.unwrap_or(1));
            }
            "cut" => {
                let path = self.path(dir, &mut args)?;
                let file = memory.open(&path, OpenMode::Write)?;
                file.truncate(args.next_pos().ok_or("where?")?.parse()?)?;
                file.sync()?;
            }
            "unlink" => {
                let path = self.path(dir, &mut args)?;
                memory.unlink(&path)?;
                memory.sync_dir(path.parent().ok_or("a file stands in a directory")?)?;
            }
            "copy" => {
                let (from, to) = (self.path(dir, &mut args)?, self.path(dir, &mut args)?);
                let bytes = read(memory, &from)?;
                let file = memory.open(&to, OpenMode::Write)?;
                file.truncate(0)?;
                file.append(&bytes)?;
                file.sync()?;
            }
            "ls" => {
                let dir = Path::new(&args.next_pos().ok_or("which directory?")?.value).to_owned();
                for name in memory.list(&dir)? {
                    let len = match memory.open(&dir.join(&name), OpenMode::Read) {
                        Ok(file) => format!("{} bytes", file.len()?),
                        Err(_) => "a directory".to_owned(),
                    };
                    writeln!(out, "{}: {len}", short(&name))?;
                }
            }
            _ => return Ok(None),
        }
        args.reject_rest()?;
        Ok(Some(out))
    }

    /// The path of the file in `dir` whose shortened name comes next.
    fn path(&self, dir: &Path, args: &mut ArgumentConsumer<'_>) -> Result<PathBuf, Box<dyn Error>> {
        let wanted = &args.next_pos().ok_or("which file?")?.value;
        let (dir, wanted) = match wanted.split_once('/') {
            Some((dir, name)) => (Path::new(dir), name),
            None => (dir, &wanted[..]),
        };
        let names = self.memory.list(dir)?;
        let name = names.iter().find(|name| *name == wanted || short(name) == wanted);
        Ok(dir.join(name.ok_or_else(|| format!("no file {wanted} in {names:?}"))?))
    }
}

/// All bytes of a file.
pub fn read(memory: &Memory, path: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let file = memory.open(path, OpenMode::Read)?;
    let mut bytes = vec![0; usize::try_from(file.len()?)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Takes the leading zeros from each number of ten or sixteen hexadecimal digits.
pub fn short(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        out.push_str(&rest[..start]);
        let word = &rest[start..];
        let end = word.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(word.len());
        let number = &word[..end];
        let digits = if end == 10 || end == 16 { number.trim_start_matches('0') } else { number };
        out.push_str(if digits.is_empty() { "0" } else { digits });
        rest = &word[end..];
    }
    out.push_str(rest);
    out
}

fn show_unsynced(unsynced: &Unsynced) -> String {
    short(&match unsynced {
        Unsynced::Name(what) => what.clone(),
        Unsynced::Length { path, .. } => format!("the length of {}", path.display()),
        Unsynced::Sector { path, sector, versions } => {
            let times = if *versions > 1 { format!(", {versions} times") } else { String::new() };
            format!("sector {sector} of {}{times}", path.display())
        }
    })
}

fn parse_fate(text: &str) -> Result<Fate, Box<dyn Error>> {
    match text.split_once('-') {
        None if text == "lost" => Ok(Fate::Lost),
        None if text == "kept" => Ok(Fate::Kept),
        Some(("torn", bytes)) => Ok(Fate::Torn(bytes.parse()?)),
        Some(("version", number)) => Ok(Fate::Version(number.parse()?)),
        _ => Err(format!("{text} is no fate").into()),
    }
}
