//! `quorate lab`: lists the laboratory's experiments, or performs one and tells it.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use sim::lab::{EXPERIMENTS, Style, find, json, tell};

const USAGE: &str = "\
usage: quorate lab                              list the experiments
       quorate lab NAME [flags]                 perform one, and tell it as it happens

  --seed N                    another story of the same experiment (default 1); the same seed, the same story
  --json                      one JSON object per line instead
  --color auto|always|never   whether the telling is coloured (default auto: on a terminal)
";

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
    help: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { name: None, seed: 1, json: false, colour: Colour::Auto, help: false }
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
            "--help" | "-h" => options.help = true,
            other if other.starts_with('-') => return Err(format!("unknown flag {other}")),
            name if options.name.is_none() => options.name = Some(name.to_owned()),
            other => return Err(format!("one experiment at a time, not also {other:?}")),
        }
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
        check("write read", Err("one experiment at a time, not also \"read\""));
    }

    #[test]
    fn a_name_that_is_nearly_right_is_recognised() {
        assert_eq!(nearest("wirte"), "did you mean write?");
        assert_eq!(nearest("xyzzyxyzzy"), "quorate lab lists them");
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
