//! One seed: sidecars, their clients, and what must hold when all is over.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use sigward_gateway::knowledge::Knowledge;
use sigward_gateway::pace::Paces;
use sigward_gateway::settings::{EngineSettings, RetryMode};
use sigward_gateway::{Clients, Config, Live};

use super::clients::client;
use super::faults::{Fault, Plan, Sabotage};
use super::random::Random;
use super::upstream::TICK;
use super::{PATIENCE, SABOTAGE, STORE, WORLD, World, locked};
use crate::connect::Connector;
use crate::outbox::OutboxEvent;
use crate::pool::{self, Pool};
use crate::shared::{self, Shared};
use crate::{fleet, shared::credentials};

/// Attempts of a call, at most, whatever the settings of a run.
pub(super) const MOST_ATTEMPTS: usize = 5;
/// `retry.cap`.
pub(super) const CAP: Duration = Duration::from_secs(4);
/// Longer than any connection may stay when nobody asks any more.
const QUIET: Duration = Duration::from_secs(100);

/// One engine, as `Engine` builds it, without threads and listeners.
pub(super) struct Sidecar {
    pub(super) shared: Arc<Shared>,
    pub(super) pool: ArcSwap<Pool>,
}

/// What came of a seed.
pub(super) struct Outcome {
    pub(super) violations: Vec<String>,
    pub(super) trace: Vec<String>,
}

impl Sidecar {
    pub(super) fn new(settings: &str) -> Arc<Self> {
        let config = config(settings, Arc::default());
        let shared = Arc::new(Shared::new(config).unwrap());
        let pool = ArcSwap::from(new_pool(&shared));
        Arc::new(Self { shared, pool })
    }

    /// As `Engine::configure`.
    fn configure(&self, settings: &str) {
        let config = config(settings, Arc::clone(&self.shared.config.load().live));
        self.shared.config.store(Arc::new(config));
        self.pool.store(new_pool(&self.shared));
    }
}

fn config(settings: &str, live: Arc<Live>) -> Config {
    let mut settings = EngineSettings::from_json(settings).unwrap();
    // Comparing rules with the table of operations takes longer than all the rest of a run.
    let pace = std::mem::take(&mut settings.pace);
    let mut config = Config::new(settings, Knowledge::shipped().unwrap(), Clients::default(), live).unwrap();
    config.paces = Paces::new(&pace, config.settings.retry.mode == RetryMode::Adaptive).unwrap();
    config.settings.pace = pace;
    config
}

fn new_pool(shared: &Arc<Shared>) -> Arc<Pool> {
    static TLS: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();
    // What a simulated handshake does not look at.
    let tls = TLS.get_or_init(|| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(versions.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
    });
    let config = shared.config.load();
    let connector = Connector::new(tls, &config.settings, &shared.network, &shared.hop);
    let pool = Pool::new(connector, config.settings.timeouts.pool_idle);
    tokio::spawn(pool::sweep(Arc::downgrade(&pool)));
    pool
}

fn settings(random: &mut Random, plan: &Plan) -> String {
    let http2 = random.pick(&["never", "always", "always", "auto"]);
    let attempts = random.pick(&["null", "1", "2", "5"]);
    let total = random.pick(&["null", "null", "8", "3"]);
    let held = random.pick(&[1 << 30, 100_000, 3_000]);
    let repeat = if plan.repeats_all { "all" } else { "safe" };
    let mode = random.pick(&["standard", "standard", "adaptive", "off"]);
    let concurrency = random.pick(&[0, 0, 3]);
    let in_flight = random.pick(&[10_000, 10_000, 5]);
    let pace = match random.below(4) {
        0 => format!(
            r#"{{"shared": "redis://{STORE}", "share": 0.5, "max_wait": 3, "rules": [{{"operation": "dynamodb:GetItem", "rate": 2}}]}}"#
        ),
        1 => r#"{"max_wait": 2, "rules": [{"operation": "dynamodb:*", "rate": 3, "burst": 1}]}"#.into(),
        _ => "{}".into(),
    };
    let dns = random.pick(&[0, 2]);
    format!(
        r#"{{
            "timeouts": {{"connect": 2, "head": 3, "idle": 3, "total": {total}, "pool_idle": 5, "credentials": 4, "dns": {dns}}},
            "retry": {{"attempts": {attempts}, "cap": {}, "repeat": "{repeat}", "mode": "{mode}"}},
            "circuit": {{"failures": 8, "concurrency": {concurrency}}},
            "limits": {{"held_bytes": {held}, "in_flight": {in_flight}}},
            "body": {{"hold": 4096}},
            "egress": {{"http2": "{http2}"}},
            "pace": {pace}
        }}"#,
        CAP.as_secs()
    )
}

