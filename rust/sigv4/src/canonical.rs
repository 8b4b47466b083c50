//! Step 1: the canonical request. See "Create a signed AWS API request" (IAM User Guide).

use smallvec::SmallVec;

use crate::encode::{Keep, push_encoded, push_query_recoded, push_recoded, spelled};
use crate::out::Out;
use crate::{SignError, Style};

/// Headers that go out unsigned, each with its source: what ends at a hop, what a later hop may add to, change or remove, and the
/// signature itself. `*` at the end stands for any rest. By name; no `x-amz-*`: AWS wants every one of those signed.
#[rustfmt::skip]
pub const UNSIGNED_HEADERS: &[(&str, &str)] = &[
    ("accept-encoding", "Google's front ends and Cloudflare change it: rclone/rclone#6670, versity/versitygw#2045"),
    ("authorization", "the signature itself"),
    ("b3", "B3 trace propagation (openzipkin/b3-propagation): each hop has a span of its own"),
    ("baggage", "W3C Baggage, section 4: each hop may change it"),
    ("cdn-loop", "RFC 8586, section 2: each content delivery network adds to it"),
    ("cf-*", "Cloudflare's HTTP headers: its edge sets them"),
    ("client-cert", "RFC 9440, section 2: a TLS-terminating proxy sets it"),
    ("client-cert-chain", "RFC 9440, section 2: a TLS-terminating proxy sets it"),
    ("cloudfront-*", "Amazon CloudFront Developer Guide, \"Add CloudFront request headers\""),
    ("connection", "RFC 9110, section 7.6.1: it ends at each hop"),
    ("early-data", "RFC 8470, section 5.1: intermediaries add it"),
    ("expect", "RFC 9110, section 10.1.1: a proxy may answer it; botocore does not sign it"),
    ("forwarded", "RFC 7239, section 4: each proxy adds to it"),
    ("keep-alive", "RFC 9110, section 7.6.1: it ends at each hop"),
    ("max-forwards", "RFC 9110, section 7.6.2: each hop counts it down"),
    ("proxy-authenticate", "RFC 9110, section 11.7.1: it ends at the next proxy"),
    ("proxy-authorization", "RFC 9110, section 11.7.2: it ends at the next proxy"),
    ("proxy-connection", "RFC 9110, section 7.6.1: it ends at each hop"),
    ("te", "RFC 9110, section 7.6.1: it ends at each hop"),
    ("traceparent", "W3C Trace Context, section 3.4: each hop has a span of its own"),
    ("tracestate", "W3C Trace Context, section 3.5: each hop may change it"),
    ("trailer", "RFC 9110, section 6.6.2: a hop may drop what it announces"),
    ("transfer-encoding", "RFC 9112, section 6.1: each hop has its own"),
    ("true-client-ip", "Akamai's and Cloudflare's edges set it"),
    ("uber-trace-id", "Jaeger's client libraries, propagation format: each hop has a span of its own"),
    ("upgrade", "RFC 9110, section 7.8: it ends at each hop"),
    ("user-agent", "botocore and AWS's SDKs do not sign it: proxies add to it"),
    ("via", "RFC 9110, section 7.6.3: each proxy adds to it"),
    ("x-amzn-cipher-suite", "front ends of AWS set it: envoyproxy/envoy#45609"),
    ("x-amzn-mtls-*", "Elastic Load Balancing, \"Mutual authentication with TLS in Application Load Balancer\""),
    ("x-amzn-tls-*", "Elastic Load Balancing, \"Edit attributes for your Application Load Balancer\"; envoyproxy/envoy#45609"),
    ("x-amzn-trace-id", "Elastic Load Balancing, \"Request tracing for your Application Load Balancer\"; botocore does not sign it"),
    ("x-amzn-vpc-id", "front ends of AWS set it: envoyproxy/envoy#45609"),
    ("x-amzn-vpce-*", "front ends of AWS set them: envoyproxy/envoy#45609"),
    ("x-b3-*", "B3 trace propagation (openzipkin/b3-propagation): each hop has a span of its own"),
    ("x-cloud-trace-context", "Google Cloud Trace, \"Trace context\": each hop has a span of its own"),
    ("x-datadog-*", "Datadog, \"Trace Context Propagation\": each hop has a span of its own"),
    ("x-envoy-*", "Envoy removes and sets them: envoyproxy/envoy#18695"),
    ("x-forwarded-*", "Elastic Load Balancing, \"HTTP headers and Application Load Balancers\"; aws/aws-sdk-java-v2#6369"),
    ("x-original-forwarded-for", "ingress-nginx sets it"),
    ("x-real-ip", "nginx, ngx_http_realip_module: each proxy may set it"),
    ("x-request-id", "Envoy, \"HTTP header manipulation\": it sets it, and marks sampled traces in it"),
];

