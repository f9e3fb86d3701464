//! The Lease service. Grants and revokes go through the log; renewals and remaining times are asked of the
//! lease clock, which is the leader's: a follower's question is forwarded over the peer port.
//!
//! ```text
//!   question ──▶ replica ──┬─ time ──────────────────────────────▶ answer
//!                          ├─ forward{leader} ──▶ peers ──▶ time ─▶ answer
//!                          └─ nobody leads: asked again each 100 ms until the deadline
//! ```

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use bytes::Bytes;
use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
};
use replica::{Asker, Lane, LeaseAnswer, LeaseAsk, LeaseQuestion, LeaseRefusal, LeaseTime};
use state_machine::{Error, Header, Reply, Request};

use crate::grpc::{Call, decode, kv};
use crate::handle::{ForwardedLease, ForwardedQuestion, PeerEvent};
use crate::serve::limits::READS_PER_SHARD;
use crate::serve::shard::Shard;
use crate::serve::status::{Code, Status};
use crate::serve::stream::{Outgoing, Responder};

/// How long a question that found no leader rests before it is asked again.
const RETRY_MS: u64 = 100;

/// LeaseGrant.
pub fn grant(shard: &Rc<Shard>, call: Call, message: Bytes, respond: Responder) {
    let request = decode::<LeaseGrantRequest>(message).and_then(|request| {
        match request.ttl > state_machine::TTL_MAX {
            true => Err(Error::LeaseTtlTooLarge.into()),
            false => Ok(Request::lease_grant(request, shard.fresh_name())),
        }
    });
    kv::propose(shard, &call, request, Lane::Ordinary, respond);
}

/// LeaseRevoke. It frees something, so it is let through where other commands are not.
pub fn revoke(shard: &Rc<Shard>, call: Call, message: Bytes, respond: Responder) {
    let request = decode::<LeaseRevokeRequest>(message).map(Request::from);
    kv::propose(shard, &call, request, Lane::Priority, respond);
}

/// LeaseLeases: this member's own list.
pub fn leases(shard: &Rc<Shard>, respond: Responder) {
    let ids = shard.view.state.leases().into_iter().map(|lease| lease.id).collect();
    let header = shard.header();
    respond.reply(shard.message(|out| Reply::LeaseLeases { ids }.encode(&header, out)));
}

/// LeaseTimeToLive.
pub fn time_to_live(shard: &Rc<Shard>, call: Call, message: Bytes, respond: Responder) {
    match decode::<LeaseTimeToLiveRequest>(message) {
        Err(status) => respond.fail(&status),
        Ok(request) => Question {
            lease: request.id,
            asks: Asks::TimeToLive { respond, keys: request.keys },
            started_ms: call.started_ms,
            client_deadline: call.client_deadline,
            deadline_ms: call.deadline_ms(&shard.node.config),
            retry_ms: None,
        }
        .ask(shard),
    }
}

/// One LeaseKeepAlive stream, which ends behind the last answer once the client has ended its side.
#[derive(Default)]
pub struct Renewals {
    /// Questions that are not answered yet.
    under_way: Cell<usize>,
    ended: Cell<bool>,
}

/// One message of a LeaseKeepAlive stream.
pub fn keep_alive(
    shard: &Rc<Shard>,
    out: &Rc<RefCell<Outgoing>>,
    renewals: &Rc<Renewals>,
    message: Bytes,
) -> Result<(), Status> {
    let request: LeaseKeepAliveRequest = decode(message)?;
    let now = shard.now_ms();
    renewals.under_way.set(renewals.under_way.get() + 1);
    Question {
        lease: request.id,
        asks: Asks::KeepAlive {
            out: Rc::downgrade(out),
            renewals: renewals.clone(),
            // Taken now: whoever sees that a lease was renewed at a revision must not find that it was revoked
            // before. Later, this member may have applied a revoke that came behind the renewal.
            header: shard.header(),
        },
        started_ms: now,
        client_deadline: false,
        deadline_ms: now + shard.node.config.request_timeout().as_millis() as u64,
        retry_ms: None,
    }
    .ask(shard);
    Ok(())
}