/// Runs one seed on this thread.
pub(super) fn run(seed: u64, traced: bool, sabotage: Option<Sabotage>) -> Outcome {
    in_world(seed, traced, sabotage, |world| async move { all(world).await })
}

/// A world, and what happens in it.
pub(super) fn in_world<F: Future<Output = ()>>(
    seed: u64,
    traced: bool,
    sabotage: Option<Sabotage>,
    happens: impl FnOnce(Arc<World>) -> F,
) -> Outcome {
    SABOTAGE.set(sabotage);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let world = runtime.block_on(async {
        let mut random = Random::new(seed);
        let plan = Plan::new(&mut random);
        let world = World::new(plan, random, traced);
        WORLD.set(Some(Arc::clone(&world)));
        if tokio::time::timeout(PATIENCE, happens(Arc::clone(&world))).await.is_err() {
            let left: Vec<u64> = locked(&world.calls).iter().filter(|(_, call)| !call.over).map(|(id, _)| *id).collect();
            world.violation(|| format!("it does not end: after {PATIENCE:?}, these requests are left: {left:?}"));
        }
        world
    });
    drop(runtime);
    WORLD.set(None);
    SABOTAGE.set(None);
    let violations = std::mem::take(&mut *locked(&world.violations));
    let trace = world.trace.as_ref().map(|trace| std::mem::take(&mut *locked(trace))).unwrap_or_default();
    Outcome { violations, trace }
}

async fn all(world: Arc<World>) {
    let mut random = world.split();
    let mut sidecars = Vec::new();
    let mut background = tokio::task::JoinSet::new();
    for _ in 0..world.plan.sidecars {
        let sidecar = Sidecar::new(&settings(&mut random, &world.plan));
        background.spawn(shared::pace(Arc::clone(&sidecar.shared)));
        background.spawn(fleet::keep(Arc::clone(&sidecar.shared)));
        background.spawn(keys(Arc::clone(&world), Arc::clone(&sidecar)));
        sidecars.push(sidecar);
    }
    background.spawn(reloads(Arc::clone(&world), sidecars.clone()));
    background.spawn(clock(Arc::clone(&world)));
    background.spawn(super::store::weather(Arc::clone(&world)));
    let mut clients = tokio::task::JoinSet::new();
    for id in 1..=world.plan.requests {
        let sidecar = Arc::clone(&sidecars[random.below(sidecars.len() as u64) as usize]);
        clients.spawn(client(Arc::clone(&world), sidecar, id));
    }
    while let Some(ended) = clients.join_next().await {
        if let Err(error) = ended {
            world.violation(|| format!("a client's task: {error}"));
        }
    }
    while let Some(ended) = background.try_join_next() {
        world.violation(|| format!("a task of the engine ended: {ended:?}"));
    }
    background.shutdown().await;
    world.tell(|| "all clients are served or gone".into());
    tokio::time::sleep(QUIET).await;
    quiet(&world, &sidecars);
}

