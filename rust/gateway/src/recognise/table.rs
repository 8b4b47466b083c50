//! What botocore's rules and AWS's documents say of hosts, by pattern: `{service}.{r}`, the region's label written `{r}`, each of a
//! customer's labels `*`.
//!
//! Open addressing over a hash of the pattern's pieces, so that a look-up copies and allocates nothing. The patterns are the
//! table's own: nobody can choose ones that collide.

use super::Variant;

/// A pattern and the scopes that its hosts may have.
#[derive(Debug)]
pub(crate) struct HostRow {
    pub(crate) pattern: Box<str>,
    flags: u8,
    /// The likeliest first.
    pub(crate) scopes: Box<[HostScope]>,
}

impl HostRow {
    pub(crate) fn new(pattern: &str, flags: u8, scopes: Vec<HostScope>) -> Self {
        Self { pattern: pattern.into(), flags, scopes: scopes.into() }
    }

    /// Some of its hosts stand in full too.
    pub(crate) fn deviates(&self) -> bool {
        self.flags & 1 != 0
    }

    /// What is asked there is none of the operations of the service's models.
    pub(crate) fn own_api(&self) -> bool {
        self.flags & 2 != 0
    }

    /// The endpoint's owner, a customer, may see what is sent there.
    pub(crate) fn owner_reads(&self) -> bool {
        self.flags & 4 != 0
    }
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
            let hash = Key::of(&row.pattern).hash();
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

    /// All rows.
    pub(crate) fn rows(&self) -> &[HostRow] {
        &self.rows
    }

    /// The row of this pattern.
    pub(crate) fn find(&self, key: Key<'_>) -> Option<&HostRow> {
        let (hash, mask) = (key.hash(), self.slots.len() - 1);
        let mut at = hash as usize & mask;
        loop {
            let (half, number) = *self.slots.get(at)?;
            let row = self.rows.get((number as usize).checked_sub(1)?)?;
            if half == (hash >> 32) as u32 && key.is(&row.pattern) {
                return Some(row);
            }
            at = (at + 1) & mask;
        }
    }
}

/// A pattern in its parts.
#[derive(Clone, Copy)]
pub(crate) struct Key<'a> {
    /// So many labels of a customer's stand before it.
    pub(crate) customers: u8,
    /// What stands before the region; without one, all of it.
    pub(crate) before: &'a str,
    /// What stands behind the region.
    pub(crate) after: Option<&'a str>,
}

impl<'a> Key<'a> {
    fn of(pattern: &'a str) -> Self {
        let (mut customers, mut rest) = (0, pattern);
        while let Some(next) = rest.strip_prefix(CUSTOMER) {
            (customers, rest) = (customers + 1, next);
        }
        let (before, after) = rest.split_once(REGION).map_or((rest, None), |(before, after)| (before, Some(after)));
        Self { customers, before, after }
    }

    fn is(&self, pattern: &str) -> bool {
        let rest = (0..self.customers).try_fold(pattern, |rest, _| rest.strip_prefix(CUSTOMER));
        let Some(rest) = rest.and_then(|rest| rest.strip_prefix(self.before)) else { return false };
        match self.after {
            Some(after) => rest.strip_prefix(REGION) == Some(after),
            None => rest.is_empty(),
        }
    }

    fn hash(&self) -> u64 {
        let before = hash(self.before, 0x243f_6a88_85a3_08d3 ^ u64::from(self.customers));
        let all = self.after.map_or(before, |after| hash(after, !before));
        all ^ (all >> 29)
    }
}

const REGION: &str = "{r}";
const CUSTOMER: &str = "*.";

/// Eight bytes a step, by multiplication and rotation (as in the Firefox hash).
fn hash(text: &str, seed: u64) -> u64 {
    let step = |hash: u64, word: u64| (hash.rotate_left(23) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    let hash = words.iter().fold(seed, |hash, word| step(hash, u64::from_le_bytes(*word)));
    let last = rest.iter().fold(text.len() as u64, |word, byte| (word << 8) | u64::from(*byte));
    let mixed = step(hash, last);
    mixed ^ (mixed >> 32)
}
