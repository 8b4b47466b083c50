//! Signing beside the hashing that it cannot do without, and beside AWS's own signer for Rust. `make bench` reads the results.

use std::hint::black_box;
use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials as AwsCredentials;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode, sign as aws_sign,
};
use aws_sigv4::sign::{v4, v4a};
use aws_smithy_runtime_api::client::identity::Identity;
use bytes::Bytes;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use sigward_sigv4::chunked::{CHUNK_END, ChunkSigner, Encoder};
use sigward_sigv4::{Credentials, Options, Payload, Request, Scope, Style, Variant, sign, sign_lines, sign_with, steps};

const WHEN: u64 = 1_440_938_160;
const KEY: (&str, &str) = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");

type Headers = &'static [(&'static str, &'static str)];

struct Case {
    name: &'static str,
    service: &'static str,
    style: Style,
    method: &'static str,
    path: String,
    query: &'static str,
    headers: Headers,
    body: Vec<u8>,
    unsigned: bool,
}

const DYNAMODB: Headers = &[
    ("host", "dynamodb.us-east-1.amazonaws.com"),
    ("content-type", "application/x-amz-json-1.0"),
    ("x-amz-target", "DynamoDB_20120810.PutItem"),
    ("accept-encoding", "identity"),
    ("user-agent", "aws-cli/2.0"),
    ("content-length", "1024"),
    ("amz-sdk-invocation-id", "b3b1ab5c-8d2e-4b2c-9e2f-0f2f3a4b5c6d"),
    ("amz-sdk-request", "attempt=1; max=3"),
];
const S3: Headers = &[
    ("host", "bucket.s3.us-east-1.amazonaws.com"),
    ("accept", "*/*"),
    ("accept-encoding", "identity"),
    ("user-agent", "aws-cli/2.0"),
    ("amz-sdk-invocation-id", "b3b1ab5c-8d2e-4b2c-9e2f-0f2f3a4b5c6d"),
    ("amz-sdk-request", "attempt=1; max=3"),
];
const QUERY: &str = "list-type=2&delimiter=%2F&encoding-type=url&max-keys=1000&prefix=photos%2F2015%2F08&start-after=photos%2F2015%2F07";

fn cases() -> Vec<Case> {
    let key: String = format!("/{}", "photos/2015/08/a%20picture-of.something_else~".repeat(8)).chars().take(286).collect();
    let case = |name, method, service, style, path: &str, query, headers, body: Vec<u8>, unsigned| Case {
        name,
        service,
        style,
        method,
        path: path.to_owned(),
        query,
        headers,
        body,
        unsigned,
    };
    vec![
        case("dynamodb_post", "POST", "dynamodb", Style::Generic, "/", "", DYNAMODB, vec![b'x'; 1024], false),
        case("s3_get", "GET", "s3", Style::S3, &key, QUERY, S3, Vec::new(), false),
        case("s3_put_unsigned", "PUT", "s3", Style::S3, "/photos/2015/08/picture.jpg", "", S3, Vec::new(), true),
        case("post_1mib", "POST", "dynamodb", Style::Generic, "/", "", DYNAMODB, vec![b'x'; 1 << 20], false),
    ]
}

fn when() -> std::time::SystemTime {
    UNIX_EPOCH + Duration::from_secs(WHEN)
}

fn identity() -> Identity {
    AwsCredentials::new(KEY.0, KEY.1, None, None, "bench").into()
}

