//! route: which rule of the user's applies to this request: sign, pass or deny, as whom, and to where?
//!
//! The first matching rule wins. Without one, AWS's hosts are signed with the default identity; all else passes unsigned
//! on its way through a forward proxy and is refused by a reverse listener, which has no business with strangers.

use std::collections::HashMap;
use std::sync::Arc;

use sigward_sigv4::Style;
use sigward_sigv4::wire::percent_decoded;
use smallvec::SmallVec;

use crate::admit::{Scheme, Target, normal_host};
use crate::edit::Edits;
use crate::knowledge::Operation;
use crate::recognise::{bucket_and_key, style_of};
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

/// What rules look at of a request.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Lower-case.
    pub host: &'a str,
    /// Origin-form, with query.
    pub path: &'a str,
    /// What the host says, if it is one of AWS's.
    pub signing_name: Option<&'a str>,
    /// The client whose issued key signed it.
    pub client: Option<&'a str>,
    /// The operation, given the signing name.
    pub look_up: &'a dyn Fn(&str) -> Option<Arc<Operation>>,
    /// The body is a form that may name the operation, and has not been read.
    pub body_may_tell: bool,
}

impl Asked<'_> {
    fn operation(&self, signing_name: &str, service: &Pattern, name: &Pattern) -> Result<bool, OnlyBodyTells> {
        // Whatever the operation is: the service alone decides.
        if service.matches(signing_name) && name.is_all() {
            return Ok(true);
        }
        match (self.look_up)(signing_name) {
            Some(found) => Ok((service.matches(signing_name) || service.matches(&found.service)) && name.matches(&found.name)),
            None if self.body_may_tell => Err(OnlyBodyTells),
            None => Ok(false),
        }
    }
}

/// Which rule applies cannot be said before the body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnlyBodyTells;

/// A listing is for the keys that it asks for: `?prefix=` takes the key's place.
fn bucket_matches(pattern: &Pattern, host: &str, path: &str) -> bool {
    let Some((bucket, key)) = bucket_and_key(host, path) else { return false };
    let prefix = || path.split_once('?')?.1.split('&').find_map(|pair| pair.strip_prefix("prefix="));
    let key = if key.is_empty() { prefix().unwrap_or_default() } else { key };
    let decoded = [bucket.as_bytes(), b"/", &percent_decoded(key.as_bytes())].concat();
    pattern.matches(&String::from_utf8_lossy(&decoded))
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
    /// What it changes of the headers.
    pub(crate) edits: Edits,
    host: Option<Pattern>,
    path: Option<Pattern>,
    operation: Option<(Pattern, Pattern)>,
    bucket: Option<Pattern>,
    client: Option<Arc<str>>,
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
    index: Index,
}

impl Router {
    /// Checks the rules. The error names the route, the field and the mend.
    pub fn new(routes: &[RouteSettings]) -> Result<Self, String> {
        let routes: Vec<Route> = routes.iter().enumerate().map(|(at, route)| Route::new(at, route)).collect::<Result<_, _>>()?;
        let index = Index::new(&routes);
        Ok(Self { routes, index })
    }

    /// The rules that may be for this host, or for this bucket, in their order.
    fn candidates<'a>(&'a self, host: &str, bucket: Option<&str>) -> impl Iterator<Item = &'a Route> {
        self.index.candidates(host, bucket).filter_map(|at| self.routes.get(at as usize))
    }

    /// The first rule for this request. `Err`: that depends on the operation, which only the body names.
    pub fn find(&self, asked: &Asked<'_>) -> Result<Option<&Route>, OnlyBodyTells> {
        let bucket = if self.index.buckets.is_empty() { None } else { bucket_and_key(asked.host, asked.path).map(|(bucket, _)| bucket) };
        for route in self.candidates(asked.host, bucket) {
            if route.matches(asked)? {
                return Ok(Some(route));
            }
        }
        Ok(None)
    }

    /// Whether TLS to this host is looked into, as far as rules for it say.
    pub fn intercepts(&self, host: &str) -> Option<bool> {
        for route in self.candidates(host, None).filter(|route| route.host.as_ref().is_some_and(|pattern| pattern.matches(host))) {
            if route.action != Action::Pass || route.moves() {
                return Some(true);
            }
            if !route.is_conditional() {
                return Some(false);
            }
        }
        None
    }

    /// True if a rule names this host in full, so that its addresses may be local ones.
    pub fn names(&self, host: &str) -> bool {
        self.candidates(host, None).any(|route| route.action != Action::Deny && route.host.as_ref().is_some_and(|pattern| pattern.is(host)))
    }
}

