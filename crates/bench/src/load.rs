//! A load: its lanes on their threads, from the first connection to the last answer.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use tokio::task::LocalSet;

use crate::lane::{Lane, Role, Shared};
use crate::pace::Pace;
use crate::record::Record;
use crate::usage::Cpu;
use crate::workload::{Data, QUIET_KEY, Source, WATCHED_KEY, Workload};

/// Puts of a watched key under way at a time: so many that the fan-out, not one put's latency, is measured.
const WRITES_AT_A_TIME: usize = 16;
/// How often the progress line is written.
const PROGRESS: Duration = Duration::from_secs(1);
/// How often the end of a load that may be stopped is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// What is sent, by how many, and for how long.
#[derive(Debug, Clone)]
pub struct Load {
    /// The work.
    pub workload: Workload,
    /// Keys, values, leases.
    pub data: Data,
    /// Clients, each with one request at a time; at least one.
    pub clients: usize,
    /// Connections that they share; at least one.
    pub connections: usize,
    /// Operations in all; `None` if the time alone ends it.
    pub total: Option<u64>,
    /// For how long at most.
    pub duration: Option<Duration>,
    /// Operations a second; `None` is as many as are answered.
    pub rate: Option<f64>,
    /// Threads that generate it; at least one.
    pub threads: usize,
    /// Watchers of a key that nobody writes, on as many connections again.
    pub bystanders: u64,
    /// Watchers of the written key that never read; on one connection.
    pub stopped: u64,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Latencies, time line, errors.
    pub record: Record,
    /// From the start to the last answer.
    pub elapsed: Duration,
    /// What the generator itself used of a processor, in nanoseconds.
    pub own_cpu_ns: u64,
}

impl Outcome {
    /// Operations a second.
    pub fn rate(&self) -> f64 {
        match self.elapsed.as_secs_f64() {
            0.0 => 0.0,
            seconds => self.record.operations as f64 / seconds,
        }
    }
}

/// Told while a load runs.
pub trait Observer {
    /// All is connected; the first request is sent when this returns.
    fn on_start(&mut self) {}
    /// The last answer has come.
    fn on_end(&mut self) {}
    /// Whether the load shall end now. Asked often.
    fn is_enough(&mut self) -> bool {
        false
    }
}

/// Nobody.
impl Observer for () {}

impl Load {
    /// Puts it on these endpoints, of which there is at least one. `progress` is what stands before the line that
    /// is shown while it runs; none is shown if it is empty, or if nobody sits at a terminal.
    pub fn run(
        &self,
        endpoints: &[SocketAddr],
        progress: &str,
        observer: &mut dyn Observer,
    ) -> Outcome {
        let connections = self.connections.clamp(1, self.clients.max(1));
        let roles = self.roles(connections);
        let working = roles.iter().filter(|(role, _)| role.works()).count();
        let requests = self.total.map(|total| match self.workload {
            Workload::Watch { watchers } => total.div_ceil(watchers.max(1)),
            _ => total,
        });
        let shared = Arc::new(Shared::new(requests, self.duration, working));
        let threads = self.threads.clamp(1, roles.len());
        let barrier = Arc::new(Barrier::new(threads + 1));
        let done = AtomicBool::new(false);
        let mut shares: Vec<Vec<(usize, Role, usize)>> = (0..threads).map(|_| Vec::new()).collect();
        for (place, (role, clients)) in roles.into_iter().enumerate() {
            shares[place % threads].push((place, role, clients));
        }
        let mut record = Record::default();
        let mut own_cpu_ns = 0;
        std::thread::scope(|scope| {
            let generators: Vec<_> = shares
                .into_iter()
                .map(|lanes| {
                    let (shared, barrier) = (shared.clone(), barrier.clone());
                    scope.spawn(move || generate(&shared, &barrier, lanes, endpoints))
                })
                .collect();
            barrier.wait();
            observer.on_start();
            shared.start();
            let before = Cpu::own();
            barrier.wait();
            scope.spawn(|| report(&shared, progress, &done));
            while generators.iter().any(|generator| !generator.is_finished()) {
                std::thread::sleep(LOOK);
                if observer.is_enough() {
                    shared.stop.store(true, Ordering::Relaxed);
                }
            }
            own_cpu_ns = Cpu::own().since(&before);
            done.store(true, Ordering::Relaxed);
            for generator in generators {
                match generator.join() {
                    Ok(part) => record.join(&part),
                    Err(_) => record.failed("a generator thread ended with a panic", 1),
                }
            }
        });
        observer.on_end();
        record.failed("not sent: no server could be reached", shared.unsent());
        if let Workload::Watch { .. } = self.workload {
            record.failed("events that did not come", shared.missing_events());
        }
        let elapsed = Duration::from_nanos(record.last_ns);
        Outcome { record, elapsed, own_cpu_ns }
    }

