//! The Watch service: streams of watchers, fed by apply's batches or, where they lag, by history.
//!
//! ```text
//!   create ──▶ created ──▶ lagging ──history──▶ synced ──batch──▶ events
//!                             ▲  ╲                │
//!                             │   ╲ compacted     │ it does not take all of a batch, or a batch was lost
//!                             │    ▼              │
//!                             │  canceled         │
//!                             └───────────────────┘
//! ```
//!
//! A shard has one set of watchers ([`WatcherSet`] decides who is told what) and one flag by which apply knows
//! that it wants batches: raised before the revision is read from which the first watcher starts.
//!
//! **A slow stream costs its queue and no more**, and nobody waits for it. While it is full, a watcher for which
//! there are events lags, and is put aside with its stream (`StreamState::aside`); it is looked at again when there
//! is room. So a batch costs what its events cost, however many watchers lag or stand on full streams.
//!
//! **Answers are bounded**: what a watcher is told at once ends with the revision that reaches `ANSWER_BYTES`.
//! A single revision is never split, unless the watcher asked for fragments, for a client takes it for whole.
//!
//! **What is not in memory** is brought by a read thread: history that lies far back, and former values (`prev_kv`)
//! that are cold or many. A watcher waits for one such read at most, and knows its token: what comes with another is
//! for a watcher that had its id before. A batch's former values are read once for all its watchers.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use mvcc::WatcherSet;
use mvcc::{
    Batch, Effort, Event, EventKind, Filter, History, KeyRange, Lagging, Portion, ReadError,
    Reader, Revision,
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
/// Bytes with which the events of one answer end, and with them a portion of history from disk.
const ANSWER_BYTES: usize = 1 << 20;
/// Events of a portion of history from disk.
const HISTORY_EVENTS: usize = 1024;
/// Bytes of a portion of history from memory, and of former values that a shard reads for one batch; what is more
/// leaves the shard.
const NOW_BYTES: usize = 64 << 10;
/// Portions of history that are told in one turn; then others have theirs.
const PORTIONS_PER_TURN: usize = 16;
/// Reads under way on read threads for one shard. They may bring so many answers for streams that have filled up
/// meanwhile; more watchers wait.
const READS_MAX: usize = 16;

/// A watcher: its stream, and its id there.
type WatcherId = (u64, i64);

/// The values that events replaced, by the events' revisions; `None` where there was nothing, or it is compacted.
pub type Previous = HashMap<Revision, Option<Bytes>>;

/// The watchers of one shard.
pub struct WatchHub {
    set: WatcherSet<WatcherId>,
    streams: HashMap<u64, StreamState>,
    next_stream: u64,
    /// Whether apply sends batches here.
    flag: bool,
    /// Reads under way on read threads, by token, and for whom.
    reading: HashMap<u64, Vec<WatcherId>>,
    /// Watchers that need a read, and wait for one of [`READS_MAX`] places.
    cold: VecDeque<WatcherId>,
    progress_interval_ms: u64,
    fragment_bytes: usize,
    jitter: u64,
}

struct StreamState {
    out: Rc<RefCell<Outgoing>>,
    watchers: HashMap<i64, Watcher>,
    /// Lagging watchers that go on when the stream has room. Each stands here once, for the set hands it out once; as
    /// long as it is full, the stream's requests are not read, so their number is bounded.
    aside: VecDeque<i64>,
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
    /// The token of the read that is under way for it.
    reading: Option<u64>,
}

/// What a read thread brings: a stretch of history, with former values if they are wanted.
pub type Brought = Result<(History, Previous), ReadError>;

impl WatchHub {
    /// A hub without watchers.
    pub fn new(config: &Config) -> WatchHub {
        WatchHub {
            set: WatcherSet::new(0),
            streams: HashMap::new(),
            next_stream: 0,
            flag: false,
            reading: HashMap::new(),
            cold: VecDeque::new(),
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
        for batch in batches {
            hub.on_batch(shard, batch);
        }
        hub.catch_up(shard);
    }

    fn on_batch(&mut self, shard: &Rc<Shard>, batch: &Arc<Batch>) {
        let header = Header { revision: batch.last, ..shard.header() };
        let mut former = FormerValues::default();
        // Those whose former values are not at hand, and of which events they need them.
        let mut waiting: Vec<WatcherId> = Vec::new();
        let mut wanted: HashSet<Revision> = HashSet::new();
        let (set, streams, fragment_bytes) =
            (&mut self.set, &mut self.streams, self.fragment_bytes);
        let reader = shard.view.state.reader();
        set.on_batch(batch, &mut |id, events| {
            let (out, watcher) = watcher(streams, id)?;
            let first = events[0].revision.main;
            let out = &mut *out.borrow_mut();
            if out.is_full() {
                return Some(first);
            }
            if watcher.prev_kv {
                let read = |event: &Event| reader.previous(event, Effort::Now);
                if former.read_now(events.iter().copied(), read).is_err() {
                    waiting.push(*id);
                    wanted.extend(events.iter().map(|event| event.revision));
                    return Some(first);
                }
            }
            let former = if watcher.prev_kv { &former.known } else { &Previous::new() };
            let (now, next) = fitting(events, former);
            send(shard, out, &header, id.1, watcher, now, former, fragment_bytes);
            next
        });
        // Where too much is under way they lag like others, and their history is read when it is their turn.
        if !waiting.is_empty() && self.reading.len() < READS_MAX {
            let batch = batch.clone();
            self.bring(shard, waiting, move |reader| read_former(reader, &batch, &wanted));
        }
    }

    /// Tells those that lag of the past, those first that wait longest, until others must have their turn.
    fn catch_up(&mut self, shard: &Rc<Shard>) {
        for _ in 0..PORTIONS_PER_TURN {
            let Some(lagging) = self.set.take_next() else { return };
            self.go_on(shard, lagging);
        }
        // The stream's connection calls `on_room` in its next turn.
        if let Some((key, _)) = self.set.first()
            && let Some(stream) = self.streams.get(key)
        {
            stream.out.borrow().wake();
        }
    }

    /// The stream has room: those go on that were put aside.
    fn take_up(&mut self, shard: &Rc<Shard>, key: u64) {
        for _ in 0..PORTIONS_PER_TURN {
            let Some(stream) = self.streams.get_mut(&key) else { return };
            if stream.out.borrow().is_full() {
                return;
            }
            let Some(id) = stream.aside.pop_front() else { return };
            if let Some(lagging) = self.set.take(&(key, id)) {
                self.go_on(shard, lagging);
            }
        }
        if let Some(stream) = self.streams.get(&key) {
            stream.out.borrow().wake();
        }
    }

    /// A watcher that was taken out of the queue is told the next portion, or comes back when it can be.
    fn go_on(&mut self, shard: &Rc<Shard>, lagging: Lagging<WatcherId>) {
        let id = lagging.id;
        let Some(stream) = self.streams.get_mut(&id.0) else { return };
        let Some(watcher) = stream.watchers.get(&id.1) else { return };
        if watcher.reading.is_some() {
            return;
        }
        if stream.out.borrow().is_full() {
            return stream.aside.push_back(id.1);
        }
        let prev_kv = watcher.prev_kv;
        match read_history(shard.view.state.reader(), &lagging, prev_kv, Effort::Now) {
            Err(ReadError::Cold | ReadError::Busy) if self.reading.len() >= READS_MAX => {
                // Those that were cancelled are swept out whenever they may be the half.
                if self.cold.len() > 2 * self.set.len() {
                    self.cold.retain(|id| self.set.state(id).is_some());
                }
                self.cold.push_back(id);
            }
            Err(ReadError::Cold | ReadError::Busy) => {
                self.bring(shard, vec![id], move |reader| {
                    read_history(reader, &lagging, prev_kv, Effort::Disk)
                });
            }
            brought => self.on_history(shard, &id, &brought),
        }
    }

    /// Has a read thread read something for these watchers.
    fn bring(
        &mut self,
        shard: &Rc<Shard>,
        ids: Vec<WatcherId>,
        read: impl FnOnce(&Reader) -> Brought + Send + 'static,
    ) {
        let token = shard.token();
        for id in &ids {
            if let Some((_, watcher)) = watcher(&mut self.streams, id) {
                watcher.reading = Some(token);
            }
        }
        self.reading.insert(token, ids);
        let (node, number) = (shard.node.clone(), shard.number);
        shard.node.reads.put(ReadTask::Run(Box::new(move || {
            let outcome = ReadOutcome::Watch(read(node.view.state.reader()));
            node.tell(number, ShardEvent::Read { token, outcome });
        })));
    }

    /// A read thread has brought what was asked for.
    pub fn on_brought(shard: &Rc<Shard>, token: u64, brought: Brought) {
        let mut hub = shard.watches.borrow_mut();
        let Some(ids) = hub.reading.remove(&token) else { return };
        let is_shared = ids.len() > 1;
        for id in ids {
            let out = match watcher(&mut hub.streams, &id) {
                Some((out, watcher)) if watcher.reading == Some(token) => {
                    watcher.reading = None;
                    out
                }
                // Cancelled meanwhile; if there is a watcher of that id, it is another one.
                _ => continue,
            };
            // What one watcher waited for is told in any case, for it is bounded; not so what many did.
            match is_shared && out.borrow().is_full() {
                true => hub.set.requeue(&id),
                false => hub.on_history(shard, &id, &brought),
            }
        }
        while hub.reading.len() < READS_MAX
            && let Some(id) = hub.cold.pop_front()
        {
            if let Some(lagging) = hub.set.take(&id) {
                hub.go_on(shard, lagging);
            }
        }
        hub.catch_up(shard);
    }

    fn on_history(&mut self, shard: &Rc<Shard>, id: &WatcherId, brought: &Brought) {
        match brought {
            Ok((history, previous)) => {
                let events = self.set.caught_up(id, history);
                let fragment_bytes = self.fragment_bytes;
                let Some((out, watcher)) = watcher(&mut self.streams, id) else { return };
                if !events.is_empty() {
                    let last = events.last().map_or(0, |event| event.revision.main);
                    let header = shard.header();
                    let header = Header { revision: header.revision.max(last), ..header };
                    let out = &mut *out.borrow_mut();
                    send(shard, out, &header, id.1, watcher, &events, previous, fragment_bytes);
                }
            }
            Err(ReadError::Compacted) => self.cancel_compacted(shard, id),
            // The keyspace was exchanged under the read: it is read again, from the same place.
            Err(ReadError::Revoked) => self.set.requeue(id),
            Err(error) => self.give_up(id, error),
        }
    }

    /// Ends a watcher that needs what is compacted: `canceled`, the mark, and nothing else, as etcd says it.
    fn cancel_compacted(&mut self, shard: &Rc<Shard>, id: &WatcherId) {
        let Some(stream) = self.streams.get_mut(&id.0) else { return };
        if stream.watchers.remove(&id.1).is_none() {
            return;
        }
        stream.compacted.insert(id.1);
        self.set.remove(id);
        shard.node.metrics.watchers.leave(1);
        let response = WatchResponse {
            header: Some(response_header(&Header { revision: 0, ..shard.header() })),
            watch_id: id.1,
            canceled: true,
            compact_revision: shard.view.state.reader().compact_revision(),
            ..WatchResponse::default()
        };
        control(shard, &stream.out, &response);
        self.lower_flag(shard);
    }

    /// A value that cannot be read ends the stream: a gap must not look like an answer.
    fn give_up(&mut self, id: &WatcherId, error: &ReadError) {
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
                reading: None,
            },
        );
        shard.node.metrics.watchers.enter();
        self.raise_flag(shard);
        // After the flag: what is published from here on comes in batches.
        let revision = shard.view.state.reader().revision();
        let from = request.start_revision;
        let fresh = self.set.insert((key, id), range, from, revision, filter);
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
            aside: VecDeque::new(),
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
            hub.take_up(shard, self.key);
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

/// The next portion of a watcher's history, with former values if it wants them.
fn read_history(
    reader: &Reader,
    lagging: &Lagging<WatcherId>,
    prev_kv: bool,
    effort: Effort,
) -> Brought {
    let bytes_max = if effort == Effort::Disk { ANSWER_BYTES } else { NOW_BYTES };
    let portion = Portion { events_max: HISTORY_EVENTS, bytes_max };
    let history = reader.history(&lagging.range, lagging.next, portion, effort)?;
    match prev_kv {
        true => with_former(reader, history, |_| true, effort),
        false => Ok((history, Previous::new())),
    }
}

/// A batch again, with the former values of the events that are wanted.
fn read_former(reader: &Reader, batch: &Batch, wanted: &HashSet<Revision>) -> Brought {
    let history = History { events: batch.events.clone(), next: batch.last + 1 };
    with_former(reader, history, |event| wanted.contains(&event.revision), Effort::Disk)
}

/// Reads the former values of the events of `history` that are wanted. What is told ends with the revision with which
/// they reach the bytes of an answer, or before the first that takes more effort.
fn with_former(
    reader: &Reader,
    mut history: History,
    is_wanted: impl Fn(&Event) -> bool,
    effort: Effort,
) -> Brought {
    let bytes_max = if effort == Effort::Disk { ANSWER_BYTES } else { NOW_BYTES };
    let mut former = FormerValues::default();
    let mut told = 0;
    for events in history.events.chunk_by(|a, b| a.revision.main == b.revision.main) {
        let read = match former.bytes < bytes_max {
            true => former.read(events.iter().filter(|event| is_wanted(event)), |event| {
                reader.previous(event, effort)
            }),
            false => Err(ReadError::Cold),
        };
        match read {
            Ok(()) => told += events.len(),
            Err(ReadError::Cold) if told > 0 => {
                history.next = events[0].revision.main;
                break;
            }
            Err(error) => return Err(error),
        }
    }
    history.events.truncate(told);
    Ok((history, former.known))
}

/// What events replaced: each value is read once, whoever wants it.
#[derive(Default)]
struct FormerValues {
    known: Previous,
    /// Bytes of the known values.
    bytes: usize,
    /// Bytes of those that were not in memory.
    read_bytes: usize,
}

impl FormerValues {
    /// Adds what these events replaced, as far as it is not known.
    fn read<'e>(
        &mut self,
        events: impl Iterator<Item = &'e Event>,
        read: impl Fn(&Event) -> Result<Option<Bytes>, ReadError>,
    ) -> Result<(), ReadError> {
        for event in events.filter(|event| !event.is_create) {
            let Some(previous) = &event.previous else { continue };
            if self.known.contains_key(&event.revision) {
                continue;
            }
            let value = read(event)?;
            let bytes = value.as_ref().map_or(0, Bytes::len);
            self.bytes += bytes;
            if !previous.is_in_memory() {
                self.read_bytes += bytes;
            }
            self.known.insert(event.revision, value);
        }
        Ok(())
    }

    /// The same on a shard: for all watchers of a batch so much is read, and the rest is cold.
    fn read_now<'e>(
        &mut self,
        events: impl Iterator<Item = &'e Event>,
        read: impl Fn(&Event) -> Result<Option<Bytes>, ReadError>,
    ) -> Result<(), ReadError> {
        for event in events {
            let is_at_hand = event.previous.as_ref().is_none_or(mvcc::Previous::is_in_memory);
            if !is_at_hand
                && self.read_bytes >= NOW_BYTES
                && !self.known.contains_key(&event.revision)
            {
                return Err(ReadError::Cold);
            }
            self.read(std::iter::once(event), &read)?;
        }
        Ok(())
    }
}

