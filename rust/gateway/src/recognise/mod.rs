//! recognise: which call is this request? Once, from the form in which it goes out: see [`Call`].
//!
//! This file reads the host: which service and region does it belong to, and where does S3 have the bucket? Read-only look-ups, no
//! allocation, no regular expression. A host that merely ends like one of AWS's is not enough:
//! load balancers, EC2 instances and third parties' endpoint services live under the same suffixes, and a request signed
//! for one of those would hand a session token to a stranger. So only known shapes are recognised, and `None` is the
//! answer to all else.

pub(crate) mod authentication;
mod call;
pub(crate) mod form;
pub(crate) mod path;
pub(crate) mod s3;
pub(crate) mod table;

pub use authentication::{Authentication, Own};
#[cfg(test)]
pub(crate) use call::tests::Sample;
pub use call::{Ambiguity, Body, Call, Part, Source};

use sigward_sigv4::Style;

use crate::knowledge::Knowledge;
use table::{HostRow, HostScope, Key};

/// How a host's requests are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Signature Version 4.
    V4,
    /// Signature Version 4a, for a set of regions.
    V4a,
    /// It takes a bearer token: no signature.
    Bearer,
    /// It takes Signature Version 2 alone, which sigward does not make.
    V2,
    /// It takes none, such as S3's websites.
    None,
    /// It takes Signature Version 4 of clients whose own scope says so; most have another way, such as Git.
    Scoped,
    /// It stands where AWS's services do, and the table does not have it: whether it takes a signature, and for which service, is a guess.
    Unknown,
}

impl Variant {
    /// As the table writes it.
    pub(crate) fn of(byte: u8) -> Option<Self> {
        [Self::V4, Self::V4a, Self::Bearer, Self::V2, Self::None, Self::Scoped].get(usize::from(byte)).copied()
    }

    /// True if sigward signs for it.
    pub fn signed(self) -> bool {
        matches!(self, Self::V4 | Self::V4a)
    }

    /// True if sigward signs for it, or does so for clients whose own scope names the service.
    pub fn may_be_signed(self) -> bool {
        self.signed() || matches!(self, Self::Scoped | Self::Unknown)
    }

    /// `v4`, `v4a`, `bearer`, `v2`, `none`, `scoped`, `unknown`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V4a => "v4a",
            Self::Bearer => "bearer",
            Self::V2 => "v2",
            Self::None => "none",
            Self::Scoped => "scoped",
            Self::Unknown => "unknown",
        }
    }
}

/// What a host name says. Borrows from the host, which must be lower-case and without a trailing dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recognised<'h> {
    /// The service in the credential scope, e.g. `es` for OpenSearch.
    pub signing_name: &'h str,
    /// The region in the credential scope.
    pub region: &'h str,
    /// `aws`, `aws-cn`, `aws-us-gov`, …
    pub partition: &'static str,
    /// How the path enters the canonical request.
    pub style: Style,
    /// How requests are signed for it, if at all.
    pub variant: Variant,
    /// What is asked there is none of the operations of the service's models: a customer's own API, the data's, or Git's.
    pub own_api: bool,
    /// The endpoint's owner, any customer of AWS's, may see what is sent there, a session token too.
    pub owner_reads: bool,
}

struct Suffix {
    dns: &'static str,
    partition: &'static str,
    /// Region in the scope of the partition's global services.
    global_region: &'static str,
}

const fn suffix(dns: &'static str, partition: &'static str, global_region: &'static str) -> Suffix {
    Suffix { dns, partition, global_region }
}

/// The commonest first; none ends with another. Source: botocore's `partitions.json`, and `on.aws` from Lambda's documentation.
const SUFFIXES: &[Suffix] = &[
    suffix(".amazonaws.com", "aws", "us-east-1"),
    suffix(".api.aws", "aws", "us-east-1"),
    suffix(".on.aws", "aws", "us-east-1"),
    suffix(".api.aws.hci.ic.gov", "aws-iso-f", "us-isof-south-1"),
    suffix(".api.aws.ic.gov", "aws-iso", "us-iso-east-1"),
    suffix(".api.aws.scloud", "aws-iso-b", "us-isob-east-1"),
    suffix(".api.cloud-aws.adc-e.uk", "aws-iso-e", "eu-isoe-west-1"),
    suffix(".amazonaws.com.cn", "aws-cn", "cn-northwest-1"),
    suffix(".api.amazonwebservices.com.cn", "aws-cn", "cn-northwest-1"),
    suffix(".amazonaws.eu", "aws-eusc", "eusc-de-east-1"),
    suffix(".api.amazonwebservices.eu", "aws-eusc", "eusc-de-east-1"),
    suffix(".c2s.ic.gov", "aws-iso", "us-iso-east-1"),
    suffix(".sc2s.sgov.gov", "aws-iso-b", "us-isob-east-1"),
    suffix(".cloud.adc-e.uk", "aws-iso-e", "eu-isoe-west-1"),
    suffix(".csp.hci.ic.gov", "aws-iso-f", "us-isof-south-1"),
];

