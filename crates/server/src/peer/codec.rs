//! The two stream codecs of etcd's peers: whole messages, and appends that leave out what both ends know.
//!
//! ```text
//!   message   ┌─────────────┬──────────────┐
//!             │ length u64  │ raftpb bytes │        a message from 0 to 0 of kind Heartbeat keeps the link alive
//!             └─────────────┴──────────────┘
//!   msgapp    ┌───┐
//!             │ 0 │                                 keeps the link alive
//!             ├───┼─────────┬──────────────────────────────┬────────────┐
//!             │ 1 │ n u64   │ n × (length u64, Entry bytes) │ commit u64 │    follows what came before
//!             ├───┼─────────┴──┬──────────────┬────────────┘────────────┘
//!             │ 2 │ length u64 │ raftpb bytes │       anything else
//!             └───┴────────────┴──────────────┘
//! ```
//!
//! All numbers are big endian. Form 1 is used when the append begins where the last one on this connection
//! ended, in the same term; both ends keep that place, so coder and decoder live as long as their connection.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::{Entry, Index, Message, MessageKind, NodeId, Term};
use wal::codec;

/// The longest message that is believed. etcd's own bound.
const MESSAGE_BYTES_MAX: u64 = 512 << 20;
/// The most entries that one append is believed to hold; each takes eight bytes at least.
const ENTRIES_MAX: u64 = MESSAGE_BYTES_MAX / 8;

/// Which of the two a stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StreamKind {
    /// Any message.
    Message,
    /// Appends only.
    Append,
}

impl StreamKind {
    /// Its name in URLs.
    pub fn name(self) -> &'static str {
        match self {
            StreamKind::Message => "message",
            StreamKind::Append => "msgapp",
        }
    }
}

/// What came over a stream is not what a peer sends.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

/// The place that both ends of an append stream keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    term: Term,
    index: Index,
}

impl Place {
    fn after(message: &Message) -> Place {
        let index = message.entries.last().map_or(message.index, |entry| entry.index);
        Place { term: message.term, index }
    }
}

/// The writing end of one connection.
pub struct Encoder {
    kind: StreamKind,
    place: Place,
}

impl Encoder {
    /// For a new connection.
    pub fn new(kind: StreamKind) -> Encoder {
        Encoder { kind, place: Place::default() }
    }

    /// Adds one message.
    pub fn encode(&mut self, message: &Message, out: &mut BytesMut) {
        if self.kind == StreamKind::Message {
            return put_message(message, out);
        }
        assert_eq!(message.kind, MessageKind::App, "an append stream carries appends");
        let follows = self.place.index == message.index
            && self.place.term == message.log_term
            && message.log_term == message.term;
        if follows {
            out.put_u8(1);
            out.put_u64(message.entries.len() as u64);
            for entry in &message.entries {
                out.put_u64(codec::entry_len(entry) as u64);
                codec::encode_entry(entry, out);
            }
            out.put_u64(message.commit.0);
            self.place.index = Index(self.place.index.0 + message.entries.len() as u64);
        } else {
            out.put_u8(2);
            put_message(message, out);
            self.place = Place::after(message);
        }
    }

    /// Adds what keeps the link alive.
    pub fn encode_heartbeat(&mut self, out: &mut BytesMut) {
        match self.kind {
            StreamKind::Append => out.put_u8(0),
            StreamKind::Message => {
                put_message(&Message { kind: MessageKind::Heartbeat, ..Message::default() }, out);
            }
        }
    }
}

fn put_message(message: &Message, out: &mut BytesMut) {
    out.put_u64(codec::message_len(message) as u64);
    codec::encode_message(message, out);
}

/// The reading end of one connection.
pub struct Decoder {
    kind: StreamKind,
    place: Place,
    from: NodeId,
    to: NodeId,
}

impl Decoder {
    /// For a new connection to `from`, at `to`.
    pub fn new(kind: StreamKind, from: NodeId, to: NodeId) -> Decoder {
        Decoder { kind, place: Place::default(), from, to }
    }

    /// Takes all whole messages out of `bytes`; heartbeats of the link are left out.
    ///
    /// # Errors
    /// The stream is not what a peer sends; the connection must be given up.
    pub fn decode(&mut self, bytes: &mut BytesMut) -> Result<Vec<Message>, Malformed> {
        let mut messages = Vec::new();
        loop {
            let before = bytes.len();
            match self.decode_one(bytes)? {
                Some(message) => messages.push(message),
                None if bytes.len() == before => return Ok(messages),
                None => {}
            }
        }
    }

    /// One message, if it is whole and not a mere heartbeat. Takes either all of its bytes or none.
    fn decode_one(&mut self, bytes: &mut BytesMut) -> Result<Option<Message>, Malformed> {
        match self.kind {
            StreamKind::Message => {
                let Some(body) = take_sized(bytes, 0)? else { return Ok(None) };
                let message = decode_message(&body)?;
                let heartbeat = message.from == raft::NONE && message.to == raft::NONE;
                Ok((!heartbeat).then_some(message))
            }
            StreamKind::Append => match bytes.first() {
                None => Ok(None),
                Some(0) => {
                    bytes.advance(1);
                    Ok(None)
                }
                Some(1) => self.decode_entries(bytes),
                Some(2) => {
                    let Some(body) = take_sized(bytes, 1)? else { return Ok(None) };
                    let message = decode_message(&body)?;
                    self.place = Place::after(&message);
                    Ok(Some(message))
                }
                Some(other) => Err(Malformed(format!("an append stream has no form {other}"))),
            },
        }
    }

