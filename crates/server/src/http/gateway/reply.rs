//! From protobuf to JSON, driven by the message's description, as Go's protojson writes it: names as in the .proto
//! files, members in the order of their declaration, what has its default left out, 64-bit numbers as strings,
//! bytes in base64, enumerations by name.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::encoding::{WireType, decode_key, decode_varint};
use proto::descriptor::{Field, Kind, Message};

/// Messages within messages that are followed. What nests is a transaction's reply, two for each level, and no
/// transaction that nests deeper than [`state_machine::TXN_DEPTH_MAX`] is ever served.
const NESTING_MAX: usize = 2 * state_machine::TXN_DEPTH_MAX + 16;

/// The bytes are not such a message. They are our own, so this is a bug.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// Who reads the JSON.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A reply by itself.
    Plain,
    /// A line of a stream. Go writes these so that they could stand in a page of HTML.
    Line,
}

/// Appends a message as JSON.
pub fn write(
    message: &Message,
    bytes: &[u8],
    style: Style,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    write_message(message, bytes, style, NESTING_MAX, out)
}

/// A field's value on the wire.
enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

fn write_message(
    message: &Message,
    bytes: &[u8],
    style: Style,
    nesting: usize,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let nesting = nesting.checked_sub(1).ok_or(Malformed)?;
    let mut values = fields(message, bytes)?;
    values.sort_by_key(|(index, _)| *index);
    out.push(b'{');
    let first = out.len();
    for group in values.chunk_by(|(one, _), (other, _)| one == other) {
        let field = &message.fields[group[0].0];
        // Of a field that does not repeat the last value counts.
        let group = if field.repeated { group } else { &group[group.len() - 1..] };
        if !field.repeated && field.oneof.is_none() && is_default(field, &group[0].1) {
            continue;
        }
        if out.len() > first {
            out.push(b',');
        }
        write_text(field.name, Style::Plain, out);
        out.push(b':');
        if field.repeated {
            out.push(b'[');
        }
        for (at, (_, value)) in group.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write_value(field, value, style, nesting, out)?;
        }
        if field.repeated {
            out.push(b']');
        }
    }
    out.push(b'}');
    Ok(())
}

