//! location: what an answer says of where things are, seen from a reverse listener's client.
//!
//! An upstream names itself in absolute URLs. A client of a reverse listener that followed one would go past sigward, unsigned. Such a
//! URL becomes a relative reference (RFC 9110, section 10.2.2), which the client resolves by the URL that it has asked for: whatever
//! stands before the listener, a load balancer with TLS or another name, it comes back the way it came. `Location` and
//! `Content-Location` (RFC 9110, sections 10.2.2 and 8.7) are all that HTTP has of this kind; `Refresh` is no header of HTTP's.

use http::HeaderValue;
use http::header::{CONTENT_LOCATION, HeaderMap, LOCATION};

use crate::admit::{Scheme, Target, split_authority};
use crate::route::over_tls;

/// Makes URLs of the upstream's own authority relative. `headers`: of an answer to a reverse listener's client.
pub(crate) fn to_listener(headers: &mut HeaderMap, upstream: &Target) {
    for name in [LOCATION, CONTENT_LOCATION] {
        let http::header::Entry::Occupied(mut values) = headers.entry(name) else { continue };
        for value in values.iter_mut() {
            if let Some(relative) = relative(value, upstream).and_then(|relative| HeaderValue::from_str(&relative).ok()) {
                *value = relative;
            }
        }
    }
}

/// `None`: it stays as it is.
fn relative(value: &HeaderValue, upstream: &Target) -> Option<String> {
    // Readers of URLs drop blanks, and a relative reference must not become another one by that.
    let text = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))?;
    let (scheme, rest) = match text.split_once("//")? {
        ("", rest) => (upstream.scheme, rest),
        (scheme, rest) if scheme.eq_ignore_ascii_case("http:") => (Scheme::Http, rest),
        (scheme, rest) if scheme.eq_ignore_ascii_case("https:") => (Scheme::Https, rest),
        _ => return None,
    };
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (host, port) = split_authority(authority)?;
    let named = Target::new(scheme, host, port.unwrap_or(scheme.default_port())).ok()?;
    // Behind TLS of somebody else's, a server takes itself for a plain one.
    if named != *upstream && over_tls(&named).as_ref() != Some(upstream) {
        return None;
    }
    Some(match rest.as_bytes() {
        // It would name a host (RFC 3986, section 4.2; to browsers, a backslash is a slash).
        [b'/', b'/' | b'\\', ..] => format!("/.{rest}"),
        [b'/', ..] => rest.to_owned(),
        _ => format!("/{rest}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(location: &str, upstream: &str) -> String {
        let mut headers: HeaderMap = [(LOCATION, HeaderValue::from_str(location).unwrap())].into_iter().collect();
        to_listener(&mut headers, &Target::from_url(upstream).unwrap());
        headers[LOCATION].to_str().unwrap().to_owned()
    }

    #[test]
    fn the_upstreams_own_urls_become_relative() {
        for (location, expected) in [
            ("https://a.test/x?y=z#w", "/x?y=z#w"),
            ("HTTPS://A.Test.:443/x", "/x"),
            ("http://a.test/x", "/x"),
            ("http://a.test:80/x", "/x"),
            ("//a.test/x", "/x"),
            ("https://a.test", "/"),
            ("https://a.test?y", "/?y"),
            ("https://a.test#w", "/#w"),
            ("https://a.test//b.test/x", "/.//b.test/x"),
            (r"https://a.test/\\b.test", r"/./\\b.test"),
        ] {
            assert_eq!(seen(location, "https://a.test"), expected, "{location}");
        }
        assert_eq!(seen("https://a.test:8443/x", "https://a.test:8443"), "/x");
        assert_eq!(seen("http://[::1]:80/x", "http://[0::1]"), "/x");
    }

    #[test]
    fn all_others_stay() {
        for location in [
            "/x",
            "x//a.test",
            "",
            "https://b.test/x",
            "https://a.test.evil.test/x",
            "https://a.test:8443/x",
            "https://u@a.test/x",
            "https://a.test@b.test/x",
            r"https://a.test\\@b.test/x",
            "https:///a.test/x",
            "https:/a.test/x",
            "ftp://a.test/x",
            "http://a.test:8080/x",
            "https://a.test/a b",
            "https://a.test/\tx",
            "javascript://a.test/x",
        ] {
            assert_eq!(seen(location, "https://a.test"), location);
        }
        // Plain text that sends its clients to TLS would be asked in plain text again.
        assert_eq!(seen("https://a.test/x", "http://a.test"), "https://a.test/x");
    }
}
