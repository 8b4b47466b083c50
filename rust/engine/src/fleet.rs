//! One limit for a fleet: a Redis or Valkey keeps who holds how much of it.
//!
//! Every sidecar asks for its part ten times a second, in the background, and paces by what it was leased last: the hot path
//! stays local. A lease counts for [`HOLD`]; the store keeps it reserved for longer, so that nobody is given what another still
//! uses. When the store is away, or what it grants cannot be right, leases lapse and each takes `pacing.share` of the limit. The
//! clock is the store's.
//!
//! Neither the store nor who else writes to it is trusted: answers are read to a bound in bytes and time, and the script leaves out what
//! cannot be right.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError, RedisResult};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sigward_gateway::Config;
use sigward_gateway::pace::{Demand, Key};
use sigward_gateway::settings::EngineSettings;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::net::{Bounded, ReadLimit, Stream};
use crate::shared::Shared;
use crate::{system, tls};

const LEASE: &str = include_str!("lease.lua");
/// Between two questions.
const PERIOD: Duration = Duration::from_millis(100);
/// A lease counts for so long on the sidecar.
const HOLD: Duration = Duration::from_secs(1);
/// And so long in the store, in milliseconds.
const RESERVED: u64 = 1500;
/// A store that has just begun gives nobody more than they hold, for so long, in milliseconds.
const WARM_UP: u64 = 400;
/// Sidecars of one limit. More than these, each asking ten times a second, are more than a store can serve.
const MOST_SIDECARS: usize = 1024;
/// The store has so long to answer.
const PATIENCE: Duration = Duration::from_millis(250);
/// And so long for a connection, with all that belongs to it.
const CONNECT: Duration = Duration::from_secs(1);
/// Between attempts to reach it: doubled from the first to the last.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// What a sidecar asks for beyond what it uses, so that it can grow.
const HEADROOM: f64 = 1.25;
/// Limits that are asked for at once.
const AT_ONCE: usize = 512;
/// An answer is read so far: what belongs to a connection, and to each limit.
const MOST_ANSWER: (usize, usize) = (4 << 10, 256);
/// A connection is made anew after so long: the library keeps what a store pushes, and a name may stand for another host by then.
const RENEWED: Duration = Duration::from_secs(300);
/// Nothing of what is due, for so long, cannot be right: it is longer than sidecars that are gone keep theirs, and than a store's warm-up.
const STARVED: Duration = Duration::from_secs(3);
/// Less than this part of what is due is nothing.
const NOTHING: f64 = 0.01;
/// Entries that cannot be right are logged so often at most.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// Where the store is, and as whom it is asked.
pub(crate) struct Place {
    address: ConnectionAddr,
    tls: bool,
    login: RedisConnectionInfo,
}

/// Checks the URL. The error says what is wrong with it, without its password.
pub(crate) fn place(settings: &EngineSettings) -> Result<Option<Place>, String> {
    let Some(url) = settings.pace.shared.as_deref() else { return Ok(None) };
    let wrong =
        |why: &str| format!("pacing.shared: {why}; redis://[user:password@]host[:port][/database], or rediss:// for TLS, is expected");
    if url.contains('#') {
        return Err(wrong("it ends in a #fragment, which has no meaning here"));
    }
    // TLS is ours, so the library reads the URL of the same place without it.
    let plain = ["rediss:", "valkeys:"].iter().find_map(|scheme| url.strip_prefix(scheme));
    let read = plain.map_or_else(|| url.into_connection_info(), |rest| format!("redis:{rest}").into_connection_info());
    // The library's own words could quote the URL.
    let info = read.map_err(|error| wrong(error.detail().filter(|text| !text.contains('@')).unwrap_or("it cannot be read")))?;
    Ok(Some(Place { address: info.addr().clone(), tls: plain.is_some(), login: info.redis_settings().clone() }))
}

/// Asks for leases for as long as the engine runs, if the settings name a store.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let name = format!("{:016x}{:016x}", shared.next_seed(), std::process::id());
    Keeper { shared, name, reachable: true, pause: RETRY.0, invalid_said: None }.run().await;
}

/// Why a session ended.
struct Away(String);

impl From<RedisError> for Away {
    /// What went wrong, without what a URL or an answer could hold.
    fn from(error: RedisError) -> Self {
        Self(match error.code() {
            Some(code) => code.chars().take(40).filter(|letter| !letter.is_control()).collect(),
            None => error.category().to_owned(),
        })
    }
}

