//! What a call to S3 touches: the object of its path, the source of a copy, the keys of a listing or of a multi-object delete.

use std::fmt;

use http::{HeaderMap, HeaderName, Method};
use quick_xml::events::Event;
use sigward_sigv4::wire::percent_decoded;
use smallvec::{SmallVec, smallvec};

use super::HostBucket;
use super::form::Query;

pub(crate) const COPY_SOURCE: HeaderName = HeaderName::from_static("x-amz-copy-source");

/// A bucket, as far as the request tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bucket {
    /// Its name.
    Named(Box<str>),
    /// Which bucket stands behind an access point, AWS alone knows. Its label: `name-account`, or its alias.
    AccessPoint(Box<str>),
    /// It cannot be told.
    Unknown,
}

/// A key in it, likewise; decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// This one; empty: the bucket itself.
    Exact(Box<[u8]>),
    /// All that begin so.
    Prefix(Box<[u8]>),
    /// It cannot be told.
    Unknown,
}

/// What a call reads or writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) bucket: Bucket,
    pub(crate) key: Key,
}

impl Object {
    const UNKNOWN: Self = Self { bucket: Bucket::Unknown, key: Key::Unknown };
}

impl fmt::Display for Object {
    /// `bucket/key`, `bucket/prefix*`; what is unknown as `?`.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bucket {
            Bucket::Named(name) | Bucket::AccessPoint(name) => write!(to, "{name}/")?,
            Bucket::Unknown => to.write_str("?/")?,
        }
        match &self.key {
            Key::Exact(key) => write!(to, "{}", String::from_utf8_lossy(key)),
            Key::Prefix(prefix) => write!(to, "{}*", String::from_utf8_lossy(prefix)),
            Key::Unknown => to.write_str("?"),
        }
    }
}

pub(crate) type Objects = SmallVec<[Object; 1]>;

/// The body of a request, as far as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// It has not been read; it may be empty.
    Pending,
    /// All of it.
    Whole(&'a [u8]),
    /// It is in chunks, or larger than what is held in memory.
    Unreadable,
}

/// A request to S3.
pub(crate) struct Request<'a, 'q> {
    pub(crate) place: HostBucket<'a>,
    /// The operation's name, if it is known.
    pub(crate) operation: Option<&'a str>,
    /// Without query, in its one spelling.
    pub(crate) path: &'a str,
    pub(crate) query: &'a Query<'q>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: Body<'a>,
}

/// Their keys are all that begin with `prefix`.
const LISTINGS: &[&str] = &["ListMultipartUploads", "ListObjectVersions", "ListObjects", "ListObjectsV2"];

/// All that a request touches.
pub(crate) fn touched(request: &Request<'_, '_>) -> Objects {
    let path = request.path.strip_prefix('/').unwrap_or(request.path);
    let (bucket, key) = match request.place {
        HostBucket::Control | HostBucket::Unclear => return smallvec![Object::UNKNOWN],
        HostBucket::Named(bucket) => (named(bucket), path),
        HostBucket::AccessPoint(label) => (Bucket::AccessPoint(label.into()), path),
        HostBucket::InPath => {
            let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
            if bucket.is_empty() {
                // The service itself, as ListBuckets asks it.
                let lists = path.is_empty() && request.operation.is_some();
                return if lists { Objects::new() } else { smallvec![Object::UNKNOWN] };
            }
            (named(bucket), key)
        }
    };
    let key = || Key::Exact(decoded(key).into());
    let Some(operation) = request.operation else {
        // What else an operation touches that the table lacks, nobody can say.
        return smallvec![Object { bucket, key: key() }, Object::UNKNOWN];
    };
    match operation {
        operation if LISTINGS.contains(&operation) => {
            let prefix = request.query.get(b"prefix").unwrap_or_default();
            smallvec![Object { bucket, key: Key::Prefix(prefix.into()) }]
        }
        "CopyObject" | "UploadPartCopy" => {
            let mut objects: Objects = smallvec![Object { bucket, key: key() }];
            objects.extend(copy_sources(request.headers.get(COPY_SOURCE).map_or(b"", |value| value.as_bytes())));
            objects
        }
        "RenameObject" => smallvec![Object { bucket: bucket.clone(), key: key() }, Object { bucket, key: Key::Unknown }],
        "DeleteObjects" => {
            let of_bucket = |key| Object { bucket: bucket.clone(), key };
            keys_of(request)
                .map_or_else(|| smallvec![of_bucket(Key::Unknown)], |keys| keys.into_iter().map(|key| of_bucket(Key::Exact(key))).collect())
        }
        _ => smallvec![Object { bucket, key: key() }],
    }
}

