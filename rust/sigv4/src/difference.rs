//! Where two canonical requests, or two strings to sign, differ first: what to tell someone whose signature does not match.

use std::borrow::Cow;
use std::fmt;

/// Which part differs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// Canonical request: the first line.
    Method,
    /// Canonical request: the path.
    Path,
    /// Canonical request: the query's parameter of this name.
    Query(String),
    /// Canonical request: the header of this name.
    Header(String),
    /// Canonical request: the list of signed headers.
    SignedHeaders,
    /// Canonical request: the last line.
    Payload,
    /// String to sign: the first line.
    Algorithm,
    /// String to sign: the time.
    Date,
    /// String to sign: the credential scope.
    Scope,
    /// String to sign: the canonical request's hash, or another line after the scope.
    Hash,
}

impl fmt::Display for Part {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method => to.write_str("method"),
            Self::Path => to.write_str("path"),
            Self::Query(name) => write!(to, "query parameter {name:?}"),
            Self::Header(name) => write!(to, "header {name:?}"),
            Self::SignedHeaders => to.write_str("list of signed headers"),
            Self::Payload => to.write_str("payload hash"),
            Self::Algorithm => to.write_str("algorithm"),
            Self::Date => to.write_str("time"),
            Self::Scope => to.write_str("credential scope"),
            Self::Hash => to.write_str("hash of the canonical request"),
        }
    }
}

/// The first difference. It may hold what was signed, a session token too: not for logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub part: Part,
    /// Counted from 1.
    pub line: usize,
    /// In bytes, counted from 1.
    pub column: usize,
    /// The line (of the query: the parameter) as one side has it; `None`: that side has none.
    pub ours: Option<Vec<u8>>,
    /// The same of the other side.
    pub theirs: Option<Vec<u8>>,
}

impl fmt::Debug for Difference {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Difference")
            .field("part", &self.part)
            .field("line", &self.line)
            .field("column", &self.column)
            .finish_non_exhaustive()
    }
}

/// Compares two canonical requests. Headers and parameters are compared by name, so that one that is missing is told as such.
pub fn canonical_requests(ours: &[u8], theirs: &[u8]) -> Option<Difference> {
    let (ours, theirs) = (Canonical::of(ours), Canonical::of(theirs));
    let line = |part, line, one: &[u8], other: &[u8]| differing(part, line, Some(one), Some(other));
    line(Part::Method, 1, ours.method, theirs.method)
        .or_else(|| line(Part::Path, 2, ours.path, theirs.path))
        .or_else(|| named(&terms(ours.query), &terms(theirs.query), |name, _| (Part::Query(name), 3)))
        .or_else(|| line(Part::Query(String::new()), 3, ours.query, theirs.query))
        .or_else(|| named(&headers(&ours.headers), &headers(&theirs.headers), |name, at| (Part::Header(name), 4 + at)))
        .or_else(|| line(Part::SignedHeaders, ours.headers.len() + 5, ours.signed, theirs.signed))
        .or_else(|| line(Part::Payload, ours.headers.len() + 6, ours.payload, theirs.payload))
}

/// Compares two strings to sign.
pub fn strings_to_sign(ours: &[u8], theirs: &[u8]) -> Option<Difference> {
    let mut ours = ours.split(|byte| *byte == b'\n');
    let mut theirs = theirs.split(|byte| *byte == b'\n');
    let mut line = 0;
    loop {
        let (one, other) = (ours.next(), theirs.next());
        if one.is_none() && other.is_none() {
            return None;
        }
        let part = match line {
            0 => Part::Algorithm,
            1 => Part::Date,
            2 => Part::Scope,
            _ => Part::Hash,
        };
        line += 1;
        if let Some(found) = differing(part, line, one, other) {
            return Some(found);
        }
    }
}

/// A canonical request's parts; what is missing is empty.
struct Canonical<'a> {
    method: &'a [u8],
    path: &'a [u8],
    query: &'a [u8],
    headers: Vec<&'a [u8]>,
    signed: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Canonical<'a> {
    fn of(text: &'a [u8]) -> Self {
        let mut lines = text.split(|byte| *byte == b'\n');
        let mut next = || lines.next().unwrap_or_default();
        let (method, path, query) = (next(), next(), next());
        let headers = std::iter::from_fn(|| Some(next()).filter(|line| !line.is_empty())).collect();
        Self { method, path, query, headers, signed: next(), payload: next() }
    }
}

/// (name, the whole of it)
type Named<'a> = Vec<(Cow<'a, str>, &'a [u8])>;

fn name_of(line: &[u8], end: u8) -> Cow<'_, str> {
    String::from_utf8_lossy(line.split(|byte| *byte == end).next().unwrap_or_default())
}

fn terms(query: &[u8]) -> Named<'_> {
    query.split(|byte| *byte == b'&').filter(|term| !term.is_empty()).map(|term| (name_of(term, b'='), term)).collect()
}

fn headers<'a>(lines: &[&'a [u8]]) -> Named<'a> {
    lines.iter().map(|line| (name_of(line, b':'), *line)).collect()
}

