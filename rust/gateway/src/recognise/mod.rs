//! recognise: which AWS service and region does this host belong to?
//!
//! Read-only look-ups, no allocation, no regular expression. A host that merely ends like one of AWS's is not enough:
//! load balancers, EC2 instances and third parties' endpoint services live under the same suffixes, and a request signed
//! for one of those would hand a session token to a stranger. So only known shapes are recognised, and `None` is the
//! answer to all else.

mod names;

use sigward_sigv4::Style;

use crate::knowledge::Knowledge;

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
    /// False for hosts that take no signature, such as S3 websites.
    pub signed: bool,
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

/// Longest first where one ends with another. Source: botocore's `partitions.json`, and `on.aws` from Lambda's documentation.
const SUFFIXES: &[Suffix] = &[
    suffix(".api.aws.hci.ic.gov", "aws-iso-f", "us-isof-south-1"),
    suffix(".api.aws.ic.gov", "aws-iso", "us-iso-east-1"),
    suffix(".api.aws.scloud", "aws-iso-b", "us-isob-east-1"),
    suffix(".api.cloud-aws.adc-e.uk", "aws-iso-e", "eu-isoe-west-1"),
    suffix(".amazonaws.com", "aws", "us-east-1"),
    suffix(".api.aws", "aws", "us-east-1"),
    suffix(".on.aws", "aws", "us-east-1"),
    suffix(".amazonaws.com.cn", "aws-cn", "cn-northwest-1"),
    suffix(".api.amazonwebservices.com.cn", "aws-cn", "cn-northwest-1"),
    suffix(".amazonaws.eu", "aws-eusc", "eusc-de-east-1"),
    suffix(".api.amazonwebservices.eu", "aws-eusc", "eusc-de-east-1"),
    suffix(".c2s.ic.gov", "aws-iso", "us-iso-east-1"),
    suffix(".sc2s.sgov.gov", "aws-iso-b", "us-isob-east-1"),
    suffix(".cloud.adc-e.uk", "aws-iso-e", "eu-isoe-west-1"),
    suffix(".csp.hci.ic.gov", "aws-iso-f", "us-isof-south-1"),
];

/// Services whose endpoint names no region (`iam.amazonaws.com`, `route53.global.api.aws`).
const GLOBAL: &[&str] = &[
    "budgets",
    "ce",
    "chime",
    "cloudfront",
    "globalaccelerator",
    "health",
    "iam",
    "importexport",
    "networkmanager",
    "organizations",
    "partnercentral-channel",
    "route53",
    "route53domains",
    "savingsplans",
    "shield",
    "sts",
    "support",
    "sustainability",
    "waf",
];

/// Services whose customers get a name of their own in front: `{id}.execute-api.{region}.amazonaws.com`.
const PER_CUSTOMER: &[(&str, &str)] = &[
    ("appsync-api", "appsync"),
    ("appsync-realtime-api", "appsync"),
    ("ddb", "dynamodb"),
    ("execute-api", "execute-api"),
    ("iot", "iotdata"),
    ("kinesisvideo", "kinesisvideo"),
    ("mediastore", "mediastore"),
];

/// The same with the service behind the region: `{domain}.{region}.es.amazonaws.com`.
const REGION_FIRST: &[(&str, &str)] = &[("aoss", "aoss"), ("es", "es"), ("neptune", "neptune-db")];

/// Looks one host name up: lower-case, no port, no trailing dot. `None`: not a host that is known to take SigV4.
pub fn recognise(host: &str) -> Option<Recognised<'_>> {
    let (rest, suffix) = SUFFIXES.iter().find_map(|suffix| Some((host.strip_suffix(suffix.dns)?, suffix)))?;
    let named = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    if rest.is_empty() || host.len() > 253 || !rest.bytes().all(named) || rest.split('.').any(str::is_empty) {
        return None;
    }
    if suffix.dns == ".on.aws" {
        return lambda_url(rest, suffix);
    }
    if let Some(interface_endpoint) = rest.strip_suffix(".vpce") {
        return vpc_endpoint(interface_endpoint, suffix);
    }
    s3(rest, suffix).unwrap_or_else(|| {
        if let Some(found) = in_table(host, rest, suffix) {
            return Some(found);
        }
        regional(rest, suffix)
            .or_else(|| region_first(rest, suffix))
            .or_else(|| legacy_queue(rest, suffix))
            .or_else(|| global(rest, suffix))
    })
}

