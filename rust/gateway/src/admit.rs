//! admit: is this a request that we serve at all?
//!
//! Checks what can be said of a head alone: its size, its target, and that the Host header does not name another host than
//! the one the bytes will go to. A signature covers Host; if it could differ from the destination, a client could have a
//! request signed for one host and delivered to another.

use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Method};

use crate::address::{NoAddress, address_of};
use crate::refuse::Refusal;
use crate::settings::Limits;

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain text.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// 80 or 443.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// As in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A destination: scheme, host, port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Lower-case name without trailing dot, or an IP address (IPv6 without brackets).
    pub host: Arc<str>,
    /// 1 to 65535.
    pub port: u16,
}

impl Target {
    /// Takes a host as a client writes it; an address in any spelling becomes its usual one. The error says what is wrong with it.
    pub fn new(scheme: Scheme, host: &str, port: u16) -> Result<Self, String> {
        match normal_host(host) {
            Some(host) if port > 0 => Ok(Self { scheme, host, port }),
            _ => Err(format!("{:?} port {port}: a host name or address and a port from 1 to 65535 are expected", shown(host))),
        }
    }

    /// Reads `https://host[:port]`. The error says what is wrong with it.
    pub fn from_url(url: &str) -> Result<Self, String> {
        let (scheme, rest) = match url.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            _ => return Err(format!("{:?}: https://host[:port] is expected", shown(url))),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err(format!("{:?}: only scheme, host and port are expected, no path and no user", shown(url)));
        }
        let (host, port) = split_authority(rest).ok_or_else(|| format!("{:?}: its port is not a number", shown(url)))?;
        Self::new(scheme, host, port.unwrap_or(scheme.default_port()))
    }

    /// The Host header: the port stands only where it is not the scheme's own.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_string() };
        if self.port == self.scheme.default_port() { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

/// A host as a client writes it, in the one form in which it is decided on: small letters, no brackets, no dot at the end, an address in
/// its usual spelling. `None`: it is no host.
pub fn normal_host(host: &str) -> Option<Arc<str>> {
    if let Some(inner) = host.strip_prefix('[') {
        let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(address.to_string().into());
    }
    let bare = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    match address_of(&bare) {
        Ok(Some(address)) => Some(address.to_string().into()),
        Ok(None) => {
            let label = |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            (bare.len() <= 253 && bare.split('.').all(label)).then(|| bare.into())
        }
        Err(NoAddress) => None,
    }
}

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `GET http://host/…` to the forward listener.
    Forward,
    /// Inside an intercepted CONNECT.
    Connect,
    /// To a reverse listener.
    Reverse,
}

/// What is known of the body before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodySize {
    /// Exactly so many bytes; 0: none.
    Known(u64),
    /// Chunked, or HTTP/2 without a length.
    Unknown,
}

/// The head of one request, as the front hands it over.
#[derive(Debug)]
pub struct RequestHead {
    /// How it came in.
    pub entry: Entry,
    /// The method.
    pub method: Method,
    /// Where it is bound for: the CONNECT or absolute-form authority, or what the reverse listener says.
    pub target: Target,
    /// Origin-form, as sent, with query.
    pub path: String,
    /// As sent; names lower-case.
    pub headers: HeaderMap,
    /// What is known of the body.
    pub body: BodySize,
    /// The peer, for the log.
    pub client: Arc<str>,
    /// What the front found that no request can have, such as a header's name that is not a token.
    pub malformed: Option<String>,
}

/// Headers that end at each hop (RFC 9110, section 7.6.1). `te: trailers` and `trailer` mean something only to the hop too.
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "expect"
            | "http2-settings"
    )
}

