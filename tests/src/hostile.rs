//! Bytes that no honest client sends, made of a request that one would send: torn, contradictory, endless, smuggled.
//!
//! None of them asks for anything by the rules of HTTP, so whatever the request in them would change must stay as it is.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpStream};
use std::time::Duration;

use crate::http::request;
use crate::random::Random;

/// How long a server may take to answer or to close; a bound, not an expectation.
const ANSWER_WITHIN: Duration = Duration::from_secs(180);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A hostile client's words, and what is wrong with them.
pub struct Hostile {
    pub what: String,
    pub bytes: Vec<u8>,
}

/// The fixed corpus: each of these spoils this request, which must have a body.
pub fn corpus(method: &str, target: &str, headers: &str, body: &[u8]) -> Vec<Hostile> {
    let whole = request(method, target, headers, body);
    let head_end = whole.len() - body.len();
    let mut out = Vec::new();
    let mut add = |what: &str, bytes: Vec<u8>| out.push(Hostile { what: what.to_owned(), bytes });

    // What is not all there.
    let cuts = [1, method.len(), method.len() + 3, head_end / 2, head_end - 2, head_end];
    for cut in cuts.into_iter().chain([head_end + body.len() / 2]) {
        add("half a request", whole[..cut].to_vec());
    }

    // What cannot be read: its first line, one of its headers.
    let rest = &whole[whole.iter().position(|byte| *byte == b'\n').unwrap() + 1..];
    let line = |first: &[u8]| [first, b"\r\n", rest].concat();
    for version in ["", " HTTP", " HTTP/9.9", " HTTP/1.x", " http/1.1", " HTTP/1.1 HTTP/1.1"] {
        add("a version that is none", line(format!("{method} {target}{version}").as_bytes()));
    }
    add("no target", line(format!("{method} HTTP/1.1").as_bytes()));
    add("a target with a space", line(format!("{method} {target} x HTTP/1.1").as_bytes()));
    add("a method that is none", line(format!("{method}\0 {target} HTTP/1.1").as_bytes()));
    for byte in [0x00, 0x01, 0x0b, 0x7f] {
        let target = [target.as_bytes(), &[byte]].concat();
        add(
            "a control character",
            line(&[method.as_bytes(), b" ", &target, b" HTTP/1.1"].concat()),
        );
    }
    let long = "a".repeat(2 << 20);
    add("a target without end", line(format!("{method} {target}?{long} HTTP/1.1").as_bytes()));
    let with = |more: &[u8]| {
        let at = head_end - 2;
        [&whole[..at], more, &whole[at..]].concat()
    };
    for header in [
        &b"no colon\r\n"[..],
        b": no name\r\n",
        b"a b: c\r\n",
        b"a : b\r\n",
        b"a\0: b\r\n",
        b"a: b\0\r\n",
    ] {
        add("a header that is none", with(header));
    }
    add("a header without end", with(format!("a: {long}\r\n").as_bytes()));
    add("headers without end", with("a: b\r\n".repeat(200_000).as_bytes()));

    // Bodies of no length, or of two.
    let framed = |header: &str, body: &[u8]| {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}"
        );
        [head.as_bytes(), header.as_bytes(), b"\r\n\r\n", body].concat()
    };
    let length = body.len();
    for wrong in ["-1", "+2", "0x2", "2 2", "1.0", "99999999999999999999", "one"] {
        add("a length that is none", framed(&format!("Content-Length: {wrong}"), body));
    }
    let two = format!("Content-Length: {length}\r\nContent-Length: {}", length + 1);
    add("two lengths", framed(&two, body));
    for coding in ["gzip", "chunked, gzip", "xchunked", "chunked, identity"] {
        add("a coding that ends nowhere", framed(&format!("Transfer-Encoding: {coding}"), body));
    }
    let chunked = |body: &[u8]| framed("Transfer-Encoding: chunked", body);
    let (first, second) = body.split_at(length / 2);
    let chunk = |size: &str, data: &[u8]| [size.as_bytes(), b"\r\n", data, b"\r\n"].concat();
    let good = chunk(&format!("{:x}", first.len()), first);
    for size in ["zz", "-1", "", "ffffffffffffffffff", " ", "0x1"] {
        add("a chunk of no size", chunked(&[good.clone(), chunk(size, second)].concat()));
    }
    add("a chunk that is longer than it says", chunked(&chunk("1", body)));
    add("a chunk that does not come", chunked(&[&good[..], b"ffff\r\n{"].concat()));
    add("a last chunk that does not come", chunked(&good));
    add("a chunk's extension without end", chunked(&chunk(&format!("1;{long}"), b"{")));

    // A good request behind a bad one: whoever has lost the thread must not take it up again.
    for bad in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"x\r\n\r\n",
    ] {
        add("a good request behind garbage", [bad, &whole].concat());
    }
    add("a good request behind a bad chunk", [chunked(b"zz\r\n"), whole.clone()].concat());
    let two = framed("Content-Length: 1\r\nContent-Length: 2", b"{}");
    add("a good request behind one of two lengths", [two, whole.clone()].concat());

    // HTTP/2 that is none: length, kind, flags, stream, and what follows.
    let frame = |length: u32, kind: u8, flags: u8, stream: u32, data: &[u8]| {
        [&length.to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), data].concat()
    };
    let settings = frame(0, 4, 0, 0, b"");
    for (what, frames) in [
        ("no settings", frame(4, 0, 0, 1, b"null")),
        ("text", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a frame of 16 MiB", [&settings[..], &frame(0xff_ffff, 0, 0, 1, b"x")].concat()),
        ("data on no stream", [&settings[..], &frame(4, 0, 0, 0, b"null")].concat()),
        ("data on an idle stream", [&settings[..], &frame(4, 0, 1, 1, b"null")].concat()),
        (
            "headers that are none",
            [&settings[..], &frame(4, 1, 5, 1, b"\xff\xff\xff\xff")].concat(),
        ),
        (
            "headers that go on for ever",
            [&settings[..], &frame(0, 1, 0, 1, b""), &frame(0, 9, 0, 1, b"").repeat(50_000)]
                .concat(),
        ),
        ("settings of a wrong length", frame(5, 4, 0, 0, b"\0\0\0\0\0")),
        ("a window of nothing", [&settings[..], &frame(4, 8, 0, 0, b"\0\0\0\0")].concat()),
        ("a window without end", [&settings[..], &frame(4, 8, 0, 0, b"\x7f\xff\xff\xff")].concat()),
        ("an even stream", [&settings[..], &frame(1, 1, 5, 2, b"\x82")].concat()),
    ] {
        add(&format!("HTTP/2: {what}"), [PREFACE, &frames].concat());
    }
    out
}

