//! Opening: manifest, then the footers of the sealed segments, then the frames of the growing one.
//!
//! What a crash can leave behind is mended here: the growing segment's torn tail is cut off, files that no
//! manifest names are deleted. What a crash cannot leave behind is rot, and refused: see [`OpenError`].
//! Nothing in the directory changes before all of it has been found good.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use vfs::{OpenMode, Vfs};

use crate::builder::{Builder, Resume};
use crate::error::{OpenError, ReadError};
use crate::footer::{FooterBuilder, Merge, TRAILER_BYTES, Trailer};
use crate::frame::{Identity, Scan};
use crate::live::{Rows, Usage};
use crate::manifest::{MANIFEST, MANIFEST_TMP, Manifest, ManifestFault, Named};
use crate::record::{Kind, Location, Meta, Place, Recovered, Row, records};
use crate::scrub::Position;
use crate::segment::{
    self, Handle, HeaderFault, Reader, SEGMENT_HEADER_BYTES, Table, View, damage,
};
use crate::store::{
    Flusher, Growing, Opened, Options, Sealed, TornTail, create_segment, is_full, set_aside,
};

/// Opens the store in `dir`, or makes one if there is none, and hands every record of the keyspace to
/// `recovered`, in ascending order of revision (also dead ones that are still on disk: report those that are
/// not kept with [`Builder::dead`]).
pub fn open(
    vfs: Arc<dyn Vfs>,
    dir: &Path,
    options: Options,
    recovered: &mut dyn FnMut(Recovered<'_>),
) -> Result<Opened, OpenError> {
    assert!((4 << 10..=1 << 30).contains(&options.segment_bytes), "{options:?}");
    let identity = Identity { cluster_id: options.cluster_id, member_id: options.member_id };
    let io_in_dir = |error| OpenError::Io { file: dir.to_owned(), error };
    vfs.create_dir_all(dir).map_err(io_in_dir)?;
    let names = vfs.list(dir).map_err(io_in_dir)?;
    let created = !names.iter().any(|name| name == MANIFEST);
    if created {
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            vfs.sync_dir(parent).map_err(io_in_dir)?;
        }
        create(&*vfs, dir, identity, options.segment_bytes, &names)?;
    }

    let (manifest, _) = read_manifest(&*vfs, dir)?;
    check_identity(dir, &manifest, identity)?;
    let scanned = scan(&*vfs, dir, &manifest, OpenMode::Write, recovered)?;
    let torn = scanned.torn();
    let Scanned { handles, sealed, growing, tail, died, row_states, .. } = scanned;
    let Scanned { applied, revision, compact_revision, .. } = scanned;
    let rows = scanned.rows.into_iter().map(|(row, _)| row).collect();

    // All is good: from here on the directory is put in order.
    let io_in_growing = |error| OpenError::Io { file: growing.handle.path.as_ref().clone(), error };
    mend(&growing, &tail, options.segment_bytes).map_err(io_in_growing)?;
    // A process that died between renaming a manifest and syncing the directory left a manifest that a power
    // cut would still take back, together with every frame written on the strength of it.
    vfs.sync_dir(dir).map_err(io_in_dir)?;
    let names = vfs.list(dir).map_err(io_in_dir)?;
    for name in names.iter().filter(|name| is_leftover(name, &manifest)) {
        let path = dir.join(name);
        vfs.unlink(&path).map_err(|error| OpenError::Io { file: path, error })?;
    }
    let is_short = !set_aside(&*vfs, dir, options.segment_bytes).map_err(io_in_dir)?;

    let highest = names.iter().filter_map(|name| segment::parse_name(name)).max().unwrap_or(0);
    let table = Arc::new(Table::default());
    table.change(|current| *current = handles);
    let resume = Resume {
        segment: growing.number,
        offset: growing.end,
        footer_bytes: growing.footer.bytes(),
        applied_index: applied.0,
    };
    let mut flusher = Flusher {
        vfs: Arc::clone(&vfs),
        dir: dir.to_owned(),
        identity,
        segment_bytes: options.segment_bytes,
        manifest,
        table: Arc::clone(&table),
        sealed,
        growing,
        rows: row_states,
        applied,
        revision,
        compact_revision,
        next_whole: (highest + 1) | 1,
        job: None,
        doubtful: BTreeSet::new(),
        is_short,
        untold_seal: None,
        scrub: Position::default(),
        import: None,
        failed: None,
        buffer: Vec::new(),
    };
    died.iter().for_each(|location| flusher.die(location));
    Ok(Opened {
        builder: Builder::new(options.segment_bytes, resume),
        flusher,
        reader: Reader(table),
        applied,
        revision,
        compact_revision,
        rows,
        created,
        torn,
    })
}

