//! What can go wrong for a client, in the words that etcd's tools use.

use std::fmt;

pub use tonic::Code;

/// Texts of etcd that its own client has no typed error for, and therefore prints as a raw status.
const UNTYPED: [&str; 5] = [
    "etcdserver: request timed out, waiting for the applied index took too long",
    "etcdserver: permission not given",
    "etcdserver: invalid client api version",
    "etcdserver: request canceled",
    "etcdserver: context deadline exceeded",
];

/// Why a client could not be made, or a request was not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The list of endpoints is empty.
    NoEndpoints,
    /// This endpoint is none: the text says why.
    BadEndpoint {
        /// The endpoint as given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The time given for the request is over. Whether it was applied is unknown if it was a write
    /// and `last` is none.
    DeadlineExceeded {
        /// Why no endpoint could be reached, if that is what the time was spent on.
        last: Option<String>,
    },
    /// A member, or the broken connection to it, answered with this status.
    Status {
        /// The gRPC code.
        code: Code,
        /// The text that came with it.
        message: String,
    },
}

impl Error {
    /// The error of a refused lease keep-alive: the member answers with a TTL of zero instead.
    pub(crate) fn lease_not_found() -> Error {
        let message = "etcdserver: requested lease not found".to_owned();
        Error::Status { code: Code::NotFound, message }
    }

    /// The status as a gRPC library writes it, for logs.
    pub fn status_text(&self) -> String {
        match self {
            Error::Status { code, message } => {
                format!("rpc error: code = {} desc = {message}", code_name(*code))
            }
            Error::DeadlineExceeded { last: Some(last) } => {
                format!(
                    "rpc error: code = DeadlineExceeded desc = latest balancer error: connection error: desc = {last:?}"
                )
            }
            Error::DeadlineExceeded { last: None } => {
                "rpc error: code = DeadlineExceeded desc = context deadline exceeded".to_owned()
            }
            other => other.to_string(),
        }
    }

    /// Whether this is the status with this text.
    pub fn is_status(&self, text: &str) -> bool {
        matches!(self, Error::Status { message, .. } if message == text)
    }
}

/// The code's name as gRPC's Go library spells it: of all codes one differs from ours.
fn code_name(code: Code) -> String {
    match code {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        other => format!("{other:?}"),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoEndpoints => f.write_str("etcdclient: no available endpoints"),
            Error::BadEndpoint { endpoint, reason } => write!(f, "endpoint {endpoint:?}: {reason}"),
            Error::DeadlineExceeded { .. } => f.write_str("context deadline exceeded"),
            Error::Status { message, .. }
                if message.starts_with("etcdserver: ") && !UNTYPED.contains(&message.as_str()) =>
            {
                f.write_str(message)
            }
            Error::Status { code: Code::DeadlineExceeded, .. } => {
                f.write_str("context deadline exceeded")
            }
            Error::Status { .. } => f.write_str(&self.status_text()),
        }
    }
}

impl std::error::Error for Error {}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Error {
        Error::Status { code: status.code(), message: status.message().to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_etcdctl_prints_them() {
        let status =
            |code, text: &str| Error::Status { code, message: text.to_owned() }.to_string();
        let text = "etcdserver: mvcc: required revision has been compacted";
        assert_eq!(status(Code::OutOfRange, text), text);
        assert_eq!(
            status(Code::InvalidArgument, "etcdserver: permission not given"),
            "rpc error: code = InvalidArgument desc = etcdserver: permission not given"
        );
        assert_eq!(
            status(Code::Unknown, "raft proposal dropped"),
            "rpc error: code = Unknown desc = raft proposal dropped"
        );
        assert_eq!(Error::DeadlineExceeded { last: None }.to_string(), "context deadline exceeded");
    }
}
