//! How long certificates hold: the CA's, and the one of `tls.certificate`.
//!
//! The clock decides at the moment of the question: `/readyz` and the metrics need no timer, and a clock that is moved is followed at once.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::shared::Shared;
use crate::system::unix_seconds;

const DAY: u64 = 86_400;
/// The CA's end is reported from here on: clients have to trust a new one before.
const CA_SOON: u64 = 60 * DAY;
/// The listener's certificate comes from elsewhere, where it is renewed some weeks before its end.
const LISTENER_SOON: u64 = 14 * DAY;
/// The log looks at the clock this often, and says the same once a day.
const LOOK: Duration = Duration::from_secs(60);

/// Unix seconds of a chain's first and last moment: what all its certificates have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) from: u64,
    pub(crate) until: u64,
}

impl Validity {
    /// `None`: the chain is empty, or one of its certificates cannot be read.
    pub(crate) fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let seconds = |timestamp: i64| u64::try_from(timestamp).unwrap_or(0);
        let read = |certificate: &CertificateDer<'_>| {
            let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
            let validity = certificate.validity();
            Some(Self { from: seconds(validity.not_before.timestamp()), until: seconds(validity.not_after.timestamp()) })
        };
        let all = chain.iter().map(read).collect::<Option<Vec<_>>>()?;
        all.into_iter().reduce(|one, other| Self { from: one.from.max(other.from), until: one.until.min(other.until) })
    }

    /// When it ends.
    pub(crate) fn end(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.until)
    }

    pub(crate) fn has_ended(self, now: u64) -> bool {
        now >= self.until
    }

    /// Seconds until it ends; negative: since it has ended.
    pub(crate) fn left(self, now: u64) -> i64 {
        self.until.cast_signed().saturating_sub(now.cast_signed())
    }

    fn state(self, now: u64, soon: u64) -> State {
        if self.has_ended(now) {
            State::Expired
        } else if now < self.from {
            State::Early
        } else if self.until - now <= soon {
            State::Soon
        } else {
            State::Valid
        }
    }
}

/// How a certificate stands to the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing to report.
    Valid,
    /// It ends before long.
    Soon,
    /// It has ended.
    Expired,
    /// It is not valid yet: the clock is behind, or was ahead when the certificate was made.
    Early,
}

impl State {
    /// For Python.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Soon => "soon",
            Self::Expired => "expired",
            Self::Early => "early",
        }
    }
}

/// A certificate of sigward's own, or of its settings, as it stands now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// `ca` or `tls.certificate`.
    pub name: &'static str,
    /// To the clock.
    pub state: State,
    /// Unix seconds.
    pub until: u64,
    /// What is so, e.g. `the CA expires in 41 days (on 2036-11-28)`.
    pub what: String,
    /// What to do.
    pub mend: &'static str,
}

impl fmt::Display for Standing {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}. {}", self.what, self.mend)
    }
}

/// What to do about a CA.
pub(crate) const RENEW_CA: &str = "Pause log rotation if it sends SIGHUP, run `sigward ca renew`, let clients trust the new certificate, then send SIGHUP to sigward or \
     restart it.";
const REPLACE: &str = "Replace the file, then send SIGHUP to sigward or restart it.";
const SET_CLOCK: &str = "Set this host's clock. Make another certificate only if this one was made while the clock was ahead.";

/// What the CA is called, and what its end means.
pub(crate) fn ca_standing(validity: Validity, now: u64) -> Standing {
    standing("ca", "the CA", validity, now, CA_SOON, RENEW_CA)
}

fn listener_standing(validity: Validity, now: u64) -> Standing {
    // Some live for days: two thirds of their life need no word.
    let soon = LISTENER_SOON.min((validity.until.saturating_sub(validity.from)) / 3);
    standing("tls.certificate", "the certificate of tls.certificate", validity, now, soon, REPLACE)
}

