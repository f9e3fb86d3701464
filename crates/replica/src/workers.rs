//! The four workers: all that the log, apply, flush and read threads do.
//!
//! A driver's thread is a loop of receive, `run`, send. `run` takes whatever has gathered, in order, and may be
//! given any number of jobs; a failure ends in [`Completion::Failed`], after which the worker does nothing more.

#[allow(unused_imports)]
use crate::job::Completion;
use crate::job::{ApplyDone, ApplyJob, FlushDone, FlushJob, LogDone, LogJob, ReadDone, ReadJob};

/// The log thread's work: append, one sync for all that waits, release what vouches for it.
#[derive(Debug)]
pub struct LogWorker {}

impl LogWorker {
    /// Runs the jobs with at most one sync for all appends.
    pub fn run(&mut self, _jobs: Vec<LogJob>) -> LogDone {
        unimplemented!("LogWorker::run")
    }
}

/// The apply thread's work: commands into the state, then publish, events, replies.
#[derive(Debug)]
pub struct ApplyWorker {}

impl ApplyWorker {
    /// Runs the jobs.
    pub fn run(&mut self, _jobs: Vec<ApplyJob>) -> ApplyDone {
        unimplemented!("ApplyWorker::run")
    }
}

/// The flush thread's work: frames to disk, syncs, seals, imports, reclaim.
#[derive(Debug)]
pub struct FlushWorker {}

impl FlushWorker {
    /// Runs the jobs.
    pub fn run(&mut self, _jobs: Vec<FlushJob>) -> FlushDone {
        unimplemented!("FlushWorker::run")
    }
}

/// A read thread's work; clone one per thread.
#[derive(Clone, Debug)]
pub struct ReadWorker {}

impl ReadWorker {
    /// Runs the jobs.
    pub fn run(&mut self, _jobs: Vec<ReadJob>) -> ReadDone {
        unimplemented!("ReadWorker::run")
    }
}
