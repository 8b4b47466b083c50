//! Which operation is this request? Answered from a table that `python -m sigward.knowledge` makes of botocore's models.
//!
//! Layout, all little-endian: magic `SIGWARDK`, u16 version, u32 length and SHA-256 of what follows; then the source, and
//! services with their operations. A text is a u16 and its UTF-8 bytes; a list is a u16 and its items. Services that share a
//! signing name are looked through together; the host tells them apart where it can. A look-up allocates nothing.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, OnceLock};

use http::HeaderMap;
use sha2::{Digest, Sha256};

use crate::recognise::table::{HostRow, HostScope, Hosts};
use crate::recognise::{Variant, bucket_in_host};
use crate::refuse::Shape;

const MAGIC: &[u8] = b"SIGWARDK";
const VERSION: u16 = 3;
const TOKEN: u8 = 32;
const SHIPPED: &[u8] = include_bytes!("../data/knowledge.bin");

const REST: u8 = 4 | 8;
const QUERY: u8 = 16 | 32;
const CBOR: u8 = 64;

/// Steps that one look-up may take in the tree of paths; hostile paths end there.
const BUDGET: u32 = 4096;

/// One operation of one service.
#[derive(Debug, PartialEq, Eq)]
pub struct Operation {
    /// botocore's name of the service, e.g. `s3control`.
    pub service: Arc<str>,
    /// E.g. `PutItem`.
    pub name: Box<str>,
    flags: u8,
    query: Box<[Required]>,
    headers: Box<[Box<str>]>,
    token: Option<Box<str>>,
    errors: Errors,
}

/// A service's errors by code, sorted, as far as repeats are concerned.
type Errors = Arc<[(Box<str>, ErrorKind)]>;

/// What a service's model says of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A repeat may help.
    Transient,
    /// Too many calls.
    Throttling,
    /// It comes as a 429, and no repeat helps.
    Final,
}

impl ErrorKind {
    fn of(byte: u8) -> Option<Self> {
        [Self::Transient, Self::Throttling, Self::Final].get(usize::from(byte.checked_sub(1)?)).copied()
    }
}

/// A parameter that must be there, and its value where that must be this.
type Required = (Box<str>, Option<Box<str>>);

impl Operation {
    /// It takes no signature.
    pub fn unsigned(&self) -> bool {
        self.flags & 1 != 0
    }

    /// It changes nothing.
    pub fn read_only(&self) -> bool {
        self.flags & 2 != 0
    }

    /// Twice is as good as once.
    pub fn idempotent(&self) -> bool {
        self.flags & 4 != 0
    }

    /// Its request, or its answer, is a stream.
    pub fn streaming(&self) -> (bool, bool) {
        (self.flags & 8 != 0, self.flags & 16 != 0)
    }

    /// It has a member for an idempotency token.
    pub fn takes_token(&self) -> bool {
        self.flags & TOKEN != 0
    }

    /// The idempotency token's name in a JSON or form body.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// What the service's model says of an error.
    pub fn error(&self, code: &str) -> Option<ErrorKind> {
        let at = self.errors.binary_search_by(|(known, _)| (**known).cmp(code)).ok()?;
        self.errors.get(at).map(|(_, kind)| *kind)
    }

    fn deprecated(&self) -> bool {
        self.flags & 64 != 0
    }

    /// How closely it fits, if it does: fixed values, then all that must be there, then what is not deprecated.
    fn rank(&self) -> (usize, usize, bool) {
        let fixed = self.query.iter().filter(|(_, value)| value.is_some()).count();
        (fixed, self.query.len() + self.headers.len(), !self.deprecated())
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}:{}", self.service, self.name)
    }
}

/// What is looked at of a request.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The service in the scope.
    pub signing_name: &'a str,
    /// Lower-case.
    pub host: &'a str,
    /// The method.
    pub method: &'a str,
    /// Origin-form, as sent, with query.
    pub path: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body's beginning, where it is a form's.
    pub form: Option<&'a [u8]>,
}