/// Where the rows lie whose names begin with two bytes: for most names there is none, or one.
const BY_START: [(u8, u8); 1024] = by_start();

const fn start_of(first: u8, second: u8) -> usize {
    ((first & 31) as usize) << 5 | (second & 31) as usize
}

#[allow(clippy::indexing_slicing, reason = "evaluated when it is compiled")]
const fn by_start() -> [(u8, u8); 1024] {
    let mut table = [(0, 0); 1024];
    let mut at = 0;
    while at < UNSIGNED_HEADERS.len() {
        let name = UNSIGNED_HEADERS[at].0.as_bytes();
        let rows = &mut table[start_of(name[0], name[1])];
        assert!(rows.1 == 0 || rows.1 as usize == at, "names that begin alike stand together");
        if rows.1 == 0 {
            rows.0 = at as u8;
        }
        at += 1;
        rows.1 = at as u8;
    }
    table
}

/// True if a header of this lower-case name enters the signature: see [`UNSIGNED_HEADERS`].
#[inline]
pub fn is_signed_header(name: &[u8]) -> bool {
    let (Some([first, second]), false) = (name.first_chunk(), name.starts_with(b"x-amz-")) else { return true };
    #[allow(clippy::indexing_slicing, reason = "ten bits are below 1024")]
    let (from, to) = BY_START[start_of(*first, *second)];
    let rows = UNSIGNED_HEADERS.get(usize::from(from)..usize::from(to)).unwrap_or_default();
    !rows.iter().any(|(row, _)| match row.as_bytes() {
        [start @ .., b'*'] => name.starts_with(start),
        whole => whole == name,
    })
}

/// What a header's name holds: bit 0, a byte that no token has (RFC 9110, section 5.1); bit 1, a capital.
const NAME: [u8; 256] = name_table(b"!#$%&'*+-.^_`|~");
const NOT_A_TOKEN: u8 = 1;
const CAPITAL: u8 = 2;

#[allow(clippy::indexing_slicing, reason = "evaluated when it is compiled")]
const fn name_table(besides: &[u8]) -> [u8; 256] {
    let mut table = [NOT_A_TOKEN; 256];
    let mut byte = 0;
    while byte < 256 {
        let letter = byte as u8;
        if letter.is_ascii_uppercase() {
            table[byte] = CAPITAL;
        } else if letter.is_ascii_alphanumeric() {
            table[byte] = 0;
        }
        byte += 1;
    }
    let mut at = 0;
    while at < besides.len() {
        table[besides[at] as usize] = 0;
        at += 1;
    }
    table
}

/// One header that is signed.
#[derive(Clone, Copy)]
struct Entry<'a> {
    /// The name's first eight bytes as a number: most comparisons end there.
    order: u64,
    name: &'a [u8],
    value: &'a [u8],
}

/// A header as the caller gives it: name in any case, value as sent.
pub(crate) type Header<'a> = (&'a [u8], &'a [u8]);

/// Names in small letters, one after the other; empty while no name has capitals, as most callers' have none.
pub(crate) type Lowered = SmallVec<[u8; 512]>;

/// Checks every name, and lowers them all if one needs it.
pub(crate) fn lower(headers: &[Header<'_>], lowered: &mut Lowered) -> Result<(), SignError> {
    let mut all = 0;
    for (name, _) in headers {
        #[allow(clippy::indexing_slicing, reason = "a byte is below 256")]
        let class = name.iter().fold(0, |class, byte| class | NAME[usize::from(*byte)]);
        all |= class;
        if class & NOT_A_TOKEN != 0 || name.is_empty() {
            return Err(bad_name(name));
        }
    }
    if all & CAPITAL != 0 {
        for (name, _) in headers {
            lowered.extend(name.iter().map(u8::to_ascii_lowercase));
        }
    }
    Ok(())
}

#[cold]
#[allow(clippy::indexing_slicing, reason = "a byte is below 256")]
fn bad_name(name: &[u8]) -> SignError {
    let at = name.iter().position(|byte| NAME[usize::from(*byte)] & NOT_A_TOKEN != 0);
    at.map_or(SignError::Empty("header name"), |at| SignError::BadByte { field: "header name", at })
}

/// The headers that are signed, in order.
pub(crate) struct SignedHeaders<'a>(SmallVec<[Entry<'a>; 20]>);

