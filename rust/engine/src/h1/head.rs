//! Heads: read, with how the body behind them ends, and written.

use std::fmt::Write as _;
use std::io::Write as _;
use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, TE, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Method, StatusCode, Version};
use httparse::{Header, Status};
use memchr::memmem;
use sigward_gateway::Refusal;
use smallvec::SmallVec;

/// Headers that are read without an allocation for their places.
const PLACES: usize = 128;

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After so many bytes; 0: there is none.
    Length(u64),
    /// With its last chunk.
    Chunked,
    /// With the connection. Answers alone.
    Close,
}

/// What is read of a head at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    /// All of it.
    pub(crate) bytes: usize,
    /// Names.
    pub(crate) headers: usize,
}

/// A request's head.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    /// As sent, but that every byte is one that a target may have.
    pub(crate) target: String,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) framing: Framing,
    /// The client would send another request on the connection.
    pub(crate) keep_alive: bool,
    /// The client waits for `100 Continue`.
    pub(crate) expects: bool,
}

/// An answer's head.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) framing: Framing,
    /// The upstream would take another request on the connection.
    pub(crate) keep_alive: bool,
}

/// Takes a request's head out of what was read. `None`: it is not there whole. The refusal is for the client.
pub(crate) fn request(buffer: &mut BytesMut, most: Most) -> Result<Option<RequestHead>, Refusal> {
    // An empty line before a request is left over from the one before (RFC 9112, section 2.2).
    while buffer.starts_with(b"\r\n") {
        let _ = buffer.split_to(2);
    }
    let Some(size) = end_of_head(buffer) else {
        if buffer.len() > most.bytes {
            return Err(if memchr::memchr(b'\n', buffer).is_none() { too_long(most) } else { too_large(most) });
        }
        return if has_bare_line_end(buffer) { Err(bad("a line ends with LF alone, or holds a lone CR")) } else { Ok(None) };
    };
    if size > most.bytes {
        return Err(too_large(most));
    }
    let head = buffer.split_to(size).freeze();
    match parsed(&head, most) {
        Err(_) if is_folded(&head) => parsed(&unfolded(&head)?, most).map(Some),
        result => result.map(Some),
    }
}

fn parsed(head: &Bytes, most: Most) -> Result<RequestHead, Refusal> {
    let mut places = [const { MaybeUninit::uninit() }; PLACES];
    let mut more: Vec<MaybeUninit<Header<'_>>>;
    let mut request = httparse::Request::new(&mut []);
    let mut status = request.parse_with_uninit_headers(head, &mut places);
    if status == Err(httparse::Error::TooManyHeaders) {
        if most.headers <= PLACES {
            return Err(too_large(most));
        }
        more = (0..most.headers.min(head.len() / 3) + 1).map(|_| MaybeUninit::uninit()).collect();
        request = httparse::Request::new(&mut []);
        status = request.parse_with_uninit_headers(head, &mut more);
    }
    match status {
        Ok(Status::Complete(size)) if size == head.len() => {}
        Ok(_) => return Err(bad("an empty line ends with LF alone")),
        Err(httparse::Error::TooManyHeaders) => return Err(too_large(most)),
        Err(httparse::Error::Version) if names_a_version(head) => {
            return Err(Refusal::client(505, "bad-version", "the request's version is not HTTP/1.1 or HTTP/1.0.", "Send HTTP/1.1."));
        }
        Err(error) => return Err(bad(&error.to_string())),
    }
    let headers = collected(head, request.headers).map_err(bad)?;
    let method = request.method.and_then(|method| Method::from_bytes(method.as_bytes()).ok()).ok_or_else(|| bad("its method"))?;
    let old = request.version == Some(0);
    let framing = request_framing(&headers, old)?;
    let keep_alive = keeps_alive(&headers, old);
    let expects = !old && framing != Framing::Length(0) && headers.get(EXPECT).is_some_and(|value| is(value, b"100-continue"));
    let target = request.path.unwrap_or_default();
    // A fragment is nothing that is sent (RFC 9110, section 7.1).
    if !target.bytes().all(|byte| (byte.is_ascii_graphic() && byte != b'#') || !byte.is_ascii()) {
        return Err(bad("its target holds a byte that no target may hold"));
    }
    let target = legal_target(target.as_bytes());
    let version = if old { Version::HTTP_10 } else { Version::HTTP_11 };
    Ok(RequestHead { method, target, version, headers, framing, keep_alive, expects })
}

