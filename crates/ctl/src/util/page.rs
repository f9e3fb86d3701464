//! Bytes beside what they mean: pages as `docs/format/` shows them.
//!
//! ```text
//!   offset  bytes, sixteen in a line                          what they are
//! ```

use wal::codec::{DecodeError, Fields, Value};

use super::show;

/// More bytes of one piece are not shown unless it is asked for.
const PIECE_BYTES_MAX: usize = 64;

/// A page under construction.
pub(super) struct Page {
    pub(super) text: String,
    full: bool,
}

impl Page {
    pub(super) fn new(full: bool) -> Page {
        Page { text: String::new(), full }
    }

    /// A line between the bytes.
    pub(super) fn heading(&mut self, heading: &str) {
        self.text.push_str(heading);
        self.text.push('\n');
    }

    /// A piece that begins at `offset`.
    pub(super) fn piece(&mut self, offset: u64, bytes: &[u8], meaning: &str) {
        let shown = if self.full { bytes } else { &bytes[..bytes.len().min(PIECE_BYTES_MAX)] };
        for (i, line) in shown.chunks(16).enumerate() {
            let hex: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            let meaning = if i == 0 { meaning } else { "" };
            let line = format!("{:>8x}  {:<47}  {meaning}", offset + 16 * i as u64, hex.join(" "));
            self.text.push_str(line.trim_end());
            self.text.push('\n');
        }
        if bytes.len() > shown.len() {
            let left = bytes.len() - shown.len();
            self.text.push_str(&format!("{:>8}  and {left} bytes more\n", "…"));
        }
    }

    /// Pieces of fixed widths, one after the other from `offset` on.
    pub(super) fn pieces(&mut self, mut offset: u64, bytes: &[u8], widths: &[(usize, String)]) {
        let mut rest = bytes;
        for (width, meaning) in widths {
            let (piece, behind) = rest.split_at((*width).min(rest.len()));
            self.piece(offset, piece, meaning);
            offset += piece.len() as u64;
            rest = behind;
        }
    }

    /// A protobuf message, field by field; numbers that stand together share a line.
    pub(super) fn message(
        &mut self,
        offset: u64,
        bytes: &[u8],
        schema: &Schema,
    ) -> Result<(), DecodeError> {
        let mut fields = Fields(bytes);
        let mut scalars = Vec::new();
        let mut start = 0;
        loop {
            let at = bytes.len() - fields.0.len();
            let next = fields.next()?;
            let end = bytes.len() - fields.0.len();
            if let Some((number, Value::Uint(value))) = next {
                scalars.push(schema.number(number, value));
                continue;
            }
            self.piece(offset + start as u64, &bytes[start..at], &scalars.join(", "));
            scalars.clear();
            start = end;
            let Some((number, value)) = next else { return Ok(()) };
            let here = offset + at as u64;
            match (value, schema.field(number)) {
                (Value::Bytes(inner), Some((name, Form::Message(schema)))) => {
                    let head = end - at - inner.len();
                    let meaning = format!("{name}, {} bytes", inner.len());
                    self.piece(here, &bytes[at..at + head], &meaning);
                    self.message(here + head as u64, inner, schema)?;
                }
                (Value::Bytes(inner), field) => {
                    let name = field.map_or(format!("field {number}"), |(name, _)| name.to_owned());
                    let meaning = format!("{name} {}", show(inner, self.full));
                    self.piece(here, &bytes[at..end], &meaning);
                }
                _ => self.piece(here, &bytes[at..end], &format!("field {number}")),
            }
        }
    }
}

/// The names of a message's fields.
#[derive(Debug)]
pub(super) struct Schema(pub(super) &'static [(u64, &'static str, Form)]);

/// How a field is shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    Number,
    /// A number in hexadecimal.
    Id,
    Bytes,
    Message(&'static Schema),
}

impl Schema {
    fn field(&self, number: u64) -> Option<(&'static str, Form)> {
        let field = self.0.iter().find(|(own, _, _)| *own == number)?;
        Some((field.1, field.2))
    }

    fn number(&self, number: u64, value: u64) -> String {
        match self.field(number) {
            Some((name, Form::Id)) => format!("{name} {value:x}"),
            Some((name, _)) => format!("{name} {}", value.cast_signed()),
            None => format!("field {number} = {value}"),
        }
    }
}
