//! Vectors one behind the other, and what a query's similarity to each of them is.

use std::ops::Range;
use std::sync::Arc;

use super::dot::{self, dots};
use super::signature::{differences, signature};
use crate::embed::{EmbeddingSpace, UnitVector};

/// Rows that lie together in memory. What follows upon a full block leaves it as it is, so that clones share it.
const BLOCK_ROWS: usize = 1024;

/// How many rows ahead memory is asked for what will be needed, where rows are picked here and there.
const ROWS_AHEAD: usize = 8;

/// Many vectors of one space, laid out for scanning. Cheap to clone: only the last block is copied, and only once it is added to.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    blocks: Vec<Arc<Block>>,
    len: usize,
}

#[derive(Debug, Clone, Default)]
struct Block {
    values: Vec<i8>,
    signatures: Vec<u64>,
    /// For each row, the sum of its values.
    sums: Vec<i32>,
    /// For each row, its scale.
    scales: Vec<f32>,
    /// For each row, one over its length seen from the middle of the space.
    inverses: Vec<f32>,
}

/// A question to [`Rows`]: a centred unit vector in int16.
#[derive(Debug, Clone)]
pub struct Query {
    values: dot::Query,
    signature: Vec<u64>,
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
        let values = vector.iter().map(|value| rounded(value / scale)).collect();
        Self { values: dot::Query::new(values), signature: signature(vector.iter().copied()), scale, mean_dot: 0.0 }
    }

    /// The same for rows without a middle.
    pub fn without_middle(&self) -> Self {
        Self { mean_dot: 0.0, ..self.clone() }
    }

    /// The centred unit vector that it was made of, to 15 bits.
    #[cfg(feature = "hnsw")]
    pub(super) fn centred(&self) -> impl Iterator<Item = f32> {
        self.values.values().iter().map(|value| f32::from(*value) * self.scale)
    }

    /// Values of a vector that it can be compared with.
    pub fn dims(&self) -> usize {
        self.values.len()
    }
}

/// `value` rounded to the nearest whole number. Without a call, so that loops over it are vectorised.
fn rounded(value: f32) -> i16 {
    (value + 0.5f32.copysign(value)) as i16
}

impl Rows {
    /// Adds `vector` of a space whose middle is `mean`. With an empty `mean` it gets no signature, and can only be compared in full.
    pub fn push(&mut self, vector: &UnitVector, mean: &[f32]) {
        if self.len.is_multiple_of(BLOCK_ROWS) {
            self.blocks.push(Arc::default());
        }
        let block = self.blocks.last_mut().expect("one was just added where there was no room");
        Arc::make_mut(block).push(vector, mean);
        self.len += 1;
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that the rows take, without what the allocator adds.
    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.bytes()).sum()
    }

    /// One row, seen from the middle `mean` of the space, as a unit vector.
    #[cfg(feature = "hnsw")]
    pub(super) fn centred<'a>(&'a self, row: usize, mean: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        let (block, at) = (&self.blocks[row / BLOCK_ROWS], row % BLOCK_ROWS);
        let (scale, inverse) = (block.scales[at], block.inverses[at]);
        let values = &block.values[at * mean.len()..(at + 1) * mean.len()];
        values.iter().zip(mean).map(move |(value, mean)| (f32::from(*value) * scale - mean) * inverse)
    }

    /// The cosine, seen from the middle of the space, of the query with each row in order.
    pub fn similarities(&self, query: &Query) -> Vec<f32> {
        let mut similarities = Vec::with_capacity(self.len);
        let mut sums = Vec::with_capacity(BLOCK_ROWS);
        for block in &self.blocks {
            block.similarities(query, 0..block.scales.len(), &mut sums, &mut similarities);
        }
        similarities
    }

    /// The same for some rows alone, in the order in which they are named.
    pub fn similarities_of(&self, query: &Query, rows: impl Iterator<Item = usize> + Clone) -> Vec<f32> {
        let (mut similarities, mut sums) = (Vec::new(), Vec::new());
        let mut ahead = rows.clone().skip(ROWS_AHEAD);
        for row in rows {
            if let Some(next) = ahead.next() {
                self.blocks[next / BLOCK_ROWS].fetch(next % BLOCK_ROWS, query.dims());
            }
            let at = row % BLOCK_ROWS;
            self.blocks[row / BLOCK_ROWS].similarities(query, at..at + 1, &mut sums, &mut similarities);
        }
        similarities
    }

    /// In how many bits the query's signature differs from that of each row in order.
    pub fn differences(&self, query: &Query) -> Vec<u16> {
        let mut out = Vec::with_capacity(self.len);
        self.blocks.iter().for_each(|block| differences(&query.signature, &block.signatures, &mut out));
        out
    }
}

#[cfg(feature = "hnsw")]
impl Rows {
    /// In how many bits the query's signature differs from that of one row.
    pub(super) fn difference(&self, query: &Query, row: usize) -> u16 {
        let words = query.signature.len();
        let at = row % BLOCK_ROWS * words;
        let row = &self.blocks[row / BLOCK_ROWS].signatures[at..at + words];
        row.iter().zip(&query.signature).map(|(a, b)| (a ^ b).count_ones() as u16).sum()
    }
}

impl Block {
    fn push(&mut self, vector: &UnitVector, mean: &[f32]) {
        self.values.extend_from_slice(&vector.values);
        self.sums.push(vector.values.iter().map(|value| i32::from(*value)).sum());
        self.scales.push(vector.scale);
        self.inverses.push(1.0 / vector.centred_norm);
        let centred = vector.values.iter().zip(mean).map(|(value, mean)| f32::from(*value) * vector.scale - mean);
        self.signatures.extend(signature(centred));
    }

    fn similarities(&self, query: &Query, rows: Range<usize>, sums: &mut Vec<i32>, out: &mut Vec<f32>) {
        sums.clear();
        let values = &self.values[rows.start * query.dims()..rows.end * query.dims()];
        dots(&query.values, values, &self.sums[rows.clone()], sums);
        let rows = sums.iter().zip(&self.scales[rows.clone()]).zip(&self.inverses[rows]);
        out.extend(rows.map(|((sum, scale), inverse)| (*sum as f32 * (query.scale * scale) - query.mean_dot) * inverse));
    }

    /// Asks memory for a row, so that it is there when it is compared.
    #[inline]
    fn fetch(&self, row: usize, dims: usize) {
        dot::fetch(&self.values[row * dims..(row + 1) * dims]);
    }

    fn bytes(&self) -> usize {
        size_of_val(&self.values[..])
            + size_of_val(&self.signatures[..])
            + size_of_val(&self.sums[..])
            + size_of_val(&self.scales[..])
            + size_of_val(&self.inverses[..])
    }
}
