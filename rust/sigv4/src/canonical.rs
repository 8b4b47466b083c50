//! Step 1: the canonical request. See "Create a signed AWS API request" (IAM User Guide).

use crate::encode::{push_encoded, push_recoded};
use crate::{SignError, Style};

/// True if a header of this lower-case name enters the signature. Left out is what ends at a hop or changes on the way (the same
/// names as botocore's), and the signature itself.
pub fn is_signed_header(name: &[u8]) -> bool {
    // A match on literals compares lengths first; most names differ there.
    !matches!(
        name,
        b"authorization"
            | b"connection"
            | b"expect"
            | b"keep-alive"
            | b"proxy-authenticate"
            | b"proxy-authorization"
            | b"proxy-connection"
            | b"te"
            | b"trailer"
            | b"transfer-encoding"
            | b"upgrade"
            | b"user-agent"
            | b"x-amzn-trace-id"
    )
}

/// Replaced by the signer's own.
fn is_ours(name: &[u8]) -> bool {
    matches!(name, b"x-amz-date" | b"x-amz-security-token")
}

/// What a header's name may hold: a token (RFC 9110, section 5.1).
const TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~");

#[allow(clippy::indexing_slicing, reason = "evaluated when it is compiled")]
const fn table(besides: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < besides.len() {
        table[besides[at] as usize] = true;
        at += 1;
    }
    table
}

/// One header that is signed: its lower-case name lies in the names' buffer.
struct Entry<'a> {
    /// The name's first eight bytes as a number: most comparisons end there.
    order: u64,
    name: &'a [u8],
    value: &'a [u8],
}

/// A header as the caller gives it: name in any case, value as sent.
pub(crate) type Header<'a> = (&'a [u8], &'a [u8]);

/// Writes the canonical headers, then the list of signed headers. Returns where that list lies in `out`.
///
/// `added`: lower-case, the signer's own.
pub(crate) fn push_headers(out: &mut Vec<u8>, headers: &[Header<'_>], added: &[Header<'_>]) -> Result<std::ops::Range<usize>, SignError> {
    // Names that came in capitals are lowered first; most callers send lower-case, which is borrowed.
    let capitals = headers.iter().any(|(name, _)| name.iter().any(u8::is_ascii_uppercase));
    let lowered: Vec<Vec<u8>> = if capitals { headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect() } else { Vec::new() };
    let mut entries: Vec<Entry<'_>> = Vec::with_capacity(headers.len() + added.len());
    for (at, (name, value)) in headers.iter().enumerate() {
        let name = lowered.get(at).map_or(*name, Vec::as_slice);
        if !is_signed_header(name) || is_ours(name) {
            continue;
        }
        check_name(name)?;
        entries.push(Entry { order: order(name), name, value });
    }
    if !entries.iter().any(|entry| entry.name == b"host") {
        return Err(SignError::MissingHost);
    }
    entries.extend(added.iter().map(|(name, value)| Entry { order: order(name), name, value }));
    // Stable: repeated headers keep their order.
    entries.sort_by(|one, other| one.order.cmp(&other.order).then_with(|| one.name.cmp(other.name)));
    let mut previous: &[u8] = b"";
    for entry in &entries {
        if entry.name == previous {
            // Over the line end of the one before.
            out.pop();
            out.push(b',');
        } else {
            out.extend_from_slice(entry.name);
            out.push(b':');
            previous = entry.name;
        }
        push_value(out, entry.value)?;
        out.push(b'\n');
    }
    out.push(b'\n');
    let start = out.len();
    previous = b"";
    for entry in entries.iter().filter(|entry| std::mem::replace(&mut previous, entry.name) != entry.name) {
        if out.len() > start {
            out.push(b';');
        }
        out.extend_from_slice(entry.name);
    }
    Ok(start..out.len())
}

/// Orders as the bytes do, as far as it goes.
fn order(name: &[u8]) -> u64 {
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(name) {
        *to = *from;
    }
    u64::from_be_bytes(first)
}

#[allow(clippy::indexing_slicing, reason = "a byte is below 256")]
fn check_name(name: &[u8]) -> Result<(), SignError> {
    match name.iter().position(|byte| !TOKEN[usize::from(*byte)]) {
        None if name.is_empty() => Err(SignError::Empty("header name")),
        None => Ok(()),
        Some(at) => Err(SignError::BadByte { field: "header name", at }),
    }
}

