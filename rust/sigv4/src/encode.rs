//! Percent- and hexadecimal encoding, by table.

use crate::out::Out;

const UPPER: &[u8; 16] = b"0123456789ABCDEF";
const LOWER: &[u8; 16] = b"0123456789abcdef";

/// RFC 3986's unreserved characters: AWS encodes all else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Those alone.
    Unreserved,
    /// And `/`: a path.
    Slash,
}

/// Arithmetic, not a table: a loop over it runs over whole registers.
#[inline]
#[allow(clippy::needless_bitwise_bool, reason = "no branches")]
fn is_kept(byte: u8, keep: Keep) -> bool {
    // `-`, `.`, `/` and the digits are neighbours.
    let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    let low = byte.wrapping_sub(b'-') < 13 && (byte != b'/' || keep == Keep::Slash);
    letter | low | (byte == b'_') | (byte == b'~')
}

#[inline]
#[allow(clippy::needless_bitwise_bool, reason = "an early end would keep the loop from running over whole registers")]
fn all_kept(bytes: &[u8], keep: Keep) -> bool {
    match keep {
        Keep::Slash => bytes.iter().fold(true, |all, &byte| {
            all & (((byte | 0x20).wrapping_sub(b'a') < 26) | (byte.wrapping_sub(b'-') < 13) | (byte == b'_') | (byte == b'~'))
        }),
        Keep::Unreserved => bytes.iter().fold(true, |all, &byte| {
            let digit = byte.wrapping_sub(b'0') < 10;
            all & (((byte | 0x20).wrapping_sub(b'a') < 26) | digit | (byte.wrapping_sub(b'-') < 2) | (byte == b'_') | (byte == b'~'))
        }),
    }
}

/// Bytes at the start that stand for themselves.
fn run(bytes: &[u8], keep: Keep) -> usize {
    const STRIDE: usize = 32;
    let mut length = 0;
    for stride in bytes.chunks_exact(STRIDE) {
        if !all_kept(stride, keep) {
            break;
        }
        length += STRIDE;
    }
    let rest = bytes.get(length..).unwrap_or_default();
    length + rest.iter().position(|&byte| !is_kept(byte, keep)).unwrap_or(rest.len())
}

#[allow(clippy::indexing_slicing, reason = "a nibble is below 16")]
pub(crate) fn push_percent(out: &mut impl Out, byte: u8) {
    out.put(&[b'%', UPPER[usize::from(byte >> 4)], UPPER[usize::from(byte & 15)]]);
}

/// Encodes all but what is kept.
pub(crate) fn push_encoded(out: &mut impl Out, bytes: &[u8], keep: Keep) {
    let mut rest = bytes;
    loop {
        let (plain, after) = rest.split_at_checked(run(rest, keep)).unwrap_or((rest, b""));
        out.put(plain);
        let [byte, after @ ..] = after else { return };
        push_percent(out, *byte);
        rest = after;
    }
}

/// Decodes `%XX` and encodes anew: one spelling for each string. A `%` that starts no such pair stands for itself.
pub(crate) fn push_recoded(out: &mut impl Out, bytes: &[u8], keep: Keep) {
    let mut rest = bytes;
    loop {
        let (plain, after) = rest.split_at_checked(run(rest, keep)).unwrap_or((rest, b""));
        out.put(plain);
        let [byte, one @ ..] = after else { return };
        let (byte, after) = match (byte, decoded(after)) {
            (b'%', Some(decoded)) => (decoded, one.get(2..).unwrap_or_default()),
            _ => (*byte, one),
        };
        if is_kept(byte, keep) {
            out.push(byte);
        } else {
            push_percent(out, byte);
        }
        rest = after;
    }
}

/// The byte that `%XX` at the start stands for.
pub(crate) fn decoded(bytes: &[u8]) -> Option<u8> {
    match *bytes {
        [b'%', high, low, ..] => Some(nibble(high)? << 4 | nibble(low)?),
        _ => None,
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Two digits for each byte.
#[allow(clippy::indexing_slicing, reason = "evaluated when it is compiled")]
const HEX: [[u8; 2]; 256] = {
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [LOWER[byte >> 4], LOWER[byte & 15]];
        byte += 1;
    }
    table
};

/// 64 hexadecimal digits.
#[inline]
#[allow(clippy::indexing_slicing, reason = "a byte is below 256")]
pub(crate) fn hex(digest: &[u8; 32]) -> [u8; 64] {
    let mut out = [[0; 2]; 32];
    for (pair, byte) in out.iter_mut().zip(digest) {
        *pair = HEX[usize::from(*byte)];
    }
    let mut flat = [0; 64];
    flat.copy_from_slice(out.as_flattened());
    flat
}

/// Digits for any number of bytes.
#[allow(clippy::indexing_slicing, reason = "a byte is below 256")]
pub(crate) fn push_hex(out: &mut impl Out, bytes: &[u8]) {
    for byte in bytes {
        out.put(&HEX[usize::from(*byte)]);
    }
}

/// The bytes that hexadecimal digits stand for, in either case.
pub(crate) fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| Some(nibble(*pair.first()?)? << 4 | nibble(*pair.last()?)?)).collect()
}

/// 32 bytes of them.
pub(crate) fn unhex_digest(digits: &[u8]) -> Option<[u8; 32]> {
    unhex(digits)?.try_into().ok()
}

/// Percent-decoded. A `%` that starts no pair stands for itself.
pub(crate) fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [byte, after @ ..] = rest {
        let (byte, after) = match (byte, decoded(rest)) {
            (b'%', Some(decoded)) => (decoded, after.get(2..).unwrap_or_default()),
            _ => (*byte, after),
        };
        out.push(byte);
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept() {
        for byte in 0..=u8::MAX {
            let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            for keep in [Keep::Unreserved, Keep::Slash] {
                let expected = unreserved || (byte == b'/' && keep == Keep::Slash);
                assert_eq!(is_kept(byte, keep), expected, "{byte}");
                assert_eq!(all_kept(&[byte], keep), expected, "{byte}");
                for length in [31, 32, 33, 70] {
                    let mut text = vec![b'a'; length];
                    text.push(byte);
                    text.push(b'z');
                    assert_eq!(run(&text, keep), if expected { length + 2 } else { length });
                }
            }
        }
    }
}
