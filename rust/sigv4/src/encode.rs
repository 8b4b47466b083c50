//! Percent- and hexadecimal encoding, by table.

const UPPER: &[u8; 16] = b"0123456789ABCDEF";
const LOWER: &[u8; 16] = b"0123456789abcdef";

/// RFC 3986's unreserved characters: AWS encodes all else.
#[allow(clippy::indexing_slicing, reason = "evaluated when it is compiled")]
const UNRESERVED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let letter = byte as u8;
        table[byte] = letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'.' | b'_' | b'~');
        byte += 1;
    }
    table
};

#[allow(clippy::indexing_slicing, reason = "a byte is below 256, a nibble below 16")]
pub(crate) fn is_unreserved(byte: u8) -> bool {
    UNRESERVED[usize::from(byte)]
}

#[allow(clippy::indexing_slicing, reason = "a byte is below 256, a nibble below 16")]
pub(crate) fn push_percent(out: &mut Vec<u8>, byte: u8) {
    out.extend([b'%', UPPER[usize::from(byte >> 4)], UPPER[usize::from(byte & 15)]]);
}

/// Encodes all but unreserved bytes and those that `keep` lets stand.
pub(crate) fn push_encoded(out: &mut Vec<u8>, bytes: &[u8], keep: impl Fn(u8) -> bool) {
    for &byte in bytes {
        if is_unreserved(byte) || keep(byte) {
            out.push(byte);
        } else {
            push_percent(out, byte);
        }
    }
}

/// Decodes `%XX` and encodes anew: one spelling for each string. A `%` that starts no such pair stands for itself.
pub(crate) fn push_recoded(out: &mut Vec<u8>, bytes: &[u8], keep: impl Fn(u8) -> bool) {
    let mut rest = bytes;
    while let [byte, after @ ..] = rest {
        let (byte, after) = match (byte, decoded(rest)) {
            (b'%', Some(decoded)) => (decoded, after.get(2..).unwrap_or_default()),
            _ => (*byte, after),
        };
        if is_unreserved(byte) || keep(byte) {
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