impl From<io::Error> for Away {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// What the script answers.
struct Grant {
    leased: f64,
    due: f64,
    invalid: u64,
}

impl Grant {
    /// An answer that cannot be right leases nothing.
    fn of((leased, due, invalid): (f64, f64, i64), demand: &Demand) -> Option<Self> {
        let fits = |rate: f64| (0.0..=demand.limit).contains(&rate);
        (fits(leased) && fits(due)).then(|| Self { leased, due, invalid: invalid.try_into().unwrap_or_default() })
    }
}

#[cfg(test)]
impl Grant {
    fn sabotaged(self, demand: &Demand) -> Self {
        let takes_whole = crate::simulation::sabotaged(crate::simulation::Sabotage::TakesWhole);
        if takes_whole { Self { leased: demand.limit, ..self } } else { self }
    }
}

/// One limit between two questions.
#[derive(Clone, Copy)]
struct Use {
    /// What is used is smoothed: a lease follows the load, not its every jerk.
    rate: f64,
    /// Since when nothing was leased of what was due.
    starved: Option<Instant>,
}

struct Keeper {
    shared: Arc<Shared>,
    /// What this sidecar is called in the store.
    name: String,
    /// The last session has had an answer, or there was none yet.
    reachable: bool,
    pause: Duration,
    invalid_said: Option<Instant>,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let config = self.shared.config.load_full();
            let Ok(Some(place)) = place(&config.settings) else {
                // Settings may change.
                self.shared.metrics.store_up.set(0);
                tokio::time::sleep(RETRY.1).await;
                continue;
            };
            if let Err(Away(why)) = self.session(&config, &place).await {
                self.shared.metrics.store_errors.inc();
                if std::mem::replace(&mut self.reachable, false) {
                    let share = config.settings.pace.share * 100.0;
                    tracing::warn!("the store of shared limits is away ({why}): this sidecar keeps to {share:.0} % of each");
                }
                self.shared.metrics.store_up.set(0);
                self.shared.metrics.store_unusable.set(0);
                tokio::time::sleep(self.pause).await;
                self.pause = (self.pause * 2).min(RETRY.1);
            }
        }
    }

    /// One connection, until it fails, is old, or the settings name another store.
    async fn session(&mut self, config: &Config, place: &Place) -> Result<(), Away> {
        let read_limit = ReadLimit::default();
        read_limit.set(MOST_ANSWER.0);
        let late = |_| Err(Away("no connection in time".to_owned()));
        let connecting = tokio::time::timeout(CONNECT, connect(config, place, &read_limit));
        let connected = connecting.await.unwrap_or_else(late);
        let ended = match connected {
            Err(away) => Err(away),
            Ok((mut connection, driver)) => {
                // When the driver ends, the question that is under way fails, and says why.
                let driver = async {
                    driver.await;
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    biased;
                    ended = self.ask(&mut connection, &read_limit, config) => ended,
                    () = driver => Ok(()),
                }
            }
        };
        ended.map_err(|away| if read_limit.is_used_up() { Away("its answer is too long".to_owned()) } else { away })
    }

    async fn ask(&mut self, connection: &mut MultiplexedConnection, read_limit: &ReadLimit, began: &Config) -> Result<(), Away> {
        let script = redis::Script::new(LEASE);
        let shared = Arc::clone(&self.shared);
        let since = Instant::now();
        let mut last = since;
        let mut uses: HashMap<Key, Use> = HashMap::new();
        let mut loaded = false;
        loop {
            let config = shared.config.load_full();
            if config.settings.pace.shared != began.settings.pace.shared || since.elapsed() >= RENEWED {
                return Ok(());
            }
            let demands = config.live.pacer.demands(shared.started.elapsed());
            let took = last.elapsed().as_secs_f64().max(0.001);
            last = Instant::now();
            uses = demands.iter().map(|demand| (demand.key, Use::of(uses.get(&demand.key), demand, took))).collect();
            let (mut invalid, mut unusable) = (0, 0);
            for some in demands.chunks(AT_ONCE) {
                read_limit.set(MOST_ANSWER.0 + MOST_ANSWER.1 * some.len());
                if !loaded {
                    load(connection).await?;
                    loaded = true;
                }
                let asked_at = shared.started.elapsed();
                let grants = match self.grants(connection, &script, some, &uses).await {
                    // Somebody has emptied its memory of scripts: it is told again.
                    Err(error) if error.code() == Some("NOSCRIPT") => {
                        read_limit.set(MOST_ANSWER.0 + MOST_ANSWER.1 * some.len());
                        load(connection).await?;
                        self.grants(connection, &script, some, &uses).await?
                    }
                    grants => grants?,
                };
                for (demand, grant) in some.iter().zip(grants) {
                    let grant = Grant::of(grant, demand);
                    invalid += grant.as_ref().map_or(1, |grant| grant.invalid);
                    let now = shared.started.elapsed();
                    let usable = grant.filter(|grant| uses.get_mut(&demand.key).is_some_and(|usage| !usage.starves(grant)));
                    #[cfg(test)]
                    let usable = usable.map(|grant| grant.sabotaged(demand));
                    if let Some(grant) = usable {
                        config.live.pacer.lease(demand.key, grant.leased, now, asked_at + HOLD);
                    } else {
                        unusable += 1;
                        config.live.pacer.lapse(demand.key, now);
                    }
                }
                shared.queued.notify_one();
            }
            if demands.is_empty() && !self.reachable {
                read_limit.set(MOST_ANSWER.0);
                redis::cmd("PING").exec_async(connection).await?;
            }
            if !demands.is_empty() || !self.reachable {
                self.answered();
            }
            self.judge(invalid, unusable, config.settings.pace.share);
            // A new limit is asked for at once; else in its time.
            tokio::select! {
                biased;
                () = tokio::time::sleep(PERIOD) => {}
                () = shared.unleased.notified() => {}
            }
        }
    }

    /// What the store leases of these limits.
    async fn grants(
        &self,
        connection: &mut MultiplexedConnection,
        script: &redis::Script,
        demands: &[Demand],
        uses: &HashMap<Key, Use>,
    ) -> RedisResult<Vec<(f64, f64, i64)>> {
        let mut pipeline = redis::pipe();
        for demand in demands {
            let wanted = wanted(demand, uses.get(&demand.key).map_or(0.0, |usage| usage.rate));
            let mut asked = script.key(&*demand.name);
            asked.arg(&self.name).arg(demand.limit).arg(wanted).arg(demand.held).arg(RESERVED).arg(WARM_UP).arg(MOST_SIDECARS);
            pipeline.invoke_script(&asked);
        }
        // One by one: of errors together the library does not tell the code.
        let answers: Vec<RedisResult<_>> = pipeline.ignore_errors().query_async(connection).await?;
        answers.into_iter().collect()
    }

    fn answered(&mut self) {
        self.pause = RETRY.0;
        self.shared.metrics.store_up.set(1);
        if !std::mem::replace(&mut self.reachable, true) {
            tracing::info!("the store of shared limits is back");
        }
    }

    /// Counts what cannot be right, and says so when it begins.
    fn judge(&mut self, invalid: u64, unusable: i64, share: f64) {
        let metrics = &self.shared.metrics;
        metrics.store_invalid.inc_by(invalid);
        if invalid > 0 && self.invalid_said.is_none_or(|at| at.elapsed() >= SAID_AGAIN) {
            self.invalid_said = Some(Instant::now());
            tracing::warn!(
                "the store of shared limits held entries that cannot be right, which do not count (entries: {invalid}). Check what else \
                 writes to keys that begin with `sigward:pace:`, and whether the store's clock has gone back, as after a failover"
            );
        }
        let before = metrics.store_unusable.get();
        metrics.store_unusable.set(unusable);
        if unusable > 0 && before == 0 {
            tracing::warn!(
                "the store of shared limits grants nothing, or no rate, although calls wait (limits: {unusable}): this sidecar keeps to \
                 {:.0} % of each. Check what else writes to keys that begin with `sigward:pace:`",
                share * 100.0
            );
        } else if unusable == 0 && before > 0 {
            tracing::info!("the store of shared limits grants what is due again");
        }
    }
}

