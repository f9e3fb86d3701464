//! From JSON to protobuf, driven by the message's description, with the rules and the words of Go's protojson.
//!
//! Two things are done without recursion, for a transaction nests as deep as its sender likes: the walk through
//! the value, and the lengths that stand before nested messages. The latter are left out of what is written, noted
//! with their places, and put in at the end, so that nothing is copied more than once.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::{self, Alphabet};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use proto::descriptor::{Field, Kind, Message};

use super::json::{is_space, quoted};

/// Reads a value, whose syntax [`super::json::Values`] has found right, as a message.
///
/// # Errors
/// It is no such message; in protojson's words.
pub fn read(message: &'static Message, value: &[u8]) -> Result<Bytes, String> {
    let mut reader = Reader {
        cursor: Cursor { value, at: 0 },
        out: BytesMut::with_capacity(value.len()),
        lengths: Vec::new(),
        frames: Vec::new(),
    };
    reader.open(message, None)?;
    while reader.step()? {}
    Ok(reader.finish())
}

/// A message under way.
struct Frame {
    message: &'static Message,
    /// The fields that were named, by their index.
    seen: u64,
    /// The choices that were made.
    chosen: Vec<&'static str>,
    /// The field whose array is being read.
    array: Option<&'static Field>,
    /// Its own length, among the lengths; the outermost message has none.
    length: Option<usize>,
    /// Where it begins in what is written.
    start: usize,
    /// How many bytes the lengths within it will take.
    lengths_bytes: usize,
}

/// A length that is still to be put in.
struct Length {
    before: usize,
    bytes: usize,
}

/// A value that is no message, as the wire has it.
enum Taken<'a> {
    Varint(u64),
    Bytes(Cow<'a, [u8]>),
    Nothing,
}

struct Reader<'a> {
    cursor: Cursor<'a>,
    out: BytesMut,
    /// In the order of their places.
    lengths: Vec<Length>,
    frames: Vec<Frame>,
}

impl<'a> Reader<'a> {
    fn open(&mut self, message: &'static Message, field: Option<&Field>) -> Result<(), String> {
        let token = self.cursor.token()?;
        if !matches!(token.what, What::Open(b'{')) {
            return Err(self.cursor.unexpected(&token));
        }
        let length = field.map(|field| {
            encode_key(field.number, WireType::LengthDelimited, &mut self.out);
            self.lengths.push(Length { before: self.out.len(), bytes: 0 });
            self.lengths.len() - 1
        });
        self.frames.push(Frame {
            message,
            seen: 0,
            chosen: Vec::new(),
            array: None,
            length,
            start: self.out.len(),
            lengths_bytes: 0,
        });
        Ok(())
    }

    fn close(&mut self) {
        let frame = self.frames.pop().expect("called within a message");
        let (Some(length), Some(outer)) = (frame.length, self.frames.last_mut()) else { return };
        let bytes = self.out.len() - frame.start + frame.lengths_bytes;
        self.lengths[length].bytes = bytes;
        outer.lengths_bytes += frame.lengths_bytes + encoded_len_varint(bytes as u64);
    }

