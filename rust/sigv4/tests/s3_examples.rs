//! The worked examples of the S3 API Reference: "Signature calculations … transferring payload in multiple chunks",
//! "… including trailing headers" and "Authenticating requests: using query parameters".

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use sigward_sigv4::chunked::{ChunkError, ChunkSigner, Decoder, Encoder, Framing, Piece};
use sigward_sigv4::verify::{Claim, Rules};
use sigward_sigv4::{Checksum, ChecksumAlgorithm, Credentials, Options, Payload, Request, Scope, Style, Variant, presign_steps, steps};

const WHEN: u64 = 1_369_353_600;
const SCOPE: Scope<'static> = Scope { region: "us-east-1", signing_name: "s3", style: Style::S3 };

fn credentials() -> Credentials {
    Credentials::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None).unwrap()
}

type Trailers = Vec<(String, String)>;

/// What the decoder finds, whole and byte by byte.
fn decoded(mut decoder: Decoder, body: &[u8], step: usize) -> Result<(Vec<u8>, Trailers), ChunkError> {
    let (mut data, mut trailers) = (Vec::new(), Vec::new());
    for mut part in body.chunks(step) {
        while let Some(piece) = decoder.next(&mut part)? {
            match piece {
                Piece::Data(bytes) => data.extend_from_slice(bytes),
                Piece::Trailer { name, value } => trailers.push((String::from_utf8(name).unwrap(), String::from_utf8(value).unwrap())),
            }
        }
    }
    decoder.end()?;
    Ok((data, trailers))
}

#[test]
fn a_body_in_chunks() {
    let credentials = credentials();
    let request = Request {
        method: "PUT",
        path: b"/examplebucket/chunkObject.txt",
        query: b"",
        headers: &[
            (b"Host", b"s3.amazonaws.com"),
            (b"x-amz-storage-class", b"REDUCED_REDUNDANCY"),
            (b"Content-Encoding", b"aws-chunked"),
            (b"x-amz-decoded-content-length", b"66560"),
            (b"Content-Length", b"66824"),
        ],
        payload: Payload::Given(Framing::Signed.keyword(Variant::V4).as_bytes()),
    };
    let steps = steps(&credentials, &SCOPE, &request, WHEN).unwrap();
    assert_eq!(steps.signature, "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9");

    let signer = ChunkSigner::new(&credentials, &SCOPE, Variant::V4, steps.signed.amz_date(), steps.signed.signature()).unwrap();
    let mut encoder = Encoder::signed(signer, false);
    let body = vec![b'a'; 66_560];
    let mut framed = Vec::new();
    for chunk in body.chunks(65_536) {
        encoder.chunk(chunk, &mut framed).unwrap();
    }
    encoder.finish(&[], &mut framed).unwrap();
    let text = String::from_utf8(framed.clone()).unwrap();
    assert!(text.starts_with("10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\naaaa"));
    assert!(text.contains("\r\n400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n"));
    assert!(text.ends_with("\r\n0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n"));
    assert_eq!(framed.len(), 66_824);
    assert_eq!(Framing::Signed.encoded_length(Variant::V4, 66_560, 65_536, &[]), 66_824);

    let mut headers = request.headers.to_vec();
    headers.extend(steps.signed.headers());
    let signed = Request { headers: &headers, ..request };
    let verified = Claim::of(&signed).unwrap().verify(&credentials, &signed, &Rules::new(Style::S3, WHEN)).unwrap();
    assert_eq!(decoded(verified.decoder().unwrap(), &framed, usize::MAX).unwrap(), (body.clone(), vec![]));
    assert_eq!(decoded(verified.decoder().unwrap(), &framed, 7).unwrap().0, body);
    for (at, expected) in [(100, ChunkError::Signature { chunk: 0 }), (65_800, ChunkError::Signature { chunk: 1 })] {
        let mut spoiled = framed.clone();
        spoiled[at] ^= 1;
        assert_eq!(decoded(verified.decoder().unwrap(), &spoiled, 1000).unwrap_err(), expected);
    }
    assert_eq!(decoded(verified.decoder().unwrap(), &framed[..66_000], 1000).unwrap_err(), ChunkError::Truncated);
}

