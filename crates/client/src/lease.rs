//! Leases: granting, revoking, looking, and keeping alive.

use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, lease_client::LeaseClient,
};
use tokio::{sync::mpsc, time::sleep_until};
use tonic::{Response, Status, Streaming};

use crate::{
    Client,
    connection::{Picked, within},
    error::Error,
    keep_alive::{Action, KeepAlive},
    retry::Policy::Repeatable,
    watch::sending,
};

impl Client {
    /// Grants a lease. Repeated like a read, as all clients do: at worst a lease that nobody knows
    /// of expires.
    pub async fn lease_grant(
        &self,
        request: LeaseGrantRequest,
    ) -> Result<LeaseGrantResponse, Error> {
        self.call("/etcdserverpb.Lease/LeaseGrant", Repeatable, request, |channel, request| {
            let mut lease = LeaseClient::new(channel);
            async move { lease.lease_grant(request).await }
        })
        .await
    }

    /// Revokes a lease and deletes its keys.
    pub async fn lease_revoke(&self, id: i64) -> Result<LeaseRevokeResponse, Error> {
        let request = LeaseRevokeRequest { id };
        self.call("/etcdserverpb.Lease/LeaseRevoke", Repeatable, request, |channel, request| {
            let mut lease = LeaseClient::new(channel);
            async move { lease.lease_revoke(request).await }
        })
        .await
    }

    /// How long a lease has to live, and its keys if asked for.
    pub async fn lease_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, Error> {
        self.call("/etcdserverpb.Lease/LeaseTimeToLive", Repeatable, request, |channel, request| {
            let mut lease = LeaseClient::new(channel).max_decoding_message_size(self.receive_max());
            async move { lease.lease_time_to_live(request).await }
        })
        .await
    }

    /// All leases that the member knows.
    pub async fn leases(&self) -> Result<LeaseLeasesResponse, Error> {
        let request = LeaseLeasesRequest {};
        self.call("/etcdserverpb.Lease/LeaseLeases", Repeatable, request, |channel, request| {
            let mut lease = LeaseClient::new(channel).max_decoding_message_size(self.receive_max());
            async move { lease.lease_leases(request).await }
        })
        .await
    }

    /// Renews a lease once.
    ///
    /// # Errors
    /// Also `etcdserver: requested lease not found`, if there is no such lease.
    pub async fn keep_alive_once(&self, id: i64) -> Result<LeaseKeepAliveResponse, Error> {
        let request = LeaseKeepAliveRequest { id };
        let method = "/etcdserverpb.Lease/LeaseKeepAlive";
        let response = self
            .call(method, Repeatable, request, |channel, request| {
                let mut lease = LeaseClient::new(channel);
                async move {
                    let requests = request.map(|once| futures_util::stream::iter([once]));
                    let mut answers = lease.lease_keep_alive(requests).await?.into_inner();
                    let answer = answers.message().await?;
                    let ended = || Status::unavailable("the stream ended without an answer");
                    answer.map(Response::new).ok_or_else(ended)
                }
            })
            .await?;
        if response.ttl <= 0 { Err(Error::lease_not_found()) } else { Ok(response) }
    }

    /// Keeps a lease alive for as long as [`LeaseKeeper::next`] is awaited.
    pub fn keep_alive(&self, id: i64) -> LeaseKeeper {
        let patience = self.shared.config.dial_timeout + std::time::Duration::from_secs(1);
        let machine = KeepAlive::new(self.now(), patience);
        LeaseKeeper { client: self.clone(), id, machine, stream: None }
    }
}

/// A lease that is kept alive; it is renewed only while [`LeaseKeeper::next`] is awaited.
pub struct LeaseKeeper {
    client: Client,
    id: i64,
    machine: KeepAlive,
    stream: Option<Stream>,
}

struct Stream {
    endpoint: usize,
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    answers: Streaming<LeaseKeepAliveResponse>,
}

impl LeaseKeeper {
    /// Waits for the next renewal and gives its answer; none when the lease is gone. Dropping the
    /// future loses no more than one answer.
    pub async fn next(&mut self) -> Option<LeaseKeepAliveResponse> {
        loop {
            let until = match self.machine.poll(self.client.now()) {
                Action::Expired => return None,
                Action::Renew => {
                    self.renew().await;
                    continue;
                }
                Action::WaitUntil(until) => self.client.moment(until),
            };
            let Some(stream) = &mut self.stream else {
                sleep_until(until).await;
                continue;
            };
            match within(Some(until), stream.answers.message()).await {
                None => {}
                Some(Ok(Some(answer))) => {
                    self.client.on_success(stream.endpoint);
                    self.machine.on_response(answer.ttl, self.client.now());
                    if answer.ttl > 0 {
                        return Some(answer);
                    }
                }
                Some(Ok(None)) => self.on_broken(None),
                Some(Err(status)) => self.on_broken(Some(status)),
            }
        }
    }

    /// Sends a keep-alive, on a new stream if there is none. What goes wrong shows as the answer's
    /// absence.
    async fn renew(&mut self) {
        let request = LeaseKeepAliveRequest { id: self.id };
        let alone = self.client.shared.endpoints.len() == 1;
        if let Some(Stream { endpoint, .. }) = self.stream
            && !alone
            && self.machine.leave_silent()
        {
            self.client.on_broken(endpoint);
            self.stream = None;
        }
        if let Some(stream) = &self.stream {
            // Full means that earlier ones have not left yet, which is as good.
            if let Err(mpsc::error::TrySendError::Closed(_)) = stream.requests.try_send(request) {
                self.on_broken(None);
            }
            return;
        }
        // Not beyond the machine's next wish, so that an unreachable cluster ends the lease in time.
        let Action::WaitUntil(until) = self.machine.poll(self.client.now()) else { return };
        let until = Some(self.client.moment(until));
        let Ok(Picked { endpoint, channel }) = self.client.pick(until).await else { return };
        let (requests, stream) = sending(request);
        let opening = async { LeaseClient::new(channel).lease_keep_alive(stream).await };
        match within(until, opening).await {
            // Who does not even open a stream will not renew on it.
            None if !alone => self.client.on_broken(endpoint),
            None => {}
            Some(Ok(answers)) => {
                self.stream = Some(Stream { endpoint, requests, answers: answers.into_inner() });
            }
            Some(Err(status)) => {
                self.client.on_status(endpoint, &status);
                self.machine.on_broken(self.client.now());
            }
        }
    }

    fn on_broken(&mut self, status: Option<Status>) {
        if let (Some(stream), Some(status)) = (&self.stream, status) {
            self.client.on_status(stream.endpoint, &status);
        }
        self.stream = None;
        self.machine.on_broken(self.client.now());
    }
}
