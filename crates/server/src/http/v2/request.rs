//! A request for a key, read from its method, path, query and form as etcd 3.4 reads it, check by check.

use bytes::Bytes;
use http::Method;

use super::error::{Code, Error};
use super::go::{self, Form};
use super::node::Path;

/// What a client wants of a key. Fields that do not go with the method are read, checked, and not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRequest {
    /// One of HEAD, GET, PUT, POST and DELETE.
    pub method: Method,
    /// Which key.
    pub path: Path,
    /// `value`, empty if there is none.
    pub value: Bytes,
    /// `dir`.
    pub dir: bool,
    /// `prevValue`; empty if the value does not matter.
    pub prev_value: Bytes,
    /// `prevIndex`; 0 if the index does not matter.
    pub prev_index: u64,
    /// `prevExist`.
    pub prev_exist: Option<bool>,
    /// When the node is to expire, by `ttl`: nanoseconds since 1970. As in etcd a `ttl` beyond some 292 years wraps.
    pub expires: Option<i64>,
    /// `refresh`: a new `ttl` for the value that is there, told to nobody.
    pub refresh: bool,
    /// `recursive`.
    pub recursive: bool,
    /// `wait`.
    pub wait: bool,
    /// `waitIndex`; 0 for what comes next.
    pub wait_index: u64,
    /// `stream`.
    pub stream: bool,
    /// `quorum`.
    pub quorum: bool,
    /// `noValueOnSuccess`.
    pub no_value_on_success: bool,
}

impl KeyRequest {
    /// Reads a request; `now_ns` is nanoseconds since 1970. `sorted` is checked and forgotten: our listings always
    /// are.
    ///
    /// # Errors
    /// The first check that fails, in etcd's order.
    pub fn read(
        method: &Method,
        path: Path,
        form: Result<Form, String>,
        now_ns: i64,
    ) -> Result<KeyRequest, Error> {
        let form = form.map_err(|error| Error::of_request(Code::InvalidForm, error))?;
        let index = |name| match form.first(name) {
            None => Ok(0),
            Some(text) => go::unsigned(text).ok_or_else(|| invalid(Code::IndexNotANumber, name)),
        };
        let flag = |name| match form.first(name) {
            None => Ok(None),
            Some(text) => {
                go::boolean(text).map(Some).ok_or_else(|| invalid(Code::InvalidField, name))
            }
        };
        // Without quotation marks, where etcd has none.
        let bare_flag = |name| {
            flag(name).map_err(|_| {
                Error::of_request(Code::InvalidField, format!("invalid value for {name}"))
            })
        };
        let prev_index = index("prevIndex")?;
        let wait_index = index("waitIndex")?;
        let recursive = flag("recursive")?.unwrap_or(false);
        flag("sorted")?;
        let wait = flag("wait")?.unwrap_or(false);
        let dir = flag("dir")?.unwrap_or(false);
        let quorum = flag("quorum")?.unwrap_or(false);
        let stream = flag("stream")?.unwrap_or(false);
        if wait && method != Method::GET {
            let cause = "\"wait\" can only be used with GET requests";
            return Err(Error::of_request(Code::InvalidField, cause));
        }
        let prev_value = form.first("prevValue");
        if prev_value == Some(b"") {
            let cause = "\"prevValue\" cannot be empty";
            return Err(Error::of_request(Code::PrevValueRequired, cause));
        }
        let no_value_on_success = flag("noValueOnSuccess")?.unwrap_or(false);
        let expires = match form.first("ttl") {
            None | Some(b"") => None,
            Some(text) => {
                let ttl = go::unsigned(text).ok_or_else(|| invalid(Code::TtlNotANumber, "ttl"))?;
                let span_ns = (ttl as i64).wrapping_mul(1_000_000_000);
                Some(now_ns.wrapping_add(span_ns))
            }
        };
        let prev_exist = bare_flag("prevExist")?;
        let refresh = bare_flag("refresh")?.unwrap_or(false);
        let value = form.first("value").unwrap_or(b"");
        if refresh {
            if !value.is_empty() {
                let cause = "A value was provided on a refresh";
                return Err(Error::of_request(Code::RefreshValue, cause));
            }
            if expires.is_none() {
                return Err(Error::of_request(Code::RefreshTtlRequired, "No TTL value set"));
            }
        }
        Ok(KeyRequest {
            method: method.clone(),
            path,
            value: Bytes::copy_from_slice(value),
            dir,
            prev_value: Bytes::copy_from_slice(prev_value.unwrap_or(b"")),
            prev_index,
            prev_exist,
            expires,
            refresh,
            recursive,
            wait,
            wait_index,
            stream,
            quorum,
            no_value_on_success,
        })
    }
}