/// Takes an answer's head out of what was read. `None`: it is not there whole. `method`: the request's. The error is what is wrong with it.
pub(crate) fn response(buffer: &mut BytesMut, method: &Method, most: Most) -> Result<Option<ResponseHead>, String> {
    let Some(size) = end_of_head(buffer) else {
        return if buffer.len() > most.bytes { Err("its head does not end".into()) } else { Ok(None) };
    };
    let head = buffer.split_to(size).freeze();
    let mut places = [const { MaybeUninit::uninit() }; PLACES];
    let mut more: Vec<MaybeUninit<Header<'_>>>;
    let config = httparse::ParserConfig::default();
    let mut response = httparse::Response::new(&mut []);
    let mut status = config.parse_response_with_uninit_headers(&mut response, &head, &mut places);
    if status == Err(httparse::Error::TooManyHeaders) {
        more = (0..most.headers.min(head.len() / 3) + 1).map(|_| MaybeUninit::uninit()).collect();
        response = httparse::Response::new(&mut []);
        status = config.parse_response_with_uninit_headers(&mut response, &head, &mut more);
    }
    match status {
        Ok(Status::Complete(size)) if size == head.len() => {}
        Ok(_) => return Err("its head is not one: an empty line ends with LF alone".into()),
        Err(error) => return Err(format!("its head is not one: {error}")),
    }
    let mut headers = collected(&head, response.headers).map_err(str::to_owned)?;
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or("its status is none")?;
    let old = response.version == Some(0);
    let keep_alive = keeps_alive(&headers, old);
    let bodiless = *method == Method::HEAD || status.is_informational() || matches!(status.as_u16(), 204 | 304);
    let framing = response_framing(&mut headers, old)?;
    let framing = if bodiless { Framing::Length(0) } else { framing };
    let keep_alive = keep_alive && framing != Framing::Close;
    Ok(Some(ResponseHead { status, headers, framing, keep_alive }))
}

/// Where the empty line is.
fn end_of_head(buffer: &[u8]) -> Option<usize> {
    memmem::find(buffer, b"\r\n\r\n").map(|at| at + 4)
}

/// Only asked where no empty line is found: such a head would never end.
fn has_bare_line_end(buffer: &[u8]) -> bool {
    let lone_cr = |at: usize| buffer.get(at + 1).is_some_and(|next| *next != b'\n');
    memchr::memchr_iter(b'\n', buffer).any(|at| at == 0 || buffer.get(at - 1) != Some(&b'\r'))
        || memchr::memchr_iter(b'\r', buffer).any(lone_cr)
}

