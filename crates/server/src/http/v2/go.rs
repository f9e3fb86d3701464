//! How Go reads and writes texts, where a v2 client can see it: JSON strings, times, numbers, paths, forms.
//!
//! etcd's v2 answers are what `encoding/json` makes of Go strings, which may hold any bytes, and its errors quote
//! `net/url` and `mime`. Clients, scripts and books compare those texts, so they are made here letter for letter.

use std::collections::BTreeMap;

/// Writes bytes as a JSON string: what is not UTF-8 becomes U+FFFD, and what HTML could misread is escaped.
pub fn write_json_string(bytes: &[u8], out: &mut String) {
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    out.push_str(&format!("\\u{:04x}", u32::from(character)));
                }
                other => out.push(other),
            }
        }
        // Go replaces each byte that it cannot read, where Rust counts a broken sequence once.
        chunk.invalid().iter().for_each(|_| out.push_str("\\ufffd"));
    }
    out.push('"');
}

/// `strconv.Quote`, for the few bytes of a bad escape.
fn quote(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\x07' => out.push_str("\\a"),
                '\x08' => out.push_str("\\b"),
                '\x0c' => out.push_str("\\f"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\x0b' => out.push_str("\\v"),
                '\0'..='\x1f' | '\x7f' => out.push_str(&format!("\\x{:02x}", u32::from(character))),
                other => out.push(other),
            }
        }
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out.push('"');
    out
}

/// A time in nanoseconds since 1970 as `time.Time` writes it in UTC: RFC 3339, its fraction without trailing zeros.
pub fn time(unix_ns: i64) -> String {
    const DAY: i64 = 86_400;
    let (seconds, nanos) = (unix_ns.div_euclid(1_000_000_000), unix_ns.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    // Howard Hinnant's civil-from-days: years begin in March, so that the leap day is a year's last.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut out = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if nanos > 0 {
        let fraction = format!("{nanos:09}");
        out.push('.');
        out.push_str(fraction.trim_end_matches('0'));
    }
    out.push('Z');
    out
}

