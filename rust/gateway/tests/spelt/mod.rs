//! One call in two spellings, made of any bytes: both get one verdict, and what is sent, read again, is what was decided on.
//!
//! `tests/spellings.rs` feeds it numbers that are the same every time; the fuzz target `rules` feeds it what coverage suggests.

use std::fmt::Write;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName};
use http::{HeaderValue, Method};
use sigward_gateway::knowledge::Knowledge;
use sigward_gateway::settings::EngineSettings;
use sigward_gateway::{
    BodyPlan, BodySize, Clients, Config, Entry, Event, Exchange, Identities, Identity, Keep, Moment, Outgoing, RequestHead, Scheme, Step,
    Target,
};
use sigward_sigv4::Credentials;

const NOW: u64 = 1_440_938_160;

/// Rules that allow a little and deny the rest, and that deny a little and allow the rest. What is unknown settles none of them.
const RULES: &[&str] = &[
    r#"[{"operation": "sqs:DeleteQueue", "action": "deny"}, {"operation": "s3:Delete*", "action": "deny"},
        {"operation": "lambda:Delete*", "action": "deny"}, {"operation": "dynamodb:DeleteTable", "action": "deny"},
        {"operation": "cloudwatch:DeleteAlarms", "action": "deny"}, {"bucket": "secret/*", "action": "deny"},
        {"host": "s3.*", "path": "/b/secrets/*", "action": "deny"}, {"host": "*"}]"#,
    r#"[{"name": "queues", "operation": "sqs:List*"}, {"name": "agents", "bucket": "b/pub/*", "operation": "s3:*Object*"},
        {"name": "listings", "bucket": "b/pub/*", "operation": "s3:List*"}, {"name": "functions", "operation": "lambda:Get*"},
        {"name": "items", "operation": "dynamodb:GetItem"}, {"name": "metrics", "operation": "cloudwatch:ListMetrics"},
        {"operation": "*:*", "action": "deny"}]"#,
    r#"[{"name": "all", "host": "*"}]"#,
];

/// What is left of a fuzzer's bytes; zeros, once there are none.
struct Feed<'a>(&'a [u8]);

impl<'a> Feed<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// True for one byte in `every`.
    fn once_in(&mut self, every: u8) -> bool {
        self.byte().is_multiple_of(every)
    }

    fn choose<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[usize::from(self.byte()) % from.len()]
    }

    fn piece(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (piece, rest) = self.0.split_at(length);
        self.0 = rest;
        piece
    }
}

/// One request, as a front hands it over.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    method: String,
    host: String,
    /// Origin-form, with query.
    path: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    decision: &'static str,
    error: Option<&'static str>,
    operation: Option<String>,
    resource: Option<String>,
    route: Option<String>,
    would_refuse: Vec<(String, &'static str)>,
}

struct Outcome {
    verdict: Verdict,
    sent: Option<Asked>,
}

/// What must hold of any bytes.
pub(crate) fn check(data: &[u8]) {
    let mut feed = Feed(data);
    let flags = feed.byte();
    let rules = usize::from(flags >> 2) % RULES.len();
    if flags & 1 == 0 {
        let call = Call::of(&mut feed);
        let (one, other) = (call.spelt(&mut Feed(&[])), call.spelt(&mut feed));
        let (first, second) = (serve(rules, &one), serve(rules, &other));
        assert_eq!(first.verdict, second.verdict, "two verdicts on one call: {one:?}, {other:?}");
        assert_eq!(first.sent.as_ref().map(told), second.sent.as_ref().map(told), "sent as two calls: {one:?}, {other:?}");
        holds_again(rules, &second);
    } else {
        holds_again(rules, &serve(rules, &anything(&mut feed)));
    }
}

/// What was sent is, asked again, the same call, and goes out the same.
fn holds_again(rules: usize, outcome: &Outcome) {
    let Some(sent) = &outcome.sent else { return };
    let again = serve(rules, sent);
    assert_eq!(outcome.verdict, again.verdict, "what was sent is another call: {sent:?}");
    let again = again.sent.expect("what is sent once is sent twice");
    assert_eq!(told(sent), told(&again), "what was sent goes out otherwise");
}

