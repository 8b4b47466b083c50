//! One request's life, as a state machine that does no I/O.
//!
//! Theory of operation. The driver owns the bytes; the exchange owns the decisions. The driver calls [`Exchange::on`] with
//! an [`Event`] and carries out the [`Step`] that comes back, until the step is [`Step::Reply`] or [`Step::Deliver`]:
//!
//! ```text
//!   Head ──▶ (Unwrap ──Unwrapped──▶) Read ──Body──▶ (Pace ──Paced──▶) (Refresh ──Refreshed──▶) Send ──Response──▶ Deliver
//!                                                     ▲                      ╲──Failed──▶╮        ▲
//!                                                     │                      ReadCode ──ResponseBody──╯
//!                                                     ╰──Elapsed── Wait
//! ```
//!
//! Each attempt is signed anew, with the time and the credentials of that moment. An event that does not fit the state is
//! the driver's mistake and refuses the request; nothing panics.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{DATE, HeaderMap};
use http::{HeaderName, HeaderValue, Method, Response};
use sha2::{Digest, Sha256};
use sigward_sigv4::chunked::{ChunkSigner, Decoder, Encoder, Framing};
use sigward_sigv4::event::{self, EventSigner};
use sigward_sigv4::{Credentials, Options, QueryPlus, Scope, SignError, Style};
use smallvec::SmallVec;

use crate::address::is_forbidden_host;
use crate::admit::{self, BodySize, Entry, RequestHead, Scheme, Target};
use crate::body::{self, Facts, Form, Wrap};
use crate::circuit::Pass;
use crate::client::{self, Asked, Claimed, Clients};
use crate::identity::{Identities, Identity};
use crate::judge::{self, Author, CODE_PREFIX, RetryClass, Verdict};
use crate::knowledge::{Knowledge, Operation};
use crate::labels::Labels;
use crate::live::{Endpoint, Live, MOST_SKEW, UnderWay};
use crate::location;
use crate::pace::{Asked as PaceAsked, Paced, Paces, Patience, Subject, Ticket};
use crate::quota;
use crate::recognise::{
    self, Ambiguity, Authentication, Body, Call, Hint, HostBucket, Own, Recognised, Source, Variant, recognise, style_of,
};
use crate::record::{Attempt, Disposition, Passed, Reason, Record, RefusedOwn, Steps, UnknownHost, Wait, WrongClock, redacted};
use crate::refuse::{Reader, Refusal, Shape};
use crate::resource;
use crate::route::{Calls, Choice, Route, RouteQuery, Router, Undecided, Upstream, over_tls};
use crate::rules;
use crate::settings::{
    Action, CustomerEndpoints, EngineSettings, LogTo, OwnAuthorization, PayloadMode, Repeat, RetryMode, SignatureVariant, Unknown,
};
use crate::sign::{self, BodyHash, Made, Terms};
use crate::token::{self, Token};
use crate::via::{Hop, leads_back};

/// Settings, checked: an immutable snapshot.
#[derive(Debug)]
pub struct Config {
    /// As given.
    pub settings: EngineSettings,
    /// The routes.
    pub router: Router,
    /// The hosts and operations.
    pub knowledge: Arc<Knowledge>,
    /// Who may ask.
    pub clients: Clients,
    /// Which calls wait for which bucket.
    pub paces: Paces,
    /// What is learnt on the way.
    pub live: Arc<Live>,
    /// `settings.default_identity`.
    pub default_identity: Arc<str>,
    /// What looks wrong with the rules, for the log.
    pub warnings: Vec<String>,
    /// Names that things are kept by.
    pub labels: Labels,
}

impl Config {
    /// Checks the settings. `knowledge`, `clients`: what was made of the files that they name; `live`: what was learnt until now. The
    /// error names the field and the mend.
    pub fn new(settings: EngineSettings, knowledge: Arc<Knowledge>, clients: Clients, live: Arc<Live>) -> Result<Self, String> {
        let router = Router::new(&settings.routes)?;
        let paces = Paces::new(&settings.pace, settings.retry.mode == RetryMode::Adaptive)?;
        let warnings = rules::check(&settings, &knowledge)?;
        let default_identity = settings.default_identity.as_str().into();
        let mut warnings = warnings;
        if settings.rules.unknown == Unknown::Report {
            warnings.push("rules.unknown is \"report\": rules are no boundary until it is \"closed\"".into());
        }
        let labels = Labels::new(&settings);
        Ok(Self { settings, router, knowledge, clients, paces, live, default_identity, warnings, labels })
    }

    /// True if this is a destination of ours, as long as it is HTTP that goes there.
    pub fn intercepts(&self, host: &str, port: u16) -> bool {
        let found = recognise(&self.knowledge, host, None);
        // What takes a bearer token, Signature Version 2 or something else is let through as it is.
        self.router.intercepts(&self.place(host, port, found)).unwrap_or_else(|| found.is_some_and(|found| found.variant.may_be_signed()))
    }
}

/// When something happened, and who can sign then.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// The wall clock, for signatures.
    pub unix_seconds: u64,
    /// A clock that never goes back, for waits.
    pub since_start: Duration,
    /// The snapshot of credentials.
    pub identities: &'a Identities,
}

/// What the driver tells.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "the head is moved in once and at once")]
pub enum Event<'a> {
    /// A request arrived.
    Head {
        /// Its head.
        head: RequestHead,
        /// What there is room for.
        load: Load,
    },
    /// `bytes` are new since the last event. `last`: the body is complete.
    Body {
        /// New bytes.
        bytes: &'a [u8],
        /// No more will come.
        last: bool,
        /// With `last`: what followed the body.
        trailers: Option<&'a HeaderMap>,
    },
    /// From here on the body is what was in the chunks.
    Unwrapped,
    /// The body is not read: `limits.held_bytes` are held already.
    NoRoom,
    /// The wait is over.
    Elapsed,
    /// The ticket was granted, or not in time.
    Paced {
        /// Its turn has come.
        granted: bool,
    },
    /// The identity was published anew, or the time for it ran out.
    Refreshed,
    /// The head of the answer.
    Response {
        /// HTTP status.
        status: u16,
        /// As received.
        headers: &'a HeaderMap,
    },
    /// The prefix that was asked for, or all there is.
    ResponseBody {
        /// The first bytes of the body.
        prefix: &'a [u8],
    },
    /// The attempt failed before an answer's head.
    Failed(Failure),
    /// Nothing was sent: the audit log did not take the line that comes before the call.
    Unlogged,
}

impl Event<'_> {
    /// A request arrived, and there is room for it.
    pub fn arrived(head: RequestHead) -> Self {
        Self::Head { head, load: Load::default() }
    }
}

/// What there is room for when a request arrives. A request that finds none is refused before it costs a token or a signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// `limits.in_flight` is exceeded.
    pub overloaded: bool,
    /// The audit log cannot take the line of another call, and must.
    pub audit_blocked: bool,
}

/// How an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No address, or no connection, or TLS not verified: nothing was sent.
    Connect(String),
    /// The address is one that clients must not reach.
    Forbidden(String),
    /// TLS could not be verified; a repeat does not help.
    Tls(String),
    /// The connection came back to this process.
    Loop,
    /// The connection broke after bytes were sent.
    Broken(String),
    /// No answer in time.
    HeadTimeout,
    /// The request's body did not come to its end: the client's doing.
    Body(String),
    /// Sigward itself: no disk for the spool, and the like.
    Internal(String),
}

/// Where the driver keeps what it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// In memory.
    Memory,
    /// In an unlinked temporary file.
    Spool,
}

/// Where the body of an attempt comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyPlan {
    /// There is none.
    Empty,
    /// What was read, from memory or the spool; can be sent again.
    Kept,
    /// What was read, then the rest as it arrives; cannot be sent again.
    Stream,
}

/// One attempt, ready to send.
#[derive(Debug)]
pub struct Outgoing {
    /// The method.
    pub method: Method,
    /// Origin-form.
    pub path: String,
    /// All of them, Host included; no framing but content-length.
    pub headers: HeaderMap,
    /// Where to.
    pub upstream: Arc<Upstream>,
    /// The body.
    pub body: BodyPlan,
    /// Sent in place of what was read.
    pub edited: Option<Bytes>,
    /// What the body is wrapped in on its way out.
    pub wrap: Option<Wrap>,
    /// The trailers of a body that streams as it came: only these go on.
    pub trailers: Vec<HeaderName>,
    /// The protocol the client wants to change to, for `Upgrade`.
    pub upgrade: Option<HeaderValue>,
}

/// What the driver does next.
#[derive(Debug)]
pub enum Step {
    /// The body comes in chunks (`aws-chunked`): take it out of them from here on; tell `Unwrapped`.
    Unwrap {
        /// Its length then, if the client told: another length is the client's error.
        length: Option<u64>,
        /// Takes it out, and checks the chunks' signatures if they are a known client's.
        decoder: Box<Decoder>,
    },
    /// Read the body on. `Memory`: one `Body` event when it is complete or `limit` is passed. `Spool`: a `Body` event for each piece.
    Read {
        /// Bytes.
        limit: u64,
        /// Where to.
        keep: Keep,
    },
    /// Tell `Elapsed` at this time of the clock that never goes back.
    Wait {
        /// Since the start.
        until: Duration,
    },
    /// Wait for the ticket, at most until this time of the clock that never goes back; tell `Paced`.
    Pace {
        /// The place in the line.
        ticket: Ticket,
        /// Since the start.
        until: Duration,
    },
    /// Ask for this identity's credentials; tell `Refreshed`.
    Refresh {
        /// Its name.
        identity: Arc<str>,
        /// AWS says that those of this version have expired: another version is needed. `None`: any that are usable.
        after: Option<u64>,
    },
    /// Send this; tell `Response` or `Failed`, or `Unlogged` where it must not go out.
    Send(Box<Outgoing>),
    /// Read so much of the answer; tell `ResponseBody`.
    ReadCode {
        /// Bytes.
        limit: usize,
    },
    /// The client gets this answer.
    Reply(Box<Response<Bytes>>),
    /// The client gets the upstream's answer.
    Deliver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Unwrapping,
    /// Reading, because no rule can be chosen before.
    Deciding,
    Reading(Keep),
    AwaitingCredentials,
    Pacing,
    Sending,
    ReadingCode {
        status: u16,
    },
    Waiting,
    Done,
}

/// What is to be signed with, settled by routing.
#[derive(Debug)]
struct Signing {
    service: Arc<str>,
    region: Arc<str>,
    identity: Arc<str>,
    style: Style,
    options: Options,
    in_query: bool,
    /// Headers that the route leaves unsigned.
    unsigned: Arc<[HeaderName]>,
}

/// What signing makes, beside headers: the path to send, if the signature is in the query; what the body is wrapped in; how it was done.
struct Signature {
    path: Option<String>,
    wrap: Option<Wrap>,
    steps: Option<Box<Steps>>,
}