/// What botocore's own rules say of this host: as it stands, or by its pattern.
fn in_table<'h>(host: &'h str, rest: &'h str, suffix: &'static Suffix) -> Option<Recognised<'h>> {
    const MARK: &str = "{r}";
    let label = rest.rsplit('.').find(|label| is_region(label));
    let row = Knowledge::host(host).or_else(|| {
        let Some(label) = label else { return Knowledge::host(rest) };
        // `label` is a part of `rest`.
        let at = label.as_ptr() as usize - rest.as_ptr() as usize;
        let mut pattern = [0; 256];
        let length = rest.len() - label.len() + MARK.len();
        let (before, after) = (rest.get(..at)?, rest.get(at + label.len()..)?);
        let (head, tail) = pattern.get_mut(..length)?.split_at_mut(at);
        let (mark, tail) = tail.split_at_mut(MARK.len());
        head.copy_from_slice(before.as_bytes());
        mark.copy_from_slice(MARK.as_bytes());
        tail.copy_from_slice(after.as_bytes());
        Knowledge::host(std::str::from_utf8(pattern.get(..length)?).ok()?).or_else(|| Knowledge::host(rest))
    })?;
    let region = match &*row.region {
        MARK => label?,
        // GovCloud's global services share a suffix with the commercial partition.
        "{g}" if suffix.partition == "aws" && (rest.ends_with(".us-gov") || label.is_some_and(|label| label.starts_with("us-gov-"))) => {
            "us-gov-west-1"
        }
        "{g}" => suffix.global_region,
        region => region,
    };
    Some(found(&row.signing_name, region, suffix))
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

/// `{id}.lambda-url.{region}.on.aws`
fn lambda_url<'h>(rest: &'h str, suffix: &'static Suffix) -> Option<Recognised<'h>> {
    let (front, region) = split_region(rest)?;
    let id = front.strip_suffix(".lambda-url")?;
    (!id.contains('.')).then(|| found("lambda", region, suffix))
}

/// `{endpoint}.{service}.{region}.vpce.amazonaws.com`. A `vpce-svc-…` in the service's place is a third party's.
fn vpc_endpoint<'h>(rest: &'h str, suffix: &'static Suffix) -> Option<Recognised<'h>> {
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
    Some(found(signing_name(service)?, region, suffix))
}

/// `{service}.{region}` and `{id}.{service}.{region}`, FIPS marks in any of their places.
fn regional<'h>(rest: &'h str, suffix: &'static Suffix) -> Option<Recognised<'h>> {
    let (prefix, region) = split_region(rest)?;
    let per_customer = prefix.rsplit_once('.').and_then(|(_, service)| {
        let service = without_fips(service);
        PER_CUSTOMER.iter().find(|(label, _)| *label == service).map(|(_, name)| *name)
    });
    Some(found(per_customer.or_else(|| signing_name(prefix))?, region, suffix))
}

/// `{domain}.{region}.es.amazonaws.com`
fn region_first<'h>(rest: &'h str, suffix: &'static Suffix) -> Option<Recognised<'h>> {
    let (front, service) = rest.rsplit_once('.')?;
    let (_, name) = REGION_FIRST.iter().find(|(label, _)| *label == service)?;
    let (_, region) = split_region(front)?;
    Some(found(name, region, suffix))
}

/// SQS's first names, which the AWS CLI still uses: `queue.amazonaws.com`, `{region}.queue.amazonaws.com`.
fn legacy_queue<'h>(rest: &'h str, suffix: &'static Suffix) -> Option<Recognised<'h>> {
    match rest.strip_suffix("queue")? {
        "" => Some(found("sqs", suffix.global_region, suffix)),
        region => region.strip_suffix('.').filter(|region| is_region(region)).map(|region| found("sqs", region, suffix)),
    }
}

/// `iam.amazonaws.com`, `iam.us-gov.amazonaws.com`, `route53.global.api.aws`
fn global<'h>(rest: &'h str, suffix: &'static Suffix) -> Option<Recognised<'h>> {
    let (rest, region, partition) = match rest.strip_suffix(".us-gov") {
        Some(rest) => (rest, "us-gov-west-1", "aws-us-gov"),
        None => (rest.strip_suffix(".global").unwrap_or(rest), suffix.global_region, suffix.partition),
    };
    let service = without_fips(rest);
    let region = if service == "iam" && partition == "aws-cn" { "cn-north-1" } else { region };
    GLOBAL.contains(&service).then_some(Recognised { signing_name: service, region, partition, style: Style::Generic, signed: true })
}

