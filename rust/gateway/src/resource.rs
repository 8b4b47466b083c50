//! What a call is for, as far as the request tells it: for the audit log. An ARN, a URL, or `Member=value` as the request has it.

use std::fmt;

use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use sigward_sigv4::Style;
use sigward_sigv4::wire::percent_decoded;
use smallvec::SmallVec;

use crate::recognise::form::{Pair, is_form, is_json, pairs};
use crate::recognise::{Ambiguity, Call, style_of};

/// A resource's name is cut to so many bytes: a log's line has an end.
const LONGEST: usize = 1024;

/// Members of requests that name what a call is for; the first that is there counts. None holds a secret.
const MEMBERS: &[&str] = &[
    "TableName",
    "QueueUrl",
    "TopicArn",
    "StreamARN",
    "StreamName",
    "DeliveryStreamName",
    "SecretId",
    "KeyId",
    "FunctionName",
    "stateMachineArn",
    "executionArn",
    "logGroupName",
    "logGroupIdentifier",
    "repositoryName",
    "TargetArn",
    "ResourceArn",
    "ResourceARN",
    "resourceArn",
    "RoleArn",
    "RoleName",
    "UserName",
    "PolicyArn",
    "StackName",
    "InstanceId",
    "InstanceId.1",
    "DBInstanceIdentifier",
    "DBClusterIdentifier",
    "LoadBalancerArn",
    "AutoScalingGroupName",
    "AlarmName",
    "UserPoolId",
    "IdentityPoolId",
    "QueueName",
    "cluster",
    "Name",
];

/// The resource that a request's host, path or query names.
pub(crate) fn in_head(call: &Call, partition: Option<&str>) -> Option<String> {
    if let Some(service) = call.service.as_deref().filter(|service| style_of(service) == Style::S3) {
        // A listing is of the bucket, whatever prefix it asks for.
        let (bucket, key) = call.bucket_and_key().map(|(bucket, key)| (bucket, if call.lists() { b"" } else { key }))?;
        let slash = if key.is_empty() { "" } else { "/" };
        let service = if service == "s3express" { service } else { "s3" };
        return Some(cut(format!("arn:{}:{service}:::{bucket}{slash}{}", partition.unwrap_or("aws"), text(key))));
    }
    let path = call.target.split('?').next().unwrap_or_default();
    let arn = path.split('/').map(|part| text(&percent_decoded(part.as_bytes()))).find(|part| part.starts_with("arn:"));
    let mut found = Found::default();
    // What a query repeats, no resource is taken from.
    arn.map(cut).or_else(|| {
        call.query().iter().try_for_each(|pair| found.note_pair(pair, "query")).ok()?;
        found.told()
    })
}

/// What a body is that may name a resource.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Form,
    Json,
}

fn kind(headers: &HeaderMap) -> Option<Kind> {
    if headers.contains_key(CONTENT_ENCODING) {
        return None;
    }
    if is_form(headers) {
        return Some(Kind::Form);
    }
    is_json(headers).then_some(Kind::Json)
}

/// True if the body may name the resource.
pub(crate) fn is_in_body(headers: &HeaderMap) -> bool {
    kind(headers).is_some()
}

/// True if a member of a JSON object may stand there twice: a quick look, for bodies that need no other.
pub(crate) fn may_repeat(headers: &HeaderMap, body: &[u8]) -> bool {
    kind(headers) == Some(Kind::Json) && !has_distinct_members(body).unwrap_or(true)
}

/// Whether the names of the outermost object differ as they stand there. `None`: it is not JSON that ends well, which names nothing.
fn has_distinct_members(body: &[u8]) -> Option<bool> {
    let mut names: SmallVec<[&[u8]; 32]> = SmallVec::new();
    let (mut depth, mut at) = (0_usize, 0_usize);
    // Behind `{` or `,` of the outermost object, a string is a name.
    let mut name_follows = false;
    while let Some(byte) = body.get(at) {
        at += 1;
        match byte {
            b'"' => {
                let rest = body.get(at..)?;
                let end = string_end(rest)?;
                let text = rest.get(..end)?;
                at += end + 1;
                if depth == 1 && name_follows {
                    // An escape may spell a name otherwise, and who sends so many members means no good.
                    if text.contains(&b'\\') || names.contains(&text) || names.len() >= 256 {
                        return Some(false);
                    }
                    names.push(text);
                }
                name_follows = false;
            }
            b'{' | b'[' => {
                depth += 1;
                name_follows = *byte == b'{';
            }
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b',' => name_follows = true,
            _ => {}
        }
    }
    Some(true)
}

