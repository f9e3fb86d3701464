//! The member's log: etcd's lines (level, ts, caller, msg, fields), written by a thread of their own.
//!
//! Whoever logs only formats a line and puts it into a bounded queue; the thread that writes may hang on a
//! full pipe or a dead disk for as long as it likes, nobody waits for it. When the queue is full the line is
//! dropped and counted, and the count is the next line that gets through. Values and secrets are never given
//! to this file: no field of a request but its method, sizes and ids is logged.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of lines that may wait for the writer. What comes when they are taken is dropped and counted.
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For those who look for a bug.
    Debug,
    /// What happens in a healthy member's life.
    Info,
    /// Something to look at when there is time.
    Warn,
    /// Something to look at now.
    Error,
    /// A broken invariant.
    Panic,
    /// The last words.
    Fatal,
}

impl Level {
    /// Reads zap's names.
    pub fn parse(text: &str) -> Option<Level> {
        Some(match text.to_ascii_lowercase().as_str() {
            "debug" => Level::Debug,
            "info" => Level::Info,
            "warn" => Level::Warn,
            "error" => Level::Error,
            "panic" | "dpanic" => Level::Panic,
            "fatal" => Level::Fatal,
            _ => return None,
        })
    }
    fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Panic => "panic",
            Level::Fatal => "fatal",
        }
    }
}

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object.
    Json,
    /// Columns separated by tabs, for people.
    Console,
}

/// A field's value.
#[derive(Clone, Debug)]
pub enum Value {
    /// Quoted and escaped.
    Text(String),
    /// Written as it is.
    Unsigned(u64),
    /// Written as it is.
    Signed(i64),
    /// `true` or `false`.
    Boolean(bool),
    /// A list of texts.
    List(Vec<String>),
}

macro_rules! value_from {
    ($($from:ty => $value:expr),* $(,)?) => {
        $(impl From<$from> for Value {
            fn from(from: $from) -> Value { let make: fn($from) -> Value = $value; make(from) }
        })*
    };
}
value_from! {
    &str => |text| Value::Text(text.to_string()),
    &String => |text| Value::Text(text.clone()),
    String => Value::Text,
    u64 => Value::Unsigned,
    u32 => |n| Value::Unsigned(n.into()),
    u16 => |n| Value::Unsigned(n.into()),
    usize => |n| Value::Unsigned(n as u64),
    i64 => Value::Signed,
    bool => Value::Boolean,
    Vec<String> => Value::List,
    Duration => |took| Value::Text(format!("{took:?}")),
}

struct Queue {
    lines: Vec<u8>,
    dropped: u64,
    writing: bool,
    closed: bool,
}

