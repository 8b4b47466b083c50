//! Bodies on their way: out of the chunks that they came in, into chunks or signed messages that they leave in.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use sigward_gateway::Wrap;
use sigward_gateway::body::CHUNK;
use sigward_sigv4::Credentials;
use sigward_sigv4::chunked::{CHUNK_END, Decoder, Encoder, Piece};
use sigward_sigv4::event::{EventSigner, MAX_EVENT};

use crate::body::{BodyError, Inbound};
use crate::system::unix_seconds;

/// A body taken out of its chunks. `length`: what the client says that it is then.
pub(crate) fn unwrapped(body: Inbound, length: Option<u64>, decoder: Decoder) -> Inbound {
    let body = Unwrapped { body, length, decoder, piece: Bytes::new(), trailers: HeaderMap::new(), held: None, ended: false };
    Inbound::Other(body.boxed_unsync())
}

struct Unwrapped {
    body: Inbound,
    length: Option<u64>,
    decoder: Decoder,
    /// What is not yet decoded.
    piece: Bytes,
    trailers: HeaderMap,
    /// The last data of a body whose length is told: an upstream that has it all would answer, so its end must be seen first.
    held: Option<Bytes>,
    ended: bool,
}

impl Unwrapped {
    /// The next data in what is there.
    fn decode(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            let mut rest: &[u8] = &self.piece;
            let before = rest.len();
            let found = self.decoder.next(&mut rest).map_err(|error| wrong(&error))?;
            let used = before - rest.len();
            match found {
                None => {
                    self.piece = Bytes::new();
                    return Ok(None);
                }
                Some(Piece::Data(data)) => {
                    let size = data.len();
                    // The data is the end of what was used.
                    let data = self.piece.slice(used - size..used);
                    self.piece.advance(used);
                    match self.length.map(|length| self.decoder.decoded().cmp(&length)) {
                        Some(Ordering::Greater) => return Err(self.wrong_length()),
                        Some(Ordering::Equal) => self.held = Some(data),
                        _ => return Ok(Some(data)),
                    }
                }
                Some(Piece::Trailer { name, value }) => {
                    self.piece.advance(used);
                    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&name), HeaderValue::from_bytes(&value)) {
                        self.trailers.append(name, value);
                    }
                }
            }
        }
    }

    fn wrong_length(&self) -> BodyError {
        let (told, found) = (self.length.unwrap_or_default(), self.decoder.decoded());
        BodyError::Client(format!("x-amz-decoded-content-length says {told} bytes, but {found} or more came"))
    }

    fn close(&mut self) -> Result<(), BodyError> {
        self.decoder.end().map_err(|error| wrong(&error))?;
        if self.length.is_some_and(|length| self.decoder.decoded() != length) {
            return Err(BodyError::Client(format!(
                "x-amz-decoded-content-length says {} bytes, but {} came",
                self.length.unwrap_or_default(),
                self.decoder.decoded()
            )));
        }
        Ok(())
    }
}

fn wrong(error: &dyn std::error::Error) -> BodyError {
    BodyError::Client(format!("its aws-chunked framing is wrong: {error}"))
}