/// Method, host and path; the query's pairs; headers; the form's pairs, or the body.
type Told = (String, Vec<String>, Vec<(String, Vec<u8>)>, Vec<String>);

/// What of a request does not hang on its spelling: pairs of query and form in any order.
fn told(asked: &Asked) -> Told {
    let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    let sorted = |text: &str| {
        let mut pairs: Vec<String> = text.split('&').map(decoded).collect();
        pairs.sort();
        pairs
    };
    let form = asked
        .headers
        .iter()
        .any(|(name, value)| name == "content-type" && value.to_ascii_lowercase().starts_with(b"application/x-www-form"));
    let body = String::from_utf8_lossy(&asked.body).into_owned();
    // Its length hangs on its spelling.
    let mut headers: Vec<_> =
        asked.headers.iter().filter(|(name, _)| !matches!(name.as_str(), "content-length" | "content-type")).cloned().collect();
    headers.sort();
    (
        format!("{} {}{path}", asked.method, asked.host),
        sorted(query),
        headers,
        if form { sorted(&body.replace('+', " ")) } else { vec![body] },
    )
}

fn decoded(text: &str) -> String {
    String::from_utf8_lossy(&sigward_sigv4::wire::percent_decoded(text.as_bytes())).into_owned()
}

// ---------------------------------------------------------------- calls

/// A call that has one reading, before it is spelt. In `path` and `pairs` what is reserved is escaped, and nothing else.
#[derive(Debug)]
struct Call {
    method: &'static str,
    host: &'static str,
    path: String,
    pairs: Vec<(String, String)>,
    headers: Vec<(&'static str, String)>,
    form: Vec<(String, String)>,
    body: Vec<u8>,
}

const KEYS: &[&str] =
    &["pub/k", "pub/a/b", "secrets/x", "k", "pub/service/x/operation/y", "pub//k", "pub/../k", "a%2Bb", "%C3%A9", "pub/a%20b"];

impl Call {
    fn of(feed: &mut Feed<'_>) -> Self {
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let mut call = Self { method: "POST", host: "", path: "/".into(), pairs: vec![], headers: vec![], form: vec![], body: vec![] };
        match feed.byte() % 6 {
            0 | 1 => {
                call.host = "sqs.us-east-1.amazonaws.com";
                let action = *feed.choose(&["ListQueues", "DeleteQueue", "CreateQueue", "NobodyKnowsIt"]);
                let more = [("Version", "2012-11-05"), ("QueueName", "a b+c"), ("QueueUrl", "https://sqs.us-east-1.amazonaws.com/1/q")];
                let mut pairs: Vec<(String, String)> = vec![pair(("Action", action))];
                pairs.extend(more.into_iter().filter(|_| feed.once_in(2)).map(pair));
                if feed.once_in(2) {
                    call.form = pairs;
                } else {
                    (call.method, call.pairs) = ("GET", pairs);
                }
            }
            2 => {
                call.host = "dynamodb.us-east-1.amazonaws.com";
                let name = *feed.choose(&["GetItem", "DeleteTable", "PutItem", "NobodyKnowsIt"]);
                call.headers.push(("x-amz-target", format!("DynamoDB_20120810.{name}")));
                call.headers.push(("content-type", "application/x-amz-json-1.0".into()));
                call.body = br#"{"TableName": "t"}"#.to_vec();
            }
            3 => {
                call.host = "monitoring.us-east-1.amazonaws.com";
                let name = *feed.choose(&["ListMetrics", "DeleteAlarms", "NobodyKnowsIt"]);
                call.path = format!("/service/GraniteServiceVersion20100801/operation/{name}");
                call.headers.push(("smithy-protocol", "rpc-v2-cbor".into()));
                call.headers.push(("content-type", "application/cbor".into()));
                call.body = vec![0xa0];
            }
            4 => {
                call.host = "lambda.us-east-1.amazonaws.com";
                call.method = *feed.choose(&["GET", "DELETE", "PUT"]);
                let name = *feed.choose(&["f", "arn%3Aaws%3Alambda%3Aus-east-1%3A1%3Afunction%3Af", "a_b-c.d"]);
                call.path = format!("/2015-03-31/functions/{name}{}", feed.choose(&["", "/code", "/aliases/a", "/nobody"]));
                call.pairs.extend([("Qualifier", "1"), ("x", "a b")].into_iter().filter(|_| feed.once_in(2)).map(pair));
            }
            _ => {
                let bucket = *feed.choose(&["b", "secret", "x.s3-control.y", "a-b"]);
                call.method = *feed.choose(&["GET", "DELETE", "PUT", "HEAD"]);
                let key = if feed.once_in(4) { "" } else { *feed.choose(KEYS) };
                (call.host, call.path) = if bucket == "b" && feed.once_in(2) {
                    (*feed.choose(&["b.s3.us-east-1.amazonaws.com", "b.s3-fips.us-east-1.amazonaws.com"]), format!("/{key}"))
                } else {
                    (*feed.choose(&["s3.us-east-1.amazonaws.com", "s3-eu-west-1.amazonaws.com"]), format!("/{bucket}/{key}"))
                };
                let more = [("acl", ""), ("versionId", "1"), ("prefix", "pub/"), ("list-type", "2"), ("max-keys", "5"), ("a", "b c")];
                call.pairs.extend(more.into_iter().filter(|_| feed.once_in(4)).map(pair));
                if call.method == "PUT" && feed.once_in(4) {
                    call.headers.push(("x-amz-copy-source", (*feed.choose(&["/b/pub/x", "/secret/x"])).into()));
                }
            }
        }
        call
    }

