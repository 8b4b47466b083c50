//! A body in chunks, cut anywhere, reads the same; what the encoder writes, the decoder reads; any bytes end or fail.
#![no_main]

mod feed;

use feed::Feed;
use libfuzzer_sys::fuzz_target;
use sigward_sigv4::chunked::{ChunkError, ChunkSigner, Decoder, Encoder, Piece};
use sigward_sigv4::{Credentials, Scope, Style, Variant};

type Read = (Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>);

fn read<'a>(mut decoder: Decoder, parts: impl Iterator<Item = &'a [u8]>) -> Result<Read, ChunkError> {
    let (mut data, mut trailers) = (Vec::new(), Vec::new());
    for mut part in parts {
        while let Some(piece) = decoder.next(&mut part)? {
            match piece {
                Piece::Data(bytes) => data.extend_from_slice(bytes),
                Piece::Trailer { name, value } => trailers.push((name, value)),
            }
        }
        assert!(part.is_empty());
    }
    decoder.end()?;
    assert_eq!(decoder.decoded(), data.len() as u64);
    Ok((data, trailers))
}

fuzz_target!(|data: &[u8]| {
    let mut feed = Feed(data);
    let (step, size, signed) = (usize::from(feed.byte()) + 1, usize::from(feed.byte()) + 1, feed.byte() & 1 == 0);
    let whole = read(Decoder::new(), std::iter::once(feed.0));
    let cut = read(Decoder::new(), feed.0.chunks(step));
    assert_eq!(whole, cut);

    let credentials = Credentials::new("AKID", "secret", None).unwrap();
    let scope = Scope { region: "r", signing_name: "s3", style: Style::S3 };
    let signer = || ChunkSigner::new(&credentials, &scope, Variant::V4, b"20150830T123600Z", &[b'0'; 64]).unwrap();
    let mut encoder = if signed { Encoder::signed(signer(), true) } else { Encoder::unsigned() };
    let mut framed = Vec::new();
    for chunk in feed.0.chunks(size) {
        encoder.chunk(chunk, &mut framed).unwrap();
    }
    encoder.finish(&[(b"x-amz-checksum-crc32", b"AAAAAA==")], &mut framed).unwrap();
    let decoder = if signed { Decoder::checking(signer(), true) } else { Decoder::new() };
    let (body, trailers) = read(decoder, framed.chunks(step)).unwrap();
    assert_eq!(body, feed.0);
    assert_eq!(trailers, [(b"x-amz-checksum-crc32".to_vec(), b"AAAAAA==".to_vec())]);
});