/// Names and values, if every line ends as it must.
fn collected(head: &Bytes, parsed: &[Header<'_>]) -> Result<HeaderMap, &'static str> {
    let base = head.as_ptr() as usize;
    let mut headers = HeaderMap::with_capacity(parsed.len() + 8);
    for header in parsed {
        let name_at = header.name.as_ptr() as usize - base;
        // httparse takes LF alone for a line's end, which others take for a part of the line.
        if head.get(name_at.wrapping_sub(2)..name_at) != Some(b"\r\n") {
            return Err("a line ends with LF alone");
        }
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| "a header's name is not a token")?;
        let value = if header.value.is_empty() {
            HeaderValue::from_static("")
        } else {
            let at = header.value.as_ptr() as usize - base;
            HeaderValue::from_maybe_shared(head.slice(at..at + header.value.len()))
                .map_err(|_| "a header's value holds a control character")?
        };
        headers.append(name, value);
    }
    Ok(headers)
}

fn is_folded(head: &[u8]) -> bool {
    memmem::find(head, b"\r\n ").is_some() || memmem::find(head, b"\r\n\t").is_some()
}

/// Each obsolete line fold becomes blanks, as it has to before it is forwarded (RFC 9112, section 5.2); but not where a reader that does
/// otherwise would send the request elsewhere, or see its end elsewhere.
fn unfolded(head: &[u8]) -> Result<Bytes, Refusal> {
    let mut lines: Vec<u8> = Vec::with_capacity(head.len());
    let mut rest = head;
    while let Some(at) = memmem::find(rest, b"\r\n") {
        let (line, after) = rest.split_at(at);
        lines.extend_from_slice(line);
        rest = after.get(2..).unwrap_or_default();
        let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        // The request line is none that could go on.
        if blanks > 0 && lines.contains(&b'\n') {
            let start = memchr::memrchr(b'\n', &lines).map_or(0, |at| at + 1);
            let name = lines.get(start..).unwrap_or_default().split(|byte| *byte == b':').next().unwrap_or_default();
            if [HOST, CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|framing| name.eq_ignore_ascii_case(framing.as_str().as_bytes())) {
                return Err(bad("Host, content-length or transfer-encoding is folded"));
            }
            lines.extend_from_slice(b"  ");
            rest = rest.get(blanks..).unwrap_or_default();
        } else {
            lines.extend_from_slice(b"\r\n");
        }
    }
    Ok(lines.into())
}

/// True if the request line ends with a version, whichever.
fn names_a_version(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(_), Some(_), Some(version), None) = (words.next(), words.next(), words.next(), words.next()) else { return false };
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
}

fn request_framing(headers: &HeaderMap, old: bool) -> Result<Framing, Refusal> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    let hint = "Send one content-length, or chunks.";
    if headers.contains_key(TRANSFER_ENCODING) {
        let words = headers.get_all(TRANSFER_ENCODING).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        let words: SmallVec<[&[u8]; 2]> = words.map(<[u8]>::trim_ascii).collect();
        if length.is_some() || old || words.iter().any(|word| word.is_empty()) {
            let why = "transfer-encoding is empty, beside content-length, or in HTTP/1.0";
            return Err(Refusal::client(400, "bad-length", why, hint));
        }
        if words.iter().any(|word| !word.eq_ignore_ascii_case(b"chunked")) {
            let why = "the transfer-encoding is not `chunked` alone.";
            return Err(Refusal::client(501, "unknown-coding", why, "Send the body as it is, or in chunks."));
        }
        return if words.len() == 1 { Ok(Framing::Chunked) } else { Err(Refusal::client(400, "bad-length", "it is chunked twice", hint)) };
    }
    let Some(length) = length else { return Ok(Framing::Length(0)) };
    match (digits(length), lengths.next()) {
        (Some(length), None) => Ok(Framing::Length(length)),
        _ => Err(Refusal::client(400, "bad-length", "content-length is repeated, beside transfer-encoding, or not a number", hint)),
    }
}

/// A length beside chunks is the mark of an answer that was tampered with (RFC 9112, section 6.3).
fn response_framing(headers: &mut HeaderMap, old: bool) -> Result<Framing, String> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if old || codings.next().is_some() || !is(coding, b"chunked") || headers.contains_key(CONTENT_LENGTH) {
            return Err("its transfer-encoding is not `chunked` alone, or beside content-length".into());
        }
        return Ok(Framing::Chunked);
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(Framing::Close) };
    let length = digits(first).ok_or("its content-length is not a number")?;
    if lengths.any(|other| digits(other) != Some(length)) {
        return Err("it has several lengths".into());
    }
    if headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(Framing::Length(length))
}

