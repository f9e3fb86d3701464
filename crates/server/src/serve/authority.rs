//! Names of hosts that old clients spell as no URL may: mended before h2 sees them.
//!
//! grpc-go before 1.40, as in etcdctl 3.4, sends `:authority: http://127.0.0.1:2379`, and etcd's Go client 3.5
//! may send `#initially=[…]`. Go's server takes both; the `h2` crate resets the stream, and has no setting for
//! it. So the bytes of an HTTP/2 connection pass through here, and such a value is replaced by one byte.
//!
//! That is safe although header compression has a memory. The field stays a literal of the same kind, so both
//! sides count the same entries; the entry becomes shorter, so we forget entries later than the client does,
//! and it never names one that it has forgotten itself. An entry larger than the whole memory would be another matter:
//! the client would empty its memory and add nothing, where we would add the short one, and every later name would be
//! another's. So a value longer than `VALUE_BYTES_MAX` stays as it is, and h2 resets the stream.
//!
//! ```text
//!   frame    ┌─────────────┬────────┬─────────┬─────────────┬─────────────────────────────┐
//!            │ length (24) │ type 1 │ flags   │ stream (32) │ [pad] [priority] fields …   │
//!            └─────────────┴────────┴─────────┴─────────────┴─────────────────────────────┘
//!   field    1iiiiiii   known field                        01iiiiii name? value   literal, remembered
//!            001nnnnn   size of the memory                 000.iiii name? value   literal, not remembered
//! ```

/// What HTTP/2 begins with.
const PREFACE_BYTES: usize = 24;
const FRAME_HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const ACK: u8 = 0x1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// `:authority` in the table of known names.
const AUTHORITY: usize = 1;
/// What stands for a name that cannot be read; nobody asks for it.
const UNREADABLE: [u8; 2] = [1, b'-'];
/// Longer values are passed on as they are. Far below the memory's 4,096 bytes, also when Huffman-coded (the shortest
/// code has five bits); and what is looked at costs little.
const VALUE_BYTES_MAX: usize = 1 << 10;
/// Longer frames are passed on as they are: h2 refuses them.
const FRAME_BYTES_MAX: usize = 64 << 10;

/// The Huffman codes (RFC 7541, appendix B) of what may stand in an authority: character, code, bits.
#[rustfmt::skip]
const CODES: [(u8, u32, u32); 82] = [
    (b'0', 0x0, 5), (b'1', 0x1, 5), (b'2', 0x2, 5), (b'a', 0x3, 5), (b'c', 0x4, 5),
    (b'e', 0x5, 5), (b'i', 0x6, 5), (b'o', 0x7, 5), (b's', 0x8, 5), (b't', 0x9, 5),
    (b'%', 0x15, 6), (b'-', 0x16, 6), (b'.', 0x17, 6), (b'3', 0x19, 6), (b'4', 0x1a, 6),
    (b'5', 0x1b, 6), (b'6', 0x1c, 6), (b'7', 0x1d, 6), (b'8', 0x1e, 6), (b'9', 0x1f, 6),
    (b'=', 0x20, 6), (b'A', 0x21, 6), (b'_', 0x22, 6), (b'b', 0x23, 6), (b'd', 0x24, 6),
    (b'f', 0x25, 6), (b'g', 0x26, 6), (b'h', 0x27, 6), (b'l', 0x28, 6), (b'm', 0x29, 6),
    (b'n', 0x2a, 6), (b'p', 0x2b, 6), (b'r', 0x2c, 6), (b'u', 0x2d, 6), (b':', 0x5c, 7),
    (b'B', 0x5d, 7), (b'C', 0x5e, 7), (b'D', 0x5f, 7), (b'E', 0x60, 7), (b'F', 0x61, 7),
    (b'G', 0x62, 7), (b'H', 0x63, 7), (b'I', 0x64, 7), (b'J', 0x65, 7), (b'K', 0x66, 7),
    (b'L', 0x67, 7), (b'M', 0x68, 7), (b'N', 0x69, 7), (b'O', 0x6a, 7), (b'P', 0x6b, 7),
    (b'Q', 0x6c, 7), (b'R', 0x6d, 7), (b'S', 0x6e, 7), (b'T', 0x6f, 7), (b'U', 0x70, 7),
    (b'V', 0x71, 7), (b'W', 0x72, 7), (b'Y', 0x73, 7), (b'j', 0x74, 7), (b'k', 0x75, 7),
    (b'q', 0x76, 7), (b'v', 0x77, 7), (b'w', 0x78, 7), (b'x', 0x79, 7), (b'y', 0x7a, 7),
    (b'z', 0x7b, 7), (b'&', 0xf8, 8), (b'*', 0xf9, 8), (b',', 0xfa, 8), (b';', 0xfb, 8),
    (b'X', 0xfc, 8), (b'Z', 0xfd, 8), (b'!', 0x3f8, 10), (b'(', 0x3fa, 10), (b')', 0x3fb, 10),
    (b'\'', 0x7fa, 11), (b'+', 0x7fb, 11), (b'$', 0x1ff9, 13), (b'@', 0x1ffa, 13),
    (b'[', 0x1ffb, 13), (b']', 0x1ffc, 13), (b'~', 0x1ffd, 13),
];