impl<'a> SignedHeaders<'a> {
    pub(crate) fn new() -> Self {
        Self(SmallVec::new())
    }

    /// `lowered`: of the same `headers`. `replaced`: lower-case names that the signer answers for.
    pub(crate) fn take(
        &mut self,
        headers: &'a [Header<'a>],
        lowered: &'a Lowered,
        replaced: impl Fn(&[u8]) -> bool,
    ) -> Result<(), SignError> {
        let mut host = false;
        let mut at = 0;
        for (name, value) in headers {
            let name = lowered.get(at..at + name.len()).unwrap_or(name);
            at += name.len();
            if is_signed_header(name) && !replaced(name) {
                host |= name == b"host";
                self.add(name, value);
            }
        }
        if host { Ok(()) } else { Err(SignError::MissingHost) }
    }

    /// A lower-case name of the signer's own.
    #[inline]
    pub(crate) fn add(&mut self, name: &'a [u8], value: &'a [u8]) {
        self.0.push(Entry { order: order(name), name, value });
    }

    /// Before anything is written. Stable: repeated headers keep their order.
    pub(crate) fn sort(&mut self) {
        self.0.sort_by(|one, other| one.order.cmp(&other.order).then_with(|| one.name.cmp(other.name)));
    }

    /// The canonical headers, and the blank line after them.
    pub(crate) fn write(&self, out: &mut impl Out) -> Result<(), SignError> {
        let mut rest = &self.0[..];
        while let Some((entry, after)) = rest.split_first() {
            let repeated = after.iter().take_while(|next| next.order == entry.order && next.name == entry.name).count();
            if repeated == 0 && !has_blank(entry.value) {
                out.line(entry.name, entry.value);
                rest = after;
                continue;
            }
            let (same, after) = rest.split_at_checked(repeated + 1).unwrap_or((rest, &[]));
            out.put(entry.name);
            for (at, entry) in same.iter().enumerate() {
                out.push(if at == 0 { b':' } else { b',' });
                push_value(out, entry.value)?;
            }
            out.push(b'\n');
            rest = after;
        }
        out.push(b'\n');
        Ok(())
    }

    /// `host;x-amz-date`
    pub(crate) fn write_names(&self, out: &mut impl Out) {
        let mut previous: &[u8] = b"";
        for entry in &self.0 {
            if entry.name != previous {
                if !previous.is_empty() {
                    out.push(b';');
                }
                out.put(entry.name);
                previous = entry.name;
            }
        }
    }

    /// An upper bound of the length of the list of names.
    pub(crate) fn names_length(&self) -> usize {
        self.0.iter().map(|entry| entry.name.len() + 1).sum()
    }
}

/// Orders as the bytes do, as far as it goes.
#[inline]
fn order(name: &[u8]) -> u64 {
    if let Some(first) = name.first_chunk() {
        return u64::from_be_bytes(*first);
    }
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(name) {
        *to = *from;
    }
    u64::from_be_bytes(first)
}

/// True if a byte is a blank, or a control character; eight at a time (Warren, "Hacker's Delight", section 6-1).
#[inline]
fn has_blank(value: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let low = |eight: &[u8; 8]| {
        let word = u64::from_le_bytes(*eight);
        word.wrapping_sub(ONES * 0x21) & !word & HIGH
    };
    let Some(last) = value.last_chunk() else { return value.iter().any(|byte| *byte <= b' ') };
    let (eights, _) = value.as_chunks();
    eights.iter().fold(low(last), |found, eight| found | low(eight)) != 0
}

