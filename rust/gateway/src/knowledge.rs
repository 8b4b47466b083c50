//! What AWS's services and operations look like: a table that `python -m sigward.knowledge` makes of botocore's models.
//! Only [`Call`](crate::recognise::Call) asks it which operation a request is.
//!
//! Layout, all little-endian: magic `SIGWARDK`, u16 version, u32 length and SHA-256 of what follows; then the source, services
//! with their operations, hosts, and regions. A text is a u16 and its UTF-8 bytes; a list is a u16 and its items. Services that share a
//! signing name are looked through together; the host tells them apart where it can. A look-up allocates nothing.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, OnceLock};

use http::HeaderMap;
use sha2::{Digest, Sha256};
use smallvec::{SmallVec, smallvec};

use crate::recognise::Variant;
use crate::recognise::form::Query;
use crate::recognise::names_beside_the_table;
use crate::recognise::table::{HostRow, HostScope, Hosts};
use crate::refuse::Shape;

const MAGIC: &[u8] = b"SIGWARDK";
const VERSION: u16 = 5;
const TOKEN: u8 = 32;
const SHIPPED: &[u8] = include_bytes!("../data/knowledge.bin");

pub(crate) const JSON: u8 = 1 | 2;
pub(crate) const REST: u8 = 4 | 8;
pub(crate) const QUERY: u8 = 16 | 32;
pub(crate) const CBOR: u8 = 64;

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

    /// Of requests that fit both, none is `other` rather than this: it asks for each fixed value of a query that `other` asks for, and
    /// for more of them, or for every parameter and header too. Services choose by fixed values first.
    fn covers(&self, other: &Self) -> bool {
        let s3 = *self.service == *"s3";
        let fixed = |of: &Self, by: &Self| of.query.iter().filter(|(_, value)| value.is_some()).all(|pair| by.query.contains(pair));
        let has = |(key, value): &Required| self.query.iter().any(|(own, expected)| own == key && (value.is_none() || expected == value));
        let all = || other.query.iter().all(has) && other.headers.iter().all(|name| self.headers.contains(name));
        // S3 does not say whether `list-type=2` or `policy` counts, where both are there.
        if s3 { all() } else { fixed(other, self) && (!fixed(self, other) || all()) }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}:{}", self.service, self.name)
    }
}

/// Operations that a request can be called. The first speaks for it; the others are names for the same request: of models that
/// describe one API (`rds` and `docdb`), or deprecated ones.
pub type Names = SmallVec<[Arc<Operation>; 1]>;

/// What one part of a request names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// Nothing that the table has.
    Nothing,
    /// This.
    One(Names),
    /// Operations of different services, or with parameters that belong to different operations.
    Several(Arc<Operation>, Arc<Operation>),
}

/// A request to a REST service, as far as its operation depends on it.
#[derive(Clone, Copy)]
pub(crate) struct RestCall<'a, 'q> {
    pub(crate) host: &'a str,
    pub(crate) method: &'a str,
    /// Without query, in its one spelling.
    pub(crate) path: &'a str,
    pub(crate) query: &'a Query<'q>,
    pub(crate) headers: &'a HeaderMap,
    /// S3's alone: which of its services, and whether the host has the bucket.
    pub(crate) s3: Option<S3Place>,
}

/// Which of S3's APIs a host serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct S3Place {
    /// S3 Control, rather than S3.
    pub(crate) control: bool,
    /// S3 Express.
    pub(crate) express: bool,
    /// The bucket is in the host's name.
    pub(crate) bucket_in_host: bool,
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
pub(crate) struct Group {
    services: Vec<Service>,
    /// Bits of all of them.
    pub(crate) protocols: u8,
    /// Parameters of a query that tell operations apart by their value, such as `list-type`. Sorted.
    telling: Vec<Box<str>>,
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
    regions: NameSet,
    /// Signing names that hosts have and no model does.
    services: NameSet,
}