impl Body for Unwrapped {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        loop {
            match this.decode() {
                Err(error) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(None) => {}
            }
            match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(error))) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(Some(Ok(frame))) => this.piece = frame.into_data().unwrap_or_default(),
                Poll::Ready(None) if this.held.is_some() => {
                    let held = this.held.take().unwrap_or_default();
                    return Poll::Ready(Some(this.close().map(|()| Frame::data(held))));
                }
                Poll::Ready(None) => {
                    this.ended = true;
                    let trailers = std::mem::take(&mut this.trailers);
                    return Poll::Ready(match this.close() {
                        Err(error) => Some(Err(error)),
                        Ok(()) if trailers.is_empty() => None,
                        Ok(()) => Some(Ok(Frame::trailers(trailers))),
                    });
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// What a body is wrapped in while it goes out: takes pieces, gives pieces.
pub(crate) struct Wrapper {
    kind: Kind,
    ready: VecDeque<Bytes>,
    ended: bool,
}

#[allow(clippy::large_enum_variant, reason = "one an attempt")]
enum Kind {
    Chunks {
        /// Until it has written the end.
        encoder: Option<Encoder>,
        announced: Vec<HeaderName>,
        pieces: Vec<Bytes>,
        filled: usize,
        hash: Sha256,
    },
    Events {
        signer: EventSigner,
        credentials: Arc<Credentials>,
        skew: i64,
        message: BytesMut,
    },
}

impl Wrapper {
    pub(crate) fn new(wrap: Wrap) -> Self {
        let kind = match wrap {
            Wrap::Chunks { encoder, trailers } => {
                Kind::Chunks { encoder: Some(*encoder), announced: trailers, pieces: Vec::new(), filled: 0, hash: Sha256::new() }
            }
            Wrap::Events { signer, credentials, skew } => Kind::Events { signer: *signer, credentials, skew, message: BytesMut::new() },
        };
        Self { kind, ready: VecDeque::new(), ended: false }
    }

    pub(crate) fn next(&mut self) -> Option<Bytes> {
        self.ready.pop_front()
    }

    /// True if nothing is left to give, and nothing will come.
    pub(crate) fn is_done(&self) -> bool {
        self.ended && self.ready.is_empty()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn take(&mut self, mut data: Bytes) -> Result<(), BodyError> {
        match &mut self.kind {
            Kind::Chunks { encoder, pieces, filled, hash, .. } => {
                let Some(encoder) = encoder else { return Ok(()) };
                while !data.is_empty() {
                    let piece = data.split_to(data.len().min(CHUNK - *filled));
                    if encoder.is_signed() {
                        hash.update(&piece);
                    }
                    *filled += piece.len();
                    pieces.push(piece);
                    if *filled == CHUNK {
                        flush(encoder, pieces, filled, hash, &mut self.ready)?;
                    }
                }
                Ok(())
            }
            Kind::Events { signer, credentials, skew, message } => {
                message.extend_from_slice(&data);
                while let Some(whole) = next_message(message)? {
                    self.ready.push_back(sign_event(signer, credentials, &whole, *skew)?);
                }
                Ok(())
            }
        }
    }

    /// The body is over.
    pub(crate) fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), BodyError> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        match &mut self.kind {
            Kind::Chunks { encoder, announced, pieces, filled, hash } => {
                let Some(mut encoder) = encoder.take() else { return Ok(()) };
                flush(&mut encoder, pieces, filled, hash, &mut self.ready)?;
                let mut told: Vec<(&[u8], &[u8])> = Vec::new();
                for name in announced.iter() {
                    let mut values = trailers.into_iter().flat_map(|trailers| trailers.get_all(name));
                    let value = values.next();
                    if values.next().is_some() {
                        return Err(BodyError::Client(format!("the trailer {name} came twice")));
                    }
                    let value = value.ok_or_else(|| BodyError::Client(format!("the trailer {name} was announced, but did not come")))?;
                    told.push((name.as_str().as_bytes(), value.as_bytes()));
                }
                let mut last = Vec::with_capacity(256);
                encoder.finish(&told, &mut last).map_err(|error| unsignable(&error))?;
                self.ready.push_back(last.into());
                Ok(())
            }
            Kind::Events { signer, credentials, skew, message } => {
                if !message.is_empty() {
                    return Err(BodyError::Client("its last event-stream message is not whole".into()));
                }
                self.ready.push_back(sign_event(signer, credentials, b"", *skew)?);
                Ok(())
            }
        }
    }
}

fn unsignable(error: &sigward_sigv4::SignError) -> BodyError {
    BodyError::Client(format!("it cannot be signed: {error}"))
}

/// Gives the chunk that is gathered.
fn flush(
    encoder: &mut Encoder,
    pieces: &mut Vec<Bytes>,
    filled: &mut usize,
    hash: &mut Sha256,
    ready: &mut VecDeque<Bytes>,
) -> Result<(), BodyError> {
    if *filled == 0 {
        return Ok(());
    }
    let mut head = Vec::with_capacity(200);
    encoder.head_of(std::mem::take(filled), &hash.finalize_reset().into(), &mut head).map_err(|error| unsignable(&error))?;
    ready.push_back(head.into());
    ready.extend(pieces.drain(..));
    ready.push_back(Bytes::from_static(CHUNK_END));
    Ok(())
}