/// Domains that all of AWS's hosts stand under, of every partition.
pub fn domains() -> impl Iterator<Item = &'static str> {
    SUFFIXES.iter().filter_map(|suffix| suffix.dns.strip_prefix('.'))
}

/// Signing names of S3's hosts, which no row of the table may have.
pub(crate) fn names_beside_the_table() -> impl Iterator<Item = &'static str> {
    ["s3", "s3-object-lambda", "s3-outposts", "s3express"].into_iter()
}

/// What a client's own, dummy signature says it is for: a hint, never a right.
#[derive(Clone, Copy, Debug)]
pub struct Hint<'a> {
    /// The service in its scope.
    pub signing_name: &'a str,
    /// The region in its scope.
    pub region: &'a str,
}

/// Looks one host name up: lower-case, no port, no trailing dot. `None`: not a host of a service of AWS's. `hint` settles which
/// service of those that share the host is meant, and whether what may be signed for is: it counts only where the table has it, or
/// where it says what the host itself says.
pub fn recognise<'h>(knowledge: &'h Knowledge, host: &'h str, hint: Option<Hint<'_>>) -> Option<Recognised<'h>> {
    let (rest, suffix) = SUFFIXES.iter().find_map(|suffix| Some((host.strip_suffix(suffix.dns)?, suffix)))?;
    if rest.is_empty() || host.len() > 253 || !is_name(rest) {
        return None;
    }
    if let Some(interface_endpoint) = rest.strip_suffix(".vpce") {
        return vpc_endpoint(knowledge, interface_endpoint, suffix, hint);
    }
    if (rest.starts_with("s3") || rest.contains(".s3"))
        && let Some(found) = s3(rest, suffix)
    {
        return found;
    }
    // Under on.aws stand customers' own names, of few services: their patterns bear the suffix.
    if suffix.dns == ".on.aws" {
        return in_table(knowledge, host, host, suffix, hint);
    }
    in_table(knowledge, host, rest, suffix, hint).or_else(|| unlisted(rest, suffix, hint))
}

/// Lower-case letters, digits, `-` and `_` in labels of which none is empty.
fn is_name(rest: &str) -> bool {
    let mut empty = true;
    let named = rest.bytes().all(|byte| match byte {
        b'.' => !std::mem::replace(&mut empty, true),
        b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {
            empty = false;
            true
        }
        _ => false,
    });
    named && !empty
}

/// What the table says of this host: as it stands, or by its pattern.
fn in_table<'h>(
    knowledge: &'h Knowledge,
    host: &'h str,
    rest: &'h str,
    suffix: &'static Suffix,
    hint: Option<Hint<'_>>,
) -> Option<Recognised<'h>> {
    let hosts = &knowledge.hosts;
    let label = rest.rsplit('.').find(|label| is_region(label));
    let find = |customers: u8, rest: &str| {
        let Some(label) = label else { return hosts.find(Key { customers, before: rest, after: None }) };
        // `label` is a part of `rest`.
        let at = (label.as_ptr() as usize).checked_sub(rest.as_ptr() as usize)?;
        let (before, after) = (rest.get(..at)?, Some(rest.get(at + label.len()..)?));
        hosts.find(Key { customers, before, after })
    };
    let customers = || {
        let front = rest.split_once('.')?.1;
        find(1, front).or_else(|| find(2, front.split_once('.')?.1))
    };
    let whole = |host| hosts.find(Key { customers: 0, before: host, after: None });
    let row = find(0, rest).or_else(customers).or_else(|| label.and_then(|_| whole(rest)))?;
    let row = if row.deviates() { whole(host).unwrap_or(row) } else { row };
    scopes(row, label, rest, suffix, hint)
}

/// The scope that a row gives a host: the one that the hint names, else the first.
fn scopes<'h>(
    row: &'h HostRow,
    label: Option<&'h str>,
    rest: &str,
    suffix: &'static Suffix,
    hint: Option<Hint<'_>>,
) -> Option<Recognised<'h>> {
    let governmental = || rest.ends_with(".us-gov") || label.is_some_and(|label| label.starts_with("us-gov-"));
    let told = |scope: &'h HostScope| {
        let region = match &*scope.region {
            "{r}" => label?,
            // GovCloud's global services share a suffix with the commercial partition.
            "{g}" if suffix.partition == "aws" && governmental() => "us-gov-west-1",
            "{g}" => suffix.global_region,
            region => region,
        };
        let partition = if region == "*" && governmental() { "aws-us-gov" } else { partition_of(label.unwrap_or(region), suffix) };
        let (variant, own_api, owner_reads) = (scope.variant, row.own_api(), row.owner_reads());
        Some(Recognised { partition, variant, own_api, owner_reads, ..found(&scope.signing_name, region, suffix) })
    };
    let hinted = hint.filter(|_| row.scopes.len() > 1).and_then(|hint| {
        let meant = |found: &Recognised<'_>| found.signing_name == hint.signing_name && found.region == hint.region;
        row.scopes.iter().filter(|scope| scope.variant.signed()).filter_map(told).find(meant)
    });
    hinted.or_else(|| told(row.scopes.first()?))
}

