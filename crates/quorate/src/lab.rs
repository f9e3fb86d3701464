//! `quorate lab`: lists the laboratory's experiments, or performs one and tells it.

#![allow(
    clippy::disallowed_methods,
    reason = "what is measured on a real disk is measured with a real clock"
)]

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sim::lab::real::{self, Measured};
use sim::lab::{EXPERIMENTS, Style, find, json, tell};
use vfs::Vfs;

const USAGE: &str = "\
usage: quorate lab                              list the experiments
       quorate lab NAME [flags]                 perform one, and tell it as it happens

  --seed N                    another story of the same experiment (default 1); the same seed, the same story
  --json                      one JSON object per line instead
  --color auto|always|never   whether the telling is coloured (default auto: on a terminal)

and for snapshot alone:

  --real                      measure it on this machine's disk, with this machine's clock
  --dir DIR                   on the disk of this directory (default: that of temporary files)
";

/// The sizes that are measured, in MiB.
const SIZES_MIB: [u64; 3] = [1, 8, 32];

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Colour {
    #[default]
    Auto,
    Always,
    Never,
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    name: Option<String>,
    seed: u64,
    json: bool,
    colour: Colour,
    real: bool,
    dir: Option<PathBuf>,
    help: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            name: None,
            seed: 1,
            json: false,
            colour: Colour::Auto,
            real: false,
            dir: None,
            help: false,
        }
    }
}

/// The command; it ends with 1 if what was to be seen was not seen, and with 64 if it is not understood.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let options = match parse(arguments) {
        Ok(options) => options,
        Err(why) => {
            eprint!("quorate lab: {why}\n{USAGE}");
            return ExitCode::from(64);
        }
    };
    if options.help {
        return say(USAGE, true);
    }
    let Some(name) = &options.name else {
        return say(&list(), true);
    };
    let Some(experiment) = find(name) else {
        eprintln!("quorate lab: there is no experiment {name:?}; {}", nearest(name));
        return ExitCode::from(64);
    };
    if options.real {
        return measure(&options);
    }
    let account = experiment.perform(options.seed, None);
    let colours = match options.colour {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
    };
    let style = if colours { Style::Coloured } else { Style::Plain };
    let text = if options.json { json(&account) } else { tell(&account, style) };
    say(&text, account.holds())
}

/// The snapshot on a real disk.
fn measure(options: &Options) -> ExitCode {
    // The clock lives here: below the server nobody has one.
    let began = Instant::now();
    let dir = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = dir.join(format!("quorate-lab-{}", std::process::id()));
    let vfs: Arc<dyn Vfs> = Arc::new(vfs::os::Os);
    let measured = real::measure(vfs.clone(), &scratch, &SIZES_MIB, &mut || began.elapsed());
    let removed = vfs.remove_dir_all(&scratch);
    match measured.and_then(|measured| removed.map(|()| measured).map_err(|e| e.to_string())) {
        Ok(measured) if options.json => {
            say(&measured.iter().map(json_of).collect::<String>(), true)
        }
        Ok(measured) => say(&table(&measured, &dir.display().to_string()), true),
        Err(why) => {
            eprintln!("quorate lab: {why}");
            ExitCode::FAILURE
        }
    }
}

fn table(measured: &[Measured], dir: &str) -> String {
    let mut out = format!("A snapshot between two members on this machine's disk ({dir})\n\n");
    let heading = ["state", "write it", "stream it", "import it", "start from it"];
    let row = |cells: [String; 5]| {
        let [state, write, stream, import, start] = cells;
        format!("{state:>8}  {write:>12}  {stream:>12}  {import:>12}  {start:>14}\n")
    };
    out.push_str(&row(heading.map(str::to_owned)));
    for Measured { mib, write, stream, import, restart } in measured {
        let ms = |time: &Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
        out.push_str(&row([format!("{mib} MiB"), ms(write), ms(stream), ms(import), ms(restart)]));
    }
    out.push_str(
        "\nwrite: values of 4 KiB through raft, log and store of one member, a sync for each 64\n\
         stream: read, sent, received, checked and synced on the other member's disk\n\
         import: into its store, until readers see it\nstart: that member again, until it could serve\n",
    );
    out
}

fn json_of(measured: &Measured) -> String {
    let Measured { mib, write, stream, import, restart } = measured;
    let us = Duration::as_micros;
    format!(
        "{{\"mib\":{mib},\"write_us\":{},\"stream_us\":{},\"import_us\":{},\"restart_us\":{}}}\n",
        us(write),
        us(stream),
        us(import),
        us(restart)
    )
}

