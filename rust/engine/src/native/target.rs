//! Where a request is bound for: by its target, by Host, or by the listener it came to.

use http::header::{HOST, HeaderMap};
use http::{HeaderValue, Uri};
use sigward_gateway::admit::same_authority;
use sigward_gateway::{Refusal, Scheme, Target};

use super::{Kind, Via};

/// A request target in absolute form, in its parts: scheme, authority, path with query.
fn absolute(target: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = target.split_once("://").filter(|_| !target.starts_with('/'))?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    Some((scheme, authority, path))
}

/// The destination and the path of a request. `target`: as sent. The refusal is for the client.
pub(super) fn destination(target: String, headers: &HeaderMap, via: &Via, kind: &Kind) -> Result<(Target, String), Refusal> {
    let host = only_host(headers)?;
    if target.starts_with('/') {
        return by_path(target, None, host, via, kind);
    }
    match absolute(&target) {
        Some((scheme, authority, path)) => {
            let path = if path.is_empty() || path.starts_with('?') { format!("/{path}") } else { path.to_owned() };
            by_path(path, Some((scheme, authority)), host, via, kind)
        }
        None => by_path(target, None, host, via, kind),
    }
}

/// `authority`: scheme and authority of a target in absolute form. `host`: the Host header.
fn by_path(path: String, authority: Option<(&str, &str)>, host: Option<&str>, via: &Via, kind: &Kind) -> Result<(Target, String), Refusal> {
    if let Some((scheme, _)) = authority
        && !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
    {
        return Err(bad("bad-target", &format!("the scheme {scheme:?} is not http or https."), "Send http:// or https://."));
    }
    if authority.is_some_and(|(_, authority)| authority.contains('@')) {
        return Err(bad(
            "bad-target",
            "the request target names a user.",
            "Leave the user out; send an Authorization header if one is needed.",
        ));
    }
    if authority.is_none() && !(path.starts_with('/') || path == "*") {
        return Err(bad("bad-target", "the request target is not a path.", "Send a path that begins with a slash."));
    }
    if let Via::Proxy = via {
        let Some((scheme, authority)) = authority else {
            return Err(bad(
                "not-a-proxy-request",
                "the request target names no host, and this listener is a proxy.",
                "Send CONNECT or an absolute URL, or send requests for an endpoint URL to a reverse listener.",
            ));
        };
        let scheme = scheme_of(scheme);
        return Ok((named(scheme, authority, scheme.default_port(), "bad-target")?, path));
    }
    if let (Some((scheme, authority)), Some(host)) = (authority, host)
        && !same_authority(authority, host, scheme_of(scheme).default_port())
    {
        return Err(Refusal::client(
            421,
            "host-mismatch",
            format!("the Host header says {host:?}, but the request target {authority:?}."),
            "Send the same in both, or a path alone.",
        ));
    }
    match (via, kind) {
        (Via::Inside(inside), _) => {
            if let Some((_, authority)) = authority
                && named(inside.scheme, authority, inside.scheme.default_port(), "bad-target")?.host != inside.host
            {
                return Err(Refusal::client(
                    421,
                    "host-mismatch",
                    format!("the request target says {authority:?}, but the connection is to {:?}.", inside.host),
                    "Send a path alone.",
                ));
            }
            Ok((inside.clone(), path))
        }
        (_, Kind::Reverse(Some(fixed))) => Ok((fixed.clone(), path)),
        _ => {
            let named_host = host.or(authority.map(|(_, authority)| authority)).unwrap_or_default();
            let mut target = named(Scheme::Https, named_host, 443, "bad-host")?;
            if target.port == 80 {
                target.port = 443;
            }
            Ok((target, path))
        }
    }
}

fn scheme_of(text: &str) -> Scheme {
    if text.eq_ignore_ascii_case("https") { Scheme::Https } else { Scheme::Http }
}

/// The host of a request of HTTP/2 is in `:authority`, in Host, or the same in both (RFC 9113, section 8.3.1). `None`: it is in neither.
pub(super) fn one_authority(uri: &Uri, headers: &HeaderMap) -> Result<Option<HeaderValue>, Refusal> {
    only_host(headers)?;
    let (authority, host) = (uri.authority(), headers.get(HOST));
    if authority.is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(bad("bad-host", ":authority names a user.", "Leave the user out; send an Authorization header if one is needed."));
    }
    let (Some(authority), Some(host)) = (authority, host) else {
        return Ok(host.cloned().or_else(|| HeaderValue::from_str(authority?.as_str()).ok()));
    };
    let port = uri.scheme_str().map_or(Scheme::Https, scheme_of).default_port();
    if !host.to_str().is_ok_and(|host| same_authority(authority.as_str(), host, port)) {
        let why = format!(":authority says {:?}, and the Host header something else.", authority.as_str());
        return Err(bad("bad-host", &why, "Send the same in both, or :authority alone."));
    }
    Ok(Some(host.clone()))
}