/// True for the shape of a region's name: `us-east-1`, `us-gov-west-1`, `eusc-de-east-1`.
pub fn is_region(label: &str) -> bool {
    let mut parts = label.split('-');
    let area = parts.next().unwrap_or_default();
    let known = matches!(area, "af" | "ap" | "ca" | "cn" | "eu" | "eusc" | "il" | "me" | "mx" | "sa" | "us");
    let number = parts.next_back().unwrap_or_default();
    let words = parts.clone().count();
    known
        && (1..=2).contains(&words)
        && parts.all(|word| word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_lowercase()))
        && (1..=2).contains(&number.len())
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// `{endpoint}.{service}.{region}.vpce.amazonaws.com`. A `vpce-svc-…` in the service's place is a third party's.
fn vpc_endpoint<'h>(knowledge: &'h Knowledge, rest: &'h str, suffix: &'static Suffix, hint: Option<Hint<'_>>) -> Option<Recognised<'h>> {
    let (front, region) = split_region(rest)?;
    let mut labels = front.splitn(2, '.');
    let first = labels.next()?;
    let mut service = labels.next()?;
    if !first.starts_with("vpce-") {
        // S3's have the bucket or the kind of endpoint in front: bucket.vpce-….s3
        let mut labels = service.rsplitn(2, '.');
        service = labels.next()?;
        if !service.starts_with("s3") || !labels.next()?.split('.').next_back()?.starts_with("vpce-") {
            return None;
        }
    }
    if service.starts_with("vpce-svc-") {
        return None;
    }
    if matches!(service, "s3" | "s3-accesspoint" | "s3-control") {
        return Some(Recognised { style: Style::S3, ..found("s3", region, suffix) });
    }
    // `service` ends `front`, and a dot follows in `rest`.
    let before = rest.get(front.len() - service.len()..=front.len())?;
    match knowledge.hosts.find(Key { customers: 0, before, after: Some("") }) {
        Some(row) => scopes(row, Some(region), rest, suffix, hint),
        None => guess(service, region, suffix, hint),
    }
}

/// A `{service}.{region}` that the table lacks.
fn unlisted<'h>(rest: &'h str, suffix: &'static Suffix, hint: Option<Hint<'_>>) -> Option<Recognised<'h>> {
    let (prefix, region) = split_region(rest)?;
    match timestream_cell(prefix) {
        Some(name) => Some(found(name, region, suffix)),
        None => guess(prefix, region, suffix, hint),
    }
}

/// One label where services have theirs: one that is newer than the table, or something else of AWS's. A client's own scope may say that it
/// is a service, and no more than what the host says of its name and region. More labels do not tell.
fn guess<'h>(label: &'h str, region: &'h str, suffix: &'static Suffix, hint: Option<Hint<'_>>) -> Option<Recognised<'h>> {
    let name = without_fips(label);
    let named = hint.is_some_and(|hint| hint.signing_name == name && hint.region == region);
    let variant = if named { Variant::V4 } else { Variant::Unknown };
    (!name.is_empty() && !name.contains('.')).then(|| Recognised { variant, ..found(name, region, suffix) })
}

/// `ingest-cell1.timestream`, `query-cell2.timestream`: what Timestream's `DescribeEndpoints` answers.
fn timestream_cell(prefix: &str) -> Option<&'static str> {
    let (cell, service) = prefix.split_once('.')?;
    let number = cell.strip_prefix("ingest-cell").or_else(|| cell.strip_prefix("query-cell"))?;
    let numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (service == "timestream" && numbered).then_some("timestream")
}

/// S3 in its shapes. Outer `None`: not S3's. Inner `None`: S3's, but not one that is signed with the caller's keys as they are.
fn s3<'h>(rest: &'h str, suffix: &'static Suffix) -> Option<Option<Recognised<'h>>> {
    let (front, region) = split_region(rest).unwrap_or((rest, suffix.global_region));
    let front = front.strip_suffix(".dualstack").unwrap_or(front);
    let label = front.rsplit('.').next()?;
    let alone = label.len() == front.len();
    let answer = |signing_name, region, variant| {
        let partition = partition_of(region, suffix);
        Some(Some(Recognised { signing_name, region, partition, style: Style::S3, variant, own_api: false, owner_reads: false }))
    };
    match label {
        "s3" | "s3-fips" | "s3-accelerate" | "s3-control" | "s3-control-fips" => answer("s3", region, Variant::V4),
        "s3-accesspoint" | "s3-accesspoint-fips" if !alone => answer("s3", region, Variant::V4),
        "s3-object-lambda" | "s3-object-lambda-fips" => answer("s3-object-lambda", region, Variant::V4),
        "s3-outposts" | "s3-outposts-fips" => answer("s3-outposts", region, Variant::V4),
        "s3express-control" | "s3express-control-fips" => answer("s3express", region, Variant::V4),
        "s3-website" => answer("s3", region, Variant::None),
        // Multi-region access points: {alias}.accesspoint.s3-global
        "s3-global" if front.ends_with(".accesspoint.s3-global") => answer("s3", "*", Variant::V4a),
        // Zones of S3 Express take the caller's own keys too, if they may CreateSession.
        _ if label.starts_with("s3express-")
            && front.strip_suffix(label)?.strip_suffix('.').is_none_or(|bucket| bucket.ends_with("--x-s3")) =>
        {
            answer("s3express", region, Variant::V4)
        }
        _ if label.starts_with("s3express-") => Some(None),
        _ => {
            if let Some(region) = label.strip_prefix("s3-website-").filter(|region| is_region(region)) {
                return answer("s3", region, Variant::None);
            }
            // The old dash style: s3-eu-west-1.amazonaws.com
            let region = label.strip_prefix("s3-").map(|region| region.strip_prefix("fips-").unwrap_or(region));
            match region.filter(|region| is_region(region)) {
                Some(region) => answer("s3", region, Variant::V4),
                None => None,
            }
        }
    }
}

