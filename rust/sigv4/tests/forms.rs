//! Each form: what is signed is believed, what is changed on the way is not, and no bytes panic.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use sigward_sigv4::chunked::{CHUNK_END, ChunkError, ChunkSigner, Decoder, Encoder, Framing, Piece};
use sigward_sigv4::verify::{Claim, Place, Rules, VerifyError};
use sigward_sigv4::{
    Credentials, Options, Payload, QueryPlus, Request, Scope, SessionToken, SignError, Style, Variant, presign, presign_steps, sign_with,
    steps_with,
};

const NOW: u64 = 1_440_938_160;

fn credentials(token: bool) -> Credentials {
    Credentials::new("AKID", "secret", token.then_some("a/token+=")).unwrap()
}

fn style() -> impl Strategy<Value = Style> {
    prop_oneof![Just(Style::S3), Just(Style::Generic)]
}

fn variant() -> impl Strategy<Value = Variant> {
    prop_oneof![9 => Just(Variant::V4), 1 => Just(Variant::V4a)]
}

fn token() -> impl Strategy<Value = SessionToken> {
    prop_oneof![Just(SessionToken::Signed), Just(SessionToken::AddedAfter), Just(SessionToken::S3Express)]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..50)
}

fn headers() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let value = proptest::collection::vec(prop_oneof![b' '..=b'~', Just(b'\t'), 0x80..=0xff_u8], 0..20);
    let name = prop_oneof![
        "[A-Za-z][A-Za-z0-9-]{0,20}",
        "x[!#$%&'*+.^_`|~-]{1,4}",
        Just("X-Amz-Meta-A".to_owned()),
        Just("User-Agent".to_owned())
    ];
    proptest::collection::vec((name, value), 0..8)
}

fn pairs(headers: &[(String, Vec<u8>)]) -> Vec<(&[u8], &[u8])> {
    let replaced = ["x-amz-date", "authorization", "host"];
    let kept = headers.iter().filter(|(name, _)| !replaced.contains(&&*name.to_ascii_lowercase()));
    std::iter::once((&b"Host"[..], &b"h.test"[..])).chain(kept.map(|(name, value)| (name.as_bytes(), &value[..]))).collect()
}

fn options(variant: Variant, session_token: SessionToken) -> Options {
    Options { variant, session_token, ..Options::default() }
}