/// Makes an empty store where no manifest is. A crash during an earlier attempt may have left an empty first
/// segment; anything more was once named by a manifest.
fn create(
    vfs: &dyn Vfs,
    dir: &Path,
    identity: Identity,
    segment_bytes: u32,
    names: &[String],
) -> Result<(), OpenError> {
    let io_in_dir = |error| OpenError::Io { file: dir.to_owned(), error };
    let segments = || names.iter().filter_map(|name| segment::parse_name(name));
    let has_frames = |number| -> io::Result<bool> {
        let file = vfs.open(&dir.join(segment::name(number)), OpenMode::Read)?;
        let mut magic = [0; 4];
        let read = file.read_at(&mut magic, u64::from(SEGMENT_HEADER_BYTES))?;
        Ok(read == magic.len() && magic != [0; 4])
    };
    if segments().any(|number| number != 0)
        || (segments().any(|number| number == 0) && has_frames(0).map_err(io_in_dir)?)
    {
        return Err(OpenError::ManifestMissing { dir: dir.to_owned() });
    }
    let empty = Manifest {
        identity,
        generation: 1,
        applied: (0, 0),
        revision: 0,
        compact_revision: 0,
        growing: 0,
        growing_synced: SEGMENT_HEADER_BYTES,
        sealed: Vec::new(),
    };
    let first = dir.join(segment::name(0));
    let make = || {
        if vfs.exists(&first)? {
            vfs.unlink(&first)?;
        }
        create_segment(vfs, dir, identity, 0, segment_bytes)?;
        empty.replace(vfs, dir)
    };
    make().map_err(io_in_dir)
}

/// A longer manifest is none: this one names a million segments.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// The manifest and its bytes.
pub(crate) fn read_manifest(vfs: &dyn Vfs, dir: &Path) -> Result<(Manifest, Vec<u8>), OpenError> {
    let path = dir.join(MANIFEST);
    let read = || {
        let file = vfs.open(&path, OpenMode::Read)?;
        // One byte more than may be is enough to know that it is too long.
        let mut bytes = vec![0; file.len()?.min(MANIFEST_BYTES_MAX + 1) as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| OpenError::Io { file: path.clone(), error })?;
    if bytes.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(OpenError::Rot(damage(&path, 0, "the manifest is too long")));
    }
    let manifest = Manifest::decode(&bytes).map_err(|fault| match fault {
        ManifestFault::UnknownVersion(found) => {
            OpenError::UnknownVersion { file: path.clone(), found }
        }
        ManifestFault::Rot => OpenError::Rot(damage(&path, 0, "the manifest's CRC does not match")),
    })?;
    Ok((manifest, bytes))
}

fn check_identity(dir: &Path, manifest: &Manifest, identity: Identity) -> Result<(), OpenError> {
    let Identity { cluster_id, member_id } = manifest.identity;
    if cluster_id != identity.cluster_id {
        return Err(OpenError::OtherCluster {
            dir: dir.to_owned(),
            found: cluster_id,
            wanted: identity.cluster_id,
        });
    }
    if member_id != identity.member_id {
        return Err(OpenError::OtherMember {
            dir: dir.to_owned(),
            found: member_id,
            wanted: identity.member_id,
        });
    }
    Ok(())
}

