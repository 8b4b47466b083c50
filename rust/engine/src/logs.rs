//! `tracing`'s events as lines for the front's log: what sigward's own crates tell, from `log_level` on.
//!
//! A place in the code that has much to say is cut short: ten lines a second, then one that says how many were left out. What a front
//! has not fetched is bounded too ([`Outbox`]). Whatever is not told is counted.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounterVec;
use sigward_gateway::settings::LogLevel;
use tokio::sync::Notify;
use tracing::callsite::Identifier;
use tracing::dispatcher::DefaultGuard;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record as SpanRecord};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

use crate::outbox::{Outbox, OutboxEvent, Said};

/// One place in the code may tell so many lines in a [`PERIOD`].
const MOST: u32 = 10;
const PERIOD: Duration = Duration::from_secs(1);
/// A line has so many bytes at most.
const LONGEST: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(crate) struct Logs {
    outbox: Arc<Outbox>,
    most: LevelFilter,
    sites: Mutex<HashMap<Identifier, Site>>,
    /// By reason.
    dropped: IntCounterVec,
    /// A line was left out.
    left_out: Notify,
}

/// A place in the code that tells lines.
#[derive(Debug)]
struct Site {
    level: Level,
    target: &'static str,
    since: Instant,
    told: u32,
    left_out: u64,
    last: String,
}

impl Logs {
    /// `level`: what is worse, or as bad, is told.
    pub(crate) fn new(outbox: Arc<Outbox>, level: LogLevel, dropped: IntCounterVec) -> Arc<Self> {
        let most = match level {
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Warning => LevelFilter::WARN,
            LogLevel::Error => LevelFilter::ERROR,
        };
        Arc::new(Self { outbox, most, sites: Mutex::default(), dropped, left_out: Notify::new() })
    }

    /// Threads that have this for their default tell their events here.
    pub(crate) fn dispatch(self: &Arc<Self>) -> Dispatch {
        Dispatch::new(Listener(Arc::clone(self)))
    }

    fn tell(&self, site: Identifier, level: Level, target: &'static str, said: Said) {
        let now = Instant::now();
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Site { level, target, since: now, told: 0, left_out: 0, last: String::new() };
        let site = sites.entry(site).or_insert_with(fresh);
        if now.duration_since(site.since) >= PERIOD {
            (site.since, site.told) = (now, 0);
        }
        if site.told >= MOST {
            site.left_out += 1;
            site.last = said.message;
            self.dropped.with_label_values(&["rate"]).inc();
            self.left_out.notify_one();
            return;
        }
        site.told += 1;
        self.push(level, target, said);
    }

    fn push(&self, level: Level, target: &'static str, said: Said) {
        if !self.outbox.push_log(OutboxEvent::Log { level, target, said }) {
            self.dropped.with_label_values(&["full"]).inc();
        }
    }

    fn tell_left_out(&self) {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        for site in sites.values_mut().filter(|site| site.left_out > 0) {
            let (left_out, last) = (std::mem::take(&mut site.left_out), std::mem::take(&mut site.last));
            let message = format!("{left_out} more lines like this one were left out: {last}");
            self.push(site.level, site.target, Said { message, fields: Vec::new() });
        }
    }
}

thread_local! {
    static DEFAULT: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
}

/// For a thread that others start: its events are told for as long as it runs.
pub(crate) fn default_for_thread(dispatch: &Dispatch) {
    DEFAULT.set(Some(tracing::dispatcher::set_default(dispatch)));
}

/// Says how many lines were left out, for as long as the engine runs.
pub(crate) async fn sum_up(logs: Arc<Logs>) {
    loop {
        logs.left_out.notified().await;
        tokio::time::sleep(PERIOD).await;
        logs.tell_left_out();
    }
}

struct Listener(Arc<Logs>);

impl Listener {
    /// Other crates' events may hold what clients and upstreams sent.
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("sigward_") && *metadata.level() <= self.0.most
    }
}

