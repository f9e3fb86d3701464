//! txn: compares and operations from the input, one per line, each block ended by an empty line.

use client::{Compare, Txn};
use proto::etcdserverpb::{
    compare::{CompareResult, TargetUnion},
    request_op::Request,
};

use crate::{
    Exit, Streams,
    config::Session,
    flags::{self, Command, OPERATIONS, Verb},
    go, kv,
    print::Answer,
};

/// The command that holds the operations, so that they are read as commands are.
static OPERATION: Command = Command {
    name: "txn",
    arguments: "",
    short: "",
    verb: Verb::Group,
    flags: &[],
    shared_flags: &[],
    children: &OPERATIONS,
};

pub(crate) async fn txn(mut session: Session) -> Result<(), Exit> {
    if !session.parsed.arguments.is_empty() {
        return Err(Exit::bad_arguments("txn command does not accept argument"));
    }
    let interactive = session.parsed.bool("interactive");
    let (client, printer) = session.connect()?;
    let txn = read(&mut session.streams, interactive)?;
    // As in etcdctl, a transaction waits as long as it takes.
    let response = client.with_timeout(None).txn(txn).await.map_err(Exit::error)?;
    session.print(&printer, &Answer::Txn(response))
}

/// Reads a transaction from the input.
pub(crate) fn read(streams: &mut Streams, interactive: bool) -> Result<Txn, Exit> {
    let prompt = |streams: &Streams, text: &str| match interactive {
        true => streams.print(text.as_bytes()),
        false => Ok(()),
    };
    let mut txn = Txn::new();
    prompt(streams, "compares:\n")?;
    while let Some(line) = next_line(streams)? {
        txn = txn.when(compare(&line).map_err(invalid)?);
    }
    prompt(streams, "success requests (get, put, del):\n")?;
    while let Some(line) = next_line(streams)? {
        txn = txn.then(operation(&line, streams)?);
    }
    prompt(streams, "failure requests (get, put, del):\n")?;
    while let Some(line) = next_line(streams)? {
        txn = txn.or_else(operation(&line, streams)?);
    }
    Ok(txn)
}

fn invalid(message: impl ToString) -> Exit {
    Exit::new(Exit::INVALID_INPUT, message)
}

/// The next line of a block without the space around it; nothing at its end.
fn next_line(streams: &mut Streams) -> Result<Option<Vec<u8>>, Exit> {
    let line = crate::read_line(&mut *streams.input).map_err(invalid)?;
    let line = line.ok_or_else(|| invalid("EOF"))?.trim_ascii().to_vec();
    Ok((!line.is_empty()).then_some(line))
}

/// Reads `target("key") op "value"`.
fn compare(line: &[u8]) -> Result<Compare, String> {
    let shown = String::from_utf8_lossy(line);
    let malformed = || format!("malformed comparison: {shown}");
    let paren = line.iter().position(|&byte| byte == b'(').ok_or_else(malformed)?;
    let target = String::from_utf8_lossy(&line[..paren]).into_owned();
    let (mut key, mut op, mut value) = (Vec::new(), String::new(), None);
    if let Some((quoted, rest)) = go::unquote(line[paren + 1..].trim_ascii_start()) {
        key = quoted;
        if let Some(rest) = rest.strip_prefix(b")").and_then(spaces) {
            let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
            op = String::from_utf8_lossy(&rest[..end]).into_owned();
            value = spaces(&rest[end..]).and_then(go::unquote).map(|(value, _)| value);
        }
    }
    let Some(value) = value else {
        let key = go::quote(&key);
        return Err(format!("{}; got {target}({key}) {op} \"\"", malformed()));
    };
    let number = |base| {
        go::parse_int(&String::from_utf8_lossy(&value), base)
            .map_err(|_| format!("invalid txn compare request: {shown}"))
    };
    let target = match target.as_str() {
        "ver" | "version" => TargetUnion::Version(number(10)?),
        "c" | "create" => TargetUnion::CreateRevision(number(10)?),
        "m" | "mod" => TargetUnion::ModRevision(number(10)?),
        "val" | "value" => TargetUnion::Value(value.into()),
        "lease" => TargetUnion::Lease(number(16)?),
        other => return Err(format!("{} (unknown target {other})", malformed())),
    };
    let result = match op.as_str() {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        other => return Err(format!("{} (unknown operator {other})", malformed())),
    };
    Ok(Compare::new(key, result, target))
}

/// What follows at least one space.
fn spaces(text: &[u8]) -> Option<&[u8]> {
    let rest = text.trim_ascii_start();
    (rest.len() < text.len()).then_some(rest)
}

/// Reads one operation: `put`, `get` or `del` with its flags.
fn operation(line: &[u8], streams: &mut Streams) -> Result<Request, Exit> {
    let shown = String::from_utf8_lossy(line);
    let words = go::words(line).map_err(invalid)?;
    if words.len() < 2 {
        return Err(invalid(format!("invalid txn compare request: {shown}")));
    }
    let parsed = flags::parse(&OPERATION, &words)
        .map_err(|_| invalid(format!("invalid txn request: {shown}")))?;
    Ok(match parsed.command().verb {
        Verb::Put => Request::RequestPut(kv::put_request(&parsed, streams)?),
        Verb::Get => Request::RequestRange(kv::range_request(&parsed)?),
        Verb::Del => Request::RequestDeleteRange(kv::delete_request(&parsed)?),
        _ => return Err(invalid(format!("invalid txn request: {shown}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_are_read() {
        for (line, result, target) in [
            (r#"ver("k") = "1""#, CompareResult::Equal, TargetUnion::Version(1)),
            (r#"create("k") != "2""#, CompareResult::NotEqual, TargetUnion::CreateRevision(2)),
            (r#"m("k") > "3""#, CompareResult::Greater, TargetUnion::ModRevision(3)),
            (r#"value("k")  <  "\x00a""#, CompareResult::Less, TargetUnion::Value("\0a".into())),
            (r#"lease("k") = "ff""#, CompareResult::Equal, TargetUnion::Lease(255)),
        ] {
            assert_eq!(compare(line.as_bytes()), Ok(Compare::new("k", result, target)), "{line}");
        }
    }

    #[test]
    fn bad_compares_are_refused_in_etcdctls_words() {
        for (line, message) in [
            ("frob foo", "malformed comparison: frob foo"),
            (r#"mod("foo" > "0""#, r#"malformed comparison: mod("foo" > "0"; got mod("foo")  """#),
            (r#"val("foo")="a""#, r#"malformed comparison: val("foo")="a"; got val("foo")  """#),
            (r#"mod("a") = "x""#, r#"invalid txn compare request: mod("a") = "x""#),
            (r#"x("a") = "1""#, r#"malformed comparison: x("a") = "1" (unknown target x)"#),
            (r#"mod("a") ~ "1""#, r#"malformed comparison: mod("a") ~ "1" (unknown operator ~)"#),
        ] {
            assert_eq!(compare(line.as_bytes()).unwrap_err(), message);
        }
    }
}
