//! The time of a run: nanoseconds since one moment, and a timer that is finer than tokio's millisecond.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Counts from one moment. Copies count from the same.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that stands at zero now.
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Nanoseconds since the clock was started.
    pub fn now(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// Wakes a task at a given moment, to some ten microseconds. With tokio's timers a request would start up to
/// a millisecond late, and the server be blamed for it.
pub struct Timer {
    fd: AsyncFd<OwnedFd>,
    /// What it is set to, so that it is set once for each moment.
    due: Option<u64>,
}

impl Timer {
    /// A timer that is not set. It belongs to the runtime that it is made in.
    ///
    /// # Errors
    /// When the system has no more of them.
    pub fn new() -> io::Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[allow(
            deprecated,
            reason = "its successor wants a promise that only `unsafe` can give: that the number stays this file's; \
                      an `OwnedFd` that nobody else holds keeps it"
        )]
        let fd = AsyncFd::new(fd)?;
        Ok(Timer { fd, due: None })
    }

    /// Ready when `due` has come; else the task is woken then.
    ///
    /// # Errors
    /// When the system refuses, which it has no reason to.
    pub fn poll(&mut self, cx: &mut Context<'_>, clock: Clock, due: u64) -> Poll<io::Result<()>> {
        loop {
            let now = clock.now();
            if due <= now {
                self.due = None;
                return Poll::Ready(Ok(()));
            }
            if self.due != Some(due) {
                let wait = Duration::from_nanos(due - now);
                let value = Timespec {
                    tv_sec: wait.as_secs() as i64,
                    tv_nsec: i64::from(wait.subsec_nanos()),
                };
                let never = Timespec { tv_sec: 0, tv_nsec: 0 };
                let once = Itimerspec { it_interval: never, it_value: value };
                // Setting it also forgets that an earlier moment has come.
                timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::empty(), &once)?;
                self.due = Some(due);
            }
            ready!(self.fd.poll_read_ready(cx))?.clear_ready();
            self.due = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_timer_never_fires_before_its_moment() {
        let clock = Clock::start();
        let mut timer = Timer::new().unwrap();
        for step in [300_000, 1, 2_000_000] {
            let due = clock.now() + step;
            std::future::poll_fn(|cx| timer.poll(cx, clock, due)).await.unwrap();
            assert!(clock.now() >= due);
        }
    }
}