/// One request's life.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own about the request")]
pub struct Exchange {
    config: Arc<Config>,
    state: State,
    shape: Shape,
    random: u64,
    /// Of this exchange alone.
    seed: u64,
    started: Duration,
    attempt_began: Duration,
    waited: Duration,
    load: Load,
    head: Option<RequestHead>,
    upgrade: Option<HeaderValue>,
    /// Whose issued key signed it, and what checks the chunks that go with it.
    claimed: Option<Box<Claimed>>,
    decoder: Option<Box<Decoder>>,
    signing: Option<Signing>,
    /// What the request is, as it goes out.
    call: Option<Call>,
    /// How it was read.
    terms: Option<ReadingTerms>,
    upstream: Option<Arc<Upstream>>,
    payload: PayloadMode,
    /// Trailers that the client announced.
    announced: Vec<HeaderName>,
    form: Form,
    /// Of all of it, once it is known.
    digest: Option<[u8; 32]>,
    hasher: Option<Box<Sha256>>,
    read: u64,
    body: BodyPlan,
    /// What followed a body that was unwrapped and read whole.
    trailers: HeaderMap,
    unwrapped: bool,
    /// Seconds that the last answer's `Date` was ahead of our clock.
    ahead: Option<i64>,
    /// Expired credentials and wrong clocks are mended once each.
    refreshed: bool,
    corrected: bool,
    redirected: bool,
    /// The head of the answer whose body is read.
    answered: HeaderMap,
    /// The version of the identity that signed last.
    signed_with: u64,
    /// When all must be over, if the client says.
    own_deadline: Option<Duration>,
    endpoint: Option<Arc<Endpoint>>,
    under_way: Option<UnderWay>,
    /// The bucket that this attempt has drawn from, or waits for.
    paced: Option<Paced>,
    admitted: bool,
    waits_from: Duration,
    /// What the last repeat cost.
    cost: i32,
    /// What AWS asked to wait.
    asked_for: Option<Duration>,
    /// It bears an idempotency token.
    token_there: bool,
    body_checked: bool,
    timed_out: bool,
    /// A client's signature must cover the body, and does not.
    must_be_empty: bool,
    edited: Option<Bytes>,
    shows_head: bool,
    /// What the upstream is told of the trace.
    onward: Option<Onward>,
    /// What this process is called on the way.
    hop: Option<Arc<Hop>>,
    record: Record,
}

/// W3C trace context for the upstream.
#[derive(Clone, Debug)]
pub struct Onward {
    /// The `traceparent`.
    pub parent: HeaderValue,
    /// The client's `tracestate` belongs to it.
    pub keeps_state: bool,
}

impl Exchange {
    /// `seed`: any number, for jitter; a new one for each exchange.
    pub fn new(config: Arc<Config>, seed: u64) -> Self {
        Self {
            config,
            state: State::New,
            shape: Shape::Plain,
            random: seed,
            seed,
            started: Duration::ZERO,
            attempt_began: Duration::ZERO,
            waited: Duration::ZERO,
            load: Load::default(),
            head: None,
            upgrade: None,
            claimed: None,
            decoder: None,
            signing: None,
            call: None,
            terms: None,
            upstream: None,
            payload: PayloadMode::Auto,
            announced: Vec::new(),
            form: Form::Hash,
            digest: None,
            hasher: None,
            read: 0,
            body: BodyPlan::Empty,
            trailers: HeaderMap::new(),
            unwrapped: false,
            ahead: None,
            refreshed: false,
            corrected: false,
            redirected: false,
            answered: HeaderMap::new(),
            signed_with: 0,
            own_deadline: None,
            endpoint: None,
            under_way: None,
            paced: None,
            admitted: false,
            waits_from: Duration::ZERO,
            cost: 0,
            asked_for: None,
            token_there: false,
            body_checked: false,
            timed_out: false,
            must_be_empty: false,
            edited: None,
            shows_head: false,
            onward: None,
            hop: None,
            record: Record::default(),
        }
    }

    /// The record is to hold the head of the last attempt, redacted.
    #[must_use]
    pub fn showing_head(mut self) -> Self {
        self.shows_head = true;
        self
    }

    /// What is signed for is to bear this trace context.
    #[must_use]
    pub fn tracing(mut self, onward: Onward) -> Self {
        self.onward = Some(onward);
        self
    }

    /// The upstream is told by whom the request came (`via` in the settings), and what has come by here before is refused.
    #[must_use]
    pub fn through(mut self, hop: &Arc<Hop>) -> Self {
        self.hop = self.config.settings.via.then(|| Arc::clone(hop));
        self
    }

    /// The head of the answer, as it is delivered: a reverse listener's client comes back to the listener, where the upstream names itself.
    pub fn localize(&self, headers: &mut HeaderMap) {
        if let (Some(head), Some(upstream)) = (&self.head, &self.upstream)
            && head.entry == Entry::Reverse
        {
            location::to_listener(headers, &upstream.target);
        }
    }

    /// What there is to tell so far.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The client has gone: what is under way ends here, and is told as far as it came.
    pub fn give_up(&mut self, since_start: Duration) -> Record {
        match self.state {
            State::Sending => self.tell("client-gone".into(), since_start),
            State::ReadingCode { status } => self.tell(code(status), since_start),
            State::Pacing => self.waited_for(Reason::Pace, since_start),
            State::AwaitingCredentials => self.waited_for(Reason::Credentials, since_start),
            _ => {}
        }
        self.state = State::Done;
        self.take_record()
    }

    /// Takes the record out, when the exchange is over.
    pub fn take_record(&mut self) -> Record {
        std::mem::take(&mut self.record)
    }

    /// The settings that this exchange began with.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// When the whole exchange must have its answer, on the clock that never goes back.
    pub fn deadline(&self) -> Option<Duration> {
        let total = self.config.settings.timeouts.total.map(|total| self.started + total);
        [total, self.own_deadline].into_iter().flatten().min()
    }

    /// One event, one step.
    pub fn on(&mut self, event: Event<'_>, at: &Moment<'_>) -> Step {
        match (self.state, event) {
            (State::New, Event::Head { head, load }) => {
                self.load = load;
                self.begin(head, at)
            }
            (State::Unwrapping, Event::Unwrapped) => self.read_or_send(at),
            (State::Reading(keep), Event::Body { bytes, last, trailers }) => {
                if let Some(trailers) = trailers.filter(|_| self.unwrapped)
                    && let Err(refusal) = self.take_trailers(trailers)
                {
                    return self.refuse(&refusal);
                }
                self.body(keep, bytes, last, at)
            }
            (State::Deciding, Event::Body { bytes, last, .. }) => match self.decide(bytes, last, at) {
                Ok(()) => self.body(Keep::Memory, bytes, last, at),
                Err(refusal) => self.refuse(&refusal),
            },
            (State::Deciding | State::Reading(_), Event::NoRoom) => self.overloaded("limits.held_bytes of bodies are held in memory"),
            (State::AwaitingCredentials, Event::Refreshed) => {
                self.waited_for(Reason::Credentials, at.since_start);
                self.attempt(at, false)
            }
            (State::Sending, Event::Response { status, headers }) => self.response(status, headers, at),
            (State::ReadingCode { status }, Event::ResponseBody { prefix }) => {
                let headers = std::mem::take(&mut self.answered);
                let answer = self.answer(status, &headers);
                let (verdict, is_aws) = (judge::judge_body(&answer, prefix), answer.is_aws());
                match verdict {
                    Verdict::Retry(class) => {
                        let region = judge::region_of(&headers, prefix).map(str::to_owned);
                        self.repeat(class, is_aws, status, region.as_deref(), at)
                    }
                    _ => self.deliver(status, at),
                }
            }
            (State::Pacing, Event::Paced { granted }) => {
                self.waited_for(Reason::Pace, at.since_start);
                if granted {
                    return self.attempt(at, true);
                }
                let rule = self.paced.take().map(|paced| paced.rule);
                self.too_fast(rule.as_deref().unwrap_or_default(), Duration::from_secs(1))
            }
            (State::Waiting, Event::Elapsed) => self.attempt(at, true),
            (State::Sending | State::Deciding | State::Reading(_), Event::Failed(failure)) => self.failed(&failure, at),
            (State::Sending, Event::Unlogged) => {
                self.under_way = None;
                self.audit_blocked()
            }
            (state, event) => {
                let mut event = format!("{event:?}");
                event.truncate(event.find([' ', '(', '{']).unwrap_or(event.len()));
                self.refuse(&Refusal::sigward(
                    500,
                    "out-of-order",
                    format!("the driver told {event} in {state:?}."),
                    "This is a bug in sigward.",
                ))
            }
        }
    }

    fn begin(&mut self, mut head: RequestHead, at: &Moment<'_>) -> Step {
        self.started = at.since_start;
        let (config, target) = (Arc::clone(&self.config), head.target.clone());
        let hinted = sign::scope_of(&head.headers);
        let found = recognise(&config.knowledge, &target.host, hinted);
        self.shape = shape_of(&config, &head, found.map(|found| found.signing_name));
        // As it was signed, before hop-by-hop headers go.
        let asked = (!config.clients.is_off()).then(|| Asked::of(&head));
        let passed = self.hop.as_ref().map_or(Ok(()), |hop| hop.check(&head.headers));
        let admitted = passed.and_then(|()| admit::admit(&mut head, &self.config.settings.limits));
        let head = self.head.insert(head);
        match admitted {
            Ok(upgrade) => self.upgrade = upgrade,
            Err(refusal) => return self.refuse(&refusal),
        }
        match deadline_of(&mut head.headers) {
            Ok(seconds) => self.own_deadline = seconds.map(|seconds| at.since_start + seconds),
            Err(refusal) => return self.refuse(&refusal),
        }
        if let Some(asked) = asked {
            match config.clients.claimed(head, asked) {
                Ok(claimed) => self.claimed = claimed,
                Err(refusal) => return self.refuse(&refusal),
            }
        }
        if let Some(claimed) = &mut self.claimed {
            self.record.client = Some(Arc::clone(&claimed.client.name));
            if let Some(name) = claimed.lost_header(&head.headers) {
                let refusal = client::header_lost(&claimed.client.name, name);
                return self.refuse(&refusal);
            }
            match claimed.check_head(head.method.as_str(), head.body, at.unix_seconds) {
                Ok(verified) => self.decoder = verified.and_then(|verified| verified.decoder()).map(Box::new),
                Err(refusal) => return self.refuse(&refusal),
            }
            if config.clients.must_cover_body() {
                match claimed.uncovered(head.body) {
                    BodySize::Known(0) => {}
                    BodySize::Known(_) => {
                        let refusal = claimed.unsigned_payload();
                        return self.refuse(&refusal);
                    }
                    BodySize::Unknown => self.must_be_empty = true,
                }
            }
            if claimed.in_query() {
                head.path = client::without_signature(&head.path);
            }
        }
        if let (BodySize::Known(length), Some(max)) = (head.body, self.config.settings.body.max)
            && length > max
        {
            return self.too_large(max);
        }
        let body = unread_body(head);
        let plus_unknown = body == Body::Pending && self.claimed.as_ref().is_some_and(|claimed| claimed.body_tells_plus());
        let routed = if plus_unknown { Err(None) } else { self.route(&config, &target, found, body) };
        match routed {
            Ok(()) => self.plan_body(at),
            Err(None) if self.load.overloaded => self.overloaded(IN_FLIGHT),
            Err(None) => {
                self.body = BodyPlan::Kept;
                self.state = State::Deciding;
                Step::Read { limit: self.config.settings.body.hold, keep: Keep::Memory }
            }
            Err(Some(refusal)) => self.refuse(&refusal),
        }
    }