/// Finds the few rules that may match among the many that cannot.
///
/// A rule is filed under what it says literally: its host; or, of a host with `*`, what stands before the first and behind the last one;
/// or its bucket. A request looks in each of these places once, and tries what it finds there in the rules' order.
#[derive(Debug, Default)]
struct Index {
    hosts: HashMap<Box<str>, Vec<u32>>,
    /// By what stands before the first `*` and behind the last, with a NUL between.
    patterns: HashMap<Box<[u8]>, Vec<u32>>,
    /// What stands behind the last `*`, and how long that is which stands before the first.
    tails: Vec<(Box<str>, Vec<usize>)>,
    buckets: HashMap<Box<str>, Vec<u32>>,
    /// Those that say nothing literally.
    rest: Vec<u32>,
}

impl Index {
    fn new(routes: &[Route]) -> Self {
        let mut index = Self::default();
        for (route, at) in routes.iter().zip(0..) {
            let bucket = route.bucket.as_ref().and_then(|pattern| pattern.before().split_once('/')).map(|(bucket, _)| bucket);
            match (&route.host, bucket) {
                (Some(host), _) => {
                    if let Some(literal) = host.literal() {
                        index.hosts.entry(literal.into()).or_default().push(at);
                        continue;
                    }
                    let (before, behind) = (host.before(), host.behind());
                    let tail = index.tails.iter().position(|(tail, _)| **tail == *behind).unwrap_or_else(|| {
                        index.tails.push((behind.into(), Vec::new()));
                        index.tails.len() - 1
                    });
                    if let Some((_, lengths)) = index.tails.get_mut(tail).filter(|(_, lengths)| !lengths.contains(&before.len())) {
                        lengths.push(before.len());
                    }
                    index.patterns.entry(Self::key(before.as_bytes(), behind.as_bytes()).as_slice().into()).or_default().push(at);
                }
                (None, Some(bucket)) => index.buckets.entry(bucket.into()).or_default().push(at),
                (None, None) => index.rest.push(at),
            }
        }
        index
    }

    fn key(before: &[u8], behind: &[u8]) -> SmallVec<[u8; 64]> {
        let mut key = SmallVec::from_slice(before);
        key.push(0);
        key.extend_from_slice(behind);
        key
    }

    fn candidates<'a>(&'a self, host: &str, bucket: Option<&str>) -> impl Iterator<Item = u32> + use<'a> {
        let mut files: SmallVec<[&'a [u32]; 6]> = SmallVec::new();
        files.extend(self.hosts.get(host).map(Vec::as_slice));
        files.extend(bucket.and_then(|bucket| self.buckets.get(bucket)).map(Vec::as_slice));
        // To compare the few tails that there are costs less than to hash for each.
        for (tail, lengths) in self.tails.iter().filter(|(tail, _)| host.ends_with(&**tail)) {
            for length in lengths {
                let key = host.as_bytes().get(..*length).map(|before| Self::key(before, tail.as_bytes()));
                files.extend(key.and_then(|key| self.patterns.get(key.as_slice())).map(Vec::as_slice));
            }
        }
        if !self.rest.is_empty() {
            files.push(&self.rest);
        }
        std::iter::from_fn(move || {
            let next = files.iter_mut().filter(|file| !file.is_empty()).min_by_key(|file| file.first().copied())?;
            let (first, others) = next.split_first()?;
            *next = others;
            Some(*first)
        })
    }
}

