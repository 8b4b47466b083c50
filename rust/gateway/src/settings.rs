//! What an operator sets, as the engine takes it: JSON, made by `python/sigward/settings.py`. Every field has a default.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::admit::Target;

/// The whole of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineSettings {
    /// Engine threads, ≥ 1.
    pub threads: usize,
    /// For hosts that name no region.
    pub default_region: String,
    /// The identity of routes that name none.
    pub default_identity: String,
    /// Where each request is told of.
    pub access_log: LogTo,
    /// Where each call is told of for auditors.
    pub audit_log: LogTo,
    /// What becomes of calls while that cannot be written.
    pub audit_when_full: AuditFull,
    /// Whether a line is written before each call goes out; `None`: where calls are refused without one.
    pub audit_begun: Option<bool>,
    /// What the engine tells its front's log.
    pub log_level: LogLevel,
    /// A file with a table of hosts and operations; `None`: the shipped one.
    pub knowledge: Option<PathBuf>,
    /// Records that show a head also show how it was signed.
    pub inspect: bool,
    /// How bodies are kept.
    pub body: BodySettings,
    /// How long each wait may last.
    pub timeouts: Timeouts,
    /// Attempts and delays.
    pub retry: RetrySettings,
    /// Calls a second.
    pub pace: PaceSettings,
    /// Endpoints that fail.
    pub circuit: CircuitSettings,
    /// Whom to trust upstream.
    pub tls: TlsSettings,
    /// The way out.
    pub egress: EgressSettings,
    /// Whether clients may speak HTTP/2.
    pub client_http2: ClientHttp2,
    /// What clients may take of it.
    pub limits: Limits,
    /// Who may ask.
    pub clients: ClientsSettings,
    /// Traces and metrics; `None`: nothing is sent.
    pub otlp: Option<OtlpSettings>,
    /// What rules do with what they cannot decide.
    pub rules: RulesSettings,
    /// Endpoints that are some customer's own: `{id}.execute-api…`, `{id}.lambda-url…`, `AppSync`.
    pub customer_endpoints: CustomerEndpoints,
    /// Requests carry a `Via` that names this process, and one that comes back is refused.
    pub via: bool,
    /// What becomes of a client's own credential, where no route says.
    pub authorization: OwnAuthorization,
    /// First match wins.
    pub routes: Vec<RouteSettings>,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            threads: 1,
            default_region: "us-east-1".into(),
            default_identity: "default".into(),
            access_log: LogTo::Off,
            audit_log: LogTo::Off,
            audit_when_full: AuditFull::Refuse,
            audit_begun: None,
            log_level: LogLevel::Info,
            knowledge: None,
            inspect: false,
            body: BodySettings::default(),
            timeouts: Timeouts::default(),
            retry: RetrySettings::default(),
            pace: PaceSettings::default(),
            circuit: CircuitSettings::default(),
            tls: TlsSettings::default(),
            egress: EgressSettings::default(),
            client_http2: ClientHttp2::Auto,
            limits: Limits::default(),
            clients: ClientsSettings::default(),
            otlp: None,
            rules: RulesSettings::default(),
            customer_endpoints: CustomerEndpoints::Sign,
            via: true,
            authorization: OwnAuthorization::Keep,
            routes: Vec::new(),
        }
    }
}

impl EngineSettings {
    /// Reads JSON. The error names the field and what was expected there.
    pub fn from_json(json: &str) -> Result<Self, String> {
        let settings: Self = serde_json::from_str(json).map_err(|error| error.to_string())?;
        if settings.threads == 0 {
            return Err("threads: at least 1".into());
        }
        if settings.retry.attempts == Some(0) {
            return Err("retry.attempts: at least 1 (1 means no retry)".into());
        }
        if [settings.limits.connections, settings.limits.in_flight].contains(&0) {
            return Err("limits.connections, limits.in_flight: at least 1".into());
        }
        Ok(settings)
    }

