//! The manifest: which segments count. It is replaced as a whole, in one step.
//!
//! ```text
//!   0        8    12   16       24       32       40       48       56       64       72   76   80
//!   │QManifst│vers│segs│ cluster│ member │generatn│ index  │ term   │revision│compact │grow│sync│
//!   then segs times │ nr 4 │ len 4 │ trailer crc 4 │, then │ crc 4 │ of all before
//! ```
//!
//! Replaced: `MANIFEST.tmp` written and synced, renamed to `MANIFEST`, the directory synced. A crash leaves the
//! old one or the new one.

use std::io;
use std::path::Path;

use mutant::Mutant;
use vfs::{OpenMode, Vfs};

use crate::frame::Identity;
use crate::record::{take_u32, take_u64};
use crate::segment::VERSION;

pub(crate) const MANIFEST: &str = "MANIFEST";
pub(crate) const MANIFEST_TMP: &str = "MANIFEST.tmp";
const MAGIC: [u8; 8] = *b"QManifst";

/// A sealed segment, as the manifest names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its number.
    pub segment: u32,
    /// Length of the file in bytes.
    pub len: u32,
    /// CRC in the segment's trailer.
    pub trailer_crc: u32,
}

/// What a manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Whose store it is.
    pub identity: Identity,
    /// One more with each replacement.
    pub generation: u64,
    /// The last entry in the sealed segments: its index and term.
    pub applied: (u64, u64),
    /// The highest main revision in them.
    pub revision: i64,
    /// The compaction mark as of them.
    pub compact_revision: i64,
    /// The segment that takes frames.
    pub growing: u32,
    /// Bytes of it that were durable when this manifest was written.
    pub growing_synced: u32,
    /// The others.
    pub sealed: Vec<Named>,
}

/// Why bytes are no manifest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ManifestFault {
    UnknownVersion(u32),
    Rot,
}

impl Manifest {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(self.sealed.len() as u32).to_le_bytes());
        for number in [
            self.identity.cluster_id,
            self.identity.member_id,
            self.generation,
            self.applied.0,
            self.applied.1,
            self.revision.cast_unsigned(),
            self.compact_revision.cast_unsigned(),
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.growing.to_le_bytes());
        out.extend_from_slice(&self.growing_synced.to_le_bytes());
        for named in &self.sealed {
            for number in [named.segment, named.len, named.trailer_crc] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Manifest, ManifestFault> {
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(ManifestFault::Rot)?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(ManifestFault::Rot);
        }
        let mut rest = body.strip_prefix(&MAGIC).ok_or(ManifestFault::Rot)?;
        let version = take_u32(&mut rest).ok_or(ManifestFault::Rot)?;
        if version != VERSION {
            return Err(ManifestFault::UnknownVersion(version));
        }
        Self::decode_fields(&mut rest).filter(|_| rest.is_empty()).ok_or(ManifestFault::Rot)
    }

    fn decode_fields(rest: &mut &[u8]) -> Option<Manifest> {
        let count = take_u32(rest)?;
        let mut manifest = Manifest {
            identity: Identity { cluster_id: take_u64(rest)?, member_id: take_u64(rest)? },
            generation: take_u64(rest)?,
            applied: (take_u64(rest)?, take_u64(rest)?),
            revision: take_u64(rest)?.cast_signed(),
            compact_revision: take_u64(rest)?.cast_signed(),
            growing: take_u32(rest)?,
            growing_synced: take_u32(rest)?,
            sealed: Vec::new(),
        };
        for _ in 0..count {
            manifest.sealed.push(Named {
                segment: take_u32(rest)?,
                len: take_u32(rest)?,
                trailer_crc: take_u32(rest)?,
            });
        }
        Some(manifest)
    }

    /// Puts this manifest in the place of the one in `dir`. Durable when it returns; after an error it may be
    /// one or the other.
    pub(crate) fn replace(&self, vfs: &dyn Vfs, dir: &Path) -> io::Result<()> {
        let tmp = dir.join(MANIFEST_TMP);
        if vfs.exists(&tmp)? {
            vfs.unlink(&tmp)?;
        }
        let file = vfs.open(&tmp, OpenMode::Create)?;
        file.append(&self.encode())?;
        file.sync()?;
        vfs.rename(&tmp, &dir.join(MANIFEST))?;
        if mutant::is(Mutant::ManifestNameUnsynced) {
            return Ok(());
        }
        vfs.sync_dir(dir)
    }
}
