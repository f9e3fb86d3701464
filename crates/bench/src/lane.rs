//! A lane: one HTTP/2 connection, the clients that share it, and nothing that another lane would wait for.
//!
//! ```text
//!            turn of a lane, woken by its socket (or by its timer)
//!   read every frame there is ─▶ take the answers ─▶ start the next requests ─▶ one write
//!        ▲                                                     │
//!        └──────────────── until nothing happens any more ─────┘
//! ```
//!
//! There is no task per request: a client is a [`Slot`] with a waker of its own, which notes its place in a list;
//! a turn looks at those places only. What would wake the lane's task in the middle of its own turn makes it go
//! round once more instead. That is why this generator costs a fraction of one with a task per client.

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use h2::client::{Connection, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Uri, Version};
use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior};

use crate::clock::{Clock, Timer};
use crate::pace::Pace;
use crate::record::Record;
use crate::socket::{Cork, Corked, cork};
use crate::wire::{self, PREFIX_BYTES};
use crate::workload::{Expect, Method, Source};

/// How long a connection may take to be made.
const DIAL_MAX: Duration = Duration::from_secs(2);
/// How long a lane tries to connect before it gives up.
const GIVE_UP: Duration = Duration::from_secs(10);
/// How long it waits between two tries.
const DIAL_PAUSE: Duration = Duration::from_millis(20);
/// How long a lane waits for an answer while none comes at all; then its connection counts as broken.
const SILENCE_MAX_NS: u64 = 30_000_000_000;
/// How long after the end of a load its last answers are waited for.
const DRAIN_MAX_NS: u64 = 10_000_000_000;
/// How long a lane starts nothing after a refusal, so that a server without a leader is not asked in a hot loop.
const REST_NS: u64 = 5_000_000;
/// How often a lane looks whether its time is over.
const TICK: Duration = Duration::from_millis(200);
/// Rounds in one turn; then other lanes have theirs.
const ROUNDS_MAX: usize = 16;
/// Of a stream and of a connection: large enough that no server ever waits for us.
const WINDOW_BYTES: u32 = 64 << 20;
/// The largest HTTP/2 frame that we take.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// The largest answer that we take.
const ANSWER_BYTES_MAX: usize = 1 << 30;
/// Puts that the writer of watched keys may be ahead of its slowest watchers.
pub const WRITER_AHEAD: u64 = 64;

/// What all lanes of a load share.
pub struct Shared {
    /// The time that everything here counts in.
    pub clock: Clock,
    /// When the load began.
    start_ns: AtomicU64,
    /// The number of the next request, and how many there are to be.
    next: AtomicU64,
    requests: u64,
    /// Since the start: after it nothing is started.
    deadline_ns: u64,
    /// Operations answered well, for the progress line.
    pub answered: AtomicU64,
    /// Errors, for the progress line.
    pub failed: AtomicU64,
    /// Set to end the load early.
    pub stop: AtomicBool,
    /// Lanes that still send requests.
    working: AtomicUsize,
    /// When the last of them ended, since the start.
    worked_until_ns: AtomicU64,
    /// The watchers of the watched key, and what they have seen.
    fan_out: FanOut,
}

/// The balance between the writer of a watched key and its watchers.
#[derive(Default)]
struct FanOut {
    /// Watchers that were made.
    watchers: AtomicU64,
    /// Puts that were started and did not fail.
    puts: AtomicU64,
    /// Events that came.
    events: AtomicU64,
    /// The writer's lane, while it waits for its watchers.
    writer: AtomicWaker,
}

impl FanOut {
    /// Whether the writer may start another put.
    fn has_room(&self) -> bool {
        let ahead = self.puts.load(Ordering::Relaxed).saturating_sub(WRITER_AHEAD);
        self.events.load(Ordering::Relaxed) >= ahead * self.watchers.load(Ordering::Relaxed)
    }

    /// Events that are still to come.
    fn missing(&self) -> u64 {
        let wanted = self.puts.load(Ordering::Relaxed) * self.watchers.load(Ordering::Relaxed);
        wanted.saturating_sub(self.events.load(Ordering::Relaxed))
    }
}