/// Digits alone: no sign, no list, no zeros before it.
fn digits(value: &HeaderValue) -> Option<u64> {
    let bytes = value.as_bytes();
    if bytes.is_empty() || bytes.len() > 18 || !bytes.iter().all(u8::is_ascii_digit) || (bytes.len() > 1 && bytes.starts_with(b"0")) {
        return None;
    }
    Some(bytes.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}

fn is(value: &HeaderValue, word: &[u8]) -> bool {
    value.as_bytes().trim_ascii().eq_ignore_ascii_case(word)
}

fn keeps_alive(headers: &HeaderMap, old: bool) -> bool {
    let mut keep = !old;
    for value in headers.get_all(CONNECTION) {
        for token in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"close") {
                return false;
            }
            keep |= token.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    keep
}

/// True if the client asks for trailers: `TE: trailers`.
pub(crate) fn takes_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|word| word.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Bytes that no request target may hold, encoded: nothing is lost, and what follows is ASCII.
pub fn legal_target(target: &[u8]) -> String {
    let legal = |byte: &u8| byte.is_ascii_graphic() && *byte != b'#';
    if let (true, Ok(text)) = (target.iter().all(legal), std::str::from_utf8(target)) {
        return text.to_owned();
    }
    let mut text = String::with_capacity(target.len() + 16);
    for byte in target {
        if legal(byte) {
            text.push(char::from(*byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

fn bad(why: &str) -> Refusal {
    Refusal::client(400, "bad-request", format!("the request cannot be read: {why}."), "Send a request that keeps to RFC 9112.")
}

fn too_large(most: Most) -> Refusal {
    Refusal::client(
        431,
        "head-too-large",
        format!("the request's head has more than {} bytes or {} headers.", most.bytes, most.headers),
        "Send fewer or shorter headers, or raise limits.headers and limits.header_bytes.",
    )
}

fn too_long(most: Most) -> Refusal {
    Refusal::client(
        414,
        "target-too-long",
        format!("the request line has more than {} bytes", most.bytes),
        "Shorten path and query, or raise limits.target_bytes.",
    )
}

/// A request's line and headers. `framing`: what the headers do not say yet.
pub(crate) fn write_request(into: &mut Vec<u8>, method: &Method, path: &str, headers: &HeaderMap, chunked: bool) {
    into.extend_from_slice(method.as_str().as_bytes());
    into.push(b' ');
    into.extend_from_slice(path.as_bytes());
    into.extend_from_slice(b" HTTP/1.1\r\n");
    write_headers(into, headers);
    if chunked {
        into.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    into.extend_from_slice(b"\r\n");
}

/// An answer's line and headers, but for what says how its body ends and the empty line.
pub(crate) fn write_response(into: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap) {
    into.extend_from_slice(b"HTTP/1.1 ");
    into.extend_from_slice(status.as_str().as_bytes());
    into.push(b' ');
    into.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    into.extend_from_slice(b"\r\n");
    write_headers(into, headers);
}

pub(crate) fn write_headers(into: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        into.extend_from_slice(name.as_str().as_bytes());
        into.extend_from_slice(b": ");
        into.extend_from_slice(value.as_bytes());
        into.extend_from_slice(b"\r\n");
    }
}

/// `content-length: 42`, as a line.
pub(crate) fn write_length(into: &mut Vec<u8>, length: u64) {
    // Writing to a Vec does not fail.
    let _ = write!(into, "content-length: {length}\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Most = Most { bytes: 64 << 10, headers: 200 };

    fn read(bytes: &[u8]) -> Result<Option<RequestHead>, u16> {
        request(&mut BytesMut::from(bytes), MOST).map_err(|refusal| refusal.status)
    }

    #[test]
    fn a_head_is_read_when_it_is_whole_and_not_before() {
        let whole = b"POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /";
        let head = whole.len() - b"abcGET /".len();
        for size in 0..head {
            assert!(read(&whole[..size]).unwrap().is_none(), "{size}");
        }
        let mut buffer = BytesMut::from(&whole[..]);
        let head = request(&mut buffer, MOST).unwrap().unwrap();
        assert_eq!((head.method.as_str(), head.target.as_str(), head.framing), ("POST", "/a?b", Framing::Length(3)));
        assert_eq!(&buffer[..], b"abcGET /");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (bytes, status) in [
            (&b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"[..], 400),
            (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nContent-Length: \r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
            (b"GET / HTTP/1.1\nHost: x\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nA: b\n\n", 400),
            (b"GET / HTTP/1.1\r\nA: b\n\nGET / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n: b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n b: c\r\n\r\n", 400),
            (b"GET  / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.2\r\n\r\n", 505),
            (b"GET / HTTP/3.0\r\n\r\n", 505),
            (b"GET / HTTP/1.10\r\n\r\n", 400),
            (b"GET /a#b HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nContent-Length: 05\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nContent-Length:\r\n 5\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n", 400),
        ] {
            assert_eq!(read(bytes).err(), Some(status), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn folds_become_blanks() {
        let head = read(b"GET / HTTP/1.1\r\nA: b\r\n\t  c\r\nD: e\r\n\r\n").unwrap().unwrap();
        assert_eq!(head.headers["a"], "b  c");
        assert_eq!(head.headers["d"], "e");
    }

    #[test]
    fn too_much_of_a_head_is_refused() {
        let many: Vec<u8> = (0..300).flat_map(|number| format!("h{number}: v\r\n").into_bytes()).collect();
        let head = |headers: &[u8]| [b"GET / HTTP/1.1\r\n", headers, b"\r\n"].concat();
        assert_eq!(read(&head(&many)).err(), Some(431));
        let some: Vec<u8> = (0..199).flat_map(|number| format!("h{number}: v\r\n").into_bytes()).collect();
        assert_eq!(read(&head(&some)).unwrap().unwrap().headers.len(), 199);
        assert_eq!(read(&head(&[b"a: ".as_slice(), &vec![b'x'; 65 << 10], b"\r\n"].concat())).err(), Some(431));
        assert_eq!(read(&[b"GET /".as_slice(), &vec![b'x'; 65 << 10]].concat()).err(), Some(414));
    }

    #[test]
    fn answers() {
        let read = |bytes: &[u8], method: Method| response(&mut BytesMut::from(bytes), &method, MOST);
        let framing = |bytes: &[u8]| read(bytes, Method::GET).unwrap().map(|head| (head.framing, head.keep_alive));
        assert_eq!(framing(b"HTTP/1.1 200 OK\r\n\r\n"), Some((Framing::Close, false)));
        assert_eq!(framing(b"HTTP/1.1 200\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n"), Some((Framing::Length(5), true)));
        assert_eq!(framing(b"HTTP/1.1 204 No\r\n\r\n"), Some((Framing::Length(0), true)));
        assert_eq!(framing(b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\n"), Some((Framing::Length(5), false)));
        assert_eq!(framing(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: Close\r\n\r\n"), Some((Framing::Length(5), false)));
        assert_eq!(framing(b"HTTP/1.1 200 OK\r\n"), None);
        for bad in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"ICY 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\na: b\nc: d\r\n\r\n",
        ] {
            assert!(read(bad, Method::GET).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        let head = read(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Method::HEAD).unwrap().unwrap();
        assert_eq!((head.framing, head.headers["content-length"].as_bytes()), (Framing::Length(0), &b"5"[..]));
    }

    #[test]
    fn targets_hold_what_targets_may_hold() {
        assert_eq!(legal_target(b"/a b#c\xff"), "/a%20b%23c%FF");
        assert_eq!(legal_target(b"/a%20b"), "/a%20b");
    }
}
