//! What all threads of the engine share: snapshots that are swapped whole, readiness, metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use prometheus::TextEncoder;
use prometheus::proto::MetricFamily;
use rustls::ServerConfig;
use sigward_gateway::settings::EngineSettings;
use sigward_gateway::{Config, Hop, Identities, Identity};
use sigward_sigv4::{Credentials, SignError};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::Dispatch;

use crate::audit;
use crate::connect::Network;
use crate::lines::{LineLog, Terms};
use crate::logs::Logs;
use crate::metrics::Metrics;
use crate::otlp::Telemetry;
use crate::outbox::{Outbox, OutboxEvent};
use crate::system::{random, unix_seconds};
use crate::validity::{Certificates, Validity};

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: ArcSwap<Config>,
    pub(crate) identities: ArcSwap<Identities>,
    /// An identity has another version.
    published: Notify,
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
    /// Calls that the audit log has been told of before they went out, from a random number on: another process's differ.
    calls: AtomicU64,
    /// What this process is called in `Via`.
    pub(crate) hop: Arc<Hop>,
    pub(crate) network: Arc<Network>,
    /// What reverse listeners show to TLS clients, if it is given.
    pub(crate) given: ArcSwapOption<ServerConfig>,
    pub(crate) certificates: Certificates,
    /// Bytes of bodies in memory.
    held: AtomicU64,
    /// The version of each identity that the keeper was asked to replace last.
    asked: Mutex<BTreeMap<String, u64>>,
    parts: Mutex<BTreeMap<String, (bool, String)>>,
}

impl Shared {
    pub(crate) fn new(config: Config) -> std::io::Result<Self> {
        // Idempotency tokens are made of it.
        let seed = random();
        let (metrics, outbox) = (Metrics::new(), Arc::new(Outbox::new()?));
        let logs = Logs::new(Arc::clone(&outbox), config.settings.log_level, metrics.log_dropped.clone());
        let dispatch = logs.dispatch();
        let otlp = config.settings.otlp.clone().map(|settings| Arc::new(Telemetry::new(settings, metrics.otlp.clone())));
        Ok(Self {
            config: ArcSwap::from_pointee(config),
            identities: ArcSwap::from_pointee(Identities::default()),
            published: Notify::new(),
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
            calls: AtomicU64::new(random()),
            hop: Arc::new(Hop::new(random())),
            network: Arc::new(Network::new(&metrics)),
            given: ArcSwapOption::empty(),
            certificates: Certificates::default(),
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

    /// What reverse listeners show from now on.
    pub(crate) fn give(&self, given: Option<(Arc<ServerConfig>, Validity)>) {
        self.certificates.set_listener(given.as_ref().map(|(_, validity)| *validity));
        self.given.store(given.map(|(config, _)| config));
    }

    pub(crate) fn metrics_text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.gathered()).unwrap_or_default()
    }

    /// Every metric, as it is now.
    pub(crate) fn gathered(&self) -> Vec<MetricFamily> {
        self.metrics.held_bytes.set(self.held.load(Ordering::Relaxed).cast_signed());
        self.metrics.idle_connections.set(i64::try_from(self.network.descriptors.idle()).unwrap_or(i64::MAX));
        self.metrics.state(self.not_ready().is_empty(), &self.identities.load(), self.now());
        self.metrics.certificates(self.certificates.validities(), unix_seconds());
        self.metrics.gather(&self.config.load().live, self.started.elapsed())
    }

    /// Bytes of bodies in memory.
    #[cfg(test)]
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Unix seconds, as well as they are known: keys expire by AWS's clock.
    fn now(&self) -> u64 {
        unix_seconds().saturating_add_signed(self.config.load().live.ahead().unwrap_or(0))
    }

    pub(crate) fn next_seed(&self) -> u64 {
        self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }

    /// What the audit log calls the next call.
    pub(crate) fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
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
        self.published.notify_waiters();
    }

    /// Asks the keeper for an identity and waits until it is published anew, well or badly, or `patience` ends.
    pub(crate) async fn wait_for_credentials(&self, name: &str, after: Option<u64>, patience: Duration) {
        let version = || self.identities.load().get(name).map_or(0, |identity| identity.version);
        let before = after.unwrap_or_else(version);
        // Of all requests that one expiry fails, the first asks; the others find what it brought.
        if after.is_some_and(|after| version() != after) {
            return;
        }
        if after.is_none() && self.identities.load().get(name).is_some_and(|identity| identity.usable(self.now()).is_some()) {
            return;
        }
        // One of all that find this version wanting asks; the keeper answers with another version, well or badly.
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), before);
        if asked != Some(before) {
            self.outbox.push(OutboxEvent::Refresh { identity: name.to_owned() });
        }
        let changed = async {
            loop {
                // In this order: what is published in between is heard.
                let published = self.published.notified();
                if version() != before {
                    return;
                }
                published.await;
            }
        };
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
        if identities.get(name.as_str()).and_then(|identity| identity.usable(self.now())).is_none() {
            missing.push(format!("credentials: identity {name:?} has none"));
        }
        missing.extend(self.certificates.missing(unix_seconds()));
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
        #[cfg(test)]
        if crate::simulation::sabotaged(crate::simulation::Sabotage::LosesMemory) {
            return;
        }
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
                biased;
                () = tokio::time::sleep_until(shared.started + due) => {}
                () = queued => {}
            },
            None => queued.await,
        }
    }
}

/// Makes a snapshot of credentials, checked.
pub fn credentials(access_key_id: &str, secret_access_key: &str, session_token: Option<&str>) -> Result<Credentials, SignError> {
    Credentials::new(access_key_id, secret_access_key, session_token)
}
