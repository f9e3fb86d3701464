//! How an experiment is told: three members side by side, a line for each event; in colour, plain, or as JSON.
//!
//! What a stage is called on the page and in JSON is decided here and nowhere else.

use std::fmt::Write as _;

use prost::Message as _;
use proto::mvccpb::KeyValue;
use raft::MessageKind;
use replica::{Said, Trace};
use state_machine::{RangeReply, Reply};

use crate::json::Object;
use crate::lab::bench::{Account, Line, MEMBERS, Subject, role_name};
use crate::shard::Outcome;

/// Columns of the client and of each member.
const CLIENT_WIDTH: usize = 24;
const MEMBER_WIDTH: usize = 27;
const TIME_WIDTH: usize = 12;

/// Whether it is told in colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For a file, or whoever does not like colours.
    Plain,
    /// For a terminal.
    Coloured,
}

/// What kind of thing happened, for its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    Message,
    Disk,
    Agreement,
    State,
    Client,
    Step,
    Quiet,
    Good,
    Bad,
}

impl Style {
    fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Message => "36",
            Tone::Disk => "33",
            Tone::Agreement => "35",
            Tone::State | Tone::Good => "32",
            Tone::Client | Tone::Step => "1",
            Tone::Quiet => "2",
            Tone::Bad => "1;31",
        };
        match self {
            Style::Plain => text.to_owned(),
            Style::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// The whole account, for people.
pub fn tell(account: &Account, style: Style) -> String {
    let mut out = String::new();
    let quiet = |text: &str| style.paint(Tone::Quiet, text);
    line(&mut out, &style.paint(Tone::Step, account.question));
    line(&mut out, "");
    let mut heading = format!("{:>TIME_WIDTH$}  {:<CLIENT_WIDTH$}", "time", "client");
    for (member, role) in account.roles.iter().enumerate() {
        let name = format!("member {} ({role})", member + 1);
        let _fits_a_string = write!(heading, "{name:<MEMBER_WIDTH$}");
    }
    line(&mut out, &quiet(heading.trim_end()));
    let rule = |width: usize| "─".repeat(width - 2) + "  ";
    let rules = rule(TIME_WIDTH + 2) + &rule(CLIENT_WIDTH) + &rule(MEMBER_WIDTH).repeat(MEMBERS);
    line(&mut out, &quiet(rules.trim_end()));
    for (place, Line { at_us, subject }) in account.lines.iter().enumerate() {
        let (column, tone, text) = match subject {
            Subject::Client(text) => (Some(0), Tone::Client, text.clone()),
            Subject::Member(member, trace) => {
                let (tone, text) = words(trace);
                (Some(CLIENT_WIDTH + member * MEMBER_WIDTH), tone, text)
            }
            Subject::Step(text) => (None, Tone::Step, text.clone()),
        };
        let time = quiet(&format!("{:>TIME_WIDTH$}", time(*at_us)));
        match column {
            Some(column) => {
                line(&mut out, &format!("{time}  {:column$}{}", "", style.paint(tone, &text)));
            }
            None => {
                if place > 0 {
                    line(&mut out, "");
                }
                line(&mut out, &format!("{time}  {}", style.paint(tone, &format!("— {text}"))));
            }
        }
    }
    line(&mut out, "");
    line(&mut out, &style.paint(Tone::Step, "What was to be seen"));
    line(&mut out, "");
    for claim in &account.claims {
        let (mark, tone) = if claim.holds { ("✓", Tone::Good) } else { ("✗", Tone::Bad) };
        for (place, part) in wrap(&claim.text, 104).into_iter().enumerate() {
            let mark = if place == 0 { style.paint(tone, mark) } else { " ".to_owned() };
            line(&mut out, &format!("  {mark} {part}"));
        }
    }
    out
}

fn line(out: &mut String, text: &str) {
    out.push_str(text.trim_end());
    out.push('\n');
}

/// Breaks a sentence into lines of so many characters at most, between words.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is always one");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

/// A time: milliseconds, with the microseconds behind the point.
pub fn time(at_us: u64) -> String {
    let (ms, us) = (at_us / 1_000, at_us % 1_000);
    match ms >= 1_000 {
        true => format!("{} {:03}.{us:03} ms", ms / 1_000, ms % 1_000),
        false => format!("{ms}.{us:03} ms"),
    }
}

/// A stage in a few words.
fn words(trace: &Trace) -> (Tone, String) {
    match trace {
        Trace::Proposed { bytes, .. } => (Tone::Agreement, format!("proposed ({bytes} bytes)")),
        Trace::Appended { first, last, .. } => {
            (Tone::Agreement, format!("unstable log: {}", span(first.0, last.0)))
        }
        Trace::Sent { to, message } => {
            (Tone::Message, format!("{} → {to}{}", name(message.kind), gist(message)))
        }
        Trace::Received { from, message } => {
            (Tone::Message, format!("{} ← {from}{}", name(message.kind), gist(message)))
        }
        Trace::Written { first, last } => {
            (Tone::Disk, format!("WAL appended: {}", span(first.0, last.0)))
        }
        Trace::BallotWritten { term, vote: 0 } => {
            (Tone::Disk, format!("WAL appended: term {term}"))
        }
        Trace::BallotWritten { term, vote } => {
            (Tone::Disk, format!("WAL: term {term}, vote for {vote}"))
        }
        Trace::Synced { last } => (Tone::Disk, format!("WAL synced up to {last}")),
        Trace::Matched { node, index } => (Tone::Agreement, format!("match[{node}] = {index}")),
        Trace::Committed { index } => (Tone::State, format!("committed {index}")),
        Trace::Applied { index } => (Tone::State, format!("applied {index}")),
        Trace::Answered { index, .. } => (Tone::State, format!("answered (entry {index})")),
        Trace::FrameWritten { index } => (Tone::Disk, format!("store: frame up to {index}")),
        Trace::StoreSynced { index } => (Tone::Disk, format!("store synced up to {index}")),
        Trace::Marked { index } => (Tone::Disk, format!("WAL marked at {index}")),
        Trace::Released { index } => (Tone::Disk, format!("WAL released up to {index}")),
        Trace::ReadConfirmed { index } => (Tone::Agreement, format!("read index {index}")),
        Trace::Role { role, term, leader } => {
            let text = match (role, leader) {
                (raft::RoleKind::Leader, _) => format!("leads term {term}"),
                (_, 0) => format!("{}, term {term}", role_name(*role)),
                (_, leader) => format!("follows {leader}, term {term}"),
            };
            (Tone::Agreement, text)
        }
        Trace::SnapshotPinned { to, index } => {
            (Tone::Disk, format!("snapshot at {index} for {to}"))
        }
        Trace::SnapshotImported { index } => (Tone::Disk, format!("snapshot {index} imported")),
        Trace::SnapshotInstalled { index } => (Tone::State, format!("snapshot {index} in force")),
    }
}

fn span(first: u64, last: u64) -> String {
    match first == last {
        true => format!("entry {first}"),
        false => format!("{first}–{last}"),
    }
}

/// The kind as etcd calls it.
fn name(kind: MessageKind) -> String {
    format!("Msg{kind:?}")
}

/// What matters of a message, behind its name.
fn gist(said: &Said) -> String {
    use MessageKind::*;
    let Said { kind, reject, entries, index, commit, .. } = *said;
    match kind {
        App if entries > 0 => {
            format!("  {}", span(index.0 + 1, index.0 + u64::from(entries)))
        }
        App => format!("  commit {commit}"),
        AppResp if reject => "  no".to_owned(),
        AppResp => format!("  up to {index}"),
        Vote | PreVote => format!("  log to {index}"),
        VoteResp | PreVoteResp => if reject { "  no" } else { "  yes" }.to_owned(),
        Snap => format!("  at {index}"),
        ReadIndexResp => format!("  {index}"),
        _ => String::new(),
    }
}

/// What the client hears, in a few words.
pub fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(None) => "← OK".to_owned(),
        Outcome::Done(Some(reply)) => match &**reply {
            Reply::Range(range) => {
                let found: Vec<String> =
                    key_values(range).into_iter().map(|(k, v)| format!("{k}={v}")).collect();
                match found.is_empty() {
                    true => format!("← nothing, revision {}", range.revision),
                    false => format!("← {}, revision {}", found.join(" "), range.revision),
                }
            }
            reply => format!("← OK, revision {}", revision(reply)),
        },
        Outcome::Refused(error) | Outcome::TurnedAway(error) => format!("← {}", error.text()),
        Outcome::NotTaken(why) => format!("← {why:?}"),
        Outcome::Unknown => "← request timed out".to_owned(),
    }
}

