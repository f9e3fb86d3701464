//! The Watch service: streams of watchers, fed by apply's batches or, where they lag, by history.
//!
//! ```text
//!   create ──▶ created ──▶ lagging ──history──▶ synced ──batch──▶ events
//!                             ▲  ╲                │
//!                             │   ╲ compacted     │ its stream is full, or a batch was lost
//!                             │    ▼              │
//!                             │  canceled         │
//!                             └───────────────────┘
//! ```
//!
//! A shard has one set of watchers ([`WatcherSet`] decides who is told what) and one flag by which apply knows
//! that it wants batches: raised before the revision is read from which the first watcher starts. A stream that
//! takes nothing makes its watchers lag; it costs its queue and no more, and nobody waits for it.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use mvcc::WatcherSet;
use mvcc::{
    Batch, Effort, Event, EventKind, Filter, History, KeyRange, Lagging, ReadError, Reader,
    Revision,
};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use proto::etcdserverpb::{
    WatchCreateRequest, WatchRequest, WatchResponse, watch_create_request::FilterType,
    watch_request::RequestUnion,
};
use state_machine::Header;

use crate::config::Config;
use crate::grpc::decode;
use crate::grpc::maintenance::response_header;
use crate::handle::{ReadOutcome, ReadTask, ShardEvent};
use crate::log;
use crate::serve::limits::WATCHERS_PER_SHARD;
use crate::serve::shard::{Listener, Shard};
use crate::serve::status::Status;
use crate::serve::stream::Outgoing;

/// The id of answers that are nobody's: rejected creates, and progress of a whole stream.
const NOBODY: i64 = -1;
/// Events of one slice of history; etcd reads a thousand revisions at a time.
const HISTORY_EVENTS: usize = 512;
/// Slices of history that are read in one turn; what is left waits for the next tick.
const SLICES_PER_TURN: usize = 64;

/// A watcher: its stream, and its id there.
type WatcherId = (u64, i64);

/// The values that events replaced, by the events' revisions.
pub type Previous = HashMap<Revision, Bytes>;

/// The watchers of one shard.
pub struct WatchHub {
    set: WatcherSet<WatcherId>,
    streams: HashMap<u64, StreamState>,
    next_stream: u64,
    /// Whether apply sends batches here.
    flag: bool,
    /// Reads under way on read threads, by token.
    reading: HashMap<u64, Reading>,
    progress_interval_ms: u64,
    fragment_bytes: usize,
    jitter: u64,
}

struct StreamState {
    out: Rc<RefCell<Outgoing>>,
    watchers: HashMap<i64, Watcher>,
    /// Ids of watchers that a compaction has ended. As in etcd they stay taken, and can be cancelled, until the
    /// client does so.
    compacted: HashSet<i64>,
    next_id: i64,
    /// When the next progress notices are due.
    progress_ms: u64,
}

impl StreamState {
    /// Whether a new watcher may not have this id.
    fn is_taken(&self, id: i64) -> bool {
        self.watchers.contains_key(&id) || self.compacted.contains(&id)
    }
}

struct Watcher {
    prev_kv: bool,
    fragment: bool,
    /// Wants notices; true inside if no event was sent since the last one was due.
    progress: Option<bool>,
    /// A read thread is busy for it.
    reading: bool,
}

/// What a read thread does for a watcher.
enum Reading {
    /// The next slice of its history.
    History(WatcherId),
    /// The former values of events that it is to be told of.
    Former { id: WatcherId, events: Vec<Event>, revision: i64 },
}

/// What a read thread brings.
pub enum Brought {
    /// A slice of history, with former values if they are wanted.
    History(Result<(History, Previous), ReadError>),
    /// Former values alone.
    Former(Result<Previous, ReadError>),
}

impl WatchHub {
    /// A hub without watchers.
    pub fn new(config: &Config) -> WatchHub {
        WatchHub {
            set: WatcherSet::new(0),
            streams: HashMap::new(),
            next_stream: 0,
            flag: false,
            reading: HashMap::new(),
            progress_interval_ms: config.watch_progress_notify_interval.as_millis() as u64,
            fragment_bytes: config.receive_bytes_max(),
            jitter: 0,
        }
    }

    /// The interval with up to a tenth on top, so that streams that were opened together do not report together.
    fn next_progress(&mut self, now_ms: u64) -> u64 {
        // A multiplicative step through all residues; nothing here needs to be unpredictable.
        self.jitter = self
            .jitter
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        now_ms
            + self.progress_interval_ms
            + (self.jitter >> 33) % (self.progress_interval_ms / 10).max(1)
    }