/// The client of a LeaseKeepAlive stream has nothing more to ask: the stream ends behind what is under way.
pub fn keep_alive_ended(out: &Rc<RefCell<Outgoing>>, renewals: &Renewals) {
    renewals.ended.set(true);
    if renewals.under_way.get() == 0 {
        out.borrow_mut().finish(Status::ok());
    }
}

/// A question to the lease clock that is under way.
pub struct Question {
    lease: i64,
    asks: Asks,
    started_ms: u64,
    client_deadline: bool,
    deadline_ms: u64,
    /// When it is asked again, if it rests.
    retry_ms: Option<u64>,
}

enum Asks {
    KeepAlive { out: Weak<RefCell<Outgoing>>, renewals: Rc<Renewals>, header: Header },
    TimeToLive { respond: Responder, keys: bool },
}

impl Question {
    /// Whether nobody waits for it any more.
    pub fn is_gone(&mut self) -> bool {
        match &mut self.asks {
            Asks::KeepAlive { out, .. } => out.strong_count() == 0,
            Asks::TimeToLive { respond, .. } => respond.is_gone(),
        }
    }

    fn ask(self, shard: &Rc<Shard>) {
        if shard.questions.borrow().len() >= READS_PER_SHARD {
            return self.fail(shard, &Error::TooManyRequests.into());
        }
        let token = shard.token();
        let ask = self.for_replica(shard, token);
        shard.questions.borrow_mut().insert(token, self);
        shard.node.replica.ask_lease(ask);
    }

    fn for_replica(&self, shard: &Shard, token: u64) -> LeaseAsk {
        let question = match self.asks {
            Asks::KeepAlive { .. } => LeaseQuestion::KeepAlive,
            Asks::TimeToLive { .. } => LeaseQuestion::TimeToLive,
        };
        LeaseAsk { asker: Asker::Shard { shard: shard.number, token }, lease: self.lease, question }
    }

    /// The lease clock answers.
    pub fn on_answer(shard: &Rc<Shard>, answer: &LeaseAnswer) {
        let Asker::Shard { token, .. } = answer.asker else { return };
        let mut questions = shard.questions.borrow_mut();
        let Some(question) = questions.get_mut(&token) else { return };
        let status: Status = match answer.result {
            Ok(time) => {
                if matches!(time, LeaseTime::KeptAlive { .. }) {
                    shard.node.metrics.leases_renewed.add(1);
                }
                let question = questions.remove(&token).expect("found above");
                drop(questions);
                let keys = match (&question.asks, time) {
                    (Asks::TimeToLive { keys: true, .. }, LeaseTime::Remaining { .. }) => {
                        shard.view.state.lease_keys(answer.lease).unwrap_or_default()
                    }
                    _ => Vec::new(),
                };
                return question.reply(shard, ForwardedLease { time, keys });
            }
            Err(LeaseRefusal::Forward { leader }) => {
                let (lease, asks) = (question.lease, &question.asks);
                let question = match asks {
                    Asks::KeepAlive { .. } => ForwardedQuestion::KeepAlive,
                    Asks::TimeToLive { keys, .. } => ForwardedQuestion::TimeToLive { keys: *keys },
                };
                let event =
                    PeerEvent::AskLeader { shard: shard.number, token, leader, lease, question };
                return shard.node.peers.put(event);
            }
            Err(LeaseRefusal::NoLeader | LeaseRefusal::LeadershipLost) => {
                question.retry_ms = Some(shard.now_ms() + RETRY_MS);
                return;
            }
            Err(LeaseRefusal::ApplyTooSlow) => Error::TimeoutWaitAppliedIndex.into(),
            Err(LeaseRefusal::TooManyRequests) => Error::TooManyRequests.into(),
            Err(LeaseRefusal::Stopped) => Error::Stopped.into(),
        };
        let question = questions.remove(&token).expect("found above");
        drop(questions);
        question.fail(shard, &status);
    }