impl Shared {
    /// For a load of `requests` (all that there is time for, if `None`) and `duration` at most.
    pub fn new(requests: Option<u64>, duration: Option<Duration>, working: usize) -> Shared {
        Shared {
            clock: Clock::start(),
            start_ns: AtomicU64::new(0),
            next: AtomicU64::new(0),
            requests: requests.unwrap_or(u64::MAX),
            deadline_ns: duration.map_or(u64::MAX, |duration| duration.as_nanos() as u64),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            working: AtomicUsize::new(working),
            worked_until_ns: AtomicU64::new(0),
            fan_out: FanOut::default(),
        }
    }

    /// The load begins now.
    pub fn start(&self) {
        self.start_ns.store(self.clock.now(), Ordering::Release);
    }

    /// Nanoseconds since the load began.
    fn now(&self) -> u64 {
        self.clock.now().saturating_sub(self.start_ns.load(Ordering::Relaxed))
    }

    /// A time since the load began, on the clock.
    fn moment(&self, since_start: u64) -> u64 {
        self.start_ns.load(Ordering::Relaxed) + since_start
    }

    /// The number of one more request, if there is to be one.
    fn take(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.requests).then_some(number)
    }

    /// Whether requests may be started at all.
    fn is_over(&self, now: u64) -> bool {
        now >= self.deadline_ns
            || self.next.load(Ordering::Relaxed) >= self.requests
            || self.stop.load(Ordering::Relaxed)
    }

    /// Requests that were to be sent and were not, because no server could be reached.
    pub fn unsent(&self) -> u64 {
        let stopped = self.stop.load(Ordering::Relaxed) || self.deadline_ns != u64::MAX;
        match stopped {
            true => 0,
            false => self.requests.saturating_sub(self.next.load(Ordering::Relaxed)),
        }
    }

    /// Events that did not come.
    pub fn missing_events(&self) -> u64 {
        self.fan_out.missing()
    }

    /// A lane sends nothing more.
    fn ended(&self) {
        if self.working.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.worked_until_ns.store(self.now().max(1), Ordering::Release);
        }
    }

    /// Whether watchers may leave: nothing is sent any more, and all events came or will not come.
    fn is_watched_out(&self) -> bool {
        let until = self.worked_until_ns.load(Ordering::Acquire);
        until > 0
            && (self.fan_out.missing() == 0
                || self.stop.load(Ordering::Relaxed)
                || self.now() > until + DRAIN_MAX_NS)
    }
}

/// What a lane is for.
pub enum Role {
    /// Sends requests.
    Work {
        /// Which.
        source: Box<Source>,
        /// At which rate; `None` is as fast as they are answered.
        pace: Option<Pace>,
    },
    /// Puts the watched key, never far ahead of its watchers.
    Write {
        /// Makes the puts.
        source: Box<Source>,
        /// At which rate; `None` is as fast as they are answered.
        pace: Option<Pace>,
    },
    /// Watches.
    Watch {
        /// Which key.
        key: &'static [u8],
        /// Watchers of it, spread over the clients' streams.
        watchers: u64,
        /// Whether it takes what comes. One that does not is the slow client that nobody shall suffer for.
        reads: bool,
    },
}

impl Role {
    /// Whether it sends requests.
    pub fn works(&self) -> bool {
        !matches!(self, Role::Watch { .. })
    }
}

/// One connection's part of a load.
pub struct Lane {
    shared: Arc<Shared>,
    record: Rc<RefCell<Record>>,
    role: Role,
    /// Where it may connect, and which of these is next.
    endpoints: Vec<SocketAddr>,
    next_endpoint: usize,
    /// Clients that share the connection: streams that are open at a time.
    clients: usize,
    wire: Option<Wire>,
    /// Until when nothing is started.
    rest_until_ns: u64,
    /// When something came last.
    heard_ns: u64,
    /// What was due by the end and was not sent has been noted.
    over: bool,
}

