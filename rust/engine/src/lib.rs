//! The driver and upstream half of sigward, for every front.
//!
//! The engine runs on threads of its own and keeps the only connection pool. A front hands it a request's head and body
//! and takes the answer; what happens between is decided by `sigward-gateway` and carried out in [`drive`].
//! [`Engine`] is for fronts that talk by messages (mitmproxy's, in Python): [`Engine::submit`] in, [`Engine::poll`] out.

mod access;
mod admin;
mod alarm;
mod allowance;
mod audit;
pub mod body;
mod connect;
mod descriptors;
pub mod drive;
mod files;
mod fleet;
mod h1;
pub mod job;
mod lines;
mod logs;
mod loops;
mod metrics;
mod native;
mod net;
mod otlp;
pub mod outbox;
mod pool;
mod shared;
#[cfg(test)]
mod simulation;
mod system;
mod tls;
mod validity;
mod wrap;

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use sigward_gateway::client::MASTER;
use sigward_gateway::knowledge::Knowledge;
use sigward_gateway::settings::{ClientHttp2, ClientsSettings, EngineSettings};
use sigward_gateway::{Clients, Config, Handling, Live, Opening, Refusal, RequestHead};
use tokio::sync::watch;
use zeroize::Zeroizing;

pub use allowance::Allowance;
pub use h1::head::legal_target;
pub use job::Job;
pub use metrics::{Description, descriptions};
pub use native::Kind;
pub use outbox::OutboxEvent;
pub use shared::{Held, credentials};
pub use tracing::Level;
pub use validity::{Standing, State};

use pool::Pool;
use shared::Shared;

/// See the module.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    jobs: AtomicU64,
    answers: Arc<allowance::All>,
    native: Arc<native::Native>,
    stop: watch::Sender<bool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    exporter: Mutex<Option<otlp::Exporter>>,
}

/// A host's certificate.
pub struct HostCertificate {
    /// It, then what stands behind it; the root is left out.
    pub chain: Vec<rustls_pki_types::CertificateDer<'static>>,
    /// PKCS #8, in DER.
    pub key: Zeroizing<Vec<u8>>,
}

#[derive(Debug)]
struct Worker {
    runtime: tokio::runtime::Handle,
    pool: Arc<arc_swap::ArcSwap<Pool>>,
}

/// Checks the settings, with the table that they name.
fn config(settings: EngineSettings, live: Arc<Live>) -> Result<Config, String> {
    let knowledge = match &settings.knowledge {
        None => Knowledge::shipped()?,
        Some(path) => {
            let hint = "`sigward knowledge refresh` makes one";
            let table = files::read(path).map_err(|error| format!("knowledge: {}: {error}; {hint}", path.display()))?;
            Arc::new(Knowledge::load(&table).map_err(|error| format!("{}: {error}", path.display()))?)
        }
    };
    let clients = clients(&settings.clients)?;
    fleet::place(&settings)?;
    if let Some(directory) = &settings.body.spool_dir {
        let hint = "name a directory that sigward may write to";
        files::check_spool(Some(directory)).map_err(|error| format!("body.spool_dir: {}: {error}; {hint}", directory.display()))?;
    }
    Config::new(settings, knowledge, clients, live)
}

/// Derives the issued keys from the master key in its file.
fn clients(settings: &ClientsSettings) -> Result<Clients, String> {
    if settings.issued.is_empty() {
        return if settings.required {
            Err("clients.required: there is no [clients.NAME], so nobody could ask".into())
        } else {
            Ok(Clients::default())
        };
    }
    let path = settings.key_file.as_ref().ok_or("clients.key_file: it is missing")?;
    let text = files::read(path).map(Zeroizing::new).map_err(|error| format!("clients.key_file: {}: {error}", path.display()))?;
    Ok(Clients::new(settings, &*master_key(&text).map_err(|why| format!("clients.key_file: {}: {why}", path.display()))?))
}

/// Reads a master key as it stands in its file. The error says what is wrong with it.
pub fn master_key(text: &[u8]) -> Result<Zeroizing<[u8; MASTER]>, String> {
    let digits = text.trim_ascii();
    let value = |digit: &u8| char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let bytes: Option<Zeroizing<Vec<u8>>> = digits
        .chunks(2)
        .map(|pair| Some(value(pair.first()?)? << 4 | value(pair.get(1)?)?))
        .collect::<Option<Vec<u8>>>()
        .map(Zeroizing::new);
    let key: Option<[u8; MASTER]> = bytes.and_then(|bytes| bytes.as_slice().try_into().ok());
    key.map(Zeroizing::new).ok_or_else(|| format!("64 hexadecimal digits are expected, {} bytes are there", digits.len()))
}