/// S3 in its shapes. Outer `None`: not S3's. Inner `None`: S3's, but not one that is signed with the caller's keys as they are.
fn s3<'h>(rest: &'h str, suffix: &'static Suffix) -> Option<Option<Recognised<'h>>> {
    let (front, region) = split_region(rest).unwrap_or((rest, suffix.global_region));
    let front = front.strip_suffix(".dualstack").unwrap_or(front);
    let label = front.rsplit('.').next()?;
    let alone = label.len() == front.len();
    let answer = |signing_name, region, signed| {
        let partition = partition_of(region, suffix);
        Some(Some(Recognised { signing_name, region, partition, style: Style::S3, signed }))
    };
    match label {
        "s3" | "s3-fips" | "s3-accelerate" | "s3-control" | "s3-control-fips" => answer("s3", region, true),
        "s3-accesspoint" | "s3-accesspoint-fips" if !alone => answer("s3", region, true),
        "s3-object-lambda" | "s3-object-lambda-fips" => answer("s3-object-lambda", region, true),
        "s3-outposts" | "s3-outposts-fips" => answer("s3-outposts", region, true),
        "s3express-control" | "s3express-control-fips" => answer("s3express", region, true),
        "s3-website" => answer("s3", region, false),
        // Session credentials of their own (CreateSession): not the caller's keys.
        _ if label.starts_with("s3express-") => Some(None),
        _ => {
            if let Some(region) = label.strip_prefix("s3-website-").filter(|region| is_region(region)) {
                return answer("s3", region, false);
            }
            // The old dash style: s3-eu-west-1.amazonaws.com
            let region = label.strip_prefix("s3-").map(|region| region.strip_prefix("fips-").unwrap_or(region));
            match region.filter(|region| is_region(region)) {
                Some(region) => answer("s3", region, true),
                None => None,
            }
        }
    }
}

fn found<'h>(signing_name: &'h str, region: &'h str, suffix: &'static Suffix) -> Recognised<'h> {
    let style = style_of(signing_name);
    Recognised { signing_name, region, partition: partition_of(region, suffix), style, signed: true }
}

/// The path rule that belongs to a signing name.
pub fn style_of(signing_name: &str) -> Style {
    match signing_name {
        "s3" | "s3-object-lambda" | "s3-outposts" | "s3express" => Style::S3,
        _ => Style::Generic,
    }
}

/// GovCloud shares its DNS suffixes with the commercial partition; the region tells.
fn partition_of(region: &str, suffix: &'static Suffix) -> &'static str {
    match suffix.partition {
        "aws" if region.starts_with("us-gov-") => "aws-us-gov",
        "aws" if region.starts_with("cn-") => "aws-cn",
        "aws" if region.starts_with("eusc-") => "aws-eusc",
        partition => partition,
    }
}

fn split_region(rest: &str) -> Option<(&str, &str)> {
    rest.rsplit_once('.').filter(|(_, region)| is_region(region))
}

/// A single label names itself unless the table knows better; several labels must stand in the table.
fn signing_name(prefix: &str) -> Option<&str> {
    let plain = without_fips(prefix);
    let looked_up = |prefix: &str| {
        let at = names::SIGNING_NAMES.binary_search_by_key(&prefix, |(prefix, _)| prefix).ok()?;
        names::SIGNING_NAMES.get(at).map(|(_, name)| *name)
    };
    looked_up(plain).or_else(|| match plain.split_once('.') {
        None => Some(plain),
        // FIPS marks sit on the first of two labels: runtime-fips.lex
        Some((first, second)) => {
            let first = without_fips(first);
            names::SIGNING_NAMES.iter().find(|(prefix, _)| prefix.split_once('.') == Some((first, second))).map(|(_, name)| *name)
        }
    })
}

fn without_fips(label: &str) -> &str {
    let label = label.strip_prefix("fips.").or_else(|| label.strip_prefix("fips-")).unwrap_or(label);
    label.strip_suffix("-fips").unwrap_or(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(host: &str) -> Option<String> {
        recognise(host).map(|found| {
            let unsigned = if found.signed { "" } else { " unsigned" };
            format!("{} {}{unsigned}", found.signing_name, found.region)
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
            ("account-access-runtime.us-east-1.api.aws", "account-access us-east-1"),
            ("partnercentral-channel.global.api.aws", "partnercentral-channel *"),
        ] {
            assert_eq!(scope(host).as_deref(), Some(expected), "{host}");
        }
    }

    #[test]
    fn s3_in_its_shapes() {
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
            ("b.s3-website-us-east-1.amazonaws.com", "s3 us-east-1 unsigned"),
            ("b.s3-website.eu-central-1.amazonaws.com", "s3 eu-central-1 unsigned"),
        ] {
            assert_eq!(scope(host).as_deref(), Some(expected), "{host}");
            assert_eq!(recognise(host).map(|found| found.style), Some(Style::S3), "{host}");
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
            "evilqueue.amazonaws.com",
            "x.queue.amazonaws.com",
            "127.0.0.1",
            "",
        ] {
            assert_eq!(scope(host), None, "{host}");
        }
    }

    #[test]
    fn the_table_is_sorted_for_binary_search() {
        assert!(names::SIGNING_NAMES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