    /// Events that have become visible.
    pub fn on_batches(shard: &Rc<Shard>, batches: &[Arc<Batch>], exchanged: bool) {
        let mut hub = shard.watches.borrow_mut();
        let hub = &mut *hub;
        if !hub.flag {
            return;
        }
        if exchanged {
            hub.set.on_gap();
        }
        let reader = shard.view.state.reader();
        for batch in batches {
            let header = Header { revision: batch.last, ..shard.header() };
            let mut later = Vec::new();
            let (set, streams, fragment_bytes) =
                (&mut hub.set, &mut hub.streams, hub.fragment_bytes);
            set.on_batch(batch, &mut |id, events| {
                let Some((out, watcher)) = watcher(streams, id) else { return };
                let previous = match watcher.prev_kv {
                    false => Ok(Previous::new()),
                    true => previous_of(reader, events.iter().copied(), Effort::Now),
                };
                match previous {
                    Ok(previous) => {
                        let out = &mut *out.borrow_mut();
                        send(shard, out, &header, id.1, watcher, events, &previous, fragment_bytes);
                    }
                    // The former value must be read from disk: a read thread does, and the watcher lags meanwhile.
                    Err(_) => {
                        later.push((*id, events.iter().map(|event| (*event).clone()).collect()))
                    }
                }
            });
            for (id, events) in later {
                hub.set.lag(&id);
                hub.read_former(shard, id, events, batch.last);
            }
            hub.lag_where_full();
            if batch.compact_revision > 0 {
                hub.cancel_compacted(shard, batch.compact_revision);
            }
        }
        hub.catch_up(shard);
    }

    /// Watchers whose stream is full go on from history when it has room.
    fn lag_where_full(&mut self) {
        for (key, stream) in &self.streams {
            if stream.out.borrow().is_full() {
                for id in stream.watchers.keys() {
                    self.set.lag(&(*key, *id));
                }
            }
        }
    }

    /// Ends the watchers that need what is compacted: `canceled`, the mark, and nothing else, as etcd says it.
    fn cancel_compacted(&mut self, shard: &Rc<Shard>, mark: i64) {
        for (key, id) in self.set.compacted(mark) {
            let Some(stream) = self.streams.get_mut(&key) else { continue };
            if stream.watchers.remove(&id).is_none() {
                continue;
            }
            stream.compacted.insert(id);
            shard.node.metrics.watchers.leave(1);
            let response = WatchResponse {
                header: Some(response_header(&Header { revision: 0, ..shard.header() })),
                watch_id: id,
                canceled: true,
                compact_revision: mark,
                ..WatchResponse::default()
            };
            control(shard, &stream.out, &response);
        }
        self.lower_flag(shard);
    }

    /// Reads history for those that lag and whose stream has room.
    fn catch_up(&mut self, shard: &Rc<Shard>) {
        for _ in 0..SLICES_PER_TURN {
            let next = self.set.lagging().find(|lagging| {
                self.streams.get(&lagging.id.0).is_some_and(|stream| {
                    !stream.out.borrow().is_full()
                        && stream
                            .watchers
                            .get(&lagging.id.1)
                            .is_some_and(|watcher| !watcher.reading)
                })
            });
            let Some(lagging) = next else { return };
            self.catch_up_one(shard, lagging);
        }
    }

    fn catch_up_one(&mut self, shard: &Rc<Shard>, lagging: Lagging<WatcherId>) {
        let id = lagging.id;
        let Some((_, watcher)) = watcher(&mut self.streams, &id) else { return };
        let prev_kv = watcher.prev_kv;
        match read_history(shard.view.state.reader(), &lagging, prev_kv, Effort::Now) {
            Err(ReadError::Cold | ReadError::Busy) => {
                watcher.reading = true;
                let token = shard.token();
                self.reading.insert(token, Reading::History(id));
                bring(shard, token, move |reader| {
                    Brought::History(read_history(reader, &lagging, prev_kv, Effort::Disk))
                });
            }
            brought => self.on_history(shard, id, brought),
        }
    }

    fn read_former(&mut self, shard: &Rc<Shard>, id: WatcherId, events: Vec<Event>, revision: i64) {
        if let Some((_, watcher)) = watcher(&mut self.streams, &id) {
            watcher.reading = true;
        }
        let token = shard.token();
        let asked = events.clone();
        self.reading.insert(token, Reading::Former { id, events, revision });
        bring(shard, token, move |reader| {
            Brought::Former(previous_of(reader, asked.iter(), Effort::Disk))
        });
    }