/// The revision that a reply names; 0 if it names none.
pub fn revision(reply: &Reply) -> i64 {
    match reply {
        Reply::Range(range) => range.revision,
        Reply::Put(put) => put.revision,
        Reply::DeleteRange(delete) => delete.revision,
        Reply::Txn(txn) => txn.revision,
        Reply::Compact { revision } => *revision,
        _ => 0,
    }
}

/// Bytes as people read them; what is long is cut.
pub fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(24) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

/// Keys and values that a range found.
pub fn key_values(range: &RangeReply) -> Vec<(String, String)> {
    range
        .key_values
        .iter()
        .filter_map(|bytes| KeyValue::decode(bytes.clone()).ok())
        .map(|kv| (text(&kv.key), text(&kv.value)))
        .collect()
}

// --- JSON. ---

/// The whole account, one JSON object per line: the beginning, every event, every claim.
pub fn json(account: &Account) -> String {
    let mut out = String::new();
    let mut object = Object::new();
    object.text("experiment", account.name).text("question", account.question);
    object.number("seed", account.seed).list("roles", &account.roles);
    out.push_str(&object.close());
    for Line { at_us, subject } in &account.lines {
        let mut object = Object::new();
        object.number("us", *at_us);
        match subject {
            Subject::Member(member, trace) => {
                object.number("member", *member as u64 + 1);
                stage(&mut object, trace);
            }
            Subject::Client(text) => {
                object.text("client", text);
            }
            Subject::Step(text) => {
                object.text("step", text);
            }
        }
        out.push_str(&object.close());
    }
    for claim in &account.claims {
        let mut object = Object::new();
        object.text("claim", &claim.text).flag("holds", claim.holds);
        out.push_str(&object.close());
    }
    out
}