/// More keys than S3 takes in one call are not looked at one by one. Source: `DeleteObjects` (S3 API Reference).
const MOST_KEYS: usize = 1000;

pub(crate) fn is_copy(operation: &str) -> bool {
    matches!(operation, "CopyObject" | "UploadPartCopy")
}

/// True if a copy's source can be one.
pub(crate) fn names_object(source: &[u8]) -> bool {
    source.contains(&b'/') || source.windows(3).any(|window| window.eq_ignore_ascii_case(b"%2f"))
}

/// The same on a server that is not AWS's. It may keep objects as files, or stand behind a proxy: what `//` and dot segments lead to is
/// unknown. `MinIO` unpacks archives to other keys.
pub(crate) fn as_a_server_may_read(objects: Objects, headers: &HeaderMap) -> Objects {
    let unpacks = headers.keys().any(|name| name.as_str().starts_with("x-amz-meta-") && name.as_str().contains("snowball"));
    let read = |object: Object| match &object.key {
        Key::Exact(key) | Key::Prefix(key) => match climbs(key) {
            None => object,
            Some(true) => Object::UNKNOWN,
            Some(false) => Object { key: Key::Unknown, ..object },
        },
        Key::Unknown => object,
    };
    objects.into_iter().map(read).chain(unpacks.then_some(Object::UNKNOWN)).collect()
}

/// Whether a key with empty or dot segments leads out of its bucket. `None`: it has none.
fn climbs(key: &[u8]) -> Option<bool> {
    let (mut depth, mut dirty, mut out) = (0_i64, false, false);
    let mut segments = key.split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            // A slash at the end is part of a key.
            b"" => dirty |= segments.peek().is_some(),
            b"." => dirty = true,
            b".." => {
                dirty = true;
                depth -= 1;
                out |= depth < 0;
            }
            _ => depth += 1,
        }
    }
    dirty.then_some(out)
}

/// True if the body says what is touched.
pub(crate) fn is_in_body(operation: Option<&str>) -> bool {
    operation == Some("DeleteObjects")
}

fn keys_of(request: &Request<'_, '_>) -> Option<Vec<Box<[u8]>>> {
    let Body::Whole(body) = request.body else { return None };
    let plain = !request.headers.contains_key(http::header::CONTENT_ENCODING);
    plain.then(|| deleted_keys(body)).flatten()
}

fn decoded(text: &str) -> Vec<u8> {
    percent_decoded(text.as_bytes())
}

/// Aliases stand where a bucket's name does. Source: "Bucket naming rules" (S3 User Guide), reserved suffixes.
const ALIASES: &[&str] = &["-s3alias", "--ol-s3", "--op-s3", ".mrap"];

/// A bucket by its name, still encoded.
fn named(name: &str) -> Bucket {
    let legal = name.len() <= 255
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        && !name.bytes().all(|byte| byte == b'.');
    if !legal {
        Bucket::Unknown
    } else if ALIASES.iter().any(|suffix| name.ends_with(suffix)) {
        Bucket::AccessPoint(name.into())
    } else {
        Bucket::Named(name.into())
    }
}

/// `bucket/key`, `/bucket/key` or an access point's ARN, URL-encoded, perhaps with `?versionId=`. Servers differ in what a `+` is
/// and whether `?` is looked for before decoding: then it is several objects, of which each counts.
fn copy_sources(value: &[u8]) -> SmallVec<[Object; 2]> {
    let as_form: Vec<u8> = value.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let mut found: SmallVec<[Object; 2]> = SmallVec::new();
    for value in [value, &as_form] {
        for source in [percent_decoded(without_version(value)), without_version(&percent_decoded(value)).to_vec()] {
            let object = copy_source(&source);
            if !found.contains(&object) {
                found.push(object);
            }
        }
    }
    found
}

fn without_version(value: &[u8]) -> &[u8] {
    const MARK: &[u8] = b"?versionId=";
    value.windows(MARK.len()).rposition(|window| window == MARK).and_then(|at| value.get(..at)).unwrap_or(value)
}

