//! The network between members, which can be cut in one direction or in both.
//!
//! ```text
//!   member 0 ── dials the url of 1 ──▶ our listener ── dials where 1 listens ──▶ member 1
//!                                        │      ▲
//!                                        ▼      │   what comes along a way that is cut is held
//! ```
//!
//! It needs no rights and changes nothing outside this process. Members advertise our listeners; who dials is told by the
//! header that peers send. What is on its way when a link is cut waits, as packets do that are sent again and again, and
//! comes when the link is whole; a connection that is opened meanwhile waits for its first answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Where a peer says who it is.
const FROM: &str = "x-server-from:";

/// How long the head of a request may be.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// From whom to whom, by their places.
type Way = (usize, usize);

/// What is known of the members, and which ways are cut.
#[derive(Clone, Default)]
struct State {
    /// Places by member ids, in lower case hexadecimal.
    places: BTreeMap<String, usize>,
    /// Nothing comes through here.
    cut: BTreeSet<Way>,
}

/// The links of a cluster; they end with the runtime.
#[derive(Clone, Default)]
pub struct Network {
    state: Arc<watch::Sender<State>>,
    /// How often something was held on each way because it was cut.
    held: Arc<Mutex<BTreeMap<Way, u64>>>,
}

impl Network {
    /// For each member, where we listen and where it does.
    pub async fn start(addresses: &[(SocketAddrV4, SocketAddrV4)]) -> Network {
        let network = Network::default();
        for (to, (ours, theirs)) in addresses.iter().copied().enumerate() {
            let listener = TcpListener::bind(ours).await.unwrap();
            let network = network.clone();
            tokio::spawn(async move {
                loop {
                    let (dialler, _) = listener.accept().await.unwrap();
                    // A connection that breaks is the members' affair.
                    tokio::spawn(carry(dialler, to, theirs, network.clone()));
                }
            });
        }
        network
    }

    /// Which member has which id.
    pub fn know(&self, ids: &[u64]) {
        let places = ids.iter().enumerate().map(|(place, id)| (format!("{id:x}"), place));
        self.state.send_modify(|state| state.places = places.collect());
    }

    /// Nothing comes through from the one to the other.
    pub fn cut(&self, from: usize, to: usize) {
        self.state.send_modify(|state| {
            state.cut.insert((from, to));
        });
    }

    /// Everything comes through again, and first what was held.
    pub fn mend(&self, from: usize, to: usize) {
        self.state.send_modify(|state| {
            state.cut.remove(&(from, to));
        });
    }

    /// How often something on its way from the one to the other was held, so far.
    pub fn held(&self, from: usize, to: usize) -> u64 {
        self.held.lock().unwrap().get(&(from, to)).copied().unwrap_or_default()
    }
}

async fn carry(
    mut dialler: TcpStream,
    to: usize,
    address: SocketAddrV4,
    network: Network,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        if dialler.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let text = String::from_utf8_lossy(&head).to_lowercase();
    let from = text.lines().find_map(|line| line.strip_prefix(FROM)).map(|id| id.trim().to_owned());
    let mut listener = TcpStream::connect(address).await?;
    dialler.set_nodelay(true)?;
    listener.set_nodelay(true)?;
    let there = Gate { network: network.clone(), from: from.clone(), to, is_back: false };
    let back = Gate { network, from, to, is_back: true };
    there.pass().await;
    listener.write_all(&head).await?;
    let (from_dialler, to_dialler) = dialler.into_split();
    let (from_listener, to_listener) = listener.into_split();
    tokio::select! {
        ended = pump(from_dialler, to_listener, there) => ended,
        ended = pump(from_listener, to_dialler, back) => ended,
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, gate: Gate) -> std::io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        gate.pass().await;
        to.write_all(&bytes[..count]).await?;
    }
}

/// What all bytes of one direction of a connection come through.
struct Gate {
    network: Network,
    /// The id of who dialled, if he said it.
    from: Option<String>,
    to: usize,
    /// From who listens to who dialled.
    is_back: bool,
}

impl Gate {
    /// Waits until the way is not cut.
    async fn pass(&self) {
        let is_cut = |state: &State| {
            let from = *state.places.get(self.from.as_ref()?)?;
            let way = if self.is_back { (self.to, from) } else { (from, self.to) };
            state.cut.contains(&way).then_some(way)
        };
        let mut state = self.network.state.subscribe();
        let cut = is_cut(&state.borrow());
        if let Some(way) = cut {
            *self.network.held.lock().unwrap().entry(way).or_default() += 1;
            // We hold the sender ourselves, so this ends when the way is mended and not before.
            drop(state.wait_for(|state| is_cut(state).is_none()).await);
        }
    }
}