    /// A read thread has brought what was asked for.
    pub fn on_brought(shard: &Rc<Shard>, token: u64, brought: Brought) {
        let mut hub = shard.watches.borrow_mut();
        let Some(reading) = hub.reading.remove(&token) else { return };
        let id = match &reading {
            Reading::History(id) | Reading::Former { id, .. } => *id,
        };
        match watcher(&mut hub.streams, &id) {
            Some((_, watcher)) => watcher.reading = false,
            // It was cancelled meanwhile.
            None => return,
        }
        match (reading, brought) {
            (Reading::History(id), Brought::History(history)) => hub.on_history(shard, id, history),
            (Reading::Former { id, events, revision }, Brought::Former(Ok(previous))) => {
                let fragment_bytes = hub.fragment_bytes;
                if let Some((out, watcher)) = watcher(&mut hub.streams, &id) {
                    let header = Header { revision, ..shard.header() };
                    let events: Vec<&Event> = events.iter().collect();
                    let out = &mut *out.borrow_mut();
                    send(shard, out, &header, id.1, watcher, &events, &previous, fragment_bytes);
                }
            }
            (_, Brought::Former(Err(error)) | Brought::History(Err(error))) => {
                hub.give_up(id, &error)
            }
            _ => unreachable!("a read brings what was asked for"),
        }
        hub.catch_up(shard);
    }

    fn on_history(
        &mut self,
        shard: &Rc<Shard>,
        id: WatcherId,
        history: Result<(History, Previous), ReadError>,
    ) {
        match history {
            Ok((history, previous)) => {
                let events = self.set.caught_up(&id, &history);
                let fragment_bytes = self.fragment_bytes;
                let Some((out, watcher)) = watcher(&mut self.streams, &id) else { return };
                if !events.is_empty() {
                    let last = events.last().map_or(0, |event| event.revision.main);
                    let header = shard.header();
                    let header = Header { revision: header.revision.max(last), ..header };
                    let out = &mut *out.borrow_mut();
                    send(shard, out, &header, id.1, watcher, &events, &previous, fragment_bytes);
                }
            }
            Err(ReadError::Compacted) => {
                self.cancel_compacted(shard, shard.view.state.reader().compact_revision());
            }
            // The keyspace was exchanged under the read: it is read again, from the same place.
            Err(ReadError::Revoked) => {}
            Err(error) => self.give_up(id, &error),
        }
    }

    /// A value that cannot be read ends the stream: a gap must not look like an answer.
    fn give_up(&mut self, id: WatcherId, error: &ReadError) {
        log!(Error, "a watcher's history could not be read", "error" => error.to_string());
        if let Some(stream) = self.streams.get(&id.0) {
            stream.out.borrow_mut().finish(Status::new(
                crate::serve::status::Code::Unavailable,
                format!("etcdserver: the watcher's history could not be read: {error}"),
            ));
        }
    }

