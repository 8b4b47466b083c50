//! route: which rule of the user's applies to this request: sign, pass or deny, as whom, and to where?
//!
//! The first matching rule wins. Without one, AWS's hosts are signed with the default identity; all else passes unsigned
//! on its way through a forward proxy and is refused by a reverse listener, which has no business with strangers.

use std::net::IpAddr;
use std::sync::Arc;

use sigward_sigv4::Style;

use crate::admit::{Scheme, Target};
use crate::recognise::style_of;
use crate::settings::{Action, PathStyle, PayloadMode, RouteSettings, SignaturePlace, SignatureVariant, TokenPlace};

/// Where the bytes go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// Scheme, host and port: what Host says and what TLS verifies.
    pub target: Target,
    /// `host:port` that the socket goes to instead.
    pub connect: Option<Arc<str>>,
    /// A route names this destination, so loopback and link-local addresses are allowed.
    pub named: bool,
}

/// One rule, checked.
#[derive(Debug)]
pub struct Route {
    /// Its name, or its number.
    pub name: Arc<str>,
    /// What to do.
    pub action: Action,
    /// Signing name.
    pub service: Option<Arc<str>>,
    /// Region in the scope.
    pub region: Option<Arc<str>>,
    /// Whose credentials.
    pub identity: Option<Arc<str>>,
    /// Path rule.
    pub style: Option<Style>,
    /// How requests are signed under it.
    pub form: SigningForm,
    host: Pattern,
    path: Option<Pattern>,
    upstream: Option<Target>,
    connect: Option<Arc<str>>,
}

/// How requests are signed: what a route sets beside the scope.
#[derive(Clone, Copy, Debug, Default)]
pub struct SigningForm {
    /// What the signature says of the body.
    pub payload: PayloadMode,
    /// Where it stands.
    pub signature: SignaturePlace,
    /// Its algorithm.
    pub variant: SignatureVariant,
    /// Where a session token goes.
    pub token: TokenPlace,
}

/// The rules in their order.
#[derive(Debug, Default)]
pub struct Router {
    routes: Vec<Route>,
}

impl Router {
    /// Checks the rules. The error names the route, the field and the mend.
    pub fn new(routes: &[RouteSettings]) -> Result<Self, String> {
        let routes = routes.iter().enumerate().map(|(at, route)| Route::new(at, route)).collect::<Result<_, _>>()?;
        Ok(Self { routes })
    }

    /// The first rule for this host and path; `path` is origin-form, its query is left out of the match.
    pub fn find(&self, host: &str, path: &str) -> Option<&Route> {
        let path = path.split('?').next().unwrap_or_default();
        self.routes.iter().find(|route| route.host.matches(host) && route.path.as_ref().is_none_or(|pattern| pattern.matches(path)))
    }

    /// True if any rule is for this host, whatever the path.
    pub fn knows(&self, host: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.host.matches(host))
    }

    /// True if a rule names this host in full, so that its addresses may be local ones.
    pub fn names(&self, host: &str) -> bool {
        self.routes.iter().any(|route| route.action != Action::Deny && route.host.is(host))
    }
}

impl Route {
    fn new(at: usize, settings: &RouteSettings) -> Result<Self, String> {
        let name = if settings.name.is_empty() { format!("#{}", at + 1) } else { settings.name.clone() };
        let wrong = |field: &str, why: &str| Err(format!("route {name}: {field}: {why}"));
        if settings.host.is_empty() {
            return wrong("host", "a host name or a pattern such as *.amazonaws.com is expected");
        }
        let upstream = match settings.upstream.as_deref().map(Target::from_url) {
            Some(Err(why)) => return wrong("upstream", &why),
            Some(Ok(target)) => Some(target),
            None => None,
        };
        if let Some(connect) = &settings.connect
            && connect.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
        {
            return wrong("connect", "host:port is expected, e.g. 127.0.0.1:8443");
        }
        for (field, value) in [("service", &settings.service), ("region", &settings.region)] {
            if value.as_ref().is_some_and(|text| text.is_empty() || text.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'/')) {
                return wrong(field, "a name without blanks and slashes is expected");
            }
        }
        let shared = |text: &Option<String>| text.as_deref().map(Arc::from);
        Ok(Self {
            action: settings.action,
            service: shared(&settings.service),
            region: shared(&settings.region),
            identity: shared(&settings.identity),
            style: settings.style.map(|style| match style {
                PathStyle::S3 => Style::S3,
                PathStyle::Generic => Style::Generic,
            }),
            form: SigningForm {
                payload: settings.payload,
                signature: settings.signature,
                variant: settings.variant,
                token: settings.token,
            },
            host: Pattern::new(&settings.host.to_ascii_lowercase()),
            path: settings.path.as_deref().map(Pattern::new),
            upstream,
            connect: shared(&settings.connect),
            name: name.into(),
        })
    }

    /// Where a request to `target` goes under this rule.
    pub fn upstream(&self, target: &Target) -> Upstream {
        let named = self.upstream.is_some() || self.connect.is_some() || self.host.is(&target.host);
        Upstream { target: self.upstream.as_ref().unwrap_or(target).clone(), connect: self.connect.clone(), named }
    }

    /// True if the rule rewrites or redirects the destination.
    pub fn moves(&self) -> bool {
        self.upstream.is_some() || self.connect.is_some()
    }

    /// True if the rule rewrites the destination, scheme and all.
    pub fn rewrites(&self) -> bool {
        self.upstream.is_some()
    }

    /// The path rule for a signing name under this rule.
    pub fn style_for(&self, signing_name: &str) -> Style {
        self.style.unwrap_or_else(|| style_of(signing_name))
    }
}