/// The Host header, of which there is one at most.
pub(super) fn only_host(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("bad-host", "there is more than one Host header.", "Send one."));
    }
    Ok(host.and_then(|host| host.to_str().ok()))
}

/// Where a CONNECT leads: a host and a port, both.
pub(super) fn authority(target: &str) -> Result<Target, Refusal> {
    if !target.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(bad("bad-target", "CONNECT does not name a host and a port.", "Send CONNECT host:port."));
    }
    named(Scheme::Https, target, 443, "bad-target")
}

/// A host with its port, as a client writes it.
pub(super) fn named(scheme: Scheme, authority: &str, port: u16, slug: &'static str) -> Result<Target, Refusal> {
    let hint = if slug == "bad-host" { "Send the Host header of an AWS endpoint." } else { "Send a host name and a port." };
    let wrong = |why: String| Refusal::client(400, slug, why, hint);
    // A user is no part of where a request goes.
    let (host, told) = match authority.rfind(':').filter(|at| !authority.get(*at..).unwrap_or_default().contains(']')) {
        Some(at) => authority.split_at(at),
        None => (authority, ""),
    };
    let port = match told.strip_prefix(':') {
        None | Some("") => port,
        Some(told) => told.parse().map_err(|_| wrong(format!("{told:?} is not a port.")))?,
    };
    if host.is_empty() && slug == "bad-host" {
        let why = "the Host header does not name a host; this listener sends a request to the AWS endpoint that Host names.";
        return Err(wrong(why.to_owned()));
    }
    Target::new(scheme, host, port).map_err(wrong)
}

/// A request of HTTP/1.1, or /2, that names no host.
pub(super) fn no_host() -> Refusal {
    bad("bad-host", "the request names no host.", "Send one Host header.")
}

fn bad(slug: &'static str, why: &str, hint: &str) -> Refusal {
    Refusal::client(400, slug, why, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(target: &str, host: Option<&str>, via: &Via, kind: &Kind) -> Result<String, u16> {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(HOST, host.parse().unwrap());
        }
        destination(target.to_owned(), &headers, via, kind)
            .map(|(target, path)| format!("{target} {path}"))
            .map_err(|refusal| refusal.status)
    }

    #[test]
    fn destinations() {
        let aws = "sqs.us-east-1.amazonaws.com";
        let reverse = Kind::Reverse(None);
        let fixed = Kind::Reverse(Some(Target::from_url("https://b.test:8443").unwrap()));
        let inside = Via::Inside(Target::from_url("https://a.test").unwrap());
        for (target, host, via, kind, expected) in [
            ("http://a.test:81?x", None, &Via::Proxy, &Kind::Forward, Ok("http://a.test:81 /?x")),
            ("HTTPS://A.test/p?x", None, &Via::Proxy, &Kind::Forward, Ok("https://a.test /p?x")),
            ("/p", Some("a.test"), &Via::Proxy, &Kind::Forward, Err(400)),
            ("ftp://a.test/", None, &Via::Proxy, &Kind::Forward, Err(400)),
            ("http://u@a.test/", None, &Via::Proxy, &Kind::Forward, Err(400)),
            ("http://a.test:99999/", None, &Via::Proxy, &Kind::Forward, Err(400)),
            ("/p?u=http://x/", Some(aws), &Via::Endpoint, &reverse, Ok("https://sqs.us-east-1.amazonaws.com /p?u=http://x/")),
            ("/p", Some("sqs.us-east-1.amazonaws.com:80"), &Via::Endpoint, &reverse, Ok("https://sqs.us-east-1.amazonaws.com /p")),
            ("/p", None, &Via::Endpoint, &reverse, Err(400)),
            ("http://a.test/p", None, &Via::Endpoint, &reverse, Ok("https://a.test /p")),
            ("http://a.test/p", Some("b.test"), &Via::Endpoint, &reverse, Err(421)),
            ("/p", Some("127.0.0.1:1"), &Via::Endpoint, &fixed, Ok("https://b.test:8443 /p")),
            ("/p", Some("a.test"), &inside, &Kind::Forward, Ok("https://a.test /p")),
            ("https://b.test/p", Some("b.test"), &inside, &Kind::Forward, Err(421)),
        ] {
            assert_eq!(found(target, host, via, kind), expected.map(str::to_owned), "{target} {host:?}");
        }
    }
}
