//! Percent- and hexadecimal encoding.

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

/// True if all stand for themselves in a path. Arithmetic, not a table: the loop runs over whole registers. `-`, `.`, `/` and the
/// digits are neighbours.
#[inline]
#[allow(clippy::needless_bitwise_bool, reason = "an early end would keep the loop from running over whole registers")]
fn all_kept_in_path(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |all, &byte| {
        all & (((byte | 0x20).wrapping_sub(b'a') < 26) | (byte.wrapping_sub(b'-') < 13) | (byte == b'_') | (byte == b'~'))
    })
}

const KEPT_UNRESERVED: u8 = 1;
const KEPT_SLASH: u8 = 2;

/// What is kept, for single bytes: one bit for each [`Keep`].
#[allow(clippy::indexing_slicing, reason = "evaluated when it is compiled")]
const KEPT: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let letter = byte as u8;
        if letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'.' | b'_' | b'~') {
            table[byte] = KEPT_UNRESERVED | KEPT_SLASH;
        } else if letter == b'/' {
            table[byte] = KEPT_SLASH;
        }
        byte += 1;
    }
    table
};

#[inline]
#[allow(clippy::indexing_slicing, reason = "a byte is below 256")]
fn is_kept(byte: u8, keep: Keep) -> bool {
    let bit = if keep == Keep::Slash { KEPT_SLASH } else { KEPT_UNRESERVED };
    KEPT[usize::from(byte)] & bit != 0
}

/// Bytes at the start that stand for themselves: a path by registers, then by eights, then one by one.
#[inline(always)]
#[allow(clippy::inline_always, reason = "`keep` is known where it is called")]
fn run(bytes: &[u8], keep: Keep) -> usize {
    const STRIDE: usize = 32;
    let mut length = 0;
    let mut rest = bytes;
    // Names and values of a query are shorter, and end in what is not kept.
    while keep == Keep::Slash
        && let Some((stride, after)) = rest.split_first_chunk::<STRIDE>()
    {
        if !all_kept_in_path(stride) {
            break;
        }
        length += STRIDE;
        rest = after;
    }
    while let Some((eight, after)) = rest.split_first_chunk::<8>() {
        if !eight.iter().fold(true, |all, byte| all & is_kept(*byte, keep)) {
            break;
        }
        length += 8;
        rest = after;
    }
    length + rest.iter().position(|&byte| !is_kept(byte, keep)).unwrap_or(rest.len())
}

/// Bytes at the start that are in their one spelling already: what stands for itself, and escapes in capitals of what does not.
#[inline]
pub(crate) fn spelled(bytes: &[u8], keep: Keep) -> usize {
    let mut length = 0;
    loop {
        let rest = bytes.get(length..).unwrap_or_default();
        length += run(rest, keep);
        match bytes.get(length..) {
            Some([b'%', high, low, ..]) if is_capital_digit(*high) && is_capital_digit(*low) => {
                match decoded(bytes.get(length..).unwrap_or_default()) {
                    Some(byte) if !is_kept(byte, keep) => length += 3,
                    _ => return length,
                }
            }
            _ => return length,
        }
    }
}

#[inline]
fn is_capital_digit(digit: u8) -> bool {
    matches!(digit, b'0'..=b'9' | b'A'..=b'F')
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
        let (plain, after) = rest.split_at_checked(spelled(rest, keep)).unwrap_or((rest, b""));
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

/// The same for a name or a value of a query. `plus`: how a raw `+` is written.
pub(crate) fn push_query_recoded(out: &mut impl Out, bytes: &[u8], plus: &[u8]) {
    let mut pieces = bytes.split(|byte| *byte == b'+');
    push_recoded(out, pieces.next().unwrap_or_default(), Keep::Unreserved);
    for piece in pieces {
        out.put(plus);
        push_recoded(out, piece, Keep::Unreserved);
    }
}

/// True for RFC 3986's unreserved characters.
#[inline]
pub(crate) fn is_unreserved(byte: u8) -> bool {
    is_kept(byte, Keep::Unreserved)
}

/// The byte that `%XX` at the start stands for.
#[inline]
pub(crate) fn decoded(bytes: &[u8]) -> Option<u8> {
    match *bytes {
        [b'%', high, low, ..] => Some(nibble(high)? << 4 | nibble(low)?),
        _ => None,
    }
}

#[inline]
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

/// 64 hexadecimal digits. Arithmetic, not a table: the loop runs over whole registers.
#[inline]
pub(crate) fn hex(digest: &[u8; 32]) -> [u8; 64] {
    let digit = |nibble: u8| nibble + b'0' + if nibble > 9 { b'a' - b'0' - 10 } else { 0 };
    let mut out = [[0; 2]; 32];
    for (pair, byte) in out.iter_mut().zip(digest) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
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
pub fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
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
                if keep == Keep::Slash {
                    assert_eq!(all_kept_in_path(&[byte]), expected, "{byte}");
                }
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
