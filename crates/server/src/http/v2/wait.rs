//! Long polls and streams: who waits for a change of a path.
//!
//! ```text
//!   enter ──▶ early: changes are gathered ──▶ the past is read ──┬─ found: told, and out
//!                                                                ├─ cleared: refused, and out
//!                                                                └─ nothing: open ──▶ told of each change
//! ```
//!
//! Who waits is entered before the past is read, so that no change falls between the two; what was gathered up to the
//! index at which the past was read is dropped, for the past has answered for it. A client that does not take what
//! it is told is let go, and so is everybody when a snapshot replaces the keyspace: they ask again, with `waitIndex`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::Stream;
use mvcc::{Batch, EventKind};

use super::event::Event;
use super::node::Path;
use super::tree;
use crate::serve::shard::{Listener, Shard};

/// Changes that wait for a client; one more and it is let go, as in etcd.
const UNTOLD_MAX: usize = 100;
/// Clients of one shard that wait; one more is refused.
const WAITERS_MAX: usize = 65_536;

/// What a client asked to be told.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The changes of this node.
    pub path: Path,
    /// And of all below it.
    pub recursive: bool,
    /// Of each of them, not only of the first.
    pub stream: bool,
    /// Of none below this index.
    pub since: u64,
}

/// Who waits on one shard.
#[derive(Default)]
pub struct Hub {
    waiters: HashMap<u64, Waiter>,
    of_path: BTreeMap<Path, BTreeSet<u64>>,
    next: u64,
}

struct Waiter {
    wish: Wish,
    /// What it would have been told while the past is read: index, how often, and the text.
    early: Option<Vec<(u64, usize, Bytes)>>,
    mail: Rc<RefCell<Mail>>,
}

/// What a client has not taken yet.
#[derive(Default)]
struct Mail {
    texts: VecDeque<Bytes>,
    /// Nothing more comes.
    ended: bool,
    waker: Option<Waker>,
}

impl Mail {
    fn push(&mut self, text: Bytes) {
        self.texts.push_back(text);
        self.wake();
    }

