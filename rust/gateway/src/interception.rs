//! Which connections are looked into, which pass untouched, and which are refused. Both fronts ask here, when a client names its
//! destination and again when its first bytes are there.
//!
//! HTTP alone is looked into: a protocol that sigward does not speak would fail inside, or wait for ever. What is passed on cannot be judged,
//! so nothing is passed on to AWS where the settings might forbid it.

use std::fmt;
use std::sync::Arc;

use crate::Refusal;
use crate::admit::shown;
use crate::exchange::Config;
use crate::recognise::{Recognised, domains, recognise};
use crate::route::Place;
use crate::settings::{ClientHttp2, CustomerEndpoints};

/// What becomes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handling {
    /// It is looked into.
    Intercept,
    /// Bytes are passed on, both ways.
    Tunnel,
    /// It ends.
    Refuse(Why),
}

/// Why a connection may not pass untouched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// `clients.required`: nobody signs what is in it.
    IssuedKeys,
    /// `customer_endpoints` is `refuse`.
    CustomerEndpoint,
    /// A route of this name might deny what is in it.
    Denied(Arc<str>),
}

impl fmt::Display for Why {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IssuedKeys => to.write_str("only requests that are signed with an issued key are served here (clients.required)"),
            Self::CustomerEndpoint => to.write_str("it belongs to a customer of AWS (customer_endpoints is \"refuse\")"),
            Self::Denied(route) => write!(to, "route {route} may deny what goes through it"),
        }
    }
}

impl Why {
    /// For the client.
    pub fn refusal(&self, host: &str, port: u16) -> Refusal {
        let slug = if *self == Self::IssuedKeys { "missing-authentication-token" } else { "tunnel-refused" };
        let why = format!("\"{}:{port}\" would be reached through a tunnel that nobody can look into, and {self}.", shown(host));
        Refusal::client(403, slug, why, "If that is meant, pass it in a [[route]] with `host`, `port` and action = \"pass\".")
    }
}

/// What a client begins with, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening<'a> {
    /// Nothing has come.
    Unknown,
    /// A request in plain text.
    Http,
    /// A handshake.
    Tls {
        /// The server's name, if it says one.
        name: Option<&'a str>,
        /// What ALPN offers; empty: it is not there.
        protocols: &'a [&'a [u8]],
    },
    /// Neither.
    Other,
}

/// What a client's first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstBytes {
    /// Too few to tell.
    Undecided,
    /// A request in plain text.
    Http,
    /// A handshake.
    Tls,
    /// Neither.
    Other,
}

/// A handshake's first bytes: a record of its type, and any version since SSL 3.
const HANDSHAKE: &[u8] = &[0x16, 0x03];
/// No method is longer.
const LONGEST_METHOD: usize = 32;

/// Tells TLS, HTTP and other protocols apart. A request begins with a method in capitals and a blank; `AMQP`, `SSH-2.0-…` and the like
/// do not go on like this.
pub fn first_bytes(bytes: &[u8]) -> FirstBytes {
    if bytes.iter().zip(HANDSHAKE).all(|(byte, expected)| byte == expected) {
        return if bytes.len() >= HANDSHAKE.len() { FirstBytes::Tls } else { FirstBytes::Undecided };
    }
    // Empty lines before a request are no part of it (RFC 9112, section 2.2).
    let line = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).and_then(|start| bytes.get(start..)).unwrap_or_default();
    let method = line.iter().take_while(|byte| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_')).count();
    match line.get(method) {
        None if method <= LONGEST_METHOD => FirstBytes::Undecided,
        Some(b' ') if (1..=LONGEST_METHOD).contains(&method) => FirstBytes::Http,
        _ => FirstBytes::Other,
    }
}

/// Ports above 1023 that never carry HTTP: mail submission (SES: 2465, 2587), databases, caches, brokers. Of IANA's registry and AWS's
/// documents of RDS, Redshift, `DocumentDB`, `ElastiCache`, MSK, Amazon MQ and `IoT` Core.
const OTHER_PORTS: &[u16] = &[
    1433, 1521, 1883, 2181, 2182, 2465, 2587, 3306, 5432, 5439, 5671, 6379, 8883, 9092, 9094, 9096, 9098, 11211, 27017, 61614, 61617, 61619,
];

/// False for ports on which something else is spoken; there, a server may have to speak first. Below 1024, HTTP is on 80 and 443 alone.
pub fn speaks_http(port: u16) -> bool {
    if port < 1024 { matches!(port, 80 | 443) } else { !OTHER_PORTS.contains(&port) }
}