impl Subscriber for Listener {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0.most)
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        // Two engines in one process may have different levels.
        if !self.wants(metadata) {
            return;
        }
        let mut said = Saying(Said::default());
        event.record(&mut said);
        self.0.tell(metadata.callsite(), *metadata.level(), metadata.target(), said.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &SpanRecord<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The message, and each field.
struct Saying(Said);

impl Visit for Saying {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.0.message = one_line(format!("{value:?}")),
            name => self.0.fields.push((name, one_line(format!("{value:?}")))),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// And not too long.
fn one_line(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
    }
    if text.contains(char::is_control) {
        text = text.replace(char::is_control, " ");
    }
    text
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;

    fn logs(level: LogLevel) -> (Arc<Outbox>, Arc<Logs>) {
        let outbox = Arc::new(Outbox::new().unwrap());
        let dropped = IntCounterVec::new(Opts::new("dropped", "help"), &["reason"]).unwrap();
        (Arc::clone(&outbox), Logs::new(outbox, level, dropped))
    }

    fn told(outbox: &Outbox) -> Vec<(Level, &'static str, String)> {
        let told = |event| match event {
            OutboxEvent::Log { level, target, said } => {
                let fields = said.fields.iter().map(|(name, value)| format!(" {name}={value}"));
                Some((level, target, said.message + &fields.collect::<String>()))
            }
            _ => None,
        };
        outbox.take().into_iter().filter_map(told).collect()
    }

    #[test]
    fn events_of_our_own_at_the_level_are_told() {
        let (outbox, logs) = logs(LogLevel::Info);
        tracing::dispatcher::with_default(&logs.dispatch(), || {
            tracing::warn!(port = 80, "one {}\nline", 1);
            tracing::info!(name = "a");
            tracing::debug!("not this");
            tracing::error!(target: "h2::frame", "another crate's");
            let _span = tracing::error_span!("a span").entered();
        });
        tracing::warn!("of no engine");
        let expected = [(Level::WARN, module_path!(), "one 1 line port=80"), (Level::INFO, module_path!(), " name=a")];
        assert_eq!(told(&outbox), expected.map(|(level, target, text)| (level, target, text.to_owned())));
    }

    #[test]
    fn two_engines_have_levels_of_their_own() {
        let ((quiet_outbox, quiet), (outbox, wordy)) = (logs(LogLevel::Error), logs(LogLevel::Debug));
        for dispatch in [quiet.dispatch(), wordy.dispatch()] {
            tracing::dispatcher::with_default(&dispatch, || tracing::debug!("a detail"));
        }
        assert_eq!((told(&quiet_outbox).len(), told(&outbox).len()), (0, 1));
    }

    #[test]
    fn a_place_with_much_to_say_is_cut_short() {
        let (outbox, logs) = logs(LogLevel::Warning);
        tracing::dispatcher::with_default(&logs.dispatch(), || {
            for number in 0..100 {
                tracing::warn!("number {number}");
            }
            tracing::warn!("another");
        });
        logs.tell_left_out();
        let texts: Vec<String> = told(&outbox).into_iter().map(|(_, _, text)| text).collect();
        let left_out = logs.dropped.with_label_values(&["rate"]).get();
        // A second may have passed in between.
        assert!(texts.len() >= 12 && texts.len() + usize::try_from(left_out).unwrap() >= 101, "{texts:?}");
        assert!(texts.contains(&"another".to_owned()));
        assert_eq!(texts.last().unwrap(), &format!("{left_out} more lines like this one were left out: number 99"));
        logs.tell_left_out();
        assert!(told(&outbox).is_empty());
    }

    #[test]
    fn a_front_that_fetches_nothing_does_not_fill_the_memory() {
        let (outbox, logs) = logs(LogLevel::Info);
        for _ in 0..1500 {
            logs.push(Level::INFO, "sigward_engine", Said::default());
        }
        assert_eq!(logs.dropped.with_label_values(&["full"]).get(), 500);
        assert_eq!(told(&outbox).len(), 1000);
        logs.push(Level::INFO, "sigward_engine", Said::default());
        assert_eq!(told(&outbox).len(), 1);
    }

    #[test]
    fn long_lines_are_cut() {
        assert_eq!(one_line("é".repeat(LONGEST)), "é".repeat(LONGEST / 2));
    }
}