fn standing(name: &'static str, what: &str, validity: Validity, now: u64, soon: u64, mend: &'static str) -> Standing {
    let state = validity.state(now, soon);
    let what = match state {
        State::Valid => format!("{what} expires on {}", date(validity.until)),
        State::Soon => format!("{what} expires in {} (on {})", span(validity.until - now), date(validity.until)),
        State::Expired => format!("{what} expired {} ago (on {}), and clients refuse it", span(now - validity.until), date(validity.until)),
        State::Early => format!("by this host's clock, {what} is not valid before {}", date(validity.from)),
    };
    let mend = if state == State::Early { SET_CLOCK } else { mend };
    Standing { name, state, until: validity.until, what, mend }
}

/// `2036-11-28`.
fn date(unix_seconds: u64) -> String {
    match sigward_sigv4::time::amz_date(unix_seconds) {
        Ok([y1, y2, y3, y4, m1, m2, d1, d2, ..]) => [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2].map(char::from).iter().collect(),
        Err(_) => "9999-12-31".into(),
    }
}

/// Days, or hours where there are fewer than two days.
fn span(seconds: u64) -> String {
    match (seconds / DAY, seconds / 3600) {
        (days @ 2.., _) => format!("{days} days"),
        (_, hours @ 2..) => format!("{hours} hours"),
        _ => format!("{} minutes", seconds / 60),
    }
}

/// What is known of them.
#[derive(Debug, Default)]
pub(crate) struct Certificates(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    ca: Option<Validity>,
    /// Without the CA, nobody is served.
    needed: bool,
    listener: Option<Validity>,
    /// What the log has said last, and when: of each.
    told: [Option<(State, u64)>; 2],
}

impl Certificates {
    pub(crate) fn set_ca(&self, validity: Validity, needed: bool) {
        let mut known = self.locked();
        (known.ca, known.needed) = (Some(validity), needed);
    }

    pub(crate) fn set_listener(&self, validity: Option<Validity>) {
        self.locked().listener = validity;
    }

    /// The CA's, and the listener's.
    pub(crate) fn validities(&self) -> [Option<Validity>; 2] {
        let known = self.locked();
        [known.ca, known.listener]
    }

    /// All that there are.
    pub(crate) fn standings(&self, now: u64) -> Vec<Standing> {
        let [ca, listener] = self.validities();
        let ca = ca.map(|validity| ca_standing(validity, now));
        ca.into_iter().chain(listener.map(|validity| listener_standing(validity, now))).collect()
    }

    /// Why nobody can be served.
    pub(crate) fn missing(&self, now: u64) -> Option<String> {
        let known = self.locked();
        let ca = known.ca.filter(|ca| known.needed && ca.has_ended(now))?;
        Some(format!("ca: {}", ca_standing(ca, now)))
    }

    /// What is to be known of those that serve, by name.
    pub(crate) fn notices(&self, now: u64) -> Vec<String> {
        let missing = self.missing(now);
        let notable = self.standings(now).into_iter().filter(|standing| standing.state != State::Valid);
        notable.map(|standing| format!("{}: {standing}", standing.name)).filter(|notice| Some(notice) != missing.as_ref()).collect()
    }

    /// Says in the log what is wrong: at once if it is new, else once a day.
    pub(crate) fn tell(&self, now: u64) {
        for standing in self.due(now) {
            if standing.state == State::Expired {
                tracing::error!("{standing}");
            } else {
                tracing::warn!("{standing}");
            }
        }
    }

    fn due(&self, now: u64) -> Vec<Standing> {
        let standings = self.standings(now);
        let mut known = self.locked();
        standings
            .into_iter()
            .filter(|standing| {
                let [ca, listener] = &mut known.told;
                let told = if standing.name == "ca" { ca } else { listener };
                let new = told.is_none_or(|(state, at)| state != standing.state || now.abs_diff(at) >= DAY);
                if new {
                    *told = Some((standing.state, now));
                }
                new && standing.state != State::Valid
            })
            .collect()
    }