#[test]
fn a_plus_is_what_the_signer_took_it_for() {
    for style in [Style::S3, Style::Generic] {
        for query in ["a=b+c", "+", "a=%20&b+=%2B"] {
            for query_plus in [QueryPlus::Blank, QueryPlus::Plus] {
                let scope = Scope { region: "us-east-1", signing_name: "s", style };
                let headers = [(&b"host"[..], &b"h.test"[..])];
                let request =
                    Request { method: "GET", path: b"/a+b", query: query.as_bytes(), headers: &headers, payload: Payload::Bytes(b"") };
                let options = Options { query_plus, ..Options::default() };
                let signed = sign_with(&credentials(false), &scope, &request, NOW, options).unwrap();
                let all: Vec<(&[u8], &[u8])> = headers.into_iter().chain(signed.headers()).collect();
                let verified = |query: &str| {
                    let arrived = Request { query: query.as_bytes(), headers: &all, ..request };
                    Claim::of(&arrived).unwrap().verify(&credentials(false), &arrived, &Rules::new(style, NOW))
                };
                assert_eq!(verified(query).unwrap().query_plus, Some(query_plus));
                let (right, wrong) = if query_plus == QueryPlus::Blank { ("%20", "%2B") } else { ("%2B", "%20") };
                assert_eq!(verified(&query.replace('+', right)).unwrap().query_plus, None);
                assert_eq!(verified(&query.replace('+', wrong)).unwrap_err().slug(), "signature");
                let presigned = presign(&credentials(false), &scope, &request, NOW, 60, options).unwrap();
                assert!(!presigned.query().contains(&b'+') && String::from_utf8_lossy(presigned.query()).contains(right));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn by_headers(
        style in style(), variant in variant(), token in token(), with_token in any::<bool>(), path in bytes(), query in bytes(),
        headers in headers(), body in bytes(),
    ) {
        let credentials = credentials(with_token);
        let scope = Scope { region: "us-east-1", signing_name: "s", style };
        let pairs = pairs(&headers);
        let request = Request { method: "PUT", path: &path, query: &query, headers: &pairs, payload: Payload::Bytes(&body) };
        let steps = steps_with(&credentials, &scope, &request, NOW, options(variant, token)).unwrap();
        // Hashed as it is written, or written whole and then hashed: the same.
        let signed = sign_with(&credentials, &scope, &request, NOW, options(variant, token)).unwrap();
        if variant == Variant::V4 {
            prop_assert_eq!(signed.signature(), steps.signature.as_bytes());
            prop_assert_eq!(signed.lines(), steps.signed.lines());
        }
        let lines: Vec<u8> = signed.headers().flat_map(|(name, value)| [name, b": ", value, b"\r\n"].concat()).collect();
        prop_assert_eq!(&lines, signed.lines());

        let mut all = pairs.clone();
        all.extend(signed.headers());
        let arrived = Request { headers: &all, ..request };
        let claim = Claim::of(&arrived).unwrap();
        prop_assert_eq!((claim.place(), claim.variant(), claim.access_key_id()), (Place::Header, variant, "AKID"));
        let rules = Rules { session_token: token, ..Rules::new(style, NOW + 899) };
        claim.verify(&credentials, &arrived, &rules).unwrap();

        let refused = |request: &Request<'_>| Claim::of(request).and_then(|claim| claim.verify(&credentials, request, &rules)).unwrap_err();
        prop_assert_eq!(refused(&Request { method: "GET", ..arrived }).slug(), "signature");
        let longer = [&body[..], b"x"].concat();
        let error = refused(&Request { payload: Payload::Bytes(&longer), ..arrived });
        prop_assert!(matches!(error.slug(), "signature" | "payload-hash"), "{error}");
        let other = Credentials::new("AKID", "other", credentials.session_token()).unwrap();
        prop_assert_eq!(claim.verify(&other, &arrived, &rules).unwrap_err().slug(), "signature");
        let late = Rules { session_token: token, ..Rules::new(style, NOW + 901) };
        prop_assert_eq!(claim.verify(&credentials, &arrived, &late).unwrap_err(), VerifyError::Skewed(-901));
        all.push((b"x-amz-added", b"1"));
        prop_assert_eq!(refused(&Request { headers: &all, ..request }), VerifyError::HeaderNotSigned("x-amz-added".into()));
        all.retain(|(name, _)| !name.eq_ignore_ascii_case(b"host") && *name != b"x-amz-added");
        prop_assert_eq!(refused(&Request { headers: &all, ..request }), VerifyError::HeaderGone("host".into()));
    }

    #[test]
    fn by_query(
        style in style(), variant in variant(), token in token(), with_token in any::<bool>(), path in bytes(), query in bytes(),
        headers in headers(), expires in 1..=604_800_u64,
    ) {
        let credentials = credentials(with_token);
        let scope = Scope { region: "us-east-1", signing_name: "s", style };
        let pairs: Vec<_> = pairs(&headers).into_iter().filter(|(name, _)| !name.eq_ignore_ascii_case(b"x-amz-content-sha256")).collect();
        let payload = if style == Style::S3 { Payload::UNSIGNED } else { Payload::EMPTY };
        let request = Request { method: "GET", path: &path, query: &query, headers: &pairs, payload };
        let options = options(variant, token);
        let steps = presign_steps(&credentials, &scope, &request, NOW, expires, options).unwrap();
        let signed = presign(&credentials, &scope, &request, NOW, expires, options).unwrap();
        if variant == Variant::V4 {
            prop_assert_eq!(signed.query(), steps.signed.query());
        }
        let arrived = Request { query: signed.query(), ..request };
        let claim = Claim::of(&arrived).unwrap();
        prop_assert_eq!((claim.place(), claim.expires()), (Place::Query, Some(expires)));
        let at = |seconds| Rules { session_token: token, ..Rules::new(style, seconds) };
        claim.verify(&credentials, &arrived, &at(NOW + expires)).unwrap();
        prop_assert_eq!(claim.verify(&credentials, &arrived, &at(NOW + expires + 1)).unwrap_err(), VerifyError::Expired(1));
        prop_assert_eq!(claim.verify(&credentials, &arrived, &at(NOW - 901)).unwrap_err(), VerifyError::Skewed(901));
        prop_assert_eq!(claim.verify(&credentials, &Request { method: "HEAD", ..arrived }, &at(NOW)).unwrap_err().slug(), "signature");
        // Signed once more, what stood in the query is replaced.
        let again = presign(&credentials, &scope, &arrived, NOW, expires, options).unwrap();
        if variant == Variant::V4 {
            prop_assert_eq!(again.query(), signed.query());
        }
    }

    #[test]
    fn in_chunks(
        variant in variant(), body in proptest::collection::vec(any::<u8>(), 0..3000), size in 1..700_usize, step in 1..900_usize,
        trailer in any::<bool>(), spoil in any::<proptest::sample::Index>(), bit in 0..8_u8,
    ) {
        let credentials = credentials(false);
        let scope = Scope { region: "us-east-1", signing_name: "s3", style: Style::S3 };
        let seed = [b'0'; 64];
        let signer = || ChunkSigner::new(&credentials, &scope, variant, b"20150830T123600Z", &seed).unwrap();
        let trailers: &[(&[u8], &[u8])] = if trailer { &[(b"x-amz-checksum-crc32", b"AAAAAA==")] } else { &[] };
        let mut encoder = Encoder::signed(signer(), trailer);
        let framing = encoder.framing();
        let mut framed = Vec::new();
        for chunk in body.chunks(size) {
            encoder.head(chunk, &mut framed).unwrap();
            framed.extend_from_slice(chunk);
            framed.extend_from_slice(CHUNK_END);
        }
        encoder.finish(trailers, &mut framed).unwrap();
        let lengths: Vec<(&[u8], usize)> = trailers.iter().map(|(name, value)| (*name, value.len())).collect();
        prop_assert_eq!(framing.encoded_length(variant, body.len() as u64, size as u64, &lengths), framed.len() as u64);
        prop_assert_eq!(decode(Decoder::checking(signer(), trailer), &framed, step), Ok(body.clone()));
        prop_assert_eq!(decode(Decoder::new(), &framed, step), Ok(body));
        // One bit turned anywhere: noticed, unless it is one that means nothing (the case of a digit, padding, the final line).
        let at = spoil.index(framed.len());
        let mut spoiled = framed.clone();
        spoiled[at] ^= 1 << bit;
        if let Ok(read) = decode(Decoder::checking(signer(), trailer), &spoiled, step) {
            let meaningless = framed[at].is_ascii_alphanumeric() && spoiled[at].eq_ignore_ascii_case(&framed[at]);
            prop_assert!(meaningless && read.len() == decode(Decoder::new(), &framed, step).unwrap().len(), "byte {at}");
        }
    }

    #[test]
    fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..300), step in 1..20_usize, query in bytes(), headers in headers()) {
        let _ = decode(Decoder::new(), &body, step);
        let like: Vec<u8> = body.iter().map(|byte| b"0123456789abcdef;:\r\nchunk-signature="[usize::from(byte % 37).min(35)]).collect();
        let _ = decode(Decoder::new(), &like, step);
        let mut pairs = pairs(&headers);
        let of = |pairs: &[(&[u8], &[u8])]| {
            let request = Request { method: "GET", path: &body, query: &query, headers: pairs, payload: Payload::EMPTY };
            if let Ok(claim) = Claim::of(&request) {
                let _ = claim.verify(&credentials(false), &request, &Rules::new(Style::Generic, NOW));
            }
        };
        pairs.push((b"authorization", &body));
        of(&pairs);
        let text = String::from_utf8_lossy(&query).into_owned();
        let authorization = format!("AWS4-HMAC-SHA256 Credential={text}/20150830/r/s/aws4_request, SignedHeaders=host;{text}, Signature=00");
        pairs.push((b"x-amz-date", b"20150830T123600Z"));
        pairs.retain(|(name, _)| *name != b"authorization");
        pairs.push((b"authorization", authorization.as_bytes()));
        of(&pairs);
    }
}

fn decode(decoder: Decoder, framed: &[u8], step: usize) -> Result<Vec<u8>, ChunkError> {
    read(decoder, framed, step).map(|(data, _)| data)
}

/// The bytes, and a `name:value` for each trailer.
fn read(mut decoder: Decoder, framed: &[u8], step: usize) -> Result<(Vec<u8>, Vec<String>), ChunkError> {
    let (mut data, mut trailers) = (Vec::new(), Vec::new());
    for mut part in framed.chunks(step) {
        while let Some(piece) = decoder.next(&mut part)? {
            match piece {
                Piece::Data(bytes) => data.extend_from_slice(bytes),
                Piece::Trailer { name, value } => {
                    trailers.push(format!("{}:{}", String::from_utf8_lossy(&name), String::from_utf8_lossy(&value)));
                }
            }
        }
    }
    decoder.end()?;
    Ok((data, trailers))
}

#[test]
fn chunks_that_are_none() {
    for (body, expected) in [
        (&b""[..], ChunkError::Truncated),
        (b"5\r\nabc", ChunkError::Truncated),
        (b"x\r\n", ChunkError::Size),
        (b"\r\n", ChunkError::Size),
        (b"-1\r\n", ChunkError::Size),
        (b"+1\r\n", ChunkError::Size),
        (b"8000000000000000\r\n", ChunkError::Size),
        (b"11111111111111111\r\n", ChunkError::Size),
        (b"1\nab", ChunkError::LineEnd),
        (b"1\r\nabc\r\n", ChunkError::LineEnd),
        (b"0\r\nno colon\r\n\r\n", ChunkError::Trailer),
        (b"0\r\n: x\r\n\r\n", ChunkError::Trailer),
        (b"0\r\n\r\nx", ChunkError::Extra),
        // An empty body whose last chunk comes twice (early aws-c-s3); S3 refuses it too.
        (b"0\r\n\r\n0\r\na:b\r\n\r\n", ChunkError::Extra),
        (b"0\r\na:b\n\r\nc:d\r\n\r\n", ChunkError::Extra),
        (b"0\r\na:b\n\r\n\r\n\r\n", ChunkError::Extra),
        (b"0\r\nx-amz-trailer-signature:0\r\na:b\r\n\r\nx-amz-trailer-signature:0\r\n", ChunkError::Extra),
        (b"0\r\na:b \n\r\n", ChunkError::LineEnd),
        (b"0\r\na:b\n\n", ChunkError::LineEnd),
        (b"0\n", ChunkError::LineEnd),
        (b"0\r\na:b", ChunkError::Truncated),
        (b"0\r\na:b\n\r\nx-amz-trailer-signature:0", ChunkError::Truncated),
        (&[b'1'; 5000], ChunkError::Long),
        (&[&b"0\r\n"[..], &b"a:b\r\n".repeat(33)].concat(), ChunkError::Trailers),
    ] {
        for step in [1, 3, 10_000] {
            assert_eq!(decode(Decoder::new(), body, step), Err(expected.clone()), "{:?}", String::from_utf8_lossy(body));
        }
    }
    for body in [&b"3\r\nabc\r\n0\r\n\r\n"[..], b"3;x=y\r\nabc\r\n0\r\na: b\r\n\r\n", b"3\r\nabc\r\n0\r\n"] {
        assert_eq!(decode(Decoder::new(), body, 1).unwrap(), b"abc");
    }
}

/// The same body, as public clients end it. See [`sigward_sigv4::chunked`].
#[test]
fn dialects() {
    const SUM: &str = "x-amz-checksum-crc32:NSRBwg==";
    let credentials = credentials(false);
    let scope = Scope { region: "us-east-1", signing_name: "s3", style: Style::S3 };
    let signer = || ChunkSigner::new(&credentials, &scope, Variant::V4, b"20150830T123600Z", &[b'0'; 64]).unwrap();
    let mut signatures = signer();
    let mut next = |data: &[u8]| String::from_utf8(signatures.chunk(data).unwrap().to_vec()).unwrap();
    let (first, last) = (next(b"abc"), next(b""));
    let trailer = String::from_utf8(signatures.trailer(&[(b"x-amz-checksum-crc32", b"NSRBwg==")]).unwrap().to_vec()).unwrap();

    let chunks = format!("3;chunk-signature={first}\r\nabc\r\n0;chunk-signature={last}\r\n");
    let signed = [
        ("AWS's SDKs", format!("{chunks}{SUM}\r\nx-amz-trailer-signature:{trailer}\r\n\r\n")),
        ("minio-go", format!("{chunks}{SUM}\n\r\nx-amz-trailer-signature:{trailer}\r\n\r\n")),
        ("no empty line", format!("{chunks}{SUM}\n\r\nx-amz-trailer-signature:{trailer}\r\n")),
        ("blanks", format!("{chunks}X-Amz-Checksum-CRC32 : NSRBwg== \r\nx-amz-trailer-signature: {trailer}\r\n\r\n")),
        ("digits", chunks.replacen('3', "0003", 1) + &format!("{SUM}\r\nx-amz-trailer-signature:{trailer}\r\n\r\n")),
    ];
    for (name, body) in &signed {
        for step in [1, 7, 10_000] {
            assert_eq!(decode(Decoder::checking(signer(), true), body.as_bytes(), step).as_deref(), Ok(&b"abc"[..]), "{name}");
            let spoiled = body.replace("NSRBwg", "NSRBwh");
            let error = decode(Decoder::checking(signer(), true), spoiled.as_bytes(), step).unwrap_err();
            assert_eq!(error, ChunkError::TrailerSignature, "{name}");
        }
        let unsigned = body.split("x-amz-trailer-signature").next().unwrap();
        assert!(decode(Decoder::checking(signer(), true), unsigned.as_bytes(), 9).is_err(), "{name}");
    }

    for (name, body) in [
        ("AWS's SDKs", format!("3\r\nabc\r\n0\r\n{SUM}\r\n\r\n")),
        ("minio-go", format!("3\r\nabc\r\n0\r\n{SUM}\n\r\n\r\n")),
        ("an extension without a name", format!("3;\r\nabc\r\n0;\r\n{SUM}\r\n\r\n")),
        ("no empty line", format!("3\r\nabc\r\n0\r\n{SUM}\n")),
    ] {
        for step in [1, 7, 10_000] {
            let (data, trailers) = read(Decoder::new(), body.as_bytes(), step).unwrap();
            assert_eq!((&data[..], &trailers[..]), (&b"abc"[..], &[SUM.to_owned()][..]), "{name}");
        }
    }
    // Capital digits: .NET, C++.
    assert_eq!(decode(Decoder::new(), b"A\r\n0123456789\r\n0\r\n\r\n", 1).unwrap(), b"0123456789");
    // What was asked once may be asked again.
    let mut decoder = Decoder::checking(signer(), true);
    let mut rest = signed[1].1.as_bytes();
    while decoder.next(&mut rest).unwrap().is_some() {}
    assert_eq!((decoder.end(), decoder.end()), (Ok(()), Ok(())));
}

#[test]
fn an_unsigned_body_keeps_its_trailers() {
    let mut framed = Vec::new();
    let mut encoder = Encoder::unsigned();
    encoder.chunk(b"abc", &mut framed).unwrap();
    encoder.chunk(b"", &mut framed).unwrap();
    encoder.finish(&[(b"x-amz-checksum-crc32", b"NSRBwg==")], &mut framed).unwrap();
    assert_eq!(framed, b"3\r\nabc\r\n0\r\nx-amz-checksum-crc32:NSRBwg==\r\n\r\n");
    let length = Framing::UnsignedTrailer.encoded_length(Variant::V4, 3, 65_536, &[(b"x-amz-checksum-crc32", 8)]);
    assert_eq!(length, framed.len() as u64);
    let bad = Encoder::unsigned().finish(&[(b"a", b"b\r\nc: d")], &mut framed).unwrap_err();
    assert_eq!(bad, SignError::BadByte { field: "trailer value", at: 1 });
}

#[test]
fn keywords_are_known() {
    for framing in [Framing::Signed, Framing::SignedTrailer, Framing::UnsignedTrailer] {
        let keyword = framing.keyword(Variant::V4);
        assert_eq!(Framing::of_keyword(keyword.as_bytes()), Some((framing, Variant::V4)));
    }
    assert_eq!(Framing::of_keyword(b"STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"), Some((Framing::Signed, Variant::V4a)));
    assert_eq!(Framing::of_keyword(b"UNSIGNED-PAYLOAD"), None);
}

#[test]
fn a_presigned_url_lives_a_week_at_most() {
    let scope = Scope { region: "r", signing_name: "s", style: Style::Generic };
    let request = Request { method: "GET", path: b"/", query: b"", headers: &[(b"host", b"h")], payload: Payload::EMPTY };
    for expires in [0, 604_801, u64::MAX] {
        let error = presign(&credentials(false), &scope, &request, NOW, expires, Options::default()).unwrap_err();
        assert_eq!(error, SignError::Expires(expires));
        let query = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKID%2F20150830%2Fr%2Fs%2Faws4_request&X-Amz-Date=20150830T123600Z\
             &X-Amz-Expires={expires}&X-Amz-SignedHeaders=host&X-Amz-Signature=00"
        );
        assert_eq!(Claim::of(&Request { query: query.as_bytes(), ..request }).unwrap_err(), VerifyError::Expires(expires));
    }
}