impl Use {
    fn of(before: Option<&Self>, demand: &Demand, took: f64) -> Self {
        let now = demand.asked as f64 / took;
        Self { rate: before.map_or(now, |before| 0.5 * before.rate + 0.5 * now), starved: before.and_then(|before| before.starved) }
    }

    /// True if nothing was leased of what was due for too long.
    fn starves(&mut self, grant: &Grant) -> bool {
        if grant.leased > grant.due * NOTHING || grant.due <= 0.0 {
            self.starved = None;
            return false;
        }
        self.starved.get_or_insert_with(Instant::now).elapsed() >= STARVED
    }
}

/// A connection, logged in. The future moves its bytes.
async fn connect(
    config: &Config,
    place: &Place,
    read_limit: &ReadLimit,
) -> Result<(MultiplexedConnection, impl Future<Output = ()> + 'static), Away> {
    let stream = match &place.address {
        ConnectionAddr::Tcp(host, port) => {
            let socket = system::reach(host, *port).await?;
            if place.tls {
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                Stream::connect(socket, trusted(config).await?, name).await?
            } else {
                Stream::new(socket)
            }
        }
        #[cfg(unix)]
        ConnectionAddr::Unix(path) => Stream::new(UnixStream::connect(path).await?.into()),
        _ => return Err(Away("unsupported address type".to_owned())),
    };
    let timings = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
    Ok(MultiplexedConnection::new_with_config(&place.login, Bounded::new(stream, read_limit.clone()), timings).await?)
}

/// Gives the store the script. Not by the library's own function, which panics in debug builds if the answer is not what it expects.
async fn load(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    redis::cmd("SCRIPT").arg("LOAD").arg(LEASE).exec_async(connection).await
}

/// Whom it must be. Reads files, so not on this thread.
async fn trusted(config: &Config) -> Result<Arc<ClientConfig>, Away> {
    let settings = config.settings.tls.clone();
    let read = tokio::task::spawn_blocking(move || tls::client_config(&settings)).await;
    read.map_err(|_| Away("tls: reading the CA files failed".to_owned()))?.map_err(Away)
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
