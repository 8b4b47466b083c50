//! A thousand clients against an upstream with a limit, in virtual time: exchanges, pacer, quota and circuit as in the engine,
//! nothing measured with a clock. Seeded: the same every time.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "tests"
)]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::HeaderMap;
use http::{HeaderValue, Method};
use sigward_gateway::knowledge::Knowledge;
use sigward_gateway::pace::Ticket;
use sigward_gateway::settings::EngineSettings;
use sigward_gateway::{
    BodySize, Clients, Config, Entry, Event, Exchange, Failure, Identities, Identity, Moment, RequestHead, Scheme, Step, Target,
};
use sigward_sigv4::Credentials;

const HOST: &str = "dynamodb.us-east-1.amazonaws.com";
const LATENCY: f64 = 0.01;

/// A token bucket, as AWS's services have; `down`: it does not answer then but with 503.
struct Upstream {
    rate: f64,
    burst: f64,
    tokens: f64,
    last: f64,
    down: (f64, f64),
    /// (when, served, throttled) of each request.
    seen: Vec<(f64, u16)>,
}

impl Upstream {
    fn answer(&mut self, now: f64) -> u16 {
        self.tokens = (self.tokens + (now - self.last) * self.rate).min(self.burst);
        self.last = now;
        let status = if (self.down.0..self.down.1).contains(&now) {
            503
        } else if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            200
        } else {
            400
        };
        self.seen.push((now, status));
        status
    }

    fn count(&self, from: f64, to: f64, status: u16) -> usize {
        self.seen.iter().filter(|(at, seen)| (from..to).contains(at) && *seen == status).count()
    }

    fn all(&self, from: f64, to: f64) -> usize {
        self.seen.iter().filter(|(at, _)| (from..to).contains(at)).count()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Begin,
    Elapsed,
    Answered(u16),
    Advance,
}

struct World {
    config: Arc<Config>,
    identities: Identities,
    upstream: Upstream,
    /// (nanoseconds, order, client, what).
    queue: BinaryHeap<Reverse<(u64, u64, usize, What)>>,
    order: u64,
    exchanges: HashMap<usize, Exchange>,
    tickets: HashMap<usize, (Ticket, Duration)>,
    /// Seconds between a client's calls, if it need not wait.
    period: f64,
    /// (when, status) that clients got.
    got: Vec<(f64, u16)>,
    seed: u64,
    until: f64,
}

impl World {
    fn new(settings: &str, clients: usize, load: f64, upstream: Upstream, until: f64) -> Self {
        let settings = EngineSettings::from_json(settings).unwrap();
        let config = Config::new(settings, Knowledge::shipped().unwrap(), Clients::default(), Arc::default()).unwrap();
        let credentials = Arc::new(Credentials::new("AKID", "secret", None).unwrap());
        let identity = Identity { credentials: Some(credentials), ..Identity::default() };
        let mut world = Self {
            config: Arc::new(config),
            identities: Identities::from([("default".into(), identity)]),
            upstream,
            queue: BinaryHeap::new(),
            order: 0,
            exchanges: HashMap::new(),
            tickets: HashMap::new(),
            period: clients as f64 / load,
            got: Vec::new(),
            seed: 1,
            until,
        };
        for client in 0..clients {
            world.at(client as f64 / load, client, What::Begin);
        }
        world.at(0.0, usize::MAX, What::Advance);
        world
    }

    fn at(&mut self, when: f64, client: usize, what: What) {
        self.order += 1;
        self.queue.push(Reverse(((when * 1e9) as u64, self.order, client, what)));
    }

