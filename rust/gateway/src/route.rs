//! route: which rule of the user's applies to this request: sign, pass or deny, as whom, and to where?
//!
//! The first matching rule wins. Without one, AWS's hosts are signed with the default identity; all else passes unsigned
//! on its way through a forward proxy and is refused by a reverse listener, which has no business with strangers.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderName;
use sigward_sigv4::wire::percent_decoded;
use sigward_sigv4::{QueryPlus, Style};
use smallvec::SmallVec;

use crate::admit::{Scheme, Target, normal_host, shown};
use crate::edit::{self, Edits};
use crate::knowledge::{Knowledge, api_of};
use crate::recognise::s3::{Bucket, Key, Object};
use crate::recognise::{Ambiguity, Call, Part, style_of};
use crate::settings::{
    self, Action, OwnAuthorization, PathStyle, PayloadMode, RouteSettings, SignaturePlace, SignatureVariant, TokenPlace, Unknown,
};

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

/// What rules look at of a request, beside its [`Call`].
#[derive(Clone, Copy, Debug)]
pub struct RouteQuery<'a> {
    /// The tables.
    pub knowledge: &'a Knowledge,
    /// Lower-case.
    pub host: &'a str,
    /// Where the client wants to go.
    pub port: u16,
    /// The host is known to be AWS's.
    pub is_aws: bool,
    /// The client whose issued key signed it.
    pub client: Option<&'a str>,
    /// What a rule does with what is unknown.
    pub unknown: Unknown,
}

/// Whether a rule, or one of its conditions, matches a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    /// Whatever else may be unknown.
    No,
    /// Only the body says it, and that has not been read.
    InBody,
    /// This cannot be told.
    Unknown(&'static str),
    Yes,
}

impl Match {
    fn of(matches: bool) -> Self {
        if matches { Self::Yes } else { Self::No }
    }

    /// Both.
    fn and(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::No => Self::No,
            Self::Yes => other(),
            unknown => match other() {
                Self::No => Self::No,
                Self::InBody => Self::InBody,
                _ => unknown,
            },
        }
    }
}

/// A rule, and what it could not be told.
pub type Untold = (Arc<str>, &'static str);

/// Which rule applies.
#[derive(Debug, Default)]
pub struct Choice<'r> {
    /// `None`: none does.
    pub route: Option<&'r Route>,
    /// It matches for what is unknown: this.
    pub unknown: Option<&'static str>,
    /// Rules that would apply, if more were known.
    pub skipped: Vec<Untold>,
    /// Rules that let the request pass, or did not stop it, because unknowns are only reported.
    pub would_refuse: Vec<Untold>,
}

/// Why no rule can be chosen.
#[derive(Debug)]
pub enum Undecided {
    /// Only the body tells, and it has not been read.
    OnlyBodyTells,
    /// The request can be read in two ways.
    Ambiguous(Ambiguity),
}

impl From<Ambiguity> for Undecided {
    fn from(ambiguity: Ambiguity) -> Self {
        Self::Ambiguous(ambiguity)
    }
}

/// How the request would be read under one rule: with its `service`, `style` and `upstream`.
pub trait Calls {
    /// The call.
    fn under(&mut self, route: &Route) -> Result<&Call, Ambiguity>;
    /// The call where no rule says otherwise.
    fn usual(&mut self) -> Result<&Call, Ambiguity>;
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
    /// What becomes of a client's own credential; `None`: it does not say.
    pub authorization: Option<OwnAuthorization>,
    /// Path rule.
    pub style: Option<Style>,
    /// How requests are signed under it.
    pub form: SigningForm,
    /// What a raw `+` in a query stands for.
    pub(crate) query_plus: QueryPlus,
    /// What it changes of the headers.
    pub(crate) edits: Edits,
    /// The headers that it leaves unsigned.
    pub(crate) unsigned: Arc<[HeaderName]>,
    host: Option<Pattern>,
    port: Option<u16>,
    path: Option<Pattern>,
    operation: Option<(Pattern, Pattern)>,
    bucket: Option<BucketPattern>,
    client: Option<Arc<str>>,
    pub(crate) upstream: Option<Target>,
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

/// Where a connection goes.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Lower-case.
    pub host: &'a str,
    /// Of the destination.
    pub port: u16,
    /// It may be AWS's own, known or not.
    pub is_aws: bool,
    /// The signing name, if the host says it.
    pub service: Option<&'a str>,
    /// The tables that rules are compared with.
    pub knowledge: &'a Knowledge,
}

