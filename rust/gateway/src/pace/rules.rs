//! Which bucket a request draws from: the operator's rules, then a table of limits that AWS documents.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Key, Limit, Pacer, Patience};
use crate::knowledge::Operation;
use crate::route::{BucketPattern, Pattern};
use crate::settings::{PaceSettings, Per, WhenFull};

/// What rules look at.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The service in the scope.
    pub signing_name: &'a str,
    /// The same; of a service that nobody knows, `other`.
    pub known_as: &'a str,
    /// The operation, if the table tells.
    pub operation: Option<&'a Operation>,
    /// The region in the scope; of one that nobody knows, `other`.
    pub region: &'a str,
    /// The account, or who signs: limits are the account's.
    pub account: &'a str,
    /// The method.
    pub method: &'a str,
    /// The S3 bucket, and the key in it, decoded.
    pub object: Option<(&'a str, &'a [u8])>,
    /// Who asks.
    pub client: &'a str,
}

/// The bucket of one request.
#[derive(Clone, Debug)]
pub struct Paced {
    /// Which.
    pub key: Key,
    /// How fast it fills.
    pub limit: Limit,
    /// How long to wait.
    pub patience: Patience,
    /// The rule's name, for the client and the metrics; one of a few.
    pub rule: Arc<str>,
    /// The limit's name in the fleet's store, and what is taken of it without the store.
    pub shared: Option<(Arc<str>, f64)>,
}

#[derive(Debug)]
struct Rule {
    name: Arc<str>,
    service: Pattern,
    operation: Pattern,
    methods: &'static [&'static str],
    bucket: Option<BucketPattern>,
    per: Vec<Per>,
    limit: Limit,
    patience: Patience,
}

/// All rules; the first that fits counts.
#[derive(Debug, Default)]
pub struct Paces {
    rules: Vec<Rule>,
    /// Where to look first: rules of a service by its name. Those for several services are in each list that there is.
    by_service: HashMap<Box<str>, Vec<u32>>,
    others: Vec<u32>,
    adaptive: bool,
    patience: Patience,
    /// A fleet shares the limits.
    share: Option<f64>,
}

impl Default for Patience {
    fn default() -> Self {
        Self { wait: Duration::from_secs(30), places: 10_000 }
    }
}

const READS: &[&str] = &["GET", "HEAD"];
const WRITES: &[&str] = &["PUT", "POST", "DELETE"];

/// One documented limit: operations, calls a second, burst, what shares it.
struct Known {
    operations: &'static str,
    methods: &'static [&'static str],
    rate: f64,
    burst: f64,
    per: &'static [Per],
}

const fn known(operations: &'static str, rate: f64, burst: f64, per: &'static [Per]) -> Known {
    Known { operations, methods: &[], rate, burst, per }
}

const EACH: &[Per] = &[Per::Account, Per::Region, Per::Operation];
const ALL: &[Per] = &[Per::Account, Per::Region];
const GLOBAL: &[Per] = &[Per::Account];
const PREFIX: &[Per] = &[Per::Bucket, Per::Prefix];

