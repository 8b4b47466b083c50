//! One call, read once: what the rooms behind this one decide on, and what is sent.
//!
//! A request may name its operation in several places: `X-Amz-Target`, a path of RPC v2, `Action` in the query or in a form, or method
//! and path of a REST service. Each place is read here, and only here. Places that disagree are an [`Ambiguity`], which is refused:
//! AWS might go by another place than sigward. What no place tells is [`Part::Unknown`].

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, Method};
use sigward_sigv4::{QueryPlus, Style, wire};

use super::authentication::{self, Authentication, InHead};
use super::form::{Pair, Query, is_form, pairs};
use super::path::{Readings, cleaned, is_dirty};
use super::s3::{self, Bucket, Key, Objects};
use super::{HostBucket, bucket_in_host};
use crate::admit::shown;
use crate::knowledge::{CBOR, Group, JSON, Knowledge, Named, Names, Operation, QUERY, REST, RestCall, S3Place};

pub use super::s3::Body;

pub(crate) const TARGET: HeaderName = HeaderName::from_static("x-amz-target");

/// What is known of one part of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<T> {
    /// This.
    Known(T),
    /// The request has no such part.
    Absent,
    /// It cannot be told, and why.
    Unknown(&'static str),
}

/// One request, read. See the module.
#[derive(Clone, Debug)]
pub struct Call {
    /// Signing name.
    pub service: Option<Arc<str>>,
    /// How the path is read and signed.
    pub style: Style,
    /// The operation, with all the names that it has.
    pub operation: Part<Names>,
    /// `Action` names it, or may do so: the query protocols.
    pub named_by_action: bool,
    /// Path and query as they go out, in their one spelling.
    pub target: String,
    /// What of S3's it touches; empty: nothing.
    objects: Objects,
    /// `//` and dot segments in the path are what they are: AWS's S3.
    keeps_path: bool,
    /// Not all of it is known before the body is.
    pub needs_body: bool,
    /// Who authenticates it, as it arrived.
    pub authentication: Authentication,
}

/// A request, and what is known of it before it is read.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The tables.
    pub knowledge: &'a Knowledge,
    /// The host that it goes to: lower-case.
    pub host: &'a str,
    /// The signing name, where host or route tell.
    pub service: Option<&'a Arc<str>>,
    /// How the path is read.
    pub style: Style,
    /// What a raw `+` in the query stands for.
    pub query_plus: QueryPlus,
    /// What answers there is a customer's, and no API of the service's models.
    pub of_customer: bool,
    /// Not AWS's host, and its name may hold a bucket.
    pub may_hold_bucket: bool,
    /// The method.
    pub method: &'a Method,
    /// Origin-form, as sent, with query.
    pub target: &'a str,
    /// As they go out.
    pub headers: &'a HeaderMap,
    /// As far as it is there.
    pub body: Body<'a>,
}

/// A request that can be read in two ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ambiguity {
    /// Where: one of a few, for metrics.
    pub kind: &'static str,
    /// One reading.
    pub one: String,
    /// The other.
    pub other: String,
}

impl Ambiguity {
    fn new(kind: &'static str, one: impl fmt::Display, other: impl fmt::Display) -> Self {
        Self { kind, one: one.to_string(), other: other.to_string() }
    }
}

impl Call {
    /// Reads a request.
    pub fn read(source: &Source<'_>) -> Result<Self, Ambiguity> {
        let in_head = authentication::in_head(source)?;
        let replaced = (in_head == InHead::ReplaceableInUrl).then(|| authentication::without_v2(source.target));
        let source = &Source { target: replaced.as_deref().unwrap_or(source.target), ..*source };
        let mut call = Self::without_authentication(source)?;
        call.authentication = authentication::of_call(in_head, source, &call);
        Ok(call)
    }

    fn without_authentication(source: &Source<'_>) -> Result<Self, Ambiguity> {
        let target = wire_target(source.style, source.query_plus, source.target);
        let mut call = Self {
            service: source.service.map(Arc::clone),
            style: source.style,
            operation: Part::Absent,
            named_by_action: false,
            target,
            objects: Objects::new(),
            keeps_path: source.style == Style::S3 && bucket_in_host(source.host).is_some(),
            needs_body: false,
            authentication: Authentication::Sigward,
        };
        let Some(service) = source.service else { return Ok(call) };
        // The connections of API Gateway's WebSockets are managed behind the customer's own name.
        if source.of_customer && **service != *"execute-api" {
            // What it does is the customer's, and no operation of the service's.
            return Ok(call);
        }
        let place = place_of(source, service);
        // An access point on an Outpost takes S3's operations.
        let on_outpost = **service == *"s3-outposts" && matches!(place, Some(HostBucket::AccessPoint(_)));
        let Some(group) = source.knowledge.group(if on_outpost { "s3" } else { service }) else {
            call.operation = Part::Unknown("the operation: the table does not have this service");
            return Ok(call);
        };
        let (path, query) = call.target.split_once('?').unwrap_or((&call.target, ""));
        let query = Query::of(query);
        let reader = CallReader { source, group, place, on_aws: bucket_in_host(source.host).is_some(), path, query: &query };
        let (operation, in_query) = reader.operation()?;
        let (objects, touches) = reader.objects(&operation)?;
        let needs_body = source.body == Body::Pending && (in_query || touches);
        (call.operation, call.named_by_action, call.objects, call.needs_body) = (operation, in_query, objects, needs_body);
        drop(query);
        Ok(call)
    }