/// Prints; whoever has stopped reading (`| head`) has seen enough.
fn say(text: &str, good: bool) -> ExitCode {
    let _reader_is_gone = std::io::stdout().lock().write_all(text.as_bytes());
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn list() -> String {
    let mut out = String::new();
    let width = EXPERIMENTS.iter().map(|experiment| experiment.name.len()).max().unwrap_or(0);
    for experiment in EXPERIMENTS {
        out.push_str(&format!("{:width$}  {}\n", experiment.name, experiment.question));
    }
    out.push_str("\nquorate lab NAME performs one; docs/lab/ explains what is to be seen.\n");
    out
}

fn parse(arguments: Vec<OsString>) -> Result<Options, String> {
    let mut options = Options::default();
    let mut arguments =
        arguments.into_iter().map(|argument| argument.to_string_lossy().into_owned());
    while let Some(argument) = arguments.next() {
        let (flag, inline) = match argument.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => {
                (flag.to_owned(), Some(value.to_owned()))
            }
            _ => (argument, None),
        };
        let mut value = || {
            let value = inline.clone().or_else(|| arguments.next());
            value.ok_or_else(|| format!("{flag} needs a value"))
        };
        match flag.as_str() {
            "--seed" => {
                let value = value()?;
                options.seed =
                    value.parse().map_err(|_| format!("--seed: {value:?} is no number"))?;
            }
            "--color" => {
                options.colour = match value()?.as_str() {
                    "auto" => Colour::Auto,
                    "always" => Colour::Always,
                    "never" => Colour::Never,
                    other => {
                        return Err(format!("--color: {other:?} is not auto, always or never"));
                    }
                };
            }
            "--json" => options.json = true,
            "--real" => options.real = true,
            "--dir" => options.dir = Some(PathBuf::from(value()?)),
            "--help" | "-h" => options.help = true,
            other if other.starts_with('-') => return Err(format!("unknown flag {other}")),
            name if options.name.is_none() => options.name = Some(name.to_owned()),
            other => return Err(format!("one experiment at a time, not also {other:?}")),
        }
    }
    if (options.real || options.dir.is_some()) && options.name.as_deref() != Some("snapshot") {
        return Err("--real and --dir are for snapshot alone".to_owned());
    }
    if options.dir.is_some() && !options.real {
        return Err("--dir goes with --real".to_owned());
    }
    Ok(options)
}

/// What may have been meant: the names that the fewest changes of a letter lead to.
fn nearest(name: &str) -> String {
    let distances = EXPERIMENTS.iter().map(|e| (distance(name, e.name), e.name));
    let best = distances.clone().map(|(distance, _)| distance).min().unwrap_or(0);
    let near: Vec<&str> =
        distances.filter(|(distance, _)| *distance == best).map(|(_, name)| name).collect();
    match best * 2 <= name.chars().count().max(4) {
        true => format!("did you mean {}?", near.join(" or ")),
        false => "quorate lab lists them".to_owned(),
    }
}

/// How many letters must be put in, taken out or changed.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (place, wanted) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *wanted);
            diagonal = row[place + 1];
            row[place + 1] = changed.min(diagonal + 1).min(row[place] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, wanted: Result<Options, &str>) {
        let arguments = line.split_whitespace().map(OsString::from).collect();
        assert_eq!(parse(arguments), wanted.map_err(str::to_owned), "{line}");
    }

    #[test]
    fn the_command_line_is_understood_or_refused() {
        let write = || Options { name: Some("write".to_owned()), ..Options::default() };
        check("", Ok(Options::default()));
        check("write", Ok(write()));
        check("write --seed 7 --json", Ok(Options { seed: 7, json: true, ..write() }));
        check("--seed=7 write", Ok(Options { seed: 7, ..write() }));
        check("write --color=never", Ok(Options { colour: Colour::Never, ..write() }));
        check("--help", Ok(Options { help: true, ..Options::default() }));
        check("write --seed", Err("--seed needs a value"));
        check("write --seed many", Err("--seed: \"many\" is no number"));
        check("write --color red", Err("--color: \"red\" is not auto, always or never"));
        check("write --loud", Err("unknown flag --loud"));
        let snapshot = || Options { name: Some("snapshot".to_owned()), ..Options::default() };
        check("snapshot --real", Ok(Options { real: true, ..snapshot() }));
        let dir = Some(PathBuf::from("/data"));
        check("snapshot --real --dir /data", Ok(Options { real: true, dir, ..snapshot() }));
        check("snapshot --dir /data", Err("--dir goes with --real"));
        check("write --real", Err("--real and --dir are for snapshot alone"));
        check("write read", Err("one experiment at a time, not also \"read\""));
    }

    #[test]
    fn a_name_that_is_nearly_right_is_recognised() {
        assert_eq!(nearest("wirte"), "did you mean write?");
        assert_eq!(nearest("xyzzyxyzzy"), "quorate lab lists them");
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