/// Limits that AWS documents, for accounts and regions where nothing was raised. Sources, all under docs.aws.amazon.com, read in 2026:
/// EC2 Developer Guide, "Request throttling" (a bucket of each API action; the rate is the refill, but `DescribeInstances`: its bucket
/// a second); S3 User Guide, "Optimizing Amazon S3 performance"; the others "Service endpoints and quotas" of the AWS General
/// Reference and each service's guide. What is not documented (IAM, `CloudFormation`, `DynamoDB`'s tables) is not here: adaptive mode
/// learns it.
const DOCUMENTED: &[Known] = &[
    known("ec2:DescribeInstances", 100.0, 100.0, EACH),
    known("ec2:RunInstances", 2.0, 5.0, EACH),
    known("ec2:StartInstances", 2.0, 5.0, EACH),
    known("ec2:TerminateInstances", 5.0, 100.0, EACH),
    known("ec2:Describe*", 20.0, 100.0, EACH),
    known("ec2:Get*", 20.0, 100.0, EACH),
    known("ec2:List*", 20.0, 100.0, EACH),
    known("ec2:Search*", 20.0, 100.0, EACH),
    known("ec2:*", 5.0, 50.0, EACH),
    Known { operations: "s3:*", methods: READS, rate: 5500.0, burst: 5500.0, per: PREFIX },
    Known { operations: "s3:*", methods: WRITES, rate: 3500.0, burst: 3500.0, per: PREFIX },
    known("sts:*", 600.0, 600.0, ALL),
    known("ssm:GetParameter*", 40.0, 40.0, ALL),
    known("ssm:PutParameter", 3.0, 3.0, EACH),
    known("route53:*", 5.0, 5.0, GLOBAL),
    known("kinesis:CreateStream", 5.0, 5.0, EACH),
    known("kinesis:DeleteStream", 5.0, 5.0, EACH),
    known("kinesis:ListStreams", 5.0, 5.0, EACH),
    known("kinesis:DescribeStream", 10.0, 10.0, EACH),
    known("kinesis:DescribeStreamSummary", 20.0, 20.0, EACH),
    known("monitoring:GetMetricData", 50.0, 50.0, EACH),
    known("monitoring:GetMetricStatistics", 400.0, 400.0, EACH),
    known("monitoring:ListMetrics", 25.0, 25.0, EACH),
    known("monitoring:PutMetricData", 500.0, 500.0, EACH),
    known("monitoring:PutMetricAlarm", 3.0, 3.0, EACH),
    known("logs:DescribeLogGroups", 10.0, 10.0, EACH),
    known("logs:DescribeLogStreams", 25.0, 25.0, EACH),
    known("logs:FilterLogEvents", 5.0, 5.0, EACH),
    known("logs:GetLogEvents", 25.0, 25.0, EACH),
    known("lambda:Invoke*", f64::INFINITY, 1.0, EACH),
    known("lambda:GetFunction", 100.0, 100.0, EACH),
    known("lambda:*", 15.0, 15.0, ALL),
    known("apigateway:*", 10.0, 40.0, ALL),
    known("cloudtrail:LookupEvents", 2.0, 2.0, EACH),
    known("athena:StartQueryExecution", 20.0, 80.0, EACH),
    known("athena:GetQueryExecution", 100.0, 200.0, EACH),
    known("athena:GetQueryResults", 100.0, 200.0, EACH),
    known("secretsmanager:GetSecretValue", 10_000.0, 10_000.0, EACH),
];

impl Paces {
    /// Checks the rules. The error names the rule, the field and the mend.
    pub fn new(settings: &PaceSettings, adaptive: bool) -> Result<Self, String> {
        let mut rules = Vec::new();
        for (at, given) in settings.rules.iter().enumerate() {
            let wrong = |field: &str, why: &str| Err(format!("pace #{}: {field}: {why}", at + 1));
            if !(given.rate.is_finite() && (1e-6..=1e9).contains(&given.rate)) {
                return wrong("rate", "calls a second are expected, from 0.000001 to 1e9");
            }
            let burst = given.burst.unwrap_or_else(|| given.rate.max(1.0));
            if !(1.0..=1e9).contains(&burst) {
                return wrong("burst", "calls at once are expected, from 1 to 1e9");
            }
            let operation = given.operation.as_deref().unwrap_or("*:*");
            let Some((service, name)) = operation.split_once(':').filter(|(service, name)| !service.is_empty() && !name.is_empty()) else {
                return wrong("operation", "service:Operation is expected, e.g. ec2:Describe* or s3:*");
            };
            let bucket = given.bucket.as_deref().map(BucketPattern::new);
            let per = match (&given.per, &bucket) {
                (Some(per), _) => per.clone(),
                (None, Some(_)) => vec![Per::Bucket],
                (None, None) => EACH.to_vec(),
            };
            let wait = if given.when_full == WhenFull::Refuse { Duration::ZERO } else { given.max_wait.unwrap_or(settings.max_wait) };
            rules.push(Rule {
                name: if given.name.is_empty() { operation.into() } else { given.name.as_str().into() },
                service: Pattern::without_case(service),
                operation: Pattern::without_case(name),
                methods: &[],
                bucket,
                per,
                limit: Limit { rate: given.rate, burst },
                patience: Patience { wait, places: settings.places },
            });
        }
        let patience = Patience { wait: settings.max_wait, places: settings.places };
        for known in DOCUMENTED.iter().filter(|_| settings.defaults) {
            let (service, name) = known.operations.split_once(':').unwrap_or((known.operations, "*"));
            rules.push(Rule {
                name: known.operations.into(),
                service: Pattern::without_case(service),
                operation: Pattern::without_case(name),
                methods: known.methods,
                bucket: None,
                per: known.per.to_vec(),
                limit: Limit { rate: known.rate, burst: known.burst },
                patience,
            });
        }
        let share = settings.shared.is_some().then_some(settings.share);
        let mut paces = Self { rules, adaptive, patience, share, ..Self::default() };
        paces.index();
        Ok(paces)
    }

