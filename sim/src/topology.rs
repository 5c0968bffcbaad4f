//! Who can reach whom.

use std::collections::BTreeSet;

use rand::RngExt;
use rand_chacha::ChaCha12Rng;

/// A shape of the underlying network. A dial between nodes that it does not join fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topology {
    Line,
    Ring,
    /// A random tree with half as many extra edges as nodes.
    Random,
    Full,
}

/// Undirected edges, the smaller number first.
pub type Edges = BTreeSet<(usize, usize)>;

/// The edge between two nodes.
pub fn edge(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Topology {
    pub fn edges(self, nodes: usize, rng: &mut ChaCha12Rng) -> Edges {
        match self {
            Self::Line => (1..nodes).map(|b| (b - 1, b)).collect(),
            Self::Ring => (0..nodes).map(|a| edge(a, (a + 1) % nodes)).filter(|(a, b)| a != b).collect(),
            Self::Random => random(nodes, rng),
            Self::Full => (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b))).collect(),
        }
    }
}

fn random(nodes: usize, rng: &mut ChaCha12Rng) -> Edges {
    let mut edges: Edges = (1..nodes).map(|b| (rng.random_range(0..b), b)).collect();
    for _ in 0..nodes / 2 {
        let (a, b) = (rng.random_range(0..nodes), rng.random_range(0..nodes));
        if a != b {
            edges.insert(edge(a, b));
        }
    }
    edges
}