impl Lane {
    /// A lane that is not connected yet. There is at least one endpoint; the first that it tries is that of its
    /// `place`.
    pub fn new(
        shared: Arc<Shared>,
        record: Rc<RefCell<Record>>,
        role: Role,
        endpoints: Vec<SocketAddr>,
        place: usize,
        clients: usize,
    ) -> Lane {
        Lane {
            shared,
            record,
            role,
            endpoints,
            next_endpoint: place,
            clients,
            wire: None,
            rest_until_ns: 0,
            heard_ns: 0,
            over: false,
        }
    }

    /// Connects, and makes its watchers. What goes wrong is noted, and tried again while the load runs.
    pub async fn open(&mut self) {
        if let Err(error) = self.try_open().await {
            self.fail(&error, 1);
        }
    }

    async fn try_open(&mut self) -> Result<(), String> {
        let endpoint = self.endpoints[self.next_endpoint % self.endpoints.len()];
        self.next_endpoint += 1;
        let wire = tokio::time::timeout(DIAL_MAX, Wire::open(endpoint, self.clients));
        let mut wire = wire.await.map_err(|_| "connect: timed out".to_owned())??;
        if let Role::Watch { key, watchers, .. } = self.role {
            tokio::time::timeout(GIVE_UP, wire.watch(key, watchers))
                .await
                .map_err(|_| "watch: not created in time".to_owned())??;
            if key == crate::workload::WATCHED_KEY {
                self.shared.fan_out.watchers.fetch_add(watchers, Ordering::Relaxed);
            }
        }
        self.wire = Some(wire);
        Ok(())
    }

    /// Plays its part to the end.
    pub async fn run(mut self) {
        if matches!(self.role, Role::Watch { reads: false, .. }) {
            let mut tick = tokio::time::interval(TICK);
            while !self.shared.is_watched_out() {
                tick.tick().await;
            }
            return;
        }
        let mut lost_ns = None;
        loop {
            if self.wire.is_some() {
                self.heard_ns = self.shared.now();
                let ended = std::future::poll_fn(|cx| self.poll(cx)).await;
                let Err(error) = ended else { break };
                // Each request under way has failed; a connection that had none has failed once.
                let busy = self.wire.take().map_or(0, |wire| wire.busy);
                self.take_back(busy);
                self.fail(&error, busy.max(1) as u64);
                lost_ns = None;
                if let Role::Watch { .. } = self.role {
                    // Its events are lost: what it counts would not be what was measured.
                    break;
                }
            }
            let now = self.shared.now();
            let since = *lost_ns.get_or_insert(now);
            if self.shared.is_over(now) || now - since > GIVE_UP.as_nanos() as u64 {
                break;
            }
            if let Err(error) = self.try_open().await {
                self.fail(&error, 1);
                tokio::time::sleep(DIAL_PAUSE).await;
            }
        }
        if self.role.works() {
            self.shared.ended();
        }
    }

    fn fail(&self, error: &str, count: u64) {
        self.record.borrow_mut().failed(error, count);
        self.shared.failed.fetch_add(count, Ordering::Relaxed);
    }

    /// Puts that failed have no events to wait for.
    fn take_back(&self, puts: usize) {
        if let Role::Write { .. } = self.role {
            self.shared.fan_out.puts.fetch_sub(puts as u64, Ordering::Relaxed);
        }
    }