/// Where a request to S3 has its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostBucket<'h> {
    /// In the path.
    InPath,
    /// In the host.
    Named(&'h str),
    /// The host names an access point: which bucket that is for, AWS alone knows.
    AccessPoint(&'h str),
    /// It is S3 Control's, whose operations have buckets in many places.
    Control,
    /// It cannot be told, or what answers there is no bucket.
    Unclear,
}

/// Reads an S3 host of AWS's. `None`: it is not AWS's, and its owner alone knows.
pub(crate) fn bucket_in_host(host: &str) -> Option<HostBucket<'_>> {
    let (rest, suffix) = SUFFIXES.iter().find_map(|suffix| Some((host.strip_suffix(suffix.dns)?, suffix)))?;
    if let Some(endpoint) = rest.strip_suffix(".vpce") {
        return Some(bucket_in_interface_endpoint(split_region(endpoint).map_or(endpoint, |(front, _)| front)));
    }
    let (front, _) = split_region(rest).unwrap_or((rest, suffix.global_region));
    let front = front.strip_suffix(".dualstack").unwrap_or(front);
    // The last label is S3's own: a bucket's name may hold others like it.
    let (before, label) = front.rsplit_once('.').map_or((None, front), |(before, label)| (Some(before), label));
    let bucket = before.map_or(HostBucket::InPath, HostBucket::Named);
    let regional = |label: &str| {
        let region = label.strip_prefix("s3-").unwrap_or_default();
        is_region(region.strip_prefix("fips-").unwrap_or(region)) || label.strip_prefix("s3-website-").is_some_and(is_region)
    };
    Some(match label {
        "s3" | "s3-fips" | "s3-accelerate" | "s3-website" | "s3express-control" | "s3express-control-fips" => bucket,
        "s3-accesspoint" | "s3-accesspoint-fips" | "s3-object-lambda" | "s3-object-lambda-fips" | "s3-outposts" | "s3-outposts-fips" => {
            before.map_or(HostBucket::Unclear, HostBucket::AccessPoint)
        }
        "s3-global" => {
            before.map_or(HostBucket::Unclear, |before| HostBucket::AccessPoint(before.strip_suffix(".accesspoint").unwrap_or(before)))
        }
        "s3-control" | "s3-control-fips" => HostBucket::Control,
        label if label.starts_with("s3express-") || regional(label) => bucket,
        _ => HostBucket::Unclear,
    })
}

/// `{bucket}.bucket.vpce-….s3`, and `bucket.vpce-….s3` with the bucket in the path; likewise `accesspoint` and `control`.
fn bucket_in_interface_endpoint(front: &str) -> HostBucket<'_> {
    let Some((before, service)) = front.rsplit_once('.') else { return HostBucket::Unclear };
    let Some((before, _)) = before.rsplit_once('.') else {
        return if service == "s3" { HostBucket::InPath } else { HostBucket::Unclear };
    };
    let (owner, kind) = before.rsplit_once('.').map_or((None, before), |(owner, kind)| (Some(owner), kind));
    match (service, kind, owner) {
        ("s3", "bucket", None) => HostBucket::InPath,
        ("s3", "bucket", Some(bucket)) => HostBucket::Named(bucket),
        ("s3", "accesspoint", Some(label)) => HostBucket::AccessPoint(label),
        ("s3-accesspoint", _, _) => HostBucket::AccessPoint(before),
        ("s3", "control", _) | ("s3-control", _, _) => HostBucket::Control,
        _ => HostBucket::Unclear,
    }
}

/// An S3 host of one region as the host of another. `None`: its name tells no region, and serves all.
pub fn s3_host_in(host: &str, from: &str, to: &str) -> Option<String> {
    // The last such label is S3's own: a bucket's name may hold another.
    let labels: Vec<&str> = host.split('.').collect();
    let at = labels.iter().rposition(|label| *label == "s3" || *label == "s3-fips" || label.strip_prefix("s3-").is_some_and(is_region))?;
    let (front, own) = labels.split_at(at);
    let (name, rest) = own.split_first()?;
    let mut moved: Vec<&str> = front.to_vec();
    match rest.iter().position(|label| *label == from) {
        Some(place) => {
            moved.push(name);
            moved.extend(rest.get(..place)?);
            moved.push(to);
            moved.extend(rest.get(place + 1..)?);
        }
        // s3.amazonaws.com and s3-eu-west-1.amazonaws.com
        None if rest.first() == Some(&"amazonaws") => {
            moved.extend(["s3", to]);
            moved.extend(rest);
        }
        None => return None,
    }
    Some(moved.join("."))
}