    /// In the spelling that the bytes choose; without any, in the plainest.
    fn spelt(&self, feed: &mut Feed<'_>) -> Asked {
        let mut path: String = respelt(&self.path, feed);
        let query = pairs(&self.pairs, false, feed);
        if !query.is_empty() {
            let _ = write!(path, "?{query}");
        }
        let mut headers: Vec<(String, Vec<u8>)> =
            self.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into_bytes())).collect();
        let mut body = self.body.clone();
        if !self.form.is_empty() {
            body = pairs(&self.form, true, feed).into_bytes();
            let given = *feed.choose(&[
                "application/x-www-form-urlencoded",
                "application/x-www-form-urlencoded; charset=utf-8",
                "application/x-www-form-urlencoded;charset=UTF-8",
                "Application/X-WWW-Form-URLencoded",
            ]);
            headers.push(("content-type".into(), given.into()));
        }
        if !feed.once_in(2) {
            headers.reverse();
        }
        let host = if feed.once_in(2) { self.host.into() } else { format!("{}.", self.host.to_ascii_uppercase()) };
        Asked { method: self.method.into(), host, path, headers, body }
    }
}

/// Letters that need no escape in one, and the case of escapes.
fn respelt(text: &str, feed: &mut Feed<'_>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter == '%' {
            let hex: String = letters.by_ref().take(2).collect();
            out.push('%');
            out.push_str(&if feed.once_in(2) { hex } else { hex.to_ascii_lowercase() });
        } else if (letter.is_ascii_alphanumeric() || "-._~".contains(letter)) && feed.byte() & 7 == 7 {
            // A segment of dots is nothing but that in S3, and is left away elsewhere: no other spelling of it is tried.
            let escaped = format!("%{:02X}", letter as u32);
            out.push_str(&if letter == '.' {
                ".".to_owned()
            } else if !feed.once_in(2) {
                escaped.to_ascii_lowercase()
            } else {
                escaped
            });
        } else {
            out.push(letter);
        }
    }
    out
}