/// Takes a whole event-stream message off the front: its first four bytes are its length.
fn next_message(buffer: &mut BytesMut) -> Result<Option<Bytes>, BodyError> {
    let Some(length) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if !(16..=MAX_EVENT).contains(&length) {
        return Err(BodyError::Client(format!("an event-stream message of {length} bytes: 16 to {MAX_EVENT} are expected")));
    }
    Ok((buffer.len() >= length).then(|| buffer.split_to(length).freeze()))
}

/// By the clock of the request's own signature.
fn sign_event(signer: &mut EventSigner, credentials: &Credentials, message: &[u8], skew: i64) -> Result<Bytes, BodyError> {
    signer.sign(credentials, message, unix_seconds().saturating_add_signed(skew)).map(Bytes::from).map_err(|error| unsignable(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;

    fn inbound(pieces: &[&'static [u8]]) -> Inbound {
        let frames: Vec<Result<Frame<Bytes>, BodyError>> = pieces.iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece)))).collect();
        Inbound::Other(StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync())
    }

    async fn collected(body: Inbound) -> Result<(Vec<u8>, Option<HeaderMap>), BodyError> {
        let collected = body.collect().await?;
        let trailers = collected.trailers().cloned();
        Ok((collected.to_bytes().to_vec(), trailers))
    }

    #[tokio::test]
    async fn out_of_its_chunks() {
        let pieces: &[&'static [u8]] =
            &[b"3;chunk-signature=00\r", b"\nab", b"c\r\n2\r\nde\r\n0\r\nx-amz-checksum-crc32:AA", b"==\r\n\r\n"];
        let (body, trailers) = collected(unwrapped(inbound(pieces), Some(5), Decoder::new())).await.unwrap();
        assert_eq!(body, b"abcde");
        assert_eq!(trailers.unwrap().get("x-amz-checksum-crc32").unwrap(), "AA==");
        for (pieces, length, said) in [
            (&[&b"3\r\nabc\r\n0\r\n\r\n"[..]][..], Some(2), "says 2 bytes, but 3 or more came"),
            (&[b"3\r\nabc\r\n0\r\n\r\n"], Some(4), "says 4 bytes, but 3 came"),
            (&[b"3\r\nabc\r\n"], None, "ends before its last chunk"),
            (&[b"zz\r\n"], None, "framing is wrong"),
        ] {
            let error = collected(unwrapped(inbound(pieces), length, Decoder::new())).await.unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn into_chunks_of_one_size() {
        let mut wrapper = Wrapper::new(Wrap::Chunks { encoder: Box::new(Encoder::unsigned()), trailers: vec![] });
        for size in [CHUNK - 1, 2, CHUNK * 2, 5] {
            wrapper.take(vec![b'x'; size].into()).unwrap();
        }
        wrapper.end(None).unwrap();
        let mut framed = Vec::new();
        while let Some(piece) = wrapper.next() {
            framed.extend_from_slice(&piece);
        }
        assert!(wrapper.is_done());
        let mut decoder = Decoder::new();
        let mut rest = &framed[..];
        let mut sizes = Vec::new();
        while let Some(piece) = decoder.next(&mut rest).unwrap() {
            if let Piece::Data(data) = piece {
                sizes.push(data.len());
            }
        }
        assert_eq!(sizes, [CHUNK, CHUNK, CHUNK, 6]);
    }

    #[test]
    fn an_announced_trailer_must_come() {
        let trailers = vec![HeaderName::from_static("x-amz-checksum-crc32")];
        let mut wrapper = Wrapper::new(Wrap::Chunks { encoder: Box::new(Encoder::unsigned()), trailers });
        assert!(wrapper.end(None).unwrap_err().to_string().contains("x-amz-checksum-crc32"));
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let mut buffer = BytesMut::new();
        let mut found = 0;
        let message = [&20_u32.to_be_bytes()[..], &[7; 16]].concat();
        for byte in message.repeat(3) {
            buffer.extend_from_slice(&[byte]);
            while let Some(whole) = next_message(&mut buffer).unwrap() {
                assert_eq!(whole, message);
                found += 1;
            }
        }
        assert_eq!((found, buffer.len()), (3, 0));
        for length in [0_u32, 15, u32::MAX] {
            assert!(next_message(&mut BytesMut::from(&length.to_be_bytes()[..])).is_err());
        }
    }
}