    /// True if the audit log gets a line before each call goes out.
    pub fn writes_begun(&self) -> bool {
        self.audit_begun.unwrap_or(self.audit_when_full == AuditFull::Refuse)
    }
}

/// Where a log goes: `off` (or false), `stderr` (or true), or a file's path.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(from = "Written")]
pub enum LogTo {
    /// Nowhere.
    #[default]
    Off,
    /// Standard error.
    Stderr,
    /// Behind what stands in this file.
    File(PathBuf),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Switch(bool),
    Word(String),
}

impl From<Written> for LogTo {
    fn from(written: Written) -> Self {
        match written {
            Written::Switch(false) => Self::Off,
            Written::Switch(true) => Self::Stderr,
            Written::Word(word) if word.is_empty() || word == "off" => Self::Off,
            Written::Word(word) if word == "stderr" => Self::Stderr,
            Written::Word(path) => Self::File(path.into()),
        }
    }
}

/// What becomes of calls while the audit log cannot be written.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum AuditFull {
    /// Nothing is signed, with 503; lines are kept until they can be written.
    #[default]
    Refuse,
    /// They are served; lines are dropped and counted.
    Drop,
}

/// The levels of Python's log.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// For whoever looks for a bug.
    Debug,
    /// What goes on.
    Info,
    /// Somebody should look.
    Warning,
    /// Something does not work.
    Error,
}

/// Held, spooled or streamed: see README, "What a request goes through".
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BodySettings {
    /// Bytes kept in memory, hashed and replayable; larger bodies are spooled or streamed.
    pub hold: u64,
    /// Largest request body that is served, bytes; `None`: no limit.
    pub max: Option<u64>,
    /// Where spooled bodies lie (unlinked files); `None`: the system's directory for temporary files.
    pub spool_dir: Option<PathBuf>,
    /// Largest body that is spooled, bytes.
    pub spool_max: u64,
}

impl Default for BodySettings {
    fn default() -> Self {
        Self { hold: 1 << 20, max: None, spool_dir: None, spool_max: 5 << 40 }
    }
}

/// Seconds in JSON.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// TCP and TLS handshakes.
    #[serde(deserialize_with = "seconds")]
    pub connect: Duration,
    /// From the last byte of the request to the whole head of the final answer.
    #[serde(deserialize_with = "seconds")]
    pub head: Duration,
    /// Without a byte in either direction while a body is under way.
    #[serde(deserialize_with = "seconds")]
    pub idle: Duration,
    /// From the request's head to the answer's head, attempts and waits together; `None`: no limit.
    #[serde(deserialize_with = "optional_seconds")]
    pub total: Option<Duration>,
    /// An idle pooled connection is closed after this.
    #[serde(deserialize_with = "seconds")]
    pub pool_idle: Duration,
    /// A request waits so long for credentials that are being loaded.
    #[serde(deserialize_with = "seconds")]
    pub credentials: Duration,
    /// Addresses of names are remembered for so long; 0: they are not.
    #[serde(deserialize_with = "seconds")]
    pub dns: Duration,
    /// A client has so long for a request's head, for TLS, and for its first bytes inside a CONNECT.
    #[serde(deserialize_with = "seconds")]
    pub client_head: Duration,
    /// A client's idle connection is closed after this.
    #[serde(deserialize_with = "seconds")]
    pub client_idle: Duration,
    /// A client that takes nothing of its answer for so long is let go.
    #[serde(deserialize_with = "seconds")]
    pub client_write: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            head: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            total: None,
            pool_idle: Duration::from_secs(60),
            credentials: Duration::from_secs(10),
            dns: Duration::from_secs(5),
            client_head: Duration::from_secs(60),
            client_idle: Duration::from_secs(350),
            client_write: Duration::from_secs(60),
        }
    }
}