    /// The operation by the name that speaks for it, if it is known.
    pub fn known_operation(&self) -> Option<&Arc<Operation>> {
        match &self.operation {
            Part::Known(names) => names.first(),
            _ => None,
        }
    }

    /// It sends the bytes of an object, or of a part of one: what S3 takes in signed chunks.
    pub fn uploads(&self) -> bool {
        self.style == Style::S3 && self.known_operation().is_some_and(|operation| matches!(&*operation.name, "PutObject" | "UploadPart"))
    }

    /// The S3 bucket, and the key in it (empty: the bucket itself; of a listing, its prefix), that the call is for.
    pub fn bucket_and_key(&self) -> Option<(&str, &[u8])> {
        let object = self.objects.first()?;
        let (Bucket::Named(bucket) | Bucket::AccessPoint(bucket)) = &object.bucket else { return None };
        let (Key::Exact(key) | Key::Prefix(key)) = &object.key else { return Some((bucket, b"")) };
        Some((bucket, key))
    }

    /// What it is for, as far as host, path and query tell: an ARN, a URL, or `Member=value`.
    pub fn resource(&self, partition: Option<&str>) -> Option<String> {
        crate::resource::in_head(self, partition)
    }

    /// It asks for all keys that begin alike.
    pub(crate) fn lists(&self) -> bool {
        self.objects.first().is_some_and(|object| matches!(object.key, Key::Prefix(_)))
    }

    /// The name of the bucket, if the call says it.
    pub fn bucket(&self) -> Option<&str> {
        match &self.objects.first()?.bucket {
            Bucket::Named(bucket) => Some(bucket),
            _ => None,
        }
    }

    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The path, without query, as rules see it.
    pub(crate) fn paths(&self) -> Readings<'_> {
        Readings::of(self.keeps_path, self.target.split('?').next().unwrap_or_default())
    }

    /// What its query says, decoded.
    pub(crate) fn query(&self) -> Query<'_> {
        Query::of(self.target.split_once('?').map_or("", |(_, query)| query))
    }

    /// True if both are the same call, as far as rules can ask.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.operation == other.operation && self.objects == other.objects && self.target == other.target
    }
}

/// Path and query in the form in which they go out and are signed.
pub(crate) fn wire_target(style: Style, plus: QueryPlus, target: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let bytes = wire::path_and_query(style, plus, path.as_bytes(), query.as_bytes());
    String::from_utf8(bytes).unwrap_or_default()
}

/// What the parts of one request name.
struct CallReader<'a, 'q> {
    source: &'a Source<'a>,
    group: &'a Group,
    /// Where S3 has the bucket; `None`: it is not S3's.
    place: Option<HostBucket<'a>>,
    /// The host is AWS's own S3.
    on_aws: bool,
    path: &'a str,
    query: &'a Query<'q>,
}

/// What names a call outright, as it stands there, and the operation that it is.
type Direct<'a> = (Cow<'a, str>, Option<Names>);

/// The operation, and whether the query protocols may name it.
type Found = (Part<Names>, bool);

