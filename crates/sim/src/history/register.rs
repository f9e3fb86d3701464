//! A register that holds one number or nothing, and the logs that Jepsen writes of one.
//!
//! ```text
//!   INFO  jepsen.util - 2   :invoke   :cas    [3 0]        process 2 asks: 0 in place of 3
//!   INFO  jepsen.util - 2   :ok       :cas    [3 0]        it was
//!   INFO  jepsen.util - 1   :fail     :cas    [0 3]        it was not, for something else was there
//!   INFO  jepsen.util - 0   :ok       :read   nil          nothing is there
//!   INFO  jepsen.util - 4   :info     :write  :timed-out   nobody knows
//! ```
//!
//! A line is a call or what became of it, and its place in the log is its time. `:fail` of a swap that names its
//! numbers again is an answer: it says that something else was there. `:fail` of anything else means that it never
//! happened. `:info`, and a call that nothing follows, may have happened at any time after the call, or may yet.

use std::collections::BTreeMap;

use super::search::{Model, Timed};

/// A register.
pub struct Register;

/// What is asked of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A read.
    Read {
        /// What was there.
        saw: Option<i64>,
    },
    /// A write of a number.
    Write(i64),
    /// A number in place of another, if that is there.
    Swap {
        /// What has to be there.
        from: i64,
        /// What is there then.
        to: i64,
        /// Whether it was; `None` if nobody knows.
        done: Option<bool>,
    },
}

impl Model for Register {
    type State = Option<i64>;
    type Operation = Operation;

    fn begin(&self) -> Option<i64> {
        None
    }

    fn step(&self, state: &Option<i64>, operation: &Operation) -> Vec<Option<i64>> {
        let after = match *operation {
            Operation::Read { saw } => (*state == saw).then_some(saw),
            Operation::Write(value) => Some(Some(value)),
            Operation::Swap { from, to, done } => {
                let is_there = *state == Some(from);
                let after = if is_there { Some(to) } else { *state };
                done.is_none_or(|done| done == is_there).then_some(after)
            }
        };
        after.into_iter().collect()
    }

    fn is_read(&self, operation: &Operation) -> bool {
        match operation {
            Operation::Read { .. } => true,
            Operation::Write(_) => false,
            Operation::Swap { done, .. } => *done == Some(false),
        }
    }
}

/// Reads a log.
///
/// # Errors
/// The first line that is not understood, or does not follow from those before it.
pub fn parse(log: &str) -> Result<Vec<Timed<Operation>>, String> {
    let mut history = Vec::new();
    let mut called: BTreeMap<&str, (u64, Asked)> = BTreeMap::new();
    for (number, line) in log.lines().enumerate() {
        let Some((_, event)) = line.split_once("jepsen.util - ") else { continue };
        let event = event.trim();
        // What its own disturber did, Jepsen notes in the same log.
        if event.starts_with(":nemesis") {
            continue;
        }
        let odd = || format!("line {}: {line}", number + 1);
        let (process, kind, function, value) = words(event).ok_or_else(odd)?;
        let now = number as u64;
        if kind == ":invoke" {
            let asked = Asked::parse(function, value).ok_or_else(odd)?;
            if called.insert(process, (now, asked)).is_some() {
                return Err(odd());
            }
            continue;
        }
        let (call, asked) = called.remove(process).ok_or_else(odd)?;
        if asked.name() != function {
            return Err(odd());
        }
        let known = match kind {
            ":ok" | ":fail" => asked.answered(value, kind == ":ok").ok_or_else(odd)?,
            ":info" => {
                history.extend(asked.unknown(call));
                continue;
            }
            _ => return Err(odd()),
        };
        let returned = Some(now);
        history.extend(known.map(|operation| Timed { call, returned, operation }));
    }
    history.extend(called.into_values().filter_map(|(call, asked)| asked.unknown(call)));
    Ok(history)
}

/// The four words of an event; the last may have blanks in it.
fn words(event: &str) -> Option<(&str, &str, &str, &str)> {
    let mut rest = event;
    let mut word = || {
        let (word, behind) = rest.trim_start().split_once(char::is_whitespace)?;
        rest = behind;
        Some(word)
    };
    let (process, kind, function) = (word()?, word()?, word()?);
    Some((process, kind, function, rest.trim()))
}