/// How many of these events go into one answer, and with which main revision the next begins.
fn fitting<'e, 'b>(events: &'b [&'e Event], former: &Previous) -> (&'b [&'e Event], Option<i64>) {
    let (mut bytes, mut main) = (0, 0);
    for (place, event) in events.iter().enumerate() {
        if event.revision.main != main && bytes >= ANSWER_BYTES {
            return (&events[..place], Some(event.revision.main));
        }
        main = event.revision.main;
        bytes += event_length(event, former);
    }
    (events, None)
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

fn former_of<'p>(event: &Event, previous: &'p Previous) -> Option<&'p Bytes> {
    previous.get(&event.revision)?.as_ref()
}

fn event_length(event: &Event, previous: &Previous) -> usize {
    let kind = if event.kind == EventKind::Delete { 2 } else { 0 };
    kind + framed(event.kv.len())
        + former_of(event, previous).map_or(0, |bytes| framed(bytes.len()))
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
        if let Some(bytes) = former_of(event, previous) {
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
        let previous =
            Previous::from([(delete.revision, Some(Bytes::from(former.encode_to_vec())))]);
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
    fn what_is_told_at_once_ends_with_a_revision_that_reaches_the_bound() {
        let kind = EventKind::Put;
        let half = ANSWER_BYTES / 2;
        let events = [
            event(5, 0, kind, half),
            event(6, 0, kind, half),
            event(6, 1, kind, half),
            event(7, 0, kind, 1),
        ];
        let events: Vec<&Event> = events.iter().collect();
        let none = Previous::new();
        let (now, next) = fitting(&events, &none);
        assert_eq!((now.len(), next), (3, Some(7)), "a revision is not split");
        let (now, next) = fitting(&events[1..], &none);
        assert_eq!((now.len(), next), (2, Some(7)));
        assert_eq!(fitting(&events[..2], &none).1, None);
        let former = Previous::from([(events[0].revision, Some(vec![0; half].into()))]);
        let (now, next) = fitting(&events, &former);
        assert_eq!((now.len(), next), (1, Some(6)), "what was replaced counts");
    }

    #[test]
    fn a_former_value_is_read_once_for_all_watchers_of_a_batch_and_so_much_on_a_shard() {
        let previous = |main| mvcc::Previous::cold(Revision { main, sub: 0 });
        let events: Vec<Event> = (10..14)
            .map(|main| Event {
                previous: Some(previous(main - 9)),
                ..event(main, 0, EventKind::Put, 1)
            })
            .collect();
        let reads = std::cell::Cell::new(0);
        let read = |_: &Event| {
            reads.set(reads.get() + 1);
            Ok(Some(Bytes::from(vec![0; NOW_BYTES / 2])))
        };
        let mut former = FormerValues::default();
        for _ in 0..1000 {
            former.read_now(events[..2].iter(), read).unwrap();
        }
        assert_eq!(reads.get(), 2);
        assert!(matches!(former.read_now(events.iter(), read), Err(ReadError::Cold)));
        former.read_now(events[..2].iter(), read).unwrap();
        assert_eq!(reads.get(), 2, "what is known still serves");
        former.read(events.iter(), read).unwrap();
        assert_eq!((reads.get(), former.known.len()), (4, 4));
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