impl KeyRequest {
    /// A request that says nothing but which key it means: the member's own, to expire it.
    pub fn of_path(path: Path) -> KeyRequest {
        KeyRequest {
            method: Method::DELETE,
            path,
            value: Bytes::new(),
            dir: false,
            prev_value: Bytes::new(),
            prev_index: 0,
            prev_exist: None,
            expires: None,
            refresh: false,
            recursive: false,
            wait: false,
            wait_index: 0,
            stream: false,
            quorum: false,
            no_value_on_success: false,
        }
    }
}

fn invalid(code: Code, name: &str) -> Error {
    Error::of_request(code, format!("invalid value for \"{name}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: Method, query: &str) -> Result<KeyRequest, Error> {
        KeyRequest::read(&method, Path::clean(b"/k"), Form::parse(query.as_bytes(), None), 5)
    }

    #[test]
    fn every_field_is_read() {
        let query = "value=v&dir=true&prevValue=p&prevIndex=3&prevExist=false&ttl=2&recursive=1&wait=t\
                     &waitIndex=9&stream=T&quorum=TRUE&sorted=0&noValueOnSuccess=True&refresh=f";
        let request = read(Method::GET, query).unwrap();
        let want = KeyRequest {
            method: Method::GET,
            path: Path::clean(b"/k"),
            value: "v".into(),
            dir: true,
            prev_value: "p".into(),
            prev_index: 3,
            prev_exist: Some(false),
            expires: Some(2_000_000_005),
            refresh: false,
            recursive: true,
            wait: true,
            wait_index: 9,
            stream: true,
            quorum: true,
            no_value_on_success: true,
        };
        assert_eq!(request, want);
        // The first of several values counts, and an empty ttl is none.
        assert_eq!(read(Method::PUT, "value=1&value=2&ttl=").unwrap().value, "1");
        assert_eq!(read(Method::PUT, "ttl=").unwrap().expires, None);
        assert_eq!(
            read(Method::PUT, "ttl=9223372037").unwrap().expires,
            Some(-9_223_372_036_709_551_611)
        );
    }

    #[test]
    fn the_first_check_that_fails_is_the_error() {
        for (query, code, cause) in [
            ("a=%zz&prevIndex=x", 210, "invalid URL escape \"%zz\""),
            ("waitIndex=x&prevIndex=-1", 203, "invalid value for \"prevIndex\""),
            ("waitIndex=", 203, "invalid value for \"waitIndex\""),
            ("recursive", 209, "invalid value for \"recursive\""),
            ("sorted=x", 209, "invalid value for \"sorted\""),
            ("wait=x", 209, "invalid value for \"wait\""),
            ("dir=x&ttl=x", 209, "invalid value for \"dir\""),
            ("quorum=x", 209, "invalid value for \"quorum\""),
            ("stream=x", 209, "invalid value for \"stream\""),
            ("wait=true&prevValue=", 209, "\"wait\" can only be used with GET requests"),
            ("prevValue=&noValueOnSuccess=x", 201, "\"prevValue\" cannot be empty"),
            ("noValueOnSuccess=x&ttl=x", 209, "invalid value for \"noValueOnSuccess\""),
            ("ttl=-1&prevExist=x", 202, "invalid value for \"ttl\""),
            ("prevExist=x&refresh=x", 209, "invalid value for prevExist"),
            ("refresh=x", 209, "invalid value for refresh"),
            ("refresh=true&value=v", 211, "A value was provided on a refresh"),
            ("refresh=true&value=", 212, "No TTL value set"),
        ] {
            let error = read(Method::PUT, query).unwrap_err();
            assert_eq!(
                (error.code as u16, error.cause, error.index),
                (code, cause.into(), 0),
                "{query}"
            );
        }
    }
}
