//! client: who asks, as far as a key tells that sigward issued.
//!
//! A client with an issued key signs its requests as for AWS; whoever holds the key is that client. The signature is checked
//! before anything is sent, then taken out, and the request is signed anew with real credentials. `SigV4` needs the secret itself
//! to check a signature, so no hash of it would do; instead nothing is kept of a single key: id and secret are derived from one
//! master key, the client's name and a number that counts rotations.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderName;
use http::header::{AUTHORIZATION, HeaderMap};
use sha2::Sha256;
use sigward_sigv4::chunked::Framing;
use sigward_sigv4::verify::{Claim, Place, Rules, Verified, VerifyError};
use sigward_sigv4::wire::percent_decoded;
use sigward_sigv4::{Credentials, Payload, QueryPlus, Request, Style};
use zeroize::Zeroizing;

use crate::admit::{BodySize, RequestHead, is_hop_by_hop, shown};
use crate::body::{decoded_length, is_event_stream, is_hash};
use crate::recognise::authentication::is_presigned;
use crate::recognise::style_of;
use crate::refuse::Refusal;
use crate::settings::{ClientPayload, ClientsSettings};
use crate::sign::{CONTENT_SHA256, is_of_signature};

/// Bytes of a master key.
pub const MASTER: usize = 32;

/// The key pair of a client: access key id (20 characters, `SGWD…`) and secret access key (40 characters).
/// `master`: [`MASTER`] random bytes. Another `rotation` gives another pair.
pub fn issue(master: &[u8; MASTER], name: &str, rotation: u32) -> (String, Zeroizing<String>) {
    let derive = |part: &str| -> Zeroizing<[u8; 32]> {
        // A key of any length will do.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(master) else { return Zeroizing::default() };
        for piece in ["sigward issued key 1", part, name, &rotation.to_string()] {
            mac.update(&(piece.len() as u64).to_be_bytes());
            mac.update(piece.as_bytes());
        }
        Zeroizing::new(mac.finalize().into_bytes().into())
    };
    let mut id = String::from("SGWD");
    for byte in derive("id").iter().take(8) {
        // Writing to a String does not fail.
        let _ = write!(id, "{byte:02X}");
    }
    let secret = derive("secret");
    (id, Zeroizing::new(STANDARD.encode(secret.get(..30).unwrap_or_default())))
}

/// One client that has an issued key.
#[derive(Debug)]
pub struct Client {
    /// As in the settings.
    pub name: Arc<str>,
    /// Whose credentials its requests get where no route says.
    pub identity: Option<Arc<str>>,
    credentials: Credentials,
}

/// All of them, by access key id.
#[derive(Debug, Default)]
pub struct Clients {
    required: bool,
    payload: ClientPayload,
    by_key: HashMap<String, Arc<Client>>,
}

impl Clients {
    /// Derives every client's key.
    pub fn new(settings: &ClientsSettings, master: &[u8; MASTER]) -> Self {
        let client = |client: &crate::settings::ClientSettings| {
            let (id, secret) = issue(master, &client.name, client.rotation);
            // What `issue` makes is always taken.
            let credentials = Credentials::new(&id, &secret, None).ok()?;
            Some((
                id,
                Arc::new(Client { name: client.name.as_str().into(), identity: client.identity.as_deref().map(Arc::from), credentials }),
            ))
        };
        Self { required: settings.required, payload: settings.payload, by_key: settings.issued.iter().filter_map(client).collect() }
    }

    /// True if a request without an issued key is not served.
    pub fn required(&self) -> bool {
        self.required
    }

    /// True if there is nothing to look for.
    pub(crate) fn is_off(&self) -> bool {
        self.by_key.is_empty() && !self.required
    }

    /// True if a signature must cover the body.
    pub(crate) fn must_cover_body(&self) -> bool {
        self.payload == ClientPayload::Signed
    }