/// A stage's name and numbers.
fn stage(object: &mut Object, trace: &Trace) {
    let range = |object: &mut Object, first: u64, last: u64| {
        object.number("first", first).number("last", last);
    };
    match trace {
        Trace::Proposed { id, bytes } => {
            object.text("stage", "proposed").text("id", &format!("{:x}", id.0));
            object.number("bytes", u64::from(*bytes));
        }
        Trace::Appended { first, last, term } => {
            range(object.text("stage", "appended"), first.0, last.0);
            object.number("term", term.0);
        }
        Trace::Sent { to, message } => {
            said(object.text("stage", "sent").number("to", *to), message);
        }
        Trace::Received { from, message } => {
            said(object.text("stage", "received").number("from", *from), message);
        }
        Trace::Written { first, last } => {
            range(object.text("stage", "wal-appended"), first.0, last.0);
        }
        Trace::BallotWritten { term, vote } => {
            object.text("stage", "wal-ballot").number("term", term.0).number("vote", *vote);
        }
        Trace::Synced { last } => {
            object.text("stage", "wal-synced").number("index", last.0);
        }
        Trace::Matched { node, index } => {
            object.text("stage", "match").number("node", *node).number("index", index.0);
        }
        Trace::Committed { index } => {
            object.text("stage", "committed").number("index", index.0);
        }
        Trace::Applied { index } => {
            object.text("stage", "applied").number("index", index.0);
        }
        Trace::Answered { id, index } => {
            object.text("stage", "answered").text("id", &format!("{:x}", id.0));
            object.number("index", index.0);
        }
        Trace::FrameWritten { index } => {
            object.text("stage", "frame-flushed").number("index", index.0);
        }
        Trace::StoreSynced { index } => {
            object.text("stage", "store-synced").number("index", index.0);
        }
        Trace::Marked { index } => {
            object.text("stage", "wal-marked").number("index", index.0);
        }
        Trace::Released { index } => {
            object.text("stage", "wal-released").number("index", index.0);
        }
        Trace::ReadConfirmed { index } => {
            object.text("stage", "read-index").number("index", index.0);
        }
        Trace::Role { role, term, leader } => {
            object.text("stage", "role").text("role", role_name(*role));
            object.number("term", term.0).number("leader", *leader);
        }
        Trace::SnapshotPinned { to, index } => {
            object.text("stage", "snapshot-pinned").number("to", *to).number("index", index.0);
        }
        Trace::SnapshotImported { index } => {
            object.text("stage", "snapshot-imported").number("index", index.0);
        }
        Trace::SnapshotInstalled { index } => {
            object.text("stage", "snapshot-installed").number("index", index.0);
        }
    }
}

fn said(object: &mut Object, said: &Said) {
    object.text("message", &name(said.kind)).number("term", said.term.0);
    object.number("index", said.index.0).number("commit", said.commit.0);
    object.number("entries", u64::from(said.entries)).flag("reject", said.reject);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_their_microseconds_behind_the_point() {
        assert_eq!(time(7), "0.007 ms");
        assert_eq!(time(12_345), "12.345 ms");
        assert_eq!(time(1_004_020), "1 004.020 ms");
    }

    #[test]
    fn sentences_break_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("unbreakable", 4), ["unbreakable"]);
    }
}