type NameSet = HashSet<Box<str>, BuildHasherDefault<Fnv>>;

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
            group.protocols |= protocols;
            group.services.push(Service { endpoint_prefix, target_prefix, api_version, protocols, operations });
        }
        for group in groups.values_mut() {
            let fixed = group.services.iter().flat_map(|service| &service.operations).flat_map(|operation| &operation.query);
            let mut telling: Vec<Box<str>> = fixed.filter(|(_, value)| value.is_some()).map(|(key, _)| key.clone()).collect();
            telling.sort();
            telling.dedup();
            group.telling = telling;
        }
        let mut rows = Vec::new();
        for _ in 0..from.u16()? {
            let (pattern, flags) = (from.text()?, from.u8()?);
            let mut scopes = Vec::new();
            for _ in 0..from.u16()? {
                let (signing_name, region) = (from.text()?.into(), from.text()?.into());
                scopes.push(HostScope { signing_name, region, variant: Variant::of(from.u8()?)? });
            }
            rows.push(HostRow::new(pattern, flags, scopes));
        }
        let mut regions = NameSet::default();
        for _ in 0..from.u16()? {
            regions.insert(from.text()?.into());
        }
        let of_hosts = rows.iter().flat_map(|row: &HostRow| row.scopes.iter()).map(|scope| scope.signing_name.clone());
        let services: NameSet = of_hosts.chain(names_beside_the_table().map(Box::from)).filter(|name| !groups.contains_key(name)).collect();
        from.0.is_empty().then(|| Self { source, groups, hosts: Hosts::new(rows), regions, services })
    }

    /// True for a region of one of AWS's partitions.
    pub fn has_region(&self, name: &str) -> bool {
        self.regions.contains(name)
    }

    /// True for the signing name of a service.
    pub fn has_service(&self, name: &str) -> bool {
        self.groups.contains_key(name) || self.services.contains(name)
    }

    /// The services of a signing name. Those of S3 that have a name of their own speak S3's API.
    pub(crate) fn group(&self, signing_name: &str) -> Option<&Group> {
        self.groups.get(api_of(signing_name))
    }

    /// botocore's names of the services of a signing name.
    pub(crate) fn services_of(&self, signing_name: &str) -> impl Iterator<Item = &str> {
        let services = self.group(signing_name).map(|group| group.services.as_slice()).unwrap_or_default();
        services.iter().filter_map(|service| service.operations.first()).map(|operation| &*operation.service)
    }

    /// An operation by its names; `service`: botocore's.
    pub fn named(&self, signing_name: &str, service: &str, name: &str) -> Option<&Arc<Operation>> {
        let services = &self.group(signing_name)?.services;
        services.iter().filter_map(|known| known.named(name)).find(|found| *found.service == *service)
    }

    /// The shape of errors, where all services of a signing name speak one protocol.
    pub fn shape(&self, signing_name: &str) -> Option<Shape> {
        Shape::only(self.group(signing_name)?.protocols)
    }

    /// All of them: (signing name, operation).
    pub fn operations(&self) -> impl Iterator<Item = (&str, &Arc<Operation>)> {
        self.groups.iter().flat_map(|(name, group)| {
            group.services.iter().flat_map(move |service| service.operations.iter().map(move |operation| (&**name, operation)))
        })
    }
}

/// The signing name whose services describe what another one serves.
pub(crate) fn api_of(signing_name: &str) -> &str {
    match signing_name {
        "s3express" | "s3-object-lambda" => "s3",
        "iotdevicegateway" => "iotdata",
        name => name,
    }
}

fn table() -> &'static Result<Arc<Knowledge>, String> {
    static SHARED: OnceLock<Result<Arc<Knowledge>, String>> = OnceLock::new();
    SHARED.get_or_init(|| Knowledge::load(SHIPPED).map(Arc::new))
}

