//! Messages between nodes: for each peer a queue, a task, and a connection on which they go one way, each as its
//! length in four bytes and then in raftpb. Nothing here is reliable, and raft needs no more: it sends again what is
//! still needed. So a peer that is dead or slow costs messages to itself alone, and nobody waits for it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use bytes::{BufMut, BytesMut};
use prost::Message as _;
use raft::{Message, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use wal::codec;

use crate::{kv::State, node::Input};

/// Messages that wait for one peer; more are lost.
const QUEUE_MAX: usize = 256;
/// The longest message, which is a snapshot.
const MESSAGE_BYTES_MAX: u32 = 1 << 30;
/// Connections to one port at a time; who comes later waits.
const CONNECTIONS_MAX: usize = 256;
/// How long sending a message may take, and finding out whether a peer listens.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
const SEARCH_TIMEOUT: Duration = Duration::from_millis(200);
/// After a failure, until the next attempt.
const PAUSE: Duration = Duration::from_millis(100);

/// The ways to the other nodes: to each its address, and what waits for it.
#[derive(Default)]
pub struct Transport(BTreeMap<NodeId, (String, mpsc::Sender<Message>)>);

impl Transport {
    /// From now on this node is there.
    pub fn reach(&mut self, id: NodeId, url: &str) {
        let Some(address) = address(url) else { return };
        if self.0.get(&id).is_none_or(|(known, _)| known != address) {
            let (queue, messages) = mpsc::channel(QUEUE_MAX);
            tokio::spawn(deliver(address.to_owned(), messages));
            self.0.insert(id, (address.to_owned(), queue));
        }
    }

    /// What waits is still sent, but nothing more.
    pub fn forget(&mut self, id: NodeId) {
        self.0.remove(&id);
    }

    /// Never waits; false if the message is lost already.
    pub fn send(&self, message: Message) -> bool {
        self.0.get(&message.to).is_some_and(|(_, queue)| queue.try_send(message).is_ok())
    }
}

async fn deliver(address: String, mut queue: mpsc::Receiver<Message>) {
    while !queue.is_closed() {
        // One connection after the other. What waits when one fails is out of date when there is the next.
        send_all(&address, &mut queue).await.ok();
        while queue.try_recv().is_ok() {}
        sleep(PAUSE).await;
    }
}

async fn send_all(address: &str, queue: &mut mpsc::Receiver<Message>) -> Result<()> {
    let mut stream = timeout(SEND_TIMEOUT, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    loop {
        let message = tokio::select! {
            biased;
            // A peer says nothing here, so it has closed the connection.
            _ = stream.read_u8() => return Ok(()),
            message = queue.recv() => message.context("this peer is forgotten")?,
        };
        let mut frame = BytesMut::new();
        frame.put_u32(codec::message_len(&message).try_into()?);
        codec::encode_message(&message, &mut frame);
        timeout(SEND_TIMEOUT, stream.write_all(&frame)).await??;
    }
}

/// Receives messages until the connection ends, or brings something else.
pub async fn receive(stream: TcpStream, inbox: mpsc::Sender<Input>) {
    let mut stream = BufReader::new(stream);
    while let Ok(message) = receive_one(&mut stream).await {
        inbox.send(Input::Receive(message)).await.ok();
    }
}

async fn receive_one(stream: &mut BufReader<TcpStream>) -> Result<Message> {
    let length = stream.read_u32().await?;
    ensure!(length <= MESSAGE_BYTES_MAX, "a message of {length} bytes");
    // The buffer grows with what arrives, not with what is announced.
    let mut frame = Vec::new();
    stream.take(length.into()).read_to_end(&mut frame).await?;
    let message = codec::decode_message(&frame.into())?;
    if let Some(snapshot) = &message.snapshot {
        State::decode(snapshot.data.clone())?;
    }
    Ok(message)
}

/// Serves whoever connects to this address.
pub async fn accept<F>(address: &str, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::spawn(async move {
        while let Ok(place) = places.clone().acquire_owned().await {
            // It fails, for instance, when there are no file handles left.
            let Ok((stream, _)) = listener.accept().await else {
                sleep(PAUSE).await;
                continue;
            };
            let served = serve(stream);
            tokio::spawn(async { (served.await, drop(place)) });
        }
    });
    Ok(())
}

/// Whether anybody listens at one of these addresses.
pub async fn anybody(addresses: impl Iterator<Item = &str>) -> bool {
    for address in addresses {
        if let Ok(Ok(_)) = timeout(SEARCH_TIMEOUT, TcpStream::connect(address)).await {
            return true;
        }
    }
    false
}

/// Host and port of a URL like `http://127.0.0.1:9021`.
pub fn address(url: &str) -> Option<&str> {
    let address = url.strip_prefix("http://")?.trim_end_matches('/');
    let (host, port) = address.rsplit_once(':')?;
    (!host.is_empty() && port.parse::<u16>().is_ok()).then_some(address)
}