/// Checks the head and takes from it what ends at this hop. Returns the protocol the client asks to upgrade to.
pub(crate) fn admit(head: &mut RequestHead, limits: &Limits) -> Result<Option<HeaderValue>, Refusal> {
    if let Some(why) = head.malformed.take() {
        return Err(Refusal::client(400, "bad-request", format!("{why}."), "Send a request that keeps to RFC 9110."));
    }
    if head.method == Method::CONNECT {
        return Err(Refusal::client(400, "connect-inside", "CONNECT is not served here", "Send CONNECT to the forward listener itself."));
    }
    if head.path.len() > limits.target_bytes {
        return Err(Refusal::client(
            414,
            "target-too-long",
            format!("path and query have {} bytes, {} are served", head.path.len(), limits.target_bytes),
            "Shorten them, or raise limits.target_bytes.",
        ));
    }
    if !(head.path.starts_with('/') || (head.path == "*" && head.method == Method::OPTIONS)) {
        return Err(Refusal::client(
            400,
            "bad-target",
            format!("the request target {:?} is not a path", shown(&head.path)),
            "Send a path that begins with a slash.",
        ));
    }
    let bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > limits.header_bytes || head.headers.len() > limits.headers {
        return Err(Refusal::client(
            431,
            "head-too-large",
            format!("{} headers of {bytes} bytes; {} of {} are served", head.headers.len(), limits.headers, limits.header_bytes),
            "Send fewer or shorter headers, or raise limits.headers and limits.header_bytes.",
        ));
    }
    agree_on_length(head)?;
    agree_on_host(head)?;
    join_cookies(&mut head.headers);
    let trailer = head.headers.remove(TRAILER);
    // HTTP/2 in plain text would carry requests that nobody judges; RFC 9113, section 3.1, has done away with it.
    let may_pass = |protocol: &&HeaderValue| !protocol.as_bytes().to_ascii_lowercase().starts_with(b"h2c");
    let upgrade = head.headers.get(UPGRADE).filter(|_| asks_for_upgrade(&head.headers)).filter(may_pass).cloned();
    remove_hop_by_hop(&mut head.headers);
    // It announces trailers, which are forwarded where the body streams; `frame` takes it away elsewhere.
    if let Some(trailer) = trailer {
        head.headers.insert(TRAILER, trailer);
    }
    Ok(upgrade)
}

/// Several lengths, or a length beside chunks, are the raw material of request smuggling (RFC 9112, section 6.3).
fn agree_on_length(head: &RequestHead) -> Result<(), Refusal> {
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
    let first = lengths.next();
    let conflicting = lengths.next().is_some() || (first.is_some() && head.headers.contains_key(TRANSFER_ENCODING));
    let number = first.map(|value| value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())));
    let number = number.map(|text| text.and_then(|text| text.parse::<u64>().ok()));
    if conflicting || number == Some(None) {
        return Err(Refusal::client(
            400,
            "bad-length",
            "content-length is repeated, beside transfer-encoding, or not a number",
            "Send one content-length, or chunks.",
        ));
    }
    Ok(())
}

/// HTTP/2 may split cookies into lines of their own, which are one line where anything else is spoken (RFC 9113, section 8.2.3): to join
/// them with a comma, as other headers are, makes other cookies of them.
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    if let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) {
        let all: Vec<&[u8]> = [first, second].into_iter().chain(crumbs).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
            headers.insert(COOKIE, joined);
        }
    }
}

fn agree_on_host(head: &RequestHead) -> Result<(), Refusal> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let Some(host) = hosts.next() else { return Ok(()) };
    let bad = |why: &str| {
        Refusal::client(400, "bad-host", why.to_owned(), "Send one Host header: a name, and a port if it is not the usual one.")
    };
    if hosts.next().is_some() {
        return Err(bad("there is more than one Host header"));
    }
    let text = host.to_str().map_err(|_| bad("the Host header is not ASCII"))?;
    let (name, _) = split_authority(text).ok_or_else(|| bad("the port in the Host header is not a number"))?;
    // To a listener with an upstream of its own, a client that knows no host may send an empty one (RFC 9112, section 3.2).
    if head.entry == Entry::Reverse && name.is_empty() {
        return Ok(());
    }
    let named = Target::new(head.target.scheme, name, head.target.port).map_err(|_| bad("the Host header is not a host name"))?;
    if head.entry == Entry::Reverse {
        return Ok(());
    }
    if named.host != head.target.host {
        return Err(Refusal::client(
            421,
            "host-mismatch",
            format!("the Host header says {:?}, but the request is bound for {:?}", shown(&named.host), shown(&head.target.host)),
            "Send the Host header of the host you connect to; to send a request elsewhere, set a route with `upstream` or `connect`.",
        ));
    }
    Ok(())
}

fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
}

/// Removes what ends at this hop, also whatever `Connection` names, but never Host: it is the destination's.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = tokens(headers, &CONNECTION).filter_map(|token| token.parse().ok()).collect();
        for name in named.iter().filter(|name| **name != HOST && **name != CONTENT_LENGTH) {
            headers.remove(name);
        }
    }
    // Most messages have one of them at most: to ask for each costs more than to look at all.
    while let Some(name) = headers.keys().find(|name| is_hop_by_hop(name)).cloned() {
        headers.remove(name);
    }
}

/// Removes what sigward alone may say (`x-sigward-…`) from what an upstream sent: clients believe it.
pub fn remove_own(headers: &mut HeaderMap) {
    while let Some(name) = headers.keys().find(|name| name.as_str().starts_with("x-sigward-")).cloned() {
        headers.remove(name);
    }
}

/// The comma-separated words of a header, wherever it is repeated.
pub(crate) fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(',')).map(str::trim)
}

/// `host[:port]`, `[v6]:port`. `None`: the port is not a number.
pub(crate) fn split_authority(text: &str) -> Option<(&str, Option<u16>)> {
    let colon = text.rfind(':').filter(|at| !text.get(*at..).unwrap_or_default().contains(']'));
    match colon {
        Some(at) if text.get(..at)?.contains(':') && !text.starts_with('[') => Some((text, None)),
        Some(at) => Some((text.get(..at)?, Some(text.get(at + 1..)?.parse().ok()?))),
        None => Some((text, None)),
    }
}

/// True if two of `host[:port]` name one place. `port`: the one that is meant where none is given.
pub fn same_authority(one: &str, other: &str, port: u16) -> bool {
    let read = |authority| split_authority(authority).and_then(|(host, given)| Some((normal_host(host)?, given.unwrap_or(port))));
    matches!((read(one), read(other)), (Some(one), Some(other)) if one == other)
}

