//! What holds for every input: nothing panics, and equal requests have equal signatures.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use sigward_sigv4::{Credentials, Payload, QueryPlus, Request, Scope, Style, sign, steps, wire};

fn style() -> impl Strategy<Value = Style> {
    prop_oneof![Just(Style::S3), Just(Style::Generic)]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..60)
}

fn credentials() -> Credentials {
    Credentials::new("AKID", "secret", Some("token")).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_panic(
        style in style(), method in ".{0,8}", path in bytes(), query in bytes(), region in ".{0,8}", name in ".{0,8}", seconds in any::<u64>(),
        headers in proptest::collection::vec((bytes(), bytes()), 0..6), given in bytes(),
    ) {
        let mut pairs: Vec<(&[u8], &[u8])> = headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
        let scope = Scope { region: &region, signing_name: &name, style };
        for payload in [Payload::Bytes(&path), Payload::Given(&given)] {
            let _ = sign(&credentials(), &scope, &Request { method: &method, path: &path, query: &query, headers: &pairs, payload }, seconds);
        }
        pairs.push((b"host", b"h.test"));
        let scope = Scope { region: "r", signing_name: "s", style };
        let _ = steps(&credentials(), &scope, &Request { method: "GET", path: &path, query: &query, headers: &pairs, payload: Payload::Bytes(b"") }, seconds % 1_000_000_000);
    }

    #[test]
    fn the_wire_form_is_its_own_wire_form_and_legal(style in style(), path in bytes(), query in bytes()) {
        let path: Vec<u8> = path.into_iter().filter(|byte| *byte != b'?').collect();
        let once = wire::path_and_query(style, QueryPlus::Blank, &path, &query);
        let cut = once.iter().position(|byte| *byte == b'?');
        let (first, second) = cut.map_or((once.as_slice(), &b""[..]), |at| (once.get(..at).unwrap(), once.get(at + 1..).unwrap()));
        // No raw `+` is left, so what one stands for does not matter any more.
        prop_assert_eq!(&wire::path_and_query(style, QueryPlus::Plus, first, second), &once);
        let legal = once.iter().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(byte));
        prop_assert!(legal);
    }

    #[test]
    fn the_order_of_headers_and_query_does_not_matter(
        style in style(),
        headers in proptest::collection::btree_map("x-[a-z]{1,6}", "[ -~]{0,12}", 1..6),
        query in proptest::collection::btree_set("[a-z]{1,3}=[a-z]{0,3}", 0..5),
    ) {
        let mut pairs: Vec<(&[u8], &[u8])> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        pairs.push((b"host", b"h.test"));
        let mut terms: Vec<&str> = query.iter().map(String::as_str).collect();
        let scope = Scope { region: "us-east-1", signing_name: "s", style };
        let signature = |pairs: &[(&[u8], &[u8])], terms: &[&str]| {
            let query = terms.join("&");
            let request = Request { method: "GET", path: b"/", query: query.as_bytes(), headers: pairs, payload: Payload::Bytes(b"") };
            steps(&credentials(), &scope, &request, 1_440_938_160).unwrap().signature
        };
        let before = signature(&pairs, &terms);
        pairs.reverse();
        terms.reverse();
        prop_assert_eq!(signature(&pairs, &terms), before);
    }
}
