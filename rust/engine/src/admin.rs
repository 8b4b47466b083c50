//! The admin listener: `/healthz`, `/readyz`, `/metrics`, `/throttled`. On an address of its own, and never calls AWS.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::shared::Shared;
use crate::system::unix_seconds;

/// Connections at once. Scrapers and probes need a few; beyond, the next waits for one to end.
const MOST: usize = 512;
/// A client has so long to send a head, the next one on the same connection too.
const HEAD: Duration = Duration::from_secs(10);
/// A connection ends after so long, when it has had the answer that it is at.
const LIFETIME: Duration = Duration::from_secs(120);
/// And for that it has so long: a client that does not read is not waited for.
const LAST_ANSWER: Duration = Duration::from_secs(30);

/// Serves until the runtime ends.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                // Out of descriptors, mostly: another connection has to end first.
                tracing::warn!("admin: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&request, &shared);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD);
            let mut connection = pin!(server.serve_connection(TokioIo::new(socket), service));
            if tokio::time::timeout(LIFETIME, &mut connection).await.is_err() {
                connection.as_mut().graceful_shutdown();
                let _ = tokio::time::timeout(LAST_ANSWER, connection).await;
            }
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "GET is served here\n".into());
    }
    match request.uri().path() {
        "/healthz" => plain(StatusCode::OK, "ok\n".into()),
        "/readyz" => match shared.not_ready() {
            missing if missing.is_empty() => plain(StatusCode::OK, lines("ready", shared.certificates.notices(unix_seconds()))),
            missing => plain(StatusCode::SERVICE_UNAVAILABLE, lines("not ready", missing)),
        },
        "/metrics" => {
            let mut response = plain(StatusCode::OK, shared.metrics_text());
            response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
            response
        }
        "/throttled" => {
            let mut response = plain(StatusCode::OK, throttled(shared));
            response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
            response
        }
        _ => plain(StatusCode::NOT_FOUND, "/healthz, /readyz, /metrics and /throttled are served here\n".into()),
    }
}

fn lines(first: &str, rest: Vec<String>) -> String {
    std::iter::once(first.to_owned()).chain(rest).map(|line| line + "\n").collect()
}

/// What AWS throttled, as JSON: for `sigward quotas`.
fn throttled(shared: &Shared) -> String {
    let all = shared.config.load().live.throttles.all(shared.started.elapsed());
    let told: Vec<serde_json::Value> = all
        .iter()
        .map(|one| {
            serde_json::json!({
                "service": one.service, "operation": one.operation, "region": one.region, "calls": one.calls,
                "throttled": one.throttled, "ever": one.ever, "steady": one.steady,
            })
        })
        .collect();
    serde_json::Value::from(told).to_string() + "\n"
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