/// A client's text, short enough for a message.
pub(crate) fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn head(entry: Entry, host: &str, headers: &[(&'static str, &str)]) -> RequestHead {
        RequestHead {
            entry,
            method: Method::GET,
            target: Target::new(Scheme::Https, host, 443).unwrap(),
            path: "/".into(),
            headers: headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect(),
            body: BodySize::Known(0),
            client: "".into(),
            malformed: None,
        }
    }

    fn slug(mut head: RequestHead) -> Option<&'static str> {
        admit(&mut head, &Limits::default()).err().map(|refusal| refusal.slug)
    }

    #[test]
    fn the_host_header_must_name_the_destination() {
        let host = "sqs.us-east-1.amazonaws.com";
        assert_eq!(slug(head(Entry::Connect, host, &[("host", "SQS.us-east-1.amazonaws.com.:443")])), None);
        assert_eq!(slug(head(Entry::Connect, host, &[("host", "evil.test")])), Some("host-mismatch"));
        assert_eq!(slug(head(Entry::Forward, host, &[("host", "s3.amazonaws.com")])), Some("host-mismatch"));
        assert_eq!(slug(head(Entry::Reverse, host, &[("host", "127.0.0.1:8081")])), None);
        assert_eq!(slug(head(Entry::Reverse, host, &[("host", "")])), None);
        for bad in ["user@a.test", "a.test:x", "1.2.3.256", "a test", "a.test/x", ":80@a.test"] {
            assert_eq!(slug(head(Entry::Reverse, host, &[("host", bad)])), Some("bad-host"), "{bad}");
        }
        assert_eq!(slug(head(Entry::Connect, host, &[("host", "sqs.us-east-1.amazonaws.com:x")])), Some("bad-host"));
    }

    #[test]
    fn one_place_has_many_spellings() {
        for (one, other, same) in [
            ("a.test", "A.test.", true),
            ("a.test", "a.test:443", true),
            ("a.test:443", "a.test:0443", true),
            ("127.0.0.1", "127.1", true),
            ("[::1]:443", "[0:0:0:0:0:0:0:1]", true),
            ("a.test", "b.test", false),
            ("a.test", "a.test:80", false),
            ("a.test:80", "a.test:8080", false),
            ("a.test", "", false),
            ("", "", false),
            ("u@a.test", "u@a.test", false),
            ("a.test", "a.test:x", false),
            ("a.test", "a.test:99999", false),
        ] {
            assert_eq!(same_authority(one, other, 443), same, "{one} {other}");
            assert_eq!(same_authority(other, one, 443), same, "{other} {one}");
        }
    }

    #[test]
    fn repeated_host_or_length_is_refused() {
        let mut twice = head(Entry::Reverse, "a.test", &[("host", "a.test")]);
        twice.headers.append(HOST, HeaderValue::from_static("b.test"));
        assert_eq!(slug(twice), Some("bad-host"));
        let mut twice = head(Entry::Reverse, "a.test", &[("content-length", "1")]);
        twice.headers.append(CONTENT_LENGTH, HeaderValue::from_static("1"));
        assert_eq!(slug(twice), Some("bad-length"));
        assert_eq!(slug(head(Entry::Reverse, "a.test", &[("content-length", "+1")])), Some("bad-length"));
        assert_eq!(slug(head(Entry::Reverse, "a.test", &[("content-length", "1"), ("transfer-encoding", "chunked")])), Some("bad-length"));
    }

    #[test]
    fn what_connection_names_goes_but_host_stays() {
        let mut with = head(
            Entry::Connect,
            "a.test",
            &[("host", "a.test"), ("connection", "Host, X-Amz-Date , close"), ("x-amz-date", "x"), ("te", "trailers")],
        );
        assert_eq!(admit(&mut with, &Limits::default()).unwrap(), None);
        assert_eq!(with.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["host"]);
    }

    #[test]
    fn targets() {
        assert_eq!(Target::from_url("https://a.test").unwrap().authority(), "a.test");
        assert_eq!(Target::from_url("http://[::1]:8080/").unwrap().authority(), "[::1]:8080");
        for (host, expected) in [
            ("A.Test.", "a.test"),
            ("a_b-c.test", "a_b-c.test"),
            ("127.1", "127.0.0.1"),
            ("127.0.0.1.", "127.0.0.1"),
            ("2852039166", "169.254.169.254"),
            ("0xA9FEA9FE.", "169.254.169.254"),
            ("0251.0376.0251.0376", "169.254.169.254"),
            ("[0:0:0:0:0:0:0:1]", "::1"),
            ("::FFFF:7f00:1", "::ffff:127.0.0.1"),
        ] {
            assert_eq!(&*Target::new(Scheme::Http, host, 1).unwrap().host, expected, "{host}");
        }
        for host in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "127.0.0.1..",
            "1.2.3.4.5",
            "a.1",
            "08",
            "[127.0.0.1]",
            "[::1",
            "[a]",
            "u@a",
            "a%62",
            "a b",
        ] {
            assert!(Target::new(Scheme::Http, host, 1).is_err(), "{host}");
        }
        for url in ["a.test", "https://", "https://u@a.test", "https://a.test/x", "https://a.test:99999", "https://a b"] {
            assert!(Target::from_url(url).is_err(), "{url}");
        }
    }
}
