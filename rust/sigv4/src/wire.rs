//! The form of a request target that every verifier reads alike.
//!
//! Libraries disagree about `+` in a query, about `%7e`, about a blank. What goes on the wire is therefore the canonical
//! form itself, and that is signed: whether a verifier decodes and encodes or takes it as it comes, it sees the same.
//! A raw `+` in a query is a blank, as clients write it, unless [`QueryPlus`] says otherwise; `%2B` is a plus sign, and so is `+` in a path.

pub use crate::encode::percent_decoded;
use crate::encode::{Keep, decoded, is_unreserved, push_percent, push_query_recoded, push_recoded};
use crate::{QueryPlus, Style};

/// `path` and `query` as sent by a client (no `?`) in the form to send on, joined by `?` if there is a query.
///
/// S3: every byte of the path in its one spelling; `//`, `.` and `..` stay. Generic: unreserved letters stand for themselves,
/// escapes are in capitals, bytes that no URI may hold are encoded, and all else is as sent: AWS normalises such paths itself,
/// and `%2F` or `%3A` in an ARN must stay. Query: every name and value in its one spelling, a raw `+` as `plus` says, empty pairs left
/// out, a name without `=` kept so.
pub fn path_and_query(style: Style, plus: QueryPlus, path: &[u8], query: &[u8]) -> Vec<u8> {
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
        push_query_recoded(&mut out, halves.next().unwrap_or_default(), plus.spelling());
        if let Some(value) = halves.next() {
            out.push(b'=');
            push_query_recoded(&mut out, value, plus.spelling());
        }
    }
    out
}

/// RFC 3986's `pchar` and `/` stay; `%XX` stays unless it stands for an unreserved letter (RFC 3986, 6.2.2).
fn push_legal(out: &mut Vec<u8>, path: &[u8]) {
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, decoded(path.get(path.len() - after.len() - 1..).unwrap_or_default())) {
            (b'%', Some(letter)) => {
                rest = after.get(2..).unwrap_or_default();
                if is_unreserved(letter) { out.push(letter) } else { push_percent(out, letter) }
            }
            (byte, _) if byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=:@".contains(byte) => out.push(*byte),
            (byte, _) => push_percent(out, *byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(style: Style, target: &str) -> String {
        wire_with(style, QueryPlus::Blank, target)
    }

    fn wire_with(style: Style, plus: QueryPlus, target: &str) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        String::from_utf8(path_and_query(style, plus, path.as_bytes(), query.as_bytes())).unwrap()
    }

    #[test]
    fn one_spelling() {
        for (sent, s3, generic) in [
            ("", "/", "/"),
            ("/a b", "/a%20b", "/a%20b"),
            ("/a+b", "/a%2Bb", "/a+b"),
            ("/%7e/%c3%a9", "/~/%C3%A9", "/~/%C3%A9"),
            ("/%61rn%3aaws%3A/%2e%2e", "/arn%3Aaws%3A/..", "/arn%3Aaws%3A/.."),
            ("/arn:aws:x", "/arn%3Aaws%3Ax", "/arn:aws:x"),
            ("/a//b/../c", "/a//b/../c", "/a//b/../c"),
            ("/x%2Fy", "/x/y", "/x%2Fy"),
            ("/100%", "/100%25", "/100%25"),
            ("/%zz", "/%25zz", "/%25zz"),
            ("/é", "/%C3%A9", "/%C3%A9"),
            ("/a#b", "/a%23b", "/a%23b"),
            ("/?acl", "/?acl", "/?acl"),
            ("/?a=b+c&&d=%7e&e=&f=g=h", "/?a=b%20c&d=~&e=&f=g%3Dh", "/?a=b%20c&d=~&e=&f=g%3Dh"),
            ("/?a%2bb=c%2Bd+%2b", "/?a%2Bb=c%2Bd%20%2B", "/?a%2Bb=c%2Bd%20%2B"),
            ("/?", "/", "/"),
        ] {
            assert_eq!(wire(Style::S3, sent), s3, "{sent}");
            assert_eq!(wire(Style::Generic, sent), generic, "{sent}");
        }
    }

    #[test]
    fn a_plus_where_it_is_a_plus() {
        for (sent, expected) in [("/?a+b=c+d%20e%2B", "/?a%2Bb=c%2Bd%20e%2B"), ("/?+", "/?%2B"), ("/?a=%2b", "/?a=%2B")] {
            assert_eq!(wire_with(Style::Generic, QueryPlus::Plus, sent), expected, "{sent}");
        }
        assert_eq!(wire_with(Style::Generic, QueryPlus::Plus, "/a+b"), "/a+b");
    }
}
