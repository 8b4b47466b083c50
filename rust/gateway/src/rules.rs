//! rules: do `[[route]]` and `[[pace]]` say something that a request can be? Asked once, when settings are read.
//!
//! A mistyped `deny` would let everything pass, and say nothing. So an `operation` that names none of a service that the table
//! knows is an error; what merely looks wrong (a service that the table lacks, conditions that cannot hold together, a route that
//! an earlier one hides) is a warning. A warning is given only where it is sure. Nothing here is on a request's path.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;
use sigward_sigv4::Style;

use crate::knowledge::{Knowledge, Operation};
use crate::recognise::{Hint, HostBucket, bucket_in_host, domains, is_region, recognise, style_of};
use crate::route::Pattern;
use crate::settings::EngineSettings;

/// IAM actions that are no operations: made of python/sigward/knowledge/actions.py by `python -m sigward.knowledge`.
const ACTIONS: &str = include_str!("../data/actions.json");

/// Most suggestions.
const SUGGESTIONS: usize = 3;

/// Regions to try in the place of a `*`: at least one for each partition and each first word.
const REGIONS: &[&str] = &[
    "us-east-1",
    "us-west-2",
    "eu-west-1",
    "eu-central-1",
    "ap-southeast-2",
    "ap-northeast-1",
    "ca-central-1",
    "sa-east-1",
    "me-south-1",
    "af-south-1",
    "il-central-1",
    "mx-central-1",
    "us-gov-west-1",
    "cn-north-1",
    "cn-northwest-1",
    "eusc-de-east-1",
    "us-iso-east-1",
    "us-isob-east-1",
];

/// The rules' warnings. The error names each rule that cannot match, the field, its value and what to do.
pub fn check(settings: &EngineSettings, knowledge: &Knowledge) -> Result<Vec<String>, String> {
    let routes: Vec<Rule<'_>> = settings.routes.iter().enumerate().map(|(at, route)| Rule::of_route(at, route)).collect();
    let paces: Vec<Rule<'_>> = settings.pace.rules.iter().enumerate().map(|(at, pace)| Rule::of_pace(at, pace)).collect();
    if routes.is_empty() && paces.is_empty() {
        return Ok(Vec::new());
    }
    let named = routes.iter().chain(&paces).any(|rule| rule.operation.is_some() || rule.bucket.is_some());
    let table = if named { Table::new(knowledge)? } else { Table::empty(knowledge) };
    let checker = Checker { table, routes: &routes };
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    for rule in routes.iter().chain(&paces) {
        match checker.calls(rule) {
            Ok(calls) => warnings.extend(checker.contradictions(rule, calls.as_ref())),
            Err(Finding::Error(what)) => errors.push(what),
            Err(Finding::Warning(what)) => warnings.push(what),
        }
        warnings.extend(checker.spellings(rule));
    }
    if !errors.is_empty() {
        return Err(errors.join("\n"));
    }
    for rules in [&routes, &paces] {
        warnings.extend(checker.shadows(rules));
    }
    Ok(warnings)
}

enum Finding {
    Error(String),
    Warning(String),
}

// ---------------------------------------------------------------- what is checked

/// Text with `*`, to be compared with other such texts.
struct Glob<'a> {
    written: &'a str,
    /// As requests are compared with it.
    text: String,
    /// The same with NULs for `*`s, if it has any.
    starred: Option<String>,
    pattern: Pattern,
}

impl<'a> Glob<'a> {
    fn new(written: &'a str, text: String) -> Self {
        let starred = text.contains('*').then(|| text.replace('*', "\0"));
        Self { written, pattern: Pattern::new(&text), starred, text }
    }

    fn lower(written: &'a str) -> Self {
        Self::new(written, written.to_ascii_lowercase())
    }

    fn is_literal(&self) -> bool {
        self.pattern.literal().is_some()
    }

    /// True if it matches all that `other` matches.
    fn contains(&self, other: &Self) -> bool {
        // A NUL stands for what another's `*` may be: only a `*` of ours takes it.
        self.pattern.matches(other.starred.as_ref().unwrap_or(&other.text)) && !self.text.contains('\0')
    }
}

/// A pattern of `service:Operation`, in lower case.
struct Named<'a> {
    written: &'a str,
    service: Glob<'a>,
    name: Glob<'a>,
}

impl<'a> Named<'a> {
    /// `None`: it is malformed, which others say.
    fn new(written: &'a str) -> Option<Self> {
        let (service, name) = written.split_once(':')?;
        Some(Self { written, service: Glob::lower(service), name: Glob::lower(name) })
    }

    fn is_all(&self) -> bool {
        self.service.pattern.is_all() && self.name.pattern.is_all()
    }

    fn contains(&self, other: &Self) -> bool {
        self.service.contains(&other.service) && self.name.contains(&other.name)
    }

    /// The service goes by its signing name or by botocore's.
    fn fits(&self, known: &Known<'_>) -> bool {
        let service = |name: &str| self.service.pattern.matches(&name.to_ascii_lowercase());
        self.name.pattern.matches(&known.name) && (service(known.signing_name) || service(&known.operation.service))
    }
}

/// A route, or what stands for one in `[[pace]]`.
struct Rule<'a> {
    /// For messages: `route deletes`, `pace #2`.
    label: String,
    host: Option<Glob<'a>>,
    port: Option<u16>,
    path: Option<Glob<'a>>,
    operation: Option<Named<'a>>,
    bucket: Option<Glob<'a>>,
    client: Option<&'a str>,
    service: Option<&'a str>,
    unchecked: bool,
}

impl<'a> Rule<'a> {
    fn of_route(at: usize, route: &'a crate::settings::RouteSettings) -> Self {
        Self {
            label: label("route", &route.name, at),
            host: route.host.as_deref().map(Glob::lower),
            port: route.port,
            path: route.path.as_deref().map(|path| Glob::new(path, path.to_owned())),
            operation: route.operation.as_deref().and_then(Named::new),
            bucket: route.bucket.as_deref().map(bucket),
            client: route.client.as_deref(),
            service: route.service.as_deref(),
            unchecked: route.unchecked,
        }
    }

    fn of_pace(at: usize, pace: &'a crate::settings::PaceRule) -> Self {
        Self {
            label: label("pace", &pace.name, at),
            host: None,
            port: None,
            path: None,
            operation: pace.operation.as_deref().and_then(Named::new),
            bucket: pace.bucket.as_deref().map(bucket),
            client: None,
            service: None,
            unchecked: pace.unchecked,
        }
    }