    fn end(&mut self) {
        self.ended = true;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// One client's wait, and the body of its answer. Dropped when the client goes.
pub struct Wait {
    shard: Rc<Shard>,
    id: u64,
    mail: Rc<RefCell<Mail>>,
}

impl Wait {
    /// Enters a client: from now on changes are gathered for it. `None` if too many wait.
    pub fn enter(shard: &Rc<Shard>, wish: Wish) -> Option<Wait> {
        let mut hub = shard.v2.borrow_mut();
        if hub.waiters.len() >= WAITERS_MAX {
            return None;
        }
        if hub.waiters.is_empty() {
            shard.listen(Listener::V2, true);
        }
        shard.node.v2.counts.watchers.enter();
        let id = hub.next;
        hub.next += 1;
        let mail: Rc<RefCell<Mail>> = Rc::default();
        hub.of_path.entry(wish.path.clone()).or_default().insert(id);
        let early = Some(Vec::new());
        hub.waiters.insert(id, Waiter { wish, early, mail: mail.clone() });
        Some(Wait { shard: shard.clone(), id, mail })
    }

    /// The past had this for it: it is told, and of nothing else. As in etcd a stream then stays open, and silent.
    pub fn tell_past(&self, event: &Event, stream: bool) {
        self.shard.v2.borrow_mut().remove(&self.shard, self.id);
        let mut mail = self.mail.borrow_mut();
        mail.push(event.to_json(true).into());
        if !stream {
            mail.end();
        }
    }

    /// The past had nothing for it up to `index`: from there on it is told. One that asked for what comes next is told
    /// of what comes after `index`.
    pub fn open(&self, index: u64) {
        let mut hub = self.shard.v2.borrow_mut();
        let Some(waiter) = hub.waiters.get_mut(&self.id) else { return };
        waiter.wish.since = waiter.wish.since.max(index + 1);
        for (index, times, text) in waiter.early.take().unwrap_or_default() {
            if hub.tell(self.id, index, times, &text) {
                return hub.remove(&self.shard, self.id);
            }
        }
    }
}

impl Stream for Wait {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut mail = self.mail.borrow_mut();
        match mail.texts.pop_front() {
            Some(text) => Poll::Ready(Some(text)),
            None if mail.ended => Poll::Ready(None),
            None => {
                mail.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.shard.v2.borrow_mut().remove(&self.shard, self.id);
    }
}

impl Hub {
    /// Changes of the keyspace have become visible.
    pub fn on_batches(shard: &Rc<Shard>, batches: &[Arc<Batch>], exchanged: bool) {
        let hub = &mut *shard.v2.borrow_mut();
        if hub.waiters.is_empty() {
            return;
        }
        if exchanged || batches.iter().any(|batch| batch.is_gap) {
            return hub.end(shard);
        }
        for batch in batches {
            for revision in batch.events.chunk_by(|a, b| a.revision.main == b.revision.main) {
                let Some(event) = revision.iter().find_map(tree::told) else { continue };
                let removed: BTreeSet<Path> = revision
                    .iter()
                    .filter(|change| change.kind == EventKind::Delete)
                    .filter_map(|change| Path::of_key(&change.key))
                    .collect();
                hub.on_event(shard, &event, &removed);
            }
        }
    }

    /// One change, and the nodes that went with it.
    fn on_event(&mut self, shard: &Rc<Shard>, event: &Event, removed: &BTreeSet<Path>) {
        let mut concerned = removed.clone();
        concerned.extend(event.node.path.line());
        concerned.insert(Path::clean(b"/"));
        let ids: Vec<u64> =
            concerned.iter().filter_map(|path| self.of_path.get(path)).flatten().copied().collect();
        let mut text: Option<Bytes> = None;
        for id in ids {
            let Some(waiter) = self.waiters.get_mut(&id) else { continue };
            let wish = &waiter.wish;
            let times = event.tells(&wish.path, wish.recursive, removed.contains(&wish.path));
            if times == 0 {
                continue;
            }
            let text = text.get_or_insert_with(|| event.to_json(true).into()).clone();
            let index = event.node.modified;
            match &mut waiter.early {
                Some(early) if early.len() < UNTOLD_MAX => early.push((index, times, text)),
                Some(_) => {
                    waiter.mail.borrow_mut().end();
                    self.remove(shard, id);
                }
                None => {
                    if self.tell(id, index, times, &text) {
                        self.remove(shard, id);
                    }
                }
            }
        }
    }

    /// Tells a client of a change, so many times; true if it waits no more.
    fn tell(&mut self, id: u64, index: u64, times: usize, text: &Bytes) -> bool {
        let Some(waiter) = self.waiters.get_mut(&id) else { return true };
        if index < waiter.wish.since {
            return false;
        }
        let mut mail = waiter.mail.borrow_mut();
        let times = if waiter.wish.stream { times } else { 1 };
        for _ in 0..times {
            if mail.texts.len() >= UNTOLD_MAX {
                mail.end();
                return true;
            }
            mail.push(text.clone());
        }
        if !waiter.wish.stream {
            mail.end();
        }
        !waiter.wish.stream
    }

    fn remove(&mut self, shard: &Rc<Shard>, id: u64) {
        let Some(waiter) = self.waiters.remove(&id) else { return };
        shard.node.v2.counts.watchers.leave(1);
        if let Some(ids) = self.of_path.get_mut(&waiter.wish.path) {
            ids.remove(&id);
            if ids.is_empty() {
                self.of_path.remove(&waiter.wish.path);
            }
        }
        if self.waiters.is_empty() {
            shard.listen(Listener::V2, false);
        }
    }

    /// Lets everybody go.
    pub fn end(&mut self, shard: &Rc<Shard>) {
        let ids: Vec<u64> = self.waiters.keys().copied().collect();
        for id in ids {
            if let Some(waiter) = self.waiters.get(&id) {
                waiter.mail.borrow_mut().end();
            }
            self.remove(shard, id);
        }
    }
}
