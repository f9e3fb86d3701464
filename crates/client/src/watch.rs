//! Watches: one stream each, replaced when it breaks.
//!
//! What is asked for and handed on is decided by [`Resume`]; here streams are opened and read.

use std::time::Duration;

use futures_util::stream::{self, Stream as _};
use proto::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
    watch_client::WatchClient, watch_request::RequestUnion,
};
use tokio::sync::mpsc;
use tonic::{Request, Status, Streaming};

use crate::{
    Client,
    connection::Picked,
    error::Error,
    resume::{Resume, Step},
};

/// The wait before a stream that broke is replaced, so that a member that closes each stream at once
/// is not hammered.
const REOPEN: Duration = Duration::from_millis(50);

/// Requests on one stream that the connection has not taken yet. When it is full the connection is
/// stuck, and a request for progress is dropped as members drop it when they are busy.
const REQUESTS_MAX: usize = 16;

impl Client {
    /// Watches keys, across broken streams and members, without gap or double.
    pub fn watch(&self, request: WatchCreateRequest) -> Watch {
        let machine = Resume::new(request, self.shared.config.require_leader);
        Watch { client: self.clone(), machine, stream: None, progress_wanted: false }
    }
}

/// A watch. Its first answer says that it stands; after that come events and progress.
pub struct Watch {
    client: Client,
    machine: Resume,
    stream: Option<Stream>,
    /// Progress was asked for while no stream was open.
    progress_wanted: bool,
}

struct Stream {
    endpoint: usize,
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Watch {
    /// The next answer; none after the last one, which says `canceled` (a compaction took what was
    /// to come, or the member refused) or is an error. May be dropped and called again at any time.
    pub async fn next(&mut self) -> Option<Result<WatchResponse, Error>> {
        while !self.machine.is_finished() {
            let Some(stream) = &mut self.stream else {
                if let Err(error) = self.open().await {
                    return Some(Err(error));
                }
                continue;
            };
            match stream.answers.message().await {
                Ok(Some(response)) => {
                    self.client.on_success(stream.endpoint);
                    match self.machine.on_response(response) {
                        Step::Nothing => {}
                        Step::Deliver(response) => return Some(Ok(response)),
                        Step::Finished(response) => {
                            self.stream = None;
                            return Some(Ok(response));
                        }
                    }
                }
                Ok(None) => {
                    if let Err(error) = self.on_broken(None).await {
                        return Some(Err(error));
                    }
                }
                Err(status) => {
                    self.client.on_status(stream.endpoint, &status);
                    if let Err(error) = self.on_broken(Some(status)).await {
                        return Some(Err(error));
                    }
                }
            }
        }
        None
    }

    /// Asks the member up to which revision everything has been sent; the answer comes by
    /// [`Watch::next`], or not at all if the watch lags behind.
    pub fn request_progress(&mut self) {
        self.progress_wanted = true;
        self.send_progress_request();
    }

    /// The lowest revision that has not been handed on; 0 while the watch has not been created.
    pub fn next_revision(&self) -> i64 {
        self.machine.next_revision()
    }

    async fn open(&mut self) -> Result<(), Error> {
        // An opening that was dropped half way is a broken stream.
        self.machine.on_broken(None)?;
        let Picked { endpoint, channel } = self.client.pick(None).await?;
        let create = RequestUnion::CreateRequest(self.machine.request());
        let (requests, sent) = sending(WatchRequest { request_union: Some(create) });
        let mut request = Request::new(sent);
        self.client.mark(&mut request);
        let receive_max = self.client.receive_max();
        let mut service = WatchClient::new(channel).max_decoding_message_size(receive_max);
        match service.watch(request).await {
            Ok(answers) => {
                self.stream = Some(Stream { endpoint, requests, answers: answers.into_inner() });
                self.send_progress_request();
                Ok(())
            }
            Err(status) => {
                self.client.on_status(endpoint, &status);
                self.on_broken(Some(status)).await
            }
        }
    }

    async fn on_broken(&mut self, status: Option<Status>) -> Result<(), Error> {
        self.stream = None;
        self.machine.on_broken(status.map(Error::from))?;
        tokio::time::sleep(REOPEN).await;
        Ok(())
    }

    fn send_progress_request(&mut self) {
        let Some(stream) = self.stream.as_ref().filter(|_| self.progress_wanted) else { return };
        let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
        let request = WatchRequest { request_union: Some(progress) };
        self.progress_wanted = stream.requests.try_send(request).is_err();
    }
}

/// A stream of requests that begins with `first`, and the sender of those that follow. It ends when
/// the sender is dropped.
pub(crate) fn sending<T: Send + 'static>(
    first: T,
) -> (mpsc::Sender<T>, impl futures_util::Stream<Item = T> + Send + 'static) {
    let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
    let following = stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|request| (request, receiver))
    });
    let requests = futures_util::StreamExt::chain(stream::iter([first]), following);
    debug_assert!(requests.size_hint().0 >= 1);
    (sender, requests)
}