    /// Time has passed: progress notices, and history that was put off.
    pub fn on_tick(shard: &Rc<Shard>, now_ms: u64) {
        let mut hub = shard.watches.borrow_mut();
        let hub = &mut *hub;
        if !hub.flag {
            return;
        }
        let due: Vec<u64> = hub
            .streams
            .iter()
            .filter(|(_, s)| s.progress_ms <= now_ms)
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            let next = hub.next_progress(now_ms);
            let Some(stream) = hub.streams.get_mut(&key) else { continue };
            stream.progress_ms = next;
            for (id, watcher) in &mut stream.watchers {
                let Some(idle) = &mut watcher.progress else { continue };
                if *idle && let Some(revision) = hub.set.progress(&(key, *id)) {
                    control(shard, &stream.out, &progress(shard, *id, revision));
                }
                *idle = true;
            }
        }
        hub.catch_up(shard);
    }

    /// The first watcher raises the shard's flag: from the revision read then on, every batch comes.
    fn raise_flag(&mut self, shard: &Rc<Shard>) {
        if !self.flag {
            self.flag = true;
            shard.listen(Listener::Watchers, true);
            self.set.begin(shard.view.state.reader().revision());
        }
    }

    fn lower_flag(&mut self, shard: &Rc<Shard>) {
        if self.flag && self.set.is_empty() {
            self.flag = false;
            shard.listen(Listener::Watchers, false);
        }
    }

    fn create(&mut self, shard: &Rc<Shard>, key: u64, request: WatchCreateRequest) {
        let header = shard.header();
        let Some(stream) = self.streams.get_mut(&key) else { return };
        let rejected = |reason: &str| WatchResponse {
            header: Some(response_header(&header)),
            watch_id: NOBODY,
            created: true,
            canceled: true,
            cancel_reason: reason.to_string(),
            ..WatchResponse::default()
        };
        let start_key = match request.key.is_empty() {
            true => Bytes::from_static(&[0]),
            false => request.key,
        };
        if request.start_revision < 0 {
            let reason = state_machine::Error::Compacted.text();
            return control(shard, &stream.out, &rejected(reason));
        }
        let range = KeyRange::parse(start_key, request.range_end);
        if range.is_empty() {
            return control(shard, &stream.out, &rejected("mvcc: watcher range is empty"));
        }
        if self.set.len() >= WATCHERS_PER_SHARD {
            return control(
                shard,
                &stream.out,
                &rejected(state_machine::Error::TooManyRequests.text()),
            );
        }
        let id = match request.watch_id {
            0 => {
                while stream.is_taken(stream.next_id) {
                    stream.next_id += 1;
                }
                stream.next_id += 1;
                stream.next_id - 1
            }
            taken if stream.is_taken(taken) => {
                let reason = "mvcc: duplicate watch ID provided on the WatchStream";
                return control(shard, &stream.out, &rejected(reason));
            }
            free => free,
        };
        let has = |filter: FilterType| request.filters.contains(&(filter as i32));
        let filter =
            Filter { no_put: has(FilterType::Noput), no_delete: has(FilterType::Nodelete) };
        stream.watchers.insert(
            id,
            Watcher {
                prev_kv: request.prev_kv,
                fragment: request.fragment,
                progress: request.progress_notify.then_some(true),
                reading: false,
            },
        );
        shard.node.metrics.watchers.enter();
        self.raise_flag(shard);
        // After the flag: what is published from here on comes in batches.
        let revision = shard.view.state.reader().revision();
        let from = match request.start_revision {
            0 => revision + 1,
            from => from,
        };
        let fresh = self.set.insert((key, id), range.clone(), from, filter);
        debug_assert!(fresh, "the stream knows its own ids");
        let created = WatchResponse {
            header: Some(response_header(&Header { revision, ..header })),
            watch_id: id,
            created: true,
            ..WatchResponse::default()
        };
        if let Some(stream) = self.streams.get(&key) {
            control(shard, &stream.out, &created);
        }
        self.catch_up_one(shard, Lagging { id: (key, id), range, next: from });
        self.catch_up(shard);
    }

    fn cancel(&mut self, shard: &Rc<Shard>, key: u64, id: i64) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        if stream.watchers.remove(&id).is_some() {
            shard.node.metrics.watchers.leave(1);
            self.set.remove(&(key, id));
        } else if !stream.compacted.remove(&id) {
            return;
        }
        let response = WatchResponse {
            header: Some(response_header(&shard.header())),
            watch_id: id,
            canceled: true,
            ..WatchResponse::default()
        };
        control(shard, &stream.out, &response);
        self.lower_flag(shard);
    }

    /// One notice for the whole stream, if all its watchers have been told everything; else none.
    fn progress_of_all(&mut self, shard: &Rc<Shard>, key: u64) {
        let Some(stream) = self.streams.get(&key) else { return };
        let told: Option<Vec<i64>> =
            stream.watchers.keys().map(|id| self.set.progress(&(key, *id))).collect();
        if let Some(revision) = told.and_then(|told| told.into_iter().min()) {
            control(shard, &stream.out, &progress(shard, NOBODY, revision));
        }
    }
}

/// One Watch call, as its connection holds it.
pub struct Stream {
    key: u64,
}

impl Stream {
    /// Opens a stream without watchers.
    pub fn open(shard: &Rc<Shard>, out: &Rc<RefCell<Outgoing>>) -> Stream {
        let now = shard.now_ms();
        let mut hub = shard.watches.borrow_mut();
        let key = hub.next_stream;
        hub.next_stream += 1;
        let progress_ms = hub.next_progress(now);
        let state = StreamState {
            out: out.clone(),
            watchers: HashMap::new(),
            compacted: HashSet::new(),
            next_id: 0,
            progress_ms,
        };
        hub.streams.insert(key, state);
        shard.node.metrics.watch_streams.enter();
        Stream { key }
    }