impl<'a> CallReader<'a, '_> {
    fn speaks(&self, protocols: u8) -> bool {
        self.group.protocols & protocols != 0
    }

    fn operation(&self) -> Result<Found, Ambiguity> {
        if self.place.is_some() {
            return Ok((self.of_s3()?, false));
        }
        let target = self.target()?;
        let rpc = self.rpc();
        if let (Some((target, _)), Some(path)) = (&target, &rpc) {
            return Err(Ambiguity::new("target", quoted(target), format_args!("the path names {:?}", shown(path.0))));
        }
        if let (Some((target, _)), true) = (&target, self.source.headers.contains_key("smithy-protocol")) {
            return Err(Ambiguity::new("target", quoted(target), "smithy-protocol says that the path names it"));
        }
        let direct = target.or(rpc.filter(|_| self.speaks(CBOR)).map(|(path, named)| (path.into(), named)));
        let rest = if self.speaks(REST) { self.rest()? } else { Part::Absent };
        let typed_as_form = || is_typed_as_form(self.source.headers);
        let asks_action = if direct.is_some() { !self.query.is_empty() || typed_as_form() } else { self.speaks(QUERY) };
        let action = if asks_action { self.action()? } else { Action::None };
        // Two places that name one call must agree.
        if let Some((text, named)) = direct {
            if let Part::Known(names) = &rest
                && named.as_ref() != Some(names)
            {
                return Err(Ambiguity::new("target", quoted(&text), the_path(names)));
            }
            let is_it = |action: &[u8]| named.iter().flatten().any(|operation| operation.name.as_bytes() == action);
            let in_query = self.query.get(b"Action");
            let in_form = if let Action::Named(action, _) = &action { Some(action.as_bytes()) } else { None };
            if let Some(action) = in_query.or(in_form).filter(|action| !is_it(action)) {
                let action = shown(&String::from_utf8_lossy(action));
                return Err(Ambiguity::new("target", quoted(&text), format_args!("Action is {action:?}")));
            }
            // With a form beside it, the service may go by that one's Action.
            return Ok(match action {
                Action::Pending if typed_as_form() => (PENDING, true),
                Action::Unreadable if typed_as_form() => (UNREADABLE, true),
                _ => (named.map_or(Part::Unknown("the operation: X-Amz-Target names none of the table"), Part::Known), false),
            });
        }
        if let Part::Known(names) = &rest {
            return match &action {
                Action::Named(action, _) if names.iter().all(|operation| *operation.name != **action) => {
                    Err(Ambiguity::new("action", the_path(names), format_args!("Action is {:?}", shown(action))))
                }
                // A form may follow whose Action is another one.
                Action::Pending => Ok((rest, true)),
                Action::Unreadable if typed_as_form() => Ok((UNREADABLE, true)),
                _ => Ok((rest, false)),
            };
        }
        Ok(match action {
            Action::Named(_, part) => (part, true),
            Action::Pending => (PENDING, true),
            Action::Unreadable => (UNREADABLE, true),
            Action::None if self.source.of_customer && !self.path.starts_with("/@connections") => (Part::Absent, false),
            Action::None if rest == Part::Absent => (Part::Unknown("the operation: nothing in the request names one of the table"), false),
            Action::None => (rest, false),
        })
    }

    /// S3's operations are named by method, path, query and headers; nothing else may name one.
    fn of_s3(&self) -> Result<Part<Names>, Ambiguity> {
        let rest = self.rest()?;
        if let Some(target) = self.source.headers.get(TARGET) {
            let target = format!("X-Amz-Target names {:?}", shown(&String::from_utf8_lossy(target.as_bytes())));
            let other = if let Part::Known(names) = &rest { the_path(names) } else { "the path names an operation of S3".into() };
            return Err(Ambiguity::new("target", target, other));
        }
        // AWS refuses a source without a slash; other servers take it for none.
        let copies = !self.on_aws && self.source.headers.get(s3::COPY_SOURCE).is_some_and(|source| !s3::names_object(source.as_bytes()));
        if copies && matches!(&rest, Part::Known(names) if names.iter().any(|operation| s3::is_copy(&operation.name))) {
            return Ok(Part::Unknown("the operation: x-amz-copy-source names no object"));
        }
        Ok(rest)
    }

    /// `X-Amz-Target`, and what it names.
    fn target(&self) -> Result<Option<Direct<'a>>, Ambiguity> {
        let mut values = self.source.headers.get_all(TARGET).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if let Some(other) = values.next() {
            let text = |value: &http::HeaderValue| shown(&String::from_utf8_lossy(value.as_bytes()));
            return Err(Ambiguity::new(
                "target",
                format_args!("X-Amz-Target names {:?}", text(value)),
                format_args!("another one names {:?}", text(other)),
            ));
        }
        let text = String::from_utf8_lossy(value.as_bytes());
        let named = if self.speaks(JSON) && self.is_post() { self.group.target(&text, self.source.host) } else { Named::Nothing };
        Ok(Some((text, one(named))))
    }

    /// A path of Smithy's RPC v2, and what it names. Any prefix may stand before `/service/`. Services that speak REST have such paths
    /// for other ends.
    fn rpc(&self) -> Option<(&'a str, Option<Names>)> {
        if self.group.protocols & !REST == 0 {
            return None;
        }
        let Some((prefix, shape, name)) = rpc_path(self.path) else {
            // A server that normalises the path may find one.
            let cleaned = cleaned(self.path).unwrap_or_else(|| self.path.to_owned());
            return rpc_path(cleaned.trim_end_matches('/')).is_some().then_some((self.path, None));
        };
        let named = if prefix.is_empty() && self.is_post() { self.group.rpc(shape, name, self.source.host) } else { Named::Nothing };
        Some((self.path, one(named)))
    }

    /// What method and path name. Where servers may normalise the path each in its own way, all readings must name the same.
    fn rest(&self) -> Result<Part<Names>, Ambiguity> {
        const UNTOLD: Part<Names> = Part::Unknown("the operation: servers may read the path in different ways");
        let place = self.place;
        let looked_up = |path: &str, bucket_in_host: bool| {
            let express = self.source.service.is_some_and(|service| **service == *"s3express");
            let s3 = place.map(|place| S3Place { control: place == HostBucket::Control, express, bucket_in_host });
            let call = RestCall {
                host: self.source.host,
                method: self.source.method.as_str(),
                path,
                query: self.query,
                headers: self.source.headers,
                s3,
            };
            match self.group.rest(&call) {
                Named::Nothing => Ok(None),
                Named::One(names) => Ok(Some(names)),
                Named::Several(one, other) => Err(Ambiguity::new("query", format_args!("it is {one}"), format_args!("it is {other}"))),
            }
        };
        if let Some((name, one, other)) = self.query.conflict(|name| self.group.tells(name) || *name == *b"x-id") {
            return Err(conflict("query", name, one, other));
        }
        let in_host = matches!(place, Some(HostBucket::Named(_) | HostBucket::AccessPoint(_)));
        let found = looked_up(self.path, in_host)?;
        let part = match place {
            Some(HostBucket::Unclear) if !self.on_aws && looked_up(self.path, true)? != found => UNTOLD,
            // AWS takes keys as they come. Other servers are files' and proxies', too.
            Some(place) if (self.on_aws && place != HostBucket::Control) || !is_dirty(self.path) => found.map_or(NOTHING, Part::Known),
            _ => {
                let other = cleaned(self.path).map(|path| looked_up(&path, false)).transpose()?;
                match (found, other) {
                    (Some(names), None) => Part::Known(names),
                    (Some(names), Some(other)) if other.as_ref() == Some(&names) || (other.is_none() && !is_dirty(self.path)) => {
                        Part::Known(names)
                    }
                    (_, Some(_)) => UNTOLD,
                    (None, None) => NOTHING,
                }
            }
        };
        if let Part::Known(names) = &part {
            self.check_overrides(names)?;
        }
        Ok(part)
    }

    /// A header or a parameter may not say that the call is another one.
    fn check_overrides(&self, names: &Names) -> Result<(), Ambiguity> {
        if let Some(method) = s3::overriding_method(self.source.method.as_str(), self.source.headers) {
            let own = format!("the method is {}", self.source.method);
            return Err(Ambiguity::new("method", own, format_args!("a header says {:?}", shown(method))));
        }
        // SDKs add the operation's name, and AWS does not look at it: one that differs wants to be taken for another call.
        if let Some(id) = self.query.get(b"x-id")
            && names.iter().all(|operation| operation.name.as_bytes() != id)
        {
            return Err(Ambiguity::new("query", the_path(names), format_args!("x-id is {:?}", shown(&String::from_utf8_lossy(id)))));
        }
        Ok(())
    }

    /// JSON, RPC v2 and forms are posted: what a service makes of them under another method is not described.
    fn is_post(&self) -> bool {
        *self.source.method == Method::POST
    }

    /// What of S3's is touched, and whether the body has a part in that.
    fn objects(&self, operation: &Part<Names>) -> Result<(Objects, bool), Ambiguity> {
        let Some(place) = self.place else { return Ok((Objects::new(), false)) };
        self.check_objects()?;
        let operation = match operation {
            Part::Known(names) => names.first().map(|operation| &*operation.name),
            _ => None,
        };
        let Source { headers, body, .. } = *self.source;
        let request = s3::Request { place, operation, path: self.path, query: self.query, headers, body };
        let touched = s3::touched(&request);
        Ok((if self.on_aws { touched } else { s3::as_a_server_may_read(touched, headers) }, s3::is_in_body(operation)))
    }

    /// What names an object may do so once.
    fn check_objects(&self) -> Result<(), Ambiguity> {
        if let Some((name, one, other)) = self.query.conflict(|name| *name == *b"prefix") {
            return Err(conflict("query", name, one, other));
        }
        let mut sources = self.source.headers.get_all(s3::COPY_SOURCE).iter();
        if let (Some(one), Some(other)) = (sources.next(), sources.next()) {
            return Err(conflict("header", b"x-amz-copy-source", one.as_bytes(), other.as_bytes()));
        }
        Ok(())
    }

    /// The `Action` of the query protocols, in the query or in a form.
    fn action(&self) -> Result<Action, Ambiguity> {
        let mut found = Actions::default();
        for pair in self.query.iter() {
            found.note(pair, "query")?;
        }
        match self.form() {
            Form::None => {}
            Form::Pending => return Ok(Action::Pending),
            Form::Unreadable => return Ok(Action::Unreadable),
            Form::Whole(form) => {
                for pair in pairs(form) {
                    found.note(&pair, "form")?;
                }
            }
        }
        if found.odd {
            return Ok(Action::Unreadable);
        }
        let Some(action) = found.action else { return Ok(Action::None) };
        let text = String::from_utf8_lossy(&action).into_owned();
        let part = match self.group.action(&text, found.version.as_deref(), self.source.host) {
            Named::One(names) => Part::Known(names),
            Named::Nothing => Part::Unknown("the operation: Action names none of the table"),
            Named::Several(..) => Part::Unknown("the operation: services differ in it by their Version, which is missing or wrong"),
        };
        Ok(Action::Named(text, part))
    }

    /// The body, as far as it may be a form.
    fn form(&self) -> Form<'a> {
        let readable = is_plain_form(self.source.headers) && self.is_post();
        match self.source.body {
            Body::Whole([]) => Form::None,
            Body::Pending => Form::Pending,
            // A byte order mark, or pairs between semicolons, are read by some.
            Body::Whole(body) if readable && !body.starts_with(b"\xef\xbb\xbf") && !hides_action(body) => Form::Whole(body),
            Body::Whole(_) | Body::Unreadable => Form::Unreadable,
        }
    }
}