    /// One turn; ready at the lane's end, or with why the connection is lost.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        let Some(mut wire) = self.wire.take() else {
            return Poll::Ready(Ok(()));
        };
        let turn = wire.turn.clone();
        turn.task.register(cx.waker());
        turn.is_on.store(true, Ordering::Relaxed);
        let waker = Waker::from(turn.clone());
        let ended = self.rounds(&mut wire, &mut Context::from_waker(&waker));
        turn.is_on.store(false, Ordering::Relaxed);
        if ended.is_pending() && turn.again.load(Ordering::Relaxed) {
            cx.waker().wake_by_ref();
        }
        self.wire = Some(wire);
        ended
    }

    fn rounds(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        for _ in 0..ROUNDS_MAX {
            wire.turn.again.store(false, Ordering::Relaxed);
            match Pin::new(&mut wire.h2).poll(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => return Poll::Ready(Err("connection: closed".to_owned())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(format!("connection: {error}"))),
            }
            let took = self.take_answers(wire)?;
            let started = self.start_requests(wire, cx)?;
            if !took && !started && !wire.turn.again.load(Ordering::Relaxed) {
                break;
            }
            wire.turn.again.store(true, Ordering::Relaxed);
        }
        if let Poll::Ready(Err(error)) = wire.cork.poll_send(cx) {
            return Poll::Ready(Err(format!("connection: {error}")));
        }
        if wire.tick.poll_tick(cx).is_ready() {
            // The next one must be asked for.
            wire.turn.again.store(true, Ordering::Relaxed);
        }
        self.look_at_the_time(wire)
    }

    /// Takes what has come; whether anything had.
    fn take_answers(&mut self, wire: &mut Wire) -> Result<bool, String> {
        let mut places = std::mem::take(&mut wire.places);
        std::mem::swap(&mut places, &mut *wire.turn.ready());
        let took = !places.is_empty();
        for place in places.drain(..) {
            let place = place as usize;
            wire.slots[place].wake.queued.store(false, Ordering::Relaxed);
            self.take_answer(wire, place)?;
        }
        wire.places = places;
        if took {
            self.heard_ns = self.shared.now();
        }
        Ok(took)
    }

    fn take_answer(&mut self, wire: &mut Wire, place: usize) -> Result<(), String> {
        let slot = &mut wire.slots[place];
        let (shared, record) = (&self.shared, &self.record);
        if let Role::Watch { .. } = self.role {
            let mut wrong = None;
            let mut events = 0;
            let came = slot.poll(&mut |message: &[u8]| {
                let now = shared.now();
                let read = wire::read_watch(message, |value| {
                    let put = value.first_chunk().map_or(now, |put| u64::from_be_bytes(*put));
                    record.borrow_mut().answered(put, now, 1);
                });
                match read {
                    Ok(watched) => {
                        events += watched.events;
                        if let Some(why) = watched.canceled {
                            wrong =
                                Some(format!("watch: canceled: {}", String::from_utf8_lossy(why)));
                        }
                    }
                    Err(wire::Malformed) => wrong = Some("malformed answer".to_owned()),
                }
            });
            shared.answered.fetch_add(events, Ordering::Relaxed);
            shared.fan_out.events.fetch_add(events, Ordering::Relaxed);
            if events > 0 && shared.fan_out.has_room() {
                shared.fan_out.writer.wake();
            }
            return match (came, wrong) {
                (_, Some(error)) | (Poll::Ready(Err(error)), None) => Err(error),
                (Poll::Ready(Ok(())), None) => Err("watch: ended by the server".to_owned()),
                (Poll::Pending, None) => Ok(()),
            };
        }
        let expect = slot.expect;
        let mut checked = slot.checked.take();
        let came = slot.poll(&mut |message: &[u8]| checked = Some(expect.check(message)));
        let standing = slot.send.is_some();
        let outcome = match (came, checked) {
            // A unary answer counts when its status has come, that of a standing stream when it is whole.
            (Poll::Pending, checked) if !standing || checked.is_none() => {
                slot.checked = checked;
                return Ok(());
            }
            (Poll::Pending, checked) => checked,
            (Poll::Ready(Err(error)), _) => {
                slot.close();
                Some(Err(error))
            }
            (Poll::Ready(Ok(())), checked) => {
                slot.close();
                match standing && checked.is_none() {
                    true => Some(Err("stream: ended by the server".to_owned())),
                    false => checked,
                }
            }
        };
        if !std::mem::take(&mut slot.busy) {
            // A standing stream that nobody waited at was closed; the next request opens another.
            return Ok(());
        }
        let intended = slot.intended;
        wire.busy -= 1;
        wire.idle.push(place);
        match outcome.unwrap_or_else(|| Err("wrong answer: no message".to_owned())) {
            Ok(()) => {
                if let Role::Work { .. } = self.role {
                    record.borrow_mut().answered(intended, shared.now(), 1);
                    shared.answered.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(error) => {
                self.fail(&error, 1);
                self.take_back(1);
                self.rest_until_ns = self.shared.now() + REST_NS;
            }
        }
        Ok(())
    }

    /// Starts what is to be started; whether anything was.
    fn start_requests(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Result<bool, String> {
        let (source, pace, writes) = match &mut self.role {
            Role::Work { source, pace } => (source, pace, false),
            Role::Write { source, pace } => (source, pace, true),
            Role::Watch { .. } => return Ok(false),
        };
        let shared = &self.shared;
        let mut started = false;
        while let Some(place) = wire.idle.last().copied() {
            let now = shared.now();
            if shared.is_over(now) {
                break;
            }
            let due = pace.as_ref().map_or(now, Pace::due);
            let earliest = due.max(self.rest_until_ns);
            if earliest > now {
                match wire.timer.poll(cx, shared.clock, shared.moment(earliest)) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(error)) => return Err(format!("timer: {error}")),
                }
            }
            if writes && !shared.fan_out.has_room() {
                shared.fan_out.writer.register(cx.waker());
                if !shared.fan_out.has_room() {
                    break;
                }
            }
            if !wire.slots[place].is_open() {
                match wire.send.poll_ready(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Err(format!("connection: {error}")),
                }
            }
            let Some(number) = shared.take() else { break };
            if let Some(pace) = pace {
                pace.advance();
            }
            let request = match writes {
                true => {
                    shared.fan_out.puts.fetch_add(1, Ordering::Relaxed);
                    source.watched_put(due)
                }
                false => source.request(number),
            };
            wire.idle.pop();
            wire.busy += 1;
            let standing = request.method == Method::KeepAlive && source.stands();
            wire.call(place, request.method, request.message, standing)?;
            let slot = &mut wire.slots[place];
            slot.busy = true;
            slot.intended = due;
            slot.expect = request.expect;
            started = true;
        }
        Ok(started)
    }

    /// Whether the lane's part is over, or its server silent for too long.
    fn look_at_the_time(&mut self, wire: &Wire) -> Poll<Result<(), String>> {
        let pace = match &self.role {
            Role::Watch { .. } if self.shared.is_watched_out() => return Poll::Ready(Ok(())),
            Role::Watch { .. } => return Poll::Pending,
            Role::Work { pace, .. } | Role::Write { pace, .. } => pace,
        };
        let now = self.shared.now();
        let silent = now.saturating_sub(self.heard_ns);
        if self.shared.is_over(now) {
            if !std::mem::replace(&mut self.over, true)
                && self.shared.deadline_ns != u64::MAX
                && let Some(pace) = pace
            {
                let missed = pace.missed(self.shared.deadline_ns.min(now));
                self.fail("not sent: every client was still waiting at the end", missed);
            }
            return match wire.busy {
                0 => Poll::Ready(Ok(())),
                _ if silent > DRAIN_MAX_NS => {
                    Poll::Ready(Err("no answer after the end".to_owned()))
                }
                _ => Poll::Pending,
            };
        }
        match wire.busy > 0 && silent > SILENCE_MAX_NS {
            true => Poll::Ready(Err(format!("no answer for {} s", SILENCE_MAX_NS / 1_000_000_000))),
            false => Poll::Pending,
        }
    }
}