/// Trimmed, and each run of blanks inside folded to one, as is an obsolete line fold.
pub(crate) fn push_value(out: &mut impl Out, value: &[u8]) -> Result<(), SignError> {
    let blank = |byte: u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c);
    // Most values hold no blank at all.
    if !has_blank(value) {
        out.put(value);
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
        out.put(value);
        return Ok(());
    }
    if let Some(at) = value.iter().position(|byte| *byte == 0) {
        return Err(SignError::BadByte { field: "header value", at });
    }
    let mut words = value.split(|&byte| blank(byte)).filter(|word| !word.is_empty());
    out.put(words.next().unwrap_or_default());
    for word in words {
        out.push(b' ');
        out.put(word);
    }
    Ok(())
}

/// S3: as sent, each byte in its one spelling. Generic: normalised if `normalize`, and every byte encoded once more.
pub(crate) fn push_path(out: &mut impl Out, style: Style, path: &[u8], normalize: bool) {
    match style {
        _ if path.is_empty() => out.push(b'/'),
        Style::S3 => push_recoded(out, path, Keep::Slash),
        Style::Generic if normalize && needs_normalizing(path) => push_normalized(out, path),
        Style::Generic => push_encoded(out, path, Keep::Slash),
    }
}

/// True if a segment is empty, `.` or `..` (an empty last one is a trailing slash), or there is no slash first.
fn needs_normalizing(path: &[u8]) -> bool {
    let Some((b'/', rest)) = path.split_first() else { return true };
    if rest.is_empty() {
        return false;
    }
    let rest = rest.strip_suffix(b"/").unwrap_or(rest);
    // Each starts after a slash, and so does its first byte.
    let mut after_slash = true;
    let mut suspect = false;
    for &byte in rest {
        suspect |= after_slash && matches!(byte, b'/' | b'.');
        after_slash = byte == b'/';
    }
    (suspect || after_slash) && rest.split(|byte| *byte == b'/').any(|segment| matches!(segment, b"" | b"." | b".."))
}

/// RFC 3986, section 5.2.4, and no empty segments: `/a/./b//../c/` is `/a/c/`.
fn push_normalized(out: &mut impl Out, path: &[u8]) {
    let mut segments: SmallVec<[&[u8]; 16]> = SmallVec::new();
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
        push_encoded(out, segment, Keep::Unreserved);
    }
    // A trailing slash stays; `/a/.` has none.
    if segments.is_empty() || path.last() == Some(&b'/') {
        out.push(b'/');
    }
}

/// A query's terms, each in its one spelling. What is sent so is not copied.
pub(crate) struct Query<'a> {
    sent: &'a [u8],
    plus: &'static [u8],
    respelled: SmallVec<[u8; 256]>,
    terms: SmallVec<[Term; 16]>,
    length: usize,
}

/// Where a term's name and value lie.
#[derive(Clone, Copy)]
struct Term {
    /// The name's first eight bytes as a number: most comparisons end there.
    order: u64,
    name: Place,
    value: Place,
}

#[derive(Clone, Copy)]
struct Place {
    respelled: bool,
    start: u32,
    end: u32,
}

impl<'a> Query<'a> {
    /// Takes a query as sent, without the terms whose names (as sent) `leave_out` picks. `plus`: how a raw `+` is written.
    pub(crate) fn new(sent: &'a [u8], plus: &'static [u8], leave_out: impl Fn(&[u8]) -> bool) -> Result<Self, SignError> {
        let mut query = Self { sent, plus, respelled: SmallVec::new(), terms: SmallVec::new(), length: 0 };
        // Places are of 32 bits; no server takes so long a query.
        if sent.len() > MAX_QUERY {
            return Err(SignError::Long { field: "query", most: MAX_QUERY });
        }
        let mut start = 0;
        while start < sent.len() {
            let term = sent.get(start..).unwrap_or_default();
            // What is in its one spelling holds neither `=` nor `&`: most names and values end where that ends.
            let plain = spelled(term, Keep::Unreserved);
            let cut = match term.get(plain) {
                None | Some(b'=' | b'&') => plain,
                Some(_) => plain + end_of(term.get(plain..).unwrap_or_default(), |byte| matches!(byte, b'=' | b'&')),
            };
            let value = if term.get(cut) == Some(&b'=') { term.get(cut + 1..).unwrap_or_default() } else { b"" };
            let plain_value = spelled(value, Keep::Unreserved);
            let length = match value.get(plain_value) {
                None | Some(b'&') => plain_value,
                Some(_) => plain_value + end_of(value.get(plain_value..).unwrap_or_default(), |byte| byte == b'&'),
            };
            let (name, value) = (term.get(..cut).unwrap_or_default(), value.get(..length).unwrap_or_default());
            let has_value = term.get(cut) == Some(&b'=');
            if (cut > 0 || has_value) && !leave_out(name) {
                let name = query.place(name, start, plain == cut);
                let value = query.place(value, start + cut + 1, plain_value == length);
                query.push(name, value);
            }
            start += cut + usize::from(has_value) + length + 1;
        }
        Ok(query)
    }

