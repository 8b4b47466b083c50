//! Every error that sigward answers with, once: what `x-sigward-error` may say. docs/errors.md is made of it.

use crate::refuse::Fault;

/// One slug with one side at fault.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The value of `x-sigward-error`.
    pub slug: &'static str,
    /// Who has to mend it.
    pub fault: Fault,
    /// HTTP statuses that it comes with.
    pub statuses: &'static [u16],
    /// What has happened.
    pub meaning: &'static str,
    /// What to do.
    pub mend: &'static str,
}

const fn client(statuses: &'static [u16], slug: &'static str, meaning: &'static str, mend: &'static str) -> Known {
    Known { slug, fault: Fault::Client, statuses, meaning, mend }
}

const fn sigward(statuses: &'static [u16], slug: &'static str, meaning: &'static str, mend: &'static str) -> Known {
    Known { slug, fault: Fault::Sigward, statuses, meaning, mend }
}

const fn upstream(statuses: &'static [u16], slug: &'static str, meaning: &'static str, mend: &'static str) -> Known {
    Known { slug, fault: Fault::Upstream, statuses, meaning, mend }
}

/// Whether a refusal of this kind is in [`ALL`].
pub(crate) fn is_known(slug: &str, status: u16, fault: Fault) -> bool {
    ALL.iter().any(|known| known.slug == slug && known.fault == fault && known.statuses.contains(&status))
}