/// What wakes a lane, and whom it wakes.
struct Turn {
    /// The lane's task.
    task: AtomicWaker,
    /// A turn is on: whoever wakes makes it go round once more.
    is_on: AtomicBool,
    again: AtomicBool,
    /// The places of slots at which something has happened.
    ready: Mutex<Vec<u32>>,
}

impl Turn {
    fn ready(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        // Wakers must be `Sync`; but all of a lane happens on one thread, and nobody ever waits here.
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        match self.is_on.load(Ordering::Relaxed) {
            true => self.again.store(true, Ordering::Relaxed),
            false => self.task.wake(),
        }
    }
}

struct SlotWake {
    turn: Arc<Turn>,
    place: u32,
    /// Its place stands in the list.
    queued: AtomicBool,
}

impl Wake for SlotWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.turn.ready().push(self.place);
            self.turn.wake_by_ref();
        }
    }
}

/// How far the answer on a stream is.
enum Receive {
    Closed,
    Head(ResponseFuture),
    Body(RecvStream),
}

/// One client: it sends a request, waits for the answer, and sends the next.
struct Slot {
    wake: Arc<SlotWake>,
    waker: Waker,
    receive: Receive,
    /// Of a stream that stays open.
    send: Option<SendStream<Bytes>>,
    /// The beginning of a message that came in several pieces.
    partial: Vec<u8>,
    /// A request is under way: when it was to start, what its answer must say, and whether that was so.
    busy: bool,
    intended: u64,
    expect: Expect,
    checked: Option<Result<(), String>>,
}