#[derive(Debug)]
struct Service {
    endpoint_prefix: Box<str>,
    target_prefix: Box<str>,
    api_version: Box<str>,
    protocols: u8,
    /// Sorted by name.
    operations: Vec<Arc<Operation>>,
}

/// The services that share a signing name.
#[derive(Debug, Default)]
struct Group {
    services: Vec<Service>,
    /// By method: the root.
    roots: Table<u32>,
    nodes: Vec<Node>,
}

/// A segment of path templates. Leaves: (service, operation) by their places in the group.
#[derive(Debug, Default)]
struct Node {
    literals: Vec<(Box<str>, u32)>,
    /// A label between literal text: (before, after, child).
    partial: Vec<(Box<str>, Box<str>, u32)>,
    label: Option<u32>,
    greedy: Option<u32>,
    leaves: Vec<(u32, u32)>,
}

/// The table. See the module.
#[derive(Debug)]
pub struct Knowledge {
    /// What it was made of, e.g. `botocore 1.44.5`.
    pub source: Box<str>,
    groups: Table<Group>,
    pub(crate) hosts: Hosts,
}

/// The keys are the table's own, so that nobody can choose ones that collide.
type Table<T> = HashMap<Box<str>, T, BuildHasherDefault<Fnv>>;

/// FNV-1a (Fowler, Noll, Vo): the fastest for keys of a few dozen bytes.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Knowledge {
    /// The table that sigward ships with.
    pub fn shipped() -> Result<Arc<Self>, String> {
        table().clone()
    }

    /// Reads a table. The error says what is wrong with it and how to get a good one.
    pub fn load(table: &[u8]) -> Result<Self, String> {
        let damaged = || "knowledge: the table is damaged; make it anew with `python -m sigward.knowledge`".to_owned();
        let mut header = Reader(table);
        if header.take(MAGIC.len()) != Some(MAGIC) {
            return Err("knowledge: this is not a table of sigward's; `python -m sigward.knowledge` makes one".into());
        }
        let version = header.u16().ok_or_else(damaged)?;
        if version != VERSION {
            return Err(format!("knowledge: the table has version {version}, this sigward reads {VERSION}; make it with this sigward"));
        }
        let length = header.u32().ok_or_else(damaged)?;
        let checksum = header.take(32).ok_or_else(damaged)?;
        if header.0.len() as u64 != u64::from(length) || Sha256::digest(header.0).as_slice() != checksum {
            return Err(damaged());
        }
        Self::read(&mut header).ok_or_else(damaged)
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let source = from.text()?.into();
        let mut groups: Table<Group> = Table::default();
        for _ in 0..from.u16()? {
            let name: Arc<str> = from.text()?.into();
            let group = groups.entry(from.text()?.into()).or_default();
            let (endpoint_prefix, target_prefix, api_version) = (from.text()?.into(), from.text()?.into(), from.text()?.into());
            let mut errors = Vec::new();
            for _ in 0..from.u16()? {
                errors.push((from.text()?.into(), ErrorKind::of(from.u8()?)?));
            }
            let errors: Errors = errors.into();
            let (protocols, count) = (from.u8()?, from.u16()?);
            let at = group.services.len() as u32;
            let mut operations = Vec::with_capacity(count.into());
            for number in 0..u32::from(count) {
                let (operation, flags, method, path) = (from.text()?.into(), from.u8()?, from.text()?, from.text()?);
                let mut query = Vec::new();
                for _ in 0..from.u16()? {
                    let (key, has_value, value) = (from.text()?, from.u8()?, from.text()?);
                    query.push((key.into(), (has_value != 0).then(|| value.into())));
                }
                let mut headers = Vec::new();
                for _ in 0..from.u16()? {
                    headers.push(from.text()?.into());
                }
                let token = if flags & TOKEN == 0 { "" } else { from.text()? };
                let token = (!token.is_empty()).then(|| token.into());
                let (service, query, headers, errors) = (Arc::clone(&name), query.into(), headers.into(), Arc::clone(&errors));
                operations.push(Arc::new(Operation { service, name: operation, flags, query, headers, token, errors }));
                if protocols & REST != 0 {
                    group.insert(method, path, (at, number))?;
                }
            }
            group.services.push(Service { endpoint_prefix, target_prefix, api_version, protocols, operations });
        }
        let mut rows = Vec::new();
        for _ in 0..from.u16()? {
            let (pattern, deviates) = (from.text()?.into(), from.u8()? != 0);
            let mut scopes = Vec::new();
            for _ in 0..from.u16()? {
                let (signing_name, region) = (from.text()?.into(), from.text()?.into());
                scopes.push(HostScope { signing_name, region, variant: Variant::of(from.u8()?)? });
            }
            rows.push(HostRow { pattern, deviates, scopes: scopes.into() });
        }
        from.0.is_empty().then(|| Self { source, groups, hosts: Hosts::new(rows) })
    }

    /// The operation that a request is. `None`: the table does not tell.
    pub fn operation(&self, call: &Call<'_>) -> Option<&Arc<Operation>> {
        let group = self.groups.get(call.signing_name)?;
        if let Some(target) = call.headers.get("x-amz-target") {
            let (prefix, name) = target.to_str().ok()?.rsplit_once('.')?;
            return group.named(name, call.host, |service| *service.target_prefix == *prefix);
        }
        let (path, query) = call.path.split_once('?').unwrap_or((call.path, ""));
        if let Some((_, name)) = path.strip_prefix("/service/").and_then(|rest| rest.split_once("/operation/")) {
            return group.named(name, call.host, |service| service.protocols & CBOR != 0);
        }
        group.rest(call, path, query).or_else(|| {
            let given = |name: &[u8]| parameter(query.as_bytes(), name).or_else(|| parameter(call.form?, name));
            let action = std::str::from_utf8(given(b"Action")?).ok()?;
            let version = given(b"Version").unwrap_or_default();
            let speaks = |service: &Service| service.protocols & QUERY != 0;
            // Services that share a host, such as the two of load balancers, differ in their versions.
            let exact = group.named(action, call.host, |service| speaks(service) && service.api_version.as_bytes() == version);
            exact.or_else(|| group.named(action, call.host, speaks))
        })
    }

    /// An operation by its names; `service`: botocore's.
    pub fn named(&self, signing_name: &str, service: &str, name: &str) -> Option<&Arc<Operation>> {
        let services = &self.groups.get(signing_name)?.services;
        services.iter().filter_map(|known| known.named(name)).find(|found| *found.service == *service)
    }

    /// The shape of errors, where all services of a signing name speak one protocol.
    pub fn shape(&self, signing_name: &str) -> Option<Shape> {
        let group = self.groups.get(signing_name)?;
        Shape::only(group.services.iter().fold(0, |all, service| all | service.protocols))
    }

    /// All of them: (signing name, operation).
    pub fn operations(&self) -> impl Iterator<Item = (&str, &Arc<Operation>)> {
        self.groups.iter().flat_map(|(name, group)| {
            group.services.iter().flat_map(move |service| service.operations.iter().map(move |operation| (&**name, operation)))
        })
    }
}