/// A call.
#[derive(Clone, Copy, PartialEq)]
enum Asked {
    Read,
    Write(i64),
    Swap(i64, i64),
}

impl Asked {
    fn parse(function: &str, value: &str) -> Option<Asked> {
        match function {
            ":read" => (value == "nil").then_some(Asked::Read),
            ":write" => Some(Asked::Write(value.parse().ok()?)),
            ":cas" => {
                let pair = value.strip_prefix('[')?.strip_suffix(']')?;
                let (from, to) = pair.split_once(' ')?;
                Some(Asked::Swap(from.parse().ok()?, to.parse().ok()?))
            }
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Asked::Read => ":read",
            Asked::Write(_) => ":write",
            Asked::Swap(..) => ":cas",
        }
    }

    /// What an `:ok` or a `:fail` makes of it: nothing, if it never happened; `None` if that cannot be.
    fn answered(self, value: &str, is_ok: bool) -> Option<Option<Operation>> {
        let repeats = || Asked::parse(self.name(), value) == Some(self);
        match self {
            Asked::Read if is_ok && value == "nil" => Some(Some(Operation::Read { saw: None })),
            Asked::Read if is_ok => Some(Some(Operation::Read { saw: Some(value.parse().ok()?) })),
            Asked::Write(number) if is_ok => repeats().then_some(Some(Operation::Write(number))),
            Asked::Swap(from, to) if repeats() => {
                Some(Some(Operation::Swap { from, to, done: Some(is_ok) }))
            }
            Asked::Read | Asked::Write(_) | Asked::Swap(..) => (!is_ok).then_some(None),
        }
    }

    /// What is left of it if nobody knows what became of it.
    fn unknown(self, call: u64) -> Option<Timed<Operation>> {
        let operation = match self {
            Asked::Read => return None,
            Asked::Write(number) => Operation::Write(number),
            Asked::Swap(from, to) => Operation::Swap { from, to, done: None },
        };
        Some(Timed { call, returned: None, operation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_line_by_line() {
        let log = "INFO  jepsen.util - 0\t:invoke\t:read\tnil\n\
                   INFO  jepsen.util - 1\t:invoke\t:write\t4\n\
                   INFO  jepsen.util - :nemesis\t:info\t:start\tnil\n\
                   INFO  jepsen.util - 0\t:ok\t:read\t4\n\
                   INFO  jepsen.util - 1\t:info\t:write\t:timed-out\n\
                   INFO  jepsen.util - 2\t:invoke\t:cas\t[4 1]\n\
                   INFO  jepsen.core - something else\n\
                   INFO  jepsen.util - 2\t:fail\t:cas\t[4 1]\n\
                   INFO  jepsen.util - 2\t:invoke\t:read\tnil\n\
                   INFO  jepsen.util - 2\t:fail\t:read\t:timed-out\n\
                   INFO  jepsen.util - 0\t:invoke\t:cas\t[1 2]\n";
        let found: Vec<(u64, Option<u64>, Operation)> =
            parse(log).unwrap().into_iter().map(|t| (t.call, t.returned, t.operation)).collect();
        let swap = |from, to, done| Operation::Swap { from, to, done };
        assert_eq!(
            found,
            [
                (0, Some(3), Operation::Read { saw: Some(4) }),
                (1, None, Operation::Write(4)),
                (5, Some(7), swap(4, 1, Some(false))),
                (10, None, swap(1, 2, None)),
            ]
        );
    }

    #[test]
    fn what_is_not_understood_is_an_error_that_names_the_line() {
        for odd in [
            "0 :invoke :append 4",
            "0 :invoke :write four",
            "0 :ok :read 4",
            "0 :invoke",
            "0 :invoke :write 1\nINFO jepsen.util - 0 :ok :write 2",
            "0 :invoke :write 1\nINFO jepsen.util - 0 :ok :read 1",
            "0 :invoke :write 1\nINFO jepsen.util - 0 :invoke :write 2",
        ] {
            let log = format!("INFO jepsen.util - {odd}\n");
            let last = log.lines().count();
            let why = parse(&log).unwrap_err();
            assert!(why.starts_with(&format!("line {last}: ")), "{why}");
        }
    }
}