/// Where S3 has the bucket; `None`: it is not S3's.
fn place_of<'a>(source: &Source<'a>, service: &str) -> Option<HostBucket<'a>> {
    if super::style_of(service) != Style::S3 {
        return None;
    }
    let host = source.host;
    let path = source.target.split('?').next().unwrap_or_default();
    // S3 Control of a server that has one host for all.
    let control = || path.starts_with("/v20180820/") && source.headers.contains_key("x-amz-account-id");
    let unclear = || source.may_hold_bucket || [".s3.", ".s3-"].iter().any(|mark| host.contains(mark)) || control();
    bucket_in_host(host).or_else(|| Some(if unclear() { HostBucket::Unclear } else { HostBucket::InPath }))
}

const PENDING: Part<Names> = Part::Unknown("the operation: it may be in a form that has not been read");
const UNREADABLE: Part<Names> = Part::Unknown("the operation: the body may be a form with an Action, and cannot be read as one");
const NOTHING: Part<Names> = Part::Unknown("the operation: method and path name none of the table");

/// What the query protocols name.
enum Action {
    /// No `Action`.
    None,
    /// The body may hold one, and has not been read.
    Pending,
    /// The body may hold one, and cannot be read.
    Unreadable,
    /// This, and what it is.
    Named(String, Part<Names>),
}