/// Full-jitter exponential backoff: `random() · min(scale · 2^(n−1), cap)` before retry n.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySettings {
    /// Whether, and with a rate that is learnt.
    pub mode: RetryMode,
    /// Attempts in all, ≥ 1; `None`: 3, of DynamoDB 4.
    pub attempts: Option<u32>,
    /// Scale for 5xx and connection errors; `None`: 50 ms, of DynamoDB 25 ms.
    #[serde(deserialize_with = "optional_seconds")]
    pub base: Option<Duration>,
    /// Scale for throttling.
    #[serde(deserialize_with = "seconds")]
    pub throttle_base: Duration,
    /// Longest delay before jitter.
    #[serde(deserialize_with = "seconds")]
    pub cap: Duration,
    /// What repeats cost.
    pub constants: Constants,
    /// Which requests are repeated after a failure that does not say that nothing was done.
    pub repeat: Repeat,
    /// Add the idempotency token that an operation takes, where the client left it out.
    pub tokens: bool,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            mode: RetryMode::Standard,
            attempts: None,
            base: None,
            throttle_base: Duration::from_secs(1),
            cap: Duration::from_secs(20),
            constants: Constants::Current,
            repeat: Repeat::Safe,
            tokens: true,
        }
    }
}

/// The AWS SDKs' modes.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum RetryMode {
    /// Backoff and a quota.
    #[default]
    Standard,
    /// And a rate that throttled answers teach.
    Adaptive,
    /// Never, but for expired credentials, wrong clocks and S3's redirects.
    Off,
}

/// The SDKs' constants.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum Constants {
    /// Of botocore 1.44: a repeat costs 14 tokens, a throttled one 5.
    #[default]
    #[serde(rename = "current")]
    Current,
    /// Those before: 5, after a time-out 10; every delay's scale is a second.
    #[serde(rename = "before-2026")]
    Before2026,
}

/// Which requests are repeated after an answer or a failure that does not say that nothing was done.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Repeat {
    /// Those for which twice is as good as once.
    #[default]
    Safe,
    /// All, as the AWS SDKs do.
    All,
}

/// Limits of calls a second, kept before AWS has to.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PaceSettings {
    /// The limits that AWS documents.
    pub defaults: bool,
    /// The longest wait, where a rule says no other.
    #[serde(deserialize_with = "seconds")]
    pub max_wait: Duration,
    /// Places in a line.
    pub places: usize,
    /// First match wins.
    pub rules: Vec<PaceRule>,
    /// `redis://…`: one limit for a fleet.
    pub shared: Option<String>,
    /// What this one takes of every limit while the store is away, 0 to 1.
    pub share: f64,
}

impl Default for PaceSettings {
    fn default() -> Self {
        Self { defaults: true, max_wait: Duration::from_secs(30), places: 10_000, rules: Vec::new(), shared: None, share: 0.1 }
    }
}

/// One `[[pace]]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PaceRule {
    /// For messages and metrics; empty: its operation.
    pub name: String,
    /// Pattern of `service:Operation`; `None`: every one.
    pub operation: Option<String>,
    /// Pattern of a bucket, or of `bucket/key`.
    pub bucket: Option<String>,
    /// Calls a second.
    pub rate: f64,
    /// Calls at once; `None`: those of a second.
    pub burst: Option<f64>,
    /// What shares the limit; `None`: account, region and operation, or the bucket.
    pub per: Option<Vec<Per>>,
    /// The longest wait.
    #[serde(deserialize_with = "optional_seconds")]
    pub max_wait: Option<Duration>,
    /// Wait, or refuse at once.
    pub when_full: WhenFull,
    /// Do not compare `operation` with the table of operations.
    pub unchecked: bool,
}

/// What shares a limit.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// The account that signs.
    Account,
    /// The region.
    Region,
    /// The operation.
    Operation,
    /// The S3 bucket.
    Bucket,
    /// What the key holds up to its last slash.
    Prefix,
    /// Who asks: an issued key's name, or an address.
    Client,
}

/// `[rules]`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct RulesSettings {
    /// What a rule does where the part of the call that it asks for is unknown.
    pub unknown: Unknown,
}

