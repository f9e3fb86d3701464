//! Frames: the header that makes a run of records whole or not there.

/// Bytes of a frame's header.
pub(crate) const FRAME_HEADER_BYTES: u32 = 40;