    /// Reads a member, an element of an array of messages, or an end. False behind the outermost message.
    fn step(&mut self) -> Result<bool, String> {
        let Some(frame) = self.frames.last_mut() else { return Ok(false) };
        if let Some(field) = frame.array {
            match self.cursor.ends_array() {
                true => frame.array = None,
                false => self.open_field(field)?,
            }
            return Ok(true);
        }
        let name = self.cursor.token()?;
        let text = match &name.what {
            What::Close => {
                self.close();
                return Ok(true);
            }
            What::String(text) => text,
            _ => return Err(self.cursor.unexpected(&name)),
        };
        let Some(field) = frame.message.field(text) else {
            self.cursor.skip()?;
            return Ok(true);
        };
        let index = frame.message.fields.iter().position(|known| std::ptr::eq(known, field));
        let bit = 1u64 << index.expect("the field was found in the message");
        if frame.seen & bit != 0 {
            return Err(self.cursor.error(&name, "duplicate field ", ""));
        }
        frame.seen |= bit;
        if self.cursor.is_null() {
            self.cursor.token()?;
            return Ok(true);
        }
        if field.repeated {
            let token = self.cursor.token()?;
            if !matches!(token.what, What::Open(b'[')) {
                return Err(self.cursor.unexpected(&token));
            }
            match field.kind {
                Kind::Message(_) => frame.array = Some(field),
                _ => {
                    while !self.cursor.ends_array() {
                        self.scalar(field)?;
                    }
                }
            }
            return Ok(true);
        }
        if let Some(oneof) = field.oneof {
            if frame.chosen.contains(&oneof) {
                let rest = format!(", oneof {oneof} is already set");
                return Err(self.cursor.error(&name, "error parsing ", &rest));
            }
            frame.chosen.push(oneof);
        }
        match field.kind {
            Kind::Message(_) => self.open_field(field)?,
            _ => self.scalar(field)?,
        }
        Ok(true)
    }

    fn open_field(&mut self, field: &'static Field) -> Result<(), String> {
        match field.kind {
            Kind::Message(message) => self.open(message, Some(field)),
            _ => unreachable!("only asked for messages"),
        }
    }

    /// Reads a value that is no message.
    fn scalar(&mut self, field: &Field) -> Result<(), String> {
        let token = self.cursor.token()?;
        let raw = token.raw;
        let number = |what| number(what, raw);
        let taken = match (field.kind, &token.what) {
            (Kind::Bool, What::Bool(value)) => Some(Taken::Varint(u64::from(*value))),
            (Kind::Int32, what) => number(what)
                .and_then(|text| text.parse::<i32>().ok())
                .map(|value| Taken::Varint(i64::from(value) as u64)),
            (Kind::Int64, what) => number(what)
                .and_then(|text| text.parse::<i64>().ok())
                .map(|value| Taken::Varint(value as u64)),
            (Kind::Uint32, what) => number(what)
                .and_then(|text| text.parse::<u32>().ok())
                .map(|value| Taken::Varint(u64::from(value))),
            (Kind::Uint64, what) => {
                number(what).and_then(|text| text.parse::<u64>().ok()).map(Taken::Varint)
            }
            (Kind::String, What::String(text)) => {
                Some(Taken::Bytes(Cow::Borrowed(text.as_bytes())))
            }
            (Kind::Bytes, What::String(text)) => {
                base64(text).map(|bytes| Taken::Bytes(Cow::Owned(bytes)))
            }
            // A name that is not known is passed over, as an unknown field is.
            (Kind::Enum(names), What::String(name)) => Some(
                names
                    .number(name)
                    .map_or(Taken::Nothing, |value| Taken::Varint(i64::from(value) as u64)),
            ),
            (Kind::Enum(_), What::Number) => integer(raw)
                .and_then(|text| text.parse::<i32>().ok())
                .map(|value| Taken::Varint(i64::from(value) as u64)),
            _ => None,
        };
        let taken = taken.ok_or_else(|| {
            let kind = match field.kind {
                Kind::Bool => "bool",
                Kind::Int32 => "int32",
                Kind::Int64 => "int64",
                Kind::Uint32 => "uint32",
                Kind::Uint64 => "uint64",
                Kind::String => "string",
                Kind::Bytes => "bytes",
                Kind::Enum(_) => "enum",
                Kind::Message(_) => "message",
            };
            let what = format!("invalid value for {kind} field {}: ", field.json_name);
            self.cursor.error(&token, &what, "")
        })?;
        // A field that may be left out is left out where it has the value that it has anyway.
        let always = field.repeated || field.oneof.is_some();
        match taken {
            Taken::Varint(value) if always || value != 0 => {
                encode_key(field.number, WireType::Varint, &mut self.out);
                encode_varint(value, &mut self.out);
            }
            Taken::Bytes(bytes) if always || !bytes.is_empty() => {
                encode_key(field.number, WireType::LengthDelimited, &mut self.out);
                encode_varint(bytes.len() as u64, &mut self.out);
                self.out.extend_from_slice(&bytes);
            }
            _ => {}
        }
        Ok(())
    }