/// The bytes of one HTTP/2 connection, from its preface on.
pub struct Mender {
    /// What has passed and is worth knowing.
    seen: Seen,
    /// Bytes that are passed on without a look: of the preface, or of a frame that is not of headers.
    pass: usize,
    /// A frame's head, or a frame of headers, that is not whole yet.
    partial: Vec<u8>,
}

/// Frames that h2 deals with by itself and does not tell of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How many PINGs came that are no answers.
    pub pings: u32,
    /// Whether a stream was reset.
    pub reset: bool,
}

impl Default for Mender {
    /// For a new connection.
    fn default() -> Mender {
        Mender { seen: Seen::default(), pass: PREFACE_BYTES, partial: Vec::new() }
    }
}

impl Mender {
    /// Takes bytes as they came, and adds to `out` what may be passed on now.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let passed = self.pass.min(bytes.len());
            if passed > 0 {
                out.extend_from_slice(&bytes[..passed]);
                self.pass -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let wanted = self.wanted();
            let taken = (wanted - self.partial.len()).min(bytes.len());
            self.partial.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.partial.len() < wanted {
                return;
            }
            if wanted == FRAME_HEAD_BYTES && self.wanted() > FRAME_HEAD_BYTES {
                continue;
            }
            if wanted == FRAME_HEAD_BYTES {
                self.pass = frame_length(&self.partial);
                match self.partial[3] {
                    PING if self.partial[4] & ACK == 0 => {
                        self.seen.pings = self.seen.pings.saturating_add(1);
                    }
                    RST_STREAM => self.seen.reset = true,
                    _ => {}
                }
            } else {
                mend(&mut self.partial);
            }
            out.append(&mut self.partial);
        }
    }

    /// What has passed since this was asked last.
    pub fn take_seen(&mut self) -> Seen {
        std::mem::take(&mut self.seen)
    }

    /// How long `partial` must become before it can be looked at: a head, or a whole frame of headers.
    fn wanted(&self) -> usize {
        let is_headers = self.partial.get(3) == Some(&HEADERS);
        match self.partial.len() >= FRAME_HEAD_BYTES && is_headers {
            true if frame_length(&self.partial) <= FRAME_BYTES_MAX => {
                FRAME_HEAD_BYTES + frame_length(&self.partial)
            }
            _ => FRAME_HEAD_BYTES,
        }
    }
}

fn frame_length(head: &[u8]) -> usize {
    usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])
}

/// Replaces an unreadable authority in a whole frame of headers. What is not understood stays as it is: h2 judges.
fn mend(frame: &mut Vec<u8>) {
    let Some((start, end)) = unreadable_authority(frame) else { return };
    frame.splice(start..end, UNREADABLE);
    let length = frame.len() - FRAME_HEAD_BYTES;
    frame[0] = (length >> 16) as u8;
    frame[1] = (length >> 8) as u8;
    frame[2] = length as u8;
}