impl Engine {
    /// Starts the threads. The error names the setting and the mend.
    pub fn new(settings: &str) -> Result<Self, String> {
        let settings = EngineSettings::from_json(settings)?;
        let threads = settings.threads;
        let shared =
            Arc::new(Shared::new(config(settings, Arc::default())?).map_err(|error| format!("no descriptor for the engine: {error}"))?);
        let _log = tracing::dispatcher::set_default(&shared.dispatch);
        let tls = tls::client_config(&shared.config.load().settings.tls)?;
        shared.give(tls::server_config(&shared.config.load().settings)?);
        shared.open_logs(&shared.config.load().settings)?;
        let (stop, _) = watch::channel(false);
        let mut workers = Vec::with_capacity(threads);
        let mut handles = Vec::with_capacity(threads);
        for number in 0..threads {
            // One current-thread runtime a thread: measured faster than one runtime that steals work.
            let log = shared.dispatch.clone();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .on_thread_start(move || logs::default_for_thread(&log))
                .build()
                .map_err(|error| format!("threads: no runtime: {error}"))?;
            let config = shared.config.load();
            let pool = pool(&tls, &config.settings, &shared);
            runtime.spawn(pool::sweep(Arc::downgrade(&pool)));
            workers.push(Worker { runtime: runtime.handle().clone(), pool: Arc::new(arc_swap::ArcSwap::new(pool)) });
            let mut stopped = stop.subscribe();
            if number == 0 {
                runtime.spawn(shared::pace(Arc::clone(&shared)));
                runtime.spawn(fleet::keep(Arc::clone(&shared)));
                runtime.spawn(validity::watch(Arc::clone(&shared)));
                runtime.spawn(logs::sum_up(Arc::clone(&shared.logs)));
            }
            let log = shared.dispatch.clone();
            let thread = std::thread::Builder::new()
                .name(format!("sigward-{number}"))
                .spawn(move || {
                    let _log = tracing::dispatcher::set_default(&log);
                    runtime.block_on(async move {
                        let _ = stopped.wait_for(|stop| *stop).await;
                    });
                    runtime.shutdown_background();
                })
                .map_err(|error| format!("threads: {error}"))?;
            handles.push(thread);
        }
        let exporter = match &shared.otlp {
            Some(telemetry) => Some(otlp::start(&shared, telemetry, pool(&tls, &shared.config.load().settings, &shared))?),
            None => None,
        };
        Ok(Self {
            shared,
            workers,
            jobs: AtomicU64::new(0),
            answers: Arc::default(),
            native: Arc::default(),
            stop,
            threads: Mutex::new(handles),
            exporter: Mutex::new(exporter),
        })
    }

    /// Swaps settings in; exchanges under way keep what they began with. `threads` cannot change.
    pub fn configure(&self, settings: &str) -> Result<(), String> {
        let settings = EngineSettings::from_json(settings)?;
        let _log = tracing::dispatcher::set_default(&self.shared.dispatch);
        let given = tls::server_config(&settings)?;
        let tls = tls::client_config(&settings.tls)?;
        let config = config(settings, Arc::clone(&self.shared.config.load().live))?;
        self.shared.open_logs(&config.settings)?;
        if config.settings.otlp != self.shared.config.load().settings.otlp {
            tracing::warn!("otlp has changed: that takes a restart");
        }
        for worker in &self.workers {
            let pool = pool(&tls, &config.settings, &self.shared);
            worker.runtime.spawn(pool::sweep(Arc::downgrade(&pool)));
            worker.pool.store(pool);
        }
        if let Some(exporter) = &*self.exporter.lock().unwrap_or_else(PoisonError::into_inner) {
            exporter.use_pool(pool(&tls, &config.settings, &self.shared));
        }
        self.shared.give(given);
        self.shared.certificates.tell(system::unix_seconds());
        self.shared.config.store(Arc::new(config));
        Ok(())
    }

    /// What looks wrong with the settings that count now.
    pub fn warnings(&self) -> Vec<String> {
        let config = self.shared.config.load();
        let mut warnings = config.warnings.clone();
        if config.settings.body.spool_dir.is_none()
            && let Err(error) = files::check_spool(None)
        {
            let directory = std::env::temp_dir();
            warnings.push(format!(
                "body.spool_dir is not set, and {} cannot be written to: {error}; large bodies that must be hashed are refused",
                directory.display()
            ));
        }
        warnings
    }

    /// Opens the files of the access log and the audit log anew, after they were renamed. The error names the setting; the old file is used on.
    pub fn reopen_logs(&self) -> Result<(), String> {
        let (access, audit) = (self.shared.access.reopen(), self.shared.audit.reopen());
        access.and(audit)
    }