struct Shared {
    level: Level,
    format: LogFormat,
    /// A std lock held for a copy of one line; the writer takes all lines at once and writes without it.
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic while a line is copied leaves at worst half a line.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

static LOG: OnceLock<Arc<Shared>> = OnceLock::new();

/// What the log's thread runs: it takes lines and writes them until [`close`].
pub struct Writer {
    shared: Arc<Shared>,
    outputs: Vec<Box<dyn std::io::Write + Send>>,
}

/// Opens the outputs and makes the log the process's. Called once, before any other thread is made.
pub fn open(level: Level, format: LogFormat, outputs: &[String]) -> std::io::Result<Writer> {
    let shared = Arc::new(Shared {
        level,
        format,
        queue: Mutex::new(Queue { lines: Vec::new(), dropped: 0, writing: false, closed: false }),
        changed: Condvar::new(),
    });
    let outputs = outputs
        .iter()
        .map(|output| -> std::io::Result<Box<dyn std::io::Write + Send>> {
            Ok(match output.as_str() {
                "default" | "stderr" => Box::new(std::io::stderr()),
                "stdout" => Box::new(std::io::stdout()),
                path => Box::new(
                    std::fs::OpenOptions::new().create(true).append(true).open(path).map_err(
                        |error| {
                            std::io::Error::new(
                                error.kind(),
                                format!("cannot open the log file {path}: {error}"),
                            )
                        },
                    )?,
                ),
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    // A second call (several members in one process, as in tests) keeps the first log.
    let shared = LOG.get_or_init(|| shared).clone();
    Ok(Writer { shared, outputs })
}

impl Writer {
    /// Writes until the log is closed. An output that fails is passed over: there is nobody to tell.
    pub fn run(mut self) {
        loop {
            let mut queue = self.shared.queue();
            while queue.lines.is_empty() && queue.dropped == 0 && !queue.closed {
                queue = self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.lines.is_empty() && queue.dropped == 0 {
                return;
            }
            let mut lines = std::mem::take(&mut queue.lines);
            let dropped = std::mem::take(&mut queue.dropped);
            queue.writing = true;
            drop(queue);

            if dropped > 0 {
                let text = line(
                    self.shared.format,
                    SystemTime::now(),
                    Level::Warn,
                    "server/log.rs",
                    "log lines were dropped because the log was not read",
                    &[("dropped", Value::Unsigned(dropped))],
                );
                lines.extend_from_slice(text.as_bytes());
            }
            for output in &mut self.outputs {
                let written = output.write_all(&lines).and_then(|()| output.flush());
                drop(written);
            }
            self.shared.queue().writing = false;
            self.shared.changed.notify_all();
        }
    }
}

/// Lets the writer's `run` return once all lines are out.
pub fn close() {
    if let Some(shared) = LOG.get() {
        shared.queue().closed = true;
        shared.changed.notify_all();
    }
}

/// Waits until all lines are out, at most for `patience`: the last words of a process that is about to end.
pub fn flush(patience: Duration) {
    let Some(shared) = LOG.get() else { return };
    let queue = shared.queue();
    drop(
        shared
            .changed
            .wait_timeout_while(queue, patience, |queue| queue.writing || !queue.lines.is_empty())
            .unwrap_or_else(PoisonError::into_inner),
    );
}

/// Whether a line of this level would be written.
pub fn enabled(level: Level) -> bool {
    LOG.get().is_some_and(|shared| level >= shared.level)
}

/// Puts a line into the queue. Use the [`log!`](crate::log!) macro, which adds the caller.
pub fn put(level: Level, caller: &str, message: &str, fields: &[(&str, Value)]) {
    let Some(shared) = LOG.get().filter(|shared| level >= shared.level) else { return };
    let text = line(shared.format, SystemTime::now(), level, caller, message, fields);
    let mut queue = shared.queue();
    if queue.lines.len() + text.len() > QUEUE_BYTES_MAX {
        queue.dropped += 1;
        return;
    }
    queue.lines.extend_from_slice(text.as_bytes());
    drop(queue);
    shared.changed.notify_all();
}

/// Writes a log line: `log!(Info, "ready", "name" => name, "peers" => 3_u64)`.
#[macro_export]
macro_rules! log {
    ($level:ident, $message:expr $(, $key:literal => $value:expr)* $(,)?) => {
        if $crate::log::enabled($crate::log::Level::$level) {
            $crate::log::put(
                $crate::log::Level::$level,
                concat!(file!(), ":", line!()),
                ::std::convert::AsRef::<str>::as_ref(&$message),
                &[$(($key, $crate::log::Value::from($value))),*],
            );
        }
    };
}

/// One line with its end.
fn line(
    format: LogFormat,
    at: SystemTime,
    level: Level,
    caller: &str,
    message: &str,
    fields: &[(&str, Value)],
) -> String {
    // `crates/server/src/run.rs:7` is shown as `server/run.rs:7`, as short as etcd's callers.
    let caller = caller.trim_start_matches("crates/").replacen("/src/", "/", 1);
    let at = timestamp(at);
    let mut out = String::with_capacity(160);
    match format {
        LogFormat::Json => {
            out.push_str(&format!("{{\"level\":\"{}\",\"ts\":\"{at}\",\"caller\":", level.name()));
            quote(&caller, &mut out);
            out.push_str(",\"msg\":");
            quote(message, &mut out);
            for (key, value) in fields {
                out.push(',');
                field(key, value, ":", ",", &mut out);
            }
            out.push_str("}\n");
        }
        LogFormat::Console => {
            out.push_str(&format!("{at}\t{}\t{caller}\t{message}", level.name().to_uppercase()));
            for (i, (key, value)) in fields.iter().enumerate() {
                out.push_str(if i == 0 { "\t{" } else { ", " });
                field(key, value, ": ", ", ", &mut out);
            }
            out.push_str(if fields.is_empty() { "\n" } else { "}\n" });
        }
    }
    out
}

fn field(key: &str, value: &Value, colon: &str, comma: &str, out: &mut String) {
    quote(key, out);
    out.push_str(colon);
    match value {
        Value::Text(text) => quote(text, out),
        Value::Unsigned(number) => out.push_str(&number.to_string()),
        Value::Signed(number) => out.push_str(&number.to_string()),
        Value::Boolean(flag) => out.push_str(&flag.to_string()),
        Value::List(texts) => {
            out.push('[');
            for (i, text) in texts.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { comma });
                quote(text, out);
            }
            out.push(']');
        }
    }
}

/// A JSON string.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("a String takes everything");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// RFC 3339 in UTC with microseconds.
pub(crate) fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, rest) = ((since.as_secs() / 86_400) as i64, since.as_secs() % 86_400);
    // Days to a civil date, with years that begin in March (Howard Hinnant's algorithm).
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60,
        since.subsec_micros()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, micros: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros)
    }

