//! Vectors one behind the other, and what a query's similarity to each of them is.

use super::dot::dots;
use crate::embed::{EmbeddingSpace, UnitVector};

/// Many vectors of one space, laid out for scanning.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    values: Vec<i8>,
    /// For each row, its scale.
    scales: Vec<f32>,
    /// For each row, one over its length seen from the middle of the space.
    inverses: Vec<f32>,
}

/// A question to [`Rows`]: a centred unit vector in int16.
#[derive(Debug, Clone)]
pub struct Query {
    values: Vec<i16>,
    scale: f32,
    /// Its dot product with the middle of the space.
    mean_dot: f32,
}

impl Query {
    /// `vector` as the embedder gave it; `None` where it has no direction or not the space's dimensions.
    pub fn new(vector: &[f32], space: &EmbeddingSpace) -> Option<Self> {
        let centred = space.centre(vector)?;
        let mean_dot = centred.iter().zip(space.mean()).map(|(a, b)| a * b).sum();
        Some(Self { mean_dot, ..Self::of(&centred) })
    }

    /// `vector` as it is, for rows without a middle.
    pub fn of(vector: &[f32]) -> Self {
        let largest = vector.iter().fold(f32::EPSILON, |largest, value| largest.max(value.abs()));
        let scale = largest / f32::from(i16::MAX);
        let values = vector.iter().map(|value| (value / scale).round() as i16).collect();
        Self { values, scale, mean_dot: 0.0 }
    }
}

impl Rows {
    pub fn push(&mut self, vector: &UnitVector) {
        self.values.extend_from_slice(&vector.values);
        self.scales.push(vector.scale);
        self.inverses.push(1.0 / vector.centred_norm);
    }

    pub fn len(&self) -> usize {
        self.scales.len()
    }

    pub fn is_empty(&self) -> bool {
        self.scales.is_empty()
    }

    /// The cosine, seen from the middle of the space, of the query with each row in order.
    pub fn similarities(&self, query: &Query) -> Vec<f32> {
        let mut sums = Vec::with_capacity(self.len());
        dots(&query.values, &self.values, &mut sums);
        let rows = sums.into_iter().zip(&self.scales).zip(&self.inverses);
        rows.map(|((sum, scale), inverse)| (sum as f32 * (query.scale * scale) - query.mean_dot) * inverse).collect()
    }
}