fn copy_source(source: &[u8]) -> Object {
    let source = source.strip_prefix(b"/").unwrap_or(source);
    if let Some(object) = source.strip_prefix(b"arn:").map(access_point_object) {
        return object.unwrap_or(Object::UNKNOWN);
    }
    let Some(slash) = source.iter().position(|byte| *byte == b'/') else { return Object::UNKNOWN };
    let (bucket, key) = (source.get(..slash).unwrap_or_default(), source.get(slash + 1..).unwrap_or_default());
    match std::str::from_utf8(bucket).map(named) {
        Ok(bucket) if !key.is_empty() && slash > 0 => Object { bucket, key: Key::Exact(key.into()) },
        _ => Object::UNKNOWN,
    }
}

/// `aws:s3:region:account:accesspoint/name/object/key`
fn access_point_object(arn: &[u8]) -> Option<Object> {
    let mut parts = arn.splitn(5, |byte| *byte == b':').skip(3);
    let (account, resource) = (std::str::from_utf8(parts.next()?).ok()?, parts.next()?);
    let resource = resource.strip_prefix(b"accesspoint/")?;
    let slash = resource.iter().position(|byte| *byte == b'/')?;
    let name = std::str::from_utf8(resource.get(..slash)?).ok()?;
    let key = resource.get(slash..)?.strip_prefix(b"/object/")?;
    Some(Object { bucket: Bucket::AccessPoint(format!("{name}-{account}").into()), key: Key::Exact(key.into()) })
}

/// The keys in the body of `DeleteObjects`. `None`: it is not the document that the S3 API Reference describes, so that servers may
/// read it otherwise.
fn deleted_keys(body: &[u8]) -> Option<Vec<Box<[u8]>>> {
    let mut reader = quick_xml::Reader::from_str(std::str::from_utf8(body).ok()?);
    let mut open: Vec<String> = Vec::new();
    let mut keys: Vec<Box<[u8]>> = Vec::new();
    let (mut text, mut of_this) = (String::new(), 0);
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => {
                let name = start.local_name().into_inner().to_owned();
                if !is_expected(&open, &name) {
                    return None;
                }
                text.clear();
                if name == "Object" {
                    of_this = 0;
                }
                open.push(name);
            }
            Event::Empty(start) => {
                // `<Key/>` names nothing.
                let name = start.local_name().into_inner().to_owned();
                if matches!(&*name, "Key" | "Object" | "Delete") || !is_expected(&open, &name) {
                    return None;
                }
            }
            Event::End(_) => match open.pop()?.as_str() {
                "Key" => {
                    of_this += 1;
                    if keys.len() >= MOST_KEYS {
                        return None;
                    }
                    keys.push(std::mem::take(&mut text).into_bytes().into());
                }
                "Object" if of_this != 1 => return None,
                _ => {}
            },
            Event::Text(piece) => {
                let blank = piece.bytes().all(|byte| byte.is_ascii_whitespace());
                // A line's end is one character or two, as the reader likes.
                if if holds_text(&open) { piece.contains('\r') } else { !blank } {
                    return None;
                }
                text.push_str(&piece);
            }
            Event::CData(piece) if holds_text(&open) && !piece.contains('\r') => text.push_str(&piece),
            Event::GeneralRef(reference) if holds_text(&open) => {
                let letter = match reference.resolve_char_ref().ok()? {
                    Some(letter) => letter,
                    None => match &*reference {
                        "amp" => '&',
                        "lt" => '<',
                        "gt" => '>',
                        "quot" => '"',
                        "apos" => '\'',
                        _ => return None,
                    },
                };
                text.push(letter);
            }
            Event::Decl(declaration) => {
                let encoding = declaration.encoding().transpose().ok()?;
                if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case("utf-8")) {
                    return None;
                }
            }
            Event::Eof => break,
            _ => return None,
        }
    }
    (open.is_empty() && !keys.is_empty()).then_some(keys)
}

fn holds_text(open: &[String]) -> bool {
    open.last().is_some_and(|last| !matches!(last.as_str(), "Delete" | "Object"))
}

fn is_expected(open: &[String], name: &str) -> bool {
    match (open.len(), name) {
        (0, "Delete") | (1, "Object" | "Quiet") => true,
        (2, "Key" | "VersionId" | "ETag" | "LastModifiedTime" | "Size") => open.last().is_some_and(|last| last == "Object"),
        _ => false,
    }
}