#[test]
fn a_body_in_chunks_with_a_trailer() {
    let credentials = credentials();
    let request = Request {
        method: "PUT",
        path: b"/examplebucket/chunkObject.txt",
        query: b"",
        headers: &[
            (b"Host", b"s3.amazonaws.com"),
            (b"x-amz-storage-class", b"REDUCED_REDUNDANCY"),
            (b"Content-Encoding", b"aws-chunked"),
            (b"x-amz-decoded-content-length", b"66560"),
            (b"x-amz-trailer", b"x-amz-checksum-crc32c"),
        ],
        payload: Payload::Given(Framing::SignedTrailer.keyword(Variant::V4).as_bytes()),
    };
    let steps = steps(&credentials, &SCOPE, &request, WHEN).unwrap();
    assert_eq!(steps.signature, "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e");

    let signer = ChunkSigner::new(&credentials, &SCOPE, Variant::V4, steps.signed.amz_date(), steps.signed.signature()).unwrap();
    let mut encoder = Encoder::signed(signer, true);
    let mut checksum = Checksum::new(ChecksumAlgorithm::Crc32c);
    let body = vec![b'a'; 66_560];
    let mut framed = Vec::new();
    for chunk in body.chunks(65_536) {
        checksum.update(chunk);
        encoder.chunk(chunk, &mut framed).unwrap();
    }
    assert_eq!(checksum.text(), "sOO8/Q==");
    encoder.finish(&[(b"x-amz-checksum-crc32c", checksum.text().as_bytes())], &mut framed).unwrap();
    let text = String::from_utf8(framed.clone()).unwrap();
    assert!(text.starts_with("10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n"));
    assert!(text.contains("\r\n400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n"));
    assert!(text.ends_with(
        "\r\n0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\nx-amz-checksum-crc32c:sOO8/Q==\r\n\
         x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
    ));
    let length = Framing::SignedTrailer.encoded_length(Variant::V4, 66_560, 65_536, &[(b"x-amz-checksum-crc32c", 8)]);
    assert_eq!(length, framed.len() as u64);

    let mut headers = request.headers.to_vec();
    headers.extend(steps.signed.headers());
    let signed = Request { headers: &headers, ..request };
    let verified = Claim::of(&signed).unwrap().verify(&credentials, &signed, &Rules::new(Style::S3, WHEN)).unwrap();
    let trailer = vec![("x-amz-checksum-crc32c".to_owned(), "sOO8/Q==".to_owned())];
    assert_eq!(decoded(verified.decoder().unwrap(), &framed, 11).unwrap(), (body, trailer));
    let forged = text.replace("sOO8/Q==", "AAAAAA==");
    assert_eq!(decoded(verified.decoder().unwrap(), forged.as_bytes(), 1000).unwrap_err(), ChunkError::TrailerSignature);
}

#[test]
fn a_presigned_url() {
    let request = Request {
        method: "GET",
        path: b"/test.txt",
        query: b"",
        headers: &[(b"host", b"examplebucket.s3.amazonaws.com")],
        payload: Payload::UNSIGNED,
    };
    let steps = presign_steps(&credentials(), &SCOPE, &request, WHEN, 86_400, Options::default()).unwrap();
    assert_eq!(steps.signature, "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
    let request = Request { query: steps.signed.query(), ..request };
    let claim = Claim::of(&request).unwrap();
    claim.verify(&credentials(), &request, &Rules::new(Style::S3, WHEN + 86_400)).unwrap();
    assert_eq!(claim.verify(&credentials(), &request, &Rules::new(Style::S3, WHEN + 86_401)).unwrap_err().slug(), "expired");
}