    /// The leader answers, or could not be asked; in the latter case there may soon be another.
    pub fn on_forwarded(shard: &Rc<Shard>, token: u64, result: Result<ForwardedLease, Status>) {
        let mut questions = shard.questions.borrow_mut();
        match result {
            Ok(lease) => {
                let question = questions.remove(&token);
                drop(questions);
                if let Some(question) = question {
                    question.reply(shard, lease);
                }
            }
            Err(status) if status.code == Code::Unavailable as u32 => {
                if let Some(question) = questions.get_mut(&token) {
                    question.retry_ms = Some(shard.now_ms() + RETRY_MS);
                }
            }
            Err(status) => {
                let question = questions.remove(&token);
                drop(questions);
                if let Some(question) = question {
                    question.fail(shard, &status);
                }
            }
        }
    }

    /// There may be a leader now: what rests is asked again at once.
    pub fn on_leader(shard: &Rc<Shard>) {
        for question in shard.questions.borrow_mut().values_mut() {
            question.retry_ms = question.retry_ms.map(|_| 0);
        }
        Question::on_tick(shard, shard.now_ms());
    }

    /// Gives up what is too late, and asks again what rests.
    pub fn on_tick(shard: &Rc<Shard>, now_ms: u64) {
        let (mut late, mut again) = (Vec::new(), Vec::new());
        for (token, question) in shard.questions.borrow_mut().iter_mut() {
            if question.deadline_ms <= now_ms {
                late.push(*token);
            } else if question.retry_ms.is_some_and(|at| at <= now_ms) {
                question.retry_ms = None;
                again.push(question.for_replica(shard, *token));
            }
        }
        again.into_iter().for_each(|ask| shard.node.replica.ask_lease(ask));
        for token in late {
            let question = shard.questions.borrow_mut().remove(&token);
            if let Some(question) = question {
                let status = match question.client_deadline {
                    true => shard.timed_out(question.started_ms, true),
                    false => Error::Timeout.into(),
                };
                question.fail(shard, &status);
            }
        }
    }

    fn reply(self, shard: &Rc<Shard>, lease: ForwardedLease) {
        match self.asks {
            Asks::TimeToLive { respond, .. } => {
                let header = shard.header();
                let (ttl, granted_ttl) = match lease.time {
                    LeaseTime::Remaining { remaining, granted } => (remaining, granted),
                    LeaseTime::KeptAlive { ttl } => (ttl, ttl),
                    LeaseTime::Unknown => (-1, 0),
                };
                let keys = lease.keys;
                let reply = Reply::LeaseTimeToLive { id: self.lease, ttl, granted_ttl, keys };
                respond.reply(shard.message(|out| reply.encode(&header, out)));
            }
            Asks::KeepAlive { out, renewals, header } => {
                let Some(out) = out.upgrade() else { return };
                let ttl = match lease.time {
                    LeaseTime::KeptAlive { ttl } => ttl,
                    LeaseTime::Remaining { .. } | LeaseTime::Unknown => 0,
                };
                let reply = Reply::LeaseKeepAlive { id: self.lease, ttl };
                out.borrow_mut().push(shard.message(|bytes| reply.encode(&header, bytes)));
                renewals.under_way.set(renewals.under_way.get() - 1);
                if renewals.ended.get() {
                    keep_alive_ended(&out, &renewals);
                }
            }
        }
    }

    fn fail(self, _shard: &Rc<Shard>, status: &Status) {
        match self.asks {
            Asks::TimeToLive { respond, .. } => respond.fail(status),
            Asks::KeepAlive { out, .. } => {
                if let Some(out) = out.upgrade() {
                    out.borrow_mut().finish(status.clone());
                }
            }
        }
    }
}
