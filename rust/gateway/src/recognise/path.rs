//! The readings of a path: as it is sent, and as a server that normalises it would take it.

use std::borrow::Cow;

use sigward_sigv4::wire::percent_decoded;

/// A path as rules see it: decoded. `other`: the same with `%2F` decoded, slashes merged and dot segments removed, if that differs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Readings<'a> {
    pub(crate) sent: Cow<'a, [u8]>,
    pub(crate) other: Option<Vec<u8>>,
}

impl<'a> Readings<'a> {
    /// `path`: without query, in its one spelling.
    /// `kept`: `//` and dot segments are what they are.
    pub(crate) fn of(kept: bool, path: &'a str) -> Self {
        let other = if kept { None } else { cleaned(path) };
        Self { sent: decoded(path, other.is_some()), other: other.map(|path| decoded(&path, false).into_owned()) }
    }
}

/// `keeps_slash`: `%2F` stays what it is.
fn decoded(path: &str, keeps_slash: bool) -> Cow<'_, [u8]> {
    if !path.contains('%') {
        return Cow::Borrowed(path.as_bytes());
    }
    if !keeps_slash {
        return Cow::Owned(percent_decoded(path.as_bytes()));
    }
    let pieces: Vec<Vec<u8>> = path.split("%2F").map(|piece| percent_decoded(piece.as_bytes())).collect();
    Cow::Owned(pieces.join(&b"%2F"[..]))
}

/// The path with `%2F` decoded, backslashes turned into slashes, runs of slashes merged, dot segments removed (RFC 3986, 5.2.4), and what
/// follows a semicolon in a segment left out. `None`: nothing of that is in it.
pub(crate) fn cleaned(path: &str) -> Option<String> {
    if !path.contains("%2F") && !is_dirty(path) {
        return None;
    }
    let path = path.replace("%2F", "/").replace("%5C", "/").replace('\\', "/").replace("%3B", ";");
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match without_parameters(segment) {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            named => kept.push(named),
        }
    }
    let slash = path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..");
    let end = if slash && !kept.is_empty() { "/" } else { "" };
    Some(format!("/{}{end}", kept.join("/")))
}

/// Servers differ in what they make of this path: it holds `//`, dot segments, a backslash or a semicolon.
pub(crate) fn is_dirty(path: &str) -> bool {
    let odd = |byte: &u8| matches!(byte, b'\\' | b';');
    path.contains("//")
        || path.as_bytes().iter().any(odd)
        || path.contains("%5C")
        || path.contains("%3B")
        || (path.contains("/.") && path.split('/').any(|segment| matches!(without_parameters(segment), "." | "..")))
}

/// Some servers take what follows a semicolon for a segment's parameters.
fn without_parameters(segment: &str) -> &str {
    segment.split(';').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_readings_where_servers_differ() {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        for (path, sent, other) in [
            ("/a/b", "/a/b", None),
            ("/a%20b", "/a b", None),
            ("/a.b/.c", "/a.b/.c", None),
            ("/a%2Fb%20c", "/a%2Fb c", Some("/a/b c")),
            ("//a", "//a", Some("/a")),
            ("/a//b/", "/a//b/", Some("/a/b/")),
            ("/a/../b", "/a/../b", Some("/b")),
            ("/a/..;x/b", "/a/..;x/b", Some("/b")),
            ("/../..", "/../..", Some("/")),
            ("/a/.", "/a/.", Some("/a/")),
            ("/admin;a/x", "/admin;a/x", Some("/admin/x")),
            ("/a\\..\\admin", "/a\\..\\admin", Some("/admin")),
            ("/a%5Cb", "/a\\b", Some("/a/b")),
        ] {
            let found = Readings::of(false, path);
            assert_eq!((text(&found.sent), found.other.as_deref().map(text)), (sent.to_owned(), other.map(str::to_owned)), "{path}");
        }
        let s3 = Readings::of(true, "/b//../k%20");
        assert_eq!((text(&s3.sent), s3.other), ("/b//../k ".to_owned(), None));
    }
}