    /// What a request says of its signature, before anything is taken out of its head. `None`: it is nobody's, and that is
    /// allowed: dummy keys, no signature, or a URL presigned for AWS itself.
    pub(crate) fn claimed(&self, head: &RequestHead, asked: Asked) -> Result<Option<Box<Claimed>>, Refusal> {
        let known = |id: &str| self.by_key.get(id).map(Arc::clone);
        let claimant = || asked.key_ids().iter().find_map(|id| known(id));
        if let Some(twice) = asked.signed_twice() {
            let client = claimant();
            if self.required || client.is_some() {
                return Err(signed_twice(client.as_deref(), &twice));
            }
        }
        match asked.with(head.method.as_str(), Payload::Given(b""), Claim::of) {
            Ok(claim) => match known(claim.access_key_id()) {
                Some(client) => Ok(Some(Box::new(Claimed { client, claim, asked, checked: false, query_plus: None }))),
                None if self.required => Err(Refusal::client(
                    403,
                    "invalid-access-key-id",
                    format!("the access key id {:?} is not one that this sigward has issued.", shown(claim.access_key_id())),
                    "Sign with a key of `sigward client key NAME`; only such requests are served here (clients.required).",
                )),
                None => Ok(None),
            },
            Err(error) => match claimant() {
                Some(client) => Err(refusal(&client.name, &error)),
                None if self.required => Err(unsigned()),
                None => Ok(None),
            },
        }
    }
}

/// Why nothing is served without an issued key.
pub(crate) fn unsigned() -> Refusal {
    Refusal::client(
        403,
        "missing-authentication-token",
        "the request is not signed with a key that this sigward has issued.",
        "Sign with a key of `sigward client key NAME`; only such requests are served here (clients.required).",
    )
}

/// A request's head as the client signed it.
pub(crate) struct Asked {
    path: String,
    headers: HeaderMap,
}

impl Asked {
    pub(crate) fn of(head: &RequestHead) -> Self {
        Self { path: head.path.clone(), headers: head.headers.clone() }
    }

    fn with<T>(&self, method: &str, payload: Payload<'_>, look: impl FnOnce(&Request<'_>) -> T) -> T {
        let (path, query) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let headers: Vec<(&[u8], &[u8])> = self.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())).collect();
        look(&Request { method, path: path.as_bytes(), query: query.as_bytes(), headers: &headers, payload })
    }

    /// The ids in all signatures that it has, also where they cannot be read.
    fn key_ids(&self) -> Vec<String> {
        let in_headers =
            self.headers.get_all(AUTHORIZATION).iter().filter_map(|value| Some(value.to_str().ok()?.split_once("Credential=")?.1));
        let in_query = parameters(&self.path).filter(|(name, _)| *name == "X-Amz-Credential").map(|(_, value)| value);
        let texts = in_headers.map(ToOwned::to_owned).chain(in_query.map(decoded));
        texts.filter_map(|text| text.split(['/', ',', ' ']).next().map(str::to_owned)).collect()
    }

    /// Which part of a signature it has twice, or in two places: another reader may believe the other.
    fn signed_twice(&self) -> Option<String> {
        let repeated = |name: &HeaderName| self.headers.get_all(name).iter().nth(1).is_some();
        let mut names = self.headers.keys().filter(|name| **name == AUTHORIZATION || is_of_signature(name));
        if let Some(name) = names.find(|name| repeated(name)) {
            return Some(format!("the header {name} comes more than once"));
        }
        let mut seen: Vec<&str> = Vec::new();
        for (name, _) in parameters(&self.path) {
            if seen.contains(&name) {
                return Some(format!("the query has {name} more than once"));
            }
            seen.push(name);
        }
        // Of Signature Version 2, and of CloudFront.
        let old = is_presigned(&without_signature(&self.path));
        let both = self.headers.contains_key(AUTHORIZATION) && (old || !seen.is_empty());
        if both {
            return Some("it has an Authorization header, and a signature in the query".to_owned());
        }
        (old && !seen.is_empty()).then(|| "the query has signatures of two kinds".to_owned())
    }
}

/// The parameters of a query that belong to a presigned URL's signature, by AWS's spelling whatever theirs is, and their values as sent.
fn parameters(path: &str) -> impl Iterator<Item = (&'static str, &str)> {
    let query = path.split_once('?').map(|(_, query)| query).unwrap_or_default();
    query.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((own_parameter(name)?, value))
    })
}

/// AWS's spelling of a parameter that belongs to a presigned URL's signature.
fn own_parameter(name: &str) -> Option<&'static str> {
    const OWN: &[&str] = &[
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-Region-Set",
        "X-Amz-S3session-Token",
        "X-Amz-Security-Token",
        "X-Amz-Signature",
        "X-Amz-SignedHeaders",
    ];
    let own = |name: &str| OWN.iter().find(|own| own.eq_ignore_ascii_case(name)).copied();
    if name.contains('%') { own(&decoded(name)) } else { own(name) }
}

fn decoded(text: &str) -> String {
    String::from_utf8_lossy(&percent_decoded(text.as_bytes())).into_owned()
}

