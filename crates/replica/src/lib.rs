//! One member of Quorate, whole, without threads: its mind and its pipeline.
//!
//! ```text
//!                 Input ──────────▶ ┌─────────┐ ──────▶ messages, answers, notices
//!   (ticks, proposals, reads,       │ Replica │
//!    messages, completions)   ┌───▶ └─────────┘ ────┐
//!                             │                     │ jobs
//!                 completions │                     ▼
//!                  ┌──────────┴─────────────────────────────────────┐
//!                  │ LogWorker   ApplyWorker  FlushWorker  ReadWorker│
//!                  └───┬──────────────┬─────────────────────────────┘
//!                      │              └──▶ per shard: events, then replies
//!                      └──▶ messages that vouch for what is durable
//! ```
//!
//! The replica decides everything and does no I/O; the workers do all of it and decide nothing. A driver (the
//! server's threads, or a simulator in one thread) moves inputs, jobs, completions and messages between them:
//!
//! - [`open`] recovers the member and gives the five parts and a [`View`] for everybody.
//! - [`Replica::handle`] any number of times, then [`Replica::output`]; each list of jobs goes to its worker.
//! - each worker's `run` takes all jobs that wait and gives a `…Done`: its completion goes back as
//!   [`Input::Done`]; the messages of a [`LogDone`] go to the peers, the [`ToShard`]s of an [`ApplyDone`] to the
//!   shards, after the completion. With [`Config::trace`] each part says what it has done, as [`Trace`]s.
//! - a shard names its proposals by [`Waiters`], and gathers its reads in [`ReadWaits`].
//! - [`Notice::Fatal`] ends the process.
//!
//! The order between log and store is decided in `pipeline.rs`, the order of the start in `recovery.rs`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod forgotten;
mod input;
mod job;
mod lease_clock;
mod output;
mod pipeline;
mod proposal;
mod read;
mod recovery;
mod replica;
mod snapshot;
mod trace;
mod unsynced;
mod view;
mod waiters;
mod workers;

pub use config::{Bootstrap, Config, Founder, Identity, Limits, SegmentBytes};
pub use input::{Asker, Input, Lane, LeaseAsk, LeaseQuestion, Proposal, Proposals, ReadBatch};
pub use job::{
    Append, ApplyDone, ApplyJob, ApplyReport, Completion, CutFrame, Exchanged, Failure, FlushDone,
    FlushJob, FlushReport, LogDone, LogJob, LogReport, ReadDone, ReadJob, ReadReport, Verdict,
};
pub use output::{
    Answer, Applied, LeaseAnswer, LeaseRefusal, LeaseTime, Notice, Output, Refusal, Space, ToShard,
};
pub use recovery::{OpenError, Opened, identity, open};
pub use replica::Replica;
pub use snapshot::{Imported, Incoming, OutgoingSnapshot, Received, Receptions, SnapshotStream};
pub use trace::{Said, Trace, Traces, Tracing};
pub use view::View;
pub use waiters::{Names, ReadWaits, SHARDS_MAX, Shard, Waiters, shard_of};
pub use workers::{ApplyWorker, FlushWorker, LogWorker, ReadWorker};