fn settings(style: Style) -> SigningSettings {
    let mut settings = SigningSettings::default();
    if style == Style::S3 {
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    settings
}

/// One SHA-256 of the body, one of the canonical request, one HMAC with a cached key.
fn limit(group: &mut BenchmarkGroup<'_, WallTime>, body: Option<&[u8]>, canonical: &[u8], to_sign: &[u8]) {
    let key: Hmac<Sha256> = Hmac::new_from_slice(b"a signing key of thirty-two bytes").unwrap();
    group.bench_function("limit", |bench| {
        bench.iter(|| {
            if let Some(body) = body {
                black_box(Sha256::digest(black_box(body)));
            }
            black_box(Sha256::digest(black_box(canonical)));
            let mut mac = key.clone();
            mac.update(black_box(to_sign));
            black_box(mac.finalize());
        });
    });
}

fn by_headers(criterion: &mut Criterion) {
    let credentials = Credentials::new(KEY.0, KEY.1, None).unwrap();
    let identity = identity();
    for case in cases() {
        let headers: Vec<(&[u8], &[u8])> = case.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let payload = if case.unsigned { Payload::UNSIGNED } else { Payload::Bytes(&case.body) };
        let (path, query) = (case.path.as_bytes(), case.query.as_bytes());
        let request = Request { method: case.method, path, query, headers: &headers, payload };
        let scope = Scope { region: "us-east-1", signing_name: case.service, style: case.style };
        let shown = steps(&credentials, &scope, &request, WHEN).unwrap();
        let mut group = criterion.benchmark_group(case.name);
        let body = Some(&case.body[..]).filter(|_| !case.unsigned);
        limit(&mut group, body, &shown.canonical_request, shown.string_to_sign.as_bytes());
        group.bench_function("sigward", |bench| {
            bench.iter(|| black_box(sign(&credentials, &scope, black_box(&request), WHEN).unwrap()));
        });
        // The same without a vector for the result: what the Python module calls.
        group.bench_function("sign_lines", |bench| {
            bench.iter(|| {
                let take = |lines: &[u8]| black_box(lines).len();
                black_box(sign_lines(&credentials, &scope, black_box(&request), WHEN, Options::default(), take).unwrap())
            });
        });
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region("us-east-1")
            .name(case.service)
            .time(when())
            .settings(settings(case.style))
            .build()
            .unwrap()
            .into();
        let query = if case.query.is_empty() { String::new() } else { format!("?{}", case.query) };
        let uri = format!("https://{}{}{query}", case.headers[0].1, case.path);
        group.bench_function("aws-sigv4", |bench| {
            bench.iter(|| {
                let body = if case.unsigned { SignableBody::UnsignedPayload } else { SignableBody::Bytes(&case.body) };
                let signable = SignableRequest::new(case.method, uri.as_str(), case.headers.iter().copied(), body).unwrap();
                black_box(aws_sign(signable, &params).unwrap());
            });
        });
        group.finish();
    }
}

fn in_chunks(criterion: &mut Criterion) {
    const CHUNK: usize = 64 << 10;
    let credentials = Credentials::new(KEY.0, KEY.1, None).unwrap();
    let identity = identity();
    let scope = Scope { region: "us-east-1", signing_name: "s3", style: Style::S3 };
    let data = vec![b'x'; CHUNK];
    let seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
    let mut group = criterion.benchmark_group("chunk_64kib");
    group.bench_function("limit", |bench| bench.iter(|| black_box(Sha256::digest(black_box(&data)))));
    let signer = ChunkSigner::new(&credentials, &scope, Variant::V4, b"20150830T123600Z", seed.as_bytes()).unwrap();
    let mut encoder = Encoder::signed(signer, false);
    let mut framing = Vec::with_capacity(200);
    group.bench_function("sigward", |bench| {
        bench.iter(|| {
            framing.clear();
            encoder.head(black_box(&data), &mut framing).unwrap();
            framing.extend_from_slice(CHUNK_END);
            black_box(&framing);
        });
    });
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("s3")
        .time(when())
        .settings(())
        .build()
        .unwrap();
    let bytes = Bytes::from(data.clone());
    group.bench_function("aws-sigv4", |bench| bench.iter(|| black_box(v4::sign_chunk(black_box(&bytes), seed, &params).unwrap())));
    group.finish();
}

fn asymmetric(criterion: &mut Criterion) {
    let credentials = Credentials::new(KEY.0, KEY.1, None).unwrap();
    let identity = identity();
    let case = cases().swap_remove(0);
    let headers: Vec<(&[u8], &[u8])> = case.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    let request = Request { method: case.method, path: b"/", query: b"", headers: &headers, payload: Payload::Bytes(&case.body) };
    let scope = Scope { region: "*", signing_name: "dynamodb", style: Style::Generic };
    let options = Options { variant: Variant::V4a, ..Options::default() };
    let mut group = criterion.benchmark_group("sigv4a");
    let random = SystemRandom::new();
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let text = [b'x'; 140];
    group.bench_function("limit", |bench| bench.iter(|| black_box(pair.sign(&random, black_box(&text)).unwrap())));
    group.bench_function("sigward", |bench| {
        bench.iter(|| black_box(sign_with(&credentials, &scope, black_box(&request), WHEN, options).unwrap()));
    });
    let params = v4a::SigningParams::builder()
        .identity(&identity)
        .region_set("*")
        .name("dynamodb")
        .time(when())
        .settings(settings(Style::Generic))
        .build()
        .unwrap()
        .into();
    group.bench_function("aws-sigv4", |bench| {
        bench.iter(|| {
            let body = SignableBody::Bytes(&case.body);
            let uri = "https://dynamodb.us-east-1.amazonaws.com/";
            let signable = SignableRequest::new(case.method, uri, case.headers.iter().copied(), body).unwrap();
            black_box(aws_sign(signable, &params).unwrap());
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300)).sample_size(30);
    targets = by_headers, in_chunks, asymmetric
}
criterion_main!(benches);