/// Pairs of a query or a form, in any order. `plus`: a blank may be one, as in forms.
fn pairs(of: &[(String, String)], plus: bool, feed: &mut Feed<'_>) -> String {
    let mut order: Vec<usize> = (0..of.len()).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, at - usize::from(feed.byte()) % (at + 1));
    }
    let mut text = |text: &str| {
        let mut out = String::new();
        for letter in text.chars() {
            match letter {
                ' ' => out.push_str(if plus && !feed.once_in(2) { "+" } else { "%20" }),
                'A'..='Z' | 'a'..='z' | '0'..='9' | '-' | '_' | '~' | '.' => out.push(letter),
                other => {
                    let _ = write!(out, "%{:02X}", other as u32);
                }
            }
        }
        let blanks: Vec<String> = out.split('+').map(|part| respelt(part, feed)).collect();
        blanks.join("+")
    };
    let spelt: Vec<String> = order
        .into_iter()
        .map(|at| if of[at].1.is_empty() { text(&of[at].0) } else { format!("{}={}", text(&of[at].0), text(&of[at].1)) })
        .collect();
    spelt.join("&")
}

const HOSTS: &[&str] = &[
    "s3.us-east-1.amazonaws.com",
    "b.s3.us-east-1.amazonaws.com",
    "sqs.us-east-1.amazonaws.com",
    "lambda.us-east-1.amazonaws.com",
    "dynamodb.us-east-1.amazonaws.com",
    "monitoring.us-east-1.amazonaws.com",
    "123456789012.s3-control.us-east-1.amazonaws.com",
    "ap-123456789012.s3-accesspoint.us-east-1.amazonaws.com",
    "abc.execute-api.us-east-1.amazonaws.com",
    "ec2.us-east-1.amazonaws.com",
];
const NAMES: &[&str] =
    &["x-amz-target", "content-type", "x-amz-copy-source", "smithy-protocol", "content-encoding", "x-amz-meta-a", "connection"];
const VALUES: &[&str] = &[
    "AmazonSQS.DeleteQueue",
    "AmazonSQS.ListQueues",
    ".GetObject",
    "application/x-www-form-urlencoded",
    "application/x-amz-json-1.0",
    "rpc-v2-cbor",
    "/secret/x",
    "b/pub/x?versionId=1",
    "x-amz-target",
    "gzip",
    "multipart/form-data; boundary=b",
];

const FRAGMENTS: &[&str] = &[
    "/",
    "//",
    "/../",
    "/./",
    "%2F",
    "?",
    "&",
    "=",
    "b",
    "secret",
    "pub",
    "%62",
    "%73ecret",
    "acl",
    "policy",
    "delete",
    "prefix=",
    "list-type=2",
    "versions",
    "Action=",
    "%41ction=",
    "ListQueues",
    "DeleteQueue",
    "/service/GraniteServiceVersion20100801/operation/",
    "DeleteAlarms",
    "2015-03-31",
    "/functions/",
    "arn:aws:lambda:us-east-1:1:function:f",
    "+",
    ";",
];

