//! watch: one watch, or several from interactive lines; and the command that is run for each event.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    process::{Command, ExitStatus},
};

use bytes::Bytes;
use client::{Client, Error, prefix_end};
use proto::{
    etcdserverpb::{WatchCreateRequest, WatchResponse},
    mvccpb::Event,
};
use tokio::sync::mpsc;

use crate::{
    Exit, Streams,
    config::Session,
    flags::{self, Parsed, WATCH},
    go,
    print::{Answer, Printer},
};

const NEEDS_KEY: &str = "bad number of arguments";
const CONFLICT: &str = "bad number of arguments (found conflicting environment key)";
const NO_COMMAND: &str = "bad number of arguments (found separator --, but no commands)";

/// What to watch, and what to run for each event.
#[derive(Debug, PartialEq)]
struct Order {
    request: WatchCreateRequest,
    command: Vec<Vec<u8>>,
}

/// A key, and the end of its range if there is one, from the environment.
type Named = Vec<Vec<u8>>;

pub(crate) async fn watch(mut session: Session) -> Result<(), Exit> {
    let named = named(&session.streams)?;
    if session.parsed.bool("interactive") {
        return interactive(session, &named).await;
    }
    let order = order(&session.parsed, &named).map_err(Exit::bad_arguments)?;
    let (client, printer) = session.connect()?;
    let mut watch = client.watch(order.request);
    while let Some(answer) = watch.next().await {
        show(&session, &printer, answer, &order.command)?;
    }
    Err(Exit::new(Exit::INTERRUPTED, "watch is canceled by the server"))
}

/// What the environment names, which stands for the arguments.
fn named(streams: &Streams) -> Result<Named, Exit> {
    let variable = |wanted: &str| {
        let mut variables = streams.environment.iter();
        let found = variables.find(|(name, value)| name == wanted && !value.is_empty());
        found.map(|(_, value)| value.as_bytes().to_vec())
    };
    let (key, end) = (variable("ETCDCTL_WATCH_KEY"), variable("ETCDCTL_WATCH_RANGE_END"));
    if let (None, Some(end)) = (&key, &end) {
        let end = go::quote(end);
        let message = format!("ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={end}");
        return Err(Exit::bad_arguments(message));
    }
    Ok(key.into_iter().chain(end).collect())
}

/// Reads the arguments: what stands before `--` is watched, what stands after is run.
fn order(parsed: &Parsed, named: &Named) -> Result<Order, String> {
    let (keys, command) = match parsed.dash {
        Some(dash) => parsed.arguments.split_at(dash),
        None => (parsed.arguments.as_slice(), [].as_slice()),
    };
    if parsed.dash.is_some() && command.is_empty() {
        return Err(NO_COMMAND.to_owned());
    }
    if !named.is_empty() && !keys.is_empty() {
        return Err(CONFLICT.to_owned());
    }
    let keys = if named.is_empty() { keys } else { named };
    let key = keys.first().ok_or(NEEDS_KEY)?;
    let (mut key, mut range_end) = (Bytes::from(key.clone()), Bytes::new());
    if let [_, end] = keys {
        if parsed.bool("prefix") {
            return Err("`range_end` and `--prefix` are mutually exclusive".to_owned());
        }
        range_end = end.clone().into();
    }
    if parsed.bool("prefix") {
        range_end = prefix_end(&key);
        if key.is_empty() {
            key = Bytes::from_static(b"\0");
        }
    }
    let request = WatchCreateRequest {
        key,
        range_end,
        start_revision: parsed.int("rev"),
        progress_notify: parsed.bool("progress-notify"),
        prev_kv: parsed.bool("prev-kv"),
        ..Default::default()
    };
    Ok(Order { request, command: command.to_vec() })
}

