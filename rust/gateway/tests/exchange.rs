//! The exchange, driven by events and a made-up clock: no sockets, no waiting.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName};
use http::{HeaderValue, Method};
use sigward_gateway::knowledge::Knowledge;
use sigward_gateway::settings::EngineSettings;
use sigward_gateway::{
    BodyPlan, BodySize, Clients, Config, Disposition, Entry, Event, Exchange, Failure, Identities, Identity, Keep, Load, Moment, Outgoing,
    RequestHead, Scheme, Step, Target, Wrap,
};
use sigward_sigv4::chunked::{ChunkSigner, Encoder};
use sigward_sigv4::{Credentials, Options, Payload, Request, Scope, Style, Variant, sign};

const HOST: &str = "sqs.us-east-1.amazonaws.com";
const NOW: u64 = 1_440_938_160;

struct Drive {
    exchange: Exchange,
    identities: Identities,
    clock: Duration,
}

const MASTER: [u8; 32] = [7; 32];

fn config(settings: &str) -> Config {
    let settings = EngineSettings::from_json(settings).unwrap();
    let clients = Clients::new(&settings.clients, &MASTER);
    Config::new(settings, Knowledge::shipped().unwrap(), clients, Arc::default()).unwrap()
}

impl Drive {
    fn new(settings: &str) -> Self {
        let config = config(settings);
        let credentials = Credentials::new("AKID", "secret", None).unwrap();
        let identity = Identity { credentials: Some(Arc::new(credentials)), ..Identity::default() };
        Self {
            exchange: Exchange::new(Arc::new(config), 7),
            identities: Identities::from([("default".into(), identity)]),
            clock: Duration::ZERO,
        }
    }

    fn tell(&mut self, event: Event<'_>) -> Step {
        let at = Moment { unix_seconds: NOW + self.clock.as_secs(), since_start: self.clock, identities: &self.identities };
        self.exchange.on(event, &at)
    }

    /// An answer without a body.
    fn respond(&mut self, status: u16) -> Step {
        self.respond_with(status, &HeaderMap::new(), b"")
    }

    fn respond_with(&mut self, status: u16, headers: &HeaderMap, body: &[u8]) -> Step {
        match self.tell(Event::Response { status, headers }) {
            Step::ReadCode { .. } => self.tell(Event::ResponseBody { prefix: body }),
            step => step,
        }
    }

    /// Carries a wait out by moving the clock.
    fn wait(&mut self, step: &Step) -> Step {
        let Step::Wait { until } = step else { panic!("{step:?} is not a wait") };
        assert!(*until >= self.clock);
        self.clock = *until;
        self.tell(Event::Elapsed)
    }
}

fn head(host: &str, body: BodySize) -> RequestHead {
    RequestHead {
        entry: Entry::Reverse,
        method: Method::POST,
        target: Target::new(Scheme::Https, host, 443).unwrap(),
        path: "/".into(),
        headers: HeaderMap::new(),
        body,
        client: "127.0.0.1".into(),
        malformed: None,
    }
}

/// What may be sent twice.
fn get() -> RequestHead {
    RequestHead { method: Method::GET, ..head(HOST, BodySize::Known(0)) }
}

fn sent(step: Step) -> Outgoing {
    let Step::Send(outgoing) = step else { panic!("{step:?} is not a send") };
    *outgoing
}

fn refused(step: Step) -> (u16, String) {
    let Step::Reply(response) = step else { panic!("{step:?} is not a reply") };
    (response.status().as_u16(), response.headers()["x-sigward-error"].to_str().unwrap().to_owned())
}

