//! The client's TCP socket: what is written waits for the end of the turn, what is read comes in large pieces.
//!
//! h2 flushes as soon as it finds nothing more to read, which would be a system call for each request or two.
//! Here a turn of a connection is one write, as in the server (`server/serve/socket.rs`).

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes asked of the system at a time.
const READ_BYTES: usize = 64 << 10;
/// More waiting bytes than this are sent before the end of the turn.
const WAITING_BYTES_MAX: usize = 256 << 10;

struct Pipe {
    tcp: TcpStream,
    /// Read and not yet taken: `input[taken..filled]`.
    input: Box<[u8]>,
    taken: usize,
    filled: usize,
    /// Written and not yet sent: `output[sent..]`.
    output: Vec<u8>,
    sent: usize,
}

impl Pipe {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.output.len() {
            let rest = &self.output[self.sent..];
            match ready!(Pin::new(&mut self.tcp).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => self.sent += bytes,
            }
        }
        self.output.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

/// What h2 reads from and writes to.
pub struct Corked(Rc<RefCell<Pipe>>);

/// Sends what a [`Corked`] socket has gathered.
pub struct Cork(Rc<RefCell<Pipe>>);

/// Corks a connected socket.
pub fn cork(tcp: TcpStream) -> (Corked, Cork) {
    let input = vec![0; READ_BYTES].into_boxed_slice();
    let pipe = Pipe { tcp, input, taken: 0, filled: 0, output: Vec::new(), sent: 0 };
    let pipe = Rc::new(RefCell::new(pipe));
    (Corked(pipe.clone()), Cork(pipe))
}

impl Cork {
    /// Sends everything that was written.
    pub fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(cx)
    }
}

impl AsyncRead for Corked {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let pipe = &mut *self.0.borrow_mut();
        if pipe.taken == pipe.filled {
            let mut read = ReadBuf::new(&mut pipe.input);
            ready!(Pin::new(&mut pipe.tcp).poll_read(cx, &mut read))?;
            pipe.filled = read.filled().len();
            pipe.taken = 0;
        }
        let length = buffer.remaining().min(pipe.filled - pipe.taken);
        buffer.put_slice(&pipe.input[pipe.taken..pipe.taken + length]);
        pipe.taken += length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Corked {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut pipe = self.0.borrow_mut();
        if pipe.output.len() - pipe.sent > WAITING_BYTES_MAX {
            ready!(pipe.poll_send(cx))?;
        }
        pipe.output.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    /// Nothing: [`Cork::poll_send`] does it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.0.borrow_mut();
        ready!(pipe.poll_send(cx))?;
        Pin::new(&mut pipe.tcp).poll_shutdown(cx)
    }
}