    fn index(&mut self) {
        let named: Vec<Box<str>> =
            self.rules.iter().filter_map(|rule| rule.service.literal().map(|name| name.to_ascii_lowercase().into())).collect();
        for name in named {
            let fitting = |rule: &Rule| rule.service.matches(&name);
            let list = self.rules.iter().enumerate().filter(|(_, rule)| fitting(rule)).map(|(at, _)| at as u32).collect();
            self.by_service.insert(name, list);
        }
        self.others = self.rules.iter().enumerate().filter(|(_, rule)| rule.service.literal().is_none()).map(|(at, _)| at as u32).collect();
    }

    /// The bucket of a request; `None`: it goes at its own pace.
    pub fn find(&self, pacer: &Pacer, subject: &Subject<'_>) -> Option<Paced> {
        let own = |name: &str| {
            if name.bytes().any(|letter| letter.is_ascii_uppercase()) {
                self.by_service.get(name.to_ascii_lowercase().as_str())
            } else {
                self.by_service.get(name)
            }
        };
        // A rule may call a service by its signing name or by botocore's.
        let lists = [
            own(subject.signing_name),
            subject.operation.filter(|found| *found.service != *subject.signing_name).and_then(|found| own(&found.service)),
        ];
        let mut candidates =
            lists.into_iter().flatten().flatten().chain(if lists == [None, None] { self.others.iter() } else { [].iter() });
        let found = candidates.find_map(|at| {
            let rule = self.rules.get(*at as usize)?;
            rule.fits(subject).then_some((at, rule))
        });
        match found {
            // Operations of which it is said that nothing is known.
            Some((_, rule)) if !rule.limit.rate.is_finite() && !self.adaptive => None,
            Some((at, rule)) => Some(Paced {
                key: pacer.key((at, rule.parts(subject))),
                limit: rule.limit,
                patience: rule.patience,
                rule: Arc::clone(&rule.name),
                shared: self.share.filter(|_| rule.limit.rate.is_finite()).map(|share| (rule.shared_name(subject), share)),
            }),
            None if self.adaptive => {
                let name = subject.operation.map_or("", |operation| &*operation.name);
                Some(Paced {
                    key: pacer.key((subject.account, subject.region, subject.known_as, name)),
                    limit: Limit::NONE,
                    patience: self.patience,
                    rule: "adaptive".into(),
                    shared: None,
                })
            }
            None => None,
        }
    }
}

impl Rule {
    fn fits(&self, subject: &Subject<'_>) -> bool {
        let service =
            self.service.matches(subject.signing_name) || subject.operation.is_some_and(|found| self.service.matches(&found.service));
        let operation = self.operation.is_all() || subject.operation.is_some_and(|found| self.operation.matches(&found.name));
        let method = self.methods.is_empty() || self.methods.contains(&subject.method);
        let bucket = |pattern: &BucketPattern| subject.object.is_some_and(|(bucket, key)| pattern.is_for(bucket, key));
        service && operation && method && self.bucket.as_ref().is_none_or(bucket)
    }