/// Trimmed, and each run of blanks inside folded to one, as is an obsolete line fold.
#[allow(clippy::needless_bitwise_bool, reason = "an early end would keep the loop from running over whole registers")]
fn push_value(out: &mut Vec<u8>, value: &[u8]) -> Result<(), SignError> {
    let blank = |byte: u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c);
    // Most values hold no blank at all; without an early end this is a loop over whole registers.
    if value.iter().fold(true, |plain, byte| plain & (*byte > b' ')) {
        out.extend_from_slice(value);
        return Ok(());
    }
    // Plain, too: single spaces between words.
    let (mut plain, mut after_blank) = (true, true);
    for &byte in value {
        let is_blank = byte <= b' ';
        plain &= !is_blank || (byte == b' ' && !after_blank);
        after_blank = is_blank;
    }
    if plain && (!after_blank || value.is_empty()) {
        out.extend_from_slice(value);
        return Ok(());
    }
    if let Some(at) = value.iter().position(|byte| *byte == 0) {
        return Err(SignError::BadByte { field: "header value", at });
    }
    let mut words = value.split(|&byte| blank(byte)).filter(|word| !word.is_empty());
    out.extend_from_slice(words.next().unwrap_or_default());
    for word in words {
        out.push(b' ');
        out.extend_from_slice(word);
    }
    Ok(())
}

/// S3: as sent, each byte in its one spelling. Generic: normalised if `normalize`, and every byte encoded once more.
pub(crate) fn push_path(out: &mut Vec<u8>, style: Style, path: &[u8], normalize: bool) {
    let start = out.len();
    match style {
        Style::S3 => push_recoded(out, path, |byte| byte == b'/'),
        Style::Generic if normalize && needs_normalizing(path) => push_normalized(out, path),
        Style::Generic => push_encoded(out, path, |byte| byte == b'/'),
    }
    if out.len() == start {
        out.push(b'/');
    }
}

fn needs_normalizing(path: &[u8]) -> bool {
    let mut segments = path.split(|byte| *byte == b'/');
    let first = segments.next().unwrap_or_default();
    let last = path.last() == Some(&b'/');
    let count = path.split(|byte| *byte == b'/').count() - 1;
    !first.is_empty()
        || segments.enumerate().any(|(at, segment)| matches!(segment, b"." | b"..") || (segment.is_empty() && !(last && at + 1 == count)))
}

/// RFC 3986, section 5.2.4, and no empty segments: `/a/./b//../c/` is `/a/c/`.
fn push_normalized(out: &mut Vec<u8>, path: &[u8]) {
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in path.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    for segment in &segments {
        out.push(b'/');
        push_encoded(out, segment, |_| false);
    }
    // A trailing slash stays; `/a/.` has none.
    if path.last() == Some(&b'/') && !segments.is_empty() {
        out.push(b'/');
    }
}

/// Sorted by name, then value, both in their one spelling.
pub(crate) fn push_query(out: &mut Vec<u8>, query: &[u8]) {
    if query.is_empty() {
        return;
    }
    let mut spelled = Vec::with_capacity(query.len() + 16);
    let mut pairs: Vec<(std::ops::Range<usize>, std::ops::Range<usize>)> = Vec::with_capacity(8);
    for pair in query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let start = spelled.len();
        push_recoded(&mut spelled, halves.next().unwrap_or_default(), |_| false);
        let middle = spelled.len();
        push_recoded(&mut spelled, halves.next().unwrap_or_default(), |_| false);
        pairs.push((start..middle, middle..spelled.len()));
    }
    let text = |range: &std::ops::Range<usize>| spelled.get(range.clone()).unwrap_or_default();
    pairs.sort_by(|one, other| (text(&one.0), text(&one.1)).cmp(&(text(&other.0), text(&other.1))));
    for (at, (name, value)) in pairs.iter().enumerate() {
        if at > 0 {
            out.push(b'&');
        }
        out.extend_from_slice(text(name));
        out.push(b'=');
        out.extend_from_slice(text(value));
    }
}