/// A request that says that it is a client's. Its signature may still have to be checked.
pub(crate) struct Claimed {
    pub(crate) client: Arc<Client>,
    claim: Claim,
    asked: Asked,
    checked: bool,
    /// As what it is found to be signed.
    query_plus: Option<QueryPlus>,
}

impl Claimed {
    /// The signature stands in the query.
    pub(crate) fn in_query(&self) -> bool {
        self.claim.place() == Place::Query
    }

    /// It is signed as for S3, which need not cover the body.
    pub(crate) fn as_for_s3(&self) -> bool {
        style_of(self.claim.signing_name()) == Style::S3
    }

    /// The signature can be checked only when the whole body is known.
    pub(crate) fn needs_body(&self) -> bool {
        !self.checked
    }

    /// A header that it has signed and that does not go on as it was: `Connection` names it. Those of a hop say nothing of the call, and
    /// some SDKs sign all that they send.
    pub(crate) fn lost_header(&self, headers: &HeaderMap) -> Option<&str> {
        self.claim.signed_headers().find(|name| {
            let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { return false };
            let for_sigward = is_hop_by_hop(&name) || name.as_str().starts_with("x-sigward-");
            !for_sigward && !headers.get_all(&name).iter().eq(self.asked.headers.get_all(&name).iter())
        })
    }

    /// It says itself what the body's hash is.
    pub(crate) fn tells_hash(&self) -> bool {
        self.asked.headers.get(CONTENT_SHA256).is_some_and(is_hash)
    }

    /// How long the body is that its signature does not cover.
    pub(crate) fn uncovered(&self, size: BodySize) -> BodySize {
        const NONE: BodySize = BodySize::Known(0);
        let headers = &self.asked.headers;
        match headers.get(CONTENT_SHA256) {
            // Each message has a signature of its own, which nobody checks.
            _ if is_event_stream(headers) => size,
            None if self.in_query() && self.as_for_s3() => size,
            None => NONE,
            Some(hash) if is_hash(hash) => NONE,
            Some(keyword) => match Framing::of_keyword(keyword.as_bytes()) {
                Some((Framing::Signed | Framing::SignedTrailer, _)) => NONE,
                Some((Framing::UnsignedTrailer, _)) => decoded_length(headers).map_or(BodySize::Unknown, BodySize::Known),
                None => size,
            },
        }
    }

    /// The refusal of a body that the signature does not cover.
    pub(crate) fn unsigned_payload(&self) -> Refusal {
        Refusal::client(
            403,
            "unsigned-payload",
            format!(
                "client {:?}: the signature does not cover the body, and this sigward asks for that (clients.payload).",
                self.client.name
            ),
            "Sign the body's SHA-256 instead of UNSIGNED-PAYLOAD: in AWS SDKs, s3.payload_signing_enabled = true and request_checksum_calculation = when_required.",
        )
    }

    /// What the client takes a raw `+` in its query for, as far as its signature says so and has been checked.
    pub(crate) fn query_plus(&self) -> Option<QueryPlus> {
        self.query_plus
    }

    /// Only its signature, which covers the body, will say what a raw `+` in its query stands for.
    pub(crate) fn body_tells_plus(&self) -> bool {
        !self.checked && self.asked.path.split_once('?').is_some_and(|(_, query)| query.contains('+'))
    }

    /// Checks as soon as what was signed is known: at once, if the head tells the body's hash, or that there is no body.
    pub(crate) fn check_head(&mut self, method: &str, size: BodySize, unix_seconds: u64) -> Result<Option<Verified>, Refusal> {
        let payload = match size {
            _ if self.asked.headers.contains_key(CONTENT_SHA256) || self.as_for_s3() => Payload::Given(b""),
            BodySize::Known(0) => Payload::EMPTY,
            _ => return Ok(None),
        };
        let verified = self.check(method, payload, unix_seconds)?;
        self.checked = true;
        Ok(Some(verified))
    }

    /// Checks with the body: its hash, too, where the head tells one.
    pub(crate) fn check_body(&mut self, method: &str, digest: Option<[u8; 32]>, unix_seconds: u64) -> Result<(), Refusal> {
        match digest {
            Some(digest) => self.check(method, Payload::Digest(digest), unix_seconds)?,
            None if self.checked => return Ok(()),
            None => self.check(method, Payload::Given(b""), unix_seconds)?,
        };
        self.checked = true;
        Ok(())
    }

    fn check(&mut self, method: &str, payload: Payload<'_>, unix_seconds: u64) -> Result<Verified, Refusal> {
        let rules = Rules::new(style_of(self.claim.signing_name()), unix_seconds);
        let verified = self.asked.with(method, payload, |request| self.claim.verify(&self.client.credentials, request, &rules));
        let verified = verified.map_err(|error| refusal(&self.client.name, &error))?;
        self.query_plus = verified.query_plus;
        Ok(verified)
    }
}