fn table() -> &'static Result<Arc<Knowledge>, String> {
    static SHARED: OnceLock<Result<Arc<Knowledge>, String>> = OnceLock::new();
    SHARED.get_or_init(|| Knowledge::load(SHIPPED).map(Arc::new))
}

impl Service {
    fn named(&self, name: &str) -> Option<&Arc<Operation>> {
        let at = self.operations.binary_search_by(|operation| (*operation.name).cmp(name)).ok()?;
        self.operations.get(at)
    }

    /// True if the host bears this service's prefix: `runtime.sagemaker.…`, `bucket.s3.…`, `batch-fips.…`.
    fn is_named_by(&self, host: &str) -> bool {
        let prefix = &*self.endpoint_prefix;
        let host = host.strip_prefix("fips.").unwrap_or(host);
        let ends = |rest: &str| rest.starts_with('.') || rest.starts_with("-fips.");
        host.strip_prefix(prefix).is_some_and(ends)
            || host
                .match_indices(prefix)
                .any(|(at, _)| at > 0 && host.as_bytes().get(at - 1) == Some(&b'.') && host.get(at + prefix.len()..).is_some_and(ends))
    }
}

impl Group {
    /// The operation of this name: of the service that the host names, else of the first.
    fn named(&self, name: &str, host: &str, fits: impl Fn(&Service) -> bool) -> Option<&Arc<Operation>> {
        let mut first = None;
        for service in self.services.iter().filter(|service| fits(service)) {
            let Some(found) = service.named(name) else { continue };
            if service.is_named_by(host) {
                return Some(found);
            }
            first = first.or(Some(found));
        }
        first
    }

