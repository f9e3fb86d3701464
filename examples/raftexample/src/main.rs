//! A replicated key-value store in one small program: how the `raft` and `wal` crates are driven.
//!
//! ```text
//!            clients                                      other nodes
//!   change │         ▲ GET                                 │       ▲
//!   ┌──────▼─────────┴──┐                           ┌──────▼───────┴──┐
//!   │      http.rs      ├── Input ─┐     ┌─ Input ──┤  transport.rs   │    one thread: sockets
//!   └────────────────▲──┘          ▼     ▼          └──────────────▲──┘
//!                ┌───┴───┐       ┌─────────┐                       │
//!                │ kv.rs │◀──────┤ node.rs ├─────────── Message ───┘       one thread: raft, disk
//!                └───────┘       └─────────┘
//! ```

#![allow(clippy::disallowed_methods, reason = "what tells nodes and requests apart is random")]

mod http;
mod kv;
mod node;
mod transport;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, atomic::AtomicU64};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{ArgAction, Parser};
use tokio::sync::mpsc;
use tokio::time::{self, MissedTickBehavior};

use crate::node::{Input, Node};
use crate::transport::{Transport, accept, address, anybody, receive};

/// Raft's unit of time: a leader is heard once a tick, and missed after ten to twenty.
const TICK: Duration = Duration::from_millis(50);
/// Inputs on their way to the node; who has one more waits.
const INBOX_MAX: usize = 256;
/// How long the last words of a node that was removed may take.
const FAREWELL: Duration = Duration::from_millis(200);

/// A node of a replicated key-value store. It keeps its files in the working directory.
#[derive(Parser)]
struct Flags {
    /// Which of the peers this node is; the first is 1.
    #[arg(long, default_value_t = 1)]
    id: usize,
    /// The URLs of all peers, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:9021")]
    cluster: Vec<String>,
    /// The port for clients.
    #[arg(long, default_value_t = 9121)]
    port: u16,
    /// Join a running cluster; if none of the peers runs, found it.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1)]
    #[arg(default_value_t = false, default_missing_value = "true")]
    join: bool,
    /// Take a snapshot every so many entries, and keep as many for those who lag.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    snapshot_count: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Flags { id, cluster, port, join, snapshot_count } = Flags::parse();
    let is_fit = (1..=cluster.len()).contains(&id) && cluster.iter().all(|u| address(u).is_some());
    ensure!(is_fit, "--cluster must list URLs like http://127.0.0.1:9021, and --id be one's place");
    let own = address(&cluster[id - 1]).unwrap_or_default();

    // Should a cluster merely be out of reach, founding it anew does no harm: all founders write the same list, so it is the
    // same cluster; and the nodes of another one have longer logs, and do not vote for what needs a majority of the list.
    let others = cluster.iter().filter_map(|url| address(url)).filter(|other| *other != own);
    let is_joining = join && anybody(others).await;
    if join && !is_joining {
        eprintln!("node {id} is to join, but none of the listed nodes runs");
    }
    let founders = if is_joining { &[] } else { &cluster[..] };

    let (state, mut transport) = (Arc::new(Mutex::default()), Transport::default());
    (1..).zip(&cluster).for_each(|(peer, url)| transport.reach(peer, url));
    let random = RandomState::new().hash_one(id);
    let name = (id as u64, random);
    let node = Node::open(name, founders, transport, state.clone(), snapshot_count)?;

    // Whoever listens counts as running: so only now, when it is known how this node begins.
    let (inbox, inputs) = mpsc::channel(INBOX_MAX);
    let (to_node, clock) = (inbox.clone(), inbox.clone());
    accept(own, move |stream| receive(stream, to_node.clone())).await?;
    let api = http::Api { state, inbox, next_id: Arc::new(AtomicU64::new(random)) };
    accept(&format!("0.0.0.0:{port}"), move |stream| http::serve(stream, api.clone())).await?;
    tokio::spawn(async move {
        let mut ticks = time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while clock.send(Input::Tick).await.is_ok() {
            ticks.tick().await;
        }
    });
    tokio::task::spawn_blocking(move || node.run(inputs)).await??;
    time::sleep(FAREWELL).await;
    Ok(())
}