    /// The bucket, if that is without `*`.
    fn literal_bucket(&self) -> Option<&str> {
        self.bucket.as_ref()?.text.split_once('/').map(|(bucket, _)| bucket).filter(|bucket| !bucket.contains('*'))
    }
}

fn label(kind: &str, name: &str, at: usize) -> String {
    if name.is_empty() { format!("{kind} #{}", at + 1) } else { format!("{kind} {name}") }
}

/// Without a key, the whole bucket is meant.
fn bucket(written: &str) -> Glob<'_> {
    Glob::new(written, if written.contains('/') { written.to_owned() } else { format!("{written}/*") })
}

// ---------------------------------------------------------------- what is known

struct Known<'a> {
    signing_name: &'a str,
    operation: &'a Operation,
    /// In lower case.
    name: String,
}

/// A service by one of its names.
#[derive(Default)]
struct Service<'a> {
    /// By their places in the table.
    operations: Vec<usize>,
    signing_names: BTreeSet<&'a str>,
}

struct Table<'a> {
    knowledge: &'a Knowledge,
    operations: Vec<Known<'a>>,
    /// By signing names and botocore's, in lower case.
    services: BTreeMap<String, Service<'a>>,
    actions: Actions,
}

/// See `ACTIONS`.
#[derive(Default, Deserialize)]
struct Actions {
    /// By action, the operations that need it.
    operations: BTreeMap<String, Vec<String>>,
    /// By prefix, the signing names whose operations have it.
    prefixes: BTreeMap<String, Vec<String>>,
}

/// The calls that a rule's operation is for.
struct Calls<'a> {
    operations: Vec<usize>,
    signing_names: BTreeSet<&'a str>,
}

impl<'a> Table<'a> {
    /// For rules that ask for nothing that is in it.
    fn empty(knowledge: &'a Knowledge) -> Self {
        Self { knowledge, operations: Vec::new(), services: BTreeMap::new(), actions: Actions::default() }
    }

    fn new(knowledge: &'a Knowledge) -> Result<Self, String> {
        let actions = serde_json::from_str(ACTIONS).map_err(|error| format!("the table of IAM actions: {error}"))?;
        let mut operations: Vec<Known<'a>> = knowledge
            .operations()
            .map(|(signing_name, operation)| Known { signing_name, operation, name: operation.name.to_ascii_lowercase() })
            .collect();
        operations.sort_by(|one, other| (&*one.operation.service, &one.name).cmp(&(&*other.operation.service, &other.name)));
        let mut services: BTreeMap<String, Service<'a>> = BTreeMap::new();
        let places: Vec<usize> = (0..operations.len()).collect();
        let of = |at: usize| operations.get(at).map(|known: &Known<'a>| (known.signing_name, &*known.operation.service));
        for places in places.chunk_by(|one, other| of(*one) == of(*other)) {
            let Some((signing_name, botocores)) = places.first().and_then(|at| of(*at)) else { continue };
            for name in BTreeSet::from([signing_name.to_ascii_lowercase(), botocores.to_ascii_lowercase()]) {
                let service = services.entry(name).or_default();
                service.operations.extend(places);
                service.signing_names.insert(signing_name);
            }
        }
        // Hosts are known of more services than operations are.
        let scopes = knowledge.hosts.rows().iter().flat_map(|row| &row.scopes).map(|scope| &*scope.signing_name);
        for name in scopes.chain(["s3express", "s3-object-lambda", "s3-outposts"]) {
            services.entry(name.to_ascii_lowercase()).or_default().signing_names.insert(name);
        }
        Ok(Self { knowledge, operations, services, actions })
    }

    fn get(&self, at: usize) -> Option<&Known<'a>> {
        self.operations.get(at)
    }

    /// The services that this is for; empty: the table knows none.
    fn services<'b>(&'b self, service: &'b Glob<'_>) -> Box<dyn Iterator<Item = &'b Service<'a>> + 'b> {
        if service.is_literal() {
            Box::new(self.services.get(&service.text).into_iter())
        } else {
            Box::new(self.services.iter().filter(|(name, _)| service.pattern.matches(name)).map(|(_, found)| found))
        }
    }

    fn calls(&self, named: &Named<'_>) -> Calls<'a> {
        let mut calls = Calls { operations: Vec::new(), signing_names: BTreeSet::new() };
        let everything = named.name.pattern.is_all();
        for service in self.services(&named.service) {
            if everything {
                calls.signing_names.extend(&service.signing_names);
            }
            let fitting =
                service.operations.iter().filter(|at| self.get(**at).is_some_and(|known| named.name.pattern.matches(&known.name)));
            calls.operations.extend(fitting);
        }
        calls.operations.sort_unstable();
        calls.operations.dedup();
        calls.signing_names.extend(calls.operations.iter().filter_map(|at| Some(self.get(*at)?.signing_name)));
        calls
    }

    /// What an operator may have meant, the likeliest first.
    fn suggestions(&self, named: &Named<'_>) -> Vec<String> {
        let own: Vec<&Known<'_>> =
            self.services(&named.service).flat_map(|service| &service.operations).filter_map(|at| self.get(*at)).collect();
        let near = nearest(&named.name, &own);
        if !near.is_empty() {
            return near.iter().map(|name| format!("{}:{name}", named.service.written)).collect();
        }
        if self.services(&named.service).next().is_none() && named.service.is_literal() {
            let near = self.near_services(named);
            if !near.is_empty() {
                return near;
            }
        }
        if !named.name.is_literal() {
            return Vec::new();
        }
        // The same name elsewhere: those with short names are the oldest, and the likeliest.
        let mut elsewhere: Vec<&Known<'_>> = self.operations.iter().filter(|known| known.name == named.name.text).collect();
        elsewhere.sort_by_key(|known| known.operation.service.len());
        elsewhere.iter().take(SUGGESTIONS).map(|known| known.operation.to_string()).collect()
    }

    /// Services whose names are alike, with this operation or one that is alike.
    fn near_services(&self, named: &Named<'_>) -> Vec<String> {
        let limit = tolerance(&named.service.text);
        let mut near: Vec<(usize, &String)> =
            self.services.keys().map(|name| (strsim::damerau_levenshtein(&named.service.text, name), name)).collect();
        near.retain(|(distance, _)| *distance <= limit);
        near.sort_unstable();
        let operations = |name: &String| -> Vec<&Known<'_>> {
            self.services.get(name).into_iter().flat_map(|service| &service.operations).filter_map(|at| self.get(*at)).collect()
        };
        let exact = near.iter().filter_map(|(_, service)| {
            if !named.name.is_literal() {
                let any = named.name.pattern.is_all() || operations(service).iter().any(|known| named.name.pattern.matches(&known.name));
                return any.then(|| format!("{service}:{}", named.name.written));
            }
            let found = operations(service).into_iter().find(|known| known.name == named.name.text)?;
            Some(format!("{service}:{}", found.operation.name))
        });
        let exact: Vec<String> = exact.take(SUGGESTIONS).collect();
        if !exact.is_empty() {
            return exact;
        }
        let alike = near
            .iter()
            .flat_map(|(_, service)| nearest(&named.name, &operations(service)).into_iter().map(move |name| format!("{service}:{name}")));
        alike.take(SUGGESTIONS).collect()
    }

    /// The operations that need the IAM action that this names. `None`: it names none that is known to be no operation.
    fn action(&self, named: &Named<'_>) -> Option<Vec<String>> {
        let is = |action: &str| {
            let (prefix, name) = action.split_once(':')?;
            Some(named.service.pattern.matches(prefix) && named.name.pattern.matches(&name.to_ascii_lowercase()))
        };
        let known: Vec<&Vec<String>> =
            self.actions.operations.iter().filter(|(action, _)| is(action) == Some(true)).map(|(_, needing)| needing).collect();
        if !known.is_empty() {
            let needing: BTreeSet<&String> = known.into_iter().flatten().collect();
            return Some(needing.into_iter().cloned().collect());
        }
        if named.name.pattern.is_all() {
            return None;
        }
        let signing_names = self.actions.prefixes.get(named.service.pattern.literal()?)?;
        let of_those = |known: &&Known<'_>| signing_names.iter().any(|name| name == known.signing_name);
        let found = self.operations.iter().filter(|known| named.name.pattern.matches(&known.name)).filter(of_those);
        let found: Vec<String> = found.map(|known| known.operation.to_string()).collect();
        (!found.is_empty()).then_some(found)
    }
}

