//! What all threads of the engine share: snapshots that are swapped whole, readiness, metrics.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use prometheus::TextEncoder;
use prometheus::proto::MetricFamily;
use rustls::ServerConfig;
use sigward_gateway::settings::EngineSettings;
use sigward_gateway::{Config, Hop, Identities, Identity};
use sigward_sigv4::{Credentials, SignError};
use tokio::sync::{Notify, watch};
use tracing::Dispatch;

use crate::audit;
use crate::connect::Network;
use crate::lines::{LineLog, Terms};
use crate::logs::Logs;
use crate::metrics::Metrics;
use crate::otlp::Telemetry;
use crate::outbox::{Outbox, OutboxEvent};

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: ArcSwap<Config>,
    pub(crate) identities: ArcSwap<Identities>,
    published: watch::Sender<u64>,
    /// The zero of the clock that never goes back.
    pub(crate) started: Instant,
    pub(crate) metrics: Metrics,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) access: LineLog,
    pub(crate) audit: LineLog,
    /// As it was set at the start.
    pub(crate) otlp: Option<Arc<Telemetry>>,
    pub(crate) logs: Arc<Logs>,
    /// The same, for a thread's default.
    pub(crate) dispatch: Dispatch,
    /// A line has become longer.
    pub(crate) queued: Notify,
    /// A limit that a fleet shares is used for the first time.
    pub(crate) unleased: Notify,
    seed: AtomicU64,
    /// What this process is called in `Via`.
    pub(crate) hop: Arc<Hop>,
    pub(crate) network: Arc<Network>,
    /// What reverse listeners show to TLS clients, if it is given.
    pub(crate) given: ArcSwapOption<ServerConfig>,
    /// Bytes of bodies in memory.
    held: AtomicU64,
    /// The version of each identity that the keeper was asked to replace last.
    asked: Mutex<BTreeMap<String, u64>>,
    parts: Mutex<BTreeMap<String, (bool, String)>>,
}

impl Shared {
    pub(crate) fn new(config: Config) -> std::io::Result<Self> {
        // Of the system's randomness: idempotency tokens are made of it.
        let seed = RandomState::new().hash_one(std::process::id());
        let (metrics, outbox) = (Metrics::new(), Arc::new(Outbox::new()?));
        let logs = Logs::new(Arc::clone(&outbox), config.settings.log_level, metrics.log_dropped.clone());
        let dispatch = logs.dispatch();
        let otlp = config.settings.otlp.clone().map(|settings| Arc::new(Telemetry::new(settings, metrics.otlp.clone())));
        Ok(Self {
            config: ArcSwap::from_pointee(config),
            identities: ArcSwap::from_pointee(Identities::default()),
            published: watch::Sender::new(0),
            started: Instant::now(),
            access: LineLog::new("access_log", metrics.access.clone(), dispatch.clone()),
            audit: LineLog::new("audit_log", metrics.audit.clone(), dispatch.clone()),
            otlp,
            outbox,
            logs,
            dispatch,
            queued: Notify::new(),
            unleased: Notify::new(),
            seed: AtomicU64::new(seed),
            hop: Arc::new(Hop::new(RandomState::new().hash_one("via"))),
            network: Arc::new(Network::new(&metrics)),
            given: ArcSwapOption::empty(),
            held: AtomicU64::new(0),
            asked: Mutex::default(),
            parts: Mutex::default(),
            metrics,
        })
    }

    /// Opens what the settings name, all of it or nothing. The error names the setting.
    pub(crate) fn open_logs(&self, settings: &EngineSettings) -> Result<(), String> {
        let access = self.access.open(Terms::losing(&settings.access_log))?;
        let audit = self.audit.open(audit::terms(settings))?;
        for (log, opened) in [(&self.access, access), (&self.audit, audit)] {
            if let Some(opened) = opened {
                log.switch(opened);
            }
        }
        Ok(())
    }