    /// The same on every host of a fleet, whatever its rules' order.
    fn shared_name(&self, subject: &Subject<'_>) -> Arc<str> {
        let parts = self.parts(subject).join(&b'/');
        format!("sigward:pace:{}:{}:{}", self.name, self.limit.rate, String::from_utf8_lossy(&parts)).into()
    }

    fn parts<'a>(&self, subject: &Subject<'a>) -> [&'a [u8]; 6] {
        let mut parts = [&b""[..]; 6];
        let (bucket, key) = subject.object.unwrap_or_default();
        for (part, per) in parts.iter_mut().zip(&self.per) {
            *part = match per {
                Per::Account => subject.account.as_bytes(),
                Per::Region => subject.region.as_bytes(),
                Per::Operation => subject.operation.map_or(b"", |operation| operation.name.as_bytes()),
                Per::Bucket => bucket.as_bytes(),
                // S3 divides a bucket by prefixes of its own choice; those that end in a slash are the nearest to be known.
                Per::Prefix => key.iter().rposition(|byte| *byte == b'/').and_then(|slash| key.get(..slash)).unwrap_or_default(),
                Per::Client => subject.client.as_bytes(),
            };
        }
        parts
    }
}

/// The account that an access key id of AWS's belongs to: 12 digits, coded in the id itself. `None`: an old id, or none of AWS's.
pub fn account_of(access_key_id: &str) -> Option<String> {
    let coded = access_key_id.strip_prefix("AKIA").or_else(|| access_key_id.strip_prefix("ASIA")).filter(|rest| rest.len() == 16)?;
    let mut bits = 0_u64;
    for letter in coded.bytes().take(10) {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'2'..=b'7' => letter - b'2' + 26,
            _ => return None,
        };
        bits = bits << 5 | u64::from(value);
    }
    // 50 bits are read; the account is 40 of the first 48, after one of another meaning.
    let account = (bits >> 2 & 0x7fff_ffff_ff80) >> 7;
    (account < 1_000_000_000_000).then(|| format!("{account:012}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recognise::{Call, Sample};

    fn paces(json: &str, adaptive: bool) -> Result<Paces, String> {
        Paces::new(&serde_json::from_str(json).unwrap(), adaptive)
    }

    fn call(service: &str, host: &str, target: &str) -> Call {
        Sample { service: Some(service), host, target, ..Sample::default() }.call().unwrap()
    }

    fn subject(call: &Call) -> Subject<'_> {
        let operation = call.known_operation().map(|operation| &**operation);
        let (signing_name, object) = (call.service.as_deref().unwrap(), call.bucket_and_key());
        Subject { signing_name, known_as: signing_name, operation, region: "eu-west-1", account: "a", method: "GET", object, client: "c" }
    }

    #[test]
    fn the_documented_limits() {
        let (paces, pacer) = (paces("{}", false).unwrap(), Pacer::default());
        let host = "ec2.eu-west-1.amazonaws.com";
        let rate = |action: &str| {
            let call = call("ec2", host, &format!("/?Action={action}&Version=2016-11-15"));
            assert!(call.known_operation().is_some(), "{action}");
            paces.find(&pacer, &subject(&call)).map(|paced| (paced.limit.rate, paced.limit.burst))
        };
        assert_eq!(rate("DescribeInstances"), Some((100.0, 100.0)));
        assert_eq!(rate("DescribeVpcs"), Some((20.0, 100.0)));
        assert_eq!(rate("RunInstances"), Some((2.0, 5.0)));
        assert_eq!(rate("CreateTags"), Some((5.0, 50.0)));
        let s3 = "s3.eu-west-1.amazonaws.com";
        let keys: Vec<Key> = ["/b/p/1", "/b/p/2", "/b/q/1", "/c/p/1", "/b/p/q/1"]
            .map(|path| paces.find(&pacer, &subject(&call("s3", s3, path))).unwrap().key)
            .to_vec();
        assert_eq!(keys[0], keys[1]);
        assert!((1..5).all(|at| (at + 1..5).all(|other| keys[at] != keys[other])));
        let object = call("s3", s3, "/b/p/1");
        let read = paces.find(&pacer, &subject(&object)).unwrap();
        let write = paces.find(&pacer, &Subject { method: "PUT", ..subject(&object) }).unwrap();
        assert_eq!((read.limit.rate, write.limit.rate), (5500.0, 3500.0));
        assert!(paces.find(&pacer, &subject(&call("iam", "iam.amazonaws.com", "/"))).is_none());
        assert!(super::tests::paces(r#"{"defaults": false}"#, false).unwrap().rules.is_empty());
    }

    #[test]
    fn the_documented_limits_are_of_operations_that_there_are() {
        let rules: Vec<_> = DOCUMENTED.iter().map(|known| serde_json::json!({"operation": known.operations, "rate": 1})).collect();
        let settings = serde_json::json!({"pace": {"rules": rules}}).to_string();
        let settings = crate::settings::EngineSettings::from_json(&settings).unwrap();
        let told = crate::rules::check(&settings, &crate::knowledge::Knowledge::shipped().unwrap()).unwrap();
        // S3's reads and writes differ by their methods alone.
        assert!(matches!(told.as_slice(), [only] if only.contains("pace #10 comes first")), "{told:?}");
    }

    #[test]
    fn an_operators_rule_comes_first() {
        let (paces, pacer) = (
            paces(r#"{"rules": [{"operation": "*:Describe*", "rate": 3, "when_full": "refuse"}, {"bucket": "logs", "rate": 7, "per": ["bucket", "client"]}]}"#, true)
                .unwrap(),
            Pacer::default(),
        );
        let described = call("ec2", "ec2.eu-west-1.amazonaws.com", "/?Action=DescribeInstances&Version=2016-11-15");
        let paced = paces.find(&pacer, &subject(&described)).unwrap();
        assert_eq!((paced.limit.rate, paced.patience.wait, &*paced.rule), (3.0, Duration::ZERO, "*:Describe*"));
        let s3 = "logs.s3.eu-west-1.amazonaws.com";
        let object = call("s3", s3, "/x");
        let of = |client| paces.find(&pacer, &Subject { client, ..subject(&object) }).unwrap();
        assert!((of("a").limit.rate - 7.0).abs() < 1e-9);
        assert_ne!(of("a").key, of("b").key);
        let unknown = paces.find(&pacer, &subject(&call("iam", "iam.amazonaws.com", "/"))).unwrap();
        assert_eq!(unknown.limit, Limit::NONE);
    }

    #[test]
    fn rules_that_do_not_hold_name_the_field() {
        for (rule, said) in [
            (r#"{"rate": 0}"#, "pace #1: rate"),
            (r#"{"rate": -1}"#, "pace #1: rate"),
            (r#"{"rate": 1e300}"#, "pace #1: rate"),
            (r#"{"rate": 1, "burst": 0}"#, "pace #1: burst"),
            (r#"{"rate": 1, "operation": "Describe"}"#, "pace #1: operation"),
        ] {
            let told = paces(&format!(r#"{{"rules": [{rule}]}}"#), false).unwrap_err();
            assert!(told.starts_with(said), "{told}");
        }
    }

    #[test]
    fn accounts_stand_in_key_ids() {
        // The two ids that AWS's documents use over and over, and one made by hand.
        assert_eq!(account_of("ASIAY34FZKBOKMUTVV7A").as_deref(), Some("609629065308"));
        assert_eq!(account_of("AKIAIOSFODNN7EXAMPLE"), account_of("AKIAIOSFODNN7EXAMPLE"));
        for id in ["", "AKIA", "AKIA1111111111111111", "SGWD0123456789ABCDEF", "ABIAY34FZKBOKMUTVV7A"] {
            assert_eq!(account_of(id), None, "{id}");
        }
    }
}
