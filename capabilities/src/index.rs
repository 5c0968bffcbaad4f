//! How similar a query is to each of many vectors.
//!
//! Up to some hundred groups of vectors are compared in full, in int8. Of more, signatures of one bit a dimension tell which are worth it,
//! and of very many (where the feature `hnsw` is on) a graph tells whose signatures to look at. The three answer alike; what is far away
//! is told apart less well the more there is.

#[cfg(feature = "hnsw")]
pub mod background;
pub mod dot;
pub mod exact;
#[cfg(feature = "hnsw")]
pub mod graph;
pub mod rows;
pub mod signature;
#[cfg(test)]
mod tests;

#[cfg(feature = "hnsw")]
pub use background::GraphJob;
pub use exact::{Evidence, ExactIndex};
pub use rows::{Query, Rows};

use crate::embed::UnitVector;

/// Rows from which on a graph is asked for. Among 100,000 both ways take as long (0.8 ms by signatures, 0.7 ms by graph, in the same run of
/// `benches/index.rs`); since a graph takes minutes to build and some 2 KB a row, it has to promise more than that.
#[cfg(feature = "hnsw")]
pub const GRAPH_FROM: usize = 200_000;
/// Rows that a graph is asked for: those of the bodies that are then compared in full.
#[cfg(feature = "hnsw")]
const NEAREST: usize = 256;

/// The vectors of many bodies, a group for each. A clone shares what was there and can be added to.
#[derive(Debug, Clone)]
pub struct Index {
    exact: ExactIndex,
    #[cfg(feature = "hnsw")]
    graphs: background::Graphs,
    #[cfg(feature = "hnsw")]
    graph_from: usize,
}

impl Index {
    /// Of nothing yet, in a space whose middle is `mean`.
    pub fn new(mean: &[f32]) -> Self {
        Self {
            exact: ExactIndex::new(mean),
            #[cfg(feature = "hnsw")]
            graphs: background::Graphs::default(),
            #[cfg(feature = "hnsw")]
            graph_from: GRAPH_FROM,
        }
    }

    /// The same, asking for a graph from so many rows on.
    #[cfg(feature = "hnsw")]
    pub fn with_graph_from(mean: &[f32], rows: usize) -> Self {
        Self { graph_from: rows, ..Self::new(mean) }
    }

    /// Adds groups behind the others.
    pub fn extend<'a>(&mut self, groups: impl IntoIterator<Item = &'a [UnitVector]>) {
        groups.into_iter().for_each(|vectors| self.exact.push(vectors));
        #[cfg(feature = "hnsw")]
        if self.exact.rows().len() >= self.graph_from {
            self.graphs.grow(self.exact.rows().len());
        }
    }

    /// All of it, for comparing in full.
    pub fn exact(&self) -> &ExactIndex {
        &self.exact
    }

    /// A graph that is due and that nobody is building yet.
    #[cfg(feature = "hnsw")]
    pub fn graph_job(&self) -> Option<GraphJob> {
        self.graphs.job(self.exact.rows(), self.exact.mean())
    }

    /// For each group in order, about the sum of what `weigh` makes of the similarities of its vectors.
    pub fn estimate(&self, query: &Query, weigh: impl Fn(f32) -> f32) -> Vec<f32> {
        #[cfg(feature = "hnsw")]
        if let Some(graph) = self.graphs.ready() {
            return self.exact.estimate_near(query, weigh, &graph.nearest(query, NEAREST), graph.rows());
        }
        self.exact.estimate(query, weigh)
    }
}
