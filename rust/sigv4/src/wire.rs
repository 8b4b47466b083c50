//! The form of a request target that every verifier reads alike.
//!
//! Libraries disagree about `+` in a query, about `%7e`, about a blank. What goes on the wire is therefore the canonical
//! form itself, and that is signed: whether a verifier decodes and encodes or takes it as it comes, it sees the same.

use crate::Style;
pub use crate::encode::percent_decoded;
use crate::encode::{Keep, decoded, push_percent, push_recoded};

/// `path` and `query` as sent by a client (no `?`) in the form to send on, joined by `?` if there is a query.
///
/// S3: every byte of the path in its one spelling; `//`, `.` and `..` stay. Generic: as sent, but bytes that no URI may hold
/// are encoded; AWS normalises such paths itself, so `%2F` must stay what it is. Query: every name and value in its one
/// spelling, a literal `+` as `%2B` (it is a blank only in form bodies), empty pairs left out, a name without `=` kept so.
pub fn path_and_query(style: Style, path: &[u8], query: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len() + query.len() + 16);
    match style {
        Style::S3 => push_recoded(&mut out, path, Keep::Slash),
        Style::Generic => push_legal(&mut out, path),
    }
    if out.is_empty() {
        out.push(b'/');
    }
    let mut separator = b'?';
    for pair in query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        out.push(separator);
        separator = b'&';
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        push_recoded(&mut out, halves.next().unwrap_or_default(), Keep::Unreserved);
        if let Some(value) = halves.next() {
            out.push(b'=');
            push_recoded(&mut out, value, Keep::Unreserved);
        }
    }
    out
}

/// RFC 3986's `pchar` and `/` stay, and so does each `%XX`.
fn push_legal(out: &mut Vec<u8>, path: &[u8]) {
    for (at, &byte) in path.iter().enumerate() {
        let legal = match byte {
            b'%' => decoded(path.get(at..).unwrap_or_default()).is_some(),
            byte => byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=:@".contains(&byte),
        };
        if legal { out.push(byte) } else { push_percent(out, byte) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(style: Style, target: &str) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        String::from_utf8(path_and_query(style, path.as_bytes(), query.as_bytes())).unwrap()
    }

    #[test]
    fn one_spelling() {
        for (sent, s3, generic) in [
            ("", "/", "/"),
            ("/a b", "/a%20b", "/a%20b"),
            ("/a+b", "/a%2Bb", "/a+b"),
            ("/%7e/%c3%a9", "/~/%C3%A9", "/%7e/%c3%a9"),
            ("/a//b/../c", "/a//b/../c", "/a//b/../c"),
            ("/x%2Fy", "/x/y", "/x%2Fy"),
            ("/100%", "/100%25", "/100%25"),
            ("/%zz", "/%25zz", "/%25zz"),
            ("/é", "/%C3%A9", "/%C3%A9"),
            ("/a#b", "/a%23b", "/a%23b"),
            ("/?acl", "/?acl", "/?acl"),
            ("/?a=b+c&&d=%7e&e=&f=g=h", "/?a=b%2Bc&d=~&e=&f=g%3Dh", "/?a=b%2Bc&d=~&e=&f=g%3Dh"),
            ("/?", "/", "/"),
        ] {
            assert_eq!(wire(Style::S3, sent), s3, "{sent}");
            assert_eq!(wire(Style::Generic, sent), generic, "{sent}");
        }
    }
}
