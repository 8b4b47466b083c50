//! Where a canonical request goes: into a vector for people, or straight into the hash.

use sha2::{Digest, Sha256};
use zeroize::optimization_barrier;

/// Takes bytes in order.
pub(crate) trait Out {
    fn push(&mut self, byte: u8);
    fn put(&mut self, bytes: &[u8]);

    /// `name:value` and a line end.
    #[inline]
    fn line(&mut self, name: &[u8], value: &[u8]) {
        self.put(name);
        self.push(b':');
        self.put(value);
        self.push(b'\n');
    }
}

impl Out for Vec<u8> {
    #[inline]
    fn push(&mut self, byte: u8) {
        self.push(byte);
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl<const N: usize> Out for smallvec::SmallVec<[u8; N]>
where
    [u8; N]: smallvec::Array<Item = u8>,
{
    #[inline]
    fn push(&mut self, byte: u8) {
        self.push(byte);
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Copies, for what is short most of the time, without a call. `to` is as long as `from`.
#[inline(always)]
#[allow(clippy::inline_always, reason = "a call costs as much as the copy")]
fn copy(to: &mut [u8], from: &[u8]) {
    // Two overlapping halves cover every length between.
    if let (Some(first), Some(last)) = (from.first_chunk::<16>(), from.last_chunk::<16>()) {
        if from.len() <= 32 {
            if let Some(slot) = to.first_chunk_mut() {
                *slot = *first;
            }
            if let Some(slot) = to.last_chunk_mut() {
                *slot = *last;
            }
        } else {
            to.copy_from_slice(from);
        }
    } else if let (Some(first), Some(last)) = (from.first_chunk::<8>(), from.last_chunk::<8>()) {
        if let Some(slot) = to.first_chunk_mut() {
            *slot = *first;
        }
        if let Some(slot) = to.last_chunk_mut() {
            *slot = *last;
        }
    } else if let (Some(first), Some(last)) = (from.first_chunk::<4>(), from.last_chunk::<4>()) {
        if let Some(slot) = to.first_chunk_mut() {
            *slot = *first;
        }
        if let Some(slot) = to.last_chunk_mut() {
            *slot = *last;
        }
    } else {
        for (slot, byte) in to.iter_mut().zip(from) {
            *slot = *byte;
        }
    }
}

/// Gathers bytes on the stack, for a vector of just their size.
pub(crate) struct Gathered {
    buffer: [u8; BUFFER],
    filled: usize,
    /// All of it, once the buffer was full.
    spilled: Vec<u8>,
}

impl Gathered {
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "made where it lies, not copied there")]
    pub(crate) fn new() -> Self {
        Self { buffer: [0; BUFFER], filled: 0, spilled: Vec::new() }
    }

    /// How many there are.
    #[inline]
    pub(crate) fn length(&self) -> usize {
        self.filled + self.spilled.len()
    }

    /// `secret`: a session token is among them; nothing of it stays here.
    pub(crate) fn finish(&mut self, secret: bool) -> Vec<u8> {
        let gathered = self.buffer.get(..self.filled).unwrap_or_default();
        let bytes = if self.spilled.is_empty() {
            gathered.to_vec()
        } else {
            self.spilled.extend_from_slice(gathered);
            std::mem::take(&mut self.spilled)
        };
        self.wipe(secret);
        bytes
    }

    /// [`Gathered::finish`] without a vector, if they fit.
    pub(crate) fn with_all<T>(&mut self, secret: bool, take: impl FnOnce(&[u8]) -> T) -> T {
        if self.spilled.is_empty() {
            let taken = take(self.buffer.get(..self.filled).unwrap_or_default());
            self.wipe(secret);
            return taken;
        }
        let mut all = self.finish(secret);
        let taken = take(&all);
        if secret {
            all.fill(0);
            optimization_barrier(&*all);
        }
        taken
    }

    fn wipe(&mut self, secret: bool) {
        if secret {
            self.buffer.fill(0);
            optimization_barrier(&self.buffer);
        }
    }

    #[cold]
    fn spill(&mut self, bytes: &[u8]) {
        // At once as large as it may get: what grows leaves its content behind.
        self.spilled.reserve(8 * BUFFER + bytes.len());
        self.spilled.extend_from_slice(self.buffer.get(..self.filled).unwrap_or_default());
        self.spilled.extend_from_slice(bytes);
        self.filled = 0;
    }
}

impl Out for Gathered {
    #[inline]
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.buffer.get_mut(self.filled) {
            *slot = byte;
            self.filled += 1;
        } else {
            self.spill(&[byte]);
        }
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        if let Some(slot) = self.buffer.get_mut(self.filled..self.filled + bytes.len()) {
            copy(slot, bytes);
            self.filled += bytes.len();
        } else {
            self.spill(bytes);
        }
    }
}

/// Most canonical requests fit; longer ones are hashed a buffer at a time.
const BUFFER: usize = 1024;

/// SHA-256 of what is written, without a copy of it on the heap.
pub(crate) struct HashOut {
    hash: Sha256,
    buffer: [u8; BUFFER],
    filled: usize,
}

impl HashOut {
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "made where it lies, not copied there")]
    pub(crate) fn new() -> Self {
        Self { hash: Sha256::new(), buffer: [0; BUFFER], filled: 0 }
    }

    /// The digest. `secret`: a session token went through; nothing of it stays.
    pub(crate) fn finish(&mut self, secret: bool) -> [u8; 32] {
        self.hash.update(self.buffer.get(..self.filled).unwrap_or_default());
        if secret {
            self.buffer.fill(0);
            optimization_barrier(&self.buffer);
        }
        self.hash.finalize_reset().into()
    }

    #[cold]
    fn put_past(&mut self, bytes: &[u8]) {
        self.hash.update(self.buffer.get(..self.filled).unwrap_or_default());
        self.filled = 0;
        self.hash.update(bytes);
    }
}