    #[test]
    fn a_json_line_has_etcds_members_in_etcds_order() {
        let text = line(
            LogFormat::Json,
            at(1_700_000_000, 42),
            Level::Info,
            "crates/server/src/run.rs:7",
            "ready to serve client requests",
            &[
                ("name", "a\"b".into()),
                ("count", 3_u64.into()),
                ("urls", vec!["x".to_string(), "y".to_string()].into()),
                ("lone", true.into()),
            ],
        );
        assert_eq!(
            text,
            "{\"level\":\"info\",\"ts\":\"2023-11-14T22:13:20.000042Z\",\"caller\":\"server/run.rs:7\",\
             \"msg\":\"ready to serve client requests\",\"name\":\"a\\\"b\",\"count\":3,\"urls\":[\"x\",\"y\"],\
             \"lone\":true}\n"
        );
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }

    #[test]
    fn a_console_line_has_columns() {
        let fields = [("k", Value::from("v")), ("n", Value::from(1_i64))];
        assert_eq!(
            line(
                LogFormat::Console,
                at(0, 0),
                Level::Warn,
                "crates/server/src/a.rs:1",
                "hm",
                &fields
            ),
            "1970-01-01T00:00:00.000000Z\tWARN\tserver/a.rs:1\thm\t{\"k\": \"v\", \"n\": 1}\n"
        );
    }

    #[test]
    fn control_characters_and_leap_days_are_written_right() {
        let mut out = String::new();
        quote("a\u{1}\n", &mut out);
        assert_eq!(out, "\"a\\u0001\\n\"");
        assert!(timestamp(at(1_709_164_800, 0)).starts_with("2024-02-29T00:00:00"));
    }

    #[test]
    fn a_log_that_nobody_reads_drops_lines_and_says_how_many() {
        let shared = Arc::new(Shared {
            level: Level::Info,
            format: LogFormat::Json,
            queue: Mutex::new(Queue {
                lines: Vec::new(),
                dropped: 3,
                writing: false,
                closed: true,
            }),
            changed: Condvar::new(),
        });
        #[derive(Clone, Default)]
        struct Out(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Out {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let out = Out::default();
        Writer { shared, outputs: vec![Box::new(out.clone())] }.run();
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("\"dropped\":3"), "{text}");
    }
}