    /// The lanes: each one's role and how many clients share it.
    fn roles(&self, connections: usize) -> Vec<(Role, usize)> {
        let mut roles = Vec::new();
        let source = |place: usize| Box::new(Source::new(self.workload, &self.data, place as u64));
        // Shares differ by one at most, and none is lost.
        let part = |whole: u64, place: usize| {
            let (place, of) = (place as u64, connections as u64);
            whole * (place + 1) / of - whole * place / of
        };
        match self.workload {
            Workload::Watch { watchers } => {
                for place in 0..connections {
                    let clients = part(self.clients as u64, place).max(1) as usize;
                    let watchers = part(watchers, place);
                    if watchers > 0 {
                        roles.push((
                            Role::Watch { key: WATCHED_KEY, watchers, reads: true },
                            clients,
                        ));
                    }
                }
                // A rate is of events, as all rates are; the writer puts that many fewer.
                let pace = self.rate.map(|rate| Pace::new(rate / watchers.max(1) as f64, 0, 1));
                roles.push((Role::Write { source: source(0), pace }, WRITES_AT_A_TIME));
            }
            _ => {
                for place in 0..connections {
                    let clients = part(self.clients as u64, place) as usize;
                    let pace =
                        self.rate.map(|rate| Pace::new(rate, place as u64, connections as u64));
                    roles.push((Role::Work { source: source(place), pace }, clients));
                }
            }
        }
        if self.bystanders > 0 {
            for place in 0..connections {
                let watchers = part(self.bystanders, place);
                if watchers > 0 {
                    roles.push((Role::Watch { key: QUIET_KEY, watchers, reads: true }, 16));
                }
            }
        }
        if self.stopped > 0 {
            roles.push((Role::Watch { key: WATCHED_KEY, watchers: self.stopped, reads: false }, 1));
        }
        roles
    }
}

/// One thread: connects its lanes, waits for the others, and lets them run.
fn generate(
    shared: &Arc<Shared>,
    barrier: &Barrier,
    lanes: Vec<(usize, Role, usize)>,
    endpoints: &[SocketAddr],
) -> Record {
    let record = Rc::new(RefCell::new(Record::default()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            barrier.wait();
            barrier.wait();
            record.borrow_mut().failed(&format!("runtime: {error}"), 1);
            return record.take();
        }
    };
    let local = LocalSet::new();
    let lanes: Vec<Lane> = lanes
        .into_iter()
        .map(|(place, role, clients)| {
            Lane::new(shared.clone(), record.clone(), role, endpoints.to_vec(), place, clients)
        })
        .collect();
    let mut open = Vec::new();
    local.block_on(&runtime, async {
        // One after the other: a thousand at once would overrun a server's queue of new connections.
        for mut lane in lanes {
            lane.open().await;
            open.push(lane);
        }
    });
    barrier.wait();
    barrier.wait();
    local.block_on(&runtime, async {
        // A lane bounds its turns itself; tokio's budget would end them in the middle.
        let tasks: Vec<_> = open
            .into_iter()
            .map(|lane| tokio::task::spawn_local(tokio::task::unconstrained(lane.run())))
            .collect();
        for task in tasks {
            if task.await.is_err() {
                record.borrow_mut().failed("a connection's task ended with a panic", 1);
            }
        }
    });
    drop(local);
    record.take()
}

/// Shows how it goes.
fn report(shared: &Shared, title: &str, done: &AtomicBool) {
    if title.is_empty() || !std::io::stderr().is_terminal() {
        return;
    }
    let began = Instant::now();
    let (mut last, mut shown) = (0, began);
    while !done.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK);
        let since = shown.elapsed();
        if since < PROGRESS {
            continue;
        }
        let answered = shared.answered.load(Ordering::Relaxed);
        let rate = (answered - last) as f64 / since.as_secs_f64();
        let failed = shared.failed.load(Ordering::Relaxed);
        let seconds = began.elapsed().as_secs();
        eprint!(
            "\r{title}: {seconds} s, {answered} done, {rate:.0} a second, {failed} errors\x1b[K"
        );
        (last, shown) = (answered, Instant::now());
    }
    eprint!("\r\x1b[K");
}