impl Slot {
    fn is_open(&self) -> bool {
        self.send.is_some()
    }

    fn close(&mut self) {
        self.receive = Receive::Closed;
        self.send = None;
        self.partial.clear();
    }

    /// Takes what came on the stream; ready when it has ended, with its status.
    fn poll(&mut self, on_message: &mut dyn FnMut(&[u8])) -> Poll<Result<(), String>> {
        let cx = &mut Context::from_waker(&self.waker);
        loop {
            match &mut self.receive {
                Receive::Closed => return Poll::Pending,
                Receive::Head(head) => match Pin::new(head).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(format!("stream: {error}"))),
                    Poll::Ready(Ok(head)) => {
                        if head.headers().contains_key(GRPC_STATUS) {
                            return Poll::Ready(status(head.headers()));
                        }
                        if head.status() != http::StatusCode::OK {
                            return Poll::Ready(Err(format!("HTTP {}", head.status())));
                        }
                        self.receive = Receive::Body(head.into_body());
                    }
                },
                Receive::Body(body) => match body.poll_data(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Err(error))) => {
                        return Poll::Ready(Err(format!("stream: {error}")));
                    }
                    Poll::Ready(Some(Ok(chunk))) => {
                        // It fails only if more is given back than was taken.
                        drop(body.flow_control().release_capacity(chunk.len()));
                        messages(&mut self.partial, chunk, on_message)?;
                    }
                    Poll::Ready(None) => match body.poll_trailers(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(Some(trailers))) => return Poll::Ready(status(&trailers)),
                        Poll::Ready(Ok(None)) => {
                            return Poll::Ready(Err("stream: ended without a status".to_owned()));
                        }
                        Poll::Ready(Err(error)) => {
                            return Poll::Ready(Err(format!("stream: {error}")));
                        }
                    },
                },
            }
        }
    }
}

/// Cuts what came into messages. One that lies in one piece is not copied.
fn messages(
    partial: &mut Vec<u8>,
    mut chunk: Bytes,
    on_message: &mut dyn FnMut(&[u8]),
) -> Result<(), String> {
    while !chunk.is_empty() {
        if partial.is_empty()
            && let Some(end) = message_end(&chunk)?
            && end <= chunk.len()
        {
            on_message(&chunk[PREFIX_BYTES..end]);
            chunk.advance(end);
            continue;
        }
        let wanted = message_end(partial)?.unwrap_or(PREFIX_BYTES);
        let taken = chunk.len().min(wanted - partial.len());
        partial.extend_from_slice(&chunk[..taken]);
        chunk.advance(taken);
        if message_end(partial)?.is_some_and(|end| end == partial.len()) {
            on_message(&partial[PREFIX_BYTES..]);
            partial.clear();
        }
    }
    Ok(())
}