/// Where a string ends: its closing quote.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + text.get(from..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        if text.get(at) == Some(&b'"') {
            return Some(at);
        }
        from = at + 2;
    }
}

/// The resource that the whole body names: a form's, or JSON's. Err: it names two.
pub(crate) fn in_body(headers: &HeaderMap, body: &[u8]) -> Result<Option<String>, Ambiguity> {
    let mut found = Found::default();
    match kind(headers) {
        None => Ok(None),
        Some(Kind::Form) => {
            pairs(body).try_for_each(|pair| found.note_pair(&pair, "form"))?;
            Ok(found.told())
        }
        Some(Kind::Json) => match serde_json::Deserializer::from_slice(body).deserialize_map(Members(found)) {
            Ok(mut found) => found.twice.take().map_or_else(|| Ok(found.told()), Err),
            Err(_) => Ok(None),
        },
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn cut(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
    }
    text
}

/// The best that was found so far, and its place among the members.
#[derive(Default)]
struct Found {
    best: Option<(usize, String)>,
    /// Values by the places of their members.
    values: Vec<(usize, String)>,
    /// A member that stands there with two values.
    twice: Option<Ambiguity>,
}

impl Found {
    fn note(&mut self, name: &str, value: String, kind: &'static str) {
        let Some(rank) = MEMBERS.iter().position(|member| *member == name) else { return };
        match self.values.iter().find(|(known, _)| *known == rank) {
            Some((_, before)) if *before != value => {
                let reading = |value: &str| format!("{name} is {:?}", crate::admit::shown(value));
                self.twice.get_or_insert(Ambiguity { kind, one: reading(before), other: reading(&value) });
            }
            Some(_) => {}
            None => self.values.push((rank, value.clone())),
        }
        if self.best.as_ref().is_some_and(|(best, _)| *best <= rank) {
            return;
        }
        let tells_itself = value.starts_with("arn:") || value.starts_with("https://");
        self.best = Some((rank, if tells_itself { value } else { format!("{name}={value}") }));
    }

    fn note_pair(&mut self, (name, value): &Pair<'_>, kind: &'static str) -> Result<(), Ambiguity> {
        if let Ok(name) = std::str::from_utf8(name)
            && MEMBERS.contains(&name)
        {
            self.note(name, text(value), kind);
        }
        self.twice.take().map_or(Ok(()), Err)
    }

    fn told(self) -> Option<String> {
        self.best.map(|(_, told)| cut(told))
    }
}

/// The members of a JSON object, the outermost.
struct Members(Found);

impl<'de> Visitor<'de> for Members {
    type Value = Found;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Found, A::Error> {
        while let Some(name) = members.next_key::<std::borrow::Cow<'de, str>>()? {
            if MEMBERS.contains(&&*name) {
                // A member of another type than text names nothing here.
                if let serde_json::Value::String(value) = members.next_value()? {
                    self.0.note(&name, value, "json");
                }
            } else if name == "RequestItems" {
                // DynamoDB's batches: a member for each table.
                if let serde_json::Value::Object(tables) = members.next_value()? {
                    self.0.note("TableName", tables.keys().map(String::as_str).collect::<Vec<_>>().join(","), "json");
                }
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::CONTENT_TYPE;

    use super::*;
    use crate::recognise::Sample;

    fn of_body(content_type: &'static str, body: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        in_body(&headers, body.as_bytes()).unwrap()
    }

    fn of_head(service: &str, partition: &str, host: &str, target: &str) -> Option<String> {
        in_head(&Sample { service: Some(service), host, target, ..Sample::default() }.call().unwrap(), Some(partition))
    }

    #[test]
    fn buckets_and_keys_are_arns() {
        let host = "b.s3.eu-west-1.amazonaws.com";
        let of = |host, path| of_head("s3", "aws", host, path);
        assert_eq!(of(host, "/a%20key?versionId=1").as_deref(), Some("arn:aws:s3:::b/a key"));
        assert_eq!(of(host, "/?list-type=2").as_deref(), Some("arn:aws:s3:::b"));
        assert_eq!(of(host, "/?list-type=2&prefix=x").as_deref(), Some("arn:aws:s3:::b"));
        assert_eq!(of_head("s3", "aws-cn", "s3.cn-north-1.amazonaws.com.cn", "/b/k").as_deref(), Some("arn:aws-cn:s3:::b/k"));
        assert_eq!(of("s3.eu-west-1.amazonaws.com", "/"), None);
    }

    #[test]
    fn paths_queries_forms_and_json_name_resources() {
        let path = "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A1%3Afunction%3Af/invocations";
        assert_eq!(of_head("lambda", "aws", "h", path).as_deref(), Some("arn:aws:lambda:us-east-1:1:function:f"));
        assert_eq!(of_head("ec2", "aws", "h", "/?Action=X&InstanceId.1=i-1").as_deref(), Some("InstanceId.1=i-1"));
        assert_eq!(of_head("iam", "aws", "h", "/?X-Amz-Signature=abc"), None);
        let form = "application/x-www-form-urlencoded; charset=utf-8";
        let body = "Action=SendMessage&MessageBody=secret&QueueUrl=https%3A%2F%2Fsqs%2F1%2Fq";
        assert_eq!(of_body(form, body).as_deref(), Some("https://sqs/1/q"));
        let json = "application/x-amz-json-1.0";
        assert_eq!(of_body(json, r#"{"Item": {"TableName": {"S": "no"}}, "TableName": "orders"}"#).as_deref(), Some("TableName=orders"));
        assert_eq!(of_body(json, r#"{"RequestItems": {"a": [], "b": []}}"#).as_deref(), Some("TableName=a,b"));
        assert_eq!(of_body(json, r#"{"Name": "n", "KeyId": "alias/k"}"#).as_deref(), Some("KeyId=alias/k"));
        assert_eq!(of_body(json, r#"{"Name": 1}"#), None);
    }

    #[test]
    fn a_body_that_names_two_resources_is_ambiguous() {
        for (content_type, body) in [
            ("application/x-amz-json-1.0", r#"{"TableName": "a", "TableName": "b"}"#),
            ("application/x-amz-json-1.0", r#"{"TableName": "a", "Table\u004eame": "b"}"#),
            ("application/x-www-form-urlencoded", "Action=X&QueueUrl=a&Queue%55rl=b"),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
            assert!(in_body(&headers, body.as_bytes()).is_err(), "{body}");
        }
        assert_eq!(of_body("application/x-amz-json-1.0", r#"{"TableName": "a", "TableName": "a"}"#).as_deref(), Some("TableName=a"));
    }

    #[test]
    fn repeated_members_are_seen_at_a_glance() {
        for (body, expected) in [
            (r#"{"TableName": "a", "Key": {"TableName": {"S": "b"}}}"#, Some(true)),
            (r#"{"a": ["a", {"a": 1}], "b": "a\",\"a"}"#, Some(true)),
            (r#"{"TableName": "a", "TableName": "b"}"#, Some(false)),
            (r#"{"TableName": "a", "Table\u004eame": "b"}"#, Some(false)),
            (r#"{"a": {"b": 1}, "a": 2}"#, Some(false)),
            ("", Some(true)),
            ("[1, 2]", Some(true)),
            (r#"{"a"#, None),
            ("}", None),
        ] {
            assert_eq!(has_distinct_members(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn what_is_no_request_names_nothing() {
        let json = "application/x-amz-json-1.0";
        for body in ["", "[]", "{", r#"{"TableName""#, r#"{"TableName": "a"#, "\u{0}", "{}"] {
            assert_eq!(of_body(json, body), None, "{body}");
        }
        assert_eq!(of_body("text/plain", r#"{"TableName": "a"}"#), None);
    }

    #[test]
    fn long_names_are_cut() {
        let long = of_head("s3", "aws", "b.s3.us-east-1.amazonaws.com", &format!("/{}", "é".repeat(LONGEST))).unwrap();
        assert!(long.len() <= LONGEST && long.len() >= LONGEST - 1);
    }
}