impl Service {
    fn is(&self, operation: &Operation) -> bool {
        self.operations.first().is_some_and(|own| own.service == operation.service)
    }

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
    /// What this parameter's value is, operations differ in.
    pub(crate) fn tells(&self, key: &[u8]) -> bool {
        self.telling.binary_search_by(|known| known.as_bytes().cmp(key)).is_ok()
    }

    /// What `X-Amz-Target` names.
    pub(crate) fn target(&self, target: &str, host: &str) -> Named {
        match target.rsplit_once('.') {
            Some((prefix, name)) => self.named(name, host, |service| service.protocols & JSON != 0 && *service.target_prefix == *prefix),
            None => Named::Nothing,
        }
    }

    /// What a path of Smithy's RPC v2 names: `/service/{shape}/operation/{name}`.
    pub(crate) fn rpc(&self, shape: &str, name: &str, host: &str) -> Named {
        self.named(name, host, |service| service.protocols & CBOR != 0 && *service.target_prefix == *shape)
    }

    /// What the `Action` of a query or a form names. Services that share a host, such as the two of load balancers, differ in
    /// their versions.
    pub(crate) fn action(&self, action: &str, version: Option<&[u8]>, host: &str) -> Named {
        let speaks = |service: &Service| service.protocols & QUERY != 0;
        let exact = self.named(action, host, |service| speaks(service) && version == Some(service.api_version.as_bytes()));
        if exact != Named::Nothing {
            return exact;
        }
        let Named::One(names) = self.named(action, host, speaks) else { return Named::Nothing };
        let version_of =
            |operation: &Operation| self.services.iter().find(|service| service.is(operation)).map(|service| &service.api_version);
        match names.iter().find(|other| names.first().is_some_and(|first| version_of(first) != version_of(other))) {
            Some(other) => names.first().map_or(Named::Nothing, |first| Named::Several(Arc::clone(first), Arc::clone(other))),
            None => Named::One(names),
        }
    }

    /// The operations of this name, of the services that fit: of those that the host names, else of all.
    fn named(&self, name: &str, host: &str, fits: impl Fn(&Service) -> bool) -> Named {
        let found: SmallVec<[(&Service, &Arc<Operation>); 2]> =
            self.services.iter().filter(|service| fits(service)).filter_map(|service| Some((service, service.named(name)?))).collect();
        let names: Names = match found.as_slice() {
            [] => return Named::Nothing,
            [(_, only)] => smallvec![Arc::clone(only)],
            several => {
                let by_host: Names =
                    several.iter().filter(|(service, _)| service.is_named_by(host)).map(|(_, found)| Arc::clone(found)).collect();
                if by_host.is_empty() { several.iter().map(|(_, found)| Arc::clone(found)).collect() } else { by_host }
            }
        };
        Named::One(names)
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

    /// The services that the host names, a bit each by their places.
    fn named_by(&self, host: &str) -> u64 {
        self.services.iter().enumerate().filter(|(_, service)| service.is_named_by(host)).fold(0, |all, (at, _)| all | bit(at))
    }

    /// What method, path, query and headers name.
    pub(crate) fn rest(&self, call: &RestCall<'_, '_>) -> Named {
        let Some(mut root) = self.roots.get(call.method).copied() else { return Named::Nothing };
        if call.s3.is_some_and(|s3| s3.bucket_in_host) {
            let label = self.nodes.get(root as usize).and_then(|node| node.label);
            let Some(label) = label else { return Named::Nothing };
            root = label;
        }
        let Some(rest) = call.path.strip_prefix('/') else { return Named::Nothing };
        // Services that the host names come first; where one label of a path may hold an ARN's slashes, last.
        let named = if call.s3.is_none() && self.services.len() > 1 { self.named_by(call.host) } else { 0 };
        let passes = [(named, false), (named, true), (0, false), (0, true)];
        let found = passes.iter().skip(if named == 0 { 2 } else { 0 }).find_map(|&(only, arns)| {
            let mut search = Search { group: self, call, only, arns, budget: BUDGET };
            search.walk(root, rest)
        });
        found.unwrap_or(Named::Nothing)
    }
}

/// No signing name has as many services as there are bits.
fn bit(at: usize) -> u64 {
    1_u64.checked_shl(at as u32).unwrap_or_default()
}

struct Search<'a, 'b, 'q> {
    group: &'a Group,
    call: &'b RestCall<'b, 'q>,
    /// The services that count, a bit each by their places; 0: all.
    only: u64,
    arns: bool,
    budget: u32,
}