/// What a rule does where the part of the call that it asks for is unknown.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Unknown {
    /// `deny` matches; `sign` and `pass` do not.
    #[default]
    Closed,
    /// For migration: the request passes the rule, and the log and a counter say what `Closed` would have refused.
    Report,
}

/// Whether sigward signs for endpoints that belong to some customer of AWS, where no route names the host.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum CustomerEndpoints {
    /// As for AWS's own.
    #[default]
    Sign,
    /// With 403: whoever owns the endpoint may see the session token.
    Refuse,
}

/// What becomes of a credential that a client brings itself, such as a Bearer token.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OwnAuthorization {
    /// The request passes as it came, unsigned.
    #[default]
    Keep,
    /// It is taken out of the headers, and sigward signs. What is in a URL or a form cannot be taken out, and passes.
    Replace,
    /// With 403.
    Refuse,
}

/// What the signature of an issued key must cover.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ClientPayload {
    /// The head; the body as far as the client signs it.
    #[default]
    Any,
    /// The head and the body.
    Signed,
}

/// Wait, or refuse at once.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// In line.
    #[default]
    Wait,
    /// With 503.
    Refuse,
}

/// When an endpoint counts as failing.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitSettings {
    /// Failures in a row; 0: it never does.
    pub failures: u32,
    /// Nothing goes there for so long; then doubled.
    #[serde(deserialize_with = "seconds")]
    pub pause: Duration,
    /// At most so long.
    #[serde(deserialize_with = "seconds")]
    pub longest: Duration,
    /// Requests at once to one endpoint; 0: any number.
    pub concurrency: u32,
}

impl Default for CircuitSettings {
    fn default() -> Self {
        Self { failures: 20, pause: Duration::from_millis(500), longest: Duration::from_secs(3), concurrency: 0 }
    }
}

/// Clients with keys that sigward issued.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientsSettings {
    /// Nothing is served without such a key.
    pub required: bool,
    /// What their signatures must cover.
    pub payload: ClientPayload,
    /// The master key that theirs are derived from: 64 hexadecimal digits.
    pub key_file: Option<PathBuf>,
    /// Each of them.
    pub issued: Vec<ClientSettings>,
}

/// One client.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientSettings {
    /// For routes and the log.
    pub name: String,
    /// Counts up to void the pair before.
    pub rotation: u32,
    /// Whose credentials its requests get where no route says.
    pub identity: Option<String>,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self { name: String::new(), rotation: 1, identity: None }
    }
}

/// TLS to the upstream is always verified.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// PEM files with certificates to trust besides the system's.
    pub ca_files: Vec<PathBuf>,
    /// Trust the system's roots.
    pub system_roots: bool,
    /// PEM file with the chain that reverse listeners show to TLS clients; `None`: one of sigward's CA.
    pub certificate: Option<PathBuf>,
    /// PEM file with its key.
    pub key: Option<PathBuf>,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self { ca_files: Vec::new(), system_roots: true, certificate: None, key: None }
    }
}

/// The way out: directly, or through a proxy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressSettings {
    /// The proxy that all connections to upstreams go through.
    pub proxy: Option<Proxy>,
    /// Hosts that are reached without it: names, `.suffix`es, addresses; `*`: all.
    pub no_proxy: Vec<String>,
    /// When HTTP/2 is offered to upstreams.
    pub http2: Http2,
}

impl EgressSettings {
    /// The proxy on the way to a host.
    pub fn proxy_for(&self, host: &str) -> Option<&Proxy> {
        let direct = |pattern: &String| {
            let suffix = pattern.trim_start_matches('.').trim_start_matches('[').trim_end_matches(']');
            pattern == "*"
                || host == suffix
                || host.strip_suffix(suffix).is_some_and(|before| before.ends_with('.'))
                || in_network(host, suffix).unwrap_or(false)
        };
        self.proxy.as_ref().filter(|_| !self.no_proxy.iter().any(direct))
    }
}