    fn insert(&mut self, method: &str, path: &str, leaf: (u32, u32)) -> Option<()> {
        let mut at = if let Some(root) = self.roots.get(method) {
            *root
        } else {
            let root = self.add();
            self.roots.insert(method.into(), root);
            root
        };
        for segment in path.split('/').skip(1).filter(|segment| !segment.is_empty()) {
            let fresh = self.nodes.len() as u32;
            let node = self.nodes.get_mut(at as usize)?;
            let next = if let (Some(open), Some(close)) = (segment.find('{'), segment.rfind('}')) {
                let (before, after) = (segment.get(..open)?, segment.get(close + 1..)?);
                if before.is_empty() && after.is_empty() {
                    let child = if segment.ends_with("+}") { &mut node.greedy } else { &mut node.label };
                    *child.get_or_insert(fresh)
                } else if let Some((_, _, child)) = node.partial.iter().find(|(head, tail, _)| **head == *before && **tail == *after) {
                    *child
                } else {
                    node.partial.push((before.into(), after.into(), fresh));
                    fresh
                }
            } else {
                match node.literals.binary_search_by(|(literal, _)| (**literal).cmp(segment)) {
                    Ok(place) => node.literals.get(place)?.1,
                    Err(place) => {
                        node.literals.insert(place, (segment.into(), fresh));
                        fresh
                    }
                }
            };
            if next == fresh {
                self.add();
            }
            at = next;
        }
        self.nodes.get_mut(at as usize)?.leaves.push(leaf);
        Some(())
    }

    fn add(&mut self) -> u32 {
        self.nodes.push(Node::default());
        self.nodes.len() as u32 - 1
    }

    fn rest(&self, call: &Call<'_>, path: &str, query: &str) -> Option<&Arc<Operation>> {
        let mut root = *self.roots.get(call.method)?;
        if matches!(call.signing_name, "s3" | "s3express") && bucket_in_host(call.host).is_some() {
            root = self.nodes.get(root as usize)?.label?;
        }
        let rest = path.strip_prefix('/')?;
        // Services that the host names come first; where one label of a path may hold an ARN's slashes, last.
        let named = self.services.iter().any(|service| service.is_named_by(call.host));
        let passes = [(named, false), (named, true), (false, false), (false, true)];
        passes.iter().skip(if named { 0 } else { 2 }).find_map(|&(only_named, arns)| {
            let mut search = Search { group: self, call, query, only_named, arns, budget: BUDGET };
            search.walk(root, rest)
        })
    }
}

struct Search<'a, 'b> {
    group: &'a Group,
    call: &'b Call<'b>,
    query: &'b str,
    only_named: bool,
    arns: bool,
    budget: u32,
}