    /// The client has said something.
    pub fn on_message(&mut self, shard: &Rc<Shard>, message: Bytes) -> Result<(), Status> {
        let request: WatchRequest = decode(message)?;
        let mut hub = shard.watches.borrow_mut();
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => hub.create(shard, self.key, create),
            Some(RequestUnion::CancelRequest(cancel)) => {
                hub.cancel(shard, self.key, cancel.watch_id)
            }
            Some(RequestUnion::ProgressRequest(_)) => hub.progress_of_all(shard, self.key),
            // etcd goes on after a request that names nothing.
            None => {}
        }
        Ok(())
    }

    /// There is room: those that lag go on.
    pub fn on_room(&mut self, shard: &Rc<Shard>) {
        let mut hub = shard.watches.borrow_mut();
        if hub.flag {
            hub.catch_up(shard);
        }
    }

    /// The stream is over, and its watchers with it.
    pub fn close(&mut self, shard: &Rc<Shard>) {
        let mut hub = shard.watches.borrow_mut();
        let Some(stream) = hub.streams.remove(&self.key) else { return };
        for id in stream.watchers.keys() {
            hub.set.remove(&(self.key, *id));
        }
        shard.node.metrics.watchers.leave(stream.watchers.len() as u64);
        shard.node.metrics.watch_streams.leave(1);
        hub.lower_flag(shard);
    }
}

fn watcher<'s>(
    streams: &'s mut HashMap<u64, StreamState>,
    id: &WatcherId,
) -> Option<(&'s Rc<RefCell<Outgoing>>, &'s mut Watcher)> {
    let stream = streams.get_mut(&id.0)?;
    Some((&stream.out, stream.watchers.get_mut(&id.1)?))
}

/// Has a read thread do something for a watcher.
fn bring(shard: &Rc<Shard>, token: u64, read: impl FnOnce(&Reader) -> Brought + Send + 'static) {
    let (node, number) = (shard.node.clone(), shard.number);
    shard.node.reads.put(ReadTask::Run(Box::new(move || {
        let outcome = ReadOutcome::Watch(read(node.view.state.reader()));
        node.tell(number, ShardEvent::Read { token, outcome });
    })));
}

fn read_history(
    reader: &Reader,
    lagging: &Lagging<WatcherId>,
    prev_kv: bool,
    effort: Effort,
) -> Result<(History, Previous), ReadError> {
    let history = reader.history(&lagging.range, lagging.next, HISTORY_EVENTS, effort)?;
    let previous = match prev_kv {
        true => previous_of(reader, history.events.iter(), effort)?,
        false => Previous::new(),
    };
    Ok((history, previous))
}

