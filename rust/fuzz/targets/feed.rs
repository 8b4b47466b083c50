//! Cuts a fuzzer's bytes into a request.
#![allow(dead_code)] // Each target takes what it needs.

/// What is left of them.
pub struct Feed<'a>(pub &'a [u8]);

impl<'a> Feed<'a> {
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A piece whose length is the next byte.
    pub fn piece(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (piece, rest) = self.0.split_at(length);
        self.0 = rest;
        piece
    }

    /// (name, value), up to seven of them, and a host.
    pub fn headers(&mut self) -> Vec<(&'a [u8], &'a [u8])> {
        let mut headers: Vec<(&[u8], &[u8])> = vec![(b"host", b"h.test")];
        headers.extend((0..self.byte() % 8).map(|_| (self.piece(), self.piece())));
        headers
    }
}