/// True if a host is an address in a network, `10.0.0.0/8`; `None`: one or the other is not.
fn in_network(host: &str, network: &str) -> Option<bool> {
    let (first, length) = network.split_once('/')?;
    let (host, first): (IpAddr, IpAddr) = (host.parse().ok()?, first.parse().ok()?);
    let (host, first, bits) = match (host, first) {
        (IpAddr::V4(host), IpAddr::V4(first)) => (u128::from(host.to_bits()), u128::from(first.to_bits()), 32),
        (IpAddr::V6(host), IpAddr::V6(first)) => (host.to_bits(), first.to_bits(), 128),
        _ => return None,
    };
    let rest = u32::checked_sub(bits, length.parse().ok()?)?;
    // All of it, where the network has no bits.
    Some((host ^ first).checked_shr(rest).unwrap_or(0) == 0)
}

/// A proxy that speaks CONNECT.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Proxy {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// For `Proxy-Authorization`.
    pub authorization: Option<Hidden>,
}

/// Wiped when it is dropped, and shown nowhere.
#[derive(Clone, Deserialize, PartialEq)]
#[serde(from = "String")]
pub struct Hidden(Zeroizing<String>);

impl Hidden {
    /// For the wire.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Hidden {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("hidden")
    }
}

impl TryFrom<String> for Proxy {
    type Error = String;

    /// `http://[user:password@]host[:port]`. The error says what is wrong with it, and shows nothing of a password.
    fn try_from(url: String) -> Result<Self, String> {
        let url = Zeroizing::new(url);
        let expected = "egress.proxy: http://[user:password@]host[:port] is expected";
        let rest = url.strip_prefix("http://").ok_or(expected)?;
        let (user, authority) = rest.rsplit_once('@').map_or((None, rest), |(user, authority)| (Some(user), authority));
        let target = Target::from_url(&format!("http://{authority}")).map_err(|_| expected)?;
        let authorization = user.map(|user| {
            let decoded = Zeroizing::new(sigward_sigv4::wire::percent_decoded(user.as_bytes()));
            Hidden(Zeroizing::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(&*decoded))))
        });
        Ok(Self { host: target.host.to_string(), port: target.port, authorization })
    }
}

/// When HTTP/2 is offered to upstreams.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Http2 {
    /// For event streams, which need both ways at once.
    #[default]
    Auto,
    /// For every request.
    Always,
    /// For none.
    Never,
}

/// Whether clients may speak HTTP/2.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ClientHttp2 {
    /// Those that ask for it.
    #[default]
    Auto,
    /// HTTP/1.1 alone is offered.
    Never,
}

/// What clients may take of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// All names and values of a request together, bytes.
    pub header_bytes: usize,
    /// How many headers.
    pub headers: usize,
    /// Path and query, bytes.
    pub target_bytes: usize,
    /// Connections of clients at once, of all listeners of the native front together.
    pub connections: usize,
    /// Requests at once on one connection of HTTP/2.
    pub streams: u32,
    /// Requests under way at once.
    pub in_flight: usize,
    /// Bytes of bodies that are held in memory at once.
    pub held_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 64 << 10,
            headers: 200,
            target_bytes: 16 << 10,
            connections: 16_384,
            streams: 1000,
            in_flight: 16_384,
            held_bytes: 512 << 20,
        }
    }
}

/// Where OpenTelemetry's signals go.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpSettings {
    /// `http[s]://host[:port]/path` of the collector; `None`: no traces.
    pub traces: Option<String>,
    /// Likewise.
    pub metrics: Option<String>,
    /// Of each request to it.
    pub headers: BTreeMap<String, Hidden>,
    /// Of one request to it.
    #[serde(deserialize_with = "seconds")]
    pub timeout: Duration,
    /// Between metrics and the next.
    #[serde(deserialize_with = "seconds")]
    pub interval: Duration,
    /// How long spans wait for others to be sent with them, and the first pause after a failure.
    #[serde(deserialize_with = "seconds")]
    pub delay: Duration,
    /// Of the requests whose client says nothing, 0 to 1.
    pub sample_ratio: f64,
    /// Who tells: `service.name` and others.
    pub attributes: BTreeMap<String, String>,
}