/// Any request at all.
fn anything(feed: &mut Feed<'_>) -> Asked {
    let method = (*feed.choose(&["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "get"])).into();
    let host = (*feed.choose(HOSTS)).into();
    let mut path = String::from("/");
    for _ in 0..feed.byte() % 24 {
        let at = feed.byte();
        match FRAGMENTS.get(usize::from(at)) {
            Some(fragment) => path.push_str(fragment),
            None if at.is_ascii_graphic() && at != b'#' => path.push(char::from(at)),
            None => {
                let _ = write!(path, "%{at:02X}");
            }
        }
    }
    let headers = (0..feed.byte() % 6)
        .map(|_| {
            let name = (*feed.choose(NAMES)).to_owned();
            let value = if feed.once_in(2) { feed.choose(VALUES).as_bytes().to_vec() } else { feed.piece().to_vec() };
            (name, value)
        })
        .filter(|(_, value)| HeaderValue::from_bytes(value).is_ok_and(|_| value.trim_ascii().len() == value.len()))
        .collect();
    Asked { method, host, path, headers, body: feed.0.to_vec() }
}

// ---------------------------------------------------------------- the gateway

fn configs() -> &'static [Arc<Config>] {
    static SHARED: OnceLock<Vec<Arc<Config>>> = OnceLock::new();
    SHARED.get_or_init(|| RULES.iter().map(|routes| config(routes)).collect())
}

fn config(routes: &str) -> Arc<Config> {
    let more = r#""audit_log": "stderr", "pace": {"defaults": false}, "retry": {"tokens": false}, "body": {"hold": 512}"#;
    let settings = EngineSettings::from_json(&format!(r#"{{"routes": {routes}, {more}}}"#)).expect("the settings hold");
    let clients = Clients::new(&settings.clients, &[7; 32]);
    let knowledge = Knowledge::shipped().expect("the table is whole");
    Arc::new(Config::new(settings, knowledge, clients, Arc::default()).expect("the rules hold"))
}

fn identities() -> &'static Identities {
    static SHARED: OnceLock<Identities> = OnceLock::new();
    SHARED.get_or_init(|| {
        let credentials = Credentials::new("AKID", "secret", None).expect("they are well-formed");
        Identities::from([("default".into(), Identity { credentials: Some(Arc::new(credentials)), ..Identity::default() })])
    })
}

/// The one place that tells an exchange of a request.
fn tell(exchange: &mut Exchange, event: Event<'_>) -> Step {
    let at = Moment { unix_seconds: NOW, since_start: Duration::ZERO, identities: identities() };
    exchange.on(event, &at)
}

/// One request up to its first attempt, or its refusal.
fn serve(rules: usize, asked: &Asked) -> Outcome {
    let mut exchange = Exchange::new(Arc::clone(&configs()[rules]), 7);
    let mut step = tell(&mut exchange, Event::arrived(head(asked)));
    let (body, mut at) = (asked.body.as_slice(), 0_usize);
    let sent = loop {
        step = match step {
            Step::Read { limit, keep } => {
                let most = if keep == Keep::Memory { usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1) } else { 100 };
                let piece = &body[at..body.len().min(at.saturating_add(most))];
                at += piece.len();
                tell(&mut exchange, Event::Body { bytes: piece, last: at == body.len(), trailers: None })
            }
            Step::Refresh { .. } => tell(&mut exchange, Event::Refreshed),
            Step::Send(outgoing) => break Some(arrived(*outgoing, body)),
            // What is framed as aws-chunked has targets of its own.
            Step::Reply(_) | Step::Unwrap { .. } => break None,
            Step::Wait { .. } | Step::Pace { .. } | Step::ReadCode { .. } | Step::Deliver => panic!("{step:?} before the first attempt"),
        };
    };
    let record = exchange.take_record();
    let verdict = Verdict {
        decision: record.disposition.as_str(),
        error: record.error,
        operation: record.operation.as_ref().map(ToString::to_string),
        resource: record.resource.clone(),
        route: record.route.as_deref().map(str::to_owned),
        would_refuse: record.would_refuse.iter().map(|(route, what)| (route.to_string(), *what)).collect(),
    };
    Outcome { verdict, sent }
}

fn head(asked: &Asked) -> RequestHead {
    let mut headers = HeaderMap::new();
    for (name, value) in &asked.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_bytes(value).expect("a value"));
    }
    RequestHead {
        entry: Entry::Reverse,
        method: Method::from_bytes(asked.method.as_bytes()).expect("a method"),
        target: Target::new(Scheme::Https, &asked.host, 443).expect("a host"),
        path: asked.path.clone(),
        headers,
        body: BodySize::Known(asked.body.len() as u64),
        client: "127.0.0.1".into(),
        malformed: None,
    }
}

/// What is sent, without what signing adds: signatures cover spellings of bodies, and may differ.
fn arrived(outgoing: Outgoing, body: &[u8]) -> Asked {
    let added = ["authorization", "x-amz-date", "x-amz-content-sha256", "host"];
    let body = match outgoing.body {
        BodyPlan::Empty => Bytes::new(),
        BodyPlan::Kept | BodyPlan::Stream => outgoing.edited.unwrap_or_else(|| Bytes::copy_from_slice(body)),
    };
    let kept = outgoing.headers.iter().filter(|(name, _)| !added.contains(&name.as_str()));
    let mut headers: Vec<(String, Vec<u8>)> = kept.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    headers.sort();
    Asked {
        method: outgoing.method.to_string(),
        host: outgoing.upstream.target.host.to_string(),
        path: outgoing.path,
        headers,
        body: body.to_vec(),
    }
}