    /// Puts the lengths in.
    fn finish(self) -> Bytes {
        if self.lengths.is_empty() {
            return self.out.freeze();
        }
        let mut whole = BytesMut::with_capacity(self.out.len() + 2 * self.lengths.len());
        let mut done = 0;
        for length in &self.lengths {
            whole.extend_from_slice(&self.out[done..length.before]);
            encode_varint(length.bytes as u64, &mut whole);
            done = length.before;
        }
        whole.extend_from_slice(&self.out[done..]);
        whole.freeze()
    }
}

/// A token: what it is, and how it stands in the value.
struct Token<'a> {
    what: What<'a>,
    raw: &'a [u8],
    at: usize,
}

enum What<'a> {
    Null,
    Bool(bool),
    Number,
    String(Cow<'a, str>),
    /// A brace or bracket.
    Open(u8),
    Close,
}

/// Goes through a value, token by token. Commas and colons stand where they must, and so are passed like space.
struct Cursor<'a> {
    value: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&mut self) -> u8 {
        while let Some(c) = self.value.get(self.at)
            && (is_space(*c) || matches!(c, b',' | b':'))
        {
            self.at += 1;
        }
        // Behind the value nothing is asked for.
        self.value.get(self.at).copied().unwrap_or(b'}')
    }

    fn is_null(&mut self) -> bool {
        self.peek() == b'n'
    }

    /// Takes the end of an array, if it is here.
    fn ends_array(&mut self) -> bool {
        let ends = self.peek() == b']';
        self.at += usize::from(ends);
        ends
    }

    fn token(&mut self) -> Result<Token<'a>, String> {
        let first = self.peek();
        let at = self.at;
        let what = match first {
            b'{' | b'[' => What::Open(first),
            b'}' | b']' => What::Close,
            b'"' => What::String(self.string()?),
            b'n' => What::Null,
            b't' => What::Bool(true),
            b'f' => What::Bool(false),
            _ => What::Number,
        };
        match what {
            What::Open(_) | What::Close => self.at += 1,
            What::String(_) => {}
            _ => {
                let rest = &self.value[at..];
                let ends = |c: &u8| is_space(*c) || matches!(c, b',' | b']' | b'}');
                self.at += rest.iter().position(ends).unwrap_or(rest.len());
            }
        }
        Ok(Token { what, raw: &self.value[at..self.at.min(self.value.len())], at })
    }

    /// A string, without its escapes. The scanner has not looked at UTF-8, nor at the halves of surrogate pairs.
    fn string(&mut self) -> Result<Cow<'a, str>, String> {
        let value = self.value;
        let token = self.at;
        let (mut piece, mut at) = (token + 1, token + 1);
        let mut out = String::new();
        loop {
            let c = value[at];
            if c != b'"' && c != b'\\' {
                at += 1;
                continue;
            }
            let text = std::str::from_utf8(&value[piece..at])
                .map_err(|_| self.syntax_error(token, "invalid UTF-8 in string"))?;
            if c == b'"' {
                self.at = at + 1;
                return Ok(match out.is_empty() {
                    true => Cow::Borrowed(text),
                    false => Cow::Owned(out + text),
                });
            }
            out.push_str(text);
            at += 2;
            out.push(match value[at - 1] {
                b'b' => '\x08',
                b'f' => '\x0c',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => {
                    let unit = hex(&value[at..at + 4]).expect("the scanner has seen four digits");
                    at += 4;
                    match char::from_u32(unit) {
                        Some(c) => c,
                        None => {
                            let rest = &value[at..];
                            let Some(escape) = rest.get(..6) else {
                                return Err("proto: unexpected EOF".to_string());
                            };
                            at += 6;
                            pair(unit, escape).ok_or_else(|| {
                                let escape = quoted(escape);
                                let text = format!("invalid escape code {escape} in string");
                                self.syntax_error(token, &text)
                            })?
                        }
                    }
                }
                other => char::from(other),
            });
            piece = at;
        }
    }

    /// Passes over a value. Its strings are looked at nevertheless.
    fn skip(&mut self) -> Result<(), String> {
        let mut open = 0usize;
        loop {
            match self.token()?.what {
                What::Open(_) => open += 1,
                What::Close => open -= 1,
                _ => {}
            }
            if open == 0 {
                return Ok(());
            }
        }
    }

    /// Line and column, in characters, both from one.
    fn place(&self, at: usize) -> String {
        let before = &self.value[..at];
        let line = before.iter().filter(|c| **c == b'\n').count() + 1;
        let start = before.iter().rposition(|c| *c == b'\n').map_or(0, |end| end + 1);
        let chunks = before[start..].utf8_chunks();
        let column: usize = chunks.map(|c| c.valid().chars().count() + c.invalid().len()).sum();
        format!("(line {line}:{})", column + 1)
    }

    fn syntax_error(&self, at: usize, text: &str) -> String {
        format!("proto: syntax error {}: {text}", self.place(at))
    }

    fn unexpected(&self, token: &Token<'_>) -> String {
        let raw = String::from_utf8_lossy(token.raw);
        self.syntax_error(token.at, &format!("unexpected token {raw}"))
    }

    /// An error about a token, which is quoted as it stands between `before` and `after`.
    fn error(&self, token: &Token<'_>, before: &str, after: &str) -> String {
        let raw = String::from_utf8_lossy(token.raw);
        format!("proto: {}: {before}{raw}{after}", self.place(token.at))
    }
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, c| Some(number * 16 + char::from(*c).to_digit(16)?))
}