/// Nobody asks any more, and nothing may be left of those who did.
fn quiet(world: &World, sidecars: &[Arc<Sidecar>]) {
    for (number, sidecar) in sidecars.iter().enumerate() {
        let shared = &sidecar.shared;
        let live = Arc::clone(&shared.config.load().live);
        let left = shared.metrics.in_flight.get();
        world.check(left == 0, || format!("sidecar {number}: {left} requests are in flight"));
        let left = shared.held();
        world.check(left == 0, || format!("sidecar {number}: {left} bytes of bodies are held"));
        let left = live.pacer.size().1;
        world.check(left == 0, || format!("sidecar {number}: {left} requests wait in line"));
        for endpoint in live.endpoints() {
            let left = endpoint.in_flight.load(Ordering::Relaxed);
            world.check(left == 0, || format!("sidecar {number}: {left} requests are in flight to {}", endpoint.name));
            let tokens = endpoint.quota.left();
            let most = sigward_gateway::quota::CAPACITY;
            world.check((0..=most).contains(&tokens), || format!("sidecar {number}: {tokens} tokens for repeats"));
        }
        let left = sidecar.pool.load().counts();
        world.check(left == (0, 0), || format!("sidecar {number}: the pool still has {left:?} upstreams"));
    }
    let left = world.open.load(Ordering::Relaxed);
    world.check(left == 0, || format!("{left} connections are open"));
    for (id, call) in &*locked(&world.calls) {
        if let Some(attempts) = call.attempts {
            world.check(call.seen.len() <= attempts, || format!("request {id}: {attempts} attempts, {} came", call.seen.len()));
        }
        world.check(call.seen.len() <= MOST_ATTEMPTS + 3, || format!("request {id} came {} times", call.seen.len()));
        let most = if call.kind.repeatable() || world.plan.repeats_all { call.seen.len() as u32 } else { 1 };
        world.check(call.executed <= most, || format!("request {id}, a {:?}, was executed {} times", call.kind, call.executed));
    }
}

/// Loads credentials, as Python's keeper does when it is asked.
async fn keys(world: Arc<World>, sidecar: Arc<Sidecar>) {
    let mut random = world.split();
    let shared = &sidecar.shared;
    loop {
        // A refresh that nobody asked for comes, too.
        let asked = shared.outbox.take().into_iter().any(|event| matches!(event, OutboxEvent::Refresh { .. })) || random.chance(1);
        if asked {
            let slow = world.fault(Fault::KeysSlow, &mut random);
            tokio::time::sleep(random.millis(0, if slow { 6000 } else { 300 })).await;
            if world.fault(Fault::KeysFail, &mut random) {
                shared.publish_failure("default", vec![("sim".into(), "it failed".into())]);
            } else {
                let life = if world.fault(Fault::KeysExpire, &mut random) { random.between(1, 20) } else { 3600 };
                let expires = world.true_seconds() + life;
                let number = {
                    let mut keys = locked(&world.keys);
                    keys.push(expires);
                    keys.len() - 1
                };
                world.tell(|| format!("keys {number}, for {life} s"));
                shared.publish("default", credentials(&format!("AKIASIM{number}"), "secret", None).unwrap(), Some(expires as f64), "sim");
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

async fn reloads(world: Arc<World>, sidecars: Vec<Arc<Sidecar>>) {
    let mut random = world.split();
    loop {
        tokio::time::sleep(random.millis(500, 5000)).await;
        if world.fault(Fault::Reload, &mut random) {
            let settings = settings(&mut random, &world.plan);
            sidecars[random.below(sidecars.len() as u64) as usize].configure(&settings);
        }
    }
}

async fn clock(world: Arc<World>) {
    let mut random = world.split();
    loop {
        tokio::time::sleep(random.millis(500, 5000)).await;
        if world.fault(Fault::ClockJumps, &mut random) {
            let ahead = random.pick(&[0, 0, 200, -200, 3600, -3600, 200_000, -200_000]);
            world.ahead.store(ahead, Ordering::Relaxed);
            world.tell(|| format!("this host's clock is {ahead} s ahead"));
        }
    }
}