/// Prints an answer and runs the command for each of its events.
fn show(
    session: &Session,
    printer: &Printer,
    answer: Result<WatchResponse, Error>,
    command: &[Vec<u8>],
) -> Result<(), Exit> {
    let streams = &session.streams;
    let answer = match answer {
        Ok(answer) if answer.created && !answer.canceled => return Ok(()),
        Ok(answer) => answer,
        Err(error) => {
            streams.complain(&format!("watch was canceled ({error})\n"));
            WatchResponse { canceled: true, ..Default::default() }
        }
    };
    let revision = answer.header.as_ref().map_or(0, |header| header.revision);
    if answer.canceled && answer.header.is_some() {
        streams.complain(&format!("watch was canceled ({})\n", cancel_reason(&answer)));
    }
    if answer.events.is_empty() && !answer.canceled && revision != 0 {
        streams.print(format!("progress notify: {revision}\n").as_bytes())?;
    }
    let answer = Answer::Watch(answer);
    session.print(printer, &answer)?;
    let Answer::Watch(answer) = answer else { unreachable!("it was made a line above") };
    if !command.is_empty() {
        for event in &answer.events {
            execute(streams, command, revision, event)?;
        }
    }
    Ok(())
}

fn cancel_reason(answer: &WatchResponse) -> String {
    match answer.cancel_reason.as_str() {
        _ if answer.compact_revision != 0 => {
            "etcdserver: mvcc: required revision has been compacted".to_owned()
        }
        "" => "etcdserver: mvcc: required revision is a future revision".to_owned(),
        reason => reason.to_owned(),
    }
}

/// Runs the command for one event and waits for it. If it fails, the watch ends.
fn execute(streams: &Streams, words: &[Vec<u8>], revision: i64, event: &Event) -> Result<(), Exit> {
    let words: Vec<&OsStr> = words.iter().map(|word| OsStr::from_bytes(word)).collect();
    let kv = event.kv.clone().unwrap_or_default();
    let kind = if event.r#type == 1 { "\"DELETE\"" } else { "\"PUT\"" };
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .env_clear()
        .envs(streams.environment.iter().map(|(name, value)| (name, value)))
        .env("ETCD_WATCH_REVISION", revision.to_string())
        .env("ETCD_WATCH_EVENT_TYPE", kind)
        .env("ETCD_WATCH_KEY", go::quote(&kv.key))
        .env("ETCD_WATCH_VALUE", go::quote(&kv.value))
        .stdin(std::process::Stdio::null());
    let why = match run(&mut command, streams)? {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => match status.code() {
            Some(code) => format!("exit status {code}"),
            None => status.to_string(),
        },
        Err(error) => error.to_string(),
    };
    let words: Vec<_> = words.iter().map(|word| go::quote(word.as_bytes())).collect();
    streams.complain(&format!("command [{}] error ({why})\n", words.join(" ")));
    Err(Exit::silent(Exit::ERROR))
}

fn run(command: &mut Command, streams: &Streams) -> Result<std::io::Result<ExitStatus>, Exit> {
    if streams.inherit {
        return Ok(command.status());
    }
    Ok(match command.output() {
        Ok(output) => {
            streams.print(&output.stdout)?;
            streams.complain(&String::from_utf8_lossy(&output.stderr));
            Ok(output.status)
        }
        Err(error) => Err(error),
    })
}

/// What the interactive loop waits for.
enum Input {
    Line(std::io::Result<Option<Vec<u8>>>),
    Answer(usize, Result<WatchResponse, Error>),
}

/// Events of the interactive loop that wait to be printed; watches wait while it is full.
const WAITING_MAX: usize = 64;

/// Reads `watch …` and `progress` from the input, until it ends; watches run meanwhile.
async fn interactive(mut session: Session, named: &Named) -> Result<(), Exit> {
    let (client, printer) = session.connect()?;
    let (events, mut waiting) = mpsc::channel(WAITING_MAX);
    let empty: Box<dyn std::io::BufRead + Send> = Box::new(std::io::empty());
    let mut input = std::mem::replace(&mut session.streams.input, empty);
    let lines = events.clone();
    tokio::task::spawn_blocking(move || {
        loop {
            let line = crate::read_line(&mut *input);
            let more = matches!(line, Ok(Some(_)));
            if lines.blocking_send(Input::Line(line)).is_err() || !more {
                return;
            }
        }
    });
    let mut watches: Vec<Running> = Vec::new();
    while let Some(event) = waiting.recv().await {
        match event {
            Input::Answer(watch, answer) => {
                show(&session, &printer, answer, &watches[watch].command)?;
            }
            Input::Line(Ok(Some(line))) => {
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                match instruction(line, named)? {
                    Instruction::Watch(order) => {
                        watches.push(start(&client, order, watches.len(), events.clone()));
                    }
                    Instruction::Progress => watches.iter().for_each(Running::ask_for_progress),
                    Instruction::Refuse(why) => {
                        session.streams.complain(&format!("Invalid command{why}\n"));
                    }
                }
            }
            Input::Line(ended) => {
                let why = ended.err().map_or("EOF".to_owned(), |error| error.to_string());
                let message = format!("error reading watch request line: {why}");
                return Err(Exit::new(Exit::INVALID_INPUT, message));
            }
        }
    }
    Ok(())
}