    fn run(mut self) -> Self {
        while let Some(Reverse((nanos, _, client, what))) = self.queue.pop() {
            let now = nanos as f64 / 1e9;
            if now > self.until {
                break;
            }
            match what {
                What::Begin => {
                    self.seed += 1;
                    self.exchanges.insert(client, Exchange::new(Arc::clone(&self.config), self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
                    self.tell(now, client, Event::arrived(head(client)));
                }
                What::Elapsed => self.tell(now, client, Event::Elapsed),
                What::Answered(0) => self.tell(now, client, Event::Failed(Failure::HeadTimeout)),
                What::Answered(status) => {
                    let mut headers = HeaderMap::new();
                    if status == 400 {
                        headers.insert("x-amzn-errortype", HeaderValue::from_static("ThrottlingException"));
                    } else {
                        headers.insert("content-length", HeaderValue::from_static("0"));
                    }
                    self.tell(now, client, Event::Response { status, headers: &headers });
                }
                What::Advance => self.advance(now),
            }
        }
        self
    }

    fn advance(&mut self, now: f64) {
        let next = self.config.live.pacer.advance(Duration::from_secs_f64(now));
        let mut context = Context::from_waker(Waker::noop());
        let mut ready: Vec<(usize, bool)> = Vec::new();
        for (client, (ticket, until)) in &mut self.tickets {
            if Pin::new(ticket).poll(&mut context) == Poll::Ready(()) {
                ready.push((*client, true));
            } else if until.as_secs_f64() <= now {
                ready.push((*client, false));
            }
        }
        ready.sort_unstable();
        for (client, granted) in ready {
            self.tickets.remove(&client);
            self.tell(now, client, Event::Paced { granted });
        }
        // The engine's timer has a grain of a millisecond.
        let next = next.map_or(now + 0.05, |next| next.as_secs_f64().clamp(now + 0.001, now + 0.05));
        self.at(next, usize::MAX, What::Advance);
    }

    fn tell(&mut self, now: f64, client: usize, event: Event<'_>) {
        let at = Moment { unix_seconds: 1_000_000 + now as u64, since_start: Duration::from_secs_f64(now), identities: &self.identities };
        let Some(exchange) = self.exchanges.get_mut(&client) else { return };
        match exchange.on(event, &at) {
            Step::Send(_) => {
                let status = self.upstream.answer(now);
                self.at(now + LATENCY, client, What::Answered(status));
            }
            Step::Wait { until } => self.at(until.as_secs_f64().max(now), client, What::Elapsed),
            Step::Pace { ticket, until } => {
                self.tickets.insert(client, (ticket, until));
            }
            Step::Deliver => {
                let status = exchange.record().status;
                self.done(now, client, status);
            }
            Step::Reply(response) => self.done(now, client, response.status().as_u16()),
            step => panic!("{step:?}"),
        }
    }

    fn done(&mut self, now: f64, client: usize, status: u16) {
        self.exchanges.remove(&client);
        self.got.push((now, status));
        // A client that was served calls again in its time; one that was not, a little later, as people's loops do.
        let next = now + self.period;
        self.at(next, client, What::Begin);
    }
}

fn head(client: usize) -> RequestHead {
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-target", HeaderValue::from_static("DynamoDB_20120810.GetItem"));
    RequestHead {
        entry: Entry::Reverse,
        method: Method::POST,
        target: Target::new(Scheme::Https, HOST, 443).unwrap(),
        path: "/".into(),
        headers,
        body: BodySize::Known(0),
        client: format!("10.0.{}.{}", client / 256, client % 256).into(),
        malformed: None,
    }
}

fn upstream(rate: f64, down: (f64, f64)) -> Upstream {
    Upstream { rate, burst: rate * 0.1, tokens: rate * 0.1, last: 0.0, down, seen: Vec::new() }
}

const LIMIT: f64 = 400.0;

#[test]
fn adaptive_mode_finds_the_limit() {
    let settings = r#"{"retry": {"mode": "adaptive"}, "pace": {"defaults": false}}"#;
    let world = World::new(settings, 1000, 5.0 * LIMIT, upstream(LIMIT, (0.0, 0.0)), 60.0).run();
    let goodput = world.upstream.count(0.0, 60.0, 200) as f64 / (60.0 * LIMIT);
    let throttled = world.upstream.count(5.0, 60.0, 400) as f64 / world.upstream.all(5.0, 60.0) as f64;
    if std::env::var_os("SHOW").is_some() {
        for second in 0..60 {
            let from = f64::from(second);
            println!(
                "{second}: {} served, {} throttled",
                world.upstream.count(from, from + 1.0, 200),
                world.upstream.count(from, from + 1.0, 400)
            );
        }
    }
    println!("adaptive: goodput {goodput:.3}, throttled after 5 s {throttled:.4}");
    assert!(goodput >= 0.95, "{goodput}");
    assert!(throttled <= 0.05, "{throttled}");
}

#[test]
fn a_rule_keeps_the_limit_from_the_start() {
    let settings = format!(r#"{{"pace": {{"rules": [{{"operation": "dynamodb:GetItem", "rate": {LIMIT}, "burst": 20}}]}}}}"#);
    let world = World::new(&settings, 1000, 5.0 * LIMIT, upstream(LIMIT, (0.0, 0.0)), 60.0).run();
    let goodput = world.upstream.count(0.0, 60.0, 200) as f64 / (60.0 * LIMIT);
    println!("paced: goodput {goodput:.4}, throttled {}", world.upstream.count(0.0, 60.0, 400));
    assert!(goodput >= 0.99, "{goodput}");
    assert_eq!(world.upstream.count(1.0, 60.0, 400), 0, "no throttled answer after the first second");
    let served: Vec<u16> = world.got.iter().map(|(_, status)| *status).collect();
    assert!(served.iter().all(|status| *status == 200), "everybody is served in turn");
}

#[test]
fn an_outage_is_not_made_worse_and_ends_when_it_ends() {
    let settings = r#"{"pace": {"defaults": false}}"#;
    let load = 0.8 * LIMIT;
    let world = World::new(settings, 1000, load, upstream(LIMIT, (20.0, 50.0)), 65.0).run();
    let asked = world.got.iter().filter(|(at, _)| (20.0..50.0).contains(at)).count() as f64;
    let amplification = world.upstream.all(20.0, 50.0) as f64 / asked;
    let second =
        |from: f64| world.got.iter().filter(|(at, status)| (from..from + 1.0).contains(at) && *status == 200).count() as f64 / load;
    let recovered = (0..10).find(|after| second(50.0 + f64::from(*after)) >= 0.95);
    println!("outage: {amplification:.3} attempts a request, recovered after {recovered:?} s");
    assert!(amplification <= 1.2, "{amplification}");
    assert!(recovered.is_some_and(|after| after <= 4), "{recovered:?}");
}

#[test]
fn an_outage_without_a_circuit_is_held_by_the_quota() {
    let settings = r#"{"pace": {"defaults": false}, "circuit": {"failures": 0}}"#;
    let world = World::new(settings, 1000, 0.8 * LIMIT, upstream(LIMIT, (20.0, 50.0)), 60.0).run();
    let asked = world.got.iter().filter(|(at, _)| (20.0..50.0).contains(at)).count() as f64;
    let amplification = world.upstream.all(20.0, 50.0) as f64 / asked;
    println!("outage, quota alone: {amplification:.3} attempts a request");
    assert!(amplification <= 1.2, "{amplification}");
}
