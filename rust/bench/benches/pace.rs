//! What judging and pacing cost a request: the rule and its bucket found, a call taken, the answer judged and learnt from.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use sigward_gateway::circuit::Pass;
use sigward_gateway::judge::{Answer, Verdict, judge_head};
use sigward_gateway::knowledge::Knowledge;
use sigward_gateway::live::Live;
use sigward_gateway::pace::{Asked, Paces, Patience, Subject};
use sigward_gateway::settings::{PaceRule, PaceSettings};

fn cost(c: &mut Criterion) {
    let knowledge = Knowledge::shipped().unwrap();
    let host = "dynamodb.eu-west-1.amazonaws.com";
    let operation = Arc::clone(knowledge.named("dynamodb", "dynamodb", "GetItem").unwrap());
    let answer_headers = HeaderMap::from_iter([(http::header::CONTENT_LENGTH, HeaderValue::from_static("2"))]);

    let mut one = |name: &str, settings: PaceSettings, adaptive: bool| {
        let paces = Paces::new(&settings, adaptive).unwrap();
        let live = Live::default();
        let mut now = Duration::from_secs(1000);
        c.bench_function(name, |bench| {
            bench.iter(|| {
                now += Duration::from_micros(10);
                let endpoint = live.endpoint(host);
                assert_eq!(endpoint.circuit.ask(now), Pass::Go);
                let subject = Subject {
                    signing_name: "dynamodb",
                    known_as: "dynamodb",
                    operation: Some(&operation),
                    region: "eu-west-1",
                    account: "123456789012",
                    method: "POST",
                    object: None,
                    client: "127.0.0.1",
                };
                let paced = paces.find(&live.pacer, black_box(&subject));
                if let Some(paced) = &paced {
                    let asked = live.pacer.ask(paced.key, paced.limit, 1, now, Patience::default());
                    assert!(matches!(asked, Asked::Go));
                }
                let answer =
                    Answer { status: 200, headers: &answer_headers, operation: Some(&operation), s3: false, method: &Method::POST };
                assert_eq!(judge_head(black_box(&answer)), Verdict::Deliver);
                endpoint.circuit.succeeded();
                endpoint.quota.give(1);
                if adaptive && let Some(paced) = &paced {
                    live.pacer.teach(paced.key, paced.limit, now, false);
                }
            });
        });
    };
    one("judge and pace, no rule fits", PaceSettings::default(), false);
    let rule = PaceRule { operation: Some("dynamodb:*".into()), rate: 1e6, burst: Some(1e6), ..PaceRule::default() };
    one("judge and pace, a rule fits", PaceSettings { rules: vec![rule.clone()], ..PaceSettings::default() }, false);
    one("judge and pace, adaptive", PaceSettings { rules: vec![rule], ..PaceSettings::default() }, true);
}

criterion_group!(benches, cost);
criterion_main!(benches);