enum Form<'a> {
    None,
    Pending,
    Unreadable,
    Whole(&'a [u8]),
}

/// `Action` and `Version`, as they are found.
#[derive(Default)]
struct Actions {
    action: Option<Vec<u8>>,
    version: Option<Vec<u8>>,
    /// A name that some would take for `Action`.
    odd: bool,
}

impl Actions {
    fn note(&mut self, (name, value): &Pair<'_>, kind: &'static str) -> Result<(), Ambiguity> {
        let known = match &**name {
            b"Action" => &mut self.action,
            b"Version" => &mut self.version,
            name => {
                self.odd |= name.trim_ascii().eq_ignore_ascii_case(b"action") || name.contains(&0);
                return Ok(());
            }
        };
        match known {
            Some(before) if **before != **value => Err(conflict(kind, name, before, value)),
            _ => {
                *known = Some(value.to_vec());
                Ok(())
            }
        }
    }
}

/// True if a semicolon, where some end a pair, stands before what would be an `Action`.
fn hides_action(form: &[u8]) -> bool {
    form.contains(&b';')
        && form.split(|byte| *byte == b';').skip(1).any(|piece| pairs(piece).next().is_some_and(|(name, _)| *name == *b"Action"))
}

/// What stands before it, the service's shape and the operation of an RPC v2 path.
fn rpc_path(path: &str) -> Option<(&str, &str, &str)> {
    let (front, name) = path.rsplit_once("/operation/")?;
    let (prefix, shape) = front.rsplit_once("/service/")?;
    (!name.contains('/') && !shape.contains('/')).then_some((prefix, shape, name))
}

fn is_typed_as_form(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_TYPE).iter().any(|value| value.as_bytes().windows(4).any(|window| window.eq_ignore_ascii_case(b"form")))
}

/// True if the body is one form, as every reader takes it: its type, UTF-8, and not compressed.
pub(super) fn is_plain_form(headers: &HeaderMap) -> bool {
    let parameters = || headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().split(';').skip(1);
    let is_utf8 = |parameter: &str| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8"),
        _ => true,
    };
    is_form(headers) && parameters().all(is_utf8) && !headers.contains_key(CONTENT_ENCODING)
}

fn one(named: Named) -> Option<Names> {
    match named {
        Named::One(names) => Some(names),
        Named::Nothing | Named::Several(..) => None,
    }
}

fn conflict(kind: &'static str, name: &[u8], one: &[u8], other: &[u8]) -> Ambiguity {
    let text = |bytes: &[u8]| shown(&String::from_utf8_lossy(bytes));
    let name = text(name);
    Ambiguity::new(kind, format_args!("{name} is {:?}", text(one)), format_args!("{name} is {:?}", text(other)))
}

fn quoted(text: &str) -> String {
    format!("{:?} names it", shown(text))
}

