//! The threads that run seeds, and the line that says how far they are.
//!
//! Threads share nothing but the number of the next seed: each runs whole seeds. What comes of them is taken in the order
//! of the seeds, however many threads there are, so that what is said of them is the same.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How often the line is written anew on a terminal, and how often a line is written elsewhere.
const REDRAW: Duration = Duration::from_millis(200);
const RETELL: Duration = Duration::from_secs(30);

/// Does so many pieces of work, numbered from 0, on so many threads; `take` gets what comes of each, in their order, and
/// says whether to go on.
pub fn work<T: Send>(
    jobs: usize,
    pieces: u64,
    work: &(dyn Fn(u64) -> T + Sync),
    take: &mut dyn FnMut(T) -> bool,
) {
    let next = AtomicU64::new(0);
    let enough = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, next, enough) = (sender.clone(), &next, &enough);
            scope.spawn(move || {
                while !enough.load(SeqCst) {
                    let number = next.fetch_add(1, SeqCst);
                    if number >= pieces || sender.send((number, work(number))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let (mut due, mut early) = (0, BTreeMap::new());
        for (number, result) in receiver {
            early.insert(number, result);
            while let Some(result) = early.remove(&due).filter(|_| !enough.load(SeqCst)) {
                due += 1;
                if !take(result) {
                    enough.store(true, SeqCst);
                }
            }
        }
    });
}

/// The line of progress, on standard error.
pub struct Progress {
    started: Instant,
    told: Instant,
    is_terminal: bool,
}

impl Progress {
    /// Begins now.
    pub fn new() -> Progress {
        let now = Instant::now();
        Progress { started: now, told: now, is_terminal: std::io::stderr().is_terminal() }
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Writes the line if it is time, over the last one on a terminal, below it elsewhere. It is told the seconds since
    /// the beginning.
    pub fn tell(&mut self, line: impl FnOnce(u64) -> String) {
        let pause = if self.is_terminal { REDRAW } else { RETELL };
        if self.told.elapsed() < pause {
            return;
        }
        self.told = Instant::now();
        let (before, after) = if self.is_terminal { ("\r", "\x1b[K") } else { ("", "\n") };
        let mut stderr = std::io::stderr().lock();
        // Whoever does not look at it misses nothing.
        write!(stderr, "{before}{}{after}", line(self.elapsed().as_secs()))
            .and_then(|()| stderr.flush())
            .ok();
    }

    /// Takes the line away, so that something else can be said.
    pub fn clear(&self) {
        if self.is_terminal {
            write!(std::io::stderr(), "\r\x1b[K").ok();
        }
    }
}

/// The time that all threads of this process have spent on a core; `None` where nobody tells.
pub fn core_time() -> Option<Duration> {
    // A core that others need too is not slower for it. Times are counted in hundredths of a second on every Linux.
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |place: usize| fields.get(place)?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * (ticks(11)? + ticks(12)?)))
}
