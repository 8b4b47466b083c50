//! The client half of HTTP/2, by hyper.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use http::header::HOST;
use http::{HeaderValue, Method, Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use sigward_gateway::{BodySize, Refusal, RequestHead, Shape};

use super::{Ending, Front, Via, at_least};
use crate::body::{BodyError, Inbound};
use crate::drive::{AnswerBody, Listener};
use crate::net::{Socket, Stream};

/// Serves a connection to its end.
pub(crate) async fn serve(front: Front, stream: Stream, via: Via, client: Arc<str>) {
    let config = front.shared.config.load_full();
    let limits = &config.settings.limits;
    let mut ending = front.native.ending.subscribe();
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes + limits.target_bytes + 64 * limits.headers).unwrap_or(u32::MAX))
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .max_send_buf_size(64 << 10)
        .keep_alive_interval(Some(config.settings.timeouts.client_head));
    let service = service_fn(move |request| {
        let (front, via, client) = (front.clone(), via.clone(), Arc::clone(&client));
        async move { Ok::<_, Infallible>(answer(front, request, via, client).await) }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = at_least(&mut ending, Ending::Draining) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

type Reply = Response<AnswerBody>;

async fn answer(front: Front, mut request: Request<Incoming>, via: Via, client: Arc<str>) -> Reply {
    if request.method() == Method::CONNECT && matches!(via, Via::Proxy) {
        let authority = request.uri().authority().map_or_else(String::new, ToString::to_string);
        let beyond = match front.connect(&authority).await {
            Ok(beyond) => beyond,
            Err(refusal) => return refused(&refusal),
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let again = front.clone();
        tokio::spawn(async move {
            let _counted = front.counted();
            if let Ok(upgraded) = upgrade.await {
                let stream = Stream::new(Socket::Other(Box::new(TokioIo::new(upgraded))));
                again.until_cut(Box::pin(again.clone().beyond(stream, beyond, client))).await;
            }
        });
        return Response::new(AnswerBody::empty());
    }
    let (mut parts, body) = request.into_parts();
    if !parts.headers.contains_key(HOST)
        && let Some(authority) = parts.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        // HTTP/2 says it in :authority.
        parts.headers.insert(HOST, host);
    }
    if !parts.headers.contains_key(HOST) {
        return refused(&super::target::no_host());
    }
    // A proxy's client sends the whole of it, every other a path.
    let target = if matches!(via, Via::Proxy) {
        parts.uri.to_string()
    } else {
        parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string)
    };
    let (target, path) = match super::target::destination(&target, &parts.headers, &via, &front.kind) {
        Ok(found) => found,
        Err(refusal) => return refused(&refusal),
    };
    let size = match body.size_hint().exact() {
        Some(length) => BodySize::Known(length),
        None if body.is_end_stream() => BodySize::Known(0),
        None => BodySize::Unknown,
    };
    let head =
        RequestHead { entry: via.entry(), method: parts.method, target, path, headers: parts.headers, body: size, client, malformed: None };
    let inbound = if size == BodySize::Known(0) {
        Inbound::Whole(bytes::Bytes::new())
    } else {
        Inbound::Other(body.map_err(|error| BodyError::Client(error.to_string())).boxed_unsync())
    };
    front.exchange(head, inbound, Listener::default()).await.response
}

fn refused(refusal: &Refusal) -> Reply {
    let (parts, body) = refusal.response(Shape::Plain, false).into_parts();
    Response::from_parts(parts, AnswerBody::whole(body))
}