impl fmt::Debug for Claimed {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Claimed").field("client", &self.client.name).field("checked", &self.checked).finish_non_exhaustive()
    }
}

/// Of two signatures, one is not checked.
fn signed_twice(client: Option<&Client>, why: &str) -> Refusal {
    let whose = client.map(|client| format!("client {:?}: ", client.name)).unwrap_or_default();
    Refusal::client(
        403,
        "ambiguous-signature",
        format!("{whose}the request is signed twice: {why}."),
        "Send one signature: an Authorization header, or a presigned URL.",
    )
}

/// A header that a client signed and that ends here.
pub(crate) fn header_lost(client: &str, name: &str) -> Refusal {
    Refusal::client(
        403,
        "signed-header-removed",
        format!("client {client:?}: the header {name:?} is signed, but Connection names it, so it ends here."),
        "Take it out of the Connection header.",
    )
}

/// The client has signed another query than the one that rules have decided on.
pub(crate) fn plus_unlike(client: &str) -> Refusal {
    Refusal::client(
        403,
        "signature-does-not-match",
        format!(
            "client {client:?}: a `+` in the query is signed as what it is not taken for here, and the body is too large to know before."
        ),
        "Send %20 for a blank and %2B for a plus, or set `query_plus` in a [[route]].",
    )
}

/// A signature for S3 on a request to another service.
pub(crate) fn wrong_service(name: &str, service: &str) -> Refusal {
    Refusal::client(
        403,
        "signature-does-not-match",
        format!("client {name:?}: the request is signed for S3, but goes to {service}."),
        "Sign it for the service that it is for.",
    )
}

/// In AWS's words, so that SDKs that mend a wrong clock do so.
fn refusal(name: &str, error: &VerifyError) -> Refusal {
    let (slug, hint) = match error {
        VerifyError::Skewed(_) => ("request-time-too-skewed", "Set the client's clock right."),
        VerifyError::Expired(_) => ("request-expired", "Presign a new URL."),
        VerifyError::SessionToken => ("invalid-token", "An issued key has no session token: unset AWS_SESSION_TOKEN."),
        VerifyError::Signature(_) => (
            "signature-does-not-match",
            "Is it the secret of `sigward client key`, of this sigward and of the same rotation? Or did something on the way change the request?",
        ),
        VerifyError::PayloadHash { .. } => ("content-sha256-mismatch", "Something changed the body after it was signed."),
        _ => ("incomplete-signature", "Sign as for AWS: Signature Version 4 over host and every x-amz- header."),
    };
    Refusal::client(403, slug, format!("client {name:?}: {error}."), hint)
}

/// The parameters of a presigned URL's own signature taken out.
pub(crate) fn without_signature(path: &str) -> String {
    let Some((path, query)) = path.split_once('?') else { return path.to_owned() };
    let kept: Vec<&str> = query.split('&').filter(|pair| own_parameter(pair.split('=').next().unwrap_or_default()).is_none()).collect();
    if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_depends_on_all_three() {
        let (id, secret) = issue(&[1; 32], "ci", 1);
        assert_eq!((id.len(), secret.len(), id.get(..4)), (20, 40, Some("SGWD")));
        assert_eq!(issue(&[1; 32], "ci", 1), (id.clone(), secret.clone()));
        for (master, name, rotation) in [([2; 32], "ci", 1), ([1; 32], "ci2", 1), ([1; 32], "ci", 2), ([1; 32], "ci2", 0)] {
            let other = issue(&master, name, rotation);
            assert!(other.0 != id && other.1 != secret);
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let issued = vec![crate::settings::ClientSettings { name: "ci".into(), ..Default::default() }];
        let clients = Clients::new(&ClientsSettings { required: true, issued, ..ClientsSettings::default() }, &[1; 32]);
        let (_, secret) = issue(&[1; 32], "ci", 1);
        assert!(!format!("{clients:?}").contains(secret.as_str()));
    }

    #[test]
    fn a_presigned_urls_own_parameters_go() {
        let path = "/k?versionId=3&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz%2DCredential=a%2Fb&x-amz-date=1&X-Amz-Signature=ab&x=1";
        assert_eq!(without_signature(path), "/k?versionId=3&x=1");
        assert_eq!(without_signature("/k?X-Amz-Signature=ab"), "/k");
    }
}