/// Where the message ends that begins here; `None` if that is not known yet.
fn message_end(start: &[u8]) -> Result<Option<usize>, String> {
    let Some([compressed, length @ ..]) = start.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    match *compressed != 0 || length > ANSWER_BYTES_MAX {
        true => Err("malformed answer".to_owned()),
        false => Ok(Some(PREFIX_BYTES + length)),
    }
}

const GRPC_STATUS: &str = "grpc-status";
/// gRPC's names of its codes, by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

fn status(headers: &HeaderMap) -> Result<(), String> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let code = text(GRPC_STATUS).and_then(|code| code.parse::<usize>().ok());
    match code {
        Some(0) => Ok(()),
        Some(code) => {
            let name = CODES.get(code).copied().unwrap_or("unknown code");
            Err(format!("{name}: {}", text("grpc-message").unwrap_or_default()))
        }
        None => Err("stream: ended without a status".to_owned()),
    }
}

/// A connection that is up.
struct Wire {
    h2: Connection<Corked, Bytes>,
    send: SendRequest<Bytes>,
    cork: Cork,
    timer: Timer,
    tick: Interval,
    turn: Arc<Turn>,
    slots: Vec<Slot>,
    /// Slots with nothing under way, and how many have something.
    idle: Vec<usize>,
    busy: usize,
    /// Swapped with the list of those at which something has happened.
    places: Vec<u32>,
    authority: String,
    uris: Vec<(Method, Uri)>,
    headers: HeaderMap,
}

impl Wire {
    async fn open(endpoint: SocketAddr, clients: usize) -> Result<Wire, String> {
        let tcp =
            TcpStream::connect(endpoint).await.map_err(|error| format!("connect: {error}"))?;
        // A turn is one write already; the system shall not wait for more.
        tcp.set_nodelay(true).map_err(|error| format!("connect: {error}"))?;
        let (socket, cork) = cork(tcp);
        let (send, h2) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .enable_push(false)
            .handshake::<_, Bytes>(socket)
            .await
            .map_err(|error| format!("connection: {error}"))?;
        let turn = Arc::new(Turn {
            task: AtomicWaker::new(),
            is_on: AtomicBool::new(false),
            again: AtomicBool::new(false),
            ready: Mutex::default(),
        });
        let slot = |place| {
            let wake = SlotWake { turn: turn.clone(), place, queued: AtomicBool::new(false) };
            let wake = Arc::new(wake);
            Slot {
                waker: Waker::from(wake.clone()),
                wake,
                receive: Receive::Closed,
                send: None,
                partial: Vec::new(),
                busy: false,
                intended: 0,
                expect: Expect::Revision,
                checked: None,
            }
        };
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        Ok(Wire {
            h2,
            send,
            cork,
            timer: Timer::new().map_err(|error| format!("timer: {error}"))?,
            tick,
            slots: (0..clients as u32).map(slot).collect(),
            idle: (0..clients).rev().collect(),
            busy: 0,
            places: Vec::new(),
            turn,
            authority: endpoint.to_string(),
            uris: Vec::new(),
            headers,
        })
    }

    fn uri(&mut self, method: Method) -> Uri {
        if let Some((_, uri)) = self.uris.iter().find(|(known, _)| *known == method) {
            return uri.clone();
        }
        let uri = Uri::builder()
            .scheme("http")
            .authority(self.authority.as_str())
            .path_and_query(method.path())
            .build()
            .expect("an address and a method's path are parts of a URI");
        self.uris.push((method, uri.clone()));
        uri
    }

    /// Sends a message: on the slot's open stream, or on a new one, which stays open if it is `standing`. The
    /// connection must be ready for a new stream.
    fn call(
        &mut self,
        place: usize,
        method: Method,
        message: Bytes,
        standing: bool,
    ) -> Result<(), String> {
        let failed = |error: h2::Error| format!("stream: {error}");
        if let Some(send) = &mut self.slots[place].send {
            return send.send_data(message, false).map_err(failed);
        }
        let mut request = http::Request::new(());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri(method);
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers.clone();
        let (head, mut send) = self.send.send_request(request, false).map_err(failed)?;
        send.send_data(message, !standing).map_err(failed)?;
        let slot = &mut self.slots[place];
        slot.receive = Receive::Head(head);
        slot.send = standing.then_some(send);
        slot.checked = None;
        // The stream has a waker from now on.
        slot.wake.wake_by_ref();
        Ok(())
    }

