//! HTTP/1.1 on the client port: hyper reads and writes, [`crate::http`] answers.

use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::http as pages;
use crate::log;
use crate::serve::limits::HTTP1_HEADER_DEADLINE;
use crate::serve::shard::Shard;
use crate::serve::socket::Socket;

/// Serves a connection to its end.
pub async fn serve(shard: Rc<Shard>, socket: Socket) {
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let shard = shard.clone();
        async move {
            let (method, uri) = (request.method().clone(), request.uri().clone());
            // No page takes a body; hyper discards one, or closes if it is long.
            let answer = pages::answer(&shard, &method, &uri).await;
            Ok::<_, Infallible>(answer.map(|body| Full::new(Bytes::from(body))))
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP1_HEADER_DEADLINE)
        .serve_connection(TokioIo::new(socket), service)
        .await;
    if let Err(error) = served {
        log!(Debug, "an HTTP/1.1 connection ended early", "error" => error.to_string());
    }
}