    /// recognise and route: settles the call, the disposition, the destination and the scope. `Err(None)`: the body must be read first.
    fn route(&mut self, config: &Config, target: &Target, found: Option<Recognised<'_>>, body: Body<'_>) -> Result<(), Option<Refusal>> {
        let Some(head) = self.head.as_ref() else { return Ok(()) };
        let client = self.claimed.as_ref().map(|claimed| Arc::clone(&claimed.client));
        let asked = RouteQuery {
            knowledge: &config.knowledge,
            host: &target.host,
            port: target.port,
            is_aws: found.is_some(),
            client: client.as_ref().map(|client| &*client.name),
            unknown: config.settings.rules.unknown,
        };
        let websocket = self.upgrade.as_ref().is_some_and(sign::is_websocket);
        let signed_plus = self.claimed.as_ref().and_then(|claimed| claimed.query_plus());
        let mut reading = Reading { config, head, target, found, body, websocket, signed_plus, calls: SmallVec::new(), usual: None };
        let chosen = config.router.find(&asked, &mut reading);
        let read = chosen.and_then(|choice| reading.take(choice.route).map(|(call, terms)| (choice, call, terms)).map_err(Undecided::from));
        let (choice, call, terms) = match read {
            Ok(read) => read,
            Err(undecided) => return Err(self.undecided(config, found, undecided)),
        };
        // Only its body may tell who authenticates it.
        let signs = || choice.route.is_none_or(|route| route.action == Action::Sign);
        if call.authentication == Authentication::InBody && signs() {
            return Err(None);
        }
        // What is denied is described as fully as what is signed, though only its body may say what it is for.
        let denied = choice.route.is_some_and(|route| route.action == Action::Deny);
        let names_resource = || call.service.is_some() && call.resource(None).is_none() && resource::is_in_body(&head.headers);
        if denied && body == Body::Pending && !self.load.overloaded && names_resource() {
            return Err(None);
        }
        // Rules that take a raw `+` for another thing than the one that applies have not judged what goes out. What passes goes out as it
        // is spelled, so there both readings count.
        if !denied
            && signed_plus.is_none()
            && config.router.reads_plus
            && head.path.split_once('?').is_some_and(|(_, query)| query.contains('+'))
        {
            let both = [QueryPlus::Blank, QueryPlus::Plus];
            let passes = matches!(call.authentication, Authentication::Client(_)) || !signs();
            for plus in both.into_iter().filter(|plus| passes || *plus == terms.query_plus) {
                let signed_plus = Some(plus);
                let mut again = Reading { config, head, target, found, body, websocket, signed_plus, calls: SmallVec::new(), usual: None };
                let other = match config.router.find(&asked, &mut again) {
                    Ok(other) => other.route,
                    Err(undecided) => return Err(self.undecided(config, found, undecided)),
                };
                if name_of(other) != name_of(choice.route) {
                    let one = format!("route {} applies where a + in the query is what that route says", name_of(choice.route));
                    let other = format!(
                        "route {} applies where it is a {}",
                        name_of(other),
                        if plus == QueryPlus::Plus { "plus" } else { "blank" }
                    );
                    return Err(Some(self.two_readings(Ambiguity { kind: "query", one, other })));
                }
            }
        }
        // A rule that sends a request to another host has it read there: the rules before it must agree.
        let moves = choice.route.is_some_and(Route::rewrites) && *terms.host != *target.host;
        let there = if moves { config.router.find(&asked, &mut Fixed(&call)).map(|there| there.route) } else { Ok(choice.route) };
        let there = match there {
            Ok(there) => there,
            Err(undecided) => return Err(self.undecided(config, found, undecided)),
        };
        let route = choice.route;
        self.describe(config, found, route, &call, client.as_deref());
        if let (true, None, Body::Whole(bytes), Some(head)) = (denied, &self.record.resource, body, &self.head) {
            self.record.resource = resource::in_body(&head.headers, bytes).unwrap_or_default();
        }
        self.call = Some(call);
        self.terms = Some(terms);
        self.record.would_refuse.extend(choice.would_refuse.iter().cloned());
        if name_of(there) != name_of(route) {
            let one = format!("route {} applies to the host that it asks for", name_of(route));
            let other = format!("route {} applies where route {} sends it", name_of(there), name_of(route));
            return Err(Some(self.two_readings(Ambiguity { kind: "host", one, other })));
        }
        self.dispose(config, target, found, &choice, client.as_deref(), body)
    }

    /// No rule can be chosen. `None`: before the body is read.
    fn undecided(&mut self, config: &Config, found: Option<Recognised<'_>>, undecided: Undecided) -> Option<Refusal> {
        let Undecided::Ambiguous(ambiguity) = undecided else { return None };
        // What is known all the same is for the logs.
        if let Some(found) = found {
            self.record.service = Some(found.signing_name.into());
            self.record.region = Some(found.region.into());
            let own = self.claimed.as_ref().and_then(|claimed| claimed.client.identity.clone());
            self.record.identity = Some(own.unwrap_or_else(|| Arc::clone(&config.default_identity)));
        }
        Some(self.two_readings(ambiguity))
    }

    /// The request can be read in two ways.
    fn two_readings(&mut self, ambiguity: Ambiguity) -> Refusal {
        self.record.ambiguous = Some(ambiguity.kind);
        Refusal::ambiguous(ambiguity.kind, ambiguity.one, ambiguity.other)
    }

    /// What there is to tell of a call, whatever becomes of it.
    fn describe(
        &mut self,
        config: &Config,
        found: Option<Recognised<'_>>,
        route: Option<&Route>,
        call: &Call,
        client: Option<&client::Client>,
    ) {
        let record = &mut self.record;
        record.route = route.map(|route| Arc::clone(&route.name));
        record.service.clone_from(&call.service);
        record.operation = call.known_operation().cloned();
        if call.service.is_some() {
            let region = route.and_then(|route| route.region.clone()).or_else(|| found.map(|found| found.region.into()));
            record.region = Some(region.unwrap_or_else(|| config.settings.default_region.as_str().into()));
            let identity = route.and_then(|route| route.identity.clone()).or_else(|| client.and_then(|client| client.identity.clone()));
            record.identity = Some(identity.unwrap_or_else(|| Arc::clone(&config.default_identity)));
        }
        if config.settings.audit_log != LogTo::Off || route.is_some_and(|route| route.action == Action::Deny) {
            record.resource = call.resource(found.map(|found| found.partition));
        }
    }

    /// What becomes of a request that has been read.
    fn dispose(
        &mut self,
        config: &Config,
        target: &Target,
        found: Option<Recognised<'_>>,
        choice: &Choice<'_>,
        client: Option<&client::Client>,
        body: Body<'_>,
    ) -> Result<(), Option<Refusal>> {
        let route = choice.route;
        let Some(head) = self.head.as_mut() else { return Ok(()) };
        let mut upstream = match route {
            Some(route) => route.upstream(target),
            None => Upstream { target: target.clone(), connect: None, named: false },
        };
        if !upstream.named && is_forbidden_host(&target.host) {
            return Err(Some(forbidden(&target.host)));
        }
        let own = match self.call.as_ref().map(|call| call.authentication) {
            Some(Authentication::Client(own)) => Some(own),
            _ => None,
        };
        // A rule that names neither the host nor a service does not say that a host takes a signature.
        let says_so = route.is_some_and(|route| route.service.is_some() || route.names_host());
        let unsigned = found.filter(|found| !found.variant.signed() && !says_so);
        let action = match route {
            Some(route) if route.action != Action::Sign || unsigned.is_none() => route.action,
            _ if unsigned.is_some_and(|found| found.variant == Variant::Unknown) => {
                let passes = head.entry != Entry::Reverse;
                if config.live.reports_unknown(&target.host) {
                    self.record.unknown_host = Some(UnknownHost { host: target.host.clone(), passes });
                }
                if !passes {
                    (self.record.service, self.record.region, self.record.identity) = (None, None, None);
                    return Err(Some(unknown_host(&target.host)));
                }
                Action::Pass
            }
            None if found.is_some_and(|found| found.variant.signed()) => Action::Sign,
            _ if found.is_some() || head.entry != Entry::Reverse => Action::Pass,
            _ => {
                return Err(Some(Refusal::client(
                    403,
                    "not-aws",
                    format!("{:?} is not a host of AWS's that is known to take SigV4, and no route names it.", admit::shown(&target.host)),
                    "Send the Host header of an AWS endpoint, give the listener an `upstream`, or add a [[route]] with `host` and `service`.",
                )));
            }
        };
        let by_route = route.is_some_and(|route| route.action == Action::Pass);
        let mode = route.and_then(|route| route.authorization).unwrap_or(if by_route || found.is_none() && route.is_none() {
            // What passes anyway is not ours to refuse, unless a rule says so.
            OwnAuthorization::Keep
        } else {
            config.settings.authorization
        });
        if own.is_some() && action != Action::Deny && mode == OwnAuthorization::Refuse {
            return Err(Some(own_authorization()));
        }
        // A token is as secret as a session token. S3's websites have no TLS; a route's `upstream` says itself how it is.
        let has_tls = found.is_some_and(|found| action == Action::Sign || found.variant != Variant::None);
        let is_secret = action == Action::Sign || (action == Action::Pass && own.is_some());
        if is_secret && has_tls && !route.is_some_and(Route::rewrites) {
            upstream.target = over_tls(target).ok_or_else(|| Some(plain_text_port(target)))?;
        }
        match action {
            Action::Deny => {
                self.record.disposition = Disposition::Deny;
                return Err(Some(Refusal::denied(&self.record, &target.host, choice, self.call.as_ref())));
            }
            Action::Pass => self.passes(target, if by_route { Passed::Route } else { Passed::Host }),
            Action::Sign
                if found.is_some_and(|found| found.owner_reads)
                    && config.settings.customer_endpoints == CustomerEndpoints::Refuse
                    && !route.is_some_and(Route::names_host) =>
            {
                return Err(Some(customer_endpoint(&target.host)));
            }
            Action::Sign if own.is_some_and(|own| !own.is_in_header() || mode != OwnAuthorization::Replace) => {
                self.passes(target, Passed::OwnAuthorization);
            }
            Action::Sign => {
                let Some(service) = self.call.as_ref().and_then(|call| call.service.clone()) else {
                    return Err(Some(Refusal::sigward(
                        502,
                        "unknown-service",
                        format!("{:?} does not say which AWS service it is.", admit::shown(&target.host)),
                        format!("Set `service` (the signing name) in route {}.", route.map_or("", |route| &route.name)),
                    )));
                };
                self.settle_signing(config, found, route, client, service, body)?;
            }
        }
        if let Some(head) = self.head.as_mut() {
            sign::address(&mut head.headers, &upstream.target);
            if let Some(signing) = &self.signing {
                self.shape = shape_of(config, head, Some(&signing.service));
            }
        }
        // A bucket that S3 has said to be elsewhere is asked for there at once.
        let settled = route.is_some_and(|route| route.region.is_some() || route.rewrites());
        let learnt = if settled { None } else { self.known_bucket().and_then(|name| config.live.region_of(&name)) };
        self.settle(upstream, learnt.as_deref()).map_err(Some)
    }

    /// It goes on with nobody's keys, and as the client has spelled it: its own signature may be over that. To another host, where no
    /// such signature would hold, as it was read.
    fn passes(&mut self, target: &Target, why: Passed) {
        self.record.disposition = Disposition::Pass;
        self.record.passed = Some(why);
        if let (Some(head), Some(call), Some(terms)) = (self.head.as_mut(), &self.call, &self.terms)
            && terms.host != target.host
        {
            head.path.clone_from(&call.target);
        }
        self.record.identity = None;
        if why != Passed::OwnAuthorization {
            (self.record.service, self.record.region) = (None, None);
        }
    }

    /// What it asks for takes no signature.
    fn is_public(&self) -> bool {
        self.call.as_ref().is_some_and(|call| call.authentication == Authentication::Nobody)
    }

