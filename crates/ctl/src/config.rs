//! From global flags and the environment to a client and a printer.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use client::{Client, Config, Error, FailedTry};

use crate::{
    Exit, Output, Streams, complain,
    flags::{Flag, Parsed, ROOT},
    go,
    print::{Answer, Format, Printer, Unsupported},
};

/// Flags that are understood and refused as long as they would promise what is not there.
const NOT_YET: [&str; 8] = [
    "auth-jwt-token",
    "cacert",
    "cert",
    "discovery-srv",
    "discovery-srv-name",
    "key",
    "password",
    "user",
];

/// Variables that a watch reads itself.
const WATCH_VARIABLES: [&str; 2] = ["ETCDCTL_WATCH_KEY", "ETCDCTL_WATCH_RANGE_END"];

/// One run of a command: what was asked, and where to answer.
pub(crate) struct Session {
    pub(crate) parsed: Parsed,
    pub(crate) streams: Streams,
}

/// The client's settings and the printer of a session.
pub(crate) struct Connection {
    pub(crate) config: Config,
    pub(crate) printer: Printer,
}

impl Session {
    pub(crate) fn new(parsed: Parsed, streams: Streams) -> Session {
        Session { parsed, streams }
    }

    /// Takes the environment into account and makes the settings of a client.
    pub(crate) fn connection(&mut self) -> Result<Connection, Exit> {
        self.read_environment()?;
        let parsed = &self.parsed;
        if parsed.bool("debug") {
            for flag in ROOT.shared_flags {
                let line = format!("{}={}\n", variable(flag), parsed.text(flag.name));
                self.streams.complain(&line);
            }
        }
        for name in ["cert", "key", "cacert"] {
            if parsed.is_set(name) && parsed.text(name).is_empty() {
                let message = format!("empty string is passed to --{name} option");
                return Err(Exit::bad_arguments(message));
            }
        }
        for name in NOT_YET {
            if !parsed.text(name).is_empty() {
                let message = format!("--{name} is not yet supported");
                return Err(Exit::new(Exit::BAD_FEATURE, message));
            }
        }
        if !parsed.bool("insecure-transport") {
            let message = "TLS is not yet supported: leave --insecure-transport as it is";
            return Err(Exit::new(Exit::BAD_FEATURE, message));
        }
        let Some(format) = Format::parse(parsed.text("write-out")) else {
            return Err(Exit::new(Exit::BAD_FEATURE, "unsupported output format"));
        };
        let bytes = |name| usize::try_from(parsed.int(name)).unwrap_or(0);
        let mut config = Config::new(parsed.list("endpoints"));
        config.dial_timeout = parsed.duration("dial-timeout");
        config.command_timeout = Some(parsed.duration("command-timeout"));
        config.keepalive_time = parsed.duration("keepalive-time");
        config.keepalive_timeout = parsed.duration("keepalive-timeout");
        config.max_request_bytes = bytes("max-request-bytes");
        config.max_receive_bytes = bytes("max-recv-bytes");
        // As etcdctl does: a watch would rather end than stay quiet on a member without a leader.
        config.require_leader = true;
        let err = self.streams.err.clone();
        config.on_failed_try = Some(Arc::new(move |failed| log_failed_try(&err, failed)));
        let printer = Printer { format, hex: parsed.bool("hex"), value_only: false };
        Ok(Connection { config, printer })
    }

    /// A client over all endpoints, and the printer.
    pub(crate) fn connect(&mut self) -> Result<(Client, Printer), Exit> {
        let Connection { config, printer } = self.connection()?;
        Ok((new_client(config)?, printer))
    }

    pub(crate) fn print(&self, printer: &Printer, answer: &Answer) -> Result<(), Exit> {
        let printed = printer.print(answer).map_err(|Unsupported(format)| {
            Exit::new(Exit::BAD_FEATURE, format!("{format} not supported as output format"))
        })?;
        self.streams.complain(&printed.err);
        self.streams.print(&printed.out)
    }

    /// Sets flags from their variables. A variable next to its flag is refused: whoever set both
    /// expects one of them to win, and we cannot know which.
    fn read_environment(&mut self) -> Result<(), Exit> {
        for (name, value) in &self.streams.environment {
            let (Some(name), value) = (name.to_str(), value.to_string_lossy()) else { continue };
            if !name.starts_with("ETCDCTL_") || WATCH_VARIABLES.contains(&name) {
                continue;
            }
            let Some(flag) = ROOT.shared_flags.iter().find(|flag| variable(flag) == name) else {
                let entry = format!("{name}={value}");
                let fields = [("environment-variable", entry.as_str())];
                let message = "unrecognized environment variable";
                log(&self.streams.err, "warn", None, message, &fields);
                continue;
            };
            if self.parsed.is_set(flag.name) {
                let message = "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))";
                let fields = [("environment-variable", name)];
                log(&self.streams.err, "fatal", None, message, &fields);
                return Err(Exit::silent(Exit::ERROR));
            }
            if !value.is_empty() {
                self.parsed.set(flag, &value).map_err(|why| {
                    let value = go::quote(value.as_bytes());
                    Exit::bad_arguments(format!("invalid value {value} for {name}: {why}"))
                })?;
            }
        }
        Ok(())
    }
}

/// Makes a client, or says why not.
pub(crate) fn new_client(config: Config) -> Result<Client, Exit> {
    Client::new(config).map_err(|error| match error {
        Error::NoEndpoints => Exit::new(Exit::BAD_CONNECTION, error),
        error => Exit::bad_arguments(error),
    })
}

fn variable(flag: &Flag) -> String {
    format!("ETCDCTL_{}", flag.name.to_uppercase().replace('-', "_"))
}

/// A failed try as a line of etcd's client log.
fn log_failed_try(err: &Output, failed: &FailedTry<'_>) {
    let target = format!("etcd-endpoints://{}", failed.endpoints.join(","));
    let error = failed.error.status_text();
    let attempt = failed.attempt.to_string();
    let fields = [
        ("target", target.as_str()),
        ("peer", failed.peer.unwrap_or("")),
        ("method", failed.method),
        ("attempt", attempt.as_str()),
        ("error", error.as_str()),
    ];
    log(err, "warn", Some("etcd-client"), "retrying of unary invoker failed", &fields);
}

/// Writes one JSON line as etcd's tools log.
fn log(err: &Output, level: &str, logger: Option<&str>, message: &str, fields: &[(&str, &str)]) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let text = |value: &str| serde_json::Value::from(value).to_string();
    let logger = logger.map_or(String::new(), |name| format!(",\"logger\":{}", text(name)));
    let mut line = format!(
        "{{\"level\":\"{level}\",\"ts\":\"{}\"{logger},\"caller\":\"ctl/config.rs\",\"msg\":{}",
        go::timestamp(now),
        text(message)
    );
    for (name, value) in fields {
        let value = if *name == "attempt" { (*value).to_owned() } else { text(value) };
        line.push_str(&format!(",\"{name}\":{value}"));
    }
    complain(err, &(line + "}\n"));
}
