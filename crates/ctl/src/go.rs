//! Texts as Go's standard library reads and writes them: etcdctl's users meet these forms.

use std::time::Duration;

/// Bytes as a quoted Go string (`%q`).
pub(crate) fn quote(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\x07' => out.push_str("\\a"),
                '\x08' => out.push_str("\\b"),
                '\x0c' => out.push_str("\\f"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\x0b' => out.push_str("\\v"),
                c if is_printable(c) => out.push(c),
                c if c < ' ' || c == '\x7f' => out.push_str(&format!("\\x{:02x}", c as u32)),
                c if (c as u32) < 0x10000 => out.push_str(&format!("\\u{:04x}", c as u32)),
                c => out.push_str(&format!("\\U{:08x}", c as u32)),
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.push('"');
    out
}

/// Rust leaves a printable character as it is when it escapes, unless it stands first and combines.
fn is_printable(c: char) -> bool {
    let with_base: String = ['a', c].iter().collect();
    with_base.escape_debug().count() == 2
}

/// Reads one quoted Go string (`"…"` or `` `…` ``) from the front; gives it and what follows.
pub(crate) fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (&mark, mut rest) = text.split_first()?;
    if mark == b'`' {
        let end = rest.iter().position(|&byte| byte == b'`')?;
        return Some((rest[..end].to_vec(), &rest[end + 1..]));
    }
    if mark != b'"' {
        return None;
    }
    let mut out = Vec::new();
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        match byte {
            b'"' => return Some((out, rest)),
            b'\n' => return None,
            b'\\' => rest = unescape(rest, &mut out)?,
            byte => out.push(byte),
        }
    }
}

fn unescape<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (&kind, rest) = text.split_first()?;
    let number = |digits: usize, radix: u32, from: &'a [u8]| {
        let text = std::str::from_utf8(from.get(..digits)?).ok()?;
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let value = u32::from_str_radix(text, radix).ok().filter(|_| plain)?;
        Some((value, &from[digits..]))
    };
    match kind {
        b'a' => out.push(7),
        b'b' => out.push(8),
        b'f' => out.push(12),
        b'n' => out.push(b'\n'),
        b'r' => out.push(b'\r'),
        b't' => out.push(b'\t'),
        b'v' => out.push(11),
        b'\\' | b'"' => out.push(kind),
        b'x' => {
            let (value, rest) = number(2, 16, rest)?;
            out.push(u8::try_from(value).ok()?);
            return Some(rest);
        }
        b'0'..=b'7' => {
            let (value, rest) = number(3, 8, text)?;
            out.push(u8::try_from(value).ok()?);
            return Some(rest);
        }
        b'u' | b'U' => {
            let (value, rest) = number(if kind == b'u' { 4 } else { 8 }, 16, rest)?;
            let mut buffer = [0; 4];
            out.extend_from_slice(char::from_u32(value)?.encode_utf8(&mut buffer).as_bytes());
            return Some(rest);
        }
        _ => return None,
    }
    Some(rest)
}

/// Reads an integer as `strconv.ParseInt` does; base 0 takes the prefixes `0x`, `0o`, `0b` and `0`.
pub(crate) fn parse_int(text: &str, base: u32) -> Result<i64, String> {
    let fail = |why: &str| format!("strconv.ParseInt: parsing {}: {why}", quote(text.as_bytes()));
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => ("-", &text[1..]),
        Some(b'+') => ("", &text[1..]),
        _ => ("", text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match base {
        0 => match lower.as_bytes() {
            [b'0', b'x', ..] => (16, &lower[2..]),
            [b'0', b'o', ..] => (8, &lower[2..]),
            [b'0', b'b', ..] => (2, &lower[2..]),
            [b'0', _, ..] => (8, &lower[1..]),
            _ => (10, lower.as_str()),
        },
        base => (base, lower.as_str()),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(fail("invalid syntax"));
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).map_err(|_| fail("value out of range"))
}

/// Reads a truth value as `strconv.ParseBool` does.
pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", quote(text.as_bytes()))),
    }
}

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration such as `1m30s` or `700ms`. Negative ones count as nothing.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let fail = |why: &str| format!("time: {why} {}", quote(text.as_bytes()));
    let invalid = || fail("invalid duration");
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos = 0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let value: f64 = rest[..end].parse().map_err(|_| invalid())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = &rest[..end];
        if unit.is_empty() {
            return Err(fail("missing unit in duration"));
        }
        let known = UNITS.iter().find(|(name, _)| *name == unit);
        let Some((_, factor)) = known else {
            let unit = quote(unit.as_bytes());
            return Err(format!(
                "time: unknown unit {unit} in duration {}",
                quote(text.as_bytes())
            ));
        };
        nanos += value * *factor as f64;
        rest = &rest[end..];
    }
    if nanos > i64::MAX as f64 {
        return Err(invalid());
    }
    Ok(if negative { Duration::ZERO } else { Duration::from_nanos(nanos as u64) })
}