    fn locked(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the clock for as long as the engine runs.
pub(crate) async fn watch(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(LOOK).await;
        shared.certificates.tell(unix_seconds());
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const FROM: u64 = 1_700_000_000;
    const UNTIL: u64 = FROM + 3650 * DAY;
    const CA: Validity = Validity { from: FROM, until: UNTIL };

    fn certificate(from: u64, until: u64) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.not_before = (UNIX_EPOCH + Duration::from_secs(from)).into();
        params.not_after = (UNIX_EPOCH + Duration::from_secs(until)).into();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_chain_holds_while_all_of_it_does() {
        let chain = [certificate(FROM, UNTIL), certificate(FROM + 5, UNTIL - 9), certificate(FROM + 3, UNTIL)];
        assert_eq!(Validity::of(&chain), Some(Validity { from: FROM + 5, until: UNTIL - 9 }));
        assert_eq!(Validity::of(&[]), None);
        assert_eq!(Validity::of(&[certificate(FROM, UNTIL), CertificateDer::from_slice(b"no certificate")]), None);
    }

    #[test]
    fn what_is_said_of_it() {
        let said = |now| ca_standing(CA, now).to_string();
        assert_eq!(ca_standing(CA, UNTIL - CA_SOON - 1).state, State::Valid);
        assert_eq!(said(UNTIL - CA_SOON), format!("the CA expires in 60 days (on 2033-11-11). {RENEW_CA}"));
        assert!(said(UNTIL - 7200).starts_with("the CA expires in 2 hours (on 2033-11-11). "));
        assert!(said(UNTIL).starts_with("the CA expired 0 minutes ago (on 2033-11-11), and clients refuse it. "));
        assert!(said(UNTIL + 2 * DAY).starts_with("the CA expired 2 days ago (on 2033-11-11), and clients refuse it. "));
        assert_eq!(said(FROM - 1), format!("by this host's clock, the CA is not valid before 2023-11-14. {SET_CLOCK}"));
        // One that lives for six days is new for four of them.
        let short = Validity { from: FROM, until: FROM + 6 * DAY };
        assert_eq!(listener_standing(short, FROM + 4 * DAY - 1).state, State::Valid);
        assert_eq!(listener_standing(short, FROM + 4 * DAY).state, State::Soon);
        assert_eq!(listener_standing(CA, UNTIL - LISTENER_SOON - 1).state, State::Valid);
    }

    #[test]
    fn who_needs_the_ca_is_not_ready_without_it() {
        let certificates = Certificates::default();
        assert_eq!((certificates.missing(UNTIL), certificates.notices(UNTIL)), (None, Vec::new()));
        certificates.set_ca(CA, false);
        assert_eq!((certificates.missing(UNTIL), certificates.notices(UNTIL).len()), (None, 1));
        certificates.set_ca(CA, true);
        assert!(certificates.missing(UNTIL).unwrap().starts_with("ca: the CA expired "));
        assert_eq!(certificates.notices(UNTIL), Vec::<String>::new(), "it is said once");
        assert_eq!(certificates.missing(UNTIL - 1), None);
        certificates.set_listener(Some(CA));
        assert_eq!(certificates.notices(UNTIL - DAY).len(), 2);
    }

    #[test]
    fn the_log_says_it_once_a_day_and_at_every_change() {
        let certificates = Certificates::default();
        certificates.set_ca(CA, true);
        let due = |now| certificates.due(now).into_iter().map(|standing| standing.state).collect::<Vec<_>>();
        assert_eq!(due(FROM), []);
        assert_eq!(due(UNTIL - CA_SOON), [State::Soon]);
        assert_eq!(due(UNTIL - CA_SOON + DAY - 1), []);
        assert_eq!(due(UNTIL - CA_SOON + DAY), [State::Soon]);
        assert_eq!(due(UNTIL), [State::Expired]);
        assert_eq!(due(UNTIL + 1), []);
        assert_eq!(due(UNTIL - 10 * DAY), [State::Soon], "the clock has been set back");
        // Renewed, and then the same once more.
        certificates.set_ca(Validity { from: FROM, until: UNTIL + 3650 * DAY }, true);
        assert_eq!(due(UNTIL), []);
        certificates.set_ca(CA, true);
        assert_eq!(due(UNTIL), [State::Expired]);
    }
}