    /// Makes watchers of a key, spread over all slots, and waits until all are there.
    async fn watch(&mut self, key: &[u8], watchers: u64) -> Result<(), String> {
        let mut scratch = BytesMut::new();
        let create = wire::message(&mut scratch, |out| wire::watch_create(out, key));
        let places = self.slots.len();
        let (mut asked, mut created) = (0, 0);
        std::future::poll_fn(|cx| {
            loop {
                self.turn.task.register(cx.waker());
                match Pin::new(&mut self.h2).poll(cx) {
                    Poll::Pending => {}
                    Poll::Ready(_) => return Poll::Ready(Err("connection: closed".to_owned())),
                }
                while asked < watchers {
                    let place = asked as usize % places;
                    if !self.slots[place].is_open() {
                        match self.send.poll_ready(cx) {
                            Poll::Pending => break,
                            Poll::Ready(Ok(())) => {}
                            Poll::Ready(Err(error)) => return Poll::Ready(Err(error.to_string())),
                        }
                    }
                    self.call(place, Method::Watch, create.clone(), true)?;
                    asked += 1;
                }
                let ready = std::mem::take(&mut *self.turn.ready());
                for place in &ready {
                    let slot = &mut self.slots[*place as usize];
                    slot.wake.queued.store(false, Ordering::Relaxed);
                    let ended = slot.poll(&mut |message| {
                        let watched = wire::read_watch(message, |_| {}).unwrap_or_default();
                        created += u64::from(watched.created && watched.canceled.is_none());
                    });
                    match ended {
                        Poll::Pending => {}
                        Poll::Ready(Ok(())) => {
                            return Poll::Ready(Err("watch: refused".to_owned()));
                        }
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    }
                }
                if created == watchers {
                    return Poll::Ready(Ok(()));
                }
                if ready.is_empty() {
                    break;
                }
            }
            match self.cork.poll_send(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error.to_string())),
                _ => Poll::Pending,
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_whole_however_they_are_cut() {
        let mut scratch = BytesMut::new();
        let lengths = [0usize, 1, 300, 5, 70_000];
        let mut stream = Vec::new();
        for length in lengths {
            let body = vec![length as u8; length];
            stream.extend_from_slice(&wire::message(&mut scratch, |out| {
                out.extend_from_slice(&body)
            }));
        }
        for piece in [1, 2, 5, 6, 299, 4096, stream.len()] {
            let (mut partial, mut got) = (Vec::new(), Vec::new());
            for chunk in stream.chunks(piece) {
                let mut note = |message: &[u8]| got.push(message.len());
                messages(&mut partial, Bytes::copy_from_slice(chunk), &mut note).unwrap();
            }
            assert_eq!(got, lengths, "in pieces of {piece}");
            assert!(partial.is_empty());
        }
    }

    #[test]
    fn an_answer_that_is_compressed_or_endless_is_refused() {
        for hostile in [&[1, 0, 0, 0, 1, 0][..], &[0, 255, 255, 255, 255]] {
            let mut partial = Vec::new();
            let chunk = Bytes::copy_from_slice(hostile);
            assert!(messages(&mut partial, chunk, &mut |_| {}).is_err());
        }
    }

    #[test]
    fn a_status_is_its_code_and_its_message() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (http::HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            pairs.iter().map(pair).collect()
        };
        assert_eq!(status(&headers(&[("grpc-status", "0")])), Ok(()));
        let refused = headers(&[("grpc-status", "14"), ("grpc-message", "etcdserver: no leader")]);
        assert_eq!(status(&refused), Err("Unavailable: etcdserver: no leader".to_owned()));
        assert!(status(&headers(&[])).is_err());
    }
}
