//! Vectors in groups, scanned in full: exact, nothing to build, and faster than a graph up to some 20,000 vectors.

use super::rows::{Query, Rows};
use crate::embed::UnitVector;

/// Groups of vectors: those of one body, or of one exemplar set.
#[derive(Debug, Default, Clone)]
pub struct ExactIndex {
    rows: Rows,
    /// How many of the rows belong to each group.
    counts: Vec<usize>,
}

/// What a scan makes of the similarities in one group.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Evidence {
    /// The sum of their weights.
    pub sum: f32,
    /// How many there are.
    pub count: f32,
}

impl std::ops::Add for Evidence {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { sum: self.sum + other.sum, count: self.count + other.count }
    }
}

impl ExactIndex {
    /// Adds a group behind the others.
    pub fn push(&mut self, vectors: &[UnitVector]) {
        vectors.iter().for_each(|vector| self.rows.push(vector));
        self.counts.push(vectors.len());
    }

    pub fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// For each group in order, the sum of what `weigh` makes of the similarities of its vectors.
    pub fn scan(&self, query: &Query, weigh: impl Fn(f32) -> f32) -> Vec<Evidence> {
        let mut weights = self.rows.similarities(query);
        // All at once and not group by group: this loop is vectorised.
        weights.iter_mut().for_each(|weight| *weight = weigh(*weight));
        let mut rest = weights.as_slice();
        let sum = |count: &usize| {
            let (group, others) = rest.split_at(*count);
            rest = others;
            Evidence { sum: group.iter().sum(), count: *count as f32 }
        };
        self.counts.iter().map(sum).collect()
    }
}