/// The first that differs, in their order; a name that only one side has is told before what comes after it.
fn named(ours: &Named<'_>, theirs: &Named<'_>, place: impl Fn(String, usize) -> (Part, usize)) -> Option<Difference> {
    let told = |name: &str, at: usize, one: Option<&[u8]>, other: Option<&[u8]>| {
        let (part, line) = place(name.to_owned(), at);
        differing(part, line, one, other)
    };
    for at in 0..ours.len().max(theirs.len()) {
        let found = match (ours.get(at), theirs.get(at)) {
            (Some((one, ours_whole)), Some((other, theirs_whole))) if one == other => told(one, at, Some(*ours_whole), Some(*theirs_whole)),
            (Some((one, whole)), _) if !theirs.iter().any(|(name, _)| name == one) => told(one, at, Some(*whole), None),
            (_, Some((other, whole))) if !ours.iter().any(|(name, _)| name == other) => told(other, at, None, Some(*whole)),
            // The same names in another order or number.
            (one, other) => {
                let name = one.or(other).map(|(name, _)| name.to_string()).unwrap_or_default();
                told(&name, at, one.map(|(_, whole)| *whole), other.map(|(_, whole)| *whole))
            }
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

fn differing(part: Part, line: usize, ours: Option<&[u8]>, theirs: Option<&[u8]>) -> Option<Difference> {
    if ours == theirs {
        return None;
    }
    let same = ours.unwrap_or_default().iter().zip(theirs.unwrap_or_default()).take_while(|(one, other)| one == other).count();
    Some(Difference { part, line, column: same + 1, ours: ours.map(<[u8]>::to_vec), theirs: theirs.map(<[u8]>::to_vec) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OURS: &str = "GET\n/a%20b\nx=1&y=2\nhost:h\nx-amz-date:1\nx-b:2\n\nhost;x-amz-date;x-b\nabc";

    #[test]
    fn the_first_difference() {
        for (theirs, part, line, column) in [
            (OURS.replace("GET", "GOT"), Part::Method, 1, 2),
            (OURS.replace("%20b", "%2520b"), Part::Path, 2, 5),
            (OURS.replace("x=1", "x=2"), Part::Query("x".into()), 3, 3),
            (OURS.replace("x=1&", ""), Part::Query("x".into()), 3, 1),
            (OURS.replace("&y=2", "&y=2&z"), Part::Query("z".into()), 3, 1),
            (OURS.replace("x-b:2\n", "x-b:3\n"), Part::Header("x-b".into()), 6, 5),
            (OURS.replace("x-amz-date:1\n", ""), Part::Header("x-amz-date".into()), 5, 1),
            (OURS.replace("host:h\n", "accept:x\nhost:h\n"), Part::Header("accept".into()), 4, 1),
            (OURS.replace(";x-b", ""), Part::SignedHeaders, 8, 16),
            (OURS.replace("abc", "abd"), Part::Payload, 9, 3),
            ("GET".into(), Part::Path, 2, 1),
            (String::new(), Part::Method, 1, 1),
        ] {
            let found = canonical_requests(OURS.as_bytes(), theirs.as_bytes()).unwrap();
            assert_eq!((&found.part, found.line, found.column), (&part, line, column), "{theirs}");
        }
        assert_eq!(canonical_requests(OURS.as_bytes(), OURS.as_bytes()), None);
        let ours = "AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/r/s/aws4_request\nabc";
        for (theirs, part, line, column) in [
            (ours.replace("HMAC", "ECDSA"), Part::Algorithm, 1, 6),
            (ours.replace("3600Z", "3700Z"), Part::Date, 2, 13),
            (ours.replace("/r/", "/q/"), Part::Scope, 3, 10),
            (ours.replace("abc", "abd"), Part::Hash, 4, 3),
            (ours.replace("\nabc", ""), Part::Hash, 4, 1),
        ] {
            let found = strings_to_sign(ours.as_bytes(), theirs.as_bytes()).unwrap();
            assert_eq!((found.part, found.line, found.column), (part, line, column));
        }
        assert_eq!(strings_to_sign(ours.as_bytes(), ours.as_bytes()), None);
    }

    proptest! {
        #[test]
        fn none_only_if_nothing_is_told_apart(ours in "[ab=&:;\n]{0,30}", theirs in "[ab=&:;\n]{0,30}") {
            let (ours, theirs) = (ours.as_bytes(), theirs.as_bytes());
            prop_assert_eq!(strings_to_sign(ours, theirs).is_none(), ours == theirs);
            prop_assert_eq!(canonical_requests(ours, ours), None);
            let found = canonical_requests(ours, theirs);
            if let Some(found) = found {
                prop_assert_ne!(found.ours, found.theirs);
            }
        }

        #[test]
        fn no_bytes_panic(ours in proptest::collection::vec(any::<u8>(), 0..60), theirs in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = (canonical_requests(&ours, &theirs), strings_to_sign(&ours, &theirs));
        }
    }
}