    /// With whose keys, for what scope and how.
    fn settle_signing(
        &mut self,
        config: &Config,
        found: Option<Recognised<'_>>,
        route: Option<&Route>,
        client: Option<&client::Client>,
        service: Arc<str>,
        body: Body<'_>,
    ) -> Result<(), Option<Refusal>> {
        let (Some(head), Some(call)) = (self.head.as_mut(), self.call.as_ref()) else { return Ok(()) };
        let mut form = route.map(|route| route.form).unwrap_or_default();
        // A host that serves every region is signed for with a set of regions, which only SigV4a has.
        if found.is_some_and(|found| found.variant == Variant::V4a) && route.is_none_or(|route| route.region.is_none()) {
            form.variant = SignatureVariant::V4a;
        }
        let (options, in_query) = sign::how(&service, form, head, self.upgrade.as_ref());
        self.payload = sign::payload_of(&service, form.payload);
        let signing = self.signing.insert(Signing {
            options,
            in_query,
            unsigned: route.map(|route| Arc::clone(&route.unsigned)).unwrap_or_default(),
            style: call.style,
            region: self.record.region.clone().unwrap_or_else(|| config.settings.default_region.as_str().into()),
            identity: self.record.identity.clone().unwrap_or_else(|| Arc::clone(&config.default_identity)),
            service,
        });
        self.record.service = Some(Arc::clone(&signing.service));
        if let (Some(claimed), Some(client)) = (&self.claimed, client)
            && claimed.as_for_s3()
            && signing.style != Style::S3
        {
            return Err(Some(client::wrong_service(&client.name, &signing.service)));
        }
        self.record.disposition = Disposition::Sign;
        let edits = route.map(|route| &route.edits).filter(|edits| !edits.is_empty());
        if let Some(edits) = edits {
            edits.apply(&mut head.headers);
        }
        head.path.clone_from(&call.target);
        sign::remove_client_signature(&mut head.headers);
        // Here and no sooner: a client's own signature may be over what it replaces.
        if let Some(onward) = self.onward.take() {
            trace(&mut head.headers, onward);
        }
        if edits.is_some() {
            self.read_again(body, "header").map_err(Some)?;
        }
        Ok(())
    }

    /// Something has changed in the request: it must still be the call that was decided on. `kind`: what.
    fn read_again(&mut self, body: Body<'_>, kind: &'static str) -> Result<(), Refusal> {
        let again = self.read(body);
        let (again, Some(before)) = (again, &self.call) else { return Ok(()) };
        let changed = match again {
            Ok(None) => return Ok(()),
            Ok(Some(again)) if again.is_same(before) => return Ok(()),
            Ok(Some(_)) => {
                let (one, other) = ("the call that the rules have seen".to_owned(), "another one after a route's changes".to_owned());
                Ambiguity { kind, one, other }
            }
            Err(ambiguity) => ambiguity,
        };
        Err(self.two_readings(changed))
    }

    /// The request as it stands now, read on the terms on which it was read.
    fn read(&self, body: Body<'_>) -> Result<Option<Call>, Ambiguity> {
        let (Some(head), Some(terms), Some(call)) = (&self.head, &self.terms, &self.call) else { return Ok(None) };
        let source = Source {
            knowledge: &self.config.knowledge,
            host: &terms.host,
            service: call.service.as_ref(),
            style: call.style,
            query_plus: terms.query_plus,
            of_customer: terms.of_customer,
            may_hold_bucket: terms.may_hold_bucket,
            method: &head.method,
            target: &head.path,
            headers: &head.headers,
            body,
        };
        Call::read(&source).map(Some)
    }

    /// The S3 bucket that the request is for.
    fn bucket(&self) -> Option<&str> {
        let (call, signing) = (self.call.as_ref()?, self.signing.as_ref()?);
        (*signing.service == *"s3").then(|| call.bucket()).flatten()
    }

    /// What a bucket's region is kept by: partition and name. `None`: the request does not go to AWS's S3, whose word alone counts.
    fn known_bucket(&self) -> Option<String> {
        let there = recognise(&self.config.knowledge, &self.terms.as_ref()?.host, None)?;
        Some(format!("{}/{}", there.partition, self.bucket()?))
    }

    /// Where it goes; `region`: not where the host says, but where the bucket is.
    fn settle(&mut self, mut upstream: Upstream, region: Option<&str>) -> Result<(), Refusal> {
        if let Some(region) = region
            && let Some((host, region)) = self.host_in(&upstream.target.host, region)
        {
            if let Some(host) = host {
                self.check_moved(&host)?;
                if let Some(terms) = self.terms.as_mut() {
                    terms.host = Arc::clone(&host);
                }
                upstream.target.host = host;
            }
            if let Some(signing) = self.signing.as_mut() {
                signing.region = Arc::clone(&region);
            }
            self.record.region = Some(region);
            if let Some(head) = self.head.as_mut() {
                sign::address(&mut head.headers, &upstream.target);
            }
        }
        self.endpoint = Some(self.config.live.endpoint(&upstream.target.authority()));
        let upstream = Arc::new(upstream);
        self.record.upstream = Some(Arc::clone(&upstream));
        self.upstream = Some(upstream);
        Ok(())
    }

    /// The host (`None`: the same) that serves a bucket in another region, if that is one of AWS's for the same bucket.
    fn host_in(&self, host: &str, region: &str) -> Option<(Option<Arc<str>>, Arc<str>)> {
        let signing = self.signing.as_ref().filter(|signing| *signing.region != *region)?;
        let Some(moved) = recognise::s3_host_in(host, &signing.region, region) else { return Some((None, region.into())) };
        let there = recognise(&self.config.knowledge, &moved, None)?;
        let same =
            there.signing_name == "s3" && there.region == region && recognise::bucket_in_host(&moved) == recognise::bucket_in_host(host);
        same.then(|| (Some(moved.as_str().into()), region.into()))
    }

    /// Rules that deny a host deny it also where S3 sends a request there.
    fn check_moved(&mut self, host: &Arc<str>) -> Result<(), Refusal> {
        let (config, Some(call)) = (Arc::clone(&self.config), &self.call) else { return Ok(()) };
        let client = self.claimed.as_ref().map(|claimed| Arc::clone(&claimed.client.name));
        let unknown = config.settings.rules.unknown;
        let asked = RouteQuery { knowledge: &config.knowledge, host, port: 443, is_aws: true, client: client.as_deref(), unknown };
        match config.router.find(&asked, &mut Fixed(call)) {
            Ok(choice) if choice.route.is_some_and(|route| route.action == Action::Deny) => {
                self.record.route = choice.route.map(|route| Arc::clone(&route.name));
                self.record.disposition = Disposition::Deny;
                Err(Refusal::denied(&self.record, host, &choice, Some(call)))
            }
            Ok(choice) => {
                self.record.would_refuse.extend(choice.would_refuse);
                Ok(())
            }
            Err(Undecided::OnlyBodyTells) => Ok(()),
            Err(Undecided::Ambiguous(ambiguity)) => Err(self.two_readings(ambiguity)),
        }
    }

    /// What goes out, and whether what comes in is taken out of its chunks first.
    fn plan_body(&mut self, at: &Moment<'_>) -> Step {
        if self.load.overloaded {
            return self.overloaded(IN_FLIGHT);
        }
        // Of a form, only its body may tell that it takes no signature.
        if self.audit_forbids() && !self.call.as_ref().is_some_and(|call| call.needs_body) {
            return self.audit_blocked();
        }
        let (Some(head), Some(signing)) = (self.head.as_mut(), self.signing.as_ref()) else { return self.read_or_send(at) };
        let plan = body::plan(&Facts {
            headers: &head.headers,
            mode: self.payload,
            style: signing.style,
            over_tls: self.upstream.as_ref().is_some_and(|upstream| upstream.target.scheme == Scheme::Https),
            uploads: self.call.as_ref().is_some_and(Call::uploads),
            in_query: signing.in_query,
            size: head.body,
            hold: self.config.settings.body.hold,
        });
        self.form = plan.form;
        if !plan.unwrap {
            return self.read_or_send(at);
        }
        self.announced = body::announced(&head.headers);
        let length = body::decoded_length(&head.headers);
        body::unframed(&mut head.headers);
        head.body = length.map_or(BodySize::Unknown, BodySize::Known);
        self.unwrapped = true;
        if let (Some(length), Some(max)) = (length, self.config.settings.body.max)
            && length > max
        {
            return self.too_large(max);
        }
        self.state = State::Unwrapping;
        Step::Unwrap { length, decoder: self.decoder.take().unwrap_or_default() }
    }

    /// Bodies: held up to `body.hold`; beyond that streamed where nothing of all of it must be known, else spooled.
    fn read_or_send(&mut self, at: &Moment<'_>) -> Step {
        let Some(head) = self.head.as_ref() else { return Step::Deliver };
        let hold = self.config.settings.body.hold;
        match head.body {
            // In chunks, an empty body has an end that must be read.
            BodySize::Known(0) if !self.unwrapped => {
                self.body = BodyPlan::Empty;
                self.digest = Some(Sha256::digest(b"").into());
                self.attempt(at, true)
            }
            _ if self.form == Form::Events && self.must_be_empty => self.unsigned_payload(),
            _ if self.form == Form::Events => {
                self.body = BodyPlan::Stream;
                self.attempt(at, true)
            }
            BodySize::Known(length) if length > hold => {
                if self.can_stream() {
                    self.body = BodyPlan::Stream;
                    return self.attempt(at, true);
                }
                self.spool()
            }
            _ => {
                self.body = BodyPlan::Kept;
                self.state = State::Reading(Keep::Memory);
                Step::Read { limit: hold, keep: Keep::Memory }
            }
        }
    }

    /// True if nothing of the whole body must be known, or it is known already.
    fn can_stream(&self) -> bool {
        if self.digest.is_none() && self.signed_over_body() {
            return false;
        }
        let known = self.head.as_ref().is_some_and(|head| head.body != BodySize::Unknown);
        self.signing.is_none()
            || match &self.form {
                // S3 takes no body of unknown length; out of its chunks, only their end would tell.
                Form::Given(_) => known || !self.unwrapped,
                Form::Chunks(_) => known,
                Form::Events => true,
                Form::Hash => self.digest.is_some(),
            }
    }

    /// A client signed it, and the signature can be checked only with the whole body; or its hash of the body does not go on, so that
    /// nobody else compares them.
    fn signed_over_body(&self) -> bool {
        let goes_on = || self.signing.is_none() || matches!(&self.form, Form::Given(given) if body::is_hash(given));
        self.claimed.as_ref().is_some_and(|claimed| claimed.needs_body() || (claimed.tells_hash() && !goes_on()))
    }

    fn unsigned_payload(&mut self) -> Step {
        let refusal = self.claimed.as_ref().map_or_else(client::unsigned, |claimed| claimed.unsigned_payload());
        self.refuse(&refusal)
    }

    fn spool(&mut self) -> Step {
        self.body = BodyPlan::Kept;
        self.state = State::Reading(Keep::Spool);
        Step::Read { limit: self.config.settings.body.spool_max, keep: Keep::Spool }
    }

