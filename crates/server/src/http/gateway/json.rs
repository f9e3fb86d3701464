//! JSON as Go's standard library reads it: where a value ends, and what is said of one that is none.
//!
//! etcd's gateway reads a request twice: first `encoding/json` cuts a value out of the body, then protobuf's own
//! decoder looks at its parts. [`Values`] is the first of the two, so that a client gets the same words for the
//! same mistake. It takes the body in pieces and keeps no more than one value; nesting costs a byte a level.

use bytes::{Buf, Bytes, BytesMut};

/// Levels that arrays and objects may nest; Go's own bound. Deeper ones are refused.
const NESTING_MAX: usize = 10_000;

/// What comes next in a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A value, without the space around it; its syntax is right.
    Value(Bytes),
    /// That is not known before more of the body is here.
    More,
    /// Nothing but space.
    End,
}

/// The values of a body, one after the other.
#[derive(Default)]
pub struct Values {
    /// Received and not yet given away.
    buffer: BytesMut,
    /// How much of it the scanner has seen.
    scanned: usize,
    scanner: Scanner,
    ended: bool,
    /// What is wrong with the body. Nothing is read behind it.
    error: Option<String>,
}

impl Values {
    /// The values of a body that is all here.
    pub fn of(body: Bytes) -> Values {
        Values { buffer: body.into(), ended: true, ..Values::default() }
    }

    /// More of the body.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// There is no more.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// How many bytes wait for the end of their value.
    pub fn waiting_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Cuts the next value out.
    ///
    /// # Errors
    /// What stands there is no value; in Go's words.
    pub fn next(&mut self) -> Result<Next, String> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        while self.scanned < self.buffer.len() {
            let byte = self.buffer[self.scanned];
            match self.scanner.step(byte) {
                Err(error) => return self.refuse(error),
                // The byte is not the value's.
                Ok(Step::Over) => return Ok(self.cut()),
                Ok(Step::More) => self.scanned += 1,
                Ok(Step::Closed) => {
                    self.scanned += 1;
                    return Ok(self.cut());
                }
            }
        }
        if !self.ended {
            return Ok(Next::More);
        }
        // A number or word at the end of the body is whole if a space may follow.
        match self.scanner.step(b' ') {
            Ok(Step::Over) => Ok(self.cut()),
            _ if self.buffer.iter().all(|byte| is_space(*byte)) => Ok(Next::End),
            _ => self.refuse("unexpected EOF".to_string()),
        }
    }

    fn cut(&mut self) -> Next {
        let mut value = self.buffer.split_to(self.scanned);
        self.scanned = 0;
        self.scanner = Scanner::default();
        let space = value.iter().take_while(|byte| is_space(**byte)).count();
        value.advance(space);
        let space = value.iter().rev().take_while(|byte| is_space(**byte)).count();
        value.truncate(value.len() - space);
        Next::Value(value.freeze())
    }

    fn refuse(&mut self, error: String) -> Result<Next, String> {
        self.error = Some(error.clone());
        Err(error)
    }
}

/// What a byte means to the scanner.
enum Step {
    /// It belongs to the value, or stands before it.
    More,
    /// It ends the value, and belongs to it.
    Closed,
    /// The value ended before it.
    Over,
}

/// What encloses the place where the scanner is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nest {
    /// An object, before the colon.
    Key,
    /// An object, behind the colon.
    Member,
    Array,
}

/// What the next byte may be.
#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Value,
    ValueOrEmpty,
    Key,
    KeyOrEmpty,
    AfterValue,
    String,
    Escape,
    /// So many more hexadecimal digits.
    Hex(u8),
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
    /// Within `true`, `false` or `null`: the word, and how much of it was seen.
    Word(&'static str, usize),
}

#[derive(Default)]
struct Scanner {
    state: State,
    nests: Vec<Nest>,
}