/// A file that the store made and no manifest names.
fn is_leftover(name: &str, manifest: &Manifest) -> bool {
    match segment::parse_name(name) {
        Some(number) => {
            number != manifest.growing
                && !manifest.sealed.iter().any(|named| named.segment == number)
        }
        None => name == MANIFEST_TMP,
    }
}

/// Of what is written again at a start, so much at a time.
const REWRITE_BYTES: u32 = 1 << 20;

/// What lies behind the growing segment's last whole frame.
pub(crate) struct GrowingTail {
    /// Bytes up to the last one that is not zero. If there are any, a frame or a footer was torn.
    lost_bytes: u64,
    /// Up to here something that was written later, or the manifest, vouches that the segment is on disk.
    proven: u32,
}

/// All that a start reads before it changes anything.
pub(crate) struct Scanned {
    pub handles: BTreeMap<u32, Handle>,
    sealed: BTreeMap<u32, Sealed>,
    growing: Growing,
    tail: GrowingTail,
    died: Vec<Location>,
    row_states: Rows,
    /// What the rows say, and where they lie.
    pub rows: Vec<(Row, Location)>,
    pub applied: (u64, u64),
    pub revision: i64,
    pub compact_revision: i64,
}

impl Scanned {
    /// What a start would cut off.
    pub fn torn(&self) -> Option<TornTail> {
        (self.tail.lost_bytes > 0).then(|| TornTail {
            file: self.growing.handle.path.as_ref().clone(),
            offset: self.growing.end.into(),
            lost_bytes: self.tail.lost_bytes,
        })
    }
}

/// Reads and checks what the manifest names; the growing segment is opened in this mode.
pub(crate) fn scan(
    vfs: &dyn Vfs,
    dir: &Path,
    manifest: &Manifest,
    mode: OpenMode,
    recovered: &mut dyn FnMut(Recovered<'_>),
) -> Result<Scanned, OpenError> {
    let mut opening = Opening {
        vfs,
        dir,
        identity: manifest.identity,
        handles: BTreeMap::new(),
        rows: Rows::default(),
        applied: manifest.applied,
        revision: manifest.revision,
        compact_revision: manifest.compact_revision,
        died: Vec::new(),
    };
    let sealed = opening.read_sealed(manifest, recovered)?;
    let (growing, tail) = opening.scan_growing(manifest, mode, recovered)?;
    let mut died = std::mem::take(&mut opening.died);
    died.extend(opening.rows.settle_all());
    let rows = opening.read_rows()?;
    let Opening { handles, rows: row_states, applied, revision, compact_revision, .. } = opening;
    Ok(Scanned {
        handles,
        sealed,
        growing,
        tail,
        died,
        row_states,
        rows,
        applied,
        revision,
        compact_revision,
    })
}

/// Cuts the torn tail off, and makes durable what was found good: from now on others rely on it. A sync that failed ended the
/// process that asked for it, and left its bytes in the kernel's memory, where they are taken for written; so what nothing
/// vouches for is written again, or the sync here would mean nothing.
fn mend(growing: &Growing, tail: &GrowingTail, segment_bytes: u32) -> io::Result<()> {
    let file = &growing.handle.file;
    if tail.lost_bytes > 0 {
        file.truncate(u64::from(growing.end))?;
    }
    let mut bytes = Vec::new();
    for at in (tail.proven..growing.end).step_by(REWRITE_BYTES as usize) {
        bytes.resize((growing.end - at).min(REWRITE_BYTES) as usize, 0);
        file.read_exact_at(&mut bytes, u64::from(at))?;
        file.write_at(&bytes, u64::from(at))?;
    }
    match file.preallocate(u64::from(segment_bytes)) {
        Err(error) if is_full(&error) => {}
        other => other?,
    }
    vfs::renew_len(&**file, u64::from(growing.end.max(segment_bytes)))?;
    file.sync()
}

struct Opening<'a> {
    vfs: &'a dyn Vfs,
    dir: &'a Path,
    identity: Identity,
    handles: BTreeMap<u32, Handle>,
    rows: Rows,
    applied: (u64, u64),
    revision: i64,
    compact_revision: i64,
    died: Vec<Location>,
}