fn the_path(names: &Names) -> String {
    names.first().map_or_else(String::new, |operation| format!("method and path name {operation}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use http::HeaderValue;

    use super::*;

    /// A request to read.
    #[derive(Clone)]
    pub(crate) struct Sample<'a> {
        pub(crate) service: Option<&'a str>,
        pub(crate) host: &'a str,
        pub(crate) method: &'a str,
        pub(crate) target: &'a str,
        pub(crate) headers: &'a [(&'static str, &'a str)],
        pub(crate) body: Body<'a>,
        pub(crate) of_customer: bool,
    }

    impl Default for Sample<'_> {
        fn default() -> Self {
            Self { service: None, host: "h", method: "GET", target: "/", headers: &[], body: Body::Whole(b""), of_customer: false }
        }
    }

    impl Sample<'_> {
        pub(crate) fn call(&self) -> Result<Call, Ambiguity> {
            let knowledge = Knowledge::shipped().unwrap();
            let mut headers = HeaderMap::new();
            for (name, value) in self.headers {
                headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
            }
            let service: Option<Arc<str>> = self.service.map(Arc::from);
            Call::read(&Source {
                knowledge: &knowledge,
                host: self.host,
                service: service.as_ref(),
                style: self.service.map_or(Style::Generic, super::super::style_of),
                query_plus: QueryPlus::Blank,
                of_customer: self.of_customer,
                may_hold_bucket: false,
                method: &self.method.parse().unwrap(),
                target: self.target,
                headers: &headers,
                body: self.body,
            })
        }

        /// The operation, `?` for unknown, `-` for none, or the kind of ambiguity.
        fn read(&self) -> String {
            match self.call() {
                Ok(Call { operation: Part::Known(names), .. }) => names.first().unwrap().to_string(),
                Ok(Call { operation: Part::Absent, .. }) => "-".into(),
                Ok(Call { operation: Part::Unknown(_), .. }) => "?".into(),
                Err(ambiguity) => ambiguity.kind.into(),
            }
        }
    }

    const FORM: &[(&str, &str)] = &[("content-type", "application/x-www-form-urlencoded")];

    #[test]
    fn every_protocol() {
        let s3 = "s3.eu-west-1.amazonaws.com";
        let bucket = "b.s3.eu-west-1.amazonaws.com";
        let control = "1.s3-control.eu-west-1.amazonaws.com";
        for (service, host, method, target, headers, expected) in [
            ("dynamodb", "dynamodb.x", "POST", "/", &[("x-amz-target", "DynamoDB_20120810.PutItem")][..], "dynamodb:PutItem"),
            ("dynamodb", "dynamodb.x", "POST", "/", &[("x-amz-target", "DynamoDB_20120810.Nope")], "?"),
            ("dynamodb", "dynamodb.x", "POST", "/", &[("x-amz-target", "nonsense")], "?"),
            ("dynamodb", "dynamodb.x", "POST", "/", &[], "?"),
            ("ec2", "ec2.x", "GET", "/?Action=DescribeInstances&Version=1", &[], "ec2:DescribeInstances"),
            ("ec2", "ec2.x", "GET", "/?%41ction=Describe%49nstances", &[], "ec2:DescribeInstances"),
            ("lambda", "lambda.x", "POST", "/2015-03-31/functions/f/invocations", &[], "lambda:Invoke"),
            ("lambda", "lambda.x", "POST", "/2015-03-31/%66unctions/f/invocations", &[], "lambda:Invoke"),
            (
                "monitoring",
                "monitoring.x",
                "POST",
                "/service/GraniteServiceVersion20100801/operation/ListMetrics",
                &[],
                "cloudwatch:ListMetrics",
            ),
            ("s3", s3, "GET", "/", &[], "s3:ListBuckets"),
            ("s3", s3, "GET", "/b", &[], "s3:ListObjects"),
            ("s3", s3, "GET", "/b/", &[], "s3:ListObjects"),
            ("s3", s3, "GET", "/b?list-type=2&prefix=x", &[], "s3:ListObjectsV2"),
            ("s3", s3, "GET", "/b/a//b/", &[], "s3:GetObject"),
            ("s3", s3, "DELETE", "/b/service/x/operation/y", &[], "s3:DeleteObject"),
            ("s3", bucket, "GET", "/", &[], "s3:ListObjects"),
            ("s3", bucket, "GET", "/k/l", &[], "s3:GetObject"),
            ("s3", bucket, "GET", "//k", &[], "s3:GetObject"),
            ("s3", bucket, "PUT", "/k?partNumber=1&uploadId=x", &[], "s3:UploadPart"),
            ("s3", bucket, "PUT", "/k", &[("x-amz-copy-source", "/a/b")], "s3:CopyObject"),
            ("s3", bucket, "PUT", "/k?partNumber=1&uploadId=x", &[("x-amz-copy-source", "/a/b")], "s3:UploadPartCopy"),
            ("s3", bucket, "HEAD", "/", &[], "s3:HeadBucket"),
            ("s3", bucket, "GET", "/?lifecycle", &[], "s3:GetBucketLifecycleConfiguration"),
            ("s3", bucket, "GET", "/k?x-id=GetObject", &[], "s3:GetObject"),
            ("s3", "x.s3-control.y.s3.us-east-1.amazonaws.com", "DELETE", "/k", &[], "s3:DeleteObject"),
            ("s3express", "b--x-s3.s3express-use1-az4.us-east-1.amazonaws.com", "DELETE", "/k", &[], "s3:DeleteObject"),
            ("s3", control, "GET", "/v20180820/jobs", &[("x-amz-account-id", "1")], "s3control:ListJobs"),
            ("nope", "nope.x", "GET", "/", &[], "?"),
        ] {
            let sample = Sample { service: Some(service), host, method, target, headers, ..Sample::default() };
            assert_eq!(sample.read(), expected, "{method} {host}{target} {headers:?}");
        }
        assert_eq!(Sample { method: "POST", ..Sample::default() }.read(), "-");
    }

    #[test]
    fn a_call_that_is_named_twice() {
        let s3 = "b.s3.eu-west-1.amazonaws.com";
        let target = |target| [("x-amz-target", target)];
        for (service, host, method, path, headers, expected) in [
            ("s3", s3, "DELETE", "/k", &target(".GetObject")[..], "target"),
            (
                "dynamodb",
                "dynamodb.x",
                "POST",
                "/",
                &[("x-amz-target", "DynamoDB_20120810.GetItem"), ("x-amz-target", "DynamoDB_20120810.PutItem")],
                "target",
            ),
            ("sqs", "sqs.x", "POST", "/?Action=DeleteQueue", &target("AmazonSQS.ListQueues"), "target"),
            ("sqs", "sqs.x", "POST", "/?Action=ListQueues", &target("AmazonSQS.ListQueues"), "sqs:ListQueues"),
            ("sqs", "sqs.x", "POST", "/?Action=ListQueues", &target("A.B"), "target"),
            ("sqs", "sqs.x", "POST", "/?Action=ListQueues&Action=DeleteQueue", &[], "query"),
            ("sqs", "sqs.x", "GET", "/?action=DeleteQueue&Action=ListQueues", &[], "?"),
            (
                "monitoring",
                "monitoring.x",
                "POST",
                "/service/GraniteServiceVersion20100801/operation/ListMetrics",
                &target("GraniteServiceVersion20100801.DeleteAlarms"),
                "target",
            ),
            ("lambda", "lambda.x", "GET", "/2015-03-31/functions/", &target("A.DeleteFunction"), "target"),
            ("s3", s3, "GET", "/?acl&policy", &[], "query"),
            ("s3", s3, "GET", "/?list-type=2&policy", &[], "query"),
            ("s3", s3, "PUT", "/k?acl", &[("x-amz-copy-source", "a/b")], "query"),
            ("s3", s3, "PUT", "/k", &[("x-amz-copy-source", "a/b"), ("x-amz-copy-source", "c/d")], "header"),
            ("s3", s3, "GET", "/?prefix=a&prefix=b", &[], "query"),
            ("s3", s3, "GET", "/?list-type=1&list-type=2", &[], "query"),
            ("s3", s3, "GET", "/k?x-id=DeleteObject", &[], "query"),
            ("s3", s3, "GET", "/k", &[("x-http-method-override", "DELETE")], "method"),
        ] {
            let sample = Sample { service: Some(service), host, method, target: path, headers, ..Sample::default() };
            assert_eq!(sample.read(), expected, "{method} {host}{path} {headers:?}");
        }
    }

    #[test]
    fn what_a_form_names() {
        let padded = format!("{}&Action=DeleteQueue", "x=y&".repeat(5000));
        let types = |content_type| [("content-type", content_type)];
        for (target, headers, body, expected) in [
            ("/", FORM, "Version=1&Action=ListQueues", "sqs:ListQueues"),
            ("/", FORM, "Action=Delete%51ueue", "sqs:DeleteQueue"),
            ("/", FORM, &padded, "sqs:DeleteQueue"),
            ("/?Action=ListQueues", FORM, "Action=DeleteQueue", "form"),
            ("/?Action=ListQueues", FORM, "x=y", "sqs:ListQueues"),
            ("/", FORM, "Action=ListQueues&Action=DeleteQueue", "form"),
            ("/", FORM, "Action=ListQueues&Action=List%51ueues", "sqs:ListQueues"),
            ("/", FORM, "ACTION=DeleteQueue&Action=ListQueues", "?"),
            ("/", FORM, "x=y;Action=DeleteQueue&Action=ListQueues", "?"),
            ("/", FORM, "\u{feff}Action=DeleteQueue&Action=ListQueues", "?"),
            ("/", FORM, "Action=Nope", "?"),
            ("/", FORM, "", "?"),
            ("/", &[], "Action=ListQueues", "?"),
            ("/?Action=ListQueues", &[], "Action=DeleteQueue", "?"),
            ("/", &types("text/plain"), "Action=ListQueues", "?"),
            ("/", &types("application/x-www-form-urlencoded; charset=UTF-8"), "Action=ListQueues", "sqs:ListQueues"),
            ("/", &types("Application/X-WWW-Form-URLencoded"), "Action=ListQueues", "sqs:ListQueues"),
            ("/", &types("application/x-www-form-urlencoded; charset=utf-16"), "Action=ListQueues", "?"),
            ("/", &[FORM[0], ("content-encoding", "gzip")], "Action=ListQueues", "?"),
            ("/", &[FORM[0], ("x-amz-target", "AmazonSQS.ListQueues")], "Action=DeleteQueue", "target"),
            ("/", &[("x-amz-target", "AmazonSQS.ListQueues")], "{}", "sqs:ListQueues"),
        ] {
            let body = Body::Whole(body.as_bytes());
            let sample = Sample {
                service: Some("sqs"),
                host: "sqs.us-east-1.amazonaws.com",
                method: "POST",
                target,
                headers,
                body,
                ..Sample::default()
            };
            assert_eq!(sample.read(), expected, "{target} {headers:?}");
        }
        let unread = Sample { service: Some("sqs"), method: "POST", headers: FORM, body: Body::Pending, ..Sample::default() };
        assert!(unread.call().unwrap().needs_body);
        let unread = Sample { service: Some("sqs"), method: "POST", headers: FORM, body: Body::Unreadable, ..Sample::default() };
        assert_eq!((unread.read(), unread.call().unwrap().needs_body), ("?".into(), false));
    }

    #[test]
    fn paths_that_servers_may_read_otherwise() {
        let host = "lambda.us-east-1.amazonaws.com";
        for (method, target, expected) in [
            ("GET", "/2015-03-31/functions/", "lambda:ListFunctions"),
            ("GET", "//2015-03-31/functions/", "?"),
            ("GET", "/2015-03-31//functions/", "?"),
            ("GET", "/2015-03-31/x/../functions/", "?"),
            ("GET", "/2015-03-31/%2e%2e/2015-03-31/functions/", "?"),
            ("GET", "/2015-03-31%2Ffunctions/", "?"),
            ("DELETE", "/2015-03-31/functions/f", "lambda:DeleteFunction"),
            ("DELETE", "/2015-03-31/functions/arn:aws:lambda:us-east-1:1:function:f", "lambda:DeleteFunction"),
            ("DELETE", "/2015-03-31/functions/arn%3aaws%3Alambda%3Aus-east-1%3A1%3Afunction%3Af", "lambda:DeleteFunction"),
            ("DELETE", "/2015-03-31/functions/../functions/f", "?"),
        ] {
            assert_eq!(Sample { service: Some("lambda"), host, method, target, ..Sample::default() }.read(), expected, "{method} {target}");
        }
        let tags = "/tags/arn%3Aaws%3Aeks%3Aus-east-1%3A1%3Acluster%2Fc";
        let eks = Sample { service: Some("eks"), host: "eks.us-east-1.amazonaws.com", target: tags, ..Sample::default() };
        assert_eq!(eks.read(), "eks:ListTagsForResource");
        assert_eq!(eks.call().unwrap().target, tags);
    }

    #[test]
    fn paths_of_s3_control_are_no_keys() {
        let sample = Sample {
            service: Some("s3"),
            host: "1.s3-control.us-east-1.amazonaws.com",
            headers: &[("x-amz-account-id", "1")],
            ..Sample::default()
        };
        for (target, expected) in [
            ("/v20180820/mrap/instances/x/policy", "s3control:GetMultiRegionAccessPointPolicy"),
            ("/v20180820/mrap/instances/x/policy//", "?"),
            ("/v20180820/nothing", "?"),
        ] {
            assert_eq!(Sample { target, ..sample.clone() }.read(), expected, "{target}");
        }
    }

    #[test]
    fn what_it_touches() {
        let touched = |host, method, target, headers: &[(&'static str, &str)]| {
            let call = Sample { service: Some("s3"), host, method, target, headers, ..Sample::default() }.call().unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let object = |object: &s3::Object| {
                let bucket = match &object.bucket {
                    Bucket::Named(name) => name.to_string(),
                    Bucket::AccessPoint(label) => format!("@{label}"),
                    Bucket::Unknown => "?".into(),
                };
                match &object.key {
                    Key::Exact(key) => format!("{bucket}/{}", text(key)),
                    Key::Prefix(prefix) => format!("{bucket}/{}*", text(prefix)),
                    Key::Unknown => format!("{bucket}/?"),
                }
            };
            call.objects.iter().map(object).collect::<Vec<_>>().join(" ")
        };
        let (s3, own) = ("s3.eu-west-1.amazonaws.com", "b.s3.eu-west-1.amazonaws.com");
        for (host, method, target, headers, expected) in [
            (s3, "GET", "/", &[][..], ""),
            (s3, "GET", "/b", &[], "b/*"),
            (s3, "GET", "/b?prefix=a%2fb+c", &[], "b/a/b c*"),
            (s3, "GET", "/%62%2Fa%20k", &[], "b/a k"),
            (s3, "GET", "/b/../c", &[], "b/../c"),
            (s3, "GET", "//b/k", &[], "?/?"),
            (s3, "GET", "/../b/k", &[], "?/b/k"),
            (s3, "PATCH", "/b/k", &[], "b/k ?/?"),
            (s3, "POST", "/b?delete", &[], "b/?"),
            (own, "GET", "//k", &[], "b//k"),
            (own, "PUT", "/k", &[("x-amz-copy-source", "c/x")], "b/k c/x"),
            (own, "GET", "/k", &[("x-amz-copy-source", "c/x")], "b/k"),
            ("ap-1.s3-accesspoint.eu-west-1.amazonaws.com", "GET", "/k", &[], "@ap-1/k"),
            ("x-abc-s3alias.s3.eu-west-1.amazonaws.com", "GET", "/k", &[], "?/?"),
            (s3, "GET", "/x-abc-s3alias/k", &[], "@x-abc-s3alias/k"),
        ] {
            let expected = if host.starts_with("x-abc") { "@x-abc-s3alias/k" } else { expected };
            assert_eq!(touched(host, method, target, headers), expected, "{method} {host}{target}");
        }
    }

    #[test]
    fn a_hostile_path_ends() {
        let path = format!("/v1/{}", "arn:x/".repeat(2000));
        for service in ["s3", "bedrock", "lambda", "kafka", "apigateway"] {
            let _ = Sample { service: Some(service), target: &path, ..Sample::default() }.call();
        }
    }
}