    fn body(&mut self, keep: Keep, bytes: &[u8], last: bool, at: &Moment<'_>) -> Step {
        self.read += bytes.len() as u64;
        let settings = &self.config.settings.body;
        let most = if keep == Keep::Spool { settings.spool_max } else { u64::MAX };
        let max = settings.max.unwrap_or(u64::MAX).min(most);
        if self.read > max {
            return self.too_large(max);
        }
        if self.must_be_empty && self.read > 0 {
            return self.unsigned_payload();
        }
        if last && keep == Keep::Memory {
            if let Err(refusal) = self.read_body(bytes).and_then(|()| self.find_resource(bytes)) {
                return self.refuse(&refusal);
            }
            let replaced = self.without_old_signature(bytes);
            if let Err(refusal) = self.add_token(replaced.as_deref().unwrap_or(bytes), at) {
                return self.refuse(&refusal);
            }
            self.edited = self.edited.take().or(replaced);
        }
        let edited = self.edited.clone();
        let bytes = edited.as_deref().unwrap_or(bytes);
        if edited.is_some() {
            self.read = bytes.len() as u64;
        }
        let hashing = (self.signing.is_some() && self.form == Form::Hash) || self.signed_over_body();
        if last && self.hasher.is_none() && hashing {
            self.digest = Some(Sha256::digest(bytes).into());
        } else if hashing {
            self.hasher.get_or_insert_default().update(bytes);
        }
        if !last {
            return match keep {
                Keep::Spool => Step::Read { limit: most, keep },
                Keep::Memory if self.can_stream() => {
                    self.body = BodyPlan::Stream;
                    self.attempt(at, true)
                }
                Keep::Memory => self.spool(),
            };
        }
        if let Some(hasher) = self.hasher.take() {
            self.digest = Some(hasher.finalize().into());
        }
        if let Some(head) = self.head.as_mut() {
            head.body = BodySize::Known(self.read);
        }
        self.attempt(at, true)
    }

    /// Of what follows a body that was in chunks, the checksums that were announced count.
    fn take_trailers(&mut self, trailers: &HeaderMap) -> Result<(), Refusal> {
        for name in &self.announced {
            let mut values = trailers.get_all(name).iter();
            if let Some(value) = values.next() {
                self.trailers.insert(name.clone(), value.clone());
            }
            if values.next().is_some() {
                return Err(Refusal::client(400, "body-failed", format!("the trailer {name} came twice."), "Send each trailer once."));
            }
        }
        Ok(())
    }

    /// For the audit log: what the body says that the call is for. It may say so once, whether a log asks or not.
    fn find_resource(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let (Some(head), true) = (self.head.as_ref(), self.call.as_ref().is_some_and(|call| call.service.is_some())) else { return Ok(()) };
        let wanted = self.config.settings.audit_log != LogTo::Off && self.record.resource.is_none();
        if !wanted && !resource::may_repeat(&head.headers, bytes) {
            return Ok(());
        }
        match resource::in_body(&head.headers, bytes) {
            Ok(resource) if wanted => self.record.resource = resource,
            Ok(_) => {}
            Err(ambiguity) => return Err(self.two_readings(ambiguity)),
        }
        Ok(())
    }

    /// Reads what the body says of the call: a form's action, the keys that are deleted.
    fn read_body(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if !self.call.as_ref().is_some_and(|call| call.needs_body) {
            return Ok(());
        }
        match self.read(Body::Whole(bytes)) {
            Ok(Some(call)) => {
                self.record.operation = call.known_operation().cloned();
                self.call = Some(call);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(ambiguity) => Err(self.two_readings(ambiguity)),
        }
    }

    /// A form whose parameters are a dummy's signature: ours takes their place.
    fn without_old_signature(&self, bytes: &[u8]) -> Option<Bytes> {
        let head = self.head.as_ref().filter(|_| self.signing.is_some() && self.form == Form::Hash && self.claimed.is_none())?;
        recognise::authentication::form_without_v2(&head.headers, bytes).map(Into::into)
    }

    /// Looks for the idempotency token, and adds one where there is none: then a repeat does no harm.
    fn add_token(&mut self, bytes: &[u8], at: &Moment<'_>) -> Result<(), Refusal> {
        let retry = &self.config.settings.retry;
        let (add, off) = (retry.tokens, retry.mode == RetryMode::Off);
        let (Some(operation), Some(head), true) = (&self.record.operation, &self.head, self.form == Form::Hash && self.signing.is_some())
        else {
            return Ok(());
        };
        let Some(name) = operation.token() else { return Ok(()) };
        let random = (u128::from(mix(self.random)) << 64) | u128::from(mix(self.random ^ 0x5851_f42d_4c95_7f2d));
        match token::ensure(&head.headers, bytes, name, || (add && !off).then(|| token::uuid(random))) {
            Token::There => self.token_there = true,
            Token::Unknown => {}
            Token::Added(body) => {
                // What the client signed is checked before it is changed.
                self.check_signed(Some(Sha256::digest(bytes).into()), at)?;
                self.token_there = true;
                self.read_again(Body::Whole(&body), "token")?;
                self.edited = Some(body);
            }
        }
        Ok(())
    }

    /// The client's signature, with the body, if there is one to check.
    fn check_signed(&mut self, digest: Option<[u8; 32]>, at: &Moment<'_>) -> Result<(), Refusal> {
        if let (Some(claimed), Some(head), false) = (&mut self.claimed, &self.head, self.body_checked) {
            claimed.check_body(head.method.as_str(), digest, at.unix_seconds)?;
            // The query that is signed is the one that rules have decided on.
            if let (Some(plus), Some(terms)) = (claimed.query_plus(), &self.terms)
                && plus != terms.query_plus
            {
                return Err(client::plus_unlike(&claimed.client.name));
            }
        }
        self.body_checked = true;
        Ok(())
    }

    /// Routes a request of which only the body tells what the rules ask. `last`: that is all of it.
    fn decide(&mut self, bytes: &[u8], last: bool, at: &Moment<'_>) -> Result<(), Refusal> {
        if last && self.claimed.as_ref().is_some_and(|claimed| claimed.body_tells_plus()) {
            self.check_signed(Some(Sha256::digest(bytes).into()), at)?;
        }
        let (config, Some(target)) = (Arc::clone(&self.config), self.head.as_ref().map(|head| head.target.clone())) else { return Ok(()) };
        let hinted = self
            .head
            .as_ref()
            .and_then(|head| sign::scope_of(&head.headers))
            .map(|hint| (hint.signing_name.to_owned(), hint.region.to_owned()));
        let hint = hinted.as_ref().map(|(signing_name, region)| Hint { signing_name, region });
        let found = recognise(&config.knowledge, &target.host, hint);
        let body = if last { Body::Whole(bytes) } else { Body::Unreadable };
        self.route(&config, &target, found, body).map_err(|refusal| refusal.unwrap_or_else(undecided_with_body))?;
        if let (Some(head), Some(signing)) = (&self.head, &self.signing) {
            let over_tls = self.upstream.as_ref().is_some_and(|upstream| upstream.target.scheme == Scheme::Https);
            let hold = self.config.settings.body.hold;
            let facts = Facts {
                headers: &head.headers,
                mode: self.payload,
                style: signing.style,
                over_tls,
                uploads: self.call.as_ref().is_some_and(Call::uploads),
                in_query: signing.in_query,
                size: head.body,
                hold,
            };
            let plan = body::plan(&facts);
            // What was read is in its chunks still, and none of their signatures is checked.
            if plan.unwrap {
                return Err(Refusal::client(
                    400,
                    "body-failed",
                    "the body is a form, which names the operation, but it comes in chunks (aws-chunked).",
                    "Send the form as it is.",
                ));
            }
            self.form = plan.form;
        }
        Ok(())
    }

    /// Signs and sends. `may_refresh`: ask for credentials if there are none.
    fn attempt(&mut self, at: &Moment<'_>, may_refresh: bool) -> Step {
        // Nothing that a client signed goes out before the signature is found to be right.
        if let Err(refusal) = self.check_signed(self.digest.filter(|_| !self.unwrapped), at) {
            return self.refuse(&refusal);
        }
        // Still here: nothing has checked the signatures of the body's chunks.
        if self.decoder.is_some() && self.signing.is_some() {
            return self.unsigned_payload();
        }
        if self.audit_forbids() {
            return self.audit_blocked();
        }
        if !self.admitted {
            if let Some(step) = self.may_go(at) {
                return step;
            }
            self.admitted = true;
        }
        let (Some(head), Some(upstream)) = (self.head.as_ref(), self.upstream.as_ref()) else { return Step::Deliver };
        let mut headers = head.headers.clone();
        // A client's signature does not cover trailers.
        let as_it_came = self.body == BodyPlan::Stream && !self.unwrapped && self.claimed.is_none();
        let trailers =
            if as_it_came && !matches!(self.form, Form::Chunks(_) | Form::Events) { body::trailing(&headers) } else { Vec::new() };
        body::announce(&mut headers, &trailers);
        if let Some(hop) = &self.hop {
            hop.sign_off(&mut headers);
        }
        let (mut path, mut wrap) = (head.path.clone(), None);
        let unsigned = self.signing.is_some() && self.is_public();
        if unsigned {
            self.record.disposition = Disposition::Pass;
            self.record.passed = Some(Passed::Public);
            self.record.identity = None;
        }
        if let Some(signing) = self.signing.as_ref().filter(|_| !unsigned) {
            let identity = at.identities.get(&*signing.identity);
            // The endpoint judges the signature, its time and the credentials' expiry by its own clock.
            let skew = self.endpoint.as_ref().map_or(0, |endpoint| endpoint.skew());
            let unix_seconds = at.unix_seconds.saturating_add_signed(skew);
            let known_to_fail = identity.is_some_and(|identity| !identity.failures.is_empty());
            let may_refresh = may_refresh && !known_to_fail;
            let Some(credentials) = identity.and_then(|identity| self.usable(identity, at.unix_seconds, may_refresh)) else {
                if may_refresh {
                    // Those that have expired by the endpoint's clock alone look usable to everyone else.
                    let now = at.unix_seconds.saturating_add_signed(self.config.live.ahead().unwrap_or(0));
                    let after = identity.filter(|identity| identity.usable(now).is_some()).map(|identity| identity.version);
                    let identity = Arc::clone(&signing.identity);
                    self.waits_from = at.since_start;
                    self.state = State::AwaitingCredentials;
                    return Step::Refresh { identity, after };
                }
                let refusal = no_credentials(&signing.identity, identity);
                return self.refuse(&refusal);
            };
            let version = identity.map_or(0, |identity| identity.version);
            // What the client says of the body's hash is replaced, not left beside ours.
            let content_sha256 = signing.options.content_sha256 || headers.contains_key(sign::CONTENT_SHA256);
            let terms = Terms {
                credentials,
                scope: Scope { region: &signing.region, signing_name: &signing.service, style: signing.style },
                options: Options { content_sha256, ..signing.options },
                unsigned: &signing.unsigned,
                unix_seconds,
                shown: self.shows_head && self.config.settings.inspect,
            };
            match self.signed(head, &terms, signing.in_query, credentials, skew, &mut headers) {
                Ok(signature) => {
                    path = signature.path.unwrap_or(path);
                    wrap = signature.wrap;
                    self.record.steps = signature.steps;
                    self.signed_with = version;
                }
                Err(error) => {
                    let (slug, why) = (error.slug(), format!("the request cannot be signed: {error}."));
                    let refusal = match error {
                        SignError::Crypto => Refusal::sigward(500, slug, why, error.hint()),
                        _ => Refusal::client(400, slug, why, error.hint()),
                    };
                    return self.refuse(&refusal);
                }
            }
            self.record.signatures += 1;
        } else {
            sign::frame(&mut headers, head, head.body);
        }
        if self.shows_head {
            self.record.signed_head = redacted(&headers);
        }
        let outgoing = Outgoing {
            method: head.method.clone(),
            path,
            headers,
            upstream: Arc::clone(upstream),
            body: self.body,
            edited: self.edited.clone(),
            wrap,
            trailers,
            upgrade: self.upgrade.clone(),
        };
        self.attempt_began = at.since_start;
        self.state = State::Sending;
        Step::Send(Box::new(outgoing))
    }

    /// Frames and signs: what is added to `headers`.
    fn signed(
        &self,
        head: &RequestHead,
        terms: &Terms<'_>,
        in_query: bool,
        credentials: &Arc<Credentials>,
        skew: i64,
        headers: &mut HeaderMap,
    ) -> Result<Signature, SignError> {
        let (method, variant) = (head.method.as_str(), terms.options.variant);
        let digest = self.digest.unwrap_or_else(|| Sha256::digest(b"").into());
        let hash = match &self.form {
            _ if self.body == BodyPlan::Empty && !sign::takes_no_hash(terms.scope.signing_name) => BodyHash::Digest(digest),
            Form::Hash => BodyHash::Digest(digest),
            Form::Given(value) => BodyHash::Given(value.as_bytes()),
            Form::Chunks(framing) => BodyHash::Given(framing.keyword(variant).as_bytes()),
            Form::Events => BodyHash::Given(event::KEYWORD.as_bytes()),
        };
        match (&self.form, head.body) {
            (Form::Chunks(framing), BodySize::Known(decoded)) if self.body != BodyPlan::Empty => {
                // What was read whole has its trailers; of what streams, their names are known.
                let trailers: Vec<(HeaderName, Option<usize>)> = match self.body {
                    BodyPlan::Stream => self.announced.iter().map(|name| (name.clone(), body::expected_length(name))).collect(),
                    _ => self.trailers.iter().map(|(name, value)| (name.clone(), Some(value.len()))).collect(),
                };
                let size = body::framed(headers, *framing, variant, decoded, &trailers);
                sign::frame(headers, head, size);
                let Made { signed, steps } = sign::sign(terms, method, &head.path, hash, headers)?;
                let encoder = match framing {
                    Framing::UnsignedTrailer => Encoder::unsigned(),
                    framing => {
                        let signer = ChunkSigner::new(credentials, &terms.scope, variant, signed.amz_date(), signed.signature())?;
                        Encoder::signed(signer, *framing == Framing::SignedTrailer)
                    }
                };
                let trailers = trailers.into_iter().map(|(name, _)| name).collect();
                return Ok(Signature { path: None, wrap: Some(Wrap::Chunks { encoder: Box::new(encoder), trailers }), steps });
            }
            (Form::Events, _) if self.body != BodyPlan::Empty => {
                sign::frame(headers, head, BodySize::Unknown);
                let Made { signed, steps } = sign::sign(terms, method, &head.path, hash, headers)?;
                let signer = Box::new(EventSigner::new(&terms.scope, signed.signature())?);
                let wrap = Wrap::Events { signer, credentials: Arc::clone(credentials), skew };
                return Ok(Signature { path: None, wrap: Some(wrap), steps });
            }
            _ => {}
        }
        // A checksum that came as a trailer is a header now; one that the head has already stays.
        for (name, value) in &self.trailers {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        sign::frame(headers, head, head.body);
        if in_query {
            let Made { signed, steps } = sign::presign(terms, method, &head.path, hash, headers)?;
            return Ok(Signature { path: Some(signed), wrap: None, steps });
        }
        let Made { steps, .. } = sign::sign(terms, method, &head.path, hash, headers)?;
        Ok(Signature { path: None, wrap: None, steps })
    }

    /// Keys that have not expired by the endpoint's clock. Before it has said what time it is, by that of all others; and where nobody has
    /// and there are no other keys, the endpoint is to say: this host's clock may be the one that is wrong.
    fn usable<'a>(&self, identity: &'a Identity, unix_seconds: u64, may_refresh: bool) -> Option<&'a Arc<Credentials>> {
        let endpoint = self.endpoint.as_ref();
        let usable = identity.usable(endpoint.map_or(unix_seconds, |endpoint| endpoint.expiry_clock(unix_seconds)));
        if usable.is_some() || endpoint.is_none_or(|endpoint| endpoint.is_heard()) {
            return usable;
        }
        match self.config.live.ahead() {
            Some(ahead) => identity.usable(unix_seconds.saturating_add_signed(ahead)),
            None => identity.usable(unix_seconds.saturating_sub(MOST_SKEW)).filter(|_| !may_refresh),
        }
    }