impl Scanner {
    fn step(&mut self, c: u8) -> Result<Step, String> {
        match self.state {
            State::Value | State::ValueOrEmpty | State::Key | State::KeyOrEmpty if is_space(c) => {
                Ok(Step::More)
            }
            State::ValueOrEmpty if c == b']' => self.after_value(c),
            State::Value | State::ValueOrEmpty => self.value(c),
            State::KeyOrEmpty if c == b'}' => {
                if let Some(nest) = self.nests.last_mut() {
                    *nest = Nest::Member;
                }
                self.after_value(c)
            }
            State::Key | State::KeyOrEmpty => match c {
                b'"' => self.go(State::String),
                _ => Err(unexpected(c, "looking for beginning of object key string")),
            },
            State::AfterValue => self.after_value(c),
            State::String => match c {
                b'"' => self.go(State::AfterValue),
                b'\\' => self.go(State::Escape),
                0..0x20 => Err(unexpected(c, "in string literal")),
                _ => Ok(Step::More),
            },
            State::Escape => match c {
                b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => self.go(State::String),
                b'u' => self.go(State::Hex(4)),
                _ => Err(unexpected(c, "in string escape code")),
            },
            State::Hex(left) => match (c.is_ascii_hexdigit(), left) {
                (false, _) => Err(unexpected(c, "in \\u hexadecimal character escape")),
                (true, 1) => self.go(State::String),
                (true, _) => self.go(State::Hex(left - 1)),
            },
            State::Minus => match c {
                b'0' => self.go(State::Zero),
                b'1'..=b'9' => self.go(State::Digits),
                _ => Err(unexpected(c, "in numeric literal")),
            },
            State::Digits if c.is_ascii_digit() => Ok(Step::More),
            State::Digits | State::Zero => match c {
                b'.' => self.go(State::Point),
                b'e' | b'E' => self.go(State::Exponent),
                _ => self.after_value(c),
            },
            State::Point => match c {
                b'0'..=b'9' => self.go(State::Fraction),
                _ => Err(unexpected(c, "after decimal point in numeric literal")),
            },
            State::Fraction => match c {
                b'0'..=b'9' => Ok(Step::More),
                b'e' | b'E' => self.go(State::Exponent),
                _ => self.after_value(c),
            },
            State::Exponent if matches!(c, b'+' | b'-') => self.go(State::ExponentSign),
            State::Exponent | State::ExponentSign => match c {
                b'0'..=b'9' => self.go(State::ExponentDigits),
                _ => Err(unexpected(c, "in exponent of numeric literal")),
            },
            State::ExponentDigits => match c {
                b'0'..=b'9' => Ok(Step::More),
                _ => self.after_value(c),
            },
            State::Word(word, seen) => {
                let wanted = word.as_bytes()[seen];
                match (c == wanted, seen + 1 == word.len()) {
                    (true, true) => self.go(State::AfterValue),
                    (true, false) => self.go(State::Word(word, seen + 1)),
                    (false, _) => {
                        let wanted = char::from(wanted);
                        Err(unexpected(c, &format!("in literal {word} (expecting '{wanted}')")))
                    }
                }
            }
        }
    }

    fn go(&mut self, state: State) -> Result<Step, String> {
        self.state = state;
        Ok(Step::More)
    }

    fn value(&mut self, c: u8) -> Result<Step, String> {
        match c {
            b'{' => self.open(c, Nest::Key, State::KeyOrEmpty),
            b'[' => self.open(c, Nest::Array, State::ValueOrEmpty),
            b'"' => self.go(State::String),
            b'-' => self.go(State::Minus),
            b'0' => self.go(State::Zero),
            b'1'..=b'9' => self.go(State::Digits),
            b't' => self.go(State::Word("true", 1)),
            b'f' => self.go(State::Word("false", 1)),
            b'n' => self.go(State::Word("null", 1)),
            _ => Err(unexpected(c, "looking for beginning of value")),
        }
    }

    fn open(&mut self, c: u8, nest: Nest, state: State) -> Result<Step, String> {
        if self.nests.len() == NESTING_MAX {
            return Err(unexpected(c, "exceeded max depth"));
        }
        self.nests.push(nest);
        self.go(state)
    }

    fn after_value(&mut self, c: u8) -> Result<Step, String> {
        let Some(nest) = self.nests.last_mut() else { return Ok(Step::Over) };
        if is_space(c) {
            return self.go(State::AfterValue);
        }
        match (*nest, c) {
            (Nest::Key, b':') => {
                *nest = Nest::Member;
                self.go(State::Value)
            }
            (Nest::Member, b',') => {
                *nest = Nest::Key;
                self.go(State::Key)
            }
            (Nest::Array, b',') => self.go(State::Value),
            (Nest::Member, b'}') | (Nest::Array, b']') => {
                self.nests.pop();
                match self.nests.is_empty() {
                    true => Ok(Step::Closed),
                    false => self.go(State::AfterValue),
                }
            }
            (Nest::Key, _) => Err(unexpected(c, "after object key")),
            (Nest::Member, _) => Err(unexpected(c, "after object key:value pair")),
            (Nest::Array, _) => Err(unexpected(c, "after array element")),
        }
    }
}

/// Whether JSON takes a byte for space.
pub fn is_space(c: u8) -> bool {
    matches!(c, b' ' | b'\t' | b'\r' | b'\n')
}

fn unexpected(c: u8, place: &str) -> String {
    // Go takes the byte for a character of Latin-1.
    let c = match c {
        b'\'' => "\\'".to_string(),
        b'"' => "\"".to_string(),
        c => quoted_char(char::from(c)),
    };
    format!("invalid character '{c}' {place}")
}

/// A text in quotation marks, as Go's `%q` writes it.
pub fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| out.push_str(&quoted_char(c)));
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out + "\""
}

