//! One call, one verdict, in any spelling: see `spelt`. The numbers are the same every time; the fuzz target `rules` looks further.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod spelt;

const CASES: u64 = 20_000;

#[test]
fn any_two_spellings_of_a_call_get_one_verdict() {
    for case in 0..CASES {
        spelt::check(&bytes(case));
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): as many as a case needs.
fn bytes(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).to_le_bytes()
    });
    words.take(40).flatten().collect()
}
