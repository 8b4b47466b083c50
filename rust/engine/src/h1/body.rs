//! Bodies: what is data, and where they end.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderMap, TRAILER, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue};
use memchr::memmem;

use super::head::Framing;
use crate::net::End;

/// A chunk's size with its extensions, bytes.
const SIZE_LINE: usize = 4 << 10;
/// Trailers, bytes and number.
const TRAILERS: usize = 16 << 10;
const TRAILER_LINES: usize = 64;

/// What is left of a body.
#[derive(Debug)]
pub(crate) enum Decoder {
    /// Nothing.
    Done,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunks(Chunks),
    /// All until the end.
    Close,
}

/// Where in its chunks a body is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Chunks {
    /// Before a size.
    Size,
    /// So many bytes of a chunk are left.
    Data(u64),
    /// Before the end of the chunk's line.
    DataEnd,
    /// Behind the last chunk.
    Trailers,
}

/// What came next.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Never empty.
    Data(Bytes),
    /// The body is complete.
    End(Option<HeaderMap>),
    /// More must be read first.
    More,
}

impl Decoder {
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(0) => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunks(Chunks::Size),
            Framing::Close => Self::Close,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Bytes that are left, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self {
            Self::Done => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunks(_) | Self::Close => None,
        }
    }

    /// Takes the next piece out of what was read. `end`: nothing more will be. The error says how the body is broken.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut, end: Option<End>) -> Result<Piece, &'static str> {
        match self {
            Self::Done => Ok(Piece::End(None)),
            Self::Length(left) => {
                if buffer.is_empty() {
                    return if end.is_some() { Err("it is shorter than its content-length") } else { Ok(Piece::More) };
                }
                let data = part(buffer, left);
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Piece::Data(data))
            }
            Self::Close => match end {
                _ if !buffer.is_empty() => Ok(Piece::Data(buffer.split().freeze())),
                None => Ok(Piece::More),
                Some(End::Said) => {
                    *self = Self::Done;
                    Ok(Piece::End(None))
                }
                Some(End::Cut) => Err("the connection broke"),
            },
            Self::Chunks(chunks) => match chunks.next(buffer)? {
                Piece::More if end.is_some() => Err("its last chunk is missing"),
                Piece::End(trailers) => {
                    *self = Self::Done;
                    Ok(Piece::End(trailers))
                }
                piece => Ok(piece),
            },
        }
    }
}

/// What there is of `left` bytes.
fn part(buffer: &mut BytesMut, left: &mut u64) -> Bytes {
    let size = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    *left -= size as u64;
    buffer.split_to(size).freeze()
}

impl Chunks {
    fn next(&mut self, buffer: &mut BytesMut) -> Result<Piece, &'static str> {
        loop {
            match self {
                Self::Size => {
                    let Some(size) = size_line(buffer)? else { return Ok(Piece::More) };
                    *self = if size == 0 { Self::Trailers } else { Self::Data(size) };
                }
                Self::Data(_) if buffer.is_empty() => return Ok(Piece::More),
                Self::Data(left) => {
                    let data = part(buffer, left);
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    return Ok(Piece::Data(data));
                }
                Self::DataEnd => match buffer.get(..2) {
                    Some(b"\r\n") => {
                        buffer.advance(2);
                        *self = Self::Size;
                    }
                    None if buffer.is_empty() || buffer.starts_with(b"\r") => return Ok(Piece::More),
                    _ => return Err("a chunk is longer than its size"),
                },
                Self::Trailers => return trailers(buffer),
            }
        }
    }
}

/// Takes a chunk's size, with its extensions. `None`: the line is not there whole.
fn size_line(buffer: &mut BytesMut) -> Result<Option<u64>, &'static str> {
    let Some(end) = memchr::memchr(b'\n', buffer) else {
        return if buffer.len() > SIZE_LINE { Err("the line of a chunk's size is too long") } else { Ok(None) };
    };
    let line = buffer.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or("a chunk's size ends with LF alone")?;
    if line.len() > SIZE_LINE {
        return Err("the line of a chunk's size is too long");
    }
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (number, after) = line.split_at(digits);
    if digits == 0 || digits > 16 {
        return Err("a chunk's size is not a hexadecimal number");
    }
    // Blanks may stand before an extension (RFC 9112, section 7.1.1); nothing else may stand before the line's end.
    let extension = after.trim_ascii_start();
    if !(extension.is_empty() || extension.starts_with(b";")) || extension.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err("a chunk's size is followed by what is no extension");
    }
    let value = |digit: &u8| char::from(*digit).to_digit(16).map_or(0, u64::from);
    let size = number.iter().fold(0, |size: u64, digit| size << 4 | value(digit));
    buffer.advance(end + 1);
    Ok(Some(size))
}