/// Percent signs that say nothing.
pub const ESCAPES: [&str; 7] = ["%", "%0", "%zz", "%%", "%2", "%g0", "%u0041"];

/// From this request, of a fixed seed: so many with some bytes turned, cut out, put in or doubled.
pub fn mutations(seed: u64, count: usize, valid: &[u8]) -> Vec<Hostile> {
    let mut random = Random::new(seed);
    let mutate = |_| {
        let mut bytes = valid.to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len() as u64) as usize;
            let end = (at + random.below(9) as usize).min(bytes.len());
            match random.below(5) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = random.below(256) as u8,
                2 => drop(bytes.drain(at..end)),
                3 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
                _ => bytes.truncate(at.max(1)),
            }
            if bytes.is_empty() {
                bytes.push(b' ');
            }
        }
        let what = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
        Hostile { what, bytes }
    };
    (0..count).map(mutate).collect()
}

/// Says this, and that nothing follows. What comes back until the server closes: it may do so before it has heard all, and
/// without an answer. `None` if it does neither.
pub fn say(to: SocketAddrV4, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
    stream.set_write_timeout(Some(ANSWER_WITHIN)).unwrap();
    // A server that has heard enough need not hear the rest.
    drop(stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write)));
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
        // A reset is an end, too.
        Ok(_) | Err(_) => Some(answer),
    }
}

/// The status of an HTTP/1.1 answer; `None` if there is no answer, or it is HTTP/2.
pub fn status(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.").filter(|rest| rest.len() >= 5)?;
    std::str::from_utf8(&rest[2..5]).ok()?.parse().ok()
}

/// Why this is no refusal: that is an end, or an answer that blames the client.
pub fn not_refused(answer: Option<&[u8]>) -> Option<String> {
    let Some(answer) = answer else { return Some("neither answer nor end".to_owned()) };
    let is_refused = status(answer).is_none_or(|status| matches!(status, 400..=499 | 501 | 505));
    (!is_refused).then(|| String::from_utf8_lossy(&answer[..answer.len().min(400)]).into_owned())
}
