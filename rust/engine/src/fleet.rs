//! One limit for a fleet: a Redis or Valkey keeps who holds how much of it.
//!
//! Every sidecar asks for its part ten times a second, in the background, and paces by what it was leased last: the hot path
//! stays local. A lease counts for [`HOLD`]; the store keeps it reserved for longer, so that nobody is given what another still
//! uses. When the store is away, leases lapse and each takes `pacing.share` of the limit. The clock is the store's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::{Client, ClientTlsConfig, TlsCertificates};
use sigward_gateway::pace::Demand;
use sigward_gateway::settings::EngineSettings;

use crate::shared::Shared;

/// Between two questions.
const PERIOD: Duration = Duration::from_millis(100);
/// A lease counts for so long on the sidecar.
const HOLD: Duration = Duration::from_secs(1);
/// And so long in the store, in milliseconds.
const RESERVED: u64 = 1500;
/// A store that has just begun gives nobody more than they hold, for so long, in milliseconds.
const WARM_UP: u64 = 400;
/// The store has so long to answer.
const PATIENCE: Duration = Duration::from_millis(250);
/// Between attempts to reach it: doubled from the first to the last.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// What a sidecar asks for beyond what it uses, so that it can grow.
const HEADROOM: f64 = 1.25;

/// Checks the URL. The error says what is wrong with it, without its password.
pub(crate) fn client(settings: &EngineSettings) -> Result<Option<Client>, String> {
    let Some(url) = settings.pace.shared.as_deref() else { return Ok(None) };
    let wrong =
        |why: &str| format!("pacing.shared: {why}; redis://[user:password@]host[:port][/database], or rediss:// for TLS, is expected");
    let made = if url.starts_with("rediss:") {
        let mut root_cert = Vec::new();
        for path in &settings.tls.ca_files {
            root_cert.extend(crate::files::read(path).map_err(|error| format!("tls.ca_files: {}: {error}", path.display()))?);
            root_cert.push(b'\n');
        }
        let root_cert = Some(root_cert).filter(|pem| !pem.is_empty());
        Client::build_with_tls(url, TlsCertificates { client_tls: None::<ClientTlsConfig>, root_cert })
    } else {
        Client::open(url)
    };
    // The library's own words could quote the URL.
    made.map(Some).map_err(|error| wrong(error.detail().filter(|text| !text.contains('@')).unwrap_or("it cannot be read")))
}

/// Asks for leases for as long as the engine runs, if the settings name a store.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let me = format!("{:016x}{:016x}", shared.next_seed(), std::process::id());
    let mut pause = RETRY.0;
    let reachable = AtomicBool::new(true);
    loop {
        let config = shared.config.load_full();
        let Ok(Some(client)) = client(&config.settings) else {
            // Settings may change.
            tokio::time::sleep(RETRY.1).await;
            continue;
        };
        let url = config.settings.pace.shared.clone();
        match session(&shared, &client, &me, url.as_deref(), &reachable).await {
            Ok(()) => pause = RETRY.0,
            Err(error) => {
                shared.metrics.store_errors.inc();
                if reachable.swap(false, Ordering::Relaxed) {
                    tracing::warn!(
                        "the store of shared limits is away ({}): this sidecar keeps to {:.0} % of each",
                        harmless(&error),
                        config.settings.pace.share * 100.0
                    );
                }
                shared.metrics.store_up.set(0);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY.1);
            }
        }
    }
}

/// What went wrong, without what a URL or an answer could hold.
fn harmless(error: &redis::RedisError) -> String {
    match error.code() {
        Some(code) => code.chars().take(40).collect(),
        None => error.category().to_owned(),
    }
}

/// One connection, until it fails or the settings name another store.
async fn session(shared: &Shared, client: &Client, me: &str, url: Option<&str>, reachable: &AtomicBool) -> redis::RedisResult<()> {
    let timings = redis::AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE * 4)).set_response_timeout(Some(PATIENCE));
    let mut connection = client.get_multiplexed_async_connection_with_config(&timings).await?;
    let script = redis::Script::new(include_str!("lease.lua"));
    // What is used is smoothed: a lease follows the load, not its every jerk.
    let mut last = tokio::time::Instant::now();
    let mut used: std::collections::HashMap<u64, f64> = std::collections::HashMap::new();
    let mut loaded = false;
    loop {
        let config = shared.config.load_full();
        if config.settings.pace.shared.as_deref() != url {
            return Ok(());
        }
        let pacer = &config.live.pacer;
        let demands = pacer.demands(shared.started.elapsed());
        let took = last.elapsed().as_secs_f64().max(0.001);
        last = tokio::time::Instant::now();
        used.retain(|key, _| demands.iter().any(|demand| demand.key == *key));
        if !demands.is_empty() || !reachable.load(Ordering::Relaxed) {
            if !loaded {
                script.load_async(&mut connection).await?;
                loaded = true;
            }
            let mut pipeline = redis::pipe();
            for demand in &demands {
                let rate = used.entry(demand.key).or_insert(demand.asked as f64 / took);
                *rate = 0.5 * *rate + 0.5 * demand.asked as f64 / took;
                let wanted = wanted(demand, *rate);
                pipeline.invoke_script(
                    script.key(&*demand.name).arg(me).arg(demand.limit).arg(wanted).arg(demand.held).arg(RESERVED).arg(WARM_UP),
                );
            }
            let asked_at = shared.started.elapsed();
            let grants: Vec<f64> = if demands.is_empty() {
                redis::cmd("PING").exec_async(&mut connection).await?;
                Vec::new()
            } else {
                pipeline.query_async(&mut connection).await?
            };
            for (demand, grant) in demands.iter().zip(grants) {
                // A store that answers nonsense is not believed.
                let grant = if grant.is_finite() { grant.clamp(0.0, demand.limit) } else { 0.0 };
                pacer.lease(demand.key, grant, shared.started.elapsed(), asked_at + HOLD);
            }
            shared.queued.notify_one();
            shared.metrics.store_up.set(1);
            if !reachable.swap(true, Ordering::Relaxed) {
                tracing::info!("the store of shared limits is back");
            }
        }
        // A new limit is asked for at once; else in its time.
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = shared.unleased.notified() => {}
        }
    }
}

fn wanted(demand: &Demand, rate: f64) -> f64 {
    if demand.waiting > 0 {
        return demand.limit;
    }
    if demand.asked == 0 && rate < 0.01 {
        return 0.0;
    }
    // One call more a period than it uses, so that the first of many need not wait.
    (rate * HEADROOM + 1.0 / PERIOD.as_secs_f64()).min(demand.limit)
}