fn trailers(buffer: &mut BytesMut) -> Result<Piece, &'static str> {
    if buffer.starts_with(b"\r\n") {
        buffer.advance(2);
        return Ok(Piece::End(None));
    }
    let Some(end) = memmem::find(buffer, b"\r\n\r\n") else {
        return if buffer.len() > TRAILERS { Err("its trailers are too long") } else { Ok(Piece::More) };
    };
    let block = buffer.split_to(end + 4);
    let mut places = [httparse::EMPTY_HEADER; TRAILER_LINES];
    let Ok(httparse::Status::Complete((size, parsed))) = httparse::parse_headers(&block, &mut places) else {
        return Err("its trailers are not headers");
    };
    if size != block.len() {
        return Err("its trailers are not headers");
    }
    let mut trailers = HeaderMap::with_capacity(parsed.len());
    for header in parsed {
        // As in heads: httparse takes LF alone for a line's end.
        let at = header.name.as_ptr() as usize - block.as_ptr() as usize;
        if at > 0 && block.get(at.wrapping_sub(2)..at) != Some(b"\r\n") {
            return Err("a trailer ends with LF alone");
        }
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(header.name.as_bytes()), HeaderValue::from_bytes(header.value)) else {
            return Err("its trailers are not headers");
        };
        // What decides where a message goes and ends is not taken from behind it (RFC 9110, section 6.5.1).
        if ![CONTENT_LENGTH, TRANSFER_ENCODING, HOST, TRAILER, AUTHORIZATION].contains(&name) {
            trailers.append(name, value);
        }
    }
    Ok(Piece::End(Some(trailers).filter(|trailers| !trailers.is_empty())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its data, its trailers, what is left.
    type Decoded = (Vec<u8>, Option<HeaderMap>, Vec<u8>);

    /// All of a body that comes `step` bytes at a time.
    fn decoded(framing: Framing, bytes: &[u8], step: usize) -> Result<Decoded, &'static str> {
        let (mut decoder, mut buffer, mut data) = (Decoder::new(framing), BytesMut::new(), Vec::new());
        let mut steps = bytes.chunks(step);
        let mut end = None;
        loop {
            match decoder.next(&mut buffer, end)? {
                Piece::Data(piece) => data.extend_from_slice(&piece),
                Piece::End(trailers) => {
                    buffer.extend(steps.flatten());
                    return Ok((data, trailers, buffer.to_vec()));
                }
                Piece::More => match steps.next() {
                    Some(more) => buffer.extend_from_slice(more),
                    None => end = Some(End::Said),
                },
            }
        }
    }

    #[test]
    fn bodies_end_where_they_say() {
        let chunked = b"4\r\nWiki\r\n5;a=b\r\npedia\r\n0\r\nX-A: b\r\nContent-Length: 3\r\n\r\nGET /";
        for step in 1..chunked.len() {
            let (data, trailers, left) = decoded(Framing::Chunked, chunked, step).unwrap();
            let trailers = trailers.unwrap();
            assert_eq!((&data[..], trailers.len(), &left[..]), (&b"Wikipedia"[..], 1, &b"GET /"[..]), "{step}");
            let (data, _, left) = decoded(Framing::Length(4), b"abcdef", step).unwrap();
            assert_eq!((&data[..], &left[..]), (&b"abcd"[..], &b"ef"[..]));
            assert_eq!(decoded(Framing::Close, b"abcdef", step).unwrap().0, b"abcdef");
        }
    }

    #[test]
    fn broken_bodies_are_told() {
        assert!(decoded(Framing::Length(4), b"abc", 1).is_err());
        for broken in [
            &b"+4\r\nWiki\r\n0\r\n\r\n"[..],
            b"0x4\r\nWiki\r\n0\r\n\r\n",
            b"4\nWiki\r\n0\r\n\r\n",
            b"4\r\nWikis\r\n0\r\n\r\n",
            b"4 4\r\nWiki\r\n0\r\n\r\n",
            b"4;a\x01\r\nWiki\r\n0\r\n\r\n",
            b"\r\nWiki\r\n0\r\n\r\n",
            b"10000000000000004\r\nWiki\r\n0\r\n\r\n",
            b"4\r\nWiki\r\n0\r\nbroken\r\n\r\n",
            b"4\r\nWiki\r\n0\r\n",
            b"4\r\nWiki\r\n",
            b"4\r\nWi",
        ] {
            assert!(decoded(Framing::Chunked, broken, broken.len()).is_err(), "{}", String::from_utf8_lossy(broken));
            assert!(decoded(Framing::Chunked, broken, 1).is_err(), "{}", String::from_utf8_lossy(broken));
        }
        let mut decoder = Decoder::new(Framing::Close);
        assert!(decoder.next(&mut BytesMut::new(), Some(End::Cut)).is_err());
    }
}
