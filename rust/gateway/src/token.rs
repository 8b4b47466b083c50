//! Idempotency tokens: an operation that takes one may be repeated if the request bears one, so it is added where the client left
//! it out. AWS's SDKs do the same (`idempotencyToken` in the models).

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, HeaderMap};
use serde_json::{Map, Value};

use crate::recognise::form::{is_form, is_json, pairs};

/// Whether a body has its token, or gets one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// It is there.
    There,
    /// Here is the body with it.
    Added(Bytes),
    /// It cannot be told, or not be added.
    Unknown,
}

/// `name`: the member's. `made`: a token, if one is to be added.
pub(crate) fn ensure(headers: &HeaderMap, body: &[u8], name: &str, made: impl FnOnce() -> Option<String>) -> Token {
    if headers.contains_key(CONTENT_ENCODING) {
        return Token::Unknown;
    }
    if is_form(headers) {
        if pairs(body).any(|(own, _)| *own == *name.as_bytes()) {
            return Token::There;
        }
        let Some(made) = made() else { return Token::Unknown };
        let joint = if body.is_empty() || body.ends_with(b"&") { "" } else { "&" };
        return Token::Added([body, format!("{joint}{name}={made}").as_bytes()].concat().into());
    }
    if !is_json(headers) {
        return Token::Unknown;
    }
    let Ok(members) = serde_json::from_slice::<Map<String, Value>>(body) else { return Token::Unknown };
    if members.contains_key(name) {
        return Token::There;
    }
    let (Some(made), Some(open)) = (made(), body.iter().position(|byte| *byte == b'{')) else { return Token::Unknown };
    let (before, after) = body.split_at(open + 1);
    let joint = if members.is_empty() { "" } else { "," };
    Token::Added([before, format!("\"{name}\":\"{made}\"{joint}").as_bytes(), after].concat().into())
}

/// A version 4 UUID of random bits (RFC 9562).
pub(crate) fn uuid(random: u128) -> String {
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::CONTENT_TYPE;

    #[test]
    fn tokens_are_added_only_where_they_are_missing_and_can_be() {
        let case = |content_type: &'static str, body: &str| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
            match ensure(&headers, body.as_bytes(), "clientToken", || Some("T".into())) {
                Token::Added(body) => String::from_utf8(body.to_vec()).unwrap(),
                Token::There => "there".into(),
                Token::Unknown => "unknown".into(),
            }
        };
        assert_eq!(case("application/x-amz-json-1.1", r#" {"a": {"clientToken": 1}}"#), r#" {"clientToken":"T","a": {"clientToken": 1}}"#);
        assert_eq!(case("application/json", "{}"), r#"{"clientToken":"T"}"#);
        assert_eq!(case("application/json", r#"{"clientToken": null}"#), "there");
        assert_eq!(case("application/json", r#"{"clientToken": "x"}"#), "there");
        for body in ["", "[]", "{", "null", r#"{"a"}"#, "\u{feff}{}"] {
            assert_eq!(case("application/json", body), "unknown", "{body}");
        }
        assert_eq!(
            case("application/x-www-form-urlencoded; charset=utf-8", "Action=A&clientTokens=1"),
            "Action=A&clientTokens=1&clientToken=T"
        );
        assert_eq!(case("application/x-www-form-urlencoded", "Action=A&clientToken="), "there");
        assert_eq!(case("application/cbor", "{}"), "unknown");
    }

    #[test]
    fn uuids() {
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
