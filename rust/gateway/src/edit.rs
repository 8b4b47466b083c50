//! edit: what a route changes of a request's headers before it is signed, and which of them it leaves unsigned. Only what may be changed:
//! framing, Host and the signature's own headers are sigward's to set.

use std::sync::Arc;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderMap};
use http::{HeaderName, HeaderValue};

use crate::admit::is_hop_by_hop;
use crate::settings::RouteSettings;
use crate::sign::is_of_signature;

/// The headers of one route's `copy_headers`, `remove_headers` and `add_headers`, checked.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    copies: Vec<(HeaderName, HeaderName)>,
    removals: Vec<HeaderName>,
    additions: Vec<(HeaderName, HeaderValue)>,
}

impl Edits {
    /// The error is the field and why its value does not hold.
    pub(crate) fn new(settings: &RouteSettings) -> Result<Self, (&'static str, String)> {
        let copy = |(from, to): (&String, &String)| Ok((name(from)?, settable(to)?));
        let addition = |(name, value): (&String, &String)| {
            let value = value.parse().map_err(|_| format!("the value of {name:?} is not visible ASCII"))?;
            Ok((settable(name)?, value))
        };
        Ok(Self {
            copies: settings.copy_headers.iter().map(copy).collect::<Result<_, String>>().map_err(|why| ("copy_headers", why))?,
            removals: settings
                .remove_headers
                .iter()
                .map(|text| removable(text))
                .collect::<Result<_, _>>()
                .map_err(|why| ("remove_headers", why))?,
            additions: settings.add_headers.iter().map(addition).collect::<Result<_, String>>().map_err(|why| ("add_headers", why))?,
        })
    }

    /// Nothing is changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.copies.is_empty() && self.removals.is_empty() && self.additions.is_empty()
    }

    /// `Authorization` is removed, or goes on under another name.
    pub(crate) fn take_authorization(&self) -> bool {
        self.removals.contains(&AUTHORIZATION) || self.copies.iter().any(|(from, _)| *from == AUTHORIZATION)
    }

    /// Copies first, so that a header can be renamed; then removes, so that a client's own value can be replaced; then adds what is missing.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for (from, to) in &self.copies {
            let values: Vec<HeaderValue> = headers.get_all(from).iter().cloned().collect();
            if !values.is_empty() {
                headers.remove(to);
            }
            for mut value in values {
                // Whoever looks at the head that was sent is not to see an Authorization under another name.
                value.set_sensitive(true);
                headers.append(to, value);
            }
        }
        for name in &self.removals {
            headers.remove(name);
        }
        for (name, value) in &self.additions {
            headers.entry(name).or_insert_with(|| value.clone());
        }
    }
}

/// The headers of one route's `unsigned_headers`, checked. AWS refuses a signature that leaves out Host or an `x-amz-*` header ("Create a
/// signed AWS API request"), and S3 one without content-type ("Authenticating Requests: Using the Authorization Header"); what names the
/// call stays signed, so that nothing on the way can make another call of it.
pub(crate) fn unsigned(settings: &RouteSettings) -> Result<Arc<[HeaderName]>, (&'static str, String)> {
    let unsigned = |text: &String| {
        let name = name(text)?;
        if name == HOST || name.as_str().starts_with("x-amz-") {
            return Err(format!("{name} must be signed; AWS refuses the request otherwise"));
        }
        if NAMES_CALL.contains(&name.as_str()) {
            return Err(format!("{name} must be signed; it says which call a request is"));
        }
        Ok(name)
    };
    settings.unsigned_headers.iter().map(unsigned).collect::<Result<_, String>>().map_err(|why| ("unsigned_headers", why))
}

fn name(text: &str) -> Result<HeaderName, String> {
    if text.contains('*') {
        return Err(format!("{text:?}: a header is named in full, `*` stands for nothing here"));
    }
    text.parse().map_err(|_| format!("{text:?} is not the name of a header"))
}

