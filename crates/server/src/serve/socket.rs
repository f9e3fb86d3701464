//! A TCP socket that keeps what is written to it until it is told to flush.
//!
//! h2 flushes whenever it finds nothing more to read, which would be a system call for every reply or two. So
//! the socket that h2 is given only gathers, and the connection's task, at the end of its turn, calls
//! [`Handle::poll_flush_now`]: one write for all that the turn has answered. Writes are not vectored, for then
//! h2 would hand over each reply of 256 bytes or more in a slice and a system call of its own.
//!
//! The socket can also be held: a connection whose proposals the replica has no room for is not read until
//! there is, so that its client's window, and not our memory, takes the pressure.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::serve::authority::{Mender, Seen};
use crate::serve::limits::CORK_BYTES;

/// Bytes read from the system at a time.
const READ_BYTES: usize = 32 << 10;

struct Inner {
    tcp: TcpStream,
    /// Of an HTTP/2 connection: what passes its bytes on.
    mender: Option<Mender>,
    /// Read from the socket and not yet taken: `ready[taken..]`.
    ready: Vec<u8>,
    taken: usize,
    /// Written and not yet sent: `out[sent..]`.
    out: Vec<u8>,
    sent: usize,
    corked: bool,
    held: bool,
    /// Something was read since this was asked last.
    heard: bool,
    /// Bytes that the system has taken, all in all.
    sent_total: u64,
    reader: Option<Waker>,
}

impl Inner {
    /// Sends what was gathered.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            match Pin::new(&mut self.tcp).poll_write(cx, &self.out[self.sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(bytes)) => {
                    self.sent += bytes;
                    self.sent_total += bytes as u64;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.out.clear();
        self.sent = 0;
        // A burst must not keep its memory for ever.
        if self.out.capacity() > 2 * CORK_BYTES {
            self.out = Vec::with_capacity(CORK_BYTES / 4);
        }
        Poll::Ready(Ok(()))
    }
}

/// What h2 or hyper reads from and writes to.
pub struct Socket(Rc<RefCell<Inner>>);

/// The connection's own hold on its socket.
#[derive(Clone)]
pub struct Handle(Rc<RefCell<Inner>>);

/// Wraps a socket of which `first` has been read already. It starts uncorked. The bytes of an HTTP/2 connection
/// pass through a [`Mender`].
pub fn wrap(tcp: TcpStream, first: Vec<u8>, is_http2: bool) -> (Socket, Handle) {
    let mut mender = is_http2.then(Mender::default);
    let ready = match &mut mender {
        None => first,
        Some(mender) => {
            let mut ready = Vec::with_capacity(first.len());
            mender.push(&first, &mut ready);
            ready
        }
    };
    let inner = Rc::new(RefCell::new(Inner {
        tcp,
        mender,
        ready,
        taken: 0,
        out: Vec::new(),
        sent: 0,
        corked: false,
        held: false,
        heard: false,
        sent_total: 0,
        reader: None,
    }));
    (Socket(inner.clone()), Handle(inner))
}

impl Handle {
    /// From now on only [`Handle::poll_flush_now`] sends (and a write beyond [`CORK_BYTES`]).
    pub fn cork(&self) {
        self.0.borrow_mut().corked = true;
    }

    /// Sends everything gathered.
    pub fn poll_flush_now(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(cx)
    }

    /// What has passed of which h2 does not tell, since this was asked last.
    pub fn take_seen(&self) -> Seen {
        self.0.borrow_mut().mender.as_mut().map_or(Seen::default(), Mender::take_seen)
    }

    /// Whether the peer said anything since this was asked last, or may not because it is held.
    pub fn take_heard(&self) -> bool {
        let mut inner = self.0.borrow_mut();
        std::mem::take(&mut inner.heard) || inner.held
    }

    /// Bytes that the system has taken, all in all.
    pub fn sent_total(&self) -> u64 {
        self.0.borrow().sent_total
    }

    /// Adds bytes behind everything that was written.
    pub fn write(&self, bytes: &[u8]) {
        self.0.borrow_mut().out.extend_from_slice(bytes);
    }

    /// Ends our side, and reads on without looking until the peer has ended its own: else the system would
    /// throw away what the peer has not read yet.
    pub async fn linger(&self) {
        let ended = poll_fn(|cx| {
            let mut inner = self.0.borrow_mut();
            match inner.poll_send(cx) {
                Poll::Ready(Ok(())) => Pin::new(&mut inner.tcp).poll_shutdown(cx),
                other => other,
            }
        })
        .await;
        if ended.is_err() {
            return;
        }
        let mut space = vec![0; READ_BYTES];
        // An error ends it as well as the end.
        while poll_fn(|cx| {
            let mut read = ReadBuf::new(&mut space);
            let mut inner = self.0.borrow_mut();
            Pin::new(&mut inner.tcp).poll_read(cx, &mut read).map_ok(|()| read.filled().len())
        })
        .await
        .is_ok_and(|bytes| bytes > 0)
        {}
    }

    /// Stops or resumes reading.
    pub fn hold(&self, held: bool) {
        let mut inner = self.0.borrow_mut();
        inner.held = held;
        if let Some(reader) = inner.reader.take().filter(|_| !held) {
            reader.wake();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        if inner.held {
            inner.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let inner = &mut *inner;
        while inner.taken == inner.ready.len() {
            let Some(mender) = &mut inner.mender else {
                return Pin::new(&mut inner.tcp).poll_read(cx, buffer);
            };
            let mut space = [MaybeUninit::uninit(); READ_BYTES];
            let mut read = ReadBuf::uninit(&mut space);
            match Pin::new(&mut inner.tcp).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if read.filled().is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
            inner.heard = true;
            inner.ready.clear();
            inner.taken = 0;
            mender.push(read.filled(), &mut inner.ready);
        }
        let rest = &inner.ready[inner.taken..];
        let taken = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..taken]);
        inner.taken += taken;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        if inner.out.len() - inner.sent >= CORK_BYTES {
            match inner.poll_send(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        inner.out.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        match inner.corked {
            true => Poll::Ready(Ok(())),
            false => inner.poll_send(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        match inner.poll_send(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut inner.tcp).poll_shutdown(cx),
            other => other,
        }
    }

    fn is_write_vectored(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_corked_socket_sends_at_flush_and_not_before() {
        let (mut client, server) = pair().await;
        let (mut socket, handle) = wrap(server, Vec::new(), false);
        handle.cork();
        socket.write_all(b"one").await.unwrap();
        socket.flush().await.unwrap();
        socket.write_all(b"two").await.unwrap();
        assert_eq!(client.try_read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        poll_fn(|cx| handle.poll_flush_now(cx)).await.unwrap();
        let mut got = [0; 6];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"onetwo");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_first_bytes_are_read_again_and_a_held_socket_is_not_read() {
        let (mut client, server) = pair().await;
        let (mut socket, handle) = wrap(server, b"PRI".to_vec(), false);
        client.write_all(b" * ").await.unwrap();
        let mut got = [0; 6];
        socket.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"PRI * ");

        client.write_all(b"x").await.unwrap();
        handle.hold(true);
        let mut one = [0; 1];
        {
            let mut read = std::pin::pin!(socket.read_exact(&mut one));
            poll_fn(|cx| {
                assert!(read.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            handle.hold(false);
            read.await.unwrap();
        }
        assert_eq!(&one, b"x");
    }
}