    fn response(&mut self, status: u16, headers: &HeaderMap, at: &Moment<'_>) -> Step {
        let date = headers.get(DATE).and_then(|value| httpdate::parse_http_date(value.to_str().ok()?).ok());
        let theirs = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_secs());
        self.ahead = theirs.map(|theirs| theirs.cast_signed().saturating_sub(at.unix_seconds.cast_signed()));
        if let Some(endpoint) = &self.endpoint {
            endpoint.hear(self.ahead);
        }
        self.asked_for =
            judge::asked_for(headers, self.endpoint.as_ref().map_or(at.unix_seconds, |endpoint| endpoint.clock(at.unix_seconds)));
        self.notes_refusal(status);
        let answer = self.answer(status, headers);
        let (mut verdict, is_aws) = (judge::judge_head(&answer), answer.is_aws());
        // Where no other attempt can follow, the status tells enough to learn from.
        let last = !(self.may_repeat(true, at) || self.may_mend(at)) && self.config.settings.retry.mode != RetryMode::Adaptive;
        if last && verdict == Verdict::ReadCode {
            verdict = judge::judge_status(&self.answer(status, headers));
        }
        match verdict {
            Verdict::Deliver => self.deliver(status, at),
            Verdict::Retry(class) => {
                let region = judge::region_of(headers, b"").map(str::to_owned);
                self.repeat(class, is_aws, status, region.as_deref(), at)
            }
            Verdict::ReadCode => {
                self.answered.clone_from(headers);
                self.state = State::ReadingCode { status };
                Step::ReadCode { limit: CODE_PREFIX }
            }
        }
    }

    /// The client's own Authorization did not do: once for each endpoint, the operator hears what else there is.
    fn notes_refusal(&mut self, status: u16) {
        let kept = self.record.passed == Some(Passed::OwnAuthorization)
            && self.call.as_ref().is_some_and(|call| call.authentication == Authentication::Client(Own::Authorization));
        if let Some(endpoint) = self.endpoint.as_ref().filter(|_| kept && matches!(status, 401 | 403))
            && endpoint.reports_refusal()
        {
            self.record.refused_own = Some(RefusedOwn { endpoint: endpoint.name.clone(), status });
        }
    }

    fn answer<'a>(&'a self, status: u16, headers: &'a HeaderMap) -> judge::Answer<'a> {
        let method = self.head.as_ref().map_or(&Method::GET, |head| &head.method);
        let s3 = self.signing.as_ref().is_some_and(|signing| signing.style == Style::S3);
        let operation = self.record.operation.as_deref();
        // What is an operation of AWS's, AWS answers.
        let author = self.terms.as_ref().filter(|_| operation.is_none()).map_or(Author::Aws, |terms| terms.author);
        judge::Answer { status, headers, operation, s3, method, author }
    }

    /// An answer that another attempt may better: at once with other credentials, another time or region, else after a wait. `is_aws`: it
    /// is AWS's word.
    fn repeat(&mut self, class: RetryClass, is_aws: bool, status: u16, region: Option<&str>, at: &Moment<'_>) -> Step {
        self.learn(Some(class), status, at);
        let skew = self.endpoint.as_ref().map_or(0, |endpoint| endpoint.skew());
        let ahead = self.ahead.filter(|ahead| class == RetryClass::Skew || ahead.abs_diff(skew) > judge::SKEW_LIMIT);
        match (class, &self.signing) {
            (RetryClass::Transient | RetryClass::Throttling, _) if self.may_repeat(is_aws && class == RetryClass::Throttling, at) => {
                self.again(class, code(status), at).unwrap_or_else(|| self.hand_over(status, at))
            }
            (RetryClass::Expired, Some(signing)) if self.may_mend(at) && !self.refreshed => {
                let identity = Arc::clone(&signing.identity);
                self.refreshed = true;
                self.tell(format!("{status} expired").into(), at.since_start);
                self.waits_from = at.since_start;
                self.state = State::AwaitingCredentials;
                Step::Refresh { identity, after: Some(self.signed_with) }
            }
            (RetryClass::Skew | RetryClass::Signature, Some(_)) if self.may_mend(at) && !self.corrected => match ahead {
                Some(ahead) if self.follows_clock(ahead) => {
                    self.corrected = true;
                    self.tell(format!("{status} clock").into(), at.since_start);
                    self.attempt(at, true)
                }
                _ => self.hand_over(status, at),
            },
            (RetryClass::Region, Some(signing)) if self.may_mend(at) && !self.redirected => match region {
                Some(region) if *signing.region != *region => {
                    if let Some(name) = self.known_bucket().filter(|_| self.config.knowledge.has_region(region)) {
                        self.config.live.learn_region(&name, region);
                    }
                    self.redirected = true;
                    self.tell(format!("{status} region").into(), at.since_start);
                    if let Some(attempt) = self.record.attempts.last_mut() {
                        attempt.upstream.clone_from(&self.upstream);
                    }
                    if let Some(upstream) = self.upstream.take()
                        && let Err(refusal) = self.settle(Arc::unwrap_or_clone(upstream), Some(region))
                    {
                        return self.refuse(&refusal);
                    }
                    self.attempt(at, true)
                }
                _ => self.hand_over(status, at),
            },
            _ => self.hand_over(status, at),
        }
    }

    /// Notes the endpoint's clock. `false`: it is too wrong to be followed.
    fn follows_clock(&mut self, ahead: i64) -> bool {
        let Some(endpoint) = &self.endpoint else { return false };
        let follows = endpoint.learn_skew(ahead);
        if !follows && endpoint.reports_clock() {
            self.record.wrong_clock = Some(WrongClock { endpoint: endpoint.name.clone(), ahead });
        }
        follows
    }

    /// What an answer says of its endpoint, and of the rate that calls may have.
    fn learn(&mut self, class: Option<RetryClass>, status: u16, at: &Moment<'_>) {
        self.under_way = None;
        let random = self.next_random();
        let Some(endpoint) = &self.endpoint else { return };
        if class == Some(RetryClass::Transient) && status >= 500 {
            endpoint.circuit.failed(&self.config.settings.circuit, at.since_start, random);
        } else {
            endpoint.circuit.succeeded();
        }
        if (200..300).contains(&status) && class.is_none() {
            endpoint.quota.give(self.cost.max(1));
        }
        let throttled = class == Some(RetryClass::Throttling);
        if let (Some(operation), Some(signing)) = (&self.record.operation, &self.signing)
            && let region = self.config.labels.region(&self.config.knowledge, &signing.region)
            && let Some(advice) = self.config.live.throttles.note(operation, region, at.since_start, throttled)
        {
            self.record.advice = Some(advice);
        }
        if let Some(paced) = self.paced.as_ref().filter(|_| self.config.settings.retry.mode == RetryMode::Adaptive) {
            self.config.live.pacer.teach(paced.key, paced.limit, at.since_start, throttled);
        }
    }

    /// Asks the endpoint's circuit and the call's bucket. A step: not yet, or not at all.
    fn may_go(&mut self, at: &Moment<'_>) -> Option<Step> {
        let config = Arc::clone(&self.config);
        if self.under_way.is_none()
            && let Some(endpoint) = &self.endpoint
        {
            if let Pass::Refused(after) = endpoint.circuit.ask(at.since_start) {
                let name = endpoint.name.clone();
                return Some(self.refuse(&circuit_open(&name, after)));
            }
            self.under_way = UnderWay::begin(endpoint, config.settings.circuit.concurrency);
            if self.under_way.is_none() {
                let refusal = Refusal::upstream(
                    503,
                    "too-many-requests",
                    format!("{} requests are under way to {}.", config.settings.circuit.concurrency, endpoint.name),
                    "Try again, or raise circuit.concurrency.",
                );
                return Some(self.refuse(&refusal.after(Duration::from_secs(1))));
            }
        }
        if self.state == State::Pacing {
            return None;
        }
        let (head, signing, call) = (self.head.as_ref()?, self.signing.as_ref()?, self.call.as_ref()?);
        let identity = at.identities.get(&*signing.identity);
        let client = self.claimed.as_ref().map_or(&*head.client, |claimed| &*claimed.client.name);
        let subject = Subject {
            signing_name: &signing.service,
            operation: self.record.operation.as_deref(),
            region: config.labels.region(&config.knowledge, &signing.region),
            known_as: config.labels.service(&config.knowledge, &signing.service),
            account: identity.and_then(|identity| identity.account.as_deref()).unwrap_or(&signing.identity),
            method: head.method.as_str(),
            object: call.bucket_and_key(),
            client,
        };
        let pacer = &config.live.pacer;
        let paced = config.paces.find(pacer, &subject)?;
        let left = self.deadline().map_or(Duration::MAX, |deadline| deadline.saturating_sub(at.since_start));
        let patience = Patience { wait: paced.patience.wait.min(left), ..paced.patience };
        let shared = paced.shared.as_ref().map(|(name, share)| (name, *share));
        let asked = pacer.ask_shared(paced.key, paced.limit, shared, pacer.key(client), at.since_start, patience);
        let rule = Arc::clone(&paced.rule);
        self.paced = Some(paced);
        match asked {
            PaceAsked::Go => None,
            PaceAsked::Wait(ticket) => {
                self.record.pace_rule = Some(rule);
                self.waits_from = at.since_start;
                self.state = State::Pacing;
                // The line's own estimate has let it in; what is beyond is the client's deadline.
                let until = self.deadline().unwrap_or(Duration::MAX).min(at.since_start + patience.wait.saturating_mul(2));
                Some(Step::Pace { ticket, until })
            }
            PaceAsked::Full(after) => {
                self.record.pace_rule = Some(Arc::clone(&rule));
                Some(self.too_fast(&rule, after))
            }
        }
    }

    fn too_fast(&mut self, rule: &str, after: Duration) -> Step {
        let refusal = Refusal::sigward(
            503,
            "slow-down",
            format!(
                "the calls of {rule:?} have reached their limit, and it would take {:.1} s until this one's turn.",
                after.as_secs_f64()
            ),
            "Call less often, raise max_wait of the [[pace]] rule, or, if AWS has granted more, its rate: see `sigward quotas`.",
        );
        self.refuse(&refusal.after(after))
    }

    /// What was signed can be signed and sent again.
    fn may_mend(&self, at: &Moment<'_>) -> bool {
        self.record.disposition == Disposition::Sign
            && !(self.refreshed && self.corrected && self.redirected)
            && self.replayable()
            && self.deadline().is_none_or(|deadline| at.since_start < deadline)
    }

    fn replayable(&self) -> bool {
        self.body != BodyPlan::Stream && self.upgrade.is_none()
    }

    fn failed(&mut self, failure: &Failure, at: &Moment<'_>) -> Step {
        let host = self.upstream.as_ref().map(|upstream| upstream.target.authority()).unwrap_or_default();
        let (outcome, repeatable, refusal) = match failure {
            Failure::Connect(why) => (
                "connect-failed",
                true,
                Refusal::upstream(
                    502,
                    "connect-failed",
                    format!("no connection to {host}: {why}."),
                    "Check the network, DNS and the endpoint's name.",
                ),
            ),
            Failure::Tls(why) => (
                "tls-failed",
                false,
                Refusal::upstream(
                    502,
                    "tls-failed",
                    format!("TLS to {host} was not verified: {why}."),
                    "If the endpoint has a private CA, add its certificate to tls.ca_files.",
                ),
            ),
            Failure::Forbidden(address) => ("forbidden-address", false, forbidden(address)),
            Failure::Loop => ("loop", false, leads_back(&host)),
            Failure::Broken(why) => (
                "connection-broken",
                true,
                Refusal::upstream(
                    502,
                    "connection-broken",
                    format!("the connection to {host} broke before an answer: {why}."),
                    "Try again.",
                ),
            ),
            Failure::HeadTimeout => (
                "head-timeout",
                true,
                Refusal::upstream(
                    504,
                    "head-timeout",
                    format!("{host} sent no answer in time."),
                    "Try again, or raise timeouts.head or timeouts.total.",
                ),
            ),
            Failure::Body(why) => (
                "body-failed",
                false,
                Refusal::client(400, "body-failed", format!("the request's body did not come to its end: {why}."), "Send all of it."),
            ),
            Failure::Internal(why) => (
                "internal",
                false,
                Refusal::sigward(500, "internal", format!("{why}."), "See sigward's log; body.spool_dir needs room for large bodies."),
            ),
        };
        self.timed_out = matches!(failure, Failure::HeadTimeout);
        self.asked_for = None;
        let theirs = matches!(failure, Failure::Connect(_) | Failure::Broken(_) | Failure::HeadTimeout);
        let random = self.next_random();
        self.under_way = None;
        if let Some(endpoint) = self.endpoint.as_ref().filter(|_| theirs && self.state == State::Sending) {
            endpoint.circuit.failed(&self.config.settings.circuit, at.since_start, random);
        }
        // A region that has no such endpoint is none.
        if let (Failure::Connect(_), Some(name)) = (failure, self.known_bucket()) {
            self.config.live.forget_region(&name);
        }
        // Without a connection nothing was done.
        let nothing_sent = matches!(failure, Failure::Connect(_));
        if repeatable
            && self.may_repeat(nothing_sent, at)
            && let Some(step) = self.again(RetryClass::Transient, outcome.into(), at)
        {
            return step;
        }
        // What was not sent was no attempt.
        if self.state == State::Sending {
            self.tell(outcome.into(), at.since_start);
        }
        self.refuse(&refusal)
    }

    /// Attempts are left, and what was sent can be sent again without harm. `harmless`: it is known that nothing was done.
    fn may_repeat(&self, harmless: bool, at: &Moment<'_>) -> bool {
        let retry = &self.config.settings.retry;
        let attempts_left = (self.record.attempts.len() as u32) + 1 < judge::attempts(retry, self.service()) + self.mended();
        retry.mode != RetryMode::Off
            && self.replayable()
            && attempts_left
            && (harmless || retry.repeat == Repeat::All || self.is_safe())
            && self.deadline().is_none_or(|deadline| at.since_start < deadline)
    }

    fn service(&self) -> Option<&str> {
        self.record.operation.as_ref().map(|operation| &*operation.service)
    }

    /// Attempts that mended what was wrong do not count.
    fn mended(&self) -> u32 {
        u32::from(self.refreshed) + u32::from(self.corrected) + u32::from(self.redirected)
    }

    /// Twice is as good as once: by HTTP, by the model, by the operation's name, or for its token.
    fn is_safe(&self) -> bool {
        let Some(head) = &self.head else { return false };
        let has_action = self.call.as_ref().is_some_and(|call| call.named_by_action || call.query().get(b"Action").is_some());
        let by_method = matches!(head.method.as_str(), "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE") && !has_action;
        let by_model = |operation: &Operation| operation.read_only() || operation.idempotent() || reads(&operation.name);
        by_method || self.token_there || self.record.operation.as_deref().is_some_and(by_model)
    }

    /// Waits for the next attempt. `None`: it may not be, for the quota or the deadline.
    fn again(&mut self, class: RetryClass, mut outcome: Cow<'static, str>, at: &Moment<'_>) -> Option<Step> {
        let config = Arc::clone(&self.config);
        let retry = &config.settings.retry;
        let n = self.record.attempts.len() as u32 + 1 - self.mended();
        let random = self.next_random();
        let wait = judge::delay(retry, self.service(), class, n, random, self.asked_for);
        let until = at.since_start + wait;
        if self.deadline().is_some_and(|deadline| until >= deadline) {
            return None;
        }
        let cost = quota::cost(retry.constants, class, self.timed_out);
        if !self.endpoint.as_ref().is_some_and(|endpoint| endpoint.quota.take(cost)) {
            self.record.quota_empty = true;
            return None;
        }
        self.cost = cost;
        if class == RetryClass::Throttling {
            outcome.to_mut().push_str(" throttled");
        }
        self.tell(outcome, at.since_start);
        self.waited = wait;
        self.state = State::Waiting;
        Some(Step::Wait { until })
    }

    fn waited_for(&mut self, reason: Reason, since_start: Duration) {
        let took = since_start.saturating_sub(self.waits_from);
        if reason == Reason::Pace {
            self.record.paced += took;
        }
        self.record.waits.push(Wait { reason, began: self.waits_from, took });
    }

    fn tell(&mut self, outcome: Cow<'static, str>, since_start: Duration) {
        let took = since_start.saturating_sub(self.attempt_began);
        self.record.attempts.push(Attempt {
            outcome,
            took,
            waited: std::mem::take(&mut self.waited),
            began: self.attempt_began,
            upstream: None,
        });
        self.admitted = false;
    }

    fn deliver(&mut self, status: u16, at: &Moment<'_>) -> Step {
        self.learn(None, status, at);
        self.hand_over(status, at)
    }

    fn hand_over(&mut self, status: u16, at: &Moment<'_>) -> Step {
        self.tell(code(status), at.since_start);
        self.record.status = status;
        self.state = State::Done;
        Step::Deliver
    }

    fn overloaded(&mut self, why: &str) -> Step {
        let refusal = Refusal::sigward(
            503,
            "overloaded",
            format!("{why}: sigward serves no more at once."),
            "Try again; raise limits.in_flight or limits.held_bytes if memory allows it, or run more of it.",
        );
        self.refuse(&refusal.after(Duration::from_secs(1)))
    }

    /// It would be signed, and the audit log could not tell that.
    fn audit_forbids(&self) -> bool {
        self.load.audit_blocked && self.record.disposition == Disposition::Sign && !self.is_public()
    }

    fn audit_blocked(&mut self) -> Step {
        let refusal = Refusal::sigward(
            503,
            "audit-log-unavailable",
            "the audit log cannot be written, and sigward signs no call that it cannot log.",
            "Make room where audit_log lies, see sigward's log; or set audit_when_full = \"drop\".",
        );
        self.refuse(&refusal.after(Duration::from_secs(1)))
    }

    fn too_large(&mut self, max: u64) -> Step {
        self.refuse(&Refusal::client(
            413,
            "body-too-large",
            format!("the request's body is larger than the {max} bytes that are served."),
            "Send it in parts, or raise body.max or body.spool_max.",
        ))
    }

    /// Answers instead of the upstream.
    fn refuse(&mut self, refusal: &Refusal) -> Step {
        self.state = State::Done;
        self.record.status = refusal.status;
        self.record.error = Some(refusal.slug);
        self.record.reason = Some(refusal.reason().into());
        if self.record.attempts.is_empty() && self.record.disposition != Disposition::Deny {
            self.record.disposition = Disposition::Refuse;
        }
        let head_only = self.head.as_ref().is_some_and(|head| head.method == Method::HEAD);
        let id = self.own_id();
        let reader = Reader::new(self.shape, self.record.service.as_deref(), self.head.as_ref().map(|head| &head.headers));
        let response = refusal.response(reader, head_only, Some(&id));
        self.record.request_id = Some(id);
        Step::Reply(Box::new(response))
    }

    /// What sigward calls a request that it answers itself: nobody takes it for one of AWS's.
    fn own_id(&self) -> Box<str> {
        let random = (u128::from(mix(self.seed ^ 0x2545_f491_4f6c_dd1d)) << 64) | u128::from(mix(self.seed ^ 0x9fb2_1c65_1e98_df25));
        format!("sigward-{}", token::uuid(random)).into()
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): jitter needs spread, not secrecy.
    fn next_random(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.random) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn trace(headers: &mut HeaderMap, onward: Onward) {
    if !onward.keeps_state {
        headers.remove("tracestate");
    }
    headers.insert("traceparent", onward.parent);
}