impl Out for HashOut {
    #[inline]
    fn line(&mut self, name: &[u8], value: &[u8]) {
        let length = name.len() + value.len() + 2;
        // One check for all four.
        if let Some((to, rest)) =
            self.buffer.get_mut(self.filled..self.filled + length).and_then(|line| line.split_at_mut_checked(name.len()))
            && let [colon, rest @ .., end] = rest
        {
            copy(to, name);
            *colon = b':';
            copy(rest, value);
            *end = b'\n';
            self.filled += length;
        } else {
            self.put(name);
            self.push(b':');
            self.put(value);
            self.push(b'\n');
        }
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.buffer.get_mut(self.filled) {
            *slot = byte;
            self.filled += 1;
        } else {
            self.put_past(&[byte]);
        }
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        if let Some(slot) = self.buffer.get_mut(self.filled..self.filled + bytes.len()) {
            copy(slot, bytes);
            self.filled += bytes.len();
        } else {
            self.put_past(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_copied_whole() {
        let source: Vec<u8> = (0..=255).cycle().take(3000).collect();
        for length in (0..70).chain([255, 1023, 1024, 1025, 2500]) {
            let from = &source[..length];
            let mut to = vec![0; length];
            copy(&mut to, from);
            assert_eq!(to, from);
            for before in [0, 1, 1000] {
                let mut hash = HashOut::new();
                let mut gathered = Gathered::new();
                for out in [&mut hash as &mut dyn Out, &mut gathered] {
                    (0..before).for_each(|_| out.push(b'x'));
                    out.put(from);
                    out.push(b'y');
                }
                let expected = [&vec![b'x'; before][..], from, b"y"].concat();
                assert_eq!(hash.finish(true), <[u8; 32]>::from(Sha256::digest(&expected)));
                assert_eq!(gathered.length(), expected.len());
                assert!(gathered.with_all(false, |bytes| bytes == expected));
                gathered = Gathered::new();
                expected.chunks(7).for_each(|piece| gathered.put(piece));
                assert_eq!(gathered.finish(true), expected);
            }
        }
    }
}