impl Opening<'_> {
    fn open_segment(&mut self, number: u32, mode: OpenMode) -> Result<(Handle, u64), OpenError> {
        let path = self.dir.join(segment::name(number));
        let io_here = |error| OpenError::Io { file: path.clone(), error };
        if !self.vfs.exists(&path).map_err(io_here)? {
            return Err(OpenError::SegmentMissing { file: path });
        }
        let file = self.vfs.open(&path, mode).map_err(io_here)?;
        let len = file.len().map_err(io_here)?;
        if len < u64::from(SEGMENT_HEADER_BYTES) {
            return Err(OpenError::Rot(damage(&path, len, "the file ends within its header")));
        }
        let mut header = [0; 64];
        file.read_exact_at(&mut header, 0).map_err(io_here)?;
        segment::check_header(&header, number, self.identity).map_err(|fault| match fault {
            HeaderFault::UnknownVersion(found) => {
                OpenError::UnknownVersion { file: path.clone(), found }
            }
            HeaderFault::Rot => OpenError::Rot(damage(&path, 0, "the segment's header is damaged")),
        })?;
        let handle = Handle::new(file, path);
        self.handles.insert(number, handle.clone());
        Ok((handle, len))
    }

    fn read_sealed(
        &mut self,
        manifest: &Manifest,
        recovered: &mut dyn FnMut(Recovered<'_>),
    ) -> Result<BTreeMap<u32, Sealed>, OpenError> {
        let mut all = BTreeMap::new();
        for named in &manifest.sealed {
            let sealed = self.open_sealed(named)?;
            all.insert(named.segment, sealed);
        }
        let cursors = all.iter().map(|(number, sealed)| sealed.cursor(*number)).collect();
        let mut merge = Merge::new(cursors).map_err(|error| self.refuse(error))?;
        while let Some(row) = merge.next().map_err(|error| self.refuse(error))? {
            let sealed = all.get_mut(&row.place.segment).expect("a row of one of these segments");
            self.take(&row.meta, &row.key, row.place, &mut sealed.usage, recovered);
        }
        Ok(all)
    }

    fn open_sealed(&mut self, named: &Named) -> Result<Sealed, OpenError> {
        let (handle, len) = self.open_segment(named.segment, OpenMode::Read)?;
        let rot = |offset, what| OpenError::Rot(damage(&handle.path, offset, what));
        if len != u64::from(named.len) || named.len < SEGMENT_HEADER_BYTES + TRAILER_BYTES {
            return Err(rot(len, "the file has not the length that it was sealed with"));
        }
        let at = len - u64::from(TRAILER_BYTES);
        let mut bytes = [0; 64];
        let read = handle.file.read_exact_at(&mut bytes, at);
        read.map_err(|error| OpenError::Io { file: handle.path.as_ref().clone(), error })?;
        let trailer = Trailer::decode(&bytes, named.segment, self.identity)
            .filter(|trailer| trailer.crc == named.trailer_crc)
            .ok_or_else(|| rot(at, "the footer's end is damaged"))?;
        Ok(Sealed { handle, len: named.len, trailer, usage: Usage::default(), damaged: false })
    }

    fn scan_growing(
        &mut self,
        manifest: &Manifest,
        mode: OpenMode,
        recovered: &mut dyn FnMut(Recovered<'_>),
    ) -> Result<(Growing, GrowingTail), OpenError> {
        let number = manifest.growing;
        let (handle, len) = self.open_segment(number, mode)?;
        let path: PathBuf = handle.path.as_ref().clone();
        let rot = |offset: u32, what: &str| OpenError::Rot(damage(&path, offset.into(), what));
        let io_here = |error| OpenError::Io { file: path.clone(), error };
        let mut scan = Scan {
            file: Arc::clone(&handle.file),
            identity: self.identity,
            segment: number,
            offset: SEGMENT_HEADER_BYTES,
            end: u32::try_from(len).unwrap_or(u32::MAX),
        };
        let mut footer = FooterBuilder::default();
        let mut usage = Usage::default();
        let mut last = None;
        let mut body = Vec::new();
        let mut proven = 0;
        loop {
            let start = scan.offset;
            let Some(header) = scan.next(&mut body).map_err(io_here)? else { break };
            proven = proven.max(header.synced_to);
            if header.index <= self.applied.0 {
                return Err(rot(start, "a frame repeats an index"));
            }
            self.applied = (header.index, header.term);
            let mut count = 0;
            for record in records(&body) {
                count += 1;
                // The CRC was right, so these are the bytes that were written: by a program that knew more.
                let (meta, at, payload) =
                    record.ok_or_else(|| rot(start, "a frame holds an unknown kind of record"))?;
                let place = Place { segment: number, offset: scan.offset - header.len + at };
                let (key_at, key_len) = meta.key_range();
                let key = &payload[key_at as usize..][..key_len as usize];
                if let Some(revision) = meta.revision() {
                    if last.is_some_and(|last| revision <= last) {
                        return Err(rot(place.offset, "revisions do not ascend"));
                    }
                    last = Some(revision);
                }
                if let Kind::Compact { revision } = meta.kind {
                    self.compact_revision = self.compact_revision.max(revision);
                    continue;
                }
                footer.push(&meta, place.offset, key);
                self.take(&meta, key, place, &mut usage, recovered);
            }
            if count != header.records {
                return Err(rot(start, "a frame has not the number of records it says"));
            }
        }
        let found = scan.tail().map_err(io_here)?;
        let durable = manifest.growing_synced.max(found.synced_to);
        if durable > scan.offset {
            return Err(rot(scan.offset, "a frame that was durable is damaged"));
        }
        let end = scan.offset;
        let proven = proven.max(durable).min(end);
        let growing = Growing { number, handle, end, synced: end, footer, usage };
        Ok((growing, GrowingTail { lost_bytes: u64::from(found.end - end), proven }))
    }

    fn take(
        &mut self,
        meta: &Meta,
        key: &[u8],
        place: Place,
        usage: &mut Usage,
        recovered: &mut dyn FnMut(Recovered<'_>),
    ) {
        usage.add(meta.len);
        self.revision = self.revision.max(meta.revision().map_or(0, |revision| revision.main));
        match meta.recovered(key, place) {
            Some(record) => recovered(record),
            None => self.died.extend(self.rows.observe(meta, key, meta.location(place))),
        }
    }

    fn read_rows(&self) -> Result<Vec<(Row, Location)>, OpenError> {
        let view = View(Arc::new(self.handles.clone()));
        let mut rows = Vec::new();
        for (table, key, location) in self.rows.living() {
            let payload = view.read(&location).map_err(|error| self.refuse(error))?;
            if !payload.starts_with(key) {
                let path = &self.handles[&location.place.segment].path;
                let offset = location.place.offset.into();
                return Err(OpenError::Rot(damage(path, offset, "a row of another key")));
            }
            let key_len = key.len();
            let (key, value) = (Bytes::copy_from_slice(key), payload.slice(key_len..));
            rows.push((Row { table, key, value }, location));
        }
        Ok(rows)
    }

    fn refuse(&self, error: ReadError) -> OpenError {
        match error {
            ReadError::Rot(damage) => OpenError::Rot(damage),
            ReadError::Io(error) => OpenError::Io { file: self.dir.to_owned(), error },
            ReadError::Gone { segment } => {
                OpenError::SegmentMissing { file: self.dir.join(segment::name(segment)) }
            }
        }
    }
}