/// Literal text with `*` for any run of characters.
#[derive(Debug)]
struct Pattern(Vec<String>);

impl Pattern {
    fn new(text: &str) -> Self {
        Self(text.split('*').map(str::to_owned).collect())
    }

    fn is(&self, text: &str) -> bool {
        matches!(self.0.as_slice(), [only] if only == text)
    }

    fn matches(&self, text: &str) -> bool {
        let (first, rest) = match self.0.split_first() {
            Some((first, [])) => return first == text,
            Some((first, rest)) => (first, rest),
            None => return false,
        };
        let Some(mut text) = text.strip_prefix(first.as_str()) else { return false };
        let Some((last, middle)) = rest.split_last() else { return false };
        for part in middle {
            match text.find(part.as_str()) {
                Some(at) => text = text.get(at + part.len()..).unwrap_or_default(),
                None => return false,
            }
        }
        text.ends_with(last.as_str())
    }
}

/// True for addresses that a client must not reach through the proxy unless a route names them: this host itself, its
/// link, and the places where clouds keep credentials.
pub fn is_forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            first == 127 || first == 0 || (first == 169 && second == 254)
        }
        IpAddr::V6(v6) => {
            if let Some(v4) = v6.to_ipv4_mapped() {
                return is_forbidden(IpAddr::V4(v4));
            }
            match v6.segments() {
                // NAT64 (RFC 6052): the last 32 bits are an IPv4 address.
                [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                    let [a, b] = high.to_be_bytes();
                    let [c, d] = low.to_be_bytes();
                    is_forbidden(IpAddr::from([a, b, c, d]))
                }
                // IPv4-compatible (::/96), which holds :: and ::1; EC2's metadata and the EKS agent: fd00:ec2::254, fd00:ec2::23.
                [0, 0, 0, 0, 0, 0, _, _] | [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, _] => true,
                [first, ..] => first & 0xffc0 == 0xfe80,
            }
        }
    }
}

/// Scheme and port that a signed request to AWS goes out with: always TLS. `None`: a plain-text port that is not 80.
pub(crate) fn over_tls(target: &Target) -> Option<Target> {
    match (target.scheme, target.port) {
        (Scheme::Https, _) => Some(target.clone()),
        (Scheme::Http, 80) => Some(Target { scheme: Scheme::Https, host: target.host.clone(), port: 443 }),
        (Scheme::Http, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("*.amazonaws.com", "s3.amazonaws.com", true),
            ("*.amazonaws.com", "amazonaws.com", false),
            ("*.amazonaws.com", "s3.amazonaws.com.evil.test", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
            ("/prefix*", "/prefix/x", true),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn local_addresses_in_all_their_dresses() {
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "::127.0.0.1",
        ] {
            assert!(is_forbidden(text.parse().unwrap()), "{text}");
        }
        for text in ["10.0.0.1", "52.94.0.1", "2600:1f18::1", "fd00:ec3::254", "192.168.1.1"] {
            assert!(!is_forbidden(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_wrong_route_names_the_field() {
        let route = |edit: fn(&mut RouteSettings)| {
            let mut settings = RouteSettings { host: "*".into(), ..RouteSettings::default() };
            edit(&mut settings);
            Router::new(&[settings]).unwrap_err()
        };
        assert!(route(|it| it.host.clear()).contains("route #1: host"));
        assert!(route(|it| it.upstream = Some("ftp://x".into())).contains("upstream"));
        assert!(route(|it| it.connect = Some("nowhere".into())).contains("connect"));
        assert!(route(|it| it.service = Some("a b".into())).contains("service"));
    }
}