/// Writes a duration: `4.835373ms`, `1m30s`.
pub(crate) fn duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let fraction = |whole: u128, unit: &str| {
        let text = format!("{}.{:09}", nanos / whole, nanos % whole * (1_000_000_000 / whole));
        format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => fraction(1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(1_000_000, "ms"),
        _ => {
            let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
            let text = format!("{}.{:09}", rest / 1_000_000_000, rest % 1_000_000_000);
            let seconds = text.trim_end_matches('0').trim_end_matches('.');
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// Splits a line into words as etcdctl's interactive commands do: `'…'` is literal, `"…"` a Go string.
pub(crate) fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some((&first, after)) = rest.split_first() {
        match first {
            b'\'' => match after.iter().position(|&byte| byte == b'\'') {
                Some(end) => {
                    words.push(after[..end].to_vec());
                    rest = &after[end + 1..];
                }
                // An opening quote without a closing one is skipped, as if it were a space.
                None => rest = after,
            },
            b'"' => match closing_quote(after) {
                Some(end) => {
                    let (word, _) = unquote(rest).ok_or("bad quoted string")?;
                    words.push(word);
                    rest = &after[end + 1..];
                }
                None => rest = after,
            },
            byte if byte.is_ascii_whitespace() => rest = after,
            _ => {
                let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
                words.push(rest[..end].to_vec());
                rest = &rest[end..];
            }
        }
    }
    Ok(words)
}

fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Now, as zap writes it: `2026-11-22T19:04:49.624699Z`, always in UTC.
pub(crate) fn timestamp(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Count from the first of March of the year 0, so that leap days end their years.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    let micros = since_epoch.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_and_read_back() {
        for (bytes, quoted) in [
            (&b"foo"[..], r#""foo""#),
            (b"a\"b\\c", r#""a\"b\\c""#),
            (b"\x00\x01\n\t\x07\x7f", r#""\x00\x01\n\t\a\x7f""#),
            (b"\xff\xc3\xa9", "\"\\xff\u{e9}\""),
            ("\u{200b}\u{a0}".as_bytes(), r#""\u200b\u00a0""#),
            ("e\u{301}".as_bytes(), "\"e\u{301}\""),
        ] {
            assert_eq!(quote(bytes), quoted);
            assert_eq!(unquote(quoted.as_bytes()), Some((bytes.to_vec(), &b""[..])));
        }
        assert_eq!(unquote(br#""\101\u00e9" x"#), Some((b"A\xc3\xa9".to_vec(), &b" x"[..])));
        for bad in [r#""a"#, r#""\q""#, r#""\xg0""#, "a", r#""\x+1""#] {
            assert_eq!(unquote(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn integers_are_read_with_gos_complaints() {
        assert_eq!(parse_int("-12", 10), Ok(-12));
        assert_eq!(parse_int("+7", 10), Ok(7));
        assert_eq!(parse_int("0x1F", 0), Ok(31));
        assert_eq!(parse_int("694d", 16), Ok(0x694d));
        let invalid = |text| format!("strconv.ParseInt: parsing \"{text}\": invalid syntax");
        assert_eq!(parse_int("x", 10), Err(invalid("x")));
        assert_eq!(parse_int("", 10), Err(invalid("")));
        assert_eq!(
            parse_int("9223372036854775808", 10).unwrap_err(),
            "strconv.ParseInt: parsing \"9223372036854775808\": value out of range"
        );
    }

    #[test]
    fn durations_are_read_and_written() {
        for (text, millis) in
            [("5s", 5_000), ("700ms", 700), ("1m30s", 90_000), ("1.5h", 5_400_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse_duration("5").unwrap_err(), "time: missing unit in duration \"5\"");
        assert_eq!(parse_duration("x").unwrap_err(), "time: invalid duration \"x\"");
        assert_eq!(duration(Duration::from_nanos(4_835_373)), "4.835373ms");
        assert_eq!(duration(Duration::from_nanos(12_300)), "12.3µs");
        assert_eq!(duration(Duration::from_millis(1_500)), "1.5s");
        assert_eq!(duration(Duration::from_secs(90)), "1m30s");
        assert_eq!(duration(Duration::from_secs(3_600)), "1h0m0s");
    }

    #[test]
    fn lines_split_into_words() {
        let split = |line: &str| {
            let words = words(line.as_bytes()).unwrap();
            words.into_iter().map(|word| String::from_utf8(word).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(split(r#"put  k "a b\n" 'c "d'"#), ["put", "k", "a b\n", "c \"d"]);
        assert_eq!(split(r#"a"b c"#), ["a\"b", "c"]);
        assert_eq!(split(r#""open x"#), ["open", "x"]);
        assert_eq!(split("''"), [""]);
    }

    #[test]
    fn moments_are_written_as_dates() {
        let moment = Duration::from_micros(1_795_374_289_624_699);
        assert_eq!(timestamp(moment), "2026-11-22T19:04:49.624699Z");
        assert_eq!(timestamp(Duration::from_secs(951_782_400)), "2000-02-29T00:00:00.000000Z");
    }
}