/// The rules in their order.
#[derive(Debug, Default)]
pub struct Router {
    routes: Vec<Route>,
    index: Index,
    /// A rule takes a raw `+` in a query for a plus.
    pub(crate) reads_plus: bool,
}

impl Router {
    /// Checks the rules. The error names the route, the field and the mend.
    pub fn new(routes: &[RouteSettings]) -> Result<Self, String> {
        let routes: Vec<Route> = routes.iter().enumerate().map(|(at, route)| Route::new(at, route)).collect::<Result<_, _>>()?;
        let index = Index::new(&routes);
        let reads_plus = routes.iter().any(|route| route.query_plus == QueryPlus::Plus);
        Ok(Self { routes, index, reads_plus })
    }

    /// The rules that may be for this host, or for these buckets (`None`: any), in their order.
    fn candidates<'a>(&'a self, host: &str, buckets: Option<&[Box<str>]>) -> impl Iterator<Item = &'a Route> {
        self.index.candidates(host, buckets).filter_map(|at| self.routes.get(at as usize))
    }

    /// The first rule for this request.
    pub fn find(&self, asked: &RouteQuery<'_>, calls: &mut dyn Calls) -> Result<Choice<'_>, Undecided> {
        let buckets = if self.index.buckets.is_empty() { Some(SmallVec::new()) } else { buckets_of(calls.usual()?) };
        let mut choice = Choice::default();
        for route in self.candidates(asked.host, buckets.as_deref()) {
            let matched = route.matches(asked, calls)?;
            let untold = |why| (Arc::clone(&route.name), why);
            match matched {
                Match::No => continue,
                Match::InBody => return Err(Undecided::OnlyBodyTells),
                Match::Yes => {}
                Match::Unknown(why) => match (asked.unknown, route.action) {
                    (Unknown::Closed, Action::Deny) => choice.unknown = Some(why),
                    (Unknown::Closed, _) => {
                        choice.skipped.push(untold(why));
                        continue;
                    }
                    (Unknown::Report, Action::Deny) => {
                        choice.would_refuse.push(untold(why));
                        continue;
                    }
                    (Unknown::Report, _) => choice.would_refuse.push(untold(why)),
                },
            }
            choice.route = Some(route);
            return Ok(choice);
        }
        Ok(choice)
    }

    /// The rules that name this host and port, in their order.
    fn naming<'a>(&'a self, host: &'a str, port: u16) -> impl Iterator<Item = &'a Route> {
        let names = move |route: &&Route| route.host.as_ref().is_some_and(|pattern| pattern.matches(host)) && route.is_for_port(port);
        self.candidates(host, Some(&[])).filter(names)
    }

    /// The rules that may be for what goes to this place, in their order.
    fn fitting<'a>(&'a self, place: &Place<'a>) -> impl Iterator<Item = &'a Route> + use<'a> {
        let Place { host, port, is_aws, .. } = *place;
        let fits = move |route: &&Route| route.host.as_ref().map_or(is_aws, |pattern| pattern.matches(host)) && route.is_for_port(port);
        self.candidates(host, None).filter(fits)
    }

    /// Whether a connection to this place is looked into, as far as rules say. A rule without a host does not say it alone, but what it
    /// decides is not for a later rule to pass.
    pub fn intercepts(&self, place: &Place<'_>) -> Option<bool> {
        let mut decided_before = false;
        for route in self.fitting(place) {
            let decides = route.action != Action::Pass || route.moves();
            match (route.host.is_some(), decides) {
                (true, true) => return Some(true),
                (true, false) if !route.is_conditional() => return Some(decided_before),
                (false, true) => decided_before |= route.may_be_for(place.service, place.knowledge),
                _ => {}
            }
        }
        None
    }

    /// True if a rule passes whatever goes to this port of this host, and names the port.
    pub fn passes_port(&self, host: &str, port: u16) -> bool {
        let first = self.naming(host, port).next();
        first.is_some_and(|route| route.port.is_some() && route.action == Action::Pass && !route.moves() && !route.is_conditional())
    }

    /// A rule that denies something, whatever it is.
    pub fn denies(&self) -> Option<Arc<str>> {
        self.routes.iter().find(|route| route.action == Action::Deny).map(|route| Arc::clone(&route.name))
    }

    /// A rule that might deny something of what goes to this place, where nobody knows what goes there.
    pub fn may_deny(&self, place: &Place<'_>) -> Option<Arc<str>> {
        for route in self.fitting(place) {
            if route.action == Action::Deny && route.may_be_for(place.service, place.knowledge) {
                return Some(Arc::clone(&route.name));
            }
            // What it decides for all requests, no later rule does.
            if route.action != Action::Deny && !route.is_conditional() {
                return None;
            }
        }
        None
    }

    /// True if a rule names this host in full, so that its addresses may be local ones.
    pub fn names(&self, host: &str) -> bool {
        self.candidates(host, Some(&[]))
            .any(|route| route.action != Action::Deny && route.host.as_ref().is_some_and(|pattern| pattern.is(host)))
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
    /// All of `buckets`, in order.
    every_bucket: Vec<u32>,
    /// Those that say nothing literally.
    rest: Vec<u32>,
}

