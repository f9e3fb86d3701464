//! Messages between nodes: for each peer a queue, a task, and a connection on which they go one way, each as its
//! length in four bytes and then in raftpb. Nothing here is reliable, and raft needs no more: it sends again what is
//! still needed. So a peer that is dead or slow costs messages to itself alone, and nobody waits for it.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::{BufMut, BytesMut};
use prost::Message as _;
use raft::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use wal::codec;

use crate::{QUEUE_MAX, TICK, TIMEOUT, kv::State, node::Input};

/// The longest message, which is a snapshot.
const MESSAGE_BYTES_MAX: u32 = 1 << 30;

/// A way to the node at this address. What is put into the queue goes there, or is lost; it ends when the queue is dropped.
pub fn connect(address: &str) -> mpsc::Sender<Message> {
    let (queue, messages) = mpsc::channel(QUEUE_MAX);
    tokio::spawn(deliver(address.to_owned(), messages));
    queue
}

async fn deliver(address: String, mut queue: mpsc::Receiver<Message>) {
    while !queue.is_closed() {
        // One connection after the other. What waits when one fails is out of date when there is the next.
        send_all(&address, &mut queue).await.ok();
        while queue.try_recv().is_ok() {}
        sleep(TICK).await;
    }
}

async fn send_all(address: &str, queue: &mut mpsc::Receiver<Message>) -> Result<()> {
    let mut stream = timeout(TIMEOUT, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    // A peer says nothing here: when there is something to read, it has closed the connection.
    while let Some(message) = tokio::select! {
        _ = stream.read_u8() => None,
        message = queue.recv() => message,
    } {
        let mut frame = BytesMut::new();
        frame.put_u32(codec::message_len(&message).try_into()?);
        codec::encode_message(&message, &mut frame);
        timeout(TIMEOUT, stream.write_all(&frame)).await??;
    }
    Ok(())
}

/// Receives messages until the connection ends, or brings something else.
pub async fn receive(stream: TcpStream, inbox: mpsc::Sender<Input>) -> Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let length = stream.read_u32().await?;
        ensure!(length <= MESSAGE_BYTES_MAX, "a message of {length} bytes");
        // The buffer grows with what arrives, not with what is announced.
        let mut frame = Vec::new();
        (&mut stream).take(length.into()).read_to_end(&mut frame).await?;
        let message = codec::decode_message(&frame.into())?;
        if let Some(snapshot) = &message.snapshot {
            State::decode(snapshot.data.clone())?;
        }
        inbox.send(Input::Receive(message)).await?;
    }
}

/// Serves whoever connects to this address. If a connection does not end well, that is the other side's affair.
pub async fn accept<F>(address: &str, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Result<()>
where
    F: Future + Send + 'static,
{
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    let places = Arc::new(Semaphore::new(QUEUE_MAX));
    tokio::spawn(async move {
        while let Ok(place) = places.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let served = serve(stream);
                    tokio::spawn(async { (drop(served.await), drop(place)) });
                }
                // It fails, for instance, when there are no file handles left.
                Err(_) => sleep(TICK).await,
            }
        }
    });
    Ok(())
}

/// Host and port of a URL like `http://127.0.0.1:9021`.
pub fn address(url: &str) -> Result<String> {
    let address = url.strip_prefix("http://").unwrap_or_default().trim_end_matches('/');
    let (host, port) = address.rsplit_once(':').unwrap_or_default();
    ensure!(!host.is_empty() && port.parse::<u16>().is_ok(), "not like http://127.0.0.1:9021");
    Ok(address.to_owned())
}