    pub(crate) fn metrics_text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.gathered()).unwrap_or_default()
    }

    /// Every metric, as it is now.
    pub(crate) fn gathered(&self) -> Vec<MetricFamily> {
        self.metrics.held_bytes.set(self.held.load(Ordering::Relaxed).cast_signed());
        self.metrics.idle_connections.set(i64::try_from(self.network.descriptors.idle()).unwrap_or(i64::MAX));
        self.metrics.state(self.not_ready().is_empty(), &self.identities.load(), unix_seconds());
        self.metrics.gather(&self.config.load().live, self.started.elapsed())
    }

    pub(crate) fn next_seed(&self) -> u64 {
        self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }

    /// Swaps one identity's snapshot in; the old one's secrets go when the last exchange that signs with them ends.
    pub(crate) fn publish(&self, name: &str, credentials: Credentials, expires_at: Option<f64>, provider: &str) {
        self.metrics.credentials_expire(name, expires_at);
        self.update(name, |identity| {
            identity.account = sigward_gateway::pace::account_of(credentials.access_key_id()).map(Arc::from);
            identity.credentials = Some(Arc::new(credentials));
            identity.expires_at = expires_at;
            identity.provider = provider.into();
            identity.failures = Arc::default();
        });
    }

    /// Notes that a load failed. A snapshot that is still valid goes on serving.
    pub(crate) fn publish_failure(&self, name: &str, failures: Vec<(String, String)>) {
        self.metrics.credentials_failures.with_label_values(&[name]).inc();
        self.update(name, |identity| identity.failures = failures.into());
    }

    fn update(&self, name: &str, change: impl FnOnce(&mut Identity)) {
        // Publications are rare and come from one keeper; the lock orders them all the same.
        let _order = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut identities = Identities::clone(&self.identities.load());
        let identity = identities.entry(name.into()).or_default();
        change(identity);
        identity.version += 1;
        self.identities.store(Arc::new(identities));
        self.published.send_modify(|version| *version += 1);
    }

    /// Asks the keeper for an identity and waits until it is published anew, well or badly, or `patience` ends.
    pub(crate) async fn wait_for_credentials(&self, name: &str, after: Option<u64>, patience: Duration) {
        let mut published = self.published.subscribe();
        let version = || self.identities.load().get(name).map_or(0, |identity| identity.version);
        let before = after.unwrap_or_else(version);
        // Of all requests that one expiry fails, the first asks; the others find what it brought.
        if after.is_some_and(|after| version() != after) {
            return;
        }
        if after.is_none() && self.identities.load().get(name).is_some_and(|identity| identity.usable(unix_seconds()).is_some()) {
            return;
        }
        // One of all that find this version wanting asks; the keeper answers with another version, well or badly.
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), before);
        if asked != Some(before) {
            self.outbox.push(OutboxEvent::Refresh { identity: name.to_owned() });
        }
        let changed = published.wait_for(|_| version() != before);
        let _ = tokio::time::timeout(patience, changed).await;
    }

    pub(crate) fn set_ready(&self, part: &str, ready: bool, why: &str) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(part.to_owned(), (ready, why.to_owned()));
    }

    /// Every part that is not ready, and why. Empty: ready.
    pub(crate) fn not_ready(&self) -> Vec<String> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing: Vec<String> =
            parts.iter().filter(|(_, (ready, _))| !ready).map(|(part, (_, why))| format!("{part}: {why}")).collect();
        if !parts.contains_key("listeners") {
            missing.push("listeners: not bound yet".into());
        }
        let identities = self.identities.load();
        let name = &self.config.load().settings.default_identity;
        if identities.get(name.as_str()).and_then(|identity| identity.usable(unix_seconds())).is_none() {
            missing.push(format!("credentials: identity {name:?} has none"));
        }
        missing
    }
}

/// A body's part of what may be held in memory at once.
#[derive(Debug)]
pub struct Held {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Held {
    /// `None`: all that may be held, `most` bytes, is held already.
    pub(crate) fn reserve(shared: &Arc<Shared>, bytes: u64, most: u64) -> Option<Self> {
        let before = shared.held.fetch_add(bytes, Ordering::Relaxed);
        let held = Self { shared: Arc::clone(shared), bytes };
        // One alone is served, however little may be held.
        (before == 0 || before.saturating_add(bytes) <= most).then_some(held)
    }

    /// Nothing yet.
    pub(crate) fn nothing(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), bytes: 0 }
    }

    /// So much it has become. False: all that may be held is held.
    pub fn grow(&mut self, bytes: u64) -> bool {
        self.settle(bytes);
        let all = self.shared.held.load(Ordering::Relaxed);
        // One alone is served, however little may be held.
        all <= bytes || all <= self.shared.config.load().settings.limits.held_bytes
    }

    /// So much it is.
    pub(crate) fn settle(&mut self, bytes: u64) {
        self.shared.held.fetch_add(bytes.wrapping_sub(self.bytes), Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Grants who waits in line their turn, for as long as the engine runs.
pub(crate) async fn pace(shared: Arc<Shared>) {
    loop {
        let next = shared.config.load().live.pacer.advance(shared.started.elapsed());
        let queued = shared.queued.notified();
        match next {
            // The timer's grain is a millisecond; who is due within it goes a little early rather than late.
            Some(due) => tokio::select! {
                () = tokio::time::sleep_until((shared.started + due).into()) => {}
                () = queued => {}
            },
            None => queued.await,
        }
    }
}

/// The wall clock.
pub(crate) fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Makes a snapshot of credentials, checked.
pub fn credentials(access_key_id: &str, secret_access_key: &str, session_token: Option<&str>) -> Result<Credentials, SignError> {
    Credentials::new(access_key_id, secret_access_key, session_token)
}
