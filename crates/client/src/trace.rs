//! Our own service: what requests went through. A member of etcd does not have it, and says *unknown service*.

use proto::quorate::v1::{
    SlowRequest, SlowResponse, StagesRequest, StagesResponse, TraceRequest, TraceResponse,
    trace_client::TraceClient,
};
use tonic::transport::Channel;

use crate::{
    Client,
    error::Error,
    retry::Policy::{AtMostOnce, Repeatable},
};

impl Client {
    /// Runs a request, and tells what it went through on the member that was asked. Sent at most once.
    pub async fn trace(&self, request: TraceRequest) -> Result<TraceResponse, Error> {
        self.call("/quorate.v1.Trace/Trace", AtMostOnce, request, |channel, request| {
            let mut trace = self.tracing(channel);
            async move { trace.trace(request).await }
        })
        .await
    }

    /// What a member knows of an entry of the log. Ask a client of one endpoint.
    pub async fn stages(&self, term: u64, index: u64) -> Result<StagesResponse, Error> {
        let request = StagesRequest { term, index };
        self.call("/quorate.v1.Trace/Stages", Repeatable, request, |channel, request| {
            let mut trace = self.tracing(channel);
            async move { trace.stages(request).await }
        })
        .await
    }

    /// The slowest requests that were made to a member in the last minutes. Ask a client of one endpoint.
    pub async fn slow(&self) -> Result<SlowResponse, Error> {
        let request = SlowRequest {};
        self.call("/quorate.v1.Trace/Slow", Repeatable, request, |channel, request| {
            let mut trace = self.tracing(channel);
            async move { trace.slow(request).await }
        })
        .await
    }

    fn tracing(&self, channel: Channel) -> TraceClient<Channel> {
        TraceClient::new(channel).max_decoding_message_size(self.receive_max())
    }
}