/// How many letters may differ.
fn tolerance(text: &str) -> usize {
    (text.len() / 4).clamp(1, 3)
}

/// The names that are most like this one; of `Gett*`, what names begin with: `Get*`.
fn nearest(name: &Glob<'_>, among: &[&Known<'_>]) -> Vec<String> {
    let candidates: BTreeMap<String, String> = match name.text.strip_suffix('*') {
        None if name.is_literal() => among.iter().map(|known| (known.name.clone(), known.operation.name.to_string())).collect(),
        Some(stem) if !stem.is_empty() && !stem.contains('*') => among
            .iter()
            .flat_map(|known| words(&known.operation.name).map(|start| (format!("{}*", start.to_ascii_lowercase()), format!("{start}*"))))
            .collect(),
        _ => return Vec::new(),
    };
    let limit = tolerance(&name.text);
    let mut near: Vec<(usize, &String)> =
        candidates.iter().map(|(lower, shown)| (strsim::damerau_levenshtein(lower, &name.text), shown)).collect();
    near.retain(|(distance, _)| *distance <= limit);
    near.sort_unstable();
    let best = near.first().map(|(distance, _)| *distance);
    near.iter().take_while(|(distance, _)| Some(*distance) == best).take(SUGGESTIONS).map(|(_, shown)| (*shown).clone()).collect()
}

/// `Get`, `GetObject`, `GetObjectAcl`.
fn words(name: &str) -> impl Iterator<Item = &str> {
    let ends = name.char_indices().skip(1).filter(|(_, letter)| letter.is_ascii_uppercase()).map(|(at, _)| at).chain([name.len()]);
    ends.filter_map(|end| name.get(..end))
}

// ---------------------------------------------------------------- the checks

struct Checker<'a> {
    table: Table<'a>,
    routes: &'a [Rule<'a>],
}