/// A status as attempts tell it; the usual one costs nothing.
fn code(status: u16) -> Cow<'static, str> {
    if status == 200 { Cow::Borrowed("200") } else { Cow::Owned(status.to_string()) }
}

fn mix(random: u64) -> u64 {
    let mut mixed = random;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// True if an operation's name says that it only reads. The models mark a part of them alone.
fn reads(name: &str) -> bool {
    const READING: &[&str] = &["BatchGet", "Describe", "Get", "Head", "List", "Lookup", "Query", "Scan", "Search", "Select"];
    // They take what they get.
    const TAKING: &[&str] = &["GetActivityTask", "GetJob", "GetSessionToken"];
    READING.iter().any(|word| name.starts_with(word)) && !TAKING.contains(&name)
}

const DEADLINE: HeaderName = HeaderName::from_static("x-sigward-deadline");

/// How long the client gives: `x-sigward-deadline` in seconds, or with a unit (`500ms`, `2s`, `1m`). It is for sigward alone.
fn deadline_of(headers: &mut HeaderMap) -> Result<Option<Duration>, Refusal> {
    let Some(value) = headers.remove(DEADLINE) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let (number, unit) = text.split_at(text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len()));
    let scale = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        _ => f64::NAN,
    };
    let seconds = number.parse::<f64>().map_or(f64::NAN, |number| number * scale);
    if !(seconds > 0.0 && seconds <= 86_400.0) {
        return Err(Refusal::client(
            400,
            "bad-deadline",
            format!("x-sigward-deadline is {:?}.", admit::shown(text)),
            "Give seconds, or a number with ms, s or m, up to a day: 2.5, 500ms.",
        ));
    }
    Ok(Some(Duration::from_secs_f64(seconds)))
}