fn removable(text: &str) -> Result<HeaderName, String> {
    let name = name(text)?;
    if name == HOST || name == CONTENT_LENGTH || is_hop_by_hop(&name) {
        return Err(format!("{name} is set by sigward itself; to send another Host, set `upstream`"));
    }
    if NAMES_CALL.contains(&name.as_str()) {
        return Err(format!("{name} says which call a request is, and rules have decided on that; let the client send it"));
    }
    Ok(name)
}

/// Headers that name a call, or say how the part of it that does is read.
const NAMES_CALL: &[&str] = &[
    "content-encoding",
    "content-type",
    "smithy-protocol",
    "x-amz-account-id",
    "x-amz-copy-source",
    "x-amz-rename-source",
    "x-amz-target",
    "x-amz-trailer",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
];

fn settable(text: &str) -> Result<HeaderName, String> {
    let name = removable(text)?;
    if name == AUTHORIZATION || is_of_signature(&name) {
        return Err(format!("{name} belongs to the signature"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(json: &str) -> Result<Edits, (&'static str, String)> {
        Edits::new(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn copied_then_removed_then_added() {
        let edits = edits(
            r#"{"copy_headers": {"Authorization": "X-Original-Authorization", "x-none": "x-nothing"}, "remove_headers": ["X-Old", "x-tenant"],
                "add_headers": {"x-tenant": "ours", "x-kept": "ours"}}"#,
        )
        .unwrap();
        let mut headers: HeaderMap = [
            ("authorization", "Bearer a"),
            ("x-old", "1"),
            ("x-tenant", "theirs"),
            ("x-kept", "theirs"),
            ("x-original-authorization", "b"),
        ]
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .into_iter()
        .collect();
        edits.apply(&mut headers);
        let mut left: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(left, ["authorization: Bearer a", "x-kept: theirs", "x-original-authorization: Bearer a", "x-tenant: ours"]);
        assert!(headers["x-original-authorization"].is_sensitive());
    }

    #[test]
    fn what_must_be_signed_cannot_be_left_unsigned() {
        let names = |json: &str| unsigned(&serde_json::from_str(json).unwrap());
        let found = names(r#"{"unsigned_headers": ["Range", "x-my-hop", "via"]}"#).unwrap();
        assert_eq!(found.iter().map(HeaderName::as_str).collect::<Vec<_>>(), ["range", "x-my-hop", "via"]);
        for name in ["Host", "X-Amz-Date", "x-amz-meta-a", "Content-Type", "content-encoding", "x-http-method-override", "x-*", "a b", ""] {
            let (field, why) = names(&format!(r#"{{"unsigned_headers": ["{name}"]}}"#)).unwrap_err();
            assert_eq!(field, "unsigned_headers", "{why}");
        }
    }

    #[test]
    fn what_is_sigward_s_to_set_is_refused_by_its_field() {
        for (json, field, said) in [
            (r#"{"remove_headers": ["Host"]}"#, "remove_headers", "host is set by sigward itself"),
            (r#"{"remove_headers": ["x-amz-*"]}"#, "remove_headers", "named in full"),
            (r#"{"remove_headers": ["a b"]}"#, "remove_headers", "not the name of a header"),
            (r#"{"add_headers": {"Transfer-Encoding": "chunked"}}"#, "add_headers", "set by sigward itself"),
            (r#"{"add_headers": {"x-amz-date": "now"}}"#, "add_headers", "belongs to the signature"),
            (r#"{"add_headers": {"X-Amz-Target": "A.B"}}"#, "add_headers", "says which call"),
            (r#"{"remove_headers": ["x-amz-copy-source"]}"#, "remove_headers", "says which call"),
            (r#"{"copy_headers": {"x-a": "content-type"}}"#, "copy_headers", "says which call"),
            (r#"{"add_headers": {"x-a": "a\nb"}}"#, "add_headers", "not visible ASCII"),
            (r#"{"copy_headers": {"x-a": "authorization"}}"#, "copy_headers", "belongs to the signature"),
        ] {
            let (found, why) = edits(json).unwrap_err();
            assert_eq!(found, field);
            assert!(why.contains(said), "{why}");
        }
    }
}