impl Default for OtlpSettings {
    fn default() -> Self {
        Self {
            traces: None,
            metrics: None,
            headers: BTreeMap::new(),
            timeout: Duration::from_secs(10),
            interval: Duration::from_secs(60),
            delay: Duration::from_secs(1),
            sample_ratio: 1.0,
            attributes: BTreeMap::from([("service.name".into(), "sigward".into())]),
        }
    }
}

/// One `[[route]]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteSettings {
    /// For messages; empty: its number.
    pub name: String,
    /// Host pattern; `*` matches any run of characters. `None`: every host that is known to be AWS's.
    pub host: Option<String>,
    /// `None`: every port.
    pub port: Option<u16>,
    /// Path pattern, likewise; `None`: every path.
    pub path: Option<String>,
    /// Pattern of `service:Operation`.
    pub operation: Option<String>,
    /// Pattern of a bucket, or of `bucket/key`.
    pub bucket: Option<String>,
    /// The client with this issued key.
    pub client: Option<String>,
    /// What to do.
    pub action: Action,
    /// Signing name, where the host does not tell or tells wrong.
    pub service: Option<String>,
    /// Region in the scope, likewise.
    pub region: Option<String>,
    /// Whose credentials.
    pub identity: Option<String>,
    /// `https://host[:port]`: the request goes there instead; scheme, Host and TLS name are rewritten.
    pub upstream: Option<String>,
    /// `host:port`: only the socket goes there; Host and the verified TLS name stay.
    pub connect: Option<String>,
    /// `s3` or `generic`; `None`: by the signing name.
    pub style: Option<PathStyle>,
    /// What becomes of a client's own credential; `None`: what the top of the settings says.
    pub authorization: Option<OwnAuthorization>,
    /// What the signature says of the body.
    pub payload: PayloadMode,
    /// Where the signature stands.
    pub signature: SignaturePlace,
    /// Which algorithm.
    pub variant: SignatureVariant,
    /// Where a session token goes.
    pub token: TokenPlace,
    /// What a raw `+` in a query stands for.
    pub query_plus: QueryPlus,
    /// Headers that go on, but are not signed, besides [`sigward_sigv4::UNSIGNED_HEADERS`].
    pub unsigned_headers: Vec<String>,
    /// Headers that are sent on under another name too: name to new name.
    pub copy_headers: BTreeMap<String, String>,
    /// Headers that are not sent on.
    pub remove_headers: Vec<String>,
    /// Headers, and their values, for requests that have none of that name.
    pub add_headers: BTreeMap<String, String>,
    /// Do not compare `operation` with the table of operations.
    pub unchecked: bool,
}

/// What the signature says of the body. See README, "Bodies".
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum PayloadMode {
    /// By the service, the size and what the client sent.
    #[default]
    Auto,
    /// Its SHA-256: held or spooled until all of it is there.
    Hash,
    /// Nothing (`UNSIGNED-PAYLOAD`).
    Unsigned,
    /// Uploads of S3's objects and parts: in signed chunks; all others: as `Hash`.
    Chunked,
}

/// Where the signature stands.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SignaturePlace {
    /// In the query for WebSockets of services that read it there, else in the headers.
    #[default]
    Auto,
    /// In the headers.
    Header,
    /// In the query.
    Query,
}

/// Which algorithm.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SignatureVariant {
    /// `AWS4-HMAC-SHA256`.
    #[default]
    V4,
    /// `AWS4-ECDSA-P256-SHA256`: `region` is a region set.
    V4a,
}

