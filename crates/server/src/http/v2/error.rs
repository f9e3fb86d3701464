//! The errors of the v2 API: codes, messages, statuses, and how an answer says them.

use std::fmt;

use bytes::Bytes;
use http::StatusCode;

use super::go;

/// What kind of error; the number is what clients switch by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// There is no such key.
    KeyNotFound = 100,
    /// A compare does not hold.
    CompareFailed = 101,
    /// A directory stands where a file is needed.
    NotAFile = 102,
    /// A file stands where a directory is needed.
    NotADirectory = 104,
    /// The key is to be created and exists.
    KeyExists = 105,
    /// The root is neither written nor deleted.
    RootReadOnly = 107,
    /// The directory has children and is not deleted recursively.
    DirectoryNotEmpty = 108,
    /// `prevValue` is given and empty.
    PrevValueRequired = 201,
    /// `ttl` is not a number.
    TtlNotANumber = 202,
    /// `prevIndex` or `waitIndex` is not a number.
    IndexNotANumber = 203,
    /// Another field cannot be read, or does not go with the method.
    InvalidField = 209,
    /// Query or body cannot be read.
    InvalidForm = 210,
    /// A refresh has a value.
    RefreshValue = 211,
    /// A refresh has no TTL.
    RefreshTtlRequired = 212,
    /// The cluster did not do it; whether it will is not known if it timed out.
    RaftInternal = 300,
    /// The history that was asked for is gone.
    EventIndexCleared = 401,
}

impl Code {
    fn message(self) -> &'static str {
        match self {
            Code::KeyNotFound => "Key not found",
            Code::CompareFailed => "Compare failed",
            Code::NotAFile => "Not a file",
            Code::NotADirectory => "Not a directory",
            Code::KeyExists => "Key already exists",
            Code::RootReadOnly => "Root is read only",
            Code::DirectoryNotEmpty => "Directory not empty",
            Code::PrevValueRequired => "PrevValue is Required in POST form",
            Code::TtlNotANumber => "The given TTL in POST form is not a number",
            Code::IndexNotANumber => "The given index in POST form is not a number",
            Code::InvalidField => "Invalid field",
            Code::InvalidForm => "Invalid POST form",
            Code::RefreshValue => "Value provided on refresh",
            Code::RefreshTtlRequired => "A TTL must be provided on refresh",
            Code::RaftInternal => "Raft Internal Error",
            Code::EventIndexCleared => "The event in requested index is outdated and cleared",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Code::KeyNotFound => StatusCode::NOT_FOUND,
            Code::NotAFile | Code::DirectoryNotEmpty => StatusCode::FORBIDDEN,
            Code::CompareFailed | Code::KeyExists => StatusCode::PRECONDITION_FAILED,
            Code::RaftInternal => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The kind.
    pub code: Code,
    /// Mostly a path; any bytes.
    pub cause: Bytes,
    /// The v2 index at which it was refused; 0 if the request could not be read.
    pub index: u64,
}

impl Error {
    /// A refusal at an index.
    pub fn new(code: Code, cause: impl Into<Bytes>, index: u64) -> Error {
        Error { code, cause: cause.into(), index }
    }

    /// A request that cannot be read.
    pub fn of_request(code: Code, cause: impl Into<String>) -> Error {
        Error::new(code, cause.into(), 0)
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// The body of the answer.
    pub fn to_json(&self) -> String {
        let mut out =
            format!("{{\"errorCode\":{},\"message\":\"{}\"", self.code as u16, self.code.message());
        if !self.cause.is_empty() {
            out.push_str(",\"cause\":");
            go::write_json_string(&self.cause, &mut out);
        }
        out.push_str(&format!(",\"index\":{}}}\n", self.index));
        out
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.code.message(), String::from_utf8_lossy(&self.cause))
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_said_with_code_cause_and_index() {
        let error = Error::new(Code::KeyNotFound, &b"/hello"[..], 3);
        let body =
            "{\"errorCode\":100,\"message\":\"Key not found\",\"cause\":\"/hello\",\"index\":3}\n";
        assert_eq!((error.status().as_u16(), error.to_json().as_str()), (404, body));
        // The root has no name in a cause, and an empty cause is left out.
        let error = Error::new(Code::NotAFile, Bytes::new(), 7);
        let body = "{\"errorCode\":102,\"message\":\"Not a file\",\"index\":7}\n";
        assert_eq!((error.status().as_u16(), error.to_json().as_str()), (403, body));
    }
}