/// The character of a surrogate pair, whose second half is an escape of its own.
fn pair(high: u32, escape: &[u8]) -> Option<char> {
    let low = hex(escape.strip_prefix(b"\\u")?)?;
    match ((0xd800..0xdc00).contains(&high), (0xdc00..0xe000).contains(&low)) {
        (true, true) => char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)),
        _ => None,
    }
}

/// The digits of an integer, which may stand in a string. As in protojson what follows the number there is not
/// looked at, if something that no number could go on with stands between.
fn number(what: &What<'_>, raw: &[u8]) -> Option<String> {
    match what {
        What::Number => integer(raw),
        What::String(text) => {
            let text = text.as_ref();
            (text.trim() == text).then_some(())?;
            let is_part =
                |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'+' | b'.' | b'_');
            let end = text.bytes().position(|c| !is_part(c)).unwrap_or(text.len());
            integer(&text.as_bytes()[..end])
        }
        _ => None,
    }
}

/// The digits of a number, without point and exponent, if it is an integer.
fn integer(raw: &[u8]) -> Option<String> {
    /// More digits than any 64-bit number has.
    const DIGITS_MAX: i64 = 20;
    let text = std::str::from_utf8(raw).ok()?;
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |text| ("-", text));
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let written_right = digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)));
    written_right.then_some(())?;
    let whole = if whole == "0" { "" } else { whole };
    let fraction = fraction.unwrap_or("").trim_end_matches('0');
    if whole.is_empty() && fraction.is_empty() {
        return Some("0".to_string());
    }
    let exponent = i64::from(exponent.map_or(Ok(0), str::parse::<i32>).ok()?);
    if exponent >= 0 {
        if fraction.len() as i64 > exponent || whole.len() as i64 + exponent > DIGITS_MAX {
            return None;
        }
        let zeros = "0".repeat(exponent as usize - fraction.len());
        return Some(format!("{sign}{whole}{fraction}{zeros}"));
    }
    let kept = usize::try_from(whole.len() as i64 + exponent).ok()?;
    let (kept, dropped) = whole.split_at(kept);
    let is_integer = fraction.is_empty() && dropped.bytes().all(|c| c == b'0');
    is_integer.then(|| format!("{sign}{kept}"))
}