#[test]
fn each_reason_has_its_word() {
    let refused = |authorization: &str, date: &str| {
        let headers: [(&[u8], &[u8]); 3] =
            [(b"host", b"h"), (b"authorization", authorization.as_bytes()), (b"x-amz-date", date.as_bytes())];
        Claim::of(&Request { method: "GET", path: b"/", query: b"", headers: &headers, payload: Payload::EMPTY }).unwrap_err()
    };
    let date = "20150830T123600Z";
    let good = |credential: &str| format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=00");
    for (authorization, date, expected) in [
        ("Bearer x".to_owned(), date, VerifyError::Unsigned),
        ("AWS4-HMAC-SHA512 Credential=a".to_owned(), date, VerifyError::Malformed("algorithm")),
        ("AWS4-HMAC-SHA256 Credential".to_owned(), date, VerifyError::Malformed("authorization")),
        ("AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host".to_owned(), date, VerifyError::Missing("Signature")),
        (good("A/20150830/r/s/aws4_request"), "20150830", VerifyError::Malformed("x-amz-date")),
        (good("A/20150831/r/s/aws4_request"), date, VerifyError::ScopeDate),
        (good("A/20150830/r/s/aws5_request"), date, VerifyError::Scope { part: "end", given: "aws5_request".into() }),
        (good("20150830/r/s/aws4_request"), date, VerifyError::Malformed("Credential")),
        (good("A/20150830/r/s/aws4_request") + "zz", date, VerifyError::Malformed("Signature")),
    ] {
        assert_eq!(refused(&authorization, date), expected, "{authorization}");
        assert!(!expected.slug().is_empty() && !expected.to_string().is_empty());
    }
}