impl Search<'_, '_, '_> {
    /// `rest`: the path from here on; empty: it ends here (a slash at the end counts for nothing).
    fn walk(&mut self, at: u32, rest: &str) -> Option<Named> {
        self.budget = self.budget.checked_sub(1)?;
        let group = self.group;
        let node = group.nodes.get(at as usize)?;
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
    fn each_split(&mut self, child: u32, rest: &str) -> Option<Named> {
        let node = self.group.nodes.get(child as usize)?;
        // With nothing below, an end before the end cannot match.
        let ends_there = node.literals.is_empty() && node.partial.is_empty() && node.label.is_none() && node.greedy.is_none();
        let mut slashes = rest.rmatch_indices('/').take(if ends_there { 0 } else { usize::MAX });
        let split = slashes.find_map(|(slash, _)| self.walk(child, rest.get(slash + 1..).filter(|rest| !rest.is_empty())?));
        split.or_else(|| self.walk(child, ""))
    }

    /// Of the operations whose parameters are all there, the one that asks for all that the others ask for. `GET /?acl&policy` has
    /// none: two services could answer it differently.
    fn leaf(&self, node: &Node) -> Option<Named> {
        let fitting: SmallVec<[&Arc<Operation>; 4]> = node
            .leaves
            .iter()
            .filter_map(|(service, operation)| {
                let operation = self.group.services.get(*service as usize)?.operations.get(*operation as usize)?;
                (self.serves(*service, operation) && self.holds(operation)).then_some(operation)
            })
            .collect();
        let is_best = |one: &&&Arc<Operation>| fitting.iter().all(|other| one.covers(other) || !other.covers(one));
        let mut best: Names = fitting.iter().filter(is_best).map(|operation| Arc::clone(operation)).collect();
        best.sort_by_key(|operation| operation.deprecated());
        let first = best.first()?;
        match best.iter().find(|other| !first.covers(other)) {
            Some(other) => Some(Named::Several(Arc::clone(first), Arc::clone(other))),
            None => Some(Named::One(best)),
        }
    }

    fn serves(&self, service: u32, operation: &Operation) -> bool {
        match self.call.s3 {
            Some(s3) => {
                let of_buckets = matches!(&*operation.name, "ListBuckets" | "ListDirectoryBuckets");
                s3.control == (*operation.service == *"s3control")
                    && (!of_buckets || s3.express == (*operation.name == *"ListDirectoryBuckets"))
            }
            None => self.only == 0 || bit(service as usize) & self.only != 0,
        }
    }

    fn holds(&self, operation: &Operation) -> bool {
        operation.headers.iter().all(|name| {
            if let Some(prefix) = name.strip_suffix('*') {
                self.call.headers.keys().any(|key| key.as_str().starts_with(prefix))
            } else {
                self.call.headers.contains_key(&**name)
            }
        }) && operation.query.iter().all(|(key, expected)| {
            let given = self.call.query.get(key.as_bytes());
            given.is_some_and(|given| expected.as_ref().is_none_or(|expected| *given == *expected.as_bytes()))
        })
    }
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
        assert!(change(8).contains("version 4"));
        for at in [10, 20, 500, SHIPPED.len() - 1] {
            assert!(change(at).contains("damaged"), "{at}");
        }
        assert!(Knowledge::load(&SHIPPED[..SHIPPED.len() - 1]).unwrap_err().contains("damaged"));
        assert!(Knowledge::load(b"").unwrap_err().contains("not a table"));
    }
}