impl Route {
    fn new(at: usize, settings: &RouteSettings) -> Result<Self, String> {
        let name = if settings.name.is_empty() { format!("#{}", at + 1) } else { settings.name.clone() };
        let wrong = |field: &str, why: &str| Err(format!("route {name}: {field}: {why}"));
        if settings.host.as_deref() == Some("") {
            return wrong("host", "a host name or a pattern such as *.amazonaws.com is expected");
        }
        let operation = match settings.operation.as_deref().map(|text| text.split_once(':')) {
            Some(Some((service, name))) if !service.is_empty() && !name.is_empty() => Some((Pattern::new(service), Pattern::new(name))),
            None => None,
            Some(_) => return wrong("operation", "service:Operation is expected, e.g. dynamodb:Get* or s3:*"),
        };
        if settings.host.is_none() && operation.is_none() && settings.bucket.is_none() && settings.client.is_none() {
            return wrong("host", "it is missing; what the route is for is said by host, operation, bucket or client");
        }
        if settings.bucket.as_deref().is_some_and(|bucket| bucket.is_empty() || bucket.starts_with('/')) {
            return wrong("bucket", "a bucket, or bucket/key, is expected; * matches any run of characters");
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
        let edits = match Edits::new(settings) {
            Ok(edits) => edits,
            Err((field, why)) => return wrong(field, &why),
        };
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
            edits,
            // As a request's host is written when it is compared.
            host: settings.host.as_deref().map(|host| Pattern::new(&normal_host(host).unwrap_or_else(|| host.to_ascii_lowercase().into()))),
            path: settings.path.as_deref().map(Pattern::new),
            operation,
            // Without a key, the whole bucket is meant.
            bucket: settings
                .bucket
                .as_deref()
                .map(|text| if text.contains('/') { Pattern::new(text) } else { Pattern::new(&format!("{text}/*")) }),
            client: shared(&settings.client),
            upstream,
            connect: shared(&settings.connect),
            name: name.into(),
        })
    }

    fn matches(&self, asked: &Asked<'_>) -> Result<bool, OnlyBodyTells> {
        let host = match &self.host {
            Some(pattern) => pattern.matches(asked.host),
            None => asked.signing_name.is_some(),
        };
        let path = || asked.path.split('?').next().unwrap_or_default();
        if !host
            || self.path.as_ref().is_some_and(|pattern| !pattern.matches(path()))
            || self.client.as_deref().is_some_and(|client| asked.client != Some(client))
        {
            return Ok(false);
        }
        if self.operation.is_none() && self.bucket.is_none() {
            return Ok(true);
        }
        let Some(signing_name) = self.service.as_deref().or(asked.signing_name) else { return Ok(false) };
        if let Some(pattern) = &self.bucket
            && !(matches!(signing_name, "s3" | "s3express") && bucket_matches(pattern, asked.host, asked.path))
        {
            return Ok(false);
        }
        match &self.operation {
            Some((service, name)) => asked.operation(signing_name, service, name),
            None => Ok(true),
        }
    }

    /// True if more than the host decides.
    fn is_conditional(&self) -> bool {
        self.path.is_some() || self.operation.is_some() || self.bucket.is_some() || self.client.is_some()
    }

    /// Where a request to `target` goes under this rule.
    pub fn upstream(&self, target: &Target) -> Upstream {
        let by_host = self.host.as_ref().is_some_and(|pattern| pattern.is(&target.host));
        let named = self.upstream.is_some() || self.connect.is_some() || by_host;
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
pub(crate) struct Pattern(Vec<String>);

impl Pattern {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.split('*').map(str::to_owned).collect())
    }

    /// The text, if it has no `*`.
    pub(crate) fn literal(&self) -> Option<&str> {
        match self.0.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// What stands before the first `*`.
    fn before(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// What stands behind the last `*`.
    fn behind(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    pub(crate) fn is_all(&self) -> bool {
        self.0.len() > 1 && self.0.iter().all(String::is_empty)
    }

    fn is(&self, text: &str) -> bool {
        self.literal() == Some(text)
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
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
    fn the_index_finds_what_a_look_at_every_rule_finds() {
        let hosts = ["a.test", "b.test", "*.test", "a*", "a*.test", "*", "a.*.test", "team.s3.amazonaws.com", "*.amazonaws.com", "ab*ba"];
        let buckets = ["team", "team/x/*", "te*", "other", "team/*"];
        // A number for each choice, so that many lists of rules come of it without a source of chance.
        for seed in 0_u32..400 {
            let mut number = seed.wrapping_mul(2_654_435_761);
            let mut next = |most: usize| {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (number >> 16) as usize % most
            };
            let rules: Vec<RouteSettings> = (0..=next(12))
                .map(|_| {
                    let host = Some(hosts[next(hosts.len())].to_owned()).filter(|_| next(4) > 0);
                    let bucket = Some(buckets[next(buckets.len())].to_owned()).filter(|_| host.is_none() || next(3) == 0);
                    RouteSettings { host, bucket, ..RouteSettings::default() }
                })
                .collect();
            let router = Router::new(&rules).unwrap();
            for host in ["a.test", "aba", "abba", "a", "c.test", "a.b.test", "team.s3.amazonaws.com", "s3.amazonaws.com", "x"] {
                for path in ["/", "/team/x/y", "/other", "/x/y"] {
                    let signing_name = host.ends_with("amazonaws.com").then_some("s3");
                    let asked = Asked { host, path, signing_name, client: None, look_up: &|_| None, body_may_tell: false };
                    let found = router.find(&asked).unwrap().map(|route| &*route.name);
                    let scanned = router.routes.iter().find(|route| route.matches(&asked).unwrap()).map(|route| &*route.name);
                    assert_eq!(found, scanned, "{rules:?} {host} {path}");
                }
            }
        }
    }

    fn router(routes: &str) -> Router {
        Router::new(&serde_json::from_str::<Vec<RouteSettings>>(routes).unwrap()).unwrap()
    }

    #[test]
    fn a_bucket_a_listing_and_a_client_choose() {
        let router = router(
            r#"[{"name": "client", "client": "ci", "bucket": "logs/*"}, {"name": "prefix", "bucket": "team/a b/*"}, {"name": "whole", "bucket": "team"}]"#,
        );
        let s3 = "s3.eu-west-1.amazonaws.com";
        for (host, path, client, expected) in [
            (s3, "/team/a%20b/c", None, Some("prefix")),
            ("team.s3.eu-west-1.amazonaws.com", "/a%20b/c?x=1", None, Some("prefix")),
            (s3, "/team?list-type=2&prefix=a%20b%2Fc", None, Some("prefix")),
            (s3, "/team/ab/c", None, Some("whole")),
            (s3, "/team", None, Some("whole")),
            (s3, "/teams", None, None),
            (s3, "/logs/1", Some("ci"), Some("client")),
            (s3, "/logs/1", Some("cd"), None),
            (s3, "/logs/1", None, None),
            (s3, "/", None, None),
        ] {
            let asked = Asked { host, path, signing_name: Some("s3"), client, look_up: &|_| None, body_may_tell: false };
            let found = router.find(&asked).unwrap().map(|route| &*route.name);
            assert_eq!(found, expected, "{host}{path} {client:?}");
        }
        let asked = Asked { host: s3, path: "/team/x", signing_name: Some("sqs"), client: None, look_up: &|_| None, body_may_tell: false };
        assert!(router.find(&asked).unwrap().is_none());
    }

    #[test]
    fn what_passes_under_a_condition_is_looked_into() {
        let router = router(
            r#"[{"host": "a", "path": "/public/*", "action": "pass"}, {"host": "a", "action": "deny"}, {"host": "b", "action": "pass"},
                {"host": "c", "path": "/x", "action": "pass"}]"#,
        );
        assert_eq!(["a", "b", "c", "d"].map(|host| router.intercepts(host)), [Some(true), Some(false), None, None]);
    }

    #[test]
    fn a_wrong_route_names_the_field() {
        let route = |edit: fn(&mut RouteSettings)| {
            let mut settings = RouteSettings { host: Some("*".into()), ..RouteSettings::default() };
            edit(&mut settings);
            Router::new(&[settings]).unwrap_err()
        };
        assert!(route(|it| it.host = Some(String::new())).contains("route #1: host"));
        assert!(route(|it| it.upstream = Some("ftp://x".into())).contains("upstream"));
        assert!(route(|it| it.connect = Some("nowhere".into())).contains("connect"));
        assert!(route(|it| it.service = Some("a b".into())).contains("service"));
        assert!(route(|it| it.host = None).contains("host: it is missing"));
        assert!(route(|it| it.operation = Some("GetObject".into())).contains("operation: service:Operation"));
        assert!(route(|it| it.bucket = Some("/x".into())).contains("bucket"));
    }
}
