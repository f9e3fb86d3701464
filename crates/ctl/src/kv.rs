//! put, get, del, compaction; and the reading of the first three, which transactions use as well.

use bytes::Bytes;
use client::prefix_end;
use proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest,
    range_request::{SortOrder, SortTarget},
};

use crate::{
    Exit, Streams,
    config::Session,
    flags::Parsed,
    go,
    print::{Answer, Format},
};

pub(crate) async fn put(mut session: Session) -> Result<(), Exit> {
    let request = put_request(&session.parsed, &mut session.streams)?;
    let (client, printer) = session.connect()?;
    let response = client.put(request).await.map_err(Exit::error)?;
    session.print(&printer, &Answer::Put(response))
}

pub(crate) async fn get(mut session: Session) -> Result<(), Exit> {
    let request = range_request(&session.parsed)?;
    if session.parsed.bool("stream") {
        return Err(Exit::new(Exit::BAD_FEATURE, "--stream is not yet supported"));
    }
    let (client, mut printer) = session.connect()?;
    let response = client.range(request).await.map_err(Exit::error)?;
    if session.parsed.bool("count-only") && printer.format != Format::Fields {
        return Err(Exit::bad_arguments("--count-only is only for `--write-out=fields`"));
    }
    if session.parsed.bool("print-value-only") {
        if printer.format != Format::Simple {
            return Err(Exit::bad_arguments("print-value-only is only for `--write-out=simple`"));
        }
        printer.value_only = true;
    }
    session.print(&printer, &Answer::Get(response))
}

pub(crate) async fn del(mut session: Session) -> Result<(), Exit> {
    let request = delete_request(&session.parsed)?;
    if session.parsed.arguments.len() > 1 && !session.parsed.bool("range") {
        let [from, to] = [0, 1].map(|n| go::quote(&session.parsed.arguments[n]));
        session.streams.complain(&format!(
            "Warning: Keys between {from} and {to} will be deleted. Please interrupt the command within next 2 seconds to cancel. You can provide `--range` flag to avoid the delay.\n"
        ));
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    }
    let (client, printer) = session.connect()?;
    let response = client.delete_range(request).await.map_err(Exit::error)?;
    session.print(&printer, &Answer::Del(response))
}

pub(crate) async fn compaction(mut session: Session) -> Result<(), Exit> {
    let [revision] = session.parsed.arguments.as_slice() else {
        return Err(Exit::bad_arguments("compaction command needs 1 argument"));
    };
    let revision = go::parse_int(&String::from_utf8_lossy(revision), 10).map_err(Exit::error)?;
    let physical = session.parsed.bool("physical");
    let (client, _) = session.connect()?;
    client.compact(CompactionRequest { revision, physical }).await.map_err(Exit::error)?;
    session.streams.print(format!("compacted revision {revision}\n").as_bytes())
}

/// Reads `put`'s arguments; the value may come from the input.
pub(crate) fn put_request(parsed: &Parsed, streams: &mut Streams) -> Result<PutRequest, Exit> {
    const NEEDS: &str = "put command needs 1 argument and input from stdin or 2 arguments";
    let arguments = &parsed.arguments;
    let key = arguments.first().ok_or_else(|| Exit::bad_arguments(NEEDS))?;
    let ignore_value = parsed.bool("ignore-value");
    let value = match arguments.get(1) {
        Some(_) if ignore_value => {
            let message = "put command needs only 1 argument when 'ignore-value' is set";
            return Err(Exit::bad_arguments(message));
        }
        Some(value) => value.clone(),
        None if ignore_value => Vec::new(),
        None => match crate::read_all(&mut *streams.input) {
            Ok(value) if !value.is_empty() => value,
            _ => return Err(Exit::bad_arguments(NEEDS)),
        },
    };
    let lease = go::parse_int(parsed.text("lease"), 16)
        .map_err(|why| Exit::bad_arguments(format!("bad lease ID ({why}), expecting ID in Hex")))?;
    Ok(PutRequest {
        key: key.clone().into(),
        value: value.into(),
        lease,
        prev_kv: parsed.bool("prev-kv"),
        ignore_value,
        ignore_lease: parsed.bool("ignore-lease"),
    })
}

