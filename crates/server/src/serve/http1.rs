//! HTTP/1.1 on the client port: hyper reads and writes, [`crate::http`] answers.

use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::http::{self as pages, Request, RequestBody};
use crate::log;
use crate::serve::limits::HTTP1_HEADER_DEADLINE;
use crate::serve::shard::Shard;
use crate::serve::socket::Socket;

/// Serves a connection to its end.
pub async fn serve(shard: Rc<Shard>, socket: Socket) {
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let shard = shard.clone();
        async move {
            let (head, body) = request.into_parts();
            // What of a body is not read hyper discards, or closes if it is long.
            let request = Request { head, body: RequestBody::Http1(body) };
            Ok::<_, Infallible>(pages::answer(&shard, request).await)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP1_HEADER_DEADLINE)
        // Names as Go writes them: X-Etcd-Index.
        .title_case_headers(true)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = shard.stopped() => {
            // A request under way is still answered. An idle connection ends now.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        log!(Debug, "an HTTP/1.1 connection ended early", "error" => error.to_string());
    }
}
