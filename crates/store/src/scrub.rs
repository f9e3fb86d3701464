//! Scrub: reading sealed segments again, so that rot is found while other members still have the data.

use crate::error::{Damage, ReadError};
use crate::frame::Scan;
use crate::segment::{SEGMENT_HEADER_BYTES, check_header, damage};
use crate::store::Flusher;

/// Where the next slice goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Position {
    segment: u32,
    /// 0: at its beginning.
    offset: u32,
}

/// What a slice of scrubbing read.
#[derive(Debug, Default)]
pub struct Scrubbed {
    /// Bytes read.
    pub bytes: u64,
    /// The first thing in each file that failed its check; the rest of that file is passed over in this round.
    pub damage: Vec<Damage>,
    /// The last sealed segment has been read to its end; the next slice begins anew.
    pub round_ended: bool,
}

impl Flusher {
    /// Reads on in the sealed segments, about `bytes_max` bytes (at least a frame or a footer), and checks
    /// every CRC.
    pub fn scrub(&mut self, bytes_max: usize) -> Scrubbed {
        let mut scrubbed = Scrubbed::default();
        let mut body = Vec::new();
        while scrubbed.bytes < bytes_max as u64 {
            let Some((&number, sealed)) = self.sealed.range(self.scrub.segment..).next() else {
                self.scrub = Position::default();
                scrubbed.round_ended = true;
                break;
            };
            // The segment where the last slice stopped may have been reclaimed since.
            let offset = if number == self.scrub.segment { self.scrub.offset } else { 0 };
            let handle = &sealed.handle;
            let mut scan = Scan {
                file: handle.file.clone(),
                identity: self.identity,
                segment: number,
                offset: offset.max(SEGMENT_HEADER_BYTES),
                end: sealed.trailer.at,
            };
            let at = u64::from(scan.offset);
            let unreadable = |error: std::io::Error| damage(&handle.path, at, error.to_string());
            let found = if offset == 0 {
                let mut header = [0; 64];
                match handle.file.read_exact_at(&mut header, 0) {
                    Err(error) => Some(unreadable(error)),
                    Ok(()) => check_header(&header, number, self.identity)
                        .err()
                        .map(|_| damage(&handle.path, 0, "the segment's header is damaged")),
                }
            } else if scan.offset < scan.end {
                match scan.next(&mut body) {
                    Err(error) => Some(unreadable(error)),
                    Ok(None) => Some(damage(&handle.path, at, "a frame is damaged")),
                    Ok(Some(_)) => None,
                }
            } else {
                let mut cursor = sealed.cursor(number);
                let rot = loop {
                    match cursor.next() {
                        Ok(Some(_)) => {}
                        Ok(None) => break None,
                        Err(ReadError::Rot(damage)) => break Some(damage),
                        Err(ReadError::Io(error)) => break Some(unreadable(error)),
                        Err(ReadError::Gone { .. }) => break None,
                    }
                };
                scrubbed.bytes += u64::from(sealed.len - sealed.trailer.at);
                self.scrub = Position { segment: number + 1, offset: 0 };
                scrubbed.damage.extend(rot);
                continue;
            };
            scrubbed.bytes += u64::from(scan.offset) - if offset == 0 { 0 } else { at };
            self.scrub = match &found {
                Some(_) => Position { segment: number + 1, offset: 0 },
                None => Position { segment: number, offset: scan.offset },
            };
            scrubbed.damage.extend(found);
        }
        scrubbed
    }
}