impl<'a> Search<'a, '_> {
    /// `rest`: the path from here on; empty: it ends here (a slash at the end counts for nothing).
    fn walk(&mut self, at: u32, rest: &str) -> Option<&'a Arc<Operation>> {
        self.budget = self.budget.checked_sub(1)?;
        let node = self.group.nodes.get(at as usize)?;
        if rest.is_empty() {
            return self.leaf(node);
        }
        let (segment, after) = rest.split_once('/').unwrap_or((rest, ""));
        if let Ok(place) = node.literals.binary_search_by(|(literal, _)| (**literal).cmp(segment))
            && let Some((_, child)) = node.literals.get(place)
            && let Some(found) = self.walk(*child, after)
        {
            return Some(found);
        }
        for (before, tail, child) in &node.partial {
            if segment.len() > before.len() + tail.len()
                && segment.starts_with(&**before)
                && segment.ends_with(&**tail)
                && let Some(found) = self.walk(*child, after)
            {
                return Some(found);
            }
        }
        if let Some(child) = node.label
            && !segment.is_empty()
        {
            if let Some(found) = self.walk(child, after) {
                return Some(found);
            }
            if self.arns && (segment.starts_with("arn:") || segment.starts_with("arn%3A")) {
                let found = self.each_split(child, rest);
                if found.is_some() {
                    return found;
                }
            }
        }
        self.each_split(node.greedy?, rest)
    }

    /// Lets a label that holds slashes end at each of them, then at the path's end: what is told by what follows comes first.
    fn each_split(&mut self, child: u32, rest: &str) -> Option<&'a Arc<Operation>> {
        let node = self.group.nodes.get(child as usize)?;
        // With nothing below, an end before the end cannot match.
        let ends_there = node.literals.is_empty() && node.partial.is_empty() && node.label.is_none() && node.greedy.is_none();
        let mut slashes = rest.rmatch_indices('/').take(if ends_there { 0 } else { usize::MAX });
        let split = slashes.find_map(|(slash, _)| self.walk(child, rest.get(slash + 1..).filter(|rest| !rest.is_empty())?));
        split.or_else(|| self.walk(child, ""))
    }

    fn leaf(&self, node: &'a Node) -> Option<&'a Arc<Operation>> {
        let candidates = node.leaves.iter().filter_map(|(service, operation)| {
            let service = self.group.services.get(*service as usize)?;
            Some((service, service.operations.get(*operation as usize)?))
        });
        let fitting =
            candidates.filter(|(service, operation)| (!self.only_named || service.is_named_by(self.call.host)) && self.holds(operation));
        let best = fitting.reduce(|best, next| if next.1.rank() > best.1.rank() { next } else { best });
        best.map(|(_, operation)| operation)
    }

    fn holds(&self, operation: &Operation) -> bool {
        operation.headers.iter().all(|name| {
            if let Some(prefix) = name.strip_suffix('*') {
                self.call.headers.keys().any(|key| key.as_str().starts_with(prefix))
            } else {
                self.call.headers.contains_key(&**name)
            }
        }) && operation.query.iter().all(|(key, expected)| {
            let given = parameter(self.query.as_bytes(), key.as_bytes());
            given.is_some_and(|given| expected.as_ref().is_none_or(|expected| given == expected.as_bytes()))
        })
    }
}

