//! Scrub: reading sealed segments again, so that rot is found while other members still have the data.

use crate::error::Damage;
use crate::store::Flusher;

/// What a slice of scrubbing read.
#[derive(Debug, Default)]
pub struct Scrubbed {
    /// Bytes read.
    pub bytes: u64,
    /// Each frame or footer block that failed its CRC.
    pub damage: Vec<Damage>,
    /// The last sealed segment has been read to its end; the next slice begins anew.
    pub round_ended: bool,
}

impl Flusher {
    /// Reads on in the sealed segments, about `bytes_max` bytes (at least a frame), and checks every CRC.
    pub fn scrub(&mut self, _bytes_max: usize) -> Scrubbed {
        unimplemented!("the store is being built")
    }
}