/// What each event replaced. What was compacted meanwhile is left out, as in etcd.
fn previous_of<'e>(
    reader: &Reader,
    events: impl Iterator<Item = &'e Event>,
    effort: Effort,
) -> Result<Previous, ReadError> {
    let mut previous = Previous::new();
    for event in events.filter(|event| !event.is_create) {
        match reader.previous(event, effort) {
            Ok(Some(bytes)) => drop(previous.insert(event.revision, bytes)),
            Ok(None) | Err(ReadError::Compacted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(previous)
}

fn progress(shard: &Rc<Shard>, id: i64, revision: i64) -> WatchResponse {
    WatchResponse {
        header: Some(response_header(&Header { revision, ..shard.header() })),
        watch_id: id,
        ..WatchResponse::default()
    }
}

/// Sends an answer without events.
fn control(shard: &Rc<Shard>, out: &Rc<RefCell<Outgoing>>, response: &WatchResponse) {
    out.borrow_mut().push(shard.message(|bytes| response.encode_raw(bytes)));
}

/// Sends events to a watcher, in one answer or, if it asked for that, in pieces below the limit.
#[allow(clippy::too_many_arguments)]
fn send(
    shard: &Rc<Shard>,
    out: &mut Outgoing,
    header: &Header,
    id: i64,
    watcher: &mut Watcher,
    events: &[&Event],
    previous: &Previous,
    fragment_bytes: usize,
) {
    shard.node.metrics.events.add(events.len() as u64);
    if let Some(idle) = &mut watcher.progress {
        *idle = false;
    }
    let pieces = match watcher.fragment {
        true => pieces(events, previous, fragment_bytes),
        false => vec![events.len()],
    };
    let mut rest = events;
    for piece in pieces {
        let (now, later) = rest.split_at(piece);
        rest = later;
        let more = !later.is_empty();
        out.push(shard.message(|bytes| write_events(header, id, more, now, previous, bytes)));
    }
}

/// How many events go into each piece: as many as stay below the limit, but at least one.
fn pieces(events: &[&Event], previous: &Previous, limit: usize) -> Vec<usize> {
    /// Header, ids and flags of an answer, at most.
    const ENVELOPE: usize = 64;
    let mut pieces = Vec::new();
    let (mut count, mut bytes) = (0, ENVELOPE);
    for event in events {
        let length = framed(event_length(event, previous));
        if count > 0 && bytes + length >= limit {
            pieces.push(count);
            (count, bytes) = (0, ENVELOPE);
        }
        count += 1;
        bytes += length;
    }
    pieces.push(count);
    pieces
}

/// A field of this length, with its one-byte key and its length.
fn framed(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

fn event_length(event: &Event, previous: &Previous) -> usize {
    let kind = if event.kind == EventKind::Delete { 2 } else { 0 };
    kind + framed(event.kv.len())
        + previous.get(&event.revision).map_or(0, |bytes| framed(bytes.len()))
}

/// Writes a `WatchResponse` with events; their `KeyValue`s are pasted.
fn write_events(
    header: &Header,
    id: i64,
    fragment: bool,
    events: &[&Event],
    previous: &Previous,
    out: &mut BytesMut,
) {
    let envelope = WatchResponse {
        header: Some(response_header(header)),
        watch_id: id,
        fragment,
        ..WatchResponse::default()
    };
    envelope.encode_raw(out);
    let field = |number: u32, bytes: &Bytes, out: &mut BytesMut| {
        encode_key(number, WireType::LengthDelimited, out);
        encode_varint(bytes.len() as u64, out);
        out.put_slice(bytes);
    };
    out.reserve(events.iter().map(|event| framed(event_length(event, previous))).sum());
    for event in events {
        encode_key(11, WireType::LengthDelimited, out);
        encode_varint(event_length(event, previous) as u64, out);
        if event.kind == EventKind::Delete {
            encode_key(1, WireType::Varint, out);
            encode_varint(1, out);
        }
        field(2, &event.kv, out);
        if let Some(bytes) = previous.get(&event.revision) {
            field(3, bytes, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(main: i64, sub: i64, kind: EventKind, value: usize) -> Event {
        let kv = proto::mvccpb::KeyValue {
            key: "k".into(),
            mod_revision: main,
            value: vec![b'v'; value].into(),
            ..Default::default()
        };
        Event {
            kind,
            revision: Revision { main, sub },
            key: "k".into(),
            kv: kv.encode_to_vec().into(),
            is_create: false,
            previous: None,
        }
    }

    #[test]
    fn events_are_written_as_the_generated_message_is() {
        let (put, delete) = (event(5, 0, EventKind::Put, 3), event(5, 1, EventKind::Delete, 0));
        let former =
            proto::mvccpb::KeyValue { key: "k".into(), mod_revision: 4, ..Default::default() };
        let previous = Previous::from([(delete.revision, Bytes::from(former.encode_to_vec()))]);
        let header = Header { cluster_id: 1, member_id: 2, revision: 5, raft_term: 3 };
        let mut out = BytesMut::new();
        write_events(&header, 7, true, &[&put, &delete], &previous, &mut out);
        let response = WatchResponse::decode(out.freeze()).unwrap();
        assert_eq!((response.watch_id, response.fragment), (7, true));
        assert_eq!(response.header.unwrap().revision, 5);
        assert_eq!(response.events.len(), 2);
        assert_eq!(response.events[0].r#type, 0);
        assert_eq!(response.events[0].kv.as_ref().unwrap().value, "vvv");
        assert_eq!(response.events[0].prev_kv, None);
        assert_eq!(response.events[1].r#type, 1);
        assert_eq!(response.events[1].prev_kv, Some(former));
    }

    #[test]
    fn a_large_answer_is_cut_into_pieces_of_at_least_one_event() {
        let events: Vec<Event> = (1..=4).map(|main| event(main, 0, EventKind::Put, 100)).collect();
        let events: Vec<&Event> = events.iter().collect();
        let none = Previous::new();
        assert_eq!(pieces(&events, &none, 10_000), [4]);
        assert_eq!(pieces(&events, &none, 300), [2, 2]);
        assert_eq!(pieces(&events, &none, 1), [1, 1, 1, 1]);
    }
}
