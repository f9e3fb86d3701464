//! What a shard knows of each of its HTTP/2 connections: what it has under way there, and when it must be looked at.
//!
//! Two things are counted by their bytes, for each connection and for all: requests that wait ([`Seat::admit`]), and
//! answers that their client has not taken yet ([`Seat::count`]). Whoever has too many answers waiting is still
//! read, for its window comes that way, but its reads rest ([`Seat::rest`]) until it takes some. Answers of less than
//! [`COUNTED_BYTES`] are not counted: the number of streams bounds them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use state_machine::Error;

use crate::grpc::Read;
use crate::serve::limits::{
    ANSWER_BYTES_MAX, ANSWER_BYTES_PER_CONNECTION, COLD_READS_PER_CONNECTION, COUNTED_BYTES,
    REQUEST_BYTES_PER_CONNECTION, REQUEST_BYTES_PER_SHARD,
};
use crate::serve::socket::Handle;
use crate::serve::stream::Ready;

/// No time: nothing is due.
const NEVER: u64 = u64::MAX;

/// Bytes of answers that wait for their clients, all shards' together.
pub type AllAnswers = Arc<AtomicUsize>;

/// The connections of a shard that speak HTTP/2.
pub struct Seats {
    taken: BTreeMap<u64, Rc<Seat>>,
    next: u64,
    /// Those that are not read until there is room for proposals.
    held: BTreeMap<u64, Rc<Seat>>,
    /// Not later than anything that is due.
    due_ms: Rc<Cell<u64>>,
    request_bytes: Rc<Cell<usize>>,
    answers: AllAnswers,
}

impl Seats {
    /// None yet.
    pub fn new(answers: AllAnswers) -> Seats {
        Seats {
            taken: BTreeMap::new(),
            next: 0,
            held: BTreeMap::new(),
            due_ms: Rc::new(Cell::new(NEVER)),
            request_bytes: Rc::default(),
            answers,
        }
    }

    /// Takes a seat.
    pub fn sit(
        &mut self,
        ready: Arc<Ready>,
        socket: Handle,
        client: Option<SocketAddr>,
    ) -> Rc<Seat> {
        self.next += 1;
        let seat = Rc::new(Seat {
            number: self.next,
            ready,
            client,
            socket: RefCell::new(Some(socket)),
            spoke: Cell::new(false),
            due_ms: Cell::new(NEVER),
            is_due: Cell::new(false),
            first_due_ms: self.due_ms.clone(),
            request_bytes: Cell::new(0),
            all_request_bytes: self.request_bytes.clone(),
            answers: Arc::new(Answers { bytes: AtomicUsize::new(0), all: self.answers.clone() }),
            cold: Cell::new(0),
            resting: RefCell::default(),
        });
        self.taken.insert(self.next, seat.clone());
        seat
    }

    /// Leaves it. What rests there is answered to nobody.
    pub fn leave(&mut self, seat: &Seat) {
        self.taken.remove(&seat.number);
        self.held.remove(&seat.number);
        // Who still waits for an answer keeps the seat, and shall not keep the socket open with it.
        *seat.socket.borrow_mut() = None;
        let resting = std::mem::take(&mut *seat.resting.borrow_mut());
        drop(resting);
    }

    /// Stops reading a connection until there is room for proposals.
    pub fn hold(&mut self, seat: &Rc<Seat>) {
        seat.hold_socket(true);
        self.held.insert(seat.number, seat.clone());
    }

    /// There is room.
    pub fn let_go(&mut self) {
        std::mem::take(&mut self.held).into_values().for_each(|seat| seat.hold_socket(false));
    }

    /// Wakes all.
    pub fn wake_all(&self) {
        self.taken.values().for_each(|seat| seat.ready.task.wake());
    }

    /// Forgets reads that rest and whose client has reset their stream.
    pub fn forget_gone(&self) {
        for seat in self.taken.values() {
            seat.resting.borrow_mut().retain_mut(|read| !read.is_gone());
        }
    }

    /// Wakes those at which something is due. It looks at each, but only when something is.
    pub fn wake_due(&self, now_ms: u64) {
        if now_ms < self.due_ms.get() {
            return;
        }
        self.due_ms.set(NEVER);
        for seat in self.taken.values() {
            match seat.due_ms.get() <= now_ms {
                true => {
                    seat.due_ms.set(NEVER);
                    seat.is_due.set(true);
                    seat.ready.task.wake();
                }
                false => self.due_ms.set(self.due_ms.get().min(seat.due_ms.get())),
            }
        }
    }
}

/// One connection.
pub struct Seat {
    number: u64,
    /// Its streams to look at, and its task.
    pub ready: Arc<Ready>,
    /// Who sits here, if the system knew.
    pub client: Option<SocketAddr>,
    /// Its socket, until it ends.
    socket: RefCell<Option<Handle>>,
    /// Something of a stream was sent: a client may ask again then whether we are there.
    pub spoke: Cell<bool>,
    /// Not later than anything that is due here.
    due_ms: Cell<u64>,
    is_due: Cell<bool>,
    first_due_ms: Rc<Cell<u64>>,
    request_bytes: Cell<usize>,
    all_request_bytes: Rc<Cell<usize>>,
    answers: Arc<Answers>,
    /// Its reads that are under way on read threads.
    cold: Cell<usize>,
    /// Reads that may be served, and are not, because too many answers wait.
    resting: RefCell<VecDeque<Read>>,
}