/// One line of interactive input.
enum Instruction {
    Watch(Order),
    Progress,
    Refuse(String),
}

fn instruction(line: &[u8], named: &Named) -> Result<Instruction, Exit> {
    let shown = String::from_utf8_lossy(line);
    let words = go::words(line).map_err(|why| Exit::new(Exit::INVALID_INPUT, why))?;
    let Some((verb, words)) = words.split_first() else {
        return Ok(Instruction::Refuse(format!(": {shown} (watch and progress supported)")));
    };
    match verb.as_slice() {
        b"progress" => Ok(Instruction::Progress),
        b"watch" if words.is_empty() && named.is_empty() => {
            Ok(Instruction::Refuse(format!(" {shown} (command type or key is not provided)")))
        }
        b"watch" => {
            let parsed =
                flags::parse(&WATCH, words).map_err(|error| Exit::bad_arguments(error.message))?;
            match order(&parsed, named) {
                Ok(order) => Ok(Instruction::Watch(order)),
                Err(why) if why.starts_with('`') => {
                    Ok(Instruction::Refuse(format!(" {shown} ({why})")))
                }
                Err(why) => Err(Exit::bad_arguments(why)),
            }
        }
        _ => Ok(Instruction::Refuse(format!(" {shown} (only support watch)"))),
    }
}

/// A watch that runs on a task of its own.
struct Running {
    command: Vec<Vec<u8>>,
    progress: mpsc::Sender<()>,
}

impl Running {
    fn ask_for_progress(&self) {
        // Full: it has been asked already; closed: the watch is over. Neither needs another.
        self.progress.try_send(()).unwrap_or(());
    }
}

fn start(client: &Client, order: Order, number: usize, events: mpsc::Sender<Input>) -> Running {
    let mut watch = client.watch(order.request);
    let (progress, mut asked) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                answer = watch.next() => {
                    let Some(answer) = answer else { return };
                    if events.send(Input::Answer(number, answer)).await.is_err() {
                        return;
                    }
                }
                Some(()) = asked.recv() => watch.request_progress(),
            }
        }
    });
    Running { command: order.command, progress }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str, named: &[&str]) -> Result<Order, String> {
        let words = go::words(line.as_bytes()).unwrap();
        let named = named.iter().map(|name| name.as_bytes().to_vec()).collect();
        order(&flags::parse(&WATCH, &words).map_err(|error| error.message)?, &named)
    }

    #[test]
    fn what_to_watch_and_what_to_run() {
        let order = read("a b --rev 3 --prev-kv -- echo --rev x", &[]).unwrap();
        assert_eq!((&order.request.key[..], &order.request.range_end[..]), (&b"a"[..], &b"b"[..]));
        assert!(order.request.start_revision == 3 && order.request.prev_kv);
        assert_eq!(order.command, [b"echo".to_vec(), b"--rev".to_vec(), b"x".to_vec()]);
        assert_eq!(read("--prefix ''", &[]).unwrap().request.range_end, "\0");
        assert_eq!(read("-- echo", &["k", "l"]).unwrap().request.range_end, "l");
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused() {
        for (line, named, message) in [
            ("", &[][..], NEEDS_KEY),
            ("-- echo", &[], NEEDS_KEY),
            ("a --", &[], NO_COMMAND),
            ("a", &["k"], CONFLICT),
            ("a b --prefix", &[], "`range_end` and `--prefix` are mutually exclusive"),
        ] {
            assert_eq!(read(line, named), Err(message.to_owned()), "{line}");
        }
    }
}