    fn decode_entries(&mut self, bytes: &mut BytesMut) -> Result<Option<Message>, Malformed> {
        let Some(count) = number_at(bytes, 1) else { return Ok(None) };
        if count > ENTRIES_MAX {
            return Err(Malformed(format!("an append of {count} entries")));
        }
        let mut end = 9_usize;
        for _ in 0..count {
            let Some(length) = number_at(bytes, end) else { return Ok(None) };
            check_length(length.saturating_add(end as u64))?;
            end += 8 + length as usize;
        }
        let Some(commit) = number_at(bytes, end) else { return Ok(None) };
        let mut body = bytes.split_to(end + 8).freeze();
        body.advance(9);
        let mut entries: Vec<Entry> = Vec::new();
        for _ in 0..count {
            let length = body.get_u64() as usize;
            let entry = codec::decode_entry(&body.split_to(length))
                .map_err(|error| Malformed(format!("an entry: {error}")))?;
            entries.push(entry);
        }
        let message = Message {
            kind: MessageKind::App,
            from: self.from,
            to: self.to,
            term: self.place.term,
            log_term: self.place.term,
            index: self.place.index,
            commit: Index(commit),
            entries,
            ..Message::default()
        };
        self.place.index = Index(self.place.index.0.saturating_add(count));
        Ok(Some(message))
    }
}

fn decode_message(body: &Bytes) -> Result<Message, Malformed> {
    codec::decode_message(body).map_err(|error| Malformed(format!("a message: {error}")))
}

fn number_at(bytes: &BytesMut, at: usize) -> Option<u64> {
    let eight = bytes.get(at..at + 8)?;
    Some(u64::from_be_bytes(eight.try_into().expect("the slice has eight bytes")))
}

fn check_length(length: u64) -> Result<(), Malformed> {
    match length > MESSAGE_BYTES_MAX {
        true => Err(Malformed(format!("a message of {length} bytes"))),
        false => Ok(()),
    }
}

/// The body behind `skip` bytes and its length, once it is whole; takes all of it.
fn take_sized(bytes: &mut BytesMut, skip: usize) -> Result<Option<Bytes>, Malformed> {
    let Some(length) = number_at(bytes, skip) else { return Ok(None) };
    check_length(length)?;
    let head = skip + 8;
    if bytes.len() < head + length as usize {
        return Ok(None);
    }
    bytes.advance(head);
    Ok(Some(bytes.split_to(length as usize).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(term: u64, log_term: u64, index: u64, count: u64) -> Message {
        let entry = |i: u64| Entry {
            term: Term(term),
            index: Index(index + 1 + i),
            data: Bytes::from(format!("entry {i}")),
            ..Entry::default()
        };
        Message {
            kind: MessageKind::App,
            from: 1,
            to: 2,
            term: Term(term),
            log_term: Term(log_term),
            index: Index(index),
            commit: Index(index),
            entries: (0..count).map(entry).collect(),
            ..Message::default()
        }
    }

    fn through(kind: StreamKind, messages: &[Message], piece: usize) -> Vec<Message> {
        let (mut encoder, mut decoder) = (Encoder::new(kind), Decoder::new(kind, 1, 2));
        let mut sent = BytesMut::new();
        for message in messages {
            encoder.encode_heartbeat(&mut sent);
            encoder.encode(message, &mut sent);
        }
        let (mut received, mut out) = (BytesMut::new(), Vec::new());
        for piece in sent.chunks(piece) {
            received.extend_from_slice(piece);
            out.extend(decoder.decode(&mut received).unwrap());
        }
        assert!(received.is_empty());
        out
    }

    #[test]
    fn appends_arrive_as_they_were_sent_in_pieces_of_any_size() {
        let messages =
            [append(3, 2, 7, 2), append(3, 3, 9, 3), append(3, 3, 12, 0), append(4, 3, 5, 1)];
        for kind in [StreamKind::Append, StreamKind::Message] {
            for piece in [1, 7, 1000] {
                assert_eq!(
                    through(kind, &messages, piece),
                    messages,
                    "{kind:?} in pieces of {piece}"
                );
            }
        }
    }

    #[test]
    fn an_append_that_follows_leaves_out_what_is_known() {
        let mut encoder = Encoder::new(StreamKind::Append);
        let mut out = BytesMut::new();
        encoder.encode(&append(3, 2, 7, 1), &mut out);
        assert_eq!(out[0], 2);
        out.clear();
        encoder.encode(&append(3, 3, 8, 0), &mut out);
        assert_eq!(&out[..], &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8]);
    }

    #[test]
    fn what_no_peer_sends_is_refused_before_it_is_believed() {
        let decode =
            |kind, bytes: &[u8]| Decoder::new(kind, 1, 2).decode(&mut BytesMut::from(bytes));
        assert!(decode(StreamKind::Append, &[9]).is_err());
        assert!(decode(StreamKind::Append, &[1, 255, 255, 255, 255, 255, 255, 255, 255]).is_err());
        assert!(decode(StreamKind::Append, &[2, 255, 255, 255, 255, 255, 255, 255, 255]).is_err());
        let mut long = vec![1, 0, 0, 0, 0, 0, 0, 0, 1];
        long.extend([0x7f; 8]);
        assert!(decode(StreamKind::Append, &long).is_err());
        // Lengths at the very end of the numbers, where a sum would wrap around.
        for last in 0..=16 {
            let mut long = vec![1, 0, 0, 0, 0, 0, 0, 0, 1];
            long.extend((u64::MAX - last).to_be_bytes());
            long.extend([0; 64]);
            assert!(decode(StreamKind::Append, &long).is_err(), "{last} below the end");
        }
        assert!(decode(StreamKind::Message, &[255; 8]).is_err());
        assert!(decode(StreamKind::Message, &[0, 0, 0, 0, 0, 0, 0, 2, 7, 7]).is_err());
    }
}