impl<'a> Checker<'a> {
    /// The calls that the rule's operation names. `None`: all, or it is not to be checked.
    fn calls(&self, rule: &Rule<'_>) -> Result<Option<Calls<'a>>, Finding> {
        let Some(named) = rule.operation.as_ref().filter(|named| !rule.unchecked && !named.is_all()) else { return Ok(None) };
        let calls = self.table.calls(named);
        if !calls.operations.is_empty() {
            return Ok(Some(calls));
        }
        let Rule { label, .. } = rule;
        let written = named.written;
        if let Some(needing) = self.table.action(named) {
            let what = match needing.as_slice() {
                [] => "no operation has this name".to_owned(),
                needing => format!("the operations that need it are {}", needing.join(", ")),
            };
            return Err(Finding::Error(format!("{label}: operation: {written:?} is an IAM action, not an operation; {what}")));
        }
        let known = self.table.services(&named.service).next().is_some();
        let without = self.table.services(&named.service).all(|service| service.operations.is_empty());
        // A route may give its requests a service that is nobody's but its own.
        let own = || rule.service.is_some_and(|service| named.service.pattern.matches(&service.to_ascii_lowercase()));
        if named.name.pattern.is_all() && (known || own()) {
            return Ok(Some(calls));
        }
        let advice = match self.table.suggestions(named).as_slice() {
            _ if written.contains(',') => ": a rule takes one operation or pattern; write a rule for each".to_owned(),
            [] => ". If it is right, set unchecked = true".to_owned(),
            names => format!("; did you mean {}? If it is right, set unchecked = true", names.join(" or ")),
        };
        let service = named.service.written;
        if known && !without {
            let what = match (named.service.is_literal(), named.name.is_literal()) {
                (true, true) => format!("is no operation of {service}"),
                (true, false) => format!("matches no operation of {service}"),
                (false, _) => "matches no operation".to_owned(),
            };
            return Err(Finding::Error(format!("{label}: operation: {written:?} {what}{advice}")));
        }
        let source = &self.table.knowledge.source;
        let what = if known { "no operations of the service" } else { "no service" };
        let why = format!("the table ({source}) has {what} {service:?}, so {written:?} may match nothing");
        Err(Finding::Warning(format!("{label}: operation: {why}{advice}")))
    }

    /// Conditions that cannot hold together. `calls`: those of the rule's operation.
    fn contradictions(&self, rule: &Rule<'_>, calls: Option<&Calls<'_>>) -> Vec<String> {
        let label = &rule.label;
        let mut found = Vec::new();
        let operation = rule.operation.as_ref().map_or("", |named| named.written);
        let for_s3 = |name: &&str| style_of(name) == Style::S3;
        if let (Some(bucket), Some(calls)) = (&rule.bucket, calls)
            && !calls.signing_names.iter().any(for_s3)
            && !calls.signing_names.is_empty()
        {
            found.push(format!("{label}: bucket: {:?} is of S3, and {operation:?} is not; no call is both", bucket.written));
            return found;
        }
        let wanted: Vec<&str> = match calls {
            Some(calls) if !calls.signing_names.is_empty() => calls.signing_names.iter().copied().collect(),
            _ if rule.bucket.is_some() => vec!["s3"],
            _ => return found,
        };
        let what = if calls.is_some() { format!("the operation {operation:?}") } else { "buckets".to_owned() };
        let fits = |name: &str| wanted.contains(&name) || (style_of(name) == Style::S3 && wanted.iter().any(for_s3));
        if let Some(service) = rule.service {
            let everything = rule
                .operation
                .as_ref()
                .is_some_and(|named| named.name.pattern.is_all() && named.service.pattern.matches(&service.to_ascii_lowercase()));
            if !(fits(service) || everything && rule.bucket.is_none()) {
                found.push(format!("{label}: service: {service:?} does not have {what}; no call is both"));
            }
            return found;
        }
        if let Some(host) = &rule.host
            && let Some(why) = self.host_without(host, &wanted, &fits)
        {
            found.push(format!("{label}: host: {:?} {}", host.written, why.replace("{what}", &what)));
        }
        found
    }

    /// Why no host of this pattern has such calls, if that is sure.
    fn host_without(&self, host: &Glob<'_>, wanted: &[&str], fits: &dyn Fn(&str) -> bool) -> Option<String> {
        const STRANGER: &str = "is no host of AWS's that sigward knows, so it has no {what}; a route's `service` says what it is";
        let knowledge = self.table.knowledge;
        let known = |host: &str| recognise(knowledge, host, None).map(|found| (found.signing_name.to_owned(), found.region.to_owned()));
        let given = || self.routes.iter().any(|route| route.service.is_some() && route.host.as_ref().is_none_or(|at| at.contains(host)));
        if host.is_literal() {
            let Some((name, region)) = known(&host.text) else { return (!given()).then(|| STRANGER.to_owned()) };
            let hinted = |signing_name: &&str| {
                let hint = Hint { signing_name, region: &region };
                recognise(knowledge, &host.text, Some(hint)).is_some_and(|found| fits(found.signing_name))
            };
            let shared = wanted.iter().any(hinted) || self.hosts_of(wanted).any(|known| known == host.text);
            return (!fits(&name) && !shared).then(|| format!("is a host of {name}, which does not have {{what}}"));
        }
        if host.pattern.is_all() {
            return None;
        }
        let tail = host.text.rsplit('*').next().unwrap_or_default();
        if !tail.is_empty() && !domains().any(|domain| tail.ends_with(domain) || domain.ends_with(tail)) {
            let given = self.routes.iter().any(|route| route.service.is_some());
            return (!given).then(|| STRANGER.to_owned());
        }
        let found: BTreeSet<String> = fillings(&host.text)
            .iter()
            .filter_map(|host| known(host))
            .map(|(name, _)| name)
            .filter(|name| self.table.services.contains_key(&name.to_ascii_lowercase()))
            .collect();
        let [name] = found.iter().take(2).collect::<Vec<_>>()[..] else { return None };
        let own = fits(name) || self.hosts_of(wanted).any(|known| host.pattern.matches(&known));
        (!own).then(|| format!("is for hosts of {name}, which does not have {{what}}"))
    }

    /// Hosts of these services, by the table and by the shapes that most have; a region and a domain each.
    fn hosts_of<'b>(&'b self, signing_names: &'b [&str]) -> impl Iterator<Item = String> + 'b {
        let rows = self.table.knowledge.hosts.rows().iter();
        let own = rows.filter(|row| row.scopes.iter().any(|scope| signing_names.contains(&&*scope.signing_name)));
        let usual = signing_names.iter().flat_map(|name| {
            [format!("{name}.{{r}}"), format!("x.{name}.{{r}}"), format!("x.{{r}}.{name}"), format!("vpce-1-a.{name}.{{r}}.vpce")]
        });
        own.map(|row| row.pattern.to_string()).chain(usual).flat_map(|pattern| {
            let pattern = pattern.replace("*.", "x.");
            let whole = domains().any(|domain| pattern.ends_with(domain));
            let domains: Vec<String> = if whole { vec![String::new()] } else { domains().map(|domain| format!(".{domain}")).collect() };
            domains.into_iter().flat_map(move |domain| {
                let pattern = pattern.clone();
                REGIONS.iter().map(move |region| format!("{}{domain}", pattern.replace("{r}", region)))
            })
        })
    }

    /// Values that are written as something else.
    fn spellings(&self, rule: &Rule<'_>) -> Vec<String> {
        let label = &rule.label;
        let mut found = Vec::new();
        if let Some(bucket) = &rule.bucket
            && let Some((kind, meant)) = self.not_a_bucket(bucket.written)
        {
            let advice = meant.map_or_else(|| "write BUCKET or BUCKET/KEY".to_owned(), |meant| format!("write {meant:?}"));
            found.push(format!("{label}: bucket: {:?} is {kind}, and no bucket has such a name; {advice}", bucket.written));
        }
        if let Some(bucket) = &rule.bucket
            && bucket.written.ends_with('/')
        {
            let whole = bucket.written.trim_end_matches('/');
            let why = format!("{:?} has no object in it", bucket.written);
            found.push(format!("{label}: bucket: {why}; write {:?} for all below it", format!("{whole}/*")));
        }
        if let Some(host) = &rule.host {
            let text = &host.text;
            let bare = text.split_once("://").map_or(&**text, |(_, rest)| rest);
            let bare = bare.split('/').next().unwrap_or_default();
            let bare = match bare.rsplit_once(':') {
                Some((name, port)) if !name.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
                _ => bare,
            };
            if bare != text {
                found.push(format!("{label}: host: {:?} is more than a host's name, so it matches none; write {bare:?}", host.written));
            }
        }
        if let Some(path) = &rule.path {
            if !path.text.starts_with(['/', '*']) {
                found.push(format!(
                    "{label}: path: {:?} matches none: a path begins with a slash; write {:?}",
                    path.written,
                    format!("/{}", path.text)
                ));
            } else if let Some((before, _)) = path.text.split_once('?') {
                found.push(format!(
                    "{label}: path: {:?} matches none: a path is compared without its query; write {before:?}",
                    path.written
                ));
            }
        }
        found
    }

    /// What a bucket is written as that is none, and how to write it.
    fn not_a_bucket(&self, text: &str) -> Option<(&'static str, Option<String>)> {
        let on_host = |host: &str, path: &str| {
            let host = host.to_ascii_lowercase();
            recognise(self.table.knowledge, &host, None).filter(|found| style_of(found.signing_name) == Style::S3)?;
            let path = path.split('?').next().unwrap_or_default().trim_start_matches('/');
            let (bucket, key) = match bucket_in_host(&host) {
                Some(HostBucket::Named(bucket) | HostBucket::AccessPoint(bucket)) => (bucket, path),
                _ => path.split_once('/').unwrap_or((path, "")),
            };
            let meant = if key.is_empty() { bucket.to_owned() } else { format!("{bucket}/{key}") };
            Some((!bucket.is_empty()).then_some(meant))
        };
        if let Some((scheme, rest)) = text.split_once("://") {
            let rest = rest.trim_end_matches('/');
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let meant = if ["s3", "s3a", "s3n"].contains(&&*scheme.to_ascii_lowercase()) {
                (!rest.is_empty()).then(|| rest.to_owned())
            } else {
                on_host(host, &format!("/{path}")).flatten()
            };
            return Some(("a URL", meant));
        }
        if text.starts_with("arn:") {
            let meant = text.split_once(":::").map(|(_, rest)| rest).filter(|rest| !rest.is_empty());
            return Some(("an ARN", meant.map(str::to_owned)));
        }
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        on_host(host, &format!("/{path}")).map(|meant| ("a host", meant))
    }

    /// Rules that never apply, because an earlier one matches everything that they match.
    fn shadows(&self, rules: &[Rule<'_>]) -> Vec<String> {
        // A rule is looked for where it says something literally, as most do.
        let (mut by_host, mut by_bucket, mut others) = (HashMap::<&str, Vec<usize>>::new(), HashMap::<&str, Vec<usize>>::new(), Vec::new());
        let mut found = Vec::new();
        // Where a route says which service a host is, other routes' operations and buckets are of such hosts, too.
        let services = rules.iter().any(|rule| rule.service.is_some());
        for (at, rule) in rules.iter().enumerate() {
            let literal = rule.host.as_ref().and_then(|host| host.pattern.literal());
            let bucket = rule.literal_bucket();
            let earlier = others
                .iter()
                .chain(literal.and_then(|host| by_host.get(host)).into_iter().flatten())
                .chain(bucket.and_then(|bucket| by_bucket.get(bucket)).into_iter().flatten());
            let first = earlier.copied().filter(|at| rules.get(*at).is_some_and(|first| self.covers(first, rule, services))).min();
            if let Some(first) = first.and_then(|at| rules.get(at)) {
                let (label, first) = (&rule.label, &first.label);
                found.push(format!(
                    "{label}: {first} comes first and matches every call that it names, so it never applies; move it up, or remove it"
                ));
            }
            match (literal, bucket) {
                (Some(host), _) => by_host.entry(host).or_default().push(at),
                (None, Some(bucket)) if rule.host.is_none() => by_bucket.entry(bucket).or_default().push(at),
                _ => others.push(at),
            }
        }
        found
    }

    /// True if `first` matches all that `rule` matches. `services`: some rule says which service its hosts are.
    fn covers(&self, first: &Rule<'_>, rule: &Rule<'_>, services: bool) -> bool {
        // A route without a host is for AWS's hosts alone.
        let of_aws = || match &rule.host {
            None => true,
            Some(host) => {
                (rule.operation.is_some() || rule.bucket.is_some()) && !services
                    || host.pattern.literal().is_some_and(|host| recognise(self.table.knowledge, host, None).is_some())
            }
        };
        let within = |outer: &Option<Glob<'_>>, inner: &Option<Glob<'_>>| match (outer, inner) {
            (None, _) => true,
            (Some(outer), Some(inner)) => outer.contains(inner),
            (Some(outer), None) => outer.pattern.is_all(),
        };
        let host = || match &first.host {
            None => of_aws(),
            Some(_) => within(&first.host, &rule.host),
        };
        let same_service = first.service == rule.service;
        let bucket = || match (&first.bucket, &rule.bucket) {
            (None, _) => true,
            (Some(outer), Some(inner)) => same_service && outer.contains(inner),
            (Some(_), None) => false,
        };
        (first.client.is_none() || first.client == rule.client)
            && (first.port.is_none() || first.port == rule.port)
            && host()
            && within(&first.path, &rule.path)
            && bucket()
            && match (&first.operation, &rule.operation) {
                (None, _) => true,
                (Some(outer), _) if outer.is_all() => first.service.is_some() || of_aws(),
                (Some(outer), Some(inner)) => same_service && (outer.contains(inner) || self.names_all_of(outer, inner)),
                (Some(_), None) => false,
            }
    }

    /// True if each known operation of `inner` is one of `outer`, where they call a service by its two names.
    fn names_all_of(&self, outer: &Named<'_>, inner: &Named<'_>) -> bool {
        if inner.name.pattern.is_all() || !inner.service.is_literal() {
            return false;
        }
        let calls = self.table.calls(inner);
        !calls.operations.is_empty() && calls.operations.iter().all(|at| self.table.get(*at).is_some_and(|known| outer.fits(known)))
    }
}

/// The pattern's `*`s replaced by what may stand there. Empty: there are too many to try.
fn fillings(pattern: &str) -> Vec<String> {
    const FILLINGS: &[&str] = &["", "us-east-1", "eu-west-1", "cn-north-1", "b", "x.us-east-1", "us-east-1.amazonaws.com", "amazonaws.com"];
    let parts: Vec<&str> = pattern.split('*').collect();
    if parts.len() > 3 {
        return Vec::new();
    }
    let mut made = vec![String::new()];
    for (at, part) in parts.iter().enumerate() {
        let fillings = if at == 0 { &[""][..] } else { FILLINGS };
        made = made.iter().flat_map(|start| fillings.iter().map(move |filling| format!("{start}{filling}{part}"))).collect();
    }
    // A name such as eu-us-east-1 has a region's shape, and is none.
    made.retain(|host| host.split('.').all(|label| !is_region(label) || REGIONS.contains(&label)));
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(json: &str) -> Result<Vec<String>, String> {
        check(&EngineSettings::from_json(json).unwrap(), &Knowledge::shipped().unwrap())
    }

    fn route(fields: &str) -> Result<Vec<String>, String> {
        checked(&format!(r#"{{"routes": [{{{fields}}}]}}"#))
    }

    fn operation(pattern: &str) -> Result<Vec<String>, String> {
        let of_route = route(&format!(r#""operation": "{pattern}""#));
        let of_pace = checked(&format!(r#"{{"pace": {{"rules": [{{"operation": "{pattern}", "rate": 1}}]}}}}"#));
        let as_route = |text: &String| text.replace("pace #1", "route #1");
        let of_pace = of_pace.map(|all| all.iter().map(as_route).collect()).map_err(|text| as_route(&text));
        assert_eq!(of_route, of_pace, "{pattern}");
        let unchecked = route(&format!(r#""operation": "{pattern}", "unchecked": true"#));
        assert_eq!(unchecked, Ok(vec![]), "{pattern}");
        of_route
    }

    #[test]
    fn operations_that_there_are_in_any_case_and_by_either_name() {
        for pattern in [
            "*:*",
            "s3:*",
            "s3:GetObject",
            "S3:getobject",
            "s3:Get*",
            "*:Describe*",
            "*:DescribeInstances",
            "monitoring:PutMetricData",
            "cloudwatch:PutMetricData",
            "CloudWatch:putmetricdata",
            "es:*",
            "opensearch:DescribeDomain",
            "ec2:*Instances",
            "execute-api:*",
            "s3express:*",
            "s3-outposts:*",
            "s3control:ListJobs",
            "iot*:Publish",
            "*:*Object",
            "stepfunctions:*",
            "states:StartExecution",
        ] {
            assert_eq!(operation(pattern), Ok(vec![]), "{pattern}");
        }
    }

    #[test]
    fn an_operation_that_there_is_not_is_an_error_that_suggests_one() {
        for (pattern, said) in [
            (
                "s3:DeleteObjet",
                "\"s3:DeleteObjet\" is no operation of s3; did you mean s3:DeleteObject? If it is right, set unchecked = true",
            ),
            ("s3:deleteobjetc", "did you mean s3:DeleteObject?"),
            ("s3:Delte*", "\"s3:Delte*\" matches no operation of s3; did you mean s3:Delete*?"),
            ("s3:DeleteObejct*", "did you mean s3:DeleteObject*?"),
            ("monitoring:PutMetricDat", "did you mean monitoring:PutMetricData?"),
            ("dynamodb:GetObject", "did you mean s3:GetObject or "),
            ("*:TerminateInstance", "\"*:TerminateInstance\" matches no operation; did you mean *:TerminateInstances?"),
            ("s*:GetItem", "matches no operation; did you mean dynamodb:GetItem?"),
            ("ec2:Frobnicate", "\"ec2:Frobnicate\" is no operation of ec2. If it is right, set unchecked = true"),
            ("s3:GetObject,s3:PutObject", "is no operation of s3: a rule takes one operation or pattern; write a rule for each"),
            ("ec2:F*x", "\"ec2:F*x\" matches no operation of ec2. If"),
        ] {
            let told = operation(pattern).unwrap_err();
            assert!(told.starts_with("route #1: operation: ") && told.contains(said), "{told}");
        }
    }

    #[test]
    fn actions_of_iam_are_named_as_such() {
        for (pattern, said) in [
            (
                "s3:ListBucket",
                "is an IAM action, not an operation; the operations that need it are s3:HeadBucket, s3:ListObjects, s3:ListObjectsV2",
            ),
            ("s3:listallmybuckets", "the operations that need it are s3:ListBuckets"),
            ("s3:ListAllMy*", "the operations that need it are s3:ListBuckets"),
            ("lambda:InvokeFunction", "need it are lambda:Invoke, lambda:InvokeAsync, lambda:InvokeWithResponseStream"),
            ("dynamodb:PartiQLSelect", "dynamodb:ExecuteStatement"),
            ("s3:GetObjectVersion", "need it are s3:GetObject, s3:HeadObject"),
            ("iam:PassRole", "is an IAM action, not an operation; no operation has this name"),
            // The prefix is IAM's alone: for calls whose service has another name.
            ("tag:GetResources", "need it are resourcegroupstaggingapi:GetResources"),
            ("iot:Publish", "need it are iot-data:Publish"),
        ] {
            let told = operation(pattern).unwrap_err();
            assert!(told.contains("is an IAM action") && told.contains(said), "{told}");
        }
    }

    #[test]
    fn a_service_that_the_table_lacks_is_a_warning() {
        for (pattern, said) in [
            ("dynamdb:PutItem", "no service \"dynamdb\", so \"dynamdb:PutItem\" may match nothing; did you mean dynamodb:PutItem?"),
            ("dynamdb:Put*", "did you mean dynamodb:Put*?"),
            ("dynamodbb:*", "did you mean dynamodb:*?"),
            ("dynamdb:PutItm", "did you mean dynamodb:PutItem?"),
            ("email:SendTemplatedEmail", "did you mean ses:SendTemplatedEmail?"),
            ("brandnew:*", "no service \"brandnew\", so \"brandnew:*\" may match nothing. If it is right, set unchecked = true"),
            ("nope*:GetItem", "no service \"nope*\""),
            ("s3express:GetObject", "no operations of the service \"s3express\""),
        ] {
            let told = operation(pattern).unwrap();
            assert!(
                told.len() == 1 && told[0].starts_with("route #1: operation: the table (botocore ") && told[0].contains(said),
                "{told:?}"
            );
        }
    }

    #[test]
    fn all_errors_are_told_and_rules_go_by_their_names() {
        let told = checked(
            r#"{"routes": [{"name": "no-deletes", "operation": "s3:DeletObject"}, {"operation": "s3:*"}, {"operation": "s3:Nonsense"}],
                "pace": {"rules": [{"name": "slow", "operation": "ec2:RunInstance", "rate": 1}, {"operation": "ec2:Nonsense", "rate": 1}]}}"#,
        );
        let told = told.unwrap_err();
        let labels: Vec<&str> = told.lines().map(|line| line.split(": ").next().unwrap()).collect();
        assert_eq!(labels, ["route no-deletes", "route #3", "pace slow", "pace #2"]);
    }

    #[test]
    fn conditions_that_cannot_hold_together() {
        for (fields, said) in [
            (r#""operation": "dynamodb:GetItem", "bucket": "team""#, "bucket: \"team\" is of S3, and \"dynamodb:GetItem\" is not"),
            (r#""operation": "dynamodb:*", "bucket": "team""#, "bucket: \"team\" is of S3"),
            (
                r#""host": "sqs.us-east-1.amazonaws.com", "operation": "s3:GetObject""#,
                "is a host of sqs, which does not have the operation",
            ),
            (r#""host": "s3.*.amazonaws.com", "operation": "sqs:SendMessage""#, "is for hosts of s3, which does not have the operation"),
            (r#""host": "sqs.*", "operation": "sns:*""#, "is for hosts of sqs"),
            (r#""host": "*.s3.eu-west-1.amazonaws.com", "operation": "dynamodb:*""#, "is for hosts of s3"),
            (r#""host": "dynamodb.*.amazonaws.com", "bucket": "team/*""#, "is for hosts of dynamodb, which does not have buckets"),
            (r#""host": "minio.internal", "operation": "s3:GetObject""#, "is no host of AWS's that sigward knows"),
            (r#""host": "*.minio.internal", "bucket": "team""#, "is no host of AWS's that sigward knows"),
            (r#""host": "minio.internal", "service": "s3", "operation": "sqs:SendMessage""#, "service: \"s3\" does not have the operation"),
            (r#""host": "search.internal", "service": "es", "bucket": "team""#, "service: \"es\" does not have buckets"),
        ] {
            let told = route(fields).unwrap();
            assert!(told.len() == 1 && told[0].starts_with("route #1: ") && told[0].contains(said), "{fields}: {told:?}");
        }
        let told = checked(r#"{"pace": {"rules": [{"operation": "sqs:*", "bucket": "team", "rate": 1}]}}"#).unwrap();
        assert!(told.len() == 1 && told[0].starts_with("pace #1: bucket: "), "{told:?}");
    }

    #[test]
    fn conditions_that_can() {
        for fields in [
            r#""operation": "s3:GetObject", "bucket": "team""#,
            r#""operation": "*:Get*", "bucket": "team""#,
            r#""operation": "s3express:*", "bucket": "team""#,
            r#""host": "*.amazonaws.com", "operation": "dynamodb:GetItem""#,
            r#""host": "*.us-east-1.amazonaws.com", "operation": "monitoring:PutMetricData""#,
            r#""host": "*.eu-*.amazonaws.com", "operation": "ecr:*""#,
            r#""host": "api.ecr.*.amazonaws.com", "operation": "ecr:*""#,
            r#""host": "runtime.sagemaker.*", "operation": "sagemaker:InvokeEndpoint""#,
            r#""host": "*.execute-api.eu-west-1.amazonaws.com", "operation": "execute-api:*""#,
            r#""host": "search-logs-xyz.eu-west-1.es.amazonaws.com", "operation": "es:*""#,
            r#""host": "*.es.amazonaws.com", "operation": "es:*""#,
            r#""host": "maps.geo.us-east-1.amazonaws.com", "operation": "geo-maps:*""#,
            r#""host": "maps.geo.us-east-1.amazonaws.com", "operation": "location:*""#,
            r#""host": "vpce-1-a.sqs.us-east-1.vpce.amazonaws.com", "operation": "sqs:*""#,
            r#""host": "*.sqs.us-east-1.vpce.amazonaws.com", "operation": "sqs:*""#,
            r#""host": "team.s3.eu-west-1.amazonaws.com", "operation": "s3:GetObject", "bucket": "team""#,
            r#""host": "b--use1-az4--x-s3.s3express-use1-az4.us-east-1.amazonaws.com", "operation": "s3:GetObject""#,
            r#""host": "queue.amazonaws.com", "operation": "sqs:*""#,
            r#""host": "iam.amazonaws.com", "operation": "iam:*""#,
            r#""host": "*.cn-north-1.amazonaws.com.cn", "operation": "sqs:*""#,
            r#""host": "minio.internal", "service": "s3", "operation": "s3:GetObject""#,
            r#""host": "lattice.internal", "service": "vpc-lattice-svcs", "operation": "vpc-lattice-svcs:*""#,
            r#""host": "search.internal", "service": "es", "operation": "opensearch:DescribeDomain""#,
            r#""host": "*", "operation": "s3:*""#,
            r#""host": "brandnew.eu-west-1.amazonaws.com""#,
            r#""host": "127.0.0.1", "action": "pass""#,
            r#""host": "*", "path": "*/secrets/*""#,
        ] {
            assert_eq!(route(fields), Ok(vec![]), "{fields}");
        }
        let by_another = r#"{"routes": [{"host": "minio.internal", "operation": "s3:Delete*", "action": "deny"}, {"host": "minio.internal", "service": "s3"}]}"#;
        assert_eq!(checked(by_another), Ok(vec![]));
    }

    #[test]
    fn no_service_is_said_to_lack_its_own_operations() {
        let table = Knowledge::shipped().unwrap();
        let mut hosts = BTreeMap::new();
        for (signing_name, operation) in table.operations() {
            hosts.entry((signing_name.to_owned(), operation.service.to_string())).or_insert_with(|| operation.to_string());
        }
        assert!(hosts.len() > 400);
        let names: Vec<&str> = hosts.keys().map(|(name, _)| &**name).collect();
        let rows = table.hosts.rows().iter().flat_map(|row| row.scopes.iter().map(move |scope| (&*row.pattern, &*scope.signing_name)));
        let mut routes = Vec::new();
        for (pattern, name) in rows.filter(|(_, name)| names.contains(name)) {
            let host = pattern.replace("{r}", "eu-west-1");
            let host = if domains().any(|domain| host.ends_with(domain)) { host } else { format!("{host}.amazonaws.com") };
            let starred = pattern.replace("{r}", "*") + "*";
            for host in [host.replace("*.", "x."), host, starred] {
                let (_, operation) = hosts.iter().find(|((known, _), _)| known == name).unwrap();
                routes.push(serde_json::json!({"host": host, "operation": operation}));
            }
        }
        assert!(routes.len() > 1000);
        let told = checked(&serde_json::json!({ "routes": routes }).to_string()).unwrap();
        let false_alarms: Vec<&String> = told.iter().filter(|warning| !warning.contains("comes first")).collect();
        assert!(false_alarms.is_empty(), "{false_alarms:#?}");
    }

    #[test]
    fn a_value_that_is_written_as_something_else() {
        for (fields, said) in [
            (
                r#""bucket": "s3://team/logs/*""#,
                "bucket: \"s3://team/logs/*\" is a URL, and no bucket has such a name; write \"team/logs/*\"",
            ),
            (r#""bucket": "https://team.s3.amazonaws.com/logs""#, "is a URL, and no bucket has such a name; write \"team/logs\""),
            (r#""bucket": "https://s3.eu-west-1.amazonaws.com/team/logs/*""#, "write \"team/logs/*\""),
            (r#""bucket": "team/logs/""#, "\"team/logs/\" has no object in it; write \"team/logs/*\" for all below it"),
            (r#""bucket": "https://s3.amazonaws.com""#, "is a URL, and no bucket has such a name; write BUCKET or BUCKET/KEY"),
            (r#""bucket": "arn:aws:s3:::team/*""#, "is an ARN, and no bucket has such a name; write \"team/*\""),
            (r#""bucket": "arn:aws:s3:eu-west-1:1:accesspoint/ap""#, "is an ARN, and no bucket has such a name; write BUCKET"),
            (r#""bucket": "team.s3.eu-west-1.amazonaws.com/k""#, "is a host, and no bucket has such a name; write \"team/k\""),
            (
                r#""host": "https://sqs.us-east-1.amazonaws.com/""#,
                "host: \"https://sqs.us-east-1.amazonaws.com/\" is more than a host's name, so it matches none; write \"sqs.us-east-1.amazonaws.com\"",
            ),
            (r#""host": "minio.internal:9000""#, "write \"minio.internal\""),
            (r#""host": "*", "path": "secrets/*""#, "path: \"secrets/*\" matches none: a path begins with a slash; write \"/secrets/*\""),
            (r#""host": "*", "path": "/a?b=*""#, "path: \"/a?b=*\" matches none: a path is compared without its query; write \"/a\""),
        ] {
            let told = route(fields).unwrap();
            assert!(told.len() == 1 && told[0].contains(said), "{fields}: {told:?}");
        }
        for fields in
            [r#""bucket": "team.logs""#, r#""bucket": "s3""#, r#""bucket": "team-*""#, r#""bucket": "*/public/*""#, r#""host": "::1""#]
        {
            assert_eq!(route(fields), Ok(vec![]), "{fields}");
        }
    }

    #[test]
    fn a_route_that_an_earlier_one_shadows() {
        for (first, second, shadowed) in [
            (r#""operation": "s3:*""#, r#""operation": "s3:GetObject""#, true),
            (r#""operation": "s3:*""#, r#""operation": "S3:GetObject", "bucket": "team""#, true),
            (r#""operation": "*:*""#, r#""bucket": "team""#, true),
            (r#""operation": "*:*""#, r#""host": "sqs.us-east-1.amazonaws.com""#, true),
            (r#""operation": "*:*""#, r#""host": "minio.internal""#, false),
            (r#""operation": "*:*""#, r#""host": "*.amazonaws.com""#, false),
            (r#""operation": "*:*""#, r#""host": "*.amazonaws.com", "operation": "s3:*""#, true),
            (r#""operation": "monitoring:*""#, r#""operation": "cloudwatch:PutMetricData""#, true),
            (r#""operation": "cloudwatch:PutMetricData""#, r#""operation": "monitoring:PutMetricData""#, true),
            (r#""operation": "s3:Get*""#, r#""operation": "s3:*""#, false),
            (r#""operation": "s3:Get*""#, r#""bucket": "team""#, false),
            (r#""bucket": "team""#, r#""bucket": "team/logs/*""#, true),
            (r#""bucket": "team/*""#, r#""bucket": "team""#, true),
            (r#""bucket": "team/logs/*""#, r#""bucket": "team""#, false),
            (r#""bucket": "te*""#, r#""bucket": "team""#, true),
            (r#""bucket": "team""#, r#""bucket": "teams""#, false),
            (r#""bucket": "team", "client": "ci""#, r#""bucket": "team""#, false),
            (r#""bucket": "team""#, r#""bucket": "team", "client": "ci""#, true),
            (r#""client": "ci""#, r#""client": "cd""#, false),
            (r#""host": "*.amazonaws.com""#, r#""host": "SQS.*.amazonaws.com""#, true),
            (r#""host": "*.amazonaws.com""#, r#""host": "*.amazonaws.com.cn""#, false),
            (r#""host": "*.amazonaws.com""#, r#""operation": "s3:*""#, false),
            (r#""host": "*""#, r#""operation": "s3:*""#, true),
            (r#""host": "a*b""#, r#""host": "a*""#, false),
            (r#""host": "a*b""#, r#""host": "a*c*b""#, true),
            (r#""host": "a.test""#, r#""host": "a.test""#, true),
            (r#""host": "a.test", "path": "/public/*""#, r#""host": "a.test""#, false),
            (r#""host": "a.test", "path": "/public/*""#, r#""host": "a.test", "path": "/public/x""#, true),
            (r#""host": "a.test""#, r#""host": "a.test", "path": "/public/*""#, true),
            (r#""host": "*", "service": "s3", "operation": "s3:*""#, r#""host": "*", "operation": "s3:*""#, false),
            (r#""operation": "s3:*""#, r#""host": "minio.internal", "service": "s3", "operation": "s3:*""#, false),
            (r#""host": "*", "service": "s3", "bucket": "team""#, r#""host": "*", "bucket": "team""#, false),
        ] {
            let told =
                checked(&format!(r#"{{"routes": [{{"name": "one", {first}}}, {{"host": "unlike.test"}}, {{"name": "two", {second}}}]}}"#))
                    .unwrap();
            let told: Vec<&String> = told.iter().filter(|warning| warning.contains("comes first") && !warning.contains("#2")).collect();
            let expected =
                "route two: route one comes first and matches every call that it names, so it never applies; move it up, or remove it";
            assert_eq!(told, if shadowed { vec![expected] } else { vec![] }, "{first} | {second}");
        }
        // The last route says that the second one's host is S3's: the first, which is for AWS's hosts alone, does not hide it.
        let by_another =
            r#"{"routes": [{"operation": "*:*"}, {"host": "minio.*", "operation": "s3:*"}, {"host": "minio.test", "service": "s3"}]}"#;
        assert_eq!(checked(by_another), Ok(vec![]));
        let paces = r#"{"pace": {"rules": [{"operation": "ec2:*", "rate": 1}, {"name": "few", "operation": "ec2:Run*", "rate": 2}]}}"#;
        assert!(checked(paces).unwrap()[0].starts_with("pace few: pace #1 comes first"));
    }

    #[test]
    fn what_shadows_matches_whatever_is_shadowed() {
        let texts = ["*", "a", "ab", "a*", "*b", "a*b", "*a*", "ab*ba", "aba", "abba", "a*b*", "b"];
        let samples = ["", "a", "b", "ab", "ba", "aab", "aba", "abba", "abxba", "xay", "axb", "axbx"];
        for outer in texts {
            for inner in texts {
                let (one, other) = (Glob::new(outer, outer.into()), Glob::new(inner, inner.into()));
                if one.contains(&other) {
                    for sample in samples.iter().filter(|sample| other.pattern.matches(sample)) {
                        assert!(one.pattern.matches(sample), "{outer} {inner} {sample}");
                    }
                }
            }
        }
    }
}