fn quoted_char(c: char) -> String {
    match c {
        '"' | '\\' => format!("\\{c}"),
        '\x07' => "\\a".to_string(),
        '\x08' => "\\b".to_string(),
        '\x0c' => "\\f".to_string(),
        '\n' => "\\n".to_string(),
        '\r' => "\\r".to_string(),
        '\t' => "\\t".to_string(),
        '\x0b' => "\\v".to_string(),
        ' '..='~' => c.to_string(),
        '\0'..='\x7f' => format!("\\x{:02x}", c as u32),
        // Rust and Go agree on what can be printed but for a few of the newest characters.
        c if c.escape_debug().len() == 1 => c.to_string(),
        '\u{80}'..='\u{ffff}' => format!("\\u{:04x}", c as u32),
        c => format!("\\U{:08x}", c as u32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(body: &str) -> Vec<Result<Next, String>> {
        let mut values = Values::of(Bytes::copy_from_slice(body.as_bytes()));
        let mut found = Vec::new();
        loop {
            let next = values.next();
            let over = !matches!(next, Ok(Next::Value(_)));
            found.push(next);
            if over {
                return found;
            }
        }
    }

    #[test]
    fn values_are_cut_out_one_after_the_other() {
        for (body, want) in [
            ("", vec![]),
            (" \t\r\n", vec![]),
            ("{}", vec!["{}"]),
            (" {\"a\" : [1, {}]} ", vec!["{\"a\" : [1, {}]}"]),
            ("{}{} [ ] 12 \"x\" true", vec!["{}", "{}", "[ ]", "12", "\"x\"", "true"]),
            ("1.5e+3\n-0", vec!["1.5e+3", "-0"]),
            ("\"\\u00e9\\\"\"null", vec!["\"\\u00e9\\\"\"", "null"]),
        ] {
            let mut want: Vec<_> =
                want.iter().map(|v| Ok(Next::Value(Bytes::from(v.to_string())))).collect();
            want.push(Ok(Next::End));
            assert_eq!(all(body), want, "{body}");
        }
    }

    #[test]
    fn a_body_may_come_in_any_pieces() {
        let body = "  {\"a\":\"b\\u0041\",\"c\":[1.5,null]} 12 {}";
        for size in 1..body.len() {
            let (mut values, mut found) = (Values::default(), Vec::new());
            for piece in body.as_bytes().chunks(size) {
                values.push(piece);
                while let Next::Value(value) = values.next().unwrap() {
                    found.push(value);
                }
            }
            values.end();
            assert_eq!(values.next().unwrap(), Next::End);
            assert_eq!(found, ["{\"a\":\"b\\u0041\",\"c\":[1.5,null]}", "12", "{}"]);
        }
    }

    #[test]
    fn what_is_no_value_is_refused_in_gos_words() {
        for (body, want) in [
            ("x", "invalid character 'x' looking for beginning of value"),
            ("{", "unexpected EOF"),
            ("tru", "unexpected EOF"),
            ("-", "unexpected EOF"),
            ("{x", "invalid character 'x' looking for beginning of object key string"),
            ("{\"a\"x", "invalid character 'x' after object key"),
            ("{\"a\":1x", "invalid character 'x' after object key:value pair"),
            ("[1x", "invalid character 'x' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("trux", "invalid character 'x' in literal true (expecting 'e')"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1ex", "invalid character 'x' in exponent of numeric literal"),
            ("\"\\x", "invalid character 'x' in string escape code"),
            ("\"\\u00x", "invalid character 'x' in \\u hexadecimal character escape"),
            ("\"\n", "invalid character '\\n' in string literal"),
            ("'", "invalid character '\\'' looking for beginning of value"),
            ("[\"", "unexpected EOF"),
            ("{1\"", "invalid character '1' looking for beginning of object key string"),
            ("{}}", "invalid character '}' looking for beginning of value"),
            ("\u{7f}", "invalid character '\\x7f' looking for beginning of value"),
        ] {
            assert_eq!(all(body).pop().unwrap().unwrap_err(), want, "{body}");
        }
        for (byte, want) in [(0xffu8, "'ÿ'"), (0x80, "'\\u0080'"), (0xad, "'\\u00ad'")] {
            let error = Values::of(Bytes::copy_from_slice(&[byte])).next().unwrap_err();
            assert_eq!(error, format!("invalid character {want} looking for beginning of value"));
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(matches!(all(&deep(NESTING_MAX))[0], Ok(Next::Value(_))));
        assert_eq!(
            all(&deep(NESTING_MAX + 1))[0],
            Err("invalid character '[' exceeded max depth".to_string())
        );
    }

    #[test]
    fn texts_are_quoted_as_go_quotes_them() {
        for (bytes, want) in [
            (&b"\\ud8"[..], "\"\\\\ud8\""),
            (b"a\"\n\x01\xff", "\"a\\\"\\n\\x01\\xff\""),
            ("é\u{200b}\u{10ffff}".as_bytes(), "\"é\\u200b\\U0010ffff\""),
        ] {
            assert_eq!(quoted(bytes), want);
        }
    }
}