/// Where the value of an `:authority` stands, with its length, that is not one.
fn unreadable_authority(frame: &[u8]) -> Option<(usize, usize)> {
    let flags = frame[4];
    let mut at = FRAME_HEAD_BYTES;
    let mut end = frame.len();
    if flags & PADDED != 0 {
        end = end.checked_sub(usize::from(*frame.get(at)?))?;
        at += 1;
    }
    if flags & PRIORITY != 0 {
        at += 5;
    }
    let block = frame.get(..end)?;
    while at < block.len() {
        let first = block[at];
        let (bits, is_literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let name = integer(block, &mut at, bits)?;
        if !is_literal {
            continue;
        }
        if name == 0 {
            string(block, &mut at)?;
        }
        let start = at;
        let (huffman, value) = string(block, &mut at)?;
        if name == AUTHORITY && value.len() > VALUE_BYTES_MAX {
            return None;
        }
        if name == AUTHORITY {
            return (!is_authority(huffman, value)).then_some((start, at));
        }
    }
    None
}

/// An integer with a prefix of so many bits (RFC 7541, section 5.1).
fn integer(block: &[u8], at: &mut usize, bits: u32) -> Option<usize> {
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(*block.get(*at)?) & most;
    *at += 1;
    if value < most {
        return Some(value);
    }
    for shift in [0, 7, 14] {
        let byte = *block.get(*at)?;
        *at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A string and whether it is Huffman-coded (section 5.2).
fn string<'b>(block: &'b [u8], at: &mut usize) -> Option<(bool, &'b [u8])> {
    let huffman = block.get(*at)? & 0x80 != 0;
    let length = integer(block, at, 7)?;
    let value = block.get(*at..at.checked_add(length)?)?;
    *at += length;
    Some((huffman, value))
}

fn is_authority(huffman: bool, value: &[u8]) -> bool {
    let decoded = match huffman {
        true => decode(value),
        false => Some(value.to_vec()),
    };
    decoded.is_some_and(|text| text.is_empty() || http::uri::Authority::try_from(&text[..]).is_ok())
}

/// The text, if all of it may stand in an authority.
fn decode(value: &[u8]) -> Option<Vec<u8>> {
    let (mut text, mut code, mut bits) = (Vec::new(), 0_u32, 0_u32);
    for byte in value {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            bits += 1;
            if let Some((character, ..)) =
                CODES.iter().find(|(_, known, length)| *length == bits && *known == code)
            {
                text.push(*character);
                (code, bits) = (0, 0);
            } else if bits > 13 {
                return None;
            }
        }
    }
    // What is left is padding: less than a byte of ones.
    (bits < 8 && code == (1 << bits) - 1).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(flags: u8, block: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, block.len() as u8, HEADERS, flags, 0, 0, 0, 1];
        frame.extend_from_slice(block);
        frame
    }

    fn through(frames: &[u8], piece: usize) -> Vec<u8> {
        let mut mender = Mender::default();
        let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        sent.extend_from_slice(frames);
        let mut out = Vec::new();
        for piece in sent.chunks(piece) {
            mender.push(piece, &mut out);
        }
        out.split_off(PREFACE_BYTES)
    }

    /// `:authority: http://127.0.0.1:2379`, as grpc-go 1.33 codes it.
    const OLD: [u8; 17] = [
        0x41, 0x8f, 0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x04, 0x4e, 0xae, 0x05, 0xc0, 0xb8, 0x6e, 0x09,
        0x97, 0x5f,
    ];

    #[test]
    fn a_url_in_place_of_an_authority_is_replaced_in_pieces_of_any_size() {
        let mut block = vec![0x83, 0x86];
        block.extend_from_slice(&OLD);
        block.push(0x84);
        let data = [0, 0, 3, 0, 1, 0, 0, 0, 1, 7, 7, 7];
        let sent = [&frame(4, &block)[..], &data, &frame(4, &block)].concat();
        let mended = [0x83, 0x86, 0x41, 1, b'-', 0x84];
        let expected = [&frame(4, &mended)[..], &data, &frame(4, &mended)].concat();
        for piece in [1, 2, 5, 1000] {
            assert_eq!(through(&sent, piece), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_an_authority_or_is_not_understood_passes_as_it_came() {
        let blocks: [&[u8]; 6] = [
            &[0x83, 0x41, 3, b'a', b':', b'1'],
            &[0x83, 0xc1, 0x84],
            &[0x41, 0x86, 0xa0, 0xe4, 0x1d, 0x13, 0x9d, 0x09],
            &[0x41, 0x90, 0x9d],
            &[0x41, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x3f, 0xff],
        ];
        for block in blocks {
            let sent = frame(4, block);
            assert_eq!(through(&sent, 1000), sent, "{block:x?}");
        }
    }

    #[test]
    fn a_value_that_may_not_fit_into_the_memory_stays_as_it_is() {
        for (length, is_mended) in [(1024, true), (1025, false), (5000, false)] {
            // A literal that is remembered, with a length in several bytes, of characters that may not be.
            let mut block = vec![0x41, 0x7f];
            let mut rest = length - 0x7f;
            while rest >= 0x80 {
                block.push(0x80 | (rest & 0x7f) as u8);
                rest >>= 7;
            }
            block.push(rest as u8);
            block.extend(std::iter::repeat_n(b'#', length));
            let mut sent =
                vec![0, (block.len() >> 8) as u8, block.len() as u8, HEADERS, 4, 0, 0, 0, 1];
            sent.extend_from_slice(&block);
            assert_eq!(through(&sent, 1000) != sent, is_mended, "{length} bytes");
        }
    }

    #[test]
    fn pings_and_resets_are_seen_in_pieces_of_any_size() {
        let ping = [0, 0, 8, PING, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let pong = [0, 0, 8, PING, ACK, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let reset = [0, 0, 4, RST_STREAM, 0, 0, 0, 0, 1, 0, 0, 0, 8];
        for piece in [1, 4, 9, 1000] {
            let mut mender = Mender::default();
            let mut push = |bytes: &[u8]| {
                bytes.chunks(piece).for_each(|piece| mender.push(piece, &mut Vec::new()));
                mender.take_seen()
            };
            assert_eq!(push(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Seen::default());
            assert_eq!(push(&[ping, pong, ping].concat()), Seen { pings: 2, reset: false });
            assert_eq!(push(&reset), Seen { pings: 0, reset: true });
            assert_eq!(push(&pong), Seen::default());
        }
    }

    #[test]
    fn padding_and_priority_are_passed_over() {
        let block = [2, 0, 0, 0, 0, 16, 0x41, 4, b'#', b'a', b'=', b'[', 0, 0];
        let mended = [2, 0, 0, 0, 0, 16, 0x41, 1, b'-', 0, 0];
        let flags = 4 | PADDED | PRIORITY;
        assert_eq!(through(&frame(flags, &block), 3), frame(flags, &mended));
    }
}
