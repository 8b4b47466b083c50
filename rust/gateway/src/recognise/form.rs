//! Names and values of a query or a form, decoded once, by the form rules (WHATWG URL, 5.1): pairs between `&`, `+` is a blank,
//! `%XX` a byte.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use sigward_sigv4::wire::percent_decoded;
use smallvec::SmallVec;

/// One name and its value; a name alone has an empty one.
pub(crate) type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// The pairs of a query, in their order.
#[derive(Debug, Default)]
pub(crate) struct Query<'a>(SmallVec<[Pair<'a>; 6]>);

impl<'a> Query<'a> {
    pub(crate) fn of(query: &'a str) -> Self {
        Self(pairs(query.as_bytes()).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Pair<'a>> {
        self.0.iter()
    }

    /// The first value of this name.
    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.iter().find(|(own, _)| **own == *name).map(|(_, value)| &**value)
    }

    /// A name that has two values, and these; of the names that count. One pass: clients choose how many pairs there are.
    pub(crate) fn conflict(&self, counts: impl Fn(&[u8]) -> bool) -> Option<(&[u8], &[u8], &[u8])> {
        let mut seen: SmallVec<[(&[u8], &[u8]); 4]> = SmallVec::new();
        for (name, value) in self.0.iter().filter(|(name, _)| counts(name)) {
            match seen.iter().find(|(known, _)| *known == &**name) {
                Some((_, first)) if *first != &**value => return Some((name, first, value)),
                Some(_) => {}
                None => seen.push((name, value)),
            }
        }
        None
    }
}

/// The type of a body, without parameters, as sent: compare it without case. `None`: there is none, or more than one.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    value.to_str().ok()?.split(';').next().map(str::trim)
}

/// True for the type that forms have, as the query protocols send them.
pub(crate) fn is_form(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|media| media.eq_ignore_ascii_case("application/x-www-form-urlencoded"))
}

/// True for the types that JSON has.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    const TYPES: &[&str] = &["application/json", "application/x-amz-json-1.0", "application/x-amz-json-1.1"];
    media_type(headers).is_some_and(|media| TYPES.iter().any(|json| media.eq_ignore_ascii_case(json)))
}

/// The pairs of a query or a form.
pub(crate) fn pairs(text: &[u8]) -> impl Iterator<Item = Pair<'_>> {
    text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        (decoded(pair.get(..at).unwrap_or_default()), decoded(pair.get(at + 1..).unwrap_or_default()))
    })
}

fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let blanks: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decoded(&blanks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_by_the_form_rules() {
        let read = |text: &str| -> Vec<(String, String)> {
            let text_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            pairs(text.as_bytes()).map(|(name, value)| (text_of(&name), text_of(&value))).collect()
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read("a=b+c&&d=%7e&e&f=g=h&=i"), [pair("a", "b c"), pair("d", "~"), pair("e", ""), pair("f", "g=h"), pair("", "i")]);
        assert_eq!(read("%41ction=Delete%51ueue"), [pair("Action", "DeleteQueue")]);
        assert_eq!(read("a%2bb=%2B&c=%zz%"), [pair("a+b", "+"), pair("c", "%zz%")]);
        assert_eq!(read(""), []);
    }

    #[test]
    fn a_name_with_two_values_is_seen() {
        let query = Query::of("a=1&b=2&%61=1&b=3&c");
        assert_eq!(query.conflict(|name| name == b"a"), None);
        assert_eq!(query.conflict(|_| true), Some((&b"b"[..], &b"2"[..], &b"3"[..])));
        assert_eq!((query.get(b"c"), query.get(b"d")), (Some(&b""[..]), None));
    }
}