fn found<'h>(signing_name: &'h str, region: &'h str, suffix: &'static Suffix) -> Recognised<'h> {
    let (style, partition) = (style_of(signing_name), partition_of(region, suffix));
    Recognised { signing_name, region, partition, style, variant: Variant::V4, own_api: false, owner_reads: false }
}

/// The path rule that belongs to a signing name.
pub fn style_of(signing_name: &str) -> Style {
    match signing_name {
        "s3" | "s3-object-lambda" | "s3-outposts" | "s3express" => Style::S3,
        _ => Style::Generic,
    }
}

/// Regions of partitions beside the commercial one, by their first letters.
const PARTITIONS: &[(&str, &str)] = &[
    ("us-gov-", "aws-us-gov"),
    ("cn-", "aws-cn"),
    ("eusc-", "aws-eusc"),
    ("us-iso-", "aws-iso"),
    ("us-isob-", "aws-iso-b"),
    ("us-isof-", "aws-iso-f"),
    ("eu-isoe-", "aws-iso-e"),
];

/// GovCloud shares its DNS suffixes with the commercial partition; the region tells.
fn partition_of(region: &str, suffix: &'static Suffix) -> &'static str {
    match suffix.partition {
        "aws" => PARTITIONS.iter().find(|(prefix, _)| region.starts_with(prefix)).map_or("aws", |(_, partition)| partition),
        partition => partition,
    }
}

fn split_region(rest: &str) -> Option<(&str, &str)> {
    rest.rsplit_once('.').filter(|(_, region)| is_region(region))
}

fn without_fips(label: &str) -> &str {
    let label = label.strip_prefix("fips.").or_else(|| label.strip_prefix("fips-")).unwrap_or(label);
    label.strip_suffix("-fips").unwrap_or(label)
}

#[cfg(test)]
mod s3_hosts {
    #[test]
    fn hosts_of_another_region() {
        for (host, expected) in [
            ("s3.us-east-1.amazonaws.com", Some("s3.eu-west-1.amazonaws.com")),
            ("b.s3.us-east-1.amazonaws.com", Some("b.s3.eu-west-1.amazonaws.com")),
            ("us-east-1.s3.us-east-1.amazonaws.com", Some("us-east-1.s3.eu-west-1.amazonaws.com")),
            ("b.s3.dualstack.us-east-1.amazonaws.com", Some("b.s3.dualstack.eu-west-1.amazonaws.com")),
            ("b.s3-fips.us-east-1.amazonaws.com", Some("b.s3-fips.eu-west-1.amazonaws.com")),
            ("a.b.s3.amazonaws.com", Some("a.b.s3.eu-west-1.amazonaws.com")),
            ("s3-us-east-1.amazonaws.com", Some("s3.eu-west-1.amazonaws.com")),
            ("b.s3-accelerate.amazonaws.com", None),
            ("minio.internal", None),
        ] {
            assert_eq!(super::s3_host_in(host, "us-east-1", "eu-west-1").as_deref(), expected, "{host}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(host: &str) -> Option<String> {
        hinted(host, None)
    }

    fn hinted(host: &str, hint: Option<Hint<'_>>) -> Option<String> {
        let knowledge = Knowledge::shipped().unwrap();
        recognise(&knowledge, host, hint).map(|found| {
            let variant = if found.variant == Variant::V4 { String::new() } else { format!(" {}", found.variant.name()) };
            format!("{} {}{variant}", found.signing_name, found.region)
        })
    }

    #[test]
    fn hosts_that_name_a_service_and_a_region() {
        for (host, expected) in [
            ("dynamodb.us-east-1.amazonaws.com", "dynamodb us-east-1"),
            ("dynamodb-fips.us-gov-west-1.amazonaws.com", "dynamodb us-gov-west-1"),
            ("fips.batch.us-east-1.amazonaws.com", "batch us-east-1"),
            ("sqs.cn-north-1.amazonaws.com.cn", "sqs cn-north-1"),
            ("lambda.eu-west-1.api.aws", "lambda eu-west-1"),
            ("email.eu-west-1.amazonaws.com", "ses eu-west-1"),
            ("monitoring.eu-west-1.amazonaws.com", "monitoring eu-west-1"),
            ("api.ecr.eu-west-1.amazonaws.com", "ecr eu-west-1"),
            ("runtime-fips.lex.us-east-1.amazonaws.com", "lex us-east-1"),
            ("runtime.sagemaker.us-east-1.amazonaws.com", "sagemaker us-east-1"),
            ("bedrock-runtime.us-west-2.amazonaws.com", "bedrock us-west-2"),
            ("streams.dynamodb.us-west-2.amazonaws.com", "dynamodb us-west-2"),
            ("123456789012.ddb.us-east-1.amazonaws.com", "dynamodb us-east-1"),
            ("abc123.execute-api.us-east-1.amazonaws.com", "execute-api us-east-1"),
            ("search-logs-xyz.eu-west-1.es.amazonaws.com", "es eu-west-1"),
            ("abc.us-east-1.aoss.amazonaws.com", "aoss us-east-1"),
            ("aps-workspaces.us-east-1.amazonaws.com", "aps us-east-1"),
            ("abc.lambda-url.us-east-1.on.aws", "lambda us-east-1"),
            ("queue.amazonaws.com", "sqs us-east-1"),
            ("eu-west-1.queue.amazonaws.com", "sqs eu-west-1"),
            ("iam.amazonaws.com", "iam us-east-1"),
            ("iam.us-gov.amazonaws.com", "iam us-gov-west-1"),
            ("route53.global.api.aws", "route53 us-east-1"),
            ("sts.amazonaws.com", "sts us-east-1"),
            ("sts.eu-west-1.amazonaws.com", "sts eu-west-1"),
            ("vpce-1-a.sqs.us-east-1.vpce.amazonaws.com", "sqs us-east-1"),
            ("bucket.vpce-1-a.s3.us-east-1.vpce.amazonaws.com", "s3 us-east-1"),
            ("ec2.eusc-de-east-1.amazonaws.eu", "ec2 eusc-de-east-1"),
            ("access-analyzer-fips.us-iso-east-1.api.aws.ic.gov", "access-analyzer us-iso-east-1"),
            ("partnercentral-channel.global.api.aws", "partnercentral-channel * v4a"),
            ("codecatalyst.global.api.aws", "codecatalyst us-east-1 bearer"),
            ("account-access-runtime.us-east-1.api.aws", "account-access us-east-1 bearer"),
            ("sdb.eu-west-1.amazonaws.com", "sdb eu-west-1"),
            ("importexport.amazonaws.com", "IngestionService us-east-1 v2"),
            ("sync-states.eu-west-1.amazonaws.com", "states eu-west-1"),
            ("workflows-omics.us-east-1.amazonaws.com", "omics us-east-1"),
            ("env.airflow.us-east-1.amazonaws.com", "airflow us-east-1"),
            ("123456789012.streams-ddb.us-east-1.amazonaws.com", "dynamodb us-east-1"),
            ("123456789012.data-kinesis.us-east-1.amazonaws.com", "kinesis us-east-1"),
            ("abc.def.data-kinesis.us-east-1.amazonaws.com", "kinesis us-east-1"),
            ("g-abc.us-east-1.neptune-graph.amazonaws.com", "neptune-graph us-east-1"),
            ("ingest-cell2.timestream.us-east-1.amazonaws.com", "timestream us-east-1"),
            ("query-cell1.timestream.eu-west-1.amazonaws.com", "timestream eu-west-1"),
            ("abcde.endpoint.events.amazonaws.com", "events * v4a"),
            ("123456789012.cloudfront-kvs.global.api.aws", "cloudfront-keyvaluestore * v4a"),
            ("abc.endpoints.email.global.api.aws", "ses * v4a"),
            ("s1.osm.us-east-1.on.aws", "osm us-east-1"),
            ("brandnew.eu-west-1.amazonaws.com", "brandnew eu-west-1 unknown"),
            ("vpce-1-a.brandnew.us-east-1.vpce.amazonaws.com", "brandnew us-east-1 unknown"),
            // A region that is newer than the table.
            ("sqs.eu-north-9.amazonaws.com", "sqs eu-north-9"),
            // Its endpoint depends on what the operation says.
            ("acm.eu-west-1.amazonaws.com", "acm eu-west-1"),
            ("wellarchitected-agent.eu-west-1.amazonaws.com", "wellarchitected eu-west-1"),
        ] {
            assert_eq!(scope(host).as_deref(), Some(expected), "{host}");
        }
    }

    #[test]
    fn s3_in_its_shapes() {
        let knowledge = Knowledge::shipped().unwrap();
        for (host, expected) in [
            ("s3.amazonaws.com", "s3 us-east-1"),
            ("s3.eu-west-1.amazonaws.com", "s3 eu-west-1"),
            ("s3-eu-west-1.amazonaws.com", "s3 eu-west-1"),
            ("s3.dualstack.eu-west-1.amazonaws.com", "s3 eu-west-1"),
            ("s3-fips.dualstack.us-gov-west-1.amazonaws.com", "s3 us-gov-west-1"),
            ("my.dotted.bucket.s3.eu-west-1.amazonaws.com", "s3 eu-west-1"),
            ("bucket.s3-eu-west-1.amazonaws.com", "s3 eu-west-1"),
            ("foo.s3.s3.amazonaws.com", "s3 us-east-1"),
            ("us-west-2.s3.eu-west-1.amazonaws.com", "s3 eu-west-1"),
            ("bucket.s3-accelerate.amazonaws.com", "s3 us-east-1"),
            ("ap-123456789012.s3-accesspoint.us-west-2.amazonaws.com", "s3 us-west-2"),
            ("123456789012.s3-control.us-west-2.amazonaws.com", "s3 us-west-2"),
            ("mfzwi23gnjvgw.accesspoint.s3-global.amazonaws.com", "s3 * v4a"),
            ("b--use1-az4--x-s3.s3express-use1-az4.us-east-1.amazonaws.com", "s3express us-east-1"),
            ("s3express-control.us-east-1.amazonaws.com", "s3express us-east-1"),
            ("ap-1.op-01.s3-outposts.us-west-2.amazonaws.com", "s3-outposts us-west-2"),
            ("b.s3-website-us-east-1.amazonaws.com", "s3 us-east-1 none"),
            ("b.s3-website.eu-central-1.amazonaws.com", "s3 eu-central-1 none"),
        ] {
            assert_eq!(scope(host).as_deref(), Some(expected), "{host}");
            assert_eq!(recognise(&knowledge, host, None).map(|found| found.style), Some(Style::S3), "{host}");
        }
    }

    #[test]
    fn where_an_s3_host_has_the_bucket() {
        use HostBucket::{AccessPoint, Control, InPath, Named, Unclear};
        for (host, expected) in [
            ("s3.amazonaws.com", InPath),
            ("s3.eu-west-1.amazonaws.com", InPath),
            ("s3-eu-west-1.amazonaws.com", InPath),
            ("s3.dualstack.eu-west-1.amazonaws.com", InPath),
            ("s3-fips.us-gov-west-1.amazonaws.com", InPath),
            ("s3express-control.us-east-1.amazonaws.com", InPath),
            ("my.dotted.s3.eu-west-1.amazonaws.com", Named("my.dotted")),
            ("foo.s3.s3.amazonaws.com", Named("foo.s3")),
            ("us-west-2.s3.eu-west-1.amazonaws.com", Named("us-west-2")),
            ("x.s3-control.y.s3.eu-west-1.amazonaws.com", Named("x.s3-control.y")),
            ("s3-control.s3.amazonaws.com", Named("s3-control")),
            ("b.s3-accesspoint.x.s3.eu-west-1.amazonaws.com", Named("b.s3-accesspoint.x")),
            ("b.s3-eu-west-1.amazonaws.com", Named("b")),
            ("b.s3-fips.dualstack.us-east-1.amazonaws.com", Named("b")),
            ("b.s3-accelerate.dualstack.amazonaws.com", Named("b")),
            ("b.s3-website-us-east-1.amazonaws.com", Named("b")),
            ("b.s3-website.eu-central-1.amazonaws.com", Named("b")),
            ("b.s3.cn-north-1.amazonaws.com.cn", Named("b")),
            ("b--use1-az4--x-s3.s3express-use1-az4.us-east-1.amazonaws.com", Named("b--use1-az4--x-s3")),
            ("ap-123456789012.s3-accesspoint.us-west-2.amazonaws.com", AccessPoint("ap-123456789012")),
            ("ap-123456789012.s3-accesspoint-fips.dualstack.us-west-2.amazonaws.com", AccessPoint("ap-123456789012")),
            ("mfzwi23gnjvgw.accesspoint.s3-global.amazonaws.com", AccessPoint("mfzwi23gnjvgw")),
            ("123456789012.s3-control.us-west-2.amazonaws.com", Control),
            ("s3-control.us-west-2.amazonaws.com", Control),
            ("vpce-1-a.s3.us-east-1.vpce.amazonaws.com", InPath),
            ("bucket.vpce-1-a.s3.us-east-1.vpce.amazonaws.com", InPath),
            ("b.c.bucket.vpce-1-a.s3.us-east-1.vpce.amazonaws.com", Named("b.c")),
            ("ap-1.accesspoint.vpce-1-a.s3.us-east-1.vpce.amazonaws.com", AccessPoint("ap-1")),
            ("1.control.vpce-1-a.s3.us-east-1.vpce.amazonaws.com", Control),
            ("x.s3-object-lambda.us-east-1.amazonaws.com", AccessPoint("x")),
            ("ap-1.op-01.s3-outposts.us-west-2.amazonaws.com", AccessPoint("ap-1.op-01")),
            ("s3-outposts.us-west-2.amazonaws.com", Unclear),
            ("sqs.us-east-1.amazonaws.com", Unclear),
        ] {
            assert_eq!(bucket_in_host(host), Some(expected), "{host}");
        }
        assert_eq!(bucket_in_host("b.s3.minio.internal"), None);
    }

    #[test]
    fn what_a_customer_answers_for() {
        let knowledge = Knowledge::shipped().unwrap();
        for (host, expected) in [
            ("abc.execute-api.us-east-1.amazonaws.com", true),
            ("abc.lambda-url.us-east-1.on.aws", true),
            ("abc.appsync-api.us-east-1.amazonaws.com", true),
            ("abc.appsync-realtime-api.us-east-1.amazonaws.com", true),
            ("g.gateway.bedrock-agentcore.us-east-1.amazonaws.com", true),
            ("svc.1234.vpc-lattice-svcs.us-east-1.on.aws", true),
            ("execute-api.us-east-1.amazonaws.com", true),
            ("vpce-1-a.execute-api.us-east-1.vpce.amazonaws.com", true),
            ("participant.connect.us-east-1.amazonaws.com", false),
            ("search-logs.eu-west-1.es.amazonaws.com", false),
            ("abc.us-east-1.aoss.amazonaws.com", false),
            ("lambda.us-east-1.amazonaws.com", false),
            ("es.us-east-1.amazonaws.com", false),
            ("abc.iot.us-east-1.amazonaws.com", false),
            ("b.s3.us-east-1.amazonaws.com", false),
        ] {
            assert_eq!(recognise(&knowledge, host, None).map(|found| found.owner_reads), Some(expected), "{host}");
        }
    }

    #[test]
    fn strangers_under_amazons_suffixes_are_not_signed_for() {
        for host in [
            "evil-amazonaws.com",
            "s3.amazonaws.com.evil.test",
            "amazonaws.com",
            ".amazonaws.com",
            "s3..amazonaws.com",
            "ec2-203-0-113-25.compute-1.amazonaws.com",
            "ec2-203-0-113-25.us-west-2.compute.amazonaws.com",
            "my-lb-1234.us-east-1.elb.amazonaws.com",
            "my-nlb-1234.elb.us-east-1.amazonaws.com",
            "db.abc.us-east-1.rds.amazonaws.com",
            "vpce-1.vpce-svc-2.us-east-1.vpce.amazonaws.com",
            "b.s3express-use1-az4.us-east-1.amazonaws.com",
            "anything.amazonaws.com",
            "dynamodb.us-east-1.on.aws",
            "x.y.us-east-1.amazonaws.com",
            // No customer's name has a dot.
            "a.b.execute-api.us-east-1.amazonaws.com",
            "a.b.appsync-api.us-east-1.amazonaws.com",
            "a.b.lambda-url.us-east-1.on.aws",
            "a.b.us-east-1.es.amazonaws.com",
            "a.b.aos.us-east-1.on.aws",
            "a.b.iot.us-east-1.amazonaws.com",
            "a.b.gateway.bedrock-agentcore.us-east-1.amazonaws.com",
            "a.b.c.vpc-lattice-svcs.us-east-1.on.aws",
            "a.us-east-1.neptune.amazonaws.com",
            ".execute-api.us-east-1.amazonaws.com",
            "vpce-1-a.codecatalyst.x.us-east-1.vpce.amazonaws.com",
            "evilqueue.amazonaws.com",
            "x.queue.amazonaws.com",
            "127.0.0.1",
            "",
        ] {
            assert_eq!(scope(host), None, "{host}");
        }
    }

    #[test]
    fn a_hint_settles_what_shares_a_host_and_nothing_else() {
        let hint = |signing_name, region| Some(Hint { signing_name, region });
        for (host, hint, expected) in [
            ("maps.geo.us-east-1.amazonaws.com", None, "geo-maps us-east-1"),
            ("maps.geo.us-east-1.amazonaws.com", hint("geo", "us-east-1"), "geo us-east-1"),
            ("maps.geo.us-east-1.amazonaws.com", hint("geo", "eu-west-1"), "geo-maps us-east-1"),
            ("maps.geo.us-east-1.amazonaws.com", hint("sqs", "us-east-1"), "geo-maps us-east-1"),
            ("budgets.amazonaws.com", hint("budgets", "us-gov-west-1"), "budgets us-gov-west-1"),
            ("budgets.amazonaws.com", hint("budgets", "cn-north-1"), "budgets us-east-1"),
            ("sqs.us-east-1.amazonaws.com", hint("sns", "us-east-1"), "sqs us-east-1"),
            ("new-fips.us-east-1.amazonaws.com", hint("new", "us-east-1"), "new us-east-1"),
            ("new.us-east-1.amazonaws.com", hint("iam", "us-east-1"), "new us-east-1 unknown"),
            ("new.us-east-1.amazonaws.com", hint("new", "eu-west-1"), "new us-east-1 unknown"),
            ("vpce-1-a.new.us-east-1.vpce.amazonaws.com", hint("new", "us-east-1"), "new us-east-1"),
            ("git-codecommit.us-east-1.amazonaws.com", None, "codecommit us-east-1 scoped"),
            ("git-codecommit.us-east-1.amazonaws.com", hint("codecommit", "us-east-1"), "codecommit us-east-1"),
            ("git-codecommit.us-east-1.amazonaws.com", hint("git-codecommit", "us-east-1"), "codecommit us-east-1 scoped"),
            ("email-smtp.us-east-1.amazonaws.com", hint("ses", "us-east-1"), "ses us-east-1 none"),
        ] {
            assert_eq!(hinted(host, hint).as_deref(), Some(expected), "{host} {hint:?}");
        }
    }
}