impl Seat {
    fn hold_socket(&self, held: bool) {
        if let Some(socket) = &*self.socket.borrow() {
            socket.hold(held);
        }
    }

    /// Has the connection's task look at everything that is due, then or a little later.
    pub fn look_at(&self, due_ms: u64) {
        self.due_ms.set(self.due_ms.get().min(due_ms));
        self.first_due_ms.set(self.first_due_ms.get().min(due_ms));
    }

    /// Whether something is due; the answer is given once.
    pub fn take_due(&self) -> bool {
        self.is_due.take()
    }

    /// Takes note of a request that waits.
    ///
    /// # Errors
    /// [`Error::TooManyRequests`], if too many bytes of requests wait already.
    pub fn admit(self: &Rc<Seat>, bytes: usize) -> Result<Waits, Error> {
        for (waiting, max) in [
            (&self.request_bytes, REQUEST_BYTES_PER_CONNECTION),
            (&*self.all_request_bytes, REQUEST_BYTES_PER_SHARD),
        ] {
            // One alone may be longer than all: else it never could be.
            if waiting.get() > 0 && waiting.get() + bytes > max {
                return Err(Error::TooManyRequests);
            }
        }
        self.request_bytes.set(self.request_bytes.get() + bytes);
        self.all_request_bytes.set(self.all_request_bytes.get() + bytes);
        Ok(Waits { seat: self.clone(), bytes })
    }

    /// The same bytes; they count until the last hold on them is dropped.
    pub fn count(&self, answer: Bytes) -> Bytes {
        match answer.len() < COUNTED_BYTES {
            true => answer,
            false => Bytes::from_owner(Counted::new(answer, &self.answers)),
        }
    }

    /// Bytes of answers that wait here.
    pub fn answer_bytes(&self) -> usize {
        self.answers.bytes.load(Relaxed)
    }

    /// Whether the client must take some of its answers before it gets more.
    pub fn is_full(&self) -> bool {
        let own = self.answer_bytes();
        own >= ANSWER_BYTES_PER_CONNECTION
            || own > 0 && self.answers.all.load(Relaxed) >= ANSWER_BYTES_MAX
    }

    /// Whether no read of this client may go to a read thread now.
    pub fn is_busy(&self) -> bool {
        let at_once = match self.answers.all.load(Relaxed) >= ANSWER_BYTES_MAX {
            true => 1,
            false => COLD_READS_PER_CONNECTION,
        };
        self.cold.get() >= at_once
    }

    /// A read goes to a read thread.
    pub fn enter_cold(&self) {
        self.cold.set(self.cold.get() + 1);
    }

    /// It is back.
    pub fn leave_cold(&self) {
        self.cold.set(self.cold.get() - 1);
        if !self.resting.borrow().is_empty() {
            self.ready.task.wake();
        }
    }

    /// Puts a read aside until the client has taken some of its answers. If the client has gone, it is dropped.
    pub fn rest(&self, read: Read) {
        if self.socket.borrow().is_some() {
            self.look_at(read.deadline_ms());
            self.resting.borrow_mut().push_back(read);
        }
    }

    /// The next read that may be served.
    pub fn next_rested(&self) -> Option<Read> {
        match self.is_full() || self.is_busy() {
            true => None,
            false => self.resting.borrow_mut().pop_front(),
        }
    }

    /// Takes out reads that rest and will not be answered: whose deadline is over.
    pub fn take_expired(&self, now_ms: u64) -> VecDeque<Read> {
        let mut resting = self.resting.borrow_mut();
        let (expired, rest): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut *resting)
            .into_iter()
            .partition(|read| read.deadline_ms() <= now_ms);
        *resting = rest;
        resting.iter().for_each(|read| self.look_at(read.deadline_ms()));
        expired
    }
}

/// A request that waits; it no longer does when this is dropped.
pub struct Waits {
    seat: Rc<Seat>,
    bytes: usize,
}

impl Drop for Waits {
    fn drop(&mut self) {
        for waiting in [&self.seat.request_bytes, &*self.seat.all_request_bytes] {
            waiting.set(waiting.get() - self.bytes);
        }
    }
}

/// Bytes of answers that wait for one client, and for all.
struct Answers {
    bytes: AtomicUsize,
    all: AllAnswers,
}

/// An answer that counts until it is dropped.
struct Counted {
    bytes: Bytes,
    answers: Arc<Answers>,
}

impl Counted {
    fn new(bytes: Bytes, answers: &Arc<Answers>) -> Counted {
        answers.bytes.fetch_add(bytes.len(), Relaxed);
        answers.all.fetch_add(bytes.len(), Relaxed);
        Counted { bytes, answers: answers.clone() }
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.answers.bytes.fetch_sub(self.bytes.len(), Relaxed);
        self.answers.all.fetch_sub(self.bytes.len(), Relaxed);
    }
}