/// A method that says another one in a header: some servers take that.
pub(crate) fn overriding_method<'h>(method: &str, headers: &'h HeaderMap) -> Option<&'h str> {
    // To compare the few names that there are costs less than to look each of these up.
    let is_override = |name: &HeaderName| matches!(name.as_str(), "x-http-method-override" | "x-http-method" | "x-method-override");
    let mut others = headers.iter().filter(|(name, _)| is_override(name)).filter_map(|(_, value)| value.to_str().ok());
    others.find(|other| !other.eq_ignore_ascii_case(method) && other.parse::<Method>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(bucket: &str, key: &str) -> Object {
        Object { bucket: named(bucket), key: Key::Exact(key.as_bytes().into()) }
    }

    #[test]
    fn copy_sources_in_every_spelling() {
        for (value, expected) in [
            ("b/k", vec![object("b", "k")]),
            ("/b/k/l", vec![object("b", "k/l")]),
            ("%2Fb%2Fk", vec![object("b", "k")]),
            ("%62/%6b?versionId=1", vec![object("b", "k")]),
            ("b/k%3FversionId=1", vec![object("b", "k?versionId=1"), object("b", "k")]),
            ("b/a+c", vec![object("b", "a+c"), object("b", "a c")]),
            (
                "arn:aws:s3:eu-west-1:123456789012:accesspoint/ap/object/k/l",
                vec![Object { bucket: Bucket::AccessPoint("ap-123456789012".into()), key: Key::Exact((*b"k/l").into()) }],
            ),
            ("arn:aws:s3:::b/k", vec![Object::UNKNOWN]),
            ("b", vec![Object::UNKNOWN]),
            ("b/", vec![Object::UNKNOWN]),
            ("", vec![Object::UNKNOWN]),
            ("//k", vec![Object::UNKNOWN]),
            ("../k", vec![Object { bucket: Bucket::Unknown, key: Key::Exact((*b"k").into()) }]),
        ] {
            assert_eq!(copy_sources(value.as_bytes()).to_vec(), expected, "{value}");
        }
    }

    #[test]
    fn keys_of_a_multi_object_delete() {
        let keys = |body: &str| {
            deleted_keys(body.as_bytes()).map(|keys| keys.iter().map(|key| String::from_utf8(key.to_vec()).unwrap()).collect::<Vec<_>>())
        };
        for (body, expected) in [
            ("<Delete><Object><Key>a</Key></Object><Quiet>true</Quiet></Delete>", Some(vec!["a"])),
            (
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\n <Object>\n  <Key>a/b</Key><VersionId>1</VersionId></Object>\n <Object><Key> c </Key></Object></Delete>",
                Some(vec!["a/b", " c "]),
            ),
            ("<Delete><Object><Key>&#115;e&#x63;ret/&amp;<![CDATA[<x>]]></Key></Object></Delete>", Some(vec!["secret/&<x>"])),
            ("<s:Delete xmlns:s=\"x\"><s:Object><s:Key>a</s:Key></s:Object></s:Delete>", Some(vec!["a"])),
            ("<Delete><Object><Key>a</Key><Key>b</Key></Object></Delete>", None),
            ("<Delete><Object><VersionId>1</VersionId></Object></Delete>", None),
            ("<Delete><Object><Key/></Object></Delete>", None),
            ("<Delete><Object><Key>a<!-- b -->c</Key></Object></Delete>", None),
            ("<!DOCTYPE d [<!ENTITY e \"secret\">]><Delete><Object><Key>&e;</Key></Object></Delete>", None),
            ("<Delete><Object><Key>&e;</Key></Object></Delete>", None),
            ("<?xml version=\"1.0\" encoding=\"UTF-16\"?><Delete><Object><Key>a</Key></Object></Delete>", None),
            ("<Delete><Key>a</Key></Delete>", None),
            ("<Delete><Object><Key>a\r\nb</Key></Object></Delete>", None),
            ("<Delete></Delete>", None),
            ("<Delete><Object><Key>a</Key></Object>", None),
            ("<Delete><Object><Key>a</Object></Key></Delete>", None),
            ("<Other><Object><Key>a</Key></Object></Other>", None),
            ("", None),
        ] {
            assert_eq!(keys(body), expected.map(|keys| keys.into_iter().map(str::to_owned).collect()), "{body}");
        }
    }
}
