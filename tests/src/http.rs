//! A plain HTTP/1.1 client that sends exactly the bytes it is given and shows what came back, stream or not.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

/// How long an answer may take; a bound, not an expectation.
const ANSWER_WITHIN: Duration = Duration::from_secs(180);

/// An answer, or its beginning.
#[derive(Debug, Default)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The whole body is here.
    pub complete: bool,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Its status and headers.
    Head,
    /// The end of the answer.
    End,
    /// So many lines of its body.
    Lines(usize),
}

/// An open connection with a request on it.
pub struct Exchange {
    stream: TcpStream,
    received: Vec<u8>,
    closed: bool,
}

impl Exchange {
    /// Connects and sends these bytes.
    pub fn send(to: SocketAddrV4, request: &[u8]) -> Exchange {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_nodelay(true).unwrap();
        // A server may refuse a long body before it has read it all: what it says is still to be read.
        match stream.write_all(request) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) => panic!("the request could not be sent: {error}"),
        }
        Exchange { stream, received: Vec::new(), closed: false }
    }

    /// Sends more bytes.
    pub fn more(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Reads until there is what is waited for.
    pub fn read(&mut self, until: Until) -> Reply {
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            let reply = parse(&self.received, self.closed);
            let enough = match until {
                Until::Head => reply.status != 0,
                Until::End => reply.complete,
                Until::Lines(lines) => {
                    reply.complete || reply.body.iter().filter(|c| **c == b'\n').count() >= lines
                }
            };
            if enough {
                return reply;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no answer within {ANSWER_WITHIN:?}; so far: {reply:?}");
            assert!(!self.closed, "the connection was closed; so far: {reply:?}");
            self.stream.set_read_timeout(Some(left)).unwrap();
            let mut buffer = [0; 16 << 10];
            match self.stream.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(bytes) => self.received.extend_from_slice(&buffer[..bytes]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => self.closed = true,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => panic!("the answer could not be read: {error}"),
            }
        }
    }
}

/// A POST with these headers, each with its line end.
pub fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    request("POST", path, headers, body)
}

/// A request with these headers, each with its line end.
pub fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut out = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    )
    .into_bytes();
    out.extend_from_slice(body);
    out
}

fn parse(received: &[u8], closed: bool) -> Reply {
    let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Reply::default();
    };
    let head = String::from_utf8_lossy(&received[..end]);
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let rest = &received[end + 4..];
    if status == 100 {
        return parse(rest, closed);
    }
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_string()))
        .collect();
    let mut reply = Reply { status, headers, ..Reply::default() };
    if reply.header("transfer-encoding") == Some("chunked") {
        (reply.body, reply.complete) = unchunk(rest);
    } else if let Some(length) = reply.header("content-length") {
        let length: usize = length.parse().unwrap();
        reply.body = rest[..rest.len().min(length)].to_vec();
        // An answer to HEAD tells the length of what it leaves out.
        reply.complete = reply.body.len() == length || closed && reply.body.is_empty();
    } else {
        reply.body = rest.to_vec();
        reply.complete = closed;
    }
    reply
}

/// The chunks that are whole, and whether the last one is among them.
fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return (body, true);
        }
        let Some(chunk) = rest.get(end + 2..end + 2 + size) else { break };
        body.extend_from_slice(chunk);
        rest = rest.get(end + 2 + size + 2..).unwrap_or_default();
    }
    (body, false)
}