    /// Starts an exchange. `body`: the whole of it, or `None` when it follows by [`Job::send`] and [`Job::end`].
    /// `allowance`: of the client's connection; the front calls [`Job::ack`] for all that it tells. `None`: the engine is closed.
    pub fn submit(&self, head: RequestHead, body: Option<Bytes>, allowance: Arc<Allowance>) -> Option<Job> {
        // A closed engine's threads would never come to it.
        if *self.stop.borrow() {
            return None;
        }
        let id = self.jobs.fetch_add(1, Ordering::Relaxed);
        let worker = self.workers.get(usize::try_from(id).unwrap_or(0) % self.workers.len().max(1))?;
        Some(job::start(&self.shared, &worker.runtime, &worker.pool.load(), id, head, body, allowance))
    }

    /// What may be under way on one client's connection.
    pub fn allowance(&self) -> Arc<Allowance> {
        Allowance::new(&self.answers)
    }

    /// For a front that holds a body before it hands it over.
    pub fn held(&self) -> Held {
        Held::nothing(&self.shared)
    }

    /// All that there is to tell. Never blocks.
    pub fn poll(&self) -> Vec<OutboxEvent> {
        self.shared.outbox.take()
    }

    /// Readable while [`Engine::poll`] has something.
    pub fn descriptor(&self) -> RawFd {
        self.shared.outbox.descriptor()
    }

    /// What becomes of a client's connection to this destination.
    pub fn handling(&self, host: &str, port: u16, opening: Opening<'_>) -> Handling {
        self.shared.config.load().handling(&normal(host), port, opening)
    }

    /// True if HTTP/2 is offered to a client that wants this host (`client_http2`).
    pub fn offers_http2(&self, host: &str) -> bool {
        self.shared.config.load().client_http2(&normal(host)) == ClientHttp2::Auto
    }

    /// The refusal of a request, or a CONNECT, that this engine has sent itself, as its `Via` headers say.
    pub fn check_loop(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.shared.config.load().settings.via { self.shared.hop.check(headers) } else { Ok(()) }
    }

    /// How long clients may take: for a head, between requests, over an answer, and over a body (`timeouts`).
    pub fn client_timeouts(&self) -> [Duration; 4] {
        let timeouts = &self.shared.config.load().settings.timeouts;
        [timeouts.client_head, timeouts.client_idle, timeouts.client_write, timeouts.idle]
    }

    /// Counts a client that a front has let go because it was slow. `at`: "head", "body" or "answer".
    pub fn slow_client(&self, at: &str) {
        self.shared.metrics.slow_clients.with_label_values(&[at]).inc();
    }

    /// True if a client may reach `host`, and `address`, to which it resolved.
    pub fn may_connect(&self, host: &str, address: Option<std::net::IpAddr>) -> bool {
        let host = normal(host);
        !(sigward_gateway::is_forbidden_host(&host) || address.is_some_and(sigward_gateway::is_forbidden))
            || self.shared.config.load().router.names(&host)
    }

    /// Reads the CA that forward listeners intercept with, key and certificates in one PEM file; again, if it has been renewed. `needed`: nobody
    /// can be served once it has expired. True: name constraints limit it. An error leaves the one that there is.
    pub fn load_authority(&self, path: &std::path::Path, needed: bool) -> Result<bool, String> {
        let _log = tracing::dispatcher::set_default(&self.shared.dispatch);
        let authority = self.native.load_authority(path)?;
        self.shared.certificates.set_ca(authority.validity, needed);
        self.shared.certificates.tell(system::unix_seconds());
        Ok(authority.is_constrained())
    }

    /// What clients are shown for a host.
    pub fn certificate(&self, host: &str) -> Result<HostCertificate, String> {
        let _log = tracing::dispatcher::set_default(&self.shared.dispatch);
        let authority = self.native.authority().ok_or("there is no CA")?;
        let leaf = authority.leaf(host, std::time::SystemTime::now())?;
        Ok(HostCertificate { chain: leaf.chain.clone(), key: authority.key() })
    }

    /// Why a CONNECT to this host is refused although it would be intercepted: clients would refuse the certificate.
    pub fn refuses_tunnel(&self, host: &str) -> Option<Refusal> {
        self.native.refuses(host)
    }

    /// How the CA and the certificate of `tls.certificate` stand to the clock.
    pub fn certificates(&self) -> Vec<Standing> {
        self.shared.certificates.standings(system::unix_seconds())
    }

    /// True if clients take a certificate of that CA's for this host, as far as its name constraints say.
    pub fn vouches_for(&self, host: &str) -> bool {
        self.native.vouches_for(host)
    }

    /// Notes a listener of this process, so that no tunnel leads to it. What is no address is none of TCP's.
    pub fn listens(&self, host: &str, port: u16) {
        if let Ok(address) = host.parse() {
            self.shared.network.loops.listens(SocketAddr::new(address, port));
        }
    }