/// The raw value of a parameter of a query or a form; of a key alone, nothing.
pub(crate) fn parameter<'a>(pairs: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    pairs.split(|byte| *byte == b'&').find_map(|pair| match pair.strip_prefix(name)? {
        [] => Some(&b""[..]),
        [b'=', value @ ..] => Some(value),
        _ => None,
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.u16()?;
        std::str::from_utf8(self.take(length.into())?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(
        signing_name: &str,
        host: &str,
        method: &str,
        path: &str,
        headers: &[(&'static str, &'static str)],
        form: &str,
    ) -> Option<String> {
        let headers =
            headers.iter().map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))).collect();
        let call = Call { signing_name, host, method, path, headers: &headers, form: Some(form.as_bytes()) };
        let table = Knowledge::shipped().unwrap();
        table.operation(&call).map(ToString::to_string)
    }

    #[test]
    fn every_protocol() {
        let s3 = "s3.eu-west-1.amazonaws.com";
        let bucket = "b.s3.eu-west-1.amazonaws.com";
        for (service, host, method, path, headers, form, expected) in [
            ("dynamodb", "dynamodb.x", "POST", "/", &[("x-amz-target", "DynamoDB_20120810.PutItem")][..], "", Some("dynamodb:PutItem")),
            ("dynamodb", "dynamodb.x", "POST", "/", &[("x-amz-target", "DynamoDB_20120810.Nope")], "", None),
            ("dynamodb", "dynamodb.x", "POST", "/", &[("x-amz-target", "nonsense")], "", None),
            ("sts", "sts.x", "POST", "/", &[], "Version=1&Action=GetCallerIdentity", Some("sts:GetCallerIdentity")),
            ("ec2", "ec2.x", "GET", "/?Action=DescribeInstances&Version=1", &[], "", Some("ec2:DescribeInstances")),
            ("lambda", "lambda.x", "POST", "/2015-03-31/functions/f/invocations", &[], "", Some("lambda:Invoke")),
            (
                "monitoring",
                "monitoring.x",
                "POST",
                "/service/GraniteServiceVersion20100801/operation/ListMetrics",
                &[],
                "",
                Some("cloudwatch:ListMetrics"),
            ),
            ("s3", s3, "GET", "/", &[], "", Some("s3:ListBuckets")),
            ("s3", s3, "GET", "/b", &[], "", Some("s3:ListObjects")),
            ("s3", s3, "GET", "/b/", &[], "", Some("s3:ListObjects")),
            ("s3", s3, "GET", "/b?list-type=2&prefix=x", &[], "", Some("s3:ListObjectsV2")),
            ("s3", s3, "GET", "/b/a//b/", &[], "", Some("s3:GetObject")),
            ("s3", bucket, "GET", "/", &[], "", Some("s3:ListObjects")),
            ("s3", bucket, "GET", "/k/l", &[], "", Some("s3:GetObject")),
            ("s3", bucket, "GET", "//k", &[], "", Some("s3:GetObject")),
            ("s3", bucket, "PUT", "/k?partNumber=1&uploadId=x", &[], "", Some("s3:UploadPart")),
            ("s3", bucket, "PUT", "/k", &[("x-amz-copy-source", "/a/b")], "", Some("s3:CopyObject")),
            ("s3", bucket, "HEAD", "/", &[], "", Some("s3:HeadBucket")),
            (
                "s3",
                "1.s3-control.eu-west-1.amazonaws.com",
                "GET",
                "/v20180820/jobs",
                &[("x-amz-account-id", "1")],
                "",
                Some("s3control:ListJobs"),
            ),
            ("nope", "nope.x", "GET", "/", &[], "", None),
        ] {
            assert_eq!(name(service, host, method, path, headers, form).as_deref(), expected, "{method} {host}{path} {form}");
        }
    }

    #[test]
    fn unsigned_operations_are_those_of_the_models() {
        let table = Knowledge::shipped().unwrap();
        let mut unsigned: Vec<_> = table.operations().filter(|(_, operation)| operation.unsigned()).map(|(name, _)| name).collect();
        unsigned.sort_unstable();
        unsigned.dedup();
        assert_eq!(unsigned, ["awsssoportal", "cognito-identity", "cognito-idp", "signin", "sso-oauth", "sts"]);
    }

    #[test]
    fn a_damaged_or_newer_table_is_refused() {
        let change = |at: usize| {
            let mut table = SHIPPED.to_vec();
            table[at] ^= 1;
            Knowledge::load(&table).unwrap_err()
        };
        assert!(change(0).contains("not a table"));
        assert!(change(8).contains("version 2"));
        for at in [10, 20, 500, SHIPPED.len() - 1] {
            assert!(change(at).contains("damaged"), "{at}");
        }
        assert!(Knowledge::load(&SHIPPED[..SHIPPED.len() - 1]).unwrap_err().contains("damaged"));
        assert!(Knowledge::load(b"").unwrap_err().contains("not a table"));
    }

    #[test]
    fn a_hostile_path_ends() {
        let path = format!("/v1/{}", "arn:x/".repeat(2000));
        for service in ["s3", "bedrock", "lambda", "kafka", "apigateway"] {
            let _ = name(service, "x", "GET", &path, &[], "");
        }
    }
}