#[test]
fn the_record_has_the_reason_that_the_client_gets() {
    for (host, slug) in [("a.denied.test", "denied"), ("nobody.test", "not-aws")] {
        let mut drive = Drive::new(r#"{"routes": [{"name": "n\u00f6", "host": "*.denied.test", "action": "deny"}]}"#);
        let Step::Reply(response) = drive.tell(Event::arrived(head(host, BodySize::Known(0)))) else { panic!() };
        let reason = response.headers()["x-sigward-reason"].to_str().unwrap();
        let record = drive.exchange.record();
        assert_eq!((record.error, record.reason.as_deref()), (Some(slug), Some(reason)));
        assert!(slug != "denied" || reason.starts_with("route n\\u{f6} denies "), "{reason}");
    }
    // What is let pass has none.
    let mut drive = Drive::new("{}");
    sent(drive.tell(Event::arrived(get())));
    assert!(matches!(drive.respond(403), Step::Deliver));
    assert_eq!(drive.exchange.record().reason, None);
}

#[test]
fn a_client_in_query_mode_gets_the_query_protocols_code() {
    let mut drive = Drive::new(r#"{"routes": [{"host": "*", "action": "deny"}]}"#);
    let mut asked = head(HOST, BodySize::Known(0));
    for (name, value) in
        [("x-amz-target", "AmazonSQS.ListQueues"), ("content-type", "application/x-amz-json-1.0"), ("x-amzn-query-mode", "true")]
    {
        asked.headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let Step::Reply(response) = drive.tell(Event::arrived(asked)) else { panic!() };
    assert_eq!(response.headers()["x-amzn-query-error"], "AccessDenied;Sender");
    assert_eq!(response.headers()["x-amzn-errortype"], "AccessDeniedException");
    assert!(response.body().starts_with(br#"{"__type":"sigward#AccessDeniedException","#));
}

#[test]
fn a_request_without_a_body_is_sent_at_once_and_signed_for_its_host() {
    let mut drive = Drive::new("{}");
    let outgoing = sent(drive.tell(Event::arrived(head(HOST, BodySize::Known(0)))));
    assert_eq!(outgoing.body, BodyPlan::Empty);
    assert_eq!(outgoing.headers["host"], HOST);
    assert_eq!(outgoing.headers["x-amz-date"], "20150830T123600Z");
    let authorization = outgoing.headers["authorization"].to_str().unwrap();
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKID/20150830/us-east-1/sqs/aws4_request, "), "{authorization}");
    assert!(matches!(drive.respond(200), Step::Deliver));
    assert_eq!(drive.exchange.record().summary(), "sign sqs us-east-1 default: 200");
}

#[test]
fn a_held_body_is_read_hashed_and_sent_with_its_length() {
    let mut drive = Drive::new("{}");
    let step = drive.tell(Event::arrived(head(HOST, BodySize::Unknown)));
    assert!(matches!(step, Step::Read { limit: 1_048_576, keep: Keep::Memory }));
    let outgoing = sent(drive.tell(Event::Body { bytes: b"hello", last: true, trailers: None }));
    assert_eq!((outgoing.body, outgoing.headers["content-length"].to_str().unwrap()), (BodyPlan::Kept, "5"));
}

#[test]
fn a_larger_body_is_spooled_piece_by_piece_and_has_the_same_signature() {
    let mut held = Drive::new("{}");
    held.tell(Event::arrived(head(HOST, BodySize::Unknown)));
    let whole = sent(held.tell(Event::Body { bytes: b"hello world", last: true, trailers: None }));

    let mut drive = Drive::new(r#"{"body": {"hold": 4}}"#);
    drive.tell(Event::arrived(head(HOST, BodySize::Unknown)));
    assert!(matches!(drive.tell(Event::Body { bytes: b"hello", last: false, trailers: None }), Step::Read { keep: Keep::Spool, .. }));
    assert!(matches!(drive.tell(Event::Body { bytes: b" wor", last: false, trailers: None }), Step::Read { keep: Keep::Spool, .. }));
    let spooled = sent(drive.tell(Event::Body { bytes: b"ld", last: true, trailers: None }));
    assert_eq!(spooled.body, BodyPlan::Kept);
    assert_eq!(spooled.headers["authorization"], whole.headers["authorization"]);
    assert_eq!(spooled.headers["content-length"], "11");
}

#[test]
fn bodies_beyond_their_limits_are_refused() {
    let mut drive = Drive::new(r#"{"body": {"hold": 4, "spool_max": 8}}"#);
    drive.tell(Event::arrived(head(HOST, BodySize::Unknown)));
    drive.tell(Event::Body { bytes: b"hello", last: false, trailers: None });
    assert_eq!(refused(drive.tell(Event::Body { bytes: b"world", last: true, trailers: None })), (413, "body-too-large".into()));
    let mut drive = Drive::new(r#"{"body": {"max": 8}}"#);
    assert_eq!(refused(drive.tell(Event::arrived(head(HOST, BodySize::Known(9))))), (413, "body-too-large".into()));
}

#[test]
fn a_large_body_to_s3_streams_unsigned_over_tls_and_is_never_sent_twice() {
    let mut drive = Drive::new(r#"{"body": {"hold": 4}}"#);
    let outgoing = sent(drive.tell(Event::arrived(head("b.s3.us-east-1.amazonaws.com", BodySize::Known(100)))));
    assert_eq!(outgoing.body, BodyPlan::Stream);
    assert_eq!(outgoing.headers["x-amz-content-sha256"], "UNSIGNED-PAYLOAD");
    assert_eq!(outgoing.headers["content-length"], "100");
    assert!(matches!(drive.respond(503), Step::Deliver));
}

#[test]
fn a_large_body_to_s3_in_plain_text_is_hashed() {
    let route = r#"{"body": {"hold": 4}, "routes": [{"host": "b.s3.*", "upstream": "http://127.0.0.1:9000"}]}"#;
    let mut drive = Drive::new(route);
    let step = drive.tell(Event::arrived(head("b.s3.us-east-1.amazonaws.com", BodySize::Known(100))));
    assert!(matches!(step, Step::Read { keep: Keep::Spool, .. }));
}

#[test]
fn failures_are_tried_three_times_with_growing_jittered_waits() {
    let mut drive = Drive::new(r#"{"retry": {"base": 1.0, "cap": 20.0}}"#);
    let first = sent(drive.tell(Event::arrived(get())));
    let wait = drive.respond(500);
    let again = drive.wait(&wait);
    assert!(drive.clock < Duration::from_secs(1));
    let before = drive.clock;
    let second = sent(again);
    let wait = drive.tell(Event::Failed(Failure::Broken("reset".into())));
    let third = drive.wait(&wait);
    assert!(drive.clock.checked_sub(before).unwrap() < Duration::from_secs(2));
    sent(third);
    assert!(matches!(drive.respond(502), Step::Deliver));
    let record = drive.exchange.record();
    assert_eq!(record.attempts.iter().map(|attempt| &*attempt.outcome).collect::<Vec<_>>(), ["500", "connection-broken", "502"]);
    assert_eq!(record.signatures, 3);
    // Each attempt is signed with its own time.
    assert_eq!(first.headers["x-amz-date"], "20150830T123600Z");
    drop(second);
}

#[test]
fn waits_spread_over_their_whole_range() {
    let waits: Vec<f64> = (0..200)
        .map(|seed| {
            let mut drive = Drive::new(r#"{"retry": {"base": 1.0}}"#);
            drive.exchange = Exchange::new(Arc::clone(drive.exchange.config()), seed);
            drive.tell(Event::arrived(get()));
            let Step::Wait { until } = drive.respond(500) else { panic!("no wait") };
            until.as_secs_f64()
        })
        .collect();
    assert!(waits.iter().all(|wait| (0.0..1.0).contains(wait)));
    assert!(waits.iter().any(|wait| *wait < 0.1) && waits.iter().any(|wait| *wait > 0.9));
}

#[test]
fn attempts_are_signed_anew_after_a_wait() {
    let mut drive = Drive::new(r#"{"retry": {"base": 0.0}}"#);
    let first = sent(drive.tell(Event::arrived(head(HOST, BodySize::Known(0)))));
    let wait = drive.respond_with(503, &HeaderMap::new(), b"<Error><Code>SlowDown</Code></Error>");
    drive.clock += Duration::from_secs(5);
    let Step::Wait { .. } = wait else { panic!("{wait:?}") };
    let second = sent(drive.tell(Event::Elapsed));
    assert_ne!(first.headers["x-amz-date"], second.headers["x-amz-date"]);
    assert_eq!(drive.exchange.record().attempts[0].outcome, "503 throttled");
}

#[test]
fn other_client_errors_are_never_retried() {
    for status in [401, 404, 405, 409, 411, 412, 413, 416, 501] {
        let mut drive = Drive::new("{}");
        drive.tell(Event::arrived(head(HOST, BodySize::Known(0))));
        assert!(matches!(drive.respond(status), Step::Deliver), "{status}");
    }
    let mut drive = Drive::new("{}");
    drive.tell(Event::arrived(head(HOST, BodySize::Known(0))));
    assert!(matches!(drive.respond_with(400, &HeaderMap::new(), b"{\"__type\":\"ValidationException\"}"), Step::Deliver));
}

#[test]
fn no_retry_outlives_the_total_time_out() {
    for seed in 0..50 {
        let settings = r#"{"timeouts": {"total": 3.0}, "retry": {"attempts": 9, "base": 2.0, "cap": 100.0}}"#;
        let mut drive = Drive::new(settings);
        drive.exchange = Exchange::new(Arc::clone(drive.exchange.config()), seed);
        let mut step = drive.tell(Event::arrived(get()));
        while let Step::Send(_) = step {
            step = match drive.respond(500) {
                wait @ Step::Wait { .. } => drive.wait(&wait),
                step => step,
            };
            assert!(drive.clock < Duration::from_secs(3), "{seed}");
        }
        assert!(matches!(step, Step::Deliver), "{step:?}");
    }
}

#[test]
fn a_failure_after_the_last_attempt_names_upstream() {
    for (failure, expected) in [
        (Failure::Connect("refused".into()), (502, "connect-failed")),
        (Failure::Tls("unknown issuer".into()), (502, "tls-failed")),
        (Failure::Broken("reset".into()), (502, "connection-broken")),
        (Failure::HeadTimeout, (504, "head-timeout")),
        (Failure::Forbidden("127.0.0.1".into()), (403, "forbidden-address")),
        (Failure::Body("closed".into()), (400, "body-failed")),
        (Failure::Internal("no disk".into()), (500, "internal")),
    ] {
        let mut drive = Drive::new(r#"{"retry": {"attempts": 1}}"#);
        drive.tell(Event::arrived(head(HOST, BodySize::Known(0))));
        let (status, slug) = refused(drive.tell(Event::Failed(failure)));
        assert_eq!((status, slug.as_str()), expected);
    }
}

#[test]
fn tls_that_is_not_verified_is_not_tried_again() {
    let mut drive = Drive::new("{}");
    drive.tell(Event::arrived(head(HOST, BodySize::Known(0))));
    assert_eq!(refused(drive.tell(Event::Failed(Failure::Tls("x".into())))).1, "tls-failed");
}

#[test]
fn without_credentials_it_asks_once_and_then_says_what_was_tried() {
    let mut drive = Drive::new("{}");
    drive.identities.clear();
    let step = drive.tell(Event::arrived(head(HOST, BodySize::Known(0))));
    assert!(matches!(step, Step::Refresh { ref identity, after: None } if &**identity == "default"));
    let failures: Arc<[(String, String)]> = [("env".to_owned(), "not set".to_owned())].into();
    drive.identities.insert("default".into(), Identity { failures, ..Identity::default() });
    let Step::Reply(response) = drive.tell(Event::Refreshed) else { panic!("no reply") };
    assert_eq!(response.status(), 503);
    assert!(String::from_utf8_lossy(response.body()).contains("tried env: not set"));
}

#[test]
fn credentials_that_arrive_while_it_waits_are_used() {
    let mut drive = Drive::new("{}");
    let ready = std::mem::take(&mut drive.identities);
    drive.tell(Event::arrived(head(HOST, BodySize::Known(0))));
    drive.identities = ready;
    sent(drive.tell(Event::Refreshed));
}

#[test]
fn credentials_serve_until_they_expire_and_not_longer() {
    let mut drive = Drive::new("{}");
    drive.identities.get_mut("default").unwrap().expires_at = Some((NOW + 10) as f64);
    drive.identities.get_mut("default").unwrap().failures = [("sts".to_owned(), "down".to_owned())].into();
    drive.clock = Duration::from_secs(9);
    sent(drive.tell(Event::arrived(get())));
    let wait = drive.respond(500);
    drive.clock = Duration::from_secs(10);
    assert!(matches!(wait, Step::Wait { .. }));
    assert_eq!(refused(drive.tell(Event::Elapsed)).1, "no-credentials");
}

#[test]
fn the_clients_signature_is_taken_out_before_signing() {
    let mut drive = Drive::new("{}");
    let mut request = head(HOST, BodySize::Known(0));
    for (name, value) in
        [("authorization", "AWS4-HMAC-SHA256 theirs"), ("x-amz-date", "19700101T000000Z"), ("x-amz-security-token", "theirs")]
    {
        request.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let outgoing = sent(drive.tell(Event::arrived(request)));
    assert_eq!(outgoing.headers.get_all("authorization").iter().count(), 1);
    assert_eq!(outgoing.headers["x-amz-date"], "20150830T123600Z");
    assert!(!outgoing.headers.contains_key("x-amz-security-token"));
}

#[test]
fn routes_choose_service_region_identity_and_upstream() {
    let settings = r#"{"default_region": "eu-central-1", "routes": [
        {"host": "search.internal", "service": "es", "identity": "other", "upstream": "https://vpc-x.example:8443"},
        {"host": "sqs.*", "region": "ap-south-1", "connect": "10.0.0.1:443"},
        {"host": "*.denied.test", "action": "deny"}
    ]}"#;
    let mut drive = Drive::new(settings);
    let other = drive.identities["default"].clone();
    drive.identities.insert("other".into(), other);
    let outgoing = sent(drive.tell(Event::arrived(head("search.internal", BodySize::Known(0)))));
    assert_eq!(outgoing.headers["host"], "vpc-x.example:8443");
    assert!(outgoing.headers["authorization"].to_str().unwrap().contains("/eu-central-1/es/aws4_request"));
    assert_eq!(drive.exchange.record().identity.as_deref(), Some("other"));

    let mut drive = Drive::new(settings);
    let outgoing = sent(drive.tell(Event::arrived(head(HOST, BodySize::Known(0)))));
    assert_eq!((outgoing.headers["host"].to_str().unwrap(), outgoing.upstream.connect.as_deref()), (HOST, Some("10.0.0.1:443")));
    assert!(outgoing.headers["authorization"].to_str().unwrap().contains("/ap-south-1/sqs/"));

    let mut drive = Drive::new(settings);
    assert_eq!(refused(drive.tell(Event::arrived(head("a.denied.test", BodySize::Known(0))))), (403, "denied".into()));
}

#[test]
fn a_signing_route_for_an_unknown_host_must_name_its_service() {
    let mut drive = Drive::new(r#"{"routes": [{"host": "search.internal"}]}"#);
    assert_eq!(refused(drive.tell(Event::arrived(head("search.internal", BodySize::Known(0))))).1, "unknown-service");
}

#[test]
fn strangers_pass_unsigned_through_the_forward_proxy_and_not_through_a_reverse_listener() {
    let mut drive = Drive::new("{}");
    let mut request = head("example.com", BodySize::Known(0));
    request.entry = Entry::Forward;
    let outgoing = sent(drive.tell(Event::arrived(request)));
    assert!(!outgoing.headers.contains_key("authorization"));
    let mut drive = Drive::new("{}");
    assert_eq!(refused(drive.tell(Event::arrived(head("example.com", BodySize::Known(0))))), (403, "not-aws".into()));
}

#[test]
fn plain_text_to_aws_becomes_tls_on_port_80_and_is_refused_on_others() {
    let mut request = head(HOST, BodySize::Known(0));
    request.target = Target::new(Scheme::Http, HOST, 80).unwrap();
    let outgoing = sent(Drive::new("{}").tell(Event::arrived(request)));
    assert_eq!((outgoing.upstream.target.scheme, outgoing.upstream.target.port), (Scheme::Https, 443));
    let mut request = head(HOST, BodySize::Known(0));
    request.target = Target::new(Scheme::Http, HOST, 8000).unwrap();
    assert_eq!(refused(Drive::new("{}").tell(Event::arrived(request))).1, "plain-text-port");
}

#[test]
fn events_out_of_order_refuse_and_never_panic() {
    let events: [fn() -> Event<'static>; 6] = [
        || Event::Elapsed,
        || Event::Refreshed,
        || Event::Body { bytes: b"x", last: true, trailers: None },
        || Event::ResponseBody { prefix: b"x" },
        || Event::Failed(Failure::HeadTimeout),
        || Event::arrived(head(HOST, BodySize::Known(0))),
    ];
    for first in &events {
        for second in &events {
            for third in &events {
                let mut drive = Drive::new("{}");
                drive.tell(first());
                drive.tell(second());
                drive.tell(third());
            }
        }
    }
    let mut drive = Drive::new("{}");
    assert_eq!(refused(drive.tell(Event::Elapsed)), (500, "out-of-order".into()));
}

fn error(code: &'static str, date: Option<&'static str>) -> HeaderMap {
    let mut headers = HeaderMap::from_iter([(HeaderName::from_static("x-amzn-errortype"), HeaderValue::from_static(code))]);
    headers.extend(date.map(|date| (HeaderName::from_static("date"), HeaderValue::from_static(date))));
    headers
}

#[test]
fn expired_credentials_are_asked_for_anew_once_also_without_retries() {
    let mut drive = Drive::new(r#"{"retry": {"attempts": 1}}"#);
    sent(drive.tell(Event::arrived(head(HOST, BodySize::Known(0)))));
    let step = drive.tell(Event::Response { status: 403, headers: &error("ExpiredTokenException", None) });
    assert!(matches!(step, Step::Refresh { after: Some(0), .. }), "{step:?}");
    let fresh = Credentials::new("AKIDFRESH", "secret", None).unwrap();
    drive.identities.insert("default".into(), Identity { credentials: Some(Arc::new(fresh)), version: 1, ..Identity::default() });
    let again = sent(drive.tell(Event::Refreshed));
    assert!(again.headers["authorization"].to_str().unwrap().contains("Credential=AKIDFRESH/"));
    assert!(matches!(drive.tell(Event::Response { status: 403, headers: &error("ExpiredTokenException", None) }), Step::Deliver));
    assert_eq!(drive.exchange.record().attempts.len(), 2);
}

#[test]
fn a_wrong_clock_is_learnt_from_awss_and_kept_for_the_next_request() {
    let mut drive = Drive::new("{}");
    sent(drive.tell(Event::arrived(head(HOST, BodySize::Known(0)))));
    let skewed = error("RequestTimeTooSkewed", Some("Sun, 30 Aug 2015 13:36:00 GMT"));
    let again = sent(drive.tell(Event::Response { status: 403, headers: &skewed }));
    assert_eq!(again.headers["x-amz-date"], "20150830T133600Z");
    assert!(matches!(drive.tell(Event::Response { status: 403, headers: &skewed }), Step::Deliver));
    drive.exchange = Exchange::new(Arc::clone(drive.exchange.config()), 8);
    let next = sent(drive.tell(Event::arrived(head(HOST, BodySize::Known(0)))));
    assert_eq!(next.headers["x-amz-date"], "20150830T133600Z");
}

#[test]
fn a_wrong_signature_is_the_clocks_fault_only_if_the_clock_is_wrong() {
    for (date, repeated) in [
        ("Sun, 30 Aug 2015 12:39:59 GMT", false),
        ("Sun, 30 Aug 2015 12:46:00 GMT", true),
        ("Sun, 30 Aug 2015 12:26:00 GMT", true),
        ("yesterday", false),
    ] {
        let mut drive = Drive::new("{}");
        sent(drive.tell(Event::arrived(head(HOST, BodySize::Known(0)))));
        let step = drive.tell(Event::Response { status: 403, headers: &error("SignatureDoesNotMatch", Some(date)) });
        assert_eq!(matches!(step, Step::Send(_)), repeated, "{date}");
    }
}

const CLIENTS: &str = r#""clients": {"required": true, "issued": [{"name": "ci", "identity": "team"}]}"#;

/// The head as the client `ci` signs it.
fn signed_by_ci(mut head: RequestHead, body: &[u8], secret: Option<&str>) -> RequestHead {
    let (id, own) = sigward_gateway::client::issue(&MASTER, "ci", 1);
    let credentials = Credentials::new(&id, secret.unwrap_or(&own), None).unwrap();
    let host = HeaderValue::from_str(&head.target.host).unwrap();
    head.headers.insert("host", host);
    let signed = {
        let pairs: Vec<(&[u8], &[u8])> = head.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())).collect();
        let scope = Scope { region: "us-east-1", signing_name: "sqs", style: Style::Generic };
        let request = Request { method: "POST", path: b"/", query: b"", headers: &pairs, payload: Payload::Bytes(body) };
        sign(&credentials, &scope, &request, NOW).unwrap()
    };
    for (name, value) in signed.headers() {
        head.headers.insert(HeaderName::from_bytes(name).unwrap(), HeaderValue::from_bytes(value).unwrap());
    }
    head
}

fn for_ci(settings: &str) -> Drive {
    let mut drive = Drive::new(settings);
    let team = Identity { credentials: Some(Arc::new(Credentials::new("TEAM", "secret", None).unwrap())), ..Identity::default() };
    drive.identities.insert("team".into(), team);
    drive
}

#[test]
fn an_issued_key_is_checked_with_the_body_and_gives_way_to_its_identitys() {
    let mut drive = for_ci(&format!("{{{CLIENTS}}}"));
    let step = drive.tell(Event::arrived(signed_by_ci(head(HOST, BodySize::Known(5)), b"hello", None)));
    assert!(matches!(step, Step::Read { .. }));
    let outgoing = sent(drive.tell(Event::Body { bytes: b"hello", last: true, trailers: None }));
    assert!(outgoing.headers["authorization"].to_str().unwrap().contains("Credential=TEAM/"));
    assert!(matches!(drive.respond(200), Step::Deliver));
    assert_eq!(drive.exchange.record().summary(), "sign sqs us-east-1 team for ci: 200");
}

#[test]
fn what_is_not_signed_with_an_issued_key_or_not_rightly_is_refused() {
    let settings = format!("{{{CLIENTS}}}");
    let slug = |given: RequestHead, body: &[u8]| {
        let mut drive = for_ci(&settings);
        let step = match drive.tell(Event::arrived(given)) {
            Step::Read { .. } => drive.tell(Event::Body { bytes: body, last: true, trailers: None }),
            step => step,
        };
        let (status, slug) = refused(step);
        assert_eq!(status, 403, "{slug}");
        assert_eq!(drive.exchange.record().signatures, 0);
        slug
    };
    let hello = || head(HOST, BodySize::Known(5));
    assert_eq!(slug(hello(), b"hello"), "missing-authentication-token");
    assert_eq!(slug(signed_by_ci(hello(), b"hello", None), b"HELLO"), "signature-does-not-match");
    assert_eq!(slug(signed_by_ci(hello(), b"hello", Some("another")), b"hello"), "signature-does-not-match");
    let mut foreign = signed_by_ci(hello(), b"hello", None);
    let text = foreign.headers["authorization"].to_str().unwrap().replace("SGWD", "AKIA");
    foreign.headers.insert("authorization", HeaderValue::from_str(&text).unwrap());
    assert_eq!(slug(foreign, b"hello"), "invalid-access-key-id");
    let mut cut = signed_by_ci(hello(), b"hello", None);
    let text = cut.headers["authorization"].to_str().unwrap().replace("Signature=", "Sign=");
    cut.headers.insert("authorization", HeaderValue::from_str(&text).unwrap());
    assert_eq!(slug(cut, b"hello"), "incomplete-signature");
    let mut added = signed_by_ci(hello(), b"hello", None);
    added.headers.insert("x-amz-target", HeaderValue::from_static("AmazonSQS.DeleteQueue"));
    assert_eq!(slug(added, b"hello"), "incomplete-signature");
    let for_s3 = {
        let (id, secret) = sigward_gateway::client::issue(&MASTER, "ci", 1);
        let mut head = hello();
        let pairs: &[(&str, &str)] = &[("host", HOST), ("x-amz-content-sha256", "UNSIGNED-PAYLOAD")];
        let headers: Vec<(&[u8], &[u8])> = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let scope = Scope { region: "us-east-1", signing_name: "s3", style: Style::S3 };
        let request = Request { method: "POST", path: b"/", query: b"", headers: &headers, payload: Payload::UNSIGNED };
        let signed = sign(&Credentials::new(&id, &secret, None).unwrap(), &scope, &request, NOW).unwrap();
        for (name, value) in pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).chain(signed.headers()) {
            head.headers.insert(HeaderName::from_bytes(name).unwrap(), HeaderValue::from_bytes(value).unwrap());
        }
        head
    };
    assert_eq!(slug(for_s3, b"anything"), "signature-does-not-match", "S3's signature need not cover a body, SQS's must");
    let mut late = for_ci(&settings);
    late.clock = Duration::from_secs(3600);
    late.tell(Event::arrived(signed_by_ci(hello(), b"hello", None)));
    let step = late.tell(Event::Body { bytes: b"hello", last: true, trailers: None });
    assert_eq!(refused(step).1, "request-time-too-skewed");
}

#[test]
fn a_large_signed_body_is_spooled_and_checked_before_any_of_it_is_sent() {
    let mut drive = for_ci(&format!(r#"{{"body": {{"hold": 4}}, "routes": [{{"host": "{HOST}", "payload": "unsigned"}}], {CLIENTS}}}"#));
    let step = drive.tell(Event::arrived(signed_by_ci(head(HOST, BodySize::Known(5)), b"hello", None)));
    assert!(matches!(step, Step::Read { keep: Keep::Spool, .. }), "{step:?}");
    let outgoing = sent(drive.tell(Event::Body { bytes: b"hello", last: true, trailers: None }));
    assert_eq!(outgoing.body, BodyPlan::Kept);
}

#[test]
fn a_form_names_the_operation_that_a_route_is_for() {
    let settings = r#"{"routes": [{"operation": "sqs:List*", "identity": "team"}, {"host": "*", "action": "deny"}]}"#;
    let form = |body: &'static [u8]| {
        let mut head = head(HOST, BodySize::Known(body.len() as u64));
        head.headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded"));
        let mut drive = for_ci(settings);
        assert!(matches!(drive.tell(Event::arrived(head)), Step::Read { keep: Keep::Memory, .. }));
        drive.tell(Event::Body { bytes: body, last: true, trailers: None })
    };
    let listed = sent(form(b"Action=ListQueues&Version=2012-11-05"));
    assert!(listed.headers["authorization"].to_str().unwrap().contains("Credential=TEAM/"));
    assert_eq!(refused(form(b"Action=DeleteQueue&Version=2012-11-05")).1, "denied");
}

#[test]
fn a_url_presigned_with_an_issued_key_is_signed_anew() {
    let (id, secret) = sigward_gateway::client::issue(&MASTER, "ci", 1);
    let credentials = Credentials::new(&id, &secret, None).unwrap();
    let host = "s3.us-east-1.amazonaws.com";
    let scope = Scope { region: "us-east-1", signing_name: "s3", style: Style::S3 };
    let headers: &[(&[u8], &[u8])] = &[(b"host", host.as_bytes())];
    let request = Request { method: "GET", path: b"/b/k", query: b"versionId=1", headers, payload: Payload::UNSIGNED };
    let signed = sigward_sigv4::presign(&credentials, &scope, &request, NOW, 60, Options::default()).unwrap();
    let asked = |path: String| {
        let mut head = head(host, BodySize::Known(0));
        (head.method, head.path) = (Method::GET, path);
        head.headers.insert("host", HeaderValue::from_static(host));
        head
    };
    let path = format!("/b/k?{}", String::from_utf8_lossy(signed.query()));
    let outgoing = sent(for_ci(&format!("{{{CLIENTS}}}")).tell(Event::arrived(asked(path.clone()))));
    assert_eq!(outgoing.path, "/b/k?versionId=1");
    assert!(outgoing.headers["authorization"].to_str().unwrap().contains("Credential=TEAM/"));
    let other = refused(for_ci(&format!("{{{CLIENTS}}}")).tell(Event::arrived(asked(path.replace("versionId=1", "versionId=2")))));
    assert_eq!(other, (403, "signature-does-not-match".to_owned()));
}

#[test]
fn chunks_that_a_client_signs_are_checked() {
    let (id, secret) = sigward_gateway::client::issue(&MASTER, "ci", 1);
    let credentials = Credentials::new(&id, &secret, None).unwrap();
    let host = "b.s3.us-east-1.amazonaws.com";
    let scope = Scope { region: "us-east-1", signing_name: "s3", style: Style::S3 };
    let given = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
    let pairs =
        [("host", host), ("content-encoding", "aws-chunked"), ("x-amz-content-sha256", given), ("x-amz-decoded-content-length", "5")];
    let headers: Vec<(&[u8], &[u8])> = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    let request = Request { method: "PUT", path: b"/k", query: b"", headers: &headers, payload: Payload::Given(given.as_bytes()) };
    let signed = sign(&credentials, &scope, &request, NOW).unwrap();
    let signer = ChunkSigner::new(&credentials, &scope, Variant::V4, signed.amz_date(), signed.signature()).unwrap();
    let mut body = Vec::new();
    let mut encoder = Encoder::signed(signer, false);
    encoder.chunk(b"hello", &mut body).unwrap();
    encoder.finish(&[], &mut body).unwrap();
    let asked = || {
        let mut head = head(host, BodySize::Known(body.len() as u64));
        (head.method, head.path) = (Method::PUT, "/k".into());
        for (name, value) in pairs {
            head.headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        for (name, value) in signed.headers() {
            head.headers.insert(HeaderName::from_bytes(name).unwrap(), HeaderValue::from_bytes(value).unwrap());
        }
        head
    };
    let reads = |body: &[u8]| {
        let Step::Unwrap { length: Some(5), mut decoder } = for_ci(&format!("{{{CLIENTS}}}")).tell(Event::arrived(asked())) else {
            panic!()
        };
        let mut rest = body;
        while decoder.next(&mut rest)?.is_some() {}
        decoder.end()
    };
    assert_eq!(reads(&body), Ok(()));
    let changed = String::from_utf8(body.clone()).unwrap().replace("hello", "HELLO");
    assert!(reads(changed.as_bytes()).is_err());
}

const BUCKET: &str = "b.s3.us-east-1.amazonaws.com";
const LATER: &str = "Sun, 30 Aug 2015 13:36:00 GMT";

impl Drive {
    /// Another request, of the same settings and with all that was learnt.
    fn next(&mut self) {
        self.exchange = Exchange::new(Arc::clone(self.exchange.config()), 8);
    }
}

#[test]
fn a_clock_belongs_to_the_endpoint_that_has_it() {
    let mut drive = Drive::new("{}");
    sent(drive.tell(Event::arrived(head(HOST, BodySize::Known(0)))));
    sent(drive.tell(Event::Response { status: 403, headers: &error("RequestTimeTooSkewed", Some(LATER)) }));
    for (host, date) in [(BUCKET, "20150830T123600Z"), (HOST, "20150830T133600Z")] {
        drive.next();
        assert_eq!(sent(drive.tell(Event::arrived(head(host, BodySize::Known(0))))).headers["x-amz-date"], date, "{host}");
    }
}

#[test]
fn a_clock_that_is_off_by_more_than_a_day_is_reported_once_and_not_followed() {
    let mut drive = Drive::new("{}");
    for (date, reported) in [("Mon, 31 Aug 2015 12:36:01 GMT", true), ("Sat, 30 Aug 2025 12:36:00 GMT", false)] {
        drive.next();
        sent(drive.tell(Event::arrived(head(HOST, BodySize::Known(0)))));
        let step = drive.tell(Event::Response { status: 403, headers: &error("RequestTimeTooSkewed", Some(date)) });
        assert!(matches!(step, Step::Deliver), "{date}: {step:?}");
        assert_eq!(drive.exchange.record().wrong_clock.as_ref().map(|wrong| wrong.ahead), reported.then_some(86_401));
    }
    drive.next();
    assert_eq!(sent(drive.tell(Event::arrived(head(HOST, BodySize::Known(0))))).headers["x-amz-date"], "20150830T123600Z");
}

#[test]
fn credentials_expire_by_the_endpoints_clock() {
    let mut drive = Drive::new("{}");
    sent(drive.tell(Event::arrived(head(HOST, BodySize::Known(0)))));
    sent(drive.tell(Event::Response { status: 403, headers: &error("RequestTimeTooSkewed", Some(LATER)) }));
    let identity = drive.identities.get_mut("default").unwrap();
    (identity.expires_at, identity.version) = (Some(NOW as f64 + 1800.0), 3);
    drive.next();
    sent(drive.tell(Event::arrived(head(BUCKET, BodySize::Known(0)))));
    drive.next();
    // Nobody else has said what time it is: by all that is known, the keys have expired.
    let step = drive.tell(Event::arrived(head(HOST, BodySize::Known(0))));
    assert!(matches!(step, Step::Refresh { after: None, .. }), "{step:?}");
    drive.identities.get_mut("default").unwrap().expires_at = Some(NOW as f64 + 7200.0);
    sent(drive.tell(Event::Refreshed));
}

#[test]
fn an_event_stream_goes_by_the_clock_of_its_request() {
    let mut drive = Drive::new(&format!(r#"{{"routes": [{{"host": "{HOST}", "service": "transcribe"}}]}}"#));
    sent(drive.tell(Event::arrived(head(HOST, BodySize::Known(0)))));
    sent(drive.tell(Event::Response { status: 403, headers: &error("RequestTimeTooSkewed", Some(LATER)) }));
    drive.next();
    let mut stream = head(HOST, BodySize::Unknown);
    stream.headers.insert("content-type", HeaderValue::from_static("application/vnd.amazon.eventstream"));
    let outgoing = sent(drive.tell(Event::arrived(stream)));
    assert_eq!(outgoing.headers["x-amz-date"], "20150830T133600Z");
    assert!(matches!(outgoing.wrap, Some(Wrap::Events { skew: 3600, .. })));
}

const FULL: Load = Load { overloaded: true, audit_blocked: false };
const UNTOLD: Load = Load { overloaded: false, audit_blocked: true };
const FIVE: &str = r#"{"pace": {"max_wait": 0, "rules": [{"operation": "sqs:ReceiveMessage", "rate": 0.001, "burst": 5}]}}"#;

/// A call that `FIVE` counts; a form's body names it.
fn receive(form: bool) -> RequestHead {
    let mut head = head(HOST, BodySize::Known(if form { 21 } else { 0 }));
    let (name, value) =
        if form { ("content-type", "application/x-www-form-urlencoded") } else { ("x-amz-target", "AmazonSQS.ReceiveMessage") };
    head.headers.insert(name, HeaderValue::from_static(value));
    head
}

#[test]
fn what_finds_no_room_spends_nothing() {
    let mut drive = Drive::new(FIVE);
    for (load, slug) in [(FULL, "overloaded"), (UNTOLD, "audit-log-unavailable"), (Load { audit_blocked: true, ..FULL }, "overloaded")] {
        for form in [false, true].into_iter().cycle().take(10) {
            drive.next();
            let step = match drive.tell(Event::Head { head: receive(form), load }) {
                Step::Read { .. } if load == UNTOLD => {
                    drive.tell(Event::Body { bytes: b"Action=ReceiveMessage", last: true, trailers: None })
                }
                step => step,
            };
            assert_eq!(refused(step), (503, slug.to_owned()));
            assert_eq!(drive.exchange.record().signatures, 0);
        }
    }
    for _ in 0..10 {
        drive.next();
        assert!(matches!(drive.tell(Event::arrived(receive(true))), Step::Read { .. }));
        assert_eq!(refused(drive.tell(Event::NoRoom)).1, "overloaded");
    }
    for _ in 0..5 {
        drive.next();
        sent(drive.tell(Event::arrived(receive(false))));
    }
    drive.next();
    assert_eq!(refused(drive.tell(Event::arrived(receive(false)))).1, "slow-down");
}

#[test]
fn no_room_is_asked_for_a_route_first_and_for_a_form_that_must_be_read() {
    let routes = r#""routes": [{"host": "*", "path": "/no", "action": "deny"}, {"operation": "sqs:ReceiveMessage", "host": "*"}]"#;
    let mut drive = Drive::new(&format!("{{{routes}}}"));
    let denied = RequestHead { path: "/no".into(), ..receive(false) };
    assert_eq!(refused(drive.tell(Event::Head { head: denied, load: FULL })).1, "denied");
    drive.next();
    assert_eq!(refused(drive.tell(Event::Head { head: receive(true), load: FULL })).1, "overloaded");
}

#[test]
fn a_call_that_the_audit_log_did_not_take_is_refused_and_was_no_attempt() {
    let mut drive = Drive::new(r#"{"circuit": {"concurrency": 1}}"#);
    for _ in 0..2 {
        sent(drive.tell(Event::arrived(receive(false))));
        assert_eq!(refused(drive.tell(Event::Unlogged)), (503, "audit-log-unavailable".to_owned()));
        assert_eq!((drive.exchange.record().disposition, drive.exchange.record().attempts.len()), (Disposition::Refuse, 0));
        drive.next();
    }
    // One of them has been in flight, and is no more.
    sent(drive.tell(Event::arrived(receive(false))));
}

#[test]
fn what_is_not_signed_goes_out_whatever_becomes_of_the_audit_log() {
    let mut passed = Drive::new(&format!(r#"{{"routes": [{{"host": "{HOST}", "action": "pass"}}]}}"#));
    sent(passed.tell(Event::Head { head: receive(false), load: UNTOLD }));
    let mut unsigned = Drive::new("{}");
    let mut asked = receive(true);
    asked.target = Target::new(Scheme::Https, "sts.us-east-1.amazonaws.com", 443).unwrap();
    assert!(matches!(unsigned.tell(Event::Head { head: asked, load: UNTOLD }), Step::Read { .. }));
    let body = b"Action=AssumeRoleWithWebIdentity&Version=2011-06-15";
    let outgoing = sent(unsigned.tell(Event::Body { bytes: body, last: true, trailers: None }));
    assert!(!outgoing.headers.contains_key("authorization"));
}

#[test]
fn a_trailer_never_becomes_a_header_but_for_an_announced_checksum() {
    for (announced, kept) in [("", None), ("x-amz-target", None), ("x-amz-target, x-amz-checksum-crc32", Some("AAAAAA=="))] {
        let mut drive = Drive::new("{}");
        let mut asked = head(HOST, BodySize::Known(50));
        for (name, value) in [
            ("x-amz-target", "AmazonSQS.ListQueues"),
            ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
            ("x-amz-decoded-content-length", "2"),
            ("x-amz-trailer", announced),
        ] {
            asked.headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
        assert!(matches!(drive.tell(Event::arrived(asked)), Step::Unwrap { length: Some(2), .. }));
        assert!(matches!(drive.tell(Event::Unwrapped), Step::Read { .. }));
        let mut trailers = HeaderMap::new();
        for (name, value) in [("x-amz-target", "AmazonSQS.DeleteQueue"), ("x-amz-checksum-crc32", "AAAAAA=="), ("host", "evil.test")] {
            trailers.insert(name, HeaderValue::from_static(value));
        }
        let outgoing = sent(drive.tell(Event::Body { bytes: b"{}", last: true, trailers: Some(&trailers) }));
        let all: Vec<&HeaderValue> = outgoing.headers.get_all("x-amz-target").iter().collect();
        assert_eq!(all, ["AmazonSQS.ListQueues"], "{announced}");
        assert_eq!(outgoing.headers["host"], HOST);
        assert_eq!(outgoing.headers.get("x-amz-checksum-crc32").map(|value| value.to_str().unwrap()), kept);
    }
}

#[test]
fn only_announced_trailers_that_say_nothing_of_the_call_go_on_behind_a_body_that_streams() {
    let mut drive = Drive::new(r#"{"body": {"hold": 4}}"#);
    let mut asked = head(BUCKET, BodySize::Unknown);
    for (name, value) in [("x-amz-content-sha256", "UNSIGNED-PAYLOAD"), ("trailer", "x-sum, x-amz-copy-source, Host, authorization")] {
        asked.headers.insert(name, HeaderValue::from_static(value));
    }
    assert!(matches!(drive.tell(Event::arrived(asked)), Step::Read { .. }));
    let outgoing = sent(drive.tell(Event::Body { bytes: b"hello", last: false, trailers: None }));
    assert_eq!((outgoing.trailers, outgoing.headers["trailer"].as_bytes()), (vec![HeaderName::from_static("x-sum")], &b"x-sum"[..]));
}

/// A PUT to the bucket as the client `ci` signs it, for S3. `payload`: what it says of the body.
fn put_by_ci(payload: &str, extra: &[(&'static str, &str)], body: BodySize) -> RequestHead {
    let (id, secret) = sigward_gateway::client::issue(&MASTER, "ci", 1);
    let mut asked = RequestHead { method: Method::PUT, path: "/k".into(), ..head(BUCKET, body) };
    for (name, value) in [("host", BUCKET), ("x-amz-content-sha256", payload)].iter().chain(extra) {
        asked.headers.insert(*name, HeaderValue::from_str(value).unwrap());
    }
    let signed = {
        let pairs: Vec<(&[u8], &[u8])> = asked.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())).collect();
        let scope = Scope { region: "us-east-1", signing_name: "s3", style: Style::S3 };
        let payload = Payload::Given(payload.as_bytes());
        let request = Request { method: "PUT", path: b"/k", query: b"", headers: &pairs, payload };
        sign(&Credentials::new(&id, &secret, None).unwrap(), &scope, &request, NOW).unwrap()
    };
    for (name, value) in signed.headers() {
        asked.headers.insert(HeaderName::from_bytes(name).unwrap(), HeaderValue::from_bytes(value).unwrap());
    }
    asked
}

const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

#[test]
fn a_header_that_a_client_signed_goes_on_or_nothing_does() {
    let settings = format!("{{{CLIENTS}}}");
    let asked = |connection: &'static str| {
        let copy = [("x-amz-copy-source", "/b/secret"), ("range", "bytes=0-1")];
        let mut asked = put_by_ci(EMPTY, &copy, BodySize::Known(0));
        asked.headers.insert("connection", HeaderValue::from_static(connection));
        for_ci(&settings).tell(Event::arrived(asked))
    };
    for connection in ["x-amz-copy-source", "close, X-Amz-Copy-Source", "range", "x-amz-content-sha256", "x-amz-date"] {
        assert_eq!(refused(asked(connection)), (403, "signed-header-removed".to_owned()), "{connection}");
    }
    for connection in ["keep-alive", "host", "authorization", "x-gone"] {
        assert_eq!(sent(asked(connection)).headers["x-amz-copy-source"], "/b/secret", "{connection}");
    }
}

#[test]
fn of_two_signatures_a_client_has_sent_one_too_many() {
    for required in [true, false] {
        let settings = format!("{{{}}}", CLIENTS.replace("true", if required { "true" } else { "false" }));
        let mut asked = put_by_ci(EMPTY, &[], BodySize::Known(0));
        asked.headers.append("authorization", HeaderValue::from_static("Bearer x"));
        assert_eq!(refused(for_ci(&settings).tell(Event::arrived(asked))), (403, "ambiguous-signature".to_owned()));
        for query in ["X-Amz-Signature=0", "x-amz-cr%65dential=A", "Signature=a&AWSAccessKeyId=b"] {
            let mut asked = put_by_ci(EMPTY, &[], BodySize::Known(0));
            asked.path = format!("/k?{query}");
            assert_eq!(refused(for_ci(&settings).tell(Event::arrived(asked))).1, "ambiguous-signature", "{query}");
        }
    }
}

#[test]
fn a_body_is_covered_where_that_is_asked_for() {
    let settings = format!(r#"{{"body": {{"hold": 4}}, {}}}"#, CLIENTS.replace("true", r#"true, "payload": "signed""#));
    let hash = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    for (payload, size) in [(UNSIGNED, 5), (UNSIGNED, 1), ("NONSENSE", 5)] {
        let step = for_ci(&settings).tell(Event::arrived(put_by_ci(payload, &[], BodySize::Known(size))));
        assert_eq!(refused(step), (403, "unsigned-payload".to_owned()), "{payload}");
    }
    let framed = |length| {
        let asked = put_by_ci("STREAMING-UNSIGNED-PAYLOAD-TRAILER", &[("x-amz-decoded-content-length", length)], BodySize::Known(50));
        for_ci(&settings).tell(Event::arrived(asked))
    };
    assert_eq!(refused(framed("5")).1, "unsigned-payload");
    assert!(matches!(framed("0"), Step::Unwrap { length: Some(0), .. }));
    for (payload, size) in [(UNSIGNED, 0), (hash, 5)] {
        sent(for_ci(&settings).tell(Event::arrived(put_by_ci(payload, &[], BodySize::Known(size)))));
    }
    for (body, refuses) in [(&b""[..], false), (b"x", true)] {
        let mut drive = for_ci(&settings);
        assert!(matches!(drive.tell(Event::arrived(put_by_ci(UNSIGNED, &[], BodySize::Unknown))), Step::Read { .. }));
        let step = drive.tell(Event::Body { bytes: body, last: true, trailers: None });
        if refuses {
            assert_eq!(refused(step).1, "unsigned-payload");
        } else {
            sent(step);
        }
    }
}

#[test]
fn a_hash_that_does_not_go_on_is_compared_first() {
    let hash = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let settings = format!(r#"{{"body": {{"hold": 4}}, "routes": [{{"host": "{BUCKET}", "payload": "unsigned"}}], {CLIENTS}}}"#);
    for (body, right) in [(b"hello", true), (b"HELLO", false)] {
        let mut drive = for_ci(&settings);
        let step = drive.tell(Event::arrived(put_by_ci(hash, &[], BodySize::Known(5))));
        assert!(matches!(step, Step::Read { keep: Keep::Spool, .. }), "{step:?}");
        let step = drive.tell(Event::Body { bytes: body, last: true, trailers: None });
        if right {
            assert_eq!(sent(step).headers["x-amz-content-sha256"], UNSIGNED);
        } else {
            assert_eq!(refused(step), (403, "content-sha256-mismatch".to_owned()));
        }
    }
}

fn get_of(host: &str, path: &str) -> RequestHead {
    RequestHead { method: Method::GET, path: path.into(), ..head(host, BodySize::Known(0)) }
}

#[test]
fn how_one_rule_reads_a_request_is_not_how_the_others_do() {
    const LAMBDA: &str = "lambda.us-east-1.amazonaws.com";
    let deny = format!(r#"{{"host": "{LAMBDA}", "path": "/admin/*", "action": "deny"}}"#);
    for first in ["", r#"{"host": "lambda.*", "path": "/never/*", "style": "s3"},"#] {
        let mut drive = Drive::new(&format!(r#"{{"routes": [{first}{deny}]}}"#));
        assert_eq!(refused(drive.tell(Event::arrived(get_of(LAMBDA, "/x/..//admin/y")))).1, "denied", "{first}");
        let mut drive = Drive::new(&format!(r#"{{"routes": [{first}{deny}]}}"#));
        assert_eq!(
            sent(drive.tell(Event::arrived(get_of(LAMBDA, "/2015-03-31/functions/a%3ab")))).path,
            "/2015-03-31/functions/a%3Ab",
            "{first}"
        );
    }
}

#[test]
fn a_bucket_in_the_host_goes_into_the_path_for_a_server_in_the_place_of_s3() {
    for action in ["sign", "pass"] {
        let route = format!(r#"{{"bucket": "pub", "action": "{action}", "upstream": "http://minio.test:9000"}}"#);
        let mut drive = Drive::new(&format!(r#"{{"routes": [{route}]}}"#));
        assert_eq!(sent(drive.tell(Event::arrived(get_of("pub.s3.us-east-1.amazonaws.com", "/secret/%6b")))).path, "/pub/secret/k");
    }
}

#[test]
fn a_signature_in_the_query_is_seen_in_every_spelling() {
    let mut drive = Drive::new("{}");
    let outgoing = sent(drive.tell(Event::arrived(get_of("b.s3.us-east-1.amazonaws.com", "/k?X-Amz-%53ignature=1"))));
    assert!(!outgoing.headers.contains_key("authorization"));
}

#[test]
fn services_behind_another_ones_name_are_known_to_rules() {
    let upgrade = |path: &str| {
        let mut asked = get_of("abc-ats.iot.us-east-1.amazonaws.com", path);
        for (name, value) in [("connection", "upgrade"), ("upgrade", "websocket")] {
            asked.headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        asked
    };
    for (rule, asked) in [
        ("iotdevicegateway:*", upgrade("/mqtt")),
        ("iotdevicegateway:*", upgrade("/%6dqtt")),
        ("iotdata:*", upgrade("/mqtt")),
        ("s3:DeleteObject", RequestHead { method: Method::DELETE, ..get_of("ap-1.op-1.s3-outposts.us-east-1.amazonaws.com", "/k") }),
    ] {
        let mut drive = Drive::new(&format!(r#"{{"routes": [{{"operation": "{rule}", "action": "deny", "unchecked": true}}]}}"#));
        assert_eq!(refused(drive.tell(Event::arrived(asked))).1, "denied", "{rule}");
    }
    let mut drive = Drive::new(r#"{"customer_endpoints": "refuse"}"#);
    let vpce = get_of("vpce-1-a.execute-api.us-east-1.vpce.amazonaws.com", "/");
    assert_eq!(refused(drive.tell(Event::arrived(vpce))).1, "customer-endpoint");
}

#[test]
fn a_member_that_stands_in_a_body_twice_is_refused_whatever_is_logged() {
    for settings in ["{}", r#"{"audit_log": "stderr"}"#] {
        let mut drive = Drive::new(settings);
        let mut asked = head("dynamodb.us-east-1.amazonaws.com", BodySize::Unknown);
        for (name, value) in [("x-amz-target", "DynamoDB_20120810.DeleteTable"), ("content-type", "application/x-amz-json-1.0")] {
            asked.headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        drive.tell(Event::arrived(asked));
        let body = br#"{"TableName": "a", "TableName": "b"}"#;
        assert_eq!(refused(drive.tell(Event::Body { bytes: body, last: true, trailers: None })).1, "ambiguous-call", "{settings}");
    }
}

#[test]
fn what_attackers_tried() {
    const SHAPE: &str = "GraniteServiceVersion20100801";
    const MINIO: &str = r#"{"routes": [{"host": "minio.test", "service": "s3", "bucket": "team/secret/*", "action": "deny"},
        {"host": "minio.test", "service": "s3", "bucket": "team/pub/*"}, {"host": "*", "action": "deny"}]}"#;
    for path in ["/team/pub/../secret/x", "/team/./secret/x", "/team/%2e/secret/x", "/pub/../team/secret/x", "/team//secret/x"] {
        let mut drive = Drive::new(MINIO);
        assert_eq!(refused(drive.tell(Event::arrived(get_of("minio.test", path)))).1, "denied", "{path}");
    }
    sent(Drive::new(MINIO).tell(Event::arrived(get_of("minio.test", "/team/pub/a/"))));

    for path in ["{}/operation/DeleteAlarms/", "/{}/operation/DeleteAlarms", "{}/operation//DeleteAlarms", "{}/x/../operation/DeleteAlarms"]
    {
        let mut drive = Drive::new(r#"{"routes": [{"operation": "cloudwatch:DeleteAlarms", "action": "deny"}]}"#);
        let mut asked = head("monitoring.us-east-1.amazonaws.com", BodySize::Known(0));
        asked.path = format!("/service/{}", path.replace("{}", SHAPE));
        asked.headers.insert("x-amz-target", HeaderValue::from_str(&format!("{SHAPE}.ListMetrics")).unwrap());
        assert_eq!(refused(drive.tell(Event::arrived(asked))).1, "ambiguous-call", "{path}");
    }

    // A rule for one operation of the service does not close what customers have made.
    let mut drive = Drive::new(r#"{"routes": [{"operation": "es:DeleteDomain", "action": "deny"}]}"#);
    sent(drive.tell(Event::arrived(get_of("search-logs.us-east-1.es.amazonaws.com", "/_search"))));
    let mut drive = Drive::new(r#"{"routes": [{"operation": "es:*", "action": "deny"}]}"#);
    assert_eq!(refused(drive.tell(Event::arrived(get_of("search-logs.us-east-1.es.amazonaws.com", "/_search")))).1, "denied");

    // One request has two names where only one of them is served.
    for (host, sent_for) in [("s3.us-east-1.amazonaws.com", false), ("s3express-control.us-east-1.amazonaws.com", true)] {
        let mut drive = Drive::new(r#"{"routes": [{"operation": "s3:ListDirectoryBuckets"}, {"operation": "*:*", "action": "deny"}]}"#);
        let step = drive.tell(Event::arrived(get_of(host, "/")));
        assert_eq!(matches!(step, Step::Send(_)), sent_for, "{host}");
    }

    let copies = r#"{"routes": [{"host": "minio.test", "service": "s3", "operation": "s3:CopyObject"}, {"host": "*", "action": "deny"}]}"#;
    let mut drive = Drive::new(copies);
    let mut copy = RequestHead { method: Method::PUT, ..get_of("minio.test", "/b/k") };
    copy.headers.insert("x-amz-copy-source", HeaderValue::from_static("x"));
    assert_eq!(refused(drive.tell(Event::arrived(copy))).1, "denied");
}

#[test]
fn a_region_is_learnt_from_aws_alone_and_forgotten_where_nobody_answers() {
    let moved =
        |region: &'static str| HeaderMap::from_iter([(HeaderName::from_static("x-amz-bucket-region"), HeaderValue::from_static(region))]);
    let mut drive = Drive::new(r#"{"routes": [{"host": "minio.test", "service": "s3"}], "retry": {"mode": "off"}}"#);
    sent(drive.tell(Event::arrived(get_of("minio.test", "/prod/k"))));
    drive.tell(Event::Response { status: 301, headers: &moved("eu-west-1") });
    let asks = |drive: &mut Drive| {
        drive.next();
        sent(drive.tell(Event::arrived(get_of("s3.us-east-1.amazonaws.com", "/prod/k")))).headers["host"].to_str().unwrap().to_owned()
    };
    assert_eq!(asks(&mut drive), "s3.us-east-1.amazonaws.com");
    drive.tell(Event::Response { status: 301, headers: &moved("us-zzzz-9") });
    assert_eq!(asks(&mut drive), "s3.us-east-1.amazonaws.com");
    drive.tell(Event::Response { status: 301, headers: &moved("eu-west-1") });
    assert_eq!(asks(&mut drive), "s3.eu-west-1.amazonaws.com");
    drive.tell(Event::Failed(Failure::Connect("no such name".into())));
    assert_eq!(asks(&mut drive), "s3.us-east-1.amazonaws.com");
}

/// The work, not the time: many of them would not end.
#[test]
fn what_is_repeated_a_thousand_times_is_looked_at_once() {
    let rules: Vec<String> = (0..300).map(|number| format!(r#"{{"bucket": "b/s{number}/*x*y", "action": "deny"}}"#)).collect();
    let mut drive = Drive::new(&format!(r#"{{"routes": [{}, {{"bucket": "b/*", "operation": "s3:DeleteObjects"}}]}}"#, rules.join(",")));
    let delete = RequestHead { method: Method::POST, path: "/b?delete".into(), ..head("s3.us-east-1.amazonaws.com", BodySize::Unknown) };
    drive.tell(Event::arrived(delete));
    let body = format!("<Delete>{}</Delete>", "<Object><Key>aaaaaaaaaaa</Key></Object>".repeat(26_000));
    assert_eq!(refused(drive.tell(Event::Body { bytes: body.as_bytes(), last: true, trailers: None })).1, "denied");
    let path = format!("/?{}", vec!["x-id"; 3180].join("&"));
    sent(Drive::new("{}").tell(Event::arrived(get_of("lambda.us-east-1.amazonaws.com", &path))));
}