/// Base64 of so many characters as Go reads it: padded if the length says so, with any last bits.
pub fn base64_of(alphabet: &Alphabet, length: usize) -> GeneralPurpose {
    let padding = match length.is_multiple_of(4) {
        true => DecodePaddingMode::RequireCanonical,
        false => DecodePaddingMode::RequireNone,
    };
    let config = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    GeneralPurpose::new(alphabet, config.with_decode_padding_mode(padding))
}

/// Base64 as protojson takes it: in either alphabet. Go's decoder passes over line ends.
fn base64(text: &str) -> Option<Vec<u8>> {
    let alphabet: &Alphabet = match text.contains(['-', '_']) {
        true => &alphabet::URL_SAFE,
        false => &alphabet::STANDARD,
    };
    let base64 = base64_of(alphabet, text.len());
    match text.contains(['\r', '\n']) {
        true => base64.decode(text.replace(['\r', '\n'], "")).ok(),
        false => base64.decode(text).ok(),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::descriptor::ROUTES;
    use proto::etcdserverpb::{
        Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchRequest,
        compare::TargetUnion, request_op::Request, watch_request::RequestUnion,
    };

    use super::super::json::{Next, Values};
    use super::*;

    fn input(path: &str) -> &'static Message {
        ROUTES.iter().find(|route| route.http == path).unwrap().input
    }

    fn put(json: &str) -> Result<PutRequest, String> {
        let message = read(input("/v3/kv/put"), json.as_bytes())?;
        Ok(PutRequest::decode(message).unwrap())
    }

    #[test]
    fn fields_go_by_either_name_and_unknown_ones_are_passed_over() {
        let want = PutRequest {
            key: "foo".into(),
            value: "bar".into(),
            lease: -7,
            prev_kv: true,
            ..PutRequest::default()
        };
        for json in [
            r#"{"key":"Zm9v","value":"YmFy","lease":"-7","prev_kv":true}"#,
            r#"{"key":"Zm9v","value":"YmFy","lease":-7,"prevKv":true}"#,
            r#"{"x":[{"a":"b"},[[]],1e5],"key":"Zm9v","value":"YmFy","lease":-70e-1,"prevKv":true,"[y]":null}"#,
            r#" { "key" : "Zm9v" , "value" : "YmFy" , "lease" : "-7" , "prev_kv" : true , "ignore_lease" : null } "#,
            r#"{"\u006bey":"Zm9v","value":"\u0059mFy","lease":"-7 or so","prev_kv":true}"#,
        ] {
            assert_eq!(put(json.trim()).unwrap(), want, "{json}");
        }
        assert_eq!(put("{}").unwrap(), PutRequest::default());
    }

    #[test]
    fn numbers_are_read_as_protojson_reads_them() {
        for (text, want) in [
            ("0", Some(0)),
            ("-0.0", Some(0)),
            ("\"5\"", Some(5)),
            ("5.0", Some(5)),
            ("0.5e1", Some(5)),
            ("50e-1", Some(5)),
            ("1E3", Some(1000)),
            ("\"1e3\"", Some(1000)),
            ("\"5,6\"", Some(5)),
            ("9223372036854775807", Some(i64::MAX)),
            ("\"-9223372036854775808\"", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("5.5", None),
            ("5e-1", None),
            ("1e400", None),
            ("1e99999999999", None),
            ("\"\"", None),
            ("\" 5\"", None),
            ("\"5 \"", None),
            ("\"0x5\"", None),
            ("\"05\"", None),
            ("\"+5\"", None),
            ("\"5e\"", None),
            ("\"5.\"", None),
            ("true", None),
            ("{}", None),
        ] {
            let read = put(&format!("{{\"lease\":{text}}}"));
            match want {
                Some(want) => assert_eq!(read.unwrap().lease, want, "{text}"),
                None => assert_eq!(
                    read.unwrap_err(),
                    format!(
                        "proto: (line 1:10): invalid value for int64 field lease: {}",
                        &text[..text.find('}').unwrap_or(text.len())]
                    ),
                ),
            }
        }
    }

    #[test]
    fn base64_is_read_in_either_alphabet_with_or_without_padding() {
        for (text, want) in [
            ("", Some(&b""[..])),
            ("Zg==", Some(b"f")),
            ("Zg", Some(b"f")),
            ("Zh==", Some(b"f")),
            ("_-8=", Some(b"\xff\xef")),
            ("/+8", Some(b"\xff\xef")),
            ("Zm9v\\n", Some(b"foo")),
            ("Zm9\\nv\\r\\nYmE", Some(b"fooba")),
            ("Zg=", None),
            ("Z", None),
            ("Zg==Zg==", None),
            ("/-8=", None),
            ("Zm9v ", None),
            ("ü", None),
        ] {
            let read = put(&format!("{{\"key\":\"{text}\"}}"));
            match want {
                Some(want) => assert_eq!(read.unwrap().key, want, "{text}"),
                None => assert_eq!(
                    read.unwrap_err(),
                    format!("proto: (line 1:8): invalid value for bytes field key: \"{text}\"")
                ),
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_in_protojsons_words() {
        for (path, json, want) in [
            ("/v3/kv/put", "[]", "syntax error (line 1:1): unexpected token ["),
            ("/v3/kv/put", "null", "syntax error (line 1:1): unexpected token null"),
            ("/v3/kv/put", "12", "syntax error (line 1:1): unexpected token 12"),
            (
                "/v3/kv/put",
                "{\n \"ü\":1, \"key\":1}",
                "(line 2:15): invalid value for bytes field key: 1",
            ),
            ("/v3/kv/put", r#"{"key":"","key":""}"#, r#"(line 1:11): duplicate field "key""#),
            (
                "/v3/kv/put",
                r#"{"prevKv":null,"prev_kv":true}"#,
                r#"(line 1:16): duplicate field "prev_kv""#,
            ),
            (
                "/v3/kv/put",
                r#"{"prev_kv":1}"#,
                "(line 1:12): invalid value for bool field prevKv: 1",
            ),
            ("/v3/kv/put", r#"{"x":"\ud800"}"#, "unexpected EOF"),
            (
                "/v3/kv/put",
                r#"{"x":"\ud800 and more"}"#,
                r#"syntax error (line 1:6): invalid escape code " and m" in string"#,
            ),
            (
                "/v3/kv/put",
                r#"{"x":"\udc00\ud800"}"#,
                r#"syntax error (line 1:6): invalid escape code "\\ud800" in string"#,
            ),
            (
                "/v3/kv/range",
                r#"{"sort_order":1.5}"#,
                "(line 1:15): invalid value for enum field sortOrder: 1.5",
            ),
            (
                "/v3/kv/range",
                r#"{"sort_order":true}"#,
                "(line 1:15): invalid value for enum field sortOrder: true",
            ),
            ("/v3/kv/txn", r#"{"success":{}}"#, "syntax error (line 1:12): unexpected token {"),
            (
                "/v3/kv/txn",
                r#"{"success":[null]}"#,
                "syntax error (line 1:13): unexpected token null",
            ),
            (
                "/v3/kv/txn",
                r#"{"success":[{"requestPut":{},"request_range":{}}]}"#,
                r#"(line 1:30): error parsing "request_range", oneof etcdserverpb.RequestOp.request is already set"#,
            ),
            (
                "/v3/watch",
                r#"{"create_request":{"filters":["NOPUT",true]}}"#,
                "(line 1:39): invalid value for enum field filters: true",
            ),
        ] {
            assert_eq!(
                read(input(path), json.as_bytes()).unwrap_err(),
                format!("proto: {want}"),
                "{json}"
            );
        }
        let invalid = read(input("/v3/kv/put"), b"{\"x\":\"\xff\"}").unwrap_err();
        assert_eq!(invalid, "proto: syntax error (line 1:6): invalid UTF-8 in string");
    }

    #[test]
    fn messages_choices_lists_and_enums_are_read() {
        let json = r#"{"compare":[{"result":"GREATER","target":0,"key":"Zm9v","version":"0"},{}],
            "success":[{"requestPut":{"key":"Zm9v"}},{"request_txn":{"success":[{"requestRange":
            {"sort_order":"DESCEND","sort_target":"NEW"}},{}]}},{"request_range":null,"requestPut":{}}]}"#;
        let got = TxnRequest::decode(read(input("/v3/kv/txn"), json.as_bytes()).unwrap()).unwrap();
        let op = |request| RequestOp { request: Some(request) };
        let want = TxnRequest {
            compare: vec![
                Compare {
                    result: 1,
                    key: "foo".into(),
                    target_union: Some(TargetUnion::Version(0)),
                    ..Compare::default()
                },
                Compare::default(),
            ],
            success: vec![
                op(Request::RequestPut(PutRequest { key: "foo".into(), ..PutRequest::default() })),
                op(Request::RequestTxn(TxnRequest {
                    success: vec![
                        op(Request::RequestRange(RangeRequest {
                            sort_order: 2,
                            ..RangeRequest::default()
                        })),
                        RequestOp::default(),
                    ],
                    ..TxnRequest::default()
                })),
                op(Request::RequestPut(PutRequest::default())),
            ],
            failure: vec![],
        };
        assert_eq!(got, want);

        let json = r#"{"create_request":{"filters":["NOPUT",1,"NEW"],"watch_id":"0"}}"#;
        let got = WatchRequest::decode(read(input("/v3/watch"), json.as_bytes()).unwrap()).unwrap();
        let create = WatchCreateRequest { filters: vec![0, 1], ..WatchCreateRequest::default() };
        assert_eq!(got.request_union, Some(RequestUnion::CreateRequest(create)));
    }

    #[test]
    fn nesting_costs_neither_stack_nor_time() {
        let levels = 3_000;
        let json = r#"{"success":[{"requestTxn":"#.repeat(levels) + "{}" + &"}]}".repeat(levels);
        let Next::Value(value) = Values::of(Bytes::from(json)).next().unwrap() else {
            panic!("a value is here")
        };
        let mut message = read(input("/v3/kv/txn"), &value).unwrap();
        // Each level is a transaction in an operation in a transaction: two keys and two lengths.
        for _ in 0..2 * levels {
            assert!(matches!(message[0], 0x12 | 0x22));
            message = message.slice(1..);
            let mut length = message.clone();
            let bytes = prost::encoding::decode_varint(&mut length).unwrap();
            assert_eq!(bytes as usize, length.len());
            message = length;
        }
        assert!(message.is_empty());
    }

    #[test]
    fn no_message_has_more_fields_than_are_noted() {
        fn check(message: &'static Message, seen: &mut Vec<&'static str>) {
            if seen.contains(&message.name) {
                return;
            }
            seen.push(message.name);
            assert!(message.fields.len() <= 64, "{}", message.name);
            for field in message.fields {
                if let Kind::Message(inner) = field.kind {
                    check(inner, seen);
                }
            }
        }
        let mut seen = Vec::new();
        for route in ROUTES {
            check(route.input, &mut seen);
            check(route.output, &mut seen);
        }
        assert!(seen.len() > 90, "{}", seen.len());
    }
}
