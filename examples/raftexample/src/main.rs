//! A replicated key-value store in one small program: how the `raft` and `wal` crates are driven.
//!
//! ```text
//!   clients ── change ─▶ http.rs ───────── Input ──▶ ┌─────────┐
//!           ◀── GET ──── http.rs ◀── kv.rs ◀──────── │ node.rs │    raft and the disk, in a thread of their own;
//!   nodes ── Message ──▶ transport.rs ──── Input ──▶ │         │    the sockets have another
//!         ◀── Message ── transport.rs ◀───────────── └─────────┘
//! ```

mod http;
mod kv;
mod node;
mod transport;

use std::time::Duration;

use anyhow::{Context, Result};
use clap::{ArgAction, Parser};
use tokio::time::{sleep, timeout};
use tokio::{net::TcpStream, sync::mpsc};

use crate::node::Node;
use crate::transport::{accept, address, receive};

/// Raft's unit of time: a leader is heard once a tick, and missed after ten to twenty.
const TICK: Duration = Duration::from_millis(50);
/// How long a client's change may take, or sending a message.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Connections to a port and inputs of a node, where one more waits; messages for a peer, where one more is lost.
const QUEUE_MAX: usize = 256;

/// A node of a replicated key-value store. It keeps its files in the working directory.
#[derive(Parser)]
struct Flags {
    /// Which of the peers this node is; the first is 1.
    #[arg(long, default_value_t = 1)]
    id: usize,
    /// The URLs of all peers, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = address, default_value = "http://127.0.0.1:9021")]
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

/// The node has this thread to itself, and waits for the disk in it.
#[tokio::main(worker_threads = 1)]
async fn main() -> Result<()> {
    let Flags { id, cluster, port, join, snapshot_count } = Flags::parse();
    let own = cluster.get(id.wrapping_sub(1)).context("--id is no place in --cluster")?;
    // Should a cluster merely be out of reach, founding it anew does no harm: all founders write the same list, so it is the
    // same cluster; and the nodes of another one have longer logs, and do not vote for what needs a majority of the list.
    let mut is_joining = false;
    for peer in cluster.iter().filter(|peer| join && *peer != own) {
        is_joining |= matches!(timeout(4 * TICK, TcpStream::connect(peer)).await, Ok(Ok(_)));
    }
    let node = Node::open(id as u64, &cluster, is_joining, snapshot_count)?;

    // Whoever listens counts as running: so only now, when it is known how this node begins.
    let (inbox, inputs) = mpsc::channel(QUEUE_MAX);
    let (state, to_node) = (node.state.clone(), inbox.clone());
    accept(own, move |stream| receive(stream, to_node.clone())).await?;
    let serve = move |stream| http::serve(stream, state.clone(), inbox.clone());
    accept(&format!("0.0.0.0:{port}"), serve).await?;
    node.run(inputs).await?;
    // Its last words are on their way.
    sleep(4 * TICK).await;
    Ok(())
}