/// By side at fault, then by slug.
#[rustfmt::skip]
pub const ALL: &[Known] = &[
    client(&[400], "ambiguous-call", "The request names its call twice, and differently: two `X-Amz-Target`, a target beside another `Action`, a repeated `prefix`. Sigward and AWS could read it differently.", "Name the call once."),
    client(&[403], "ambiguous-signature", "A client with an issued key, or `clients.required`: the request has two signatures: a repeated Authorization header or `X-Amz-` parameter, or a presigned URL beside an Authorization header.", "Send one signature."),
    client(&[400], "bad-byte", "A header's name or value, the method or the path holds a byte that cannot be signed.", "Send printable ASCII."),
    client(&[400], "bad-deadline", "`x-sigward-deadline` is not a time.", "Give seconds, or a number with ms, s or m, up to a day: `2.5`, `500ms`."),
    client(&[400], "bad-expires", "A presigned URL would live longer than it may.", "Give 1 to 604,800 seconds."),
    client(&[400], "bad-host", "The Host header is missing, repeated, or not a host; a listener without `upstream` sends a request to the endpoint that it names.", "Send one Host header, that of an AWS endpoint."),
    client(&[400], "bad-length", "`Content-Length` is repeated, not a number, or beside `Transfer-Encoding`; or that is empty, repeated, or in HTTP/1.0.", "Send one length, or chunks."),
    client(&[400], "bad-request", "The request is not HTTP: a line or a header is malformed.", "Send a request that keeps to RFC 9110 and RFC 9112."),
    client(&[400], "bad-target", "The request target is not a path, an http URL, or, with CONNECT, a host and a port.", "Send a path to a reverse listener, a URL or CONNECT to the proxy."),
    client(&[400], "bad-time", "The time cannot be written in a signature.", "Set the clock right."),
    client(&[505], "bad-version", "The request is not of HTTP/1.0, HTTP/1.1 or, where it is served, HTTP/2.", "Send HTTP/1.1."),
    client(&[400], "body-failed", "The request's body did not come to its end.", "Send all of it; see `timeouts.idle`."),
    client(&[413], "body-too-large", "The body is larger than `body.max`, or than `body.spool_max` where it must be spooled.", "Send it in parts, or raise the setting."),
    client(&[400], "connect-inside", "CONNECT came inside a connection that is looked into, or to a reverse listener.", "Send it to the forward listener."),
    client(&[403], "content-sha256-mismatch", "A client with an issued key: the body is not the one that was signed.", "Find what changed it on the way."),
    client(&[403], "customer-endpoint", "The endpoint belongs to an AWS customer (execute-api, lambda-url, AppSync, VPC Lattice, AgentCore gateways), `customer_endpoints` is `refuse`, and no `[[route]]` names the host.", "If you trust the endpoint, name its host in a `[[route]]`."),
    client(&[403], "denied", "A `[[route]]` with `action = \"deny\"` fits.", "Ask the operator to change the route."),
    client(&[400], "empty-field", "The service, the region or the like is empty.", "Name it in a `[[route]]`."),
    client(&[403], "forbidden-address", "The host is, or has, a loopback, link-local or metadata address.", "If it is meant, name the host in a `[[route]]`, or give one `connect` or `upstream`."),
    client(&[408], "head-timeout", "The request's head did not come within `timeouts.client_head`.", "Send it faster, or raise the setting."),
    client(&[431], "head-too-large", "The head is larger than `limits.header_bytes` or has more headers than `limits.headers`.", "Send less, or raise the setting."),
    client(&[421], "host-mismatch", "The Host header names another host than the one that the request is bound for.", "Send the Host header of the host that you connect to; a `[[route]]` with `upstream` or `connect` sends it elsewhere."),
    client(&[403], "incomplete-signature", "A client with an issued key: the signature lacks a part, or leaves out a header.", "Sign as for AWS: Signature Version 4 over Host and every `x-amz-` header."),
    client(&[403], "invalid-access-key-id", "`clients.required`: the access key id is not one that this sigward has issued.", "Sign with a key of `sigward client key NAME`."),
    client(&[403], "invalid-token", "A client with an issued key sent a session token.", "Unset `AWS_SESSION_TOKEN`: issued keys have none."),
    client(&[403], "missing-authentication-token", "`clients.required`: the request is not signed, or it asks for a tunnel.", "Sign with a key of `sigward client key NAME`. For a tunnel, pass its host and port in a `[[route]]`: `host`, `port`, `action = \"pass\"`."),
    client(&[400], "missing-host", "There is no Host to sign.", "Send a Host header."),
    client(&[400], "not-a-proxy-request", "The forward listener got a path instead of a URL or CONNECT.", "Set it as a proxy, or send requests to a `[[reverse]]` listener."),
    client(&[403], "not-aws", "A reverse listener: Host is not a host of AWS's that takes SigV4, and no route names it.", "Send the Host of an AWS endpoint, give the listener an `upstream`, or add a `[[route]]` with `host` and `service`."),
    client(&[403], "own-authorization", "The request brings a credential of its own (Bearer, Basic, a presigned URL, a form), and `authorization` is `refuse`.", "Send the request unsigned, or set `authorization = \"keep\"` in its `[[route]]`."),
    client(&[400], "plain-text-port", "A request that is to be signed asks for a plain-text port other than 80.", "Leave the port away, or use https."),
    client(&[403], "request-expired", "A client with an issued key: the presigned URL has expired.", "Presign a new one."),
    client(&[403], "request-time-too-skewed", "A client with an issued key: its clock is wrong.", "Set the client's clock right."),
    client(&[403], "signature-does-not-match", "A client with an issued key: the signature is wrong, or for another service.", "Is it the secret of `sigward client key`, of this sigward and of the same rotation? Did something change the request?"),
    client(&[403], "signed-header-removed", "A client with an issued key: `Connection` names a header that is signed, so that it would not go on.", "Take it out of the Connection header."),
    client(&[414], "target-too-long", "Path and query are longer than `limits.target_bytes`.", "Shorten them, or raise the setting."),
    client(&[400], "too-long", "A field of the signature is longer than it may be.", "Shorten it."),
    client(&[403], "tunnel-refused", "The connection is not HTTP and goes to an AWS host, and a `[[route]]` might deny it, or `customer_endpoints` is `refuse`.", "If it is meant, pass its host and port in a `[[route]]`: `host`, `port`, `action = \"pass\"`."),
    client(&[501], "unknown-coding", "`Transfer-Encoding` is not `chunked`.", "Send the body as it is, or in chunks."),
    client(&[403], "unknown-service", "A reverse listener: Host may be a service's of AWS's, but the table of hosts does not have it.", "Add a `[[route]]` with `host` and `service` (the signing name), or make a newer table with `sigward knowledge refresh`."),
    client(&[403], "unsigned-payload", "A client with an issued key, and `clients.payload` is `signed`: the signature does not cover the body (`UNSIGNED-PAYLOAD`, an unsigned trailer, a presigned upload, an event stream).", "Sign the body's SHA-256, or ask the operator for `payload = \"any\"`."),
    sigward(&[503], "audit-log-unavailable", "The audit log cannot be written, or a line was not written within two seconds. Sigward signs no call that it cannot log.", "Make room on its disk, read its pipe, or use a faster disk; `audit_when_full = \"drop\"` serves without it."),
    sigward(&[503], "ca-expired", "The CA has expired, so clients would refuse its certificates.", "Pause log rotation if it sends SIGHUP, run `sigward ca renew`, let clients trust the new certificate, then send SIGHUP to sigward or restart it."),
    sigward(&[500], "crypto", "The cryptographic library failed.", "Try again."),
    sigward(&[500], "hook-failed", "Of the mitmproxy front: an addon, or a hook of sigward's, failed. The request was not sent.", "See sigward's log."),
    sigward(&[500], "internal", "Sigward failed: no room for spooled bodies, or a bug.", "See sigward's log; `body.spool_dir` needs room for large bodies."),
    sigward(&[508], "loop", "The request came back to the sigward process that sent it (see `Via`), or the connection leads to one of its own listeners.", "Find what sends sigward's requests back to it: an `upstream`, `connect` or `egress.proxy` that is its own address, DNS, or iptables, which must exempt sigward's user. Call its listeners directly, without a proxy."),
    sigward(&[503], "no-credentials", "The identity has no usable AWS credentials.", "Give sigward credentials; `sigward whoami --explain` says what was tried."),
    sigward(&[403], "not-vouched-for", "The CA that clients trust is limited, and does not vouch for the host.", "Name the host in a `[[route]]` or in `ca_names`, and make the CA anew with `sigward ca renew`; clients must trust it anew."),
    sigward(&[500], "out-of-order", "A bug in sigward.", "Please report it."),
    sigward(&[503], "overloaded", "`limits.in_flight` or `limits.held_bytes` is reached.", "Try again; raise the setting, or run more of it."),
    sigward(&[503], "slow-down", "A limit of `[[pace]]` or one that AWS documents is reached, and the wait would be longer than `max_wait`.", "Call less often, raise `max_wait` or, if AWS has granted more, `rate`; see `sigward quotas`."),
    sigward(&[502], "unknown-service", "A route signs for a host that does not say which AWS service it is.", "Set `service` in the route."),
    upstream(&[503], "circuit-open", "The endpoint has failed `circuit.failures` times in a row.", "Try again after `Retry-After`."),
    upstream(&[502], "connect-failed", "No connection to the endpoint.", "Check the network, DNS and the endpoint's name."),
    upstream(&[502], "connection-broken", "The connection broke before an answer.", "Try again."),
    upstream(&[504], "head-timeout", "The endpoint sent no answer within `timeouts.head` or `timeouts.total`.", "Try again, or raise the setting."),
    upstream(&[502], "tls-failed", "The endpoint's certificate was not verified.", "If it has a private CA, add that to `tls.ca_files`."),
    upstream(&[503], "too-many-requests", "`circuit.concurrency` requests are under way to the endpoint.", "Try again, or raise the setting."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slug_stands_once_for_each_side() {
        for pair in ALL.windows(2) {
            let [one, next] = pair else { continue };
            assert!((one.fault as u8, one.slug) < (next.fault as u8, next.slug), "{}", next.slug);
        }
    }

    #[test]
    fn a_refusal_is_known_by_all_three() {
        assert!(is_known("head-timeout", 408, Fault::Client) && is_known("head-timeout", 504, Fault::Upstream));
        assert!(!is_known("head-timeout", 408, Fault::Upstream) && !is_known("head-time", 408, Fault::Client));
    }
}
