//! Connections to the upstream: resolving, the guard against local addresses, TCP, verified TLS, one time-out over all.
//!
//! hyper-util's pool knows a destination by its URI alone, so whatever else decides where a socket goes (a route's
//! `connect`, whether local addresses are allowed) is written into the URI's user part. It never reaches the wire.

use std::fmt::Write;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use sigward_gateway::{Failure, Upstream, is_forbidden};
use tokio::net::TcpStream;
use tower_service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// What the pool knows an upstream by.
pub(crate) fn pool_uri(upstream: &Upstream, path: &str) -> Result<Uri, String> {
    let guard = if upstream.named { 'n' } else { 'g' };
    let mut connect = String::new();
    for byte in upstream.connect.iter().flat_map(|connect| connect.bytes()) {
        // Writing to a String does not fail.
        let _ = write!(connect, "{byte:02x}");
    }
    Uri::builder()
        .scheme(upstream.target.scheme.as_str())
        .authority(format!("{guard}{connect}@{}:{}", host_in_uri(&upstream.target.host), upstream.target.port))
        .path_and_query(path)
        .build()
        .map_err(|error| error.to_string())
}

fn host_in_uri(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// (local addresses are allowed, where the socket goes instead)
fn read_user(uri: &Uri) -> (bool, Option<String>) {
    let user = uri.authority().and_then(|authority| authority.as_str().split_once('@')).map_or("g", |(user, _)| user);
    let hex = user.get(1..).unwrap_or_default().as_bytes();
    let bytes: Option<Vec<u8>> =
        hex.chunks(2).map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())).collect();
    let connect = bytes.and_then(|bytes| String::from_utf8(bytes).ok()).filter(|connect| !connect.is_empty());
    (user.starts_with('n'), connect)
}

/// An address that clients must not reach.
#[derive(Debug, thiserror::Error)]
#[error("{0} is a local address")]
pub(crate) struct ForbiddenAddress(pub(crate) IpAddr);

/// The whole way did not come to its end in time.
#[derive(Debug, thiserror::Error)]
#[error("no connection within {0:?}")]
struct ConnectTimeout(Duration);

/// Resolves names and drops the addresses that clients must not reach.
#[derive(Clone)]
struct Resolver {
    local_allowed: bool,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let local_allowed = self.local_allowed;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let first_forbidden = found.iter().map(SocketAddr::ip).find(|address| is_forbidden(*address));
            let kept: Vec<SocketAddr> = found.into_iter().filter(|address| local_allowed || !is_forbidden(address.ip())).collect();
            match first_forbidden {
                Some(address) if kept.is_empty() => Err(ForbiddenAddress(address).into()),
                _ => Ok(kept.into_iter()),
            }
        })
    }
}

/// TCP, by the guarded or the open resolver, to the URI's host or to where its user part says.
#[derive(Clone)]
pub(crate) struct Tcp {
    guarded: HttpConnector<Resolver>,
    open: HttpConnector<Resolver>,
}

impl Tcp {
    fn new() -> Self {
        let connector = |local_allowed| {
            let mut connector = HttpConnector::new_with_resolver(Resolver { local_allowed });
            connector.enforce_http(false);
            connector.set_nodelay(true);
            connector.set_keepalive(Some(Duration::from_secs(60)));
            connector
        };
        Self { guarded: connector(false), open: connector(true) }
    }
}

impl Service<Uri> for Tcp {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (named, connect) = read_user(&uri);
        let mut connector = if named { self.open.clone() } else { self.guarded.clone() };
        Box::pin(async move {
            let uri = match connect {
                Some(connect) => Uri::builder().scheme("http").authority(connect).path_and_query("/").build()?,
                None => uri,
            };
            // A literal address is not resolved, so it does not pass the resolver's guard.
            let literal = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            if let Ok(address) = literal
                && !named
                && is_forbidden(address)
            {
                return Err(ForbiddenAddress(address).into());
            }
            std::future::poll_fn(|context| connector.poll_ready(context)).await?;
            Ok(connector.call(uri).await?)
        })
    }
}

/// TCP and, for https, TLS, within one time-out.
#[derive(Clone)]
pub(crate) struct Connector {
    inner: HttpsConnector<Tcp>,
    timeout: Duration,
}

impl Connector {
    pub(crate) fn new(tls: &Arc<rustls::ClientConfig>, timeout: Duration) -> Self {
        Self { inner: HttpsConnector::from((Tcp::new(), Arc::clone(tls))), timeout }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.inner.call(uri);
        let timeout = self.timeout;
        Box::pin(async move { tokio::time::timeout(timeout, connecting).await.unwrap_or_else(|_| Err(ConnectTimeout(timeout).into())) })
    }
}

/// What went wrong, from the chain of causes that the pool's client gives.
pub(crate) fn failure_of(error: &hyper_util::client::legacy::Error) -> Failure {
    let mut causes = Vec::new();
    let mut next: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(cause) = next {
        if let Some(ForbiddenAddress(address)) = cause.downcast_ref() {
            return Failure::Forbidden(address.to_string());
        }
        if let Some(body) = cause.downcast_ref::<crate::body::BodyError>() {
            return body.failure();
        }
        if let Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) = cause.downcast_ref() {
            return Failure::Tls(cause.to_string());
        }
        causes.push(cause.to_string());
        // io::Error's own source() leaves its payload out.
        let payload = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = payload.map(|payload| payload as &(dyn std::error::Error + 'static)).or_else(|| cause.source());
    }
    causes.dedup();
    let why = if causes.is_empty() { error.to_string() } else { causes.join(": ") };
    if error.is_connect() { Failure::Connect(why) } else { Failure::Broken(why) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sigward_gateway::{Scheme, Target};

    #[test]
    fn the_user_part_carries_what_the_pool_must_tell_apart() {
        let target = Target::new(Scheme::Https, "s3.amazonaws.com", 443).unwrap();
        let mut upstream = Upstream { target, connect: Some("[::1]:8443".into()), named: true };
        let uri = pool_uri(&upstream, "/k?x=1").unwrap();
        assert_eq!(uri.host(), Some("s3.amazonaws.com"));
        assert_eq!(read_user(&uri), (true, Some("[::1]:8443".to_owned())));
        assert_eq!(uri.path_and_query().unwrap(), "/k?x=1");
        upstream.connect = None;
        upstream.named = false;
        assert_eq!(read_user(&pool_uri(&upstream, "/").unwrap()), (false, None));
        assert_eq!(read_user(&"https://a.test/".parse().unwrap()), (false, None));
    }
}