/// Hosts that want a client's certificate, which ends at whoever looks in: the credentials provider of `IoT` and Greengrass, and `IoT`'s data
/// on 8443.
fn wants_certificate(host: &str, port: u16) -> bool {
    // Behind it is the region; else it is a bucket's name.
    let before = |(before, behind): (&'_ str, &str)| (!behind.starts_with("s3")).then(|| before.to_owned());
    let Some(rest) = host.rsplit_once(".iot.").and_then(before) else { return false };
    let service = rest.rsplit('.').next().unwrap_or_default();
    matches!(service, "credentials" | "greengrass" | "greengrass-ats") || rest.ends_with("-ats") && port == 8443
}

/// True if one of these may be agreed on, or none is offered.
fn offers_http(protocols: &[&[u8]]) -> bool {
    protocols.is_empty() || protocols.iter().any(|protocol| matches!(*protocol, b"h2" | b"http/1.1" | b"http/1.0"))
}

/// Labels of names under AWS's domains that customers' own servers, databases and brokers have. What goes there is no call to AWS. Names of
/// AWS's own APIs that have such a label are recognised.
const SERVERS: &[&str] = &["cache", "compute", "compute-1", "docdb", "elb", "kafka", "memorydb", "mq", "rds", "redshift"];

/// True for a host under AWS's domains that may be AWS's own, known or not.
fn is_aws(host: &str) -> bool {
    let front = domains().find_map(|domain| host.strip_suffix(domain)?.strip_suffix('.'));
    front.is_some_and(|front| !front.split('.').any(|label| SERVERS.contains(&label)))
}

/// True if two names are one host: case and a trailing dot mean nothing.
fn same_host(one: &str, other: &str) -> bool {
    one.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.'))
}

impl Config {
    /// What becomes of a client's connection to this destination. `host`: lower-case.
    pub fn handling(&self, host: &str, port: u16, opening: Opening<'_>) -> Handling {
        let name = match opening {
            Opening::Tls { name, .. } => name.filter(|name| !same_host(name, host)),
            _ => None,
        };
        let is_http = match opening {
            Opening::Unknown | Opening::Http => true,
            Opening::Tls { protocols, .. } => name.is_none() && offers_http(protocols),
            Opening::Other => false,
        };
        let may_be_http = is_http && (self.router.names(host) || (speaks_http(port) && !wants_certificate(host, port)));
        if may_be_http && self.intercepts(host, port) {
            return Handling::Intercept;
        }
        self.forbids_tunnel(host, port).or_else(|| self.forbids_name(host, name?, port)).map_or(Handling::Tunnel, Handling::Refuse)
    }

    /// Why nothing may pass untouched where TLS asks for another name than CONNECT. Behind one address of AWS's are many names, and a
    /// request inside may name any of them.
    fn forbids_name(&self, host: &str, name: &str, port: u16) -> Option<Why> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let may_be_aws = |host: &str| is_aws(host) || recognise(&self.knowledge, host, None).is_some();
        if !may_be_aws(host) && !may_be_aws(&name) {
            return self.forbids_tunnel(&name, port);
        }
        self.forbids_tunnel(&name, port).or_else(|| self.router.denies().map(Why::Denied))
    }

    pub(crate) fn place<'a>(&'a self, host: &'a str, port: u16, found: Option<Recognised<'a>>) -> Place<'a> {
        let service = found.map(|found| found.signing_name);
        Place { host, port, is_aws: found.is_some() || is_aws(host), service, knowledge: &self.knowledge }
    }

    /// Whether HTTP/2 is offered to a client that wants this host. Not to Git: with libcurl 7.88 (Debian 12) it hangs in HTTP/2 uploads that
    /// are larger than the window that a stream begins with.
    pub fn client_http2(&self, host: &str) -> ClientHttp2 {
        if host.starts_with("git-codecommit") { ClientHttp2::Never } else { self.settings.client_http2 }
    }

    /// Why nothing may pass untouched to this destination. `None`: it may.
    fn forbids_tunnel(&self, host: &str, port: u16) -> Option<Why> {
        let found = recognise(&self.knowledge, host, None);
        let place = self.place(host, port, found);
        if self.clients.required() && !self.router.passes_port(host, port) {
            return Some(Why::IssuedKeys);
        }
        if self.router.intercepts(&place) == Some(false) {
            return None;
        }
        if self.settings.customer_endpoints == CustomerEndpoints::Refuse && found.is_some_and(|found| found.owner_reads) {
            return Some(Why::CustomerEndpoint);
        }
        self.router.may_deny(&place).map(Why::Denied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knowledge::Knowledge;
    use crate::settings::EngineSettings;
    use crate::{Clients, Live};

    fn config(settings: &str) -> Config {
        let settings = EngineSettings::from_json(settings).unwrap();
        Config::new(settings, Knowledge::shipped().unwrap(), Clients::default(), Arc::<Live>::default()).unwrap()
    }

    #[test]
    fn first_bytes_of_protocols() {
        for (bytes, expected) in [
            (&b""[..], FirstBytes::Undecided),
            (b"\x16", FirstBytes::Undecided),
            (b"\x16\x03\x01", FirstBytes::Tls),
            (b"\x16\xfe\xfd", FirstBytes::Other),
            (b"GET / HTTP/1.1\r\n", FirstBytes::Http),
            (b"\r\nM-SEARCH *", FirstBytes::Http),
            (b"\r\n", FirstBytes::Undecided),
            (b"PRI * HTTP/2.0\r\n", FirstBytes::Http),
            (b"PROPPAT", FirstBytes::Undecided),
            (b"AMQP\x00\x00\x09\x01", FirstBytes::Other),
            (b"SSH-2.0-OpenSSH_9.2p1 Debian", FirstBytes::Other),
            (b"\x10\x0e\x00\x04MQTT", FirstBytes::Other),
            (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", FirstBytes::Other),
            (b"*1\r\n$4\r\nPING\r\n", FirstBytes::Other),
            (b"CONNECT\naccept-version:1.2", FirstBytes::Other),
            (b" GET / HTTP/1.1", FirstBytes::Other),
            (&[b'A'; 33], FirstBytes::Other),
        ] {
            assert_eq!(first_bytes(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn http_alone_is_looked_into() {
        let config = config(r#"{"routes": [{"host": "a.test"}, {"host": "b.test", "port": 8443, "action": "pass"}]}"#);
        let tls = |protocols| Opening::Tls { name: None, protocols };
        let sqs = "sqs.us-east-1.amazonaws.com";
        for (host, port, opening, expected) in [
            (sqs, 443, Opening::Unknown, Handling::Intercept),
            (sqs, 80, Opening::Http, Handling::Intercept),
            (sqs, 443, tls(&[]), Handling::Intercept),
            (sqs, 443, tls(&[b"x".as_slice(), b"http/1.0"]), Handling::Intercept),
            (sqs, 443, tls(&[b"x-amzn-mqtt-ca".as_slice()]), Handling::Tunnel),
            (sqs, 443, Opening::Other, Handling::Tunnel),
            (sqs, 443, Opening::Tls { name: Some("Sqs.us-east-1.amazonaws.com."), protocols: &[] }, Handling::Intercept),
            (sqs, 443, Opening::Tls { name: Some("sns.us-east-1.amazonaws.com"), protocols: &[] }, Handling::Tunnel),
            ("email.us-east-1.amazonaws.com", 465, Opening::Unknown, Handling::Tunnel),
            ("email-smtp.us-east-1.amazonaws.com", 2587, Opening::Unknown, Handling::Tunnel),
            ("c1.credentials.iot.us-east-1.amazonaws.com", 443, Opening::Unknown, Handling::Tunnel),
            ("a1-ats.iot.us-east-1.amazonaws.com", 8443, Opening::Unknown, Handling::Tunnel),
            ("a1-ats.iot.us-east-1.amazonaws.com", 443, Opening::Unknown, Handling::Intercept),
            ("other.test", 443, Opening::Unknown, Handling::Tunnel),
            // Whoever names the host knows what is spoken there.
            ("a.test", 444, Opening::Unknown, Handling::Intercept),
            ("b.test", 8443, Opening::Unknown, Handling::Tunnel),
        ] {
            assert_eq!(config.handling(host, port, opening), expected, "{host}:{port} {opening:?}");
        }
    }

    #[test]
    fn what_might_be_forbidden_does_not_pass_untouched() {
        let denied = |route: &str| Handling::Refuse(Why::Denied(route.into()));
        let (smtp, s3) = ("email-smtp.us-east-1.amazonaws.com", "s3.us-east-1.amazonaws.com");
        let api = "a1b2c3d4e5.execute-api.us-east-1.amazonaws.com";
        for (settings, host, expected) in [
            (r"{}", smtp, Handling::Tunnel),
            (r#"{"routes": [{"host": "*", "action": "deny"}]}"#, smtp, denied("#1")),
            (r#"{"routes": [{"host": "*", "action": "deny"}]}"#, "other.test", denied("#1")),
            (r#"{"routes": [{"host": "*", "port": 443, "action": "deny"}]}"#, smtp, Handling::Tunnel),
            (r#"{"routes": [{"operation": "*:*", "action": "deny"}]}"#, smtp, denied("#1")),
            (r#"{"routes": [{"operation": "*:*", "action": "deny"}]}"#, "other.test", Handling::Tunnel),
            (r#"{"routes": [{"operation": "*:*", "action": "deny"}]}"#, "new-thing.nowhere.amazonaws.com", denied("#1")),
            (r#"{"routes": [{"operation": "*:*", "action": "deny"}]}"#, "web-1.us-east-1.elb.amazonaws.com", Handling::Tunnel),
            (r#"{"routes": [{"operation": "*:*", "action": "deny"}]}"#, "db.abc.us-east-1.rds.amazonaws.com", Handling::Tunnel),
            (r#"{"routes": [{"operation": "*:*", "action": "deny"}]}"#, "rds.us-east-1.amazonaws.com", denied("#1")),
            (r#"{"routes": [{"operation": "sqs:*", "action": "deny"}]}"#, s3, Handling::Tunnel),
            (r#"{"routes": [{"operation": "s3:Delete*", "action": "deny"}]}"#, s3, denied("#1")),
            (r#"{"routes": [{"bucket": "team", "action": "deny"}]}"#, s3, denied("#1")),
            (r#"{"routes": [{"bucket": "team", "action": "deny"}]}"#, api, Handling::Tunnel),
            (r#"{"routes": [{"host": "email*", "port": 465, "action": "pass"}, {"host": "*", "action": "deny"}]}"#, smtp, Handling::Tunnel),
            (r#"{"routes": [{"host": "email*", "port": 25, "action": "pass"}, {"host": "*", "action": "deny"}]}"#, smtp, denied("#2")),
            (r#"{"customer_endpoints": "refuse"}"#, api, Handling::Refuse(Why::CustomerEndpoint)),
            (r#"{"customer_endpoints": "refuse"}"#, smtp, Handling::Tunnel),
            // An earlier rule without a host comes first for AWS's hosts.
            (r#"{"routes": [{"operation": "s3:Delete*", "action": "deny"}, {"host": "*", "action": "pass"}]}"#, s3, denied("#1")),
            (
                r#"{"routes": [{"operation": "s3:Delete*", "action": "deny"}, {"host": "*", "action": "pass"}]}"#,
                "other.test",
                Handling::Tunnel,
            ),
            (r#"{"customer_endpoints": "refuse", "routes": [{"host": "*", "action": "pass"}]}"#, api, Handling::Tunnel),
        ] {
            assert_eq!(config(settings).handling(host, 465, Opening::Other), expected, "{settings} {host}");
        }
        for first in [
            r#"{"operation": "s3:DeleteObject", "action": "deny"}"#,
            r#"{"bucket": "secret", "action": "deny"}"#,
            r#"{"operation": "s3:GetObject"}"#,
        ] {
            let config = config(&format!(r#"{{"routes": [{first}, {{"host": "*.amazonaws.com", "action": "pass"}}]}}"#));
            assert_eq!(config.handling(s3, 443, Opening::Unknown), Handling::Intercept, "{first}");
            assert_eq!(config.handling("sqs.us-east-1.amazonaws.com", 443, Opening::Unknown), Handling::Tunnel, "{first}");
        }
    }

    #[test]
    fn a_name_in_tls_is_not_a_way_past_a_rule() {
        let tls = |name| Opening::Tls { name: Some(name), protocols: &[] };
        let secret = r#"{"routes": [{"host": "secret.s3.us-east-1.amazonaws.com", "action": "deny"}]}"#;
        let denied = Handling::Refuse(Why::Denied("#1".into()));
        for (settings, host, name, expected) in [
            (secret, "mine.s3.us-east-1.amazonaws.com", "secret.s3.us-east-1.amazonaws.com", denied.clone()),
            (secret, "mine.s3.us-east-1.amazonaws.com", "a.s3.us-east-1.amazonaws.com", denied.clone()),
            (r#"{"routes": [{"operation": "sqs:*", "action": "deny"}]}"#, "52.94.1.2", "sqs.us-east-1.amazonaws.com", denied.clone()),
            (secret, "other.test", "another.test", Handling::Tunnel),
            (
                r#"{"customer_endpoints": "refuse"}"#,
                "52.94.1.2",
                "a1b2c3d4e5.execute-api.us-east-1.amazonaws.com",
                Handling::Refuse(Why::CustomerEndpoint),
            ),
        ] {
            assert_eq!(config(settings).handling(host, 443, tls(name)), expected, "{settings} {host} {name}");
        }
    }

    #[test]
    fn a_bucket_may_be_called_as_iots_hosts_are() {
        let config = config("{}");
        assert_eq!(config.handling("x.greengrass.iot.s3.us-east-1.amazonaws.com", 443, Opening::Unknown), Handling::Intercept);
    }
}