/// Where a session token goes.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum TokenPlace {
    /// By the service.
    #[default]
    Auto,
    /// `x-amz-security-token`, signed.
    Signed,
    /// `x-amz-security-token`, added after signing.
    AddedAfter,
    /// `x-amz-s3session-token`, signed.
    S3express,
}

/// What a raw `+` in a query stands for.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum QueryPlus {
    /// A blank, as in forms.
    #[default]
    Blank,
    /// A plus sign.
    Plus,
}

/// What a route does with a request.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Sign and forward.
    #[default]
    Sign,
    /// Forward untouched.
    Pass,
    /// Refuse with 403.
    Deny,
}

/// How the path enters the canonical request.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum PathStyle {
    /// As sent, encoded once.
    S3,
    /// Normalised, encoded twice.
    Generic,
}

fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    checked(f64::deserialize(from)?)
}

fn optional_seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    Option::<f64>::deserialize(from)?.map(checked).transpose()
}

fn checked<E: serde::de::Error>(seconds: f64) -> Result<Duration, E> {
    Duration::try_from_secs_f64(seconds).map_err(|_| E::custom(format!("{seconds}: seconds, a number ≥ 0, are expected")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_object_gives_the_defaults() {
        let settings = EngineSettings::from_json("{}").unwrap();
        assert_eq!(settings.retry.attempts, None);
        assert_eq!(settings.body.hold, 1 << 20);
    }

    #[test]
    fn networks_are_reached_without_the_proxy() {
        let egress = r#"{"egress": {"proxy": "http://proxy.corp:3128", "no_proxy": ["127.0.0.0/8", "10.1.2.0/23", "fd00::/8", "[::1]"]}}"#;
        let egress = EngineSettings::from_json(egress).unwrap().egress;
        for host in ["127.0.0.1", "127.9.9.9", "10.1.3.255", "fd12::1", "::1"] {
            assert!(egress.proxy_for(host).is_none(), "{host}");
        }
        for host in ["128.0.0.1", "10.1.4.0", "fe00::1", "::2", "0.0.0.8"] {
            assert!(egress.proxy_for(host).is_some(), "{host}");
        }
        for (network, inside) in [("0.0.0.0/0", Some(true)), ("::/0", None), ("1.2.3.4/33", None), ("1.2.3.4/x", None), ("a/8", None)] {
            assert_eq!(in_network("1.2.3.4", network), inside, "{network}");
        }
    }

    #[test]
    fn a_proxy_s_password_is_shown_nowhere() {
        let egress = r#"{"egress": {"proxy": "http://me:p%40ss@proxy.corp:3128", "no_proxy": [".corp", "10.0.0.1"]}}"#;
        let egress = EngineSettings::from_json(egress).unwrap().egress;
        let proxy = egress.proxy_for("sqs.us-east-1.amazonaws.com").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.corp", 3128));
        assert_eq!(proxy.authorization.as_ref().unwrap().expose(), "Basic bWU6cEBzcw==");
        assert!(!format!("{egress:?}").contains("bWU6"));
        assert!(egress.proxy_for("a.corp").is_none() && egress.proxy_for("corp").is_none() && egress.proxy_for("10.0.0.1").is_none());
        assert!(egress.proxy_for("acorp").is_some());
        let error = EngineSettings::from_json(r#"{"egress": {"proxy": "socks5://me:pass@h"}}"#).unwrap_err();
        assert!(error.contains("egress.proxy") && !error.contains("pass@"), "{error}");
    }

    #[test]
    fn errors_name_the_field() {
        for (json, said) in [
            (r#"{"bdy": {}}"#, "bdy"),
            (r#"{"timeouts": {"connect": -1}}"#, "seconds"),
            (r#"{"retry": {"attempts": 0}}"#, "retry.attempts"),
            (r#"{"routes": [{"host": "*", "action": "sing"}]}"#, "sing"),
        ] {
            assert!(EngineSettings::from_json(json).unwrap_err().contains(said), "{json}");
        }
    }
}
