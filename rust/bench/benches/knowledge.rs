//! How long it takes to read a request: its host, and its call by protocol. `cargo bench --manifest-path rust/bench/Cargo.toml --bench knowledge`

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue};
use http::Method;
use sigward_gateway::knowledge::Knowledge;
use sigward_gateway::recognise::{Body, Call, Source, recognise, style_of};
use sigward_sigv4::QueryPlus;

fn hosts(bench: &mut Criterion) {
    let Ok(table) = Knowledge::shipped() else { return };
    for host in [
        "dynamodb.us-east-1.amazonaws.com",
        "my.dotted.bucket.s3.eu-west-1.amazonaws.com",
        "runtime-fips.lex.us-gov-west-1.amazonaws.com",
        "iam.amazonaws.com",
        "abc.def.data-kinesis.us-east-1.amazonaws.com",
        "123456789012.ddb.us-east-1.amazonaws.com",
        "ec2-203-0-113-25.us-west-2.compute.amazonaws.com",
        "example.org",
    ] {
        bench.bench_function(&format!("host/{host}"), |bencher| bencher.iter(|| recognise(&table, black_box(host), None).is_some()));
    }
}

fn operations(bench: &mut Criterion) {
    let Ok(table) = Knowledge::shipped() else { return };
    let target = HeaderMap::from_iter([(HeaderName::from_static("x-amz-target"), HeaderValue::from_static("DynamoDB_20120810.PutItem"))]);
    let none = HeaderMap::new();
    for (name, service, host, method, path, headers) in [
        ("json", "dynamodb", "dynamodb.us-east-1.amazonaws.com", "POST", "/", &target),
        ("rest/s3-get", "s3", "bucket.s3.eu-west-1.amazonaws.com", "GET", "/some/key/of/three", &none),
        ("rest/s3-upload-part", "s3", "s3.eu-west-1.amazonaws.com", "PUT", "/b/some/key?partNumber=1&uploadId=x", &none),
        ("rest/lambda", "lambda", "lambda.us-east-1.amazonaws.com", "POST", "/2015-03-31/functions/f/invocations", &none),
        ("rest/bedrock", "bedrock", "bedrock-runtime.us-east-1.amazonaws.com", "POST", "/model/anthropic.x/invoke", &none),
        (
            "rest/apigateway",
            "apigateway",
            "apigateway.us-east-1.amazonaws.com",
            "GET",
            "/v2/apis/a/integrations/b/integrationresponses/c",
            &none,
        ),
        ("rest/connect", "connect", "connect.us-east-1.amazonaws.com", "GET", "/queues/i/q", &none),
        ("rest/quicksight", "quicksight", "quicksight.us-east-1.amazonaws.com", "GET", "/accounts/a/dashboards/d/versions", &none),
        ("query/ec2", "ec2", "ec2.us-east-1.amazonaws.com", "GET", "/?Version=2016-11-15&Action=DescribeInstances", &none),
    ] {
        let Ok(method) = method.parse::<Method>() else { continue };
        let signing_name = std::sync::Arc::from(service);
        let source = Source {
            knowledge: &table,
            host,
            service: Some(&signing_name),
            style: style_of(service),
            query_plus: QueryPlus::Blank,
            of_customer: false,
            may_hold_bucket: false,
            method: &method,
            target: path,
            headers,
            body: Body::Whole(b""),
        };
        assert!(Call::read(&source).is_ok_and(|call| call.known_operation().is_some()), "{name}");
        bench.bench_function(&format!("call/{name}"), |bencher| bencher.iter(|| Call::read(black_box(&source)).is_ok()));
    }
    let shipped = include_bytes!("../../gateway/data/knowledge.bin");
    bench.bench_function("load", |bencher| bencher.iter(|| Knowledge::load(black_box(shipped)).is_ok()));
}

criterion_group!(benches, hosts, operations);
criterion_main!(benches);