impl Index {
    fn new(routes: &[Route]) -> Self {
        let mut index = Self::default();
        for (route, at) in routes.iter().zip(0..) {
            // With a `service` or an `upstream` of its own, a rule has a reading of its own.
            let bucket = route.bucket.as_ref().filter(|_| route.reads_as_usual()).and_then(BucketPattern::literal_bucket);
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
                (None, Some(bucket)) => {
                    index.buckets.entry(bucket.into()).or_default().push(at);
                    index.every_bucket.push(at);
                }
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

    fn candidates<'a>(&'a self, host: &str, buckets: Option<&[Box<str>]>) -> impl Iterator<Item = u32> + use<'a> {
        let mut files: SmallVec<[&'a [u32]; 6]> = SmallVec::new();
        files.extend(self.hosts.get(host).map(Vec::as_slice));
        match buckets {
            Some(buckets) => files.extend(buckets.iter().filter_map(|bucket| self.buckets.get(bucket)).map(Vec::as_slice)),
            None => files.push(&self.every_bucket),
        }
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
            Some(Some((service, name))) if !service.is_empty() && !name.is_empty() => {
                Some((Pattern::without_case(service), Pattern::without_case(name)))
            }
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
        let (edits, unsigned) = match Edits::new(settings).and_then(|edits| Ok((edits, edit::unsigned(settings)?))) {
            Ok(checked) => checked,
            Err((field, why)) => return wrong(field, &why),
        };
        let shared = |text: &Option<String>| text.as_deref().map(Arc::from);
        Ok(Self {
            action: settings.action,
            service: shared(&settings.service),
            region: shared(&settings.region),
            identity: shared(&settings.identity),
            // What changes Authorization is for requests that are signed.
            authorization: settings.authorization.or_else(|| edits.take_authorization().then_some(OwnAuthorization::Replace)),
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
            query_plus: match settings.query_plus {
                settings::QueryPlus::Blank => QueryPlus::Blank,
                settings::QueryPlus::Plus => QueryPlus::Plus,
            },
            edits,
            unsigned,
            // As a request's host is written when it is compared.
            host: settings.host.as_deref().map(|host| Pattern::new(&normal_host(host).unwrap_or_else(|| host.to_ascii_lowercase().into()))),
            port: settings.port,
            path: settings.path.as_deref().map(Pattern::decoded),
            operation,
            bucket: settings.bucket.as_deref().map(BucketPattern::new),
            client: shared(&settings.client),
            upstream,
            connect: shared(&settings.connect),
            name: name.into(),
        })
    }

    fn matches(&self, asked: &RouteQuery<'_>, calls: &mut dyn Calls) -> Result<Match, Ambiguity> {
        let host = match &self.host {
            Some(pattern) => pattern.matches(asked.host),
            None => asked.is_aws,
        };
        if !host || !self.is_for_port(asked.port) || self.client.as_deref().is_some_and(|client| asked.client != Some(client)) {
            return Ok(Match::No);
        }
        if self.path.is_none() && self.operation.is_none() && self.bucket.is_none() {
            return Ok(Match::Yes);
        }
        let call = calls.under(self)?;
        let path = self.path.as_ref().map_or(Match::Yes, |pattern| path_matches(pattern, call));
        let operation = || match &self.operation {
            Some((service, name)) => operation_matches(service, name, call, asked.knowledge),
            None => Match::Yes,
        };
        let bucket = || self.bucket.as_ref().map_or(Match::Yes, |pattern| pattern.matches(call, self.action));
        Ok(path.and(operation).and(bucket))
    }

    fn is_for_port(&self, port: u16) -> bool {
        self.port.is_none_or(|own| own == port)
    }

    /// True if its operations or bucket may be of the service of this signing name. `None`: any service.
    fn may_be_for(&self, service: Option<&str>, knowledge: &Knowledge) -> bool {
        let Some(name) = service else { return true };
        let names = |pattern: &Pattern| {
            let by_signing_name =
                pattern.matches(name) || pattern.matches(api_of(name)) || (name.starts_with("s3") && pattern.matches("s3"));
            by_signing_name || knowledge.services_of(name).any(|own| pattern.matches(own))
        };
        self.operation.as_ref().is_none_or(|(pattern, _)| names(pattern)) && (self.bucket.is_none() || name.starts_with("s3"))
    }

    /// True if more than the host and the port decides.
    fn is_conditional(&self) -> bool {
        self.path.is_some() || self.operation.is_some() || self.bucket.is_some() || self.client.is_some()
    }

    /// Where a request to `target` goes under this rule.
    pub fn upstream(&self, target: &Target) -> Upstream {
        let by_host = self.host.as_ref().is_some_and(|pattern| pattern.is(&target.host));
        let named = self.upstream.is_some() || self.connect.is_some() || by_host;
        Upstream { target: self.upstream.as_ref().unwrap_or(target).clone(), connect: self.connect.clone(), named }
    }

    /// In words: what the call touches that this rule's bucket is for, or all that it touches. `None`: no more than one object.
    pub(crate) fn touched(&self, call: &Call) -> Option<String> {
        const MOST: usize = 5;
        let objects = call.objects();
        let of_rule = |object: &&Object| self.bucket.as_ref().is_none_or(|pattern| pattern.covers(object) != Coverage::None);
        if objects.len() < 2 && !call.lists() {
            return None;
        }
        let names: Vec<String> = objects.iter().filter(of_rule).map(|object| format!("{:?}", shown(&object.to_string()))).collect();
        let more = names.len().saturating_sub(MOST);
        let listed = names.iter().take(MOST).map(String::as_str).collect::<Vec<_>>().join(", ");
        Some(if more == 0 { listed } else { format!("{listed} and {more} more") })
    }

    /// It changes nothing of how a request is read.
    pub(crate) fn reads_as_usual(&self) -> bool {
        let as_usual = self.service.is_none() && self.style.is_none() && self.upstream.is_none() && self.query_plus == QueryPlus::Blank;
        as_usual && !self.may_hold_bucket()
    }

    /// The rule names this host, and not only the domain that it is in.
    pub(crate) fn names_host(&self) -> bool {
        self.host.as_ref().is_some_and(|pattern| pattern.literal().is_some() || pattern.before().contains('.'))
    }

    /// Of a host that is not AWS's, the name may hold a bucket: the rule is for all names below one.
    pub(crate) fn may_hold_bucket(&self) -> bool {
        self.host.as_ref().is_some_and(|pattern| pattern.before().is_empty() && pattern.literal().is_none())
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

/// The buckets that a call is known to touch; `None`: there may be others.
fn buckets_of(call: &Call) -> Option<SmallVec<[Box<str>; 1]>> {
    let mut names: SmallVec<[Box<str>; 1]> = SmallVec::new();
    for object in call.objects() {
        match &object.bucket {
            Bucket::Named(bucket) if names.contains(bucket) => {}
            Bucket::Named(bucket) => names.push(bucket.clone()),
            _ => return None,
        }
    }
    Some(names)
}

/// The path that is sent, and what a server that normalises it makes of it, must both match or both not.
fn path_matches(pattern: &Pattern, call: &Call) -> Match {
    let paths = call.paths();
    let sent = pattern.matches_bytes(&paths.sent);
    match paths.other {
        Some(other) if pattern.matches_bytes(&other) != sent => Match::Unknown("the path: servers may read it in different ways"),
        _ => Match::of(sent),
    }
}

/// The service by its signing name, or by botocore's; the operation by any name that it has.
fn operation_matches(service: &Pattern, name: &Pattern, call: &Call, knowledge: &Knowledge) -> Match {
    let Some(signing_name) = call.service.as_deref() else { return Match::No };
    let by_signing_name = service.matches(signing_name) || service.matches(api_of(signing_name));
    if by_signing_name && name.is_all() {
        return Match::Yes;
    }
    let speaks_s3 = signing_name == "s3-outposts" && service.matches("s3");
    if !(by_signing_name || speaks_s3 || knowledge.services_of(signing_name).any(|own| service.matches(own))) {
        return Match::No;
    }
    if call.needs_body {
        return Match::InBody;
    }
    match &call.operation {
        Part::Known(names) => {
            Match::of(names.iter().any(|found| (by_signing_name || service.matches(&found.service)) && name.matches(&found.name)))
        }
        Part::Absent => Match::No,
        Part::Unknown(why) => Match::Unknown(why),
    }
}

/// Of a `bucket` rule: literal text with `*`, for `bucket/key`. Without a key, the whole bucket is meant.
#[derive(Debug)]
pub(crate) struct BucketPattern {
    whole: Pattern,
    /// For a key in any bucket.
    any_bucket: Pattern,
}

impl BucketPattern {
    pub(crate) fn new(text: &str) -> Self {
        let text = if text.contains('/') { text.to_owned() } else { format!("{text}/*") };
        let key = text.split_once('/').map_or("*", |(_, key)| key);
        Self { any_bucket: Pattern::new(&format!("*/{key}")), whole: Pattern::new(&text) }
    }

    /// The bucket, if it stands there without `*`.
    fn literal_bucket(&self) -> Option<&str> {
        self.whole.before().split_once('/').map(|(bucket, _)| bucket)
    }

    /// All that the call touches must match to allow, any of it to deny.
    fn matches(&self, call: &Call, action: Action) -> Match {
        let objects = call.objects();
        if objects.is_empty() {
            return Match::No;
        }
        let deny = action == Action::Deny;
        let (mut some, mut all, mut unknown) = (false, true, None);
        for object in objects {
            match self.covers(object) {
                Coverage::All => some = true,
                Coverage::Some => (some, all) = (true, false),
                Coverage::None => all = false,
                Coverage::Unknown(why) => unknown = Some(why),
            }
        }
        if deny && some {
            return Match::Yes;
        }
        if !deny && !all {
            return Match::No;
        }
        match unknown {
            Some(_) if call.needs_body => Match::InBody,
            Some(why) => Match::Unknown(why),
            None => Match::of(if deny { some } else { all }),
        }
    }

    fn covers(&self, object: &Object) -> Coverage {
        match (&object.bucket, &object.key) {
            (Bucket::Named(bucket), key) => self.covers_in(bucket, key),
            // A rule may name an access point by its label.
            (Bucket::AccessPoint(label), key) if self.covers_in(label, key) == Coverage::All => Coverage::All,
            (_, Key::Exact(key)) if !self.any_bucket.matches_bytes(&joined("b", key)) => Coverage::None,
            (_, Key::Prefix(prefix)) if !self.any_bucket.may_begin(&joined("b", prefix)) => Coverage::None,
            (Bucket::AccessPoint(_), _) => Coverage::Unknown("the bucket: AWS alone knows which one stands behind the access point"),
            _ => Coverage::Unknown("what else of S3 it touches"),
        }
    }

    fn covers_in(&self, bucket: &str, key: &Key) -> Coverage {
        match key {
            Key::Exact(key) if self.whole.matches_bytes(&joined(bucket, key)) => Coverage::All,
            Key::Exact(_) => Coverage::None,
            Key::Prefix(prefix) => match self.whole.covers_all(&joined(bucket, prefix)) {
                true => Coverage::All,
                false if self.whole.may_begin(&joined(bucket, prefix)) => Coverage::Some,
                false => Coverage::None,
            },
            Key::Unknown => match self.covers_in(bucket, &Key::Prefix(Box::default())) {
                Coverage::Some => Coverage::Unknown("the keys"),
                all_or_none => all_or_none,
            },
        }
    }

    /// One bucket and key, as far as a limit asks: not more than they are.
    pub(crate) fn is_for(&self, bucket: &str, key: &[u8]) -> bool {
        self.whole.matches_bytes(&joined(bucket, key))
    }
}

/// What part of an object, or of all keys that begin alike, a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coverage {
    All,
    Some,
    None,
    Unknown(&'static str),
}

fn joined(bucket: &str, key: &[u8]) -> SmallVec<[u8; 128]> {
    let mut text = SmallVec::from_slice(bucket.as_bytes());
    text.push(b'/');
    text.extend_from_slice(key);
    text
}

/// Literal text with `*` for any run of characters.
#[derive(Debug)]
pub(crate) struct Pattern {
    pieces: Vec<Box<[u8]>>,
    /// The first piece, as text.
    first: Box<str>,
    /// The last one.
    last: Box<str>,
    folds: bool,
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Self {
        Self::of(text, false, |piece| piece.as_bytes().into())
    }

    /// For names of services and operations, which are compared without case.
    pub(crate) fn without_case(text: &str) -> Self {
        Self::of(text, true, |piece| piece.as_bytes().into())
    }

    /// For paths, which are compared decoded.
    fn decoded(text: &str) -> Self {
        Self::of(text, false, |piece| percent_decoded(piece.as_bytes()).into())
    }

    fn of(text: &str, folds: bool, piece: impl Fn(&str) -> Box<[u8]>) -> Self {
        let (first, last) = (text.split('*').next().unwrap_or_default().into(), text.rsplit('*').next().unwrap_or_default().into());
        Self { pieces: text.split('*').map(piece).collect(), first, last, folds }
    }

    /// The text, if it has no `*`.
    pub(crate) fn literal(&self) -> Option<&str> {
        (self.pieces.len() == 1).then_some(&*self.first)
    }

    /// What stands before the first `*`.
    fn before(&self) -> &str {
        &self.first
    }

    /// What stands behind the last `*`.
    fn behind(&self) -> &str {
        &self.last
    }

    pub(crate) fn is_all(&self) -> bool {
        self.pieces.len() > 1 && self.pieces.iter().all(|piece| piece.is_empty())
    }

    fn is(&self, text: &str) -> bool {
        self.literal() == Some(text)
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        self.matches_bytes(text.as_bytes())
    }

    pub(crate) fn matches_bytes(&self, text: &[u8]) -> bool {
        let (first, rest) = match self.pieces.split_first() {
            Some((first, [])) => return self.same(first, text),
            Some((first, rest)) => (first, rest),
            None => return false,
        };
        let Some((last, middle)) = rest.split_last() else { return false };
        let Some((start, mut text)) = text.split_at_checked(first.len()) else { return false };
        if !self.same(first, start) {
            return false;
        }
        for piece in middle.iter().filter(|piece| !piece.is_empty()) {
            match text.windows(piece.len()).position(|window| self.same(piece, window)) {
                Some(at) => text = text.get(at + piece.len()..).unwrap_or_default(),
                None => return false,
            }
        }
        text.len().checked_sub(last.len()).and_then(|at| text.get(at..)).is_some_and(|end| self.same(last, end))
    }

    /// Some text that begins so matches.
    fn may_begin(&self, text: &[u8]) -> bool {
        let Some(first) = self.pieces.first() else { return false };
        first.starts_with(text) || (self.pieces.len() > 1 && text.starts_with(first))
    }

    /// All text that begins so matches.
    fn covers_all(&self, text: &[u8]) -> bool {
        self.pieces.len() > 1 && self.pieces.last().is_some_and(|last| last.is_empty()) && self.matches_bytes(text)
    }

    fn same(&self, one: &[u8], other: &[u8]) -> bool {
        if self.folds { one.eq_ignore_ascii_case(other) } else { one == other }
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
    use crate::recognise::Sample;

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
    fn patterns_over_all_that_begins_alike() {
        for (pattern, text, some, all) in [
            ("b/secret/*", "b/", true, false),
            ("b/secret/*", "b/sec", true, false),
            ("b/secret/*", "b/secret/", true, true),
            ("b/secret/*", "b/secret/x", true, true),
            ("b/secret/*", "b/public", false, false),
            ("b/x", "b/x", true, false),
            ("b/x", "b/xy", false, false),
            ("b/*.txt", "b/a.txt", true, false),
            ("*", "b/", true, true),
        ] {
            let found = (Pattern::new(pattern).may_begin(text.as_bytes()), Pattern::new(pattern).covers_all(text.as_bytes()));
            assert_eq!(found, (some, all), "{pattern} {text}");
        }
        assert!(Pattern::without_case("DynamoDB:put*").matches("dynamodb:PutItem"));
        assert!(Pattern::decoded("/a%20b/*").matches("/a b/c"));
    }

    struct One(Call);

    impl Calls for One {
        fn under(&mut self, _: &Route) -> Result<&Call, Ambiguity> {
            Ok(&self.0)
        }

        fn usual(&mut self) -> Result<&Call, Ambiguity> {
            Ok(&self.0)
        }
    }

    fn asked<'a>(knowledge: &'a Knowledge, host: &'a str, client: Option<&'a str>) -> RouteQuery<'a> {
        RouteQuery { knowledge, host, port: 443, is_aws: host.ends_with("amazonaws.com"), client, unknown: Unknown::Closed }
    }

    #[test]
    fn the_index_finds_what_a_look_at_every_rule_finds() {
        let hosts = ["a.test", "b.test", "*.test", "a*", "a*.test", "*", "a.*.test", "team.s3.amazonaws.com", "*.amazonaws.com", "ab*ba"];
        let buckets = ["team", "team/x/*", "te*", "other", "team/*"];
        let knowledge = Knowledge::shipped().unwrap();
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
                    let service = host.ends_with("amazonaws.com").then_some("s3");
                    let mut call = One(Sample { service, host, target: path, ..Sample::default() }.call().unwrap());
                    let asked = asked(&knowledge, host, None);
                    let found = router.find(&asked, &mut call).unwrap().route.map(|route| &*route.name);
                    let matches = |route: &&Route| route.matches(&asked, &mut call).unwrap() == Match::Yes;
                    let scanned = router.routes.iter().find(matches).map(|route| &*route.name);
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
        let (s3, knowledge) = ("s3.eu-west-1.amazonaws.com", Knowledge::shipped().unwrap());
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
            let mut call = One(Sample { service: Some("s3"), host, target: path, ..Sample::default() }.call().unwrap());
            let found = router.find(&asked(&knowledge, host, client), &mut call).unwrap().route.map(|route| &*route.name);
            assert_eq!(found, expected, "{host}{path} {client:?}");
        }
        let mut call = One(Sample { service: Some("sqs"), host: s3, target: "/team/x", ..Sample::default() }.call().unwrap());
        assert!(router.find(&asked(&knowledge, s3, None), &mut call).unwrap().route.is_none());
    }

    #[test]
    fn what_passes_under_a_condition_is_looked_into() {
        let router = router(
            r#"[{"host": "a", "path": "/public/*", "action": "pass"}, {"host": "a", "action": "deny"}, {"host": "b", "action": "pass"},
                {"host": "c", "path": "/x", "action": "pass"}]"#,
        );
        let knowledge = Knowledge::shipped().unwrap();
        let at = |host| Place { host, port: 443, is_aws: false, service: None, knowledge: &knowledge };
        assert_eq!(["a", "b", "c", "d"].map(|host| router.intercepts(&at(host))), [Some(true), Some(false), None, None]);
    }

    #[test]
    fn a_port_chooses() {
        let router = router(r#"[{"name": "web", "host": "a.test", "port": 8443, "action": "pass"}, {"name": "all", "host": "a.test"}]"#);
        let knowledge = Knowledge::shipped().unwrap();
        for (port, expected) in [(8443, "web"), (443, "all")] {
            let mut call = One(Sample { service: None, host: "a.test", target: "/", ..Sample::default() }.call().unwrap());
            let found = router.find(&RouteQuery { port, ..asked(&knowledge, "a.test", None) }, &mut call).unwrap();
            assert_eq!(found.route.map(|route| &*route.name), Some(expected));
        }
        let knowledge = Knowledge::shipped().unwrap();
        let at = |port| Place { host: "a.test", port, is_aws: false, service: None, knowledge: &knowledge };
        assert_eq!([8443, 443].map(|port| router.intercepts(&at(port))), [Some(false), Some(true)]);
        assert_eq!([8443, 443].map(|port| router.passes_port("a.test", port)), [true, false]);
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