/// Reads `get`'s arguments.
pub(crate) fn range_request(parsed: &Parsed) -> Result<RangeRequest, Exit> {
    if parsed.arguments.is_empty() {
        let message = "get command needs one argument as key and an optional argument as range_end";
        return Err(Exit::bad_arguments(message));
    }
    check_prefix_or_from_key(parsed)?;
    if parsed.bool("keys-only") && parsed.bool("count-only") {
        let message = "`--keys-only` and `--count-only` cannot be set at the same time, choose one";
        return Err(Exit::bad_arguments(message));
    }
    let serializable = serializable(parsed)?;
    let (key, range_end) = range(parsed)?;
    let bad =
        |what: &str, given: &str| Exit::new(Exit::BAD_FEATURE, format!("bad sort {what} {given}"));
    let mut order = match parsed.text("order").to_uppercase().as_str() {
        "" => SortOrder::None,
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        _ => return Err(bad("order", parsed.text("order"))),
    };
    let target = match parsed.text("sort-by").to_uppercase().as_str() {
        "" | "KEY" => SortTarget::Key,
        "CREATE" => SortTarget::Create,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => return Err(bad("target", parsed.text("sort-by"))),
    };
    if target == SortTarget::Key && order == SortOrder::Ascend {
        // Keys come in this order anyhow; asking for it would make the member read them all first.
        order = SortOrder::None;
    }
    let bounds = |min: &str, max: &str, name: &str| {
        let (min, max) = (parsed.int(min).max(0), parsed.int(max).max(0));
        if max > 0 && min > max {
            let message = format!("getMin{name}(={min}) > getMax{name}(={max})");
            return Err(Exit::new(Exit::BAD_FEATURE, message));
        }
        Ok((min, max))
    };
    let (min_create_revision, max_create_revision) =
        bounds("min-create-rev", "max-create-rev", "CreateRev")?;
    let (min_mod_revision, max_mod_revision) = bounds("min-mod-rev", "max-mod-rev", "ModRev")?;
    Ok(RangeRequest {
        key,
        range_end,
        limit: parsed.int("limit"),
        revision: parsed.int("rev").max(0),
        sort_order: order.into(),
        sort_target: target.into(),
        serializable,
        keys_only: parsed.bool("keys-only"),
        count_only: parsed.bool("count-only"),
        min_mod_revision,
        max_mod_revision,
        min_create_revision,
        max_create_revision,
    })
}

/// Reads `del`'s arguments.
pub(crate) fn delete_request(parsed: &Parsed) -> Result<DeleteRangeRequest, Exit> {
    if !(1..=2).contains(&parsed.arguments.len()) {
        let message = "del command needs one argument as key and an optional argument as range_end";
        return Err(Exit::bad_arguments(message));
    }
    check_prefix_or_from_key(parsed)?;
    let (key, range_end) = range(parsed)?;
    Ok(DeleteRangeRequest { key, range_end, prev_kv: parsed.bool("prev-kv") })
}

/// Reads `--consistency`.
pub(crate) fn serializable(parsed: &Parsed) -> Result<bool, Exit> {
    match parsed.text("consistency") {
        "s" => Ok(true),
        "l" => Ok(false),
        other => {
            let other = go::quote(other.as_bytes());
            Err(Exit::new(Exit::BAD_FEATURE, format!("unknown consistency flag {other}")))
        }
    }
}

fn check_prefix_or_from_key(parsed: &Parsed) -> Result<(), Exit> {
    if parsed.bool("prefix") && parsed.bool("from-key") {
        let message = "`--prefix` and `--from-key` cannot be set at the same time, choose one";
        return Err(Exit::bad_arguments(message));
    }
    Ok(())
}

/// The key and the end of the range that is meant.
fn range(parsed: &Parsed) -> Result<(Bytes, Bytes), Exit> {
    let key = Bytes::from(parsed.arguments[0].clone());
    let (prefix, from_key) = (parsed.bool("prefix"), parsed.bool("from-key"));
    if let Some(end) = parsed.arguments.get(1) {
        if prefix || from_key {
            let message = "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
            return Err(Exit::bad_arguments(message));
        }
        return Ok((key, end.clone().into()));
    }
    let zero = Bytes::from_static(b"\0");
    Ok(match key.is_empty() {
        true if prefix || from_key => (zero.clone(), zero),
        false if prefix => (key.clone(), prefix_end(&key)),
        false if from_key => (key, zero),
        _ => (key, Bytes::new()),
    })
}
