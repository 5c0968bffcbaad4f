//! A graph over very many vectors (HNSW: Malkov and Yashunin 2018), searched in time that hardly grows with their number.
//!
//! Built from a frozen index wherever the caller likes, since it takes a millisecond or two for every vector. What comes later is not in it
//! and is looked at beside it; what is gone stays in it until the next one is built.

use std::fmt;

use hnsw_rs::anndists::dist::Distance;
use hnsw_rs::hnsw::Hnsw;

use super::dot::dot_of_rows;
use super::rows::{Query, Rows};

/// Links of each vector on a layer, and vectors looked at for finding them: the usual trade between memory, time and recall.
const LINKS: usize = 16;
const BUILD_WIDTH: usize = 200;
const LAYERS: usize = 16;
/// A value of a centred unit vector in fixed point. What lies beyond ±0.32 is cut, which a graph that only proposes can bear.
const ONE: f32 = 400.0;

/// Finds vectors near a query, by their numbers.
pub struct Graph {
    links: Hnsw<'static, i8, FixedPoint>,
    /// It knows the rows before this one.
    rows: usize,
}

/// One less the cosine of two unit vectors in fixed point. Never negative and never NaN: the library panics on either.
#[derive(Clone, Copy, Default)]
struct FixedPoint;

impl Distance<i8> for FixedPoint {
    fn eval(&self, a: &[i8], b: &[i8]) -> f32 {
        (1.0 - dot_of_rows(a, b) as f32 / (ONE * ONE)).max(0.0)
    }
}

impl Graph {
    /// Over all of `rows`, of a space whose middle is `mean`. Pure: the same rows give the same graph.
    pub fn build(rows: &Rows, mean: &[f32]) -> Self {
        let links = Hnsw::new(LINKS, rows.len().max(1), LAYERS, BUILD_WIDTH, FixedPoint);
        for row in 0..rows.len() {
            links.insert((&fixed(rows.centred(row, mean)), row));
        }
        Self { links, rows: rows.len() }
    }

    /// How many rows it knows: the first so many.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// About the `wanted` nearest rows, nearest first.
    pub fn nearest(&self, query: &Query, wanted: usize) -> Vec<u32> {
        if self.rows == 0 {
            return Vec::new();
        }
        let found = self.links.search(&fixed(query.centred()), wanted, wanted);
        found.into_iter().map(|neighbour| neighbour.get_origin_id() as u32).collect()
    }
}

fn fixed(centred: impl Iterator<Item = f32>) -> Vec<i8> {
    centred.map(|value| (value * ONE).round().clamp(-127.0, 127.0) as i8).collect()
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph").field("rows", &self.rows).finish_non_exhaustive()
    }
}
