//! Where a canonical request goes: into a vector for people, or straight into the hash.

use sha2::{Digest, Sha256};
use zeroize::optimization_barrier;

/// Takes bytes in order.
pub(crate) trait Out {
    fn push(&mut self, byte: u8);
    fn put(&mut self, bytes: &[u8]);
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

/// Most canonical requests fit; longer ones are hashed a buffer at a time.
const BUFFER: usize = 1024;

/// SHA-256 of what is written, without a copy of it on the heap.
pub(crate) struct HashOut {
    hash: Sha256,
    buffer: [u8; BUFFER],
    filled: usize,
}

impl HashOut {
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
            slot.copy_from_slice(bytes);
            self.filled += bytes.len();
        } else {
            self.put_past(bytes);
        }
    }
}