fn circuit_open(name: &str, after: Duration) -> Refusal {
    Refusal::upstream(
        503,
        "circuit-open",
        format!("{name} has failed many times in a row; the next try is in {:.1} s.", after.as_secs_f64()),
        "Try again then. See circuit.failures.",
    )
    .after(after)
}

const IN_FLIGHT: &str = "limits.in_flight requests are in flight";

/// The protocol that an error of ours is to speak.
fn shape_of(config: &Config, head: &RequestHead, service: Option<&str>) -> Shape {
    let usual = service.and_then(|service| config.knowledge.shape(service));
    Shape::of(&head.method, &head.path, &head.headers, service, usual)
}

/// The body, before it is read.
fn unread_body(head: &RequestHead) -> Body<'static> {
    match head.body {
        BodySize::Known(0) => Body::Whole(b""),
        _ if body::is_framed(&head.headers) => Body::Unreadable,
        _ => Body::Pending,
    }
}

/// How a request was read, beside what its head says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ReadingTerms {
    service: Option<Arc<str>>,
    style: Style,
    query_plus: QueryPlus,
    host: Arc<str>,
    of_customer: bool,
    author: Author,
    may_hold_bucket: bool,
}

/// Reads a request on the terms of each rule that asks. Nearly always they are the same, and it is read once.
struct Reading<'a> {
    config: &'a Config,
    head: &'a RequestHead,
    target: &'a Target,
    found: Option<Recognised<'a>>,
    body: Body<'a>,
    /// A WebSocket is asked for.
    websocket: bool,
    /// What the client's own signature takes a raw `+` in the query for.
    signed_plus: Option<QueryPlus>,
    calls: SmallVec<[(ReadingTerms, Call); 1]>,
    /// Which of them is that of rules that change nothing of it.
    usual: Option<usize>,
}

impl Reading<'_> {
    fn terms(&self, route: Option<&Route>) -> ReadingTerms {
        let rewritten = route.and_then(|route| route.upstream.as_ref()).filter(|upstream| upstream.host != self.target.host);
        let host = rewritten.map_or(&self.target.host, |upstream| &upstream.host);
        let there = if rewritten.is_some() { recognise(&self.config.knowledge, host, None) } else { self.found };
        let named = route.and_then(|route| route.service.clone());
        let service = named.or_else(|| self.found.map(|found| found.signing_name.into()));
        let service = service.map(|service| sign::service_of(service, &self.head.path, self.websocket));
        let style = service.as_deref().map_or(Style::Generic, style_of);
        ReadingTerms {
            style: route.map_or(style, |route| route.style.unwrap_or(style)),
            query_plus: self.signed_plus.unwrap_or_else(|| route.map_or(QueryPlus::Blank, |route| route.query_plus)),
            host: Arc::clone(host),
            of_customer: there.is_some_and(|there| there.own_api),
            author: Author::of(&self.config.knowledge, there, service.as_deref()),
            may_hold_bucket: rewritten.is_none() && route.is_some_and(Route::may_hold_bucket),
            service,
        }
    }

    /// A server in the place of S3 reads the bucket in the path: there it goes from the host that named it.
    fn with_bucket(&self, terms: &ReadingTerms) -> Option<String> {
        let is_s3 = terms.service.as_deref().is_some_and(|service| style_of(service) == Style::S3);
        if !is_s3 || *terms.host == *self.target.host || recognise::bucket_in_host(&terms.host).is_some() {
            return None;
        }
        match recognise::bucket_in_host(&self.target.host)? {
            HostBucket::Named(bucket) => Some(format!("/{bucket}{}", self.head.path)),
            _ => None,
        }
    }

    fn place(&mut self, route: Option<&Route>) -> Result<usize, Ambiguity> {
        // Most rules change nothing of how a request is read.
        let as_usual = route.is_none_or(Route::reads_as_usual);
        if as_usual && let Some(at) = self.usual {
            return Ok(at);
        }
        let terms = self.terms(route);
        let at = match self.calls.iter().position(|(known, _)| *known == terms) {
            Some(at) => at,
            None => self.read(terms)?,
        };
        if as_usual {
            self.usual = Some(at);
        }
        Ok(at)
    }

    fn read(&mut self, terms: ReadingTerms) -> Result<usize, Ambiguity> {
        let moved = self.with_bucket(&terms);
        let call = Call::read(&Source {
            knowledge: &self.config.knowledge,
            host: &terms.host,
            service: terms.service.as_ref(),
            style: terms.style,
            query_plus: terms.query_plus,
            of_customer: terms.of_customer,
            may_hold_bucket: terms.may_hold_bucket,
            method: &self.head.method,
            target: moved.as_deref().unwrap_or(&self.head.path),
            headers: &self.head.headers,
            body: self.body,
        })?;
        self.calls.push((terms, call));
        Ok(self.calls.len() - 1)
    }

    /// The call, and how it was read, under the rule that applies.
    fn take(mut self, route: Option<&Route>) -> Result<(Call, ReadingTerms), Ambiguity> {
        let at = self.place(route)?;
        let (terms, call) = self.calls.swap_remove(at);
        Ok((call, terms))
    }

    fn call(&mut self, route: Option<&Route>) -> Result<&Call, Ambiguity> {
        let at = self.place(route)?;
        // It has just been found there.
        self.calls.get(at).map(|(_, call)| call).ok_or_else(|| Ambiguity { kind: "host", one: String::new(), other: String::new() })
    }
}

impl Calls for Reading<'_> {
    fn under(&mut self, route: &Route) -> Result<&Call, Ambiguity> {
        self.call(Some(route))
    }

    fn usual(&mut self) -> Result<&Call, Ambiguity> {
        self.call(None)
    }
}

fn name_of(route: Option<&Route>) -> &str {
    route.map_or("none", |route| &route.name)
}

/// One reading for every rule.
struct Fixed<'a>(&'a Call);

impl Calls for Fixed<'_> {
    fn under(&mut self, _: &Route) -> Result<&Call, Ambiguity> {
        Ok(self.0)
    }

    fn usual(&mut self) -> Result<&Call, Ambiguity> {
        Ok(self.0)
    }
}

/// With the body at hand, some rule or none is chosen.
fn undecided_with_body() -> Refusal {
    Refusal::sigward(500, "out-of-order", "no rule could be chosen with the body at hand.", "This is a bug in sigward.")
}

fn customer_endpoint(host: &str) -> Refusal {
    Refusal::client(
        403,
        "customer-endpoint",
        format!("{:?} belongs to a customer of AWS, who may see a session token that is sent there.", admit::shown(host)),
        "If you trust it, name the host in a [[route]] (customer_endpoints is \"refuse\").",
    )
}

fn plain_text_port(target: &Target) -> Refusal {
    Refusal::client(
        400,
        "plain-text-port",
        format!("signatures and tokens go out over TLS, but {:?} asks for port {} in plain text.", admit::shown(&target.host), target.port),
        "Leave the port away, or use https.",
    )
}

fn own_authorization() -> Refusal {
    Refusal::client(
        403,
        "own-authorization",
        "the request brings a credential of its own, and only what sigward signs is served here (authorization is \"refuse\").",
        "Send it without an Authorization header and without a presigned URL, or ask the operator for authorization = \"keep\".",
    )
}

fn unknown_host(host: &str) -> Refusal {
    Refusal::client(
        403,
        "unknown-service",
        format!("{:?} may be a host of a service of AWS's, but sigward does not know it.", admit::shown(host)),
        "Add a [[route]] with `host` and `service` (the signing name), or make a newer table with `sigward knowledge refresh`. A request \
         that is signed with dummy keys for that service and region is signed for, too.",
    )
}

fn forbidden(host: &str) -> Refusal {
    Refusal::client(
        403,
        "forbidden-address",
        format!(
            "{:?} is a loopback, link-local or metadata address: a program that asks a proxy for it ignores NO_PROXY.",
            admit::shown(host)
        ),
        "Call it directly. If it is meant, give the listener an `upstream`, or name the host in a [[route]], or give that `connect` or `upstream`.",
    )
}

fn no_credentials(name: &str, identity: Option<&Identity>) -> Refusal {
    let tried: Vec<String> =
        identity.map(|identity| identity.failures.iter().map(|(provider, why)| format!("{provider}: {why}")).collect()).unwrap_or_default();
    let tried = if tried.is_empty() { "they are still being loaded".to_owned() } else { format!("tried {}", tried.join("; ")) };
    Refusal::sigward(
        503,
        "no-credentials",
        format!("identity {name:?} has no usable AWS credentials: {tried}."),
        "Give sigward credentials (environment, profile, container or instance role), then see `sigward whoami`.",
    )
}

/// A target for a request whose host cannot be one; only to answer it.
pub fn nowhere() -> Target {
    Target { scheme: Scheme::Https, host: "invalid".into(), port: 443 }
}