/// A span as `time.Duration` writes it.
pub fn duration(ns: u64) -> String {
    let part = |value: u64, unit_ns: u64, digits: usize, unit: &str| {
        let (whole, rest) = (value / unit_ns, value % unit_ns);
        let fraction = format!("{rest:0digits$}");
        match fraction.trim_end_matches('0') {
            "" => format!("{whole}{unit}"),
            fraction => format!("{whole}.{fraction}{unit}"),
        }
    };
    match ns {
        0 => "0s".to_string(),
        1..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => part(ns, 1_000, 3, "µs"),
        1_000_000..1_000_000_000 => part(ns, 1_000_000, 6, "ms"),
        _ => {
            let (minutes, rest) = (ns / 60_000_000_000, ns % 60_000_000_000);
            let seconds = part(rest, 1_000_000_000, 9, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

/// `strconv.ParseBool`.
pub fn boolean(text: &[u8]) -> Option<bool> {
    match text {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Some(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Some(false),
        _ => None,
    }
}

/// `strconv.ParseUint` with base ten and 64 bits: digits alone.
pub fn unsigned(text: &[u8]) -> Option<u64> {
    match text.iter().all(u8::is_ascii_digit) {
        true => std::str::from_utf8(text).ok()?.parse().ok(),
        false => None,
    }
}

/// `path.Clean` of an absolute path: no empty parts, no `.`, no `..`, no slash at the end.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut out = Vec::with_capacity(path.len());
    for part in parts {
        out.push(b'/');
        out.extend_from_slice(part);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

/// What `http.ServeMux` wants a path to be: clean, but for a slash at the end, which stays. A request for another
/// one is sent there.
pub fn mux_path(path: &[u8]) -> Vec<u8> {
    let mut clean = clean(path);
    if path.ends_with(b"/") && clean != b"/" {
        clean.push(b'/');
    }
    clean
}

/// A path as `url.URL` writes it.
pub fn escape_path(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => out.push(char::from(*byte)),
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'='
            | b'@' => out.push(char::from(*byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// `html.EscapeString`, as far as an escaped path and query can need it.
pub fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}

/// Takes percent escapes back; in a form `+` is a space as well. An escape that is none is `net/url`'s error.
pub fn unescape(text: &[u8], form: bool) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    while at < text.len() {
        match text[at] {
            b'%' => match (digit(text.get(at + 1)), digit(text.get(at + 2))) {
                (Some(high), Some(low)) => {
                    out.push((high * 16 + low) as u8);
                    at += 3;
                }
                _ => {
                    let escape = &text[at..text.len().min(at + 3)];
                    return Err(format!("invalid URL escape {}", quote(escape)));
                }
            },
            b'+' if form => {
                out.push(b' ');
                at += 1;
            }
            byte => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Ok(out)
}

/// A request's body: its type, and its bytes or why they could not be read.
pub type FormBody<'b> = (&'b [u8], Result<&'b [u8], String>);

/// The values of a form, by name, in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Form(BTreeMap<Vec<u8>, Vec<Vec<u8>>>);

impl Form {
    /// `http.Request.ParseForm`: the body of a PUT or POST first, then the query.
    ///
    /// # Errors
    /// The text of the first error, in Go's order.
    pub fn parse(query: &[u8], body: Option<FormBody<'_>>) -> Result<Form, String> {
        let mut form = Form::default();
        let mut first = Ok(());
        if let Some((content_type, body)) = body {
            // A body without a type is opaque.
            let (media_type, typed) = match content_type {
                b"" => (String::new(), Ok(())),
                typed => media_type(&String::from_utf8_lossy(typed)),
            };
            first = typed;
            if media_type == "application/x-www-form-urlencoded" {
                first = first.and(body.and_then(|body| form.read(body)));
            }
        }
        let read = form.read(query);
        first.and(read)?;
        Ok(form)
    }

    /// `url.ParseQuery`.
    fn read(&mut self, text: &[u8]) -> Result<(), String> {
        let mut result = Ok(());
        for pair in text.split(|byte| *byte == b'&') {
            if pair.contains(&b';') {
                result = Err("invalid semicolon separator in query".to_string());
                continue;
            }
            if pair.is_empty() {
                continue;
            }
            let (key, value) = match pair.iter().position(|byte| *byte == b'=') {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &b""[..]),
            };
            match (unescape(key, true), unescape(value, true)) {
                (Ok(key), Ok(value)) => self.0.entry(key).or_default().push(value),
                (Err(error), _) | (_, Err(error)) => result = result.and(Err(error)),
            }
        }
        result
    }

    /// The first value of that name, if there is one.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name.as_bytes()).map(|values| values[0].as_slice())
    }
}

/// `mime.ParseMediaType`: the type in lower case, and whether all of the text is well formed.
fn media_type(text: &str) -> (String, Result<(), String>) {
    let none = |why: &str| (String::new(), Err(format!("mime: {why}")));
    let (base, rest) = text.find(';').map_or((text, ""), |at| text.split_at(at));
    let base = base.to_lowercase();
    let base = base.trim();
    let (kind, after) = token(base);
    if kind.is_empty() {
        return none("no media type");
    }
    if !after.is_empty() {
        let Some(after) = after.strip_prefix('/') else {
            return none("expected slash after first token");
        };
        let (subtype, after) = token(after);
        if subtype.is_empty() {
            return none("expected token after slash");
        }
        if !after.is_empty() {
            return none("unexpected content after media subtype");
        }
    }
    let mut parameters: BTreeMap<String, String> = BTreeMap::new();
    let mut rest = rest.trim_start();
    while !rest.is_empty() {
        let Some((key, value, next)) = parameter(rest) else {
            return match rest.trim() == ";" {
                true => (base.to_string(), Ok(())),
                false => (base.to_string(), Err("mime: invalid media parameter".to_string())),
            };
        };
        if parameters.get(&key).is_some_and(|known| *known != value) {
            return none("duplicate parameter name");
        }
        parameters.insert(key, value);
        rest = next.trim_start();
    }
    (base.to_string(), Ok(()))
}

fn token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?=".contains(c);
    text.split_at(text.find(|c| !is_token(c)).unwrap_or(text.len()))
}

/// `; key=value`, and what follows.
fn parameter(text: &str) -> Option<(String, String, &str)> {
    let (key, rest) = token(text.strip_prefix(';')?.trim_start());
    if key.is_empty() {
        return None;
    }
    let rest = rest.trim_start().strip_prefix('=')?.trim_start();
    let Some(quoted) = rest.strip_prefix('"') else {
        let (value, rest) = token(rest);
        return (!value.is_empty()).then(|| (key.to_lowercase(), value.to_string(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((key.to_lowercase(), value, &quoted[at + 1..])),
            '\r' | '\n' => return None,
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(bytes: &[u8]) -> String {
        let mut out = String::new();
        write_json_string(bytes, &mut out);
        out
    }

    #[test]
    fn strings_are_written_as_go_writes_them() {
        for (bytes, want) in [
            (&b"plain"[..], r#""plain""#),
            (b"<&>\"\\", r#""\u003c\u0026\u003e\"\\""#),
            (b"\n\r\t\x01\x08\x7f", "\"\\n\\r\\t\\u0001\\u0008\x7f\""),
            ("ü\u{2028}".as_bytes(), "\"ü\\u2028\""),
            (b"a\xffb", r#""a\ufffdb""#),
            (b"\xe2\x80", r#""\ufffd\ufffd""#),
        ] {
            assert_eq!(json(bytes), want);
        }
    }

    #[test]
    fn times_are_written_as_go_writes_them() {
        for (ns, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_795_388_115_256_065_749, "2026-11-22T22:55:15.256065749Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00Z"),
            (1_500_000_000, "1970-01-01T00:00:01.5Z"),
            (-7_428_502_199_910_697_632, "1734-08-07T23:10:00.089302368Z"),
            (i64::MIN, "1677-09-21T00:12:43.145224192Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775807Z"),
        ] {
            assert_eq!(time(ns), want);
        }
        for (ns, want) in [
            (0, "0s"),
            (5, "5ns"),
            (1_500, "1.5µs"),
            (2_000_001, "2.000001ms"),
            (2_416_214_909, "2.416214909s"),
            (60_000_000_000, "1m0s"),
            (3_661_500_000_000, "1h1m1.5s"),
        ] {
            assert_eq!(duration(ns), want);
        }
    }

    #[test]
    fn numbers_and_booleans_are_read_as_go_reads_them() {
        for (text, want) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("-1", None),
            ("+1", None),
            ("1_0", None),
            ("", None),
        ] {
            assert_eq!(unsigned(text.as_bytes()), want, "{text}");
        }
        assert_eq!(boolean(b"T"), Some(true));
        assert_eq!(boolean(b"False"), Some(false));
        assert_eq!(boolean(b"yes"), None);
    }

    #[test]
    fn paths_are_cleaned_and_escaped_as_go_does() {
        for (path, want, mux) in [
            ("/", "/", "/"),
            ("//a//b/", "/a/b", "/a/b/"),
            ("/a/./b/../c", "/a/c", "/a/c"),
            ("/..", "/", "/"),
            ("/a/..", "/", "/"),
        ] {
            assert_eq!(clean(path.as_bytes()), want.as_bytes(), "{path}");
            assert_eq!(mux_path(path.as_bytes()), mux.as_bytes(), "{path}");
        }
        assert_eq!(escape_path(b"/a b!\xff$@"), "/a%20b%21%FF$@");
    }

    #[test]
    fn forms_are_read_as_go_reads_them() {
        let form = |query: &str, content: &str, body: &str| {
            Form::parse(query.as_bytes(), Some((content.as_bytes(), Ok(body.as_bytes()))))
        };
        let encoded = "application/x-www-form-urlencoded";
        let both = form("a=2&b", encoded, "a=1+%2b").unwrap();
        assert_eq!(both.first("a"), Some(&b"1 +"[..]));
        assert_eq!(both.first("b"), Some(&b""[..]));
        assert_eq!(both.first("c"), None);
        // A type with parameters is that type; another type is not read.
        assert!(
            form("", "Application/X-WWW-Form-Urlencoded; charset=\"x\"", "a=1")
                .unwrap()
                .first("a")
                .is_some()
        );
        for other in ["", "text/plain", "multipart/form-data; boundary=x", "x;"] {
            assert_eq!(form("", other, "a=1").unwrap().first("a"), None, "{other}");
        }
        for (query, content, body, error) in [
            ("a=%zz", "", "", r#"invalid URL escape "%zz""#),
            ("a=%", "", "", r#"invalid URL escape "%""#),
            ("a=%\"x", "", "", r#"invalid URL escape "%\"x""#),
            ("%=1&b;c", encoded, "", "invalid semicolon separator in query"),
            ("b;c", encoded, "a=%1", r#"invalid URL escape "%1""#),
            ("", "text/plain; =", "", "mime: invalid media parameter"),
            ("", "; a=b", "", "mime: no media type"),
            ("", "a b", "", "mime: expected slash after first token"),
            ("", "a/", "", "mime: expected token after slash"),
            ("", "a/b c", "", "mime: unexpected content after media subtype"),
            ("", "a/b; c=1; c=2", "", "mime: duplicate parameter name"),
        ] {
            assert_eq!(form(query, content, body).unwrap_err(), error, "{query} {content} {body}");
        }
        let unread = || Err("http: POST too large".to_string());
        let error = Form::parse(b"a=%", Some((encoded.as_bytes(), unread()))).unwrap_err();
        assert_eq!(error, "http: POST too large");
        assert!(Form::parse(b"", Some((b"text/plain", unread()))).is_ok());
    }
}
