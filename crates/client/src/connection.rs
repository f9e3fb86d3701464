//! Dialing and calling: the one place that owns sockets, waits, and counts time.
//!
//! Decisions are the machines' ([`crate::balance`], [`crate::retry`]); here they are carried out. A
//! connection is made when an endpoint is first picked, and thrown away when it breaks, so that the
//! next pick dials anew and a failed dial is known to have sent nothing.

use std::{
    error::Error as _,
    future::Future,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::{
    Request, Response, Status,
    metadata::MetadataValue,
    transport::{Channel, Endpoint as Address},
};

use crate::{
    Client, Config, FailedTry, PING_INTERVAL_MIN,
    balance::Pick,
    error::{Code, Error},
    retry::{Failure, Policy, Retry, Verdict},
};

/// One endpoint: where it is, and the connection to it if there is one.
pub(crate) struct Endpoint {
    address: Address,
    /// A slot that is read or replaced, never held across an await: two requests that dial at once
    /// make two connections, and the later one stays.
    channel: Mutex<Option<Channel>>,
}

impl Endpoint {
    /// Reads `host:port`, `http://host:port` or `unix:/path`.
    pub(crate) fn parse(text: &str, config: &Config) -> Result<Endpoint, Error> {
        let bad = |reason: &str| Error::BadEndpoint {
            endpoint: text.to_owned(),
            reason: reason.to_owned(),
        };
        let uri = match text.split_once("://") {
            Some(("http", rest)) => format!("http://{}", rest.trim_end_matches('/')),
            Some(("unix", path)) => format!("unix://{path}"),
            Some(("https" | "unixs", _)) => return Err(bad("TLS is not supported yet")),
            Some(_) => return Err(bad("the scheme must be http or unix")),
            None => match text.strip_prefix("unix:") {
                Some(path) => format!("unix://{path}"),
                None => format!("http://{}", text.trim_end_matches('/')),
            },
        };
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        let address = Address::from_shared(uri)
            .map_err(|error| bad(&error.to_string()))?
            .connect_timeout(config.dial_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(config.keepalive_time.max(PING_INTERVAL_MIN))
            .keep_alive_timeout(config.keepalive_timeout);
        Ok(Endpoint { address, channel: Mutex::new(None) })
    }

    fn channel(&self) -> Option<Channel> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_channel(&self, channel: Option<Channel>) {
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = channel;
    }
}

/// A connection that was picked for a try.
pub(crate) struct Picked {
    /// The endpoint's number.
    pub(crate) endpoint: usize,
    pub(crate) channel: Channel,
}

impl Client {
    /// Sends one request and repeats it as its policy allows, until the time is over.
    pub(crate) async fn call<Q, R, F, A>(
        &self,
        method: &'static str,
        policy: Policy,
        message: Q,
        send: F,
    ) -> Result<R, Error>
    where
        Q: prost::Message + Clone,
        F: Fn(Channel, Request<Q>) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        self.check_size(&message)?;
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        let mut retry = Retry::new(policy, self.shared.endpoints.len());
        loop {
            let Picked { endpoint, channel } = match self.pick(deadline).await {
                Ok(picked) => picked,
                Err(error) => {
                    self.report(method, None, retry.tries(), &error);
                    return Err(error);
                }
            };
            let mut request = Request::new(message.clone());
            if let Some(deadline) = deadline {
                request.set_timeout(deadline.saturating_duration_since(Instant::now()));
            }
            let tries = retry.tries();
            let (failure, error) = match within(deadline, send(channel, request)).await {
                Some(Ok(response)) => {
                    self.on_success(endpoint);
                    return Ok(response.into_inner());
                }
                Some(Err(status)) => {
                    let sent = self.on_status(endpoint, &status);
                    (sent.then_some(status.code()), Error::from(status))
                }
                None => (Some(Code::DeadlineExceeded), Error::DeadlineExceeded { last: None }),
            };
            let verdict = match failure {
                None => retry.on_failure(Failure::NotSent),
                Some(code) => {
                    self.report(method, Some(endpoint), tries, &error);
                    let message = match &error {
                        Error::Status { message, .. } => message,
                        _ => "",
                    };
                    retry.on_failure(Failure::Status { code, message })
                }
            };
            match verdict {
                Verdict::Again(wait) if wait.is_zero() => {}
                Verdict::Again(wait) => {
                    if within(deadline, tokio::time::sleep(wait)).await.is_none() {
                        return Err(error);
                    }
                }
                Verdict::GiveUp => return Err(error),
            }
        }
    }

    /// A connection to the next endpoint that can be reached before the deadline.
    pub(crate) async fn pick(&self, deadline: Option<Instant>) -> Result<Picked, Error> {
        let mut last = None;
        loop {
            let pick = self.with_balancer(|balancer, now| balancer.pick(now));
            let endpoint = match pick {
                Pick::Use(endpoint) => endpoint,
                Pick::RestUntil(until) => {
                    let until = Instant::from_std(self.shared.start + until);
                    if within(deadline, sleep_until(until)).await.is_none() {
                        return Err(Error::DeadlineExceeded { last });
                    }
                    continue;
                }
            };
            let slot = &self.shared.endpoints[endpoint];
            if let Some(channel) = slot.channel() {
                return Ok(Picked { endpoint, channel });
            }
            match within(deadline, slot.address.connect()).await {
                Some(Ok(channel)) => {
                    slot.set_channel(Some(channel.clone()));
                    return Ok(Picked { endpoint, channel });
                }
                Some(Err(error)) => {
                    last = Some(self.dial_error(endpoint, &error));
                    self.on_broken(endpoint);
                }
                None => return Err(Error::DeadlineExceeded { last }),
            }
        }
    }

    /// The endpoint answered.
    pub(crate) fn on_success(&self, endpoint: usize) {
        self.with_balancer(|balancer, _| balancer.on_success(endpoint));
    }

    /// The connection broke or could not be made.
    pub(crate) fn on_broken(&self, endpoint: usize) {
        self.shared.endpoints[endpoint].set_channel(None);
        self.with_balancer(|balancer, now| balancer.on_failure(endpoint, now));
    }

    /// A status came back: from the member, or from the library because the connection broke. Says
    /// whether the request may have reached the member.
    pub(crate) fn on_status(&self, endpoint: usize, status: &Status) -> bool {
        // A status that the library made carries its cause; one that a member sent carries none.
        if status.source().is_none() {
            self.on_success(endpoint);
            return true;
        }
        self.on_broken(endpoint);
        let mut cause = status.source();
        while let Some(error) = cause {
            if error.is::<tonic::ConnectError>() {
                return false;
            }
            cause = error.source();
        }
        true
    }

    /// Asks members without a leader to refuse, if so configured.
    pub(crate) fn mark<T>(&self, request: &mut Request<T>) {
        if self.shared.config.require_leader {
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        }
    }

    /// The largest answer that is taken, in bytes.
    pub(crate) fn receive_max(&self) -> usize {
        self.shared.config.max_receive_bytes
    }

    /// The time since the client was made.
    pub(crate) fn now(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// The moment at this time of the client's life.
    pub(crate) fn moment(&self, time: Duration) -> Instant {
        Instant::from_std(self.shared.start + time)
    }

    fn with_balancer<T>(
        &self,
        act: impl FnOnce(&mut crate::balance::Balancer, Duration) -> T,
    ) -> T {
        let now = self.now();
        let mut balancer = self.shared.balancer.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut balancer, now)
    }

    fn check_size(&self, message: &impl prost::Message) -> Result<(), Error> {
        let (bytes, bytes_max) = (message.encoded_len(), self.shared.config.max_request_bytes);
        if bytes <= bytes_max {
            return Ok(());
        }
        let message = format!("trying to send message larger than max ({bytes} vs. {bytes_max})");
        Err(Error::Status { code: Code::ResourceExhausted, message })
    }

    fn dial_error(&self, endpoint: usize, error: &tonic::transport::Error) -> String {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = error.to_string();
            cause = error.source();
        }
        format!("dial {}: {text}", self.endpoints()[endpoint])
    }

    fn report(&self, method: &'static str, endpoint: Option<usize>, attempt: u32, error: &Error) {
        if let Some(on_failed_try) = &self.shared.config.on_failed_try {
            let peer = endpoint.map(|endpoint| self.endpoints()[endpoint].as_str());
            on_failed_try(&FailedTry { endpoints: self.endpoints(), peer, method, attempt, error });
        }
    }
}

/// Waits for the future, but not beyond the deadline.
pub(crate) async fn within<T>(
    deadline: Option<Instant>,
    future: impl Future<Output = T>,
) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_people_write_them() {
        let config = Config::new(["x:1"]);
        for good in
            ["127.0.0.1:2379", "http://127.0.0.1:2379/", "[::1]:2379", "unix:/run/etcd.sock"]
        {
            assert!(Endpoint::parse(good, &config).is_ok(), "{good}");
        }
        for bad in ["", "https://127.0.0.1:2379", "ftp://x:1", "a b:1"] {
            assert!(Endpoint::parse(bad, &config).is_err(), "{bad:?}");
        }
        assert!(matches!(Client::new(Config::new([""; 0])), Err(Error::NoEndpoints)));
    }
}
