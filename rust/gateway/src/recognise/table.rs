//! What botocore's rules say of hosts, by pattern: `{service}.{r}`, the region's label written `{r}`, a customer's labels `*`.
//!
//! Open addressing over a hash of the pattern's pieces, so that a look-up copies and allocates nothing. The patterns are the
//! table's own: nobody can choose ones that collide.

use super::Variant;

/// A pattern and the scopes that its hosts may have.
#[derive(Debug)]
pub(crate) struct HostRow {
    pub(crate) pattern: Box<str>,
    /// Some of its hosts stand in full too.
    pub(crate) deviates: bool,
    /// The likeliest first.
    pub(crate) scopes: Box<[HostScope]>,
}

/// One scope.
#[derive(Debug)]
pub(crate) struct HostScope {
    pub(crate) signing_name: Box<str>,
    /// `{r}`: the region in the host; `{g}`: that of the partition's global services; else a region.
    pub(crate) region: Box<str>,
    pub(crate) variant: Variant,
}

/// All patterns.
#[derive(Debug)]
pub(crate) struct Hosts {
    rows: Vec<HostRow>,
    /// (half of the hash, number of the row + 1); a power of two, half empty.
    slots: Vec<(u32, u32)>,
}

impl Hosts {
    pub(crate) fn new(rows: Vec<HostRow>) -> Self {
        let mut slots = vec![(0, 0); (rows.len() * 2).next_power_of_two().max(2)];
        let mask = slots.len() - 1;
        for (number, row) in (1..).zip(&rows) {
            let hash = hash(&[&row.pattern]);
            let mut at = hash as usize & mask;
            while slots.get(at).is_some_and(|(_, taken)| *taken != 0) {
                at = (at + 1) & mask;
            }
            if let Some(slot) = slots.get_mut(at) {
                *slot = ((hash >> 32) as u32, number);
            }
        }
        Self { rows, slots }
    }

    /// The row whose pattern is these pieces, one after the other.
    pub(crate) fn find(&self, pieces: &[&str]) -> Option<&HostRow> {
        let (hash, mask) = (hash(pieces), self.slots.len() - 1);
        let mut at = hash as usize & mask;
        loop {
            let (half, number) = *self.slots.get(at)?;
            let row = self.rows.get((number as usize).checked_sub(1)?)?;
            if half == (hash >> 32) as u32 && is(&row.pattern, pieces) {
                return Some(row);
            }
            at = (at + 1) & mask;
        }
    }
}

fn is(mut pattern: &str, pieces: &[&str]) -> bool {
    pieces.iter().all(|piece| pattern.strip_prefix(piece).inspect(|rest| pattern = rest).is_some()) && pattern.is_empty()
}

/// FNV-1a's step over the bytes of all pieces, its halves mixed at the end.
fn hash(pieces: &[&str]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for piece in pieces {
        for byte in piece.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash ^ (hash >> 29)
}