    /// Where the spelling of a piece lies that was sent at `start`. `plain`: as it is.
    #[inline]
    fn place(&mut self, piece: &[u8], start: usize, plain: bool) -> Place {
        if plain {
            return Place { respelled: false, start: start as u32, end: (start + piece.len()) as u32 };
        }
        let start = self.respelled.len() as u32;
        push_query_recoded(&mut self.respelled, piece, self.plus);
        Place { respelled: true, start, end: self.respelled.len() as u32 }
    }

    #[inline]
    fn push(&mut self, name: Place, value: Place) {
        let order = order(self.text(name));
        self.length += (name.end - name.start + value.end - value.start) as usize + 2;
        self.terms.push(Term { order, name, value });
    }

    #[inline]
    fn text(&self, place: Place) -> &[u8] {
        let from = if place.respelled { &self.respelled[..] } else { self.sent };
        from.get(place.start as usize..place.end as usize).unwrap_or_default()
    }

    /// Adds a term of the signer's own: `name` stands for itself, `value` writes what is already in its one spelling.
    pub(crate) fn add(&mut self, name: &[u8], value: impl FnOnce(&mut SmallVec<[u8; 256]>)) {
        let start = self.respelled.len() as u32;
        self.respelled.extend_from_slice(name);
        let middle = self.respelled.len() as u32;
        value(&mut self.respelled);
        let end = self.respelled.len() as u32;
        self.push(Place { respelled: true, start, end: middle }, Place { respelled: true, start: middle, end });
    }

    /// Sorted by name, then value.
    pub(crate) fn write(&mut self, out: &mut impl Out) {
        let mut terms = std::mem::take(&mut self.terms);
        let key = |term: &Term| (self.text(term.name), self.text(term.value));
        terms.sort_by(|one, other| one.order.cmp(&other.order).then_with(|| key(one).cmp(&key(other))));
        for (at, term) in terms.iter().enumerate() {
            if at > 0 {
                out.push(b'&');
            }
            out.put(self.text(term.name));
            out.push(b'=');
            out.put(self.text(term.value));
        }
    }

    /// The length of the text, once written.
    pub(crate) fn length(&self) -> usize {
        self.length
    }
}

/// The longest query that is signed, bytes.
const MAX_QUERY: usize = 64 << 20;

/// Where the first byte lies that ends a piece.
fn end_of(bytes: &[u8], ends: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|byte| ends(*byte)).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_hop_may_change_is_not_signed() {
        for name in [
            "via",
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-client-cert",
            "x-real-ip",
            "x-amzn-trace-id",
            "x-amzn-vpce-id",
            "user-agent",
            "te",
            "cf-ray",
            "b3",
            "x-b3-traceid",
            "x-envoy-retry-on",
            "accept-encoding",
        ] {
            assert!(!is_signed_header(name.as_bytes()), "{name}");
        }
        for name in [
            "",
            "host",
            "content-type",
            "content-length",
            "date",
            "range",
            "x",
            "x-amz-date",
            "x-amz-forwarded",
            "x-amzn-query-mode",
            "x-forwarded",
            "viax",
            "vi",
            "x-real-ips",
            "accept",
            "cookie",
            "x-amzn-vpc",
            "content-encoding",
        ] {
            assert!(is_signed_header(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn every_row_has_a_name_of_its_own_and_a_source() {
        for pair in UNSIGNED_HEADERS.windows(2) {
            let [(one, source), (next, _)] = pair else { continue };
            assert!(one < next, "{next}");
            assert!(!source.is_empty() && !one.starts_with("x-amz-") && *one == one.to_ascii_lowercase(), "{one}");
            assert!(!is_signed_header(one.trim_end_matches('*').as_bytes()), "{one}");
        }
    }
}
