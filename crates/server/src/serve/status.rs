//! The end of a gRPC call: a code, a text, and the trailers that carry them.

use http::{HeaderMap, HeaderName, HeaderValue};

/// gRPC status codes by their names in the gRPC specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Code {
    Ok = 0,
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// How a call ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What kind of end.
    pub code: u32,
    /// Its text; clients map etcd's texts back to typed errors.
    pub text: String,
}

impl Status {
    /// An end with this code and text.
    pub fn new(code: Code, text: impl Into<String>) -> Status {
        Status { code: code as u32, text: text.into() }
    }

    /// Success.
    pub fn ok() -> Status {
        Status { code: 0, text: String::new() }
    }

    /// A method that this version knows and does not have.
    pub fn later(what: &str) -> Status {
        Status::new(Code::Unimplemented, format!("quorate: {what} is not implemented yet"))
    }

    /// Writes `grpc-status` and `grpc-message`.
    pub fn put_into(&self, headers: &mut HeaderMap) {
        let code = match self.code {
            0 => HeaderValue::from_static("0"),
            code => HeaderValue::from(code),
        };
        headers.insert(HeaderName::from_static("grpc-status"), code);
        if !self.text.is_empty() {
            let text = HeaderValue::from_str(&percent_encode(&self.text));
            headers.insert(
                HeaderName::from_static("grpc-message"),
                text.expect("percent-encoded text is printable ASCII"),
            );
        }
    }

    /// The trailers of a call that ends so.
    pub fn trailers(&self) -> HeaderMap {
        let mut trailers = HeaderMap::with_capacity(1 + usize::from(!self.text.is_empty()));
        self.put_into(&mut trailers);
        trailers
    }
}

impl From<state_machine::Error> for Status {
    fn from(error: state_machine::Error) -> Status {
        Status { code: error.code(), text: error.text().to_string() }
    }
}

/// What a handler of a non-gRPC status line would show in a log.
impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (code {})", self.text, self.code)
    }
}

/// gRPC's percent-encoding: printable ASCII but `%` stands as it is, each other byte as `%XX`.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'$' | b'&'..=b'~' => out.push(byte as char),
            byte => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                out.push(HEX[usize::from(byte >> 4)] as char);
                out.push(HEX[usize::from(byte & 15)] as char);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_percent_encoded_as_grpc_wants_it() {
        for (text, want) in [
            ("etcdserver: key not found", "etcdserver: key not found"),
            ("100%", "100%25"),
            ("a\nb", "a%0Ab"),
            ("ü", "%C3%BC"),
            ("~ !\"#$&'", "~ !\"#$&'"),
        ] {
            assert_eq!(percent_encode(text), want);
        }
    }

    #[test]
    fn trailers_carry_code_and_text() {
        let trailers = Status::new(Code::OutOfRange, "etcdserver: x%").trailers();
        assert_eq!(trailers["grpc-status"], "11");
        assert_eq!(trailers["grpc-message"], "etcdserver: x%25");
        let trailers = Status::ok().trailers();
        assert_eq!(trailers["grpc-status"], "0");
        assert!(!trailers.contains_key("grpc-message"));
    }

    #[test]
    fn errors_of_the_state_machine_keep_their_code_and_text() {
        for error in state_machine::Error::ALL {
            let status = Status::from(*error);
            assert_eq!((status.code, status.text.as_str()), (error.code(), error.text()));
            assert!(status.code > 0 && status.code <= 16);
        }
    }
}