    /// The refusal of a tunnel to an address that a listener of this process has.
    pub fn check_tunnel(&self, to: SocketAddr) -> Result<(), Refusal> {
        if self.shared.network.loops.leads_back(to) { Err(sigward_gateway::leads_back(&to.to_string())) } else { Ok(()) }
    }

    /// For a front that is about to take a descriptor: there shall be some. `for_client`: for a client, not for what one has asked for.
    pub fn make_room(&self, for_client: bool) {
        self.shared.network.descriptors.make_room(for_client);
    }

    /// Starts a listener of the native front on every worker. `address`: `HOST:PORT`, or `unix:/path`. Returns where it is bound: host and
    /// port; of a unix socket `unix:/path`, and 0.
    pub fn listen(&self, address: &str, kind: &Kind) -> std::io::Result<(String, u16)> {
        let sockets = native::bind(address, self.workers.len())?;
        let bound = sockets.first().map_or_else(|| Err(std::io::Error::other("the engine has no thread")), native::Bound::address)?;
        self.listens(&bound.0, bound.1);
        for (socket, worker) in sockets.into_iter().zip(&self.workers) {
            let front = native::Front {
                shared: Arc::clone(&self.shared),
                pool: Arc::clone(&worker.pool),
                native: Arc::clone(&self.native),
                kind: kind.clone(),
            };
            worker.runtime.spawn(native::accept(socket, front));
        }
        Ok(bound)
    }

    /// The native front accepts no more; connections end after what they are at.
    pub fn drain(&self) {
        self.native.end(native::Ending::Draining);
    }

    /// Whatever the native front's clients are at ends now.
    pub fn cut(&self) {
        self.native.end(native::Ending::Cut);
    }

    /// Open connections of the native front's clients, tunnels among them.
    pub fn connections(&self) -> i64 {
        self.native.connections()
    }

    /// True until all that had connected to the native front before it drained has ended.
    pub fn draining(&self) -> bool {
        self.native.is_busy()
    }

    /// Publishes a snapshot of credentials.
    pub fn set_credentials(&self, identity: &str, credentials: sigward_sigv4::Credentials, expires_at: Option<f64>, provider: &str) {
        self.shared.publish(identity, credentials, expires_at, provider);
    }

    /// Seconds that AWS's clock is ahead of this host's, as far as answers have told.
    pub fn clock_ahead(&self) -> i64 {
        self.shared.config.load().live.ahead().unwrap_or(0)
    }

    /// Notes how a source of credentials dates its answers: seconds ahead.
    pub fn hear_clock(&self, ahead: i64) {
        self.shared.config.load().live.hear_source(ahead);
    }

    /// Notes that a load failed: (provider, why) in the chain's order.
    pub fn set_credentials_failed(&self, identity: &str, failures: Vec<(String, String)>) {
        self.shared.publish_failure(identity, failures);
    }

    /// Starts the admin listener; returns where it is bound.
    pub fn admin(&self, address: &str) -> std::io::Result<SocketAddr> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        let worker = self.workers.first().ok_or_else(|| std::io::Error::other("the engine has no thread"))?;
        let _entered = worker.runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        worker.runtime.spawn(admin::serve(listener, Arc::clone(&self.shared)));
        Ok(bound)
    }

    /// Readiness by part.
    pub fn set_ready(&self, part: &str, ready: bool, why: &str) {
        self.shared.set_ready(part, ready, why);
    }

    /// Every part that is not ready, and why.
    pub fn not_ready(&self) -> Vec<String> {
        self.shared.not_ready()
    }

    /// Prometheus's text format 0.0.4.
    pub fn metrics(&self) -> String {
        self.shared.metrics_text()
    }

    /// Requests under way.
    pub fn in_flight(&self) -> i64 {
        self.shared.metrics.in_flight.get()
    }

    /// Ends the threads; jobs under way are dropped. What is left of the logs is written. `patience`: for what is left of traces.
    pub fn close(&self, patience: Duration) {
        self.stop.send_replace(true);
        {
            // Whoever closes it a second time, to end at once, waits for the logs all the same.
            let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
            for thread in threads.drain(..) {
                let _ = thread.join();
            }
            self.shared.access.close();
            self.shared.audit.close();
        }
        if let Some(exporter) = self.exporter.lock().unwrap_or_else(PoisonError::into_inner).take() {
            exporter.close(patience);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}

/// A host in the form in which rules compare it.
fn normal(host: &str) -> Arc<str> {
    sigward_gateway::normal_host(host).unwrap_or_else(|| host.into())
}

fn pool(tls: &Arc<rustls::ClientConfig>, settings: &EngineSettings, shared: &Shared) -> Arc<Pool> {
    Pool::new(connect::Connector::new(tls, settings, &shared.network, &shared.hop), settings.timeouts.pool_idle)
}