/// The values that a message has, each with the index of its field.
fn fields<'a>(
    message: &Message,
    mut bytes: &'a [u8],
) -> Result<Vec<(usize, Value<'a>)>, Malformed> {
    let mut values = Vec::with_capacity(message.fields.len());
    while !bytes.is_empty() {
        let (number, wire_type) = decode_key(&mut bytes).map_err(|_| Malformed)?;
        let index = message.fields.iter().position(|field| field.number == number);
        match wire_type {
            WireType::Varint => {
                let value = decode_varint(&mut bytes).map_err(|_| Malformed)?;
                values.extend(index.map(|index| (index, Value::Varint(value))));
            }
            WireType::LengthDelimited => {
                let length = decode_varint(&mut bytes).map_err(|_| Malformed)?;
                let length = usize::try_from(length).map_err(|_| Malformed)?;
                let (mut value, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
                bytes = rest;
                let Some(index) = index else { continue };
                match message.fields[index].kind {
                    Kind::String | Kind::Bytes | Kind::Message(_) => {
                        values.push((index, Value::Bytes(value)));
                    }
                    // Several numbers, packed.
                    _ => {
                        while !value.is_empty() {
                            let number = decode_varint(&mut value).map_err(|_| Malformed)?;
                            values.push((index, Value::Varint(number)));
                        }
                    }
                }
            }
            // The API has no fixed-size numbers and no groups.
            _ => return Err(Malformed),
        }
    }
    Ok(values)
}

fn is_default(field: &Field, value: &Value<'_>) -> bool {
    match (field.kind, value) {
        (Kind::Message(_), _) => false,
        (_, Value::Varint(number)) => *number == 0,
        (_, Value::Bytes(bytes)) => bytes.is_empty(),
    }
}

fn write_value(
    field: &Field,
    value: &Value<'_>,
    style: Style,
    nesting: usize,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    match (field.kind, value) {
        (Kind::Bool, Value::Varint(number)) => out.extend(match number {
            0 => &b"false"[..],
            _ => &b"true"[..],
        }),
        (Kind::Int32, Value::Varint(number)) => out.extend((*number as i32).to_string().bytes()),
        (Kind::Uint32, Value::Varint(number)) => out.extend((*number as u32).to_string().bytes()),
        (Kind::Int64, Value::Varint(number)) => {
            out.extend(format!("\"{}\"", *number as i64).bytes());
        }
        (Kind::Uint64, Value::Varint(number)) => out.extend(format!("\"{number}\"").bytes()),
        (Kind::Enum(names), Value::Varint(number)) => match names.name(*number as i32) {
            Some(name) => write_text(name, style, out),
            None => out.extend((*number as i32).to_string().bytes()),
        },
        (Kind::String, Value::Bytes(bytes)) => {
            write_text(std::str::from_utf8(bytes).map_err(|_| Malformed)?, style, out);
        }
        (Kind::Bytes, Value::Bytes(bytes)) => {
            out.push(b'"');
            let start = out.len();
            out.resize(start + bytes.len().div_ceil(3) * 4, 0);
            STANDARD.encode_slice(bytes, &mut out[start..]).map_err(|_| Malformed)?;
            out.push(b'"');
        }
        (Kind::Message(message), Value::Bytes(bytes)) => {
            write_message(message, bytes, style, nesting, out)?;
        }
        _ => return Err(Malformed),
    }
    Ok(())
}

/// Appends a string with its quotation marks.
pub fn write_text(text: &str, style: Style, out: &mut Vec<u8>) {
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend([b'\\', c as u8]),
            '\x08' => out.extend(b"\\b"),
            '\x0c' => out.extend(b"\\f"),
            '\n' => out.extend(b"\\n"),
            '\r' => out.extend(b"\\r"),
            '\t' => out.extend(b"\\t"),
            '\0'..' ' => out.extend(format!("\\u{:04x}", c as u32).bytes()),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' if style == Style::Line => {
                out.extend(format!("\\u{:04x}", c as u32).bytes());
            }
            c => out.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proto::descriptor::ROUTES;
    use proto::etcdserverpb::{
        AlarmMember, AlarmResponse, HashResponse, Member, MemberListResponse, PutResponse,
        RangeResponse, ResponseHeader, ResponseOp, TxnResponse, WatchResponse,
        response_op::Response,
    };
    use proto::mvccpb::{Event, KeyValue};

    use super::*;

    fn json(path: &str, message: &impl prost::Message, style: Style) -> Result<String, Malformed> {
        let output = ROUTES.iter().find(|route| route.http == path).unwrap().output;
        let mut out = Vec::new();
        write(output, &message.encode_to_vec(), style, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn replies_are_written_as_etcd_writes_them() {
        let header =
            Some(ResponseHeader { cluster_id: u64::MAX, member_id: 1, revision: -1, raft_term: 0 });
        let kv = KeyValue {
            key: b"\xff\xfe\xfd".as_slice().into(),
            mod_revision: 2,
            lease: i64::MIN,
            ..KeyValue::default()
        };
        let range = RangeResponse {
            header,
            kvs: vec![kv.clone(), KeyValue::default()],
            more: true,
            count: 0,
        };
        assert_eq!(
            json("/v3/kv/range", &range, Style::Plain).unwrap(),
            r#"{"header":{"cluster_id":"18446744073709551615","member_id":"1","revision":"-1"},"#
                .to_string()
                + r#""kvs":[{"key":"//79","mod_revision":"2","lease":"-9223372036854775808"},{}],"more":true}"#
        );
        let txn = TxnResponse {
            succeeded: true,
            responses: vec![
                ResponseOp { response: Some(Response::ResponsePut(PutResponse::default())) },
                ResponseOp { response: None },
            ],
            ..TxnResponse::default()
        };
        assert_eq!(
            json("/v3/kv/txn", &txn, Style::Plain).unwrap(),
            r#"{"succeeded":true,"responses":[{"response_put":{}},{}]}"#
        );
        let watch = WatchResponse {
            events: vec![
                Event { r#type: 1, kv: Some(kv), prev_kv: None },
                Event { r#type: 5, ..Event::default() },
                Event::default(),
            ],
            cancel_reason: "<a>&\u{2028}\u{1}\n\"ü".to_string(),
            ..WatchResponse::default()
        };
        assert_eq!(
            json("/v3/watch", &watch, Style::Line).unwrap(),
            r#"{"cancel_reason":"\u003ca\u003e\u0026\u2028\u0001\n\"ü","events":[{"type":"DELETE","kv":"#.to_string()
                + r#"{"key":"//79","mod_revision":"2","lease":"-9223372036854775808"}},{"type":5},{}]}"#
        );
        let members = MemberListResponse {
            members: vec![Member {
                id: 7,
                peer_ur_ls: vec!["<".to_string(), String::new()],
                is_learner: true,
                ..Member::default()
            }],
            header: None,
        };
        assert_eq!(
            json("/v3/cluster/member/list", &members, Style::Plain).unwrap(),
            r#"{"members":[{"ID":"7","peerURLs":["<",""],"isLearner":true}]}"#
        );
        let hash = HashResponse { hash: u32::MAX, header: None };
        assert_eq!(
            json("/v3/maintenance/hash", &hash, Style::Plain).unwrap(),
            r#"{"hash":4294967295}"#
        );
        let alarms =
            AlarmResponse { alarms: vec![AlarmMember { member_id: 3, alarm: 2 }], header: None };
        assert_eq!(
            json("/v3/maintenance/alarm", &alarms, Style::Plain).unwrap(),
            r#"{"alarms":[{"memberID":"3","alarm":"CORRUPT"}]}"#
        );
    }

    #[test]
    fn a_reply_that_is_none_is_told_apart() {
        let output = ROUTES.iter().find(|route| route.http == "/v3/kv/range").unwrap().output;
        for bytes in [
            &b"\x0a"[..],
            b"\x0a\x05a",
            b"\x10",
            b"\xff\xff\xff\xff\xff",
            b"\x1d\0\0\0\0",
            b"\x08\x01",
        ] {
            assert_eq!(write(output, bytes, Style::Plain, &mut Vec::new()), Err(Malformed));
        }
        let mut reply = TxnResponse::default();
        for _ in 0..NESTING_MAX {
            let response = Some(Response::ResponseTxn(reply));
            reply =
                TxnResponse { responses: vec![ResponseOp { response }], ..TxnResponse::default() };
        }
        assert_eq!(json("/v3/kv/txn", &reply, Style::Plain), Err(Malformed));
    }
}
